//! Enrolment between two `tombolo serve` of which one is killed at the worst moment, and a peer that is revoked under load
//! (trust.md 2.4, 2.8).

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::hello;
use crate::harness::message;
use crate::pair::eventually;
use crate::processes::Serving;
use crate::processes::ports;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Messages of a burst, of which there is one every ten milliseconds.
const BURST: u64 = 100;
const BURST_EVERY: Duration = Duration::from_millis(10);
/// Messages that have crossed before the peer is revoked, and that are sent behind that.
const CROSSED: u64 = 5_000;
/// More than these are not sent.
const SENT_MAX: u64 = 300_000;

/// A cluster of one process, with all that it says.
struct Process {
    serving: Serving,
    name: &'static str,
    folder: TempDir,
    lives: usize,
}

impl Process {
    async fn start(name: &'static str, links: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[cluster]\nname = \"{name}\"\n[data]\ndir = \"{dir}/data\"\n[http]\nbind = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\nlevel = \"info\"\n[authentication]\nallow_anonymous = true\n\
             [authorization]\nfile = \"{dir}/acl.conf\"\n\
             [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
             [[listeners]]\nname = \"links\"\ntype = \"ssl\"\nbind = \"127.0.0.1:{links}\"\nrole = \"link\"\n",
            dir = folder.path().display()
        );
        fs::write(folder.path().join("t.toml"), text).unwrap();
        fs::write(folder.path().join("acl.conf"), "{deny, all, all, [\"$LINK/#\"]}.\n{allow, all}.\n")
            .unwrap();
        let serving = serve(&folder, 1);
        let process = Self { serving, name, folder, lives: 1 };
        process.until_ready().await;
        process
    }

    fn kill(&mut self) {
        self.serving.kill();
    }

    async fn restart(&mut self) {
        self.lives += 1;
        self.serving = serve(&self.folder, self.lives);
        self.until_ready().await;
    }

    fn said(&self, life: usize) -> String {
        fs::read_to_string(said_path(&self.folder, life)).unwrap()
    }

    async fn until_ready(&self) {
        let ready = time::timeout(LIMIT, async {
            while !self.said(self.lives).contains("\"message\":\"ready\"") {
                time::sleep(LOOK).await;
            }
        });
        assert!(ready.await.is_ok(), "{}: {}", self.name, self.said(self.lives));
    }

    /// No task panicked in any life.
    fn assert_unharmed(&mut self) {
        assert!(self.serving.is_running(), "{} ended: {}", self.name, self.said(self.lives));
        for life in 1..=self.lives {
            assert!(!self.said(life).contains("panicked"), "{}: {}", self.name, self.said(life));
        }
    }

    /// What the command of this line does: whether it succeeds, and all that it says.
    async fn tell(&self, line: &str) -> (bool, String) {
        let data = self.folder.path().join("data");
        command(line.to_owned(), data).await
    }

    /// One that succeeds.
    async fn done(&self, line: &str) -> String {
        let (succeeds, said) = self.tell(line).await;
        assert!(succeeds, "{}: {line}: {said}", self.name);
        said
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --format json")).await).unwrap()
    }

    /// Until the state of the link to the peer is this one.
    async fn until_state(&self, peer: &str, state: &str) {
        let mut links = Value::Null;
        let reached = time::timeout(LIMIT, async {
            loop {
                links = self.json("link list").await;
                let of_peer = |link: &&Value| link["name"] == peer;
                if links.as_array().unwrap().iter().find(of_peer).is_some_and(|link| link["state"] == state) {
                    return;
                }
            }
        });
        assert!(reached.await.is_ok(), "{}: not {state}: {links}", self.name);
    }

    /// `link create ISSUER --token …`, as often as it takes: one a second is let in from an address.
    async fn join(&self, line: &str) -> String {
        let joined = time::timeout(LIMIT, async {
            loop {
                let (succeeds, said) = self.tell(line).await;
                if succeeds {
                    return said;
                }
                assert!(said.contains("a moment ago") || said.contains("try again"), "{said}");
            }
        });
        joined.await.unwrap()
    }

    async fn client(&self, id: &str) -> Client {
        let said = self.said(self.lives);
        let mut lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["message"] == "listening" && line["listener"] == "tcp:default");
        let address: SocketAddr = line.unwrap()["address"].as_str().unwrap().parse().unwrap();
        let mut client = Client::over(TcpStream::connect(address).await.unwrap());
        assert_eq!(client.connect(&hello(Version::V5, id)).await, Got::ConnAck(false, 0));
        client
    }
}

