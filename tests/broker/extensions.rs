//! EMQX's extensions: `$queue/`, `$exclusive/` and `$delayed/`.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;

#[tokio::test]
async fn a_queue_is_the_shared_group_of_that_name() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V311, "p").await;
    let (mut one, mut two) = (broker.join(Version::V5, "1").await, broker.join(Version::V311, "2").await);
    assert_eq!(one.subscribe("$queue/jobs/#", Q1).await, 1);
    assert_eq!(one.subscribe("$share/$queue/jobs/#", Q1).await, 1, "the same subscription");
    assert_eq!(two.subscribe("$queue/jobs/#", Q1).await, 1);
    assert_eq!(broker.metric("tombolo_shared_subscriptions"), 2);
    for n in 0..6 {
        publisher.publish("jobs/x", n.to_string().as_bytes(), Q1).await;
    }
    let mut all = [one.receive_texts(3).await, two.receive_texts(3).await].concat();
    all.sort();
    assert_eq!(all, crate::publish::numbers(6));
    assert_eq!(one.unsubscribe(&["jobs/#", "$queue/jobs/#", "$queue/jobs/#"]).await, [0x11, 0, 0x11]);
    publisher.publish("jobs/x", b"last", Q1).await;
    assert_eq!(two.receive().await.text(), "last");
    one.quiet().await;
}

#[tokio::test]
async fn queues_are_shared_subscriptions_for_every_setting() {
    let broker = Setup::new().mqtt("shared_subscription = false").start().await;
    let mut client = broker.join(Version::V5, "c").await;
    assert_eq!(client.subscribe("$queue/t", Q1).await, 0x9E);
    for filter in ["$queue/", "$queue/$share/g/t", "$share/g/$exclusive/t"] {
        assert_eq!(client.subscribe(filter, Q1).await, 0x8F, "{filter}");
    }
}

#[tokio::test]
async fn one_client_at_a_time_has_an_exclusive_subscription() {
    let broker = Setup::new().mqtt("exclusive_subscription = true").start().await;
    let (mut one, mut two) = (broker.join(Version::V5, "1").await, broker.join(Version::V5, "2").await);
    one.publish_as(Publish { retain: true, qos: Q1, ..message("t", b"kept") }).await;
    assert_eq!(one.subscribe("$exclusive/t", Q1).await, 1);
    assert_eq!(one.receive().await.text(), "kept");
    assert_eq!(one.subscribe("$exclusive/t", Q0).await, 0, "its own once more");
    assert_eq!(one.receive().await.text(), "kept");
    assert_eq!(two.subscribe("$exclusive/t", Q1).await, 0x97);
    assert_eq!(two.subscribe("$exclusive/u", Q1).await, 1);
    two.publish("t", b"first", Q1).await;
    assert_eq!(one.receive().await.text(), "first");

    assert_eq!(one.unsubscribe(&["$exclusive/t", "$exclusive/t"]).await, [0, 0x11]);
    assert_eq!(two.subscribe("$exclusive/t", Q1).await, 1);
    assert_eq!(two.receive().await.text(), "kept");
    assert_eq!(one.subscribe("$exclusive/t", Q1).await, 0x97);
    assert_eq!(two.subscribe("t", Q1).await, 1, "takes the place of the exclusive one: [MQTT-3.8.4-3]");
    assert_eq!(two.receive().await.text(), "kept");
    assert_eq!(one.subscribe("$exclusive/t", Q1).await, 1);
    assert_eq!(one.receive().await.text(), "kept");
    one.leave().await;
    broker.until_metric("tombolo_sessions", 1).await;
    assert_eq!(two.subscribe("$exclusive/t", Q1).await, 1, "free with the end of its session");
}

#[tokio::test]
async fn a_delayed_message_comes_later() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let text = properties(&[Property::ContentType("text")]);
    for (qos, payload) in [(Q0, b"a"), (Q1, b"b"), (Q2, b"c")] {
        let publish = Publish { qos, properties: text.as_properties(), ..message("$delayed/1/t", payload) };
        assert_eq!(client.publish_as(publish).await, 0);
    }
    client.publish("t", b"now", Q1).await;
    assert_eq!(client.receive_texts(1).await, ["now"]);
    for (qos, payload) in [(Q0, "a"), (Q1, "b"), (Q2, "c")] {
        let message = client.receive().await;
        assert_eq!((message.topic.as_str(), message.text(), message.qos), ("t", payload, qos));
        assert_eq!(message.properties().content_type(), Some("text"));
    }
}

#[tokio::test]
async fn a_delayed_message_is_retained_when_it_is_published() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let publish = Publish { retain: true, qos: Q1, ..message("$delayed/0/t", b"kept") };
    assert_eq!(client.publish_as(publish).await, 0);
    broker.until_metric("tombolo_retained_messages", 1).await;
    client.subscribe("t", Q1).await;
    let message = client.receive().await;
    assert_eq!((message.topic.as_str(), message.text(), message.retain), ("t", "kept", true));
}

#[tokio::test]
async fn the_acl_is_asked_about_the_inner_topic_both_times() {
    let broker = Setup::new().acl("{deny, all, publish, [\"no\"]}. {allow, all}.").start().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("#", Q1).await;
    assert_eq!(client.publish("$delayed/0/no", b"", Q1).await, 0x87);
    assert_eq!(client.publish("$delayed/0/yes", b"", Q1).await, 0);
    assert_eq!(client.receive().await.topic, "yes");
    assert_eq!(client.publish("$delayed/0/$LINK/cluster/route/A", b"", Q1).await, 0x87);
}

#[tokio::test]
async fn a_will_may_be_delayed_that_way_too() {
    let broker = broker().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("gone", Q1).await;
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::EMPTY,
        topic: "$delayed/0/gone",
        payload: b"away",
    };
    let asked = Connect { will: Some(will), ..hello(Version::V311, "c") };
    let (client, _) = broker.try_stay(&asked).await;
    client.vanish().await;
    assert_eq!(watcher.receive().await.text(), "away");
}
