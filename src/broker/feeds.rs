//! Lines for readers that follow what happens: each reader has a bounded buffer of its own. One that reads too slowly
//! loses lines, they are counted, and it is told how many in their place. Whoever makes a line never waits for it.

use std::fmt::Debug;
use std::fmt::Write as _;
use std::future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use parking_lot::Mutex;

/// Readers of one kind of line at a time.
pub const READERS_MAX: usize = 8;
/// What a reader may leave unread.
pub const LINES_MAX: usize = 4096;
/// The same in bytes.
pub const BYTES_MAX: usize = 1024 * 1024;

/// Every reader of one kind of line. `F` says which lines it wants.
#[derive(Debug)]
pub struct Feeds<F> {
    /// How many, to be read without the lock.
    running: AtomicUsize,
    all: Mutex<All<F>>,
}

#[derive(Debug)]
struct All<F> {
    feeds: Vec<Feed<F>>,
    /// No reader gets any more than what was before it.
    over: bool,
}

#[derive(Debug)]
struct Feed<F> {
    filter: F,
    buffer: Arc<Mutex<Buffer>>,
}

/// Lines that were not read yet.
#[derive(Debug, Default)]
struct Buffer {
    lines: String,
    count: usize,
    /// Lines that came while there was no room, all of them after those in `lines`.
    lost: u64,
    over: bool,
    waker: Option<Waker>,
}

impl Buffer {
    fn push(&mut self, line: &str) {
        // What comes behind a loss is lost too, until the reader has been told: so the order stays.
        let full = self.count >= LINES_MAX || self.lines.len() + line.len() > BYTES_MAX;
        if full || self.lost > 0 {
            self.lost += 1;
        } else {
            self.lines.push_str(line);
            self.count += 1;
        }
    }

    fn take(&mut self) -> Option<String> {
        if self.lost > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(self.lines, "{{\"event\":\"lost\",\"messages\":{}}}", self.lost);
        }
        (self.lost, self.count) = (0, 0);
        let lines = std::mem::take(&mut self.lines);
        (!lines.is_empty()).then_some(lines)
    }
}

impl<F> Default for Feeds<F> {
    fn default() -> Self {
        let all = All { feeds: Vec::new(), over: false };
        Self { running: AtomicUsize::new(0), all: Mutex::new(all) }
    }
}

