//! A broker with its HTTP port and admin socket: what `serve` runs one of and `demo` two.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::spawn_blocking;

use crate::admin::announcer;
use crate::admin::http;
use crate::admin::http::tls::Ours;
use crate::admin::http::tls::Tls;
use crate::admin::keys::KeyChange;
use crate::admin::keys::Keys;
use crate::admin::rest::Changes;
use crate::admin::rest::HttpState;
use crate::admin::sockets;
use crate::admin::sockets::Socket;
use crate::admin::trust::Book;
use crate::admin::trust::Shelf;
use crate::admin::trust::desk::Desk;
use crate::admin::trust::rotate::Rotation;
use crate::admin::trust::rotate::configured;
use crate::broker::events::event::What;
use crate::broker::server::ReloadError;
use crate::broker::server::Server;
use crate::broker::server::StartError;
use crate::config::Diff;
use crate::config::Settings;
use crate::config::settings::Http;
use crate::config::settings::HttpTls;
use crate::metrics::labels::Outcome;
use crate::net::clock;
use crate::storage::Storage;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::Role;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The HTTP port.
    #[error("http.bind: cannot listen on {address}: {source}")]
    Http {
        /// What it was to bind.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// TLS of the second HTTP port.
    #[error("http.ssl: {0}")]
    Tls(String),
    /// The admin socket, or that of viewers.
    #[error("cannot make {}: {source}", .path.display())]
    Socket {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The broker.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// When certificates expire, in seconds since the Unix epoch, by the names of the peers.
type Dates = Arc<BTreeMap<String, i64>>;

/// A running node.
pub struct Node {
    server: Server,
    http_address: SocketAddr,
    https_address: Option<SocketAddr>,
    socket_paths: Vec<PathBuf>,
    stop_http: watch::Sender<bool>,
    http: Vec<JoinHandle<()>>,
    announcing: JoinHandle<()>,
    shelf: Arc<Shelf>,
    rotation: Arc<Rotation>,
    /// When the certificates of peers expire, as of this book.
    dated: Option<(Arc<Book>, Dates)>,
    keys: Arc<Keys>,
    /// Of the second HTTP port.
    tls: Option<Arc<Tls>>,
    /// Up to when what is over was put out of force, in seconds since the Unix epoch.
    trusted_unix: u64,
}

impl Node {
    /// Starts broker and HTTP. Whoever reads the other end of `changes` changes the configuration when an operator
    /// asks for it.
    ///
    /// # Errors
    /// If a file, a port or the data directory is not as it should be; nothing is left running then.
    pub async fn start(settings: Settings, changes: Option<Changes>) -> Result<Self, NodeError> {
        Self::start_on(settings, changes, None).await
    }

    /// The same on a storage that is open already.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(
        settings: Settings,
        changes: Option<Changes>,
        storage: Option<Box<dyn Storage>>,
    ) -> Result<Self, NodeError> {
        let address = settings.http.bind;
        let failed = |source| NodeError::Http { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let over_tls = match &settings.http.ssl {
            Some(ssl) => Some(
                TcpListener::bind(ssl.bind)
                    .await
                    .map_err(|error| NodeError::Tls(format!("cannot listen on {}: {error}", ssl.bind)))?,
            ),
            None => None,
        };
        let https_address = over_tls.as_ref().and_then(|listener| listener.local_addr().ok());
        let http_address = listener.local_addr().map_err(failed)?;
        let (node, http_settings) = (settings.cluster.node.clone(), settings.http.clone());
        let data = settings.data.dir.clone();
        let http_tls = settings.http.ssl.clone();
        let viewer = settings.http.viewer_socket.clone();
        let server = Server::start_on(settings, storage).await?;
        let (stop_http, stopped) = watch::channel(false);
        let keys = Arc::new(Keys::of(&data));
        let (shelf, rotation) = (Arc::new(Shelf::default()), Arc::new(Rotation::default()));
        // Those that are there already are no news.
        let _ = keys.take_changes();
        let shared = (Arc::clone(&shelf), Arc::clone(&rotation));
        let announced = node.clone();
        let state = state(&server, node, http_settings, Arc::clone(&keys), changes, shared);
        let mut http = Vec::new();
        let mut https = None;
        let opened = sockets::open(&data, viewer.as_deref());
        let opened = match opened {
            Ok(opened) => opened,
            Err((path, source)) => {
                server.stop().await;
                return Err(NodeError::Socket { path, source });
            }
        };
        let socket_paths = opened.iter().map(|socket| socket.path.clone()).collect();
        for Socket { listener, bound, .. } in opened {
            let shutdown = end_of(stopped.clone());
            http.push(tokio::spawn(logged(http::serve(listener, bound, state.clone(), shutdown))));
        }
        if let (Some(listener), Some(ssl)) = (over_tls, http_tls) {
            match tls(&server, ssl) {
                Ok(tls) => {
                    let tls = Arc::clone(https.insert(Arc::new(tls)));
                    let shutdown = end_of(stopped.clone());
                    http.push(tokio::spawn(logged(http::run_tls(listener, tls, state.clone(), shutdown))));
                }
                Err(error) => {
                    // Those that were started end with the node.
                    stop_http.send_replace(true);
                    server.stop().await;
                    return Err(NodeError::Tls(error));
                }
            }
        }
        http.push(tokio::spawn(logged(http::run(listener, state, end_of(stopped)))));
        tracing::info!(address = %http_address, "HTTP listening");
        if let Some(address) = https_address {
            tracing::info!(%address, "HTTPS listening");
        }
        let announcing = announcer::run(Arc::clone(server.broker()), Arc::clone(&shelf), announced);
        let announcing = tokio::spawn(announcing);
        let trusted_unix = clock::now().unix_ms / 1000;
        Ok(Self {
            server,
            http_address,
            https_address,
            socket_paths,
            stop_http,
            http,
            announcing,
            shelf,
            rotation,
            dated: None,
            keys,
            tls: https,
            trusted_unix,
        })
    }

    /// The broker.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The broker, to be changed.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    /// The book of who is trusted.
    #[must_use]
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// The rotation of the link certificate.
    #[must_use]
    pub fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// Notes which peers of the configuration know the link certificate, and when certificates of links expire, as it is now.
    pub fn note_certificates(&mut self) {
        self.rotation.note_configured(configured(self.server.settings()));
        let book = self.shelf.book();
        if self.dated.as_ref().is_none_or(|(before, _)| !Arc::ptr_eq(before, &book)) {
            let trusted = book.identities().filter(|one| one.kind == Kind::Link && one.is_active());
            let last = |one: &Identity| one.pin(Role::Current).and_then(|pin| pin.not_after);
            let dates = trusted.filter_map(|one| {
                // The second behind the last one.
                let at = i64::try_from(last(one)?).ok()?.saturating_add(1);
                Some((one.name.clone(), at))
            });
            let dates = Arc::new(dates.collect());
            self.dated = Some((book, dates));
        }
        let pinned = self.dated.as_ref().map(|(_, dates)| Arc::clone(dates)).unwrap_or_default();
        let own = self.server.link_keys().current().map(|own| own.not_after_unix());
        self.server.keeper().set_dates(own, pinned);
    }

    /// From now on clusters may come with a token. The book is that of the settings in force.
    pub fn trust(&mut self, book: Arc<Book>, changes: &Changes) {
        let keys = Arc::clone(self.server.link_keys());
        let peers = book.identities().filter(|one| one.kind == Kind::Link && one.is_active());
        let peers: Vec<&str> = peers.map(|one| one.name.as_str()).collect();
        if keys.is_new() && !peers.is_empty() {
            let text = format!(
                "authn_certificate_lost: the link certificate is gone from the data directory, and {} know no other: link them anew \
                 with `link create NAME --replace`",
                peers.join(", ")
            );
            let what = What::Trust { name: "authn_certificate_lost", critical: true };
            self.server.broker().security_note(what, &text, clock::now());
        }
        self.shelf.set(book);
        let desk = Desk::new(changes.clone(), Arc::clone(&self.shelf), keys);
        self.server.broker().enrolment.set_desk(Arc::new(desk));
    }

    /// Up to when what is over was put out of force, in seconds since the Unix epoch.
    #[must_use]
    pub fn trusted_unix(&self) -> u64 {
        self.trusted_unix
    }

    /// Notes that it was.
    pub fn set_trusted_unix(&mut self, at: u64) {
        self.trusted_unix = at;
    }

    /// Writes down which API keys were made or deleted: that is done in the data directory, whether a broker runs or not.
    pub fn tell_keys(&self) {
        for change in self.keys.take_changes() {
            let (act, key) = match &change {
                KeyChange::Made(key) => ("api_key_create", key),
                KeyChange::Deleted(key) => ("api_key_delete", key),
            };
            let text = format!("{} ({}), by whoever may write the data directory", key.id, key.name);
            self.server.broker().security_note(What::Admin { act }, &text, clock::now());
        }
    }

    /// Where HTTP answers.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where HTTP over TLS answers, if it does.
    #[must_use]
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https_address
    }

    /// Puts new settings in force, and the files of the second HTTP port as they are now; see [`Server::reload`].
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn reload(&mut self, settings: Settings) -> Result<Diff, ReloadError> {
        let tls = self.tls.clone();
        let reading = move || tls.map(|tls| tls.read_again().map(|read| read.map(|config| (tls, config))));
        let read = spawn_blocking(reading).await.map_err(|error| wrong(&error))?;
        let read = read.transpose().map_err(|error| {
            let error = wrong(&error);
            let broker = self.server.broker();
            broker.metrics.broker.config_reloads[Outcome::Error].inc();
            broker.security_note(What::ConfigReload { taken: false }, &error.to_string(), clock::now());
            error
        })?;
        let diff = self.server.reload(settings).await?;
        if let Some((tls, config)) = read.flatten() {
            tls.put(config);
        }
        Ok(diff)
    }

    /// Stops in order, within ten seconds.
    pub async fn stop(self) {
        // While we hold the data directory: a broker that starts after us makes its own.
        for path in &self.socket_paths {
            let _ = fs::remove_file(path);
        }
        let broker = Arc::clone(self.server.broker());
        self.server.stop().await;
        // The ends of the last connections are in them.
        broker.traces.close();
        self.announcing.abort();
        self.stop_http.send_replace(true);
        for http in self.http {
            // It ends by itself within its own limit; a panic there is logged by the runtime.
            let _ = http.await;
        }
    }
}

/// TLS of the second port, whose certificate is made now if it is the link certificate and there is none.
fn tls(server: &Server, ssl: HttpTls) -> Result<Tls, String> {
    let ours = match (ssl.certfile, ssl.keyfile) {
        (Some(certfile), Some(keyfile)) => Ours::Files(certfile, keyfile),
        _ => {
            let keys = Arc::clone(server.link_keys());
            keys.ensure(clock::now()).map_err(|error| error.to_string())?;
            Ours::Link(keys)
        }
    };
    Tls::new(ours).map_err(|error| error.to_string())
}

fn wrong(error: &dyn std::fmt::Display) -> ReloadError {
    ReloadError::Material(vec![format!("http.ssl: {error}")])
}

async fn end_of(mut stopped: watch::Receiver<bool>) {
    // An error means that the node is gone, which is a stop too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn logged(running: impl Future<Output = io::Result<()>>) {
    if let Err(error) = running.await {
        tracing::error!(%error, "HTTP ended");
    }
}

fn state(
    server: &Server,
    node: String,
    settings: Http,
    keys: Arc<Keys>,
    changes: Option<Changes>,
    (shelf, rotation): (Arc<Shelf>, Arc<Rotation>),
) -> HttpState {
    let broker = Arc::clone(server.broker());
    let (metrics, readiness) = (Arc::clone(&broker), Arc::clone(&broker));
    HttpState {
        broker,
        render_metrics: Arc::new(move || metrics.render_metrics(clock::now())),
        readiness: Arc::new(move || {
            if readiness.is_stopping() { Err(vec!["the broker is stopping".to_owned()]) } else { Ok(()) }
        }),
        cluster: server.settings().cluster.name.clone(),
        node,
        metrics_open: !settings.metrics_auth,
        metrics_emqx: settings.metrics_emqx,
        allowed_hosts: Vec::new(),
        keys,
        shelf,
        rotation,
        link_keys: Some(Arc::clone(server.link_keys())),
        changes,
    }
}
