//! Messages that wait for one client: for its Network Connection, its send quota, or room towards it.
//! Bounded in messages and bytes; when full, the oldest go (EMQX's `max_mqueue_len` behaviour) or the newest
//! (mosquitto's), or the client does.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::mqtt::packet::QoS;
use crate::session::journal::Journal;
use crate::session::message::Message;
use crate::time::Now;

/// One message owed to one client.
#[derive(Debug, Clone)]
pub struct Owed {
    /// The message, shared by every session that owes it.
    pub message: Message,
    /// Subscription Identifiers to send with it (`[MQTT-3.3.4-3]`); most have none. Boxed, as there are many of these.
    pub subscription_ids: Option<Box<SmallVec<[u32; 4]>>>,
    /// QoS of this delivery: the lower of published and granted.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// The Shared Subscription that chose this client, as `$share/{ShareName}/{filter}`.
    pub shared: Option<Arc<Box<str>>>,
    /// Until when it may wait if it has no Message Expiry Interval of its own.
    pub waits_until: Option<Tenths>,
    /// Under which it is kept; 0 if it ends with the process.
    pub number: u64,
}

/// A moment on the monotonic clock in tenths of a second, rounded up: half the memory of one in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenths(NonZeroU32);

impl Tenths {
    /// The first that is not before `mono_ms`, as far as there is one.
    #[must_use]
    pub fn from_mono_ms(mono_ms: u64) -> Self {
        let tenths = u32::try_from(mono_ms.div_ceil(100)).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(tenths).unwrap_or(NonZeroU32::MIN))
    }

    /// On the monotonic clock, in milliseconds.
    #[must_use]
    pub fn mono_ms(self) -> u64 {
        u64::from(self.0.get()) * 100
    }

    /// Whether it has come.
    #[must_use]
    pub fn is_past(self, now: Now) -> bool {
        now.mono_ms >= self.mono_ms()
    }
}

impl Owed {
    /// Subscription Identifiers to send with it.
    #[must_use]
    pub fn subscription_ids(&self) -> &[u32] {
        self.subscription_ids.as_ref().map_or(&[], |ids| ids)
    }

    /// Whether it was published to come exactly once: sent and then forgotten, it would be published and sent again as
    /// another message, to a subscriber at QoS 1 even without DUP.
    #[must_use]
    pub fn is_once(&self) -> bool {
        self.message.qos() == QoS::ExactlyOnce
    }

    /// Whether it waited too long to be begun.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        self.message.is_expired(now) || self.waits_until.is_some_and(|until| until.is_past(now))
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

/// A queue that was longer gives its memory back once it is empty.
const CAPACITY_KEPT: usize = 1_024;

/// A bounded first-in first-out queue of [`Owed`].
#[derive(Debug, Default)]
pub struct Queue {
    owed: VecDeque<Owed>,
    bytes: usize,
    /// How many are of QoS 0: fewer than `mqtt.max_mqueue_len` may be.
    qos0: u32,
    /// Something in it may have its content elsewhere: it waited in an earlier life.
    restored: bool,
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

    /// Whether more than half of what it may hold is waiting, in messages or in bytes.
    #[must_use]
    pub fn is_half_full(&self, limits: QueueLimits) -> bool {
        self.owed.len() > limits.messages_max / 2 || self.bytes > limits.bytes_max / 2
    }

    fn is_over(&self, owed: &Owed, limits: QueueLimits) -> bool {
        self.owed.len() >= limits.messages_max || self.bytes + owed.message.len() > limits.bytes_max
    }

    /// Adds at the end for a client that is connected, where what was sent at QoS 0 never takes the place of what was
    /// promised: it goes first when there is no room, and where that does not help the new one is not kept. How many
    /// messages of QoS 0 went, and how many others.
    pub fn push_connected(&mut self, owed: Owed, limits: QueueLimits, journal: &mut Journal) -> (u64, u64) {
        if !self.is_over(&owed, limits) {
            return (0, self.push(owed, limits, journal));
        }
        if owed.qos != QoS::AtMostOnce {
            return (self.shed_qos0(), self.push(owed, limits, journal));
        }
        let mut dropped = 0;
        if limits.when_full != WhenFull::DropNew && owed.message.len() <= limits.bytes_max {
            while self.is_over(&owed, limits) && self.owed.front().is_some_and(|it| it.qos == QoS::AtMostOnce)
            {
                self.pop();
                dropped += 1;
            }
        }
        if self.is_over(&owed, limits) {
            return (dropped + 1, 0);
        }
        (dropped, self.push(owed, limits, journal))
    }

