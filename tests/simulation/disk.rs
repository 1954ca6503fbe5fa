//! What a cluster keeps of one direction of a link. Changes take effect together when somebody waits for them; those that nobody
//! waits for are lost when the cluster ends before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tombolo::link::lane::Keep;
use tombolo::link::lane::Keeper;
use tombolo::link::lane::Lane;
use tombolo::link::lane::stored::Stored;
use tombolo::link::seen::Place;
use tombolo::link::seen::Seen;
use tombolo::link::seen::SeenKeeper;
use tombolo::link::seen::StoredSeen;
use tombolo::link::seen::put_seen;
use tombolo::time::Now;

use crate::world::LANES;

/// A few messages: so that there are pages.
const RESIDENT_BYTES: u64 = 1_200;
const PAGE_BYTES: u64 = 500;

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    body: Option<(u64, Vec<u8>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    entries: BTreeMap<u64, Entry>,
    /// What is not committed: put, or deleted.
    pending: Vec<(u64, Option<Entry>)>,
    numbers: Arc<AtomicU64>,
}

impl Keeper for Disk {
    fn put(&mut self, number: u64, body: Option<(u64, &[u8])>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        let body = body.map(|(number, bytes)| (number, bytes.to_vec()));
        self.pending.push((number, Some(Entry { value, body })));
    }

    fn delete(&mut self, number: u64) {
        self.pending.push((number, None));
    }
}

impl SeenKeeper for Disk {
    fn put(&mut self, number: u64, client_id: &str, ids: &[[u8; 16]]) {
        Keeper::put(self, number, None, |out| put_seen(out, "", client_id, ids));
    }

    fn delete(&mut self, number: u64) {
        Keeper::delete(self, number);
    }
}

impl Disk {
    /// Where lane `index` keeps what it has.
    pub(crate) fn keep_of(&self, index: usize) -> Keep {
        let keep = Keep::new("".into(), index as u16, LANES as u16, Arc::clone(&self.numbers));
        Keep { resident_bytes: RESIDENT_BYTES, page_bytes: PAGE_BYTES, ..keep }
    }

    /// The end of a turn of a lane.
    pub(crate) fn settle(&mut self, lane: &mut Lane) {
        let Some(promises) = lane.has_to_keep() else { return };
        lane.keep(self);
        if promises {
            self.commit();
        }
    }

    /// Reads a page that the lane wants, if it does.
    pub(crate) fn load(&mut self, lane: &mut Lane, now: Now) -> bool {
        lane.note_group(now, 0, 0);
        let Some(page) = lane.wants_page() else { return false };
        // What is read is on the disk.
        self.commit();
        let (_, bytes) = self.entries[&page.number].body.as_ref().unwrap();
        assert_eq!(lane.handle_page(page.number, Some(bytes)), 0);
        self.settle(lane);
        true
    }

    /// A message that came over this connection was new.
    pub(crate) fn note_seen(&mut self, seen: &mut Seen, place: Place) {
        let numbers = Arc::clone(&self.numbers);
        seen.keep(place, 1, &numbers, self);
        self.commit();
    }

    /// Everything so far outlives the cluster.
    pub(crate) fn commit(&mut self) {
        for (number, entry) in self.pending.drain(..) {
            match entry {
                Some(entry) => drop(self.entries.insert(number, entry)),
                None => drop(self.entries.remove(&number).expect("what is deleted was put")),
            }
        }
    }

    /// The cluster has ended without a word, and begins anew.
    pub(crate) fn restore(&mut self, lanes: [&mut Lane; LANES], now: Now) {
        self.pending.clear();
        let parse = |(number, entry): (&u64, &Entry)| {
            Stored::parse(*number, entry.body.as_ref().map(|(body, _)| *body), &entry.value).unwrap()
        };
        let mut all: Vec<Stored> = self.entries.iter().map(parse).collect();
        all.sort_by_key(|stored| (stored.order, stored.number));
        for stored in all {
            let lane = &mut *lanes[usize::from(stored.lane)];
            lane.note_group(now, 0, 0);
            assert_eq!(lane.restore(&stored), 0);
            self.settle(lane);
        }
    }

    /// The same of what came.
    pub(crate) fn restore_seen(&mut self) -> Seen {
        self.pending.clear();
        let mut seen = Seen::default();
        for (number, entry) in &self.entries {
            seen.restore(&StoredSeen::parse(*number, &entry.value).unwrap());
        }
        seen
    }

    /// Nothing is kept any more, once what nobody waited for is committed.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.commit();
        self.entries.is_empty()
    }
}
