use std::sync::Arc;

use tokio::task::JoinHandle;

use super::*;
use crate::acl::confine::ListenerRole;
use crate::broker::forwarder::driver::Patience;
use crate::broker::link_client::Lost;
use crate::broker::link_client::tests::Peer;
use crate::broker::link_client::tests::Seen;
use crate::broker::link_client::tests::in_time;
use crate::broker::link_client::tests::link;
use crate::broker::link_client::tests::settings;
use crate::broker::links::Link;
use crate::broker::shared::ClientKey;
use crate::link::compress::Inflater;
use crate::link::replicator::PUBACK_TIMEOUT_MS;
use crate::metrics::labels::ReconnectReason;
use crate::metrics::series;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::reason::ReasonCode;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::session::message::Expiry;
use crate::trust::rights::Rights;
use crate::trust::rights::TopicGrant;

fn identity() -> Identity {
    let peer = PeerAddr::Ip("192.0.2.1:4321".parse().unwrap());
    let plain = Identity::plain("publisher".into(), peer, "tcp:default".into(), ListenerRole::Client);
    Identity { username: Some("user".into()), version: Version::V311, ..plain }
}

fn publication<'a>(topic: &'a str, payload: &'a [u8], qos: QoS) -> Publication<'a> {
    Publication { topic, properties: &[], payload, qos, retain: false, expiry: None }
}

