use rcgen::PKCS_ECDSA_P256_SHA256;
use rcgen::PKCS_ED25519;
use x509_parser::public_key::PublicKey;

use super::*;
use crate::trust::rotation;

/// 2026-01-01T00:00:00Z.
const NOW: Now = Now { mono_ms: 0, unix_ms: 1_767_225_600_000 };
const DAY_MS: u64 = 86_400_000;

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// A pair of another kind than ours.
fn other(algorithm: &'static rcgen::SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    Pair::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

#[test]
fn what_is_made_is_for_both_directions_for_a_year_and_for_this_cluster() {
    let pair = Pair::make("berlin-1", NOW).unwrap();
    let own = OwnCertificate::new(&pair).unwrap();
    let read = fitness::read(&pair.chain[0]).unwrap();
    assert_eq!(read.subject().to_string(), "CN=berlin-1");
    assert_eq!(own.not_before_unix(), NOW.unix_seconds() - 3600);
    assert_eq!(own.not_after_unix(), NOW.unix_seconds() + 365 * 86_400 + 1);
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any && !read.is_ca());
    assert!(matches!(read.public_key().parsed().unwrap(), PublicKey::EC(point) if point.key_size() == 384));
    assert_eq!(own.fingerprint(), <[u8; 32]>::from(Sha256::digest(own.der())));
    let again = Pair::make("berlin-1", NOW).unwrap();
    assert_ne!(fitness::read(&again.chain[0]).unwrap().raw_serial(), read.raw_serial());
    assert!(read.raw_serial()[0] < 0x80 && read.raw_serial().len() == SERIAL_BYTES);
    // What no host can be called is a cluster's name all the same.
    OwnCertificate::new(&Pair::make("größe", NOW).unwrap()).unwrap();
}

#[test]
fn what_an_operator_brings_is_told_from_what_is_made() {
    let made = OwnCertificate::new(&Pair::make("berlin", NOW).unwrap()).unwrap();
    assert!(made.is_made_for("berlin") && !made.is_made_for("ber") && !made.is_made_for("paris"));
    let brought = other(&PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "berlin");
    });
    assert!(!OwnCertificate::new(&brought).unwrap().is_made_for("berlin"), "it is valid for another time");
}

#[test]
fn dates_are_asked_at_both_edges() {
    let own = OwnCertificate::new(&Pair::make("a", NOW).unwrap()).unwrap();
    let at = |unix_s: i64| Now { mono_ms: 0, unix_ms: unix_s.unsigned_abs() * 1000 };
    let (first, last) = (own.not_before_unix(), own.not_after_unix());
    assert!(matches!(own.check_dates(at(first - 1)), Err(OwnCertificateError::NotYetValid)));
    own.check_dates(at(first)).unwrap();
    own.check_dates(at(last - 1)).unwrap();
    assert!(matches!(own.check_dates(at(last)), Err(OwnCertificateError::Expired)));
    own.check_dates(NOW.plus_ms(364 * DAY_MS)).unwrap();
    for (days, said) in
        [(0, None), (334, None), (336, Some("expires within 30 days")), (366, Some("has expired"))]
    {
        let warning = own.expiry_warning(NOW.plus_ms(days * DAY_MS));
        assert_eq!(warning.is_some(), said.is_some(), "{days}");
        assert!(warning.unwrap_or_default().contains(said.unwrap_or_default()));
    }
    assert!(own.expiry_warning(at(first - 1)).unwrap().contains("not valid yet"));
}

#[test]
fn what_is_written_reads_as_the_same_pair() {
    let made = Pair::make("a", NOW).unwrap();
    let rsa = Pair::from_pem(&fixture("rsa-3072.pem"), &fixture("rsa-3072.key")).unwrap();
    for pair in [made, rsa] {
        let text = pair.pem();
        assert_eq!(Pair::from_pem(&text, &text).unwrap(), pair);
        assert!(text.lines().all(|line| line.len() <= LINE_MAX));
        assert!(!format!("{pair:?}").contains("key: Key([") && format!("{:?}", pair.key) == "Key(******)");
    }
}

const LINE_MAX: usize = 64;

#[test]
fn keys_of_every_kind_that_links_take_sign_and_others_are_refused() {
    let pairs = [
        Pair::make("a", NOW).unwrap(),
        other(&PKCS_ECDSA_P256_SHA256, |_| {}),
        other(&PKCS_ED25519, |_| {}),
        Pair::from_pem(&fixture("rsa-3072.pem"), &fixture("rsa-3072.key")).unwrap(),
    ];
    let stranger = OwnCertificate::new(&other(&PKCS_ECDSA_P384_SHA384, |_| {})).unwrap();
    for pair in &pairs {
        let own = OwnCertificate::new(pair).unwrap();
        let signature = own.sign(b"rotate\0next").unwrap();
        rotation::verify(own.der(), b"rotate\0next", &signature, "own").unwrap();
        let mut bent = signature.clone();
        *bent.last_mut().unwrap() ^= 1;
        for (der, message, signature) in [
            (own.der(), &b"rotate\0nexT"[..], &signature),
            (own.der(), b"remove\0next", &signature),
            (own.der(), b"rotate\0next", &bent),
            (own.der(), b"rotate\0next", &Vec::new()),
            (stranger.der(), b"rotate\0next", &signature),
            (b"no certificate", b"rotate\0next", &signature),
        ] {
            rotation::verify(der, message, signature, "own").unwrap_err();
        }
    }
}

#[test]
fn what_is_not_good_enough_for_a_link_is_refused() {
    let one_way = other(&PKCS_ECDSA_P384_SHA384, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let without = other(&PKCS_ECDSA_P384_SHA384, |params| params.extended_key_usages.clear());
    let authority = other(&PKCS_ECDSA_P384_SHA384, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let weak = Pair::from_pem(&fixture("rsa-2048.pem"), &fixture("rsa-2048.key")).unwrap();
    let mut mixed = Pair::make("a", NOW).unwrap();
    mixed.key = Pair::make("a", NOW).unwrap().key;
    let table = [
        (one_way, "extended key usage lacks clientAuth"),
        (without, "extended key usage lacks serverAuth"),
        (authority, "that of an authority"),
        (weak, "too small"),
        (mixed, "does not belong"),
    ];
    for (pair, reason) in table {
        let error = OwnCertificate::new(&pair).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_text_without_what_should_be_in_it_is_told_what() {
    let pair = Pair::make("a", NOW).unwrap();
    let (certificates, key) = (chain_pem(&pair.chain), pair.key.pem());
    let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let table = [
        ("", &**key, "no certificate in it"),
        (&*certificates, "", "no private key in it"),
        (&*key, &*certificates, "no certificate in it"),
        (&*certificates, &*locked, "encrypted: decrypt it first"),
        (&certificates[..certificates.len() - 10], &**key, "not PEM"),
        (&*certificates.repeat(9), &**key, "more than 8 certificates"),
    ];
    for (certificates, key, reason) in table {
        let error = Pair::from_pem(certificates, key).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
