//! [`Packet`] to bytes. With `decode.rs` the only place that knows the layouts of 3.1, 3.1.1 and 5.0.
//!
//! What a version cannot say is left out as its standard has it: properties, Reason Codes of acknowledgements,
//! subscription options beside the QoS. What no receiver would accept is refused ([`EncodeError`]).

mod connect;

use crate::mqtt::error::EncodeError;
use crate::mqtt::frame;
use crate::mqtt::frame::PublishHeader;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Auth;
use crate::mqtt::packet::ConnAck;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::SubAck;
use crate::mqtt::packet::Subscribe;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::packet::UnsubAck;
use crate::mqtt::packet::Unsubscribe;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::mqtt::wire;

/// Appends `packet` to `out` in the layout of `version`; a CONNECT in that of its own. On an error `out` is as
/// before.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let result = encode_packet(packet, version, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties; before 5.0 without the Reason Code too. Of the
/// Server's PUBREL and PUBCOMP there is no other form, so neither a Reason String nor a User Property can make them
/// too large (`[MQTT-3.6.2-2]`, `[MQTT-3.6.2-3]`, `[MQTT-3.7.2-2]`, `[MQTT-3.7.2-3]`).
pub fn encode_ack(
    kind: PacketType,
    version: Version,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    let first = first_byte(kind);
    let [high, low] = packet_id.get().to_be_bytes();
    if version == Version::V5 && reason != ReasonCode::Success {
        out.extend_from_slice(&[first, 3, high, low, reason.as_u8()]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

/// Appends a PINGRESP.
pub fn encode_ping_resp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[first_byte(PacketType::PingResp), 0]);
}

/// Type and reserved flags (section 2.1.3).
const fn first_byte(kind: PacketType) -> u8 {
    let flags = match kind {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    kind.as_u8() << 4 | flags
}

fn encode_packet(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let kind = packet.packet_type();
    if let Packet::Publish(packet) = packet {
        return publish(packet, version, out);
    }
    framed(kind, out, |out| match packet {
        Packet::Connect(packet) => connect::connect(packet, out),
        Packet::ConnAck(packet) => connack(packet, version, out),
        Packet::PubAck(packet) => ack(packet, PropertyContext::PubAck, kind, version, out),
        Packet::PubRec(packet) => ack(packet, PropertyContext::PubRec, kind, version, out),
        Packet::PubRel(packet) => ack(packet, PropertyContext::PubRel, kind, version, out),
        Packet::PubComp(packet) => ack(packet, PropertyContext::PubComp, kind, version, out),
        Packet::Subscribe(packet) => subscribe(packet, version, out),
        Packet::SubAck(packet) => suback(packet, version, out),
        Packet::Unsubscribe(packet) => unsubscribe(packet, version, out),
        Packet::UnsubAck(packet) => unsuback(packet, version, out),
        Packet::Disconnect(packet) => disconnect(packet, version, out),
        Packet::Auth(packet) => auth(packet, version, out),
        Packet::PingReq | Packet::PingResp | Packet::Publish(_) => Ok(()),
    })
}

/// Writes a fixed header around what `body` writes. The length is put in afterwards: these packets are small,
/// and moving them costs less than reckoning their length in a second place.
fn framed(
    kind: PacketType,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    out.push(first_byte(kind));
    let start = out.len();
    body(out)?;
    let remaining = u32::try_from(out.len() - start).map_err(|_| EncodeError::PacketTooLong)?;
    if remaining > wire::VARINT_MAX {
        return Err(EncodeError::PacketTooLong);
    }
    let end = out.len();
    wire::put_varint(remaining, out);
    let taken = out.len() - end;
    out[start..].rotate_right(taken);
    Ok(())
}

/// No properties are a Property Length of 0 (`[MQTT-2.2.2-1]`).
fn put_properties(
    properties: Properties<'_>,
    context: PropertyContext,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if version != Version::V5 {
        return Ok(());
    }
    let bytes = checked(properties, context)?;
    let len = u32::try_from(bytes.len()).map_err(|_| EncodeError::PacketTooLong)?;
    if len > wire::VARINT_MAX {
        return Err(EncodeError::PacketTooLong);
    }
    wire::put_varint(len, out);
    out.extend_from_slice(bytes);
    Ok(())
}

/// A run may have been made for another packet.
fn checked(properties: Properties<'_>, context: PropertyContext) -> Result<&[u8], EncodeError> {
    Properties::parse(properties.as_bytes(), context)
        .map(|properties| properties.as_bytes())
        .map_err(|_| EncodeError::Properties)
}

fn put_packet_id(packet_id: PacketId, out: &mut Vec<u8>) {
    out.extend_from_slice(&packet_id.get().to_be_bytes());
}

fn put_reason(reason: ReasonCode, kind: PacketType, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if !reason.allowed_in(kind) {
        return Err(EncodeError::Reason);
    }
    out.push(reason.as_u8());
    Ok(())
}

fn connack(packet: &ConnAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    // [MQTT-3.2.2-1], [MQTT-3.2.2-6]; MQTT 3.1 has no Session Present.
    let present = packet.session_present && !packet.reason.is_error() && version != Version::V31;
    out.push(u8::from(present));
    if version != Version::V5 {
        out.push(packet.reason.connack_return_code().ok_or(EncodeError::Reason)?);
        return Ok(());
    }
    put_reason(packet.reason, PacketType::ConnAck, out)?;
    put_properties(packet.properties, PropertyContext::ConnAck, version, out)
}

fn publish(packet: &Publish<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let aliased = version == Version::V5 && packet.topic.is_empty();
    if aliased && packet.properties.topic_alias().is_none() {
        return Err(EncodeError::TopicName);
    }
    if !aliased {
        topic::check_name(packet.topic).map_err(|_| EncodeError::TopicName)?;
    }
    if (packet.qos == QoS::AtMostOnce) != packet.packet_id.is_none() {
        return Err(EncodeError::PacketIdentifier);
    }
    if packet.dup && packet.qos == QoS::AtMostOnce {
        return Err(EncodeError::Duplicate);
    }
    let properties = match version {
        Version::V5 => checked(packet.properties, PropertyContext::Publish)?,
        Version::V31 | Version::V311 => &[],
    };
    let header = PublishHeader {
        topic: packet.topic,
        properties,
        payload: packet.payload,
        ..PublishHeader::default()
    };
    let flags = frame::flags(packet.qos, packet.retain, packet.dup);
    frame::write(flags, version, packet.packet_id.map(PacketId::get), &header, out)?;
    Ok(())
}

fn ack(
    packet: &Ack<'_>,
    context: PropertyContext,
    kind: PacketType,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    put_packet_id(packet.packet_id, out);
    let bare = packet.properties.is_empty();
    if version != Version::V5 || bare && packet.reason == ReasonCode::Success {
        return Ok(());
    }
    put_reason(packet.reason, kind, out)?;
    if bare {
        return Ok(());
    }
    put_properties(packet.properties, context, version, out)
}

fn subscribe(packet: &Subscribe<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if packet.filters.is_empty() {
        return Err(EncodeError::Empty);
    }
    put_packet_id(packet.packet_id, out);
    put_properties(packet.properties, PropertyContext::Subscribe, version, out)?;
    for entry in &packet.filters {
        wire::put_text(entry.filter, out)?;
        let options = if version == Version::V5 {
            entry.options
        } else {
            SubscriptionOptions { qos: entry.options.qos, ..SubscriptionOptions::default() }
        };
        if options.no_local && entry.filter.starts_with("$share/") {
            return Err(EncodeError::NoLocalOnShared);
        }
        out.push(options.to_u8());
    }
    Ok(())
}

fn suback(packet: &SubAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if packet.reasons.is_empty() {
        return Err(EncodeError::Empty);
    }
    put_packet_id(packet.packet_id, out);
    put_properties(packet.properties, PropertyContext::SubAck, version, out)?;
    for &reason in &packet.reasons {
        let failed = reason.is_error() && version != Version::V5;
        put_reason(if failed { ReasonCode::UnspecifiedError } else { reason }, PacketType::SubAck, out)?;
    }
    Ok(())
}

fn unsubscribe(packet: &Unsubscribe<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if packet.filters.is_empty() {
        return Err(EncodeError::Empty);
    }
    put_packet_id(packet.packet_id, out);
    put_properties(packet.properties, PropertyContext::Unsubscribe, version, out)?;
    for filter in &packet.filters {
        wire::put_text(filter, out)?;
    }
    Ok(())
}

fn unsuback(packet: &UnsubAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_packet_id(packet.packet_id, out);
    if version != Version::V5 {
        return Ok(());
    }
    if packet.reasons.is_empty() {
        return Err(EncodeError::Empty);
    }
    put_properties(packet.properties, PropertyContext::UnsubAck, version, out)?;
    for &reason in &packet.reasons {
        put_reason(reason, PacketType::UnsubAck, out)?;
    }
    Ok(())
}

/// A Reason Code is always followed by its Property Length: it may be left out, and not all clients know.
fn disconnect(packet: &Disconnect<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let bare = packet.properties.is_empty() && packet.reason == ReasonCode::Success;
    if version != Version::V5 || bare {
        return Ok(());
    }
    put_reason(packet.reason, PacketType::Disconnect, out)?;
    put_properties(packet.properties, PropertyContext::Disconnect, version, out)
}

fn auth(packet: &Auth<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if version != Version::V5 {
        return Err(EncodeError::Version);
    }
    if packet.properties.is_empty() && packet.reason == ReasonCode::Success {
        return Ok(());
    }
    // Section 3.15.2.2.2.
    if packet.properties.authentication_method().is_none() {
        return Err(EncodeError::Properties);
    }
    put_reason(packet.reason, PacketType::Auth, out)?;
    put_properties(packet.properties, PropertyContext::Auth, version, out)
}

#[cfg(test)]
mod tests;
