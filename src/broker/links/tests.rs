//! Two brokers in one process, linked with each other.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::broker::link_client::tests::Peer;
use crate::broker::link_client::tests::Seen;
use crate::broker::link_client::tests::SeenPublish;
use crate::broker::link_client::tests::Served;
use crate::broker::link_client::tests::link;
use crate::broker::link_client::tests::settings;
use crate::broker::link_ingress::LinkIngress;
use crate::broker::server::Server;
use crate::config;
use crate::config::Environment;
use crate::config::settings::ServerAddr;
use crate::link::compress::Deflater;
use crate::link::compress::Inflater;
use crate::link::extension::Capabilities;
use crate::link::message;
use crate::link::name;
use crate::link::payload;
use crate::link::payload::ActorInit;
use crate::link::payload::Control;
use crate::link::payload::Heartbeat;
use crate::link::payload::RouteBatch;
use crate::link::payload::RouteOp;
use crate::metrics::labels::LinkDropReason;
use crate::metrics::labels::LinkState;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::decode::decode;
use crate::mqtt::encode::encode;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Subscribe;
use crate::mqtt::packet::SubscribeFilter;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what another task does, without a pause of its own.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            yield_now().await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

async fn start(name: &str, peer: &str, dir: &Path) -> Server {
    let data = dir.join(name);
    let rules = dir.join("acl.conf");
    std::fs::write(&rules, "{allow, all}.\n").unwrap();
    let text = format!(
        r#"
[cluster]
name = "{name}"
node = "{name}@host"
[data]
dir = "{data}"
durability = "memory"
[mqtt]
max_mqueue_len = 1000000
[[listeners]]
name = "default"
type = "tcp"
bind = "127.0.0.1:0"
role = "any"
allow_insecure = true
[authentication]
allow_anonymous = true
[authorization]
file = "{rules}"
[[cluster.links]]
name = "{peer}"
enable = false
server = "127.0.0.1:1"
clientid = "clink-{name}-"
topics = ["t/#"]
pool_size = 2
[cluster.links.peer]
allow_unauthenticated = true
[cluster.links.ssl]
enable = false
"#,
        data = data.display(),
        rules = rules.display(),
    );
    let settings = config::parse("test", &text, &Environment::default()).unwrap();
    Server::start(settings).await.unwrap()
}

/// The disabled link of a server, enabled and towards where the other server is.
fn enabled(server: &Server, peer: &Server) -> settings::Link {
    let mut link = server.settings().cluster.links[0].clone();
    let port = peer.address("tcp:default").unwrap().port();
    link.enable = true;
    link.servers = vec![ServerAddr { host: "127.0.0.1".to_owned(), port }];
    link
}

async fn restart(server: &Server, settings: settings::Link) {
    let cluster = &server.settings().cluster;
    Links::start(server.broker(), settings, (&cluster.name, &cluster.node), Duration::ZERO).await;
}

fn link_of(server: &Server) -> Arc<Link> {
    server.broker().links.get(&server.settings().cluster.links[0].name).unwrap()
}

fn is_active(server: &Server) -> bool {
    link_of(server).metrics.state.is(LinkState::Active)
}

