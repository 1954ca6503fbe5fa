//! The seeds of every fuzz target, as they are and mutated, on any compiler: what the fuzzer found once stays found.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod mutate;
mod targets;

use std::fs;
use std::path::PathBuf;

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
