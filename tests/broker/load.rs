//! A broker near what it can take refuses, says so, and goes on when there is room (`reliability.md` 3.4).

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;

use crate::auth::passwords;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::link_confinement::link_to;

/// No process of ours has as little resident.
const TINY: &str = "[overload_protection]\nmax_memory = \"1MB\"";
const CRITICAL: &str = "tombolo_overload_memory_level{level=\"critical\"}";
const NORMAL: &str = "tombolo_overload_memory_level{level=\"normal\"}";
const DROPPED: &str = "tombolo_messages_dropped_total{reason=\"overload\"}";

async fn answer(broker: &Running, asked: &Connect<'_>) -> Got {
    broker.open().await.connect(asked).await
}

/// What a refusal looks like: a 3.x return code 3 is Server Unavailable.
fn refused(version: Version, reason: u8) -> Got {
    Got::ConnAck(false, if version == Version::V5 { reason } else { 0x88 })
}

#[tokio::test]
async fn at_the_memory_ceiling_there_are_no_new_clients_nor_messages_until_there_is_room() {
    let mut broker = broker().await;
    let mut publisher = broker.join(Version::V5, "publisher").await;
    let mut subscriber = broker.join(Version::V5, "subscriber").await;
    subscriber.subscribe("t", Q2).await;
    broker.reload(|setup| setup.links(TINY)).await.unwrap();
    broker.until_metric(CRITICAL, 1).await;
    for version in VERSIONS {
        assert_eq!(answer(&broker, &hello(version, "new")).await, refused(version, 0x97));
    }
    assert_eq!(broker.metric("tombolo_connections_rejected_total{reason=\"overload_memory\"}"), 3);
    for qos in [Q1, Q2] {
        assert_eq!(publisher.publish("t", b"x", qos).await, 0x97);
    }
    let retained = Publish { retain: true, qos: Q1, ..message("t", b"x") };
    assert_eq!(publisher.publish_as(retained).await, 0x97);
    publisher.publish("t", b"x", Q0).await;
    publisher.quiet().await;
    assert_eq!(broker.metric(DROPPED), 4);
    assert_eq!(subscriber.subscribe("another", Q1).await, 0x97);
    assert_eq!(subscriber.subscribe("t", Q1).await, 1, "what it has it may change");
    subscriber.quiet().await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);

    broker.reload(|setup| setup.links("[overload_protection]\nmax_memory = \"infinity\"")).await.unwrap();
    broker.until_metric(NORMAL, 1).await;
    assert_eq!(publisher.publish("t", b"again", Q1).await, 0);
    assert_eq!(subscriber.receive().await.text(), "again");
    assert_eq!(answer(&broker, &hello(Version::V5, "new")).await, Got::ConnAck(false, 0));
}

/// Before 5.0 no acknowledgement can refuse: there is none, and the client sends the message again to a broker that
/// has room.
#[tokio::test]
async fn an_older_client_is_disconnected_rather_than_told_that_its_message_is_kept() {
    for version in [Version::V31, Version::V311] {
        let mut broker = broker().await;
        let mut publisher = broker.join(version, "publisher").await;
        broker.reload(|setup| setup.links(TINY)).await.unwrap();
        broker.until_metric(CRITICAL, 1).await;
        publisher.publish("t", b"x", Q0).await;
        publisher.quiet().await;
        publisher
            .send(&tombolo::mqtt::packet::Packet::Publish(Publish {
                qos: Q1,
                packet_id: Some(crate::harness::id(1)),
                ..message("t", b"x")
            }))
            .await;
        assert_eq!(publisher.next().await, Got::Closed, "{version:?}");
        assert_eq!(broker.metric(DROPPED), 2);
    }
}

#[tokio::test]
async fn at_the_memory_ceiling_what_waits_at_qos_0_goes_first() {
    let mut broker = broker().await;
    let mut publisher = broker.join(Version::V5, "publisher").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("t", Q1).await;
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    for qos in [Q0, Q1, Q0] {
        publisher.publish("t", b"x", qos).await;
    }
    publisher.quiet().await;
    assert_eq!(broker.metric("tombolo_queued_messages"), 3);
    broker.reload(|setup| setup.links(TINY)).await.unwrap();
    broker.until_metric(DROPPED, 2).await;
    assert_eq!(broker.metric("tombolo_queued_messages"), 1);
}

