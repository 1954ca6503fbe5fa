//! PUBLISH out, from its parts and with room to patch: frames that many receivers get alike are encoded once, and
//! only flags and Packet Identifier differ between the copies (`performance.md` 5.1, rule 5).

mod around;

use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertyId;
use crate::mqtt::wire;

pub(crate) use crate::mqtt::frame::around::Heads;
pub(crate) use crate::mqtt::frame::around::PACKET_BYTES_MAX;

/// What a PUBLISH to some receivers holds, beside its flags and Packet Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishHeader<'a> {
    /// A Topic Name, or empty when `topic_alias` stands for it.
    pub topic: &'a str,
    /// Properties as forwarded ([`crate::mqtt::property::Properties::forwarded`]); not written before 5.0.
    pub properties: &'a [u8],
    /// Message Expiry Interval to write, in seconds.
    pub expiry: Option<u32>,
    /// Subscription Identifiers to write.
    pub subscription_ids: &'a [u32],
    /// Topic Alias to write.
    pub topic_alias: Option<u16>,
    /// Application Message.
    pub payload: &'a [u8],
}

/// Length of the PUBLISH in bytes, to compare with the receiver's Maximum Packet Size (`[MQTT-3.1.2-24]`).
#[must_use]
pub fn publish_len(version: Version, qos: QoS, header: &PublishHeader<'_>) -> usize {
    let lengths = Lengths::of(version, qos != QoS::AtMostOnce, header);
    1 + len_of_len(lengths.remaining) + lengths.remaining
}

/// DUP, QoS and RETAIN in the first byte.
pub(crate) const fn flags(qos: QoS, retain: bool, dup: bool) -> u8 {
    (dup as u8) << 3 | (qos as u8) << 1 | retain as u8
}

/// Appends a PUBLISH; returns where in the packet its identifier stands, 0 if it has none.
pub(crate) fn write(
    flags: u8,
    version: Version,
    packet_id: Option<u16>,
    header: &PublishHeader<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, EncodeError> {
    check(header)?;
    let lengths = Lengths::of(version, packet_id.is_some(), header);
    let remaining = u32::try_from(lengths.remaining).map_err(|_| EncodeError::PacketTooLong)?;
    if remaining > wire::VARINT_MAX {
        return Err(EncodeError::PacketTooLong);
    }
    let start = out.len();
    out.reserve(5 + lengths.remaining);
    out.push(PacketType::Publish.as_u8() << 4 | flags);
    wire::put_varint(remaining, out);
    wire::put_bytes(header.topic.as_bytes(), out)?;
    let packet_id_at = packet_id.map_or(0, |_| out.len() - start);
    if let Some(packet_id) = packet_id {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        // Within `remaining`, which fits.
        wire::put_varint(lengths.properties as u32, out);
        put_properties(header, out);
    }
    out.extend_from_slice(header.payload);
    Ok(packet_id_at)
}

fn check(header: &PublishHeader<'_>) -> Result<(), EncodeError> {
    if header.topic.len() > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong);
    }
    let bad_id = |&id: &u32| id == 0 || id > wire::VARINT_MAX;
    if header.topic_alias == Some(0) || header.subscription_ids.iter().any(bad_id) {
        return Err(EncodeError::Properties);
    }
    Ok(())
}

/// The properties of this receiver stand behind those that all receive.
fn put_properties(header: &PublishHeader<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(header.properties);
    if let Some(expiry) = header.expiry {
        out.push(PropertyId::MessageExpiryInterval as u8);
        out.extend_from_slice(&expiry.to_be_bytes());
    }
    if let Some(alias) = header.topic_alias {
        out.push(PropertyId::TopicAlias as u8);
        out.extend_from_slice(&alias.to_be_bytes());
    }
    for &id in header.subscription_ids {
        out.push(PropertyId::SubscriptionIdentifier as u8);
        wire::put_varint(id, out);
    }
}

/// The two lengths inside a PUBLISH.
struct Lengths {
    properties: usize,
    remaining: usize,
}

impl Lengths {
    fn of(version: Version, with_packet_id: bool, header: &PublishHeader<'_>) -> Self {
        let identifiers: usize = header.subscription_ids.iter().map(|&id| 1 + wire::varint_len(id)).sum();
        let expiry = if header.expiry.is_some() { 5 } else { 0 };
        let alias = if header.topic_alias.is_some() { 3 } else { 0 };
        let properties = header.properties.len() + expiry + alias + identifiers;
        let packet_id = if with_packet_id { 2 } else { 0 };
        let with_length = if version == Version::V5 { len_of_len(properties) + properties } else { 0 };
        let remaining = 2 + header.topic.len() + packet_id + with_length + header.payload.len();
        Self { properties, remaining }
    }
}

fn len_of_len(len: usize) -> usize {
    wire::varint_len(u32::try_from(len).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
