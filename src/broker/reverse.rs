//! Links of which one side cannot be reached (`dialled_by`): the other makes the connections of both.
//!
//! Each side of a link is an MQTT client of the other: wishes go one way, what is wanted the other (`link-protocol.md` 1.1). A
//! cluster behind a NAT can dial, and cannot be dialled. So it dials once more, by ALPN `tombolo-reverse/1` on the port of
//! links, and leaves the connection to its peer, which uses it as if it had dialled. Both have shown their link certificates in
//! the handshake; only who plays the client of MQTT is turned round. Nothing else of a link knows of it.
//!
//! [`Room`] is where lent connections wait at the peer; `lend` is the side that dials.

pub(super) mod lend;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Context;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::io::ReadBuf;
use tokio::sync::Notify;

use crate::net::clock;
use crate::net::transport::Transport;
use crate::time::Now;

/// Connections that wait at a time. The peer lends another as soon as one is taken.
pub(super) const WAITING_MAX: usize = 4;
/// How long one is good: the peer renews those that nobody takes before the state of a NAT is forgotten.
const WAITING_FOR: Duration = Duration::from_secs(90);
/// What the peer is told whose connection waits.
pub(super) const WAITING: &str = "waiting";

/// A connection that the peer has lent us.
#[derive(Debug)]
pub struct Lent {
    /// What is spoken on it is ours to say.
    pub transport: Transport,
    /// The certificate that the peer has shown, SHA-256.
    pub fingerprint: [u8; 32],
    since: Now,
}

impl Lent {
    /// One that came at this moment.
    #[must_use]
    pub fn new(transport: Transport, fingerprint: [u8; 32], since: Now) -> Self {
        Self { transport, fingerprint, since }
    }

    /// Whether it is of no use any more: old, ended, or not silent.
    fn is_over(&mut self, now: Now) -> bool {
        let age = Duration::from_millis(now.mono_ms.saturating_sub(self.since.mono_ms));
        let mut byte = [0; 1];
        let read = Pin::new(&mut self.transport)
            .poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte));
        age >= WAITING_FOR || read.is_ready()
    }
}

/// Where the connections wait that a peer has lent us.
#[derive(Debug, Default)]
pub struct Room {
    waiting: Mutex<VecDeque<Lent>>,
    came: Notify,
}

impl Room {
    /// Has one wait, unless enough do.
    ///
    /// # Errors
    /// The connection.
    pub fn enter(&self, lent: Lent, now: Now) -> Result<(), Box<Lent>> {
        let mut waiting = self.waiting.lock();
        waiting.retain_mut(|lent| !lent.is_over(now));
        if waiting.len() >= WAITING_MAX {
            return Err(Box::new(lent));
        }
        waiting.push_back(lent);
        self.came.notify_one();
        Ok(())
    }

    /// The one that has waited longest and has shown one of these certificates, as soon as there is one.
    pub async fn take(&self, pins: &[[u8; 32]]) -> Transport {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            // Before it is looked, or one that comes meanwhile would wake nobody.
            came.as_mut().enable();
            if let Some(transport) = self.pop(pins, clock::now()) {
                return transport;
            }
            came.await;
        }
    }

    /// One that waits at this moment.
    #[must_use]
    pub fn pop(&self, pins: &[[u8; 32]], now: Now) -> Option<Transport> {
        let mut waiting = self.waiting.lock();
        let lent = loop {
            let mut lent = waiting.pop_front()?;
            // Whose certificate it was may be nobody's by now.
            if pins.contains(&lent.fingerprint) && !lent.is_over(now) {
                break lent;
            }
        };
        if !waiting.is_empty() {
            self.came.notify_one();
        }
        Some(lent.transport)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends them away.
    pub fn clear(&self) {
        self.waiting.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::net::TcpStream;

    use super::*;

    const PIN: [u8; 32] = [7; 32];

    async fn pair() -> (Transport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Transport::Tcp(accepted.unwrap().0), dialled.unwrap())
    }

    async fn lent(at_ms: u64) -> (Lent, TcpStream) {
        let (transport, peer) = pair().await;
        (Lent::new(transport, PIN, Now { mono_ms: at_ms, unix_ms: 0 }), peer)
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[tokio::test]
    async fn so_many_wait_and_those_that_ended_make_room() {
        let room = Room::default();
        let mut peers = Vec::new();
        for _ in 0..WAITING_MAX {
            let (lent, peer) = lent(0).await;
            room.enter(lent, at(0)).unwrap();
            peers.push(peer);
        }
        let (more, _more_peer) = lent(0).await;
        assert!(room.enter(more, at(0)).is_err());
        let mut gone = peers.remove(1);
        gone.shutdown().await.unwrap();
        drop(gone);
        // The kernel tells in its own time.
        loop {
            let (another, another_peer) = lent(0).await;
            if room.enter(another, at(0)).is_ok() {
                peers.push(another_peer);
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(room.len(), WAITING_MAX);
        let (late, _late_peer) = lent(90_000).await;
        room.enter(late, at(90_000)).unwrap();
        assert_eq!(room.len(), 1, "the others are too old");
    }

    #[tokio::test]
    async fn whoever_waits_for_one_gets_the_next_and_nobody_gets_a_stranger_s() {
        let room = std::sync::Arc::new(Room::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let room = std::sync::Arc::clone(&room);
                tokio::spawn(async move { drop(room.take(&[PIN]).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (transport, peer) = pair().await;
            room.enter(Lent::new(transport, [9; 32], clock::now()), clock::now()).unwrap();
            let (transport, another) = pair().await;
            room.enter(Lent::new(transport, PIN, clock::now()), clock::now()).unwrap();
            peers.extend([peer, another]);
            tokio::task::yield_now().await;
        }
        for one in waiting {
            one.await.unwrap();
        }
        room.clear();
        assert!(room.is_empty());
    }
}
