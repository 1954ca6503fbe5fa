//! The chain of authenticators and how often it may fail, over real sockets. Where each case of `authn-tls.md` section 6
//! is shown:
//!
//! | case | test |
//! |---|---|
//! | A1, A2 | `auth::a_wrong_password_and_an_unknown_user_get_the_same_answer`; one cost: `auth::password::tests::every_attempt_that_fails_computes_the_same_whoever_the_user_is` in the library |
//! | A3 | `auth::passwords_are_bytes_and_odd_ones_are_only_wrong` |
//! | A4 to A6, A8 | `link_confinement::who_acts_as_a_peer_without_its_proof_is_refused_before_any_takeover`, `link_certificates::the_certificate_of_one_cluster_is_no_proof_for_another`; applications: `hostile::another_user_does_not_get_a_session`, [`no_step_gives_an_application_the_username_of_a_link`] |
//! | A7 | the tables of `auth::peer::tests` in the library, `tests/config.rs` |
//! | A9 | [`a_thousand_guesses_are_hardly_looked_at_and_the_link_stays`], [`a_name_is_locked_out_for_those_who_failed_only`] |
//! | A10 | [`a_thousand_guesses_are_hardly_looked_at_and_the_link_stays`], [`failures_of_others_hold_nobody_up_who_shows_no_secret`]; `auth::attempts::tests` in the library |
//! | A11 | [`both_passwords_are_good_until_the_old_one_ends`] |
//! | A12 | `tests/config.rs` |
//! | A13 | [`whatever_goes_wrong_with_a_call_out_denies_and_is_no_guess`]; a panic: `broker::authenticate::tests` in the library |
//! | A14 | `errors::packets_of_a_server_and_a_second_connect`, [`a_connect_that_is_sent_again_is_a_new_login`] |
//! | A15 | [`odd_names_are_refused_or_inert`], `connect::identifiers_are_bounded_and_without_control_characters` |
//! | A16 | `errors::nothing_but_connect_comes_first` |
//! | A17 | `banned` |
//! | A18 | `scram::a_method_that_is_not_offered_is_refused_by_name` |

use std::fs;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use base64ct::Base64UrlUnpadded;
use base64ct::Encoding;
use ring::hmac;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use tombolo::auth::password::PasswordFile;
use tombolo::auth::password::hash_password;
use tombolo::auth::password::hashes::SaltPosition;
use tombolo::auth::password::hashes::StoredHash;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;

use crate::auth::passwords;
use crate::banned::open_from;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::link_confinement::link_to;
use crate::transports::Authority;
use crate::transports::tls_client;

const LET_IN: Got = Got::ConnAck(false, 0);
const REFUSED: Got = Got::ConnAck(false, 0x87);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

async fn try_in(client: &mut Client, user: Option<&str>, password: Option<&[u8]>) -> Got {
    client.connect(&Connect { username: user, password, ..hello(Version::V5, "c") }).await
}

async fn log_in(broker: &Running, user: Option<&str>, password: Option<&[u8]>) -> (Client, Got) {
    let mut client = broker.open().await;
    let got = try_in(&mut client, user, password).await;
    (client, got)
}

async fn from(broker: &Running, host: &str, user: &str, password: &str) -> Got {
    let mut client = open_from(broker, host).await;
    try_in(&mut client, Some(user), Some(password.as_bytes())).await
}

