use std::sync::Arc;

use tokio::task::JoinHandle;

use super::*;
use crate::broker::link_client::tests::Peer;
use crate::broker::link_client::tests::Seen;
use crate::broker::link_client::tests::SeenPublish;
use crate::broker::link_client::tests::Served;
use crate::broker::link_client::tests::in_time;
use crate::broker::link_client::tests::link;
use crate::broker::link_client::tests::settings;
use crate::broker::links::Link;
use crate::broker::links::Links;
use crate::broker::routes::LocalRoute as TableRoute;
use crate::link::compress::Inflater;
use crate::link::extension::Capabilities;
use crate::link::payload;
use crate::link::payload::ActorInitAck;
use crate::link::payload::Control;
use crate::metrics::Metrics;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::ReconnectReason;
use crate::metrics::labels::RouteKind;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::SubAck;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::storage::Storage;
use crate::storage::group::Group;
use crate::storage::memory::Memory;
use crate::storage::store::Mode;
use crate::time::Now;

fn route(filter: &str, share: Option<&str>) -> TableRoute {
    TableRoute { filter: filter.into(), share: share.map(Into::into), via: None }
}

fn change(filter: &str, added: bool, sequence: u64) -> RouteChange {
    RouteChange { route: route(filter, None), added, sequence }
}

fn start(link: &Arc<Link>, routes: Vec<TableRoute>) -> JoinHandle<()> {
    tokio::spawn(run(Arc::clone(link), Arc::new(move || routes.clone()), None))
}

#[tokio::test]
async fn an_incarnation_is_above_those_of_lives_before_whatever_the_clock_says() {
    let memory = Arc::new(Memory::default());
    let incarnation = |init: &SeenPublish| {
        let mut inflater = Inflater::default();
        let control = payload::parse_control(inflater.open(&init.payload).unwrap()).unwrap();
        let Control::ActorInit(init) = control else { panic!("{control:?}") };
        init.incarnation
    };
    // Our clock was a day ahead, and is set back.
    let mut last = clock::now().plus_ms(86_400_000).unix_ms;
    let mut group = Group::default();
    group.put(Table::Incarnation, Key::Name(b"B"), None, |out| out.extend_from_slice(&last.to_le_bytes()));
    memory.commit(&mut group, true).unwrap();
    for _ in 0..3 {
        let peer = Peer::bind().await;
        let store = Store::start(Box::new(Arc::clone(&memory)), Mode::Fsync).unwrap();
        let links = Links::new(Some(Arc::clone(&store)));
        links.load().unwrap();
        let link = links.build(settings(vec![peer.address()]), "A", "a@host", &Metrics::new(clock::now()));
        links.forget_others();
        let driver = start(&link, Vec::new());
        let mut served = peer.welcome(ReasonCode::Success, &[]).await;
        let init = actor_init(&mut served).await;
        assert!(incarnation(&init) > last);
        last = incarnation(&init);
        driver.abort();
        assert!(in_time(driver).await.is_err());
        store.stop();
    }
    // A link that is not configured any more is forgotten.
    let store = Store::start(Box::new(Arc::clone(&memory)), Mode::Fsync).unwrap();
    let links = Links::new(Some(Arc::clone(&store)));
    links.load().unwrap();
    links.forget_others();
    store.stop();
    assert_eq!(memory.usage().entries, 0);
}

/// The items of a route update, deletions with a `-`.
fn items(publish: &SeenPublish) -> Vec<String> {
    let mut inflater = Inflater::default();
    let control = payload::parse_control(inflater.open(&publish.payload).unwrap()).unwrap();
    let Control::Route(update) = control else { panic!("not a route update: {control:?}") };
    let mut items: Vec<String> = update
        .ops
        .map(|op| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            format!("{}{} {}", if op.delete { "-" } else { "+" }, text(op.topic), text(op.id))
        })
        .collect();
    items.sort();
    items
}

