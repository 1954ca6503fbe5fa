//! Every metric, declared once: name, help, labels (interface.md section 4, observability.md). One [`Metrics`] per
//! broker, shared by `Arc`; there are no globals. What is cheaper to read than to count is handed in at scrape time
//! as [`ScrapeGauges`].

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::auth::DenyReason;
use crate::auth::attempts::Held;
use crate::auth::peer::Refusal;
use crate::metrics::labels::AclAction;
use crate::metrics::labels::AclReason;
use crate::metrics::labels::BootstrapReason;
use crate::metrics::labels::ByteKind;
use crate::metrics::labels::CertificateSide;
use crate::metrics::labels::ConsumerKind;
use crate::metrics::labels::Direction;
use crate::metrics::labels::DisconnectReason;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::EnrolmentOutcome;
use crate::metrics::labels::LentOutcome;
use crate::metrics::labels::LinkDropReason;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::LoadLevel;
use crate::metrics::labels::Outcome;
use crate::metrics::labels::PacketType;
use crate::metrics::labels::ReconnectReason;
use crate::metrics::labels::RejectReason;
use crate::metrics::labels::RouteKind;
use crate::metrics::labels::RouteOp;
use crate::metrics::labels::SecurityEvent;
use crate::metrics::labels::SlowReason;
use crate::metrics::labels::StoreTrouble;
use crate::metrics::labels::ThrottleReason;
use crate::metrics::series::Counter;
use crate::metrics::series::CounterSet;
use crate::metrics::series::Families;
use crate::metrics::series::Gauge;
use crate::metrics::series::GaugeSet;
use crate::metrics::series::Ratio;
use crate::metrics::series::Row;
use crate::metrics::series::SecondsGauge;
use crate::metrics::series::SecondsHistogram;
use crate::metrics::series::Set;
use crate::metrics::series::StateGauge;
use crate::mqtt::packet::QoS;
use crate::time::Now;

pub mod labels;
pub mod series;

/// Values read when somebody asks, because counting them along the way would cost more.
#[derive(Debug, Clone, Default)]
pub struct ScrapeGauges<'a> {
    /// The moment of the scrape.
    pub now: Now,
    /// The promise an acknowledgement makes: `fsync`, `write` or `memory`.
    pub durability: &'a str,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Subscriptions, shared ones included.
    pub subscriptions: u64,
    /// Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Retained Messages.
    pub retained_messages: u64,
    /// Bytes of their topics and payloads.
    pub retained_bytes: u64,
    /// Retained messages that are withheld because their publishers lost the right to their topics.
    pub retained_withheld: u64,
    /// Messages waiting in Session queues.
    pub queued_messages: u64,
    /// Messages sent and not yet acknowledged.
    pub inflight_messages: u64,
    /// Rules of the authorisation file in force.
    pub acl_rules: u64,
    /// How often the rules were swapped.
    pub acl_generation: u64,
    /// Clusters that a token is pending for, by name.
    pub awaited: Vec<String>,
    /// How long each thread for input and output has worked, in seconds.
    pub io_busy_seconds: Vec<f64>,
    /// Bans in force.
    pub banned: u64,
    /// The store, if there is one.
    pub store: Option<&'a StoreMetrics>,
}

