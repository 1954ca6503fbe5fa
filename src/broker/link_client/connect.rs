//! How an outgoing connection of a link is made: one server of the list, TLS, CONNECT, CONNACK, all within
//! one time. The next attempt takes the next server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::task;
use tokio::time::timeout;

use crate::broker::link_client::LinkClient;
use crate::broker::link_client::Lost;
use crate::broker::link_client::PACKET_BYTES_MAX;
use crate::broker::links::Link;
use crate::broker::material::client_options;
use crate::config::settings;
use crate::config::settings::DialledBy;
use crate::config::settings::ServerAddr;
use crate::link::replicator::CONNECT_TIMEOUT_MS;
use crate::metrics::labels::CertificateSide;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::ReconnectReason;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::decode::decode;
use crate::mqtt::encode::encode;
use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::ConnAck;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::net::clock;
use crate::net::dial::DialError;
use crate::net::dial::dial_within;
use crate::net::peer_networks::check_peer_address;
use crate::net::tls::ClientTls;
use crate::net::tls::ClientTlsOptions;
use crate::net::tls::TlsError;
use crate::net::transport::Transport;

/// Keep Alive of every connection, as EMQX's.
const KEEP_ALIVE_SECONDS: u16 = 60;
/// From dialling to CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(CONNECT_TIMEOUT_MS);
/// How long the peer has to lend us a connection, of that time.
const LENT_TIMEOUT: Duration = Duration::from_millis(CONNECT_TIMEOUT_MS - 2_000);
/// Receive Maximum where CONNACK has none (MQTT 5.0 section 3.2.2.3.3).
const RECEIVE_MAXIMUM: u16 = u16::MAX;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file of `cluster.links.ssl`.
    #[error("ssl: {0}")]
    Material(#[from] TlsError),
    /// No connection, or no TLS.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before its CONNACK, or another packet came.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// CONNACK refused us.
    #[error("refused: {0}")]
    Refused(ReasonCode),
    /// The peer dials, and did not.
    #[error("the peer, which alone can dial, has lent no connection")]
    NoneLent,
    /// No CONNACK in time.
    #[error("no CONNACK within {CONNECT_TIMEOUT_MS} ms")]
    Timeout,
    /// The settings make no CONNECT.
    #[error("no CONNECT can be made: {0}")]
    Connect(#[from] EncodeError),
    /// The peer takes no message of QoS 1.
    #[error("the peer's Maximum QoS is 0")]
    MaximumQoS,
}

impl ConnectError {
    /// Under what it is counted.
    #[must_use]
    pub fn reason(&self) -> ReconnectReason {
        match self {
            Self::Material(_) => ReconnectReason::Tls,
            Self::Dial(error) => error.reason(),
            Self::Lost(lost) => lost.reason(),
            Self::Refused(reason) if is_about_identity(*reason) => ReconnectReason::Auth,
            Self::Timeout | Self::NoneLent => ReconnectReason::Timeout,
            Self::Refused(_) | Self::MaximumQoS | Self::Connect(_) => ReconnectReason::Refused,
        }
    }

    /// What the link is while this is the last that happened.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        match self {
            Self::Lost(lost) => lost.link_state(),
            Self::Refused(reason) if is_about_identity(*reason) => LinkState::Unauthenticated,
            Self::Refused(ReasonCode::ServerUnavailable | ReasonCode::ServerBusy) => LinkState::Unreachable,
            Self::Refused(_) | Self::MaximumQoS | Self::Connect(_) => LinkState::Rejected,
            Self::Material(_) | Self::Dial(DialError::Tls(_) | DialError::ServerName(_)) => {
                LinkState::Unauthenticated
            }
            Self::Dial(_) | Self::Timeout | Self::NoneLent => LinkState::Unreachable,
        }
    }

    /// The peer's Reason Code, if it gave one.
    #[must_use]
    pub fn reason_code(&self) -> Option<u8> {
        match self {
            Self::Refused(reason) => Some(reason.as_u8()),
            Self::Lost(lost) => lost.reason_code(),
            _ => None,
        }
    }
}

