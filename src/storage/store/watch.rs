//! What is wrong with the store, and how much there is of everything.

use std::io;
use std::sync::atomic::Ordering;

use crate::metrics::StoreMetrics;
use crate::net::clock;
use crate::storage::store::Store;
use crate::storage::store::Trouble;

/// What is not committed for so long, or is more than this, makes the storage too slow to take more.
const SLOW_MS: u64 = 2_000;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long after a failure whoever waits is told that it does not work: the next try may.
const GRACE_MS: u64 = 1_000;

/// What is wrong when an error says this.
fn trouble_of(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Trouble::Full
        }
        _ => Trouble::Failing,
    }
}

impl Store {
    /// Bounds the bytes on disk.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.note_size();
    }

    pub(super) fn note_size(&self) {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        if bytes_max != u64::MAX {
            self.is_full.store(self.storage.usage().bytes >= bytes_max, Ordering::Relaxed);
        }
    }

    /// Why nothing more can be kept, if that is so.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        if let Some(trouble) = self.failure() {
            return Some(trouble);
        }
        if self.is_full.load(Ordering::Relaxed) {
            return Some(Trouble::Full);
        }
        let taken_ms = self.taken_ms.load(Ordering::Relaxed);
        let is_slow = taken_ms != 0 && clock::now().mono_ms.saturating_sub(taken_ms) >= SLOW_MS;
        let is_long = self.filling_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX as u64;
        (is_slow || is_long).then_some(Trouble::Slow)
    }

    /// Why the last commit failed.
    fn failure(&self) -> Option<Trouble> {
        let index = self.trouble.load(Ordering::Relaxed).checked_sub(1)?;
        Trouble::ALL.get(usize::from(index)).copied()
    }

    pub(super) fn lasting_trouble(&self) -> Option<Trouble> {
        let trouble = self.failure()?;
        let since_ms = self.trouble_since_ms.load(Ordering::Relaxed);
        (clock::now().mono_ms.saturating_sub(since_ms) >= GRACE_MS).then_some(trouble)
    }

    /// What happened so far.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// Looks at what is not counted along the way.
    pub fn measure(&self) {
        let (usage, metrics) = (self.storage.usage(), &self.metrics);
        metrics.bytes.set_count(usage.bytes);
        metrics.live_bytes.set_count(usage.live_bytes);
        metrics.entries.set_count(usage.entries);
        metrics.bodies.set_count(usage.bodies);
        metrics.segments.set_count(usage.segments);
        metrics.damaged.catch_up(usage.set_aside);
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        metrics.max_bytes.set_count(if bytes_max == u64::MAX { 0 } else { bytes_max });
        metrics.waiting_bytes.set_count(self.waiting_bytes());
        let trouble = self.trouble();
        for kind in Trouble::ALL {
            metrics.trouble[*kind].set(i64::from(trouble == Some(*kind)));
        }
    }

    /// Bytes of changes that are not committed.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.filling_bytes.load(Ordering::Relaxed) + self.taken_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self, error: &io::Error, now_ms: u64) {
        self.metrics.failures.inc();
        let trouble = trouble_of(error);
        if self.trouble.swap(trouble as u8 + 1, Ordering::Relaxed) == 0 {
            self.trouble_since_ms.store(now_ms, Ordering::Relaxed);
            tracing::error!(%error, trouble = trouble.name(), "the store cannot be written; nothing that has to be kept is acknowledged");
        }
    }

    pub(super) fn recover(&self) {
        self.trouble.store(0, Ordering::Relaxed);
    }
}
