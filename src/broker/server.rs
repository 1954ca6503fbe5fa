//! Builds a broker, opens its listeners, changes it while it runs, and stops it. The only place that
//! constructs everything.
//!
//! Start: files are read and checked, every port is bound, then links start and listeners accept. Stop: no new
//! connections, DISCONNECT 0x8B to every client, links drain, tasks end. Nothing is half done: a start that
//! fails leaves nothing behind, a reload that fails changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio::time;

use crate::acl::difference::Difference;
use crate::auth::CertificateUsername;
use crate::auth::scram::DecoyKey;
use crate::broker::Broker;
use crate::broker::Limits;
use crate::broker::accept;
use crate::broker::accept::Endpoint;
use crate::broker::acl_reload;
use crate::broker::authenticate::Authentication;
use crate::broker::data_dir::DataDir;
use crate::broker::data_dir::DataDirError;
use crate::broker::events::event::What;
use crate::broker::events::file;
use crate::broker::keep::RestoreError;
use crate::broker::link_keys::LinkKeys;
use crate::broker::link_keys::LinkKeysError;
use crate::broker::links::Links;
use crate::broker::material;
use crate::broker::material::Material;
use crate::broker::meter;
use crate::broker::reverse;
use crate::broker::reverse::lend;
use crate::broker::sweeper;
use crate::broker::threads;
use crate::broker::threads::IoThreads;
use crate::broker::threads::Mailbox;
use crate::broker::threads::Serve;
use crate::broker::trust::Keeper;
use crate::config;
use crate::config::Diff;
use crate::config::Members;
use crate::config::settings::Bind;
use crate::config::settings::DialledBy;
use crate::config::settings::Link;
use crate::config::settings::Listener;
use crate::config::settings::Settings;
use crate::metrics::labels::Outcome;
use crate::mqtt::reason::ReasonCode;
use crate::net::admission;
use crate::net::admission::Admission;
use crate::net::admission::Crowd;
use crate::net::clock;
use crate::net::descriptors::ForClients;
use crate::net::listener;
use crate::net::listener::Accepted;
use crate::net::listener::BindError;
use crate::net::listener::Reception;
use crate::net::listener::Stream;
use crate::net::tls::ServerTls;
use crate::storage::Storage;
use crate::storage::log::recovery::OpenError;
use crate::time::Now;

mod links;

pub use self::links::PreparedLinks;
mod store;

