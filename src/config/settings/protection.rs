//! `[overload_protection]` and `[flapping_detect]`.

use std::fmt;
use std::time::Duration;

/// `[overload_protection]`: what the broker as a whole may take. Its name is EMQX's, most of its keys are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverloadProtection {
    /// Memory of the whole process.
    pub max_memory: MemoryCeiling,
    /// How late the I/O thread may be before new clients are refused; `None` is any time.
    pub max_lag: Option<Duration>,
    /// Sessions, connected or not.
    pub max_sessions: usize,
    /// Subscriptions of all sessions together.
    pub max_total_subscriptions: usize,
}

/// A bound of the memory that the process has resident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryCeiling {
    /// None.
    Infinity,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what the machine, or the control group of the process, has.
    Percent(u8),
}

impl fmt::Display for MemoryCeiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infinity => f.write_str("infinity"),
            Self::Bytes(bytes) => write!(f, "{bytes}B"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// `[flapping_detect]`: EMQX's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlappingDetect {
    /// Whether it is on.
    pub enable: bool,
    /// In what time.
    pub window_time: Duration,
    /// How many connections a client may end.
    pub max_count: u32,
    /// For how long it is banned then.
    pub ban_time: Duration,
}
