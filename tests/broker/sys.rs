//! `$SYS/broker/...`, under mosquitto's names.

use std::collections::BTreeMap;

use tombolo::mqtt::packet::Version;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::broker;

#[tokio::test]
async fn who_subscribes_hears_of_the_broker() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let (away, _) = broker.stay(Version::V5, "away").await;
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    client.subscribe("#", Q0).await;
    client.subscribe("$SYS/#", Q1).await;
    let mut values = BTreeMap::new();
    for _ in 0..15 {
        let message = client.receive().await;
        assert_eq!((message.qos, message.retain), (Q0, false));
        values.insert(message.topic.clone(), message.text().to_owned());
    }
    let expected = [
        ("clients/total", "2"),
        ("clients/connected", "1"),
        ("clients/disconnected", "1"),
        ("subscriptions/count", "2"),
        ("retained messages/count", "0"),
        ("version", concat!("tombolo version ", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in expected {
        assert_eq!(values[&format!("$SYS/broker/{name}")], value, "{name}");
    }
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    assert_eq!(values.len(), 15);
}

#[tokio::test]
async fn the_shipped_rules_keep_it_to_themselves() {
    let broker = Setup::new().acl(include_str!("../../acl/acl.conf")).start().await;
    let mut client = broker.join(Version::V5, "c").await;
    assert_eq!(client.publish("$SYS/broker/uptime", b"0", Q1).await, 0x87);
    let denied = client.subscribe("$SYS/broker/clients/total", Q0).await;
    assert_eq!(denied, 0x87);
}
