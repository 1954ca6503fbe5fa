//! Bytes and packets that must not be (section 4.13, `reliability.md` 3.2 classes A to D): each ends its own
//! connection with the right answer, and nobody else's.

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;

/// Every byte may be the first one, even in front of what would be a CONNECT: no other gets an answer, and all get
/// closed.
#[tokio::test]
async fn nothing_but_connect_comes_first() {
    let broker = broker().await;
    let mut other = broker.join(Version::V5, "other").await;
    let mut closed = 0;
    for first in (0..=255_u8).filter(|first| *first != 0x10) {
        let mut client = broker.open().await;
        client.write(&[first, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'c']).await;
        assert_eq!(client.next().await, Got::Closed, "{first:#04x}");
        closed += 1;
    }
    broker.until_metric("tombolo_connections_rejected_total{reason=\"malformed_connect\"}", closed).await;
    other.quiet().await;
}

#[tokio::test]
async fn a_connect_that_is_none_is_refused() {
    let broker = broker().await;
    let good = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'c'];
    let with = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        bytes
    };
    // (what, bytes, Reason Code in CONNACK, if one can be sent)
    let cases: [(&str, [u8; 16], Option<u8>); 5] = [
        ("another protocol name", with(7, b'X'), None),
        ("a reserved flag", with(9, 3), Some(0x81)),
        ("Will QoS 3", with(9, 0b0001_1110), Some(0x81)),
        ("a Will QoS without a Will", with(9, 0b0000_1010), Some(0x81)),
        ("a Client Identifier that is not UTF-8", with(15, 0xFF), Some(0x81)),
    ];
    for (what, bytes, answer) in cases {
        let mut client = broker.open().await;
        client.write(&bytes).await;
        if let Some(reason) = answer {
            assert_eq!(client.next().await, Got::ConnAck(false, reason), "{what}");
        }
        assert_eq!(client.next().await, Got::Closed, "{what}");
    }
    let mut client = broker.open().await;
    client.write(&good).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
}

#[tokio::test]
async fn packets_of_a_server_and_a_second_connect() {
    let broker = broker().await;
    let mut other = broker.join(Version::V5, "other").await;
    for version in VERSIONS {
        for kind in [PacketType::ConnAck, PacketType::SubAck, PacketType::UnsubAck, PacketType::PingResp] {
            let mut client = broker.join(version, "c").await;
            let body: &[u8] = match (kind, version) {
                (PacketType::ConnAck, Version::V5) => &[0, 0, 0],
                (PacketType::ConnAck, _) => &[0, 0],
                (PacketType::SubAck | PacketType::UnsubAck, Version::V5) => &[0, 1, 0, 0],
                (PacketType::SubAck, _) => &[0, 1, 0],
                (PacketType::UnsubAck, _) => &[0, 1],
                _ => &[],
            };
            client.write(&[&[kind.as_u8() << 4, body.len() as u8], body].concat()).await;
            client.refused(0x82).await;
        }
        let mut client = broker.join(version, "c").await;
        client.send(&Packet::Connect(Box::new(hello(version, "c")))).await;
        client.refused(0x82).await;
        let mut client = broker.join(version, "c").await;
        client.write(&[0xF0, 0]).await;
        client.refused(if version == Version::V5 { 0x82 } else { 0x81 }).await;
        other.quiet().await;
    }
}