/// The next route update; the heartbeat that ends a bootstrap may come before it.
async fn route_update(served: &mut Served) -> SeenPublish {
    loop {
        let publish = served.publish().await;
        let mut inflater = Inflater::default();
        let control = payload::parse_control(inflater.open(&publish.payload).unwrap()).unwrap();
        if matches!(control, Control::Route(_)) {
            return publish;
        }
    }
}

/// Plain and shared routes that the metrics show.
fn told(link: &Link) -> [i64; 2] {
    [RouteKind::Plain, RouteKind::Shared].map(|kind| link.metrics.routes[(Direction::Out, kind)].value())
}

/// Answers the subscription and gives the actor_init.
async fn actor_init(served: &mut Served) -> SeenPublish {
    let Seen::Subscribe { id, filter, qos } = served.next().await else { panic!("not a SUBSCRIBE") };
    assert_eq!((&*filter, qos), ("$LINK/cluster/resp/A/a@host", QoS::AtLeastOnce));
    let reasons = [ReasonCode::GrantedQoS1].into_iter().collect();
    served.send(&Packet::SubAck(SubAck { packet_id: id, properties: Properties::EMPTY, reasons })).await;
    served.publish().await
}

/// Accepts an actor_init, in the order of a real peer: PUBACK, then the ack on the response topic.
async fn accept(served: &mut Served, init: &SeenPublish) {
    served.ack(init.id.unwrap(), ReasonCode::NoMatchingSubscribers).await;
    let mut properties = PropertiesBuf::new();
    properties.push(Property::CorrelationData(init.correlation_data.as_deref().unwrap()));
    let mut bytes = Vec::new();
    let ack = ActorInitAck {
        actor: "a@host",
        proto_ver: 1,
        result: Ok(()),
        need_bootstrap: Some(true),
        capabilities: Capabilities::NONE,
        reach: Vec::new(),
        version: None,
    };
    payload::put_ack(&mut bytes, &ack);
    served
        .send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: init.response_topic.as_deref().unwrap(),
            packet_id: PacketId::new(9),
            properties: properties.as_properties(),
            payload: &bytes,
        }))
        .await;
    assert_eq!(served.next().await, Seen::PubAck(9));
}

#[tokio::test]
async fn a_link_says_hello_tells_its_routes_and_takes_them_back() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let routes = vec![route("t/1", None), route("t/1", Some("g")), route("u/1", None), route("#", None)];
    let driver = start(&link, routes);
    let mut served = peer.accept().await;
    let Seen::Connect { client_id, username, password } = served.next().await else {
        panic!("not a CONNECT")
    };
    assert_eq!(client_id, name::route_client_id("clink-A-", "a@host"));
    assert_eq!((username.as_deref(), password.as_deref()), (Some("clink-user:A"), Some(&b"hunter2"[..])));
    served.connack(ReasonCode::Success, &[]).await;
    let init = actor_init(&mut served).await;
    assert_eq!(init.topic, "$LINK/cluster/route/A");
    assert!(link.metrics.state.is(LinkState::Connecting));
    accept(&mut served, &init).await;

    let bootstrap = served.publish().await;
    assert_eq!(items(&bootstrap), ["+t/# #", "+t/1 $s/g/t/1", "+t/1 t/1"]);
    served.ack(bootstrap.id.unwrap(), ReasonCode::NoMatchingSubscribers).await;
    // The older of two changes of one route comes last, and another is of no interest to the peer.
    link.replication.handle_route_change(&change("t/2", true, 8));
    link.replication.handle_route_change(&change("t/2", false, 7));
    link.replication.handle_route_change(&change("u/2", true, 9));
    let update = route_update(&mut served).await;
    assert_eq!(items(&update), ["+t/2 t/2"]);
    assert_eq!(told(&link), [3, 1]);
    assert!(link.metrics.state.is(LinkState::Active) && link.metrics.up.value() == 1);
    served.ack(update.id.unwrap(), ReasonCode::Success).await;
    // What the snapshot held already counts once, and goes with its last subscriber.
    link.replication.handle_route_change(&change("t/1", true, 10));
    let again = served.publish().await;
    assert_eq!(told(&link), [3, 1]);
    served.ack(again.id.unwrap(), ReasonCode::Success).await;

    link.replication.stop(clock::now().plus_ms(10_000).mono_ms);
    let farewell = served.publish().await;
    assert_eq!(items(&farewell), ["-t/# #", "-t/1 $s/g/t/1", "-t/1 t/1"]);
    served.ack(farewell.id.unwrap(), ReasonCode::Success).await;
    assert_eq!(served.next().await, Seen::Disconnect(0));
    drop(served);
    in_time(driver).await.unwrap();
}

