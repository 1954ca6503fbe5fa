//! The program itself, towards a broker that runs in this process.

use std::ffi::OsStr;
use std::process::Output;

use serde_json::Value;
use serde_json::json;
use tokio::process::Command;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Q1;
use crate::node::Running;
use crate::node::start;

async fn tombolo(arguments: &[&str], data: impl AsRef<OsStr>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .env_remove("TOMBOLO_KEY")
        .output()
        .await
        .unwrap()
}

async fn ran(running: &Running, arguments: &[&str]) -> (i32, String, String) {
    let output = tombolo(arguments, running.data()).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn clients_are_listed_shown_and_kicked() {
    let running = start().await;
    let mut client = running.join(Version::V5, "sensor-1").await;
    client.subscribe("a/+", Q1).await;
    let _other = running.join(Version::V311, "x").await;
    let (code, table, _) = ran(&running, &["client", "list"]).await;
    let expected = "\
+-----------+----------+-----------+-------------+-----------+---------+---------------+--------+
| CLIENT ID | USERNAME | ADDRESS   | LISTENER    | CONNECTED | VERSION | SUBSCRIPTIONS | QUEUED |
+-----------+----------+-----------+-------------+-----------+---------+---------------+--------+
| sensor-1  |          | 127.0.0.1 | tcp:default | true      | 5       | 1             | 0      |
| x         |          | 127.0.0.1 | tcp:default | true      | 4       | 0             | 0      |
+-----------+----------+-----------+-------------+-----------+---------+---------------+--------+
";
    assert_eq!((code, table.as_str()), (0, expected));
    let (_, csv, _) = ran(&running, &["client", "list", "--like", "sensor", "--format", "csv"]).await;
    let expected = "clientid,username,ip_address,listener,connected,proto_ver,subscriptions_cnt,mqueue_len\n\
                    sensor-1,,127.0.0.1,tcp:default,true,5,1,0\n";
    assert_eq!(csv, expected);
    let (_, csv, _) = ran(&running, &["subscription", "list", "--format", "csv"]).await;
    assert_eq!(csv, "clientid,topic,qos,nl,rap,rh\nsensor-1,a/+,1,0,0,0\n");
    let (_, shown, _) = ran(&running, &["client", "show", "sensor-1", "--format", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["subscriptions"], json!(["a/+"]));
    assert_eq!(ran(&running, &["client", "kick", "sensor-1"]).await, (0, String::new(), String::new()));
    assert_eq!(client.next().await, Got::Disconnect(0x98));
    let (code, _, message) = ran(&running, &["client", "kick", "sensor-1"]).await;
    assert_eq!((code, message.as_str()), (4, "Client ID not found\n"));
    running.node.stop().await;
}

#[tokio::test]
async fn retained_messages_and_status() {
    let running = start().await;
    let body = json!({"topic": "plant/1", "payload": "xyz", "retain": true});
    running.post("/api/v5/publish", &body).await;
    let (_, compact, _) = ran(&running, &["retained", "list", "--format", "compact"]).await;
    assert_eq!(compact, "TOPIC    QOS  BYTES  EXPIRES IN\nplant/1  0    3\n");
    let (_, status, _) = ran(&running, &["status", "--format", "json"]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["status"], &status["retained"]), (&json!("running"), &json!(1)));
    assert_eq!((&status["durability"], &status["store_bytes"]), (&json!("memory"), &json!(0)));
    assert_eq!(ran(&running, &["retained", "delete", "plant/1"]).await.0, 0);
    assert_eq!(ran(&running, &["retained", "delete", "plant/1"]).await.0, 4);
    assert_eq!(ran(&running, &["retained", "list", "--topic", "a/#/b"]).await.0, 2);
    running.node.stop().await;
}

#[tokio::test]
async fn a_key_works_over_the_port_until_it_is_deleted() {
    let running = start().await;
    let (code, json, hint) = ran(&running, &["auth", "key", "create", "ci", "--format", "json"]).await;
    assert!(code == 0 && hint.contains("shown once"), "{hint}");
    let new: Value = serde_json::from_str(&json).unwrap();
    let (id, secret) = (new["key"].as_str().unwrap(), new["secret"].as_str().unwrap());
    let list = async |key: String| {
        let url = format!("http://{}", running.node.http_address());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        command.args(["client", "list", "--format", "csv", "--url", &url]).env("TOMBOLO_KEY", key);
        command.output().await.unwrap().status.code()
    };
    assert_eq!(list(format!("{id}:{secret}")).await, Some(0));
    assert_eq!(list(format!("{id}:x")).await, Some(3));
    let (_, keys, _) = ran(&running, &["auth", "key", "list", "--format", "csv"]).await;
    assert!(
        keys.starts_with("id,name,created_at\n") && keys.contains(id) && !keys.contains(secret),
        "{keys}"
    );
    assert_eq!(ran(&running, &["auth", "key", "delete", id]).await.0, 0);
    assert_eq!(list(format!("{id}:{secret}")).await, Some(3));
    assert_eq!(ran(&running, &["auth", "key", "delete", id]).await.0, 4);
    running.node.stop().await;
}

#[tokio::test]
async fn without_a_broker_the_message_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = tombolo(&["client", "list"], folder.path()).await;
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.starts_with("no broker runs with the data directory `"), "{message}");
}

#[tokio::test]
async fn clients_are_banned_and_let_in_again() {
    let running = start().await;
    let mut client = running.join(Version::V5, "sensor-1").await;
    let create = ["banned", "create", "clientid", "sensor-1", "--reason", "floods us"];
    assert_eq!(ran(&running, &create).await, (0, String::new(), String::new()));
    assert_eq!(client.next().await, Got::Disconnect(0x98));
    let (code, _, message) = ran(&running, &create).await;
    assert_eq!((code, message.contains("already")), (2, true), "{message}");
    let block = ["banned", "create", "peerhost_net", "10.0.0.0/8", "--for", "1h"];
    assert_eq!(ran(&running, &block).await.0, 0);
    let (_, csv, _) = ran(&running, &["banned", "list", "--format", "csv"]).await;
    let lines: Vec<&str> = csv.lines().collect();
    let first = "clientid,sensor-1,infinity,tombolo banned create,floods us";
    assert_eq!(lines[..2], ["as,who,until,by,reason", first]);
    assert!(lines[2].starts_with("peerhost_net,10.0.0.0/8,2"), "{csv}");
    for who in [["clientid", "sensor-1"], ["peerhost_net", "10.0.0.0/8"]] {
        assert_eq!(ran(&running, &["banned", "delete", who[0], who[1]]).await.0, 0, "{who:?}");
        assert_eq!(ran(&running, &["banned", "delete", who[0], who[1]]).await.0, 4, "{who:?}");
    }
    assert_eq!(ran(&running, &["banned", "create", "nickname", "x"]).await.0, 2);
    running.join(Version::V5, "sensor-1").await;
    running.node.stop().await;
}
