//! An Application Message on its way: borrowed while its burst is handled, owned where it has to be kept.

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
#[derive(Debug, Clone, Copy)]
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

/// An Application Message that outlives its burst: queued, in flight for a persistent session, retained, a
/// Will. One block of memory for topic, properties and payload, however many sessions owe it.
#[derive(Debug)]
pub struct Message {
    bytes: Box<[u8]>,
    topic_len: u32,
    properties_len: u32,
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Message Expiry Interval, if it has one.
    pub expiry: Option<Expiry>,
}

impl Message {
    /// Copies the view into one block.
    #[must_use]
    pub fn keep(publication: &Publication<'_>) -> Arc<Self> {
        let (topic, properties) = (publication.topic.as_bytes(), publication.properties);
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + publication.payload.len());
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(publication.payload);
        Arc::new(Self {
            bytes: bytes.into_boxed_slice(),
            topic_len: u32::try_from(topic.len()).expect("a topic is at most 65,535 bytes"),
            properties_len: u32::try_from(properties.len()).expect("properties fit a packet"),
            qos: publication.qos,
            retain: publication.retain,
            expiry: publication.expiry,
        })
    }

    /// The message as a view.
    #[must_use]
    pub fn view(&self) -> Publication<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_len as usize);
        let (properties, payload) = rest.split_at(self.properties_len as usize);
        Publication {
            topic: std::str::from_utf8(topic).expect("copied from a &str"),
            properties,
            payload,
            qos: self.qos,
            retain: self.retain,
            expiry: self.expiry,
        }
    }

    /// Bytes of topic, properties and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no content at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether its Message Expiry Interval has passed.
    #[must_use]
    pub fn is_expired(&self, now: Now) -> bool {
        self.expiry.is_some_and(|expiry| expiry.remaining_seconds(now).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeping_a_message_keeps_every_part() {
        let publication = Publication {
            topic: "a/b",
            properties: b"\x01\x01",
            payload: b"hello",
            qos: QoS::ExactlyOnce,
            retain: true,
            expiry: None,
        };
        let message = Message::keep(&publication);
        let view = message.view();
        assert_eq!((view.topic, view.properties, view.payload), ("a/b", &b"\x01\x01"[..], &b"hello"[..]));
        assert_eq!((view.qos, view.retain, message.len()), (QoS::ExactlyOnce, true, 10));
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
