//! Who is kept out: EMQX's banned table, with certificate fingerprints beside it. Pure but for its locks.
//!
//! An operator's bans name a ClientID, a username, an address, a block of addresses, a fingerprint, or a pattern of the
//! first two. Bans for flapping name one client at one address (`flapping`); they live in a table of their own, so that
//! however many clients flap, an operator's bans have their room. A [`Keeper`] stores both.
//!
//! A ban is looked at when a client connects and when a Will is published; a new one also ends the connections that it
//! fits.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;

use crate::acl::pattern::Pattern;
use crate::acl::rule::Mode;
use crate::auth::certificate::fingerprint_hex;
use crate::auth::certificate::parse_fingerprint;
use crate::broker::flapping;
use crate::broker::identity::Identity;
use crate::config;
use crate::config::settings::Network;
use crate::time::Now;

/// Bans of operators.
pub const ENTRIES_MAX: usize = 10_000;
/// Of those, patterns and blocks: each CONNECT is compared with every one.
pub const PATTERNS_MAX: usize = 500;
/// Bans for flapping. When there are more, the one that ends first goes.
pub const FLAPPING_MAX: usize = 10_000;
/// The longest name of somebody who is banned for flapping: longer ones are not kept.
const FLAPPING_BYTES_MAX: usize = 2 * 1024;
/// The longest text of an entry.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// What of a client a ban names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Client Identifier.
    ClientId,
    /// User Name.
    Username,
    /// Address.
    PeerHost,
    /// A pattern of Client Identifiers.
    ClientIdRe,
    /// A pattern of User Names.
    UsernameRe,
    /// A block of addresses.
    PeerHostNet,
    /// SHA-256 of a client certificate.
    Fingerprint,
    /// One client at one address; never made by an operator.
    Flapping,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::ClientId,
        Self::Username,
        Self::PeerHost,
        Self::ClientIdRe,
        Self::UsernameRe,
        Self::PeerHostNet,
        Self::Fingerprint,
        Self::Flapping,
    ];

    /// EMQX's word for it, and ours where it has none.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientId => "clientid",
            Self::Username => "username",
            Self::PeerHost => "peerhost",
            Self::ClientIdRe => "clientid_re",
            Self::UsernameRe => "username_re",
            Self::PeerHostNet => "peerhost_net",
            Self::Fingerprint => "fingerprint",
            Self::Flapping => "flapping",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A client as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Client Identifier.
    pub client_id: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Address; a client of a Unix socket has none.
    pub host: Option<IpAddr>,
    /// Of its certificate.
    pub fingerprint: Option<[u8; 32]>,
}

impl<'a> Subject<'a> {
    /// A client that was authenticated.
    #[must_use]
    pub fn of(identity: &'a Identity) -> Self {
        Self {
            client_id: &identity.client_id,
            username: identity.username.as_deref(),
            host: identity.peer.ip(),
            fingerprint: identity.proof.certificate.as_ref().map(|certificate| certificate.der_sha256),
        }
    }
}

#[derive(Debug, Clone)]
enum Matcher {
    ClientId,
    Username,
    PeerHost(IpAddr),
    ClientIdRe(Box<Pattern>),
    UsernameRe(Box<Pattern>),
    PeerHostNet(Network),
    Fingerprint([u8; 32]),
}

/// A ban.
#[derive(Debug, Clone)]
pub struct Ban {
    /// What it names.
    pub kind: Kind,
    /// Whom.
    pub who: String,
    /// Who banned it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, in seconds of the Unix clock.
    pub at: u64,
    /// Until when; `None` is for good.
    pub until: Option<u64>,
}

impl Ban {
    /// Whether it is in force.
    fn holds(&self, now: Now) -> bool {
        self.until.is_none_or(|until| now.unix_ms / 1000 < until)
    }
}

/// Stores bans, so that they outlive the process. It is told of every change under the lock of its table, so in their order.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// A ban, in the place of another of its name.
    fn kept(&self, ban: &Ban);
    /// There is none of this name any more.
    fn gone(&self, kind: Kind, who: &str);
}

