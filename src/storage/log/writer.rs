//! Writes groups at the end of the last segment, and begins another when that is full or must not be trusted.

use std::io;
use std::sync::Arc;

use crate::storage::Change;
use crate::storage::files::Files;
use crate::storage::files::Handle;
use crate::storage::group::Group;
use crate::storage::log::Options;
use crate::storage::log::clean::Cleaning;
use crate::storage::log::contents::Contents;
use crate::storage::log::format;
use crate::storage::log::format::END_BYTES;
use crate::storage::log::format::End;
use crate::storage::log::format::FORMAT;
use crate::storage::log::format::HEADER_BYTES;
use crate::storage::log::format::Header;
use crate::storage::log::index::Place;
use crate::storage::log::index::Segment;

/// The segment that is written.
#[derive(Debug)]
pub struct Active<H> {
    /// Its number.
    pub segment: u32,
    /// Its file.
    pub handle: Arc<H>,
    /// What the sums of its records begin with.
    pub salt: u32,
    /// Where the next group goes.
    pub length: u64,
    /// Whether there is any group in it.
    pub groups: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Writer<H> {
    /// Nothing before the first group, and after a failure.
    pub active: Option<Active<H>>,
    /// The last group.
    sequence: u64,
    /// The last group that is on the disk.
    synced: u64,
    /// The largest number of a segment.
    pub(super) last_segment: u32,
    /// For new segments.
    salt: u32,
    /// What is being given back.
    pub(super) cleaning: Option<Cleaning>,
    /// With which segment everything that is there will have been written again.
    pub(super) pass_until: Option<u32>,
    /// What is not wanted, but could not be given back by writing everything again.
    pub(super) needed: u64,
    /// Bytes that were written since the last look at what could be given back.
    pub(super) written: u64,
    /// Whether the last group is the mark of a close.
    closed: bool,
}

impl<H: Handle> Writer<H> {
    /// Goes on behind what was read, all of which is on the disk.
    #[must_use]
    pub fn new(sequence: u64, last_segment: u32, salt: u32) -> Self {
        Self {
            active: None,
            sequence,
            synced: sequence,
            last_segment,
            salt,
            cleaning: None,
            pass_until: None,
            needed: 0,
            written: 0,
            closed: true,
        }
    }

    /// As [`crate::storage::Storage::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn commit<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
        group: &mut Group,
        sync: bool,
    ) -> io::Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let (bytes, _) = contents.index.read().bytes();
        let bytes_after = bytes + (group.as_bytes().len() + END_BYTES) as u64;
        let adds = || group.changes().any(|change| !matches!(change, Change::Delete { .. }));
        if bytes_after > options.bytes_max && adds() {
            let message = format!("the store's limit of {} bytes is reached", options.bytes_max);
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        self.append(contents, options, group, sync)
    }

