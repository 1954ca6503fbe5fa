//! From an accepted TCP connection to an accepted CONNECT: TLS, WebSocket, CONNECT, who it is, which session.
//! Everything here is bounded in time and bytes, because nobody has proved anything yet.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time;

use crate::auth;
use crate::auth::CertificateUsername;
use crate::auth::certificate::CertificateFacts;
use crate::broker::Broker;
use crate::broker::Limits;
use crate::broker::admission::Why;
use crate::broker::banned::Subject;
use crate::broker::connection::Connection;
use crate::broker::connection::Parts;
use crate::broker::enhanced;
use crate::broker::enhanced::Desk;
use crate::broker::enhanced::Enhanced;
use crate::broker::enhanced::Verified;
use crate::broker::events::event::What;
use crate::broker::identity::Identity;
use crate::broker::identity::Proof;
use crate::broker::link_ingress::LinkIngress;
use crate::broker::login;
use crate::broker::login::Knock;
use crate::broker::login::Login;
use crate::broker::login::attributes;
use crate::broker::reasons;
use crate::broker::reasons::ReasonStrings;
use crate::broker::refusal;
use crate::broker::refusal::Refused;
use crate::broker::refusal::connack;
use crate::broker::serving::Serving;
use crate::broker::sessions::Attached;
use crate::broker::threads::Mailbox;
use crate::broker::throttle::Throttle;
use crate::config::settings::ListenerKind;
use crate::config::settings::Network;
use crate::config::settings::RateLimits;
use crate::config::settings::Role;
use crate::metrics::labels::CertificateSide;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::PacketType;
use crate::metrics::labels::RejectReason;
use crate::mqtt::decode;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Packet;
use crate::mqtt::reason::ReasonCode;
use crate::net::address::PeerAddr;
use crate::net::admission::Entry;
use crate::net::admission::Place;
use crate::net::admission::Places;
use crate::net::clock;
use crate::net::handshake;
use crate::net::handshake::HandshakeError;
use crate::net::handshake::Handshaken;
use crate::net::listener::Accepted;
use crate::net::listener::Stream;
use crate::net::proxy::ProxyError;
use crate::net::random;
use crate::net::tls::ServerTls;
use crate::net::transport::Transport;
use crate::session::Attachment;
use crate::session::alias::OutboundAliases;
use crate::session::connect;
use crate::session::connect::Negotiated;
use crate::session::connect::Refusal;
use crate::session::outbound::Output;
use crate::time::Now;

/// The largest CONNECT read from an application: four fields of 64 KiB and their properties.
const CONNECT_BYTES_MAX: u32 = 512 * 1024;
/// The same on a listener of role link (`authn-tls.md` section 3).
const LINK_CONNECT_BYTES_MAX: u32 = 4 * 1024;
/// How long a link may take to send its CONNECT after the handshake (`authn-tls.md` section 3).
const LINK_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One read before CONNECT.
const READ_BYTES: usize = 2 * 1024;

/// A listener as its connections see it.
#[derive(Debug)]
pub struct Endpoint {
    /// `<type>:<name>`.
    pub id: Arc<str>,
    /// The transport.
    pub kind: ListenerKind,
    /// Who may connect.
    pub role: Role,
    /// Whether clients are authenticated.
    pub authn_enable: bool,
    /// What of a client certificate becomes the username.
    pub certificate_username: CertificateUsername,
    /// Whose PROXY header is believed, where one must open each connection.
    pub proxies: Option<Vec<Network>>,
    /// How fast each connection is read.
    pub limits: RateLimits,
    /// For TLS and WebSocket handshakes.
    pub handshake_timeout: Duration,
    /// TLS; a reload of certificates makes a new endpoint.
    pub tls: Option<Arc<ServerTls>>,
    /// The one peer that may come here: those are connections that were lent to it.
    pub only: Option<Box<str>>,
}

/// Serves one connection to its end, on the thread that has this mailbox if there is more than one. No `async fn`,
/// which would keep the room of its arguments until then.
pub fn serve(
    broker: Arc<Broker>,
    endpoint: Arc<Endpoint>,
    accepted: Accepted<Stream>,
    home: Option<Arc<Mailbox>>,
) -> impl Future<Output = ()> + Send {
    // Boxed, so that the memory of the handshakes goes with them.
    Serving::new(Box::pin(become_client(broker, endpoint, accepted, home)))
}

