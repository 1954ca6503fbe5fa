//! Two of ours tell each other what they have sent and received, and which routes they know.

use tombolo::broker::server::Server;
use tombolo::link::extension::Capabilities;
use tombolo::link::extension::Received;
use tombolo::mqtt::packet::Version;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::pair::EVERYTHING;
use crate::pair::Pair;
use crate::pair::eventually;
use crate::pair::join;
use crate::pair::metric;
use crate::pair::until;

const UNACCOUNTED: &str = r#"tombolo_link_ledger_unaccounted_messages{peer="B"}"#;
const ROUND_TRIPS: &str = r#"tombolo_link_rtt_seconds_count{peer="B"}"#;
const LAG: &str = r#"tombolo_link_lag_seconds_count{peer="B"}"#;
const DIFFERENT: &str = r#"tombolo_link_route_digest_mismatch{peer="B"}"#;

/// What B said last that came from A, as A knows it.
fn came(a: &Server) -> Option<Received> {
    a.broker().links.get("B").unwrap().books.lock().received.map(|(received, _)| received)
}

/// Waits until what A knows of B's books is as it should be, after a new connection, which begins with a comparison.
async fn compared(pair: &Pair, good: impl Fn(&Received) -> bool) -> Received {
    pair.cut();
    until(&pair.a, r#"tombolo_link_up{peer="B"}"#, |up| up == 0).await;
    pair.heal();
    pair.linked().await;
    eventually("B has said what came", || came(&pair.a).is_some_and(|books| good(&books))).await;
    came(&pair.a).unwrap()
}

#[tokio::test]
async fn both_sides_account_for_every_message_through_cuts() {
    let pair = Pair::start(&EVERYTHING).await;
    let link = pair.a.broker().links.get("B").unwrap();
    assert_eq!(link.capabilities(), Capabilities::OURS);
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("f/#", Q1).await;
    pair.wanted(&pair.a, 1).await;
    for number in 0..120 {
        if number % 40 == 20 {
            pair.cut();
            pair.heal();
        }
        publisher.publish("f/1", number.to_string().as_bytes(), Q1).await;
    }
    for number in 0..120 {
        assert_eq!(subscriber.receive().await.text(), number.to_string());
    }
    publisher.publish("f/1", b"loose", Q0).await;
    assert_eq!(subscriber.receive().await.text(), "loose");
    let received = compared(&pair, |books| books.received == 120).await;
    assert_eq!(received.fired, 1, "{received:?}");
    until(&pair.a, ROUND_TRIPS, |count| count > 0).await;
    assert_eq!(metric(&pair.a, LAG), 120, "how long each took");
    for sample in [UNACCOUNTED, DIFFERENT] {
        assert_eq!(metric(&pair.a, sample), 0, "{sample}");
    }
    // B has what A said, and says the same to whoever asks there.
    let back = pair.b.broker().links.get("A").unwrap();
    eventually("A has said what it sent", || {
        back.books.lock().sent.is_some_and(|(sent, _)| sent.acknowledged == 120)
    })
    .await;
    let (sent, _) = back.books.lock().sent.unwrap();
    assert_eq!((sent.acknowledged, sent.fired, sent.queued, sent.unaccounted), (120, 1, 0, 0));
    assert_eq!(back.incoming.books(), received);
    until(&pair.b, r#"tombolo_link_overforward_ratio{peer="A"}"#, |ratio| ratio == 0).await;
}
