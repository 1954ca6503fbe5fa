//! Keep Alive (section 3.1.2.10).

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;

#[tokio::test]
async fn a_silent_client_is_closed_and_others_are_not() {
    let broker = broker().await;
    let mut forever = broker.join(Version::V5, "forever").await;
    let mut clients = Vec::new();
    for (version, id) in VERSIONS.into_iter().zip(["a", "b", "c"]) {
        let mut client = broker.open().await;
        let asked = Connect { keep_alive_seconds: 1, ..hello(version, id) };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
        clients.push(client);
    }
    for mut client in clients {
        client.refused(0x8D).await;
    }
    forever.quiet().await;
    broker.until_metric("tombolo_disconnects_total{reason=\"keep_alive_timeout\"}", 3).await;
}

#[tokio::test]
async fn the_servers_own_interval_counts() {
    let broker = Setup::new().mqtt("server_keepalive = 1").start().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.refused(0x8D).await;
}