/// An ordinary client.
struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    async fn connect(server: &Server, client_id: &str) -> Self {
        let stream = TcpStream::connect(server.address("tcp:default").unwrap()).await.unwrap();
        let mut client = Self { stream, bytes: Vec::new() };
        client
            .send(&Packet::Connect(Box::new(Connect {
                version: Version::V5,
                bridge: false,
                clean_start: true,
                keep_alive_seconds: 0,
                properties: Properties::EMPTY,
                client_id,
                will: None,
                username: None,
                password: None,
            })))
            .await;
        client
            .receive(|packet| assert!(matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())))
            .await;
        client
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, Version::V5, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn receive<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> T {
        let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: u32::MAX };
        loop {
            let length = match decode(&self.bytes, &limits).unwrap() {
                Decoded::Packet { len, .. } => Some(len),
                Decoded::NeedMore { .. } => None,
            };
            if let Some(length) = length {
                let rest = self.bytes.split_off(length);
                let whole = std::mem::replace(&mut self.bytes, rest);
                let Ok(Decoded::Packet { packet, .. }) = decode(&whole, &limits) else { unreachable!() };
                return look(&packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await.unwrap();
            assert!(read.unwrap() > 0, "the broker closed the connection");
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let filters = std::iter::once(SubscribeFilter { filter, options }).collect();
        let packet_id = PacketId::MIN;
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters })).await;
        self.receive(|packet| assert!(matches!(packet, Packet::SubAck(_)))).await;
    }

    async fn publish(&mut self, topic: &str, payload: &[u8]) -> u8 {
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            packet_id: PacketId::new(1),
            properties: Properties::EMPTY,
            payload,
        }))
        .await;
        self.receive(|packet| match packet {
            Packet::PubAck(ack) => ack.reason.as_u8(),
            other => panic!("not a PUBACK: {other:?}"),
        })
        .await
    }

    /// The next message, acknowledged: a window that fills up would hold back those behind it.
    async fn message(&mut self) -> (String, Vec<u8>) {
        let (topic, payload, packet_id) = self
            .receive(|packet| match packet {
                Packet::Publish(publish) => {
                    (publish.topic.to_owned(), publish.payload.to_vec(), publish.packet_id.unwrap())
                }
                other => panic!("not a PUBLISH: {other:?}"),
            })
            .await;
        self.send(&Packet::PubAck(Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }))
        .await;
        (topic, payload)
    }
}