fn token(claims: &Value) -> Vec<u8> {
    let encoded = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let text = format!("{}.{}", encoded(br#"{"alg":"HS256"}"#), encoded(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    format!("{text}.{}", encoded(tag.as_ref())).into_bytes()
}

fn now() -> u64 {
    clock::now().unix_ms / 1000
}

fn jwt(more: &str) -> String {
    format!("[[authentication.chain]]\nmechanism = \"jwt\"\nsecret = \"{SECRET}\"\n{more}\n")
}

/// An HTTP server of one answer for each request, which `answer` makes of its head and body. How often it was asked.
async fn web(answer: impl Fn(&str, &str) -> Option<String> + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut more = [0; 4096];
                let read = stream.read(&mut more).await.unwrap_or(0);
                bytes.extend_from_slice(&more[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let whole = text.split_once("\r\n\r\n").filter(|(head, body)| {
                    let length = head.to_lowercase().split_once("content-length: ").map_or(0, |(_, rest)| {
                        rest.split("\r\n").next().and_then(|length| length.parse().ok()).unwrap_or(0)
                    });
                    body.len() >= length
                });
                if let Some((head, body)) = whole {
                    break (head.to_owned(), body.to_owned());
                }
                if read == 0 {
                    break (String::new(), String::new());
                }
            };
            count.fetch_add(1, Ordering::SeqCst);
            match answer(&head, &body) {
                Some(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                }
                None => silent.push(stream), // It says nothing until the test is over.
            }
        }
    });
    (port, asked)
}

fn http_answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn the_steps_of_a_chain_are_asked_in_order_until_one_decides() {
    let (port, asked) = web(|_, body| {
        let question: Value = serde_json::from_str(body).unwrap();
        let result = match question["username"].as_str() {
            Some("carol") if question["password"] == "pw" => "allow",
            Some("dave") => "ignore",
            _ => "deny",
        };
        Some(http_answer(200, &json!({ "result": result }).to_string()))
    })
    .await;
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret")]);
    fs::rename(setup.path("passwd"), setup.path("first")).unwrap();
    passwords(&setup, &[("alice", "another"), ("bob", "other")]);
    let chain = format!(
        "password_file = \"{{dir}}/first\"\n[[authentication.chain]]\nmechanism = \"password\"\n\
         password_file = \"{{dir}}/passwd\"\n{}[[authentication.chain]]\nmechanism = \"http\"\n\
         url = \"http://127.0.0.1:{port}/auth?x=1\"\n",
        jwt("")
    );
    let broker = setup.authentication(&chain).start().await;
    let token = token(&json!({"sub": "erin", "exp": now() + 100}));
    type Row<'a> = (Option<&'a str>, Option<&'a [u8]>, Got, usize);
    let table: [Row<'_>; 9] = [
        (Some("alice"), Some(b"secret"), LET_IN, 0),
        (Some("alice"), Some(b"another"), REFUSED, 1), // The first file that has a user decides, whoever is asked.
        (Some("bob"), Some(b"other"), LET_IN, 0),
        (Some("erin"), Some(&token), LET_IN, 0),
        (Some("frank"), Some(&token), REFUSED, 0), // Another's token.
        (Some("carol"), Some(b"pw"), LET_IN, 1),
        (Some("carol"), Some(b"px"), REFUSED, 1),
        (Some("dave"), Some(b"pw"), REFUSED, 1), // Nobody decided.
        (None, None, REFUSED, 1),
    ];
    for (user, password, expected, questions) in table {
        let before = asked.load(Ordering::SeqCst);
        let (_, got) = log_in(&broker, user, password).await;
        assert_eq!(got, expected, "{user:?}");
        assert_eq!(asked.load(Ordering::SeqCst) - before, questions, "{user:?}");
    }
}

/// A2: whoever is behind the file is asked either way, and not about what was mistyped there.
#[tokio::test]
async fn a_wrong_password_costs_the_question_that_an_unknown_user_costs() {
    let questions = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&questions);
    let (port, _) = web(move |_, body| {
        let question: Value = serde_json::from_str(body).unwrap();
        let text = |name: &str| question[name].as_str().unwrap_or_default().to_owned();
        seen.lock().unwrap().push((text("username"), text("password")));
        Some(if text("username") == "fails" { http_answer(500, "") } else { http_answer(204, "") })
    })
    .await;
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret"), ("fails", "secret")]);
    let chain = format!(
        "password_file = \"{{dir}}/passwd\"\n{}[[authentication.chain]]\nmechanism = \"http\"\n\
         url = \"http://127.0.0.1:{port}/\"\n",
        jwt("")
    );
    let broker = setup.authentication(&chain).start().await;
    for (user, expected) in [("alice", REFUSED), ("fails", REFUSED), ("nobody", LET_IN)] {
        assert_eq!(log_in(&broker, Some(user), Some(b"mistyped")).await.1, expected, "{user}");
    }
    assert_eq!(log_in(&broker, Some("alice"), Some(&[0xff])).await.1, REFUSED);
    let asked = questions.lock().unwrap().clone();
    let names: Vec<&str> = asked.iter().map(|(user, _)| user.as_str()).collect();
    assert_eq!(names, ["alice", "fails", "nobody"]);
    assert!(asked[0].1 != "mistyped" && asked[1].1 != "mistyped" && asked[2].1 == "mistyped", "{asked:?}");
    assert_eq!(broker.metric("tombolo_authentication_failures_total{reason=\"bad_credentials\"}"), 3);
}

