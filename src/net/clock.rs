//! The only place that reads the clocks. A driver calls [`now`] once per turn and hands the value on.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::time::Now;

/// What to add to the monotonic clock to get the time of day.
static UNIX_OFFSET_MS: AtomicU64 = AtomicU64::new(0);

/// Both clocks. The monotonic one starts at the first call. The time of day is the monotonic clock plus an
/// offset, which [`refresh`] brings up to date: reading one clock is cheaper than reading two, and this is done at
/// every wake-up.
#[must_use]
pub fn now() -> Now {
    let mono_ms = mono_ms();
    Now { mono_ms, unix_ms: UNIX_OFFSET_MS.load(Ordering::Relaxed) + mono_ms }
}

/// Follows changes of the time of day. A broker does this twice a second.
pub fn refresh() {
    set_offset(mono_ms());
}

/// Microseconds of the monotonic clock: to measure how long something takes.
#[must_use]
pub fn mono_us() -> u64 {
    u64::try_from(since_start().as_micros()).unwrap_or(u64::MAX)
}

fn mono_ms() -> u64 {
    u64::try_from(since_start().as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let instant = Instant::now();
    let start = *START.get_or_init(|| {
        set_offset(0);
        instant
    });
    instant.saturating_duration_since(start)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
fn set_offset(mono_ms: u64) {
    // A clock set before 1970 counts as 1970.
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
    UNIX_OFFSET_MS.store(unix_ms.saturating_sub(mono_ms), Ordering::Relaxed);
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
