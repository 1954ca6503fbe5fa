//! A token is redeemed (`trust.md` 2.4, steps 2 and 3): one winner, once.
//!
//! Whoever does not hold the secret is told `unknown_token`, whatever the reason. Only behind the secret are there other answers.
//! The same certificate may ask again while the token is valid, because an answer can be lost; another one never.

use crate::auth::certificate::CertificateError;
use crate::time::moment as rfc3339;
use crate::trust::Fingerprint;
use crate::trust::enroll::Accepted;
use crate::trust::enroll::Answer;
use crate::trust::enroll::Code;
use crate::trust::enroll::Rejected;
use crate::trust::enroll::Request;
use crate::trust::identity::Identity;
use crate::trust::identity::Pin;
use crate::trust::identity::Role;
use crate::trust::identity::State;
use crate::trust::leaf::Leaf;
use crate::trust::leaf::Purpose;
use crate::trust::name::clipped;
use crate::trust::secret::SecretHash;

use super::Book;
use super::Event;
use super::Happened;
use super::Own;
use super::TokenState;
use super::TrustError;
use super::tokens::ATTEMPTS_MAX;
use super::tokens::PendingToken;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// What to answer, once the book is stored if it was changed.
    pub answer: Answer,
    /// Whether the book was changed.
    pub changed: bool,
    /// The peer, as it is now: active, or waiting for approval.
    pub peer: Option<Box<Identity>>,
    /// What happened.
    pub events: Vec<Event>,
}

/// Why a request is refused behind the secret.
type Refusal = (Code, String);

impl Book {
    /// Redeems a token with a request as it came, and the certificate whose key the handshake has proved. `source` is the
    /// address that it came from.
    pub fn redeem_bytes(
        &mut self,
        own: &Own<'_>,
        request: &[u8],
        certificate: &[u8],
        source: &str,
        now: u64,
    ) -> Redeemed {
        let leaf = Leaf::read(certificate, Purpose::Link).unwrap_or_else(|_| unreadable(certificate));
        match Request::parse(request) {
            Ok(request) => self.redeem(own, &request, &leaf, source, now),
            Err(error) => {
                let answer = Answer::unreadable(error);
                let event = refused("", &answer, leaf.sha256, source);
                Redeemed { answer, changed: false, peer: None, events: vec![event] }
            }
        }
    }

    /// Redeems a token.
    pub fn redeem(
        &mut self,
        own: &Own<'_>,
        request: &Request,
        leaf: &Leaf,
        source: &str,
        now: u64,
    ) -> Redeemed {
        // As long for a token that there is not.
        let hash = self.tokens.get(&request.id).map_or(SecretHash::NONE, |token| token.hash);
        let is_right = hash.is_of(&request.secret);
        let Some(token) = self.tokens.get_mut(&request.id) else {
            return refuse(request, unknown(), leaf, source);
        };
        if !is_right {
            return self.guessed(request, leaf, source, now);
        }
        let token = token.clone();
        match token.state {
            TokenState::Used(by) => return self.again(own, request, &token, by, leaf, source, now),
            TokenState::Burnt | TokenState::Revoked => {
                let text = "the token was taken back, or burnt by wrong secrets: ask for another";
                return refuse(request, (Code::Used, text.to_owned()), leaf, source);
            }
            TokenState::Issued => {}
        }
        match self.check_redeem(own, request, &token, leaf, now) {
            Ok(()) => self.activate(own, request, &token, leaf, source, now),
            Err(refusal) => refuse(request, refusal, leaf, source),
        }
    }