#[tokio::test]
async fn linked_brokers_exchange_what_each_other_wants_until_the_link_is_stopped() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (start("A", "B", dir.path()).await, start("B", "A", dir.path()).await);
    assert!(link_of(&a).metrics.state.is(LinkState::Disabled));
    let mut subscriber = Client::connect(&b, "subscriber").await;
    subscriber.subscribe("t/1").await;
    let (to_b, to_a) = (enabled(&a, &b), enabled(&b, &a));
    restart(&a, to_b.clone()).await;
    restart(&b, to_a).await;
    until("both active", || is_active(&a) && is_active(&b)).await;
    let routes = |server: &Server| server.broker().routes.counts().link_routes;
    until("the route of before", || routes(&a) == 1).await;
    subscriber.subscribe("t/+/x").await;
    until("the route of now", || routes(&a) == 2).await;

    let mut publisher = Client::connect(&a, "publisher").await;
    assert_eq!(publisher.publish("t/1", b"hello").await, 0x00);
    assert_eq!(publisher.publish("u/1", b"nobody wants this").await, 0x10);
    assert_eq!(publisher.publish("t/2/x", b"world").await, 0x00);
    assert_eq!(subscriber.message().await, ("t/1".to_owned(), b"hello".to_vec()));
    assert_eq!(subscriber.message().await, ("t/2/x".to_owned(), b"world".to_vec()));
    let sent = Arc::clone(&link_of(&a).metrics);
    until("acknowledged", || sent.messages[(Direction::Out, QoS::AtLeastOnce)].value() == 2).await;
    assert_eq!(sent.ledger_unaccounted.value(), 0);

    // The other side does not say again what it has said, and yet it is known to the new link.
    let old = link_of(&a).id;
    restart(&a, settings::Link { pool_size: 1, ..to_b.clone() }).await;
    assert!(link_of(&a).id == old && routes(&a) == 2);
    until("active again", || is_active(&a)).await;
    assert_eq!(publisher.publish("t/1", b"again").await, 0x00);
    assert_eq!(subscriber.message().await, ("t/1".to_owned(), b"again".to_vec()));

    // A disabled link sends nothing, though its peer's routes are remembered.
    restart(&a, settings::Link { enable: false, ..to_b }).await;
    assert_eq!((routes(&a), publisher.publish("t/1", b"no").await), (0, 0x10));
    assert!(link_of(&a).routes.lock().len() == 2);
    Links::stop(b.broker(), "A").await;
    until("routes taken back", || link_of(&a).routes.lock().is_empty()).await;
    // A server that stops waits for clients to close their side.
    drop((publisher, subscriber));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_link_whose_settings_change_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (start("A", "B", dir.path()).await, start("B", "A", dir.path()).await);
    let mut subscriber = Client::connect(&b, "subscriber").await;
    subscriber.subscribe("t/1").await;
    let (to_b, to_a) = (enabled(&a, &b), enabled(&b, &a));
    restart(&a, to_b.clone()).await;
    restart(&b, to_a).await;
    let routes = || a.broker().routes.counts().link_routes;
    // Its lanes and the one for routes.
    let incoming = || link_of(&a).connections_in();
    until("linked", || is_active(&a) && is_active(&b) && routes() == 1 && incoming() == 3).await;
    let id = link_of(&a).id;
    let mut publisher = Client::connect(&a, "publisher").await;

    // Nothing can be sent: everything has to be handed on, more than once.
    let nowhere = vec![ServerAddr { host: "127.0.0.1".to_owned(), port: 1 }];
    let away = settings::Link { servers: nowhere, pool_size: 4, ..to_b.clone() };
    let quota = settings::Quota { connections: 99, routes: 5_000, ..away.quota };
    let changes = [
        away.clone(),
        settings::Link { pool_size: 2, ..away.clone() },
        settings::Link { quota, pool_size: 2, ..away.clone() },
        settings::Link { pool_size: 1, ..away },
        settings::Link { topics: vec!["u/#".to_owned()], pool_size: 1, ..to_b },
    ];
    let mut count = 0;
    for change in changes {
        let done = Cell::new(false);
        let changing = async {
            restart(&a, change).await;
            done.set(true);
        };
        // At every moment there is a link that takes the message.
        let publishing = async {
            while !done.get() {
                assert_eq!(publisher.publish("t/1", format!("{count}").as_bytes()).await, 0x00);
                count += 1;
            }
        };
        tokio::join!(changing, publishing);
        let link = link_of(&a);
        assert_eq!((link.id, routes(), incoming(), link.routes.lock().len()), (id, 1, 3, 1));
    }
    for number in 0..count {
        assert_eq!(String::from_utf8(subscriber.message().await.1).unwrap(), number.to_string());
    }
    let metrics = &link_of(&a).metrics;
    assert_eq!(metrics.messages_dropped[(Direction::Out, LinkDropReason::LinkDeleted)].value(), 0);
    until("acknowledged", || metrics.spool_messages.value() == 0 && metrics.inflight.value() == 0).await;
    assert_eq!(metrics.ledger_unaccounted.value(), 0);
    drop((publisher, subscriber));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_link_counts_the_peers_connections_from_its_first_day() {
    let dir = TempDir::new().unwrap();
    let a = start("A", "B", dir.path()).await;
    assert!(LinkIngress::new(a.broker(), "nobody", "clink-B-1").is_none());
    let mut settings = link_of(&a).settings.clone();
    settings.quota.connections = 2;
    restart(&a, settings.clone()).await;
    let first = LinkIngress::new(a.broker(), "B", "clink-B-1").unwrap();
    settings.topics.push("v/#".to_owned());
    restart(&a, settings).await;
    let second = LinkIngress::new(a.broker(), "B", "clink-B-1").unwrap();
    assert!(LinkIngress::new(a.broker(), "B", "clink-B-1").is_none());
    drop(first);
    let third = LinkIngress::new(a.broker(), "B", "clink-B-1").unwrap();
    assert_eq!(link_of(&a).metrics.connections[Direction::In].value(), 2);
    drop((second, third));
    assert_eq!(link_of(&a).connections_in(), 0);
    a.stop().await;
}

