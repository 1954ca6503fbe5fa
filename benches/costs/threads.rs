//! Whether I/O threads get into each other's way: the whole path of a message on one thread alone, then on two at once,
//! each with clients and a topic of its own on the same broker. A line of memory that both write for each message would
//! show: the last row is the same work with one counter written by both, once a message.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tombolo::broker::Broker;
use tombolo::mqtt::packet::QoS;

use crate::BURST;
use crate::harness::Body;
use crate::path;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(100);
const WARM_UP: usize = 200;

/// What the last row writes.
static SHARED: AtomicU64 = AtomicU64::new(0);

struct Case {
    name: &'static str,
    qos: QoS,
    shares_a_counter: bool,
}

const CASES: [Case; 3] = [
    Case { name: "64 B, QoS 0, to 1", qos: QoS::AtMostOnce, shares_a_counter: false },
    Case { name: "64 B, QoS 1, to 1", qos: QoS::AtLeastOnce, shares_a_counter: false },
    Case { name: "QoS 0 with a counter that both write", qos: QoS::AtMostOnce, shares_a_counter: true },
];

/// Prints nanoseconds per message of one thread alone and beside another, medians of all rounds.
pub(crate) fn main() -> ExitCode {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("skipped: it takes two processors");
        return ExitCode::SUCCESS;
    }
    println!("{:<40} {:>9} {:>9} {:>7}", "ns per message", "alone", "beside", "ratio");
    for case in &CASES {
        let broker = path::broker();
        let rounds = rounds(case, &broker);
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[ROUNDS / 2]
        };
        let (alone, beside, ratio) = (median(|it| it.0), median(|it| it.1), median(|it| it.1 / it.0));
        println!("{:<40} {alone:>9.1} {beside:>9.1} {ratio:>7.3}", case.name);
    }
    ExitCode::SUCCESS
}

/// Of each round what a message took the first thread, alone and beside the second.
fn rounds(case: &Case, broker: &Arc<Broker>) -> Vec<(f64, f64)> {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut body = warmed_up(case, broker, "west");
            for _ in 0..ROUNDS {
                barrier.wait();
                barrier.wait();
                messages(case, &mut *body);
                barrier.wait();
            }
        });
        let mut body = warmed_up(case, broker, "east");
        let mut round = || {
            barrier.wait();
            let alone = messages(case, &mut *body);
            barrier.wait();
            let beside = messages(case, &mut *body);
            barrier.wait();
            (alone, beside)
        };
        (0..ROUNDS).map(|_| round()).collect()
    })
}

fn warmed_up(case: &Case, broker: &Arc<Broker>, name: &str) -> Box<dyn Body> {
    let mut body = path::pair(broker, name, case.qos);
    for _ in 0..WARM_UP {
        body.prepare();
        body.run();
    }
    body
}

/// Nanoseconds per message, over [`ROUND`].
#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures; there is no turn whose clock it could use"
)]
fn messages(case: &Case, body: &mut dyn Body) -> f64 {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < ROUND {
        body.prepare();
        body.run();
        count += u32::from(BURST);
        if case.shares_a_counter {
            (0..BURST).for_each(|_| _ = SHARED.fetch_add(1, Ordering::Relaxed));
        }
    }
    start.elapsed().as_nanos() as f64 / f64::from(count)
}
