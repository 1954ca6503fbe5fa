//! Enrolment over real sockets (`trust.md` 2.4): who gets to the desk, what it costs the others, and that nothing of it meets MQTT.
//! The desk of these tests answers whatever comes; what a token is worth is tested where that is decided.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::HandshakeKind;
use rustls::ServerConfig;
use rustls::client::Resumption;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tombolo::auth::certificate::fingerprint_hex;
use tombolo::auth::peer::PeerRule;
use tombolo::broker::banned::Ban;
use tombolo::broker::banned::Kind;
use tombolo::broker::enrolment::Asked;
use tombolo::broker::enrolment::EnrollDesk;
use tombolo::broker::link_keys::LinkKeys;
use tombolo::config::settings::ServerAddr;
use tombolo::config::settings::Told;
use tombolo::mqtt::packet::Version;
use tombolo::net::address::PeerAddr;
use tombolo::net::clock;
use tombolo::net::enroll::MESSAGE_BYTES_MAX;
use tombolo::net::enroll::Purpose;
use tombolo::net::enroll::client;
use tombolo::net::enroll::client::Found;
use tombolo::net::enroll::client::NoAnswer;
use tombolo::net::enroll::client::NotFound;
use tombolo::net::enroll::client::Why;
use tombolo::net::enroll::framed;
use tombolo::net::enroll::gate::Limits;
use tombolo::net::enroll::read_message;
use tombolo::net::enroll::server;
use tombolo::net::own_certificate::OwnCertificate;
use tombolo::net::own_certificate::Pair;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;

use crate::certificates::events;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::transports::Authority;

const MQTT: &[u8] = b"mqtt";
const ALPN: &[u8] = b"tombolo-enroll/1";
/// As long as a test: whoever has to wait for it waits in vain.
const NEVER: Duration = Duration::from_secs(3600);

/// Answers `request` with `answer to request`, when it may.
struct TestDesk {
    tls: Arc<ServerConfig>,
    is_open: AtomicBool,
    limits: Limits,
    /// A permit for each answer.
    answers: Arc<Semaphore>,
    asked: Arc<Mutex<Vec<Asked>>>,
    answered: Semaphore,
}

impl EnrollDesk for TestDesk {
    fn is_open(&self, purpose: Purpose) -> bool {
        purpose == Purpose::Enroll && self.is_open.load(Ordering::Relaxed)
    }

    fn tls(&self, _: Purpose) -> Option<Arc<ServerConfig>> {
        Some(Arc::clone(&self.tls))
    }

