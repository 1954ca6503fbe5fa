//! The set of links: each ties us to one peer cluster. What a link knows of its peer's wishes lives here; its
//! connections are driven by `link` (route replication) and `forwarder` (messages), as tasks that belong to it.

mod before;
mod books;
pub mod incoming;
mod passing;
mod pins;
mod tasks;
pub mod unread;
mod wanted;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;

use crate::broker::Broker;
use crate::broker::Routes;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::forwarder::Forwarder;
use crate::broker::forwarder::bounds;
use crate::broker::link::Replication;
use crate::broker::link_events::LinkStates;
use crate::broker::link_inspect::Forwarding;
use crate::broker::link_retained::Sweep;
use crate::broker::links::before::Before;
pub use crate::broker::links::books::PeerBooks;
use crate::broker::links::incoming::Incoming;
use crate::broker::links::pins::Pins;
use crate::broker::links::tasks::Tasks;
use crate::broker::routes::LinkId;
use crate::broker::routes::RouteChange;
use crate::broker::throttle::Limiter;
use crate::broker::throttle::SharedLimiter;
use crate::config::settings;
use crate::config::settings::DialledBy;
use crate::config::settings::Export;
use crate::link::bounds::QosBounds;
use crate::link::export::Exported;
use crate::link::extension::Capabilities;
use crate::link::ingress::LinkView;
use crate::link::lane::is_filling;
use crate::link::remote_routes;
use crate::link::remote_routes::RemoteRoutes;
use crate::link::remote_routes::RouteLimits;
use crate::link::route::LinkTopics;
use crate::metrics::LinkMetrics;
use crate::metrics::Metrics;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::metrics::labels::RouteKind;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::session::message::Publication;
use crate::storage::store::Store;
use crate::time::Now;

/// Changes of a peer's routes that one turn brings into the route table, whoever made them.
const CHANGES_PER_TURN: usize = 1024;
/// Changes that a turn made itself and has to bring there at once.
const CHANGES_MADE_MAX: usize = 64 * 1024;
/// Changes that may wait; what is more is done at once.
const CHANGES_MAX: usize = 2 * remote_routes::ROUTES_MAX;
/// How near to `spool.max_age` a message is taken for as old as that.
const STALE_MARGIN_MS: u128 = 2_000;

/// One link as configured. A changed configuration makes a new one.
#[derive(Debug)]
pub struct Link {
    /// Names it in the route table. The link that replaces this one has it too; no other ever has.
    pub id: LinkId,
    /// The configuration.
    pub settings: settings::Link,
    /// The certificates of its peer, those in `settings` and what came since.
    pins: RwLock<Arc<Pins>>,
    /// What we want from the peer.
    pub topics: LinkTopics,
    /// Up to which QoS we take it, where that is bounded.
    pub qos: Option<QosBounds>,
    /// Our own cluster name.
    pub cluster: Arc<str>,
    /// Its series.
    pub metrics: Arc<LinkMetrics>,
    /// What the peer wants of us.
    pub routes: Mutex<RemoteRoutes>,
    /// What it gets of that.
    pub exported: Mutex<Exported>,
    /// What its connections have in common. A link that replaces another goes on from there.
    pub incoming: Arc<Incoming>,
    /// Messages on their way to the peer.
    pub forwarder: Forwarder,
    /// Our routes on their way to the peer.
    pub replication: Replication,
    /// The rates of the peer's connections; those that it had before the link was replaced keep the old ones.
    pub quota: Option<SharedLimiter>,
    /// What went wrong last, since the peer last accepted us.
    pub trouble: Mutex<Option<String>>,
    /// What had been forwarded when an operator reset the counts.
    pub forwarding_reset: Mutex<Forwarding>,
    /// What it became.
    pub states: Mutex<LinkStates>,
    /// The version of the peer's program, as it said when it last accepted us.
    pub peer_version: Mutex<Option<Box<str>>>,
    /// What the peer and we can do beyond EMQX's protocol.
    capabilities: AtomicU32,
    /// Since when this link counts, as [`crate::link::extension::Sent::epoch_ms`].
    epoch_ms: u64,
    /// What the peer has told of its books.
    pub books: Mutex<PeerBooks>,
    /// The peer reaches others through us than before, and nobody was told what it wants of them.
    reach_changed: AtomicBool,
    /// The spool is filling up, and the log says so.
    filling: AtomicBool,
    /// There are changes of the peer's routes which the table does not have yet.
    behind: Notify,
    /// Its routes are void.
    stopped: AtomicBool,
    /// What is to outlive the process is kept here.
    store: Option<Arc<Store>>,
    tasks: Mutex<Tasks>,
}