fn push(link: &Link, publications: &[Publication<'_>], now: Now) -> Reached {
    let mut refused = Vec::new();
    let reached =
        link.forwarder.push_run(publications, Source::Client(&identity(), ClientKey(3)), now, &mut refused);
    assert_eq!(refused, [0; 0]);
    reached
}

fn start(link: &Arc<Link>) -> JoinHandle<()> {
    tokio::spawn(run_lane(Arc::clone(link), 0, "a@host".into()))
}

/// Payload of the inner message.
fn inner(payload: &[u8]) -> String {
    let mut inflater = Inflater::default();
    let message = message::parse(inflater.open(payload).unwrap()).unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

fn dropped(link: &Link, reason: LinkDropReason) -> u64 {
    link.metrics.messages_dropped[(Direction::Out, reason)].value()
}

/// As with a subscription: what is published at more goes at what is granted.
#[tokio::test]
async fn messages_go_at_the_qos_that_is_granted_at_most() {
    let peer = Peer::bind().await;
    let grant = |filter: &str, qos_max| TopicGrant { filter: filter.to_owned(), qos_max };
    let export = vec![grant("free/#", 2), grant("one/#", 1), grant("zero", 0)];
    let granted = Rights { can_forward: true, can_sync_routes: true, import: Vec::new(), export };
    let link = link(settings::Link { granted: Some(granted), ..settings(vec![peer.address()]) });
    let driver = start(&link);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    let sent = [
        ("one/a", b"1", QoS::ExactlyOnce, 1),
        ("one/a", b"2", QoS::AtLeastOnce, 1),
        ("free/a", b"3", QoS::ExactlyOnce, 2),
        ("one/a", b"4", QoS::AtMostOnce, 0),
    ];
    let publications = sent.map(|(topic, payload, qos, _)| publication(topic, payload, qos));
    push(&link, &publications[..3], clock::now());
    let mut come = Vec::new();
    for index in 0..sent.len() {
        if index == 3 {
            // Now that there is a connection: at QoS 0 nothing waits for one.
            push(&link, &publications[3..], clock::now());
        }
        let publish = served.publish().await;
        let mut inflater = Inflater::default();
        let message = message::parse(inflater.open(&publish.payload).unwrap()).unwrap();
        come.push((message.payload.to_vec(), message.qos as u8));
        if let Some(id) = publish.id {
            served.ack(id, ReasonCode::Success).await;
        }
    }
    come.sort();
    assert_eq!(come, sent.map(|(_, payload, _, qos)| (payload.to_vec(), qos)));
    // What may go at QoS 0 alone is not kept for a peer that is away.
    assert!(
        link.forwarder.exports("zero") && link.forwarder.bounded("zero", QoS::ExactlyOnce) == QoS::AtMostOnce
    );
    assert!(!link.forwarder.exports("other"));
    link.forwarder.stop(clock::now().mono_ms);
    drop(served);
    in_time(driver).await.unwrap();
}

#[tokio::test]
async fn what_the_peer_did_not_acknowledge_comes_again_in_order_and_marked() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let (one, two, three) = (
        publication("t/1", b"one", QoS::AtLeastOnce),
        publication("t/2", b"two", QoS::ExactlyOnce),
        publication("t/1", b"three", QoS::AtLeastOnce),
    );
    assert_eq!(push(&link, &[one, two, three], clock::now()), Reached::Somebody);
    let driver = start(&link);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    let mut first = Vec::new();
    for expected in ["one", "two", "three"] {
        let publish = served.publish().await;
        assert_eq!((&*publish.topic, publish.dup), ("$LINK/cluster/msg/A", false));
        assert_eq!(inner(&publish.payload), expected);
        first.push(publish);
    }
    served.ack(first[1].id.unwrap(), ReasonCode::Success).await;
    drop(served);

    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    for original in [&first[0], &first[2]] {
        let again = served.publish().await;
        assert!(again.dup);
        // The whole payload is the same, message id included: that is what duplicates are told by.
        assert_eq!(again.payload, original.payload);
        served.ack(again.id.unwrap(), ReasonCode::NoMatchingSubscribers).await;
    }
    assert_eq!(
        push(&link, &[publication("t/1", b"four", QoS::AtLeastOnce)], clock::now()),
        Reached::Somebody
    );
    let fourth = served.publish().await;
    assert_eq!((inner(&fourth.payload).as_str(), fourth.dup), ("four", false));

    link.forwarder.stop(clock::now().plus_ms(10_000).mono_ms);
    assert_eq!(push(&link, &[one], clock::now()), Reached::Nobody);
    served.ack(fourth.id.unwrap(), ReasonCode::NotAuthorized).await;
    assert_eq!(served.next().await, Seen::Disconnect(0));
    drop(served);
    in_time(driver).await.unwrap();

    let metrics = &link.metrics;
    assert_eq!(metrics.messages[(Direction::Out, QoS::AtLeastOnce)].value(), 3);
    assert_eq!((metrics.retries.value(), dropped(&link, LinkDropReason::PeerRefused)), (2, 1));
    assert_eq!(metrics.reconnects[ReconnectReason::Lost].value(), 1);
    let gauges =
        [&metrics.spool_messages, &metrics.spool_bytes, &metrics.inflight, &metrics.ledger_unaccounted];
    assert_eq!(gauges.map(series::Gauge::value), [0; 4]);
    assert_eq!(metrics.connections[Direction::Out].value(), 0);
}

#[tokio::test]
async fn the_peers_window_is_kept_and_a_stop_does_not_wait_for_ever() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let messages = [b"0", b"1", b"2", b"3"].map(|payload| publication("t", payload, QoS::AtLeastOnce));
    push(&link, &messages, clock::now());
    let driver = start(&link);
    let mut served = peer.welcome(ReasonCode::Success, &[Property::ReceiveMaximum(2)]).await;
    let first = served.publish().await;
    assert_eq!(inner(&served.publish().await.payload), "1");
    served.ack(first.id.unwrap(), ReasonCode::Success).await;
    assert_eq!(inner(&served.publish().await.payload), "2");
    link.forwarder.stop(clock::now().mono_ms);
    // No "3": the window was full.
    assert_eq!(served.next().await, Seen::Disconnect(0));
    drop(served);
    in_time(driver).await.unwrap();
    link.forwarder.drop_rest(clock::now());
    assert_eq!(dropped(&link, LinkDropReason::LinkDeleted), 3);
    assert_eq!((link.metrics.spool_messages.value(), link.metrics.inflight.value()), (0, 0));
}

