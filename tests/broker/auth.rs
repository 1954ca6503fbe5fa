//! Who is let in (`authn-tls.md` section 6, A1 to A3 and the listener options).

use std::path::PathBuf;

use tombolo::auth::password::PasswordFile;
use tombolo::auth::password::hash_password;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::transports::Authority;
use crate::transports::tls_client;

/// A password file with these users.
pub(crate) fn passwords(setup: &Setup, users: &[(&str, &str)]) -> PathBuf {
    let mut file = PasswordFile::parse("").unwrap();
    for (user, password) in users {
        file.set(user, hash_password(password.as_bytes(), &[7; 16]).unwrap()).unwrap();
    }
    setup.file("passwd", &file.render())
}

async fn with_passwords(more: &str) -> Running {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret"), ("bob", "other")]);
    setup.authentication(&format!("password_file = \"{{dir}}/passwd\"\n{more}")).start().await
}

async fn answer(
    broker: &Running,
    version: Version,
    user: Option<&str>,
    password: Option<&[u8]>,
) -> (Client, Got) {
    let mut client = broker.open().await;
    let asked = Connect { username: user, password, ..hello(version, "c") };
    let got = client.connect(&asked).await;
    (client, got)
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let broker = with_passwords("").await;
    for version in [Version::V31, Version::V311, Version::V5] {
        let (_, got) = answer(&broker, version, Some("alice"), Some(b"secret")).await;
        assert_eq!(got, Got::ConnAck(false, 0));
        let mut answers = Vec::new();
        for (user, password) in [("alice", b"other".as_slice()), ("nobody", b"secret"), ("alice", b"")] {
            let (mut client, got) = answer(&broker, version, Some(user), Some(password)).await;
            answers.push((got, client.properties.clone()));
            assert_eq!(client.next().await, Got::Closed);
        }
        assert_eq!(answers[0].0, Got::ConnAck(false, 0x87), "A1, A2");
        assert!(answers.iter().all(|other| *other == answers[0]));
    }
    let failures = "tombolo_authentication_failures_total{reason=\"bad_credentials\"}";
    broker.until_metric(failures, 9).await;
    broker.until_metric("tombolo_connections_rejected_total{reason=\"not_authorized\"}", 9).await;
}

#[tokio::test]
async fn passwords_are_bytes_and_odd_ones_are_only_wrong() {
    let broker = with_passwords("").await;
    let long = vec![b'x'; 65_535];
    let odd: [(Option<&str>, Option<&[u8]>); 5] = [
        (Some("alice"), Some(&long)),
        (Some("alice"), Some(b"sec\0ret")),
        (Some("alice"), None),
        (Some(""), Some(b"")),
        (None, Some(b"secret")),
    ];
    for (user, password) in odd {
        let (_, got) = answer(&broker, Version::V5, user, password).await;
        assert_eq!(got, Got::ConnAck(false, 0x87), "A3: {user:?}");
    }
    let (mut client, got) = answer(&broker, Version::V5, Some("bob"), Some(b"other")).await;
    assert_eq!(got, Got::ConnAck(false, 0));
    client.quiet().await;
}

#[tokio::test]
async fn anonymous_clients_only_where_they_are_allowed() {
    let closed = Setup::new().authentication("allow_anonymous = false").start().await;
    let (_, got) = answer(&closed, Version::V5, None, None).await;
    assert_eq!(got, Got::ConnAck(false, 0x87));
    closed.until_metric("tombolo_authentication_failures_total{reason=\"anonymous\"}", 1).await;
    let open = with_passwords("allow_anonymous = true").await;
    let (_, got) = answer(&open, Version::V5, None, None).await;
    assert_eq!(got, Got::ConnAck(false, 0));
    let (_, got) = answer(&open, Version::V5, Some("alice"), Some(b"wrong")).await;
    assert_eq!(got, Got::ConnAck(false, 0x87), "credentials that are given must be right");
}

#[tokio::test]
async fn a_refused_client_takes_nothing_over() {
    let broker = with_passwords("").await;
    let (mut alice, _) = answer(&broker, Version::V5, Some("alice"), Some(b"secret")).await;
    let (_, got) = answer(&broker, Version::V5, Some("alice"), Some(b"wrong")).await;
    assert_eq!(got, Got::ConnAck(false, 0x87));
    alice.quiet().await;
}

#[tokio::test]
async fn a_listener_may_do_without() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret")]);
    let broker = setup
        .authentication("password_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
             [listeners.authn]\nenable = false",
        )
        .start()
        .await;
    broker.join(Version::V311, "c").await.quiet().await;
}

#[tokio::test]
async fn the_certificate_names_the_user() {
    let authority = Authority::new();
    let (server, alice) = (authority.issue("localhost"), authority.issue("alice"));
    let broker = Setup::new()
        .listeners(&format!(
            "[[listeners]]\nname = \"tls\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{}\
             verify = \"verify_peer\"\nfail_if_no_peer_cert = true\npeer_cert_as_username = \"cn\"",
            authority.server_keys(&server)
        ))
        .authentication("allow_anonymous = false")
        .acl("{allow, {username, \"alice\"}, all, [\"of/${username}/#\"]}.")
        .start()
        .await;
    let address = broker.address("ssl:tls");
    let mut client = tls_client(address, &authority, Some(&alice)).await.unwrap();
    assert_eq!(client.connect(&hello(Version::V5, "c")).await, Got::ConnAck(false, 0));
    assert_eq!(client.subscribe("of/alice/#", Q1).await, 1);
    assert_eq!(client.subscribe("of/bob/#", Q1).await, 0x87);
    // Another User Name than the certificate's is refused.
    let mut client = tls_client(address, &authority, Some(&alice)).await.unwrap();
    let asked = Connect { username: Some("bob"), ..hello(Version::V5, "d") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0x87));
    broker.until_metric("tombolo_authentication_failures_total{reason=\"username_mismatch\"}", 1).await;

    // Without a certificate, or with one of another authority, not a byte of MQTT is answered (T1, T2).
    let stranger = Authority::new();
    let copy = stranger.issue("alice");
    for own in [None, Some(&copy)] {
        let refused = match tls_client(address, &authority, own).await {
            Err(_) => Got::Closed,
            Ok(mut client) => {
                // With TLS 1.3 a client hears of the refusal after its own handshake is done.
                let bytes = client
                    .encoded(&tombolo::mqtt::packet::Packet::Connect(Box::new(hello(Version::V5, "e"))));
                let _ = tokio::io::AsyncWriteExt::write_all(&mut client.io, &bytes).await;
                client.next().await
            }
        };
        assert_eq!(refused, Got::Closed);
    }
    broker.until_metric("tombolo_connections_rejected_total{reason=\"tls_handshake\"}", 2).await;
}
