//! `[authentication]`: how clients prove who they are.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::PeerCertAs;
use super::Secret;
use super::ServerAddr;

/// `[authentication]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Whether a client without credentials is accepted.
    pub allow_anonymous: bool,
    /// The password file: the short form of a first step of mechanism password.
    pub password_file: Option<PathBuf>,
    /// Whether salted SHA hashes are taken there, until their users log in.
    pub legacy_hashes: bool,
    /// `[[authentication.chain]]`, in its order.
    pub chain: Vec<Authenticator>,
    /// `[authentication.attempts]`
    pub attempts: Attempts,
}

/// `[authentication.attempts]`: how many logins may fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// Whether they are limited.
    pub enable: bool,
    /// Failures with one username that lock it out.
    pub lockout_failures: u32,
    /// Within this time.
    pub lockout_window: Duration,
    /// For how long.
    pub lockout_time: Duration,
}

/// One step of `[[authentication.chain]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authenticator {
    /// A file of users and hashes of their passwords.
    Password {
        /// The file.
        password_file: PathBuf,
        /// Whether salted SHA hashes are taken, until their users log in.
        legacy_hashes: bool,
    },
    /// The client certificate.
    Certificate {
        /// What of it is the username.
        username: PeerCertAs,
    },
    /// A JSON Web Token.
    Jwt(Box<Jwt>),
    /// Somebody who is asked over HTTP.
    Http(Box<HttpCallout>),
    /// Enhanced authentication with SCRAM-SHA-256.
    Scram {
        /// Users and their SCRAM credentials.
        password_file: PathBuf,
    },
}

impl Authenticator {
    /// The word of `mechanism`.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Password { .. } => "password",
            Self::Certificate { .. } => "certificate",
            Self::Jwt(_) => "jwt",
            Self::Http(_) => "http",
            Self::Scram { .. } => "scram",
        }
    }
}

/// Where the keys of tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A secret that is shared with the issuer.
    Secret {
        /// The secret.
        secret: Secret,
        /// Whether it is written in Base64.
        is_base64: bool,
    },
    /// A file with a public key in PEM.
    PublicKey(PathBuf),
    /// A file with a set of keys in JSON.
    JwksFile(PathBuf),
    /// Where such a set is fetched.
    JwksUrl {
        /// From where.
        target: HttpTarget,
        /// How often.
        refresh_interval: Duration,
        /// How long keys are in force that cannot be fetched anew.
        max_age: Duration,
    },
}

/// A step of mechanism jwt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// What tokens are verified with.
    pub keys: JwtKeys,
    /// Whether the token is the User Name instead of the Password.
    pub from_username: bool,
    /// The claim that is the username.
    pub username_claim: String,
    /// Whether `exp` must be there.
    pub require_exp: bool,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
    /// Claims and what they must be.
    pub verify_claims: Vec<(String, String)>,
    /// Whether a client is disconnected when its token expires.
    pub disconnect_after_expire: bool,
}

/// A step of mechanism http.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCallout {
    /// Who is asked.
    pub target: HttpTarget,
    /// The header `Authorization` of what is asked.
    pub authorization: Option<Secret>,
    /// Questions under way at a time.
    pub max_concurrent: usize,
}

/// An HTTP server that we call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// As it is written.
    pub url: String,
    /// Host and port.
    pub server: ServerAddr,
    /// Path and query.
    pub path: String,
    /// Authorities of its certificate: there exactly with https.
    pub cacertfile: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Authentication {
    /// The file of the `scram` step, if there is one.
    #[must_use]
    pub fn scram_file(&self) -> Option<&Path> {
        self.chain.iter().find_map(|step| match step {
            Authenticator::Scram { password_file } => Some(password_file.as_path()),
            _ => None,
        })
    }
}
