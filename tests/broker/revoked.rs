//! The ACL holds at every delivery, not only at PUBLISH and SUBSCRIBE (`reliability.md` class G): what a reload takes
//! the right to is not delivered any more, wherever it waited. Live subscriptions are in `reload.rs`, links in
//! `tests/linked/revoked.rs`.

use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;

const DROPPED: &str = "tombolo_messages_dropped_total{reason=\"acl\"}";

/// Denies this, and goes on with what the broker of these tests allows.
async fn deny(broker: &mut Running, rule: &str) {
    let rules = format!("{{deny, {rule}}}.\n{{allow, all}}.");
    broker.reload(|setup| setup.acl(&rules)).await.unwrap();
}

async fn gone(broker: &Running, connected: u64) {
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", connected).await;
}

#[tokio::test]
async fn retained_messages_under_way_stop() {
    let mut broker = Setup::new().mqtt("max_inflight = 1").start().await;
    let mut client = broker.join(Version::V5, "c").await;
    for n in 0..200 {
        let topic = format!("many/{n}");
        client.publish_as(Publish { retain: true, qos: Q1, ..message(&topic, b"x") }).await;
    }
    client.subscribe("many/#", Q1).await;
    let first = client.take().await;
    deny(&mut broker, "all, subscribe, [\"many/#\"]").await;
    client.ack(PacketType::PubAck, first.packet_id.unwrap(), ReasonCode::Success).await;
    client.quiet().await;
    // Nor do they come to who subscribes now.
    assert_eq!(client.subscribe("many/1", Q1).await, 0x87);
    client.quiet().await;
}

#[tokio::test]
async fn retained_messages_of_who_may_not_publish_them_any_more_are_withheld() {
    let mut broker = broker().await;
    for id in ["ada", "eve"] {
        let mut publisher = broker.join(Version::V5, id).await;
        let topic = format!("state/{id}");
        publisher.publish_as(Publish { retain: true, qos: Q1, ..message(&topic, b"x") }).await;
        publisher.vanish().await;
    }
    deny(&mut broker, "{clientid, \"eve\"}, publish, all").await;
    broker.until_metric("tombolo_retained_withheld_messages", 1).await;
    let mut reader = broker.join(Version::V5, "r").await;
    reader.subscribe("state/#", Q1).await;
    assert_eq!(reader.take().await.topic, "state/ada");
    reader.quiet().await;
    reader.subscribe("state/eve", Q1).await;
    reader.quiet().await;
    // Nothing is lost: when the rule goes, it is there again.
    broker.reload(|setup| setup.acl("{allow, all}.")).await.unwrap();
    reader.subscribe("state/eve", Q1).await;
    assert_eq!(reader.take().await.topic, "state/eve");
    assert_eq!(broker.metric("tombolo_retained_withheld_messages"), 0);
}

