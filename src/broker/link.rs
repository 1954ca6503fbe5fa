//! Our routes on their way to one linked cluster (`link-protocol.md` 4): changes are handed in by whoever made
//! them, in any order, and `driver` tells the peer. What the *peer* wants of us is not here.

mod copies;
mod driver;
mod inbox;
mod report;
#[cfg(test)]
mod tests;
mod told;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Waker;

use parking_lot::Mutex;

use crate::broker::link::inbox::Inbox;
use crate::broker::link::told::Told;
use crate::broker::routes;
use crate::broker::routes::RouteChange;
use crate::config::settings;
use crate::link::extension::Capabilities;
use crate::link::extension::RouteDigest;
use crate::link::name;
use crate::link::relay;
use crate::link::replicator::ReplicatorConfig;
use crate::link::route::LinkTopics;
use crate::link::route::LocalRoute;
use crate::net::clock;
use crate::storage::Key;
use crate::storage::Table;
use crate::storage::store::Store;
use crate::time::Now;

pub use crate::broker::link::driver::run;

/// Lists the local routes; called on a thread that may take its time.
pub type RouteSource = Arc<dyn Fn() -> Vec<routes::LocalRoute> + Send + Sync>;

/// A snapshot with what it makes of routes for the peer.
type Snapshot = (Vec<LocalRoute>, Told);

/// What the driver and everybody else share.
#[derive(Debug, Default)]
struct Shared {
    inbox: Inbox,
    /// The driver runs: before that, its first snapshot will hold every change.
    running: bool,
    /// The peer is to hear that we are who we were.
    reassure: bool,
    /// Stop, and be done by then, in monotonic milliseconds.
    stop_ms: Option<u64>,
    /// Close, and leave our routes with the peer: another goes on from there.
    leave: bool,
    waker: Option<Waker>,
}

/// See the module.
#[derive(Debug)]
pub struct Replication {
    shared: Mutex<Shared>,
    topics: LinkTopics,
    cluster: Arc<str>,
    peer: Arc<str>,
    node: Arc<str>,
    client_id: Arc<str>,
    response_topic: Box<str>,
    /// Since when the peer lacks a change of our routes, on the monotonic clock; [`u64::MAX`] if it knows all.
    behind_since_ms: AtomicU64,
    capabilities: Capabilities,
    demanded: Capabilities,
    /// The last incarnation of our routes, and where it outlives the process: the next one is above it, whatever the clock says.
    incarnation: AtomicU64,
    store: Option<Arc<Store>>,
    /// Clusters that the peer reaches through us, as it said last.
    reach: Mutex<Arc<[Box<str>]>>,
}

impl Replication {
    /// Not started. `cluster` and `node` are our own names; the last incarnation is 0 if there was none.
    #[must_use]
    pub fn new(
        settings: &settings::Link,
        topics: LinkTopics,
        (cluster, node): (&str, &str),
        last_incarnation: u64,
        store: Option<Arc<Store>>,
    ) -> Self {
        Self {
            shared: Mutex::default(),
            topics,
            cluster: cluster.into(),
            peer: settings.name.as_str().into(),
            node: node.into(),
            client_id: name::route_client_id(&settings.clientid, node).into(),
            response_topic: name::response_topic(cluster, node).into(),
            behind_since_ms: AtomicU64::new(u64::MAX),
            capabilities: settings.capabilities(),
            demanded: settings.demanded,
            incarnation: AtomicU64::new(last_incarnation),
            store,
            reach: Mutex::new(Arc::new([])),
        }
    }

    /// Clusters that the peer reaches through us.
    #[must_use]
    pub fn reach(&self) -> Arc<[Box<str>]> {
        Arc::clone(&self.reach.lock())
    }

    /// The peer has said which; whether it is others than before.
    fn set_reach(&self, names: &[Box<str>]) -> bool {
        let mut reach = self.reach.lock();
        let changed = **reach != *names;
        if changed {
            *reach = names.into();
        }
        changed
    }

