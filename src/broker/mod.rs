//! The drivers and what they share: sessions by Client Identifier, routes, retained messages, links.
//!
//! [`Broker`] is the meeting point; [`server`] builds one and opens its listeners; `accept` takes a transport
//! to an accepted CONNECT, `connection` drives it from there.

pub mod accept;
pub mod acl_file;
pub mod acl_front;
pub mod acl_reload;
mod admission;
mod attempt;
pub mod authenticate;
pub mod banned;
pub mod callout;
pub mod client;
pub mod close;
pub mod connection;
pub mod counts;
pub mod data_dir;
pub mod delayed;
pub mod delivery;
pub mod enhanced;
pub mod enrolment;
pub mod events;
pub mod explain;
pub mod feeds;
pub mod filters;
pub mod flapping;
pub mod forwarder;
pub mod gathering;
pub mod identity;
pub mod inspect;
pub mod jwks;
pub mod keep;
pub mod lent;
pub mod linger;
pub mod link;
pub mod link_client;
pub mod link_events;
pub mod link_ingress;
pub mod link_inspect;
pub mod link_keys;
mod link_retained;
pub mod links;
mod login;
pub mod material;
pub mod meter;
mod outbox;
pub mod overload;
pub mod packets;
pub mod password_book;
mod present;
pub mod publish;
pub mod reasons;
mod refusal;
pub mod replace;
pub mod replay;
pub mod retained;
pub mod reverse;
pub mod routes;
pub mod server;
mod serving;
pub mod sessions;
pub mod shadow;
pub mod shared;
pub mod steer;
pub mod sweeper;
pub mod sys;
pub mod threads;
pub mod throttle;
pub mod topic_cache;
pub mod trace;
pub mod trust;
pub mod upgrades;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use parking_lot::Mutex;
use parking_lot::RwLock;
use rapidhash::quality::RandomState;
use tokio::sync::Notify;

use crate::auth::attempts;
use crate::auth::attempts::Attempts;
use crate::broker::authenticate::Authentication;
use crate::broker::banned::Banned;
use crate::broker::client::Client;
use crate::broker::delayed::DelayedMessages;
use crate::broker::enrolment::Enrolment;
use crate::broker::events::SecurityLog;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::filters::Exclusive;
use crate::broker::flapping::Flapping;
use crate::broker::identity::Denied;
use crate::broker::identity::Identity;
use crate::broker::identity::Policy;
use crate::broker::links::Links;
use crate::broker::overload::Load;
use crate::broker::retained::RetainedLimits;
use crate::broker::retained::RetainedStore;
use crate::broker::routes::RouteTable;
use crate::broker::sweeper::Sweeper;
use crate::broker::sys::SysTopics;
use crate::broker::threads::IoThread;
use crate::broker::trace::Traces;
use crate::config::settings::FlappingDetect;
use crate::config::settings::OverloadProtection;
use crate::config::settings::Settings;
use crate::config::settings::SharedStrategy;
use crate::metrics::Metrics;
use crate::metrics::ScrapeGauges;
use crate::metrics::labels::AclAction;
use crate::mqtt::packet::Version;
use crate::net::clock;
use crate::session::Bounds;
use crate::session::connect::ServerLimits;
use crate::session::inbound::InboundLimits;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::queue::QueueLimits;
use crate::storage::store::Burst;
use crate::storage::store::Store;
use crate::time::Now;

/// The route table of this broker.
pub type Routes = RouteTable<Arc<Client>>;
/// Where the messages of one topic go.
pub type Targets = routes::Targets<Arc<Client>>;

/// Bytes one session's queue may hold beside `mqtt.max_mqueue_len` messages.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What wrapping a message for a link may add to it, its topic and properties apart, which it had before.
const WRAPPER_BYTES: u32 = 64 * 1024;
/// Retained messages and their bytes.
const RETAINED_MAX: RetainedLimits =
    RetainedLimits { messages_max: 10_000_000, bytes_max: 4 * 1024 * 1024 * 1024 };

