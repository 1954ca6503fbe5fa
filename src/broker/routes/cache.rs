//! The targets of Topic Names seen lately, shared by all publishers: bounded, and checked by stamp at each
//! look-up, so that a change needs no search for the entries it concerns (`performance.md` 5.1 rule 6).
//! Small sets under a lock each; within a set a second-chance clock decides who goes.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rapidhash::quality::RandomState;

use crate::broker::routes::Routed;
use crate::broker::routes::generations::Generations;
use crate::broker::routes::generations::Stamp;
use crate::broker::routes::targets::Targets;

/// Names that the cache holds at most.
pub const CACHED_NAMES_MAX: usize = 65_536;
/// Longer names are matched anew each time, so that long names cannot fill the memory.
pub const CACHED_NAME_BYTES_MAX: usize = 256;
/// What all cached names and their targets may hold in memory: a wide fan-out makes large lists.
pub const CACHED_BYTES_MAX: usize = 64 << 20;

const WAYS: usize = 8;
const SETS: usize = CACHED_NAMES_MAX / WAYS;
/// Sets that one insertion empties at most while the cache is above its bytes.
const SETS_SWEPT_MAX: usize = 8;

struct Way<D> {
    hash: u64,
    name: Box<str>,
    stamp: Stamp,
    targets: Arc<Targets<D>>,
    bytes: usize,
    /// Looked up since the clock last came by.
    used: bool,
}

struct Set<D> {
    ways: Vec<Way<D>>,
    hand: usize,
}

impl<D> Set<D> {
    /// The place for a new entry: that of a stale one, else where the clock stops.
    fn victim(&mut self, generations: &Generations) -> usize {
        if let Some(stale) = self.ways.iter().position(|way| !generations.is_current(way.stamp)) {
            return stale;
        }
        loop {
            self.hand = (self.hand + 1) % self.ways.len();
            let way = &mut self.ways[self.hand];
            if !std::mem::take(&mut way.used) {
                return self.hand;
            }
        }
    }
}

pub(super) struct RouteCache<D> {
    hasher: RandomState,
    sets: Box<[Mutex<Set<D>>]>,
    bytes: AtomicUsize,
    /// The next set to empty when the cache is above its bytes.
    sweep: AtomicUsize,
    bytes_max: usize,
}

impl<D> RouteCache<D> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self::bounded(hasher, SETS, CACHED_BYTES_MAX)
    }

    fn bounded(hasher: RandomState, sets: usize, bytes_max: usize) -> Self {
        let sets = (0..sets).map(|_| Mutex::new(Set { ways: Vec::new(), hand: 0 })).collect();
        Self { hasher, sets, bytes: AtomicUsize::new(0), sweep: AtomicUsize::new(0), bytes_max }
    }

    fn set(&self, hash: u64) -> &Mutex<Set<D>> {
        &self.sets[(hash >> 32) as usize % self.sets.len()]
    }

    /// The targets of this name if they are cached and current.
    pub(super) fn look_up(&self, name: &str, generations: &Generations) -> Option<Routed<D>> {
        let hash = self.hasher.hash_one(name);
        let mut set = self.set(hash).lock();
        let way = set.ways.iter_mut().find(|way| way.hash == hash && *way.name == *name)?;
        if !generations.is_current(way.stamp) {
            return None;
        }
        way.used = true;
        Some(Routed { targets: Arc::clone(&way.targets), stamp: way.stamp })
    }

    pub(super) fn insert(&self, name: &str, routed: &Routed<D>, generations: &Generations) {
        let bytes = size_of::<Way<D>>() + name.len() + routed.targets.bytes();
        if name.len() > CACHED_NAME_BYTES_MAX || bytes > self.bytes_max {
            return;
        }
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.bytes_max {
            self.make_room();
        }
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let hash = self.hasher.hash_one(name);
        let (stamp, targets) = (routed.stamp, Arc::clone(&routed.targets));
        let way = Way { hash, name: name.into(), stamp, targets, bytes, used: false };
        let mut set = self.set(hash).lock();
        let same = set.ways.iter().position(|way| way.hash == hash && *way.name == *name);
        let at = match same {
            Some(at) => at,
            None if set.ways.len() < WAYS => {
                set.ways.push(way);
                return;
            }
            None => set.victim(generations),
        };
        let replaced = std::mem::replace(&mut set.ways[at], way);
        drop(set);
        self.bytes.fetch_sub(replaced.bytes, Ordering::Relaxed);
    }

    /// Empties sets in turn until there is room again, a few at most.
    fn make_room(&self) {
        for _ in 0..SETS_SWEPT_MAX {
            if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
                return;
            }
            let at = self.sweep.fetch_add(1, Ordering::Relaxed) % self.sets.len();
            let ways = std::mem::take(&mut self.sets[at].lock().ways);
            let bytes = ways.iter().map(|way| way.bytes).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(generations: &Generations, name: &str) -> Routed<u64> {
        Routed { targets: Arc::default(), stamp: generations.stamp(name) }
    }

    fn cached(cache: &RouteCache<u64>) -> usize {
        cache.sets.iter().map(|set| set.lock().ways.len()).sum()
    }

    fn counted(cache: &RouteCache<u64>) -> usize {
        cache
            .sets
            .iter()
            .flat_map(|set| set.lock().ways.iter().map(|way| way.bytes).collect::<Vec<_>>())
            .sum()
    }

    #[test]
    fn entries_end_with_their_generation() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 4, 1 << 20);
        cache.insert("a/b", &routed(&generations, "a/b"), &generations);
        assert!(cache.look_up("a/b", &generations).is_some());
        assert!(cache.look_up("a/c", &generations).is_none());
        generations.bump("a/+");
        assert!(cache.look_up("a/b", &generations).is_none());
        cache.insert("a/b", &routed(&generations, "a/b"), &generations);
        assert!(cache.look_up("a/b", &generations).is_some());
        assert_eq!(cached(&cache), 1, "the stale entry was replaced");
    }

    #[test]
    fn the_number_of_names_is_bounded_and_used_ones_stay() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 2, 1 << 20);
        cache.insert("used", &routed(&generations, "used"), &generations);
        for n in 0..1_000 {
            assert!(cache.look_up("used", &generations).is_some(), "after {n}");
            let name = format!("n{n}");
            cache.insert(&name, &routed(&generations, &name), &generations);
        }
        assert_eq!(cached(&cache), 2 * WAYS);
        assert_eq!(cache.bytes.load(Ordering::Relaxed), counted(&cache));
    }

    #[test]
    fn the_bytes_are_bounded() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 64, 4_096);
        for n in 0..1_000 {
            let name = format!("n{n}");
            cache.insert(&name, &routed(&generations, &name), &generations);
            assert!(cache.bytes.load(Ordering::Relaxed) <= 4_096);
            assert_eq!(cache.bytes.load(Ordering::Relaxed), counted(&cache));
        }
        assert!(cached(&cache) > 4);
        let long = "l".repeat(CACHED_NAME_BYTES_MAX + 1);
        cache.insert(&long, &routed(&generations, &long), &generations);
        assert!(cache.look_up(&long, &generations).is_none());
    }
}
