//! A [`Storage`] in the files of a folder, which are written at the end and nowhere else.
//!
//! Changes of every table and all bodies stand one behind the other in *segments*, `00000001.log` and so on. A group is its
//! records and an end ([`format::End`]); with that it counts, without it it does not. Where the last value of everything is, is
//! kept in memory ([`index`]); at a start that is found by reading all segments ([`recovery`]).
//!
//! Space is given back at the front only ([`clean`]): what is still wanted of the oldest segment is written again at the
//! end, then the segment is removed. So what deletes something is never gone before what it deletes.
//!
//! A segment that could not be written or synchronised gets no more: the system may believe that what it lost is on
//! the disk. What is refused there is cut off and written to the next one, whose header says that the older one
//! counts only up to there.

pub mod clean;
pub mod contents;
pub mod format;
pub mod index;
pub mod look;
pub mod numbers;
pub mod recovery;
pub mod scan;
pub mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::net::random;
use crate::storage::Entry;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::Usage;
use crate::storage::files::Disk;
use crate::storage::files::Files;
use crate::storage::files::Handle;
use crate::storage::group::Group;
use crate::storage::log::contents::Contents;
use crate::storage::log::index::Index;
use crate::storage::log::recovery::Damage;
use crate::storage::log::recovery::Finding;
use crate::storage::log::recovery::Loaded;
use crate::storage::log::recovery::OpenError;
use crate::storage::log::writer::Active;
use crate::storage::log::writer::Writer;

/// Where it is in the data directory.
pub const FOLDER: &str = "store";

/// How large things get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment that has as many bytes gets no more groups.
    pub segment_bytes: u32,
    /// What is no longer wanted may take as many bytes, or as many as what is.
    pub slack_bytes: u64,
    /// With as many bytes in all files nothing is taken any more but what deletes.
    pub bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 * 1024 * 1024, slack_bytes: 64 * 1024 * 1024, bytes_max: u64::MAX }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Log<F: Files = Disk> {
    contents: Contents<F>,
    writer: Mutex<Writer<F::Handle>>,
    options: Options,
}

impl Log<Disk> {
    /// Opens the log in a directory, which is made if it is not there. Nobody else may write to it meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is none: it is reported and set aside.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { file: path.display().to_string(), source };
        let files = Disk::new(path).map_err(failed)?;
        Self::with(files, options, random::number() as u32)
    }
}

impl<F: Files> Log<F> {
    /// Opens the log in these files. `salt` should be random.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn with(files: F, options: Options, salt: u32) -> Result<Self, OpenError> {
        let mut contents =
            Contents { files, index: RwLock::new(Index::loading()), set_aside: AtomicU64::new(0) };
        let loaded =
            recovery::load(&contents.files, &mut |finding, bytes| report(&contents, finding, bytes))?;
        let Loaded { index, sequence, tail, doubtful, last_segment, unborn, .. } = loaded;
        contents.index = RwLock::new(index);
        let mut writer = Writer::new(sequence, last_segment, salt);
        for name in unborn {
            tracing::warn!(file = name, "removed a segment that was never begun");
            contents.files.remove(&name).map_err(|source| OpenError::Io { file: name, source })?;
        }
        if let Some((segment, end)) = tail {
            writer.active = reopen(&contents, segment, end, doubtful, options)?;
        }
        let failed = |source| OpenError::Io { file: "the folder of the store".to_owned(), source };
        contents.files.sync_names().map_err(failed)?;
        Ok(Self { contents, writer: Mutex::new(writer), options })
    }
}

/// Goes on in the last segment, behind what counts.
fn reopen<F: Files>(
    contents: &Contents<F>,
    segment: u32,
    end: u64,
    doubtful: Option<u64>,
    options: Options,
) -> Result<Option<Active<F::Handle>>, OpenError> {
    let failed = |source| OpenError::Io { file: format::name_of(segment), source };
    let mut index = contents.index.write();
    let Some(known) = index.segments().get(&segment) else { return Ok(None) };
    let (handle, salt) = (Arc::clone(&known.handle), known.salt);
    if known.bytes > end {
        handle.cut(end).map_err(failed)?;
    }
    // What a process left behind that was killed may not be on the disk, and if it failed to get there the system does not
    // know that any more: so it is written once more.
    rewrite(&*handle, 0, format::HEADER_BYTES as u64).map_err(failed)?;
    rewrite(&*handle, doubtful.unwrap_or(end), end).map_err(failed)?;
    handle.sync().map_err(failed)?;
    index.resize(segment, end);
    let active = Active { segment, handle, salt, length: end, groups: end > format::HEADER_BYTES as u64 };
    Ok((end < u64::from(options.segment_bytes)).then_some(active))
}

fn rewrite<H: Handle>(handle: &H, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; (to - from) as usize];
    handle.read_exact_at(&mut bytes, from)?;
    handle.write_all_at(&bytes, from)
}

fn report<F: Files>(contents: &Contents<F>, finding: &Finding, bytes: &[u8]) {
    let Finding { file, offset, bytes: count, damage } = finding;
    match damage {
        Damage::TornTail | Damage::Refused => {
            tracing::warn!(file, offset, bytes = count, "left out: {damage}");
        }
        Damage::HeaderCopy | Damage::Record | Damage::Header | Damage::DamagedTail => {
            contents.set_aside(file, *offset, bytes);
        }
        Damage::Missing | Damage::Unreadable => {
            contents.count_damaged();
            tracing::error!(file, offset, bytes = count, "{damage}");
        }
    }
}

impl<F: Files> Storage for Log<F> {
    fn commit(&self, group: &mut Group, sync: bool) -> io::Result<()> {
        self.writer.lock().commit(&self.contents, &self.options, group, sync)
    }

    fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        self.contents.body(number)
    }

    fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        self.contents.for_each(table, each)
    }

    fn last_number(&self) -> u64 {
        self.contents.index.read().last_number()
    }

    fn maintain(&self) -> io::Result<bool> {
        self.writer.lock().clean(&self.contents, &self.options)
    }

    fn usage(&self) -> Usage {
        self.contents.usage()
    }

    fn close(&self) -> io::Result<()> {
        self.writer.lock().close(&self.contents)
    }
}

impl<F: Files> Drop for Log<F> {
    fn drop(&mut self) {
        if let Err(error) = self.writer.get_mut().close(&self.contents) {
            tracing::warn!(%error, "the store could not be closed as it should; nothing is lost by that");
        }
    }
}

#[cfg(test)]
mod tests;
