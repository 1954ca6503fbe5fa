//! Tells one peer which of our subscriptions it should serve (`link-protocol.md` 4; EMQX's
//! `emqx_cluster_link_routerepl`): the outbound state machine of route replication.
//!
//! ```text
//!         ┌────────▶ Connecting ───────┐
//!         │              ▼             │
//!         │         Handshaking ───────┤   subscribe, actor_init, ack awaited (Correlation Data)
//!         │              ▼             │
//!         │        Bootstrapping ──────┤   snapshot in batches, heartbeats between
//!         │              ▼             │
//!         │           Online ──────────┤   updates, heartbeats
//!         │              │ stop        ▼
//!         │           Stopping    Disconnected    wait; at most one attempt per interval
//!         │              ▼             │
//!         │           Stopped          │
//!         └────────────────────────────┘
//! ```
//!
//! The states are EMQX's. On purpose different: a snapshot on every connection, whatever the peer says, since
//! old receivers never ask for one (4.7); heartbeats from the ack on, not only when online (4.2); a bounded
//! queue, which on overflow gives way to a new incarnation; the snapshot as many small turns; a stop that
//! takes our routes back instead of leaving them to expire.
//!
//! Contract: call a `handle_*`, then drain [`Replicator::poll_output`], then arm [`Replicator::poll_timeout`].
//! After [`Output::Close`] the connection is the driver's to tear down; it need not report that.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::link::backoff::Backoff;
use crate::link::compress::COMPRESS_BYTES_MIN;
use crate::link::compress::Deflater;
use crate::link::compress::Inflater;
use crate::link::extension::Capabilities;
use crate::link::name;
use crate::link::payload;
use crate::link::payload::ActorInit;
use crate::link::payload::Answer;
use crate::link::payload::PROTO_VER;
use crate::link::payload::RouteBatch;
use crate::link::payload::RouteOp;
use crate::link::pending::BATCH_BYTES_MAX;
use crate::link::pending::BATCH_OPS_MAX;
use crate::link::pending::Pending;
use crate::link::replicator::heartbeat::Heartbeats;
pub use crate::link::replicator::output::ControlPublish;
pub use crate::link::replicator::output::Output;
pub use crate::link::replicator::output::Problem;
pub use crate::link::replicator::output::State;
use crate::link::retained::Puller;
use crate::link::route::LinkTopics;
use crate::link::route::LocalRoute;
use crate::link::route::RouteKey;
use crate::mqtt::packet::QoS;
use crate::time::Now;

mod heartbeat;
mod output;
mod pull;

/// Pause between heartbeats: a third of the receiver's patience.
pub const HEARTBEAT_MS: u64 = 10_000;
/// How long each answer of the handshake may take.
pub const ACK_TIMEOUT_MS: u64 = 5_000;
/// How long connecting may take, up to CONNACK.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// How long the peer may take to acknowledge a batch.
pub const PUBACK_TIMEOUT_MS: u64 = 30_000;
/// How long a clean stop may take.
pub const STOP_TIMEOUT_MS: u64 = 5_000;
/// From the start of one attempt to the start of the next, at most.
pub const RECONNECT_MS: u64 = 5_000;
/// The same, after a first failure.
pub const RECONNECT_FIRST_MS: u64 = 500;
/// Changes are gathered this long before a batch is cut, as in EMQX.
pub const GATHER_MS: u64 = 10;
/// How many local routes are looked at in one turn of a snapshot.
const SNAPSHOT_TURN: usize = 20_000;
/// What a PUBLISH adds to topic and payload, generously.
const PUBLISH_OVERHEAD: usize = 64;
/// Reason Code Implementation specific error: how EMQX answers a protocol error.
const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// Reason Codes from here on are failures (MQTT 5.0 section 2.4).
const FAILURE: u8 = 0x80;

/// Local subscriptions as they are when the iterator is made.
pub type Snapshot = Box<dyn Iterator<Item = LocalRoute> + Send>;

