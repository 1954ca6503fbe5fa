//! `$SYS/broker/...`: what the broker knows about itself, under mosquitto's names. Published only to whoever
//! subscribes: at the next tick after a subscription under `$SYS/`, then every ten seconds. Nothing is stored and
//! nothing crosses a link. Who may subscribe is the ACL's to say; the shipped one denies it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::broker::client::Client;
use crate::broker::counts::Counts;
use crate::broker::delivery::Source;
use crate::broker::identity::Proof;
use crate::broker::routes::Target;
use crate::broker::routes::Targets;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::PacketType;
use crate::mqtt::packet::QoS;
use crate::session::frames::Run;
use crate::session::frames::RunFrames;
use crate::session::message::Publication;
use crate::time::Now;

/// Between two rounds, as mosquitto's `sys_interval`.
const INTERVAL_MS: u64 = 10_000;
/// First level of these topics.
const SYS_PREFIX: &str = "$SYS/";
/// Nothing is kept of a value, and the next comes soon.
const PLAINLY: (QoS, bool) = (QoS::AtMostOnce, false);
const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

type Count = fn(&Broker) -> u64;

/// Topic Names and where their values come from.
const COUNTS: &[(&str, Count)] = &[
    ("$SYS/broker/clients/total", |broker| broker.clients.len() as u64),
    ("$SYS/broker/clients/connected", connected),
    ("$SYS/broker/clients/disconnected", |broker| {
        (broker.clients.len() as u64).saturating_sub(connected(broker))
    }),
    ("$SYS/broker/messages/received", |broker| {
        PacketType::ALL.iter().map(|kind| broker.metrics.broker.packets_received[*kind].value()).sum()
    }),
    ("$SYS/broker/messages/sent", |broker| {
        PacketType::ALL.iter().map(|kind| broker.metrics.broker.packets_sent[*kind].value()).sum()
    }),
    ("$SYS/broker/publish/messages/received", |broker| {
        EVERY_QOS.iter().map(|qos| broker.metrics.broker.messages_received[*qos].value()).sum()
    }),
    ("$SYS/broker/publish/messages/sent", |broker| {
        EVERY_QOS.iter().map(|qos| broker.metrics.broker.messages_sent[*qos].value()).sum()
    }),
    ("$SYS/broker/publish/messages/dropped", |broker| {
        DropReason::ALL.iter().map(|reason| broker.metrics.broker.messages_dropped[*reason].value()).sum()
    }),
    ("$SYS/broker/bytes/received", |broker| broker.metrics.broker.bytes_received.value()),
    ("$SYS/broker/bytes/sent", |broker| broker.metrics.broker.bytes_sent.value()),
    ("$SYS/broker/retained messages/count", |broker| broker.retained.counts().messages as u64),
    ("$SYS/broker/subscriptions/count", |broker| {
        let counts = broker.routes.counts();
        (counts.subscriptions + counts.shared_subscriptions) as u64
    }),
    ("$SYS/broker/shared_subscriptions/count", |broker| broker.routes.counts().shared_subscriptions as u64),
];

fn connected(broker: &Broker) -> u64 {
    broker.clients.iter().filter(|entry| entry.value().is_connected()).count() as u64
}

/// When the next round is.
#[derive(Debug, Default)]
pub struct SysTopics {
    /// Somebody subscribed since the last round.
    asked: AtomicBool,
    /// The same, for whoever publishes events.
    subscribed: Notify,
    rounds: Mutex<Rounds>,
}

#[derive(Debug, Default)]
struct Rounds {
    started_mono_ms: Option<u64>,
    next_mono_ms: u64,
}

impl SysTopics {
    /// Somebody subscribed to this filter.
    pub fn note(&self, filter: &str) {
        if filter.starts_with(SYS_PREFIX) {
            self.asked.store(true, Ordering::Relaxed);
            self.subscribed.notify_one();
        }
    }

    /// Waits until somebody subscribes to something of the broker's, or has since the last time.
    pub async fn subscribed(&self) {
        self.subscribed.notified().await;
    }

