//! The property table (MQTT 5.0 section 2.2.2.2): identifier, data type, the packets that may carry it and how
//! often; and the one pass that checks a run of properties against it.

use crate::mqtt::error::DecodeError;
use crate::mqtt::error::DecodeErrorKind;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::mqtt::wire;
use crate::mqtt::wire::Reader;

/// Where a run of properties stands: a packet, or the Will inside a CONNECT. The numbers are those of the
/// Control Packet types, so that a context is one bit of a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as the packets")]
pub enum PropertyContext {
    Will = 0,
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    Disconnect = 14,
    Auth = 15,
}

impl PropertyContext {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Data type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Byte,
    TwoByte,
    FourByte,
    Varint,
    Text,
    Binary,
    Pair,
}

/// Declares the identifiers and their rules: number, data type, contexts, contexts where it may be repeated.
macro_rules! property_table {
    ($($name:ident = $id:literal, $kind:ident, [$($context:ident)+], [$($many:ident)*];)+) => {
        /// Property identifier.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "named as in the standard")]
        pub enum PropertyId {
            $($name = $id,)+
        }

        impl PropertyId {
            /// All 27, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The identifier of this number, if the standard defines one.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($id => Some(Self::$name),)+
                    _ => None,
                }
            }

            pub(super) const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)+
                }
            }

            const fn contexts(self) -> u16 {
                match self {
                    $(Self::$name => 0 $(| PropertyContext::$context.bit())+,)+
                }
            }

            const fn repeatable(self) -> u16 {
                match self {
                    $(Self::$name => 0 $(| PropertyContext::$many.bit())*,)+
                }
            }
        }
    };
}

#[rustfmt::skip]
property_table! {
    PayloadFormatIndicator = 0x01, Byte, [Publish Will], [];
    MessageExpiryInterval = 0x02, FourByte, [Publish Will], [];
    ContentType = 0x03, Text, [Publish Will], [];
    ResponseTopic = 0x08, Text, [Publish Will], [];
    CorrelationData = 0x09, Binary, [Publish Will], [];
    SubscriptionIdentifier = 0x0B, Varint, [Publish Subscribe], [Publish];
    SessionExpiryInterval = 0x11, FourByte, [Connect ConnAck Disconnect], [];
    AssignedClientIdentifier = 0x12, Text, [ConnAck], [];
    ServerKeepAlive = 0x13, TwoByte, [ConnAck], [];
    AuthenticationMethod = 0x15, Text, [Connect ConnAck Auth], [];
    AuthenticationData = 0x16, Binary, [Connect ConnAck Auth], [];
    RequestProblemInformation = 0x17, Byte, [Connect], [];
    WillDelayInterval = 0x18, FourByte, [Will], [];
    RequestResponseInformation = 0x19, Byte, [Connect], [];
    ResponseInformation = 0x1A, Text, [ConnAck], [];
    ServerReference = 0x1C, Text, [ConnAck Disconnect], [];
    ReasonString = 0x1F, Text, [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth], [];
    ReceiveMaximum = 0x21, TwoByte, [Connect ConnAck], [];
    TopicAliasMaximum = 0x22, TwoByte, [Connect ConnAck], [];
    TopicAlias = 0x23, TwoByte, [Publish], [];
    MaximumQoS = 0x24, Byte, [ConnAck], [];
    RetainAvailable = 0x25, Byte, [ConnAck], [];
    UserProperty = 0x26, Pair,
        [Connect ConnAck Publish Will PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck Disconnect Auth],
        [Connect ConnAck Publish Will PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck Disconnect Auth];
    MaximumPacketSize = 0x27, FourByte, [Connect ConnAck], [];
    WildcardSubscriptionAvailable = 0x28, Byte, [ConnAck], [];
    SubscriptionIdentifierAvailable = 0x29, Byte, [ConnAck], [];
    SharedSubscriptionAvailable = 0x2A, Byte, [ConnAck], [];
}

impl PropertyId {
    /// Whether a receiver of the message gets it as the sender wrote it.
    pub(super) const fn is_forwarded(self) -> bool {
        !matches!(
            self,
            Self::MessageExpiryInterval
                | Self::SubscriptionIdentifier
                | Self::TopicAlias
                | Self::WillDelayInterval
        )
    }

    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// One property as it stands in the packet: not yet a typed value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) id: PropertyId,
    /// Identifier and value.
    pub(super) bytes: &'a [u8],
    value: RawValue<'a>,
}

#[derive(Debug, Clone, Copy)]
enum RawValue<'a> {
    Number(u32),
    Bytes(&'a [u8]),
    Pair(&'a [u8], &'a [u8]),
}

const CHECKED: &str = "the strings of a property were checked when it was parsed";

