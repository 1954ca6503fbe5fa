//! Which messages of a peer came already: a sender that lost an acknowledgement sends the message again, perhaps over
//! another connection and without DUP, but always with its id (`link-protocol.md` section 9, item 9). One value per
//! peer, so that nobody can suppress another's messages.
//!
//! Each of the peer's connections has a part of the window to itself. One that is down for a while, and then sends
//! again what it had in flight, is not forgotten for what came over the others meanwhile.
//!
//! Every id is noted, but it is looked up only while something may come again: with DUP, and for a while after a
//! connection of the peer began or ended. So a message costs next to nothing as long as all is well.

use std::collections::VecDeque;

use rapidhash::v3::rapidhash_v3;

use crate::link::seen::kept::Entries;
use crate::link::seen::table::Table;
use crate::time::Now;

mod kept;
mod table;

pub use crate::link::seen::kept::SeenKeeper;
pub use crate::link::seen::kept::StoredSeen;
pub use crate::link::seen::kept::put_seen;

/// Messages remembered: with eight connections 16,000 of each. Below a power of two, so that the table is not twice as
/// large as it needs to be.
pub const SEEN_MAX: usize = 128_000;
/// Connections that are told apart, by their ClientIDs. If there are more, some share.
pub const CONNECTIONS_MAX: usize = 64;
/// How long after a connection was lost a sender may send again. EMQX looks every 15 s whether it can.
pub const WATCH_MS: u64 = 60_000;

/// Stands for one of the peer's connections, and for the one that replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// What came over one connection.
#[derive(Debug)]
struct Part {
    client_id: Box<str>,
    /// Connections there are of this ClientID, or that share its place.
    live: usize,
    /// When the last of them ended.
    left_ms: u64,
    /// The oldest first.
    order: VecDeque<u128>,
    /// What outlives the process of it.
    entries: Entries,
}

/// The last [`SEEN_MAX`] ids. It grows with use.
#[derive(Debug)]
pub struct Seen {
    parts: Vec<Part>,
    /// What each part may hold.
    share: usize,
    /// The same ids to look them up by, while that is worth it.
    known: Option<Table>,
    watched_until_ms: u64,
    /// Entries to be deleted: their connection was forgotten.
    over: Vec<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { parts: Vec::new(), share: SEEN_MAX, known: None, watched_until_ms: 0, over: Vec::new() }
    }
}

impl Seen {
    /// A connection with this ClientID begins: its place. What the peer had in flight before may come again.
    pub fn place(&mut self, client_id: &str, now: Now) -> Place {
        if self.parts.iter().any(|part| !part.order.is_empty()) {
            self.watch(now);
        }
        let known = self.parts.iter().position(|part| &*part.client_id == client_id);
        let place = known.unwrap_or_else(|| self.free_place(client_id));
        self.parts[place].live += 1;
        Place(place)
    }

    /// A place for a ClientID that is not known: a new one, that of a connection which has been gone longest, first of
    /// those that brought nothing, or one that it has to share.
    fn free_place(&mut self, client_id: &str) -> usize {
        let (order, entries) = (VecDeque::new(), Entries::default());
        let part = Part { client_id: client_id.into(), live: 0, left_ms: 0, order, entries };
        if self.parts.len() < CONNECTIONS_MAX {
            self.parts.push(part);
            return self.parts.len() - 1;
        }
        let gone = self.parts.iter().enumerate().filter(|(_, part)| part.live == 0);
        let Some((place, _)) = gone.min_by_key(|(_, part)| (!part.order.is_empty(), part.left_ms)) else {
            return rapidhash_v3(client_id.as_bytes()) as usize % CONNECTIONS_MAX;
        };
        let gone = std::mem::replace(&mut self.parts[place], part);
        self.over.extend(gone.entries.numbers());
        if let Some(known) = &mut self.known {
            gone.order.into_iter().for_each(|id| known.remove(id));
        }
        self.divide();
        place
    }

    /// A connection ended: what it had under way may come again.
    pub fn leave(&mut self, place: Place, now: Now) {
        self.watch(now);
        let Some(part) = self.parts.get_mut(place.0) else { return };
        part.live = part.live.saturating_sub(1);
        part.left_ms = now.mono_ms;
    }

    /// From here on, for [`WATCH_MS`], messages may come again: a connection of the peer began or ended, or one is
    /// marked DUP.
    pub fn watch(&mut self, now: Now) {
        self.watched_until_ms = now.mono_ms.saturating_add(WATCH_MS);
        let parts = &self.parts;
        self.known.get_or_insert_with(|| {
            let mut known = Table::default();
            for id in parts.iter().flat_map(|part| &part.order) {
                known.insert(*id);
            }
            known
        });
    }

    /// Ends looking ids up when it is time. Call it now and then.
    pub fn rest(&mut self, now: Now) {
        if now.mono_ms >= self.watched_until_ms {
            self.known = None;
        }
    }

    /// Whether a message that came over this connection is new; from here on it is known.
    pub fn is_new(&mut self, place: Place, id: [u8; 16]) -> bool {
        let id = u128::from_ne_bytes(id);
        if self.known.as_mut().is_some_and(|known| !known.insert(id)) {
            return false;
        }
        let Some(part) = self.parts.get_mut(place.0) else { return true };
        if part.order.len() >= self.share
            && let Some(oldest) = part.order.pop_front()
            && let Some(known) = &mut self.known
        {
            known.remove(oldest);
        }
        part.order.push_back(id);
        if part.order.len() == 1 {
            self.divide();
        }
        true
    }

