//! The REST API as scripts for EMQX use it.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tombolo::admin::keys::Keys;
use tombolo::admin::node::Node;
use tombolo::admin::rest::Change;
use tombolo::admin::sockets::ADMIN_SOCKET;
use tombolo::auth::password::PasswordFile;
use tombolo::auth::password::hash_password;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::hello;
use crate::harness::message;
use crate::node::Answer;
use crate::node::Running;
use crate::node::eventually;
use crate::node::head;
use crate::node::start;
use crate::node::start_with;

fn column(answer: &Answer, field: &str) -> Vec<String> {
    let json = answer.json();
    let rows = json["data"].as_array().or(json.as_array()).unwrap();
    rows.iter().map(|row| row[field].as_str().unwrap().to_owned()).collect()
}

async fn retain(running: &Running, topic: &str) {
    let body = json!({"topic": topic, "payload": "x", "retain": true});
    assert_eq!(running.post("/api/v5/publish", &body).await.0, 202);
}

#[tokio::test]
async fn nothing_of_the_api_answers_without_a_key() {
    let running = start().await;
    let docs = running.ask("GET", "/api-docs.json").await.json();
    let mut checked = 0;
    for (path, methods) in docs["paths"].as_object().unwrap() {
        let concrete = path.replace("{clientid}", "c").replace("{topic}", "a%2Fb");
        let concrete = concrete.replace("{as}", "clientid").replace("{who}", "c");
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            let open =
                ["/health/live", "/health/ready", "/status", "/api/v5/status", "/metrics", "/metrics/emqx"];
            let without = running.send(&method, &concrete, None, None).await;
            let is_open = open.contains(&path.as_str());
            assert_eq!(without.0 == 401, !is_open, "{method} {path}: {without:?}");
            for wrong in ["a:b", "a", "", ":"] {
                let status = running.send(&method, &concrete, Some(wrong), None).await.0;
                assert_eq!(status == 401, !is_open, "{method} {path} with {wrong:?}");
            }
            assert!(operation["responses"].is_object());
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked}");
    assert_eq!(running.send("GET", "/api/v5/nowhere", None, None).await.0, 401);
    assert_eq!(running.send("PUT", "/api/v5/clients", None, None).await.0, 401);
    assert_eq!(running.ask("GET", "/api/v5/nowhere").await.0, 404);
    assert_eq!(running.ask("PUT", "/api/v5/clients").await.0, 405);
    running.node.stop().await;
}

#[tokio::test]
async fn what_emqx_has_a_name_for_is_there_under_that_name_for_who_asks_for_it() {
    let running = start().await;
    assert_eq!(running.ask("GET", "/metrics/emqx").await.0, 404);
    running.node.stop().await;
    let running = start_with(|settings| settings.http.metrics_emqx = true).await;
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    client.publish("nobody/wants/it", b"x", Q1).await;
    let shown = running.ask("GET", "/metrics/emqx").await.1;
    for (name, kind, value) in [
        ("live_connections_count", "gauge", 1),
        ("subscriptions_count", "gauge", 1),
        ("packets_publish_received", "counter", 1),
        ("messages_qos1_received", "counter", 1),
        ("messages_dropped_no_subscribers", "counter", 1),
        ("client_connect", "counter", 1),
        ("authorization_deny", "counter", 0),
        ("messages_forward", "counter", 0),
    ] {
        let lines = format!("# TYPE emqx_{name} {kind}\nemqx_{name} {value}\n");
        assert!(shown.contains(&lines), "{name}: {shown}");
    }
    running.node.stop().await;
}

#[tokio::test]
async fn every_documented_path_answers() {
    let mut running = start().await;
    let docs = running.ask("GET", "/api-docs.json").await.json();
    assert_eq!(docs["openapi"], "3.1.0");
    // Nobody reloads here: who asks hears that.
    running.changes.close();
    for (path, methods) in docs["paths"].as_object().unwrap() {
        let concrete = path.replace("{clientid}", "nobody").replace("{topic}", "no/thing");
        let concrete = concrete.replace("{as}", "peerhost_net").replace("{who}", "10.0.0.0/8");
        // A trace that is none, as one that runs does not end.
        let concrete = if path.ends_with("/stream") { concrete + "?topic=a%23" } else { concrete };
        for (method, operation) in methods.as_object().unwrap() {
            let answer = running.ask(&method.to_uppercase(), &concrete).await;
            let documented = operation["responses"].as_object().unwrap();
            assert!(documented.contains_key(&answer.0.to_string()), "{method} {path}: {answer:?}");
            assert!(!answer.1.contains("no such path"), "{method} {path}: {answer:?}");
        }
    }
    running.node.stop().await;
}

