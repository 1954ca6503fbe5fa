//! The cipher suites there are, under the names of IANA and of OpenSSL, which is what EMQX takes.

use std::fmt;

/// What a suite of TLS 1.2 lacks that we do not offer: words of its name, and what they mean.
const WEAK: [(&str, &str); 13] = [
    ("NULL", "no encryption"),
    ("EXP", "keys of export strength"),
    ("ADH", "no authentication"),
    ("AECDH", "no authentication"),
    ("ANON", "no authentication"),
    ("PSK", "a shared key instead of certificates"),
    ("SRP", "a password instead of certificates"),
    ("RC4", "RC4"),
    ("3DES", "3DES"),
    ("DES", "DES"),
    ("MD5", "MD5"),
    ("DHE-DSS", "DSA"),
    ("CBC", "CBC"),
];

macro_rules! suites {
    ($($(#[$doc:meta])* $suite:ident = $iana:literal, $openssl:literal, $is_13:literal;)+) => {
        /// A cipher suite: with forward secrecy and authenticated encryption, as all of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum CipherSuite {
            $($(#[$doc])* $suite,)+
        }

        impl CipherSuite {
            /// All of them, the first preferred.
            pub const ALL: &[Self] = &[$(Self::$suite),+];

            /// The name in IANA's registry.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$suite => $iana,)+ }
            }

            /// Whether it belongs to TLS 1.3; the others belong to TLS 1.2.
            #[must_use]
            pub fn is_13(self) -> bool {
                match self { $(Self::$suite => $is_13,)+ }
            }

            fn openssl(self) -> &'static str {
                match self { $(Self::$suite => $openssl,)+ }
            }
        }
    };
}

suites! {
    /// TLS 1.3, AES-256.
    Aes256 = "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", true;
    /// TLS 1.3, AES-128.
    Aes128 = "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", true;
    /// TLS 1.3, ChaCha20.
    ChaCha20 = "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", true;
    /// TLS 1.2, ECDSA, AES-256.
    EcdsaAes256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", false;
    /// TLS 1.2, ECDSA, AES-128.
    EcdsaAes128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", false;
    /// TLS 1.2, ECDSA, ChaCha20.
    EcdsaChaCha20 = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", false;
    /// TLS 1.2, RSA, AES-256.
    RsaAes256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", false;
    /// TLS 1.2, RSA, AES-128.
    RsaAes128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", false;
    /// TLS 1.2, RSA, ChaCha20.
    RsaChaCha20 = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", false;
}

impl CipherSuite {
    /// The suite of this name, IANA's or OpenSSL's.
    ///
    /// # Errors
    /// Why there is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|suite| suite.name() == name || suite.openssl() == name);
        if let Some(suite) = found {
            return Ok(*suite);
        }
        let words: Vec<String> = name.split(['-', '_']).map(str::to_ascii_uppercase).collect();
        let joined = words.join("-");
        if let Some((_, why)) =
            WEAK.iter().find(|(word, _)| words.iter().any(|w| w == word) || joined.contains(word))
        {
            return Err(format!("`{name}` is a weak cipher suite ({why}), which is never offered"));
        }
        let is_ephemeral = joined.contains("ECDHE") || joined.contains("DHE");
        let is_aead = joined.contains("GCM") || joined.contains("POLY1305") || joined.contains("CCM");
        let known = !name.starts_with("TLS_AES_")
            && words.iter().any(|word| word.starts_with("AES") || word.starts_with("CAMELLIA"));
        Err(match (known, is_ephemeral, is_aead) {
            (true, false, _) => {
                format!("`{name}` is a weak cipher suite (no forward secrecy), which is never offered")
            }
            (true, true, false) => {
                format!("`{name}` is a weak cipher suite (CBC), which is never offered")
            }
            _ => format!(
                "`{name}` is no cipher suite that we have: {}",
                Self::ALL.iter().map(|suite| suite.name()).collect::<Vec<_>>().join(", ")
            ),
        })
    }
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_has_two_names() {
        for suite in CipherSuite::ALL {
            assert_eq!(CipherSuite::parse(suite.name()), Ok(*suite));
            assert_eq!(CipherSuite::parse(suite.openssl()), Ok(*suite));
        }
    }

    /// What EMQX's own list has beside ours, and what nobody should have.
    #[test]
    fn a_weak_suite_is_named_with_its_weakness() {
        for (name, why) in [
            ("AES256-SHA256", "no forward secrecy"),
            ("AES128-GCM-SHA256", "no forward secrecy"),
            ("TLS_RSA_WITH_AES_128_GCM_SHA256", "no forward secrecy"),
            ("ECDHE-RSA-AES256-SHA384", "CBC"),
            ("ECDHE-ECDSA-AES128-SHA", "CBC"),
            ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "CBC"),
            ("DHE-DSS-AES256-GCM-SHA384", "DSA"),
            ("RSA-PSK-AES256-GCM-SHA384", "a shared key instead of certificates"),
            ("RC4-MD5", "RC4"),
            ("DES-CBC3-SHA", "DES"),
            ("EXP-RC4-MD5", "keys of export strength"),
            ("ECDHE-RSA-NULL-SHA", "no encryption"),
            ("ADH-AES128-GCM-SHA256", "no authentication"),
        ] {
            let error = CipherSuite::parse(name).unwrap_err();
            assert_eq!(error, format!("`{name}` is a weak cipher suite ({why}), which is never offered"));
        }
    }

    #[test]
    fn an_unknown_suite_is_told_which_there_are() {
        for name in ["", "TLS_AES_999", "DHE-RSA-AES256-GCM-SHA384", "tls_aes_256_gcm_sha384", "HIGH:!aNULL"]
        {
            let error = CipherSuite::parse(name).unwrap_err();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
        assert!(CipherSuite::parse("TLS_AES_999").unwrap_err().contains("TLS_CHACHA20_POLY1305_SHA256"));
    }
}
