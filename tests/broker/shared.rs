//! Shared Subscriptions (section 4.8.2).

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::broker;
use crate::harness::message;
use crate::harness::options;

#[tokio::test]
async fn members_take_turns_and_groups_each_get_a_copy() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut one, mut two) = (broker.join(Version::V5, "1").await, broker.join(Version::V311, "2").await);
    let (mut other, mut plain) = (broker.join(Version::V5, "3").await, broker.join(Version::V5, "4").await);
    one.subscribe_as(&[("$share/g/s/#", options(Q1))], Some(5)).await;
    two.subscribe("$share/g/s/#", Q1).await;
    other.subscribe("$share/h/s/+", Q1).await;
    plain.subscribe("s/t", Q1).await;
    for n in 0..10 {
        assert_eq!(publisher.publish("s/t", n.to_string().as_bytes(), Q1).await, 0);
    }
    let mine = one.receive_texts(5).await;
    let theirs = two.receive_texts(5).await;
    one.quiet().await;
    two.quiet().await;
    let mut all = [mine, theirs].concat();
    all.sort();
    assert_eq!(all, crate::publish::numbers(10), "[MQTT-4.8.2-4]");
    assert_eq!(other.receive_texts(10).await, crate::publish::numbers(10));
    assert_eq!(plain.receive_texts(10).await, crate::publish::numbers(10));
    assert_eq!(broker.metric("tombolo_shared_subscriptions"), 3);
}

#[tokio::test]
async fn a_member_that_is_away_gets_it_only_if_nobody_is_there() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("$share/g/t", Q1).await;
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    let mut here = broker.join(Version::V5, "here").await;
    here.subscribe("$share/g/t", Q1).await;
    for n in 0..4 {
        publisher.publish("t", n.to_string().as_bytes(), Q1).await;
    }
    assert_eq!(here.receive_texts(4).await, crate::publish::numbers(4));
    here.leave().await;
    broker.until_metric("tombolo_sessions", 2).await;
    assert_eq!(publisher.publish("t", b"kept", Q1).await, 0);
    let (mut away, present) = broker.stay(Version::V5, "away").await;
    assert!(present);
    assert_eq!(away.receive().await.text(), "kept");
}

#[tokio::test]
async fn they_get_no_retained_messages_and_no_no_local() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.publish_as(Publish { retain: true, qos: Q1, ..message("t", b"kept") }).await;
    client.subscribe("$share/g/t", Q0).await;
    client.quiet().await;
    let no_local = SubscriptionOptions { no_local: true, ..options(Q0) };
    let packet_id = client.fresh_id();
    // The encoder refuses to say it: [MQTT-3.8.3-4].
    let subscribe = Subscribe {
        packet_id,
        properties: Properties::EMPTY,
        filters: [SubscribeFilter { filter: "$share/g/t", options: options(Q0) }].into_iter().collect(),
    };
    let mut bytes = client.encoded(&Packet::Subscribe(subscribe));
    *bytes.last_mut().unwrap() = 0b100;
    assert!(no_local.no_local);
    client.write(&bytes).await;
    client.refused(0x82).await;
}

#[tokio::test]
async fn leaving_a_group_is_by_its_whole_name() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("$share/g/t", Q0).await;
    assert_eq!(client.unsubscribe(&["t", "$share/h/t", "$share/g/t"]).await, [0x11, 0x11, 0]);
    assert_eq!(client.publish("t", b"", Q1).await, 0x10);
}
