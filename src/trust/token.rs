//! The token that an operator carries from one cluster to the other (`trust.md` 2.3): `tmb1.` and base64url, without padding, of a
//! JSON object. It is neither signed nor encrypted: the issuer's book decides. Without `=` it is never mistaken for `key=value`.

use std::fmt;

use base64ct::Base64UrlUnpadded;
use base64ct::Encoding;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroize;
use zeroize::Zeroizing;

use crate::time::moment as rfc3339;
use crate::trust::Fingerprint;
use crate::trust::Secret;
use crate::trust::Uuid;
use crate::trust::address;
use crate::trust::address::ServerAddr;
use crate::trust::enroll;
use crate::trust::name;
use crate::trust::written;

/// What a token begins with.
pub const PREFIX: &str = "tmb1.";
/// The longest token, in characters.
pub const CHARS_MAX: usize = 2048;
/// The version that this program writes and reads.
pub const VERSION: u64 = 1;
/// How long a token is valid unless something else is asked for, in seconds.
pub const LIFETIME_SECONDS: u64 = 15 * 60;
/// The longest lifetime, in seconds, of somebody who does not say that they know what they do.
pub const LIFETIME_SECONDS_MAX: u64 = 24 * 3600;
/// The longest lifetime of all, in seconds.
pub const LIFETIME_SECONDS_LIMIT: u64 = 30 * 24 * 3600;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Under what the issuer knows it.
    pub id: Uuid,
    /// The cluster that issued it.
    pub cluster: String,
    /// The cluster that may redeem it.
    pub issued_for: String,
    /// The issuer's certificate.
    pub fingerprint: Fingerprint,
    /// Where the issuer is reached: 1 to 16.
    pub addrs: Vec<ServerAddr>,
    /// What makes it a token.
    pub secret: Secret,
    /// The last second in which it is valid, since the Unix epoch.
    pub expires: u64,
    /// Whether only the cluster that redeems it is to dial. It may say so itself.
    pub unidirectional: bool,
}

/// Why a text is no token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`CHARS_MAX`] characters.
    #[error("the token is longer than 2048 characters: give fewer or shorter addresses")]
    TooLong,
    /// Something else, or cut off in front.
    #[error("not a token: one begins with `tmb1.`")]
    Prefix,
    /// Not base64url without padding.
    #[error("the token is damaged: not base64url")]
    Encoding,
    /// Not a JSON object, or without something that belongs to it.
    #[error("the token is damaged: not what its issuer wrote")]
    Json,
    /// Of a version that this program does not know.
    #[error("the token is of version {0}, this program reads version 1: update it")]
    Version(u64),
    /// Not for links.
    #[error("the token is not one for a link")]
    Type,
    /// A field that cannot be.
    #[error("the token is damaged: field `{0}`")]
    Field(&'static str),
}

/// As it is in JSON. The order of the fields is that of the specification.
#[derive(Serialize, Deserialize)]
struct Fields {
    v: u64,
    typ: String,
    id: String,
    cluster: String,
    #[serde(rename = "for")]
    issued_for: String,
    fpr: String,
    addrs: Vec<String>,
    sec: String,
    exp: String,
    alpn: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unidirectional: bool,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.sec.zeroize();
    }
}

/// Read first, so that a later version is told from a damaged token.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

const TYPE: &str = "link";

impl Token {
    /// Writes the token.
    ///
    /// # Errors
    /// If it is [`TokenError::TooLong`], which many long addresses make it.
    pub fn encode(&self) -> Result<Zeroizing<String>, TokenError> {
        let fields = Fields {
            v: VERSION,
            typ: TYPE.to_owned(),
            id: self.id.to_string(),
            cluster: self.cluster.clone(),
            issued_for: self.issued_for.clone(),
            fpr: self.fingerprint.to_string(),
            addrs: address::texts(&self.addrs),
            sec: self.secret.text().to_string(),
            exp: rfc3339::format(self.expires),
            alpn: enroll::ALPN_TEXT.to_owned(),
            unidirectional: self.unidirectional,
        };
        let json = Zeroizing::new(serde_json::to_vec(&fields).map_err(|_| TokenError::Json)?);
        let coded = Zeroizing::new(Base64UrlUnpadded::encode_string(&json));
        let text = Zeroizing::new(format!("{PREFIX}{}", *coded));
        if text.len() > CHARS_MAX { Err(TokenError::TooLong) } else { Ok(text) }
    }

    /// Reads a token; white space around it does not count. Fields that are not known do not either.
    ///
    /// # Errors
    /// What is wrong with it. No error shows anything of the token but its version.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        if text.len() > CHARS_MAX {
            return Err(TokenError::TooLong);
        }
        let coded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let json = Zeroizing::new(Base64UrlUnpadded::decode_vec(coded).map_err(|_| TokenError::Encoding)?);
        let Version { v } = serde_json::from_slice(&json).map_err(|_| TokenError::Json)?;
        if v != VERSION {
            return Err(TokenError::Version(v));
        }
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| TokenError::Json)?;
        Self::of_fields(&fields)
    }

    fn of_fields(fields: &Fields) -> Result<Self, TokenError> {
        let field = TokenError::Field;
        if fields.typ != TYPE {
            return Err(TokenError::Type);
        }
        if fields.alpn != enroll::ALPN_TEXT {
            return Err(field("alpn"));
        }
        name::check_cluster(&fields.cluster).map_err(|_| field("cluster"))?;
        name::check_cluster(&fields.issued_for).map_err(|_| field("for"))?;
        Ok(Self {
            id: Uuid::parse(&fields.id).ok_or(TokenError::Field("id"))?,
            cluster: fields.cluster.clone(),
            issued_for: fields.issued_for.clone(),
            fingerprint: Fingerprint::parse_exact(&fields.fpr).ok_or(TokenError::Field("fpr"))?,
            addrs: address::parse_all(&fields.addrs, false).ok_or(TokenError::Field("addrs"))?,
            secret: Secret::parse(&fields.sec).ok_or(TokenError::Field("sec"))?,
            expires: written::moment_of(&fields.exp).ok_or(TokenError::Field("exp"))?,
            unidirectional: fields.unidirectional,
        })
    }

    /// Whether its time is over, by the clock of who asks.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        now > self.expires
    }
}

/// Without the secret: where it is from, for whom, and until when.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, until) = (self.id, rfc3339::format(self.expires));
        write!(f, "token {id} of {} for {}, valid until {until}", self.cluster, self.issued_for)
    }
}

#[cfg(test)]
mod tests;
