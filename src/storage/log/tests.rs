//! The log on files that fail in every way, by seed; and rules of its own.

use std::collections::BTreeSet;

use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::battery::Dump;
use crate::storage::battery::Owned;
use crate::storage::battery::SMALL;
use crate::storage::battery::dump;
use crate::storage::files::Files;
use crate::storage::files::faulty::Dice;
use crate::storage::files::faulty::Fault;
use crate::storage::files::faulty::Faulty;
use crate::storage::group::Group;
use crate::storage::log::Log;
use crate::storage::log::Options;
use crate::storage::log::format;
use crate::storage::memory::Memory;

const SALT: u32 = 3;

fn open(files: &Faulty) -> Log<Faulty> {
    Log::with(files.clone(), SMALL, SALT).unwrap()
}

/// The key by which a group is seen to be there; no other group touches it.
fn mark(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A group that depends on nothing but its number: a body of its own, two entries that refer to it, a name that every group
/// overwrites, and the end of older ones.
fn group(number: u64) -> Group {
    let mut dice = Dice::new(number);
    let mut group = Group::default();
    let (body, first, second) = (number * 10, number * 10 + 1, number * 10 + 2);
    let payload = vec![number as u8; dice.below(150)];
    group.put(Table::Incarnation, Key::Name(&mark(number)), None, |_| ());
    group.body(body, &[&payload]);
    let value = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&mark(number));
    group.put(Table::Owed, Key::Number(first), Some(body), value);
    group.put(Table::Retained, Key::Number(second), Some(body), value);
    group.put(Table::Session, Key::Name(b"shared"), None, value);
    group.delete(Table::Owed, Key::Number(number.saturating_sub(3) * 10 + 1));
    if dice.one_in(4) {
        group.delete(Table::Retained, Key::Number(number.saturating_sub(dice.below(5) as u64) * 10 + 2));
    }
    group
}

/// Which groups are there.
fn marks(dump: &Dump) -> BTreeSet<u64> {
    let names = dump.keys().filter_map(|(table, key)| match key {
        Owned::Name(name) if *table == Table::Incarnation => Some(name),
        _ => None,
    });
    names.map(|name| u64::from_be_bytes(name.as_slice().try_into().unwrap())).collect()
}

/// What there is after exactly these groups.
fn after(groups: &BTreeSet<u64>) -> Dump {
    let memory = Memory::default();
    groups.iter().for_each(|number| memory.commit(&mut group(*number), true).unwrap());
    dump(&memory)
}

/// That everything in it is what these groups left, whole and in order.
fn check(log: &Log<Faulty>, context: &str) -> BTreeSet<u64> {
    let found = dump(log);
    let groups = marks(&found);
    let expected = after(&groups);
    let different = found.iter().find(|(key, value)| expected.get(key) != Some(value));
    assert!(different.is_none() && found.len() == expected.len(), "{context}: {different:?}");
    groups
}

/// What became of groups so far.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeSet<u64>,
    /// Not acknowledged, and nothing was acknowledged afterwards.
    refused: BTreeSet<u64>,
}

impl Ledger {
    fn note(&mut self, number: u64, committed: bool) {
        if committed {
            self.acknowledged.insert(number);
            self.refused.clear();
        } else {
            self.refused.insert(number);
        }
    }

    /// That what is there is what was acknowledged, and at most the last that was refused. It counts from now on.
    fn agree(&mut self, groups: &BTreeSet<u64>, context: &str) {
        let lost: Vec<_> = self.acknowledged.difference(groups).collect();
        assert!(lost.is_empty(), "{context}: {lost:?} were acknowledged");
        let back: Vec<_> =
            groups.difference(&self.acknowledged).filter(|group| !self.refused.contains(group)).collect();
        assert!(back.is_empty(), "{context}: {back:?} never counted");
        self.acknowledged.clone_from(groups);
        self.refused.clear();
    }
}

