//! `$LINK/` belongs to links and links belong to `$LINK/`, whatever the rules say (`reliability.md` 3.2 class H,
//! `authn-tls.md` section 6, A4 to A8).

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;

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
use crate::harness::options;

/// The link to a peer that proves itself by User Name and Password. Nobody listens where it dials.
pub(crate) fn link_to(peer: &str) -> String {
    format!(
        "[[cluster.links]]\nname = \"{peer}\"\nserver = \"127.0.0.1:1\"\ntopics = [\"fwd/#\"]\n\
         [cluster.links.peer]\nusername = \"clink-user:{peer}\"\n[cluster.links.ssl]\nenable = false\n"
    )
}

/// A listener of each role, everything allowed, links to B and C.
async fn broker() -> Running {
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "secret-b"), ("clink-user:C", "secret-c"), ("alice", "secret")]);
    let listener = |name: &str, role: &str, more: &str| {
        format!(
            "[[listeners]]\nname = \"{name}\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"{role}\"\n{more}\n"
        )
    };
    setup
        .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
        .listeners(&format!(
            "{}{}{}",
            listener("default", "client", ""),
            listener("link", "link", "allow_insecure = true"),
            listener("any", "any", "allow_insecure = true"),
        ))
        .links(&format!("{}{}", link_to("B"), link_to("C")))
        .start()
        .await
}

fn proof<'a>(id: &'a str, user: &'a str, password: &'a str) -> Connect<'a> {
    Connect { username: Some(user), password: Some(password.as_bytes()), ..hello(Version::V5, id) }
}

async fn answer(broker: &Running, listener: &str, asked: &Connect<'_>) -> (Client, Got) {
    let mut client = broker.open_at(listener).await;
    let got = client.connect(asked).await;
    (client, got)
}

/// A connection bound to B.
async fn bound(broker: &Running, id: &str) -> Client {
    let (client, got) = answer(broker, "tcp:link", &proof(id, "clink-user:B", "secret-b")).await;
    assert_eq!(got, Got::ConnAck(false, 0));
    client
}

const ALLOWED: Got = Got::ConnAck(false, 0);
const REFUSED: Got = Got::ConnAck(false, 0x87);

#[tokio::test]
async fn listeners_take_whom_their_role_says() {
    let broker = broker().await;
    let peer = proof("clink-B-1", "clink-user:B", "secret-b");
    let app = proof("app", "alice", "secret");
    let nobody = hello(Version::V5, "nobody");
    for (listener, asked, expected) in [
        ("tcp:default", &peer, REFUSED),
        ("tcp:link", &peer, ALLOWED),
        ("tcp:any", &peer, ALLOWED),
        ("tcp:default", &app, ALLOWED),
        ("tcp:link", &app, REFUSED),
        ("tcp:any", &app, ALLOWED),
        ("tcp:default", &nobody, ALLOWED),
        ("tcp:link", &nobody, REFUSED),
    ] {
        let (_, got) = answer(&broker, listener, asked).await;
        assert_eq!(got, expected, "{} at {listener}", asked.client_id);
    }
    let refusals = |reason: &str| format!("tombolo_peer_refusals_total{{reason=\"{reason}\"}}");
    broker.until_metric(&refusals("peer_on_client_listener"), 1).await;
    broker.until_metric(&refusals("unbound_on_link_listener"), 2).await;
}

#[tokio::test]
async fn who_acts_as_a_peer_without_its_proof_is_refused_before_any_takeover() {
    let broker = broker().await;
    let mut link = bound(&broker, "clink-B-1").await;
    for (id, user, password, reason) in [
        ("clink-B-1", "alice", "secret", "username_mismatch"),
        ("clink-B-1", "clink-user:B", "wrong", "password_not_verified"),
        ("clink-B-1", "clink-user:C", "secret-c", "identity_of_another_peer"),
        ("app", "clink-user:B", "secret-b", "client_id_outside_prefix"),
        ("clink-C-1", "clink-user:B", "secret-b", "identity_of_another_peer"),
    ] {
        let sample = format!("tombolo_peer_refusals_total{{reason=\"{reason}\"}}");
        let before = broker.metric(&sample);
        for listener in ["tcp:default", "tcp:link", "tcp:any"] {
            let (mut client, got) = answer(&broker, listener, &proof(id, user, password)).await;
            assert_eq!(got, REFUSED, "{id} as {user} at {listener}");
            assert_eq!(client.next().await, Got::Closed);
        }
        assert_eq!(broker.metric(&sample), before + 3, "{reason}");
    }
    let (_, got) = answer(&broker, "tcp:default", &hello(Version::V311, "clink-B-1")).await;
    assert_eq!(got, REFUSED);
    link.quiet().await;
    assert_eq!(broker.metric("tombolo_authentication_failures_total{reason=\"peer\"}"), 16);
}