/// Fields of atomics, each with the name and help of its family, and the code that shows them.
macro_rules! families {
    ($(#[$doc:meta])* $owner:ident { $($field:ident: $series:ty = $name:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $owner {
            $(#[doc = $help] pub $field: $series,)+
        }

        impl $owner {
            /// Adds every family once, with the samples of all `rows`.
            fn collect(rows: &[Row<'_, Self>], out: &mut Families) {
                $({
                    let rows: Vec<_> =
                        rows.iter().map(|row| Row { labels: row.labels, series: &row.series.$field }).collect();
                    out.add($name, $help, &rows);
                })+
            }
        }
    };
}

families! {
    /// The broker's own series, to be counted where the thing happens.
    BrokerMetrics {
        connections: GaugeSet<ListenerType, { ListenerType::COUNT }> =
            "connections", "Clients connected now, by listener type.";
        connections_accepted: CounterSet<ListenerType, { ListenerType::COUNT }> =
            "connections_total", "Network Connections accepted, by listener type.";
        connections_rejected: CounterSet<RejectReason, { RejectReason::COUNT }> =
            "connections_rejected_total", "Network Connections that did not become a client's, by reason.";
        enrolments: CounterSet<EnrolmentOutcome, { EnrolmentOutcome::COUNT }> =
            "link_enrolments_total", "Enrolments of other clusters, by what became of them on the wire.";
        lent: CounterSet<LentOutcome, { LentOutcome::COUNT }> =
            "link_lent_connections_total", "Connections that peers which alone can dial have lent us, by what became of them.";
        disconnects: CounterSet<DisconnectReason, { DisconnectReason::COUNT }> =
            "disconnects_total", "Clients disconnected, by reason.";
        slow_consumers: CounterSet<(ConsumerKind, SlowReason), { ConsumerKind::COUNT * SlowReason::COUNT }> =
            "slow_consumers_disconnected_total", "Connections ended because their clients did not take what was sent to them.";
        load_level: StateGauge<LoadLevel> =
            "overload_memory_level", "How near the broker's memory is to its ceiling: 1 for the level it is at.";
        memory_resident: Gauge =
            "memory_resident_bytes", "Memory of the process that is resident; 0 where that cannot be read.";
        memory_ceiling: Gauge =
            "memory_ceiling_bytes", "The memory ceiling of the broker; 0 without one.";
        lag: SecondsGauge =
            "io_lag_seconds", "How late the I/O thread came to its last timer.";
        lagging: Gauge =
            "overload_lag", "Whether new clients are refused because the I/O thread is late.";
        flapping_bans: Counter =
            "flapping_bans_total", "Clients banned because they came and went all the time.";
        flapping_untracked: Counter =
            "flapping_untracked_total", "Connections whose ends were not counted because too many clients are watched already.";
        throttled: CounterSet<ThrottleReason, { ThrottleReason::COUNT }> =
            "throttled_total", "Times that a connection was not read because it was over a rate, by rate.";
        messages_received: CounterSet<QoS, 3> =
            "messages_received_total", "Application Messages received from clients.";
        messages_sent: CounterSet<QoS, 3> =
            "messages_sent_total", "Application Messages sent to clients.";
        messages_dropped: CounterSet<DropReason, { DropReason::COUNT }> =
            "messages_dropped_total", "Application Messages not delivered, by reason.";
        bytes_received: Counter =
            "bytes_received_total", "Bytes of Control Packets received from clients.";
        bytes_sent: Counter =
            "bytes_sent_total", "Bytes of Control Packets sent to clients.";
        packets_received: CounterSet<PacketType, { PacketType::COUNT }> =
            "packets_received_total", "Control Packets received from clients, by type.";
        packets_sent: CounterSet<PacketType, { PacketType::COUNT }> =
            "packets_sent_total", "Control Packets sent to clients, by type.";
        authentication_failures: CounterSet<DenyReason, { DenyReason::ALL.len() }> =
            "authentication_failures_total", "Clients refused by authentication, by reason.";
        authentication_held: CounterSet<Held, { Held::ALL.len() }> =
            "authentication_held_total", "Logins that were refused unverified because too many failed before, by what was counted.";
        authentication_lockouts: Counter =
            "authentication_lockouts_total", "Usernames locked out because too many logins failed with them.";
        authentication_forgotten: Counter =
            "authentication_attempts_forgotten_total", "Counts of failed logins that were forgotten to make room for others.";
        jwks_fetches: CounterSet<Outcome, { Outcome::COUNT }> =
            "jwks_fetches_total", "Fetches of the keys of tokens.";
        peer_refusals: CounterSet<Refusal, { Refusal::ALL.len() }> =
            "peer_refusals_total", "Connections refused because they acted as a peer cluster without its full proof, by reason.";
        link_certificate_expiry: SecondsGauge =
            "link_certificate_expiry_timestamp_seconds", "When the link certificate expires; 0 if there is none.";
        security_events: CounterSet<SecurityEvent, { SecurityEvent::COUNT }> =
            "security_events_total", "Security events, those that were left out of the log included, by name.";
        security_events_suppressed: Counter =
            "security_events_suppressed_total", "Refusals left out of the security event log because their source had too many.";
        security_events_unwritten: Counter =
            "security_events_unwritten_total", "Security events that could not be written to their file.";
        acl_denied: CounterSet<(AclAction, AclReason), { AclAction::COUNT * AclReason::COUNT }> =
            "acl_denied_total", "Publishes and subscriptions denied, by what denied them.";
        acl_reloads: CounterSet<Outcome, { Outcome::COUNT }> =
            "acl_reloads_total", "Reloads of the authorisation file.";
        config_reloads: CounterSet<Outcome, { Outcome::COUNT }> =
            "config_reloads_total", "Reloads of the configuration file.";
    }
}

families! {
    /// The series of one link, labelled with its peer cluster. Held by the link's tasks.
    LinkMetrics {
        up: Gauge = "link_up", "Whether the link is active.";
        state: StateGauge<LinkState> = "link_state", "State of the link: 1 for the one it is in.";
        connections: GaugeSet<Direction, { Direction::COUNT }> =
            "link_connections", "Connections of the link: in, dialled by the peer; out, dialled by us.";
        reconnects: CounterSet<ReconnectReason, { ReconnectReason::COUNT }> =
            "link_reconnects_total", "Connections to the peer that had to be made again, by reason.";
        last_success: SecondsGauge =
            "link_last_success_timestamp_seconds", "When the peer last acknowledged something; 0 if never.";
        backoff: SecondsGauge =
            "link_backoff_seconds", "Time between attempts to connect; 0 while connected.";
        messages: CounterSet<(Direction, QoS), { Direction::COUNT * 3 }> =
            "link_messages_total", "Application Messages that crossed the link: out, once acknowledged.";
        bytes: CounterSet<(Direction, ByteKind), { Direction::COUNT * ByteKind::COUNT }> =
            "link_bytes_total", "Bytes that crossed the link: raw, payloads; wire, the connection's.";
        messages_dropped: CounterSet<(Direction, LinkDropReason), { Direction::COUNT * LinkDropReason::COUNT }> =
            "link_messages_dropped_total", "Application Messages that did not cross the link, by reason.";
        retries: Counter = "link_retries_total", "Application Messages sent to the peer again.";
        duplicates_suppressed: Counter =
            "link_duplicates_suppressed_total", "Application Messages that the peer sent again and that were not delivered again.";
        pauses: Counter =
            "link_pauses_total", "Times the peer was not read for a moment because a local client's queue was more than half full.";
        spool_messages: Gauge = "link_spool_messages", "Application Messages waiting for the peer.";
        spool_bytes: Gauge = "link_spool_bytes", "Bytes of the messages waiting for the peer.";
        spool_capacity: Gauge = "link_spool_capacity_bytes", "Bytes that may wait for the peer: spool.max_bytes.";
        spool_oldest_age: SecondsGauge =
            "link_spool_oldest_age_seconds", "How long the oldest message that is not acknowledged has been here; 0 if there is none.";
        retained: Gauge =
            "link_retained_messages", "Retained Messages that are copies of the peer's.";
        inflight_limit: Gauge =
            "link_inflight_limit", "Application Messages that may be sent and not yet acknowledged, over all connections there are.";
        inflight: Gauge = "link_inflight", "Application Messages sent to the peer and not yet acknowledged.";
        routes: GaugeSet<(Direction, RouteKind), { Direction::COUNT * RouteKind::COUNT }> =
            "link_routes", "Routes: in, what the peer wants of us; out, what we want of it.";
        routes_refused: Counter =
            "link_routes_refused_total", "Routes of the peer that have nothing in common with the link's export.";
        route_ops: CounterSet<RouteOp, { RouteOp::COUNT }> =
            "link_route_ops_total", "Route updates sent to the peer.";
        bootstraps: CounterSet<BootstrapReason, { BootstrapReason::COUNT }> =
            "link_bootstraps_total", "Bootstraps of all routes sent to the peer, by reason.";
        cert_expiry: Set<SecondsGauge, CertificateSide, { CertificateSide::COUNT }> =
            "link_cert_expiry_timestamp_seconds", "When certificates of the link expire: local, ours; remote, of the peer's listener; remote_client, what the peer dials us with; pinned, by which it is trusted; 0 if not known.";
        rtt: SecondsHistogram =
            "link_rtt_seconds", "Round trips of heartbeats to a peer that answers them: sent until acknowledged.";
        lag: SecondsHistogram =
            "link_lag_seconds", "From the broker's taking an Application Message until the peer's acknowledgement.";
        route_sync_lag: SecondsGauge =
            "link_route_sync_lag_seconds", "How long the oldest change of our routes has waited for the peer's acknowledgement; 0 if it knows all.";
        route_digest_mismatch: Gauge =
            "link_route_digest_mismatch", "Whether the peer knew other routes of ours than it was told, when both were last compared.";
        overforward_ratio: Ratio =
            "link_overforward_ratio", "Share of the peer's Application Messages that nobody here had subscribed to.";
        ledger_unaccounted: Gauge =
            "link_ledger_unaccounted_messages", "Accepted for the peer less acknowledged, waiting and dropped, and what its books and ours differ by: must be 0.";
    }
}

families! {
    /// The series of the store: counted by it, measured when somebody asks. All at zero where there is none.
    StoreMetrics {
        bytes: Gauge = "store_bytes", "Bytes of the store on disk.";
        live_bytes: Gauge = "store_live_bytes", "Bytes of the store that are still wanted; the rest is given back by and by.";
        max_bytes: Gauge = "store_max_bytes", "With more bytes the store takes nothing that has to be kept: data.max_bytes; 0 without a bound.";
        entries: Gauge = "store_entries", "Entries in the store: sessions, subscriptions, what is owed to them, retained messages and so on.";
        bodies: Gauge = "store_bodies", "Messages in the store, each once however many entries refer to it.";
        segments: Gauge = "store_segments", "Files of the store.";
        waiting_bytes: Gauge = "store_waiting_bytes", "Bytes of changes that are not committed yet.";
        trouble: GaugeSet<StoreTrouble, { StoreTrouble::COUNT }> =
            "store_trouble", "Whether nothing that has to be kept is taken, by what is wrong with the store.";
        commits: Counter = "store_commits_total", "Groups of changes committed.";
        commit_time: SecondsHistogram = "store_commit_seconds", "How long commits took that worked.";
        records: Counter = "store_records_total", "Changes in them.";
        written: Counter = "store_written_bytes_total", "Bytes of the changes committed.";
        failures: Counter = "store_failures_total", "Commits that failed; each is tried again.";
        damaged: Counter =
            "store_damaged_records_total", "Records that were found to be damaged since the start, and set aside.";
    }
}

families! {
    /// The series of one listener with TLS, labelled with its id.
    ListenerMetrics {
        cert_expiry: SecondsGauge =
            "listener_cert_expiry_timestamp_seconds", "When the certificate of the listener expires.";
        crl_next_update: SecondsGauge =
            "listener_crl_next_update_timestamp_seconds", "Until when the revocation lists of the listener are current; 0 if it has none.";
    }
}

impl Default for StateGauge<LoadLevel> {
    fn default() -> Self {
        Self::new(LoadLevel::Normal)
    }
}

impl Default for StateGauge<LinkState> {
    fn default() -> Self {
        Self::new(LinkState::Connecting)
    }
}

impl LinkMetrics {
    /// When a certificate expires, in seconds since the Unix epoch; `None` if there is none.
    pub fn note_expiry(&self, side: CertificateSide, at_unix: Option<i64>) {
        let seconds = at_unix.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        self.cert_expiry[side].set_ms(seconds.saturating_mul(1000));
    }

    /// Moves `link_state` and `link_up` together.
    pub fn set_state(&self, state: LinkState) {
        self.state.set(state);
        self.up.set(i64::from(state == LinkState::Active));
    }
}

/// All metrics of one broker.
#[derive(Debug)]
pub struct Metrics {
    /// Series of the broker itself.
    pub broker: BrokerMetrics,
    started: Now,
    links: RwLock<BTreeMap<String, Arc<LinkMetrics>>>,
    listeners: RwLock<BTreeMap<String, Arc<ListenerMetrics>>>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new(started: Now) -> Self {
        Self {
            broker: BrokerMetrics::default(),
            started,
            links: RwLock::default(),
            listeners: RwLock::default(),
        }
    }

    /// The series of the link to `peer`, made on first use.
    #[must_use]
    pub fn link(&self, peer: &str) -> Arc<LinkMetrics> {
        if let Some(link) = self.links.read().get(peer) {
            return Arc::clone(link);
        }
        Arc::clone(self.links.write().entry(peer.to_owned()).or_default())
    }

    /// Forgets the link to `peer`: its series vanish from the next scrape.
    pub fn remove_link(&self, peer: &str) {
        self.links.write().remove(peer);
    }

    /// The series of the listener with this id, made on first use.
    #[must_use]
    pub fn listener(&self, id: &str) -> Arc<ListenerMetrics> {
        Arc::clone(self.listeners.write().entry(id.to_owned()).or_default())
    }

    /// Forgets the listeners that `keep` does not know.
    pub fn keep_listeners(&self, keep: impl Fn(&str) -> bool) {
        self.listeners.write().retain(|id, _| keep(id));
    }

    /// Everything as Prometheus text.
    #[must_use]
    pub fn render(&self, gauges: &ScrapeGauges<'_>) -> String {
        let mut families = Families::default();
        self.collect_process(gauges, &mut families);
        BrokerMetrics::collect(&[Row { labels: &[], series: &self.broker }], &mut families);
        collect_scraped(gauges, &mut families);
        let none = StoreMetrics::default();
        let store = gauges.store.unwrap_or(&none);
        StoreMetrics::collect(&[Row { labels: &[], series: store }], &mut families);
        let links: Vec<_> =
            self.links.read().iter().map(|(peer, link)| (peer.clone(), Arc::clone(link))).collect();
        let labels: Vec<_> = links.iter().map(|(peer, _)| [("peer", peer.as_str())]).collect();
        let rows: Vec<_> =
            links.iter().zip(&labels).map(|((_, link), labels)| Row { labels, series: &**link }).collect();
        LinkMetrics::collect(&rows, &mut families);
        collect_awaited(&gauges.awaited, &mut families);
        self.collect_listeners(&mut families);
        families.encode()
    }

    fn collect_listeners(&self, out: &mut Families) {
        let listeners = self.listeners.read();
        let labels: Vec<_> = listeners.keys().map(|id| [("listener", id.as_str())]).collect();
        let rows: Vec<_> =
            listeners.values().zip(&labels).map(|(one, labels)| Row { labels, series: &**one }).collect();
        ListenerMetrics::collect(&rows, out);
    }

    fn collect_process(&self, gauges: &ScrapeGauges<'_>, out: &mut Families) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauge("build_info", "Version of the running program.", &version, 1.0);
        let started = self.started.unix_ms as f64 / 1000.0;
        out.gauge("start_time_seconds", "When the broker started, since the Unix epoch.", &[], started);
        let uptime = gauges.now.mono_ms.saturating_sub(self.started.mono_ms) as f64 / 1000.0;
        out.gauge("uptime_seconds", "Time since the broker started.", &[], uptime);
        let durability = [("mode", gauges.durability)];
        out.gauge("durability_info", "What an acknowledgement promises.", &durability, 1.0);
    }
}

/// Clusters that have no link as a rule, and so no series of one.
fn collect_awaited(peers: &[String], out: &mut Families) {
    let pending = Gauge::default();
    pending.set(1);
    let labels: Vec<_> = peers.iter().map(|peer| [("peer", peer.as_str())]).collect();
    let rows: Vec<_> = labels.iter().map(|labels| Row { labels, series: &pending }).collect();
    out.add("link_token_pending", "Whether a token for the cluster is out; absent if not.", &rows);
}

fn collect_scraped(gauges: &ScrapeGauges<'_>, out: &mut Families) {
    let mut gauge = |name, help, value: u64| out.gauge(name, help, &[], value as f64);
    gauge("sessions", "Sessions, connected or not.", gauges.sessions);
    gauge("subscriptions", "Subscriptions, shared ones included.", gauges.subscriptions);
    gauge("shared_subscriptions", "Shared Subscriptions.", gauges.shared_subscriptions);
    gauge("retained_messages", "Retained Messages.", gauges.retained_messages);
    gauge(
        "retained_withheld_messages",
        "Retained Messages that are withheld because their publishers may not publish them any more.",
        gauges.retained_withheld,
    );
    gauge("retained_bytes", "Bytes of the Retained Messages' topics and payloads.", gauges.retained_bytes);
    gauge("queued_messages", "Application Messages waiting in Session queues.", gauges.queued_messages);
    gauge(
        "inflight_messages",
        "Application Messages sent and not yet acknowledged.",
        gauges.inflight_messages,
    );
    gauge("banned", "Bans in force.", gauges.banned);
    gauge("acl_rules", "Rules of the authorisation file in force.", gauges.acl_rules);
    gauge(
        "acl_generation",
        "How often the rules in force were swapped since the start.",
        gauges.acl_generation,
    );
    out.threads(
        "io_busy_seconds_total",
        "How long each thread for input and output has worked.",
        &gauges.io_busy_seconds,
    );
}

#[cfg(test)]
mod tests;
