//! Gives space back: what is wanted of the oldest segment is written again at the end, then the segment is removed.

use std::io;
use std::ops::Range;

use crate::storage::files::Files;
use crate::storage::files::Handle;
use crate::storage::group::Group;
use crate::storage::log::Options;
use crate::storage::log::contents::Contents;
use crate::storage::log::format;
use crate::storage::log::index::Place;
use crate::storage::log::writer::Writer;

/// What is written again at once: as much as was written otherwise since, but at least and at most so much.
const STEP_BYTES: Range<u64> = 64 * 1024..1024 * 1024;

/// The oldest segment while it is given back.
#[derive(Debug)]
pub struct Cleaning {
    segment: u32,
    /// What was wanted of it when that began, in order; nothing can be added to it.
    places: Vec<Place>,
    /// How many of them are done.
    done: usize,
}

impl<H: Handle> Writer<H> {
    /// As [`crate::storage::Storage::maintain`].
    ///
    /// # Errors
    /// As there.
    pub fn clean<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
    ) -> io::Result<bool> {
        let Some((segment, live_bytes)) = self.choose(contents, options) else {
            self.pass_until = None;
            self.cleaning = None;
            self.written = 0;
            return Ok(false);
        };
        if live_bytes > 0 {
            self.move_some(contents, options, segment)?;
        } else {
            self.remove(contents, segment)?;
        }
        Ok(true)
    }

    /// The oldest segment, if it is worth it, and how much of it is wanted.
    fn choose<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
    ) -> Option<(u32, u64)> {
        let index = contents.index.read();
        let (number, segment) = index.segments().first_key_value()?;
        if self.active.as_ref().is_some_and(|active| active.segment == *number) {
            return None;
        }
        let (bytes, live_bytes) = index.bytes();
        let unwanted = bytes - live_bytes;
        if self.pass_until.is_some_and(|until| *number > until) {
            // Everything was written again: that is what headers and ends take.
            self.needed = unwanted;
        }
        self.needed = self.needed.min(unwanted);
        let found = Some((*number, segment.live_bytes));
        if segment.live_bytes == 0
            || self.cleaning.as_ref().is_some_and(|cleaning| cleaning.segment == *number)
        {
            return found;
        }
        if unwanted - self.needed <= allowed(bytes, live_bytes, options) {
            return None;
        }
        self.pass_until.get_or_insert(self.last_segment);
        found
    }

    fn move_some<F: Files<Handle = H>>(
        &mut self,
        contents: &Contents<F>,
        options: &Options,
        segment: u32,
    ) -> io::Result<()> {
        let mut cleaning = match self.cleaning.take() {
            Some(cleaning) if cleaning.segment == segment && cleaning.done < cleaning.places.len() => {
                cleaning
            }
            // Nothing of it is left out: whatever is wanted of it still is listed again.
            _ => Cleaning { segment, places: contents.index.read().places_in(segment), done: 0 },
        };
        let idle = self.written == 0;
        let step = if idle { STEP_BYTES.end } else { self.written.clamp(STEP_BYTES.start, STEP_BYTES.end) };
        let places = &cleaning.places[cleaning.done..];
        let count = up_to(places, step);
        let mut group = Group::default();
        let held = contents.hold(&contents.index.read());
        contents.read(&places[..count], &held, |records| {
            let index = contents.index.read();
            let wanted = records.iter().filter(|(place, change)| index.is_live(*change, *place));
            wanted.for_each(|(_, change)| group.add(*change));
            Ok(())
        })?;
        cleaning.done += count;
        if !group.is_empty() {
            // On the disk before it is gone from where it was.
            self.append(contents, options, &mut group, true)?;
        }
        self.cleaning = Some(cleaning);
        self.written = 0;
        Ok(())
    }

    fn remove<F: Files<Handle = H>>(&mut self, contents: &Contents<F>, segment: u32) -> io::Result<()> {
        // What replaced something in it must not be lost when that is gone.
        self.sync()?;
        let name = format::name_of(segment);
        match contents.files.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Were it to come back without the next one, what that deletes would be there again.
        contents.files.sync_names()?;
        contents.index.write().remove_segment(segment);
        self.cleaning = None;
        tracing::debug!(file = name, "a segment was given back");
        Ok(())
    }
}

/// How many bytes that nobody wants may stay. Towards the limit more work is done for less space.
fn allowed(bytes: u64, live_bytes: u64, options: &Options) -> u64 {
    if bytes > options.bytes_max / 4 * 3 { live_bytes / 8 } else { live_bytes.max(options.slack_bytes) }
}

/// How many of these have so many bytes; at least one.
fn up_to(places: &[Place], bytes: u64) -> usize {
    let mut sum = 0;
    let fitting = places.iter().take_while(|place| {
        sum += u64::from(place.length);
        sum <= bytes
    });
    fitting.count().max(1).min(places.len())
}
