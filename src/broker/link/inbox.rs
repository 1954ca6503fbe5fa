//! Route changes on their way to the driver. They are handed in without a lock around the table, so the older of
//! two changes of one route may come last: the higher sequence number wins, also when the newer one has been
//! taken out already.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;

use crate::broker::routes::LocalRoute;
use crate::broker::routes::RouteChange;
use crate::time::Now;

/// How many routes may wait for the driver.
const WAITING_MAX: usize = 200_000;
/// Bytes of their filters.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many sequence numbers are remembered, in two halves.
const REMEMBERED_MAX: usize = 1_000_000;
/// No change is handed in as late as this after it was made.
const LATE_MS: u64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Whether the route is there, by what is known last.
    waiting: HashMap<LocalRoute, bool>,
    waiting_bytes: usize,
    /// The highest sequence number of each route, kept for one to two times [`LATE_MS`]. By hash: a filter may
    /// be long, and a client makes as many as it likes.
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
    hasher: RandomState,
    turned_ms: u64,
    overflowed: bool,
}

/// What the driver takes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Each route once, with whether it is there.
    Changes(HashMap<LocalRoute, bool>),
    /// More than the bounds allow: changes are lost, and only a new incarnation makes that good.
    Overflowed,
}

impl Inbox {
    pub(super) fn push(&mut self, change: &RouteChange, now: Now) {
        if now.mono_ms.saturating_sub(self.turned_ms) >= LATE_MS || self.young.len() >= REMEMBERED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.turned_ms = now.mono_ms;
        }
        let hash = self.hasher.hash_one(&change.route);
        let known = self.young.get(&hash).or_else(|| self.old.get(&hash));
        if known.is_some_and(|sequence| *sequence > change.sequence) {
            return;
        }
        self.young.insert(hash, change.sequence);
        if self.waiting.insert(change.route.clone(), change.added).is_none() {
            self.waiting_bytes += change.route.filter.len();
        }
        if self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX {
            self.forget();
            self.overflowed = true;
        }
    }

    pub(super) fn take(&mut self) -> Taken {
        if std::mem::take(&mut self.overflowed) {
            self.forget();
            return Taken::Overflowed;
        }
        self.waiting_bytes = 0;
        Taken::Changes(std::mem::take(&mut self.waiting))
    }

    fn forget(&mut self) {
        self.waiting = HashMap::new();
        self.waiting_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(filter: &str, added: bool, sequence: u64) -> RouteChange {
        RouteChange { route: LocalRoute { filter: filter.into(), share: None, via: None }, added, sequence }
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: mono_ms }
    }

    fn taken(inbox: &mut Inbox) -> Vec<(String, bool)> {
        let Taken::Changes(changes) = inbox.take() else { panic!("overflowed") };
        let mut list: Vec<_> =
            changes.into_iter().map(|(route, added)| (route.filter.to_string(), added)).collect();
        list.sort();
        list
    }

    #[test]
    fn the_newest_change_of_a_route_wins_in_whatever_order_they_come() {
        let mut inbox = Inbox::default();
        inbox.push(&change("a", true, 3), at(0));
        inbox.push(&change("a", false, 2), at(0));
        inbox.push(&change("b", true, 4), at(0));
        inbox.push(&change("b", false, 5), at(0));
        assert_eq!(taken(&mut inbox), [("a".to_owned(), true), ("b".to_owned(), false)]);
    }

    #[test]
    fn an_old_change_that_comes_after_the_newer_one_was_taken_is_ignored() {
        let mut inbox = Inbox::default();
        inbox.push(&change("a", true, 7), at(0));
        assert_eq!(taken(&mut inbox), [("a".to_owned(), true)]);
        inbox.push(&change("b", true, 8), at(LATE_MS));
        inbox.push(&change("a", false, 6), at(LATE_MS));
        assert_eq!(taken(&mut inbox), [("b".to_owned(), true)]);
    }

    #[test]
    fn too_many_changes_are_told_once() {
        let mut inbox = Inbox::default();
        for sequence in 0..=WAITING_MAX as u64 {
            inbox.push(&change(&sequence.to_string(), true, sequence), at(0));
        }
        assert_eq!(inbox.take(), Taken::Overflowed);
        assert_eq!(taken(&mut inbox), []);
    }
}