    /// Gives each connection that has brought messages the same share.
    fn divide(&mut self) {
        let used = self.parts.iter().filter(|part| !part.order.is_empty()).count();
        self.share = SEEN_MAX / used.max(1);
        for part in &mut self.parts {
            let excess = part.order.len().saturating_sub(self.share);
            for oldest in part.order.drain(..excess) {
                if let Some(known) = &mut self.known {
                    known.remove(oldest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Now = Now { mono_ms: 1_000, unix_ms: 0 };

    fn id(number: usize) -> [u8; 16] {
        (number as u128 + 1).to_ne_bytes()
    }

    fn len(seen: &Seen) -> usize {
        let listed = seen.parts.iter().map(|part| part.order.len()).sum();
        assert!(seen.known.as_ref().is_none_or(|known| known.len() == listed));
        listed
    }

    #[test]
    fn a_message_is_new_once_within_the_window() {
        let mut seen = Seen::default();
        let one = seen.place("one", NOW);
        assert!((0..SEEN_MAX).all(|number| seen.is_new(one, id(number))));
        seen.watch(NOW);
        assert!((0..SEEN_MAX).all(|number| !seen.is_new(one, id(number))));
        assert!(seen.is_new(one, id(SEEN_MAX)), "and pushes out the oldest");
        assert_eq!(len(&seen), SEEN_MAX);
        assert!(seen.is_new(one, id(0)) && !seen.is_new(one, id(2)));
    }

    #[test]
    fn names_that_come_and_go_do_not_use_up_the_places() {
        let mut seen = Seen::default();
        let stays = seen.place("stays", NOW);
        assert!(seen.is_new(stays, id(0)));
        for round in 0..3 * CONNECTIONS_MAX {
            let now = Now { mono_ms: NOW.mono_ms + round as u64, unix_ms: 0 };
            let goes = seen.place(&format!("goes-{round}"), now);
            assert_ne!(goes, stays);
            assert!(seen.is_new(goes, id(round + 1)));
            seen.leave(goes, now);
        }
        assert_eq!((seen.parts.len(), len(&seen)), (CONNECTIONS_MAX, CONNECTIONS_MAX));
        assert!(!seen.is_new(stays, id(0)), "it was there all the time");
        assert!(
            !seen.is_new(stays, id(3 * CONNECTIONS_MAX)) && seen.is_new(stays, id(1)),
            "the last are known"
        );
    }

    #[test]
    fn ids_are_looked_up_for_a_while_after_something_happened_and_never_forgotten_for_that() {
        let mut seen = Seen::default();
        let one = seen.place("one", NOW);
        assert!(seen.known.is_none(), "there is nothing yet that could come again");
        assert!(seen.is_new(one, id(1)));
        for _ in 0..2 {
            assert_eq!(seen.place("one", NOW), one);
            seen.rest(NOW.plus_ms(WATCH_MS - 1));
            assert!(!seen.is_new(one, id(1)));
            seen.is_new(one, id(2));
            seen.rest(NOW.plus_ms(WATCH_MS));
            assert!(seen.known.is_none());
        }
        assert!(seen.is_new(one, id(3)));
        seen.watch(NOW.plus_ms(WATCH_MS));
        assert!((1..4).all(|number| !seen.is_new(one, id(number))));
    }

    #[test]
    fn what_came_over_a_connection_is_known_on_every_other() {
        let mut seen = Seen::default();
        let (one, two) = (seen.place("one", NOW), seen.place("two", NOW));
        assert_ne!(one, two);
        assert_eq!(
            seen.place("one", NOW),
            one,
            "the next connection with a ClientID has the place of the one before"
        );
        assert!(seen.is_new(one, id(1)));
        seen.watch(NOW);
        assert!(!seen.is_new(two, id(1)));
    }

    #[test]
    fn a_busy_connection_pushes_out_nothing_of_one_that_is_down() {
        let mut seen = Seen::default();
        let (busy, down) = (seen.place("busy", NOW), seen.place("down", NOW));
        for number in 0..SEEN_MAX {
            seen.is_new(busy, id(number));
        }
        assert!((0..1_000).all(|number| seen.is_new(down, id(SEEN_MAX + number))));
        assert_eq!(len(&seen), SEEN_MAX / 2 + 1_000, "the first one gave way to half of the window");
        for number in 0..3 * SEEN_MAX {
            seen.is_new(busy, id(2 * SEEN_MAX + number));
        }
        seen.watch(NOW);
        assert!((0..1_000).all(|number| !seen.is_new(down, id(SEEN_MAX + number))));
        assert_eq!(len(&seen), SEEN_MAX / 2 + 1_000);
    }

    #[test]
    fn however_many_connections_there_are_the_window_stays_bounded() {
        let mut seen = Seen::default();
        for connection in 0..2 * CONNECTIONS_MAX {
            let place = seen.place(&connection.to_string(), NOW);
            for number in 0..SEEN_MAX / 16 {
                seen.is_new(place, id(connection * SEEN_MAX + number));
            }
            seen.watch(NOW);
            assert!(len(&seen) <= SEEN_MAX);
        }
        assert_eq!(seen.parts.len(), CONNECTIONS_MAX);
    }

    proptest! {
        #[test]
        fn it_knows_what_a_naive_list_knows(steps in prop::collection::vec((0..3_usize, 0..20_usize), 1..200)) {
            let (mut seen, mut list) = (Seen::default(), Vec::new());
            for (connection, number) in steps {
                let place = seen.place(&connection.to_string(), NOW);
                seen.watch(NOW);
                prop_assert_eq!(seen.is_new(place, id(number)), !list.contains(&number));
                if !list.contains(&number) {
                    list.push(number);
                }
            }
            prop_assert_eq!(len(&seen), list.len());
        }
    }
}
