//! A broker with its HTTP endpoint: what `serve` runs one of and `demo` two.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::http;
use crate::admin::http::HttpState;
use crate::broker::Broker;
use crate::broker::server::ReloadError;
use crate::broker::server::Server;
use crate::broker::server::StartError;
use crate::config::Diff;
use crate::config::Settings;
use crate::net::clock;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The HTTP port.
    #[error("http.bind: cannot listen on {address}: {source}")]
    Http {
        /// What it was to bind.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The broker.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A running node.
pub struct Node {
    server: Server,
    http_address: SocketAddr,
    stop_http: watch::Sender<bool>,
    http: JoinHandle<()>,
}

impl Node {
    /// Starts broker and HTTP.
    ///
    /// # Errors
    /// If a file, a port or the data directory is not as it should be; nothing is left running then.
    pub async fn start(settings: Settings) -> Result<Self, NodeError> {
        let address = settings.http.bind;
        let failed = |source| NodeError::Http { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let http_address = listener.local_addr().map_err(failed)?;
        let (node, metrics_open) = (settings.cluster.node.clone(), !settings.http.metrics_auth);
        let server = Server::start(settings).await?;
        let (stop_http, mut stopped) = watch::channel(false);
        let state = state(server.broker(), node, metrics_open);
        let http = tokio::spawn(async move {
            let shutdown = async move {
                // An error means that the node is gone, which is a stop too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            if let Err(error) = http::run(listener, state, shutdown).await {
                tracing::error!(%error, "HTTP ended");
            }
        });
        tracing::info!(address = %http_address, "HTTP listening");
        Ok(Self { server, http_address, stop_http, http })
    }

    /// The broker.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where HTTP answers.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Puts new settings in force; see [`Server::reload`].
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn reload(&mut self, settings: Settings) -> Result<Diff, ReloadError> {
        self.server.reload(settings).await
    }

    /// Stops in order, within ten seconds.
    pub async fn stop(self) {
        self.server.stop().await;
        self.stop_http.send_replace(true);
        // It ends by itself within its own limit; a panic there is logged by the runtime.
        let _ = self.http.await;
    }
}

fn state(broker: &Arc<Broker>, node: String, metrics_open: bool) -> HttpState {
    let (metrics, readiness) = (Arc::clone(broker), Arc::clone(broker));
    HttpState {
        render_metrics: Arc::new(move || metrics.render_metrics(clock::now())),
        readiness: Arc::new(move || {
            if readiness.is_stopping() { Err(vec!["the broker is stopping".to_owned()]) } else { Ok(()) }
        }),
        node,
        metrics_open,
        allowed_hosts: Vec::new(),
    }
}
