//! Clusters of link cores on a simulated network and clock, some of them ours and some a model of EMQX: connections
//! break, stall and come back, some without anybody noticing for long, clusters restart, wall clocks jump,
//! acknowledgements are slow and messages come twice. While it goes on
//!
//! - no cluster of ours forgets what a peer wants all the time, however often that peer is away or restarts;
//! - no cluster of ours sends a peer that began anew what it owed it before, until that has said what it wants;
//! - a cluster of ours gets each message of QoS 1 and 2 once, in the order of its publisher, whoever sends it, and any
//!   cluster one of QoS 0 at most once;
//! - every message is accounted for, and none goes further than one hop.
//!
//! After silence every cluster knows of its peers exactly the routes that their subscriptions and link topics make, and
//! every message that a link accepted from a publisher has arrived, unless its own cluster restarted and keeps nothing. Some
//! of ours keep what waits and what came, and lose nothing and let nothing through twice over restarts either.
//!
//! Every run follows from its seed, which a failure prints; `SEED=… cargo test --test simulation` repeats it, and
//! `SEEDS=100000` runs more of them.

#![allow(clippy::unwrap_used)]

mod disk;
mod emqx;
mod network;
mod peers;
mod world;

use crate::network::Random;
use crate::world::Shape;
use crate::world::World;

/// How long things happen, in milliseconds of the simulated clock.
const BUSY_MS: u64 = 45_000;
/// How long nothing happens afterwards: longer than any timeout of the protocol.
const SILENCE_MS: u64 = 100_000;
const SEEDS: u64 = 2_000;
/// Of each shape of [`SHAPES`]; they are larger.
const SEEDS_OF_SHAPES: u64 = 6;
/// How often connections are cut off there.
const CUTS: u32 = 200;
const SHAPES: [Shape; 4] = [Shape::Mesh(2), Shape::Mesh(3), Shape::Mesh(5), Shape::Star(10)];
const HOUR_MS: u64 = 3_600_000;

fn run(seed: u64) {
    let mut world = World::new(Random::new(seed), Shape::Mixed);
    world.run_until(BUSY_MS, true);
    settle(&mut world);
}

/// Once all is well again for long enough everything must be as it should.
fn settle(world: &mut World) {
    world.heal();
    world.run_until(world.now_ms + SILENCE_MS, false);
    world.check();
}

/// Two hundred cuts, some longer than routes live, among publishers of every QoS, restarts and clocks that jump.
fn run_shapes(seed: u64) {
    for shape in SHAPES {
        let mut world = World::new(Random::new(seed), shape);
        world.run_until_cut(CUTS);
        settle(&mut world);
    }
}

#[allow(clippy::disallowed_methods, reason = "which seeds to run")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Runs the seeds on all processors.
fn run_all(seeds: u64, run: fn(u64)) {
    if let Some(seed) = number("SEED") {
        return run(seed);
    }
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

#[test]
fn linked_clusters_converge_and_lose_repeat_and_reorder_nothing() {
    run_all(number("SEEDS").unwrap_or(SEEDS), run);
}

#[test]
fn pair_ring_mesh_and_star_go_through_two_hundred_cuts() {
    run_all(number("SEEDS").unwrap_or(SEEDS_OF_SHAPES), run_shapes);
}

/// EMQX removed live routes of other links with those of a dead one until 5.8.9.
#[test]
fn a_link_that_is_dead_for_an_hour_takes_no_live_route_of_another_with_it() {
    for seed in 0..6 {
        // The first one has two peers, which do not know each other: one of them is out of reach.
        let mut world = World::new(Random::new(seed), if seed < 2 { Shape::Star(3) } else { Shape::Mixed });
        world.run_until(BUSY_MS, true);
        settle(&mut world);
        let ends: Vec<(usize, usize)> = world.directions.iter().map(|it| (it.from, it.to)).collect();
        let before: Vec<_> = ends.iter().map(|(from, to)| world.known(*from, *to).clone()).collect();
        world.part(0, 1, world.now_ms + HOUR_MS);
        world.run_until(world.now_ms + HOUR_MS, false);
        for (&(from, to), known) in ends.iter().zip(before) {
            // What one of EMQX's knows of a peer that is silent goes, as it should there.
            if world.clusters[to].emqx.is_none() || (from, to) != (0, 1) {
                assert_eq!(*world.known(from, to), known, "seed {seed}: routes of {from} at {to}");
            }
        }
        settle(&mut world);
    }
}
