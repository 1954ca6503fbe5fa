//! Runs bodies: against the clock, or under callgrind with collection only inside [`measured`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use stats_alloc::INSTRUMENTED_SYSTEM;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv");
/// Calls before anything counts: caches, buffers and tables have their size then.
const WARM_UP: u32 = 200;
/// Calls that are counted under callgrind.
const COUNTED: u32 = 20;
const BATCHES: usize = 9;
const BATCH: Duration = Duration::from_millis(40);

/// What is measured.
pub(crate) trait Body {
    /// Readies the next call; does not count.
    fn prepare(&mut self) {}
    /// Does what counts.
    fn run(&mut self);
}

impl<F: FnMut()> Body for F {
    fn run(&mut self) {
        self();
    }
}

/// A body with a name.
#[derive(Clone, Copy)]
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    /// Operations of one call.
    pub(crate) operations: u32,
    pub(crate) make: fn() -> Box<dyn Body>,
}

/// Callgrind collects while this function runs; its name is an argument there.
#[inline(never)]
fn measured(body: &mut dyn Body) {
    body.run();
}

#[derive(Clone, Copy)]
struct Allocated {
    count: f64,
    bytes: f64,
}

/// Calls the body so many times; time and allocations per operation, without those of its preparations.
#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures; there is no turn whose clock it could use"
)]
fn calls(bench: &Bench, body: &mut dyn Body, count: u32) -> (f64, Allocated) {
    let (mut nanos, mut allocations, mut bytes) = (0, 0, 0);
    for _ in 0..count {
        body.prepare();
        let before = INSTRUMENTED_SYSTEM.stats();
        let start = Instant::now();
        measured(body);
        nanos += start.elapsed().as_nanos();
        let after = INSTRUMENTED_SYSTEM.stats();
        allocations += after.allocations - before.allocations + after.reallocations - before.reallocations;
        bytes += after.bytes_allocated - before.bytes_allocated;
    }
    let operations = f64::from(count) * f64::from(bench.operations);
    let allocated = Allocated { count: allocations as f64 / operations, bytes: bytes as f64 / operations };
    (nanos as f64 / operations, allocated)
}

/// Chooses by the arguments. `cargo bench` adds `--bench`, which says nothing.
pub(crate) fn main(benches: &[Bench]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let Some(at) = arguments.iter().position(|argument| argument == "--counted") {
        count_one(benches, &arguments[at + 1]);
        return ExitCode::SUCCESS;
    }
    let wanted = |bench: &&Bench| {
        let mut filters = arguments.iter().filter(|argument| !argument.starts_with("--")).peekable();
        filters.peek().is_none() || filters.any(|filter| bench.name.contains(filter.as_str()))
    };
    let chosen: Vec<&Bench> = benches.iter().filter(wanted).collect();
    if has("--instructions") {
        return instructions(&chosen, has("--save"), has("--check"));
    }
    println!("{:<50} {:>9} {:>7} {:>8} {:>9}", "per operation", "ns", "spread", "allocs", "bytes");
    chosen.iter().for_each(|bench| time_one(bench));
    ExitCode::SUCCESS
}

fn time_one(bench: &Bench) {
    let mut body = (bench.make)();
    let (nanos, _) = calls(bench, &mut *body, WARM_UP);
    let per_call = (nanos * f64::from(bench.operations)).max(1.0);
    let count = (BATCH.as_nanos() as f64 / per_call).clamp(10.0, 100_000.0) as u32;
    let mut batches: Vec<(f64, Allocated)> = (0..BATCHES).map(|_| calls(bench, &mut *body, count)).collect();
    batches.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (median, allocated) = batches[BATCHES / 2];
    let spread = (batches[BATCHES - 1].0 - batches[0].0) / median * 100.0;
    println!(
        "{:<50} {median:>9.1} {spread:>6.0}% {:>8.3} {:>9.1}",
        bench.name, allocated.count, allocated.bytes
    );
}

/// What runs under callgrind; what it prints is read by [`count`].
fn count_one(benches: &[Bench], name: &str) {
    let bench = benches.iter().find(|bench| bench.name == name).expect("a bench of this name");
    let mut body = (bench.make)();
    // Not `measured`: these calls are not to be collected.
    for _ in 0..WARM_UP {
        body.prepare();
        body.run();
    }
    let (_, allocated) = calls(bench, &mut *body, COUNTED);
    println!("{} {}", allocated.count, allocated.bytes);
    // What the body holds need not be taken apart.
    std::process::exit(0);
}

struct Counted {
    instructions: f64,
    allocated: Allocated,
}

fn count(bench: &Bench, directory: &Path) -> Option<Counted> {
    let out = directory.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*harness::measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().ok()?)
        .args(["--counted", bench.name])
        .output()
        .ok()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut numbers = printed.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(allocations)), Some(Ok(bytes))) = (numbers.next(), numbers.next()) else {
        eprintln!("{}: {}", bench.name, String::from_utf8_lossy(&output.stderr));
        return None;
    };
    let text = std::fs::read_to_string(out).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "))?.trim().parse::<f64>().ok()?;
    let instructions = total / (f64::from(COUNTED) * f64::from(bench.operations));
    Some(Counted { instructions, allocated: Allocated { count: allocations, bytes } })
}

fn baseline() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
    let row = |line: &str| {
        let mut cells = line.split('\t');
        Some((cells.next()?.to_owned(), cells.next()?.parse::<f64>().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// Counts each, compares, and writes the baseline if asked to. With `check` more than 5 % above it is a failure.
fn instructions(benches: &[&Bench], save: bool, check: bool) -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed, and instructions are counted by its callgrind");
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().unwrap();
    let known = baseline();
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    let mut failed = false;
    println!(
        "{:<50} {:>12} {:>12} {:>8} {:>8} {:>9}",
        "per operation", "instructions", "baseline", "change", "allocs", "bytes"
    );
    for bench in benches {
        let Some(Counted { instructions, allocated }) = count(bench, directory.path()) else {
            println!("{:<50} could not be counted", bench.name);
            failed = true;
            continue;
        };
        let (mut base, mut change) = ("-".to_owned(), "new".to_owned());
        if let Some(before) = known.get(bench.name) {
            let percent = (instructions / before - 1.0) * 100.0;
            (base, change) = (format!("{before:.1}"), format!("{percent:+.1}%"));
            failed |= check && percent > 5.0;
        }
        let Allocated { count, bytes } = allocated;
        println!("{:<50} {instructions:>12.1} {base:>12} {change:>8} {count:>8.3} {bytes:>9.1}", bench.name);
        rows.insert(bench.name.to_owned(), format!("{instructions:.1}\t{count:.3}\t{bytes:.1}"));
    }
    if save {
        write_baseline(rows);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Rows that were not counted this time stay.
fn write_baseline(mut rows: BTreeMap<String, String>) {
    let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
    for (name, rest) in text.lines().skip(1).filter_map(|line| line.split_once('\t')) {
        rows.entry(name.to_owned()).or_insert_with(|| rest.to_owned());
    }
    let mut text = "bench\tinstructions\tallocations\tbytes\n".to_owned();
    for (name, rest) in rows {
        writeln!(text, "{name}\t{rest}").unwrap();
    }
    std::fs::write(BASELINE, text).unwrap();
}
