//! Topic Aliases that the Server sets towards a client (section 3.3.2.3.4).

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;

use crate::harness::Client;
use crate::harness::Message;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::options;
use crate::harness::properties;

async fn allowing(broker: &Running, id: &str, maximum: u16, clean_start: bool) -> Client {
    let list = properties(&[Property::TopicAliasMaximum(maximum), Property::SessionExpiryInterval(1_000)]);
    let asked = Connect { clean_start, properties: list.as_properties(), ..hello(Version::V5, id) };
    broker.try_stay(&asked).await.0
}

fn alias(message: &Message) -> Option<u16> {
    let list = Properties::parse(&message.properties, PropertyContext::Publish).unwrap();
    list.topic_alias().map(u16::from)
}

fn shape(message: &Message) -> (&str, Option<u16>) {
    (&message.topic, alias(message))
}

#[tokio::test]
async fn a_topic_that_comes_again_gets_an_alias() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut plain = broker.join(Version::V5, "plain").await;
    let mut client = allowing(&broker, "c", 10, true).await;
    for subscriber in [&mut client, &mut plain] {
        subscriber.subscribe("#", Q1).await;
    }
    for qos in [Q0, Q1, Q1, Q0] {
        publisher.publish("site/1/temperature", b"21", qos).await;
    }
    let expected =
        [("site/1/temperature", None), ("site/1/temperature", Some(1)), ("", Some(1)), ("", Some(1))];
    for expected in expected {
        let message = client.receive().await;
        assert_eq!(shape(&message), expected);
        assert_eq!(message.text(), "21");
        assert_eq!(shape(&plain.receive().await), ("site/1/temperature", None), "[MQTT-3.1.2-27]");
    }
    for _ in 0..3 {
        publisher.publish("a/b", b"", Q0).await;
        assert_eq!(shape(&client.receive().await), ("a/b", None), "not worth it");
    }
}

#[tokio::test]
async fn aliases_stay_within_the_maximum() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut client = allowing(&broker, "c", 2, true).await;
    client.subscribe_as(&[("topic/#", options(Q1))], Some(7)).await;
    let mut known = std::collections::HashMap::new();
    let mut used = 0;
    for n in 0..60 {
        let topic = format!("topic/{}", n % 3);
        publisher.publish(&topic, b"", Q0).await;
        let message = client.receive().await;
        match shape(&message) {
            ("", Some(alias)) => {
                used += 1;
                assert_eq!(known.get(&alias), Some(&topic));
            }
            (written, alias) => {
                assert_eq!(written, topic);
                assert!(alias.is_none_or(|alias| alias <= 2), "[MQTT-3.1.2-26]");
                known.extend(alias.map(|alias| (alias, topic)));
            }
        }
        let list = Properties::parse(&message.properties, PropertyContext::Publish).unwrap();
        assert_eq!(list.subscription_identifiers().collect::<Vec<_>>(), [7]);
    }
    assert!(used > 30, "{used}");
}

#[tokio::test]
async fn a_new_connection_knows_no_alias_of_the_old_one() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut client = allowing(&broker, "c", 10, true).await;
    client.subscribe("long/topic", Q1).await;
    for _ in 0..3 {
        publisher.publish("long/topic", b"", Q1).await;
    }
    for expected in [None, Some(1), Some(1)] {
        assert_eq!(alias(&client.take().await), expected);
    }
    client.vanish().await;
    let mut client = allowing(&broker, "c", 10, false).await;
    for _ in 0..3 {
        let message = client.take().await;
        assert!(message.dup);
        assert_eq!(shape(&message), ("long/topic", None), "[MQTT-3.3.2-7]");
    }
}
