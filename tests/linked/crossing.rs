//! What crosses a link, and what does not.

use std::future::poll_fn;

use tombolo::broker::server::Server;
use tombolo::broker::trace::event::Filter;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;

use crate::harness::Q0;
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

/// What crossed from A to B.
const SENT: &str = r#"tombolo_link_messages_total{peer="B",dir="out""#;
/// What crossed from B to A.
const SENT_BACK: &str = r#"tombolo_link_messages_total{peer="A",dir="out""#;

#[tokio::test]
async fn every_version_and_qos_arrives_once() {
    let pair = Pair::start(&EVERYTHING).await;
    let versions = [(Version::V311, Version::V5), (Version::V5, Version::V311), (Version::V31, Version::V31)];
    let mut subscribers = Vec::new();
    for (index, (from, to)) in versions.into_iter().enumerate() {
        let mut subscriber = join(&pair.b, to, &format!("subscriber-{index}")).await;
        let mut publisher = join(&pair.a, from, &format!("publisher-{index}")).await;
        let topic = format!("t/{index}");
        assert_eq!(subscriber.subscribe(&topic, Q2).await, 2);
        pair.wanted(&pair.a, index as i64 + 1).await;
        for qos in [Q0, Q1, Q2] {
            publisher.publish(&topic, format!("{qos:?}").as_bytes(), qos).await;
            let got = subscriber.receive().await;
            assert_eq!(
                (got.topic.as_str(), got.text(), got.qos, got.retain),
                (&*topic, &*format!("{qos:?}"), qos, false)
            );
        }
        subscribers.push(subscriber);
    }
    for subscriber in &mut subscribers {
        subscriber.quiet().await;
    }
    until(&pair.a, SENT, |count| count == 9).await;
    // Both ends count the message that crossed, by its own QoS over there.
    for qos in 0..3 {
        let sample = format!(r#"tombolo_link_messages_total{{peer="A",dir="in",qos="{qos}"}}"#);
        assert_eq!(metric(&pair.b, &sample), 3, "{sample}");
    }
}

#[tokio::test]
async fn what_nobody_over_there_wants_stays_here() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("wanted/+", Q1).await;
    pair.wanted(&pair.a, 1).await;
    assert_eq!(publisher.publish("unwanted/1", b"x", Q1).await, 0x10, "nobody gets it");
    assert_eq!(publisher.publish("wanted/1", b"y", Q1).await, 0x00, "the other side gets it");
    assert_eq!(subscriber.receive().await.text(), "y");
    until(&pair.a, SENT, |count| count == 1).await;
    // The last subscriber goes: nothing crosses any more.
    assert_eq!(subscriber.unsubscribe(&["wanted/+"]).await, [0]);
    pair.wanted(&pair.a, 0).await;
    assert_eq!(publisher.publish("wanted/1", b"z", Q1).await, 0x10);
    assert_eq!(metric(&pair.a, SENT), 1);
}

