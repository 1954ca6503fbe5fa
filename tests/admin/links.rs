//! Looking at links: over REST in EMQX's shapes, and with `tombolo link …`. A reaches B; B does not reach A.

use serde_json::Value;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;
use tombolo::mqtt::packet::Version;

use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::node::Running;
use crate::node::start;
use crate::node::start_as;

/// A cluster in plaintext on loopback, whose peers prove nothing.
fn cluster(name: &str, peer: &str, server: &str) -> Setup {
    let listener = "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
                    allow_insecure = true";
    let link = format!(
        "[[cluster.links]]\nname = \"{peer}\"\nserver = \"{server}\"\ntopics = [\"plant/#\"]\nexport = [\"plant/#\"]\n\
         pool_size = 1\npassword = \"swordfish\"\nusername = \"u\"\n[cluster.links.peer]\nallow_unauthenticated = true\n\
         [cluster.links.ssl]\nenable = false\n"
    );
    Setup::new().cluster(name).listeners(listener).links(&link)
}

struct Pair {
    a: Running,
    b: Running,
}

impl Pair {
    async fn start() -> Self {
        // Nothing listens on port 1.
        let b = start_as(cluster("B", "A", "127.0.0.1:1"), |_| {}).await;
        let address = b.node.server().address("tcp:default").unwrap();
        let a = start_as(cluster("A", "B", &address.to_string()), |_| {}).await;
        Self { a, b }
    }
}

impl Running {
    async fn link(&self, path: &str) -> Value {
        let answer = self.ask("GET", &format!("/api/v5/cluster/links{path}")).await;
        assert_eq!(answer.0, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Waits until a link says this.
    async fn until_link(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let now = self.link(path).await;
                if wanted(&now) {
                    return now;
                }
            }
        };
        timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("{path}"))
    }

    /// What a command prints.
    async fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .output()
            .await
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

/// What stopped a topic on its way out of here.
async fn stopped(running: &Running, peer: &str, query: &str) -> Value {
    running.link(&format!("/link/{peer}/explain?{query}")).await["ways"][0]["stopped_by"].clone()
}

#[tokio::test]
async fn a_link_shows_its_state_why_it_has_it_and_no_secret() {
    let Pair { a, b } = Pair::start().await;
    let active = a.until_link("/link/B", |link| link["state"] == "active").await;
    assert_eq!(
        (&active["status"], &active["node_status"][0]["status"]),
        (&json!("connected"), &json!("connected"))
    );
    assert_eq!((&active["password"], &active["topics"]), (&json!("******"), &json!(["plant/#"])));
    let down = b.until_link("/link/A", |link| link["state"] == "unreachable").await;
    assert_eq!(down["status"], "disconnected");
    assert!(down["reason"].as_str().unwrap().contains("refused"), "{down}");
    assert_eq!(down["node_status"][0]["reason"], down["reason"]);
    assert_eq!(a.link("").await.as_array().unwrap().len(), 1);
    assert_eq!(a.ask("GET", "/api/v5/cluster/links/link/C").await.0, 404);
    assert_eq!(start().await.link("").await, json!([]));
}

#[tokio::test]
async fn routes_spool_and_ledger_account_for_what_waits() {
    let Pair { a, b } = Pair::start().await;
    let mut reader = a.join(Version::V5, "reader").await;
    reader.subscribe("plant/+", Q1).await;
    reader.subscribe("elsewhere", Q1).await;
    reader.subscribe("$share/g/plant/s", Q1).await;
    let own = a.link("/link/B/routes?direction=out").await;
    assert_eq!(own["data"][0], json!({"filter": "plant/+", "direction": "out"}));
    assert_eq!(own["data"][1], json!({"filter": "plant/s", "direction": "out", "share_group": "g"}));
    assert_eq!(own["meta"]["count"], 2, "what the link's topics do not reach is not asked for");
    b.until_link("/link/A/routes", |routes| routes["meta"]["count"] == 2).await;
    let some = b.link("/link/A/routes?match_topic=plant/s&limit=1").await;
    assert_eq!((&some["data"][0]["filter"], &some["meta"]["count"]), (&json!("plant/+"), &json!(2)));

    let mut sender = b.join(Version::V5, "sender").await;
    assert_eq!(sender.publish("plant/1", b"x", Q1).await, 0);
    let spool = b.link("/link/A/spool").await;
    assert_eq!((&spool["messages"], &spool["lanes"][0]["queued"]), (&json!(1), &json!(1)));
    assert_eq!(spool["lanes"][0]["connected"], false);
    let ledger = b.link("/link/A/ledger").await;
    assert_eq!(
        (&ledger["accepted"], &ledger["queued"], &ledger["unaccounted"]),
        (&json!(1), &json!(1), &json!(0))
    );
    let metrics = b.link("/link/A/metrics").await;
    assert_eq!(metrics["metrics"]["router"]["routes"], 2);
    assert_eq!(metrics["metrics"]["forwarding"]["queuing"], 1);
    assert_eq!(metrics["node_metrics"][0]["metrics"], metrics["metrics"]);
}

