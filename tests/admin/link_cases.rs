//! Cases that EMQX tests its own links with over REST (`link-protocol.md` 8), and what a peer that does not want us makes
//! of a link's state: `tests/conformance/links.tsv` lists all of them.

use serde_json::Value;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tombolo::admin::sockets::ADMIN_SOCKET;

use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::link_changes::Broker;
use crate::node::Answer;
use crate::node::exchange;
use crate::node::head;

fn body(name: &str, server: &str) -> Value {
    json!({
        "name": name, "server": server, "topics": ["plant/#"], "pool_size": 1,
        "ssl": {"enable": false}, "peer": {"allow_unauthenticated": true},
    })
}

/// The same as it is changed: its name is in the path.
fn unnamed(mut body: Value) -> Value {
    body.as_object_mut().unwrap().remove("name");
    body
}

async fn api(broker: &Broker, method: &str, path: &str) -> Answer {
    let stream = UnixStream::connect(broker.data().join(ADMIN_SOCKET)).await.unwrap();
    exchange(stream, &head(method, &format!("/api/v5/{path}"), None, None)).await
}

/// Waits until a link says this.
async fn until(broker: &Broker, path: &str, wanted: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let waiting = async {
        loop {
            last = broker.rest("GET", path, None).await.json();
            if wanted(&last) {
                return;
            }
        }
    };
    assert!(timeout(LIMIT, waiting).await.is_ok(), "{path}: {last}");
}

fn reason_of(link: &Value, part: &str) -> bool {
    link["reason"].as_str().is_some_and(|reason| reason.contains(part))
}

/// Case 5. It tells of the link that is meant, and of no other.
#[tokio::test]
async fn a_peer_that_kicks_the_clients_of_a_link_is_named_with_its_reason() {
    let (a, b, c) =
        (Broker::start("A", "").await, Broker::start("B", "").await, Broker::start("C", "").await);
    for (name, peer) in [("B", &b), ("C", &c)] {
        assert_eq!(a.rest("POST", "", Some(&body(name, &peer.address))).await.0, 201);
        assert_eq!(peer.rest("POST", "", Some(&body("A", &a.address))).await.0, 201);
    }
    a.until_active("B").await;
    a.until_active("C").await;
    let kicking = async {
        loop {
            let link = a.rest("GET", "/link/B", None).await.json();
            if link["status"] == "disconnected" && reason_of(&link, "dministrative") {
                return;
            }
            for client in api(&b, "GET", "clients").await.json()["data"].as_array().unwrap() {
                let id = client["clientid"].as_str().unwrap().replace(':', "%3A");
                api(&b, "DELETE", &format!("clients/{id}")).await;
            }
        }
    };
    assert!(timeout(LIMIT, kicking).await.is_ok(), "{}", a.rest("GET", "/link/B", None).await.json());
    let other = a.rest("GET", "/link/C", None).await.json();
    assert_eq!((&other["status"], &other["reason"]), (&json!("connected"), &Value::Null));
    a.until_active("B").await;
}

/// Case 25. EMQX says `unknown_cluster` where the link is gone; here a cluster that no link knows proves to be nobody.
#[tokio::test]
async fn a_link_says_why_its_peer_does_not_want_it() {
    let (a, c) = (Broker::start("A", "").await, Broker::start("C", "").await);
    assert_eq!(a.rest("POST", "", Some(&body("B", &c.address))).await.0, 201);
    assert_eq!(c.rest("POST", "", Some(&body("A", &a.address))).await.0, 201);
    until(&a, "/link/B", |link| {
        link["state"] == "rejected" && reason_of(link, "bad_remote_cluster_link_name")
    })
    .await;
    assert_eq!(a.rest("DELETE", "/link/B", None).await.0, 204);
    assert_eq!(a.rest("POST", "", Some(&body("C", &c.address))).await.0, 201);
    a.until_active("C").await;
    let mut off = unnamed(body("A", &a.address));
    off["enable"] = json!(false);
    assert_eq!(c.rest("PUT", "/link/A", Some(&off)).await.0, 200);
    // As long as the connection lives its peer is heard; the next one is refused.
    until(&a, "/link/C", |link| link["state"] == "active" || reason_of(link, "cluster_link_disabled")).await;
    let mut changed = unnamed(body("C", &c.address));
    changed["topics"] = json!(["plant/1"]);
    assert_eq!(a.rest("PUT", "/link/C", Some(&changed)).await.0, 200);
    until(&a, "/link/C", |link| link["state"] == "rejected" && reason_of(link, "cluster_link_disabled"))
        .await;
    assert_eq!(c.rest("DELETE", "/link/A", None).await.0, 204);
    until(&a, "/link/C", |link| link["state"] == "unauthenticated" && link["reason"] != Value::Null).await;
}