    fn redeem(self: Arc<Self>, asked: Asked) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> {
        let answer = [b"answer to ", &asked.request[..]].concat();
        self.asked.lock().push(asked);
        Box::pin(async move {
            self.answers.acquire().await.unwrap().forget();
            self.answered.add_permits(1);
            answer
        })
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// As many as come, as fast as they like.
fn wide() -> Limits {
    Limits { between: Duration::ZERO, ..Limits::default() }
}

fn own(cluster: &str) -> Arc<OwnCertificate> {
    Arc::new(OwnCertificate::new(&Pair::make(cluster, clock::now()).unwrap()).unwrap())
}

/// A broker whose only listener is for links and shows the link certificate; `ssl` are more lines of its TLS.
fn setup(bind: &str, ssl: &str) -> Setup {
    Setup::new().listeners(&format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"{bind}\"\nrole = \"link\"\n[listeners.ssl]\n{ssl}\n"
    ))
}

/// The link to a peer that shows this certificate. Nobody listens where it dials.
fn link(peer: &OwnCertificate) -> String {
    format!(
        "[[cluster.links]]\nname = \"B\"\nserver = \"127.0.0.1:1\"\ntopics = []\n[cluster.links.peer]\n\
         cert_sha256 = [\"{}\"]\n[cluster.links.ssl]\nenable = false\n",
        fingerprint_hex(&peer.fingerprint())
    )
}

/// A broker with a desk, which has as many answers as are needed.
async fn broker_with(setup: Setup, limits: Limits) -> (Running, Arc<TestDesk>) {
    let broker = setup.start().await;
    let own = broker.server.link_keys().current().expect("the listener shows it");
    let desk = Arc::new(TestDesk {
        tls: server::tls(&own, Purpose::Enroll).unwrap(),
        is_open: AtomicBool::new(true),
        limits,
        answers: Arc::new(Semaphore::new(1000)),
        asked: Arc::default(),
        answered: Semaphore::new(0),
    });
    broker.server.broker().enrolment.set_desk(Arc::clone(&desk) as Arc<dyn EnrollDesk>);
    (broker, desk)
}

async fn broker(limits: Limits) -> (Running, Arc<TestDesk>) {
    broker_with(setup("127.0.0.1:0", ""), limits).await
}

fn fingerprint(broker: &Running) -> [u8; 32] {
    broker.server.link_keys().current().unwrap().fingerprint()
}

fn at(address: SocketAddr) -> ServerAddr {
    ServerAddr { host: address.ip().to_string(), port: address.port() }
}

async fn find(broker: &Running, own: &Arc<OwnCertificate>) -> Result<Found, NotFound> {
    client::find(
        &[at(broker.address("ssl:x"))],
        &Told::default(),
        &[fingerprint(broker)],
        own,
        Purpose::Enroll,
        LIMIT,
    )
    .await
}

async fn outcome(broker: &Running, named: &str, count: u64) {
    broker.until_metric(&format!("tombolo_link_enrolments_total{{result=\"{named}\"}}"), count).await;
}

fn tls(own: Option<&Arc<OwnCertificate>>, versions: &[TlsVersion], alpn: &[&[u8]]) -> rustls::ClientConfig {
    let options = ClientTlsOptions {
        cacertfile: None,
        own: own.cloned(),
        certfile: None,
        keyfile: None,
        password: None,
        server_pins: Vec::new(),
        strict: false,
        verify: Verify::None,
        server_name: None,
        versions: versions.to_vec(),
    };
    let mut config = (*ClientTls::load(&options, clock::now()).unwrap().config).clone();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

async fn shake(address: SocketAddr, config: rustls::ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect("x".try_into().unwrap(), stream);
    timeout(LIMIT, connecting).await.expect("a handshake that ends")
}

/// A connection that offers these protocols and can enrol, by a client of any make.
async fn raw(
    broker: &Running,
    own: &Arc<OwnCertificate>,
    alpn: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    shake(broker.address("ssl:x"), tls(Some(own), &[TlsVersion::V13], alpn)).await
}

/// All that still comes; empty as well if the connection was cut.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut bytes)).await.expect("it is closed");
    bytes
}

#[tokio::test]
async fn a_request_gets_to_the_desk_with_its_certificate_and_the_answer_back() {
    let (broker, desk) = broker(wide()).await;
    let b = own("B");
    let found = find(&broker, &b).await.unwrap();
    assert_eq!(found.server, at(broker.address("ssl:x")));
    let longest = vec![b'x'; MESSAGE_BYTES_MAX - "answer to ".len()];
    assert_eq!(found.ask(&longest, LIMIT).await.unwrap(), [b"answer to ", &longest[..]].concat());
    let asked = desk.asked.lock().pop().unwrap();
    assert_eq!((&asked.request[..], &asked.certificate[..], &*asked.listener), (&*longest, b.der(), "ssl:x"));
    assert!(matches!(asked.source, PeerAddr::Ip(source) if source.ip().is_loopback()));
    outcome(&broker, "answered", 1).await;
    broker.until_metric("tombolo_connections_rejected_total{reason=\"enrolment\"}", 1).await;
    // One request: what comes behind it is not looked at, and the end is said.
    let mut stream = raw(&broker, &b, &[ALPN]).await.unwrap();
    stream.write_all(&[framed(b"one").unwrap(), framed(b"two").unwrap()].concat()).await.unwrap();
    assert_eq!(read_message(&mut stream).await.unwrap(), b"answer to one");
    let mut behind = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut behind)).await.unwrap().expect("close_notify");
    assert!(behind.is_empty() && desk.asked.lock().len() == 1);
}

