//! Retained messages over a link that says `retained` on both sides.

use tombolo::broker::server::Server;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;

use crate::harness::Client;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::message;
use crate::harness::properties;
use crate::pair::EVERYTHING;
use crate::pair::Pair;
use crate::pair::Wishes;
use crate::pair::join;
use crate::pair::metric;
use crate::pair::until;

const RETAINED: Wishes = Wishes { more: "retained = true\n", ..EVERYTHING };

/// The copies that B has of A's.
const COPIES: &str = r#"tombolo_link_retained_messages{peer="A"}"#;

async fn retain(publisher: &mut Client, topic: &str, payload: &str) {
    publisher.publish_as(Publish { qos: Q1, retain: true, ..message(topic, payload.as_bytes()) }).await;
}

/// What a new client is given of `filter`, in the order of topics: topic and payload.
async fn given(server: &Server, id: &str, filter: &str, count: usize) -> Vec<(String, String)> {
    let mut client = join(server, Version::V5, id).await;
    client.subscribe(filter, Q1).await;
    let mut all = Vec::new();
    for _ in 0..count {
        let got = client.receive().await;
        assert!(got.retain, "{}", got.topic);
        all.push((got.topic.clone(), got.text().to_owned()));
    }
    client.quiet().await;
    all.sort();
    all
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
}

#[tokio::test]
async fn what_was_retained_before_anybody_over_there_subscribed_arrives() {
    let pair = Pair::start(&RETAINED).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    let sent = properties(&[
        Property::MessageExpiryInterval(100),
        Property::ContentType("text/plain"),
        Property::UserProperty("k", "v"),
    ]);
    let kept = Publish { qos: Q2, retain: true, properties: sent.as_properties(), ..message("r/1", b"old") };
    publisher.publish_as(kept).await;
    retain(&mut publisher, "other/1", "x").await;
    let mut plain = join(&pair.b, Version::V5, "plain").await;
    let keep = SubscriptionOptions { qos: Q2, retain_as_published: true, ..SubscriptionOptions::default() };
    plain.subscribe("r/#", Q1).await;
    let got = plain.receive().await;
    assert_eq!((got.topic.as_str(), got.text(), got.qos, got.retain), ("r/1", "old", Q1, false));
    let seen = got.properties();
    assert!(seen.message_expiry_interval().is_some_and(|left| (90..=100).contains(&left)));
    assert_eq!((seen.content_type(), seen.user_properties().count()), (Some("text/plain"), 1));
    // Whoever comes now is given it from here, and at the publisher's QoS.
    let mut late = join(&pair.b, Version::V5, "late").await;
    late.subscribe_as(&[("r/1", keep)], None).await;
    let got = late.receive().await;
    assert_eq!((got.text(), got.qos, got.retain), ("old", Q2, true));
    assert_eq!(metric(&pair.b, COPIES), 1, "and nothing that nobody wants");
    plain.quiet().await;
}

#[tokio::test]
async fn what_changes_and_goes_while_the_link_is_up_changes_and_goes_over_there() {
    let pair = Pair::start(&RETAINED).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    retain(&mut publisher, "r/1", "old").await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("r/#", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "old");
    retain(&mut publisher, "r/1", "new").await;
    retain(&mut publisher, "r/2", "another").await;
    assert_eq!(subscriber.receive_texts(2).await, ["new", "another"]);
    assert_eq!(given(&pair.b, "g1", "r/#", 2).await, pairs(&[("r/1", "new"), ("r/2", "another")]));
    retain(&mut publisher, "r/1", "").await;
    assert_eq!(subscriber.receive().await.text(), "");
    assert_eq!(given(&pair.b, "g2", "r/#", 1).await, pairs(&[("r/2", "another")]));
    // What a client here publishes is its own, and told to the other side.
    let mut here = join(&pair.b, Version::V5, "here").await;
    retain(&mut here, "r/2", "from B").await;
    assert_eq!(metric(&pair.b, COPIES), 0);
    let mut there = join(&pair.a, Version::V5, "there").await;
    there.subscribe("r/2", Q1).await;
    assert_eq!(there.receive_texts(2).await, ["another", "from B"]);
    assert_eq!(given(&pair.a, "g3", "r/2", 1).await, pairs(&[("r/2", "from B")]));
}

