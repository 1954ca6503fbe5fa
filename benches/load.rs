//! What a delivered message costs: broker CPU per message over loopback, beside mosquitto if it is installed.
//!
//! CPU per message is the figure that survives a busy machine; rates do not. Each case drives fresh brokers for about
//! two seconds in a closed loop, so that nothing queues without bound, counts every message, and reads the brokers'
//! CPU time from the kernel. Linux only. Run it with `cargo bench --bench load`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::fmt::Write as _;
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
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

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
    children: Vec<Child>,
    into: u16,
    out_of: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Brokers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself; there is nothing to do then.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
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
            subscribe(&mut stream, case.qos);
            let received = Arc::clone(&received);
            thread::spawn(move || take(stream, &received))
        })
        .collect();
    let mut publishers: Vec<_> =
        (0..case.publishers).map(|n| connect(brokers.into, &format!("p{n}"))).collect();
    if case.linked {
        // Until the subscription is known over there, nothing crosses.
        while received.load(Ordering::Relaxed) == 0 {
            publishers[0].write_all(&publish(0, 0)).unwrap();
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
                batch.extend_from_slice(&publish(case.qos, id));
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
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut packet = vec![0x10, (12 + id.len()) as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\x00\x00");
    packet.extend_from_slice(&(id.len() as u16).to_be_bytes());
    packet.extend_from_slice(id.as_bytes());
    stream.write_all(&packet).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

fn subscribe(stream: &mut TcpStream, qos: u8) {
    let mut packet = vec![0x82, (5 + TOPIC.len()) as u8, 0, 1, 0, TOPIC.len() as u8];
    packet.extend_from_slice(TOPIC.as_bytes());
    packet.push(qos);
    stream.write_all(&packet).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
    assert_eq!(suback[4], qos);
}

fn publish(qos: u8, id: u16) -> Vec<u8> {
    let id = if qos == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    let mut packet =
        vec![0x30 | qos << 1, (2 + TOPIC.len() + id.len() + PAYLOAD) as u8, 0, TOPIC.len() as u8];
    packet.extend_from_slice(TOPIC.as_bytes());
    packet.extend_from_slice(&id);
    packet.resize(packet.len() + PAYLOAD, b'x');
    packet
}

/// Counts messages and acknowledges those of QoS 1, a read at a time. Ends with the broker.
fn take(mut stream: TcpStream, received: &AtomicU64) {
    let (mut buffer, mut kept) = (vec![0; 256 * 1024], 0);
    while let Ok(count) = stream.read(&mut buffer[kept..]) {
        if count == 0 {
            return;
        }
        let (end, mut at, mut messages, mut acks) = (kept + count, 0, 0, Vec::new());
        while end - at >= 2 && end - at >= 2 + usize::from(buffer[at + 1]) {
            let id_at = at + 4 + TOPIC.len();
            if buffer[at] & 0b110 != 0 {
                acks.extend_from_slice(&[0x40, 2, buffer[id_at], buffer[id_at + 1]]);
            }
            messages += 1;
            at += 2 + usize::from(buffer[at + 1]);
        }
        buffer.copy_within(at..end, 0);
        kept = end - at;
        if !acks.is_empty() && stream.write_all(&acks).is_err() {
            return;
        }
        received.fetch_add(messages, Ordering::Relaxed);
    }
}

/// Reads the acknowledgements of a publisher.
fn drain(mut stream: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    })
}

fn cpu_seconds(brokers: &Brokers) -> f64 {
    let ticks = |child: &Child| -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    brokers.children.iter().map(ticks).sum::<f64>() / 100.0
}

fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|index| held[index].local_addr().unwrap().port())
}

fn start(program: &str, arguments: &[&str], port: u16) -> Child {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    child
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
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
        start(env!("CARGO_BIN_EXE_tombolo"), &["serve", "--config", &path], mqtt)
    };
    let mut children = vec![run("A", "B", mqtt_a, link_a, http_a, link_b)];
    if linked {
        children.push(run("B", "A", mqtt_b, link_b, http_b, link_a));
    }
    Brokers { children, into: mqtt_a, out_of: if linked { mqtt_b } else { mqtt_a }, _folder: folder }
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
    let mut children = Vec::new();
    if linked {
        let far = write(folder.path(), "b.conf", &format!("listener {b} 127.0.0.1\n{common}"));
        children.push(start("mosquitto", &["-c", &far], b));
    }
    let more = if linked { bridge.as_str() } else { "" };
    let near = write(folder.path(), "a.conf", &format!("listener {a} 127.0.0.1\n{common}{more}"));
    children.push(start("mosquitto", &["-c", &near], a));
    Brokers { children, into: a, out_of: if linked { b } else { a }, _folder: folder }
}
