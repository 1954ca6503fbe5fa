//! A model of EMQX's two ends of route replication (`link-protocol.md` 4.2 to 4.7), as far as it behaves otherwise than
//! we do: a sender that bootstraps once in its life and then trusts the peer, and a receiver that drops routes when an
//! actor is silent or begins anew and, up to 5.8.8, never asks for a bootstrap.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;

use tombolo::link::compress::Deflater;
use tombolo::link::compress::Inflater;
use tombolo::link::extension::Capabilities;
use tombolo::link::name;
use tombolo::link::payload;
use tombolo::link::payload::ActorInit;
use tombolo::link::payload::ActorInitAck;
use tombolo::link::payload::Control;
use tombolo::link::payload::Heartbeat;
use tombolo::link::payload::RouteBatch;
use tombolo::link::payload::RouteOp;
use tombolo::link::replicator::ControlPublish;
use tombolo::link::replicator::Output;
use tombolo::link::route::LinkTopics;
use tombolo::link::route::LocalRoute;
use tombolo::link::route::RouteKey;
use tombolo::mqtt::packet::QoS;
use tombolo::time::Now;

/// From attempt to attempt, and how long the answer to actor_init is awaited.
const RECONNECT_MS: u64 = 5_000;
const HEARTBEAT_MS: u64 = 10_000;
const TTL_MS: u64 = 30_000;
/// Items of one update; 4,000 there.
const BATCH: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Connecting,
    Subscribing,
    Handshaking,
    Bootstrapping,
    Online,
}

/// Tells a peer what a node of EMQX wants.
pub(crate) struct Sender {
    topics: LinkTopics,
    target: String,
    actor: String,
    route_topic: Arc<str>,
    response_topic: Arc<str>,
    incarnation: u64,
    phase: Phase,
    attempt_ms: u64,
    deadline_ms: u64,
    heartbeat_ms: u64,
    bootstrapped: bool,
    /// Changes by key; `true` deletes. The last one of a key wins.
    queue: BTreeMap<RouteKey, bool>,
    snapshot: VecDeque<RouteKey>,
    in_flight: Vec<(RouteKey, bool)>,
    token: u32,
    awaited: Option<u32>,
    outputs: VecDeque<Output>,
}

