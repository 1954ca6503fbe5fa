//! The fifteen Control Packets (MQTT 5.0 section 3), one struct each, as views into the bytes they came in.
//! The same structs are encoded on the way out, so that decode and encode are each other's test.

use std::fmt;
use std::num::NonZeroU16;

use smallvec::SmallVec;

use crate::mqtt::property::Properties;
use crate::mqtt::reason::ReasonCode;

/// Protocol version of a Network Connection, fixed by its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1, level 4.
    V311,
    /// MQTT 5.0, level 5.
    V5,
}

/// Quality of Service of a delivery (MQTT 5.0 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// All of them, by number.
    pub const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    /// The QoS of this number, if it is one.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Control Packet type: the high half of the first byte (MQTT 5.0 section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request, from the client.
    Connect = 1,
    /// Its answer, from the server.
    ConnAck = 2,
    /// An Application Message, both ways.
    Publish = 3,
    /// QoS 1 acknowledgement.
    PubAck = 4,
    /// QoS 2, first answer of the receiver.
    PubRec = 5,
    /// QoS 2, release by the sender.
    PubRel = 6,
    /// QoS 2, last answer of the receiver.
    PubComp = 7,
    /// From the client.
    Subscribe = 8,
    /// From the server.
    SubAck = 9,
    /// From the client.
    Unsubscribe = 10,
    /// From the server.
    UnsubAck = 11,
    /// From the client.
    PingReq = 12,
    /// From the server.
    PingResp = 13,
    /// Both ways in 5.0, from the client before.
    Disconnect = 14,
    /// Both ways, MQTT 5.0 only.
    Auth = 15,
}

impl PacketType {
    /// All types, by number.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type of this number; 0 is forbidden.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value).checked_sub(1)?).copied()
    }

    /// The number on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Name for logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnAck => "connack",
            Self::Publish => "publish",
            Self::PubAck => "puback",
            Self::PubRec => "pubrec",
            Self::PubRel => "pubrel",
            Self::PubComp => "pubcomp",
            Self::Subscribe => "subscribe",
            Self::SubAck => "suback",
            Self::Unsubscribe => "unsubscribe",
            Self::UnsubAck => "unsuback",
            Self::PingReq => "pingreq",
            Self::PingResp => "pingresp",
            Self::Disconnect => "disconnect",
            Self::Auth => "auth",
        }
    }

    /// Whether a server may be sent this packet (the table of section 2.1.2, "direction of flow").
    #[must_use]
    pub const fn is_for_server(self) -> bool {
        !matches!(self, Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp)
    }

    /// Whether a client may be sent this packet.
    #[must_use]
    pub const fn is_for_client(self) -> bool {
        !matches!(self, Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq)
    }
}

/// Packet Identifier: never zero (`[MQTT-2.2.1-3]`).
pub type PacketId = NonZeroU16;

