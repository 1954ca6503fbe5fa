//! What the ACL and the route table said about the topics one connection publishes to. Devices repeat their
//! topics: a hit costs one hash, one comparison and two loads instead of a walk through rules and trie.
//!
//! A connection has a small table of its own, which most never fill. One that publishes to more topics than that has
//! them in the table of its thread, among those of others: so that memory is bounded by threads, and not by
//! connections that did so once.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::broker::Routes;
use crate::broker::Targets;
use crate::broker::identity::Denied;
use crate::broker::routes::Stamp;
use crate::mqtt::packet::QoS;

/// Topics remembered by a connection itself; the table starts with one place and grows when topics collide.
const PLACES_MAX: usize = 64;
/// Topics remembered by a thread, of connections whose own do not suffice.
const SPILLED_MAX: usize = 16 * 1024;
/// Places a topic may have there.
const WAYS: usize = 4;
/// A longer topic is remembered by its connection only.
const SPILLED_BYTES_MAX: usize = 256;
/// By QoS and RETAIN: a rule may ask for both.
const VERDICTS: usize = 6;

/// One topic.
#[derive(Debug)]
pub struct Entry {
    topic: Box<str>,
    levels: usize,
    policy_generation: u64,
    verdicts: [Option<Result<(), Denied>>; VERDICTS],
    targets: Arc<Targets>,
    stamp: Stamp,
}

impl Entry {
    fn new(topic: &str, policy_generation: u64, routes: &Routes) -> Self {
        let routed = routes.targets(topic);
        Self {
            topic: topic.into(),
            levels: topic.bytes().filter(|byte| *byte == b'/').count() + 1,
            policy_generation,
            verdicts: [None; VERDICTS],
            targets: routed.targets,
            stamp: routed.stamp,
        }
    }

    /// Brings it up to date with the policy and the routes.
    fn refresh(&mut self, policy_generation: u64, routes: &Routes) {
        if self.policy_generation != policy_generation {
            self.policy_generation = policy_generation;
            self.verdicts = [None; VERDICTS];
        }
        if !routes.is_current(self.stamp) {
            let routed = routes.targets(&self.topic);
            (self.targets, self.stamp) = (routed.targets, routed.stamp);
        }
    }

    /// The verdict for this kind of PUBLISH, asked for once.
    pub fn verdict(
        &mut self,
        qos: QoS,
        retain: bool,
        ask: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        *self.verdicts[qos as usize * 2 + usize::from(retain)].get_or_insert_with(ask)
    }

    /// Who gets it.
    #[must_use]
    pub fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    /// Who gets it, unless that is `known`.
    #[must_use]
    pub fn targets_unless(&self, known: Option<&Arc<Targets>>) -> Option<Arc<Targets>> {
        let same = known.is_some_and(|known| Arc::ptr_eq(known, &self.targets));
        (!same).then(|| Arc::clone(&self.targets))
    }

    /// Whether the topic has more levels than `mqtt.max_topic_levels`.
    #[must_use]
    pub fn too_many_levels(&self, max: usize) -> bool {
        self.levels > max
    }
}

/// The topics of one connection, by hash.
#[derive(Debug, Default)]
pub struct TopicCache {
    places: Vec<Option<Entry>>,
    /// Names this connection in the table of its thread, once it has topics there. Whoever has entries there holds
    /// it, so that nobody else is taken for this connection.
    spilled: Option<Arc<()>>,
    hasher: rapidhash::fast::RandomState,
}

impl TopicCache {
    /// Reads the entry of `topic`, brought up to date with the policy and the routes.
    pub fn with<R>(
        &mut self,
        topic: &str,
        policy_generation: u64,
        routes: &Routes,
        read: impl FnOnce(&mut Entry) -> R,
    ) -> R {
        let hash = self.hasher.hash_one(topic);
        let may_spill = topic.len() <= SPILLED_BYTES_MAX;
        if let Some(owner) = self.spilled.as_ref().filter(|_| may_spill) {
            return SPILLED.with_borrow_mut(|spilled| {
                read(spilled.entry(owner, hash, topic, policy_generation, routes))
            });
        }
        let (place, taken) = self.place_for(topic, hash);
        if taken && may_spill {
            self.spilled = Some(Arc::default());
            self.places = Vec::new();
            return self.with(topic, policy_generation, routes, read);
        }
        read(refreshed(&mut self.places[place], topic, policy_generation, routes))
    }

