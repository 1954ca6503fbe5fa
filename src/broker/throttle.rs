//! Message and byte rates: how fast a client is read.
//!
//! A client over its rate is not told, and loses nothing: it is not read until there is room again, and TCP holds it
//! back. What was read already waits where it is, at its first PUBLISH that has to: other packets before it are handled.
//! So bursts larger than a period's worth go on, piece by piece. Whoever is limited has one of these; others have none.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::settings::RateLimits;
use crate::link::name::LinkTopic;
use crate::metrics::labels::ThrottleReason;
use crate::net::bucket::Bucket;
use crate::time::Now;

/// What is left of [`RateLimits`].
#[derive(Debug)]
pub struct Limiter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Limiter {
    /// Everything is left; none, if nothing is limited.
    #[must_use]
    pub fn new(limits: RateLimits, now: Now) -> Option<Self> {
        let bucket = |rate| Bucket::new(rate, now.mono_ms);
        let limiter = Self { messages: limits.messages.map(bucket), bytes: limits.bytes.map(bucket) };
        (limiter.messages.is_some() || limiter.bytes.is_some()).then_some(limiter)
    }

    fn has_message(&mut self, now: Now) -> bool {
        self.messages.as_mut().is_none_or(|messages| messages.available(now.mono_ms) > 0)
    }

    fn spend_message(&mut self) {
        if let Some(messages) = &mut self.messages {
            messages.spend(1);
        }
    }

    fn readable(&mut self, now: Now) -> usize {
        let left = self.bytes.as_mut().map(|bytes| bytes.available(now.mono_ms));
        left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn spend_bytes(&mut self, count: usize) {
        if let Some(bytes) = &mut self.bytes {
            bytes.spend(count as u64);
        }
    }

    fn wait_for_message(&mut self, now: Now) -> Option<u64> {
        self.messages.as_mut()?.wait_ms(now.mono_ms)
    }

    fn wait_for_bytes(&mut self, now: Now) -> Option<u64> {
        self.bytes.as_mut()?.wait_ms(now.mono_ms)
    }
}

/// What all connections of one peer have together (`cluster.links.quota`).
pub type SharedLimiter = Arc<Mutex<Limiter>>;

/// How long a connection is not to be read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// In milliseconds.
    pub ms: u64,
    /// What there is none left of.
    pub reason: ThrottleReason,
}

/// The rates of one connection.
#[derive(Debug)]
pub struct Throttle {
    own: Option<Limiter>,
    quota: Option<SharedLimiter>,
    /// The quota is for messages that the peer forwards. A connection that brings only its routes never waits for it:
    /// a heartbeat that is late would cost all of them.
    forwards: bool,
    /// A PUBLISH was read that has to wait.
    held: bool,
}

impl Throttle {
    /// For a connection of a listener with `limits`, and of a peer with `quota`; none, if neither limits anything.
    #[must_use]
    pub fn new(limits: RateLimits, quota: Option<SharedLimiter>, now: Now) -> Option<Box<Self>> {
        let own = Limiter::new(limits, now);
        let limited = own.is_some() || quota.is_some();
        limited.then(|| Box::new(Self { own, quota, forwards: false, held: false }))
    }

    /// Whether a PUBLISH may be handled now.
    pub fn admits(&mut self, topic: &str, now: Now) -> bool {
        let may = self.own.as_mut().is_none_or(|own| own.has_message(now)) && self.quota_admits(topic, now);
        if may && let Some(own) = &mut self.own {
            own.spend_message();
        }
        self.held = !may;
        may
    }

    fn quota_admits(&mut self, topic: &str, now: Now) -> bool {
        let Some(quota) = &self.quota else { return true };
        self.forwards |= matches!(LinkTopic::parse(topic), Some(LinkTopic::Message(_)));
        if !self.forwards {
            return true;
        }
        let mut quota = quota.lock();
        let may = quota.has_message(now);
        if may {
            quota.spend_message();
        }
        may
    }

    /// How many bytes may be read now.
    pub fn readable(&mut self, now: Now) -> usize {
        let own = self.own.as_mut().map_or(usize::MAX, |own| own.readable(now));
        own.min(self.shared().map_or(usize::MAX, |quota| quota.lock().readable(now)))
    }

    /// So many bytes were read.
    pub fn spend_bytes(&mut self, count: usize) {
        if let Some(own) = &mut self.own {
            own.spend_bytes(count);
        }
        if let Some(quota) = self.shared() {
            quota.lock().spend_bytes(count);
        }
    }

    /// Whether nothing may be read or handled now.
    pub fn wait(&mut self, now: Now) -> Option<Wait> {
        if self.held {
            let longest = self.longest(
                |limiter| limiter.wait_for_message(now),
                [ThrottleReason::MessagesRate, ThrottleReason::LinkMessagesRate],
            );
            if longest.is_some() {
                return longest;
            }
            self.held = false;
        }
        self.longest(
            |limiter| limiter.wait_for_bytes(now),
            [ThrottleReason::BytesRate, ThrottleReason::LinkBytesRate],
        )
    }

