//! CONNECT and CONNACK (sections 3.1 and 3.2).

use std::num::NonZeroU16;

use tokio::io::AsyncReadExt;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;

use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;

#[tokio::test]
async fn every_version_is_spoken() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "c").await;
        client.quiet().await;
        client.leave().await;
    }
}

#[tokio::test]
async fn connack_says_what_is_offered() {
    let broker = Setup::new()
        .mqtt(
            "max_inflight = 7\nmax_topic_alias = 9\nmax_qos_allowed = 1\nretain_available = false\n\
             wildcard_subscription = false\nshared_subscription = false\nserver_keepalive = 33\n\
             max_packet_size = \"100KB\"",
        )
        .start()
        .await;
    let mut client = broker.open().await;
    assert_eq!(client.connect(&hello(Version::V5, "")).await, Got::ConnAck(false, 0));
    let said = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!(said.receive_maximum().map(NonZeroU16::get), Some(7));
    assert_eq!(said.topic_alias_maximum(), Some(9));
    assert_eq!(said.maximum_qos(), Some(Q1));
    assert_eq!(said.retain_available(), Some(false));
    assert_eq!(said.wildcard_subscription_available(), Some(false));
    assert_eq!(said.shared_subscription_available(), Some(false));
    assert_eq!(said.server_keep_alive(), Some(33));
    assert_eq!(said.maximum_packet_size().map(u32::from), Some(100 * 1024));
    assert!(said.assigned_client_identifier().is_some_and(|id| id.len() > 10), "[MQTT-3.2.2-16]");
}

#[tokio::test]
async fn assigned_identifiers_are_unique_and_usable() {
    let broker = broker().await;
    let mut assigned = Vec::new();
    for _ in 0..3 {
        let mut client = broker.open().await;
        assert_eq!(client.connect(&hello(Version::V5, "")).await, Got::ConnAck(false, 0));
        let said = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
        assigned.push(said.assigned_client_identifier().unwrap().to_owned());
    }
    assigned.dedup();
    assert_eq!(assigned.len(), 3);
    broker.join(Version::V5, &assigned[0]).await;
}

#[tokio::test]
async fn an_empty_identifier_without_clean_session_is_refused_before_5_0() {
    let broker = broker().await;
    let mut client = broker.open().await;
    let asked = Connect { clean_start: false, ..hello(Version::V311, "") };
    // The encoder refuses to say it: [MQTT-3.1.3-8] of 3.1.1.
    let raw = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, 0];
    client.version = asked.version;
    client.write(&raw).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0x85));
    assert_eq!(client.next().await, Got::Closed);
}

#[tokio::test]
async fn identifiers_are_bounded_and_without_control_characters() {
    let broker = Setup::new().mqtt("max_clientid_len = 23").start().await;
    for refused in ["x".repeat(24), "a\u{1}b".to_owned(), "a\nb".to_owned()] {
        for version in [Version::V311, Version::V5] {
            let mut client = broker.open().await;
            assert_eq!(client.connect(&hello(version, &refused)).await, Got::ConnAck(false, 0x85));
            assert_eq!(client.next().await, Got::Closed);
        }
    }
    for taken in ["x".repeat(23), "#+/$ä\u{202e}".to_owned()] {
        broker.join(Version::V5, &taken).await.quiet().await;
    }
    let rejected = "tombolo_connections_rejected_total{reason=\"client_identifier\"}";
    broker.until_metric(rejected, 6).await;
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_told_so() {
    let broker = broker().await;
    for (level, answer) in [(6, [0x20, 3, 0, 0x84, 0].as_slice()), (2, &[0x20, 2, 0, 1])] {
        let mut client = broker.open().await;
        let mut raw = vec![0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 1, b'c'];
        if level > 5 {
            raw = vec![0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 0, 1, b'c'];
        }
        client.version = if level > 5 { Version::V5 } else { Version::V311 };
        client.write(&raw).await;
        assert_eq!(client.next().await, Got::ConnAck(false, 0x84), "{answer:?}");
        assert_eq!(client.next().await, Got::Closed);
    }
    broker.until_metric("tombolo_connections_rejected_total{reason=\"unsupported_version\"}", 2).await;
}

#[tokio::test]
async fn enhanced_authentication_is_refused_by_name() {
    let broker = broker().await;
    let list = properties(&[Property::AuthenticationMethod("SCRAM-SHA-256")]);
    let mut client = broker.open().await;
    let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "c") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0x8C), "[MQTT-4.12.0-1]");
    assert_eq!(client.next().await, Got::Closed);
}

#[tokio::test]
async fn a_will_beyond_what_is_offered_is_refused() {
    let broker = Setup::new().mqtt("max_qos_allowed = 1\nretain_available = false").start().await;
    let will = Will { qos: Q1, retain: false, properties: Properties::EMPTY, topic: "w", payload: b"" };
    for (will, reason) in [
        (Will { qos: Q2, ..will.clone() }, 0x9B),
        (Will { retain: true, ..will.clone() }, 0x9A),
        (will.clone(), 0),
    ] {
        let mut client = broker.open().await;
        let asked = Connect { will: Some(will), ..hello(Version::V5, "c") };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, reason));
    }
}

