//! Everything that is bounded: packets, windows, aliases, levels, subscriptions, queues.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
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
use crate::harness::options;
use crate::harness::properties;

#[tokio::test]
async fn our_maximum_packet_size() {
    let broker = Setup::new().mqtt("max_packet_size = \"1000B\"").start().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        let overhead = client.encoded(&Packet::Publish(message("t", &[0; 900]))).len() - 900;
        client.publish("t", &vec![0; 1000 - overhead], Q0).await;
        client.quiet().await;
        client.publish("t", &vec![0; 1001 - overhead], Q0).await;
        client.refused(0x95).await;
    }
    // The header alone is enough, and a CONNECT is a packet too.
    let mut client = broker.join(Version::V5, "c").await;
    client.write(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]).await;
    client.refused(0x95).await;
    let mut client = broker.open().await;
    client.write(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]).await;
    assert_eq!(client.next().await, Got::Closed);
    broker.until_metric("tombolo_disconnects_total{reason=\"packet_too_large\"}", 4).await;
}

#[tokio::test]
async fn the_clients_maximum_packet_size() {
    let broker = broker().await;
    let list = properties(&[Property::MaximumPacketSize(60)]);
    let mut small = broker.open().await;
    let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "small") };
    assert_eq!(small.connect(&asked).await, Got::ConnAck(false, 0));
    let mut large = broker.join(Version::V5, "large").await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for client in [&mut small, &mut large] {
        client.subscribe("t", Q2).await;
    }
    let mut dropped = 0;
    for qos in [Q0, Q1, Q2] {
        let extra = if qos == Q0 { 0 } else { 2 };
        // 1 + 1 + 2 + 1 + 1 bytes beside payload and identifier.
        let fits = vec![b'x'; 54 - extra];
        let mut over = fits.clone();
        over.push(b'x');
        publisher.publish("t", &over, qos).await;
        publisher.publish("t", &fits, qos).await;
        dropped += 1;
        assert_eq!(small.receive().await.payload.len(), fits.len(), "[MQTT-3.1.2-24]");
        assert_eq!(large.receive().await.payload.len(), over.len(), "{qos:?}");
        assert_eq!(large.receive().await.payload.len(), fits.len());
        broker.until_metric("tombolo_messages_dropped_total{reason=\"too_large\"}", dropped).await;
    }
    small.quiet().await;
}

#[tokio::test]
async fn the_clients_receive_maximum() {
    let broker = broker().await;
    let list = properties(&[Property::ReceiveMaximum(2)]);
    let mut client = broker.open().await;
    let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "c") };
    client.connect(&asked).await;
    client.subscribe("t", Q2).await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for n in 0..5 {
        publisher.publish("t", &[b'0' + n], if n % 2 == 0 { Q1 } else { Q2 }).await;
    }
    let (zero, one) = (client.take().await, client.take().await);
    client.quiet().await;
    // PUBREC frees no place, PUBCOMP does ([MQTT-3.3.4-9]).
    client.ack(PacketType::PubRec, one.packet_id.unwrap(), ReasonCode::Success).await;
    assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, one.packet_id.unwrap(), 0));
    client.quiet().await;
    publisher.publish("t", b"Q", Q0).await;
    assert_eq!(client.take().await.text(), "Q", "QoS 0 needs no place");
    client.ack(PacketType::PubComp, one.packet_id.unwrap(), ReasonCode::Success).await;
    let two = client.take().await;
    client.quiet().await;
    client.ack(PacketType::PubAck, two.packet_id.unwrap(), ReasonCode::Success).await;
    client.ack(PacketType::PubAck, zero.packet_id.unwrap(), ReasonCode::Success).await;
    assert_eq!(client.receive_texts(2).await, ["3", "4"]);
}

#[tokio::test]
async fn max_inflight_holds_for_older_versions() {
    let broker = Setup::new().mqtt("max_inflight = 2").start().await;
    let mut client = broker.join(Version::V311, "c").await;
    client.subscribe("t", Q1).await;
    let mut publisher = broker.join(Version::V311, "p").await;
    for n in 0..3 {
        publisher.publish("t", &[b'0' + n], Q1).await;
    }
    let first = client.take().await;
    client.take().await;
    client.quiet().await;
    client.ack(PacketType::PubAck, first.packet_id.unwrap(), ReasonCode::Success).await;
    assert_eq!(client.take().await.text(), "2");
}

