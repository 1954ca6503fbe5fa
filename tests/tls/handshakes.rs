//! What passes for a handshake.

use crate::make::Authority;
use crate::make::LIMIT;
use crate::make::client;
use crate::make::impostor;
use crate::make::invalid;
use crate::make::meet;
use crate::make::meet_with;
use crate::make::open;
use crate::make::pinned;
use crate::make::strict;
use rustls::CertificateError;
use rustls::Error;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tombolo::config::settings::CipherSuite;
use tombolo::net::clock;
use tombolo::net::dial::dial;
use tombolo::net::handshake::HandshakeError;
use tombolo::net::handshake::accept_tls;
use tombolo::net::handshake::accept_websocket_tls;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::transport::Transport;

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

/// A client that would like to resume, other than ours.
fn resuming_client(options: &ClientTlsOptions) -> ClientTls {
    let mut tls = ClientTls::load(options, clock::now()).unwrap();
    let mut config = (*tls.config).clone();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    tls.config = Arc::new(config);
    tls
}

async fn kind_of_handshake(server: &ServerTls, client: &ClientTls) -> rustls::HandshakeKind {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut handshaken = accept_tls(stream, server, LIMIT).await.unwrap();
        handshaken.transport.write_all(b"welcome").await.unwrap();
        handshaken.transport.shutdown().await.unwrap();
    };
    let dialling = async {
        let mut transport = dial("127.0.0.1", port, Some(client), LIMIT).await.unwrap();
        transport.read_to_end(&mut Vec::new()).await.unwrap();
        let Transport::TlsClient(stream) = &transport else { panic!("dialled") };
        stream.get_ref().1.handshake_kind().unwrap()
    };
    tokio::join!(serving, dialling).1
}

