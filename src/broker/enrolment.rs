//! Clusters that enrol on a listener for links (trust.md 2.4). Here is what happens on the connection: who is let in, how
//! long it may take, one request and one answer. What a request is worth, the desk decides.
//!
//! While no token is pending nothing of this is on the way of a connection, and the protocol is not offered. A connection
//! that asks for it never becomes one of MQTT, and one of MQTT never asks for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::RwLock;
use rustls::ServerConfig;
use sha2::Digest;
use sha2::Sha256;
use tokio::io::AsyncWriteExt;
use tokio::time;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::broker::Broker;
use crate::broker::accept::Endpoint;
use crate::broker::banned::Subject;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::linger::linger;
use crate::broker::refusal::Refused;
use crate::broker::reverse::Lent;
use crate::broker::reverse::WAITING;
use crate::config::settings::ListenerKind;
use crate::metrics::labels::EnrolmentOutcome;
use crate::metrics::labels::LentOutcome;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::net::enroll::Purpose;
use crate::net::enroll::ReadError;
use crate::net::enroll::framed;
use crate::net::enroll::gate::Gate;
use crate::net::enroll::gate::Limits;
use crate::net::enroll::gate::Turned;
use crate::net::enroll::read_message;
use crate::net::enroll::server;
use crate::net::enroll::server::Greeted;
use crate::net::handshake;
use crate::net::handshake::HandshakeError;
use crate::net::handshake::Handshaken;
use crate::net::tls::ServerTls;
use crate::net::transport::Transport;

/// A request as it came.
pub struct Asked {
    /// At most [`MESSAGE_BYTES_MAX`](crate::net::enroll::MESSAGE_BYTES_MAX) bytes, a token's secret among them.
    pub request: Zeroizing<Vec<u8>>,
    /// The certificate (DER) whose key the other side has; trusted by nobody yet, and not judged.
    pub certificate: Vec<u8>,
    /// Where it comes from.
    pub source: PeerAddr,
    /// The listener.
    pub listener: Arc<str>,
    /// What it is for.
    pub purpose: Purpose,
}

/// Without the request, in which there is a secret.
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, listener, purpose, .. } = self;
        f.debug_struct("Asked")
            .field("source", source)
            .field("listener", listener)
            .field("purpose", purpose)
            .finish_non_exhaustive()
    }
}

/// Decides about enrolments.
pub trait EnrollDesk: Send + Sync {
    /// Whether anybody is awaited for this: with a token while one is pending, with a statement while peers are known. Asked for
    /// every TLS connection of a listener for links.
    fn is_open(&self, purpose: Purpose) -> bool;

    /// TLS with the link certificate, as [`server::tls`] makes it; `None` while there is none.
    fn tls(&self, purpose: Purpose) -> Option<Arc<ServerConfig>>;

    /// The answer, of at most [`MESSAGE_BYTES_MAX`](crate::net::enroll::MESSAGE_BYTES_MAX) bytes. It is run to its end even
    /// if nobody waits for it any more.
    fn redeem(self: Arc<Self>, asked: Asked) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

    /// The clusters that a token is pending for, by name.
    fn awaited(&self) -> Vec<String> {
        Vec::new()
    }

    /// How much enrolment there may be.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// Where clusters enrol, if somebody decides about that.
#[derive(Default)]
pub struct Enrolment {
    desk: RwLock<Option<Arc<dyn EnrollDesk>>>,
    gate: Arc<Mutex<Gate>>,
}

impl Enrolment {
    /// From now on this one decides.
    pub fn set_desk(&self, desk: Arc<dyn EnrollDesk>) {
        *self.desk.write() = Some(desk);
    }

    /// The clusters that a token is pending for, by name.
    #[must_use]
    pub fn awaited(&self) -> Vec<String> {
        self.desk.read().as_ref().map(|desk| desk.awaited()).unwrap_or_default()
    }

    /// What is answered to a statement that came over a connection of ours; `None` if nobody decides about that.
    pub(super) async fn hear(&self, asked: Asked) -> Option<Vec<u8>> {
        let desk = self.desk.read().clone()?;
        Some(desk.redeem(asked).await)
    }