/// Why a ban was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// Not what `as` says it is.
    #[error("who: {0}")]
    Who(String),
    /// There is one already; it has to be deleted first.
    #[error("there is such a ban already: delete it first")]
    Exists,
    /// It would be over at once.
    #[error("until: this is past")]
    Past,
    /// A table is full.
    #[error("there are as many bans of this kind as there may be ({0})")]
    Full(usize),
}

#[derive(Debug, Default)]
struct Entries {
    /// What is compared as a whole, by kind and name.
    exact: HashMap<Kind, HashMap<String, Ban>>,
    /// What is tried one by one.
    patterns: BTreeMap<(Kind, String), (Matcher, Ban)>,
    count: usize,
}

impl Entries {
    fn has(&self, kind: Kind, who: &str, now: Now) -> bool {
        self.exact.get(&kind).and_then(|bans| bans.get(who)).is_some_and(|ban| ban.holds(now))
    }

    fn get(&self, kind: Kind, who: &str) -> Option<&Ban> {
        let exact = self.exact.get(&kind).and_then(|bans| bans.get(who));
        exact.or_else(|| self.patterns.get(&(kind, who.to_owned())).map(|(_, ban)| ban))
    }

    fn remove(&mut self, kind: Kind, who: &str) -> Option<Ban> {
        let exact = self.exact.get_mut(&kind).and_then(|bans| bans.remove(who));
        let removed = exact.or_else(|| self.patterns.remove(&(kind, who.to_owned())).map(|(_, ban)| ban));
        self.count -= usize::from(removed.is_some());
        removed
    }

    fn all(&self) -> impl Iterator<Item = &Ban> {
        let exact = self.exact.values().flat_map(HashMap::values);
        exact.chain(self.patterns.values().map(|(_, ban)| ban))
    }
}

/// The bans in force.
#[derive(Debug, Default)]
pub struct Banned {
    entries: RwLock<Entries>,
    flapping: RwLock<HashMap<String, Ban>>,
    /// How many there are of both, to be seen without a lock.
    entries_len: AtomicUsize,
    flapping_len: AtomicUsize,
    keeper: OnceLock<Box<dyn Keeper>>,
}

impl Banned {
    /// From now on bans are stored by `keeper`. Whoever changes them then begins a turn of its store before.
    pub fn keep_in(&self, keeper: Box<dyn Keeper>) {
        // There is one store.
        let _ = self.keeper.set(keeper);
    }

    /// Takes over a ban that was stored, unless it is over or cannot be read any more. Whether it is in force.
    pub fn restore(&self, ban: Ban, now: Now) -> bool {
        if ban.kind != Kind::Flapping {
            return self.insert(ban, now).is_ok();
        }
        let mut bans = self.flapping.write();
        let fits = ban.holds(now) && ban.who.len() <= FLAPPING_BYTES_MAX && bans.len() < FLAPPING_MAX;
        if fits {
            bans.insert(ban.who.clone(), ban);
            self.flapping_len.store(bans.len(), Ordering::Relaxed);
        }
        fits
    }

    fn kept(&self, ban: &Ban) {
        if let Some(keeper) = self.keeper.get() {
            keeper.kept(ban);
        }
    }

    fn gone(&self, kind: Kind, who: &str) {
        if let Some(keeper) = self.keeper.get() {
            keeper.gone(kind, who);
        }
    }

    /// Whether an operator's ban fits this client.
    #[must_use]
    pub fn find(&self, subject: &Subject<'_>, now: Now) -> bool {
        if self.entries_len.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let entries = self.entries.read();
        let host = subject.host.map(|host| host.to_canonical().to_string());
        entries.has(Kind::ClientId, subject.client_id, now)
            || subject.username.is_some_and(|name| entries.has(Kind::Username, name, now))
            || host.is_some_and(|host| entries.has(Kind::PeerHost, &host, now))
            || subject
                .fingerprint
                .is_some_and(|known| entries.has(Kind::Fingerprint, &fingerprint_hex(&known), now))
            || entries.patterns.values().any(|(matcher, ban)| ban.holds(now) && matcher.fits(subject))
    }

    /// Whether this client is banned for flapping, here and under this name.
    #[must_use]
    pub fn is_flapping(&self, identity: &Identity, now: Now) -> bool {
        if self.flapping_len.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.flapping.read().get(&flapping::key(identity)).is_some_and(|ban| ban.holds(now))
    }

