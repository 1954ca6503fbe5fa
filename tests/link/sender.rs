//! The recordings in the other role: what EMQX's sender said to a peer, its routes and its messages, is said by ours as
//! well, once it gets the answers that EMQX got. Wherever we say something else on purpose, [`DIFFERENCES`] names it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use tombolo::link::compress;
use tombolo::link::compress::Inflater;
use tombolo::link::extension::Capabilities;
use tombolo::link::lane::Acked;
use tombolo::link::lane::Lane;
use tombolo::link::lane::LaneConfig;
use tombolo::link::lane::Pushed;
use tombolo::link::lane::SpoolBudget;
use tombolo::link::message;
use tombolo::link::message::Outgoing;
use tombolo::link::name::LinkTopic;
use tombolo::link::payload;
use tombolo::link::payload::ActorInit;
use tombolo::link::payload::Control;
use tombolo::link::replicator::ControlPublish;
use tombolo::link::replicator::GATHER_MS;
use tombolo::link::replicator::Output;
use tombolo::link::replicator::Problem;
use tombolo::link::replicator::Replicator;
use tombolo::link::replicator::ReplicatorConfig;
use tombolo::link::replicator::State;
use tombolo::link::route::LinkTopics;
use tombolo::link::route::LocalRoute;
use tombolo::mqtt::packet::QoS;
use tombolo::time::Now;

use crate::copied;
use crate::hex;
use crate::load;

/// What our sender says otherwise, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// One more key of actor_init says what we could do with a peer of ours; EMQX passes over it, and nothing else follows.
    Capabilities,
    /// A snapshot of all routes on every connection: older receivers say that they need none when they do.
    SnapshotUnasked,
    /// A heartbeat behind the snapshot: it says that this was all. EMQX sends its first one ten seconds later.
    HeartbeatBehindSnapshot,
    /// Only what is long is compressed: of what is short nothing would be gained.
    ShortPlain,
    /// A session that outlives its connection has a route of the node's actor: there is no second actor.
    NoPersistentActor,
}

const DIFFERENCES: [Difference; 5] = [
    Difference::Capabilities,
    Difference::SnapshotUnasked,
    Difference::HeartbeatBehindSnapshot,
    Difference::ShortPlain,
    Difference::NoPersistentActor,
];

/// Recordings of EMQX's own sender; in the others a script speaks.
const SCENARIOS: [&str; 10] = [
    "01-handshake-no-routes",
    "02-routes-add-delete",
    "03-bootstrap",
    "04-messages",
    "05-reconnect",
    "06-rejected-inits",
    "07-link-config-changes",
    "09-keepalive",
    "10-persistent-session-routes",
    "11-authentication-and-acl",
];

/// A route update: deletion, topic, id.
type Items = BTreeSet<(bool, Vec<u8>, Vec<u8>)>;

fn connections(scenario: &str) -> Vec<Vec<Value>> {
    let file = load(&format!("captures/{scenario}.json"));
    let mut connections: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for event in file["events"].as_array().unwrap().iter().filter(|event| event["conn"].is_u64()) {
        connections.entry(event["conn"].as_u64().unwrap()).or_default().push(event.clone());
    }
    connections.into_values().collect()
}

fn payload_of(event: &Value) -> Vec<u8> {
    hex(event["payload"].as_str().unwrap())
}

fn items(payload: &[u8]) -> Option<Items> {
    let mut inflater = Inflater::default();
    match payload::parse_control(inflater.open(payload).unwrap()).unwrap() {
        Control::Route(update) => {
            Some(update.ops.map(|op| (op.delete, op.topic.to_vec(), op.id.to_vec())).collect())
        }
        _ => None,
    }
}

/// What was not compressed.
fn actor_init(payload: &[u8]) -> ActorInit<'_> {
    match payload::parse_control(compress::open_plain(payload).unwrap()).unwrap() {
        Control::ActorInit(init) => init,
        other => panic!("{other:?}"),
    }
}

