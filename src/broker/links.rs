//! The set of links: each ties us to one peer cluster. What a link knows of its peer's wishes lives here; its
//! connections are driven by `link` (route replication) and `forwarder` (messages).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::broker::Broker;
use crate::broker::Routes;
use crate::broker::delivery::Source;
use crate::broker::forwarder::Forwarder;
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
use crate::metrics::labels::Direction;
use crate::metrics::labels::RouteKind;
use crate::session::message::Publication;
use crate::time::Now;

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

    /// Brings the route table up to date with what the peer said or with actors that expired. A disabled link
    /// has no routes there: nothing goes to its peer.
    pub fn apply_changes(&self, routes: &mut RemoteRoutes, table: &Routes) {
        for change in routes.drain_changes() {
            match change {
                remote_routes::RouteChange::Appeared(filter) => table.add_link_route(self.id, &filter),
                remote_routes::RouteChange::Vanished(filter) => table.remove_link_route(self.id, &filter),
            };
        }
        let count = i64::try_from(routes.len()).unwrap_or(i64::MAX);
        self.metrics.routes[(Direction::In, RouteKind::Plain)].set(count);
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

    /// A link that has no routes, messages or connections yet.
    #[must_use]
    pub fn build(&self, settings: settings::Link, cluster: &str, node: &str, broker: &Broker) -> Arc<Link> {
        let topics = LinkTopics::parse(&settings.topics).unwrap_or_default(); // the configuration has checked them
        let quota = settings.quota;
        let limits = RouteLimits { actors: quota.actors, routes: quota.routes, ..RouteLimits::default() };
        let metrics = broker.metrics.link(&settings.name);
        Arc::new(Link {
            id: LinkId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            forwarder: Forwarder::new(&settings, cluster, Arc::clone(&metrics)),
            replication: Replication::new(&settings, topics.clone(), cluster, node),
            topics,
            cluster: Arc::from(cluster),
            metrics,
            routes: Mutex::new(RemoteRoutes::new(limits)),
            connections: AtomicUsize::new(0),
            settings,
        })
    }

    /// Hands a run of messages to every link that wants them. Whether one took them.
    pub fn forward(
        &self,
        ids: &[LinkId],
        publications: &[Publication<'_>],
        source: Source<'_>,
        now: Now,
    ) -> bool {
        let links = self.links.read();
        let mut taken = false;
        for link in links.values().filter(|link| ids.contains(&link.id)) {
            taken |= link.forwarder.push_run(publications, source, now);
        }
        taken
    }

    /// A local route came or went: every link replicates it as far as its topics reach.
    pub fn handle_route_change(&self, change: &RouteChange) {
        for link in self.links.read().values() {
            link.replication.handle_route_change(change);
        }
    }
}

/// STUB until the drivers land
impl Links {
    /// STUB
    pub async fn start(broker: &Arc<Broker>, settings: settings::Link, cluster: &str, node: &str) {
        let link = broker.links.build(settings, cluster, node, broker);
        broker.links.insert(link);
    }
    /// STUB
    pub async fn stop(broker: &Arc<Broker>, cluster: &str) {
        if let Some(link) = broker.links.remove(cluster) {
            broker.routes.clear_link(link.id);
        }
    }
    /// STUB
    pub async fn stop_all(_broker: &Arc<Broker>) {}
}
