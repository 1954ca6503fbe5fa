//! Good packets as lists of their fields, and what can be wrong with them.

use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;

use crate::battery::Expect;
use crate::harness::Got;

const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;
const TOPIC_NAME_INVALID: u8 = 0x90;
const TOO_LARGE: u8 = 0x95;

/// When a packet comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    BeforeConnect,
    AfterConnect,
}

/// Bytes and what is to come of them.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expect: Expect,
}

/// Every case of this version and phase.
pub(crate) fn cases(version: Version, phase: Phase) -> Vec<Case> {
    let mut cases = Cases { version, phase, list: Vec::new() };
    for kind in 0..16 {
        cases.of_header(kind);
    }
    for kind in CONNECT..=AUTH {
        cases.of_layout(kind);
    }
    cases.of_packets();
    if phase == Phase::BeforeConnect {
        cases.of_connect();
    } else {
        cases.out_of_order();
    }
    cases.list
}

/// A good packet of this type.
pub(crate) fn good(kind: u8, version: Version) -> Vec<u8> {
    packet(first_byte(kind), &fields(kind, version).concat())
}

/// What a connection that goes on says, from the bytes that 5.0 has for it.
pub(crate) fn answers(version: Version, bytes: &[u8]) -> Vec<Got> {
    let &[first, _, high, low, ref code @ ..] = bytes else { return Vec::new() };
    let kind = match first >> 4 {
        PUBACK => PacketType::PubAck,
        PUBREC => PacketType::PubRec,
        PUBREL => PacketType::PubRel,
        _ => PacketType::PubComp,
    };
    let code = code.first().copied().filter(|_| version == Version::V5).unwrap_or(0);
    vec![Got::Ack(kind, u16::from_be_bytes([high, low]), code)]
}

/// A string or binary field.
fn field(bytes: &[u8]) -> Vec<u8> {
    let mut field = (bytes.len() as u16).to_be_bytes().to_vec();
    field.extend_from_slice(bytes);
    field
}

/// A packet with its true Remaining Length.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length > 0x7F {
        bytes.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// The first byte of a good packet of this type; PUBLISH at QoS 1.
fn first_byte(kind: u8) -> u8 {
    let flags = if matches!(kind, PUBLISH | PUBREL | SUBSCRIBE | UNSUBSCRIBE) { 0b0010 } else { 0 };
    kind << 4 | flags
}

/// Whether these flags are right for this type. MQTT 3.1 repeats some with DUP set.
fn flags_are_right(kind: u8, flags: u8, version: Version) -> bool {
    match kind {
        PUBLISH => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => flags == 2 || flags == 0b1010 && version == Version::V31,
        _ => flags == 0,
    }
}

/// The fields of a good packet, in their order. A packet that ends inside one of them is malformed.
fn fields(kind: u8, version: Version) -> Vec<Vec<u8>> {
    let v5 = version == Version::V5;
    let properties = |bytes: &[u8]| {
        let mut run = vec![bytes.len() as u8];
        run.extend_from_slice(bytes);
        if v5 { vec![run] } else { Vec::new() }
    };
    let reason = |code: u8| if v5 { vec![vec![code]] } else { Vec::new() };
    let id = || vec![vec![0, 1]];
    let said = b"\x1f\0\x02ok"; // Reason String
    let user = b"\x26\0\x01k\0\x01v"; // User Property
    match kind {
        CONNECT => {
            let (name, level): (&[u8], u8) = match version {
                Version::V31 => (b"MQIsdp", 3),
                Version::V311 => (b"MQTT", 4),
                Version::V5 => (b"MQTT", 5),
            };
            let fixed = vec![field(name), vec![level], vec![0b1110_1110], vec![0, 60]];
            let payload = [field(b"w"), field(b"payload"), field(b"user"), field(b"password")];
            [fixed, properties(b"\x21\0\x05"), vec![field(b"id")], properties(user), payload.to_vec()]
                .concat()
        }
        CONNACK => [vec![vec![0]], vec![vec![0]], properties(said)].concat(),
        PUBLISH => [vec![field(b"t")], id(), properties(user)].concat(),
        PUBACK | PUBREC | PUBREL | PUBCOMP => [id(), reason(0), properties(said)].concat(),
        SUBSCRIBE => {
            let filters = vec![field(b"t"), vec![1], field(b"u/#"), vec![0]];
            [id(), properties(user), filters].concat()
        }
        SUBACK => [id(), properties(said), vec![vec![0]]].concat(),
        UNSUBSCRIBE => [id(), properties(user), vec![field(b"t"), field(b"u")]].concat(),
        UNSUBACK => [id(), properties(said), reason(0)].concat(),
        DISCONNECT => [reason(0), properties(said)].concat(),
        AUTH => [reason(0x18), properties(b"\x15\0\x01m")].concat(),
        _ => Vec::new(),
    }
}

