//! What links had when the process before this one ended, and leave to the next. It is read once, before any link begins; each
//! takes its part, and what nobody takes, because its link is configured no more, is deleted.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::broker::Routes;
use crate::broker::forwarder::kept;
use crate::broker::forwarder::kept::Spooled;
use crate::broker::links::Link;
use crate::broker::links::Links;
use crate::broker::links::incoming::SeenWriter;
use crate::broker::links::wanted;
use crate::broker::links::wanted::Wanted;
use crate::link::seen::StoredSeen;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::net::clock;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::store::Store;

/// How long clients that use what we have lent may take to leave.
const LENT_GRACE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Before {
    spooled: Spooled,
    wanted: Wanted,
    seen: BTreeMap<Box<str>, Vec<StoredSeen>>,
    incarnations: BTreeMap<Box<str>, u64>,
}

impl Before {
    fn read(storage: &dyn Storage) -> io::Result<Self> {
        let (spooled, wanted) = (kept::read(storage)?, wanted::read(storage)?);
        let mut before = Self { spooled, wanted, ..Self::default() };
        storage.for_each(Table::Seen, &mut |entry| {
            let Key::Number(number) = entry.key else { return };
            if let Some(stored) = StoredSeen::parse(number, entry.value) {
                before.seen.entry(stored.link.clone()).or_default().push(stored);
            }
        })?;
        before.seen.values_mut().for_each(|stored| stored.sort_unstable_by_key(|entry| entry.number));
        storage.for_each(Table::Incarnation, &mut |entry| {
            let Key::Name(name) = entry.key else { return };
            if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), entry.value.try_into()) {
                before.incarnations.insert(name.into(), u64::from_le_bytes(value));
            }
        })?;
        Ok(before)
    }
}

impl Link {
    /// Stops the tasks of this link, as [`Self::stop`] does. What could not be sent stays for the next life, if there is a store.
    pub(super) async fn suspend(&self) {
        self.end_tasks(false).await;
        self.forwarder.leave(clock::now());
        // Their clients were told to leave before.
        let lent = self.incoming.lending.crowd();
        if timeout(LENT_GRACE, lent.gone()).await.is_err() {
            lent.evict();
        }
    }
}

impl Links {
    /// None yet. What they have to keep they keep in this store.
    #[must_use]
    pub fn new(store: Option<Arc<Store>>) -> Self {
        Self { store, ..Self::default() }
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn load(&self) -> io::Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        *self.before.lock() = Before::read(store.storage())?;
        Ok(())
    }

    /// The last incarnation of our routes that the peer was told of, 0 if there was none.
    pub(super) fn last_incarnation(&self, name: &str) -> u64 {
        self.before.lock().incarnations.remove(name).unwrap_or(0)
    }

    /// Gives a new link what the one of its name had.
    pub(in crate::broker) fn restore(&self, link: &Link, table: &Routes) {
        let Some(store) = &self.store else { return };
        let (wanted, spooled, seen) = {
            let mut before = self.before.lock();
            let wanted = before.wanted.remove(link.peer()).unwrap_or_default();
            let spooled = before.spooled.remove(link.peer()).unwrap_or_default();
            (wanted, spooled, before.seen.remove(link.peer()).unwrap_or_default())
        };
        {
            let _burst = store.begin();
            let mut routes = link.routes.lock();
            routes.restore(wanted.iter().map(AsRef::as_ref));
            link.apply_changes(&mut routes, wanted.len(), table);
        }
        {
            let mut window = link.incoming.seen.lock();
            seen.iter().for_each(|stored| window.restore(stored));
        }
        if link.settings.enable || spooled.is_empty() {
            return link.forwarder.restore(&spooled, clock::now());
        }
        let messages = kept::forget(store, &spooled);
        link.metrics.messages_dropped[(Direction::Out, LinkDropReason::LinkDeleted)].add(messages);
        tracing::warn!(peer = link.peer(), messages, "the link is disabled: its spool is dropped");
    }

    /// Deletes what no link took.
    pub fn forget_others(&self) {
        let Some(store) = &self.store else { return };
        let before = std::mem::take(&mut *self.before.lock());
        for (link, filters) in &before.wanted {
            let _burst = store.begin();
            wanted::forget(store, link, filters.iter().map(AsRef::as_ref));
        }
        let burst = store.begin();
        for (peer, stored) in before.spooled {
            let messages = kept::forget(store, &stored);
            tracing::warn!(peer = &*peer, messages, "there is no such link any more: its spool is dropped");
        }
        burst.append(false, |filling| {
            for stored in before.seen.values().flatten() {
                filling.group.delete(Table::Seen, Key::Number(stored.number));
            }
            for name in before.incarnations.keys() {
                filling.group.delete(Table::Incarnation, Key::Name(name.as_bytes()));
            }
        });
    }

    /// Deletes what is kept of the messages that came over a link which is gone.
    pub(super) fn forget_seen(&self, link: &Link) {
        let Some(store) = &self.store else { return };
        let burst = store.begin();
        let mut seen = link.incoming.seen.lock();
        burst.append(false, |filling| seen.discard(&mut SeenWriter { link: link.peer(), filling }));
    }
}
