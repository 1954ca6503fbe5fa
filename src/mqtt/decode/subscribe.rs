//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (MQTT 5.0 sections 3.8 to 3.11).

use smallvec::SmallVec;

use crate::mqtt::decode::fields;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::SubAck;
use crate::mqtt::packet::Subscribe;
use crate::mqtt::packet::SubscribeFilter;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::packet::UnsubAck;
use crate::mqtt::packet::Unsubscribe;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire::Reader;

/// SUBSCRIBE, section 3.8.
pub(super) fn subscribe(mut reader: Reader<'_>, version: Version) -> Result<Subscribe<'_>, DecodeError> {
    let packet_id = fields::packet_id(&mut reader)?;
    let properties = fields::properties(&mut reader, version, PropertyContext::Subscribe)?;
    let mut filters = SmallVec::new();
    while !reader.is_empty() {
        filters.push(subscribe_filter(&mut reader, version)?);
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("[MQTT-3.8.3-2]", "a SUBSCRIBE without a Topic Filter"));
    }
    Ok(Subscribe { packet_id, properties, filters })
}

fn subscribe_filter<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<SubscribeFilter<'a>, DecodeError> {
    let filter = reader.text()?; // [MQTT-3.8.3-1]
    let options = options(reader.u8()?, version)?;
    if options.no_local && filter.starts_with("$share/") {
        return Err(DecodeError::protocol("[MQTT-3.8.3-4]", "No Local on a Shared Subscription"));
    }
    Ok(SubscribeFilter { filter, options })
}

/// Subscription Options, section 3.8.3.1; before 5.0 only the QoS.
fn options(byte: u8, version: Version) -> Result<SubscriptionOptions, DecodeError> {
    let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed("[MQTT-3.8.3-5]", "reserved Subscription Options are set"));
    }
    if QoS::from_u8(byte & 0b11).is_none() {
        return Err(DecodeError::protocol("section 3.8.3.1", "the QoS of a Subscription is 3"));
    }
    SubscriptionOptions::from_u8(byte).ok_or(DecodeError::protocol("section 3.8.3.1", "Retain Handling is 3"))
}

/// SUBACK, section 3.9.
pub(super) fn suback(mut reader: Reader<'_>, version: Version) -> Result<SubAck<'_>, DecodeError> {
    let packet_id = fields::packet_id(&mut reader)?;
    let properties = fields::properties(&mut reader, version, PropertyContext::SubAck)?;
    let mut reasons = SmallVec::new();
    while !reader.is_empty() {
        reasons.push(suback_reason(&mut reader, version)?);
    }
    if reasons.is_empty() {
        return Err(DecodeError::protocol("[MQTT-3.8.4-6]", "a SUBACK without a Reason Code"));
    }
    Ok(SubAck { packet_id, properties, reasons })
}

fn suback_reason(reader: &mut Reader<'_>, version: Version) -> Result<ReasonCode, DecodeError> {
    let reason = fields::reason(reader, PacketType::SubAck)?;
    // MQTT 3.1.1 section 3.9.3: the granted QoS or 0x80.
    if version != Version::V5 && reason.as_u8() > ReasonCode::UnspecifiedError.as_u8() {
        return Err(DecodeError::malformed("[MQTT-3.9.3-2]", "a SUBACK return code is not known"));
    }
    Ok(reason)
}

/// UNSUBSCRIBE, section 3.10.
pub(super) fn unsubscribe(mut reader: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, DecodeError> {
    let packet_id = fields::packet_id(&mut reader)?;
    let properties = fields::properties(&mut reader, version, PropertyContext::Unsubscribe)?;
    let mut filters = SmallVec::new();
    while !reader.is_empty() {
        filters.push(reader.text()?); // [MQTT-3.10.3-1]
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("[MQTT-3.10.3-2]", "an UNSUBSCRIBE without a Topic Filter"));
    }
    Ok(Unsubscribe { packet_id, properties, filters })
}

/// UNSUBACK, section 3.11; before 5.0 nothing but its identifier.
pub(super) fn unsuback(mut reader: Reader<'_>, version: Version) -> Result<UnsubAck<'_>, DecodeError> {
    let packet_id = fields::packet_id(&mut reader)?;
    let properties = fields::properties(&mut reader, version, PropertyContext::UnsubAck)?;
    let mut reasons = SmallVec::new();
    if version != Version::V5 {
        reader.finish()?;
        return Ok(UnsubAck { packet_id, properties, reasons });
    }
    while !reader.is_empty() {
        reasons.push(fields::reason(&mut reader, PacketType::UnsubAck)?);
    }
    if reasons.is_empty() {
        return Err(DecodeError::protocol("[MQTT-3.11.3-1]", "an UNSUBACK without a Reason Code"));
    }
    Ok(UnsubAck { packet_id, properties, reasons })
}
