//! When to try a link's connection again: soon at first, then slower up to a bound, measured from the start
//! of one attempt to the start of the next as EMQX does (`link-protocol.md` 1.4), spread by a random value.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first_ms: u64,
    last_ms: u64,
    failures: u32,
}

impl Backoff {
    /// The first retry after `first_ms`, doubling up to `last_ms`.
    #[must_use]
    pub fn new(first_ms: u64, last_ms: u64) -> Self {
        Self { first_ms: first_ms.max(1), last_ms: last_ms.max(first_ms).max(1), failures: 0 }
    }

    /// The pause until the next attempt starts, counted from the start of the failed one. `random` spreads it
    /// by up to a quarter upwards.
    #[must_use]
    pub fn failed(&mut self, random: u32) -> u64 {
        let pause = self.first_ms.saturating_mul(1_u64.checked_shl(self.failures).unwrap_or(u64::MAX));
        self.failures = (self.failures + 1).min(32);
        spread(pause.min(self.last_ms), random)
    }

    /// The longest pause at once: the peer answered and does not want us.
    #[must_use]
    pub fn refused(&mut self, random: u32) -> u64 {
        self.failures = 32;
        spread(self.last_ms, random)
    }

    /// The link works: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

fn spread(pause: u64, random: u32) -> u64 {
    pause + u64::from(random) * (pause / 4) / u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_start_over() {
        let mut backoff = Backoff::new(500, 5_000);
        let pauses: Vec<u64> = (0..6).map(|_| backoff.failed(0)).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(u32::MAX), 625);
        assert_eq!(backoff.refused(0), 5_000);
        for _ in 0..100 {
            assert_eq!(backoff.failed(0), 5_000);
        }
    }
}
