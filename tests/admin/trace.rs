//! Following a broker: over REST, and with `tombolo trace`.

use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;
use tombolo::admin::sockets::ADMIN_SOCKET;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::hello;
use crate::harness::message;
use crate::node::Running;
use crate::node::eventually;
use crate::node::head;
use crate::node::start;
use crate::node::start_with;

/// A trace that runs.
struct Follower(BufReader<Box<dyn AsyncRead + Unpin>>);

impl Follower {
    async fn new(running: &Running, query: &str) -> Self {
        let stream = TcpStream::connect(running.node.http_address()).await.unwrap();
        Self::over(stream, query, Some(&running.key)).await
    }

    /// Over the admin socket, whose buffers are small.
    async fn by_socket(running: &Running) -> Self {
        let stream = UnixStream::connect(running.data().join(ADMIN_SOCKET)).await.unwrap();
        Self::over(stream, "", None).await
    }

    async fn over(
        mut stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        query: &str,
        key: Option<&str>,
    ) -> Self {
        let head = head("GET", &format!("/api/v5/trace/stream?{query}"), key, None);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut follower = Self(BufReader::new(Box::new(stream)));
        assert!(follower.line().await.starts_with("HTTP/1.0 200"));
        // The first empty line of the body comes once it runs.
        while !follower.line().await.is_empty() {}
        assert_eq!(follower.line().await, "");
        follower
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(LIMIT, self.0.read_line(&mut line)).await.expect("a line in time").unwrap();
        line.trim_end().to_owned()
    }

