//! Proof that our own certificate is not revoked, to be stapled to handshakes: the question that is put to the responder and
//! what its answer says (RFC 6960). Pure functions over DER; who asks, and when, is the caller's business.

use sha1::Digest;
use sha1::Sha1;
use x509_parser::asn1_rs::Any;
use x509_parser::asn1_rs::BitString;
use x509_parser::asn1_rs::GeneralizedTime;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::verify::verify_signature;
use x509_parser::x509::AlgorithmIdentifier;

use crate::auth::fitness;
use crate::auth::fitness::RSA_BITS_MIN;

/// SEQUENCE { OBJECT IDENTIFIER sha1, NULL }: responders find certificates by SHA-1, which protects nothing here.
const SHA1_IDENTIFIER: [u8; 11] = [0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];
/// The content of `id-pkix-ocsp-basic`.
const BASIC_RESPONSE: [u8; 9] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const INTEGER: u8 = 0x02;

/// How far the responder's clock may be ahead of ours.
const AHEAD_SECONDS: i64 = 300;
/// How long an answer is good that names no end: somebody who keeps one could staple it for ever.
const ENDLESS_SECONDS: i64 = 7 * 86_400;
/// Appointed signers that are looked at in one answer.
const SIGNERS_MAX: usize = 4;

/// Why an answer is not stapled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// It is genuine and current, and this is what it says.
    #[error("our certificate is revoked")]
    Revoked,
    /// It says nothing that counts.
    #[error("{0}")]
    Useless(String),
}

impl From<String> for OcspError {
    fn from(why: String) -> Self {
        Self::Useless(why)
    }
}

/// What identifies our certificate to its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertId {
    issuer_name_sha1: [u8; 20],
    issuer_key_sha1: [u8; 20],
    serial: Vec<u8>,
}

/// One value in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    if content.len() < 0x80 {
        out.extend([significant.last().copied().unwrap_or(0)]);
    } else {
        // At most eight, which is what a length has.
        out.push(0x80 | significant.len() as u8);
        out.extend(significant);
    }
    out.extend(content);
    out
}

impl CertId {
    /// Of a certificate and the one that issued it.
    pub(super) fn new(leaf: &[u8], issuer: &[u8]) -> Result<Self, String> {
        let (leaf, issuer) = (read(leaf)?, read(issuer)?);
        if leaf.issuer().as_raw() != issuer.subject().as_raw() {
            return Err(format!("`{}` is not who issued our certificate", issuer.subject()));
        }
        leaf.verify_signature(Some(issuer.public_key()))
            .map_err(|_| format!("our certificate is not signed by this `{}`", issuer.subject()))?;
        Ok(Self {
            issuer_name_sha1: Sha1::digest(issuer.subject().as_raw()).into(),
            issuer_key_sha1: Sha1::digest(&*issuer.public_key().subject_public_key.data).into(),
            serial: leaf.raw_serial().to_vec(),
        })
    }

    /// The question, an OCSPRequest without a nonce: responders answer many with one answer.
    pub(super) fn request(&self) -> Vec<u8> {
        let mut id = SHA1_IDENTIFIER.to_vec();
        id.extend(der(OCTET_STRING, &self.issuer_name_sha1));
        id.extend(der(OCTET_STRING, &self.issuer_key_sha1));
        id.extend(der(INTEGER, &self.serial));
        // CertID in Request in requestList in TBSRequest in OCSPRequest.
        (0..5).fold(id, |content, _| der(SEQUENCE, &content))
    }

    fn is_in(&self, id: &Any<'_>) -> Result<bool, String> {
        let [_, name, key, serial] = fields(id)?;
        Ok(name.data == self.issuer_name_sha1
            && key.data == self.issuer_key_sha1
            && serial.data == self.serial)
    }
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    fitness::read(der).map_err(|error| error.to_string())
}

fn unreadable<E>(_: E) -> String {
    "the answer is no OCSP response".to_owned()
}

/// All values of a constructed one.
fn parts<'a>(value: &Any<'a>) -> Result<Vec<Any<'a>>, String> {
    let mut rest: &'a [u8] = value.data;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (after, part) = Any::from_der(rest).map_err(unreadable)?;
        parts.push(part);
        rest = after;
    }
    Ok(parts)
}

/// The first values of a constructed one.
fn fields<'a, const N: usize>(value: &Any<'a>) -> Result<[Any<'a>; N], String> {
    let mut all = parts(value)?;
    if all.len() < N {
        return Err(unreadable(()));
    }
    all.truncate(N);
    all.try_into().map_err(unreadable)
}

fn one(bytes: &[u8]) -> Result<Any<'_>, String> {
    Any::from_der(bytes).map(|(_, value)| value).map_err(unreadable)
}

fn tag(value: &Any<'_>) -> (bool, u32) {
    (value.header.is_contextspecific(), value.header.tag().0)
}

fn moment(value: &Any<'_>) -> Result<i64, String> {
    let time = GeneralizedTime::try_from(value.clone()).map_err(unreadable)?;
    Ok(time.utc_datetime().map_err(unreadable)?.unix_timestamp())
}