impl<F: Debug + Send + 'static> Feeds<F> {
    /// Whether anybody reads. What it costs is one relaxed load.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// How many read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether there is a reader whose filter passes `test`.
    pub fn any(&self, test: impl Fn(&F) -> bool) -> bool {
        self.all.lock().feeds.iter().any(|feed| test(&feed.filter))
    }

    /// One more reader, who gets `earlier` first; `None` when there are as many as there may be.
    #[must_use]
    pub fn open<'a>(
        self: &Arc<Self>,
        filter: F,
        earlier: impl IntoIterator<Item = &'a str>,
    ) -> Option<LineReader> {
        let mut all = self.all.lock();
        if all.feeds.len() >= READERS_MAX {
            return None;
        }
        let mut buffer = Buffer { over: all.over, ..Buffer::default() };
        earlier.into_iter().for_each(|line| buffer.push(line));
        let buffer = Arc::new(Mutex::new(buffer));
        all.feeds.push(Feed { filter, buffer: Arc::clone(&buffer) });
        self.running.store(all.feeds.len(), Ordering::Relaxed);
        let hall: Arc<dyn Hall> = Arc::<Self>::clone(self);
        Some(LineReader { hall, buffer })
    }

    /// Gives a line, which ends in a line feed, to everybody who wants it. It is made once and only if somebody does.
    pub fn emit<L: AsRef<str>>(&self, wants: impl Fn(&F) -> bool, line: impl Fn() -> L) {
        let mut made = None;
        for feed in self.all.lock().feeds.iter().filter(|feed| wants(&feed.filter)) {
            let line = made.get_or_insert_with(&line);
            let waker = {
                let mut buffer = feed.buffer.lock();
                buffer.push(line.as_ref());
                buffer.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Ends all of them, after what they hold.
    pub fn close(&self) {
        let mut all = self.all.lock();
        all.over = true;
        for feed in &all.feeds {
            let waker = {
                let mut buffer = feed.buffer.lock();
                buffer.over = true;
                buffer.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Where a reader leaves.
trait Hall: Debug + Send + Sync {
    fn leave(&self, buffer: &Arc<Mutex<Buffer>>);
}

impl<F: Debug + Send + 'static> Hall for Feeds<F> {
    fn leave(&self, buffer: &Arc<Mutex<Buffer>>) {
        let mut all = self.all.lock();
        all.feeds.retain(|feed| !Arc::ptr_eq(&feed.buffer, buffer));
        self.running.store(all.feeds.len(), Ordering::Relaxed);
    }
}

/// The reading end of one feed, which ends with it.
#[derive(Debug)]
pub struct LineReader {
    hall: Arc<dyn Hall>,
    buffer: Arc<Mutex<Buffer>>,
}

impl LineReader {
    /// What has come, as whole lines; `None` once the feed is over.
    pub fn poll_lines(&mut self, cx: &Context<'_>) -> Poll<Option<String>> {
        let mut buffer = self.buffer.lock();
        match buffer.take() {
            Some(lines) => Poll::Ready(Some(lines)),
            None if buffer.over => Poll::Ready(None),
            None => {
                buffer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The same, once there is something.
    pub async fn lines(&mut self) -> Option<String> {
        future::poll_fn(|cx| self.poll_lines(cx)).await
    }
}

impl Drop for LineReader {
    fn drop(&mut self) {
        self.hall.leave(&self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &mut LineReader) -> Poll<Option<String>> {
        reader.poll_lines(&Context::from_waker(Waker::noop()))
    }

    fn everything(feeds: &Feeds<()>, line: &str) {
        feeds.emit(|()| true, || line);
    }

    #[test]
    fn a_reader_gets_what_was_before_it_first() {
        let feeds = Arc::new(Feeds::default());
        let mut reader = feeds.open((), ["a\n", "b\n"]).unwrap();
        everything(&feeds, "c\n");
        assert_eq!(read(&mut reader), Poll::Ready(Some("a\nb\nc\n".to_owned())));
        assert_eq!(read(&mut reader), Poll::Pending);
    }

    #[test]
    fn there_are_only_so_many_readers() {
        let feeds = Arc::new(Feeds::default());
        let mut readers: Vec<_> = (0..READERS_MAX).map(|_| feeds.open((), []).unwrap()).collect();
        assert!(feeds.open((), []).is_none());
        readers.pop();
        assert!(feeds.is_on() && feeds.open((), []).is_some());
        readers.clear();
        assert!(!feeds.is_on());
    }

    #[test]
    fn a_slow_reader_loses_lines_and_is_told_how_many_and_where() {
        let feeds = Arc::new(Feeds::default());
        let mut reader = feeds.open((), []).unwrap();
        for _ in 0..LINES_MAX + 5 {
            everything(&feeds, "a\n");
        }
        let Poll::Ready(Some(lines)) = read(&mut reader) else { panic!("no lines") };
        assert_eq!(lines.lines().count(), LINES_MAX + 1);
        assert_eq!(lines.lines().last(), Some("{\"event\":\"lost\",\"messages\":5}"));
        everything(&feeds, "b\n");
        assert_eq!(read(&mut reader), Poll::Ready(Some("b\n".to_owned())));
    }

    #[test]
    fn the_bytes_of_a_reader_are_bounded() {
        let feeds = Arc::new(Feeds::default());
        let mut reader = feeds.open((), []).unwrap();
        let long = format!("{}\n", "x".repeat(60_000));
        for _ in 0..100 {
            everything(&feeds, &long);
        }
        let Poll::Ready(Some(lines)) = read(&mut reader) else { panic!("no lines") };
        assert!(lines.len() < BYTES_MAX + 100, "{}", lines.len());
        assert!(lines.ends_with("{\"event\":\"lost\",\"messages\":83}\n"), "{}", &lines[lines.len() - 60..]);
    }

    #[test]
    fn a_closed_feed_ends_after_what_it_holds() {
        let feeds = Arc::new(Feeds::default());
        let mut reader = feeds.open((), []).unwrap();
        everything(&feeds, "a\n");
        feeds.close();
        assert!(matches!(read(&mut reader), Poll::Ready(Some(_))));
        assert_eq!(read(&mut reader), Poll::Ready(None));
        let mut late = feeds.open((), ["b\n"]).unwrap();
        assert_eq!(read(&mut late), Poll::Ready(Some("b\n".to_owned())));
        assert_eq!(read(&mut late), Poll::Ready(None));
    }
}