impl Link {
    /// A local client has more than half a queue of what the peer sends: the peer keeps the rest for a moment. It
    /// is the peer that has a spool, and what overflows a client's queue is lost.
    pub fn pause(&self, now: Now) {
        if self.incoming.pause(now) {
            self.metrics.pauses.inc();
        }
    }

    /// Connections of the peer to us.
    #[must_use]
    pub fn connections_in(&self) -> usize {
        self.incoming.connections()
    }

    /// Remembers the state it shows, if that is new, and has it told.
    pub fn note_state(&self, now: Now) {
        if self.states.lock().enter(self.state(), self.trouble(), now) {
            self.behind.notify_one();
        }
    }

    /// The peer has said what it can: this is what both can, until it says it again.
    pub fn agree(&self, capabilities: Capabilities) {
        self.capabilities.store(capabilities.bits(), Ordering::Relaxed);
    }

    /// What both can do beyond EMQX's protocol, as far as the peer has said.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(self.capabilities.load(Ordering::Relaxed))
    }

    /// Brings up to date what is only looked at for a scrape.
    pub fn measure(&self, now: Now) {
        self.metrics.route_sync_lag.set_ms(self.replication.behind_ms(now));
        let came = self.incoming.books();
        self.metrics.overforward_ratio.set(self.incoming.unwanted(), came.received + came.fired);
        self.metrics.spool_oldest_age.set_ms(self.oldest_age_ms(now).unwrap_or(0));
    }

    /// How long the oldest message that the peer has not acknowledged has been here.
    pub(super) fn oldest_age_ms(&self, now: Now) -> Option<u64> {
        self.forwarder.view(now).iter().filter_map(|lane| lane.oldest_age_ms).max()
    }

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
            capabilities: self.settings.capabilities(),
            demanded: self.settings.demanded,
            reach: &self.settings.reach,
            qos: self.qos.as_ref(),
        }
    }

    /// Counts a connection of the peer; `false` when it has as many as `quota.connections` grants.
    pub fn enter(&self) -> bool {
        let entered = self.incoming.enter(self.settings.quota.connections);
        if entered {
            self.metrics.connections[Direction::In].inc();
        }
        entered
    }

    /// A connection of the peer is gone.
    pub fn leave(&self) {
        self.incoming.leave();
        self.metrics.connections[Direction::In].dec();
    }

    /// Brings the route table up to date with what the peer said or with actors that expired, a bounded piece at
    /// a time: a turn pays for the changes that it made itself (`made`), the link's own task for the rest. A link
    /// that is disabled or was stopped has no routes there: nothing goes to its peer.
    pub fn apply_changes(&self, routes: &mut RemoteRoutes, made: usize, table: &Routes) {
        if self.stopped.load(Ordering::Relaxed) {
            routes.drain_changes();
            return;
        }
        self.forwarder.hold(routes.standing());
        let excess = routes.changes().saturating_sub(CHANGES_MAX);
        let most = CHANGES_PER_TURN.max(made.min(CHANGES_MADE_MAX)).max(excess);
        let mut exported = self.exported.lock();
        let refused = exported.refused();
        let add = |filter: &str| {
            table.add_link_route(self.id, filter);
        };
        let remove = |filter: &str| {
            table.remove_link_route(self.id, filter);
        };
        let changes: Vec<remote_routes::RouteChange> = routes.drain_oldest(most).collect();
        self.keep_wanted(&changes);
        for change in changes.into_iter().filter(|_| self.settings.enable) {
            match change {
                remote_routes::RouteChange::Appeared(filter) => exported.appeared(&filter, add),
                remote_routes::RouteChange::Vanished(filter) => exported.vanished(&filter, remove),
            }
        }
        self.metrics.routes_refused.add(exported.refused() - refused);
        if routes.changes() > 0 {
            self.behind.notify_one();
        } else {
            exported.settle(|filter| routes.wants(filter), remove);
        }
        let count = i64::try_from(routes.len()).unwrap_or(i64::MAX);
        self.metrics.routes[(Direction::In, RouteKind::Plain)].set(count);
    }

    /// A lane has a connection, dialled at this moment in monotonic milliseconds.
    pub fn doubt(&self, lane: usize, dialled_ms: u64) {
        let routes = self.routes.lock();
        self.forwarder.doubt(lane, dialled_ms, routes.standing());
    }

    /// Makes the routes of the peer's actors stale that have been silent for too long, and removes those that have been
    /// stale for too long or fill the spool. Whether changes are left.
    pub fn collect(&self, table: &Routes, now: Now) -> bool {
        let _burst = self.store.as_ref().map(|store| store.begin());
        // The lanes are looked at only when it matters.
        let is_settled = self.routes.lock().is_settled();
        let has_had_enough = !is_settled && self.spool_is_used_up(now);
        let mut routes = self.routes.lock();
        routes.collect(now);
        if has_had_enough && !routes.is_settled() {
            tracing::warn!(
                peer = self.peer(),
                "the spool is used up: what the peer wanted before it fell silent is not kept for it any more"
            );
            routes.drop_stale();
        }
        self.apply_changes(&mut routes, 0, table);
        routes.changes() > 0
    }

    /// Raises the alarm when the spool is filling up, and takes it back.
    fn watch_spool(&self) {
        let bytes = u64::try_from(self.metrics.spool_bytes.value()).unwrap_or(0);
        let max_bytes = self.settings.spool.max_bytes;
        let was_filling = self.filling.load(Ordering::Relaxed);
        let filling = is_filling(was_filling, bytes, max_bytes);
        if filling == was_filling {
            return;
        }
        self.filling.store(filling, Ordering::Relaxed);
        let peer = self.peer();
        if filling {
            tracing::warn!(
                peer,
                bytes,
                max_bytes,
                "the spool is more than 80 % full: spool.on_full decides soon"
            );
        } else {
            tracing::info!(peer, bytes, max_bytes, "the spool has room again");
        }
    }

    /// Whether the spool is all but full, or something in it is about as old as it may get.
    fn spool_is_used_up(&self, now: Now) -> bool {
        let spool = self.settings.spool;
        let bytes = u64::try_from(self.metrics.spool_bytes.value()).unwrap_or(0);
        let is_old = |age: Duration| {
            self.oldest_age_ms(now)
                .is_some_and(|oldest| u128::from(oldest) + STALE_MARGIN_MS >= age.as_millis())
        };
        bytes >= spool.max_bytes - spool.max_bytes / 20 || spool.max_age.is_some_and(is_old)
    }

    /// Takes over what the peer told `old`, the link before a change of its configuration: as long as the peer's
    /// connection lives, it will not say it again. Both have one [`LinkId`], so that the table mostly stays as it
    /// is. `publish` makes this link the one that everybody finds. `old` has no routes from here on.
    fn inherit(&self, old: &Self, table: &Routes, publish: impl FnOnce()) {
        let _burst = self.store.as_ref().map(|store| store.begin());
        let mut mine = self.routes.lock();
        publish();
        let mut theirs = old.routes.lock();
        old.stopped.store(true, Ordering::Relaxed);
        let mut told = std::mem::take(&mut *theirs);
        drop(theirs);
        let fits = told.limit(limits(&self.settings));
        if !fits {
            self.forget_wanted(&told);
        }
        if fits {
            *mine = told;
            mine.watch_rows(self.settings.relay && self.settings.enable);
        }
        if !fits || !self.settings.enable {
            // More than the peer is granted now: it will be told so, and may say it again.
            table.clear_link(self.id);
            mine.drain_changes();
        } else if !old.settings.enable {
            mine.announce();
        } else if self
            .exported
            .lock()
            .follow(&mut old.exported.lock(), mine.filters().chain(mine.vanishing()))
        {
            // What is granted is looked at anew; what is not any more goes last.
            mine.announce();
        }
        self.apply_changes(&mut mine, 0, table);
    }

    /// Forgets the peer's routes.
    fn forget(&self, table: &Routes) {
        {
            let _burst = self.store.as_ref().map(|store| store.begin());
            let mut routes = self.routes.lock();
            self.forget_wanted(&routes);
            self.stopped.store(true, Ordering::Relaxed);
            *routes = RemoteRoutes::new(limits(&self.settings));
            *self.exported.lock() = Exported::default();
        }
        self.incoming.room.clear();
        self.metrics.routes[(Direction::In, RouteKind::Plain)].set(0);
        table.clear_link(self.id);
    }
}