#[tokio::test]
async fn our_receive_maximum() {
    let broker = Setup::new().mqtt("max_inflight = 3\nmax_awaiting_rel = 4").start().await;
    for (version, allowed) in [(Version::V5, 3), (Version::V311, 4)] {
        let mut client = broker.join(version, "c").await;
        for n in 1..=allowed {
            client
                .send(&Packet::Publish(Publish { qos: Q2, packet_id: Some(id(n)), ..message("t", b"") }))
                .await;
            assert!(matches!(client.next().await, Got::Ack(PacketType::PubRec, got, _) if got == n));
        }
        // A PUBREL makes room for one more.
        client.ack(PacketType::PubRel, 1, ReasonCode::Success).await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubComp, 1, 0));
        for n in [1, 9] {
            client
                .send(&Packet::Publish(Publish { qos: Q2, packet_id: Some(id(n)), ..message("t", b"") }))
                .await;
        }
        assert!(matches!(client.next().await, Got::Ack(PacketType::PubRec, 1, _)));
        client.refused(0x93).await;
    }
    broker.until_metric("tombolo_disconnects_total{reason=\"receive_maximum_exceeded\"}", 2).await;
}

#[tokio::test]
async fn topic_aliases() {
    let broker = Setup::new().mqtt("max_topic_alias = 3").start().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("#", Q0).await;
    let alias = |value| properties(&[Property::TopicAlias(value)]);
    let mut client = broker.join(Version::V5, "c").await;
    for (topic, value, seen) in
        [("one", 1, "one"), ("", 1, "one"), ("two", 1, "two"), ("", 1, "two"), ("3", 3, "3")]
    {
        let list = alias(value);
        let publish = Publish { properties: list.as_properties(), ..message(topic, b"") };
        client.send(&Packet::Publish(publish)).await;
        assert_eq!(watcher.take().await.topic, seen);
    }
    for (topic, value, reason) in [("", 2, 0x82), ("x", 4, 0x94)] {
        let mut client = broker.join(Version::V5, "d").await;
        let list = alias(value);
        client
            .send(&Packet::Publish(Publish { properties: list.as_properties(), ..message(topic, b"") }))
            .await;
        client.refused(reason).await;
    }
    // They end with the connection ([MQTT-3.3.2-7]).
    let mut again = broker.join(Version::V5, "c").await;
    let list = alias(1);
    again.send(&Packet::Publish(Publish { properties: list.as_properties(), ..message("", b"") })).await;
    again.refused(0x82).await;
    watcher.quiet().await;
}

#[tokio::test]
async fn aliases_take_a_bounded_amount_of_memory() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let topic = "x".repeat(65_000);
    let mut sent = 0;
    for value in 1..=17 {
        let list = properties(&[Property::TopicAlias(value)]);
        client
            .send(&Packet::Publish(Publish { properties: list.as_properties(), ..message(&topic, b"") }))
            .await;
        sent += topic.len();
    }
    assert!(sent > 1024 * 1024);
    client.refused(0x97).await;
}

/// `ignore_loop_deliver`: No Local for those who cannot ask for it, and for nobody else.
#[tokio::test]
async fn older_clients_get_nothing_back_if_the_setting_says_so() {
    let broker = Setup::new().mqtt("ignore_loop_deliver = true").start().await;
    for version in VERSIONS {
        let (mut one, mut two) = (broker.join(version, "1").await, broker.join(version, "2").await);
        for client in [&mut one, &mut two] {
            client.subscribe("t", Q1).await;
        }
        one.publish("t", b"x", Q1).await;
        assert_eq!(two.receive().await.text(), "x");
        if version == Version::V5 {
            assert_eq!(one.receive().await.text(), "x");
        }
        one.quiet().await;
        one.leave().await;
        two.leave().await;
    }
}

