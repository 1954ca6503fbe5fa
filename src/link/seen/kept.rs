//! The window outside of memory: what came is put there by bursts, so that a message that comes again after a restart is known.
//! Entries of a few ids are gathered, and those of which no id is in the window any more are deleted.
//!
//! An entry: version, the link's name and the ClientID, each behind its length, then the ids.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::link::seen::Part;
use crate::link::seen::Place;
use crate::link::seen::Seen;

const VERSION: u8 = 1;
/// From so many ids on nothing is gathered any more. Less than a connection is granted when there are as many as may be.
const GATHERED: usize = 512;
const ID_BYTES: usize = size_of::<u128>();

/// Puts and deletes entries.
pub trait SeenKeeper {
    /// Adds an entry: [`put_seen`] writes it.
    fn put(&mut self, number: u64, client_id: &str, ids: &[[u8; 16]]);
    /// Removes an entry.
    fn delete(&mut self, number: u64);
}

/// The entries of a part, the oldest first, with how many ids each has.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: VecDeque<(u64, usize)>,
    ids: usize,
    /// Of those, the last ones, which are still gathered.
    open: usize,
    open_ids: usize,
}

impl Entries {
    fn add(&mut self, number: u64, ids: usize) {
        self.all.push_back((number, ids));
        self.ids += ids;
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.all.iter().map(|(number, _)| *number)
    }
}

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSeen {
    /// Its number: those of one connection were put in this order.
    pub number: u64,
    /// Name of the link.
    pub link: Box<str>,
    /// Of the connection.
    pub client_id: Box<str>,
    /// The oldest first.
    pub ids: Vec<[u8; 16]>,
}

