//! Where MQTT 3.1 and 3.1.1 differ from 5.0, seen on the wire (`tests/conformance/v3.tsv` names the rows).

use tokio::io::AsyncReadExt;
use tokio::time;

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::options;
use crate::harness::properties;

const OLDER: [Version; 2] = [Version::V31, Version::V311];

/// CONNECT: flags, a Keep Alive of 0, and what stands behind it.
fn connect(version: Version, flags: u8, behind: &[u8]) -> Vec<u8> {
    let (name, level): (&[u8], u8) =
        if version == Version::V31 { (b"\0\x06MQIsdp", 3) } else { (b"\0\x04MQTT", 4) };
    let mut bytes = vec![0x10, (name.len() + 4 + behind.len()) as u8];
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&[level, flags, 0, 0]);
    bytes.extend_from_slice(behind);
    bytes
}

/// The next bytes are these, and nothing else before them.
async fn reads(client: &mut Client, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    let read = time::timeout(LIMIT, client.io.read_exact(&mut bytes)).await;
    read.expect("bytes come").unwrap();
    assert_eq!(bytes, expected);
}

/// No byte comes any more.
async fn ends(client: &mut Client) {
    let mut byte = [0];
    let read = time::timeout(LIMIT, client.io.read(&mut byte)).await.expect("the end comes");
    assert!(matches!(read, Ok(0) | Err(_)), "{byte:02x?}");
}

/// Sends bytes, expects bytes, on a connection whose CONNECT was taken.
async fn joined(broker: &Running, version: Version, id: u8) -> Client {
    let mut client = broker.open().await;
    client.version = version;
    client.write(&connect(version, 0x02, &[0, 1, id])).await;
    reads(&mut client, &[0x20, 2, 0, 0]).await;
    client
}

#[tokio::test]
async fn connack_has_return_codes_and_no_properties() {
    let setup = Setup::new()
        .mqtt("max_clientid_len = 23")
        .authentication("allow_anonymous = false\npassword_file = \"{dir}/passwd\"");
    passwords(&setup, &[("u", "p")]);
    let broker = setup.start().await;
    let long = [&[0, 24][..], &[b'x'; 24]].concat();
    for version in OLDER {
        let cases: [(u8, &[u8], u8); 4] = [
            (0xC2, b"\0\x01c\0\x01u\0\x01p", 0),
            (0x02, &long, 2),
            (0xC2, b"\0\x01c\0\x01u\0\x01x", 5),
            (0x02, b"\0\x01c", 5),
        ];
        for (flags, behind, code) in cases {
            let mut client = broker.open().await;
            client.write(&connect(version, flags, behind)).await;
            reads(&mut client, &[0x20, 2, 0, code]).await;
            if code != 0 {
                ends(&mut client).await;
            }
        }
    }
}

/// 3.1.1 section 3.1.4: one that does not conform is not answered. Nor is a refusal that no return code says.
#[tokio::test]
async fn a_connect_that_does_not_conform_is_not_answered() {
    let broker = Setup::new().mqtt("max_qos_allowed = 1\nretain_available = false").start().await;
    for version in OLDER {
        let cases: [(&str, u8, &[u8]); 9] = [
            ("Will QoS 3", 0x1E, b"\0\x01c\0\x01w\0\0"),
            ("a Will QoS without a Will", 0x0A, b"\0\x01c"),
            ("a Password without a User Name", 0x42, b"\0\x01c\0\x01p"),
            ("a Client Identifier that is not UTF-8", 0x02, b"\0\x01\xff"),
            ("a Will to a filter", 0x06, b"\0\x01c\0\x01#\0\0"),
            ("a field cut off", 0x02, b"\0\x09c"),
            ("a field too many", 0x02, b"\0\x01c\0"),
            ("a Will above the Maximum QoS", 0x16, b"\0\x01c\0\x01w\0\0"),
            ("a retained Will where that is off", 0x26, b"\0\x01c\0\x01w\0\0"),
        ];
        for (what, flags, behind) in cases {
            let mut client = broker.open().await;
            client.write(&connect(version, flags, behind)).await;
            let mut byte = [0];
            let read = time::timeout(LIMIT, client.io.read(&mut byte)).await.expect("the end comes");
            assert!(matches!(read, Ok(0) | Err(_)), "{version:?}: {what}: {byte:02x?}");
        }
    }
    assert_eq!(broker.metric("tombolo_sessions"), 0);
    assert_eq!(broker.metric("tombolo_packets_sent_total{type=\"connack\"}"), 0);
}