/// A9: an answer that takes its time does not make guesses free.
#[tokio::test]
async fn guesses_that_are_under_way_together_count_as_they_would_one_by_one() {
    let (port, asked) = web(|_, _| Some(http_answer(403, ""))).await;
    let chain =
        format!("[[authentication.chain]]\nmechanism = \"http\"\nurl = \"http://127.0.0.1:{port}/\"\n");
    let broker = Setup::new().authentication(&chain).start().await;
    let mut guessing = JoinSet::new();
    for number in 0..24 {
        let mut client = broker.open().await;
        guessing.spawn(async move {
            try_in(&mut client, Some("alice"), Some(format!("guess {number}").as_bytes())).await
        });
    }
    let answers = guessing.join_all().await;
    assert!(answers.iter().all(|got| *got == REFUSED), "{answers:?}");
    let asked = asked.load(Ordering::SeqCst);
    // Six, and a few more should all of it take seconds.
    assert!((6..12).contains(&asked), "{asked} of 24 were asked about");
    assert_eq!(broker.metric("tombolo_authentication_held_total{reason=\"user\"}"), 24 - asked as u64);
}

#[tokio::test]
async fn users_who_share_a_name_and_come_together_are_all_let_in() {
    let (port, asked) = web(|_, _| Some(http_answer(204, ""))).await;
    let chain =
        format!("[[authentication.chain]]\nmechanism = \"http\"\nurl = \"http://127.0.0.1:{port}/\"\n");
    let broker = Setup::new().authentication(&chain).start().await;
    let mut coming = JoinSet::new();
    for number in 0..24 {
        let mut client = broker.open().await;
        coming.spawn(async move {
            let id = format!("c{number}");
            let asked = Connect { username: Some("fleet"), password: Some(b"pw"), ..hello(Version::V5, &id) };
            client.connect(&asked).await
        });
    }
    assert!(coming.join_all().await.iter().all(|got| *got == LET_IN));
    assert_eq!(asked.load(Ordering::SeqCst), 24);
}

#[tokio::test]
async fn a_certificate_may_be_one_step_among_others() {
    let authority = Authority::new();
    let (server, alice) = (authority.issue("localhost"), authority.issue("alice"));
    let setup = Setup::new();
    passwords(&setup, &[("bob", "other")]);
    let broker = setup
        .listeners(&format!(
            "[[listeners]]\nname = \"tls\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{}\
             verify = \"verify_peer\"",
            authority.server_keys(&server)
        ))
        .authentication(
            "[[authentication.chain]]\nmechanism = \"certificate\"\n[[authentication.chain]]\n\
             mechanism = \"password\"\npassword_file = \"{dir}/passwd\"",
        )
        .acl("{allow, {username, \"alice\"}, all, [\"of/${username}/#\"]}.")
        .start()
        .await;
    let address = broker.address("ssl:tls");
    let open = |own| tls_client(address, &authority, own);
    let mut client = open(Some(&alice)).await.unwrap();
    assert_eq!(try_in(&mut client, None, None).await, LET_IN);
    assert_eq!(client.subscribe("of/alice/#", Q1).await, 1);
    client.leave().await;
    // The certificate decides where there is one, and the password where there is none.
    let mut client = open(Some(&alice)).await.unwrap();
    assert_eq!(try_in(&mut client, Some("bob"), Some(b"other")).await, REFUSED);
    let mut client = open(None).await.unwrap();
    assert_eq!(try_in(&mut client, Some("bob"), Some(b"other")).await, LET_IN);
}