/// The `[mqtt]` settings, and those that protect the broker, as the drivers use them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What CONNACK speaks about.
    pub server: ServerLimits,
    /// Levels of a Topic Name or Topic Filter.
    pub max_topic_levels: usize,
    /// Subscriptions of one client.
    pub max_subscriptions: Option<usize>,
    /// Which member of a shared group gets a message.
    pub shared_strategy: SharedStrategy,
    /// Whether `$exclusive/` is offered.
    pub exclusive_subscription: bool,
    /// Whether a 3.x client gets nothing back that it published itself.
    pub ignore_loop_deliver: bool,
    /// Of a session.
    pub session: Arc<Bounds>,
    /// Whether a payload is checked against its Payload Format Indicator.
    pub check_payload_format: bool,
    /// How long a connection may take to send its CONNECT.
    pub idle_timeout: std::time::Duration,
    /// How long a client may take nothing of what is sent to it.
    pub send_timeout: Option<std::time::Duration>,
    /// What the broker as a whole may take.
    pub overload: OverloadProtection,
    /// Who is banned for coming and going.
    pub flapping: FlappingDetect,
    /// How many logins may fail.
    pub attempts: attempts::Policy,
    max_awaiting_rel: usize,
    await_rel_timeout_ms: u64,
}

impl Limits {
    /// From the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mqtt = &settings.mqtt;
        let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let queue = QueueLimits {
            messages_max: mqtt.max_mqueue_len,
            bytes_max: QUEUE_BYTES_MAX,
            wait_ms_max: mqtt
                .message_expiry_interval
                .map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
            when_full: mqtt.mqueue_on_full,
        };
        Self {
            server: ServerLimits {
                max_packet_size: mqtt.max_packet_size,
                max_clientid_len: mqtt.max_clientid_len,
                max_topic_alias: mqtt.max_topic_alias,
                retain_available: mqtt.retain_available,
                wildcard_subscription: mqtt.wildcard_subscription,
                shared_subscription: mqtt.shared_subscription,
                max_qos: mqtt.max_qos_allowed,
                server_keep_alive_seconds: mqtt.server_keepalive,
                max_keep_alive_seconds: mqtt.max_keepalive,
                keep_alive_multiplier: mqtt.keepalive_multiplier,
                session_expiry_v3_seconds: seconds(mqtt.session_expiry_interval),
                max_inflight: mqtt.max_inflight,
                response_information: mqtt.response_information.clone(),
            },
            max_topic_levels: mqtt.max_topic_levels,
            max_subscriptions: mqtt.max_subscriptions,
            shared_strategy: mqtt.shared_subscription_strategy,
            exclusive_subscription: mqtt.exclusive_subscription,
            ignore_loop_deliver: mqtt.ignore_loop_deliver,
            session: Bounds::new(queue, mqtt.mqueue_store_qos0),
            check_payload_format: mqtt.strict_mode,
            idle_timeout: mqtt.idle_timeout,
            send_timeout: mqtt.send_timeout,
            overload: settings.overload_protection.clone(),
            flapping: settings.flapping_detect,
            attempts: attempts_policy(settings),
            max_awaiting_rel: mqtt.max_awaiting_rel,
            await_rel_timeout_ms: u64::try_from(mqtt.await_rel_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What a linked cluster is granted: a window that does not hold it up at any distance, since nothing is kept of a
    /// message of QoS 1 once it was read, and room for the wrapper around the largest message. An older EMQX sends
    /// QoS 2 as such: then the window is that of its unreleased messages.
    #[must_use]
    pub fn of_a_peer(&self) -> Self {
        let mut granted = self.clone();
        granted.server.max_inflight = u16::MAX;
        granted.server.max_packet_size = self.server.max_packet_size.saturating_add(WRAPPER_BYTES);
        granted.max_awaiting_rel = granted.max_awaiting_rel.max(usize::from(u16::MAX));
        granted
    }

    /// What bounds unreleased QoS 2 messages: in 5.0 also the Receive Maximum we announced
    /// (`[MQTT-3.3.4-7]`).
    #[must_use]
    pub fn inbound(&self, version: Version) -> InboundLimits {
        let announced =
            if version == Version::V5 { usize::from(self.server.max_inflight) } else { usize::MAX };
        InboundLimits {
            awaiting_max: self.max_awaiting_rel.min(announced),
            awaiting_ms: self.await_rel_timeout_ms,
        }
    }
}

fn attempts_policy(settings: &Settings) -> attempts::Policy {
    let limits = &settings.authentication.attempts;
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    attempts::Policy {
        enable: limits.enable,
        lockout_failures: limits.lockout_failures,
        lockout_window_ms: ms(limits.lockout_window),
        lockout_ms: ms(limits.lockout_time),
    }
}

impl retained::Retainable for Message {
    fn topic(&self) -> &str {
        self.view().topic
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.expiry().map(Expiry::deadline_mono_ms)
    }

    fn is_same(&self, other: &Self) -> bool {
        Self::is_same(self, other)
    }
}

/// One broker: everything its drivers share.
pub struct Broker {
    /// Who subscribes to what.
    pub routes: Routes,
    /// Retained messages.
    pub retained: RetainedStore<Message, Identity>,
    /// Linked clusters.
    pub links: Links,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// What operators follow.
    pub traces: Traces,
    /// Who came in, who was refused, what administrators did.
    pub events: SecurityLog,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// Clusters that come with a token.
    pub enrolment: Enrolment,
    /// Who is kept out.
    pub banned: Banned,
    /// How near the broker is to what it can take.
    pub load: Load,
    /// What outlives the process is kept here; with `data.durability = "memory"` nothing does.
    pub store: Option<Arc<Store>>,
    flapping: Flapping,
    /// Logins that failed. Locked once or twice for each CONNECT, for no message.
    attempts: Mutex<Attempts>,
    attempts_waiting: AtomicUsize,
    attempt_over: Notify,
    clients: DashMap<Arc<str>, Arc<Client>, RandomState>,
    /// To be read by a scrape; the server owns them.
    io_threads: Box<[IoThread]>,
    sweeper: Sweeper,
    exclusive: Exclusive,
    delayed: DelayedMessages,
    /// What the broker says of itself.
    pub sys: SysTopics,
    policy: RwLock<Arc<Policy>>,
    /// The generation of `policy`, to be compared without its lock.
    policy_generation: AtomicU64,
    limits: RwLock<Arc<Limits>>,
    next_key: AtomicU64,
    stopping: AtomicBool,
}

impl Broker {
    /// A broker that nobody is connected to yet. It does no input or output: whoever makes one drives it.
    #[must_use]
    pub fn new(
        policy: Policy,
        authentication: Authentication,
        limits: Limits,
        io_threads: Box<[IoThread]>,
        store: Option<Arc<Store>>,
        now: Now,
    ) -> Arc<Self> {
        let limits = keep::numbered(limits, store.as_deref());
        Arc::new(Self {
            links: Links::new(store.clone()),
            store,
            routes: Routes::new(),
            retained: RetainedStore::new(RETAINED_MAX),
            metrics: Arc::new(Metrics::new(now)),
            traces: Traces::default(),
            events: SecurityLog::default(),
            authentication,
            enrolment: Enrolment::default(),
            banned: Banned::default(),
            load: Load::default(),
            flapping: Flapping::default(),
            attempts: Mutex::default(),
            attempts_waiting: AtomicUsize::new(0),
            attempt_over: Notify::new(),
            clients: DashMap::default(),
            io_threads,
            sweeper: Sweeper::default(),
            exclusive: Exclusive::default(),
            delayed: DelayedMessages::default(),
            sys: SysTopics::default(),
            policy_generation: AtomicU64::new(policy.generation),
            policy: RwLock::new(Arc::new(policy)),
            limits: RwLock::new(Arc::new(limits)),
            next_key: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        })
    }

    /// Begins a turn in which something may change that outlives the process: before anything is locked, and not across
    /// an await.
    #[inline]
    pub fn begin(&self) -> Option<Burst<'_>> {
        self.store.as_ref().map(|store| store.begin())
    }

    /// What an acknowledgement promises, in the words of `data.durability`.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        self.store.as_ref().map_or("memory", |store| store.mode().name())
    }

