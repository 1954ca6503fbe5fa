//! What random input leaves behind, to the byte: the broker runs in this process, whose allocator counts. This binary has one
//! test, because whatever else runs here would be counted too. `tests/harm` looks at the resident memory of a process, which
//! says less: an allocator keeps what was freed in pieces.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::alloc::System;

use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;
use tombolo::net::clock;

#[path = "../broker/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the broker")]
mod harness;
#[path = "../harm/input.rs"]
#[allow(dead_code, reason = "shared with the tests of harm")]
mod input;
#[path = "../fuzz/mutate.rs"]
mod mutate;

use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::a_moment;
use crate::input::exchange;
use crate::input::inputs;
use crate::input::seeds;
use crate::mutate::Dice;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a session takes whose Session Expiry Interval has not passed: mutated packets ask for that too.
const SESSION_BYTES: i64 = 4 * 1024;
/// Buffers that are there at one moment and not at the other, tables that are as large as they ever had to be, and the Topic
/// Names of the input in the cache of targets, which has bounds of its own. A dozen bytes for each input of a usual run.
const SLACK_BYTES: i64 = 128 * 1024;
/// Nothing outlives a connection that was asked for by it. The sweeper remembers who it was until its Keep Alive is over.
const SETTINGS: &str = r#"
retain_available = false
session_expiry_interval = "0s"
idle_timeout = "2s"
max_keepalive = 1
"#;
/// Longer than any Keep Alive here, and than the broker takes to look through its caches.
const ROUND_MS: u64 = 15_000;
/// The topic of the seeds is published to and no other: the broker keeps names that it has seen, up to a bound.
const RULES: &str = "{allow, all, publish, [\"a/b\"]}.\n{allow, all, subscribe, all}.\n{deny, all}.";

/// What is allocated, but for sessions.
fn live_bytes(broker: &Running) -> i64 {
    let stats = COUNTED.stats();
    let live = stats.bytes_allocated as i64 - stats.bytes_deallocated as i64;
    live - broker.metric("tombolo_sessions") as i64 * SESSION_BYTES
}

#[tokio::test]
async fn random_input_leaves_nothing_behind() {
    let broker = Setup::new().mqtt(SETTINGS).acl(RULES).start().await;
    let (seeds, count) = (seeds(), inputs(10_000));
    let mut dice = Dice(2);
    let mut warm = i64::MAX;
    for part in [count / 4, count - count / 4] {
        for _ in 0..part {
            exchange(broker.address("tcp:default"), &seeds, &mut dice).await;
        }
        broker.until_metric("tombolo_connections{listener=\"tcp\"}", 0).await;
        // What the sweeper has to look at yet is let go within its time; the warm-up is what it was at its end.
        let bound = warm.saturating_add(SLACK_BYTES);
        warm = settled(&broker, bound).await;
    }
}

/// What is allocated once the sweeper has been by twice, and no more than `bound` after its whole round.
async fn settled(broker: &Running, bound: i64) -> i64 {
    let begun = clock::now().mono_ms;
    let waited = |ms| clock::now().mono_ms >= begun + ms;
    while !waited(3_000) || (live_bytes(broker) > bound && !waited(ROUND_MS)) {
        a_moment().await;
    }
    let live = live_bytes(broker);
    println!("{live} bytes");
    assert!(live <= bound, "{live} bytes, not {bound} at most");
    live
}