#[tokio::test]
async fn an_empty_identifier_needs_clean_session_and_3_1_has_none() {
    let broker = broker().await;
    for (version, flags, code) in
        [(Version::V31, 0x00, 2), (Version::V31, 0x02, 2), (Version::V311, 0x00, 2), (Version::V311, 0x02, 0)]
    {
        let mut client = broker.open().await;
        client.write(&connect(version, flags, b"\0\0")).await;
        reads(&mut client, &[0x20, 2, 0, code]).await;
        if code != 0 {
            ends(&mut client).await;
        }
    }
}

/// 3.1 ends at 23 characters; we go on, as everybody does.
#[tokio::test]
async fn a_long_identifier_is_taken_in_3_1() {
    let broker = broker().await;
    let long = "x".repeat(200);
    for id in ["x", &long[..23], &long[..24], &long] {
        broker.join(Version::V31, id).await.quiet().await;
    }
}

#[tokio::test]
async fn session_present_is_said_in_3_1_1_and_not_in_3_1() {
    let broker = broker().await;
    for (version, present) in [(Version::V31, 0), (Version::V311, 1)] {
        for expected in [0, present] {
            let mut client = broker.open().await;
            client.write(&connect(version, 0x00, b"\0\x01c")).await;
            reads(&mut client, &[0x20, 2, expected, 0]).await;
            client.write(&[0xE0, 0]).await;
            ends(&mut client).await;
        }
        broker.join(Version::V5, "c").await.leave().await;
        broker.until_metric("tombolo_sessions", 0).await;
    }
}

/// The reserved Connect Flag is unused in 3.1 and must be 0 in 3.1.1; a User Name that is promised may be missing
/// in 3.1 alone.
#[tokio::test]
async fn a_connect_of_3_1_may_be_looser() {
    let broker = broker().await;
    for (flags, behind) in [(0x03, &b"\0\x01c"[..]), (0xC2, b"\0\x01c"), (0xC2, b"\0\x01c\0\x01u")] {
        let mut client = broker.open().await;
        client.write(&connect(Version::V31, flags, behind)).await;
        reads(&mut client, &[0x20, 2, 0, 0]).await;
        let mut client = broker.open().await;
        client.write(&connect(Version::V311, flags, behind)).await;
        ends(&mut client).await;
    }
}

#[tokio::test]
async fn answers_are_bare() {
    let broker = broker().await;
    for version in OLDER {
        let mut client = joined(&broker, version, b'c').await;
        // SUBSCRIBE and SUBACK without properties, then one that is asked for twice.
        client.write(b"\x82\x0a\0\x01\0\x01t\x02\0\x01u\x01").await;
        reads(&mut client, &[0x90, 4, 0, 1, 2, 1]).await;
        client.write(b"\xa2\x08\0\x02\0\x01u\0\x01x").await;
        reads(&mut client, &[0xB0, 2, 0, 2]).await;
        // Nobody subscribes to it, which only 5.0 says.
        client.write(b"\x32\x05\0\x01x\0\x03").await;
        reads(&mut client, &[0x40, 2, 0, 3]).await;
        client.write(b"\x34\x05\0\x01x\0\x04").await;
        reads(&mut client, &[0x50, 2, 0, 4]).await;
        client.write(&[0x62, 2, 0, 4]).await;
        reads(&mut client, &[0x70, 2, 0, 4]).await;
        // Identifiers of nothing: the code 0x92 is 5.0's.
        client.write(&[0x62, 2, 0, 9]).await;
        reads(&mut client, &[0x70, 2, 0, 9]).await;
        client.write(&[0x50, 2, 0, 9]).await;
        reads(&mut client, &[0x62, 2, 0, 9]).await;
        client.write(&[0xC0, 0]).await;
        reads(&mut client, &[0xD0, 0]).await;
    }
}

