//! Session State (section 4.1): begin, resume, take over, expire.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::properties;
use crate::publish::numbers;

/// Waits until this many clients are connected.
async fn connected(broker: &Running, count: u64) {
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", count).await;
}

#[tokio::test]
async fn a_session_is_resumed_with_subscriptions_and_messages() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for version in VERSIONS {
        let (mut client, present) = broker.stay(version, "c").await;
        assert!(!present);
        client.subscribe("t", Q2).await;
        client.leave().await;
        connected(&broker, 1).await;
        for qos in [Q0, Q1, Q2] {
            assert_eq!(publisher.publish("t", &[b'0' + qos as u8], qos).await, 0);
        }
        let (mut client, present) = broker.stay(version, "c").await;
        assert_eq!(present, version != Version::V31, "[MQTT-3.2.2-3]; 3.1 cannot say it");
        let got = [client.receive().await, client.receive().await, client.receive().await];
        assert_eq!(got.each_ref().map(|message| message.qos), [Q0, Q1, Q2]);
        assert!(got.iter().all(|message| !message.dup));
        assert_eq!(publisher.publish("t", b"live", Q1).await, 0);
        assert_eq!(client.receive().await.text(), "live");
        client.leave().await;
        connected(&broker, 1).await;
        // Clean Start ends it; 3.x sessions that are clean end with their connection.
        let mut client = broker.join(version, "c").await;
        assert_eq!(publisher.publish("t", b"", Q1).await, 0x10, "[MQTT-3.1.2-4]");
        client.quiet().await;
        client.leave().await;
        broker.until_metric("tombolo_sessions", 1).await;
    }
}

#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    client.leave().await;
    broker.until_metric("tombolo_sessions", 0).await;
    let (_client, present) = broker.stay(Version::V5, "c").await;
    assert!(!present);
    assert_eq!(broker.metric("tombolo_subscriptions"), 0);
}

#[tokio::test]
async fn unacknowledged_messages_are_sent_again_in_order_with_their_identifiers() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for version in VERSIONS {
        let (mut client, _) = broker.stay(version, "c").await;
        client.subscribe("t", Q2).await;
        let mut ids = Vec::new();
        for (n, qos) in [(0, Q1), (1, Q2), (2, Q2), (3, Q1)] {
            publisher.publish("t", n.to_string().as_bytes(), qos).await;
            ids.push(client.take().await.packet_id.unwrap());
        }
        client.ack(PacketType::PubAck, ids[0], ReasonCode::Success).await;
        client.ack(PacketType::PubRec, ids[1], ReasonCode::Success).await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, ids[1], 0));
        client.vanish().await;
        connected(&broker, 1).await;
        publisher.publish("t", b"4", Q1).await;

        let (mut client, _) = broker.stay(version, "c").await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, ids[1], 0), "[MQTT-4.4.0-1]");
        client.ack(PacketType::PubComp, ids[1], ReasonCode::Success).await;
        for (n, packet_id) in [("2", ids[2]), ("3", ids[3])] {
            let got = client.receive().await;
            assert_eq!((got.text(), got.packet_id, got.dup), (n, Some(packet_id), true), "[MQTT-3.3.1-1]");
        }
        let got = client.receive().await;
        assert_eq!((got.text(), got.dup), ("4", false));
        client.quiet().await;
        client.leave().await;
        broker.join(version, "c").await.leave().await;
        connected(&broker, 1).await;
    }
}

#[tokio::test]
async fn what_is_sent_again_fits_the_new_connection() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    publisher.publish("t", &[b'x'; 200], Q1).await;
    publisher.publish("t", b"small", Q1).await;
    client.take().await;
    client.take().await;
    client.vanish().await;
    connected(&broker, 1).await;
    let asked = properties(&[Property::SessionExpiryInterval(100), Property::MaximumPacketSize(100)]);
    let asked = Connect { clean_start: false, properties: asked.as_properties(), ..hello(Version::V5, "c") };
    let (mut client, present) = broker.try_stay(&asked).await;
    assert!(present);
    let got = client.receive().await;
    assert_eq!((got.text(), got.dup), ("small", true), "[MQTT-3.1.2-24]");
    client.quiet().await;
    broker.until_metric("tombolo_inflight_messages", 0).await;
    broker.until_metric("tombolo_messages_dropped_total{reason=\"too_large\"}", 1).await;
}