/// The handshakes up to CONNACK, or the refusal, unless others need the room.
pub(super) async fn become_client(
    broker: Arc<Broker>,
    endpoint: Arc<Endpoint>,
    accepted: Accepted<Stream>,
    home: Option<Arc<Mailbox>>,
) -> Option<Box<Connection>> {
    let Accepted { stream, peer, entry } = accepted;
    let places = entry.places();
    let opening = pin!(open(&broker, &endpoint, stream, peer, &places, home));
    enter(&broker, &endpoint, peer, entry, opening).await
}

/// Serves a connection that was lent to a peer of ours, to its end: what it is used with came already.
pub(super) fn serve_lent(
    broker: Arc<Broker>,
    endpoint: Arc<Endpoint>,
    (handshaken, bytes): (Handshaken, Vec<u8>),
    peer: PeerAddr,
    entry: Entry,
) -> impl Future<Output = ()> + Send {
    Serving::new(Box::pin(async move {
        let places = entry.places();
        let opening = pin!(greet(&broker, &endpoint, (handshaken, bytes), peer, &places, None));
        enter(&broker, &endpoint, peer, entry, opening).await
    }))
}

/// What becomes of it, unless others need the room. It stays where it is: each move would keep room for it twice.
async fn enter(
    broker: &Arc<Broker>,
    endpoint: &Arc<Endpoint>,
    peer: PeerAddr,
    mut entry: Entry,
    opening: Pin<&mut impl Future<Output = Result<(Box<Connection>, Place), Refused>>>,
) -> Option<Box<Connection>> {
    let opening = async {
        match opening.await {
            Ok(client) => Some(client),
            Err(refused) => {
                // What it needs is large, and few need it.
                Box::pin(refusal::answer(broker, endpoint, peer, refused)).await;
                None
            }
        }
    };
    // The entry counts the connection until it is a client's, or its socket is closed.
    let (mut connection, place) = tokio::select! {
        biased;
        client = opening => client,
        () = entry.evicted() => {
            broker.metrics.broker.connections_rejected[RejectReason::HalfOpen].inc();
            tracing::debug!(%peer, listener = &*endpoint.id, "closed before its CONNECT: others need the room");
            None
        }
    }?;
    connection.put_on_the_books(listener_type(endpoint.kind), place, entry.settle());
    Some(connection)
}

async fn open(
    broker: &Arc<Broker>,
    endpoint: &Arc<Endpoint>,
    stream: Stream,
    peer: PeerAddr,
    places: &Places,
    home: Option<Arc<Mailbox>>,
) -> Result<(Box<Connection>, Place), Refused> {
    let (handshaken, peer) = match plain(endpoint, stream) {
        Ok(handshaken) => (handshaken, peer),
        // What it needs is large, and most connections do not need it.
        Err(stream) => Box::pin(prepare(broker, endpoint, stream, peer)).await?,
    };
    greet(broker, endpoint, (handshaken, Vec::new()), peer, places, home).await
}

