//! How many enrolments are let in (trust.md 2.4): so many at a time, and one a second from each source. What they cost is
//! apart from what links and clients may cost. Pure: the moment is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Sources that are remembered, each for as long as it has to wait.
const SOURCES_MAX: usize = 1024;

/// How much enrolment there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At a time.
    pub at_a_time: usize,
    /// Between two of one source.
    pub between: Duration,
    /// From the connection to the last byte of the answer.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { at_a_time: 8, between: Duration::from_secs(1), time: Duration::from_secs(10) }
    }
}

/// Why one is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There are as many as there may be.
    Busy,
    /// The last one of this source was a moment ago.
    TooSoon,
}

/// A source: an IPv4 address, or the block that one IPv6 subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let mut block = [0; 8];
                block.copy_from_slice(&v6.octets()[..8]);
                Self::V6(block)
            }
        }
    }
}

/// Who is in, and who was a moment ago.
#[derive(Debug, Default)]
pub struct Gate {
    inside: usize,
    last_ms: HashMap<Source, u64>,
}

impl Gate {
    /// Lets one in, which [`Self::leave`] lets out again. One that is turned away for being one too many has had its turn
    /// all the same.
    ///
    /// # Errors
    /// Why not.
    pub fn enter(&mut self, limits: &Limits, source: IpAddr, now_ms: u64) -> Result<(), Turned> {
        let between = u64::try_from(limits.between.as_millis()).unwrap_or(u64::MAX);
        let waits = |last: u64| now_ms.saturating_sub(last) < between;
        let source = Source::of(source);
        if self.last_ms.get(&source).is_some_and(|last| waits(*last)) {
            return Err(Turned::TooSoon);
        }
        if self.last_ms.len() >= SOURCES_MAX {
            self.last_ms.retain(|_, last| waits(*last));
        }
        if self.last_ms.len() >= SOURCES_MAX {
            return Err(Turned::Busy);
        }
        self.last_ms.insert(source, now_ms);
        if self.inside >= limits.at_a_time {
            return Err(Turned::Busy);
        }
        self.inside += 1;
        Ok(())
    }

    /// One that was let in is over.
    pub fn leave(&mut self) {
        self.inside = self.inside.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_ninth_at_a_time_is_turned_away_until_one_leaves() {
        let (mut gate, limits) = (Gate::default(), Limits::default());
        for number in 1..=8 {
            assert_eq!(gate.enter(&limits, ip(&format!("10.0.0.{number}")), 0), Ok(()));
        }
        assert_eq!(gate.enter(&limits, ip("10.0.0.9"), 0), Err(Turned::Busy));
        gate.leave();
        assert_eq!(gate.enter(&limits, ip("10.0.0.9"), 999), Err(Turned::TooSoon), "it had its turn");
        assert_eq!(gate.enter(&limits, ip("10.0.0.10"), 999), Ok(()));
        assert_eq!(gate.enter(&limits, ip("10.0.0.9"), 1000), Err(Turned::Busy));
    }

    #[test]
    fn one_source_waits_a_second_and_no_other_does() {
        let (mut gate, limits) = (Gate::default(), Limits { at_a_time: 100, ..Limits::default() });
        for (address, at, let_in) in [
            ("10.0.0.1", 5, Ok(())),
            ("10.0.0.1", 1004, Err(Turned::TooSoon)),
            ("::ffff:10.0.0.1", 1004, Err(Turned::TooSoon)),
            ("10.0.0.2", 5, Ok(())),
            ("10.0.0.1", 1005, Ok(())),
            ("2001:db8::1", 5, Ok(())),
            ("2001:db8::2", 6, Err(Turned::TooSoon)),
            ("2001:db8:0:1::1", 6, Ok(())),
            ("2001:db8::2", 4, Err(Turned::TooSoon)),
        ] {
            assert_eq!(gate.enter(&limits, ip(address), at), let_in, "{address} at {at}");
        }
    }

    #[test]
    fn what_is_remembered_of_sources_has_an_end() {
        let (mut gate, limits) = (Gate::default(), Limits { at_a_time: usize::MAX, ..Limits::default() });
        let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        for number in 0..1024 {
            assert_eq!(gate.enter(&limits, source(number), u64::from(number % 2)), Ok(()));
        }
        assert_eq!(gate.enter(&limits, source(5000), 999), Err(Turned::Busy));
        assert_eq!(gate.enter(&limits, source(5000), 1000), Ok(()), "half of them are forgotten");
        assert_eq!(gate.last_ms.len(), 513);
    }
}
