//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11, 4.7).

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::RetainHandling;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::message;
use crate::harness::options;

#[tokio::test]
async fn wildcards_match_as_the_standard_says() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let cases: &[(&str, &[&str])] = &[
        ("sport/tennis/#", &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"]),
        ("sport/+", &["sport/", "sport/tennis", "sport/x"]),
        ("+/+", &["sport/", "sport/tennis", "sport/x", "/finance"]),
        ("/+", &["/finance"]),
        ("#", &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b", "sport/", "sport/x", "/finance", "a"]),
        ("$own/#", &["$own/a"]),
    ];
    let topics = [
        "sport/tennis",
        "sport/tennis/a",
        "sport/tennis/a/b",
        "sport/",
        "sport/x",
        "/finance",
        "a",
        "$own/a",
    ];
    for (filter, expected) in cases {
        assert_eq!(client.subscribe(filter, Q1).await, 1);
        for topic in topics {
            let matched = expected.contains(&topic);
            let answer = client.publish(topic, b"", Q1).await;
            assert_eq!(answer, if matched { 0 } else { 0x10 }, "{filter} and {topic}");
            if matched {
                assert_eq!(client.receive().await.topic, topic);
            }
        }
        assert_eq!(client.unsubscribe(&[filter]).await, [0]);
    }
}

#[tokio::test]
async fn filters_that_are_none_are_refused_one_by_one() {
    let broker = broker().await;
    let filters = ["a/#/b", "a#", "a+/b", "", "$share//a", "$share/g", "$share/g+/a", "good/#"];
    let list: Vec<_> = filters.iter().map(|filter| (*filter, options(Q1))).collect();
    for (version, refused) in [(Version::V5, 0x8F), (Version::V311, 0x80)] {
        let mut client = broker.join(version, "c").await;
        let reasons = client.subscribe_as(&list[..3], None).await;
        assert_eq!(reasons, [refused; 3], "{version:?}");
        let reasons = client.subscribe_as(&list[4..], None).await;
        assert_eq!(reasons, [refused, refused, refused, 1], "{version:?}");
        assert_eq!(client.publish("good/x", b"", Q1).await, 0);
        assert_eq!(client.receive().await.topic, "good/x");
    }
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe_as(&[("a/#", options(Q0))], Some(7)).await;
    client.subscribe_as(&[("a/+", options(Q2))], Some(9)).await;
    client.subscribe_as(&[("a/b", options(Q1))], None).await;
    client.publish("a/b", b"x", Q2).await;
    let got = client.receive().await;
    assert_eq!(got.qos, Q2, "[MQTT-3.3.4-2]");
    let mut ids: Vec<_> = got.properties().subscription_identifiers().collect();
    ids.sort_unstable();
    assert_eq!(ids, [7, 9], "[MQTT-3.3.4-3], [MQTT-3.3.4-4]");
    client.quiet().await;

    assert_eq!(client.unsubscribe(&["a/+", "a/#", "none", "a#"]).await, [0, 0, 0x11, 0x8F]);
    client.publish("a/b", b"x", Q2).await;
    let got = client.receive().await;
    assert_eq!((got.qos, got.properties().subscription_identifiers().count()), (Q1, 0));
}

#[tokio::test]
async fn a_second_subscribe_replaces_the_first() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe_as(&[("t", options(Q2))], Some(1)).await;
    client.subscribe_as(&[("t", options(Q0))], Some(2)).await;
    client.publish("t", b"x", Q2).await;
    let got = client.receive().await;
    assert_eq!(got.qos, Q0, "[MQTT-3.8.4-3]");
    assert_eq!(got.properties().subscription_identifiers().collect::<Vec<_>>(), [2]);
    client.quiet().await;
    assert_eq!(broker.metric("tombolo_subscriptions"), 1);
}