#[tokio::test]
async fn a_token_says_who_it_is_and_what_attributes_it_has() {
    let broker = Setup::new()
        .authentication(&jwt("from = \"username\"\nverify_claims = { aud = \"here\", cid = \"${clientid}\" }"))
        .acl("{allow, {client_attr, \"site\", \"north\"}, all, [\"north/#\"]}.\n{allow, {username, \"alice\"}, all, [\"a\"]}.")
        .start()
        .await;
    let good = json!({"sub": "alice", "exp": now() + 100, "aud": ["here"], "cid": "c", "client_attrs": {"site": "north"}});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        String::from_utf8(token(&claims)).unwrap()
    };
    let text = with("x", json!(1));
    let (mut client, got) = log_in(&broker, Some(&text), None).await;
    assert_eq!(got, LET_IN);
    assert_eq!((client.subscribe("north/#", Q1).await, client.subscribe("a", Q1).await), (1, 1));
    assert_eq!(client.subscribe("south/#", Q1).await, 0x87);
    for text in [
        with("aud", json!("elsewhere")),
        with("cid", json!("d")),
        with("exp", json!(1)),
        with("sub", json!(null)),
        with("client_attrs", json!({"link_id": "B"})),
        with("acl", json!([])),
        text[..text.len() - 2].to_owned(),
    ] {
        let (mut client, got) = log_in(&broker, Some(&text), None).await;
        assert_eq!(got, REFUSED);
        assert_eq!(client.next().await, Got::Closed);
        // What failed is in the events, and the token is not.
        let events = broker.server.broker().events.remembered(Default::default()).join("");
        assert!(events.contains("authn_login_fail:jwt") && !events.contains(&text));
        broker.server.broker().unlock_user(&text, clock::now());
    }
    broker.until_metric("tombolo_authentication_failures_total{reason=\"token_expired\"}", 1).await;
}

/// A6: the username of a link is that link's, whoever says otherwise.
#[tokio::test]
async fn no_step_gives_an_application_the_username_of_a_link() {
    let broker = Setup::new().authentication(&jwt("")).links(&link_to("B")).start().await;
    for user in [None, Some("clink-user:B")] {
        let token = token(&json!({"sub": "clink-user:B", "exp": now() + 100}));
        let (mut client, got) = log_in(&broker, user, Some(&token)).await;
        assert_eq!(got, REFUSED);
        assert_eq!(client.next().await, Got::Closed);
    }
    let refusals = "tombolo_peer_refusals_total{reason=\"client_id_outside_prefix\"}";
    assert_eq!(broker.metric(refusals), 2);
}

