//! Reads certificates, keys and revocation lists from PEM files, and says which file is wrong and why.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::SecretDocument;
use pkcs8::pkcs5;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::auth::certificate::CertificateFacts;
use crate::auth::fitness;
use crate::auth::path::Anchor;
use crate::config::settings::PartialChain;
use crate::config::settings::Secret;
use crate::net::trust::Anchors;
use crate::time::Now;

/// Longest PEM file we read: a bundle of all public authorities has a quarter of a megabyte, a revocation list of
/// 100 000 entries has five.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// From when on an expiry is worth a warning.
const WARN_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{option} {}: {source}", path.display())]
    Read {
        /// Name of the setting.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file was read and is no good.
    #[error("{option} {}: {reason}", path.display())]
    Content {
        /// Name of the setting.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Options(&'static str),
    /// The TLS library cannot verify by these.
    #[error("verify: {0}")]
    Verifier(String),
    /// The TLS library refuses the whole.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// A revocation list as authorities publish it: DER, or PEM.
///
/// # Errors
/// If it is neither.
pub fn revocation_list(bytes: &[u8]) -> Result<CertificateRevocationListDer<'static>, String> {
    // A SEQUENCE, as every list is.
    if bytes.first() == Some(&0x30) {
        return Ok(CertificateRevocationListDer::from(bytes.to_vec()));
    }
    CertificateRevocationListDer::from_pem_slice(bytes)
        .map_err(|_| "the answer is no revocation list, neither DER nor PEM".to_owned())
}

/// A file a setting points to, read.
pub(super) struct PemFile<'a> {
    option: &'static str,
    path: &'a Path,
    /// Perhaps a key: overwritten in memory at the end.
    bytes: Zeroizing<Vec<u8>>,
}

impl<'a> PemFile<'a> {
    pub(super) fn read(option: &'static str, path: &'a Path) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Read { option, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // One that grows would leave parts of it behind.
        let length = file.metadata().map_err(failed)?.len().min(MAX_FILE_BYTES);
        let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        let read = Self { option, path, bytes };
        if read.bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(read.wrong(format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        Ok(read)
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> TlsError {
        TlsError::Content { option: self.option, path: self.path.to_owned(), reason: reason.into() }
    }

    fn sections<T: PemObject>(&self, what: &str) -> Result<Vec<T>, TlsError> {
        let found: Result<Vec<T>, _> = T::pem_slice_iter(&self.bytes).collect();
        let found = found.map_err(|error| self.wrong(format!("not PEM: {error}")))?;
        if found.is_empty() { Err(self.wrong(format!("contains no {what}"))) } else { Ok(found) }
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.sections("certificate (no `-----BEGIN CERTIFICATE-----`)")
    }

    pub(super) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        self.sections("certificate revocation list (no `-----BEGIN X509 CRL-----`)")
    }

    /// The first private key; `password` opens it if it is encrypted (PKCS#8, RFC 5958 and RFC 8018).
    pub(super) fn private_key(
        &self,
        password: Option<&Secret>,
    ) -> Result<Zeroizing<PrivateKeyDer<'static>>, TlsError> {
        let text = std::str::from_utf8(&self.bytes).map_err(|_| self.wrong("not PEM: not text"))?;
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(self.wrong(
                "encrypted the old way of OpenSSL, which protects badly: `openssl pkcs8 -topk8` makes it PKCS#8",
            ));
        }
        let Some(begin) = text.find(ENCRYPTED_BEGIN) else {
            let keys = self.sections("private key (no `-----BEGIN PRIVATE KEY-----`)")?;
            let mut keys: Vec<_> = keys.into_iter().map(Zeroizing::new).collect();
            return Ok(keys.swap_remove(0));
        };
        let end =
            text[begin..].find(ENCRYPTED_END).ok_or_else(|| self.wrong("not PEM: the key has no end"))?;
        let block = &text[begin..begin + end + ENCRYPTED_END.len()];
        let Some(password) = password else {
            return Err(self.wrong("the private key is encrypted, and password, its pass phrase, is not set"));
        };
        self.decrypted(block, password)
    }