/// Ordinary links never negotiate the protocol; they work as ever while somebody is awaited.
#[tokio::test]
async fn only_who_asks_for_enrolment_and_nothing_else_enrols() {
    let b = own("B");
    let (broker, desk) = broker_with(setup("127.0.0.1:0", "").links(&link(&b)), wide()).await;
    let offers: [(&[&[u8]], bool); 7] = [
        (&[ALPN], true),
        (&[ALPN, MQTT], true),
        (&[MQTT, ALPN], true),
        (&[ALPN, ALPN], true),
        (&[MQTT], true),
        (&[], true),
        (&[ALPN], false),
    ];
    for (number, (alpn, is_open)) in offers.into_iter().enumerate() {
        desk.is_open.store(is_open, Ordering::Relaxed);
        let stream = raw(&broker, &b, alpn).await.unwrap();
        let enrols = is_open && alpn == [ALPN];
        assert_eq!(stream.get_ref().1.alpn_protocol(), enrols.then_some(ALPN), "{alpn:?} {is_open}");
        if enrols {
            continue;
        }
        let mut client = Client::over(stream);
        let id = format!("clink-B-{number}");
        assert_eq!(client.connect(&hello(Version::V5, &id)).await, Got::ConnAck(false, 0), "{alpn:?}");
        client.leave().await;
    }
    assert!(desk.asked.lock().is_empty());
    // A listener for clients has nothing to do with it.
    let authority = Authority::new();
    let keys = authority.server_keys(&authority.issue("localhost"));
    let listener = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{keys}\n"
    );
    let other = Setup::new().listeners(&listener).start().await;
    desk.is_open.store(true, Ordering::Relaxed);
    other.server.broker().enrolment.set_desk(desk);
    let stream = raw(&other, &b, &[ALPN]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    assert_eq!(Client::over(stream).connect(&hello(Version::V5, "c")).await, Got::ConnAck(false, 0));
}

#[tokio::test]
async fn whoever_finds_nobody_awaited_is_told_so_and_has_sent_nothing() {
    let b = own("B");
    let (broker, desk) = broker(wide()).await;
    desk.is_open.store(false, Ordering::Relaxed);
    let error = find(&broker, &b).await.unwrap_err();
    assert!(matches!(error.0[0].why, Why::NotOpen) && !error.is_mismatch(), "{error}");
    assert!(desk.asked.lock().is_empty());
}

#[tokio::test]
async fn mqtt_on_a_connection_that_enrols_gets_nowhere() {
    let (broker, desk) = broker(wide()).await;
    let b = own("B");
    let mut client = Client::over(raw(&broker, &b, &[ALPN]).await.unwrap());
    assert_eq!(client.connect(&hello(Version::V5, "clink-B-1")).await, Got::Closed);
    outcome(&broker, "malformed", 1).await;
    assert_eq!(broker.metric("tombolo_packets_received_total{type=\"connect\"}"), 0);
    assert!(desk.asked.lock().is_empty());
}

#[tokio::test]
async fn t8_an_old_version_and_t1_no_certificate_and_t13_somebody_elses_are_refused() {
    let (broker, desk) = broker(wide()).await;
    let (address, b) = (broker.address("ssl:x"), own("B"));
    let old = shake(address, tls(Some(&b), &[TlsVersion::V12], &[ALPN])).await.unwrap_err();
    assert!(old.to_string().contains("ProtocolVersion"), "{old}");
    outcome(&broker, "tls", 1).await;
    let mut nobody = shake(address, tls(None, &[TlsVersion::V13], &[ALPN])).await.unwrap();
    // In TLS 1.3 the client is told only when it reads.
    let error = nobody.read_u8().await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    outcome(&broker, "tls", 2).await;
    let mut config = tls(None, &[TlsVersion::V13], &[ALPN]);
    config.client_auth_cert_resolver = Arc::new(Impostor(stolen(&b)));
    let mut impostor = shake(address, config).await.unwrap();
    let error = impostor.read_u8().await.unwrap_err().to_string();
    assert!(error.contains("DecryptError"), "{error}");
    outcome(&broker, "tls", 3).await;
    assert!(desk.asked.lock().is_empty());
}

/// Shows one certificate and signs with the key of another.
#[derive(Debug)]
struct Impostor(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn stolen(certificate: &OwnCertificate) -> Arc<rustls::sign::CertifiedKey> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let der = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = rustls::crypto::ring::sign::any_supported_type(&der).unwrap();
    Arc::new(rustls::sign::CertifiedKey::new(vec![certificate.der().to_vec().into()], key))
}