/// A6, for a login that began before the link was there: what it is let in by is looked at again at its end.
#[tokio::test]
async fn a_login_that_is_under_way_when_a_link_takes_its_username_does_not_stay() {
    let callout = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", callout.local_addr().unwrap());
    let chain = format!("[[authentication.chain]]\nmechanism = \"http\"\nurl = \"{url}\"\n");
    let mut broker = Setup::new().authentication(&chain).start().await;
    let mut client = broker.open().await;
    let asked = Connect { username: Some("clink-user:B"), password: Some(b"x"), ..hello(Version::V5, "c") };
    client.send(&Packet::Connect(Box::new(asked))).await;
    let (mut question, _) = callout.accept().await.unwrap();
    let links = Setup::new().links(&link_to("B")).settings().cluster.links;
    let prepared = broker.server.prepare_links(links).await.unwrap();
    broker.server.set_links(prepared).await;
    question.write_all(http_answer(200, r#"{"result": "allow"}"#).as_bytes()).await.unwrap();
    assert_eq!(client.next().await, LET_IN, "by the links that were there when it came");
    client.refused(0x87).await;
}

#[tokio::test]
async fn a_client_is_disconnected_when_its_token_expires() {
    let broker = Setup::new().authentication(&jwt("leeway = \"0s\"")).start().await;
    let (mut stays, got) =
        log_in(&broker, None, Some(&token(&json!({"sub": "a", "exp": now() + 1_000})))).await;
    assert_eq!(got, LET_IN);
    let mut goes = broker.open().await;
    let short = token(&json!({"sub": "b", "exp": now() + 1}));
    let asked = Connect { password: Some(&short), ..hello(Version::V5, "goes") };
    assert_eq!(goes.connect(&asked).await, LET_IN);
    goes.refused(0x87).await;
    stays.quiet().await;
    let events = broker.server.broker().events.remembered(Default::default()).join("");
    assert!(events.contains("its token has expired"), "{events}");
}

#[tokio::test]
async fn keys_are_fetched_from_the_configured_url_and_stay_through_a_reload() {
    let document = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let encoded = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let public = encoded(ring::signature::KeyPair::public_key(&pair).as_ref());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": public}]}).to_string();
    let once = AtomicUsize::new(0);
    let (port, asked) = web(move |head, _| {
        assert!(head.starts_with("GET /keys HTTP/1.1"), "{head}");
        let first = once.fetch_add(1, Ordering::SeqCst) == 0;
        Some(if first { http_answer(200, &set) } else { http_answer(500, "") })
    })
    .await;
    let chain = format!(
        "[[authentication.chain]]\nmechanism = \"jwt\"\nendpoint = \"http://127.0.0.1:{port}/keys\"\n"
    );
    let mut broker = Setup::new().authentication(&chain).start().await;
    broker.until_metric("tombolo_jwks_fetches_total{result=\"ok\"}", 1).await;
    let text = format!(
        "{}.{}",
        encoded(br#"{"alg":"EdDSA","kid":"k"}"#),
        encoded(json!({"sub": "u", "exp": now() + 100}).to_string().as_bytes())
    );
    let token = format!("{text}.{}", encoded(pair.sign(text.as_bytes()).as_ref()));
    let (_, got) = log_in(&broker, None, Some(token.as_bytes())).await;
    assert_eq!(got, LET_IN);
    broker.reload(|setup| setup.mqtt("max_inflight = 7")).await.unwrap();
    broker.until_metric("tombolo_jwks_fetches_total{result=\"error\"}", 1).await;
    let (_, got) = log_in(&broker, None, Some(token.as_bytes())).await;
    assert_eq!(got, LET_IN, "the keys that were fetched last stay");
    assert!(asked.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_call_out_denies_and_is_no_guess() {
    let (port, asked) = web(|head, body| {
        assert!(head.to_lowercase().contains("authorization: bearer x"), "{head}");
        let question: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&question["clientid"], &question["listener"]), (&json!("c"), &json!("tcp:default")));
        Some(match question["username"].as_str() {
            Some("status") => http_answer(500, r#"{"result": "allow"}"#),
            Some("text") => http_answer(200, "allow"),
            Some("large") => http_answer(200, &"x".repeat(100_000)),
            Some("half") => "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
            Some("redirect") => {
                "HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            Some("link") => http_answer(200, r#"{"result": "allow", "client_attrs": {"link_id": "B"}}"#),
            Some("fine") => http_answer(200, r#"{"result": "allow", "is_superuser": true}"#),
            Some("empty") => http_answer(204, ""),
            _ => return None,
        })
    })
    .await;
    let chain = format!(
        "[[authentication.chain]]\nmechanism = \"http\"\nurl = \"http://127.0.0.1:{port}\"\n\
         timeout = \"500ms\"\nauthorization = \"Bearer x\"\n"
    );
    let broker = Setup::new().authentication(&chain).acl("{deny, all}.").start().await;
    let wrong = ["status", "text", "large", "half", "redirect", "link", "silent"];
    for user in wrong {
        let (_, got) = log_in(&broker, Some(user), Some(b"pw")).await;
        assert_eq!(got, REFUSED, "A13: {user}");
    }
    let unavailable = "tombolo_authentication_failures_total{reason=\"unavailable\"}";
    assert_eq!(broker.metric(unavailable), wrong.len() as u64);
    let (mut client, got) = log_in(&broker, Some("fine"), Some(b"pw")).await;
    assert_eq!(got, LET_IN);
    assert_eq!(client.subscribe("a", Q1).await, 0x87, "nobody is made a superuser");
    client.leave().await;
    assert_eq!(log_in(&broker, Some("empty"), None).await.1, LET_IN);
    // A password that is no text is nobody's there, and is not asked about.
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(log_in(&broker, Some("fine"), Some(&[0xff])).await.1, REFUSED);
    assert_eq!(asked.load(Ordering::SeqCst), before);
    assert_eq!(broker.metric("tombolo_authentication_held_total{reason=\"source\"}"), 0);
}

#[tokio::test]
async fn a_call_out_by_https_trusts_its_own_authorities_only() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (signer, expected) in [(&authority, LET_IN), (&stranger, REFUSED)] {
        let server = signer.issue("localhost");
        let config = rustls_server(&server.certfile, &server.keyfile);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes).await;
            let _ = stream.write_all(http_answer(204, "").as_bytes()).await;
            let _ = stream.shutdown().await;
        });
        let chain = format!(
            "[[authentication.chain]]\nmechanism = \"http\"\nurl = \"https://localhost:{port}/\"\ncacertfile = \"{}\"\n",
            authority.file().display()
        );
        let broker = Setup::new().authentication(&chain).start().await;
        assert_eq!(log_in(&broker, Some("u"), Some(b"pw")).await.1, expected);
    }
}

fn rustls_server(certfile: &std::path::Path, keyfile: &std::path::Path) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    let chain = CertificateDer::pem_file_iter(certfile).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(keyfile).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// A9, A10: a stranger guesses as the link's user; almost nothing of it is hashed, and the link comes and goes as ever.
#[tokio::test]
async fn a_thousand_guesses_are_hardly_looked_at_and_the_link_stays() {
    let authority = Authority::new();
    let (keys, own) = (authority.server_keys(&authority.issue("localhost")), authority.issue("cluster-b"));
    let setup = Setup::new();
    passwords(&setup, &[("clink-user:B", "right"), ("alice", "secret")]);
    let broker = setup
        .authentication("password_file = \"{dir}/passwd\"")
        .listeners(&format!(
            "[[listeners]]\nname = \"default\"\nbind = \"127.0.0.1:0\"\n[[listeners]]\nname = \"x\"\n\
             type = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n[listeners.ssl]\n{keys}\n"
        ))
        .links(
            "[[cluster.links]]\nname = \"B\"\nserver = \"127.0.0.1:1\"\ntopics = []\n[cluster.links.peer]\n\
             username = \"clink-user:B\"\ncert_cn = \"cluster-b\"\n[cluster.links.ssl]\nenable = false\n",
        )
        .start()
        .await;
    let link = || async {
        let mut client = tls_client(broker.address("ssl:x"), &authority, Some(&own)).await.unwrap();
        let asked = Connect {
            username: Some("clink-user:B"),
            password: Some(b"right"),
            ..hello(Version::V5, "clink-B-1")
        };
        assert_eq!(client.connect(&asked).await, LET_IN);
        client
    };
    let mut held = link().await;
    for n in 0..1_000 {
        let user = if n % 2 == 0 { "clink-user:B" } else { "alice" };
        let (_, got) = log_in(&broker, Some(user), Some(format!("guess {n}").as_bytes())).await;
        assert_eq!(got, REFUSED);
    }
    let looked_at = broker.metric("tombolo_authentication_failures_total{reason=\"bad_credentials\"}")
        + broker.metric("tombolo_authentication_failures_total{reason=\"peer\"}");
    assert!(looked_at < 40, "{looked_at} of 1,000 were hashed");
    assert_eq!(broker.metric("tombolo_authentication_failures_total{reason=\"held\"}"), 1_000 - looked_at);
    held.quiet().await;
    held.leave().await;
    link().await.quiet().await;
    // The victim's right password is good from elsewhere all the time.
    assert_eq!(from(&broker, "127.0.9.1", "alice", "secret").await, LET_IN);
}

/// A9: one user, many addresses.
#[tokio::test]
async fn a_name_is_locked_out_for_those_who_failed_only() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret")]);
    let broker = setup.authentication("password_file = \"{dir}/passwd\"").start().await;
    assert_eq!(from(&broker, "127.0.77.1", "alice", "secret").await, LET_IN);
    for block in 0..11 {
        assert_eq!(from(&broker, &format!("127.1.{block}.1"), "alice", "guess").await, REFUSED);
    }
    assert_eq!(broker.metric("tombolo_authentication_lockouts_total"), 1);
    let events = broker.server.broker().events.remembered(Default::default()).join("");
    assert!(events.contains("authn_lockout"), "{events}");
    // Right or wrong, whoever failed has to wait now, its neighbours too.
    assert_eq!(from(&broker, "127.1.3.9", "alice", "secret").await, REFUSED);
    assert_eq!(broker.metric("tombolo_authentication_held_total{reason=\"lockout\"}"), 1);
    // Alice is not kept out: neither where she was before, nor where nobody failed.
    assert_eq!(from(&broker, "127.0.77.1", "alice", "secret").await, LET_IN);
    assert_eq!(from(&broker, "127.2.0.1", "alice", "secret").await, LET_IN);
    assert!(broker.server.broker().unlock_user("alice", clock::now()));
    assert_eq!(from(&broker, "127.1.3.9", "alice", "secret").await, LET_IN);
}

#[tokio::test]
async fn limits_can_be_changed_and_switched_off() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret")]);
    let off = "password_file = \"{dir}/passwd\"\nattempts = { enable = false }";
    let mut broker = setup.authentication(off).start().await;
    for _ in 0..12 {
        assert_eq!(from(&broker, "127.0.0.1", "alice", "guess").await, REFUSED);
    }
    assert_eq!(from(&broker, "127.0.0.1", "alice", "secret").await, LET_IN);
    let strict = "password_file = \"{dir}/passwd\"\nattempts = { lockout_failures = 1 }";
    broker.reload(|setup| setup.authentication(strict)).await.unwrap();
    assert_eq!(from(&broker, "127.5.0.1", "alice", "guess").await, REFUSED);
    assert_eq!(from(&broker, "127.5.0.1", "alice", "secret").await, REFUSED);
    assert_eq!(broker.metric("tombolo_authentication_held_total{reason=\"lockout\"}"), 1);
}

