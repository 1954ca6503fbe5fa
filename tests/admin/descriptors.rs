//! A process that runs out of file descriptors: who is in stays, who comes is refused and counted.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time;

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::hello;

/// `tombolo serve` under `ulimit -n`, which ends with this handle.
struct Serving {
    child: Child,
    mqtt: SocketAddr,
    http: SocketAddr,
    /// What it says from when it is ready.
    log: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    setup: Setup,
}

async fn serve(limit: &str) -> Serving {
    let setup =
        Setup::new().links("[http]\nbind = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n");
    let config = setup.file("tombolo.toml", &setup.text());
    // What this process inherited and passes on is not the broker's, and would count against its limit.
    let closed = (3..10).map(|number| format!("exec {number}>&-; ")).collect::<String>();
    let script = format!("{closed}ulimit {limit}; exec \"$0\" serve --config \"$1\"");
    let mut child = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_tombolo")])
        .arg(config)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut mqtt, mut http) = (None, None);
    loop {
        let line = time::timeout(LIMIT, log.next_line()).await.expect("it starts").unwrap().expect("it runs");
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = || line["address"].as_str().unwrap().parse().ok();
        match line["message"].as_str().unwrap() {
            "listening" => mqtt = address(),
            "HTTP listening" => http = address(),
            "ready" => break,
            _ => {}
        }
    }
    Serving { child, mqtt: mqtt.unwrap(), http: http.unwrap(), log, setup }
}

impl Serving {
    /// A connected client, unless it was refused.
    async fn join(&self, id: &str) -> Option<Client> {
        let mut client = Client::over(TcpStream::connect(self.mqtt).await.unwrap());
        client.version = Version::V5;
        let asked = client.encoded(&Packet::Connect(Box::new(hello(Version::V5, id))));
        // It may be closed before we have said a word.
        if client.io.write_all(&asked).await.is_err() {
            return None;
        }
        match client.next().await {
            Got::ConnAck(false, 0) => Some(client),
            Got::Closed => None,
            other => panic!("{other:?}"),
        }
    }

    /// Clients, and how many more were refused.
    async fn fill(&self, attempts: usize) -> (Vec<Client>, usize) {
        let (mut clients, mut refused) = (Vec::new(), 0);
        for number in 0..attempts {
            match self.join(&number.to_string()).await {
                Some(client) => clients.push(client),
                None => refused += 1,
            }
        }
        (clients, refused)
    }

    /// A client that comes in as soon as another has left.
    async fn join_in_the_end(&self, id: &str) -> Client {
        let joined = time::timeout(LIMIT, async {
            loop {
                if let Some(client) = self.join(id).await {
                    return client;
                }
            }
        });
        joined.await.expect("there is room again")
    }

    /// The next line of the log with these words.
    async fn said(&mut self, words: &str) -> String {
        let said = time::timeout(LIMIT, async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("it runs");
                if line.contains(words) {
                    return line;
                }
            }
        });
        said.await.expect("it is said")
    }

    async fn hang_up(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    }

    async fn metric(&self, sample: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        let read = time::timeout(LIMIT, stream.read_to_string(&mut text));
        read.await.expect("there is a descriptor for operators").unwrap();
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }
}

const REFUSED: &str = "tombolo_connections_rejected_total{reason=\"descriptors\"}";

/// With a reserve: what operators need still works.
#[tokio::test]
async fn beyond_the_limit_new_connections_are_refused_and_counted() {
    let mut broker = serve("-n 64").await;
    let (mut clients, refused) = broker.fill(60).await;
    assert_eq!((clients.len(), refused), (43, 17), "a third is kept");
    assert_eq!(broker.metric(REFUSED).await, Some(17.0));
    for client in &mut clients {
        client.quiet().await;
    }
    // One goes, one can come.
    clients.pop().unwrap().leave().await;
    broker.join_in_the_end("again").await.quiet().await;
    assert!(broker.said("new connections are refused").await.contains("the limit of file descriptors"));
}

/// The limit is so low that accept(2) itself fails: the spare descriptor refuses.
#[tokio::test]
async fn without_any_descriptor_the_listener_goes_on() {
    let mut broker = serve("-n 24").await;
    let (mut clients, refused) = broker.fill(40).await;
    assert!(!clients.is_empty() && refused > 0, "{} and {refused}", clients.len());
    assert!(broker.said("new connections are refused").await.contains("Too many open files"));
    for client in &mut clients {
        client.quiet().await;
    }
    let gone = clients.len() / 2 + 1;
    for client in clients.drain(..gone) {
        client.leave().await;
    }
    broker.join_in_the_end("again").await.quiet().await;
    assert!(broker.metric(REFUSED).await.is_some_and(|count| count >= refused as f64));
}

/// mosquitto once reset itself to an open door when its files could not be opened (CVE-2017-7652).
#[tokio::test]
async fn a_reload_without_any_descriptor_changes_nothing_and_works_when_there_is_one() {
    let mut broker = serve("-n 24").await;
    let (mut clients, refused) = broker.fill(40).await;
    assert!(clients.len() > 1 && refused > 0, "{} and {refused}", clients.len());
    broker.setup.file("acl.conf", "{deny, all, publish, [\"t\"]}.\n{allow, all}.");
    broker.hang_up().await;
    let said = broker.said("reload refused").await;
    assert!(said.contains("tombolo.toml") && said.contains("Too many open files"), "{said}");
    for client in &mut clients {
        assert_eq!(client.publish("t", b"x", Q1).await, 0x10, "the old rules hold");
    }
    let mut stays = clients.pop().unwrap();
    for client in clients {
        client.leave().await;
    }
    broker.join_in_the_end("again").await.leave().await;
    broker.hang_up().await;
    broker.said("\"reloaded\"").await;
    assert_eq!(stays.publish("t", b"x", Q1).await, 0x87, "the new ones do");
    for (result, count) in [("error", 1.0), ("ok", 1.0)] {
        let sample = format!("tombolo_config_reloads_total{{result=\"{result}\"}}");
        assert_eq!(broker.metric(&sample).await, Some(count), "{result}");
    }
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let broker = serve("-S -n 32").await;
    let (clients, refused) = broker.fill(60).await;
    assert_eq!((clients.len(), refused), (60, 0));
}