impl<'a> Raw<'a> {
    /// Takes one property off the reader; checks its identifier and that it is complete.
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let start = reader.rest();
        // Identifiers are Variable Byte Integers; all that are defined take one byte.
        let id = PropertyId::from_u8(reader.u8()?)
            .ok_or(DecodeError::malformed("section 2.2.2.2", "a property identifier is not known"))?;
        let value = match id.kind() {
            Kind::Byte => RawValue::Number(u32::from(reader.u8()?)),
            Kind::TwoByte => RawValue::Number(u32::from(reader.u16()?)),
            Kind::FourByte => RawValue::Number(reader.u32()?),
            Kind::Varint => RawValue::Number(reader.varint()?),
            Kind::Text | Kind::Binary => RawValue::Bytes(reader.bytes()?),
            Kind::Pair => RawValue::Pair(reader.bytes()?, reader.bytes()?),
        };
        let len = start.len() - reader.rest().len();
        Ok(Self { id, bytes: &start[..len], value })
    }

    pub(super) fn number(&self) -> u32 {
        match self.value {
            RawValue::Number(number) => number,
            RawValue::Bytes(_) | RawValue::Pair(..) => 0,
        }
    }

    pub(super) fn binary(&self) -> &'a [u8] {
        match self.value {
            RawValue::Bytes(bytes) => bytes,
            RawValue::Number(_) | RawValue::Pair(..) => &[],
        }
    }

    pub(super) fn text(&self) -> &'a str {
        std::str::from_utf8(self.binary()).expect(CHECKED)
    }

    pub(super) fn pair(&self) -> (&'a str, &'a str) {
        let RawValue::Pair(name, value) = self.value else { return ("", "") };
        (std::str::from_utf8(name).expect(CHECKED), std::str::from_utf8(value).expect(CHECKED))
    }
}

/// Walks a run that [`check`] has accepted or that was written by us.
#[derive(Debug, Clone)]
pub(super) struct RawProperties<'a>(Reader<'a>);

impl<'a> RawProperties<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }
}

impl<'a> Iterator for RawProperties<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        if self.0.is_empty() {
            return None;
        }
        Raw::read(&mut self.0).ok()
    }
}

/// Checks a run of properties against the table, in one pass and without allocating.
pub(super) fn check(bytes: &[u8], context: PropertyContext) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut seen: u64 = 0;
    while !reader.is_empty() {
        let raw = Raw::read(&mut reader)?;
        check_place(raw.id, context, seen)?;
        check_value(&raw)?;
        seen |= raw.id.bit();
    }
    let data_alone = PropertyId::AuthenticationData.bit();
    if seen & (data_alone | PropertyId::AuthenticationMethod.bit()) == data_alone {
        return Err(DecodeError::protocol("section 3.1.2.11.10", "Authentication Data without a Method"));
    }
    Ok(())
}

fn check_place(id: PropertyId, context: PropertyContext, seen: u64) -> Result<(), DecodeError> {
    if id.contexts() & context.bit() == 0 {
        return Err(DecodeError::malformed("section 2.2.2.2", "a property does not belong into this packet"));
    }
    if seen & id.bit() != 0 && id.repeatable() & context.bit() == 0 {
        return Err(DecodeError::protocol("section 2.2.2.2", "a property stands in the packet twice"));
    }
    Ok(())
}

fn check_value(raw: &Raw<'_>) -> Result<(), DecodeError> {
    match raw.value {
        RawValue::Number(number) => check_number(raw.id, number),
        RawValue::Bytes(_) if raw.id.kind() == Kind::Binary => Ok(()),
        // Response Topic ([MQTT-3.3.2-13]), Content Type ([MQTT-3.3.2-19]) and all others of their kind.
        RawValue::Bytes(bytes) => check_text(raw.id, wire::text(bytes)?),
        RawValue::Pair(name, value) => {
            // [MQTT-1.5.7-1]
            wire::text(name)?;
            wire::text(value)?;
            Ok(())
        }
    }
}

fn check_number(id: PropertyId, number: u32) -> Result<(), DecodeError> {
    match id {
        PropertyId::TopicAlias if number == 0 => Err(DecodeError::new(
            DecodeErrorKind::Protocol,
            ReasonCode::TopicAliasInvalid,
            "[MQTT-3.3.2-8]",
            "a Topic Alias is 0",
        )),
        PropertyId::ReceiveMaximum if number == 0 => {
            Err(DecodeError::protocol("section 3.1.2.11.3", "Receive Maximum is 0"))
        }
        PropertyId::MaximumPacketSize if number == 0 => {
            Err(DecodeError::protocol("section 3.1.2.11.4", "Maximum Packet Size is 0"))
        }
        PropertyId::SubscriptionIdentifier if number == 0 => {
            Err(DecodeError::protocol("section 3.8.2.1.2", "a Subscription Identifier is 0"))
        }
        _ if id.kind() == Kind::Byte && number > 1 => {
            Err(DecodeError::protocol("section 2.2.2.2", "a property is neither 0 nor 1"))
        }
        _ => Ok(()),
    }
}

fn check_text(id: PropertyId, text: &str) -> Result<(), DecodeError> {
    if id == PropertyId::ResponseTopic && topic::check_name(text).is_err() {
        return Err(DecodeError::protocol("[MQTT-3.3.2-14]", "Response Topic is not a Topic Name"));
    }
    Ok(())
}
