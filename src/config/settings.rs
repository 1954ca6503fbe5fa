//! The settings as used: plain values, checked, with every default filled in (`interface.md` section 2).
//!
//! Nothing here knows TOML, serde or a file: other modules take the part that concerns them. A value that
//! exists here has passed the checks of `config::check`, so a driver need not look again.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::mqtt::packet::QoS;
use crate::session::queue::WhenFull;

pub use self::authentication::Attempts;
pub use self::authentication::Authentication;
pub use self::authentication::Authenticator;
pub use self::authentication::HttpCallout;
pub use self::authentication::HttpTarget;
pub use self::authentication::Jwt;
pub use self::authentication::JwtKeys;
pub use self::cipher::CipherSuite;
pub use self::link::ClientTls;
pub use self::link::DialledBy;
pub use self::link::Export;
pub use self::link::Link;
pub use self::link::Linking;
pub use self::link::OnFull;
pub use self::link::Peer;
pub use self::link::Quota;
pub use self::link::Spool;
pub use self::link::Told;
pub use self::link::Trust;
pub use self::link::Written;
pub use self::network::Network;
pub use self::protection::FlappingDetect;
pub use self::protection::MemoryCeiling;
pub use self::protection::OverloadProtection;
pub use self::rate::Rate;
pub use self::rate::RateLimits;
pub(crate) use self::secret::MASK;
pub use self::secret::Secret;
pub use self::tls::CrlCache;
pub use self::tls::CrlSource;
pub use self::tls::KeyUsage;
pub use self::tls::ListenerTls;
pub use self::tls::Ocsp;
pub use self::tls::PartialChain;
pub use self::tls::PeerCertAs;
pub use self::tls::TlsVersions;
pub use self::tls::Verify;
pub use self::url::HttpUrl;
pub use self::url::without_query;
pub use crate::trust::address::ServerAddr;

mod authentication;
mod cipher;
mod link;
mod network;
mod protection;
mod rate;
mod secret;
mod tls;
mod url;

/// Everything a broker is told before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[data]`
    pub data: Data,
    /// `[io]`
    pub io: Io,
    /// `[[listeners]]`, in the order of the file; disabled ones included.
    pub listeners: Vec<Listener>,
    /// `[link]`
    pub link: Linking,
    /// `[crl_cache]`
    pub crl_cache: CrlCache,
    /// `[mqtt]`
    pub mqtt: Mqtt,
    /// `[overload_protection]`
    pub overload_protection: OverloadProtection,
    /// `[flapping_detect]`
    pub flapping_detect: FlappingDetect,
    /// `[authentication]`
    pub authentication: Authentication,
    /// `[authorization]`
    pub authorization: Authorization,
    /// `[http]`
    pub http: Http,
    /// `[log]`
    pub log: Log,
    /// The embedded default is in force: no file was given (`interface.md` section 6).
    pub embedded: bool,
}

/// `[cluster]`: who we are, and whom we are linked with.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The name in `$LINK` topics: `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`.
    pub name: String,
    /// Names this node's replication actor.
    pub node: String,
    /// `[[cluster.links]]`, in the order of the file; disabled ones included.
    pub links: Vec<Link>,
}

/// `[data]`: what outlives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The data directory.
    pub dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Above it nothing is taken any more that has to be kept; `None` is as long as the disk has room.
    pub max_bytes: Option<u64>,
}

/// `[io]`: the threads that do input and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Io {
    /// How many there may be; `None`: one for each core.
    pub threads: Option<usize>,
    /// Which of them gets a new connection.
    pub placement: Placement,
}

/// Which thread gets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The first one that is not busy.
    Fill,
    /// Each in turn.
    Spread,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk.
    Fsync,
    /// The operating system has it.
    Write,
    /// It is in memory.
    Memory,
}

/// One `[[listeners]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, unique among listeners of its type.
    pub name: String,
    /// The transport.
    pub kind: ListenerKind,
    /// Where it accepts.
    pub bind: Bind,
    /// Who may connect here.
    pub role: Role,
    /// Whether it is opened at all.
    pub enable: bool,
    /// Connections accepted at one time.
    pub max_connections: u32,
    /// Connections accepted per time; `None` is any number.
    pub max_conn_rate: Option<Rate>,
    /// Whether a PROXY header opens each connection.
    pub proxy_protocol: bool,
    /// Whose PROXY header is believed; not empty with `proxy_protocol`.
    pub proxy_trusted: Vec<Network>,
    /// Lets a listener of role link or any go below the link column of `authn-tls.md` section 1.
    pub allow_insecure: bool,
    /// Whether clients of this listener are authenticated (`authn.enable`).
    pub authn_enable: bool,
    /// What each of its connections may send.
    pub limits: RateLimits,
    /// TLS: present exactly when the type is `ssl` or `wss`.
    pub ssl: Option<ListenerTls>,
}

impl Listener {
    /// `<type>:<name>`, as `{listener, …}` of an ACL file sees it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind, self.name)
    }
}

/// The transport of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerKind {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Ssl,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// MQTT over a Unix domain socket.
    Unix,
}

impl ListenerKind {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::Wss)
    }
}

impl fmt::Display for ListenerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Ssl => "ssl",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        })
    }
}

/// Where a listener accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// An address and a port; port 0 lets the operating system choose.
    Addr(SocketAddr),
    /// A path of a Unix domain socket.
    Path(PathBuf),
}

