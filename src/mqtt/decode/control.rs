//! CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH (MQTT 5.0 sections 3.2, 3.4 to 3.7, 3.14, 3.15).

use crate::mqtt::decode::fields;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Auth;
use crate::mqtt::packet::ConnAck;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire::Reader;

/// CONNACK, section 3.2.
pub(super) fn connack(mut reader: Reader<'_>, version: Version) -> Result<ConnAck<'_>, DecodeError> {
    let flags = reader.u8()?;
    // The whole byte is unused in MQTT 3.1.
    if version != Version::V31 && flags > 1 {
        return Err(DecodeError::malformed("[MQTT-3.2.2-1]", "reserved CONNACK flags are set"));
    }
    let session_present = version != Version::V31 && flags == 1;
    let reason = if version == Version::V5 {
        fields::reason(&mut reader, PacketType::ConnAck)?
    } else {
        ReasonCode::from_connack_return_code(reader.u8()?)
            .ok_or(DecodeError::malformed("[MQTT-3.2.2-8]", "a CONNACK return code is not known"))?
    };
    let properties = fields::properties(&mut reader, version, PropertyContext::ConnAck)?;
    reader.finish()?;
    if session_present && reason.is_error() {
        return Err(DecodeError::protocol("[MQTT-3.2.2-6]", "Session Present in a refusing CONNACK"));
    }
    Ok(ConnAck { session_present, reason, properties })
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP, sections 3.4 to 3.7. Reason Code and Property Length may be left out.
pub(super) fn ack(
    kind: PacketType,
    mut reader: Reader<'_>,
    version: Version,
) -> Result<Ack<'_>, DecodeError> {
    let packet_id = fields::packet_id(&mut reader)?;
    if reader.is_empty() || version != Version::V5 {
        reader.finish()?;
        return Ok(Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY });
    }
    let context = match kind {
        PacketType::PubRec => PropertyContext::PubRec,
        PacketType::PubRel => PropertyContext::PubRel,
        PacketType::PubComp => PropertyContext::PubComp,
        _ => PropertyContext::PubAck,
    };
    let reason = fields::reason(&mut reader, kind)?;
    let properties = optional_properties(&mut reader, context)?;
    reader.finish()?;
    Ok(Ack { packet_id, reason, properties })
}

/// DISCONNECT, section 3.14. Reason Code and Property Length may be left out.
pub(super) fn disconnect(mut reader: Reader<'_>, version: Version) -> Result<Disconnect<'_>, DecodeError> {
    if reader.is_empty() || version != Version::V5 {
        reader.finish()?;
        return Ok(Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY });
    }
    let reason = fields::reason(&mut reader, PacketType::Disconnect)?;
    let properties = optional_properties(&mut reader, PropertyContext::Disconnect)?;
    reader.finish()?;
    Ok(Disconnect { reason, properties })
}

/// AUTH, section 3.15. Only an AUTH of two bytes leaves out its properties, the Authentication Method among
/// them; whether it may stand for the method of the CONNECT is for the session to say.
pub(super) fn auth(mut reader: Reader<'_>) -> Result<Auth<'_>, DecodeError> {
    if reader.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: Properties::EMPTY });
    }
    let reason = fields::reason(&mut reader, PacketType::Auth)?;
    let properties = fields::properties(&mut reader, Version::V5, PropertyContext::Auth)?;
    reader.finish()?;
    if properties.authentication_method().is_none() {
        return Err(DecodeError::protocol("section 3.15.2.2.2", "an AUTH without Authentication Method"));
    }
    Ok(Auth { reason, properties })
}

fn optional_properties<'a>(
    reader: &mut Reader<'a>,
    context: PropertyContext,
) -> Result<Properties<'a>, DecodeError> {
    if reader.is_empty() {
        return Ok(Properties::EMPTY);
    }
    fields::properties(reader, Version::V5, context)
}
