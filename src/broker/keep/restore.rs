//! Sessions, subscriptions, retained and delayed messages and bans of the broker that was here before, in place before anybody connects.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rapidhash::fast::RandomState;

use crate::broker::Broker;
use crate::broker::client::Client;
use crate::broker::keep::KeptSession;
use crate::broker::shared;
use crate::broker::shared::ClientKey;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::topic::ParsedFilter;
use crate::session::Session;
use crate::session::Subscription;
use crate::session::image;
use crate::session::queue::Owed;
use crate::session::restore::Progress;
use crate::session::restore::Remains;
use crate::storage::Entry;
use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::time::Now;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[error("data.dir: what is stored cannot be read: {0}")]
pub struct RestoreError(#[from] pub io::Error);

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// Their subscriptions.
    pub subscriptions: usize,
    /// What they are owed.
    pub owed: usize,
    /// Retained messages.
    pub retained: usize,
    /// Delayed messages.
    pub delayed: usize,
    /// Bans.
    pub bans: usize,
    /// Entries that belong to nothing, or cannot be read by this version: they are removed.
    pub left_over: usize,
}

type Map<T> = HashMap<u64, T, RandomState>;

/// What is stored, by session.
#[derive(Default)]
struct Stored {
    sessions: Map<(KeptSession, Option<u64>)>,
    owed: Map<Vec<(Owed, Progress)>>,
    unreleased: Map<Vec<PacketId>>,
    subscriptions: Vec<(u64, Box<str>, Subscription, bool)>,
    left_over: Vec<(Table, OwnedKey)>,
}

/// A key that is kept.
pub(super) enum OwnedKey {
    Number(u64),
    Name(Box<[u8]>),
}

impl OwnedKey {
    pub(super) fn of(key: Key<'_>) -> Self {
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

impl Stored {
    fn read(storage: &dyn Storage, now: Now) -> io::Result<Self> {
        let mut stored = Self::default();
        let mut sent: Map<PacketId> = Map::default();
        storage.for_each(Table::Session, &mut |entry| stored.session(entry))?;
        storage.for_each(Table::Progress, &mut |entry| {
            if let (Key::Number(number), Ok(id)) = (entry.key, entry.value.try_into()) {
                sent.extend(PacketId::new(u16::from_le_bytes(id)).map(|id| (number, id)));
            }
        })?;
        storage.for_each(Table::Owed, &mut |entry| stored.one_owed(entry, &sent, now))?;
        storage.for_each(Table::Unreleased, &mut |entry| stored.one_unreleased(entry))?;
        storage.for_each(Table::Subscription, &mut |entry| stored.subscription(entry))?;
        // They were numbered as they came to be owed.
        stored.owed.values_mut().for_each(|owed| owed.sort_unstable_by_key(|(owed, _)| owed.number));
        Ok(stored)
    }

    fn session(&mut self, entry: Entry<'_>) {
        match (entry.key, serde_json::from_slice(entry.value)) {
            (Key::Number(number), Ok(kept)) => drop(self.sessions.insert(number, (kept, entry.body))),
            _ => self.left_over.push((Table::Session, OwnedKey::of(entry.key))),
        }
    }

    fn one_owed(&mut self, entry: Entry<'_>, sent: &Map<PacketId>, now: Now) {
        let body = (entry.body.unwrap_or(0), entry.body_bytes);
        let Key::Number(number) = entry.key else { return };
        match image::owed(number, entry.value, body, now) {
            Some((session, owed, progress)) if self.sessions.contains_key(&session) => {
                let progress = match (progress, sent.get(&number)) {
                    (Progress::Waiting, Some(id)) => Progress::Sent(*id),
                    (progress, _) => progress,
                };
                self.owed.entry(session).or_default().push((owed, progress));
            }
            _ => self.left_over.push((Table::Owed, OwnedKey::Number(number))),
        }
    }

    fn one_unreleased(&mut self, entry: Entry<'_>) {
        let id = split_name(entry.key)
            .and_then(|(session, rest)| Some((session, u16::from_be_bytes(rest.try_into().ok()?))))
            .and_then(|(session, id)| Some((session, PacketId::new(id)?)));
        match id {
            Some((session, id)) if self.sessions.contains_key(&session) => {
                self.unreleased.entry(session).or_default().push(id);
            }
            _ => self.left_over.push((Table::Unreleased, OwnedKey::of(entry.key))),
        }
    }

    fn subscription(&mut self, entry: Entry<'_>) {
        match subscription(entry) {
            Some(found) if self.sessions.contains_key(&found.0) => self.subscriptions.push(found),
            _ => self.left_over.push((Table::Subscription, OwnedKey::of(entry.key))),
        }
    }
}

fn split_name(key: Key<'_>) -> Option<(u64, &[u8])> {
    let Key::Name(name) = key else { return None };
    let (session, rest) = name.split_first_chunk()?;
    Some((u64::from_be_bytes(*session), rest))
}

fn subscription(entry: Entry<'_>) -> Option<(u64, Box<str>, Subscription, bool)> {
    let (session, filter) = split_name(entry.key)?;
    let (&[options, exclusive], id) = entry.value.split_first_chunk()?;
    let id = NonZeroU32::new(u32::from_le_bytes(id.try_into().ok()?));
    let options = SubscriptionOptions::from_u8(options)?;
    Some((session, std::str::from_utf8(filter).ok()?.into(), Subscription { options, id }, exclusive != 0))
}

impl Broker {
    /// Brings back what is stored, with the rights it has today, and says what that was.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn restore_all(&self, now: Now) -> Result<(), RestoreError> {
        if self.store.is_none() {
            return Ok(());
        }
        let Restored { sessions, subscriptions, owed, retained, delayed, bans, left_over } =
            self.restore(now)?;
        let removed = self.recheck_subscriptions();
        tracing::info!(
            sessions,
            subscriptions,
            owed,
            retained,
            delayed,
            bans,
            left_over,
            removed,
            "what was stored is back"
        );
        Ok(())
    }

    /// Brings back what is stored.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn restore(&self, now: Now) -> Result<Restored, RestoreError> {
        let Some(store) = &self.store else { return Ok(Restored::default()) };
        let mut stored = Stored::read(store.storage(), now)?;
        // First: of whom is kept out no Will is published.
        let bans = self.restore_bans(store.storage(), &mut stored.left_over, now)?;
        let mut restored = Restored { bans, left_over: stored.left_over.len(), ..Restored::default() };
        let mut clients: Map<Arc<Client>> = Map::default();
        let mut numbers: Vec<u64> = stored.sessions.keys().copied().collect();
        // If there are two of one Client Identifier, the later one counts.
        numbers.sort_unstable();
        for number in numbers {
            let Some((kept, will)) = stored.sessions.remove(&number) else { continue };
            let owed = stored.owed.remove(&number).unwrap_or_default();
            restored.owed += owed.len();
            let unreleased = stored.unreleased.remove(&number).unwrap_or_default();
            let client = self.restore_session(ClientKey(number), kept, will, owed, unreleased, now);
            clients.insert(number, client);
            self.next_key.fetch_max(number + 1, Ordering::Relaxed);
        }
        restored.sessions = clients.len();
        for (number, filter, subscription, exclusive) in stored.subscriptions {
            let Some(client) = clients.get(&number) else { continue };
            restored.subscriptions +=
                usize::from(self.restore_subscription(client, &filter, subscription, exclusive));
        }
        restored.retained = self.restore_retained(store.storage(), now)?;
        restored.delayed = self.restore_delayed(store.storage(), now)?;
        if !stored.left_over.is_empty() {
            let burst = store.begin();
            burst.append(false, |filling| {
                stored.left_over.iter().for_each(|(table, key)| filling.group.delete(*table, key.key()));
            });
        }
        Ok(restored)
    }

