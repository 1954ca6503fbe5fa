//! What the connections of a peer to us have in common: how many there are, what they may keep here, whether they are
//! read, and what came over them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::broker::links::unread::Unread;
use crate::broker::reverse::Room;
use crate::broker::reverse::lend::Lending;
use crate::link::extension::Received;
use crate::link::retained::copies::Copies;
use crate::link::seen::Place;
use crate::link::seen::Seen;
use crate::link::seen::SeenKeeper;
use crate::link::seen::put_seen;
use crate::storage::Key;
use crate::storage::Table;
use crate::storage::store::Burst;
use crate::storage::store::Filling;
use crate::time::Now;

/// How long a peer is not read when a local client cannot keep up: about what a client needs for a window. It
/// doubles while that does not help, so that a client that has stalled for a moment loses nothing, and one that
/// has stalled for good holds up the peer's others for a few seconds only: until its queue overflows.
const PAUSE_FIRST_MS: u64 = 5;
/// The longest single pause.
const PAUSE_LAST_MS: u64 = 250;

/// See the module.
#[derive(Debug, Default)]
pub struct Incoming {
    connections: AtomicUsize,
    /// Connections that the peer has lent us.
    pub room: Room,
    /// Those that we lend it.
    pub lending: Lending,
    /// What has come of packets that are not complete.
    pub unread: Arc<Unread>,
    /// Until when none is read, on the monotonic clock.
    paused_until_ms: AtomicU64,
    /// How long the last pause was.
    pause_ms: AtomicU64,
    /// The messages that came lately, over whichever of them.
    pub seen: Mutex<Seen>,
    /// What came of retained messages while the peer is asked for them. It is locked before the store of retained messages
    /// and before a client.
    pub copies: Mutex<Copies>,
    /// All that came, since when; and how many of them nobody wanted.
    books: Mutex<(Received, u64)>,
}

impl Incoming {
    /// Nothing came yet.
    #[must_use]
    pub fn new(now: Now) -> Self {
        let books = Received { epoch_ms: now.unix_ms, ..Received::default() };
        Self { books: Mutex::new((books, 0)), ..Self::default() }
    }

    /// Adds what a burst brought, before it is acknowledged.
    pub fn count(&self, burst: &Received, unwanted: u64) {
        let (books, all_unwanted) = &mut *self.books.lock();
        books.received += burst.received;
        books.fired += burst.fired;
        books.repeated += burst.repeated;
        for (all, dropped) in books.dropped.iter_mut().zip(burst.dropped) {
            *all += dropped;
        }
        *all_unwanted += unwanted;
    }

    /// All that came.
    #[must_use]
    pub fn books(&self) -> Received {
        self.books.lock().0
    }

    /// How many of them nobody here had subscribed to.
    #[must_use]
    pub fn unwanted(&self) -> u64 {
        self.books.lock().1
    }

    /// Reads none of them for a moment; whether that was not so already.
    pub fn pause(&self, now: Now) -> bool {
        let until = self.paused_until_ms.load(Ordering::Relaxed);
        if now.mono_ms < until {
            return false; // another connection of the peer has seen it
        }
        let before = self.pause_ms.load(Ordering::Relaxed);
        let again = now.mono_ms - until < PAUSE_LAST_MS;
        let pause = if again { (before * 2).clamp(PAUSE_FIRST_MS, PAUSE_LAST_MS) } else { PAUSE_FIRST_MS };
        self.pause_ms.store(pause, Ordering::Relaxed);
        self.paused_until_ms.store(now.mono_ms + pause, Ordering::Relaxed);
        true
    }

    /// How much longer none is to be read, in milliseconds.
    #[must_use]
    pub fn paused_for_ms(&self, now: Now) -> Option<u64> {
        let until = self.paused_until_ms.load(Ordering::Relaxed);
        until.checked_sub(now.mono_ms).filter(|left| *left > 0)
    }

    /// Whether a local client could hardly keep up lately: then less is read at once, since all of it has to fit into
    /// what is left of that client's queue.
    #[must_use]
    pub fn is_pressed(&self, now: Now) -> bool {
        now.mono_ms < self.paused_until_ms.load(Ordering::Relaxed).saturating_add(PAUSE_LAST_MS)
    }

    /// How many there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts one more, if there may be that many.
    pub fn enter(&self, most: usize) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= most {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
        before < most
    }

    /// One is gone.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts what came over a link into a group, and deletes it.
pub(super) struct SeenWriter<'a> {
    pub(super) link: &'a str,
    pub(super) filling: &'a mut Filling,
}

impl SeenKeeper for SeenWriter<'_> {
    fn put(&mut self, number: u64, client_id: &str, ids: &[[u8; 16]]) {
        let write = |out: &mut Vec<u8>| put_seen(out, self.link, client_id, ids);
        self.filling.group.put(Table::Seen, Key::Number(number), None, write);
    }

    fn delete(&mut self, number: u64) {
        self.filling.group.delete(Table::Seen, Key::Number(number));
    }
}

/// The last so many messages that came over this connection of a peer were new: whoever is told that they are taken is told
/// so when that is kept, together with what they led to.
pub fn keep_seen(seen: &mut Seen, link: &str, place: Place, count: usize, burst: &Burst<'_>) {
    if count > 0 {
        burst.append(true, |filling| {
            seen.keep(place, count, burst.numbers(), &mut SeenWriter { link, filling });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_while_they_do_not_help() {
        let incoming = Incoming::default();
        let mut now = Now { mono_ms: 1_000_000, unix_ms: 0 };
        for expected in [5, 10, 20, 40, 80, 160, 250, 250] {
            assert!(incoming.pause(now) && !incoming.pause(now));
            assert_eq!(incoming.paused_for_ms(now), Some(expected));
            now = now.plus_ms(expected);
            assert!(incoming.paused_for_ms(now).is_none() && incoming.is_pressed(now));
        }
        now = now.plus_ms(PAUSE_LAST_MS);
        assert!(!incoming.is_pressed(now) && incoming.pause(now));
        assert_eq!(incoming.paused_for_ms(now), Some(PAUSE_FIRST_MS));
    }
}
