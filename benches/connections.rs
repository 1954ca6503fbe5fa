//! What an idle connection costs: resident memory of the broker for each TCP and each TLS connection that is held, and
//! the processor time of its handshakes.
//!
//! The broker is a process of its own; this one holds the other ends. Both need a descriptor for each connection, so
//! `ulimit -n` bounds the number; what does not fit is left out with a line that says so. Linux only. Run it with
//! `cargo bench --bench connections`, or with `-- tcp=1000 tls=200` behind it for other numbers.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

#[allow(dead_code, reason = "shared with other benches")]
mod lab;

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;

use crate::lab::Process;
use crate::lab::asked;
use crate::lab::ports;
use crate::lab::tcp;

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
    process: Process,
    tcp: u16,
    tls: u16,
    certificate: rcgen::Certificate,
    _folder: tempfile::TempDir,
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

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn measure<S: Read + Write>(kind: &str, count: usize, broker: &Broker, mut open: impl FnMut(usize) -> S) {
    // What the first connections bring into being once is not theirs.
    let _first: Vec<S> = (0..20).map(|n| open(n + 1_000_000)).collect();
    let before = broker.process.resident_kib();
    let (started, worked) = (Instant::now(), broker.process.cpu_s());
    let mut held: Vec<S> = (0..count).map(&mut open).collect();
    let seconds = started.elapsed().as_secs_f64();
    let cpu_us = (broker.process.cpu_s() - worked) * 1e6 / count.max(1) as f64;
    thread::sleep(HOLD);
    let after = broker.process.resident_kib();
    for stream in held.iter_mut().step_by(SAMPLE) {
        stream.write_all(&[0xC0, 0]).unwrap();
        let mut pong = [0; 2];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(pong, [0xD0, 0], "an idle connection still answers");
    }
    let each = (after - before) * 1024 / count.max(1) as u64;
    println!("| idle {kind} | {count} | {before} | {after} | {each} | {cpu_us:.0} | {seconds:.1} |");
}

/// With Clean Session and a Keep Alive of 60 seconds.
fn connect<S: Read + Write>(stream: S, number: usize) -> S {
    lab::connect(stream, &format!("idle-{number:08}"), 60)
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
    let config = folder.path().join("broker.toml").display().to_string();
    let process = Process::start(env!("CARGO_BIN_EXE_tombolo"), &["serve", "--config", &config], tls);
    Broker { process, tcp, tls, certificate, _folder: folder }
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

/// The descriptors that this process, and so the broker it starts, may open.
fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}
