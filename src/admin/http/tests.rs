use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::admin::keys::Keys;
use crate::admin::rest::Readiness;
use crate::broker::events::Wanted;
use crate::broker::server::Server;
use crate::config;
use crate::config::Environment;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

/// A broker in a folder that is gone when this returns: what it holds open stays.
async fn state(readiness: Readiness) -> HttpState {
    let data = tempfile::tempdir().unwrap();
    let text = format!(
        "[cluster]\nname = \"A\"\n[data]\ndir = \"{}\"\ndurability = \"memory\"\n",
        data.path().display()
    );
    let text = text + "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    let settings = config::parse("tombolo.toml", &text, &Environment::default()).unwrap();
    let server = Server::start(settings).await.unwrap();
    HttpState {
        broker: Arc::clone(server.broker()),
        render_metrics: Arc::new(|| "# HELP a b\n".to_owned()),
        readiness: Arc::new(move || readiness.clone()),
        cluster: "A".to_owned(),
        node: "tombolo@127.0.0.1".to_owned(),
        metrics_open: true,
        metrics_emqx: true,
        allowed_hosts: vec!["broker.example".to_owned()],
        keys: Arc::new(Keys::of(data.path())),
        link_keys: None,
        changes: None,
        shelf: Arc::default(),
        rotation: Arc::default(),
    }
}

async fn start(state: HttpState, bind: &str) -> Running {
    let listener = TcpListener::bind(bind).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(listener, state, async move {
        let _ = stopped.await;
    }));
    Running { address, stop, task }
}