impl Bind {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Addr(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Path(_) => true,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// Who may connect to a listener; only `Link` and `Any` accept `$LINK` traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Applications and devices.
    Client,
    /// Linked clusters.
    Link,
    /// Both, as EMQX does it.
    Any,
}

impl Role {
    /// Whether linked clusters connect here.
    #[must_use]
    pub fn accepts_links(self) -> bool {
        matches!(self, Self::Link | Self::Any)
    }
}

/// `[mqtt]`: EMQX's names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// The longest Control Packet accepted, in bytes.
    pub max_packet_size: u32,
    /// The longest Client Identifier accepted, in bytes.
    pub max_clientid_len: usize,
    /// The most levels a Topic Name or Topic Filter may have.
    pub max_topic_levels: usize,
    /// Topic Alias Maximum we announce.
    pub max_topic_alias: u16,
    /// Retain Available.
    pub retain_available: bool,
    /// Wildcard Subscription Available.
    pub wildcard_subscription: bool,
    /// Shared Subscription Available.
    pub shared_subscription: bool,
    /// Maximum QoS.
    pub max_qos_allowed: QoS,
    /// Server Keep Alive in seconds, for 5.0; `None` leaves the client's own.
    pub server_keepalive: Option<u16>,
    /// The longest Keep Alive in seconds that a client may have; `None` takes any, and none at all.
    pub max_keepalive: Option<u16>,
    /// A connection is closed after this many Keep Alive intervals of silence.
    pub keepalive_multiplier: f64,
    /// How long a connection may wait before CONNECT.
    pub idle_timeout: Duration,
    /// Session Expiry Interval of MQTT 3.x clients without a clean session.
    pub session_expiry_interval: Duration,
    /// Messages of QoS 1 and 2 in flight towards a client (and our Receive Maximum).
    pub max_inflight: u16,
    /// Messages queued for a client.
    pub max_mqueue_len: usize,
    /// Whether messages of QoS 0 are queued for a client that is away.
    pub mqueue_store_qos0: bool,
    /// What goes when a client's queue is full.
    pub mqueue_on_full: WhenFull,
    /// How long a client may take nothing of what is sent to it; `None` is any time.
    pub send_timeout: Option<Duration>,
    /// QoS 2 messages from one client whose PUBREL is awaited.
    pub max_awaiting_rel: usize,
    /// How long a PUBREL is awaited.
    pub await_rel_timeout: Duration,
    /// Subscriptions of one client; `None` is unlimited.
    pub max_subscriptions: Option<usize>,
    /// Which member of a shared group gets a message.
    pub shared_subscription_strategy: SharedStrategy,
    /// Whether `$exclusive/` subscriptions are offered.
    pub exclusive_subscription: bool,
    /// How long a message without a Message Expiry Interval may wait for a client; `None` is without end.
    pub message_expiry_interval: Option<Duration>,
    /// No Local for MQTT 3.x: no client gets back what it published itself.
    pub ignore_loop_deliver: bool,
    /// Response Information for clients that ask for it; empty is none.
    pub response_information: String,
    /// Whether payloads are checked against their Payload Format Indicator. What the standard calls malformed is
    /// refused either way.
    pub strict_mode: bool,
}

/// Which member of a shared group gets a message. EMQX's `local` prefers members on the same node; there is one
/// node, so it is [`SharedStrategy::Random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedStrategy {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The same for as long as it is there.
    Sticky,
    /// By the publisher's Client Identifier.
    HashClientId,
    /// By the Topic Name.
    HashTopic,
}

/// `[authorization]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Where the rules come from.
    pub file: AclSource,
    /// The verdict when no rule matches.
    pub no_match: Permission,
    /// What happens to the connection when an action is denied.
    pub deny_action: DenyAction,
    /// How entries cover filters (`acl-language.md` section 3).
    pub mode: AclMode,
    /// What `{security_profile, …}` in a file sees.
    pub security_profile: SecurityProfile,
}

/// Where the rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclSource {
    /// A file.
    File(PathBuf),
    /// The shipped `acl/acl.conf`, [`SHIPPED_ACL`].
    Embedded,
}

/// `acl/acl.conf` as shipped.
pub const SHIPPED_ACL: &str = include_str!("../../acl/acl.conf");

/// Allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Allow.
    Allow,
    /// Deny.
    Deny,
}

/// What happens to the connection when an action is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyAction {
    /// Only the action fails.
    Ignore,
    /// DISCONNECT 0x87.
    Disconnect,
}

/// How allow and deny entries cover filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclMode {
    /// Allow needs a subset, deny needs an intersection.
    Strict,
    /// As EMQX does it.
    Emqx,
}

/// What `{security_profile, …}` sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProfile {
    /// `legacy`
    Legacy,
    /// `hardened`
    Hardened,
}

/// `[http]`: REST, health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it accepts.
    pub bind: SocketAddr,
    /// Whether `/metrics` needs a key; forced when `bind` is not loopback.
    pub metrics_auth: bool,
    /// Whether `/metrics/emqx` is there.
    pub metrics_emqx: bool,
    /// A socket for whoever may look: members of its folder's group, if that is set-group-ID.
    pub viewer_socket: Option<PathBuf>,
    /// The same over TLS, on another address.
    pub ssl: Option<HttpTls>,
}

/// `[http.ssl]`: TLS 1.3, where operators are known by their certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTls {
    /// Where it accepts.
    pub bind: SocketAddr,
    /// Our certificate and its chain, PEM; absent with its key: the link certificate.
    pub certfile: Option<PathBuf>,
    /// Its private key, PEM.
    pub keyfile: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter.
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
    /// Whether security events are written to a file in the data directory.
    pub security_file: bool,
    /// Bytes of that file and those it was before, together.
    pub security_file_max_bytes: u64,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object each.
    Json,
}
