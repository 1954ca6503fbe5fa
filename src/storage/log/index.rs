//! Where every entry and body is, in memory, and how much of each segment is still wanted.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use rapidhash::fast::RandomState;

use crate::storage::Change;
use crate::storage::Key;
use crate::storage::Table;
use crate::storage::log::numbers::Numbers;

/// Where a record is. Segments are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// Where in it the record begins.
    pub offset: u32,
    /// How long it is, with length and sum.
    pub length: u32,
}

impl Place {
    /// Of a body that some entry refers to, and that is damaged or has not been read yet.
    pub const NOWHERE: Self = Self { segment: 0, offset: 0, length: 0 };
}

/// An entry.
#[derive(Debug, Clone, Copy)]
struct Held {
    place: Place,
    /// The number of its body in two halves, which saves the padding; 0 without one.
    body: [u32; 2],
}

impl Held {
    fn new(place: Place, body: Option<u64>) -> Self {
        let number = body.unwrap_or(0);
        Self { place, body: [(number >> 32) as u32, number as u32] }
    }

    fn body(&self) -> u64 {
        u64::from(self.body[0]) << 32 | u64::from(self.body[1])
    }
}

/// A body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// Where it is.
    pub place: Place,
    /// How many entries refer to it.
    pub refs: u32,
}

/// One file.
#[derive(Debug)]
pub struct Segment<H> {
    /// It.
    pub handle: Arc<H>,
    /// What the sums of its records begin with.
    pub salt: u32,
    /// How long it is.
    pub bytes: u64,
    /// How much of that is wanted.
    pub live_bytes: u64,
}

#[derive(Debug, Default)]
struct Entries {
    numbers: Numbers<Held>,
    names: HashMap<Box<[u8]>, Held, RandomState>,
}

/// How much of a table there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Entries.
    pub entries: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Index<H> {
    tables: [Entries; Table::ALL.len()],
    bodies: Numbers<Body>,
    segments: BTreeMap<u32, Segment<H>>,
    bytes: u64,
    live_bytes: u64,
    last_number: u64,
    /// Bodies of the group that is applied which nothing refers to.
    unwanted: Vec<u64>,
    /// Until everything is read an entry may come before its body, which was moved, so no body is let go.
    loading: bool,
}

impl<H> Index<H> {
    /// An empty one that is being filled, until [`Self::loaded`].
    #[must_use]
    pub fn loading() -> Self {
        Self {
            tables: Default::default(),
            bodies: Numbers::default(),
            segments: BTreeMap::new(),
            bytes: 0,
            live_bytes: 0,
            last_number: 0,
            unwanted: Vec::new(),
            loading: true,
        }
    }

    /// Ends the loading.
    pub fn loaded(&mut self) {
        self.loading = false;
        let unwanted = self.bodies.extract_if(|body| body.refs == 0);
        unwanted.into_iter().for_each(|body| self.count(body.place, false));
    }

    /// Adds a file.
    pub fn add_segment(&mut self, number: u32, segment: Segment<H>) {
        self.bytes += segment.bytes;
        self.segments.insert(number, segment);
    }

    /// Forgets a file of which nothing is wanted.
    pub fn remove_segment(&mut self, number: u32) {
        if let Some(segment) = self.segments.remove(&number) {
            self.bytes -= segment.bytes;
        }
    }

