//! Shared Subscriptions (section 4.8.2).

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::options;

#[tokio::test]
async fn members_take_turns_and_groups_each_get_a_copy() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut one, mut two) = (broker.join(Version::V5, "1").await, broker.join(Version::V311, "2").await);
    let (mut other, mut plain) = (broker.join(Version::V5, "3").await, broker.join(Version::V5, "4").await);
    one.subscribe_as(&[("$share/g/s/#", options(Q1))], Some(5)).await;
    two.subscribe("$share/g/s/#", Q1).await;
    other.subscribe("$share/h/s/+", Q1).await;
    plain.subscribe("s/t", Q1).await;
    for n in 0..10 {
        assert_eq!(publisher.publish("s/t", n.to_string().as_bytes(), Q1).await, 0);
    }
    let mine = one.receive_texts(5).await;
    let theirs = two.receive_texts(5).await;
    one.quiet().await;
    two.quiet().await;
    let mut all = [mine, theirs].concat();
    all.sort();
    assert_eq!(all, crate::publish::numbers(10), "each message to one member of a group");
    assert_eq!(other.receive_texts(10).await, crate::publish::numbers(10));
    assert_eq!(plain.receive_texts(10).await, crate::publish::numbers(10));
    assert_eq!(broker.metric("tombolo_shared_subscriptions"), 3);
}

#[tokio::test]
async fn a_member_that_is_away_gets_it_only_if_nobody_is_there() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("$share/g/t", Q1).await;
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    let mut here = broker.join(Version::V5, "here").await;
    here.subscribe("$share/g/t", Q1).await;
    for n in 0..4 {
        publisher.publish("t", n.to_string().as_bytes(), Q1).await;
    }
    assert_eq!(here.receive_texts(4).await, crate::publish::numbers(4));
    here.leave().await;
    broker.until_metric("tombolo_sessions", 2).await;
    assert_eq!(publisher.publish("t", b"kept", Q1).await, 0);
    let (mut away, present) = broker.stay(Version::V5, "away").await;
    assert!(present);
    assert_eq!(away.receive().await.text(), "kept");
}

#[tokio::test]
async fn they_get_no_retained_messages_and_no_no_local() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.publish_as(Publish { retain: true, qos: Q1, ..message("t", b"kept") }).await;
    client.subscribe("$share/g/t", Q0).await;
    client.quiet().await;
    let no_local = SubscriptionOptions { no_local: true, ..options(Q0) };
    let packet_id = client.fresh_id();
    // The encoder refuses to say it: [MQTT-3.8.3-4].
    let subscribe = Subscribe {
        packet_id,
        properties: Properties::EMPTY,
        filters: [SubscribeFilter { filter: "$share/g/t", options: options(Q0) }].into_iter().collect(),
    };
    let mut bytes = client.encoded(&Packet::Subscribe(subscribe));
    *bytes.last_mut().unwrap() = 0b100;
    assert!(no_local.no_local);
    client.write(&bytes).await;
    client.refused(0x82).await;
}

#[tokio::test]
async fn leaving_a_group_is_by_its_whole_name() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("$share/g/t", Q0).await;
    assert_eq!(client.unsubscribe(&["t", "$share/h/t", "$share/g/t"]).await, [0x11, 0x11, 0]);
    assert_eq!(client.publish("t", b"", Q1).await, 0x10);
}

async fn members(broker: &Running, count: usize) -> Vec<Client> {
    let mut members = Vec::new();
    for n in 0..count {
        let mut member = broker.join(Version::V5, &format!("member-{n}")).await;
        member.subscribe("$share/g/#", Q0).await;
        members.push(member);
    }
    members
}

/// The topics that each member was sent.
async fn received(members: &mut [Client]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for member in members {
        member.send(&Packet::PingReq).await;
        let mut topics = Vec::new();
        loop {
            match member.next().await {
                Got::Publish(message) => topics.push(message.topic),
                Got::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
        all.push(topics);
    }
    all
}

async fn start(strategy: &str) -> (Running, Client, Vec<Client>) {
    let setup = Setup::new().mqtt(&format!("shared_subscription_strategy = \"{strategy}\""));
    let broker = setup.start().await;
    let members = members(&broker, 3).await;
    let publisher = broker.join(Version::V5, "p").await;
    (broker, publisher, members)
}

#[tokio::test]
async fn any_member_gets_some() {
    for strategy in ["random", "local", "round_robin"] {
        let (_broker, mut publisher, mut members) = start(strategy).await;
        for n in 0..60 {
            publisher.publish(&format!("t/{n}"), b"", Q1).await;
        }
        let all = received(&mut members).await;
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 60);
        assert!(all.iter().all(|topics| topics.len() > 5), "{strategy}: {all:?}");
    }
}

#[tokio::test]
async fn a_topic_or_a_publisher_stays_with_its_member() {
    let (_broker, mut publisher, mut members) = start("hash_topic").await;
    for n in 0..60 {
        publisher.publish(&format!("t/{}", n % 10), b"", Q1).await;
    }
    let all = received(&mut members).await;
    for n in 0..10 {
        let topic = format!("t/{n}");
        let of_topic = |topics: &Vec<String>| topics.iter().filter(|other| **other == topic).count();
        let counts: Vec<usize> = all.iter().map(of_topic).collect();
        assert!(counts.iter().all(|count| [0, 6].contains(count)) && counts.contains(&6), "{counts:?}");
    }
    assert!(all.iter().filter(|topics| !topics.is_empty()).count() > 1, "not all to one");

    let (broker, _, mut members) = start("hash_clientid").await;
    let mut used = std::collections::BTreeSet::new();
    for n in 0..8 {
        let mut publisher = broker.join(Version::V5, &format!("publisher-{n}")).await;
        for n in 0..5 {
            publisher.publish(&format!("t/{n}"), b"", Q1).await;
        }
        let counts: Vec<usize> = received(&mut members).await.iter().map(Vec::len).collect();
        used.insert(counts.iter().position(|count| *count == 5).expect("all to one member"));
    }
    assert!(used.len() > 1, "not all publishers to one");
}

#[tokio::test]
async fn sticky_stays_until_the_member_leaves() {
    let (broker, mut publisher, mut members) = start("sticky").await;
    for left in [3, 2, 1] {
        for n in 0..5 {
            publisher.publish(&format!("t/{n}"), b"", Q1).await;
        }
        let counts: Vec<usize> = received(&mut members).await.iter().map(Vec::len).collect();
        let at = counts.iter().position(|count| *count == 5).expect("all to one member");
        members.remove(at).leave().await;
        broker.until_metric("tombolo_shared_subscriptions", left - 1).await;
    }
}

#[tokio::test]
async fn what_a_member_did_not_finish_goes_to_another() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut one, mut two) = (broker.join(Version::V5, "1").await, broker.join(Version::V5, "2").await);
    for member in [&mut one, &mut two] {
        member.subscribe("$share/g/t", Q2).await;
    }
    for (payload, qos) in [("a", Q1), ("b", Q1), ("c", Q2), ("d", Q2), ("e", Q1), ("f", Q1)] {
        publisher.publish("t", payload.as_bytes(), qos).await;
    }
    assert_eq!(two.receive_texts(3).await, ["b", "d", "f"]);
    for (payload, qos) in [("a", Q1), ("c", Q2), ("e", Q1)] {
        let message = one.take().await;
        assert_eq!((message.text(), message.qos), (payload, qos));
    }
    one.vanish().await;
    // Sent at QoS 2 it goes to nobody else: [MQTT-4.8.2-5].
    for payload in ["a", "e"] {
        let message = two.receive().await;
        assert_eq!((message.text(), message.qos, message.dup), (payload, Q1, false));
    }
    two.quiet().await;
}

