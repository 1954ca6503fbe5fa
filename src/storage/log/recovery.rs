//! Reads all segments and says what is wrong with them. Nothing is changed here.
//!
//! Damage is told from what was never wholly written by what is known to have been on the disk: all segments but the last, and
//! in that the groups that a later one calls synchronised. Behind those, the first group that is not as it was written is
//! the end, and nothing of it counts. Anywhere else only the damaged record is lost.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::storage::Change;
use crate::storage::files::Files;
use crate::storage::files::Handle;
use crate::storage::log::format;
use crate::storage::log::format::End;
use crate::storage::log::format::FORMAT;
use crate::storage::log::format::HEADER_BYTES;
use crate::storage::log::format::Header;
use crate::storage::log::format::NoHeader;
use crate::storage::log::index::Index;
use crate::storage::log::index::Place;
use crate::storage::log::index::Segment;
use crate::storage::log::scan::Found;
use crate::storage::log::scan::Item;
use crate::storage::log::scan::Scan;

/// What is read at once when a whole segment cannot be.
const BLOCK_BYTES: usize = 4096;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is of a later version of this program.
    #[error(
        "{file} has format {format}, and this version reads formats up to {FORMAT}: run the version that wrote it, or a later one"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format.
        format: u32,
    },
    /// The system refuses something.
    #[error("{file}: {source}")]
    Io {
        /// The file, or the folder.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One or more records are not as they were written.
    Record,
    /// One of two copies of the header is damaged, and is not needed.
    HeaderCopy,
    /// There is no header, so nothing of the segment can be read.
    Header,
    /// The disk does not give it back.
    Unreadable,
    /// There is no such file, but an older and a newer one.
    Missing,
    /// The last group was not wholly written, so it never counted.
    TornTail,
    /// As that, but groups follow which may have been committed.
    DamagedTail,
    /// A group that could not be committed here, and was tried again in the next file.
    Refused,
}

impl Damage {
    /// Whether something happened to what was written, rather than that it was not.
    #[must_use]
    pub fn is_damage(self) -> bool {
        !matches!(self, Self::TornTail | Self::Refused)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "damaged record",
            Self::HeaderCopy => "damaged copy of the header; nothing is lost",
            Self::Header => "no header",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing file",
            Self::TornTail => "torn tail: a group that was not wholly written and never counted",
            Self::DamagedTail => "damaged tail: groups that may have counted",
            Self::Refused => "a group that could not be committed here; it never counted",
        })
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What.
    pub damage: Damage,
}

/// All that is known after reading.
#[derive(Debug)]
pub struct Loaded<H> {
    /// Where everything is.
    pub index: Index<H>,
    /// The number of the last group.
    pub sequence: u64,
    /// Records of all kinds that are as they were written.
    pub records: u64,
    /// The last file, and where what counts in it ends, if more may be written to it.
    pub tail: Option<(u32, u64)>,
    /// Where in the last file groups begin that are not known to be on the disk.
    pub doubtful: Option<u64>,
    /// The last number of a file.
    pub last_segment: u32,
    /// Files that had no header yet when the power went, and nothing else.
    pub unborn: Vec<String>,
}

struct Opened<H> {
    number: u32,
    handle: Arc<H>,
    length: u64,
    header: Option<Header>,
}

struct Recovery<'a, H> {
    loaded: Loaded<H>,
    report: &'a mut dyn FnMut(&Finding, &[u8]),
}

/// Reads everything.
///
/// # Errors
/// See [`OpenError`]. Damage is none: it goes to `report`, with the damaged bytes.
pub fn load<F: Files>(
    files: &F,
    report: &mut dyn FnMut(&Finding, &[u8]),
) -> Result<Loaded<F::Handle>, OpenError> {
    let mut opened = open_all(files)?;
    let loaded = Loaded {
        index: Index::loading(),
        sequence: 0,
        records: 0,
        tail: None,
        doubtful: None,
        last_segment: opened.last().map_or(0, |last| last.number),
        unborn: Vec::new(),
    };
    let mut recovery = Recovery { loaded, report };
    while let Some(unborn) = opened.pop_if(|last| last.header.is_none() && last.length <= HEADER_BYTES as u64)
    {
        recovery.loaded.unborn.push(format::name_of(unborn.number));
        recovery.loaded.last_segment = unborn.number - 1;
    }
    let mut bytes = Vec::new();
    for (at, file) in opened.iter().enumerate() {
        let next = opened.get(at + 1);
        read_all(&*file.handle, file.length, &mut bytes, |offset| {
            recovery.find(file.number, offset, BLOCK_BYTES, Damage::Unreadable, &[]);
        });
        recovery.segment(file, &bytes, next);
    }
    recovery.loaded.index.loaded();
    Ok(recovery.loaded)
}