#[tokio::test]
async fn both_passwords_are_good_until_the_old_one_ends() {
    let hash = |password: &[u8]| hash_password(password, &[7; 16]).unwrap();
    let setup = Setup::new();
    let write = |setup: &Setup, until| {
        let mut file = PasswordFile::default();
        file.set("u", hash(b"new").replacing(hash(b"old"), until)).unwrap();
        setup.file("passwd", &file.render());
    };
    write(&setup, now() + 1_000);
    let mut broker = setup.authentication("password_file = \"{dir}/passwd\"").start().await;
    for password in [&b"old"[..], b"new"] {
        assert_eq!(log_in(&broker, Some("u"), Some(password)).await.1, LET_IN, "A11");
    }
    let reloaded = broker.reload(|setup| {
        write(&setup, now() - 1);
        setup
    });
    reloaded.await.unwrap();
    assert_eq!(log_in(&broker, Some("u"), Some(b"old")).await.1, REFUSED);
    assert_eq!(log_in(&broker, Some("u"), Some(b"new")).await.1, LET_IN);
}

#[tokio::test]
async fn a_legacy_hash_is_replaced_at_the_next_good_login() {
    let digest = ring::digest::digest(&ring::digest::SHA256, b"saltsecret");
    let hash = StoredHash::legacy(false, SaltPosition::Prefix, b"salt", digest.as_ref()).unwrap();
    let line = format!("# ours\nu:{}\n", hash.text());
    let setup = Setup::new();
    setup.file("passwd", &line);
    let refused = setup.authentication("password_file = \"{dir}/passwd\"");
    let settings = refused.settings();
    let error = tombolo::broker::server::Server::start(settings).await.err().unwrap().to_string();
    assert!(error.contains("legacy_hashes") && error.contains("`u`"), "{error}");
    let broker =
        refused.authentication("password_file = \"{dir}/passwd\"\nlegacy_hashes = true").start().await;
    assert_eq!(log_in(&broker, Some("u"), Some(b"wrong")).await.1, REFUSED);
    assert_eq!(fs::read_to_string(broker.path("passwd")).unwrap(), line);
    for _ in 0..2 {
        assert_eq!(
            log_in(&broker, Some("u"), Some(b"secret")).await.1,
            LET_IN,
            "by the hash that is in memory"
        );
    }
    // It is written with those of the next seconds, and at the end whatever is left.
    let path = broker.path("passwd");
    broker.server.stop().await;
    let text = fs::read_to_string(path).unwrap();
    assert!(text.starts_with("# ours\nu:$argon2id$"), "{text}");
    assert!(PasswordFile::parse(&text).unwrap().verify("u", b"secret"));
}

