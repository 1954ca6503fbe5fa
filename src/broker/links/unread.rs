//! Bytes of packets that are not complete yet, on all connections of a peer together.
//!
//! When there are too many of them, only one connection is read on: the one that has the most, so that it is the next to
//! become complete and to free what it holds. The others wait, each for a time: should the peer never send the rest of that
//! one, they end, rather than wait for each other for ever. So what is held is bounded by `BYTES_MAX` and one packet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::time::Now;

/// Bytes of incomplete packets that all connections of a peer together may keep here.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// So many of the largest may be under way in any case.
const PACKETS_MIN: usize = 4;
/// How long a connection waits before it looks again.
const WAIT_MS: u64 = 20;
/// How long one waits altogether.
const PATIENCE_MS: u64 = 10_000;

/// What all connections of a peer hold.
#[derive(Debug, Default)]
pub struct Unread {
    bytes: AtomicUsize,
    next: AtomicU64,
    /// Those that asked while there was too much, with what they hold. Nobody asks this otherwise.
    crowding: Mutex<BTreeMap<u64, usize>>,
}

/// Whether a connection is read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It is.
    GoesOn,
    /// Not for so many milliseconds.
    Waits(u64),
    /// It has waited long enough.
    GivesUp,
}

/// What one connection holds, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    unread: Arc<Unread>,
    number: u64,
    bytes: usize,
    is_listed: bool,
    waits_since_ms: Option<u64>,
}

impl Hold {
    /// Nothing yet.
    #[must_use]
    pub fn of(unread: &Arc<Unread>) -> Self {
        let number = unread.next.fetch_add(1, Ordering::Relaxed);
        Self { unread: Arc::clone(unread), number, bytes: 0, is_listed: false, waits_since_ms: None }
    }

    /// So many bytes of its packet have come by now.
    pub fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.unread.bytes.fetch_add(bytes - before, Ordering::Relaxed);
        } else if bytes < before {
            self.unread.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            if std::mem::take(&mut self.is_listed) {
                self.unread.crowding.lock().remove(&self.number);
            }
        }
    }

    /// Whether the connection may be read on, where packets have `packet_max` bytes at most.
    pub fn reading(&mut self, packet_max: usize, now: Now) -> Reading {
        let most = BYTES_MAX.max(packet_max.saturating_mul(PACKETS_MIN));
        if self.unread.bytes.load(Ordering::Relaxed) <= most || self.is_largest() {
            self.waits_since_ms = None;
            return Reading::GoesOn;
        }
        let since_ms = *self.waits_since_ms.get_or_insert(now.mono_ms);
        if now.mono_ms - since_ms >= PATIENCE_MS { Reading::GivesUp } else { Reading::Waits(WAIT_MS) }
    }

    /// Whether it holds more than all others that ask.
    fn is_largest(&mut self) -> bool {
        self.is_listed = true;
        let mut crowding = self.unread.crowding.lock();
        crowding.insert(self.number, self.bytes);
        let mine = (self.bytes, self.number);
        crowding.iter().all(|(number, bytes)| (*bytes, *number) <= mine)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(0);
        if self.is_listed {
            self.unread.crowding.lock().remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1 << 20;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn where_too_much_is_incomplete_the_largest_goes_on_and_the_others_wait_for_it() {
        let unread = Arc::<Unread>::default();
        let [mut first, mut second, mut third] = [0; 3].map(|_| Hold::of(&unread));
        first.set(BYTES_MAX - PACKET);
        second.set(PACKET);
        assert_eq!(second.reading(PACKET, at(0)), Reading::GoesOn, "this much may be");
        third.set(1);
        assert_eq!(first.reading(PACKET, at(0)), Reading::GoesOn);
        assert_eq!(second.reading(PACKET, at(0)), Reading::Waits(WAIT_MS));
        assert_eq!(third.reading(PACKET, at(0)), Reading::Waits(WAIT_MS));
        first.set(BYTES_MAX);
        assert_eq!(first.reading(PACKET, at(5)), Reading::GoesOn, "it stays the largest");
        first.set(0);
        assert_eq!(second.reading(PACKET, at(5)), Reading::GoesOn);
        assert_eq!(third.reading(PACKET, at(5)), Reading::GoesOn);
    }

    #[test]
    fn one_of_those_that_ask_always_goes_on() {
        let unread = Arc::<Unread>::default();
        let mut holds: Vec<Hold> = (0..70).map(|_| Hold::of(&unread)).collect();
        holds.iter_mut().for_each(|hold| hold.set(PACKET));
        // The largest may have begun to ask later than others, and each completes in its turn.
        while unread.bytes.load(Ordering::Relaxed) > BYTES_MAX {
            let asked: Vec<Reading> = holds.iter_mut().map(|hold| hold.reading(PACKET, at(0))).collect();
            let asked_again: Vec<Reading> =
                holds.iter_mut().map(|hold| hold.reading(PACKET, at(0))).collect();
            let go_on: Vec<usize> = (0..70).filter(|index| asked_again[*index] == Reading::GoesOn).collect();
            assert!(go_on.len() == 1 && asked[go_on[0]] == Reading::GoesOn, "{go_on:?}");
            holds[go_on[0]].set(0);
        }
        assert!(holds.iter_mut().all(|hold| hold.reading(PACKET, at(0)) == Reading::GoesOn));
        holds.clear();
        assert!(unread.bytes.load(Ordering::Relaxed) == 0 && unread.crowding.lock().is_empty());
    }

    #[test]
    fn nobody_waits_for_ever_for_one_that_does_not_go_on() {
        let unread = Arc::<Unread>::default();
        let (mut stalls, mut waits) = (Hold::of(&unread), Hold::of(&unread));
        stalls.set(BYTES_MAX);
        waits.set(1);
        assert_eq!(stalls.reading(PACKET, at(0)), Reading::GoesOn);
        assert_eq!(waits.reading(PACKET, at(7)), Reading::Waits(WAIT_MS));
        assert_eq!(waits.reading(PACKET, at(7 + PATIENCE_MS - 1)), Reading::Waits(WAIT_MS));
        assert_eq!(waits.reading(PACKET, at(7 + PATIENCE_MS)), Reading::GivesUp);
        drop(stalls);
        assert_eq!(waits.reading(PACKET, at(8 + PATIENCE_MS)), Reading::GoesOn);
    }

    #[test]
    fn a_few_of_the_largest_packets_are_always_allowed() {
        let unread = Arc::<Unread>::default();
        let (mut first, mut second) = (Hold::of(&unread), Hold::of(&unread));
        first.set(2 * BYTES_MAX);
        second.set(2 * BYTES_MAX);
        assert_eq!(second.reading(BYTES_MAX, at(0)), Reading::GoesOn);
        assert_eq!(first.reading(BYTES_MAX, at(0)), Reading::GoesOn);
    }
}
