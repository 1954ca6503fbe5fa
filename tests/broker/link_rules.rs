//! The rules that follow from the links stand in front of the ACL file (`trust.md` 2.5): a file need not say what links may do,
//! cannot take it from them, and what it says about everybody else holds.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::harness::message;
use crate::link_confinement::link_to;

/// Links to B and C, and a file that allows everybody `app/#` and links nothing.
async fn broker(links: &str, file: &str) -> Running {
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "secret-b"), ("clink-user:C", "secret-c"), ("alice", "secret")]);
    setup
        .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\nallow_insecure = true\n",
        )
        .links(links)
        .acl(file)
        .start()
        .await
}

const FILE: &str = "{allow, all, all, [\"app/#\"]}.\n{deny, all}.\n";

async fn peer(broker: &Running, name: &str) -> Client {
    let (user, password) = (format!("clink-user:{name}"), format!("secret-{}", name.to_ascii_lowercase()));
    let id = format!("clink-{name}-1");
    let asked =
        Connect { username: Some(&user), password: Some(password.as_bytes()), ..hello(Version::V5, &id) };
    let mut client = broker.open().await;
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    client
}

/// A heartbeat before its actor_init is taken and ignored.
const HEARTBEAT: &[u8] = b"\x83t\0\0\0\x03a\nm\0\0\0\x02n1a\x0ba\x01w\x03$opm\0\0\0\theartbeat";
const DENIED: u8 = 0x87;
const TAKEN: [u8; 2] = [0, 0x10];

#[tokio::test]
async fn a_link_works_though_the_file_says_nothing_of_it() {
    let broker = broker(&(link_to("B") + &link_to("C")), FILE).await;
    for name in ["B", "C"] {
        let mut link = peer(&broker, name).await;
        assert_eq!(link.subscribe(&format!("$LINK/cluster/resp/{name}/+"), Q1).await, 1);
        assert!(TAKEN.contains(&link.publish(&format!("$LINK/cluster/route/{name}"), HEARTBEAT, Q1).await));
    }
    // Nor can a file that denies them everything take it from them.
    let file = "{deny, {username, {re, \"^clink-user\"}}, all, all}.\n{allow, all, all, [\"app/#\"]}.\n{deny, all}.\n";
    let broker = self::broker(&link_to("B"), file).await;
    let mut link = peer(&broker, "B").await;
    assert!(TAKEN.contains(&link.publish("$LINK/cluster/route/B", HEARTBEAT, Q1).await));
}

#[tokio::test]
async fn a_peer_cannot_speak_for_another() {
    // The file would allow all of it.
    let broker = broker(&(link_to("B") + &link_to("C")), "{allow, all}.\n").await;
    let mut link = peer(&broker, "B").await;
    for topic in ["$LINK/cluster/route/C", "$LINK/cluster/msg/C", "$LINK/cluster/resp/B/x", "app/x", "$SYS/x"]
    {
        assert_eq!(link.publish(topic, HEARTBEAT, Q1).await, DENIED, "{topic}");
    }
    for filter in ["$LINK/#", "$LINK/cluster/resp/C/+", "$LINK/cluster/msg/B", "#", "app/#"] {
        assert_eq!(link.subscribe(filter, Q1).await, DENIED, "{filter}");
    }
    let retained = Publish { qos: Q1, retain: true, ..message("$LINK/cluster/msg/B", b"x") };
    assert_eq!(link.publish_as(retained).await, DENIED);
    // Routes are told at QoS 0 and 1.
    assert_eq!(link.publish("$LINK/cluster/route/B", HEARTBEAT, Q2).await, DENIED);
    assert!(broker.metric("tombolo_acl_denied_total{action=\"publish\",reason=\"rule\"}") >= 1);
}

#[tokio::test]
async fn nobody_else_comes_under_a_prefix() {
    let broker = broker(&link_to("B"), "{allow, all}.\n").await;
    let mut link = peer(&broker, "B").await;
    for (user, password) in [(None, None), (Some("alice"), Some(&b"secret"[..]))] {
        let mut client = broker.open().await;
        let asked = Connect { username: user, password, ..hello(Version::V5, "clink-B-1") };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, DENIED));
    }
    link.quiet().await;
    let mut app = broker.join(Version::V5, "app").await;
    assert_eq!(app.publish("app/x", b"x", Q1).await, 0x10);
}

#[tokio::test]
async fn what_follows_from_links_comes_and_goes_with_them() {
    let mut broker = broker(&link_to("B"), "{allow, all}.\n").await;
    let mut app = broker.join(Version::V5, "clink-C-tool").await;
    assert_eq!(app.subscribe("app/#", Q0).await, 0);
    let both = link_to("B") + &link_to("C");
    broker.reload(|setup| setup.links(&both)).await.unwrap();
    assert_eq!(app.seek(|got| *got == Got::Closed).await, Got::Closed, "its ClientID belongs to C now");
    let mut link = peer(&broker, "C").await;
    assert!(TAKEN.contains(&link.publish("$LINK/cluster/route/C", HEARTBEAT, Q1).await));
    // Without reading anything else again.
    let links =
        broker.server.settings().cluster.links.iter().filter(|link| link.name == "B").cloned().collect();
    let prepared = broker.server.prepare_links(links).await.unwrap();
    broker.server.set_links(prepared).await;
    assert_eq!(broker.server.broker().policy().file.peers.len(), 1);
    let mut app = broker.join(Version::V5, "clink-C-tool").await;
    assert_eq!(app.subscribe("app/#", Q0).await, 0);
    assert_eq!(app.publish("$LINK/cluster/route/C", HEARTBEAT, Q1).await, DENIED);
}
