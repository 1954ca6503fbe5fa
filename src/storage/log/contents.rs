//! What a log holds, to be read by any number of threads: no lock is held while a file is.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use crate::storage::Change;
use crate::storage::Entry;
use crate::storage::Table;
use crate::storage::Usage;
use crate::storage::files::Files;
use crate::storage::files::Handle;
use crate::storage::group;
use crate::storage::group::HEAD_BYTES;
use crate::storage::log::format;
use crate::storage::log::format::BODY_HEAD_BYTES;
use crate::storage::log::index::Index;
use crate::storage::log::index::Place;

/// What is read at once.
const WINDOW_BYTES: u64 = 1024 * 1024;
/// What is not wanted is read, too, if that is no more than this between two records.
const GAP_BYTES: u64 = 16 * 1024;

/// The files that somebody reads: they stay readable when they are removed meanwhile.
pub type Held<H> = BTreeMap<u32, (Arc<H>, u32)>;

/// See the module.
pub struct Contents<F: Files> {
    /// Where it is.
    pub files: F,
    /// Where everything is in it.
    pub index: RwLock<Index<F::Handle>>,
    /// Records that were damaged.
    pub set_aside: AtomicU64,
}

impl<F: Files> fmt::Debug for Contents<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<F: Files> Contents<F> {
    /// As [`crate::storage::Storage::body`].
    ///
    /// # Errors
    /// As there.
    pub fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let (place, handle, salt) = {
            let index = self.index.read();
            let Some(body) = index.body(number) else { return Ok(None) };
            let Some(segment) = index.segments().get(&body.place.segment) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("body {number} is damaged")));
            };
            (body.place, Arc::clone(&segment.handle), segment.salt)
        };
        let mut bytes = vec![0; place.length as usize];
        fill(&*handle, &mut bytes, u64::from(place.offset))?;
        if !matches!(intact(&bytes, salt), Some(Change::Body { number: found, .. }) if found == number) {
            self.lose(&[place], &bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("body {number} is damaged")));
        }
        bytes.drain(..BODY_HEAD_BYTES);
        Ok(Some(bytes))
    }

    /// As [`crate::storage::Storage::for_each`], in the order of the files.
    ///
    /// # Errors
    /// As there.
    pub fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        let (places, held) = {
            let index = self.index.read();
            (index.places(table), self.hold(&index))
        };
        self.read(&places, &held, |records| {
            let sizes: Vec<u32> = {
                let index = self.index.read();
                records.iter().map(|(_, change)| body_bytes(&index, change)).collect()
            };
            for ((_, change), body_bytes) in records.iter().zip(sizes) {
                if let Change::Put { key, body, value, .. } = *change {
                    each(Entry { key, value, body, body_bytes });
                }
            }
            Ok(())
        })
    }

    /// All files.
    #[must_use]
    pub fn hold(&self, index: &Index<F::Handle>) -> Held<F::Handle> {
        let held = |(number, segment): (&u32, &super::index::Segment<F::Handle>)| {
            (*number, (Arc::clone(&segment.handle), segment.salt))
        };
        index.segments().iter().map(held).collect()
    }

    /// Reads records that are in the order of the files, some at once. What is damaged is left out, counted and set aside.
    ///
    /// # Errors
    /// Those of the system, and those of `give`.
    pub fn read(
        &self,
        mut places: &[Place],
        held: &Held<F::Handle>,
        mut give: impl FnMut(&[(Place, Change<'_>)]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        while let Some(first) = places.first() {
            let (window, rest) = places.split_at(window(places));
            places = rest;
            let Some((handle, salt)) = held.get(&first.segment) else { continue };
            let end = window.last().map_or(0, |last| last.offset as usize + last.length as usize);
            bytes.resize(end - first.offset as usize, 0);
            fill(&**handle, &mut bytes, u64::from(first.offset))?;
            let (mut records, mut lost) = (Vec::with_capacity(window.len()), Vec::new());
            for place in window {
                let at = (place.offset - first.offset) as usize;
                let record = &bytes[at..at + place.length as usize];
                match intact(record, *salt) {
                    Some(change) => records.push((*place, change)),
                    None => lost.push((*place, record)),
                }
            }
            lost.iter().for_each(|(place, record)| self.lose(&[*place], record));
            give(&records)?;
        }
        Ok(())
    }

    /// Forgets a record that cannot be read any more, unless it is not wanted any more either.
    fn lose(&self, places: &[Place], bytes: &[u8]) {
        let count = self.index.write().lose(places);
        if let (Some(place), 1..) = (places.first(), count) {
            self.set_aside(&format::name_of(place.segment), u64::from(place.offset), bytes);
        }
    }

    /// Counts what is damaged.
    pub fn count_damaged(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts, reports and copies what is damaged.
    pub fn set_aside(&self, file: &str, offset: u64, bytes: &[u8]) {
        self.count_damaged();
        let copy = format!("damaged/{file}.{offset}");
        let result = self.files.create(&copy).and_then(|handle| handle.write_all_at(bytes, 0));
        match result {
            Ok(()) => {
                tracing::error!(file, offset, bytes = bytes.len(), copy, "a damaged record was set aside");
            }
            Err(error) => {
                tracing::error!(file, offset, bytes = bytes.len(), %error, "a record is damaged, and could not be copied");
            }
        }
    }

    /// As [`crate::storage::Storage::usage`].
    #[must_use]
    pub fn usage(&self) -> Usage {
        let index = self.index.read();
        let (bytes, live_bytes) = index.bytes();
        Usage {
            bytes,
            live_bytes,
            entries: index.entries_count(),
            bodies: index.bodies_count(),
            segments: index.segments().len() as u64,
            set_aside: self.set_aside.load(Ordering::Relaxed),
        }
    }
}

/// Reads; what is behind the end of a file that somebody cut off is zeros, and so no record.
fn fill<H: Handle>(handle: &H, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    match handle.read_exact_at(bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let there = handle.length()?.saturating_sub(offset).min(bytes.len() as u64);
            bytes[there as usize..].fill(0);
            Ok(())
        }
        result => result,
    }
}

/// How many of these are read at once: at least one.
fn window(places: &[Place]) -> usize {
    let Some(first) = places.first() else { return 0 };
    let mut end = u64::from(first.offset) + u64::from(first.length);
    let near = places[1..].iter().take_while(|place| {
        let (from, to) = (u64::from(place.offset), u64::from(place.offset) + u64::from(place.length));
        let is_near = place.segment == first.segment
            && from.saturating_sub(end) <= GAP_BYTES
            && to - u64::from(first.offset) <= WINDOW_BYTES;
        end = to;
        is_near
    });
    1 + near.count()
}

/// Reads one record with its head, if it is as it was written.
fn intact(bytes: &[u8], salt: u32) -> Option<Change<'_>> {
    let record = bytes.get(HEAD_BYTES..)?;
    let whole = format::u32_at(bytes, 0)? as usize == record.len();
    let sum = format::u32_at(bytes, 4)?;
    (whole && sum == format::sum(salt, record)).then(|| group::parse(record)).flatten()
}

fn body_bytes<H>(index: &Index<H>, change: &Change<'_>) -> u32 {
    let Change::Put { body: Some(number), .. } = change else { return 0 };
    index.body(*number).map_or(0, |body| body.place.length.saturating_sub(BODY_HEAD_BYTES as u32))
}
