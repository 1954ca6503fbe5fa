//! The clusters, their links, and what may befall them.

use std::collections::BTreeSet;

use tombolo::link::compress::Inflater;
use tombolo::link::ingress;
use tombolo::link::ingress::ControlDecision;
use tombolo::link::ingress::ControlPublish;
use tombolo::link::ingress::IngressSession;
use tombolo::link::ingress::LinkView;
use tombolo::link::ingress::MessageDecision;
use tombolo::link::lane::Lane;
use tombolo::link::lane::LaneConfig;
use tombolo::link::lane::Pushed;
use tombolo::link::lane::SpoolBudget;
use tombolo::link::message;
use tombolo::link::message::MessageProperties;
use tombolo::link::message::Outgoing;
use tombolo::link::pending::Pending;
use tombolo::link::remote_routes::RemoteRoutes;
use tombolo::link::remote_routes::RouteChange;
use tombolo::link::remote_routes::RouteLimits;
use tombolo::link::replicator::Output;
use tombolo::link::replicator::Replicator;
use tombolo::link::replicator::ReplicatorConfig;
use tombolo::link::replicator::State;
use tombolo::link::route::LinkTopics;
use tombolo::link::route::LocalRoute;
use tombolo::mqtt::packet::PacketId;
use tombolo::mqtt::packet::QoS;
use tombolo::time::Now;

use crate::network::Frame;
use crate::network::Pipe;
use crate::network::Random;

/// The simulated wall clock begins here.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// The peer's Receive Maximum and Maximum Packet Size: small, so that they matter.
const RECEIVE_MAXIMUM: u16 = 5;
const MAXIMUM_PACKET_SIZE: u32 = 500;
/// Pause before a lane connects again.
const LANE_RECONNECT_MS: u64 = 700;

#[derive(Default)]
struct Connection {
    up: Pipe,
    down: Pipe,
    /// The receiving side's state; gone once it knows the end.
    server: Option<IngressSession>,
}

/// One direction between two clusters: `from` dials `to`.
struct Direction {
    from: usize,
    to: usize,
    topics: LinkTopics,
    replicator: Replicator,
    control: Option<Connection>,
    routes: RemoteRoutes,
    mirror: BTreeSet<String>,
    lane: Lane,
    data: Option<Connection>,
    data_retry_ms: u64,
    partitioned_until_ms: u64,
    pushed: u64,
    /// Messages before this one may be lost: their cluster restarted.
    excused: u64,
    /// Sequence numbers in the order of their first arrival.
    arrived: Vec<u64>,
}

pub(crate) struct World {
    now_ms: u64,
    random: Random,
    subscriptions: Vec<BTreeSet<LocalRoute>>,
    directions: Vec<Direction>,
}

fn cluster(index: usize) -> String {
    format!("c{index}")
}

fn lane() -> Lane {
    let config = LaneConfig { max_inflight: 8, ..LaneConfig::default() };
    Lane::new(config, SpoolBudget::new(1 << 20))
}

impl Direction {
    fn new(from: usize, to: usize, random: &mut Random) -> Self {
        let choices: [&[&str]; 5] =
            [&["m/#"], &["m/#", "a/#"], &["#"], &["m/#", "a/+", "+/b"], &["m/#", "a/b/#", "b"]];
        let filters: &[&str] = random.pick(&choices);
        let topics = LinkTopics::parse(filters).unwrap();
        Self {
            from,
            to,
            replicator: replicator(from, to, &topics, 0, random),
            topics,
            control: None,
            routes: RemoteRoutes::new(RouteLimits::default()),
            mirror: BTreeSet::new(),
            lane: lane(),
            data: None,
            data_retry_ms: random.below(1_000),
            partitioned_until_ms: 0,
            pushed: 0,
            excused: 0,
            arrived: Vec::new(),
        }
    }

    fn follow_changes(&mut self) {
        for change in self.routes.drain_changes() {
            match change {
                RouteChange::Appeared(filter) => assert!(self.mirror.insert(filter.into()), "appeared twice"),
                RouteChange::Vanished(filter) => assert!(self.mirror.remove(&*filter), "vanished twice"),
            }
        }
    }

