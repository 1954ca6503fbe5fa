//! Bytes to [`Packet`], incrementally and with limits before anything is allocated. With `encode.rs` the only
//! place that knows the layouts of 3.1, 3.1.1 and 5.0.
//!
//! The packets of both directions are decoded, since the same codec serves clients and outgoing links; who may
//! send what is checked by the connection ([`Packet::packet_type`]). So is all that depends on the state of a
//! session: Receive Maximum, Topic Alias Maximum, identifiers in use, validity of Topic Filters.

mod connect;
mod control;
mod fields;
mod similar;
mod subscribe;

use crate::mqtt::error::DecodeError;
use crate::mqtt::error::DecodeErrorKind;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire;
use crate::mqtt::wire::Reader;
use crate::mqtt::wire::Varint;

pub use crate::mqtt::decode::similar::Similar;

/// What the receiver knows of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The version the CONNECT has set; `None` before it, when only a CONNECT is accepted.
    pub version: Option<Version>,
    /// The largest whole packet, fixed header included, in bytes.
    pub max_packet_size: u32,
}

/// What the first bytes of the input are.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// A whole packet and the bytes it took.
    Packet {
        /// The packet, borrowing from the input.
        packet: Packet<'a>,
        /// Its length, fixed header included.
        len: usize,
    },
    /// The beginning of a packet.
    NeedMore {
        /// Length of the whole packet, once its fixed header is there; never above the limit.
        total: Option<usize>,
    },
}

/// Decodes the packet at the start of `input`.
///
/// A fault in the fixed header, an oversized packet among them, is reported as soon as its bytes are there.
pub fn decode<'a>(input: &'a [u8], limits: &DecodeLimits) -> Result<Decoded<'a>, DecodeError> {
    let Some(Head { kind, flags, length, total }) = head(input, limits)? else {
        return Ok(Decoded::NeedMore { total: None });
    };
    let Some(body) = input.get(length..total) else {
        return Ok(Decoded::NeedMore { total: Some(total) });
    };
    let packet = decode_body(kind, flags, Reader::new(body), limits.version)?;
    Ok(Decoded::Packet { packet, len: total })
}

/// A fixed header: what it says, its own length and that of the whole packet.
struct Head {
    kind: PacketType,
    flags: u8,
    length: usize,
    total: usize,
}

/// The fixed header at the start of `input`, once it is there.
#[inline]
fn head(input: &[u8], limits: &DecodeLimits) -> Result<Option<Head>, DecodeError> {
    let Some((&first, behind)) = input.split_first() else { return Ok(None) };
    let (kind, flags) = (packet_type(first, limits.version)?, first & 0x0F);
    check_flags(kind, flags, limits.version)?;
    let Varint::Complete(remaining, taken) = wire::varint(behind)? else { return Ok(None) };
    let length = 1 + taken;
    let total = length + remaining as usize;
    check_length(kind, remaining, total, limits.max_packet_size)?;
    Ok(Some(Head { kind, flags, length, total }))
}

/// Whether a whole packet is at the start of `input`, of which only the fixed header is looked at.
///
/// # Errors
/// What is wrong with that.
pub fn is_whole(input: &[u8], limits: &DecodeLimits) -> Result<bool, DecodeError> {
    Ok(head(input, limits)?.is_some_and(|head| head.total <= input.len()))
}

/// A whole PUBLISH at the start of `input`, and its length; `None` if something else is there or anything is wrong with
/// it, which [`decode`] then says. A Topic Name equal to `known`, which is one, is not looked at again.
#[inline]
#[must_use]
pub fn decode_publish<'a>(
    input: &'a [u8],
    limits: &DecodeLimits,
    known: &'a str,
) -> Option<(Publish<'a>, usize)> {
    let version = limits.version?;
    let (&first, behind) = input.split_first()?;
    if first >> 4 != PacketType::Publish.as_u8() || check_publish_flags(first & 0x0F).is_err() {
        return None;
    }
    let (remaining, taken) = match *behind.first()? {
        short @ 0..=0x7F => (u32::from(short), 1),
        _ => match wire::varint(behind) {
            Ok(Varint::Complete(remaining, taken)) => (remaining, taken),
            _ => return None,
        },
    };
    let head = 1 + taken;
    let total = head + remaining as usize;
    if total > limits.max_packet_size as usize {
        return None;
    }
    let reader = Reader::new(input.get(head..total)?);
    publish(first & 0x0F, reader, version, known).ok().map(|publish| (publish, total))
}

/// How long a [`plain_ack`] is.
pub const PLAIN_ACK_BYTES: usize = 4;

/// A PUBACK, PUBREC, PUBREL or PUBCOMP at the start of `input` that says no more than success, which is the same in
/// every version; `None` if something else is there, or one that is not well-formed.
#[inline]
#[must_use]
pub fn plain_ack(input: &[u8]) -> Option<(PacketType, PacketId)> {
    let &[first, 2, high, low] = input.first_chunk::<PLAIN_ACK_BYTES>()? else { return None };
    let kind = match first {
        0x40 => PacketType::PubAck,
        0x50 => PacketType::PubRec,
        0x62 => PacketType::PubRel,
        0x70 => PacketType::PubComp,
        _ => return None,
    };
    Some((kind, PacketId::new(u16::from_be_bytes([high, low]))?))
}

