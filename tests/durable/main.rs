//! Acknowledged means kept: brokers are killed at random moments under load, or lose all their connections, and whatever they
//! had acknowledged comes to whom it is owed, once where it has to be, and in order.
//!
//! `cargo test` kills a few times. The whole is
//!
//! ```sh
//! DURABLE=full cargo test --release --test durable -- --nocapture --test-threads=1
//! ```
//!
//! which kills two hundred times (`STRIKES` sets another number); `SEED` chooses other moments and clients, `DURABILITY`
//! another `data.durability`: `write` has to stand a kill as well, and `memory` shows that what is lost is seen.
//! With `LINKED=0` nothing crosses the link. `KEEP` names a folder for what the brokers of a failed run have written.
//!
//! A moment is a number of acknowledged messages, so that a seed means about the same on every machine; what happens within the
//! processes is up to them, and no two runs are alike.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "the form of a run is chosen by the environment")]

mod book;
mod changes;
#[allow(dead_code, reason = "shared with the tests of one broker, which use all of it")]
#[path = "../broker/harness.rs"]
mod harness;
mod ledger;
mod line;
#[allow(dead_code, reason = "shared with the fuzzer")]
#[path = "../fuzz/mutate.rs"]
mod mutate;
mod odd;
#[allow(dead_code, reason = "shared with tests of memory")]
mod process;
mod publisher;
#[allow(dead_code, reason = "shared with tests of linked clusters, which use all of it")]
#[path = "../acceptance/relay.rs"]
mod relay;
mod run;
mod subscriber;
mod world;

use run::Plan;
use run::run;
use world::Harm;

/// A number of the environment, or what stands for it.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// The short form or the whole.
fn plan(harm: Harm, durability: String, short: u64) -> Plan {
    let is_full = std::env::var("DURABLE").is_ok_and(|form| form == "full");
    Plan {
        seed: number("SEED", 1),
        harm,
        durability,
        linked: number("LINKED", 1) == 1,
        strikes: number("STRIKES", if is_full { 200 } else { short }) as usize,
        between: if is_full { 2_000 } else { 400 },
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_when_connections_are_cut() {
    run(plan(Harm::Cut, "memory".to_owned(), 10)).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_when_brokers_are_killed() {
    let durability = std::env::var("DURABILITY").unwrap_or_else(|_| "fsync".to_owned());
    run(plan(Harm::Kill, durability, 6)).await;
}