struct Cases {
    version: Version,
    phase: Phase,
    list: Vec<Case>,
}

impl Cases {
    /// A packet other than CONNECT. Before CONNECT all are alike: not answered, and closed.
    fn add(&mut self, what: impl Into<String>, bytes: Vec<u8>, expect: Expect) {
        let expect = if self.phase == Phase::BeforeConnect { Expect::Closed } else { expect };
        self.list.push(Case { what: what.into(), bytes, expect });
    }

    /// A packet whose fault is in its body. A CONNECT after CONNECT is none whatever stands in it; packets of a
    /// Server are read before they are found to be that, and AUTH is none at all before 5.0.
    fn add_faulty(&mut self, kind: u8, what: impl Into<String>, body: &[u8], code: u8) {
        let bytes = packet(first_byte(kind), body);
        if kind == CONNECT && self.phase == Phase::BeforeConnect {
            self.list.push(Case { what: what.into(), bytes, expect: Expect::Refused(code) });
        } else {
            let code = if kind == CONNECT { PROTOCOL_ERROR } else { code };
            self.add(what, bytes, Expect::Disconnect(code));
        }
    }

    /// What is wrong with the fixed header alone.
    fn of_header(&mut self, kind: u8) {
        let version = self.version;
        let body = fields(kind, version).concat();
        let connect_code = |code| if kind == CONNECT { PROTOCOL_ERROR } else { code };
        for flags in (0..16).filter(|flags| kind == 0 || !flags_are_right(kind, *flags, version)) {
            let code = connect_code(MALFORMED);
            self.add(
                format!("type {kind} with flags {flags:04b}"),
                packet(kind << 4 | flags, &body),
                Expect::Disconnect(code),
            );
        }
        let first = first_byte(kind);
        let code = connect_code(MALFORMED);
        for (what, length) in [
            ("a Remaining Length of five bytes", &[0xFF, 0xFF, 0xFF, 0xFF, 0x01][..]),
            ("a Remaining Length of two bytes where one does", &[0x80 | body.len() as u8, 0x00]),
        ] {
            self.add(
                format!("type {kind}: {what}"),
                [&[first], length, &body].concat(),
                Expect::Disconnect(code),
            );
        }
        // PINGREQ and PINGRESP, and type 0, are wrong already; the first bytes of the others are all there is to say.
        let code = if kind == 0 { MALFORMED } else { connect_code(TOO_LARGE) };
        self.add(
            format!("type {kind}: too large"),
            vec![first, 0xFF, 0xFF, 0xFF, 0x7F],
            Expect::Disconnect(code),
        );
    }

    /// What is wrong with any packet of the layout: it ends inside a field, or goes on behind the last one.
    fn of_layout(&mut self, kind: u8) {
        let version = self.version;
        if kind == AUTH && version != Version::V5 {
            return;
        }
        let fields = fields(kind, version);
        let mut before = Vec::new();
        for (number, field) in fields.iter().enumerate() {
            for cut in 1..field.len() {
                let body = [&before[..], &field[..cut]].concat();
                if kind == CONNECT && number < 2 {
                    // No version can be told from it, so that nobody knows how to answer.
                    self.add(
                        format!("type {kind}, cut in field {number}"),
                        packet(first_byte(kind), &body),
                        Expect::Disconnect(PROTOCOL_ERROR),
                    );
                } else {
                    self.add_faulty(kind, format!("type {kind}, cut in field {number}"), &body, MALFORMED);
                }
            }
            before.extend_from_slice(field);
        }
        // A PUBLISH ends with its payload, a SUBSCRIBE with another filter, a SUBACK with another code.
        let rest: Option<&[u8]> = match kind {
            PUBLISH => None,
            SUBSCRIBE | UNSUBSCRIBE => Some(&[0]),
            SUBACK => Some(&[0x7F]),
            UNSUBACK if version == Version::V5 => Some(&[0x7F]),
            _ => Some(&[0]),
        };
        if let Some(rest) = rest {
            self.add_faulty(
                kind,
                format!("type {kind}, longer than its fields"),
                &[&before, rest].concat(),
                MALFORMED,
            );
        }
        if version == Version::V5 {
            self.of_properties(kind, &fields);
        }
    }

