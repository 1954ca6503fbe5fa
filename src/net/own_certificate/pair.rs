//! A certificate and its key as values, from PEM and to PEM. What is written is always encoded anew: of what somebody
//! hands in, nothing but certificates and the key is kept.

use std::fmt;

use base64ct::Base64;
use base64ct::Encoding;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::OwnCertificateError;
use crate::auth::certificate::CertificateError;

/// Certificates of a chain: the leaf and those that vouch for it.
const CHAIN_MAX: usize = 8;
/// Longest text of certificates or of a key that is read, in bytes: a chain of eight and an RSA key of 16384 bits have less.
pub const PEM_BYTES_MAX: usize = 64 * 1024;
/// Characters of a line of PEM (RFC 7468 section 2).
const LINE: usize = 64;

/// A private key in DER, overwritten in memory at the end.
#[derive(Clone)]
pub struct Key {
    der: Zeroizing<Vec<u8>>,
    encoding: KeyEncoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyEncoding {
    Pkcs8,
    Pkcs1,
    Sec1,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(******)")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.encoding == other.encoding && bool::from(self.der.ct_eq(&other.der))
    }
}

impl Eq for Key {}

impl Key {
    /// Of PKCS#8, as keys are made here.
    pub(super) fn pkcs8(der: Vec<u8>) -> Self {
        Self { der: Zeroizing::new(der), encoding: KeyEncoding::Pkcs8 }
    }

    /// The first private key of a text.
    ///
    /// # Errors
    /// If there is none, or if a pass phrase protects it: a broker that starts by itself has nobody to ask.
    pub fn from_pem(text: &str) -> Result<Self, OwnCertificateError> {
        if text.contains("ENCRYPTED") {
            let reason = "the key is encrypted: decrypt it first (`openssl pkcs8 -in KEY`)";
            return Err(OwnCertificateError::Pem(reason.to_owned()));
        }
        let read = PrivateKeyDer::from_pem_slice(text.as_bytes()).map(Zeroizing::new);
        let read = read.map_err(|_| OwnCertificateError::Pem("there is no private key in it".to_owned()))?;
        let encoding = match &*read {
            PrivateKeyDer::Pkcs8(_) => KeyEncoding::Pkcs8,
            PrivateKeyDer::Pkcs1(_) => KeyEncoding::Pkcs1,
            PrivateKeyDer::Sec1(_) => KeyEncoding::Sec1,
            _ => return Err(OwnCertificateError::Pem("a key of an unknown encoding".to_owned())),
        };
        Ok(Self { der: Zeroizing::new(read.secret_der().to_vec()), encoding })
    }

    /// As PEM.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        let label = match self.encoding {
            KeyEncoding::Pkcs8 => "PRIVATE KEY",
            KeyEncoding::Pkcs1 => "RSA PRIVATE KEY",
            KeyEncoding::Sec1 => "EC PRIVATE KEY",
        };
        // Twice the bytes hold it: one that grows would leave parts of it behind.
        let mut text = Zeroizing::new(String::with_capacity(self.der.len() * 2 + 4 * LINE));
        put_pem(&mut text, label, &self.der);
        text
    }

    fn for_library(&self) -> Zeroizing<PrivateKeyDer<'static>> {
        let der = self.der.to_vec();
        Zeroizing::new(match self.encoding {
            KeyEncoding::Pkcs8 => PrivateKeyDer::Pkcs8(der.into()),
            KeyEncoding::Pkcs1 => PrivateKeyDer::Pkcs1(der.into()),
            KeyEncoding::Sec1 => PrivateKeyDer::Sec1(der.into()),
        })
    }
}

/// A certificate, what vouches for it, and its key; not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: Key,
}

impl Pair {
    /// Reads certificates, the leaf first, and the first private key. One text may hold both, and is given twice then.
    ///
    /// # Errors
    /// What is missing, or cannot be read.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, OwnCertificateError> {
        Ok(Self { chain: chain_from_pem(certificates)?, key: Key::from_pem(key)? })
    }

    /// Both in one text, the certificates first.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        let (chain, key) = (chain_pem(&self.chain), self.key.pem());
        let mut text = Zeroizing::new(String::with_capacity(chain.len() + key.len()));
        text.push_str(&chain);
        text.push_str(&key);
        text
    }

    /// For the TLS library.
    ///
    /// # Errors
    /// If the two do not belong together, or the key is of a kind that is not used here.
    pub(super) fn certified(&self) -> Result<CertifiedKey, OwnCertificateError> {
        // By reference: the library would leave a copy of the key behind in memory.
        let signs = any_supported_type(&self.key.for_library()).map_err(OwnCertificateError::Key)?;
        let certified = CertifiedKey::new(self.chain.clone(), signs);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(OwnCertificateError::Mismatch),
            Err(_) => Err(CertificateError::Unreadable.into()),
        }
    }

    /// Whether the key is the certificate's.
    #[must_use]
    pub fn belongs_together(&self) -> bool {
        self.certified().is_ok()
    }
}

/// The certificates of a text: at least one, at most eight.
///
/// # Errors
/// If there are fewer or more, or one cannot be read.
pub fn chain_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, OwnCertificateError> {
    let wrong = |reason: String| OwnCertificateError::Pem(reason);
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).take(CHAIN_MAX + 1).collect();
    let chain = read.map_err(|error| wrong(format!("not PEM: {error}")))?;
    match chain.len() {
        0 => Err(wrong("there is no certificate in it".to_owned())),
        1..=CHAIN_MAX => Ok(chain),
        _ => Err(wrong(format!("more than {CHAIN_MAX} certificates"))),
    }
}

/// Certificates as PEM.
#[must_use]
pub fn chain_pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    chain.iter().for_each(|der| put_pem(&mut text, "CERTIFICATE", der));
    text
}

fn put_pem(text: &mut String, label: &str, der: &[u8]) {
    // Lines are whole groups of three bytes, so that only the last is padded. Each may be a part of a key.
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    for line in der.chunks(LINE / 4 * 3) {
        text.push_str(&Zeroizing::new(Base64::encode_string(line)));
        text.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
}
