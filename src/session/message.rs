//! An Application Message on its way: borrowed while its burst is handled, owned where it has to be kept.

use std::fmt;
use std::sync::Arc;

use crate::mqtt::packet::QoS;
use crate::time::Now;

/// Message Expiry Interval with the moment it counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Message Expiry Interval in seconds.
    pub interval_seconds: u32,
    /// When the Server received the message, on the monotonic clock.
    pub received_mono_ms: u64,
}

impl Expiry {
    /// What is left of the interval, in whole seconds, or `None` once it has passed (`[MQTT-3.3.2-5]`,
    /// `[MQTT-3.3.2-6]`).
    #[must_use]
    pub fn remaining_seconds(self, now: Now) -> Option<u32> {
        let waited_ms = now.mono_ms.saturating_sub(self.received_mono_ms);
        if waited_ms > 0 && waited_ms >= u64::from(self.interval_seconds) * 1000 {
            return None;
        }
        Some(self.interval_seconds - u32::try_from(waited_ms / 1000).unwrap_or(self.interval_seconds))
    }

    /// The end of the interval on the monotonic clock, in milliseconds.
    #[must_use]
    pub fn deadline_mono_ms(self) -> u64 {
        self.received_mono_ms + u64::from(self.interval_seconds) * 1000
    }
}

/// An Application Message as a view, mostly into the publisher's read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication<'a> {
    /// Topic Name, aliases resolved.
    pub topic: &'a str,
    /// MQTT 5.0 properties as they are forwarded: without Topic Alias, Message Expiry Interval and
    /// Subscription Identifiers.
    pub properties: &'a [u8],
    /// Application Message.
    pub payload: &'a [u8],
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Message Expiry Interval, if it has one.
    pub expiry: Option<Expiry>,
}

/// Bits of the first byte of a [`Message`], beside the QoS.
const RETAIN: u8 = 1 << 2;
const HAS_EXPIRY: u8 = 1 << 3;
/// The content is elsewhere: behind the head stand the number under which it is kept, and its length.
const ELSEWHERE: u8 = 1 << 4;
/// Flags and two lengths stand in front of every message, an [`Expiry`] of those that have one.
const HEAD_BYTES: usize = 7;
const EXPIRY_BYTES: usize = 12;
/// Messages up to this many bytes are put together on the stack, so that keeping one is one allocation.
const STACK_BYTES: usize = 256;

/// An Application Message that outlives its burst: queued, in flight for a persistent session, retained, a
/// Will. One counted block of memory, however many sessions owe it: what the message is, then topic, properties and
/// payload.
#[derive(Clone)]
pub struct Message(Arc<[u8]>);

/// What stands in front of the topic.
struct Head {
    qos: QoS,
    retain: bool,
    expiry: Option<Expiry>,
    topic_len: usize,
    properties_len: usize,
    /// Its own length.
    len: usize,
}

impl Message {
    /// Copies the view into one block.
    #[must_use]
    pub fn keep(publication: &Publication<'_>) -> Self {
        let expiry_len = if publication.expiry.is_some() { EXPIRY_BYTES } else { 0 };
        let (topic, properties, payload) =
            (publication.topic.as_bytes(), publication.properties, publication.payload);
        let len = HEAD_BYTES + expiry_len + topic.len() + properties.len() + payload.len();
        let mut short = [0; STACK_BYTES];
        let mut long = Vec::new();
        let block = match short.get_mut(..len) {
            Some(block) => block,
            None => {
                long.resize(len, 0);
                &mut long[..]
            }
        };
        let (head, rest) = block.split_at_mut(HEAD_BYTES + expiry_len);
        put_head(publication, head);
        let (to, rest) = rest.split_at_mut(topic.len());
        to.copy_from_slice(topic);
        let (to, rest) = rest.split_at_mut(properties.len());
        to.copy_from_slice(properties);
        rest.copy_from_slice(payload);
        Self(Arc::from(&*block))
    }

    /// A message whose content is not in memory: `body` is where it is kept, `len` its [`Self::len`]. It is fetched before
    /// anything else is asked of it.
    #[must_use]
    pub fn elsewhere(body: u64, len: u32) -> Self {
        let mut block = [0; HEAD_BYTES + 12];
        block[0] = ELSEWHERE;
        block[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&body.to_le_bytes());
        block[HEAD_BYTES + 8..].copy_from_slice(&len.to_le_bytes());
        Self(Arc::from(&block[..]))
    }

    /// Where the content is kept, if it is not in memory.
    #[must_use]
    pub fn body_elsewhere(&self) -> Option<u64> {
        self.in_its_place().map(|(body, _)| body)
    }

    fn in_its_place(&self) -> Option<(u64, u32)> {
        if self.0[0] & ELSEWHERE == 0 {
            return None;
        }
        let (body, len) = self.0.get(HEAD_BYTES..)?.split_first_chunk()?;
        Some((u64::from_le_bytes(*body), u32::from_le_bytes(*len.first_chunk()?)))
    }

    /// Its memory, to tell it from others.
    #[must_use]
    pub fn block(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// The message as a view.
    #[must_use]
    pub fn view(&self) -> Publication<'_> {
        let head = self.head();
        let (topic, rest) = self.0[head.len..].split_at(head.topic_len);
        let (properties, payload) = rest.split_at(head.properties_len);
        Publication {
            topic: std::str::from_utf8(topic).expect("copied from a &str"),
            properties,
            payload,
            qos: head.qos,
            retain: head.retain,
            expiry: head.expiry,
        }
    }