#[tokio::test]
async fn a_changed_link_sends_what_the_one_before_it_could_not() {
    let peer = Peer::bind().await;
    let old = link(settings::Link { pool_size: 2, ..settings(vec![peer.address()]) });
    let messages = [b"0", b"1", b"2"].map(|payload| publication("t", payload, QoS::ExactlyOnce));
    // The publisher's lane is the second one.
    push(&old, &messages, clock::now());
    let driver = tokio::spawn(run_lane(Arc::clone(&old), 1, "a@host".into()));
    let mut served = peer.welcome(ReasonCode::Success, &[Property::ReceiveMaximum(2)]).await;
    assert!(!served.publish().await.dup && !served.publish().await.dup);
    old.forwarder.stop(clock::now().mono_ms);
    assert_eq!(served.next().await, Seen::Disconnect(0));
    drop(served);
    in_time(driver).await.unwrap();
    let spooled = |link: &Link| (link.metrics.spool_messages.value(), link.metrics.inflight.value());
    assert_eq!(spooled(&old), (3, 0));

    let new = link(settings(vec![peer.address()]));
    push(&new, &[publication("t", b"3", QoS::AtLeastOnce)], clock::now());
    new.forwarder.take_over(&old.forwarder, clock::now());
    old.forwarder.drop_rest(clock::now());
    assert_eq!((spooled(&old), spooled(&new)), ((0, 0), (4, 0)));
    let driver = start(&new);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    for (text, dup) in [("0", true), ("1", true), ("2", false), ("3", false)] {
        let publish = served.publish().await;
        assert_eq!((&*inner(&publish.payload), publish.dup), (text, dup));
        served.ack(publish.id.unwrap(), ReasonCode::Success).await;
    }
    new.forwarder.stop(clock::now().plus_ms(10_000).mono_ms);
    assert_eq!(served.next().await, Seen::Disconnect(0));
    drop(served);
    in_time(driver).await.unwrap();
    assert_eq!(spooled(&new), (0, 0));
    for link in [&old, &new] {
        assert_eq!(dropped(link, LinkDropReason::LinkDeleted), 0);
        assert_eq!((link.metrics.spool_bytes.value(), link.metrics.ledger_unaccounted.value()), (0, 0));
    }
}

#[tokio::test]
async fn a_peer_that_publishes_to_a_lane_breaks_the_protocol() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let driver = start(&link);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    served
        .send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: Properties::EMPTY,
            payload: b"",
        }))
        .await;
    assert_eq!(served.read().await, None);
    let _served = peer.accept().await;
    assert_eq!(link.metrics.reconnects[ReconnectReason::Protocol].value(), 1);
    link.forwarder.stop(clock::now().mono_ms);
    in_time(driver).await.unwrap();
}

#[test]
fn patience_ends_with_a_message_that_is_not_acknowledged() {
    let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
    let id = PacketId::new;
    let mut patience = Patience::default();
    assert_eq!(patience.watch(None, true, at(1)), None);
    assert_eq!(patience.watch(id(1), false, at(10)), Some(10 + PUBACK_TIMEOUT_MS));
    // Not all of it was written until now.
    assert_eq!(patience.watch(id(1), true, at(20)), Some(10 + PUBACK_TIMEOUT_MS));
    assert_eq!(patience.watch(id(1), false, at(30)), Some(30 + PUBACK_TIMEOUT_MS));
    // Messages behind it may come and go, it stays the oldest.
    assert_eq!(patience.watch(id(1), true, at(25_000)), Some(30 + PUBACK_TIMEOUT_MS));
    assert_eq!(patience.watch(id(2), true, at(26_000)), Some(26_000 + PUBACK_TIMEOUT_MS));
    assert_eq!(patience.watch(None, true, at(99_000)), None);
    assert_eq!(Lost::Unacknowledged.reason(), ReconnectReason::Timeout);
}