#[tokio::test]
async fn a_deleted_key_is_refused_at_once() {
    let running = start().await;
    assert_eq!(running.ask("GET", "/api/v5/clients").await.0, 200);
    let id = running.key.split(':').next().unwrap();
    Keys::of(&running.data()).delete(id).unwrap();
    let refused = running.ask("GET", "/api/v5/clients").await;
    assert_eq!((refused.0, &refused.json()["code"]), (401, &json!("BAD_API_KEY_OR_SECRET")));
    running.node.stop().await;
}

#[tokio::test]
async fn a_user_of_whom_too_many_logins_failed_is_unlocked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwd");
    let mut users = PasswordFile::default();
    users.set("a/b", hash_password(b"secret", &[7; 16]).unwrap()).unwrap();
    std::fs::write(&file, users.render()).unwrap();
    let running = start_with(|settings| {
        settings.authentication.password_file = Some(file);
        settings.authentication.attempts.lockout_failures = 1;
    })
    .await;
    let asked =
        |password| Connect { username: Some("a/b"), password: Some(password), ..hello(Version::V5, "c") };
    let path = "/api/v5/authentication/lockouts/a%2Fb";
    assert_eq!(running.ask("DELETE", path).await.0, 404);
    for password in [&b"wrong"[..], b"secret"] {
        assert_eq!(running.join_as(&asked(password)).await.1, Got::ConnAck(false, 0x87));
    }
    assert_eq!(running.ask("DELETE", path).await.0, 204);
    assert_eq!(running.join_as(&asked(b"secret")).await.1, Got::ConnAck(false, 0));
    assert_eq!(running.ask("DELETE", path).await.0, 404);
    running.node.stop().await;
}

#[tokio::test]
async fn metrics_ask_for_a_key_if_configured() {
    let running = start_with(|settings| settings.http.metrics_auth = true).await;
    assert_eq!(running.send("GET", "/metrics", None, None).await.0, 401);
    assert!(running.ask("GET", "/metrics").await.1.contains("tombolo_sessions 0"));
    running.node.stop().await;
}