    /// Makes a ban; gives what says whom it fits.
    ///
    /// # Errors
    /// Why there is none.
    pub fn insert(&self, mut ban: Ban, now: Now) -> Result<(Ban, Fits), BanError> {
        let (who, matcher) = Matcher::parse(ban.kind, &ban.who)?;
        ban.who = who;
        if ban.by.len().max(ban.reason.len()) > TEXT_BYTES_MAX {
            return Err(BanError::Who(format!("by and reason have at most {TEXT_BYTES_MAX} bytes")));
        }
        if !ban.holds(now) {
            return Err(BanError::Past);
        }
        let mut entries = self.entries.write();
        if entries.get(ban.kind, &ban.who).is_some_and(|known| known.holds(now)) {
            return Err(BanError::Exists);
        }
        entries.remove(ban.kind, &ban.who);
        if entries.count >= ENTRIES_MAX {
            return Err(BanError::Full(ENTRIES_MAX));
        }
        if matcher.is_pattern() {
            if entries.patterns.len() >= PATTERNS_MAX {
                return Err(BanError::Full(PATTERNS_MAX));
            }
            entries.patterns.insert((ban.kind, ban.who.clone()), (matcher.clone(), ban.clone()));
        } else {
            entries.exact.entry(ban.kind).or_default().insert(ban.who.clone(), ban.clone());
        }
        self.kept(&ban);
        entries.count += 1;
        self.entries_len.store(entries.count, Ordering::Relaxed);
        let fits = Fits { matcher, who: ban.who.clone() };
        Ok((ban, fits))
    }

    /// Bans a client that flaps, where it does so.
    pub fn ban_flapping(&self, identity: &Identity, now: Now, ban_time: Duration) {
        let who = flapping::key(identity);
        if who.len() > FLAPPING_BYTES_MAX {
            return;
        }
        let at = now.unix_ms / 1000;
        let mut bans = self.flapping.write();
        if bans.len() >= FLAPPING_MAX && !bans.contains_key(&who) {
            let first = bans.iter().min_by_key(|(_, ban)| ban.until).map(|(who, _)| who.clone());
            if let Some(ban) = first.and_then(|who| bans.remove(&who)) {
                self.gone(ban.kind, &ban.who);
            }
        }
        let ban = Ban {
            kind: Kind::Flapping,
            who: who.clone(),
            by: "flapping detector".to_owned(),
            reason: "it came and went too often".to_owned(),
            at,
            until: Some(at + ban_time.as_secs().max(1)),
        };
        self.kept(&ban);
        bans.insert(who, ban);
        self.flapping_len.store(bans.len(), Ordering::Relaxed);
    }

    /// Lifts a ban. Whether there was one.
    pub fn remove(&self, kind: Kind, who: &str, now: Now) -> bool {
        if kind == Kind::Flapping {
            let mut bans = self.flapping.write();
            let removed = bans.remove(who);
            if removed.is_some() {
                self.gone(kind, who);
            }
            self.flapping_len.store(bans.len(), Ordering::Relaxed);
            return removed.is_some_and(|ban| ban.holds(now));
        }
        let who = Matcher::parse(kind, who).map_or_else(|_| who.to_owned(), |(who, _)| who);
        let mut entries = self.entries.write();
        let removed = entries.remove(kind, &who);
        if removed.is_some() {
            self.gone(kind, &who);
        }
        self.entries_len.store(entries.count, Ordering::Relaxed);
        removed.is_some_and(|ban| ban.holds(now))
    }

    /// Lifts every ban.
    pub fn clear(&self) {
        let mut entries = self.entries.write();
        entries.all().for_each(|ban| self.gone(ban.kind, &ban.who));
        *entries = Entries::default();
        self.entries_len.store(0, Ordering::Relaxed);
        drop(entries);
        let mut bans = self.flapping.write();
        bans.drain().for_each(|(who, ban)| self.gone(ban.kind, &who));
        self.flapping_len.store(0, Ordering::Relaxed);
    }

