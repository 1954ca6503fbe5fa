//! The run of one burst: consecutive messages with the same receivers, gathered where the burst has them, then
//! delivered and acknowledged together.
//!
//! Nothing is allocated for it: the thread lends the memory ([`crate::broker::lent`]), copies of what the burst does not
//! have as it is passed on included. Packets that go out as they came are noted by their place.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::broker::Targets;
use crate::broker::connection::Connection;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::lent::Scratch;
use crate::broker::link_ingress::alike::Likes;
use crate::broker::outbox;
use crate::broker::packets::Turn;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::PacketType as Label;
use crate::mqtt::encode;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::property::PublishProperties;
use crate::mqtt::reason::ReasonCode;
use crate::session::frames::Received;
use crate::session::frames::Run;
use crate::session::message::Publication;
use crate::storage::store::Trouble;

/// The messages of a run before it is delivered; no burst of small ones makes it longer.
const RUN_MAX: usize = 1_024;

/// How a message of a run is to be acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Which message of the run.
    pub(super) index: u32,
    /// The QoS of the PUBLISH that brought it.
    qos: QoS,
    /// Its Packet Identifier.
    id: PacketId,
}

/// The run that is being gathered.
#[derive(Debug, Default)]
pub struct Gathering<'a> {
    publications: Vec<Publication<'a>>,
    answers: Vec<Answer>,
    pub(super) targets: Option<Arc<Targets>>,
    /// The Topic Name of the last PUBLISH where the burst has it, its QoS and its RETAIN. Another one that has the
    /// same ones goes the same way without a question.
    last: (&'a str, QoS, bool),
    /// The messages are those that a peer forwarded, inside of such PUBLISH packets; `last` stays when they are
    /// delivered, as it does not speak of `targets`.
    pub(super) forwarded: bool,
    /// What the likes of its last message look like, if that is one of a peer.
    pub(super) likes: Option<Likes<'a>>,
    /// Where in the burst the packets of the run stand, as long as they follow one another and go out as they came.
    packets: Option<Range<usize>>,
    packet_len_max: usize,
}

impl<'a> Gathering<'a> {
    /// Nothing yet, in such memory.
    pub(super) fn new(publications: Vec<Publication<'a>>, answers: Vec<Answer>) -> Self {
        Self { publications, answers, ..Self::default() }
    }

    /// Its memory.
    pub(super) fn into_parts(self) -> (Vec<Publication<'a>>, Vec<Answer>) {
        (self.publications, self.answers)
    }

    /// The Topic Name of the last PUBLISH, or nothing.
    pub(super) fn topic(&self) -> &'a str {
        self.last.0
    }

    /// The Topic Name of the last message that waits here, or nothing.
    pub(super) fn topic_of_message(&self) -> &'a str {
        self.publications.last().map_or("", |publication| publication.topic)
    }

    /// Whether the run takes no more messages.
    pub(super) fn is_full(&self) -> bool {
        self.publications.len() >= RUN_MAX
    }

    /// Adds a message of a peer that differs from the last one in nothing but its payload, brought by a PUBLISH like the
    /// last. Gives the QoS of that.
    pub(super) fn add_alike(&mut self, payload: &'a [u8], packet_id: Option<PacketId>) -> QoS {
        let qos = self.last.1;
        if let Some(last) = self.publications.last() {
            let (publication, index) = (Publication { payload, ..*last }, self.publications.len() as u32);
            self.answers.extend(packet_id.map(|id| Answer { index, qos, id }));
            self.publications.push(publication);
        }
        qos
    }

    /// Notes what brought the last message.
    pub(super) fn note_publish(&mut self, publish: &Publish<'a>) {
        self.last = (publish.topic, publish.qos, publish.retain);
    }

    /// Whether the PUBLISH before had the same Topic Name, QoS and RETAIN.
    pub(super) fn repeats(&self, publish: &Publish<'_>) -> bool {
        let (topic, qos, retain) = self.last;
        !topic.is_empty()
            && std::ptr::eq(publish.topic, topic)
            && publish.qos == qos
            && publish.retain == retain
    }

    /// Notes where the packet of the next message stands, and whether it goes out as it came.
    fn note_packet(&mut self, at: &Range<usize>, unchanged: bool) {
        let len = at.len();
        if self.publications.is_empty() {
            self.packets = unchanged.then(|| at.clone());
            self.packet_len_max = len;
            return;
        }
        self.packet_len_max = self.packet_len_max.max(len);
        match &mut self.packets {
            Some(packets) if unchanged && packets.end == at.start => packets.end = at.end,
            packets => *packets = None,
        }
    }
}

