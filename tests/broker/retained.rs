//! Retained messages (section 3.3.1.3).

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::message;
use crate::harness::properties;

async fn retain(client: &mut Client, topic: &str, payload: &[u8]) -> u8 {
    client.publish_as(Publish { retain: true, qos: Q1, ..message(topic, payload) }).await
}

#[tokio::test]
async fn the_last_one_is_sent_to_a_new_subscription() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        retain(&mut client, "a/1", b"first").await;
        retain(&mut client, "a/1", b"second").await;
        retain(&mut client, "a/2", b"other").await;
        for granted in [Q0, Q1, Q2] {
            assert_eq!(client.subscribe("a/+", granted).await, granted as u8);
            let mut got = [client.receive().await, client.receive().await];
            got.sort_by(|one, two| one.topic.cmp(&two.topic));
            assert_eq!([got[0].text(), got[1].text()], ["second", "other"], "[MQTT-3.3.1-5]");
            assert!(
                got.iter().all(|message| message.retain && message.qos == granted.min(Q1)),
                "[MQTT-3.3.1-8]"
            );
            client.quiet().await;
        }
        // To a subscription that exists it is an ordinary message ([MQTT-3.3.1-9] of 3.1.1).
        retain(&mut client, "a/1", b"third").await;
        assert!(!client.receive().await.retain);
    }
}

#[tokio::test]
async fn an_empty_payload_removes_it() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    retain(&mut client, "t", b"x").await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 1);
    retain(&mut client, "t", b"").await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
    client.subscribe("t", Q0).await;
    client.quiet().await;
    // It is itself delivered like any other message.
    retain(&mut client, "t", b"").await;
    assert_eq!(client.receive().await.payload, b"");
    assert_eq!(broker.metric("tombolo_retained_messages"), 0, "[MQTT-3.3.1-6]");
}

#[tokio::test]
async fn many_come_slowly_to_a_small_window_and_once_each() {
    let broker = Setup::new().mqtt("max_inflight = 3\nmax_mqueue_len = 5").start().await;
    let mut client = broker.join(Version::V5, "c").await;
    for n in 0..300 {
        retain(&mut client, &format!("many/{n}"), n.to_string().as_bytes()).await;
    }
    client.subscribe("many/#", Q2).await;
    let mut got: Vec<u32> =
        client.receive_texts(300).await.iter().map(|text| text.parse().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..300).collect::<Vec<_>>(), "none is lost to the queue's bound");
    client.quiet().await;
}

#[tokio::test]
async fn identifiers_come_with_them_and_dollar_topics_only_by_name() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    retain(&mut client, "$own/t", b"hidden").await;
    retain(&mut client, "t", b"shown").await;
    client.subscribe_as(&[("#", crate::harness::options(Q1))], Some(42)).await;
    let got = client.receive().await;
    assert_eq!((got.text(), got.properties().subscription_identifiers().next()), ("shown", Some(42)));
    client.quiet().await;
    client.subscribe("$own/+", Q0).await;
    assert_eq!(client.receive().await.text(), "hidden");
}

#[tokio::test]
async fn they_expire_and_count_down() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let brief = properties(&[Property::MessageExpiryInterval(0)]);
    let long = properties(&[Property::MessageExpiryInterval(100)]);
    for (topic, list) in [("brief", &brief), ("long", &long)] {
        let publish =
            Publish { retain: true, qos: Q1, properties: list.as_properties(), ..message(topic, b"x") };
        client.publish_as(publish).await;
    }
    crate::harness::a_moment().await;
    client.subscribe("+", Q0).await;
    let got = client.receive().await;
    assert_eq!(got.topic, "long");
    assert!(got.properties().message_expiry_interval().is_some_and(|left| left > 90));
    client.quiet().await;
    broker.until_metric("tombolo_retained_messages", 1).await;
}

#[tokio::test]
async fn retain_is_refused_where_it_is_off() {
    let broker = Setup::new().mqtt("retain_available = false").start().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        client.send(&Packet::Publish(Publish { retain: true, ..message("t", b"x") })).await;
        client.refused(0x9A).await;
    }
}

#[tokio::test]
async fn a_burst_of_subscriptions_gets_all_of_them() {
    let broker = Setup::new().mqtt("max_inflight = 1").start().await;
    let mut client = broker.join(Version::V311, "c").await;
    retain(&mut client, "t", b"kept").await;
    let mut bytes = Vec::new();
    for n in 1..=3_000_u16 {
        bytes.extend_from_slice(&[0x82, 6, (n >> 8) as u8, n as u8, 0, 1, b't', 1]);
    }
    client.write(&bytes).await;
    for n in 1..=3_000 {
        assert_eq!(client.seek(|got| matches!(got, Got::SubAck(..))).await, Got::SubAck(n, vec![1]));
    }
    for _ in 0..3_000 {
        assert!(client.receive().await.retain);
    }
    client.quiet().await;
}
