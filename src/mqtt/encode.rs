//! [`Packet`] to bytes. With `decode.rs` the only place that knows the layouts of 3.1, 3.1.1 and 5.0.

use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;

/// Appends `packet` to `out` in the layout of `version`. On an error `out` is as before.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let _ = (packet, version, out);
    Err(EncodeError::Version)
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties.
pub fn encode_ack(
    kind: PacketType,
    version: Version,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    let _ = (kind, version, packet_id, reason, out);
}

/// Appends a PINGRESP.
pub fn encode_ping_resp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.as_u8() << 4, 0]);
}