fn packet_type(first: u8, version: Option<Version>) -> Result<PacketType, DecodeError> {
    let kind = PacketType::from_u8(first >> 4)
        .ok_or(DecodeError::malformed("section 2.1.2", "Control Packet type 0 is reserved"))?;
    match (kind, version) {
        (PacketType::Connect, Some(_)) => Err(DecodeError::protocol("[MQTT-3.1.0-2]", "a second CONNECT")),
        (PacketType::Auth, Some(Version::V31 | Version::V311)) => {
            Err(DecodeError::malformed("section 2.1.2", "Control Packet type 15 is reserved before MQTT 5.0"))
        }
        (PacketType::Connect, None) | (_, Some(_)) => Ok(kind),
        (_, None) => Err(DecodeError::protocol("[MQTT-3.1.0-1]", "the first packet is not a CONNECT")),
    }
}

/// The low half of the first byte (section 2.1.3).
fn check_flags(kind: PacketType, flags: u8, version: Option<Version>) -> Result<(), DecodeError> {
    let (expected, statement) = match kind {
        PacketType::Publish => return check_publish_flags(flags),
        PacketType::PubRel => (0b0010, "[MQTT-3.6.1-1]"),
        PacketType::Subscribe => (0b0010, "[MQTT-3.8.1-1]"),
        PacketType::Unsubscribe => (0b0010, "[MQTT-3.10.1-1]"),
        PacketType::Disconnect => (0, "[MQTT-3.14.1-1]"),
        PacketType::Auth => (0, "[MQTT-3.15.1-1]"),
        _ => (0, "[MQTT-2.1.3-1]"),
    };
    // MQTT 3.1 repeats PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP set (its sections 3.6, 3.8 and 3.10).
    let repeated = version == Some(Version::V31) && expected != 0 && flags == expected | 0b1000;
    if flags == expected || repeated {
        return Ok(());
    }
    Err(DecodeError::malformed(statement, "reserved flags of the fixed header are set"))
}

fn check_publish_flags(flags: u8) -> Result<(), DecodeError> {
    match QoS::from_u8(flags >> 1 & 0b11) {
        None => Err(DecodeError::malformed("[MQTT-3.3.1-4]", "both QoS bits of a PUBLISH are set")),
        Some(QoS::AtMostOnce) if flags & 0b1000 != 0 => {
            Err(DecodeError::malformed("[MQTT-3.3.1-2]", "DUP is set with QoS 0"))
        }
        Some(_) => Ok(()),
    }
}

fn check_length(kind: PacketType, remaining: u32, total: usize, max: u32) -> Result<(), DecodeError> {
    if total > max as usize {
        return Err(DecodeError::new(
            DecodeErrorKind::PacketTooLarge,
            ReasonCode::PacketTooLarge,
            "[MQTT-3.2.2-15]",
            "a packet is larger than the receiver accepts",
        ));
    }
    if matches!(kind, PacketType::PingReq | PacketType::PingResp) && remaining != 0 {
        return Err(DecodeError::malformed("section 3.12", "PINGREQ and PINGRESP are two bytes"));
    }
    Ok(())
}

fn decode_body<'a>(
    kind: PacketType,
    flags: u8,
    reader: Reader<'a>,
    version: Option<Version>,
) -> Result<Packet<'a>, DecodeError> {
    let Some(version) = version else {
        return connect::connect(reader).map(|connect| Packet::Connect(Box::new(connect)));
    };
    match kind {
        PacketType::Connect => connect::connect(reader).map(|connect| Packet::Connect(Box::new(connect))),
        PacketType::ConnAck => control::connack(reader, version).map(Packet::ConnAck),
        PacketType::Publish => publish(flags, reader, version, "").map(Packet::Publish),
        PacketType::PubAck => control::ack(kind, reader, version).map(Packet::PubAck),
        PacketType::PubRec => control::ack(kind, reader, version).map(Packet::PubRec),
        PacketType::PubRel => control::ack(kind, reader, version).map(Packet::PubRel),
        PacketType::PubComp => control::ack(kind, reader, version).map(Packet::PubComp),
        PacketType::Subscribe => subscribe::subscribe(reader, version).map(Packet::Subscribe),
        PacketType::SubAck => subscribe::suback(reader, version).map(Packet::SubAck),
        PacketType::Unsubscribe => subscribe::unsubscribe(reader, version).map(Packet::Unsubscribe),
        PacketType::UnsubAck => subscribe::unsuback(reader, version).map(Packet::UnsubAck),
        PacketType::PingReq => Ok(Packet::PingReq),
        PacketType::PingResp => Ok(Packet::PingResp),
        PacketType::Disconnect => control::disconnect(reader, version).map(Packet::Disconnect),
        PacketType::Auth => control::auth(reader).map(Packet::Auth),
    }
}

/// PUBLISH, section 3.3; its flags were checked. `known` is a valid Topic Name, or empty.
#[inline]
fn publish<'a>(
    flags: u8,
    mut reader: Reader<'a>,
    version: Version,
    known: &'a str,
) -> Result<Publish<'a>, DecodeError> {
    let qos = QoS::from_u8(flags >> 1 & 0b11).unwrap_or_default();
    let topic = reader.bytes()?;
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(fields::packet_id(&mut reader)?),
    };
    let properties = fields::properties(&mut reader, version, PropertyContext::Publish)?;
    let topic = match topic {
        [] if version == Version::V5 && properties.topic_alias().is_some() => "",
        [] if version == Version::V5 => {
            return Err(DecodeError::protocol("section 3.3.2.1", "neither Topic Name nor Topic Alias"));
        }
        bytes if !known.is_empty() && bytes == known.as_bytes() => known,
        bytes => fields::topic_name(bytes)?,
    };
    Ok(Publish {
        dup: flags & 0b1000 != 0,
        qos,
        retain: flags & 0b0001 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}

#[cfg(test)]
mod tests;
