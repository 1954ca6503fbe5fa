//! Retained messages, as they are stored: those that were published here. Copies of what a linked cluster retains are asked
//! for again.

use std::collections::HashMap;
use std::sync::Arc;

use rapidhash::fast::RandomState;
use serde::Deserialize;
use serde::Serialize;

use crate::broker::Broker;
use crate::broker::identity::Identity;
use crate::broker::keep;
use crate::broker::keep::KeptIdentity;
use crate::broker::keep::RestoreError;
use crate::broker::retained::Keeper;
use crate::broker::retained::Origin;
use crate::net::clock;
use crate::session::message::Message;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::store::Store;
use crate::time::Now;

/// What stands beside the message, which is the entry's body.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// When it was published, by the wall clock.
    at: u64,
    /// By whom, if not by the broker or an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<KeptIdentity>,
}

/// Stores what is retained, under the lock of the retained messages. Whoever changes those has begun a turn.
struct InStore(Arc<Store>);

impl Keeper<Message, Identity> for InStore {
    fn kept(&self, message: &Message, publisher: Option<&Identity>, stamp_ms: u64) {
        let now = clock::now();
        let kept = Kept { at: stamp_ms, by: publisher.map(|publisher| KeptIdentity::of(publisher, now)) };
        let burst = self.0.begin_inside();
        burst.append(true, |filling| {
            let body = keep::put_message(filling, message, &burst, now);
            let key = Key::Name(message.view().topic.as_bytes());
            filling.group.put(Table::Retained, key, Some(body), |out| keep::put_json(out, &kept));
        });
    }

    fn gone(&self, name: &str) {
        let burst = self.0.begin_inside();
        burst.append(true, |filling| filling.group.delete(Table::Retained, Key::Name(name.as_bytes())));
    }
}

impl Broker {
    /// Brings back what was retained, and stores what is from now on. How many messages.
    pub(super) fn restore_retained(&self, storage: &dyn Storage, now: Now) -> Result<usize, RestoreError> {
        let mut found = Vec::new();
        // Many messages have one publisher.
        let mut publishers: HashMap<Vec<u8>, Arc<Identity>, RandomState> = HashMap::default();
        storage.for_each(Table::Retained, &mut |entry| {
            let kept = serde_json::from_slice::<Kept>(entry.value).ok();
            if let (Some(body), Some(kept)) = (entry.body, kept) {
                let publisher = kept.by.map(|by| {
                    let name = serde_json::to_vec(&by).unwrap_or_default();
                    Arc::clone(publishers.entry(name).or_insert_with(|| Arc::new(by.identity(now))))
                });
                found.push((body, kept.at, publisher));
            }
        })?;
        let mut restored = 0;
        for (body, stamp_ms, publisher) in found {
            let Some(message) = self.message(body, now) else { continue };
            let origin = Origin { link: None, stamp_ms };
            restored += usize::from(self.retained.insert(message, publisher.as_ref(), origin).is_ok());
        }
        if let Some(store) = &self.store {
            self.retained.keep_in(Box::new(InStore(Arc::clone(store))));
        }
        Ok(restored)
    }
}
