//! The settings of a lane, the bytes it may use, and the counters of its ledger.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::link::ingress::DropReason;
use crate::link::lane::MAX_INFLIGHT;
use crate::link::lane::kept::Keep;

/// What to do when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// Drop the oldest message that is not in flight.
    #[default]
    DropOldest,
    /// Drop the new message.
    DropNew,
    /// Tell the publisher.
    Refuse,
}

/// What a lane takes of a budget at once, beside what its messages need; it keeps twice of that at most.
const CREDIT_BYTES_MAX: u64 = 16 * 1024;
/// Less than this is not worth it: small budgets are counted to the byte.
const CREDIT_BYTES_MIN: u64 = 1024;
/// What part of the budget that is at most: all 1,024 lanes that a link may have hold a 16th of it, messages aside.
const CREDIT_PART: u64 = 32 * 1024;

/// The bytes all lanes of one link may spool together.
#[derive(Debug)]
pub struct SpoolBudget {
    limit: u64,
    used: AtomicU64,
}

impl SpoolBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let take = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// What a lane may take on credit.
    pub(super) fn step(&self) -> u64 {
        let part = self.limit / CREDIT_PART;
        if part < CREDIT_BYTES_MIN { 0 } else { part.min(CREDIT_BYTES_MAX) }
    }

    /// Takes them whether they are granted or not.
    pub(super) fn force(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes granted.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

/// Whether a spool is filling up: from four fifths on, and until it is below seven tenths again, so that one that is
/// about that full does not raise the alarm again and again.
#[must_use]
pub fn is_filling(was_filling: bool, bytes: u64, limit: u64) -> bool {
    let tenths = if was_filling { 7 } else { 8 };
    u128::from(bytes) * 10 >= u128::from(limit) * tenths
}

/// The settings of a lane.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// The most that a window chosen by the lane may be.
    pub window_max: u16,
    /// Our own bound on unacknowledged messages, `None` to find it; the peer's Receive Maximum may lower it.
    pub max_inflight: Option<u16>,
    /// The topic we publish to: with the peer's Maximum Packet Size it bounds the message.
    pub topic: Arc<str>,
    /// What is older than this is dropped instead of sent; `None` keeps it.
    pub max_age_ms: Option<u64>,
    /// What to do when the budget is used up.
    pub on_full: OnFull,
    /// Whether QoS 0 messages wait while there is no connection.
    pub qos0: bool,
    /// Where messages of QoS 1 and 2 are kept, if they are to outlive the process.
    pub keep: Option<Keep>,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            max_inflight: Some(MAX_INFLIGHT),
            window_max: u16::MAX,
            topic: Arc::default(),
            max_age_ms: None,
            on_full: OnFull::default(),
            qos0: false,
            keep: None,
        }
    }
}

/// Where the messages went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneCounters {
    /// Handed to the lane.
    pub pushed: u64,
    /// Handed to the connection, repetitions included.
    pub sent: u64,
    /// Handed to the connection again, marked DUP.
    pub resent: u64,
    /// Acknowledged by the peer.
    pub acked: u64,
    /// QoS 0 handed to the connection: no one will ever know more.
    pub fired: u64,
    /// Refused by the peer.
    pub failed: u64,
    /// Dropped by us, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl LaneCounters {
    /// Dropped by us, for whatever reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}
