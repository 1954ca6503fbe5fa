use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SigningKey;
use rcgen::date_time_ymd;

use super::*;

/// 2030-01-01.
const NOW: i64 = 1_893_456_000;
const DAY: i64 = 86_400;
const GOOD: (u8, &[u8]) = (0x80, &[]);
const REVOKED: (u8, &[u8]) = (0xa1, b"\x18\x0f20290101000000Z");
const UNKNOWN: (u8, &[u8]) = (0x82, &[]);
/// ecdsa-with-SHA256.
const ALGORITHM: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";

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
        let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_after = date_time_ymd(4000, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key)
    }
}

fn time(text: &str) -> Vec<u8> {
    der(0x18, text.as_bytes())
}

/// An answer about `id`, current during the last day of 2029 and the first of 2030.
fn answer(id: &CertId, status: (u8, &[u8]), key: &KeyPair, certificates: &[u8]) -> Vec<u8> {
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
        der(0xa0, &time("20300102000000Z")),
    ];
    let responses = der(SEQUENCE, &der(SEQUENCE, &single.concat()));
    let responder = der(0xa2, &der(OCTET_STRING, &id.issuer_key_sha1));
    let data = der(SEQUENCE, &[responder, time("20291231000000Z"), responses].concat());
    let mut signature = vec![0];
    signature.extend(key.sign(&data).unwrap());
    let mut basic = [data, ALGORITHM.to_vec(), der(0x03, &signature)].concat();
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
    let says = |result: Result<i64, String>, text: &str| assert_eq!(result, Err(text.to_owned()));
    says(check_at(&good, NOW + DAY), "the answer is no longer current");
    says(check_at(&good, NOW - 2 * DAY), "the answer is of the future");
    says(check_at(&answer(&id, REVOKED, key, &[]), NOW), "our certificate is revoked");
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
fn no_cut_or_changed_answer_panics_or_passes() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let id = CertId::new(&leaf, &authority.der).unwrap();
    let (appointed, key) = authority.issue(ExtendedKeyUsagePurpose::OcspSigning);
    let good = answer(&id, GOOD, &key, &appointed);
    for length in 0..good.len() {
        assert!(check(&good[..length], &id, &authority.der, NOW).is_err(), "{length}");
    }
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 0x41;
        // Most are refused; what is not signed, such as the tail of the certificate's signature, may not matter.
        let _ = check(&changed, &id, &authority.der, NOW);
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
