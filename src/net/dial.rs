//! The outgoing connection of a link: resolve, connect, TLS, all within one time. Nothing is sent before the
//! server's certificate is verified (authn-tls.md T16).

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::settings::Network;
use crate::metrics::labels::ReconnectReason;
use crate::net::handshake::tls_error;
use crate::net::peer_networks::NoAddress;
use crate::net::peer_networks::resolve;
use crate::net::tls::ClientTls;
use crate::net::transport::Transport;
use crate::net::trust::shown;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not done in time.
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// No address, refused, unreachable.
    #[error("{0}")]
    Io(io::Error),
    /// Nowhere that a peer may send us.
    #[error(transparent)]
    NoAddress(NoAddress),
    /// Neither a DNS name nor an address, so TLS cannot verify it.
    #[error("`{0}` is not a name a certificate can have")]
    ServerName(String),
    /// TLS refused, here or there.
    #[error("TLS: {}", shown(.0))]
    Tls(rustls::Error),
}

impl DialError {
    /// Under what it is counted.
    #[must_use]
    pub fn reason(&self) -> ReconnectReason {
        match self {
            Self::Timeout(_) => ReconnectReason::Timeout,
            Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => ReconnectReason::Timeout,
            Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => ReconnectReason::Refused,
            Self::NoAddress(_) => ReconnectReason::Refused,
            Self::Io(_) => ReconnectReason::Lost,
            Self::ServerName(_) | Self::Tls(_) => ReconnectReason::Tls,
        }
    }
}

/// Connects to `host` (a name or an address without brackets), trying every address it resolves to.
///
/// # Errors
/// If there is no connection within `limit`, or TLS refuses it.
pub async fn dial(
    host: &str,
    port: u16,
    tls: Option<&ClientTls>,
    limit: Duration,
) -> Result<Transport, DialError> {
    dial_within(host, port, None, tls, limit).await
}

/// The same, to the addresses among those at which a peer may have us knock ([`resolve`]).
///
/// # Errors
/// The same.
pub async fn dial_within(
    host: &str,
    port: u16,
    networks: Option<&[Network]>,
    tls: Option<&ClientTls>,
    limit: Duration,
) -> Result<Transport, DialError> {
    let connecting = connect(host, port, networks, tls);
    timeout(limit, connecting).await.unwrap_or(Err(DialError::Timeout(limit)))
}

async fn connect(
    host: &str,
    port: u16,
    networks: Option<&[Network]>,
    tls: Option<&ClientTls>,
) -> Result<Transport, DialError> {
    let server_name = tls.map(|tls| verified_name(tls, host)).transpose()?;
    let addresses = resolve(host, port, networks).await.map_err(|error| match error {
        NoAddress::Name(error) => DialError::Io(error),
        forbidden @ NoAddress::Forbidden(..) => DialError::NoAddress(forbidden),
    })?;
    let stream = TcpStream::connect(&addresses[..]).await.map_err(DialError::Io)?;
    stream.set_nodelay(true).map_err(DialError::Io)?;
    let (Some(tls), Some(server_name)) = (tls, server_name) else {
        return Ok(Transport::Tcp(stream));
    };
    let connected = TlsConnector::from(tls.config.clone()).connect(server_name, stream).await;
    let stream = connected.map_err(|error| match tls_error(error) {
        Ok(error) => DialError::Tls(error),
        Err(error) => DialError::Io(error),
    })?;
    Ok(Transport::TlsClient(Box::new(stream)))
}

fn verified_name(tls: &ClientTls, host: &str) -> Result<ServerName<'static>, DialError> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| DialError::ServerName(name.to_owned()))
}
