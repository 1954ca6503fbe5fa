//! Tokens that are out: issued, taken back, over (`trust.md` 2.3).
//!
//! A token that was used or is over stays for a day, so that whoever holds it is told what became of it and its reuse is seen.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::time::moment as rfc3339;
use crate::trust::Fingerprint;
use crate::trust::Secret;
use crate::trust::Token;
use crate::trust::Uuid;
use crate::trust::address;
use crate::trust::address::ServerAddr;
use crate::trust::identity;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::State;
use crate::trust::name;
use crate::trust::secret::SecretHash;
use crate::trust::token;
use crate::trust::written;

use super::Book;
use super::Event;
use super::Happened;
use super::Own;
use super::TOKENS_MAX;
use super::TrustError;

/// Wrong secrets that burn a token.
pub const ATTEMPTS_MAX: u8 = 5;
/// How long a token is remembered after its end, in seconds.
pub const REMEMBERED_SECONDS: u64 = 24 * 3600;

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is", content = "by")]
pub enum TokenState {
    /// Nothing yet.
    Issued,
    /// Redeemed with this certificate.
    Used(Fingerprint),
    /// Too many wrong secrets.
    Burnt,
    /// Taken back.
    Revoked,
}

impl TokenState {
    /// Whether somebody may come with it: for the first time, or again because the answer was lost.
    pub(super) fn may_come(self) -> bool {
        matches!(self, Self::Issued | Self::Used(_))
    }
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingToken {
    /// Its id.
    pub id: Uuid,
    /// The identity that it makes active.
    pub identity: Uuid,
    /// The cluster that may redeem it.
    #[serde(rename = "for")]
    pub issued_for: String,
    #[serde(with = "written::hash", rename = "secret_sha256")]
    pub(super) hash: SecretHash,
    /// The last second in which it is valid.
    #[serde(with = "written::moment")]
    pub expires: u64,
    /// How many came with a wrong secret.
    #[serde(default)]
    pub attempts: u8,
    /// Who issued it.
    pub issuer: String,
    /// In which groups the identity will be.
    pub groups: Vec<String>,
    /// What the Client Identifiers of the peer have to begin with.
    pub prefix: String,
    /// The certificate that is expected, if an operator knows it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_fingerprint: Option<Fingerprint>,
    /// Whether an operator has to approve.
    #[serde(default)]
    pub approve: bool,
    /// What became of it.
    pub state: TokenState,
}

impl PendingToken {
    /// Whether it can be used at this moment.
    #[must_use]
    pub fn is_pending(&self, now: u64) -> bool {
        self.state == TokenState::Issued && now <= self.expires
    }
}

/// What is asked for with `link create NAME`.
#[derive(Debug, Clone)]
pub struct NewLink<'a> {
    /// The name of the peer cluster.
    pub name: &'a str,
    /// What its Client Identifiers begin with; the default prefix of its name.
    pub prefix: Option<&'a str>,
    /// Its groups; [`LINK_PEER`](crate::trust::group::LINK_PEER).
    pub groups: &'a [String],
    /// Where the peer reaches us, instead of [`Own::addrs`].
    pub addrs: &'a [ServerAddr],
    /// How long the token is valid, in seconds; [`Own::token_lifetime`].
    pub lifetime: Option<u64>,
    /// Whether more than a day is meant.
    pub i_know: bool,
    /// What it is for.
    pub description: &'a str,
    /// Who asks.
    pub issuer: &'a str,
    /// Whether somebody has to approve the peer once it has come.
    pub approve: bool,
    /// The certificate that the peer will show.
    pub expect_fingerprint: Option<Fingerprint>,
    /// Whether an identity of that name gets a new certificate in this way; until then the old one is good.
    pub replace: bool,
    /// Whether only the peer is to dial.
    pub unidirectional: bool,
}

impl<'a> NewLink<'a> {
    /// With all that need not be said.
    #[must_use]
    pub fn named(name: &'a str, issuer: &'a str) -> Self {
        Self {
            name,
            prefix: None,
            groups: &[],
            addrs: &[],
            lifetime: None,
            i_know: false,
            description: "",
            issuer,
            approve: false,
            expect_fingerprint: None,
            replace: false,
            unidirectional: false,
        }
    }

    fn check(&self) -> Result<(), TrustError> {
        let longest = if self.i_know { token::LIFETIME_SECONDS_LIMIT } else { token::LIFETIME_SECONDS_MAX };
        if let Some(lifetime) = self.lifetime.filter(|lifetime| !(1..=longest).contains(lifetime)) {
            let text = format!("a token is valid for 1 to {longest} seconds, {lifetime} asked for");
            return Err(TrustError::Usage(text));
        }
        check_texts(self.description, self.issuer)
    }
}

