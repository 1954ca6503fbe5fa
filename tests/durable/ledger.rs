//! What was published, what of it was acknowledged, what came of it to whom, and what that says: plain values.
//!
//! A stream is one publisher's messages to one topic, numbered from 0. A receiver is a session, or several that share a
//! subscription. At any moment holds:
//!
//! - nothing comes that was not sent, or changed, or with another topic or QoS;
//! - what is sent and received at QoS 2 comes once;
//! - a message comes without DUP no more often than its publisher sent it, at QoS 2 once: whatever else there is of it
//!   is marked as sent again. (What a broker had not kept yet when it was killed it has never seen, and at QoS 1 delivers anew.
//!   A link sends again as well: of what crosses one, each kill excuses one more copy.)
//! - messages of a stream come for the first time in their order.
//!
//! In the end everything that was acknowledged came to everybody who subscribed to it.

use std::collections::BTreeMap;

use tombolo::mqtt::packet::QoS;

use crate::harness::Message;
use crate::harness::Q2;

/// How many violations are kept, and how many of what is missing are listed.
const LISTED_MAX: usize = 20;
/// Padding of payloads is shorter than this.
const PADDING_MAX: usize = 400;

/// One message of a stream.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// How often its publisher has sent it.
    sent: u8,
    /// It is acknowledged.
    acknowledged: bool,
    /// And so that somebody has to get it.
    owed: bool,
    /// It must not come.
    forbidden: bool,
}

#[derive(Debug)]
struct Stream {
    topic: String,
    qos: QoS,
    entries: Vec<Entry>,
}

/// How often a message came to a receiver.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    unmarked: u8,
    marked: u8,
}

#[derive(Debug)]
struct Receiver {
    name: String,
    prefix: &'static str,
    qos: QoS,
    ordered: bool,
    seen: BTreeMap<usize, Vec<Seen>>,
}

/// What there was of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Messages that publishers sent, once each.
    pub(crate) published: u64,
    /// Those that they sent again.
    pub(crate) resent: u64,
    /// Acknowledged and owed.
    pub(crate) owed: u64,
    /// Messages that came to anybody.
    pub(crate) received: u64,
    /// Of those at QoS 1, what had come before.
    pub(crate) repeated: u64,
}

/// What crosses a link is below this.
const LINKED: &str = "x/";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How often a broker was killed.
    pub(crate) kills: u8,
    streams: Vec<Stream>,
    receivers: Vec<Receiver>,
    violations: Vec<String>,
    outstanding: usize,
    totals: Totals,
}

/// The payload of a message, which names it.
pub(crate) fn payload(stream: usize, number: usize) -> Vec<u8> {
    let mut bytes = format!("{stream}/{number}/").into_bytes();
    bytes.resize(bytes.len() + (stream + number * 7) % PADDING_MAX, b'x');
    bytes
}

