//! Delayed messages, as they are stored.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde::Serialize;

use crate::broker::Broker;
use crate::broker::delayed::Waiting;
use crate::broker::keep;
use crate::broker::keep::KeptIdentity;
use crate::broker::keep::RestoreError;
use crate::broker::shared::ClientKey;
use crate::net::clock;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::store::Burst;
use crate::time::Now;

/// What stands beside the message, which is the entry's body.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// When it is due, by the wall clock.
    due: u64,
    /// The publisher's session.
    session: u64,
    #[serde(flatten)]
    identity: KeptIdentity,
}

impl Waiting {
    /// Stores it; an acknowledgement promises that.
    pub(in crate::broker) fn keep(&self, due_mono_ms: u64, burst: Option<&Burst<'_>>) {
        let Some(burst) = burst else { return };
        let now = clock::now();
        let due = (now.unix_ms + due_mono_ms).saturating_sub(now.mono_ms);
        let kept = Kept { due, session: self.key.0, identity: KeptIdentity::of(&self.identity, now) };
        burst.append(true, |filling| {
            let body = keep::put_message(filling, &self.message, burst, now);
            let key = Key::Number(self.number);
            filling.group.put(Table::Delayed, key, Some(body), |out| keep::put_json(out, &kept));
        });
    }

    /// Takes it out of what is stored.
    pub(in crate::broker) fn forget(number: u64, burst: Option<&Burst<'_>>) {
        let Some(burst) = burst.filter(|_| number != 0) else { return };
        burst.append(false, |filling| filling.group.delete(Table::Delayed, Key::Number(number)));
    }
}

impl Broker {
    /// Brings back what waits. How many messages.
    pub(super) fn restore_delayed(&self, storage: &dyn Storage, now: Now) -> Result<usize, RestoreError> {
        let mut found = Vec::new();
        storage.for_each(Table::Delayed, &mut |entry| {
            let kept = serde_json::from_slice::<Kept>(entry.value).ok();
            if let (Key::Number(number), Some(body), Some(kept)) = (entry.key, entry.body, kept) {
                found.push((number, body, kept));
            }
        })?;
        // They keep the order in which they came.
        found.sort_unstable_by_key(|(number, ..)| *number);
        let mut restored = 0;
        for (number, body, Kept { due, session, identity }) in found {
            let Some(message) = self.message(body, now) else { continue };
            let due_mono_ms = (now.mono_ms + due).saturating_sub(now.unix_ms);
            self.next_key.fetch_max(session + 1, Ordering::Relaxed);
            let identity = Arc::new(identity.identity(now));
            let waiting = Waiting { message, identity, key: ClientKey(session), number };
            restored += usize::from(self.delayed.insert(due_mono_ms, waiting));
        }
        Ok(restored)
    }
}
