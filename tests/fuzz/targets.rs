//! What is tried with any bytes, one function for each parser. The fuzzer (`src/main.rs`) and the replay of seeds and
//! mutations in `cargo test` (`main.rs`) call the same ones. A target that finds fault panics.

#[path = "targets/store.rs"]
mod store;

use std::future;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use axum::serve::Listener;
use rapidhash::quality::RandomState;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::io::ReadBuf;
use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time;

use tombolo::acl::compile::CompileOptions;
use tombolo::acl::eval::Request;
use tombolo::acl::eval::RuleSet;
use tombolo::acl::eval::Subject;
use tombolo::acl::lint::Inventory;
use tombolo::acl::lint::lint;
use tombolo::acl::rule::Mode;
use tombolo::acl::rule::Permission;
use tombolo::admin::base64;
use tombolo::admin::http;
use tombolo::admin::keys::Keys;
use tombolo::admin::rest::HttpState;
use tombolo::auth::callout;
use tombolo::auth::certificate;
use tombolo::auth::certificate::CertificateFacts;
use tombolo::auth::chain::Answer;
use tombolo::auth::fitness;
use tombolo::auth::jwt;
use tombolo::auth::jwt::keys::KeySet;
use tombolo::auth::password::PasswordFile;
use tombolo::auth::password::hashes::SaltPosition;
use tombolo::auth::password::import;
use tombolo::auth::password::import::Made;
use tombolo::auth::scram::DecoyKey;
use tombolo::broker::Broker;
use tombolo::broker::Limits;
use tombolo::broker::authenticate::Authentication;
use tombolo::broker::authenticate::Credentials;
use tombolo::broker::identity::Policy;
use tombolo::config;
use tombolo::config::Environment;
use tombolo::link::compress::INFLATED_BYTES_MAX;
use tombolo::link::compress::Inflater;
use tombolo::link::etf::Reader;
use tombolo::link::message;
use tombolo::link::payload;
use tombolo::link::payload::Control;
use tombolo::link::payload::page::FILTERS_MAX;
use tombolo::mqtt::decode::DecodeLimits;
use tombolo::mqtt::decode::Decoded;
use tombolo::mqtt::decode::decode;
use tombolo::mqtt::encode::encode;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::topic;
use tombolo::mqtt::topic::ParsedFilter;
use tombolo::mqtt::trie::TopicTrie;
use tombolo::net::clock;
use tombolo::net::proxy;
use tombolo::net::websocket;
use tombolo::trust::Fingerprint;
use tombolo::trust::Token;
use tombolo::trust::address::ADDRESSES_MAX;
use tombolo::trust::book::Book;
use tombolo::trust::book::Own;
use tombolo::trust::enroll::Answer as EnrolAnswer;
use tombolo::trust::enroll::Request as EnrolRequest;
use tombolo::trust::generate;
use tombolo::trust::rotation::Statement;
use tombolo::trust::token;

/// A target with its name, which is also that of its folder of seeds.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 21] = [
    ("acl", acl),
    ("base64", base64),
    ("callouts", callouts),
    ("certificate", certificate),
    ("config", config),
    ("enrol_answer", enrol_answer),
    ("enrol_request", enrol_request),
    ("http", http),
    ("image", store::image),
    ("imports", imports),
    ("link", link),
    ("link_token", link_token),
    ("log", store::log),
    ("packet", packet),
    ("passwords", passwords),
    ("proxy", proxy),
    ("terms", terms),
    ("tokens", tokens),
    ("topics", topics),
    ("trust_book", trust_book),
    ("websocket", websocket),
];

/// The packet limit of the targets.
const PACKET_BYTES_MAX: u32 = 4096;

/// A packet before the CONNECT and in each version: no wish for more than the limit, and what is accepted is encoded
/// and decoded again to the same packet.
pub(crate) fn packet(input: &[u8]) {
    for version in [None, Some(Version::V31), Some(Version::V311), Some(Version::V5)] {
        packet_of(input, version);
    }
}

fn packet_of(input: &[u8], version: Option<Version>) {
    let mut bytes = Vec::new();
    match decode(input, &DecodeLimits { version, max_packet_size: PACKET_BYTES_MAX }) {
        Ok(Decoded::Packet { packet, len }) => {
            assert!(len <= input.len() && len <= PACKET_BYTES_MAX as usize);
            encode(&packet, version.unwrap_or(Version::V5), &mut bytes)
                .expect("a decoded packet can be encoded");
            let again = decode(&bytes, &DecodeLimits { version, max_packet_size: u32::MAX });
            assert_eq!(again, Ok(Decoded::Packet { packet, len: bytes.len() }));
        }
        Ok(Decoded::NeedMore { total: Some(total) }) => {
            assert!(total > input.len() && total <= PACKET_BYTES_MAX as usize);
        }
        Ok(Decoded::NeedMore { total: None }) => assert!(input.len() < 5),
        Err(fault) => assert!(fault.reason_code().is_error()),
    }
}

