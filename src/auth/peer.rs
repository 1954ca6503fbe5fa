//! Which peer cluster a connection is bound to, by `[cluster.links.peer]` (interface.md section 2, authn-tls.md
//! A4 to A8). Pure: passwords and certificate chains were verified before, here only their results count. It says
//! nothing about clients in general; that is [`crate::auth::decide`].
//!
//! A rule is *named* by a ClientID under its prefix, and *shown* by its username or its certificate. A connection
//! is bound to a peer only where one rule is both, and every field of it holds:
//!
//! | named | shown | every field holds | listener role | binding |
//! |---|---|---|---|---|
//! | no rule | no rule | – | client, any | ordinary |
//! | no rule | no rule | – | link | refused: `unbound_on_link_listener` |
//! | no rule | some rule | – | any | refused: `client_id_outside_prefix` (A4, A6) |
//! | rule R | a rule other than R | – | any | refused: `identity_of_another_peer` (A5) |
//! | two rules of one prefix | – | – | any | refused: `ambiguous_client_id` |
//! | rule R | – | no | any | refused: what is missing (A6, A8) |
//! | rule R | R or nothing | yes | client | refused: `peer_on_client_listener` (A6) |
//! | rule R | R or nothing | yes | link, any | bound to R |
//!
//! Of rules that name it by prefixes of different length the longest is meant: `clink-A-` and `clink-A-b-` live side by side
//! (`trust.md` 2.1).
//!
//! A username counts as shown as soon as it is claimed, so that a link's username is of no use anywhere else. A
//! certificate counts as shown by its fingerprint, or by its common name if its chain was verified: an unverified
//! common name is no identity (authn-tls.md T3).

use std::fmt;

use crate::auth::certificate::CertificateFacts;

/// How one peer cluster proves itself when it dials us.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerRule {
    /// The peer's cluster name, as in the link's `name`.
    pub cluster: String,
    /// Prefix of all its ClientIDs; an empty one matches nothing.
    pub clientid_prefix: String,
    /// The username it must present.
    pub username: Option<String>,
    /// SHA-256 fingerprints of which its certificate must have one; empty: none asked for.
    pub cert_sha256: Vec<[u8; 32]>,
    /// The common name its certificate must have, with a chain verified against the listener's `cacertfile`.
    pub cert_cn: Option<String>,
    /// With no proof configured: believe the ClientID of a loopback connection.
    pub allow_unauthenticated: bool,
}

/// The `role` of the listener a connection came in on (interface.md section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerRole {
    /// Applications only.
    Client,
    /// Peer clusters only.
    Link,
    /// Both.
    Any,
}

/// What is known of a connection when its CONNECT has been read and its password verified.
#[derive(Debug, Clone, Copy)]
pub struct ConnectFacts<'a> {
    /// The Client Identifier as sent.
    pub client_id: &'a str,
    /// The User Name as sent.
    pub username: Option<&'a str>,
    /// Whether the Password was verified to belong to that User Name.
    pub password_verified: bool,
    /// The client certificate whose key the TLS handshake proved.
    pub certificate: Option<&'a CertificateFacts>,
    /// The listener's role.
    pub role: ListenerRole,
    /// Whether the peer address is a loopback address.
    pub loopback: bool,
}

/// What a connection is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding<'r> {
    /// An application.
    Ordinary,
    /// The peer cluster of this rule, and nobody else.
    Peer(&'r PeerRule),
    /// To be refused with Reason Code 0x87 before any takeover.
    Refused(Refusal),
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// An unbound connection on a listener of role `link`.
    UnboundOnLinkListener,
    /// A peer with its full proof on a listener of role `client`.
    PeerOnClientListener,
    /// A peer's username or certificate with a ClientID outside that peer's prefix.
    ClientIdOutsidePrefix,
    /// A ClientID of one peer with the username or certificate of another.
    IdentityOfAnotherPeer,
    /// A ClientID under the prefix of several rules.
    AmbiguousClientId,
    /// The rule's username is missing or another.
    UsernameMismatch,
    /// The username stands alone and its password was not verified.
    PasswordNotVerified,
    /// The rule asks for a certificate and there is none.
    CertificateMissing,
    /// The certificate has none of the rule's fingerprints.
    FingerprintMismatch,
    /// The rule names a common name and the chain was not verified.
    ChainNotVerified,
    /// The certificate's common name is missing, repeated or another.
    CommonNameMismatch,
    /// The rule asks for no proof and does not say `allow_unauthenticated`.
    NoProofConfigured,
    /// `allow_unauthenticated` holds for loopback only.
    NotLoopback,
}

