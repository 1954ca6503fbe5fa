//! From an accepted TCP connection to a [`Transport`]: the TLS and the WebSocket handshake, each within a time
//! (authn-tls.md T11, T12). The broker calls these in the task of the connection, never in the accept loop.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite;

use crate::auth::certificate::CertificateError;
use crate::auth::certificate::CertificateFacts;
use crate::auth::certificate::fingerprint_hex;
use crate::metrics::labels::RejectReason;
use crate::net::enroll::server::Greeted;
use crate::net::proxy;
use crate::net::proxy::ProxyError;
use crate::net::tls::ServerTls;
use crate::net::transport::ServerTlsStream;
use crate::net::transport::Transport;
use crate::net::trust::SHOWN;
use crate::net::trust::shown;
use crate::net::websocket;

/// A connection after its handshakes.
#[derive(Debug)]
pub struct Handshaken {
    /// The byte stream.
    pub transport: Transport,
    /// The client's certificate, if it was asked for one and had one.
    pub certificate: Option<Box<CertificateFacts>>,
}

/// Why a connection did not get that far.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not done in time.
    #[error("the handshake took longer than allowed")]
    Timeout,
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
    /// What the PROXY protocol asks for is not there.
    #[error("PROXY protocol: {0}")]
    Proxy(#[from] ProxyError),
    /// TLS refused it; the client has its alert.
    #[error("TLS: {}", shown(.0))]
    Tls(rustls::Error),
    /// TLS refused it after it had shown a certificate.
    #[error("TLS: {}; certificate {}", shown(error), fingerprint_hex(fingerprint))]
    Untrusted {
        /// What TLS has against it.
        error: rustls::Error,
        /// Which certificate it was.
        fingerprint: [u8; 32],
    },
    /// TLS accepted a certificate that we do not.
    #[error("client certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// WebSocket refused it; the client has its answer.
    #[error("WebSocket: {0}")]
    WebSocket(Box<tungstenite::Error>),
}

impl HandshakeError {
    /// Under what it is counted.
    #[must_use]
    pub fn reject_reason(&self) -> RejectReason {
        match self {
            Self::Timeout => RejectReason::Timeout,
            Self::Io(_) => RejectReason::Lost,
            Self::Proxy(_) => RejectReason::ProxyProtocol,
            Self::Tls(_) | Self::Untrusted { .. } | Self::Certificate(_) => RejectReason::TlsHandshake,
            Self::WebSocket(_) => RejectReason::WebSocketHandshake,
        }
    }
}

/// `tokio-rustls` wraps the library's error into an I/O error; this takes it out again.
pub(super) fn tls_error(error: io::Error) -> Result<rustls::Error, io::Error> {
    error.downcast::<rustls::Error>()
}

/// Reads the PROXY header that opens a connection: whom it tells, if anybody (`None`: the proxy itself speaks, or
/// does not know).
///
/// # Errors
/// If there is none, if it is malformed, or if it is not whole in time.
pub async fn accept_proxy(
    stream: &mut TcpStream,
    limit: Duration,
) -> Result<Option<SocketAddr>, HandshakeError> {
    let header = timeout(limit, proxy::read_header(stream)).await;
    header.unwrap_or(Err(HandshakeError::Timeout))
}

/// Accepts TLS.
///
/// # Errors
/// If it fails, takes too long, or the client's certificate is not acceptable.
pub async fn accept_tls(
    stream: TcpStream,
    tls: &ServerTls,
    limit: Duration,
) -> Result<Handshaken, HandshakeError> {
    within(limit, async {
        let (stream, certificate) = tls_handshake(stream, tls).await?;
        Ok(Handshaken { transport: Transport::Tls(Box::new(stream)), certificate })
    })
    .await
}

/// Goes on with TLS where the ClientHello was read already.
///
/// # Errors
/// As [`accept_tls`].
pub async fn accept_greeted(
    greeted: Greeted,
    tls: &ServerTls,
    limit: Duration,
) -> Result<Handshaken, HandshakeError> {
    within(limit, async {
        let (stream, certificate) = judged(tls, greeted.into_stream(tls.config.clone())).await?;
        Ok(Handshaken { transport: Transport::Tls(Box::new(stream)), certificate })
    })
    .await
}

/// Accepts WebSocket; `max_message_bytes` as in [`websocket::accept`].
///
/// # Errors
/// If it fails or takes too long.
pub async fn accept_websocket(
    stream: TcpStream,
    max_message_bytes: usize,
    limit: Duration,
) -> Result<Handshaken, HandshakeError> {
    within(limit, async {
        let socket = websocket::accept(stream, max_message_bytes).await.map_err(websocket_error)?;
        Ok(Handshaken { transport: Transport::Ws(Box::new(socket)), certificate: None })
    })
    .await
}

/// Accepts TLS and WebSocket over it, both within `limit`.
///
/// # Errors
/// As the two alone.
pub async fn accept_websocket_tls(
    stream: TcpStream,
    tls: &ServerTls,
    max_message_bytes: usize,
    limit: Duration,
) -> Result<Handshaken, HandshakeError> {
    within(limit, async {
        let (stream, certificate) = tls_handshake(stream, tls).await?;
        let socket = websocket::accept(stream, max_message_bytes).await.map_err(websocket_error)?;
        Ok(Handshaken { transport: Transport::Wss(Box::new(socket)), certificate })
    })
    .await
}

async fn within(
    limit: Duration,
    handshake: impl Future<Output = Result<Handshaken, HandshakeError>>,
) -> Result<Handshaken, HandshakeError> {
    timeout(limit, handshake).await.unwrap_or(Err(HandshakeError::Timeout))
}

async fn tls_handshake(
    stream: TcpStream,
    tls: &ServerTls,
) -> Result<(ServerTlsStream, Option<Box<CertificateFacts>>), HandshakeError> {
    judged(tls, TlsAcceptor::from(tls.config.clone()).accept(stream)).await
}

/// Ends a handshake, and tells whose certificate was shown in it.
async fn judged(
    tls: &ServerTls,
    handshake: impl Future<Output = io::Result<ServerTlsStream>>,
) -> Result<(ServerTlsStream, Option<Box<CertificateFacts>>), HandshakeError> {
    let accepting = async {
        let accepted = handshake.await;
        let shown = SHOWN.with(RefCell::take);
        let stream = accepted.map_err(|error| match (tls_error(error), shown.fingerprint) {
            (Ok(error), Some(fingerprint)) => HandshakeError::Untrusted { error, fingerprint },
            (Ok(error), None) => HandshakeError::Tls(error),
            (Err(error), _) => HandshakeError::Io(error),
        })?;
        Ok::<_, HandshakeError>((stream, shown.facts))
    };
    let (stream, facts) = SHOWN.scope(RefCell::default(), accepting).await?;
    let shows_none = stream.get_ref().1.peer_certificates().is_none_or(<[_]>::is_empty);
    if tls.trust.is_none() || shows_none {
        return Ok((stream, None));
    }
    // Nobody is let in by a certificate that was not looked at.
    let certificate = facts.unwrap_or(Err(CertificateError::Unreadable))?;
    Ok((stream, Some(Box::new(certificate))))
}

fn websocket_error(error: tungstenite::Error) -> HandshakeError {
    match error {
        tungstenite::Error::Io(error) => HandshakeError::Io(error),
        other => HandshakeError::WebSocket(Box::new(other)),
    }
}
