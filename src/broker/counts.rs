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
}

impl Counts {
    /// A Control Packet came.
    pub fn received(&mut self, packet: PacketType) {
        self.packets_received[packet as usize] += 1;
    }

    /// A Control Packet was put into the output.
    pub fn sent(&mut self, packet: PacketType) {
        self.packets_sent[packet as usize] += 1;
    }

    /// Adds everything to the metrics and starts again at zero.
    pub fn report(&mut self, metrics: &Metrics) {
        let now = std::mem::take(self);
        let broker = &metrics.broker;
        add(now.bytes_received, |count| broker.bytes_received.add(count));
        add(now.bytes_sent, |count| broker.bytes_sent.add(count));
        add(now.no_subscribers, |count| broker.messages_dropped[DropReason::NoSubscribers].add(count));
        add(now.denied, |count| broker.messages_dropped[DropReason::Acl].add(count));
        for (index, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
            add(now.messages_received[index], |count| broker.messages_received[qos].add(count));
            add(now.tally.sent[index], |count| broker.messages_sent[qos].add(count));
        }
        for reason in tally::DropReason::ALL {
            add(now.tally.dropped[reason as usize], |count| {
                broker.messages_dropped[label(reason)].add(count)
            });
        }
        let published = now.tally.sent.iter().sum::<u64>() + now.tally.resent;
        add(published, |count| broker.packets_sent[PacketType::Publish].add(count));
        for &packet in PacketType::ALL {
            add(now.packets_received[packet as usize], |count| broker.packets_received[packet].add(count));
            add(now.packets_sent[packet as usize], |count| broker.packets_sent[packet].add(count));
        }
    }
}

fn add(count: u64, to: impl FnOnce(u64)) {
    if count > 0 {
        to(count);
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