/// The peer's own connection for its routes.
struct Wishes(Client);

impl Wishes {
    /// Connects, and says which incarnation of its actor this is.
    async fn begin(server: &Server, incarnation: u64) -> Self {
        let mut client = Client::connect(server, "clink-B-routes").await;
        let response_topic = name::response_topic("B", "b@host");
        client.subscribe(&response_topic).await;
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ResponseTopic(&response_topic));
        properties.push(Property::CorrelationData(b"0123456789abcdef"));
        let mut payload = Vec::new();
        let init = ActorInit {
            actor: "b@host",
            incarnation,
            target_cluster: "A",
            proto_ver: payload::PROTO_VER,
            capabilities: Capabilities::NONE,
        };
        payload::put_actor_init(&mut payload, &init);
        client
            .send(&Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: "$LINK/cluster/route/B",
                packet_id: PacketId::new(1),
                properties: properties.as_properties(),
                payload: &payload,
            }))
            .await;
        // The acknowledgement and the answer, in whatever order.
        for _ in 0..2 {
            client.receive(|packet| assert!(matches!(packet, Packet::PubAck(_) | Packet::Publish(_)))).await;
        }
        Self(client)
    }

    async fn add(&mut self, incarnation: u64, filter: &str) {
        let mut batch = RouteBatch::new("b@host", incarnation);
        batch.push(&RouteOp { delete: false, topic: filter.as_bytes(), id: filter.as_bytes() });
        let payload = batch.finish(&mut Deflater::default(), usize::MAX);
        assert_eq!(self.0.publish("$LINK/cluster/route/B", &payload).await, 0x10);
    }

    async fn beat(&mut self, incarnation: u64) {
        let mut payload = Vec::new();
        payload::put_heartbeat(
            &mut payload,
            &Heartbeat { actor: "b@host", incarnation, ..Heartbeat::default() },
        );
        assert_eq!(self.0.publish("$LINK/cluster/route/B", &payload).await, 0x10);
    }
}

/// The next connection of the link that carries messages, accepted. The one for routes stays unanswered.
async fn accept_lane(peer: &Peer, others: &mut Vec<Served>) -> Served {
    loop {
        let mut served = peer.accept().await;
        match served.next().await {
            Seen::Connect { client_id, .. } if client_id.contains(":msg:") => {
                served.connack(ReasonCode::Success, &[]).await;
                return served;
            }
            _ => others.push(served),
        }
    }
}

fn text_of(publish: &SeenPublish) -> (String, bool) {
    let mut inflater = Inflater::default();
    let message = message::parse(inflater.open(&publish.payload).unwrap()).unwrap();
    (String::from_utf8(message.payload.to_vec()).unwrap(), publish.dup)
}

