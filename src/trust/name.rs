//! Names of clusters and prefixes of their Client Identifiers (`trust.md` 2.1).
//!
//! A prefix reserves every Client Identifier that begins with it. Of several reservations the longest decides, so that `clink-A-`
//! and `clink-A-b-` live side by side; two that are equal cannot be told apart.

/// The longest prefix in bytes, as in the configuration: the default one of the longest name fits.
pub const PREFIX_BYTES_MAX: usize = 128;

/// Why a name or a prefix is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name of a cluster.
    #[error("{0:?} is not a cluster name: 1 to 63 of A-Z a-z 0-9 _ . -, a letter or digit first")]
    Cluster(String),
    /// No prefix.
    #[error("{0:?} is not a ClientID prefix: 1 to 128 of A-Z a-z 0-9 _ . -, a letter or digit first")]
    Prefix(String),
}

/// Whether this may name a cluster: `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`, since it is a level of `$LINK` topics.
#[must_use]
pub fn is_cluster_name(name: &str) -> bool {
    name.len() <= 63 && is_plain(name)
}

/// Whether this may stand in one.
pub(crate) fn is_cluster_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric()) && bytes.all(is_cluster_name_byte)
}

/// Checks the name of a cluster.
///
/// # Errors
/// If it is none.
pub fn check_cluster(name: &str) -> Result<(), NameError> {
    if is_cluster_name(name) { Ok(()) } else { Err(NameError::Cluster(clipped(name))) }
}

/// Checks a prefix: the letters of a name, and more of them.
///
/// # Errors
/// If it is none.
pub fn check_prefix(prefix: &str) -> Result<(), NameError> {
    let is_prefix = prefix.len() <= PREFIX_BYTES_MAX && is_plain(prefix);
    if is_prefix { Ok(()) } else { Err(NameError::Prefix(clipped(prefix))) }
}

/// What a cluster's Client Identifiers begin with unless something else is agreed: it ends in a separator.
#[must_use]
pub fn default_prefix(cluster: &str) -> String {
    format!("clink-{cluster}-")
}

/// The reservation that decides about a Client Identifier: the longest one. An empty one reserves nothing.
pub fn reservation<'p>(client_id: &str, prefixes: impl IntoIterator<Item = &'p str>) -> Option<&'p str> {
    let holding = |prefix: &&str| !prefix.is_empty() && client_id.starts_with(*prefix);
    prefixes.into_iter().filter(holding).max_by_key(|prefix| prefix.len())
}

/// Whether two prefixes reserve Client Identifiers in common: then the longer one decides, and whoever has the shorter one
/// should know.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Whether two names are told apart by the case of their letters alone, which people do not.
#[must_use]
pub fn are_twins(one: &str, other: &str) -> bool {
    one != other && one.eq_ignore_ascii_case(other)
}

/// What is shown of a text that somebody else wrote.
pub(crate) fn clipped(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_are_plain_ascii() {
        for name in ["A", "9", "a.b-c_d", &"x".repeat(63)] {
            assert_eq!(check_cluster(name), Ok(()), "{name}");
            assert_eq!(check_prefix(&default_prefix(name)), Ok(()), "{name}");
        }
        let bad = ["", "-a", ".a", "_a", "a/b", "a+", "a#", "$a", "a:b", "a b", "é", "Α", "a\u{200b}", "a\n"];
        for name in bad {
            assert_eq!(check_cluster(name), Err(NameError::Cluster(name.to_owned())), "{name}");
            assert_eq!(check_prefix(name), Err(NameError::Prefix(name.to_owned())), "{name}");
        }
        assert!(check_cluster(&"x".repeat(64)).is_err() && check_prefix(&"x".repeat(128)).is_ok());
        assert!(check_prefix(&"x".repeat(129)).is_err());
    }

    #[test]
    fn the_longest_reservation_decides() {
        let prefixes = ["clink-A-", "clink-A-b-", "A", "AB", ""];
        let table = [
            ("clink-A-:msg:1", Some("clink-A-")),
            ("clink-A-b-:msg:1", Some("clink-A-b-")),
            ("clink-A-b", Some("clink-A-")),
            ("clink-AB-", None),
            ("A", Some("A")),
            ("AB:x", Some("AB")),
            ("sensor", None),
            ("", None),
        ];
        for (client_id, owner) in table {
            assert_eq!(reservation(client_id, prefixes), owner, "{client_id}");
        }
    }

    #[test]
    fn overlaps_and_twins_are_seen() {
        assert!(overlap("clink-A-", "clink-A-b-") && overlap("clink-A-b-", "clink-A-") && overlap("A", "A"));
        assert!(!overlap("clink-A-", "clink-AB-"));
        assert!(are_twins("Plant", "plant") && !are_twins("plant", "plant") && !are_twins("A", "AB"));
    }
}
