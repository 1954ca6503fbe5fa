//! Traces: what an operator follows of a running broker. What an event is and who wants it is in [`event`], where
//! they come from in `watch`.
//!
//! Nobody pays for a trace that does not run: without one, a run of messages costs a relaxed load. A trace that is
//! read too slowly loses events, counts them and says so in its place of the stream; whoever makes events never
//! waits for it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use parking_lot::Mutex;

use crate::broker::trace::event::Event;
use crate::broker::trace::event::Filter;

pub mod event;
pub(super) mod watch;

/// Traces at a time.
pub const TRACES_MAX: usize = 8;
/// What one trace may hold for its reader.
const EVENTS_MAX: usize = 4096;
const BYTES_MAX: usize = 1024 * 1024;

/// Every trace that runs.
#[derive(Debug, Default)]
pub struct Traces {
    /// How many, to be read without the lock.
    running: AtomicUsize,
    all: Mutex<Vec<Arc<Trace>>>,
}

#[derive(Debug)]
struct Trace {
    filter: Filter,
    buffer: Mutex<Buffer>,
}

/// Lines that were not read yet.
#[derive(Debug, Default)]
struct Buffer {
    lines: String,
    events: usize,
    /// Events that came while there was no room, all of them after those in `lines`.
    lost: u64,
    over: bool,
    waker: Option<Waker>,
}

impl Buffer {
    fn push(&mut self, line: &str) {
        // What comes behind a loss is lost too, until the reader has been told: so the order stays.
        let full = self.events >= EVENTS_MAX || self.lines.len() + line.len() > BYTES_MAX;
        if full || self.lost > 0 {
            self.lost += 1;
        } else {
            self.lines.push_str(line);
            self.events += 1;
        }
    }

    fn take(&mut self) -> Option<String> {
        if self.lost > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(self.lines, "{{\"event\":\"lost\",\"messages\":{}}}", self.lost);
        }
        (self.lost, self.events) = (0, 0);
        let lines = std::mem::take(&mut self.lines);
        (!lines.is_empty()).then_some(lines)
    }
}

impl Traces {
    /// Whether anybody looks. What it costs is one relaxed load.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody may want to see messages of this topic.
    #[must_use]
    pub fn may_want(&self, name: &str) -> bool {
        self.all.lock().iter().any(|trace| trace.filter.may_want(name))
    }

    /// Begins one; `None` when there are as many as there may be.
    #[must_use]
    pub fn start(self: &Arc<Self>, filter: Filter) -> Option<TraceReader> {
        let trace = Arc::new(Trace { filter, buffer: Mutex::default() });
        let mut all = self.all.lock();
        if all.len() >= TRACES_MAX {
            return None;
        }
        all.push(Arc::clone(&trace));
        self.running.store(all.len(), Ordering::Relaxed);
        Some(TraceReader { traces: Arc::clone(self), trace })
    }

    /// Shows an event to everybody who wants it. Call it without a lock.
    pub fn emit(&self, event: &Event<'_>) {
        let mut line = None;
        for trace in self.all.lock().iter().filter(|trace| trace.filter.wants(event)) {
            let line = line.get_or_insert_with(|| event.line());
            let waker = {
                let mut buffer = trace.buffer.lock();
                buffer.push(line);
                buffer.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Ends all of them, after what they hold: the broker stops.
    pub fn close(&self) {
        for trace in self.all.lock().iter() {
            let waker = {
                let mut buffer = trace.buffer.lock();
                buffer.over = true;
                buffer.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// The reading end of one trace, which ends with it.
#[derive(Debug)]
pub struct TraceReader {
    traces: Arc<Traces>,
    trace: Arc<Trace>,
}

impl TraceReader {
    /// What has come, as lines of JSON; `None` once the broker stops.
    pub fn poll_lines(&mut self, cx: &Context<'_>) -> Poll<Option<String>> {
        let mut buffer = self.trace.buffer.lock();
        match buffer.take() {
            Some(lines) => Poll::Ready(Some(lines)),
            None if buffer.over => Poll::Ready(None),
            None => {
                buffer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for TraceReader {
    fn drop(&mut self) {
        let mut all = self.traces.all.lock();
        all.retain(|trace| !Arc::ptr_eq(trace, &self.trace));
        self.traces.running.store(all.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::event::Kind;
    use super::event::Topic;
    use super::*;

    fn read(reader: &mut TraceReader) -> Poll<Option<String>> {
        reader.poll_lines(&Context::from_waker(Waker::noop()))
    }

    fn event(topic: &str) -> Event<'_> {
        Event { topic: Some(Topic::Name(topic)), ..Event::new(Kind::Publish, 0) }
    }

    #[test]
    fn a_trace_shows_what_it_wants_until_it_is_dropped() {
        let traces = Arc::new(Traces::default());
        assert!(!traces.is_on());
        let filter = Filter::parse(None, Some("a/#"), None, None).unwrap();
        let mut reader = traces.start(filter).unwrap();
        assert!(traces.is_on() && traces.may_want("a/b") && !traces.may_want("b"));
        traces.emit(&event("b"));
        assert_eq!(read(&mut reader), Poll::Pending);
        traces.emit(&event("a/b"));
        traces.emit(&event("a"));
        let Poll::Ready(Some(lines)) = read(&mut reader) else { panic!("no lines") };
        assert_eq!(lines.lines().count(), 2);
        drop(reader);
        assert!(!traces.is_on());
    }

    #[test]
    fn there_are_only_so_many_traces() {
        let traces = Arc::new(Traces::default());
        let mut readers: Vec<_> = (0..TRACES_MAX).map(|_| traces.start(Filter::default()).unwrap()).collect();
        assert!(traces.start(Filter::default()).is_none());
        readers.pop();
        assert!(traces.start(Filter::default()).is_some());
    }

    #[test]
    fn a_slow_reader_loses_events_and_is_told_how_many_and_where() {
        let traces = Arc::new(Traces::default());
        let mut reader = traces.start(Filter::default()).unwrap();
        for _ in 0..EVENTS_MAX + 5 {
            traces.emit(&event("a"));
        }
        let Poll::Ready(Some(lines)) = read(&mut reader) else { panic!("no lines") };
        assert_eq!(lines.lines().count(), EVENTS_MAX + 1);
        assert_eq!(lines.lines().last(), Some("{\"event\":\"lost\",\"messages\":5}"));
        traces.emit(&event("b"));
        let Poll::Ready(Some(lines)) = read(&mut reader) else { panic!("no lines") };
        assert!(lines.contains("\"topic\":\"b\"") && !lines.contains("lost"), "{lines}");
    }

    #[test]
    fn the_bytes_of_a_trace_are_bounded() {
        let traces = Arc::new(Traces::default());
        let mut reader = traces.start(Filter::default()).unwrap();
        let long = "x".repeat(60_000);
        for _ in 0..100 {
            traces.emit(&event(&long));
        }
        let Poll::Ready(Some(lines)) = read(&mut reader) else { panic!("no lines") };
        assert!(lines.len() < BYTES_MAX + 100, "{}", lines.len());
        assert!(lines.ends_with("{\"event\":\"lost\",\"messages\":83}\n"), "{}", &lines[lines.len() - 60..]);
    }

    #[test]
    fn a_closed_trace_ends_after_what_it_holds() {
        let traces = Arc::new(Traces::default());
        let mut reader = traces.start(Filter::default()).unwrap();
        traces.emit(&event("a"));
        traces.close();
        assert!(matches!(read(&mut reader), Poll::Ready(Some(_))));
        assert_eq!(read(&mut reader), Poll::Ready(None));
    }
}
