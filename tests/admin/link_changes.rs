//! Links that an operator makes, changes and deletes while brokers run: `tombolo serve` with `tombolo link …`, and the
//! same over REST in EMQX's shapes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::timeout;
use tombolo::admin::sockets::ADMIN_SOCKET;
use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::harness::hello;
use crate::node::Answer;
use crate::node::exchange;
use crate::node::head;

/// A broker process, which ends with it.
pub(crate) struct Broker {
    folder: TempDir,
    process: Child,
    pub(crate) address: String,
    listeners: BTreeMap<String, String>,
}

impl Broker {
    pub(crate) async fn start(cluster: &str, links: &str) -> Self {
        Self::start_with(cluster, "", links).await
    }

    /// The same with more of `[http]`.
    pub(crate) async fn start_with(cluster: &str, http: &str, links: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[cluster]\nname = \"{cluster}\"\n[data]\ndir = \"{}\"\ndurability = \"memory\"\n[http]\nbind = \"127.0.0.1:0\"\n{http}\
             [authentication]\nallow_anonymous = true\n[authorization]\nfile = \"{}\"\n\
             [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
             allow_insecure = true\n{links}",
            folder.path().join("data").display(),
            folder.path().join("acl.conf").display()
        );
        fs::write(folder.path().join("acl.conf"), "{allow, all}.\n").unwrap();
        fs::write(folder.path().join("tombolo.toml"), text).unwrap();
        let (process, listeners) = Self::run(&folder).await;
        let address = listeners["tcp:default"].clone();
        Self { folder, process, address, listeners }
    }

    /// Where one of its listeners accepts.
    pub(crate) fn listener(&self, id: &str) -> &str {
        &self.listeners[id]
    }

    async fn run(folder: &TempDir) -> (Child, BTreeMap<String, String>) {
        use tokio::io::AsyncBufReadExt;
        let mut process = Command::new(env!("CARGO_BIN_EXE_tombolo"))
            .args(["serve", "--config"])
            .arg(folder.path().join("tombolo.toml"))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(process.stderr.take().unwrap()).lines();
        let mut listeners = BTreeMap::new();
        let started = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let word = |name: &str| {
                    let behind = line.split(name).nth(1)?.split(' ').next()?;
                    Some(behind.trim_matches('"').to_owned())
                };
                if let (true, Some(id), Some(address)) =
                    (line.contains(" listening"), word("listener="), word("address="))
                {
                    listeners.insert(id, address);
                }
                if let (true, Some(address)) = (line.contains("HTTPS listening"), word("address=")) {
                    listeners.insert("https".to_owned(), address);
                }
                if line.contains(" ready ") {
                    return;
                }
            }
            panic!("it did not start");
        };
        timeout(LIMIT, started).await.unwrap();
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        (process, listeners)
    }

    /// Ended without notice and started again.
    pub(crate) async fn restart(&mut self) {
        self.process.kill().await.unwrap();
        (self.process, self.listeners) = Self::run(&self.folder).await;
        self.address = self.listeners["tcp:default"].clone();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `tombolo link …`: how it ends and what it prints.
    async fn link(&self, arguments: &[&str]) -> (Option<i32>, String) {
        self.command("link", arguments).await
    }

    async fn command(&self, command: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
            .arg(command)
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// `tombolo retained list`
    async fn retained(&self) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        let output = command.args(["retained", "list", "--data"]).arg(self.data()).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    pub(crate) async fn rest(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let stream = UnixStream::connect(self.data().join(ADMIN_SOCKET)).await.unwrap();
        let body = body.map(Value::to_string);
        let body = body.as_deref().map(|body| ("application/json", body));
        exchange(stream, &head(method, &format!("/api/v5/cluster/links{path}"), None, body)).await
    }

    pub(crate) async fn until_active(&self, name: &str) {
        let active = async {
            while self.rest("GET", &format!("/link/{name}"), None).await.json()["state"] != "active" {}
        };
        timeout(LIMIT, active).await.unwrap();
    }

    pub(crate) async fn join(&self, id: &str) -> Client {
        let mut client = Client::over(tokio::net::TcpStream::connect(&self.address).await.unwrap());
        assert_eq!(client.connect(&hello(Version::V5, id)).await, Got::ConnAck(false, 0));
        client
    }
}

/// What makes a link in plaintext on loopback, to a peer that proves nothing.
fn settings(server: &str) -> Vec<String> {
    ["topics=plant/#", "pool_size=1", "ssl.enable=false", "peer.allow_unauthenticated=true"]
        .iter()
        .map(|setting| (*setting).to_owned())
        .chain([format!("server={server}")])
        .collect()
}

async fn create(broker: &Broker, name: &str, server: &str) -> (Option<i32>, String) {
    let settings = settings(server);
    let arguments: Vec<&str> =
        ["create", name].into_iter().chain(settings.iter().map(String::as_str)).collect();
    broker.link(&arguments).await
}

#[tokio::test]
async fn a_link_made_by_commands_carries_messages_and_outlives_a_restart() {
    let (mut a, b) = (Broker::start("A", "").await, Broker::start("B", "").await);
    let made = create(&a, "B", &b.address).await;
    assert_eq!(made, (Some(0), "Link B created\n".to_owned()));
    // What B wants of A goes over B's link: its server is where A listens.
    create(&b, "A", &a.address).await;
    a.until_active("B").await;
    b.until_active("A").await;
    let mut subscriber = b.join("subscriber").await;
    subscriber.subscribe("plant/1", Q1).await;
    let routed = async { while a.rest("GET", "/link/B", None).await.json()["routes_in"] != 1 {} };
    timeout(LIMIT, routed).await.unwrap();
    let mut publisher = a.join("publisher").await;
    publisher.publish("plant/1", b"over", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "over");
    let forwarded = async |wanted: u64| {
        while a.rest("GET", "/link/B/metrics", None).await.json()["metrics"]["forwarding"]["success"]
            != wanted
        {}
    };
    timeout(LIMIT, forwarded(1)).await.unwrap();
    assert_eq!(a.rest("PUT", "/link/B/metrics/reset", None).await.0, 204);
    timeout(LIMIT, forwarded(0)).await.unwrap();
    assert_eq!(a.rest("PUT", "/link/C/metrics/reset", None).await.0, 404);

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(a.data().join("links.toml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    a.restart().await;
    assert!(a.link(&["list"]).await.1.contains('B'));
    let (code, shown) = a.link(&["show", "B", "--format", "json"]).await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("plant/#") && shown.contains("links.toml:"), "{shown}");
}

/// Everything but the rules for peers stays as it is, keys that are fetched among them.
#[tokio::test]
async fn what_follows_from_a_link_is_there_as_long_as_the_link() {
    let a = Broker::start("A", "").await;
    let shown = async || a.command("acl", &["show", "--generated"]).await;
    assert_eq!(shown().await, (Some(0), String::new()));
    create(&a, "B", "127.0.0.1:1").await;
    let (code, text) = shown().await;
    assert!(
        code == Some(0) && text.contains("[\"$LINK/cluster/route/B\"]") && text.contains("^clink-B-"),
        "{text}"
    );
    let (_, matrix) = a.command("acl", &["matrix", "--format", "csv"]).await;
    assert!(matrix.contains("B,B,allow: generated rule 1 (line 2),"), "{matrix}");
    let explain = [
        "explain",
        "--clientid",
        "clink-B-:x",
        "--publish",
        "$LINK/cluster/msg/B",
        "--listener",
        "tcp:default",
    ];
    let (code, text) = a.command("acl", &explain).await;
    assert!(code == Some(0) && text.contains("generated rule 1 (line 2)"), "{text}");
    let (code, text) = a.command("acl", &["export", "--emqx", "--peer", "B"]).await;
    assert!(code == Some(0) && text.contains("^clink-A-") && !text.contains("link_id"), "{text}");
    assert_eq!(a.command("acl", &["export", "--emqx", "--peer", "C"]).await.0, Some(4));
    a.link(&["delete", "B", "--yes"]).await;
    assert_eq!(shown().await, (Some(0), String::new()));
}

#[tokio::test]
async fn a_link_is_made_where_keys_of_tokens_are_fetched() {
    let chain = "[[authentication.chain]]\nmechanism = \"jwt\"\nendpoint = \"http://127.0.0.1:1/keys\"\n";
    let a = Broker::start("A", chain).await;
    assert_eq!(create(&a, "B", "127.0.0.1:1").await.0, Some(0));
    a.join("still there").await;
}

/// `observability.md`: `$SYS/link/<peer>/event`, and `tombolo events --type link`.
#[tokio::test]
async fn what_a_link_becomes_is_told() {
    let a = Broker::start("A", "").await;
    let mut watcher = a.join("watcher").await;
    watcher.subscribe("$SYS/link/+/event", Q1).await;
    create(&a, "B", "127.0.0.1:1").await;
    let state = async |watcher: &mut Client| {
        let event: Value = serde_json::from_str(watcher.receive().await.text()).unwrap();
        assert_eq!(event["link"], "B");
        event
    };
    assert_eq!(state(&mut watcher).await["state"], "connecting");
    let event = state(&mut watcher).await;
    assert_eq!((&event["state"], &event["previous"]), (&json!("unreachable"), &json!("connecting")));
    assert!(event["reason"].as_str().unwrap().starts_with("127.0.0.1:1: "), "{event}");
    // Who comes later gets the last one.
    let mut late = a.join("late").await;
    late.subscribe("$SYS/link/B/event", Q1).await;
    assert_eq!(state(&mut late).await["state"], "unreachable");
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["events", "--type", "link", "--format", "json", "--data"])
        .arg(a.data())
        .output()
        .await
        .unwrap();
    let events: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["link_state:connecting", "link_state:unreachable"]);
    assert!(events.iter().all(|event| event["type"] == "link" && event["identity"] == "B"));

    a.link(&["delete", "B", "--yes"]).await;
    assert_eq!(state(&mut watcher).await["state"], "deleted");
    assert_eq!(state(&mut late).await["state"], "deleted");
    let (code, retained) = a.retained().await;
    assert!(code == Some(0) && !retained.contains("$SYS/link"), "{retained}");
}