    /// The desk, if connections of this listener may go to it now.
    pub(super) fn open_at(&self, endpoint: &Endpoint) -> Option<Open> {
        if endpoint.kind != ListenerKind::Ssl || !endpoint.role.accepts_links() {
            return None;
        }
        let ordinary = endpoint.tls.as_ref()?;
        let is_open = |desk: &Arc<dyn EnrollDesk>| {
            [Purpose::Enroll, Purpose::Statement, Purpose::Reverse].into_iter().any(|one| desk.is_open(one))
        };
        let desk = self.desk.read().clone().filter(is_open)?;
        let gate = Arc::clone(&self.gate);
        Some(Open { desk, gate, ordinary: Arc::clone(ordinary), since: Instant::now() })
    }
}

/// A connection while somebody is awaited.
pub(super) struct Open {
    desk: Arc<dyn EnrollDesk>,
    gate: Arc<Mutex<Gate>>,
    ordinary: Arc<ServerTls>,
    since: Instant,
}

/// The right to be one of those at a time.
struct Pass(Arc<Mutex<Gate>>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.lock().leave();
    }
}

/// A connection of ours, what it is for, and its TLS.
type Welcomed = (Greeted, Purpose, Arc<ServerConfig>);

/// Why there was no answer, and what to say of it.
type Failure = (EnrolmentOutcome, String);

impl Open {
    /// Reads the ClientHello. `None`: it was an enrolment, which is over.
    pub(super) async fn greet(
        &self,
        broker: &Broker,
        endpoint: &Endpoint,
        stream: tokio::net::TcpStream,
        peer: PeerAddr,
        until: Instant,
    ) -> Result<Option<Greeted>, Refused> {
        let greeted = server::read_hello(stream, left(until)).await?;
        let asked = server::purpose(&greeted.client_hello()).filter(|one| self.desk.is_open(*one));
        let Some((purpose, tls)) = asked.and_then(|one| Some((one, self.desk.tls(one)?))) else {
            return Ok(Some(greeted));
        };
        if purpose == Purpose::Reverse {
            self.take_lent(broker, endpoint, (greeted, tls), peer, until).await?;
            return Ok(None);
        }
        let limits = self.desk.limits();
        let until = self.since + limits.time;
        let outcome = self.serve(broker, &limits, endpoint, (greeted, purpose, tls), peer, until).await;
        let (outcome, reason) = outcome.err().unwrap_or((EnrolmentOutcome::Answered, String::new()));
        broker.metrics.broker.enrolments[outcome].inc();
        if outcome != EnrolmentOutcome::Answered {
            tell(broker, endpoint, peer, &format!("enrolment: {reason}"));
        }
        Ok(None)
    }

    /// Has a connection wait for the link to the cluster whose certificate was shown, if that lends us some.
    async fn take_lent(
        &self,
        broker: &Broker,
        endpoint: &Endpoint,
        (greeted, tls): (Greeted, Arc<ServerConfig>),
        peer: PeerAddr,
        until: Instant,
    ) -> Result<(), HandshakeError> {
        let accepting = time::timeout_at(until, server::accept(greeted, tls));
        let (mut transport, certificate) = accepting.await.map_err(|_| HandshakeError::Timeout)??;
        let fingerprint: [u8; 32] = Sha256::digest(&certificate).into();
        let (now, host) = (clock::now(), peer.ip());
        let subject = Subject { client_id: "", username: None, host, fingerprint: Some(fingerprint) };
        let link = broker.links.lent_by(&fingerprint).filter(|_| !broker.banned.find(&subject, now));
        let count = |outcome: LentOutcome| broker.metrics.broker.lent[outcome].inc();
        let Some(link) = link else {
            count(LentOutcome::Unwanted);
            tell(broker, endpoint, peer, "it lends us a connection, and no link of ours has one of it");
            let answer = framed(b"not trusted, or the link there does not want such connections");
            linger(transport, answer.unwrap_or_default()).await;
            return Ok(());
        };
        let waits = framed(WAITING.as_bytes()).unwrap_or_default();
        let told = async {
            transport.write_all(&waits).await?;
            transport.flush().await
        };
        time::timeout_at(until, told)
            .await
            .map_err(|_| HandshakeError::Timeout)?
            .map_err(HandshakeError::Io)?;
        broker.links.note_shown(fingerprint, peer);
        let entered = link.incoming.room.enter(Lent::new(transport, fingerprint, now), now);
        count(if entered.is_ok() { LentOutcome::Waiting } else { LentOutcome::Enough });
        Ok(())
    }

