//! Many idle connections: what each costs. The large run is `cargo bench --bench connections`.

use tombolo::mqtt::packet::Version;

use crate::harness::Setup;
use crate::harness::hello;
use crate::process::Process;

const CONNECTIONS: i64 = 400;

#[tokio::test]
async fn idle_connections_stay_and_cost_little() {
    let mut broker = Process::start(Setup::new()).await;
    let mut held = Vec::new();
    for number in 0..50 {
        held.push(broker.join(&hello(Version::V311, &format!("warm-{number}"))).await);
    }
    let before = broker.resident_kib();
    for number in 0..CONNECTIONS {
        held.push(broker.join(&hello(Version::V311, &format!("idle-{number}"))).await);
    }
    let grown = broker.resident_kib() - before;
    println!("{CONNECTIONS} idle connections: {} bytes each", grown * 1024 / CONNECTIONS);
    assert!(grown * 1024 < 8 * 1024 * CONNECTIONS, "{grown} KiB");
    for client in &mut held {
        client.quiet().await;
    }
    broker.assert_unharmed();
}
