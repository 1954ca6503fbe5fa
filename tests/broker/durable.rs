//! What outlives the process, what an acknowledgement waits for, and what happens when nothing can be stored. The storage is
//! in memory: what a power cut leaves is a copy of what was committed.

use std::io;
use std::sync::Arc;

use tombolo::broker::banned::Ban;
use tombolo::broker::banned::Kind;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::reason::ReasonCode;
use tombolo::net::clock;
use tombolo::storage::Storage;
use tombolo::storage::memory::Memory;

use crate::device::Device;
use crate::device::Disk;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::harness::properties;

/// A broker on a device.
async fn on(device: &Arc<Device>) -> Running {
    Setup::new().start_on(Arc::clone(device)).await
}

async fn fresh() -> (Arc<Device>, Running) {
    let device = Device::new(Memory::default());
    let broker = on(&device).await;
    (device, broker)
}

/// A broker that finds what a power cut left of the device; the one before goes on unheard.
async fn after_a_power_cut(device: &Arc<Device>) -> (Arc<Device>, Running) {
    let device = Device::new(device.memory.copy());
    let broker = on(&device).await;
    (device, broker)
}

/// Connects to a session that is to be there.
async fn resume(broker: &Running, version: Version, id: &str) -> Client {
    let (client, present) = broker.stay(version, id).await;
    assert_eq!(present, version != Version::V31, "3.1 cannot say it");
    client
}

async fn texts(client: &mut Client, count: usize) -> Vec<String> {
    client.receive_texts(count).await
}

#[tokio::test]
async fn sessions_subscriptions_and_what_waits_outlive_a_power_cut() {
    let (mut device, mut broker) = fresh().await;
    for version in VERSIONS {
        let (mut client, _) = broker.stay(version, "c").await;
        assert_eq!(client.subscribe("t/#", Q2).await, 2);
        assert_eq!(client.subscribe("gone", Q2).await, 2);
        client.unsubscribe(&["gone"]).await;
        client.leave().await;
        broker.until_metric("tombolo_connections{listener=\"tcp\"}", 0).await;
        let mut publisher = broker.join(Version::V5, "p").await;
        for n in 0..200 {
            let qos = [Q1, Q2][n % 2];
            assert_eq!(publisher.publish(&format!("t/{}", n % 3), n.to_string().as_bytes(), qos).await, 0);
        }
        (device, broker) = after_a_power_cut(&device).await;
        assert_eq!(broker.metric("tombolo_subscriptions"), 1);
        assert_eq!(broker.metric("tombolo_queued_messages"), 200);
        let mut publisher = broker.join(Version::V5, "p").await;
        assert_eq!(publisher.publish("t/0", b"later", Q1).await, 0);
        let mut client = resume(&broker, version, "c").await;
        let expected: Vec<String> = (0..200).map(|n| n.to_string()).chain(["later".to_owned()]).collect();
        assert_eq!(texts(&mut client, 201).await, expected);
        assert_eq!(publisher.publish("gone", b"", Q1).await, 0x10, "what was unsubscribed stays so");
        client.leave().await;
        let mut client = broker.join(version, "c").await;
        client.quiet().await;
        client.leave().await;
        broker.until_metric("tombolo_sessions", 1).await;
        (device, broker) = after_a_power_cut(&device).await;
        assert_eq!(broker.metric("tombolo_sessions"), 0, "a Clean Start ends what is stored too");
    }
    assert_eq!(device.usage().entries, 0, "nothing is left behind");
}

#[tokio::test]
async fn what_was_sent_is_sent_again_with_its_identifier_and_a_received_message_is_released() {
    let (device, broker) = fresh().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for (payload, qos) in [(b"0", Q1), (b"1", Q2), (b"2", Q2), (b"3", Q1)] {
        assert_eq!(publisher.publish("t", payload, qos).await, 0);
    }
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(client.take().await.packet_id);
    }
    let ids: Vec<u16> = ids.into_iter().flatten().collect();
    client.ack(PacketType::PubRec, ids[1], ReasonCode::Success).await;
    assert!(matches!(client.next().await, Got::Ack(PacketType::PubRel, released, _) if released == ids[1]));
    let (_device, broker) = after_a_power_cut(&device).await;
    let mut client = resume(&broker, Version::V5, "c").await;
    assert!(matches!(client.next().await, Got::Ack(PacketType::PubRel, released, _) if released == ids[1]));
    for (payload, expected) in [("0", ids[0]), ("2", ids[2]), ("3", ids[3])] {
        let again = client.take().await;
        assert_eq!((again.text(), again.packet_id, again.dup), (payload, Some(expected), true));
    }
    let mut publisher = broker.join(Version::V5, "p").await;
    assert_eq!(publisher.publish("t", b"4", Q1).await, 0);
    let next = client.take().await;
    assert!(!next.dup && next.packet_id.is_some_and(|id| !ids.contains(&id)), "{next:?}");
}

