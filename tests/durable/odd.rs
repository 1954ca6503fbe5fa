//! What is not published at once: messages behind `$delayed/`, and Wills of clients that vanish. And what is retained.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::smallvec;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::book::Book;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::id;
use crate::harness::message;
use crate::harness::options;
use crate::harness::properties;
use crate::ledger::parse;
use crate::ledger::payload;
use crate::line::Address;
use crate::line::Identity;
use crate::line::Line;
use crate::mutate::Dice;
use crate::publisher::REMOVES_EVERY;

/// Seconds.
const DELAY_MAX: usize = 3;
/// What is subscribed to for the sake of its acknowledgement: the session is kept from then on.
const NOWHERE: &str = "nowhere";

/// Clients that each do one thing, with one broker.
pub(crate) struct Odd {
    pub(crate) book: Arc<Book>,
    pub(crate) at: Address,
    /// The streams of delayed messages, of Wills, and of what is retained.
    pub(crate) delayed: usize,
    pub(crate) wills: usize,
    pub(crate) retained: Vec<usize>,
    pub(crate) dice: Dice,
    /// How many clients there were.
    pub(crate) clients: usize,
}

impl Odd {
    fn identity(&mut self, version: Version, name: &str, clean_start: bool) -> Identity {
        self.clients += 1;
        Identity { clean_start, ..Identity::new(version, &format!("{name}-{}", self.clients), &self.at) }
    }

    /// Publishes a message that is to come later.
    pub(crate) async fn delay(&mut self) {
        let Some(mut line) = self.identity(Version::V5, "delays", true).connect_once(None).await else {
            return;
        };
        let stream = self.delayed;
        let seconds = self.dice.roll(DELAY_MAX) + 1;
        let (number, topic) = self.book.with(|ledger| {
            let number = ledger.next(stream);
            ledger.sent(stream, number);
            (number, format!("$delayed/{seconds}/{}", ledger.topic(stream)))
        });
        let payload = payload(stream, number);
        line.put(&Packet::Publish(Publish { qos: Q1, packet_id: Some(id(1)), ..message(&topic, &payload) }));
        match line.next().await {
            Got::Ack(PacketType::PubAck, 1, reason) => self.book.acknowledge(stream, number, reason & 0x80),
            Got::Closed => {}
            other => panic!("{other:?}"),
        }
    }

    /// Connects with a Will, which comes when this connection is lost.
    pub(crate) async fn threaten(&mut self) -> Option<Line> {
        let (mut line, number) = self.with_will().await?;
        if subscribe(&mut line, NOWHERE).await.is_some() {
            self.book.acknowledge(self.wills, number, 0);
        }
        Some(line)
    }