/// Whether description and operator can be written down.
pub(super) fn check_texts(description: &str, issuer: &str) -> Result<(), TrustError> {
    if identity::is_text(description) && identity::is_text(issuer) {
        return Ok(());
    }
    Err(TrustError::Usage("a description has at most 512 characters and no control characters".to_owned()))
}

/// A token that was issued. Its secret is nowhere else.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The token.
    pub token: Token,
    /// As it is handed over.
    pub text: IssuedText,
    /// The identity that it makes active.
    pub identity: Uuid,
    /// What happened.
    pub event: Event,
}

/// The text of a token, which is shown to whoever asked for it and in no log.
#[derive(Clone)]
pub struct IssuedText(pub Zeroizing<String>);

impl fmt::Debug for IssuedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuedText(..)")
    }
}

impl Book {
    /// Issues a token for a peer, and makes its pending identity. `id` and `secret` are random bytes.
    ///
    /// # Errors
    /// If there is such a link or prefix already, or something cannot be.
    pub fn issue(
        &mut self,
        own: &Own<'_>,
        new: &NewLink<'_>,
        id: [u8; 16],
        secret: [u8; 32],
        now: u64,
    ) -> Result<Issued, TrustError> {
        new.check()?;
        self.check_name(own, new.name)?;
        Self::check_unconfigured(own, new.name)?;
        let prefix = self.prefix_for(new);
        self.check_prefix(own, new.name, &prefix)?;
        let groups = self.groups_for(new)?;
        if let Some(expected) = new.expect_fingerprint {
            self.check_expected(own, new, expected)?;
        }
        let target = self.target_of(new)?;
        let (id, secret) = (Uuid::from_random(id), Secret::new(secret));
        if self.tokens.contains_key(&id) || self.identities.contains_key(&id) {
            return Err(TrustError::Conflict(format!("there is a token {id} already")));
        }
        self.check_token_room(now)?;
        let token = Token {
            id,
            cluster: own.cluster.to_owned(),
            issued_for: new.name.to_owned(),
            fingerprint: own.fingerprint,
            addrs: addresses(own, new)?,
            secret,
            expires: now.saturating_add(new.lifetime.unwrap_or(own.token_lifetime)),
            unidirectional: new.unidirectional,
        };
        let text = token.encode().map_err(TrustError::usage)?;
        let kept = PendingToken {
            id,
            identity: target.unwrap_or(id),
            issued_for: new.name.to_owned(),
            hash: token.secret.hash(),
            expires: token.expires,
            attempts: 0,
            issuer: new.issuer.to_owned(),
            groups,
            prefix,
            expect_fingerprint: new.expect_fingerprint,
            approve: new.approve,
            state: TokenState::Issued,
        };
        let event = Event::new(
            Happened::TokenCreated,
            new.name,
            format!("token {id} by {}, valid until {}", new.issuer, rfc3339::format(token.expires)),
        );
        let issued = Issued { identity: kept.identity, token, text: IssuedText(text), event };
        self.put_token(kept, new.description, now);
        Ok(issued)
    }

    /// A link that is replaced keeps its prefix, unless another is asked for.
    fn prefix_for(&self, new: &NewLink<'_>) -> String {
        let kept = self.link(new.name).filter(|_| new.replace).map(|one| one.prefix.as_str());
        new.prefix.or(kept).map_or_else(|| name::default_prefix(new.name), str::to_owned)
    }

    /// So with its groups.
    fn groups_for(&self, new: &NewLink<'_>) -> Result<Vec<String>, TrustError> {
        match self.link(new.name).filter(|_| new.replace && new.groups.is_empty()) {
            Some(one) => Ok(one.groups.clone()),
            None => self.checked_groups(Kind::Link, new.groups),
        }
    }

    fn check_expected(
        &self,
        own: &Own<'_>,
        new: &NewLink<'_>,
        expected: Fingerprint,
    ) -> Result<(), TrustError> {
        let same = self.link(new.name).filter(|_| new.replace).map(|one| one.id);
        match self.holder_of(own, expected, same) {
            None => Ok(()),
            Some(holder) => Err(TrustError::Conflict(format!("{expected} is the certificate of {holder}"))),
        }
    }

    /// The identity that a token gives a new certificate to, with `replace`.
    fn target_of(&self, new: &NewLink<'_>) -> Result<Option<Uuid>, TrustError> {
        let Some(one) = self.link(new.name) else {
            self.check_room()?;
            return Ok(None);
        };
        match one.state {
            State::Expired => Ok(None),
            State::Pending if new.replace => Ok(None),
            _ if new.replace => Ok(Some(one.id)),
            State::Pending => Err(TrustError::Conflict(format!(
                "a token for {} is out: revoke it (link token revoke), or use --replace",
                new.name
            ))),
            state => Err(TrustError::Conflict(format!(
                "there is a link {} ({state}): delete it, or use --replace",
                new.name
            ))),
        }
    }

