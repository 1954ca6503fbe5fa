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
//! minute once a delay is over, and a good login forgives what is above the burst: who shares an address with a user has
//! no fresh burst by each of its logins. An attempt that is held is not verified, so it tells nothing, and does not count.
//!
//! **An attempt counts while it is being verified** ([`Attempts::begin`]): only as many are under way at a time as may
//! still fail before a delay, at least one. The others wait, which is no refusal: they may all be right.
//!
//! **What is full forgets what failed longest ago**, and what holds somebody after everything that holds nobody: whoever
//! has many sources and names does not flush a lock-out with them.
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

mod bucket;
mod ranked;

use std::net::IpAddr;

use sha2::Digest;
use sha2::Sha256;

pub use self::bucket::DELAY_MS_MAX;
use self::bucket::FORGET_MS;
use self::bucket::Failures;
use self::ranked::Ranked;
use crate::time::Now;

/// Failures of a username from one source before it is delayed.
pub const PAIR_BURST: u32 = 5;
/// Failures from one source, under whatever names, before it is delayed.
pub const SOURCE_BURST: u32 = 50;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// Why an attempt does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// It is refused unseen.
    Held(Held),
    /// As many as may fail are being verified: it is its turn when one of them is over.
    Wait,
}

/// An attempt that is being verified: [`Attempts::over`] ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    source: Source,
    name: Option<Name>,
    /// Whether this user logged in from there before.
    known: bool,
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// The name is locked out from now on.
    pub locked_out: bool,
    /// How many others were forgotten to make room.
    pub evicted: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct OfName {
    count: u32,
    since: u64,
    last: u64,
    locked_until: u64,
}