impl Sender {
    pub(crate) fn new(cluster: &str, target: &str, actor: &str, topics: &LinkTopics, now: Now) -> Self {
        Self {
            topics: topics.clone(),
            target: target.to_owned(),
            actor: actor.to_owned(),
            route_topic: name::route_topic(cluster).into(),
            response_topic: name::response_topic(cluster, actor).into(),
            incarnation: now.unix_ms,
            phase: Phase::Waiting,
            attempt_ms: 0,
            deadline_ms: now.mono_ms,
            heartbeat_ms: 0,
            bootstrapped: false,
            queue: BTreeMap::new(),
            snapshot: VecDeque::new(),
            in_flight: Vec::new(),
            token: 0,
            awaited: None,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        self.phase == Phase::Online
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        match self.phase {
            Phase::Online => Some(self.heartbeat_ms),
            // The next batch waits for its acknowledgement, for as long as the connection lives.
            Phase::Bootstrapping => None,
            _ => Some(self.deadline_ms),
        }
    }

    fn wait(&mut self) {
        self.phase = Phase::Waiting;
        self.deadline_ms = self.attempt_ms + RECONNECT_MS;
        self.awaited = None;
        // What was not acknowledged goes again, unless a later change took its place.
        for (key, delete) in std::mem::take(&mut self.in_flight) {
            self.queue.entry(key).or_insert(delete);
        }
        self.snapshot.clear();
    }

    pub(crate) fn handle_disconnected(&mut self) {
        self.wait();
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        match self.phase {
            Phase::Waiting if now.mono_ms >= self.deadline_ms => {
                self.phase = Phase::Connecting;
                self.attempt_ms = now.mono_ms;
                self.deadline_ms = now.mono_ms + 2 * RECONNECT_MS;
                self.outputs.push_back(Output::Connect);
            }
            Phase::Connecting | Phase::Subscribing | Phase::Handshaking
                if now.mono_ms >= self.deadline_ms =>
            {
                self.outputs.push_back(Output::Close(None));
                self.wait();
            }
            Phase::Online if now.mono_ms >= self.heartbeat_ms => {
                self.heartbeat_ms = now.mono_ms + HEARTBEAT_MS;
                let mut payload = Vec::new();
                let beat =
                    Heartbeat { actor: &self.actor, incarnation: self.incarnation, ..Heartbeat::default() };
                payload::put_heartbeat(&mut payload, &beat);
                self.publish(QoS::AtMostOnce, payload, None);
            }
            _ => {}
        }
    }

    pub(crate) fn handle_connected(&mut self, now: Now) {
        self.phase = Phase::Subscribing;
        self.deadline_ms = now.mono_ms + RECONNECT_MS;
        self.outputs.push_back(Output::Subscribe { filter: self.response_topic.clone() });
    }

    pub(crate) fn handle_subscribed(&mut self, now: Now) {
        self.phase = Phase::Handshaking;
        self.deadline_ms = now.mono_ms + RECONNECT_MS;
        let mut payload = Vec::new();
        let init = ActorInit {
            actor: &self.actor,
            incarnation: self.incarnation,
            target_cluster: &self.target,
            proto_ver: payload::PROTO_VER,
            capabilities: Capabilities::NONE,
        };
        payload::put_actor_init(&mut payload, &init);
        self.publish(QoS::AtLeastOnce, payload, Some(*b"0123456789abcdef"));
    }

    fn publish(&mut self, qos: QoS, payload: Vec<u8>, correlation_data: Option<[u8; 16]>) {
        let mut token = 0;
        if qos == QoS::AtLeastOnce {
            self.token += 1;
            token = self.token;
            self.awaited = Some(token);
        }
        self.outputs.push_back(Output::Publish(ControlPublish {
            token,
            qos,
            topic: self.route_topic.clone(),
            payload,
            response_topic: correlation_data.map(|_| self.response_topic.clone()),
            correlation_data,
        }));
    }

    pub(crate) fn handle_response(&mut self, now: Now, inflater: &mut Inflater, payload: &[u8]) {
        if self.phase != Phase::Handshaking {
            return;
        }
        let ack = payload::parse_ack(inflater.open(payload).unwrap()).unwrap();
        if ack.result.is_err() {
            self.outputs.push_back(Output::Close(None));
            return self.wait();
        }
        self.awaited = None;
        // Once in its life; afterwards only if the peer says so.
        if !self.bootstrapped || ack.need_bootstrap == Some(true) {
            self.phase = Phase::Bootstrapping;
            self.outputs.push_back(Output::RequestSnapshot);
        } else {
            self.enter_online(now);
        }
    }

    fn enter_online(&mut self, now: Now) {
        self.phase = Phase::Online;
        self.bootstrapped = true;
        self.heartbeat_ms = now.mono_ms + HEARTBEAT_MS;
        self.advance(now);
    }

    pub(crate) fn handle_snapshot(&mut self, now: Now, routes: impl Iterator<Item = LocalRoute>) {
        let routes: Vec<LocalRoute> = routes.collect();
        self.snapshot = routes.iter().flat_map(|route| self.topics.routes(route)).collect();
        self.advance(now);
    }

    pub(crate) fn handle_route(&mut self, now: Now, route: &LocalRoute, gone: bool) {
        for key in self.topics.routes(route) {
            self.queue.insert(key, gone);
        }
        self.advance(now);
    }

    pub(crate) fn handle_puback(&mut self, now: Now, token: u32, reason: u8) {
        if self.awaited.take_if(|awaited| *awaited == token).is_none() || self.phase == Phase::Handshaking {
            return;
        }
        assert!(reason < 0x80, "a route update is refused with {reason:#x}");
        self.in_flight.clear();
        self.advance(now);
    }

    fn advance(&mut self, now: Now) {
        if self.awaited.is_some() {
            return;
        }
        match self.phase {
            Phase::Bootstrapping if self.snapshot.is_empty() => self.enter_online(now),
            Phase::Bootstrapping => {
                let count = BATCH.min(self.snapshot.len());
                self.in_flight = self.snapshot.drain(..count).map(|key| (key, false)).collect();
                self.send_batch();
            }
            Phase::Online if !self.queue.is_empty() => {
                // Additions first.
                let mut all: Vec<_> = std::mem::take(&mut self.queue).into_iter().collect();
                all.sort_by_key(|(_, delete)| *delete);
                self.queue.extend(all.split_off(BATCH.min(all.len())));
                self.in_flight = all;
                self.send_batch();
            }
            _ => {}
        }
    }

    fn send_batch(&mut self) {
        let mut batch = RouteBatch::new(&self.actor, self.incarnation);
        for (key, delete) in &self.in_flight {
            batch.push(&RouteOp { delete: *delete, topic: key.topic.as_bytes(), id: key.id.as_bytes() });
        }
        let payload = batch.finish(&mut Deflater::default(), usize::MAX);
        self.publish(QoS::AtLeastOnce, payload, None);
    }
}

/// What to do with a control operation.
pub(crate) enum Answer {
    Ack,
    Reply(Vec<u8>),
    Disconnect,
}

#[derive(Debug)]
struct Record {
    incarnation: u64,
    expires_ms: u64,
    rows: BTreeSet<(String, Vec<u8>)>,
}

/// What a cluster of EMQX knows of a peer's wishes.
#[derive(Debug)]
pub(crate) struct Store {
    /// From 5.8.9 on: `need_bootstrap` is the truth.
    truthful: bool,
    actors: BTreeMap<String, Record>,
}

/// The actor that a connection is bound to.
pub(crate) type Bound = Option<(String, u64)>;

impl Store {
    pub(crate) fn new(truthful: bool) -> Self {
        Self { truthful, actors: BTreeMap::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.actors.clear();
    }

    pub(crate) fn collect(&mut self, now: Now) {
        self.actors.retain(|_, record| record.expires_ms > now.mono_ms);
    }

    pub(crate) fn filters(&self) -> BTreeSet<String> {
        self.actors.values().flat_map(|record| &record.rows).map(|(topic, _)| topic.clone()).collect()
    }

    pub(crate) fn control(
        &mut self,
        bound: &mut Bound,
        inflater: &mut Inflater,
        now: Now,
        payload: &[u8],
    ) -> Answer {
        let expires_ms = now.mono_ms + TTL_MS;
        match payload::parse_control(inflater.open(payload).unwrap()).unwrap() {
            Control::ActorInit(init) => {
                if bound.is_some() {
                    return Answer::Disconnect;
                }
                let known = self.actors.get_mut(init.actor);
                let need_bootstrap = match known {
                    Some(record) if init.incarnation < record.incarnation => return Answer::Disconnect,
                    Some(record) if init.incarnation == record.incarnation => {
                        record.expires_ms = expires_ms;
                        false
                    }
                    _ => {
                        let record =
                            Record { incarnation: init.incarnation, expires_ms, rows: BTreeSet::new() };
                        self.actors.insert(init.actor.to_owned(), record);
                        true
                    }
                };
                *bound = Some((init.actor.to_owned(), init.incarnation));
                let mut payload = Vec::new();
                let ack = ActorInitAck {
                    actor: init.actor,
                    proto_ver: payload::PROTO_VER,
                    result: Ok(()),
                    need_bootstrap: Some(need_bootstrap && self.truthful),
                    capabilities: Capabilities::NONE,
                    reach: Vec::new(),
                    version: None,
                };
                payload::put_ack(&mut payload, &ack);
                Answer::Reply(payload)
            }
            Control::Route(update) => {
                let Some(record) = self.record(bound) else { return Answer::Disconnect };
                for op in update.ops {
                    let row = (String::from_utf8(op.topic.to_vec()).unwrap(), op.id.to_vec());
                    if op.delete {
                        record.rows.remove(&row);
                    } else {
                        record.rows.insert(row);
                    }
                }
                Answer::Ack
            }
            Control::RetainedPage(_) => panic!("EMQX is asked for none"),
            Control::Heartbeat(_) if bound.is_none() => Answer::Ack,
            Control::Heartbeat(_) => {
                let Some(record) = self.record(bound) else { return Answer::Disconnect };
                record.expires_ms = expires_ms;
                Answer::Ack
            }
        }
    }

    fn record(&mut self, bound: &Bound) -> Option<&mut Record> {
        let (actor, incarnation) = bound.as_ref()?;
        self.actors.get_mut(actor).filter(|record| record.incarnation == *incarnation)
    }
}
