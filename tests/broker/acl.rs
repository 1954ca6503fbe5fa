//! What a denial does to a connection (`acl-language.md` section 6, B1 to B6 and B9). Which rule decides what is
//! tested with the rules themselves.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::options;
use crate::harness::properties;

const RULES: &str = "{deny, all, all, [\"no/#\"]}.\n{allow, all}.";
const DENIED: &str = "tombolo_acl_denied_total{action=\"publish\",reason=\"rule\"}";

async fn ruled(authorization: &str) -> Running {
    Setup::new().acl(RULES).authorization(authorization).start().await
}

#[tokio::test]
async fn b1_a_denied_publish_is_answered_by_its_qos() {
    let broker = ruled("").await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("yes/#", Q0).await;
    for (version, answer) in [(Version::V5, 0x87), (Version::V311, 0), (Version::V31, 0)] {
        let mut client = broker.join(version, "c").await;
        client.publish("no/1", b"x", Q0).await;
        assert_eq!(client.publish("no/1", b"x", Q1).await, answer, "{version:?}");
        assert_eq!(client.publish("no/1", b"x", Q2).await, answer, "{version:?}");
        // The identifier of a refused message is free: the same one carries the next.
        let next = Publish { qos: Q2, packet_id: Some(crate::harness::id(2)), ..message("yes/1", b"x") };
        assert_eq!(client.publish_as(next).await, 0);
        assert_eq!(watcher.take().await.topic, "yes/1");
        client.quiet().await;
    }
    assert_eq!(broker.metric(DENIED), 9, "each QoS is asked for once per connection");
    broker.until_metric("tombolo_messages_dropped_total{reason=\"acl\"}", 9).await;
}

#[tokio::test]
async fn b2_and_b4_deny_action_disconnect() {
    let broker = ruled("deny_action = \"disconnect\"").await;
    for version in VERSIONS {
        for qos in [Q0, Q1, Q2] {
            let mut client = broker.join(version, "c").await;
            let packet_id = (qos != Q0).then(|| client.fresh_id());
            client.send(&Packet::Publish(Publish { qos, packet_id, ..message("no/1", b"") })).await;
            client.refused(0x87).await;
        }
        let mut client = broker.join(version, "c").await;
        client
            .write(&match version {
                Version::V5 => vec![0x82, 14, 0, 1, 0, 0, 3, b'y', b'e', b's', 0, 0, 2, b'n', b'o', 0],
                _ => vec![0x82, 13, 0, 1, 0, 3, b'y', b'e', b's', 0, 0, 2, b'n', b'o', 0],
            })
            .await;
        client.refused(0x87).await;
    }
    broker.until_metric("tombolo_disconnects_total{reason=\"not_authorized\"}", 12).await;
}

#[tokio::test]
async fn b3_a_denied_filter_does_not_touch_its_neighbours() {
    let broker = ruled("").await;
    // A SUBACK of 3.1 has no failure: what is denied is granted, and gets nothing.
    let denials = [(Version::V5, [0x87; 3]), (Version::V311, [0x80; 3]), (Version::V31, [1, 1, 0])];
    for (version, denied) in denials {
        let mut client = broker.join(version, "c").await;
        let list = [
            ("yes", options(Q1)),
            ("no/1", options(Q1)),
            ("$share/g/no/1", options(Q1)),
            ("+/1", options(Q0)),
        ];
        // "+/1" reaches into "no/#": in strict mode a deny that intersects is enough.
        assert_eq!(client.subscribe_as(&list, None).await, [&[1][..], &denied].concat());
        client.publish("yes", b"x", Q0).await;
        assert_eq!(client.receive().await.topic, "yes");
        client.quiet().await;
    }
    assert_eq!(broker.metric("tombolo_subscriptions"), 1);
}

