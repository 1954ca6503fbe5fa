//! The security event log: who came in, who was refused and why, what administrators did (`authn-tls.md` section 5).
//! What an event is stands in [`event`], how many refusals of one source are kept in `limit`, the file in [`mod@file`].
//!
//! The last events are kept in memory for `tombolo events` and `GET events`: logins and states of links apart from everything
//! else, so that ten thousand devices that come back do not push out the one refusal that matters.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::events::event::kind;
use crate::broker::events::limit::Limit;
use crate::broker::feeds::Feeds;
use crate::broker::feeds::LineReader;
use crate::metrics::labels::SecurityEvent as Name;
use crate::time::Now;

pub mod event;
pub mod file;
mod limit;

/// Logins that are remembered, as many states of links, and as many other events.
pub const REMEMBERED_MAX: usize = 2048;
/// The same in bytes.
const REMEMBERED_BYTES_MAX: usize = 512 * 1024;

/// Which of the remembered events somebody wants to see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Not those before this moment, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Only those of this name.
    pub name: Option<Name>,
    /// Only those of this type.
    pub kind: Option<&'static str>,
}

impl Wanted {
    fn covers(&self, unix_ms: u64, name: Name) -> bool {
        unix_ms >= self.since_unix_ms
            && self.name.is_none_or(|wanted| wanted == name)
            && self.kind.is_none_or(|wanted| wanted == kind(name))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct SecurityLog {
    state: Mutex<State>,
    feeds: Arc<Feeds<Wanted>>,
}

#[derive(Debug, Default)]
struct State {
    limit: Limit,
    /// The memory of a line that was forgotten, for the next one.
    spare: String,
    next: u64,
    logins: Ring,
    links: Ring,
    others: Ring,
}

impl State {
    /// Remembered events in the order in which they happened.
    fn lines(&self, wanted: Wanted) -> Vec<&str> {
        let mut all: Vec<&Remembered> =
            self.logins.events.iter().chain(&self.links.events).chain(&self.others.events).collect();
        all.retain(|event| wanted.covers(event.unix_ms, event.name));
        all.sort_unstable_by_key(|event| event.number);
        all.into_iter().map(|event| &*event.line).collect()
    }
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Remembered>,
    bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    number: u64,
    unix_ms: u64,
    name: Name,
    line: String,
}

impl Ring {
    /// Remembers an event in place of the oldest; gives the line of one that is forgotten.
    fn push(&mut self, event: Remembered) -> String {
        self.bytes += event.line.capacity();
        self.events.push_back(event);
        let mut forgotten = String::new();
        while self.events.len() > REMEMBERED_MAX || self.bytes > REMEMBERED_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.line.capacity();
            forgotten = oldest.line;
        }
        forgotten
    }
}

impl SecurityLog {
    /// Writes an event down, unless it is one refusal too many of its source. Whether it was.
    pub fn record(&self, event: &SecurityEvent<'_>, now: Now) -> bool {
        let mut state = self.state.lock();
        let suppressed = if event.what.is_refusal() {
            let Some(suppressed) = state.limit.admit(event.source, now.mono_ms) else { return false };
            suppressed
        } else {
            0
        };
        let (name, mut line) = (event.what.name(), std::mem::take(&mut state.spare));
        event.write(&mut line, now.unix_ms, suppressed);
        // Under the lock, so that readers see the order in which they are numbered.
        self.feeds.emit(|wanted| wanted.covers(now.unix_ms, name), || &line);
        let number = state.next;
        state.next += 1;
        let ring = match name {
            Name::LoginSuccess => &mut state.logins,
            Name::LinkState => &mut state.links,
            _ => &mut state.others,
        };
        state.spare = ring.push(Remembered { number, unix_ms: now.unix_ms, name, line });
        true
    }

    /// Remembered events, oldest first, each a line of JSON with its line feed.
    #[must_use]
    pub fn remembered(&self, wanted: Wanted) -> Vec<String> {
        self.state.lock().lines(wanted).into_iter().map(str::to_owned).collect()
    }

