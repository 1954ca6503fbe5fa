//! One Network Connection as a byte stream, ordered and without loss whatever carries it (`[MQTT-4.2-1]`). A driver polls it from a
//! hand-written future (performance.md 5.1 rule 2) and keeps no read buffer while idle: `poll_read` into a scratch
//! buffer is enough for every variant.
//!
//! A driver must call `poll_flush` after its writes: TLS and WebSocket may still hold what TCP had no room for.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::auth::certificate::first_expiry_unix;
use crate::net::websocket::WebSocket;

/// A TLS connection that we accepted.
pub type ServerTlsStream = tokio_rustls::server::TlsStream<TcpStream>;
/// A TLS connection that we dialled.
pub type ClientTlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// A Network Connection. The rarer carriers are boxed, so that a plain one stays small.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP, either way.
    Tcp(TcpStream),
    /// A Unix domain socket, accepted.
    Unix(UnixStream),
    /// TLS, accepted.
    Tls(Box<ServerTlsStream>),
    /// TLS, dialled.
    TlsClient(Box<ClientTlsStream>),
    /// WebSocket, accepted.
    Ws(Box<WebSocket<TcpStream>>),
    /// WebSocket over TLS, accepted.
    Wss(Box<WebSocket<ServerTlsStream>>),
}

/// Calls `$method` on whichever stream it is.
macro_rules! forward {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Self::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
            Self::TlsClient(stream) => Pin::new(&mut **stream).$method($($argument),*),
            Self::Ws(stream) => Pin::new(&mut **stream).$method($($argument),*),
            Self::Wss(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl Transport {
    /// When the certificate that the other side has shown expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn peer_not_after_unix(&self) -> Option<i64> {
        let shown = match self {
            Self::Tls(stream) => stream.get_ref().1.peer_certificates(),
            Self::TlsClient(stream) => stream.get_ref().1.peer_certificates(),
            Self::Tcp(_) | Self::Unix(_) | Self::Ws(_) | Self::Wss(_) => None,
        };
        first_expiry_unix(shown?)
    }

    /// Whether what is written is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsClient(_) | Self::Wss(_))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::TlsClient(stream) => stream.is_write_vectored(),
            Self::Ws(_) | Self::Wss(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_flush(cx))
    }

    /// Says goodbye as the carrier does it: Close frame, then `close_notify`, then FIN.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_shutdown(cx))
    }
}
