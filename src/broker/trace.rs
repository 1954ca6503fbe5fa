//! Traces: what an operator follows of a running broker. What an event is and who wants it is in [`event`], where
//! they come from in `watch`, who reads them and how slowly in [`crate::broker::feeds`].
//!
//! Nobody pays for a trace that does not run: without one, a run of messages costs a relaxed load.

use std::sync::Arc;

use crate::broker::feeds::Feeds;
use crate::broker::feeds::LineReader;
use crate::broker::trace::event::Event;
use crate::broker::trace::event::Filter;

pub mod event;
pub(super) mod watch;

/// Every trace that runs.
#[derive(Debug, Default)]
pub struct Traces {
    feeds: Arc<Feeds<Filter>>,
}

impl Traces {
    /// Whether anybody looks. What it costs is one relaxed load.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.feeds.is_on()
    }

    /// Whether anybody may want to see messages of this topic.
    #[must_use]
    pub fn may_want(&self, name: &str) -> bool {
        self.feeds.any(|filter| filter.may_want(name))
    }

    /// Begins one; `None` when there are as many as there may be.
    #[must_use]
    pub fn start(&self, filter: Filter) -> Option<LineReader> {
        self.feeds.open(filter, [])
    }

    /// Shows an event to everybody who wants it. Call it without a lock.
    pub fn emit(&self, event: &Event<'_>) {
        self.feeds.emit(|filter| filter.wants(event), || event.line());
    }

    /// Ends all of them, after what they hold: the broker stops.
    pub fn close(&self) {
        self.feeds.close();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    use super::event::Kind;
    use super::event::Topic;
    use super::*;

    #[test]
    fn a_trace_shows_what_it_wants_until_it_is_dropped() {
        let event = |topic| Event { topic: Some(Topic::Name(topic)), ..Event::new(Kind::Publish, 0) };
        let traces = Traces::default();
        assert!(!traces.is_on());
        let filter = Filter::parse(None, Some("a/#"), None, None).unwrap();
        let mut reader = traces.start(filter).unwrap();
        assert!(traces.is_on() && traces.may_want("a/b") && !traces.may_want("b"));
        let mut read = || reader.poll_lines(&Context::from_waker(Waker::noop()));
        traces.emit(&event("b"));
        assert_eq!(read(), Poll::Pending);
        traces.emit(&event("a/b"));
        traces.emit(&event("a"));
        let Poll::Ready(Some(lines)) = read() else { panic!("no lines") };
        assert_eq!(lines.lines().count(), 2);
        drop(reader);
        assert!(!traces.is_on());
    }
}
