//! A token bucket: full at the beginning, filled evenly as time passes. The moment is an argument.

use crate::config::settings::Rate;

/// What is left of a [`Rate`].
#[derive(Debug, Clone)]
pub struct Bucket {
    /// In parts of a token, of which each millisecond brings `amount`.
    parts: u64,
    amount: u64,
    per_ms: u64,
    filled_ms: u64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: Rate, now_ms: u64) -> Self {
        let (amount, per_ms) =
            (u64::from(rate.amount), u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX));
        Self { parts: amount.saturating_mul(per_ms), amount, per_ms, filled_ms: now_ms }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let full = self.amount.saturating_mul(self.per_ms);
        self.parts = self.parts.saturating_add(passed.saturating_mul(self.amount)).min(full);
        let taken = self.parts >= self.per_ms;
        if taken {
            self.parts -= self.per_ms;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rate(amount: u32, ms: u64) -> Rate {
        Rate { amount, per: Duration::from_millis(ms) }
    }

    #[test]
    fn all_at_once_and_then_one_by_one() {
        let mut bucket = Bucket::new(rate(4, 1000), 7);
        assert_eq!((0..6).filter(|_| bucket.take(7)).count(), 4);
        assert!(!bucket.take(256) && bucket.take(257) && !bucket.take(257));
        assert!(bucket.take(1257), "not more than the bucket holds comes back");
        assert_eq!((0..6).filter(|_| bucket.take(1_000_000)).count(), 4);
        assert!(!bucket.take(0), "a clock that goes back brings nothing");
    }

    proptest! {
        /// In any stretch of time: no more than the bucket and what flowed in, and no fewer than asked for of it.
        #[test]
        fn no_more_than_the_rate(amount in 1u32..1000, ms in 1u64..100_000, steps in proptest::collection::vec(0u64..500, 1..300)) {
            let mut bucket = Bucket::new(rate(amount, ms), 0);
            let (mut now, mut taken, mut refused) = (0, 0, 0);
            for step in steps {
                now += step;
                if bucket.take(now) { taken += 1 } else { refused += 1 }
                let most = u64::from(amount) + now * u64::from(amount) / ms;
                prop_assert!(taken <= most);
            }
            prop_assert!(refused == 0 || taken >= u64::from(amount));
        }
    }
}