/// The subscription that a route id names.
fn subscription(id: &[u8]) -> LocalRoute {
    let id = std::str::from_utf8(id).unwrap();
    match id.split_once('/') {
        Some(("$s", rest)) => {
            let (group, filter) = rest.split_once('/').unwrap();
            LocalRoute::shared(group, filter)
        }
        Some(("$p", rest)) => {
            let (session, filter) = rest.split_once('/').unwrap();
            LocalRoute::persistent(session, filter)
        }
        _ => LocalRoute::plain(id),
    }
}

/// Our replicator in the place of one that EMQX had for one connection.
struct Ours {
    replicator: Replicator,
    now: Now,
    met: BTreeSet<Difference>,
}

impl Ours {
    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.replicator.poll_output())
            .filter(|output| !matches!(output, Output::StateChanged(_)))
            .collect()
    }

    /// The one thing that is published at QoS 1; heartbeats are not the matter.
    fn published(&mut self) -> ControlPublish {
        let published = self.outputs().into_iter().filter_map(|output| match output {
            Output::Publish(publish) if publish.qos == QoS::AtLeastOnce => Some(publish),
            _ => None,
        });
        let mut published: Vec<ControlPublish> = published.collect();
        assert_eq!(published.len(), 1);
        published.remove(0)
    }

    /// Up to the publish of actor_init, which is the recorded one.
    fn greet(&mut self, theirs: &Value) -> ControlPublish {
        self.replicator.start(self.now);
        assert_eq!(self.outputs(), [Output::Connect]);
        self.replicator.handle_connected(self.now, Some(1_048_576));
        let filter = theirs["response_topic"].as_str().unwrap();
        assert_eq!(self.outputs(), [Output::Subscribe { filter: filter.into() }]);
        self.replicator.handle_subscribed(self.now, 1);
        let ours = self.published();
        assert_eq!(&*ours.topic, theirs["topic"].as_str().unwrap());
        let mut bytes = Vec::new();
        let init = ActorInit { capabilities: Capabilities::NONE, ..actor_init(&ours.payload) };
        payload::put_actor_init(&mut bytes, &init);
        assert_eq!(bytes, payload_of(theirs), "but for the key of ours");
        self.met.insert(Difference::Capabilities);
        assert_eq!(ours.response_topic.as_deref(), Some(filter));
        let correlation = hex(theirs["correlation_data"].as_str().unwrap());
        let ours_has = ours.correlation_data.unwrap();
        assert!(ours_has.len() == correlation.len() && ours_has.iter().all(u8::is_ascii_hexdigit));
        ours
    }

    /// Says an update as ours would, for the same subscriptions.
    fn update(&mut self, theirs: &[u8], is_snapshot: bool) -> ControlPublish {
        let expected = items(theirs).unwrap();
        let gone_or_new: BTreeSet<(bool, &[u8])> =
            expected.iter().map(|(delete, _, id)| (*delete, &id[..])).collect();
        let is_changes = gone_or_new.iter().any(|(delete, _)| *delete);
        if is_snapshot && is_changes {
            // What was queued while the connection was gone: ours tells what there is first.
            self.replicator.handle_snapshot(self.now, Box::new(std::iter::empty()));
            let _ = self.outputs();
        }
        if is_snapshot && !is_changes {
            let routes: Vec<LocalRoute> = gone_or_new.iter().map(|(_, id)| subscription(id)).collect();
            self.replicator.handle_snapshot(self.now, Box::new(routes.into_iter()));
        } else {
            for (delete, id) in gone_or_new {
                self.replicator.handle_route(self.now, &subscription(id), delete);
            }
            self.now = self.now.plus_ms(GATHER_MS);
            self.replicator.handle_timeout(self.now);
        }
        let ours = self.published();
        assert_eq!(items(&ours.payload).unwrap(), expected);
        if ours.payload.get(1) != theirs.get(1) {
            assert!(ours.payload.len() < 512);
            self.met.insert(Difference::ShortPlain);
        }
        ours
    }

    /// What is done with everything the recording has behind actor_init.
    fn follow(&mut self, events: &[Value], init: &ControlPublish) {
        let mut awaited = init.token;
        let mut needs_snapshot = false;
        for event in events {
            let is_publish = event["type"] == "PUBLISH";
            match event["dir"].as_str().unwrap() {
                "s2c" if event["type"] == "PUBACK" => {
                    let reason = event["reason"].as_u64().unwrap() as u8;
                    self.replicator.handle_puback(self.now, awaited, reason);
                    if reason >= 0x80 {
                        let refused = Output::Close(Some(Problem::PublishRefused(reason)));
                        assert_eq!(self.outputs(), [refused]);
                        return;
                    }
                }
                "s2c" if is_publish => {
                    let payload = payload_of(event);
                    self.replicator.handle_response(
                        self.now,
                        init.correlation_data.as_ref().map(|data| &data[..]),
                        &payload,
                    );
                    let mut inflater = Inflater::default();
                    let ack = payload::parse_ack(inflater.open(&payload).unwrap()).unwrap();
                    if let Err(reason) = ack.result {
                        let outputs = self.outputs();
                        let [Output::Close(Some(problem))] = &outputs[..] else { panic!("{outputs:?}") };
                        assert!(problem.to_string().contains(&*reason), "{problem}");
                        assert_eq!(self.replicator.state(), State::Disconnected);
                        let again = self.replicator.poll_timeout().unwrap();
                        assert!(again >= self.now.mono_ms + 5_000, "no sooner than EMQX");
                        return;
                    }
                    assert_eq!(self.outputs(), [Output::RequestSnapshot]);
                    needs_snapshot = true;
                    if ack.need_bootstrap == Some(false) {
                        self.met.insert(Difference::SnapshotUnasked);
                    }
                }
                "c2s" if is_publish && event["qos"] == 1 => {
                    let ours = self.update(&payload_of(event), std::mem::take(&mut needs_snapshot));
                    assert_eq!(&*ours.topic, event["topic"].as_str().unwrap());
                    awaited = ours.token;
                }
                "c2s" if is_publish => {
                    if std::mem::take(&mut needs_snapshot) {
                        self.replicator.handle_snapshot(self.now, Box::new(std::iter::empty()));
                        assert_eq!(self.outputs().len(), 1);
                        self.met.insert(Difference::HeartbeatBehindSnapshot);
                    }
                    let _ = self.outputs();
                    let due = self.replicator.poll_timeout().unwrap();
                    assert!(due <= self.now.mono_ms + 10_000, "a heartbeat at least as often");
                    self.now = self.now.plus_ms(due.saturating_sub(self.now.mono_ms));
                    self.replicator.handle_timeout(self.now);
                    let outputs = self.outputs();
                    let [Output::Publish(beat)] = &outputs[..] else { panic!("{outputs:?}") };
                    assert_eq!((beat.qos, &beat.payload), (QoS::AtMostOnce, &payload_of(event)));
                }
                _ => panic!("{event}"),
            }
        }
    }
}

