//! The set of links: each ties us to one peer cluster. What a link knows of its peer's wishes lives here; its
//! connections are driven by `link` (route replication) and `forwarder` (messages), as tasks that belong to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::broker::Routes;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::forwarder::Forwarder;
use crate::broker::forwarder::run_lane;
use crate::broker::link;
use crate::broker::link::Replication;
use crate::broker::routes::LinkId;
use crate::broker::routes::RouteChange;
use crate::config::settings;
use crate::link::ingress::LinkView;
use crate::link::remote_routes;
use crate::link::remote_routes::RemoteRoutes;
use crate::link::remote_routes::RouteLimits;
use crate::link::route::LinkTopics;
use crate::metrics::LinkMetrics;
use crate::metrics::Metrics;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::RouteKind;
use crate::net::clock;
use crate::session::message::Publication;
use crate::time::Now;

/// How long a link that stops may go on sending, in milliseconds.
const STOP_GRACE_MS: u64 = 2_000;
/// Until when its connections must be closed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How often expired actors of a peer are looked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// One link as configured. A changed configuration makes a new one.
#[derive(Debug)]
pub struct Link {
    /// Names it in the route table; never used again.
    pub id: LinkId,
    /// The configuration.
    pub settings: settings::Link,
    /// What we want from the peer.
    pub topics: LinkTopics,
    /// Our own cluster name.
    pub cluster: Arc<str>,
    /// Its series.
    pub metrics: Arc<LinkMetrics>,
    /// What the peer wants of us.
    pub routes: Mutex<RemoteRoutes>,
    /// Messages on their way to the peer.
    pub forwarder: Forwarder,
    /// Our routes on their way to the peer.
    pub replication: Replication,
    /// Connections of the peer to us.
    connections: AtomicUsize,
    /// Its routes are void.
    stopped: AtomicBool,
    tasks: Mutex<Tasks>,
}

/// What runs for a link.
#[derive(Debug, Default)]
struct Tasks {
    drivers: JoinSet<()>,
    watch: Option<AbortHandle>,
}

impl Link {
    /// The peer's cluster name.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.settings.name
    }

    /// What ingress looks at.
    #[must_use]
    pub fn view(&self) -> LinkView<'_> {
        LinkView {
            peer: &self.settings.name,
            cluster: &self.cluster,
            enabled: self.settings.enable,
            topics: &self.topics,
        }
    }

    /// Counts a connection of the peer; `false` when it has as many as `quota.connections` grants.
    pub fn enter(&self) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.settings.quota.connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.metrics.connections[Direction::In].inc();
        true
    }

    /// A connection of the peer is gone.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections[Direction::In].dec();
    }

    /// Brings the route table up to date with what the peer said or with actors that expired. A link that is
    /// disabled or was stopped has no routes there: nothing goes to its peer.
    pub fn apply_changes(&self, routes: &mut RemoteRoutes, table: &Routes) {
        let active = self.settings.enable && !self.stopped.load(Ordering::Relaxed);
        for change in routes.drain_changes().filter(|_| active) {
            match change {
                remote_routes::RouteChange::Appeared(filter) => table.add_link_route(self.id, &filter),
                remote_routes::RouteChange::Vanished(filter) => table.remove_link_route(self.id, &filter),
            };
        }
        let count = i64::try_from(routes.len()).unwrap_or(i64::MAX);
        self.metrics.routes[(Direction::In, RouteKind::Plain)].set(count);
    }

    /// Removes the routes of the peer's actors that have been silent for too long.
    pub fn collect(&self, table: &Routes, now: Now) {
        let mut routes = self.routes.lock();
        routes.collect(now);
        self.apply_changes(&mut routes, table);
    }

    /// Takes over what the peer told `old`, the link before a change of its configuration: as long as the peer's
    /// connection lives, it will not say it again. `old` has no routes from here on.
    fn inherit(&self, old: &Self, table: &Routes) {
        let mut mine = self.routes.lock();
        let mut theirs = old.routes.lock();
        old.stopped.store(true, Ordering::Relaxed);
        if self.settings.quota == old.settings.quota {
            *mine = std::mem::take(&mut *theirs);
            if self.settings.enable {
                for filter in mine.filters() {
                    table.add_link_route(self.id, filter);
                }
            }
        }
        theirs.clear();
        old.apply_changes(&mut theirs, table);
        self.apply_changes(&mut mine, table);
        table.clear_link(old.id);
    }

    /// Forgets the peer's routes.
    fn forget(&self, table: &Routes) {
        let mut routes = self.routes.lock();
        self.stopped.store(true, Ordering::Relaxed);
        routes.clear();
        self.apply_changes(&mut routes, table);
        table.clear_link(self.id);
    }

    /// Starts the tasks of this link, once it is in [`Links`]. A disabled link only watches its peer's actors.
    fn run(self: &Arc<Self>, broker: &Arc<Broker>, node: &str) {
        let mut tasks = self.tasks.lock();
        self.metrics.set_state(if self.settings.enable {
            LinkState::Connecting
        } else {
            LinkState::Disabled
        });
        let (link, watched) = (Arc::clone(self), Arc::clone(broker));
        tasks.watch = Some(tasks.drivers.spawn(watch(link, watched)));
        if !self.settings.enable {
            return;
        }
        let node: Arc<str> = node.into();
        for index in 0..self.forwarder.lanes() {
            tasks.drivers.spawn(run_lane(Arc::clone(self), index, Arc::clone(&node)));
        }
        let table = Arc::clone(broker);
        tasks.drivers.spawn(link::run(Arc::clone(self), Arc::new(move || table.routes.local_routes())));
    }

    /// Stops the tasks of this link and waits for them: our routes are taken back from the peer and messages
    /// in the spool may still go, for `STOP_GRACE_MS` at most.
    pub async fn stop(&self) {
        let deadline_ms = clock::now().plus_ms(STOP_GRACE_MS).mono_ms;
        self.forwarder.stop(deadline_ms);
        self.replication.stop(deadline_ms);
        let mut drivers = {
            let mut tasks = self.tasks.lock();
            if let Some(watch) = tasks.watch.take() {
                watch.abort();
            }
            std::mem::take(&mut tasks.drivers)
        };
        let ended = async {
            while let Some(ended) = drivers.join_next().await {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(peer = self.peer(), "a task of the link had failed: {error}");
                }
            }
        };
        if timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!(peer = self.peer(), "the link did not stop in time");
        }
    }
}