/// A PROXY header: no wish for more than the limit, and no other answer with more bytes behind it.
pub(crate) fn proxy(input: &[u8]) {
    match proxy::parse(input) {
        Ok(proxy::Parsed::Header { source, length }) => {
            assert!(length <= input.len() && length <= proxy::V2_BYTES_MAX);
            assert_eq!(proxy::parse(&input[..length]), Ok(proxy::Parsed::Header { source, length }));
        }
        Ok(proxy::Parsed::NeedMore(missing)) => {
            assert!(missing > 0 && input.len() + missing <= proxy::V2_BYTES_MAX);
        }
        Err(_) => {}
    }
}

/// A WebSocket handshake and frames: it ends, and no more comes out than went in.
pub(crate) fn websocket(input: &[u8]) {
    let mut cx = Context::from_waker(Waker::noop());
    // The client says it all at once and is gone, so that nothing is ever pending.
    let accepting = pin!(websocket::accept(Said { bytes: input }, PACKET_BYTES_MAX as usize));
    let Poll::Ready(Ok(mut socket)) = accepting.poll(&mut cx) else { return };
    let (mut space, mut total) = ([0; 512], 0);
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut socket).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => total += buffer.filled().len(),
            Poll::Ready(_) => break,
            Poll::Pending => panic!("nobody would wake it"),
        }
        assert!(total <= input.len());
    }
}

/// A client that has said everything.
struct Said<'a> {
    bytes: &'a [u8],
}

impl AsyncRead for Said<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (now, later) = self.bytes.split_at(self.bytes.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What somebody without a key says to the HTTP port: the connection ends, and each answer is a status that is not our fault.
pub(crate) fn http(input: &[u8]) {
    static PORT: LazyLock<HttpPort> = LazyLock::new(HttpPort::open);
    let answers = PORT.answers(input);
    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answers));
    let text = String::from_utf8_lossy(&answers);
    for answer in text.split("HTTP/1.").skip(1) {
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status < "500" || status == "505", "HTTP/1.{answer}");
    }
}

/// The HTTP server of a broker that nobody is connected to, without a socket.
struct HttpPort {
    runtime: Runtime,
    connections: UnboundedSender<DuplexStream>,
}

impl HttpPort {
    fn open() -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let runtime = runtime.expect("a runtime");
        let (connections, accepted) = mpsc::unbounded_channel();
        let bound = (Ipv4Addr::LOCALHOST, 18083).into();
        runtime.spawn(http::serve(
            Connections(accepted),
            http::Bound::To(bound),
            http_state(),
            future::pending(),
        ));
        Self { runtime, connections }
    }

    /// Says everything at once and takes what comes until the other side closes.
    fn answers(&self, input: &[u8]) -> Vec<u8> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.connections.send(far).expect("the server goes on");
        let (mut read, mut write) = tokio::io::split(near);
        let mut answers = Vec::new();
        let talk = async {
            let say = async {
                // It may be closed before everything is said.
                let _ = write.write_all(input).await;
                let _ = write.shutdown().await;
            };
            tokio::join!(say, async { drop(read.read_to_end(&mut answers).await) })
        };
        self.runtime.block_on(async { time::timeout(Duration::from_secs(20), talk).await.expect("it ends") });
        answers
    }
}

/// Connections as they are made.
struct Connections(UnboundedReceiver<DuplexStream>);