/// Lets our sender do what one of EMQX's did; which differences there were.
fn replay(events: &[Value], topics: &[&str]) -> BTreeSet<Difference> {
    let payload = payload_of(&events[0]);
    let mut inflater = Inflater::default();
    let Control::ActorInit(init) = payload::parse_control(inflater.open(&payload).unwrap()).unwrap() else {
        panic!("{}", events[0])
    };
    let ActorInit { actor, incarnation, target_cluster, .. } = init;
    if actor == "ps-routes-v1" {
        return [Difference::NoPersistentActor].into();
    }
    let Some(LinkTopic::Route(cluster)) = LinkTopic::parse(events[0]["topic"].as_str().unwrap()) else {
        panic!("{}", events[0])
    };
    let config = ReplicatorConfig {
        cluster: cluster.to_owned(),
        target_cluster: target_cluster.to_owned(),
        actor: actor.to_owned(),
        topics: LinkTopics::parse(topics).unwrap(),
        last_incarnation: 0,
        capabilities: Capabilities::OURS,
        demanded: Capabilities::NONE,
        answer_bytes_max: 0,
    };
    let now = Now { mono_ms: 1_000_000, unix_ms: incarnation };
    let mut ours = Ours { replicator: Replicator::new(config, 7), now, met: BTreeSet::new() };
    let init = ours.greet(&events[0]);
    ours.follow(&events[1..], &init);
    ours.met
}

