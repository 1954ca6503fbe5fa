//! Binds and accepts (interface.md section 2). The accept loop does no handshake and never waits for a client: each
//! connection is handed on with the permit that counts it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::config::settings::Rate;
use crate::metrics::Metrics;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::RejectReason;
use crate::net::bucket::Bucket;
use crate::net::clock;

/// Connections the kernel completes before we accept them.
const BACKLOG: u32 = 1024;
/// How long we accept nothing when there are no file descriptors or no memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Why a listener is not there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error("listeners[{id}].bind: {address} is already in use")]
    InUse {
        /// The listener.
        id: String,
        /// What it was to bind.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("listeners[{id}].bind: cannot listen on {address}: {source}")]
    Other {
        /// The listener.
        id: String,
        /// What it was to bind.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// Counts one connection against `max_connections` until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

/// A new connection, `TCP_NODELAY` on.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Where it comes from.
    pub peer_addr: SocketAddr,
    /// To be kept as long as the connection.
    pub permit: Permit,
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    id: String,
    kind: ListenerType,
    address: SocketAddr,
    socket: TcpListener,
    permits: Arc<Semaphore>,
    rate: Option<Bucket>,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one. Must be called within the runtime.
    ///
    /// # Errors
    /// Naming the setting.
    pub fn bind(
        id: &str,
        kind: ListenerType,
        address: SocketAddr,
        max_connections: usize,
    ) -> Result<Self, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { id: id.to_owned(), address },
            _ => BindError::Other { id: id.to_owned(), address, source },
        };
        let socket = listen(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let permits = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { id: id.to_owned(), kind, address, socket, permits, rate: None })
    }

    /// Accepts no more connections per time than this, if anything is said.
    #[must_use]
    pub fn at_rate(mut self, rate: Option<Rate>) -> Self {
        self.rate = rate.map(|rate| Bucket::new(rate, clock::now().mono_ms));
        self
    }

    /// The listener's id, `<type>:<name>`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The address that is bound, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `shutdown` ends, then closes the port. Above `max_connections` and `max_conn_rate` a connection is
    /// closed at once and counted.
    pub async fn run(
        mut self,
        metrics: &Metrics,
        mut on_accept: impl FnMut(Accepted),
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = pin!(shutdown);
        let mut exhausted = false;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer_addr)) => {
                        exhausted = false;
                        self.admit(stream, peer_addr, metrics, &mut on_accept);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        // Said once, not ten times a second.
                        if !std::mem::replace(&mut exhausted, true) {
                            tracing::warn!(listener = %self.id, %error, "cannot accept connections, trying again");
                        }
                        tokio::select! {
                            () = &mut shutdown => return,
                            () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
                        }
                    }
                },
            }
        }
    }

    fn admit(
        &mut self,
        stream: TcpStream,
        peer_addr: SocketAddr,
        metrics: &Metrics,
        on_accept: &mut impl FnMut(Accepted),
    ) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            metrics.broker.connections_rejected[RejectReason::MaxConnections].inc();
            return;
        };
        if self.rate.as_mut().is_some_and(|rate| !rate.take(clock::now().mono_ms)) {
            metrics.broker.connections_rejected[RejectReason::Quota].inc();
            return;
        }
        // It fails only on a connection that is gone already.
        if stream.set_nodelay(true).is_err() {
            metrics.broker.connections_rejected[RejectReason::Lost].inc();
            return;
        }
        metrics.broker.connections_accepted[self.kind].inc();
        on_accept(Accepted { stream, peer_addr, permit: Permit { _permit: permit } });
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last run's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Errors of the connection that was about to be accepted, not of the listener (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;
    use tokio::sync::oneshot;

    use super::*;
    use crate::time::Now;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_naming_the_setting() {
        let first = Listener::bind("tcp:default", ListenerType::Tcp, loopback(), 1).unwrap();
        let address = first.local_addr();
        assert_ne!(address.port(), 0);
        let error = Listener::bind("tcp:second", ListenerType::Tcp, address, 1).unwrap_err();
        assert_eq!(error.to_string(), format!("listeners[tcp:second].bind: {address} is already in use"));
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_an_error_naming_the_setting() {
        let foreign = "192.0.2.1:1".parse().unwrap();
        let error = Listener::bind("tcp:x", ListenerType::Tcp, foreign, 1).unwrap_err().to_string();
        assert!(error.starts_with("listeners[tcp:x].bind: cannot listen on 192.0.2.1:1: "), "{error}");
    }

    #[tokio::test]
    async fn connections_beyond_the_maximum_are_closed_and_counted() {
        let listener = Listener::bind("tcp:default", ListenerType::Tcp, loopback(), 1).unwrap();
        let address = listener.local_addr();
        let metrics = Arc::new(Metrics::new(Now::default()));
        let (sender, mut accepted) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn({
            let metrics = Arc::clone(&metrics);
            async move {
                let on_accept = move |accepted| sender.send(accepted).unwrap();
                listener.run(&metrics, on_accept, async { drop(stopped.await) }).await;
            }
        });

        let first_client = TcpStream::connect(address).await.unwrap();
        let first = accepted.recv().await.unwrap();
        assert_eq!(first.peer_addr, first_client.local_addr().unwrap());
        assert!(first.stream.nodelay().unwrap());

        let mut refused = TcpStream::connect(address).await.unwrap();
        assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0);
        let counted = |reason| metrics.broker.connections_rejected[reason].value();
        assert_eq!(counted(RejectReason::MaxConnections), 1);

        drop(first);
        let _third_client = TcpStream::connect(address).await.unwrap();
        let _third = accepted.recv().await.unwrap();
        assert_eq!(metrics.broker.connections_accepted[ListenerType::Tcp].value(), 2);

        drop(stop);
        task.await.unwrap();
        assert!(accepted.recv().await.is_none());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
