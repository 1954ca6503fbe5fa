//! Reads certificates, keys and revocation lists from PEM files, and says which file is wrong and why.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::auth::certificate::CertificateFacts;
use crate::time::Now;

/// Longest PEM file we read: a bundle of all public authorities has a quarter of a megabyte, a revocation list of
/// 100 000 entries has five.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// From when on an expiry is worth a warning (observability.md, alerts).
const WARN_DAYS: i64 = 14;
const DAY_SECONDS: i64 = 86_400;

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
    /// The TLS library refuses the whole.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// A file a setting points to, read.
pub(super) struct PemFile<'a> {
    option: &'static str,
    path: &'a Path,
    bytes: Vec<u8>,
}

impl<'a> PemFile<'a> {
    pub(super) fn read(option: &'static str, path: &'a Path) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Read { option, path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
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

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let encrypted = b"ENCRYPTED";
        if self.bytes.windows(encrypted.len()).any(|window| window == encrypted) {
            return Err(self.wrong("the private key is encrypted, which is not supported"));
        }
        let mut keys = self.sections("private key (no `-----BEGIN PRIVATE KEY-----`)")?;
        Ok(keys.swap_remove(0))
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

    /// What to say of a certificate that has expired or soon will.
    pub(super) fn expiry_warning(&self, der: &CertificateDer<'_>, now: Now) -> Option<String> {
        let facts = CertificateFacts::from_der(der, false).ok()?;
        let now_unix = i64::try_from(now.unix_ms / 1000).unwrap_or(i64::MAX);
        let left = facts.not_after_unix.saturating_sub(now_unix);
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
