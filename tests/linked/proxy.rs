//! A TCP relay that stands for the network between two clusters: it can be cut and healed.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One direction of dialling, on a port of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    target: Arc<watch::Sender<Option<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A relay that leads nowhere yet.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(watch::Sender::new(None));
        let task = tokio::spawn(accept(listener, Arc::clone(&target)));
        Self { address, target, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections lead to `target` from now on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Ends every connection and lets none through.
    pub(crate) fn cut(&self) {
        self.target.send_replace(None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<watch::Sender<Option<SocketAddr>>>) {
    while let Ok((inner, _)) = listener.accept().await {
        let Some(address) = *target.borrow() else { continue };
        let mut changed = target.subscribe();
        tokio::spawn(async move {
            let Ok(outer) = TcpStream::connect(address).await else { return };
            tokio::select! {
                () = relay(inner, outer) => {}
                _ = changed.changed() => {}
            }
        });
    }
}

async fn relay(mut inner: TcpStream, mut outer: TcpStream) {
    // Either end may close at any time; that is the end of the relay, whatever the reason.
    let _ = io::copy_bidirectional(&mut inner, &mut outer).await;
}
