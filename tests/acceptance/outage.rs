//! A long outage while both sides go on publishing: nothing lost, nothing twice, all in order, and how long the rest
//! takes afterwards.

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
use crate::processes::Pair;
use crate::processes::until;

const PUBLISHERS: usize = 4;
const PAYLOAD_BYTES: usize = 64;
/// Before the outage, and after it.
const AROUND: Duration = Duration::from_secs(5);
/// Messages that are always under way while all is well, at so many a second: those of a fifth of a second.
const UNDER_WAY_PART: u64 = 5;

fn under_way(flows: &[Arc<Flow>; 2]) -> u64 {
    let of = |flow: &Arc<Flow>| {
        flow.sent.load(Ordering::Relaxed).saturating_sub(flow.received.load(Ordering::Relaxed))
    };
    flows.iter().map(of).sum()
}

#[test]
fn an_outage_loses_repeats_and_reorders_nothing() {
    let full = is_full();
    let rate = number("RATE", if full { 10_000 } else { 500 });
    let outage = Duration::from_secs(number("OUTAGE", if full { 300 } else { 2 }));
    let mut pair = Pair::start(Duration::ZERO);
    pair.heal();
    let flows: [Arc<Flow>; 2] = Default::default();
    let (from_a, from_b) = (pair.a.address(), pair.b.address());
    let subscribers = [
        load::subscribe(from_b, "x/0/#", Arc::clone(&flows[0])),
        load::subscribe(from_a, "x/1/#", Arc::clone(&flows[1])),
    ];
    pair.linked(1, 1);
    let pace = Pace { payload_bytes: PAYLOAD_BYTES, rate: rate / PUBLISHERS as u64, backlog: 0 };
    let publishers: Vec<_> = [from_a, from_b]
        .into_iter()
        .zip(&flows)
        .enumerate()
        .map(|(side, (address, flow))| {
            let one = |index| load::publish(address, format!("x/{side}/{index}"), pace, Arc::clone(flow));
            (0..PUBLISHERS).map(one).collect::<Vec<_>>()
        })
        .collect();
    let around = if full { AROUND } else { Duration::from_millis(500) };
    thread::sleep(around);
    let memory = |pair: &Pair| [pair.a.resident_mib(), pair.b.resident_mib()];
    let before = memory(&pair);
    pair.cut();
    thread::sleep(outage);
    let (during, behind, healed) = (memory(&pair), under_way(&flows), Instant::now());
    pair.heal();
    let enough = (2 * rate / UNDER_WAY_PART).max(100);
    let caught_up =
        until("both have caught up", 4 * outage + Duration::from_secs(60), || under_way(&flows) < enough);
    thread::sleep(around);
    flows.iter().for_each(|flow| flow.stop.store(true, Ordering::Relaxed));
    let sent: Vec<u64> =
        publishers.into_iter().flatten().map(|publisher| publisher.join().unwrap()).collect();
    until("all have arrived", Duration::from_secs(60), || under_way(&flows) == 0);
    flows.iter().for_each(|flow| flow.done.store(true, Ordering::Relaxed));
    let arrived: Vec<_> = subscribers.into_iter().map(|subscriber| subscriber.join().unwrap()).collect();
    println!(
        "{rate} messages/s each way, {outage:?} without a link: {} sent, {behind} behind when it was back, caught up after \
         {caught_up:.1?}; missing {:?}, twice or late {:?}; MiB before {before:?}, at the end of it {during:?}, now {:?} \
         after {:.0?}",
        sent.iter().sum::<u64>(),
        arrived.iter().map(|it| it.missing).collect::<Vec<_>>(),
        arrived.iter().map(|it| it.again).collect::<Vec<_>>(),
        memory(&pair),
        healed.elapsed(),
    );
    for arrived in &arrived {
        assert_eq!((arrived.missing, arrived.again), (0, 0));
    }
    pair.assert_balanced();
}
