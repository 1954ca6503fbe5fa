//! Generation counters: whether a list of targets found earlier is still right (`performance.md` 5.1 rule 6).
//! A change to a filter touches only the names that begin with the same level, unless the filter begins with a
//! wildcard. So there is one counter per bucket of first levels and one for the filters that begin with one.

use std::hash::BuildHasher;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rapidhash::quality::RandomState;

use crate::mqtt::topic;

const BUCKETS: usize = 256;

/// The moment at which the targets of a Topic Name were right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    bucket: u8,
    level: u64,
    wildcard: u64,
}

pub(super) struct Generations {
    hasher: RandomState,
    levels: Box<[AtomicU64; BUCKETS]>,
    wildcard: AtomicU64,
}

impl Generations {
    pub(super) fn new(hasher: RandomState) -> Self {
        let levels = Box::new([const { AtomicU64::new(0) }; BUCKETS]);
        Self { hasher, levels, wildcard: AtomicU64::new(0) }
    }

    fn bucket(&self, topic: &str) -> u8 {
        self.hasher.hash_one(topic::first_level(topic)) as u8
    }

    /// To be read before matching: a change that comes between is then seen by [`Self::is_current`].
    pub(super) fn stamp(&self, name: &str) -> Stamp {
        let bucket = self.bucket(name);
        let level = self.levels[usize::from(bucket)].load(Ordering::Acquire);
        Stamp { bucket, level, wildcard: self.wildcard.load(Ordering::Acquire) }
    }

    pub(super) fn is_current(&self, stamp: Stamp) -> bool {
        self.levels[usize::from(stamp.bucket)].load(Ordering::Acquire) == stamp.level
            && self.wildcard.load(Ordering::Acquire) == stamp.wildcard
    }

    /// To be called while the table is locked for the change, so that who reads the new counter and then takes
    /// the lock finds the change made.
    pub(super) fn bump(&self, filter: &str) {
        let counter = match topic::first_level(filter) {
            "+" | "#" => &self.wildcard,
            _ => &self.levels[usize::from(self.bucket(filter))],
        };
        counter.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_only_its_own_first_level() {
        let generations = Generations::new(RandomState::new());
        let apart = |other: &String| generations.bucket(other) != generations.bucket("a");
        let other = (0..).map(|n| format!("b{n}")).find(apart).unwrap();
        let (a, b) = (generations.stamp("a/x"), generations.stamp(&other));
        generations.bump("a/+");
        assert!(!generations.is_current(a));
        assert!(generations.is_current(b));
        for filter in ["+/x", "#"] {
            let (a, b) = (generations.stamp("a"), generations.stamp(&other));
            generations.bump(filter);
            assert!(!generations.is_current(a) && !generations.is_current(b));
        }
    }
}