impl Refusal {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 13] = [
        Self::UnboundOnLinkListener,
        Self::PeerOnClientListener,
        Self::ClientIdOutsidePrefix,
        Self::IdentityOfAnotherPeer,
        Self::AmbiguousClientId,
        Self::UsernameMismatch,
        Self::PasswordNotVerified,
        Self::CertificateMissing,
        Self::FingerprintMismatch,
        Self::ChainNotVerified,
        Self::CommonNameMismatch,
        Self::NoProofConfigured,
        Self::NotLoopback,
    ];

    /// The name in logs, events and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnboundOnLinkListener => "unbound_on_link_listener",
            Self::PeerOnClientListener => "peer_on_client_listener",
            Self::ClientIdOutsidePrefix => "client_id_outside_prefix",
            Self::IdentityOfAnotherPeer => "identity_of_another_peer",
            Self::AmbiguousClientId => "ambiguous_client_id",
            Self::UsernameMismatch => "username_mismatch",
            Self::PasswordNotVerified => "password_not_verified",
            Self::CertificateMissing => "certificate_missing",
            Self::FingerprintMismatch => "fingerprint_mismatch",
            Self::ChainNotVerified => "chain_not_verified",
            Self::CommonNameMismatch => "common_name_mismatch",
            Self::NoProofConfigured => "no_proof_configured",
            Self::NotLoopback => "not_loopback",
        }
    }

    /// Whether somebody acted as a peer that it is not: the event `link_forgery_attempt` (authn-tls.md section 5).
    #[must_use]
    pub fn is_forgery(self) -> bool {
        !matches!(self, Self::UnboundOnLinkListener | Self::PeerOnClientListener)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PeerRule {
    fn names(&self, client_id: &str) -> bool {
        !self.clientid_prefix.is_empty() && client_id.starts_with(&self.clientid_prefix)
    }

    /// Whether its certificate is part of its proof.
    #[must_use]
    pub fn asks_for_certificate(&self) -> bool {
        !self.cert_sha256.is_empty() || self.cert_cn.is_some()
    }

    fn is_shown_by(&self, facts: &ConnectFacts<'_>) -> bool {
        let by_username = self.username.is_some() && self.username.as_deref() == facts.username;
        by_username || facts.certificate.is_some_and(|certificate| self.is_shown_by_certificate(certificate))
    }

    fn is_shown_by_certificate(&self, certificate: &CertificateFacts) -> bool {
        let by_name = certificate.chain_verified
            && self.cert_cn.is_some()
            && self.cert_cn.as_deref() == certificate.common_name.as_deref();
        by_name || self.cert_sha256.contains(&certificate.der_sha256)
    }

    /// Whether every field of the rule holds.
    fn holds(&self, facts: &ConnectFacts<'_>) -> Result<(), Refusal> {
        if self.asks_for_certificate() {
            self.certificate_holds(facts.certificate.ok_or(Refusal::CertificateMissing)?)?;
        }
        if let Some(username) = &self.username {
            if facts.username != Some(username) {
                return Err(Refusal::UsernameMismatch);
            }
            if !facts.password_verified && !self.asks_for_certificate() {
                return Err(Refusal::PasswordNotVerified);
            }
            return Ok(());
        }
        match (self.asks_for_certificate(), self.allow_unauthenticated, facts.loopback) {
            (true, _, _) | (false, true, true) => Ok(()),
            (false, false, _) => Err(Refusal::NoProofConfigured),
            (false, true, false) => Err(Refusal::NotLoopback),
        }
    }

    fn certificate_holds(&self, certificate: &CertificateFacts) -> Result<(), Refusal> {
        if !self.cert_sha256.is_empty() && !self.cert_sha256.contains(&certificate.der_sha256) {
            return Err(Refusal::FingerprintMismatch);
        }
        let Some(common_name) = &self.cert_cn else { return Ok(()) };
        if !certificate.chain_verified {
            return Err(Refusal::ChainNotVerified);
        }
        if certificate.common_name.as_ref() != Some(common_name) {
            return Err(Refusal::CommonNameMismatch);
        }
        Ok(())
    }
}

/// Decides by the table above.
#[must_use]
pub fn bind<'r>(rules: &'r [PeerRule], facts: &ConnectFacts<'_>) -> Binding<'r> {
    let named = || rules.iter().filter(|rule| rule.names(facts.client_id));
    let Some(rule) = named().max_by_key(|rule| rule.clientid_prefix.len()) else {
        return bind_unnamed(rules, facts);
    };
    if named().any(|other| !std::ptr::eq(other, rule) && other.clientid_prefix == rule.clientid_prefix) {
        return Binding::Refused(Refusal::AmbiguousClientId);
    }
    if rules.iter().any(|other| !std::ptr::eq(other, rule) && other.is_shown_by(facts)) {
        return Binding::Refused(Refusal::IdentityOfAnotherPeer);
    }
    match rule.holds(facts) {
        Err(refusal) => Binding::Refused(refusal),
        Ok(()) if facts.role == ListenerRole::Client => Binding::Refused(Refusal::PeerOnClientListener),
        Ok(()) => Binding::Peer(rule),
    }
}

fn bind_unnamed<'r>(rules: &'r [PeerRule], facts: &ConnectFacts<'_>) -> Binding<'r> {
    if rules.iter().any(|rule| rule.is_shown_by(facts)) {
        return Binding::Refused(Refusal::ClientIdOutsidePrefix);
    }
    match facts.role {
        ListenerRole::Link => Binding::Refused(Refusal::UnboundOnLinkListener),
        ListenerRole::Client | ListenerRole::Any => Binding::Ordinary,
    }
}

/// Why a set of rules cannot be told apart, or one of them cannot hold. Each is a configuration error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleConflict {
    /// The prefix is empty.
    #[error("link `{0}`: the peer's `clientid` prefix is empty")]
    EmptyPrefix(String),
    /// No proof, and not allowed to go without.
    #[error(
        "link `{0}`: the peer has no proof: give `username`, `cert_sha256` or `cert_cn`, or say `allow_unauthenticated`"
    )]
    NoProof(String),
    /// One prefix for two peers.
    #[error("links `{0}` and `{1}`: the same peer `clientid` prefix")]
    Prefix(String, String),
    /// One username for two peers (A7).
    #[error("links `{0}` and `{1}`: the same peer `username`")]
    Username(String, String),
    /// One certificate for two peers.
    #[error("links `{0}` and `{1}`: the same `cert_sha256`")]
    Fingerprint(String, String),
    /// One common name for two peers.
    #[error("links `{0}` and `{1}`: the same `cert_cn`")]
    CommonName(String, String),
}

