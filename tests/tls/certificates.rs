//! Which client certificates are taken.

use crate::make::Authority;
use crate::make::client;
use crate::make::fixture;
use crate::make::impostor;
use crate::make::invalid;
use crate::make::meet;
use crate::make::meet_with;
use crate::make::open;
use crate::make::pinned;
use crate::make::reason;
use crate::make::strict;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::date_time_ymd;
use rustls::CertificateError;
use rustls::Error;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use std::path::PathBuf;
use std::time::Duration;
use tombolo::auth::certificate::fingerprint_hex;
use tombolo::auth::fitness::KeyUsage;
use tombolo::config::settings::CrlSource;
use tombolo::config::settings::HttpUrl;
use tombolo::config::settings::PartialChain;
use tombolo::net::clock;
use tombolo::net::handshake::HandshakeError;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::tls::TlsVersion;

#[tokio::test]
async fn a_client_with_a_certificate_of_the_authority_is_let_in_and_known() {
    let authority = Authority::new("ca");
    let (server, peer) = (authority.issue("server"), authority.issue("cluster-b"));
    for versions in [vec![TlsVersion::V13], vec![TlsVersion::V12]] {
        let options = ClientTlsOptions { versions, ..client(&authority, Some(&peer)) };
        let facts = meet(&strict(&server, &authority), &options).await.let_in().unwrap();
        assert_eq!(facts.common_name.as_deref(), Some("cluster-b"));
        assert_eq!(facts.der_sha256, peer.fingerprint());
        assert!(facts.chain_verified);
    }
}

#[tokio::test]
async fn t1_no_certificate() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let (error, alert) = meet(&strict(&server, &authority), &client(&authority, None)).await.refused();
    assert_eq!(error, Error::NoCertificatesPresented);
    assert!(alert.contains("CertificateRequired"), "{alert}");

    let lenient = ServerTlsOptions { fail_if_no_peer_cert: false, ..strict(&server, &authority) };
    assert_eq!(meet(&lenient, &client(&authority, None)).await.let_in(), None);
    let peer = authority.issue("cluster-b");
    assert!(meet(&lenient, &client(&authority, Some(&peer))).await.let_in().is_some());

    assert_eq!(meet(&open(&server), &client(&authority, Some(&peer))).await.let_in(), None, "not asked for");
}

#[tokio::test]
async fn t2_and_t3_a_certificate_of_another_authority_with_the_same_names() {
    let (authority, other) = (Authority::new("ca"), Authority::new("ca"));
    let server = authority.issue("server");
    let copy = other.issue("cluster-b");
    let (error, alert) = meet(&strict(&server, &authority), &client(&authority, Some(&copy))).await.refused();
    let is_signature =
        matches!(invalid(&error), CertificateError::BadSignature | CertificateError::UnknownIssuer);
    assert!(is_signature, "{error}");
    assert!(alert.contains("UnknownCA") || alert.contains("DecryptError"), "{alert}");

    let lenient = ServerTlsOptions { fail_if_no_peer_cert: false, ..strict(&server, &authority) };
    meet(&lenient, &client(&authority, Some(&copy))).await.refused();
}

#[tokio::test]
async fn t4_a_certificate_outside_its_dates() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let expired = authority.issue_with("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let (error, alert) =
        meet(&strict(&server, &authority), &client(&authority, Some(&expired))).await.refused();
    assert!(matches!(invalid(&error), CertificateError::ExpiredContext { .. }), "{error}");
    assert!(alert.contains("CertificateExpired"), "{alert}");

    let early = authority.issue_with("early", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let (error, _) = meet(&strict(&server, &authority), &client(&authority, Some(&early))).await.refused();
    assert!(matches!(invalid(&error), CertificateError::NotValidYetContext { .. }), "{error}");
}

#[tokio::test]
async fn t5_revocation_fails_closed() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let number =
        |serial: u64| move |params: &mut CertificateParams| params.serial_number = Some(serial.into());
    let revoked = authority.issue_with("revoked", number(77));
    let good = authority.issue_with("good", number(78));
    let with =
        |crlfile| ServerTlsOptions { crl: Some(CrlSource::File(crlfile)), ..strict(&server, &authority) };

    let current = with(authority.revoke(77, 4000));
    let (error, alert) = meet(&current, &client(&authority, Some(&revoked))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::Revoked);
    assert!(alert.contains("CertificateRevoked"), "{alert}");
    assert!(meet(&current, &client(&authority, Some(&good))).await.let_in().is_some());

    let stale = with(authority.revoke(77, 2021));
    let (error, _) = meet(&stale, &client(&authority, Some(&good))).await.refused();
    assert!(matches!(invalid(&error), CertificateError::ExpiredRevocationListContext { .. }), "{error}");

    let strangers = Authority::new("another");
    let uncovered = with(strangers.revoke(77, 4000));
    let (error, _) = meet(&uncovered, &client(&authority, Some(&good))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::UnknownRevocationStatus);
}