#[tokio::test]
async fn a_peer_that_began_anew_gets_what_it_is_owed_once_it_has_said_what_it_wants() {
    let dir = TempDir::new().unwrap();
    let a = start("A", "B", dir.path()).await;
    let (peer, mut others) = (Peer::bind().await, Vec::new());
    let settings = a.settings().cluster.links[0].clone();
    restart(&a, settings::Link { enable: true, servers: vec![peer.address()], pool_size: 1, ..settings })
        .await;
    let link = link_of(&a);
    let lane = || link.forwarder.view(clock::now())[0];
    let mut wishes = Wishes::begin(&a, 1).await;
    wishes.add(1, "t/1").await;
    let mut served = accept_lane(&peer, &mut others).await;
    until("connected first", || lane().connected).await;
    wishes.beat(1).await;
    let mut publisher = Client::connect(&a, "publisher").await;
    assert_eq!(publisher.publish("t/1", b"1").await, 0x00);
    assert_eq!(text_of(&served.publish().await), ("1".to_owned(), false));

    // The peer dies, and its connections for messages are back before it has said anything.
    drop((served, wishes));
    until("noticed", || !lane().connected).await;
    assert_eq!(publisher.publish("t/1", b"2").await, 0x00);
    let mut served = accept_lane(&peer, &mut others).await;
    until("connected", || lane().connected).await;
    assert_eq!(publisher.publish("t/1", b"3").await, 0x00);
    let mut wishes = Wishes::begin(&a, 2).await;
    wishes.add(2, "t/1").await;
    wishes.beat(2).await;
    assert_eq!((lane().counters.sent, lane().in_flight, lane().queued), (1, 0, 3));
    let settled = clock::now().plus_ms(remote_routes::SETTLE_MS);
    link.collect(&a.broker().routes, settled);
    for (text, dup) in [("1", true), ("2", false), ("3", false)] {
        let publish = served.publish().await;
        assert_eq!(text_of(&publish), (text.to_owned(), dup));
        served.ack(publish.id.unwrap(), ReasonCode::Success).await;
    }

    // Only the connection for messages is lost: its next heartbeat says that the peer is the one it was.
    drop(served);
    until("noticed again", || !lane().connected).await;
    let mut served = accept_lane(&peer, &mut others).await;
    until("connected again", || lane().connected).await;
    assert_eq!(publisher.publish("t/1", b"4").await, 0x00);
    assert_eq!((lane().in_flight, lane().queued), (0, 1));
    wishes.beat(2).await;
    assert_eq!(text_of(&served.publish().await), ("4".to_owned(), false));
    drop((served, others, publisher, wishes));
    a.stop().await;
}

/// Has an actor of the peer add one route.
fn add_route(link: &Link, table: &Routes, now: Now) {
    add_routes(link, table, now, &["t/1".to_owned()]);
}

fn add_routes(link: &Link, table: &Routes, now: Now, filters: &[String]) {
    let mut routes = link.routes.lock();
    routes.actor_init(now, "b@host", 1).unwrap();
    let mut batch = RouteBatch::new("b@host", 1);
    for filter in filters {
        batch.push(&RouteOp { delete: false, topic: filter.as_bytes(), id: filter.as_bytes() });
    }
    let payload = batch.finish(&mut Deflater::default(), usize::MAX);
    let mut inflater = Inflater::default();
    let Ok(Control::Route(update)) = payload::parse_control(inflater.open(&payload).unwrap()) else {
        panic!("not a route update");
    };
    routes.update(now, "b@host", 1, update.ops).unwrap();
    link.apply_changes(&mut routes, 1, table);
}

#[test]
fn routes_of_silent_actors_stay_until_the_spool_is_full_and_those_of_stopped_links_go() {
    let table = Routes::new();
    let now = Now { mono_ms: 1_000, unix_ms: 1_000 };
    let silent = link(settings(Vec::new()));
    add_route(&silent, &table, now);
    silent.collect(&table, now.plus_ms(remote_routes::ACTOR_TTL_MS));
    assert_eq!((table.counts().link_routes, silent.routes.lock().is_settled()), (1, false));
    silent.metrics.spool_bytes.set(silent.settings.spool.max_bytes as i64);
    silent.collect(&table, now.plus_ms(remote_routes::ACTOR_TTL_MS));
    assert_eq!((table.counts().link_routes, silent.routes.lock().is_settled()), (0, true));

    let stopped = link(settings(Vec::new()));
    add_route(&stopped, &table, now);
    stopped.forget(&table);
    assert_eq!(table.counts().link_routes, 0);
    // A connection that still holds the link cannot bring routes back.
    add_route(&stopped, &table, now);
    assert_eq!(table.counts().link_routes, 0);
}

