//! Which test shows which numbered statement of MQTT 5.0, as tables that are checked against the sources.
//!
//! `statements.tsv` lists every statement: id, whom it binds (S server, C client, B both), one line in own words.
//! `v5/*.tsv` name the tests of those that bind a server, one file for each group of chapters; `exceptions.tsv`
//! says why a statement has none. `v3.tsv` is the same for where MQTT 3.1 and 3.1.1 differ from 5.0. Each statement of a table is cited in the code where it is applied.
//!
//! `links.tsv` does it for what EMQX tests its cluster linking with, `trust.tsv` for threats to trust between clusters.
//!
//! What is checked is that names exist. Whether a test would fail without its statement is for whoever reads it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod sources;
mod tables;

use std::collections::BTreeSet;

use crate::sources::Sources;
use crate::tables::Coverage;

#[test]
fn every_statement_that_binds_a_server_has_a_test_or_a_reason() {
    let exceptions = tables::exceptions();
    let covered: BTreeSet<String> = tables::coverage().into_iter().map(|row| row.id).collect();
    let mut errors = Vec::new();
    for statement in tables::statements().iter().filter(|statement| statement.binds_server()) {
        let id = &statement.id;
        if !covered.contains(id) && !exceptions.contains(id) {
            errors.push(format!("{id} has no test: {}", statement.summary));
        }
    }
    assert_none(&errors);
}

#[test]
fn tables_name_each_statement_once_and_in_its_file() {
    let known = known_ids();
    let mut seen = BTreeSet::new();
    let mut errors = Vec::new();
    for id in tables::exceptions() {
        if !known.contains(&id) {
            errors.push(format!("exceptions.tsv: {id} is no statement"));
        }
        if !seen.insert(id.clone()) {
            errors.push(format!("exceptions.tsv: {id} stands there twice"));
        }
    }
    for Coverage { id, file, .. } in tables::coverage() {
        if !known.contains(&id) {
            errors.push(format!("v5/{file}: {id} is no statement"));
        } else if tables::file_of(&id) != file {
            errors.push(format!("v5/{file}: {id} belongs into v5/{}", tables::file_of(&id)));
        }
        if !seen.insert(id.clone()) {
            errors.push(format!("v5/{file}: {id} has a row already"));
        }
    }
    assert_none(&errors);
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = Sources::read();
    let mut errors = Vec::new();
    for row in tables::coverage() {
        for test in row.tests.iter().filter(|test| !sources.has_test(test)) {
            errors.push(format!("v5/{}: {}: no test {test}", row.file, row.id));
        }
    }
    for row in tables::differences() {
        for test in row.tests.iter().filter(|test| !sources.has_test(test)) {
            errors.push(format!("v3.tsv: {}: no test {test}", row.what));
        }
    }
    assert_none(&errors);
}

#[test]
fn every_case_of_emqxs_links_has_a_test_that_exists_or_a_reason() {
    let (sources, cases) = (Sources::read(), tables::link_cases());
    let numbers: Vec<usize> = cases.iter().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=45).collect::<Vec<_>>());
    let mut errors = Vec::new();
    for case in &cases {
        for test in case.tests.iter().filter(|test| !sources.has_test(test)) {
            errors.push(format!("links.tsv: {}: no test {test}", case.number));
        }
    }
    assert_none(&errors);
}

#[test]
fn every_threat_to_trust_has_tests_that_exist() {
    let (sources, mut errors) = (Sources::read(), Vec::new());
    for (what, tests) in tables::threats() {
        for test in tests.iter().filter(|test| !sources.has_test(test)) {
            errors.push(format!("trust.tsv: {what}: no test {test}"));
        }
    }
    assert_none(&errors);
}

#[test]
fn every_covered_statement_is_cited_where_it_is_applied() {
    let cited = Sources::read().cited_in_code();
    let mut errors = Vec::new();
    for row in tables::coverage().iter().filter(|row| !cited.contains(&row.id)) {
        errors.push(format!("[MQTT-{}] is cited nowhere in the code of src", row.id));
    }
    assert_none(&errors);
}

#[test]
fn only_statements_that_exist_are_cited() {
    let known = known_ids();
    let mut errors = Vec::new();
    for (place, id) in Sources::read().citations().filter(|(_, id)| !known.contains(id)) {
        errors.push(format!("{place}: MQTT-{id} is no statement"));
    }
    assert_none(&errors);
}

fn known_ids() -> BTreeSet<String> {
    tables::statements().into_iter().map(|statement| statement.id).collect()
}

fn assert_none(errors: &[String]) {
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}
