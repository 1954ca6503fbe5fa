//! Counters and gauges move with what they name (`observability.md`).

use tombolo::mqtt::packet::Version;
use tombolo::net::clock;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;

#[tokio::test]
async fn one_exchange_is_counted_on_both_sides() {
    let broker = broker().await;
    let mut from = broker.join(Version::V5, "f").await;
    let (mut to, _) = broker.stay(Version::V5, "t").await;
    to.subscribe("t", Q2).await;
    for qos in [Q0, Q1, Q2] {
        assert_eq!(from.publish("t", b"hello", qos).await, 0);
        to.receive().await;
    }
    from.publish_as(tombolo::mqtt::packet::Publish {
        retain: true,
        qos: Q1,
        ..crate::harness::message("kept", b"12345")
    })
    .await;
    to.quiet().await;
    from.quiet().await;
    let gauges = [
        ("connections{listener=\"tcp\"}", 2),
        ("sessions", 2),
        ("subscriptions", 1),
        ("retained_messages", 1),
        ("inflight_messages", 0),
        ("queued_messages", 0),
        ("acl_rules", 1),
    ];
    let counters = [
        ("connections_total{listener=\"tcp\"}", 2),
        ("messages_received_total{qos=\"0\"}", 1),
        ("messages_received_total{qos=\"1\"}", 2),
        ("messages_received_total{qos=\"2\"}", 1),
        ("messages_sent_total{qos=\"0\"}", 1),
        ("messages_sent_total{qos=\"1\"}", 1),
        ("messages_sent_total{qos=\"2\"}", 1),
        ("messages_dropped_total{reason=\"no_subscribers\"}", 1),
        ("packets_received_total{type=\"connect\"}", 2),
        ("packets_received_total{type=\"publish\"}", 4),
        ("packets_received_total{type=\"puback\"}", 1),
        ("packets_received_total{type=\"pubrec\"}", 1),
        ("packets_received_total{type=\"pubrel\"}", 1),
        ("packets_received_total{type=\"pubcomp\"}", 1),
        ("packets_received_total{type=\"subscribe\"}", 1),
        ("packets_received_total{type=\"pingreq\"}", 2),
        ("packets_sent_total{type=\"connack\"}", 2),
        ("packets_sent_total{type=\"publish\"}", 3),
        ("packets_sent_total{type=\"puback\"}", 2),
        ("packets_sent_total{type=\"pubrec\"}", 1),
        ("packets_sent_total{type=\"pubrel\"}", 1),
        ("packets_sent_total{type=\"pubcomp\"}", 1),
        ("packets_sent_total{type=\"suback\"}", 1),
        ("packets_sent_total{type=\"pingresp\"}", 2),
    ];
    for (name, value) in gauges.into_iter().chain(counters) {
        broker.until_metric(&format!("tombolo_{name}"), value).await;
    }
    assert!(broker.metric("tombolo_bytes_received_total") > 60);
    assert!(broker.metric("tombolo_bytes_sent_total") > 60);
    to.leave().await;
    from.leave().await;
    broker.until_metric("tombolo_disconnects_total{reason=\"normal\"}", 2).await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 0).await;
    assert_eq!(broker.metric("tombolo_sessions"), 1);
}

#[tokio::test]
async fn bytes_are_those_of_the_wire() {
    let broker = broker().await;
    let mut client = broker.join(Version::V311, "c").await;
    client.quiet().await;
    // CONNECT of 15 bytes and PINGREQ, CONNACK of 4 and PINGRESP.
    broker.until_metric("tombolo_bytes_received_total", 17).await;
    broker.until_metric("tombolo_bytes_sent_total", 6).await;
}

#[tokio::test]
async fn every_family_has_help_and_type_and_no_topic_or_identifier() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "secret-id").await;
    client.subscribe("secret-topic", Q1).await;
    client.publish("secret-topic", b"x", Q1).await;
    let text = broker.server.broker().render_metrics(clock::now());
    assert!(!text.contains("secret"));
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.len() > 15);
    for family in families {
        let name = family.split(' ').next().unwrap();
        assert!(name.starts_with("tombolo_"), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        assert_eq!(family.ends_with("counter"), name.ends_with("_total"), "{name}");
    }
}

#[tokio::test]
async fn an_unanswered_connect_is_counted_by_what_was_wrong() {
    let broker = Setup::new().authentication("allow_anonymous = false").start().await;
    let mut client = broker.open().await;
    assert_eq!(client.connect(&hello(Version::V5, "c")).await, Got::ConnAck(false, 0x87));
    drop(broker.open().await);
    let rejected = |reason: &str| format!("tombolo_connections_rejected_total{{reason=\"{reason}\"}}");
    broker.until_metric(&rejected("not_authorized"), 1).await;
    broker.until_metric(&rejected("lost"), 1).await;
    assert_eq!(broker.metric("tombolo_sessions"), 0);
}
