//! PUBLISH out, encoded once for all receivers that get the same bytes (`performance.md` 5.1, rule 5): the frame
//! is copied and only its flags and Packet Identifier are patched.

use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertyId;
use crate::mqtt::wire;

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

/// An encoded PUBLISH with DUP, RETAIN and QoS 0 and, if it has one, Packet Identifier 0.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    bytes: Vec<u8>,
    packet_id_at: usize,
}

impl Frame {
    /// An empty frame.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), packet_id_at: 0 }
    }

    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Whether it holds a packet.
    #[must_use]
    pub const fn is_built(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Length of the packet in bytes; 0 if none was built.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no packet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The packet as it was built.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Encodes a PUBLISH, with room for a Packet Identifier when its QoS will not be 0. Topic and properties are
    /// taken as they are: they come out of a decoded packet. On an error the frame is empty.
    pub fn build(
        &mut self,
        version: Version,
        with_packet_id: bool,
        header: &PublishHeader<'_>,
    ) -> Result<(), EncodeError> {
        self.clear();
        if header.topic.is_empty() && (header.topic_alias.is_none() || version != Version::V5) {
            return Err(EncodeError::TopicName);
        }
        let packet_id = with_packet_id.then_some(0);
        self.packet_id_at = write(0, version, packet_id, header, &mut self.bytes)?;
        Ok(())
    }

    /// Appends a copy with these flags and Packet Identifier. The identifier is there exactly when the frame
    /// was built with room for one, and then `qos` is not 0.
    pub fn append_to(
        &self,
        out: &mut Vec<u8>,
        qos: QoS,
        retain: bool,
        dup: bool,
        packet_id: Option<PacketId>,
    ) {
        debug_assert_eq!(packet_id.is_some(), self.packet_id_at != 0, "a frame is built for its QoS");
        debug_assert_eq!(packet_id.is_some(), qos != QoS::AtMostOnce, "[MQTT-2.2.1-2]");
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let copy = &mut out[start..];
        if let Some(first) = copy.first_mut() {
            *first |= flags(qos, retain, dup);
        }
        let place = copy.get_mut(self.packet_id_at..).and_then(|rest| rest.first_chunk_mut());
        if let (Some(packet_id), Some(place)) = (packet_id, place) {
            *place = packet_id.get().to_be_bytes();
        }
    }
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