/// Whether a CONNACK refuses who we are rather than what we want.
fn is_about_identity(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::BadUserNameOrPassword
            | ReasonCode::NotAuthorized
            | ReasonCode::BadAuthenticationMethod
            | ReasonCode::ClientIdentifierNotValid
            | ReasonCode::Banned
    )
}

/// What CONNACK granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// How many messages of QoS 1 may be unacknowledged.
    pub receive_maximum: u16,
    /// The largest packet the peer takes; `None` if it sets no bound.
    pub maximum_packet_size: Option<u32>,
}

/// An attempt under way.
pub type Dial = Pin<Box<dyn Future<Output = Result<(LinkClient, Accepted), ConnectError>> + Send>>;

/// Makes the connections of one Client Identifier.
#[derive(Debug)]
pub struct Dialer {
    link: Arc<Link>,
    client_id: Arc<str>,
    packet_bytes_max: u32,
    server: usize,
}

impl Dialer {
    /// Starts with the first server.
    #[must_use]
    pub fn new(link: Arc<Link>, client_id: &str) -> Self {
        Self { link, client_id: client_id.into(), packet_bytes_max: PACKET_BYTES_MAX, server: 0 }
    }

    /// Connections take packets of this length, if that is longer.
    #[must_use]
    pub fn taking(self, packet_bytes: u32) -> Self {
        Self { packet_bytes_max: self.packet_bytes_max.max(packet_bytes), ..self }
    }

    /// The longest packet that they take.
    #[must_use]
    pub fn packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// The server of the current attempt; `None` if the settings have none.
    #[must_use]
    pub fn server(&self) -> Option<&ServerAddr> {
        server(&self.link.settings, self.server)
    }

    /// The current server does not do: the next attempt takes the next one.
    pub fn move_on(&mut self) {
        self.server = self.server.wrapping_add(1);
    }

    /// Starts an attempt.
    #[must_use]
    pub fn dial(&self) -> Dial {
        let (link, client_id, server) = (Arc::clone(&self.link), Arc::clone(&self.client_id), self.server);
        let packet_bytes_max = self.packet_bytes_max;
        Box::pin(async move {
            timeout(CONNECT_TIMEOUT, connect(&link, server, &client_id, packet_bytes_max))
                .await
                .unwrap_or(Err(ConnectError::Timeout))
        })
    }
}

async fn connect(
    link: &Link,
    server: usize,
    client_id: &str,
    packet_bytes_max: u32,
) -> Result<(LinkClient, Accepted), ConnectError> {
    let greeting = greeting(&link.settings, client_id, packet_bytes_max)?;
    let mut transport = match link.settings.dialled_by {
        DialledBy::Both | DialledBy::Us => dialled(link, server).await?,
        DialledBy::Peer => lent(link).await?,
    };
    link.metrics.note_expiry(CertificateSide::Remote, transport.peer_not_after_unix());
    transport.write_all(&greeting).await.map_err(lost)?;
    transport.flush().await.map_err(lost)?;
    answer(transport, packet_bytes_max).await
}

async fn dialled(link: &Link, server: usize) -> Result<Transport, ConnectError> {
    // The configuration has at least one.
    let server = self::server(&link.settings, server).ok_or(ConnectError::Timeout)?;
    let tls = load_tls(link).await?;
    link.metrics.note_expiry(CertificateSide::Local, tls.as_ref().and_then(|tls| tls.not_after_unix));
    let networks = link.settings.told.networks_of(server);
    Ok(dial_within(&server.host, server.port, networks, tls.as_ref(), CONNECT_TIMEOUT).await?)
}

/// The server of an attempt. Those that will not be dialled have no turn, unless there are no others.
pub fn server(link: &settings::Link, turn: usize) -> Option<&ServerAddr> {
    let may_be = |server: &&ServerAddr| match (link.told.networks_of(server), server.host.parse()) {
        (Some(networks), Ok(address)) => check_peer_address(address, networks).is_ok(),
        _ => true,
    };
    match link.servers.iter().filter(may_be).count() {
        0 => link.servers.get(turn % link.servers.len().max(1)),
        count => link.servers.iter().filter(may_be).nth(turn % count),
    }
}

