//! What the Server answers to everything but PUBLISH, byte by byte where it matters (sections 3.4 to 3.15).

use tokio::io::AsyncReadExt;
use tokio::time;

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::Unsubscribe;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;
use tombolo::mqtt::reason::ReasonCode;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::harness::options;
use crate::harness::properties;

/// A client that takes packets of 24 bytes.
async fn small(broker: &Running) -> Client {
    let list = properties(&[Property::MaximumPacketSize(24)]);
    broker.try_stay(&Connect { properties: list.as_properties(), ..hello(Version::V5, "small") }).await.0
}

/// The next bytes are these.
async fn expect_bytes(client: &mut Client, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    let read = client.io.read_exact(&mut bytes);
    time::timeout(LIMIT, read).await.expect("an answer").unwrap();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn a_suback_has_the_identifier_and_a_code_for_each_filter_in_order() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let wanted = [("a", Q2), ("b/#/c", Q1), ("d", Q0), ("e", Q1)];
    let filters = wanted.iter().map(|&(filter, qos)| SubscribeFilter { filter, options: options(qos) });
    let packet_id = id(0xABCD);
    let subscribe = Subscribe { packet_id, properties: Properties::EMPTY, filters: filters.collect() };
    client.send(&Packet::Subscribe(subscribe)).await;
    assert_eq!(client.next().await, Got::SubAck(0xABCD, vec![2, 0x8F, 0, 1]));
    client.quiet().await;
    // Each counts as if it had come alone ([MQTT-3.8.4-5]).
    for (topic, qos) in [("a", Q2), ("d", Q0), ("e", Q1)] {
        client.publish(topic, b"", Q2).await;
        assert_eq!(client.receive().await.qos, qos);
    }
}

#[tokio::test]
async fn an_unsuback_has_the_identifier_and_a_code_for_each_filter_in_order() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        let list = [("a", options(Q0)), ("b", options(Q0)), ("c", options(Q0))];
        client.subscribe_as(&list, None).await;
        for (packet_id, filters, codes) in
            [(0x1234, &["a", "none", "c"][..], &[0, 0x11, 0][..]), (0x4321, &["none"], &[0x11])]
        {
            client
                .send(&Packet::Unsubscribe(Unsubscribe {
                    packet_id: id(packet_id),
                    properties: Properties::EMPTY,
                    filters: filters.iter().copied().collect(),
                }))
                .await;
            let codes = if version == Version::V5 { codes.to_vec() } else { Vec::new() };
            assert_eq!(client.next().await, Got::UnsubAck(packet_id, codes), "[MQTT-3.10.4-5]");
        }
        // All of one UNSUBSCRIBE are gone, and nothing else ([MQTT-3.10.4-6], [MQTT-3.10.4-2]).
        for topic in ["a", "b", "c"] {
            client.publish(topic, b"", Q0).await;
        }
        assert_eq!(client.receive().await.topic, "b");
        client.quiet().await;
        client.leave().await;
    }
}

#[tokio::test]
async fn filters_and_names_are_compared_character_by_character() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    // The same letter in one character and in two.
    let (one, two) = ("caf\u{e9}", "cafe\u{301}");
    let list = [("a/+", options(Q1)), ("B/b", options(Q1)), (one, options(Q1))];
    client.subscribe_as(&list, None).await;
    let others = client.unsubscribe(&["a/b", "a/#", "b/b", "B/b/", two]).await;
    assert_eq!(others, [0x11; 5], "[MQTT-3.10.4-1]");
    for (topic, reason) in [("a/b", 0), ("B/b", 0), (one, 0), ("b/b", 0x10), (two, 0x10), ("A/b", 0x10)] {
        assert_eq!(client.publish(topic, b"", Q1).await, reason, "[MQTT-4.7.3-4]: {topic}");
        if reason == 0 {
            assert_eq!(client.receive().await.topic, topic);
        }
    }
    assert_eq!(client.unsubscribe(&["a/+", "B/b", one]).await, [0; 3]);
    client.publish("a/b", b"", Q1).await;
    client.quiet().await;
}