impl StoredSeen {
    /// Reads an entry; `None` if it is none that this version knows.
    #[must_use]
    pub fn parse(number: u64, value: &[u8]) -> Option<Self> {
        let (version, mut rest) = value.split_first()?;
        let mut text = || {
            let (length, behind) = rest.split_first_chunk()?;
            let (text, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = behind;
            Some(Box::from(std::str::from_utf8(text).ok()?))
        };
        let (link, client_id) = (text()?, text()?);
        let (ids, odd) = rest.as_chunks::<ID_BYTES>();
        let is_known = *version == VERSION && odd.is_empty();
        is_known.then(|| Self { number, link, client_id, ids: ids.to_vec() })
    }
}

/// Appends an entry.
pub fn put_seen(out: &mut Vec<u8>, link: &str, client_id: &str, ids: &[[u8; 16]]) {
    out.push(VERSION);
    for text in [link, client_id] {
        // Neither is longer than MQTT lets a string be.
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(ids.as_flattened());
}

impl Seen {
    /// The last so many messages that came over this connection were new: from here on that outlives the process.
    pub fn keep(&mut self, place: Place, count: usize, numbers: &AtomicU64, keeper: &mut impl SeenKeeper) {
        self.over.drain(..).for_each(|number| keeper.delete(number));
        let Some(part) = self.parts.get_mut(place.0).filter(|_| count > 0) else { return };
        let mut put = |part: &mut Part, count: usize| {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let ids = part.order.range(part.order.len().saturating_sub(count)..);
            let ids: Vec<[u8; 16]> = ids.map(|id| id.to_ne_bytes()).collect();
            keeper.put(number, &part.client_id, &ids);
            part.entries.add(number, ids.len());
        };
        put(part, count);
        part.entries.open += 1;
        part.entries.open_ids += count;
        if part.entries.open_ids >= GATHERED {
            let Entries { open, open_ids, .. } = part.entries;
            if open > 1 {
                let few = part.entries.all.split_off(part.entries.all.len().saturating_sub(open));
                part.entries.ids -= few.iter().map(|(_, ids)| ids).sum::<usize>();
                put(part, open_ids);
                few.iter().for_each(|(number, _)| keeper.delete(*number));
            }
            (part.entries.open, part.entries.open_ids) = (0, 0);
        }
        let entries = &mut part.entries;
        while let Some((number, ids)) = entries.all.front().copied()
            && entries.ids - ids >= part.order.len()
            && entries.all.len() > entries.open
        {
            entries.all.pop_front();
            entries.ids -= ids;
            keeper.delete(number);
        }
    }

    /// Knows again what it knew in the life before: call it for each entry, in the order of their numbers.
    pub fn restore(&mut self, stored: &StoredSeen) {
        let known = self.parts.iter().position(|part| part.client_id == stored.client_id);
        let place = Place(known.unwrap_or_else(|| self.free_place(&stored.client_id)));
        for id in &stored.ids {
            self.is_new(place, *id);
        }
        self.parts[place.0].entries.add(stored.number, stored.ids.len());
    }

    /// Forgets everything that is outside of memory.
    pub fn discard(&mut self, keeper: &mut impl SeenKeeper) {
        self.over.drain(..).for_each(|number| keeper.delete(number));
        for part in &mut self.parts {
            std::mem::take(&mut part.entries).numbers().for_each(|number| keeper.delete(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::link::seen::CONNECTIONS_MAX;
    use crate::link::seen::SEEN_MAX;
    use crate::time::Now;

    const NOW: Now = Now { mono_ms: 1_000, unix_ms: 0 };

    #[derive(Debug, Default)]
    struct Disk(BTreeMap<u64, Vec<u8>>);

    impl SeenKeeper for Disk {
        fn put(&mut self, number: u64, client_id: &str, ids: &[[u8; 16]]) {
            let mut value = Vec::new();
            put_seen(&mut value, "B", client_id, ids);
            assert!(self.0.insert(number, value).is_none());
        }

        fn delete(&mut self, number: u64) {
            self.0.remove(&number).expect("what is deleted was put");
        }
    }

    impl Disk {
        fn restored(&self) -> Seen {
            let mut seen = Seen::default();
            for (number, value) in &self.0 {
                let stored = StoredSeen::parse(*number, value).unwrap();
                assert_eq!(&*stored.link, "B");
                seen.restore(&stored);
            }
            seen
        }
    }

    fn id(number: usize) -> [u8; 16] {
        (number as u128 + 1).to_ne_bytes()
    }

    fn order(seen: &Seen) -> BTreeMap<&str, Vec<u128>> {
        let parts = seen.parts.iter().filter(|part| !part.order.is_empty());
        parts.map(|part| (&*part.client_id, part.order.iter().copied().collect())).collect()
    }

    proptest! {
        #[test]
        fn the_next_life_knows_what_this_one_knew_last(
            bursts in prop::collection::vec((0..4_usize, prop_oneof![3 => 1..3_usize, 1 => 1..1_025_usize]), 1..150),
        ) {
            let (mut seen, mut disk, numbers) = (Seen::default(), Disk::default(), AtomicU64::new(1));
            let mut next = 0;
            for (connection, count) in bursts {
                let place = seen.place(&connection.to_string(), NOW);
                for _ in 0..count {
                    prop_assert!(seen.is_new(place, id(next)));
                    next += 1;
                }
                seen.keep(place, count, &numbers, &mut disk);
                seen.leave(place, NOW);
            }
            let mut restored = disk.restored();
            prop_assert_eq!(order(&restored), order(&seen));
            prop_assert!(disk.0.len() <= 4 * GATHERED + next / GATHERED);
            let place = restored.place("9", NOW);
            prop_assert!((0..next).all(|number| !restored.is_new(place, id(number))));
            restored.discard(&mut disk);
            prop_assert!(disk.0.is_empty());
        }
    }

    #[test]
    fn no_more_is_kept_than_the_window_holds_however_long_it_goes_on() {
        let (mut seen, mut disk, numbers) = (Seen::default(), Disk::default(), AtomicU64::new(1));
        let one = seen.place("one", NOW);
        for number in 0..2 * SEEN_MAX {
            seen.is_new(one, id(number));
            seen.keep(one, 1, &numbers, &mut disk);
        }
        let ids = |disk: &Disk| {
            let parse =
                |(number, value): (&u64, &Vec<u8>)| StoredSeen::parse(*number, value).unwrap().ids.len();
            disk.0.iter().map(parse).sum::<usize>()
        };
        assert!((SEEN_MAX..SEEN_MAX + GATHERED).contains(&ids(&disk)), "{}", ids(&disk));
        assert!(disk.0.len() < SEEN_MAX / GATHERED + GATHERED + 2);
        seen.leave(one, NOW);
        // Connections that come and go take the place of one another, on the disk too.
        for connection in 0..2 * CONNECTIONS_MAX {
            let place = seen.place(&format!("{connection}"), NOW);
            seen.is_new(place, id(2 * SEEN_MAX + connection));
            seen.keep(place, 1, &numbers, &mut disk);
            seen.leave(place, NOW);
        }
        assert!(disk.0.len() <= CONNECTIONS_MAX, "{}", disk.0.len());
    }

    #[test]
    fn what_is_no_entry_is_none() {
        let mut value = Vec::new();
        put_seen(&mut value, "B", "client", &[id(1), id(2)]);
        assert_eq!(StoredSeen::parse(7, &value).unwrap().ids, [id(1), id(2)]);
        for end in (0..value.len()).filter(|end| *end != value.len() - 16 && *end != value.len() - 32) {
            assert_eq!(StoredSeen::parse(7, &value[..end]), None, "{end}");
        }
        value[0] += 1;
        assert_eq!(StoredSeen::parse(7, &value), None);
    }
}