#[tokio::test]
async fn a_message_of_5_0_arrives_without_its_properties() {
    let broker = broker().await;
    let list = properties(&[
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(60),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("r"),
        Property::UserProperty("a", "b"),
    ]);
    let mut publisher = broker.join(Version::V5, "p").await;
    for version in OLDER {
        let mut client = joined(&broker, version, b'c').await;
        client.write(b"\x82\x11\0\x01\0\x0ctopic/longer\x01").await;
        reads(&mut client, &[0x90, 3, 0, 1, 1]).await;
        // Three times, since the second would get a Topic Alias where there are some.
        for id in 1..=3 {
            let publish = message("topic/longer", b"hi");
            let publish = Publish { qos: Q1, properties: list.as_properties(), ..publish };
            assert_eq!(publisher.publish_as(publish).await, 0);
            reads(&mut client, &[b"\x32\x12\0\x0ctopic/longer\0".as_slice(), &[id], b"hi"].concat()).await;
            client.write(&[0x40, 2, 0, id]).await;
        }
    }
}

/// 3.1.1 has one failure, 0x80. 3.1 has none: its section 3.8 has the client told that it was granted what it
/// asked for, and it gets nothing.
#[tokio::test]
async fn a_refused_subscription_is_0x80_in_3_1_1_and_granted_in_3_1() {
    let broker = Setup::new()
        .acl("{deny, all, all, [\"no/#\"]}. {allow, all}.")
        .mqtt("max_qos_allowed = 1\nshared_subscription = false")
        .start()
        .await;
    let list = [("no/a", options(Q2)), ("a#", options(Q1)), ("$share/g/t", options(Q0)), ("t", options(Q0))];
    for (version, reasons) in [(Version::V31, [1, 1, 0, 0]), (Version::V311, [0x80, 0x80, 0x80, 0])] {
        let mut client = broker.join(version, "c").await;
        assert_eq!(client.subscribe_as(&list, None).await, reasons, "{version:?}");
        assert_eq!(broker.metric("tombolo_subscriptions"), 1);
        client.publish("t", b"x", Q0).await;
        assert_eq!(client.receive().await.topic, "t");
        client.leave().await;
        broker.until_metric("tombolo_subscriptions", 0).await;
    }
}

/// No DISCONNECT of a Server before 5.0: it closes, whatever the reason.
#[tokio::test]
async fn the_server_only_closes() {
    let broker = broker().await;
    for version in OLDER {
        let mut taken_over = joined(&broker, version, b'c').await;
        let mut faulty = joined(&broker, version, b'c').await;
        ends(&mut taken_over).await;
        faulty.write(&[0x00, 0x00]).await;
        ends(&mut faulty).await;
        let mut silent = broker.open().await;
        let mut bytes = connect(version, 0x02, b"\0\x01s");
        let keep_alive_at = bytes.len() - 4;
        bytes[keep_alive_at] = 1;
        silent.write(&bytes).await;
        reads(&mut silent, &[0x20, 2, 0, 0]).await;
        ends(&mut silent).await;
    }
}

/// A DISCONNECT is two bytes and always takes the Will back; one with more is malformed, and the Will is due.
#[tokio::test]
async fn a_disconnect_has_no_body() {
    let broker = broker().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("w", Q1).await;
    for version in OLDER {
        for (disconnect, published) in [(&[0xE0, 0][..], false), (&[0xE0, 1, 0x00], true)] {
            let will =
                Will { qos: Q1, retain: false, properties: Properties::EMPTY, topic: "w", payload: b"x" };
            let mut client = broker.open().await;
            let asked = Connect { will: Some(will), ..hello(version, "c") };
            assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
            client.write(disconnect).await;
            assert_eq!(client.next().await, Got::Closed);
            if published {
                assert_eq!(watcher.receive().await.text(), "x");
            }
            watcher.quiet().await;
        }
    }
}

/// Clean Session 1 begins and ends a session; with 0 it stays, for as long as we are set to keep it.
#[tokio::test]
async fn clean_session_is_both_ends_of_a_session() {
    let broker = Setup::new().mqtt("session_expiry_interval = \"1s\"").start().await;
    for version in OLDER {
        let mut client = broker.join(version, "c").await;
        client.subscribe("t", Q1).await;
        client.vanish().await;
        broker.until_metric("tombolo_sessions", 0).await;
        let (mut client, _) = broker.stay(version, "c").await;
        client.subscribe("t", Q1).await;
        client.vanish().await;
        let (mut client, _) = broker.stay(version, "c").await;
        assert_eq!(broker.metric("tombolo_subscriptions"), 1);
        client.quiet().await;
        client.leave().await;
        broker.until_metric("tombolo_sessions", 0).await;
    }
}