    /// What is wrong with properties, in each packet that has them.
    fn of_properties(&mut self, kind: u8, fields: &[Vec<u8>]) {
        // Where they stand in the list above.
        let at = match kind {
            CONNECT => 4,
            CONNACK | PUBLISH | PUBACK | PUBREC | PUBREL | PUBCOMP => 2,
            SUBSCRIBE | SUBACK | UNSUBSCRIBE | UNSUBACK | DISCONNECT | AUTH => 1,
            _ => return,
        };
        // Maximum QoS is of CONNACK, Topic Alias of PUBLISH.
        let of_others: &[u8] = if kind == CONNACK { b"\x03\x23\0\x01" } else { b"\x02\x24\x01" };
        let faults: [(&str, &[u8], u8); 8] = [
            ("an unknown property", b"\x02\x7f\x00", MALFORMED),
            ("a property of other packets", of_others, MALFORMED),
            ("a Property Length behind the packet", b"\x7f\x26\0\x01k\0\x01v", MALFORMED),
            ("a Property Length inside a property", b"\x05\x26\0\x01k\0\x01v", MALFORMED),
            ("a Property Length of two bytes where one does", b"\x80\0", MALFORMED),
            ("a User Property that is not UTF-8", b"\x07\x26\0\x01k\0\x01\xff", MALFORMED),
            ("a User Property with a null", b"\x07\x26\0\x01\0\0\x01v", MALFORMED),
            ("a User Property with a surrogate", b"\x09\x26\0\x01k\0\x03\xed\xa0\x80", MALFORMED),
        ];
        for (what, run, code) in faults {
            let mut changed = fields.to_vec();
            changed[at] = run.to_vec();
            self.add_faulty(kind, format!("type {kind}: {what}"), &changed.concat(), code);
        }
        // Its own property twice; a User Property may be.
        let single: Option<&[u8]> = match kind {
            CONNECT => Some(b"\x06\x21\0\x05\x21\0\x05"),
            SUBSCRIBE => Some(b"\x04\x0b\x01\x0b\x01"),
            PUBLISH => Some(b"\x04\x01\x00\x01\x00"),
            UNSUBSCRIBE => None,
            AUTH => Some(b"\x08\x15\0\x01m\x15\0\x01m"),
            _ => Some(b"\x08\x1f\0\x01a\x1f\0\x01a"),
        };
        if let Some(twice) = single {
            let mut changed = fields.to_vec();
            changed[at] = twice.to_vec();
            self.add_faulty(
                kind,
                format!("type {kind}: a property twice"),
                &changed.concat(),
                PROTOCOL_ERROR,
            );
        }
    }

