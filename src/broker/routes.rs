//! The routing table: which sessions, Shared Subscriptions and linked clusters a Topic Name leads to, and which
//! of our Subscriptions linked clusters must hear about (`link-protocol.md` 5.1). It delivers nothing, decides no
//! authorisation and does not check filters.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use rapidhash::quality::RandomState;

use crate::broker::routes::cache::RouteCache;
use crate::broker::routes::generations::Generations;
use crate::broker::routes::subscribers::FilterRoutes;
use crate::broker::routes::targets::Gathering;
use crate::broker::shared::ClientKey;
use crate::broker::shared::SharedGroup;
use crate::broker::shared::Subscription;
use crate::mqtt::trie::NodeId;
use crate::mqtt::trie::TopicTrie;

mod cache;
mod generations;
mod subscribers;
mod targets;
#[cfg(test)]
mod tests;

pub use crate::broker::routes::cache::CACHED_BYTES_MAX;
pub use crate::broker::routes::cache::CACHED_NAME_BYTES_MAX;
pub use crate::broker::routes::cache::CACHED_NAMES_MAX;
pub use crate::broker::routes::generations::Stamp;
pub use crate::broker::routes::targets::Grant;
pub use crate::broker::routes::targets::Target;
pub use crate::broker::routes::targets::Targets;

/// Filters that one hold of the lock handles when a client or a link goes or a snapshot is taken.
const FILTERS_PER_LOCK: usize = 64;
/// Nodes that one hold of the lock looks at when a snapshot is taken.
const NODES_PER_LOCK: usize = 4_096;

/// Names one linked cluster within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// A route that linked clusters replicate: a filter, or a ShareName and a filter (`link-protocol.md` 5.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalRoute {
    /// The Topic Filter without its `$share/` prefix.
    pub filter: Box<str>,
    /// The ShareName of a Shared Subscription.
    pub share: Option<Box<str>>,
    /// It is another cluster's, and told under this id ([`crate::link::relay`]).
    pub via: Option<Box<str>>,
}

impl LocalRoute {
    fn new(filter: &str, share: Option<&str>) -> Self {
        Self { filter: filter.into(), share: share.map(Into::into), via: None }
    }
}

/// The first local subscriber of a route came, or the last one went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The route.
    pub route: LocalRoute,
    /// Whether it came.
    pub added: bool,
    /// The order in which changes happened. Callers hand changes on without a lock, so two threads may do so in
    /// the other order: of two changes of one route the higher number is the truth.
    pub sequence: u64,
}

/// What became of a SUBSCRIBE or UNSUBSCRIBE of one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Whether the client had this Subscription before (Retain Handling 1, `[MQTT-3.3.1-10]`; No subscription
    /// existed, section 3.11.3).
    pub existed: bool,
    /// What linked clusters must hear of.
    pub change: Option<RouteChange>,
}

/// The targets of a Topic Name and the moment they were right.
#[derive(Debug)]
pub struct Routed<D> {
    /// Where messages of this name go.
    pub targets: Arc<Targets<D>>,
    /// To ask [`RouteTable::is_current`] with before using `targets` again.
    pub stamp: Stamp,
}

impl<D> Clone for Routed<D> {
    fn clone(&self) -> Self {
        Self { targets: Arc::clone(&self.targets), stamp: self.stamp }
    }
}

/// Sizes of the table, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteCounts {
    /// Distinct filters with any subscriber, local or linked.
    pub filters: usize,
    /// Ordinary Subscriptions.
    pub subscriptions: usize,
    /// Members of Shared Subscriptions.
    pub shared_subscriptions: usize,
    /// Distinct local routes, as [`RouteTable::local_routes`] lists them.
    pub local_routes: usize,
    /// Filters of linked clusters, counted once per link.
    pub link_routes: usize,
}

struct Inner<D> {
    trie: TopicTrie<FilterRoutes<D>>,
    links: HashMap<LinkId, BTreeSet<NodeId>>,
    counts: RouteCounts,
    sequence: u64,
}

/// The routing table; `D` is the handle of a local session.
pub struct RouteTable<D> {
    inner: RwLock<Inner<D>>,
    generations: Generations,
    cache: RouteCache<D>,
    /// Shared by all names that lead nowhere.
    nobody: Arc<Targets<D>>,
    matches: AtomicUsize,
}

