//! Where the messages of one Topic Name go: every matching Subscription, merged to one entry per client
//! (MQTT 5.0 section 3.3.4: one copy with the highest QoS and all Subscription Identifiers).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::broker::routes::LinkId;
use crate::broker::routes::subscribers::FilterRoutes;
use crate::broker::shared::ClientKey;
use crate::broker::shared::SharedGroup;
use crate::broker::shared::Subscription;
use crate::mqtt::packet::QoS;

/// How a client asked to be given a message, over all its matching Subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The highest Maximum QoS (`[MQTT-3.3.4-2]`).
    pub qos: QoS,
    /// Whether any of them wants RETAIN as it came (`[MQTT-3.3.1-13]`).
    pub retain_as_published: bool,
    /// The Subscription Identifiers of all that have one, equal ones repeated (`[MQTT-3.3.4-4]`).
    pub subscription_ids: SmallVec<[u32; 1]>,
}

impl Grant {
    fn new<D>(subscription: &Subscription<D>) -> Self {
        let subscription_ids = subscription.id.iter().map(|id| id.get()).collect();
        let options = subscription.options;
        Self { qos: options.qos, retain_as_published: options.retain_as_published, subscription_ids }
    }

    fn add<D>(&mut self, subscription: &Subscription<D>) {
        self.qos = self.qos.max(subscription.options.qos);
        self.retain_as_published |= subscription.options.retain_as_published;
        self.subscription_ids.extend(subscription.id.map(|id| id.get()));
    }
}

/// What No Local leaves of a grant when the publisher is the client itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    /// No matching Subscription has No Local.
    Same,
    /// Every one has (`[MQTT-3.8.3-3]`).
    Nothing,
    /// What those without it ask for.
    Other(Box<Grant>),
}

/// One client that gets the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<D> {
    /// The client.
    pub key: ClientKey,
    /// The handle that messages are handed to.
    pub destination: D,
    grant: Grant,
    own: Own,
}

impl<D: Clone> Target<D> {
    /// Merges the Subscriptions of one client.
    fn merged(subscriptions: &[Subscription<D>]) -> Option<Self> {
        let (first, others) = subscriptions.split_first()?;
        let mut grant = Grant::new(first);
        others.iter().for_each(|other| grant.add(other));
        let own = own_grant(subscriptions);
        Some(Self { key: first.key, destination: first.destination.clone(), grant, own })
    }
}

fn own_grant<D>(subscriptions: &[Subscription<D>]) -> Own {
    if !subscriptions.iter().any(|subscription| subscription.options.no_local) {
        return Own::Same;
    }
    let mut local = subscriptions.iter().filter(|subscription| !subscription.options.no_local);
    let Some(first) = local.next() else { return Own::Nothing };
    let mut grant = Grant::new(first);
    local.for_each(|other| grant.add(other));
    Own::Other(Box::new(grant))
}

impl<D> Target<D> {
    /// How this client is given a message of `publisher`; `None` where No Local forbids it (`[MQTT-3.8.3-3]`).
    #[must_use]
    pub fn grant_for(&self, publisher: Option<ClientKey>) -> Option<&Grant> {
        if publisher != Some(self.key) {
            return Some(&self.grant);
        }
        match &self.own {
            Own::Same => Some(&self.grant),
            Own::Nothing => None,
            Own::Other(grant) => Some(grant),
        }
    }
}

/// Everyone a message of one Topic Name goes to.
#[derive(Debug, Clone)]
pub struct Targets<D> {
    /// One entry per client, in the order of their keys.
    pub clients: SmallVec<[Target<D>; 2]>,
    /// One member of each gets the message (`[MQTT-4.8.2-3]` to `[MQTT-4.8.2-6]` are the caller's).
    pub shared: Vec<Arc<SharedGroup<D>>>,
    /// Each linked cluster gets it once.
    pub links: SmallVec<[LinkId; 2]>,
}

impl<D> Default for Targets<D> {
    fn default() -> Self {
        Self { clients: SmallVec::new(), shared: Vec::new(), links: SmallVec::new() }
    }
}

impl<D> Targets<D> {
    /// Whether nobody gets the message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.shared.is_empty() && self.links.is_empty()
    }

    /// What it holds in memory, roughly: for the bound of the cache.
    pub(super) fn bytes(&self) -> usize {
        let clients = if self.clients.spilled() { size_of_val::<[Target<D>]>(&self.clients) } else { 0 };
        size_of::<Self>() + clients + size_of_val::<[Arc<SharedGroup<D>>]>(&self.shared)
    }
}

/// Gathers what the matching filters lead to.
pub(super) struct Gathering<D> {
    subscriptions: SmallVec<[Subscription<D>; 8]>,
    /// Filters that gave ordinary Subscriptions; one alone has no client twice.
    filters: usize,
    targets: Targets<D>,
}

impl<D: Clone> Gathering<D> {
    pub(super) fn new() -> Self {
        Self { subscriptions: SmallVec::new(), filters: 0, targets: Targets::default() }
    }

    pub(super) fn add(&mut self, routes: &FilterRoutes<D>) {
        if !routes.subscribers.is_empty() {
            self.filters += 1;
            self.subscriptions.extend(routes.subscribers.iter().cloned());
        }
        self.targets.shared.extend(routes.groups().iter().cloned());
        for link in routes.links() {
            if !self.targets.links.contains(link) {
                self.targets.links.push(*link);
            }
        }
    }

    /// The merged targets, or `None` when there are none. To be called without a lock: it may have to sort.
    pub(super) fn finish(mut self) -> Option<Targets<D>> {
        if self.filters > 1 {
            self.subscriptions.sort_by_key(|subscription| subscription.key);
        }
        let clients = self.subscriptions.chunk_by(|one, other| one.key == other.key);
        self.targets.clients = clients.filter_map(Target::merged).collect();
        self.targets.links.sort_unstable();
        (!self.targets.is_empty()).then_some(self.targets)
    }
}
