//! PUBLISH both ways (sections 3.3 to 3.7 and 4.3 to 4.6).

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::harness::properties;

#[tokio::test]
async fn the_lower_qos_counts_and_versions_mix() {
    let broker = broker().await;
    for from in VERSIONS {
        for to in VERSIONS {
            let (mut publisher, mut subscriber) =
                (broker.join(from, "from").await, broker.join(to, "to").await);
            for granted in [Q0, Q1, Q2] {
                assert_eq!(subscriber.subscribe("t", granted).await, granted as u8);
                for published in [Q0, Q1, Q2] {
                    assert_eq!(publisher.publish("t", b"hello", published).await, 0);
                    let got = subscriber.receive().await;
                    assert_eq!((got.topic.as_str(), got.text()), ("t", "hello"));
                    assert_eq!(got.qos, published.min(granted), "[MQTT-3.8.4-8]");
                    assert!(!got.dup && !got.retain);
                }
            }
            subscriber.quiet().await;
            publisher.leave().await;
            subscriber.leave().await;
        }
    }
}

#[tokio::test]
async fn nobody_there_is_said_in_5_0_only() {
    let broker = broker().await;
    for (version, reason) in [(Version::V5, 0x10), (Version::V311, 0)] {
        let mut client = broker.join(version, "c").await;
        assert_eq!(client.publish("nobody", b"", Q1).await, reason);
        assert_eq!(client.publish("nobody", b"", Q2).await, reason);
    }
    broker.until_metric("tombolo_messages_dropped_total{reason=\"no_subscribers\"}", 4).await;
}

#[tokio::test]
async fn a_qos_2_message_sent_twice_is_delivered_once() {
    let broker = broker().await;
    for version in VERSIONS {
        let (mut from, mut to) = (broker.join(version, "from").await, broker.join(version, "to").await);
        to.subscribe("t", Q2).await;
        let publish = Publish { qos: Q2, packet_id: Some(id(7)), ..message("t", b"once") };
        from.send(&Packet::Publish(publish)).await;
        assert_eq!(from.next().await, Got::Ack(PacketType::PubRec, 7, 0));
        from.send(&Packet::Publish(Publish { dup: true, ..publish })).await;
        assert_eq!(from.next().await, Got::Ack(PacketType::PubRec, 7, 0), "[MQTT-4.3.3-10]");
        from.ack(PacketType::PubRel, 7, ReasonCode::Success).await;
        assert_eq!(from.next().await, Got::Ack(PacketType::PubComp, 7, 0));
        assert_eq!(to.receive().await.text(), "once");
        to.quiet().await;
        // After PUBCOMP the identifier is a new message's.
        assert_eq!(from.publish_as(publish).await, 0);
        assert_eq!(to.receive().await.text(), "once");
    }
}

#[tokio::test]
async fn a_duplicate_is_recognised_on_the_next_connection() {
    let broker = broker().await;
    let mut to = broker.join(Version::V5, "to").await;
    to.subscribe("t", Q2).await;
    let (mut from, _) = broker.stay(Version::V5, "from").await;
    let publish = Publish { qos: Q2, packet_id: Some(id(3)), ..message("t", b"once") };
    from.send(&Packet::Publish(publish)).await;
    assert_eq!(from.next().await, Got::Ack(PacketType::PubRec, 3, 0));
    from.vanish().await;
    let (mut from, present) = broker.stay(Version::V5, "from").await;
    assert!(present);
    assert_eq!(from.publish_as(Publish { dup: true, ..publish }).await, 0);
    assert_eq!(to.receive().await.text(), "once");
    to.quiet().await;
}

#[tokio::test]
async fn acknowledgements_of_nothing_are_answered() {
    let broker = broker().await;
    for (version, not_found) in [(Version::V5, 0x92), (Version::V311, 0)] {
        let mut client = broker.join(version, "c").await;
        client.ack(PacketType::PubRel, 9, ReasonCode::Success).await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubComp, 9, not_found));
        client.ack(PacketType::PubRec, 9, ReasonCode::Success).await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, 9, not_found));
        client.ack(PacketType::PubAck, 9, ReasonCode::Success).await;
        client.ack(PacketType::PubComp, 9, ReasonCode::Success).await;
        client.quiet().await;
    }
}

