//! Topic levels as numbers: every distinct level text of a trie is held once, counted, and named by a `u32`.
//! Short levels lie inside their entry, so that finding one touches the table and one entry, nothing else.

use std::hash::BuildHasher;
use std::hash::Hasher;

use crate::mqtt::trie::NONE;
use crate::mqtt::trie::index;
use crate::mqtt::trie::table::IdTable;

/// Longest level that needs no allocation of its own.
const SHORT_BYTES_MAX: usize = 22;

enum LevelText {
    Short {
        len: u8,
        bytes: [u8; SHORT_BYTES_MAX],
    },
    Long(Box<str>),
    /// A free entry; the next one.
    Free {
        next: u32,
    },
}

impl LevelText {
    fn new(text: &str) -> Self {
        if text.len() > SHORT_BYTES_MAX {
            return Self::Long(text.into());
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self::Short { len: text.len() as u8, bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
            Self::Free { .. } => &[],
        }
    }
}

struct Entry {
    text: LevelText,
    tag: u32,
    references: u32,
}

/// The levels of one trie.
pub(super) struct Levels<S> {
    hasher: S,
    table: IdTable,
    entries: Vec<Entry>,
    free: u32,
    live: usize,
}

impl<S: BuildHasher> Levels<S> {
    pub(super) fn new(hasher: S) -> Self {
        Self { hasher, table: IdTable::default(), entries: Vec::new(), free: NONE, live: 0 }
    }

    /// Number of distinct levels in use.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// The seeded hash of a pair of ids, for the edges of the trie.
    pub(super) fn pair_tag(&self, one: u32, other: u32) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(u64::from(one) << 32 | u64::from(other));
        hasher.finish() as u32
    }

    fn tag(&self, text: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.finish() as u32
    }

    pub(super) fn find(&self, level: &[u8]) -> Option<u32> {
        self.find_tagged(self.tag(level), level)
    }

    fn find_tagged(&self, tag: u32, level: &[u8]) -> Option<u32> {
        self.table.find(tag, |id| self.entries[id as usize].text.as_bytes() == level)
    }

    /// The id of this level, one reference more.
    pub(super) fn acquire(&mut self, level: &str) -> u32 {
        let tag = self.tag(level.as_bytes());
        if let Some(id) = self.find_tagged(tag, level.as_bytes()) {
            self.entries[id as usize].references += 1;
            return id;
        }
        let entry = Entry { text: LevelText::new(level), tag, references: 1 };
        let id = self.free;
        let id = match self.entries.get_mut(id as usize) {
            Some(slot) => {
                if let LevelText::Free { next } = slot.text {
                    self.free = next;
                }
                *slot = entry;
                id
            }
            None => {
                let id = index(self.entries.len());
                self.entries.push(entry);
                id
            }
        };
        self.table.insert(tag, id);
        self.live += 1;
        id
    }

    /// One reference less; the last one frees the level.
    pub(super) fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        entry.text = LevelText::Free { next: self.free };
        self.table.remove(entry.tag, id);
        self.free = id;
        self.live -= 1;
        if self.live == 0 {
            self.entries = Vec::new();
            self.free = NONE;
        }
    }

    pub(super) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.entries[id as usize].text.as_bytes())
            .expect("every level was stored from a str")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    #[test]
    fn levels_are_shared_counted_and_freed() {
        let mut levels = Levels::new(RandomState::new());
        let long = "l".repeat(SHORT_BYTES_MAX + 1);
        let edge = "e".repeat(SHORT_BYTES_MAX);
        let ids = ["", "a", &edge, &long].map(|text| (levels.acquire(text), text.to_owned()));
        assert_eq!(levels.acquire("a"), ids[1].0);
        for (id, text) in &ids {
            assert_eq!(levels.text(*id), text);
            assert_eq!(levels.find(text.as_bytes()), Some(*id));
        }
        levels.release(ids[1].0);
        assert_eq!(levels.find(b"a"), Some(ids[1].0));
        levels.release(ids[1].0);
        assert_eq!(levels.find(b"a"), None);
        assert_eq!(levels.acquire("b"), ids[1].0, "the freed entry is used again");
        assert_eq!(levels.len(), 4);
    }

    #[test]
    fn an_entry_stays_within_half_a_cache_line() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
