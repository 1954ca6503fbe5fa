//! The clusters, their links, what may befall them, and what must hold whatever does.

use std::collections::BTreeSet;

use tombolo::link::balance::Balance;
use tombolo::link::compress::Inflater;
use tombolo::link::extension::Capabilities;
use tombolo::link::extension::Received;
use tombolo::link::extension::Sent;
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
use tombolo::link::seen::Seen;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::topic;
use tombolo::time::Now;

use crate::disk::Disk;
use crate::emqx;
use crate::network::Pipe;
use crate::network::Random;

/// The simulated wall clock begins here.
const EPOCH_MS: u64 = 1_800_000_000_000;
pub(crate) const PUBLISHERS: usize = 3;
pub(crate) const LANES: usize = 2;
/// Subscribed to everywhere, from the beginning to the end.
const PERMANENT: [&str; 2] = ["m/#", "a/b"];

/// Who is linked with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two to four clusters, each with each; some of them EMQX.
    Mixed,
    /// Clusters of ours, each with each: a pair, a ring of three, a mesh.
    Mesh(usize),
    /// Clusters of ours, each with the first one only.
    Star(usize),
}

impl Shape {
    fn links(self, one: usize, other: usize) -> bool {
        one != other && (!matches!(self, Self::Star(_)) || one == 0 || other == 0)
    }
}

/// One of the clusters.
pub(crate) struct Cluster {
    /// EMQX, and whether its `need_bootstrap` is the truth.
    pub(crate) emqx: Option<bool>,
    pub(crate) subscriptions: BTreeSet<LocalRoute>,
    /// How far its wall clock is off.
    clock_ms: i64,
    /// How often it has begun.
    pub(crate) life: u64,
    published: [u64; PUBLISHERS],
    /// What waits for peers, and what came of them, outlives it.
    pub(crate) stores: bool,
}

/// The dialling end of route replication.
pub(crate) enum Sender {
    Ours(Box<Replicator>),
    Emqx(Box<emqx::Sender>),
}

/// Its other end: what a cluster knows of its peer's wishes.
pub(crate) enum Receiver {
    Ours(Box<RemoteRoutes>),
    Emqx(emqx::Store),
}

#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// The receiving side's state; gone once it knows the end.
    pub(crate) server: Option<Served>,
}

/// What the receiving side keeps of a connection.
#[derive(Default)]
pub(crate) struct Served {
    pub(crate) ours: tombolo::link::ingress::IngressSession,
    pub(crate) emqx: emqx::Bound,
}

/// One connection's share of the messages.
pub(crate) struct DataLane {
    pub(crate) lane: Lane,
    pub(crate) connection: Option<Connection>,
    pub(crate) retry_ms: u64,
    /// When it was dialled, if the peer has said nothing since.
    pub(crate) doubted_ms: Option<u64>,
}

/// A message that the peer is owed.
pub(crate) struct Owed {
    pub(crate) number: u64,
    /// The peer's life in which it was accepted.
    pub(crate) life: u64,
}

/// What became of one publisher's messages on one link.
#[derive(Default)]
pub(crate) struct Flow {
    pub(crate) owed: Vec<Owed>,
    pub(crate) arrived: BTreeSet<u64>,
    /// Those that came in the receiver's present life; in all of them if it keeps what came.
    pub(crate) fresh: BTreeSet<u64>,
    /// Those of QoS 0 that came.
    pub(crate) fired: BTreeSet<u64>,
}

