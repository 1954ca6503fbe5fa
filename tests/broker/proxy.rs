//! Listeners behind a load balancer that speaks the PROXY protocol.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q0;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::transports::Authority;
use crate::transports::tls_over;
use crate::transports::websocket;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xdc\x04\x07\x5b";
/// TCP over IPv6 from 2001:db8::7, with a field that is not ours.
const V2_IPV6: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xdc\x04\x07\x5b\xe0\0\x01x";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The rules tell who is who: each may subscribe to what is named after its address.
const RULES: &str = "{allow, {ipaddr, \"192.0.2.7\"}, subscribe, [\"four\"]}.\n\
    {allow, {ipaddr, \"2001:db8::7\"}, subscribe, [\"six\"]}.\n\
    {allow, {ipaddr, \"127.0.0.1\"}, subscribe, [\"near\"]}.\n";

async fn behind(broker: &Running, listener: &str, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address(listener)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

/// Which of the topics the client may have.
async fn seen_as(client: &mut Client) -> Vec<&'static str> {
    let mut allowed = Vec::new();
    for topic in ["four", "six", "near"] {
        if client.subscribe(topic, Q0).await < 0x80 {
            allowed.push(topic);
        }
    }
    allowed
}

fn listener(name: &str, kind: &str, trusted: &str) -> String {
    format!(
        "[[listeners]]\nname = \"{name}\"\ntype = \"{kind}\"\nbind = \"127.0.0.1:0\"\nproxy_protocol = true\n\
         proxy_trusted = [\"{trusted}\"]\n"
    )
}

#[tokio::test]
async fn the_rules_see_the_address_that_the_proxy_tells() {
    let broker = Setup::new().listeners(&listener("default", "tcp", "127.0.0.0/8")).acl(RULES).start().await;
    let table: [(&[u8], &str); 5] = [
        (V1, "four"),
        (V2, "four"),
        (V2_IPV6, "six"),
        (V2_LOCAL, "near"),
        (b"PROXY UNKNOWN 192.0.2.7 1 2 3\r\n", "near"),
    ];
    for (header, name) in table {
        // 3.1 does not say what was denied.
        for version in [Version::V311, Version::V5] {
            let mut client = Client::over(behind(&broker, "tcp:default", header).await);
            assert_eq!(client.connect(&hello(version, "c")).await, Got::ConnAck(false, 0));
            assert_eq!(seen_as(&mut client).await, [name]);
            client.leave().await;
        }
    }
    // In one piece with the CONNECT, and byte by byte.
    let mut client = Client::over(behind(&broker, "tcp:default", b"").await);
    let connect = client.encoded(&tombolo::mqtt::packet::Packet::Connect(Box::new(hello(Version::V5, "c"))));
    client.write(&[V2, &connect[..]].concat()).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
    assert_eq!(seen_as(&mut client).await, ["four"]);
    let mut client = Client::over(behind(&broker, "tcp:default", b"").await);
    for byte in [V1, &connect[..]].concat() {
        client.write(&[byte]).await;
    }
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
    assert_eq!(seen_as(&mut client).await, ["four"]);
}

#[tokio::test]
async fn the_header_comes_before_tls_and_websocket() {
    let authority = Authority::new();
    let keys = authority.server_keys(&authority.issue("localhost"));
    let mut listeners = listener("w", "ws", "127.0.0.1");
    for kind in ["ssl", "wss"] {
        listeners += &format!("{}[listeners.ssl]\n{keys}", listener("s", kind, "127.0.0.1"));
    }
    let broker = Setup::new().listeners(&listeners).acl(RULES).start().await;
    let ssl = Client::over(tls_over(behind(&broker, "ssl:s", V2).await, &authority).await);
    let ws = websocket(behind(&broker, "ws:w", V1).await, 64 * 1024).await;
    let wss = tls_over(behind(&broker, "wss:s", V1).await, &authority).await;
    let wss = websocket(wss, 64 * 1024).await;
    for (mut client, id) in [(ssl, "ssl"), (ws, "ws"), (wss, "wss")] {
        assert_eq!(client.connect(&hello(Version::V5, id)).await, Got::ConnAck(false, 0));
        assert_eq!(seen_as(&mut client).await, ["four"], "{id}");
    }
}

#[tokio::test]
async fn without_a_good_header_of_somebody_trusted_nobody_comes_in() {
    let listeners = listener("default", "tcp", "127.0.0.1") + &listener("far", "tcp", "192.0.2.0/24");
    let broker = Setup::new().listeners(&listeners).start().await;
    let connect = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'c'];
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    let table: [(&str, &[u8]); 7] = [
        ("tcp:default", &connect),
        ("tcp:default", b"GET / HTTP/1.1\r\n\r\n"),
        ("tcp:default", b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n"),
        ("tcp:default", &long),
        ("tcp:default", b"\r\n\r\n\0\r\nQUIT\n\x20\0\x02\x09"),
        ("tcp:far", V1),
        ("tcp:far", V2_LOCAL),
    ];
    for (name, bytes) in table {
        let mut stream = TcpStream::connect(broker.address(name)).await.unwrap();
        // It may be closed already.
        let _ = stream.write_all(&[bytes, &connect].concat()).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok() && answer.is_empty(), "{bytes:?}");
    }
    broker.until_metric("tombolo_connections_rejected_total{reason=\"proxy_protocol\"}", 7).await;
    assert_eq!(broker.metric("tombolo_connections_total{listener=\"tcp\"}"), 7);
    drop(behind(&broker, "tcp:default", b"PROXY TC").await);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"lost\"}", 1).await;
}

/// A header that does not end is waited for as long as a handshake.
#[tokio::test]
async fn half_a_header_takes_no_longer_than_a_handshake() {
    let authority = Authority::new();
    let keys = authority.server_keys(&authority.issue("localhost"));
    let listeners = format!(
        "{}[listeners.ssl]\nhandshake_timeout = \"100ms\"\n{keys}",
        listener("s", "ssl", "127.0.0.1")
    );
    let broker = Setup::new().listeners(&listeners).start().await;
    let mut stream = behind(&broker, "ssl:s", b"PROXY TCP4 192").await;
    let ended = tokio::time::timeout(LIMIT, stream.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))));
    broker.until_metric("tombolo_connections_rejected_total{reason=\"timeout\"}", 1).await;
}