#[tokio::test]
async fn a_legacy_hash_that_cannot_be_replaced_still_lets_in() {
    let digest = ring::digest::digest(&ring::digest::SHA512, b"secret");
    let hash = StoredHash::legacy(true, SaltPosition::Disable, b"", digest.as_ref()).unwrap();
    let setup = Setup::new();
    setup.file("passwd", &format!("u:{}\n", hash.text()));
    let broker = setup.authentication("password_file = \"{dir}/passwd\"\nlegacy_hashes = true").start().await;
    fs::remove_file(broker.path("passwd")).unwrap();
    assert_eq!(log_in(&broker, Some("u"), Some(b"secret")).await.1, LET_IN);
    assert!(!broker.path("passwd").exists());
}

/// A14: what was recorded of a login that ended is no more than its credentials.
#[tokio::test]
async fn a_connect_that_is_sent_again_is_a_new_login() {
    let broker = Setup::new().authentication(&jwt("leeway = \"0s\"")).start().await;
    let short = token(&json!({"sub": "u", "exp": now() + 1}));
    let (mut client, got) = log_in(&broker, None, Some(&short)).await;
    assert_eq!(got, LET_IN);
    client.refused(0x87).await;
    assert_eq!(log_in(&broker, None, Some(&short)).await.1, REFUSED, "the token is past");
}

