//! Operating a running broker: the REST API on a port and on the admin socket, and the commands over both.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

#[path = "../broker/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the broker")]
mod harness;

#[path = "../broker/device.rs"]
mod device;

mod acl;
mod commands;
mod contract;
mod descriptors;
mod events;
mod golden;
mod hardened;
mod link_cases;
mod link_changes;
mod links;
mod node;
mod operators;
mod rest;
mod stored;
mod systemd;
mod trace;
mod trust;
