//! Two brokers of ours, linked over mutual TLS with the two-cluster rules on both sides: exactly the right
//! messages cross, and none is lost when the link is cut or one side is killed.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

#[allow(dead_code, reason = "shared with the tests of one broker, which use all of it")]
#[path = "../broker/harness.rs"]
mod harness;

mod books;
mod crossing;
mod killed;
mod outage;
mod pair;
mod processes;
mod proxy;
mod relay;
mod renewed;
mod retained;
mod reverse;
mod revoked;
mod trusted;
mod upstream;