/// One direction between two clusters: `from` dials `to`.
pub(crate) struct Direction {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) topics: LinkTopics,
    pub(crate) sender: Sender,
    pub(crate) control: Option<Connection>,
    pub(crate) receiver: Receiver,
    /// The filters of `from` that `to` knows.
    pub(crate) mirror: BTreeSet<String>,
    /// The same when `from` began its present life.
    pub(crate) mirror_before: BTreeSet<String>,
    /// `from` has told all that it wants in its present life.
    pub(crate) told: bool,
    /// `from` was asked to take its routes back.
    withdrawn: bool,
    pub(crate) lanes: [DataLane; LANES],
    /// What `from` keeps of them, and `to` of what came, if they keep anything.
    pub(crate) spooled: Option<Disk>,
    pub(crate) noted: Option<Disk>,
    /// What `to` has got of `from`.
    pub(crate) seen: Seen,
    pub(crate) received: Received,
    /// What `from` said last that it has sent, and what came of it.
    pub(crate) reported: Sent,
    pub(crate) balance: Balance,
    pub(crate) flows: [Flow; PUBLISHERS],
    pub(crate) partitioned_until_ms: u64,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) directions: Vec<Direction>,
    /// zlib's memory, for everybody.
    pub(crate) inflater: Inflater,
    /// Links are stopped and started now and then.
    stops: bool,
    /// How often connections were cut off so far.
    pub(crate) cuts: u32,
}

pub(crate) fn cluster(index: usize) -> String {
    format!("c{index}")
}

fn lane(index: usize, retry_ms: u64, disk: Option<&Disk>) -> DataLane {
    let keep = disk.map(|disk| disk.keep_of(index));
    let config = LaneConfig { max_inflight: Some(8), keep, ..LaneConfig::default() };
    let lane = Lane::new(config, SpoolBudget::new(1 << 20));
    DataLane { lane, connection: None, retry_ms, doubted_ms: None }
}

impl Direction {
    pub(crate) fn follow_changes(&mut self) {
        let routes = match &mut self.receiver {
            Receiver::Ours(routes) => routes,
            Receiver::Emqx(store) => {
                self.mirror = store.filters();
                return;
            }
        };
        for change in routes.drain_changes() {
            match change {
                RouteChange::Appeared(filter) => assert!(self.mirror.insert(filter.into()), "appeared twice"),
                RouteChange::Vanished(filter) => {
                    assert!(self.mirror.remove(&*filter), "vanished twice");
                    let permanent =
                        PERMANENT.iter().any(|kept| self.topics.intersections(kept).contains(&filter));
                    let kept = permanent && !self.withdrawn;
                    assert!(!kept, "{} forgot that {} wants {filter}", self.to, self.from);
                }
            }
        }
    }

    /// What became of the messages of `from` in this life of it.
    pub(crate) fn sent(&self, life: u64) -> Sent {
        let mut books = Sent { epoch_ms: life, ..Sent::default() };
        for DataLane { lane, .. } in &self.lanes {
            let counters = lane.counters();
            books.acknowledged += counters.acked + counters.failed;
            books.in_flight += lane.uncertain() as u64;
            books.dropped[0] += counters.dropped_total();
        }
        books
    }

    fn due(&self) -> Option<u64> {
        let mut due = match &self.sender {
            Sender::Ours(replicator) if replicator.state() == State::Stopped => Some(0),
            Sender::Ours(replicator) => replicator.poll_timeout(),
            Sender::Emqx(sender) => sender.poll_timeout(),
        };
        let mut note = |at: Option<u64>| due = due.map_or(at, |due| Some(at.map_or(due, |at| at.min(due))));
        if let Receiver::Ours(routes) = &self.receiver {
            note(routes.poll_timeout());
        }
        if let Some(connection) = &self.control {
            note(connection.up.due());
            note(connection.down.due());
        }
        for lane in &self.lanes {
            match &lane.connection {
                None => note(Some(lane.retry_ms)),
                Some(connection) => {
                    note(connection.up.due());
                    note(connection.down.due());
                }
            }
        }
        due
    }

    fn is_online(&self) -> bool {
        match &self.sender {
            Sender::Ours(replicator) => replicator.state() == State::Online,
            Sender::Emqx(sender) => sender.is_online(),
        }
    }

    fn wanted(&self, subscriptions: &BTreeSet<LocalRoute>) -> BTreeSet<String> {
        let keys = subscriptions.iter().flat_map(|route| self.topics.routes(route));
        keys.map(|key| key.topic.into()).collect()
    }
}

