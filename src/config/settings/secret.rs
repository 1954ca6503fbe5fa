//! A value that must not be seen: shown as `******` wherever it would be printed.

use std::fmt;

use zeroize::Zeroizing;

/// What stands in the place of a secret.
pub(crate) const MASK: &str = "******";

/// Secret bytes, such as a link's password. Neither `Debug` nor a configuration diff shows them, and at the end they are
/// overwritten in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the secret.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn a_secret_is_overwritten_at_the_end() {
        fn is_overwritten(_: &impl ZeroizeOnDrop) {}
        is_overwritten(&Secret::new("hunter2").0);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "****** Some(******)");
        assert_eq!(secret.expose(), b"hunter2");
    }
}