#[tokio::test]
async fn b5_and_b6_nothing_of_link_is_published_or_kept_for_an_application() {
    let broker = broker().await;
    for (id, retain) in [("a", false), ("b", true)] {
        let will = Will {
            qos: Q1,
            retain,
            properties: Properties::EMPTY,
            topic: "$LINK/cluster/route/A",
            payload: b"x",
        };
        let (client, _) = broker.try_stay(&Connect { will: Some(will), ..hello(Version::V5, id) }).await;
        client.vanish().await;
    }
    let mut client = broker.join(Version::V5, "c").await;
    let retained = Publish { retain: true, qos: Q1, ..message("$LINK/cluster/msg/A", b"x") };
    assert_eq!(client.publish_as(retained).await, 0x87);
    let denied = "tombolo_acl_denied_total{action=\"publish\",reason=\"confined_client\"}";
    broker.until_metric(denied, 3).await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
}

#[tokio::test]
async fn b9_an_alias_stands_for_its_topic() {
    let broker = ruled("").await;
    let mut client = broker.join(Version::V5, "c").await;
    let alias = properties(&[Property::TopicAlias(1)]);
    for topic in ["no/1", ""] {
        let publish = Publish { qos: Q1, properties: alias.as_properties(), ..message(topic, b"x") };
        assert_eq!(client.publish_as(publish).await, 0x87);
    }
}

#[tokio::test]
async fn a_rule_may_ask_for_qos_and_retain() {
    let broker = Setup::new()
        .acl("{deny, all, {publish, [{qos, [1, 2]}, {retain, true}]}, [\"t\"]}.\n{allow, all}.")
        .start()
        .await;
    let mut client = broker.join(Version::V5, "c").await;
    for (qos, retain, answer) in [(Q1, true, 0x87), (Q1, false, 0x10), (Q2, true, 0x87), (Q2, false, 0x10)] {
        assert_eq!(client.publish_as(Publish { qos, retain, ..message("t", b"x") }).await, answer);
    }
    client.publish_as(Publish { retain: true, ..message("t", b"x") }).await;
    client.quiet().await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 1);
}

#[tokio::test]
async fn no_rule_and_no_match() {
    for (no_match, answer) in [("deny", 0x87), ("allow", 0x10)] {
        let broker = Setup::new().acl("").authorization(&format!("no_match = \"{no_match}\"")).start().await;
        let mut client = broker.join(Version::V5, "c").await;
        assert_eq!(client.publish("t", b"", Q1).await, answer);
    }
}

#[tokio::test]
async fn who_is_asked_for() {
    let broker = Setup::new()
        .acl(
            "{allow, {clientid, \"c\"}, publish, [\"${clientid}/out\"]}.\n\
             {allow, {ipaddr, \"127.0.0.0/8\"}, subscribe, [\"near/#\"]}.\n\
             {allow, {listener, \"tcp:default\"}, subscribe, [\"here\"]}.\n{deny, all}.",
        )
        .start()
        .await;
    let mut client = broker.join(Version::V5, "c").await;
    assert_eq!(client.publish("c/out", b"", Q1).await, 0x10);
    assert_eq!(client.publish("d/out", b"", Q1).await, 0x87);
    assert_eq!(client.subscribe("near/1", Q0).await, 0);
    assert_eq!(client.subscribe("here", Q0).await, 0);
    assert_eq!(client.subscribe("there", Q0).await, 0x87);
    // A Client Identifier is no pattern (class F).
    let mut odd = broker.join(Version::V5, "+").await;
    assert_eq!(odd.publish("c/out", b"", Q1).await, 0x87);
    odd.quiet().await;
}

#[tokio::test]
async fn b10_delayed_topics_that_make_no_sense_are_refused() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    for (topic, reason) in [("$delayed/x/y", 0x90), ("$delayed/5", 0x87), ("$delayed/5/$LINK/a", 0x87)] {
        for qos in [Q1, Q2] {
            assert_eq!(client.publish(topic, b"", qos).await, reason, "{topic}");
        }
    }
    assert_eq!(client.subscribe("$exclusive/t", Q1).await, 0x8F, "switched off");
}
