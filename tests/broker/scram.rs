//! Enhanced authentication with SCRAM-SHA-256 (MQTT 5.0 section 4.12, RFC 5802, RFC 7677), before CONNACK and again
//! on a live connection.

use std::num::NonZeroU32;

use base64ct::Base64;
use base64ct::Encoding;
use ring::digest;
use ring::hmac;
use ring::pbkdf2;

use tombolo::auth::scram::Credential;
use tombolo::auth::scram::ScramFile;
use tombolo::mqtt::packet::Auth;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::property::PropertiesBuf;
use tombolo::mqtt::property::Property;
use tombolo::mqtt::property::PropertyContext;
use tombolo::mqtt::reason::ReasonCode;

use crate::auth::passwords;
use crate::banned::open_from;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;

const METHOD: &str = "SCRAM-SHA-256";
const CHAIN: &str = "[[authentication.chain]]\nmechanism = \"scram\"\npassword_file = \"{dir}/scram\"";
const LISTENERS: &str = "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
    [[listeners]]\nname = \"links\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\nallow_insecure = true";
const NOT_AUTHORIZED: Got = Got::ConnAck(false, 0x87);

fn users(setup: &Setup, list: &[(&str, &str)]) {
    let mut file = ScramFile::default();
    for (user, password) in list {
        file.set(user, Credential::derive(password.as_bytes(), &[9; 16], 4096).unwrap()).unwrap();
    }
    setup.file("scram", &file.render());
}

async fn start(change: impl FnOnce(Setup) -> Setup) -> Running {
    let setup = Setup::new();
    users(&setup, &[("alice", "secret"), ("bob", "other")]);
    change(setup.authentication(CHAIN)).start().await
}

