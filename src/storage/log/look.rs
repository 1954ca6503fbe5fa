//! A log that is only looked at: nothing in its directory changes.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;

use crate::storage::Entry;
use crate::storage::Table;
use crate::storage::Usage;
use crate::storage::files::Disk;
use crate::storage::log::contents::Contents;
use crate::storage::log::format;
use crate::storage::log::index::Index;
use crate::storage::log::index::Size;
use crate::storage::log::recovery;
use crate::storage::log::recovery::Finding;
use crate::storage::log::recovery::OpenError;

/// How many findings are remembered.
const FINDINGS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub struct Look {
    contents: Contents<Disk>,
    /// What is wrong, the first of it.
    pub findings: Vec<Finding>,
    /// How many findings are damage.
    pub damaged: u64,
    /// How many records of any kind are as they were written.
    pub records: u64,
    /// Files that were never begun: the next start removes them.
    pub unborn: Vec<String>,
}

impl Look {
    /// Reads the log in this directory.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let files = Disk::read_only(path);
        let (mut findings, mut damaged) = (Vec::new(), 0);
        let loaded = recovery::load(&files, &mut |finding, _| {
            damaged += u64::from(finding.damage.is_damage());
            if findings.len() < FINDINGS_MAX {
                findings.push(finding.clone());
            }
        })?;
        let index = RwLock::new(loaded.index);
        let contents = Contents { files, index, set_aside: AtomicU64::new(damaged) };
        Ok(Self { contents, findings, damaged, records: loaded.records, unborn: loaded.unborn })
    }

    /// As [`crate::storage::Storage::usage`].
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.contents.usage()
    }

    /// As [`crate::storage::Storage::for_each`], in the order of the files.
    ///
    /// # Errors
    /// As there.
    pub fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        self.contents.for_each(table, each)
    }

    /// How much of a table there is.
    #[must_use]
    pub fn table(&self, table: Table) -> Size {
        self.contents.index.read().size(table)
    }

    /// How much of bodies there is.
    #[must_use]
    pub fn bodies(&self) -> Size {
        self.contents.index.read().bodies_size()
    }

    /// The first file, how many bytes it has and how many of them are wanted.
    #[must_use]
    pub fn oldest(&self) -> Option<(String, u64, u64)> {
        let index: &Index<_> = &self.contents.index.read();
        let (number, segment) = index.segments().first_key_value()?;
        Some((format::name_of(*number), segment.bytes, segment.live_bytes))
    }
}
