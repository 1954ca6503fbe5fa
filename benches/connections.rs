//! What an idle connection costs: resident memory of the broker for each TCP and each TLS connection that is held, and
//! the processor time of its handshakes.
//!
//! The broker is a process of its own; this one holds the other ends. Both need a descriptor for each connection, so
//! `ulimit -n` bounds the number; what does not fit is left out with a line that says so. Linux only. Run it with
//! `cargo bench --bench connections`, or with `-- tcp=1000 tls=200` behind it for other numbers.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;

/// How the cost of one grows with their number.
const TCP_COUNTS: [usize; 4] = [1_000, 5_000, 10_000, 15_000];
const TLS_COUNT: usize = 3_000;
/// Descriptors that are not connections, on either side.
const SPARE: usize = 100;
/// How long the connections are held, beyond one Keep Alive of those that send PINGREQ.
const HOLD: Duration = Duration::from_secs(3);
/// Every how many connections one is asked whether it still lives.
const SAMPLE: usize = 50;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A broker with an own folder. Ends with its handle.
struct Broker {
    child: Child,
    tcp: u16,
    tls: u16,
    certificate: rcgen::Certificate,
    _folder: tempfile::TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not, and wants nothing measured.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "| connections | held | broker KiB before | after | bytes each | CPU us each | s |\n|---|---|---|---|---|---|---|"
    );
    let tcp_counts = asked("tcp").map_or_else(|| TCP_COUNTS.to_vec(), |count| vec![count]);
    let tcp_counts = tcp_counts.into_iter().map(|count| ("tcp", count));
    for (kind, wanted) in tcp_counts.chain([("tls", asked("tls").unwrap_or(TLS_COUNT))]) {
        let count = wanted.min(descriptors().saturating_sub(SPARE));
        if count < wanted {
            println!("{kind}: {count} of {wanted}, as many as descriptors allow (`ulimit -n`)");
        }
        let broker = start();
        match kind {
            "tcp" => measure(kind, count, &broker, |n| connect(tcp(broker.tcp), n)),
            _ => {
                let config = tls_config(&broker);
                measure(kind, count, &broker, |n| connect(tls(broker.tls, &config), n));
            }
        }
    }
}

fn asked(name: &str) -> Option<usize> {
    std::env::args().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn measure<S: Read + Write>(kind: &str, count: usize, broker: &Broker, mut open: impl FnMut(usize) -> S) {
    // What the first connections bring into being once is not theirs.
    let _first: Vec<S> = (0..20).map(|n| open(n + 1_000_000)).collect();
    let before = resident_kib(&broker.child);
    let (started, worked) = (Instant::now(), cpu_ms(&broker.child));
    let mut held: Vec<S> = (0..count).map(&mut open).collect();
    let seconds = started.elapsed().as_secs_f64();
    let cpu_us = (cpu_ms(&broker.child) - worked) * 1000 / count.max(1);
    thread::sleep(HOLD);
    let after = resident_kib(&broker.child);
    for stream in held.iter_mut().step_by(SAMPLE) {
        stream.write_all(&[0xC0, 0]).unwrap();
        let mut pong = [0; 2];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(pong, [0xD0, 0], "an idle connection still answers");
    }
    let each = (after - before) * 1024 / count.max(1);
    println!("| idle {kind} | {count} | {before} | {after} | {each} | {cpu_us} | {seconds:.1} |");
}

/// CONNECT with MQTT 3.1.1, Clean Session, Keep Alive of 60 seconds.
fn connect<S: Read + Write>(mut stream: S, number: usize) -> S {
    let id = format!("idle-{number:08}");
    let mut packet = vec![0x10, (12 + id.len()) as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\x00\x3C");
    packet.extend_from_slice(&(id.len() as u16).to_be_bytes());
    packet.extend_from_slice(id.as_bytes());
    stream.write_all(&packet).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

fn tcp(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

fn tls(port: u16, config: &Arc<ClientConfig>) -> Tls {
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), tcp(port))
}

fn tls_config(broker: &Broker) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(broker.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn start() -> Broker {
    let folder = tempfile::tempdir().unwrap();
    let [tcp, tls, http] = ports();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("cert.pem", &certificate.pem());
    write("key.pem", &key.serialize_pem());
    write("acl.conf", "{allow, all}.\n");
    write("broker.toml", &configuration(folder.path(), [tcp, tls, http]));
    let child = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["serve", "--config"])
        .arg(folder.path().join("broker.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let broker = Broker { child, tcp, tls, certificate, _folder: folder };
    while TcpStream::connect(("127.0.0.1", broker.tls)).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    broker
}

fn configuration(folder: &Path, [tcp, tls, http]: [u16; 3]) -> String {
    let dir = folder.display();
    format!(
        "[data]\ndir = \"{dir}/data\"\ndurability = \"memory\"\n\
         [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:{tcp}\"\n\
         [[listeners]]\nname = \"tls\"\ntype = \"ssl\"\nbind = \"127.0.0.1:{tls}\"\n\
         [listeners.ssl]\ncertfile = \"{dir}/cert.pem\"\nkeyfile = \"{dir}/key.pem\"\n\
         [authentication]\nallow_anonymous = true\n[authorization]\nfile = \"{dir}/acl.conf\"\n\
         [http]\nbind = \"127.0.0.1:{http}\"\n[log]\nlevel = \"off\"\n"
    )
}

fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|index| held[index].local_addr().unwrap().port())
}

fn resident_kib(child: &Child) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Processor time of all threads so far. The kernel counts it in hundredths of a second.
fn cpu_ms(child: &Child) -> usize {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    // Behind the name, which is in brackets; user and system time are the 12th and 13th from there.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: usize =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<usize>().unwrap()).sum();
    ticks * 10
}

/// The descriptors that this process, and so the broker it starts, may open.
fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}