fn tag(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// The client's side of one exchange.
struct Scram {
    user: &'static str,
    password: &'static str,
    auth_message: String,
    salted: [u8; 32],
}

impl Scram {
    fn new(user: &'static str, password: &'static str) -> Self {
        Self { user, password, auth_message: String::new(), salted: [0; 32] }
    }

    fn first(&self) -> Vec<u8> {
        format!("n,,n={},r=rOprNGfwEbeRWgbNEkqO", self.user).into_bytes()
    }

    fn last(&mut self, challenge: &[u8]) -> Vec<u8> {
        let challenge = std::str::from_utf8(challenge).unwrap();
        let mut parts = challenge.split(',').map(|part| &part[2..]);
        let (nonce, salt, rounds) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let (rounds, salt) =
            (NonZeroU32::new(rounds.parse().unwrap()).unwrap(), Base64::decode_vec(salt).unwrap());
        let password = self.password.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password, &mut self.salted);
        let without_proof = format!("c=biws,r={nonce}");
        self.auth_message = format!("n={},r=rOprNGfwEbeRWgbNEkqO,{challenge},{without_proof}", self.user);
        let client_key = tag(&self.salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let signature = tag(stored_key.as_ref(), self.auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        format!("{without_proof},p={}", Base64::encode_string(&proof)).into_bytes()
    }

    /// What a Server says that knows the user.
    fn verdict(&self) -> Vec<u8> {
        let server_key = tag(&self.salted, b"Server Key");
        format!("v={}", Base64::encode_string(&tag(&server_key, self.auth_message.as_bytes()))).into_bytes()
    }
}

fn of_method(method: &str, data: Option<&[u8]>) -> PropertiesBuf {
    let mut list = vec![Property::AuthenticationMethod(method)];
    list.extend(data.map(Property::AuthenticationData));
    properties(&list)
}

/// Sends CONNECT with the method and gives what comes.
async fn say_hello(client: &mut Client, method: &str, data: Option<&[u8]>, more: &Connect<'_>) -> Got {
    let list = of_method(method, data);
    client.connect(&Connect { properties: list.as_properties(), ..more.clone() }).await
}

async fn send_auth(client: &mut Client, reason: ReasonCode, method: &str, data: &[u8]) {
    let list = of_method(method, Some(data));
    client.send(&Packet::Auth(Auth { reason, properties: list.as_properties() })).await;
}

async fn go_on(client: &mut Client, data: &[u8]) {
    send_auth(client, ReasonCode::ContinueAuthentication, METHOD, data).await;
}

/// The data of the challenge; it names the method.
fn challenge(client: &Client, got: Got) -> Vec<u8> {
    let Got::Auth(0x18, data) = got else { panic!("{got:?}") };
    let found = Properties::parse(&client.properties, PropertyContext::Auth).unwrap();
    assert_eq!(found.authentication_method(), Some(METHOD), "[MQTT-4.12.0-5]");
    data
}

/// Everything up to the answer to the last message of the client.
async fn log_in(client: &mut Client, scram: &mut Scram, more: &Connect<'_>) -> Got {
    let got = say_hello(client, METHOD, Some(&scram.first()), more).await;
    let data = challenge(client, got);
    go_on(client, &scram.last(&data)).await;
    client.next().await
}

async fn joined(broker: &Running, user: &'static str, password: &'static str, id: &str) -> Client {
    let mut client = broker.open().await;
    let got = log_in(&mut client, &mut Scram::new(user, password), &hello(Version::V5, id)).await;
    assert_eq!(got, Got::ConnAck(false, 0));
    client
}

#[tokio::test]
async fn a_user_who_proves_its_password_is_let_in_and_told_so() {
    let broker = start(|setup| setup).await;
    let mut client = broker.open().await;
    let mut scram = Scram::new("alice", "secret");
    let got = log_in(&mut client, &mut scram, &hello(Version::V5, "c")).await;
    assert_eq!(got, Got::ConnAck(false, 0), "[MQTT-4.12.0-2], [MQTT-4.12.0-3]");
    let told = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!(told.authentication_method(), Some(METHOD), "[MQTT-4.12.0-5]");
    assert_eq!(told.authentication_data(), Some(&*scram.verdict()), "the Server knows the user as well");
    client.quiet().await;
    broker.until_metric("tombolo_packets_received_total{type=\"auth\"}", 1).await;
    broker.until_metric("tombolo_packets_sent_total{type=\"auth\"}", 1).await;
}

#[tokio::test]
async fn a_client_that_sends_no_data_with_connect_is_asked_for_it() {
    let broker = start(|setup| setup).await;
    let mut client = broker.open().await;
    let got = say_hello(&mut client, METHOD, None, &hello(Version::V5, "c")).await;
    assert_eq!(challenge(&client, got), b"");
    let mut scram = Scram::new("alice", "secret");
    go_on(&mut client, &scram.first()).await;
    let got = client.next().await;
    let data = challenge(&client, got);
    go_on(&mut client, &scram.last(&data)).await;
    assert_eq!(client.next().await, Got::ConnAck(false, 0));
}

#[tokio::test]
async fn every_failed_proof_gets_the_same_answer() {
    let broker = start(|setup| setup).await;
    let mut answers = Vec::new();
    for (user, password) in [("alice", "wrong"), ("nobody", "secret"), ("alice", "")] {
        let mut client = broker.open().await;
        let got = log_in(&mut client, &mut Scram::new(user, password), &hello(Version::V5, "c")).await;
        answers.push((got, client.properties.clone()));
        assert_eq!(client.next().await, Got::Closed);
    }
    for first in ["p=tls-unique,,n=alice,r=x", "n,,n=alice", "n,a=bob,n=alice,r=x", "\u{0}"] {
        let mut client = broker.open().await;
        let got = say_hello(&mut client, METHOD, Some(first.as_bytes()), &hello(Version::V5, "c")).await;
        answers.push((got, client.properties.clone()));
        assert_eq!(client.next().await, Got::Closed);
    }
    let mut client = broker.open().await;
    let got = say_hello(&mut client, METHOD, Some(b"n,,n=alice,r=x"), &hello(Version::V5, "c")).await;
    challenge(&client, got);
    go_on(&mut client, b"c=biws,r=x,p=eHg=").await;
    answers.push((client.next().await, client.properties.clone()));
    assert_eq!(answers[0].0, NOT_AUTHORIZED, "[MQTT-4.12.0-4]");
    assert!(answers.iter().all(|other| other.0 == answers[0].0), "{answers:?}");
    broker.until_metric("tombolo_authentication_failures_total{reason=\"enhanced\"}", 8).await;
}

#[tokio::test]
async fn an_unknown_user_is_shown_a_salt_that_stays_through_a_reload() {
    let mut broker = start(|setup| setup).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut client = broker.open().await;
        let first = Scram::new("nobody", "x").first();
        let got = say_hello(&mut client, METHOD, Some(&first), &hello(Version::V5, "c")).await;
        let text = String::from_utf8(challenge(&client, got)).unwrap();
        seen.push(text.split_once(",s=").unwrap().1.to_owned());
        broker.reload(|setup| setup).await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].ends_with(",i=4096"), "as the users of the file: {}", seen[0]);
}