/// From the first bytes of MQTT, of which some may have come, to an accepted CONNECT.
async fn greet(
    broker: &Arc<Broker>,
    endpoint: &Arc<Endpoint>,
    (handshaken, bytes): (Handshaken, Vec<u8>),
    peer: PeerAddr,
    places: &Places,
    home: Option<Arc<Mailbox>>,
) -> Result<(Box<Connection>, Place), Refused> {
    let Handshaken { mut transport, certificate } = handshaken;
    let (until, limits) = connect_bounds(broker, endpoint);
    let bytes = match read_connect(&limits, &mut transport, bytes, until).await {
        Ok(bytes) => bytes,
        Err(Unread::Silent(label)) => return Err(Refused::Silent(transport, label)),
        Err(Unread::Decode(error)) => return Err(Refused::Decode(transport, error)),
    };
    let (asked, length) = match decode::decode(&bytes, &limits) {
        Ok(Decoded::Packet { packet: Packet::Connect(asked), len }) => (asked, len),
        Err(error) => return Err(Refused::Decode(transport, error)),
        Ok(_) => return Err(Refused::Silent(transport, RejectReason::MalformedConnect)), // read_connect has seen it
    };
    broker.metrics.broker.packets_received[PacketType::Connect].inc();
    broker.metrics.broker.bytes_received.add(length as u64);
    let refuse = |transport, (reason, label)| Refused::Connect {
        transport,
        answer: reasons::refusal(&asked, reason),
        reason,
        label,
        client_id: asked.client_id.into(),
        username: login::shown_name(asked.username).map(Box::from),
    };
    let mut tail = bytes[length..].to_vec();
    let mut proved = None;
    // [MQTT-4.12.0-6]: nothing of this happens to a client that named no method.
    if let Some(method) = asked.properties.authentication_method() {
        let mut desk = Desk { transport: &mut transport, tail: &mut tail, until };
        let proving = enhanced::authenticate(broker, endpoint.role, peer, &mut desk, (&asked, method));
        match Box::pin(proving).await {
            Ok(verified) => proved = Some(verified),
            Err(failed) => match enhanced::unproved(broker, endpoint, peer, &asked, failed) {
                Ok(why) => return Err(refuse(transport, why)),
                Err(label) => return Err(Refused::Silent(transport, label)),
            },
        }
    }
    let granted = broker.limits();
    let admitted = admit(broker, endpoint, &granted, peer, certificate, (&asked, proved.as_ref())).await;
    let (mut negotiated, identity) = match admitted {
        Ok(admitted) => admitted,
        Err(why) => return Err(refuse(transport, why)),
    };
    let granted = if identity.bound_to.is_some() { Arc::new(granted.of_a_peer()) } else { granted };
    if broker.is_stopping() {
        return Err(refuse(transport, (ReasonCode::ServerUnavailable, RejectReason::Shutdown)));
    }
    let reason_strings =
        ReasonStrings::new(negotiated.version, negotiated.problem_information, negotiated.max_packet_size);
    let greets = |negotiated: &_, present| greeting(negotiated, (&asked, proved.as_ref()), &granted, present);
    // [MQTT-3.1.2-24] holds for CONNACK too. Of what it says only Response Information can be left unsaid (section
    // 3.2.2.3.15). Before any takeover.
    if negotiated.max_packet_size != u32::MAX && !reason_strings.fits(greets(&negotiated, false).len()) {
        negotiated.response_information = false;
        if !reason_strings.fits(greets(&negotiated, false).len()) {
            return Err(refuse(transport, (ReasonCode::PacketTooLarge, RejectReason::NotSupported)));
        }
    }
    let Some(place) = places.take() else {
        return Err(refuse(transport, (ReasonCode::QuotaExceeded, RejectReason::MaxConnections)));
    };
    let now = clock::now();
    note_expiry(broker, &identity);
    let ingress = identity
        .bound_to
        .as_deref()
        .and_then(|cluster| LinkIngress::new(broker, cluster, &identity.client_id))
        .map(Box::new);
    let Some(attached) = attach(broker, &identity, &negotiated, &granted, now) else {
        refusal::note_foreign_session(broker, &identity);
        return Err(refuse(transport, (ReasonCode::NotAuthorized, RejectReason::NotAuthorized)));
    };
    if broker.is_stopping() {
        // The stop may have come while nobody held the session yet.
        attached.client.kick(ReasonCode::ServerShuttingDown);
    } else if !identity.still_holds(&broker.authentication.credentials().peers) {
        // So may a change of links, while the password was hashed.
        attached.client.kick(ReasonCode::NotAuthorized);
    }
    tracing::info!(
        client_id = &*identity.client_id,
        username = identity.username.as_deref(),
        %peer,
        listener = &*endpoint.id,
        version = ?identity.version,
        method = identity.by_scram.then_some(auth::scram::METHOD),
        bound_to = identity.bound_to.as_deref(),
        session_present = attached.session_present,
        "client connected"
    );
    if let (Some(_), Some(shown)) = (&identity.bound_to, &identity.proof.certificate) {
        broker.links.note_shown(shown.der_sha256, peer);
    }
    broker.trace_connect(&identity, now);
    broker.security_event(&identity.event(What::LoginSuccess), now);
    let greeting = greets(&negotiated, attached.session_present);
    broker.metrics.broker.packets_sent[PacketType::ConnAck].inc();
    let quota = ingress.as_ref().and_then(|ingress| ingress.quota());
    let parts = Parts {
        broker: Arc::clone(broker),
        client: attached.client,
        epoch: attached.epoch,
        identity,
        version: negotiated.version,
        limits: granted,
        reason_strings,
        throttle: Throttle::new(endpoint.limits, quota, now),
        ingress,
        enhanced: proved.is_some().then(|| Box::new(Enhanced::new(negotiated.max_packet_size))),
        home,
        transport,
        tail,
        greeting,
        greeting_in: attached.kept_in,
    };
    // Boxed here, so that no future on its way to `run` has room for one more.
    Ok((Box::new(Connection::new(parts)), place))
}

