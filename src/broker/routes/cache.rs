//! The targets of Topic Names seen lately, shared by all publishers: bounded, and checked by stamp at each
//! look-up, so that a change needs no search for the entries it concerns (`performance.md` 5.1 rule 6).
//! Small sets under a lock each; within a set a second-chance clock decides who goes. A full set takes a name only
//! when it comes a second time, so that a stream of names seen once costs no allocation and displaces nothing.

use std::hash::BuildHasher;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rapidhash::quality::RandomState;

use crate::broker::routes::Routed;
use crate::broker::routes::generations::Generations;

/// Names that the cache holds at most.
pub const CACHED_NAMES_MAX: usize = 65_536;
/// Longer names are matched anew each time, so that long names cannot fill the memory.
pub const CACHED_NAME_BYTES_MAX: usize = 256;
/// What all cached names and their targets may hold in memory: a wide fan-out makes large lists.
pub const CACHED_BYTES_MAX: usize = 64 << 20;

const WAYS: usize = 8;
const REFUSED: usize = 4;
const SETS: usize = CACHED_NAMES_MAX / WAYS;
/// Sets that one insertion empties at most while the cache is above its bytes.
const SETS_SWEPT_MAX: usize = 8;

struct Way<D> {
    name: Box<str>,
    routed: Routed<D>,
}

impl<D> Way<D> {
    fn bytes(&self) -> usize {
        bytes(&self.name, &self.routed)
    }
}

fn bytes<D>(name: &str, routed: &Routed<D>) -> usize {
    size_of::<Way<D>>() + name.len() + routed.targets.bytes()
}

/// What a look-up reads first lies together: the ways themselves are touched only when a tag fits.
struct Set<D> {
    tags: [u16; WAYS],
    /// Tags of names that a full set did not take, the last few.
    refused: [u16; REFUSED],
    ways: Vec<Way<D>>,
    /// A bit for each way that was looked up since the clock last came by.
    used: u8,
    hand: u8,
    refused_next: u8,
}

impl<D> Set<D> {
    fn new() -> Self {
        Self { tags: [0; WAYS], refused: [0; REFUSED], ways: Vec::new(), used: 0, hand: 0, refused_next: 0 }
    }

    fn find(&self, tag: u16, name: &str) -> Option<usize> {
        (0..self.ways.len()).find(|&at| self.tags[at] == tag && *self.ways[at].name == *name)
    }

    /// Whether this name may be put here. A full set says no the first time and remembers.
    fn admits(&mut self, tag: u16, name: &str) -> bool {
        if self.ways.len() < WAYS || self.refused.contains(&tag) || self.find(tag, name).is_some() {
            return true;
        }
        self.refused[usize::from(self.refused_next)] = tag;
        self.refused_next = (self.refused_next + 1) % REFUSED as u8;
        false
    }

    /// Puts a way in the place of the one of the same name, else in a free place, else where the clock stops.
    /// What was there before.
    fn put(&mut self, tag: u16, way: Way<D>) -> Option<Way<D>> {
        let at = match self.find(tag, &way.name) {
            Some(at) => at,
            None if self.ways.len() < WAYS => {
                self.tags[self.ways.len()] = tag;
                self.ways.push(way);
                return None;
            }
            None => self.victim(),
        };
        self.tags[at] = tag;
        Some(std::mem::replace(&mut self.ways[at], way))
    }

    /// Takes out what is no longer current. The clock begins anew.
    fn take_stale(&mut self, generations: &Generations, stale: &mut Vec<Way<D>>) {
        for at in (0..self.ways.len()).rev() {
            if !generations.is_current(self.ways[at].routed.stamp) {
                stale.push(self.ways.swap_remove(at));
                self.tags[at] = self.tags[self.ways.len()];
                self.used = 0;
            }
        }
    }

    fn victim(&mut self) -> usize {
        loop {
            self.hand = (self.hand + 1) % WAYS as u8;
            let bit = 1 << self.hand;
            if self.used & bit == 0 {
                return usize::from(self.hand);
            }
            self.used &= !bit;
        }
    }
}

pub(super) struct RouteCache<D> {
    hasher: RandomState,
    sets: Box<[Mutex<Set<D>>]>,
    bytes: AtomicUsize,
    /// The next set to empty when the cache is above its bytes.
    sweep: AtomicUsize,
    /// The next set to look through for entries that are no longer current.
    stale: AtomicUsize,
    bytes_max: usize,
}

