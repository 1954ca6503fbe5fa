//! Class A: memory for what a stranger only claims to send.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::mqtt::packet::Version;

use crate::harness::LIMIT;
use crate::harness::Setup;
use crate::harness::hello;
use crate::process::Process;

const CONNECTIONS: i64 = 2_000;

/// Opens connections that say this, and waits until the broker has closed them all. KiB that its memory grew by meanwhile.
async fn growth(broker: &Process, said: &[u8]) -> i64 {
    let address = broker.address();
    let accepted = broker.metric("tombolo_connections_total{listener=\"tcp\"}").await;
    let before = broker.resident_kib();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be refused by its first bytes.
        let _ = stream.write_all(said).await;
        streams.push(stream);
    }
    broker.until_metric("tombolo_connections_total{listener=\"tcp\"}", accepted + CONNECTIONS as u64).await;
    let after = broker.resident_kib();
    for mut stream in streams {
        let closed =
            time::timeout(LIMIT, stream.read(&mut [0; 1])).await.expect("closed by the CONNECT timeout");
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    after - before
}

#[tokio::test]
async fn a_length_reserves_nothing_and_the_connect_timeout_ends_it() {
    let mut broker = Process::start(Setup::new().mqtt("idle_timeout = \"2s\"")).await;
    // 256 MiB are too much from the header alone; half a MiB might still come.
    for (name, said) in
        [("256 MiB", [0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0]), ("500 KiB", [0x10, 0x80, 0xA0, 0x1F, 0, 4])]
    {
        let grown = growth(&broker, &said).await;
        println!(
            "class A: {CONNECTIONS} connections that declare {name}: {} bytes each",
            grown * 1024 / CONNECTIONS
        );
        assert!(grown < 64 * CONNECTIONS, "{grown} KiB");
    }
    assert_eq!(broker.metric("tombolo_sessions").await, 0);
    broker.join(&hello(Version::V5, "after")).await.quiet().await;
    broker.assert_unharmed();
}
