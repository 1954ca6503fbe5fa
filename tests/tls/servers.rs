//! Which servers a link takes.

use crate::make::Authority;
use crate::make::LIMIT;
use crate::make::client;
use crate::make::fixture;
use crate::make::meet;
use crate::make::open;
use rcgen::CertificateParams;
use rcgen::date_time_ymd;
use std::time::Duration;
use tokio::net::TcpListener;
use tombolo::config::settings::HttpUrl;
use tombolo::net::clock;
use tombolo::net::dial::DialError;
use tombolo::net::dial::dial;
use tombolo::net::http_client::HttpError;
use tombolo::net::http_client::fetch;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::Verify;

#[tokio::test]
async fn t16_our_link_meets_a_wrong_server() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let dates = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let good = authority.issue("good");
    let named =
        |name: &str| ClientTlsOptions { server_name: Some(name.to_owned()), ..client(&authority, None) };
    let table = [
        ("another authority", other.issue("server"), named("localhost")),
        ("another name", good.clone(), named("elsewhere.example")),
        ("the address that was dialled", good.clone(), ClientTlsOptions { server_name: None, ..named("x") }),
        ("expired", authority.issue_with("expired", dates), named("localhost")),
    ];
    for (what, server, options) in &table {
        let meeting = meet(&open(server), options).await;
        assert!(
            meeting.client.as_ref().is_err_and(|error| error.starts_with("TLS: ")),
            "{what}: {:?}",
            meeting.client
        );
        assert!(meeting.server.is_err(), "{what}");
        let unverified = ClientTlsOptions { verify: Verify::None, ..options.clone() };
        meet(&open(server), &unverified).await.let_in();
    }
    meet(&open(&good), &named("localhost")).await.let_in();
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let authority = Authority::new("ca");
    let nameless = ClientTlsOptions { server_name: Some("not a name".into()), ..client(&authority, None) };
    let tls = ClientTls::load(&nameless, clock::now()).unwrap();
    let error = dial("127.0.0.1", port, Some(&tls), LIMIT).await.unwrap_err();
    assert!(matches!(error, DialError::ServerName(_)), "{error}");
    assert_eq!(error.reason().name(), "tls");

    let silent = ClientTls::load(&client(&authority, None), clock::now()).unwrap();
    let error = dial("127.0.0.1", port, Some(&silent), Duration::from_millis(5)).await.unwrap_err();
    assert_eq!(error.reason().name(), "timeout");

    drop(listener);
    let error = dial("127.0.0.1", port, None, LIMIT).await.unwrap_err();
    assert_eq!(error.reason().name(), "refused");
}

/// T16: a pinned server needs no authority, and nothing else will do.
#[tokio::test]
async fn t16_our_link_meets_a_server_whose_pin_changed() {
    let authority = Authority::new("ca");
    let (server, renewed) = (authority.issue("server"), authority.issue("renewed"));
    let pinned = ClientTlsOptions {
        cacertfile: None,
        server_pins: vec![server.fingerprint()],
        server_name: Some("any.example".into()),
        ..client(&authority, None)
    };
    meet(&open(&server), &pinned).await.let_in();
    let meeting = meet(&open(&renewed), &pinned).await;
    assert!(
        meeting.client.as_ref().is_err_and(|error| error.contains("pin mismatch")),
        "{:?}",
        meeting.client
    );
    assert!(meeting.server.is_err());
    let both = ClientTlsOptions { server_pins: vec![server.fingerprint()], ..client(&authority, None) };
    meet(&open(&server), &both).await.let_in();
    assert!(meet(&open(&renewed), &both).await.client.is_err(), "a chain alone does not do");
    let expired = authority.issue_with("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let pinned = ClientTlsOptions { server_pins: vec![expired.fingerprint()], ..pinned };
    let meeting = meet(&open(&expired), &pinned).await;
    assert!(meeting.client.is_err_and(|error| error.contains("Expired")));
}

/// T7, the other way.
#[tokio::test]
async fn t7_our_link_meets_a_server_with_a_weak_key() {
    let authority = Authority::new("ca");
    let server = fixture("rsa-2048");
    let pinned = |strict| ClientTlsOptions {
        cacertfile: None,
        server_pins: vec![server.fingerprint()],
        strict,
        ..client(&authority, None)
    };
    meet(&open(&server), &pinned(false)).await.let_in();
    let meeting = meet(&open(&server), &pinned(true)).await;
    let error = meeting.client.unwrap_err();
    assert!(error.contains("RSA needs 3072 bits"), "{error}");
}

#[tokio::test]
async fn nothing_is_fetched_by_https_without_authorities() {
    let url = HttpUrl::parse("https://127.0.0.1:1/ca.crl").unwrap();
    let error = fetch(&url, None, None, 1024, LIMIT).await.unwrap_err();
    assert!(matches!(error, HttpError::Unverifiable), "{error}");
}
