//! Messages that wait for one client: for its Network Connection, its send quota, or room towards it.
//! Bounded in messages and bytes; when full, the oldest go (EMQX's `max_mqueue_len` behaviour) or the newest
//! (mosquitto's), or the client does.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::mqtt::packet::QoS;
use crate::session::message::Message;
use crate::time::Now;

/// One message owed to one client.
#[derive(Debug, Clone)]
pub struct Owed {
    /// The message, shared by every session that owes it.
    pub message: Arc<Message>,
    /// Subscription Identifiers to send with it (`[MQTT-3.3.4-3]`); most have none.
    pub subscription_ids: Option<Box<[u32]>>,
    /// QoS of this delivery: the lower of published and granted.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// The Shared Subscription that chose this client, as `$share/{ShareName}/{filter}`.
    pub shared: Option<Arc<str>>,
    /// Until when it may wait if it has no Message Expiry Interval of its own, on the monotonic clock.
    pub waits_until_mono_ms: Option<u64>,
}

impl Owed {
    /// Whether it waited too long to be begun.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        self.message.is_expired(now) || self.waits_until_mono_ms.is_some_and(|until| now.mono_ms >= until)
    }
}

/// What gives way when a [`Queue`] is full: `mqtt.mqueue_on_full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest messages.
    DropOldest,
    /// The message that comes.
    DropNew,
    /// The oldest messages, and the connection of the client that does not keep up.
    Disconnect,
}

/// The bounds of a [`Queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// `mqtt.max_mqueue_len`: messages.
    pub messages_max: usize,
    /// Bytes of topics, properties and payloads.
    pub bytes_max: usize,
    /// What gives way.
    pub when_full: WhenFull,
    /// `mqtt.message_expiry_interval`: how long a message may wait that has no Message Expiry Interval.
    pub wait_ms_max: Option<u64>,
}

/// A bounded first-in first-out queue of [`Owed`].
#[derive(Debug, Default)]
pub struct Queue {
    owed: VecDeque<Owed>,
    bytes: usize,
    qos0: usize,
}

impl Queue {
    /// Messages waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether a QoS 0 message waits: a later one must not overtake it (`[MQTT-4.6.0-6]`).
    #[must_use]
    pub fn holds_qos0(&self) -> bool {
        self.qos0 > 0
    }

    /// What the messages hold: topics, properties and payloads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds at the end and says how many had to go for it: the oldest, or the new one itself, which goes too when
    /// it alone is over the bounds.
    pub fn push(&mut self, owed: Owed, limits: QueueLimits) -> u64 {
        let over =
            self.owed.len() >= limits.messages_max || self.bytes + owed.message.len() > limits.bytes_max;
        if over && limits.when_full == WhenFull::DropNew {
            return 1;
        }
        self.bytes += owed.message.len();
        self.qos0 += usize::from(owed.qos == QoS::AtMostOnce);
        self.owed.push_back(owed);
        let mut dropped = 0;
        while self.owed.len() > limits.messages_max || self.bytes > limits.bytes_max {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        if self.owed.is_empty() && self.owed.capacity() > 64 {
            self.owed.shrink_to_fit();
        }
        dropped
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_front()?;
        self.bytes -= owed.message.len();
        self.qos0 -= usize::from(owed.qos == QoS::AtMostOnce);
        Some(owed)
    }

    /// Drops the messages of QoS 0; how many there were.
    pub fn shed_qos0(&mut self) -> u64 {
        let before = self.owed.len();
        if self.qos0 > 0 {
            self.owed.retain(|owed| owed.qos != QoS::AtMostOnce);
            self.owed.shrink_to_fit();
            self.bytes = self.owed.iter().map(|owed| owed.message.len()).sum();
            self.qos0 = 0;
        }
        (before - self.owed.len()) as u64
    }

    /// Takes out what Shared Subscriptions gave, oldest first.
    pub fn take_shared(&mut self) -> Vec<Owed> {
        if self.owed.iter().all(|owed| owed.shared.is_none()) {
            return Vec::new();
        }
        let (shared, own): (Vec<Owed>, _) =
            std::mem::take(&mut self.owed).into_iter().partition(|owed| owed.shared.is_some());
        self.owed = VecDeque::from(own);
        self.bytes = self.owed.iter().map(|owed| owed.message.len()).sum();
        self.qos0 = self.owed.iter().filter(|owed| owed.qos == QoS::AtMostOnce).count();
        shared
    }

    /// Empties the queue.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::message::Publication;

    fn owed(payload: &[u8]) -> Owed {
        let publication = Publication {
            topic: "t",
            properties: b"",
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            expiry: None,
        };
        Owed {
            message: Message::keep(&publication),
            subscription_ids: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            shared: None,
            waits_until_mono_ms: None,
        }
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let limits = QueueLimits {
            messages_max: 2,
            bytes_max: 100,
            when_full: WhenFull::DropOldest,
            wait_ms_max: None,
        };
        let mut queue = Queue::default();
        assert_eq!(
            [queue.push(owed(b"1"), limits), queue.push(owed(b"2"), limits), queue.push(owed(b"3"), limits)],
            [0, 0, 1]
        );
        assert_eq!(queue.pop().unwrap().message.view().payload, b"2");
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn the_new_one_goes_where_it_is_to() {
        let limits =
            QueueLimits { messages_max: 2, bytes_max: 4, when_full: WhenFull::DropNew, wait_ms_max: None };
        let mut queue = Queue::default();
        let dropped = [b"1", b"2", b"3"].map(|payload| queue.push(owed(payload), limits));
        assert_eq!(dropped, [0, 0, 1]);
        assert_eq!(queue.pop().unwrap().message.view().payload, b"1");
        assert_eq!(queue.push(owed(b"22"), limits), 1, "bytes count too");
        assert_eq!((queue.len(), queue.bytes()), (1, 2));
    }

    #[test]
    fn only_qos_0_is_shed() {
        let limits = QueueLimits {
            messages_max: 9,
            bytes_max: 100,
            when_full: WhenFull::DropOldest,
            wait_ms_max: None,
        };
        let mut queue = Queue::default();
        for (payload, qos) in [(b"1", QoS::AtMostOnce), (b"2", QoS::AtLeastOnce), (b"3", QoS::AtMostOnce)] {
            queue.push(Owed { qos, ..owed(payload) }, limits);
        }
        assert_eq!(queue.shed_qos0(), 2);
        assert_eq!((queue.len(), queue.bytes(), queue.holds_qos0()), (1, 2, false));
        assert_eq!(queue.shed_qos0(), 0);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let limits = QueueLimits {
            messages_max: 10,
            bytes_max: 10,
            when_full: WhenFull::DropOldest,
            wait_ms_max: None,
        };
        let mut queue = Queue::default();
        queue.push(owed(b"12345"), limits);
        assert_eq!(queue.push(owed(b"123456"), limits), 1);
        assert_eq!(queue.push(owed(&[0; 50]), limits), 2, "a message over the bound leaves nothing behind");
        assert!(queue.is_empty());
        assert!(queue.pop().is_none());
    }
}
