//! What of a lane is kept outside of memory, so that it outlives the process: which messages were put together, when all of
//! them are over, and what is to be put and deleted meanwhile. The lane says so ([`Lane::keep`]); a [`Keeper`] does it.
//!
//! A *record* is an entry outside: the messages of a run, or of a page (`pages`). Messages of QoS 0 are in none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::link::lane::Entry;
use crate::link::lane::Lane;
use crate::link::lane::pages::PAGE_BYTES;
use crate::link::lane::pages::Page;
use crate::link::lane::pages::RESIDENT_BYTES_MAX;
use crate::link::lane::stored;
use crate::link::lane::stored::StoredMessage;
use crate::time::Now;

/// The record of a message that is in none.
pub(super) const NONE: u32 = u32::MAX;

/// Where a lane keeps its messages.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Name of the link.
    pub link: Arc<str>,
    /// Which lane of it.
    pub lane: u16,
    /// Of how many.
    pub lanes: u16,
    /// Where the numbers of entries and bodies come from; they rise, and others take some of them.
    pub numbers: Arc<AtomicU64>,
    /// What it has in memory: [`RESIDENT_BYTES_MAX`].
    pub resident_bytes: u64,
    /// What makes a page: [`PAGE_BYTES`].
    pub page_bytes: u64,
}

impl Keep {
    /// For this lane of so many.
    #[must_use]
    pub fn new(link: Arc<str>, lane: u16, lanes: u16, numbers: Arc<AtomicU64>) -> Self {
        let (resident_bytes, page_bytes) = (RESIDENT_BYTES_MAX, PAGE_BYTES);
        Self { link, lane, lanes, numbers, resident_bytes, page_bytes }
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// Puts and deletes entries. All of what one turn does takes effect together or not at all.
pub trait Keeper {
    /// Adds an entry, and before it the body that it refers to.
    fn put(&mut self, number: u64, body: Option<(u64, &[u8])>, write: impl FnOnce(&mut Vec<u8>));
    /// Removes an entry and its body.
    fn delete(&mut self, number: u64);
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) order: u64,
    /// How many of its messages are not over.
    pub(super) left: u32,
    /// Nothing of it is sent before this group is committed.
    pub(super) gate: u64,
    /// It is outside.
    pub(super) is_put: bool,
}

/// The run that is being pushed.
#[derive(Debug)]
pub(super) struct Run {
    record: u32,
    /// How many entries were added to the queue since it began, and to the tail.
    pub(super) queued: usize,
    pub(super) gathered: usize,
}

/// What is to be done outside.
#[derive(Debug)]
pub(super) enum Output {
    Page { number: u64, body: u64, value: Vec<u8>, bytes: Vec<u8> },
    Over(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) keep: Keep,
    /// By the number that entries have of them.
    pub(super) records: Vec<Record>,
    pub(super) free: Vec<u32>,
    pub(super) run: Option<Run>,
    /// The record of the last message that was put anywhere, and whether it went to the tail.
    pub(super) placed: (u32, bool),
    /// Messages behind the pages, until they make one.
    pub(super) tail: VecDeque<Entry>,
    pub(super) tail_bytes: u64,
    /// Messages behind the queue that are not in memory.
    pub(super) pages: VecDeque<Page>,
    pub(super) paged: usize,
    pub(super) away_bytes: u64,
    /// Bytes of QoS 0, all of them in memory.
    pub(super) qos0_bytes: u64,
    /// The page that is being read.
    pub(super) loading: Option<u64>,
    pub(super) outputs: Vec<Output>,
    /// The group in which everything is put now, and the last one that is committed.
    pub(super) group: u64,
    pub(super) committed: u64,
    /// What to add to the monotonic clock to get milliseconds since the epoch.
    pub(super) wall_ms: i64,
}

impl Kept {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            keep,
            records: Vec::new(),
            free: Vec::new(),
            run: None,
            placed: (NONE, false),
            tail: VecDeque::new(),
            tail_bytes: 0,
            pages: VecDeque::new(),
            paged: 0,
            away_bytes: 0,
            qos0_bytes: 0,
            loading: None,
            outputs: Vec::new(),
            group: 0,
            committed: 0,
            wall_ms: 0,
        }
    }

    pub(super) fn add(&mut self, record: Record) -> u32 {
        if let Some(at) = self.free.pop() {
            if self.placed.0 == at {
                self.placed = (NONE, false);
            }
            self.records[at as usize] = record;
            return at;
        }
        self.records.push(record);
        self.records.len() as u32 - 1
    }

    /// The record of the run, for one more message of it.
    pub(super) fn join_run(&mut self, order: Option<u64>, gated: bool) -> u32 {
        let at = match &self.run {
            Some(run) => run.record,
            None => {
                let number = self.keep.number();
                let at = self.add(Record { number, order: number, left: 0, gate: 0, is_put: false });
                self.run = Some(Run { record: at, queued: 0, gathered: 0 });
                at
            }
        };
        let group = self.group;
        let record = &mut self.records[at as usize];
        record.left += 1;
        record.order = order.unwrap_or(record.order);
        if gated {
            record.gate = group;
        }
        at
    }

    /// Puts a message behind the tail.
    pub(super) fn gather(&mut self, entry: Entry) {
        self.tail_bytes += entry.cost();
        self.tail.push_back(entry);
        self.run.as_mut().into_iter().for_each(|run| run.gathered += 1);
    }

    /// A message was put behind the queue.
    pub(super) fn count_queued(&mut self) {
        self.run.as_mut().into_iter().for_each(|run| run.queued += 1);
    }

    /// A message of this record is over.
    pub(super) fn let_go(&mut self, at: u32) {
        let Some(record) = self.records.get_mut(at as usize) else { return };
        record.left -= 1;
        if record.left > 0 {
            return;
        }
        if record.is_put {
            self.outputs.push(Output::Over(record.number));
        }
        self.free.push(at);
        // What comes later in the run is in another record.
        self.run.take_if(|run| run.record == at);
    }

    /// A message is over, or was sent at QoS 0.
    pub(super) fn forget(&mut self, entry: &Entry) {
        if !entry.acknowledged {
            self.qos0_bytes -= entry.cost();
        } else if entry.record != NONE {
            self.let_go(entry.record);
        }
    }

    pub(super) fn order(&self, at: u32) -> u64 {
        self.records.get(at as usize).map_or(0, |record| record.order)
    }

    /// A message as it is kept.
    pub(super) fn message<'a>(&self, entry: &Entry, packet: &'a [u8]) -> StoredMessage<'a> {
        StoredMessage {
            sent: entry.sent,
            publisher: entry.publisher,
            pushed_unix_ms: self.unix_ms(entry.pushed_ms),
            packet,
        }
    }

    /// A moment of the monotonic clock on the other one.
    pub(super) fn unix_ms(&self, mono_ms: i64) -> u64 {
        u64::try_from(mono_ms.saturating_add(self.wall_ms)).unwrap_or(0)
    }

    /// The other way; it may be before the monotonic clock began.
    pub(super) fn mono_ms(&self, unix_ms: u64) -> i64 {
        i64::try_from(unix_ms).unwrap_or(i64::MAX).saturating_sub(self.wall_ms)
    }
}

