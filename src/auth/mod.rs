//! Who is this: a chain of password files, tokens, call-outs, SCRAM and client certificates; which peer cluster a
//! connection is bound to; and how often it may try
//! (authn-tls.md section 2). Pure: the driver hashes passwords on a pool of its own and hands in the result.

use std::fmt;

use crate::auth::certificate::CertificateFacts;
use crate::auth::certificate::fingerprint_hex;
use crate::auth::chain::Answer;
use crate::auth::chain::Grant;
use crate::auth::peer::Binding;

pub mod attempts;
pub mod callout;
pub mod certificate;
pub mod chain;
pub mod fitness;
pub mod jwt;
pub mod password;
pub mod path;
pub mod peer;
pub mod scram;
pub mod users;

/// Which part of a verified client certificate is the username (`peer_cert_as_username`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateUsername {
    /// None of it.
    #[default]
    Disabled,
    /// The common name, if there is exactly one.
    CommonName,
    /// The whole subject.
    Subject,
    /// The fingerprint, in lower-case hexadecimal.
    Sha256,
}

impl CertificateUsername {
    fn of(self, certificate: &CertificateFacts) -> Option<String> {
        match self {
            Self::Disabled => None,
            Self::CommonName => certificate.common_name.clone(),
            Self::Subject => (!certificate.subject.is_empty()).then(|| certificate.subject.clone()),
            Self::Sha256 => Some(fingerprint_hex(&certificate.der_sha256)),
        }
    }

    /// What a step of a chain answers that takes the username from the certificate: nothing to say without one.
    #[must_use]
    pub fn answer(self, certificate: Option<&CertificateFacts>, claimed: Option<&str>) -> Answer {
        let (Some(certificate), true) = (certificate, self != Self::Disabled) else { return Answer::Next };
        match by_certificate(self, certificate, claimed.filter(|name| !name.is_empty())) {
            Outcome::Allow { username, .. } => Answer::Allow(Grant { username, ..Grant::default() }),
            Outcome::Deny(reason) => Answer::Deny(reason),
        }
    }
}

/// How a listener authenticates its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authenticator {
    /// `listeners.authn.enable`: without it everyone is let in, as with EMQX's `enable_authn = false`.
    pub enable: bool,
    /// `authentication.allow_anonymous`.
    pub allow_anonymous: bool,
    /// Whether there are users to verify somebody against, by password or by enhanced authentication: nobody has a
    /// name unproved then.
    pub has_users: bool,
    /// `listeners.ssl.peer_cert_as_username`.
    pub certificate_username: CertificateUsername,
}

/// What became of the Password of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordCheck {
    /// There is no password file, or the CONNECT lacks User Name or Password: nothing was verified.
    NotChecked,
    /// It belongs to the User Name.
    Good,
    /// Wrong, or no such user: the two are not told apart.
    Bad,
}

/// What is known of a client when its CONNECT has been read and its password verified.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The User Name as sent.
    pub username: Option<&'a str>,
    /// Whether there was a Password, empty or not.
    pub has_password: bool,
    /// What became of it.
    pub password: PasswordCheck,
    /// The user that enhanced authentication proved it to be.
    pub enhanced: Option<&'a str>,
    /// The client certificate whose key the TLS handshake proved.
    pub certificate: Option<&'a CertificateFacts>,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Let in.
    Allow {
        /// Who it is: what authorisation sees.
        username: Option<String>,
        /// Whether authorisation is skipped. No source here grants it: the password file has no such flag, and a
        /// link identity can never have it (authn-tls.md section 2).
        is_superuser: bool,
    },
    /// Refused with Reason Code 0x87 (3.1.1: 5), whatever the reason.
    Deny(DenyReason),
}

/// Why a client is refused; for logs and metrics, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// No credentials and anonymous clients are not allowed.
    Anonymous,
    /// Wrong password, or no such user.
    BadCredentials,
    /// A User Name without a Password, or a Password without a User Name.
    IncompleteCredentials,
    /// The certificate has not the part that is to be the username.
    CertificateUsername,
    /// The certificate is to be the username but its chain was not verified.
    CertificateUnverified,
    /// The User Name is another than the certificate's, or than the one that enhanced authentication proved.
    UsernameMismatch,
    /// Enhanced authentication failed, or failed when it was repeated.
    Enhanced,
    /// The connection acted as a peer cluster: see [`peer::Refusal`].
    Peer,
    /// A token that is not valid.
    Token,
    /// A token that was valid.
    TokenExpired,
    /// A token that names no key, of which there are more than are tried.
    TokenUntried,
    /// An HTTP authenticator said no.
    Backend,
    /// A step of the chain failed, was too slow or panicked.
    Unavailable,
    /// It was not looked at: too many attempts failed before.
    Held,
}

