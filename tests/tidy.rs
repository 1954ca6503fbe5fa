//! Checks the architecture itself, so that a wrong dependency fails the build and not a review.
//!
//! 1. A module imports only from modules below it (`LAYERS`, lowest first), one path per line.
//! 2. The cores perform no I/O, read no clock, draw no randomness and never await.
//! 3. No source file grows without bound, no test sleeps, and no file names a path of somebody's machine.
//!
//! It reads text, not syntax: a macro or a `super::super::` path can slip past it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Lowest first. Modules on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["time"],
    &["mqtt"],
    &["session", "acl", "auth", "link"],
    &["trust"],
    &["config"],
    &["metrics"],
    &["net"],
    &["storage"],
    &["broker"],
    &["admin"],
];

const CORES: &[&str] = &["mqtt", "session", "acl", "auth", "link", "trust"];

/// What reaches the world, the clock or the dice. `time` is a plain value, no core, but obeys. A hash map's seed is
/// random too and allowed: it decides nothing that can be seen.
const BANNED_IN_CORES: &[&str] = &[
    "async ",
    ".await",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::env",
    "std::process",
    "thread_local!",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "getrandom",
    "tracing::",
    "println!",
];

/// A file that outgrows this is split.
const LINES_MAX: usize = 700;

/// Tests that may sleep, and why.
const MAY_SLEEP: &[(&str, &str)] = &[
    ("benches/connections.rs", "idle connections are held for a while"),
    ("benches/lab/mod.rs", "another process announces nothing: asked until it answers"),
    ("benches/load.rs", "a link announces nothing: asked until something crosses"),
    ("tests/acceptance/clusters.rs", "a metric announces nothing: looked at until it is as wanted"),
    ("tests/acceptance/cuts.rs", "cuts last for a time"),
    ("tests/acceptance/distance.rs", "measures for a time"),
    ("tests/acceptance/load.rs", "publishes at a rate"),
    ("tests/acceptance/outage.rs", "an outage lasts for a time"),
    ("tests/acceptance/processes.rs", "another process announces nothing: asked until it answers"),
    ("tests/acceptance/relay.rs", "delays what it carries"),
    ("tests/acceptance/routes.rs", "changes routes at a rate"),
    ("tests/broker/harness.rs", "a metric announces nothing: looked at until it is as wanted"),
    ("tests/durable/process.rs", "another process announces nothing: asked until it answers"),
    ("tests/linked/killed.rs", "another process announces nothing: looked at until it is as wanted"),
    ("tests/linked/pair.rs", "a metric announces nothing: looked at until it is as wanted"),
    ("tests/linked/processes.rs", "another process announces nothing: asked until it answers"),
];

