//! Encoding a forwarded message. All that tells its publisher is the same in each of a run: it is encoded once
//! ([`Envelope`]) and copied. The pieces between, here as constants, are what `usual` reads by.

use std::net::IpAddr;
use std::net::SocketAddr;

use crate::link::etf;
use crate::link::message::MessageProperties;
use crate::mqtt::packet::QoS;

/// What every message begins with: a tuple of ten, its tag, and the head of its id of sixteen bytes.
pub(super) const TAG: &[u8] = b"h\x0aw\x07messagem\0\0\0\x10";
/// The flags, up to the value of `retain`, which is the last.
pub(super) const FLAGS: &[u8] = b"t\0\0\0\x02w\x03dupw\x05falsew\x06retain";
/// RETAIN 1.
pub(super) const TRUE: &[u8] = b"w\x04true";
/// RETAIN 0.
pub(super) const FALSE: &[u8] = b"w\x05false";
/// The headers of a publisher with an address, up to its IP address and port.
pub(super) const HEADERS_WITH_PEER: &[u8] = b"t\0\0\0\x07w\x08peernameh\x02";
/// Behind that, up to the IP address once more.
pub(super) const PEERHOST: &[u8] = b"w\x08peerhost";
/// The headers of a publisher without one: five.
pub(super) const HEADERS: &[u8] = b"t\0\0\0\x05";
/// The next ones, up to the version, which is below 256.
pub(super) const PROTOCOL: &[u8] = b"w\x08protocolw\x04mqttw\x09proto_vera";
/// Up to the user name.
pub(super) const USERNAME: &[u8] = b"w\x08username";
/// The last headers, up to the map of properties.
pub(super) const PROPERTIES: &[u8] = b"w\x0cclient_attrst\0\0\0\0w\x0aproperties";
/// What stands for a text that there is not.
pub(super) const UNDEFINED: &[u8] = b"w\x09undefined";
/// No pairs.
pub(super) const EMPTY_MAP: &[u8] = b"t\0\0\0\0";
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
    /// Its address; left out of the headers when unknown.
    pub peer: Option<SocketAddr>,
    /// 3, 4 or 5.
    pub proto_ver: u8,
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
    envelope.put(out, message);
}

/// What all messages of one publisher have in common, as it stands in them.
#[derive(Debug, Default)]
pub struct Envelope {
    bytes: Vec<u8>,
    /// Where RETAIN stands between.
    retain_at: usize,
}

/// Where the id stands behind the version byte and [`TAG`]; the QoS follows it.
const ID_AT: usize = 1 + TAG.len();
/// Where the QoS stands, behind the tag of an integer.
const QOS_AT: usize = ID_AT + 16 + 1;

impl Envelope {
    /// Makes it one for messages of this publisher: whoever `message` says.
    pub fn address(&mut self, message: &Outgoing<'_>) {
        let out = &mut self.bytes;
        out.clear();
        etf::put_version(out);
        out.extend_from_slice(TAG);
        out.extend_from_slice(&[0; 16]);
        etf::put_integer(out, 0);
        put_optional(out, message.from);
        out.extend_from_slice(FLAGS);
        self.retain_at = out.len();
        if let Some(peer) = message.peer {
            out.extend_from_slice(HEADERS_WITH_PEER);
            put_address(out, peer.ip());
            etf::put_integer(out, u64::from(peer.port()));
            out.extend_from_slice(PEERHOST);
            put_address(out, peer.ip());
        } else {
            out.extend_from_slice(HEADERS);
        }
        out.extend_from_slice(PROTOCOL);
        out.push(message.proto_ver);
        out.extend_from_slice(USERNAME);
        put_optional(out, message.username);
        out.extend_from_slice(PROPERTIES);
    }

    /// Appends a message of that publisher. Its own words about who that is are not looked at.
    pub fn put(&self, out: &mut Vec<u8>, message: &Outgoing<'_>) {
        let (before, behind) = self.bytes.split_at(self.retain_at);
        let start = out.len();
        out.reserve(96 + self.bytes.len() + message.topic.len() + message.payload.len());
        out.extend_from_slice(before);
        if let Some(fields) = out.get_mut(start + ID_AT..=start + QOS_AT) {
            fields[..16].copy_from_slice(&message.id);
            fields[QOS_AT - ID_AT] = message.qos as u8;
        }
        out.extend_from_slice(if message.retain { TRUE } else { FALSE });
        out.extend_from_slice(behind);
        put_properties(out, &message.properties);
        etf::put_binary(out, message.topic.as_bytes());
        etf::put_binary(out, message.payload);
        etf::put_integer(out, message.timestamp_ms);
        out.extend_from_slice(EMPTY_MAP);
    }
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => etf::put_binary(out, text.as_bytes()),
        None => out.extend_from_slice(UNDEFINED),
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

fn put_properties(out: &mut Vec<u8>, properties: &MessageProperties<'_>) {
    let pairs = properties.count();
    etf::put_map(out, pairs);
    if pairs == 0 {
        return;
    }
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