#[tokio::test]
async fn a_pubrec_that_refuses_ends_the_delivery() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    client.publish("t", b"", Q0).await;
    client.take().await;
    let mut other = broker.join(Version::V5, "d").await;
    other.publish("t", b"no", Q2).await;
    let got = client.take().await;
    let packet_id = got.packet_id.unwrap();
    client.ack(PacketType::PubRec, packet_id, ReasonCode::QuotaExceeded).await;
    client.quiet().await;
    broker.until_metric("tombolo_inflight_messages", 0).await;
    assert_eq!(broker.metric("tombolo_packets_sent_total{type=\"pubrel\"}"), 0, "none was due, none counted");
}

#[tokio::test]
async fn properties_go_through_as_they_are() {
    let broker = broker().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
    let mut old = broker.join(Version::V311, "o").await;
    to.subscribe("p", Q1).await;
    old.subscribe("p", Q1).await;
    let sent = properties(&[
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(100),
        Property::TopicAlias(5),
        Property::ResponseTopic("answer"),
        Property::CorrelationData(b"\x00\x01"),
        Property::UserProperty("k", "1"),
        Property::UserProperty("k", "2"),
        Property::ContentType("text/plain"),
    ]);
    let publish = Publish { qos: Q1, properties: sent.as_properties(), ..message("p", b"x") };
    from.publish_as(publish).await;
    let got = to.receive().await;
    let kept = got.properties();
    assert_eq!(kept.payload_format_indicator(), Some(1));
    assert_eq!(kept.message_expiry_interval(), Some(100));
    assert_eq!(kept.topic_alias(), None);
    assert_eq!(kept.response_topic(), Some("answer"));
    assert_eq!(kept.correlation_data(), Some(&[0, 1][..]));
    assert_eq!(kept.user_properties().collect::<Vec<_>>(), [("k", "1"), ("k", "2")], "[MQTT-3.3.2-18]");
    assert_eq!(kept.content_type(), Some("text/plain"));
    assert_eq!(old.receive().await.properties, b"");
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order() {
    let broker = Setup::new().mqtt("max_inflight = 5").start().await;
    for qos in [Q0, Q1, Q2] {
        let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
        to.subscribe("o/#", qos).await;
        let mut bytes = Vec::new();
        for n in 0..200 {
            let payload = n.to_string();
            let topic = format!("o/{}", n % 3);
            bytes.extend_from_slice(&from.encoded(&Packet::Publish(message(&topic, payload.as_bytes()))));
        }
        if qos == Q0 {
            from.write(&bytes).await;
            assert_eq!(to.receive_texts(200).await, numbers(200));
            continue;
        }
        for n in 0..200 {
            from.publish(&format!("o/{}", n % 3), n.to_string().as_bytes(), qos).await;
        }
        assert_eq!(to.receive_texts(200).await, numbers(200), "[MQTT-4.6.0-6] at {qos:?}");
    }
}

pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn a_burst_of_ten_thousand_in_one_write() {
    let broker = broker().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V311, "t").await);
    to.subscribe("b", Q0).await;
    let mut bytes = Vec::new();
    for n in 0..10_000 {
        bytes.extend_from_slice(&from.encoded(&Packet::Publish(message("b", n.to_string().as_bytes()))));
    }
    from.write(&bytes).await;
    assert_eq!(to.receive_texts(10_000).await, numbers(10_000));
    broker.until_metric("tombolo_messages_sent_total{qos=\"0\"}", 10_000).await;
}

#[tokio::test]
async fn a_burst_of_ten_thousand_at_qos_1_is_acknowledged_one_by_one() {
    let broker = Setup::new().mqtt("max_mqueue_len = 100000").start().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V5, "t").await);
    to.subscribe("b", Q1).await;
    let mut bytes = Vec::new();
    for n in 0..10_000_u16 {
        let payload = n.to_string();
        let publish = Publish { qos: Q1, packet_id: Some(id(n + 1)), ..message("b", payload.as_bytes()) };
        bytes.extend_from_slice(&from.encoded(&Packet::Publish(publish)));
    }
    from.write(&bytes).await;
    for n in 0..10_000 {
        assert_eq!(from.next().await, Got::Ack(PacketType::PubAck, n + 1, 0), "[MQTT-4.6.0-2]");
    }
    assert_eq!(to.receive_texts(10_000).await, numbers(10_000));
}