    fn decrypted(
        &self,
        block: &str,
        password: &Secret,
    ) -> Result<Zeroizing<PrivateKeyDer<'static>>, TlsError> {
        let (_, document) =
            SecretDocument::from_pem(block).map_err(|error| self.wrong(format!("not PEM: {error}")))?;
        let key = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|_| {
            self.wrong("not an encrypted key as PKCS#8 has it, or by a cipher that protects badly: PBES2 with AES is taken")
        })?;
        let opened = key.decrypt(password.expose()).map_err(|error| match error {
            pkcs8::Error::EncryptedPrivateKey(
                pkcs5::Error::NoPbes1CryptSupport
                | pkcs5::Error::UnsupportedAlgorithm { .. }
                | pkcs5::Error::AlgorithmParametersInvalid { .. },
            ) => self.wrong("encrypted by a cipher that protects badly: PBES2 with AES is taken"),
            _ => self.wrong("the pass phrase in password does not open the key"),
        })?;
        Ok(Zeroizing::new(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into()))
    }

    /// The certificates as trust anchors, with what to warn of.
    pub(super) fn roots(&self, now: Now) -> Result<(RootCertStore, Vec<String>), TlsError> {
        let mut roots = RootCertStore::empty();
        let certificates = self.certificates()?;
        let warnings = certificates.iter().filter_map(|der| self.expiry_warning(der, now)).collect();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| self.wrong(format!("not a trust anchor: {error}")))?;
        }
        Ok((roots, warnings))
    }

    /// The certificates that client certificates may lead to: roots, and as many others at the end of the file as
    /// `partial_chain` says.
    pub(super) fn anchors(
        &self,
        partial_chain: PartialChain,
        now: Now,
    ) -> Result<(Anchors, Vec<String>), TlsError> {
        let certificates = self.certificates()?;
        let warnings = certificates.iter().filter_map(|der| self.expiry_warning(der, now)).collect();
        let from_end = match partial_chain {
            PartialChain::Off => 0,
            PartialChain::LastOne => 1,
            PartialChain::LastTwo => 2,
        };
        let (mut store, mut intermediates, mut keys) = (RootCertStore::empty(), Vec::new(), Vec::new());
        for (index, der) in certificates.iter().enumerate() {
            let wrong = |error: &dyn Display| self.wrong(format!("not a trust anchor: {error}"));
            let read = fitness::read(der).map_err(|error| wrong(&error))?;
            if read.subject() == read.issuer() || certificates.len() - index <= from_end {
                store.add(der.clone()).map_err(|error| wrong(&error))?;
                keys.push(Anchor::new(&read));
            } else {
                intermediates.push(der.clone());
            }
        }
        if store.is_empty() {
            return Err(self.wrong(
                "no root among its certificates: add it, or trust the last one by partial_chain = true",
            ));
        }
        Ok((Anchors { store: Arc::new(store), authorities: certificates, intermediates, keys }, warnings))
    }

    /// What to say of a certificate that has expired or soon will.
    pub(super) fn expiry_warning(&self, der: &CertificateDer<'_>, now: Now) -> Option<String> {
        let facts = CertificateFacts::from_der(der).ok()?;
        let left = facts.not_after_unix.saturating_sub(now.unix_seconds());
        let place =
            format!("{} {}: the certificate of `{}`", self.option, self.path.display(), facts.subject);
        if left <= 0 {
            let days = left.unsigned_abs() / DAY_SECONDS.unsigned_abs();
            Some(format!("{place} has expired {days} days ago"))
        } else if left < WARN_DAYS * DAY_SECONDS {
            Some(format!("{place} expires within {} days", left / DAY_SECONDS + 1))
        } else {
            None
        }
    }
}
