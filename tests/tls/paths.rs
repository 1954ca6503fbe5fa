//! Which way a client's certificate leads to an authority, and what is remembered of it: what was verified, and nothing
//! else that was shown (`authn-tls.md` T5, T6, T15).

use crate::make::Authority;
use crate::make::Issued;
use crate::make::client;
use crate::make::fixture;
use crate::make::invalid;
use crate::make::meet;
use crate::make::reason;
use crate::make::strict;
use rcgen::CertificateParams;
use rcgen::date_time_ymd;
use rustls::CertificateError;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use std::path::PathBuf;
use tombolo::auth::certificate::CertificateFacts;
use tombolo::config::settings::CrlSource;
use tombolo::net::clock;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::trust::Distrust;

/// A client that shows its certificate and these.
fn shows(root: &Authority, peer: &Issued, others: &[PathBuf]) -> ClientTlsOptions {
    let mut files = vec![peer.certfile.clone()];
    files.extend_from_slice(others);
    let shown = peer.certfile.with_extension(format!("{}.shown", others.len()));
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    std::fs::write(&shown, text).unwrap();
    ClientTlsOptions { certfile: Some(shown), ..client(root, Some(peer)) }
}

fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

/// Whether a listener with these options would still have this one, today.
fn distrusts(options: &ServerTlsOptions, facts: &CertificateFacts) -> Option<Distrust> {
    let trust = ServerTls::load(options, clock::now()).unwrap().trust.unwrap();
    trust.distrusts(Some(facts), clock::now().unix_seconds())
}

#[tokio::test]
async fn t6_an_invented_certificate_makes_no_chain_shorter() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let one = root.authority("one", 1);
    let two = one.authority("two", 2);
    let peer = two.issue("b");
    // `two`, as if `root` had issued it.
    let forger = Authority::new("root");
    let invented = forger.vouch(&two, "two", |_| {});
    let own = shows(&root, &peer, &[invented, two.file(), one.file()]);
    let deep = |depth| ServerTlsOptions { depth, ..strict(&server, &root) };
    let (error, _) = meet(&deep(1), &own).await.refused();
    assert_eq!(reason(&error), "the certificate chain is longer than `depth` allows");
    assert_eq!(meet(&deep(2), &own).await.let_in().unwrap().chain.len(), 3);
}

#[tokio::test]
async fn t6_of_two_certificates_of_one_authority_the_one_that_leads_there_counts() {
    let (root, old) = (Authority::new("root"), Authority::new("old"));
    let server = root.issue("server");
    let one = root.authority("one", 1);
    let peer = one.issue("b");
    let above = old.authority("above", 3);
    let by_above = above.vouch(&one, "one", |_| {});
    let outdated = root.vouch(&one, "one", expired);
    let shown = [by_above, above.file(), outdated, one.file()];
    let options = ServerTlsOptions { depth: 1, ..strict(&server, &root) };
    let facts = meet(&options, &shows(&root, &peer, &shown)).await.let_in().unwrap();
    assert_eq!(facts.chain.len(), 2);
    assert!(facts.not_after_unix > clock::now().unix_seconds(), "what is not on the way may have expired");
    assert_eq!(distrusts(&options, &facts), None);
    let (error, alert) = meet(&options, &shows(&root, &peer, &shown[..3])).await.refused();
    assert!(alert.contains("CertificateExpired"), "the reason is that of the path: {error}");
}

#[tokio::test]
async fn t15_an_intermediate_that_only_the_listener_has_counts_as_well() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let middle = root.authority("middle", 7);
    let peer = middle.issue("b");
    let with = |name: &str, serial| ServerTlsOptions {
        cacertfile: Some(root.bundle("both.pem", &[root.file(), middle.file()])),
        crl: Some(CrlSource::File(root.bundle(name, &[root.revoke(serial, 4000), middle.revoke(99, 4000)]))),
        ..strict(&server, &root)
    };
    let before = with("before.pem", 8);
    let facts = meet(&before, &client(&root, Some(&peer))).await.let_in().unwrap();
    assert_eq!(distrusts(&before, &facts), None);
    assert_eq!(distrusts(&with("after.pem", 7), &facts), Some(Distrust::Revoked));

    let short = root.vouch(&middle, "middle", |params| params.not_after = date_time_ymd(2090, 1, 1));
    let cacertfile = Some(root.bundle("short.pem", &[root.file(), short]));
    let options = ServerTlsOptions { cacertfile, ..strict(&server, &root) };
    let facts = meet(&options, &client(&root, Some(&peer))).await.let_in().unwrap();
    assert_eq!(facts.not_after_unix, 3_786_912_001, "its date is the first");
}

