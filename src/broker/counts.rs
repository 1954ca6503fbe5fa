//! What one connection has to tell the metrics: counted in plain numbers and added once per wake-up, so that
//! no shared counter is touched per message.

use crate::metrics::Metrics;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::PacketType;
use crate::mqtt::packet::QoS;
use crate::session::tally;
use crate::session::tally::Tally;

/// Counts since the last [`Counts::report`].
#[derive(Debug, Default)]
pub struct Counts {
    /// What sessions counted.
    pub tally: Tally,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Messages received, by QoS.
    pub messages_received: [u64; 3],
    /// Messages nobody subscribes to.
    pub no_subscribers: u64,
    /// Messages the publisher may not publish.
    pub denied: u64,
    /// Control Packets received, by type.
    packets_received: [u64; PacketType::COUNT],
    /// Control Packets sent, by type; PUBLISH is added from the tally.
    packets_sent: [u64; PacketType::COUNT],
    /// Bits of the types in the two arrays that are not 0: most wake-ups touch one or two.
    touched: u32,
}

impl Counts {
    /// A Control Packet came.
    pub fn received(&mut self, packet: PacketType) {
        self.packets_received[packet as usize] += 1;
        self.touched |= 1 << packet as u32;
    }

    /// PUBLISH packets came, by QoS.
    pub fn received_publishes(&mut self, by_qos: [u64; 3]) {
        for (count, more) in self.messages_received.iter_mut().zip(by_qos) {
            *count += more;
        }
        self.packets_received[PacketType::Publish as usize] += by_qos.iter().sum::<u64>();
        self.touched |= 1 << PacketType::Publish as u32;
    }

    /// A Control Packet was put into the output.
    pub fn sent(&mut self, packet: PacketType) {
        self.sent_many(packet, 1);
    }

    /// Several of one type were.
    pub fn sent_many(&mut self, packet: PacketType, count: u64) {
        self.packets_sent[packet as usize] += count;
        self.touched |= 1 << packet as u32;
    }

    /// Adds everything to the metrics and starts again at zero.
    pub fn report(&mut self, metrics: &Metrics) {
        let broker = &metrics.broker;
        // They were meant for this turn.
        self.tally.pressed = false;
        self.tally.crowded = false;
        take(&mut self.bytes_received, |count| broker.bytes_received.add(count));
        take(&mut self.bytes_sent, |count| broker.bytes_sent.add(count));
        take(&mut self.no_subscribers, |count| {
            broker.messages_dropped[DropReason::NoSubscribers].add(count);
        });
        take(&mut self.denied, |count| broker.messages_dropped[DropReason::Acl].add(count));
        take(&mut self.tally.resent, |count| broker.packets_sent[PacketType::Publish].add(count));
        for (index, qos) in QoS::ALL.into_iter().enumerate() {
            take(&mut self.messages_received[index], |count| broker.messages_received[qos].add(count));
            take(&mut self.tally.sent[index], |count| {
                broker.messages_sent[qos].add(count);
                broker.packets_sent[PacketType::Publish].add(count);
            });
        }
        for reason in tally::DropReason::ALL {
            take(&mut self.tally.dropped[reason as usize], |count| {
                broker.messages_dropped[label(reason)].add(count);
            });
        }
        let mut touched = std::mem::take(&mut self.touched);
        while touched != 0 {
            let index = touched.trailing_zeros() as usize;
            touched &= touched - 1;
            let packet = PacketType::ALL[index];
            take(&mut self.packets_received[index], |count| broker.packets_received[packet].add(count));
            take(&mut self.packets_sent[index], |count| broker.packets_sent[packet].add(count));
        }
    }
}

fn take(count: &mut u64, add: impl FnOnce(u64)) {
    if *count > 0 {
        add(std::mem::take(count));
    }
}

fn label(reason: tally::DropReason) -> DropReason {
    match reason {
        tally::DropReason::QueueFull => DropReason::QueueFull,
        tally::DropReason::Expired => DropReason::Expired,
        tally::DropReason::TooLarge => DropReason::TooLarge,
        tally::DropReason::SlowConsumer => DropReason::Qos0Slow,
        tally::DropReason::Offline => DropReason::Qos0Offline,
    }
}
