//! Who acknowledges what, and when it is over (sections 3.3.1, 3.3.4, 3.4 to 3.7, 4.3, 4.4 and 4.9).

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::harness::options;
use crate::harness::properties;

/// A session of 1,000 seconds whose client takes one message at a time.
async fn one_at_a_time(broker: &Running) -> Client {
    let list = properties(&[Property::SessionExpiryInterval(1_000), Property::ReceiveMaximum(1)]);
    let asked = Connect { clean_start: false, properties: list.as_properties(), ..hello(Version::V5, "c") };
    broker.try_stay(&asked).await.0
}

async fn gone(broker: &Running) {
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
}

fn again(qos: QoS, packet_id: u16) -> Publish<'static> {
    Publish { dup: true, qos, packet_id: Some(id(packet_id)), ..message("t", b"x") }
}

#[tokio::test]
async fn the_dup_of_a_publisher_does_not_reach_a_subscriber() {
    let broker = broker().await;
    let mut from = broker.join(Version::V5, "from").await;
    let (mut plain, mut numbered) =
        (broker.join(Version::V311, "plain").await, broker.join(Version::V5, "numbered").await);
    plain.subscribe("t", Q2).await;
    numbered.subscribe_as(&[("t", options(Q2))], Some(3)).await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("t", Q2).await;
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 3).await;
    for (n, qos) in [(1, Q1), (2, Q2)] {
        from.publish_as(again(qos, n)).await;
    }
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    for client in [&mut plain, &mut numbered, &mut away] {
        for qos in [Q1, Q2] {
            let got = client.receive().await;
            assert_eq!((got.qos, got.dup), (qos, false), "[MQTT-3.3.1-3]");
        }
    }
}

#[tokio::test]
async fn each_publish_is_answered_as_its_qos_asks() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        let reason = if version == Version::V5 { 0x10 } else { 0 };
        client.send(&Packet::Publish(message("t", b""))).await;
        client.quiet().await;
        for (qos, kind) in [(Q1, PacketType::PubAck), (Q2, PacketType::PubRec)] {
            client.send(&Packet::Publish(Publish { dup: false, ..again(qos, 0x1234) })).await;
            assert_eq!(client.next().await, Got::Ack(kind, 0x1234, reason), "[MQTT-3.3.4-1]");
        }
        client.quiet().await;
    }
}

#[tokio::test]
async fn after_puback_an_identifier_is_a_new_message_whatever_its_dup() {
    let broker = broker().await;
    for version in VERSIONS {
        let (mut from, mut to) = (broker.join(version, "from").await, broker.join(version, "to").await);
        to.subscribe("t", Q1).await;
        for dup in [false, true, false] {
            from.publish_as(Publish { dup, ..again(Q1, 7) }).await;
            assert_eq!(to.receive().await.text(), "x", "[MQTT-4.3.2-5]");
        }
    }
}

#[tokio::test]
async fn after_a_refusing_pubrec_an_identifier_is_a_new_message() {
    let broker = Setup::new().acl("{deny, all, publish, [\"no\"]}. {allow, all}.").start().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
    to.subscribe("#", Q2).await;
    assert_eq!(from.publish_as(Publish { topic: "no", ..again(Q2, 7) }).await, 0x87);
    assert_eq!(from.publish_as(Publish { dup: false, ..again(Q2, 7) }).await, 0, "[MQTT-4.3.3-9]");
    assert_eq!(to.receive().await.topic, "t");
    to.quiet().await;
}

#[tokio::test]
async fn a_handshake_goes_on_after_its_message_expired() {
    let broker = broker().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
    to.subscribe("t", Q2).await;
    let list = properties(&[Property::MessageExpiryInterval(0)]);
    let brief = Publish { dup: false, properties: list.as_properties(), ..again(Q2, 7) };
    from.send(&Packet::Publish(brief)).await;
    assert_eq!(from.next().await, Got::Ack(PacketType::PubRec, 7, 0));
    let packet_id = to.take().await.packet_id.unwrap();
    crate::harness::a_moment().await;
    from.ack(PacketType::PubRel, 7, ReasonCode::Success).await;
    assert_eq!(from.next().await, Got::Ack(PacketType::PubComp, 7, 0), "[MQTT-4.3.3-13]");
    to.ack(PacketType::PubRec, packet_id, ReasonCode::Success).await;
    assert_eq!(to.next().await, Got::Ack(PacketType::PubRel, packet_id, 0), "[MQTT-4.3.3-7]");
}