    fn restore_session(
        &self,
        key: ClientKey,
        kept: KeptSession,
        will: Option<u64>,
        owed: Vec<(Owed, Progress)>,
        unreleased: Vec<PacketId>,
        now: Now,
    ) -> Arc<Client> {
        let away_ms = kept.away_since_unix_ms.map_or(0, |since| now.unix_ms.saturating_sub(since));
        let will = will.and_then(|body| self.message(body, now));
        let will = will.map(|will| (will, kept.will_in_ms.unwrap_or(0).saturating_sub(away_ms)));
        let identity = Arc::new(kept.identity.identity(now));
        let remains = Remains { expiry_seconds: kept.expiry_seconds, away_ms, will, owed, unreleased };
        let session = Session::restore(Arc::clone(&self.limits().session), remains, now);
        let client = Client::new(key, session, Arc::clone(&identity));
        self.schedule(&client, &mut client.lock(), now);
        if let Some(older) = self.clients.insert(Arc::clone(&identity.client_id), Arc::clone(&client)) {
            self.end_session(&older, now);
        }
        client
    }

    fn restore_subscription(
        &self,
        client: &Arc<Client>,
        filter: &str,
        subscription: Subscription,
        exclusive: bool,
    ) -> bool {
        let Ok(parsed) = ParsedFilter::parse(filter) else { return false };
        let mut state = client.lock();
        if state.over {
            return false;
        }
        if exclusive {
            self.exclusive.take(parsed.filter, client.key);
        }
        let is_new = state.session.subscribe(filter, subscription, None) == Some(true);
        let entry = shared::Subscription {
            key: client.key,
            destination: Arc::clone(client),
            options: subscription.options,
            id: subscription.id,
        };
        // Links are not there yet: they begin with all routes.
        self.routes.subscribe(parsed.filter, parsed.share, entry);
        self.sys.note(parsed.filter);
        is_new
    }
}