/// WebSocket and plain listeners have no TLS section to say how long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long clients have to take their last bytes at shutdown.
const CLIENTS_GRACE: Duration = Duration::from_secs(3);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Files that the settings name.
    #[error("{}", .0.join("\n"))]
    Material(Vec<String>),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The link certificate.
    #[error("link certificate: {0}")]
    LinkKeys(#[from] LinkKeysError),
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store cannot be opened.
    #[error("data.dir: {}: {source}", .file.display())]
    Store {
        /// Its folder, or a file in it.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The store is of a later version.
    #[error("data.dir: {}: {}", .0.display(), .1)]
    Newer(PathBuf, OpenError),
    /// What is stored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// What is kept for links.
    #[error("data.dir: cannot read what is kept for links: {0}")]
    Links(io::Error),
    /// Threads for input and output.
    #[error("io.threads: cannot start a thread: {0}")]
    Threads(io::Error),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Files that the settings name.
    #[error("{}", .0.join("\n"))]
    Material(Vec<String>),
    /// Settings that only a restart can change.
    #[error("only a restart can change {}", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A listener that accepts.
struct Running {
    bound: Bind,
    endpoint: Arc<RwLock<Arc<Endpoint>>>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    crowd: Crowd,
}

/// How connections of a listener become clients, by the endpoint in force.
struct Entrance {
    broker: Arc<Broker>,
    endpoint: Arc<RwLock<Arc<Endpoint>>>,
}

impl Serve for Entrance {
    fn serve(&self, accepted: Accepted<Stream>, home: Option<Arc<Mailbox>>) {
        let endpoint = Arc::clone(&self.endpoint.read());
        tokio::spawn(accept::serve(Arc::clone(&self.broker), endpoint, accepted, home));
    }
}

/// Hands the connections of a listener out to the threads.
struct Handout {
    entrance: Arc<Entrance>,
    threads: Arc<IoThreads>,
}

impl Reception for Handout {
    fn take(&mut self, accepted: Accepted) {
        self.threads.place(accepted, Arc::<Entrance>::clone(&self.entrance));
    }

    fn pause(&mut self) {
        self.threads.call();
    }
}

/// A running broker.
pub struct Server {
    broker: Arc<Broker>,
    settings: Settings,
    listeners: BTreeMap<String, Running>,
    /// What connections of all listeners together may take.
    descriptors: ForClients,
    threads: Arc<IoThreads>,
    /// The sweeper, the meter and the keeper.
    timers: [JoinHandle<()>; 3],
    keeper: Arc<Keeper>,
    link_keys: Arc<LinkKeys>,
    /// What writes the security events to their file.
    security_file: Option<JoinHandle<()>>,
    _data: DataDir,
}

impl Server {
    /// Starts a broker. Call it inside a runtime.
    ///
    /// # Errors
    /// What is wrong with a file, the data directory or a port; nothing is left running then.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_on(settings, None).await
    }

    /// The same on a storage that is open already.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(settings: Settings, storage: Option<Box<dyn Storage>>) -> Result<Self, StartError> {
        let now = clock::now();
        let data = DataDir::open(&settings.data.dir)?;
        let link_keys = Arc::new(LinkKeys::open(&settings.data.dir, &settings.cluster.name)?);
        let material = Material::load_with(&settings, Some(&link_keys), now).map_err(StartError::Material)?;
        let decoy_key = DecoyKey::new(data.secret("decoy.key")?);
        let descriptors = ForClients::new(descriptors_of(&settings, &settings.cluster.links));
        let enabled = settings.listeners.iter().filter(|listener| listener.enable);
        let bound = bind_all(enabled, descriptors.permits())?;
        for warning in &material.warnings {
            tracing::warn!("{warning}");
        }
        let threads = Arc::new(IoThreads::start(&settings.io).map_err(StartError::Threads)?);
        let store = store::start(&settings.data, storage)?;
        let authentication = Authentication::new(material.credentials, decoy_key);
        let (limits, io_threads) = (Limits::new(&settings), threads.all().into());
        let broker = Broker::new(material.policy, authentication, limits, io_threads, store, now);
        broker.restore_all(now).inspect_err(|_| broker.end_store())?;
        broker.links.load().map_err(StartError::Links).inspect_err(|_| broker.end_store())?;
        let keeper = Arc::<Keeper>::default();
        keeper.take(&settings, &material.tls, material.web, now).await;
        keeper.check(&broker, now).await;
        let timers = [
            tokio::spawn(sweeper::run(Arc::clone(&broker))),
            tokio::spawn(meter::run(Arc::clone(&broker))),
            tokio::spawn(Arc::clone(&keeper).run(Arc::clone(&broker))),
        ];
        let log = &settings.log;
        let security_file = if log.security_file {
            file::start(&broker, &settings.data.dir, log.security_file_max_bytes)
        } else {
            None
        };
        let listeners = BTreeMap::new();
        let mut server = Self {
            broker,
            settings,
            listeners,
            descriptors,
            threads,
            timers,
            keeper,
            link_keys,
            security_file,
            _data: data,
        };
        for link in server.settings.cluster.links.clone() {
            server.start_link(link, Duration::ZERO).await;
        }
        server.broker.links.forget_others();
        for (listener, socket) in bound {
            server.open(&listener, socket, material.tls.get(&listener.id()).cloned());
        }
        let version = concat!("tombolo ", env!("CARGO_PKG_VERSION"));
        server.broker.security_note(What::Startup, version, clock::now());
        Ok(server)
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The cluster's link certificate.
    #[must_use]
    pub fn link_keys(&self) -> &Arc<LinkKeys> {
        &self.link_keys
    }

    /// Who keeps up to date what client certificates are judged by.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where a listener accepts, with the port that was taken; none for a Unix domain socket.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        match self.listeners.get(listener)?.bound {
            Bind::Addr(address) => Some(address),
            Bind::Path(_) => None,
        }
    }

    /// Looks at revocation lists, certificates that expire, and clients whose certificate is not good any more, as it is
    /// done twice a minute.
    pub async fn check_certificates(&self, now: Now) {
        // One does not wait for the other: a file system can hang.
        let (keeper, broker) = (&self.keeper, &self.broker);
        tokio::join!(keeper.read_changed_files(broker), keeper.check(broker, now));
    }

    /// Puts new settings in force, and reads every file again. What did not change goes on undisturbed.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn reload(&mut self, settings: Settings) -> Result<Diff, ReloadError> {
        let result = self.try_reload(settings).await;
        let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
        self.broker.metrics.broker.config_reloads[outcome].inc();
        let text = match &result {
            Ok(diff) => diff.changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        self.broker.security_note(What::ConfigReload { taken: result.is_ok() }, &text, clock::now());
        if matches!(result, Ok(_) | Err(ReloadError::Material(_))) {
            self.broker.metrics.broker.acl_reloads[outcome].inc();
        }
        result
    }

    async fn try_reload(&mut self, settings: Settings) -> Result<Diff, ReloadError> {
        let mut diff = config::diff(&self.settings, &settings);
        let mut restart: Vec<String> = diff.needs_restart().iter().map(ToString::to_string).collect();
        restart.extend(self.listeners_that_need_a_restart(&settings, &diff));
        if !restart.is_empty() {
            return Err(ReloadError::NeedsRestart(restart));
        }
        // Off this thread, which serves clients: ten thousand rules take their time.
        let (asked, now) = (settings.clone(), clock::now());
        let keys = Arc::clone(&self.link_keys);
        let material = task::spawn_blocking(move || Material::load_with(&asked, Some(&keys), now))
            .await
            .unwrap_or_else(|_| Err(vec!["reading the files failed; the log says more".to_owned()]))
            .map_err(ReloadError::Material)?;
        let opened = settings.listeners.iter().filter(|new| new.enable && !self.keeps(new));
        let bound = bind_all(opened, self.descriptors.permits())?;
        // From here on nothing fails.
        for warning in &material.warnings {
            tracing::warn!("{warning}");
        }
        let rules = Arc::clone(&material.policy.rules);
        let (before, generation) = self.broker.set_policy(material.policy);
        self.broker.authentication.set(material.credentials);
        self.broker.kick_unproven();
        self.broker.set_limits(Limits::new(&settings));
        let closed: Vec<String> =
            self.listeners.keys().filter(|id| !keeps_open(&settings, id, &self.listeners)).cloned().collect();
        for id in closed {
            self.close(&id).await;
        }
        self.keeper.take(&settings, &material.tls, material.web, now).await;
        for listener in settings.listeners.iter().filter(|listener| listener.enable) {
            self.replace_endpoint(listener, material.tls.get(&listener.id()).cloned());
        }
        for (listener, socket) in bound {
            self.open(&listener, socket, material.tls.get(&listener.id()).cloned());
        }
        self.replace_links(&settings.cluster.links, &diff.links, Duration::ZERO).await;
        self.settings = settings;
        self.keeper.check(&self.broker, clock::now()).await;
        let broker = Arc::clone(&self.broker);
        let compared = task::spawn_blocking(move || {
            let difference = Difference::between(&before.rules, &rules);
            acl_reload::log_difference(&difference, generation);
            broker.recheck_subscriptions();
            difference
        });
        // It is in force already; a panic is logged by the runtime.
        let difference = compared.await.unwrap_or_default();
        if !difference.is_empty() {
            diff.rules = difference.lines;
        }
        Ok(diff)
    }

    /// Judges who comes in over an open listener by other rules from now on. Whoever is in and may not get in by them any
    /// more is disconnected: afterwards, or it would come back by the old ones.
    fn replace_endpoint(&self, listener: &Listener, tls: Option<Arc<ServerTls>>) {
        let Some(running) = self.listeners.get(&listener.id()) else { return };
        let before = std::mem::replace(&mut *running.endpoint.write(), Arc::new(endpoint(listener, tls)));
        let old = self.settings.listeners.iter().find(|old| old.id() == listener.id());
        if before.role != listener.role || before.authn_enable != listener.authn_enable {
            self.broker.kick_listener(&listener.id(), ReasonCode::AdministrativeAction);
        } else if old.is_some_and(|old| asks_more_of_certificates(old, listener)) {
            self.broker.kick_certified(&listener.id(), ReasonCode::AdministrativeAction);
        }
    }

    /// A listener keeps its socket as long as its address stays; how many connections it takes is part of the
    /// socket's bookkeeping.
    fn listeners_that_need_a_restart(&self, settings: &Settings, diff: &Diff) -> Vec<String> {
        let old = |id: &str| self.settings.listeners.iter().find(|listener| listener.id() == id);
        let changed = settings.listeners.iter().filter(|new| diff.listeners.changed.contains(&new.id()));
        changed
            .filter(|new| new.enable && self.keeps(new))
            .filter_map(|new| {
                let old = old(&new.id())?;
                let key = if old.max_connections != new.max_connections {
                    "max_connections"
                } else if old.max_conn_rate != new.max_conn_rate {
                    "max_conn_rate"
                } else {
                    return None;
                };
                Some(format!("listeners[{}].{key}", new.id()))
            })
            .collect()
    }

    /// Whether this listener is open already, where it is to be.
    fn keeps(&self, new: &Listener) -> bool {
        keeps(new, &self.listeners, &self.settings)
    }

    fn open(&mut self, listener: &Listener, socket: listener::Listener, tls: Option<Arc<ServerTls>>) {
        let id = listener.id();
        let bound = socket.bound().clone();
        if listener.allow_insecure && listener.role.accepts_links() {
            tracing::warn!(
                listener = id,
                "allow_insecure: links may come in below the link column of TLS options"
            );
        }
        if listener.ssl.as_ref().is_some_and(|ssl| ssl.added_13) {
            tracing::info!(listener = id, "ssl.ciphers lists no suite of TLS 1.3: all of them were added");
        }
        let endpoint = Arc::new(RwLock::new(Arc::new(endpoint(listener, tls))));
        let (stop, mut stopped) = watch::channel(false);
        let crowd = socket.crowd();
        let entrance =
            Arc::new(Entrance { broker: Arc::clone(&self.broker), endpoint: Arc::clone(&endpoint) });
        let reception = Handout { entrance, threads: Arc::clone(&self.threads) };
        let metrics = Arc::clone(&self.broker.metrics);
        let accepting = tokio::spawn(async move {
            let shutdown = async move {
                // An error means that the server is gone, which is a stop too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            socket.run(&metrics, reception, shutdown).await;
        });
        tracing::info!(listener = id, address = %bound, "listening");
        self.listeners.insert(id, Running { bound, endpoint, stop, accepting, crowd });
    }

    /// Closes a listener and disconnects its clients.
    async fn close(&mut self, id: &str) {
        let Some(running) = self.listeners.remove(id) else { return };
        tracing::info!(listener = id, address = %running.bound, "closing");
        running.stop.send_replace(true);
        self.broker.kick_listener(id, ReasonCode::AdministrativeAction);
        if !finish(running, CLIENTS_GRACE).await {
            // Who became a client meanwhile.
            self.broker.kick_listener(id, ReasonCode::AdministrativeAction);
        }
    }

    /// Takes from clients what links need more than before, or gives it back.
    fn reserve_descriptors(&mut self, links: &[Link]) {
        let missing = self.descriptors.leave(descriptors_of(&self.settings, links));
        if missing > 0 {
            tracing::warn!(missing, "clients have file descriptors that links need");
        }
    }

    /// Runs these links instead of those that run, of which `members` tells the difference.
    async fn replace_links(&mut self, links: &[Link], members: &Members, hold: Duration) {
        self.reserve_descriptors(links);
        for name in &members.removed {
            self.stop_link(name).await;
        }
        // A changed link is replaced at once, so that what its peer wants of us is kept.
        for link in links {
            if !members.added.contains(&link.name) && !members.changed.contains(&link.name) {
                continue;
            }
            let before = self.settings.cluster.links.iter().find(|before| before.name == link.name);
            let running = self.broker.links.get(&link.name);
            match running.filter(|_| before.is_some_and(|before| before.has_only_more_pins(link))) {
                Some(running) => running.take_pins(link),
                None => self.start_link(link.clone(), hold).await,
            }
        }
    }

    async fn start_link(&self, link: Link, hold: Duration) {
        let cluster = &self.settings.cluster;
        Links::start(&self.broker, link, (&cluster.name, &cluster.node), hold).await;
    }

    async fn stop_link(&self, name: &str) {
        Links::stop(&self.broker, name).await;
        self.broker.metrics.remove_link(name);
    }

    /// Stops: nothing new is accepted, clients and links end in order, all within ten seconds.
    pub async fn stop(mut self) {
        self.broker.stopping.store(true, Ordering::Relaxed);
        let listeners = std::mem::take(&mut self.listeners);
        for running in listeners.values() {
            running.stop.send_replace(true);
        }
        self.broker.kick_all(ReasonCode::ServerShuttingDown);
        let ending = listeners.into_values().map(|running| finish(running, CLIENTS_GRACE));
        let mut closing = JoinSet::new();
        for listener in ending {
            closing.spawn(listener);
        }
        // Clients first: the Wills of those that vanish are still owed to the peers.
        while closing.join_next().await.is_some() {}
        Links::stop_all(&self.broker).await;
        self.timers.iter().for_each(JoinHandle::abort);
        self.broker.finish_upgrades(clock::now()).await;
        self.broker.security_note(What::Shutdown, "", clock::now());
        self.broker.events.close();
        if let Some(writing) = self.security_file.take() {
            // It ends once it has written what there is; a panic there is logged by the runtime.
            let _ = writing.await;
        }
        if let Some(store) = self.broker.store.clone() {
            // Its thread writes what there is; others are not to wait for a disk.
            let _ = task::spawn_blocking(move || store.stop()).await;
        }
        tracing::info!("stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.timers.iter().for_each(JoinHandle::abort);
        for running in self.listeners.values() {
            running.accepting.abort();
            running.crowd.evict();
        }
        self.broker.kick_all(ReasonCode::ServerShuttingDown);
        self.broker.end_store();
    }
}

/// Whether a certificate that `old` took may not be good enough for `new`. What it was issued for is not remembered for
/// every connection, nor is its key.
fn asks_more_of_certificates(old: &Listener, new: &Listener) -> bool {
    let (Some(before), Some(ssl)) = (&old.ssl, &new.ssl) else { return false };
    let strict = |listener: &Listener| listener.role.accepts_links() && !listener.allow_insecure;
    let more_usages = ssl.key_usages.iter().any(|usage| !before.key_usages.contains(usage));
    more_usages || (strict(new) && !strict(old))
}

/// What threads and these links need: a link one for each connection of its pool, and one for routes; and what is lent.
fn descriptors_of(settings: &Settings, links: &[Link]) -> usize {
    let for_threads = threads::count(&settings.io) * threads::DESCRIPTORS;
    let lent = |link: &Link| match link.dialled_by {
        DialledBy::Both => 0,
        DialledBy::Us => lend::WAITING + lend::USED_MAX,
        DialledBy::Peer => reverse::WAITING_MAX,
    };
    for_threads + links.iter().map(|link| link.pool_size + 1 + lent(link)).sum::<usize>()
}

fn keeps(new: &Listener, running: &BTreeMap<String, Running>, old: &Settings) -> bool {
    running.contains_key(&new.id())
        && old.listeners.iter().any(|old| old.enable && old.id() == new.id() && old.bind == new.bind)
}

fn keeps_open(settings: &Settings, id: &str, running: &BTreeMap<String, Running>) -> bool {
    let Some(open) = running.get(id) else { return false };
    settings.listeners.iter().any(|new| {
        let same = match (&new.bind, &open.bound) {
            (Bind::Addr(new), Bind::Addr(open)) => new == open || (new.port() == 0 && new.ip() == open.ip()),
            (new, open) => new == open,
        };
        new.enable && new.id() == id && same
    })
}

fn bind_all<'a>(
    listeners: impl Iterator<Item = &'a Listener>,
    descriptors: &Arc<Semaphore>,
) -> Result<Vec<(Listener, listener::Listener)>, BindError> {
    listeners.map(|listener| Ok((listener.clone(), bind(listener, Arc::clone(descriptors))?))).collect()
}

