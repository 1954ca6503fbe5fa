//! What a peer forwards in one burst: delivered in runs, and answered as if each message had come alone
//! (`link-protocol.md` 2.3 and 3.3).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tombolo::link::compress::Deflater;
use tombolo::link::message;
use tombolo::link::message::MessageProperties;
use tombolo::link::message::Outgoing;
use tombolo::link::payload;
use tombolo::link::payload::Heartbeat;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertyContext;

use crate::auth::passwords;
use crate::harness;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::options;
use crate::link_confinement::link_to;

pub(crate) const MESSAGES: &str = "$LINK/cluster/msg/B";
const ROUTES: &str = "$LINK/cluster/route/B";

/// A broker linked to B and C, and a connection of B.
async fn linked() -> (Running, Client) {
    linked_by(Setup::new()).await
}

async fn linked_by(setup: Setup) -> (Running, Client) {
    let broker = set_up(setup).start().await;
    let peer = dial(&broker, "clink-B-1").await;
    (broker, peer)
}

/// A broker that is to be linked to B and C.
pub(crate) fn set_up(setup: Setup) -> Setup {
    passwords(&setup, &[("clink-user:B", "secret-b"), ("clink-user:C", "secret-c")]);
    setup
        .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
             allow_insecure = true\n",
        )
        .links(&format!("{}{}", link_to("B"), link_to("C")))
}

/// A connection of B or C with this ClientID.
pub(crate) async fn dial(broker: &Running, client_id: &str) -> Client {
    let (username, password) = if client_id.starts_with("clink-B-") {
        ("clink-user:B", &b"secret-b"[..])
    } else {
        ("clink-user:C", &b"secret-c"[..])
    };
    let mut peer = broker.open().await;
    let proof =
        Connect { username: Some(username), password: Some(password), ..hello(Version::V5, client_id) };
    assert_eq!(peer.connect(&proof).await, Got::ConnAck(false, 0));
    peer
}

/// An id that no other message has.
fn new_id() -> [u8; 16] {
    static LAST: AtomicU64 = AtomicU64::new(0);
    u128::from(LAST.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
}

/// A message with this payload, as a client of B published it.
fn outgoing<'a>(topic: &'a str, text: &'a str) -> Outgoing<'a> {
    Outgoing {
        id: new_id(),
        qos: Q1,
        from: Some("far"),
        username: None,
        peer: Some([192, 0, 2, 1].into()),
        retain: false,
        topic,
        payload: text.as_bytes(),
        timestamp_ms: 1_754_500_001_000,
        properties: MessageProperties::default(),
    }
}

fn wrapped(message: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message::put(&mut out, message);
    out
}

pub(crate) fn plain(topic: &str, text: &str) -> Vec<u8> {
    wrapped(&outgoing(topic, text))
}

/// Packets that are written at once, and the answers they should have.
#[derive(Default)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    answers: Vec<Got>,
}

impl Burst {
    fn add(&mut self, topic: &str, qos: QoS, payload: &[u8], reason: u8) {
        self.add_marked(false, topic, qos, payload, reason);
    }

    pub(crate) fn add_marked(&mut self, dup: bool, topic: &str, qos: QoS, payload: &[u8], reason: u8) {
        let number = self.answers.len() as u16 + 1;
        let packet_id = (qos != Q0).then(|| id(number));
        let publish = Publish { dup, qos, packet_id, ..harness::message(topic, payload) };
        tombolo::mqtt::encode::encode(&Packet::Publish(publish), Version::V5, &mut self.bytes).unwrap();
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.answers.push(Got::Ack(PacketType::PubAck, number, reason)),
            QoS::ExactlyOnce => self.answers.push(Got::Ack(PacketType::PubRec, number, reason)),
        }
    }

    fn message(&mut self, payload: &[u8], reason: u8) {
        self.add(MESSAGES, Q1, payload, reason);
    }

    /// Writes it and sees the answers come in its order.
    pub(crate) async fn play(self, peer: &mut Client) {
        peer.write(&self.bytes).await;
        for expected in self.answers {
            assert_eq!(peer.next().await, expected);
        }
    }
}