    /// The QoS of the oldest.
    #[must_use]
    pub fn next_qos(&self) -> Option<QoS> {
        self.owed.front().map(|owed| owed.qos)
    }

    /// Whether the content of the oldest is not in memory.
    #[must_use]
    pub fn next_is_elsewhere(&self) -> bool {
        self.restored && self.owed.front().is_some_and(|owed| owed.message.body_elsewhere().is_some())
    }

    /// The oldest, as long as their content is not in memory.
    pub fn elsewhere(&self) -> impl Iterator<Item = (u64, u64)> {
        self.owed.iter().map_while(|owed| Some((owed.number, owed.message.body_elsewhere()?)))
    }

    /// Puts the content in its place, or takes out what has none. Whether there was one of that number.
    pub fn supply(&mut self, number: u64, message: Option<Message>) -> bool {
        let Some(at) = self.owed.iter().position(|owed| owed.number == number) else { return false };
        self.bytes -= self.owed[at].message.len();
        match message {
            Some(message) => {
                self.bytes += message.len();
                self.owed[at].message = message;
            }
            None => drop(self.owed.remove(at)),
        }
        true
    }

    /// Puts back what waited in an earlier life, behind all that waits.
    pub fn restore(&mut self, owed: Owed) {
        self.restored = true;
        self.bytes += owed.message.len();
        self.qos0 += u32::from(owed.qos == QoS::AtMostOnce);
        self.owed.push_back(owed);
    }