/// Who we are and what we want.
#[derive(Debug, Clone)]
pub struct ReplicatorConfig {
    /// Our own cluster name.
    pub cluster: String,
    /// The name by which we know the peer.
    pub target_cluster: String,
    /// Our actor: the node name.
    pub actor: String,
    /// What we want from the peer.
    pub topics: LinkTopics,
    /// The highest incarnation this actor ever used, 0 if unknown.
    pub last_incarnation: u64,
    /// What we can do with the peer beyond EMQX's protocol.
    pub capabilities: Capabilities,
    /// What of that the peer must be able to do.
    pub demanded: Capabilities,
    /// The longest payload of an answer that we take.
    pub answer_bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Init,
    SnapshotBatch,
    PendingBatch,
}

/// See the module.
pub struct Replicator {
    config: ReplicatorConfig,
    route_topic: Arc<str>,
    response_topic: Arc<str>,
    state: State,
    problem: Option<Problem>,
    incarnation: u64,
    renew_incarnation: bool,
    seed: u64,
    backoff: Backoff,
    attempt_ms: u64,
    next_attempt_ms: u64,
    deadline_ms: u64,
    gather_ms: Option<u64>,
    correlation: [u8; 16],
    token: u32,
    awaited: Option<(u32, Awaited)>,
    puback_ms: u64,
    batch_bytes: usize,
    awaiting_snapshot: bool,
    snapshot: Option<Snapshot>,
    carried: VecDeque<RouteKey>,
    pending: Pending,
    rows_too_large: u64,
    peer_needed_bootstrap: Option<bool>,
    /// What both can do, on this connection.
    capabilities: Capabilities,
    /// Clusters that the peer reaches through us.
    reach: Vec<Box<str>>,
    version: Option<Box<str>>,
    /// The peer was told that this is all.
    end_told: bool,
    heartbeats: Heartbeats,
    puller: Puller,
    /// Since when the peer lacks a change.
    behind_since_ms: Option<u64>,
    deflater: Deflater,
    inflater: Inflater,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Replicator")
            .field("target_cluster", &self.config.target_cluster)
            .field("state", &self.state)
            .field("incarnation", &self.incarnation)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Replicator {
    /// A stopped replicator. `seed` is random; jitter and Correlation Data come from it.
    #[must_use]
    pub fn new(config: ReplicatorConfig, seed: u64) -> Self {
        Self {
            route_topic: name::route_topic(&config.cluster).into(),
            response_topic: name::response_topic(&config.cluster, &config.actor).into(),
            incarnation: config.last_incarnation,
            config,
            state: State::Stopped,
            problem: None,
            renew_incarnation: true,
            seed,
            backoff: Backoff::new(RECONNECT_FIRST_MS, RECONNECT_MS),
            attempt_ms: 0,
            next_attempt_ms: 0,
            deadline_ms: 0,
            gather_ms: None,
            correlation: [b'0'; 16],
            token: 0,
            awaited: None,
            puback_ms: 0,
            batch_bytes: BATCH_BYTES_MAX,
            awaiting_snapshot: false,
            snapshot: None,
            carried: VecDeque::new(),
            pending: Pending::default(),
            rows_too_large: 0,
            peer_needed_bootstrap: None,
            capabilities: Capabilities::NONE,
            reach: Vec::new(),
            version: None,
            end_told: false,
            heartbeats: Heartbeats::default(),
            puller: Puller::default(),
            behind_since_ms: None,
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Replaces the bounds of the queue of changes.
    #[must_use]
    pub fn with_pending(mut self, pending: Pending) -> Self {
        self.pending = pending;
        self
    }

    /// Begins to connect.
    pub fn start(&mut self, now: Now) {
        if self.state == State::Stopped {
            self.renew_incarnation = true;
            self.connect(now);
        }
    }

    /// Takes our routes back and closes. What takes longer than [`STOP_TIMEOUT_MS`] is left to expire.
    pub fn stop(&mut self, now: Now) {
        match self.state {
            State::Stopped | State::Stopping => {}
            State::Bootstrapping | State::Online => {
                self.snapshot = None;
                self.carried.clear();
                self.pending.forget_additions();
                self.deadline_ms = now.mono_ms + STOP_TIMEOUT_MS;
                self.enter(State::Stopping);
                self.request_snapshot();
            }
            State::Disconnected => self.finish(),
            State::Connecting | State::Handshaking => {
                self.outputs.push_back(Output::Close(None));
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        self.forget_connection();
        self.pending.clear();
        self.enter(State::Stopped);
    }

    fn connect(&mut self, now: Now) {
        if std::mem::take(&mut self.renew_incarnation) {
            self.incarnation = now.unix_ms.max(self.incarnation + 1);
            self.pending.clear();
        }
        self.attempt_ms = now.mono_ms;
        self.deadline_ms = now.mono_ms + CONNECT_TIMEOUT_MS;
        self.enter(State::Connecting);
        self.outputs.push_back(Output::Connect);
    }

    /// CONNACK came. `maximum_packet_size` is the peer's, if it has one.
    pub fn handle_connected(&mut self, now: Now, maximum_packet_size: Option<u32>) {
        if self.state != State::Connecting {
            return;
        }
        let overhead = self.route_topic.len() + PUBLISH_OVERHEAD;
        let room = maximum_packet_size.map_or(usize::MAX, |size| size as usize).saturating_sub(overhead);
        self.batch_bytes = BATCH_BYTES_MAX.min(room);
        self.deadline_ms = now.mono_ms + ACK_TIMEOUT_MS;
        self.enter(State::Handshaking);
        self.outputs.push_back(Output::Subscribe { filter: self.response_topic.clone() });
    }

    /// SUBACK came, with the reason code of our one filter.
    pub fn handle_subscribed(&mut self, now: Now, reason: u8) {
        if self.state != State::Handshaking || self.awaited.is_some() {
            return;
        }
        if reason >= FAILURE {
            return self.refused(Problem::SubscribeRefused(reason));
        }
        let random = format!("{:016x}", self.random());
        self.correlation.copy_from_slice(random.as_bytes());
        let mut payload = Vec::with_capacity(128);
        payload::put_actor_init(
            &mut payload,
            &ActorInit {
                actor: &self.config.actor,
                incarnation: self.incarnation,
                target_cluster: &self.config.target_cluster,
                proto_ver: PROTO_VER,
                capabilities: self.config.capabilities,
            },
        );
        self.deadline_ms = now.mono_ms + ACK_TIMEOUT_MS;
        self.publish(now, payload, Awaited::Init);
    }

    /// PUBACK came for the publish with this token.
    pub fn handle_puback(&mut self, now: Now, token: u32, reason: u8) {
        if self.heartbeat_acknowledged(now, token) || self.page_acknowledged(token, reason) {
            return;
        }
        let Some((_, awaited)) = self.awaited.filter(|(awaited, _)| *awaited == token) else { return };
        self.awaited = None;
        if reason >= FAILURE {
            return self.refused(Problem::PublishRefused(reason));
        }
        match awaited {
            Awaited::Init if self.state == State::Handshaking => {
                self.deadline_ms = now.mono_ms + ACK_TIMEOUT_MS;
            }
            // The ack overtook the PUBACK; either order is fine (`link-protocol.md` 2.1).
            Awaited::Init => self.advance(now),
            Awaited::SnapshotBatch => self.advance(now),
            Awaited::PendingBatch => {
                self.pending.acknowledged();
                self.advance(now);
            }
        }
    }

    /// A PUBLISH came on our response topic.
    pub fn handle_response(&mut self, now: Now, correlation_data: Option<&[u8]>, payload: &[u8]) {
        let is_init = self.state == State::Handshaking;
        if is_init && correlation_data != Some(&self.correlation[..]) {
            return;
        }
        let mut inflater = std::mem::take(&mut self.inflater);
        let answer = inflater.open(payload).map_err(Into::into).and_then(payload::parse_answer);
        match answer {
            Ok(Answer::Init(ack)) if is_init => match ack.result {
                Err(reason) => self.refused(Problem::rejected(&reason)),
                Ok(()) if !ack.capabilities.has(self.config.demanded) => {
                    self.refused(Problem::Less(self.config.demanded.without(ack.capabilities)));
                }
                Ok(()) => {
                    self.peer_needed_bootstrap = ack.need_bootstrap;
                    self.capabilities = self.config.capabilities.both(ack.capabilities);
                    self.reach = ack.reach.into_iter().map(Into::into).collect();
                    self.version = ack.version.map(Into::into);
                    self.accepted(now);
                }
            },
            Ok(Answer::Heartbeat(ack)) if !is_init => self.heartbeat_answered(&ack),
            Ok(Answer::RetainedPage(page)) if !is_init => self.page_answered(now, &page),
            _ if is_init => self.refused(Problem::UnreadableAck),
            _ => {}
        }
        self.inflater = inflater;
    }

    fn accepted(&mut self, now: Now) {
        self.heartbeats.due_ms = now.mono_ms + HEARTBEAT_MS;
        self.end_told = false;
        // The snapshot about to be taken holds them; the deletions it cannot tell.
        self.pending.forget_additions();
        self.enter(State::Bootstrapping);
        self.request_snapshot();
    }

    fn request_snapshot(&mut self) {
        self.awaiting_snapshot = true;
        self.outputs.push_back(Output::RequestSnapshot);
    }

    /// The snapshot asked for.
    pub fn handle_snapshot(&mut self, now: Now, snapshot: Snapshot) {
        if std::mem::take(&mut self.awaiting_snapshot) {
            self.snapshot = Some(snapshot);
            self.advance(now);
        }
    }

    /// A distinct local subscription came or went.
    pub fn handle_route(&mut self, now: Now, route: &LocalRoute, gone: bool) {
        // What comes while stopping is not told any more, what goes still is.
        if self.state == State::Stopped || self.state == State::Stopping && !gone {
            return;
        }
        let mut overflow = false;
        self.behind_since_ms.get_or_insert(now.mono_ms);
        for key in self.config.topics.routes(route) {
            overflow |= self.pending.push(key, gone).is_err();
        }
        if overflow {
            // What got lost may include deletions: only a new incarnation makes the peer forget them.
            self.renew_incarnation = true;
            if !matches!(self.state, State::Disconnected | State::Stopping) {
                self.failed(Problem::Overflow);
            }
        } else if self.state == State::Online && self.awaited.is_none() && self.pending.is_waiting() {
            self.gather_ms.get_or_insert(now.mono_ms + GATHER_MS);
        }
    }

    /// The connection could not be made, broke, or was closed by a DISCONNECT with this reason code.
    pub fn handle_disconnected(&mut self, reason: Option<u8>) {
        match self.state {
            State::Stopped | State::Disconnected => return,
            State::Stopping => return self.finish(),
            // Perhaps the peer remembers a newer incarnation of us, from before our clock was set back.
            State::Handshaking if reason == Some(IMPLEMENTATION_SPECIFIC_ERROR) => {
                self.renew_incarnation = true;
            }
            _ => {}
        }
        let random = self.random() as u32;
        let pause = self.backoff.failed(random);
        self.wait(reason.map_or(Problem::ConnectionLost, Problem::Disconnected), pause);
    }

    /// Time has come for whatever [`Self::poll_timeout`] said.
    pub fn handle_timeout(&mut self, now: Now) {
        let now_ms = now.mono_ms;
        match self.state {
            State::Disconnected if now_ms >= self.next_attempt_ms => return self.connect(now),
            State::Connecting if now_ms >= self.deadline_ms => return self.failed(Problem::ConnectTimeout),
            State::Handshaking if now_ms >= self.deadline_ms => return self.failed(Problem::AckTimeout),
            State::Stopping if now_ms >= self.deadline_ms => {
                self.outputs.push_back(Output::Close(None));
                return self.finish();
            }
            State::Bootstrapping | State::Online | State::Stopping => {}
            _ => return,
        }
        if self.awaited.is_some() && now_ms >= self.puback_ms {
            return self.failed(Problem::PubackTimeout);
        }
        if now_ms >= self.heartbeats.due_ms {
            if self.heartbeats.is_overdue(now) {
                return self.failed(Problem::PubackTimeout);
            }
            self.beat_or_report(now);
        }
        if self.puller.is_overdue(now) {
            return self.failed(Problem::PageTimeout);
        }
        self.pull(now);
        if self.gather_ms.is_some_and(|due| now_ms >= due) {
            self.gather_ms = None;
            self.advance(now);
        }
    }

    fn next_token(&mut self) -> u32 {
        self.token = self.token.wrapping_add(1).max(1);
        self.token
    }

    /// Sends the next batch, if none is in flight; finishes the bootstrap or the stop when there is none.
    fn advance(&mut self, now: Now) {
        if self.awaited.is_some() || self.awaiting_snapshot {
            return;
        }
        let must_end = self.state == State::Bootstrapping
            && self.capabilities.has(Capabilities::BOOTSTRAP_END)
            && !self.end_told;
        if must_end || self.snapshot.is_some() || !self.carried.is_empty() {
            let mut batch = RouteBatch::new(&self.config.actor, self.incarnation);
            if !self.fill_from_snapshot(&mut batch) && batch.count() == 0 {
                // Nothing to send in this turn, and more to look at.
                self.gather_ms = Some(now.mono_ms);
                return;
            }
            let is_last = must_end && self.snapshot.is_none() && self.carried.is_empty();
            if is_last {
                self.end_told = true;
                let payload = batch.finish_last(&mut self.deflater, COMPRESS_BYTES_MIN);
                return self.publish(now, payload, Awaited::SnapshotBatch);
            }
            if batch.count() > 0 {
                return self.send_batch(now, batch, Awaited::SnapshotBatch);
            }
        }
        if self.state == State::Bootstrapping {
            self.backoff.succeeded();
            self.problem = None;
            self.enter(State::Online);
            self.heartbeats.report_ms = now.mono_ms;
            // It tells the peer that this was all: what we wanted in a former life can go.
            self.beat_or_report(now);
        }
        if self.pending.is_waiting() {
            let mut batch = RouteBatch::new(&self.config.actor, self.incarnation);
            self.pending.fill(&mut batch, self.batch_bytes);
            if batch.count() > 0 {
                self.send_batch(now, batch, Awaited::PendingBatch);
                return self.pull_added(now);
            }
        }
        self.behind_since_ms = None;
        self.pull(now);
        if self.state == State::Stopping {
            self.outputs.push_back(Output::Close(None));
            self.finish();
        }
    }

    /// Fills a batch from the snapshot. `false` if the turn is over before batch or snapshot are.
    fn fill_from_snapshot(&mut self, batch: &mut RouteBatch) -> bool {
        let delete = self.state == State::Stopping;
        let empty = batch.bytes();
        for _ in 0..SNAPSHOT_TURN {
            while let Some(key) = self.carried.front() {
                let op = RouteOp { delete, topic: key.topic.as_bytes(), id: key.id.as_bytes() };
                let cost = RouteBatch::cost(&op);
                if empty + cost > self.batch_bytes {
                    self.rows_too_large += 1;
                } else if batch.count() >= BATCH_OPS_MAX || batch.bytes() + cost > self.batch_bytes {
                    return true;
                } else {
                    batch.push(&op);
                    if !delete && self.capabilities.has(Capabilities::RETAINED) && !key.is_shared() {
                        self.puller.want(&key.topic);
                    }
                }
                self.carried.pop_front();
            }
            let Some(snapshot) = &mut self.snapshot else { return true };
            match snapshot.next() {
                Some(route) => self.carried.extend(self.config.topics.routes(&route)),
                None => self.snapshot = None,
            }
        }
        false
    }

    fn send_batch(&mut self, now: Now, batch: RouteBatch, awaited: Awaited) {
        let payload = batch.finish(&mut self.deflater, COMPRESS_BYTES_MIN);
        self.publish(now, payload, awaited);
    }

    fn publish(&mut self, now: Now, payload: Vec<u8>, awaited: Awaited) {
        let token = self.next_token();
        self.awaited = Some((token, awaited));
        self.puback_ms = now.mono_ms + PUBACK_TIMEOUT_MS;
        let init = awaited == Awaited::Init;
        self.outputs.push_back(Output::Publish(ControlPublish {
            token,
            qos: QoS::AtLeastOnce,
            topic: self.route_topic.clone(),
            payload,
            response_topic: init.then(|| self.response_topic.clone()),
            correlation_data: init.then_some(self.correlation),
        }));
    }

    /// The peer answered and does not want us: close, and do not hurry back.
    fn refused(&mut self, problem: Problem) {
        if self.state == State::Stopping {
            self.outputs.push_back(Output::Close(None));
            return self.finish();
        }
        self.outputs.push_back(Output::Close(Some(problem.clone())));
        let random = self.random() as u32;
        let pause = self.backoff.refused(random);
        self.wait(problem, pause);
    }

    fn failed(&mut self, problem: Problem) {
        if self.state == State::Stopping {
            self.outputs.push_back(Output::Close(None));
            return self.finish();
        }
        self.outputs.push_back(Output::Close(Some(problem.clone())));
        let random = self.random() as u32;
        let pause = self.backoff.failed(random);
        self.wait(problem, pause);
    }

    fn wait(&mut self, problem: Problem, pause: u64) {
        self.forget_connection();
        self.problem = Some(problem);
        self.next_attempt_ms = self.attempt_ms + pause;
        self.enter(State::Disconnected);
    }

    fn forget_connection(&mut self) {
        self.awaited = None;
        self.heartbeats.forget();
        self.puller.forget();
        self.capabilities = Capabilities::NONE;
        self.gather_ms = None;
        self.awaiting_snapshot = false;
        self.snapshot = None;
        self.carried.clear();
        self.pending.failed();
    }

    fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.outputs.push_back(Output::StateChanged(state));
        }
    }

    /// SplitMix64 over the seed given.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.seed;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`], in monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let puback = self.awaited.map(|_| self.puback_ms);
        let page = if self.pulls() { self.puller.poll_timeout() } else { None };
        let working =
            [Some(self.heartbeats.due_ms), puback, self.gather_ms, page].into_iter().flatten().min();
        match self.state {
            State::Stopped => None,
            State::Disconnected => Some(self.next_attempt_ms),
            State::Connecting | State::Handshaking => Some(self.deadline_ms),
            State::Bootstrapping | State::Online => working,
            State::Stopping => working.map(|due| due.min(self.deadline_ms)),
        }
    }

    /// Where replication stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What went wrong last; `None` once online.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// The current incarnation: persist it, and give it back as [`ReplicatorConfig::last_incarnation`].
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What the peer said in its last ack, for the operator's eyes; not relied on.
    #[must_use]
    pub fn peer_needed_bootstrap(&self) -> Option<bool> {
        self.peer_needed_bootstrap
    }

    /// What the peer and we can do beyond EMQX's protocol; nothing while there is no connection.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The version of the peer's program, if it has told it.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Clusters that the peer reaches through us, as it said last.
    #[must_use]
    pub fn reach(&self) -> &[Box<str>] {
        &self.reach
    }

    /// Since when the peer lacks a change of our routes, in monotonic milliseconds.
    #[must_use]
    pub fn behind_since_ms(&self) -> Option<u64> {
        self.behind_since_ms
    }

    /// How many changes wait or are in flight.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many routes did not fit into any packet the peer takes.
    #[must_use]
    pub fn routes_too_large(&self) -> u64 {
        self.rows_too_large + self.pending.too_large()
    }
}

#[cfg(test)]
mod tests;