#[tokio::test]
async fn a_method_that_is_not_offered_is_refused_by_name() {
    let without = Setup::new().start().await;
    let with = start(|setup| setup.listeners(LISTENERS)).await;
    let table = [
        (&without, "tcp:default", METHOD),
        (&with, "tcp:default", "SCRAM-SHA-1"),
        (&with, "tcp:default", "scram-sha-256"),
        (&with, "tcp:default", ""),
        (&with, "tcp:links", METHOD), // A18
    ];
    for (broker, listener, method) in table {
        let mut client = broker.open_at(listener).await;
        let first = Scram::new("alice", "secret").first();
        let got = say_hello(&mut client, method, Some(&first), &hello(Version::V5, "c")).await;
        assert_eq!(got, Got::ConnAck(false, 0x8C), "[MQTT-4.12.0-1]: {method} at {listener}");
        assert_eq!(client.next().await, Got::Closed);
    }
}

#[tokio::test]
async fn a_client_that_names_no_method_gets_neither_auth_nor_a_method() {
    let broker = start(|setup| setup.authentication(&format!("allow_anonymous = true\n{CHAIN}"))).await;
    let mut client = broker.join(Version::V5, "c").await;
    let told = Properties::parse(&client.properties, PropertyContext::ConnAck).unwrap();
    assert_eq!(told.authentication_method(), None, "[MQTT-4.12.0-6]");
    go_on(&mut client, b"x").await;
    client.refused(0x82).await; // [MQTT-4.12.0-7]
    // Its name is nobody's who has not proved it, without a password file too.
    for version in VERSIONS {
        let mut client = broker.open().await;
        let asked = Connect { username: Some("alice"), password: Some(b"x"), ..hello(version, "c") };
        assert_eq!(client.connect(&asked).await, NOT_AUTHORIZED);
    }
}

#[tokio::test]
async fn nothing_but_auth_of_the_method_may_come_before_connack() {
    let broker = start(|setup| setup).await;
    let first = Scram::new("alice", "secret").first();
    for (index, text) in
        ["publish", "code", "method", "connect", "malformed", "large"].into_iter().enumerate()
    {
        let mut client = broker.open().await;
        let got = say_hello(&mut client, METHOD, Some(&first), &hello(Version::V5, "c")).await;
        challenge(&client, got);
        match index {
            0 => client.send(&Packet::Publish(message("t", b"early"))).await,
            1 => send_auth(&mut client, ReasonCode::ReAuthenticate, METHOD, b"x").await,
            2 => send_auth(&mut client, ReasonCode::ContinueAuthentication, "OTHER", b"x").await,
            3 => client.send(&Packet::Connect(Box::new(hello(Version::V5, "c")))).await,
            4 => client.write(b"\xF1\x00").await, // [MQTT-3.15.1-1]
            _ => client.write(b"\xF0\xFF\xFF\x7F").await,
        }
        let reason = [0x82, 0x82, 0x82, 0x82, 0x81, 0x95][index];
        assert_eq!(client.next().await, Got::ConnAck(false, reason), "{text}");
        assert_eq!(client.next().await, Got::Closed);
    }
    let mut client = broker.open().await;
    let got = say_hello(&mut client, METHOD, Some(&first), &hello(Version::V5, "c")).await;
    challenge(&client, got);
    let bye = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
    client.send(&Packet::Disconnect(bye)).await;
    assert_eq!(client.next().await, Got::Closed, "who leaves is not answered");
    assert_eq!(broker.metric("tombolo_sessions"), 0, "nobody got as far as a session");
}

#[tokio::test]
async fn an_exchange_that_is_not_finished_in_time_is_ended() {
    let broker = start(|setup| setup.mqtt("idle_timeout = \"1s\"")).await;
    let mut client = broker.open().await;
    let first = Scram::new("alice", "secret").first();
    let got = say_hello(&mut client, METHOD, Some(&first), &hello(Version::V5, "c")).await;
    challenge(&client, got);
    assert_eq!(client.next().await, Got::Closed);
    broker.until_metric("tombolo_connections_rejected_total{reason=\"timeout\"}", 1).await;
}

#[tokio::test]
async fn a_challenge_larger_than_the_client_takes_is_not_sent() {
    let broker = start(|setup| setup).await;
    let mut client = broker.open().await;
    let first = Scram::new("alice", "secret").first();
    let list = properties(&[
        Property::AuthenticationMethod(METHOD),
        Property::AuthenticationData(&first),
        Property::MaximumPacketSize(40),
    ]);
    let asked = Connect { properties: list.as_properties(), ..hello(Version::V5, "c") };
    assert_eq!(client.connect(&asked).await, Got::ConnAck(false, 0x95), "[MQTT-3.1.2-24]");
}

