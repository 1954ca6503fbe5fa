//! Encoding a forwarded message. Nearly all of it is the same in each of a run: that is encoded once ([`Envelope`]) and
//! copied. The pieces between, here as constants, are what `usual` reads by.
//!
//! It holds what EMQX makes use of on its way to a subscriber: `peerhost` and `username` go into the events of its rules.
//! What is left out there reads the same as what an absent header stands for (no user name, no properties, no attributes
//! of the client), or is not read at all (`peername`, `protocol`, `proto_ver`, and DUP, which is never set in a message).

use std::net::IpAddr;

use crate::link::etf;
use crate::link::message::MessageProperties;
use crate::mqtt::packet::QoS;

/// What every message begins with: a tuple of ten, its tag, and the head of its id of sixteen bytes.
pub(crate) const TAG: &[u8] = b"h\x0aw\x07messagem\0\0\0\x10";
/// The flags of a message with RETAIN 1.
pub(super) const RETAINED: &[u8] = b"t\0\0\0\x01w\x06retainw\x04true";
/// The flags of one with RETAIN 0.
pub(super) const NOT_RETAINED: &[u8] = b"t\0\0\0\x01w\x06retainw\x05false";
/// The headers, up to how many there are, which is below 256. They stand in this order.
pub(super) const HEADERS: &[u8] = b"t\0\0\0";
/// Up to the address of the publisher.
pub(super) const PEERHOST: &[u8] = b"w\x08peerhost";
/// Up to its user name.
pub(super) const USERNAME: &[u8] = b"w\x08username";
/// Up to the map of properties.
pub(super) const PROPERTIES: &[u8] = b"w\x0aproperties";
/// What stands for a ClientID that there is not.
pub(super) const UNDEFINED: &[u8] = b"w\x09undefined";
/// No pairs.
pub(super) const EMPTY_MAP: &[u8] = b"t\0\0\0\0";
/// How many bytes at the end of a message say that there is nothing extra.
pub const NO_EXTRA_BYTES: usize = EMPTY_MAP.len();
/// Head of an integer of six bytes above zero: milliseconds since the epoch from 2004 on.
pub(super) const SIX_BYTES: &[u8] = b"n\x06\0";

/// A message on its way to a peer, borrowed from the broker.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// See [`message_id`].
    pub id: [u8; 16],
    /// The QoS of the original publish.
    pub qos: QoS,
    /// ClientID of the publisher, if it is a client.
    pub from: Option<&'a str>,
    /// Its user name.
    pub username: Option<&'a str>,
    /// Its address.
    pub peer: Option<IpAddr>,
    /// The RETAIN flag of the original publish.
    pub retain: bool,
    /// Topic Name.
    pub topic: &'a str,
    /// Application Message.
    pub payload: &'a [u8],
    /// When we received it: milliseconds since the epoch.
    pub timestamp_ms: u64,
    /// Its properties.
    pub properties: MessageProperties<'a>,
}

/// Appends the payload of a forwarded message. Atoms are those every EMQX knows (`link-protocol.md` 3.3).
pub fn put(out: &mut Vec<u8>, message: &Outgoing<'_>) {
    let mut envelope = Envelope::default();
    envelope.address(message);
    envelope.describe(message, &[]);
    envelope.put(out, message.id, message.payload);
}

/// What the messages of a run have in common, as it stands in them.
#[derive(Debug, Default)]
pub struct Envelope {
    /// From the beginning to the publisher's ClientID.
    from: Vec<u8>,
    /// Its address and user name.
    headers: Vec<u8>,
    headers_count: u8,
    /// Everything in front of the payload, which four bytes of length end.
    front: Vec<u8>,
    /// Where in it the message begins.
    message_at: usize,
    /// Everything behind the payload, and how much of it there is.
    back: [u8; BACK_BYTES],
    back_len: usize,
}

/// Where the id stands behind the version byte and [`TAG`].
pub(crate) const ID_AT: usize = 1 + TAG.len();
/// Where the QoS stands, behind the tag of an integer.
const QOS_AT: usize = ID_AT + 16 + 1;
/// The length of the payload.
const LENGTH_BYTES: usize = 4;
/// An integer and an empty map, at most.
const BACK_BYTES: usize = 16;

impl Envelope {
    /// Makes it one for messages of this publisher: whoever `message` says. It has to be described next.
    pub fn address(&mut self, message: &Outgoing<'_>) {
        let from = &mut self.from;
        from.clear();
        etf::put_version(from);
        from.extend_from_slice(TAG);
        from.extend_from_slice(&[0; 16]);
        etf::put_integer(from, 0);
        match message.from {
            Some(client_id) => etf::put_binary(from, client_id.as_bytes()),
            None => from.extend_from_slice(UNDEFINED),
        }
        self.headers.clear();
        if let Some(address) = message.peer {
            self.headers.extend_from_slice(PEERHOST);
            put_address(&mut self.headers, address);
        }
        if let Some(username) = message.username {
            self.headers.extend_from_slice(USERNAME);
            etf::put_binary(&mut self.headers, username.as_bytes());
        }
        self.headers_count = u8::from(message.peer.is_some()) + u8::from(message.username.is_some());
    }