    /// Says how long a file is.
    pub fn resize(&mut self, number: u32, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            self.bytes = self.bytes - segment.bytes + bytes;
            segment.bytes = bytes;
        }
    }

    /// Every file, by its number.
    #[must_use]
    pub fn segments(&self) -> &BTreeMap<u32, Segment<H>> {
        &self.segments
    }

    /// Makes a change take effect that is written at this place.
    pub fn apply(&mut self, change: Change<'_>, place: Place) {
        match change {
            Change::Body { number, .. } => {
                self.note(number);
                let body = self.bodies.get_or_insert(number, Body { place: Place::NOWHERE, refs: 0 });
                let before = std::mem::replace(&mut body.place, place);
                if body.refs == 0 && !self.loading {
                    self.unwanted.push(number);
                }
                self.count(before, false);
            }
            Change::Put { table, key, body, .. } => {
                if let Key::Number(number) = key {
                    self.note(number);
                }
                // Before the entry of the key goes: it may be the only other one that refers to the body.
                if let Some(number) = body {
                    self.bodies.get_or_insert(number, Body { place: Place::NOWHERE, refs: 0 }).refs += 1;
                }
                let held = Held::new(place, body);
                let entries = self.entries_mut(table);
                let before = match key {
                    Key::Number(number) => entries.numbers.insert(number, held),
                    Key::Name(name) => match entries.names.get_mut(name) {
                        Some(known) => Some(std::mem::replace(known, held)),
                        None => entries.names.insert(name.into(), held),
                    },
                };
                self.let_go(before);
            }
            Change::Delete { table, key } => {
                let entries = self.entries_mut(table);
                let before = match key {
                    Key::Number(number) => entries.numbers.remove(number),
                    Key::Name(name) => entries.names.remove(name),
                };
                self.let_go(before);
                return;
            }
        }
        self.count(place, true);
    }

    /// Ends a group: bodies that nothing refers to are gone.
    pub fn settle(&mut self) {
        while let Some(number) = self.unwanted.pop() {
            if self.bodies.get(number).is_some_and(|body| body.refs == 0) {
                let body = self.bodies.remove(number);
                self.count(body.map_or(Place::NOWHERE, |body| body.place), false);
            }
        }
    }

    fn let_go(&mut self, entry: Option<Held>) {
        let Some(entry) = entry else { return };
        self.count(entry.place, false);
        let number = entry.body();
        if let Some(body) = self.bodies.get_mut(number) {
            body.refs -= 1;
            if body.refs == 0 && !self.loading {
                self.unwanted.push(number);
            }
        }
    }

    fn count(&mut self, place: Place, wanted: bool) {
        let bytes = u64::from(place.length);
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            if wanted {
                segment.live_bytes += bytes;
                self.live_bytes += bytes;
            } else {
                segment.live_bytes -= bytes;
                self.live_bytes -= bytes;
            }
        }
    }

    /// Remembers a number that a key or a body had.
    pub fn note(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    /// The largest of them.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// A body.
    #[must_use]
    pub fn body(&self, number: u64) -> Option<Body> {
        self.bodies.get(number).copied()
    }

    /// Whether this place is where the thing that is written there has its place.
    #[must_use]
    pub fn is_live(&self, change: Change<'_>, place: Place) -> bool {
        match change {
            Change::Body { number, .. } => self.bodies.get(number).is_some_and(|body| body.place == place),
            Change::Put { table, key, .. } => {
                let entries = self.entries(table);
                let held = match key {
                    Key::Number(number) => entries.numbers.get(number),
                    Key::Name(name) => entries.names.get(name),
                };
                held.is_some_and(|held| held.place == place)
            }
            Change::Delete { .. } => false,
        }
    }

    /// Where the entries of a table are, in the order of the files.
    #[must_use]
    pub fn places(&self, table: Table) -> Vec<Place> {
        let entries = self.entries(table);
        let held = entries.numbers.values().chain(entries.names.values());
        let mut places: Vec<Place> = held.map(|held| held.place).collect();
        places.sort_unstable();
        places
    }

    /// Where everything is that is wanted of a segment, in its order.
    #[must_use]
    pub fn places_in(&self, segment: u32) -> Vec<Place> {
        let held =
            self.tables.iter().flat_map(|entries| entries.numbers.values().chain(entries.names.values()));
        let all = held.map(|held| held.place).chain(self.bodies.values().map(|body| body.place));
        let mut places: Vec<Place> = all.filter(|place| place.segment == segment).collect();
        places.sort_unstable();
        places
    }

    /// Forgets what cannot be read any more: entries are gone, bodies are damaged. How many there were.
    pub fn lose(&mut self, lost: &[Place]) -> u64 {
        let mut gone = Vec::new();
        for entries in &mut self.tables {
            let is_lost = |held: &Held| lost.contains(&held.place);
            gone.extend(entries.numbers.extract_if(is_lost));
            gone.extend(entries.names.extract_if(|_, held| is_lost(held)).map(|(_, held)| held));
        }
        let mut count = gone.len() as u64;
        gone.into_iter().for_each(|held| self.let_go(Some(held)));
        let mut places = Vec::new();
        for body in self.bodies.values_mut().filter(|body| lost.contains(&body.place)) {
            places.push(std::mem::replace(&mut body.place, Place::NOWHERE));
        }
        count += places.len() as u64;
        places.into_iter().for_each(|place| self.count(place, false));
        self.settle();
        count
    }

    /// How much of a table there is.
    #[must_use]
    pub fn size(&self, table: Table) -> Size {
        let entries = self.entries(table);
        let held = entries.numbers.values().chain(entries.names.values());
        held.fold(Size::default(), |size, held| Size {
            entries: size.entries + 1,
            bytes: size.bytes + u64::from(held.place.length),
        })
    }

    /// How much of bodies there is.
    #[must_use]
    pub fn bodies_size(&self) -> Size {
        self.bodies.values().fold(Size::default(), |size, body| Size {
            entries: size.entries + 1,
            bytes: size.bytes + u64::from(body.place.length),
        })
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries_count(&self) -> u64 {
        self.tables.iter().map(|entries| (entries.numbers.count() + entries.names.len()) as u64).sum()
    }

    /// How many bodies there are.
    #[must_use]
    pub fn bodies_count(&self) -> u64 {
        self.bodies.count() as u64
    }

    /// Bytes of all files, and how much of them is wanted.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes, self.live_bytes)
    }

    fn entries(&self, table: Table) -> &Entries {
        &self.tables[table as usize - 1]
    }

    fn entries_mut(&mut self, table: Table) -> &mut Entries {
        &mut self.tables[table as usize - 1]
    }
}
