//! The client's side: packets to send, and answers to what it got.

use std::num::NonZeroU16;

use tombolo::mqtt::decode;
use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::encode;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::BURST;

pub(crate) fn limits(version: Version) -> DecodeLimits {
    DecodeLimits { version: Some(version), max_packet_size: 10_000_000 }
}

pub(crate) fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode::encode(packet, version, &mut out).unwrap();
    out
}

/// What applications typically send along.
pub(crate) fn typical_properties() -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::MessageExpiryInterval(3_600));
    properties.push(Property::UserProperty("source", "line-4"));
    properties
}

pub(crate) fn publish<'a>(
    topic: &'a str,
    payload: &'a [u8],
    qos: QoS,
    id: u16,
    properties: Properties<'a>,
) -> Packet<'a> {
    let packet_id = NonZeroU16::new(id).filter(|_| qos != QoS::AtMostOnce);
    Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload })
}

/// As many messages as one read brings. Each of QoS 2 is released at once, so that one identifier is in use at a time.
pub(crate) fn burst(
    topic: impl Fn(u16) -> String,
    payload: &[u8],
    qos: QoS,
    version: Version,
    properties: &PropertiesBuf,
) -> Vec<u8> {
    let mut out = Vec::new();
    for id in 1..=BURST {
        let topic = topic(id);
        let packet = publish(&topic, payload, qos, id, properties.as_properties());
        encode::encode(&packet, version, &mut out).unwrap();
        if let Some(id) = NonZeroU16::new(id).filter(|_| qos == QoS::ExactlyOnce) {
            encode::encode_ack(PacketType::PubRel, version, id, ReasonCode::Success, &mut out);
        }
    }
    out
}

/// Acknowledges every packet of `bytes` that asks for it.
pub(crate) fn respond(bytes: &[u8], version: Version, out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Ok(Decoded::Packet { packet, len }) = decode::decode(rest, &limits(version)) {
        rest = &rest[len..];
        let answer = match packet {
            Packet::Publish(Publish { qos: QoS::AtLeastOnce, packet_id, .. }) => {
                packet_id.map(|id| (PacketType::PubAck, id))
            }
            Packet::Publish(Publish { qos: QoS::ExactlyOnce, packet_id, .. }) => {
                packet_id.map(|id| (PacketType::PubRec, id))
            }
            Packet::PubRel(ack) => Some((PacketType::PubComp, ack.packet_id)),
            _ => None,
        };
        if let Some((kind, id)) = answer {
            encode::encode_ack(kind, version, id, ReasonCode::Success, out);
        }
    }
    assert!(rest.is_empty(), "whole packets");
}
