//! The Will (sections 3.1.2.5 and 3.1.3.2).

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::properties;

fn will<'a>(properties: &'a PropertiesBuf, topic: &'a str) -> Will<'a> {
    Will { qos: Q1, retain: false, properties: properties.as_properties(), topic, payload: b"gone" }
}

async fn watcher(broker: &Running, filter: &str) -> Client {
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe(filter, Q2).await;
    watcher
}

/// A client "c" with this Will, and a session that stays if `expiry` is not 0.
async fn client(broker: &Running, version: Version, will: Will<'_>, expiry: u32) -> Client {
    client_as(broker, "c", version, will, expiry).await
}

async fn client_as(broker: &Running, id: &str, version: Version, will: Will<'_>, expiry: u32) -> Client {
    let list = properties(&[Property::SessionExpiryInterval(expiry)]);
    let asked = Connect {
        clean_start: false,
        properties: if version == Version::V5 { list.as_properties() } else { Properties::EMPTY },
        will: Some(will),
        ..hello(version, id)
    };
    broker.try_stay(&asked).await.0
}

#[tokio::test]
async fn it_is_published_when_the_connection_is_lost_and_not_after_disconnect() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let none = PropertiesBuf::new();
    for version in VERSIONS {
        client(&broker, version, will(&none, "w"), 0).await.vanish().await;
        let got = watcher.receive().await;
        assert_eq!((got.text(), got.qos, got.retain), ("gone", Q1, false), "[MQTT-3.1.2-8]");
        client(&broker, version, will(&none, "w"), 0).await.leave().await;
        watcher.quiet().await;
    }
}

#[tokio::test]
async fn disconnect_0x04_and_a_protocol_error_publish_it() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let none = PropertiesBuf::new();
    let mut one = client(&broker, Version::V5, will(&none, "w"), 0).await;
    let reason = ReasonCode::DisconnectWithWillMessage;
    one.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY })).await;
    assert_eq!(one.next().await, Got::Closed);
    watcher.receive().await;
    let mut one = client(&broker, Version::V5, will(&none, "w"), 0).await;
    one.write(&[0x00, 0x00]).await;
    one.refused(0x81).await;
    watcher.receive().await;
}

#[tokio::test]
async fn its_properties_are_published_and_it_can_be_retained() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let list = properties(&[
        Property::ContentType("text/plain"),
        Property::MessageExpiryInterval(60),
        Property::WillDelayInterval(0),
        Property::UserProperty("a", "b"),
    ]);
    let mut one = client(&broker, Version::V5, Will { retain: true, ..will(&list, "w") }, 0).await;
    one.quiet().await;
    drop(one);
    let got = watcher.receive().await;
    let kept = got.properties();
    assert_eq!((kept.content_type(), kept.will_delay_interval()), (Some("text/plain"), None));
    assert_eq!(kept.user_properties().collect::<Vec<_>>(), [("a", "b")]);
    assert!(kept.message_expiry_interval().is_some());
    let mut late = broker.join(Version::V311, "late").await;
    late.subscribe("w", Q1).await;
    let got = late.receive().await;
    assert!(got.retain, "[MQTT-3.1.2-15]");
    assert_eq!(got.text(), "gone");
}

#[tokio::test]
async fn a_delayed_will_waits_and_is_taken_back_by_a_new_connection() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let delay = properties(&[Property::WillDelayInterval(1)]);
    client(&broker, Version::V5, will(&delay, "w"), 100).await.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    watcher.quiet().await;
    let (back, present) = broker.stay(Version::V5, "c").await;
    assert!(present);
    back.leave().await;
    // That of another session, begun later, is published in its time: the first was taken back for good.
    let later = Will { payload: b"later", ..will(&delay, "w") };
    client_as(&broker, "d", Version::V5, later, 100).await.vanish().await;
    assert_eq!(watcher.receive().await.text(), "later", "[MQTT-3.1.3-9]");
    watcher.quiet().await;
}

#[tokio::test]
async fn the_end_of_the_session_publishes_a_delayed_will() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let delay = properties(&[Property::WillDelayInterval(1_000)]);
    client(&broker, Version::V5, will(&delay, "w"), 0).await.vanish().await;
    watcher.receive().await;
    client(&broker, Version::V5, will(&delay, "w"), 1).await.vanish().await;
    assert_eq!(watcher.receive().await.text(), "gone", "after a second, with the session");
    client(&broker, Version::V5, will(&delay, "w"), 100).await.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    watcher.quiet().await;
    broker.join(Version::V5, "c").await.leave().await;
    assert_eq!(watcher.receive().await.text(), "gone", "Clean Start ends the session");
}

#[tokio::test]
async fn a_takeover_publishes_it_unless_it_is_delayed() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let none = PropertiesBuf::new();
    let delay = properties(&[Property::WillDelayInterval(1_000)]);
    let mut first = client(&broker, Version::V5, will(&none, "w"), 100).await;
    let mut second = client(&broker, Version::V5, will(&delay, "w"), 100).await;
    first.refused(0x8E).await;
    watcher.receive().await;
    let (third, _) = broker.stay(Version::V5, "c").await;
    second.refused(0x8E).await;
    watcher.quiet().await;
    third.leave().await;
    watcher.quiet().await;
}

#[tokio::test]
async fn a_will_the_acl_denies_is_not_published() {
    let broker = Setup::new().acl("{deny, all, publish, [\"w/denied\"]}.\n{allow, all}.").start().await;
    let mut watcher = watcher(&broker, "#").await;
    let none = PropertiesBuf::new();
    for topic in ["w/denied", "w/allowed"] {
        let denied = Will { retain: true, ..will(&none, topic) };
        client(&broker, Version::V5, denied, 0).await.vanish().await;
    }
    assert_eq!(watcher.receive().await.topic, "w/allowed");
    assert_eq!(broker.metric("tombolo_retained_messages"), 1);
    assert_eq!(broker.metric("tombolo_acl_denied_total{action=\"publish\",reason=\"rule\"}"), 1);
    assert_eq!(broker.metric("tombolo_messages_dropped_total{reason=\"acl\"}"), 1);
}

/// `[MQTT-3.1.3-10]` and, for a Will without RETAIN, `[MQTT-3.1.2-14]`.
#[tokio::test]
async fn its_user_properties_keep_their_order_and_it_is_not_retained_unasked() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let pairs = [("b", "1"), ("a", "2"), ("b", "0"), ("a", "2")];
    let list = properties(&pairs.map(|(name, value)| Property::UserProperty(name, value)));
    client(&broker, Version::V5, will(&list, "w"), 0).await.vanish().await;
    let got = watcher.receive().await;
    assert_eq!(got.properties().user_properties().collect::<Vec<_>>(), pairs);
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
}

/// `[MQTT-3.1.2-10]`: a Will that was published is not published again, whatever becomes of the session.
#[tokio::test]
async fn it_is_published_once() {
    let broker = broker().await;
    let mut watcher = watcher(&broker, "w").await;
    let none = PropertiesBuf::new();
    client(&broker, Version::V5, will(&none, "w"), 100).await.vanish().await;
    watcher.receive().await;
    // Resumed without a Will, lost, and ended.
    let (back, present) = broker.stay(Version::V5, "c").await;
    assert!(present);
    back.vanish().await;
    broker.join(Version::V5, "c").await.vanish().await;
    broker.until_metric("tombolo_sessions", 1).await;
    watcher.quiet().await;
}
