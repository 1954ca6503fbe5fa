//! The tables as values. A line that cannot be read is an error of the test, with its place.

use std::fmt;
use std::fs;
use std::path::PathBuf;

/// One numbered statement of the standard.
#[derive(Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) id: String,
    mark: char,
    pub(crate) summary: String,
}

impl Statement {
    pub(crate) fn binds_server(&self) -> bool {
        matches!(self.mark, 'S' | 'B')
    }
}

/// The tests of one statement.
#[derive(Debug, PartialEq)]
pub(crate) struct Coverage {
    pub(crate) id: String,
    pub(crate) tests: Vec<TestName>,
    /// The name of the table it stands in.
    pub(crate) file: String,
}

/// Where the older versions differ from 5.0.
#[derive(Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) what: String,
    pub(crate) tests: Vec<TestName>,
}

/// One case that EMQX tests its links with.
#[derive(Debug, PartialEq)]
pub(crate) struct LinkCase {
    pub(crate) number: usize,
    /// None if it does not apply; the row says why.
    pub(crate) tests: Vec<TestName>,
}

/// A test function, written `tests/broker/will.rs#name`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TestName {
    pub(crate) file: String,
    pub(crate) function: String,
}

impl fmt::Display for TestName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}#{}", self.file, self.function)
    }
}

/// The table of a statement: chapters 1 and 2 share one, chapter 3 has one for each packet, the others one each.
pub(crate) fn file_of(id: &str) -> String {
    let mut numbers = id.split(['.', '-']);
    match (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) {
        ("1" | "2", _) => "1-2.tsv".to_owned(),
        ("3", packet) => format!("3.{packet}.tsv"),
        (chapter, _) => format!("{chapter}.tsv"),
    }
}

pub(crate) fn statements() -> Vec<Statement> {
    read("statements.tsv", statement)
}

/// The rows of all tables under `v5`.
pub(crate) fn coverage() -> Vec<Coverage> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder().join("v5")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        rows.extend(read(&format!("v5/{file}"), |line| coverage_row(line, &file)));
    }
    rows
}

/// Where MQTT 3.1 and 3.1.1 differ from 5.0.
pub(crate) fn differences() -> Vec<Difference> {
    read("v3.tsv", difference)
}

/// What EMQX tests its links with.
pub(crate) fn link_cases() -> Vec<LinkCase> {
    read("links.tsv", link_case)
}

/// Threats to trust between clusters, each with its tests.
pub(crate) fn threats() -> Vec<(String, Vec<TestName>)> {
    read("trust.tsv", threat)
}

/// Statements without a test; each row gives a reason.
pub(crate) fn exceptions() -> Vec<String> {
    read("exceptions.tsv", exception)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn read<T>(file: &str, row: impl Fn(&str) -> Result<T, &'static str>) -> Vec<T> {
    let text = fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    rows(&text, row).unwrap_or_else(|error| panic!("{file}:{error}"))
}

/// Every line but comments and empty ones; an error begins with the number of its line.
fn rows<T>(text: &str, row: impl Fn(&str) -> Result<T, &'static str>) -> Result<Vec<T>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(index, line)| row(line).map_err(|error| format!("{}: {error}", index + 1))).collect()
}

fn statement(line: &str) -> Result<Statement, &'static str> {
    let [id, mark, summary] = columns(line)?;
    let mark = match mark {
        "S" => 'S',
        "C" => 'C',
        "B" => 'B',
        _ => return Err("the mark is none of S, C and B"),
    };
    Ok(Statement { id: id.to_owned(), mark, summary: summary.to_owned() })
}

fn coverage_row(line: &str, file: &str) -> Result<Coverage, &'static str> {
    let [id, tests] = columns(line)?;
    Ok(Coverage { id: id.to_owned(), tests: test_names(tests)?, file: file.to_owned() })
}

fn difference(line: &str) -> Result<Difference, &'static str> {
    let [versions, what, tests] = columns(line)?;
    if !["3.1", "3.1.1", "3.1, 3.1.1"].contains(&versions) {
        return Err("the versions are 3.1, 3.1.1 or both");
    }
    Ok(Difference { what: what.to_owned(), tests: test_names(tests)? })
}

