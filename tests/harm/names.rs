//! Classes D and F: topics at the edge of what a topic is, and ClientIDs that mean something elsewhere.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;

/// A PUBLISH with RETAIN, in bytes, because the encoder refuses some of these.
fn publish(version: Version, topic: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic);
    if version == Version::V5 {
        body.push(0);
    }
    body.push(b'x');
    let (mut packet, mut left) = (vec![0x31], body.len());
    loop {
        let more = left >= 128;
        packet.push((left % 128) as u8 | if more { 128 } else { 0 });
        left /= 128;
        if !more {
            break;
        }
    }
    packet.extend(body);
    packet
}

#[tokio::test]
async fn topics_at_the_edge_are_refused_or_kept_and_harm_nothing() {
    let broker = broker().await;
    let deep = vec![b'/'; 65_535];
    let long = vec![b'a'; 65_535];
    let edges: [&[u8]; 14] = [
        b"",
        b"\0",
        b"a\0b",
        b"#",
        b"+",
        b"a/#",
        b"\xC3\x28",
        b"\xED\xA0\x80",
        b"$",
        b"/",
        b"$SYS/x",
        b"$share/g/t",
        &deep,
        &long,
    ];
    let mut closed = 0;
    for version in VERSIONS {
        // Of the version before: only two of what it left are matched.
        let retained = broker.metric("tombolo_retained_messages").min(2);
        let mut watcher = broker.join(version, "watcher").await;
        watcher.subscribe("#", Q0).await;
        for topic in edges {
            let mut client = broker.join(version, "edge").await;
            client.write(&publish(version, topic)).await;
            client.write(&[0xC0, 0]).await;
            match client.next().await {
                Got::PingResp => {}
                Got::Closed | Got::Disconnect(_) => closed += 1,
                other => panic!("{topic:?}: {other:?}"),
            }
        }
        let (mut seen, ping) = (0, tombolo::mqtt::packet::Packet::PingReq);
        watcher.send(&ping).await;
        while watcher.next().await != Got::PingResp {
            seen += 1;
        }
        assert_eq!(seen, 2 + retained, "`/` and the long one, which alone are Topic Names that `#` matches");
    }
    println!(
        "class D: {} edges, {closed} ended their connection, {} retained",
        3 * edges.len(),
        broker.metric("tombolo_retained_messages")
    );
}

#[tokio::test]
async fn a_filter_of_65535_levels_is_refused() {
    let broker = broker().await;
    for version in VERSIONS {
        let mut client = broker.join(version, "deep").await;
        let deep = vec!["+"; 32_768].join("/");
        // 3.1 has no word for it: it is granted and not made.
        assert!(client.subscribe(&deep, Q0).await >= 0x80 || version == Version::V31);
        client.quiet().await;
    }
    assert_eq!(broker.metric("tombolo_subscriptions"), 0);
}

/// A ClientID that is a wildcard, several levels or a regular expression gets what is under its own name, and no more.
#[tokio::test]
async fn a_client_id_is_never_read_as_a_pattern() {
    let rules = "{allow, all, all, [\"c/${clientid}/#\", \"u/${username}/#\"]}.\n{deny, all}.";
    let broker = Setup::new().acl(rules).start().await;
    let mut refused = 0;
    for id in [
        "#",
        "+",
        "/",
        "a/b",
        "a/#",
        ".*",
        "^",
        "(?i)victim",
        "[a-z]+",
        "$share",
        "${clientid}",
        "victim/..",
        "+/#",
    ] {
        let mut client = broker.open().await;
        let asked = Connect { username: Some(id), ..hello(Version::V5, id) };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
        for topic in ["c/victim/x", "u/victim/x", "c/a/b/c"] {
            if topic.starts_with(&format!("c/{id}/")) {
                continue;
            }
            assert_eq!(client.publish(topic, b"x", Q1).await, 0x87, "{id} publishes to {topic}");
            assert_eq!(client.subscribe(topic, Q1).await, 0x87, "{id} subscribes to {topic}");
            refused += 2;
        }
        for filter in ["#", "c/#", "c/+/x", "+/victim/#", "$share/g/c/victim/#"] {
            assert_eq!(client.subscribe(filter, Q1).await, 0x87, "{id} subscribes to {filter}");
            refused += 1;
        }
        client.quiet().await;
    }
    println!("class F: {refused} requests of odd ClientIDs refused");
}
