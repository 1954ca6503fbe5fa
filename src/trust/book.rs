//! Everything a cluster keeps about trust: identities, tokens that are out, groups, and pins that operators set by hand.
//!
//! A book is changed by operations that check first and change then: one that fails has changed nothing. The caller stores it as
//! a whole ([`Book::to_json`]) before it acts on a change, and turns the [`Event`]s into its security log.
//!
//! What always holds: there is at most one identity of one kind and name; no fingerprint belongs to two identities, to ourselves or to a peer of the configuration; no secret is in the book, only hashes of them.

use std::collections::BTreeMap;

use crate::auth::peer::PeerRule;
use crate::trust::Fingerprint;
use crate::trust::Uuid;
use crate::trust::address::ServerAddr;
use crate::trust::group::Group;
use crate::trust::group::LINK_PEER;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::name;
use crate::trust::rights::OperatorRights;
use crate::trust::rights::Rights;

pub use self::error::TrustError;
pub use self::event::Event;
pub use self::event::Happened;
pub use self::identities::NewIdentity;
pub use self::join::Join;
pub use self::join::Joined;
pub use self::outbound::Outbound;
pub use self::redeem::Redeemed;
pub use self::rotate::OVERLAP_SECONDS_MAX;
pub use self::seen::Seen;
pub use self::stored::BYTES_MAX;
pub use self::stored::BookError;
pub use self::stored::VERSION;
pub use self::tokens::ATTEMPTS_MAX;
pub use self::tokens::Issued;
pub use self::tokens::IssuedText;
pub use self::tokens::NewLink;
pub use self::tokens::PendingToken;
pub use self::tokens::REMEMBERED_SECONDS;
pub use self::tokens::TokenState;

mod error;
mod event;
mod grants;
mod groups;
mod identities;
mod join;
mod outbound;
mod redeem;
mod rotate;
mod seen;
mod stored;
mod tokens;
mod unused;

/// Identities of a book.
pub const IDENTITIES_MAX: usize = 10_000;
/// Tokens of a book, those that are used or over included.
pub const TOKENS_MAX: usize = 1_000;
/// Groups of a book, besides the one that is built in.
pub const GROUPS_MAX: usize = 1_000;
/// Permissions of all groups.
pub const PERMISSIONS_MAX: usize = 100_000;
/// Pins that are set by hand.
pub const OUTBOUND_MAX: usize = 1_000;

/// Everything a cluster keeps about trust.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    identities: BTreeMap<Uuid, Identity>,
    tokens: BTreeMap<Uuid, PendingToken>,
    groups: BTreeMap<String, Group>,
    outbound: BTreeMap<String, Outbound>,
}

/// What an operation has to know of the cluster whose book it is.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its name.
    pub cluster: &'a str,
    /// What its Client Identifiers begin with.
    pub prefix: &'a str,
    /// Its certificate, which peers meet.
    pub fingerprint: Fingerprint,
    /// Others that it has: the one before, the next one, those of its listeners.
    pub also: &'a [Fingerprint],
    /// Where peers reach it.
    pub addrs: &'a [ServerAddr],
    /// What it can do.
    pub caps: &'a [String],
    /// How long a token is valid of which nobody says it, in seconds.
    pub token_lifetime: u64,
    /// The peers that the configuration knows, by whatever proof.
    pub configured: &'a [PeerRule],
}

impl<'a> Own<'a> {
    /// Of a cluster of which no more is known than who it is: without addresses, capabilities and peers of its configuration.
    #[must_use]
    pub const fn bare(cluster: &'a str, prefix: &'a str, fingerprint: Fingerprint) -> Self {
        Self {
            cluster,
            prefix,
            fingerprint,
            also: &[],
            addrs: &[],
            caps: &[],
            token_lifetime: crate::trust::token::LIFETIME_SECONDS,
            configured: &[],
        }
    }

    fn has(&self, fingerprint: Fingerprint) -> bool {
        self.fingerprint == fingerprint || self.also.contains(&fingerprint)
    }
}

impl Book {
    /// All identities, by their ids.
    pub fn identities(&self) -> impl ExactSizeIterator<Item = &Identity> {
        self.identities.values()
    }

    /// The identity of that id.
    #[must_use]
    pub fn identity(&self, id: Uuid) -> Option<&Identity> {
        self.identities.get(&id)
    }

    /// The identity of a name: there is one at most.
    #[must_use]
    pub fn named(&self, kind: Kind, name: &str) -> Option<&Identity> {
        self.identities.values().find(|one| one.kind == kind && one.name == name)
    }