#[tokio::test]
async fn t6_a_certificate_for_servers_only() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let wrong = authority.issue_with("wrong", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let (error, _) = meet(&strict(&server, &authority), &client(&authority, Some(&wrong))).await.refused();
    assert!(matches!(invalid(&error), CertificateError::InvalidPurposeContext { .. }), "{error}");

    let pinned = pinned(&server, &[&wrong]);
    let (error, _) = meet(&pinned, &client(&authority, Some(&wrong))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::InvalidPurpose);
}

#[tokio::test]
async fn pinned_clients_need_no_authority_but_their_dates() {
    let authority = Authority::new("ca");
    let (server, peer, other) = (authority.issue("server"), authority.issue("b"), authority.issue("c"));
    let facts = meet(&pinned(&server, &[&peer]), &client(&authority, Some(&peer))).await.let_in().unwrap();
    assert_eq!(facts.der_sha256, peer.fingerprint());
    assert!(!facts.chain_verified, "a pin proves no name");

    let (error, _) = meet(&pinned(&server, &[&peer]), &client(&authority, Some(&other))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::UnknownIssuer);
    let (error, _) = meet(&pinned(&server, &[&peer]), &client(&authority, None)).await.refused();
    assert_eq!(error, Error::NoCertificatesPresented);

    let expired = authority.issue_with("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let (error, _) = meet(&pinned(&server, &[&expired]), &client(&authority, Some(&expired))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::Expired);
    let early = authority.issue_with("early", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let (error, _) = meet(&pinned(&server, &[&early]), &client(&authority, Some(&early))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::NotValidYet);
}

#[tokio::test]
async fn a_subject_that_could_forge_a_log_line_is_refused() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let forged = authority.issue_with("forged", |params| {
        params.distinguished_name.push(DnType::CommonName, "b\nlogin of admin");
    });
    let meeting = meet(&strict(&server, &authority), &client(&authority, Some(&forged))).await;
    assert!(matches!(meeting.server, Err(HandshakeError::Certificate(_))), "{:?}", meeting.server);
    assert!(meeting.client.is_err());
}

/// T4: the edges are exact, a minute does not help.
#[tokio::test]
async fn t4_a_clock_that_is_a_minute_off_gets_no_extra_time() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let peer = authority.issue_with("b", |params| {
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2031, 1, 1);
    });
    const FROM: u64 = 1_893_456_000;
    const UNTIL: u64 = 1_924_992_000;
    for options in [strict(&server, &authority), pinned(&server, &[&peer])] {
        let trust = ServerTls::load(&options, clock::now()).unwrap().trust.unwrap();
        let at = |seconds| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            trust.verify_client_cert(&peer.der.clone().into(), &[], now).map(|_| ())
        };
        assert_eq!([at(FROM), at(UNTIL)], [Ok(()), Ok(())]);
        for (outside, early) in [(FROM - 60, true), (FROM - 1, true), (UNTIL + 1, false), (UNTIL + 60, false)]
        {
            let error = at(outside).unwrap_err();
            let is_early = matches!(
                invalid(&error),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
            );
            assert_eq!(is_early, early, "{error}");
            let is_late = matches!(
                invalid(&error),
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            );
            assert_eq!(is_late, !early, "{error}");
        }
    }
}