#[test]
fn a_large_peer_comes_and_goes_in_small_turns() {
    const COUNT: usize = 3 * CHANGES_PER_TURN;
    let table = Routes::new();
    let now = Now { mono_ms: 1_000, unix_ms: 1_000 };
    let mut generous = settings(Vec::new());
    generous.quota.routes = COUNT;
    let large = link(generous.clone());
    let filters: Vec<String> = (0..COUNT).map(|number| format!("t/{number}")).collect();
    add_routes(&large, &table, now, &filters);
    let count = || table.counts().link_routes;
    assert_eq!(count(), CHANGES_PER_TURN);
    assert!(large.collect(&table, now));
    assert_eq!(count(), 2 * CHANGES_PER_TURN);

    // What is left to do is left to the link that replaces it.
    let successor = Links::default().make(generous, "A", "a@host", &Metrics::new(now), Some(&large));
    successor.inherit(&large, &table, || ());
    assert_eq!(count(), COUNT);
    assert!(!successor.collect(&table, now));

    // The peer's actor begins anew and wants nothing.
    successor.routes.lock().actor_init(now, "b@host", 2).unwrap();
    successor.routes.lock().heartbeat(now, "b@host", 2).unwrap();
    let settled = now.plus_ms(remote_routes::SETTLE_MS);
    let mut left = COUNT;
    while left > 0 {
        left -= CHANGES_PER_TURN;
        assert_eq!((successor.collect(&table, settled), count()), (left > 0, left));
    }
}

#[test]
fn a_quota_that_has_become_too_small_makes_the_peer_start_over() {
    let table = Routes::new();
    let now = Now { mono_ms: 1_000, unix_ms: 1_000 };
    let old = link(settings(Vec::new()));
    add_routes(&old, &table, now, &["t/1".to_owned(), "t/2".to_owned()]);
    old.collect(&table, now);
    let inherit = |old: &Link, enable, routes| {
        let mut settings = old.settings.clone();
        (settings.enable, settings.quota.routes) = (enable, routes);
        let new = Links::default().make(settings, "A", "a@host", &Metrics::new(now), Some(old));
        new.inherit(old, &table, || ());
        let known = new.routes.lock().len();
        (known, table.counts().link_routes, new)
    };
    let (known, shown, off) = inherit(&old, false, 2);
    assert_eq!((known, shown), (2, 0));
    let (known, shown, on) = inherit(&off, true, 3);
    assert_eq!((known, shown), (2, 2));
    let (known, shown, small) = inherit(&on, true, 1);
    assert_eq!((known, shown), (0, 0));
    assert!(small.routes.lock().heartbeat(now, "b@host", 1).is_err());
}

#[tokio::test]
async fn copies_go_with_the_link_that_keeps_them() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (start("A", "B", dir.path()).await, start("B", "A", dir.path()).await);
    let mut subscriber = Client::connect(&b, "subscriber").await;
    subscriber.subscribe("t/#").await;
    let keeping = |settings| settings::Link { retained: true, ..settings };
    let to_a = keeping(enabled(&b, &a));
    restart(&a, keeping(enabled(&a, &b))).await;
    restart(&b, to_a.clone()).await;
    let message = Publication {
        topic: "t/1",
        properties: &[],
        payload: b"kept",
        qos: QoS::AtLeastOnce,
        retain: true,
        expiry: None,
    };
    a.broker().publish_as_operator(&message, clock::now()).unwrap();
    let id = link_of(&b).id;
    let copies = || b.broker().retained.copies(id);
    until("a copy", || copies() == 1).await;
    restart(&b, settings::Link { retained: false, ..to_a.clone() }).await;
    assert_eq!(copies(), 0);
    restart(&b, to_a.clone()).await;
    until("a copy again", || copies() == 1).await;
    restart(&b, settings::Link { enable: false, ..to_a.clone() }).await;
    assert_eq!(copies(), 0);
    restart(&b, settings::Link { topics: vec!["t/2".to_owned()], ..to_a.clone() }).await;
    until("active", || is_active(&b)).await;
    restart(&b, to_a).await;
    until("a third time", || copies() == 1).await;
    Links::stop(b.broker(), "A").await;
    assert_eq!((copies(), b.broker().retained.counts().messages), (0, 0));
    drop(subscriber);
    a.stop().await;
    b.stop().await;
}
