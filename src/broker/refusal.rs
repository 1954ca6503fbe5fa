//! What becomes of a connection that is turned away: it is told as far as its protocol allows, counted, and written down.

use crate::auth;
use crate::auth::peer;
use crate::broker::Broker;
use crate::broker::accept::Endpoint;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::identity::Identity;
use crate::broker::linger::linger;
use crate::broker::login::shown_name;
use crate::broker::trace::event::Party;
use crate::metrics::labels::PacketType;
use crate::metrics::labels::RejectReason;
use crate::mqtt::encode;
use crate::mqtt::error::DecodeError;
use crate::mqtt::error::DecodeErrorKind;
use crate::mqtt::packet::ConnAck;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::reason::ReasonCode;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::net::handshake::HandshakeError;
use crate::net::transport::Transport;

/// Why a connection did not become a client's.
pub(super) enum Refused {
    /// It was an enrolment, and is over: all that is to be said was.
    Enrolment,
    /// Not a word of MQTT yet.
    Handshake(HandshakeError),
    /// The transport ended, or CONNECT did not come in time.
    Silent(Transport, RejectReason),
    /// The first packet was no acceptable CONNECT.
    Decode(Transport, DecodeError),
    /// CONNECT was understood and refused.
    Connect {
        transport: Transport,
        answer: Vec<u8>,
        reason: ReasonCode,
        label: RejectReason,
        client_id: Box<str>,
        username: Option<Box<str>>,
    },
}

impl From<HandshakeError> for Refused {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

/// Somebody else's session: to take it over would be to get that client's messages.
pub(super) fn note_foreign_session(broker: &Broker, identity: &Identity) {
    let text = "the session belongs to another user";
    let event = identity.event(What::SessionOfAnother);
    broker.security_event(&SecurityEvent { description: text, ..event }, clock::now());
    tracing::warn!(
        client_id = &*identity.client_id,
        username = identity.username.as_deref(),
        peer = %identity.peer,
        listener = &*identity.listener,
        "connection refused: {text}"
    );
}

/// Counts a failed authentication, and writes it down.
pub(super) fn note(
    broker: &Broker,
    endpoint: &Endpoint,
    peer: PeerAddr,
    asked: &Connect<'_>,
    reason: auth::DenyReason,
    refused_as_peer: Option<peer::Refusal>,
) {
    broker.metrics.broker.authentication_failures[reason].inc();
    let detail = if let Some(refusal) = refused_as_peer {
        broker.metrics.broker.peer_refusals[refusal].inc();
        refusal.name()
    } else {
        reason.name()
    };
    let what = match refused_as_peer {
        Some(refusal) if refusal.is_forgery() => What::LinkForgery,
        _ => What::LoginFail { method: reason.method() },
    };
    let event = SecurityEvent {
        identity: shown_name(asked.username),
        source: Some(peer),
        client_id: Some(asked.client_id),
        listener: Some(&endpoint.id),
        ..SecurityEvent::new(what, detail)
    };
    if !broker.security_event(&event, clock::now()) {
        return; // One too many of its source, which is counted there.
    }
    tracing::warn!(
        event = what.name().name(),
        client_id = ?asked.client_id,
        username = ?shown_name(asked.username),
        %peer,
        listener = &*endpoint.id,
        reason = detail,
        "connection refused"
    );
}

/// A CONNACK.
pub(super) fn connack(
    version: Version,
    session_present: bool,
    reason: ReasonCode,
    properties: Properties<'_>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let packet = Packet::ConnAck(ConnAck { session_present, reason, properties });
    if let Err(error) = encode::encode(&packet, version, &mut bytes) {
        tracing::error!(%error, %reason, "a CONNACK could not be encoded");
    }
    bytes
}

/// Tells the client as far as its protocol allows, counts it, and closes (`[MQTT-3.2.2-7]`). What came behind the
/// CONNECT is never looked at (`[MQTT-3.1.4-6]`).
pub(super) async fn answer(broker: &Broker, endpoint: &Endpoint, peer: PeerAddr, refused: Refused) {
    let listener = &*endpoint.id;
    let rejected = &broker.metrics.broker.connections_rejected;
    let told = |client_id: &str, username: Option<&str>, reason: RejectReason, code| {
        let party = Party { client_id, username, peer };
        broker.trace_refused(party, listener, reason.name(), code, clock::now());
    };
    let failed = |method, client_id, identity, description: &str| {
        let (source, listener) = (Some(peer), Some(listener));
        let event = SecurityEvent::new(What::LoginFail { method }, description);
        broker.security_event(&SecurityEvent { identity, source, client_id, listener, ..event }, clock::now())
    };
    match refused {
        Refused::Enrolment => rejected[RejectReason::Enrolment].inc(),
        Refused::Handshake(error) => {
            rejected[error.reject_reason()].inc();
            told("", None, error.reject_reason(), None);
            let of_tls = error.reject_reason() == RejectReason::TlsHandshake;
            // One too many of its source is counted, and says no more.
            if !of_tls || failed("tls", None, None, &error.to_string()) {
                tracing::warn!(%peer, listener, "connection refused: {error}");
            }
        }
        Refused::Silent(transport, label) => {
            rejected[label].inc();
            told("", None, label, None);
            tracing::debug!(%peer, listener, reason = label.name(), "connection closed before its CONNECT");
            drop(transport);
        }
        Refused::Decode(transport, error) => {
            rejected[decode_label(&error)].inc();
            told("", None, decode_label(&error), Some(error.reason_code()));
            tracing::warn!(%peer, listener, "connection refused: {error}");
            say_no(broker, transport, answer_to_malformed(&error)).await;
        }
        Refused::Connect { transport, answer, reason, label, client_id, username } => {
            rejected[label].inc();
            told(&client_id, username.as_deref(), label, Some(reason));
            if label == RejectReason::Banned {
                failed("banned", Some(&client_id), username.as_deref(), "the client is banned");
            }
            tracing::info!(%peer, listener, %reason, cause = label.name(), "CONNECT refused");
            say_no(broker, transport, answer).await;
        }
    }
}

/// The CONNACK for a CONNECT that could not be read to its end. One that is no MQTT at all gets none (section
/// 4.13.1); neither does a fault that 3.x has no return code for: there the connection just ends.
fn answer_to_malformed(error: &DecodeError) -> Vec<u8> {
    let reason = error.reason_code();
    match error.version {
        Some(version) if version == Version::V5 || reason.connack_return_code().is_some() => {
            connack(version, false, reason, Properties::EMPTY)
        }
        _ => Vec::new(),
    }
}

async fn say_no(broker: &Broker, transport: Transport, answer: Vec<u8>) {
    if !answer.is_empty() {
        broker.metrics.broker.packets_sent[PacketType::ConnAck].inc();
        broker.metrics.broker.bytes_sent.add(answer.len() as u64);
    }
    linger(transport, answer).await;
}

fn decode_label(error: &DecodeError) -> RejectReason {
    match error.kind {
        DecodeErrorKind::UnsupportedVersion => RejectReason::UnsupportedVersion,
        DecodeErrorKind::ClientIdentifier => RejectReason::ClientIdentifier,
        _ => RejectReason::MalformedConnect,
    }
}
