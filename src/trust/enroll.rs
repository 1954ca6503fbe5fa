//! What two clusters say when a token is redeemed (`trust.md` 2.4): one request, one answer, each JSON in a frame with its length.
//!
//! | message | JSON |
//! |---|---|
//! | request | `{"enroll":{v,id,sec,cluster,peer,prefix,addrs,caps,nonce}}` |
//! | answer | `{"ok":{cluster,prefix,addrs,caps,time,nonce}}` or `{"error":{code,text}}` |
//!
//! Fields that are not known are ignored on both sides; `v` says what must be understood.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroize;
use zeroize::Zeroizing;

use crate::time::moment as rfc3339;
use crate::trust::Secret;
use crate::trust::Token;
use crate::trust::Uuid;
use crate::trust::address;
use crate::trust::address::ServerAddr;
use crate::trust::name;
use crate::trust::written;

pub use self::code::Code;
pub use self::code::Rejected;

mod code;

/// The protocol, as TLS negotiates it.
pub const ALPN: &[u8] = ALPN_TEXT.as_bytes();
pub(crate) const ALPN_TEXT: &str = "tombolo-enroll/1";
/// The version of the request that this program writes and reads.
pub const VERSION: u64 = 1;
/// The longest request in bytes, without its length in front.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// The longest answer in bytes, without its length in front.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Capabilities that are named at most.
pub const CAPABILITIES_MAX: usize = 32;
/// The longest name of one, in bytes.
pub const CAPABILITY_BYTES_MAX: usize = 64;
/// The longest text of an error, in characters.
pub const TEXT_CHARS_MAX: usize = 512;
/// Seconds by which clocks may differ without a word about it.
pub const SKEW_SECONDS_MAX: u64 = 120;

/// Random bytes that are repeated in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 16]);

/// What the cluster that holds a token asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The token's.
    pub id: Uuid,
    /// The token's.
    pub secret: Secret,
    /// The cluster that asks.
    pub cluster: String,
    /// The cluster that it believes it asks.
    pub peer: String,
    /// What its Client Identifiers begin with.
    pub prefix: String,
    /// Where it is reached; nothing if it only dials out.
    pub addrs: Vec<ServerAddr>,
    /// What it can do.
    pub caps: Vec<String>,
    /// To be repeated in the answer.
    pub nonce: Nonce,
}

/// Why a request or an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than 16 KiB.
    #[error("longer than 16 KiB")]
    TooLong,
    /// Not the JSON that it should be.
    #[error("not what version 1 of the protocol has")]
    Json,
    /// Of a version that this program does not know.
    #[error("version {0} of the protocol, this program knows version 1")]
    Version(u64),
    /// A field that cannot be.
    #[error("field `{0}` is not as it should be")]
    Field(&'static str),
}

#[derive(Serialize, Deserialize)]
struct RequestFields {
    v: u64,
    id: String,
    sec: String,
    cluster: String,
    peer: String,
    prefix: String,
    addrs: Vec<String>,
    caps: Vec<String>,
    nonce: String,
}

