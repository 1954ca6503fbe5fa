//! Enhanced authentication (MQTT 5.0 section 4.12): the AUTH packets around [`crate::auth::scram`], before CONNACK and
//! again on a live connection.
//!
//! What is wrong with an exchange is for the log: the client hears 0x87 for every cause.

use std::cell::Cell;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time;
use tokio::time::Instant;

use crate::auth::DenyReason;
use crate::auth::attempts::Held;
use crate::auth::attempts::Source;
use crate::auth::scram;
use crate::auth::scram::Exchange;
use crate::auth::scram::Refusal;
use crate::auth::scram::ScramFile;
use crate::auth::scram::Step;
use crate::broker::Broker;
use crate::broker::accept::Endpoint;
use crate::broker::authenticate::Credentials;
use crate::broker::close::Close;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::login::shown_name;
use crate::broker::packets::Turn;
use crate::config::settings::Role;
use crate::metrics::labels::PacketType as Label;
use crate::metrics::labels::RejectReason;
use crate::mqtt::decode;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::encode;
use crate::mqtt::packet::Auth;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::Version;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::net::transport::Transport;

/// The largest packet read between CONNECT and CONNACK: the longest SCRAM message and its frame.
const AUTH_BYTES_MAX: u32 = 8 * 1024;
/// One read there.
const READ_BYTES: usize = 1024;

/// What a connection needs to authenticate again.
#[derive(Default)]
pub struct Enhanced {
    /// The client's Maximum Packet Size.
    max_packet_size: u32,
    /// The exchange that is going on.
    exchange: Option<Exchange>,
}

impl Enhanced {
    /// For a client with this Maximum Packet Size.
    #[must_use]
    pub fn new(max_packet_size: u32) -> Self {
        Self { max_packet_size, exchange: None }
    }
}

/// A client that proved who it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// The name it proved.
    pub username: String,
    /// Authentication Data of the CONNACK or AUTH that tells it so.
    pub data: Vec<u8>,
}

/// Why there will be no successful CONNACK.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// Neither in time nor with a word: there is nobody to answer.
    Gone(RejectReason),
    /// The method is not offered, or the packets are not what they have to be.
    Violation(ReasonCode),
    /// The exchange failed, for this user if it came so far.
    Refused(Refusal, Option<String>),
    /// Too many attempts failed before: neither challenged nor verified.
    Held(Option<String>),
}

/// The connection of a client between its CONNECT and its CONNACK.
pub struct Desk<'a> {
    /// The transport.
    pub transport: &'a mut Transport,
    /// What came after the packet that was read last.
    pub tail: &'a mut Vec<u8>,
    /// When CONNACK must have been reached.
    pub until: Instant,
}

/// The users of a method, where it is offered. No method is for links: those have certificates (`authn-tls.md` A18).
fn users_of<'a>(method: &str, role: Role, credentials: &'a Credentials) -> Option<&'a ScramFile> {
    credentials.scram.as_deref().filter(|_| method == scram::METHOD && role != Role::Link)
}