impl<D: Clone> Default for RouteTable<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Clone> RouteTable<D> {
    /// An empty table, its hashes seeded at random.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            trie: TopicTrie::new(RandomState::new()),
            links: HashMap::new(),
            counts: RouteCounts::default(),
            sequence: 0,
        };
        Self {
            inner: RwLock::new(inner),
            generations: Generations::new(RandomState::new()),
            cache: RouteCache::new(RandomState::new()),
            nobody: Arc::default(),
            matches: AtomicUsize::new(0),
        }
    }

    /// Makes a Subscription, or replaces the client's one of the same filter and ShareName (`[MQTT-3.8.4-3]`).
    pub fn subscribe(&self, filter: &str, share: Option<&str>, subscription: Subscription<D>) -> Changed {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let (_, routes) = inner.trie.entry(filter, FilterRoutes::new);
        let (existed, first) = match share {
            Some(name) => {
                let (existed, first) = routes.join(name, filter, subscription);
                inner.counts.shared_subscriptions += usize::from(!existed);
                (existed, first)
            }
            None => {
                let first = routes.subscribers.is_empty();
                let existed = routes.subscribers.insert(subscription);
                inner.counts.subscriptions += usize::from(!existed);
                (existed, first)
            }
        };
        inner.counts.local_routes += usize::from(first);
        self.generations.bump(filter);
        Changed { existed, change: first.then(|| inner.change(filter, share, true)) }
    }

    /// Ends a Subscription.
    pub fn unsubscribe(&self, key: ClientKey, filter: &str, share: Option<&str>) -> Changed {
        let mut inner = self.inner.write();
        self.unsubscribe_locked(&mut inner, key, filter, share)
    }

    fn unsubscribe_locked(
        &self,
        inner: &mut Inner<D>,
        key: ClientKey,
        filter: &str,
        share: Option<&str>,
    ) -> Changed {
        let none = Changed { existed: false, change: None };
        let Some(id) = inner.trie.find(filter) else { return none };
        let Some(routes) = inner.trie.value_mut(id) else { return none };
        let (existed, last) = match share {
            Some(name) => routes.leave(name, key),
            None => {
                let existed = routes.subscribers.remove(key);
                (existed, existed && routes.subscribers.is_empty())
            }
        };
        if !existed {
            return none;
        }
        if routes.is_empty() {
            inner.trie.remove_at(id);
        }
        let count = match share {
            Some(_) => &mut inner.counts.shared_subscriptions,
            None => &mut inner.counts.subscriptions,
        };
        *count -= 1;
        inner.counts.local_routes -= usize::from(last);
        self.generations.bump(filter);
        Changed { existed, change: last.then(|| inner.change(filter, share, false)) }
    }

    /// Ends the Subscriptions of a client whose session ends: `filters` is the session's own list of filters and
    /// ShareNames. Others get the lock in between.
    pub fn remove_all<'a>(
        &self,
        key: ClientKey,
        filters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Vec<RouteChange> {
        let mut filters = filters.into_iter().peekable();
        let mut changes = Vec::new();
        while filters.peek().is_some() {
            let mut inner = self.inner.write();
            for (filter, share) in filters.by_ref().take(FILTERS_PER_LOCK) {
                changes.extend(self.unsubscribe_locked(&mut inner, key, filter, share).change);
            }
        }
        changes
    }

    /// A linked cluster wants this filter; whether it did not before.
    pub fn add_link_route(&self, link: LinkId, filter: &str) -> bool {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let (id, routes) = inner.trie.entry(filter, FilterRoutes::new);
        let new = routes.add_link(link);
        if new {
            inner.links.entry(link).or_default().insert(id);
            inner.counts.link_routes += 1;
            self.generations.bump(filter);
        }
        new
    }

    /// A linked cluster wants this filter no more; whether it did before.
    pub fn remove_link_route(&self, link: LinkId, filter: &str) -> bool {
        let mut inner = self.inner.write();
        let Some(id) = inner.trie.find(filter) else { return false };
        let existed = inner.remove_link(link, id);
        if existed {
            self.generations.bump(filter);
        }
        existed
    }

    /// A linked cluster wants nothing any more: its routes are void. Others get the lock in between.
    pub fn clear_link(&self, link: LinkId) {
        loop {
            let mut inner = self.inner.write();
            let Some(ids) = inner.links.get(&link) else { return };
            let some: Vec<NodeId> = ids.iter().copied().take(FILTERS_PER_LOCK).collect();
            for id in some {
                let filter = inner.trie.filter(id);
                inner.remove_link(link, id);
                filter.iter().for_each(|filter| self.generations.bump(filter));
            }
        }
    }

    /// The distinct local routes, for the bootstrap of a link. Others get the lock in between, so a route that
    /// comes or goes meanwhile may be missing or listed; its [`RouteChange`] tells.
    #[must_use]
    pub fn local_routes(&self) -> Vec<LocalRoute> {
        let mut routes = Vec::new();
        let mut next = Some(NodeId::START);
        while let Some(at) = next {
            next = self.inner.read().local_routes_after(at, &mut routes);
        }
        routes
    }

    /// The Shared Subscription of this ShareName and filter.
    #[must_use]
    pub fn group(&self, filter: &str, share: &str) -> Option<Arc<SharedGroup<D>>> {
        let inner = self.inner.read();
        let routes = inner.trie.value(inner.trie.find(filter)?)?;
        routes.groups().iter().find(|group| **group.name() == *share).cloned()
    }

    /// Where messages of this Topic Name go.
    #[must_use]
    pub fn targets(&self, name: &str) -> Routed<D> {
        let hash = self.cache.hash(name);
        if let Some(routed) = self.cache.look_up(hash, name, &self.generations) {
            return routed;
        }
        // Before matching: what changes from here on makes the result stale.
        let stamp = self.generations.stamp(name);
        let mut gathering = Gathering::new();
        self.inner.read().trie.for_each_match(name, |routes| gathering.add(routes));
        let targets = gathering.finish().map_or_else(|| Arc::clone(&self.nobody), Arc::new);
        let routed = Routed { targets, stamp };
        self.matches.fetch_add(1, Ordering::Relaxed);
        self.cache.insert(hash, name, &routed);
        routed
    }

    /// Whether a client has an ordinary subscription that this Topic Name matches. Nothing is remembered of it.
    #[must_use]
    pub fn has_subscriber(&self, name: &str) -> bool {
        let mut has = false;
        self.inner.read().trie.for_each_match(name, |routes| has |= !routes.subscribers.is_empty());
        has
    }

    /// Lets go of remembered targets that are no longer right, a share of them at each call.
    pub fn drop_stale(&self, share: usize) {
        self.cache.drop_stale(&self.generations, share);
    }

    /// Whether targets found at this moment are still right.
    #[must_use]
    pub fn is_current(&self, stamp: Stamp) -> bool {
        self.generations.is_current(stamp)
    }

    /// The sizes of the table.
    #[must_use]
    pub fn counts(&self) -> RouteCounts {
        let inner = self.inner.read();
        RouteCounts { filters: inner.trie.len(), ..inner.counts }
    }

    /// How often [`Self::targets`] had to match because the cache did not know.
    #[must_use]
    pub fn cache_misses(&self) -> usize {
        self.matches.load(Ordering::Relaxed)
    }
}