#[tokio::test]
async fn levels() {
    let broker = Setup::new().mqtt("max_topic_levels = 3").start().await;
    for (version, invalid) in [(Version::V5, 0x8F), (Version::V311, 0x80)] {
        let mut client = broker.join(version, "c").await;
        let list = [("a/b/c", options(Q0)), ("a/b/c/d", options(Q0)), ("$share/g/a/b/c", options(Q0))];
        assert_eq!(client.subscribe_as(&list, None).await, [0, invalid, 0]);
        client.publish("1/2/3", b"", Q1).await;
        client.publish("1/2/3/4", b"", Q0).await;
        client.refused(0x90).await;
    }
}

#[tokio::test]
async fn subscriptions() {
    let broker = Setup::new().mqtt("max_subscriptions = 2").start().await;
    for (version, full) in [(Version::V5, 0x97), (Version::V311, 0x80)] {
        let mut client = broker.join(version, "c").await;
        let list = [("a", options(Q0)), ("b", options(Q0)), ("c", options(Q0)), ("a", options(Q1))];
        assert_eq!(client.subscribe_as(&list, None).await, [0, 0, full, 1], "replacing needs no room");
        client.unsubscribe(&["b"]).await;
        assert_eq!(client.subscribe("c", Q0).await, 0);
    }
}

#[tokio::test]
async fn a_queue_keeps_the_newest_and_counts_the_rest() {
    let broker = Setup::new().mqtt("max_mqueue_len = 3\nmqueue_store_qos0 = false").start().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    client.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    for n in 0..10 {
        publisher.publish("t", &[b'0' + n], Q1).await;
    }
    publisher.publish("t", b"Q", Q0).await;
    broker.until_metric("tombolo_messages_dropped_total{reason=\"queue_full\"}", 7).await;
    broker.until_metric("tombolo_messages_dropped_total{reason=\"qos0_offline\"}", 1).await;
    assert_eq!(broker.metric("tombolo_queued_messages"), 3);
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    assert_eq!(client.receive_texts(3).await, ["7", "8", "9"]);
    client.quiet().await;
}

#[tokio::test]
async fn connections_per_time() {
    let broker = Setup::new()
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nmax_conn_rate = \"2/d\"",
        )
        .start()
        .await;
    let one = broker.join(Version::V5, "1").await;
    let mut two = broker.join(Version::V5, "2").await;
    one.leave().await;
    assert_eq!(broker.open().await.next().await, Got::Closed);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"quota\"}", 1).await;
    two.quiet().await;
}

#[tokio::test]
async fn connections() {
    let broker = Setup::new()
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nmax_connections = 1",
        )
        .start()
        .await;
    let one = broker.join(Version::V5, "1").await;
    let mut two = broker.open().await;
    assert_eq!(two.next().await, Got::Closed);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"max_connections\"}", 1).await;
    one.leave().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 0).await;
    broker.join(Version::V5, "2").await.quiet().await;
}

/// `[MQTT-3.1.2-24]` holds for every packet: a client that cannot be answered is told so, and closed.
#[tokio::test]
async fn an_answer_larger_than_the_client_takes_ends_the_connection() {
    let broker = broker().await;
    let list = properties(&[Property::MaximumPacketSize(30)]);
    let names: Vec<String> = (0..30).map(|n| format!("t/{n}")).collect();
    for filters in [25, 26] {
        let mut client = broker.open().await;
        let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "c") };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
        let names: Vec<&str> = names.iter().take(filters).map(String::as_str).collect();
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: id(1),
            properties: Properties::EMPTY,
            filters: names.iter().map(|filter| SubscribeFilter { filter, options: options(Q0) }).collect(),
        });
        client.send(&subscribe).await;
        if filters == 25 {
            // Five bytes and one for each filter.
            assert_eq!(client.next().await, Got::SubAck(1, vec![0; 25]));
            assert_eq!(client.unsubscribe(&names).await, [0; 25]);
            client.quiet().await;
        } else {
            client.refused(0x95).await;
        }
    }
    broker.until_metric("tombolo_disconnects_total{reason=\"packet_too_large\"}", 1).await;
}