    /// Writes a group; what fails is tried once more in another segment, unless there is no space.
    pub(super) fn append<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
        group: &mut Group,
        sync: bool,
    ) -> io::Result<()> {
        match self.try_append(contents, options, group, sync) {
            Err(error) if !is_full(&error) => {
                tracing::error!(%error, "a segment cannot be written; going on in another");
                self.try_append(contents, options, group, sync)
            }
            result => result,
        }
    }

    fn try_append<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
        group: &mut Group,
        sync: bool,
    ) -> io::Result<()> {
        let end = End {
            sequence: self.sequence + 1,
            records: u32::try_from(group.records()).map_err(io::Error::other)?,
            synced: self.synced,
        };
        let last_number = contents.index.read().last_number();
        let active = self.active(contents, options, last_number)?;
        let (start, salt) = (active.length, active.salt);
        if u32::try_from(start + group.as_bytes().len() as u64).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a group has more than 4 GiB"));
        }
        group.seal(|record| format::sum(salt, record));
        let handle = Arc::clone(&active.handle);
        let written = group.with_end(&end.encode(salt), |bytes| handle.write_all_at(bytes, start));
        let result = match written {
            Ok(()) if sync => handle.sync(),
            result => result,
        };
        if let Err(error) = result {
            self.give_up(contents, &error);
            return Err(error);
        }
        self.take(contents, group, &end, sync);
        Ok(())
    }

    /// What is written counts.
    fn take<F: Files<Handle = H>>(&mut self, contents: &Contents<F>, group: &Group, end: &End, sync: bool) {
        let Some(active) = &mut self.active else { return };
        let bytes = (group.as_bytes().len() + END_BYTES) as u64;
        let mut index = contents.index.write();
        index.resize(active.segment, active.length + bytes);
        for (at, length, change) in group.placed() {
            let offset = (active.length + at as u64) as u32;
            index.apply(change, Place { segment: active.segment, offset, length: length as u32 });
        }
        index.settle();
        drop(index);
        active.length += bytes;
        active.groups = true;
        self.written += bytes;
        self.closed = false;
        self.sequence = end.sequence;
        if sync {
            self.synced = end.sequence;
        }
    }

    /// The segment that the next group goes to, made if there is none or it is full.
    fn active<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
        last_number: u64,
    ) -> io::Result<&Active<H>> {
        if self.active.as_ref().is_some_and(|active| active.length >= u64::from(options.segment_bytes)) {
            self.sync()?;
            self.active = None;
        }
        let active = match self.active.take() {
            Some(active) => active,
            None => self.begin(contents, last_number)?,
        };
        Ok(self.active.insert(active))
    }

    fn begin<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        last_number: u64,
    ) -> io::Result<Active<H>> {
        let segment =
            self.last_segment.checked_add(1).ok_or_else(|| io::Error::other("too many segments"))?;
        let salt = self.salt;
        let header = Header { format: FORMAT, salt, segment, before: self.sequence, last_number };
        let name = format::name_of(segment);
        let create = || {
            let handle = contents.files.create(&name)?;
            handle.write_all_at(&header.encode(), 0)?;
            handle.sync()?;
            contents.files.sync_names()?;
            Ok(handle)
        };
        let handle: io::Result<H> = create();
        // The next attempt makes the same file anew.
        let handle = Arc::new(handle.inspect_err(|_| drop(contents.files.remove(&name)))?);
        let length = HEADER_BYTES as u64;
        let new = Segment { handle: Arc::clone(&handle), salt, bytes: length, live_bytes: 0 };
        contents.index.write().add_segment(segment, new);
        self.last_segment = segment;
        Ok(Active { segment, handle, salt, length, groups: false })
    }

    /// Makes sure that all groups are on the disk. After a failure the segment gets no more.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced == self.sequence {
            return Ok(());
        }
        if let Some(active) = &self.active {
            let result = active.handle.sync();
            if result.is_err() {
                self.active = None;
            }
            // Asking again would not tell whether it is there.
            self.synced = self.sequence;
            return result;
        }
        self.synced = self.sequence;
        Ok(())
    }

    /// Cuts off what could not be written. If that is certain and there was only no space, the segment stays.
    fn give_up<F: Files<Handle = H>>(&mut self, contents: &Contents<F>, error: &io::Error) {
        let Some(active) = self.active.take() else { return };
        let cut = active.handle.cut(active.length);
        if let Err(error) = &cut {
            let (file, offset) = (format::name_of(active.segment), active.length);
            tracing::warn!(file, offset, %error, "what could not be committed could not be cut off either");
        }
        if cut.is_ok() && is_full(error) {
            self.active = Some(active);
        } else if !active.groups && contents.files.remove(&format::name_of(active.segment)).is_ok() {
            contents.index.write().remove_segment(active.segment);
            self.last_segment = active.segment - 1;
        }
    }

    /// Marks that everything is on the disk, so that the next start can tell damage from what was not wholly written.
    ///
    /// # Errors
    /// Those of the system; nothing is lost by them.
    pub fn close<F: Files<Handle = H>>(&mut self, contents: &Contents<F>) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.sync()?;
        let Some(active) = &mut self.active else { return Ok(()) };
        let end = End { sequence: self.sequence + 1, records: 0, synced: self.synced };
        active.handle.write_all_at(&end.encode(active.salt), active.length)?;
        active.length += END_BYTES as u64;
        contents.index.write().resize(active.segment, active.length);
        self.sequence += 1;
        self.closed = true;
        Ok(())
    }
}

/// Whether there was only no space.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::FileTooLarge;
    use io::ErrorKind::QuotaExceeded;
    use io::ErrorKind::StorageFull;
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
