//! Binds and accepts (interface.md section 2). The accept loop does no handshake and never waits for a client: each
//! connection is handed on with its entry in the books of [`Admission`].

use std::fs::File;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::net;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net as os_unix;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

#[cfg(not(target_vendor = "apple"))]
use rustix::io::Errno;
#[cfg(not(target_vendor = "apple"))]
use rustix::net::SocketFlags;
#[cfg(not(target_vendor = "apple"))]
use rustix::net::acceptfrom_with;
use tokio::io::Interest;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::config::settings::Bind;
use crate::metrics::Metrics;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::RejectReason;
use crate::net::address::PeerAddr;
use crate::net::admission::Admission;
use crate::net::admission::Crowd;
use crate::net::admission::Entry;
use crate::net::clock;
use crate::net::descriptors;
use crate::net::unix;
use crate::net::unix::SocketFile;

/// Whether a connection has `TCP_NODELAY` from the socket that accepted it: one system call less for each.
const NODELAY_IS_INHERITED: bool = cfg!(target_os = "linux");
/// Connections the kernel completes before we accept them.
const BACKLOG: u32 = 1024;
/// How long we accept nothing when there is no memory left, or not even a descriptor to refuse a connection with.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often it is said at most that there are no descriptors or no memory.
const EXHAUSTED_SAID_MS: u64 = 10_000;

/// Why a listener is not there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("listeners[{id}].bind: {bind} is already in use")]
    InUse {
        /// The listener.
        id: String,
        /// What it was to bind.
        bind: Bind,
    },
    /// A file stands where the socket is to be.
    #[error("listeners[{id}].bind: {bind} is there already and is not a socket")]
    NotASocket {
        /// The listener.
        id: String,
        /// What it was to bind.
        bind: Bind,
    },
    /// Anything else.
    #[error("listeners[{id}].bind: cannot listen on {bind}: {source}")]
    Other {
        /// The listener.
        id: String,
        /// What it was to bind.
        bind: Bind,
        /// The system's reason.
        source: io::Error,
    },
}

/// A connection as the runtime of its thread drives it.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, `TCP_NODELAY` on.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
}

/// A connection as it was accepted: no runtime's yet, so that only the one that will drive it asks the kernel to watch it.
#[derive(Debug)]
pub enum Detached {
    /// Over TCP, `TCP_NODELAY` on.
    Tcp(net::TcpStream),
    /// Over a Unix domain socket.
    Unix(os_unix::UnixStream),
}

impl Detached {
    /// Gives it to the runtime that this is called in.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// A new connection.
#[derive(Debug)]
pub struct Accepted<S = Detached> {
    /// The connection.
    pub stream: S,
    /// Where it comes from.
    pub peer: PeerAddr,
    /// To be kept as long as it is no client's.
    pub entry: Entry,
}

impl Accepted {
    /// Gives the connection to the runtime that this is called in.
    ///
    /// # Errors
    /// When the system refuses; the connection is closed then.
    pub fn attach(self) -> io::Result<Accepted<Stream>> {
        let Self { stream, peer, entry } = self;
        Ok(Accepted { stream: stream.attach()?, peer, entry })
    }
}

/// Who gets the connections of a listener.
pub trait Reception {
    /// One more.
    fn take(&mut self, accepted: Accepted);

    /// For the moment those were all.
    fn pause(&mut self);
}

/// Accepts without making each connection a client of the accepting runtime's poller, as tokio's `TcpListener` does:
/// the connection may belong to another thread, and taking it back costs two system calls.
#[derive(Debug)]
struct TcpAcceptor {
    socket: net::TcpListener,
    /// The same socket. Nothing is read from it: it tells when a connection waits.
    readiness: TcpStream,
}

impl TcpAcceptor {
    fn new(socket: TcpListener) -> io::Result<Self> {
        let socket = socket.into_std()?;
        let readiness = TcpStream::from_std(OwnedFd::from(socket.try_clone()?).into())?;
        Ok(Self { socket, readiness })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(net::TcpStream, SocketAddr)>> {
        loop {
            ready!(self.readiness.poll_read_ready(cx))?;
            match self.readiness.try_io(Interest::READABLE, || accept(&self.socket)) {
                Ok(accepted) => return Poll::Ready(Ok(accepted)),
                // It is not ready any more, and the next turn waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A connection that does not block, in one system call.
#[cfg(not(target_vendor = "apple"))]
fn accept(socket: &net::TcpListener) -> io::Result<(net::TcpStream, SocketAddr)> {
    let (stream, address) = acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let address = address.ok_or(Errno::AFNOSUPPORT)?;
    Ok((stream.into(), address.try_into()?))
}

/// The same in two.
#[cfg(target_vendor = "apple")]
fn accept(socket: &net::TcpListener) -> io::Result<(net::TcpStream, SocketAddr)> {
    let (stream, address) = socket.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, address))
}

/// A bound socket. Its file, if it has one, goes before it.
#[derive(Debug)]
enum Socket {
    Tcp(TcpAcceptor),
    Unix { _file: SocketFile, socket: UnixListener },
}

impl Socket {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Detached, PeerAddr)>> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = ready!(socket.poll_accept(cx))?;
                Poll::Ready(Ok((Detached::Tcp(stream), address.into())))
            }
            Self::Unix { socket, .. } => {
                let (stream, _) = ready!(socket.poll_accept(cx))?;
                Poll::Ready(stream.into_std().map(|stream| (Detached::Unix(stream), PeerAddr::Unix)))
            }
        }
    }