#[tokio::test]
async fn the_proved_name_is_the_username_and_no_other_is_taken() {
    let rules = "{allow, all, all, [\"users/${username}/#\"]}.\n{deny, all}.";
    let broker = start(|setup| setup.acl(rules)).await;
    let mut alice = joined(&broker, "alice", "secret", "c").await;
    assert_eq!(alice.publish("users/alice/x", b"", Q1).await, 0x10);
    assert_eq!(alice.publish("users/bob/x", b"", Q1).await, 0x87);
    for (user, reason) in [("alice", 0), ("bob", 0x87), ("", 0)] {
        let mut client = broker.open().await;
        let asked = Connect { username: Some(user), ..hello(Version::V5, "d") };
        let got = log_in(&mut client, &mut Scram::new("alice", "secret"), &asked).await;
        assert_eq!(got, Got::ConnAck(false, reason), "User Name `{user}` beside a proof of alice");
    }
    // Somebody else's session stays somebody else's.
    let mut client = broker.open().await;
    let got = log_in(&mut client, &mut Scram::new("bob", "other"), &hello(Version::V5, "c")).await;
    assert_eq!(got, NOT_AUTHORIZED);
    alice.quiet().await;
}

#[tokio::test]
async fn a_password_that_comes_along_must_be_right_too() {
    let setup = Setup::new();
    users(&setup, &[("alice", "secret")]);
    passwords(&setup, &[("alice", "word")]);
    let broker = setup.authentication(&format!("password_file = \"{{dir}}/passwd\"\n{CHAIN}")).start().await;
    for (password, reason) in [("word", 0), ("secret", 0x87)] {
        let mut client = broker.open().await;
        let asked = Connect {
            username: Some("alice"),
            password: Some(password.as_bytes()),
            ..hello(Version::V5, "c")
        };
        let got = log_in(&mut client, &mut Scram::new("alice", "secret"), &asked).await;
        assert_eq!(got, Got::ConnAck(false, reason), "{password}");
    }
}

#[tokio::test]
async fn a_client_authenticates_again_while_messages_go_on() {
    let broker = start(|setup| setup).await;
    let mut client = joined(&broker, "alice", "secret", "c").await;
    client.subscribe("t", Q1).await;
    for _ in 0..2 {
        let mut scram = Scram::new("alice", "secret");
        send_auth(&mut client, ReasonCode::ReAuthenticate, METHOD, &scram.first()).await;
        let got = client.next().await;
        let data = challenge(&client, got);
        assert_eq!(client.publish("t", b"meanwhile", Q1).await, 0);
        assert_eq!(client.receive().await.text(), "meanwhile");
        go_on(&mut client, &scram.last(&data)).await;
        assert_eq!(client.next().await, Got::Auth(0, scram.verdict()));
        let told = Properties::parse(&client.properties, PropertyContext::Auth).unwrap();
        assert_eq!(told.authentication_method(), Some(METHOD), "[MQTT-4.12.0-5]");
    }
    client.quiet().await;
}

#[tokio::test]
async fn who_cannot_prove_it_again_is_disconnected() {
    let broker = start(|setup| setup).await;
    for (user, password) in [("alice", "wrong"), ("bob", "other"), ("nobody", "x")] {
        let mut client = joined(&broker, "alice", "secret", "c").await;
        let mut scram = Scram::new(user, password);
        send_auth(&mut client, ReasonCode::ReAuthenticate, METHOD, &scram.first()).await;
        let got = client.next().await;
        let data = challenge(&client, got);
        go_on(&mut client, &scram.last(&data)).await;
        client.refused(0x87).await; // [MQTT-4.12.1-2]
    }
    broker.until_metric("tombolo_authentication_failures_total{reason=\"enhanced\"}", 3).await;
}

