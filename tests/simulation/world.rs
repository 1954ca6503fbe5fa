//! The clusters, their links, and what may befall them.

use std::collections::BTreeSet;

use tombolo::link::ingress::IngressSession;
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
use tombolo::link::replicator::Replicator;
use tombolo::link::replicator::ReplicatorConfig;
use tombolo::link::replicator::State;
use tombolo::link::route::LinkTopics;
use tombolo::link::route::LocalRoute;
use tombolo::mqtt::packet::QoS;
use tombolo::time::Now;

use crate::network::Pipe;
use crate::network::Random;

/// The simulated wall clock begins here.
const EPOCH_MS: u64 = 1_800_000_000_000;

#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// The receiving side's state; gone once it knows the end.
    pub(crate) server: Option<IngressSession>,
}

/// One direction between two clusters: `from` dials `to`.
pub(crate) struct Direction {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) topics: LinkTopics,
    pub(crate) replicator: Replicator,
    pub(crate) control: Option<Connection>,
    pub(crate) routes: RemoteRoutes,
    pub(crate) mirror: BTreeSet<String>,
    pub(crate) lane: Lane,
    pub(crate) data: Option<Connection>,
    pub(crate) data_retry_ms: u64,
    pub(crate) partitioned_until_ms: u64,
    pub(crate) pushed: u64,
    /// Messages before this one may be lost: their cluster restarted.
    pub(crate) excused: u64,
    /// Sequence numbers in the order of their first arrival.
    pub(crate) arrived: Vec<u64>,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) subscriptions: Vec<BTreeSet<LocalRoute>>,
    pub(crate) directions: Vec<Direction>,
}

pub(crate) fn cluster(index: usize) -> String {
    format!("c{index}")
}

fn lane() -> Lane {
    let config = LaneConfig { max_inflight: Some(8), ..LaneConfig::default() };
    Lane::new(config, SpoolBudget::new(1 << 20))
}

impl Direction {
    fn new(from: usize, to: usize, random: &mut Random) -> Self {
        let choices: [&[&str]; 5] =
            [&["m/#"], &["m/#", "a/#"], &["#"], &["m/#", "a/+", "+/b"], &["m/#", "a/b/#", "b"]];
        let filters = random.pick::<&[&str]>(&choices);
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

    pub(crate) fn follow_changes(&mut self) {
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

    pub(crate) fn now(&self) -> Now {
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