    fn check_token_room(&self, now: u64) -> Result<(), TrustError> {
        let pending = self.tokens.values().filter(|token| token.is_pending(now)).count();
        if pending < TOKENS_MAX {
            return Ok(());
        }
        Err(TrustError::Conflict(format!("{TOKENS_MAX} tokens are out already: revoke some")))
    }

    fn put_token(&mut self, kept: PendingToken, description: &str, now: u64) {
        // Of one name only the last token counts.
        self.drop_tokens_of(&kept.issued_for);
        self.forget_tokens(TOKENS_MAX - 1, now);
        if kept.identity == kept.id {
            self.identities.retain(|_, one| one.kind != Kind::Link || one.name != kept.issued_for);
            self.identities.insert(kept.id, pending_identity(&kept, description, now));
        }
        self.tokens.insert(kept.id, kept);
    }

    /// Tokens for `name` that nobody has used are good no more.
    pub(super) fn drop_tokens_of(&mut self, name: &str) {
        self.tokens.retain(|_, token| token.issued_for != name || token.state != TokenState::Issued);
    }

    /// Forgets tokens that cannot be used, the oldest first, until `left` are left.
    fn forget_tokens(&mut self, left: usize, now: u64) {
        while self.tokens.len() > left {
            let over = self.tokens.values().filter(|token| !token.is_pending(now));
            let Some(id) = over.min_by_key(|token| token.expires).map(|token| token.id) else { return };
            self.tokens.remove(&id);
        }
    }

    /// Takes a token back, with the identity that waits for it.
    ///
    /// # Errors
    /// If there is none, or it was used.
    pub fn revoke_token(&mut self, id: Uuid) -> Result<Event, TrustError> {
        let not_found = || TrustError::NotFound { what: "token", name: id.to_string() };
        let token = self.tokens.get_mut(&id).ok_or_else(not_found)?;
        match token.state {
            TokenState::Issued => {}
            TokenState::Used(by) => return Err(TrustError::Over(format!("token {id} was used by {by}"))),
            TokenState::Burnt | TokenState::Revoked => {
                return Err(TrustError::Over(format!("token {id} is not valid any more")));
            }
        }
        token.state = TokenState::Revoked;
        let (name, identity) = (token.issued_for.clone(), token.identity);
        if self.identities.get(&identity).is_some_and(|one| one.state == State::Pending) {
            self.identities.remove(&identity);
        }
        Ok(Event::new(Happened::TokenRevoked, &name, format!("token {id}")))
    }

    /// What is over at this moment: tokens, identities that waited for them, certificates that were replaced. Nothing is changed
    /// if nothing is returned, but that what is over for a day is forgotten.
    pub fn expire(&mut self, now: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for token in self.tokens.values().filter(|token| now > token.expires) {
            if let Some(one) = self.identities.get_mut(&token.identity)
                && one.state == State::Pending
                && token.state == TokenState::Issued
            {
                one.state = State::Expired;
                let text = format!("token {} was not used in time", token.id);
                one.note(&text);
                events.push(Event::new(Happened::TokenExpired, &token.issued_for, text));
            }
        }
        self.tokens.retain(|_, token| now <= token.expires.saturating_add(REMEMBERED_SECONDS));
        let tokens = &self.tokens;
        self.identities.retain(|id, one| one.state != State::Expired || tokens.contains_key(id));
        self.finish_rotations(now, &mut events);
        events
    }
}

fn addresses(own: &Own<'_>, new: &NewLink<'_>) -> Result<Vec<ServerAddr>, TrustError> {
    let addrs = if new.addrs.is_empty() { own.addrs } else { new.addrs };
    address::parse_all(&address::texts(addrs), false).ok_or_else(|| {
        TrustError::Usage(
            "a token names 1 to 16 addresses, host:port or [v6]:port: give --address".to_owned(),
        )
    })
}

fn pending_identity(token: &PendingToken, description: &str, now: u64) -> Identity {
    Identity {
        id: token.id,
        kind: Kind::Link,
        state: State::Pending,
        name: token.issued_for.clone(),
        prefix: token.prefix.clone(),
        fingerprints: Vec::new(),
        groups: token.groups.clone(),
        addrs: Vec::new(),
        caps: Vec::new(),
        created: now,
        created_by: token.issuer.clone(),
        activated: None,
        activated_from: None,
        last_seen: None,
        last_addr: None,
        notes: Vec::new(),
        description: description.to_owned(),
    }
}
