//! Changes that take effect together, in the bytes in which they are stored.
//!
//! A record is `length: u32`, `crc: u32`, both little-endian, and `length` bytes: a kind and its fields. The sum is over
//! these bytes; it is left 0 here and filled in by whoever writes the group ([`Group::seal`]).

use crate::storage::Change;
use crate::storage::Key;
use crate::storage::Table;

/// Length and sum.
pub const HEAD_BYTES: usize = 8;
/// The first byte of a record: what it is. Part of what is on disk.
pub(super) const BODY: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
/// What closes a group in a log; none of the changes.
pub(super) const END: u8 = 4;
/// The forms of a key.
const NUMBER: u8 = 0;
const NAME: u8 = 1;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Group {
    bytes: Vec<u8>,
    records: usize,
}

impl Group {
    /// Adds a body. Its parts are put together.
    pub fn body(&mut self, number: u64, parts: &[&[u8]]) {
        self.record(BODY, |bytes| {
            bytes.extend_from_slice(&number.to_le_bytes());
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        });
    }

    /// Adds or replaces an entry. `write` appends its value.
    pub fn put(&mut self, table: Table, key: Key<'_>, body: Option<u64>, write: impl FnOnce(&mut Vec<u8>)) {
        self.record(PUT, |bytes| {
            put_key(table, key, bytes);
            bytes.extend_from_slice(&body.unwrap_or(0).to_le_bytes());
            write(bytes);
        });
    }

    /// Removes an entry, if there is one.
    pub fn delete(&mut self, table: Table, key: Key<'_>) {
        self.record(DELETE, |bytes| put_key(table, key, bytes));
    }

    fn record(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEAD_BYTES]);
        self.bytes.push(kind);
        write(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start - HEAD_BYTES).expect("no message has 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.records += 1;
    }

    /// How many changes there are.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The records, one behind the other.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fills in the sums.
    pub fn seal(&mut self, sum: impl Fn(&[u8]) -> u32) {
        let mut rest = &mut self.bytes[..];
        while let Some((head, tail)) = rest.split_first_chunk_mut::<HEAD_BYTES>() {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let (record, next) = tail.split_at_mut(length.min(tail.len()));
            head[4..].copy_from_slice(&sum(record).to_le_bytes());
            rest = next;
        }
    }

    /// The changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.placed().map(|(_, _, change)| change)
    }

    /// The changes with where their records begin, and how long these are.
    pub(super) fn placed(&self) -> impl Iterator<Item = (usize, usize, Change<'_>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (head, tail) = self.bytes[at..].split_first_chunk::<HEAD_BYTES>()?;
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let change = parse(tail.get(..length)?)?;
            let placed = (at, HEAD_BYTES + length, change);
            at += HEAD_BYTES + length;
            Some(placed)
        })
    }

    /// Adds a change that was read elsewhere.
    pub(super) fn add(&mut self, change: Change<'_>) {
        match change {
            Change::Body { number, bytes } => self.body(number, &[bytes]),
            Change::Put { table, key, body, value } => {
                self.put(table, key, body, |bytes| bytes.extend_from_slice(value));
            }
            Change::Delete { table, key } => self.delete(table, key),
        }
    }

    /// Gives the records and what closes them as one piece.
    pub(super) fn with_end<T>(&mut self, end: &[u8], give: impl FnOnce(&[u8]) -> T) -> T {
        let length = self.bytes.len();
        self.bytes.extend_from_slice(end);
        let given = give(&self.bytes);
        self.bytes.truncate(length);
        given
    }

    /// Empties it; a large one gives its memory back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1024 * 1024);
        self.records = 0;
    }
}

/// Reads a record without its head; `None` for what is none of ours.
#[must_use]
pub fn parse(record: &[u8]) -> Option<Change<'_>> {
    let (kind, rest) = record.split_first()?;
    match *kind {
        BODY => {
            let (number, bytes) = take_u64(rest)?;
            Some(Change::Body { number, bytes })
        }
        PUT => {
            let (table, key, rest) = take_key(rest)?;
            let (body, value) = take_u64(rest)?;
            Some(Change::Put { table, key, body: (body != 0).then_some(body), value })
        }
        DELETE => {
            let (table, key, rest) = take_key(rest)?;
            rest.is_empty().then_some(Change::Delete { table, key })
        }
        _ => None,
    }
}

fn put_key(table: Table, key: Key<'_>, bytes: &mut Vec<u8>) {
    bytes.push(table as u8);
    match key {
        Key::Number(number) => {
            bytes.push(NUMBER);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Key::Name(name) => {
            bytes.push(NAME);
            bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(name);
        }
    }
}

fn take_key(bytes: &[u8]) -> Option<(Table, Key<'_>, &[u8])> {
    let (&[table, form], rest) = bytes.split_first_chunk()?;
    let table = Table::from_u8(table)?;
    match form {
        NUMBER => {
            let (number, rest) = take_u64(rest)?;
            Some((table, Key::Number(number), rest))
        }
        NAME => {
            let (length, rest) = rest.split_first_chunk()?;
            let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((table, Key::Name(name), rest))
        }
        _ => None,
    }
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_were_added() {
        let mut group = Group::default();
        group.body(7, &[b"head", b"payload"]);
        group.put(Table::Owed, Key::Number(8), Some(7), |bytes| bytes.extend_from_slice(b"value"));
        group.put(Table::Retained, Key::Name(b"a/b"), None, |_| ());
        group.delete(Table::Session, Key::Number(u64::MAX));
        let expected = [
            Change::Body { number: 7, bytes: b"headpayload" },
            Change::Put { table: Table::Owed, key: Key::Number(8), body: Some(7), value: b"value" },
            Change::Put { table: Table::Retained, key: Key::Name(b"a/b"), body: None, value: b"" },
            Change::Delete { table: Table::Session, key: Key::Number(u64::MAX) },
        ];
        assert!(group.changes().eq(expected));
        group.seal(|record| record.len() as u32);
        assert!(group.changes().eq(expected), "sums change nothing of it");
        assert_eq!(group.records(), 4);
        group.clear();
        assert!(group.is_empty() && group.changes().next().is_none());
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x01short",
            b"\x02\x63\x00",
            b"\x03\x01\x02",
            b"\x03\x01\x01\xFF\xFF\xFF\xFF",
        ] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