/// 3.1 repeats PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP set; from 3.1.1 on those bits are reserved.
#[tokio::test]
async fn dup_on_other_packets_than_publish_is_of_3_1() {
    let broker = broker().await;
    let packets: [(&[u8], &[u8]); 3] = [
        (b"\x8a\x06\0\x01\0\x01t\x01", &[0x90, 3, 0, 1, 1]),
        (b"\xaa\x05\0\x02\0\x01t", &[0xB0, 2, 0, 2]),
        (b"\x6a\x02\0\x03", &[0x70, 2, 0, 3]),
    ];
    for (packet, answer) in packets {
        let mut client = joined(&broker, Version::V31, b'c').await;
        client.write(packet).await;
        reads(&mut client, answer).await;
        let mut client = joined(&broker, Version::V311, b'c').await;
        client.write(packet).await;
        ends(&mut client).await;
    }
}

/// The options of 5.0 are reserved bits: a SUBSCRIBE that sets one is malformed, and what they would say is as it
/// was: own messages come back, RETAIN is cleared on the way, and retained messages come at each SUBSCRIBE.
#[tokio::test]
async fn a_subscription_has_no_options() {
    let broker = broker().await;
    for version in OLDER {
        for bit in 2..8 {
            let mut client = joined(&broker, version, b'c').await;
            client.write(&[0x82, 6, 0, 1, 0, 1, b't', 1 << bit]).await;
            ends(&mut client).await;
        }
        let mut client = broker.join(version, "d").await;
        client.subscribe("t", Q0).await;
        client.publish_as(Publish { retain: true, ..message("t", b"own") }).await;
        let got = client.receive().await;
        assert_eq!((got.text(), got.retain), ("own", false));
        for _ in 0..2 {
            client.subscribe("t", Q0).await;
            let got = client.receive().await;
            assert_eq!((got.text(), got.retain), ("own", true));
        }
        client.publish_as(Publish { retain: true, ..message("t", b"") }).await;
        client.receive().await;
    }
}

/// Bridges say so in the protocol level (0x83, 0x84): nothing they brought comes back, and RETAIN stays as it was.
#[tokio::test]
async fn a_bridge_gets_retain_as_published_and_no_echo() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for version in OLDER {
        for bridge in [true, false] {
            let mut client = broker.open().await;
            let asked = Connect { bridge, ..hello(version, "b") };
            assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
            client.subscribe("t", Q0).await;
            client.publish("t", b"echo", Q0).await;
            if !bridge {
                assert_eq!(client.receive().await.text(), "echo");
            }
            client.quiet().await;
            publisher.publish_as(Publish { retain: true, ..message("t", b"kept") }).await;
            assert_eq!(client.receive().await.retain, bridge);
            publisher.publish_as(Publish { retain: true, ..message("t", b"") }).await;
            client.receive().await;
            client.leave().await;
        }
    }
}

/// `$share/…` is of 5.0, and works in the older versions too.
#[tokio::test]
async fn shared_subscriptions_are_offered_beyond_the_standard() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for version in OLDER {
        let mut members = [broker.join(version, "a").await, broker.join(version, "b").await];
        for member in &mut members {
            assert_eq!(member.subscribe("$share/g/t", Q1).await, 1);
        }
        for text in ["0", "1"] {
            assert_eq!(publisher.publish("t", text.as_bytes(), Q1).await, 0);
        }
        let mut got = Vec::new();
        for member in &mut members {
            got.push(member.receive().await.text().to_owned());
            member.quiet().await;
        }
        got.sort_unstable();
        assert_eq!(got, ["0", "1"], "one each, in turns");
    }
}

/// AUTH is of 5.0; type 15 is reserved before.
#[tokio::test]
async fn there_is_no_auth() {
    let broker = broker().await;
    for version in OLDER {
        let mut client = joined(&broker, version, b'c').await;
        client.write(&[0xF0, 0]).await;
        ends(&mut client).await;
    }
}

/// A Topic Name is never empty: there is no alias that it could stand for.
#[tokio::test]
async fn a_topic_name_is_never_empty() {
    let broker = broker().await;
    for version in OLDER {
        let mut client = joined(&broker, version, b'c').await;
        client.send(&Packet::PingReq).await;
        reads(&mut client, &[0xD0, 0]).await;
        client.write(&[0x30, 3, 0, 0, b'x']).await;
        ends(&mut client).await;
    }
}