#[tokio::test]
async fn each_message_of_a_burst_is_answered_in_order_with_its_own_reason_code() {
    let (broker, mut peer) = linked().await;
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/+", Q1).await;
    let mut other = broker.join(Version::V311, "other").await;
    other.subscribe("fwd/2", Q0).await;

    let mut burst = Burst::default();
    burst.message(&plain("fwd/1", "1"), 0x00);
    burst.message(&plain("fwd/1", "2"), 0x00);
    burst.message(&plain("fwd/+", "no Topic Name"), 0x99);
    burst.message(&plain("fwd/1", "3"), 0x00);
    burst.message(&plain("else/1", "not in the link's topics"), 0x10);
    burst.message(&plain("$LINK/cluster/msg/B", "a loop"), 0x10);
    burst.message(&plain("fwd/2", "4"), 0x00);
    burst.message(&plain("fwd/not/wanted", "nobody"), 0x10);
    burst.message(&plain("fwd/not/wanted", "nobody"), 0x10);
    burst.message(&plain("fwd/2", "5"), 0x00);
    let mut compressed = plain("fwd/2", &"6".repeat(600));
    assert!(Deflater::default().shrink(&mut compressed, 0, 0));
    burst.message(&compressed, 0x00);
    burst.message(b"no term", 0x99);
    let mut beat = Vec::new();
    payload::put_heartbeat(&mut beat, &Heartbeat { actor: "b@host", incarnation: 1, ..Heartbeat::default() });
    burst.add(ROUTES, Q1, &beat, 0x10);
    burst.add(MESSAGES, Q2, &plain("fwd/1", "7"), 0x00);
    burst.add(MESSAGES, Q0, &plain("fwd/1", "8"), 0x00);
    burst.message(&plain("fwd/1", "9"), 0x00);
    burst.play(&mut peer).await;

    let six = "6".repeat(600);
    let expected = ["1", "2", "3", "4", "5", &six, "7", "8", "9"];
    assert_eq!(near.receive_texts(expected.len()).await, expected);
    assert_eq!(other.receive_texts(3).await, ["4", "5", &six]);
    near.quiet().await;
    let count = |sample: &str| broker.metric(&format!("tombolo_link_{sample}"));
    assert_eq!(count("messages_total{peer=\"B\",dir=\"in\",qos=\"1\"}"), 11, "nobody wanted two of them");
    let dropped =
        |reason: &str| count(&format!("messages_dropped_total{{peer=\"B\",dir=\"in\",reason=\"{reason}\"}}"));
    assert_eq!((dropped("undecodable"), dropped("filter"), dropped("loop")), (2, 1, 1));
}

#[tokio::test]
async fn what_a_message_says_of_itself_is_its_own_within_a_burst() {
    let (broker, mut peer) = linked().await;
    let mut near = broker.join(Version::V5, "near").await;
    let as_published = SubscriptionOptions { retain_as_published: true, ..options(Q2) };
    assert_eq!(near.subscribe_as(&[("fwd/#", as_published)], None).await, [2]);

    // Room for properties is made when they are first seen, so there is none at first.
    for round in 0..3 {
        let mut burst = Burst::default();
        let text = format!("{round}");
        let typical = MessageProperties {
            payload_format_indicator: Some(1),
            content_type: Some("text/plain"),
            response_topic: Some("fwd/answer"),
            correlation_data: Some(&[round]),
            user_properties: [("k", &*text), ("k", "again")].into_iter().collect(),
            ..MessageProperties::default()
        };
        let with = |properties| wrapped(&Outgoing { properties, ..outgoing("fwd/1", &text) });
        burst.message(&with(MessageProperties::default()), 0x00);
        burst.message(&with(typical), 0x00);
        let large = MessageProperties { correlation_data: Some(&[7; 20_000]), ..Default::default() };
        burst.message(&with(large), 0x00);
        burst.message(&with(MessageProperties::default()), 0x00);
        burst.message(&wrapped(&Outgoing { retain: true, qos: Q2, ..outgoing("fwd/1", &text) }), 0x00);
        burst.message(&wrapped(&Outgoing { qos: Q0, ..outgoing("fwd/1", &text) }), 0x00);
        burst.play(&mut peer).await;

        let mut seen = Vec::new();
        for _ in 0..6 {
            let message = near.receive().await;
            assert_eq!(message.text(), text);
            seen.push(message);
        }
        assert!(seen[0].properties.is_empty() && seen[3].properties.is_empty());
        let properties = seen[1].properties();
        assert_eq!(properties.content_type(), Some("text/plain"));
        assert_eq!(properties.response_topic(), Some("fwd/answer"));
        assert_eq!(properties.correlation_data(), Some(&[round][..]));
        let pairs: Vec<_> = properties.user_properties().collect();
        assert_eq!(pairs, [("k", &*text), ("k", "again")]);
        assert_eq!(seen[2].properties().correlation_data(), Some(&[7; 20_000][..]));
        let kinds: Vec<_> = seen.iter().map(|message| (message.qos, message.retain)).collect();
        assert_eq!(kinds, [(Q1, false), (Q1, false), (Q1, false), (Q1, false), (Q2, true), (Q0, false)]);
    }
    let mut late = broker.join(Version::V5, "late").await;
    late.subscribe("fwd/#", Q1).await;
    late.quiet().await;
}