impl DenyReason {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 14] = [
        Self::Anonymous,
        Self::BadCredentials,
        Self::IncompleteCredentials,
        Self::CertificateUsername,
        Self::CertificateUnverified,
        Self::UsernameMismatch,
        Self::Enhanced,
        Self::Peer,
        Self::Token,
        Self::TokenExpired,
        Self::TokenUntried,
        Self::Backend,
        Self::Unavailable,
        Self::Held,
    ];

    /// Whether a secret that was shown may have been a guess, which counts ([`attempts`]). A failure of ours is none, and
    /// neither is a token that was once right, nor one that may be right.
    #[must_use]
    pub fn is_guess(self) -> bool {
        matches!(self, Self::BadCredentials | Self::Enhanced | Self::Token | Self::Backend | Self::Peer)
    }

    /// The name in logs, events and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::BadCredentials => "bad_credentials",
            Self::IncompleteCredentials => "incomplete_credentials",
            Self::CertificateUsername => "certificate_username",
            Self::CertificateUnverified => "certificate_unverified",
            Self::UsernameMismatch => "username_mismatch",
            Self::Enhanced => "enhanced",
            Self::Peer => "peer",
            Self::Token => "token",
            Self::TokenExpired => "token_expired",
            Self::TokenUntried => "token_untried",
            Self::Backend => "backend",
            Self::Unavailable => "unavailable",
            Self::Held => "held",
        }
    }
}

impl DenyReason {
    /// What did not hold, as security events name it.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::BadCredentials | Self::IncompleteCredentials => "password",
            Self::CertificateUsername | Self::CertificateUnverified | Self::UsernameMismatch => "certificate",
            Self::Enhanced => "scram",
            Self::Peer => "link",
            Self::Token | Self::TokenExpired | Self::TokenUntried => "jwt",
            Self::Backend => "http",
            Self::Unavailable => "unavailable",
            Self::Held => "held",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn allow(username: Option<&str>) -> Outcome {
    Outcome::Allow { username: username.map(str::to_owned), is_superuser: false }
}

/// Decides, in this order:
///
/// 1. what [`peer::bind`] said: a refused connection is out, a peer bound by its full proof is in;
/// 2. a wrong password is out, whatever else there is;
/// 3. the name that enhanced authentication proved is the username, and a User Name that differs is out;
/// 4. a certificate that is to be the username: it is, and a name that differs is out;
/// 5. a verified password or name is in; half a pair of credentials is out where there are users to verify;
/// 6. with no users and anonymous clients allowed, or authentication switched off, everyone is in under the
///    User Name they claim, as with EMQX; else nobody.
#[must_use]
pub fn decide(
    authenticator: &Authenticator,
    binding: &Binding<'_>,
    credentials: &Credentials<'_>,
) -> Outcome {
    // An empty User Name is none: it names nobody (EMQX counts it as anonymous too).
    let claimed = credentials.username.filter(|name| !name.is_empty());
    let username = credentials.enhanced.or(claimed);
    match (binding, credentials.password) {
        (Binding::Refused(_), _) => return Outcome::Deny(DenyReason::Peer),
        (_, PasswordCheck::Bad) => return Outcome::Deny(DenyReason::BadCredentials),
        _ if claimed.is_some() && claimed != username => return Outcome::Deny(DenyReason::UsernameMismatch),
        (Binding::Peer(_), _) => return allow(username),
        (Binding::Ordinary, _) if !authenticator.enable => return allow(username),
        (Binding::Ordinary, _) => {}
    }
    if let Some(certificate) = credentials.certificate
        && authenticator.certificate_username != CertificateUsername::Disabled
    {
        return by_certificate(authenticator.certificate_username, certificate, username);
    }
    let verified = credentials.password == PasswordCheck::Good || credentials.enhanced.is_some();
    match (username, credentials.has_password) {
        (Some(_), _) if verified => allow(username),
        (None, false) if authenticator.allow_anonymous => allow(None),
        (None, false) => Outcome::Deny(DenyReason::Anonymous),
        _ if authenticator.has_users => Outcome::Deny(DenyReason::IncompleteCredentials),
        _ if authenticator.allow_anonymous => allow(username),
        _ => Outcome::Deny(DenyReason::BadCredentials),
    }
}

fn by_certificate(
    part: CertificateUsername,
    certificate: &CertificateFacts,
    username: Option<&str>,
) -> Outcome {
    if !certificate.chain_verified {
        return Outcome::Deny(DenyReason::CertificateUnverified);
    }
    match (part.of(certificate), username) {
        (None, _) => Outcome::Deny(DenyReason::CertificateUsername),
        (Some(name), Some(claimed)) if name != claimed => Outcome::Deny(DenyReason::UsernameMismatch),
        (Some(name), _) => allow(Some(&name)),
    }
}

#[cfg(test)]
mod tests;
