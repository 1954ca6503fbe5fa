//! Why an operation was refused, and with which code a command ends then (`trust.md` 2.2).

use crate::trust::Fingerprint;
use crate::trust::enroll::Code;

/// Why an operation was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// Whoever asks may not.
    #[error("{0}")]
    Denied(String),
    /// There is no such thing.
    #[error("no {what} {name}")]
    NotFound {
        /// Of which sort.
        what: &'static str,
        /// What it was called.
        name: String,
    },
    /// It is not as it would have to be.
    #[error("{0}")]
    Conflict(String),
    /// The peer said no.
    #[error("refused by the peer: {text} ({code})")]
    Refused {
        /// Its code.
        code: Code,
        /// Its words.
        text: String,
    },
    /// Another certificate than the one that was told of.
    #[error("the certificate of {whose} is {shown}, expected {expected}")]
    Mismatch {
        /// Whose.
        whose: String,
        /// The one that it has.
        shown: Fingerprint,
        /// The one that it should have.
        expected: Fingerprint,
    },
    /// The token's time is over, or it was used.
    #[error("{0}")]
    Over(String),
}

impl TrustError {
    pub(super) fn usage(error: impl ToString) -> Self {
        Self::Usage(error.to_string())
    }

    pub(super) fn no_link(name: &str) -> Self {
        Self::NotFound { what: "link identity", name: crate::trust::name::clipped(name) }
    }

    /// With what a command ends.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Denied(_) => 3,
            Self::NotFound { .. } => 4,
            Self::Conflict(_) => 5,
            Self::Refused { code: Code::Expired | Code::Used, .. } | Self::Over(_) => 8,
            Self::Refused { .. } => 6,
            Self::Mismatch { .. } => 7,
        }
    }
}