/// A15: names may hold whatever UTF-8 has, and mean nothing by it.
#[tokio::test]
async fn odd_names_are_refused_or_inert() {
    let setup = Setup::new();
    passwords(&setup, &[("a+b/#", "secret")]);
    let broker = setup
        .authentication("password_file = \"{dir}/passwd\"")
        .acl("{allow, all, all, [\"of/${username}/x\"]}.")
        .start()
        .await;
    let long = "x".repeat(65_535);
    for name in ["+", "#", "a/b", "\u{202e}evil", "${username}", long.as_str()] {
        let (mut client, got) = log_in(&broker, Some(name), Some(b"secret")).await;
        assert_eq!(got, REFUSED, "{name:.20}");
        assert_eq!(client.next().await, Got::Closed);
    }
    for line in broker.server.broker().events.remembered(Default::default()) {
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{202e}'));
    }
    // A name with wildcards widens no rule.
    let (mut client, got) = log_in(&broker, Some("a+b/#"), Some(b"secret")).await;
    assert_eq!(got, LET_IN);
    for filter in ["of/#", "of/+/x", "of/other/x"] {
        assert_eq!(client.subscribe(filter, Q1).await, 0x87, "{filter}");
    }
}

#[tokio::test]
async fn failures_of_others_hold_nobody_up_who_shows_no_secret() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret")]);
    let broker =
        setup.authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"").start().await;
    // Until the whole network is held.
    let held = "tombolo_authentication_failures_total{reason=\"held\"}";
    for number in 0..200 {
        let (mut client, user) = (broker.open().await, format!("nobody-{number}"));
        assert_eq!(try_in(&mut client, Some(&user), Some(b"guess")).await, REFUSED);
        if broker.metric(held) > 0 {
            break;
        }
    }
    assert!(broker.metric(held) > 0);
    assert_eq!(try_in(&mut broker.open().await, Some("alice"), Some(b"secret")).await, REFUSED);
    assert_eq!(try_in(&mut broker.open().await, None, None).await, LET_IN);
}
