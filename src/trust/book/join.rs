//! The side that brings a token along (`trust.md` 2.4, steps 1 and 4): what is checked before anybody is asked, and what is kept
//! once the issuer has said yes. Nothing is stored in between, so that a crash there leaves nothing behind.

use crate::trust::Token;
use crate::trust::Uuid;
use crate::trust::enroll::Accepted;
use crate::trust::enroll::Request;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::Pin;
use crate::trust::identity::Role;
use crate::trust::identity::State;
use crate::trust::name;
use crate::trust::name::clipped;

use super::Book;
use super::Event;
use super::Happened;
use super::Own;
use super::TokenState;
use super::TrustError;
use super::tokens::PendingToken;
use super::tokens::check_texts;

/// What is asked for with `link create NAME --token T`.
#[derive(Debug, Clone)]
pub struct Join<'a> {
    /// The token.
    pub token: &'a Token,
    /// The name that the operator gave for the issuer, if any.
    pub name: Option<&'a str>,
    /// The prefix that the issuer may name, if it is not the default one of its name.
    pub prefix: Option<&'a str>,
    /// In which groups the issuer's identity will be; [`LINK_PEER`](crate::trust::group::LINK_PEER).
    pub groups: &'a [String],
    /// What it is for.
    pub description: &'a str,
    /// Who asks.
    pub operator: &'a str,
    /// Whether an active identity of that name may get another certificate.
    pub replace: bool,
    /// The last second in which the issuer's certificate is valid, once it has shown it, in seconds since the Unix epoch.
    pub not_after: Option<u64>,
}

/// What [`Book::accept_peer`] has done, and what [`Book::roll_back`] needs to undo it.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The identity of the issuer.
    pub id: Uuid,
    /// Whether the book was changed: not if everything was so already.
    pub changed: bool,
    /// What happened.
    pub events: Vec<Event>,
    before: Option<Box<Identity>>,
    tokens: Vec<PendingToken>,
}

impl<'a> Join<'a> {
    /// With all that need not be said.
    #[must_use]
    pub fn of(token: &'a Token, operator: &'a str) -> Self {
        Self {
            token,
            name: None,
            prefix: None,
            groups: &[],
            description: "",
            operator,
            replace: false,
            not_after: None,
        }
    }

    fn prefix(&self) -> String {
        self.prefix.map_or_else(|| name::default_prefix(&self.token.cluster), str::to_owned)
    }
}

impl Book {
    /// Whether to ask the issuer at all. The certificate that it then shows has to be that of the token. Whether the token is over is
    /// said by the issuer's clock, not by ours.
    ///
    /// # Errors
    /// If the token is of another or for another, or there is such a link or prefix already.
    pub fn check_join(&self, own: &Own<'_>, join: &Join<'_>) -> Result<(), TrustError> {
        check_names(own, join)?;
        check_texts(join.description, join.operator)?;
        self.check_peer(own, join)
    }

    fn check_peer(&self, own: &Own<'_>, join: &Join<'_>) -> Result<(), TrustError> {
        let (token, issuer) = (join.token, join.token.cluster.as_str());
        self.check_name(own, issuer)?;
        Self::check_unconfigured(own, issuer)?;
        self.check_prefix(own, issuer, &join.prefix())?;
        self.checked_groups(Kind::Link, join.groups)?;
        let same = self.link(issuer);
        if let Some(holder) = self.holder_of(own, token.fingerprint, same.map(|one| one.id)) {
            return Err(TrustError::Conflict(format!(
                "{} is the certificate of {holder}",
                token.fingerprint
            )));
        }
        let Some(one) = same else { return self.check_room() };
        let has_it = one.fingerprints.iter().any(|pin| pin.sha256 == token.fingerprint);
        match one.state {
            State::Pending | State::Expired => Ok(()),
            _ if join.replace => Ok(()),
            State::Active | State::PendingApproval if has_it => Ok(()),
            state => Err(TrustError::Conflict(format!(
                "there is a link {issuer} ({state}): delete it, or use --replace"
            ))),
        }
    }

