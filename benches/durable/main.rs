//! What it costs that a message outlives the broker: QoS 1 to a subscriber with a session that stays, connected or away, for each
//! `data.durability`, beside mosquitto with persistence if it is installed; and how long a broker with much to remember takes to
//! start.
//!
//! The figures depend on the disk, so the first line says what one synchronisation of it takes. Linux only.
//!
//! ```sh
//! cargo bench --bench durable                                      # everything, about ten minutes
//! cargo bench --bench durable -- publish fsync                     # one part; brokers whose names contain one of these
//! cargo bench --bench durable -- start messages=10000 sessions=100 # with less to remember
//! cargo bench --bench durable -- dir=/var/tmp                      # on another disk than that of `target`
//! ```
//!
//! How often mosquitto synchronises is up to its settings: by default it writes everything it has into a new file each
//! 1,800 seconds and when it is stopped, and nothing in between.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

mod brokers;
#[allow(dead_code, reason = "shared with other benches")]
#[path = "../lab/mod.rs"]
mod lab;
mod publish;
mod start;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::brokers::Kind;

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not, and wants nothing measured.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.contains(['-', '='])).collect();
    let is_wanted = |part: &str| {
        let parts = ["publish", "start"];
        words.iter().any(|word| word == part) || !words.iter().any(|word| parts.contains(&word.as_str()))
    };
    let kinds: Vec<Kind> = brokers::installed()
        .filter(|kind| {
            let mut names = words.iter().filter(|word| *word != "publish" && *word != "start").peekable();
            names.peek().is_none() || names.any(|name| kind.name.contains(name.as_str()))
        })
        .collect();
    let folder = folder();
    let (middle, late) = synchronisation(&folder);
    println!(
        "a synchronisation of 256 bytes behind a file here takes {middle:?}, one in a hundred {late:?}\n"
    );
    if is_wanted("publish") {
        publish::measure(&kinds, &folder);
    }
    if is_wanted("start") {
        start::measure(&kinds, &folder);
    }
}

/// Where brokers keep what they keep.
fn folder() -> PathBuf {
    let asked = std::env::args().find_map(|argument| Some(PathBuf::from(argument.strip_prefix("dir=")?)));
    asked.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")))
}

/// What the disk takes for one: the median, and the slowest of a hundred.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn synchronisation(folder: &Path) -> (Duration, Duration) {
    let scratch = tempfile::tempdir_in(folder).unwrap();
    let mut file = File::create(scratch.path().join("file")).unwrap();
    let mut took: Vec<Duration> = (0..500)
        .map(|_| {
            file.write_all(&[b'x'; 256]).unwrap();
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    (took[250], took[495])
}
