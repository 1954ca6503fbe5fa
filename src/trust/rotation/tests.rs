use proptest::prelude::*;
use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use rcgen::SigningKey;
use serde_json::Value;
use serde_json::json;

use super::*;

const ENDS: Ends<'static> = Ends { from: "B", to: "A" };
const UNTIL: u64 = 1_767_323_045;

struct Holder {
    key: KeyPair,
    der: Vec<u8>,
}

impl Holder {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { key, der }
    }

    fn p384() -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P384_SHA384)
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.key.sign(bytes).unwrap()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }
}

fn rotation(ends: Ends<'_>, old: &Holder, next: &Holder) -> Rotation {
    let bytes = rotation_to_sign(ends, old.fingerprint(), next.fingerprint(), UNTIL);
    Rotation {
        next_cert: next.der.clone(),
        until: UNTIL,
        sig_by_old: old.sign(&bytes),
        sig_by_new: next.sign(&bytes),
    }
}

#[test]
fn both_keys_say_that_one_follows_the_other() {
    for (old, next) in [
        (&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P384_SHA384),
        (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519),
        (&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256),
    ] {
        let (old, next) = (Holder::new(old), Holder::new(next));
        let statement = Statement::Rotation(rotation(ENDS, &old, &next));
        let Statement::Rotation(read) = Statement::parse(&statement.encode()).unwrap() else {
            panic!("a rotation")
        };
        let leaf = read.verify(ENDS, &old.der).unwrap();
        assert_eq!((leaf.sha256, leaf.fit), (next.fingerprint(), Ok(())));
    }
}

#[test]
fn the_signed_bytes_are_these() {
    let bytes = rotation_to_sign(ENDS, Fingerprint([1; 32]), Fingerprint([2; 32]), 0x0102);
    let mut expected = b"tombolo link certificate rotation v1\0\0\0\0\x01B\0\0\0\x01A\0\0\0\x20".to_vec();
    expected.extend([1; 32]);
    expected.extend(b"\0\0\0\x20");
    expected.extend([2; 32]);
    expected.extend(b"\0\0\0\x08\0\0\0\0\0\0\x01\x02");
    assert_eq!(bytes, expected);
    let removal = removal_to_sign(ENDS, Fingerprint([1; 32]), 0);
    assert!(removal.starts_with(b"tombolo link removed v1\0\0\0\0\x01B"));
    // What stands where cannot be moved.
    let (one, other) = (Ends { from: "AB", to: "C" }, Ends { from: "A", to: "BC" });
    assert_ne!(
        removal_to_sign(one, Fingerprint([1; 32]), 0),
        removal_to_sign(other, Fingerprint([1; 32]), 0)
    );
}

#[test]
fn what_is_changed_does_not_hold() {
    let (old, next, other) = (Holder::p384(), Holder::p384(), Holder::p384());
    let good = rotation(ENDS, &old, &next);
    let by = StatementError::Signature;
    let of_others = rotation(ENDS, &other, &next);
    let cases = [
        (Rotation { until: UNTIL + 1, ..good.clone() }, by("old")),
        (Rotation { sig_by_old: good.sig_by_new.clone(), ..good.clone() }, by("old")),
        (Rotation { sig_by_new: good.sig_by_old.clone(), ..good.clone() }, by("next")),
        (Rotation { next_cert: other.der.clone(), ..good.clone() }, by("old")),
        (Rotation { sig_by_old: vec![0; 96], ..good.clone() }, by("old")),
        (Rotation { sig_by_old: Vec::new(), ..good.clone() }, by("old")),
        (of_others, by("old")),
    ];
    for (rotation, error) in cases {
        assert_eq!(rotation.verify(ENDS, &old.der), Err(error));
    }
    for ends in [Ends { from: "A", to: "B" }, Ends { from: "C", to: "A" }, Ends { from: "B", to: "C" }] {
        assert_eq!(good.verify(ends, &old.der), Err(by("old")), "said to or by another");
    }
    assert_eq!(good.verify(ENDS, &next.der), Err(by("old")), "the connection shows another certificate");
    assert_eq!(good.verify(ENDS, b"x"), Err(StatementError::Certificate(CertificateError::Unreadable)));
    // Who holds the old key alone cannot name somebody else's certificate.
    let bytes = rotation_to_sign(ENDS, old.fingerprint(), other.fingerprint(), UNTIL);
    let stolen = Rotation {
        next_cert: other.der.clone(),
        until: UNTIL,
        sig_by_old: old.sign(&bytes),
        sig_by_new: old.sign(&bytes),
    };
    assert_eq!(stolen.verify(ENDS, &old.der), Err(by("next")));
}

