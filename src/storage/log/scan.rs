//! The records of a segment, one after the other, and past what is damaged.

use crate::storage::Change;
use crate::storage::group;
use crate::storage::group::HEAD_BYTES;
use crate::storage::log::format;
use crate::storage::log::format::End;

/// How many bytes are summed at most, by segment, to find out where records go on behind damage. Then only the ends of groups
/// are looked for: those are short.
const SUMMED_MAX: usize = 512 * 1024 * 1024;

/// What is found.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A change.
    Change(Change<'a>),
    /// What closes a group.
    End(End),
    /// What is none of these, up to the next that is, or to the end.
    Damaged,
}

/// What is found, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Where it begins.
    pub offset: usize,
    /// How many bytes it has, length and sum included.
    pub length: usize,
    /// What it is.
    pub item: Item<'a>,
}

/// See the module.
#[derive(Debug)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    salt: u32,
    at: usize,
    may_sum: usize,
}

impl<'a> Scan<'a> {
    /// Begins at `at`.
    #[must_use]
    pub fn new(bytes: &'a [u8], salt: u32, at: usize) -> Self {
        Self { bytes, salt, at, may_sum: SUMMED_MAX }
    }

    /// What is at this place. A length of nothing is none: zeros are no record.
    fn item_at(&self, at: usize) -> Option<Found<'a>> {
        let (record, item) = self.looks_like(at)?;
        let intact = format::sum(self.salt, record) == format::u32_at(self.bytes, at + 4)?;
        intact.then_some(Found { offset: at, length: HEAD_BYTES + record.len(), item })
    }

    fn looks_like(&self, at: usize) -> Option<(&'a [u8], Item<'a>)> {
        let length = format::u32_at(self.bytes, at)? as usize;
        let record = self.bytes.get(at + HEAD_BYTES..)?.get(..length)?;
        let item = match End::decode(record) {
            Some(end) => Item::End(end),
            None => Item::Change(group::parse(record)?),
        };
        Some((record, item))
    }

    /// Where records go on. Whatever the damaged one says of its length is not believed.
    fn resume(&mut self, from: usize) -> usize {
        for at in from..self.bytes.len() {
            let Some((record, item)) = self.looks_like(at) else { continue };
            if !matches!(item, Item::End(_)) {
                let Some(left) = self.may_sum.checked_sub(record.len()) else { continue };
                self.may_sum = left;
            }
            if self.item_at(at).is_some() {
                return at;
            }
        }
        self.bytes.len()
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    /// The next; `None` at the end, and where there are zeros up to it.
    fn next(&mut self) -> Option<Found<'a>> {
        let offset = self.at;
        if let Some(found) = self.item_at(offset) {
            self.at += found.length;
            return Some(found);
        }
        if self.bytes[offset..].iter().all(|byte| *byte == 0) {
            return None;
        }
        self.at = self.resume(offset + 1);
        Some(Found { offset, length: self.at - offset, item: Item::Damaged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Key;
    use crate::storage::Table;
    use crate::storage::group::Group;

    const SALT: u32 = 5;

    fn written(salt: u32, values: &[&[u8]]) -> Vec<u8> {
        let mut group = Group::default();
        for (number, value) in (1..).zip(values) {
            group.put(Table::Ban, Key::Number(number), None, |bytes| bytes.extend_from_slice(value));
        }
        group.seal(|record| format::sum(salt, record));
        let end = End { sequence: 1, records: values.len() as u32, synced: 0 };
        group.with_end(&end.encode(salt), <[u8]>::to_vec)
    }

    /// Keys of entries, 0 for the end, and how many bytes are damaged.
    fn seen(bytes: &[u8]) -> (Vec<u64>, usize) {
        let (mut keys, mut damaged) = (Vec::new(), 0);
        for found in Scan::new(bytes, SALT, 0) {
            match found.item {
                Item::Change(Change::Put { key: Key::Number(number), .. }) => keys.push(number),
                Item::Change(other) => panic!("{other:?}"),
                Item::End(_) => keys.push(0),
                Item::Damaged => damaged += found.length,
            }
        }
        (keys, damaged)
    }

    #[test]
    fn no_flipped_bit_costs_more_than_the_record_that_it_is_in() {
        let bytes = written(SALT, &[b"one", b"two", b"", &[0; 40], b"five"]);
        assert_eq!(seen(&bytes), (vec![1, 2, 3, 4, 5, 0], 0));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (keys, lost) = seen(&damaged);
            assert!(
                keys.len() == 5 && keys.is_sorted_by_key(|key| key.wrapping_sub(1)),
                "bit {bit}: {keys:?}"
            );
            assert!(lost > 0, "bit {bit}");
        }
    }

    #[test]
    fn zeros_up_to_the_end_are_the_end() {
        let mut bytes = written(SALT, &[b"one"]);
        bytes.extend([0; 5_000]);
        assert_eq!(seen(&bytes), (vec![1, 0], 0));
        bytes.push(1);
        assert_eq!(seen(&bytes), (vec![1, 0], 5_001));
    }

    #[test]
    fn a_message_that_looks_like_a_record_does_not_become_one() {
        let forged = written(0, &[b"forged"]);
        let mut bytes = written(SALT, &[&forged, b"two"]);
        bytes[0] ^= 1;
        assert_eq!(seen(&bytes).0, [2, 0]);
    }
}