impl Lane {
    /// Whatever is kept from here on is put in this group; all up to `committed` are committed. Nothing of it matters to a lane
    /// that keeps nothing.
    pub fn note_group(&mut self, now: Now, group: u64, committed: u64) {
        let Some(kept) = &mut self.kept else { return };
        kept.group = group;
        kept.committed = committed;
        kept.wall_ms = now.unix_ms.cast_signed().wrapping_sub(now.mono_ms.cast_signed());
        self.close_gap();
    }

    /// Whether there is anything for [`Self::keep`], and whether somebody is promised that it is kept.
    #[must_use]
    pub fn has_to_keep(&self) -> Option<bool> {
        let kept = self.kept.as_ref()?;
        let promises = kept.run.is_some();
        (promises || !kept.outputs.is_empty()).then_some(promises)
    }

    /// Ends a run, and puts and deletes what is due. Call it before the lane is unlocked.
    pub fn keep(&mut self, keeper: &mut impl Keeper) {
        self.page_out_if_full();
        self.put_run(keeper);
        let Some(kept) = &mut self.kept else { return };
        for output in kept.outputs.drain(..) {
            match output {
                Output::Page { number, body, value, bytes } => {
                    keeper.put(number, Some((body, &bytes)), |out| out.extend_from_slice(&value));
                }
                Output::Over(number) => keeper.delete(number),
            }
        }
    }

    fn put_run(&mut self, keeper: &mut impl Keeper) {
        let Self { kept: Some(kept), queue, arena, .. } = self else { return };
        let Some(run) = kept.run.take() else { return };
        let record = &mut kept.records[run.record as usize];
        record.is_put = true;
        let (number, order, count) = (record.number, record.order, record.left);
        let queued = queue.iter().skip(queue.len().saturating_sub(run.queued));
        let gathered = kept.tail.iter().skip(kept.tail.len().saturating_sub(run.gathered));
        keeper.put(number, None, |out| {
            stored::put_run(out, &kept.keep, order, count);
            for entry in queued.chain(gathered).filter(|entry| entry.record == run.record) {
                stored::put_message(out, &kept.message(entry, arena.bytes(entry.span)));
            }
        });
    }

    /// The group that has to be committed before anything more can be sent.
    #[must_use]
    pub fn gate(&self) -> Option<u64> {
        let kept = self.kept.as_ref()?;
        let group = match self.queue.front() {
            Some(front) if front.record == NONE => return None,
            Some(front) => kept.records[front.record as usize].gate,
            None if self.can_load() => kept.pages.front()?.group,
            None => return None,
        };
        (group > kept.committed).then_some(group)
    }

    /// Whether this message must not go yet.
    pub(super) fn is_gated(&self, entry: &Entry) -> bool {
        self.kept.as_ref().is_some_and(|kept| {
            kept.records.get(entry.record as usize).is_some_and(|record| record.gate > kept.committed)
        })
    }

    /// A message for which there is room. Whoever publishes one of QoS 2 again, because we ended before it was kept, must
    /// not have it sent twice.
    pub(super) fn push_kept(&mut self, mut entry: Entry, once: bool) {
        if let Some(kept) = self.kept.as_mut().filter(|_| entry.acknowledged) {
            entry.record = kept.join_run(None, once);
        }
        self.place(entry);
    }

    /// Puts a message, for which there is room, behind the others.
    pub(super) fn place(&mut self, entry: Entry) {
        let goes_to_tail = entry.record != NONE && self.goes_to_tail(&entry);
        self.bytes += entry.cost();
        match &mut self.kept {
            Some(kept) if goes_to_tail => kept.gather(entry),
            Some(kept) => {
                kept.qos0_bytes += if entry.acknowledged { 0 } else { entry.cost() };
                kept.count_queued();
                self.queue.push_back(entry);
            }
            None => self.queue.push_back(entry),
        }
    }
}

#[cfg(test)]
mod tests;
