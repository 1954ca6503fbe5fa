//! One Shared Subscription (MQTT 5.0 section 4.8.2): the sessions behind `$share/{ShareName}/{filter}` and the
//! choice of one of them per message. It delivers nothing and knows nothing of retained messages, which a Shared
//! Subscription never gets (section 4.8.2), nor of No Local, which is a Protocol Error here (`[MQTT-3.8.3-4]`).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use rapidhash::v3::rapidhash_v3;

use crate::mqtt::packet::SubscriptionOptions;

/// Names one session for as long as the process lives; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

/// One session's Subscription: where matching messages go and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription<D> {
    /// Whose it is.
    pub key: ClientKey,
    /// The handle that messages are handed to.
    pub destination: D,
    /// Subscription Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier; never zero (section 3.8.2.1.2).
    pub id: Option<NonZeroU32>,
}

/// Whether a member can be given a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    /// Connected, with room.
    Now,
    /// Not now, but its Session State keeps the message.
    Later,
    /// The message would be lost.
    No,
}

/// The members of one ShareName on one Topic Filter.
#[derive(Debug)]
pub struct SharedGroup<D> {
    name: Arc<str>,
    /// `$share/{ShareName}/{filter}`: goes with what its members keep.
    whole: Arc<Box<str>>,
    /// Sorted by key.
    members: RwLock<Vec<Subscription<D>>>,
    turn: AtomicUsize,
    /// Key of the member picked last, for those who stick to it.
    last: AtomicU64,
}

/// Where to begin looking for a member (`mqtt.shared_subscription_strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the one whose turn it is.
    Turn,
    /// Anywhere.
    Anywhere,
    /// At the one picked last.
    Last,
    /// At the one this hash leads to: the same for as long as the members are the same.
    Hash(u64),
}

impl<D: Clone> SharedGroup<D> {
    pub(super) fn new(name: &str, filter: &str) -> Self {
        Self {
            name: name.into(),
            whole: Arc::new(format!("$share/{name}/{filter}").into()),
            members: RwLock::new(Vec::new()),
            turn: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// The Shared Subscription as `$share/{ShareName}/{filter}`.
    #[must_use]
    pub fn whole(&self) -> &Arc<Box<str>> {
        &self.whole
    }

    /// The ShareName.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.read().len()
    }

    /// Whether the last member has left; such a group is picked from no more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A member: the first, from `start` on, that takes the message now, else the first whose session keeps it.
    /// `eligible` runs under the group's lock and must not come back to it.
    pub fn pick(&self, start: Start, eligible: impl Fn(&D) -> Eligibility) -> Option<Subscription<D>> {
        let members = self.members.read();
        if members.is_empty() {
            return None;
        }
        let (before, from) = members.split_at(self.place_of(start, &members));
        let mut keeps = None;
        let mut now = None;
        for member in from.iter().chain(before) {
            match eligible(&member.destination) {
                Eligibility::Now => {
                    now = Some(member);
                    break;
                }
                Eligibility::Later if keeps.is_none() => keeps = Some(member),
                Eligibility::Later | Eligibility::No => {}
            }
        }
        let picked = now.or(keeps)?;
        if start == Start::Last {
            self.last.store(picked.key.0, Ordering::Relaxed);
        }
        Some(picked.clone())
    }

    /// Below the number of members, of which there is one at least.
    fn place_of(&self, start: Start, members: &[Subscription<D>]) -> usize {
        let last = || ClientKey(self.last.load(Ordering::Relaxed));
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let place = match start {
            Start::Turn => turn(),
            Start::Anywhere => rapidhash_v3(&turn().to_ne_bytes()) as usize,
            Start::Last => match members.binary_search_by_key(&last(), |member| member.key) {
                Ok(at) => at,
                Err(_) => rapidhash_v3(&turn().to_ne_bytes()) as usize,
            },
            Start::Hash(hash) => hash as usize,
        };
        place % members.len()
    }

    /// Adds a member or replaces what it asked for before (`[MQTT-3.8.4-3]`); whether it was one.
    pub(super) fn join(&self, member: Subscription<D>) -> bool {
        let mut members = self.members.write();
        match members.binary_search_by_key(&member.key, |other| other.key) {
            Ok(at) => {
                members[at] = member;
                true
            }
            Err(at) => {
                members.insert(at, member);
                false
            }
        }
    }

    /// Takes a member out; whether it was one.
    pub(super) fn leave(&self, key: ClientKey) -> bool {
        let mut members = self.members.write();
        let found = members.binary_search_by_key(&key, |member| member.key);
        if let Ok(at) = found {
            members.remove(at);
        }
        found.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(keys: impl IntoIterator<Item = u64>) -> SharedGroup<u64> {
        let group = SharedGroup::new("g", "a/b");
        for key in keys {
            assert!(!group.join(member(key)));
        }
        group
    }

    fn member(key: u64) -> Subscription<u64> {
        Subscription {
            key: ClientKey(key),
            destination: key,
            options: SubscriptionOptions::default(),
            id: None,
        }
    }

    fn picks(group: &SharedGroup<u64>, count: usize, eligible: impl Fn(&u64) -> Eligibility) -> Vec<u64> {
        (0..count)
            .filter_map(|_| group.pick(Start::Turn, &eligible))
            .map(|member| member.destination)
            .collect()
    }

    #[test]
    fn members_take_turns() {
        let group = group([3, 1, 2]);
        assert_eq!(picks(&group, 6, |_| Eligibility::Now), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn who_takes_it_now_comes_before_who_keeps_it() {
        let group = group(1..=4);
        let eligible = |key: &u64| if *key == 3 { Eligibility::Now } else { Eligibility::Later };
        assert_eq!(picks(&group, 4, eligible), [3, 3, 3, 3]);
        let eligible = |key: &u64| if *key == 3 { Eligibility::No } else { Eligibility::Later };
        assert_eq!(picks(&group, 4, eligible), [1, 2, 4, 4]);
        assert_eq!(picks(&group, 4, |_| Eligibility::No), Vec::<u64>::new());
    }

    #[test]
    fn joining_again_replaces_and_leaving_ends() {
        let group = group([1]);
        let id = NonZeroU32::new(9);
        assert!(group.join(Subscription { id, ..member(1) }));
        assert_eq!(group.len(), 1);
        assert_eq!(group.pick(Start::Turn, |_| Eligibility::Now).and_then(|member| member.id), id);
        assert!(group.leave(ClientKey(1)));
        assert!(!group.leave(ClientKey(1)));
        assert!(group.is_empty());
        assert_eq!(group.pick(Start::Last, |_| Eligibility::Now), None);
    }

    #[test]
    fn where_to_begin() {
        let group = group(1..=5);
        let pick = |start| group.pick(start, |_| Eligibility::Now).unwrap().destination;
        let first = pick(Start::Last);
        assert!((0..20).all(|_| pick(Start::Last) == first), "sticks to it");
        group.leave(ClientKey(first));
        let second = pick(Start::Last);
        assert!(second != first && (0..20).all(|_| pick(Start::Last) == second));
        assert!((0..20).all(|_| pick(Start::Hash(7)) == pick(Start::Hash(7))));
        let anywhere: std::collections::BTreeSet<u64> = (0..200).map(|_| pick(Start::Anywhere)).collect();
        assert_eq!(anywhere.len(), 4, "everybody gets some");
        assert_eq!(&***group.whole(), "$share/g/a/b");
    }
}