/// Opens every file and reads its header, so that a format that is not known is refused before anything else is done.
fn open_all<F: Files>(files: &F) -> Result<Vec<Opened<F::Handle>>, OpenError> {
    let folder = |source| OpenError::Io { file: "the folder of the store".to_owned(), source };
    let mut numbers: Vec<u32> =
        files.list().map_err(folder)?.iter().filter_map(|name| format::number_of(name)).collect();
    numbers.sort_unstable();
    let mut opened = Vec::with_capacity(numbers.len());
    for number in numbers {
        let failed = |source| OpenError::Io { file: format::name_of(number), source };
        let handle = files.open(&format::name_of(number)).map_err(failed)?;
        let length = handle.length().map_err(failed)?;
        let mut bytes = Vec::new();
        read_all(&handle, length.min(HEADER_BYTES as u64), &mut bytes, |_| ());
        let header = match Header::decode(&bytes, number) {
            Ok((header, _)) => Some(header),
            Err(NoHeader::Newer(format)) => {
                return Err(OpenError::Newer { file: format::name_of(number), format });
            }
            Err(NoHeader::Damaged) => None,
        };
        opened.push(Opened { number, handle: Arc::new(handle), length, header });
    }
    Ok(opened)
}

/// Reads a file; what the disk does not give back is zeros, and told by its place.
fn read_all<H: Handle>(handle: &H, length: u64, bytes: &mut Vec<u8>, mut unreadable: impl FnMut(usize)) {
    bytes.clear();
    bytes.resize(length as usize, 0);
    if handle.read_exact_at(bytes, 0).is_ok() {
        return;
    }
    for (at, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        let offset = at * BLOCK_BYTES;
        if handle.read_exact_at(block, offset as u64).is_err() {
            block.fill(0);
            unreadable(offset);
        }
    }
}

/// What is read of a group until it ends.
struct Gathered<'a> {
    start: usize,
    records: Vec<(Place, Change<'a>)>,
    damaged: Vec<(usize, usize)>,
    /// Records behind the last damage.
    since: usize,
}

impl<'a> Gathered<'a> {
    fn new(start: usize) -> Self {
        Self { start, records: Vec::new(), damaged: Vec::new(), since: 0 }
    }

    fn restart(&mut self, start: usize) {
        self.start = start;
        self.records.clear();
        self.damaged.clear();
        self.since = 0;
    }

    fn add(&mut self, place: Place, change: Change<'a>) {
        self.records.push((place, change));
        self.since += 1;
    }

    fn damage(&mut self, offset: usize, length: usize) {
        self.damaged.push((offset, length));
        self.since = 0;
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.damaged.is_empty()
    }

    /// The last group that is not as it was written; the damage may have taken the end of the one before.
    fn broken(&self, end: &End) -> u64 {
        match (self.damaged.is_empty(), end.records as usize) {
            (true, records) if records == self.records.len() => 0,
            (false, records) if records <= self.since => end.sequence - 1,
            _ => end.sequence,
        }
    }
}

