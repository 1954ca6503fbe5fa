//! TLS over real sockets: who is let in, who is not and why (authn-tls.md section 6, T1 to T16), and what a wrong file
//! is told. Certificates are made for each test.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rcgen::SerialNumber;
use rcgen::date_time_ymd;
use rustls::CertificateError;
use rustls::Error;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use sha2::Digest;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tombolo::auth::certificate::CertificateFacts;
use tombolo::net::clock;
use tombolo::net::dial::DialError;
use tombolo::net::dial::dial;
use tombolo::net::handshake::HandshakeError;
use tombolo::net::handshake::accept_tls;
use tombolo::net::handshake::accept_websocket_tls;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;

const LIMIT: Duration = Duration::from_secs(30);

/// An authority, and a folder for what it issues.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in files and in memory.
#[derive(Clone)]
struct Issued {
    certfile: PathBuf,
    keyfile: PathBuf,
    der: Vec<u8>,
    key_der: Vec<u8>,
}

impl Issued {
    fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (certfile, keyfile) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        fs::write(&certfile, certificate.pem()).unwrap();
        fs::write(&keyfile, key.serialize_pem()).unwrap();
        Issued { certfile, keyfile, der: certificate.der().to_vec(), key_der: key.serialize_der() }
    }

    fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    /// A revocation list naming `serial`, current until `next_update`'s year.
    fn revoke(&self, serial: u64, next_year: i32) -> PathBuf {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path("crl.pem");
        fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }
}

/// The strict column of authn-tls.md section 1, but both versions.
fn strict(server: &Issued, authority: &Authority) -> ServerTlsOptions {
    ServerTlsOptions {
        certfile: server.certfile.clone(),
        keyfile: server.keyfile.clone(),
        cacertfile: Some(authority.file()),
        crlfile: None,
        verify: Verify::Peer,
        fail_if_no_peer_cert: true,
        client_pins: Vec::new(),
        depth: 2,
        strict: false,
        versions: vec![TlsVersion::V13, TlsVersion::V12],
    }
}

fn client(authority: &Authority, own: Option<&Issued>) -> ClientTlsOptions {
    ClientTlsOptions {
        cacertfile: Some(authority.file()),
        certfile: own.map(|own| own.certfile.clone()),
        keyfile: own.map(|own| own.keyfile.clone()),
        verify: Verify::Peer,
        server_name: Some("localhost".to_owned()),
        versions: vec![TlsVersion::V13, TlsVersion::V12],
    }
}

/// What each side makes of one connection. The client also reads: with TLS 1.3 it hears of a refusal only then.
struct Meeting {
    server: Result<Option<CertificateFacts>, HandshakeError>,
    client: Result<Vec<u8>, String>,
}

async fn meet(server: &ServerTlsOptions, client: &ClientTlsOptions) -> Meeting {
    meet_with(server, ClientTls::load(client, clock::now()).unwrap()).await
}

async fn meet_with(server: &ServerTlsOptions, client: ClientTls) -> Meeting {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = ServerTls::load(server, clock::now()).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut handshaken = accept_tls(stream, &tls, LIMIT).await?;
        handshaken.transport.write_all(b"welcome").await.unwrap();
        handshaken.transport.shutdown().await.unwrap();
        Ok(handshaken.certificate)
    });
    let client = async {
        let mut transport =
            dial("127.0.0.1", port, Some(&client), LIMIT).await.map_err(|error| error.to_string())?;
        assert!(transport.is_encrypted());
        let mut bytes = Vec::new();
        transport.read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
        Ok(bytes)
    }
    .await;
    Meeting { server: serving.await.unwrap(), client }
}

impl Meeting {
    fn let_in(self) -> Option<CertificateFacts> {
        assert_eq!(self.client.as_deref(), Ok(b"welcome".as_slice()));
        self.server.expect("let in")
    }

    /// The server's TLS error, and the alert as the client words it.
    fn refused(self) -> (Error, String) {
        let error = match self.server {
            Err(HandshakeError::Tls(error)) => error,
            other => panic!("expected a TLS error, got {other:?}"),
        };
        (error, self.client.expect_err("no byte for a client that is refused"))
    }
}

