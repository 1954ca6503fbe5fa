use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SigningKey;
use rcgen::date_time_ymd;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use std::sync::Arc;

use super::*;
use crate::net::crypto::provider;
use crate::net::staple::Own;
use crate::net::staple::Stapler;

/// 2030-01-01.
const NOW: i64 = 1_893_456_000;
const DAY: i64 = 86_400;
const GOOD: (u8, &[u8]) = (0x80, &[]);
const REVOKED: (u8, &[u8]) = (0xa1, b"\x18\x0f20290101000000Z");
const UNKNOWN: (u8, &[u8]) = (0x82, &[]);
/// ecdsa-with-SHA256.
const ALGORITHM: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";

/// Tag and length of a signature, and of a list of certificates in its wrapping.
const HEADER_OF_SIGNATURE: usize = 2;
const HEADERS_OF_SIGNER: usize = 8;

struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (Vec<u8>, KeyPair) {
        self.issue_until(usage, 4000)
    }

    fn issue_until(&self, usage: ExtendedKeyUsagePurpose, year: i32) -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key)
    }
}

fn time(text: &str) -> Vec<u8> {
    der(0x18, text.as_bytes())
}

/// An answer about `id`, current during the last day of 2029 and the first of 2030.
fn answer(id: &CertId, status: (u8, &[u8]), key: &KeyPair, certificates: &[u8]) -> Vec<u8> {
    let until = der(0xa0, &time("20300102000000Z"));
    sign(&data(id, status, &until), ALGORITHM, key, certificates)
}

/// What is signed; `until` may be empty.
fn data(id: &CertId, status: (u8, &[u8]), until: &[u8]) -> Vec<u8> {
    let identified = [
        SHA1_IDENTIFIER.to_vec(),
        der(OCTET_STRING, &id.issuer_name_sha1),
        der(OCTET_STRING, &id.issuer_key_sha1),
        der(INTEGER, &id.serial),
    ];
    let single = [
        der(SEQUENCE, &identified.concat()),
        der(status.0, status.1),
        time("20291231000000Z"),
        until.to_vec(),
    ];
    let responses = der(SEQUENCE, &der(SEQUENCE, &single.concat()));
    let responder = der(0xa2, &der(OCTET_STRING, &id.issuer_key_sha1));
    der(SEQUENCE, &[responder, time("20291231000000Z"), responses].concat())
}

fn sign(data: &[u8], algorithm: &[u8], key: &KeyPair, certificates: &[u8]) -> Vec<u8> {
    let mut signature = vec![0];
    signature.extend(key.sign(data).unwrap());
    let mut basic = [data, algorithm, &der(0x03, &signature)].concat();
    if !certificates.is_empty() {
        basic.extend(der(0xa0, &der(SEQUENCE, certificates)));
    }
    let typed = [der(0x06, &BASIC_RESPONSE), der(OCTET_STRING, &der(SEQUENCE, &basic))].concat();
    der(SEQUENCE, &[der(0x0a, &[0]), der(0xa0, &der(SEQUENCE, &typed))].concat())
}

#[test]
fn an_answer_counts_if_it_says_good_of_our_certificate_now() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let (other, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    let key = authority.issuer.key();
    let check_at = |answer: &[u8], now| check(answer, &id, &authority.der, now);
    let good = answer(&id, GOOD, key, &[]);
    assert_eq!(check_at(&good, NOW), Ok(NOW + DAY));
    let says = |result: Result<i64, OcspError>, text: &str| assert_eq!(result.unwrap_err().to_string(), text);
    says(check_at(&good, NOW + DAY), "the answer is no longer current");
    says(check_at(&good, NOW - 2 * DAY), "the answer is of the future");
    let revoked = answer(&id, REVOKED, key, &[]);
    assert_eq!(check_at(&revoked, NOW), Err(OcspError::Revoked));
    says(check_at(&revoked, NOW + DAY), "the answer is no longer current");
    says(check_at(&answer(&id, UNKNOWN, key, &[]), NOW), "the responder does not know our certificate");
    let of_other = answer(&CertId::new(&other, &authority.der).unwrap(), GOOD, key, &[]);
    says(check_at(&of_other, NOW), "the answer is about another certificate");
    says(check_at(&der(SEQUENCE, &der(0x0a, &[3])), NOW), "the responder says tryLater");
    says(check_at(&der(SEQUENCE, &der(0x0a, &[6])), NOW), "the responder says unauthorized");
}

#[test]
fn an_answer_is_signed_by_the_authority_or_by_whom_it_appointed() {
    let (authority, forger) = (Authority::new(), Authority::new());
    let (leaf, own_key) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    let check_now = |answer: &[u8]| check(answer, &id, &authority.der, NOW).is_ok();
    let (appointed, key) = authority.issue(ExtendedKeyUsagePurpose::OcspSigning);
    assert!(check_now(&answer(&id, GOOD, &key, &appointed)));
    assert!(!check_now(&answer(&id, GOOD, &key, &[])), "without its certificate");
    assert!(!check_now(&answer(&id, GOOD, &own_key, &leaf)), "appointed for something else");
    let (of_forger, forgers_key) = forger.issue(ExtendedKeyUsagePurpose::OcspSigning);
    assert!(!check_now(&answer(&id, GOOD, &forgers_key, &of_forger)), "appointed by somebody else");
    assert!(!check_now(&answer(&id, GOOD, forger.issuer.key(), &forger.der)));
    let mut changed = answer(&id, REVOKED, authority.issuer.key(), &[]);
    let at = changed.windows(2).position(|window| window == [0xa1, 0x11]).unwrap();
    changed[at] = 0xa0;
    assert!(!check_now(&changed), "what it says is what was signed");
}

