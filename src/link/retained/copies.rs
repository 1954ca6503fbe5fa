//! Which is newer: what a page says, what came live, or what is there. Stamps of one peer are by one clock and order its
//! messages. What came before a page was asked for is older than the page, whatever the stamps say: the peer stores
//! a message before it forwards it. Only what came since needs a look, and is remembered until the page was applied.

use std::collections::HashMap;

/// Topics that came live while a page was under way, at most.
pub const CAME_MAX: usize = 65_536;
/// Bytes of their names.
const CAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A message is retained within this time after it got its stamp.
const STORED_MS: u64 = 2_000;
/// Nothing comes as much later than another message that this stamp is from before that one: a clock was set back.
const SET_BACK_MS: u64 = 60_000;

/// What is under a Topic Name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A copy from this peer, with its stamp.
    Copy(u64),
    /// What was published here or is another peer's, with its stamp.
    Other(u64),
}

/// What to do about a copy that is not in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The peer has it no more.
    Gone,
    /// It is newer than the page.
    Newer,
    /// It may be either.
    Unsure,
}

/// Whether a message that came live is newer than what is there.
#[must_use]
pub fn is_newer(stamp_ms: u64, present: Present) -> bool {
    match present {
        Present::Nothing => true,
        Present::Copy(known_ms) => stamp_ms >= known_ms || stamp_ms.saturating_add(SET_BACK_MS) < known_ms,
        Present::Other(known_ms) => stamp_ms > known_ms,
    }
}

/// What came from one peer while a page is under way.
#[derive(Debug, Default)]
pub struct Copies {
    /// Counts the requests: a page of an earlier one is none any more.
    asked: u64,
    came: Option<HashMap<Box<str>, u64>>,
    bytes: usize,
    overflowed: bool,
}

impl Copies {
    /// A page is about to be asked for.
    pub fn ask(&mut self) {
        *self = Self { asked: self.asked + 1, came: Some(HashMap::new()), bytes: 0, overflowed: false };
    }

    /// The number of the last request.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether the page of this request can be applied.
    #[must_use]
    pub fn is_current(&self, asked: u64) -> bool {
        self.asked == asked && !self.overflowed
    }

    /// The page was applied, or will never be.
    pub fn rest(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }

    /// A message came live, be it a deletion.
    pub fn note(&mut self, topic: &str, stamp_ms: u64) {
        let Some(came) = self.came.as_mut().filter(|_| !self.overflowed) else { return };
        if let Some(known) = came.get_mut(topic) {
            *known = stamp_ms.max(*known);
            return;
        }
        self.bytes += topic.len();
        if came.len() >= CAME_MAX || self.bytes > CAME_BYTES_MAX {
            self.overflowed = true;
            came.clear();
            came.shrink_to_fit();
            return;
        }
        came.insert(topic.into(), stamp_ms);
    }

    fn came(&self, topic: &str) -> Option<u64> {
        self.came.as_ref()?.get(topic).copied()
    }

    /// Whether a message of a page is newer than what is there, or what was there and came away. `is_same` says whether
    /// it has the content of what is there: many messages may have one stamp.
    #[must_use]
    pub fn page(&self, topic: &str, stamp_ms: u64, present: Present, is_same: bool) -> bool {
        let came = self.came(topic);
        match present {
            _ if came.is_some_and(|came_ms| came_ms >= stamp_ms) => false,
            Present::Nothing => true,
            Present::Copy(known_ms) if came.is_some() => stamp_ms > known_ms,
            Present::Copy(known_ms) => stamp_ms != known_ms || !is_same,
            Present::Other(known_ms) => stamp_ms > known_ms,
        }
    }

    /// A copy with this stamp is not in a page of that moment.
    #[must_use]
    pub fn missing(&self, topic: &str, stamp_ms: u64, as_of_ms: u64) -> Missing {
        if self.came(topic).is_none() || stamp_ms.saturating_add(STORED_MS) < as_of_ms {
            Missing::Gone
        } else if stamp_ms >= as_of_ms {
            Missing::Newer
        } else {
            Missing::Unsure
        }
    }
}