/// One Control Packet, borrowing from the buffer it was decoded from or is encoded out of.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet<'a> {
    /// Section 3.1.
    Connect(Box<Connect<'a>>),
    /// Section 3.2.
    ConnAck(ConnAck<'a>),
    /// Section 3.3.
    Publish(Publish<'a>),
    /// Section 3.4.
    PubAck(Ack<'a>),
    /// Section 3.5.
    PubRec(Ack<'a>),
    /// Section 3.6.
    PubRel(Ack<'a>),
    /// Section 3.7.
    PubComp(Ack<'a>),
    /// Section 3.8.
    Subscribe(Subscribe<'a>),
    /// Section 3.9.
    SubAck(SubAck<'a>),
    /// Section 3.10.
    Unsubscribe(Unsubscribe<'a>),
    /// Section 3.11.
    UnsubAck(UnsubAck<'a>),
    /// Section 3.12.
    PingReq,
    /// Section 3.13.
    PingResp,
    /// Section 3.14.
    Disconnect(Disconnect<'a>),
    /// Section 3.15, MQTT 5.0 only.
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Its Control Packet type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT, section 3.1. Its `Debug` form hides the password and leaves out the Will Payload.
#[derive(Clone, PartialEq)]
pub struct Connect<'a> {
    /// Which layout the connection speaks from here on.
    pub version: Version,
    /// Set by the bridge protocol levels 0x83 and 0x84 (mosquitto's `try_private`).
    pub bridge: bool,
    /// Clean Start; Clean Session in 3.1 and 3.1.1.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_seconds: u16,
    /// CONNECT properties (empty before 5.0).
    pub properties: Properties<'a>,
    /// Client Identifier, possibly empty.
    pub client_id: &'a str,
    /// The Will Message.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password: binary data.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("bridge", &self.bridge)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_seconds", &self.keep_alive_seconds)
            .field("properties", &self.properties)
            .field("client_id", &self.client_id)
            .field("will_topic", &self.will.as_ref().map(|will| will.topic))
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "[hidden]"))
            .finish()
    }
}

/// The Will fields of a CONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Properties (empty before 5.0).
    pub properties: Properties<'a>,
    /// Will Topic: a valid Topic Name.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
}

/// CONNACK, section 3.2. For 3.1 and 3.1.1 the encoder maps the Reason Code to a return code.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnAck<'a> {
    /// Session Present.
    pub session_present: bool,
    /// Reason Code.
    pub reason: ReasonCode,
    /// Properties (not sent before 5.0).
    pub properties: Properties<'a>,
}

/// PUBLISH, section 3.3. Topic, properties and payload are slices of the read buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publish<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// A valid Topic Name, or empty when a Topic Alias stands for it.
    pub topic: &'a str,
    /// Present exactly when QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// Properties (empty before 5.0).
    pub properties: Properties<'a>,
    /// Application Message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP, sections 3.4 to 3.7.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ack<'a> {
    /// Packet Identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// Reason Code; success when the packet leaves it out.
    pub reason: ReasonCode,
    /// Properties (empty before 5.0).
    pub properties: Properties<'a>,
}

/// SUBSCRIBE, section 3.8.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Properties (empty before 5.0).
    pub properties: Properties<'a>,
    /// At least one Topic Filter with its options, in order.
    pub filters: SmallVec<[SubscribeFilter<'a>; 2]>,
}

/// One entry of a SUBSCRIBE payload, section 3.8.3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubscribeFilter<'a> {
    /// Topic Filter as written, `$share/…` included: well-formed UTF-8 without NUL, not yet checked as a filter.
    pub filter: &'a str,
    /// Subscription Options.
    pub options: SubscriptionOptions,
}

/// Subscription Options, section 3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// As they stand in a packet (section 3.8.3.1).
    #[must_use]
    pub fn to_u8(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }

    /// From where they stand in a packet; the reserved bits are not looked at.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        Some(Self {
            qos: QoS::from_u8(byte & 0b11)?,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }
}

/// Retain Handling, section 3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages at every subscribe.
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription does not exist yet.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// SUBACK, section 3.9.
#[derive(Debug, Clone, PartialEq)]
pub struct SubAck<'a> {
    /// Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties (not sent before 5.0).
    pub properties: Properties<'a>,
    /// One per filter, in order. Before 5.0 the encoder sends 0x80 for each failure.
    pub reasons: SmallVec<[ReasonCode; 4]>,
}

/// UNSUBSCRIBE, section 3.10.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Properties (empty before 5.0).
    pub properties: Properties<'a>,
    /// At least one Topic Filter.
    pub filters: SmallVec<[&'a str; 2]>,
}

/// UNSUBACK, section 3.11. Before 5.0 it carries no Reason Codes and decodes to an empty list.
#[derive(Debug, Clone, PartialEq)]
pub struct UnsubAck<'a> {
    /// Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties (not sent before 5.0).
    pub properties: Properties<'a>,
    /// One per filter, in order.
    pub reasons: SmallVec<[ReasonCode; 4]>,
}

/// DISCONNECT, section 3.14.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disconnect<'a> {
    /// Reason Code; Normal disconnection when the packet leaves it out.
    pub reason: ReasonCode,
    /// Properties (empty before 5.0).
    pub properties: Properties<'a>,
}

/// AUTH, section 3.15.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auth<'a> {
    /// Reason Code.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}