    /// Makes it one for messages of that publisher that are like this one: everything but id and payload. Its words about
    /// the publisher are not looked at. In front of each stands `head`.
    pub fn describe(&mut self, message: &Outgoing<'_>, head: &[u8]) {
        let front = &mut self.front;
        front.clear();
        front.extend_from_slice(head);
        self.message_at = head.len();
        front.extend_from_slice(&self.from);
        if let Some(qos) = front.get_mut(head.len() + QOS_AT) {
            *qos = message.qos as u8;
        }
        front.extend_from_slice(if message.retain { RETAINED } else { NOT_RETAINED });
        let pairs = message.properties.count();
        front.extend_from_slice(HEADERS);
        front.push(self.headers_count + u8::from(pairs > 0));
        front.extend_from_slice(&self.headers);
        if pairs > 0 {
            front.extend_from_slice(PROPERTIES);
            put_properties(front, &message.properties, pairs);
        }
        etf::put_binary(front, message.topic.as_bytes());
        // What the back is made in, before the length of the payload, which is not known yet.
        let start = front.len();
        etf::put_integer(front, message.timestamp_ms);
        front.extend_from_slice(EMPTY_MAP);
        let back = front.get(start..).unwrap_or_default();
        self.back_len = back.len().min(BACK_BYTES);
        self.back[..self.back_len].copy_from_slice(&back[..self.back_len]);
        front.truncate(start);
        etf::put_binary(front, &[]);
    }

    /// Where a message begins in what [`Self::put`] appends: behind the head.
    #[must_use]
    pub fn message_at(&self) -> usize {
        self.message_at
    }

    /// Appends such a message.
    #[inline]
    pub fn put(&mut self, out: &mut Vec<u8>, id: [u8; 16], payload: &[u8]) {
        if let Some(length) = self.front.last_chunk_mut::<LENGTH_BYTES>() {
            // No packet is as long as 32 bits can tell.
            *length = (payload.len() as u32).to_be_bytes();
        }
        let id_at = out.len() + self.message_at + ID_AT;
        out.reserve(self.front.len() + payload.len() + BACK_BYTES);
        out.extend_from_slice(&self.front);
        if let Some(place) = out.get_mut(id_at..id_at + 16) {
            place.copy_from_slice(&id);
        }
        out.extend_from_slice(payload);
        // A fixed length is no call.
        out.extend_from_slice(&self.back);
        out.truncate(out.len() - (BACK_BYTES - self.back_len));
    }
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            out.extend_from_slice(&[104, 4, 97, a, 97, b, 97, c, 97, d]);
        }
        IpAddr::V6(address) => {
            etf::put_tuple(out, 8);
            for segment in address.segments() {
                etf::put_integer(out, u64::from(segment));
            }
        }
    }
}

fn put_properties(out: &mut Vec<u8>, properties: &MessageProperties<'_>, pairs: u32) {
    etf::put_map(out, pairs);
    if let Some(flag) = properties.payload_format_indicator {
        etf::put_atom(out, "Payload-Format-Indicator");
        etf::put_integer(out, u64::from(flag));
    }
    if let Some(seconds) = properties.message_expiry_interval {
        etf::put_atom(out, "Message-Expiry-Interval");
        etf::put_integer(out, u64::from(seconds));
    }
    if let Some(text) = properties.response_topic {
        etf::put_atom(out, "Response-Topic");
        etf::put_binary(out, text.as_bytes());
    }
    if let Some(data) = properties.correlation_data {
        etf::put_atom(out, "Correlation-Data");
        etf::put_binary(out, data);
    }
    if let Some(text) = properties.content_type {
        etf::put_atom(out, "Content-Type");
        etf::put_binary(out, text.as_bytes());
    }
    if !properties.user_properties.is_empty() {
        etf::put_atom(out, "User-Property");
        etf::put_list(out, properties.user_properties.len() as u32);
        for (key, value) in &properties.user_properties {
            etf::put_tuple(out, 2);
            etf::put_binary(out, key.as_bytes());
            etf::put_binary(out, value.as_bytes());
        }
        etf::put_nil(out);
    }
}

/// A message id in EMQX's shape: microseconds since the epoch, 48 bits that tell the sending process, a
/// sequence number. Unique as long as one `process` does not repeat a sequence within a microsecond.
#[must_use]
pub fn message_id(unix_us: u64, process: u64, sequence: u16) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&unix_us.to_be_bytes());
    id[8..14].copy_from_slice(&process.to_be_bytes()[2..]);
    id[14..].copy_from_slice(&sequence.to_be_bytes());
    id
}
