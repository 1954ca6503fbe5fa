//! The sources as text: which test functions they have and which statements they cite.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::tables::TestName;

pub(crate) struct Sources {
    files: Vec<Source>,
}

struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Sources {
    pub(crate) fn read() -> Self {
        let mut files = Vec::new();
        for folder in ["src", "tests"] {
            collect(&repository().join(folder), &mut files);
        }
        Self { files }
    }

    pub(crate) fn has_test(&self, test: &TestName) -> bool {
        let file = self.files.iter().find(|source| source.path == test.file);
        file.is_some_and(|source| tests(&source.text).any(|name| name == test.function))
    }

    /// Statements cited in square brackets in what is not a test.
    pub(crate) fn cited_in_code(&self) -> BTreeSet<String> {
        let code = self.files.iter().filter(|source| source.path.starts_with("src/"));
        let code = code.filter(|source| !source.path.ends_with("tests.rs"));
        code.flat_map(|source| without_tests(&source.text)).flat_map(cited).map(str::to_owned).collect()
    }

    /// Every statement named anywhere, with its place.
    pub(crate) fn citations(&self) -> impl Iterator<Item = (String, String)> {
        self.files.iter().flat_map(|Source { path, text }| {
            text.lines().enumerate().flat_map(move |(index, line)| {
                named(line).map(move |id| (format!("{path}:{}", index + 1), id.to_owned()))
            })
        })
    }
}

/// Functions with a test attribute, and not ignored, as `rustfmt` lays them out.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_test, mut is_ignored) = (false, false);
    text.lines().map(str::trim_start).filter_map(move |line| {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_ignored |= line.starts_with("#[ignore");
            return None;
        }
        if line.starts_with("//") {
            return None;
        }
        let runs = is_test && !is_ignored;
        (is_test, is_ignored) = (false, false);
        let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        rest.split(['(', '<']).next().filter(|_| runs)
    })
}

/// Tests stand at the end of a file, behind a module's attribute.
fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}

/// The ids in a line that stand in square brackets.
fn cited(line: &str) -> impl Iterator<Item = &str> {
    line.split("[MQTT-").skip(1).filter_map(|rest| rest.split_once(']')).map(|(id, _)| id)
}

/// The ids in a line, in brackets or not.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("MQTT-").skip(1).filter_map(|rest| {
        let end = rest.find(|character: char| !(character.is_ascii_digit() || "-.".contains(character)));
        let id = rest[..end.unwrap_or(rest.len())].trim_end_matches(['-', '.']);
        (id.starts_with(|first: char| first.is_ascii_digit()) && id.contains('-')).then_some(id)
    })
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // What a fuzzer built or found is not ours.
            if !["target", "corpus", "artifacts"].iter().any(|name| path.ends_with(name)) {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(repository()).unwrap().display().to_string();
            found.push(Source { path, text });
        }
    }
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn only_functions_that_run_as_tests_are_tests() {
    let text = "#[test]\nfn one() {\n#[tokio::test]\n/// Rule.\nasync fn two() {\nfn helper() {\n\
                #[test]\n#[ignore = \"slow\"]\nfn never() {\n    #[test]\n    fn any(x in 0..9) {\n\
                #[must_use]\nfn value() {\n#[test]\nconst X: u8 = 0;\nfn after() {\n";
    assert_eq!(tests(text).collect::<Vec<_>>(), ["one", "two", "any"]);
}

#[test]
fn a_citation_is_an_id_in_square_brackets() {
    let line = "// [MQTT-1.5.4-1], `[MQTT-3.1.2-24]`; MQTT-3.1.1 and MQTT-4.2-1.";
    assert_eq!(cited(line).collect::<Vec<_>>(), ["1.5.4-1", "3.1.2-24"]);
    assert_eq!(named(line).collect::<Vec<_>>(), ["1.5.4-1", "3.1.2-24", "4.2-1"]);
}

#[test]
fn what_stands_behind_the_code_is_not_code() {
    assert_eq!(without_tests("a\nb\n#[cfg(test)]\nmod tests {").collect::<Vec<_>>(), ["a", "b"]);
}