#[test]
fn an_issuer_is_the_one_that_issued() {
    let (authority, forger) = (Authority::new(), Authority::new());
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    assert!(CertId::new(&leaf, &leaf).unwrap_err().contains("is not who issued"));
    assert!(CertId::new(&leaf, &forger.der).unwrap_err().contains("is not signed by this"), "the same name");
    assert!(CertId::new(b"x", &authority.der).is_err());
}

#[test]
fn an_answer_without_an_end_is_good_for_a_week() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    let endless = sign(&data(&id, GOOD, &[]), ALGORITHM, authority.issuer.key(), &[]);
    let made = NOW - DAY;
    assert_eq!(check(&endless, &id, &authority.der, NOW), Ok(made + 7 * DAY));
    let late = check(&endless, &id, &authority.der, made + 7 * DAY);
    assert_eq!(late.unwrap_err().to_string(), "the answer is no longer current");
}

#[test]
fn an_appointed_signer_is_within_its_dates() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    for (year, passes) in [(2029, false), (2031, true)] {
        let (appointed, key) = authority.issue_until(ExtendedKeyUsagePurpose::OcspSigning, year);
        let answer = answer(&id, GOOD, &key, &appointed);
        assert_eq!(check(&answer, &id, &authority.der, NOW).is_ok(), passes, "until {year}");
    }
}

#[test]
fn a_weak_signature_does_not_count() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    // ecdsa-with-SHA1.
    let algorithm = b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01";
    let weak = sign(&data(&id, GOOD, &[]), algorithm, authority.issuer.key(), &[]);
    let error = check(&weak, &id, &authority.der, NOW).unwrap_err().to_string();
    assert_eq!(error, "the answer is signed with something weaker than SHA-256");
}

#[test]
fn what_is_stapled_goes_when_the_certificate_is_revoked_and_only_then() {
    let authority = Authority::new();
    let (leaf, leaf_key) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let certified = CertifiedKey::from_der(vec![leaf.clone().into()], private, &provider()).unwrap();
    let own = Arc::new(Own::new(certified, Vec::new()));
    let stapler = Stapler::new(own, &leaf, authority.der.clone().into()).unwrap();
    let id = CertId::new(&leaf, &authority.der).unwrap();
    let good = answer(&id, GOOD, authority.issuer.key(), &[]);
    assert_eq!(stapler.take(good.clone(), NOW), Ok(NOW + DAY));
    let forged = answer(&id, REVOKED, Authority::new().issuer.key(), &[]);
    let revoked = answer(&id, REVOKED, authority.issuer.key(), &[]);
    for (useless, now) in [(forged, NOW), (revoked.clone(), NOW + DAY), (revoked.clone(), NOW - 2 * DAY)] {
        assert!(matches!(stapler.take(useless, now), Err(OcspError::Useless(_))));
        assert_eq!(stapler.current().as_ref(), Some(&good));
    }
    assert_eq!(stapler.take(revoked, NOW), Err(OcspError::Revoked));
    assert_eq!(stapler.current(), None);
}

#[test]
fn no_cut_or_changed_answer_panics_or_passes() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    let (appointed, key) = authority.issue(ExtendedKeyUsagePurpose::OcspSigning);
    let data = data(&id, GOOD, &der(0xa0, &time("20300102000000Z")));
    let good = sign(&data, ALGORITHM, &key, &appointed);
    assert!(check(&good, &id, &authority.der, NOW).is_ok());
    for length in 0..good.len() {
        assert!(check(&good[..length], &id, &authority.der, NOW).is_err(), "{length}");
    }
    // Of the rest, some may be written otherwise, such as what is around all of it.
    let find = |part: &[u8]| good.windows(part.len()).position(|window| window == part).unwrap();
    let (data_at, signer_at) = (find(&data), find(&appointed));
    let signature_at = data_at + data.len() + ALGORITHM.len() + HEADER_OF_SIGNATURE;
    let signed = [data_at..data_at + data.len(), signature_at..signer_at - HEADERS_OF_SIGNER];
    for at in 0..good.len() {
        for bit in [0x01, 0x41, 0x80] {
            let mut changed = good.clone();
            changed[at] ^= bit;
            let passed = check(&changed, &id, &authority.der, NOW).is_ok();
            let counts = signed.iter().any(|range| range.contains(&at));
            assert!(!passed || !counts, "byte {at} of {signed:?} with {bit:#x}");
        }
    }
}

#[test]
fn lengths_are_written_as_der_has_them() {
    assert_eq!(der(0x04, &[7]), [4, 1, 7]);
    assert_eq!(der(0x04, &[]), [4, 0]);
    assert_eq!(der(0x04, &[0; 127])[..2], [4, 127]);
    assert_eq!(der(0x04, &[0; 128])[..3], [4, 0x81, 128]);
    assert_eq!(der(0x04, &[0; 256])[..4], [4, 0x82, 1, 0]);
}
