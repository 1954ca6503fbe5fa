//! Connections that never finish their CONNECT: they hold up nobody (`authn-tls.md` T12, `reliability.md` class L).

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::auth::passwords;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::link_confinement::link_to;
use crate::transports::Authority;
use crate::transports::tls_client;

const EVICTED: &str = "tombolo_connections_rejected_total{reason=\"half_open\"}";

/// Connections that say these bytes and no more, all of them accepted.
async fn silent(broker: &Running, listener: &str, count: u64, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(broker.address(listener)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        streams.push(stream);
    }
    let (kind, _) = listener.split_once(':').unwrap();
    broker.until_metric(&format!("tombolo_connections_total{{listener=\"{kind}\"}}"), count).await;
    streams
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = time::timeout(LIMIT, stream.read(&mut [0; 1])).await;
    matches!(read.expect("closed"), Ok(0) | Err(_))
}

fn listener(kind: &str, more: &str) -> String {
    format!("[[listeners]]\nname = \"x\"\ntype = \"{kind}\"\nbind = \"127.0.0.1:0\"\n{more}\n")
}

/// T12: handshakes that crawl.
#[tokio::test]
async fn a_peer_gets_in_beside_crawling_handshakes() {
    let authority = Authority::new();
    let (server, peer) = (authority.issue("localhost"), authority.issue("peer"));
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "secret-b")]);
    let tls = format!("role = \"link\"\n[listeners.ssl]\n{}", authority.server_keys(&server));
    let broker = setup
        .authentication("password_file = \"{dir}/passwd\"")
        .listeners(&listener("ssl", &tls))
        .links(&link_to("B"))
        .start()
        .await;
    // The beginning of a ClientHello.
    let mut crawling = silent(&broker, "ssl:x", 200, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03").await;
    broker.until_metric(EVICTED, 200 - 64).await;
    let mut client = tls_client(broker.address("ssl:x"), &authority, Some(&peer)).await.unwrap();
    let asked = Connect {
        username: Some("clink-user:B"),
        password: Some(b"secret-b"),
        ..hello(Version::V5, "clink-B-1")
    };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    broker.until_metric(EVICTED, 201 - 64).await;
    for stream in &mut crawling[..201 - 64] {
        assert!(is_closed(stream).await, "the oldest gave way");
    }
    crawling.last_mut().unwrap().write_all(b"x").await.unwrap();
    client.quiet().await;
}

/// Neither connections that say nothing nor those that stop in the middle of CONNECT, before and behind a WebSocket
/// handshake, keep clients out or cost them their places.
#[tokio::test]
async fn logins_go_on_beside_connections_that_say_nothing() {
    for (kind, bytes) in
        [("tcp", &b""[..]), ("tcp", b"\x10\x20\0\x04MQTT"), ("ws", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n")]
    {
        let tcp = "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nmax_connections = 2\n";
        let text = format!("{tcp}{}", listener(kind, "max_connections = 100"));
        let broker = Setup::new().listeners(&text).start().await;
        let id = format!("{kind}:x");
        let mut silent = silent(&broker, &id, 300, bytes).await;
        broker.until_metric(EVICTED, 200).await;
        for stream in &mut silent[..200] {
            assert!(is_closed(stream).await);
        }
        let mut clients = Vec::new();
        for number in 0..3 {
            let stream = TcpStream::connect(broker.address(&id)).await.unwrap();
            let mut client = if kind == "ws" {
                crate::transports::websocket(stream, 1024).await
            } else {
                crate::harness::Client::over(stream)
            };
            assert_eq!(
                client.connect(&hello(Version::V5, &number.to_string())).await,
                Got::ConnAck(false, 0)
            );
            clients.push(client);
        }
        for client in &mut clients {
            client.quiet().await;
        }
    }
}

/// The places are for clients: half-open connections take none, and the last place goes to who comes first.
#[tokio::test]
async fn half_open_connections_take_no_place() {
    let broker = Setup::new().listeners(&listener("tcp", "max_connections = 1")).start().await;
    let _silent = silent(&broker, "tcp:x", 10, b"\x10").await;
    let (mut first, mut second) = (broker.open_at("tcp:x").await, broker.open_at("tcp:x").await);
    broker.until_metric("tombolo_connections_total{listener=\"tcp\"}", 12).await;
    assert_eq!(first.connect(&hello(Version::V5, "first")).await, Got::ConnAck(false, 0));
    assert_eq!(second.connect(&hello(Version::V5, "second")).await, Got::ConnAck(false, 0x97));
    assert_eq!(broker.open_at("tcp:x").await.next().await, Got::Closed);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"max_connections\"}", 2).await;
    first.quiet().await;
}
