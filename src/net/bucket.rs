//! A token bucket: full at the beginning, filled evenly as time passes. The moment is an argument.
//!
//! It may be emptied below nothing, by what could not be known beforehand; that is made up for first.

use crate::config::settings::Rate;

/// What whoever waits is to find, as what comes in so many milliseconds.
const SOME_MS: i64 = 10;

/// What is left of a [`Rate`].
#[derive(Debug, Clone)]
pub struct Bucket {
    /// In parts of a token, of which each millisecond brings `amount` and `per_ms` make one. All products fit: a rate
    /// is at most 2^32 in a day.
    parts: i64,
    amount: i64,
    per_ms: i64,
    filled_ms: u64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: Rate, now_ms: u64) -> Self {
        let (amount, per_ms) =
            (i64::from(rate.amount), i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX));
        Self { parts: amount.saturating_mul(per_ms), amount, per_ms, filled_ms: now_ms }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let taken = self.available(now_ms) > 0;
        if taken {
            self.spend(1);
        }
        taken
    }

    /// How many tokens there are.
    pub fn available(&mut self, now_ms: u64) -> u64 {
        let passed = i64::try_from(now_ms.saturating_sub(self.filled_ms)).unwrap_or(i64::MAX);
        self.filled_ms = self.filled_ms.max(now_ms);
        let full = self.amount.saturating_mul(self.per_ms);
        self.parts = self.parts.saturating_add(passed.saturating_mul(self.amount)).min(full);
        u64::try_from(self.parts / self.per_ms).unwrap_or(0)
    }

    /// Takes so many tokens, whether they are there or not.
    pub fn spend(&mut self, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.parts = self.parts.saturating_sub(count.saturating_mul(self.per_ms));
    }

    /// How long it takes until there are some, in milliseconds, if there are none: about ten milliseconds' worth, so that
    /// whoever waits need not wait again for each of them, but not so many that the bucket overflows meanwhile.
    pub fn wait_ms(&mut self, now_ms: u64) -> Option<u64> {
        if self.available(now_ms) > 0 {
            return None;
        }
        let some = (self.amount.saturating_mul(SOME_MS) / self.per_ms).clamp(1, (self.amount / 2).max(1));
        let missing = some.saturating_mul(self.per_ms).saturating_sub(self.parts);
        Some(missing.unsigned_abs().div_ceil(self.amount.unsigned_abs()))
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

    #[test]
    fn what_was_spent_too_much_is_made_up_for_first() {
        let mut bucket = Bucket::new(rate(1_000, 1_000), 0);
        bucket.spend(3_000);
        assert_eq!((bucket.available(1_999), bucket.wait_ms(1_999)), (0, Some(11)), "ten tokens, not one");
        assert_eq!((bucket.available(2_001), bucket.wait_ms(2_001)), (1, None));
        let mut slow = Bucket::new(rate(1, 86_400_000), 0);
        slow.spend(1);
        assert_eq!(slow.wait_ms(400_000), Some(86_000_000));
    }

    #[test]
    fn the_largest_rate_does_not_overflow() {
        let mut bucket = Bucket::new(rate(u32::MAX, 86_400_000), 0);
        bucket.spend(u64::from(u32::MAX));
        assert_eq!(bucket.available(0), 0);
        assert_eq!(bucket.available(u64::MAX), u64::from(u32::MAX));
        bucket.spend(u64::MAX);
        assert!(bucket.wait_ms(u64::MAX).is_some());
    }

    /// The same in exact arithmetic: tokens as fractions, `(numerator, per_ms)`.
    struct Naive {
        rate: Rate,
        tokens: i128,
        at: u64,
    }

    impl Naive {
        fn available(&mut self, now: u64) -> u64 {
            let (amount, per) = (i128::from(self.rate.amount), self.rate.per.as_millis() as i128);
            for _ in self.at..now {
                self.tokens = (self.tokens + amount).min(amount * per);
            }
            self.at = now;
            u64::try_from(self.tokens.div_euclid(per)).unwrap_or(0)
        }
    }

    proptest! {
        /// Step by step the same as the naive model; and whoever waits as long as is said has something then, and had
        /// nothing all the while.
        #[test]
        fn as_the_naive_model(amount in 1u32..5_000, ms in 1u64..10_000, steps in proptest::collection::vec((0u64..300, 0u64..9_000), 1..60)) {
            let rate = rate(amount, ms);
            let mut bucket = Bucket::new(rate, 0);
            let mut naive = Naive { rate, tokens: i128::from(amount) * i128::from(ms), at: 0 };
            let mut now = 0;
            for (passed, wanted) in steps {
                now += passed;
                let there = bucket.available(now);
                prop_assert_eq!(there, naive.available(now));
                let spent = if wanted % 2 == 0 { wanted.min(there) } else { wanted };
                bucket.spend(spent);
                naive.tokens -= i128::from(spent) * i128::from(ms);
                if let Some(wait) = bucket.wait_ms(now) {
                    prop_assert!(wait > 0);
                    let mut later = bucket.clone();
                    prop_assert!(later.available(now + wait) > 0, "after {} ms", wait);
                } else {
                    prop_assert!(naive.available(now) > 0);
                }
            }
        }

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