#[tokio::test]
async fn a_refused_link_is_unauthenticated_and_tries_the_next_server() {
    let (first, second) = (Peer::bind().await, Peer::bind().await);
    let link = link(settings(vec![first.address(), second.address()]));
    let driver = start(&link, Vec::new());
    let _refused = first.welcome(ReasonCode::BadUserNameOrPassword, &[]).await;
    let mut served = second.accept().await;
    assert!(link.metrics.state.is(LinkState::Unauthenticated));
    assert_eq!(link.metrics.reconnects[ReconnectReason::Auth].value(), 1);
    served.next().await;
    served.connack(ReasonCode::Success, &[]).await;
    let init = actor_init(&mut served).await;
    // Not yet accepted: why it failed is still shown.
    assert!(link.metrics.state.is(LinkState::Unauthenticated));
    accept(&mut served, &init).await;
    link.replication.handle_route_change(&change("t/1", true, 1));
    items(&route_update(&mut served).await);
    assert!(link.metrics.state.is(LinkState::Active));
    // A stop is not held up by a peer that answers nothing any more.
    link.replication.stop(clock::now().mono_ms);
    in_time(async { while served.read().await.is_some() {} }).await;
    drop(served);
    in_time(driver).await.unwrap();
}

#[tokio::test]
async fn a_link_that_is_rejected_says_so() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let driver = start(&link, Vec::new());
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    let init = actor_init(&mut served).await;
    served.ack(init.id.unwrap(), ReasonCode::NotAuthorized).await;
    assert_eq!(served.next().await, Seen::Disconnect(0));
    assert!(link.metrics.state.is(LinkState::Unauthenticated));
    link.replication.stop(Now::default().mono_ms);
    drop(served);
    in_time(driver).await.unwrap();
}

/// Cases 7 and 9 of `link-protocol.md` 8: whatever becomes of a connection, the actor lives on and tries again.
#[tokio::test]
async fn a_peer_that_ends_connections_half_way_is_tried_again_by_the_same_actor() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let driver = start(&link, vec![route("t/1", None)]);
    // It does not even answer the CONNECT.
    drop(peer.accept().await);
    // It refuses the subscription with the end of the connection.
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    assert!(matches!(served.next().await, Seen::Subscribe { .. }));
    served
        .send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::NotAuthorized,
            properties: Properties::EMPTY,
        }))
        .await;
    drop(served);
    // It fails over the actor_init.
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    assert!(link.metrics.state.is(LinkState::Unauthenticated), "and says so");
    let first = actor_init(&mut served).await;
    drop(served);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    let second = actor_init(&mut served).await;
    assert_eq!(first.payload, second.payload, "actor and incarnation are the same");
    accept(&mut served, &second).await;
    assert_eq!(items(&route_update(&mut served).await), ["+t/1 t/1"]);
    link.replication.stop(Now::default().mono_ms);
    drop(served);
    in_time(driver).await.unwrap();
}

/// Case 10.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_peer_that_never_answers_connect() {
    let peer = Peer::bind().await;
    let link = link(settings(vec![peer.address()]));
    let driver = start(&link, Vec::new());
    let mut served = peer.accept().await;
    assert!(matches!(served.next().await, Seen::Connect { .. }));
    let deadline = clock::now().plus_ms(3_600_000);
    link.replication.stop(deadline.mono_ms);
    in_time(driver).await.unwrap();
    assert_eq!(served.read().await, None);
}