/// Whatever fails, in whatever order, and whenever the power goes or the process dies: what was acknowledged is there
/// whole and in order, what was refused is there whole or not at all.
#[test]
fn no_fault_takes_what_was_acknowledged() {
    let mut failures = 0;
    for seed in 0..600 {
        let mut dice = Dice::new(seed);
        let mut files = Faulty::new(seed);
        let mut log = open(&files);
        let mut ledger = Ledger::default();
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.one_in(3)).collect();
        files.set_faults(faults.iter().copied());
        for number in 1..=40 {
            let context = format!("seed {seed}, group {number}, {faults:?}");
            let mut group = group(number);
            let attempts = 1 + dice.below(4);
            let committed = (0..attempts).any(|_| log.commit(&mut group, true).is_ok());
            ledger.note(number, committed);
            let _ = log.maintain();
            if dice.one_in(8) {
                failures += files.failures();
                files = match dice.below(3) {
                    0 => files.kill(),
                    1 => files.power_cut(true),
                    _ => files.power_cut(false),
                };
                files.set_faults([]);
                log = open(&files);
                ledger.agree(&check(&log, &context), &context);
                assert_eq!(log.usage().set_aside, 0, "{context}");
                files.set_faults(faults.iter().copied());
            }
        }
        files.set_faults([]);
        assert!(ledger.acknowledged.is_subset(&check(&log, &format!("seed {seed}"))));
        drop(log);
        ledger.agree(&check(&open(&files), "closed and opened"), &format!("seed {seed}"));
    }
    assert!(failures > 5_000, "{failures} operations failed");
}

/// What could not be synchronised looks as if it had been, to the process that comes after.
#[test]
fn what_the_process_before_could_not_synchronise_is_written_again() {
    let mut failures = 0;
    for seed in 0..3_000 {
        let files = Faulty::new(seed);
        let log = open(&files);
        files.set_faults([Fault::Sync, Fault::Cut, Fault::Create, Fault::Remove]);
        let refused = log.commit(&mut group(1), true).is_err();
        failures += usize::from(refused);
        files.set_faults([]);
        let files = files.kill();
        let log = open(&files);
        let before = check(&log, "killed");
        log.commit(&mut group(2), true).unwrap();
        let groups = check(&open(&files.power_cut(true)), "after the power cut");
        assert!(groups.contains(&2) && before.is_subset(&groups), "seed {seed}: {before:?}, {groups:?}");
    }
    assert!(failures > 20, "{failures} commits failed");
}

/// Without synchronisation a killed process loses nothing, and a power cut loses groups from some one on.
#[test]
fn what_was_not_synchronised_is_lost_from_some_group_on() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let files = Faulty::new(seed);
        let log = open(&files);
        let (mut last, count) = (0, 1 + dice.below(40) as u64);
        for number in 1..=count {
            let sync = dice.one_in(6);
            log.commit(&mut group(number), sync).unwrap();
            last = if sync { number } else { last };
        }
        let holes = dice.one_in(2);
        let after = files.power_cut(holes);
        let groups = check(&open(&after), &format!("seed {seed}"));
        let contiguous = groups.iter().copied().eq(1..=groups.len() as u64);
        assert!(
            contiguous && groups.len() as u64 >= last,
            "seed {seed}: {groups:?} of {count}, {last} synchronised"
        );
    }
}

/// A disk that lies about synchronisation loses what it lied about, at the end of a file; what is there is whole and in order.
#[test]
fn a_disk_that_lies_loses_only_what_it_lied_about() {
    let mut lost = 0;
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let files = Faulty::new(seed);
        let log = open(&files);
        let honest = dice.below(20) as u64;
        for number in 1..=40 {
            if number == honest + 1 {
                files.set_lies();
            }
            log.commit(&mut group(number), true).unwrap();
        }
        let after = files.power_cut(false);
        let groups = check(&open(&after), &format!("seed {seed}"));
        assert!(
            (1..=honest).all(|number| groups.contains(&number)),
            "seed {seed}: {groups:?}, honest to {honest}"
        );
        lost += 40 - groups.len();
    }
    assert!(lost > 0, "it never lied");
}

#[test]
fn a_last_group_that_is_torn_at_any_byte_is_as_if_it_had_never_been() {
    let files = Faulty::new(1);
    let log = Log::with(files.clone(), Options::default(), SALT).unwrap();
    (1..=3).for_each(|number| log.commit(&mut group(number), true).unwrap());
    let whole = log.usage().bytes as usize;
    log.commit(&mut group(4), true).unwrap();
    let name = format::name_of(1);
    let bytes = files.kill().read(&name);
    for length in whole..bytes.len() {
        for zeros in [0, 100] {
            let mut torn = bytes[..length].to_vec();
            torn.resize(length + zeros, 0);
            if torn.starts_with(&bytes) {
                // What is missing was zeros.
                continue;
            }
            let files = Faulty::new(2);
            files.write(&name, &torn);
            let log = open(&files);
            assert!(check(&log, "torn").into_iter().eq(1..=3), "{length} of {} bytes", bytes.len());
            assert_eq!((files.read(&name).len(), log.usage().set_aside), (whole, 0));
            log.commit(&mut group(5), true).unwrap();
            let groups = check(&open(&files.kill()), "torn and gone on");
            assert!(groups.into_iter().eq([1, 2, 3, 5]));
        }
    }
}