#[test]
fn modules_import_only_from_lower_layers() {
    let mut errors = Vec::new();
    for (path, text) in production_sources() {
        let module = module_of(&path);
        let Some(rank) = rank_of(&module) else { continue };
        for (index, line) in code_lines(&text) {
            for target in crate_paths(line).filter(|target| *target != module) {
                if rank_of(target).is_some_and(|target_rank| target_rank >= rank) {
                    errors.push(format!("{}:{}: `{target}` is not below `{module}`", show(&path), index + 1));
                }
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    for (path, _) in production_sources() {
        let module = module_of(&path);
        let root = ["main", "lib"].contains(&module.as_str());
        assert!(root || rank_of(&module).is_some(), "{} is in no layer", show(&path));
    }
}

/// So that every edge between modules can be read and found.
#[test]
fn imports_are_written_one_path_per_line() {
    let mut errors = Vec::new();
    for (path, text) in rust_files(&["src", "tests", "benches"]) {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            if line.starts_with("use ") && line.contains('{') {
                errors.push(format!("{}:{}: one import path per line", show(&path), index + 1));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn cores_do_no_io_and_read_no_clock() {
    let mut errors = Vec::new();
    for (path, text) in production_sources() {
        let module = module_of(&path);
        if module != "time" && !CORES.contains(&module.as_str()) {
            continue;
        }
        for (index, line) in code_lines(&text) {
            for banned in BANNED_IN_CORES.iter().filter(|banned| names(line, banned)) {
                errors.push(format!("{}:{}: `{banned}` in a core", show(&path), index + 1));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

/// Whether `word` stands in `line` and is not the beginning of a longer one.
fn names(line: &str, word: &str) -> bool {
    let part_of_a_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        !(word.ends_with(part_of_a_word) && after.is_some_and(part_of_a_word))
    })
}

#[test]
fn a_longer_word_is_another_one() {
    assert!(names("socket.read().await?;", ".await"));
    assert!(!names("self.awaiting.len()", ".await"));
    assert!(names("use std::fs;", "std::fs"));
    assert!(names("tokio::spawn(task)", "tokio::"));
}

#[test]
fn no_source_file_grows_without_bound() {
    let mut errors = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            errors.push(format!("{}: {lines} lines, at most {LINES_MAX}: split it", show(&path)));
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

/// A test that waits for time to pass is slow when it passes and wrong when it fails: wait for the condition.
#[test]
fn tests_do_not_sleep() {
    let mut errors = Vec::new();
    for (path, text) in rust_files(&["src", "tests", "benches"]) {
        let name = show(&path);
        if name == "tests/tidy.rs" || MAY_SLEEP.iter().any(|(file, _)| *file == name) {
            continue;
        }
        let inside = name.starts_with("src/") && !name.ends_with("tests.rs");
        let from = if inside { text.lines().take_while(|line| !starts_tests(line)).count() } else { 0 };
        for (index, line) in text.lines().enumerate().skip(from) {
            if line.contains("thread::sleep") || line.contains("time::sleep") {
                errors.push(format!("{name}:{}: a test that sleeps", index + 1));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn no_file_names_a_path_of_a_machine() {
    // Put together here, so that this file does not contain them.
    let banned: Vec<String> =
        ["root", "home", "work", "Users"].iter().map(|top| format!("/{top}/")).collect();
    let mut errors = Vec::new();
    for path in files(&repository()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (index, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| starts_a_path(line, word)) {
                errors.push(format!("{}:{}: names `{word}`", show(&path), index + 1));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

/// Whether `word` stands in `line` as the beginning of an absolute path, not in the middle of one.
fn starts_a_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "_-.+#}".contains(before))
    })
}

#[test]
fn a_path_in_the_middle_of_another_is_not_absolute() {
    let word = format!("/{}/", "home");
    assert!(starts_a_path(&format!("cd {word}me"), &word));
    assert!(starts_a_path(&format!("\"{word}me\""), &word));
    assert!(!starts_a_path(&format!("smart{word}lamp"), &word));
}

/// Sources without the files that hold only tests.
fn production_sources() -> impl Iterator<Item = (PathBuf, String)> {
    rust_files(&["src"])
        .into_iter()
        .filter(|(path, _)| path.file_name().is_some_and(|name| name != "tests.rs"))
}

/// Lines of production code with their index: comments and the trailing test module are left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !starts_tests(line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Tests stand at the end of a file.
fn starts_tests(line: &str) -> bool {
    line == "#[cfg(test)]"
}

fn crate_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        rest.split(|character: char| !character.is_alphanumeric() && character != '_').next().unwrap_or("")
    })
}

fn rank_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(repository().join("src")).expect("listed from the source root");
    let first = inside.iter().next().expect("a file has a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A path as it is named in messages.
fn show(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

fn rust_files(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let all = folders.iter().flat_map(|folder| files(&repository().join(folder)));
    let rust = all.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| {
        let text = fs::read_to_string(&path).expect("readable source file");
        (path, text)
    })
    .collect()
}

/// All files below a folder but what is built, downloaded or written while running.
fn files(folder: &Path) -> Vec<PathBuf> {
    const NOT_OURS: &[&str] = &["target", ".git", "data", "certs", "corpus", "artifacts"];
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