    /// The place of a topic, and whether another one has it.
    fn place_for(&mut self, topic: &str, hash: u64) -> (usize, bool) {
        if self.places.is_empty() {
            self.places.resize_with(1, || None);
        }
        loop {
            let place = (hash as usize) & (self.places.len() - 1);
            let taken = self.places[place].as_ref().is_some_and(|entry| &*entry.topic != topic);
            if !taken || self.places.len() >= PLACES_MAX {
                return (place, taken);
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let mut places: Vec<Option<Entry>> = Vec::new();
        places.resize_with(self.places.len() * 4, || None);
        for entry in self.places.drain(..).flatten() {
            let place = (self.hasher.hash_one(&*entry.topic) as usize) & (places.len() - 1);
            places[place] = Some(entry);
        }
        self.places = places;
    }
}

impl Drop for TopicCache {
    /// What it had in the table of its thread goes with it: it may hold sessions that are over.
    fn drop(&mut self) {
        let Some(owner) = self.spilled.take() else { return };
        // A thread that ends has no table any more.
        let _ = SPILLED.try_with(|spilled| {
            if let Ok(mut spilled) = spilled.try_borrow_mut() {
                spilled.forget(&owner);
            }
        });
    }
}

/// The entry of `topic` at its place, whatever was there.
fn refreshed<'p>(
    place: &'p mut Option<Entry>,
    topic: &str,
    policy_generation: u64,
    routes: &Routes,
) -> &'p mut Entry {
    if place.as_ref().is_some_and(|entry| &*entry.topic != topic) {
        *place = None;
    }
    let entry = place.get_or_insert_with(|| Entry::new(topic, policy_generation, routes));
    entry.refresh(policy_generation, routes);
    entry
}

thread_local! {
    static SPILLED: RefCell<Spilled> = RefCell::default();
}

/// A topic of one of several connections.
#[derive(Debug)]
struct Owned {
    owner: Arc<()>,
    hash: u64,
    entry: Option<Entry>,
}

impl Owned {
    fn is_of(&self, owner: &Arc<()>, topic: &str) -> bool {
        Arc::ptr_eq(&self.owner, owner) && self.entry.as_ref().is_some_and(|entry| &*entry.topic == topic)
    }
}

/// The topics of the connections of a thread that have too many for themselves.
#[derive(Debug, Default)]
struct Spilled {
    /// Sets of [`WAYS`] places, one after the other.
    places: Vec<Option<Owned>>,
    /// Which of a full set goes next.
    turn: usize,
}

impl Spilled {
    fn entry(
        &mut self,
        owner: &Arc<()>,
        hash: u64,
        topic: &str,
        policy_generation: u64,
        routes: &Routes,
    ) -> &mut Entry {
        let place = self.place_for(owner, hash, topic);
        let owned =
            self.places[place].get_or_insert_with(|| Owned { owner: Arc::clone(owner), hash, entry: None });
        refreshed(&mut owned.entry, topic, policy_generation, routes)
    }

    /// Where the topic is, or a free place for it: made by growing, or in the end by forgetting another.
    fn place_for(&mut self, owner: &Arc<()>, hash: u64, topic: &str) -> usize {
        loop {
            if let Some(set) = self.set(hash) {
                let is_it = |place: &Option<Owned>| place.as_ref().is_some_and(|it| it.is_of(owner, topic));
                if let Some(way) = self.places[set..set + WAYS].iter().position(is_it) {
                    return set + way;
                }
                if let Some(way) = self.places[set..set + WAYS].iter().position(Option::is_none) {
                    return set + way;
                }
                if self.places.len() >= SPILLED_MAX {
                    self.turn = self.turn.wrapping_add(1);
                    let place = set + self.turn % WAYS;
                    self.places[place] = None;
                    return place;
                }
            }
            self.grow();
        }
    }

