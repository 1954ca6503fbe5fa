//! From CONNECT to CONNACK (sections 3.1 and 3.2): what a client asks for, what the Server grants.

use std::sync::Arc;

use crate::mqtt::packet::Connect;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::packet::Will;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::time::Now;

/// What the Server offers every client: the `[mqtt]` settings that CONNECT and CONNACK speak about.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerLimits {
    /// Maximum Packet Size we accept, in bytes.
    pub max_packet_size: u32,
    /// Longest Client Identifier, in bytes.
    pub max_clientid_len: usize,
    /// Topic Alias Maximum.
    pub max_topic_alias: u16,
    /// Retain Available.
    pub retain_available: bool,
    /// Wildcard Subscription Available.
    pub wildcard_subscription: bool,
    /// Shared Subscription Available.
    pub shared_subscription: bool,
    /// Maximum QoS.
    pub max_qos: QoS,
    /// Server Keep Alive in seconds.
    pub server_keep_alive_seconds: Option<u16>,
    /// The Keep Alive is over after this many intervals of silence; the standard says one and a half.
    pub keep_alive_multiplier: f64,
    /// Session Expiry Interval of a 3.x session that is not clean, in seconds.
    pub session_expiry_v3_seconds: u32,
    /// Receive Maximum, both ways.
    pub max_inflight: u16,
    /// Response Information for clients that ask for it; empty is none.
    pub response_information: String,
}

/// What CONNECT and the limits come to.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// Protocol version.
    pub version: Version,
    /// Client Identifier, assigned if the client sent none.
    pub client_id: Arc<str>,
    /// Whether we chose it.
    pub assigned: bool,
    /// Clean Start.
    pub clean_start: bool,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub session_expiry_seconds: u32,
    /// Keep Alive in force, in seconds; 0 is off.
    pub keep_alive_seconds: u16,
    /// The client's Receive Maximum, lowered to ours.
    pub receive_maximum: u16,
    /// The client's Maximum Packet Size.
    pub max_packet_size: u32,
    /// Request Problem Information: whether Reason Strings are welcome (`[MQTT-3.1.2-29]`).
    pub problem_information: bool,
    /// The client's Topic Alias Maximum; 0 before 5.0 (`[MQTT-3.1.2-27]`).
    pub topic_alias_maximum: u16,
    /// The Will Message.
    pub will: Option<WillRequest>,
}

/// A Will as the session keeps it.
#[derive(Debug, Clone)]
pub struct WillRequest {
    /// The message to publish.
    pub message: Arc<Message>,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
}

/// Session Expiry Interval that never passes (section 3.1.2.11.2).
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// Checks a CONNECT against the limits. `fresh_id` becomes the Client Identifier of a client that sent none.
///
/// # Errors
/// The Reason Code to refuse the connection with.
pub fn negotiate(
    connect: &Connect<'_>,
    limits: &ServerLimits,
    fresh_id: &str,
    now: Now,
) -> Result<Negotiated, ReasonCode> {
    let properties = connect.properties;
    if properties.authentication_method().is_some() {
        // [MQTT-4.12.0-1]: no enhanced authentication method is configured.
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    let assigned = connect.client_id.is_empty();
    if connect.client_id.len() > limits.max_clientid_len || has_control(connect.client_id) {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    Ok(Negotiated {
        version: connect.version,
        client_id: Arc::from(if assigned { fresh_id } else { connect.client_id }),
        assigned,
        clean_start: connect.clean_start,
        session_expiry_seconds: session_expiry(connect, limits),
        keep_alive_seconds: limits.server_keep_alive_seconds.unwrap_or(connect.keep_alive_seconds),
        receive_maximum: properties.receive_maximum().map_or(u16::MAX, u16::from).min(limits.max_inflight),
        max_packet_size: properties.maximum_packet_size().map_or(u32::MAX, u32::from),
        problem_information: properties.request_problem_information().unwrap_or(true),
        topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
        will: connect.will.as_ref().map(|will| will_request(will, limits, now)).transpose()?,
    })
}

/// Control characters would let one identifier look like another, or like a second line, in a log.
fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn session_expiry(connect: &Connect<'_>, limits: &ServerLimits) -> u32 {
    match connect.version {
        Version::V5 => connect.properties.session_expiry_interval().unwrap_or(0),
        Version::V31 | Version::V311 if connect.clean_start => 0,
        Version::V31 | Version::V311 => limits.session_expiry_v3_seconds,
    }
}

fn will_request(will: &Will<'_>, limits: &ServerLimits, now: Now) -> Result<WillRequest, ReasonCode> {
    if will.qos > limits.max_qos {
        return Err(ReasonCode::QoSNotSupported); // [MQTT-3.2.2-12]
    }
    if will.retain && !limits.retain_available {
        return Err(ReasonCode::RetainNotSupported); // [MQTT-3.2.2-13]
    }
    let properties = will.properties.forwarded();
    let publication = Publication {
        topic: will.topic,
        properties: &properties,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        expiry: will
            .properties
            .message_expiry_interval()
            .map(|interval_seconds| Expiry { interval_seconds, received_mono_ms: now.mono_ms }),
    };
    let delay_seconds = will.properties.will_delay_interval().unwrap_or(0);
    Ok(WillRequest { message: Message::keep(&publication), delay_seconds })
}

/// The properties of a successful CONNACK: only what differs from what the client would assume.
#[must_use]
pub fn connack_properties(
    negotiated: &Negotiated,
    asked: &Connect<'_>,
    limits: &ServerLimits,
) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    if negotiated.version != Version::V5 {
        return properties;
    }
    properties.push(Property::ReceiveMaximum(limits.max_inflight));
    if limits.max_qos != QoS::ExactlyOnce {
        properties.push(Property::MaximumQoS(limits.max_qos as u8));
    }
    if !limits.retain_available {
        properties.push(Property::RetainAvailable(false));
    }
    properties.push(Property::MaximumPacketSize(limits.max_packet_size));
    if negotiated.assigned {
        properties.push(Property::AssignedClientIdentifier(&negotiated.client_id)); // [MQTT-3.1.3-7]
    }
    if limits.max_topic_alias > 0 {
        properties.push(Property::TopicAliasMaximum(limits.max_topic_alias));
    }
    if !limits.wildcard_subscription {
        properties.push(Property::WildcardSubscriptionAvailable(false));
    }
    if !limits.shared_subscription {
        properties.push(Property::SharedSubscriptionAvailable(false));
    }
    if negotiated.keep_alive_seconds != asked.keep_alive_seconds {
        properties.push(Property::ServerKeepAlive(negotiated.keep_alive_seconds)); // [MQTT-3.1.2-21]
    }
    let asked_for_it = asked.properties.request_response_information() == Some(true);
    if asked_for_it && !limits.response_information.is_empty() {
        properties.push(Property::ResponseInformation(&limits.response_information)); // [MQTT-3.1.2-28]
    }
    properties
}

/// How long a connection may be silent, in milliseconds, or `None` when Keep Alive is off (`[MQTT-3.1.2-22]`).
#[must_use]
pub fn silence_allowed_ms(keep_alive_seconds: u16, multiplier: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 65,535 s times the multiplier"
    )]
    let allowed = (f64::from(keep_alive_seconds) * 1000.0 * multiplier.max(1.0)) as u64;
    (keep_alive_seconds > 0).then_some(allowed)
}