/// Lets a client that named this Authentication Method prove who it is.
///
/// # Errors
/// Why it is not let in.
pub async fn authenticate(
    broker: &Broker,
    role: Role,
    peer: PeerAddr,
    desk: &mut Desk<'_>,
    (asked, method): (&Connect<'_>, &str),
) -> Result<Verified, Failed> {
    let credentials = broker.authentication.credentials();
    let users = users_of(method, role, &credentials);
    let users = users.ok_or(Failed::Violation(ReasonCode::BadAuthenticationMethod))?; // [MQTT-4.12.0-1]
    let longest = asked.properties.maximum_packet_size().map_or(u32::MAX, u32::from);
    let (mut exchange, source) = (Exchange::default(), Source::of(peer.ip()));
    let mut message = asked.properties.authentication_data().map(<[u8]>::to_vec);
    // An exchange ends after three messages at most, whatever they are.
    loop {
        match broker.step(&mut exchange, message.as_deref(), users, source) {
            Ok(Step::Done { username, data }) => return Ok(Verified { username, data }),
            Ok(Step::Challenge(data)) => desk.send(broker, &data, longest).await?,
            Err(Stopped::Held(held)) => {
                broker.hold(held).await;
                return Err(Failed::Held(exchange.claimed().map(str::to_owned)));
            }
            Err(Stopped::Refused(refusal)) => {
                return Err(Failed::Refused(refusal, exchange.claimed().map(str::to_owned)));
            }
        }
        message = Some(desk.receive(broker).await?);
    }
}

/// What a client is told that did not prove who it is.
///
/// # Errors
/// The label of a connection that is gone.
pub fn unproved(
    broker: &Broker,
    endpoint: &Endpoint,
    peer: PeerAddr,
    asked: &Connect<'_>,
    failed: Failed,
) -> Result<(ReasonCode, RejectReason), RejectReason> {
    let (refusal, user) = match failed {
        Failed::Gone(label) => return Err(label),
        Failed::Violation(ReasonCode::BadAuthenticationMethod) => {
            return Ok((ReasonCode::BadAuthenticationMethod, RejectReason::NotSupported));
        }
        Failed::Violation(reason) => return Ok((reason, RejectReason::NotAuthorized)),
        Failed::Held(user) => (Refusal::Held, user),
        Failed::Refused(refusal, user) => (refusal, user),
    };
    let held = refusal == Refusal::Held;
    let reason = if held { DenyReason::Held } else { DenyReason::Enhanced };
    broker.metrics.broker.authentication_failures[reason].inc();
    let name = user.as_deref().or(asked.username);
    if !held {
        broker.note_failure(Source::of(peer.ip()), name, clock::now());
    }
    let text = refusal.to_string();
    let event = SecurityEvent {
        identity: shown_name(name),
        source: Some(peer),
        client_id: Some(asked.client_id),
        listener: Some(&endpoint.id),
        ..SecurityEvent::new(What::LoginFail { method: "scram" }, &text)
    };
    let label = (ReasonCode::NotAuthorized, RejectReason::NotAuthorized); // [MQTT-4.12.0-4]
    if !broker.security_event(&event, clock::now()) {
        return Ok(label);
    }
    tracing::warn!(
        event = "authn_login_fail",
        client_id = ?asked.client_id,
        username = ?shown_name(name),
        method = scram::METHOD,
        %peer,
        listener = &*endpoint.id,
        reason = %refusal,
        "connection refused"
    );
    Ok(label)
}

/// Why the next message of an exchange leads nowhere.
enum Stopped {
    /// Too many attempts failed before.
    Held(Held),
    /// It is wrong.
    Refused(Refusal),
}

impl Broker {
    /// Takes the next message of an exchange, unless the name or the source is held: a proof is not looked at then, so that
    /// its answer tells nothing of it. What is verified is over at once, so nothing is reserved for it.
    fn step(
        &self,
        exchange: &mut Exchange,
        message: Option<&[u8]>,
        users: &ScramFile,
        source: Source,
    ) -> Result<Step, Stopped> {
        let held = Cell::new(Held::User);
        let may = |name: &str| match self.check_attempt(source, Some(name)) {
            Ok(()) => true,
            Err(why) => {
                held.set(why);
                false
            }
        };
        self.authentication.step(exchange, message, users, &may).map_err(|refusal| match refusal {
            Refusal::Held => Stopped::Held(held.get()),
            refusal => Stopped::Refused(refusal),
        })
    }
}

impl Desk<'_> {
    async fn send(&mut self, broker: &Broker, data: &[u8], longest: u32) -> Result<(), Failed> {
        let mut bytes = Vec::new();
        put_auth(ReasonCode::ContinueAuthentication, data, longest, &mut bytes).map_err(Failed::Violation)?; // [MQTT-4.12.0-2]
        let writing = async {
            self.transport.write_all(&bytes).await?;
            self.transport.flush().await
        };
        match time::timeout_at(self.until, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failed::Gone(RejectReason::Lost)),
            Err(_) => return Err(Failed::Gone(RejectReason::Timeout)),
        }
        broker.metrics.broker.packets_sent[Label::Auth].inc();
        broker.metrics.broker.bytes_sent.add(bytes.len() as u64);
        Ok(())
    }

    /// The Authentication Data of the AUTH that must come now.
    async fn receive(&mut self, broker: &Broker) -> Result<Vec<u8>, Failed> {
        let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: AUTH_BYTES_MAX };
        loop {
            let came = match decode::decode(self.tail, &limits) {
                Ok(Decoded::Packet { packet, len }) => {
                    broker.metrics.broker.packets_received[Label::from(&packet)].inc();
                    broker.metrics.broker.bytes_received.add(len as u64);
                    Some((answer_of(&packet)?, len))
                }
                Ok(Decoded::NeedMore { .. }) => None,
                Err(error) => return Err(Failed::Violation(error.reason_code())),
            };
            if let Some((data, len)) = came {
                self.tail.drain(..len);
                return Ok(data);
            }
            let kept = self.tail.len();
            self.tail.resize(kept + READ_BYTES, 0);
            match time::timeout_at(self.until, self.transport.read(&mut self.tail[kept..])).await {
                Ok(Ok(count)) if count > 0 => self.tail.truncate(kept + count),
                Ok(_) => return Err(Failed::Gone(RejectReason::Lost)),
                Err(_) => return Err(Failed::Gone(RejectReason::Timeout)),
            }
        }
    }
}

/// Before CONNACK a client of such a method sends AUTH and DISCONNECT only (section 3.1.4).
fn answer_of(packet: &Packet<'_>) -> Result<Vec<u8>, Failed> {
    match packet {
        Packet::Auth(auth) if is_of_the_method(auth) && auth.reason == ReasonCode::ContinueAuthentication => {
            Ok(auth.properties.authentication_data().unwrap_or_default().to_vec()) // [MQTT-4.12.0-3]
        }
        Packet::Disconnect(_) => Err(Failed::Gone(RejectReason::Lost)),
        _ => Err(Failed::Violation(ReasonCode::ProtocolError)),
    }
}