#[tokio::test]
async fn the_newer_of_two_messages_stays_on_both_sides() {
    let pair = Pair::start(&RETAINED).await;
    let mut on_a = join(&pair.a, Version::V5, "a").await;
    let mut on_b = join(&pair.b, Version::V5, "b").await;
    retain(&mut on_a, "r/1", "from A").await;
    on_a.subscribe("r/#", Q1).await;
    assert_eq!(on_a.receive().await.text(), "from A");
    on_b.subscribe("r/#", Q1).await;
    assert_eq!(on_b.receive().await.text(), "from A");
    pair.wanted(&pair.b, 1).await;
    retain(&mut on_b, "r/1", "from B").await;
    assert_eq!(on_a.receive().await.text(), "from B");
    until(&pair.a, r#"tombolo_link_retained_messages{peer="B"}"#, |count| count == 1).await;
    assert_eq!(metric(&pair.b, COPIES), 0, "it is B's own");
    for (server, id) in [(&pair.a, "g1"), (&pair.b, "g2")] {
        assert_eq!(given(server, id, "r/#", 1).await, pairs(&[("r/1", "from B")]));
    }
}

#[tokio::test]
async fn what_changed_and_went_during_a_cut_is_made_good_whatever_the_spool_lost() {
    let more = "retained = true\n[cluster.links.spool]\nmax_bytes = 2048\n";
    let pair = Pair::start(&Wishes { more, ..EVERYTHING }).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    for topic in ["r/changed", "r/gone", "r/same"] {
        retain(&mut publisher, topic, "old").await;
    }
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("r/#", Q1).await;
    assert_eq!(subscriber.receive_texts(3).await, ["old"; 3]);
    pair.cut();
    until(&pair.a, r#"tombolo_link_up{peer="B"}"#, |up| up == 0).await;
    retain(&mut publisher, "r/changed", "new").await;
    retain(&mut publisher, "r/gone", "").await;
    for number in 0..40 {
        retain(&mut publisher, &format!("r/new/{number:02}"), &number.to_string()).await;
    }
    until(
        &pair.a,
        r#"tombolo_link_messages_dropped_total{peer="B",dir="out",reason="spool_full"}"#,
        |lost| lost > 20,
    )
    .await;
    pair.heal();
    // Each once: over the lanes what the spool kept, from the pages the rest.
    let mut got = subscriber.receive_texts(41).await;
    got.sort();
    let mut expected: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    expected.push("new".to_owned());
    expected.sort();
    assert_eq!(got, expected);
    until(&pair.b, COPIES, |count| count == 42).await;
    subscriber.quiet().await;
    assert_eq!(given(&pair.b, "g1", "r/+", 2).await, pairs(&[("r/changed", "new"), ("r/same", "old")]));
}

#[tokio::test]
async fn copies_go_with_the_last_subscription_and_come_with_the_next() {
    let pair = Pair::start(&RETAINED).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    for topic in ["r/1", "r/2"] {
        retain(&mut publisher, topic, "old").await;
    }
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("r/#", Q1).await;
    subscriber.subscribe("r/1", Q1).await;
    until(&pair.b, COPIES, |count| count == 2).await;
    subscriber.receive_texts(2).await;
    subscriber.unsubscribe(&["r/#"]).await;
    until(&pair.b, COPIES, |count| count == 1).await;
    subscriber.unsubscribe(&["r/1"]).await;
    until(&pair.b, COPIES, |count| count == 0).await;
    pair.wanted(&pair.a, 0).await;
    retain(&mut publisher, "r/1", "new").await;
    subscriber.subscribe("r/1", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "new");
    until(&pair.b, COPIES, |count| count == 1).await;
}

#[tokio::test]
async fn many_pages_bring_everything_once_and_nothing_to_shared_subscriptions() {
    let pair = Pair::start(&RETAINED).await;
    let mut publisher = join(&pair.a, Version::V311, "p").await;
    let large = "x".repeat(400);
    for number in 0..500 {
        retain(&mut publisher, &format!("r/{number:03}"), &format!("{number:03}{large}")).await;
    }
    retain(&mut publisher, "r/huge", &"y".repeat(300_000)).await;
    let mut member = join(&pair.b, Version::V5, "member").await;
    member.subscribe("$share/g/r/#", Q1).await;
    pair.wanted(&pair.a, 1).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("r/#", Q1).await;
    let got = subscriber.receive_texts(501).await;
    for (number, text) in got[..500].iter().enumerate() {
        assert!(text.starts_with(&format!("{number:03}x")), "in the order of topics");
    }
    assert_eq!(got[500].len(), 300_000);
    until(&pair.b, COPIES, |count| count == 501).await;
    subscriber.quiet().await;
    member.quiet().await;
}

#[tokio::test]
async fn export_bounds_what_is_told() {
    let more = "retained = true\nexport = [\"r/+\"]\n";
    let pair = Pair::start(&Wishes { more, ..EVERYTHING }).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    retain(&mut publisher, "r/1", "told").await;
    retain(&mut publisher, "r/1/secret", "x").await;
    retain(&mut publisher, "secret", "x").await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("+/#", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "told");
    subscriber.subscribe("r/2", Q1).await;
    retain(&mut publisher, "r/2", "live").await;
    assert_eq!(subscriber.receive().await.text(), "live");
    assert_eq!(metric(&pair.b, COPIES), 2);
}
