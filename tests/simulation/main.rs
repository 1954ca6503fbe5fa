//! Clusters of link cores on a simulated network and clock, some of them ours and some a model of EMQX: connections
//! break, stall and come back, some without anybody noticing for long, clusters restart, wall clocks jump,
//! acknowledgements are slow and messages come twice. While it goes on
//!
//! - no cluster of ours forgets what a peer wants all the time, however often that peer is away or restarts;
//! - no cluster of ours sends a peer that began anew what it owed it before, until that has said what it wants;
//! - a cluster of ours gets each message of QoS 1 once, in the order of its publisher, whoever sends it;
//! - every message is accounted for, and none goes further than one hop.
//!
//! After silence every cluster knows of its peers exactly the routes that their subscriptions and link topics make, and
//! every message that a link accepted from a publisher has arrived, unless its own cluster restarted.
//!
//! Every run follows from its seed, which a failure prints; `SEED=… cargo test --test simulation` repeats it, and
//! `SEEDS=100000` runs more of them.

#![allow(clippy::unwrap_used)]

mod emqx;
mod network;
mod peers;
mod world;

use crate::network::Random;
use crate::world::World;

/// How long things happen, in milliseconds of the simulated clock.
const BUSY_MS: u64 = 45_000;
/// How long nothing happens afterwards: longer than any timeout of the protocol.
const SILENCE_MS: u64 = 100_000;
const SEEDS: u64 = 2_000;

fn run(seed: u64) {
    let mut world = World::new(Random::new(seed));
    world.run_until(BUSY_MS, true);
    world.heal();
    world.run_until(BUSY_MS + SILENCE_MS, false);
    world.check();
}

#[allow(clippy::disallowed_methods, reason = "which seeds to run")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn linked_clusters_converge_and_lose_repeat_and_reorder_nothing() {
    if let Some(seed) = number("SEED") {
        return run(seed);
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first..seeds).step_by(threads as usize) {
                    if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
                        eprintln!("repeat with SEED={seed}");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
