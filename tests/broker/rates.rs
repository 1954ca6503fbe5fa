//! `messages_rate` and `bytes_rate`: whoever is over them is read later, and loses nothing.

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketId;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;
use crate::harness::id;
use crate::harness::message;
use crate::link_confinement::link_to;

fn listener(name: &str, limits: &str) -> String {
    format!(
        "[[listeners]]\nname = \"{name}\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n[listeners.limits]\n{limits}\n"
    )
}

/// A free listener and a limited one.
async fn broker(limits: &str) -> Running {
    let text = format!("{}{}", listener("default", ""), listener("limited", limits));
    Setup::new().listeners(&text).start().await
}

async fn join(broker: &Running, version: Version, id: &str) -> Client {
    let mut client = broker.open_at("tcp:limited").await;
    assert_eq!(client.connect(&hello(version, id)).await, Got::ConnAck(false, 0));
    client
}

fn throttled(reason: &str) -> String {
    format!("tombolo_throttled_total{{reason=\"{reason}\"}}")
}

/// Many periods' worth at once, in every version: all of it arrives, in order, and not before its time.
#[tokio::test]
async fn a_burst_of_messages_passes_at_the_rate() {
    let broker = broker("messages_rate = \"20/100ms\"").await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q0).await;
    for version in VERSIONS {
        let before = clock::now().mono_ms;
        let mut client = join(&broker, version, "c").await;
        let mut burst = Vec::new();
        for n in 0..100u16 {
            let (qos, packet_id) = if n % 2 == 0 { (Q0, None) } else { (Q1, PacketId::new(n)) };
            let payload = n.to_string();
            let publish = Publish { qos, packet_id, ..message("t", payload.as_bytes()) };
            burst.extend(client.encoded(&Packet::Publish(publish)));
        }
        burst.extend(client.encoded(&Packet::PingReq));
        client.write(&burst).await;
        for n in 0..100 {
            assert_eq!(watcher.take().await.text(), n.to_string());
        }
        // Of the last few the acknowledgements may come behind the PINGRESP.
        let mut answers = Vec::new();
        while answers.len() < 51 {
            answers.push(client.next().await);
        }
        let acknowledged = (1..100).step_by(2).map(|n| Got::Ack(PacketType::PubAck, n, 0));
        let (pings, acks): (Vec<_>, Vec<_>) = answers.into_iter().partition(|got| *got == Got::PingResp);
        assert_eq!((pings.len(), acks), (1, acknowledged.collect()));
        // Twenty at once, and a fifth of one in each millisecond from then on.
        assert!(clock::now().mono_ms - before >= (100 - 20) * 5, "{version:?}");
        client.leave().await;
    }
    assert!(broker.metric(&throttled("messages_rate")) >= 3);
    assert_eq!(broker.metric("tombolo_disconnects_total{reason=\"normal\"}"), 3);
}

/// A rate that gives nothing back while the test runs.
#[tokio::test]
async fn over_the_rate_a_client_is_kept_and_others_are_not_held_up() {
    let broker = broker("messages_rate = \"3/d\"").await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q1).await;
    let mut client = broker.open_at("tcp:limited").await;
    let asked = Connect { keep_alive_seconds: 1, ..hello(Version::V5, "c") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
    client.subscribe("to/c", Q1).await;
    for n in 0..3 {
        client.publish("t", &[b'0' + n], Q1).await;
    }
    assert_eq!(watcher.receive_texts(3).await, ["0", "1", "2"]);
    // Without messages there is nothing to wait for.
    client.quiet().await;
    client.subscribe("to/d", Q1).await;
    let publish = Publish { qos: Q1, packet_id: Some(id(99)), ..message("t", b"3") };
    client.send(&Packet::Publish(publish)).await;
    broker.until_metric(&throttled("messages_rate"), 1).await;
    // Another client of the listener has a rate of its own, and no rate limits what is received.
    let mut other = join(&broker, Version::V5, "other").await;
    assert_eq!(other.publish("to/c", b"hello", Q0).await, 0);
    assert_eq!(client.take().await.text(), "hello");
    // A client that is silent while it is read is closed by its Keep Alive; the one that we do not read is not.
    let mut silent = broker.open_at("tcp:limited").await;
    let asked = Connect { keep_alive_seconds: 1, ..hello(Version::V5, "silent") };
    assert_eq!(silent.connect(&asked).await, Got::ConnAck(false, 0));
    silent.refused(0x8D).await;
    other.publish("to/c", b"still there", Q0).await;
    assert_eq!(client.take().await.text(), "still there");
    watcher.quiet().await;
}

#[tokio::test]
async fn a_packet_larger_than_a_period_passes() {
    let broker = broker("bytes_rate = \"64KB/50ms\"").await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q1).await;
    let before = clock::now().mono_ms;
    let mut client = join(&broker, Version::V5, "c").await;
    let payload: Vec<u8> = (0..500_000u32).map(|n| n.to_le_bytes()[0]).collect();
    client.publish("t", &payload, Q1).await;
    assert!(watcher.receive().await.payload == payload);
    assert!(clock::now().mono_ms - before >= (500_000 - 65_536) * 50 / 65_536);
    client.quiet().await;
    assert!(broker.metric(&throttled("bytes_rate")) >= 1);
}

