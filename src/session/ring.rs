//! The QoS 1 and 2 deliveries in flight to one client, in the order they were first sent.
//!
//! Packet Identifiers are handed out one after the other, so the slot of an identifier is its distance from
//! the oldest one: acknowledging is an index, not a search, and redelivery walks the ring in order
//! (`[MQTT-4.6.0-1]`).

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::mqtt::packet::PacketId;

const IDS: usize = u16::MAX as usize;

/// Slots by Packet Identifier. At most 65,535 between the oldest and the newest.
#[derive(Debug)]
pub struct Ring<T> {
    slots: VecDeque<Option<T>>,
    /// Identifier of `slots[0]`, or of the next slot when there is none; minus one, so that it starts at 0.
    base: u16,
    used: u16,
}

/// A delivery that has ended.
#[derive(Debug)]
pub struct Ended<T> {
    /// What was kept for it.
    pub value: T,
    /// The slot it had, oldest first.
    pub slot: usize,
    /// Slots that are gone with it: its own and freed ones behind, if it was the oldest.
    pub freed: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), base: 0, used: 0 }
    }
}

impl<T> Ring<T> {
    /// How many identifiers are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.used)
    }

    /// Whether no identifier is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether [`Ring::push`] would find a free identifier.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.slots.len() < IDS
    }

    /// The identifier that [`Ring::push`] would take.
    #[must_use]
    pub fn next_id(&self) -> Option<PacketId> {
        self.has_room().then(|| self.id_at(self.slots.len()))
    }

    /// Takes the next Packet Identifier for `value` (`[MQTT-2.2.1-4]`: never one in use), or gives it back
    /// when the oldest delivery is still unacknowledged after 65,535 others.
    pub fn push(&mut self, value: T) -> Result<PacketId, T> {
        let Some(id) = self.next_id() else { return Err(value) };
        self.slots.push_back(Some(value));
        self.used += 1;
        Ok(id)
    }

    /// Takes an identifier that was given out before for `value`, behind all that have one; gives it back when there is no
    /// room up to there. For a ring that goes on from another.
    pub fn push_as(&mut self, id: PacketId, value: T) -> Result<(), T> {
        if self.slots.is_empty() {
            self.base = id.get() - 1;
        }
        let slot = self.index_of(id);
        if slot < self.slots.len() || slot >= IDS {
            return Err(value);
        }
        self.slots.resize_with(slot, || None);
        self.slots.push_back(Some(value));
        self.used += 1;
        Ok(())
    }

    /// The delivery with this identifier.
    #[must_use]
    pub fn find_mut(&mut self, id: PacketId) -> Option<&mut T> {
        let index = self.index_of(id);
        self.slots.get_mut(index)?.as_mut()
    }

    /// Ends the delivery with this identifier and frees it.
    pub fn remove(&mut self, id: PacketId) -> Option<T> {
        self.remove_if(id, |_| true).map(|ended| ended.value)
    }

    /// The same if `ends` says so: one look-up for question and answer. Inlined into each acknowledgement, of which it is most.
    #[inline(always)]
    pub fn remove_if(&mut self, id: PacketId, ends: impl FnOnce(&T) -> bool) -> Option<Ended<T>> {
        let slot = self.index_of(id);
        let found = self.slots.get_mut(slot)?;
        if !ends(found.as_ref()?) {
            return None;
        }
        let value = found.take()?;
        self.used -= 1;
        let mut freed = 0;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            freed += 1;
        }
        self.base = self.base_after(freed);
        Some(Ended { value, slot, freed })
    }

    /// How many slots there are, freed ones between used ones included: the bound of [`Ring::at_mut`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The delivery in a slot, oldest first; `None` if it was freed.
    pub fn at_mut(&mut self, slot: usize) -> Option<(PacketId, &mut T)> {
        let id = self.id_at(slot);
        self.slots.get_mut(slot)?.as_mut().map(|value| (id, value))
    }

    /// Ends every delivery, oldest first; identifiers go on from where they were.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.base = self.base_after(self.slots.len());
        self.used = 0;
        self.slots.drain(..).flatten()
    }

    /// The base of a ring without its first `slots`.
    fn base_after(&self, slots: usize) -> u16 {
        let mut base = usize::from(self.base) + slots;
        if base >= IDS {
            base -= IDS;
        }
        base as u16
    }

    fn id_at(&self, slot: usize) -> PacketId {
        NonZeroU16::new(self.base_after(slot) + 1).expect("1 to 65,535 by construction")
    }

    fn index_of(&self, id: PacketId) -> usize {
        (usize::from(id.get()) - 1 + IDS - usize::from(self.base)) % IDS
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifiers_wrap_and_never_meet_one_in_use() {
        let mut ring = Ring::default();
        let first = ring.push(0).unwrap();
        for n in 1..IDS {
            let id = ring.push(n).unwrap();
            if n != IDS - 1 {
                ring.remove(id);
            }
        }
        assert!(!ring.has_room(), "the oldest is still in use");
        assert_eq!(ring.push(1), Err(1));
        assert_eq!(ring.remove(first), Some(0));
        assert_eq!(ring.len(), 1);
        assert_eq!(ring.push(7).unwrap(), first, "the identifiers wrapped around");
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_map(operations in prop::collection::vec((any::<bool>(), 0usize..40), 1..400)) {
            let mut ring = Ring::default();
            let mut model: BTreeMap<u64, (PacketId, u64)> = BTreeMap::new();
            let mut serial = 0u64;
            for (push, pick) in operations {
                if push {
                    let id = ring.push(serial).unwrap();
                    prop_assert!(model.values().all(|(used, _)| *used != id));
                    model.insert(serial, (id, serial));
                    serial += 1;
                } else if let Some((&key, &(id, value))) = model.iter().nth(pick % (model.len().max(1))) {
                    prop_assert_eq!(ring.remove(id), Some(value));
                    prop_assert_eq!(ring.remove(id), None);
                    model.remove(&key);
                }
                prop_assert_eq!(ring.len(), model.len());
                let order: Vec<u64> = (0..ring.slots()).filter_map(|slot| ring.at_mut(slot).map(|(_, v)| *v)).collect();
                prop_assert_eq!(order, model.keys().copied().collect::<Vec<_>>());
            }
        }
    }
}