    /// Nothing more is stored; nobody waits for what is under way.
    fn end_store(&self) {
        if let Some(store) = &self.store {
            store.end();
        }
    }

    /// The ACL in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read())
    }

    /// Swaps `known` for the ACL in force, if it is another by now. Whether it was.
    pub(crate) fn follow_policy(&self, known: &mut Arc<Policy>) -> bool {
        let swapped = known.generation != self.policy_generation.load(Ordering::Acquire);
        if swapped {
            *known = self.policy();
        }
        swapped
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read())
    }

    /// Whether the broker is shutting down: it accepts nothing new.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Swaps the ACL. Verdicts that connections remember are asked for again. Rules on trial stay there, unless they
    /// were compiled by other settings. The ACL before, and the generation of the new one.
    pub fn set_policy(&self, mut policy: Policy) -> (Arc<Policy>, u64) {
        let mut current = self.policy.write();
        let alike = policy.file.options == current.file.options && policy.no_match == current.no_match;
        policy.shadow = current.shadow.clone().filter(|_| alike);
        self.put_policy(&mut current, policy)
    }

    /// The same, unless another ACL than the one of this generation is in force by now.
    pub(crate) fn swap_policy(&self, policy: Policy, generation: u64) -> Option<u64> {
        let mut current = self.policy.write();
        (current.generation == generation).then(|| self.put_policy(&mut current, policy).1)
    }

    fn put_policy(&self, current: &mut Arc<Policy>, mut policy: Policy) -> (Arc<Policy>, u64) {
        let generation = current.generation + 1;
        policy.generation = generation;
        self.policy_generation.store(generation, Ordering::Release);
        (std::mem::replace(current, Arc::new(policy)), generation)
    }

    /// Swaps the limits. A session's queue and a connection's negotiated values stay as they are.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write() = Arc::new(keep::numbered(limits, self.store.as_deref()));
    }

    /// One line and one count for everything that is denied.
    pub(crate) fn log_denied(&self, identity: &Identity, action: &str, topic: &str, denied: Denied) {
        let kind = if action == "subscribe" { AclAction::Subscribe } else { AclAction::Publish };
        self.metrics.broker.acl_denied[(kind, denied.label())].inc();
        tracing::warn!(
            client_id = &*identity.client_id,
            username = identity.username.as_deref(),
            peer = %identity.peer,
            listener = &*identity.listener,
            action,
            topic,
            reason = denied.name(),
            "not authorized: {denied}"
        );
        let (what, description) = if denied.is_forgery() {
            (What::LinkForgery, format!("{action} {topic}: {denied}"))
        } else {
            (What::AuthzFail { action, topic }, denied.to_string())
        };
        self.security_event(
            &SecurityEvent { description: &description, ..identity.event(what) },
            clock::now(),
        );
    }

    /// Everything as Prometheus text.
    #[must_use]
    pub fn render_metrics(&self, now: Now) -> String {
        let (counts, retained, policy) = (self.routes.counts(), self.retained.counts(), self.policy());
        for link in self.links.all() {
            link.measure(now);
            link.metrics.retained.set(i64::try_from(self.retained.copies(link.id)).unwrap_or(i64::MAX));
        }
        if let Some(store) = &self.store {
            store.measure();
        }
        let (mut queued, mut in_flight) = (0, 0);
        for entry in &self.clients {
            let state = entry.value().lock();
            queued += state.session.queued() as u64;
            in_flight += state.session.in_flight() as u64;
        }
        self.metrics.render(&ScrapeGauges {
            now,
            durability: self.durability(),
            store: self.store.as_ref().map(|store| store.metrics()),
            sessions: self.clients.len() as u64,
            subscriptions: (counts.subscriptions + counts.shared_subscriptions) as u64,
            shared_subscriptions: counts.shared_subscriptions as u64,
            retained_messages: retained.messages as u64,
            retained_bytes: retained.bytes as u64,
            retained_withheld: retained.withheld as u64,
            queued_messages: queued,
            inflight_messages: in_flight,
            banned: self.banned.len() as u64,
            acl_rules: policy.rules.len() as u64,
            acl_generation: policy.generation,
            awaited: self.enrolment.awaited(),
            io_busy_seconds: self.io_threads.iter().map(|thread| thread.busy().as_secs_f64()).collect(),
        })
    }
}