    /// The QoS it was published with.
    #[must_use]
    pub fn qos(&self) -> QoS {
        qos(self.0[0])
    }

    /// Message Expiry Interval, if it has one.
    #[must_use]
    pub fn expiry(&self) -> Option<Expiry> {
        (self.0[0] & HAS_EXPIRY != 0).then(|| self.head().expiry).flatten()
    }

    /// Bytes of topic, properties and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.0[0] & (HAS_EXPIRY | ELSEWHERE) == 0 {
            return self.0.len() - HEAD_BYTES; // most have neither
        }
        match self.in_its_place() {
            Some((_, len)) => len as usize,
            None => self.0.len() - HEAD_BYTES - EXPIRY_BYTES,
        }
    }

    /// Whether there is no content at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both are the same block: the same PUBLISH, not only an equal one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether its Message Expiry Interval has passed.
    #[must_use]
    pub fn is_expired(&self, now: Now) -> bool {
        self.expiry().is_some_and(|expiry| expiry.remaining_seconds(now).is_none())
    }

    fn head(&self) -> Head {
        let Some((&[flags, t0, t1, p0, p1, p2, p3], rest)) = self.0.split_first_chunk() else {
            unreachable!("every message has a head")
        };
        let mut head = Head {
            qos: qos(flags),
            retain: flags & RETAIN != 0,
            expiry: None,
            topic_len: usize::from(u16::from_le_bytes([t0, t1])),
            properties_len: u32::from_le_bytes([p0, p1, p2, p3]) as usize,
            len: HEAD_BYTES,
        };
        if flags & HAS_EXPIRY != 0
            && let Some((interval_seconds, rest)) = rest.split_first_chunk()
            && let Some(received_mono_ms) = rest.first_chunk()
        {
            head.expiry = Some(Expiry {
                interval_seconds: u32::from_le_bytes(*interval_seconds),
                received_mono_ms: u64::from_le_bytes(*received_mono_ms),
            });
            head.len += EXPIRY_BYTES;
        }
        head
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads are not for logs.
        f.debug_struct("Message").field("topic", &self.view().topic).field("bytes", &self.len()).finish()
    }
}

/// Fills `head`, which has room for an Expiry if the message has one.
fn put_head(publication: &Publication<'_>, head: &mut [u8]) {
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    head[0] = publication.qos as u8
        | bit(publication.retain, RETAIN)
        | bit(publication.expiry.is_some(), HAS_EXPIRY);
    let topic_len = u16::try_from(publication.topic.len()).expect("a topic is at most 65,535 bytes");
    let properties_len = u32::try_from(publication.properties.len()).expect("properties fit a packet");
    head[1..3].copy_from_slice(&topic_len.to_le_bytes());
    head[3..HEAD_BYTES].copy_from_slice(&properties_len.to_le_bytes());
    if let Some(expiry) = publication.expiry {
        head[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&expiry.interval_seconds.to_le_bytes());
        head[HEAD_BYTES + 4..].copy_from_slice(&expiry.received_mono_ms.to_le_bytes());
    }
}

fn qos(flags: u8) -> QoS {
    match flags & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeping_a_message_keeps_every_part() {
        let long = "l".repeat(STACK_BYTES);
        let expiry = Some(Expiry { interval_seconds: 7, received_mono_ms: u64::MAX - 1 });
        let table = [
            ("a/b", &b"\x01\x01"[..], &b"hello"[..], QoS::ExactlyOnce, true, None),
            ("a", b"", b"", QoS::AtMostOnce, false, expiry),
            (&long, long.as_bytes(), long.as_bytes(), QoS::AtLeastOnce, false, expiry),
        ];
        for (topic, properties, payload, qos, retain, expiry) in table {
            let message = Message::keep(&Publication { topic, properties, payload, qos, retain, expiry });
            let view = message.view();
            assert_eq!((view.topic, view.properties, view.payload), (topic, properties, payload));
            assert_eq!((view.qos, view.retain, view.expiry), (qos, retain, expiry));
            assert_eq!((message.qos(), message.expiry()), (qos, expiry));
            assert_eq!(message.len(), topic.len() + properties.len() + payload.len());
            assert!(message.is_same(&message.clone()));
        }
    }

    #[test]
    fn what_is_elsewhere_says_where_and_how_long_it_is() {
        let message = Message::elsewhere(u64::MAX - 1, 77);
        assert_eq!((message.body_elsewhere(), message.len()), (Some(u64::MAX - 1), 77));
        assert!(!message.is_empty() && message.expiry().is_none() && message.view().topic.is_empty());
    }

    #[test]
    fn expiry_counts_down_in_whole_seconds() {
        let expiry = Expiry { interval_seconds: 2, received_mono_ms: 1_000 };
        let at = |mono_ms| expiry.remaining_seconds(Now { mono_ms, unix_ms: 0 });
        assert_eq!(
            [at(1_000), at(1_999), at(2_000), at(2_999), at(3_000)],
            [Some(2), Some(2), Some(1), Some(1), None]
        );
        let at_once = Expiry { interval_seconds: 0, received_mono_ms: 5 };
        assert_eq!(at_once.remaining_seconds(Now { mono_ms: 5, unix_ms: 0 }), Some(0));
        assert_eq!(at_once.remaining_seconds(Now { mono_ms: 6, unix_ms: 0 }), None);
    }
}