    /// The identity of a link.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Identity> {
        self.named(Kind::Link, name)
    }

    /// The active identity, of a cluster or an operator, of whoever shows this certificate now.
    #[must_use]
    pub fn by_fingerprint(&self, fingerprint: &[u8; 32], now: u64) -> Option<&Identity> {
        let shown = Fingerprint(*fingerprint);
        // Not every handshake looks at the dates.
        let has_expired = |one: &&Identity| {
            let pin = one.fingerprints.iter().find(|pin| pin.sha256 == shown);
            pin.and_then(|pin| pin.not_after).is_some_and(|last| now > last)
        };
        self.owner_of(shown)
            .filter(|one| one.usable(now).any(|usable| usable == shown))
            .filter(|one| !has_expired(one))
    }

    /// Whose certificate this is or was, active or not.
    #[must_use]
    pub fn owner_of(&self, fingerprint: Fingerprint) -> Option<&Identity> {
        self.identities.values().find(|one| one.fingerprints.iter().any(|pin| pin.sha256 == fingerprint))
    }

    /// All tokens, by their ids.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &PendingToken> {
        self.tokens.values()
    }

    /// Whether anybody may come with a token: while one is valid, used or not, since an answer may be asked for again.
    #[must_use]
    pub fn pending(&self, now: u64) -> bool {
        self.tokens.values().any(|token| now <= token.expires && token.state.may_come())
    }

    /// When a token, a certificate or the memory of one runs out next: the moment to call [`Book::expire`].
    #[must_use]
    pub fn next_change(&self, now: u64) -> Option<u64> {
        let tokens = self.tokens.values().map(|token| {
            let over = token.expires.saturating_add(1);
            if now < over { over } else { over.saturating_add(REMEMBERED_SECONDS) }
        });
        let pins = self.identities.values().flat_map(|one| &one.fingerprints);
        tokens.chain(pins.filter_map(|pin| pin.until).map(|until| until.saturating_add(1))).min()
    }

    /// All groups by name, the one that is built in among them.
    pub fn groups(&self) -> impl Iterator<Item = (&str, Group)> {
        let built_in = std::iter::once((LINK_PEER, Group::link_peer()));
        built_in.chain(self.groups.iter().map(|(name, group)| (name.as_str(), group.clone())))
    }

    /// The rights of the peer cluster `name`; none unless it is active.
    #[must_use]
    pub fn rights_of_link(&self, name: &str) -> Rights {
        let Some(one) = self.link(name).filter(|one| one.is_active()) else { return Rights::default() };
        let groups = self.groups_of(one);
        Rights::of(name, groups.iter().flat_map(|group| &group.permissions))
    }

    /// The rights of an operator; none unless active.
    #[must_use]
    pub fn operator_rights(&self, one: &Identity) -> OperatorRights {
        if one.kind != Kind::Admin || !one.is_active() {
            return OperatorRights::default();
        }
        let groups = self.groups_of(one);
        OperatorRights::of(groups.iter().flat_map(|group| &group.permissions))
    }

    fn groups_of(&self, one: &Identity) -> Vec<Group> {
        one.groups.iter().filter_map(|name| self.group(name)).collect()
    }

    /// What connections of peers are bound by: one rule for each active link and its usable fingerprints.
    #[must_use]
    pub fn peers(&self, now: u64) -> Vec<PeerRule> {
        let links = self.identities.values().filter(|one| one.kind == Kind::Link && one.is_active());
        let rules = links.map(|one| PeerRule {
            cluster: one.name.clone(),
            clientid_prefix: one.prefix.clone(),
            cert_sha256: one.usable(now).map(|usable| usable.0).collect(),
            ..PeerRule::default()
        });
        // Without a fingerprint a rule would ask for nothing.
        rules.filter(|rule| !rule.cert_sha256.is_empty()).collect()
    }

    /// The certificates of which whoever dials us as the cluster `name` must show one.
    #[must_use]
    pub fn peers_pins(&self, name: &str, now: u64) -> Vec<[u8; 32]> {
        self.link(name).map(|one| one.usable(now).map(|usable| usable.0).collect()).unwrap_or_default()
    }

    /// The certificates of which the servers of the cluster `name` must show one. What an operator has pinned by hand counts
    /// alone, unless the identity has it too and so knows what follows it.
    #[must_use]
    pub fn pins(&self, name: &str, now: u64) -> Vec<[u8; 32]> {
        let identity = self.link(name).filter(|one| one.is_active());
        let has_it = |fingerprint| {
            identity.is_some_and(|one| one.fingerprints.iter().any(|pin| pin.sha256 == fingerprint))
        };
        match self.outbound.get(name).map(|pin| pin.fingerprint) {
            Some(fingerprint) if !has_it(fingerprint) => vec![fingerprint.0],
            _ => self.peers_pins(name, now),
        }
    }

    /// The prefixes that overlap with this one and are not it: the longest decides, which an operator should know.
    #[must_use]
    pub fn overlapping(&self, prefix: &str) -> Vec<&str> {
        let links = self.identities.values().filter(|one| one.kind == Kind::Link && one.holds_name());
        links
            .map(|one| one.prefix.as_str())
            .filter(|other| *other != prefix && name::overlap(other, prefix))
            .collect()
    }

    /// Whether a cluster may be called so, beside those that there are.
    fn check_name(&self, own: &Own<'_>, name: &str) -> Result<(), TrustError> {
        name::check_cluster(name).map_err(TrustError::usage)?;
        if name == own.cluster {
            return Err(TrustError::Usage(format!("{name} is this cluster itself")));
        }
        let links = self.identities.values().filter(|one| one.kind == Kind::Link && one.holds_name());
        let configured = own.configured.iter().map(|rule| rule.cluster.as_str());
        let mut others = links.map(|one| one.name.as_str()).chain(configured).chain([own.cluster]);
        if let Some(twin) = others.find(|other| name::are_twins(other, name)) {
            return Err(TrustError::Conflict(format!(
                "{name} and {twin} differ in the case of letters only"
            )));
        }
        Ok(())
    }

    /// Whether the cluster `name` may have this prefix: nobody else has the same.
    fn check_prefix(&self, own: &Own<'_>, name: &str, prefix: &str) -> Result<(), TrustError> {
        name::check_prefix(prefix).map_err(TrustError::usage)?;
        let same = |other: &str| other.eq_ignore_ascii_case(prefix);
        let links = self.identities.values().filter(|one| one.kind == Kind::Link && one.holds_name());
        let held = links.map(|one| (one.name.as_str(), one.prefix.as_str()));
        let configured =
            own.configured.iter().map(|rule| (rule.cluster.as_str(), rule.clientid_prefix.as_str()));
        let mut others = held.chain(configured).filter(|(cluster, _)| *cluster != name);
        let taken = others.find(|(_, other)| same(other)).map(|(cluster, _)| cluster);
        match taken.or_else(|| same(own.prefix).then_some(own.cluster)) {
            None => Ok(()),
            Some(cluster) => Err(TrustError::Conflict(format!("the prefix {prefix} is that of {cluster}"))),
        }
    }

    /// Whether the configuration leaves it to this book how the cluster `name` proves itself.
    fn check_unconfigured(own: &Own<'_>, name: &str) -> Result<(), TrustError> {
        let proves = |rule: &&PeerRule| {
            rule.cluster == name
                && (rule.username.is_some() || rule.asks_for_certificate() || rule.allow_unauthenticated)
        };
        match own.configured.iter().find(proves) {
            None => Ok(()),
            Some(_) => Err(TrustError::Conflict(format!(
                "the configuration says how {name} proves itself: take `peer` out of its link first"
            ))),
        }
    }

    /// Whose certificate this is already, but for the identity `except`.
    fn holder_of(&self, own: &Own<'_>, fingerprint: Fingerprint, except: Option<Uuid>) -> Option<String> {
        if own.has(fingerprint) {
            return Some(own.cluster.to_owned());
        }
        let configured = own.configured.iter().find(|rule| rule.cert_sha256.contains(&fingerprint.0));
        let held = self.owner_of(fingerprint).filter(|one| Some(one.id) != except);
        held.map(|one| one.name.clone()).or_else(|| configured.map(|rule| rule.cluster.clone()))
    }

    /// Whether there is room for one more identity.
    fn check_room(&self) -> Result<(), TrustError> {
        if self.identities.len() < IDENTITIES_MAX {
            return Ok(());
        }
        Err(TrustError::Conflict(format!("there are {IDENTITIES_MAX} identities already: delete some")))
    }

    /// Groups that an identity is to be in: they exist, are for such ones, and none twice. Without any a peer is in
    /// [`LINK_PEER`], an operator in none.
    fn checked_groups(&self, kind: Kind, groups: &[String]) -> Result<Vec<String>, TrustError> {
        let mut checked: Vec<String> = groups.to_vec();
        if checked.is_empty() && kind == Kind::Link {
            checked.push(LINK_PEER.to_owned());
        }
        checked.sort_unstable();
        checked.dedup();
        if checked.len() > crate::trust::identity::GROUPS_MAX {
            return Err(TrustError::Usage("an identity is in at most 64 groups".to_owned()));
        }
        match checked.iter().find(|name| self.group(name).is_none()) {
            Some(name) => Err(TrustError::NotFound { what: "group", name: name::clipped(name) }),
            None => checked.iter().try_for_each(|name| self.check_fits(kind, name)).map(|()| checked),
        }
    }

    /// Where the book and the configuration contradict each other, which they may after one was changed without the other.
    #[must_use]
    pub fn conflicts(&self, own: &Own<'_>) -> Vec<String> {
        let mut found = Vec::new();
        for one in self.identities.values().filter(|one| one.holds_name()) {
            if one.kind == Kind::Link {
                let checks = [
                    self.check_name(own, &one.name),
                    self.check_prefix(own, &one.name, &one.prefix),
                    Self::check_unconfigured(own, &one.name),
                ];
                found.extend(checks.into_iter().filter_map(Result::err).map(|error| error.to_string()));
            }
            for pin in &one.fingerprints {
                if let Some(holder) = self.holder_of(own, pin.sha256, Some(one.id)) {
                    found.push(format!("{} of {} is the certificate of {holder}", pin.sha256, one.name));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