    /// What is wrong with certain packets.
    fn of_packets(&mut self) {
        let v5 = self.version == Version::V5;
        // Behind a Packet Identifier or a Topic Name.
        let none: &[u8] = if v5 { &[0] } else { &[] };
        let with = |before: &[u8], behind: &[u8]| [before, none, behind].concat();
        let zero = "Packet Identifier 0";
        for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            self.add_faulty(kind, zero, &[0, 0], PROTOCOL_ERROR);
        }
        self.add_faulty(PUBLISH, zero, &with(b"\0\x01t\0\0", b""), PROTOCOL_ERROR);
        self.add_faulty(SUBSCRIBE, zero, &with(b"\0\0", b"\0\x01t\0"), PROTOCOL_ERROR);
        self.add_faulty(UNSUBSCRIBE, zero, &with(b"\0\0", b"\0\x01t"), PROTOCOL_ERROR);
        self.add_faulty(SUBSCRIBE, "no filter", &with(b"\0\x01", b""), PROTOCOL_ERROR);
        self.add_faulty(UNSUBSCRIBE, "no filter", &with(b"\0\x01", b""), PROTOCOL_ERROR);
        self.add_faulty(SUBSCRIBE, "QoS 3", &with(b"\0\x01", b"\0\x01t\x03"), PROTOCOL_ERROR);
        self.add_faulty(SUBSCRIBE, "reserved options", &with(b"\0\x01", b"\0\x01t\xc0"), MALFORMED);
        for bad in [&b"\xff"[..], b"a\0", b"\xed\xa0\x80", b"\xc0\xaf"] {
            let what = format!("a string of {bad:02x?}");
            let topic = field(bad);
            self.add_faulty(PUBLISH, &what, &with(&[&topic[..], &[0, 1]].concat(), b"x"), MALFORMED);
            self.add_faulty(SUBSCRIBE, &what, &with(b"\0\x01", &[&topic[..], &[0]].concat()), MALFORMED);
            self.add_faulty(UNSUBSCRIBE, &what, &with(b"\0\x01", &topic), MALFORMED);
        }
        for name in [&b"a/+"[..], b"#"] {
            let body = with(&[&field(name)[..], &[0, 1]].concat(), b"x");
            self.add_faulty(PUBLISH, "a wildcard in a Topic Name", &body, TOPIC_NAME_INVALID);
        }
        let code = if v5 { PROTOCOL_ERROR } else { TOPIC_NAME_INVALID };
        self.add_faulty(PUBLISH, "an empty Topic Name", &with(b"\0\0\0\x01", b"x"), code);
        if v5 {
            self.of_packets_of_5_0();
        } else {
            for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
                self.add_faulty(kind, "a Reason Code", &[0, 1, 0], MALFORMED);
            }
            self.add_faulty(DISCONNECT, "a Reason Code", &[0], MALFORMED);
        }
    }

    fn of_packets_of_5_0(&mut self) {
        for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            self.add_faulty(kind, "an unknown Reason Code", &[0, 1, 0x7F], MALFORMED);
            self.add_faulty(kind, "a Reason Code of others", &[0, 1, 0x8E], PROTOCOL_ERROR);
        }
        self.add_faulty(DISCONNECT, "an unknown Reason Code", &[0x7F], MALFORMED);
        self.add_faulty(DISCONNECT, "a Reason Code of others", &[0x10], PROTOCOL_ERROR);
        self.add_faulty(DISCONNECT, "a Reason Code of a Server", &[0x8E], PROTOCOL_ERROR);
        self.add_faulty(AUTH, "an unknown Reason Code", b"\x7f\x04\x15\0\x01m", MALFORMED);
        self.add_faulty(AUTH, "a Reason Code of others", b"\x87\x04\x15\0\x01m", PROTOCOL_ERROR);
        self.add_faulty(AUTH, "no Authentication Method", b"\x18\0", PROTOCOL_ERROR);
        let publishes: [(&str, &[u8], u8); 6] = [
            ("Topic Alias 0", b"\x03\x23\0\0", 0x94),
            ("a Subscription Identifier from a client", b"\x02\x0b\x01", PROTOCOL_ERROR),
            ("a Response Topic with a wildcard", b"\x04\x08\0\x01#", PROTOCOL_ERROR),
            ("Payload Format Indicator 2", b"\x02\x01\x02", PROTOCOL_ERROR),
            ("a property of CONNECT", b"\x03\x21\0\x05", MALFORMED),
            ("a Content Type that is not UTF-8", b"\x04\x03\0\x01\xff", MALFORMED),
        ];
        for (what, properties, code) in publishes {
            self.add_faulty(PUBLISH, what, &[b"\0\x01t\0\x01", properties].concat(), code);
        }
        self.add_faulty(
            PUBLISH,
            "an alias that stands for nothing",
            b"\0\0\0\x01\x03\x23\0\x01",
            PROTOCOL_ERROR,
        );
        let subscribes: [(&str, &[u8], u8); 4] = [
            ("Subscription Identifier 0", b"\x02\x0b\x00\0\x01t\0", PROTOCOL_ERROR),
            ("Retain Handling 3", b"\0\0\x01t\x30", PROTOCOL_ERROR),
            ("No Local on a Shared Subscription", b"\0\0\x0a$share/g/t\x04", PROTOCOL_ERROR),
            ("a Subscription Identifier of five bytes", b"\x06\x0b\x80\x80\x80\x80\x01\0\x01t\0", MALFORMED),
        ];
        for (what, behind, code) in subscribes {
            self.add_faulty(SUBSCRIBE, what, &[b"\0\x01", behind].concat(), code);
        }
    }

    /// A CONNECT that is read to a fault.
    fn of_connect(&mut self) {
        let version = self.version;
        let good = fields(CONNECT, version);
        let mut with = |what: &str, at: usize, value: Vec<u8>, expect: Expect| {
            let mut changed = good.clone();
            changed[at] = value;
            let bytes = packet(0x10, &changed.concat());
            self.list.push(Case { what: format!("CONNECT: {what}"), bytes, expect });
        };
        with("another name", 0, field(b"HTTP"), Expect::Closed);
        with("a name in small letters", 0, field(b"mqtt"), Expect::Closed);
        with("a name of 65,535 bytes", 0, vec![0xFF, 0xFF, b'M'], Expect::Closed);
        let level = if version == Version::V5 { 6 } else { 0 };
        with("an unknown level", 1, vec![level], Expect::ConnAck(0x84));
        let malformed = Expect::Refused(MALFORMED);
        with("Will QoS 3", 2, vec![0b1111_1110], malformed);
        with("a Will QoS without a Will", 2, vec![0b1100_1010], malformed);
        with("Will Retain without a Will", 2, vec![0b1110_0010], malformed);
        if version != Version::V31 {
            with("the reserved flag", 2, vec![0b1110_1111], malformed);
        }
        let id = if version == Version::V5 { 5 } else { 4 };
        with("an identifier that is not UTF-8", id, field(b"\xff"), malformed);
        with("an identifier with a null", id, field(b"a\0b"), malformed);
        let will = if version == Version::V5 { 7 } else { 5 };
        with("a Will Topic with a wildcard", will, field(b"a/#"), Expect::Refused(TOPIC_NAME_INVALID));
        with("an empty Will Topic", will, field(b""), Expect::Refused(TOPIC_NAME_INVALID));
        with("a Will Topic that is not UTF-8", will, field(b"\xff"), malformed);
        with("a User Name that is not UTF-8", will + 2, field(b"\xff"), malformed);
        if version == Version::V5 {
            let protocol = Expect::Refused(PROTOCOL_ERROR);
            with("Receive Maximum 0", 4, b"\x03\x21\0\0".to_vec(), protocol);
            with("Maximum Packet Size 0", 4, b"\x05\x27\0\0\0\0".to_vec(), protocol);
            with("Request Problem Information 2", 4, b"\x02\x17\x02".to_vec(), protocol);
            with("Authentication Data without a method", 4, b"\x04\x16\0\x01d".to_vec(), protocol);
            with("a Will property among those of CONNECT", 4, b"\x05\x18\0\0\0\x01".to_vec(), malformed);
            with("a CONNECT property among those of the Will", 6, b"\x03\x21\0\x05".to_vec(), malformed);
        } else {
            with("a Password without a User Name", 2, vec![0b0110_1110], malformed);
            let mut changed = good.clone();
            (changed[2], changed[id]) = (vec![0b1110_1100], field(b""));
            let bytes = packet(0x10, &changed.concat());
            let what = "CONNECT: no identifier and no Clean Session".to_owned();
            self.list.push(Case { what, bytes, expect: Expect::ConnAck(0x85) });
        }
    }

    /// Packets that are good by themselves, but not here and now; and some that may come at any time.
    fn out_of_order(&mut self) {
        let version = self.version;
        for kind in [CONNECT, CONNACK, SUBACK, UNSUBACK, PINGRESP, AUTH] {
            let bytes = packet(first_byte(kind), &fields(kind, version).concat());
            // Type 15 is reserved before 5.0; those only close, whatever the code.
            self.add(format!("type {kind} from a client"), bytes, Expect::Disconnect(PROTOCOL_ERROR));
        }
        for (kind, answer) in [
            (PUBACK, &[][..]),
            (PUBREC, &[0x62, 3, 0, 9, 0x92]),
            (PUBREL, &[0x70, 3, 0, 9, 0x92]),
            (PUBCOMP, &[]),
        ] {
            let bytes = packet(first_byte(kind), &[0, 9]);
            self.add(format!("type {kind} for nothing"), bytes, Expect::Answer(answer));
        }
        self.add("PINGREQ with a body", vec![PINGREQ << 4, 1, 0], Expect::Disconnect(MALFORMED));
        // Behind DISCONNECT nothing is looked at, not even what would be answered or found at fault.
        let behind: [&[u8]; 3] = [&[0xC0, 0], &[0x00, 0x00], b"\x31\x05\0\x01t\0x"];
        for bytes in behind {
            self.add("something behind DISCONNECT", [&[0xE0, 0], bytes].concat(), Expect::Closed);
        }
    }
}
