//! The same MQTT over TLS, WebSocket and both.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;

use futures_core::Stream;
use futures_sink::Sink;
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
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use tombolo::auth::certificate::CertificateFacts;
use tombolo::auth::certificate::fingerprint_hex;
use tombolo::mqtt::encode;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;
use tombolo::net::dial::DialError;
use tombolo::net::dial::dial;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Io;
use crate::harness::LIMIT;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;
use crate::harness::message;

/// An authority, and a folder for what it issues.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) certfile: PathBuf,
    pub(crate) keyfile: PathBuf,
}

impl Issued {
    /// For a library.
    pub(crate) fn read(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(&self.certfile).unwrap();
        (vec![certificate], PrivateKeyDer::from_pem_file(&self.keyfile).unwrap())
    }

    /// SHA-256 of the certificate, as hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_file(&self.certfile).unwrap();
        fingerprint_hex(&CertificateFacts::from_der(&der).unwrap().der_sha256)
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::until(name, 4000)
    }

    /// One whose own certificate expires with the beginning of this year.
    pub(crate) fn until(name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 1, 1);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    pub(crate) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        Issued { certfile: path("pem"), keyfile: path("key") }
    }

    /// A current revocation list of these serial numbers, PEM.
    pub(crate) fn revoke(&self, serials: &[u64]) -> PathBuf {
        self.revoke_in(2020, serials)
    }

    /// Such a list, made in this year.
    pub(crate) fn revoke_in(&self, year: i32, serials: &[u64]) -> PathBuf {
        let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.path().join("crl.pem");
        std::fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    /// The certificates of both, in one file.
    pub(crate) fn bundle(&self, other: &Self) -> PathBuf {
        let text = [self, other].map(|one| std::fs::read_to_string(one.file()).unwrap()).concat();
        let path = self.folder.path().join("bundle.pem");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The lines of `[listeners.ssl]` that name files.
    pub(crate) fn server_keys(&self, server: &Issued) -> String {
        format!(
            "certfile = \"{}\"\nkeyfile = \"{}\"\ncacertfile = \"{}\"\n",
            server.certfile.display(),
            server.keyfile.display(),
            self.file().display()
        )
    }
}

/// A TLS connection, with a certificate of our own or without.
pub(crate) async fn tls_client(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&Issued>,
) -> Result<Client, DialError> {
    let options = ClientTlsOptions {
        cacertfile: Some(authority.file()),
        own: None,
        certfile: own.map(|own| own.certfile.clone()),
        keyfile: own.map(|own| own.keyfile.clone()),
        password: None,
        server_pins: Vec::new(),
        strict: true,
        verify: Verify::Peer,
        server_name: Some("localhost".to_owned()),
        versions: vec![TlsVersion::V13, TlsVersion::V12],
    };
    let tls = ClientTls::load(&options, clock::now()).unwrap();
    dial("127.0.0.1", address.port(), Some(&tls), LIMIT).await.map(Client::over)
}

/// TLS over a connection that is there already.
pub(crate) async fn tls_over(stream: TcpStream, authority: &Authority) -> impl Io + use<> {
    let options = ClientTlsOptions {
        cacertfile: Some(authority.file()),
        own: None,
        certfile: None,
        keyfile: None,
        password: None,
        server_pins: Vec::new(),
        strict: true,
        verify: Verify::Peer,
        server_name: None,
        versions: vec![TlsVersion::V13],
    };
    let tls = ClientTls::load(&options, clock::now()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls.config);
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// A WebSocket handshake at this path, with this subprotocol offered.
async fn websocket_at<S: Io + 'static>(
    stream: S,
    path: &str,
    protocol: &str,
) -> Result<WebSocketStream<S>, u16> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["Sec-WebSocket-Protocol"], protocol, "[MQTT-6.0.0-4]");
            Ok(socket)
        }
        Err(WebSocketError::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// MQTT over WebSocket on any stream: binary frames one way and the other through a pipe.
pub(crate) async fn websocket(stream: impl Io + 'static, chunk: usize) -> Client {
    pipe(websocket_at(stream, "/mqtt", "mqtt").await.unwrap(), chunk)
}

/// What is written to the client goes out in frames of `chunk` bytes at most.
fn pipe<S: Io + 'static>(mut socket: WebSocketStream<S>, chunk: usize) -> Client {
    let (near, mut far) = tokio::io::duplex(1024 * 1024);
    tokio::spawn(async move {
        let mut bytes = vec![0; chunk];
        loop {
            tokio::select! {
                read = far.read(&mut bytes) => match read {
                    Ok(count) if count > 0 => send(&mut socket, &bytes[..count]).await,
                    _ => return,
                },
                frame = poll_fn(|cx| Pin::new(&mut socket).poll_next(cx)) => match frame {
                    Some(Ok(Frame::Binary(data))) => far.write_all(&data).await.unwrap(),
                    Some(Ok(_)) => {}
                    _ => return,
                },
            }
        }
    });
    Client::over(near)
}