#[tokio::test]
async fn what_waits_for_a_member_outlives_its_session() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut away, _) = broker.stay(Version::V5, "away").await;
    away.subscribe("$share/g/t", Q2).await;
    away.subscribe("own", Q2).await;
    publisher.publish("t", b"sent", Q1).await;
    assert_eq!(away.take().await.text(), "sent");
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    for (topic, payload, qos) in [("t", "a", Q1), ("own", "x", Q1), ("t", "b", Q2), ("t", "c", Q0)] {
        publisher.publish(topic, payload.as_bytes(), qos).await;
    }
    publisher.quiet().await; // its QoS 0 message was delivered
    let mut here = broker.join(Version::V5, "here").await;
    here.subscribe("$share/g/t", Q2).await;
    here.quiet().await;
    let mut again = broker.open().await;
    assert_eq!(again.connect(&hello(Version::V5, "away")).await, Got::ConnAck(false, 0));
    assert_eq!(here.receive_texts(4).await, ["sent", "a", "b", "c"]);
    again.quiet().await;
    assert_eq!(broker.metric("tombolo_messages_dropped_total{reason=\"session_ended\"}"), 1, "its own");
}

#[tokio::test]
async fn each_member_gets_what_was_granted_to_it() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut members = Vec::new();
    for (id, granted) in [("0", Q0), ("1", Q1), ("2", Q2)] {
        let mut member = broker.join(Version::V5, id).await;
        assert_eq!(member.subscribe("$share/g/t", granted).await, granted as u8);
        members.push((member, granted));
    }
    for _ in 0..3 {
        publisher.publish("t", b"", Q2).await;
    }
    for (member, granted) in &mut members {
        assert_eq!(member.receive().await.qos, *granted, "[MQTT-4.8.2-3]");
        member.quiet().await;
    }
}

#[tokio::test]
async fn a_qos_2_delivery_waits_for_its_member_to_come_back() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut one, _) = broker.stay(Version::V5, "1").await;
    one.subscribe("$share/g/t", Q2).await;
    publisher.publish("t", b"begun", Q2).await;
    let begun = one.take().await;
    let mut two = broker.join(Version::V5, "2").await;
    two.subscribe("$share/g/t", Q2).await;
    one.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 2).await;
    two.quiet().await;
    let (mut one, present) = broker.stay(Version::V5, "1").await;
    assert!(present);
    let again = one.receive().await;
    assert_eq!(
        (again.packet_id, again.text(), again.dup),
        (begun.packet_id, "begun", true),
        "[MQTT-4.8.2-4]"
    );
    two.quiet().await;
}

#[tokio::test]
async fn what_a_member_refuses_goes_to_nobody_else() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut one = broker.join(Version::V5, "1").await;
    one.subscribe("$share/g/t", Q2).await;
    let mut ids = Vec::new();
    for qos in [Q1, Q2] {
        publisher.publish("t", b"no", qos).await;
        ids.push(one.take().await.packet_id.unwrap());
    }
    let mut two = broker.join(Version::V5, "2").await;
    two.subscribe("$share/g/t", Q2).await;
    for (kind, packet_id) in [(PacketType::PubAck, ids[0]), (PacketType::PubRec, ids[1])] {
        one.ack(kind, packet_id, ReasonCode::NotAuthorized).await;
    }
    one.quiet().await;
    two.quiet().await;
    // Not even when the member is gone for good.
    one.leave().await;
    broker.until_metric("tombolo_shared_subscriptions", 1).await;
    two.quiet().await; // [MQTT-4.8.2-6]
    assert_eq!(broker.metric("tombolo_messages_dropped_total{reason=\"session_ended\"}"), 0);
}
