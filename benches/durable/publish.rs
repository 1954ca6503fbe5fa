//! What a message of QoS 1 costs, and how long its publisher waits for the acknowledgement.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::brokers::Broker;
use crate::brokers::Kind;
use crate::lab::Input;
use crate::lab::login;
use crate::lab::publish;
use crate::lab::subscribe;
use crate::lab::take;
use crate::lab::tcp;

const PAYLOAD: usize = 100;
const TOPIC: &str = "lab/bench";
const RUN: Duration = Duration::from_secs(3);
/// How many wait for the subscriber: a queue has bounds. One that is away gets no more, one that is there catches up.
const WAITING_MAX: u64 = 200_000;

struct Case {
    publishers: u64,
    /// Messages of each that are not acknowledged.
    window: usize,
    /// Whether the subscriber is away meanwhile.
    away: bool,
}

const CASES: [Case; 6] = [
    Case { publishers: 1, window: 1, away: false },
    Case { publishers: 10, window: 1, away: false },
    Case { publishers: 10, window: 100, away: false },
    Case { publishers: 1, window: 1, away: true },
    Case { publishers: 10, window: 1, away: true },
    Case { publishers: 10, window: 100, away: true },
];

/// What there was in one run.
struct Figures {
    messages: u64,
    seconds: f64,
    cpu_s: f64,
    written_bytes: u64,
    /// How long each acknowledgement took, in order.
    waits: Vec<Duration>,
}

pub(crate) fn measure(kinds: &[Kind], folder: &Path) {
    println!(
        "| publishers x in flight | subscriber | broker | messages/s | PUBACK p50 us | p99 us | CPU us/message | written/payload |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for case in &CASES {
        for kind in kinds {
            let figures = drive(case, &Broker::start(*kind, folder));
            report(case, kind, &figures);
        }
    }
    println!();
}

fn report(case: &Case, kind: &Kind, figures: &Figures) {
    let Figures { messages, seconds, cpu_s, written_bytes, waits } = figures;
    let count = *messages as f64;
    let wait_us = |share: usize| waits[waits.len() * share / 100].as_micros();
    println!(
        "| {} x {} | {} | {} | {:.0} | {} | {} | {:.2} | {:.1} |",
        case.publishers,
        case.window,
        if case.away { "away" } else { "connected" },
        kind.name,
        count / seconds,
        wait_us(50),
        wait_us(99),
        cpu_s * 1e6 / count,
        *written_bytes as f64 / (count * PAYLOAD as f64),
    );
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn drive(case: &Case, broker: &Broker) -> Figures {
    let mut subscriber = tcp(broker.port);
    login(&mut subscriber, "subscriber", false, 0);
    subscribe(&mut subscriber, TOPIC, 1);
    let received = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&received);
    let reader = if case.away {
        drop(subscriber);
        None
    } else {
        Some(thread::spawn(move || take(subscriber, &counted)))
    };
    let (cpu_s, written_bytes, began) =
        (broker.process.cpu_s(), broker.process.written_bytes(), Instant::now());
    let (port, window, away) = (broker.port, case.window, case.away);
    let published = Arc::new(AtomicU64::new(0));
    let publishers: Vec<_> = (0..case.publishers)
        .map(|number| {
            let (published, received) = (Arc::clone(&published), Arc::clone(&received));
            let waiting = move |more| {
                published.fetch_add(more, Ordering::Relaxed).saturating_sub(received.load(Ordering::Relaxed))
            };
            thread::spawn(move || keep_publishing(port, number, window, away, waiting))
        })
        .collect();
    let mut waits: Vec<Duration> =
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect();
    let messages = waits.len() as u64;
    while reader.is_some() && received.load(Ordering::Relaxed) < messages {
        assert!(began.elapsed() < RUN * 20, "messages were lost");
        thread::yield_now();
    }
    let figures = (broker.process.cpu_s() - cpu_s, broker.process.written_bytes() - written_bytes);
    waits.sort_unstable();
    Figures {
        messages,
        seconds: began.elapsed().as_secs_f64(),
        cpu_s: figures.0,
        written_bytes: figures.1,
        waits,
    }
}

/// Publishes until the time is over; how long each acknowledgement took. `waiting` takes how many were published, and says how
/// many of all the subscriber has not got.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn keep_publishing(
    port: u16,
    number: u64,
    window: usize,
    away: bool,
    waiting: impl Fn(u64) -> u64,
) -> Vec<Duration> {
    let mut stream = tcp(port);
    login(&mut stream, &format!("publisher-{number}"), true, 0);
    let mut input = Input::new(stream.try_clone().unwrap());
    let (mut sent_at, mut waits, mut id, began) = (VecDeque::new(), Vec::new(), 0u16, Instant::now());
    loop {
        let now = Instant::now();
        let is_full = waiting(0) >= WAITING_MAX;
        let is_over = now - began >= RUN || (is_full && away);
        let mut packets = Vec::new();
        let before = sent_at.len();
        while !is_over && !is_full && sent_at.len() < window {
            id = id % 60_000 + 1;
            publish(TOPIC, 1, id, PAYLOAD, &mut packets);
            sent_at.push_back(now);
        }
        waiting((sent_at.len() - before) as u64);
        if sent_at.is_empty() {
            if is_over {
                return waits;
            }
            thread::yield_now();
            continue;
        }
        stream.write_all(&packets).unwrap();
        assert!(input.read(), "the broker closed the connection");
        let now = Instant::now();
        while let Some((first, _)) = input.next() {
            assert_eq!(first, 0x40, "only PUBACK comes");
            waits.push(now - sent_at.pop_front().expect("one for each message"));
        }
    }
}