/// Cases 23, 26 to 28, 30, 34 and 35.
#[tokio::test]
async fn links_are_made_changed_and_deleted_with_emqxs_status_codes() {
    let a = Broker::start("A", "").await;
    assert_eq!(a.rest("GET", "", None).await.json(), json!([]));
    assert_eq!(a.rest("GET", "/link/B", None).await.0, 404);
    for (name, server) in [("B", "127.0.0.1:1"), ("C", "nobody.invalid:2")] {
        let mut made = body(name, server);
        made["ssl"]["allow_insecure"] = json!(true); // the second one is not on loopback, if it exists at all
        (made["username"], made["password"]) = (json!("u"), json!("swordfish"));
        let made = a.rest("POST", "", Some(&made)).await;
        assert_eq!((made.0, &made.json()["password"]), (201, &json!("******")), "{made:?}");
        assert_eq!(made.json()["clientid"], "clink-A-", "it may be left out");
    }
    let again = a.rest("POST", "", Some(&body("B", "127.0.0.1:1"))).await;
    assert_eq!((again.0, &again.json()["code"]), (400, &json!("ALREADY_EXISTS")));
    assert_eq!(a.rest("GET", "", None).await.json().as_array().unwrap().len(), 2);
    let mut off = unnamed(body("B", "127.0.0.1:1"));
    off["enable"] = json!(false);
    let off = a.rest("PUT", "/link/B", Some(&off)).await;
    assert_eq!((off.0, &off.json()["status"]), (200, &json!("disconnected")), "{off:?}");
    assert_eq!(off.json()["node_status"][0]["status"], "disconnected");
    let mut homeless = unnamed(body("B", ""));
    homeless.as_object_mut().unwrap().remove("server");
    let twice = json!({"server": "127.0.0.1:1", "topics": ["t", "t"]});
    for (wrong, said) in [(homeless, "server"), (twice, "redundant_topics")] {
        let answer = a.rest("PUT", "/link/B", Some(&wrong)).await;
        assert!(answer.0 == 400 && answer.1.contains(said), "{answer:?}");
    }
    for name in ["", &"a".repeat(256), "~!@#$%^&*()", "-begins-so"] {
        let answer = a.rest("POST", "", Some(&body(name, "127.0.0.1:1"))).await;
        assert_eq!((answer.0, &answer.json()["code"]), (400, &json!("BAD_REQUEST")), "{name}: {answer:?}");
    }
    for (name, code) in [("B", 204), ("B", 404), ("C", 204)] {
        assert_eq!(a.rest("DELETE", &format!("/link/{name}"), None).await.0, code);
    }
    assert_eq!(a.rest("GET", "", None).await.json(), json!([]));
}

/// Case 29.
#[tokio::test]
async fn of_many_who_delete_a_link_one_has_done_it() {
    let a = Broker::start("A", "").await;
    assert_eq!(a.rest("POST", "", Some(&body("B", "127.0.0.1:1"))).await.0, 201);
    let delete = || async { a.rest("DELETE", "/link/B", None).await.0 };
    let answers =
        tokio::join!(delete(), delete(), delete(), delete(), delete(), delete(), delete(), delete());
    let mut answers: [u16; 8] = answers.into();
    answers.sort_unstable();
    assert_eq!(answers, [204, 404, 404, 404, 404, 404, 404, 404]);
}

/// Case 32.
#[tokio::test]
async fn the_metrics_of_a_link_count_what_its_peer_wants() {
    let (a, b) = (Broker::start("A", "").await, Broker::start("B", "").await);
    assert_eq!(a.rest("POST", "", Some(&body("B", &b.address))).await.0, 201);
    assert_eq!(b.rest("POST", "", Some(&body("A", &a.address))).await.0, 201);
    a.until_active("B").await;
    b.until_active("A").await;
    let routes =
        |count: u64| until_metrics(&a, move |metrics| metrics["metrics"]["router"]["routes"] == count);
    routes(0).await;
    let mut here = a.join("here").await;
    here.subscribe("plant/here", Q1).await;
    let mut there = b.join("there").await;
    there.subscribe("plant/1", Q1).await;
    there.subscribe("plant/2", Q1).await;
    routes(2).await;
    there.unsubscribe(&["plant/2"]).await;
    routes(1).await;
    // Off at the other end, which takes its routes back at once, and on again.
    for (enable, count) in [(false, 0), (true, 1)] {
        let mut changed = unnamed(body("A", &a.address));
        changed["enable"] = json!(enable);
        assert_eq!(b.rest("PUT", "/link/A", Some(&changed)).await.0, 200);
        routes(count).await;
    }
}

async fn until_metrics(broker: &Broker, wanted: impl Fn(&Value) -> bool) {
    until(broker, "/link/B/metrics", wanted).await;
}
