//! Clients that do not take what is sent to them: what they cost is bounded and counted, and others do not notice
//! (`reliability.md` R13).

use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;
use crate::harness::properties;

const QUEUE_FULL: &str = "tombolo_messages_dropped_total{reason=\"queue_full\"}";
const ENDED: &str = "tombolo_slow_consumers_disconnected_total{kind=\"client\",reason=\"queue_full\"}";
const STALLED: &str = "tombolo_slow_consumers_disconnected_total{kind=\"client\",reason=\"stalled\"}";

async fn with(mqtt: &str) -> Running {
    Setup::new().mqtt(mqtt).start().await
}

/// A subscriber, one message in flight at a time, and a publisher; then the messages 1 to 5.
async fn five(broker: &Running, version: Version) -> (Client, Client) {
    let (mut slow, _) = broker.stay(version, "slow").await;
    slow.subscribe("t", Q1).await;
    let mut publisher = broker.join(Version::V5, "publisher").await;
    for number in 1..=5 {
        assert_eq!(publisher.publish("t", number.to_string().as_bytes(), Q1).await, 0);
    }
    (slow, publisher)
}

#[tokio::test]
async fn a_full_queue_loses_its_oldest_or_its_newest_as_is_said() {
    for (policy, kept) in [("drop_oldest", ["1", "4", "5"]), ("drop_new", ["1", "2", "3"])] {
        let broker =
            with(&format!("max_inflight = 1\nmax_mqueue_len = 2\nmqueue_on_full = \"{policy}\"")).await;
        let (mut slow, _publisher) = five(&broker, Version::V5).await;
        assert_eq!(slow.receive_texts(3).await, kept, "{policy}");
        slow.quiet().await;
        assert_eq!((broker.metric(QUEUE_FULL), broker.metric(ENDED)), (2, 0), "{policy}");
    }
}

#[tokio::test]
async fn a_full_queue_ends_the_connection_where_it_is_to_and_the_session_stays() {
    for version in VERSIONS {
        let broker = with("max_inflight = 1\nmax_mqueue_len = 2\nmqueue_on_full = \"disconnect\"").await;
        let (mut slow, mut publisher) = five(&broker, version).await;
        assert_eq!(slow.take().await.text(), "1");
        slow.refused(0x97).await;
        broker.until_metric("tombolo_disconnects_total{reason=\"slow_consumer\"}", 1).await;
        assert_eq!((broker.metric(ENDED), broker.metric(QUEUE_FULL)), (1, 2), "{version:?}");
        assert_eq!(publisher.publish("t", b"6", Q1).await, 0, "nobody disconnects who is away");
        let (mut again, present) = broker.stay(version, "slow").await;
        assert_eq!(present, version != Version::V31, "3.1 cannot say so");
        assert_eq!(again.receive_texts(3).await, ["1", "5", "6"], "{version:?}");
        assert_eq!(broker.metric(ENDED), 1);
    }
}

/// What was not acknowledged stays in flight: a client that acknowledges is not slow.
#[tokio::test]
async fn a_client_that_keeps_up_is_not_disconnected() {
    let broker = with("max_inflight = 1\nmax_mqueue_len = 1\nmqueue_on_full = \"disconnect\"").await;
    let mut client = broker.join(Version::V5, "client").await;
    client.subscribe("t", Q1).await;
    let mut publisher = broker.join(Version::V5, "publisher").await;
    for _ in 0..50 {
        publisher.publish("t", b"x", Q1).await;
        client.receive().await;
    }
    client.quiet().await;
    assert_eq!((broker.metric(ENDED), broker.metric(QUEUE_FULL)), (0, 0));
}

#[tokio::test]
async fn a_client_whose_socket_takes_nothing_is_disconnected_in_time() {
    let broker = with("send_timeout = \"100ms\"").await;
    let mut stalled = broker.join(Version::V5, "stalled").await;
    stalled.subscribe("t", Q0).await;
    let mut publisher = broker.join(Version::V5, "publisher").await;
    // More than the buffers of both sockets hold.
    for _ in 0..60 {
        publisher.publish("t", &vec![0; 512 * 1024], Q0).await;
    }
    publisher.quiet().await;
    broker.until_metric(STALLED, 1).await;
    broker.until_metric("tombolo_sessions", 1).await;
    assert_eq!(broker.metric("tombolo_disconnects_total{reason=\"slow_consumer\"}"), 1);
}

/// As EMQX and mosquitto do: what is above the output waits in the queue at QoS 0 too.
#[tokio::test]
async fn a_slow_reader_gets_all_of_qos_0_that_its_queue_holds_in_order() {
    const MESSAGES: u64 = 400;
    const BYTES: usize = 64 * 1024;
    for version in VERSIONS {
        let broker = with("send_timeout = \"infinity\"").await;
        let mut slow = broker.join(version, "slow").await;
        slow.subscribe("t", Q1).await;
        let mut publisher = broker.join(Version::V5, "publisher").await;
        for number in 0..MESSAGES {
            let mut payload = vec![0; BYTES];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            publisher.publish("t", &payload, Q0).await;
        }
        // The broker has taken all of it, more than output and sockets hold, before the first is read.
        assert_eq!(publisher.publish("t", b"the last", Q1).await, 0);
        for number in 0..MESSAGES {
            assert_eq!(slow.receive().await.payload[..8], number.to_be_bytes(), "{version:?}");
        }
        assert_eq!(slow.receive().await.text(), "the last", "{version:?}: it overtook nothing");
        assert_eq!(broker.metric("tombolo_messages_dropped_total{reason=\"qos0_slow\"}"), 0);
        assert_eq!(broker.metric(QUEUE_FULL), 0);
    }
}

#[tokio::test]
async fn one_of_twenty_that_stops_reading_costs_the_others_nothing() {
    const MESSAGES: u64 = 200;
    const BYTES: u64 = 16 * 1024;
    let broker = with("max_inflight = 32\nmax_mqueue_len = 50\nsend_timeout = \"infinity\"").await;
    let mut good = Vec::new();
    for number in 0..19 {
        let mut client = broker.join(Version::V5, &format!("good-{number}")).await;
        client.subscribe("t", Q1).await;
        good.push(client);
    }
    let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
    let mut stuck = broker.open().await;
    let asked =
        tombolo::mqtt::packet::Connect { properties: expiry.as_properties(), ..hello(Version::V5, "stuck") };
    assert_eq!(stuck.connect(&asked).await, Got::ConnAck(false, 0));
    stuck.subscribe("t", Q1).await;
    let mut publisher = broker.join(Version::V5, "publisher").await;
    for number in 0..MESSAGES {
        let mut payload = vec![0; BYTES as usize];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        assert_eq!(publisher.publish("t", &payload, Q1).await, 0);
        for client in &mut good {
            assert_eq!(client.receive().await.payload[..8], number.to_be_bytes(), "in order, each of them");
        }
    }
    // The one has 32 in flight and 50 in its queue; the rest is lost to it alone, and counted.
    assert_eq!(broker.metric(QUEUE_FULL), MESSAGES - 32 - 50);
    let held = broker.server.broker().held_bytes();
    assert!(held <= 2 * (32 + 50) * BYTES, "{held} bytes");
}