impl World {
    pub(crate) fn new(mut random: Random, shape: Shape) -> Self {
        let (count, has_emqx) = match shape {
            Shape::Mixed => (2 + random.below(3) as usize, true),
            Shape::Mesh(count) | Shape::Star(count) => (count, false),
        };
        let mut clusters: Vec<Cluster> = (0..count)
            .map(|index| Cluster {
                // The first one is ours, so that there is somebody to talk to.
                emqx: (has_emqx && index > 0 && random.chance(40)).then(|| random.chance(50)),
                subscriptions: PERMANENT.iter().map(|filter| LocalRoute::plain(filter)).collect(),
                clock_ms: 0,
                life: 0,
                published: [0; PUBLISHERS],
                stores: false,
            })
            .collect();
        for cluster in clusters.iter_mut().filter(|cluster| cluster.emqx.is_none()) {
            cluster.stores = random.chance(50);
        }
        let stops = random.chance(30);
        let inflater = Inflater::default();
        let mut world =
            Self { now_ms: 0, random, clusters, directions: Vec::new(), inflater, stops, cuts: 0 };
        for from in 0..count {
            for to in (0..count).filter(|to| shape.links(from, *to)) {
                // EMQX with EMQX is not ours to test.
                if world.clusters[from].emqx.is_none() || world.clusters[to].emqx.is_none() {
                    let direction = world.direction(from, to);
                    world.directions.push(direction);
                }
            }
        }
        for index in 0..world.directions.len() {
            let now = world.now_at(world.directions[index].from);
            if let Sender::Ours(replicator) = &mut world.directions[index].sender {
                replicator.start(now);
            }
            world.follow_outputs(index);
        }
        world
    }

    fn direction(&mut self, from: usize, to: usize) -> Direction {
        let choices: [&[&str]; 5] =
            [&["m/#"], &["m/#", "a/#"], &["#"], &["m/#", "a/+", "+/b"], &["m/#", "a/b/#", "b"]];
        let topics = LinkTopics::parse(self.random.pick::<&[&str]>(&choices)).unwrap();
        let disk = |cluster: &Cluster| cluster.stores.then(Disk::default);
        let spooled = disk(&self.clusters[from]);
        Direction {
            from,
            to,
            sender: self.sender(from, to, &topics, 0),
            receiver: match self.clusters[to].emqx {
                None => Receiver::Ours(Box::new(RemoteRoutes::new(RouteLimits::default()))),
                Some(truthful) => Receiver::Emqx(emqx::Store::new(truthful)),
            },
            topics,
            control: None,
            mirror: BTreeSet::new(),
            mirror_before: BTreeSet::new(),
            told: false,
            withdrawn: false,
            lanes: std::array::from_fn(|index| lane(index, self.random.below(1_000), spooled.as_ref())),
            spooled,
            noted: disk(&self.clusters[to]),
            seen: Seen::default(),
            received: Received::default(),
            reported: Sent::default(),
            balance: Balance::default(),
            flows: Default::default(),
            partitioned_until_ms: 0,
        }
    }

    fn sender(&mut self, from: usize, to: usize, topics: &LinkTopics, last: u64) -> Sender {
        let actor = format!("node@{from}");
        if self.clusters[from].emqx.is_some() {
            let now = self.now_at(from);
            let sender = emqx::Sender::new(&cluster(from), &cluster(to), &actor, topics, now);
            return Sender::Emqx(Box::new(sender));
        }
        let config = ReplicatorConfig {
            cluster: cluster(from),
            target_cluster: cluster(to),
            actor,
            topics: topics.clone(),
            last_incarnation: last,
            capabilities: Capabilities::OURS,
            demanded: Capabilities::NONE,
            answer_bytes_max: 0,
        };
        // A small queue, so that it overflows now and then.
        let replicator = Replicator::new(config, self.random.next()).with_pending(Pending::new(12, 100_000));
        Sender::Ours(Box::new(replicator))
    }

    /// The moment by the clock of one cluster.
    pub(crate) fn now_at(&self, node: usize) -> Now {
        let unix_ms = (EPOCH_MS + self.now_ms).saturating_add_signed(self.clusters[node].clock_ms);
        Now { mono_ms: self.now_ms, unix_ms }
    }

