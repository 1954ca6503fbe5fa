//! A session against a correct client and a network that loses what it likes: what was promised holds.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::mqtt::decode;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::encode;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::session::frames::RunFrames;
use crate::session::message::Expiry;
use crate::session::message::Publication;
use crate::session::queue::WhenFull;
use crate::session::tally::DropReason;

mod crowded;
mod kept;
mod sole;
mod waiting;

const LIMITS: QueueLimits = QueueLimits {
    messages_max: 1_000,
    bytes_max: 1 << 30,
    when_full: WhenFull::DropOldest,
    wait_ms_max: None,
};
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn output(version: Version, receive_maximum: u16, max_packet_size: u32) -> Output {
    Output { version, max_packet_size, receive_maximum, bytes: Vec::new(), aliases: None }
}

fn attachment(output: Output) -> Attachment {
    Attachment { output, session_expiry_seconds: 100, silence_allowed_ms: None, will: None, kept: false }
}

fn publication(payload: &[u8], qos: QoS) -> Publication<'_> {
    Publication { topic: "t", properties: b"", payload, qos, retain: false, expiry: None }
}

fn deliver(session: &mut Session, publications: &[Publication<'_>], now: Now, tally: &mut Tally) {
    let grant =
        Grant { qos: QoS::ExactlyOnce, retain_as_published: false, subscription_ids: &[], shared: None };
    session.deliver_run(&mut Run::new(publications, &mut RunFrames::default(), now), &grant, now, tally);
}

/// A packet on its way to the client.
#[derive(Debug, Clone)]
enum ToClient {
    Publish { id: Option<PacketId>, qos: QoS, dup: bool, serial: u32 },
    PubRel(PacketId),
}

/// A packet on its way to the session.
#[derive(Debug, Clone, Copy)]
enum ToSession {
    Acknowledge(PacketId),
    Receive(PacketId),
    Complete(PacketId),
}

/// A session, a client that follows the standard, and two wires that are cut now and then.
struct World {
    session: Session,
    tally: Tally,
    now: Now,
    next_serial: u32,
    /// Published, by QoS.
    published: [u32; 3],
    to_client: VecDeque<ToClient>,
    to_session: VecDeque<ToSession>,
    version: Version,
    receive_maximum: u16,
    max_packet_size: u32,
    /// QoS 2 identifiers the client has seen and not yet released: its Session State.
    unreleased: BTreeSet<PacketId>,
    /// What reached the client's application, by QoS.
    seen: [Vec<u32>; 3],
    /// PUBLISH packets of this connection without their final acknowledgement.
    outstanding: BTreeSet<PacketId>,
    /// Deliveries in flight over connections, by identifier.
    owned: HashMap<PacketId, u32>,
    /// The session outlives the process.
    kept: bool,
}

impl World {
    fn new(limits: QueueLimits, store_qos0: bool) -> Self {
        Self {
            session: Session::new(Bounds::new(limits, store_qos0)),
            tally: Tally::default(),
            now: Now::default(),
            next_serial: 0,
            published: [0; 3],
            to_client: VecDeque::new(),
            to_session: VecDeque::new(),
            version: Version::V5,
            receive_maximum: 1,
            max_packet_size: u32::MAX,
            unreleased: BTreeSet::new(),
            seen: [Vec::new(), Vec::new(), Vec::new()],
            outstanding: BTreeSet::new(),
            owned: HashMap::new(),
            kept: false,
        }
    }

    fn connect(&mut self, version: Version, receive_maximum: u16, max_packet_size: u32) {
        self.disconnect();
        (self.version, self.receive_maximum) = (version, receive_maximum);
        self.max_packet_size = max_packet_size;
        let output = output(version, receive_maximum, max_packet_size);
        self.session.attach(Attachment { kept: self.kept, ..attachment(output) }, self.now);
    }

    /// Both wires are cut: what is on them is lost.
    fn disconnect(&mut self) {
        if self.session.is_connected() {
            self.session.detach(Ending::WithWill, self.now);
        }
        self.to_client.clear();
        self.to_session.clear();
        self.outstanding.clear();
    }

    fn publish(&mut self, burst: &[(QoS, usize)]) {
        let payloads: Vec<Vec<u8>> = burst
            .iter()
            .map(|(qos, padding)| {
                let mut payload = self.next_serial.to_be_bytes().to_vec();
                payload.resize(4 + padding, 0);
                self.next_serial += 1;
                self.published[*qos as usize] += 1;
                payload
            })
            .collect();
        let publications: Vec<_> =
            payloads.iter().zip(burst).map(|(payload, (qos, _))| publication(payload, *qos)).collect();
        deliver(&mut self.session, &publications, self.now, &mut self.tally);
    }

    /// The driver sends what there is.
    fn drive(&mut self) {
        let mut bytes = Vec::new();
        self.session.take_output(&mut bytes, self.now, &mut self.tally);
        let limits = DecodeLimits { version: Some(self.version), max_packet_size: self.max_packet_size };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            // A packet above the client's Maximum Packet Size does not decode ([MQTT-3.1.2-24]).
            let Ok(Decoded::Packet { packet, len }) = decode::decode(rest, &limits) else {
                panic!("{:?}", decode::decode(rest, &limits))
            };
            rest = &rest[len..];
            match packet {
                Packet::Publish(publish) => self.sent(&publish),
                Packet::PubRel(ack) => self.to_client.push_back(ToClient::PubRel(ack.packet_id)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn sent(&mut self, publish: &Publish<'_>) {
        let serial = u32::from_be_bytes(publish.payload[..4].try_into().unwrap());
        if let Some(id) = publish.packet_id {
            let before = self.owned.insert(id, serial);
            // A repetition may be the first that leaves us: what the output held went with its connection.
            let free = before.is_none() || (publish.dup && before == Some(serial));
            assert!(free, "[MQTT-2.2.1-4], [MQTT-4.4.0-1]: identifier {id}");
            assert!(self.outstanding.insert(id), "sent twice on one connection");
            let in_flight = self.outstanding.len();
            assert!(in_flight <= usize::from(self.receive_maximum), "[MQTT-3.3.4-9]: {in_flight}");
        }
        let (id, qos, dup) = (publish.packet_id, publish.qos, publish.dup);
        self.to_client.push_back(ToClient::Publish { id, qos, dup, serial });
    }

    /// The client handles some packets.
    fn client(&mut self, count: usize) {
        for _ in 0..count {
            match self.to_client.pop_front() {
                None => return,
                Some(ToClient::Publish { id: None, serial, .. }) => self.seen[0].push(serial),
                Some(ToClient::Publish { id: Some(id), qos: QoS::AtLeastOnce, dup, serial }) => {
                    let again = self.seen[1].contains(&serial);
                    assert!(dup || !again, "a repetition says so ([MQTT-3.3.1-1])");
                    if !again {
                        self.seen[1].push(serial);
                    }
                    self.to_session.push_back(ToSession::Acknowledge(id));
                }
                Some(ToClient::Publish { id: Some(id), serial, .. }) => {
                    if self.unreleased.insert(id) {
                        self.seen[2].push(serial);
                    }
                    self.to_session.push_back(ToSession::Receive(id));
                }
                Some(ToClient::PubRel(id)) => {
                    self.unreleased.remove(&id);
                    self.to_session.push_back(ToSession::Complete(id));
                }
            }
        }
    }

    /// The session handles some acknowledgements.
    fn session(&mut self, count: usize) {
        for _ in 0..count {
            match self.to_session.pop_front() {
                None => return,
                Some(ToSession::Acknowledge(id)) => {
                    assert!(self.session.handle_puback(id));
                    self.done(id);
                }
                Some(ToSession::Receive(id)) => {
                    assert_eq!(
                        self.session.handle_pubrec(id, ReasonCode::Success),
                        Some(ReasonCode::Success)
                    );
                    self.to_client.push_back(ToClient::PubRel(id));
                }
                Some(ToSession::Complete(id)) => {
                    // A PUBREL that was sent again is answered again.
                    if self.session.handle_pubcomp(id) {
                        self.done(id);
                    }
                }
            }
        }
    }

    fn done(&mut self, id: PacketId) {
        self.owned.remove(&id);
        self.outstanding.remove(&id);
    }

    fn check(&self) {
        for (qos, seen) in QOS.iter().zip(&self.seen) {
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{qos:?} in order and once: {seen:?}");
        }
        assert!(self.session.queued() <= LIMITS.messages_max);
        assert!(self.session.in_flight() >= self.owned.len());
    }

    /// Everything that is owed reaches the client.
    fn settle(&mut self) {
        self.connect(Version::V5, 10, u32::MAX);
        for round in 0.. {
            assert!(round < 100_000, "the session is stuck");
            self.drive();
            self.client(usize::MAX);
            self.session(usize::MAX);
            self.check();
            if self.session.queued() + self.session.in_flight() == 0 {
                return;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<(QoS, usize)>),
    Drive,
    Client(usize),
    Session(usize),
    Connect(Version, u16),
    Disconnect,
}

fn step(padding: impl Strategy<Value = usize> + Clone + 'static) -> impl Strategy<Value = Step> {
    let message = (prop::sample::select(&QOS[..]), padding);
    prop_oneof![
        4 => prop::collection::vec(message, 1..6).prop_map(Step::Publish),
        4 => Just(Step::Drive),
        4 => (1usize..8).prop_map(Step::Client),
        4 => (1usize..8).prop_map(Step::Session),
        1 => (prop::sample::select(&VERSIONS[..]), 1u16..6).prop_map(|(v, max)| Step::Connect(v, max)),
        1 => Just(Step::Disconnect),
    ]
}

fn run(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Publish(burst) => world.publish(&burst),
            Step::Drive => world.drive(),
            Step::Client(count) => world.client(count),
            Step::Session(count) => world.session(count),
            Step::Connect(version, max) => world.connect(version, max, u32::MAX),
            Step::Disconnect => world.disconnect(),
        }
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing is dropped: QoS 1 and 2 all arrive, QoS 2 once, all in order, within the window.
    #[test]
    fn a_correct_client_gets_everything(steps in prop::collection::vec(step(Just(0)), 1..120)) {
        let mut world = World::new(LIMITS, true);
        run(&mut world, steps);
        world.settle();
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            prop_assert_eq!(world.seen[qos as usize].len(), world.published[qos as usize] as usize);
        }
        prop_assert_eq!(world.tally.dropped_total(), 0);
        let sent: u64 = world.tally.sent.iter().sum();
        prop_assert_eq!(sent, u64::from(world.next_serial));
    }

    /// A queue of four: every message is sent or counted as dropped, never both, never neither.
    #[test]
    fn what_is_dropped_is_counted(
        steps in prop::collection::vec(step(Just(0)), 1..120),
        store_qos0 in any::<bool>(),
    ) {
        let limits = QueueLimits { messages_max: 4, bytes_max: 1_000, ..LIMITS };
        let mut world = World::new(limits, store_qos0);
        run(&mut world, steps);
        prop_assert!(world.session.queued() <= 4);
        world.settle();
        let sent: u64 = world.tally.sent.iter().sum();
        prop_assert_eq!(sent + world.tally.dropped_total(), u64::from(world.next_serial));
        let arrived = world.seen[1].len() + world.seen[2].len();
        let sent_acknowledged = world.tally.sent[1] + world.tally.sent[2];
        prop_assert_eq!(arrived as u64, sent_acknowledged, "what was sent at QoS 1 and 2 arrives");
    }

    /// Messages that fill the output: it stays within its bounds, and nothing of QoS 1 and 2 is lost.
    #[test]
    fn large_messages_stay_within_the_output(
        steps in prop::collection::vec(step(prop_oneof![Just(0usize), Just(300_000)]), 1..60),
    ) {
        let mut world = World::new(LIMITS, true);
        world.connect(Version::V5, 100, u32::MAX);
        run(&mut world, steps);
        let held = world.session.output.as_ref().map_or(0, |output| output.bytes.len());
        prop_assert!(held <= outbound::OUTPUT_BYTES_HARD + 300_100);
        world.settle();
        let arrived = (world.seen[1].len() + world.seen[2].len()) as u32;
        prop_assert_eq!(arrived, world.published[1] + world.published[2]);
    }

    /// A frame that was encoded once and patched is what encoding it for the receiver gives.
    #[test]
    fn shared_frames_are_those_of_the_encoder(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        topic in "[a-z/]{1,40}",
        qos in prop::sample::select(&QOS[..]),
        version in prop::sample::select(&VERSIONS[..]),
        retain in any::<bool>(),
        expiry in prop::option::of(10u32..1_000),
        waited_ms in 0u64..9_999,
        content_type in prop::option::of("[a-z]{0,20}"),
        ids in prop::collection::vec(1u32..300_000, 0..3),
        id in 1u16..,
    ) {
        let mut properties = PropertiesBuf::new();
        if let Some(text) = &content_type {
            properties.push(Property::ContentType(text));
        }
        let now = Now { mono_ms: 50_000 + waited_ms, unix_ms: 0 };
        let publication = Publication {
            topic: &topic,
            properties: properties.as_properties().as_bytes(),
            payload: &payload,
            qos,
            retain: true,
            expiry: expiry.map(|interval_seconds| Expiry { interval_seconds, received_mono_ms: 50_000 }),
        };
        let packet_id = (qos != QoS::AtMostOnce).then(|| PacketId::new(id).unwrap());
        let mut shared = Vec::new();
        if ids.is_empty() {
            let mut scratch = RunFrames::default();
            let pair = [publication, publication];
            let mut run = Run::new(&pair, &mut scratch, now);
            let layout = run.layout(version, packet_id.is_some());
            layout.append(1, &mut shared, qos, retain, packet_id);
            prop_assert_eq!(layout.frame_len(1), shared.len());
        }
        let mut single = Vec::new();
        let how = frames::Single { version, qos, retain, dup: false, packet_id, subscription_ids: &ids, alias: None };
        frames::append_single(&publication, &how, now, &mut single);
        prop_assert_eq!(frames::single_len(&publication, version, qos, &ids, now), single.len());
        if ids.is_empty() {
            prop_assert_eq!(&shared, &single);
        }
        let limits = DecodeLimits { version: Some(version), max_packet_size: u32::MAX };
        let Ok(Decoded::Packet { packet: Packet::Publish(got), len }) = decode::decode(&single, &limits) else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        prop_assert_eq!(len, single.len());
        prop_assert_eq!((got.topic, got.payload, got.qos, got.retain), (&*topic, &*payload, qos, retain));
        prop_assert_eq!(got.packet_id, packet_id);
        if version == Version::V5 {
            let left = expiry.map(|seconds| seconds - u32::try_from(waited_ms / 1_000).unwrap());
            prop_assert_eq!(got.properties.message_expiry_interval(), left);
            prop_assert_eq!(got.properties.content_type(), content_type.as_deref());
            prop_assert_eq!(got.properties.subscription_identifiers().collect::<Vec<_>>(), ids);
        }
        let mut direct = Vec::new();
        encode::encode(&Packet::Publish(got), version, &mut direct).unwrap();
        prop_assert_eq!(direct, single);
    }
}

/// The packets of the output, decoded by `look`.
fn take(session: &mut Session, version: Version, now: Now, tally: &mut Tally) -> Vec<String> {
    let mut bytes = Vec::new();
    session.take_output(&mut bytes, now, tally);
    let limits = DecodeLimits { version: Some(version), max_packet_size: u32::MAX };
    let mut shown = Vec::new();
    let mut rest = &bytes[..];
    while let Ok(Decoded::Packet { packet, len }) = decode::decode(rest, &limits) {
        rest = &rest[len..];
        shown.push(match packet {
            Packet::Publish(publish) => {
                let left = publish.properties.message_expiry_interval();
                let left = left.map_or(String::new(), |left| format!(" {left}s"));
                let payload = String::from_utf8_lossy(publish.payload).into_owned();
                let dup = if publish.dup { " again" } else { "" };
                format!("{} {payload}{left}{dup}", publish.qos as u8)
            }
            Packet::PubRel(ack) => format!("pubrel {} {:#04x}", ack.packet_id, ack.reason.as_u8()),
            other => panic!("{other:?}"),
        });
    }
    assert!(rest.is_empty());
    shown
}

struct Bench {
    session: Session,
    tally: Tally,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            session: Session::new(Bounds::new(LIMITS, true)),
            tally: Tally::default(),
            now: Now::default(),
        };
        bench.attach(10, u32::MAX);
        bench
    }

    fn attach(&mut self, receive_maximum: u16, max_packet_size: u32) {
        self.session.attach(attachment(output(Version::V5, receive_maximum, max_packet_size)), self.now);
    }

    fn deliver(&mut self, payload: &str, qos: QoS, expiry: Option<u32>) {
        let expiry =
            expiry.map(|interval_seconds| Expiry { interval_seconds, received_mono_ms: self.now.mono_ms });
        let publication = Publication { expiry, ..publication(payload.as_bytes(), qos) };
        deliver(&mut self.session, &[publication], self.now, &mut self.tally);
    }

    fn take(&mut self) -> Vec<String> {
        take(&mut self.session, Version::V5, self.now, &mut self.tally)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.tally.dropped[reason as usize]
    }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

#[test]
fn a_message_expires_in_the_queue_but_not_in_flight() {
    let mut bench = Bench::new();
    bench.deliver("flying", QoS::AtLeastOnce, Some(5));
    assert_eq!(bench.take(), ["1 flying 5s"]);
    bench.session.detach(Ending::Normal, bench.now);
    bench.deliver("waiting", QoS::AtLeastOnce, Some(5));
    bench.deliver("longer", QoS::AtLeastOnce, Some(9));
    bench.now = bench.now.plus_ms(6_000);
    bench.attach(10, u32::MAX);
    assert_eq!(bench.take(), ["1 flying 0s again", "1 longer 3s"]);
    assert_eq!(bench.dropped(DropReason::Expired), 1);
}

#[test]
fn what_does_not_fit_the_new_connection_counts_as_sent() {
    let mut bench = Bench::new();
    let long = "x".repeat(100);
    for payload in [&*long, "short", &*long, "end"] {
        bench.deliver(payload, QoS::ExactlyOnce, None);
    }
    assert_eq!(bench.take().len(), 4);
    bench.session.detach(Ending::Normal, bench.now);
    bench.attach(1, 50);
    assert_eq!(bench.take(), ["2 short again"]);
    assert_eq!((bench.dropped(DropReason::TooLarge), bench.session.in_flight()), (1, 3));
    assert_eq!(bench.session.handle_pubrec(id(2), ReasonCode::Success), Some(ReasonCode::Success));
    assert!(bench.session.handle_pubcomp(id(2)));
    assert_eq!(bench.take(), ["2 end again"], "[MQTT-3.1.2-25]");
    assert_eq!((bench.dropped(DropReason::TooLarge), bench.session.in_flight()), (2, 1));
}

#[test]
fn qos_0_waits_behind_qos_0_only() {
    let mut bench = Bench::new();
    bench.session.detach(Ending::Normal, bench.now);
    bench.deliver("a", QoS::AtLeastOnce, None);
    bench.deliver("b", QoS::AtLeastOnce, None);
    bench.attach(1, u32::MAX);
    assert_eq!(bench.take(), ["1 a"]);
    bench.deliver("0", QoS::AtMostOnce, None);
    assert_eq!(bench.take(), ["0 0"], "QoS 1 that waits does not hold up QoS 0");
    bench.session.detach(Ending::Normal, bench.now);
    bench.deliver("1", QoS::AtMostOnce, None);
    bench.attach(1, u32::MAX);
    bench.deliver("2", QoS::AtMostOnce, None);
    assert_eq!(bench.take(), ["1 a again"]);
    assert!(bench.session.handle_puback(id(1)));
    assert_eq!(bench.take(), ["1 b", "0 1", "0 2"], "[MQTT-4.6.0-6]: QoS 0 needs no place");
    assert!(bench.session.handle_puback(id(2)));
    bench.deliver("3", QoS::AtMostOnce, None);
    assert_eq!(bench.take(), ["0 3"]);
}

#[test]
fn acknowledgements_of_another_kind_change_nothing() {
    let mut bench = Bench::new();
    bench.deliver("one", QoS::AtLeastOnce, None);
    bench.deliver("two", QoS::ExactlyOnce, None);
    bench.take();
    assert!(!bench.session.handle_puback(id(2)));
    assert!(!bench.session.handle_pubcomp(id(2)), "PUBREC first");
    let unknown = Some(ReasonCode::PacketIdentifierNotFound);
    assert_eq!(bench.session.handle_pubrec(id(1), ReasonCode::Success), unknown);
    let refused = bench.session.handle_pubrec(id(9), ReasonCode::UnspecifiedError);
    assert_eq!(refused, None, "a refusal of nothing is answered by nothing");
    assert_eq!(bench.session.in_flight(), 2);
    assert_eq!(bench.session.handle_pubrec(id(2), ReasonCode::QuotaExceeded), None);
    assert!(bench.session.handle_puback(id(1)));
    assert_eq!((bench.session.in_flight(), bench.take().len()), (0, 0));
}

#[test]
fn an_acknowledgement_may_overtake_its_repetition() {
    let mut bench = Bench::new();
    for payload in ["1", "2", "3"] {
        bench.deliver(payload, QoS::AtLeastOnce, None);
    }
    bench.take();
    bench.session.detach(Ending::Normal, bench.now);
    bench.attach(1, u32::MAX);
    assert_eq!(bench.take(), ["1 1 again"]);
    // "2" was received on the connection before.
    assert!(bench.session.handle_puback(id(2)));
    assert_eq!(bench.take(), [""; 0], "no place was free for it, none is freed by it");
    assert!(bench.session.handle_puback(id(1)));
    assert_eq!(bench.take(), ["1 3 again"]);
    assert!(bench.session.handle_puback(id(3)));
    bench.deliver("4", QoS::AtLeastOnce, None);
    assert_eq!(bench.take(), ["1 4"]);
}

fn will(delay_seconds: u32) -> WillRequest {
    WillRequest { message: Message::keep(&publication(b"gone", QoS::AtMostOnce)), delay_seconds }
}

/// A session with this expiry whose connection has a Will with this delay.
fn mortal(expiry: u32, delay: u32, silence_allowed_ms: Option<u64>) -> Session {
    let mut session = Session::new(Bounds::new(LIMITS, true));
    let mut begins = attachment(output(Version::V5, 1, u32::MAX));
    begins.session_expiry_seconds = expiry;
    begins.silence_allowed_ms = silence_allowed_ms;
    begins.will = Some(will(delay));
    session.attach(begins, Now::default());
    session
}

fn at(ms: u64) -> Now {
    Now::default().plus_ms(ms)
}

#[test]
fn the_will_is_due_after_its_delay_or_with_the_session() {
    // (expiry, delay, whether at once, when, whether the session is over then)
    for (expiry, delay, at_once, when, over) in [
        (0, 0, true, None, true),
        (0, 9, true, None, true),
        (100, 0, true, Some(100_000), true),
        (100, 9, false, Some(9_000), false),
        (9, 100, false, Some(9_000), true),
        (NEVER_EXPIRES, 9, false, Some(9_000), false),
        (NEVER_EXPIRES, 0, true, None, false),
    ] {
        let mut session = mortal(expiry, delay, None);
        let due = session.detach(Ending::WithWill, at(0));
        assert_eq!((due.will.is_some(), due.session_over), (at_once, expiry == 0), "{expiry} {delay}");
        assert_eq!(session.poll_timeout(), when.filter(|_| expiry > 0), "{expiry} {delay}");
        let Some(when) = when else { continue };
        let early = session.handle_timeout(at(when - 1));
        assert!(early.will.is_none() && !early.session_over);
        let due = session.handle_timeout(at(when));
        assert_eq!((due.will.is_some(), due.session_over), (!at_once, over), "{expiry} {delay}");
        assert!(session.handle_timeout(at(when)).will.is_none(), "once");
    }
}

#[test]
fn a_normal_end_and_a_new_connection_take_the_will_back() {
    let mut session = mortal(100, 5, None);
    let due = session.detach(Ending::Normal, at(0));
    assert!(due.will.is_none());
    assert_eq!(session.poll_timeout(), Some(100_000));

    let mut session = mortal(100, 5, None);
    session.detach(Ending::WithWill, at(0));
    session.attach(attachment(output(Version::V5, 1, u32::MAX)), at(4_999));
    assert_eq!(session.poll_timeout(), None);
    assert!(session.handle_timeout(at(6_000)).will.is_none(), "[MQTT-3.1.3-9]");
    assert!(session.end().is_none());
}

#[test]
fn the_end_of_a_session_gives_its_delayed_will() {
    let mut session = mortal(100, 5, None);
    session.detach(Ending::WithWill, at(0));
    assert!(session.end().is_some());
    assert!(session.end().is_none());
}

#[test]
fn silence_is_over_when_the_client_was_not_heard() {
    let mut session = mortal(100, 0, Some(1_500));
    assert_eq!(session.poll_timeout(), Some(1_500));
    session.touch(at(1_000));
    assert!(!session.handle_timeout(at(1_500)).keep_alive_over);
    assert_eq!(session.poll_timeout(), Some(2_500));
    let due = session.handle_timeout(at(2_500));
    assert!(due.keep_alive_over && due.will.is_none() && !due.session_over);
    assert!(session.detach(Ending::WithWill, at(2_500)).will.is_some());
    assert!(!session.handle_timeout(at(9_000)).keep_alive_over, "nobody is there to be silent");
}

#[test]
fn an_expiry_may_be_shortened_at_the_end_but_not_begun() {
    let mut session = mortal(100, 0, None);
    assert_eq!(session.change_expiry(0), Ok(()));
    assert!(session.detach(Ending::Normal, at(0)).session_over);
    let mut session = mortal(0, 0, None);
    assert_eq!(session.change_expiry(1), Err(ReasonCode::ProtocolError));
    assert_eq!(session.change_expiry(0), Ok(()));
}

#[test]
fn subscriptions_are_counted_by_filter() {
    let mut session = Session::new(Bounds::new(LIMITS, true));
    let subscription = Subscription { options: SubscriptionOptions::default(), id: None };
    assert_eq!(session.subscribe("a", subscription, Some(1)), Some(true));
    assert_eq!(session.subscribe("b", subscription, Some(1)), None);
    let other = Subscription { id: NonZeroU32::new(7), ..subscription };
    assert_eq!(session.subscribe("a", other, Some(1)), Some(false));
    assert_eq!(session.subscriptions().collect::<Vec<_>>(), [("a", &other)]);
    assert!(session.unsubscribe("a") && !session.unsubscribe("a"));
}

#[test]
fn an_offer_goes_out_now_or_comes_back() {
    let mut bench = Bench::new();
    bench.attach(1, u32::MAX);
    let message = Message::keep(&publication(b"kept", QoS::AtLeastOnce));
    let owed = || outbound::owe_retained(&message, QoS::ExactlyOnce, None);
    assert!(bench.session.offer(owed(), bench.now, &mut bench.tally).is_none());
    assert!(bench.session.offer(owed(), bench.now, &mut bench.tally).is_some(), "the window is closed");
    let qos0 = outbound::owe_retained(&message, QoS::AtMostOnce, None);
    assert!(bench.session.offer(qos0.clone(), bench.now, &mut bench.tally).is_none());
    assert_eq!(bench.take(), ["1 kept", "0 kept"]);
    bench.session.detach(Ending::Normal, bench.now);
    assert!(bench.session.offer(qos0, bench.now, &mut bench.tally).is_some(), "nobody is there");
}