    fn set(&self, hash: u64) -> Option<usize> {
        (!self.places.is_empty())
            .then(|| (hash as usize) & (self.places.len() / WAYS - 1))
            .map(|set| set * WAYS)
    }

    fn forget(&mut self, owner: &Arc<()>) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|owned| Arc::ptr_eq(&owned.owner, owner)) {
                *place = None;
            }
        }
    }

    /// Four times as large.
    fn grow(&mut self) {
        let before = std::mem::take(&mut self.places);
        self.places.resize_with((before.len() * 4).max(4 * PLACES_MAX), || None);
        for owned in before.into_iter().flatten() {
            let free = self
                .set(owned.hash)
                .and_then(|set| self.places[set..set + WAYS].iter_mut().find(|place| place.is_none()));
            if let Some(place) = free {
                *place = Some(owned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which topics of a connection had to be looked up anew.
    fn misses(cache: &mut TopicCache, routes: &Routes, topics: &[String]) -> usize {
        let mut missed = 0;
        for topic in topics {
            cache.with(topic, 0, routes, |entry| {
                assert_eq!(&*entry.topic, topic.as_str());
                let _ = entry.verdict(QoS::AtMostOnce, false, || {
                    missed += 1;
                    Ok(())
                });
            });
        }
        missed
    }

    fn topics(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("site/{n}/state")).collect()
    }

    #[test]
    fn thousands_of_topics_are_remembered_and_many_more_are_bounded() {
        let routes = Routes::default();
        let mut cache = TopicCache::default();
        let some = topics(3_000);
        assert_eq!(misses(&mut cache, &routes, &some[..1]), 1);
        assert_eq!(
            (misses(&mut cache, &routes, &some[..1]), cache.places.len()),
            (0, 1),
            "one place for one topic"
        );
        misses(&mut cache, &routes, &some);
        assert_eq!(cache.places.len(), 0, "they are in the table of the thread");
        let again = misses(&mut cache, &routes, &some);
        assert!(again < 150, "{again} of 3,000 looked up again");
        misses(&mut cache, &routes, &topics(60_000));
        SPILLED.with_borrow(|spilled| assert_eq!(spilled.places.len(), SPILLED_MAX));
    }

    #[test]
    fn what_one_may_do_says_nothing_of_another() {
        let routes = Routes::default();
        let (mut one, mut other) = (TopicCache::default(), TopicCache::default());
        other.hasher = one.hasher;
        let many = topics(500);
        misses(&mut one, &routes, &many);
        assert_eq!(misses(&mut other, &routes, &many), 500, "asked for itself");
    }

    #[test]
    fn a_new_policy_is_asked_again() {
        let routes = Routes::default();
        let mut cache = TopicCache::default();
        for topic in &topics(200) {
            cache.with(topic, 1, &routes, |entry| entry.verdict(QoS::AtMostOnce, false, || Ok(())).ok());
        }
        let mut asked = 0;
        for topic in &topics(200) {
            let verdict = cache.with(topic, 2, &routes, |entry| {
                entry.verdict(QoS::AtMostOnce, false, || {
                    asked += 1;
                    Err(Denied::NoMatch)
                })
            });
            assert_eq!(verdict, Err(Denied::NoMatch));
        }
        assert_eq!(asked, 200);
    }

    #[test]
    fn what_a_connection_spilled_ends_with_it() {
        let routes = Routes::default();
        let mut cache = TopicCache::default();
        misses(&mut cache, &routes, &topics(500));
        let held = || SPILLED.with_borrow(|spilled| spilled.places.iter().flatten().count());
        assert!(held() > 400);
        drop(cache);
        assert_eq!(held(), 0);
    }

    #[test]
    fn a_long_topic_stays_with_its_connection() {
        let routes = Routes::default();
        let mut cache = TopicCache::default();
        misses(&mut cache, &routes, &topics(500));
        let long = ["l".repeat(SPILLED_BYTES_MAX + 1)];
        assert_eq!((misses(&mut cache, &routes, &long), misses(&mut cache, &routes, &long)), (1, 0));
        assert_eq!(cache.places.len(), 1);
    }
}