    /// A wrong secret: the fifth burns the token.
    fn guessed(&mut self, request: &Request, leaf: &Leaf, source: &str, now: u64) -> Redeemed {
        let mut redeemed = refuse(request, unknown(), leaf, source);
        let Some(token) = self.tokens.get_mut(&request.id).filter(|token| token.is_pending(now)) else {
            return redeemed;
        };
        token.attempts += 1;
        redeemed.changed = true;
        if token.attempts >= ATTEMPTS_MAX {
            token.state = TokenState::Burnt;
            let text = format!("token {} was burnt by {ATTEMPTS_MAX} wrong secrets", token.id);
            if let Some(one) =
                self.identities.get_mut(&token.identity).filter(|one| one.state == State::Pending)
            {
                one.state = State::Expired;
                one.note(&text);
            }
            redeemed.events.push(Event::new(Happened::TokenBurnt, &token.issued_for, text).from(source));
        }
        redeemed
    }

    /// The token was used: the same certificate is answered the same as long as nothing has changed since.
    #[expect(clippy::too_many_arguments, reason = "what a request is, and what it is compared with")]
    fn again(
        &self,
        own: &Own<'_>,
        request: &Request,
        token: &PendingToken,
        by: Fingerprint,
        leaf: &Leaf,
        source: &str,
        now: u64,
    ) -> Redeemed {
        let identity = self.identities.get(&token.identity);
        let stands = |one: &&Identity| {
            matches!(one.state, State::Active | State::PendingApproval)
                && one.fingerprints.iter().any(|pin| pin.sha256 == leaf.sha256)
        };
        if by == leaf.sha256 {
            let same = check_names(own, request, token).is_ok() && now <= token.expires;
            return match identity.filter(stands).filter(|_| same) {
                Some(one) => {
                    let answer = accepted(own, request, one, now);
                    Redeemed { answer, changed: false, peer: Some(Box::new(one.clone())), events: Vec::new() }
                }
                None => refuse(request, (Code::Used, Code::Used.meaning().to_owned()), leaf, source),
            };
        }
        let mut redeemed = refuse(request, (Code::Used, Code::Used.meaning().to_owned()), leaf, source);
        let text = format!("token {} was used by {by}, and now by {}", token.id, leaf.sha256);
        redeemed.events =
            vec![Event::new(Happened::TokenReuse, &token.issued_for, text).with(leaf.sha256).from(source)];
        redeemed
    }

    fn check_redeem(
        &self,
        own: &Own<'_>,
        request: &Request,
        token: &PendingToken,
        leaf: &Leaf,
        now: u64,
    ) -> Result<(), Refusal> {
        if now > token.expires {
            let text = format!("the token has expired at {}", rfc3339::format(token.expires));
            return Err((
                Code::Expired,
                format!("{text}, and by this cluster's clock it is {}", rfc3339::format(now)),
            ));
        }
        check_names(own, request, token)?;
        leaf.check_for_answer(now)?;
        self.check_certificate(own, token, leaf)?;
        if request.prefix != token.prefix {
            let text = format!("the prefix is to be {}, not {}", token.prefix, request.prefix);
            return Err((Code::PrefixConflict, text));
        }
        let conflict = |code: Code| move |error: TrustError| (code, error.to_string());
        self.check_prefix(own, &token.issued_for, &token.prefix).map_err(conflict(Code::PrefixConflict))?;
        Self::check_unconfigured(own, &token.issued_for).map_err(conflict(Code::AlreadyLinked))?;
        match self.link(&token.issued_for) {
            Some(one) if one.id == token.identity => Ok(()),
            _ => Err((Code::AlreadyLinked, Code::AlreadyLinked.meaning().to_owned())),
        }
    }

    fn check_certificate(&self, own: &Own<'_>, token: &PendingToken, leaf: &Leaf) -> Result<(), Refusal> {
        let rejected = |why: Rejected| (Code::CertRejected(why), why.meaning().to_owned());
        if own.has(leaf.sha256) {
            return Err(rejected(Rejected::Ours));
        }
        if token.expect_fingerprint.is_some_and(|expected| expected != leaf.sha256) {
            return Err(rejected(Rejected::Unexpected));
        }
        match self.holder_of(own, leaf.sha256, Some(token.identity)) {
            None => Ok(()),
            // Not whose: who asks need not know our other peers.
            Some(_) => Err(rejected(Rejected::Bound)),
        }
    }

