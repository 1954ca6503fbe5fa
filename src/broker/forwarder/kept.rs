//! The lanes' part of the store: what they say is to be kept is put there, in the group of the turn that it is about, and a
//! lane begins with what it had in the life before.

use std::collections::BTreeMap;
use std::io;
use std::task::Context;
use std::task::Waker;
use std::thread;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::broker::forwarder::Forwarder;
use crate::broker::forwarder::LaneState;
use crate::broker::forwarder::Ledger;
use crate::broker::links::Link;
use crate::link::lane::Keeper;
use crate::link::lane::Lane;
use crate::link::lane::LaneConfig;
use crate::link::lane::PageRef;
use crate::link::lane::SpoolBudget;
use crate::link::lane::lane_of;
use crate::link::lane::stored::Content;
use crate::link::lane::stored::Stored;
use crate::link::lane::stored::StoredMessage;
use crate::link::lane::stored::read_messages;
use crate::metrics::LinkMetrics;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::store::Burst;
use crate::storage::store::Filling;
use crate::storage::store::Store;
use crate::time::Now;

/// How long to wait for a page that was put just now, when it is needed at once; in steps of this.
const COMMIT_MAX: Duration = Duration::from_secs(5);
const COMMIT_STEP: Duration = Duration::from_millis(1);

/// What all lanes of the life before had, by the name of the link, in the order in which it was pushed.
pub type Spooled = BTreeMap<Box<str>, Vec<Stored>>;

/// Reads what the store has of all links.
///
/// # Errors
/// Those of the storage.
pub fn read(storage: &dyn Storage) -> io::Result<Spooled> {
    let mut all = Spooled::new();
    let mut unreadable = 0_u64;
    storage.for_each(Table::Spool, &mut |entry| {
        let Key::Number(number) = entry.key else { return };
        match Stored::parse(number, entry.body, entry.value) {
            Some(stored) => all.entry(stored.link.clone()).or_default().push(stored),
            None => unreadable += 1,
        }
    })?;
    if unreadable > 0 {
        tracing::error!(entries = unreadable, "entries of the spool cannot be read and stay as they are");
    }
    all.values_mut().for_each(|stored| stored.sort_unstable_by_key(|entry| (entry.order, entry.number)));
    Ok(all)
}

/// Deletes entries, and says how many messages were in them.
pub fn forget(store: &Store, stored: &[Stored]) -> u64 {
    let burst = store.begin();
    for entry in stored {
        burst.append(false, |filling| filling.group.delete(Table::Spool, Key::Number(entry.number)));
    }
    stored.iter().map(|entry| u64::from(entry.count)).sum()
}

/// Puts and deletes in a group.
struct Writer<'a>(&'a mut Filling);

impl Keeper for Writer<'_> {
    fn put(&mut self, number: u64, body: Option<(u64, &[u8])>, write: impl FnOnce(&mut Vec<u8>)) {
        let group = &mut self.0.group;
        if let Some((body, bytes)) = body {
            group.body(body, &[bytes]);
        }
        group.put(Table::Spool, Key::Number(number), body.map(|(body, _)| body), write);
    }

    fn delete(&mut self, number: u64) {
        self.0.group.delete(Table::Spool, Key::Number(number));
    }
}

/// A lane while it is locked, in a burst of the store if there is one.
pub(super) struct Locked<'a> {
    // Unlocked before the burst ends.
    pub(super) state: MutexGuard<'a, LaneState>,
    burst: Option<Burst<'a>>,
}

impl Locked<'_> {
    /// Keeps what the lane has to keep. Call it before it is unlocked, when nothing more happens to it.
    pub(super) fn settle(&mut self) {
        if let Some(burst) = &self.burst {
            settle(&mut self.state.lane, burst);
        }
    }
}

fn settle(lane: &mut Lane, burst: &Burst<'_>) {
    if let Some(promises) = lane.has_to_keep() {
        burst.append(promises, |filling| lane.keep(&mut Writer(filling)));
    }
}

