//! The table of classes: it is complete, and what it names exists.

use std::fs;
use std::path::Path;

const CLASSES: &str = include_str!("classes.tsv");

#[test]
fn every_class_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = String::new();
    for line in CLASSES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [class, what, test] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}");
        };
        assert!(class.len() == 1 && !what.is_empty(), "{line}");
        seen.push_str(class);
        let (file, function) = test.split_once("::").expect("file::function");
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {function}(")), "{class}: no {function} in {file}");
    }
    for class in 'A'..='O' {
        assert!(seen.contains(class), "class {class} has no test");
    }
}
