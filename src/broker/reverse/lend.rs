//! The side that dials for both: it keeps a few connections waiting at the peer, serves those that the peer begins to use as if
//! the peer had dialled, and replaces them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::Resumption;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::auth::CertificateUsername;
use crate::auth::certificate::CertificateFacts;
use crate::broker::Broker;
use crate::broker::accept;
use crate::broker::accept::Endpoint;
use crate::broker::enrolment::Asked;
use crate::broker::linger::linger;
use crate::broker::link_client;
use crate::broker::link_client::load_tls;
use crate::broker::links::Link;
use crate::config::settings::ListenerKind;
use crate::config::settings::RateLimits;
use crate::config::settings::Role;
use crate::link::backoff::Backoff;
use crate::net::address::PeerAddr;
use crate::net::admission::Admission;
use crate::net::admission::Crowd;
use crate::net::admission::Entry;
use crate::net::clock;
use crate::net::dial::DialError;
use crate::net::dial::dial_within;
use crate::net::enroll::Purpose;
use crate::net::enroll::ReadError;
use crate::net::enroll::framed;
use crate::net::enroll::read_message;
use crate::net::handshake::Handshaken;
use crate::net::random;
use crate::net::tls::ClientTls;
use crate::net::tls::TlsError;
use crate::net::transport::Transport;

/// Connections that wait at the peer.
pub(in crate::broker) const WAITING: usize = 2;
/// Connections that the peer may use at a time: those of its pool, and one for its wishes.
pub(in crate::broker) const USED_MAX: usize = 64;
/// How long one waits before it is replaced: less than a NAT remembers it.
const RENEW: Duration = Duration::from_secs(50);
/// From dialling to the peer's word that the connection waits.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what the peer begins to say may take, where that is no MQTT.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses after failures, in milliseconds.
const PAUSES_MS: (u64, u64) = (500, 5_000);
/// The first byte of a CONNECT (MQTT 5.0 section 2.1.2). A statement begins with its length, of which that byte is 0.
const CONNECT: u8 = 0x10;

/// Why a connection could not be lent.
#[derive(Debug, thiserror::Error)]
enum LendError {
    #[error("ssl: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(
        "the peer takes none: it does not trust us, its link is not `dialled_by = \"peer\"`, or it is older"
    )]
    NotOpen,
    #[error("the peer said nothing: {0}")]
    Silent(#[from] ReadError),
    #[error("the peer says: {0}")]
    Refused(String),
    #[error("no word of the peer in time")]
    Timeout,
    #[error("connection lost: {0}")]
    Lost(std::io::Error),
    #[error("the certificate of the peer cannot be read")]
    Certificate,
}

/// What a link's lent connections have in common, whatever replaces the link.
#[derive(Debug)]
pub struct Lending {
    admission: Mutex<Admission>,
    trouble: Mutex<Option<String>>,
}

impl Default for Lending {
    fn default() -> Self {
        // Their descriptors are among those that links have for themselves.
        let descriptors = Arc::new(Semaphore::new(WAITING + USED_MAX));
        let admission = Admission::new(USED_MAX, WAITING + USED_MAX, descriptors);
        Self { admission: Mutex::new(admission), trouble: Mutex::default() }
    }
}

impl Lending {
    /// Why none can be lent, if none can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.as_ref().map(|why| format!("no connection can be lent to the peer: {why}"))
    }

    /// Those that the peer uses, to be waited for.
    #[must_use]
    pub fn crowd(&self) -> Crowd {
        self.admission.lock().crowd()
    }

    /// Remembers it; what it was before.
    fn note(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.trouble.lock(), trouble)
    }
}

/// A connection that waits at the peer.
struct Waiting {
    transport: Transport,
    certificate: Vec<u8>,
    peer: PeerAddr,
}

/// Lends connections for as long as it is polled.
pub(in crate::broker) async fn run(link: Arc<Link>, broker: Arc<Broker>) {
    let endpoint = Arc::new(endpoint(link.peer()));
    let mut waiting = JoinSet::new();
    for first in 0..WAITING {
        waiting.spawn(keep_one(Arc::clone(&link), Arc::clone(&broker), Arc::clone(&endpoint), first));
    }
    // None ends; a panic is logged by the runtime.
    while waiting.join_next().await.is_some() {}
}

/// What those see who come over such a connection: a listener for this one peer.
fn endpoint(peer: &str) -> Endpoint {
    Endpoint {
        id: format!("reverse:{peer}").into(),
        kind: ListenerKind::Ssl,
        role: Role::Link,
        authn_enable: true,
        certificate_username: CertificateUsername::Disabled,
        proxies: None,
        limits: RateLimits::default(),
        handshake_timeout: DIAL_TIMEOUT,
        tls: None,
        only: Some(peer.into()),
    }
}

