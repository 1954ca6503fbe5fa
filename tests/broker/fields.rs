//! Strings, Packet Identifiers and properties on the wire (chapters 1 and 2).

use std::collections::HashSet;

use tokio::io::AsyncReadExt;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::Unsubscribe;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::harness::options;
use crate::harness::properties;

/// `[MQTT-1.5.4-3]`: U+FEFF is a character like others, in Topic Names, Topic Filters and Client Identifiers.
#[tokio::test]
async fn a_byte_order_mark_is_part_of_a_string() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut with = broker.join(version, "\u{FEFF}c").await;
        let mut without = broker.join(version, "c").await;
        with.subscribe("\u{FEFF}t", Q0).await;
        without.subscribe("t", Q0).await;
        with.publish("\u{FEFF}t", b"x", Q0).await;
        assert_eq!(with.receive().await.topic, "\u{FEFF}t");
        with.quiet().await;
        without.quiet().await;
    }
}

/// `[MQTT-2.2.1-5]` and `[MQTT-2.2.1-6]`, with identifiers that nobody would guess.
#[tokio::test]
async fn answers_repeat_the_identifier_they_answer() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        for packet_id in [1, 0x1234, u16::MAX] {
            let filters = [SubscribeFilter { filter: "t", options: options(Q0) }].into_iter().collect();
            let properties = Properties::EMPTY;
            client
                .send(&Packet::Subscribe(Subscribe { packet_id: id(packet_id), properties, filters }))
                .await;
            assert_eq!(client.next().await, Got::SubAck(packet_id, vec![0]));
            let filters = ["t"].into_iter().collect();
            client
                .send(&Packet::Unsubscribe(Unsubscribe { packet_id: id(packet_id), properties, filters }))
                .await;
            assert!(matches!(client.next().await, Got::UnsubAck(got, _) if got == packet_id));
            for (qos, answer) in [(Q1, PacketType::PubAck), (Q2, PacketType::PubRec)] {
                let publish = Publish { qos, packet_id: Some(id(packet_id)), ..message("t", b"") };
                client.send(&Packet::Publish(publish)).await;
                assert!(
                    matches!(client.next().await, Got::Ack(kind, got, _) if kind == answer && got == packet_id)
                );
            }
            client.ack(PacketType::PubRel, packet_id, ReasonCode::Success).await;
            assert_eq!(client.next().await, Got::Ack(PacketType::PubComp, packet_id, 0));
        }
        // And the Server's own.
        let mut publisher = broker.join(version, "p").await;
        client.subscribe("u", Q2).await;
        publisher.publish("u", b"", Q2).await;
        let packet_id = client.take().await.packet_id.unwrap();
        client.ack(PacketType::PubRec, packet_id, ReasonCode::Success).await;
        assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, packet_id, 0));
    }
}

/// `[MQTT-2.2.1-4]`, once around all identifiers, with the first ones still in use.
#[tokio::test]
async fn identifiers_of_the_server_are_unused_and_not_zero() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    let mut in_use = HashSet::new();
    for round in 0..66_u32 {
        for _ in 0..1_000 {
            publisher
                .send(&Packet::Publish(Publish { qos: Q1, packet_id: Some(id(1)), ..message("t", b"") }))
                .await;
            assert_eq!(publisher.next().await, Got::Ack(PacketType::PubAck, 1, 0));
            let packet_id = client.take().await.packet_id.unwrap();
            assert!(packet_id != 0 && in_use.insert(packet_id), "round {round}: {packet_id}");
            // All but the last is given back; the last one is in use while the next is chosen.
            if in_use.len() > 1 {
                for free in in_use.extract_if(|other| *other != packet_id) {
                    client.ack(PacketType::PubAck, free, ReasonCode::Success).await;
                }
            }
        }
    }
}

/// `[MQTT-2.2.2-1]`: a zero, not nothing.
#[tokio::test]
async fn no_properties_are_a_length_of_zero() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut client = broker.join(Version::V5, "c").await;
    client.write(b"\x82\x07\0\x01\0\0\x01t\0").await;
    let mut suback = [0; 6];
    client.io.read_exact(&mut suback).await.unwrap();
    assert_eq!(suback, [0x90, 4, 0, 1, 0, 0]);
    publisher.publish("t", b"x", Q0).await;
    let mut publish = [0; 7];
    client.io.read_exact(&mut publish).await.unwrap();
    assert_eq!(&publish, b"\x30\x05\0\x01t\0x");
    client.write(b"\xa2\x06\0\x02\0\0\x01t").await;
    let mut unsuback = [0; 6];
    client.io.read_exact(&mut unsuback).await.unwrap();
    assert_eq!(unsuback, [0xB0, 4, 0, 2, 0, 0]);
    client.write(&[0x00, 0x00]).await;
    let mut disconnect = [0; 2];
    client.io.read_exact(&mut disconnect).await.unwrap();
    assert_eq!(disconnect[0], 0xE0);
}

/// `[MQTT-3.1.2-27]`: a maximum of 0 is as none at all.
#[tokio::test]
async fn no_alias_to_a_client_whose_maximum_is_zero() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let list = properties(&[Property::TopicAliasMaximum(0)]);
    let mut client = broker.open().await;
    let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "c") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    client.subscribe("site/1/temperature", Q0).await;
    for _ in 0..4 {
        publisher.publish("site/1/temperature", b"21", Q0).await;
        let got = client.receive().await;
        assert_eq!((got.topic.as_str(), got.properties().topic_alias()), ("site/1/temperature", None));
    }
}
