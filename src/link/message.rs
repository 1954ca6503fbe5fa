//! The forwarded message: the 10-tuple on `$LINK/cluster/msg/…` (`link-protocol.md` 3.3), EMQX's `#message{}`.
//!
//! Decoding borrows from the payload and checks what EMQX leaves unchecked: the topic is a Topic Name, the
//! properties are ones MQTT can carry. Unknown flags, headers and what EMQX puts into `extra` are skipped, among
//! them `should_disconnect` and `allow_publish`, by which a peer could steer the publish path. What looks as
//! if we had sent it ourselves is read by its shape (`usual`), everything else term by term. Encoding (`put`)
//! writes straight into the caller's buffer.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::link::etf;
use crate::link::etf::EtfError;
use crate::link::etf::Head;
use crate::link::etf::Reader;
use crate::link::extension::KEY_PATH;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;
use crate::mqtt::topic::TopicError;

pub use crate::link::message::put::Envelope;
pub(crate) use crate::link::message::put::ID_AT;
pub use crate::link::message::put::NO_EXTRA_BYTES;
pub use crate::link::message::put::Outgoing;
pub(crate) use crate::link::message::put::TAG;
pub use crate::link::message::put::message_id;
pub use crate::link::message::put::put;

mod put;
mod usual;

/// How many User Properties a message may carry.
pub const USER_PROPERTIES_MAX: u32 = 4_096;
/// The longest string MQTT can carry.
const STRING_BYTES_MAX: usize = 65_535;
/// How deep a payload given as a list of lists may nest.
const IODATA_DEPTH_MAX: usize = etf::DEPTH_MAX;

/// Why a payload is no forwarded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not a term, or not one we take.
    #[error(transparent)]
    Term(#[from] EtfError),
    /// Not a 10-tuple tagged `message`.
    #[error("not a message tuple")]
    NotAMessage,
    /// A field holds something else than it should.
    #[error("field {0} is not what it should be")]
    Field(&'static str),
    /// The inner topic is no Topic Name.
    #[error("inner topic: {0}")]
    Topic(#[from] TopicError),
    /// A property MQTT could not carry.
    #[error("property {0} is not what it should be")]
    Property(&'static str),
}

/// The six properties of a PUBLISH that cross a link. Topic Alias and Subscription Identifiers belong to a
/// connection and stay behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageProperties<'a> {
    /// Payload Format Indicator.
    pub payload_format_indicator: Option<u8>,
    /// Message Expiry Interval in seconds, counted from the message's timestamp.
    pub message_expiry_interval: Option<u32>,
    /// Response Topic.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// User Properties, in order.
    pub user_properties: SmallVec<[(&'a str, &'a str); 4]>,
}

impl MessageProperties<'_> {
    /// How many of the six there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.payload_format_indicator.is_some())
            + u32::from(self.message_expiry_interval.is_some())
            + u32::from(self.response_topic.is_some())
            + u32::from(self.correlation_data.is_some())
            + u32::from(self.content_type.is_some())
            + u32::from(!self.user_properties.is_empty())
    }
}

/// A message a peer forwarded, as a view into the payload it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// Sixteen bytes, the same in every retry: what duplicates are told by.
    pub id: [u8; 16],
    /// The QoS of the original publish, which the outer PUBLISH may lower.
    pub qos: QoS,
    /// ClientID of the publisher, if it was a client: bytes that nothing here depends on, and nobody has checked.
    pub from: Option<&'a [u8]>,
    /// User name of the publisher, likewise.
    pub username: Option<&'a [u8]>,
    /// The RETAIN flag of the original publish.
    pub retain: bool,
    /// A valid Topic Name. Whether the link covers it is [`crate::link::ingress`]'s question.
    pub topic: &'a str,
    /// The payload; owned only if the peer sent it in pieces.
    pub payload: Cow<'a, [u8]>,
    /// When the peer's broker received it: milliseconds since the epoch by the peer's clock.
    pub timestamp_ms: u64,
    /// Its properties.
    pub properties: MessageProperties<'a>,
    /// Through whom it came, if not from the peer itself ([`crate::link::relay::read`]).
    pub path: Option<Reader<'a>>,
}

