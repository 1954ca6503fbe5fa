//! Time as a value. A driver reads the clock once per turn and hands a [`Now`] to every core it calls;
//! no core reads a clock itself, so that a simulation can move time as it likes.

/// One reading of both clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since an arbitrary start; never goes backwards. Use it for every timer.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch; may jump. Use it only for what leaves this process.
    pub unix_ms: u64,
}

impl Now {
    /// The same moment, `ms` milliseconds later on both clocks.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self { mono_ms: self.mono_ms.saturating_add(ms), unix_ms: self.unix_ms.saturating_add(ms) }
    }
}