    /// Keeps the issuer as an active identity, now that it has said yes. A token of our own for the same cluster, which nobody
    /// needs any more, counts as used by it: two clusters may enrol each other at the same time. `id` is random bytes.
    ///
    /// # Errors
    /// If the answer does not belong to the request, or something stands against it since [`Self::check_join`].
    pub fn accept_peer(
        &mut self,
        own: &Own<'_>,
        join: &Join<'_>,
        (request, accepted): (&Request, &Accepted),
        source: &str,
        id: [u8; 16],
        now: u64,
    ) -> Result<Joined, TrustError> {
        check_names(own, join)?;
        check_answer(join, request, accepted)?;
        self.check_peer(own, join)?;
        let groups = self.checked_groups(Kind::Link, join.groups)?;
        let token = join.token;
        let before = self.link(&token.cluster).cloned();
        let id = before.as_ref().map_or_else(|| Uuid::from_random(id), |one| one.id);
        if before.is_none() && self.identities.contains_key(&id) {
            return Err(TrustError::Conflict(format!("there is an identity {id} already")));
        }
        let known = |one: &Identity| one.is_active() && one.usable(now).any(|pin| pin == token.fingerprint);
        if before.as_ref().is_some_and(known) {
            return Ok(Joined { id, changed: false, events: Vec::new(), before: None, tokens: Vec::new() });
        }
        let one = peer(join, accepted, before.as_ref(), id, groups, source, now);
        let text = format!("token {}, fingerprint {}", token.id, token.fingerprint);
        let event =
            Event::new(Happened::Activated, &token.cluster, text).with(token.fingerprint).from(source);
        self.identities.insert(id, one);
        let tokens = self.supersede(join);
        Ok(Joined { id, changed: true, events: vec![event], before: before.map(Box::new), tokens })
    }

    /// Our own tokens for the issuer count as used by it. Returns them as they were.
    fn supersede(&mut self, join: &Join<'_>) -> Vec<PendingToken> {
        let ours = self
            .tokens
            .values_mut()
            .filter(|token| token.issued_for == join.token.cluster && token.state == TokenState::Issued);
        ours.map(|token| {
            let before = token.clone();
            token.state = TokenState::Used(join.token.fingerprint);
            before
        })
        .collect()
    }

    /// Undoes what [`Self::accept_peer`] has done, because what comes after it cannot be done.
    pub fn roll_back(&mut self, joined: Joined) {
        if !joined.changed {
            return;
        }
        match joined.before {
            Some(before) => drop(self.identities.insert(joined.id, *before)),
            None => drop(self.identities.remove(&joined.id)),
        }
        for token in joined.tokens {
            self.tokens.insert(token.id, token);
        }
    }
}

fn check_names(own: &Own<'_>, join: &Join<'_>) -> Result<(), TrustError> {
    let token = join.token;
    if token.cluster == own.cluster {
        return Err(TrustError::Usage(format!(
            "this is {}: its own token is for {}",
            own.cluster, token.issued_for
        )));
    }
    if token.issued_for != own.cluster {
        return Err(TrustError::Usage(format!(
            "the token is for {}, this is {}",
            token.issued_for, own.cluster
        )));
    }
    match join.name.filter(|name| *name != token.cluster) {
        None => Ok(()),
        Some(name) => Err(TrustError::Usage(format!(
            "the token is of {}, not of {}: a link is called as the peer's cluster",
            token.cluster,
            clipped(name)
        ))),
    }
}

/// Whether this is the answer of the issuer to this request.
fn check_answer(join: &Join<'_>, request: &Request, accepted: &Accepted) -> Result<(), TrustError> {
    if accepted.cluster != join.token.cluster || accepted.nonce != request.nonce {
        let text = format!("{} answered something else than was asked", join.token.cluster);
        return Err(TrustError::Conflict(text));
    }
    if accepted.prefix != join.prefix() {
        return Err(TrustError::Conflict(format!(
            "the ClientIDs of {} begin with {}, expected {}: if that is right, use --prefix",
            accepted.cluster,
            accepted.prefix,
            join.prefix()
        )));
    }
    Ok(())
}

fn peer(
    join: &Join<'_>,
    accepted: &Accepted,
    before: Option<&Identity>,
    id: Uuid,
    groups: Vec<String>,
    source: &str,
    now: u64,
) -> Identity {
    let token = join.token;
    let pin = Pin { sha256: token.fingerprint, not_after: join.not_after, role: Role::Current, until: None };
    let addrs = if accepted.addrs.is_empty() { &token.addrs } else { &accepted.addrs };
    let mut one = Identity {
        id,
        kind: Kind::Link,
        state: State::Active,
        name: token.cluster.clone(),
        prefix: accepted.prefix.clone(),
        fingerprints: vec![pin],
        groups,
        addrs: addrs.clone(),
        caps: accepted.caps.clone(),
        created: before.map_or(now, |one| one.created),
        created_by: before.map_or(join.operator, |one| &one.created_by).to_owned(),
        activated: Some(now),
        activated_from: Some(clipped(source)),
        last_seen: None,
        last_addr: None,
        notes: before.map(|one| one.notes.clone()).unwrap_or_default(),
        description: join.description.to_owned(),
    };
    if let Some(before) = before {
        if one.description.is_empty() {
            one.description.clone_from(&before.description);
        }
        // Nothing was asked for, so what was said before holds.
        if join.groups.is_empty() {
            one.groups.clone_from(&before.groups);
        }
    }
    one.note(&format!("activated with token {} of {source}, fingerprint {}", token.id, token.fingerprint));
    one
}