/// Writes groups, with and without space given back, and gives the files closed and what is in them.
fn written(seed: u64) -> (Faulty, Dump) {
    let files = Faulty::new(seed);
    let log = open(&files);
    for number in 1..=20 {
        log.commit(&mut group(number), true).unwrap();
        if seed.is_multiple_of(2) {
            log.maintain().unwrap();
        }
    }
    let before = dump(&log);
    drop(log);
    (files, before)
}

/// What is different, as numbers of bodies and as other entries.
fn differences(before: &Dump, after: &Dump) -> (BTreeSet<Option<u64>>, usize) {
    let (mut bodies, mut entries) = (BTreeSet::new(), 0);
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for key in keys {
        match (before.get(key), after.get(key)) {
            (Some((value, body, _)), Some((found, refers, Err(())))) if (value, body) == (found, refers) => {
                bodies.insert(*body);
            }
            (before, after) => entries += usize::from(before != after),
        }
    }
    (bodies, entries)
}

#[test]
fn a_flipped_bit_costs_at_most_the_record_that_it_is_in_and_is_reported() {
    let mut harmless = 0;
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let (files, before) = written(seed);
        let names = files.list().unwrap();
        let name = &names[dice.below(names.len())];
        let mut bytes = files.read(name);
        let bit = dice.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        files.write(name, &bytes);
        let context = format!("seed {seed}, bit {bit} of {name}, {} bytes", bytes.len());
        let log = open(&files);
        let (bodies, entries) = differences(&before, &dump(&log));
        assert!(bodies.len() + entries <= 1, "{context}: {bodies:?}, {entries}");
        let mark_only = name == names.last().unwrap() && bit / 8 >= bytes.len() - format::END_BYTES;
        assert!(log.usage().set_aside == 1 || mark_only, "{context}: {:?}", log.usage());
        assert!(
            mark_only || files.list().unwrap().iter().any(|name| name.starts_with("damaged/")),
            "{context}"
        );
        harmless += usize::from(bodies.len() + entries == 0);
        // It goes on, and what was set aside stays so.
        let after = dump(&log);
        log.commit(&mut Group::default(), true).unwrap();
        while log.maintain().unwrap() {}
        assert_eq!(dump(&log), after, "{context}");
    }
    assert!(harmless < 300, "{harmless} of them hit nothing that mattered");
}

#[test]
fn a_file_that_is_missing_between_others_is_reported_and_the_rest_is_there() {
    let (files, before) = written(1);
    let names = files.list().unwrap();
    files.remove(&names[1]).unwrap();
    let log = open(&files);
    let (found, usage) = (dump(&log), log.usage());
    assert_eq!((usage.set_aside, usage.segments as usize), (1, names.len() - 1));
    assert!(marks(&found).len() < marks(&before).len() && marks(&found).contains(&20));
}

#[test]
fn a_file_without_a_header_is_set_aside_and_the_rest_is_there() {
    for damaged in 0..3 {
        let (files, before) = written(1);
        let names = files.list().unwrap();
        let name = [&names[0], &names[1], names.last().unwrap()][damaged];
        let mut bytes = files.read(name);
        bytes[..format::HEADER_BYTES].fill(0xFF);
        files.write(name, &bytes);
        let log = open(&files);
        let found = dump(&log);
        assert!(marks(&found).is_subset(&marks(&before)) && found.len() > 10);
        assert_eq!(files.read(&format!("damaged/{name}.0")), bytes);
        log.commit(&mut group(30), true).unwrap();
        assert!(marks(&dump(&open(&files.kill()))).contains(&30));
    }
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_changed() {
    let (files, _) = written(1);
    let names = files.list().unwrap();
    let name = names.last().unwrap();
    let mut bytes = files.read(name);
    let (header, _) = format::Header::decode(&bytes, format::number_of(name).unwrap()).unwrap();
    let newer = format::Header { format: 2, ..header }.encode();
    bytes[..newer.len()].copy_from_slice(&newer);
    files.write(name, &bytes);
    let error = Log::with(files.clone(), SMALL, SALT).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("format 2") && error.contains("up to 1"), "{error}");
    assert_eq!((files.list().unwrap(), files.read(name)), (names.clone(), bytes));
}