#[tokio::test]
async fn a_qos_2_message_is_taken_once_and_its_identifier_is_free_afterwards() {
    let (mut device, mut broker) = fresh().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let (mut publisher, _) = broker.stay(Version::V5, "p").await;
    let send = |payload| Publish { qos: Q2, packet_id: Some(id(7)), ..message("t", payload) };
    publisher.send(&Packet::Publish(send(b"once"))).await;
    assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubRec, 7, 0)));
    for _ in 0..2 {
        (device, broker) = after_a_power_cut(&device).await;
        publisher = resume(&broker, Version::V5, "p").await;
        publisher.send(&Packet::Publish(Publish { dup: true, ..send(b"once") })).await;
        assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubRec, 7, 0)));
    }
    publisher.ack(PacketType::PubRel, 7, ReasonCode::Success).await;
    assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubComp, 7, 0)));
    (_, broker) = after_a_power_cut(&device).await;
    publisher = resume(&broker, Version::V5, "p").await;
    publisher.send(&Packet::Publish(send(b"new"))).await;
    assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubRec, 7, 0)));
    let mut client = resume(&broker, Version::V5, "c").await;
    assert_eq!(texts(&mut client, 2).await, ["once", "new"]);
    client.quiet().await;
}

#[tokio::test]
async fn retained_and_delayed_messages_and_wills_outlive_a_power_cut() {
    let (device, broker) = fresh().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    for (topic, payload) in [("r/1", &b"old"[..]), ("r/1", b"new"), ("r/2", b"x"), ("r/2", b"")] {
        let publish = Publish { retain: true, qos: Q1, ..message(topic, payload) };
        assert!([0, 0x10].contains(&publisher.publish_as(publish).await));
    }
    assert_eq!(publisher.publish("$delayed/1/late", b"delayed", Q1).await, 0);
    let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
    let delay = properties(&[Property::WillDelayInterval(1)]);
    let will =
        Will { topic: "will", payload: b"gone", qos: Q1, retain: false, properties: delay.as_properties() };
    let asked = Connect {
        clean_start: false,
        properties: expiry.as_properties(),
        will: Some(will),
        ..hello(Version::V5, "w")
    };
    let (_mourned, _) = broker.try_stay(&asked).await;
    let (_device, broker) = after_a_power_cut(&device).await;
    let mut client = broker.join(Version::V5, "c").await;
    client.subscribe("r/#", Q1).await;
    let retained = client.receive().await;
    assert_eq!((&*retained.topic, retained.text(), retained.retain), ("r/1", "new", true));
    client.subscribe("+", Q1).await;
    let mut got = texts(&mut client, 2).await;
    got.sort();
    assert_eq!(got, ["delayed", "gone"]);
}

#[tokio::test]
async fn acknowledgements_wait_for_the_disk_and_qos_0_of_clean_sessions_never_touches_it() {
    let (device, broker) = fresh().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let mut clean = broker.join(Version::V5, "clean").await;
    clean.subscribe("free", Q0).await;
    let committed = || broker.server.broker().store.as_ref().unwrap().metrics().commits.value();
    let before = committed();
    for _ in 0..50 {
        publisher.publish("free", b"0", Q0).await;
    }
    assert_eq!(texts(&mut clean, 50).await.len(), 50);
    assert_eq!(committed(), before);
    device.set(Disk::Hangs);
    publisher.send(&Packet::Publish(Publish { qos: Q1, packet_id: Some(id(1)), ..message("t", b"1") })).await;
    assert_eq!(client.take().await.text(), "1", "at QoS 1 it need not wait");
    publisher.send(&Packet::Publish(Publish { qos: Q2, packet_id: Some(id(2)), ..message("t", b"2") })).await;
    tokio::select! {
        early = publisher.next() => panic!("{early:?} before anything is stored"),
        reached = clean.publish("free", b"1", Q1) => assert_eq!(reached, 0, "which nobody has to store"),
    }
    device.set(Disk::Works);
    assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubAck, 1, 0)));
    assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubRec, 2, 0)));
    let second = client.take().await;
    assert_eq!(second.text(), "2");
    device.set(Disk::Hangs);
    let id = second.packet_id.unwrap();
    client.ack(PacketType::PubRec, id, ReasonCode::Success).await;
    publisher.ack(PacketType::PubRel, 2, ReasonCode::Success).await;
    device.set(Disk::Works);
    assert!(matches!(client.next().await, Got::Ack(PacketType::PubRel, released, 0) if released == id));
    assert!(matches!(publisher.next().await, Got::Ack(PacketType::PubComp, 2, 0)));
}