    /// Adds at the end and says how many had to go for it: the oldest, or the new one itself, which goes too when
    /// it alone is over the bounds.
    pub fn push(&mut self, owed: Owed, limits: QueueLimits, journal: &mut Journal) -> u64 {
        if limits.when_full == WhenFull::DropNew && self.is_over(&owed, limits) {
            return 1;
        }
        journal.owed(&owed, None);
        self.bytes += owed.message.len();
        self.qos0 += u32::from(owed.qos == QoS::AtMostOnce);
        if self.owed.len() == self.owed.capacity() {
            // Not doubled: of a long queue half would be room for nothing.
            self.owed.reserve_exact((self.owed.len() / 4).max(4));
        }
        self.owed.push_back(owed);
        let mut dropped = 0;
        while self.owed.len() > limits.messages_max || self.bytes > limits.bytes_max {
            let Some(oldest) = self.pop() else { break };
            journal.over(oldest.number);
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_front()?;
        self.bytes -= owed.message.len();
        self.qos0 -= u32::from(owed.qos == QoS::AtMostOnce);
        if self.owed.is_empty() {
            self.restored = false;
            if self.owed.capacity() > CAPACITY_KEPT {
                self.owed = VecDeque::new();
            }
        }
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

    /// Takes out what is `wanted`, oldest first.
    pub fn take(&mut self, wanted: impl Fn(&Owed) -> bool) -> Vec<Owed> {
        if !self.owed.iter().any(&wanted) {
            return Vec::new();
        }
        let (taken, left): (Vec<Owed>, _) = std::mem::take(&mut self.owed).into_iter().partition(wanted);
        self.owed = VecDeque::from(left);
        self.bytes = self.owed.iter().map(|owed| owed.message.len()).sum();
        self.qos0 = self.owed.iter().filter(|owed| owed.qos == QoS::AtMostOnce).count() as u32;
        taken
    }

    /// Numbers of what is kept.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.owed.iter().map(|owed| owed.number)
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
            waits_until: None,
            number: 0,
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
            [
                queue.push(owed(b"1"), limits, &mut Journal::default()),
                queue.push(owed(b"2"), limits, &mut Journal::default()),
                queue.push(owed(b"3"), limits, &mut Journal::default())
            ],
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
        let dropped =
            [b"1", b"2", b"3"].map(|payload| queue.push(owed(payload), limits, &mut Journal::default()));
        assert_eq!(dropped, [0, 0, 1]);
        assert_eq!(queue.pop().unwrap().message.view().payload, b"1");
        assert_eq!(queue.push(owed(b"22"), limits, &mut Journal::default()), 1, "bytes count too");
        assert_eq!((queue.len(), queue.bytes()), (1, 2));
    }

    #[test]
    fn what_a_message_costs_while_it_waits() {
        assert_eq!(size_of::<Owed>(), 48);
        let limits = QueueLimits {
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
            when_full: WhenFull::DropOldest,
            wait_ms_max: None,
        };
        let mut queue = Queue::default();
        (0..10_000).for_each(|_| assert_eq!(queue.push(owed(b"1"), limits, &mut Journal::default()), 0));
        assert!(queue.owed.capacity() <= 12_500, "{}", queue.owed.capacity());
        while queue.pop().is_some() {}
        assert!(queue.owed.capacity() <= CAPACITY_KEPT, "an empty queue gives back what a long one took");
    }

    #[test]
    fn a_moment_in_tenths_is_never_early() {
        for (mono_ms, tenths) in [(0, 1), (100, 1), (101, 2), (5_000, 50), (u64::MAX, u32::MAX)] {
            assert_eq!(Tenths::from_mono_ms(mono_ms), Tenths(NonZeroU32::new(tenths).unwrap()));
        }
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        let until = Tenths::from_mono_ms(4_950);
        assert!(!until.is_past(at(4_999)) && until.is_past(at(5_000)));
    }

    #[test]
    fn qos_0_never_displaces_what_was_promised() {
        let limits = QueueLimits {
            messages_max: 3,
            bytes_max: 100,
            when_full: WhenFull::DropOldest,
            wait_ms_max: None,
        };
        let qos0 = |payload| Owed { qos: QoS::AtMostOnce, ..owed(payload) };
        let mut queue = Queue::default();
        for payload in [b"1", b"2", b"3"] {
            assert_eq!(queue.push_connected(qos0(payload), limits, &mut Journal::default()), (0, 0));
        }
        assert_eq!(
            queue.push_connected(qos0(b"4"), limits, &mut Journal::default()),
            (1, 0),
            "the oldest of its own kind goes"
        );
        assert_eq!(queue.push_connected(owed(b"5"), limits, &mut Journal::default()), (3, 0), "it makes way");
        assert_eq!(queue.push_connected(owed(b"6"), limits, &mut Journal::default()), (0, 0));
        assert_eq!(queue.push_connected(qos0(b"7"), limits, &mut Journal::default()), (0, 0));
        assert_eq!(
            queue.push_connected(qos0(b"8"), limits, &mut Journal::default()),
            (1, 0),
            "what stands first was promised"
        );
        assert_eq!(queue.push_connected(owed(b"9"), limits, &mut Journal::default()), (1, 0));
        assert_eq!(
            queue.push_connected(owed(b"A"), limits, &mut Journal::default()),
            (0, 1),
            "the oldest of the promised"
        );
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop()).map(|it| it.message.view().payload[0]).collect();
        assert_eq!(order, b"69A");
        for payload in [b"1", b"2", b"3"] {
            queue.push_connected(qos0(payload), limits, &mut Journal::default());
        }
        let new_goes = QueueLimits { when_full: WhenFull::DropNew, ..limits };
        assert_eq!(queue.push_connected(qos0(b"4"), new_goes, &mut Journal::default()), (1, 0));
        assert_eq!(queue.pop().unwrap().message.view().payload, b"1");
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
            queue.push(Owed { qos, ..owed(payload) }, limits, &mut Journal::default());
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
        queue.push(owed(b"12345"), limits, &mut Journal::default());
        assert_eq!(queue.push(owed(b"123456"), limits, &mut Journal::default()), 1);
        assert_eq!(
            queue.push(owed(&[0; 50]), limits, &mut Journal::default()),
            2,
            "a message over the bound leaves nothing behind"
        );
        assert!(queue.is_empty());
        assert!(queue.pop().is_none());
    }
}
