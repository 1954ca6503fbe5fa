//! Two `tombolo serve` processes, one of which is killed.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::hello;
use crate::pair::Side;
use crate::pair::sum;
use crate::pair::write_certificates;

/// How long routes may take to converge after a restart.
const CONVERGED: Duration = Duration::from_secs(15);

/// A `tombolo serve` that ends with its handle.
pub(crate) struct Serving(Child);

impl Serving {
    /// With this configuration; what it logs goes to `says`.
    pub(crate) fn start(config: &Path, says: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        command.arg("serve").arg("--config").arg(config);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(says).spawn().unwrap())
    }

    /// SIGKILL, as a power cut would have it.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of which the ports are known.
struct Process {
    serving: Serving,
    mqtt: SocketAddr,
    http: SocketAddr,
    config: std::path::PathBuf,
}

impl Process {
    fn start(config: std::path::PathBuf, mqtt: u16, http: u16) -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { serving: Serving::start(&config, Stdio::null()), mqtt: local(mqtt), http: local(http), config }
    }

    fn kill(&mut self) {
        self.serving.kill();
    }

    fn restart(&mut self) {
        self.serving = Serving::start(&self.config, Stdio::null());
    }

    async fn metric(&self, sample: &str) -> Option<i64> {
        let mut stream = TcpStream::connect(self.http).await.ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(sum(&text, sample))
    }

    async fn until(&self, sample: &str, value: i64) {
        let reached = time::timeout(CONVERGED, async {
            while self.metric(sample).await != Some(value) {
                time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(reached.await.is_ok(), "{sample} is {:?}, not {value}", self.metric(sample).await);
    }

    async fn join(&self, id: &str) -> Client {
        let connected = time::timeout(CONVERGED, async {
            loop {
                if let Ok(stream) = TcpStream::connect(self.mqtt).await {
                    return stream;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut client = Client::over(connected.await.expect("the broker accepts"));
        assert_eq!(client.connect(&hello(Version::V5, id)).await, Got::ConnAck(false, 0));
        client
    }
}

/// Ports that were free a moment ago.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|index| held[index].local_addr().unwrap().port())
}

#[tokio::test]
async fn the_survivor_of_a_kill_reconnects_and_gets_everything_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let [mqtt_a, link_a, http_a, mqtt_b, link_b, http_b] = ports();
    let write = |name: &str, peer, mqtt_port, link_port, http_port, there: u16| {
        let side = Side {
            folder: folder.path(),
            name,
            peer,
            mqtt_port,
            link_port,
            http_port,
            server: format!("127.0.0.1:{there}"),
            topics: r##"["#"]"##,
            more: "",
        };
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, side.text()).unwrap();
        path
    };
    let a = Process::start(write("A", "B", mqtt_a, link_a, http_a, link_b), mqtt_a, http_a);
    let mut b = Process::start(write("B", "A", mqtt_b, link_b, http_b, link_a), mqtt_b, http_b);
    let mut subscriber = b.join("s").await;
    let mut publisher = a.join("p").await;
    subscriber.subscribe("k/#", Q1).await;
    let wanted = r#"tombolo_link_routes{peer="B",dir="in",kind="plain"}"#;
    a.until(wanted, 1).await;
    publisher.publish("k/1", b"before", Q1).await;
    assert_eq!(subscriber.receive().await.text(), "before");

    b.kill();
    a.until(r#"tombolo_link_up{peer="B"}"#, 0).await;
    for number in 0..100 {
        assert_eq!(publisher.publish("k/1", number.to_string().as_bytes(), Q1).await, 0, "the link owes it");
    }
    b.restart();
    let mut subscriber = b.join("s").await;
    subscriber.subscribe("k/#", Q1).await;
    a.until(r#"tombolo_link_up{peer="B"}"#, 1).await;
    b.until(r#"tombolo_link_up{peer="A"}"#, 1).await;
    a.until(wanted, 1).await;
    a.until(r#"tombolo_link_spool_messages{peer="B"}"#, 0).await;
    a.until(r#"tombolo_link_inflight{peer="B"}"#, 0).await;
    a.until(r#"tombolo_link_ledger_unaccounted_messages{peer="B"}"#, 0).await;
    assert_eq!(a.metric(r#"tombolo_link_messages_dropped_total{peer="B",dir="out""#).await, Some(0));
    publisher.publish("k/1", b"after", Q1).await;
    while subscriber.receive().await.text() != "after" {}
}