#[tokio::test]
async fn queued_messages_are_withheld_and_those_of_other_subscriptions_are_not() {
    let mut broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    for filter in ["no/#", "no/kept", "yes/#"] {
        away.subscribe(filter, Q2).await;
    }
    away.vanish().await;
    gone(&broker, 1).await;
    for (topic, qos) in [("no/1", Q0), ("no/kept", Q1), ("no/2", Q1), ("yes/1", Q2), ("no/3", Q2)] {
        publisher.publish(topic, topic.as_bytes(), qos).await;
    }
    publisher.quiet().await; // its QoS 0 message was delivered
    deny(&mut broker, "all, subscribe, [{eq, \"no/#\"}]").await;
    broker.until_metric(DROPPED, 3).await;
    let (mut back, present) = broker.stay(Version::V5, "away").await;
    assert!(present);
    assert_eq!(back.receive_texts(2).await, ["no/kept", "yes/1"]);
    back.quiet().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_not_sent_again() {
    let mut broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("no/#", Q2).await;
    away.subscribe("yes", Q1).await;
    for (topic, qos) in [("no/1", Q1), ("yes", Q1), ("no/2", Q2)] {
        publisher.publish(topic, topic.as_bytes(), qos).await;
        away.take().await;
    }
    away.vanish().await;
    gone(&broker, 1).await;
    deny(&mut broker, "{clientid, \"away\"}, subscribe, [\"no/#\"]").await;
    let (mut back, _) = broker.stay(Version::V5, "away").await;
    let again = back.receive().await;
    assert_eq!((again.text(), again.dup), ("yes", true));
    back.quiet().await;
    assert_eq!(broker.metric("tombolo_inflight_messages"), 0, "their identifiers are free");
    broker.until_metric(DROPPED, 2).await;
}

#[tokio::test]
async fn what_waits_for_a_member_of_a_group_goes_to_one_that_has_the_right() {
    let mut broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("$share/g/t", Q1).await;
    away.vanish().await;
    gone(&broker, 1).await;
    for payload in ["1", "2"] {
        publisher.publish("t", payload.as_bytes(), Q1).await;
    }
    let mut here = broker.join(Version::V5, "here").await;
    here.subscribe("$share/g/t", Q1).await;
    here.quiet().await;
    deny(&mut broker, "{clientid, \"away\"}, subscribe, [\"t\"]").await;
    assert_eq!(here.receive_texts(2).await, ["1", "2"]);
    publisher.publish("t", b"3", Q1).await;
    assert_eq!(here.receive().await.text(), "3");
    let (mut back, _) = broker.stay(Version::V5, "away").await;
    back.quiet().await;
}

#[tokio::test]
async fn a_will_and_a_delayed_publish_are_asked_about_when_they_are_due() {
    let mut broker = broker().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("no/#", Q1).await;
    let delay = properties(&[Property::WillDelayInterval(1)]);
    let expiry = properties(&[Property::SessionExpiryInterval(100)]);
    let will =
        Will { qos: Q1, retain: true, properties: delay.as_properties(), topic: "no/will", payload: b"x" };
    let asked = tombolo::mqtt::packet::Connect {
        clean_start: false,
        properties: expiry.as_properties(),
        will: Some(will),
        ..hello(Version::V5, "c")
    };
    let (mut client, _) = broker.try_stay(&asked).await;
    assert_eq!(client.publish("$delayed/1/no/delayed", b"x", Q1).await, 0);
    client.vanish().await;
    gone(&broker, 1).await;
    deny(&mut broker, "{clientid, \"c\"}, publish, [\"no/#\"]").await;
    broker.until_metric(DROPPED, 2).await;
    watcher.quiet().await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
}

#[tokio::test]
async fn a_session_that_is_resumed_elsewhere_keeps_only_what_is_granted_there() {
    let one =
        |name: &str| format!("[[listeners]]\nname = \"{name}\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n");
    let broker = Setup::new()
        .listeners(&(one("default") + &one("outside")))
        .acl("{deny, {listener, \"tcp:outside\"}, subscribe, [\"inside/#\"]}.\n{allow, all}.")
        .start()
        .await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("inside/1", Q1).await;
    client.subscribe("both", Q1).await;
    client.vanish().await;
    gone(&broker, 1).await;
    for topic in ["inside/1", "both"] {
        publisher.publish(topic, topic.as_bytes(), Q1).await;
    }
    let mut outside = broker.open_at("tcp:outside").await;
    let expiry = properties(&[Property::SessionExpiryInterval(100)]);
    let asked = tombolo::mqtt::packet::Connect {
        clean_start: false,
        properties: expiry.as_properties(),
        ..hello(Version::V5, "c")
    };
    assert_eq!(outside.connect(&asked).await, crate::harness::Got::ConnAck(true, 0));
    assert_eq!(outside.receive().await.text(), "both");
    assert_eq!(publisher.publish("inside/1", b"x", Q1).await, 0x10, "nobody has it");
    outside.quiet().await;
}

/// Ten thousand rules are read and compared aside: meanwhile clients are served.
#[tokio::test]
async fn a_large_file_is_swapped_while_clients_publish() {
    let mut broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut subscriber = broker.join(Version::V5, "s").await;
    for n in 0..50 {
        subscriber.subscribe(&format!("kept/{n}"), Q0).await;
    }
    let rules: String = (0..9_990)
        .map(|n| format!("{{allow, {{clientid, \"c{n}\"}}, all, [\"t/{n}/#\"]}}.\n"))
        .chain([
            "{allow, {clientid, \"s\"}, subscribe, [\"kept/#\"]}.\n".to_owned(),
            "{allow, {clientid, \"p\"}, publish, [\"kept/0\"]}.".to_owned(),
        ])
        .collect();
    let mut answered = 0;
    {
        let mut reload = std::pin::pin!(broker.reload(|setup| setup.acl(&rules)));
        loop {
            tokio::select! {
                biased;
                done = &mut reload => break done.unwrap(),
                answer = publisher.publish("kept/0", b"x", Q1) => {
                    assert_eq!(answer, 0);
                    answered += 1;
                }
            }
        }
    };
    assert!(answered > 0, "the publisher waited for the reload");
    assert_eq!(broker.metric("tombolo_subscriptions"), 50);
}
