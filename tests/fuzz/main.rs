//! The seeds of every fuzz target, as they are and mutated, on any compiler: what the fuzzer found once stays found.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod mutate;
mod targets;

use std::fs;
use std::path::PathBuf;

use tombolo::mqtt::packet::QoS;
use tombolo::trust::Token;
use tombolo::trust::book::Book;
use tombolo::trust::enroll::Answer;
use tombolo::trust::enroll::Request;
use tombolo::trust::rotation::Statement;

use crate::mutate::Dice;
use crate::mutate::mutated;
use crate::targets::TARGETS;

/// Mutations of each seed.
const MUTATIONS: usize = 200;

fn seeds_of(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_target_passes_its_seeds_and_their_mutations() {
    for (name, target) in TARGETS {
        let seeds = seeds_of(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (_, seed) in &seeds {
            assert!(seed.len() <= 4096, "{name}: seeds are small");
            target(seed);
            let mut dice = Dice(seed.len() as u64);
            for _ in 0..MUTATIONS {
                target(&mutated(seed, &mut dice));
            }
        }
        println!("{name}: {} seeds, {} mutations", seeds.len(), seeds.len() * MUTATIONS);
    }
}

/// What version 1 has written of trust is read by every later one.
#[test]
fn a_book_of_the_first_version_is_read_for_ever() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let seed = |name: &str| fs::read(folder.join(name)).unwrap();
    let text = |name| String::from_utf8(seed(name)).unwrap();
    let book = Book::from_json(&text("trust_book/full")).unwrap();
    let states: Vec<_> = book.identities().map(|one| one.shown_state().name()).collect();
    assert_eq!(states, ["ROTATING", "PENDING", "ACTIVE"]);
    assert_eq!((book.tokens().len(), book.groups().count(), book.outbound().len()), (2, 2, 1));
    assert!(book.rights_of_link("B").accepts("t/1", QoS::AtLeastOnce));
    assert_eq!(Token::parse(&text("link_token/carried")).unwrap().issued_for, "B");
    Request::parse(&seed("enrol_request/request")).unwrap();
    Answer::parse(&seed("enrol_answer/ok")).unwrap();
    for name in ["enrol_answer/rotation", "enrol_answer/removal"] {
        Statement::parse(&seed(name)).unwrap();
    }
}
