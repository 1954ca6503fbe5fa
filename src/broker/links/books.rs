//! The messages between us and a peer of ours, by its books and by ours.

use crate::broker::links::Link;
use crate::link::balance::Balance;
use crate::link::extension::Received;
use crate::link::extension::Sent;
use crate::time::Now;

/// What a peer of ours said last of the messages between us.
#[derive(Debug, Default)]
pub struct PeerBooks {
    /// What it has sent us, and when it said so, on the monotonic clock.
    pub sent: Option<(Sent, u64)>,
    /// What came to it from us, and when it said so.
    pub received: Option<(Received, u64)>,
    /// Its books against ours.
    pub balance: Balance,
}

impl Link {
    /// What became of the messages to the peer.
    #[must_use]
    pub fn sent(&self) -> Sent {
        let unaccounted = self.books.lock().balance.unaccounted();
        Sent { epoch_ms: self.epoch_ms, unaccounted, ..self.forwarder.books() }
    }

    /// The peer says what it has sent us.
    pub fn note_books(&self, sent: Sent, now: Now) {
        self.books.lock().sent = Some((sent, now.mono_ms));
    }

    /// The peer has answered to what we said that we sent, `before`.
    pub fn compare_books(&self, before: &Sent, received: &Received, now: Now) {
        let after = self.sent();
        let books = &mut *self.books.lock();
        books.received = Some((*received, now.mono_ms));
        let known = books.balance.unaccounted();
        let unaccounted = books.balance.compare(before, received, &after);
        if unaccounted == known {
            return;
        }
        self.metrics.ledger_unaccounted.add(unaccounted.cast_signed() - known.cast_signed());
        if unaccounted > known {
            tracing::error!(
                peer = self.peer(),
                unaccounted,
                acknowledged = before.acknowledged,
                received = received.received,
                "the peer's books and ours differ: this is a fault in one of the two"
            );
        }
    }
}
