//! What of `ring` we use: its suites by the names that the configuration has for them, and how signatures are checked.

use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::SignatureScheme;
use rustls::SupportedCipherSuite;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::ring;
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;

use crate::config::settings::CipherSuite;

/// Everything.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// These suites only, in this order.
pub(super) fn provider_with(suites: &[CipherSuite]) -> Arc<CryptoProvider> {
    let cipher_suites = suites.iter().map(|suite| implementation(*suite)).collect();
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

/// Whether the other end has the key of the certificate that it shows, which anybody could (authn-tls.md T13).
#[derive(Debug, Clone, Copy)]
pub(super) struct Signatures(WebPkiSupportedAlgorithms);

impl Signatures {
    pub(super) fn new() -> Self {
        Self(ring::default_provider().signature_verification_algorithms)
    }

    pub(super) fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    pub(super) fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn implementation(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::Aes256 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Aes128 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::ChaCha20 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdsaAes256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaAes128 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaChaCha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaAes256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaAes128 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaChaCha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A suite that the library gets is to be named here, and each name is to mean its suite.
    #[test]
    fn every_suite_of_the_library_has_a_name() {
        let named = provider_with(CipherSuite::ALL).cipher_suites.clone();
        let all = provider().cipher_suites.clone();
        assert!(all.len() == named.len() && all.iter().all(|suite| named.contains(suite)));
        for suite in CipherSuite::ALL {
            let library = format!("{:?}", implementation(*suite).suite()).replace("TLS13_", "TLS_");
            assert_eq!(library, suite.name());
        }
    }
}
