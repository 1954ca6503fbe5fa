//! What each part of the path of a message costs: nanoseconds, allocations, and instructions that repeat exactly.
//! `cargo bench --bench costs` measures time, `-- --instructions` counts under callgrind and compares with
//! `benches/instructions.tsv`, `-- --threads` shows what a second thread costs the first. See `benches/README.md`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

mod acl;
mod client;
mod codec;
mod harness;
mod link;
mod path;
mod routing;
mod session;
mod threads;

use std::alloc::System;

use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;
use tombolo::time::Now;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Every body is handed this moment: nothing expires, nothing is due.
const NOW: Now = Now { mono_ms: 1_000_000, unix_ms: 1_764_000_000_000 };
const TOPIC: &str = "site/12/machine/7/state";
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// Messages of a burst: what one read of a busy connection brings.
const BURST: u16 = 64;

fn main() -> std::process::ExitCode {
    if std::env::args().any(|argument| argument == "--threads") {
        return threads::main();
    }
    let groups =
        [codec::BENCHES, routing::BENCHES, acl::BENCHES, session::BENCHES, link::BENCHES, path::BENCHES];
    harness::main(&groups.concat())
}