#[tokio::test]
async fn a_second_connection_takes_over() {
    let broker = broker().await;
    for version in VERSIONS {
        let (mut first, _) = broker.stay(version, "c").await;
        first.subscribe("t", Q1).await;
        let (mut second, present) = broker.stay(version, "c").await;
        assert_eq!(present, version != Version::V31, "3.1 cannot say it");
        first.refused(0x8E).await;
        let mut publisher = broker.join(version, "p").await;
        publisher.publish("t", b"x", Q1).await;
        assert_eq!(second.receive().await.text(), "x");
        // Clean Start takes over too, and leaves nothing of the session.
        let mut third = broker.join(version, "c").await;
        second.refused(0x8E).await;
        publisher.publish("t", b"x", Q1).await;
        third.quiet().await;
        third.leave().await;
        publisher.leave().await;
        broker.until_metric("tombolo_sessions", 0).await;
    }
    broker.until_metric("tombolo_disconnects_total{reason=\"session_taken_over\"}", 6).await;
}

#[tokio::test]
async fn many_takeovers_of_one_session_lose_nothing() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let mut got = Vec::new();
    for n in 0..50 {
        publisher.publish("t", n.to_string().as_bytes(), Q2).await;
        if n % 3 == 0 {
            // The message may be in flight to the connection that goes.
            let (next, present) = broker.stay(Version::V5, "c").await;
            assert!(present);
            client = next;
        }
        got.push(client.receive().await.text().to_owned());
    }
    client.quiet().await;
    assert_eq!(got, numbers(50));
}

#[tokio::test]
async fn an_expiry_at_disconnect_counts() {
    let broker = broker().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    let never = properties(&[Property::SessionExpiryInterval(0)]);
    let leave = |list| Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: list });
    client.send(&leave(never.as_properties())).await;
    assert_eq!(client.next().await, Got::Closed);
    broker.until_metric("tombolo_sessions", 0).await;

    let mut client = broker.join(Version::V5, "c").await;
    let some = properties(&[Property::SessionExpiryInterval(5)]);
    client.send(&leave(some.as_properties())).await;
    client.refused(0x82).await;
    broker.until_metric("tombolo_sessions", 0).await;
}

#[tokio::test]
async fn a_session_expires_in_time() {
    let broker = Setup::new().mqtt("session_expiry_interval = \"1s\"").start().await;
    let list = properties(&[Property::SessionExpiryInterval(1)]);
    let asked =
        Connect { clean_start: false, properties: list.as_properties(), ..hello(Version::V5, "five") };
    let (mut five, _) = broker.try_stay(&asked).await;
    let (mut three, _) = broker.stay(Version::V311, "three").await;
    five.subscribe("t", Q1).await;
    three.subscribe("t", Q1).await;
    let mut publisher = broker.join(Version::V5, "p").await;
    five.vanish().await;
    three.leave().await;
    connected(&broker, 1).await;
    assert_eq!(publisher.publish("t", b"", Q1).await, 0);
    broker.until_metric("tombolo_sessions", 1).await;
    assert_eq!(publisher.publish("t", b"", Q1).await, 0x10, "[MQTT-4.1.0-2]");
    broker.until_metric("tombolo_messages_dropped_total{reason=\"session_ended\"}", 2).await;
}

#[tokio::test]
async fn queued_messages_keep_their_order_against_live_ones() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    client.vanish().await;
    connected(&broker, 1).await;
    publisher.publish("t", b"first", Q1).await;
    publisher.publish("t", b"second", Q1).await;
    publisher.publish("t", b"0", Q0).await;
    publisher.quiet().await;
    let one = properties(&[Property::SessionExpiryInterval(100), Property::ReceiveMaximum(1)]);
    let asked = Connect { clean_start: false, properties: one.as_properties(), ..hello(Version::V5, "c") };
    let (mut client, _) = broker.try_stay(&asked).await;
    assert_eq!(client.take().await.text(), "first");
    // "0" waits behind "second", which waits for the acknowledgement of "first".
    publisher.publish("t", b"1", Q0).await;
    publisher.quiet().await;
    client.ack(PacketType::PubAck, 1, ReasonCode::Success).await;
    assert_eq!(client.receive_texts(3).await, ["second", "0", "1"], "[MQTT-4.6.0-6]");
}
