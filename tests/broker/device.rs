//! A storage in memory that does as it is told: it works, hangs or fails.

#![allow(dead_code, reason = "not every user of this file needs all of it")]

use std::io;
use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;

use tombolo::storage::Entry;
use tombolo::storage::Storage;
use tombolo::storage::Table;
use tombolo::storage::Usage;
use tombolo::storage::group::Group;
use tombolo::storage::memory::Memory;

/// What a commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Works,
    Hangs,
    Fails(io::ErrorKind),
}

/// A disk that does as it is told.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) memory: Memory,
    disk: Mutex<Disk>,
    changed: Condvar,
}

impl Device {
    pub(crate) fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self { memory, disk: Mutex::new(Disk::Works), changed: Condvar::new() })
    }

    pub(crate) fn set(&self, disk: Disk) {
        *self.disk.lock() = disk;
        self.changed.notify_all();
    }
}

impl Storage for Device {
    fn commit(&self, group: &mut Group, sync: bool) -> io::Result<()> {
        let mut disk = self.disk.lock();
        while *disk == Disk::Hangs {
            self.changed.wait(&mut disk);
        }
        match *disk {
            Disk::Fails(kind) => Err(kind.into()),
            _ => self.memory.commit(group, sync),
        }
    }

    fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        self.memory.body(number)
    }

    fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        self.memory.for_each(table, each)
    }

    fn last_number(&self) -> u64 {
        self.memory.last_number()
    }

    fn maintain(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn usage(&self) -> Usage {
        self.memory.usage()
    }
}
