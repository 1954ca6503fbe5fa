use smallvec::smallvec;

use crate::mqtt::packet::Connect;
use crate::mqtt::packet::SubscribeFilter;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;

use super::*;

const ID: PacketId = PacketId::MIN;

fn bytes(packet: Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = vec![0xAA];
    encode(&packet, version, &mut out).unwrap();
    assert_eq!(out.remove(0), 0xAA);
    out
}

fn refused(packet: Packet<'_>, version: Version, error: EncodeError) {
    let mut out = vec![0xAA];
    assert_eq!(encode(&packet, version, &mut out), Err(error), "{packet:?}");
    assert_eq!(out, [0xAA], "nothing is left behind");
}

fn connack(reason: ReasonCode) -> Packet<'static> {
    Packet::ConnAck(ConnAck { session_present: true, reason, properties: Properties::EMPTY })
}

fn publish(topic: &str) -> Publish<'_> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"",
    }
}

fn minimal_connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_seconds: 0,
        properties: Properties::EMPTY,
        client_id: "c",
        will: None,
        username: None,
        password: None,
    }
}

/// What mqttbytes writes wrong (`crates.md` 1.3 A).
#[test]
fn bytes_of_the_packets_others_write_wrong() {
    assert_eq!(bytes(connack(ReasonCode::Success), Version::V5), [0x20, 3, 1, 0, 0]);
    assert_eq!(bytes(connack(ReasonCode::NotAuthorized), Version::V5), [0x20, 3, 0, 0x87, 0]);
    let disconnect = |reason| Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY });
    assert_eq!(bytes(disconnect(ReasonCode::Success), Version::V5), [0xE0, 0]);
    assert_eq!(bytes(disconnect(ReasonCode::ServerBusy), Version::V5), [0xE0, 2, 0x89, 0]);
    assert_eq!(bytes(disconnect(ReasonCode::ServerBusy), Version::V311), [0xE0, 0]);
    let connect = Packet::Connect(Box::new(minimal_connect(Version::V311)));
    let expected = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c";
    assert_eq!(bytes(connect.clone(), Version::V5), expected, "the version of the CONNECT counts");
    assert_eq!(bytes(connect, Version::V311), expected);
}

#[test]
fn older_versions_say_what_they_can() {
    assert_eq!(bytes(connack(ReasonCode::Success), Version::V311), [0x20, 2, 1, 0]);
    assert_eq!(bytes(connack(ReasonCode::Success), Version::V31), [0x20, 2, 0, 0]);
    assert_eq!(bytes(connack(ReasonCode::Banned), Version::V311), [0x20, 2, 0, 5]);
    let mut properties = PropertiesBuf::new();
    properties.push(Property::ReasonString("no"));
    let properties = properties.as_properties();
    let reason = ReasonCode::NotAuthorized;
    let ack = Packet::PubAck(Ack { packet_id: ID, reason, properties });
    assert_eq!(bytes(ack.clone(), Version::V311), [0x40, 2, 0, 1]);
    assert_eq!(bytes(ack, Version::V5), b"\x40\x09\0\x01\x87\x05\x1f\0\x02no");
    let suback = Packet::SubAck(SubAck {
        packet_id: ID,
        properties,
        reasons: smallvec![ReasonCode::Success, ReasonCode::GrantedQoS2, reason],
    });
    assert_eq!(bytes(suback, Version::V311), [0x90, 5, 0, 1, 0, 2, 0x80]);
    let reasons = smallvec![ReasonCode::NoSubscriptionExisted];
    let unsuback = UnsubAck { packet_id: ID, properties: Properties::EMPTY, reasons };
    assert_eq!(bytes(Packet::UnsubAck(unsuback.clone()), Version::V31), [0xB0, 2, 0, 1]);
    assert_eq!(bytes(Packet::UnsubAck(unsuback), Version::V5), [0xB0, 4, 0, 1, 0, 0x11]);
}