/// Everything that is wrong with `rules` taken together (authn-tls.md A7): an identity belongs to exactly one link.
#[must_use]
pub fn conflicts(rules: &[PeerRule]) -> Vec<RuleConflict> {
    let mut found = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        if rule.clientid_prefix.is_empty() {
            found.push(RuleConflict::EmptyPrefix(rule.cluster.clone()));
        }
        if rule.username.is_none() && !rule.asks_for_certificate() && !rule.allow_unauthenticated {
            found.push(RuleConflict::NoProof(rule.cluster.clone()));
        }
        for other in &rules[index + 1..] {
            pair_conflicts(rule, other, &mut found);
        }
    }
    found
}

fn pair_conflicts(one: &PeerRule, two: &PeerRule, found: &mut Vec<RuleConflict>) {
    let names = || (one.cluster.clone(), two.cluster.clone());
    let mut report = |variant: fn(String, String) -> RuleConflict| {
        let (first, second) = names();
        found.push(variant(first, second));
    };
    if !one.clientid_prefix.is_empty() && one.clientid_prefix == two.clientid_prefix {
        report(RuleConflict::Prefix);
    }
    if one.username.is_some() && one.username == two.username {
        report(RuleConflict::Username);
    }
    if one.cert_sha256.iter().any(|fingerprint| two.cert_sha256.contains(fingerprint)) {
        report(RuleConflict::Fingerprint);
    }
    if one.cert_cn.is_some() && one.cert_cn == two.cert_cn {
        report(RuleConflict::CommonName);
    }
}

#[cfg(test)]
mod tests;
