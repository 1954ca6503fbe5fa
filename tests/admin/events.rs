//! The security event log: over REST, with `tombolo events`, and in its file.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Command;
use tokio::time::timeout;
use tombolo::broker::events::file;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::harness::hello;
use crate::node::Running;
use crate::node::start;
use crate::node::start_with;

impl Running {
    /// Remembered events of this name.
    async fn events(&self, name: &str) -> Vec<Value> {
        let answer = self.ask("GET", &format!("/api/v5/events?event={name}")).await;
        answer.json()["data"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone()
    }

    /// Waits for an event of this name.
    async fn until(&self, name: &str) {
        let waiting = async { while self.events(name).await.is_empty() {} };
        assert!(timeout(LIMIT, waiting).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn logins_refusals_and_what_administrators_do_are_written_down() {
    let running = start().await;
    let mut client = running.join(Version::V5, "sensor-1").await;
    let login = &running.events("authn_login_success").await[0];
    assert_eq!(login["clientid"], "sensor-1");
    assert_eq!((&login["listener"], &login["method"]), (&json!("tcp:default"), &json!("anonymous")));
    assert!(login["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{login}");

    client.subscribe("$LINK/cluster/route/A", Q1).await;
    let forgery = &running.events("link_forgery_attempt").await[0];
    assert_eq!((&forgery["clientid"], &forgery["level"]), (&json!("sensor-1"), &json!("critical")));
    client.publish("$SYS/x", b"secret words", Q1).await;
    assert_eq!(running.events("authz_fail").await[0]["event"], "authz_fail:publish:$SYS/x");

    running.ask("DELETE", "/api/v5/clients/sensor-1").await;
    running.ask("DELETE", "/api/v5/clients/nobody").await;
    let acts = running.events("authz_admin").await;
    assert_eq!(acts[0]["event"], "authz_admin:client_kick");
    assert!(acts[0]["identity"].as_str().unwrap().starts_with("api_key "), "{acts:?}");
    assert_eq!(acts[0]["description"], "/api/v5/clients/sensor-1: done");
    assert!(acts[1]["description"].as_str().unwrap().contains("not found"), "{acts:?}");

    let wrong = running.send("GET", "/api/v5/clients", Some("key:wrong"), None).await;
    assert_eq!(wrong.0, 401);
    let refused = &running.events("authn_login_fail").await[0];
    assert_eq!(
        (&refused["event"], &refused["identity"]),
        (&json!("authn_login_fail:api_key"), &json!("key"))
    );
    let all = running.ask("GET", "/api/v5/events?type=security&limit=10000").await.1;
    assert!(!all.contains("secret words") && !all.contains("wrong"), "{all}");
}

#[tokio::test]
async fn a_session_of_another_and_a_ban_are_written_down() {
    let running = start().await;
    let ada = Connect { username: Some("ada"), ..hello(Version::V5, "sensor") };
    let (_ada, got) = running.join_as(&ada).await;
    assert_eq!(got, Got::ConnAck(false, 0));
    let (_, got) = running.join_as(&Connect { username: Some("eve"), ..ada.clone() }).await;
    assert_eq!(got, Got::ConnAck(false, 0x87));
    let taken = &running.events("authn_session_of_another").await[0];
    assert_eq!((&taken["identity"], &taken["clientid"]), (&json!("eve"), &json!("sensor")));
    running.post("/api/v5/banned", &json!({"as": "username", "who": "eve"})).await;
    let (_, got) = running.join_as(&Connect { username: Some("eve"), ..hello(Version::V5, "e") }).await;
    assert_eq!(got, Got::ConnAck(false, 0x8a));
    assert!(
        running.events("authn_ban").await[0]["description"].as_str().unwrap().contains("username \"eve\"")
    );
    assert_eq!(running.events("authn_login_fail").await[0]["event"], "authn_login_fail:banned");
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused() {
    let running = start().await;
    for query in ["type=all", "since=yesterday", "event=nothing", "limit=0"] {
        assert_eq!(running.ask("GET", &format!("/api/v5/events?{query}")).await.0, 400, "{query}");
    }
    assert_eq!(running.ask("GET", "/api/v5/events?since=1h").await.json()["meta"]["count"], 1);
    let later = "/api/v5/events?since=2999-01-01T00:00:00Z";
    assert_eq!(running.ask("GET", later).await.json()["meta"]["count"], 0);
}

#[tokio::test]
async fn the_file_has_every_event_from_start_to_stop() {
    let running = start().await;
    let path = file::path(&running.data());
    running.join(Version::V5, "c").await;
    let Running { node, setup, .. } = running;
    node.stop().await;
    let text = fs::read_to_string(path).unwrap();
    drop(setup);
    let names: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    assert_eq!(names, ["sys_startup", "authn_login_success", "sys_shutdown"].map(Value::from));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told() {
    let running = start_with(|settings| fs::create_dir_all(file::path(&settings.data.dir)).unwrap()).await;
    running.until("sys_monitor_disabled").await;
    fs::remove_dir(file::path(&running.data())).unwrap();
    running.join(Version::V5, "c").await;
    running.until("sys_monitor_enabled").await;
    let metrics = running.send("GET", "/metrics", None, None).await.1;
    assert!(!metrics.contains("tombolo_security_events_unwritten_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn the_command_shows_what_was_and_follows_what_comes() {
    let running = start().await;
    running.join(Version::V5, "before").await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["events", "--event", "authn_login_success", "--follow", "--data"])
        .arg(running.data())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        async || timeout(LIMIT, lines.next_line()).await.expect("a line in time").unwrap().unwrap();
    assert!(next().await.contains("authn_login_success clientid=before"));
    running.join(Version::V5, "after").await;
    assert!(next().await.contains("authn_login_success clientid=after"));
    child.kill().await.unwrap();

    let shown = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["events", "--since", "1h", "--format", "json", "--data"])
        .arg(running.data())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((text.lines().count(), &first["event"]), (3, &json!("sys_startup")));
}