/// No routes of a peer yet.
fn remote_routes(settings: &settings::Link) -> RemoteRoutes {
    let mut routes = RemoteRoutes::new(limits(settings));
    routes.watch_rows(settings.relay && settings.enable);
    routes
}

/// What the settings grant the peer.
fn limits(settings: &settings::Link) -> RouteLimits {
    let quota = settings.quota;
    RouteLimits { actors: quota.actors, routes: quota.routes, ..RouteLimits::default() }
}

/// Does what may take long where nobody waits for the thread.
async fn in_background(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = spawn_blocking(work).await {
        tracing::error!("a change of a link has failed: {error}");
    }
}

/// All links, by the peer's cluster name.
#[derive(Debug, Default)]
pub struct Links {
    links: RwLock<BTreeMap<String, Arc<Link>>>,
    /// Where they keep what is to outlive the process.
    store: Option<Arc<Store>>,
    /// What they had in the life before, until they begin.
    before: Mutex<Before>,
    next_id: AtomicU32,
    /// Certificates that peers have shown since somebody asked, and from where: three for each link at most.
    shown: Mutex<BTreeMap<[u8; 32], PeerAddr>>,
    /// How many changes of routes were passed on; locked meanwhile, so that they stay in order.
    passed_on: Mutex<u64>,
}

