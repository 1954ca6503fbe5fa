//! The ways in which brokers were harmed in public (classes A to O), each with a test that it does not happen here, and
//! random input by the hundred thousand. `classes.tsv` says which test shows what, here or elsewhere.
//!
//! The broker is a process of its own where its memory is judged. Nothing here judges time: what would take it is
//! counted. `HARM_N` sets the number of random inputs (see CONTRIBUTING).

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod claims;
mod classes;
mod files;
mod floods;
mod half_open;
#[path = "../broker/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the broker")]
mod harness;
mod idle;
mod input;
#[path = "../fuzz/mutate.rs"]
mod mutate;
mod names;
mod odd;
#[path = "../durable/process.rs"]
#[allow(dead_code, reason = "shared with the tests that kill it")]
mod process;
mod random;
mod takeover;
#[path = "../fuzz/targets.rs"]
#[allow(dead_code, reason = "shared with the fuzzer, which runs all of them")]
mod targets;