    /// The direction the other way.
    pub(crate) fn back(&self, index: usize) -> usize {
        let Direction { from, to, .. } = self.directions[index];
        self.directions.iter().position(|other| (other.from, other.to) == (to, from)).unwrap()
    }

    pub(crate) fn run_until(&mut self, end_ms: u64, busy: bool) {
        self.run(end_ms, u32::MAX, busy);
    }

    /// Lets things happen until connections were cut off so often.
    pub(crate) fn run_until_cut(&mut self, cuts: u32) {
        self.run(u64::MAX, cuts, true);
    }

    fn run(&mut self, end_ms: u64, cuts: u32, busy: bool) {
        let mut action_ms = self.now_ms;
        while self.now_ms < end_ms && self.cuts < cuts {
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
                    for lane in &self.directions[index].lanes {
                        assert_eq!(lane.lane.unaccounted(), 0, "the ledger balances");
                    }
                }
            }
        }
    }

    /// One thing that may happen.
    fn act(&mut self) {
        let index = self.random.below(self.directions.len() as u64) as usize;
        let node = self.random.below(self.clusters.len() as u64) as usize;
        match self.random.below(100) {
            0..40 => self.subscribe_or_not(node),
            40..82 => (0..=self.random.below(6)).for_each(|_| self.publish(node)),
            82..85 => self.cut_control(index),
            85..90 => {
                let lane = self.random.below(LANES as u64) as usize;
                self.cut_lane(index, lane);
            }
            90..94 => {
                self.directions[index].partitioned_until_ms = self.now_ms + self.random.below(45_000);
                self.cut(index);
            }
            94..96 => self.restart(node),
            96..98 => self.clusters[node].clock_ms += self.random.below(7_200_000) as i64 - 3_600_000,
            _ if self.stops => self.stop_and_start(index),
            _ => {}
        }
    }

    fn subscribe_or_not(&mut self, node: usize) {
        let filters = ["a/b", "a/+", "a/#", "+/b", "#", "b", "a/b/c", "m/1", "+/+/c", "x/y"];
        let filter = *self.random.pick(&filters);
        let route = match self.random.below(3) {
            _ if PERMANENT.contains(&filter) => LocalRoute::shared("h", filter),
            0 => LocalRoute::shared("g", filter),
            _ => LocalRoute::plain(filter),
        };
        let gone = self.clusters[node].subscriptions.contains(&route);
        if gone {
            self.clusters[node].subscriptions.remove(&route);
        } else {
            self.clusters[node].subscriptions.insert(route.clone());
        }
        let now = self.now_at(node);
        for index in 0..self.directions.len() {
            if self.directions[index].from == node {
                match &mut self.directions[index].sender {
                    Sender::Ours(replicator) => replicator.handle_route(now, &route, gone),
                    Sender::Emqx(sender) => sender.handle_route(now, &route, gone),
                }
                self.follow_outputs(index);
            }
        }
    }

    /// A client of the cluster publishes: every link takes the message that its peer wants.
    fn publish(&mut self, node: usize) {
        let publisher = self.random.below(PUBLISHERS as u64) as usize;
        let topic = *self.random.pick(&["m/x", "m/1", "a/b", "a/c", "b"]);
        let qos = match self.random.below(5) {
            0 => QoS::AtMostOnce,
            1 => QoS::ExactlyOnce,
            _ => QoS::AtLeastOnce,
        };
        let number = self.clusters[node].published[publisher];
        self.clusters[node].published[publisher] += 1;
        let body = format!("{node}:{publisher}:{number}");
        let now = self.now_at(node);
        for index in 0..self.directions.len() {
            let back = self.back(index);
            let wanted = self.directions[back].mirror.iter().any(|filter| topic::matches(filter, topic));
            if self.directions[index].from != node || !wanted {
                continue;
            }
            let outgoing = Outgoing {
                id: message::message_id(
                    self.now_ms * 1_000,
                    node as u64,
                    (number * 4) as u16 + publisher as u16,
                ),
                qos,
                from: Some("client"),
                username: None,
                peer: None,
                retain: false,
                topic,
                payload: body.as_bytes(),
                timestamp_ms: now.unix_ms,
                properties: MessageProperties::default(),
            };
            let life = self.clusters[self.directions[index].to].life;
            let direction = &mut self.directions[index];
            let lane = &mut direction.lanes[publisher % LANES].lane;
            lane.note_group(now, 0, 0);
            let pushed = lane.push_from(publisher as u32, now, qos, |out| message::put(out, &outgoing));
            if let Some(disk) = &mut direction.spooled {
                disk.settle(lane);
            }
            if qos != QoS::AtMostOnce {
                assert_eq!(pushed, Pushed::Spooled);
                direction.flows[publisher].owed.push(Owed { number, life });
            }
            self.pump(index);
        }
    }

    /// When an end notices that a connection is gone: mostly soon, and late if nothing tells.
    fn notice(&mut self) -> u64 {
        let late = if self.random.chance(20) { 30_000 } else { 4_000 };
        self.now_ms + self.random.below(late)
    }

    fn cut_control(&mut self, index: usize) {
        self.cuts += 1;
        let (up, down) = (self.notice(), self.notice());
        if let Some(connection) = &mut self.directions[index].control {
            connection.up.break_off(up);
            connection.down.break_off(down);
        }
    }

    fn cut_lane(&mut self, index: usize, lane: usize) {
        self.cuts += 1;
        let (up, down) = (self.notice(), self.notice());
        if let Some(connection) = &mut self.directions[index].lanes[lane].connection {
            connection.up.break_off(up);
            connection.down.break_off(down);
        }
    }

    /// Breaks all connections one way; both ends notice in their own time.
    fn cut(&mut self, index: usize) {
        let cuts = self.cuts + 1;
        self.cut_control(index);
        (0..LANES).for_each(|lane| self.cut_lane(index, lane));
        self.cuts = cuts;
    }

    /// Cuts two clusters off from each other until this moment.
    pub(crate) fn part(&mut self, one: usize, other: usize, until_ms: u64) {
        for index in 0..self.directions.len() {
            let Direction { from, to, .. } = self.directions[index];
            if (from, to) == (one, other) || (from, to) == (other, one) {
                self.directions[index].partitioned_until_ms = until_ms;
                self.cut(index);
            }
        }
    }

    /// The filters of one cluster that another knows.
    pub(crate) fn known(&self, from: usize, to: usize) -> &BTreeSet<String> {
        let direction = self.directions.iter().find(|direction| (direction.from, direction.to) == (from, to));
        &direction.unwrap().mirror
    }

    /// A cluster loses everything but its configuration, its subscribers, its last incarnations, and what it stores.
    fn restart(&mut self, node: usize) {
        let now = self.now_at(node);
        self.clusters[node].life += 1;
        for index in 0..self.directions.len() {
            let (from, to) = (self.directions[index].from, self.directions[index].to);
            if from == node {
                let last = match &self.directions[index].sender {
                    Sender::Ours(replicator) => replicator.incarnation(),
                    Sender::Emqx(_) => 0,
                };
                let topics = self.directions[index].topics.clone();
                let mut sender = self.sender(from, to, &topics, last);
                if let Sender::Ours(replicator) = &mut sender {
                    replicator.start(now);
                }
                let direction = &mut self.directions[index];
                direction.sender = sender;
                direction.control = None;
                let disk = direction.spooled.as_ref();
                direction.lanes = std::array::from_fn(|index| lane(index, now.mono_ms, disk));
                direction.told = false;
                direction.mirror_before = direction.mirror.clone();
                if let Some(disk) = &mut direction.spooled {
                    if direction.noted.is_none() {
                        // Else a peer that forgot what it had acknowledged could get it again, behind what came later.
                        disk.commit();
                    }
                    disk.restore(direction.lanes.each_mut().map(|lane| &mut lane.lane), now);
                } else {
                    direction.flows.iter_mut().for_each(|flow| flow.owed.clear());
                }
                self.follow_outputs(index);
            } else if to == node {
                let direction = &mut self.directions[index];
                let wanted = std::mem::take(&mut direction.mirror);
                match &mut direction.receiver {
                    Receiver::Ours(routes) => {
                        **routes = RemoteRoutes::new(RouteLimits::default());
                        if self.clusters[node].stores {
                            routes.restore(wanted.iter().map(String::as_str));
                        }
                    }
                    Receiver::Emqx(store) => store.clear(),
                }
                direction.follow_changes();
                direction.received = Received { epoch_ms: self.clusters[node].life, ..Received::default() };
                if let Some(disk) = &mut direction.noted {
                    direction.seen = disk.restore_seen();
                } else {
                    direction.seen = Seen::default();
                    direction.flows.iter_mut().for_each(|flow| flow.fresh.clear());
                }
                self.cut(index);
                let Direction { control, lanes, .. } = &mut self.directions[index];
                let data = lanes.iter_mut().filter_map(|lane| lane.connection.as_mut());
                for connection in data.chain(control) {
                    connection.server = None;
                }
            }
        }
    }

    /// As when an operator disables and enables a link.
    fn stop_and_start(&mut self, index: usize) {
        let now = self.now_at(self.directions[index].from);
        let Sender::Ours(replicator) = &mut self.directions[index].sender else { return };
        replicator.stop(now);
        self.directions[index].withdrawn = true;
        self.follow_outputs(index);
    }

    pub(crate) fn heal(&mut self) {
        for direction in &mut self.directions {
            direction.partitioned_until_ms = 0;
        }
    }

    /// Everything that is due on one direction.
    fn turn(&mut self, index: usize) {
        let (now, there) = (self.now_at(self.directions[index].from), self.now_at(self.directions[index].to));
        let direction = &mut self.directions[index];
        match &mut direction.sender {
            Sender::Ours(replicator) => {
                if replicator.poll_timeout().is_some_and(|due| due <= now.mono_ms) {
                    replicator.handle_timeout(now);
                }
                if replicator.state() == State::Stopped {
                    replicator.start(now);
                }
            }
            Sender::Emqx(sender) => {
                if sender.poll_timeout().is_some_and(|due| due <= now.mono_ms) {
                    sender.handle_timeout(now);
                }
            }
        }
        match &mut direction.receiver {
            Receiver::Ours(routes) => routes.collect(there),
            Receiver::Emqx(store) => store.collect(there),
        }
        direction.follow_changes();
        for lane in 0..LANES {
            let DataLane { connection, retry_ms, .. } = &self.directions[index].lanes[lane];
            if connection.is_none() && *retry_ms <= now.mono_ms {
                self.connect_data(index, lane);
            }
        }
        self.follow_outputs(index);
        self.receive_control(index);
        self.directions[index].told |= self.directions[index].is_online();
        (0..LANES).for_each(|lane| self.receive_data(index, lane));
        self.pump(index);
        // What was heard may let the other way go on.
        let back = self.back(index);
        self.pump(back);
    }

    /// What must hold once nothing has happened for long enough.
    pub(crate) fn check(&mut self) {
        for direction in &mut self.directions {
            assert!(direction.spooled.as_mut().is_none_or(Disk::is_empty), "what is over is kept");
            let (from, to) = (direction.from, direction.to);
            assert!(direction.is_online(), "{from} to {to}");
            let wanted = direction.wanted(&self.clusters[from].subscriptions);
            let known: BTreeSet<String> = match &direction.receiver {
                Receiver::Ours(routes) => routes.filters().map(str::to_owned).collect(),
                Receiver::Emqx(store) => store.filters(),
            };
            assert_eq!(known, wanted, "routes of {from} at {to}");
            assert_eq!(direction.mirror, known, "changes of {from} at {to}");
            for flow in &direction.flows {
                let owed = flow.owed.iter().map(|owed| owed.number);
                let lost: Vec<u64> = owed.filter(|number| !flow.arrived.contains(number)).collect();
                assert!(lost.is_empty(), "lost from {from} to {to}: {lost:?}");
            }
            for lane in &direction.lanes {
                assert_eq!((lane.lane.queued(), lane.lane.in_flight(), lane.lane.bytes()), (0, 0, 0));
            }
        }
    }
}