fn said_path(folder: &TempDir, life: usize) -> PathBuf {
    folder.path().join(format!("said-{life}"))
}

fn serve(folder: &TempDir, life: usize) -> Serving {
    let says = File::create(said_path(folder, life)).unwrap();
    Serving::start(&folder.path().join("t.toml"), says.into())
}

async fn command(line: String, data: PathBuf) -> (bool, String) {
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(line.split(' '))
        .arg("--data")
        .arg(data)
        .env_remove("TOMBOLO_KEY")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = time::timeout(LIMIT, ran).await.unwrap().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8(said).unwrap())
}

/// A network on which the answer of the issuer gets lost: where it listens, and the moment at which the answer had come so far.
async fn losing_the_answer(issuer: u16) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answered, comes) = oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", issuer)).await.unwrap();
        let (mut from_near, mut from_far) = ([0; 16 * 1024], [0; 16 * 1024]);
        // Of the handshake of TLS 1.3 each side has one flight before the request: the peer's second one carries that.
        let (mut flights, mut is_mine) = (0, false);
        loop {
            tokio::select! {
                read = near.read(&mut from_near) => {
                    let Ok(length @ 1..) = read else { return };
                    flights += u32::from(!is_mine);
                    is_mine = true;
                    far.write_all(&from_near[..length]).await.unwrap();
                }
                read = far.read(&mut from_far) => {
                    let length = read.unwrap_or(0);
                    is_mine = false;
                    if flights >= 2 || length == 0 {
                        break;
                    }
                    near.write_all(&from_far[..length]).await.unwrap();
                }
            }
        }
        let _ = answered.send(());
        // Nothing more comes until whoever waits for it goes away.
        while let Ok(1..) = near.read(&mut from_near).await {}
    });
    (address, comes)
}

/// B has sent A's token, A has made its change and answered, and B does not get that.
struct Waiting {
    a: Process,
    b: Process,
    token: String,
    /// The command at B.
    joining: JoinHandle<(bool, String)>,
}

async fn waiting_for_the_answer() -> Waiting {
    let [links_a, links_b] = ports();
    let (a, b) = (Process::start("A", links_a).await, Process::start("B", links_b).await);
    let token = a.done("link create B -q").await.trim().to_owned();
    let (relay, answered) = losing_the_answer(links_a).await;
    let line = format!("link create A --token {token} --remote-address {relay}");
    let joining = tokio::spawn(command(line, b.folder.path().join("data")));
    time::timeout(LIMIT, answered).await.unwrap().unwrap();
    Waiting { a, b, token, joining }
}

#[tokio::test]
async fn a_peer_that_is_killed_before_the_answer_comes_again_with_the_same_token() {
    let Waiting { mut a, mut b, token, joining } = waiting_for_the_answer().await;
    b.kill();
    assert!(!joining.await.unwrap().0);
    let accepted = a.json("auth identity show link/B").await;
    assert_eq!(accepted["state"], "ACTIVE", "A had made its change: {accepted}");
    b.restart().await;
    assert_eq!(b.json("auth identity list").await, serde_json::json!([]), "and B had not");
    b.join(&format!("link create A --token {token}")).await;
    let again = a.json("auth identity show link/B").await;
    assert_eq!((&again["id"], &again["identifier"]), (&accepted["id"], &accepted["identifier"]));
    a.until_state("B", "active").await;
    b.until_state("A", "active").await;
    a.assert_unharmed();
    b.assert_unharmed();
}