#[tokio::test]
async fn each_new_message_has_an_identifier_of_its_own() {
    let broker = broker().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
    to.subscribe("t", Q2).await;
    let mut used = std::collections::BTreeSet::new();
    for n in 0..12 {
        from.publish("t", b"", if n % 2 == 0 { Q1 } else { Q2 }).await;
        let got = to.take().await;
        let packet_id = got.packet_id.unwrap();
        assert!(!got.dup && used.insert(packet_id), "[MQTT-4.3.2-1], [MQTT-4.3.3-1]: {packet_id}");
        // Some are done at once, one kind stays half done, the rest stays as it is.
        match n % 4 {
            0 => to.ack(PacketType::PubAck, packet_id, ReasonCode::Success).await,
            1 => {
                to.ack(PacketType::PubRec, packet_id, ReasonCode::Success).await;
                assert_eq!(to.next().await, Got::Ack(PacketType::PubRel, packet_id, 0), "[MQTT-4.3.3-4]");
            }
            _ => {}
        }
        if n % 4 == 0 {
            used.remove(&packet_id);
        }
    }
}

#[tokio::test]
async fn what_a_client_refused_is_not_sent_again() {
    let broker = broker().await;
    let mut from = broker.join(Version::V5, "f").await;
    let (mut to, _) = broker.stay(Version::V5, "t").await;
    to.subscribe("t", Q2).await;
    for (qos, kind) in [(Q1, PacketType::PubAck), (Q2, PacketType::PubRec)] {
        from.publish("t", b"no", qos).await;
        let packet_id = to.take().await.packet_id.unwrap();
        to.ack(kind, packet_id, ReasonCode::ImplementationSpecificError).await;
    }
    to.vanish().await;
    gone(&broker).await;
    let (mut to, present) = broker.stay(Version::V5, "t").await;
    assert!(present);
    to.quiet().await; // [MQTT-4.4.0-2]
    assert_eq!(broker.metric("tombolo_inflight_messages"), 0);
}

#[tokio::test]
async fn nothing_is_sent_again_on_the_same_connection() {
    let broker = broker().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
    to.subscribe("t", Q2).await;
    from.publish("t", b"1", Q1).await;
    from.publish("t", b"2", Q2).await;
    let (_, two) = (to.take().await, to.take().await);
    to.ack(PacketType::PubRec, two.packet_id.unwrap(), ReasonCode::Success).await;
    assert_eq!(to.next().await, Got::Ack(PacketType::PubRel, two.packet_id.unwrap(), 0));
    for n in 0..20 {
        from.publish("t", b"0", Q0).await;
        assert_eq!(to.take().await.text(), "0", "{n}");
    }
    to.quiet().await; // [MQTT-4.4.0-1]
}

#[tokio::test]
async fn everything_but_publish_goes_on_while_no_place_is_free() {
    let broker = broker().await;
    let mut from = broker.join(Version::V5, "f").await;
    let mut client = one_at_a_time(&broker).await;
    client.subscribe("t", Q2).await;
    from.publish("t", b"first", Q1).await;
    from.publish("t", b"second", Q1).await;
    let first = client.take().await;
    client.quiet().await; // PINGRESP, and nothing in front of it: [MQTT-4.9.0-2]
    assert_eq!(client.subscribe("other", Q1).await, 1, "[MQTT-3.3.4-10]");
    assert_eq!(client.unsubscribe(&["other"]).await, [0]);
    assert_eq!(client.publish("nobody", b"", Q1).await, 0x10, "[MQTT-4.9.0-3]");
    assert_eq!(client.publish("nobody", b"", Q2).await, 0x10);
    client.ack(PacketType::PubAck, first.packet_id.unwrap(), ReasonCode::Success).await;
    assert_eq!(client.take().await.text(), "second");
}

#[tokio::test]
async fn a_release_waits_for_no_place_on_the_next_connection() {
    let broker = broker().await;
    let mut from = broker.join(Version::V5, "f").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let mut ids = Vec::new();
    for n in [b"0", b"1", b"2"] {
        from.publish("t", n, Q2).await;
        ids.push(client.take().await.packet_id.unwrap());
    }
    for at in [1, 2] {
        client.ack(PacketType::PubRec, ids[at], ReasonCode::Success).await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, ids[at], 0));
    }
    client.vanish().await;
    gone(&broker).await;
    from.publish("t", b"3", Q2).await;

    let mut client = one_at_a_time(&broker).await;
    // The only place is taken by "0"; both PUBREL come all the same, in their order ([MQTT-3.3.4-10]).
    let mut got = [client.next().await, client.next().await, client.next().await];
    got.sort_by_key(|got| matches!(got, Got::Publish(_)));
    assert_eq!(got[..2], [1, 2].map(|at| Got::Ack(PacketType::PubRel, ids[at], 0)));
    assert!(matches!(&got[2], Got::Publish(message) if message.dup && message.text() == "0"));
    // Their PUBCOMP frees no place that they did not take ([MQTT-4.9.0-1]).
    for at in [1, 2] {
        client.ack(PacketType::PubComp, ids[at], ReasonCode::Success).await;
    }
    client.quiet().await;
    client.ack(PacketType::PubRec, ids[0], ReasonCode::Success).await;
    assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, ids[0], 0));
    client.ack(PacketType::PubComp, ids[0], ReasonCode::Success).await;
    let last = client.receive().await;
    assert_eq!((last.text(), last.dup), ("3", false));
    client.quiet().await;
}