async fn send<S>(socket: &mut WebSocketStream<S>, bytes: &[u8])
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    poll_fn(|cx| Pin::new(&mut *socket).poll_ready(cx)).await.unwrap();
    Pin::new(&mut *socket).start_send(Frame::binary(bytes.to_vec())).unwrap();
    poll_fn(|cx| Pin::new(&mut *socket).poll_flush(cx)).await.unwrap();
}

async fn talk(mut clients: Vec<Client>) {
    for (client, version) in clients.iter_mut().zip(VERSIONS.into_iter().cycle()) {
        let id = format!("{version:?}-{client:p}");
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        assert_eq!(client.connect(&hello(version, &id[..id.len().min(20)])).await, Got::ConnAck(false, 0));
        assert_eq!(client.subscribe("talk/#", Q2).await, 2);
    }
    let payload = vec![b'x'; 300_000];
    for from in 0..clients.len() {
        assert_eq!(clients[from].publish("talk/1", &payload, Q2).await, 0);
        for client in &mut clients {
            assert_eq!(client.receive().await.payload.len(), payload.len());
        }
    }
    for client in &mut clients {
        client.quiet().await;
    }
    for client in clients {
        client.leave().await;
    }
}

#[tokio::test]
async fn all_of_them_together() {
    let authority = Authority::new();
    let server = authority.issue("localhost");
    let keys = authority.server_keys(&server);
    let listener = |name: &str, kind: &str| {
        format!("[[listeners]]\nname = \"{name}\"\ntype = \"{kind}\"\nbind = \"127.0.0.1:0\"\n")
    };
    let broker = Setup::new()
        .listeners(&format!(
            "{}{}[listeners.ssl]\n{keys}{}{}[listeners.ssl]\n{keys}",
            listener("default", "tcp"),
            listener("t", "ssl"),
            listener("w", "ws"),
            listener("s", "wss"),
        ))
        .start()
        .await;
    let plain = broker.open().await;
    let secure = tls_client(broker.address("ssl:t"), &authority, None).await.unwrap();
    let ws = TcpStream::connect(broker.address("ws:w")).await.unwrap();
    let ws = websocket(ws, 64 * 1024).await;
    let split = TcpStream::connect(broker.address("ws:w")).await.unwrap();
    let split = websocket(split, 1_000).await;
    let wss = tls_client(broker.address("wss:s"), &authority, None).await.unwrap();
    let wss = websocket(wss.io, 64 * 1024).await;
    talk(vec![plain, secure, ws, split, wss]).await;
    for (listener, count) in [("tcp", 1), ("ssl", 1), ("ws", 2), ("wss", 1)] {
        broker.until_metric(&format!("tombolo_connections_total{{listener=\"{listener}\"}}"), count).await;
        broker.until_metric(&format!("tombolo_connections{{listener=\"{listener}\"}}"), 0).await;
    }
}

/// Several listeners of one type, IPv6 among them: each accepts, and all are one broker.
#[tokio::test]
async fn many_listeners_and_ipv6() {
    let one = |name: usize| {
        let bind = if name.is_multiple_of(2) { "[::1]:0" } else { "127.0.0.1:0" };
        format!("[[listeners]]\nname = \"l{name}\"\ntype = \"tcp\"\nbind = \"{bind}\"\n")
    };
    let broker = Setup::new()
        .listeners(&(0..40).map(one).collect::<String>())
        .acl("{allow, {ipaddr, \"::1\"}, subscribe, [\"t\"]}.\n{allow, {ipaddr, \"127.0.0.1\"}, publish, [\"t\"]}.")
        .start()
        .await;
    let mut clients = Vec::new();
    for name in 0..40usize {
        let listener = format!("tcp:l{name}");
        assert_eq!(broker.address(&listener).is_ipv6(), name.is_multiple_of(2));
        let mut client = broker.open_at(&listener).await;
        assert_eq!(client.connect(&hello(Version::V5, &listener)).await, Got::ConnAck(false, 0));
        assert_eq!(
            client.subscribe("t", Q2).await < 0x80,
            name.is_multiple_of(2),
            "the rules see the address"
        );
        clients.push(client);
    }
    clients[1].publish("t", b"x", Q2).await;
    for client in clients.iter_mut().step_by(2) {
        assert_eq!(client.receive().await.text(), "x");
    }
}

/// T11: one protocol on the port of another ends, and costs a count.
#[tokio::test]
async fn one_protocol_on_the_port_of_another() {
    let authority = Authority::new();
    let server = authority.issue("localhost");
    let broker = Setup::new()
        .listeners(&format!(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
             [[listeners]]\nname = \"t\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{}\
             [[listeners]]\nname = \"w\"\ntype = \"ws\"\nbind = \"127.0.0.1:0\"\n",
            authority.server_keys(&server)
        ))
        .start()
        .await;
    let connect = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'c'];
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (listener, bytes) in
        [("ssl:t", &connect[..]), ("ssl:t", http), ("tcp:default", http), ("ws:w", &connect), ("ws:w", http)]
    {
        let mut stream = TcpStream::connect(broker.address(listener)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{listener} does not close");
        assert!(!answer.starts_with(&[0x20]), "{listener} answered with a CONNACK");
    }
    let refused = tls_client(broker.address("tcp:default"), &authority, None).await;
    assert!(refused.is_err());
    let rejected = |reason: &str| format!("tombolo_connections_rejected_total{{reason=\"{reason}\"}}");
    broker.until_metric(&rejected("tls_handshake"), 2).await;
    broker.until_metric(&rejected("websocket_handshake"), 2).await;
    broker.until_metric(&rejected("malformed_connect"), 2).await;
}