    /// Whether the peer takes a route with this id.
    #[must_use]
    pub fn takes(&self, id: &str) -> bool {
        relay::is_agreed(&relay::path(id), &self.peer, &self.reach())
    }

    /// How long the peer has lacked a change of our routes, in milliseconds.
    #[must_use]
    pub fn behind_ms(&self, now: Now) -> u64 {
        now.mono_ms.saturating_sub(self.behind_since_ms.load(Ordering::Relaxed))
    }

    /// A local route came or went. May be called from any task, and two changes of one route in either order.
    pub fn handle_route_change(&self, change: &RouteChange) {
        let filter = &change.route.filter;
        if name::is_reserved(filter) || !self.topics.intersects(filter) {
            return;
        }
        let waker = {
            let mut shared = self.shared.lock();
            if !shared.running {
                return;
            }
            shared.inbox.push(change, clock::now());
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The peer has a new connection to us.
    pub fn reassure(&self) {
        let waker = {
            let mut shared = self.shared.lock();
            shared.reassure = shared.running;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes our routes back from the peer and closes, until `deadline_ms` at the latest.
    pub fn stop(&self, deadline_ms: u64) {
        let waker = {
            let mut shared = self.shared.lock();
            shared.stop_ms.get_or_insert(deadline_ms);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Closes at once and leaves our routes with the peer, for the link that replaces this one: it tells them anew, and the peer
    /// has them until then.
    pub fn leave(&self) {
        let waker = {
            let mut shared = self.shared.lock();
            shared.leave = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The last incarnation of our routes.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Goes on where the link did that this one replaces, and which has ended.
    pub fn follow(&self, old: &Self) {
        self.incarnation.fetch_max(old.incarnation(), Ordering::Relaxed);
    }

    /// This is the incarnation now.
    fn note_incarnation(&self, incarnation: u64) {
        if self.incarnation.swap(incarnation, Ordering::Relaxed) == incarnation {
            return;
        }
        let Some(store) = &self.store else { return };
        let key = Key::Name(self.peer.as_bytes());
        store.begin().append(false, |filling| {
            let value = incarnation.to_le_bytes();
            filling.group.put(Table::Incarnation, key, None, |out| out.extend_from_slice(&value));
        });
    }

    fn config(&self, answer_bytes_max: usize) -> ReplicatorConfig {
        ReplicatorConfig {
            cluster: self.cluster.to_string(),
            target_cluster: self.peer.to_string(),
            actor: self.node.to_string(),
            topics: self.topics.clone(),
            last_incarnation: self.incarnation(),
            capabilities: self.capabilities,
            demanded: self.demanded,
            answer_bytes_max,
        }
    }
}

impl Shared {
    /// Has this task woken when a change comes or the link is stopped.
    fn listen(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
    }
}

/// A route of the table as it is replicated.
fn replicated(route: &routes::LocalRoute) -> LocalRoute {
    match (&route.via, &route.share) {
        (Some(id), _) => LocalRoute::passed_on(id, &route.filter),
        (None, Some(group)) => LocalRoute::shared(group, &route.filter),
        (None, None) => LocalRoute::plain(&route.filter),
    }
}

/// The local routes that the link's topics reach.
fn snapshot(source: &dyn Fn() -> Vec<routes::LocalRoute>, topics: &LinkTopics) -> Snapshot {
    let mut told = Told::default();
    let mut wanted = Vec::new();
    for route in source() {
        if told.change(&route, true, topics) > 0 {
            wanted.push(replicated(&route));
        }
    }
    (wanted, told)
}

/// What the peer was told of, if it was told all of it.
fn digest(source: &dyn Fn() -> Vec<routes::LocalRoute>, topics: &LinkTopics) -> RouteDigest {
    let mut digest = RouteDigest::default();
    for route in source() {
        for key in topics.routes(&replicated(&route)) {
            digest.add(key.topic.as_bytes(), key.id.as_bytes());
        }
    }
    digest
}
