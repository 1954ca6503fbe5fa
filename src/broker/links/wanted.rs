//! The filters that a peer wants, as they are stored: a broker that begins anew knows for whom it has to keep messages before
//! the peer has said it again. Whose routes they were is not stored: until a node of the peer has told all of its own, they
//! are stale ([`RemoteRoutes::restore`]).

use std::collections::HashMap;
use std::io;

use crate::broker::links::Link;
use crate::link::remote_routes::RemoteRoutes;
use crate::link::remote_routes::RouteChange;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::store::Store;

/// Filters by the name of the link.
pub(super) type Wanted = HashMap<Box<str>, Vec<Box<str>>>;

/// Stands between the two in a key: neither has it.
const END: u8 = 0;

fn key(link: &str, filter: &str) -> Vec<u8> {
    [link.as_bytes(), &[END], filter.as_bytes()].concat()
}

/// Reads what there is.
pub(super) fn read(storage: &dyn Storage) -> io::Result<Wanted> {
    let mut wanted = Wanted::new();
    storage.for_each(Table::Wanted, &mut |entry| {
        let Key::Name(name) = entry.key else { return };
        let mut parts = name.splitn(2, |byte| *byte == END).map(std::str::from_utf8);
        if let (Some(Ok(link)), Some(Ok(filter))) = (parts.next(), parts.next()) {
            wanted.entry(link.into()).or_default().push(filter.into());
        }
    })?;
    Ok(wanted)
}

/// Deletes what a link had.
pub(super) fn forget<'a>(store: &Store, link: &str, filters: impl Iterator<Item = &'a str>) {
    let burst = store.begin_inside();
    burst.append(false, |filling| {
        for filter in filters {
            filling.group.delete(Table::Wanted, Key::Name(&key(link, filter)));
        }
    });
}

impl Link {
    /// Stores what became wanted or is no longer, under the lock of the peer's routes.
    pub(super) fn keep_wanted(&self, changes: &[RouteChange]) {
        let Some(store) = self.store.as_ref().filter(|_| !changes.is_empty()) else { return };
        let burst = store.begin_inside();
        burst.append(true, |filling| {
            for change in changes {
                match change {
                    RouteChange::Appeared(filter) => {
                        let key = key(self.peer(), filter);
                        filling.group.put(Table::Wanted, Key::Name(&key), None, |_| ());
                    }
                    RouteChange::Vanished(filter) => {
                        filling.group.delete(Table::Wanted, Key::Name(&key(self.peer(), filter)));
                    }
                }
            }
        });
    }

    /// Deletes everything that is stored of these routes.
    pub(super) fn forget_wanted(&self, routes: &RemoteRoutes) {
        if let Some(store) = &self.store {
            forget(store, self.peer(), routes.filters().chain(routes.vanishing()));
        }
    }
}