fn link_case(line: &str) -> Result<LinkCase, &'static str> {
    let [number, tests, _what] = columns(line)?;
    let number = number.parse().map_err(|_| "the case is no number")?;
    Ok(LinkCase { number, tests: if tests == "-" { Vec::new() } else { test_names(tests)? } })
}

fn threat(line: &str) -> Result<(String, Vec<TestName>), &'static str> {
    let [section, what, tests] = columns(line)?;
    Ok((format!("{section} {what}"), test_names(tests)?))
}

fn exception(line: &str) -> Result<String, &'static str> {
    let [id, _reason] = columns(line)?;
    Ok(id.to_owned())
}

fn test_names(text: &str) -> Result<Vec<TestName>, &'static str> {
    text.split(',').map(|test| test_name(test.trim())).collect()
}

fn test_name(text: &str) -> Result<TestName, &'static str> {
    match text.split_once('#') {
        Some((file, function)) if file.ends_with(".rs") && !function.is_empty() => {
            Ok(TestName { file: file.to_owned(), function: function.to_owned() })
        }
        _ => Err("a test is written path/to/file.rs#function"),
    }
}

fn columns<const N: usize>(line: &str) -> Result<[&str; N], &'static str> {
    let columns: Vec<&str> = line.split('\t').collect();
    let columns = <[&str; N]>::try_from(columns).map_err(|_| "another number of columns")?;
    if columns.iter().any(|column| column.trim().is_empty()) { Err("an empty column") } else { Ok(columns) }
}

#[test]
fn a_statement_has_an_id_a_mark_and_a_summary() {
    let read = statement("1.5.4-1\tB\tstrings are well-formed").unwrap();
    assert!(read.binds_server());
    assert_eq!((read.id.as_str(), read.summary.as_str()), ("1.5.4-1", "strings are well-formed"));
    assert!(!statement("3.1.2-20\tC\tclient pings").unwrap().binds_server());
    assert!(statement("1.5.4-1\tX\tnobody").is_err());
    assert!(statement("1.5.4-1\tB").is_err());
    assert!(statement("1.5.4-1\tB\t").is_err());
}

#[test]
fn a_row_names_one_or_more_tests() {
    let row = coverage_row("3.1.2-8\ttests/broker/will.rs#one, src/session/tests.rs#two", "3.1.tsv").unwrap();
    let names: Vec<String> = row.tests.iter().map(TestName::to_string).collect();
    assert_eq!(names, ["tests/broker/will.rs#one", "src/session/tests.rs#two"]);
    assert_eq!((row.id.as_str(), row.file.as_str()), ("3.1.2-8", "3.1.tsv"));
    for wrong in ["3.1.2-8", "3.1.2-8\t", "3.1.2-8\tone", "3.1.2-8\ta.rs#", "3.1.2-8\ta.rs#b,", "\ta.rs#b"] {
        assert!(coverage_row(wrong, "3.1.tsv").is_err(), "{wrong:?}");
    }
}

#[test]
fn a_difference_is_of_known_versions() {
    let read = difference("3.1, 3.1.1\tno AUTH\ta.rs#b").unwrap();
    assert_eq!((read.what.as_str(), read.tests.len()), ("no AUTH", 1));
    for wrong in ["5.0\tno AUTH\ta.rs#b", "3.1\tno AUTH\t", "3.1\tno AUTH"] {
        assert!(difference(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn comments_are_left_out_and_an_error_names_its_line() {
    assert_eq!(rows("# ids\n\n4.2-1\tbelow us\n", exception).unwrap(), ["4.2-1"]);
    assert_eq!(rows("# ids\n\n4.2-1\n", exception).unwrap_err(), "3: another number of columns");
}

#[test]
fn a_statement_belongs_into_the_table_of_its_chapter() {
    let pairs =
        [("1.5.4-1", "1-2.tsv"), ("2.1.3-1", "1-2.tsv"), ("3.1.0-1", "3.1.tsv"), ("3.14.2-1", "3.14.tsv")];
    for (id, file) in pairs.into_iter().chain([("4.2-1", "4.tsv"), ("6.0.0-1", "6.tsv")]) {
        assert_eq!(file_of(id), file, "{id}");
    }
}