#[tokio::test]
async fn a_message_that_expired_on_its_way_is_dropped_among_others_that_did_not() {
    let (broker, mut peer) = linked().await;
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/#", Q1).await;
    let expiring = |seconds| {
        let properties = MessageProperties { message_expiry_interval: Some(seconds), ..Default::default() };
        wrapped(&Outgoing { properties, ..outgoing("fwd/1", "expiring") })
    };
    let mut burst = Burst::default();
    burst.message(&plain("fwd/1", "first"), 0x00);
    burst.message(&expiring(1), 0x10);
    burst.message(&expiring(u32::MAX), 0x00);
    burst.message(&plain("fwd/1", "last"), 0x00);
    burst.play(&mut peer).await;
    assert_eq!(near.receive_texts(3).await, ["first", "expiring", "last"]);
    assert_eq!(
        broker.metric("tombolo_link_messages_dropped_total{peer=\"B\",dir=\"in\",reason=\"expired\"}"),
        1
    );
}

#[tokio::test]
async fn long_bursts_of_many_topics_arrive_whole() {
    let (broker, mut peer) = linked().await;
    let mut near = broker.join(Version::V311, "near").await;
    near.subscribe("fwd/even/#", Q0).await;
    near.subscribe("fwd/odd/#", Q0).await;
    let mut burst = Burst::default();
    let mut expected = Vec::new();
    for number in 0..2_000 {
        // Several in a row with one topic, some that nobody wants, and two filters in turn.
        let topic = match number / 3 % 4 {
            0 => "fwd/even/1",
            1 => "fwd/odd/1",
            2 => "fwd/nobody",
            _ => "fwd/even/2",
        };
        let wanted = topic != "fwd/nobody";
        let text = number.to_string();
        burst.message(&plain(topic, &text), if wanted { 0x00 } else { 0x10 });
        if wanted {
            expected.push(text);
        }
    }
    burst.play(&mut peer).await;
    assert_eq!(near.receive_texts(expected.len()).await, expected);
}

/// How often a message of `peer` was not delivered again.
fn suppressed(broker: &Running, peer: &str) -> u64 {
    broker.metric(&format!("tombolo_link_duplicates_suppressed_total{{peer=\"{peer}\"}}"))
}

#[tokio::test]
async fn what_a_peer_sends_again_is_acknowledged_again_and_delivered_once() {
    let (broker, mut peer) = linked().await;
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/+", Q1).await;
    let mut compressed = plain("fwd/2", &"c".repeat(600));
    assert!(Deflater::default().shrink(&mut compressed, 0, 0));
    let all = [plain("fwd/1", "a"), plain("fwd/1", "b"), compressed, plain("fwd/2", "d")];
    let mut burst = Burst::default();
    // Over one connection what comes again is marked.
    for (index, dup) in [(0, false), (0, true), (1, true), (0, true), (2, false), (1, true), (2, true)] {
        burst.add_marked(dup, MESSAGES, Q1, &all[index], 0x00);
    }
    burst.add_marked(true, MESSAGES, Q2, &all[1], 0x00);
    burst.play(&mut peer).await;
    drop(peer);

    // The same connection anew, and another one beside it; nothing says that these are not new.
    for client_id in ["clink-B-1", "clink-B-2"] {
        let mut peer = dial(&broker, client_id).await;
        let mut burst = Burst::default();
        all.iter().for_each(|payload| burst.message(payload, 0x00));
        burst.play(&mut peer).await;
    }
    assert_eq!(near.receive_texts(4).await, ["a", "b", &"c".repeat(600), "d"]);
    near.quiet().await;
    assert_eq!(suppressed(&broker, "B"), 5 + 3 + 4);
    let delivered = broker.metric("tombolo_link_messages_total{peer=\"B\",dir=\"in\",qos=\"1\"}");
    assert_eq!(delivered, 4, "only those that were delivered are counted as such");
}

