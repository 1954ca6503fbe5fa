//! An open-addressing table from hashes to `u32` ids. The keys live where the ids point, so a slot is 8 bytes:
//! the id and 32 bits of its hash, enough to find the home slot again when the table grows or closes a gap.
//! Not a map: it never sees a key, the caller compares.

const EMPTY: Slot = Slot { id: u32::MAX, tag: 0 };
const SLOTS_MIN: usize = 16;

#[derive(Clone, Copy)]
struct Slot {
    id: u32,
    tag: u32,
}

impl Slot {
    fn is_empty(self) -> bool {
        self.id == u32::MAX
    }
}

/// Ids by 32-bit hash (`tag`), with linear probing and deletion by shifting back: no tombstones.
#[derive(Default)]
pub(super) struct IdTable {
    /// Empty, or a power of two.
    slots: Vec<Slot>,
    len: usize,
}

impl IdTable {
    /// The id under `tag` for which `is` holds.
    pub(super) fn find(&self, tag: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.is_empty() {
                return None;
            }
            if slot.tag == tag && is(slot.id) {
                return Some(slot.id);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an id that is not in the table.
    pub(super) fn insert(&mut self, tag: u32, id: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.place(Slot { id, tag });
        self.len += 1;
    }

    /// Takes out an id that was added under `tag`.
    pub(super) fn remove(&mut self, tag: u32, id: u32) {
        if self.slots.is_empty() {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut hole = tag as usize & mask;
        while self.slots[hole].id != id {
            if self.slots[hole].is_empty() {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.close(hole);
        self.len -= 1;
        if self.slots.len() > SLOTS_MIN && self.len * 8 < self.slots.len() {
            self.resize((self.len * 2).next_power_of_two().max(SLOTS_MIN));
        }
    }

    /// Moves back every following slot whose home is not behind the hole.
    fn close(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut next = (hole + 1) & mask;
        while !self.slots[next].is_empty() {
            let home = self.slots[next].tag as usize & mask;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[hole] = EMPTY;
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.tag as usize & mask;
        while !self.slots[at].is_empty() {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in old.into_iter().filter(|slot| !slot.is_empty()) {
            self.place(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Tags from a small range, so that runs overlap and wrap around.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0u32..12, 0u32..40, any::<bool>()), 0..200)) {
            let mut table = IdTable::default();
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (tag, id, add) in steps {
                let tag = tag.wrapping_sub(4);
                match model.get(&id).copied() {
                    Some(tag) if !add => {
                        table.remove(tag, id);
                        model.remove(&id);
                    }
                    None if add => {
                        table.insert(tag, id);
                        model.insert(id, tag);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len, model.len());
                for id in 0..40 {
                    let found = (0..12u32).any(|tag| table.find(tag.wrapping_sub(4), |other| other == id).is_some());
                    prop_assert_eq!(found, model.contains_key(&id));
                }
            }
        }
    }

    #[test]
    fn it_shrinks_when_emptied() {
        let mut table = IdTable::default();
        (0..10_000).for_each(|id| table.insert(id * 7, id));
        (0..10_000).for_each(|id| table.remove(id * 7, id));
        assert_eq!((table.len, table.slots.len()), (0, SLOTS_MIN));
    }
}