/// T5: the whole chain is looked at, and a list counts only if its authority signed it.
#[tokio::test]
async fn t5_an_intermediate_is_revoked_or_nobody_says_that_it_is_not() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let middle = root.authority("middle", 7);
    let peer = middle.issue("b");
    let chain = root.bundle("chain.pem", &[peer.certfile.clone(), middle.file()]);
    let own = ClientTlsOptions { certfile: Some(chain), ..client(&root, Some(&peer)) };
    let with = |name: &str, lists: &[PathBuf]| ServerTlsOptions {
        crl: Some(CrlSource::File(root.bundle(name, lists))),
        ..strict(&server, &root)
    };
    let both = with("both.pem", &[root.revoke(8, 4000), middle.revoke(8, 4000)]);
    assert!(meet(&both, &own).await.let_in().is_some());

    let revoked = with("revoked.pem", &[root.revoke(7, 4000), middle.revoke(8, 4000)]);
    let (error, alert) = meet(&revoked, &own).await.refused();
    assert_eq!(invalid(&error), &CertificateError::Revoked);
    assert!(alert.contains("CertificateRevoked"), "{alert}");

    let half = with("half.pem", &[root.revoke(8, 4000)]);
    let (error, _) = meet(&half, &own).await.refused();
    assert_eq!(invalid(&error), &CertificateError::UnknownRevocationStatus, "nothing is said of the leaf");
    let warnings =
        ServerTls::load(&with("middle.pem", &[middle.revoke(8, 4000)]), clock::now()).unwrap().warnings;
    assert!(warnings[0].contains("no list of `CN=root`"), "{warnings:?}");
}

#[tokio::test]
async fn t5_a_list_in_the_name_of_the_authority_that_it_did_not_sign_is_refused() {
    let (authority, forger) = (Authority::new("ca"), Authority::new("ca"));
    let server = authority.issue("server");
    let crl = Some(CrlSource::File(forger.revoke(1, 4000)));
    let error = ServerTls::load(&ServerTlsOptions { crl, ..strict(&server, &authority) }, clock::now());
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("crl.pem: the list of `CN=ca` is not signed by that authority"), "{error}");
}

/// T5: a list that was never fetched is like one that is missing.
#[tokio::test]
async fn t5_nobody_is_let_in_before_the_first_list_was_fetched() {
    let authority = Authority::new("ca");
    let (server, peer) = (authority.issue("server"), authority.issue("b"));
    let url = HttpUrl::parse("http://127.0.0.1:1/ca.crl").unwrap();
    let crl = Some(CrlSource::Urls(vec![url]));
    let options = ServerTlsOptions { crl, ..strict(&server, &authority) };
    let (error, _) = meet(&options, &client(&authority, Some(&peer))).await.refused();
    assert_eq!(invalid(&error), &CertificateError::UnknownRevocationStatus);
}

#[tokio::test]
async fn t6_what_a_certificate_must_be_for_is_the_whole_list() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let key_usages = vec![KeyUsage::ClientAuth, KeyUsage::EmailProtection];
    let options = ServerTlsOptions { key_usages, ..strict(&server, &authority) };
    let issue = |name: &str, usages: &[ExtendedKeyUsagePurpose]| {
        authority.issue_with(name, |params| params.extended_key_usages = usages.to_vec())
    };
    use rcgen::ExtendedKeyUsagePurpose as For;
    let both = issue("both", &[For::ClientAuth, For::EmailProtection]);
    assert!(meet(&options, &client(&authority, Some(&both))).await.let_in().is_some());
    let tables = [("one", vec![For::ClientAuth], "emailProtection"), ("none", vec![], "clientAuth")];
    for (name, usages, lacks) in tables {
        let (error, _) = meet(&options, &client(&authority, Some(&issue(name, &usages)))).await.refused();
        assert!(
            reason(&error).ends_with(&format!("its extended key usage lacks {lacks}")),
            "{}",
            reason(&error)
        );
    }
}