/// Has one connection wait, again and again. `server` is the first that is tried.
async fn keep_one(link: Arc<Link>, broker: Arc<Broker>, endpoint: Arc<Endpoint>, mut server: usize) {
    let lending = &link.incoming.lending;
    let mut backoff = Backoff::new(PAUSES_MS.0, PAUSES_MS.1);
    loop {
        let lent = timeout(DIAL_TIMEOUT, lend(&link, server)).await.unwrap_or(Err(LendError::Timeout));
        let used = match lent {
            Ok(waiting) => {
                backoff.succeeded();
                if lending.note(None).is_some() {
                    tracing::info!(peer = link.peer(), "connections are lent to the peer again");
                }
                wait(&broker, &link, &endpoint, waiting).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = used else { continue };
        let text = error.to_string();
        if lending.note(Some(text.clone())).is_none() {
            tracing::warn!(peer = link.peer(), "no connection can be lent to the peer: {text}");
        }
        server = server.wrapping_add(1);
        let random = u32::try_from(random::number() >> 32).unwrap_or(0);
        sleep(Duration::from_millis(backoff.failed(random))).await;
    }
}

/// Dials, and has the peer's word.
async fn lend(link: &Link, server: usize) -> Result<Waiting, LendError> {
    // The configuration has at least one, and TLS.
    let server = link_client::server(&link.settings, server).ok_or(LendError::Timeout)?;
    let tls = load_tls(link).await?.ok_or(LendError::NotOpen)?;
    let (tls, networks) = (reversed(&tls), link.settings.told.networks_of(server));
    let mut transport = dial_within(&server.host, server.port, networks, Some(&tls), DIAL_TIMEOUT).await?;
    let Transport::TlsClient(stream) = &transport else { return Err(LendError::NotOpen) };
    let (tcp, session) = stream.get_ref();
    if session.alpn_protocol() != Some(Purpose::Reverse.alpn()) {
        return Err(LendError::NotOpen);
    }
    let shown = session.peer_certificates().and_then(<[_]>::first).ok_or(LendError::Certificate)?;
    let (certificate, peer) = (shown.to_vec(), tcp.peer_addr().map_err(LendError::Lost)?.into());
    let answer = read_message(&mut transport).await?;
    if answer != super::WAITING.as_bytes() {
        return Err(LendError::Refused(String::from_utf8_lossy(&answer).into_owned()));
    }
    Ok(Waiting { transport, certificate, peer })
}

/// The same TLS, for such a connection.
fn reversed(tls: &ClientTls) -> ClientTls {
    let mut config = (*tls.config).clone();
    config.alpn_protocols = vec![Purpose::Reverse.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    ClientTls {
        config: Arc::new(config),
        server_name: tls.server_name.clone(),
        not_after_unix: tls.not_after_unix,
        warnings: Vec::new(),
    }
}

/// Waits until the peer begins to use it, and begins to serve it, or it is time for another.
async fn wait(
    broker: &Arc<Broker>,
    link: &Arc<Link>,
    endpoint: &Arc<Endpoint>,
    mut waiting: Waiting,
) -> Result<(), LendError> {
    let mut bytes = Vec::new();
    match timeout(RENEW, waiting.transport.read_buf(&mut bytes)).await {
        Err(_) => return Ok(()),
        Ok(Err(error)) => return Err(LendError::Lost(error)),
        Ok(Ok(0)) => return Err(LendError::Lost(std::io::ErrorKind::UnexpectedEof.into())),
        Ok(Ok(_)) => {}
    }
    if bytes.first() != Some(&CONNECT) {
        tokio::spawn(hear(Arc::clone(broker), Arc::clone(endpoint), waiting, bytes));
        return Ok(());
    }
    let entry = link.incoming.lending.admission.lock().admit(clock::now().mono_ms);
    let entry = match entry {
        Ok(entry) => entry,
        Err(reason) => {
            broker.metrics.broker.connections_rejected[reason].inc();
            return Ok(());
        }
    };
    serve(broker, endpoint, waiting, bytes, entry)
}

/// Begins to serve a client of MQTT.
fn serve(
    broker: &Arc<Broker>,
    endpoint: &Arc<Endpoint>,
    waiting: Waiting,
    bytes: Vec<u8>,
    entry: Entry,
) -> Result<(), LendError> {
    let Waiting { transport, certificate, peer } = waiting;
    let facts = CertificateFacts::from_der(&certificate).map_err(|_| LendError::Certificate)?;
    let handshaken = Handshaken { transport, certificate: Some(Box::new(facts)) };
    broker.metrics.broker.connections_accepted[accept::listener_type(endpoint.kind)].inc();
    tokio::spawn(accept::serve_lent(
        Arc::clone(broker),
        Arc::clone(endpoint),
        (handshaken, bytes),
        peer,
        entry,
    ));
    Ok(())
}

/// Hears what the peer says about trust.
async fn hear(broker: Arc<Broker>, endpoint: Arc<Endpoint>, waiting: Waiting, bytes: Vec<u8>) {
    let Waiting { transport, certificate, peer } = waiting;
    let (mut rest, transport) = tokio::io::split(transport);
    let mut all = (&bytes[..]).chain(&mut rest);
    let Ok(Ok(request)) = timeout(STATEMENT_TIMEOUT, read_message(&mut all)).await else { return };
    let asked = Asked {
        request: Zeroizing::new(request),
        certificate,
        source: peer,
        listener: Arc::clone(&endpoint.id),
        purpose: Purpose::Statement,
    };
    let answer = broker.enrolment.hear(asked).await.and_then(|answer| framed(&answer));
    linger(rest.unsplit(transport), answer.unwrap_or_default()).await;
}
