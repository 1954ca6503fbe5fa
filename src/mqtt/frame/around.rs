//! PUBLISH packets that are written around their payloads: to one Topic Name, with RETAIN 0 and no properties. Identifier
//! and DUP are set when one is sent.

use crate::mqtt::frame;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::QoS;
use crate::mqtt::wire;
use crate::mqtt::wire::Varint;

/// The longest packet there is (section 1.5.5).
pub(crate) const PACKET_BYTES_MAX: usize = 5 + wire::VARINT_MAX as usize;
/// What the Remaining Length takes of nearly every packet: one of 128 to 16,383 bytes.
const LENGTH_BYTES: usize = 2;
/// DUP in the first byte.
const DUP: u8 = frame::flags(QoS::AtMostOnce, false, true);

/// Everything in front of the payload of a packet of MQTT 5.0, at QoS 0 and at QoS 1.
#[derive(Debug)]
pub(crate) struct Heads {
    at_most_once: Box<[u8]>,
    at_least_once: Box<[u8]>,
    topic_bytes: usize,
}

impl Heads {
    /// Of packets with this Topic Name.
    pub(crate) fn new(topic: &str) -> Self {
        let head = |qos: QoS, packet_id: &[u8]| {
            let first = PacketType::Publish.as_u8() << 4 | frame::flags(qos, false, false);
            let mut head = vec![first, 0, 0];
            wire::put_bytes(topic.as_bytes(), &mut head).expect("a Topic Name is no longer than a string");
            head.extend_from_slice(packet_id);
            head.push(0); // no properties
            head.into()
        };
        Self {
            at_most_once: head(QoS::AtMostOnce, &[]),
            at_least_once: head(QoS::AtLeastOnce, &[0, 0]),
            topic_bytes: topic.len(),
        }
    }

    /// The beginning of a packet, which [`Self::append`] completes.
    pub(crate) fn of(&self, acknowledged: bool) -> &[u8] {
        if acknowledged { &self.at_least_once } else { &self.at_most_once }
    }

    /// Appends the packet that `encode` appends: its beginning, and any payload. One above [`PACKET_BYTES_MAX`] is none,
    /// and must not be sent.
    #[inline]
    pub(crate) fn append(&self, out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        encode(out);
        let remaining = out.len().saturating_sub(start + 1 + LENGTH_BYTES);
        match out.get_mut(start + 1..=start + LENGTH_BYTES) {
            Some([low, high]) if (0x80..0x4000).contains(&remaining) => {
                (*low, *high) = (remaining as u8 | 0x80, (remaining >> 7) as u8);
            }
            _ => set_length(out, start, remaining),
        }
    }

    /// Readies a packet of QoS 1 for its way.
    #[inline]
    pub(crate) fn mark(&self, packet: &mut [u8], packet_id: PacketId, dup: bool) {
        let at = 1 + length_bytes(packet) + 2 + self.topic_bytes;
        if let Some(place) = packet.get_mut(at..at + 2) {
            place.copy_from_slice(&packet_id.get().to_be_bytes());
        }
        if let Some(first) = packet.first_mut().filter(|_| dup) {
            *first |= DUP;
        }
    }

    /// Whether this is a whole packet of QoS 1 to this Topic Name, as [`Self::append`] completes it; [`Self::mark`] may have
    /// readied it.
    pub(crate) fn fits(&self, packet: &[u8]) -> bool {
        let Some((first, rest)) = packet.split_first() else { return false };
        let Ok(Varint::Complete(remaining, length_bytes)) = wire::varint(rest) else { return false };
        let (body, topic_end) = (&rest[length_bytes..], 2 + self.topic_bytes);
        let head = &self.at_least_once;
        first & !DUP == head[0]
            && body.len() == remaining as usize
            && body.get(..topic_end) == head.get(1 + LENGTH_BYTES..1 + LENGTH_BYTES + topic_end)
            && body.get(topic_end + 2) == Some(&0)
    }

    /// Where the payload of a packet begins.
    pub(crate) fn payload_at(&self, packet: &[u8], acknowledged: bool) -> usize {
        self.of(acknowledged).len() - LENGTH_BYTES + length_bytes(packet)
    }
}

/// What the Remaining Length of a packet takes.
fn length_bytes(packet: &[u8]) -> usize {
    1 + packet.iter().skip(1).take(3).take_while(|byte| **byte >= 0x80).count()
}

/// Writes the Remaining Length of the packet at `start`, which takes more room or less than usual.
#[cold]
fn set_length(out: &mut Vec<u8>, start: usize, remaining: usize) {
    let remaining = u32::try_from(remaining).unwrap_or(u32::MAX).min(wire::VARINT_MAX);
    let mut length = Vec::with_capacity(4);
    wire::put_varint(remaining, &mut length);
    out.splice(start + 1..=start + LENGTH_BYTES, length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::decode::DecodeLimits;
    use crate::mqtt::decode::Decoded;
    use crate::mqtt::decode::decode;
    use crate::mqtt::packet::Packet;
    use crate::mqtt::packet::Publish;
    use crate::mqtt::packet::Version;
    use crate::mqtt::property::Properties;

    #[test]
    fn a_payload_of_any_length_stands_in_a_packet_that_is_one() {
        let heads = Heads::new("a/topic");
        let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: u32::MAX };
        let lengths = [0, 1, 50, 115, 116, 117, 118, 127, 128, 16_000, 16_371, 16_372, 16_373, 2_097_200];
        for length in lengths {
            for (acknowledged, dup) in [(false, false), (true, false), (true, true)] {
                let payload = vec![b'x'; length];
                let mut out = b"before".to_vec();
                heads.append(&mut out, |out| {
                    out.extend_from_slice(heads.of(acknowledged));
                    out.extend_from_slice(&payload);
                });
                let packet = &mut out[6..];
                let packet_id = PacketId::new(7).filter(|_| acknowledged);
                if let Some(id) = packet_id {
                    heads.mark(packet, id, dup);
                }
                assert_eq!(packet[heads.payload_at(packet, acknowledged)..], payload, "{length}");
                assert_eq!(heads.fits(packet), acknowledged, "{length}");
                assert!(!Heads::new("b/topic").fits(packet) && !heads.fits(&packet[..packet.len() - 1]));
                let publish = Publish {
                    dup,
                    qos: if acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce },
                    retain: false,
                    topic: "a/topic",
                    packet_id,
                    properties: Properties::EMPTY,
                    payload: &payload,
                };
                let expected = Decoded::Packet { packet: Packet::Publish(publish), len: packet.len() };
                assert_eq!(decode(packet, &limits), Ok(expected), "{length}");
            }
        }
    }
}
