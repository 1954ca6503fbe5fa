//! Clusters of link cores on a simulated network and clock: connections break, stall and come back, clusters
//! restart, acknowledgements are slow. After silence every cluster has at its peers exactly the routes its
//! subscriptions and link topics make, and every QoS 1 message has arrived at least once and in order.
//!
//! Every run follows from its seed, which a failure prints; `SEED=… cargo test --test simulation` repeats it.

#![allow(clippy::unwrap_used)]

mod network;
mod peers;
mod world;

use crate::network::Random;
use crate::world::World;

/// How long things happen, in milliseconds of the simulated clock.
const BUSY_MS: u64 = 90_000;
/// How long nothing happens afterwards: longer than any timeout of the protocol.
const SILENCE_MS: u64 = 120_000;
const SEEDS: u64 = 200;

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(2 + random.below(3) as usize, random);
    world.run_until(BUSY_MS, true);
    world.heal();
    world.run_until(BUSY_MS + SILENCE_MS, false);
    world.check();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the seed to repeat")]
fn linked_clusters_converge() {
    if let Ok(seed) = std::env::var("SEED") {
        return run(seed.parse().unwrap());
    }
    for seed in 0..SEEDS {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("repeat with SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
