//! The codec from outside: packets of every kind through encode and decode in each version, bytes cut at every
//! place, mutated bytes, and `mqttbytes` as an oracle where it is right.

mod arbitrary;
mod oracle;

use proptest::prelude::*;

use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::decode::decode;
use tombolo::mqtt::decode::decode_publish;
use tombolo::mqtt::decode::plain_ack;
use tombolo::mqtt::encode::encode;
use tombolo::mqtt::packet::Ack;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::reason::ReasonCode;

use crate::arbitrary::any_version;
use crate::arbitrary::packet_and_version;

const MAX: u32 = 1 << 20;

/// The state of the receiver of this packet.
fn limits(packet: &Packet<'_>, version: Version) -> DecodeLimits {
    let before_connect = matches!(packet, Packet::Connect(_));
    DecodeLimits { version: (!before_connect).then_some(version), max_packet_size: MAX }
}

/// Its bytes; leaked, like the strings of the packets, since packets of different lifetimes cannot be compared.
fn encoded(packet: &Packet<'_>, version: Version) -> &'static [u8] {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).unwrap_or_else(|fault| panic!("{packet:?}: {fault}"));
    bytes.leak()
}

/// A change to the bytes of a packet.
#[derive(Debug, Clone)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    // mostly the values that mean something somewhere
    let byte = prop_oneof![0..=0x2A_u8, any::<u8>(), Just(0x80), Just(0xFF)];
    let edit = (any::<prop::sample::Index>(), byte, 0..4_u8).prop_map(|(at, byte, kind)| match kind {
        0 | 1 => Edit::Set(at, byte),
        2 => Edit::Insert(at, byte),
        _ => Edit::Remove(at),
    });
    prop::collection::vec(edit, 0..4)
}

fn edited(bytes: &[u8], edits: &[Edit], repair: bool) -> &'static [u8] {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        match edit {
            Edit::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Edit::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
            Edit::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at.index(bytes.len()))),
            Edit::Set(..) | Edit::Remove(_) => {}
        }
    }
    if repair { repaired(&bytes).leak() } else { bytes.leak() }
}

/// The same with a Remaining Length of one or two bytes that is true.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = bytes.split_first() else { return Vec::new() };
    let taken = rest.iter().take(3).take_while(|&&byte| byte & 0x80 != 0).count() + 1;
    let body = rest.get(taken..).unwrap_or_default();
    let body = &body[..body.len().min(16_383)];
    let mut out = vec![first];
    if body.len() > 127 {
        out.push((body.len() & 0x7F) as u8 | 0x80);
        out.push((body.len() >> 7) as u8);
    } else {
        out.push(body.len() as u8);
    }
    out.extend_from_slice(body);
    out
}

/// The ways past [`decode`] for what comes in bursts say what it says, and nothing where it does not.
fn check_short_ways(bytes: &'static [u8], limits: DecodeLimits) -> Result<(), TestCaseError> {
    let whole = decode(bytes, &limits);
    let topic: &str = match &whole {
        Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => publish.topic,
        _ => "",
    };
    for known in ["", "another", topic.to_owned().leak()] {
        match decode_publish(bytes, &limits, known) {
            Some((publish, len)) => {
                prop_assert_eq!(&whole, &Ok(Decoded::Packet { packet: Packet::Publish(publish), len }));
            }
            None => {
                let is_publish = matches!(whole, Ok(Decoded::Packet { packet: Packet::Publish(_), .. }));
                prop_assert!(!is_publish);
            }
        }
    }
    if let Some((kind, packet_id)) = plain_ack(bytes)
        && limits.version.is_some()
        && limits.max_packet_size >= 4
    {
        let ack = Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
        let packet = match kind {
            PacketType::PubAck => Packet::PubAck(ack),
            PacketType::PubRec => Packet::PubRec(ack),
            PacketType::PubRel => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        };
        prop_assert_eq!(whole, Ok(Decoded::Packet { packet, len: 4 }));
    }
    Ok(())
}

/// No wish beyond the limit; what is accepted comes back the same.
fn check_any_bytes(
    bytes: &'static [u8],
    version: Option<Version>,
    max_packet_size: u32,
) -> Result<(), TestCaseError> {
    check_short_ways(bytes, DecodeLimits { version, max_packet_size })?;
    match decode(bytes, &DecodeLimits { version, max_packet_size }) {
        Err(fault) => prop_assert!(fault.reason_code().is_error()),
        Ok(Decoded::NeedMore { total: None }) => prop_assert!(bytes.len() < 5),
        Ok(Decoded::NeedMore { total: Some(total) }) => {
            prop_assert!(total > bytes.len());
            prop_assert!(total <= max_packet_size as usize);
        }
        Ok(Decoded::Packet { packet, len }) => {
            prop_assert!(len <= bytes.len() && len <= max_packet_size as usize);
            let version = version.unwrap_or(Version::V5);
            let again = encoded(&packet, version);
            let decoded = decode(again, &limits(&packet, version));
            prop_assert_eq!(decoded, Ok(Decoded::Packet { packet, len: again.len() }));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn packets_are_decoded_as_encoded((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        let len = bytes.len();
        let limits = limits(&packet, version);
        let expected = Ok(Decoded::Packet { packet: packet.clone(), len });
        prop_assert_eq!(decode(bytes, &limits), expected.clone());
        check_short_ways(bytes, limits)?;
        // what follows is not touched
        prop_assert_eq!(decode([bytes, &[0x00, 0xFF]].concat().leak(), &limits), expected);
    }

    #[test]
    fn bytes_may_arrive_in_any_portions((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        let limits = limits(&packet, version);
        let mut header_read = false;
        for end in 0..bytes.len() {
            match decode(&bytes[..end], &limits) {
                Ok(Decoded::NeedMore { total: None }) => prop_assert!(!header_read),
                Ok(Decoded::NeedMore { total: Some(total) }) => {
                    header_read = true;
                    prop_assert_eq!(total, bytes.len());
                }
                other => prop_assert!(false, "{} of {} bytes: {:?}", end, bytes.len(), other),
            }
        }
    }

    #[test]
    fn the_limit_is_the_whole_packet((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        let exact = DecodeLimits { max_packet_size: bytes.len() as u32, ..limits(&packet, version) };
        prop_assert!(decode(bytes, &exact).is_ok());
        let less = DecodeLimits { max_packet_size: exact.max_packet_size - 1, ..exact };
        for end in 5.min(bytes.len())..=bytes.len() {
            prop_assert!(decode(&bytes[..end], &less).is_err());
        }
    }

    #[test]
    fn mutated_packets_do_no_harm(
        (packet, version) in packet_and_version(),
        edits in edits(),
        repair: bool,
        other in any_version(),
        max_packet_size in prop_oneof![Just(MAX), 2..300_u32],
    ) {
        let bytes = edited(encoded(&packet, version), &edits, repair);
        for version in [None, Some(version), Some(other)] {
            check_any_bytes(bytes, version, max_packet_size)?;
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        version in prop::option::of(any_version()),
        repair: bool,
        max_packet_size in 0..300_u32,
    ) {
        let bytes = edited(&bytes, &[], repair);
        check_any_bytes(bytes, version, max_packet_size)?;
    }
}
