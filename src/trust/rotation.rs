//! What a cluster says to a peer, over a connection of its own, when it changes its certificate or removes the link
//! (`trust.md` 2.6). The connection is authenticated already; the signatures prove that whoever speaks holds the old key and the
//! new one, and not only a connection.
//!
//! | message | JSON |
//! |---|---|
//! | rotation | `{"rotate":{v,next_fpr,next_cert,until,sig_by_old,sig_by_new}}` |
//! | removal | `{"removed":{v,at,sig}}` |
//!
//! Signed are a label, a zero byte, and then each with its length in four bytes: the names of both clusters, fingerprints, a
//! moment. So no signature stands for another message, another pair of clusters or another certificate.

use base64ct::Base64;
use base64ct::Encoding;
use serde::Deserialize;
use serde::Serialize;

use crate::auth::certificate::CertificateError;
use crate::time::moment as rfc3339;
use crate::trust::Fingerprint;
use crate::trust::enroll::ReadError;
use crate::trust::leaf::Leaf;
use crate::trust::leaf::Purpose;
use crate::trust::written;

mod signature;

pub use self::signature::verify;

/// The version that this program writes and reads.
pub const VERSION: u64 = 1;
/// The longest statement in bytes.
pub const BYTES_MAX: usize = 16 * 1024;
/// The longest certificate in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// The longest signature in bytes: RSA with 8192 bits.
pub const SIGNATURE_BYTES_MAX: usize = 1024;
/// How far a removal may lie in the future by the clock of who is told, in seconds.
pub const SKEW_SECONDS_MAX: u64 = 300;

const ROTATION: &str = "tombolo link certificate rotation v1";
const REMOVAL: &str = "tombolo link removed v1";

/// Who speaks to whom: names of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends<'a> {
    /// Who speaks.
    pub from: &'a str,
    /// Who is spoken to.
    pub to: &'a str,
}

/// Why a statement does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// One of the certificates cannot be read, or has a key that signs nothing here.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The certificate is not the one that is named.
    #[error("the certificate is not the one that is named")]
    Named,
    /// The signature is not by the key of this certificate.
    #[error("not signed by the key of the {0} certificate")]
    Signature(&'static str),
    /// It is of another time than now.
    #[error("not of the time of this link")]
    Time,
}

/// A rotation: the next certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The certificate, DER.
    pub next_cert: Vec<u8>,
    /// The last second in which the old one is good, since the Unix epoch.
    pub until: u64,
    /// By the key of the old certificate, over [`rotation_to_sign`].
    pub sig_by_old: Vec<u8>,
    /// By the key of the next one, over the same.
    pub sig_by_new: Vec<u8>,
}

/// What both keys sign for a rotation.
#[must_use]
pub fn rotation_to_sign(ends: Ends<'_>, old: Fingerprint, next: Fingerprint, until: u64) -> Vec<u8> {
    signed(ROTATION, &[ends.from.as_bytes(), ends.to.as_bytes(), &old.0, &next.0, &until.to_be_bytes()])
}

/// What the key of the current certificate signs for a removal.
#[must_use]
pub fn removal_to_sign(ends: Ends<'_>, current: Fingerprint, at: u64) -> Vec<u8> {
    signed(REMOVAL, &[ends.from.as_bytes(), ends.to.as_bytes(), &current.0, &at.to_be_bytes()])
}

