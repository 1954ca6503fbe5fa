//! `mqttbytes` 0.6 as an oracle, on the packets it handles as the standard asks (`crates.md` 1.3 and 1.5): ours is
//! read by it, what it read is written by it, and that is read by us as the packet we began with.

use bytes::BytesMut;
use mqttbytes::Error;
use mqttbytes::v4;
use mqttbytes::v5;
use proptest::prelude::*;
use proptest::strategy::Union;

use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::decode::decode;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;

use crate::MAX;
use crate::arbitrary::packet;
use crate::arbitrary::packet_of;
use crate::arbitrary::run;
use crate::edited;
use crate::edits;
use crate::encoded;
use crate::limits;

/// Through its reader and its writer.
fn through_v4(bytes: &[u8]) -> Result<&'static [u8], Error> {
    let mut stream = BytesMut::from(bytes);
    let packet = v4::read(&mut stream, MAX as usize)?;
    assert!(stream.is_empty());
    let mut out = BytesMut::new();
    match packet {
        v4::Packet::Connect(packet) => packet.write(&mut out)?,
        v4::Packet::ConnAck(packet) => packet.write(&mut out)?,
        v4::Packet::Publish(packet) => packet.write(&mut out)?,
        v4::Packet::PubAck(packet) => packet.write(&mut out)?,
        v4::Packet::PubRec(packet) => packet.write(&mut out)?,
        v4::Packet::PubRel(packet) => packet.write(&mut out)?,
        v4::Packet::PubComp(packet) => packet.write(&mut out)?,
        v4::Packet::Subscribe(packet) => packet.write(&mut out)?,
        v4::Packet::SubAck(packet) => packet.write(&mut out)?,
        v4::Packet::Unsubscribe(packet) => packet.write(&mut out)?,
        v4::Packet::UnsubAck(packet) => packet.write(&mut out)?,
        v4::Packet::PingReq => v4::PingReq.write(&mut out)?,
        v4::Packet::PingResp => v4::PingResp.write(&mut out)?,
        v4::Packet::Disconnect => v4::Disconnect.write(&mut out)?,
    };
    Ok(out.to_vec().leak())
}

fn through_v5(bytes: &[u8]) -> Result<&'static [u8], Error> {
    let mut stream = BytesMut::from(bytes);
    let packet = v5::read(&mut stream, MAX as usize)?;
    assert!(stream.is_empty());
    let mut out = BytesMut::new();
    match packet {
        v5::Packet::Publish(packet) => packet.write(&mut out)?,
        v5::Packet::PubAck(packet) => packet.write(&mut out)?,
        v5::Packet::PubRec(packet) => packet.write(&mut out)?,
        v5::Packet::PubRel(packet) => packet.write(&mut out)?,
        v5::Packet::PubComp(packet) => packet.write(&mut out)?,
        v5::Packet::Subscribe(packet) => packet.write(&mut out)?,
        v5::Packet::SubAck(packet) => packet.write(&mut out)?,
        v5::Packet::UnsubAck(packet) => packet.write(&mut out)?,
        other => panic!("not in the subset: {other:?}"),
    };
    Ok(out.to_vec().leak())
}

/// The same packet with its properties in the order of their identifiers, since `mqttbytes` writes its own order.
fn ordered(mut packet: Packet<'_>) -> Packet<'_> {
    let sorted = |properties: Properties<'_>, context| {
        let mut all: Vec<_> = properties.iter().collect();
        all.sort_by_key(Property::id);
        run(all.into_iter(), context)
    };
    match &mut packet {
        Packet::Publish(p) => p.properties = sorted(p.properties, PropertyContext::Publish),
        Packet::PubAck(p) => p.properties = sorted(p.properties, PropertyContext::PubAck),
        Packet::PubRec(p) => p.properties = sorted(p.properties, PropertyContext::PubRec),
        Packet::PubRel(p) => p.properties = sorted(p.properties, PropertyContext::PubRel),
        Packet::PubComp(p) => p.properties = sorted(p.properties, PropertyContext::PubComp),
        Packet::Subscribe(p) => p.properties = sorted(p.properties, PropertyContext::Subscribe),
        Packet::SubAck(p) => p.properties = sorted(p.properties, PropertyContext::SubAck),
        Packet::UnsubAck(p) => p.properties = sorted(p.properties, PropertyContext::UnsubAck),
        _ => {}
    }
    packet
}

/// `crates.md` 1.3 A6 and A7: no binary password, absent and empty are the same, no bridges.
fn is_right_v4(packet: &Packet<'_>) -> bool {
    let Packet::Connect(connect) = packet else { return true };
    let login = match (connect.username, connect.password) {
        (None, None) => true,
        (Some(username), Some(password)) => {
            !username.is_empty() && !password.is_empty() && std::str::from_utf8(password).is_ok()
        }
        _ => false,
    };
    login && !connect.bridge
}

/// `crates.md` 1.3 A4: Subscription Identifiers are counted twice.
fn is_right_v5(packet: &Packet<'_>) -> bool {
    let Packet::Publish(publish) = packet else { return true };
    publish.properties.subscription_identifiers().next().is_none()
}

fn v5_subset() -> impl Strategy<Value = Packet<'static>> {
    let kinds = [
        PacketType::Publish,
        PacketType::PubAck,
        PacketType::PubRec,
        PacketType::PubRel,
        PacketType::PubComp,
        PacketType::Subscribe,
        PacketType::SubAck,
        PacketType::UnsubAck,
    ];
    Union::new(kinds.map(|kind| packet_of(kind, Version::V5))).prop_filter("right", is_right_v5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn mqttbytes_reads_and_writes_the_same_v311(
        packet in packet(Version::V311).prop_filter("right", is_right_v4),
    ) {
        let bytes = encoded(&packet, Version::V311);
        let theirs = through_v4(bytes).map_err(|fault| TestCaseError::fail(format!("{fault}: {bytes:02x?}")))?;
        let read = decode(theirs, &limits(&packet, Version::V311));
        prop_assert_eq!(read, Ok(Decoded::Packet { packet, len: theirs.len() }));
        prop_assert_eq!(theirs, bytes);
    }

    #[test]
    fn mqttbytes_reads_and_writes_the_same_v5(packet in v5_subset()) {
        let bytes = encoded(&packet, Version::V5);
        let theirs = through_v5(bytes).map_err(|fault| TestCaseError::fail(format!("{fault}: {bytes:02x?}")))?;
        match decode(theirs, &limits(&packet, Version::V5)) {
            Ok(Decoded::Packet { packet: read, len }) => {
                prop_assert_eq!(len, theirs.len());
                prop_assert_eq!(ordered(read), ordered(packet));
            }
            other => prop_assert!(false, "{:?}: {:02x?}", other, theirs),
        }
    }

    /// It accepts too much, never too little: what we accept of mutated bytes it accepts and understands alike.
    #[test]
    fn mqttbytes_accepts_what_we_accept(
        packet in packet(Version::V311).prop_filter("no CONNECT", |p| p.packet_type() != PacketType::Connect),
        edits in edits(),
    ) {
        let bytes = edited(encoded(&packet, Version::V311), &edits, true);
        let limits = DecodeLimits { version: Some(Version::V311), max_packet_size: MAX };
        if let Ok(Decoded::Packet { packet, len }) = decode(bytes, &limits) {
            let theirs = through_v4(&bytes[..len])
                .map_err(|fault| TestCaseError::fail(format!("{fault}: {bytes:02x?}")))?;
            prop_assert_eq!(decode(theirs, &limits), Ok(Decoded::Packet { packet, len: theirs.len() }));
        }
    }
}