/// Whose attempts failed lately, and who logged in from where.
#[derive(Debug)]
pub struct Attempts {
    pairs: Ranked<Pair, Failures>,
    sources: Ranked<Block, Failures>,
    names: Ranked<Name, OfName>,
    known: Ranked<(Option<IpAddr>, Name), u64>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            pairs: Ranked::new(PAIRS_MAX, Failures::rank),
            sources: Ranked::new(SOURCES_MAX, Failures::rank),
            names: Ranked::new(NAMES_MAX, |of| of.last.max(of.locked_until)),
            known: Ranked::new(KNOWN_MAX, |last| *last),
        }
    }
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
        self.check_ticket(policy, &self.ticket(source, username), now.mono_ms)
    }

    fn check_ticket(&self, policy: &Policy, ticket: &Ticket, now_ms: u64) -> Result<(), Held> {
        let pair = ticket.pair().and_then(|pair| self.pairs.get(&pair));
        if pair.is_some_and(|pair| pair.holds(PAIR_BURST, now_ms)) {
            return Err(Held::User);
        }
        if ticket.known {
            return Ok(());
        }
        let block = ticket.source.block;
        if self.sources.get(&block).is_some_and(|from| from.holds(SOURCE_BURST, now_ms)) {
            return Err(Held::Source);
        }
        let name = ticket.name.and_then(|name| self.names.get(&name));
        let failed = |pair: &Failures| pair.count > 0 && now_ms < pair.last + policy.lockout_ms;
        if name.is_some_and(|of| now_ms < of.locked_until) && pair.is_some_and(failed) {
            return Err(Held::Lockout);
        }
        Ok(())
    }

    fn ticket(&self, source: Source, username: Option<&str>) -> Ticket {
        let name = username.map(name_of);
        let known = name.is_some_and(|name| self.known.contains(&(source.address, name)));
        Ticket { source, name, known }
    }

    /// An attempt that is to be verified now; `None` where nothing is counted. How many others were forgotten for it.
    ///
    /// # Errors
    /// Why it does not begin.
    pub fn begin(
        &mut self,
        policy: &Policy,
        source: Source,
        username: Option<&str>,
        now: Now,
    ) -> Result<(Option<Ticket>, u64), Hindrance> {
        if !policy.enable {
            return Ok((None, 0));
        }
        let now_ms = now.mono_ms;
        let ticket = self.ticket(source, username);
        self.check_ticket(policy, &ticket, now_ms).map_err(Hindrance::Held)?;
        let (pair, block) = (ticket.pair(), ticket.block());
        let full =
            |failures: Option<&Failures>, burst| failures.is_some_and(|of| !of.has_room(burst, now_ms));
        if full(pair.and_then(|pair| self.pairs.get(&pair)), PAIR_BURST)
            || full(block.and_then(|block| self.sources.get(&block)), SOURCE_BURST)
        {
            return Err(Hindrance::Wait);
        }
        let mut evicted = 0;
        if let Some(pair) = pair {
            evicted += self.pairs.update(pair, |pair| pair.begin(now_ms));
        }
        if let Some(block) = block {
            evicted += self.sources.update(block, |from| from.begin(now_ms));
        }
        Ok((Some(ticket), evicted))
    }

    /// An attempt is not being verified any more. Whether it failed is told apart from that, and before it.
    pub fn over(&mut self, ticket: &Ticket) {
        if let Some(pair) = ticket.pair() {
            self.pairs.settle(pair, Failures::over);
        }
        if let Some(block) = ticket.block() {
            self.sources.settle(block, Failures::over);
        }
    }

    /// An attempt that was verified failed.
    pub fn failed(&mut self, policy: &Policy, source: Source, username: Option<&str>, now: Now) -> Noted {
        if !policy.enable {
            return Noted::default();
        }
        self.failed_with(policy, &self.ticket(source, username), now)
    }

    /// As [`Attempts::failed`], of an attempt that began.
    pub fn failed_with(&mut self, policy: &Policy, ticket: &Ticket, now: Now) -> Noted {
        let now_ms = now.mono_ms;
        let mut noted = Noted::default();
        noted.evicted += self.sources.update(ticket.source.block, |from| from.fail(SOURCE_BURST, now_ms));
        let (Some(name), Some(pair)) = (ticket.name, ticket.pair()) else { return noted };
        noted.evicted += self.pairs.update(pair, |pair| pair.fail(PAIR_BURST, now_ms));
        if ticket.known {
            return noted;
        }
        let mut locked_out = false;
        noted.evicted += self.names.update(name, |of| {
            if now_ms >= of.since + policy.lockout_window_ms {
                (of.count, of.since) = (0, now_ms);
            }
            (of.count, of.last) = (of.count + 1, now_ms);
            if of.count >= policy.lockout_failures && now_ms >= of.locked_until {
                of.locked_until = now_ms + policy.lockout_ms;
                locked_out = true;
            }
        });
        Noted { locked_out, ..noted }
    }

    /// An attempt that was verified was right.
    pub fn succeeded(&mut self, policy: &Policy, source: Source, username: &str, now: Now) {
        if !policy.enable {
            return;
        }
        let key = (source.address, name_of(username));
        self.pairs.settle(Pair::Address(key.0, key.1), |pair| {
            pair.count = pair.count.min(PAIR_BURST);
            false
        });
        self.known.update(key, |last| *last = now.mono_ms);
    }

    /// Ends what holds a username, everywhere. Whether anything did.
    pub fn unlock(&mut self, username: &str) -> bool {
        let name = name_of(username);
        let before = self.pairs.len();
        self.pairs
            .retain(|pair, _| !matches!(pair, Pair::Block(_, of) | Pair::Address(_, of) if *of == name));
        self.names.remove(&name) || self.pairs.len() < before
    }

    /// Forgets what is past.
    pub fn expire(&mut self, policy: &Policy, now: Now) {
        let now_ms = now.mono_ms;
        let keep = FORGET_MS * u64::from(SOURCE_BURST) + policy.lockout_ms;
        self.pairs.retain(|_, failures| failures.pending > 0 || now_ms < failures.rank() + keep);
        self.sources.retain(|_, from| from.pending > 0 || now_ms < from.rank() + keep);
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

impl Ticket {
    fn pair(&self) -> Option<Pair> {
        let Source { address, block } = self.source;
        self.name.map(|name| if self.known { Pair::Address(address, name) } else { Pair::Block(block, name) })
    }

    /// The source, if it holds this user.
    fn block(&self) -> Option<Block> {
        (!self.known).then_some(self.source.block)
    }
}

#[cfg(test)]
mod tests;
