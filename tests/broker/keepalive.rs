//! Keep Alive (section 3.1.2.10).

use tokio::io::AsyncWriteExt;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertyContext;

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

/// 3.x has no Server Keep Alive: a client that cannot be told goes by its own (`[MQTT-3.2.2-22]`).
#[tokio::test]
async fn the_servers_own_interval_does_not_bind_who_cannot_be_told() {
    let broker = Setup::new().mqtt("server_keepalive = 1").start().await;
    let mut older = [broker.join(Version::V31, "a").await, broker.join(Version::V311, "b").await];
    broker.join(Version::V5, "c").await.refused(0x8D).await;
    for client in &mut older {
        client.quiet().await;
    }
}

/// Class L: with a maximum, nobody who is gone without a word stays for 18 hours, or for ever.
#[tokio::test]
async fn above_the_maximum_5_is_told_of_it_and_3_is_refused() {
    let broker = Setup::new().mqtt("max_keepalive = 1").start().await;
    for beyond in [0, 2, u16::MAX] {
        let mut client = broker.open().await;
        let asked = Connect { keep_alive_seconds: beyond, ..hello(Version::V5, "c") };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
        let said = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
        assert_eq!(said.server_keep_alive(), Some(1), "[MQTT-3.1.2-21]");
        client.refused(0x8D).await;
        for version in [Version::V31, Version::V311] {
            let mut client = broker.open().await;
            let asked = Connect { keep_alive_seconds: beyond, ..hello(version, "c") };
            assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0x85), "{version:?} {beyond}");
            assert_eq!(client.next().await, Got::Closed);
        }
    }
    assert_eq!(broker.metric("tombolo_connections_rejected_total{reason=\"keep_alive\"}"), 6);
    for version in VERSIONS {
        let mut client = broker.open().await;
        let asked = Connect { keep_alive_seconds: 1, ..hello(version, "c") };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0), "{version:?}");
        if version == Version::V5 {
            let said = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
            assert_eq!(said.server_keep_alive(), None);
        }
        client.leave().await;
    }
}

/// `[MQTT-3.1.2-22]` asks for a packet: bytes of one that never ends are no sign of life.
#[tokio::test]
async fn bytes_of_an_unfinished_packet_do_not_keep_a_connection() {
    let broker = broker().await;
    let mut client = broker.open().await;
    let asked = Connect { keep_alive_seconds: 1, ..hello(Version::V5, "c") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    let begun = broker.metric("tombolo_uptime_seconds");
    client.write(&[0x30, 100]).await;
    for second in 1..=5 {
        broker.until_metric("tombolo_uptime_seconds", begun + second).await;
        // In the end nobody may take it any more.
        let _taken = client.io.write_all(&[0]).await;
    }
    assert_eq!(broker.metric("tombolo_disconnects_total{reason=\"keep_alive_timeout\"}"), 1);
}
