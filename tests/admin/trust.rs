//! Trust between clusters from an operator's chair: `tombolo serve` twice, joined by a token, with commands and over REST
//! (`trust.md` 2.2, 2.8).

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;
use tombolo::admin::sockets::ADMIN_SOCKET;
use tombolo::net::clock;
use tombolo::net::own_certificate::Pair;
use tombolo::net::own_certificate::chain_pem;

use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::link_changes::Broker;
use crate::node::Answer;
use crate::node::exchange;
use crate::node::head;

const LISTENER: &str =
    "[[listeners]]\nname = \"links\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n";

/// How a command ends, and what it prints: standard output, then standard error.
pub(crate) type Ran = (i32, String, String);

async fn ran_with(broker: &Broker, arguments: &[&str], input: &str) -> Ran {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(arguments)
        .arg("--data")
        .arg(broker.data())
        .env_remove("TOMBOLO_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // One that reads nothing may be gone by now.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(LIMIT, process.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A command line, word by word.
pub(crate) async fn ran(broker: &Broker, line: &str) -> Ran {
    ran_with(broker, &line.split(' ').collect::<Vec<_>>(), "").await
}

/// One that does what it is asked and says so.
async fn done(broker: &Broker, line: &str) -> String {
    let (code, out, error) = ran(broker, line).await;
    assert_eq!((code, error.as_str()), (0, ""), "{line}: {out}");
    out
}

async fn refused(broker: &Broker, line: &str, code: i32, why: &str) {
    let ran = ran(broker, line).await;
    assert!(ran.0 == code && ran.2.contains(why), "{line}: {ran:?}");
}

async fn api(broker: &Broker, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let stream = UnixStream::connect(broker.data().join(ADMIN_SOCKET)).await.unwrap();
    let body = body.map(Value::to_string);
    let body = body.as_deref().map(|body| ("application/json", body));
    exchange(stream, &head(method, &format!("/api/v5/trust/{path}"), None, body)).await
}

async fn metrics(broker: &Broker) -> String {
    let stream = UnixStream::connect(broker.data().join(ADMIN_SOCKET)).await.unwrap();
    exchange(stream, &head("GET", "/metrics", None, None)).await.1
}

pub(crate) async fn start(cluster: &str) -> Broker {
    Broker::start(cluster, LISTENER).await
}

/// A token of `a` for `name`.
async fn token(a: &Broker, name: &str) -> String {
    let out = done(a, &format!("link create {name} -q")).await;
    assert!(out.starts_with("tmb1.") && out.lines().count() == 1, "{out}");
    out.trim().to_owned()
}

/// Joins `b` to `a` by a token that is read from the standard input. Whoever comes twice within a second is sent away, and comes
/// again by itself.
async fn join(b: &Broker, a: &str, token: &str) -> Ran {
    ran_with(b, &["link", "create", a, "--token", "-"], token).await
}

async fn field(broker: &Broker, name: &str, field: &str) -> Value {
    broker.rest("GET", &format!("/link/{name}"), None).await.json()[field].clone()
}

#[tokio::test]
async fn two_clusters_are_joined_by_a_token_and_parted_by_a_word() {
    let (a, b) = (start("A").await, start("B").await);
    let issued = done(&a, "link create B --description partner").await;
    let lines: Vec<&str> = issued.lines().collect();
    assert_eq!(lines[0], "Link B created (pending)");
    assert!(lines[1].starts_with("Link \"B\" (") && lines[1].ends_with("Z, one use:"), "{issued}");
    let token = lines[2];
    let listed = done(&a, "auth identity list --format csv").await;
    assert!(listed.contains("\ntls,Link certificate (pending),B,"), "{listed}");
    let pending = "\ntombolo_link_token_pending{peer=\"B\"} 1\n";
    assert!(metrics(&a).await.contains(pending));
    assert!(done(&a, "link list --format csv").await.contains("B,,,,,,,PENDING,"));
    let pending = done(&a, "link info B --format csv").await;
    assert!(pending.contains("PENDING") && pending.contains("a token is out: link token list"), "{pending}");
    refused(&a, "link info C", 4, "C: no such link").await;
    refused(&a, "link create B", 5, "a token for B is out").await;

    let (code, out, error) = join(&b, "A", token).await;
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let certificate = done(&a, "link cert show --format json").await;
    let certificate: Value = serde_json::from_str(&certificate).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("Remote cluster A at 127.0.0.1:"), "{out}");
    let fingerprint = certificate["fingerprint"].as_str().unwrap();
    assert!(lines[0].ends_with(&format!(", certificate {fingerprint}, matches the token")), "{out}");
    assert_eq!(lines[1], "Link A created; importing 0 topic filters (use: link set A topics=...)");
    assert!(!metrics(&a).await.contains("tombolo_link_token_pending"));
    a.until_active("B").await;
    b.until_active("A").await;
    let shown: Value =
        serde_json::from_str(&done(&b, "auth identity show tls/A --format json").await).unwrap();
    assert_eq!(
        (&shown["identifier"], &shown["state"], &shown["type"]),
        (&certificate["fingerprint"], &json!("ACTIVE"), &json!("Link certificate"))
    );

    // Linked, and nothing moves until it is granted on both sides.
    for (broker, peer, grant) in [(&a, "B", "can_export"), (&b, "A", "can_import")] {
        assert_eq!(done(broker, "auth group create plant").await, "Group plant created\n");
        let permission = format!("topic plant/# {grant}");
        let said = done(broker, &format!("auth group permission add plant {permission}")).await;
        assert_eq!(said, format!("Group plant: permission {permission} added\n"));
        let said = done(broker, &format!("auth identity group add tls/{peer} plant")).await;
        assert_eq!(said, format!("Identity tls/{peer} added to group plant\n"));
    }
    done(&b, "link set A topics=plant/#").await;
    b.until_active("A").await;
    let mut subscriber = b.join("subscriber").await;
    subscriber.subscribe("plant/1", Q1).await;
    let routed = async { while field(&a, "B", "routes_in").await != 1 {} };
    timeout(LIMIT, routed).await.expect("A knows what B wants");
    let mut publisher = a.join("publisher").await;
    publisher.publish("plant/1", b"over", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "over");

    let said = done(&a, "auth identity revoke link/B --yes").await;
    assert_eq!(said, "Identity link/B revoked\n");
    let parted = async { while field(&a, "B", "connections_in").await != 0 {} };
    timeout(LIMIT, parted).await.expect("its connections are closed");
    publisher.publish("plant/1", b"not over", Q1).await;
    subscriber.quiet().await;
    let unauthenticated = async { while field(&b, "A", "state").await == "active" {} };
    timeout(LIMIT, unauthenticated).await.expect("B is told");
    subscriber.quiet().await;
    refused(&a, "auth identity revoke link/B --yes", 5, "revoked already").await;
    assert_eq!(done(&a, "link delete B --yes").await, "Link B deleted\n");
    refused(&a, "auth identity show link/B", 4, "no identity link/B").await;
    assert_eq!(a.rest("GET", "/link/B", None).await.0, 404);
}

#[tokio::test]
async fn a_token_is_of_use_once_and_to_the_cluster_that_it_is_for() {
    let (a, b, c) = (start("A").await, start("B").await, start("C").await);
    let first = token(&a, "B").await;
    let (code, _, said) = join(&a, "B", &first).await;
    assert!(code == 2 && said.contains("this is A: its own token is for B"), "{said}");
    let (code, _, said) = join(&c, "A", &first).await;
    assert!(code == 2 && said.contains("the token is for B, this is C"), "{said}");
    let (code, _, said) = join(&b, "X", &first).await;
    assert!(code == 2 && said.contains("the token is of A, not of X"), "{said}");
    let wrong = format!("link create A --token - --fingerprint {}", "ab".repeat(32));
    let (code, _, said) = ran_with(&b, &wrong.split(' ').collect::<Vec<_>>(), &first).await;
    assert!(code == 7 && said.contains("expected sha256:abab"), "{said}");
    // Nothing of it has used the token up, nor left anything behind.
    assert_eq!(done(&b, "auth identity list --format csv").await.lines().count(), 1);
    assert_eq!(join(&b, "A", &first).await.0, 0);
    a.until_active("B").await;

    // B forgets everything and comes again with another certificate: that is no repetition.
    assert_eq!(done(&b, "link delete A --yes").await, "Link A deleted\n");
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::make("B", clock::now()).unwrap();
    let file = folder.path().join("own.pem");
    fs::write(&file, pair.pem().as_bytes()).unwrap();
    let said = done(&b, &format!("link cert import {} --yes", file.display())).await;
    assert!(said.starts_with("Link certificate sha256:"), "{said}");
    let (code, _, said) = join(&b, "A", &first).await;
    assert!(code == 8, "{code}: {said}");
    let abuse = "tombolo_security_events_total{event=\"authn_token_abuse\"} 1\n";
    assert!(metrics(&a).await.contains(abuse), "{}", metrics(&a).await);
    let listed = done(&a, "link token list --format csv").await;
    assert!(listed.contains(",B,used,"), "{listed}");

    // One that was taken back, and one that nobody could mean.
    let second = token(&a, "C").await;
    let listed: Value = serde_json::from_str(&done(&a, "link token list --format json").await).unwrap();
    let id = listed.as_array().unwrap().iter().find(|token| token["name"] == "C").unwrap()["id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(done(&a, &format!("link token revoke {id} --yes")).await, format!("Token {id} revoked\n"));
    refused(&a, &format!("link token revoke {id} --yes"), 8, "not valid any more").await;
    let (code, _, said) = join(&c, "A", &second).await;
    assert!(code == 8 && said.contains("the token was taken back"), "{code}: {said}");
    // Where nobody is awaited at all, the token cannot be good.
    let alone = start("D").await;
    let third = token(&alone, "C").await;
    let listed: Value = serde_json::from_str(&done(&alone, "link token list --format json").await).unwrap();
    done(&alone, &format!("link token revoke {} --yes", listed[0]["id"].as_str().unwrap())).await;
    let (code, _, said) = join(&c, "D", &third).await;
    assert!(code == 8 && said.contains("it does not enrol clusters"), "{code}: {said}");
    refused(&a, "link token revoke nonsense --yes", 4, "no such token").await;
    let (code, _, said) = join(&c, "A", "tmb1.damaged").await;
    assert!(code == 2 && said.contains("token: the token is damaged"), "{said}");
    let dump = api(&a, "GET", "tokens", None).await.1;
    assert!(!dump.contains("tmb1.") && !dump.contains("sec"), "{dump}");
}

#[tokio::test]
async fn a_peer_that_has_to_be_approved_waits_for_it() {
    let (a, b) = (start("A").await, start("B").await);
    let issued = done(&a, "link create B --approve -q").await;
    let (code, out, _) = join(&b, "A", &issued).await;
    assert!(code == 0 && out.contains("A lets us in once its operator has approved"), "{out}");
    let listed = done(&a, "auth identity list --format csv").await;
    assert!(listed.contains(",PENDING-APPROVAL,"), "{listed}");
    assert_eq!(a.rest("GET", "/link/B", None).await.0, 404);
    let said = done(&a, "link approve B").await;
    assert!(said.starts_with("Link B approved, certificate sha256:"), "{said}");
    a.until_active("B").await;
    b.until_active("A").await;
    refused(&a, "link approve B", 5, "does not wait for approval").await;
    refused(&a, "link approve X", 4, "no identity link/X").await;
}

#[tokio::test]
async fn certificates_are_exchanged_by_hand_as_well() {
    let (a, b) = (start("A").await, start("B").await);
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (broker, name) in [(&a, "a.pem"), (&b, "b.pem")] {
        let file = folder.path().join(name);
        fs::write(&file, done(broker, "link cert show --pem").await).unwrap();
        files.push(file.display().to_string());
    }
    let at = |broker: &Broker| broker.listener("ssl:links").to_owned();
    let (to_a, to_b) = (at(&a), at(&b));
    let said = done(&a, &format!("auth identity create link/B {} --address {to_b}", files[1])).await;
    assert!(said.starts_with("Identity link/B created, certificate sha256:"), "{said}");
    done(&b, &format!("auth identity create link/A {} --address {to_a}", files[0])).await;
    a.until_active("B").await;
    b.until_active("A").await;
    refused(&a, &format!("auth identity create link/C {}", files[1]), 5, "is the certificate of B").await;
    refused(&a, &format!("auth identity create link/C {}", files[0]), 5, "is the certificate of A").await;
    refused(&a, "auth identity create tls/C x", 2, "say link/C or admin/C").await;
    refused(&a, "auth identity create link/C /no/such/file", 2, "/no/such/file: ").await;
    refused(&a, "auth identity delete link/B", 2, "say --yes").await;
    let said = done(&a, "auth identity delete link/B --yes").await;
    assert_eq!(said, "Identity link/B deleted\n");
    assert_eq!(a.rest("GET", "/link/B", None).await.0, 404, "the link went with it");
}

#[tokio::test]
async fn groups_are_made_shown_changed_and_deleted() {
    let a = start("A").await;
    let shown = done(&a, "auth group show link-peer --format yaml").await;
    assert_eq!(
        shown,
        "built_in: true\ndescription: \"what a linked cluster needs, and no topic\"\nmembers: []\n\
         name: \"link-peer\"\npermissions: [\"link @self peer\"]\n"
    );
    done(&a, "auth group create telemetry --description values").await;
    done(&a, "auth group permission add telemetry topic telemetry/# can_import qos=1").await;
    done(&a, "auth group permission add telemetry link B can_view").await;
    let listed = done(&a, "auth group list --format csv").await;
    assert_eq!(
        listed,
        "name,description,permissions,members\n\
         link-peer,\"what a linked cluster needs, and no topic\",1,0\ntelemetry,values,2,0\n"
    );
    let shown: Value =
        serde_json::from_str(&done(&a, "auth group show telemetry --format json").await).unwrap();
    assert_eq!(
        shown,
        json!({
            "name": "telemetry", "description": "values", "built_in": false, "members": [],
            "permissions": [
                {
                    "permission": "topic telemetry/# can_import qos=1", "entity": "topic", "name": "telemetry/#",
                    "url": "/v1/topics/telemetry/#", "entitlement": "can_import", "qos": 1,
                },
                {
                    "permission": "link B can_view", "entity": "link", "name": "B",
                    "url": "/v1/links/B", "entitlement": "can_view", "qos": null,
                },
            ],
        })
    );
    let permissions = done(&a, "auth permission list --format csv --max-entitlements 1").await;
    assert_eq!(
        permissions,
        "entity_type,url,entitlements\n\
         server,/v1,\"admin:(), ... 6 more\"\n\
         link,/v1/links/B,\"can_view:(telemetry), ... 9 more\"\n\
         link,/v1/links/@self,\"peer:(link-peer), ... 9 more\"\n\
         topic,/v1/topics/telemetry/#,\"can_import:(telemetry), ... 1 more\"\n"
    );
    assert_eq!(done(&a, "auth group rename telemetry sensors").await, "Group telemetry renamed to sensors\n");
    assert_eq!(done(&a, "auth group edit sensors --description x").await, "Group sensors updated\n");
    done(&a, "link create B -q --group sensors").await;
    refused(&a, "auth group delete sensors --yes", 5, "in use by 1 (B)").await;
    done(&a, "link delete B --yes").await;
    let said = done(&a, "auth group permission remove sensors link B can_view").await;
    assert_eq!(said, "Group sensors: permission link B can_view removed\n");
    refused(&a, "auth group permission remove sensors link B can_view", 4, "no permission link B").await;
    assert_eq!(done(&a, "auth group delete sensors --yes").await, "Group sensors deleted\n");
    for (line, code, why) in [
        ("auth group show sensors", 4, "no group sensors"),
        ("auth group create link-peer", 5, "there is a group link-peer already"),
        ("auth group create a/b", 2, "no name of a group"),
        ("auth group delete link-peer --yes", 5, "built in"),
        ("auth group permission add link-peer server admin", 5, "built in"),
        ("auth group permission add nobody server admin", 4, "no group nobody"),
        ("auth group permission add link-peer topic $SYS/# can_import", 2, "do not cross links"),
    ] {
        refused(&a, line, code, why).await;
    }
}

#[tokio::test]
async fn a_pin_by_hand_makes_the_link_and_a_second_one_has_to_be_meant() {
    let a = start("A").await;
    let (one, two) = (format!("sha256:{}", "01".repeat(32)), format!("sha256:{}", "02".repeat(32)));
    let line = |print: &str| format!("link trust B --fingerprint {print} --address 127.0.0.1:1");
    let said = done(&a, &line(&one)).await;
    assert_eq!(said, format!("Link B: servers with {one} are trusted\n"));
    assert_eq!(field(&a, "B", "ssl").await["cert_sha256"], json!([&one[7..]]));
    refused(&a, &line(&two), 7, "expected sha256:0101").await;
    done(&a, &format!("{} --replace", line(&two))).await;
    let pins = api(&a, "GET", "pins", None).await.json();
    assert_eq!(pins["data"][0]["fingerprint"], json!(two));
    done(&a, "link trust B --remove --yes").await;
    refused(&a, "link trust B --remove --yes", 4, "no pin for B").await;
}

#[tokio::test]
async fn the_link_certificate_is_rotated_and_the_link_goes_on() {
    let (a, b) = (start("A").await, start("B").await);
    let issued = token(&a, "B").await;
    assert_eq!(join(&b, "A", &issued).await.0, 0);
    a.until_active("B").await;
    b.until_active("A").await;
    let before = done(&a, "link cert show --format json").await;
    let said = done(&a, "link cert rotate").await;
    let next = said.strip_prefix("Link certificate ").and_then(|said| said.split(' ').next()).unwrap();
    assert!(said.ends_with(" is shown from now on\nTold: B\n") && !before.contains(next), "{said}");
    let shown: Value = serde_json::from_str(&done(&a, "link cert show --format json").await).unwrap();
    assert_eq!((&shown["fingerprint"], &shown["next"]), (&json!(next), &Value::Null));
    a.until_active("B").await;
    b.until_active("A").await;
    let known = done(&b, "auth identity show link/A --format json").await;
    assert!(known.contains(next), "{known}");
    refused(&a, "link cert rotate --overlap 91d", 2, "overlap: at most 90 days").await;
    refused(&a, "link cert rotate --overlap 0s", 2, "say --yes").await;
    refused(&a, "link cert rotate --overlap soon", 2, "overlap: ").await;
}

/// Warned, not refused: it is what was asked for.
#[tokio::test]
async fn what_was_surely_not_meant_is_said() {
    let (mut a, b) = (start("A").await, start("B").await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.pem");
    fs::write(&file, done(&b, "link cert show --pem").await).unwrap();
    done(&a, "auth group create idle").await;
    let (code, _, said) =
        ran(&a, &format!("auth identity create link/B {} --group idle", file.display())).await;
    assert!(
        code == 0
            && said == "warning: B is in no group with `peer` on the link: it gets in and can do nothing\n",
        "{said}"
    );
    assert_eq!(ran(&a, "auth identity group add link/B link-peer").await.2, "");
    // Peers know the certificate that was there.
    fs::remove_dir_all(a.data().join("link")).unwrap();
    a.restart().await;
    let events = done(&a, "events --format json").await;
    let lost: Vec<&str> = events.lines().filter(|line| line.contains("authn_certificate_lost")).collect();
    assert!(
        lost.len() == 1 && lost[0].contains("and B know no other") && lost[0].contains("--replace"),
        "{events}"
    );
    a.restart().await;
    let events = done(&a, "events --format json").await;
    assert!(!events.contains("authn_certificate_lost"), "once: {events}");
}

#[tokio::test]
async fn settings_of_a_link_are_read_one_by_one_and_its_name_stays() {
    let (a, b) = (start("A").await, start("B").await);
    let token = token(&a, "B").await;
    assert_eq!(join(&b, "A", &token).await.0, 0);
    done(&b, "link set A topics=x/#,y relay=true").await;
    for (line, value) in [
        ("link get A topics", "x/#,y\n"),
        ("link get A relay", "true\n"),
        ("link get A trust", "pin\n"),
        ("link get A username", "\n"),
    ] {
        assert_eq!(done(&b, line).await, value, "{line}");
    }
    done(&b, "link unset A relay username").await;
    assert_eq!(done(&b, "link get A relay").await, "false\n");
    refused(&b, "link unset A topics", 2, "topics: this is required").await;
    for line in ["link get A topic", "link unset A topic", "link unset A name"] {
        refused(&b, line, 2, "not the key of a setting").await;
    }
    refused(&b, "link get C topics", 4, "no such link").await;
    refused(&b, "link rename A C", 2, "the name of the peer cluster").await;
}

#[tokio::test]
async fn what_destroys_something_is_asked_about() {
    let a = start("A").await;
    token(&a, "B").await;
    for line in [
        "link delete B",
        "link token revoke 0b5d6a3e-1c2d-4e5f-8a9b-0c1d2e3f4a5b",
        "link trust B --remove",
        "link cert rotate --overlap 0",
        "auth identity delete link/B",
        "auth identity revoke link/B",
        "auth group delete x",
    ] {
        refused(&a, line, 2, "say --yes").await;
    }
    assert!(done(&a, "auth identity list --format csv").await.contains(",B,"));
    done(&a, "link delete B --yes --notify-peer=false").await;
}

#[tokio::test]
async fn what_does_not_go_together_is_said_before_anybody_is_asked() {
    let a = start("A").await;
    for (line, why) in [
        ("link create B --unidirectional server=y:1", "say dialled_by="),
        ("link create B --topics a", "--topics: this needs --token"),
        ("link create B --token @x server=y:1", "either settings or a token"),
        ("link create A --token @/no/such/file", "--token: "),
        ("link create B --expiry 25h", "valid for 1 to 86400 seconds"),
        ("link create B --expiry soon", "expiry: "),
        ("link create B --address nonsense", "addresses: at most 16"),
        ("link create A", "is this cluster itself"),
        ("link create B --group nobody", "no group nobody"),
    ] {
        let ran = ran(&a, line).await;
        let code = if why.starts_with("no group") { 4 } else { 2 };
        assert!(ran.0 == code && ran.2.contains(why), "{line}: {ran:?}");
    }
    let issued = token(&a, "B").await;
    // As a word of its own, and then it is said that everybody sees it.
    let (code, _, said) = ran(&a, &format!("link create B {issued} --expiry 1m")).await;
    assert!(code == 2 && said.contains("--expiry: this is for whoever issues the token"), "{said}");
    let (code, _, said) = ran(&a, &format!("link create B {issued}")).await;
    assert!(code == 2 && said.contains("warning: the token stands on the command line"), "{said}");
    assert!(!said.contains(&issued));
}

#[tokio::test]
async fn who_changed_what_is_in_the_security_log_and_no_secret_is() {
    let a = start("A").await;
    let issued = token(&a, "B").await;
    done(&a, "auth group create g").await;
    refused(&a, "auth group create g", 5, "already").await;
    let (code, events, _) = ran(&a, "events --format json").await;
    assert_eq!(code, 0);
    for (event, path) in [
        ("authz_admin:token_create", "/api/v5/trust/tokens: done"),
        ("authz_admin:group_create", "/api/v5/trust/groups: done"),
        ("authz_admin:group_create", "/api/v5/trust/groups: there is a group g already"),
    ] {
        let found = events.lines().any(|line| {
            line.contains(event) && line.contains(path) && line.contains("\"identity\":\"admin socket\"")
        });
        assert!(found, "{event} {path}: {events}");
    }
    assert!(events.contains("authn_token_created"), "{events}");
    assert!(!events.contains("tmb1.") && !events.contains(&issued[5..40]));
    let data = fs::read_to_string(a.data().join("trust.json")).unwrap();
    assert!(!data.contains("tmb1."), "a hash is kept, and no token");
}

/// Every route takes bodies of its schema and no others, and says so with 400 and 404 where there is nothing.
#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let a = start("A").await;
    let pem = chain_pem(&Pair::make("x", clock::now()).unwrap().chain);
    let table = [
        ("POST", "tokens", json!({}), 400),
        ("POST", "tokens", json!({"name": "B", "more": 1}), 400),
        ("POST", "tokens", json!({"name": "B", "approve": "yes"}), 400),
        ("POST", "tokens", json!({"name": "B", "expect_fingerprint": "x"}), 400),
        ("POST", "join", json!({"token": "x"}), 400),
        ("POST", "identities", json!({"type": "user", "name": "x", "certificate": pem}), 400),
        ("POST", "identities", json!({"type": "admin", "name": "ada", "certificate": "x"}), 400),
        (
            "POST",
            "identities",
            json!({"type": "admin", "name": "ada", "certificate": pem, "prefix": "p"}),
            400,
        ),
        ("POST", "identities", json!({"type": "admin", "name": "ada", "certificate": pem}), 201),
        ("POST", "identities/admin/ada/approve", json!({}), 409),
        ("PUT", "identities/tls/ada", json!({"description": "a\nb"}), 400),
        ("PUT", "identities/admin/ada", json!({"groups": ["nobody"]}), 404),
        ("PUT", "identities/admin/ada", json!({"groups": ["link-peer", "link-peer"]}), 200),
        ("PUT", "identities/admin/nobody", json!({}), 404),
        ("POST", "identities/admin/ada/revoke", json!({}), 200),
        ("DELETE", "identities/admin/ada", json!({}), 204),
        ("DELETE", "identities/admin/ada", json!({}), 404),
        ("GET", "identities/user/ada", json!({}), 404),
        ("POST", "pins", json!({"name": "B", "addresses": ["b:1"]}), 400),
        ("POST", "pins", json!({"name": "B", "fingerprint": "ab".repeat(32), "addresses": []}), 400),
        ("DELETE", "pins/B", json!({}), 404),
        ("PUT", "certificate", json!({"certificate": "x", "key": "y"}), 400),
        ("PUT", "certificate", json!({"certificate": pem, "key": "y"}), 400),
        ("PUT", "groups/nobody", json!({"description": ""}), 404),
    ];
    for (method, path, body, status) in table {
        let answer = api(&a, method, path, Some(&body)).await;
        assert_eq!(answer.0, status, "{method} {path} {body}: {answer:?}");
    }
}
