//! A TCP relay that stands for the network one way: it drops, resets, swallows, delays and heals.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;
use tokio::time::Instant;

/// What one read takes at most.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks on their way one way of a delayed connection: far more than a window fills.
const CHUNKS_MAX: usize = 4_096;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Where new ones lead.
    target: Option<SocketAddr>,
    /// New ones are reset at once.
    closed: bool,
    /// New ones are accepted, and lead nowhere.
    swallows: bool,
    /// How many connections there were.
    born: u64,
    /// Those before this one are reset.
    reset_before: u64,
    /// What those before this one carry is lost.
    swallow_before: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A relay that leads nowhere yet; what goes through is so late each way.
    pub(crate) async fn open(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State { closed: true, ..State::default() }));
        let task = tokio::spawn(accept(listener, Arc::clone(&state), delay));
        Self { address, state, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections lead from now on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = Some(target));
    }

    /// Resets every connection.
    pub(crate) fn reset(&self) {
        self.state.send_modify(|state| state.reset_before = state.born);
    }

    /// Resets every connection and takes none.
    pub(crate) fn drop_all(&self) {
        self.reset();
        self.state.send_modify(|state| state.closed = true);
    }

    /// Everything is lost from now on, and nobody is told.
    pub(crate) fn swallow(&self) {
        self.state.send_modify(|state| {
            state.swallow_before = state.born;
            state.swallows = true;
        });
    }

    /// New connections go through. Those that lead nowhere go on doing so.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| (state.closed, state.swallows) = (false, false));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.drop_all();
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>, delay: Duration) {
    while let Ok((near, _)) = listener.accept().await {
        let mut number = 0;
        state.send_modify(|state| {
            number = state.born;
            state.born += 1;
            if state.closed {
                state.reset_before = state.born;
            } else if state.swallows {
                state.swallow_before = state.born;
            }
        });
        let mut end = state.subscribe();
        let state = state.subscribe();
        let relayed = async move {
            // Nothing of either stream is left to be sent when it is dropped.
            let _ = near.set_zero_linger();
            let target = state.borrow().target;
            let Some(target) = target else { return };
            let Ok(far) = TcpStream::connect(target).await else { return };
            let _ = (far.set_zero_linger(), near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let lost = |state: &watch::Receiver<State>| state.borrow().swallow_before > number;
            // Either end may close at any time; that is the end of both, whatever the reason.
            tokio::select! {
                _ = pump(near_in, far_out, delay, || lost(&state)) => {}
                _ = pump(far_in, near_out, delay, || lost(&state)) => {}
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = relayed => {}
                _ = end.wait_for(|state| state.reset_before > number) => {}
            }
        });
    }
}

/// Carries what comes in one way. Nothing is told while it is being lost, not even an end.
async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    delay: Duration,
    is_lost: impl Fn() -> bool,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let (read, written) = tokio::join!(take(from, sender, delay, is_lost), give(receiver, to));
    read.and(written)
}

async fn take(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    delay: Duration,
    is_lost: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if is_lost() {
            if count == 0 {
                std::future::pending::<()>().await;
            }
            continue;
        }
        if count == 0 || chunks.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) -> io::Result<()> {
    while let Some((due, bytes)) = chunks.recv().await {
        if due > Instant::now() {
            time::sleep_until(due).await;
        }
        to.write_all(&bytes).await?;
    }
    Ok(())
}