#[tokio::test]
async fn packets_may_come_byte_by_byte() {
    let broker = broker().await;
    let mut from = broker.open().await;
    from.version = Version::V5;
    let mut to = broker.join(Version::V5, "t").await;
    to.subscribe("t", Q2).await;
    let publish = Publish { qos: Q2, packet_id: Some(id(1)), ..message("t", b"slowly") };
    let packets = [
        (from.encoded(&Packet::Connect(Box::new(hello(Version::V5, "f")))), Got::ConnAck(false, 0)),
        (from.encoded(&Packet::Publish(publish)), Got::Ack(PacketType::PubRec, 1, 0)),
        (vec![0x62, 2, 0, 1], Got::Ack(PacketType::PubComp, 1, 0)),
        (from.encoded(&Packet::PingReq), Got::PingResp),
    ];
    for (packet, answer) in packets {
        for byte in packet {
            from.write(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(from.next().await, answer);
    }
    assert_eq!(to.receive().await.text(), "slowly");
}

#[tokio::test]
async fn a_message_of_a_mebibyte() {
    let broker = Setup::new().mqtt("max_packet_size = \"2MB\"").start().await;
    let (mut from, mut to) = (broker.join(Version::V5, "f").await, broker.join(Version::V311, "t").await);
    to.subscribe("big", Q2).await;
    let payload: Vec<u8> = (0..1024 * 1024_u32).map(|n| (n * 7 % 251) as u8).collect();
    for qos in [Q0, Q1, Q2] {
        from.publish("big", &payload, qos).await;
        from.publish("big", b"small", qos).await;
        assert!(to.receive().await.payload == payload);
        assert_eq!(to.receive().await.text(), "small");
    }
}

#[tokio::test]
async fn a_slow_reader_stops_nobody_else() {
    let broker = Setup::new().mqtt("max_packet_size = \"2MB\"\nmax_mqueue_len = 10").start().await;
    let mut from = broker.join(Version::V5, "f").await;
    let (mut slow, mut quick) = (broker.join(Version::V5, "s").await, broker.join(Version::V5, "q").await);
    slow.subscribe("t", Q0).await;
    quick.subscribe("t", Q0).await;
    let payload = vec![b'x'; 512 * 1024];
    // Nobody reads `slow`: its socket fills, then what the broker holds for it, then messages are dropped.
    for _ in 0..64 {
        from.publish("t", &payload, Q0).await;
        assert_eq!(quick.receive().await.payload.len(), payload.len());
    }
    from.quiet().await;
    let dropped = broker.metric("tombolo_messages_dropped_total{reason=\"qos0_slow\"}");
    assert!((1..64).contains(&dropped), "{dropped} dropped");
    // What was kept comes in order and whole, and the connection still works.
    for _ in 0..64 - dropped {
        assert_eq!(slow.receive().await.payload.len(), payload.len());
    }
    slow.quiet().await;
}

#[tokio::test]
async fn an_expired_message_is_not_delivered() {
    let broker = broker().await;
    let (mut from, _) = (broker.join(Version::V5, "f").await, ());
    let (mut to, _) = broker.stay(Version::V5, "t").await;
    to.subscribe("t", Q1).await;
    to.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    let brief = properties(&[Property::MessageExpiryInterval(0)]);
    let long = properties(&[Property::MessageExpiryInterval(60)]);
    for (list, payload) in [(&brief, b"brief"), (&long, b"later")] {
        let publish = Publish { qos: Q1, properties: list.as_properties(), ..message("t", payload) };
        assert_eq!(from.publish_as(publish).await, 0);
    }
    // The clock counts in milliseconds: 0 seconds are over with the next one.
    crate::harness::a_moment().await;
    let (mut to, present) = broker.stay(Version::V5, "t").await;
    assert!(present);
    let got = to.receive().await;
    assert_eq!(got.text(), "later", "[MQTT-3.3.2-5]");
    assert!(got.properties().message_expiry_interval().is_some_and(|left| left <= 60), "[MQTT-3.3.2-6]");
    to.quiet().await;
    broker.until_metric("tombolo_messages_dropped_total{reason=\"expired\"}", 1).await;
}