fn invalid(error: &Error) -> &CertificateError {
    match error {
        Error::InvalidCertificate(error) => error,
        other => panic!("not about the certificate: {other}"),
    }
}

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

    let anyone = ServerTlsOptions { verify: Verify::None, fail_if_no_peer_cert: false, ..lenient };
    assert_eq!(meet(&anyone, &client(&authority, Some(&peer))).await.let_in(), None, "not asked for");
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
    let with = |crlfile| ServerTlsOptions { crlfile: Some(crlfile), ..strict(&server, &authority) };

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
async fn t8_tls_1_2_against_1_3_only_and_the_other_way() {
    let authority = Authority::new("ca");
    let (server, peer) = (authority.issue("server"), authority.issue("cluster-b"));
    for (ours, theirs) in [(TlsVersion::V13, TlsVersion::V12), (TlsVersion::V12, TlsVersion::V13)] {
        let only = ServerTlsOptions { versions: vec![ours], ..strict(&server, &authority) };
        let other = ClientTlsOptions { versions: vec![theirs], ..client(&authority, Some(&peer)) };
        let (error, alert) = meet(&only, &other).await.refused();
        assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
        assert!(alert.contains("ProtocolVersion"), "{alert}");
    }
}

#[tokio::test]
async fn t11_and_t12_what_is_not_tls() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let tls = ServerTls::load(&strict(&server, &authority), clock::now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async |address: SocketAddr, bytes: &[u8], limit| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (accept_tls(stream, &tls, limit).await.expect_err("no TLS"), client)
    };
    for bytes in [b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00".as_slice(), b"GET / HTTP/1.1\r\n\r\n"] {
        let (error, _client) = accept(address, bytes, LIMIT).await;
        assert!(matches!(error, HandshakeError::Tls(Error::InvalidMessage(_))), "{error}");
    }
    let (error, _client) = accept(address, b"\x16", Duration::from_millis(5)).await;
    assert!(matches!(error, HandshakeError::Timeout), "{error}");
    let (error, _client) = {
        let client = TcpStream::connect(address).await.unwrap();
        drop(client);
        let (stream, _) = listener.accept().await.unwrap();
        (accept_tls(stream, &tls, LIMIT).await.expect_err("gone"), ())
    };
    assert!(matches!(error, HandshakeError::Io(_)), "{error}");
}

/// Presents one certificate and signs with the key of another.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn impostor(authority: &Authority, certificate: &Issued, key: &Issued) -> ClientTls {
    let key = PrivateKeyDer::try_from(key.key_der.clone()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let certified = CertifiedKey::new(vec![certificate.der.clone().into()], key);
    let mut tls = ClientTls::load(&client(authority, None), clock::now()).unwrap();
    let mut config = (*tls.config).clone();
    config.client_auth_cert_resolver = Arc::new(Impostor(Arc::new(certified)));
    tls.config = Arc::new(config);
    tls
}

fn pinned(server: &Issued, peers: &[&Issued]) -> ServerTlsOptions {
    ServerTlsOptions {
        certfile: server.certfile.clone(),
        keyfile: server.keyfile.clone(),
        cacertfile: None,
        crlfile: None,
        verify: Verify::Peer,
        fail_if_no_peer_cert: true,
        client_pins: peers.iter().map(|peer| peer.fingerprint()).collect(),
        depth: 2,
        strict: false,
        versions: vec![TlsVersion::V13, TlsVersion::V12],
    }
}

