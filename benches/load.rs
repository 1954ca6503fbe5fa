//! What a delivered message costs: broker CPU per message over loopback, beside mosquitto if it is installed.
//!
//! CPU per message is the figure that survives a busy machine; rates do not. Each case drives fresh brokers for about
//! two seconds in a closed loop, so that nothing queues without bound, counts every message, and reads the brokers'
//! CPU time from the kernel. Linux only. Run it with `cargo bench --bench load`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

#[allow(dead_code, reason = "shared with other benches")]
mod lab;

use std::fmt::Write as _;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::lab::Process;
use crate::lab::ports;
use crate::lab::publish;
use crate::lab::subscribe;
use crate::lab::take;
use crate::lab::write;

const PAYLOAD: usize = 64;
const RUN: Duration = Duration::from_secs(2);
const TOPIC: &str = "lab/bench";
/// Messages each publisher writes at a time.
const BATCH: u64 = 25;
/// Messages that may be on their way for each publisher.
const WINDOW: u64 = 100;

struct Case {
    name: &'static str,
    publishers: usize,
    subscribers: usize,
    qos: u8,
    linked: bool,
}

const CASES: [Case; 6] = [
    Case { name: "fan-in 20 to 1, QoS 0", publishers: 20, subscribers: 1, qos: 0, linked: false },
    Case { name: "fan-in 20 to 1, QoS 1", publishers: 20, subscribers: 1, qos: 1, linked: false },
    Case { name: "fan-out 1 to 100, QoS 0", publishers: 1, subscribers: 100, qos: 0, linked: false },
    Case { name: "fan-out 1 to 100, QoS 1", publishers: 1, subscribers: 100, qos: 1, linked: false },
    Case {
        name: "over a link, 10 to 1, QoS 0 (both brokers)",
        publishers: 10,
        subscribers: 1,
        qos: 0,
        linked: true,
    },
    Case {
        name: "over a link, 10 to 1, QoS 1 (both brokers)",
        publishers: 10,
        subscribers: 1,
        qos: 1,
        linked: true,
    },
];

/// Brokers of one run: messages go in at the first and come out at the last.
struct Brokers {
    processes: Vec<Process>,
    into: u16,
    out_of: u16,
    _folder: tempfile::TempDir,
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not, and wants nothing measured.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mosquitto = Command::new("mosquitto").arg("-h").output().is_ok();
    println!("| case | broker | CPU us/message | messages/s |\n|---|---|---|---|");
    for case in &CASES {
        report(case, "tombolo", tombolo(case.linked));
        if mosquitto {
            report(case, "mosquitto", self::mosquitto(case.linked));
        }
    }
}