#[tokio::test]
async fn settings_change_one_by_one_and_what_is_wrong_changes_nothing() {
    let a = Broker::start("A", "").await;
    create(&a, "B", "127.0.0.1:1").await;
    assert_eq!(
        a.link(&["set", "B", "topics=a/#,b/+", "export=c", "password=swordfish", "username=u"]).await.0,
        Some(0)
    );
    let link = a.rest("GET", "/link/B", None).await.json();
    assert_eq!(
        (&link["topics"], &link["export"], &link["password"]),
        (&json!(["a/#", "b/+"]), &json!(["c"]), &json!("******"))
    );
    assert_eq!(a.link(&["unset", "B", "export"]).await.0, Some(0));
    assert_eq!(a.rest("GET", "/link/B", None).await.json()["export"], Value::Null);
    let before = fs::read_to_string(a.data().join("links.toml")).unwrap();
    assert!(before.contains("swordfish"), "a masked secret stays");

    let (code, said) = a.link(&["set", "B", "topics=a/#/b"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("links.toml:") && said.contains("cluster.links[0].topics[0]"), "{said}");
    let (code, said) = a.link(&["set", "B", "ssl.enable=true", "ssl.cacertfile=/no/such/file"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(fs::read_to_string(a.data().join("links.toml")).unwrap(), before);

    assert_eq!(create(&a, "B", "127.0.0.1:2").await.0, Some(2));
    assert_eq!(a.link(&["set", "C", "topics=a"]).await.0, Some(4));
    assert_eq!(a.link(&["delete", "C", "--yes"]).await.0, Some(4));
    assert_eq!(a.link(&["delete", "B"]).await.0, Some(2), "nobody was there to be asked");
    assert_eq!(a.link(&["delete", "B", "--yes"]).await, (Some(0), "Link B deleted\n".to_owned()));
    assert_eq!(a.rest("GET", "/link/B", None).await.0, 404);
}

#[tokio::test]
async fn a_link_of_the_configuration_file_is_changed_there() {
    let link = "[[cluster.links]]\nname = \"B\"\nserver = \"127.0.0.1:1\"\ntopics = []\npeer.allow_unauthenticated = true\n\
                ssl.enable = false\n";
    let a = Broker::start("A", link).await;
    for arguments in [&["set", "B", "topics=a"][..], &["delete", "B", "--yes"]] {
        let (code, said) = a.link(arguments).await;
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains("tombolo.toml:19:"), "{said}");
    }
    // Another link leaves it alone, and a reload leaves both.
    assert_eq!(create(&a, "C", "127.0.0.1:1").await.0, Some(0));
    let stream = UnixStream::connect(a.data().join(ADMIN_SOCKET)).await.unwrap();
    let reload = exchange(stream, &head("POST", "/api/v5/config/reload", None, None)).await;
    assert_eq!((reload.0, reload.json()["changes"].clone()), (200, json!([])));
    let names: Vec<Value> = a
        .rest("GET", "", None)
        .await
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["name"].clone())
        .collect();
    assert_eq!(names, ["B", "C"]);
}

/// `link-protocol.md` 7.3.
#[tokio::test]
async fn scripts_for_emqx_find_its_paths_and_words() {
    let a = Broker::start("A", "").await;
    let body = json!({
        "name": "B", "server": "127.0.0.1:1", "topics": ["t/#"], "username": "u", "password": "swordfish", "pool_size": 1,
        "ssl": {"enable": false}, "peer": {"allow_unauthenticated": true},
        "retry_interval": "15s", "tcp_opts": {"nodelay": true},
        "resource_opts": {"request_ttl": "45s", "max_buffer_bytes": "1MB", "query_mode": "async"},
    });
    let made = a.rest("POST", "", Some(&body)).await;
    assert_eq!(made.0, 201, "{made:?}");
    let mut link = made.json();
    assert_eq!(link["password"], "******");
    assert_eq!(
        (&link["spool"]["max_bytes"], &link["spool"]["max_age"]),
        (&json!(1_048_576), &json!("45000ms"))
    );
    assert_eq!(link["resource_opts"]["query_mode"], "async");
    assert_eq!(link["unused"], json!(["resource_opts.query_mode", "retry_interval", "tcp_opts"]));
    let again = a.rest("POST", "", Some(&body)).await;
    assert_eq!((again.0, &again.json()["code"]), (400, &json!("ALREADY_EXISTS")));

    // What was shown may be sent back.
    link["enable"] = json!(false);
    let changed = a.rest("PUT", "/link/B", Some(&link)).await;
    assert_eq!((changed.0, &changed.json()["status"]), (200, &json!("disconnected")), "{changed:?}");
    let kept = fs::read_to_string(a.data().join("links.toml")).unwrap();
    assert!(kept.contains("swordfish"), "{kept}");
    let renamed = a.rest("PUT", "/link/B", Some(&json!({"name": "C"}))).await;
    assert_eq!((renamed.0, &renamed.json()["code"]), (400, &json!("BAD_REQUEST")));
    let wrong = a.rest("PUT", "/link/B", Some(&json!({"server": "x:1", "topic": []}))).await;
    assert!(wrong.0 == 400 && wrong.1.contains("did you mean `topics`"), "{wrong:?}");
    assert_eq!(a.rest("PUT", "/link/C", Some(&json!({"server": "x:1", "topics": []}))).await.0, 404);
    assert_eq!(a.rest("DELETE", "/link/B", None).await.0, 204);
    assert_eq!(a.rest("DELETE", "/link/B", None).await.0, 404);
}