impl Listener for Connections {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn http_state() -> HttpState {
    let settings = config::parse("fuzz.toml", "[cluster]\nname = \"A\"\n", &Environment::default());
    let settings = settings.expect("a cluster's name suffices");
    let rules = RuleSet::compile("", &CompileOptions::default()).expect("no rules are rules");
    let policy = Policy::new(rules, Arc::default());
    let authentication = Authentication::new(Credentials::default(), DecoyKey::new([0; 32]));
    HttpState {
        broker: Broker::new(
            policy,
            authentication,
            Limits::new(&settings),
            Box::default(),
            None,
            clock::now(),
        ),
        render_metrics: Arc::new(|| "# HELP a b\n".to_owned()),
        readiness: Arc::new(|| Ok(())),
        cluster: "A".to_owned(),
        node: "tombolo@127.0.0.1".to_owned(),
        metrics_open: true,
        metrics_emqx: true,
        allowed_hosts: vec!["broker.example".to_owned()],
        keys: Arc::new(Keys::of(Path::new("/nonexistent"))),
        link_keys: None,
        changes: None,
        rotation: Arc::default(),
        shelf: Arc::default(),
    }
}

/// An external term without its version byte, skipped whole and read from its head: both end at the same place.
pub(crate) fn terms(input: &[u8]) {
    let mut skipping = Reader::new(input);
    let skipped = skipping.skip();
    let mut reading = Reader::new(input);
    let read = reading.head().and_then(|head| reading.skip_rest(head));
    assert_eq!((read, reading), (skipped, skipping));
    if skipped.is_ok() {
        let whole = Reader::new(input).term().expect("it was skipped");
        assert!(!whole.rest().is_empty(), "a term has bytes");
        assert_eq!(whole.rest(), &input[..input.len() - skipping.rest().len()]);
    }
    for bytes in [Reader::new(input).binary(), Reader::new(input).atom()] {
        assert!(bytes.map_or(0, <[u8]>::len) < input.len().max(1));
    }
    let _ = black_box(Reader::new(input).text());
    let _ = black_box((Reader::new(input).integer(), Reader::new(input).map()));
}

/// A payload on a `$LINK` topic: an external term, inflated within the limit, as each of the things it may be.
pub(crate) fn link(input: &[u8]) {
    let mut inflater = Inflater::default();
    let Ok(mut reader) = inflater.open(input) else { return };
    assert!(reader.rest().len() <= INFLATED_BYTES_MAX);
    let before = reader.rest().len();
    if reader.skip().is_ok() {
        assert!(reader.rest().len() < before, "a term has bytes");
    }
    let again = |inflater: &mut Inflater| {
        let reader = inflater.open(input).expect("it was opened before");
        match payload::parse_control(reader) {
            Ok(Control::Route(update)) => {
                for op in update.ops {
                    assert!(op.id.len() <= payload::ROUTE_ID_BYTES_MAX);
                }
            }
            Ok(Control::RetainedPage(request)) => {
                let all = request.filters.inspect(|filter| topic::check_filter(filter).expect("a filter"));
                assert!(all.count() <= FILTERS_MAX as usize);
            }
            _ => {}
        }
    };
    again(&mut inflater);
    let answered = payload::parse_answer(inflater.open(input).expect("it was opened before"));
    if let Ok(payload::Answer::RetainedPage(page)) = answered {
        let kept = page.messages.keep();
        let topics: Vec<&str> = kept.iter().map(|message| message.topic).collect();
        assert!(topics.is_sorted() && topics.len() == page.messages.count());
        topics.iter().for_each(|name| topic::check_name(name).expect("a Topic Name"));
    }
    let _ = payload::parse_ack(inflater.open(input).expect("it was opened before"));
    if let Ok(forwarded) = message::parse(inflater.open(input).expect("it was opened before")) {
        topic::check_name(forwarded.topic).expect("a forwarded message has a Topic Name");
        assert!(forwarded.payload.len() <= before);
    }
}

/// An ACL file in both modes: errors have a place in the text, and rules that compile are linted and asked. What strict
/// mode takes, the other does.
pub(crate) fn acl(input: &[u8]) {
    let lines = input.iter().filter(|byte| **byte == b'\n').count() + 1;
    let compile = |mode| RuleSet::compile(input, &CompileOptions { mode, ..CompileOptions::default() });
    let strict = compile(Mode::Strict);
    match &strict {
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.line as usize <= lines, "{error:?}");
                black_box(error.render("acl.conf"));
            }
        }
        Ok(rules) => {
            let text = std::str::from_utf8(input).expect("rules are text");
            black_box(lint(rules, text, &Inventory::default()));
            ask(rules);
        }
    }
    if let Ok(rules) = compile(Mode::Emqx) {
        ask(&rules);
    } else {
        assert!(strict.is_err(), "strict mode takes what the other does not");
    }
}