#[tokio::test]
async fn a_resumed_session_would_skip_the_certificate_check_so_there_is_none() {
    let authority = Authority::new("ca");
    let (server, peer) = (authority.issue("server"), authority.issue("b"));
    let kinds = async |options: &ServerTlsOptions| {
        let tls = resuming_client(&client(&authority, Some(&peer)));
        let server = ServerTls::load(options, clock::now()).unwrap();
        [kind_of_handshake(&server, &tls).await, kind_of_handshake(&server, &tls).await]
    };
    use rustls::HandshakeKind::Full;
    use rustls::HandshakeKind::Resumed;
    for version in [TlsVersion::V13, TlsVersion::V12] {
        let asking = ServerTlsOptions { versions: vec![version], ..strict(&server, &authority) };
        assert_eq!(kinds(&asking).await, [Full, Full]);
        let asked = ServerTlsOptions { versions: vec![version], ..open(&server) };
        assert_eq!(kinds(&asked).await, [Full, Full], "neither is on");
        let both = ServerTlsOptions { reuse_sessions: true, session_tickets: true, ..asked.clone() };
        assert_eq!(kinds(&both).await, [Full, Resumed]);
        let by_identifier = ServerTlsOptions { reuse_sessions: true, ..asked };
        let expected = if version == TlsVersion::V12 { Resumed } else { Full };
        assert_eq!(kinds(&by_identifier).await, [Full, expected]);
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

/// The suite that a server and a client with these suites agree on.
async fn agreed(authority: &Authority, options: &ServerTlsOptions, suites: &[CipherSuite]) -> Option<String> {
    let name = |suite: rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13", "TLS");
    let all = rustls::crypto::ring::default_provider();
    let named = |name_: &str| all.cipher_suites.iter().copied().find(|suite| name(*suite) == name_).unwrap();
    let cipher_suites = suites.iter().map(|suite| named(suite.name())).collect();
    let provider = rustls::crypto::CryptoProvider { cipher_suites, ..all.clone() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = ServerTls::load(options, clock::now()).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        accept_tls(stream, &tls, LIMIT).await.is_ok()
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting =
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await;
    let suite = connecting.ok().map(|stream| name(stream.get_ref().1.negotiated_cipher_suite().unwrap()));
    assert_eq!(serving.await.unwrap(), suite.is_some());
    suite
}

#[tokio::test]
async fn the_suites_that_are_listed_are_the_ones_that_are_offered() {
    use CipherSuite::Aes128;
    use CipherSuite::Aes256;
    use CipherSuite::EcdsaAes128;
    use CipherSuite::EcdsaChaCha20;
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let options = ServerTlsOptions { ciphers: vec![Aes128, EcdsaChaCha20], ..open(&server) };
    let agree = async |suites: &[CipherSuite]| agreed(&authority, &options, suites).await;
    assert_eq!(agree(CipherSuite::ALL).await.as_deref(), Some("TLS_AES_128_GCM_SHA256"));
    assert_eq!(agree(&[EcdsaAes128, EcdsaChaCha20]).await.as_deref(), Some(EcdsaChaCha20.name()));
    assert_eq!(agree(&[Aes256]).await, None);
    assert_eq!(agree(&[EcdsaAes128]).await, None);
}

#[tokio::test]
async fn the_order_of_suites_is_ours_unless_it_is_left_to_the_client() {
    use CipherSuite::Aes128;
    use CipherSuite::Aes256;
    use CipherSuite::EcdsaAes128;
    use CipherSuite::EcdsaAes256;
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    for (ours, theirs) in [(Aes128, Aes256), (EcdsaAes128, EcdsaAes256)] {
        for (honor_cipher_order, expected) in [(true, ours), (false, theirs)] {
            let options =
                ServerTlsOptions { ciphers: vec![ours, theirs], honor_cipher_order, ..open(&server) };
            let suite = agreed(&authority, &options, &[theirs, ours]).await;
            assert_eq!(suite.as_deref(), Some(expected.name()), "honor_cipher_order = {honor_cipher_order}");
        }
    }
}

/// T8: a ClientHello of SSL 3.0, TLS 1.0 or 1.1, as old clients write it, gets an alert and nothing else. The library misses
/// the extensions of TLS 1.2 before it looks at the version, so that it is handshake_failure (40) and not
/// protocol_version (70).
#[tokio::test]
async fn t8_older_protocols_are_answered_with_an_alert_only() {
    let authority = Authority::new("ca");
    let tls = ServerTls::load(&open(&authority.issue("server")), clock::now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for minor in [0, 1, 2] {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]); // random
        hello.push(0); // session identifier
        hello.extend([0, 4, 0xc0, 0x13, 0x00, 0x2f]); // suites
        hello.extend([1, 0]); // compression
        let length = u8::try_from(hello.len()).unwrap();
        let mut record = vec![0x16, 3, minor, 0, length + 4, 1, 0, 0, length];
        record.extend(&hello);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&record).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let error = accept_tls(accepted, &tls, LIMIT).await.expect_err("too old");
        assert!(matches!(error, HandshakeError::Tls(Error::PeerIncompatible(_))), "3.{minor}: {error}");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!((answer.len(), answer[0], &answer[5..]), (7, 0x15, [2, 40].as_slice()), "3.{minor}");
    }
}

/// As a proxy that dispatches by name would: who asks for another server is refused before anything else, and who names none.
#[tokio::test]
async fn who_asks_for_another_server_is_refused() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let named = |name: &str| ServerTlsOptions { server_names: vec![name.to_owned()], ..open(&server) };
    let asking = client(&authority, None);
    meet(&named("LOCALHOST"), &asking).await.client.unwrap();
    let (error, alert) = meet(&named("other.example.net"), &asking).await.refused();
    assert!(matches!(error, Error::General(_)), "{error}");
    assert!(alert.contains("AccessDenied"), "{alert}");
    let by_address = ClientTlsOptions { server_name: Some("127.0.0.1".to_owned()), ..asking };
    let (_, alert) = meet(&named("localhost"), &by_address).await.refused();
    assert!(alert.contains("AccessDenied"), "{alert}");
}

/// Whoever has a ticket of before a reload shakes hands anew: the keys of tickets are of one [`ServerTls`].
#[tokio::test]
async fn a_reload_ends_the_tickets() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    for version in [TlsVersion::V13, TlsVersion::V12] {
        let versions = vec![version];
        let options =
            ServerTlsOptions { reuse_sessions: true, session_tickets: true, versions, ..open(&server) };
        let load = || ServerTls::load(&options, clock::now()).unwrap();
        let (before, after) = (load(), load());
        let tls = resuming_client(&client(&authority, None));
        let mut kinds = Vec::new();
        for server in [&before, &before, &after] {
            kinds.push(kind_of_handshake(server, &tls).await);
        }
        use rustls::HandshakeKind::Full;
        use rustls::HandshakeKind::Resumed;
        assert_eq!(kinds, [Full, Resumed, Full], "{version:?}");
    }
}