#[tokio::test]
async fn without_space_nothing_is_acknowledged_falsely_and_everything_goes_on_once_there_is_some() {
    for (kind, reason) in [(io::ErrorKind::StorageFull, 0x97), (io::ErrorKind::Other, 0x83)] {
        let (device, broker) = fresh().await;
        let (mut client, _) = broker.stay(Version::V5, "c").await;
        client.subscribe("t", Q1).await;
        let mut live = broker.join(Version::V5, "live").await;
        live.subscribe("free", Q1).await;
        let mut publisher = broker.join(Version::V5, "p").await;
        let mut older = broker.join(Version::V311, "p3").await;
        device.set(Disk::Fails(kind));
        // The first one finds out.
        let send = Publish { qos: Q1, packet_id: Some(id(9)), ..message("t", b"first") };
        publisher.send(&Packet::Publish(send)).await;
        assert_eq!(client.receive().await.text(), "first");
        let trouble = || broker.server.broker().trouble().is_some();
        while !trouble() {
            tokio::task::yield_now().await;
        }
        let mut other = broker.join(Version::V5, "p2").await;
        assert_eq!(other.publish("t", b"no", Q1).await, reason);
        assert_eq!(other.publish("t", b"no", Q2).await, reason);
        assert_eq!(other.publish("free", b"yes", Q1).await, 0, "what need not be kept goes on");
        assert_eq!(live.receive().await.text(), "yes");
        assert_eq!(client.subscribe("more", Q1).await, reason);
        let send = Publish { qos: Q1, packet_id: Some(id(1)), ..message("t", b"no") };
        older.send(&Packet::Publish(send)).await;
        older.refused(reason).await;
        publisher.refused(reason).await;
        device.set(Disk::Works);
        while trouble() {
            tokio::task::yield_now().await;
        }
        assert_eq!(other.publish("t", b"again", Q1).await, 0);
        assert_eq!(client.receive().await.text(), "again");
        assert!(broker.metric("tombolo_messages_dropped_total{reason=\"store\"}") >= 3);
        let (_device, broker) = after_a_power_cut(&device).await;
        resume(&broker, Version::V5, "c").await;
    }
}

