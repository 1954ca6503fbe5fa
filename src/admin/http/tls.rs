//! The HTTP server over TLS, where operators are known by their certificates (`trust.md` 2.5). Handshakes are bounded in number and
//! time, and hold up neither each other nor who is through.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use axum::serve::Listener;
use parking_lot::Mutex;
use rustls::ServerConfig;
use sha2::Digest;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::BoundedListener;
use crate::broker::link_keys::LinkKeys;
use crate::net::clock;
use crate::net::tls;
use crate::net::tls::TlsError;

/// Handshakes at a time; further connections are closed.
const HANDSHAKES_MAX: usize = 32;
/// How long one may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long nothing is accepted after the system had no descriptor for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// SHA-256 of the certificate whose key it has, if it showed one. Nobody vouches for it yet.
    pub(super) certificate: Option<[u8; 32]>,
    /// From where it comes.
    pub(super) address: SocketAddr,
}

impl Connected<IncomingStream<'_, BoundedListener<TlsListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener<TlsListener>>) -> Self {
        *stream.remote_addr()
    }
}

/// Where our certificate comes from.
pub enum Ours {
    /// The link certificate, as it is at each handshake.
    Link(Arc<LinkKeys>),
    /// Files, as they were when they were last read.
    Files(PathBuf, PathBuf),
}

/// TLS, made anew when our certificate is another one.
pub struct Tls {
    ours: Ours,
    made: Mutex<Option<([u8; 32], Arc<ServerConfig>)>>,
}

impl Tls {
    /// Of this certificate.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn new(ours: Ours) -> Result<Self, TlsError> {
        let tls = Self { ours, made: Mutex::default() };
        tls.config().map(|_| tls)
    }

    /// Reads the files again, if it is of files: what new connections are to have once all else is in force too.
    ///
    /// # Errors
    /// Which file is wrong, and why. What there is stays.
    pub fn read_again(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        match &self.ours {
            Ours::Link(_) => Ok(None),
            Ours::Files(certfile, keyfile) => {
                tls::operators(None, Some((certfile, keyfile)), clock::now()).map(Some)
            }
        }
    }

    /// Puts in force what was read again. Connections that there are go on.
    pub fn put(&self, config: Arc<ServerConfig>) {
        *self.made.lock() = Some(([0; 32], config));
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut made = self.made.lock();
        let own = match &self.ours {
            Ours::Link(keys) => keys.current(),
            Ours::Files(..) => None,
        };
        let of = own.as_ref().map(|own| own.fingerprint()).unwrap_or_default();
        if let Some((known, config)) = &*made
            && *known == of
        {
            return Ok(Arc::clone(config));
        }
        let files = match &self.ours {
            Ours::Link(_) => None,
            Ours::Files(certfile, keyfile) => Some((certfile.as_path(), keyfile.as_path())),
        };
        let config = tls::operators(own.as_deref(), files, clock::now())?;
        *made = Some((of, Arc::clone(&config)));
        Ok(config)
    }
}

/// Gives connections whose handshake is done.
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
    bound: SocketAddr,
    accepting: AbortHandle,
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl TlsListener {
    /// Accepts on this listener.
    pub(super) fn new(listener: TcpListener, bound: SocketAddr, tls: Arc<Tls>) -> Self {
        let (through, ready) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, tls, through)).abort_handle();
        Self { ready, bound, accepting }
    }
}

async fn accept(listener: TcpListener, tls: Arc<Tls>, through: mpsc::Sender<(TlsStream<TcpStream>, Peer)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            time::sleep(EXHAUSTED_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (tls, through) = (Arc::clone(&tls), through.clone());
        tokio::spawn(async move {
            // Until somebody serves it.
            let _place = place;
            match time::timeout(HANDSHAKE_LIMIT, shake(&tls, stream)).await {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let certificate = shown.map(|der| Sha256::digest(der).into());
                    // An error means that nobody is served any more.
                    let _ = through.send((stream, Peer { certificate, address })).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "HTTP over TLS"),
                Err(_) => tracing::debug!(%address, "HTTP over TLS: the handshake took longer than allowed"),
            }
        });
    }
}

async fn shake(tls: &Tls, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let config = tls.config().map_err(|error| io::Error::other(error.to_string()))?;
    TlsAcceptor::from(config).accept(stream).await
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // Its task holds the other end for as long as this lives.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { certificate: None, address: self.bound })
    }
}