#[tokio::test]
async fn what_was_begun_before_unsubscribe_is_finished() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    publisher.publish("t", b"one", Q1).await;
    publisher.publish("t", b"two", Q2).await;
    let (one, two) = (client.take().await, client.take().await);
    assert_eq!(client.unsubscribe(&["t"]).await, [0]);
    assert_eq!(publisher.publish("t", b"never", Q1).await, 0x10, "[MQTT-3.10.4-2]");
    client.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    for before in [one, two] {
        let got = client.receive().await;
        assert_eq!((got.packet_id, got.payload, got.dup), (before.packet_id, before.payload, true));
    }
    client.quiet().await; // [MQTT-3.10.4-3]
}

#[tokio::test]
async fn a_subscription_that_is_replaced_misses_nothing() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.publish_as(Publish { retain: true, qos: Q1, ..message("t", b"kept") }).await;
    let mut bytes = Vec::new();
    for n in 1..=20 {
        let subscribe = Subscribe {
            packet_id: id(n),
            properties: Properties::EMPTY,
            filters: [SubscribeFilter { filter: "t", options: options(Q0) }].into_iter().collect(),
        };
        bytes.extend(client.encoded(&Packet::Subscribe(subscribe)));
        bytes.extend(client.encoded(&Packet::Publish(message("t", n.to_string().as_bytes()))));
    }
    client.write(&bytes).await;
    let (mut live, mut kept) = (Vec::new(), 0);
    while live.len() < 20 || kept < 20 {
        match client.seek(|got| matches!(got, Got::Publish(_))).await {
            Got::Publish(message) if message.retain => kept += 1,
            Got::Publish(message) => live.push(message.text().to_owned()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(live, (1..=20).map(|n| n.to_string()).collect::<Vec<_>>(), "[MQTT-3.8.4-4]");
    while client.seek(|_| true).await != Got::SubAck(20, vec![0]) {}
    client.quiet().await;
}

#[tokio::test]
async fn answers_have_no_properties_that_outgrow_the_client() {
    let broker = Setup::new().acl("{deny, all, publish, [\"no\"]}. {allow, all}.").start().await;
    let mut client = small(&broker).await;
    for (sent, answer) in [
        (&[0x62, 2, 0, 9][..], &[0x70, 3, 0, 9, 0x92][..]), // PUBREL: [MQTT-3.7.2-2], [MQTT-3.7.2-3]
        (&[0x50, 2, 0, 9], &[0x62, 3, 0, 9, 0x92]),         // PUBREC: [MQTT-3.6.2-2], [MQTT-3.6.2-3]
        (&[0xA2, 6, 0, 9, 0, 0, 1, b'x'], &[0xB0, 4, 0, 9, 0, 0x11]), // [MQTT-3.11.2-1], [MQTT-3.11.2-2]
        (&[0x82, 8, 0, 9, 0, 0, 2, b'a', b'#', 0], &[0x90, 4, 0, 9, 0, 0x8F]), // [MQTT-3.9.2-1]
        (&[0x32, 7, 0, 2, b'n', b'o', 0, 9, 0], &[0x40, 3, 0, 9, 0x87]), // [MQTT-3.4.2-2], [MQTT-3.4.2-3]
        (&[0x34, 7, 0, 2, b'n', b'o', 0, 9, 0], &[0x50, 3, 0, 9, 0x87]), // [MQTT-3.5.2-2], [MQTT-3.5.2-3]
        (&[0xC0, 0], &[0xD0, 0]),
        (&[0x00, 0], &[0xE0, 2, 0x81, 0]), // [MQTT-3.14.2-3], [MQTT-3.14.2-4]
    ] {
        client.write(sent).await;
        expect_bytes(&mut client, answer).await;
    }
    assert_eq!(client.next().await, Got::Closed);
}

#[tokio::test]
async fn nothing_behind_disconnect_is_handled() {
    let broker = broker().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q1).await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        let mut bytes = client.encoded(&Packet::Publish(message("t", b"before")));
        let leaving = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        bytes.extend(client.encoded(&Packet::Disconnect(leaving)));
        bytes.extend(client.encoded(&Packet::Publish(message("t", b"behind"))));
        bytes.extend(client.encoded(&Packet::PingReq));
        client.write(&bytes).await;
        assert_eq!(client.next().await, Got::Closed, "[MQTT-3.14.4-1]");
        assert_eq!(watcher.receive().await.text(), "before");
        watcher.quiet().await;
    }
}