#[tokio::test]
async fn bans_outlive_a_power_cut_until_they_end_or_are_lifted() {
    let device = Device::new(Memory::default());
    let setup = Setup::new().links("[flapping_detect]\nenable = true\nmax_count = 2");
    let broker = setup.start_on(Arc::clone(&device)).await;
    let now = clock::now();
    let at = now.unix_ms / 1000;
    let ban = |kind, who: &str, until| Ban {
        kind,
        who: who.to_owned(),
        by: "test".to_owned(),
        reason: "because".to_owned(),
        at,
        until,
    };
    let core = broker.server.broker();
    for (kind, who, until) in [
        (Kind::ClientId, "c", None),
        (Kind::ClientIdRe, "^re[0-9]$", Some(at + 1_000)),
        (Kind::Username, "lifted", None),
        (Kind::PeerHostNet, "10.0.0.0/8", Some(at + 1)),
    ] {
        core.ban(ban(kind, who, until), now).unwrap();
    }
    assert!(core.lift_ban(Kind::Username, "lifted", now));
    for _ in 0..2 {
        broker.join(Version::V5, "flaps").await.leave().await;
    }
    broker.until_metric("tombolo_flapping_bans_total", 1).await;
    // The one of a second is over, and swept.
    broker.until_metric("tombolo_banned", 3).await;
    let group = core.store.as_ref().unwrap().begin().number();
    core.ban(ban(Kind::Username, "last", None), now).unwrap();
    core.store.as_ref().unwrap().wait(group).await.unwrap();
    let (device, broker) = after_a_power_cut(&device).await;
    assert_eq!(device.usage().entries, 4);
    let bans = broker.server.broker().banned.list(now);
    let names: Vec<(Kind, &str)> = bans.iter().map(|ban| (ban.kind, &*ban.who)).collect();
    let flapping = "tcp:default 127.0.0.1 - \"flaps\"";
    let expected = [
        (Kind::ClientId, "c"),
        (Kind::Username, "last"),
        (Kind::ClientIdRe, "^re[0-9]$"),
        (Kind::Flapping, flapping),
    ];
    assert_eq!(names, expected);
    assert_eq!((&*bans[0].by, &*bans[0].reason, bans[0].at), ("test", "because", at));
    for id in ["c", "re7", "flaps"] {
        assert_eq!(
            broker.open().await.connect(&hello(Version::V5, id)).await,
            Got::ConnAck(false, 0x8A),
            "{id}"
        );
    }
    broker.server.broker().lift_bans();
    broker.join(Version::V5, "c").await;
    while device.usage().entries > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn at_its_bound_a_store_takes_nothing_more_and_whoever_takes_what_waits_makes_room() {
    let (device, broker) = fresh().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    client.leave().await;
    let mut publisher = broker.join(Version::V5, "p").await;
    let store = broker.server.broker().store.as_ref().unwrap();
    store.set_bytes_max(device.usage().bytes + 1_000);
    let mut taken = 0;
    while publisher.publish("t", &[b'x'; 100], Q1).await == 0 {
        taken += 1;
    }
    assert!((3..10).contains(&taken), "{taken}");
    assert_eq!(broker.metric("tombolo_store_trouble{kind=\"full\"}"), 1);
    assert_eq!(publisher.publish("t", b"no", Q2).await, 0x97);
    let mut client = resume(&broker, Version::V5, "c").await;
    texts(&mut client, taken).await;
    broker.until_metric("tombolo_store_trouble{kind=\"full\"}", 0).await;
    assert_eq!(publisher.publish("t", b"again", Q1).await, 0);
    assert_eq!(client.receive().await.text(), "again");
    assert_eq!(broker.metric("tombolo_store_failures_total"), 0);
}

#[tokio::test]
async fn a_new_connection_says_nothing_of_its_session_that_is_not_stored() {
    let (device, broker) = fresh().await;
    let (mut client, _) = broker.stay(Version::V5, "c").await;
    client.subscribe("t", Q2).await;
    let (mut publisher, _) = broker.stay(Version::V5, "p").await;
    assert_eq!(publisher.publish("t", b"1", Q2).await, 0);
    let sent = client.take().await.packet_id.unwrap();
    let again = Publish { qos: Q2, packet_id: Some(id(7)), dup: true, ..message("t", b"2") };
    device.set(Disk::Hangs);
    client.ack(PacketType::PubRec, sent, ReasonCode::Success).await;
    publisher.send(&Packet::Publish(Publish { dup: false, ..again })).await;
    broker.until_metric("tombolo_packets_received_total{type=\"pubrec\"}", 1).await;
    broker.until_metric("tombolo_packets_received_total{type=\"publish\"}", 2).await;
    // Both go on with what their first connections began.
    let expiry = properties(&[Property::SessionExpiryInterval(1_000)]);
    let asked = |id| {
        let properties = expiry.as_properties();
        Packet::Connect(Box::new(Connect { clean_start: false, properties, ..hello(Version::V5, id) }))
    };
    let (mut client, mut publisher) = (broker.open().await, broker.open().await);
    (client.version, publisher.version) = (Version::V5, Version::V5);
    client.send(&asked("c")).await;
    publisher.send(&asked("p")).await;
    publisher.send(&Packet::Publish(again)).await;
    broker.until_metric("tombolo_packets_received_total{type=\"publish\"}", 3).await;
    let mut other = broker.join(Version::V5, "other").await;
    tokio::select! {
        early = client.next() => panic!("{early:?} of a message whose PUBREC is not stored"),
        early = publisher.next() => panic!("{early:?} of a message that is not stored"),
        () = other.quiet() => {}
    }
    device.set(Disk::Works);
    assert_eq!(client.next().await, Got::ConnAck(true, 0));
    assert_eq!(client.next().await, Got::Ack(PacketType::PubRel, sent, 0));
    assert_eq!(publisher.next().await, Got::ConnAck(true, 0));
    assert_eq!(publisher.next().await, Got::Ack(PacketType::PubRec, 7, 0));
    assert_eq!(client.take().await.text(), "2");
}