#[tokio::test]
async fn t13_a_public_certificate_without_its_key() {
    let authority = Authority::new("ca");
    let (server, peer, other) = (authority.issue("server"), authority.issue("b"), authority.issue("c"));
    for options in [strict(&server, &authority), pinned(&server, &[&peer])] {
        let (error, alert) = meet_with(&options, impostor(&authority, &peer, &other)).await.refused();
        assert_eq!(invalid(&error), &CertificateError::BadSignature);
        assert!(alert.contains("DecryptError"), "{alert}");
        // The same way of presenting it, with the right key.
        assert!(meet_with(&options, impostor(&authority, &peer, &peer)).await.let_in().is_some());
    }
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

#[tokio::test]
async fn t16_our_link_meets_a_wrong_server() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let dates = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let good = authority.issue("good");
    let open = |server: &Issued| ServerTlsOptions {
        verify: Verify::None,
        fail_if_no_peer_cert: false,
        ..strict(server, &authority)
    };
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

#[tokio::test]
async fn a_resumed_session_would_skip_the_certificate_check_so_there_is_none() {
    let authority = Authority::new("ca");
    let (server, peer) = (authority.issue("server"), authority.issue("b"));
    let kinds = async |options: &ServerTlsOptions| {
        // A client that would like to resume, other than ours.
        let mut tls = ClientTls::load(&client(&authority, Some(&peer)), clock::now()).unwrap();
        let mut config = (*tls.config).clone();
        config.resumption = rustls::client::Resumption::in_memory_sessions(8);
        tls.config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = ServerTls::load(options, clock::now()).unwrap();
        let serving = tokio::spawn(async move {
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut handshaken = accept_tls(stream, &server, LIMIT).await.unwrap();
                handshaken.transport.write_all(b"welcome").await.unwrap();
                handshaken.transport.shutdown().await.unwrap();
            }
        });
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut transport = dial("127.0.0.1", port, Some(&tls), LIMIT).await.unwrap();
            transport.read_to_end(&mut Vec::new()).await.unwrap();
            let tombolo::net::transport::Transport::TlsClient(stream) = &transport else { panic!("dialled") };
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        }
        serving.await.unwrap();
        kinds
    };
    use rustls::HandshakeKind::Full;
    use rustls::HandshakeKind::Resumed;
    for version in [TlsVersion::V13, TlsVersion::V12] {
        let asking = ServerTlsOptions { versions: vec![version], ..strict(&server, &authority) };
        assert_eq!(kinds(&asking).await, [Full, Full]);
        let open = ServerTlsOptions { verify: Verify::None, fail_if_no_peer_cert: false, ..asking };
        assert_eq!(kinds(&open).await, [Full, Resumed]);
    }
}

#[tokio::test]
async fn websocket_over_tls() {
    let authority = Authority::new("ca");
    let (server, peer) = (authority.issue("server"), authority.issue("b"));
    let tls = ServerTls::load(&strict(&server, &authority), clock::now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut handshaken = accept_websocket_tls(stream, &tls, 1024, LIMIT).await.unwrap();
        let mut packet = [0; 2];
        handshaken.transport.read_exact(&mut packet).await.unwrap();
        handshaken.transport.write_all(&packet).await.unwrap();
        handshaken.transport.flush().await.unwrap();
        handshaken.certificate.unwrap().der_sha256
    });
    let options = ClientTls::load(&client(&authority, Some(&peer)), clock::now()).unwrap();
    let mut client = dial("127.0.0.1", port, Some(&options), LIMIT).await.unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    client.write_all(b"\x82\x82\x00\x00\x00\x00\xc0\x00").await.unwrap();
    client.flush().await.unwrap();
    let mut frame = [0; 4];
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x82\x02\xc0\x00");
    assert_eq!(serving.await.unwrap(), peer.fingerprint());
}

fn load_error(options: &ServerTlsOptions) -> String {
    ServerTls::load(options, clock::now()).expect_err("refused").to_string()
}

