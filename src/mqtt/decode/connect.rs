//! CONNECT (MQTT 5.0 section 3.1; 3.1.1 and 3.1 likewise).

use crate::mqtt::decode::fields;
use crate::mqtt::error::DecodeError;
use crate::mqtt::error::DecodeErrorKind;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::packet::Will;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire::Reader;

/// Set in the protocol level by bridges (mosquitto's `try_private`).
const BRIDGE: u8 = 0x80;

/// The Connect Flags (section 3.1.2.3).
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    const fn clean_start(self) -> bool {
        self.0 & 0b0000_0010 != 0
    }

    const fn will(self) -> bool {
        self.0 & 0b0000_0100 != 0
    }

    const fn will_qos(self) -> u8 {
        self.0 >> 3 & 0b11
    }

    const fn will_retain(self) -> bool {
        self.0 & 0b0010_0000 != 0
    }

    const fn password(self) -> bool {
        self.0 & 0b0100_0000 != 0
    }

    const fn username(self) -> bool {
        self.0 & 0b1000_0000 != 0
    }
}

/// A fault behind the protocol level is marked with the version to answer in.
pub(super) fn connect(mut reader: Reader<'_>) -> Result<Connect<'_>, DecodeError> {
    let (version, bridge) = protocol(&mut reader)?;
    fields_behind_level(reader, version, bridge).map_err(|fault| fault.of_version(version))
}

/// Protocol Name and Version (sections 3.1.2.1, 3.1.2.2).
fn protocol(reader: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let name = reader.bytes()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(unsupported("[MQTT-3.1.2-1]", "the protocol name is not MQTT"));
    }
    let level = reader.u8()?;
    let bridge = level & BRIDGE != 0;
    match (name, level) {
        (b"MQTT", 5) => Ok((Version::V5, false)),
        (b"MQTT", 4 | 0x84) => Ok((Version::V311, bridge)),
        (b"MQIsdp", 3 | 0x83) => Ok((Version::V31, bridge)),
        (b"MQTT", 6..) => Err(unknown_level().of_version(Version::V5)),
        _ => Err(unknown_level().of_version(Version::V311)),
    }
}

fn unknown_level() -> DecodeError {
    unsupported("[MQTT-3.1.2-2]", "the protocol version is none of 3.1, 3.1.1 and 5.0")
}

fn unsupported(statement: &'static str, text: &'static str) -> DecodeError {
    let kind = DecodeErrorKind::UnsupportedVersion;
    DecodeError::new(kind, ReasonCode::UnsupportedProtocolVersion, statement, text)
}

/// The fields in their fixed order (`[MQTT-3.1.3-1]`), each there exactly when its flag says so: the Client
/// Identifier always and first (`[MQTT-3.1.3-3]`, `[MQTT-3.1.3-4]`), the Will's (`[MQTT-3.1.2-9]`), User Name
/// (`[MQTT-3.1.2-16]`, `[MQTT-3.1.2-17]`, `[MQTT-3.1.3-12]`), Password (`[MQTT-3.1.2-18]`, `[MQTT-3.1.2-19]`).
fn fields_behind_level(
    mut reader: Reader<'_>,
    version: Version,
    bridge: bool,
) -> Result<Connect<'_>, DecodeError> {
    let flags = Flags(reader.u8()?);
    check_flags(flags, version)?;
    let keep_alive_seconds = reader.u16()?;
    let properties = fields::properties(&mut reader, version, PropertyContext::Connect)?;
    let client_id = reader.text()?;
    let will = if flags.will() { Some(will(&mut reader, flags, version)?) } else { None };
    let username = if promised(flags.username(), &reader, version) { Some(reader.text()?) } else { None };
    let password = if promised(flags.password(), &reader, version) { Some(reader.bytes()?) } else { None };
    reader.finish()?;
    check_client_id(client_id, flags, version)?;
    Ok(Connect {
        version,
        bridge,
        clean_start: flags.clean_start(),
        keep_alive_seconds,
        properties,
        client_id,
        will,
        username,
        password,
    })
}

fn check_flags(flags: Flags, version: Version) -> Result<(), DecodeError> {
    // Unused, not reserved, in MQTT 3.1.
    if flags.0 & 1 != 0 && version != Version::V31 {
        return Err(DecodeError::malformed("[MQTT-3.1.2-3]", "the reserved Connect Flag is set"));
    }
    if QoS::from_u8(flags.will_qos()).is_none() {
        return Err(DecodeError::malformed("[MQTT-3.1.2-12]", "both Will QoS bits are set"));
    }
    if !flags.will() && flags.will_qos() != 0 {
        return Err(DecodeError::malformed("[MQTT-3.1.2-11]", "a Will QoS without a Will"));
    }
    if !flags.will() && flags.will_retain() {
        return Err(DecodeError::malformed("[MQTT-3.1.2-13]", "Will Retain without a Will"));
    }
    if version != Version::V5 && flags.password() && !flags.username() {
        return Err(DecodeError::malformed("section 3.1.2.9", "a Password without a User Name"));
    }
    Ok(())
}

/// MQTT 3.1 section 3.1: the User Name flag may be set although the packet ends before the name; so may the
/// Password flag.
fn promised(flag: bool, reader: &Reader<'_>, version: Version) -> bool {
    flag && !(version == Version::V31 && reader.is_empty())
}

/// Its topic is a UTF-8 string (`[MQTT-3.1.3-11]`), its payload is bytes.
fn will<'a>(reader: &mut Reader<'a>, flags: Flags, version: Version) -> Result<Will<'a>, DecodeError> {
    Ok(Will {
        qos: QoS::from_u8(flags.will_qos()).unwrap_or_default(),
        retain: flags.will_retain(),
        properties: fields::properties(reader, version, PropertyContext::Will)?,
        topic: fields::topic_name(reader.bytes()?)?,
        payload: reader.bytes()?,
    })
}

/// Before 5.0 an empty Client Identifier needs Clean Session (3.1.1 section 3.1.3.1); 3.1 knows none at all.
fn check_client_id(client_id: &str, flags: Flags, version: Version) -> Result<(), DecodeError> {
    let allowed = match version {
        Version::V31 => false,
        Version::V311 => flags.clean_start(),
        Version::V5 => true,
    };
    if !client_id.is_empty() || allowed {
        return Ok(());
    }
    Err(DecodeError::new(
        DecodeErrorKind::ClientIdentifier,
        ReasonCode::ClientIdentifierNotValid,
        "[MQTT-3.1.3-8]",
        "an empty Client Identifier needs Clean Session",
    ))
}
