//! A broker as a process: what it keeps in memory, and whether any of its tasks panicked.

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tombolo::mqtt::packet::Connect;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Setup;

/// `tombolo serve`, which ends with this handle.
pub(crate) struct Process {
    child: Child,
    setup: Setup,
    mqtt: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Process {
    /// With HTTP on a port of its own, for the metrics.
    pub(crate) async fn start(setup: Setup) -> Self {
        let setup =
            setup.links("[http]\nbind = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nlevel = \"info\"\n");
        let config = setup.file("tombolo.toml", &setup.text());
        let said = File::create(setup.path("said")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tombolo"))
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut process = Self { child, setup, mqtt: None, http: None };
        let ready = time::timeout(LIMIT, async {
            while !process.said().contains("\"message\":\"ready\"") {
                assert!(process.child.try_wait().unwrap().is_none(), "it ended: {}", process.said());
                time::sleep(Duration::from_millis(10)).await;
            }
        });
        ready.await.expect("it starts");
        process.mqtt = process.said_address("listening");
        process.http = process.said_address("HTTP listening");
        process
    }

    /// What it wrote to standard error.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.setup.path("said")).unwrap()
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

    /// No task panicked, and the process lives.
    pub(crate) fn assert_unharmed(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.said());
        assert!(!self.said().contains("panicked"), "{}", self.said());
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
                time::sleep(Duration::from_millis(10)).await;
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