#[tokio::test]
async fn a_disconnect_of_the_server_is_its_last_word_and_says_no_expiry() {
    let broker = broker().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    let (mut next, _) = broker.stay(Version::V5, "c").await;
    assert_eq!(client.next().await, Got::Disconnect(0x8E));
    let list = Properties::parse(&client.properties, PropertyContext::Disconnect).unwrap();
    assert_eq!(list.session_expiry_interval(), None, "[MQTT-3.14.2-2]");
    assert_eq!(client.next().await, Got::Closed, "[MQTT-3.14.4-2]");
    // A fault of the client: said once, and then nothing, whatever else it sends.
    next.write(&[0x00, 0x00, 0xC0, 0x00]).await;
    assert_eq!(next.next().await, Got::Disconnect(0x81), "[MQTT-4.13.1-1]");
    let list = Properties::parse(&next.properties, PropertyContext::Disconnect).unwrap();
    assert_eq!(list.session_expiry_interval(), None);
    assert_eq!(next.next().await, Got::Closed, "[MQTT-4.13.2-1]");
}

#[tokio::test]
async fn no_disconnect_comes_before_connack() {
    let broker = broker().await;
    // A CONNECT with a reserved flag, and a good one with rubbish right behind it.
    let bad = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 0, 0, 0, 1, b'c'];
    let mut client = broker.open().await;
    client.write(&bad).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0x81));
    assert_eq!(client.next().await, Got::Closed, "[MQTT-3.14.0-1]");
    let mut client = broker.open().await;
    let mut bytes = client.encoded(&Packet::Connect(Box::new(hello(Version::V5, "c"))));
    bytes.extend([0x00, 0x00]);
    client.write(&bytes).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
    client.refused(0x81).await;
}

#[tokio::test]
async fn no_auth_and_no_method_comes_to_who_named_none() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let list = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!((list.authentication_method(), list.authentication_data()), (None, None), "[MQTT-4.12.0-6]");
    client.quiet().await;
    for (bytes, reason) in [(&[0xF1, 0][..], 0x81), (&[0xF0, 2, 0x01, 0], 0x82), (&[0xF0, 2, 0x87, 0], 0x82)]
    {
        let mut client = broker.join(Version::V5, "c").await;
        client.write(bytes).await;
        client.refused(reason).await; // [MQTT-3.15.1-1], [MQTT-3.15.2-1]
    }
}

#[tokio::test]
async fn several_copies_carry_each_its_own_identifier() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    for (n, filter) in [(1, "t"), (2, "$share/g/t"), (3, "$share/h/+"), (4, "#")] {
        client.subscribe_as(&[(filter, options(Q1))], Some(n)).await;
    }
    client.publish("t", b"", Q1).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        let got = client.receive().await;
        let mut ids: Vec<_> = got.properties().subscription_identifiers().collect();
        ids.sort_unstable();
        all.push(ids);
    }
    client.quiet().await;
    all.sort();
    assert_eq!(all, [vec![1, 4], vec![2], vec![3]], "[MQTT-3.3.4-4], [MQTT-3.3.4-5]");
}

#[tokio::test]
async fn a_message_without_retain_leaves_the_retained_one_alone() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.publish("t", b"live", Q2).await;
    client.subscribe("t", Q0).await;
    client.quiet().await;
    client.unsubscribe(&["t"]).await;
    client.publish_as(Publish { retain: true, qos: Q1, ..message("t", b"kept") }).await;
    for payload in [&b"live"[..], b""] {
        client.publish("t", payload, Q1).await;
    }
    client.subscribe("t", Q0).await;
    assert_eq!(client.receive().await.text(), "kept", "[MQTT-3.3.1-8]");
    client.quiet().await;
}