#[tokio::test]
async fn a_peer_cannot_suppress_what_another_sends_nor_is_qos_0_asked_about() {
    let (broker, mut peer) = linked().await;
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/+", Q1).await;
    let message = plain("fwd/1", "same id");
    let mut burst = Burst::default();
    burst.message(&message, 0x00);
    burst.play(&mut peer).await;
    let mut other = dial(&broker, "clink-C-1").await;
    let mut burst = Burst::default();
    burst.add("$LINK/cluster/msg/C", Q1, &message, 0x00);
    burst.play(&mut other).await;
    let once = wrapped(&Outgoing { qos: Q0, ..outgoing("fwd/1", "at most once") });
    let mut burst = Burst::default();
    burst.add(MESSAGES, Q0, &once, 0x00);
    burst.add(MESSAGES, Q0, &once, 0x00);
    burst.play(&mut peer).await;
    let expected = ["same id", "same id", "at most once", "at most once"];
    assert_eq!(near.receive_texts(expected.len()).await, expected);
    assert_eq!((suppressed(&broker, "B"), suppressed(&broker, "C")), (0, 0));
}

#[tokio::test]
async fn what_was_refused_may_come_again() {
    let (broker, mut peer) = linked().await;
    let message = outgoing("fwd/1", "once");
    let elsewhere = wrapped(&Outgoing { topic: "else/1", ..message.clone() });
    let mut near = broker.join(Version::V5, "near").await;
    near.subscribe("fwd/+", Q1).await;
    let mut burst = Burst::default();
    burst.message(&elsewhere, 0x10);
    burst.message(&wrapped(&message), 0x00);
    burst.play(&mut peer).await;
    assert_eq!(near.receive_texts(1).await, ["once"]);
    assert_eq!(suppressed(&broker, "B"), 0);
}

#[tokio::test]
async fn a_peer_is_granted_a_large_window_and_room_for_the_wrapper_of_the_largest_message() {
    let (broker, peer) = linked().await;
    let said = Properties::parse(&peer.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!(said.receive_maximum().map(u16::from), Some(u16::MAX));
    let packet_max = said.maximum_packet_size().map(u32::from).unwrap();
    let mut near = broker.open().await;
    assert_eq!(near.connect(&hello(Version::V5, "near")).await, Got::ConnAck(false, 0));
    let said = Properties::parse(&near.properties, PropertyContext::ConnAck).unwrap();
    let ordinary = said.maximum_packet_size().map(u32::from).unwrap();
    assert_eq!((packet_max, said.receive_maximum().map(u16::from)), (ordinary + 64 * 1024, Some(32)));

    near.subscribe("fwd/1", Q1).await;
    let mut peer = peer;
    // The largest that a client of the peer can have published.
    let text = "x".repeat(ordinary as usize - 14);
    let mut burst = Burst::default();
    burst.message(&plain("fwd/1", &text), 0x00);
    burst.play(&mut peer).await;
    assert_eq!(near.receive().await.text(), text);
    // As many unreleased messages of QoS 2 as the window has: an older EMQX forwards them so.
    let mut burst = Burst::default();
    for number in 0..200 {
        burst.add(MESSAGES, Q2, &plain("fwd/1", &number.to_string()), 0x00);
    }
    burst.play(&mut peer).await;
    assert_eq!(near.receive_texts(200).await.last().map(String::as_str), Some("199"));
}

/// The link's peer may have more under way than we keep of incomplete packets. Who would be too many is not read until
/// another's is complete, and nobody is sent away for it.
#[tokio::test]
async fn large_packets_of_a_peer_that_are_too_many_at_a_time_wait_for_each_other() {
    const BYTES: usize = 17 * 1024 * 1024;
    let setup = Setup::new().mqtt("max_packet_size = \"20MB\"");
    let (broker, first) = linked_by(setup).await;
    let mut peers = vec![first];
    for number in 2..=6 {
        peers.push(dial(&broker, &format!("clink-B-{number}")).await);
    }
    let text = "x".repeat(BYTES);
    let mut last = peers.pop().unwrap();
    // Four of the largest packets may be incomplete: 80 MB. Five of these are more.
    let received = "tombolo_bytes_received_total";
    let mut unread = broker.metric(received);
    let mut rests = Vec::new();
    for peer in &mut peers {
        let mut burst = Burst::default();
        burst.message(&plain("fwd/large", &text), 0);
        let (rest, begun) = burst.bytes.split_last().unwrap();
        peer.write(begun).await;
        unread += begun.len() as u64;
        rests.push([*rest]);
    }
    broker.until_metric(received, unread).await;
    let mut small = Burst::default();
    small.message(&plain("fwd/small", "x"), 0);
    last.write(&small.bytes).await;
    for (peer, rest) in peers.iter_mut().zip(rests).rev() {
        peer.write(&rest).await;
        assert!(matches!(peer.next().await, Got::Ack(PacketType::PubAck, 1, _)));
    }
    assert!(matches!(last.next().await, Got::Ack(PacketType::PubAck, 1, _)));
    for peer in &mut peers {
        peer.quiet().await;
    }
}