fn bind(listener: &Listener, descriptors: Arc<Semaphore>) -> Result<listener::Listener, BindError> {
    let half_open_max = admission::half_open_max(listener.role, listener.max_connections);
    let admission = Admission::new(listener.max_connections as usize, half_open_max, descriptors)
        .at_rate(listener.max_conn_rate, clock::now().mono_ms);
    listener::Listener::bind(&listener.id(), accept::listener_type(listener.kind), &listener.bind, admission)
}

fn endpoint(listener: &Listener, tls: Option<Arc<ServerTls>>) -> Endpoint {
    Endpoint {
        id: Arc::from(listener.id()),
        kind: listener.kind,
        role: listener.role,
        authn_enable: listener.authn_enable,
        certificate_username: listener.ssl.as_ref().map_or(CertificateUsername::Disabled, |ssl| {
            material::certificate_part(ssl.peer_cert_as_username)
        }),
        proxies: listener.proxy_protocol.then(|| listener.proxy_trusted.clone()),
        limits: listener.limits,
        handshake_timeout: listener.ssl.as_ref().map_or(HANDSHAKE_TIMEOUT, |ssl| ssl.handshake_timeout),
        tls,
        only: None,
    }
}

/// Waits for the connections of a listener that accepts no more. Whether they ended in time: else there are none any more
/// but those of clients.
async fn finish(running: Running, grace: Duration) -> bool {
    // It ends at once: it only waits for connections to accept.
    let _ = running.accepting.await;
    let in_time = time::timeout(grace, running.crowd.gone()).await.is_ok();
    if !in_time {
        running.crowd.evict();
    }
    in_time
}