#[test]
fn what_is_not_forwarded_is_counted() {
    let mut only = settings(Vec::new());
    only.export = Export::Only(vec!["open/+".to_owned()]);
    let link_only = link(only);
    let now = Now { mono_ms: 10_000, unix_ms: 1_700_000_000_000 };
    assert_eq!(push(&link_only, &[publication("secret/1", b"", QoS::AtLeastOnce)], now), Reached::Nobody);
    assert_eq!(push(&link_only, &[publication("open/1", b"", QoS::AtLeastOnce)], now), Reached::Somebody);
    assert_eq!(dropped(&link_only, LinkDropReason::Filter), 1);
    assert_eq!(link_only.metrics.spool_messages.value(), 1);
    // QoS 0 without a connection is gone, as the settings say, but was not refused.
    assert_eq!(push(&link_only, &[publication("open/1", b"", QoS::AtMostOnce)], now), Reached::Somebody);
    assert_eq!(dropped(&link_only, LinkDropReason::Offline), 1);
    let late = Publication {
        expiry: Some(Expiry { interval_seconds: 1, received_mono_ms: 0 }),
        ..publication("open/1", b"", QoS::AtLeastOnce)
    };
    assert_eq!(push(&link_only, &[late], now), Reached::Nobody);
    assert_eq!(dropped(&link_only, LinkDropReason::Expired), 1);
    let from_link = [publication("open/1", b"", QoS::AtLeastOnce)];
    assert_eq!(
        link_only.forwarder.push_run(&from_link, Source::Link("C"), now, &mut Vec::new()),
        Reached::Nobody
    );

    let mut disabled = settings(Vec::new());
    disabled.enable = false;
    assert_eq!(push(&link(disabled), &[publication("open/1", b"", QoS::AtLeastOnce)], now), Reached::Nobody);
}

#[test]
fn a_full_spool_that_refuses_says_so() {
    let mut refusing = settings(Vec::new());
    refusing.spool.on_full = settings::OnFull::Refuse;
    refusing.spool.max_bytes = 450;
    let link = link(refusing);
    let now = Now { mono_ms: 1, unix_ms: 1 };
    let (small, large) =
        (publication("t", &[7; 100], QoS::AtLeastOnce), publication("t", &[7; 500], QoS::AtLeastOnce));
    let mut refused = Vec::new();
    let source = identity();
    let source = Source::Client(&source, ClientKey(3));
    // Only those are refused for which there is no room.
    let reached = link.forwarder.push_run(&[large, small, small], source, now, &mut refused);
    assert_eq!((reached, &*refused), (Reached::Somebody, &[0, 2][..]));
    refused.clear();
    assert_eq!(link.forwarder.push_run(&[large], source, now, &mut refused), Reached::Nobody);
    assert_eq!(refused, [0]);
    assert_eq!(dropped(&link, LinkDropReason::SpoolFull), 3);
}

#[test]
fn a_message_keeps_what_mqtt_can_say_of_it() {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::ContentType("text/plain")).push(Property::UserProperty("k", "v"));
    let publication = Publication {
        properties: properties.as_properties().as_bytes(),
        expiry: Some(Expiry { interval_seconds: 60, received_mono_ms: 0 }),
        retain: true,
        ..publication("t/1", b"hello", QoS::ExactlyOnce)
    };
    let now = Now { mono_ms: 10_500, unix_ms: 1_700_000_000_000 };
    let identity = identity();
    let mut bytes = Vec::new();
    message::put(&mut bytes, &Outgoing { id: [9; 16], ..outgoing(&publication, &identity, now).unwrap() });
    let mut inflater = Inflater::default();
    let message = message::parse(inflater.open(&bytes).unwrap()).unwrap();
    assert_eq!((message.id, message.qos, message.retain), ([9; 16], QoS::ExactlyOnce, true));
    assert_eq!((message.from, message.username), (Some(&b"publisher"[..]), Some(&b"user"[..])));
    assert_eq!((message.topic, &*message.payload, message.timestamp_ms), ("t/1", &b"hello"[..], now.unix_ms));
    assert_eq!(message.properties.message_expiry_interval, Some(50));
    assert_eq!(message.properties.content_type, Some("text/plain"));
    assert_eq!(message.properties.user_properties.as_slice(), [("k", "v")]);
}