fn report(case: &Case, broker: &str, brokers: Brokers) {
    let (delivered, seconds, cpu) = drive(case, &brokers);
    let cost = cpu * 1e6 / delivered as f64;
    println!("| {} | {broker} | {cost:.2} | {:.0} |", case.name, delivered as f64 / seconds);
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn drive(case: &Case, brokers: &Brokers) -> (u64, f64, f64) {
    let received = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..case.subscribers)
        .map(|number| {
            let mut stream = connect(brokers.out_of, &format!("s{number}"));
            subscribe(&mut stream, TOPIC, case.qos);
            let received = Arc::clone(&received);
            thread::spawn(move || take(stream, &received))
        })
        .collect();
    let mut publishers: Vec<_> =
        (0..case.publishers).map(|n| connect(brokers.into, &format!("p{n}"))).collect();
    if case.linked {
        // Until the subscription is known over there, nothing crosses.
        while received.load(Ordering::Relaxed) == 0 {
            let mut probe = Vec::new();
            publish(TOPIC, 0, 0, PAYLOAD, &mut probe);
            publishers[0].write_all(&probe).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    }
    let drains: Vec<_> = publishers.iter().map(|stream| drain(stream.try_clone().unwrap())).collect();
    let (before, started, counted) = (cpu_seconds(brokers), Instant::now(), received.load(Ordering::Relaxed));
    let (mut sent, mut id) = (0, 0u16);
    let per_message = case.subscribers as u64;
    while started.elapsed() < RUN {
        for stream in &mut publishers {
            let mut batch = Vec::new();
            for _ in 0..BATCH {
                id = if id >= 60_000 { 1 } else { id + 1 };
                publish(TOPIC, case.qos, id, PAYLOAD, &mut batch);
            }
            stream.write_all(&batch).unwrap();
            sent += BATCH;
        }
        let allowed = WINDOW * case.publishers as u64;
        while (sent.saturating_sub(allowed)) * per_message > received.load(Ordering::Relaxed) - counted {
            thread::yield_now();
        }
    }
    while received.load(Ordering::Relaxed) - counted < sent * per_message {
        assert!(started.elapsed() < RUN * 10, "{}: messages were lost", case.name);
        thread::yield_now();
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds(brokers) - before;
    for stream in &publishers {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    drains.into_iter().for_each(|drain| drain.join().unwrap());
    drop(readers);
    (sent * per_message, seconds, cpu)
}

fn connect(port: u16, id: &str) -> TcpStream {
    lab::connect(lab::tcp(port), id, 0)
}

/// Reads the acknowledgements of a publisher.
fn drain(mut stream: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    })
}

fn cpu_seconds(brokers: &Brokers) -> f64 {
    brokers.processes.iter().map(Process::cpu_s).sum()
}

fn tombolo(linked: bool) -> Brokers {
    let folder = tempfile::tempdir().unwrap();
    let [mqtt_a, link_a, http_a, mqtt_b, link_b, http_b] = ports();
    let run = |name: &str, peer, mqtt, link, http, there| {
        let rules = match (linked, name) {
            (false, _) => include_str!("../acl/acl.conf"),
            (true, "A") => include_str!("../acl/cluster-a.conf"),
            (true, _) => include_str!("../acl/cluster-b.conf"),
        };
        write(folder.path(), &format!("{name}.conf"), rules);
        let text = configuration(folder.path(), name, linked.then_some(peer), [mqtt, link, http, there]);
        let path = write(folder.path(), &format!("{name}.toml"), &text);
        Process::start(env!("CARGO_BIN_EXE_tombolo"), &["serve", "--config", &path], mqtt)
    };
    let mut processes = vec![run("A", "B", mqtt_a, link_a, http_a, link_b)];
    if linked {
        processes.push(run("B", "A", mqtt_b, link_b, http_b, link_a));
    }
    Brokers { processes, into: mqtt_a, out_of: if linked { mqtt_b } else { mqtt_a }, _folder: folder }
}

fn configuration(
    folder: &Path,
    name: &str,
    peer: Option<&str>,
    [mqtt, link, http, there]: [u16; 4],
) -> String {
    let dir = folder.display();
    let mut text = format!(
        "[cluster]\nname = \"{name}\"\n[data]\ndir = \"{dir}/{name}\"\ndurability = \"memory\"\n\
         [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:{mqtt}\"\n\
         [[listeners]]\nname = \"links\"\ntype = \"tcp\"\nbind = \"127.0.0.1:{link}\"\nrole = \"link\"\nallow_insecure = true\n\
         [mqtt]\nmax_inflight = 1000\nmax_mqueue_len = 1000000\n[authentication]\nallow_anonymous = true\n\
         [authorization]\nfile = \"{dir}/{name}.conf\"\n[http]\nbind = \"127.0.0.1:{http}\"\n[log]\nlevel = \"off\"\n"
    );
    if let Some(peer) = peer {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "[[cluster.links]]\nname = \"{peer}\"\nserver = \"127.0.0.1:{there}\"\nclientid = \"clink-{name}-\"\n\
             topics = [\"lab/#\"]\npool_size = 4\nmax_inflight = 1000\n\
             [cluster.links.peer]\nclientid = \"clink-{peer}-\"\nallow_unauthenticated = true\n\
             [cluster.links.ssl]\nenable = false\n"
        );
    }
    text
}

fn mosquitto(linked: bool) -> Brokers {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ports();
    let common = "allow_anonymous true\npersistence false\nlog_dest none\nset_tcp_nodelay true\n\
                  max_inflight_messages 1000\nmax_queued_messages 0\n";
    let bridge = format!(
        "connection lab\naddress 127.0.0.1:{b}\ntopic lab/# out 2\ncleansession true\nnotifications false\n"
    );
    let mut processes = Vec::new();
    if linked {
        let far = write(folder.path(), "b.conf", &format!("listener {b} 127.0.0.1\n{common}"));
        processes.push(Process::start("mosquitto", &["-c", &far], b));
    }
    let more = if linked { bridge.as_str() } else { "" };
    let near = write(folder.path(), "a.conf", &format!("listener {a} 127.0.0.1\n{common}{more}"));
    processes.push(Process::start("mosquitto", &["-c", &near], a));
    Brokers { processes, into: a, out_of: if linked { b } else { a }, _folder: folder }
}