/// A9: what is held is neither challenged nor verified, so a right proof gets what a wrong one gets.
#[tokio::test]
async fn whoever_is_locked_out_learns_nothing_from_a_right_proof() {
    let broker = start(|setup| setup).await;
    let fail = async |host: String| {
        let mut client = open_from(&broker, &host).await;
        let got = log_in(&mut client, &mut Scram::new("alice", "guess"), &hello(Version::V5, "c")).await;
        assert_eq!(got, NOT_AUTHORIZED);
    };
    fail("127.1.0.1".to_owned()).await;
    // An exchange that began before.
    let (mut begun, mut right) = (open_from(&broker, "127.1.0.1").await, Scram::new("alice", "secret"));
    let got = say_hello(&mut begun, METHOD, Some(&right.first()), &hello(Version::V5, "c")).await;
    let data = challenge(&begun, got);
    for block in 1..10 {
        fail(format!("127.1.{block}.1")).await;
    }
    assert_eq!(broker.metric("tombolo_authentication_lockouts_total"), 1);
    go_on(&mut begun, &right.last(&data)).await;
    assert_eq!(begun.next().await, NOT_AUTHORIZED);
    for password in ["secret", "guess"] {
        let mut client = open_from(&broker, "127.1.3.9").await;
        let first = Scram::new("alice", password).first();
        let got = say_hello(&mut client, METHOD, Some(&first), &hello(Version::V5, "c")).await;
        assert_eq!(got, NOT_AUTHORIZED, "{password}: no challenge");
        assert_eq!(client.next().await, Got::Closed);
    }
    assert_eq!(broker.metric("tombolo_authentication_held_total{reason=\"lockout\"}"), 3);
    assert_eq!(broker.metric("tombolo_authentication_failures_total{reason=\"enhanced\"}"), 10);
    let mut client = open_from(&broker, "127.2.0.1").await;
    let got = log_in(&mut client, &mut Scram::new("alice", "secret"), &hello(Version::V5, "c")).await;
    assert_eq!(got, Got::ConnAck(false, 0), "A10: where nobody failed");
}

#[tokio::test]
async fn a_guess_on_a_live_connection_counts_like_any_other() {
    let strict = format!("attempts = {{ lockout_failures = 1 }}\n{CHAIN}");
    let broker = start(|setup| setup.authentication(&strict)).await;
    let mut client = joined(&broker, "bob", "other", "c").await;
    let mut scram = Scram::new("alice", "guess");
    send_auth(&mut client, ReasonCode::ReAuthenticate, METHOD, &scram.first()).await;
    let got = client.next().await;
    let data = challenge(&client, got);
    go_on(&mut client, &scram.last(&data)).await;
    client.refused(0x87).await;
    assert_eq!(broker.metric("tombolo_authentication_lockouts_total"), 1);
    let mut client = joined(&broker, "bob", "other", "c").await;
    let first = Scram::new("alice", "secret").first();
    send_auth(&mut client, ReasonCode::ReAuthenticate, METHOD, &first).await;
    client.refused(0x87).await;
    assert_eq!(broker.metric("tombolo_authentication_held_total{reason=\"lockout\"}"), 1);
}

#[tokio::test]
async fn authentication_out_of_order_is_a_protocol_error() {
    let broker = start(|setup| setup).await;
    let first = Scram::new("alice", "secret").first();
    let again = ReasonCode::ReAuthenticate;
    let table = [
        (vec![(again, "SCRAM-SHA-1")], "[MQTT-4.12.1-1]"),
        (vec![(ReasonCode::ContinueAuthentication, METHOD)], "nothing to go on with"),
        (vec![(ReasonCode::Success, METHOD)], "success is ours to tell"),
        (vec![(again, METHOD), (again, METHOD)], "one at a time"),
        (vec![(again, METHOD), (ReasonCode::ContinueAuthentication, "SCRAM-SHA-1")], "[MQTT-4.12.1-1]"),
    ];
    for (packets, why) in table {
        let mut client = joined(&broker, "alice", "secret", "c").await;
        for (reason, method) in packets {
            send_auth(&mut client, reason, method, &first).await;
        }
        let got = client.seek(|got| !matches!(got, Got::Auth(..))).await;
        assert_eq!(got, Got::Disconnect(0x82), "{why}");
    }
}

#[tokio::test]
async fn a_reload_changes_who_can_log_in_and_leaves_who_is_in() {
    let mut broker = start(|setup| setup).await;
    let mut alice = joined(&broker, "alice", "secret", "a").await;
    let changed = broker.reload(|setup| {
        users(&setup, &[("alice", "new"), ("carol", "x")]);
        setup
    });
    changed.await.unwrap();
    alice.quiet().await;
    let mut client = broker.open().await;
    let got = log_in(&mut client, &mut Scram::new("alice", "secret"), &hello(Version::V5, "a")).await;
    assert_eq!(got, NOT_AUTHORIZED);
    joined(&broker, "carol", "x", "c").await.quiet().await;
    // The old password does not do for re-authentication, and no method is no method.
    broker.reload(|setup| setup.authentication("allow_anonymous = true")).await.unwrap();
    send_auth(&mut alice, ReasonCode::ReAuthenticate, METHOD, &Scram::new("alice", "new").first()).await;
    alice.refused(0x8C).await;
    let bad = broker.reload(|setup| {
        setup.file("scram", "alice:plain\n");
        setup.authentication(CHAIN)
    });
    let error = bad.await.unwrap_err().to_string();
    assert!(error.contains("scram:1:1: the credential is not like `$scram-sha-256$"), "{error}");
}