/// Which message has this payload.
pub(crate) fn parse(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut parts = std::str::from_utf8(bytes).ok()?.split('/');
    let (stream, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (payload(stream, number) == bytes).then_some((stream, number))
}

impl Ledger {
    /// A stream whose messages are delivered with this topic.
    pub(crate) fn stream(&mut self, topic: &str, qos: QoS) -> usize {
        self.streams.push(Stream { topic: topic.to_owned(), qos, entries: Vec::new() });
        self.streams.len() - 1
    }

    /// Whoever is to get everything below a prefix, in order or not, from now on.
    pub(crate) fn receiver(&mut self, name: &str, prefix: &'static str, qos: QoS, ordered: bool) -> usize {
        let seen = BTreeMap::new();
        self.receivers.push(Receiver { name: name.to_owned(), prefix, qos, ordered, seen });
        self.receivers.len() - 1
    }

    pub(crate) fn topic(&self, stream: usize) -> &str {
        &self.streams[stream].topic
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// The number of the next message of a stream.
    pub(crate) fn next(&mut self, stream: usize) -> usize {
        let entries = &mut self.streams[stream].entries;
        entries.push(Entry::default());
        self.totals.published += 1;
        entries.len() - 1
    }

    /// A message is about to be sent.
    pub(crate) fn sent(&mut self, stream: usize, number: usize) {
        let entry = &mut self.streams[stream].entries[number];
        entry.sent = entry.sent.saturating_add(1);
        self.totals.resent += u64::from(entry.sent > 1);
    }

    /// A message was acknowledged; with 0x10 nobody subscribes to it.
    pub(crate) fn acknowledged(&mut self, stream: usize, number: usize, reason: u8) {
        if reason >= 0x80 {
            return self.violation(format!("{stream}/{number} was refused with {reason:#04x}"));
        }
        let Stream { topic, entries, .. } = &mut self.streams[stream];
        let entry = &mut entries[number];
        entry.acknowledged = true;
        if reason == 0x10 {
            if self.receivers.iter().any(|receiver| topic.starts_with(receiver.prefix)) {
                let what = format!("{stream}/{number} of {topic} is owed to nobody, it was said");
                self.violation(what);
            }
            return;
        }
        if std::mem::replace(&mut entry.owed, true) {
            return;
        }
        self.totals.owed += 1;
        let unseen =
            |receiver: &&Receiver| topic.starts_with(receiver.prefix) && !receiver.has_seen(stream, number);
        self.outstanding += self.receivers.iter().filter(unseen).count();
    }

    /// A message is not to come to anybody.
    pub(crate) fn forbid(&mut self, stream: usize, number: usize) {
        self.streams[stream].entries[number].forbidden = true;
    }

    /// How many messages were acknowledged and have to be received yet, by each of their receivers.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Something is not as it has to be.
    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < LISTED_MAX {
            self.violations.push(what);
        }
    }

    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A message came to a receiver.
    pub(crate) fn received(&mut self, receiver: usize, message: &Message) {
        self.totals.received += 1;
        if let Err(what) = self.judge(receiver, message) {
            let name = &self.receivers[receiver].name;
            let start =
                String::from_utf8_lossy(&message.payload[..message.payload.len().min(24)]).into_owned();
            let what = format!("{name}: {what}: {start} of {}, DUP {}", message.topic, message.dup);
            self.violation(what);
        }
    }

    fn judge(&mut self, receiver: usize, message: &Message) -> Result<(), &'static str> {
        let (stream, number) = parse(&message.payload).ok_or("came damaged")?;
        let published = self.streams.get(stream).ok_or("came from nowhere")?;
        let entry = *published.entries.get(number).ok_or("came before it was published")?;
        let receiver = &mut self.receivers[receiver];
        let qos = published.qos.min(receiver.qos);
        if entry.forbidden {
            return Err("must not come");
        }
        if message.topic != published.topic || !message.topic.starts_with(receiver.prefix) {
            return Err("came with another topic");
        }
        if message.qos != qos {
            return Err("came with another QoS");
        }
        let came = receiver.seen.entry(stream).or_default();
        let (is_first, is_next) = (came.get(number).is_none_or(Seen::is_none), number >= came.len());
        if is_next {
            came.resize(number + 1, Seen::default());
        }
        let seen = &mut came[number];
        let copies = if message.dup { &mut seen.marked } else { &mut seen.unmarked };
        *copies = copies.saturating_add(1);
        let sent_by_link = if published.topic.starts_with(LINKED) { self.kills } else { 0 };
        let copies_max = if published.qos == Q2 { 1 } else { entry.sent.saturating_add(sent_by_link) };
        let is_unmarked = !message.dup && seen.unmarked > copies_max;
        if is_first && entry.owed {
            self.outstanding -= 1;
        }
        self.totals.repeated += u64::from(!is_first);
        match () {
            () if !is_first && qos == Q2 => Err("came twice at QoS 2"),
            () if is_unmarked => Err("came again without DUP"),
            () if is_first && !is_next && receiver.ordered => Err("came behind a later one"),
            () => Ok(()),
        }
    }

    /// What was acknowledged and did not come.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for receiver in &self.receivers {
            for (index, stream) in self.streams.iter().enumerate() {
                if !stream.topic.starts_with(receiver.prefix) {
                    continue;
                }
                let owed = stream.entries.iter().enumerate().filter(|(_, entry)| entry.owed);
                let lost: Vec<usize> = owed
                    .map(|(number, _)| number)
                    .filter(|number| !receiver.has_seen(index, *number))
                    .collect();
                if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
                    let (count, all) = (lost.len(), stream.entries.len());
                    let (name, topic) = (&receiver.name, &stream.topic);
                    missing.push(format!(
                        "{name} lacks {count} of {topic} ({index}/{first} to {last} of {all})"
                    ));
                }
            }
        }
        missing.truncate(LISTED_MAX);
        missing
    }

    /// The number below which everything of a stream is acknowledged, and how many messages there are.
    pub(crate) fn progress(&self, stream: usize) -> (usize, usize) {
        let entries = &self.streams[stream].entries;
        let acknowledged = entries.iter().rposition(|entry| entry.acknowledged).map_or(0, |last| last + 1);
        (acknowledged, entries.len())
    }
}

impl Receiver {
    fn has_seen(&self, stream: usize, number: usize) -> bool {
        self.seen.get(&stream).and_then(|seen| seen.get(number)).is_some_and(|seen| !seen.is_none())
    }
}

