//! The fingerprint of a certificate: SHA-256 of its DER encoding, written `sha256:<64 hex>`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use sha2::Digest;
use sha2::Sha256;

use crate::auth::certificate::CertificateError;
use crate::auth::certificate::fingerprint_hex;
use crate::auth::certificate::parse_fingerprint;

const PREFIX: &str = "sha256:";

/// A SHA-256 fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Reads exactly what is written: `sha256:` and 64 lower-case digits, as programs exchange it.
    #[must_use]
    pub fn parse_exact(text: &str) -> Option<Self> {
        text.parse().ok().filter(|read: &Self| read.to_string() == text)
    }
}

/// As people write it: with or without `sha256:`, in either case, with or without colons.
impl FromStr for Fingerprint {
    type Err = CertificateError;

    fn from_str(text: &str) -> Result<Self, CertificateError> {
        parse_fingerprint(text.strip_prefix(PREFIX).unwrap_or(text)).map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", fingerprint_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_exact(&text)
            .ok_or_else(|| serde::de::Error::custom("a fingerprint is sha256: and 64 lower-case digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_may_write_it_as_tools_print_it_and_programs_as_we_do() {
        let written = format!("sha256:{}", "ab".repeat(32));
        let colons = ["AB"; 32].join(":");
        for text in [&written, &"AB".repeat(32), &colons, &format!("sha256:{colons}")] {
            assert_eq!(text.parse(), Ok(Fingerprint([0xab; 32])), "{text}");
        }
        assert_eq!(Fingerprint([0xab; 32]).to_string(), written);
        assert_eq!(Fingerprint::parse_exact(&written), Some(Fingerprint([0xab; 32])));
        for text in [&"ab".repeat(32), &written.to_uppercase(), &format!("sha256:sha256:{}", "ab".repeat(32))]
        {
            assert_eq!(Fingerprint::parse_exact(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", Fingerprint([0xab; 32])), written);
    }
}