/// `[MQTT-4.12.0-5]`, `[MQTT-4.12.1-1]`: the method of CONNECT, and there is only one.
fn is_of_the_method(auth: &Auth<'_>) -> bool {
    auth.properties.authentication_method() == Some(scram::METHOD)
}

/// Appends an AUTH. It carries no Reason String and no User Property (`[MQTT-3.15.2-2]`, `[MQTT-3.15.2-3]`), and still
/// may be more than the client takes.
fn put_auth(reason: ReasonCode, data: &[u8], longest: u32, out: &mut Vec<u8>) -> Result<(), ReasonCode> {
    let start = out.len();
    let mut properties = PropertiesBuf::new();
    put_properties(data, &mut properties);
    let packet = Packet::Auth(Auth { reason, properties: properties.as_properties() });
    encode::encode(&packet, Version::V5, out).map_err(|_| ReasonCode::UnspecifiedError)?;
    if out.len() - start > longest as usize {
        out.truncate(start);
        return Err(ReasonCode::PacketTooLarge); // [MQTT-3.1.2-24]
    }
    Ok(())
}

/// Adds Authentication Method and Data to an AUTH or a successful CONNACK (`[MQTT-4.12.0-5]`).
pub fn put_properties(data: &[u8], properties: &mut PropertiesBuf) {
    properties.push(Property::AuthenticationMethod(scram::METHOD));
    if !data.is_empty() {
        properties.push(Property::AuthenticationData(data));
    }
}

impl Turn<'_, '_> {
    /// Handles an AUTH of a connected client: it proves again who it is, while everything else goes on.
    pub(super) fn auth(&mut self, auth: &Auth<'_>) -> Result<(), Close> {
        let connection = &mut *self.connection;
        let Some(enhanced) = connection.enhanced.as_deref_mut() else {
            return Err(violation("AUTH without enhanced authentication")); // [MQTT-4.12.0-7]
        };
        if !is_of_the_method(auth) {
            return Err(violation("AUTH with another Authentication Method than CONNECT"));
        }
        let mut exchange = match (auth.reason, enhanced.exchange.take()) {
            (ReasonCode::ReAuthenticate, None) => Exchange::default(),
            (ReasonCode::ContinueAuthentication, Some(exchange)) => exchange,
            _ => return Err(violation("AUTH out of order")),
        };
        let credentials = connection.broker.authentication.credentials();
        let Some(users) = &credentials.scram else {
            let text = "the Authentication Method is not offered any more";
            return Err(Close::Violation(ReasonCode::BadAuthenticationMethod, text));
        };
        let source = Source::of(connection.publisher.identity.peer.ip());
        let data = auth.properties.authentication_data();
        let step = connection.broker.step(&mut exchange, data, users, source);
        let (reason, data) = match step {
            Ok(Step::Challenge(data)) => {
                enhanced.exchange = Some(exchange);
                (ReasonCode::ContinueAuthentication, data)
            }
            Ok(Step::Done { username, data })
                if connection.publisher.identity.username.as_deref() == Some(&*username) =>
            {
                (ReasonCode::Success, data)
            }
            Ok(Step::Done { .. }) => return Err(self.not_again("another user than at CONNECT")),
            Err(Stopped::Held(held)) => {
                connection.broker.metrics.broker.authentication_held[held].inc();
                return Err(self.not_again(&Refusal::Held.to_string()));
            }
            Err(Stopped::Refused(refusal)) => {
                // With the name that was guessed at, which may be another than that of the connection.
                connection.broker.note_failure(source, exchange.claimed(), clock::now());
                return Err(self.not_again(&refusal.to_string()));
            }
        };
        put_auth(reason, &data, enhanced.max_packet_size, &mut connection.answers).map_err(|reason| {
            Close::Violation(reason, "an AUTH larger than the client's Maximum Packet Size")
        })?;
        connection.lent.counts().sent(Label::Auth);
        Ok(())
    }

    /// `[MQTT-4.12.1-2]`: who cannot prove it again is out.
    fn not_again(&self, why: &str) -> Close {
        let connection = &*self.connection;
        connection.broker.metrics.broker.authentication_failures[DenyReason::Enhanced].inc();
        let event = connection.publisher.identity.event(What::LoginFail { method: "scram" });
        let text = format!("re-authentication failed: {why}");
        connection.broker.security_event(&SecurityEvent { description: &text, ..event }, clock::now());
        tracing::warn!(
            event = "authn_again_fail",
            client_id = &*connection.client.id,
            username = connection.publisher.identity.username.as_deref(),
            method = scram::METHOD,
            reason = why,
            "re-authentication failed"
        );
        Close::Violation(ReasonCode::NotAuthorized, "re-authentication failed")
    }
}

fn violation(text: &'static str) -> Close {
    Close::Violation(ReasonCode::ProtocolError, text)
}