#[tokio::test]
async fn malformed_packets_by_class() {
    let broker = broker().await;
    let mut other = broker.join(Version::V5, "other").await;
    other.subscribe("t", Q1).await;
    let cases: &[(&str, &[u8], u8)] = &[
        ("type 0", &[0x00, 0x00], 0x81),
        ("a length of five bytes", &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], 0x81),
        ("PUBLISH with QoS 3", &[0x36, 5, 0, 1, b't', 0, 1], 0x81),
        ("DUP with QoS 0", &[0x38, 4, 0, 1, b't', 0], 0x81),
        ("a topic with a wildcard", &[0x30, 4, 0, 1, b'#', 0], 0x90),
        ("a topic with NUL", &[0x30, 4, 0, 1, 0, 0], 0x81),
        ("a topic that is not UTF-8", &[0x30, 4, 0, 1, 0xC0, 0], 0x81),
        ("a topic longer than its packet", &[0x30, 4, 0, 9, b't', 0], 0x81),
        ("no topic and no alias", &[0x30, 3, 0, 0, 0], 0x82),
        ("Packet Identifier 0", &[0x32, 6, 0, 1, b't', 0, 0, 0], 0x81),
        ("Topic Alias 0", &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0], 0x94),
        ("a property twice", &[0x30, 8, 0, 1, b't', 4, 0x01, 0, 0x01, 0], 0x82),
        ("a property of another packet", &[0x30, 9, 0, 1, b't', 5, 0x11, 0, 0, 0, 1], 0x82),
        ("Subscription Identifier from a client", &[0x30, 6, 0, 1, b't', 2, 0x0B, 1], 0x82),
        ("properties longer than the packet", &[0x30, 5, 0, 1, b't', 9, 0x01], 0x81),
        ("SUBSCRIBE with flags 0", &[0x80, 7, 0, 1, 0, 0, 1, b't', 0], 0x81),
        ("SUBSCRIBE without a filter", &[0x82, 3, 0, 1, 0], 0x82),
        ("SUBSCRIBE with QoS 3", &[0x82, 7, 0, 1, 0, 0, 1, b't', 3], 0x82),
        ("SUBSCRIBE with reserved options", &[0x82, 7, 0, 1, 0, 0, 1, b't', 0xC0], 0x81),
        ("SUBSCRIBE with Retain Handling 3", &[0x82, 7, 0, 1, 0, 0, 1, b't', 0x30], 0x82),
        ("Subscription Identifier 0", &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b't', 0], 0x82),
        ("UNSUBSCRIBE without a filter", &[0xA2, 3, 0, 1, 0], 0x82),
        ("PUBACK without an identifier", &[0x40, 1, 0], 0x81),
        ("PUBREL with flags 0", &[0x60, 2, 0, 1], 0x81),
        ("PINGREQ with a body", &[0xC0, 1, 0], 0x81),
        ("DISCONNECT with flags", &[0xE1, 0], 0x81),
    ];
    for (what, bytes, reason) in cases {
        let mut client = broker.join(Version::V5, "c").await;
        client.write(bytes).await;
        match client.next().await {
            Got::Disconnect(got) => {
                // 0x81 and 0x82 are both right where the standard calls a fault malformed or an error.
                let near = [*reason, got].iter().all(|code| matches!(code, 0x81 | 0x82 | 0x90 | 0x94));
                assert!(near, "{what}: {got:#04x}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(client.next().await, Got::Closed, "{what}");
    }
    for version in [Version::V31, Version::V311] {
        for bytes in [&[0x36, 5, 0, 1, b't', 0, 1][..], &[0x80, 6, 0, 1, 0, 1, b't', 0], &[0x00, 0x00]] {
            let mut client = broker.join(version, "c").await;
            client.write(bytes).await;
            assert_eq!(client.next().await, Got::Closed);
        }
    }
    // The broker goes on serving others.
    assert_eq!(other.publish("t", b"still here", Q1).await, 0);
    assert_eq!(other.receive().await.text(), "still here");
}

#[tokio::test]
async fn what_came_before_a_fault_counts() {
    let broker = broker().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q1).await;
    let mut client = broker.join(Version::V5, "c").await;
    let mut bytes = client.encoded(&Packet::Publish(message("t", b"good")));
    bytes.extend_from_slice(&[0x00, 0x00]);
    bytes.extend_from_slice(&client.encoded(&Packet::Publish(message("t", b"never read"))));
    client.write(&bytes).await;
    client.refused(0x81).await;
    assert_eq!(watcher.receive().await.text(), "good");
    watcher.quiet().await;
}

#[tokio::test]
async fn a_reason_string_only_where_it_is_welcome() {
    use tombolo::mqtt::packet::Connect;
    use tombolo::mqtt::property::Property;
    let broker = broker().await;
    for (welcome, said) in [(true, true), (false, false)] {
        let list = crate::harness::properties(&[Property::RequestProblemInformation(welcome)]);
        let mut client = broker.open().await;
        client.connect(&Connect { properties: list.as_properties(), ..hello(Version::V5, "c") }).await;
        client.write(&[0x00, 0x00]).await;
        client.refused(0x81).await;
        assert_eq!(!client.properties.is_empty(), said, "[MQTT-3.1.2-29]");
    }
}

#[tokio::test]
async fn many_half_open_connections_cost_nothing_else() {
    let broker = broker().await;
    let mut half_open = Vec::new();
    for _ in 0..200 {
        let mut client = broker.open().await;
        // A CONNECT that claims to be long, and never goes on.
        client.write(&[0x10, 0xFF, 0xFF, 0x03, 0, 4]).await;
        half_open.push(client);
    }
    broker.join(Version::V311, "c").await.quiet().await;
    drop(half_open);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"lost\"}", 200).await;
}