#[test]
fn acknowledgements_without_a_packet() {
    let mut out = Vec::new();
    encode_ack(PacketType::PubAck, Version::V5, ID, ReasonCode::NoMatchingSubscribers, &mut out);
    encode_ack(PacketType::PubRel, Version::V5, ID, ReasonCode::Success, &mut out);
    encode_ack(PacketType::PubRec, Version::V311, ID, ReasonCode::NotAuthorized, &mut out);
    encode_ping_resp(&mut out);
    assert_eq!(out, b"\x40\x03\0\x01\x10\x62\x02\0\x01\x50\x02\0\x01\xd0\0");
    for kind in [PacketType::PubAck, PacketType::PubRec, PacketType::PubRel, PacketType::PubComp] {
        for &reason in ReasonCode::ALL.iter().filter(|reason| reason.allowed_in(kind)) {
            for version in [Version::V311, Version::V5] {
                let ack = Ack { packet_id: ID, reason, properties: Properties::EMPTY };
                let packet = match kind {
                    PacketType::PubAck => Packet::PubAck(ack),
                    PacketType::PubRec => Packet::PubRec(ack),
                    PacketType::PubRel => Packet::PubRel(ack),
                    _ => Packet::PubComp(ack),
                };
                let mut direct = Vec::new();
                encode_ack(kind, version, ID, reason, &mut direct);
                assert_eq!(direct, bytes(packet, version));
            }
        }
    }
}

#[test]
fn publish_that_no_receiver_would_take() {
    let v5 = Version::V5;
    let long = "a".repeat(65_536);
    for topic in ["", "a/#", "a\0", &long] {
        refused(Packet::Publish(publish(topic)), v5, EncodeError::TopicName);
    }
    let unnumbered = Publish { qos: QoS::AtLeastOnce, ..publish("a") };
    refused(Packet::Publish(unnumbered), v5, EncodeError::PacketIdentifier);
    let numbered = Publish { packet_id: Some(ID), ..publish("a") };
    refused(Packet::Publish(numbered), v5, EncodeError::PacketIdentifier);
    refused(Packet::Publish(Publish { dup: true, ..publish("a") }), v5, EncodeError::Duplicate);
    let mut alias = PropertiesBuf::new();
    alias.push(Property::TopicAlias(1));
    let aliased = Publish { properties: alias.as_properties(), ..publish("") };
    assert_eq!(bytes(Packet::Publish(aliased), v5), b"\x30\x06\0\0\x03\x23\0\x01");
    refused(Packet::Publish(aliased), Version::V311, EncodeError::TopicName);
    let mut foreign = PropertiesBuf::new();
    foreign.push(Property::ReasonString("x"));
    let foreign = Publish { properties: foreign.as_properties(), ..publish("a") };
    refused(Packet::Publish(foreign), v5, EncodeError::Properties);
}

#[test]
fn control_packets_that_no_receiver_would_take() {
    let properties = Properties::EMPTY;
    let v5 = Version::V5;
    let empty = Subscribe { packet_id: ID, properties, filters: smallvec![] };
    refused(Packet::Subscribe(empty), v5, EncodeError::Empty);
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    let filters = smallvec![SubscribeFilter { filter: "$share/g/a", options }];
    let shared = Subscribe { packet_id: ID, properties, filters };
    refused(Packet::Subscribe(shared.clone()), v5, EncodeError::NoLocalOnShared);
    assert_eq!(bytes(Packet::Subscribe(shared), Version::V311).last(), Some(&0));
    let none = Unsubscribe { packet_id: ID, properties, filters: smallvec![] };
    refused(Packet::Unsubscribe(none), v5, EncodeError::Empty);
    let null = Unsubscribe { packet_id: ID, properties, filters: smallvec!["a\0"] };
    refused(Packet::Unsubscribe(null), v5, EncodeError::Null);
    let suback = SubAck { packet_id: ID, properties, reasons: smallvec![] };
    refused(Packet::SubAck(suback), v5, EncodeError::Empty);
    let unsuback = UnsubAck { packet_id: ID, properties, reasons: smallvec![] };
    refused(Packet::UnsubAck(unsuback), v5, EncodeError::Empty);
    refused(connack(ReasonCode::SessionTakenOver), v5, EncodeError::Reason);
    let auth = Auth { reason: ReasonCode::ContinueAuthentication, properties };
    refused(Packet::Auth(auth), v5, EncodeError::Properties);
    refused(Packet::Auth(auth), Version::V311, EncodeError::Version);
}

#[test]
fn connect_that_its_version_cannot_say() {
    let cases = [
        Connect { client_id: "", ..minimal_connect(Version::V31) },
        Connect { client_id: "", clean_start: false, ..minimal_connect(Version::V311) },
        Connect { password: Some(b"p"), ..minimal_connect(Version::V311) },
        Connect { bridge: true, ..minimal_connect(Version::V5) },
    ];
    for connect in cases {
        refused(Packet::Connect(Box::new(connect)), Version::V5, EncodeError::Connect);
    }
    let long = [0; 65_536];
    let connect = Connect { username: Some("u"), password: Some(&long), ..minimal_connect(Version::V5) };
    refused(Packet::Connect(Box::new(connect)), Version::V5, EncodeError::FieldTooLong);
}