/// Hands a page that was read to its lane.
pub(super) fn take_page(lane: &mut Lane, page: PageRef, bytes: Option<&[u8]>, link: &Link) {
    let lost = lane.handle_page(page.number, bytes);
    if lost > 0 {
        let (peer, entry) = (link.peer(), page.number);
        tracing::error!(
            peer,
            entry,
            messages = lost,
            "messages of the spool are lost: their page is damaged"
        );
    }
}

impl Forwarder {
    /// Locks a lane, in a burst that begins before.
    pub(super) fn lock(&self, index: usize, now: Now) -> Locked<'_> {
        let burst = self.store.as_ref().map(|store| store.begin());
        let mut state = self.lanes[index].lock();
        if let (Some(burst), Some(store)) = (&burst, &self.store) {
            state.lane.note_group(now, burst.number(), store.committed());
        }
        Locked { state, burst }
    }

    /// Who is to be woken because something was pushed: at once, or when that is committed, if nothing may be sent before.
    pub(super) fn waker(&self, state: &mut LaneState) -> Option<Waker> {
        if let Some(group) = state.lane.gate()
            && let Some(waker) = &state.waker
            && !self.is_committed(group, &Context::from_waker(waker))
        {
            return None;
        }
        state.waker.take()
    }

    /// Whether a group is committed; if not, the task is woken when it is.
    pub(super) fn is_committed(&self, group: u64, cx: &Context<'_>) -> bool {
        self.store.as_ref().is_none_or(|store| store.poll_committed(group, false, cx).is_ready())
    }

    /// Begins with what the link had in the life before; our drivers do not run yet. A disabled link has no use for it.
    pub fn restore(&self, stored: &[Stored], now: Now) {
        let Some(store) = &self.store else { return };
        let mut lost = 0;
        for entry in stored {
            let is_at_home = usize::from(entry.lanes) == self.lanes.len();
            if is_at_home && usize::from(entry.lane) < self.lanes.len() {
                let mut locked = self.lock(usize::from(entry.lane), now);
                lost += u64::from(locked.state.lane.restore(entry));
                locked.settle();
            } else {
                lost += self.put_anew(store, entry, now);
            }
        }
        for lane in &self.lanes {
            lane.lock().report(&self.metrics);
        }
        if lost > 0 {
            tracing::error!(messages = lost, "messages of the spool are lost: they cannot be read");
        }
    }

    /// What was in a lane when there were other ones goes to those where its publishers' next messages go. How many messages are
    /// lost.
    fn put_anew(&self, store: &Store, entry: &Stored, now: Now) -> u64 {
        let read;
        let bytes = match &entry.content {
            Content::Run(bytes) => &bytes[..],
            Content::Page(head) => {
                read = store.storage().body(head.body).ok().flatten().unwrap_or_default();
                &read
            }
        };
        let messages = read_messages(bytes, entry.count).unwrap_or_default();
        let mut lost = 0;
        if messages.is_empty() {
            lost = u64::from(entry.count);
            self.metrics.messages_dropped[(Direction::Out, LinkDropReason::Damaged)].add(lost);
        }
        // All in one group.
        let burst = store.begin();
        for index in 0..self.lanes.len() {
            let mut locked = self.lock(index, now);
            let is_here =
                |message: &&StoredMessage<'_>| lane_of(message.publisher, self.lanes.len()) == Some(index);
            for message in messages.iter().filter(is_here) {
                lost += u64::from(!locked.state.lane.adopt(entry.order, message));
            }
            locked.settle();
        }
        burst.append(false, |filling| filling.group.delete(Table::Spool, Key::Number(entry.number)));
        lost
    }

    /// Takes what is left in the lanes of the link before a change of its configuration, whose drivers have
    /// ended; ours do not run yet. Each publisher's messages go to the lane where its next ones go. A disabled
    /// link takes nothing. It may take a while.
    pub fn take_over(&self, old: &Self, now: Now) {
        if self.lanes.is_empty() {
            return;
        }
        let given = old.lanes.iter().map(|from| from.lock().give_up(&old.metrics));
        let sorted: Vec<Lane> = if self.lanes.len() == old.lanes.len() {
            given.collect()
        } else {
            let like = |state: &LaneState| Lane::new(state.lane.config().clone(), SpoolBudget::new(0));
            let mut sorted: Vec<Lane> = self.lanes.iter().map(|lane| like(&lane.lock())).collect();
            given.for_each(|lane| self.sort_in(lane, &mut sorted, now));
            sorted
        };
        for (index, older) in sorted.into_iter().enumerate() {
            let mut locked = self.lock(index, now);
            locked.state.lane.take_over(older);
            locked.state.report(&self.metrics);
            locked.settle();
        }
    }

    fn sort_in(&self, mut lane: Lane, sorted: &mut [Lane], now: Now) {
        let note = |lane: &mut Lane, burst: &Burst<'_>, store: &Store| {
            lane.note_group(now, burst.number(), store.committed());
        };
        if let Some(store) = &self.store {
            let burst = store.begin();
            sorted.iter_mut().chain([&mut lane]).for_each(|lane| note(lane, &burst, store));
        }
        let settle_all = |lanes: &mut [Lane], old: &mut Lane| {
            let Some(store) = &self.store else { return };
            let burst = store.begin();
            for lane in lanes.iter_mut().chain([old]) {
                note(lane, &burst, store);
                settle(lane, &burst);
            }
        };
        let lost = lane.split(sorted, |page| self.read_now(page), settle_all);
        if lost > 0 {
            self.metrics.messages_dropped[(Direction::Out, LinkDropReason::Damaged)].add(lost);
            tracing::error!(messages = lost, "messages of the spool are lost: their page is damaged");
        }
    }

    /// The bytes of a page, waiting until it is committed.
    fn read_now(&self, page: PageRef) -> Option<Vec<u8>> {
        let store = self.store.as_ref()?;
        let mut waited = Duration::ZERO;
        while store.committed() < page.group && waited < COMMIT_MAX {
            thread::sleep(COMMIT_STEP);
            waited += COMMIT_STEP;
        }
        match store.storage().body(page.body) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(entry = page.number, %error, "a page of the spool cannot be read");
                None
            }
        }
    }

    /// Drops and counts what is left: the link is gone.
    pub fn drop_rest(&self, now: Now) {
        for index in 0..self.lanes.len() {
            let mut locked = self.lock(index, now);
            let mut left = locked.state.give_up(&self.metrics);
            if let Some(burst) = &locked.burst {
                left.note_group(now, burst.number(), 0);
            }
            let count = left.discard();
            if let Some(burst) = &locked.burst {
                settle(&mut left, burst);
            }
            self.metrics.messages_dropped[(Direction::Out, LinkDropReason::LinkDeleted)].add(count);
        }
    }

    /// The process ends: what is in the store stays there for the next one, the rest is dropped and counted.
    pub fn leave(&self, now: Now) {
        if self.store.is_none() {
            return self.drop_rest(now);
        }
        for index in 0..self.lanes.len() {
            let mut locked = self.lock(index, now);
            let state = &mut *locked.state;
            state.lane.handle_disconnected();
            state.lane.drop_qos0();
            state.report(&self.metrics);
            locked.settle();
        }
    }
}

impl LaneState {
    /// Everything that is not acknowledged, ready to be sent again. An empty lane stays.
    fn give_up(&mut self, metrics: &LinkMetrics) -> Lane {
        self.lane.handle_disconnected();
        self.ledger.close(&self.lane, metrics);
        self.ledger = Ledger::default();
        self.waker = None;
        let empty = Lane::new(LaneConfig::default(), SpoolBudget::new(0));
        std::mem::replace(&mut self.lane, empty)
    }
}

#[cfg(test)]
mod tests;