#[test]
fn a_removal_is_said_by_the_peer_about_this_link_and_now() {
    let (holder, other) = (Holder::p384(), Holder::p384());
    let at = UNTIL;
    let sig = holder.sign(&removal_to_sign(ENDS, holder.fingerprint(), at));
    let removal = Removal { at, sig };
    let Statement::Removal(read) = Statement::parse(&Statement::Removal(removal).encode()).unwrap() else {
        panic!("a removal");
    };
    assert_eq!(read.verify(ENDS, &holder.der, at - 1_000, at), Ok(()));
    assert_eq!(read.verify(ENDS, &holder.der, at + 300, at - 300), Ok(()), "clocks differ");
    assert_eq!(
        read.verify(ENDS, &holder.der, at + 301, at + 1_000),
        Err(StatementError::Time),
        "of a link before"
    );
    assert_eq!(read.verify(ENDS, &holder.der, 0, at - 301), Err(StatementError::Time));
    let by = Err(StatementError::Signature("current"));
    assert_eq!(read.verify(ENDS, &other.der, 0, at), by);
    assert_eq!(read.verify(Ends { from: "A", to: "B" }, &holder.der, 0, at), by);
    assert_eq!(Removal { at: at - 1, ..read.clone() }.verify(ENDS, &holder.der, 0, at), by);
    // A signature for a rotation is none for a removal.
    let sig = holder.sign(&rotation_to_sign(ENDS, holder.fingerprint(), holder.fingerprint(), at));
    assert_eq!(Removal { at, sig }.verify(ENDS, &holder.der, 0, at), by);
}

#[test]
fn what_is_no_statement_is_told_apart() {
    let good = Statement::Rotation(rotation(ENDS, &Holder::p384(), &Holder::p384()));
    let json: Value = serde_json::from_slice(&good.encode()).unwrap();
    let with = |key: &str, value: Value| {
        let mut json = json.clone();
        json["rotate"][key] = value;
        Statement::parse(json.to_string().as_bytes())
    };
    assert_eq!(with("later", json!(1)), Ok(good.clone()));
    assert_eq!(with("v", json!(2)), Err(ReadError::Version(2).into()));
    assert_eq!(with("next_fpr", json!(Fingerprint([0; 32]))), Err(StatementError::Named));
    for (key, value) in [
        ("next_cert", json!("")),
        ("next_cert", json!("!")),
        ("next_cert", json!(Base64::encode_string(&[0; CERTIFICATE_BYTES_MAX + 1]))),
        ("until", json!("2026")),
        ("sig_by_old", json!("")),
        ("sig_by_new", json!(Base64::encode_string(&[0; SIGNATURE_BYTES_MAX + 1]))),
    ] {
        assert_eq!(with(key, value.clone()), Err(ReadError::Field(key_of(key)).into()), "{value}");
    }
    assert_eq!(Statement::parse(br#"{"removed":{"v":9}}"#), Err(ReadError::Version(9).into()));
    assert_eq!(Statement::parse(&[b' '; BYTES_MAX + 1]), Err(ReadError::TooLong.into()));
    for text in ["", "{}", "[]", r#"{"rotate":{}}"#, r#"{"removed":{"v":1}}"#, r#"{"gone":{"v":1}}"#] {
        assert_eq!(Statement::parse(text.as_bytes()), Err(ReadError::Json.into()), "{text}");
    }
}

fn key_of(key: &str) -> &'static str {
    ["next_cert", "until", "sig_by_old", "sig_by_new"].into_iter().find(|one| *one == key).expect("a field")
}

#[test]
fn the_longest_statement_fits() {
    let rotation = Rotation {
        next_cert: vec![1; CERTIFICATE_BYTES_MAX],
        until: UNTIL,
        sig_by_old: vec![2; SIGNATURE_BYTES_MAX],
        sig_by_new: vec![3; SIGNATURE_BYTES_MAX],
    };
    let statement = Statement::Rotation(rotation);
    assert_eq!(Statement::parse(&statement.encode()), Ok(statement));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"\{"(rotate|removed)":.{0,80}"#) {
        for bytes in [&bytes[..], text.as_bytes()] {
            let _ = Statement::parse(bytes);
        }
        let rotation = Rotation { next_cert: bytes.clone(), until: 0, sig_by_old: bytes.clone(), sig_by_new: bytes.clone() };
        prop_assert!(rotation.verify(ENDS, &bytes).is_err());
    }
}