#[tokio::test]
async fn t6_an_authority_is_no_client() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let other =
        authority.issue_with("other", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let (error, _) = meet(&strict(&server, &authority), &client(&authority, Some(&other))).await.refused();
    assert!(error.to_string().contains("CaUsedAsEndEntity"), "{error}");
    let (error, _) = meet(&pinned(&server, &[&other]), &client(&authority, Some(&other))).await.refused();
    assert_eq!(reason(&error), "the certificate is that of an authority");
}

#[tokio::test]
async fn t6_a_chain_is_as_long_as_depth_allows() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let one = root.authority("one", 1);
    let two = one.authority("two", 2);
    let peer = two.issue("b");
    let chain = root.bundle("chain.pem", &[peer.certfile.clone(), two.file(), one.file(), root.file()]);
    let own = ClientTlsOptions { certfile: Some(chain), ..client(&root, Some(&peer)) };
    let deep = |depth| ServerTlsOptions { depth, ..strict(&server, &root) };
    assert!(meet(&deep(2), &own).await.let_in().is_some());
    let (error, alert) = meet(&deep(1), &own).await.refused();
    assert_eq!(reason(&error), "the certificate chain is longer than `depth` allows");
    assert!(alert.contains("CertificateUnknown"), "{alert}");
    // Where the server has the intermediates itself they count as well.
    let cacertfile = Some(root.bundle("all.pem", &[root.file(), one.file(), two.file()]));
    let short = client(&root, Some(&peer));
    let known = |depth| ServerTlsOptions { cacertfile: cacertfile.clone(), ..deep(depth) };
    assert!(meet(&known(2), &short).await.let_in().is_some());
    meet(&known(1), &short).await.refused();
}

#[tokio::test]
async fn a_partial_chain_ends_at_the_last_certificates_of_the_file() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let one = root.authority("one", 1);
    let two = one.authority("two", 2);
    let (of_one, of_two) = (one.issue("of-one"), two.issue("of-two"));
    let file = root.bundle("partial.pem", &[one.file(), two.file()]);
    let with = |partial_chain| ServerTlsOptions {
        cacertfile: Some(file.clone()),
        partial_chain,
        depth: 0,
        ..strict(&server, &root)
    };
    let error = ServerTls::load(&with(PartialChain::Off), clock::now()).unwrap_err().to_string();
    assert!(error.contains("partial.pem: no root among its certificates"), "{error}");
    for (partial_chain, let_in) in
        [(PartialChain::LastOne, [false, true]), (PartialChain::LastTwo, [true, true])]
    {
        for (peer, expected) in [&of_one, &of_two].into_iter().zip(let_in) {
            let meeting = meet(&with(partial_chain), &client(&root, Some(peer))).await;
            assert_eq!(meeting.server.is_ok(), expected, "{partial_chain:?} {}", peer.certfile.display());
        }
    }
}

#[tokio::test]
async fn t7_weak_keys_and_signatures_are_refused_even_when_pinned() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let table = [
        ("rsa-3072", true, None),
        ("p-384", true, None),
        ("ed25519", true, None),
        ("rsa-2048", false, None),
        ("rsa-2048", true, Some("RSA needs 3072 bits")),
        ("sha-1", false, Some("weaker than SHA-256")),
    ];
    for (name, is_link, wrong) in table {
        let peer = fixture(name);
        let options = ServerTlsOptions { strict: is_link, ..pinned(&server, &[&peer]) };
        let meeting = meet_with(&options, impostor(&authority, &peer, &peer)).await;
        match wrong {
            None => assert_eq!(meeting.let_in().unwrap().der_sha256, peer.fingerprint(), "{name}"),
            Some(wrong) => {
                let reason = reason(&meeting.refused().0);
                assert!(reason.contains(wrong), "{name}: {reason}");
            }
        }
    }
}

#[tokio::test]
async fn t2_a_refusal_tells_which_certificate_it_was() {
    let authority = Authority::new("ca");
    let (server, peer, other) = (authority.issue("server"), authority.issue("b"), authority.issue("c"));
    let Err(error) = meet(&pinned(&server, &[&peer]), &client(&authority, Some(&other))).await.server else {
        panic!("let in");
    };
    assert!(
        error.to_string().ends_with(&format!("; certificate {}", fingerprint_hex(&other.fingerprint()))),
        "{error}"
    );
}
