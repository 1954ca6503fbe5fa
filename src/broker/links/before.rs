//! What links had when the process before this one ended, and leave to the next. It is read once, before any link begins; each
//! takes its part, and what nobody takes, because its link is configured no more, is deleted.

use std::io;
use std::sync::Arc;

use crate::broker::Routes;
use crate::broker::forwarder::kept;
use crate::broker::forwarder::kept::Spooled;
use crate::broker::links::Link;
use crate::broker::links::Links;
use crate::broker::links::wanted;
use crate::broker::links::wanted::Wanted;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::net::clock;
use crate::storage::store::Store;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Before {
    spooled: Spooled,
    wanted: Wanted,
}

impl Link {
    /// Stops the tasks of this link, as [`Self::stop`] does. What could not be sent stays for the next life, if there is a store.
    pub(super) async fn suspend(&self) {
        self.end_tasks().await;
        self.forwarder.leave(clock::now());
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
        let spooled = kept::read(store.storage())?;
        *self.before.lock() = Before { spooled, wanted: wanted::read(store.storage())? };
        Ok(())
    }

    /// Gives a new link what the one of its name had.
    pub(in crate::broker) fn restore(&self, link: &Link, table: &Routes) {
        let Some(store) = &self.store else { return };
        let wanted = self.before.lock().wanted.remove(link.peer()).unwrap_or_default();
        {
            let _burst = store.begin();
            let mut routes = link.routes.lock();
            routes.restore(wanted.iter().map(AsRef::as_ref));
            link.apply_changes(&mut routes, wanted.len(), table);
        }
        let Some(stored) = self.before.lock().spooled.remove(link.peer()) else { return };
        if link.settings.enable {
            return link.forwarder.restore(&stored, clock::now());
        }
        let messages = kept::forget(store, &stored);
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
        for (peer, stored) in before.spooled {
            let messages = kept::forget(store, &stored);
            tracing::warn!(peer = &*peer, messages, "there is no such link any more: its spool is dropped");
        }
    }
}