/// Decodes a forwarded message. The reader is of [`crate::link::compress::Inflater::open`].
pub fn parse(reader: Reader<'_>) -> Result<Forwarded<'_>, MessageError> {
    parse_after(reader, "")
}

/// The same behind a message with the topic `known`: if this one has that too, it may be given as the same string,
/// and is not checked again.
pub fn parse_after<'a>(reader: Reader<'a>, known: &'a str) -> Result<Forwarded<'a>, MessageError> {
    usual::parse(reader.rest(), known).map_or_else(|| parse_any(reader), Ok)
}

/// Decodes a message of any shape.
fn parse_any(mut reader: Reader<'_>) -> Result<Forwarded<'_>, MessageError> {
    if reader.head()? != Head::Tuple(10) || reader.head()? != Head::Atom(b"message") {
        return Err(MessageError::NotAMessage);
    }
    let id = reader.binary().map_err(field("id"))?.try_into().map_err(|_| MessageError::Field("id"))?;
    let qos = u8::try_from(reader.integer().map_err(field("qos"))?).ok().and_then(QoS::from_u8);
    let qos = qos.ok_or(MessageError::Field("qos"))?;
    let from = match reader.head()? {
        Head::Binary(id) => Some(id),
        Head::Atom(_) => None,
        _ => return Err(MessageError::Field("from")),
    };
    let retain = parse_flags(&mut reader)?;
    let headers = parse_headers(&mut reader)?;
    let name = reader.text().map_err(field("topic"))?;
    topic::check_name(name)?;
    let payload = parse_payload(&mut reader)?;
    let timestamp = reader.integer().map_err(field("timestamp"))?;
    let path = parse_extra(&mut reader)?;
    Ok(Forwarded {
        id,
        qos,
        from,
        username: headers.username,
        retain,
        topic: name,
        payload,
        timestamp_ms: u64::try_from(timestamp).unwrap_or(0),
        properties: headers.properties,
        path,
    })
}

/// Reads what ours may add to a message.
fn parse_extra<'a>(reader: &mut Reader<'a>) -> Result<Option<Reader<'a>>, MessageError> {
    let pairs = reader.map().map_err(field("extra"))?;
    let mut path = None;
    for _ in 0..pairs {
        let mut key = reader.term()?;
        let value = reader.term()?;
        if key.head()? == Head::Integer(KEY_PATH.cast_signed()) {
            path = Some(value);
        }
    }
    Ok(path)
}

/// A term of the wrong type is a matter of the field, broken bytes are not.
fn field(name: &'static str) -> impl Fn(EtfError) -> MessageError {
    move |error| match error {
        EtfError::Type => MessageError::Field(name),
        error => MessageError::Term(error),
    }
}

/// Reads the flags; only `retain` has a meaning across a link.
fn parse_flags(reader: &mut Reader<'_>) -> Result<bool, MessageError> {
    let pairs = reader.map().map_err(field("flags"))?;
    let mut retain = false;
    for _ in 0..pairs {
        let key = reader.head()?;
        reader.skip_rest(key)?;
        let value = reader.head()?;
        reader.skip_rest(value)?;
        if key == Head::Atom(b"retain") {
            retain = value == Head::Atom(b"true");
        }
    }
    Ok(retain)
}

#[derive(Default)]
struct Headers<'a> {
    username: Option<&'a [u8]>,
    properties: MessageProperties<'a>,
}

fn parse_headers<'a>(reader: &mut Reader<'a>) -> Result<Headers<'a>, MessageError> {
    let pairs = reader.map().map_err(field("headers"))?;
    let mut headers = Headers::default();
    for _ in 0..pairs {
        let key = reader.head()?;
        reader.skip_rest(key)?;
        match key {
            Head::Atom(b"properties") => headers.properties = parse_properties(reader)?,
            Head::Atom(b"username") => {
                let value = reader.head()?;
                reader.skip_rest(value)?;
                if let Head::Binary(name) = value {
                    headers.username = Some(name);
                }
            }
            _ => reader.skip()?,
        }
    }
    Ok(headers)
}