#[tokio::test]
async fn packets_right_behind_connect_are_handled() {
    let broker = broker().await;
    let mut client = broker.open().await;
    let mut bytes = client.encoded(&Packet::Connect(Box::new(hello(Version::V5, "c"))));
    bytes.extend_from_slice(&client.encoded(&Packet::PingReq));
    bytes.extend_from_slice(&client.encoded(&Packet::PingReq));
    client.write(&bytes).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
    assert_eq!([client.next().await, client.next().await], [Got::PingResp, Got::PingResp]);
}

#[tokio::test]
async fn a_connection_without_connect_is_closed_in_time() {
    let broker = Setup::new().mqtt("idle_timeout = \"1s\"").start().await;
    let mut silent = broker.open().await;
    let mut slow = broker.open().await;
    slow.write(&[0x10]).await;
    assert_eq!(silent.next().await, Got::Closed);
    assert_eq!(slow.next().await, Got::Closed);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"timeout\"}", 2).await;
}

#[tokio::test]
async fn identifiers_of_letters_and_digits_up_to_23_are_taken() {
    // The lowest limit that can be set.
    let broker = Setup::new().mqtt("max_clientid_len = 23").start().await;
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in VERSIONS {
        for id in [&all[..1], &all[..23], &all[23..46], &all[39..]] {
            broker.join(version, id).await.leave().await; // [MQTT-3.1.3-5]
        }
    }
}

#[tokio::test]
async fn an_assigned_identifier_names_the_session() {
    let broker = broker().await;
    let mut first = broker.open().await;
    assert_eq!(first.connect(&hello(Version::V5, "")).await, Got::ConnAck(false, 0));
    let said = Properties::parse(&first.properties, PropertyContext::ConnAck).unwrap();
    let id = said.assigned_client_identifier().unwrap().to_owned();
    broker.join(Version::V5, &id).await.quiet().await;
    first.refused(0x8E).await; // [MQTT-3.1.3-7]
    // Who brings an identifier is assigned none.
    let second = broker.join(Version::V5, "c").await;
    let said = Properties::parse(&second.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!(said.assigned_client_identifier(), None);
}

#[tokio::test]
async fn nothing_behind_a_refused_connect_is_processed() {
    let listener = |name| {
        format!(
            "[[listeners]]
name = \"{name}\"
type = \"tcp\"
bind = \"127.0.0.1:0\"
"
        )
    };
    let listeners = format!("{}{}[listeners.authn]\nenable = false", listener("default"), listener("open"));
    let setup = Setup::new().authentication("allow_anonymous = false").listeners(&listeners);
    let broker = setup.start().await;
    let mut watcher = broker.open_at("tcp:open").await;
    assert_eq!(watcher.connect(&hello(Version::V5, "w")).await, Got::ConnAck(false, 0));
    watcher.subscribe("#", Q1).await;
    for version in VERSIONS {
        let mut client = broker.open().await;
        client.version = version;
        let mut bytes = client.encoded(&Packet::Connect(Box::new(hello(version, "c"))));
        let retained = Publish { retain: true, ..message("t", b"x") };
        bytes.extend_from_slice(&client.encoded(&Packet::Publish(retained)));
        bytes.extend_from_slice(&client.encoded(&Packet::PingReq));
        client.write(&bytes).await;
        assert_eq!(client.next().await, Got::ConnAck(false, 0x87));
        assert_eq!(client.next().await, Got::Closed, "[MQTT-3.1.4-6], [MQTT-3.2.2-7]");
    }
    watcher.quiet().await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
    assert_eq!(broker.metric("tombolo_sessions"), 1);
}

/// `[MQTT-3.1.2-24]` holds for CONNACK: what does not fit is not sent, and the connection ends.
#[tokio::test]
async fn a_connack_larger_than_the_client_takes_is_not_sent() {
    let broker = broker().await;
    let connect_with = async |id: &str, max: u32, method: bool| {
        let mut list = vec![Property::MaximumPacketSize(max)];
        if method {
            list.push(Property::AuthenticationMethod("x"));
        }
        let list = properties(&list);
        let mut client = broker.open().await;
        let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, id) };
        let bytes = client.encoded(&Packet::Connect(Box::new(asked)));
        client.write(&bytes).await;
        // The first packet as it is, or nothing.
        let mut answer = vec![0; 2];
        if client.io.read_exact(&mut answer).await.is_err() {
            return None;
        }
        assert_eq!(answer[0], 0x20);
        answer.resize(2 + usize::from(answer[1]), 0);
        client.io.read_exact(&mut answer[2..]).await.unwrap();
        Some(answer)
    };
    for (id, method) in [("c", false), ("", false), ("c", true)] {
        let whole = connect_with(id, u32::MAX, method).await.unwrap();
        for max in 1..whole.len() as u32 + 2 {
            let answer = connect_with(id, max, method).await;
            let refused = if method { 0x8C } else { 0x95 };
            match &answer {
                None => assert!(max < 5, "a refusal of five bytes fits into {max}"),
                Some(answer) => {
                    assert!(answer.len() <= max as usize, "{max}: {answer:02x?}");
                    let code = if max as usize >= whole.len() { whole[3] } else { refused };
                    assert_eq!(answer[3], code, "{max}: [MQTT-3.2.2-19], [MQTT-3.2.2-20]");
                }
            }
        }
    }
    broker.until_metric("tombolo_sessions", 0).await;
}
