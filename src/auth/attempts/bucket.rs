//! How failures add up to a delay, and how many attempts may be verified at a time.

/// Longest delay.
pub const DELAY_MS_MAX: u64 = 300_000;
/// One failure is forgotten in this time.
pub(super) const FORGET_MS: u64 = 60_000;

/// A bucket of failures: empty at first, over its burst it holds for a time that doubles.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failures {
    pub(super) count: u32,
    /// Attempts that are being verified.
    pub(super) pending: u32,
    /// Until when it holds; what is counted is forgotten from then on.
    held_until: u64,
    pub(super) last: u64,
    /// When the last attempt began or failed.
    touched: u64,
}

impl Failures {
    pub(super) fn counted(&self, now_ms: u64) -> u32 {
        let steps = now_ms.saturating_sub(self.held_until) / FORGET_MS;
        self.count.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    pub(super) fn fail(&mut self, burst: u32, now_ms: u64) {
        let steps = now_ms.saturating_sub(self.held_until) / FORGET_MS;
        self.count = (self.counted(now_ms) + 1).min(burst + 32);
        self.held_until += steps * FORGET_MS;
        (self.last, self.touched) = (now_ms, now_ms);
        let over = self.count.saturating_sub(burst);
        let delay = if over == 0 { 0 } else { (1000u64 << (over - 1).min(20)).min(DELAY_MS_MAX) };
        self.held_until = self.held_until.max(now_ms + delay);
    }

    pub(super) fn holds(&self, burst: u32, now_ms: u64) -> bool {
        self.count > burst && now_ms < self.held_until
    }

    /// Whether one more may be verified beside those that are, should they all fail.
    pub(super) fn has_room(&self, burst: u32, now_ms: u64) -> bool {
        self.pending == 0 || self.counted(now_ms) + self.pending <= burst
    }

    pub(super) fn begin(&mut self, now_ms: u64) {
        self.pending += 1;
        self.touched = now_ms;
    }

    /// Whether nothing is left of it.
    pub(super) fn over(&mut self) -> bool {
        self.pending = self.pending.saturating_sub(1);
        self.pending == 0 && self.count == 0
    }

    pub(super) fn rank(&self) -> u64 {
        self.held_until.max(self.touched)
    }
}