#[test]
fn a_wrong_file_is_named_with_the_reason() {
    let authority = Authority::new("ca");
    let (server, other) = (authority.issue("server"), authority.issue("other"));
    let good = strict(&server, &authority);
    let write = |name: &str, text: &str| {
        fs::write(authority.path(name), text).unwrap();
        authority.path(name)
    };
    let empty = write("empty.pem", "nothing\n");
    let cut = write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let junk = write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let absent = authority.path("absent.pem");
    let table = [
        (
            ServerTlsOptions { certfile: absent.clone(), ..good.clone() },
            "certfile",
            "absent.pem: No such file",
        ),
        (ServerTlsOptions { keyfile: absent.clone(), ..good.clone() }, "keyfile", "absent.pem: No such file"),
        (ServerTlsOptions { cacertfile: Some(absent.clone()), ..good.clone() }, "cacertfile", "No such file"),
        (ServerTlsOptions { crlfile: Some(absent), ..good.clone() }, "crlfile", "absent.pem: No such file"),
        (ServerTlsOptions { certfile: empty.clone(), ..good.clone() }, "certfile", "contains no certificate"),
        (ServerTlsOptions { keyfile: empty.clone(), ..good.clone() }, "keyfile", "contains no private key"),
        (
            ServerTlsOptions { cacertfile: Some(empty.clone()), ..good.clone() },
            "cacertfile",
            "no certificate",
        ),
        (
            ServerTlsOptions { crlfile: Some(empty), ..good.clone() },
            "crlfile",
            "no certificate revocation list",
        ),
        (ServerTlsOptions { certfile: cut, ..good.clone() }, "certfile", "cut.pem: not PEM"),
        (
            ServerTlsOptions { certfile: junk.clone(), ..good.clone() },
            "certfile",
            "junk.pem: unusable certificate",
        ),
        (ServerTlsOptions { cacertfile: Some(junk), ..good.clone() }, "cacertfile", "not a trust anchor"),
        (ServerTlsOptions { keyfile: locked, ..good.clone() }, "keyfile", "the private key is encrypted"),
        (
            ServerTlsOptions { keyfile: other.keyfile, ..good.clone() },
            "keyfile",
            "does not fit the certificate in",
        ),
        (ServerTlsOptions { certfile: authority.path(""), ..good }, "certfile", "directory"),
    ];
    for (options, option, reason) in table {
        let error = load_error(&options);
        assert!(error.starts_with(&format!("{option} /")) && error.contains(reason), "{option}: {error}");
    }
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let good = strict(&server, &authority);
    let crl = authority.revoke(1, 4000);
    let table = [
        (ServerTlsOptions { verify: Verify::None, ..good.clone() }, "fail_if_no_peer_cert = true needs"),
        (ServerTlsOptions { cacertfile: None, ..good.clone() }, "needs cacertfile"),
        (
            ServerTlsOptions { cacertfile: None, crlfile: Some(crl), ..good.clone() },
            "crlfile needs cacertfile",
        ),
        (ServerTlsOptions { versions: Vec::new(), ..good }, "versions: give at least one"),
    ];
    for (options, reason) in table {
        let error = load_error(&options);
        assert!(error.contains(reason), "{error}");
    }
    let table = [
        (ClientTlsOptions { cacertfile: None, ..client(&authority, None) }, "needs cacertfile"),
        (ClientTlsOptions { keyfile: None, ..client(&authority, Some(&server)) }, "certfile needs keyfile"),
        (ClientTlsOptions { certfile: None, ..client(&authority, Some(&server)) }, "keyfile needs certfile"),
    ];
    for (options, reason) in table {
        let error = ClientTls::load(&options, clock::now()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn an_expired_or_expiring_certificate_is_a_warning() {
    let authority = Authority::new("ca");
    let server = authority.issue_with("server", |params| {
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2031, 1, 1);
    });
    let options = strict(&server, &authority);
    let at = |unix_seconds: u64| {
        let now = tombolo::time::Now { mono_ms: 0, unix_ms: unix_seconds * 1000 };
        ServerTls::load(&options, now).unwrap().warnings
    };
    const YEAR_2031: u64 = 1_924_992_000;
    assert_eq!(at(YEAR_2031 - 15 * 86_400), [""; 0]);
    let soon = at(YEAR_2031 - 86_400 - 1);
    assert!(
        soon.len() == 1
            && soon[0].ends_with("server.pem: the certificate of `CN=server` expires within 2 days"),
        "{soon:?}"
    );
    let late = at(YEAR_2031 + 3 * 86_400);
    assert!(late.len() == 1 && late[0].ends_with("has expired 3 days ago"), "{late:?}");

    let unverified = ClientTlsOptions { verify: Verify::None, ..client(&authority, None) };
    let warnings = ClientTls::load(&unverified, clock::now()).unwrap().warnings;
    assert!(warnings[0].contains("verify_none"), "{warnings:?}");
}

/// The link column of authn-tls.md section 1: T6 and T7.
#[test]
fn a_links_certificate_is_for_clients_and_strong() {
    use tombolo::auth::certificate::CertificateError;
    use tombolo::auth::certificate::check_link_certificate;

    let authority = Authority::new("authority");
    assert_eq!(check_link_certificate(&authority.issue("good").der), Ok(()));
    let server_only = authority.issue_with("server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(check_link_certificate(&server_only.der), Err(CertificateError::NotForClients));
    let unsaid = authority.issue_with("unsaid", |params| params.extended_key_usages.clear());
    assert_eq!(check_link_certificate(&unsaid.der), Err(CertificateError::NotForClients));
    assert_eq!(check_link_certificate(b"no certificate"), Err(CertificateError::Unreadable));
}
