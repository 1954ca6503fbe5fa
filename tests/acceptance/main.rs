//! What cluster linking has to stand: several real brokers, joined through relays that cut and delay.
//!
//! `cargo test` runs a short form of each. What a machine can do is measured by
//!
//! ```sh
//! ACCEPTANCE=full cargo test --release --test acceptance -- --nocapture --test-threads=1
//! ```
//!
//! which takes about half an hour, or one of it by its name: `cuts::` goes through two hundred cuts in every shape,
//! some of them longer than routes live (`SEED` chooses others); `routes::` tells and changes 100,000 routes; `distance::`
//! sends over 80 ms of round trip (`RATE=0` is as fast as it goes); `outage::` publishes `RATE` messages a second each
//! way during `OUTAGE` seconds without a link.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "figures need a clock, and their form is chosen by the environment"
)]

#[allow(dead_code, reason = "shared with the tests of one broker, which use all of it")]
#[path = "../broker/harness.rs"]
mod harness;

mod clusters;
mod cuts;
mod distance;
mod load;
mod outage;
mod processes;
mod relay;
mod routes;

/// Whether the whole is asked for, which takes its time.
fn is_full() -> bool {
    std::env::var("ACCEPTANCE").is_ok_and(|form| form == "full")
}

/// A number of the environment, or what stands for it.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}