#[tokio::test]
async fn the_admin_socket_is_its_owners_and_needs_no_key() {
    let running = start().await;
    let path = running.data().join(ADMIN_SOCKET);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(running.ask_socket("GET", "/api/v5/clients").await.0, 200);
    assert_eq!(running.ask_socket("GET", "/api/v5/nowhere").await.0, 404);
    running.node.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced() {
    let first = start().await;
    let settings = first.setup.settings();
    let path = first.data().join(ADMIN_SOCKET);
    first.node.stop().await;
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut settings = settings;
    settings.http.bind = "127.0.0.1:0".parse().unwrap();
    let second = Node::start(settings, None).await.unwrap();
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    second.stop().await;
}

#[tokio::test]
async fn clients_are_listed_by_page_and_filter() {
    let running = start().await;
    let mut clients = Vec::new();
    for id in ["c", "a", "b/1"] {
        clients.push(running.join(Version::V5, id).await);
    }
    let all = running.ask("GET", "/api/v5/clients").await;
    assert_eq!(column(&all, "clientid"), ["a", "b/1", "c"]);
    assert_eq!(all.json()["meta"], json!({"page": 1, "limit": 100, "count": 3, "hasnext": false}));
    let page = running.ask("GET", "/api/v5/clients?page=1&limit=2").await;
    assert_eq!(page.json()["meta"], json!({"page": 1, "limit": 2, "count": 3, "hasnext": true}));
    let page = running.ask("GET", "/api/v5/clients?page=2&limit=2").await;
    assert_eq!(column(&page, "clientid"), ["c"]);
    assert_eq!(column(&running.ask("GET", "/api/v5/clients?like_clientid=b%2F").await, "clientid"), ["b/1"]);
    assert_eq!(column(&running.ask("GET", "/api/v5/clients?username=x").await, "clientid"), [""; 0]);
    let _old = running.join(Version::V31, "old").await;
    for (query, found) in [
        ("proto_ver=3", &["old"][..]),
        ("proto_ver=5&clientid=a&clientid=c&clientid=old", &["a", "c"]),
        ("clean_start=false", &[]),
        ("node=elsewhere@10.0.0.1", &[]),
        ("ip_address=127.0.0.1&conn_state=connected&like_clientid=ol", &["old"]),
    ] {
        let answer = running.ask("GET", &format!("/api/v5/clients?{query}")).await;
        assert_eq!(column(&answer, "clientid"), found, "{query}");
    }
    for bad in [
        "proto_ver=6",
        "clean_start=1",
        "page=0",
        "limit=0",
        "limit=10001",
        "page=x",
        "clientd=a",
        "conn_state=x",
        "a=%",
    ] {
        let answer = running.ask("GET", &format!("/api/v5/clients?{bad}")).await;
        assert_eq!((answer.0, &answer.json()["code"]), (400, &json!("BAD_REQUEST")), "{bad}");
    }
    let one = running.ask("GET", "/api/v5/clients/b%2F1").await.json();
    assert_eq!(
        (&one["clientid"], &one["connected"], &one["proto_ver"]),
        (&json!("b/1"), &json!(true), &json!(5))
    );
    assert_eq!((&one["listener"], &one["keepalive"]), (&json!("tcp:default"), &json!(0)));
    assert_eq!(one["clean_start"], true);
    // RFC 3339, as EMQX has it.
    let connected_at = one["connected_at"].as_str().unwrap();
    assert!(connected_at.len() == 24 && connected_at.starts_with("20") && connected_at.ends_with('Z'));
    let none = running.ask("GET", "/api/v5/clients/nobody").await;
    assert_eq!((none.0, &none.json()["code"]), (404, &json!("CLIENTID_NOT_FOUND")));
    running.node.stop().await;
}

#[tokio::test]
async fn a_kicked_client_hears_it_and_is_gone() {
    let running = start().await;
    let (mut one, mut two) = (running.join(Version::V5, "1").await, running.join(Version::V5, "2").await);
    let kicked = running.post("/api/v5/clients/kickout/bulk", &json!(["1", "nobody", "2"])).await;
    assert_eq!(kicked, Answer(204, String::new()));
    assert_eq!((one.next().await, two.next().await), (Got::Disconnect(0x98), Got::Disconnect(0x98)));
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("a/#", Q1).await;
    assert_eq!(running.ask("DELETE", "/api/v5/clients/c").await, Answer(204, String::new()));
    assert_eq!(client.next().await, Got::Disconnect(0x98));
    assert_eq!(running.ask("DELETE", "/api/v5/clients/c").await.0, 404);
    assert_eq!(running.ask("GET", "/api/v5/topics").await.json()["meta"]["count"], 0);
    running.node.stop().await;
}

#[tokio::test]
async fn subscriptions_and_topics() {
    let running = start().await;
    let (mut one, mut two) =
        (running.join(Version::V5, "one").await, running.join(Version::V311, "two").await);
    one.subscribe("a/+", Q1).await;
    one.subscribe("$share/g/b/#", Q0).await;
    two.subscribe("a/+", Q2).await;
    let all = running.ask("GET", "/api/v5/subscriptions").await;
    assert_eq!(column(&all, "topic"), ["$share/g/b/#", "a/+", "a/+"]);
    assert_eq!(column(&all, "clientid"), ["one", "one", "two"]);
    let path = |query: &str| format!("/api/v5/subscriptions?{query}");
    for (query, count) in [
        ("topic=a%2F%2B", 2),
        ("qos=2", 1),
        ("match_topic=b%2Fx", 1),
        ("share_group=g", 1),
        ("clientid=one", 2),
    ] {
        assert_eq!(running.ask("GET", &path(query)).await.json()["meta"]["count"], count, "{query}");
    }
    assert_eq!(running.ask("GET", &path("match_topic=a%2F%23%2Fb")).await.0, 400);
    let own = running.ask("GET", "/api/v5/clients/two/subscriptions").await.json();
    let node = own[0]["node"].clone();
    let expected =
        json!([{"node": node, "clientid": "two", "topic": "a/+", "qos": 2, "nl": 0, "rap": 0, "rh": 0}]);
    assert_eq!(own, expected);
    let topics = running.ask("GET", "/api/v5/topics").await;
    assert_eq!(column(&topics, "topic"), ["$share/g/b/#", "a/+"]);
    running.node.stop().await;
}

#[tokio::test]
async fn a_client_is_subscribed_by_an_operator() {
    let running = start().await;
    retain(&running, "a/kept").await;
    let mut client = running.join(Version::V5, "c/1").await;
    let path = "/api/v5/clients/c%2F1";
    let made = running.post(&format!("{path}/subscribe"), &json!({"topic": "a/#", "qos": 1})).await;
    let node = made.json()["node"].clone();
    let expected =
        json!({"node": node, "clientid": "c/1", "topic": "a/#", "qos": 1, "nl": 0, "rap": 0, "rh": 0});
    assert_eq!((made.0, made.json()), (200, expected));
    // As if it had asked itself: what is retained, and what comes.
    let kept = client.receive().await;
    assert_eq!((kept.text(), kept.retain), ("x", true));
    let body = json!([{"topic": "b", "rh": 2}, {"topic": "$share/g/c"}]);
    assert_eq!(running.post(&format!("{path}/subscribe/bulk"), &body).await.0, 200);
    running.post("/api/v5/publish", &json!({"topic": "c", "payload": "live"})).await;
    assert_eq!(client.receive().await.text(), "live");
    for (body, why) in [
        (json!({"topic": "$LINK/cluster/resp/B/x"}), "$LINK"),
        (json!({"topic": "$share/g/$LINK/#"}), "$LINK"),
        (json!({"topic": "a/#/b"}), "topic"),
        (json!({"topic": "$share/g/a", "nl": 1}), "nl"),
        (json!({"topic": "$exclusive/a"}), "exclusive"),
    ] {
        let refused = running.post(&format!("{path}/subscribe"), &body).await;
        assert!(refused.0 == 400 && refused.1.contains(why), "{body}: {refused:?}");
    }
    let gone = running.post(&format!("{path}/unsubscribe"), &json!({"topic": "a/#"})).await;
    assert_eq!(gone, Answer(204, String::new()));
    let gone = running.post(&format!("{path}/unsubscribe/bulk"), &json!([{"topic": "b"}])).await;
    assert_eq!(gone.0, 204);
    assert_eq!(column(&running.ask("GET", "/api/v5/topics").await, "topic"), ["$share/g/c"]);
    running.node.stop().await;
}

#[tokio::test]
async fn messages_are_published_in_bulk_or_not_at_all() {
    let running = start().await;
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("a", Q1).await;
    let message = |topic: &str| json!({"topic": topic, "payload": topic, "qos": 1});
    let path = "/api/v5/publish/bulk";
    let bad = running.post(path, &json!([message("a"), message("$SYS/x")])).await;
    assert_eq!(bad.0, 400, "{bad:?}");
    assert_eq!(running.post(path, &json!([])).await.0, 400);
    let sent = running.post(path, &json!([message("a"), message("a")])).await;
    assert!(sent.0 == 200 && sent.json()[1]["id"].is_string(), "{sent:?}");
    let sent = running.post(path, &json!([message("a"), message("nobody")])).await;
    assert_eq!((sent.0, &sent.json()[1]["reason_code"]), (202, &json!(16)));
    assert_eq!(client.receive_texts(3).await, ["a", "a", "a"]);
    client.quiet().await;
    running.node.stop().await;
}

#[tokio::test]
async fn a_message_is_published() {
    let running = start().await;
    let body = json!({"topic": "a/b", "payload": "hello", "qos": 1});
    let nobody = running.post("/api/v5/publish", &body).await;
    assert_eq!((nobody.0, &nobody.json()["reason_code"]), (202, &json!(16)));
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("#", Q1).await;
    let sent = running.post("/api/v5/publish", &body).await;
    assert!(sent.0 == 200 && sent.json()["id"].is_string(), "{sent:?}");
    assert_eq!(client.receive().await.text(), "hello");
    let body = json!({
        "topic": "a", "payload": "aGk=", "payload_encoding": "base64",
        "properties": {"content_type": "text/plain", "user_properties": {"k": "v"}, "message_expiry_interval": 60},
    });
    assert_eq!(running.post("/api/v5/publish", &body).await.0, 200);
    let message = client.receive().await;
    assert_eq!(message.text(), "hi");
    assert_eq!(message.properties().content_type(), Some("text/plain"));
    assert_eq!(message.properties().user_properties().collect::<Vec<_>>(), [("k", "v")]);
    assert_eq!(message.properties().message_expiry_interval(), Some(60));
    running.node.stop().await;
}

#[tokio::test]
async fn what_is_not_published() {
    let running = start().await;
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("#", Q0).await;
    let message = |topic: &str| json!({"topic": topic, "payload": "x"});
    let reserved =
        ["$LINK/cluster/msg/B", "$LINK", "$SYS/brokers", "$SYS", "$delayed/1/a", "$share/g/a", "$queue/a"];
    for topic in reserved.into_iter().chain(["", "a/#", "+", "a\0b"]) {
        assert_eq!(running.post("/api/v5/publish", &message(topic)).await.0, 400, "{topic}");
    }
    let with = |name: &str, value: Value| {
        let mut body = message("a");
        body[name] = value;
        body
    };
    for body in [
        json!([]),
        json!({"topic": "a"}),
        with("qos", json!(3)),
        with("retain", json!("yes")),
        with("payload_encoding", json!("hex")),
        with("unknown", json!(1)),
        with("properties", json!({"response_topic": "a/#"})),
        with("properties", json!({"payload_format_indicator": 2})),
        with("properties", json!({"user_properties": {"a": 1}})),
        with("payload", json!("x".repeat(1024 * 1024))),
    ] {
        assert_eq!(running.post("/api/v5/publish", &body).await.0, 400, "{body:.60}");
    }
    let send = |kind: &'static str, body: &'static str| {
        running.send("POST", "/api/v5/publish", Some(&running.key), Some((kind, body)))
    };
    assert_eq!(send("text/plain", "{}").await.0, 415);
    assert_eq!(send("application/json", "{").await.0, 400);
    assert_eq!(send("application/json; charset=utf-8", "{}").await.0, 400);
    client.quiet().await;
    running.node.stop().await;
}

#[tokio::test]
async fn retained_messages_are_listed_shown_and_deleted() {
    let running = start().await;
    for topic in ["p/2", "p/1", "q", "/lead", "$x/y"] {
        retain(&running, topic).await;
    }
    let mut client = running.join(Version::V5, "c").await;
    let publish = Publish { retain: true, qos: Q1, ..message("p/1", b"\xff\x00") };
    client.publish_as(publish).await;
    let list = "/api/v5/mqtt/retainer/messages";
    assert_eq!(column(&running.ask("GET", list).await, "topic"), ["$x/y", "/lead", "p/1", "p/2", "q"]);
    let page = running.ask("GET", &format!("{list}?limit=2&page=2")).await;
    assert_eq!(column(&page, "topic"), ["p/1", "p/2"]);
    assert_eq!(page.json()["meta"], json!({"page": 2, "limit": 2, "count": 5, "hasnext": true}));
    assert_eq!(column(&running.ask("GET", &format!("{list}?topic=p%2F%2B")).await, "topic"), ["p/1", "p/2"]);
    let one = "/api/v5/mqtt/retainer/message";
    let shown = running.ask("GET", &format!("{one}/p%2F1")).await.json();
    assert_eq!((&shown["payload"], &shown["qos"]), (&json!("/wA="), &json!(1)));
    assert_eq!(running.ask("GET", &format!("{one}/p/2")).await.json()["payload"], "eA==");
    assert_eq!(running.ask("GET", &format!("{one}/%2Flead")).await.json()["topic"], "/lead");
    assert_eq!(running.ask("DELETE", &format!("{one}/p%2F1")).await.0, 204);
    assert_eq!(running.ask("DELETE", &format!("{one}/p%2F1")).await.0, 404);
    assert_eq!(running.ask("GET", &format!("{one}/p%2F1")).await.0, 404);
    assert_eq!(running.ask("GET", &format!("{one}/%ff")).await.0, 400);
    running.node.stop().await;
}

#[tokio::test]
async fn statistics_under_emqx_names() {
    let running = start().await;
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("a", Q0).await;
    let stats = running.ask("GET", "/api/v5/stats").await.json();
    assert_eq!((&stats[0]["sessions.count"], &stats[0]["subscriptions.count"]), (&json!(1), &json!(1)));
    assert!(stats[0]["node"].is_string());
    let stats = running.ask("GET", "/api/v5/stats?aggregate=true").await.json();
    assert_eq!(stats["live_connections.count"], 1);
    client.publish("other", b"x", Q1).await;
    client.quiet().await;
    let metrics = running.ask("GET", "/api/v5/metrics?aggregate=true").await.json();
    assert_eq!(metrics["client.connect"], 1);
    assert!(metrics["messages.qos1.received"].is_u64() && metrics["packets.connect.received"].is_u64());
    running.node.stop().await;
}

#[tokio::test]
async fn a_change_is_done_and_written_down_when_who_asked_for_it_has_hung_up() {
    let mut running = start().await;
    let mut asking = TcpStream::connect(running.node.http_address()).await.unwrap();
    let request = head("POST", "/api/v5/config/reload", Some(&running.key), None);
    asking.write_all(request.as_bytes()).await.unwrap();
    let Some(Change::Reload(answer)) = running.changes.recv().await else {
        panic!("no reload was asked for")
    };
    drop(asking);
    // Whatever happened by then on its connection has been seen when another one was answered.
    for _ in 0..3 {
        assert_eq!(running.ask("GET", "/api/v5/metrics").await.0, 200);
    }
    assert!(!answer.is_closed(), "somebody waits for the outcome yet");
    answer.send(Ok(Vec::new())).unwrap();
    let broker = running.node.server().broker();
    let told = || broker.events.remembered(Default::default()).join("");
    eventually("it is written down", || told().contains("\"event\":\"authz_admin:config_reload\"")).await;
    running.node.stop().await;
}

#[tokio::test]
async fn a_reload_is_asked_of_whoever_runs_the_broker() {
    let mut running = start().await;
    let mut changes = std::mem::replace(&mut running.changes, tokio::sync::mpsc::channel(1).1);
    let outcomes = [Ok(vec!["log.level changed".to_owned()]), Err(vec!["tombolo.toml:1:1: no".to_owned()])];
    let serving = tokio::spawn(async move {
        for outcome in outcomes {
            let Some(Change::Reload(answer)) = changes.recv().await else {
                panic!("no reload was asked for")
            };
            answer.send(outcome).unwrap();
        }
    });
    let done = running.ask("POST", "/api/v5/config/reload").await;
    assert_eq!((done.0, done.json()), (200, json!({"changes": ["log.level changed"]})));
    let refused = running.ask("POST", "/api/v5/config/reload").await;
    assert_eq!((refused.0, &refused.json()["message"]), (400, &json!("tombolo.toml:1:1: no")));
    serving.await.unwrap();
    assert_eq!(running.ask("POST", "/api/v5/config/reload").await.0, 503);
    running.node.stop().await;
}

#[tokio::test]
async fn bans_are_made_listed_and_lifted_as_in_emqx() {
    let running = start().await;
    let mut client = running.join(Version::V5, "c1").await;
    let ban = json!({
        "as": "clientid", "who": "c1", "by": "me", "reason": "why not",
        "at": "2021-10-25T21:48:47+08:00", "until": "2999-10-25T21:48:47+08:00",
    });
    let made = running.post("/api/v5/banned", &ban).await;
    let shown = json!({
        "as": "clientid", "who": "c1", "by": "me", "reason": "why not",
        "at": "2021-10-25T13:48:47Z", "until": "2999-10-25T13:48:47Z",
    });
    assert_eq!((made.0, made.json()), (200, shown.clone()));
    assert_eq!(client.next().await, Got::Disconnect(0x98));
    let again = running.post("/api/v5/banned", &ban).await;
    assert_eq!((again.0, again.json()["code"].as_str()), (400, Some("ALREADY_EXISTS")));
    for (kind, who) in [("peerhost_net", "10.0.0.0/8"), ("username_re", "^u"), ("username", "u1")] {
        let made = running.post("/api/v5/banned", &json!({"as": kind, "who": who})).await;
        assert_eq!((made.0, made.json()["until"].as_str()), (200, Some("infinity")), "{kind}");
        assert_eq!(made.json()["by"], "mgmt_api");
    }
    let list = running.ask("GET", "/api/v5/banned?limit=2").await;
    assert_eq!(column(&list, "who"), ["c1", "u1"]);
    assert_eq!(list.json()["meta"], json!({"page": 1, "limit": 2, "count": 4, "hasnext": true}));
    assert_eq!(
        column(&running.ask("GET", "/api/v5/banned?limit=2&page=2").await, "who"),
        ["^u", "10.0.0.0/8"]
    );
    assert_eq!(column(&running.ask("GET", "/api/v5/banned?like_username=u").await, "who"), ["u1", "^u"]);
    assert_eq!(column(&running.ask("GET", "/api/v5/banned?clientid=c1").await, "who"), ["c1"]);
    assert_eq!(running.ask("GET", "/api/v5/banned?clientid=c").await.json()["meta"]["count"], 0);
    for path in ["/api/v5/banned/peerhost_net/10.0.0.0%2F8", "/api/v5/banned/clientid/c1"] {
        assert_eq!(running.ask("DELETE", path).await.0, 204, "{path}");
        assert_eq!(running.ask("DELETE", path).await.0, 404, "{path}");
    }
    running.join(Version::V5, "c1").await;
    assert_eq!(running.ask("DELETE", "/api/v5/banned").await.0, 204);
    assert_eq!(running.ask("GET", "/api/v5/banned").await.json()["data"], json!([]));
    running.node.stop().await;
}

#[tokio::test]
async fn a_ban_that_makes_no_sense_is_refused() {
    let running = start().await;
    for (body, field) in [
        (json!([]), "body"),
        (json!({"who": "x"}), "as"),
        (json!({"as": "clientid"}), "who"),
        (json!({"as": "nickname", "who": "x"}), "as"),
        (json!({"as": "flapping", "who": "x"}), "as"),
        (json!({"as": "clientid", "who": 1}), "who"),
        (json!({"as": "clientid", "who": ""}), "who"),
        (json!({"as": "clientid_re", "who": "("}), "who"),
        (json!({"as": "peerhost", "who": "example.org"}), "who"),
        (json!({"as": "clientid", "who": "x", "until": "tomorrow"}), "until"),
        (json!({"as": "clientid", "who": "x", "until": 1}), "until"),
        (json!({"as": "clientid", "who": "x", "at": "infinity"}), "at"),
        (json!({"as": "clientid", "who": "x", "until_": 1}), "until_"),
    ] {
        let answer = running.post("/api/v5/banned", &body).await;
        assert_eq!(answer.0, 400, "{body}");
        assert!(answer.json()["message"].as_str().unwrap().contains(field), "{body}: {answer:?}");
    }
    assert_eq!(running.ask("GET", "/api/v5/banned").await.json()["meta"]["count"], 0);
    running.node.stop().await;
}

#[tokio::test]
async fn an_overloaded_broker_runs_but_is_not_ready_for_more() {
    let running = start().await;
    running.node.server().broker().load.set_late(true);
    let ready = running.ask("GET", "/health/ready").await;
    assert_eq!((ready.0, ready.json()["status"].as_str()), (503, Some("not_ready")));
    assert!(ready.json()["reasons"][0].as_str().unwrap().contains("late"), "{ready:?}");
    let status = running.ask("GET", "/api/v5/status?format=json").await;
    assert_eq!((status.0, status.json()["app_status"].as_str()), (200, Some("running")));
    assert!(status.json()["overload"].is_string());
    running.node.server().broker().load.set_late(false);
    assert_eq!(running.ask("GET", "/health/ready").await.0, 200);
    running.node.stop().await;
}
