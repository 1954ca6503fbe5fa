use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose as Purpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use x509_parser::pem::parse_x509_pem;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    parse_x509_pem(&std::fs::read(path).unwrap()).unwrap().1.contents
}

fn made(usages: &[Purpose], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
    params.extended_key_usages = usages.to_vec();
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// `authn-tls.md` T7.
#[test]
fn keys_and_signatures_have_a_least_strength_by_column() {
    let ordinary = Demands { usages: Vec::new(), rsa_bits_min: RSA_BITS_MIN };
    let link = Demands { usages: vec![KeyUsage::ClientAuth], rsa_bits_min: LINK_RSA_BITS_MIN };
    for name in ["rsa-3072", "p-384", "ed25519", "pss-sha-256"] {
        assert_eq!(link.check_leaf(&fixture(name)), Ok(()), "{name}");
        assert_eq!(ordinary.check_key(&fixture(name)), Ok(()), "{name}");
    }
    assert_eq!(ordinary.check_leaf(&fixture("rsa-2048")), Ok(()));
    assert_eq!(link.check_leaf(&fixture("rsa-2048")), Err(CertificateError::WeakKey(3072)));
    assert_eq!(
        link.check_key(&fixture("rsa-2048")),
        Err(CertificateError::WeakKey(3072)),
        "also one that vouches"
    );
    for demands in [&ordinary, &link] {
        let bits = demands.rsa_bits_min;
        for name in ["rsa-1024", "p-192"] {
            assert_eq!(demands.check_leaf(&fixture(name)), Err(CertificateError::WeakKey(bits)), "{name}");
        }
        for name in ["sha-1", "md5", "pss-sha-1"] {
            assert_eq!(demands.check_leaf(&fixture(name)), Err(CertificateError::WeakSignature), "{name}");
        }
    }
}

/// `authn-tls.md` T6.
#[test]
fn every_usage_that_is_listed_must_be_there() {
    let asks = |usages: &[KeyUsage]| Demands { usages: usages.to_vec(), rsa_bits_min: RSA_BITS_MIN };
    let both = [KeyUsage::ClientAuth, KeyUsage::ServerAuth];
    assert_eq!(asks(&both).check_leaf(&made(&[Purpose::ServerAuth, Purpose::ClientAuth], |_| {})), Ok(()));
    let lacks = |what: &str| Err(CertificateError::MissingUsage(what.to_owned()));
    assert_eq!(asks(&both).check_leaf(&made(&[Purpose::ClientAuth], |_| {})), lacks("serverAuth"));
    assert_eq!(
        asks(&both).check_leaf(&made(&[Purpose::Any], |_| {})),
        lacks("clientAuth"),
        "any is not listed"
    );
    assert_eq!(asks(&both).check_leaf(&made(&[], |_| {})), lacks("clientAuth"), "no extension at all");
    let others = [
        (KeyUsage::CodeSigning, Purpose::CodeSigning),
        (KeyUsage::EmailProtection, Purpose::EmailProtection),
        (KeyUsage::TimeStamping, Purpose::TimeStamping),
        (KeyUsage::OcspSigning, Purpose::OcspSigning),
        (
            KeyUsage::Oid("1.3.6.1.4.1.311.20.2.2".into()),
            Purpose::Other(vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 2]),
        ),
    ];
    for (usage, purpose) in others {
        let demands = asks(std::slice::from_ref(&usage));
        assert_eq!(demands.check_leaf(&made(&[purpose], |_| {})), Ok(()));
        assert_eq!(demands.check_leaf(&made(&[Purpose::ServerAuth], |_| {})), lacks(&usage.name()));
    }
    assert_eq!(asks(&[]).check_leaf(&made(&[], |_| {})), Ok(()));
}

#[test]
fn an_authority_identifies_nobody() {
    let unconstrained = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = made(&[Purpose::ClientAuth], |params| params.is_ca = unconstrained);
    assert_eq!(Demands::default().check_leaf(&authority), Err(CertificateError::Authority));
    assert_eq!(Demands::default().check_key(&authority), Ok(()));
    assert_eq!(Demands::default().check_leaf(b"no certificate"), Err(CertificateError::Unreadable));
}

/// `authn-tls.md` T7.
#[test]
fn what_a_root_says_of_itself_may_be_signed_weakly_but_its_key_is_not_weak() {
    let demands = Demands { usages: Vec::new(), rsa_bits_min: RSA_BITS_MIN };
    assert_eq!(demands.check_key(&fixture("sha-1")), Err(CertificateError::WeakSignature));
    assert_eq!(demands.check_issuer(&fixture("sha-1")), Ok(()));
    assert_eq!(demands.check_issuer(&fixture("rsa-1024")), Err(CertificateError::WeakKey(RSA_BITS_MIN)));
}