    /// A connection that waits already, if there is one.
    async fn accept_waiting(&self) -> Option<io::Result<(Detached, PeerAddr)>> {
        poll_fn(|cx| match self.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    id: String,
    kind: ListenerType,
    bound: Bind,
    socket: Socket,
    admission: Admission,
    spare: Option<File>,
    said_ms: Option<u64>,
}

impl Listener {
    /// Binds it; port 0 takes a free one. Must be called within the runtime.
    ///
    /// # Errors
    /// Naming the setting.
    pub fn bind(id: &str, kind: ListenerType, bind: &Bind, admission: Admission) -> Result<Self, BindError> {
        let (socket, bound) = listen(bind).map_err(|source| {
            let (id, bind) = (id.to_owned(), bind.clone());
            match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse { id, bind },
                io::ErrorKind::AlreadyExists => BindError::NotASocket { id, bind },
                _ => BindError::Other { id, bind, source },
            }
        })?;
        let (id, spare) = (id.to_owned(), descriptors::spare());
        Ok(Self { id, kind, bound, socket, admission, spare, said_ms: None })
    }

    /// The listener's id, `<type>:<name>`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is bound, with the port that was taken.
    #[must_use]
    pub fn bound(&self) -> &Bind {
        &self.bound
    }

    /// What it lets in, to be waited for.
    #[must_use]
    pub fn crowd(&self) -> Crowd {
        self.admission.crowd()
    }

    /// Accepts until `shutdown` ends, then closes the port. A connection that is not admitted is closed at once and
    /// counted.
    pub async fn run(
        mut self,
        metrics: &Metrics,
        mut reception: impl Reception,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = pin!(shutdown);
        loop {
            let accepting = poll_fn(|cx| {
                let accepted = self.socket.poll_accept(cx);
                if accepted.is_pending() {
                    reception.pause();
                }
                accepted
            });
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => return reception.pause(),
                accepted = accepting => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, metrics, &mut reception),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    reception.pause();
                    self.say_exhausted(&error);
                    if !self.refuse_waiting(metrics).await {
                        tokio::select! {
                            () = &mut shutdown => return,
                            () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
                        }
                    }
                }
            }
        }
    }

    fn admit(&mut self, stream: Detached, peer: PeerAddr, metrics: &Metrics, reception: &mut impl Reception) {
        let rejected = &metrics.broker.connections_rejected;
        let entry = match self.admission.admit(clock::now().mono_ms) {
            Ok(entry) => entry,
            Err(reason) => {
                rejected[reason].inc();
                if reason == RejectReason::Descriptors {
                    self.say_exhausted(&"the limit of file descriptors is reached");
                }
                return;
            }
        };
        // It fails only on a connection that is gone already.
        if let Detached::Tcp(stream) = &stream
            && !NODELAY_IS_INHERITED
            && stream.set_nodelay(true).is_err()
        {
            rejected[RejectReason::Lost].inc();
            return;
        }
        metrics.broker.connections_accepted[self.kind].inc();
        reception.take(Accepted { stream, peer, entry });
    }

    /// There is no descriptor for the next connection: the spare one is given up for as long as it takes to accept and
    /// close it. Left in the queue it would make every later accept(2) fail at once, and its client wait for nothing.
    /// Whether that worked.
    async fn refuse_waiting(&mut self, metrics: &Metrics) -> bool {
        let refused = if self.spare.take().is_some() {
            self.socket.accept_waiting().await.is_some_and(|accepted| accepted.is_ok())
        } else {
            false
        };
        if refused {
            metrics.broker.connections_rejected[RejectReason::Descriptors].inc();
        }
        self.spare = descriptors::spare();
        refused
    }

    fn say_exhausted(&mut self, error: &dyn std::fmt::Display) {
        let now_ms = clock::now().mono_ms;
        if self.said_ms.is_none_or(|said_ms| now_ms - said_ms >= EXHAUSTED_SAID_MS) {
            self.said_ms = Some(now_ms);
            tracing::warn!(listener = %self.id, %error, "new connections are refused");
        }
    }
}