fn signed(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = label.as_bytes().to_vec();
    bytes.push(0);
    for part in parts {
        // Parts are names, hashes and numbers: far below four gigabytes.
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[derive(Serialize, Deserialize)]
struct RotationFields {
    v: u64,
    next_fpr: String,
    next_cert: String,
    until: String,
    sig_by_old: String,
    sig_by_new: String,
}

#[derive(Serialize, Deserialize)]
struct RemovalFields {
    v: u64,
    at: String,
    sig: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fields<R, M> {
    Rotate(R),
    Removed(M),
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

/// A removal: the peer does not trust us any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// By the key of the current certificate, over [`removal_to_sign`].
    pub sig: Vec<u8>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The next certificate.
    Rotation(Rotation),
    /// The link is removed.
    Removal(Removal),
}

impl Statement {
    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fields = match self {
            Self::Rotation(rotation) => Fields::Rotate(RotationFields {
                v: VERSION,
                next_fpr: Fingerprint::of(&rotation.next_cert).to_string(),
                next_cert: Base64::encode_string(&rotation.next_cert),
                until: rfc3339::format(rotation.until),
                sig_by_old: Base64::encode_string(&rotation.sig_by_old),
                sig_by_new: Base64::encode_string(&rotation.sig_by_new),
            }),
            Self::Removal(removal) => Fields::Removed(RemovalFields {
                v: VERSION,
                at: rfc3339::format(removal.at),
                sig: Base64::encode_string(&removal.sig),
            }),
        };
        // Texts and a number: nothing that JSON cannot have.
        serde_json::to_vec(&fields).unwrap_or_default()
    }

    /// Reads it. Whether it holds is another question.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > BYTES_MAX {
            return Err(ReadError::TooLong.into());
        }
        let version: Fields<Version, Version> = serde_json::from_slice(bytes).map_err(|_| ReadError::Json)?;
        let (Fields::Rotate(Version { v }) | Fields::Removed(Version { v })) = version;
        if v != VERSION {
            return Err(ReadError::Version(v).into());
        }
        match serde_json::from_slice(bytes).map_err(|_| ReadError::Json)? {
            Fields::Rotate(fields) => {
                let RotationFields { next_fpr, next_cert, until, sig_by_old, sig_by_new, v: _ } = fields;
                let next_cert =
                    decoded(&next_cert, CERTIFICATE_BYTES_MAX).ok_or(ReadError::Field("next_cert"))?;
                if Fingerprint::parse_exact(&next_fpr) != Some(Fingerprint::of(&next_cert)) {
                    return Err(StatementError::Named);
                }
                Ok(Self::Rotation(Rotation {
                    next_cert,
                    until: written::moment_of(&until).ok_or(ReadError::Field("until"))?,
                    sig_by_old: decoded(&sig_by_old, SIGNATURE_BYTES_MAX)
                        .ok_or(ReadError::Field("sig_by_old"))?,
                    sig_by_new: decoded(&sig_by_new, SIGNATURE_BYTES_MAX)
                        .ok_or(ReadError::Field("sig_by_new"))?,
                }))
            }
            Fields::Removed(RemovalFields { at, sig, v: _ }) => Ok(Self::Removal(Removal {
                at: written::moment_of(&at).ok_or(ReadError::Field("at"))?,
                sig: decoded(&sig, SIGNATURE_BYTES_MAX).ok_or(ReadError::Field("sig"))?,
            })),
        }
    }
}

fn decoded(text: &str, bytes_max: usize) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok().filter(|bytes| (1..=bytes_max).contains(&bytes.len()))
}

impl Rotation {
    /// Whether the holder of the old certificate, which the connection has shown and the book has as the current one, and the
    /// holder of the next one have both said this. The next one is then for the book to check ([`crate::trust::book`]).
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, ends: Ends<'_>, old_cert: &[u8]) -> Result<Leaf, StatementError> {
        let (old, next) = (Fingerprint::of(old_cert), Fingerprint::of(&self.next_cert));
        let bytes = rotation_to_sign(ends, old, next, self.until);
        verify(old_cert, &bytes, &self.sig_by_old, "old")?;
        verify(&self.next_cert, &bytes, &self.sig_by_new, "next")?;
        Ok(Leaf::read(&self.next_cert, Purpose::Link)?)
    }
}

impl Removal {
    /// Whether the holder of the certificate that the connection has shown has said this, and about this link: not before it
    /// was activated at `since`, and not from the future.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, ends: Ends<'_>, current: &[u8], since: u64, now: u64) -> Result<(), StatementError> {
        if self.at < since.saturating_sub(SKEW_SECONDS_MAX) || self.at > now.saturating_add(SKEW_SECONDS_MAX)
        {
            return Err(StatementError::Time);
        }
        let bytes = removal_to_sign(ends, Fingerprint::of(current), self.at);
        verify(current, &bytes, &self.sig, "current")
    }
}

#[cfg(test)]
mod tests;
