//! Fields that several packets share.

use crate::mqtt::error::DecodeError;
use crate::mqtt::error::DecodeErrorKind;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire;
use crate::mqtt::wire::Reader;

/// A Packet Identifier (section 2.2.1).
pub(super) fn packet_id(reader: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(reader.u16()?).ok_or(DecodeError::protocol("[MQTT-2.2.1-3]", "a Packet Identifier is 0"))
}

/// Property Length and Properties (section 2.2.2); nothing before 5.0.
pub(super) fn properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    context: PropertyContext,
) -> Result<Properties<'a>, DecodeError> {
    if version != Version::V5 {
        return Ok(Properties::EMPTY);
    }
    let len = reader.varint()?;
    Properties::parse(reader.take(len as usize)?, context)
}

/// A Reason Code that `kind` may carry.
pub(super) fn reason(reader: &mut Reader<'_>, kind: PacketType) -> Result<ReasonCode, DecodeError> {
    let statement = match kind {
        PacketType::ConnAck => "[MQTT-3.2.2-8]",
        PacketType::PubAck => "[MQTT-3.4.2-1]",
        PacketType::PubRec => "[MQTT-3.5.2-1]",
        PacketType::PubRel => "[MQTT-3.6.2-1]",
        PacketType::PubComp => "[MQTT-3.7.2-1]",
        PacketType::SubAck => "[MQTT-3.9.3-2]",
        PacketType::UnsubAck => "[MQTT-3.11.3-2]",
        PacketType::Disconnect => "[MQTT-3.14.2-1]",
        PacketType::Auth => "[MQTT-3.15.2-1]",
        _ => "section 2.4",
    };
    let reason = ReasonCode::from_u8(reader.u8()?)
        .ok_or_else(|| DecodeError::malformed(statement, "a Reason Code is not known"))?;
    if !reason.allowed_in(kind) {
        return Err(DecodeError::protocol(statement, "a Reason Code does not belong into this packet"));
    }
    Ok(reason)
}

/// A Topic Name: UTF-8 without NUL and wildcards, not empty (section 4.7).
#[inline]
pub(super) fn topic_name(bytes: &[u8]) -> Result<&str, DecodeError> {
    if bytes.is_empty() {
        return Err(invalid_name("[MQTT-4.7.3-1]", "a Topic Name is empty"));
    }
    // One look at all bytes, compiled to vector instructions since it has no early exit. All three characters
    // are ASCII, so they never are part of another one.
    let suspect = bytes.iter().fold(false, |any, &byte| any | (byte == 0) | (byte == b'+') | (byte == b'#'));
    if !suspect {
        return std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::malformed("[MQTT-3.3.2-1]", "a Topic Name is not well-formed UTF-8"));
    }
    wire::text(bytes)?;
    Err(invalid_name("[MQTT-3.3.2-2]", "a Topic Name holds a wildcard"))
}

fn invalid_name(statement: &'static str, text: &'static str) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Protocol, ReasonCode::TopicNameInvalid, statement, text)
}
