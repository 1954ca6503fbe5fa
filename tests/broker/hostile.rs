//! What a client may try that is no fault of its packets: to get at another's session, to make the broker grow,
//! to keep it busy, to outlive its proof.

use std::time::Duration;

use tokio::time;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;
use crate::link_confinement::link_to;

/// A session belongs to a user; another with the same ClientID gets neither its messages nor its end.
#[tokio::test]
async fn another_user_does_not_get_a_session() {
    let setup = Setup::new().authentication("allow_anonymous = false\npassword_file = \"{dir}/passwd\"");
    passwords(&setup, &[("alice", "a"), ("mallory", "m")]);
    let broker = setup.start().await;
    let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
    let asked = |user: &'static str, password: &'static [u8], clean_start| Connect {
        clean_start,
        username: Some(user),
        password: Some(password),
        properties: expiry.as_properties(),
        ..hello(Version::V5, "dev1")
    };
    let mut alice = broker.open().await;
    assert_eq!(alice.connect(&asked("alice", b"a", true)).await, Got::ConnAck(false, 0));
    alice.subscribe("secret", Q1).await;
    for clean_start in [false, true] {
        let mut mallory = broker.open().await;
        assert_eq!(mallory.connect(&asked("mallory", b"m", clean_start)).await, Got::ConnAck(false, 0x87));
    }
    alice.quiet().await;
    alice.vanish().await;
    let mut mallory = broker.open().await;
    assert_eq!(
        mallory.connect(&asked("mallory", b"m", false)).await,
        Got::ConnAck(false, 0x87),
        "nor offline"
    );
    let mut alice = broker.open().await;
    assert_eq!(alice.connect(&asked("alice", b"a", false)).await, Got::ConnAck(true, 0));
}

/// PUBREC for nothing is answered by PUBREL; a client that reads none of them is not read for ever.
#[tokio::test]
async fn a_flood_of_pubrec_is_not_read_without_end() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "flood").await;
    let chunk = [0x50, 2, 0, 9].repeat(256 * 1024);
    // What the kernel and the broker hold between them is a few MiB; a broker that goes on reading takes all.
    let sent_all = time::timeout(Duration::from_secs(3), async {
        for _ in 0..64 {
            client.write(&chunk).await;
        }
    });
    assert!(sent_all.await.is_err(), "64 MiB went in and nothing came out");
    let mut other = broker.join(Version::V5, "other").await;
    other.quiet().await;
}

/// Section 3.1.3.2.4: a Will's expiry counts from its publication.
#[tokio::test]
async fn a_will_does_not_expire_while_its_client_lives() {
    let broker = broker().await;
    let mut subscriber = broker.join(Version::V5, "s").await;
    subscriber.subscribe("w", Q1).await;
    let will = properties(&[Property::MessageExpiryInterval(1)]);
    let mut client = broker.open().await;
    let asked = Connect {
        will: Some(Will {
            qos: Q1,
            retain: true,
            properties: will.as_properties(),
            topic: "w",
            payload: b"bye",
        }),
        ..hello(Version::V5, "c")
    };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    let connected = broker.metric("tombolo_uptime_seconds");
    broker.until_metric("tombolo_uptime_seconds", connected + 2).await;
    drop(client);
    let got = subscriber.receive().await;
    assert_eq!(got.properties().message_expiry_interval(), Some(1));
}

/// `[MQTT-3.8.3-3]`: a Will is its client's own message.
#[tokio::test]
async fn no_local_holds_for_the_own_will() {
    let broker = broker().await;
    let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
    let asked = Connect {
        clean_start: false,
        properties: expiry.as_properties(),
        will: Some(Will {
            qos: Q1,
            retain: false,
            properties: Properties::EMPTY,
            topic: "w",
            payload: b"bye",
        }),
        ..hello(Version::V5, "c")
    };
    let (mut client, _) = broker.try_stay(&asked).await;
    let mut witness = broker.join(Version::V5, "witness").await;
    witness.subscribe("w", Q1).await;
    let no_local = SubscriptionOptions { qos: Q1, no_local: true, ..SubscriptionOptions::default() };
    client.subscribe_as(&[("w", no_local)], None).await;
    client.vanish().await;
    assert_eq!(witness.receive().await.text(), "bye");
    let (mut client, present) = broker.stay(Version::V5, "c").await;
    assert!(present);
    client.quiet().await;
}

/// `[MQTT-3.10.4-2]`: after UNSUBACK no further message is begun, retained ones included.
#[tokio::test]
async fn unsubscribing_ends_what_is_under_way() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for number in 0..100 {
        publisher
            .publish_as(Publish { retain: true, qos: Q1, ..message(&format!("q/{number}"), b"x") })
            .await;
    }
    let mut subscriber = broker.join(Version::V5, "s").await;
    subscriber.subscribe("q/#", Q1).await;
    assert_eq!(subscriber.unsubscribe(&["q/#"]).await, [0]);
    let begun = drain(&mut subscriber).await;
    assert!(begun <= 32, "{begun} were begun, more than the window holds");
}

/// Takes and acknowledges whatever is under way; how many messages that was.
async fn drain(client: &mut Client) -> usize {
    let mut count = 0;
    client.send(&Packet::PingReq).await;
    loop {
        match client.next().await {
            Got::PingResp => return count,
            Got::Publish(message) => {
                count += 1;
                if let Some(id) = message.packet_id {
                    client.ack(PacketType::PubAck, id, ReasonCode::Success).await;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A filter that matches nothing among many retained messages is looked for a slice at a time.
#[tokio::test]
async fn a_search_among_retained_messages_keeps_nobody_waiting() {
    let broker = broker().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for number in 0..5_000 {
        publisher
            .send(&Packet::Publish(Publish { retain: true, ..message(&format!("d/{number}/temp"), b"x") }))
            .await;
    }
    publisher.quiet().await;
    let names: Vec<String> = (0..300).map(|number| format!("+/+/z{number}")).collect();
    let filters: Vec<_> = names.iter().map(|name| (name.as_str(), crate::harness::options(Q0))).collect();
    let mut searcher = broker.join(Version::V5, "searcher").await;
    searcher.subscribe_as(&filters, None).await;
    // 1,500,000 comparisons are under way; each turn of them lets others have theirs.
    for _ in 0..20 {
        publisher.quiet().await;
    }
    assert_eq!(broker.metric("tombolo_sessions"), 2);
}

/// A reload that changes how a peer proves itself ends the connections that proved something else.
#[tokio::test]
async fn a_peer_does_not_outlive_its_proof() {
    let setup = Setup::new()
        .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
             [[listeners]]\nname = \"link\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\nallow_insecure = true\n",
        )
        .links(&link_to("B"));
    passwords(&setup, &[("clink-user:B", "secret-b"), ("other", "x")]);
    let mut broker = setup.start().await;
    let mut bystander = broker.join(Version::V5, "bystander").await;
    let mut peer = broker.open_at("tcp:link").await;
    let asked = Connect {
        username: Some("clink-user:B"),
        password: Some(b"secret-b"),
        ..hello(Version::V5, "clink-B-1")
    };
    assert_eq!(peer.connect(&asked).await, Got::ConnAck(false, 0));
    let changed = link_to("B").replace("clink-user:B", "other");
    broker.reload(|setup| setup.links(&changed)).await.unwrap();
    peer.refused(0x87).await;
    bystander.quiet().await;
}
