//! What a session says has to outlive the process: plain values, in the order in which it happened.
//!
//! A session that is kept numbers what it owes. Its driver takes the [`Change`]s after each call, under the lock under which it
//! called, and sees to it that they are stored; what waits for that is the driver's business too.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::mqtt::packet::PacketId;
use crate::session::queue::Owed;

/// One thing to remember.
#[derive(Debug, Clone)]
pub enum Change {
    /// This is owed to the client, under its number; with an identifier if it was sent.
    Owed(Owed, Option<PacketId>),
    /// What was owed is sent.
    Sent {
        /// Its number.
        number: u64,
        /// Its Packet Identifier.
        id: PacketId,
    },
    /// The client has a QoS 2 message: only PUBREL and PUBCOMP are left of it.
    Received {
        /// Its number.
        number: u64,
        /// Its Packet Identifier.
        id: PacketId,
    },
    /// It is owed no more.
    Over {
        /// Its number.
        number: u64,
        /// Whether [`Change::Sent`] said that it was sent.
        noted: bool,
    },
    /// A QoS 2 message with this identifier was taken from the client.
    Taken(PacketId),
    /// The identifier is free again.
    Freed(PacketId),
}

#[derive(Debug)]
struct Inner {
    numbers: Arc<AtomicU64>,
    changes: Vec<Change>,
    sent_in: u64,
    taken_in: u64,
}

/// The changes of one session since they were taken last. Boxed, as sessions that end with their connection keep nothing.
#[derive(Debug, Default)]
pub struct Journal(Option<Box<Inner>>);

impl Journal {
    /// From now on the session is kept, with numbers from there: they rise.
    pub fn begin(&mut self, numbers: &Arc<AtomicU64>) {
        let new =
            || Box::new(Inner { numbers: Arc::clone(numbers), changes: Vec::new(), sent_in: 0, taken_in: 0 });
        self.0.get_or_insert_with(new);
    }

    /// Whether the session is kept.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The next number; 0 if the session is not kept.
    #[inline]
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes a change that `make` makes, if the session is kept.
    #[inline]
    pub fn note(&mut self, make: impl FnOnce() -> Change) {
        if let Some(inner) = &mut self.0 {
            inner.changes.push(make());
        }
    }

    /// Notes that something is owed, if it has a number.
    #[inline]
    pub fn owed(&mut self, owed: &Owed, sent: Option<PacketId>) {
        if owed.number != 0 {
            self.note_owed(owed, sent);
        }
    }

    // Not part of the ways of what need not be kept.
    #[inline(never)]
    fn note_owed(&mut self, owed: &Owed, sent: Option<PacketId>) {
        self.note(|| Change::Owed(owed.clone(), sent));
    }

    /// Notes that what has this number is owed no more, if that is one.
    #[inline]
    pub fn over(&mut self, number: u64) {
        self.over_and(number, false);
    }

    /// The same of something that was sent; `noted`: after it had waited.
    #[inline]
    pub fn over_and(&mut self, number: u64, noted: bool) {
        if number != 0 {
            self.note_over(number, noted);
        }
    }

    #[inline(never)]
    fn note_over(&mut self, number: u64, noted: bool) {
        self.note(|| Change::Over { number, noted });
    }

    /// Whether there is anything to take.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.changes.is_empty())
    }

    /// Remembers in which group is stored what must not be sent before.
    pub fn mark_sent(&mut self, group: u64) {
        if let Some(inner) = &mut self.0 {
            inner.sent_in = group;
        }
    }

    /// In which group is stored what was put into the output last; 0 if it need not be.
    #[must_use]
    pub fn sent_in(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.sent_in)
    }

    /// Remembers in which group is stored what the client did last in an exchange of QoS 2.
    pub fn mark_taken(&mut self, group: u64) {
        if let Some(inner) = &mut self.0 {
            inner.taken_in = group;
        }
    }

    /// In which group that is; 0 if there was nothing.
    #[must_use]
    pub fn taken_in(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.taken_in)
    }

    /// Takes what was noted.
    pub fn take(&mut self) -> Vec<Change> {
        self.0.as_mut().map(|inner| std::mem::take(&mut inner.changes)).unwrap_or_default()
    }
}
