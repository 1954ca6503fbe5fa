//! A map from numbers that are handed out rising and mostly die in the order of their births.
//!
//! Entries stand sorted in chunks of neighbouring numbers: that takes half of what a hash table does, finds the next one where the last
//! one was, and never moves all of it at once, which would hold up a commit.

use std::collections::BTreeMap;

/// So many numbers share a chunk.
const CHUNK: u64 = 256;

/// See the module.
#[derive(Debug)]
pub struct Numbers<T> {
    chunks: BTreeMap<u64, Vec<(u8, T)>>,
    count: usize,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), count: 0 }
    }
}

impl<T> Numbers<T> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What a number has.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&T> {
        let (chunk, low) = split(number);
        let entries = self.chunks.get(&chunk)?;
        find(entries, low).ok().map(|at| &entries[at].1)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (chunk, low) = split(number);
        let entries = self.chunks.get_mut(&chunk)?;
        find(entries, low).ok().map(|at| &mut entries[at].1)
    }

    /// The same; one that is not there is made.
    pub fn get_or_insert(&mut self, number: u64, new: T) -> &mut T {
        let (chunk, low) = split(number);
        let entries = self.chunks.entry(chunk).or_default();
        let at = find(entries, low).unwrap_or_else(|at| {
            entries.insert(at, (low, new));
            self.count += 1;
            at
        });
        &mut entries[at].1
    }

    /// Gives a number something, and returns what it had.
    pub fn insert(&mut self, number: u64, value: T) -> Option<T> {
        let (chunk, low) = split(number);
        let entries = self.chunks.entry(chunk).or_default();
        match find(entries, low) {
            Ok(at) => Some(std::mem::replace(&mut entries[at].1, value)),
            Err(at) => {
                entries.insert(at, (low, value));
                self.count += 1;
                None
            }
        }
    }

    /// Takes what a number has.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let (chunk, low) = split(number);
        let entries = self.chunks.get_mut(&chunk)?;
        let at = find(entries, low).ok()?;
        let (_, value) = entries.remove(at);
        self.count -= 1;
        if entries.is_empty() {
            self.chunks.remove(&chunk);
        }
        Some(value)
    }

    /// All of them, by number.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.chunks.values().flatten().map(|(_, value)| value)
    }

    /// All of them, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.values_mut().flatten().map(|(_, value)| value)
    }

    /// Takes those for which this holds, and the room that is left over.
    pub fn extract_if(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        self.chunks.retain(|_, entries| {
            taken.extend(entries.extract_if(.., |(_, value)| wanted(value)).map(|(_, value)| value));
            entries.shrink_to_fit();
            !entries.is_empty()
        });
        self.count -= taken.len();
        taken
    }
}

fn split(number: u64) -> (u64, u8) {
    (number / CHUNK, (number % CHUNK) as u8)
}

/// Where a number is, or belongs: mostly at one end.
fn find<T>(entries: &[(u8, T)], low: u8) -> Result<usize, usize> {
    match entries.last() {
        Some((last, _)) if *last < low => Err(entries.len()),
        _ => entries.binary_search_by_key(&low, |(low, _)| *low),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a map.
        #[test]
        fn numbers_are_kept_like_in_any_map(steps in proptest::collection::vec((0..5_u8, 0..600_u64, any::<u16>()), 0..300)) {
            let (mut ours, mut theirs) = (Numbers::default(), BTreeMap::new());
            for (step, number, value) in steps {
                match step {
                    0 => prop_assert_eq!(ours.remove(number), theirs.remove(&number)),
                    1 => prop_assert_eq!(*ours.get_or_insert(number, value), *theirs.entry(number).or_insert(value)),
                    2 => {
                        let taken = ours.extract_if(|other| other % 7 == value % 7);
                        let before = theirs.len();
                        theirs.retain(|_, other| *other % 7 != value % 7);
                        prop_assert_eq!(taken.len(), before - theirs.len());
                    }
                    _ => prop_assert_eq!(ours.insert(number, value), theirs.insert(number, value)),
                }
                prop_assert_eq!(ours.get(number), theirs.get(&number));
                prop_assert_eq!(ours.get_mut(number), theirs.get_mut(&number));
                prop_assert!(ours.values().eq(theirs.values()));
                prop_assert!(ours.values_mut().eq(theirs.values_mut()));
                prop_assert_eq!(ours.count(), theirs.len());
            }
        }
    }
}