/// One that the peer has made.
async fn lent(link: &Link) -> Result<Transport, ConnectError> {
    let pins = link.pins();
    timeout(LENT_TIMEOUT, link.incoming.room.take(&pins.servers)).await.map_err(|_| ConnectError::NoneLent)
}

/// TLS towards the peer, if the link has it.
///
/// # Errors
/// What is wrong with a file.
pub async fn load_tls(link: &Link) -> Result<Option<ClientTls>, TlsError> {
    let settings = link.settings_in_force();
    let Some(ssl) = &settings.ssl else { return Ok(None) };
    load(client_options(&settings, ssl)).await.map(Some)
}

/// Reads the files again for every attempt, so that renewed certificates are used without a restart: where a file system
/// may hang, and a pass phrase may take its time.
async fn load(options: ClientTlsOptions) -> Result<ClientTls, TlsError> {
    let loading = task::spawn_blocking(move || ClientTls::load(&options, clock::now()));
    loading.await.unwrap_or(Err(TlsError::Options("reading the files failed; the log says more")))
}

fn greeting(link: &settings::Link, client_id: &str, packet_bytes_max: u32) -> Result<Vec<u8>, EncodeError> {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::MaximumPacketSize(packet_bytes_max));
    let connect = Connect {
        version: Version::V5,
        bridge: false,
        clean_start: true,
        keep_alive_seconds: KEEP_ALIVE_SECONDS,
        properties: properties.as_properties(),
        client_id,
        will: None,
        username: link.username.as_deref(),
        password: link.password.as_ref().map(|password| password.expose()),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(connect)), Version::V5, &mut bytes)?;
    Ok(bytes)
}

/// A certificate of ours that the server does not take shows itself only here in TLS 1.3.
fn lost(error: std::io::Error) -> ConnectError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => ConnectError::Dial(DialError::Tls(error)),
        Err(error) => ConnectError::Lost(Lost::Io(error)),
    }
}

/// Reads up to CONNACK.
async fn answer(
    mut transport: Transport,
    packet_bytes_max: u32,
) -> Result<(LinkClient, Accepted), ConnectError> {
    let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: packet_bytes_max };
    let mut bytes = Vec::with_capacity(512);
    loop {
        let greeted = match decode(&bytes, &limits).map_err(Lost::Malformed)? {
            Decoded::Packet { packet: Packet::ConnAck(connack), len } => Some((accept(&connack)?, len)),
            Decoded::Packet { packet, .. } => return Err(Lost::Unexpected(packet.packet_type()).into()),
            Decoded::NeedMore { .. } => None,
        };
        if let Some(((accepted, keep_alive_seconds), len)) = greeted {
            bytes.drain(..len);
            let client =
                LinkClient::new(transport, bytes, keep_alive_seconds, packet_bytes_max, clock::now());
            return Ok((client, accepted));
        }
        if transport.read_buf(&mut bytes).await.map_err(lost)? == 0 {
            return Err(Lost::Io(std::io::ErrorKind::UnexpectedEof.into()).into());
        }
    }
}

fn accept(connack: &ConnAck<'_>) -> Result<(Accepted, u16), ConnectError> {
    if connack.reason.is_error() {
        return Err(ConnectError::Refused(connack.reason));
    }
    let properties = &connack.properties;
    if properties.maximum_qos() == Some(QoS::AtMostOnce) {
        return Err(ConnectError::MaximumQoS);
    }
    let accepted = Accepted {
        receive_maximum: properties.receive_maximum().map_or(RECEIVE_MAXIMUM, u16::from),
        maximum_packet_size: properties.maximum_packet_size().map(u32::from),
    };
    // `[MQTT-3.2.2-21]`; 0 turns the server's check off, not our wish to know whether it lives.
    let keep_alive = properties.server_keep_alive().filter(|seconds| *seconds > 0);
    Ok((accepted, keep_alive.unwrap_or(KEEP_ALIVE_SECONDS)))
}