impl Seen {
    fn is_none(&self) -> bool {
        self.unmarked == 0 && self.marked == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Q1;

    /// Three messages of one stream of this QoS, of which the last is not acknowledged, to a receiver of that QoS.
    fn ledger(published: QoS, subscribed: QoS) -> Ledger {
        let mut ledger = Ledger::default();
        let stream = ledger.stream("k/1", published);
        assert_eq!(ledger.receiver("one", "k/", subscribed, true), 0);
        for _ in 0..3 {
            let number = ledger.next(stream);
            ledger.sent(stream, number);
        }
        ledger.acknowledged(stream, 0, 0);
        ledger.acknowledged(stream, 1, 0);
        assert_eq!(ledger.outstanding(), 2);
        ledger
    }

    fn message(number: usize, qos: QoS, dup: bool) -> Message {
        Message { topic: "k/1".to_owned(), payload: payload(0, number), qos, dup, ..Message::default() }
    }

    /// What is said when these come, by number and DUP, to whoever subscribed with `subscribed`.
    fn said(published: QoS, subscribed: QoS, came: &[(usize, bool)]) -> Vec<String> {
        let mut ledger = ledger(published, subscribed);
        for (number, dup) in came {
            ledger.received(0, &message(*number, published.min(subscribed), *dup));
        }
        ledger.violations().to_vec()
    }

    #[test]
    fn everything_once_and_in_order_is_as_it_has_to_be() {
        for qos in [Q1, Q2] {
            assert!(said(qos, qos, &[(0, false), (1, false), (2, true)]).is_empty());
        }
        let mut ledger = ledger(Q2, Q2);
        ledger.received(0, &message(0, Q2, false));
        assert_eq!((ledger.outstanding(), ledger.missing().len()), (1, 1));
        ledger.received(0, &message(1, Q2, true));
        assert_eq!((ledger.outstanding(), ledger.missing().len()), (0, 0), "the third one is not owed yet");
        ledger.received(0, &message(2, Q2, false));
        ledger.acknowledged(0, 2, 0);
        assert_eq!(ledger.outstanding(), 0, "it came before its acknowledgement");
        assert_eq!(ledger.progress(0), (3, 3));
    }

    #[test]
    fn what_does_not_come_is_missing() {
        let mut ledger = ledger(Q1, Q1);
        ledger.received(0, &message(1, Q1, false));
        assert_eq!(ledger.missing(), ["one lacks 1 of k/1 (0/0 to 0 of 3)"]);
    }

    #[test]
    fn a_second_copy_at_qos_2_is_seen_whatever_its_flag() {
        for dup in [false, true] {
            let said = said(Q2, Q2, &[(0, false), (1, false), (0, dup)]);
            assert!(said.len() == 1 && said[0].contains("twice"), "{said:?}");
        }
    }

    #[test]
    fn a_second_copy_at_qos_1_has_dup_or_was_sent_twice() {
        for published in [Q1, Q2] {
            assert!(said(published, Q1, &[(0, false), (1, false), (0, true), (1, true)]).is_empty());
            let said = said(published, Q1, &[(0, false), (1, false), (0, false)]);
            assert!(said.len() == 1 && said[0].contains("without DUP"), "{said:?}");
        }
        for (published, violations) in [(Q1, 0), (Q2, 1)] {
            let mut ledger = ledger(published, Q1);
            ledger.sent(0, 0);
            (0..2).for_each(|_| ledger.received(0, &message(0, Q1, false)));
            assert_eq!(ledger.violations().len(), violations, "a broker takes each of QoS 2 once");
        }
    }

    #[test]
    fn a_kill_excuses_a_copy_of_what_crosses_a_link_at_qos_1() {
        for (topic, qos, violations) in [("k/1", Q1, 2), ("x/1", Q1, 1), ("x/1", Q2, 2)] {
            let mut ledger = Ledger { kills: 1, ..Ledger::default() };
            ledger.stream(topic, qos);
            ledger.receiver("one", "", Q1, true);
            ledger.next(0);
            ledger.sent(0, 0);
            let message = Message { topic: topic.to_owned(), ..message(0, Q1, false) };
            (0..3).for_each(|_| ledger.received(0, &message));
            assert_eq!(ledger.violations().len(), violations, "{topic}");
        }
    }

    #[test]
    fn a_first_copy_behind_a_later_one_is_seen() {
        let said = said(Q1, Q1, &[(1, false), (0, false)]);
        assert!(said.len() == 1 && said[0].contains("behind"), "{said:?}");
    }

    #[test]
    fn what_is_changed_or_unknown_or_refused_or_forbidden_is_seen() {
        let mut ledger = ledger(Q1, Q1);
        let changes: [fn(&mut Message); 6] = [
            |message| message.payload[3] ^= 1,
            |message| message.payload = payload(0, 3),
            |message| message.payload = payload(1, 0),
            |message| message.topic.push('1'),
            |message| message.qos = Q2,
            |message| message.payload.push(b'x'),
        ];
        for change in changes {
            let before = ledger.violations().len();
            let mut message = message(0, Q1, false);
            change(&mut message);
            ledger.received(0, &message);
            assert_eq!(ledger.violations().len(), before + 1, "{message:?}");
        }
        ledger.acknowledged(0, 2, 0x97);
        ledger.forbid(0, 1);
        ledger.received(0, &message(1, Q1, false));
        assert_eq!(ledger.violations().len(), changes.len() + 2);
    }

    #[test]
    fn that_nobody_subscribes_is_said_where_it_is_true() {
        let mut ledger = ledger(Q1, Q1);
        ledger.acknowledged(0, 2, 0x10);
        assert_eq!((ledger.violations().len(), ledger.outstanding()), (1, 2));
        assert_eq!(ledger.progress(0), (3, 3), "but it is acknowledged");
        let other = ledger.stream("r/1", Q1);
        ledger.next(other);
        ledger.acknowledged(other, 0, 0x10);
        assert_eq!((ledger.violations().len(), ledger.outstanding()), (1, 2));
    }
}
