//! The secret of a token: 256 random bits. Such a secret cannot be guessed, so a plain hash of it is enough to keep.

use std::fmt;

use base64ct::Base64UrlUnpadded;
use base64ct::Encoding;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;
use zeroize::Zeroizing;

/// Bytes of a secret.
pub const BYTES: usize = 32;
/// Characters of a secret in base64url without padding.
pub const CHARS: usize = 43;

/// A secret: compared in constant time, overwritten when it is dropped, never shown.
#[derive(Clone)]
pub struct Secret([u8; BYTES]);

impl Secret {
    /// Of random bytes.
    #[must_use]
    pub fn new(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads [`CHARS`] characters. There is one form of each secret.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != CHARS {
            return None;
        }
        let mut secret = Self([0; BYTES]);
        let read = Base64UrlUnpadded::decode(text, &mut secret.0).is_ok_and(|read| read.len() == BYTES);
        read.then_some(secret)
    }

    /// As it stands in a token.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(Base64UrlUnpadded::encode_string(&self.0))
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a secret.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Of no secret that anybody could find.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// Of its 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hash = crate::auth::certificate::parse_fingerprint(text).ok().map(Self)?;
        (hash.text() == text).then_some(hash)
    }

    /// As 64 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        crate::auth::certificate::fingerprint_hex(&self.0)
    }

    /// Whether this is the secret, in constant time.
    #[must_use]
    pub fn is_of(&self, secret: &Secret) -> bool {
        self.0.ct_eq(&secret.hash().0).into()
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_form_and_is_not_shown() {
        let secret = Secret::new([0xa5; 32]);
        let text = secret.text();
        assert_eq!(text.len(), CHARS);
        assert_eq!(Secret::parse(&text).as_ref(), Some(&secret));
        assert_eq!(format!("{secret:?} {:?}", secret.hash()), "Secret(..) SecretHash(..)");
        // The last digit carries two bits that are no part of the secret.
        let last = text.chars().next_back().unwrap();
        for other in ('a'..='z').filter(|other| *other != last) {
            let changed = format!("{}{other}", &text[..CHARS - 1]);
            assert_ne!(Secret::parse(&changed).as_ref(), Some(&secret), "{other}");
        }
        for bad in [String::new(), text[1..].to_owned(), format!("{}=", *text), format!("+{}", &text[1..])] {
            assert!(Secret::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_hash_knows_its_secret_and_no_other() {
        let (one, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        assert!(one.hash().is_of(&one) && !one.hash().is_of(&other) && one != other);
        assert_eq!(SecretHash::parse(&one.hash().text()), Some(one.hash()));
        assert!(SecretHash::parse(&one.hash().text().to_uppercase()).is_none());
        assert!(Secret::parse(&one.hash().text()[..CHARS]).is_none_or(|read| !one.hash().is_of(&read)));
    }
}