#[tokio::test]
async fn bytes_over_the_rate_are_not_read() {
    let broker = broker("bytes_rate = \"1000B/d\"").await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q0).await;
    let mut client = join(&broker, Version::V5, "c").await;
    for _ in 0..3 {
        client.publish("t", &[b'x'; 400], Q0).await;
    }
    broker.until_metric(&throttled("bytes_rate"), 1).await;
    for _ in 0..2 {
        assert_eq!(watcher.take().await.payload.len(), 400);
    }
    watcher.quiet().await;
}

/// What comes in one write with CONNECT counts too.
#[tokio::test]
async fn messages_behind_connect_wait_for_their_turn() {
    let broker = broker("messages_rate = \"2/d\"").await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q0).await;
    let mut client = broker.open_at("tcp:limited").await;
    let mut bytes = client.encoded(&Packet::Connect(Box::new(hello(Version::V5, "c"))));
    for n in 0..4 {
        bytes.extend(client.encoded(&Packet::Publish(message("t", &[b'0' + n]))));
    }
    client.write(&bytes).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
    broker.until_metric(&throttled("messages_rate"), 1).await;
    assert_eq!(watcher.receive_texts(2).await, ["0", "1"]);
    watcher.quiet().await;
}

/// Each listener has its own limits, and a reload changes those of connections to come.
#[tokio::test]
async fn limits_are_of_a_listener_and_of_connections_to_come() {
    let two = |one: &str, other: &str| {
        let more =
            format!("{}{}", listener("limited", one), listener("six", other).replace("127.0.0.1", "[::1]"));
        format!("{}{}", listener("default", "").replace("[listeners.limits]", "max_connections = 7"), more)
    };
    let mut broker =
        Setup::new().listeners(&two("messages_rate = \"1/d\"", "messages_rate = \"2/d\"")).start().await;
    let mut watcher = broker.join(Version::V5, "w").await;
    watcher.subscribe("t", Q0).await;
    let flood = async |client: &mut Client, count: u8| {
        for n in 0..count {
            client.publish("t", &[b'0' + n], Q0).await;
        }
    };
    let mut one = join(&broker, Version::V5, "one").await;
    flood(&mut one, 4).await;
    broker.until_metric(&throttled("messages_rate"), 1).await;
    assert_eq!(watcher.receive_texts(1).await, ["0"]);
    let mut six = broker.open_at("tcp:six").await;
    assert_eq!(six.connect(&hello(Version::V5, "six")).await, Got::ConnAck(false, 0));
    flood(&mut six, 4).await;
    broker.until_metric(&throttled("messages_rate"), 2).await;
    assert_eq!(watcher.receive_texts(2).await, ["0", "1"]);
    broker.reload(|setup| setup.listeners(&two("messages_rate = \"3/d\"", ""))).await.unwrap();
    let mut new = join(&broker, Version::V5, "new").await;
    flood(&mut new, 4).await;
    broker.until_metric(&throttled("messages_rate"), 3).await;
    assert_eq!(watcher.receive_texts(3).await, ["0", "1", "2"]);
    watcher.quiet().await;
}

/// `cluster.links.quota`: all connections of a peer together.
#[tokio::test]
async fn a_peer_has_one_quota_for_all_its_connections() {
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "secret-b"), ("clink-user:C", "secret-c")]);
    let quota = "[cluster.links.quota]\nmessages_rate = \"3/d\"\n";
    let broker = setup
        .authentication("password_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n\
             allow_insecure = true",
        )
        .links(&format!("{}{quota}{}{quota}", link_to("B"), link_to("C")))
        .start()
        .await;
    let peer = async |name: &str, number: u8| {
        let mut client = broker.open().await;
        let (id, user) = (format!("clink-{name}-{number}"), format!("clink-user:{name}"));
        let password = format!("secret-{}", name.to_lowercase());
        let asked =
            Connect { username: Some(&user), password: Some(password.as_bytes()), ..hello(Version::V5, &id) };
        assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0));
        client
    };
    let (mut one, mut two, mut routes) = (peer("B", 1).await, peer("B", 2).await, peer("B", 3).await);
    let mut foreign = peer("C", 1).await;
    // They are answered, if only to be called undecodable.
    one.publish("$LINK/cluster/msg/B", b"x", Q1).await;
    for client in [&mut one, &mut two] {
        client.publish("$LINK/cluster/msg/B", b"x", Q1).await;
    }
    let held = Publish { qos: Q1, packet_id: Some(id(9)), ..message("$LINK/cluster/msg/B", b"x") };
    two.send(&Packet::Publish(held)).await;
    broker.until_metric(&throttled("link_messages_rate"), 1).await;
    // Another peer has its own, and a connection without messages is read.
    foreign.publish("$LINK/cluster/msg/C", b"x", Q1).await;
    routes.quiet().await;
    one.quiet().await;
}
