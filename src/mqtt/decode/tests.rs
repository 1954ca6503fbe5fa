//! Packets to accept and to refuse, by hand. `crates.md` 1.3 lists what codecs in the field get wrong: every
//! item of its lists A and B is here.

use crate::mqtt::error::DecodeErrorKind;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::PacketId;
use crate::mqtt::property::Property;

use super::*;

const MAX: u32 = 1 << 20;
const ANY: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const OLD: [Version; 2] = [Version::V31, Version::V311];
const NEW: [Version; 1] = [Version::V5];
const V311: [Version; 1] = [Version::V311];
const V31: [Version; 1] = [Version::V31];

/// A packet with its Remaining Length put in.
fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    wire::put_varint(body.len() as u32, &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn limits(version: Option<Version>) -> DecodeLimits {
    DecodeLimits { version, max_packet_size: MAX }
}

fn one(bytes: &[u8], version: Option<Version>) -> Result<Packet<'_>, DecodeError> {
    match decode(bytes, &limits(version))? {
        Decoded::Packet { packet, len } => {
            assert_eq!(len, bytes.len(), "{bytes:02x?}");
            Ok(packet)
        }
        Decoded::NeedMore { total } => panic!("{bytes:02x?} is whole, wants {total:?}"),
    }
}

fn accept(versions: &[Version], first: u8, body: &[u8]) {
    for &version in versions {
        let bytes = whole(first, body);
        if let Err(fault) = one(&bytes, Some(version)) {
            panic!("{version:?} {bytes:02x?}: {fault}");
        }
    }
}

fn refuse(versions: &[Version], first: u8, body: &[u8], reason: ReasonCode, statement: &str) {
    for &version in versions {
        let bytes = whole(first, body);
        let fault = one(&bytes, Some(version)).expect_err("an invalid packet");
        assert_eq!((fault.reason, fault.statement), (reason, statement), "{version:?} {bytes:02x?}: {fault}");
        assert!(fault.reason.allowed_in(PacketType::Disconnect), "{fault}");
    }
}

fn malformed(versions: &[Version], first: u8, body: &[u8], statement: &str) {
    refuse(versions, first, body, ReasonCode::MalformedPacket, statement);
}

fn protocol(versions: &[Version], first: u8, body: &[u8], statement: &str) {
    refuse(versions, first, body, ReasonCode::ProtocolError, statement);
}