impl Links {
    /// A connection that is bound to a peer has shown this certificate.
    pub fn note_shown(&self, fingerprint: [u8; 32], source: PeerAddr) {
        self.shown.lock().insert(fingerprint, source);
    }

    /// What was shown since the last time.
    #[must_use]
    pub fn take_shown(&self) -> BTreeMap<[u8; 32], PeerAddr> {
        std::mem::take(&mut self.shown.lock())
    }

    /// The link to this cluster.
    #[must_use]
    pub fn get(&self, cluster: &str) -> Option<Arc<Link>> {
        self.links.read().get(cluster).map(Arc::clone)
    }

    /// The link whose peer, known by this certificate, lends us the connections that we need.
    #[must_use]
    pub fn lent_by(&self, fingerprint: &[u8; 32]) -> Option<Arc<Link>> {
        let lends = |link: &&Arc<Link>| {
            let settings = &link.settings;
            settings.enable
                && settings.dialled_by == DialledBy::Peer
                && link.pins().shown.contains(fingerprint)
        };
        self.links.read().values().find(lends).map(Arc::clone)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.links.read().values().map(Arc::clone).collect()
    }

    fn insert(&self, link: Arc<Link>) {
        self.links.write().insert(link.settings.name.clone(), link);
    }

    /// Takes a link out, to be stopped.
    pub fn remove(&self, cluster: &str) -> Option<Arc<Link>> {
        self.links.write().remove(cluster)
    }

    /// Starts a link. If there is one to the same cluster already it is stopped first, which may take a moment;
    /// what its peer has told us stays unless a new quota is too small for it, and what is spooled stays unless
    /// the link gets disabled.
    pub async fn start(
        broker: &Arc<Broker>,
        settings: settings::Link,
        (cluster, node): (&str, &str),
        hold: Duration,
    ) {
        let old = broker.links.get(&settings.name);
        let link = broker.links.make(settings, cluster, node, broker.metrics.as_ref(), old.as_deref());
        let Some(old) = old else {
            broker.links.restore(&link, &broker.routes);
            broker.links.insert(Arc::clone(&link));
            return link.run(broker, node, hold);
        };
        let (new, from, all) = (Arc::clone(&link), Arc::clone(&old), Arc::clone(broker));
        in_background(move || new.inherit(&from, &all.routes, || all.links.insert(Arc::clone(&new)))).await;
        // Both have the same Client Identifiers at the peer. While our routes are told anew it keeps those that it has: what it
        // publishes meanwhile is not lost.
        old.end_tasks(link.settings.enable).await;
        link.replication.follow(&old.replication);
        let (new, from) = (Arc::clone(&link), Arc::clone(&old));
        in_background(move || {
            let now = clock::now();
            new.forwarder.take_over(&from.forwarder, now);
            from.forwarder.drop_rest(now);
        })
        .await;
        if !link.settings.enable || !link.settings.retained {
            Self::forget_copies(broker, &link).await;
        }
        link.run(broker, node, hold);
    }

    /// Stops the link to this cluster and forgets it.
    pub async fn stop(broker: &Arc<Broker>, cluster: &str) {
        if let Some(link) = broker.links.remove(cluster) {
            let (gone, all) = (Arc::clone(&link), Arc::clone(broker));
            in_background(move || {
                gone.routes.lock().watch_rows(false);
                all.links.pass_on_routes(&gone);
                gone.forget(&all.routes);
            })
            .await;
            link.stop().await;
            broker.links.forget_seen(&link);
            Self::forget_copies(broker, &link).await;
            broker.forget_states(cluster, clock::now());
        }
    }

    /// Removes the copies of what this peer retains.
    async fn forget_copies(broker: &Arc<Broker>, link: &Arc<Link>) {
        // A page that is still being applied is void.
        link.incoming.copies.lock().ask();
        let (broker, link) = (Arc::clone(broker), Arc::clone(link));
        in_background(move || broker.sweep(&link, &Sweep::Everything)).await;
    }

