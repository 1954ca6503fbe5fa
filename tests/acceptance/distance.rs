//! Messages of 100 bytes at QoS 1 over a round trip of 80 ms: the windows have to grow to what fits into it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::is_full;
use crate::load;
use crate::load::Flow;
use crate::load::Pace;
use crate::number;
use crate::processes;
use crate::processes::Pair;
use crate::processes::until;

const ROUND_TRIP: Duration = Duration::from_millis(80);
const PUBLISHERS: usize = 4;
/// What all lanes together may have in flight in the beginning.
const FIRST_WINDOWS: i64 = 4 * 32;
/// Until the windows have grown, and how long is measured then.
const GROWTH: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(15);

/// Processor time of everybody who takes part, in seconds.
fn costs(pair: &Pair) -> [f64; 5] {
    [
        pair.a.cpu_s(),
        pair.b.cpu_s(),
        processes::cpu_of_threads_s(processes::NETWORK),
        processes::cpu_of_threads_s(load::PUBLISHER),
        processes::cpu_of_threads_s(load::SUBSCRIBER),
    ]
}

fn measure(pair: &Pair, flow: &Flow, round_trip: Duration) {
    thread::sleep(GROWTH);
    let (began, before) = (Instant::now(), flow.received.load(Ordering::Relaxed));
    let (costs_before, machine) = (costs(pair), processes::cpu_of_machine_s());
    thread::sleep(MEASURED);
    let elapsed = began.elapsed().as_secs_f64();
    let rate = (flow.received.load(Ordering::Relaxed) - before) as f64 / elapsed;
    let in_flight = pair.a.metric("tombolo_link_inflight{");
    let spent: Vec<f64> =
        costs(pair).iter().zip(costs_before).map(|(now, then)| (now - then) / elapsed).collect();
    let (busy, all) = processes::cpu_of_machine_s();
    println!(
        "round trip {round_trip:?}: {rate:.0} messages/s, {in_flight} in flight; processors used by A {:.2}, B {:.2}, \
         the relay {:.2}, publishers {:.2}, the subscriber {:.2}; of the machine {:.0} %",
        spent[0],
        spent[1],
        spent[2],
        spent[3],
        spent[4],
        100.0 * (busy - machine.0) / (all - machine.1)
    );
}

fn send(round_trip: Duration) {
    let mut pair = Pair::start(round_trip / 2);
    pair.heal();
    let flow = Arc::new(Flow::default());
    let subscriber = load::subscribe(pair.b.address(), "x/#", Arc::clone(&flow));
    pair.linked(1, 0);
    let pace = Pace { payload_bytes: 100, rate: number("RATE", 0) / PUBLISHERS as u64, backlog: 100_000 };
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|index| load::publish(pair.a.address(), format!("x/{index}"), pace, Arc::clone(&flow)))
        .collect();
    if is_full() {
        measure(&pair, &flow, round_trip);
    } else {
        until("the windows grow", Duration::from_secs(30), || {
            pair.a.metric("tombolo_link_inflight{") > 2 * FIRST_WINDOWS
        });
    }
    flow.stop.store(true, Ordering::Relaxed);
    let sent: Vec<u64> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
    let all: u64 = sent.iter().sum();
    until("all have arrived", Duration::from_secs(60), || flow.received.load(Ordering::Relaxed) >= all);
    flow.done.store(true, Ordering::Relaxed);
    let arrived = subscriber.join().unwrap();
    assert_eq!((arrived.missing, arrived.again), (0, 0));
    assert_eq!(arrived.next.into_values().collect::<Vec<_>>(), sent);
    pair.assert_balanced();
}

#[test]
fn windows_grow_with_the_distance_and_nothing_is_lost_or_repeated() {
    if is_full() {
        send(Duration::ZERO);
    }
    send(ROUND_TRIP);
}
