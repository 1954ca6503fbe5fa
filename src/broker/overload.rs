//! Admission by load: how near the broker is to what it can take, and what it refuses then. Numbers in, a level out;
//! `meter` measures. Nothing here is asked per message: a burst looks once, at one atomic.
//!
//! Memory is what the process has resident. An allocator does not give back all that was freed, so that the resident
//! size of a broker that was full once may stay where it was while the next million messages fit into the holes. What
//! the broker knows to hold itself (queues, retained messages, spools) tells both cases apart: of what it held at the
//! peak and no longer holds, only what did not go back to the system counts as room. Should something else take that
//! room, the resident size passes its peak by more than a little, and counts as it is from then on.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use crate::metrics::labels::LoadLevel;
use crate::metrics::labels::RejectReason;
use crate::mqtt::reason::ReasonCode;

/// From this many hundredths of the ceiling on new clients are refused.
const HIGH_PERCENT: u64 = 85;
/// A level ends this many hundredths of the ceiling below where it began, so that it does not come and go.
const BACK_PERCENT: u64 = 5;
/// From this many hundredths on it is asked what the broker holds, which costs a look at every session.
const COUNT_PERCENT: u64 = 70;
/// Measurements in a row that must be late before the broker counts as late: one may be the machine's doing.
const LATE_IN_A_ROW: u32 = 2;
/// Measurements in a row that must be in time again.
const IN_TIME_IN_A_ROW: u32 = 5;
/// Bytes received after which memory is measured again at once.
const MEASURE_EVERY_BYTES: u64 = 16 * 1024 * 1024;

/// Decides how near the memory is to its ceiling.
#[derive(Debug)]
pub struct Memory {
    ceiling: u64,
    level: LoadLevel,
    peak: Peak,
}

/// When the broker held the most itself.
#[derive(Debug, Default)]
struct Peak {
    held: u64,
    /// What was resident then.
    resident_then: u64,
    /// The most that was resident since.
    resident: u64,
}

impl Memory {
    /// With this ceiling in bytes.
    #[must_use]
    pub fn new(ceiling: u64) -> Self {
        Self { ceiling, level: LoadLevel::Normal, peak: Peak::default() }
    }

    /// The ceiling in bytes.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    fn share(&self, percent: u64) -> u64 {
        self.ceiling / 100 * percent
    }

    /// Whether [`Memory::observe`] needs to know what the broker holds.
    #[must_use]
    pub fn wants_held(&self, resident: u64) -> bool {
        resident >= self.share(COUNT_PERCENT)
    }

    /// The level that this much resident memory comes to, of which the broker holds `held` bytes itself.
    pub fn observe(&mut self, resident: u64, held: u64) -> LoadLevel {
        if !self.wants_held(resident) {
            self.peak = Peak::default();
            self.level = LoadLevel::Normal;
            return self.level;
        }
        let slack = self.share(BACK_PERCENT);
        if held > self.peak.held || resident > self.peak.resident_then + slack {
            self.peak = Peak { held, resident_then: resident, resident };
        }
        self.peak.resident = self.peak.resident.max(resident);
        let freed = self.peak.held - held;
        let in_use = resident.min(self.peak.resident.saturating_sub(freed));
        self.level = self.level_of(in_use);
        self.level
    }

    fn level_of(&self, in_use: u64) -> LoadLevel {
        let slack = self.share(BACK_PERCENT);
        let (high, critical) = (self.share(HIGH_PERCENT), self.ceiling);
        let stays = |from: u64, at: bool| in_use >= if at { from.saturating_sub(slack) } else { from };
        if stays(critical, self.level == LoadLevel::Critical) {
            LoadLevel::Critical
        } else if stays(high, self.level != LoadLevel::Normal) {
            LoadLevel::High
        } else {
            LoadLevel::Normal
        }
    }
}

/// Decides whether the first I/O thread is late: it comes to its timers only when every connection had its turn. The
/// others get connections only while it is busy.
#[derive(Debug, Default)]
pub struct Lag {
    late: bool,
    /// Measurements in a row that speak against `late`.
    against: u32,
}

impl Lag {
    /// Whether it is late, now that a timer came `lag_ms` after its time.
    pub fn observe(&mut self, lag_ms: u64, max_ms: Option<u64>) -> bool {
        let Some(max_ms) = max_ms else {
            *self = Self::default();
            return false;
        };
        let changes = if self.late { lag_ms <= max_ms / 2 } else { lag_ms > max_ms };
        self.against = if changes { self.against + 1 } else { 0 };
        if self.against >= if self.late { IN_TIME_IN_A_ROW } else { LATE_IN_A_ROW } {
            *self = Self { late: !self.late, against: 0 };
        }
        self.late
    }
}