#[tokio::test]
async fn an_explanation_names_the_first_no() {
    let Pair { a, mut b } = Pair::start().await;
    let mut reader = a.join(Version::V5, "reader").await;
    reader.subscribe("plant/1", Q1).await;
    b.until_link("/link/A/routes", |routes| routes["meta"]["count"] == 1).await;
    b.until_link("/link/A", |link| link["state"] == "unreachable").await;
    let starts = |stop: &Value, with: &str| {
        assert!(stop.as_str().is_some_and(|text| text.starts_with(with)), "{stop}")
    };
    starts(&stopped(&b, "A", "topic=plant/1").await, "state: unreachable (");
    starts(
        &stopped(&b, "A", "topic=plant/2").await,
        "routes: A wants nothing that matches; it has told us of 1",
    );
    starts(&stopped(&b, "A", "topic=other").await, "export: other is outside");
    starts(&stopped(&b, "A", "topic=%24LINK/x").await, "topic: ");
    // The rules, of a client that is connected.
    b.setup = b.setup.acl("{deny, {clientid, \"sender\"}, publish, [\"plant/#\"]}.\n{allow, all}.");
    assert_eq!(b.ask("POST", "/api/v5/acl/reload").await.0, 200);
    let _sender = b.join(Version::V5, "sender").await;
    let denied = stopped(&b, "A", "topic=plant/1&from=sender").await;
    starts(&denied, "acl: ");
    assert!(denied.as_str().unwrap().contains("acl.conf: rule 1 (line 1)"), "{denied}");
    // The other way: what comes from B.
    a.until_link("/link/B", |link| link["state"] == "active").await;
    let ways = a.link("/link/B/explain?topic=plant/1").await["ways"].clone();
    assert_eq!((&ways[1]["direction"], &ways[1]["crosses"]), (&json!("in"), &json!(true)), "{ways}");
    for query in ["", "?topic=", "?topic=%23"] {
        assert_eq!(
            a.ask("GET", &format!("/api/v5/cluster/links/link/B/explain{query}")).await.0,
            400,
            "{query}"
        );
    }
    assert_eq!(a.ask("GET", "/api/v5/cluster/links/link/B/routes?direction=up").await.0, 400);
    assert_eq!(a.ask("GET", "/api/v5/cluster/links/link/B/routes?match_topic=a%23").await.0, 400);
}

#[tokio::test]
async fn the_commands_show_the_same() {
    let Pair { a, b } = Pair::start().await;
    let mut reader = a.join(Version::V5, "reader").await;
    reader.subscribe("plant/1", Q1).await;
    b.until_link("/link/A/routes", |routes| routes["meta"]["count"] == 1).await;
    b.until_link("/link/A", |link| link["state"] == "unreachable").await;
    let (code, text) = b.command(&["link", "list", "--format", "csv"]).await;
    assert_eq!(code, Some(0));
    assert!(text.lines().nth(1).unwrap().starts_with("A,unreachable,127.0.0.1:1,"), "{text}");
    let (_, text) = b.command(&["link", "info", "A", "--format", "json"]).await;
    let info: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&info["state"], &info["routes_in"]), (&json!("unreachable"), &json!(1)));
    let (_, text) = b.command(&["link", "show", "A", "--format", "yaml"]).await;
    assert!(text.contains("password: \"******\"") && !text.contains("swordfish"), "{text}");
    let (_, text) = b.command(&["link", "routes", "A", "--format", "csv"]).await;
    assert_eq!(text.lines().nth(1), Some("plant/1,"), "{text}");
    let (_, text) = a.command(&["link", "routes", "B", "--direction", "out", "--format", "csv"]).await;
    assert_eq!(text.lines().nth(1), Some("plant/1,"), "{text}");
    let (_, text) = b.command(&["link", "spool", "A", "--format", "csv"]).await;
    assert_eq!(text.lines().nth(1), Some("0,false,0,0,0,"), "{text}");
    let (_, text) = b.command(&["link", "ledger", "A", "--format", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["unaccounted"], 0);
    let (_, text) = b.command(&["link", "explain", "other"]).await;
    assert!(text.contains("=> does not cross: export: other is outside"), "{text}");
    let (code, _) = b.command(&["link", "info", "C"]).await;
    assert_eq!(code, Some(4));
}