    /// Stops all links at once. They stay known, so that their peers are not told that they are unknown.
    pub async fn stop_all(broker: &Arc<Broker>) {
        let mut stopping = JoinSet::new();
        for link in broker.links.all() {
            stopping.spawn(async move { link.suspend().await });
        }
        while stopping.join_next().await.is_some() {}
    }

    /// A link that has no routes, messages or connections yet.
    #[must_use]
    pub fn build(&self, settings: settings::Link, cluster: &str, node: &str, metrics: &Metrics) -> Arc<Link> {
        self.make(settings, cluster, node, metrics, None)
    }

    /// The same, perhaps to replace `old`.
    fn make(
        &self,
        settings: settings::Link,
        cluster: &str,
        node: &str,
        metrics: &Metrics,
        old: Option<&Link>,
    ) -> Arc<Link> {
        let topics = LinkTopics::parse(&settings.imports()).unwrap_or_default(); // the configuration has checked them
        let exports = match settings.exports() {
            Export::Entitled => None,
            Export::Only(filters) => Some(LinkTopics::parse(&filters).unwrap_or_default()),
        };
        let qos = settings.granted.as_ref().and_then(|granted| bounds(&granted.import));
        let metrics = metrics.link(&settings.name);
        metrics.spool_capacity.set(i64::try_from(settings.spool.max_bytes).unwrap_or(i64::MAX));
        let now = clock::now();
        Arc::new(Link {
            id: old.map_or_else(|| LinkId(self.next_id.fetch_add(1, Ordering::Relaxed)), |old| old.id),
            forwarder: Forwarder::new(&settings, cluster, Arc::clone(&metrics), self.store.clone()),
            replication: Replication::new(
                &settings,
                topics.clone(),
                (cluster, node),
                self.last_incarnation(&settings.name),
                self.store.clone(),
            ),
            topics,
            qos,
            cluster: Arc::from(cluster),
            metrics,
            routes: Mutex::new(remote_routes(&settings)),
            exported: Mutex::new(Exported::new(exports)),
            incoming: old.map_or_else(|| Arc::new(Incoming::new(now)), |old| Arc::clone(&old.incoming)),
            capabilities: AtomicU32::new(old.map_or(0, |old| old.capabilities.load(Ordering::Relaxed))),
            epoch_ms: old.map_or(now.unix_ms, |old| now.unix_ms.max(old.epoch_ms + 1)),
            books: Mutex::default(),
            reach_changed: AtomicBool::new(false),
            quota: Limiter::new(settings.quota.rates, now).map(|limiter| Arc::new(Mutex::new(limiter))),
            trouble: Mutex::default(),
            states: Mutex::default(),
            forwarding_reset: old.map(|old| Mutex::new(*old.forwarding_reset.lock())).unwrap_or_default(),
            filling: AtomicBool::new(old.is_some_and(|old| old.filling.load(Ordering::Relaxed))),
            behind: Notify::new(),
            stopped: AtomicBool::new(false),
            store: self.store.clone(),
            tasks: Mutex::default(),
            peer_version: Mutex::default(),
            pins: RwLock::new(Arc::new(Pins::of(&settings))),
            settings,
        })
    }

    /// Hands a run of messages to every link that wants them. The indices of messages that a link refused are
    /// added to `refused`; `told` hears of every link.
    pub fn forward(
        &self,
        ids: &[LinkId],
        publications: &[Publication<'_>],
        source: Source<'_>,
        now: Now,
        refused: &mut Vec<usize>,
        mut told: impl FnMut(&str, Reached),
    ) -> Reached {
        let links = self.links.read();
        let mut all = Reached::Nobody;
        for (name, link) in links.iter().filter(|(_, link)| ids.contains(&link.id)) {
            let reached = link.forwarder.push_run(publications, source, now, refused);
            told(name, reached);
            if reached == Reached::Somebody {
                all = reached;
            }
        }
        all
    }

    /// Counts messages that these links did not get because the broker has no room for them.
    pub fn turn_away(&self, ids: &[LinkId], messages: u64) {
        for link in self.links.read().values().filter(|link| ids.contains(&link.id)) {
            link.metrics.messages_dropped[(Direction::Out, LinkDropReason::SpoolFull)].add(messages);
        }
    }

    /// Bytes waiting for all peers.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        let bytes = |link: &Arc<Link>| u64::try_from(link.metrics.spool_bytes.value()).unwrap_or(0);
        self.links.read().values().map(bytes).sum()
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