#[tokio::test]
async fn a_session_that_enrolled_is_nothing_to_resume() {
    let b = own("B");
    let (broker, _) = broker_with(setup("127.0.0.1:0", "").links(&link(&b)), wide()).await;
    let mut config = tls(Some(&b), &[TlsVersion::V13], &[ALPN]);
    config.resumption = Resumption::in_memory_sessions(8);
    for alpn in [&[ALPN][..], &[ALPN], &[]] {
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut stream = shake(broker.address("ssl:x"), config.clone()).await.unwrap();
        if alpn.is_empty() {
            let session = stream.get_ref().1;
            assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
            continue;
        }
        stream.write_all(&framed(b"x").unwrap()).await.unwrap();
        assert_eq!(read_message(&mut stream).await.unwrap(), b"answer to x");
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_request_of_a_length_that_is_not_allowed_is_not_read() {
    let (broker, desk) = broker(wide()).await;
    let b = own("B");
    let lengths = [0, MESSAGE_BYTES_MAX as u32 + 1, u32::MAX];
    for (count, length) in (1..).zip(lengths) {
        let mut stream = raw(&broker, &b, &[ALPN]).await.unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, b"", "{length}");
        outcome(&broker, "malformed", count).await;
    }
    let found = find(&broker, &b).await.unwrap();
    let long = vec![b'x'; MESSAGE_BYTES_MAX + 1];
    assert!(matches!(found.ask(&long, LIMIT).await, Err(NoAnswer::Request)));
    // Its connection ends without a request.
    outcome(&broker, "lost", 1).await;
    assert!(desk.asked.lock().is_empty());
}

#[tokio::test]
async fn whoever_is_slow_runs_out_of_time_at_every_step() {
    let limits = Limits { time: Duration::from_secs(1), ..wide() };
    let (broker, desk) = broker_with(setup("127.0.0.1:0", "handshake_timeout = \"1s\""), limits).await;
    let b = own("B");
    // Before its ClientHello it is any connection.
    let mut silent = TcpStream::connect(broker.address("ssl:x")).await.unwrap();
    let mut slow = Vec::new();
    for part in [&b""[..], &[0, 0, 0], &framed(b"request").unwrap()[..10]] {
        let mut stream = raw(&broker, &b, &[ALPN]).await.unwrap();
        stream.write_all(part).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(rest(&mut silent).await, b"");
    broker.until_metric("tombolo_connections_rejected_total{reason=\"timeout\"}", 1).await;
    for stream in &mut slow {
        assert_eq!(rest(stream).await, b"");
    }
    outcome(&broker, "timeout", 3).await;
    assert!(desk.asked.lock().is_empty());
    // So does the desk, but what it began it finishes.
    desk.answers.forget_permits(1000);
    let found = find(&broker, &b).await.unwrap();
    assert!(matches!(found.ask(b"request", LIMIT).await, Err(NoAnswer::Read(_))));
    outcome(&broker, "timeout", 4).await;
    assert_eq!((desk.asked.lock().len(), desk.answered.available_permits()), (1, 0), "it is still at it");
    desk.answers.add_permits(1);
    let answered = timeout(LIMIT, desk.answered.acquire()).await.expect("it is done");
    answered.unwrap().forget();
}

#[tokio::test]
async fn the_ninth_at_a_time_is_turned_away_and_links_are_not() {
    let b = own("B");
    let (broker, desk) = broker_with(setup("127.0.0.1:0", "").links(&link(&b)), wide()).await;
    desk.answers.forget_permits(1000);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let found = find(&broker, &b).await.unwrap();
        waiting.spawn(async move { found.ask(b"x", LIMIT).await.unwrap() });
    }
    let error = find(&broker, &b).await.unwrap_err();
    assert!(matches!(error.0[0].why, Why::Closed), "{error}");
    outcome(&broker, "busy", 1).await;
    let mut client = Client::over(raw(&broker, &b, &[]).await.unwrap());
    assert_eq!(client.connect(&hello(Version::V5, "clink-B-1")).await, Got::ConnAck(false, 0));
    desk.answers.add_permits(9);
    for _ in 0..8 {
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), b"answer to x");
    }
    outcome(&broker, "answered", 8).await;
    let found = find(&broker, &b).await.unwrap();
    assert_eq!(found.ask(b"y", LIMIT).await.unwrap(), b"answer to y");
}

#[tokio::test]
async fn the_second_of_one_source_is_turned_away_for_a_while() {
    let (broker, desk) = broker(Limits { between: NEVER, ..Limits::default() }).await;
    let b = own("B");
    assert_eq!(find(&broker, &b).await.unwrap().ask(b"x", LIMIT).await.unwrap(), b"answer to x");
    let error = find(&broker, &own("C")).await.unwrap_err();
    assert!(matches!(error.0[0].why, Why::Closed), "{error}");
    outcome(&broker, "too_soon", 1).await;
    assert_eq!(desk.asked.lock().len(), 1);
    assert_eq!(events(&broker, "authn_login_fail:enrolment").len(), 1);
}

