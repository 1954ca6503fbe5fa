//! Cuts pages: what several filters match, in the order of topics and each once, as much as an answer holds.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::link::message::Outgoing;
use crate::link::payload::page::PageBuilder;
use crate::link::payload::page::Put;

/// Messages that are looked up at a time for one filter.
const LOOK: usize = 32;

/// Something under a Topic Name.
pub trait Named {
    /// The name.
    fn topic(&self) -> &str;
}

/// Finds the next messages that a filter matches: the filter, from where, how many at most. They come in the order of their
/// topics, with where to go on, if there may be more.
pub trait Look<T>: FnMut(&str, Bound<&str>, usize) -> (Vec<T>, Option<String>) {}

impl<T, F: FnMut(&str, Bound<&str>, usize) -> (Vec<T>, Option<String>)> Look<T> for F {}

/// What several filters match.
#[derive(Debug)]
pub struct Merge<'f, T> {
    streams: Vec<Stream<'f, T>>,
}

#[derive(Debug)]
struct Stream<'f, T> {
    filter: &'f str,
    held: VecDeque<T>,
    from: Option<Bound<String>>,
}

impl<T> Stream<'_, T> {
    fn fill(&mut self, look: &mut impl Look<T>) {
        while self.held.is_empty()
            && let Some(from) = self.from.take()
        {
            let (some, next) = look(self.filter, from.as_ref().map(String::as_str), LOOK);
            self.held = some.into();
            self.from = next.map(Bound::Included);
        }
    }
}

impl<'f, T: Named> Merge<'f, T> {
    /// Everything that these filters match behind `after`.
    pub fn new(filters: impl Iterator<Item = &'f str>, after: Option<&str>) -> Self {
        let stream = |filter| {
            let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_owned()));
            Stream { filter, held: VecDeque::new(), from: Some(from) }
        };
        Self { streams: filters.map(stream).collect() }
    }

    /// The next one.
    pub fn next(&mut self, look: &mut impl Look<T>) -> Option<T> {
        let mut first: Option<usize> = None;
        for index in 0..self.streams.len() {
            self.streams[index].fill(look);
            let Some(topic) = self.streams[index].held.front().map(Named::topic) else { continue };
            match first.and_then(|first| self.streams[first].held.front()).map(Named::topic) {
                // The same message by another filter.
                Some(known) if known == topic => drop(self.streams[index].held.pop_front()),
                Some(known) if known < topic => {}
                _ => first = Some(index),
            }
        }
        self.streams.get_mut(first?)?.held.pop_front()
    }
}

/// Fills a page. Up to which topic it is then; `None` if that was all. And how many messages no answer can hold.
pub fn fill<T: Named>(
    merge: &mut Merge<'_, T>,
    look: &mut impl Look<T>,
    page: &mut PageBuilder,
    outgoing: impl for<'m> Fn(&'m T) -> Option<Outgoing<'m>>,
) -> (Option<String>, u64) {
    let (mut up_to, mut too_large) = (None, 0);
    while let Some(message) = merge.next(look) {
        match outgoing(&message).map(|outgoing| page.push(&outgoing)) {
            Some(Put::Full) => return (up_to, too_large),
            Some(Put::TooLarge) => too_large += 1,
            Some(Put::Taken) | None => {}
        }
        up_to = Some(message.topic().to_owned());
    }
    (None, too_large)
}
