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
    /// The longest Keep Alive in seconds; `None` takes any, and none at all.
    pub max_keep_alive_seconds: Option<u16>,
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
    /// Whether CONNACK has room for Response Information.
    pub response_information: bool,
    /// The Will Message.
    pub will: Option<WillRequest>,
}

/// Why a CONNECT is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The Client Identifier is too long, or has control characters.
    ClientIdentifier,
    /// The Keep Alive is above the maximum, and this version has no way to name another.
    KeepAlive,
    /// The Will asks for what is not offered.
    Will(ReasonCode),
}

impl Refusal {
    /// What the client is told. For its Keep Alive 3.x has no return code; mosquitto says "identifier rejected", and whoever
    /// moves from there knows it.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::ClientIdentifier | Self::KeepAlive => ReasonCode::ClientIdentifierNotValid,
            Self::Will(reason) => reason,
        }
    }
}

/// A Will as the session keeps it.
#[derive(Debug, Clone)]
pub struct WillRequest {
    /// The message to publish.
    pub message: Message,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
}

/// Session Expiry Interval that never passes (section 3.1.2.11.2).
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// Checks a CONNECT against the limits. `fresh_id` becomes the Client Identifier of a client that sent none.
///
/// # Errors
/// Why the connection is to be refused.
pub fn negotiate(
    connect: &Connect<'_>,
    limits: &ServerLimits,
    fresh_id: &str,
    now: Now,
) -> Result<Negotiated, Refusal> {
    let properties = connect.properties;
    let assigned = connect.client_id.is_empty(); // [MQTT-3.1.3-6]
    // [MQTT-3.1.3-5]: `max_clientid_len` is never below 23, and all letters and digits pass. [MQTT-3.1.3-8]
    if connect.client_id.len() > limits.max_clientid_len || has_control(connect.client_id) {
        return Err(Refusal::ClientIdentifier);
    }
    let will = connect.will.as_ref().map(|will| will_request(will, limits, now));
    Ok(Negotiated {
        version: connect.version,
        client_id: Arc::from(if assigned { fresh_id } else { connect.client_id }),
        assigned,
        clean_start: connect.clean_start,
        session_expiry_seconds: session_expiry(connect, limits),
        keep_alive_seconds: keep_alive(connect, limits).ok_or(Refusal::KeepAlive)?,
        receive_maximum: properties.receive_maximum().map_or(u16::MAX, u16::from).min(limits.max_inflight),
        max_packet_size: properties.maximum_packet_size().map_or(u32::MAX, u32::from),
        problem_information: properties.request_problem_information().unwrap_or(true),
        topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
        response_information: properties.request_response_information() == Some(true), // [MQTT-3.1.2-28]
        will: will.transpose().map_err(Refusal::Will)?,
    })
}

/// Control characters would let one identifier look like another, or like a second line, in a log.
fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The Server's own interval where there is one and the client can be told of it, else the client's
/// (`[MQTT-3.2.2-22]`): whoever speaks 3.x and pings by its own would be closed for it. Above the maximum, 0 included, 5.0 is told of
/// the maximum, and 3.x is refused for the same reason: `None`.
fn keep_alive(connect: &Connect<'_>, limits: &ServerLimits) -> Option<u16> {
    let wanted = match (connect.version, limits.server_keep_alive_seconds) {
        (Version::V5, Some(seconds)) => seconds,
        _ => connect.keep_alive_seconds,
    };
    match limits.max_keep_alive_seconds {
        Some(most) if wanted == 0 || wanted > most => (connect.version == Version::V5).then_some(most),
        _ => Some(wanted),
    }
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
    let properties = will.properties.forwarded(); // [MQTT-3.1.3-10]: as they stand
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
    // [MQTT-3.2.2-9]
    if limits.max_qos != QoS::ExactlyOnce {
        properties.push(Property::MaximumQoS(limits.max_qos as u8));
    }
    if !limits.retain_available {
        properties.push(Property::RetainAvailable(false));
    }
    properties.push(Property::MaximumPacketSize(limits.max_packet_size));
    if negotiated.assigned {
        properties.push(Property::AssignedClientIdentifier(&negotiated.client_id)); // [MQTT-3.1.3-7], [MQTT-3.2.2-16]
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
    if negotiated.response_information && !limits.response_information.is_empty() {
        properties.push(Property::ResponseInformation(&limits.response_information));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::property::Properties;

    /// `[MQTT-3.1.2-22]`
    #[test]
    fn silence_is_allowed_for_one_and_a_half_intervals() {
        assert_eq!(silence_allowed_ms(10, 1.5), Some(15_000));
        assert_eq!(silence_allowed_ms(u16::MAX, 1.5), Some(98_302_500));
        assert_eq!(silence_allowed_ms(0, 1.5), None, "0 is off");
    }

    /// `[MQTT-3.2.2-22]`
    #[test]
    fn the_clients_interval_holds_where_the_server_has_none_or_cannot_say_it() {
        let asked = |version, keep_alive_seconds| Connect {
            version,
            bridge: false,
            clean_start: true,
            keep_alive_seconds,
            properties: Properties::EMPTY,
            client_id: "c",
            will: None,
            username: None,
            password: None,
        };
        let with = |server_keep_alive_seconds, max_keep_alive_seconds| ServerLimits {
            max_packet_size: 1_000,
            max_clientid_len: 23,
            max_topic_alias: 0,
            retain_available: true,
            wildcard_subscription: true,
            shared_subscription: true,
            max_qos: QoS::ExactlyOnce,
            server_keep_alive_seconds,
            max_keep_alive_seconds,
            keep_alive_multiplier: 1.5,
            session_expiry_v3_seconds: 0,
            max_inflight: 1,
            response_information: String::new(),
        };
        let granted = |version, wanted, server, most| {
            let limits = with(server, most);
            negotiate(&asked(version, wanted), &limits, "fresh", Now::default())
                .map(|granted| granted.keep_alive_seconds)
        };
        for (version, server, expected) in [
            (Version::V5, None, 60),
            (Version::V5, Some(30), 30),
            (Version::V311, None, 60),
            (Version::V311, Some(30), 60),
            (Version::V31, Some(30), 60),
        ] {
            assert_eq!(granted(version, 60, server, None), Ok(expected), "{version:?} {server:?}");
        }
        for version in [Version::V31, Version::V311, Version::V5] {
            for within in [1, 59, 60] {
                assert_eq!(granted(version, within, None, Some(60)), Ok(within), "{version:?}");
            }
            let told = if version == Version::V5 { Ok(60) } else { Err(Refusal::KeepAlive) };
            for beyond in [0, 61, u16::MAX] {
                assert_eq!(granted(version, beyond, None, Some(60)), told, "{version:?} {beyond}");
            }
        }
        assert_eq!(
            granted(Version::V5, 0, Some(90), Some(60)),
            Ok(60),
            "the maximum holds for the Server too"
        );
    }
}