/// A byte stream that MQTT is spoken on at once; given back where something comes before.
fn plain(endpoint: &Endpoint, stream: Stream) -> Result<Handshaken, TcpStream> {
    let transport = match stream {
        Stream::Unix(stream) => Transport::Unix(stream),
        Stream::Tcp(stream) if endpoint.kind == ListenerKind::Tcp && endpoint.proxies.is_none() => {
            Transport::Tcp(stream)
        }
        Stream::Tcp(stream) => return Err(stream),
    };
    Ok(Handshaken { transport, certificate: None })
}

/// PROXY header and handshakes, which share one time: a byte stream, and whose it is.
async fn prepare(
    broker: &Arc<Broker>,
    endpoint: &Endpoint,
    mut stream: TcpStream,
    peer: PeerAddr,
) -> Result<(Handshaken, PeerAddr), Refused> {
    let until = time::Instant::now() + endpoint.handshake_timeout;
    let peer = told_address(endpoint, &mut stream, peer).await?;
    if let Some(open) = broker.enrolment.open_at(endpoint) {
        // While a cluster is awaited, the ClientHello tells whether this is it.
        let Some(greeted) = Box::pin(open.greet(broker, endpoint, stream, peer, until)).await? else {
            return Err(Refused::Enrolment);
        };
        let handshaken = Box::pin(open.go_on(greeted, until)).await?;
        return Ok((handshaken, peer));
    }
    let shaking = shake_hands(broker, endpoint, stream, until.duration_since(time::Instant::now()));
    Ok((shaking.await?, peer))
}

/// Behind a proxy, the address that the proxy tells. Anybody else who dials such a listener is turned away unread.
async fn told_address(
    endpoint: &Endpoint,
    stream: &mut TcpStream,
    peer: PeerAddr,
) -> Result<PeerAddr, HandshakeError> {
    let Some(proxies) = &endpoint.proxies else { return Ok(peer) };
    if !peer.ip().is_some_and(|address| proxies.iter().any(|block| block.holds(address))) {
        return Err(ProxyError::Untrusted.into());
    }
    let told = handshake::accept_proxy(stream, endpoint.handshake_timeout).await?;
    Ok(told.map_or(peer, PeerAddr::Ip))
}

async fn shake_hands(
    broker: &Broker,
    endpoint: &Endpoint,
    stream: TcpStream,
    limit: Duration,
) -> Result<Handshaken, HandshakeError> {
    let message_max = broker.limits().server.max_packet_size as usize;
    match (endpoint.kind, endpoint.tls.as_deref()) {
        (ListenerKind::Ssl, Some(tls)) => Box::pin(handshake::accept_tls(stream, tls, limit)).await,
        (ListenerKind::Wss, Some(tls)) => {
            Box::pin(handshake::accept_websocket_tls(stream, tls, message_max, limit)).await
        }
        (ListenerKind::Ws, _) => Box::pin(handshake::accept_websocket(stream, message_max, limit)).await,
        (ListenerKind::Tcp | ListenerKind::Unix, _) => {
            Ok(Handshaken { transport: Transport::Tcp(stream), certificate: None })
        }
        (ListenerKind::Ssl | ListenerKind::Wss, None) => {
            Err(HandshakeError::Io(io::Error::other("the listener has no certificate")))
        }
    }
}

enum Unread {
    Silent(RejectReason),
    Decode(DecodeError),
}

