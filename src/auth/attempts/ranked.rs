//! A map of bounded size. What is full forgets its lowest rank first, and finds it without looking at the others: to
//! forget whatever comes to hand would let an attacker choose what is forgotten.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::hash::Hash;

/// A map of at most so many entries.
#[derive(Debug)]
pub(super) struct Ranked<K, V> {
    entries: HashMap<K, V>,
    order: BTreeSet<(u64, K)>,
    most: usize,
    rank: fn(&V) -> u64,
}

impl<K: Copy + Eq + Hash + Ord, V: Default> Ranked<K, V> {
    pub(super) fn new(most: usize, rank: fn(&V) -> u64) -> Self {
        Self { entries: HashMap::new(), order: BTreeSet::new(), most, rank }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    /// Changes the entry of `key`, which is made if there is none. How many others were forgotten for it.
    pub(super) fn update(&mut self, key: K, change: impl FnOnce(&mut V)) -> u64 {
        let mut forgotten = 0;
        if let Some(value) = self.entries.get(&key) {
            self.order.remove(&((self.rank)(value), key));
        } else if self.entries.len() >= self.most
            && let Some((_, lowest)) = self.order.pop_first()
        {
            self.entries.remove(&lowest);
            forgotten = 1;
        }
        let value = self.entries.entry(key).or_default();
        change(value);
        self.order.insert(((self.rank)(value), key));
        forgotten
    }

    /// Changes the entry of `key` if there is one, and removes it if that says so.
    pub(super) fn settle(&mut self, key: K, change: impl FnOnce(&mut V) -> bool) {
        let Some(value) = self.entries.get_mut(&key) else { return };
        self.order.remove(&((self.rank)(value), key));
        if change(value) {
            self.entries.remove(&key);
        } else {
            self.order.insert(((self.rank)(value), key));
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> bool {
        let removed = self.entries.remove(key);
        removed.is_some_and(|value| self.order.remove(&((self.rank)(&value), *key)))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        let (order, rank) = (&mut self.order, self.rank);
        self.entries.retain(|key, value| {
            let kept = keep(key, value);
            if !kept {
                order.remove(&(rank(value), *key));
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_ranks_are_what_is_kept(writes in prop::collection::vec((0u8..20, 0u64..50), 0..200)) {
            let mut map = Ranked::<u8, u64>::new(5, |rank| *rank);
            for (key, rank) in writes {
                let lowest = map.values().min().copied();
                let (had, full) = (map.contains(&key), map.len() == 5);
                let forgotten = map.update(key, |value| *value = rank);
                prop_assert_eq!(forgotten, u64::from(full && !had));
                if forgotten == 1 {
                    let below = map.entries.iter().filter(|(other, _)| **other != key);
                    prop_assert!(below.map(|(_, rank)| *rank).min() >= lowest);
                }
                prop_assert!(map.len() <= 5 && map.order.len() == map.len());
            }
            map.retain(|key, _| key % 2 == 0);
            map.settle(2, |rank| { *rank += 1; *rank > 25 });
            map.remove(&4);
            let all: BTreeSet<(u64, u8)> = map.entries.iter().map(|(key, rank)| (*rank, *key)).collect();
            prop_assert_eq!(all, map.order);
        }
    }
}
