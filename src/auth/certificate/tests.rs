use proptest::prelude::*;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::KeyPair;

use super::*;

fn facts(attributes: &[(DnType, &str)]) -> Result<CertificateFacts, CertificateError> {
    let mut params = CertificateParams::new(vec!["ignored.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in attributes {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let read = CertificateFacts::from_der(certificate.der());
    if let Ok(read) = &read {
        let expected: [u8; 32] = Sha256::digest(certificate.der()).into();
        assert_eq!(read.der_sha256, expected);
    }
    read
}

#[test]
fn common_name_and_subject_are_read() {
    let read = facts(&[
        (DnType::CountryName, "DE"),
        (DnType::OrganizationName, "Sand, Sea"),
        (DnType::CommonName, "cluster-b"),
    ])
    .unwrap();
    assert_eq!(read.common_name.as_deref(), Some("cluster-b"));
    assert_eq!(read.subject, "CN=cluster-b,O=Sand\\, Sea,C=DE");
    assert!(!read.chain_verified, "it is alone");
    assert!(read.not_after_unix > 0);
}

#[test]
fn one_attribute_cannot_pass_for_several() {
    let read = facts(&[(DnType::CommonName, "a,O=evil+CN=b")]).unwrap();
    assert_eq!(read.subject, "CN=a\\,O\\=evil\\+CN\\=b");
    assert_eq!(read.common_name.as_deref(), Some("a,O=evil+CN=b"));
}

#[test]
fn no_or_an_empty_common_name_is_none() {
    assert_eq!(facts(&[]).unwrap().common_name, None);
    assert_eq!(facts(&[(DnType::OrganizationName, "x")]).unwrap().common_name, None);
    assert_eq!(facts(&[(DnType::CommonName, "")]).unwrap().common_name, None);
}

#[test]
fn a_repeated_common_name_is_none() {
    // The generator keeps one attribute of a kind, so the second is put in by its identifier.
    let twice = [(DnType::CommonName, "cluster-b"), (DnType::CustomDnType(vec![2, 5, 4, 3]), "cluster-c")];
    let read = facts(&twice).unwrap();
    assert_eq!(read.common_name, None);
    assert_eq!(read.subject, "CN=cluster-c,CN=cluster-b");
}

#[test]
fn control_characters_are_refused() {
    for value in ["a\0b", "a\nb", "\u{1b}[31m", "a\u{85}"] {
        assert_eq!(facts(&[(DnType::CommonName, value)]), Err(CertificateError::UnsafeSubject), "{value:?}");
        assert_eq!(facts(&[(DnType::OrganizationName, value)]), Err(CertificateError::UnsafeSubject));
    }
}

#[test]
fn fingerprints_with_and_without_colons() {
    let bytes: [u8; 32] = std::array::from_fn(|index| u8::try_from(index * 7).unwrap());
    let plain = fingerprint_hex(&bytes);
    let colons = bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    assert_eq!(parse_fingerprint(&plain), Ok(bytes));
    assert_eq!(parse_fingerprint(&plain.to_uppercase()), Ok(bytes));
    assert_eq!(parse_fingerprint(&colons), Ok(bytes));
    let dashes = colons.replace(':', "-");
    let short = &plain[2..];
    let not_hex = plain.replace('0', "g");
    for wrong in ["", short, &dashes, &not_hex, &format!("{plain} "), &format!("+{}", &plain[1..])] {
        assert_eq!(parse_fingerprint(wrong), Err(CertificateError::Fingerprint), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{60,100}") {
        prop_assert!(CertificateFacts::from_der(&bytes).is_err());
        let _ = parse_fingerprint(&text);
    }

    #[test]
    fn a_fingerprint_survives_the_way_through_text(bytes: [u8; 32]) {
        prop_assert_eq!(parse_fingerprint(&fingerprint_hex(&bytes)), Ok(bytes));
    }
}