#[tokio::test]
async fn whoever_is_banned_does_not_enrol() {
    let (broker, desk) = broker(wide()).await;
    let b = own("B");
    for (count, (kind, who)) in (1..).zip([
        (Kind::Fingerprint, fingerprint_hex(&b.fingerprint())),
        (Kind::PeerHost, "127.0.0.1".to_owned()),
    ]) {
        let (by, reason, now) = ("test".to_owned(), String::new(), clock::now());
        let ban = Ban { kind, who: who.clone(), by, reason, at: 0, until: None };
        broker.server.broker().ban(ban, now).unwrap();
        let found = find(&broker, &b).await.unwrap();
        assert!(matches!(found.ask(b"x", LIMIT).await, Err(NoAnswer::Read(_))), "{kind:?}");
        outcome(&broker, "banned", count).await;
        assert!(broker.server.broker().banned.remove(kind, &who, now));
    }
    assert_eq!(find(&broker, &b).await.unwrap().ask(b"x", LIMIT).await.unwrap(), b"answer to x");
    assert_eq!(desk.asked.lock().len(), 1);
}

/// T16: somebody in between. It has a certificate of its own, and would take whatever is sent.
#[tokio::test]
async fn a_server_with_another_certificate_gets_nothing_and_both_fingerprints_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = at(listener.local_addr().unwrap());
    let (theirs, expected, b) = (own("A"), own("A"), own("B"));
    let config = server::tls(&theirs, Purpose::Enroll).unwrap();
    let taking = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(config).accept(stream).await.map(|_| ()).map_err(|error| error.to_string())
    });
    let error = client::find(
        std::slice::from_ref(&between),
        &Told::default(),
        &[expected.fingerprint()],
        &b,
        Purpose::Enroll,
        LIMIT,
    )
    .await
    .unwrap_err();
    assert!(error.is_mismatch());
    let wanted = format!(
        "certificate of {between} is sha256:{}, token says sha256:{}",
        fingerprint_hex(&theirs.fingerprint()),
        fingerprint_hex(&expected.fingerprint())
    );
    assert!(error.to_string().contains(&wanted), "{error}");
    // An alert instead of a certificate: not even that was shown.
    let refused = taking.await.unwrap().unwrap_err();
    assert!(refused.contains("AccessDenied"), "{refused}");
}

#[tokio::test]
async fn dead_addresses_and_wrong_servers_do_not_keep_from_the_right_one() {
    let (broker, _) = broker(wide()).await;
    let (other, _) = broker_with(setup("127.0.0.1:0", ""), wide()).await;
    let b = own("B");
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let right = at(broker.address("ssl:x"));
    let servers = [at(dead), at(other.address("ssl:x")), right.clone()];
    let found = client::find(&servers, &Told::default(), &[fingerprint(&broker)], &b, Purpose::Enroll, LIMIT)
        .await
        .unwrap();
    assert_eq!(found.server, right);
    assert!(found.passed.iter().all(|passed| passed.server != right));
    assert_eq!(found.ask(b"x", LIMIT).await.unwrap(), b"answer to x");
    let error =
        client::find(&servers[..2], &Told::default(), &[fingerprint(&broker)], &b, Purpose::Enroll, LIMIT)
            .await
            .unwrap_err();
    assert_eq!((error.0.len(), error.is_mismatch()), (2, true), "{error}");
    assert!(error.to_string().starts_with("tried 2 address(es) of the token: "), "{error}");
    let none = client::find(&[], &Told::default(), &[fingerprint(&broker)], &b, Purpose::Enroll, LIMIT)
        .await
        .unwrap_err();
    assert!(none.0.is_empty());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = at(listener.local_addr().unwrap());
    let time = Duration::from_millis(100);
    let error = client::find(&[silent], &Told::default(), &[[0; 32]], &own("B"), Purpose::Enroll, time)
        .await
        .unwrap_err();
    assert!(matches!(error.0[0].why, Why::Timeout), "{error}");
}

#[tokio::test]
async fn over_ipv6_as_over_ipv4() {
    let (broker, desk) = broker_with(setup("[::1]:0", ""), wide()).await;
    let found = find(&broker, &own("B")).await.unwrap();
    assert_eq!(found.server.host, "::1");
    assert_eq!(found.ask(b"x", LIMIT).await.unwrap(), b"answer to x");
    assert!(matches!(desk.asked.lock()[0].source, PeerAddr::Ip(source) if source.is_ipv6()));
}