    fn due(&self) -> Option<u64> {
        let mut due =
            [self.replicator.poll_timeout(), self.routes.poll_timeout()].into_iter().flatten().min();
        for connection in [&self.control, &self.data].into_iter().flatten() {
            due = [due, connection.up.due(), connection.down.due()].into_iter().flatten().min();
        }
        if self.data.is_none() {
            due = due.into_iter().chain([self.data_retry_ms]).min();
        }
        if self.replicator.state() == State::Stopped {
            due = Some(0);
        }
        due
    }
}

fn replicator(from: usize, to: usize, topics: &LinkTopics, last: u64, random: &mut Random) -> Replicator {
    let config = ReplicatorConfig {
        cluster: cluster(from),
        target_cluster: cluster(to),
        actor: format!("node@{from}"),
        topics: topics.clone(),
        last_incarnation: last,
    };
    // A small queue, so that it overflows now and then.
    Replicator::new(config, random.next()).with_pending(Pending::new(12, 100_000))
}

impl World {
    pub(crate) fn new(clusters: usize, mut random: Random) -> Self {
        let mut directions = Vec::new();
        for from in 0..clusters {
            for to in (0..clusters).filter(|to| *to != from) {
                directions.push(Direction::new(from, to, &mut random));
            }
        }
        let mut world =
            Self { now_ms: 0, random, subscriptions: vec![BTreeSet::new(); clusters], directions };
        for index in 0..world.directions.len() {
            let now = world.now();
            world.directions[index].replicator.start(now);
            world.follow_outputs(index);
        }
        world
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: EPOCH_MS + self.now_ms }
    }

    pub(crate) fn run_until(&mut self, end_ms: u64, busy: bool) {
        let mut action_ms = self.now_ms;
        while self.now_ms < end_ms {
            let due = self.directions.iter().filter_map(Direction::due).min().unwrap_or(end_ms);
            let next = if busy { due.min(action_ms) } else { due };
            self.now_ms = next.clamp(self.now_ms, end_ms);
            if busy && self.now_ms >= action_ms {
                self.act();
                action_ms = self.now_ms + 1 + self.random.below(400);
            }
            for index in 0..self.directions.len() {
                if self.directions[index].due().is_some_and(|due| due <= self.now_ms) {
                    self.turn(index);
                }
                let direction = &self.directions[index];
                assert_eq!(direction.lane.unaccounted(), 0, "the ledger balances");
            }
        }
    }

    /// One thing that may happen.
    fn act(&mut self) {
        let index = self.random.below(self.directions.len() as u64) as usize;
        let node = self.random.below(self.subscriptions.len() as u64) as usize;
        match self.random.below(100) {
            0..45 => self.subscribe_or_not(node),
            45..85 => (0..=self.random.below(6)).for_each(|_| self.push(index)),
            85..89 => self.cut(index, true),
            89..93 => self.cut(index, false),
            93..97 => {
                self.directions[index].partitioned_until_ms = self.now_ms + self.random.below(45_000);
                self.cut(index, true);
                self.cut(index, false);
            }
            97..98 => self.restart(node),
            _ => self.stop_and_start(index),
        }
    }

    fn subscribe_or_not(&mut self, node: usize) {
        let filters = ["a/b", "a/+", "a/#", "+/b", "#", "b", "a/b/c", "m/1", "+/+/c", "x/y"];
        let filter = *self.random.pick(&filters);
        let route = match self.random.below(3) {
            0 => LocalRoute::shared("g", filter),
            _ => LocalRoute::plain(filter),
        };
        let gone = self.subscriptions[node].contains(&route);
        if gone {
            self.subscriptions[node].remove(&route);
        } else {
            self.subscriptions[node].insert(route.clone());
        }
        let now = self.now();
        for index in 0..self.directions.len() {
            if self.directions[index].from == node {
                self.directions[index].replicator.handle_route(now, &route, gone);
                self.follow_outputs(index);
            }
        }
    }

    fn push(&mut self, index: usize) {
        let now = self.now();
        let random = self.random.next();
        let direction = &mut self.directions[index];
        let sequence = direction.pushed;
        let qos = if random.is_multiple_of(4) { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let body = format!("{sequence}");
        let outgoing = Outgoing {
            id: message::message_id(now.unix_ms * 1_000, 1, sequence as u16),
            qos,
            from: Some("client"),
            username: None,
            peer: None,
            proto_ver: 5,
            retain: false,
            topic: "m/x",
            payload: body.as_bytes(),
            timestamp_ms: now.unix_ms,
            properties: MessageProperties::default(),
        };
        let pushed = direction.lane.push(now, qos, |out| message::put(out, &outgoing));
        if qos == QoS::AtLeastOnce {
            assert_eq!(pushed, Pushed::Spooled);
            direction.pushed += 1;
        }
        self.pump(index);
    }

    /// Breaks one of the two connections; both ends notice in their own time.
    fn cut(&mut self, index: usize, control: bool) {
        let (up, down) = (self.now_ms + self.random.below(8_000), self.now_ms + self.random.below(8_000));
        let direction = &mut self.directions[index];
        let connection = if control { &mut direction.control } else { &mut direction.data };
        if let Some(connection) = connection {
            connection.up.break_off(up);
            connection.down.break_off(down);
        }
    }

    /// A cluster loses everything but its configuration, its subscribers and its last incarnations.
    fn restart(&mut self, node: usize) {
        let now = self.now();
        for index in 0..self.directions.len() {
            let (from, to) = (self.directions[index].from, self.directions[index].to);
            if from == node {
                let direction = &mut self.directions[index];
                let last = direction.replicator.incarnation();
                direction.replicator = replicator(from, to, &direction.topics, last, &mut self.random);
                direction.lane = lane();
                direction.excused = direction.pushed;
                (direction.control, direction.data) = (None, None);
                direction.replicator.start(now);
                self.follow_outputs(index);
            } else if to == node {
                let direction = &mut self.directions[index];
                direction.routes.clear();
                direction.follow_changes();
                self.cut(index, true);
                self.cut(index, false);
                let Direction { control, data, .. } = &mut self.directions[index];
                for connection in [control, data].into_iter().flatten() {
                    connection.server = None;
                }
            }
        }
    }

    /// As when an operator disables and enables a link.
    fn stop_and_start(&mut self, index: usize) {
        let now = self.now();
        self.directions[index].replicator.stop(now);
        self.follow_outputs(index);
        if self.directions[index].replicator.state() == State::Stopped {
            self.directions[index].replicator.start(now);
            self.follow_outputs(index);
        }
    }

    pub(crate) fn heal(&mut self) {
        for direction in &mut self.directions {
            direction.partitioned_until_ms = 0;
        }
    }

    /// Everything that is due on one direction.
    fn turn(&mut self, index: usize) {
        let now = self.now();
        let direction = &mut self.directions[index];
        if direction.replicator.poll_timeout().is_some_and(|due| due <= now.mono_ms) {
            direction.replicator.handle_timeout(now);
        }
        if direction.replicator.state() == State::Stopped {
            direction.replicator.start(now);
        }
        direction.routes.collect(now);
        direction.follow_changes();
        if direction.data.is_none() && direction.data_retry_ms <= now.mono_ms {
            self.connect_data(index);
        }
        self.follow_outputs(index);
        self.receive_control(index);
        self.receive_data(index);
        self.pump(index);
    }

    fn follow_outputs(&mut self, index: usize) {
        let now = self.now();
        while let Some(output) = self.directions[index].replicator.poll_output() {
            let delay = 1 + self.random.below(60);
            let direction = &mut self.directions[index];
            match output {
                Output::Connect if now.mono_ms < direction.partitioned_until_ms => {
                    direction.replicator.handle_disconnected(None);
                }
                Output::Connect => {
                    let mut connection = Connection::default();
                    connection.up.send(now.mono_ms, delay, Frame::Connect);
                    direction.control = Some(connection);
                }
                Output::Close(_) => direction.control = None,
                Output::RequestSnapshot => {
                    let routes = self.subscriptions[direction.from].clone();
                    direction.replicator.handle_snapshot(now, Box::new(routes.into_iter()));
                }
                Output::StateChanged(_) => {}
                Output::Subscribe { .. } => self.send_up(index, delay, Frame::Subscribe),
                Output::Publish(publish) => {
                    assert!(publish.payload.len() < MAXIMUM_PACKET_SIZE as usize);
                    self.send_up(
                        index,
                        delay,
                        Frame::Control {
                            token: publish.token,
                            payload: publish.payload,
                            response_topic: publish.response_topic,
                            correlation_data: publish.correlation_data,
                        },
                    );
                }
            }
        }
    }

    fn send_up(&mut self, index: usize, delay: u64, frame: Frame) {
        if let Some(connection) = &mut self.directions[index].control {
            connection.up.send(self.now_ms, delay, frame);
        }
    }

    fn receive_control(&mut self, index: usize) {
        let now = self.now();
        while let Some(frame) =
            self.directions[index].control.as_mut().and_then(|connection| connection.up.receive(now.mono_ms))
        {
            self.serve_control(index, frame);
        }
        while let Some(frame) = self.directions[index]
            .control
            .as_mut()
            .and_then(|connection| connection.down.receive(now.mono_ms))
        {
            let direction = &mut self.directions[index];
            match frame {
                Frame::ConnAck => direction.replicator.handle_connected(now, Some(MAXIMUM_PACKET_SIZE)),
                Frame::SubAck => direction.replicator.handle_subscribed(now, 1),
                Frame::PubAck { token, reason } => direction.replicator.handle_puback(now, token, reason),
                Frame::Response { correlation_data, payload } => {
                    direction.replicator.handle_response(now, Some(&correlation_data), &payload);
                }
                Frame::Disconnect(reason) => {
                    direction.control = None;
                    direction.replicator.handle_disconnected(Some(reason));
                }
                Frame::Broken => {
                    direction.control = None;
                    direction.replicator.handle_disconnected(None);
                }
                other => panic!("{other:?}"),
            }
            self.follow_outputs(index);
        }
    }

    /// The receiving cluster's side of a route replication connection.
    fn serve_control(&mut self, index: usize, frame: Frame) {
        let now = self.now();
        // Now and then an acknowledgement takes longer than anyone waits.
        let slow = if self.random.chance(2) { 7_000 } else { 0 };
        let delay = 1 + self.random.below(60) + slow;
        let direction = &mut self.directions[index];
        let (peer, own) = (cluster(direction.from), cluster(direction.to));
        let Some(connection) = &mut direction.control else { return };
        let Connection { down, server, .. } = connection;
        match frame {
            Frame::Connect => {
                *server = Some(IngressSession::default());
                down.send(now.mono_ms, delay, Frame::ConnAck);
            }
            Frame::Broken => *server = None,
            Frame::Subscribe => down.send(now.mono_ms, delay, Frame::SubAck),
            Frame::Control { token, payload, response_topic, correlation_data } => {
                let Some(session) = server else { return };
                let link = LinkView { peer: &peer, cluster: &own, enabled: true, topics: &direction.topics };
                let publish = ControlPublish {
                    peer: &peer,
                    response_topic: response_topic.as_deref(),
                    correlation_data: correlation_data.as_ref().map(|data| &data[..]),
                    payload: &payload,
                };
                let mut inflater = Inflater::default();
                let decision = ingress::control(
                    session,
                    Some(&link),
                    &mut direction.routes,
                    &mut inflater,
                    now,
                    publish,
                );
                let puback = |reason| Frame::PubAck { token, reason };
                match decision {
                    ControlDecision::Ack(reason) if token != 0 => {
                        down.send(now.mono_ms, delay, puback(reason))
                    }
                    ControlDecision::Ack(_) => {}
                    ControlDecision::Reply { payload, correlation_data, .. } => {
                        let response =
                            Frame::Response { correlation_data: correlation_data.to_vec(), payload };
                        // Either order is allowed.
                        let (first, second) = if token.is_multiple_of(2) {
                            (response, puback(0x10))
                        } else {
                            (puback(0x10), response)
                        };
                        down.send(now.mono_ms, delay, first);
                        down.send(now.mono_ms, delay, second);
                    }
                    ControlDecision::Disconnect(_) => {
                        *server = None;
                        down.send(now.mono_ms, delay, Frame::Disconnect(0x83));
                    }
                }
                direction.follow_changes();
            }
            other => panic!("{other:?}"),
        }
    }

    fn connect_data(&mut self, index: usize) {
        let delay = 1 + self.random.below(60);
        let now_ms = self.now_ms;
        let direction = &mut self.directions[index];
        direction.data_retry_ms = now_ms + LANE_RECONNECT_MS;
        if now_ms >= direction.partitioned_until_ms {
            let mut connection = Connection::default();
            connection.up.send(now_ms, delay, Frame::Connect);
            direction.data = Some(connection);
        }
    }

    fn receive_data(&mut self, index: usize) {
        let now = self.now();
        while let Some(frame) =
            self.directions[index].data.as_mut().and_then(|connection| connection.up.receive(now.mono_ms))
        {
            self.serve_data(index, frame);
        }
        while let Some(frame) =
            self.directions[index].data.as_mut().and_then(|connection| connection.down.receive(now.mono_ms))
        {
            let direction = &mut self.directions[index];
            match frame {
                Frame::ConnAck => {
                    direction.lane.handle_connected(RECEIVE_MAXIMUM, Some(MAXIMUM_PACKET_SIZE));
                }
                Frame::PubAck { token, reason } => {
                    direction.lane.handle_ack(PacketId::new(token as u16).unwrap(), reason);
                }
                Frame::Broken => {
                    direction.data = None;
                    direction.lane.handle_disconnected();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The receiving cluster's side of a forwarding connection.
    fn serve_data(&mut self, index: usize, frame: Frame) {
        let now = self.now();
        let slow = if self.random.chance(2) { 3_000 } else { 0 };
        let delay = 1 + self.random.below(40) + slow;
        let back = self.directions.iter().position(|other| {
            (other.from, other.to) == (self.directions[index].to, self.directions[index].from)
        });
        let topics = self.directions[back.unwrap()].topics.clone();
        let direction = &mut self.directions[index];
        let Some(Connection { down, server, .. }) = &mut direction.data else { return };
        match frame {
            Frame::Connect => {
                *server = Some(IngressSession::default());
                down.send(now.mono_ms, delay, Frame::ConnAck);
            }
            Frame::Broken => *server = None,
            Frame::Message { packet_id, dup, payload } => {
                if server.is_none() {
                    return;
                }
                let link = LinkView { peer: "", cluster: "", enabled: true, topics: &topics };
                let mut inflater = Inflater::default();
                let MessageDecision::Deliver(message) =
                    ingress::message(Some(&link), &mut inflater, now, &payload)
                else {
                    panic!("every message is wanted")
                };
                if message.qos == QoS::AtLeastOnce {
                    let sequence: u64 = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                    if direction.arrived.contains(&sequence) {
                        assert!(dup, "what comes again is marked");
                    } else {
                        direction.arrived.push(sequence);
                    }
                }
                if let Some(id) = packet_id {
                    down.send(now.mono_ms, delay, Frame::PubAck { token: u32::from(id), reason: 0x10 });
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Sends what the window has room for.
    fn pump(&mut self, index: usize) {
        let now = self.now();
        let direction = &mut self.directions[index];
        let mut frames = Vec::new();
        while let Some(sent) = direction.lane.next_to_send(now) {
            let packet_id = sent.packet_id.map(PacketId::get);
            frames.push(Frame::Message { packet_id, dup: sent.dup, payload: sent.payload.to_vec() });
        }
        assert!(direction.lane.in_flight() <= usize::from(RECEIVE_MAXIMUM));
        for frame in frames {
            let delay = 1 + self.random.below(40);
            let connection = self.directions[index].data.as_mut().unwrap();
            connection.up.send(now.mono_ms, delay, frame);
        }
    }

    /// What must hold once nothing has happened for long enough.
    pub(crate) fn check(&self) {
        for direction in &self.directions {
            let (from, to) = (direction.from, direction.to);
            let wanted: BTreeSet<String> = self.subscriptions[from]
                .iter()
                .flat_map(|route| direction.topics.routes(route))
                .map(|key| key.topic.into())
                .collect();
            let known: BTreeSet<String> = direction.routes.filters().map(str::to_owned).collect();
            assert_eq!(direction.replicator.state(), State::Online, "{from} to {to}");
            assert_eq!(known, wanted, "routes of {from} at {to}");
            assert_eq!(direction.mirror, known, "changes of {from} at {to}");
            assert!(direction.arrived.is_sorted(), "order from {from} to {to}: {:?}", direction.arrived);
            let arrived: BTreeSet<u64> = direction.arrived.iter().copied().collect();
            let lost: Vec<u64> =
                (direction.excused..direction.pushed).filter(|n| !arrived.contains(n)).collect();
            assert!(lost.is_empty(), "lost from {from} to {to}: {lost:?}");
            assert_eq!((direction.lane.queued(), direction.lane.in_flight()), (0, 0));
            assert_eq!(direction.lane.bytes(), 0);
        }
    }
}
