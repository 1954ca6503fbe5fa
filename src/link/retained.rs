//! Retained messages between two brokers of ours that both say so. Who subscribes pulls: its replicator asks the peer, page
//! by page in the order of topics, for what that retains under the filters that it was told ([`Puller`]). The peer tells
//! its own ([`pages`]), never copies, so that nothing goes round. What was stored, changed and deleted meanwhile
//! comes out of the pages, whatever a spool has lost; what is published goes on coming over the lanes and is kept as it
//! comes, and a page that was overtaken undoes nothing of it ([`copies`]).
//!
//! One request at a time, and the next one only when the page before it was applied: there is one page in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::link::payload::page::Asked;
use crate::link::payload::page::FILTERS_MAX;
use crate::link::payload::page::KeptMessages;
use crate::link::payload::page::PageAnswer;
use crate::time::Now;

pub mod copies;
pub mod pages;

/// How long the peer may take for an answer.
pub const PAGE_TIMEOUT_MS: u64 = 30_000;
/// Bytes of filters in one request.
const FILTER_BYTES_MAX: usize = 16 * 1024;
/// Pause before what was not certain is asked about once more.
const AGAIN_MS: u64 = 5_000;
/// Pause before a page is asked for that the peer has not yet, or while a local client cannot keep up.
const LATER_MS: u64 = 250;

/// Asks for pages, one after the other.
#[derive(Debug, Default)]
pub struct Puller {
    /// Filters that the peer was told and nothing was asked about yet.
    waiting: BTreeSet<Box<str>>,
    /// Those to be asked about once more, not before this moment.
    again: BTreeSet<Box<str>>,
    again_ms: u64,
    round: Option<Round>,
    number: u64,
    /// A request that is not answered: when it was sent, and the token of its publish.
    asked: Option<(u64, u32)>,
    is_applying: bool,
    /// Nothing is asked before this moment.
    not_before_ms: u64,
}

/// Some filters, from the first topic to the last.
#[derive(Debug)]
struct Round {
    filters: Arc<[Box<str>]>,
    after: Option<Box<str>>,
    /// When its first page was asked for, by the peer's clock.
    since_ms: Option<u64>,
}

/// A page as it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// It has all that the peer retains under these filters,
    pub filters: Arc<[Box<str>]>,
    /// behind this topic
    pub after: Option<Box<str>>,
    /// up to this one.
    pub up_to: Option<Box<str>>,
    /// What was published from here on, by the peer's clock, comes as a message of its own too.
    pub since_ms: u64,
    /// When it was asked for, by the peer's clock.
    pub as_of_ms: u64,
    /// The messages.
    pub messages: KeptMessages,
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Everything is as it should be.
    Done,
    /// The same, and a local client can hardly keep up.
    Pressed,
    /// Of some of it is not known which is newer, page or message: it is to be asked about once more.
    Unsure,
    /// So much came meanwhile that nothing can be said: not applied.
    Overtaken,
}

impl Puller {
    /// The connection is gone, and with it the peer's idea of what it was told.
    pub fn forget(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    /// The peer was told this filter.
    pub fn want(&mut self, filter: &str) {
        self.waiting.insert(filter.into());
    }

    /// Whether nothing is left to be asked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.again.is_empty() && self.round.is_none()
    }

