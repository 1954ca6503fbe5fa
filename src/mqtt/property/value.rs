//! A property as a typed value, and its form on the wire.

use crate::mqtt::error::EncodeError;
use crate::mqtt::property::PropertyId;
use crate::mqtt::property::table::Kind;
use crate::mqtt::property::table::Raw;
use crate::mqtt::wire;

/// One property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the standard")]
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(u8),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// What is written behind the identifier.
enum Written<'a> {
    Number(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl<'a> Property<'a> {
    /// Appends identifier and value. A value that has no form on the wire (a string or binary of more than
    /// 65,535 bytes, a string with NUL, a Subscription Identifier above 268,435,455) is left out: what is
    /// written is always readable.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.try_encode(out).is_err() {
            out.truncate(start);
        }
    }

    fn try_encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (id, value) = self.written();
        out.push(id as u8);
        match (id.kind(), value) {
            (Kind::Byte, Written::Number(number)) => out.push(number as u8),
            (Kind::TwoByte, Written::Number(number)) => out.extend_from_slice(&(number as u16).to_be_bytes()),
            (Kind::Varint, Written::Number(number)) if number > wire::VARINT_MAX => {
                return Err(EncodeError::FieldTooLong);
            }
            (Kind::Varint, Written::Number(number)) => wire::put_varint(number, out),
            (_, Written::Number(number)) => out.extend_from_slice(&number.to_be_bytes()),
            (_, Written::Text(text)) => wire::put_text(text, out)?,
            (_, Written::Binary(bytes)) => wire::put_bytes(bytes, out)?,
            (_, Written::Pair(name, value)) => {
                wire::put_text(name, out)?;
                wire::put_text(value, out)?;
            }
        }
        Ok(())
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> PropertyId {
        self.written().0
    }

    const fn written(&self) -> (PropertyId, Written<'a>) {
        use PropertyId as Id;
        use Written::Binary;
        use Written::Number;
        use Written::Text;
        match *self {
            Self::PayloadFormatIndicator(value) => (Id::PayloadFormatIndicator, Number(value as u32)),
            Self::MessageExpiryInterval(value) => (Id::MessageExpiryInterval, Number(value)),
            Self::ContentType(text) => (Id::ContentType, Text(text)),
            Self::ResponseTopic(text) => (Id::ResponseTopic, Text(text)),
            Self::CorrelationData(bytes) => (Id::CorrelationData, Binary(bytes)),
            Self::SubscriptionIdentifier(value) => (Id::SubscriptionIdentifier, Number(value)),
            Self::SessionExpiryInterval(value) => (Id::SessionExpiryInterval, Number(value)),
            Self::AssignedClientIdentifier(text) => (Id::AssignedClientIdentifier, Text(text)),
            Self::ServerKeepAlive(value) => (Id::ServerKeepAlive, Number(value as u32)),
            Self::AuthenticationMethod(text) => (Id::AuthenticationMethod, Text(text)),
            Self::AuthenticationData(bytes) => (Id::AuthenticationData, Binary(bytes)),
            Self::RequestProblemInformation(flag) => (Id::RequestProblemInformation, Number(flag as u32)),
            Self::WillDelayInterval(value) => (Id::WillDelayInterval, Number(value)),
            Self::RequestResponseInformation(flag) => (Id::RequestResponseInformation, Number(flag as u32)),
            Self::ResponseInformation(text) => (Id::ResponseInformation, Text(text)),
            Self::ServerReference(text) => (Id::ServerReference, Text(text)),
            Self::ReasonString(text) => (Id::ReasonString, Text(text)),
            Self::ReceiveMaximum(value) => (Id::ReceiveMaximum, Number(value as u32)),
            Self::TopicAliasMaximum(value) => (Id::TopicAliasMaximum, Number(value as u32)),
            Self::TopicAlias(value) => (Id::TopicAlias, Number(value as u32)),
            Self::MaximumQoS(value) => (Id::MaximumQoS, Number(value as u32)),
            Self::RetainAvailable(flag) => (Id::RetainAvailable, Number(flag as u32)),
            Self::UserProperty(name, value) => (Id::UserProperty, Written::Pair(name, value)),
            Self::MaximumPacketSize(value) => (Id::MaximumPacketSize, Number(value)),
            Self::WildcardSubscriptionAvailable(flag) => {
                (Id::WildcardSubscriptionAvailable, Number(flag as u32))
            }
            Self::SubscriptionIdentifierAvailable(flag) => {
                (Id::SubscriptionIdentifierAvailable, Number(flag as u32))
            }
            Self::SharedSubscriptionAvailable(flag) => (Id::SharedSubscriptionAvailable, Number(flag as u32)),
        }
    }

    /// The typed value of a property of a checked run.
    pub(super) fn from_raw(raw: Raw<'a>) -> Self {
        use PropertyId as Id;
        let number = raw.number();
        let flag = number != 0;
        match raw.id {
            Id::PayloadFormatIndicator => Self::PayloadFormatIndicator(number as u8),
            Id::MessageExpiryInterval => Self::MessageExpiryInterval(number),
            Id::ContentType => Self::ContentType(raw.text()),
            Id::ResponseTopic => Self::ResponseTopic(raw.text()),
            Id::CorrelationData => Self::CorrelationData(raw.binary()),
            Id::SubscriptionIdentifier => Self::SubscriptionIdentifier(number),
            Id::SessionExpiryInterval => Self::SessionExpiryInterval(number),
            Id::AssignedClientIdentifier => Self::AssignedClientIdentifier(raw.text()),
            Id::ServerKeepAlive => Self::ServerKeepAlive(number as u16),
            Id::AuthenticationMethod => Self::AuthenticationMethod(raw.text()),
            Id::AuthenticationData => Self::AuthenticationData(raw.binary()),
            Id::RequestProblemInformation => Self::RequestProblemInformation(flag),
            Id::WillDelayInterval => Self::WillDelayInterval(number),
            Id::RequestResponseInformation => Self::RequestResponseInformation(flag),
            Id::ResponseInformation => Self::ResponseInformation(raw.text()),
            Id::ServerReference => Self::ServerReference(raw.text()),
            Id::ReasonString => Self::ReasonString(raw.text()),
            Id::ReceiveMaximum => Self::ReceiveMaximum(number as u16),
            Id::TopicAliasMaximum => Self::TopicAliasMaximum(number as u16),
            Id::TopicAlias => Self::TopicAlias(number as u16),
            Id::MaximumQoS => Self::MaximumQoS(number as u8),
            Id::RetainAvailable => Self::RetainAvailable(flag),
            Id::UserProperty => {
                let (name, value) = raw.pair();
                Self::UserProperty(name, value)
            }
            Id::MaximumPacketSize => Self::MaximumPacketSize(number),
            Id::WildcardSubscriptionAvailable => Self::WildcardSubscriptionAvailable(flag),
            Id::SubscriptionIdentifierAvailable => Self::SubscriptionIdentifierAvailable(flag),
            Id::SharedSubscriptionAvailable => Self::SharedSubscriptionAvailable(flag),
        }
    }
}
