//! How often somebody may try to log in (authn-tls.md section 3). Failures are counted three ways, each with a bound of
//! its own:
//!
//! | counted by | free | then | held |
//! |---|---|---|---|
//! | source and username | [`PAIR_BURST`] | a delay of 1 s, doubled by each further failure up to 5 min | this name from there |
//! | source alone | [`SOURCE_BURST`] | the same | whoever has not logged in from there before |
//! | username, from anywhere | [`Policy::lockout_failures`] in the window | locked out for [`Policy::lockout_ms`] | see below |
//!
//! A source is a block of addresses, /24 or /64: what one customer has. What was counted is forgotten at one failure per
//! minute once a delay is over. An attempt that is held is not verified, so it tells nothing, and does not count.
//!
//! **A stranger cannot lock a victim out** (A10), for these reasons:
//!
//! 1. A lock-out holds only sources that *have failed* with that name lately. Whoever comes with the right password for
//!    the first time is verified as ever, wherever it comes from: a stranger gets one guess for each block of addresses it
//!    has, and the victim does not notice.
//! 2. Whoever logged in as that user from that very address before is *known* there: neither a lock-out of the name nor
//!    the delay of the source concern it, and failures of its neighbours are not its own.
//! 3. Certificates and links are not counted at all: nobody guesses a key.
//!
//! What remains: one who shares the victim's very address can delay it there by up to five minutes, and one who shares its
//! block can as long as the victim has not logged in from there before.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use sha2::Digest;
use sha2::Sha256;

use crate::time::Now;

/// Failures of a username from one source before it is delayed.
pub const PAIR_BURST: u32 = 5;
/// Failures from one source, under whatever names, before it is delayed.
pub const SOURCE_BURST: u32 = 50;
/// Longest delay.
pub const DELAY_MS_MAX: u64 = 300_000;
/// One failure is forgotten in this time.
const FORGET_MS: u64 = 60_000;
/// Pairs of source and username that are remembered.
const PAIRS_MAX: usize = 50_000;
/// Sources that are remembered.
const SOURCES_MAX: usize = 20_000;
/// Usernames that are remembered.
const NAMES_MAX: usize = 20_000;
/// Pairs of address and username that logged in, which are remembered.
const KNOWN_MAX: usize = 100_000;
/// How long a login is remembered.
const KNOWN_MS: u64 = 30 * 86_400_000;
/// Entries looked at to find one that may go.
const SAMPLE: usize = 8;

/// `[authentication.attempts]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything is counted.
    pub enable: bool,
    /// Failures with one username that lock it out.
    pub lockout_failures: u32,
    /// Within this time.
    pub lockout_window_ms: u64,
    /// For this time.
    pub lockout_ms: u64,
}

/// Where an attempt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    address: Option<IpAddr>,
    block: Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    V4([u8; 3]),
    V6([u8; 8]),
    /// A Unix socket.
    Local,
}

impl Source {
    /// Of this address; none is a client of a Unix socket.
    #[must_use]
    pub fn of(address: Option<IpAddr>) -> Self {
        let address = address.map(|address| address.to_canonical());
        let block = match address {
            None => Block::Local,
            Some(IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                Block::V4([a, b, c])
            }
            Some(IpAddr::V6(v6)) => {
                let mut network = [0; 8];
                network.copy_from_slice(&v6.octets()[..8]);
                Block::V6(network)
            }
        };
        Self { address, block }
    }
}

/// A username, in a size that nobody chooses.
type Name = [u8; 16];

fn name_of(username: &str) -> Name {
    let mut name = [0; 16];
    name.copy_from_slice(&Sha256::digest(username.as_bytes())[..16]);
    name
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pair {
    /// Of a block in which this user never logged in.
    Block(Block, Name),
    /// Of an address from which it did.
    Address(Option<IpAddr>, Name),
}

/// Why an attempt is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// Too many failures with this name from there.
    User,
    /// Too many failures from there.
    Source,
    /// The name is locked out.
    Lockout,
}

impl Held {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 3] = [Self::User, Self::Source, Self::Lockout];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Source => "source",
            Self::Lockout => "lockout",
        }
    }
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// The name is locked out from now on.
    pub locked_out: bool,
    /// How many others were forgotten to make room.
    pub evicted: u64,
}

/// A bucket of failures: empty at first, over its burst it holds for a time that doubles.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// Until when it holds; what is counted is forgotten from then on.
    held_until: u64,
    last: u64,
}

impl Failures {
    fn forget(&mut self, now_ms: u64) {
        let since = now_ms.saturating_sub(self.held_until);
        let steps = since / FORGET_MS;
        self.count = self.count.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        self.held_until += steps * FORGET_MS;
    }

    fn fail(&mut self, burst: u32, now_ms: u64) {
        self.forget(now_ms);
        self.count = (self.count + 1).min(burst + 32);
        self.last = now_ms;
        let over = self.count.saturating_sub(burst);
        let delay = if over == 0 { 0 } else { (1000u64 << (over - 1).min(20)).min(DELAY_MS_MAX) };
        self.held_until = self.held_until.max(now_ms + delay);
    }