#[tokio::test]
async fn an_application_reaches_nothing_under_link() {
    let broker = broker().await;
    for listener in ["tcp:default", "tcp:any"] {
        let (mut app, got) = answer(&broker, listener, &proof("app", "alice", "secret")).await;
        assert_eq!(got, ALLOWED);
        let before =
            broker.metric("tombolo_acl_denied_total{action=\"subscribe\",reason=\"confined_client\"}");
        let filters = [
            "$LINK/#",
            "$LINK/cluster/resp/B/+",
            "$LINK/+/+/B",
            "$LINK",
            "$share/g/$LINK/#",
            "$share/g/$LINK/cluster/msg/A",
            "$queue/$LINK/#",
            "$exclusive/$LINK/#",
        ];
        let list: Vec<_> = filters.iter().map(|filter| (*filter, options(Q2))).collect();
        assert_eq!(app.subscribe_as(&list, None).await, [0x87; 8]);
        let sample = "tombolo_acl_denied_total{action=\"subscribe\",reason=\"confined_client\"}";
        assert_eq!(broker.metric(sample), before + 8);

        let sample = "tombolo_acl_denied_total{action=\"publish\",reason=\"confined_client\"}";
        let before = broker.metric(sample);
        for topic in ["$LINK/cluster/route/B", "$LINK/cluster/msg/A", "$delayed/5/$LINK/x", "$LINK"] {
            for (qos, retain) in [(Q1, false), (Q2, false), (Q1, true)] {
                let publish = Publish { qos, retain, ..message(topic, b"x") };
                assert_eq!(app.publish_as(publish).await, 0x87, "{topic}");
            }
        }
        assert_eq!(broker.metric(sample), before + 12);
        let will = Will {
            qos: Q1,
            retain: true,
            properties: Properties::EMPTY,
            topic: "$LINK/cluster/msg/B",
            payload: b"x",
        };
        let asked = Connect { will: Some(will), ..proof("with-will", "alice", "secret") };
        let (with_will, got) = answer(&broker, listener, &asked).await;
        assert_eq!(got, ALLOWED);
        with_will.vanish().await;
        broker.until_metric(sample, before + 13).await;
    }
    // What its two links became, on `$SYS/link/…/event`, and nothing else.
    broker.until_metric("tombolo_retained_messages", 2).await;
    assert_eq!(broker.metric("tombolo_subscriptions"), 0);
}

/// EMQX's own trap: a leading wildcard that covers control topics.
#[tokio::test]
async fn wildcards_of_applications_see_no_link_traffic() {
    let broker = broker().await;
    let mut app = broker.join(Version::V5, "app").await;
    assert_eq!(app.subscribe_as(&[("#", options(Q2)), ("+/#", options(Q2))], None).await, [2, 2]);
    let mut link = bound(&broker, "clink-B-1").await;
    // A heartbeat before its actor_init is taken and ignored.
    let heartbeat = b"\x83t\0\0\0\x03a\nm\0\0\0\x02n1a\x0ba\x01w\x03$opm\0\0\0\theartbeat";
    assert_eq!(link.publish("$LINK/cluster/route/B", heartbeat, Q1).await, 0x10);
    app.quiet().await;
}

#[tokio::test]
async fn a_link_reaches_nothing_but_its_own() {
    let broker = broker().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("#", Q2).await;
    let mut link = bound(&broker, "clink-B-1").await;
    let publish = "tombolo_acl_denied_total{action=\"publish\",reason=\"confined_link\"}";
    let subscribe = "tombolo_acl_denied_total{action=\"subscribe\",reason=\"confined_link\"}";
    let topics = [
        "t",
        "fwd/1",
        "$SYS/x",
        "$LINK/cluster/route/C",
        "$LINK/cluster/msg/C",
        "$LINK/cluster/msg/A",
        "$LINK/cluster/resp/B/x",
        "$LINK/x",
    ];
    for topic in topics {
        assert_eq!(link.publish(topic, b"x", Q1).await, 0x87, "{topic}");
    }
    for topic in ["$LINK/cluster/route/B", "$LINK/cluster/msg/B"] {
        let retained = Publish { retain: true, qos: Q1, ..message(topic, b"x") };
        assert_eq!(link.publish_as(retained).await, 0x87, "retained {topic}");
    }
    assert_eq!(broker.metric(publish), 10);
    let filters = [
        "t",
        "#",
        "$LINK/#",
        "$LINK/cluster/resp/C/x",
        "$LINK/cluster/msg/B",
        "$share/g/$LINK/cluster/resp/B/x",
        "$share/g/t",
    ];
    for filter in filters {
        assert_eq!(link.subscribe(filter, Q1).await, 0x87, "{filter}");
    }
    assert_eq!(broker.metric(subscribe), 7);
    assert_eq!(link.subscribe("$LINK/cluster/resp/B/actor", Q1).await, 1);
    let will = Will { qos: Q1, retain: false, properties: Properties::EMPTY, topic: "t", payload: b"x" };
    let asked = Connect { will: Some(will), ..proof("clink-B-2", "clink-user:B", "secret-b") };
    let (with_will, got) = answer(&broker, "tcp:link", &asked).await;
    assert_eq!(got, ALLOWED);
    with_will.vanish().await;
    broker.until_metric(publish, 11).await;
    link.publish("t", b"x", Q0).await;
    link.quiet().await;
    watcher.quiet().await;
}