#[test]
fn our_sender_of_routes_says_what_emqxs_said() {
    let (mut replayed, mut met) = (0, BTreeSet::new());
    for scenario in SCENARIOS {
        for events in connections(scenario) {
            if events[0]["topic"].as_str().unwrap().starts_with("$LINK/cluster/route/") {
                let topics: &[&str] = match scenario {
                    "07-link-config-changes" => &["fwd/#", "new/#"],
                    _ => &["fwd/#", "share/#", "only/+/x"],
                };
                met.extend(replay(&events, topics));
                replayed += 1;
            }
        }
    }
    assert_eq!(met.into_iter().collect::<Vec<_>>(), DIFFERENCES, "each of them was met");
    assert!(replayed > 40, "{replayed}");
}

/// Each message that EMQX forwarded, published here: it leaves us meaning the same, at the same outer QoS, and EMQX's
/// answer to it is taken for what it is.
#[test]
fn our_sender_of_messages_says_what_emqxs_said() {
    let now = Now { mono_ms: 1_000, unix_ms: 1_795_400_000_000 };
    let mut by_qos = [0; 3];
    for scenario in SCENARIOS {
        for events in connections(scenario) {
            let mut lane = Lane::new(LaneConfig::default(), SpoolBudget::new(1 << 20));
            lane.handle_connected(32, Some(1_048_576));
            for (at, event) in events.iter().enumerate() {
                let is_message =
                    event["topic"].as_str().is_some_and(|topic| topic.starts_with("$LINK/cluster/msg/"));
                if !is_message {
                    continue;
                }
                let bytes = payload_of(event);
                let mut inflater = Inflater::default();
                let theirs = message::parse(inflater.open(&bytes).unwrap()).unwrap();
                let outgoing = Outgoing {
                    id: theirs.id,
                    qos: theirs.qos,
                    from: theirs.from.map(|name| std::str::from_utf8(name).unwrap()),
                    username: theirs.username.map(|name| std::str::from_utf8(name).unwrap()),
                    peer: Some("127.0.0.1".parse().unwrap()),
                    retain: theirs.retain,
                    topic: theirs.topic,
                    payload: &theirs.payload,
                    timestamp_ms: theirs.timestamp_ms,
                    properties: copied(&theirs.properties),
                };
                let pushed = lane.push(now, theirs.qos, |out| message::put(out, &outgoing));
                assert_eq!(pushed, Pushed::Spooled);
                let sent = lane.next_to_send(now).unwrap();
                let packet_id = sent.packet_id;
                assert_eq!(u64::from(packet_id.is_some()), event["qos"].as_u64().unwrap(), "{event}");
                let mut inflater = Inflater::default();
                let ours = inflater.open(sent.message()).unwrap();
                assert_eq!(format!("{:?}", message::parse(ours).unwrap()), format!("{theirs:?}"));
                by_qos[theirs.qos as usize] += 1;
                let Some(packet_id) = packet_id else { continue };
                let answer = events[at + 1..]
                    .iter()
                    .find(|later| later["type"] == "PUBACK" && later["packet_id"] == event["packet_id"]);
                let reason = answer.map_or(0, |answer| answer["reason"].as_u64().unwrap() as u8);
                assert_eq!(
                    lane.handle_ack(packet_id, reason),
                    Acked::Delivered { pushed_ms: now.mono_ms.cast_signed() }
                );
            }
            assert_eq!((lane.unaccounted(), lane.in_flight()), (0, 0));
        }
    }
    assert!(by_qos.iter().all(|count| *count > 0), "{by_qos:?}");
}