    /// The next event.
    async fn next(&mut self) -> Value {
        loop {
            let line = self.line().await;
            if !line.is_empty() {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    /// The next event, as its kind and some of its fields.
    async fn told(&mut self, fields: &[&str]) -> Vec<Value> {
        let event = self.next().await;
        std::iter::once(&"event").chain(fields).map(|name| event[*name].clone()).collect()
    }

    async fn ends(mut self) {
        let mut rest = String::new();
        while timeout(LIMIT, self.0.read_line(&mut rest)).await.expect("an end in time").unwrap() > 0 {}
    }
}

macro_rules! list {
    ($($value:expr),+ $(,)?) => { vec![$(json!($value)),+] };
}

#[tokio::test]
async fn a_message_is_followed_from_its_publisher_to_its_subscribers() {
    let running = start().await;
    let mut trace = Follower::new(&running, "").await;
    let mut receiver = running.join(Version::V5, "receiver").await;
    assert_eq!(trace.told(&["clientid", "listener"]).await, list!["connect", "receiver", "tcp:default"]);
    receiver.subscribe("plant/+", Q1).await;
    let told = trace.told(&["clientid", "topic", "action", "permission", "rule_line", "reason"]).await;
    assert_eq!(told, list!["acl", "receiver", "plant/+", "subscribe", "allow", 1, "rule"]);
    let told = trace.told(&["clientid", "topic", "reason_code"]).await;
    assert_eq!(told, list!["subscribe", "receiver", "plant/+", 1]);
    let mut sender = running.join(Version::V311, "sender").await;
    assert_eq!(trace.told(&["clientid"]).await, list!["connect", "sender"]);
    sender.publish("plant/1", b"secret words", Q1).await;
    let told = trace.told(&["clientid", "topic", "action", "permission", "rule_line"]).await;
    assert_eq!(told, list!["acl", "sender", "plant/1", "publish", "allow", 1]);
    let publish = trace.next().await;
    assert_eq!(publish["event"], "publish");
    assert_eq!((&publish["qos"], &publish["retain"]), (&json!(1), &json!(false)));
    assert_eq!(publish["payload_bytes"], 12);
    assert!(!publish.to_string().contains("secret"), "{publish}");
    let told = trace.told(&["clientid", "from_clientid", "topic"]).await;
    assert_eq!(told, list!["delivered", "receiver", "sender", "plant/1"]);
    sender.publish("nobody", b"x", Q1).await;
    assert_eq!(trace.told(&[]).await, list!["acl"]);
    assert_eq!(trace.told(&[]).await, list!["publish"]);
    assert_eq!(trace.told(&["topic", "reason"]).await, list!["dropped", "nobody", "no_subscribers"]);
    receiver.receive().await;
    receiver.unsubscribe(&["plant/+"]).await;
    assert_eq!(trace.told(&["topic", "reason_code"]).await, list!["unsubscribe", "plant/+", 0]);
    receiver.leave().await;
    assert_eq!(trace.told(&["clientid", "reason"]).await, list!["disconnect", "receiver", "normal"]);
    running.node.stop().await;
    assert_eq!(trace.told(&["clientid", "reason"]).await, list!["disconnect", "sender", "server_shutdown"]);
    trace.ends().await;
}

#[tokio::test]
async fn what_waits_is_told_when_it_is_kept_and_when_it_is_sent() {
    let running = start().await;
    let lasting = Connect { clean_start: false, ..hello(Version::V311, "away") };
    let (mut away, _) = running.join_as(&lasting).await;
    away.subscribe("a", Q1).await;
    away.leave().await;
    let mut sender = running.join(Version::V5, "sender").await;
    let mut trace = Follower::new(&running, "clientid=away").await;
    sender.publish("a", b"1", Q1).await;
    sender.publish("a", b"2", Q1).await;
    sender.publish("a", b"3", Q0).await;
    sender.quiet().await;
    assert_eq!(trace.told(&["clientid", "topic"]).await, list!["queued", "away", "a"]);
    assert_eq!(trace.told(&["from_clientid", "qos"]).await, list!["queued", "sender", 1]);
    assert_eq!(trace.told(&["from_clientid", "qos"]).await, list!["queued", "sender", 0]);
    let (mut away, answer) = running.join_as(&lasting).await;
    assert_eq!(answer, Got::ConnAck(true, 0));
    assert_eq!(away.receive_texts(3).await, ["1", "2", "3"]);
    assert_eq!(trace.told(&["clientid"]).await, list!["connect", "away"]);
    let told = trace.told(&["clientid", "messages", "reason"]).await;
    assert_eq!(told, list!["delivered", "away", 3, "waiting"]);
    running.node.stop().await;
}

#[tokio::test]
async fn denials_and_refusals_say_why() {
    let running = start_with(|settings| settings.authentication.allow_anonymous = false).await;
    let mut trace = Follower::new(&running, "ip_address=127.0.0.0/8").await;
    assert_eq!(running.join_as(&hello(Version::V5, "stranger")).await.1, Got::ConnAck(false, 0x87));
    let told = trace.told(&["clientid", "reason", "reason_code", "listener"]).await;
    assert_eq!(told, list!["refused", "stranger", "not_authorized", 0x87, "tcp:default"]);
    let address = running.node.server().address("tcp:default").unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let told = trace.told(&["clientid", "reason"]).await;
    assert_eq!(told, list!["refused", Value::Null, "malformed_connect"]);
    running.node.stop().await;

    let mut running = start().await;
    let rules = "{deny, all, publish, [\"closed\"]}.\n{deny, all, subscribe, [\"hidden/#\"]}.\n{allow, all}.";
    running.setup.file("acl.conf", rules);
    let mut settings = running.setup.settings();
    settings.http = running.node.server().settings().http.clone();
    running.node.reload(settings).await.unwrap();
    let mut client = running.join(Version::V5, "c").await;
    let mut trace = Follower::new(&running, "clientid=c").await;
    // The second time the verdict is remembered, and told all the same.
    for _ in 0..2 {
        assert_eq!(client.publish("closed", b"x", Q1).await, 0x87);
        let told = trace.told(&["topic", "permission", "rule_line", "reason"]).await;
        assert_eq!(told, list!["acl", "closed", "deny", 1, "rule"]);
        assert_eq!(trace.told(&["topic"]).await, list!["publish", "closed"]);
        assert_eq!(trace.told(&["topic", "reason"]).await, list!["dropped", "closed", "acl"]);
    }
    assert_eq!(client.subscribe("hidden/1", Q1).await, 0x87);
    assert_eq!(trace.told(&["permission", "rule_line"]).await, list!["acl", "deny", 2]);
    assert_eq!(trace.told(&["reason_code"]).await, list!["subscribe", 0x87]);
    running.node.stop().await;
}

#[tokio::test]
async fn conditions_leave_out_the_rest() {
    let running = start().await;
    let mut by_topic = Follower::new(&running, "topic=a%2F%2B").await;
    let mut elsewhere = Follower::new(&running, "ip_address=192.0.2.0%2F24").await;
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("b/#", Q0).await;
    client.subscribe("a/#", Q0).await;
    client.publish("b/1", b"", Q1).await;
    // One run of messages, of which one is meant.
    for topic in ["b/1", "a/1", "b/1"] {
        client.publish_as(Publish { qos: Q0, ..message(topic, b"x") }).await;
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(by_topic.next().await);
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|event| (event["event"].as_str().unwrap(), event["topic"].as_str().unwrap()))
        .collect();
    let expected =
        [("acl", "a/#"), ("subscribe", "a/#"), ("acl", "a/1"), ("publish", "a/1"), ("delivered", "a/1")];
    assert_eq!(seen, expected);
    running.node.stop().await;
    // Nothing but empty lines.
    assert_eq!(elsewhere.line().await, "");
}

#[tokio::test]
async fn traces_are_few_and_make_room_when_they_end() {
    let running = start().await;
    let mut traces = Vec::new();
    for _ in 0..8 {
        traces.push(Follower::new(&running, "").await);
    }
    let refused = running.ask("GET", "/api/v5/trace/stream").await;
    assert_eq!((refused.0, &refused.json()["code"]), (503, &json!("SERVICE_UNAVAILABLE")));
    traces.clear();
    let broker = running.node.server().broker();
    eventually("the traces to end", || !broker.traces.is_on()).await;
    Follower::new(&running, "").await;
    for query in ["topic=a/%23/b", "ip_address=10.0.0.1/8", "client=c"] {
        let answer = running.ask("GET", &format!("/api/v5/trace/stream?{query}")).await;
        assert_eq!(answer.0, 400, "{query}: {answer:?}");
    }
    running.node.stop().await;
}

/// A reader that does not read costs its own events, and nobody else's time.
#[tokio::test]
async fn a_trace_that_is_not_read_holds_nobody_up() {
    let running = start().await;
    let mut trace = Follower::by_socket(&running).await;
    let mut receiver = running.join(Version::V5, "receiver").await;
    receiver.subscribe("t", Q0).await;
    let mut sender = running.join(Version::V5, "sender").await;
    const BURST: usize = 100;
    const BURSTS: usize = 60;
    for _ in 0..BURSTS {
        for _ in 0..BURST {
            sender.publish("t", b"x", Q0).await;
        }
        receiver.receive_texts(BURST).await;
    }
    let (mut shown, mut lost) = (0, 0);
    loop {
        let event = trace.next().await;
        match event["event"].as_str().unwrap() {
            "lost" => lost += event["messages"].as_u64().unwrap(),
            _ => shown += 1,
        }
        // Three for each message, two connections, and a subscription with its verdict: all is shown or counted.
        if shown + lost == (BURSTS * BURST * 3 + 4) as u64 {
            break;
        }
    }
    assert!(lost > 0, "{shown} shown");
    running.node.stop().await;
}

#[tokio::test]
async fn the_command_prints_what_happens_for_a_time() {
    let running = start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    command.args(["trace", "--topic", "a/+", "--address", "127.0.0.0/8", "--for", "1h", "--data"]);
    command.arg(running.data()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let broker = running.node.server().broker();
    eventually("the trace to begin", || broker.traces.is_on()).await;
    let mut client = running.join(Version::V5, "c").await;
    client.publish("a/1", b"x", Q1).await;
    let mut next =
        async || timeout(LIMIT, lines.next_line()).await.expect("a line in time").unwrap().unwrap();
    let acl = next().await;
    assert!(acl.contains(" acl         c a/1 action=publish permission=allow rule_line=1"), "{acl}");
    assert!(next().await.contains(" publish     c a/1 qos=1 retain=false payload_bytes=1"));
    assert!(next().await.contains(" dropped     a/1 from_clientid=c"));
    running.node.stop().await;
    assert_eq!(timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(1), "the broker stopped");
}

#[tokio::test]
async fn the_command_ends_by_itself_or_at_an_interrupt() {
    let running = start().await;
    let spawn = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        command.arg("trace").args(arguments).arg("--data").arg(running.data()).kill_on_drop(true);
        command.spawn().unwrap()
    };
    let mut child = spawn(&["--for", "10ms", "--format", "json"]);
    assert_eq!(timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(0));
    let broker = running.node.server().broker();
    eventually("the first trace to end", || !broker.traces.is_on()).await;
    let mut child = spawn(&[]);
    eventually("the trace to begin", || broker.traces.is_on()).await;
    let pid = child.id().unwrap().to_string();
    Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
    assert_eq!(timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(0));
    eventually("the trace to end", || !broker.traces.is_on()).await;
    running.node.stop().await;
}
