//! Cases that EMQX tests its own links with (`link-protocol.md` 8), where no other test has their meaning already:
//! `tests/conformance/links.tsv` lists all of them.

use tombolo::broker::server::Server;
use tombolo::config::settings::Link;
use tombolo::mqtt::packet::Version;

use crate::harness::Q1;
use crate::pair::EVERYTHING;
use crate::pair::Pair;
use crate::pair::Wishes;
use crate::pair::join;
use crate::pair::metric;
use crate::pair::until;

const SENT: &str = r#"tombolo_link_messages_total{peer="B",dir="out""#;

/// Changes the one link of a side by a reload of its configuration.
async fn change(side: &mut Server, change: impl FnOnce(&mut Link)) {
    let mut settings = side.settings().clone();
    change(&mut settings.cluster.links[0]);
    side.reload(settings).await.unwrap();
}

/// Waits until a side knows exactly these filters of its peer.
async fn knows(side: &Server, peer: &str, filters: &[&str]) {
    let link = || side.broker().links.get(peer).unwrap();
    let known = || {
        let link = link();
        let routes = link.routes.lock();
        routes.filters().count() == filters.len() && filters.iter().all(|filter| routes.wants(filter))
    };
    let waiting = async {
        while !known() {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(crate::harness::LIMIT, waiting).await;
    assert!(reached.is_ok(), "{:?}", link().routes.lock().filters().collect::<Vec<_>>());
}

/// Case 1: filters that overlap are two routes, and one copy of the message crosses.
#[tokio::test]
async fn subscribers_with_overlapping_filters_get_one_copy_each() {
    let pair = Pair::start(&EVERYTHING).await;
    let (mut one, mut two) =
        (join(&pair.b, Version::V5, "one").await, join(&pair.b, Version::V5, "two").await);
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    // Before the link is up, and while it is.
    pair.cut();
    until(&pair.b, r#"tombolo_link_up{peer="A"}"#, |up| up == 0).await;
    one.subscribe("t1/+", Q1).await;
    two.subscribe("t1/#", Q1).await;
    pair.heal();
    knows(&pair.a, "B", &["t1/+", "t1/#"]).await;
    one.subscribe("t2/#", Q1).await;
    two.subscribe("t2/+/+", Q1).await;
    knows(&pair.a, "B", &["t1/+", "t1/#", "t2/#", "t2/+/+"]).await;
    for topic in ["t1/42", "t2/3/4"] {
        publisher.publish(topic, topic.as_bytes(), Q1).await;
        for subscriber in [&mut one, &mut two] {
            assert_eq!(subscriber.receive().await.text(), topic);
            subscriber.quiet().await;
        }
    }
    until(&pair.a, SENT, |count| count == 2).await;
}

/// Case 21: other `topics` and another pool, and both sides are in step again.
#[tokio::test]
async fn what_a_link_asks_for_changes_with_its_topics() {
    let mut pair = Pair::start(&Wishes { a: r#"["t/test/+/1"]"#, b: "[]", more: "" }).await;
    let mut subscriber = join(&pair.a, Version::V5, "s").await;
    let mut publisher = join(&pair.b, Version::V5, "p").await;
    subscriber.subscribe("t/#", Q1).await;
    knows(&pair.b, "A", &["t/test/+/1"]).await;
    assert_eq!(publisher.publish("t/test/1/1", b"old", Q1).await, 0x00);
    assert_eq!(subscriber.receive().await.text(), "old");
    change(&mut pair.a, |link| {
        link.topics = vec!["t/new/+".to_owned()];
        link.pool_size = 3;
    })
    .await;
    knows(&pair.b, "A", &["t/new/+"]).await;
    assert_eq!(publisher.publish("t/test/1/1", b"no more", Q1).await, 0x10);
    assert_eq!(publisher.publish("t/new/1", b"new", Q1).await, 0x00);
    assert_eq!(subscriber.receive().await.text(), "new");
    subscriber.quiet().await;
}

/// Cases 22 and 36: what is off lets nothing through either way, stays in step with its peer, and is deleted as it is.
#[tokio::test]
async fn a_link_that_is_off_is_quiet_at_once_and_in_step_when_it_is_on_again() {
    let mut pair = Pair::start(&EVERYTHING).await;
    let mut on_a = join(&pair.a, Version::V5, "a").await;
    let mut on_b = join(&pair.b, Version::V5, "b").await;
    on_a.subscribe("a/#", Q1).await;
    on_b.subscribe("b/#", Q1).await;
    pair.wanted(&pair.a, 1).await;
    pair.wanted(&pair.b, 1).await;
    change(&mut pair.a, |link| link.enable = false).await;
    // B may not have heard of it yet: what it sends is not taken.
    on_b.publish("a/1", b"to A, which is off", Q1).await;
    assert_eq!(on_a.publish("b/1", b"to B", Q1).await, 0x10);
    knows(&pair.b, "A", &[]).await;
    assert_eq!(on_b.publish("a/1", b"to A", Q1).await, 0x10);
    on_a.quiet().await;
    on_b.quiet().await;
    // B goes on telling what it wants, which A remembers.
    on_b.subscribe("more/#", Q1).await;
    knows(&pair.a, "B", &["b/#", "more/#"]).await;
    change(&mut pair.a, |link| link.enable = true).await;
    pair.linked().await;
    knows(&pair.b, "A", &["a/#"]).await;
    for topic in ["b/2", "more/2"] {
        assert_eq!(on_a.publish(topic, topic.as_bytes(), Q1).await, 0x00);
        assert_eq!(on_b.receive().await.text(), topic);
    }
    assert_eq!(on_b.publish("a/2", b"a/2", Q1).await, 0x00);
    assert_eq!(on_a.receive().await.text(), "a/2");
    change(&mut pair.a, |link| link.enable = false).await;
    change(&mut pair.b, |link| link.enable = false).await;
    assert_eq!(on_a.publish("b/3", b"no", Q1).await, 0x10);
    assert_eq!(on_b.publish("a/3", b"no", Q1).await, 0x10);
    on_a.quiet().await;
    on_b.quiet().await;
    for side in [&mut pair.a, &mut pair.b] {
        let mut settings = side.settings().clone();
        settings.cluster.links.clear();
        side.reload(settings).await.unwrap();
    }
    assert!(pair.a.broker().links.all().is_empty());
    assert_eq!(on_a.publish("b/4", b"no", Q1).await, 0x10);
    assert_eq!(metric(&pair.a, r#"tombolo_link_ledger_unaccounted_messages{peer="B"}"#), 0);
}