    /// The bans in force, in order of kind and name.
    #[must_use]
    pub fn list(&self, now: Now) -> Vec<Ban> {
        let mut all: Vec<Ban> = self.entries.read().all().filter(|ban| ban.holds(now)).cloned().collect();
        all.extend(self.flapping.read().values().filter(|ban| ban.holds(now)).cloned());
        all.sort_unstable_by(|one, other| (one.kind, &one.who).cmp(&(other.kind, &other.who)));
        all
    }

    /// How many bans there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries_len.load(Ordering::Relaxed) + self.flapping_len.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what is over.
    pub fn expire(&self, now: Now) {
        if self.is_empty() {
            return;
        }
        let mut entries = self.entries.write();
        let over: Vec<(Kind, String)> =
            entries.all().filter(|ban| !ban.holds(now)).map(|ban| (ban.kind, ban.who.clone())).collect();
        for (kind, who) in over {
            entries.remove(kind, &who);
            self.gone(kind, &who);
        }
        self.entries_len.store(entries.count, Ordering::Relaxed);
        drop(entries);
        let mut bans = self.flapping.write();
        bans.extract_if(|_, ban| !ban.holds(now)).for_each(|(who, ban)| self.gone(ban.kind, &who));
        self.flapping_len.store(bans.len(), Ordering::Relaxed);
    }
}

/// Whom a ban fits.
#[derive(Debug, Clone)]
pub struct Fits {
    matcher: Matcher,
    who: String,
}

impl Fits {
    /// Whether it fits this client.
    #[must_use]
    pub fn fits(&self, subject: &Subject<'_>) -> bool {
        match &self.matcher {
            Matcher::ClientId => subject.client_id == self.who,
            Matcher::Username => subject.username == Some(&self.who),
            other => other.fits(subject),
        }
    }
}

impl Matcher {
    /// Reads whom a ban names, and how that is written in the table.
    fn parse(kind: Kind, who: &str) -> Result<(String, Self), BanError> {
        let wrong = |text: &dyn ToString| BanError::Who(text.to_string());
        if who.is_empty() || who.len() > TEXT_BYTES_MAX {
            return Err(wrong(&format!("1 to {TEXT_BYTES_MAX} bytes")));
        }
        let pattern = || Pattern::compile(who, Mode::Strict).map(Box::new).map_err(|error| wrong(&error));
        let as_written = who.to_owned();
        Ok(match kind {
            Kind::ClientId => (as_written, Self::ClientId),
            Kind::Username => (as_written, Self::Username),
            Kind::PeerHost => {
                let host: IpAddr = who.parse().map_err(|_| wrong(&"not an IP address"))?;
                let host = host.to_canonical();
                (host.to_string(), Self::PeerHost(host))
            }
            Kind::ClientIdRe => (as_written, Self::ClientIdRe(pattern()?)),
            Kind::UsernameRe => (as_written, Self::UsernameRe(pattern()?)),
            Kind::PeerHostNet => {
                let block = config::network(who).map_err(|error| wrong(&error))?;
                (block.to_string(), Self::PeerHostNet(block))
            }
            Kind::Fingerprint => {
                let fingerprint = parse_fingerprint(who).map_err(|error| wrong(&error))?;
                (fingerprint_hex(&fingerprint), Self::Fingerprint(fingerprint))
            }
            Kind::Flapping => return Err(wrong(&"bans for flapping make themselves")),
        })
    }

    fn is_pattern(&self) -> bool {
        matches!(self, Self::ClientIdRe(_) | Self::UsernameRe(_) | Self::PeerHostNet(_))
    }

    /// Whether a pattern, a block, an address or a fingerprint fits.
    fn fits(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::ClientId | Self::Username => false,
            Self::PeerHost(host) => subject.host.is_some_and(|peer| peer.to_canonical() == *host),
            Self::ClientIdRe(pattern) => pattern.is_match(subject.client_id),
            Self::UsernameRe(pattern) => subject.username.is_some_and(|name| pattern.is_match(name)),
            Self::PeerHostNet(block) => subject.host.is_some_and(|host| block.holds(host)),
            Self::Fingerprint(known) => subject.fingerprint == Some(*known),
        }
    }
}

#[cfg(test)]
mod tests;