fn ask(rules: &RuleSet) {
    let attributes = [("site".to_owned(), "a/#".to_owned())].into();
    for (client_id, username) in [("#", Some("+")), ("dev1", None), ("a/b", Some(".*"))] {
        let subject = Subject {
            client_id,
            username,
            peer_host: Some([127, 0, 0, 1].into()),
            cert_common_name: Some("$"),
            zone: "default",
            listener: "tcp:default",
            client_attrs: &attributes,
            is_superuser: false,
        };
        for topic in ["t/dev1/x", "$SYS/broker", "#", "t/#"] {
            let publish = Request::Publish { topic, qos: QoS::AtLeastOnce, retain: true };
            let subscribe = Request::Subscribe { filter: topic, qos: QoS::ExactlyOnce };
            for request in [publish, subscribe] {
                black_box(rules.authorize(&subject, &request, Permission::Deny));
            }
        }
    }
}

/// A configuration: settings, or errors that say where.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // It must not read files of this machine.
    if text.contains("${file") {
        return;
    }
    if let Err(errors) = config::parse("fuzz.toml", text, &Environment::default()) {
        assert!(!errors.is_empty());
        for error in errors {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// A password file: what is read is written and read again as the same.
pub(crate) fn passwords(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(file) = PasswordFile::parse(text) else { return };
    let written = file.render();
    let again = PasswordFile::parse(&written).expect("what was written can be read");
    assert_eq!(again.len(), file.len());
    assert_eq!(again.render(), written);
}

/// Lines of filters, the last one a name: the trie finds what comparing them one by one finds, and forgets them all.
pub(crate) fn topics(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines: Vec<&str> = text.split('\n').take(64).collect();
    let name = lines.pop().unwrap_or_default();
    let mut filters: Vec<&str> =
        lines.iter().filter_map(|line| Some(ParsedFilter::parse(line).ok()?.filter)).collect();
    filters.sort_unstable();
    filters.dedup();
    let mut trie = TopicTrie::new(RandomState::default());
    for filter in &filters {
        trie.insert(filter, *filter);
    }
    if topic::check_name(name).is_ok() {
        let mut found = Vec::new();
        trie.for_each_match(name, |filter| found.push(*filter));
        found.sort_unstable();
        let wanted: Vec<&str> =
            filters.iter().copied().filter(|filter| topic::matches(filter, name)).collect();
        assert_eq!(found, wanted);
    }
    for pair in filters.windows(2) {
        if let Some(both) = topic::intersection(pair[0], pair[1]) {
            topic::check_filter(&both).expect("an intersection is a filter");
            assert!(topic::is_subset(&both, pair[0]) && topic::is_subset(&both, pair[1]));
        }
    }
    for filter in &filters {
        assert_eq!(trie.remove(filter), Some(*filter));
    }
    assert_eq!((trie.len(), trie.node_count(), trie.level_count()), (0, 0, 0));
}

/// A certificate: its facts are text that can be shown.
pub(crate) fn certificate(input: &[u8]) {
    let demands = fitness::Demands {
        usages: vec![fitness::KeyUsage::ClientAuth],
        rsa_bits_min: fitness::LINK_RSA_BITS_MIN,
    };
    let _ = demands.check_leaf(input);
    if let Ok(facts) = CertificateFacts::from_der(input) {
        assert!(!facts.subject.chars().any(char::is_control));
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(fingerprint) = certificate::parse_fingerprint(text)
    {
        let shown = certificate::fingerprint_hex(&fingerprint);
        assert_eq!(certificate::parse_fingerprint(&shown).ok(), Some(fingerprint));
    }
}

/// Base64: what is read has one form, with its padding or without.
pub(crate) fn base64(input: &[u8]) {
    assert_eq!(base64::decode(&base64::encode(input)).as_deref(), Some(input));
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(bytes) = base64::decode(text) {
        assert_eq!(base64::encode(&bytes).trim_end_matches('='), text.trim_end_matches('='));
    }
}

/// A token, a set of keys and a key in PEM: nothing is let in that nobody signed.
pub(crate) fn tokens(input: &[u8]) {
    static SECRET: LazyLock<KeySet> = LazyLock::new(|| {
        KeySet::secret(b"a secret that no input of a fuzzer can know", false).expect("long enough")
    });
    let rules = jwt::Rules {
        from: jwt::From::Password,
        username_claim: "sub".to_owned(),
        require_exp: false,
        leeway_seconds: 0,
        verify_claims: vec![("aud".to_owned(), "${username}${clientid}".to_owned())],
        disconnect_after_expire: true,
    };
    let asked = jwt::Asked { username: None, password: Some(input), client_id: "c", now_unix: 0 };
    let sets = [KeySet::json(input).ok(), KeySet::pem(input).ok()];
    for keys in sets.iter().flatten().chain([&*SECRET]) {
        assert!(!keys.is_empty());
        let (answer, _) = jwt::answer(keys, &rules, &asked);
        assert!(!matches!(answer, Answer::Allow(_)), "nobody signed it");
    }
    let _ = black_box(jwt::looks_like_a_token(input));
}

/// The answer of an HTTP authenticator, its status in the first byte: only 200 and 204 let in, and nobody as a link.
pub(crate) fn callouts(input: &[u8]) {
    let (Some(first), body) = (input.first(), input.get(1..).unwrap_or_default()) else { return };
    let status = 200 + u16::from(*first);
    if let Ok(reply) = callout::read(status, body, Some("u"), 1_000)
        && let Answer::Allow(grant) = reply.answer
    {
        assert!(status == 200 || status == 204);
        assert!(!grant.attributes.contains_key("link_id") && grant.expires_unix.is_none_or(|at| at > 1_000));
    }
}

/// A file of users of EMQX: whatever is read of it can stand in a password file, or the file says why not.
pub(crate) fn imports(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for made in
        [None, Some(Made::Sha256(SaltPosition::Prefix)), Some(Made::Bcrypt), Some(Made::Pbkdf2(600_000))]
    {
        let Ok(users) = import::read(text, made) else { continue };
        let mut file = PasswordFile::default();
        for user in users {
            if let import::Imported::Hash(hash) = user.secret {
                let _ = file.set(&user.name, hash.into());
            }
        }
        passwords(file.render().as_bytes());
    }
}

/// A token for a link, as it is carried and as what is inside it: what is read is written and read again as the same, and
/// neither it nor an error shows the secret.
pub(crate) fn link_token(input: &[u8]) {
    let carried = std::str::from_utf8(input).map(str::to_owned);
    let coded = base64::encode(input).replace('+', "-").replace('/', "_");
    let inside = format!("{}{}", token::PREFIX, coded.trim_end_matches('='));
    for text in carried.iter().chain([&inside]) {
        let Ok(read) = Token::parse(text) else { continue };
        assert!((1..=ADDRESSES_MAX).contains(&read.addrs.len()));
        let written = read.encode().expect("it was no longer when it was read");
        assert_eq!(Token::parse(&written).as_ref(), Ok(&read));
        assert!(!format!("{read:?} {read}").contains(&*read.secret.text()));
    }
}

/// What whoever holds a token asks: read, written and read again as the same. A book without tokens gives nobody anything.
pub(crate) fn enrol_request(input: &[u8]) {
    if let Ok(request) = EnrolRequest::parse(input) {
        assert!(request.addrs.len() <= ADDRESSES_MAX);
        assert_eq!(EnrolRequest::parse(&request.encode()).as_ref(), Ok(&request));
    }
    let own = Own::bare("A", "clink-A-", Fingerprint([1; 32]));
    let mut book = Book::default();
    let redeemed = book.redeem_bytes(&own, input, input, "192.0.2.7:1", 0);
    assert!(matches!(redeemed.answer, EnrolAnswer::Error { .. }) && !redeemed.changed);
    assert_eq!(book, Book::default());
}

/// What is answered, and what a peer says of its certificate: one line for people, and written as it was read.
pub(crate) fn enrol_answer(input: &[u8]) {
    if let Ok(answer) = EnrolAnswer::parse(input) {
        if let EnrolAnswer::Error { text, .. } = &answer {
            assert!(!text.chars().any(char::is_control));
        }
        assert_eq!(EnrolAnswer::parse(&answer.encode()).as_ref(), Ok(&answer));
    }
    if let Ok(statement) = Statement::parse(input) {
        assert_eq!(Statement::parse(&statement.encode()).as_ref(), Ok(&statement));
    }
}

/// A book of trust as somebody changed it by hand: what is read is written and read again as the same, and its rules compile.
pub(crate) fn trust_book(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(mut book) = Book::from_json(text) else { return };
    assert_eq!(Book::from_json(&book.to_json()).as_ref(), Ok(&book));
    let peers = generate::peers(&book);
    let rules = generate::rules(&peers);
    RuleSet::compile(&rules, &CompileOptions::default()).expect("rules that we make are rules");
    for rule in book.peers(1_767_323_045) {
        assert!(!rule.cert_sha256.is_empty() && !rule.clientid_prefix.is_empty());
    }
    let _ = black_box(book.expire(u64::MAX));
    let _ = black_box(book.next_change(u64::MAX));
    assert!(Book::from_json(&book.to_json()).is_ok());
}
