//! The cluster's link certificate: one certificate with its key, shown to peers that dial us and to peers that we dial
//! (trust.md 2.1, authn-tls.md section 1). Here it is made, judged and signed with; where it lies on disk is the business
//! of `broker::link_keys`. Time is an argument.

mod pair;

use std::fmt;
use std::time::Duration;

use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PKCS_ECDSA_P384_SHA384;
use rcgen::SanType;
use rcgen::SerialNumber;
use rcgen::date_time_ymd;
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use sha2::Digest;
use sha2::Sha256;

pub use self::pair::Key;
pub use self::pair::PEM_BYTES_MAX;
pub use self::pair::Pair;
pub use self::pair::chain_from_pem;
pub use self::pair::chain_pem;
use crate::auth::certificate::CertificateError;
use crate::auth::certificate::fingerprint_hex;
use crate::auth::certificate::first_expiry_unix;
use crate::auth::fitness;
use crate::auth::fitness::Demands;
use crate::auth::fitness::KeyUsage;
use crate::auth::fitness::LINK_RSA_BITS_MIN;
use crate::net::random;
use crate::time::Now;

/// How long a certificate that we make is valid (trust.md 2.6).
const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How far another clock may be behind ours when it sees a new certificate.
const BACKDATED: Duration = Duration::from_secs(3600);
/// From when on an expiry is worth a warning.
const WARN_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;
/// Random bytes of a serial number; RFC 5280 section 4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;

/// One scheme for each kind of key, which the certificate tells: nothing is negotiated.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA384,
];

/// Why a certificate cannot be the cluster's.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// The text is no PEM, or lacks what should be in it.
    #[error("{0}")]
    Pem(String),
    /// The certificate is not good enough for a link, in either direction.
    #[error("unusable certificate: {0}")]
    Unfit(#[from] CertificateError),
    /// The key is of a kind that is not used here.
    #[error("unusable key: {0}")]
    Key(rustls::Error),
    /// The key is that of another certificate.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// It is not valid any more.
    #[error("the certificate has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// It could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Nothing could be signed with the key.
    #[error("cannot sign: {0}")]
    Sign(rustls::Error),
    /// The key is of a kind that signs nothing here.
    #[error("the key is of a kind that signs nothing here")]
    Signature,
}

/// A pair that is good enough for links: strong, for both directions, and the key is the certificate's. Whether it is
/// within its dates is asked separately, because that changes.
pub struct OwnCertificate {
    certified: CertifiedKey,
    fingerprint: [u8; 32],
    not_before_unix: i64,
    not_after_unix: i64,
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OwnCertificate");
        shown.field("fingerprint", &fingerprint_hex(&self.fingerprint));
        shown.field("not_after_unix", &self.not_after_unix).finish_non_exhaustive()
    }
}

impl Pair {
    /// A new one for this cluster: ECDSA P-384, for both directions, valid for a year from `now`.
    ///
    /// # Errors
    /// If the name cannot be in a certificate.
    pub fn make(cluster: &str, now: Now) -> Result<Self, OwnCertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, cluster);
        // For a peer that verifies by authority and name: to it we are our own authority.
        params.subject_alt_names = cluster.try_into().map(SanType::DnsName).into_iter().collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial());
        let since_1970 = Duration::from_secs(now.unix_ms / 1000);
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(BACKDATED);
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970 + LIFETIME;
        let certificate = params.self_signed(&key)?;
        Ok(Self { chain: vec![certificate.der().clone()], key: Key::pkcs8(key.serialize_der()) })
    }
}

