//! How many refusals of one source are written down: a stranger must not fill the log, nor push out of it what others
//! did. What is left out is counted, and the next one of that source that is written says how many. Pure: the moment is
//! an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::config::settings::Rate;
use crate::net::address::PeerAddr;
use crate::net::bucket::Bucket;

/// Refusals of one source that are written down.
const RATE: Rate = Rate { amount: 20, per: Duration::from_secs(60) };
/// Sources told apart. While there are as many, all others share one place.
pub(super) const SOURCES_MAX: usize = 4096;
/// Whoever was quiet for so long has a full bucket and is forgotten.
const FORGET_MS: u64 = 60_000;
/// How often the quiet ones are looked for while all places are taken: it looks at every place.
const SWEEP_MS: u64 = 1_000;

/// Where somebody comes from, as far as it is told apart: the block that one customer has, as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    /// The first 24 bits.
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(Ipv6Addr),
    /// A Unix domain socket, or none known.
    Local,
    /// Everybody for whom there was no place.
    Crowd,
}

impl Source {
    fn of(peer: Option<PeerAddr>) -> Self {
        match peer.and_then(|peer| peer.ip()).map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Self::V4(Ipv4Addr::from_bits(ip.to_bits() & 0xffff_ff00)),
            Some(IpAddr::V6(ip)) => Self::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
            None => Self::Local,
        }
    }
}

#[derive(Debug)]
struct Seen {
    bucket: Bucket,
    suppressed: u64,
    last_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Limit {
    sources: HashMap<Source, Seen>,
    /// When the quiet ones are looked for again.
    sweep_at_ms: u64,
}

impl Limit {
    /// Whether a refusal of this source is written down, and how many were not before it.
    pub(super) fn admit(&mut self, peer: Option<PeerAddr>, now_ms: u64) -> Option<u64> {
        let mut source = Source::of(peer);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            if now_ms >= self.sweep_at_ms {
                self.sweep_at_ms = now_ms.saturating_add(SWEEP_MS);
                // What a forgotten source still had to tell is in the metric.
                self.sources.retain(|_, seen| now_ms.saturating_sub(seen.last_ms) < FORGET_MS);
            }
            if self.sources.len() >= SOURCES_MAX {
                source = Source::Crowd;
            }
        }
        let seen = self.sources.entry(source).or_insert_with(|| Seen {
            bucket: Bucket::new(RATE, now_ms),
            suppressed: 0,
            last_ms: now_ms,
        });
        seen.last_ms = now_ms;
        if seen.bucket.take(now_ms) {
            return Some(std::mem::take(&mut seen.suppressed));
        }
        seen.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<PeerAddr> {
        Some(PeerAddr::Ip(text.parse().unwrap()))
    }

    #[test]
    fn a_source_is_written_down_so_often_and_then_counted() {
        let mut limit = Limit::default();
        for port in 1..=20 {
            assert_eq!(limit.admit(at(&format!("10.0.0.{port}:{port}")), 0), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(at("10.0.0.9:1"), 0), None);
        }
        assert_eq!(limit.admit(at("10.0.1.9:1"), 0), Some(0), "another network");
        assert_eq!(limit.admit(at("[2001:db8::1]:1"), 0), Some(0));
        assert_eq!(limit.admit(at("10.0.0.1:1"), 3_000), Some(7), "one is written every three seconds");
        assert_eq!(limit.admit(at("10.0.0.1:1"), 3_000), None);
    }

    #[test]
    fn mapped_addresses_are_what_they_map() {
        assert_eq!(Source::of(at("[::ffff:10.0.0.1]:1")), Source::of(at("10.0.0.200:1")));
        assert_eq!(Source::of(at("[2001:db8::1]:1")), Source::of(at("[2001:db8::ffff]:9")));
        assert_ne!(Source::of(at("[2001:db8::1]:1")), Source::of(at("[2001:db8:0:1::1]:1")));
        assert_eq!(Source::of(None), Source::of(Some(PeerAddr::Unix)));
    }

    #[test]
    fn sources_are_bounded_and_the_quiet_ones_are_forgotten() {
        let mut limit = Limit::default();
        let address = |number: usize| at(&format!("10.{}.{}.1:1", number / 256, number % 256));
        for number in 0..SOURCES_MAX + 300 {
            limit.admit(address(number), 0);
        }
        assert_eq!(limit.sources.len(), SOURCES_MAX + 1, "and the crowd's");
        assert_eq!(limit.admit(address(SOURCES_MAX + 400), 0), None, "the crowd shares one allowance");
        assert!(limit.admit(address(SOURCES_MAX + 400), FORGET_MS).is_some());
        assert!(limit.sources.len() < 10);
    }

    #[test]
    fn new_sources_do_not_each_look_for_the_quiet_ones() {
        let mut limit = Limit::default();
        let address = |number: usize| at(&format!("10.{}.{}.1:1", number / 256, number % 256));
        for number in 0..SOURCES_MAX {
            limit.admit(address(number), 0);
        }
        // Whoever comes just before the others are quiet for long enough has looked in vain, and for all.
        limit.admit(address(SOURCES_MAX), FORGET_MS - 1);
        limit.admit(address(SOURCES_MAX + 1), FORGET_MS);
        assert_eq!(limit.sources.len(), SOURCES_MAX + 1, "nobody looked again");
        limit.admit(address(SOURCES_MAX + 1), FORGET_MS - 1 + SWEEP_MS);
        assert_eq!(limit.sources.len(), 2, "the crowd and the new one");
    }
}