impl Drop for RequestFields {
    fn drop(&mut self) {
        self.sec.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
struct Enroll<T> {
    enroll: T,
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

impl Request {
    /// What to ask the issuer of a token.
    #[must_use]
    pub fn of(token: &Token, prefix: &str, addrs: &[ServerAddr], caps: &[String], nonce: [u8; 16]) -> Self {
        Self {
            id: token.id,
            secret: token.secret.clone(),
            cluster: token.issued_for.clone(),
            peer: token.cluster.clone(),
            prefix: prefix.to_owned(),
            addrs: addrs.to_vec(),
            caps: caps.to_vec(),
            nonce: Nonce(nonce),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let enroll = RequestFields {
            v: VERSION,
            id: self.id.to_string(),
            sec: self.secret.text().to_string(),
            cluster: self.cluster.clone(),
            peer: self.peer.clone(),
            prefix: self.prefix.clone(),
            addrs: address::texts(&self.addrs),
            caps: self.caps.clone(),
            nonce: self.nonce.text(),
        };
        // Texts and a number: nothing that JSON cannot have.
        Zeroizing::new(serde_json::to_vec(&Enroll { enroll }).unwrap_or_default())
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(ReadError::TooLong);
        }
        let Enroll { enroll: Version { v } } = serde_json::from_slice(bytes).map_err(|_| ReadError::Json)?;
        if v != VERSION {
            return Err(ReadError::Version(v));
        }
        let read: Enroll<RequestFields> = serde_json::from_slice(bytes).map_err(|_| ReadError::Json)?;
        let fields = read.enroll;
        name::check_cluster(&fields.cluster).map_err(|_| ReadError::Field("cluster"))?;
        name::check_cluster(&fields.peer).map_err(|_| ReadError::Field("peer"))?;
        name::check_prefix(&fields.prefix).map_err(|_| ReadError::Field("prefix"))?;
        Ok(Self {
            id: Uuid::parse(&fields.id).ok_or(ReadError::Field("id"))?,
            secret: Secret::parse(&fields.sec).ok_or(ReadError::Field("sec"))?,
            addrs: address::parse_all(&fields.addrs, true).ok_or(ReadError::Field("addrs"))?,
            caps: checked_capabilities(&fields.caps)?,
            nonce: Nonce::parse(&fields.nonce).ok_or(ReadError::Field("nonce"))?,
            cluster: fields.cluster.clone(),
            peer: fields.peer.clone(),
            prefix: fields.prefix.clone(),
        })
    }
}

/// What the cluster that issued the token answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The asker is a peer now.
    Ok(Accepted),
    /// It is not.
    Error {
        /// Why, for programs.
        code: Code,
        /// Why, for people: at most [`TEXT_CHARS_MAX`] characters without control characters.
        text: String,
    },
}

/// What a new peer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The cluster that answers.
    pub cluster: String,
    /// What its Client Identifiers begin with.
    pub prefix: String,
    /// Where it is reached.
    pub addrs: Vec<ServerAddr>,
    /// What it can do.
    pub caps: Vec<String>,
    /// By its clock, in seconds since the Unix epoch.
    pub time: u64,
    /// That of the request.
    pub nonce: Nonce,
    /// An operator there has to approve before connections are accepted.
    pub pending_approval: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AnswerFields {
    Ok {
        cluster: String,
        prefix: String,
        addrs: Vec<String>,
        caps: Vec<String>,
        time: String,
        nonce: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pending_approval: bool,
    },
    Error {
        code: String,
        text: String,
    },
}

impl Answer {
    /// A refusal.
    #[must_use]
    pub fn error(code: Code, text: impl AsRef<str>) -> Self {
        Self::Error { code, text: plain(text.as_ref()) }
    }

    /// The refusal of a request that cannot be read. Only its version is answered: who sends anything else is no peer.
    #[must_use]
    pub fn unreadable(error: ReadError) -> Self {
        match error {
            ReadError::Version(_) => Self::error(Code::BadVersion, error.to_string()),
            _ => Self::error(Code::UnknownToken, Code::UnknownToken.meaning()),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fields = match self {
            Self::Ok(ok) => AnswerFields::Ok {
                cluster: ok.cluster.clone(),
                prefix: ok.prefix.clone(),
                addrs: address::texts(&ok.addrs),
                caps: ok.caps.clone(),
                time: rfc3339::format(ok.time),
                nonce: ok.nonce.text(),
                pending_approval: ok.pending_approval,
            },
            Self::Error { code, text } => AnswerFields::Error { code: code.to_string(), text: text.clone() },
        };
        // As above.
        serde_json::to_vec(&fields).unwrap_or_default()
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(ReadError::TooLong);
        }
        let field = ReadError::Field;
        match serde_json::from_slice(bytes).map_err(|_| ReadError::Json)? {
            AnswerFields::Ok { cluster, prefix, addrs, caps, time, nonce, pending_approval } => {
                name::check_cluster(&cluster).map_err(|_| field("cluster"))?;
                name::check_prefix(&prefix).map_err(|_| field("prefix"))?;
                Ok(Self::Ok(Accepted {
                    addrs: address::parse_all(&addrs, true).ok_or(ReadError::Field("addrs"))?,
                    caps: checked_capabilities(&caps)?,
                    time: written::moment_of(&time).ok_or(ReadError::Field("time"))?,
                    nonce: Nonce::parse(&nonce).ok_or(ReadError::Field("nonce"))?,
                    cluster,
                    prefix,
                    pending_approval,
                }))
            }
            AnswerFields::Error { code, text } => {
                Ok(Self::error(Code::parse(&code).ok_or(ReadError::Field("code"))?, text))
            }
        }
    }
}

impl Accepted {
    /// What an operator should know about the clocks: tokens and certificates have times.
    #[must_use]
    pub fn skew(&self, now: u64) -> Option<String> {
        let seconds = self.time.abs_diff(now);
        let way = if self.time > now { "ahead" } else { "behind" };
        (seconds > SKEW_SECONDS_MAX).then(|| {
            let (theirs, ours) = (rfc3339::format(self.time), rfc3339::format(now));
            format!(
                "by the clock of {} it is {theirs}, by this cluster's {ours}: it is {seconds} s {way}; set one of them",
                self.cluster
            )
        })
    }
}

impl Nonce {
    fn text(self) -> String {
        self.to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if text.len() != 32 || !text.as_bytes().iter().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Names of capabilities: letters, digits and `_ . -`, sorted by nobody.
///
/// # Errors
/// If one is none, or there are too many.
pub(crate) fn checked_capabilities(caps: &[String]) -> Result<Vec<String>, ReadError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let is_one = |name: &String| (1..=CAPABILITY_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    if caps.len() > CAPABILITIES_MAX || !caps.iter().all(is_one) {
        return Err(ReadError::Field("caps"));
    }
    Ok(caps.to_vec())
}

/// One line of a bounded length: it may come from a stranger and goes into a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
