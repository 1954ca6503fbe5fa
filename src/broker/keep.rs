//! What is stored of sessions: whose they are, their subscriptions, what they owe and are owed. It is done under the lock of
//! the session, within a [`Burst`]: so the changes of one session stand in their order, and those of one turn are kept
//! together or not at all.

mod bans;
mod delayed;
mod identity;
mod restore;
mod retained;

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::broker::Broker;
use crate::broker::Limits;
use crate::broker::Targets;
use crate::broker::client::Client;
use crate::broker::client::State;
pub use crate::broker::keep::identity::Kept as KeptIdentity;
pub use crate::broker::keep::restore::RestoreError;
pub use crate::broker::keep::restore::Restored;
use crate::broker::shared::ClientKey;
use crate::metrics::labels::DropReason;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::session::Bounds;
use crate::session::Session;
use crate::session::Subscription;
use crate::session::image;
use crate::session::journal::Change;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::session::queue::Owed;
use crate::storage::Key;
use crate::storage::Table;
use crate::storage::group::Group;
use crate::storage::store::Burst;
use crate::storage::store::Filling;
use crate::storage::store::Store;
use crate::storage::store::Trouble;
use crate::time::Now;

/// A session as it is written down: JSON, so that fields may come.
#[derive(Debug, Serialize, Deserialize)]
struct KeptSession {
    /// Session Expiry Interval in seconds.
    #[serde(rename = "expiry")]
    expiry_seconds: u32,
    /// Since when it has no connection, by the wall clock; none while it has one.
    #[serde(rename = "away", default, skip_serializing_if = "Option::is_none")]
    away_since_unix_ms: Option<u64>,
    /// Of the Will, which is the entry's body: how long after the connection it is due, or at which moment.
    #[serde(rename = "will_in", default, skip_serializing_if = "Option::is_none")]
    will_in_ms: Option<u64>,
    #[serde(flatten)]
    identity: KeptIdentity,
}

/// Limits by which sessions are kept, if there is where.
pub(super) fn numbered(mut limits: Limits, store: Option<&Store>) -> Limits {
    if let Some(store) = store {
        let numbers = Some(Arc::clone(store.numbers()));
        limits.session = Arc::new(Bounds { numbers, ..(*limits.session).clone() });
    }
    limits
}

/// Adds a message to the group, unless it is in it already.
pub(super) fn put_message(filling: &mut Filling, message: &Message, burst: &Burst<'_>, now: Now) -> u64 {
    filling.body(message.block(), burst.numbers(), |group, number| {
        let mut head = Vec::new();
        group.body(number, &image::message_parts(&message.view(), &mut head, now));
    })
}

/// Writes JSON.
pub(super) fn put_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("what is written has names for its fields, and memory takes it");
}

fn of_session(session: ClientKey, rest: &[u8]) -> Vec<u8> {
    [&session.0.to_be_bytes()[..], rest].concat()
}

fn of_packet(session: ClientKey, id: PacketId) -> Vec<u8> {
    of_session(session, &id.get().to_be_bytes())
}

/// Stores what a session has noted, and marks in it what has to wait for that.
#[inline(never)]
fn put_changes(session: &mut Session, key: ClientKey, burst: &Burst<'_>, now: Now) {
    let changes = session.take_changes();
    let is_promise = |change: &Change| !matches!(change, Change::Sent { .. } | Change::Over { .. });
    burst.append(changes.iter().any(is_promise), |filling| {
        changes.iter().for_each(|change| put_change(filling, change, key, burst, now));
    });
    // What was sent and forgotten would be sent again as if it had not been; but what nobody has acknowledged to its
    // publisher yet is published again, with DUP, unless that was at QoS 2.
    let is_sent = |change: &Change| match change {
        Change::Owed(owed, sent) => sent.is_some() && owed.is_once(),
        change => matches!(change, Change::Sent { .. }),
    };
    if changes.iter().any(is_sent) {
        session.mark_sent(burst.number());
    }
    let is_taken =
        |change: &Change| matches!(change, Change::Received { .. } | Change::Taken(_) | Change::Freed(_));
    if changes.iter().any(is_taken) {
        session.mark_taken(burst.number());
    }
}