    fn holds(&self, burst: u32, now_ms: u64) -> bool {
        self.count > burst && now_ms < self.held_until
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct OfName {
    count: u32,
    since: u64,
    locked_until: u64,
}

/// Whose attempts failed lately, and who logged in from where.
#[derive(Debug, Default)]
pub struct Attempts {
    pairs: HashMap<Pair, Failures>,
    sources: HashMap<Block, Failures>,
    names: HashMap<Name, OfName>,
    known: HashMap<(Option<IpAddr>, Name), u64>,
}

impl Attempts {
    /// Whether an attempt may be verified.
    ///
    /// # Errors
    /// What holds it.
    pub fn check(
        &self,
        policy: &Policy,
        source: Source,
        username: Option<&str>,
        now: Now,
    ) -> Result<(), Held> {
        if !policy.enable {
            return Ok(());
        }
        let now_ms = now.mono_ms;
        let name = username.map(name_of);
        let known = name.is_some_and(|name| self.known.contains_key(&(source.address, name)));
        let pair = name.and_then(|name| self.pairs.get(&pair_of(source, name, known)));
        if pair.is_some_and(|pair| pair.holds(PAIR_BURST, now_ms)) {
            return Err(Held::User);
        }
        if known {
            return Ok(());
        }
        if self.sources.get(&source.block).is_some_and(|from| from.holds(SOURCE_BURST, now_ms)) {
            return Err(Held::Source);
        }
        let locked = name.and_then(|name| self.names.get(&name)).is_some_and(|of| now_ms < of.locked_until);
        if locked && pair.is_some_and(|pair| now_ms < pair.last + policy.lockout_ms) {
            return Err(Held::Lockout);
        }
        Ok(())
    }

    /// An attempt that was verified failed.
    pub fn failed(&mut self, policy: &Policy, source: Source, username: Option<&str>, now: Now) -> Noted {
        let now_ms = now.mono_ms;
        let mut noted = Noted::default();
        if !policy.enable {
            return noted;
        }
        let from = entry(&mut self.sources, source.block, SOURCES_MAX, |from| from.last, &mut noted);
        from.fail(SOURCE_BURST, now_ms);
        let Some(name) = username.map(name_of) else { return noted };
        let known = self.known.contains_key(&(source.address, name));
        let pair = pair_of(source, name, known);
        entry(&mut self.pairs, pair, PAIRS_MAX, |pair| pair.last, &mut noted).fail(PAIR_BURST, now_ms);
        if known {
            return noted;
        }
        let of = entry(&mut self.names, name, NAMES_MAX, |of| of.since.max(of.locked_until), &mut noted);
        if now_ms >= of.since + policy.lockout_window_ms {
            (of.count, of.since) = (0, now_ms);
        }
        of.count += 1;
        if of.count >= policy.lockout_failures && now_ms >= of.locked_until {
            of.locked_until = now_ms + policy.lockout_ms;
            noted.locked_out = true;
        }
        noted
    }

    /// An attempt that was verified was right.
    pub fn succeeded(&mut self, policy: &Policy, source: Source, username: &str, now: Now) {
        if !policy.enable {
            return;
        }
        let key = (source.address, name_of(username));
        self.pairs.remove(&Pair::Address(key.0, key.1));
        let mut ignored = Noted::default();
        *entry(&mut self.known, key, KNOWN_MAX, |last| *last, &mut ignored) = now.mono_ms;
    }

    /// Ends what holds a username, everywhere. Whether anything did.
    pub fn unlock(&mut self, username: &str) -> bool {
        let name = name_of(username);
        let before = self.pairs.len();
        self.pairs
            .retain(|pair, _| !matches!(pair, Pair::Block(_, of) | Pair::Address(_, of) if *of == name));
        self.names.remove(&name).is_some() || self.pairs.len() < before
    }

    /// Forgets what is past.
    pub fn expire(&mut self, policy: &Policy, now: Now) {
        let now_ms = now.mono_ms;
        let keep = FORGET_MS * u64::from(SOURCE_BURST) + policy.lockout_ms;
        self.pairs.retain(|_, failures| now_ms < failures.held_until.max(failures.last) + keep);
        self.sources.retain(|_, from| now_ms < from.held_until.max(from.last) + keep);
        self.names.retain(|_, of| now_ms < of.locked_until.max(of.since + policy.lockout_window_ms));
        self.known.retain(|_, last| now_ms < *last + KNOWN_MS);
    }

    /// How many names are locked out.
    #[must_use]
    pub fn locked_out(&self, now: Now) -> usize {
        self.names.values().filter(|of| now.mono_ms < of.locked_until).count()
    }

    /// How many entries there are of everything.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len() + self.sources.len() + self.names.len() + self.known.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn pair_of(source: Source, name: Name, known: bool) -> Pair {
    if known { Pair::Address(source.address, name) } else { Pair::Block(source.block, name) }
}

/// The entry of `key`. A full map forgets the oldest of a few: an attack must not end the counting of what comes next.
fn entry<'a, K: Copy + Eq + Hash, V: Default>(
    map: &'a mut HashMap<K, V>,
    key: K,
    most: usize,
    age: impl Fn(&V) -> u64,
    noted: &mut Noted,
) -> &'a mut V {
    if map.len() >= most && !map.contains_key(&key) {
        let oldest = map.iter().take(SAMPLE).min_by_key(|(_, value)| age(value)).map(|(key, _)| *key);
        if let Some(oldest) = oldest {
            map.remove(&oldest);
            noted.evicted += 1;
        }
    }
    map.entry(key).or_default()
}

#[cfg(test)]
mod tests;