    /// The next request, if it is time for one. `token` will come back with its acknowledgement; its filters may have
    /// `request_bytes` at most, the answer `bytes_max`.
    pub fn ask(&mut self, now: Now, token: u32, request_bytes: usize, bytes_max: usize) -> Option<Asked<'_>> {
        if self.asked.is_some() || self.is_applying || now.mono_ms < self.not_before_ms {
            return None;
        }
        if self.round.is_none() {
            let filters = self.take_filters(now, request_bytes);
            if filters.is_empty() {
                return None;
            }
            self.round = Some(Round { filters: filters.into(), after: None, since_ms: None });
        }
        let round = self.round.as_ref()?;
        self.number += 1;
        self.asked = Some((now.mono_ms, token));
        let Round { filters, after, .. } = round;
        Some(Asked { number: self.number, filters, after: after.as_deref(), bytes_max })
    }

    fn take_filters(&mut self, now: Now, request_bytes: usize) -> Vec<Box<str>> {
        if self.waiting.is_empty() && now.mono_ms >= self.again_ms {
            self.waiting = std::mem::take(&mut self.again);
        }
        let (mut filters, mut bytes) = (Vec::new(), 0);
        while filters.len() < FILTERS_MAX as usize
            && let Some(filter) = self.waiting.first()
        {
            bytes += filter.len() + 5;
            if !filters.is_empty() && bytes > FILTER_BYTES_MAX.min(request_bytes) {
                break;
            }
            filters.extend(self.waiting.pop_first());
        }
        filters
    }

    /// The peer refuses the request with this token; whether there is one.
    #[must_use]
    pub fn is_asked_with(&self, token: u32) -> bool {
        self.asked.is_some_and(|(_, asked)| asked == token)
    }

    /// The answer came. The page to be applied, then to be reported to [`Self::applied`].
    ///
    /// # Errors
    /// If it is no answer to what was asked.
    pub fn answered(&mut self, now: Now, answer: &PageAnswer<'_>) -> Result<Option<Page>, NoPage> {
        let Some(round) =
            self.round.as_mut().filter(|_| self.asked.is_some() && answer.number == self.number)
        else {
            return Ok(None);
        };
        let after = round.after.as_deref().unwrap_or_default();
        let first = { answer.messages }.next().map(|message| message.topic);
        let last = answer.messages.last().map(|message| message.topic);
        let is_behind = first.is_none_or(|first| first > after);
        let ends = answer.up_to.is_none_or(|up_to| up_to >= after && last.is_none_or(|last| last <= up_to));
        if !is_behind || !ends {
            return Err(NoPage);
        }
        self.asked = None;
        if answer.up_to.is_some_and(|up_to| up_to == after) {
            self.not_before_ms = now.mono_ms + LATER_MS;
            return Ok(None);
        }
        self.is_applying = true;
        Ok(Some(Page {
            filters: Arc::clone(&round.filters),
            after: round.after.clone(),
            up_to: answer.up_to.map(Into::into),
            since_ms: *round.since_ms.get_or_insert(answer.as_of_ms),
            as_of_ms: answer.as_of_ms,
            messages: answer.messages.keep(),
        }))
    }

    /// The page was applied, up to its end `up_to`.
    pub fn applied(&mut self, now: Now, up_to: Option<Box<str>>, applied: Applied) {
        let Some(round) = self.round.as_mut().filter(|_| std::mem::take(&mut self.is_applying)) else {
            return;
        };
        match applied {
            Applied::Overtaken => {
                self.not_before_ms = now.mono_ms + LATER_MS;
                return;
            }
            Applied::Unsure => {
                self.again.extend(round.filters.iter().cloned());
                self.again_ms = now.mono_ms + AGAIN_MS;
            }
            Applied::Pressed => self.not_before_ms = now.mono_ms + LATER_MS,
            Applied::Done => {}
        }
        match up_to {
            Some(up_to) => round.after = Some(up_to),
            None => self.round = None,
        }
    }

    /// The peer owes an answer for too long.
    #[must_use]
    pub fn is_overdue(&self, now: Now) -> bool {
        self.asked.is_some_and(|(asked_ms, _)| now.mono_ms >= asked_ms + PAGE_TIMEOUT_MS)
    }

    /// When there is something to do, in monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if let Some((asked_ms, _)) = self.asked {
            return Some(asked_ms + PAGE_TIMEOUT_MS);
        }
        if self.is_applying || self.is_idle() {
            return None;
        }
        let is_due = self.round.is_some() || !self.waiting.is_empty();
        Some(if is_due { self.not_before_ms } else { self.not_before_ms.max(self.again_ms) })
    }
}

/// What came is no page of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a page of other topics than were asked for")]
pub struct NoPage;

#[cfg(test)]
pub(crate) mod tests;
