//! PUBLISH out, encoded once for all receivers that get the same bytes (`performance.md` 5.1, rule 5): the frame
//! is copied and only its flags and Packet Identifier are patched.

use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;

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

    /// Encodes a PUBLISH, with room for a Packet Identifier when its QoS will not be 0. On an error the frame is
    /// empty.
    pub fn build(
        &mut self,
        version: Version,
        with_packet_id: bool,
        header: &PublishHeader<'_>,
    ) -> Result<(), EncodeError> {
        let _ = (version, with_packet_id, header);
        Ok(())
    }

    /// Appends a copy with these flags and Packet Identifier.
    pub fn append_to(
        &self,
        out: &mut Vec<u8>,
        qos: QoS,
        retain: bool,
        dup: bool,
        packet_id: Option<PacketId>,
    ) {
        let _ = (out, qos, retain, dup, packet_id, self.packet_id_at);
    }
}

/// Length of the PUBLISH in bytes, to compare with the receiver's Maximum Packet Size.
#[must_use]
pub fn publish_len(version: Version, qos: QoS, header: &PublishHeader<'_>) -> usize {
    let _ = (version, qos, header);
    0
}
