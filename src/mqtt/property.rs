//! MQTT 5.0 properties (section 2.2.2) as views: [`Properties`] is a run of bytes that was checked once, against
//! the packet it came in, and is read from there in place. [`PropertiesBuf`] makes such a run.
//!
//! Which property may stand where is in `property/table.rs`, the typed values are in `property/value.rs`.

mod table;
mod value;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU16;
use std::num::NonZeroU32;

use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::QoS;

pub use table::PropertyContext;
pub use table::PropertyId;
pub use value::Property;

use table::Raw;
use table::RawProperties;

/// A validated run of properties, without its length prefix. Its `Debug` form hides Authentication Data.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self(&[]);

    /// Checks a run of properties: each belongs into `context`, is complete, has a value in its range, and
    /// stands there once unless it may be repeated; strings are UTF-8 without NUL.
    pub fn parse(bytes: &'a [u8], context: PropertyContext) -> Result<Self, DecodeError> {
        if !bytes.is_empty() {
            table::check(bytes, context)?;
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a length prefix.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every property, in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        self.raw().map(Property::from_raw)
    }

    /// Payload Format Indicator: 1 says the payload is UTF-8.
    #[must_use]
    pub fn payload_format_indicator(&self) -> Option<u8> {
        self.number(PropertyId::PayloadFormatIndicator).map(|number| number as u8)
    }

    /// Message Expiry Interval, in seconds.
    #[must_use]
    pub fn message_expiry_interval(&self) -> Option<u32> {
        self.number(PropertyId::MessageExpiryInterval)
    }

    /// Content Type.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        self.text(PropertyId::ContentType)
    }

    /// Response Topic: a valid Topic Name.
    #[must_use]
    pub fn response_topic(&self) -> Option<&'a str> {
        self.text(PropertyId::ResponseTopic)
    }

    /// Correlation Data.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.bytes(PropertyId::CorrelationData)
    }

    /// Subscription Identifiers: one in a SUBSCRIBE, any number in a PUBLISH.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.raw().filter(|raw| raw.id == PropertyId::SubscriptionIdentifier).map(|raw| raw.number())
    }

    /// Session Expiry Interval, in seconds; the largest value means never.
    #[must_use]
    pub fn session_expiry_interval(&self) -> Option<u32> {
        self.number(PropertyId::SessionExpiryInterval)
    }

    /// Assigned Client Identifier.
    #[must_use]
    pub fn assigned_client_identifier(&self) -> Option<&'a str> {
        self.text(PropertyId::AssignedClientIdentifier)
    }

    /// Server Keep Alive, in seconds.
    #[must_use]
    pub fn server_keep_alive(&self) -> Option<u16> {
        self.number(PropertyId::ServerKeepAlive).map(|number| number as u16)
    }

    /// Authentication Method.
    #[must_use]
    pub fn authentication_method(&self) -> Option<&'a str> {
        self.text(PropertyId::AuthenticationMethod)
    }

    /// Authentication Data: secret.
    #[must_use]
    pub fn authentication_data(&self) -> Option<&'a [u8]> {
        self.bytes(PropertyId::AuthenticationData)
    }

    /// Request Problem Information.
    #[must_use]
    pub fn request_problem_information(&self) -> Option<bool> {
        self.flag(PropertyId::RequestProblemInformation)
    }

    /// Will Delay Interval, in seconds.
    #[must_use]
    pub fn will_delay_interval(&self) -> Option<u32> {
        self.number(PropertyId::WillDelayInterval)
    }

    /// Request Response Information.
    #[must_use]
    pub fn request_response_information(&self) -> Option<bool> {
        self.flag(PropertyId::RequestResponseInformation)
    }

    /// Response Information.
    #[must_use]
    pub fn response_information(&self) -> Option<&'a str> {
        self.text(PropertyId::ResponseInformation)
    }

    /// Server Reference.
    #[must_use]
    pub fn server_reference(&self) -> Option<&'a str> {
        self.text(PropertyId::ServerReference)
    }

    /// Reason String.
    #[must_use]
    pub fn reason_string(&self) -> Option<&'a str> {
        self.text(PropertyId::ReasonString)
    }

    /// Receive Maximum.
    #[must_use]
    pub fn receive_maximum(&self) -> Option<NonZeroU16> {
        self.number(PropertyId::ReceiveMaximum).and_then(|number| NonZeroU16::new(number as u16))
    }

    /// Topic Alias Maximum.
    #[must_use]
    pub fn topic_alias_maximum(&self) -> Option<u16> {
        self.number(PropertyId::TopicAliasMaximum).map(|number| number as u16)
    }

    /// Topic Alias.
    #[must_use]
    pub fn topic_alias(&self) -> Option<NonZeroU16> {
        self.number(PropertyId::TopicAlias).and_then(|number| NonZeroU16::new(number as u16))
    }

    /// Maximum QoS: 0 or 1.
    #[must_use]
    pub fn maximum_qos(&self) -> Option<QoS> {
        self.number(PropertyId::MaximumQoS).and_then(|number| QoS::from_u8(number as u8))
    }

    /// Retain Available.
    #[must_use]
    pub fn retain_available(&self) -> Option<bool> {
        self.flag(PropertyId::RetainAvailable)
    }

    /// User Properties, in order (`[MQTT-3.3.2-18]`).
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.raw().filter(|raw| raw.id == PropertyId::UserProperty).map(|raw| raw.pair())
    }

    /// Maximum Packet Size, in bytes.
    #[must_use]
    pub fn maximum_packet_size(&self) -> Option<NonZeroU32> {
        self.number(PropertyId::MaximumPacketSize).and_then(NonZeroU32::new)
    }

    /// Wildcard Subscription Available.
    #[must_use]
    pub fn wildcard_subscription_available(&self) -> Option<bool> {
        self.flag(PropertyId::WildcardSubscriptionAvailable)
    }

    /// Subscription Identifier Available.
    #[must_use]
    pub fn subscription_identifier_available(&self) -> Option<bool> {
        self.flag(PropertyId::SubscriptionIdentifierAvailable)
    }

    /// Shared Subscription Available.
    #[must_use]
    pub fn shared_subscription_available(&self) -> Option<bool> {
        self.flag(PropertyId::SharedSubscriptionAvailable)
    }

    /// What a PUBLISH passes on to its receivers unaltered and in order (`[MQTT-3.3.2-4]`, `[MQTT-3.3.2-15]`,
    /// `[MQTT-3.3.2-16]`, `[MQTT-3.3.2-17]`, `[MQTT-3.3.2-18]`, `[MQTT-3.3.2-20]`): all but Message Expiry Interval, Topic Alias, Subscription Identifier, which are written anew
    /// for each receiver, and a Will's own Will Delay Interval. Borrowed as long as nothing has to be cut out.
    #[must_use]
    pub fn forwarded(&self) -> Cow<'a, [u8]> {
        if self.raw().all(|raw| raw.id.is_forwarded()) {
            return Cow::Borrowed(self.0);
        }
        let mut kept = Vec::with_capacity(self.0.len());
        for raw in self.raw().filter(|raw| raw.id.is_forwarded()) {
            kept.extend_from_slice(raw.bytes);
        }
        Cow::Owned(kept)
    }

    /// The same behind one another in `out`, which has to be as long as all properties together; how many bytes those
    /// that are passed on took.
    pub fn forwarded_into(&self, out: &mut [u8]) -> usize {
        let mut end = 0;
        for raw in self.raw().filter(|raw| raw.id.is_forwarded()) {
            out[end..end + raw.bytes.len()].copy_from_slice(raw.bytes);
            end += raw.bytes.len();
        }
        end
    }

    /// What a Server asks of the properties of every PUBLISH, in one pass.
    #[must_use]
    pub fn of_publish(&self) -> PublishProperties {
        let mut of = PublishProperties { all_forwarded: true, ..PublishProperties::default() };
        for raw in self.raw() {
            match raw.id {
                PropertyId::TopicAlias => of.topic_alias = NonZeroU16::new(raw.number() as u16),
                PropertyId::MessageExpiryInterval => of.message_expiry_interval = Some(raw.number()),
                PropertyId::PayloadFormatIndicator => of.is_text = raw.number() == 1,
                PropertyId::SubscriptionIdentifier => of.subscription_identifier = true,
                _ => {}
            }
            of.all_forwarded &= raw.id.is_forwarded();
        }
        of
    }

    fn raw(&self) -> RawProperties<'a> {
        RawProperties::new(self.0)
    }

    fn find(&self, id: PropertyId) -> Option<Raw<'a>> {
        self.raw().find(|raw| raw.id == id)
    }

    fn number(&self, id: PropertyId) -> Option<u32> {
        self.find(id).map(|raw| raw.number())
    }

    fn flag(&self, id: PropertyId) -> Option<bool> {
        self.number(id).map(|number| number != 0)
    }

    fn text(&self, id: PropertyId) -> Option<&'a str> {
        self.find(id).map(|raw| raw.text())
    }

    fn bytes(&self, id: PropertyId) -> Option<&'a [u8]> {
        self.find(id).map(|raw| raw.binary())
    }
}

/// Of the properties of a PUBLISH, those that decide how it is handled ([`Properties::of_publish`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Message Expiry Interval, in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Whether the Payload Format Indicator says that the payload is UTF-8.
    pub is_text: bool,
    /// Whether there is a Subscription Identifier.
    pub subscription_identifier: bool,
    /// Whether every one is passed on as it is.
    pub all_forwarded: bool,
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for property in self.iter() {
            match property {
                Property::AuthenticationData(_) => list.entry(&format_args!("AuthenticationData([hidden])")),
                shown => list.entry(&shown),
            };
        }
        list.finish()
    }
}

/// Properties under construction.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// An empty run.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a property at the end; one that has no form on the wire is left out (see [`Property::encode`]).
    pub fn push(&mut self, property: Property<'_>) -> &mut Self {
        property.encode(&mut self.0);
        self
    }

    /// What was pushed so far. Whether it suits a packet is checked when that packet is encoded.
    #[must_use]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }

    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl fmt::Debug for PropertiesBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}

#[cfg(test)]
mod tests;
