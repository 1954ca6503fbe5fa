//! Listeners on Unix domain sockets.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use tokio::net::UnixStream;

use tombolo::broker::server::ReloadError;
use tombolo::broker::server::Server;
use tombolo::broker::server::StartError;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;
use crate::link_confinement::link_to;

fn listener(name: &str, file: &str, more: &str) -> String {
    format!("[[listeners]]\nname = \"{name}\"\ntype = \"unix\"\nbind = \"{{dir}}/{file}\"\n{more}\n")
}

const TCP: &str = "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n";

async fn open(path: &Path) -> Client {
    Client::over(UnixStream::connect(path).await.unwrap())
}

async fn join(path: &Path, version: Version, id: &str) -> Client {
    let mut client = open(path).await;
    assert_eq!(client.connect(&hello(version, id)).await, Got::ConnAck(false, 0));
    client
}

#[tokio::test]
async fn clients_of_a_socket_and_of_a_port_are_of_one_broker() {
    let broker = Setup::new().listeners(&format!("{TCP}{}", listener("local", "s", ""))).start().await;
    let path = broker.path("s");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    assert_eq!(broker.server.address("unix:local"), None);
    let mut far = broker.join(Version::V5, "far").await;
    far.subscribe("t/#", Q1).await;
    for (version, id) in VERSIONS.into_iter().zip(["a", "b", "c"]) {
        let mut near = join(&path, version, id).await;
        near.subscribe("t/1", Q1).await;
        let payload = vec![b'x'; 300_000];
        near.publish("t/1", &payload, Q1).await;
        assert_eq!(near.receive().await.payload, payload);
        assert_eq!(far.receive().await.payload, payload);
        near.leave().await;
    }
    broker.until_metric("tombolo_connections_total{listener=\"unix\"}", 3).await;
    broker.until_metric("tombolo_connections{listener=\"unix\"}", 0).await;
}

/// There is no address: neither the machine's own nor any other.
#[tokio::test]
async fn rules_see_the_listener_and_no_address() {
    let broker = Setup::new()
        .listeners(&listener("local", "s", ""))
        .acl(
            "{allow, {listener, \"unix:local\"}, all, [\"mine\"]}.\n\
             {allow, {ipaddr, \"127.0.0.1\"}, all, [\"loopback\"]}.\n\
             {allow, {ipaddrs, [\"0.0.0.0/0\", \"::/0\"]}, all, [\"anywhere\"]}.\n{deny, all}.",
        )
        .start()
        .await;
    let mut client = join(&broker.path("s"), Version::V5, "c").await;
    for (topic, granted) in [("mine", 1), ("loopback", 0x87), ("anywhere", 0x87)] {
        assert_eq!(client.subscribe(topic, Q1).await, granted, "{topic}");
    }
}

#[tokio::test]
async fn the_file_goes_with_the_listener() {
    let two = |first: &str| format!("{TCP}{}{}", listener("one", first, ""), listener("two", "2", ""));
    let mut broker = Setup::new().listeners(&two("1")).start().await;
    let (one, two_at, moved) = (broker.path("1"), broker.path("2"), broker.path("moved"));
    let mut goes = join(&one, Version::V5, "goes").await;
    let mut stays = join(&two_at, Version::V5, "stays").await;
    // The other listener keeps socket and clients.
    broker.reload(|setup| setup.listeners(&two("moved"))).await.unwrap();
    goes.refused(0x98).await;
    assert!(!one.exists() && moved.exists());
    join(&moved, Version::V5, "again").await.leave().await;
    stays.quiet().await;
    broker.reload(|setup| setup.listeners(TCP)).await.unwrap();
    stays.refused(0x98).await;
    assert!(!two_at.exists() && !moved.exists());
    // A stop removes what is there by then.
    broker.reload(|setup| setup.listeners(&listener("one", "1", ""))).await.unwrap();
    assert!(one.exists());
    broker.server.stop().await;
    assert!(!one.exists());
}

#[tokio::test]
async fn what_a_crash_left_is_replaced_and_what_lives_is_taken() {
    let setup = Setup::new().listeners(&listener("local", "s", ""));
    let path = setup.path("s");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists(), "as a crash leaves it");
    let mut broker = setup.start().await;
    let mut client = join(&path, Version::V5, "c").await;
    let other =
        Setup::new().listeners(&listener("other", "s", "").replace("{dir}/s", path.to_str().unwrap()));
    let error = Server::start(other.settings()).await.err().unwrap();
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    assert_eq!(
        error.to_string(),
        format!("listeners[unix:other].bind: {} is already in use", path.display())
    );
    client.quiet().await;
    // A file that is no socket stays, and a reload that meets it changes nothing.
    let notes = broker.path("notes");
    std::fs::write(&notes, "mine").unwrap();
    let both = format!("{}{}", listener("local", "s", ""), listener("more", "notes", ""));
    let result = broker.reload(|setup| setup.listeners(&both)).await;
    assert!(matches!(result, Err(ReloadError::Bind(_))), "{result:?}");
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "mine");
    client.quiet().await;
}

#[tokio::test]
async fn a_failed_start_leaves_no_file() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port =
        format!("[[listeners]]\nname = \"p\"\ntype = \"tcp\"\nbind = \"{}\"\n", taken.local_addr().unwrap());
    let setup = Setup::new().listeners(&format!("{}{port}", listener("local", "s", "")));
    assert!(Server::start(setup.settings()).await.is_err());
    assert!(!setup.path("s").exists());
}

/// A link over a Unix socket is plaintext, and proves itself like any other.
#[tokio::test]
async fn a_peer_proves_itself_on_a_socket_too() {
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "secret-b")]);
    let broker = setup
        .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
        .listeners(&listener("links", "s", "role = \"link\"\nallow_insecure = true"))
        .links(&link_to("B"))
        .start()
        .await;
    let path = broker.path("s");
    let mut stranger = open(&path).await;
    assert_eq!(stranger.connect(&hello(Version::V5, "stranger")).await, Got::ConnAck(false, 0x87));
    for (password, code) in [("wrong", 0x87), ("secret-b", 0)] {
        let mut peer = open(&path).await;
        let asked = Connect {
            username: Some("clink-user:B"),
            password: Some(password.as_bytes()),
            ..hello(Version::V5, "clink-B-1")
        };
        assert_eq!(peer.connect(&asked).await, Got::ConnAck(false, code));
    }
}