    fn activate(
        &mut self,
        own: &Own<'_>,
        request: &Request,
        token: &PendingToken,
        leaf: &Leaf,
        source: &str,
        now: u64,
    ) -> Redeemed {
        let Some(one) = self.identities.get_mut(&token.identity) else {
            return refuse(request, (Code::Used, Code::Used.meaning().to_owned()), leaf, source);
        };
        let old = one.pin(Role::Current).map(|pin| pin.sha256).filter(|old| *old != leaf.sha256);
        one.fingerprints = vec![current(leaf)];
        one.prefix.clone_from(&token.prefix);
        one.groups.clone_from(&token.groups);
        one.addrs.clone_from(&request.addrs);
        one.caps.clone_from(&request.caps);
        one.activated = Some(now);
        one.activated_from = Some(clipped(source));
        one.state = if token.approve { State::PendingApproval } else { State::Active };
        let what = if token.approve { Happened::AwaitsApproval } else { Happened::Activated };
        let text = format!("activated from {source}, fingerprint {}, token {}", leaf.sha256, token.id);
        one.note(&text);
        let mut events = vec![Event::new(what, &token.issued_for, text).with(leaf.sha256).from(source)];
        if let Some(old) = old {
            let text = format!("replaced by token {}", token.id);
            events.push(
                Event::new(Happened::CertificateChange(old), &token.issued_for, text).with(leaf.sha256),
            );
        }
        let (answer, peer) = (accepted(own, request, one, now), Box::new(one.clone()));
        if let Some(kept) = self.tokens.get_mut(&token.id) {
            kept.state = TokenState::Used(leaf.sha256);
        }
        Redeemed { answer, changed: true, peer: Some(peer), events }
    }
}

/// The pin of a certificate that is in use from now on.
pub(super) fn current(leaf: &Leaf) -> Pin {
    Pin { sha256: leaf.sha256, not_after: Some(leaf.not_after), role: Role::Current, until: None }
}

fn unreadable(certificate: &[u8]) -> Leaf {
    Leaf {
        sha256: Fingerprint::of(certificate),
        not_before: 0,
        not_after: 0,
        fit: Err(CertificateError::Unreadable),
    }
}

fn check_names(own: &Own<'_>, request: &Request, token: &PendingToken) -> Result<(), Refusal> {
    if request.cluster != token.issued_for {
        let text = format!("the token is for {}, not for {}", token.issued_for, request.cluster);
        return Err((Code::WrongPeerName, text));
    }
    if request.peer != own.cluster {
        return Err((Code::NameMismatch, format!("this is {}, not {}", own.cluster, request.peer)));
    }
    Ok(())
}

fn accepted(own: &Own<'_>, request: &Request, one: &Identity, now: u64) -> Answer {
    Answer::Ok(Accepted {
        cluster: own.cluster.to_owned(),
        prefix: own.prefix.to_owned(),
        addrs: own.addrs.to_vec(),
        caps: own.caps.to_vec(),
        time: now,
        nonce: request.nonce,
        pending_approval: one.state == State::PendingApproval,
    })
}

fn unknown() -> Refusal {
    (Code::UnknownToken, Code::UnknownToken.meaning().to_owned())
}

fn refuse(request: &Request, (code, text): Refusal, leaf: &Leaf, source: &str) -> Redeemed {
    let answer = Answer::error(code, text);
    let event = refused(&request.cluster, &answer, leaf.sha256, source);
    Redeemed { answer, changed: false, peer: None, events: vec![event] }
}

fn refused(name: &str, answer: &Answer, fingerprint: Fingerprint, source: &str) -> Event {
    let (code, text) = match answer {
        Answer::Error { code, text } => (code.to_string(), text.as_str()),
        Answer::Ok(_) => (String::new(), ""),
    };
    Event::new(Happened::EnrolmentRefused(code), name, text).with(fingerprint).from(source)
}