/// A cluster that enrolled is known by what it is pinned by, which comes and goes while the broker runs, beside an authority too.
#[tokio::test]
async fn pins_of_clusters_that_enrolled_come_and_go_without_a_restart() {
    let authority = Authority::new();
    let with_authority = format!("cacertfile = \"{}\"", authority.file().display());
    for ssl in ["", &with_authority] {
        let broker = setup("127.0.0.1:0", ssl).start().await;
        let (b, server) = (own("B"), &broker.server);
        let refused = |stream: io::Result<TlsStream<TcpStream>>| async {
            stream.unwrap().read_u8().await.unwrap_err().to_string()
        };
        let error = refused(raw(&broker, &b, &[]).await).await;
        assert!(error.contains("alert"), "{error}");
        server.keeper().set_enrolled(HashSet::from([b.fingerprint()]));
        let rule = PeerRule {
            cluster: "B".to_owned(),
            clientid_prefix: "clink-B-".to_owned(),
            cert_sha256: vec![b.fingerprint()],
            ..PeerRule::default()
        };
        server.broker().authentication.set_peers(vec![rule]);
        let mut client = Client::over(raw(&broker, &b, &[]).await.unwrap());
        assert_eq!(client.connect(&hello(Version::V5, "clink-B-1")).await, Got::ConnAck(false, 0));
        server.check_certificates(clock::now()).await;
        client.quiet().await;
        let stranger = own("B");
        assert!(refused(raw(&broker, &stranger, &[]).await).await.contains("alert"));
        if !ssl.is_empty() {
            // Whom the authority vouches for gets as far as its CONNECT.
            let issued = authority.issue("C");
            let address = broker.address("ssl:x");
            let stream = tls_with_files(address, &issued.certfile, &issued.keyfile).await;
            let got = Client::over(stream).connect(&hello(Version::V5, "c")).await;
            assert_eq!(got, Got::ConnAck(false, 0x87));
        }
        server.keeper().set_enrolled(HashSet::new());
        assert!(refused(raw(&broker, &b, &[]).await).await.contains("alert"));
        server.check_certificates(clock::now()).await;
        client.refused(0x87).await;
    }
}

async fn tls_with_files(
    address: SocketAddr,
    certfile: &std::path::Path,
    keyfile: &std::path::Path,
) -> TlsStream<TcpStream> {
    let options = ClientTlsOptions {
        cacertfile: None,
        own: None,
        certfile: Some(certfile.to_owned()),
        keyfile: Some(keyfile.to_owned()),
        password: None,
        server_pins: Vec::new(),
        strict: false,
        verify: Verify::None,
        server_name: None,
        versions: vec![TlsVersion::V13],
    };
    let config = ClientTls::load(&options, clock::now()).unwrap().config;
    shake(address, (*config).clone()).await.unwrap()
}

#[tokio::test]
async fn a_listener_for_links_shows_the_link_certificate_and_the_next_one_after_a_rotation() {
    let b = own("B");
    let broker = setup("127.0.0.1:0", "").links(&link(&b)).start().await;
    let keys = Arc::clone(broker.server.link_keys());
    let first = keys.current().unwrap();
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let stream = raw(&broker, &b, &[]).await.unwrap();
    assert_eq!(shown(&stream), first.der());
    let mut client = Client::over(stream);
    assert_eq!(client.connect(&hello(Version::V5, "clink-B-1")).await, Got::ConnAck(false, 0));
    let next = keys.prepare_next(clock::now(), 0).unwrap();
    let prepared = broker.server.prepare_link_certificate(Arc::clone(&next)).await.unwrap();
    keys.promote().unwrap();
    broker.server.show_link_certificate(prepared).await;
    let stream = raw(&broker, &b, &[]).await.unwrap();
    assert_eq!(shown(&stream), next.der());
    client.quiet().await;
    // TLS 1.3 only, and a certificate is asked for, without a word about it in the settings.
    let old = shake(broker.address("ssl:x"), tls(Some(&b), &[TlsVersion::V12], &[])).await.unwrap_err();
    assert!(old.to_string().contains("ProtocolVersion"), "{old}");
    let mut nobody = shake(broker.address("ssl:x"), tls(None, &[TlsVersion::V13], &[])).await.unwrap();
    let error = nobody.read_u8().await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    let data = broker.server.settings().data.dir.clone();
    assert_eq!(LinkKeys::look(&data).unwrap().unwrap().fingerprint(), next.fingerprint());
}
