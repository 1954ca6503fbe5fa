//! The codes of refusals, as programs read them (`trust.md` 2.4).

use std::fmt;

/// Why a token was not redeemed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A request of another version.
    BadVersion,
    /// Unknown, expired, used or a wrong secret: whoever does not hold the secret is told no more.
    UnknownToken,
    /// Its time is over.
    Expired,
    /// Redeemed by another certificate, burnt or revoked.
    Used,
    /// Issued for a cluster of another name.
    WrongPeerName,
    /// The cluster that was asked has another name.
    NameMismatch,
    /// Not such a certificate.
    CertRejected(Rejected),
    /// There is a link with that cluster.
    AlreadyLinked,
    /// The prefix is not the one that was agreed, or somebody else's.
    PrefixConflict,
    /// Too many at a time: later.
    Busy,
    /// A code that this program does not know, of a later one.
    Other(String),
}

/// What is wrong with the certificate of who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// No certificate that can be read.
    Unreadable,
    /// Before its time.
    NotYetValid,
    /// After its time.
    Expired,
    /// A key or a signature that is too weak.
    Weak,
    /// Not for client and server both, or an authority's.
    Usage,
    /// It is our own.
    Ours,
    /// Bound to somebody else.
    Bound,
    /// Not the one that the operator expects.
    Unexpected,
}

const REJECTED: [(Rejected, &str); 8] = [
    (Rejected::Unreadable, "unreadable"),
    (Rejected::NotYetValid, "not_yet_valid"),
    (Rejected::Expired, "expired"),
    (Rejected::Weak, "weak"),
    (Rejected::Usage, "usage"),
    (Rejected::Ours, "ours"),
    (Rejected::Bound, "bound"),
    (Rejected::Unexpected, "unexpected"),
];

const PLAIN: [(Code, &str); 9] = [
    (Code::BadVersion, "bad_version"),
    (Code::UnknownToken, "unknown_token"),
    (Code::Expired, "expired"),
    (Code::Used, "used"),
    (Code::WrongPeerName, "wrong_peer_name"),
    (Code::NameMismatch, "name_mismatch"),
    (Code::AlreadyLinked, "already_linked"),
    (Code::PrefixConflict, "prefix_conflict"),
    (Code::Busy, "busy"),
];

const CERT_REJECTED: &str = "cert_rejected:";
/// The longest code in bytes.
const BYTES_MAX: usize = 64;

impl Code {
    /// Reads a code. `None` if it is not written as codes are.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((code, _)) = PLAIN.iter().find(|(_, name)| *name == text) {
            return Some(code.clone());
        }
        let why = text.strip_prefix(CERT_REJECTED);
        if let Some((why, _)) = REJECTED.iter().find(|(_, name)| why == Some(*name)) {
            return Some(Self::CertRejected(*why));
        }
        let letters = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b':');
        let is_code = (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(letters);
        is_code.then(|| Self::Other(text.to_owned()))
    }

    /// What it means where there is nothing more to say.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::BadVersion => "the clusters speak different versions of the enrolment protocol",
            Self::UnknownToken => "no such token, or one that is not valid any more",
            Self::Expired => "the token has expired: issue another",
            Self::Used => "the token was used: if not by you, tell who issued it",
            Self::WrongPeerName => "the token is for a cluster of another name",
            Self::NameMismatch => "the cluster that was asked is not the one that the token names",
            Self::CertRejected(_) => "the certificate is not taken",
            Self::AlreadyLinked => "there is a link with this cluster already",
            Self::PrefixConflict => {
                "the ClientID prefix is not the one that was agreed, or is somebody else's"
            }
            Self::Busy => "too many at a time: try again later",
            Self::Other(_) => "refused",
        }
    }
}

impl Rejected {
    /// What it means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Unreadable => "the certificate cannot be read",
            Self::NotYetValid => "the certificate is not valid yet",
            Self::Expired => "the certificate has expired",
            Self::Weak => "the certificate's key or signature is too weak",
            Self::Usage => "the certificate is not for client and server authentication both",
            Self::Ours => "the certificate is that of the cluster that was asked",
            Self::Bound => "the certificate belongs to somebody else",
            Self::Unexpected => "the certificate is not the one that was announced",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertRejected(why) => {
                let name = REJECTED.iter().find(|(one, _)| one == why).map_or("", |(_, name)| name);
                write!(f, "{CERT_REJECTED}{name}")
            }
            Self::Other(text) => f.write_str(text),
            plain => f.write_str(PLAIN.iter().find(|(one, _)| one == plain).map_or("", |(_, name)| name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_as_it_is_written() {
        let rejected = REJECTED.iter().map(|(why, _)| Code::CertRejected(*why));
        for code in PLAIN.iter().map(|(code, _)| code.clone()).chain(rejected) {
            assert!(code.to_string().len() > "cert_rejected".len() || !code.to_string().contains(':'));
            assert_eq!(Code::parse(&code.to_string()), Some(code.clone()));
            assert!(!code.meaning().is_empty());
        }
        assert_eq!(Code::parse("cert_rejected:later"), Some(Code::Other("cert_rejected:later".to_owned())));
        assert_eq!(Code::parse("later"), Some(Code::Other("later".to_owned())));
        for text in ["", "No", "a b", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(Code::parse(text), None, "{text}");
        }
    }
}