    /// Connects with a Will and goes as one should: it never comes, once that is on the disk.
    pub(crate) async fn relent(&mut self) -> Option<()> {
        let (mut line, number) = self.with_will().await?;
        line.put(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }));
        while line.next().await != Got::Closed {}
        let mut other = self.identity(Version::V5, "after", false).connect_once(None).await?;
        if subscribe(&mut other, NOWHERE).await.is_some() {
            self.book.with(|ledger| ledger.forbid(self.wills, number));
        }
        Some(())
    }

    async fn with_will(&mut self) -> Option<(Line, usize)> {
        let version = if self.dice.roll(3) == 0 { Version::V311 } else { Version::V5 };
        let stream = self.wills;
        let (number, topic) = self.book.with(|ledger| {
            let number = ledger.next(stream);
            ledger.sent(stream, number);
            (number, ledger.topic(stream).to_owned())
        });
        let payload = payload(stream, number);
        let delay = properties(&[Property::WillDelayInterval(self.dice.roll(DELAY_MAX) as u32)]);
        let properties = if version == Version::V5 { delay.as_properties() } else { Properties::EMPTY };
        let will = Will { qos: Q1, retain: false, properties, topic: &topic, payload: &payload };
        let line = self.identity(version, "will", false).connect_once(Some(will)).await?;
        Some((line, number))
    }

    /// What is retained is not older than what was acknowledged.
    pub(crate) async fn look(&mut self) {
        let before = self.progress();
        let Some(mut line) = self.identity(Version::V5, "looks", true).connect_once(None).await else {
            return;
        };
        // With the SUBACK they are on their way, and before the answer to what is asked afterwards.
        let Some(mut got) = subscribe(&mut line, "r/#").await else { return };
        let (rest, true) = line.drain().await else { return };
        got.extend(rest);
        let after = self.progress();
        let retained: HashMap<String, Vec<u8>> = got.into_iter().filter_map(retained).collect();
        for ((stream, (acknowledged, _)), (_, (_, sent))) in before.into_iter().zip(after) {
            let topic = self.book.with(|ledger| ledger.topic(stream).to_owned());
            if let Err(what) = judge(stream, acknowledged, sent, retained.get(&topic).map(Vec::as_slice)) {
                self.book.violation(format!("retained in {topic}: {what}"));
            }
        }
    }

    fn progress(&self) -> Vec<(usize, (usize, usize))> {
        self.book
            .with(|ledger| self.retained.iter().map(|stream| (*stream, ledger.progress(*stream))).collect())
    }
}

/// Whether this may be retained when so many messages are acknowledged and so many sent.
fn judge(stream: usize, acknowledged: usize, sent: usize, found: Option<&[u8]>) -> Result<(), String> {
    let oldest = acknowledged.saturating_sub(1);
    let is_removal = |number: usize| number % REMOVES_EVERY == REMOVES_EVERY - 1;
    match found.map(parse) {
        None if acknowledged == 0 || (oldest..sent).any(is_removal) => Ok(()),
        None => Err(format!("nothing, though {oldest} was acknowledged")),
        Some(Some((of, number))) if of == stream && (oldest..sent).contains(&number) => Ok(()),
        Some(Some((of, number))) => Err(format!("{of}/{number}, though {stream}/{oldest} was acknowledged")),
        Some(None) => Err("something else".to_owned()),
    }
}

fn retained(got: Got) -> Option<(String, Vec<u8>)> {
    match got {
        Got::Publish(message) if message.retain => Some((message.topic, message.payload)),
        _ => None,
    }
}

/// Subscribes; what came until the SUBACK, if that came.
async fn subscribe(line: &mut Line, filter: &str) -> Option<Vec<Got>> {
    line.put(&Packet::Subscribe(Subscribe {
        packet_id: id(1),
        properties: Properties::EMPTY,
        filters: smallvec![SubscribeFilter { filter, options: options(Q0) }],
    }));
    let mut before = Vec::new();
    loop {
        match line.next().await {
            Got::SubAck(1, _) => return Some(before),
            Got::Closed => return None,
            got => before.push(got),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retained_is_as_new_as_what_was_acknowledged() {
        let found = |number| Some(payload(3, number));
        let verdict = |acknowledged, sent, found: Option<Vec<u8>>| {
            judge(3, acknowledged, sent, found.as_deref()).is_ok()
        };
        assert!(verdict(0, 0, None) && verdict(0, 2, None) && verdict(0, 2, found(0)));
        assert!(verdict(3, 5, found(2)) && verdict(3, 5, found(4)));
        assert!(!verdict(3, 5, found(1)), "an older one");
        assert!(!verdict(3, 5, found(5)), "one that was not sent");
        assert!(!verdict(3, 5, None), "none");
        assert!(verdict(6, 7, None) && verdict(7, 7, None), "the seventh removes it");
        assert!(!verdict(7, 7, found(5)) && !verdict(8, 9, None), "and the eighth is there again");
        assert!(!verdict(3, 5, Some(payload(2, 2))) && !verdict(3, 5, Some(b"x".to_vec())));
    }
}
