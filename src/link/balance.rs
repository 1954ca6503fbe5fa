//! Whether a sender's books and its receiver's agree, although neither can look into the other's at one moment.
//!
//! Both count since they came to life, so there is an unknown constant between them: what the receiver had counted before
//! the sender began. Each exchange puts it between two bounds: the receiver has at least what was acknowledged before it
//! answered, and at most what was ever sent by then. While nothing is lost or comes twice, all these intervals have a
//! number in common. When they have none, the gap is the number of messages that nobody accounts for.

use crate::link::extension::Received;
use crate::link::extension::Sent;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// The lives of sender and receiver that this is about.
    epochs: (u64, u64),
    bounds: Option<Bounds>,
    unaccounted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    low: i128,
    high: i128,
}

impl Balance {
    /// The receiver answered to the books `before` with `received`; meanwhile ours have become `after`. What nobody
    /// accounts for.
    pub fn compare(&mut self, before: &Sent, received: &Received, after: &Sent) -> u64 {
        let epochs = (after.epoch_ms, received.epoch_ms);
        if self.epochs != epochs || before.epoch_ms != after.epoch_ms {
            *self = Self { epochs, ..Self::default() };
        }
        if before.epoch_ms != after.epoch_ms {
            return 0;
        }
        let came = i128::from(received.received);
        let low = came - i128::from(after.reached_max());
        let high = came - i128::from(before.acknowledged);
        let bounds = self.bounds.map_or(Bounds { low, high }, |known| Bounds {
            low: known.low.max(low),
            high: known.high.min(high),
        });
        self.bounds = Some(bounds);
        self.unaccounted = u64::try_from(bounds.low - bounds.high).unwrap_or(0);
        self.unaccounted
    }

    /// What the last comparison left.
    #[must_use]
    pub fn unaccounted(&self) -> u64 {
        self.unaccounted
    }

    /// Whether there was a comparison since both came to life.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.bounds.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(acknowledged: u64, in_flight: u64) -> Sent {
        Sent { epoch_ms: 1, acknowledged, in_flight, ..Sent::default() }
    }

    fn received(received: u64) -> Received {
        Received { epoch_ms: 2, received, ..Received::default() }
    }

    #[test]
    fn books_of_two_that_lose_nothing_agree_at_any_moment() {
        let mut balance = Balance::default();
        assert!(!balance.is_known());
        // The receiver had 1,000 before the sender's life began. What is under way is somewhere in between.
        for (before, came, after) in [
            (sent(10, 5), 1_012, sent(20, 9)),
            (sent(100, 0), 1_100, sent(100, 0)),
            (sent(150, 32), 1_190, sent(190, 32)),
            (sent(200, 0), 1_200, sent(200, 40)),
        ] {
            assert_eq!(balance.compare(&before, &received(came), &after), 0);
        }
        assert!(balance.is_known());
    }

    #[test]
    fn a_message_that_was_acknowledged_and_never_came_is_missed() {
        let mut balance = Balance::default();
        assert_eq!(balance.compare(&sent(0, 0), &received(0), &sent(0, 0)), 0);
        assert_eq!(balance.compare(&sent(50, 0), &received(48), &sent(50, 0)), 2);
        assert_eq!(balance.compare(&sent(90, 3), &received(88), &sent(90, 3)), 2, "it stays missed");
        assert_eq!(balance.unaccounted(), 2);
    }

    #[test]
    fn a_message_that_came_twice_is_noticed() {
        let mut balance = Balance::default();
        assert_eq!(balance.compare(&sent(10, 0), &received(10), &sent(10, 0)), 0);
        assert_eq!(balance.compare(&sent(20, 0), &received(21), &sent(20, 0)), 1);
    }

    #[test]
    fn what_was_dropped_after_it_was_sent_may_have_come_or_not() {
        let mut balance = Balance::default();
        assert_eq!(balance.compare(&sent(10, 0), &received(10), &sent(10, 0)), 0);
        let mut books = sent(10, 0);
        books.dropped[0] = 4;
        assert_eq!(balance.compare(&books, &received(12), &books), 0);
        assert_eq!(balance.compare(&books, &received(15), &books), 1);
    }

    #[test]
    fn a_new_life_of_either_begins_anew() {
        let mut balance = Balance::default();
        assert_eq!(balance.compare(&sent(10, 0), &received(5), &sent(10, 0)), 0);
        assert_eq!(balance.compare(&sent(20, 0), &received(5), &sent(20, 0)), 10);
        let restarted = Received { epoch_ms: 3, ..Received::default() };
        assert_eq!(balance.compare(&sent(20, 0), &restarted, &sent(20, 0)), 0);
        let other_life = Sent { epoch_ms: 7, ..sent(0, 0) };
        assert_eq!(balance.compare(&sent(20, 0), &restarted, &other_life), 0);
        assert!(!balance.is_known());
    }
}