impl<H: Handle> Recovery<'_, H> {
    fn segment(&mut self, file: &Opened<H>, bytes: &[u8], next: Option<&Opened<H>>) {
        let segment = Segment {
            handle: Arc::clone(&file.handle),
            salt: file.header.map_or(0, |header| header.salt),
            bytes: file.length,
            live_bytes: 0,
        };
        self.loaded.index.add_segment(file.number, segment);
        let end = self.contents(file, bytes, next.map(|next| next.header));
        match next {
            None => {
                let writable = file.header.is_some_and(|header| header.format == FORMAT);
                self.loaded.tail = writable.then_some((file.number, end as u64));
            }
            Some(next) if next.number > file.number + 1 => {
                for missing in file.number + 1..next.number {
                    self.find(missing, 0, 0, Damage::Missing, &[]);
                }
            }
            Some(_) => {}
        }
    }

    /// Gives where what counts ends. `next` is the header of the next file, and `None` in the last one.
    fn contents(&mut self, file: &Opened<H>, bytes: &[u8], next: Option<Option<Header>>) -> usize {
        let Some(header) = file.header else {
            self.find(file.number, 0, bytes.len(), Damage::Header, bytes);
            return bytes.len();
        };
        if Header::decode(bytes, file.number).is_ok_and(|(_, damaged)| damaged) {
            self.find(file.number, 0, HEADER_BYTES, Damage::HeaderCopy, &bytes[..HEADER_BYTES]);
        }
        self.loaded.sequence = self.loaded.sequence.max(header.before);
        self.loaded.index.note(header.last_number);
        let committed = next.flatten().map_or(u64::MAX, |next| next.before);
        let synced = if next.is_none() { synced(bytes, &header) } else { u64::MAX };
        let mut group = Gathered::new(HEADER_BYTES);
        for Found { offset, length, item } in Scan::new(bytes, header.salt, HEADER_BYTES) {
            match item {
                Item::Change(change) => {
                    let place = Place { segment: file.number, offset: offset as u32, length: length as u32 };
                    group.add(place, change);
                }
                Item::Damaged => group.damage(offset, length),
                Item::End(end) => {
                    if group.broken(&end) > synced {
                        return self.cut(file, bytes, group.start, Damage::DamagedTail);
                    }
                    if end.sequence > synced {
                        self.loaded.doubtful.get_or_insert(group.start as u64);
                    }
                    self.take(file, bytes, &group, end.sequence, committed);
                    group.restart(offset + length);
                }
            }
        }
        match next {
            _ if group.is_empty() => {}
            None => return self.cut(file, bytes, group.start, Damage::TornTail),
            Some(_) if self.loaded.sequence >= committed => {
                self.cut(file, bytes, group.start, Damage::Refused);
            }
            Some(_) => self.unended(file, bytes, &group),
        }
        group.start
    }

    /// The last group of a segment that others follow. It was there as a whole; if it is only its end that is damaged, it is
    /// still. If not, the disk lost the rest of the file.
    fn unended(&mut self, file: &Opened<H>, bytes: &[u8], group: &Gathered<'_>) {
        let sequence = self.loaded.sequence + 1;
        let end = End { sequence, records: group.records.len() as u32, synced: 0 };
        match group.damaged[..] {
            [(offset, length)] if end.resembles(&bytes[offset..offset + length]) => {
                self.take(file, bytes, group, sequence, u64::MAX);
            }
            _ => {
                self.cut(file, bytes, group.start, Damage::DamagedTail);
            }
        }
    }

    /// Makes a group take effect. One that did not count here, or is here for the second time, does not.
    fn take(&mut self, file: &Opened<H>, bytes: &[u8], group: &Gathered<'_>, sequence: u64, committed: u64) {
        if sequence > committed || sequence <= self.loaded.sequence {
            return;
        }
        self.loaded.sequence = sequence;
        self.loaded.records += group.records.len() as u64;
        for (place, change) in &group.records {
            self.loaded.index.apply(*change, *place);
        }
        for (offset, length) in &group.damaged {
            self.find(file.number, *offset, *length, Damage::Record, &bytes[*offset..*offset + *length]);
        }
    }

    fn cut(&mut self, file: &Opened<H>, bytes: &[u8], start: usize, damage: Damage) -> usize {
        self.find(file.number, start, bytes.len() - start, damage, &bytes[start..]);
        start
    }

    fn find(&mut self, segment: u32, offset: usize, length: usize, damage: Damage, bytes: &[u8]) {
        let file = format::name_of(segment);
        let finding = Finding { file, offset: offset as u64, bytes: length as u64, damage };
        (self.report)(&finding, bytes);
    }
}

/// The last group that was on the disk for certain.
fn synced(bytes: &[u8], header: &Header) -> u64 {
    let ends = Scan::new(bytes, header.salt, HEADER_BYTES).filter_map(|found| match found.item {
        Item::End(end) => Some(end.synced),
        Item::Change(_) | Item::Damaged => None,
    });
    ends.fold(header.before, u64::max)
}
