//! Reason Strings: what a refusal says beside its Reason Code, where that helps whoever writes the client. Never
//! which rule denied, nor anything about other clients. Left out where the packet would outgrow the client's
//! Maximum Packet Size (`[MQTT-3.2.2-19]`, `[MQTT-3.4.2-2]`, `[MQTT-3.5.2-2]`, `[MQTT-3.9.2-1]`,
//! `[MQTT-3.14.2-3]`) or the client asked for none (`[MQTT-3.1.2-29]`). User Properties of its own the broker sends none,
//! so no packet outgrows the client by them (`[MQTT-3.2.2-20]`, `[MQTT-3.4.2-3]`, `[MQTT-3.5.2-3]`, `[MQTT-3.9.2-2]`,
//! `[MQTT-3.14.2-4]`).

use crate::mqtt::encode;
use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::ConnAck;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;

/// Whether a connection gets Reason Strings, and the longest packet it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonStrings {
    welcome: bool,
    longest: usize,
}

impl ReasonStrings {
    /// By what CONNECT said.
    #[must_use]
    pub fn new(version: Version, problem_information: bool, max_packet_size: u32) -> Self {
        let welcome = version == Version::V5 && problem_information;
        Self { welcome, longest: max_packet_size as usize }
    }

    /// Whether the client takes a packet of this length (`[MQTT-3.1.2-24]`).
    #[must_use]
    pub fn fits(self, length: usize) -> bool {
        length <= self.longest
    }

    /// Appends the packet with this Reason String, or without it if it is not welcome or does not fit.
    ///
    /// # Errors
    /// The packet cannot be encoded.
    pub fn encode(
        self,
        text: Option<&str>,
        version: Version,
        out: &mut Vec<u8>,
        packet: impl Fn(Properties<'_>) -> Packet<'_>,
    ) -> Result<(), EncodeError> {
        if let Some(text) = text.filter(|_| self.welcome) {
            let start = out.len();
            let mut properties = PropertiesBuf::new();
            properties.push(Property::ReasonString(text));
            encode::encode(&packet(properties.as_properties()), version, out)?;
            if self.fits(out.len() - start) {
                return Ok(());
            }
            out.truncate(start);
        }
        encode::encode(&packet(Properties::EMPTY), version, out)
    }
}

/// What a SUBACK says about a filter that was refused.
#[must_use]
pub fn of_subscribe(reason: ReasonCode) -> Option<&'static str> {
    match reason {
        ReasonCode::NotAuthorized => Some("not authorized to subscribe"),
        ReasonCode::TopicFilterInvalid => Some("a Topic Filter is not valid here or has too many levels"),
        ReasonCode::QuotaExceeded => Some("no more subscriptions of this kind"),
        ReasonCode::SharedSubscriptionsNotSupported => Some("Shared Subscriptions are switched off"),
        ReasonCode::WildcardSubscriptionsNotSupported => Some("wildcards are switched off"),
        _ => None,
    }
}

/// What a PUBACK or PUBREC says about a message that was refused.
#[must_use]
pub fn of_publish(reason: ReasonCode) -> Option<&'static str> {
    match reason {
        ReasonCode::NotAuthorized => Some("not authorized to publish"),
        ReasonCode::QuotaExceeded => Some("what would hold the message is full"),
        ReasonCode::PayloadFormatInvalid => Some("the payload is not UTF-8, as it says it is"),
        ReasonCode::TopicNameInvalid => Some("the Topic Name is not valid here"),
        _ => None,
    }
}

fn of_connect(reason: ReasonCode) -> Option<&'static str> {
    match reason {
        ReasonCode::BadAuthenticationMethod => Some("this Authentication Method is not offered here"),
        ReasonCode::ProtocolError => Some("only AUTH of the same method may come before CONNACK"),
        ReasonCode::ClientIdentifierNotValid => Some("the Client Identifier is too long or not printable"),
        ReasonCode::QoSNotSupported => Some("the Will has a higher QoS than is offered"),
        ReasonCode::QuotaExceeded => Some("there is no room for another client"),
        ReasonCode::ServerBusy => Some("too much to do: try again later"),
        ReasonCode::RetainNotSupported => Some("the Will is retained, which is not offered"),
        _ => None,
    }
}

/// A CONNACK that refuses; nothing where the client's version has no code for it, or the client takes no packet
/// of that length.
#[must_use]
pub fn refusal(asked: &Connect<'_>, reason: ReasonCode) -> Vec<u8> {
    if asked.version != Version::V5 && reason.connack_return_code().is_none() {
        return Vec::new();
    }
    let wanted = asked.properties.request_problem_information().unwrap_or(true);
    let longest = asked.properties.maximum_packet_size().map_or(u32::MAX, u32::from);
    let strings = ReasonStrings::new(asked.version, wanted, longest);
    let mut bytes = Vec::new();
    let encoded = strings.encode(of_connect(reason), asked.version, &mut bytes, |properties| {
        Packet::ConnAck(ConnAck { session_present: false, reason, properties })
    });
    if let Err(error) = encoded {
        tracing::error!(%error, %reason, "a CONNACK could not be encoded");
    }
    if strings.fits(bytes.len()) { bytes } else { Vec::new() }
}
