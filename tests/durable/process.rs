//! A broker as a process: killed and started again, what it keeps in memory, and whether any of its tasks panicked.

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tombolo::mqtt::packet::Connect;
use tombolo::net::clock;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Setup;

/// HTTP on a port of its own, for the metrics, and a log that can be read.
const OBSERVED: &str = "[http]\nbind = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nlevel = \"info\"\n";
/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// `tombolo serve`, which ends with this handle.
pub(crate) struct Process {
    child: Child,
    setup: Setup,
    durability: Option<String>,
    /// How often it was started.
    lives: usize,
    mqtt: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Process {
    /// With these settings.
    pub(crate) async fn start(setup: Setup) -> Self {
        Self::start_as(setup, None).await
    }

    /// With this `data.durability` instead of the one that is built in.
    pub(crate) async fn start_as(setup: Setup, durability: Option<&str>) -> Self {
        setup.file("tombolo.toml", &(setup.text() + OBSERVED));
        let durability = durability.map(str::to_owned);
        let child = spawn(&setup, durability.as_deref(), 1);
        let mut process = Self { child, setup, durability, lives: 1, mqtt: None, http: None };
        process.become_ready().await;
        process
    }

    /// SIGKILL: nothing is written any more, and nobody is told.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same folder. How long that took until it was ready.
    pub(crate) async fn restart(&mut self) -> Duration {
        let began_ms = clock::now().mono_ms;
        self.begin();
        self.become_ready().await;
        Duration::from_millis(clock::now().mono_ms - began_ms)
    }

    /// Starts it again, until it has written so many lines or is ready.
    pub(crate) async fn restart_partly(&mut self, lines: usize) {
        self.begin();
        self.until(|said| said.lines().count() >= lines || is_ready(said)).await;
    }

    fn begin(&mut self) {
        self.lives += 1;
        self.child = spawn(&self.setup, self.durability.as_deref(), self.lives);
    }

    async fn become_ready(&mut self) {
        self.until(is_ready).await;
        self.mqtt = self.said_address("listening");
        self.http = self.said_address("HTTP listening");
    }

    async fn until(&mut self, holds: impl Fn(&str) -> bool) {
        let reached = time::timeout(LIMIT, async {
            while !holds(&self.said()) {
                assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.said());
                time::sleep(LOOK).await;
            }
        });
        assert!(reached.await.is_ok(), "it did not start: {}", self.said());
    }

    /// What it wrote to standard error in this life.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(said_path(&self.setup, self.lives)).unwrap()
    }

    fn said_address(&self, message: &str) -> Option<SocketAddr> {
        let said = self.said();
        let mut lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.find(|line| line["message"] == message)?["address"].as_str()?.parse().ok()
    }

    /// Where it listens for MQTT.
    pub(crate) fn address(&self) -> SocketAddr {
        self.mqtt.expect("it said so")
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// No task panicked in any life, and the process lives.
    pub(crate) fn assert_unharmed(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.said());
        for life in 1..=self.lives {
            let said = fs::read_to_string(said_path(&self.setup, life)).unwrap();
            assert!(!said.contains("panicked"), "{said}");
        }
    }

    /// Copies everything it has written to a folder, for whoever looks into a failure.
    pub(crate) fn copy_to(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.setup.path(".")).arg(folder).status();
        assert!(copied.unwrap().success());
    }

    pub(crate) async fn open(&self) -> Client {
        Client::over(TcpStream::connect(self.address()).await.unwrap())
    }

    pub(crate) async fn join(&self, asked: &Connect<'_>) -> Client {
        let mut client = self.open().await;
        assert_eq!(client.connect(asked).await, Got::ConnAck(false, 0));
        client
    }

    /// One sample of the metrics; 0 if it is not there.
    pub(crate) async fn metric(&self, sample: &str) -> u64 {
        let mut stream = TcpStream::connect(self.http.expect("it said so")).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    pub(crate) async fn until_metric(&self, sample: &str, value: u64) {
        let reached = time::timeout(LIMIT, async {
            while self.metric(sample).await != value {
                time::sleep(LOOK).await;
            }
        });
        assert!(reached.await.is_ok(), "{sample} is {}, not {value}", self.metric(sample).await);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(said: &str) -> bool {
    said.contains("\"message\":\"ready\"")
}

fn said_path(setup: &Setup, life: usize) -> PathBuf {
    setup.path(&format!("said-{life}"))
}

fn spawn(setup: &Setup, durability: Option<&str>, life: usize) -> Child {
    let said = File::create(said_path(setup, life)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["serve", "--config"])
        .arg(setup.path("tombolo.toml"))
        .envs(durability.map(|mode| ("TOMBOLO__DATA__DURABILITY", mode)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap()
}