fn put_change(filling: &mut Filling, change: &Change, key: ClientKey, burst: &Burst<'_>, now: Now) {
    match change {
        Change::Owed(owed, sent) => put_owed(filling, owed, *sent, key, burst, now),
        Change::Sent { number, id } => {
            let value = id.get().to_le_bytes();
            filling
                .group
                .put(Table::Progress, Key::Number(*number), None, |out| out.extend_from_slice(&value));
        }
        Change::Received { number, id } => {
            filling
                .group
                .put(Table::Owed, Key::Number(*number), None, |out| image::put_received(out, key.0, *id))
        }
        Change::Over { number, noted } => {
            filling.group.delete(Table::Owed, Key::Number(*number));
            if *noted {
                filling.group.delete(Table::Progress, Key::Number(*number));
            }
        }
        Change::Taken(id) => {
            filling.group.put(Table::Unreleased, Key::Name(&of_packet(key, *id)), None, |_| ());
        }
        Change::Freed(id) => filling.group.delete(Table::Unreleased, Key::Name(&of_packet(key, *id))),
    }
}

fn put_owed(
    filling: &mut Filling,
    owed: &Owed,
    sent: Option<PacketId>,
    key: ClientKey,
    burst: &Burst<'_>,
    now: Now,
) {
    let body = put_message(filling, &owed.message, burst, now);
    filling.group.put(Table::Owed, Key::Number(owed.number), Some(body), |out| {
        image::put_owed(out, key.0, owed, sent, now);
    });
}

impl State {
    /// Stores what the session has noted.
    #[inline]
    pub(super) fn keep(&mut self, key: ClientKey, burst: Option<&Burst<'_>>, now: Now) {
        if let Some(burst) = burst
            && self.session.has_changes()
        {
            put_changes(&mut self.session, key, burst, now);
        }
    }

    /// Stores whose session it is, for how long, and its Will.
    /// `promises`: an answer of this turn says so.
    pub(super) fn keep_session(&self, key: ClientKey, burst: Option<&Burst<'_>>, promises: bool, now: Now) {
        let Some(burst) = burst.filter(|_| self.session.is_kept()) else { return };
        let will = self.session.will(now);
        let kept = KeptSession {
            expiry_seconds: self.session.expiry_seconds(),
            away_since_unix_ms: (!self.session.is_connected()).then_some(now.unix_ms),
            will_in_ms: will.map(|(_, in_ms)| in_ms),
            identity: KeptIdentity::of(&self.identity, now),
        };
        burst.append(promises, |filling| {
            let body = will.map(|(message, _)| put_message(filling, message, burst, now));
            filling.group.put(Table::Session, Key::Number(key.0), body, |out| put_json(out, &kept));
        });
    }

    /// Removes what is stored of a session that is over, but for what it has noted itself.
    pub(super) fn forget_session(&self, key: ClientKey, burst: Option<&Burst<'_>>) {
        let Some(burst) = burst.filter(|_| self.session.is_kept()) else { return };
        burst.append(true, |filling| {
            for (filter, _) in self.session.subscriptions() {
                delete_subscription(&mut filling.group, key, filter);
            }
            filling.group.delete(Table::Session, Key::Number(key.0));
        });
    }

    /// Stores a subscription. `exclusive`: nobody else may have it.
    pub(super) fn keep_subscription(
        &self,
        key: ClientKey,
        filter: &str,
        subscription: Subscription,
        exclusive: bool,
        burst: Option<&Burst<'_>>,
    ) {
        let Some(burst) = burst.filter(|_| self.session.is_kept()) else { return };
        let options = subscription.options.to_u8();
        let id = subscription.id.map_or(0, u32::from);
        burst.append(true, |filling| {
            let name = of_session(key, filter.as_bytes());
            filling.group.put(Table::Subscription, Key::Name(&name), None, |out| {
                out.extend_from_slice(&[options, u8::from(exclusive)]);
                out.extend_from_slice(&id.to_le_bytes());
            });
        });
    }

