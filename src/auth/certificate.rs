//! Facts of a peer's certificate: fingerprint, common name, subject, expiry (authn-tls.md section 2). Whether its
//! chain leads to a trusted authority is verified by TLS and handed in; nothing here decides about trust.

use std::fmt::Write as _;

use sha2::Digest;
use sha2::Sha256;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

use crate::auth::fitness;

/// What we keep of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the DER encoding: the fingerprint.
    pub der_sha256: [u8; 32],
    /// The common name, if the subject has exactly one and it is not empty.
    pub common_name: Option<String>,
    /// The subject, most specific attribute first, escaped as RFC 4514 asks for.
    pub subject: String,
    /// First moment at which the certificate, or one that vouches for it, has expired, seconds since the Unix epoch.
    pub not_after_unix: i64,
    /// Itself, and the intermediates by which TLS found its way to the authority. Others that were shown do not count.
    pub chain: Box<[ChainLink]>,
    /// Which authority that was, as [`Anchor::id`](crate::auth::path::Anchor::id) has it.
    pub anchor: Option<[u8; 32]>,
    /// Whether TLS verified the chain against the listener's `cacertfile`.
    pub chain_verified: bool,
}

/// Why a certificate is refused although TLS accepted it, or a fingerprint cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not an X.509 certificate.
    #[error("not an X.509 certificate")]
    Unreadable,
    /// Such a subject could forge log lines and usernames.
    #[error("the certificate's subject contains a control character or is not text")]
    UnsafeSubject,
    /// Not 32 bytes in hexadecimal.
    #[error("a SHA-256 fingerprint is 64 hexadecimal digits, with or without a colon between each two")]
    Fingerprint,
    /// More intermediates than `depth` allows.
    #[error("the certificate chain is longer than `depth` allows")]
    ChainTooLong,
    /// Not issued for what it is used for.
    #[error("the certificate is not for this: its extended key usage lacks {0}")]
    MissingUsage(String),
    /// A certificate of an authority identifies nobody.
    #[error("the certificate is that of an authority")]
    Authority,
    /// A key that is too small.
    #[error("the certificate's key is too small: RSA needs {0} bits, elliptic curves 256")]
    WeakKey(usize),
    /// A signature that can be forged.
    #[error("the certificate is signed with something weaker than SHA-256")]
    WeakSignature,
}

/// A certificate of a chain, as a revocation list can tell it: no more than a hash, because every connection that showed
/// one keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLink {
    /// What [`revocation_key`] makes of issuer and serial number.
    pub revocation: [u8; 32],
}

/// By what a certificate is found among those that an issuer revoked: names and serial numbers are of any length.
#[must_use]
pub fn revocation_key(issuer: &[u8], serial: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((issuer.len() as u64).to_be_bytes());
    hash.update(issuer);
    // A leading zero octet is the sign of the number, and some writers leave it out.
    hash.update(&serial[serial.iter().take_while(|byte| **byte == 0).count()..]);
    hash.finalize().into()
}

impl CertificateFacts {
    /// Reads a certificate alone: one that is pinned, or one of ours.
    ///
    /// # Errors
    /// If it is not a certificate, or its subject holds control characters.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        Self::read(der, &[], None)
    }

    /// Reads a leaf and the path from it to the authority `anchor`.
    ///
    /// # Errors
    /// As [`Self::from_der`].
    pub fn from_path(
        leaf: &[u8],
        path: &[impl AsRef<[u8]>],
        anchor: [u8; 32],
    ) -> Result<Self, CertificateError> {
        let path: Vec<&[u8]> = path.iter().map(AsRef::as_ref).collect();
        Self::read(leaf, &path, Some(anchor))
    }

    fn read(leaf: &[u8], path: &[&[u8]], anchor: Option<[u8; 32]>) -> Result<Self, CertificateError> {
        let chain: Vec<X509Certificate<'_>> =
            [leaf].iter().chain(path).map(|der| fitness::read(der)).collect::<Result<_, _>>()?;
        let subject = chain[0].subject();
        Ok(Self {
            der_sha256: Sha256::digest(leaf).into(),
            common_name: single_common_name(subject)?,
            subject: distinguished_name(subject)?,
            not_after_unix: chain.iter().map(not_after).min().unwrap_or(i64::MAX),
            chain: chain.iter().map(chain_link).collect(),
            anchor,
            chain_verified: anchor.is_some(),
        })
    }
}