#[tokio::test]
async fn the_topics_of_a_link_bound_what_is_asked_for() {
    let pair = Pair::start(&Wishes { a: "[]", b: r##"["global/#", "cluster/+/status"]"##, more: "" }).await;
    let mut on_b = join(&pair.b, Version::V5, "b").await;
    let mut on_a = join(&pair.a, Version::V5, "a").await;
    for filter in ["#", "local/x"] {
        // The rules let no one subscribe to `#` here by name; `+/#` is the same to a link.
        let filter = if filter == "#" { "+/+/+" } else { filter };
        on_b.subscribe(filter, Q1).await;
    }
    on_a.subscribe("global/#", Q1).await;
    // `+/+/+` meets `global/#` and `cluster/+/status`; `local/x` meets neither.
    pair.wanted(&pair.a, 2).await;
    assert_eq!(on_a.publish("local/x", b"no", Q1).await, 0x10);
    assert_eq!(on_a.publish("cluster/1/status", b"yes", Q1).await, 0x00);
    assert_eq!(on_b.receive().await.text(), "yes");
    // A wants nothing of B.
    assert_eq!(metric(&pair.b, r#"tombolo_link_routes{peer="A",dir="in""#), 0);
    assert_eq!(on_b.publish("global/1", b"no", Q1).await, 0x10);
}

#[tokio::test]
async fn a_message_crosses_one_link_once_and_never_comes_back() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut on_a = join(&pair.a, Version::V5, "same-name").await;
    let mut on_b = join(&pair.b, Version::V5, "same-name").await;
    on_a.subscribe("t/#", Q1).await;
    on_b.subscribe("t/+", Q1).await;
    on_b.subscribe_as(
        &[("t/1", SubscriptionOptions { qos: Q1, no_local: true, ..SubscriptionOptions::default() })],
        None,
    )
    .await;
    pair.wanted(&pair.a, 2).await;
    pair.wanted(&pair.b, 1).await;
    on_a.publish("t/1", b"from A", Q1).await;
    assert_eq!(on_a.receive().await.text(), "from A");
    assert_eq!(on_b.receive().await.text(), "from A");
    until(&pair.a, SENT, |count| count == 1).await;
    on_a.quiet().await;
    on_b.quiet().await;
    assert_eq!(metric(&pair.b, SENT_BACK), 0, "B sent nothing back");
}

#[tokio::test]
async fn retained_is_delivered_live_and_not_stored_over_there() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    let mut plain = join(&pair.b, Version::V5, "plain").await;
    let mut as_published = join(&pair.b, Version::V5, "as-published").await;
    plain.subscribe("r/1", Q1).await;
    let keep = SubscriptionOptions { qos: Q1, retain_as_published: true, ..SubscriptionOptions::default() };
    as_published.subscribe_as(&[("r/1", keep)], None).await;
    pair.wanted(&pair.a, 1).await;
    publisher.publish_as(Publish { qos: Q1, retain: true, ..message("r/1", b"kept on A") }).await;
    assert!(!plain.receive().await.retain);
    assert!(as_published.receive().await.retain, "the flag crosses");
    let mut late = join(&pair.b, Version::V5, "late").await;
    late.subscribe("r/1", Q1).await;
    late.quiet().await;
    let mut late_on_a = join(&pair.a, Version::V5, "late").await;
    late_on_a.subscribe("r/1", Q1).await;
    assert_eq!(late_on_a.receive().await.text(), "kept on A");
}

#[tokio::test]
async fn one_member_of_a_group_on_each_cluster_gets_it() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    let mut on_a = join(&pair.a, Version::V5, "member-a").await;
    let mut members = [join(&pair.b, Version::V5, "m1").await, join(&pair.b, Version::V5, "m2").await];
    on_a.subscribe("$share/g/s/+", Q1).await;
    for member in &mut members {
        assert_eq!(member.subscribe("$share/g/s/+", Q1).await, 1);
    }
    pair.wanted(&pair.a, 1).await;
    for number in 0..4 {
        publisher.publish("s/1", number.to_string().as_bytes(), Q1).await;
    }
    let mut seen = Vec::new();
    for member in &mut members {
        seen.extend(member.receive_texts(2).await);
        member.quiet().await;
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3"]);
    assert_eq!(on_a.receive_texts(4).await, ["0", "1", "2", "3"], "and one on A itself");
}

#[tokio::test]
async fn properties_cross_unaltered_and_expiry_counts() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("p/1", Q1).await;
    pair.wanted(&pair.a, 1).await;
    let sent = properties(&[
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(100),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answers/1"),
        Property::CorrelationData(b"\x00\x01"),
        Property::UserProperty("k", "v1"),
        Property::UserProperty("k", "v2"),
    ]);
    let payload = "x".repeat(4_000);
    publisher
        .publish_as(Publish {
            qos: Q1,
            properties: sent.as_properties(),
            ..message("p/1", payload.as_bytes())
        })
        .await;
    let got = subscriber.receive().await;
    let seen = got.properties();
    assert_eq!(got.text(), payload, "compressed on the way");
    assert_eq!(seen.payload_format_indicator(), Some(1));
    assert!(seen.message_expiry_interval().is_some_and(|left| (90..=100).contains(&left)));
    assert_eq!((seen.content_type(), seen.response_topic()), (Some("text/plain"), Some("answers/1")));
    assert_eq!(seen.correlation_data(), Some(&b"\x00\x01"[..]));
    assert_eq!(seen.user_properties().collect::<Vec<_>>(), [("k", "v1"), ("k", "v2")]);
}

#[tokio::test]
async fn the_order_of_each_publisher_is_kept() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    subscriber.subscribe("o/#", Q1).await;
    pair.wanted(&pair.a, 1).await;
    let mut publishers = Vec::new();
    for number in 0..10 {
        publishers.push(join(&pair.a, Version::V311, &format!("p{number}")).await);
    }
    for round in 0..20 {
        for (number, publisher) in publishers.iter_mut().enumerate() {
            publisher.publish(&format!("o/{number}/{round}"), round.to_string().as_bytes(), Q1).await;
        }
    }
    let mut next = [0; 10];
    for _ in 0..200 {
        let got = subscriber.receive().await;
        let number: usize = got.topic.split('/').nth(1).unwrap().parse().unwrap();
        assert_eq!(got.text(), next[number].to_string(), "publisher {number}");
        next[number] += 1;
    }
    assert_eq!(next, [20; 10]);
}

#[tokio::test]
async fn a_trace_of_a_link_shows_what_goes_to_it_and_what_comes_from_it() {
    let pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("wanted", Q1).await;
    pair.wanted(&pair.a, 1).await;
    let follow = |server: &Server, link| {
        let filter = Filter::parse(None, Some("#"), None, Some(link)).unwrap();
        server.broker().traces.start(filter).unwrap()
    };
    let (mut there, mut here) = (follow(&pair.a, "B"), follow(&pair.b, "A"));
    publisher.publish("here", b"x", Q1).await;
    publisher.publish("wanted", b"x", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "x");
    let lines = poll_fn(|cx| there.poll_lines(cx)).await.unwrap();
    let expected = r#""event":"forwarded","link":"B","from_clientid":"p","topic":"wanted","qos":1"#;
    assert!(lines.lines().count() == 1 && lines.contains(expected), "{lines}");
    let lines = poll_fn(|cx| here.poll_lines(cx)).await.unwrap();
    assert!(lines.contains(r#""event":"publish","link":"A","topic":"wanted""#), "{lines}");
    assert!(lines.contains(r#""event":"delivered","clientid":"s""#), "{lines}");
}