    fn longest(
        &mut self,
        wait: impl Fn(&mut Limiter) -> Option<u64>,
        [mine, shared]: [ThrottleReason; 2],
    ) -> Option<Wait> {
        let own = self.own.as_mut().and_then(&wait).map(|ms| Wait { ms, reason: mine });
        let quota = self.shared().and_then(|quota| wait(&mut quota.lock()));
        own.into_iter().chain(quota.map(|ms| Wait { ms, reason: shared })).max_by_key(|wait| wait.ms)
    }

    fn shared(&self) -> Option<&SharedLimiter> {
        self.quota.as_ref().filter(|_| self.forwards)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::settings::Rate;

    const MESSAGE: &str = "$LINK/cluster/msg/B";
    const ROUTE: &str = "$LINK/cluster/route/B";

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    fn rates(messages: Option<u32>, bytes: Option<u32>) -> RateLimits {
        let second = |amount| Rate { amount, per: Duration::from_secs(1) };
        RateLimits { messages: messages.map(second), bytes: bytes.map(second) }
    }

    fn over(ms: u64, reason: ThrottleReason) -> Option<Wait> {
        Some(Wait { ms, reason })
    }

    #[test]
    fn who_is_not_limited_has_none() {
        assert!(Throttle::new(RateLimits::default(), None, at(0)).is_none());
    }

    #[test]
    fn a_message_waits_for_its_turn_and_other_packets_do_not() {
        let mut throttle = Throttle::new(rates(Some(2), None), None, at(0)).unwrap();
        assert!(throttle.admits("t", at(0)) && throttle.admits("t", at(0)));
        assert_eq!(throttle.wait(at(0)), None, "nothing is held: a PINGREQ may come");
        assert_eq!(throttle.readable(at(0)), usize::MAX);
        assert!(!throttle.admits("t", at(100)));
        assert_eq!(throttle.wait(at(100)), over(400, ThrottleReason::MessagesRate));
        assert_eq!(throttle.wait(at(500)), None);
        assert!(throttle.admits("t", at(500)) && !throttle.admits("t", at(500)));
    }

    #[test]
    fn no_more_bytes_are_read_than_there_is_room_for() {
        let mut throttle = Throttle::new(rates(None, Some(1_000)), None, at(0)).unwrap();
        assert_eq!(throttle.readable(at(0)), 1_000);
        throttle.spend_bytes(1_000);
        assert_eq!(
            (throttle.readable(at(0)), throttle.wait(at(0))),
            (0, over(10, ThrottleReason::BytesRate))
        );
        assert_eq!((throttle.readable(at(10)), throttle.wait(at(10))), (10, None));
        assert!(throttle.admits("t", at(0)), "of messages there is no limit");
    }

    #[test]
    fn the_connections_of_a_peer_share_its_quota_and_routes_never_wait() {
        let quota = Arc::new(Mutex::new(Limiter::new(rates(Some(2), Some(100)), at(0)).unwrap()));
        let make = || Throttle::new(RateLimits::default(), Some(Arc::clone(&quota)), at(0)).unwrap();
        let (mut one, mut two, mut routes) = (make(), make(), make());
        assert!(one.admits(MESSAGE, at(0)) && two.admits(MESSAGE, at(0)));
        assert!(!one.admits(MESSAGE, at(0)) && !two.admits("", at(0)), "an alias stands for a message too");
        assert_eq!(two.wait(at(0)), over(500, ThrottleReason::LinkMessagesRate));
        one.spend_bytes(150);
        assert_eq!(two.wait(at(500)), over(10, ThrottleReason::LinkBytesRate));
        for _ in 0..10 {
            assert!(routes.admits(ROUTE, at(0)));
            routes.spend_bytes(1_000);
        }
        assert_eq!((routes.wait(at(0)), routes.readable(at(0))), (None, usize::MAX));
        assert!(two.admits(MESSAGE, at(1_000)), "routes were not charged");
    }

    proptest! {
        /// A client that sends without end: handled is, at every moment, the burst and what the rate gave since, less
        /// what ten milliseconds of waiting may hold back.
        #[test]
        fn a_flood_passes_at_the_rate(amount in 1u32..3_000, ms in 1u64..3_000, until in 1u64..20_000) {
            let limits = RateLimits { messages: Some(Rate { amount, per: Duration::from_millis(ms) }), bytes: None };
            let mut throttle = Throttle::new(limits, None, at(0)).unwrap();
            let (mut now, mut handled) = (0, 0);
            loop {
                while throttle.admits("t", at(now)) { handled += 1 }
                let wait = throttle.wait(at(now)).expect("a message is held");
                if now + wait.ms > until { break }
                now += wait.ms;
            }
            let (amount, flowed) = (u64::from(amount), until * u64::from(amount) / ms);
            prop_assert!(handled <= amount + flowed);
            let slack = amount * 11 / ms + 2;
            prop_assert!(handled + slack >= amount + flowed, "{} of {}", handled, amount + flowed);
        }
    }
}