impl<'a> Turn<'_, 'a> {
    /// Adds a message to the run, or delivers it alone if its parts have no place to stay until the run is delivered.
    pub(super) fn take_in(
        &mut self,
        publish: &Publish<'a>,
        of: &PublishProperties,
        topic: Cow<'a, str>,
        other: Option<Arc<Targets>>,
    ) {
        let properties = self.passed_on(publish, of);
        let rest = Publication {
            topic: "",
            properties: &[],
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expiry: self.expiry(of),
        };
        match (topic, properties) {
            (Cow::Borrowed(topic), Cow::Borrowed(properties)) => {
                self.begin(false);
                let unchanged = publish.qos == QoS::AtMostOnce && !publish.retain && of.topic_alias.is_none();
                let answer = publish.packet_id.map(|id| (publish.qos, id));
                self.gather(Publication { topic, properties, ..rest }, answer, other, unchanged);
            }
            (topic, properties) => {
                let targets = other.or_else(|| self.gathering.targets.clone());
                self.flush();
                let Some(targets) = targets else { return };
                let one = [Publication { topic: &topic, properties: &properties, ..rest }];
                let answer = publish.packet_id.map(|id| Answer { index: 0, qos: publish.qos, id });
                self.hand_over(&one, answer.as_slice(), &targets, None);
            }
        }
    }

    /// The properties that are passed on: where they stand, or a copy without the others.
    fn passed_on(&mut self, publish: &Publish<'a>, of: &PublishProperties) -> Cow<'a, [u8]> {
        let all = publish.properties.as_bytes();
        if of.all_forwarded {
            return Cow::Borrowed(all);
        }
        let Some(room) = self.room(all.len()) else { return publish.properties.forwarded() };
        let len = publish.properties.forwarded_into(room);
        Cow::Borrowed(&room[..len])
    }

    /// So many bytes that live as long as the burst.
    pub(super) fn room(&mut self, len: usize) -> Option<&'a mut [u8]> {
        if len > self.copies.len() {
            self.needs_copies = true;
            return None;
        }
        let (room, rest) = std::mem::take(&mut self.copies).split_at_mut(len);
        self.copies = rest;
        Some(room)
    }

    /// Ends the run if it is of the other kind.
    #[inline]
    pub(super) fn begin(&mut self, forwarded: bool) {
        if self.gathering.forwarded != forwarded {
            self.flush();
            self.gathering.forwarded = forwarded;
        }
    }

    /// Adds a message to the run, after delivering the run before it if that had other receivers.
    #[inline(always)]
    pub(super) fn gather(
        &mut self,
        publication: Publication<'a>,
        answer: Option<(QoS, PacketId)>,
        other: Option<Arc<Targets>>,
        unchanged: bool,
    ) {
        if other.is_some() {
            self.flush();
            self.gathering.targets = other;
        } else if self.gathering.is_full() {
            let same = self.gathering.targets.clone();
            self.flush();
            self.gathering.targets = same;
        }
        let Self { gathering, at, .. } = self;
        gathering.note_packet(at, unchanged);
        if let Some((qos, id)) = answer {
            let index = gathering.publications.len() as u32;
            gathering.answers.push(Answer { index, qos, id });
        }
        gathering.last = (publication.topic, publication.qos, publication.retain);
        gathering.publications.push(publication);
    }

    /// Delivers the run, in the order it came (`[MQTT-4.6.0-5]`), and acknowledges it.
    pub(super) fn flush(&mut self) {
        let Some(targets) = self.gathering.targets.take() else { return };
        let Gathering { mut publications, mut answers, packets, packet_len_max, forwarded, last, .. } =
            std::mem::take(&mut self.gathering);
        if forwarded {
            self.withhold_repeated(&mut publications, &answers);
            let reached = self.deliver_forwarded(&publications, &targets);
            self.acknowledge_all(&answers, reached.reason());
        } else {
            let version = self.connection.version;
            let received =
                packets.map(|packets| Received::new(&self.burst[packets], version, packet_len_max));
            self.hand_over(&publications, &answers, &targets, received);
        }
        publications.clear();
        answers.clear();
        self.gathering = Gathering::new(publications, answers);
        if forwarded {
            self.gathering.forwarded = true;
            self.gathering.last = last;
        }
    }

    fn hand_over(
        &mut self,
        publications: &[Publication<'_>],
        answers: &[Answer],
        targets: &Targets,
        received: Option<Received<'_>>,
    ) {
        if let Some(trouble) = self.connection.broker.cannot_keep(publications, targets) {
            return self.hand_over_unkept(publications, answers, targets, trouble);
        }
        let Connection { broker, lent, publisher, client, .. } = &mut *self.connection;
        let Scratch { counts, frames, .. } = lent.scratch();
        let mut run = Run::new(publications, frames, self.now).as_received(received);
        let stored = broker.retain_run(&mut run, &publisher.identity, self.now.unix_ms);
        let source = Source::Client(&publisher.identity, client.key);
        // Messages that the spool of a link refused.
        let mut full = Vec::new();
        let reached = broker.deliver(&mut run, targets, source, self.now, &mut counts.tally, &mut full);
        if reached == Reached::Nobody {
            counts.no_subscribers += publications.len() as u64;
        }
        let reason = reached.reason();
        if full.is_empty() && stored.is_empty() {
            self.acknowledge_all(answers, reason);
        } else {
            for &Answer { index, qos, id } in answers {
                let index = index as usize;
                if full.contains(&index) {
                    self.refuse_full(qos, id);
                    continue;
                }
                let refused = stored.get(index).is_some_and(|stored| !stored);
                self.acknowledge(qos, id, if refused { ReasonCode::QuotaExceeded } else { reason });
            }
        }
    }

    /// The same while nothing can be kept: what would have to be is refused, and what nobody promised is delivered.
    #[cold]
    fn hand_over_unkept(
        &mut self,
        publications: &[Publication<'_>],
        answers: &[Answer],
        targets: &Targets,
        trouble: Trouble,
    ) {
        let unpromised: Vec<Publication<'_>> =
            publications.iter().filter(|one| one.qos == QoS::AtMostOnce).copied().collect();
        if !unpromised.is_empty() {
            self.hand_over(&unpromised, &[], targets, None);
        }
        let refused = &self.connection.broker.metrics.broker.messages_dropped[DropReason::Store];
        refused.add(answers.len() as u64);
        for &Answer { qos, id, .. } in answers {
            self.refuse_with(qos, id, outbox::reason_of(trouble));
        }
    }

    /// Acknowledges every message of a run alike, without an error.
    fn acknowledge_all(&mut self, all: &[Answer], reason: ReasonCode) {
        let Connection { version, answers, lent, .. } = &mut *self.connection;
        let mut received = 0;
        for &Answer { qos, id, .. } in all {
            let is_received = qos == QoS::ExactlyOnce;
            received += u64::from(is_received);
            let kind = if is_received { PacketType::PubRec } else { PacketType::PubAck };
            encode::encode_ack(kind, *version, id, reason, answers);
        }
        if !all.is_empty() {
            lent.counts().sent_many(Label::PubRec, received);
            lent.counts().sent_many(Label::PubAck, all.len() as u64 - received);
        }
    }
}