fn parse_properties<'a>(reader: &mut Reader<'a>) -> Result<MessageProperties<'a>, MessageError> {
    let pairs = reader.map().map_err(field("properties"))?;
    let mut properties = MessageProperties::default();
    for _ in 0..pairs {
        let key = reader.head()?;
        reader.skip_rest(key)?;
        let mut value = reader.term()?;
        let Head::Atom(name) = key else { continue };
        match name {
            b"Payload-Format-Indicator" => {
                let flag = value.integer().ok().and_then(|flag| u8::try_from(flag).ok());
                let flag = flag.filter(|flag| *flag <= 1);
                properties.payload_format_indicator =
                    Some(flag.ok_or(MessageError::Property("Payload-Format-Indicator"))?);
            }
            b"Message-Expiry-Interval" => {
                let seconds = value.integer().ok().and_then(|seconds| u32::try_from(seconds).ok());
                properties.message_expiry_interval =
                    Some(seconds.ok_or(MessageError::Property("Message-Expiry-Interval"))?);
            }
            b"Response-Topic" => {
                let text = string(&mut value).filter(|text| topic::check_name(text).is_ok());
                properties.response_topic = Some(text.ok_or(MessageError::Property("Response-Topic"))?);
            }
            b"Correlation-Data" => {
                let data = value.binary().ok().filter(|data| data.len() <= STRING_BYTES_MAX);
                properties.correlation_data = Some(data.ok_or(MessageError::Property("Correlation-Data"))?);
            }
            b"Content-Type" => {
                let text = string(&mut value);
                properties.content_type = Some(text.ok_or(MessageError::Property("Content-Type"))?);
            }
            b"User-Property" => properties.user_properties = parse_user_properties(value)?,
            _ => {}
        }
    }
    Ok(properties)
}

fn parse_user_properties(mut reader: Reader<'_>) -> Result<SmallVec<[(&str, &str); 4]>, MessageError> {
    const NAME: MessageError = MessageError::Property("User-Property");
    let count = match reader.head()? {
        Head::Nil => 0,
        Head::List(count) if count <= USER_PROPERTIES_MAX => count,
        _ => return Err(NAME),
    };
    let mut pairs = SmallVec::new();
    for _ in 0..count {
        if reader.head()? != Head::Tuple(2) {
            return Err(NAME);
        }
        let key = string(&mut reader).ok_or(NAME)?;
        let value = string(&mut reader).ok_or(NAME)?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// A binary that MQTT can carry as a UTF-8 Encoded String (`[MQTT-1.5.4-2]`).
fn string<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let text = reader.text().ok()?;
    (text.len() <= STRING_BYTES_MAX && !text.as_bytes().contains(&0)).then_some(text)
}

/// A binary in practice; the record type also allows nested lists of bytes and binaries, which are joined.
fn parse_payload<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, [u8]>, MessageError> {
    match reader.head()? {
        Head::Binary(bytes) | Head::ByteList(bytes) => Ok(Cow::Borrowed(bytes)),
        Head::Nil => Ok(Cow::Borrowed(&[])),
        Head::List(count) => join_list(reader, count).map(Cow::Owned),
        _ => Err(MessageError::Field("payload")),
    }
}

fn join_list(reader: &mut Reader<'_>, count: u32) -> Result<Vec<u8>, MessageError> {
    // The terms still to come on each level, the tail included.
    let mut levels: SmallVec<[u64; 8]> = SmallVec::new();
    levels.push(u64::from(count) + 1);
    let mut joined = Vec::new();
    while let Some(left) = levels.last_mut() {
        if *left == 0 {
            levels.pop();
            continue;
        }
        *left -= 1;
        let is_tail = *left == 0;
        match reader.head()? {
            Head::Integer(byte) if !is_tail => {
                joined.push(u8::try_from(byte).map_err(|_| MessageError::Field("payload"))?);
            }
            Head::Binary(bytes) | Head::ByteList(bytes) => joined.extend_from_slice(bytes),
            Head::Nil => {}
            Head::List(count) if levels.len() < IODATA_DEPTH_MAX => levels.push(u64::from(count) + 1),
            _ => return Err(MessageError::Field("payload")),
        }
    }
    Ok(joined)
}

#[cfg(test)]
pub(crate) mod tests;