    /// Remembered events and all that follow; `None` when there are as many readers as there may be.
    #[must_use]
    pub fn follow(&self, wanted: Wanted) -> Option<LineReader> {
        let state = self.state.lock();
        self.feeds.open(wanted, state.lines(wanted))
    }

    /// How many follow, the file among them.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.feeds.count()
    }

    /// Ends all readers, after what they hold: the broker stops.
    pub fn close(&self) {
        self.feeds.close();
    }
}

impl Broker {
    /// Counts a security event and writes it down. Whether it was: not if it is one refusal too many of its source.
    pub fn security_event(&self, event: &SecurityEvent<'_>, now: Now) -> bool {
        let metrics = &self.metrics.broker;
        metrics.security_events[event.what.name()].inc();
        let written = self.events.record(event, now);
        if !written {
            metrics.security_events_suppressed.inc();
        }
        written
    }

    /// The same for what has no more to it than its name.
    pub fn security_note(&self, what: What<'_>, description: &str, now: Now) {
        self.security_event(&SecurityEvent::new(what, description), now);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    use super::*;

    fn at(unix_ms: u64) -> Now {
        Now { mono_ms: unix_ms, unix_ms }
    }

    fn record(log: &SecurityLog, what: What<'_>, unix_ms: u64) -> bool {
        log.record(&SecurityEvent::new(what, ""), at(unix_ms))
    }

    #[test]
    fn many_logins_do_not_push_out_anything_else() {
        let log = SecurityLog::default();
        record(&log, What::Startup, 1);
        for moment in 0..2 * REMEMBERED_MAX as u64 {
            record(&log, What::LoginSuccess, 2 + moment);
        }
        record(&log, What::Shutdown, 10_000);
        let lines = log.remembered(Wanted::default());
        assert_eq!(lines.len(), REMEMBERED_MAX + 2);
        assert!(lines[0].contains("sys_startup") && lines[REMEMBERED_MAX + 1].contains("sys_shutdown"));
        let since = Wanted { since_unix_ms: 10_000, ..Wanted::default() };
        assert_eq!(log.remembered(since).len(), 1);
        let named = Wanted { name: Some(Name::Startup), ..Wanted::default() };
        assert_eq!(log.remembered(named).len(), 1);
    }

    #[test]
    fn a_stranger_with_the_longest_names_does_not_push_out_what_others_did() {
        let log = SecurityLog::default();
        record(&log, What::Startup, 0);
        let topic = "t/".repeat(30_000);
        for moment in 0..200 {
            record(&log, What::AuthzFail { action: "publish", topic: &topic }, moment * 60_000);
        }
        assert!(log.remembered(Wanted::default())[0].contains("sys_startup"));
    }

    #[test]
    fn the_bytes_remembered_are_bounded() {
        let log = SecurityLog::default();
        let topic = "t".repeat(500);
        for moment in 0..2_000 {
            record(&log, What::AuthzFail { action: "publish", topic: &topic }, moment * 60_000);
        }
        let bytes: usize = log.remembered(Wanted::default()).iter().map(String::len).sum();
        assert!((REMEMBERED_BYTES_MAX - 1_000..=REMEMBERED_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn who_follows_gets_what_was_and_what_comes_once_each() {
        let log = SecurityLog::default();
        record(&log, What::Startup, 1);
        let mut reader = log.follow(Wanted::default()).unwrap();
        record(&log, What::LoginSuccess, 2);
        let mut read = || reader.poll_lines(&Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(lines)) = read() else { panic!("no lines") };
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(read(), Poll::Pending);
    }

    #[test]
    fn refusals_of_a_source_are_limited_and_others_are_not() {
        let log = SecurityLog::default();
        let refused = (0..50).filter(|_| record(&log, What::LoginFail { method: "password" }, 0)).count();
        assert_eq!(refused, 20);
        assert!((0..50).all(|_| record(&log, What::Admin { act: "client_kick" }, 0)));
    }
}
