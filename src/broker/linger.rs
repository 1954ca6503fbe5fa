//! The end of a connection that may still have something to hear: write the last bytes, say that no more will
//! come, and read until the peer closes too. Closing at once, with bytes of the peer unread, would make the
//! kernel reset the connection and take our last packet from the peer's buffer.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time;

use crate::net::transport::Transport;

/// How long a peer may take to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// Ends the connection, within two seconds whatever the peer does.
pub async fn linger(mut transport: Transport, last_bytes: Vec<u8>) {
    let farewell = async {
        if transport.write_all(&last_bytes).await.is_err() || transport.shutdown().await.is_err() {
            return;
        }
        let mut ignored = [0; 512];
        while transport.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
    };
    // A peer that does not close in time is simply dropped.
    let _ended_in_time = time::timeout(LINGER, farewell).await;
}