/// CONNECT: name with length, level, flags, then all behind the Keep Alive (30 s).
fn connect_bytes(name: &[u8], level: u8, flags: u8, behind: &[u8]) -> Vec<u8> {
    let mut body = (name.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(name);
    body.extend_from_slice(&[level, flags, 0, 30]);
    body.extend_from_slice(behind);
    whole(0x10, &body)
}

fn with_connect(name: &[u8], level: u8, flags: u8, behind: &[u8], check: impl FnOnce(Connect<'_>)) {
    let bytes = connect_bytes(name, level, flags, behind);
    match one(&bytes, None) {
        Ok(Packet::Connect(connect)) => check(*connect),
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

fn refuse_connect(level: u8, flags: u8, behind: &[u8], reason: ReasonCode, statement: &str) {
    let name: &[u8] = if level & 0x7F == 3 { b"MQIsdp" } else { b"MQTT" };
    let bytes = connect_bytes(name, level, flags, behind);
    let fault = one(&bytes, None).expect_err("an invalid CONNECT");
    assert_eq!((fault.reason, fault.statement), (reason, statement), "{bytes:02x?}: {fault}");
    assert!(fault.reason.allowed_in(PacketType::ConnAck), "{fault}");
    let version = match level & 0x7F {
        3 => Version::V31,
        4 => Version::V311,
        _ => Version::V5,
    };
    assert_eq!(fault.version, Some(version), "{bytes:02x?}");
}

#[test]
fn connect_of_all_levels() {
    let table: [(&[u8], u8, Version, bool); 5] = [
        (b"MQIsdp", 3, Version::V31, false),
        (b"MQIsdp", 0x83, Version::V31, true),
        (b"MQTT", 4, Version::V311, false),
        (b"MQTT", 0x84, Version::V311, true),
        (b"MQTT", 5, Version::V5, false),
    ];
    for (name, level, version, bridge) in table {
        let behind: &[u8] = if version == Version::V5 { b"\0\0\x01c" } else { b"\0\x01c" };
        with_connect(name, level, 0x02, behind, |connect| {
            assert_eq!((connect.version, connect.bridge), (version, bridge));
            assert_eq!((connect.client_id, connect.clean_start), ("c", true));
            assert_eq!(connect.keep_alive_seconds, 30);
            assert_eq!((connect.username, connect.password), (None, None));
        });
    }
}

#[test]
fn connect_of_unknown_protocols() {
    let table: [(&[u8], u8, Option<Version>); 7] = [
        (b"MQTT", 3, Some(Version::V311)),
        (b"MQTT", 6, Some(Version::V5)),
        (b"MQTT", 0x85, Some(Version::V5)),
        (b"MQTT", 0, Some(Version::V311)),
        (b"MQIsdp", 4, Some(Version::V311)),
        (b"mqtt", 4, None),
        (b"", 4, None),
    ];
    for (name, level, version) in table {
        let fault = one(&connect_bytes(name, level, 2, b"\0\x01c"), None).expect_err("unknown");
        assert_eq!(fault.kind, DecodeErrorKind::UnsupportedVersion);
        assert_eq!((fault.reason, fault.version), (ReasonCode::UnsupportedProtocolVersion, version));
    }
}

#[test]
fn connect_credentials_keep_absent_and_empty_apart_and_passwords_binary() {
    with_connect(b"MQTT", 4, 0xC2, b"\0\x01c\0\0\0\x03\xff\x00\x80", |connect| {
        assert_eq!((connect.username, connect.password), (Some(""), Some(&b"\xff\x00\x80"[..])));
        let shown = format!("{connect:?}");
        assert!(shown.contains("[hidden]") && !shown.contains("255"), "{shown}");
    });
    with_connect(b"MQTT", 4, 0xC2, b"\0\x01c\0\0\0\0", |connect| {
        assert_eq!((connect.username, connect.password), (Some(""), Some(&b""[..])));
    });
    with_connect(b"MQTT", 5, 0x42, b"\0\0\x01c\0\x01p", |connect| {
        assert_eq!((connect.username, connect.password), (None, Some(&b"p"[..])));
    });
    // MQTT 3.1: the flags promise more than there is.
    with_connect(b"MQIsdp", 3, 0xC2, b"\0\x01c", |connect| {
        assert_eq!((connect.username, connect.password), (None, None));
    });
    let statement = "section 3.1.2.9";
    for level in [3, 4] {
        refuse_connect(level, 0x42, b"\0\x01c\0\x01p", ReasonCode::MalformedPacket, statement);
    }
    let truncated = "section 2.1.4";
    refuse_connect(4, 0xC2, b"\0\x01c\0\x01u", ReasonCode::MalformedPacket, truncated);
    refuse_connect(5, 0xC2, b"\0\0\x01c", ReasonCode::MalformedPacket, truncated);
    refuse_connect(4, 0x82, b"\0\x01c\0\x01\xff", ReasonCode::MalformedPacket, "[MQTT-1.5.4-1]");
}

/// Every field, in the order of section 3.1.3 (`[MQTT-3.1.3-1]`).
#[test]
fn connect_fields_in_their_order() {
    let behind = b"\x05\x11\0\0\0\x09\0\x02id\x05\x18\0\0\0\x03\0\x02wt\0\x02wp\0\x02us\0\x02pw";
    with_connect(b"MQTT", 5, 0b1110_1110, behind, |connect| {
        let will = connect.will.expect("a will");
        assert_eq!(connect.properties.session_expiry_interval(), Some(9));
        assert_eq!((connect.client_id, connect.keep_alive_seconds), ("id", 30));
        assert_eq!(will.properties.will_delay_interval(), Some(3));
        assert_eq!((will.topic, will.payload), ("wt", &b"wp"[..]));
        assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
        assert_eq!((connect.username, connect.password), (Some("us"), Some(&b"pw"[..])));
    });
}

/// A flag without its field, or a field without its flag, is no CONNECT: `[MQTT-3.1.2-9]`, `[MQTT-3.1.2-16]` to
/// `[MQTT-3.1.2-19]`; the Client Identifier has no flag and is never left out (`[MQTT-3.1.3-3]`).
#[test]
fn connect_fields_are_there_exactly_when_their_flags_say_so() {
    const WILL: &[u8] = b"\0\0\x01w\0\0";
    const USERNAME: &[u8] = b"\0\x01u";
    const PASSWORD: &[u8] = b"\0\x01p";
    let fields = [(0x04, WILL), (0x80, USERNAME), (0x40, PASSWORD)];
    let chosen = |mask: usize| (0..3).filter(move |at| mask & 1 << at != 0).map(move |at| fields[at]);
    for flagged in 0..8 {
        for present in 0..8 {
            let flags = chosen(flagged).fold(0x02, |flags, (flag, _)| flags | flag);
            let behind =
                chosen(present).fold(b"\0\0\x01c".to_vec(), |all, (_, field)| [&all, field].concat());
            // User Name and Password look alike, so one stands for the other.
            let credentials = (flagged & 6_usize).count_ones() == (present & 6_usize).count_ones();
            let will = flagged & 1 == present & 1;
            let bytes = connect_bytes(b"MQTT", 5, flags, &behind);
            assert_eq!(one(&bytes, None).is_ok(), will && credentials, "{flagged:03b} {present:03b}");
        }
    }
    let bad = ReasonCode::MalformedPacket;
    refuse_connect(5, 0x02, b"\0", bad, "section 2.1.4");
    refuse_connect(4, 0x02, b"", bad, "section 2.1.4");
    // Strings all three: [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12].
    refuse_connect(5, 0x02, b"\0\0\x01\xff", bad, "[MQTT-1.5.4-1]");
    refuse_connect(5, 0x06, b"\0\0\x01c\0\0\x01\xff\0\0", bad, "[MQTT-3.3.2-1]");
    refuse_connect(5, 0x82, b"\0\0\x01c\0\x01\xff", bad, "[MQTT-1.5.4-1]");
}

#[test]
fn connect_will() {
    with_connect(b"MQTT", 4, 0x36, b"\0\x01c\0\x03w/t\0\x02\x00\xff", |connect| {
        let will = connect.will.expect("a will");
        assert_eq!((will.qos, will.retain, will.topic), (QoS::ExactlyOnce, true, "w/t"));
        assert_eq!(will.payload, b"\x00\xff");
    });
    with_connect(b"MQTT", 5, 0x04, b"\0\0\x01c\x05\x18\0\0\0\x05\0\x01w\0\0", |connect| {
        let will = connect.will.expect("a will");
        assert_eq!(will.properties.will_delay_interval(), Some(5));
        assert_eq!((will.topic, will.payload), ("w", &b""[..]));
    });
    let invalid = ReasonCode::TopicNameInvalid;
    refuse_connect(4, 0x06, b"\0\x01c\0\x03w/+\0\0", invalid, "[MQTT-3.3.2-2]");
    refuse_connect(5, 0x06, b"\0\0\x01c\0\0\x01#\0\0", invalid, "[MQTT-3.3.2-2]");
    refuse_connect(4, 0x06, b"\0\x01c\0\0\0\0", invalid, "[MQTT-4.7.3-1]");
    let bad = ReasonCode::MalformedPacket;
    refuse_connect(4, 0x06, b"\0\x01c\0\x01\0\0\0", bad, "[MQTT-1.5.4-2]");
    refuse_connect(4, 0x1E, b"\0\x01c\0\x01w\0\0", bad, "[MQTT-3.1.2-12]");
    refuse_connect(4, 0x0A, b"\0\x01c", bad, "[MQTT-3.1.2-11]");
    refuse_connect(5, 0x22, b"\0\0\x01c", bad, "[MQTT-3.1.2-13]");
    // a property of the CONNECT among those of the Will
    refuse_connect(5, 0x06, b"\0\0\x01c\x05\x11\0\0\0\x05\0\x01w\0\0", bad, "section 2.2.2.2");
}

#[test]
fn connect_client_identifiers() {
    let refused = ReasonCode::ClientIdentifierNotValid;
    refuse_connect(4, 0x00, b"\0\0", refused, "[MQTT-3.1.3-8]");
    refuse_connect(3, 0x02, b"\0\0", refused, "[MQTT-3.1.3-8]");
    refuse_connect(4, 0x02, b"\0\x01\0", ReasonCode::MalformedPacket, "[MQTT-1.5.4-2]");
    with_connect(b"MQTT", 4, 0x02, b"\0\0", |connect| assert_eq!(connect.client_id, ""));
    with_connect(b"MQTT", 5, 0x00, b"\0\0\0", |connect| assert_eq!(connect.client_id, ""));
    let long = [&b"\0\x18"[..], &[b'x'; 24]].concat();
    with_connect(b"MQIsdp", 3, 0x00, &long, |connect| assert_eq!(connect.client_id.len(), 24));
}

#[test]
fn connect_reserved_bits_and_rests() {
    let bad = ReasonCode::MalformedPacket;
    refuse_connect(4, 0x03, b"\0\x01c", bad, "[MQTT-3.1.2-3]");
    refuse_connect(5, 0x03, b"\0\0\x01c", bad, "[MQTT-3.1.2-3]");
    with_connect(b"MQIsdp", 3, 0x03, b"\0\x01c", |connect| assert!(connect.clean_start));
    refuse_connect(4, 0x02, b"\0\x01cX", bad, "section 2.1.4");
    refuse_connect(5, 0x02, b"\0\0\x01c\0", bad, "section 2.1.4");
    for first in 0x11..=0x1F {
        let fault = decode(&[first], &limits(None)).expect_err("flags");
        assert_eq!(fault.statement, "[MQTT-2.1.3-1]");
    }
}

#[test]
fn connect_properties() {
    let bytes = b"\x11\x11\0\0\0\x0a\x21\0\x05\x27\0\0\x01\0\x17\x00\x19\x01\0\x01c";
    with_connect(b"MQTT", 5, 0x02, bytes, |connect| {
        let properties = connect.properties;
        assert_eq!(properties.session_expiry_interval(), Some(10));
        assert_eq!(properties.receive_maximum().map(|n| n.get()), Some(5));
        assert_eq!(properties.maximum_packet_size().map(|n| n.get()), Some(256));
        assert_eq!(properties.request_problem_information(), Some(false));
        assert_eq!(properties.request_response_information(), Some(true));
        assert_eq!(properties.topic_alias_maximum(), None);
    });
    let bad = ReasonCode::ProtocolError;
    refuse_connect(5, 2, b"\x03\x21\0\0\0\x01c", bad, "section 3.1.2.11.3");
    refuse_connect(5, 2, b"\x05\x27\0\0\0\0\0\x01c", bad, "section 3.1.2.11.4");
    refuse_connect(5, 2, b"\x0a\x11\0\0\0\x01\x11\0\0\0\x01\0\x01c", bad, "section 2.2.2.2");
    refuse_connect(5, 2, b"\x04\x16\0\x01d\0\x01c", bad, "section 3.1.2.11.10");
    refuse_connect(5, 2, b"\x02\x17\x02\0\x01c", bad, "section 2.2.2.2");
    refuse_connect(5, 2, b"\x02\x19\xff\0\x01c", bad, "section 2.2.2.2");
    let bad = ReasonCode::MalformedPacket;
    refuse_connect(5, 2, b"\x02\x01\x01\0\x01c", bad, "section 2.2.2.2"); // of PUBLISH
    refuse_connect(5, 2, b"\x02\x04\x01\0\x01c", bad, "section 2.2.2.2"); // of none
    refuse_connect(5, 2, b"\x04\x11\0\0\0\0\x01c", bad, "section 2.1.4"); // cut
    refuse_connect(5, 2, b"\x7f\0\x01c", bad, "section 2.1.4"); // overruns
    refuse_connect(5, 2, b"\x80\x00\0\x01c", bad, "[MQTT-1.5.5-1]");
    with_connect(b"MQTT", 5, 2, b"\x08\x15\0\x01m\x16\0\x01d\0\x01c", |connect| {
        assert_eq!(connect.properties.authentication_method(), Some("m"));
        assert_eq!(connect.properties.authentication_data(), Some(&b"d"[..]));
    });
}

#[test]
fn only_connect_before_connect_and_none_after() {
    for first in 0x20..=0xFF {
        let fault = decode(&[first], &limits(None)).expect_err("not a CONNECT");
        assert_eq!((fault.kind, fault.statement), (DecodeErrorKind::Protocol, "[MQTT-3.1.0-1]"));
    }
    for version in ANY {
        let fault = decode(&[0x10], &limits(Some(version))).expect_err("a second CONNECT");
        assert_eq!((fault.reason, fault.statement), (ReasonCode::ProtocolError, "[MQTT-3.1.0-2]"));
        let fault = decode(&[0x00], &limits(Some(version))).expect_err("type 0");
        assert_eq!(fault.reason, ReasonCode::MalformedPacket);
    }
}

#[test]
fn fixed_header_flags() {
    let table = [
        (0x20, "[MQTT-2.1.3-1]"),
        (0x40, "[MQTT-2.1.3-1]"),
        (0x50, "[MQTT-2.1.3-1]"),
        (0x62, "[MQTT-3.6.1-1]"),
        (0x70, "[MQTT-2.1.3-1]"),
        (0x82, "[MQTT-3.8.1-1]"),
        (0x90, "[MQTT-2.1.3-1]"),
        (0xA2, "[MQTT-3.10.1-1]"),
        (0xB0, "[MQTT-2.1.3-1]"),
        (0xC0, "[MQTT-2.1.3-1]"),
        (0xD0, "[MQTT-2.1.3-1]"),
        (0xE0, "[MQTT-3.14.1-1]"),
        (0xF0, "[MQTT-3.15.1-1]"),
    ];
    for (good, statement) in table {
        for flags in (0..16).filter(|flags| good & 0x0F != *flags) {
            let first = good & 0xF0 | flags;
            let fault = decode(&[first], &limits(Some(Version::V5))).expect_err("flags");
            assert_eq!((fault.reason, fault.statement), (ReasonCode::MalformedPacket, statement));
        }
        assert_eq!(decode(&[good], &limits(Some(Version::V5))), Ok(Decoded::NeedMore { total: None }));
    }
    // DUP of MQTT 3.1
    for (first, body) in [(0x6A, &b"\0\x01"[..]), (0x8A, b"\0\x01\0\x01a\x01"), (0xAA, b"\0\x01\0\x01a")] {
        accept(&V31, first, body);
        assert!(one(&whole(first, body), Some(Version::V311)).is_err());
    }
    for version in OLD {
        assert!(decode(&[0xF0], &limits(Some(version))).is_err(), "AUTH before 5.0");
    }
}

#[test]
fn lengths() {
    let v5 = limits(Some(Version::V5));
    for bad in [&[0x30, 0x80, 0x00][..], &[0x30, 0x83, 0x80, 0x00], &[0x30, 0xFF, 0xFF, 0xFF, 0xFF]] {
        assert_eq!(decode(bad, &v5).expect_err("a bad length").reason, ReasonCode::MalformedPacket);
    }
    let small = DecodeLimits { version: Some(Version::V311), max_packet_size: 10 };
    assert_eq!(decode(&[0x30, 8], &small), Ok(Decoded::NeedMore { total: Some(10) }));
    for big in [&[0x30, 9][..], &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]] {
        let fault = decode(big, &small).expect_err("too large");
        assert_eq!((fault.kind, fault.reason), (DecodeErrorKind::PacketTooLarge, ReasonCode::PacketTooLarge));
    }
    let all = DecodeLimits { version: Some(Version::V5), max_packet_size: u32::MAX };
    let total = Some(268_435_460);
    assert_eq!(decode(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], &all), Ok(Decoded::NeedMore { total }));
    malformed(&ANY, 0xC0, b"\0", "section 3.12");
    malformed(&ANY, 0xD0, b"\0", "section 3.12");
    assert!(decode(&[0xC0, 0x7F], &v5).is_err(), "refused from its header");
}

#[test]
fn publish_fields() {
    let bytes = whole(0x3D, b"\0\x03a/b\0\x07\x03\x23\0\x02hi");
    let Ok(Packet::Publish(publish)) = one(&bytes, Some(Version::V5)) else { panic!() };
    assert_eq!((publish.dup, publish.qos, publish.retain), (true, QoS::ExactlyOnce, true));
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
    assert_eq!(publish.packet_id, PacketId::new(7));
    assert_eq!(publish.properties.topic_alias().map(|n| n.get()), Some(2));
    accept(&ANY, 0x30, b"\0\x01a\0");
    accept(&ANY, 0x32, b"\0\x01a\0\x01\0");
    accept(&OLD, 0x30, b"\0\x01a");
    accept(&NEW, 0x30, b"\0\0\x03\x23\0\x01"); // a Topic Alias alone
    accept(&ANY, 0x30, "\0\x03é/\0".as_bytes());
}

#[test]
fn publish_faults() {
    malformed(&ANY, 0x36, b"\0\x01a\0\x01\0", "[MQTT-3.3.1-4]");
    malformed(&ANY, 0x38, b"\0\x01a\0", "[MQTT-3.3.1-2]");
    protocol(&ANY, 0x32, b"\0\x01a\0\0\0", "[MQTT-2.2.1-3]");
    malformed(&ANY, 0x32, b"\0\x01a\0", "section 2.1.4");
    malformed(&ANY, 0x30, b"", "section 2.1.4");
    malformed(&ANY, 0x30, b"\0\x05a\0", "section 2.1.4");
    malformed(&NEW, 0x30, b"\0\x01a", "section 2.1.4");
    malformed(&NEW, 0x30, b"\0\x01a\x80", "section 2.1.4"); // ends inside the Property Length
    malformed(&NEW, 0x30, b"\0\x01a\x05\x01\x01hi", "section 2.1.4"); // overruns into the payload
    malformed(&NEW, 0x30, b"\0\x01a\x03\x02\0\0\0\0\0hi", "section 2.1.4"); // cuts a property
    malformed(&NEW, 0x30, b"\0\x01a\x05\x11\0\0\0\0", "section 2.2.2.2");
    malformed(&ANY, 0x30, b"\0\x02a\0\0", "[MQTT-1.5.4-2]");
    malformed(&ANY, 0x30, b"\0\x03a+\0\0", "[MQTT-1.5.4-2]");
    malformed(&ANY, 0x30, b"\0\x01\xff\0", "[MQTT-3.3.2-1]");
    malformed(&ANY, 0x30, b"\0\x03\xed\xa0\x80\0", "[MQTT-3.3.2-1]");
    for name in [&b"\0\x01+\0"[..], b"\0\x01#\0", b"\0\x03a/+\0", b"\0\x02a#\0"] {
        refuse(&ANY, 0x30, name, ReasonCode::TopicNameInvalid, "[MQTT-3.3.2-2]");
    }
    refuse(&OLD, 0x30, b"\0\0\0", ReasonCode::TopicNameInvalid, "[MQTT-4.7.3-1]");
    protocol(&NEW, 0x30, b"\0\0\0", "section 3.3.2.1");
}

#[test]
fn publish_properties() {
    let bytes = whole(0x30, b"\0\x01t\x06\x0b\x01\x0b\x02\x01\x01hi");
    let Ok(Packet::Publish(publish)) = one(&bytes, Some(Version::V5)) else { panic!() };
    assert_eq!(publish.properties.subscription_identifiers().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((publish.properties.payload_format_indicator(), publish.payload), (Some(1), &b"hi"[..]));
    refuse(&NEW, 0x30, b"\0\x01a\x03\x23\0\0", ReasonCode::TopicAliasInvalid, "[MQTT-3.3.2-8]");
    protocol(&NEW, 0x30, b"\0\x01a\x06\x23\0\x01\x23\0\x01", "section 2.2.2.2");
    protocol(&NEW, 0x30, b"\0\x01a\x02\x01\x02", "section 2.2.2.2");
    protocol(&NEW, 0x30, b"\0\x01a\x02\x0b\0", "section 3.8.2.1.2");
    protocol(&NEW, 0x30, b"\0\x01a\x04\x08\0\x01#", "[MQTT-3.3.2-14]");
    malformed(&NEW, 0x30, b"\0\x01a\x04\x08\0\x01\0", "[MQTT-1.5.4-2]");
    malformed(&NEW, 0x30, b"\0\x01a\x04\x03\0\x01\xff", "[MQTT-1.5.4-1]");
    malformed(&NEW, 0x30, b"\0\x01a\x07\x26\0\x01a\0\x01\0", "[MQTT-1.5.4-2]");
    malformed(&NEW, 0x30, b"\0\x01a\x03\x0b\x81\0", "[MQTT-1.5.5-1]");
    accept(&NEW, 0x30, b"\0\x01a\x04\x09\0\x01\0"); // Correlation Data is binary
    accept(&NEW, 0x30, b"\0\x01a\x0a\x26\0\0\0\0\x26\0\0\0\0"); // User Properties repeat
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        accept(&ANY, first, b"\0\x01");
        accept(&NEW, first, b"\0\x01\0");
        accept(&NEW, first, b"\0\x01\0\0");
        accept(&NEW, first, b"\0\x01\0\x04\x1f\0\x01r");
        protocol(&ANY, first, b"\0\0", "[MQTT-2.2.1-3]");
        malformed(&ANY, first, b"\0", "section 2.1.4");
        malformed(&OLD, first, b"\0\x01\0", "section 2.1.4");
        malformed(&NEW, first, b"\0\x01\0\0X", "section 2.1.4");
        malformed(&NEW, first, b"\0\x01\0\x03\x23\0\x01", "section 2.2.2.2");
    }
    let bytes = whole(0x40, b"\0\x05\x10");
    let Ok(Packet::PubAck(ack)) = one(&bytes, Some(Version::V5)) else { panic!() };
    let Ack { packet_id, reason, properties } = ack;
    assert_eq!((packet_id.get(), reason), (5, ReasonCode::NoMatchingSubscribers));
    assert!(properties.is_empty());
    protocol(&NEW, 0x40, b"\0\x01\x92", "[MQTT-3.4.2-1]");
    malformed(&NEW, 0x50, b"\0\x01\x7f", "[MQTT-3.5.2-1]");
    protocol(&NEW, 0x62, b"\0\x01\x10", "[MQTT-3.6.2-1]");
    protocol(&NEW, 0x70, b"\0\x01\x80", "[MQTT-3.7.2-1]");
    accept(&NEW, 0x62, b"\0\x01\x92");
}

#[test]
fn subscriptions() {
    accept(&OLD, 0x82, b"\0\x01\0\x01a\x00\0\x01#\x02");
    accept(&NEW, 0x82, b"\0\x01\x02\x0b\x05\0\x01a\x2d");
    accept(&NEW, 0x82, b"\0\x01\0\0\x0a$share/g/a\x01");
    protocol(&ANY, 0x82, b"\0\0\0\0\x01a\0", "[MQTT-2.2.1-3]");
    protocol(&OLD, 0x82, b"\0\x01", "[MQTT-3.8.3-2]");
    protocol(&NEW, 0x82, b"\0\x01\0", "[MQTT-3.8.3-2]");
    malformed(&OLD, 0x82, b"\0\x01\0\x01a\x04", "[MQTT-3.8.3-5]");
    malformed(&NEW, 0x82, b"\0\x01\0\0\x01a\x40", "[MQTT-3.8.3-5]");
    malformed(&NEW, 0x82, b"\0\x01\0\0\x01a\x80", "[MQTT-3.8.3-5]");
    protocol(&OLD, 0x82, b"\0\x01\0\x01a\x03", "section 3.8.3.1");
    protocol(&NEW, 0x82, b"\0\x01\0\0\x01a\x03", "section 3.8.3.1");
    protocol(&NEW, 0x82, b"\0\x01\0\0\x01a\x30", "section 3.8.3.1");
    protocol(&NEW, 0x82, b"\0\x01\0\0\x0a$share/g/a\x05", "[MQTT-3.8.3-4]");
    malformed(&NEW, 0x82, b"\0\x01\0\0\x01a", "section 2.1.4");
    malformed(&NEW, 0x82, b"\0\x01\0\0\x01\0\0", "[MQTT-1.5.4-2]");
    protocol(&NEW, 0x82, b"\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", "section 2.2.2.2");
    protocol(&NEW, 0x82, b"\0\x01\x02\x0b\x00\0\x01a\0", "section 3.8.2.1.2");
    accept(&OLD, 0xA2, b"\0\x01\0\x01a\0\x01b");
    accept(&NEW, 0xA2, b"\0\x01\0\0\x01a");
    protocol(&OLD, 0xA2, b"\0\x01", "[MQTT-3.10.3-2]");
    protocol(&NEW, 0xA2, b"\0\x01\0", "[MQTT-3.10.3-2]");
    malformed(&OLD, 0xA2, b"\0\x01\0\x01\xff", "[MQTT-1.5.4-1]");
    malformed(&NEW, 0xA2, b"\0\x01\x02\x0b\x01\0\x01a", "section 2.2.2.2");
}

#[test]
fn answers_to_subscriptions() {
    accept(&OLD, 0x90, b"\0\x01\x00\x01\x02\x80");
    accept(&NEW, 0x90, b"\0\x01\0\x00\x01\x02\x87\xa2");
    malformed(&OLD, 0x90, b"\0\x01\x87", "[MQTT-3.9.3-2]");
    malformed(&V311, 0x90, b"\0\x01\x03", "[MQTT-3.9.3-2]");
    protocol(&NEW, 0x90, b"\0\x01\0\x11", "[MQTT-3.9.3-2]");
    protocol(&NEW, 0x90, b"\0\x01\0", "[MQTT-3.8.4-6]");
    accept(&OLD, 0xB0, b"\0\x01");
    accept(&NEW, 0xB0, b"\0\x01\0\x00\x11");
    malformed(&OLD, 0xB0, b"\0\x01\0", "section 2.1.4");
    protocol(&NEW, 0xB0, b"\0\x01\0", "[MQTT-3.11.3-1]");
    protocol(&NEW, 0xB0, b"\0\x01\0\x01", "[MQTT-3.11.3-2]");
}

#[test]
fn connack() {
    accept(&OLD, 0x20, b"\0\x05");
    accept(&V311, 0x20, b"\x01\0");
    accept(&NEW, 0x20, b"\x01\0\0");
    accept(&NEW, 0x20, b"\0\0\x05\x24\x01\x13\0\x0a");
    accept(&V31, 0x20, b"\xff\0");
    malformed(&V311, 0x20, b"\x02\0", "[MQTT-3.2.2-1]");
    malformed(&NEW, 0x20, b"\x80\0\0", "[MQTT-3.2.2-1]");
    malformed(&OLD, 0x20, b"\0\x06", "[MQTT-3.2.2-8]");
    malformed(&NEW, 0x20, b"\0\x05\0", "[MQTT-3.2.2-8]");
    protocol(&NEW, 0x20, b"\0\x8e\0", "[MQTT-3.2.2-8]");
    malformed(&NEW, 0x20, b"\0\0", "section 2.1.4"); // what mqttbytes writes
    malformed(&OLD, 0x20, b"\0\0\0", "section 2.1.4");
    protocol(&NEW, 0x20, b"\x01\x87\0", "[MQTT-3.2.2-6]");
    protocol(&V311, 0x20, b"\x01\x05", "[MQTT-3.2.2-6]");
    protocol(&NEW, 0x20, b"\0\0\x02\x24\x02", "section 2.2.2.2");
    protocol(&NEW, 0x20, b"\0\0\x02\x25\x02", "section 2.2.2.2");
}

#[test]
fn disconnect() {
    accept(&ANY, 0xE0, b"");
    accept(&NEW, 0xE0, b"\x04");
    accept(&NEW, 0xE0, b"\x89\0");
    accept(&NEW, 0xE0, b"\x8c\0");
    accept(&NEW, 0xE0, b"\x00\x05\x11\0\0\0\0");
    accept(&NEW, 0xE0, b"\x9c\x04\x1c\0\x01s");
    malformed(&OLD, 0xE0, b"\0", "section 2.1.4");
    malformed(&NEW, 0xE0, b"\0\0\0", "section 2.1.4");
    protocol(&NEW, 0xE0, b"\x01", "[MQTT-3.14.2-1]");
    malformed(&NEW, 0xE0, b"\xa3", "[MQTT-3.14.2-1]");
}

#[test]
fn auth() {
    let bytes = whole(0xF0, b"\x18\x08\x15\0\x01m\x16\0\x01d");
    let Ok(Packet::Auth(auth)) = one(&bytes, Some(Version::V5)) else { panic!() };
    assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
    let properties: Vec<_> = auth.properties.iter().collect();
    assert_eq!(properties, [Property::AuthenticationMethod("m"), Property::AuthenticationData(b"d")]);
    accept(&NEW, 0xF0, b"");
    malformed(&NEW, 0xF0, b"\x18", "section 2.1.4");
    protocol(&NEW, 0xF0, b"\x18\0", "section 3.15.2.2.2");
    protocol(&NEW, 0xF0, b"\x87\0", "[MQTT-3.15.2-1]");
    protocol(&NEW, 0xF0, b"\x18\x04\x16\0\x01d", "section 3.1.2.11.10");
}

#[test]
fn packets_follow_one_another() {
    let bytes = [0xC0, 0, 0xE0, 0, 0xC0];
    let v5 = limits(Some(Version::V5));
    assert_eq!(decode(&bytes, &v5), Ok(Decoded::Packet { packet: Packet::PingReq, len: 2 }));
    assert!(matches!(
        decode(&bytes[2..], &v5),
        Ok(Decoded::Packet { packet: Packet::Disconnect(_), len: 2 })
    ));
    assert_eq!(decode(&bytes[4..], &v5), Ok(Decoded::NeedMore { total: None }));
    assert_eq!(decode(&[], &v5), Ok(Decoded::NeedMore { total: None }));
}
