//! What happened to messages, counted by a core and added to the metrics by its driver, once per burst.

use crate::mqtt::packet::QoS;

/// Why a message did not reach a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// The session's queue was full; the oldest went.
    QueueFull,
    /// Its Message Expiry Interval had passed.
    Expired,
    /// Larger than the client's Maximum Packet Size.
    TooLarge,
    /// QoS 0 while the client reads too slowly and its queue is full.
    SlowConsumer,
    /// QoS 0 while the client is away, and such messages are not kept.
    Offline,
}

impl DropReason {
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::Expired, Self::TooLarge, Self::SlowConsumer, Self::Offline];

    /// The value of the `reason` label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::SlowConsumer => "slow_consumer",
            Self::Offline => "offline",
        }
    }
}

/// Counts since the last time a driver took them.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Messages sent, by QoS.
    pub sent: [u64; 3],
    /// Messages sent again on a new connection.
    pub resent: u64,
    /// The queue of a connected client is more than half full: whoever can wait should.
    pub pressed: bool,
    /// A connected client has more to be sent than one turn should give it: whoever publishes lets it have its own first.
    pub crowded: bool,
    /// Messages dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Tally {
    /// One message went out.
    pub fn sent(&mut self, qos: QoS) {
        self.sent_many(qos, 1);
    }

    /// Several messages of one QoS went out.
    pub fn sent_many(&mut self, qos: QoS, count: u64) {
        self.sent[qos as usize] += count;
    }

    /// Messages were dropped.
    pub fn drop(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// Messages dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}
