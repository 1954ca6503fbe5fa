//! The only place that reads the clocks. A driver calls [`now`] once per turn and hands the value on.

use std::sync::OnceLock;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::time::Now;

/// Both clocks. The monotonic one starts at the first call.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let instant = Instant::now();
    let start = *START.get_or_init(|| instant);
    let mono_ms = instant.saturating_duration_since(start).as_millis();
    // A clock set before 1970 counts as 1970.
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Now {
        mono_ms: u64::try_from(mono_ms).unwrap_or(u64::MAX),
        unix_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back_and_the_other_is_of_this_century() {
        let first = now();
        let second = now();
        assert!(second.mono_ms >= first.mono_ms);
        assert!(first.unix_ms > 946_684_800_000);
    }
}