/// Removes expired actors, for as long as the link lives.
async fn watch(link: Arc<Link>, broker: Arc<Broker>) {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        link.collect(&broker.routes, clock::now());
    }
}

/// All links, by the peer's cluster name.
#[derive(Debug, Default)]
pub struct Links {
    links: RwLock<BTreeMap<String, Arc<Link>>>,
    next_id: AtomicU32,
}

impl Links {
    /// The link to this cluster.
    #[must_use]
    pub fn get(&self, cluster: &str) -> Option<Arc<Link>> {
        self.links.read().get(cluster).map(Arc::clone)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.links.read().values().map(Arc::clone).collect()
    }

    /// Adds a link, or replaces the one to the same cluster, which is given back to be stopped.
    pub fn insert(&self, link: Arc<Link>) -> Option<Arc<Link>> {
        self.links.write().insert(link.settings.name.clone(), link)
    }

    /// Takes a link out, to be stopped.
    pub fn remove(&self, cluster: &str) -> Option<Arc<Link>> {
        self.links.write().remove(cluster)
    }

    /// Starts a link. If there is one to the same cluster already it is stopped first, which may take a moment;
    /// what its peer has told us stays unless the quota changed.
    pub async fn start(broker: &Arc<Broker>, settings: settings::Link, cluster: &str, node: &str) {
        let link = broker.links.build(settings, cluster, node, broker.metrics.as_ref());
        if let Some(old) = broker.links.insert(Arc::clone(&link)) {
            link.inherit(&old, &broker.routes);
            // Both have the same Client Identifiers at the peer.
            old.stop().await;
        }
        link.run(broker, node);
    }

    /// Stops the link to this cluster and forgets it.
    pub async fn stop(broker: &Arc<Broker>, cluster: &str) {
        if let Some(link) = broker.links.remove(cluster) {
            link.forget(&broker.routes);
            link.stop().await;
        }
    }

    /// Stops all links at once. They stay known, so that their peers are not told that they are unknown.
    pub async fn stop_all(broker: &Arc<Broker>) {
        let mut stopping = JoinSet::new();
        for link in broker.links.all() {
            stopping.spawn(async move { link.stop().await });
        }
        while stopping.join_next().await.is_some() {}
    }

    /// A link that has no routes, messages or connections yet.
    #[must_use]
    pub fn build(&self, settings: settings::Link, cluster: &str, node: &str, metrics: &Metrics) -> Arc<Link> {
        let topics = LinkTopics::parse(&settings.topics).unwrap_or_default(); // the configuration has checked them
        let quota = settings.quota;
        let limits = RouteLimits { actors: quota.actors, routes: quota.routes, ..RouteLimits::default() };
        let metrics = metrics.link(&settings.name);
        Arc::new(Link {
            id: LinkId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            forwarder: Forwarder::new(&settings, cluster, Arc::clone(&metrics)),
            replication: Replication::new(&settings, topics.clone(), cluster, node),
            topics,
            cluster: Arc::from(cluster),
            metrics,
            routes: Mutex::new(RemoteRoutes::new(limits)),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            tasks: Mutex::default(),
            settings,
        })
    }

    /// Hands a run of messages to every link that wants them.
    pub fn forward(
        &self,
        ids: &[LinkId],
        publications: &[Publication<'_>],
        source: Source<'_>,
        now: Now,
    ) -> Reached {
        let links = self.links.read();
        let mut all = Reached::Nobody;
        for link in links.values().filter(|link| ids.contains(&link.id)) {
            match link.forwarder.push_run(publications, source, now) {
                Reached::Refused => all = Reached::Refused,
                Reached::Somebody if all == Reached::Nobody => all = Reached::Somebody,
                Reached::Somebody | Reached::Nobody => {}
            }
        }
        all
    }

    /// A local route came or went: every link replicates it as far as its topics reach.
    pub fn handle_route_change(&self, change: &RouteChange) {
        for link in self.links.read().values() {
            link.replication.handle_route_change(change);
        }
    }
}

#[cfg(test)]
mod tests;