    /// Goes on with what is no enrolment.
    pub(super) async fn go_on(&self, greeted: Greeted, until: Instant) -> Result<Handshaken, HandshakeError> {
        handshake::accept_greeted(greeted, &self.ordinary, left(until)).await
    }

    async fn serve(
        &self,
        broker: &Broker,
        limits: &Limits,
        endpoint: &Endpoint,
        greeted: Welcomed,
        peer: PeerAddr,
        until: Instant,
    ) -> Result<(), Failure> {
        let pass = Arc::new(self.enter(limits, peer)?);
        let answering = self.answer(broker, endpoint, greeted, peer, &pass);
        let late = || (EnrolmentOutcome::Timeout, "it took longer than allowed".to_owned());
        let (transport, answer) = time::timeout_at(until, answering).await.map_err(|_| late())??;
        // What is not taken in time is not taken at all.
        let _ = time::timeout_at(until, linger(transport, answer)).await;
        Ok(())
    }

    fn enter(&self, limits: &Limits, peer: PeerAddr) -> Result<Pass, Failure> {
        // TLS is not offered over a Unix socket.
        let source = peer.ip().ok_or_else(|| (EnrolmentOutcome::Failed, "no address".to_owned()))?;
        match self.gate.lock().enter(limits, source, clock::now().mono_ms) {
            Ok(()) => Ok(Pass(Arc::clone(&self.gate))),
            Err(Turned::Busy) => Err((EnrolmentOutcome::Busy, "too many at a time".to_owned())),
            Err(Turned::TooSoon) => {
                Err((EnrolmentOutcome::TooSoon, "the last one was a moment ago".to_owned()))
            }
        }
    }

    /// The handshake, the request, and what the desk says to it.
    async fn answer(
        &self,
        broker: &Broker,
        endpoint: &Endpoint,
        (greeted, purpose, tls): Welcomed,
        peer: PeerAddr,
        pass: &Arc<Pass>,
    ) -> Result<(Transport, Vec<u8>), Failure> {
        let accepted = server::accept(greeted, tls).await;
        let (mut transport, certificate) =
            accepted.map_err(|error| (EnrolmentOutcome::Tls, error.to_string()))?;
        let (host, fingerprint) = (peer.ip(), Some(Sha256::digest(&certificate).into()));
        let subject = Subject { client_id: "", username: None, host, fingerprint };
        if broker.banned.find(&subject, clock::now()) {
            return Err((EnrolmentOutcome::Banned, "the address or the certificate is banned".to_owned()));
        }
        let request = read_message(&mut transport).await.map_err(|error| match error {
            ReadError::Length(_) => (EnrolmentOutcome::Malformed, error.to_string()),
            ReadError::Io(_) => (EnrolmentOutcome::Lost, error.to_string()),
        })?;
        let (request, listener) = (Zeroizing::new(request), Arc::clone(&endpoint.id));
        let asked = Asked { request, certificate, source: peer, listener, purpose };
        let redeeming = Arc::clone(&self.desk).redeem(asked);
        let pass = Arc::clone(pass);
        // A task of its own: what was begun is finished, and counts as long as that takes.
        let redeeming = tokio::spawn(async move {
            let _pass = pass;
            redeeming.await
        });
        // A panic is logged by the runtime.
        let answer = redeeming.await.ok().and_then(|answer| framed(&answer));
        let answer =
            answer.ok_or_else(|| (EnrolmentOutcome::Failed, "no answer could be made".to_owned()))?;
        Ok((transport, answer))
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// One too many of its source is counted there, and says no more.
fn tell(broker: &Broker, endpoint: &Endpoint, peer: PeerAddr, text: &str) {
    let event = SecurityEvent::new(What::LoginFail { method: "enrolment" }, text);
    let event = SecurityEvent { source: Some(peer), listener: Some(&endpoint.id), ..event };
    if broker.security_event(&event, clock::now()) {
        tracing::warn!(%peer, listener = &*endpoint.id, "connection refused: {text}");
    }
}
