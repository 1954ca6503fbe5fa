//! What a segment looks like: its name, its header, what closes a group, and sums.
//!
//! A header is there twice, each with a sum, so that no single damage makes a segment unreadable. It keeps its shape in
//! every format, so that a program can tell a format that is newer than itself from damage. All numbers are little-endian.
//!
//! Sums begin with a random number, the salt. Without it a message could hold what looks like a record, and would become
//! one when the record that it is in is damaged and the next is looked for byte by byte.

use crate::storage::group::END;
use crate::storage::group::HEAD_BYTES;

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;
/// Both headers.
pub const HEADER_BYTES: usize = 2 * COPY_BYTES;
/// What closes a group, with length and sum.
pub const END_BYTES: usize = HEAD_BYTES + END_RECORD_BYTES;
/// What a body's record has before the body.
pub const BODY_HEAD_BYTES: usize = HEAD_BYTES + 1 + 8;

const MAGIC: [u8; 8] = *b"tombolo\0";
const COPY_BYTES: usize = 48;
const SUMMED_BYTES: usize = COPY_BYTES - 4;
const END_RECORD_BYTES: usize = 1 + 8 + 4 + 8;

/// The sum over a record.
#[must_use]
pub fn sum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// The name of a segment's file.
#[must_use]
pub fn name_of(segment: u32) -> String {
    format!("{segment:08}.log")
}

/// The number of a segment, from the name of its file.
#[must_use]
pub fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (number > 0 && name_of(number) == name).then_some(number)
}

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The format of its records.
    pub format: u32,
    /// What the sums of its records begin with.
    pub salt: u32,
    /// Its number.
    pub segment: u32,
    /// The sequence number of the last group before it. What older segments have beyond that was never committed.
    pub before: u64,
    /// The largest number of a key or a body before it.
    pub last_number: u64,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    /// Another program wrote it, in this format.
    Newer(u32),
    /// Both copies are damaged.
    Damaged,
}

impl Header {
    /// Both copies.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.before.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.last_number.to_le_bytes());
        let sum = sum(0, &bytes[..SUMMED_BYTES]);
        bytes[SUMMED_BYTES..COPY_BYTES].copy_from_slice(&sum.to_le_bytes());
        bytes.copy_within(..COPY_BYTES, COPY_BYTES);
        bytes
    }

    /// Reads the header of a segment, and whether one of its copies is damaged.
    ///
    /// # Errors
    /// See [`NoHeader`].
    pub fn decode(bytes: &[u8], segment: u32) -> Result<(Self, bool), NoHeader> {
        let Some(both) = bytes.get(..HEADER_BYTES) else { return Err(NoHeader::Damaged) };
        let copies = both.chunks(COPY_BYTES).map(|copy| Self::copy(copy, segment));
        let (mut found, mut intact) = (None, 0);
        for copy in copies.flatten() {
            if copy.format > FORMAT {
                return Err(NoHeader::Newer(copy.format));
            }
            intact += 1;
            found = Some(copy);
        }
        found.map(|header| (header, intact < 2)).ok_or(NoHeader::Damaged)
    }

    fn copy(bytes: &[u8], segment: u32) -> Option<Self> {
        let (summed, stored) = bytes.split_at_checked(SUMMED_BYTES)?;
        if summed[..8] != MAGIC || stored != sum(0, summed).to_le_bytes() {
            return None;
        }
        let header = Self {
            format: u32_at(summed, 8)?,
            salt: u32_at(summed, 12)?,
            segment: u32_at(summed, 16)?,
            before: u64_at(summed, 24)?,
            last_number: u64_at(summed, 32)?,
        };
        (header.segment == segment).then_some(header)
    }
}

/// What closes a group: without it nothing of the group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The group's number; they rise by one.
    pub sequence: u64,
    /// How many records it has.
    pub records: u32,
    /// The last group that was on the disk for certain when this one was written. What is damaged in a later one may
    /// never have been there.
    pub synced: u64,
}

impl End {
    /// As a record, with length and sum.
    #[must_use]
    pub fn encode(&self, salt: u32) -> [u8; END_BYTES] {
        let mut bytes = [0; END_BYTES];
        bytes[HEAD_BYTES] = END;
        bytes[HEAD_BYTES + 1..HEAD_BYTES + 9].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[HEAD_BYTES + 9..HEAD_BYTES + 13].copy_from_slice(&self.records.to_le_bytes());
        bytes[HEAD_BYTES + 13..].copy_from_slice(&self.synced.to_le_bytes());
        bytes[..4].copy_from_slice(&(END_RECORD_BYTES as u32).to_le_bytes());
        let sum = sum(salt, &bytes[HEAD_BYTES..]);
        bytes[4..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a record without its head.
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<Self> {
        if record.len() != END_RECORD_BYTES || record[0] != END {
            return None;
        }
        Some(Self { sequence: u64_at(record, 1)?, records: u32_at(record, 9)?, synced: u64_at(record, 13)? })
    }

    /// Whether this was the end of the group before something happened to one byte of it.
    #[must_use]
    pub fn resembles(&self, bytes: &[u8]) -> bool {
        // Behind these it says what was synchronised, which is not known here.
        let known = |bytes: &[u8]| [&bytes[..4], &bytes[HEAD_BYTES..HEAD_BYTES + 13]].concat();
        let different = |bytes: &[u8]| {
            known(bytes).iter().zip(known(&self.encode(0))).filter(|(found, ours)| *found != ours).count()
        };
        bytes.len() == END_BYTES && different(bytes) <= 1
    }
}

/// The number at this place.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { format: FORMAT, salt: 7, segment: 3, before: 9, last_number: 11 };

    #[test]
    fn a_header_survives_any_one_damage() {
        let bytes = HEADER.encode();
        assert_eq!(Header::decode(&bytes, 3), Ok((HEADER, false)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged, 3), Ok((HEADER, true)), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_header_of_this_segment_is_none() {
        assert_eq!(Header::decode(&HEADER.encode(), 4), Err(NoHeader::Damaged), "another segment's");
        assert_eq!(Header::decode(&[0; HEADER_BYTES], 3), Err(NoHeader::Damaged));
        assert_eq!(
            Header::decode(&HEADER.encode()[..HEADER_BYTES - 1], 3),
            Err(NoHeader::Damaged),
            "cut off"
        );
        let newer = Header { format: FORMAT + 1, ..HEADER };
        assert_eq!(Header::decode(&newer.encode(), 3), Err(NoHeader::Newer(FORMAT + 1)));
    }

    #[test]
    fn names_and_numbers_of_segments_belong_together() {
        for number in [1, 99_999_999, u32::MAX] {
            assert_eq!(number_of(&name_of(number)), Some(number));
        }
        for name in ["00000000.log", "1.log", "+0000001.log", "00000001.log.1", "damaged", "x.log", ""] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn an_end_is_read_as_it_was_written() {
        let end = End { sequence: u64::MAX, records: 5, synced: 6 };
        let bytes = end.encode(1);
        assert_eq!(End::decode(&bytes[HEAD_BYTES..]), Some(end));
        assert_eq!(u32_at(&bytes, 4), Some(sum(1, &bytes[HEAD_BYTES..])));
        assert_ne!(bytes, end.encode(2), "another salt, another sum");
        assert_eq!(End::decode(&bytes[HEAD_BYTES + 1..]), None);
        for at in 0..END_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0xFF;
            assert!(end.resembles(&damaged), "{at}");
        }
        assert!(!End { records: 6, sequence: 1, ..end }.resembles(&bytes) && !end.resembles(&bytes[1..]));
    }
}
