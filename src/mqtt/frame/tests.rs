use proptest::prelude::*;

use crate::mqtt::encode::encode;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;

use super::*;

/// The parts of a [`PublishHeader`], owned.
#[derive(Debug, Clone)]
struct Parts {
    topic: String,
    forwarded: PropertiesBuf,
    expiry: Option<u32>,
    subscription_ids: Vec<u32>,
    topic_alias: Option<u16>,
    payload: Vec<u8>,
}

impl Parts {
    fn header(&self) -> PublishHeader<'_> {
        PublishHeader {
            topic: &self.topic,
            properties: self.forwarded.as_properties().as_bytes(),
            expiry: self.expiry,
            subscription_ids: &self.subscription_ids,
            topic_alias: self.topic_alias,
            payload: &self.payload,
        }
    }

    fn properties(&self) -> PropertiesBuf {
        let mut all = self.forwarded.clone();
        if let Some(expiry) = self.expiry {
            all.push(Property::MessageExpiryInterval(expiry));
        }
        if let Some(alias) = self.topic_alias {
            all.push(Property::TopicAlias(alias));
        }
        for &id in &self.subscription_ids {
            all.push(Property::SubscriptionIdentifier(id));
        }
        all
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let forwarded = (any::<Option<bool>>(), prop::collection::vec("[a-zé]{0,40}", 0..4));
    (
        "[a-z/é]{1,200}",
        forwarded,
        any::<Option<u32>>(),
        prop::collection::vec(1..=wire::VARINT_MAX, 0..4),
        prop::option::of(1..=u16::MAX),
        prop_oneof![prop::collection::vec(any::<u8>(), 0..300), Just(vec![7; 17_000])],
    )
        .prop_map(|(topic, (utf8, users), expiry, subscription_ids, topic_alias, payload)| {
            let mut forwarded = PropertiesBuf::new();
            if let Some(utf8) = utf8 {
                forwarded.push(Property::PayloadFormatIndicator(u8::from(utf8)));
            }
            for user in &users {
                forwarded.push(Property::UserProperty("k", user));
            }
            Parts { topic, forwarded, expiry, subscription_ids, topic_alias, payload }
        })
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(vec![Version::V31, Version::V311, Version::V5])
}

proptest! {
    #[test]
    fn a_frame_is_what_the_encoder_writes(
        parts in parts(),
        version in version(),
        qos in 0..=2_u8,
        retain: bool,
        dup: bool,
        id in 1..=u16::MAX,
    ) {
        let qos = QoS::from_u8(qos).unwrap();
        let packet_id = PacketId::new(id).filter(|_| qos != QoS::AtMostOnce);
        let dup = dup && packet_id.is_some();
        let properties = parts.properties();
        let packet = Packet::Publish(Publish {
            dup,
            qos,
            retain,
            topic: &parts.topic,
            packet_id,
            properties: properties.as_properties(),
            payload: &parts.payload,
        });
        let mut expected = vec![0xAA];
        encode(&packet, version, &mut expected).unwrap();

        let mut out = vec![0xAA];
        let flags = flags(qos, retain, dup);
        write(flags, version, packet_id.map(PacketId::get), &parts.header(), &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(publish_len(version, qos, &parts.header()), out.len() - 1);
    }
}

#[test]
fn the_place_of_the_packet_identifier_is_told() {
    let header = PublishHeader { topic: "a", payload: b"x", ..PublishHeader::default() };
    let mut out = vec![0xAA];
    assert_eq!(write(0, Version::V5, Some(0), &header, &mut out), Ok(5));
    assert_eq!(out, b"\xAA\x30\x07\0\x01a\0\0\0x");
    out.clear();
    assert_eq!(write(0, Version::V311, None, &header, &mut out), Ok(0));
    assert_eq!(out, b"\x30\x04\0\x01ax");
}

#[test]
fn of_what_cannot_be_written_nothing_is() {
    let long = "a".repeat(65_536);
    let base = PublishHeader { topic: "a", ..PublishHeader::default() };
    let cases = [
        (PublishHeader { topic: &long, ..base }, EncodeError::FieldTooLong),
        (PublishHeader { topic_alias: Some(0), ..base }, EncodeError::Properties),
        (PublishHeader { subscription_ids: &[0], ..base }, EncodeError::Properties),
        (PublishHeader { subscription_ids: &[268_435_456], ..base }, EncodeError::Properties),
    ];
    let mut out = Vec::new();
    for (header, error) in cases {
        assert_eq!(write(0, Version::V5, None, &header, &mut out), Err(error));
        assert!(out.is_empty());
    }
}
