//! Many routes: told when a link comes up, and changed all the time, while connections are lost; afterwards the other side
//! knows exactly those that are there.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::is_full;
use crate::load::Connection;
use crate::number;
use crate::processes::Pair;
use crate::processes::until;

/// Routes, and changes of them: of the short form, and of the whole.
const ROUTES: (u64, u64) = (5_000, 100_000);
const CHANGES_PER_SECOND: u64 = 5_000;
const SECONDS: (u64, u64) = (1, 60);
/// Filters of one packet.
const FILTERS: usize = 500;
/// Changes of one packet.
const CHANGES: u64 = 25;
const LIMIT: Duration = Duration::from_secs(60);

/// Names with and without wildcards.
fn filter(number: u64) -> String {
    if number.is_multiple_of(2) {
        format!("x/site/{number}/state")
    } else {
        format!("x/site/{number}/+/state")
    }
}

fn known(pair: &Pair) -> u64 {
    pair.a.metric("tombolo_link_routes{peer=\"B\",dir=\"in\"") as u64
}

/// Subscribes and unsubscribes by turns at B; what is subscribed to in the end.
fn churn(pair: &Pair, client: &mut Connection, routes: u64, seconds: u64) -> (BTreeSet<u64>, f64) {
    let mut live: BTreeSet<u64> = (0..routes).collect();
    let (began, mut changes, mut random) = (Instant::now(), 0, 1_u64);
    let mut pick = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let all = CHANGES_PER_SECOND * seconds;
    let mut cut_at = vec![3 * all / 4, all / 2, all / 4];
    while changes < all {
        // As in case 11 of the protocol's list: connections die three times meanwhile.
        if cut_at.pop_if(|at| *at <= changes).is_some() {
            pair.reset();
        }
        let due = (began.elapsed().as_secs_f64() * CHANGES_PER_SECOND as f64) as u64;
        if changes >= due.min(all) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let add = (changes / CHANGES).is_multiple_of(2);
        let mut chosen = BTreeSet::new();
        while (chosen.len() as u64) < CHANGES {
            // What is gone may come back, and what was never there goes without an effect.
            chosen.insert(pick(2 * routes));
        }
        let filters: Vec<String> = chosen.iter().map(|number| filter(*number)).collect();
        client.subscribe(add, 1, filters.iter().map(String::as_str));
        assert_eq!(client.next().0, if add { 0x90 } else { 0xb0 });
        for number in chosen {
            if add {
                live.insert(number);
            } else {
                live.remove(&number);
            }
        }
        changes += CHANGES;
    }
    let rate = changes as f64 / began.elapsed().as_secs_f64();
    (live, rate)
}

#[test]
fn many_routes_are_told_and_changed_and_in_the_end_are_those_that_are_there() {
    let full = is_full();
    let routes = number("ROUTES", if full { ROUTES.1 } else { ROUTES.0 });
    let seconds = if full { SECONDS.1 } else { SECONDS.0 };
    let mut pair = Pair::start(Duration::ZERO);
    let idle = [pair.a.resident_mib(), pair.b.resident_mib()];
    let mut client = Connection::open(pair.b.address(), "subscriber");
    let filters: Vec<String> = (0..routes).map(filter).collect();
    for some in filters.chunks(FILTERS) {
        client.subscribe(true, 1, some.iter().map(String::as_str));
        assert_eq!(client.next().0, 0x90);
    }
    let subscribed = pair.b.resident_mib();
    let cpu = [pair.a.cpu_s(), pair.b.cpu_s()];
    let began = Instant::now();
    pair.heal();
    until("the link comes up", LIMIT, || known(&pair) > 0);
    let up = began.elapsed();
    until("all routes are told", LIMIT, || known(&pair) == routes);
    println!(
        "{routes} routes: all of them {:.2?} after the first, which came {up:.2?} after the network; processor time A \
         {:.2} s, B {:.2} s; MiB A {} -> {}, B {} -> {subscribed} with the subscriptions -> {}",
        began.elapsed() - up,
        pair.a.cpu_s() - cpu[0],
        pair.b.cpu_s() - cpu[1],
        idle[0],
        pair.a.resident_mib(),
        idle[1],
        pair.b.resident_mib(),
    );
    let cpu = [pair.a.cpu_s(), pair.b.cpu_s()];
    let (live, rate) = churn(&pair, &mut client, routes, seconds);
    let converged = until("the changes are told", LIMIT, || known(&pair) == live.len() as u64);
    println!(
        "{rate:.0} changes/s for {seconds} s: converged {converged:.2?} after the last; {} routes; processor time A {:.2} s, \
         B {:.2} s; MiB A {}, B {}",
        live.len(),
        pair.a.cpu_s() - cpu[0],
        pair.b.cpu_s() - cpu[1],
        pair.a.resident_mib(),
        pair.b.resident_mib(),
    );
    let expected: BTreeSet<String> = live.into_iter().map(filter).collect();
    until("exactly those that are there", LIMIT, || pair.a.wanted("B") == expected);
    pair.assert_balanced();
}
