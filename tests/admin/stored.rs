//! What an operator is told while things are stored, and while they cannot be.

use std::io;
use std::sync::Arc;

use serde_json::json;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;
use tombolo::storage::memory::Memory;

use crate::device::Device;
use crate::device::Disk;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::hello;
use crate::harness::properties;
use crate::node::Answer;
use crate::node::Running;
use crate::node::eventually;
use crate::node::start_on;

/// A node on a device, and a session there that is owed what is published to `t`.
async fn node() -> (Arc<Device>, Running) {
    let device = Device::new(Memory::default());
    let running = start_on(Arc::clone(&device)).await;
    let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
    let asked =
        Connect { clean_start: false, properties: expiry.as_properties(), ..hello(Version::V5, "kept") };
    let (mut client, answer) = running.join_as(&asked).await;
    assert_eq!(answer, Got::ConnAck(false, 0));
    client.subscribe("t", Q1).await;
    client.leave().await;
    (device, running)
}

fn ban(who: &str) -> serde_json::Value {
    json!({"as": "clientid", "who": who})
}

/// The answer to a request that has to wait for the disk, which hangs until something else was asked and answered.
async fn held(device: &Device, running: &Running, request: impl Future<Output = Answer>) -> Answer {
    device.set(Disk::Hangs);
    let mut request = std::pin::pin!(request);
    for _ in 0..3 {
        tokio::select! {
            early = &mut request => panic!("{early:?} before anything is stored"),
            other = running.ask("GET", "/api/v5/status") => assert_eq!(other.0, 200),
        }
    }
    device.set(Disk::Works);
    request.await
}

#[tokio::test]
async fn what_an_operator_changes_is_answered_once_it_is_stored() {
    let (device, running) = node().await;
    let publish =
        |topic: &str, qos, retain| json!({"topic": topic, "payload": "x", "qos": qos, "retain": retain});
    let (owed, retained) = (publish("t", 1, false), publish("r", 0, true));
    assert_eq!(held(&device, &running, running.post("/api/v5/publish", &owed)).await.0, 200);
    assert_eq!(held(&device, &running, running.post("/api/v5/publish", &retained)).await.0, 202);
    let both = json!([owed, retained]);
    assert_eq!(held(&device, &running, running.post("/api/v5/publish/bulk", &both)).await.0, 202);
    assert_eq!(held(&device, &running, running.post("/api/v5/banned", &ban("x"))).await.0, 200);
    for path in ["mqtt/retainer/message/r", "banned/clientid/x", "clients/kept"] {
        let path = format!("/api/v5/{path}");
        assert_eq!(held(&device, &running, running.ask("DELETE", &path)).await.0, 204, "{path}");
    }
    device.set(Disk::Hangs);
    assert_eq!(running.post("/api/v5/publish", &publish("t", 1, false)).await.0, 202, "nobody is owed it");
    device.set(Disk::Works);
    running.node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_promised_to_operators_either() {
    for (kind, text) in [
        (io::ErrorKind::StorageFull, "the store is full: nothing is taken that has to be kept"),
        (io::ErrorKind::Other, "the store cannot be written: nothing is taken that has to be kept"),
    ] {
        let (device, running) = node().await;
        assert_eq!(running.ask("GET", "/health/ready").await.0, 200);
        device.set(Disk::Fails(kind));
        // It takes effect all the same: whoever is banned is out.
        let answer = running.post("/api/v5/banned", &ban("x")).await;
        assert_eq!(answer.0, 503);
        assert_eq!(answer.json()["message"], format!("done, but not stored yet: {text}"));
        let (_, refused) = running.join_as(&hello(Version::V5, "x")).await;
        assert_eq!(refused, Got::ConnAck(false, 0x8A));
        for body in [
            json!({"topic": "t", "payload": "x", "qos": 1}),
            json!({"topic": "r", "payload": "x", "qos": 0, "retain": true}),
        ] {
            let answer = running.post("/api/v5/publish", &body).await;
            assert_eq!(answer.0, 503, "{body}");
            assert_eq!(answer.json()["message"], format!("the message was not taken: {text}"));
        }
        let mut live = running.join(Version::V5, "live").await;
        live.subscribe("free", Q1).await;
        let free = json!({"topic": "free", "payload": "x", "qos": 1});
        assert_eq!(running.post("/api/v5/publish", &free).await.0, 200, "what need not be kept goes on");
        assert_eq!(live.receive().await.text(), "x");
        let ready = running.ask("GET", "/health/ready").await;
        assert_eq!((ready.0, &ready.json()["reasons"]), (503, &json!([text])));
        let status = running.ask("GET", "/api/v5/status?format=json").await.json();
        assert_eq!((&status["durability"], &status["store"]), (&json!("fsync"), &json!(text)));
        device.set(Disk::Works);
        let broker = Arc::clone(running.node.server().broker());
        eventually("the store works again", || broker.trouble().is_none()).await;
        assert_eq!(running.ask("GET", "/health/ready").await.0, 200);
        let stats = running.ask("GET", "/api/v5/stats?aggregate=true").await.json();
        assert!(
            stats["store.entries"].as_u64() > Some(2) && stats["store.bytes"].as_u64() > Some(0),
            "{stats}"
        );
        let events = running.ask("GET", "/api/v5/events?event=sys_store_fail").await.json();
        assert!(events.to_string().contains(text), "{events}");
        running.node.stop().await;
    }
}
