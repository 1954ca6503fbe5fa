//! Signatures by the key of a certificate. One algorithm for each sort of key, so that there is nothing to choose:
//!
//! | key | signature |
//! |---|---|
//! | P-384 | ECDSA with SHA-384, ASN.1 |
//! | P-256 | ECDSA with SHA-256, ASN.1 |
//! | Ed25519 | as it is |
//! | RSA, 2048 to 8192 bits | PSS with SHA-384 |

use ring::signature;
use ring::signature::UnparsedPublicKey;
use ring::signature::VerificationAlgorithm;
use x509_parser::oid_registry;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::auth::certificate::CertificateError;
use crate::auth::fitness;

use super::StatementError;

/// Whether `signature` over `bytes` is by the key of this certificate (DER), which is `whose`. Dates and trust are the caller's
/// business.
///
/// # Errors
/// If it is not.
pub fn verify(
    certificate: &[u8],
    bytes: &[u8],
    signature: &[u8],
    whose: &'static str,
) -> Result<(), StatementError> {
    let certificate = fitness::read(certificate)?;
    let key = certificate.public_key();
    let algorithm = algorithm(key).ok_or(CertificateError::WeakSignature)?;
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
        .verify(bytes, signature)
        .map_err(|_| StatementError::Signature(whose))
}

fn algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let oid = &key.algorithm.algorithm;
    if *oid == oid_registry::OID_SIG_ED25519 {
        return Some(&signature::ED25519);
    }
    if *oid == oid_registry::OID_PKCS1_RSAENCRYPTION {
        return Some(&signature::RSA_PSS_2048_8192_SHA384);
    }
    if *oid != oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    if curve == oid_registry::OID_NIST_EC_P384 {
        Some(&signature::ECDSA_P384_SHA384_ASN1)
    } else if curve == oid_registry::OID_EC_P256 {
        Some(&signature::ECDSA_P256_SHA256_ASN1)
    } else {
        None
    }
}