impl Running {
    /// Sends `head` (request line and headers, `\n` for CRLF) and reads to the end: status, headers, body.
    async fn raw(&self, head: &str) -> (u16, String, String) {
        let port = self.address.port();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("{head}\nConnection: close\n\n").replace('\n', "\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a complete answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.raw(&format!("GET {path} HTTP/1.1\nHost: {}", self.address)).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_pages_of_a_ready_broker() {
    let server = start(state(Ok(())).await, "127.0.0.1:0").await;
    let (status, head, body) = server.get("/metrics").await;
    assert_eq!((status, body.as_str()), (200, "# HELP a b\n"));
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");

    assert_eq!(server.get("/health/live").await.2, r#"{"status":"live"}"#);
    let (status, head, body) = server.get("/health/ready").await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"ready"}"#));
    assert!(head.contains("content-type: application/json"), "{head}");

    for path in ["/status", "/api/v5/status"] {
        let (status, _, body) = server.get(path).await;
        assert_eq!(status, 200);
        assert_eq!(body, "Node tombolo@127.0.0.1 is started\ntombolo is running\n");
    }
    let (_, _, body) = server.get("/status?format=json").await;
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["node_name"], "tombolo@127.0.0.1");
    assert_eq!(json["app_status"], "running");
    assert_eq!(json["rel_vsn"], env!("CARGO_PKG_VERSION"));
    server.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_not_ready_says_why() {
    let reasons = vec!["listener \"tcp:default\"\n".to_owned(), "store".to_owned()];
    let server = start(state(Err(reasons.clone())).await, "127.0.0.1:0").await;
    let (status, _, body) = server.get("/health/ready").await;
    assert_eq!(status, 503);
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["status"], "not_ready");
    assert_eq!(json["reasons"], json!(reasons));
    assert_eq!(server.get("/health/live").await.0, 200);
    assert_eq!(server.get("/status").await.0, 503);
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_not_allowed() {
    let server = start(state(Ok(())).await, "127.0.0.1:0").await;
    let host = format!("Host: {}", server.address);
    let (status, head, body) = server.get("/nowhere?x=1").await;
    assert_eq!((status, body.as_str()), (404, r#"{"code":"NOT_FOUND","message":"no such path"}"#));
    assert!(head.contains("nosniff"), "{head}");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let (status, _, body) = server.raw(&format!("{method} /metrics HTTP/1.1\n{host}")).await;
        assert_eq!(status, 405, "{method}");
        assert!(body.contains("METHOD_NOT_ALLOWED"), "{body}");
    }
    let (status, _, body) = server.raw(&format!("HEAD /metrics HTTP/1.1\n{host}")).await;
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, _, _) = server.raw(&format!("GET /status HTTP/1.1\n{host}\nContent-Length: 99999999")).await;
    assert_eq!(status, 413);
    server.stop().await;
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused() {
    let server = start(state(Ok(())).await, "127.0.0.1:0").await;
    let ours = ["localhost", "LocalHost:99", "127.0.0.1", "[::1]:80", "[::1]", "broker.example:1"];
    for host in ours {
        let (status, _, _) = server.raw(&format!("GET /metrics HTTP/1.1\nHost: {host}")).await;
        assert_eq!(status, 200, "{host}");
    }
    let foreign = [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "192.0.2.1",
        "127.0.0.1:x",
        "[::1",
        "",
    ];
    for host in foreign {
        for path in ["/metrics", "/status", "/nowhere"] {
            let (status, _, body) = server.raw(&format!("GET {path} HTTP/1.1\nHost: {host}")).await;
            // Some of these are refused by the HTTP library already.
            assert!(status == 403 || status == 400, "{host}: {status}");
            assert!(status == 400 || body.contains("FORBIDDEN"), "{body}");
        }
    }
    let request = |rest: &str| format!("GET /status HTTP/1.1\n{rest}");
    for (what, status) in [
        ("Host: localhost\nOrigin: http://localhost:3000", 200),
        ("Host: localhost\nOrigin: https://broker.example", 200),
        ("Host: localhost\nOrigin: http://evil.example", 403),
        ("Host: localhost\nOrigin: null", 403),
        ("Host: localhost\nHost: evil.example", 403),
        ("Accept: */*", 403),
    ] {
        assert_eq!(server.raw(&request(what)).await.0, status, "{what}");
    }
    let absolute = "GET http://evil.example/status HTTP/1.1\nHost: localhost";
    assert_eq!(server.raw(absolute).await.0, 403);
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_open_on_loopback_only_and_only_if_configured() {
    let closed = HttpState { metrics_open: false, ..state(Ok(())).await };
    let server = start(closed, "127.0.0.1:0").await;
    assert_eq!(server.get("/metrics").await.0, 401);
    assert_eq!(server.get("/health/live").await.0, 200);
    server.stop().await;

    let shared = Shared { state: state(Ok(())).await, bound: Bound::To("0.0.0.0:1".parse().unwrap()) };
    let refused = shared.admit(Access::Metrics, &Request::default()).unwrap_err();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_client_that_says_nothing() {
    let server = start(state(Ok(())).await, "127.0.0.1:0").await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"GET /sta").await.unwrap();
    assert_eq!(server.get("/status").await.0, 200);
    server.stop().await;
}

/// Whatever changes something is written down: who, what, from where, and how it went. Those that only ask are named here.
#[tokio::test]
async fn every_change_that_is_asked_for_is_in_the_security_log() {
    const ASKING: [&str; 2] = ["/api/v5/acl/check", "/api/v5/acl/explain"];
    let data = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keys::of(data.path()));
    let new = keys.create("test", 1).unwrap();
    let state = HttpState { keys, ..state(Ok(())).await };
    let broker = Arc::clone(&state.broker);
    let server = start(state, "127.0.0.1:0").await;
    let key = crate::admin::base64::encode(format!("{}:{}", new.key.id, new.secret).as_bytes());
    let mut asked = 0;
    for route in routes().filter(|route| route.method != Method::Get && !ASKING.contains(&route.path)) {
        let mut path = String::new();
        for part in route.path.split(['{', '}']).enumerate() {
            path.push_str(if part.0 % 2 == 0 { part.1 } else { "x" });
        }
        let head = format!(
            "{} {path} HTTP/1.1\nHost: {}",
            format!("{:?}", route.method).to_uppercase(),
            server.address
        );
        let asks = async |more: &str| {
            let port = server.address.port();
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let rest = "Content-Type: application/json\nContent-Length: 2\nConnection: close\n\n";
            let request = format!("{head}\n{more}{rest}").replace('\n', "\r\n") + "{}";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.split(' ').nth(1).unwrap().to_owned()
        };
        let logged = |what: &str| {
            let lines = broker.events.remembered(Wanted::default());
            let last = lines.iter().rev().find(|line| line.contains(what));
            last.cloned().unwrap_or_else(|| panic!("{head}: nothing is written down"))
        };
        assert_eq!(asks("").await, "401", "{head}");
        // Of many refusals of one source not all are written down.
        assert!(logged("authn_login_fail:api_key").contains("\"source\":\"127.0.0.1:"), "{head}");
        assert_ne!(asks(&format!("Authorization: Basic {key}\n")).await, "401", "{head}");
        let line = logged("authz_admin:");
        let act = route.act.unwrap_or_default();
        let event = format!("\"authz_admin:{act}\",\"identity\":\"api_key {}\"", new.key.id);
        for part in [&event, "\"source\":\"127.0.0.1:", &path] {
            assert!(line.contains(part), "{head}: {line}");
        }
        asked += 1;
    }
    assert!(asked > 30, "{asked}");
    server.stop().await;
}