impl<D> RouteCache<D> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self::bounded(hasher, SETS, CACHED_BYTES_MAX)
    }

    fn bounded(hasher: RandomState, sets: usize, bytes_max: usize) -> Self {
        let sets = (0..sets).map(|_| Mutex::new(Set::new())).collect();
        Self {
            hasher,
            sets,
            bytes: AtomicUsize::new(0),
            sweep: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// The seeded hash of a name, for the other calls.
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    fn set(&self, hash: u64) -> &Mutex<Set<D>> {
        &self.sets[(hash >> 32) as usize % self.sets.len()]
    }

    /// The targets of this name if they are cached and current.
    pub(super) fn look_up(&self, hash: u64, name: &str, generations: &Generations) -> Option<Routed<D>> {
        let mut set = self.set(hash).lock();
        let at = set.find(hash as u16, name)?;
        if !generations.is_current(set.ways[at].routed.stamp) {
            return None;
        }
        set.used |= 1 << at;
        Some(set.ways[at].routed.clone())
    }

    pub(super) fn insert(&self, hash: u64, name: &str, routed: &Routed<D>) {
        let bytes = bytes(name, routed);
        if name.len() > CACHED_NAME_BYTES_MAX || bytes > self.bytes_max {
            return;
        }
        if !self.set(hash).lock().admits(hash as u16, name) {
            return;
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.make_room();
        }
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let way = Way { name: name.into(), routed: routed.clone() };
        let before = self.set(hash).lock().put(hash as u16, way);
        if let Some(before) = before {
            self.bytes.fetch_sub(before.bytes(), Ordering::Relaxed);
        }
    }

    /// Lets go of what is no longer current in the next sets, a share of all of them: it names clients, whose memory would
    /// stay for as long as nobody asks for the same name.
    pub(super) fn drop_stale(&self, generations: &Generations, share: usize) {
        let mut stale = Vec::new();
        for _ in 0..self.sets.len().div_ceil(share) {
            let at = self.stale.fetch_add(1, Ordering::Relaxed) % self.sets.len();
            self.sets[at].lock().take_stale(generations, &mut stale);
        }
        self.bytes.fetch_sub(stale.iter().map(Way::bytes).sum(), Ordering::Relaxed);
    }

    /// Empties sets in turn until there is room again, a few at most.
    fn make_room(&self) {
        for _ in 0..SETS_SWEPT_MAX {
            if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
                return;
            }
            let at = self.sweep.fetch_add(1, Ordering::Relaxed) % self.sets.len();
            let ways = std::mem::take(&mut self.sets[at].lock().ways);
            self.bytes.fetch_sub(ways.iter().map(Way::bytes).sum(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn routed(generations: &Generations, name: &str) -> Routed<u64> {
        Routed { targets: Arc::default(), stamp: generations.stamp(name) }
    }

    fn insert(cache: &RouteCache<u64>, name: &str, generations: &Generations) {
        cache.insert(cache.hash(name), name, &routed(generations, name));
    }

    fn knows(cache: &RouteCache<u64>, name: &str, generations: &Generations) -> bool {
        cache.look_up(cache.hash(name), name, generations).is_some()
    }

    fn cached(cache: &RouteCache<u64>) -> usize {
        cache.sets.iter().map(|set| set.lock().ways.len()).sum()
    }

    fn counted(cache: &RouteCache<u64>) -> usize {
        cache
            .sets
            .iter()
            .flat_map(|set| set.lock().ways.iter().map(|way| way.bytes()).collect::<Vec<_>>())
            .sum()
    }

    /// A look-up reads one set: with its lock it is a cache line.
    #[test]
    fn a_set_is_a_cache_line() {
        assert!(size_of::<Mutex<Set<u64>>>() <= 64);
    }

    #[test]
    fn entries_end_with_their_generation() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 4, 1 << 20);
        insert(&cache, "a/b", &generations);
        assert!(knows(&cache, "a/b", &generations));
        assert!(!knows(&cache, "a/c", &generations));
        generations.bump("a/+");
        assert!(!knows(&cache, "a/b", &generations));
        insert(&cache, "a/b", &generations);
        assert!(knows(&cache, "a/b", &generations));
        assert_eq!(cached(&cache), 1, "the stale entry was replaced");
    }

    #[test]
    fn what_is_no_longer_current_is_let_go() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 4, 1 << 20);
        let names: Vec<String> = (0..20).map(|n| format!("{n}/b")).collect();
        names.iter().for_each(|name| insert(&cache, name, &generations));
        (0..10).for_each(|n| generations.bump(&format!("{n}/+")));
        let current: Vec<bool> = names.iter().map(|name| knows(&cache, name, &generations)).collect();
        assert!(current.contains(&true) && current.contains(&false));
        (0..2).for_each(|_| cache.drop_stale(&generations, 2));
        assert_eq!(cached(&cache), current.iter().filter(|current| **current).count());
        assert_eq!(current, names.iter().map(|name| knows(&cache, name, &generations)).collect::<Vec<_>>());
        assert_eq!(cache.bytes.load(Ordering::Relaxed), counted(&cache));
    }

    #[test]
    fn the_number_of_names_is_bounded_and_used_ones_stay() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 2, 1 << 20);
        insert(&cache, "used", &generations);
        for n in 0..1_000 {
            assert!(knows(&cache, "used", &generations), "after {n}");
            let name = format!("n{n}");
            insert(&cache, &name, &generations);
            insert(&cache, &name, &generations);
        }
        assert_eq!(cached(&cache), 2 * WAYS);
        assert_eq!(cache.bytes.load(Ordering::Relaxed), counted(&cache));
    }

    #[test]
    fn a_full_set_takes_what_comes_again() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 1, 1 << 20);
        for n in 0..WAYS {
            insert(&cache, &format!("n{n}"), &generations);
        }
        for _ in 0..2 {
            assert!(!knows(&cache, "again", &generations));
            insert(&cache, "again", &generations);
        }
        assert!(knows(&cache, "again", &generations));
        assert_eq!(cached(&cache), WAYS);
        generations.bump("again");
        insert(&cache, "again", &generations);
        assert!(knows(&cache, "again", &generations), "a stale entry is replaced at once");
    }

    #[test]
    fn the_bytes_are_bounded() {
        let generations = Generations::new(RandomState::new());
        let cache = RouteCache::bounded(RandomState::new(), 64, 4_096);
        for n in 0..1_000 {
            let name = format!("n{n}");
            insert(&cache, &name, &generations);
            assert!(cache.bytes.load(Ordering::Relaxed) <= 4_096);
            assert_eq!(cache.bytes.load(Ordering::Relaxed), counted(&cache));
        }
        assert!(cached(&cache) > 4);
        let long = "l".repeat(CACHED_NAME_BYTES_MAX + 1);
        insert(&cache, &long, &generations);
        assert!(!knows(&cache, &long, &generations));
    }
}
