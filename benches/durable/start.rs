//! How long a broker takes to be there again, with many messages or many sessions to remember.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::brokers::Broker;
use crate::brokers::Kind;
use crate::lab::Input;
use crate::lab::asked;
use crate::lab::login;
use crate::lab::publish;
use crate::lab::subscribe;
use crate::lab::tcp;

const MESSAGES: usize = 1_000_000;
const SESSIONS: usize = 100_000;
const PAYLOAD: usize = 100;
/// Sessions that share the messages.
const QUEUES: usize = 20;
/// Publishers that fill them, with so many messages in flight each.
const PUBLISHERS: usize = 10;
const WINDOW: usize = 100;
/// Clients at a time that leave sessions behind.
const CLIENTS: usize = 32;

pub(crate) fn measure(kinds: &[Kind], folder: &Path) {
    let messages = asked("messages").unwrap_or(MESSAGES);
    let sessions = asked("sessions").unwrap_or(SESSIONS);
    println!(
        "| to remember | broker | filled in s | MiB on disk | resident MiB before | start to CONNACK ms | resident MiB after |"
    );
    println!("|---|---|---|---|---|---|---|");
    // What is only in memory is gone, and a new file for each change takes for ever.
    let keeps = |kind: &&Kind| !kind.name.contains("memory") && !kind.name.contains("change");
    for kind in kinds.iter().filter(keeps) {
        let what = format!("{messages} messages of {PAYLOAD} bytes for {QUEUES} sessions");
        row(&what, kind, folder, |port| fill_queues(port, messages), "queue-0");
        let what = format!("{sessions} sessions with one subscription");
        row(&what, kind, folder, |port| fill_sessions(port, sessions), "session-0");
    }
    println!();
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn row(what: &str, kind: &Kind, folder: &Path, fill: impl FnOnce(u16), remembered: &str) {
    let broker = Broker::start(*kind, folder);
    let began = Instant::now();
    fill(broker.port);
    let filled_s = began.elapsed().as_secs_f64();
    let before_mib = broker.process.resident_kib() / 1024;
    let ended = broker.end();
    let began = Instant::now();
    let broker = ended.start();
    let mut stream = tcp(broker.port);
    login(&mut stream, "first", true, 0);
    let took: Duration = began.elapsed();
    let after_mib = broker.process.resident_kib() / 1024;
    let mut stream = tcp(broker.port);
    assert!(login(&mut stream, remembered, false, 0), "{}: the session is there", kind.name);
    println!(
        "| {what} | {} | {filled_s:.0} | {} | {before_mib} | {} | {after_mib} |",
        kind.name,
        bytes_below(broker.folder.path()) / (1024 * 1024),
        took.as_millis()
    );
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| {
        let about = entry.metadata().unwrap();
        if about.is_dir() { bytes_below(&entry.path()) } else { about.len() }
    });
    sizes.sum()
}

/// Messages for sessions whose clients are away.
fn fill_queues(port: u16, messages: usize) {
    for queue in 0..QUEUES {
        let mut stream = tcp(port);
        login(&mut stream, &format!("queue-{queue}"), false, 0);
        subscribe(&mut stream, &format!("lab/{queue:02}"), 1);
        stream.write_all(&[0xE0, 0]).unwrap();
    }
    in_parallel(PUBLISHERS, move |number| {
        let mut stream = tcp(port);
        login(&mut stream, &format!("publisher-{number}"), true, 0);
        let mut input = Input::new(stream.try_clone().unwrap());
        let (mut sent, mut acknowledged) = (0, 0);
        let own = messages / PUBLISHERS;
        while acknowledged < own {
            let mut packets = Vec::new();
            while sent < own && sent - acknowledged < WINDOW {
                let topic = format!("lab/{:02}", sent % QUEUES);
                publish(&topic, 1, (sent % 60_000 + 1) as u16, PAYLOAD, &mut packets);
                sent += 1;
            }
            stream.write_all(&packets).unwrap();
            assert!(input.read(), "the broker closed the connection");
            while input.next().is_some() {
                acknowledged += 1;
            }
        }
    });
}

/// Sessions whose clients are away.
fn fill_sessions(port: u16, sessions: usize) {
    in_parallel(CLIENTS, move |number| {
        for session in (number..sessions).step_by(CLIENTS) {
            let mut stream = tcp(port);
            login(&mut stream, &format!("session-{session}"), false, 0);
            subscribe(&mut stream, &format!("site/{session}/+/state"), 1);
            stream.write_all(&[0xE0, 0]).unwrap();
        }
    });
}

fn in_parallel(count: usize, each: impl Fn(usize) + Clone + Send + 'static) {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let each = each.clone();
            thread::spawn(move || each(number))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
