//! What can be wrong with a packet: Malformed Packet and Protocol Error (MQTT 5.0 section 4.13), each with the
//! statement it breaks and the Reason Code to answer with; and what cannot be encoded.

use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;

/// Which sort of fault the peer made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecodeErrorKind {
    /// It cannot be parsed by the standard.
    Malformed,
    /// It can be parsed, and is not allowed.
    Protocol,
    /// Larger than the Maximum Packet Size of the receiver.
    PacketTooLarge,
    /// A CONNECT of a protocol this program does not speak.
    UnsupportedVersion,
    /// A CONNECT whose Client Identifier its version does not allow.
    ClientIdentifier,
}

/// A packet was refused: the connection ends (`[MQTT-4.13.1-1]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({statement})")]
pub struct DecodeError {
    /// The sort of fault.
    pub kind: DecodeErrorKind,
    /// What to say in CONNACK or DISCONNECT.
    pub reason: ReasonCode,
    /// The rule that was broken: `[MQTT-…]` or a section of the standard.
    pub statement: &'static str,
    /// The fault in words, for logs and the Reason String.
    pub text: &'static str,
    /// In a refused CONNECT: the version to answer in, as far as it was readable.
    pub version: Option<Version>,
}

impl DecodeError {
    /// A Malformed Packet.
    #[must_use]
    pub const fn malformed(statement: &'static str, text: &'static str) -> Self {
        Self::new(DecodeErrorKind::Malformed, ReasonCode::MalformedPacket, statement, text)
    }

    /// A Protocol Error.
    #[must_use]
    pub const fn protocol(statement: &'static str, text: &'static str) -> Self {
        Self::new(DecodeErrorKind::Protocol, ReasonCode::ProtocolError, statement, text)
    }

    /// Any fault.
    #[must_use]
    pub const fn new(
        kind: DecodeErrorKind,
        reason: ReasonCode,
        statement: &'static str,
        text: &'static str,
    ) -> Self {
        Self { kind, reason, statement, text, version: None }
    }

    /// The Reason Code to answer with.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.reason
    }

    /// The same fault, found in a CONNECT of this version.
    #[must_use]
    pub(crate) const fn of_version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }
}

/// A packet cannot be written: always a fault of the caller, never of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Section 1.5.4, 1.5.6.
    #[error("a string or binary field holds more than 65,535 bytes")]
    FieldTooLong,
    /// `[MQTT-1.5.4-2]`
    #[error("a string holds the null character")]
    Null,
    /// Section 2.1.4.
    #[error("a packet holds more than 268,435,455 bytes")]
    PacketTooLong,
    /// `[MQTT-3.3.2-2]`, `[MQTT-4.7.3-1]`
    #[error("not a Topic Name")]
    TopicName,
    /// `[MQTT-2.2.1-2]`, `[MQTT-2.2.1-3]`
    #[error("a PUBLISH carries a Packet Identifier exactly when its QoS is not 0")]
    PacketIdentifier,
    /// `[MQTT-3.3.1-2]`
    #[error("a PUBLISH with QoS 0 has DUP 0")]
    Duplicate,
    /// `[MQTT-3.8.3-2]`, `[MQTT-3.10.3-2]`
    #[error("at least one Topic Filter or Reason Code is needed")]
    Empty,
    /// `[MQTT-3.8.3-4]`
    #[error("No Local on a Shared Subscription")]
    NoLocalOnShared,
    /// Sections 3.2.2.2 to 3.15.2.1.
    #[error("this Reason Code does not belong into this packet")]
    Reason,
    /// Section 2.2.2.2.
    #[error("these properties do not belong into this packet")]
    Properties,
    /// Section 3.1.
    #[error("these CONNECT fields cannot be said in this version")]
    Connect,
    /// The packet does not exist in this version.
    #[error("this packet does not exist in this version of MQTT")]
    Version,
}