/// Until when this answer says that the certificate is good, in seconds since the Unix epoch.
///
/// # Errors
/// If it does not say so, or if it is not of the authority.
pub(super) fn check(answer: &[u8], id: &CertId, issuer: &[u8], now_unix: i64) -> Result<i64, OcspError> {
    let [status, bytes] = match parts(&one(answer)?)?.as_slice() {
        [status] => return Err(refusal(status.data).into()),
        [status, bytes, ..] => [status.clone(), bytes.clone()],
        [] => return Err(unreadable(()).into()),
    };
    if status.data != [0] {
        return Err(refusal(status.data).into());
    }
    let [kind, basic] = fields(&one(bytes.data)?)?;
    if kind.data != BASIC_RESPONSE {
        return Err(unreadable(()).into());
    }
    let basic = one(basic.data)?;
    check_signature(&basic, issuer, now_unix)?;
    let [data] = fields(&basic)?;
    let parts_of_data = parts(&data)?;
    // After the version, if there is one: who responds, when, and the responses.
    let skipped = usize::from(parts_of_data.first().is_some_and(|first| tag(first) == (true, 0)));
    let responses = parts_of_data.get(skipped + 2).ok_or_else(|| unreadable(()))?;
    for response in parts(responses)? {
        let all = parts(&response)?;
        let [about, status, from, ..] = all.as_slice() else { return Err(unreadable(()).into()) };
        if id.is_in(about)? {
            return good_until(status, from, all.get(3), now_unix);
        }
    }
    Err("the answer is about another certificate".to_owned().into())
}

fn refusal(status: &[u8]) -> String {
    let why = match status {
        [1] => "malformedRequest",
        [2] => "internalError",
        [3] => "tryLater",
        [5] => "sigRequired",
        [6] => "unauthorized",
        _ => return unreadable(()),
    };
    format!("the responder says {why}")
}

fn good_until(
    status: &Any<'_>,
    from: &Any<'_>,
    until: Option<&Any<'_>>,
    now_unix: i64,
) -> Result<i64, OcspError> {
    let from = moment(from)?;
    let until = until.filter(|value| tag(value) == (true, 0)).map(|value| moment(&one(value.data)?));
    // Without an end there is always a newer one (RFC 6960 section 4.2.2.1).
    let until = until.unwrap_or_else(|| Ok(from.saturating_add(ENDLESS_SECONDS)))?;
    if from > now_unix.saturating_add(AHEAD_SECONDS) {
        return Err("the answer is of the future".to_owned().into());
    }
    if until <= now_unix {
        return Err("the answer is no longer current".to_owned().into());
    }
    match tag(status) {
        (true, 0) => Ok(until),
        (true, 1) => Err(OcspError::Revoked),
        _ => Err("the responder does not know our certificate".to_owned().into()),
    }
}

/// Signed by the authority, or by whom it appointed (RFC 6960 section 4.2.2.2), with what is strong enough for
/// certificates.
fn check_signature(basic: &Any<'_>, issuer: &[u8], now_unix: i64) -> Result<(), String> {
    let (after, _) = Any::from_der(basic.data).map_err(unreadable)?;
    let signed = &basic.data[..basic.data.len() - after.len()];
    let (after, algorithm) = AlgorithmIdentifier::from_der(after).map_err(unreadable)?;
    let (after, signature) = BitString::from_der(after).map_err(unreadable)?;
    if !fitness::is_sha2(&algorithm) || signature.unused_bits != 0 {
        return Err("the answer is signed with something weaker than SHA-256".to_owned());
    }
    let issuer = read(issuer)?;
    let has_signed = |signer: &X509Certificate<'_>| {
        fitness::has_strong_key(signer, RSA_BITS_MIN)
            && verify_signature(signer.public_key(), &algorithm, &signature, signed).is_ok()
    };
    if has_signed(&issuer) {
        return Ok(());
    }
    let mut certificates = if after.is_empty() { &[] } else { one(one(after)?.data)?.data };
    for _ in 0..SIGNERS_MAX {
        if certificates.is_empty() {
            break;
        }
        let (rest, signer) = X509Certificate::from_der(certificates).map_err(unreadable)?;
        if is_appointed(&signer, &issuer, now_unix) && has_signed(&signer) {
            return Ok(());
        }
        certificates = rest;
    }
    Err("the answer is not signed by the authority".to_owned())
}

/// Whether the authority has said, for now, that this one signs answers.
fn is_appointed(signer: &X509Certificate<'_>, issuer: &X509Certificate<'_>, now_unix: i64) -> bool {
    let usage = signer.extended_key_usage().ok().flatten();
    let dates = signer.validity();
    usage.is_some_and(|usage| usage.value.ocsp_signing)
        && (dates.not_before.timestamp()..=dates.not_after.timestamp()).contains(&now_unix)
        && signer.issuer().as_raw() == issuer.subject().as_raw()
        && fitness::is_sha2(&signer.signature_algorithm)
        && signer.verify_signature(Some(issuer.public_key())).is_ok()
}

#[cfg(test)]
mod tests;
