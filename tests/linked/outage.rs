//! The link is cut while both brokers live: nothing of QoS 1 or 2 is lost, nothing comes out of order.

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::id;
use crate::harness::message;
use crate::pair::EVERYTHING;
use crate::pair::Pair;
use crate::pair::Wishes;
use crate::pair::join;
use crate::pair::metric;
use crate::pair::until;

const SPOOLED: &str = r#"tombolo_link_spool_messages{peer="B"}"#;
const UNACCOUNTED: &str = r#"tombolo_link_ledger_unaccounted_messages{peer="B"}"#;

#[tokio::test]
async fn what_was_published_during_a_cut_arrives_afterwards_in_order() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("c/#", Q2).await;
    pair.wanted(&pair.a, 1).await;
    publisher.publish("c/1", b"0", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "0");
    pair.cut();
    until(&pair.a, r#"tombolo_link_up{peer="B"}"#, |up| up == 0).await;
    for number in 1..=3_000 {
        let qos = if number % 2 == 0 { Q1 } else { Q2 };
        assert_eq!(publisher.publish("c/1", number.to_string().as_bytes(), qos).await, 0, "the link owes it");
    }
    until(&pair.a, SPOOLED, |count| count >= 2_999).await;
    pair.heal();
    // The subscriber takes nothing for a while: its queue holds 1,000, and the peer has to keep the rest. These pauses
    // last a second together, in which everything would have come and most of it been dropped.
    until(&pair.b, r#"tombolo_link_pauses_total{peer="A"}"#, |count| count >= 9).await;
    for number in 1..=3_000 {
        assert_eq!(subscriber.receive().await.text(), number.to_string(), "each once, in order");
    }
    until(&pair.a, SPOOLED, |count| count == 0).await;
    assert_eq!(metric(&pair.a, UNACCOUNTED), 0);
    pair.linked().await;
}

#[tokio::test]
async fn subscriptions_made_during_a_cut_count_after_it() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("before/1", Q1).await;
    subscriber.subscribe("gone/1", Q1).await;
    pair.wanted(&pair.a, 2).await;
    pair.cut();
    until(&pair.b, r#"tombolo_link_up{peer="A"}"#, |up| up == 0).await;
    subscriber.unsubscribe(&["gone/1"]).await;
    subscriber.subscribe("during/1", Q1).await;
    subscriber.subscribe("during/2", Q1).await;
    pair.heal();
    pair.wanted(&pair.a, 3).await;
    for topic in ["before/1", "during/1", "during/2"] {
        assert_eq!(publisher.publish(topic, topic.as_bytes(), Q1).await, 0);
        assert_eq!(subscriber.receive().await.text(), topic);
    }
    assert_eq!(publisher.publish("gone/1", b"x", Q1).await, 0x10);
}

#[tokio::test]
async fn many_short_cuts_lose_nothing_and_repeat_nothing() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("f/#", Q1).await;
    pair.wanted(&pair.a, 1).await;
    for number in 0..300 {
        if number % 60 == 30 {
            pair.cut();
            pair.heal();
        }
        publisher.publish("f/1", number.to_string().as_bytes(), Q1).await;
    }
    for number in 0..300 {
        assert_eq!(subscriber.receive().await.text(), number.to_string(), "each once, in order");
    }
    until(&pair.a, SPOOLED, |count| count == 0).await;
    assert_eq!(metric(&pair.a, UNACCOUNTED), 0);
}

#[tokio::test]
async fn a_full_spool_that_refuses_tells_every_publisher_as_well_as_it_can() {
    let more = "[cluster.links.spool]\nmax_bytes = 4096\non_full = \"refuse\"\n";
    let pair = Pair::start(&Wishes { more, ..EVERYTHING }).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("c/#", Q2).await;
    pair.wanted(&pair.a, 1).await;
    pair.cut();
    until(&pair.a, r#"tombolo_link_up{peer="B"}"#, |up| up == 0).await;
    let mut new = join(&pair.a, Version::V5, "new").await;
    let mut old = join(&pair.a, Version::V311, "old").await;
    // Nothing that compression could make smaller.
    let mut state = 1_u32;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(4096)
    .collect();
    // One burst each, of which only the second message is refused.
    let burst = |client: &Client, qos| -> Vec<u8> {
        let payloads = [b"small", &large[..], b"small"];
        let packets = (1..).zip(payloads).map(|(number, payload)| {
            client.encoded(&Packet::Publish(Publish {
                qos,
                packet_id: Some(id(number)),
                ..message("c/1", payload)
            }))
        });
        packets.flatten().collect()
    };
    let bytes = burst(&new, Q1);
    new.write(&bytes).await;
    for (number, reason) in [(1, 0), (2, 0x97), (3, 0)] {
        assert_eq!(new.next().await, Got::Ack(PacketType::PubAck, number, reason));
    }
    // An older version cannot be told otherwise than by the end of the connection.
    let bytes = burst(&old, Q2);
    old.write(&bytes).await;
    for number in [1, 3] {
        assert_eq!(old.next().await, Got::Ack(PacketType::PubRec, number, 0));
    }
    old.refused(0x97).await;
    pair.heal();
    for _ in 0..4 {
        assert_eq!(subscriber.receive().await.text(), "small");
    }
    pair.linked().await;
}
