//! So many in so much time.

use std::fmt;
use std::time::Duration;

/// A rate such as `100/s`: all of it may come at once, then again as time passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; not zero.
    pub amount: u32,
    /// In what time; at least a millisecond, at most a day.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.amount, self.per)
    }
}

/// What one client may send per time; `None` is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Application Messages.
    pub messages: Option<Rate>,
    /// Bytes of Control Packets.
    pub bytes: Option<Rate>,
}