#[tokio::test]
async fn no_local_and_retain_as_published() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let mut other = broker.join(Version::V5, "o").await;
    let no_local = SubscriptionOptions { no_local: true, ..options(Q1) };
    let as_published = SubscriptionOptions { retain_as_published: true, ..options(Q1) };
    client.subscribe_as(&[("n", no_local), ("r", as_published), ("p", options(Q1))], None).await;
    client.publish("n", b"mine", Q1).await;
    client.quiet().await;
    other.publish("n", b"theirs", Q1).await;
    assert_eq!(client.receive().await.text(), "theirs", "[MQTT-3.8.3-3]");
    for (topic, retain) in [("r", true), ("p", false)] {
        other.publish_as(Publish { retain: true, qos: Q1, ..message(topic, b"x") }).await;
        assert_eq!(client.receive().await.retain, retain, "[MQTT-3.3.1-12], [MQTT-3.3.1-13]");
    }
}

#[tokio::test]
async fn retain_handling() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.publish_as(Publish { retain: true, qos: Q1, ..message("t", b"kept") }).await;
    let with = |retain_handling| SubscriptionOptions { retain_handling, ..options(Q1) };
    client.subscribe_as(&[("t", with(RetainHandling::DoNotSend))], None).await;
    client.quiet().await;
    client.subscribe_as(&[("t", with(RetainHandling::SendIfNew))], None).await;
    client.quiet().await;
    client.unsubscribe(&["t"]).await;
    client.subscribe_as(&[("t", with(RetainHandling::SendIfNew))], None).await;
    assert!(client.receive().await.retain, "[MQTT-3.3.1-10]");
    client.subscribe_as(&[("t", with(RetainHandling::SendAtSubscribe))], None).await;
    assert!(client.receive().await.retain, "[MQTT-3.3.1-9]");
    client.quiet().await;
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name() {
    let broker =
        Setup::new().mqtt("wildcard_subscription = false\nshared_subscription = false").start().await;
    for (version, wildcard, shared) in [(Version::V5, 0xA2, 0x9E), (Version::V311, 0x80, 0x80)] {
        let mut client = broker.join(version, "c").await;
        let list = [("a/+", options(Q0)), ("$share/g/a", options(Q0)), ("a/b", options(Q0))];
        assert_eq!(client.subscribe_as(&list, None).await, [wildcard, shared, 0]);
    }
}

#[tokio::test]
async fn granted_qos_is_lowered_to_the_maximum() {
    let broker = Setup::new().mqtt("max_qos_allowed = 1").start().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        assert_eq!(client.subscribe("t", Q2).await, 1);
        client.publish("t", b"", Q1).await;
        assert_eq!(client.receive().await.qos, Q1);
        let packet_id = Some(client.fresh_id());
        client.send(&Packet::Publish(Publish { qos: Q2, packet_id, ..message("t", b"") })).await;
        client.refused(0x9B).await;
    }
}

#[tokio::test]
async fn unsubscribe_stops_delivery_and_is_answered_in_order() {
    let broker = broker().await;
    for (version, reasons) in [(Version::V5, vec![0, 0x11]), (Version::V311, vec![])] {
        let mut client = broker.join(version, "c").await;
        client.subscribe("t", Q0).await;
        assert_eq!(client.unsubscribe(&["t", "t"]).await, reasons);
        client.publish("t", b"", Q0).await;
        client.quiet().await;
    }
    broker.until_metric("tombolo_subscriptions", 0).await;
}

#[tokio::test]
async fn a_message_published_behind_subscribe_is_delivered() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let subscribe = [0x82, 7, 0, 1, 0, 0, 1, b't', 0];
    let mut bytes = subscribe.to_vec();
    bytes.extend_from_slice(&client.encoded(&Packet::Publish(message("t", b"x"))));
    client.write(&bytes).await;
    assert_eq!(client.next().await, Got::SubAck(1, vec![0]));
    assert_eq!(client.take().await.text(), "x");
}