/// A Will is nobody's PUBLISH: it is delivered, and no store grows by it.
#[tokio::test]
async fn at_the_memory_ceiling_a_will_is_delivered_and_not_retained() {
    let mut broker = broker().await;
    let mut subscriber = broker.join(Version::V5, "subscriber").await;
    subscriber.subscribe("will", Q1).await;
    let will = Will { topic: "will", payload: b"gone", qos: Q1, retain: true, properties: Properties::EMPTY };
    let mut client = broker.open().await;
    let asked = Connect { will: Some(will), ..hello(Version::V5, "client") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    broker.reload(|setup| setup.links(TINY)).await.unwrap();
    broker.until_metric(CRITICAL, 1).await;
    client.vanish().await;
    assert_eq!(subscriber.receive().await.text(), "gone");
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
    assert_eq!(broker.metric("tombolo_messages_dropped_total{reason=\"retained_full\"}"), 1);
}

#[tokio::test]
async fn while_the_thread_is_late_new_clients_are_told_to_come_back_and_the_old_ones_go_on() {
    let broker = broker().await;
    let mut old = broker.join(Version::V5, "old").await;
    old.subscribe("t", Q1).await;
    broker.server.broker().load.set_late(true);
    for version in VERSIONS {
        assert_eq!(answer(&broker, &hello(version, "new")).await, refused(version, 0x89));
    }
    assert_eq!(broker.metric("tombolo_connections_rejected_total{reason=\"overload_lag\"}"), 3);
    assert_eq!(old.publish("t", b"x", Q1).await, 0);
    assert_eq!(old.receive().await.text(), "x");
    broker.server.broker().load.set_late(false);
    assert_eq!(answer(&broker, &hello(Version::V5, "new")).await, Got::ConnAck(false, 0));
}

#[tokio::test]
async fn a_link_gets_in_whatever_the_load() {
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "secret-b"), ("alice", "secret")]);
    let mut broker = setup
        .authentication("password_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"any\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\nallow_insecure = true",
        )
        .links(&link_to("B"))
        .start()
        .await;
    broker.reload(|setup| setup.links(&format!("{}{TINY}", link_to("B")))).await.unwrap();
    broker.until_metric(CRITICAL, 1).await;
    broker.server.broker().load.set_late(true);
    let proof = |id, user, password| Connect {
        username: Some(user),
        password: Some(password),
        ..hello(Version::V5, id)
    };
    let mut peer = broker.open_at("tcp:any").await;
    let asked = proof("clink-B-1", "clink-user:B", &b"secret-b"[..]);
    assert_eq!(peer.connect(&asked).await, Got::ConnAck(false, 0));
    let mut app = broker.open_at("tcp:any").await;
    assert_eq!(app.connect(&proof("app", "alice", &b"secret"[..])).await, Got::ConnAck(false, 0x97));
}

#[tokio::test]
async fn sessions_and_subscriptions_of_all_clients_together_have_a_maximum() {
    let broker = Setup::new()
        .links("[overload_protection]\nmax_sessions = 2\nmax_total_subscriptions = 2")
        .start()
        .await;
    let (mut one, _) = broker.stay(Version::V5, "one").await;
    let mut two = broker.join(Version::V311, "two").await;
    for version in VERSIONS {
        assert_eq!(answer(&broker, &hello(version, "three")).await, refused(version, 0x97));
    }
    assert_eq!(broker.metric("tombolo_connections_rejected_total{reason=\"quota\"}"), 3);
    assert_eq!(one.subscribe("a", Q1).await, 1);
    assert_eq!(two.subscribe("$share/g/a", Q1).await, 1);
    assert_eq!(one.subscribe("b", Q1).await, 0x97);
    assert_eq!(two.subscribe("b", Q1).await, 0x80);
    assert_eq!(one.subscribe("a", Q0).await, 0, "replaced");
    one.vanish().await;
    let (mut one, present) = broker.stay(Version::V5, "one").await;
    assert!(present, "who has a session comes back to it");
    one.unsubscribe(&["a"]).await;
    assert_eq!(two.subscribe("b", Q1).await, 1);
    two.leave().await;
    broker.until_metric("tombolo_sessions", 1).await;
    assert_eq!(answer(&broker, &hello(Version::V5, "three")).await, Got::ConnAck(false, 0));
}
