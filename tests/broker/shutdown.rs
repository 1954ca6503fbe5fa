//! The end of a broker (`interface.md` section 5).

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time;

use tombolo::broker::server::Server;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;

#[tokio::test]
async fn every_client_hears_of_it() {
    let setup = Setup::new();
    let server = Server::start(setup.settings()).await.unwrap();
    let address = server.address("tcp:default").unwrap();
    let mut clients = Vec::new();
    for (version, id) in VERSIONS.into_iter().zip(["a", "b", "c"]) {
        let mut client = crate::harness::Client::over(TcpStream::connect(address).await.unwrap());
        let will = Will { qos: Q1, retain: false, properties: Properties::EMPTY, topic: "w", payload: b"" };
        let asked = Connect { will: Some(will), ..hello(version, id) };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
        assert_eq!(client.subscribe("t", Q0).await, 0);
        clients.push(client);
    }
    let told = async {
        for client in &mut clients {
            client.refused(0x8B).await;
        }
        drop(clients);
    };
    let stopped = async {
        let in_time = time::timeout(Duration::from_secs(10), server.stop()).await;
        assert!(in_time.is_ok(), "a stop takes at most ten seconds");
    };
    tokio::join!(told, stopped);
    assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
    // The data directory and the port are free again.
    Server::start(setup.settings()).await.unwrap().stop().await;
}

/// Clients that do not read, and connections without a CONNECT, do not hold it up.
#[tokio::test]
async fn who_does_not_listen_does_not_hold_it_up() {
    let setup = Setup::new();
    let server = Server::start(setup.settings()).await.unwrap();
    let address = server.address("tcp:default").unwrap();
    let silent = TcpStream::connect(address).await.unwrap();
    let mut deaf = crate::harness::Client::over(TcpStream::connect(address).await.unwrap());
    assert_eq!(deaf.connect(&hello(Version::V5, "deaf")).await, Got::ConnAck(false, 0));
    let in_time = time::timeout(Duration::from_secs(10), server.stop()).await;
    assert!(in_time.is_ok());
    drop((silent, deaf));
}
