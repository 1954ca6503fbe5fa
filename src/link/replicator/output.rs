//! What a replicator tells its driver and the operator: states, problems, and things to do.

use std::sync::Arc;

use crate::link::extension::Capabilities;
use crate::link::extension::Received;
use crate::link::replicator::ACK_TIMEOUT_MS;
use crate::link::replicator::CONNECT_TIMEOUT_MS;
use crate::link::replicator::PUBACK_TIMEOUT_MS;
use crate::link::retained::PAGE_TIMEOUT_MS;
use crate::link::retained::Page;
use crate::mqtt::packet::QoS;

/// Where replication stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Not started, or stopped.
    Stopped,
    /// Waiting for the next attempt.
    Disconnected,
    /// The driver is connecting.
    Connecting,
    /// Subscribed or about to, actor_init sent or about to.
    Handshaking,
    /// The snapshot is on its way.
    Bootstrapping,
    /// The peer has every route of ours; changes follow as they come.
    Online,
    /// Taking our routes back before closing.
    Stopping,
}

impl State {
    /// The word EMQX uses, for logs and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Handshaking => "handshaking",
            Self::Bootstrapping => "bootstrapping",
            Self::Online => "online",
            Self::Stopping => "stopping",
        }
    }
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The peer answered actor_init with an error: `unknown_cluster`, `cluster_link_disabled`,
    /// `bad_remote_cluster_link_name` or another.
    #[error("rejected: {0}")]
    Rejected(String),
    /// The peer cannot do this, and could when it enrolled.
    #[error("refused: the peer can do less than when it enrolled, it lacks {}", .0.names().collect::<Vec<_>>().join(", "))]
    Less(Capabilities),
    /// The peer refused the subscription to our response topic.
    #[error("subscription refused with reason code {0:#04x}")]
    SubscribeRefused(u8),
    /// The peer refused a control operation, 0x87 for instance.
    #[error("publish refused with reason code {0:#04x}")]
    PublishRefused(u8),
    /// The peer closed the connection with this reason code; 0x83 is its answer to a protocol error.
    #[error("disconnected by the peer with reason code {0:#04x}")]
    Disconnected(u8),
    /// The connection could not be made, or broke.
    #[error("connection lost")]
    ConnectionLost,
    /// No connection in time.
    #[error("no connection within {CONNECT_TIMEOUT_MS} ms")]
    ConnectTimeout,
    /// No SUBACK, PUBACK or actor_init_ack in time.
    #[error("no answer to the handshake within {ACK_TIMEOUT_MS} ms")]
    AckTimeout,
    /// No PUBACK for a route update in time.
    #[error("no acknowledgement of a route update within {PUBACK_TIMEOUT_MS} ms")]
    PubackTimeout,
    /// The peer's ack could not be read.
    #[error("unreadable actor_init_ack")]
    UnreadableAck,
    /// More changes than the queue holds: starting over.
    #[error("too many pending route changes")]
    Overflow,
    /// The peer knows other routes of us than we have told: starting over.
    #[error("the peer knows other routes of ours than it was told")]
    RoutesDiffer,
    /// No answer to a request for retained messages in time.
    #[error("no page of retained messages within {PAGE_TIMEOUT_MS} ms")]
    PageTimeout,
    /// The answer is none.
    #[error("a page of other retained messages than were asked for")]
    WrongPage,
}

/// How much of the peer's words is kept.
pub(super) const REASON_CHARS_MAX: usize = 200;

impl Problem {
    /// The peer's reason for a rejection. It ends up in the log, so nothing in it may look like more than text.
    pub(super) fn rejected(reason: &str) -> Self {
        Self::Rejected(reason.chars().flat_map(char::escape_debug).take(REASON_CHARS_MAX).collect())
    }
}

/// A control operation to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPublish {
    /// Hand this back with the PUBACK. Zero for QoS 0.
    pub token: u32,
    /// Outer QoS.
    pub qos: QoS,
    /// Topic Name.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Response Topic, on actor_init.
    pub response_topic: Option<Arc<str>>,
    /// Correlation Data, on actor_init.
    pub correlation_data: Option<[u8; 16]>,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect: MQTT 5, Clean Start, no session expiry. Then `handle_connected` or `handle_disconnected`.
    Connect,
    /// Subscribe at QoS 1. Then `handle_subscribed`.
    Subscribe {
        /// Our response topic.
        filter: Arc<str>,
    },
    /// Publish. For QoS 1 then `handle_puback`.
    Publish(ControlPublish),
    /// Take a snapshot of the local subscriptions, then `handle_snapshot`. Changes made after it was taken
    /// must be reported after it was handed in.
    RequestSnapshot,
    /// Make a report, then `handle_report`.
    RequestReport,
    /// A heartbeat and its acknowledgement took so long.
    RoundTrip {
        /// Milliseconds.
        ms: u64,
    },
    /// What the peer has of the messages that our report named.
    Received(Received),
    /// Our routes and those that the peer knows of us were compared.
    RoutesCompared {
        /// They differ, and not for the first time.
        differ: bool,
    },
    /// Take note of what comes live from here on, and publish: it asks for a page of retained messages.
    AskPage(ControlPublish),
    /// Apply this page, then `handle_applied`.
    Page(Box<Page>),
    /// Send DISCONNECT and close; `None` for a clean stop.
    Close(Option<Problem>),
    /// For the operator's eyes.
    StateChanged(State),
}
