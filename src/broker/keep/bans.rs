//! Bans, as they are stored.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::broker::Broker;
use crate::broker::banned::Ban;
use crate::broker::banned::Keeper;
use crate::broker::banned::Kind;
use crate::broker::keep;
use crate::broker::keep::RestoreError;
use crate::broker::keep::restore::OwnedKey;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::store::Store;
use crate::time::Now;

/// What is not in the key. The names of the fields are part of what is on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// The name of the kind, a zero byte, and whom it names.
fn key(kind: Kind, who: &str) -> Vec<u8> {
    [kind.name().as_bytes(), b"\0", who.as_bytes()].concat()
}

fn ban(name: &[u8], value: &[u8]) -> Option<Ban> {
    let (kind, who) = std::str::from_utf8(name).ok()?.split_once('\0')?;
    let Kept { by, reason, at, until } = serde_json::from_slice(value).ok()?;
    Some(Ban { kind: Kind::from_name(kind)?, who: who.to_owned(), by, reason, at, until })
}

/// Stores bans, under the lock of their table. Whoever changes that has begun a turn.
#[derive(Debug)]
struct InStore(Arc<Store>);

impl Keeper for InStore {
    fn kept(&self, ban: &Ban) {
        let Ban { kind, who, by, reason, at, until } = ban;
        let kept = Kept { by: by.clone(), reason: reason.clone(), at: *at, until: *until };
        self.0.begin_inside().append(true, |filling| {
            let name = key(*kind, who);
            filling.group.put(Table::Ban, Key::Name(&name), None, |out| keep::put_json(out, &kept));
        });
    }

    fn gone(&self, kind: Kind, who: &str) {
        self.0.begin_inside().append(true, |filling| {
            filling.group.delete(Table::Ban, Key::Name(&key(kind, who)));
        });
    }
}

impl Broker {
    /// Brings back the bans that are not over, and stores bans from now on. How many there are; what is none any more is
    /// added to `left_over`.
    pub(super) fn restore_bans(
        &self,
        storage: &dyn Storage,
        left_over: &mut Vec<(Table, OwnedKey)>,
        now: Now,
    ) -> Result<usize, RestoreError> {
        storage.for_each(Table::Ban, &mut |entry| {
            let Key::Name(name) = entry.key else { return };
            let is_back = ban(name, entry.value).is_some_and(|ban| self.banned.restore(ban, now));
            if !is_back {
                left_over.push((Table::Ban, OwnedKey::of(entry.key)));
            }
        })?;
        if let Some(store) = &self.store {
            self.banned.keep_in(Box::new(InStore(Arc::clone(store))));
        }
        Ok(self.banned.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_ban_names_is_read_as_it_was_written_whatever_is_in_it() {
        for who in ["sensor-1", "a\0b", "\0", "é \"quoted\""] {
            let name = key(Kind::ClientId, who);
            let found = ban(&name, br#"{"by":"x","at":7,"until":8}"#).unwrap();
            assert_eq!((found.kind, &*found.who, found.at, found.until), (Kind::ClientId, who, 7, Some(8)));
        }
        for (name, value) in
            [("clientid", "{}"), ("nothing\0x", r#"{"by":"x","at":1}"#), ("clientid\0x", "{}")]
        {
            assert!(ban(name.as_bytes(), value.as_bytes()).is_none(), "{name:?}");
        }
    }
}
