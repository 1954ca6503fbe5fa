//! The messages of a peer that are like the one before: they join its run by what differs alone.

use crate::broker::gathering::Gathering;
use crate::broker::packets::Turn;
use crate::link::alike::Likeness;
use crate::link::message::Forwarded;
use crate::mqtt::decode::Similar;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;

/// What the likes of a message, which waits in the run, look like.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Likes<'a> {
    packet: Similar<'a>,
    message: Likeness<'a>,
}

/// One of them, by what it has to itself.
#[derive(Debug)]
pub(in crate::broker) struct Alike<'a> {
    /// Length of the packet.
    pub(in crate::broker) len: usize,
    packet_id: Option<PacketId>,
    /// Length of the whole message, which is the payload of the packet.
    message_len: usize,
    id: [u8; 16],
    payload: &'a [u8],
}

impl<'a> Gathering<'a> {
    /// The packet at the start of `input`, if it brings a message like the last one of the run.
    #[inline]
    pub(in crate::broker) fn alike(&self, input: &'a [u8], max_packet_size: u32) -> Option<Alike<'a>> {
        let likes = self.likes.as_ref().filter(|_| !self.is_full())?;
        let (packet_id, message, len) = likes.packet.decode(input, max_packet_size)?;
        let (id, payload) = likes.message.find(message)?;
        Some(Alike { len, packet_id, message_len: message.len(), id, payload })
    }
}

impl<'a> Turn<'_, 'a> {
    /// Adds a message like the last one to the run: what link, rules and routes said about that holds for the burst.
    pub(in crate::broker) fn gather_alike(&mut self, alike: &Alike<'a>) {
        let qos = self.gathering.add_alike(alike.payload, alike.packet_id);
        self.received[qos as usize] += 1;
        let Some(ingress) = &mut self.connection.ingress else { return };
        ingress.bytes += alike.message_len as u64;
        if alike.packet_id.is_some() {
            ingress.ids.push(alike.id);
        } else {
            ingress.books.fired += 1;
        }
    }

    /// Notes what the likes of the last message of the run look like.
    pub(super) fn note_likes(&mut self, publish: &Publish<'a>, message: &Forwarded<'a>) {
        let packet = self.burst.get(self.at.clone()).unwrap_or_default();
        let packet = Similar::to(packet, publish, self.connection.version);
        let message = Likeness::of(publish.payload, message);
        self.gathering.likes = packet.zip(message).map(|(packet, message)| Likes { packet, message });
    }
}