    /// Removes a subscription from what is stored.
    pub(super) fn forget_subscription(&self, key: ClientKey, filter: &str, burst: Option<&Burst<'_>>) {
        let Some(burst) = burst.filter(|_| self.session.is_kept()) else { return };
        burst.append(true, |filling| delete_subscription(&mut filling.group, key, filter));
    }
}

/// What is wrong with the store, and what follows from it.
#[must_use]
pub fn trouble_text(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Full => "the store is full: nothing is taken that has to be kept",
        Trouble::Failing => "the store cannot be written: nothing is taken that has to be kept",
        Trouble::Slow => "the store is too slow: nothing is taken that has to be kept",
    }
}

fn delete_subscription(group: &mut Group, key: ClientKey, filter: &str) {
    group.delete(Table::Subscription, Key::Name(&of_session(key, filter.as_bytes())));
}

impl Broker {
    /// Why nothing can be kept for now, if that is so.
    #[inline]
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.store.as_ref()?.trouble()
    }

    /// The same in words.
    #[must_use]
    pub fn store_complaint(&self) -> Option<&'static str> {
        self.trouble().map(trouble_text)
    }

    /// Why a run cannot be taken: there is something in it that would have to be kept.
    #[inline]
    pub(super) fn cannot_keep(&self, publications: &[Publication<'_>], targets: &Targets) -> Option<Trouble> {
        let trouble = self.trouble()?;
        let promised = || publications.iter().filter(|one| one.qos != QoS::AtMostOnce);
        let is_kept = || {
            !targets.links.is_empty()
                || !targets.shared.is_empty()
                || targets.clients.iter().any(|target| target.destination.is_kept())
        };
        let must = promised().any(|one| one.retain) || (promised().next().is_some() && is_kept());
        must.then_some(trouble)
    }
}

/// So many bodies are fetched for one client at once.
const BODIES_AT_ONCE: usize = 64;

impl Broker {
    /// Fetches the messages that a session is about to send and does not have in memory.
    pub(super) fn fetch_wanted(&self, client: &Client, now: Now) {
        let wanted = client.lock().session.wanted(BODIES_AT_ONCE);
        self.fetch(client, &wanted, now);
    }

    /// Fetches everything that a session is owed.
    pub(super) fn fetch_all(&self, client: &Client, now: Now) {
        let wanted = client.lock().session.elsewhere();
        self.fetch(client, &wanted, now);
    }

    fn fetch(&self, client: &Client, wanted: &[(u64, u64)], now: Now) {
        let Some(store) = self.store.as_ref().filter(|_| !wanted.is_empty()) else { return };
        let burst = store.begin();
        let fetched: Vec<(u64, Option<Message>)> =
            wanted.iter().map(|(number, body)| (*number, self.message(*body, now))).collect();
        let mut state = client.lock();
        for (number, message) in fetched {
            state.session.supply(number, message);
        }
        state.keep(client.key, Some(&burst), now);
    }

    /// A message that is stored; `None`, counted and logged, if it is damaged.
    pub(super) fn message(&self, body: u64, now: Now) -> Option<Message> {
        let store = self.store.as_ref()?;
        let found =
            store.storage().body(body).map(|bytes| bytes.and_then(|bytes| image::message(&bytes, now)));
        match found {
            Ok(Some(message)) => return Some(message),
            Ok(None) => tracing::error!(body, "a stored message is missing or damaged"),
            Err(error) => tracing::error!(body, %error, "a stored message cannot be read"),
        }
        self.metrics.broker.messages_dropped[DropReason::Damaged].inc();
        None
    }
}