const WS: &str = "[[listeners]]\nname = \"w\"\ntype = \"ws\"\nbind = \"127.0.0.1:0\"\n";

async fn stream(broker: &Running) -> TcpStream {
    TcpStream::connect(broker.address("ws:w")).await.unwrap()
}

#[tokio::test]
async fn a_foreign_path_and_a_foreign_subprotocol_are_refused_and_counted() {
    let broker = Setup::new().listeners(WS).start().await;
    for (path, protocol, expected) in [
        ("/", "mqtt", Err(404)),
        ("/ws", "mqtt", Err(404)),
        ("/mqtt/", "mqtt", Err(404)),
        ("/mqtt", "amqp", Err(400)),
        ("/mqtt", "MQTT", Err(400)),
        ("/mqtt?token=1", "mqtt", Ok(())),
        ("/mqtt", "mqttv3.1", Ok(())),
    ] {
        let answer = websocket_at(stream(&broker).await, path, protocol).await.map(drop);
        assert_eq!(answer, expected, "{path} {protocol}");
    }
    broker.until_metric("tombolo_connections_rejected_total{reason=\"websocket_handshake\"}", 5).await;
    // The subprotocol says nothing about the version that is spoken.
    for (version, protocol) in VERSIONS.into_iter().zip(["mqttv3.1", "mqttv3.1", "mqtt"]) {
        let socket = websocket_at(stream(&broker).await, "/mqtt", protocol).await.unwrap();
        let mut client = pipe(socket, 1024);
        assert_eq!(client.connect(&hello(version, "c")).await, Got::ConnAck(false, 0));
        client.leave().await;
    }
}

/// `[MQTT-6.0.0-2]`: several packets in a frame, a byte in a frame, and a frame in fragments.
#[tokio::test]
async fn websocket_frames_and_packets_need_not_align() {
    let broker = Setup::new().listeners(WS).start().await;
    let mut bytes = Vec::new();
    for packet in [
        Packet::Connect(Box::new(hello(Version::V5, "c"))),
        Packet::PingReq,
        Packet::Publish(message("t", b"one")),
        Packet::PingReq,
    ] {
        encode::encode(&packet, Version::V5, &mut bytes).unwrap();
    }
    let answered = async |mut client: Client| {
        client.version = Version::V5;
        for expected in [Got::ConnAck(false, 0), Got::PingResp, Got::PingResp] {
            assert_eq!(client.next().await, expected);
        }
        client.quiet().await;
    };
    for chunk in [bytes.len(), 1, 7] {
        let mut client = websocket(stream(&broker).await, chunk).await;
        client.write(&bytes).await;
        answered(client).await;
    }
    let mut socket = websocket_at(stream(&broker).await, "/mqtt", "mqtt").await.unwrap();
    let pieces: Vec<&[u8]> = bytes.chunks(5).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = if index == 0 { Data::Binary } else { Data::Continue };
        let frame = RawFrame::message(piece.to_vec(), OpCode::Data(opcode), index + 1 == pieces.len());
        poll_fn(|cx| Pin::new(&mut socket).poll_ready(cx)).await.unwrap();
        Pin::new(&mut socket).start_send(Frame::Frame(frame)).unwrap();
    }
    poll_fn(|cx| Pin::new(&mut socket).poll_flush(cx)).await.unwrap();
    answered(pipe(socket, 1024)).await;
}

/// `[MQTT-6.0.0-1]`, before CONNECT and after.
#[tokio::test]
async fn a_websocket_text_frame_ends_the_connection() {
    let broker = Setup::new().listeners(WS).start().await;
    for connected in [false, true] {
        let mut socket = websocket_at(stream(&broker).await, "/mqtt", "mqtt").await.unwrap();
        if connected {
            let mut bytes = Vec::new();
            encode::encode(&Packet::Connect(Box::new(hello(Version::V5, "c"))), Version::V5, &mut bytes)
                .unwrap();
            send(&mut socket, &bytes).await;
            assert!(next(&mut socket).await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_binary())));
        }
        Pin::new(&mut socket).start_send(Frame::text("hello")).unwrap();
        poll_fn(|cx| Pin::new(&mut socket).poll_flush(cx)).await.unwrap();
        let closed = match next(&mut socket).await {
            None | Some(Err(_)) => true,
            Some(Ok(frame)) => frame.is_close(),
        };
        assert!(closed);
    }
    broker.until_metric("tombolo_connections{listener=\"ws\"}", 0).await;
}

async fn next<S>(socket: &mut WebSocketStream<S>) -> Option<Result<Frame, WebSocketError>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let frame = tokio::time::timeout(LIMIT, poll_fn(|cx| Pin::new(&mut *socket).poll_next(cx))).await;
    frame.expect("something comes")
}
