//! A [`Storage`] that keeps everything in memory: for tests, and the model that the others are compared with.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;

use parking_lot::Mutex;

use crate::storage::Change;
use crate::storage::Entry;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::Usage;
use crate::storage::group::Group;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owned {
    Number(u64),
    Name(Box<[u8]>),
}

impl Owned {
    fn of(key: Key<'_>) -> Self {
        match key {
            Key::Number(number) => Self::Number(number),
            Key::Name(name) => Self::Name(name.into()),
        }
    }

    fn key(&self) -> Key<'_> {
        match self {
            Self::Number(number) => Key::Number(*number),
            Self::Name(name) => Key::Name(name),
        }
    }
}

/// What an entry is, and the number of the body it refers to.
type Value = (Box<[u8]>, Option<u64>);

#[derive(Debug, Clone, Default)]
struct Tables {
    entries: BTreeMap<(Table, Owned), Value>,
    /// With how many entries refer to each.
    bodies: HashMap<u64, (Box<[u8]>, usize)>,
    last_number: u64,
}

impl Tables {
    fn apply(&mut self, change: Change<'_>) {
        match change {
            Change::Body { number, bytes } => {
                self.note(number);
                self.bodies.insert(number, (bytes.into(), 0));
            }
            Change::Put { table, key, body, value } => {
                if let Key::Number(number) = key {
                    self.note(number);
                }
                if let Some((_, refs)) = body.and_then(|number| self.bodies.get_mut(&number)) {
                    *refs += 1;
                }
                let before = self.entries.insert((table, Owned::of(key)), (value.into(), body));
                self.let_go(before.and_then(|(_, body)| body));
            }
            Change::Delete { table, key } => {
                let before = self.entries.remove(&(table, Owned::of(key)));
                self.let_go(before.and_then(|(_, body)| body));
            }
        }
    }

    fn note(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    fn let_go(&mut self, body: Option<u64>) {
        let Some(number) = body else { return };
        if let Some((_, refs)) = self.bodies.get_mut(&number) {
            *refs -= 1;
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Tables>);

impl Memory {
    /// What is in it now, apart from it: as a power cut leaves it.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Mutex::new(self.0.lock().clone()))
    }
}

impl Storage for Memory {
    fn commit(&self, group: &mut Group, _: bool) -> io::Result<()> {
        let mut tables = self.0.lock();
        group.changes().for_each(|change| tables.apply(change));
        tables.bodies.retain(|_, (_, refs)| *refs > 0);
        Ok(())
    }

    fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().bodies.get(&number).map(|(bytes, _)| bytes.to_vec()))
    }

    fn for_each(&self, wanted: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        let tables = self.0.lock();
        for ((table, key), (value, body)) in &tables.entries {
            if *table == wanted {
                let found = body.and_then(|number| tables.bodies.get(&number));
                let body_bytes = found.map_or(0, |(bytes, _)| bytes.len() as u32);
                each(Entry { key: key.key(), value, body: *body, body_bytes });
            }
        }
        Ok(())
    }

    fn last_number(&self) -> u64 {
        self.0.lock().last_number
    }

    fn maintain(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn usage(&self) -> Usage {
        let tables = self.0.lock();
        let values: usize = tables.entries.values().map(|(value, _)| value.len()).sum();
        let bodies: usize = tables.bodies.values().map(|(bytes, _)| bytes.len()).sum();
        let bytes = (values + bodies) as u64;
        Usage {
            bytes,
            live_bytes: bytes,
            entries: tables.entries.len() as u64,
            bodies: tables.bodies.len() as u64,
            ..Usage::default()
        }
    }
}
