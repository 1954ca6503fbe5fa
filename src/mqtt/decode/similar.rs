//! PUBLISH packets that differ from one before in nothing but Packet Identifier and payload: a comparison instead of
//! decoding.

use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::Version;
use crate::mqtt::wire;
use crate::mqtt::wire::Varint;

/// What they have in common: no DUP, no properties.
#[derive(Debug, Clone, Copy)]
pub struct Similar<'a> {
    first: u8,
    /// The Topic Name behind its length.
    topic: &'a [u8],
    with_packet_id: bool,
    is_v5: bool,
}

impl<'a> Similar<'a> {
    /// Those like `publish`, which was decoded from `packet`. `None` if it has DUP or a property, a Topic Alias among them.
    #[must_use]
    pub fn to(packet: &'a [u8], publish: &Publish<'_>, version: Version) -> Option<Self> {
        let (&first, behind) = packet.split_first()?;
        let Ok(Varint::Complete(_, taken)) = wire::varint(behind) else { return None };
        let topic = behind.get(taken..taken + 2 + publish.topic.len())?;
        let is_plain = !publish.dup && publish.properties.is_empty();
        let with_packet_id = publish.packet_id.is_some();
        is_plain.then_some(Self { first, topic, with_packet_id, is_v5: version == Version::V5 })
    }

    /// A whole packet like that at the start of `input`: its Packet Identifier, its payload and its length. `None` stands
    /// for anything else, whatever is wrong with it.
    #[inline]
    #[must_use]
    pub fn decode<'b>(
        &self,
        input: &'b [u8],
        max_packet_size: u32,
    ) -> Option<(Option<PacketId>, &'b [u8], usize)> {
        let (&first, behind) = input.split_first()?;
        if first != self.first {
            return None;
        }
        let (remaining, taken) = match *behind {
            // What is left is in the shortest form by being above 0x7F.
            [low @ 0x80..=0xFF, high @ 1..=0x7F, ..] => (usize::from(low & 0x7F) | usize::from(high) << 7, 2),
            _ => match wire::varint(behind) {
                Ok(Varint::Complete(remaining, taken)) => (remaining as usize, taken),
                _ => return None,
            },
        };
        let len = 1 + taken + remaining;
        if len > max_packet_size as usize {
            return None;
        }
        let body = input.get(1 + taken..len)?;
        let mut rest = body.strip_prefix(self.topic)?;
        let mut packet_id = None;
        if self.with_packet_id {
            let (id, behind) = rest.split_first_chunk()?;
            packet_id = Some(PacketId::new(u16::from_be_bytes(*id))?);
            rest = behind;
        }
        if self.is_v5 {
            rest = rest.strip_prefix(&[0])?;
        }
        Some((packet_id, rest, len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::decode::DecodeLimits;
    use crate::mqtt::decode::Decoded;
    use crate::mqtt::decode::decode;
    use crate::mqtt::encode::encode;
    use crate::mqtt::packet::Packet;
    use crate::mqtt::packet::QoS;
    use crate::mqtt::property::Properties;
    use crate::mqtt::property::PropertiesBuf;
    use crate::mqtt::property::Property;

    fn encoded(publish: &Publish<'_>, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&Packet::Publish(*publish), version, &mut out).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// It takes nothing that the decoder does not take, and gives the same.
        #[test]
        fn what_is_similar_is_what_the_decoder_finds(
            (topic, qos, retain, is_v5) in ("[a-z/]{1,9}", 0..3_u8, any::<bool>(), any::<bool>()),
            (first_id, second_id) in (1..=u16::MAX, 1..=u16::MAX),
            length in prop_oneof![0..200_usize, 16_370..16_390_usize],
            changed in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let version = if is_v5 { Version::V5 } else { Version::V311 };
            let qos = QoS::from_u8(qos).unwrap();
            let id = |id| PacketId::new(id).filter(|_| qos != QoS::AtMostOnce);
            let payload = vec![b'x'; length];
            let publish = Publish {
                dup: false, qos, retain, topic: &topic, packet_id: id(first_id), properties: Properties::EMPTY, payload: b"",
            };
            let first = encoded(&publish, version);
            let similar = Similar::to(&first, &publish, version).unwrap();
            let publish = Publish { packet_id: id(second_id), payload: &payload, ..publish };
            let mut second = encoded(&publish, version);
            prop_assert_eq!(similar.decode(&second, u32::MAX), Some((id(second_id), &*payload, second.len())));
            prop_assert_eq!(similar.decode(&second, second.len() as u32 - 1), None);
            if let Some((index, byte)) = changed {
                *index.get_mut(&mut second) = byte;
            }
            if let Some(index) = cut {
                second.truncate(index.index(second.len()));
            }
            if let Some((packet_id, payload, len)) = similar.decode(&second, u32::MAX) {
                let limits = DecodeLimits { version: Some(version), max_packet_size: u32::MAX };
                let packet = Packet::Publish(Publish { packet_id, payload, ..publish });
                prop_assert_eq!(decode(&second, &limits), Ok(Decoded::Packet { packet, len }));
            }
        }
    }

    #[test]
    fn nothing_is_similar_to_what_is_sent_again_or_has_properties() {
        let mut publish = Publish {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t",
            packet_id: PacketId::new(1),
            properties: Properties::EMPTY,
            payload: b"",
        };
        let packet = encoded(&publish, Version::V5);
        assert!(Similar::to(&packet, &publish, Version::V5).is_none());
        publish.dup = false;
        assert!(Similar::to(&packet, &publish, Version::V5).is_some());
        let mut properties = PropertiesBuf::new();
        properties.push(Property::TopicAlias(3));
        publish.properties = properties.as_properties();
        let packet = encoded(&publish, Version::V5);
        assert!(Similar::to(&packet, &publish, Version::V5).is_none());
    }
}