impl<D: Clone> Inner<D> {
    fn change(&mut self, filter: &str, share: Option<&str>, added: bool) -> RouteChange {
        self.sequence += 1;
        RouteChange { route: LocalRoute::new(filter, share), added, sequence: self.sequence }
    }

    fn remove_link(&mut self, link: LinkId, id: NodeId) -> bool {
        let Some(ids) = self.links.get_mut(&link) else { return false };
        if !ids.remove(&id) {
            return false;
        }
        if ids.is_empty() {
            self.links.remove(&link);
        }
        self.counts.link_routes -= 1;
        if let Some(routes) = self.trie.value_mut(id) {
            routes.remove_link(link);
            if routes.is_empty() {
                self.trie.remove_at(id);
            }
        }
        true
    }

    /// Lists the next routes; where it stopped, or `None` at the end.
    fn local_routes_after(&self, mut at: NodeId, routes: &mut Vec<LocalRoute>) -> Option<NodeId> {
        for _ in 0..FILTERS_PER_LOCK {
            let (id, found) = self.trie.next_after(at, NODES_PER_LOCK)?;
            at = id;
            let Some(found) = found else { break };
            if found.subscribers.is_empty() && found.groups().is_empty() {
                continue;
            }
            let Some(filter) = self.trie.filter(id) else { continue };
            if !found.subscribers.is_empty() {
                routes.push(LocalRoute::new(&filter, None));
            }
            routes.extend(found.groups().iter().map(|group| LocalRoute::new(&filter, Some(group.name()))));
        }
        Some(at)
    }
}
