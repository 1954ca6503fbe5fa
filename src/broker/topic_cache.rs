//! What the ACL and the route table said about the topics one connection publishes to. Devices repeat their
//! topics: a hit costs one hash, one comparison and two loads instead of a walk through rules and trie.

use std::hash::BuildHasher;
use std::sync::Arc;

use crate::broker::Routes;
use crate::broker::Targets;
use crate::broker::identity::Denied;
use crate::broker::routes::Stamp;
use crate::mqtt::packet::QoS;

/// Topics remembered per connection; the table starts with one place and grows when topics collide.
const PLACES_MAX: usize = 64;
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
    hasher: rapidhash::fast::RandomState,
}

impl TopicCache {
    /// The entry of `topic`, brought up to date with the policy and the routes.
    pub fn entry(&mut self, topic: &str, policy_generation: u64, routes: &Routes) -> &mut Entry {
        let hash = self.hasher.hash_one(topic);
        let place = self.place_for(topic, hash);
        let slot = &mut self.places[place];
        let known = slot.take().filter(|entry| &*entry.topic == topic);
        let mut entry = known.unwrap_or_else(|| Entry::new(topic, policy_generation, routes));
        if entry.policy_generation != policy_generation {
            entry.policy_generation = policy_generation;
            entry.verdicts = [None; VERDICTS];
        }
        if !routes.is_current(entry.stamp) {
            let routed = routes.targets(topic);
            (entry.targets, entry.stamp) = (routed.targets, routed.stamp);
        }
        slot.insert(entry)
    }

    fn place_for(&mut self, topic: &str, hash: u64) -> usize {
        if self.places.is_empty() {
            self.places.resize_with(1, || None);
        }
        loop {
            let place = (hash as usize) & (self.places.len() - 1);
            let taken = self.places[place].as_ref().is_some_and(|entry| &*entry.topic != topic);
            if !taken || self.places.len() >= PLACES_MAX {
                return place;
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
}