/// The load as everybody sees it: a few atomics.
#[derive(Debug, Default)]
pub struct Load {
    level: AtomicU8,
    late: AtomicBool,
    received: AtomicU64,
    /// Much was received since the last measurement.
    pub(super) measure: Notify,
}

impl Load {
    pub(super) fn set_level(&self, level: LoadLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Notes whether the thread is late.
    pub fn set_late(&self, late: bool) {
        self.late.store(late, Ordering::Relaxed);
    }

    /// How near the memory is to its ceiling.
    #[must_use]
    pub fn level(&self) -> LoadLevel {
        let level = self.level.load(Ordering::Relaxed);
        LoadLevel::ALL.get(usize::from(level)).copied().unwrap_or(LoadLevel::Normal)
    }

    /// Whether new messages are refused.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.level.load(Ordering::Relaxed) == LoadLevel::Critical as u8
    }

    /// Why new clients are refused, if they are: 0x97 for memory, 0x89 while the thread is late (section 3.2.2.2).
    #[must_use]
    pub fn refuses_clients(&self) -> Option<(ReasonCode, RejectReason)> {
        if self.level() != LoadLevel::Normal {
            return Some((ReasonCode::QuotaExceeded, RejectReason::OverloadMemory));
        }
        self.late.load(Ordering::Relaxed).then_some((ReasonCode::ServerBusy, RejectReason::OverloadLag))
    }

    /// The same for people.
    #[must_use]
    pub fn complaint(&self) -> Option<&'static str> {
        match self.refuses_clients()?.1 {
            RejectReason::OverloadLag => Some("new clients are refused: the I/O thread is late"),
            _ if self.is_critical() => {
                Some("new clients and messages are refused: the memory is at its ceiling")
            }
            _ => Some("new clients are refused: the memory is near its ceiling"),
        }
    }

    /// Bytes came in: once per wake-up of a connection. Memory that may have grown much is measured early.
    pub fn note_received(&self, bytes: u64) {
        if self.received.fetch_add(bytes, Ordering::Relaxed) + bytes >= MEASURE_EVERY_BYTES {
            self.received.store(0, Ordering::Relaxed);
            self.measure.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use LoadLevel::Critical;
    use LoadLevel::High;
    use LoadLevel::Normal;

    use super::*;

    #[test]
    fn levels_begin_at_their_marks_and_end_below_them() {
        let mut memory = Memory::new(1_000);
        let table = [
            (10, Normal),
            (849, Normal),
            (850, High),
            (801, High),
            (999, High),
            (1_000, Critical),
            (951, Critical),
            (949, High),
            (799, Normal),
            (849, Normal),
            (2_000, Critical),
            (100, Normal),
        ];
        for (resident, level) in table {
            assert_eq!(memory.observe(resident, 0), level, "{resident}");
        }
    }

    #[test]
    fn what_was_freed_and_not_given_back_is_room() {
        let mut memory = Memory::new(1_000);
        assert_eq!(memory.observe(1_000, 700), Critical);
        assert_eq!(memory.observe(1_000, 690), Critical, "within the slack");
        assert_eq!(memory.observe(1_000, 400), Normal, "300 of it are holes");
        assert_eq!(memory.observe(1_000, 600), High, "filled again");
        assert_eq!(memory.observe(1_000, 700), Critical, "and full");
        assert_eq!(memory.observe(720, 420), Normal, "given back: nothing is counted twice");
        assert_eq!(memory.observe(1_040, 420), Normal, "a little more is no sign");
        assert_eq!(memory.observe(1_051, 420), Critical, "somebody else took the room");
    }

    #[test]
    fn one_late_timer_is_no_lag_and_one_in_time_no_end_of_it() {
        let mut lag = Lag::default();
        let table: [(u64, bool); 12] = [
            (2_001, false),
            (0, false),
            (2_001, false),
            (2_001, true),
            (0, true),
            (1_001, true),
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (1_000, false),
            (2_000, false),
        ];
        for (step, (ms, late)) in table.into_iter().enumerate() {
            assert_eq!(lag.observe(ms, Some(2_000)), late, "step {step}");
        }
        lag.observe(9_000, Some(2_000));
        assert!(lag.observe(9_000, Some(2_000)));
        assert!(!lag.observe(9_000, None), "switched off");
    }

    #[test]
    fn memory_is_a_quota_and_lateness_is_business() {
        let load = Load::default();
        assert_eq!((load.refuses_clients(), load.complaint()), (None, None));
        load.set_late(true);
        assert_eq!(load.refuses_clients(), Some((ReasonCode::ServerBusy, RejectReason::OverloadLag)));
        load.set_level(High);
        assert_eq!(load.refuses_clients(), Some((ReasonCode::QuotaExceeded, RejectReason::OverloadMemory)));
        assert!(!load.is_critical());
        load.set_level(Critical);
        assert!(load.is_critical() && load.complaint().is_some_and(|text| text.contains("messages")));
    }
}