fn listen(bind: &Bind) -> io::Result<(Socket, Bind)> {
    match bind {
        Bind::Addr(address) => {
            let socket = listen_tcp(*address)?;
            let bound = socket.local_addr()?;
            Ok((Socket::Tcp(TcpAcceptor::new(socket)?), Bind::Addr(bound)))
        }
        Bind::Path(path) => {
            let (socket, file) = unix::listen(path, BACKLOG)?;
            Ok((Socket::Unix { _file: file, socket }, bind.clone()))
        }
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last run's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
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
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc;
    use tokio::sync::oneshot;

    use super::*;
    use crate::time::Now;

    impl Reception for mpsc::UnboundedSender<Accepted> {
        fn take(&mut self, accepted: Accepted) {
            self.send(accepted).unwrap();
        }

        fn pause(&mut self) {}
    }

    fn at(address: &str) -> Bind {
        Bind::Addr(address.parse().unwrap())
    }

    fn one() -> Admission {
        Admission::new(1, 10, Arc::new(Semaphore::new(10)))
    }

    fn bind(id: &str, bind: &Bind) -> Result<Listener, BindError> {
        Listener::bind(id, ListenerType::Tcp, bind, one())
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_naming_the_setting() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let first = bind("tcp:default", &at(address)).unwrap();
            let bound = first.bound().clone();
            assert_ne!(bound, at(address));
            let error = bind("tcp:second", &bound).unwrap_err();
            assert_eq!(error.to_string(), format!("listeners[tcp:second].bind: {bound} is already in use"));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_an_error_naming_the_setting() {
        let error = bind("tcp:x", &at("192.0.2.1:1")).unwrap_err().to_string();
        assert!(error.starts_with("listeners[tcp:x].bind: cannot listen on 192.0.2.1:1: "), "{error}");
    }

    #[tokio::test]
    async fn errors_of_a_unix_socket_name_the_setting() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let socket = Bind::Path(folder.path().join("s"));
        let _first = bind("unix:first", &socket).unwrap();
        let expected = [
            (socket, "is already in use"),
            (Bind::Path(file), "is there already and is not a socket"),
            (Bind::Path(folder.path().join("no/s")), "No such file or directory (os error 2)"),
        ];
        for (path, ending) in expected {
            let error = bind("unix:x", &path).unwrap_err().to_string();
            assert!(error.starts_with("listeners[unix:x].bind: ") && error.ends_with(ending), "{error}");
            assert!(error.contains(&path.to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_maximum_are_closed_and_counted() {
        let listener = bind("tcp:default", &at("127.0.0.1:0")).unwrap();
        let Bind::Addr(address) = *listener.bound() else { unreachable!() };
        let metrics = Arc::new(Metrics::new(Now::default()));
        let (sender, mut accepted) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn({
            let metrics = Arc::clone(&metrics);
            async move {
                listener.run(&metrics, sender, async { drop(stopped.await) }).await;
            }
        });

        let first_client = TcpStream::connect(address).await.unwrap();
        let first = accepted.recv().await.unwrap();
        assert_eq!(first.peer, first_client.local_addr().unwrap().into());
        let Detached::Tcp(stream) = &first.stream else { unreachable!() };
        assert!(stream.nodelay().unwrap());
        let place = first.entry.places().take().unwrap();

        let mut refused = TcpStream::connect(address).await.unwrap();
        assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0);
        let counted = |reason| metrics.broker.connections_rejected[reason].value();
        assert_eq!(counted(RejectReason::MaxConnections), 1);

        drop((first, place));
        let _third_client = TcpStream::connect(address).await.unwrap();
        let _third = accepted.recv().await.unwrap();
        assert_eq!(metrics.broker.connections_accepted[ListenerType::Tcp].value(), 2);

        drop(stop);
        task.await.unwrap();
        assert!(accepted.recv().await.is_none());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