    /// Seconds since the first call, when a round is due.
    fn due(&self, now: Now) -> Option<u64> {
        let mut rounds = self.rounds.lock();
        let started = *rounds.started_mono_ms.get_or_insert(now.mono_ms);
        if !self.asked.swap(false, Ordering::Relaxed) && now.mono_ms < rounds.next_mono_ms {
            return None;
        }
        rounds.next_mono_ms = now.mono_ms + INTERVAL_MS;
        Some((now.mono_ms - started) / 1000)
    }
}

impl Broker {
    /// Time has passed.
    pub(super) fn publish_sys(&self, now: Now) {
        let Some(uptime) = self.sys.due(now) else { return };
        let version = || concat!("tombolo version ", env!("CARGO_PKG_VERSION")).to_owned();
        self.publish_own("$SYS/broker/version", PLAINLY, version, now);
        self.publish_own("$SYS/broker/uptime", PLAINLY, || format!("{uptime} seconds"), now);
        for (topic, count) in COUNTS {
            self.publish_own(topic, PLAINLY, || count(self).to_string(), now);
        }
    }

    /// Publishes what the broker says itself, made only if there is somebody to hear it.
    pub(super) fn publish_own<P: AsRef<[u8]>>(
        &self,
        topic: &str,
        (qos, retain): (QoS, bool),
        payload: impl FnOnce() -> P,
        now: Now,
    ) {
        let targets = self.routes.targets(topic).targets;
        let wanted = !targets.clients.is_empty() || !targets.shared.is_empty();
        if !wanted && !retain {
            return;
        }
        let payload = payload();
        let publications =
            [Publication { topic, properties: &[], payload: payload.as_ref(), qos, retain, expiry: None }];
        if retain {
            let mut frames = RunFrames::default();
            let mut run = Run::new(&publications, &mut frames, now);
            self.retain(&publications[0], None, now.unix_ms, || run.keep(0));
        }
        if wanted {
            // As if a link had brought it: not forwarded.
            self.publish_one(&publications[0], Source::Broker, now);
        }
    }
}

/// Where security events are published to operators, by the node's name.
#[must_use]
pub fn events_topic(node: &str) -> String {
    format!("$SYS/brokers/{node}/events/security")
}

impl Broker {
    /// Publishes a security event to those who subscribe to it and `may` see it, by what they have proved. Whoever else
    /// subscribes gets nothing, whatever the rules allow; nor do Shared Subscriptions, whose members need not be alike. Whether
    /// there is anybody.
    pub fn publish_security_event(
        &self,
        topic: &str,
        line: &str,
        may: impl Fn(&Proof) -> bool,
        now: Now,
    ) -> bool {
        let routed = self.routes.targets(topic);
        let may = |target: &&Target<Arc<Client>>| {
            let identity = Arc::clone(&target.destination.lock().identity);
            may(&identity.proof)
        };
        let clients = routed.targets.clients.iter().filter(may);
        let targets = Targets { clients: clients.cloned().collect(), ..Targets::default() };
        if targets.clients.is_empty() {
            return false;
        }
        let (qos, payload) = (QoS::AtLeastOnce, line.as_bytes());
        let publications =
            [Publication { topic, properties: &[], payload, qos, retain: false, expiry: None }];
        let (mut frames, mut counts) = (RunFrames::default(), Counts::default());
        let mut run = Run::new(&publications, &mut frames, now);
        self.deliver(&mut run, &targets, Source::Broker, now, &mut counts.tally, &mut Vec::new());
        counts.report(&self.metrics);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_due_when_asked_for_and_every_ten_seconds() {
        let sys = SysTopics::default();
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        assert_eq!(sys.due(at(1_000)), Some(0));
        assert_eq!(sys.due(at(10_999)), None);
        assert_eq!(sys.due(at(11_000)), Some(10));
        sys.note("sensors/#");
        assert_eq!(sys.due(at(12_000)), None);
        sys.note("$SYS/#");
        assert_eq!(sys.due(at(12_000)), Some(11));
        assert_eq!(sys.due(at(12_500)), None);
    }
}
