//! What happened, for the security log (`authn-tls.md` section 5). Names and fingerprints, never a secret.

use std::borrow::Cow;

use crate::trust::Fingerprint;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A token was issued.
    TokenCreated,
    /// A token was taken back.
    TokenRevoked,
    /// A token was not used in time.
    TokenExpired,
    /// Too many came with a wrong secret.
    TokenBurnt,
    /// Somebody came with a token that another had used: one of them has stolen it.
    TokenReuse,
    /// Somebody came and was refused, with this code.
    EnrolmentRefused(String),
    /// An identity is active.
    Activated,
    /// An identity waits for an operator's word.
    AwaitsApproval,
    /// The peer says that it does not trust us any more.
    RevokedByPeer,
    /// A peer told of its next certificate.
    CertificateAnnounced,
    /// A peer's certificate was replaced; the old one.
    CertificateChange(Fingerprint),
    /// The certificate before is good no more.
    CertificateRetired(Fingerprint),
    /// An operator changed an identity or a group: `identity_create`, `group_edit`…
    Admin(&'static str),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: Happened,
    /// To whom: the name of a cluster, an operator or a group.
    pub name: String,
    /// The certificate that it is about.
    pub fingerprint: Option<Fingerprint>,
    /// From which address.
    pub source: Option<String>,
    /// For people.
    pub text: String,
}

impl Happened {
    /// Its name in the log.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::TokenCreated => "authn_token_created".into(),
            Self::TokenRevoked => "authn_token_revoked".into(),
            Self::TokenExpired => "authn_token_expired".into(),
            Self::TokenBurnt => "authn_token_burnt".into(),
            Self::TokenReuse => "authn_token_reuse".into(),
            Self::EnrolmentRefused(_) => "authn_login_fail:enroll".into(),
            Self::Activated => "authn_identity_activated".into(),
            Self::AwaitsApproval => "authn_identity_awaits_approval".into(),
            Self::RevokedByPeer => "authn_identity_revoked_by_peer".into(),
            Self::CertificateAnnounced => "authn_certificate_announced".into(),
            Self::CertificateChange(old) => format!("authn_certificate_change:{old}").into(),
            Self::CertificateRetired(old) => format!("authn_certificate_retired:{old}").into(),
            Self::Admin(act) => format!("authz_admin:{act}").into(),
        }
    }

    /// Whether somebody should look at it at once.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        matches!(self, Self::TokenReuse | Self::TokenBurnt)
    }
}

impl Event {
    pub(super) fn new(what: Happened, name: &str, text: impl Into<String>) -> Self {
        Self { what, name: name.to_owned(), fingerprint: None, source: None, text: text.into() }
    }

    pub(super) fn with(self, fingerprint: Fingerprint) -> Self {
        Self { fingerprint: Some(fingerprint), ..self }
    }

    pub(super) fn from(self, source: &str) -> Self {
        Self { source: Some(source.to_owned()), ..self }
    }
}
