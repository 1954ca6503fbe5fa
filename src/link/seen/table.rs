//! A set of message ids that is asked about, added to and taken from once for each message of a link: open addressing
//! without tombstones, which costs less than half of what a general set does.

use std::hash::BuildHasher;

use rapidhash::fast::RandomState;

/// A power of two.
const SLOTS_MIN: usize = 64;

/// See the module. The id 0, which nobody has, is not kept apart from 1.
#[derive(Debug)]
pub(super) struct Table {
    /// 0 where there is none; at least half of them.
    slots: Box<[u128]>,
    len: usize,
    /// Drawn for this table, so that a peer cannot choose ids that meet in one place.
    seed: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self { slots: Box::default(), len: 0, seed: RandomState::default().hash_one(0) }
    }
}

impl Table {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the search for an id begins.
    #[inline]
    fn home(&self, id: u128) -> usize {
        let (high, low) = ((id >> 64) as u64, id as u64);
        let product = u128::from(low ^ self.seed) * u128::from(high ^ self.seed.rotate_left(32));
        ((product >> 64) as u64 ^ product as u64) as usize & self.mask()
    }

    #[inline]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Where the id is, or has its place.
    #[inline]
    fn find(&self, id: u128) -> usize {
        let mut at = self.home(id);
        // One in two is free.
        while let Some(slot) = self.slots.get(at)
            && *slot != 0
            && *slot != id
        {
            at = (at + 1) & self.mask();
        }
        at
    }

    /// Whether it was not there; from here on it is.
    #[inline]
    pub(super) fn insert(&mut self, id: u128) -> bool {
        let id = id.max(1);
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.find(id);
        let slot = &mut self.slots[at];
        let is_new = *slot == 0;
        *slot = id;
        self.len += usize::from(is_new);
        is_new
    }

    #[cold]
    fn grow(&mut self) {
        let slots = vec![0; (self.slots.len() * 2).max(SLOTS_MIN)].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, slots);
        for id in old.into_iter().filter(|id| *id != 0) {
            let at = self.find(id);
            self.slots[at] = id;
        }
    }

    /// Takes it out, if it is there.
    pub(super) fn remove(&mut self, id: u128) {
        if self.slots.is_empty() {
            return;
        }
        let mut gap = self.find(id.max(1));
        if self.slots[gap] == 0 {
            return;
        }
        self.len -= 1;
        // Those behind it that would not be found any more move up.
        let mut at = gap;
        loop {
            at = (at + 1) & self.mask();
            let id = self.slots[at];
            if id == 0 {
                break;
            }
            let way = at.wrapping_sub(self.home(id)) & self.mask();
            if way >= at.wrapping_sub(gap) & self.mask() {
                self.slots[gap] = id;
                gap = at;
            }
        }
        self.slots[gap] = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_the_library_holds(
            steps in prop::collection::vec((any::<bool>(), 1..200_u128), 1..600),
        ) {
            let (mut table, mut set) = (Table::default(), HashSet::new());
            for (add, id) in steps {
                if add {
                    prop_assert_eq!(table.insert(id), set.insert(id));
                } else {
                    table.remove(id);
                    set.remove(&id);
                }
                prop_assert_eq!(table.len(), set.len());
            }
            for id in 1..200 {
                prop_assert_eq!(!table.insert(id), set.contains(&id));
            }
        }
    }
}