/// A positive number that nobody can foresee.
fn serial() -> SerialNumber {
    let mut bytes = [0; SERIAL_BYTES];
    random::fill(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

impl OwnCertificate {
    /// Judges a pair.
    ///
    /// # Errors
    /// Why it cannot be the cluster's.
    pub fn new(pair: &Pair) -> Result<Self, OwnCertificateError> {
        let (leaf, issuers) = pair.chain.split_first().ok_or(CertificateError::Unreadable)?;
        let demands = Demands {
            usages: vec![KeyUsage::ServerAuth, KeyUsage::ClientAuth],
            rsa_bits_min: LINK_RSA_BITS_MIN,
        };
        demands.check_leaf(leaf)?;
        issuers.iter().try_for_each(|der| demands.check_issuer(der))?;
        let not_before_unix = fitness::read(leaf)?.validity().not_before.timestamp();
        Ok(Self {
            certified: pair.certified()?,
            fingerprint: Sha256::digest(leaf).into(),
            not_before_unix,
            not_after_unix: first_expiry_unix(&pair.chain).ok_or(CertificateError::Unreadable)?,
        })
    }

    /// Whether it is one as [`Pair::make`] makes them for this cluster, and not an operator's.
    #[must_use]
    pub fn is_made_for(&self, cluster: &str) -> bool {
        // The moment of `notAfter` itself is within.
        let lifetime = i64::try_from((LIFETIME + BACKDATED).as_secs() + 1).unwrap_or(i64::MAX);
        let named = |leaf: &[u8]| {
            fitness::read(leaf).is_ok_and(|read| {
                let name = format!("CN={cluster}");
                read.subject().to_string() == name && read.issuer().to_string() == name
            })
        };
        self.certified.cert.len() == 1
            && self.not_after_unix.saturating_sub(self.not_before_unix) == lifetime
            && named(self.der())
    }

    /// SHA-256 of the certificate: what peers pin.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The certificate, and what vouches for it, as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        chain_pem(&self.certified.cert)
    }

    /// The certificate alone, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        // It was judged: there is one.
        self.certified.cert.first().map_or(&[], |leaf| leaf)
    }

    /// From when on it is valid, in seconds since the Unix epoch.
    #[must_use]
    pub fn not_before_unix(&self) -> i64 {
        self.not_before_unix
    }

    /// When it, or what vouches for it, has expired, in seconds since the Unix epoch.
    #[must_use]
    pub fn not_after_unix(&self) -> i64 {
        self.not_after_unix
    }

    /// Whether it is within its dates.
    ///
    /// # Errors
    /// Which of the two it is not.
    pub fn check_dates(&self, now: Now) -> Result<(), OwnCertificateError> {
        let now = now.unix_seconds();
        if now < self.not_before_unix {
            Err(OwnCertificateError::NotYetValid)
        } else if now >= self.not_after_unix {
            Err(OwnCertificateError::Expired)
        } else {
            Ok(())
        }
    }

    /// What to say of one that has expired or soon will, or that this clock is too early for.
    #[must_use]
    pub fn expiry_warning(&self, now: Now) -> Option<String> {
        let left = self.not_after_unix.saturating_sub(now.unix_seconds());
        match self.check_dates(now) {
            Ok(()) if left >= WARN_DAYS * DAY_SECONDS => None,
            Ok(()) => Some(format!("the link certificate expires within {} days", left / DAY_SECONDS + 1)),
            Err(OwnCertificateError::NotYetValid) => {
                Some("the link certificate is not valid yet: is this clock right?".to_owned())
            }
            Err(_) => Some("the link certificate has expired: peers refuse it".to_owned()),
        }
    }

    /// For the TLS library.
    pub(super) fn certified(&self) -> CertifiedKey {
        self.certified.clone()
    }

    /// Signs `message`, which begins with a label that says what it is (`crate::trust::rotation`): ECDSA with SHA-384 by a P-384
    /// key, as `crate::trust::rotation::verify` has it for the others. TLS signs what begins with 64 spaces (RFC 8446 section
    /// 4.4.3): no statement of ours can pass for a handshake, nor the other way round.
    ///
    /// # Errors
    /// If the library cannot.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, OwnCertificateError> {
        let signer = self.certified.key.choose_scheme(&SCHEMES);
        let signer = signer.ok_or(OwnCertificateError::Signature)?;
        signer.sign(message).map_err(OwnCertificateError::Sign)
    }
}

#[cfg(test)]
mod tests;
