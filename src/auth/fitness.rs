//! What a certificate must be fit for, beside leading to an authority: what it may be used for and how strong it is
//! (`authn-tls.md` section 1). Pure functions over certificates that TLS has found to be valid.

use x509_parser::asn1_rs::Oid;
use x509_parser::oid_registry;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

use crate::auth::certificate::CertificateError;

/// Smallest RSA modulus of any certificate.
pub const RSA_BITS_MIN: usize = 2048;
/// Smallest RSA modulus of a link's certificates.
pub const LINK_RSA_BITS_MIN: usize = 3072;
/// Smallest elliptic curve: P-256.
const CURVE_BITS_MIN: usize = 256;

/// What a certificate may be for: its Extended Key Usage (RFC 5280 section 4.2.1.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyUsage {
    /// `clientAuth`
    ClientAuth,
    /// `serverAuth`
    ServerAuth,
    /// `codeSigning`
    CodeSigning,
    /// `emailProtection`
    EmailProtection,
    /// `timeStamping`
    TimeStamping,
    /// `ocspSigning`
    OcspSigning,
    /// `OID:1.2.3`, without the first four characters.
    Oid(String),
}

impl KeyUsage {
    fn name(&self) -> String {
        match self {
            Self::ClientAuth => "clientAuth".to_owned(),
            Self::ServerAuth => "serverAuth".to_owned(),
            Self::CodeSigning => "codeSigning".to_owned(),
            Self::EmailProtection => "emailProtection".to_owned(),
            Self::TimeStamping => "timeStamping".to_owned(),
            Self::OcspSigning => "ocspSigning".to_owned(),
            Self::Oid(oid) => format!("OID:{oid}"),
        }
    }
}

/// What is asked of the certificates of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// What the leaf must be for, all of it.
    pub usages: Vec<KeyUsage>,
    /// Smallest RSA modulus of leaf and intermediates.
    pub rsa_bits_min: usize,
}

/// Reads a certificate.
///
/// # Errors
/// If it is none.
pub fn read(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|_| CertificateError::Unreadable)
}

impl Demands {
    /// Checks a certificate that is to identify somebody.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_leaf(&self, der: &[u8]) -> Result<(), CertificateError> {
        let certificate = read(der)?;
        if certificate.is_ca() {
            return Err(CertificateError::Authority);
        }
        self.check_usages(&certificate)?;
        self.check_strength(&certificate)
    }

    /// Checks a certificate that is a server's or our own: its key and its signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_key(&self, der: &[u8]) -> Result<(), CertificateError> {
        self.check_strength(&read(der)?)
    }

    /// Checks a certificate that vouches for another. What a root says of itself proves nothing, however it is signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_issuer(&self, der: &[u8]) -> Result<(), CertificateError> {
        let certificate = read(der)?;
        match self.check_strength(&certificate) {
            Err(CertificateError::WeakSignature) if certificate.subject() == certificate.issuer() => Ok(()),
            checked => checked,
        }
    }

    fn check_usages(&self, certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
        let extension = certificate.extended_key_usage().map_err(|_| CertificateError::Unreadable)?;
        for usage in &self.usages {
            // `anyExtendedKeyUsage` is not what was listed.
            let present = extension.as_ref().is_some_and(|extension| {
                let has = extension.value;
                match usage {
                    KeyUsage::ClientAuth => has.client_auth,
                    KeyUsage::ServerAuth => has.server_auth,
                    KeyUsage::CodeSigning => has.code_signing,
                    KeyUsage::EmailProtection => has.email_protection,
                    KeyUsage::TimeStamping => has.time_stamping,
                    KeyUsage::OcspSigning => has.ocsp_signing,
                    KeyUsage::Oid(oid) => has.other.iter().any(|other| other.to_id_string() == *oid),
                }
            });
            if !present {
                return Err(CertificateError::MissingUsage(usage.name()));
            }
        }
        Ok(())
    }

    fn check_strength(&self, certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
        let rsa_bits_min = self.rsa_bits_min.max(RSA_BITS_MIN);
        if !has_strong_key(certificate, rsa_bits_min) {
            return Err(CertificateError::WeakKey(rsa_bits_min));
        }
        if is_sha2(&certificate.signature_algorithm) { Ok(()) } else { Err(CertificateError::WeakSignature) }
    }
}

/// Whether its key is an elliptic curve of 256 bits or more, or RSA with a modulus of at least `rsa_bits_min`.
#[must_use]
pub fn has_strong_key(certificate: &X509Certificate<'_>, rsa_bits_min: usize) -> bool {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size() >= rsa_bits_min,
        Ok(PublicKey::EC(point)) => point.key_size() >= CURVE_BITS_MIN,
        // Ed25519 has one size and is not taken apart.
        Ok(PublicKey::Unknown(_)) => key.algorithm.algorithm == oid_registry::OID_SIG_ED25519,
        Ok(_) | Err(_) => false,
    }
}

/// Whether a signature is over a hash of the SHA-2 family; Ed25519 has one of its own.
#[must_use]
pub fn is_sha2(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    const SIGNATURES: [Oid<'static>; 7] = [
        oid_registry::OID_PKCS1_SHA256WITHRSA,
        oid_registry::OID_PKCS1_SHA384WITHRSA,
        oid_registry::OID_PKCS1_SHA512WITHRSA,
        oid_registry::OID_SIG_ECDSA_WITH_SHA256,
        oid_registry::OID_SIG_ECDSA_WITH_SHA384,
        oid_registry::OID_SIG_ECDSA_WITH_SHA512,
        oid_registry::OID_SIG_ED25519,
    ];
    const HASHES: [Oid<'static>; 3] = [
        oid_registry::OID_NIST_HASH_SHA256,
        oid_registry::OID_NIST_HASH_SHA384,
        oid_registry::OID_NIST_HASH_SHA512,
    ];
    match SignatureAlgorithm::try_from(algorithm) {
        // Without parameters the hash is SHA-1 (RFC 4055 section 3.1).
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => HASHES.contains(parameters.hash_algorithm_oid()),
        _ => SIGNATURES.contains(&algorithm.algorithm),
    }
}

#[cfg(test)]
mod tests;