/// Reads until the CONNECT is whole: its bytes and what came behind. Only its length is looked at (`[MQTT-3.1.4-1]` is for
/// whoever decodes it).
async fn read_connect(
    limits: &DecodeLimits,
    transport: &mut Transport,
    mut bytes: Vec<u8>,
    until: time::Instant,
) -> Result<Vec<u8>, Unread> {
    let reading = async {
        loop {
            match decode::is_whole(&bytes, limits) {
                Ok(true) => return Ok(bytes),
                Ok(false) => {}
                Err(error) => return Err(Unread::Decode(error)),
            }
            let read = poll_fn(|cx| poll_append(transport, cx, &mut bytes)).await;
            if !read.is_ok_and(|count| count > 0) {
                return Err(Unread::Silent(RejectReason::Lost));
            }
        }
    };
    let in_time = time::timeout_at(until, reading).await;
    in_time.unwrap_or(Err(Unread::Silent(RejectReason::Timeout)))
}

/// Appends what one read brings. What is kept is as long as what came, and whoever is silent has nothing.
fn poll_append(
    transport: &mut Transport,
    cx: &mut Context<'_>,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut read = [const { MaybeUninit::uninit() }; READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut read);
    ready!(Pin::new(transport).poll_read(cx, &mut buffer))?;
    bytes.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Until when a CONNECT must have come, with the AUTH packets that belong to it, and how long it may be.
fn connect_bounds(broker: &Broker, endpoint: &Endpoint) -> (time::Instant, DecodeLimits) {
    let limits = broker.limits();
    let (idle_timeout, most) = if endpoint.role == Role::Link {
        (limits.idle_timeout.min(LINK_CONNECT_TIMEOUT), LINK_CONNECT_BYTES_MAX)
    } else {
        (limits.idle_timeout, CONNECT_BYTES_MAX)
    };
    let max_packet_size = most.min(limits.server.max_packet_size);
    (time::Instant::now() + idle_timeout, DecodeLimits { version: None, max_packet_size })
}

/// Who it is, and whether it may be that (`[MQTT-3.1.4-2]`): before any session is touched.
async fn admit(
    broker: &Broker,
    endpoint: &Endpoint,
    granted: &Limits,
    peer: PeerAddr,
    certificate: Option<Box<CertificateFacts>>,
    (asked, proved): (&Connect<'_>, Option<&Verified>),
) -> Result<(Negotiated, Arc<Identity>), Why> {
    // Only who sends none gets one: it costs a system call.
    let fresh_id =
        if asked.client_id.is_empty() { format!("tombolo-{}", random::hex(11)) } else { String::new() };
    let now = clock::now();
    broker.check_load(endpoint.role)?;
    let negotiated = connect::negotiate(asked, &granted.server, &fresh_id, now)
        .map_err(|refusal| (refusal.reason(), reject_label(refusal)))?;
    let will_levels = asked.will.as_ref().map_or(0, |will| will.topic.split('/').count());
    if will_levels > granted.max_topic_levels {
        return Err((ReasonCode::TopicNameInvalid, RejectReason::NotSupported));
    }
    broker.check_banned(
        &Subject {
            client_id: &negotiated.client_id,
            username: asked.username,
            host: peer.ip(),
            fingerprint: certificate.as_ref().map(|facts| facts.der_sha256),
        },
        now,
    )?;
    let knock = Knock {
        broker,
        endpoint,
        granted,
        peer,
        asked,
        client_id: &negotiated.client_id,
        certificate: certificate.as_deref(),
        proved,
    };
    let login = match knock.log_in_at_once() {
        Some(login) => login?,
        // What it needs is large, and it may take its time.
        None => Box::pin(knock.log_in()).await?,
    };
    let now = clock::now();
    let Login { grant, is_superuser, bound_to, password_verified, mechanism } = login;
    if endpoint.only.is_some() && endpoint.only.as_deref() != bound_to.as_deref() {
        return Err((ReasonCode::NotAuthorized, RejectReason::NotAuthorized));
    }
    let username: Option<Arc<str>> = grant.username.map(Arc::from);
    // Mostly the same, and held once then. A token is as good as a password, and no peer's name.
    let sent = asked.username.filter(|name| !auth::jwt::looks_like_a_token(name.as_bytes()));
    let sent = if sent == username.as_deref() { username.clone() } else { sent.map(Arc::from) };
    let identity = Identity {
        client_id: Arc::clone(&negotiated.client_id),
        username,
        peer,
        listener: Arc::clone(&endpoint.id),
        role: acl_role(endpoint.role),
        common_name: certificate
            .as_ref()
            .filter(|facts| facts.chain_verified)
            .and_then(|facts| facts.common_name.as_deref().map(Box::from)),
        attributes: attributes(grant.attributes, bound_to.as_deref()),
        is_superuser,
        bound_to,
        version: asked.version,
        is_bridge: asked.bridge,
        by_scram: proved.is_some(),
        connected_unix_ms: now.unix_ms,
        keep_alive_seconds: negotiated.keep_alive_seconds,
        clean_start: asked.clean_start,
        expires_mono_ms: grant.expires_unix.and_then(|unix| expiry(unix, now)),
        proof: Proof { username: sent, password_verified, mechanism, certificate },
    };
    let keeps = negotiated.session_expiry_seconds > 0;
    broker.check_admission(&identity, granted.overload.max_sessions, keeps, now)?;
    Ok((negotiated, Arc::new(identity)))
}

/// When a login ends that is valid until then, on the monotonic clock.
fn expiry(unix: u64, now: Now) -> Option<NonZeroU64> {
    let left_ms = unix.saturating_mul(1000).saturating_sub(now.unix_ms);
    NonZeroU64::new(now.mono_ms.saturating_add(left_ms).max(1))
}

/// When the certificate of a linked cluster expires.
fn note_expiry(broker: &Broker, identity: &Identity) {
    let Some(link) = identity.bound_to.as_deref().and_then(|cluster| broker.links.get(cluster)) else {
        return;
    };
    let at = identity.proof.certificate.as_ref().map(|certificate| certificate.not_after_unix);
    link.metrics.note_expiry(CertificateSide::RemoteClient, at);
}

fn attach(
    broker: &Broker,
    identity: &Arc<Identity>,
    negotiated: &Negotiated,
    granted: &Limits,
    now: Now,
) -> Option<Attached> {
    let attachment = Attachment {
        output: Output {
            version: negotiated.version,
            max_packet_size: negotiated.max_packet_size,
            receive_maximum: negotiated.receive_maximum,
            bytes: Vec::new(),
            aliases: OutboundAliases::new(negotiated.topic_alias_maximum),
        },
        session_expiry_seconds: negotiated.session_expiry_seconds,
        silence_allowed_ms: connect::silence_allowed_ms(
            negotiated.keep_alive_seconds,
            granted.server.keep_alive_multiplier,
        ),
        will: negotiated.will.clone(),
        kept: negotiated.session_expiry_seconds > 0 && identity.bound_to.is_none(),
    };
    broker.attach(identity, negotiated.clean_start, attachment, now)
}

/// CONNACK 0x00 (`[MQTT-3.1.4-5]`).
fn greeting(
    negotiated: &Negotiated,
    (asked, proved): (&Connect<'_>, Option<&Verified>),
    granted: &Limits,
    session_present: bool,
) -> Vec<u8> {
    let mut properties = connect::connack_properties(negotiated, asked, &granted.server);
    if let Some(proved) = proved {
        enhanced::put_properties(&proved.data, &mut properties);
    }
    connack(negotiated.version, session_present, ReasonCode::Success, properties.as_properties())
}

fn reject_label(refusal: Refusal) -> RejectReason {
    match refusal {
        Refusal::ClientIdentifier => RejectReason::ClientIdentifier,
        Refusal::KeepAlive => RejectReason::KeepAlive,
        Refusal::Will(_) => RejectReason::NotSupported,
    }
}

pub(super) fn acl_role(role: Role) -> crate::acl::confine::ListenerRole {
    match role {
        Role::Client => crate::acl::confine::ListenerRole::Client,
        Role::Link => crate::acl::confine::ListenerRole::Link,
        Role::Any => crate::acl::confine::ListenerRole::Any,
    }
}

/// The label of a listener's connections.
#[must_use]
pub fn listener_type(kind: ListenerKind) -> ListenerType {
    match kind {
        ListenerKind::Tcp => ListenerType::Tcp,
        ListenerKind::Ssl => ListenerType::Ssl,
        ListenerKind::Ws => ListenerType::Ws,
        ListenerKind::Wss => ListenerType::Wss,
        ListenerKind::Unix => ListenerType::Unix,
    }
}
