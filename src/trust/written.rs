//! How moments, addresses and hashes stand in JSON: as people read them. For `#[serde(with = "…")]`.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serializer;
use serde::de::Error;

use crate::time::moment as rfc3339;
use crate::trust::address;
use crate::trust::address::ServerAddr;
use crate::trust::secret::SecretHash;

/// A moment in seconds since the Unix epoch, as `2026-01-02T03:04:05Z` and in no other form.
pub(crate) fn moment_of(text: &str) -> Option<u64> {
    rfc3339::parse(text).filter(|unix_s| rfc3339::format(*unix_s) == text)
}

/// A moment.
pub(crate) mod moment {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(unix_s: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339::format(*unix_s))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        moment_of(&text).ok_or_else(|| D::Error::custom("a moment is written as 2026-01-02T03:04:05Z"))
    }
}

/// A moment, or none.
pub(crate) mod maybe_moment {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(unix_s: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match unix_s {
            Some(unix_s) => moment::serialize(unix_s, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let read = |text: String| moment_of(&text).ok_or_else(|| D::Error::custom("a moment, or null"));
        text.map(read).transpose()
    }
}

/// Addresses of a cluster.
pub(crate) mod addresses {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(all: &[ServerAddr], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(address::texts(all))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ServerAddr>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        address::parse_all(&texts, true)
            .ok_or_else(|| D::Error::custom("addresses are host:port or [v6]:port, at most 16"))
    }
}

/// The hash of a secret.
pub(crate) mod hash {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(hash: &SecretHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hash.text())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        SecretHash::parse(&text).ok_or_else(|| D::Error::custom("a hash is 64 hexadecimal digits"))
    }
}