#[tokio::test]
async fn an_issuer_that_is_killed_behind_its_change_gives_the_same_answer_again() {
    let Waiting { mut a, mut b, token, joining } = waiting_for_the_answer().await;
    a.kill();
    assert!(!joining.await.unwrap().0);
    assert_eq!(b.json("auth identity list").await, serde_json::json!([]), "what B had begun is undone");
    a.restart().await;
    let accepted = a.json("auth identity show link/B").await;
    assert_eq!(accepted["state"], "ACTIVE", "{accepted}");
    b.join(&format!("link create A --token {token}")).await;
    let again = a.json("auth identity show link/B").await;
    assert_eq!((&again["id"], &again["identifier"]), (&accepted["id"], &accepted["identifier"]));
    assert_eq!(again["identifier"], b.json("link cert show").await["fingerprint"]);
    a.until_state("B", "active").await;
    b.until_state("A", "active").await;
    a.assert_unharmed();
    b.assert_unharmed();
}

/// Publishes ten thousand messages a second, each with its number, until it is told to stop.
async fn flood(mut publisher: Client, sent: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut ticks = time::interval(BURST_EVERY);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) && number < SENT_MAX {
        ticks.tick().await;
        let mut burst = Vec::new();
        for _ in 0..BURST {
            let text = number.to_string();
            let publish = message("x/flood", text.as_bytes());
            burst.extend(publisher.encoded(&Packet::Publish(publish)));
            number += 1;
        }
        // Before it goes out: whatever has this number or a higher one is sent later.
        sent.store(number, Ordering::Relaxed);
        publisher.write(&burst).await;
    }
    publisher.leave().await;
}

/// Counts what comes, up to the word that ends it: how many, and the highest number.
async fn count(mut subscriber: Client, crossed: Arc<AtomicU64>) -> u64 {
    let mut highest = 0;
    loop {
        match subscriber.receive().await.text() {
            "end" => return highest,
            text => highest = highest.max(text.parse().unwrap()),
        }
        crossed.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_revoked_under_load_gets_nothing_behind_one_second() {
    let [links_a, links_b] = ports();
    let (mut a, mut b) = (Process::start("A", links_a).await, Process::start("B", links_b).await);
    for side in [&a, &b] {
        side.done("auth group create all").await;
        for entitlement in ["can_import", "can_export"] {
            side.done(&format!("auth group permission add all topic # {entitlement}")).await;
        }
    }
    let token = a.done("link create B -q --group link-peer --group all").await.trim().to_owned();
    b.join(&format!("link create A --token {token} --group link-peer --group all --topics #")).await;
    a.until_state("B", "active").await;
    b.until_state("A", "active").await;
    let (sent, crossed, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::default());
    let mut subscriber = b.client("subscriber").await;
    subscriber.subscribe("x/#", QoS::AtMostOnce).await;
    let counting = tokio::spawn(count(subscriber, Arc::clone(&crossed)));
    let publisher = a.client("publisher").await;
    let flooding = tokio::spawn(flood(publisher, Arc::clone(&sent), Arc::clone(&stop)));
    eventually("messages cross", || crossed.load(Ordering::Relaxed) >= CROSSED).await;
    a.done("auth identity revoke link/B --yes").await;
    let revoked_ms = clock::now().mono_ms;
    eventually("a second goes by", || clock::now().mono_ms >= revoked_ms + 1_000).await;
    let mark = sent.load(Ordering::Relaxed);
    eventually("it goes on", || sent.load(Ordering::Relaxed) >= SENT_MAX.min(mark + CROSSED)).await;
    stop.store(true, Ordering::Relaxed);
    flooding.await.unwrap();
    a.until_state("B", "disabled").await;
    b.until_state("A", "unauthenticated").await;
    assert_eq!(a.json("auth identity show link/B").await["state"], "REVOKED");
    b.client("ending").await.publish("x/end", b"end", Q1).await;
    let highest = time::timeout(LIMIT, counting).await.unwrap().unwrap();
    assert!(highest < mark, "number {highest} was sent behind {mark}");
    a.assert_unharmed();
    b.assert_unharmed();
}
