//! What outlives the process: entries in tables, and bodies that entries refer to.
//!
//! Everything durable is one of two things. An *entry* is a small value under a key of a [`Table`]: a session, a
//! subscription, what a session is owed. A *body* is a message, stored once however many entries refer to it, and gone
//! with the last of them. Changes to both are gathered in a [`Group`], which takes effect as a whole or not at all;
//! [`store::Store`] fills groups from many threads and commits one after the other, so that one synchronisation of the
//! disk serves everybody who waits for it.
//!
//! [`Storage`] is the seam: [`memory::Memory`] keeps everything in memory, [`log::Log`] in segments of a directory. What
//! the entries mean is not known here.

pub mod files;
pub mod group;
pub mod log;
pub mod memory;
pub mod store;

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::storage::group::Group;

/// Whose an entry is. The number is part of what is on disk: it never changes, and no number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Sessions, by number.
    Session = 1,
    /// Subscriptions, by number of the session and filter.
    Subscription = 2,
    /// What is owed to a session, by number; each refers to a message.
    Owed = 3,
    /// Packet Identifiers of QoS 2 messages that were taken and not released, by session and identifier.
    Unreleased = 4,
    /// Retained messages, by topic.
    Retained = 5,
    /// Delayed messages, by number.
    Delayed = 6,
    /// Bans, by kind and whom.
    Ban = 7,
    /// What waits for a linked cluster, by number.
    Spool = 8,
    /// Ids of messages that came over links lately, by number.
    Seen = 9,
    /// The last incarnation of our routes, by link.
    Incarnation = 10,
    /// How far sessions are: where a delivery stands, by number of the owed entry.
    Progress = 11,
    /// Filters that linked clusters want, by link and filter.
    Wanted = 12,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 12] = [
        Self::Session,
        Self::Subscription,
        Self::Owed,
        Self::Unreleased,
        Self::Retained,
        Self::Delayed,
        Self::Ban,
        Self::Spool,
        Self::Seen,
        Self::Incarnation,
        Self::Progress,
        Self::Wanted,
    ];

    /// The table of this number.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }

    /// Its name, for operators.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "sessions",
            Self::Subscription => "subscriptions",
            Self::Owed => "owed",
            Self::Unreleased => "unreleased",
            Self::Retained => "retained",
            Self::Delayed => "delayed",
            Self::Ban => "bans",
            Self::Spool => "spool",
            Self::Seen => "seen",
            Self::Incarnation => "incarnations",
            Self::Progress => "progress",
            Self::Wanted => "wanted",
        }
    }
}

/// The key of an entry within its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key<'a> {
    /// A number, handed out by [`store::Store::next_number`].
    Number(u64),
    /// At most 65,535 + 64 bytes.
    Name(&'a [u8]),
}

/// One change, as a group holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// A body, before the entries that refer to it. One that no entry refers to at the end of a group is not kept.
    Body {
        /// Its number.
        number: u64,
        /// What it is.
        bytes: &'a [u8],
    },
    /// An entry, in the place of the one of its key.
    Put {
        /// The table.
        table: Table,
        /// The key.
        key: Key<'a>,
        /// The number of the body it refers to.
        body: Option<u64>,
        /// What it is.
        value: &'a [u8],
    },
    /// No entry of this key any more.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Key<'a>,
    },
}

/// An entry as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: Key<'a>,
    /// What it is.
    pub value: &'a [u8],
    /// The number of the body it refers to.
    pub body: Option<u64>,
    /// How many bytes that has; 0 without one, or when it was damaged.
    pub body_bytes: u32,
}

/// How large a storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Of those, what is still wanted.
    pub live_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bodies.
    pub bodies: u64,
    /// Files.
    pub segments: u64,
    /// Records that were damaged and set aside.
    pub set_aside: u64,
}

/// Where groups are kept. One thread commits; any may read.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Makes a group take effect, as a whole; with `sync` it is on the disk afterwards, without it with the operating
    /// system. After an error nothing of it counts, and the same group may be given again.
    ///
    /// # Errors
    /// Those of the system.
    fn commit(&self, group: &mut Group, sync: bool) -> io::Result<()>;

    /// The bytes of a body that an entry refers to.
    ///
    /// # Errors
    /// Those of the system, and `InvalidData` for one that was damaged.
    fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>>;

    /// Gives every entry of a table, in no particular order.
    ///
    /// # Errors
    /// Those of the system. An entry that is damaged is left out and counted.
    fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()>;

    /// The largest number that a key or a body of any entry has or had.
    fn last_number(&self) -> u64;

    /// Gives space back, a bounded part of the work. Whether there is more to do.
    ///
    /// # Errors
    /// Those of the system; nothing is lost by them.
    fn maintain(&self) -> io::Result<bool>;

    /// How large it is.
    fn usage(&self) -> Usage;

    /// Nothing is committed any more: others may open what it is in.
    ///
    /// # Errors
    /// Those of the system; nothing is lost by them.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Storage + ?Sized> Storage for Arc<T> {
    fn commit(&self, group: &mut Group, sync: bool) -> io::Result<()> {
        (**self).commit(group, sync)
    }

    fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        (**self).body(number)
    }

    fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        (**self).for_each(table, each)
    }

    fn last_number(&self) -> u64 {
        (**self).last_number()
    }

    fn maintain(&self) -> io::Result<bool> {
        (**self).maintain()
    }

    fn usage(&self) -> Usage {
        (**self).usage()
    }

    fn close(&self) -> io::Result<()> {
        (**self).close()
    }
}

#[cfg(test)]
mod battery;
