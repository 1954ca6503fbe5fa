//! Several threads for input and output: who is on which makes no difference to any client.

use tokio::task::JoinSet;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::reason::ReasonCode;
use tombolo::net::clock;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::id;
use crate::harness::message;

/// Of one publisher.
const COUNT: u16 = 1_000;

/// Three threads, each of which gets every third connection.
async fn broker() -> Running {
    let io = "threads = 3\nplacement = \"spread\"";
    Setup::new().io(io).mqtt("max_mqueue_len = 100000").start().await
}

/// Everything at once, and the answers.
async fn publish_all(publisher: &mut Client, topic: &str, qos: QoS) {
    let mut bytes = Vec::new();
    for number in 1..=COUNT {
        let payload = number.to_string();
        let packet_id = (qos != Q0).then(|| id(number));
        let publish = Publish { qos, packet_id, ..message(topic, payload.as_bytes()) };
        bytes.extend_from_slice(&publisher.encoded(&Packet::Publish(publish)));
    }
    publisher.write(&bytes).await;
    if qos == Q1 {
        for number in 1..=COUNT {
            assert_eq!(publisher.next().await, Got::Ack(PacketType::PubAck, number, 0));
        }
    }
}

#[tokio::test]
async fn every_subscriber_gets_every_publishers_messages_in_order() {
    let broker = broker().await;
    for qos in [Q0, Q1] {
        let mut subscribers = Vec::new();
        for number in 0..4 {
            let mut subscriber = broker.join(Version::V5, &format!("s{number}")).await;
            subscriber.subscribe("t/#", Q2).await;
            subscribers.push(subscriber);
        }
        let mut publishing = JoinSet::new();
        for number in 0..4 {
            let mut publisher = broker.join(Version::V311, &format!("p{number}")).await;
            publishing.spawn(async move {
                publish_all(&mut publisher, &format!("t/{number}"), qos).await;
                publisher
            });
        }
        for mut subscriber in subscribers {
            let mut next = [1; 4];
            for _ in 0..4 * COUNT {
                let received = subscriber.receive().await;
                let publisher: usize = received.topic[2..].parse().unwrap();
                assert_eq!(received.text(), next[publisher].to_string(), "of publisher {publisher}");
                next[publisher] += 1;
            }
            subscriber.quiet().await;
        }
        for publisher in publishing.join_all().await {
            publisher.leave().await;
        }
    }
}

#[tokio::test]
async fn a_session_moves_from_thread_to_thread_and_loses_nothing() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    for number in 0..20 {
        let payload = number.to_string();
        assert_eq!(publisher.publish("t", payload.as_bytes(), Q1).await, 0);
        // Another connection of the same Client Identifier, on the next thread.
        let (taker, present) = broker.stay(Version::V5, "c").await;
        assert!(present);
        drop(std::mem::replace(&mut client, taker));
        let mut received = client.receive().await;
        while received.text() != payload {
            // The last acknowledgement was still in the connection that was taken over.
            assert!(received.dup && received.text() == (number - 1).to_string());
            received = client.receive().await;
        }
    }
    client.quiet().await;
}

#[tokio::test]
async fn a_stop_reaches_the_clients_of_every_thread() {
    let broker = broker().await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(broker.join(Version::V5, &format!("c{number}")).await);
    }
    for thread in 0..3 {
        let sample = format!("tombolo_io_busy_seconds_total{{thread=\"{thread}\"}}");
        assert!(broker.server.broker().render_metrics(clock::now()).contains(&sample));
    }
    let stopping = broker.server.stop();
    let leaving = async {
        for client in &mut clients {
            client.refused(ReasonCode::ServerShuttingDown.as_u8()).await;
        }
    };
    tokio::join!(stopping, leaving);
}