/// Everything in it, as text.
fn text(dump: &Dump) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut text = String::new();
    for ((table, key), (value, body, bytes)) in dump {
        let key = match key {
            Owned::Number(number) => number.to_string(),
            Owned::Name(name) => format!("x{}", hex(name)),
        };
        let bytes = bytes.as_ref().unwrap().as_deref().map_or_else(|| "-".to_owned(), hex);
        text += &format!("{} {key} x{} {} {bytes}\n", table.name(), hex(value), body.unwrap_or(0));
    }
    text
}

/// An image that was written once: several segments, of which the first was given back, with what a killed broker leaves at
/// the end. `TOMBOLO_STORE_IMAGE=1` makes it, where there is none.
#[test]
fn an_image_of_the_first_format_is_read_for_ever() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1");
    if !folder.exists() && std::env::var_os("TOMBOLO_STORE_IMAGE").is_some() {
        std::fs::create_dir(&folder).unwrap();
        let files = Faulty::new(1);
        let log = open(&files);
        for number in 1..=12 {
            log.commit(&mut group(number), true).unwrap();
            log.maintain().unwrap();
        }
        std::fs::write(folder.join("expected.txt"), text(&dump(&log))).unwrap();
        let torn = files.kill();
        let names = torn.list().unwrap();
        for name in &names {
            let mut bytes = torn.read(name);
            if Some(name) == names.last() {
                bytes.extend(&bytes[format::HEADER_BYTES..format::HEADER_BYTES + 50].to_vec());
            }
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let files = Faulty::new(1);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        files.write(path.file_name().unwrap().to_str().unwrap(), &std::fs::read(&path).unwrap());
    }
    let log = open(&files);
    assert_eq!(text(&dump(&log)), String::from_utf8(files.read("expected.txt")).unwrap());
    assert_eq!((log.usage().set_aside, log.last_number()), (0, 122));
    assert!(
        log.usage().segments > 1 && log.contents.index.read().segments().first_key_value().unwrap().0 > &1
    );
    log.commit(&mut group(13), true).unwrap();
}

#[test]
fn over_its_limit_it_takes_what_deletes_and_comes_back() {
    let files = Faulty::new(1);
    let options = Options { bytes_max: 4_000, ..SMALL };
    let log = Log::with(files, options, SALT).unwrap();
    let put = |number| {
        let mut group = Group::default();
        group.put(Table::Owed, Key::Number(number), None, |bytes| bytes.extend([0; 100]));
        let result = log.commit(&mut group, true);
        while log.maintain().unwrap() {}
        result
    };
    let full = (1..).find_map(|number| put(number).err().map(|error| (number, error)));
    let (number, error) = full.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(number > 15 && log.usage().bytes <= 4_000 + 600, "{number}, {:?}", log.usage());
    assert_eq!(log.usage().entries, number - 1, "nothing of what was refused is there");
    let mut group = Group::default();
    (1..number / 2).for_each(|number| group.delete(Table::Owed, Key::Number(number)));
    log.commit(&mut group, true).unwrap();
    while log.maintain().unwrap() {}
    assert!((100..105).all(|number| put(number).is_ok()), "{:?}", log.usage());
}

#[test]
fn space_that_nobody_wants_is_given_back() {
    let files = Faulty::new(1);
    let log = open(&files);
    for number in 1..=200 {
        let mut group = Group::default();
        group.put(Table::Owed, Key::Number(number), None, |bytes| bytes.extend([0; 100]));
        if number > 5 {
            group.delete(Table::Owed, Key::Number(number - 5));
        }
        log.commit(&mut group, true).unwrap();
        log.maintain().unwrap();
        assert!(log.usage().bytes < 3_500, "{:?}", log.usage());
    }
    let usage = log.usage();
    let on_disk: usize = files.list().unwrap().iter().map(|name| files.read(name).len()).sum();
    assert_eq!((usage.bytes, usage.entries, usage.set_aside), (on_disk as u64, 5, 0));
}

#[test]
fn what_is_wanted_is_counted_the_same_after_a_start() {
    for seed in 0..10 {
        let (files, _) = written(seed);
        let files = files.kill();
        let usage = open(&files).usage();
        let log = open(&files);
        let places = || {
            let index = log.contents.index.read();
            index
                .segments()
                .iter()
                .map(|(number, segment)| {
                    let bytes: u64 =
                        index.places_in(*number).iter().map(|place| u64::from(place.length)).sum();
                    assert_eq!(segment.live_bytes, bytes, "segment {number}");
                    bytes
                })
                .sum::<u64>()
        };
        assert_eq!((usage.live_bytes, log.usage().live_bytes), (places(), places()));
    }
}