/// First moment at which any of these has expired, in seconds since the Unix epoch; what is no certificate has no date.
#[must_use]
pub fn first_expiry_unix(chain: &[impl AsRef<[u8]>]) -> Option<i64> {
    chain.iter().filter_map(|der| fitness::read(der.as_ref()).ok()).map(|one| not_after(&one)).min()
}

/// First moment at which it has expired, in seconds since the Unix epoch.
pub(super) fn not_after(certificate: &X509Certificate<'_>) -> i64 {
    // The moment of `notAfter` itself is still within (RFC 5280 section 4.1.2.5).
    certificate.validity().not_after.timestamp().saturating_add(1)
}

fn chain_link(certificate: &X509Certificate<'_>) -> ChainLink {
    ChainLink { revocation: revocation_key(certificate.issuer().as_raw(), certificate.raw_serial()) }
}

fn single_common_name(subject: &X509Name<'_>) -> Result<Option<String>, CertificateError> {
    let mut names = subject.iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else { return Ok(None) };
    let text = safe_text(name.as_str().map_err(|_| CertificateError::UnsafeSubject)?)?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn safe_text(text: &str) -> Result<&str, CertificateError> {
    if text.chars().any(char::is_control) { Err(CertificateError::UnsafeSubject) } else { Ok(text) }
}

/// The subject as RFC 4514 writes it: last attribute first, multi-valued ones joined by `+`.
fn distinguished_name(subject: &X509Name<'_>) -> Result<String, CertificateError> {
    let mut out = String::new();
    let relative_names: Vec<_> = subject.iter_rdn().collect();
    for (index, relative_name) in relative_names.iter().rev().enumerate() {
        if index > 0 {
            out.push(',');
        }
        for (position, attribute) in relative_name.iter().enumerate() {
            if position > 0 {
                out.push('+');
            }
            let oid = attribute.attr_type();
            match short_name(&oid.to_id_string()) {
                Some(name) => out.push_str(name),
                None => out.push_str(&oid.to_id_string()),
            }
            out.push('=');
            push_escaped(
                &mut out,
                safe_text(attribute.as_str().map_err(|_| CertificateError::UnsafeSubject)?)?,
            );
        }
    }
    Ok(out)
}

/// The attribute names of RFC 4514 section 3.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

/// RFC 4514 section 2.4: without it, one attribute could pass for several.
fn push_escaped(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=');
        let at_edge = (character == ' ' && (index == 0 || index == last)) || (character == '#' && index == 0);
        if special || at_edge {
            out.push('\\');
        }
        out.push(character);
    }
}

/// Reads a fingerprint as `AA:BB:…` or as plain hexadecimal, in either case.
///
/// # Errors
/// If it is anything else.
pub fn parse_fingerprint(text: &str) -> Result<[u8; 32], CertificateError> {
    let bytes = text.as_bytes();
    let step = match bytes.len() {
        64 => 2,
        95 => 3,
        _ => return Err(CertificateError::Fingerprint),
    };
    let mut out = [0; 32];
    for (index, byte) in out.iter_mut().enumerate() {
        let at = index * step;
        if step == 3 && index > 0 && bytes[at - 1] != b':' {
            return Err(CertificateError::Fingerprint);
        }
        *byte = hex_digit(bytes[at])? << 4 | hex_digit(bytes[at + 1])?;
    }
    Ok(out)
}

fn hex_digit(byte: u8) -> Result<u8, CertificateError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(CertificateError::Fingerprint),
    }
}

/// A fingerprint as lower-case hexadecimal, the form used for usernames and in logs.
#[must_use]
pub fn fingerprint_hex(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests;