#[tokio::test]
async fn t15_an_authority_that_is_taken_away_or_gets_another_key_vouches_for_nobody() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    let server = root.issue("server");
    let peer = root.issue("b");
    let both = ServerTlsOptions {
        cacertfile: Some(root.bundle("both.pem", &[root.file(), other.file()])),
        ..strict(&server, &root)
    };
    // What the client shows beside it names an authority that stays.
    let invented = other.vouch(&Authority::new("x"), "x", |_| {});
    let facts = meet(&both, &shows(&root, &peer, &[invented])).await.let_in().unwrap();
    assert_eq!(distrusts(&both, &facts), None);
    let with = |file| ServerTlsOptions { cacertfile: Some(file), ..strict(&server, &root) };
    assert_eq!(distrusts(&with(other.file()), &facts), Some(Distrust::Authority));
    assert_eq!(distrusts(&with(root.file()), &facts), None);
    assert_eq!(
        distrusts(&with(Authority::new("root").file()), &facts),
        Some(Distrust::Authority),
        "a new key"
    );
}

#[tokio::test]
async fn t7_a_root_that_is_shown_may_have_signed_itself_weakly() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let peer = root.issue("b");
    let own = shows(&root, &peer, &[fixture("sha-1").certfile]);
    let facts = meet(&strict(&server, &root), &own).await.let_in().unwrap();
    assert_eq!(facts.chain.len(), 1);
}

#[tokio::test]
async fn t5_of_two_lists_of_one_authority_the_newer_one_counts() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let peer = root.issue_with("b", |params| params.serial_number = Some(77.into()));
    let old = root.bundle("old.pem", &[root.revoke_in(2020, 99, 4000)]);
    let new = root.bundle("new.pem", &[root.revoke_in(2021, 77, 4000)]);
    for (name, order) in [("one.pem", [old.clone(), new.clone()]), ("other.pem", [new, old])] {
        let crl = Some(CrlSource::File(root.bundle(name, &order)));
        let options = ServerTlsOptions { crl, ..strict(&server, &root) };
        let (error, _) = meet(&options, &client(&root, Some(&peer))).await.refused();
        assert_eq!(invalid(&error), &CertificateError::Revoked, "{name}");
    }
}

#[tokio::test]
async fn t5_a_list_of_an_issuer_that_is_not_known_ends_no_connection() {
    let root = Authority::new("root");
    let server = root.issue("server");
    let middle = root.authority("middle", 7);
    let peer = middle.issue_with("b", |params| params.serial_number = Some(77.into()));
    let with = |list| ServerTlsOptions {
        crl: Some(CrlSource::File(root.bundle("lists.pem", &[root.revoke(99, 4000), list]))),
        ..strict(&server, &root)
    };
    let own = shows(&root, &peer, &[middle.file()]);
    let facts = meet(&with(middle.revoke(99, 4000)), &own).await.let_in().unwrap();
    let forger = Authority::new("middle");
    let forged = with(forger.revoke(77, 4000));
    assert_eq!(distrusts(&forged, &facts), None);
    meet(&forged, &own).await.refused();
    // One that was fetched is not even taken.
    let trust = ServerTls::load(&forged, clock::now()).unwrap().trust.unwrap();
    let list = |file: PathBuf| CertificateRevocationListDer::from_pem_file(file).unwrap();
    let error = trust.adopt(vec![list(forger.revoke(77, 4000))], true).unwrap_err();
    assert_eq!(error, "the list of `CN=middle`, which is not in cacertfile");
    assert_eq!(trust.adopt(vec![list(root.revoke(99, 4000))], true), Ok(()));
}

#[tokio::test]
async fn an_authority_that_has_expired_lets_nobody_in() {
    let (authority, expired) = (Authority::new("ours"), Authority::until("ca", 2021));
    let options = ServerTlsOptions {
        cacertfile: Some(authority.bundle("both.pem", &[authority.file(), expired.file()])),
        ..strict(&authority.issue("server"), &authority)
    };
    let own = expired.issue("peer");
    let (error, alert) = meet(&options, &client(&authority, Some(&own))).await.refused();
    assert_eq!(*invalid(&error), CertificateError::Expired);
    assert!(alert.contains("CertificateExpired"), "{alert}");
    meet(&options, &client(&authority, Some(&authority.issue("ours")))).await.let_in();
}
