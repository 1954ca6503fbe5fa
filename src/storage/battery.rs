//! What every storage has to do, as tests that are made for each of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::storage::Key;
use crate::storage::Storage;
use crate::storage::Table;
use crate::storage::group::Group;
use crate::storage::log::Log;
use crate::storage::log::Options;
use crate::storage::memory::Memory;

/// A key that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owned {
    Number(u64),
    Name(Vec<u8>),
}

impl Owned {
    pub(crate) fn key(&self) -> Key<'_> {
        match self {
            Self::Number(number) => Key::Number(*number),
            Self::Name(name) => Key::Name(name),
        }
    }
}

/// Everything in a storage.
pub(crate) type Dump = BTreeMap<(Table, Owned), Stored>;

/// What an entry is, the number of the body that it refers to, and that; an error if it is damaged.
pub(crate) type Stored = (Vec<u8>, Option<u64>, Result<Option<Vec<u8>>, ()>);

/// Reads everything.
pub(crate) fn dump(storage: &dyn Storage) -> Dump {
    let mut dump = Dump::new();
    for table in Table::ALL {
        let mut found = Vec::new();
        storage
            .for_each(table, &mut |entry| {
                let key = match entry.key {
                    Key::Number(number) => Owned::Number(number),
                    Key::Name(name) => Owned::Name(name.to_vec()),
                };
                found.push(((table, key), entry.value.to_vec(), entry.body, entry.body_bytes));
            })
            .unwrap();
        for (key, value, body, body_bytes) in found {
            let bytes = body.map_or(Ok(None), |number| storage.body(number).map_err(drop));
            let known = bytes.as_ref().map_or(0, |bytes| bytes.as_ref().map_or(0, Vec::len));
            assert_eq!(body_bytes as usize, known, "{key:?}");
            assert!(dump.insert(key, (value, body, bytes)).is_none(), "given twice");
        }
    }
    dump
}

/// A storage that can be closed and opened again.
pub(crate) trait Subject {
    fn open(&mut self) -> Box<dyn Storage>;

    fn reopen(&mut self, storage: Box<dyn Storage>) -> Box<dyn Storage> {
        drop(storage);
        self.open()
    }
}

#[derive(Default)]
struct InMemory;

impl Subject for InMemory {
    fn open(&mut self) -> Box<dyn Storage> {
        Box::<Memory>::default()
    }

    fn reopen(&mut self, storage: Box<dyn Storage>) -> Box<dyn Storage> {
        storage
    }
}

struct OnDisk {
    folder: TempDir,
    options: Options,
}

impl OnDisk {
    fn new(options: Options) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options }
    }
}

impl Subject for OnDisk {
    fn open(&mut self) -> Box<dyn Storage> {
        Box::new(Log::open(&self.folder.path().join("store"), self.options).unwrap())
    }
}

/// Segments that are full after a few groups, and given back soon.
pub(crate) const SMALL: Options = Options { segment_bytes: 600, slack_bytes: 500, bytes_max: u64::MAX };

macro_rules! battery {
    ($($rule:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $rule() { super::$rule(&mut super::InMemory); })*
        }
        mod log {
            $(#[test] fn $rule() { super::$rule(&mut super::OnDisk::new(super::Options::default())); })*
        }
        mod log_of_small_segments {
            $(#[test] fn $rule() { super::$rule(&mut super::OnDisk::new(super::SMALL)); })*
        }
    };
}

battery!(
    what_is_put_is_there_afterwards,
    a_later_value_takes_the_place_of_an_earlier_one,
    a_body_lives_as_long_as_an_entry_that_refers_to_it,
    a_body_may_change_hands_within_a_group,
    numbers_and_names_and_tables_are_apart,
    the_last_number_is_never_forgotten,
    large_and_empty_things_are_kept,
    a_group_of_nothing_is_nothing,
    entries_outlive_any_number_of_changes_around_them,
    who_reads_does_not_wait_for_who_writes,
);

fn put(group: &mut Group, table: Table, key: Key<'_>, body: Option<u64>, value: &[u8]) {
    group.put(table, key, body, |bytes| bytes.extend_from_slice(value));
}

fn commit(storage: &dyn Storage, fill: impl FnOnce(&mut Group)) {
    let mut group = Group::default();
    fill(&mut group);
    storage.commit(&mut group, true).unwrap();
}

fn clean(storage: &dyn Storage) {
    while storage.maintain().unwrap() {}
}

fn what_is_put_is_there_afterwards(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    commit(&*storage, |group| {
        group.body(7, &[b"head", b"payload"]);
        put(group, Table::Owed, Key::Number(8), Some(7), b"owed");
        put(group, Table::Retained, Key::Name(b"a/b"), Some(7), b"retained");
        put(group, Table::Ban, Key::Name(b"x"), None, b"");
    });
    for _ in 0..2 {
        let dump = dump(&*storage);
        let body = Ok(Some(b"headpayload".to_vec()));
        assert_eq!(dump[&(Table::Owed, Owned::Number(8))], (b"owed".to_vec(), Some(7), body.clone()));
        assert_eq!(
            dump[&(Table::Retained, Owned::Name(b"a/b".to_vec()))],
            (b"retained".to_vec(), Some(7), body)
        );
        assert_eq!(dump[&(Table::Ban, Owned::Name(b"x".to_vec()))], (vec![], None, Ok(None)));
        assert_eq!((dump.len(), storage.usage().entries, storage.usage().bodies), (3, 3, 1));
        assert_eq!(storage.body(9).unwrap(), None);
        storage = subject.reopen(storage);
    }
}

fn a_later_value_takes_the_place_of_an_earlier_one(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    let key = Key::Name(b"key");
    for round in 0..50_u8 {
        commit(&*storage, |group| {
            put(group, Table::Session, key, None, b"overwritten in the same group");
            put(group, Table::Session, key, None, &[round]);
        });
    }
    for _ in 0..2 {
        let dump = dump(&*storage);
        assert_eq!(dump.values().map(|(value, ..)| value.clone()).collect::<Vec<_>>(), [[49]]);
        storage = subject.reopen(storage);
    }
    commit(&*storage, |group| group.delete(Table::Session, key));
    commit(&*storage, |group| group.delete(Table::Session, Key::Number(5)));
    let storage = subject.reopen(storage);
    assert!(dump(&*storage).is_empty());
}

fn a_body_lives_as_long_as_an_entry_that_refers_to_it(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    commit(&*storage, |group| {
        group.body(1, &[b"kept"]);
        group.body(2, &[b"nobody refers to it"]);
        put(group, Table::Owed, Key::Number(10), Some(1), b"");
    });
    assert_eq!(storage.usage().bodies, 1);
    commit(&*storage, |group| put(group, Table::Owed, Key::Number(11), Some(1), b""));
    commit(&*storage, |group| group.delete(Table::Owed, Key::Number(10)));
    storage = subject.reopen(storage);
    assert_eq!(storage.body(1).unwrap().as_deref(), Some(&b"kept"[..]));
    commit(&*storage, |group| put(group, Table::Owed, Key::Number(11), Some(1), b"the same again"));
    assert_eq!(storage.body(1).unwrap().as_deref(), Some(&b"kept"[..]));
    commit(&*storage, |group| put(group, Table::Owed, Key::Number(11), None, b""));
    for _ in 0..2 {
        assert_eq!((storage.body(1).unwrap(), storage.usage().bodies), (None, 0));
        storage = subject.reopen(storage);
    }
}

fn a_body_may_change_hands_within_a_group(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    commit(&*storage, |group| {
        group.body(1, &[b"moved"]);
        put(group, Table::Owed, Key::Number(10), Some(1), b"");
    });
    commit(&*storage, |group| {
        group.delete(Table::Owed, Key::Number(10));
        put(group, Table::Owed, Key::Number(11), Some(1), b"");
    });
    for _ in 0..2 {
        assert_eq!(storage.body(1).unwrap().as_deref(), Some(&b"moved"[..]));
        storage = subject.reopen(storage);
    }
}

fn numbers_and_names_and_tables_are_apart(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    let name = 5_u64.to_le_bytes();
    commit(&*storage, |group| {
        for table in Table::ALL {
            put(group, table, Key::Number(5), None, &[table as u8]);
            put(group, table, Key::Name(&name), None, &[table as u8, 1]);
        }
    });
    commit(&*storage, |group| group.delete(Table::Ban, Key::Number(5)));
    storage = subject.reopen(storage);
    let dump = dump(&*storage);
    assert_eq!(dump.len(), 2 * Table::ALL.len() - 1);
    for ((table, key), (value, ..)) in dump {
        assert_eq!(value[0], table as u8);
        assert_eq!(value.len() == 2, matches!(key, Owned::Name(_)));
    }
}

fn the_last_number_is_never_forgotten(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    assert_eq!(storage.last_number(), 0);
    commit(&*storage, |group| put(group, Table::Owed, Key::Number(1_000), None, b""));
    commit(&*storage, |group| {
        group.body(2_000, &[b""]);
        put(group, Table::Owed, Key::Number(3), Some(2_000), b"");
    });
    commit(&*storage, |group| {
        group.delete(Table::Owed, Key::Number(1_000));
        group.delete(Table::Owed, Key::Number(3));
    });
    for round in 0..100 {
        commit(&*storage, |group| put(group, Table::Ban, Key::Name(b"x"), None, &[round; 50]));
        clean(&*storage);
    }
    for _ in 0..2 {
        assert_eq!(storage.last_number(), 2_000);
        storage = subject.reopen(storage);
    }
}

fn large_and_empty_things_are_kept(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    let (name, payload) = (vec![b'n'; 65_535 + 64], vec![b'p'; 3_000_000]);
    commit(&*storage, |group| {
        group.body(1, &[&payload]);
        group.body(2, &[]);
        put(group, Table::Retained, Key::Name(&name), Some(1), &payload);
        put(group, Table::Retained, Key::Name(b""), Some(2), b"");
        put(group, Table::Owed, Key::Number(u64::MAX), None, b"");
    });
    for _ in 0..2 {
        let dump = dump(&*storage);
        assert_eq!(
            dump[&(Table::Retained, Owned::Name(name.clone()))],
            (payload.clone(), Some(1), Ok(Some(payload.clone())))
        );
        assert_eq!(dump[&(Table::Retained, Owned::Name(vec![]))], (vec![], Some(2), Ok(Some(vec![]))));
        assert!(dump.contains_key(&(Table::Owed, Owned::Number(u64::MAX))));
        storage = subject.reopen(storage);
    }
}

fn a_group_of_nothing_is_nothing(subject: &mut dyn Subject) {
    let storage = subject.open();
    commit(&*storage, |_| ());
    assert_eq!((storage.usage().entries, storage.usage().bytes, storage.last_number()), (0, 0, 0));
}

fn entries_outlive_any_number_of_changes_around_them(subject: &mut dyn Subject) {
    let mut storage = subject.open();
    commit(&*storage, |group| {
        group.body(1, &[b"first"]);
        put(group, Table::Delayed, Key::Number(2), Some(1), b"kept");
    });
    for round in 0..200_u64 {
        let (body, key) = (100 + 2 * round, 101 + 2 * round);
        commit(&*storage, |group| {
            group.body(body, &[b"passing"]);
            put(group, Table::Owed, Key::Number(key), Some(body), &round.to_le_bytes());
            // In the middle of it, something that refers to what is old.
            if round == 100 {
                put(group, Table::Owed, Key::Number(3), Some(1), b"");
            }
            if round >= 10 {
                group.delete(Table::Owed, Key::Number(key - 20));
            }
        });
        storage.maintain().unwrap();
        if round % 50 == 49 {
            storage = subject.reopen(storage);
        }
    }
    clean(&*storage);
    for _ in 0..2 {
        let dump = dump(&*storage);
        let first = Ok(Some(b"first".to_vec()));
        assert_eq!(dump[&(Table::Delayed, Owned::Number(2))], (b"kept".to_vec(), Some(1), first.clone()));
        assert_eq!(dump[&(Table::Owed, Owned::Number(3))], (vec![], Some(1), first));
        assert_eq!((dump.len(), storage.usage().bodies), (12, 11));
        assert!(storage.usage().bytes < 6_000 || storage.usage().segments == 1, "{:?}", storage.usage());
        storage = subject.reopen(storage);
    }
}

fn who_reads_does_not_wait_for_who_writes(subject: &mut dyn Subject) {
    let storage = subject.open();
    commit(&*storage, |group| {
        (1..=100).for_each(|number| put(group, Table::Owed, Key::Number(number), None, &[7; 30]));
    });
    let (storage, mut seen) = (&*storage, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for number in 1..=100 {
                commit(storage, |group| group.delete(Table::Owed, Key::Number(number)));
                storage.maintain().unwrap();
            }
        });
        while !writer.is_finished() {
            storage.for_each(Table::Owed, &mut |entry| seen += usize::from(entry.value == [7; 30])).unwrap();
        }
    });
    let usage = storage.usage();
    assert_eq!((usage.entries, usage.set_aside), (0, 0), "read {seen} of them meanwhile");
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Put { table: Table, key: Owned, body: Refers, value: Vec<u8> },
    Delete { table: Table, key: Owned },
    Commit,
    Maintain,
    Reopen,
}

#[derive(Debug, Clone)]
enum Refers {
    Nothing,
    New(Vec<u8>),
    /// What some entry refers to, counted from the first.
    Known(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let table = || prop_oneof![Just(Table::Owed), Just(Table::Retained), Just(Table::Progress)];
    let key = || {
        prop_oneof![
            3 => (1..12_u64).prop_map(Owned::Number),
            1 => proptest::collection::vec(0..3_u8, 0..3).prop_map(Owned::Name),
        ]
    };
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    let refers = prop_oneof![
        2 => Just(Refers::Nothing),
        3 => bytes().prop_map(Refers::New),
        3 => (0..20_usize).prop_map(Refers::Known),
    ];
    let step = prop_oneof![
        8 => (table(), key(), refers, bytes()).prop_map(|(table, key, body, value)| Step::Put { table, key, body, value }),
        3 => (table(), key()).prop_map(|(table, key)| Step::Delete { table, key }),
        3 => Just(Step::Commit),
        3 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The number of a body that some entry refers to.
fn known_body(dump: &Dump, which: usize) -> Option<u64> {
    let bodies: Vec<u64> = dump.values().filter_map(|(_, body, _)| *body).collect();
    bodies.get(which % bodies.len().max(1)).copied()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// After any history a log holds what the one in memory does, opened again at any point and with segments that come
    /// and go all the time.
    #[test]
    fn a_log_is_like_memory(steps in steps()) {
        let mut subject = OnDisk::new(SMALL);
        let (mut log, memory) = (subject.open(), Memory::default());
        let (mut group, mut next, mut before) = (Group::default(), 100, Dump::new());
        for step in steps {
            match step {
                Step::Put { table, key, body, value } => {
                    let body = match body {
                        Refers::Nothing => None,
                        Refers::New(bytes) => {
                            next += 1;
                            group.body(next, &[&bytes]);
                            Some(next)
                        }
                        Refers::Known(which) => known_body(&before, which),
                    };
                    put(&mut group, table, key.key(), body, &value);
                    continue;
                }
                Step::Delete { table, key } => {
                    group.delete(table, key.key());
                    continue;
                }
                Step::Commit => {
                    log.commit(&mut group, false).unwrap();
                    memory.commit(&mut group, false).unwrap();
                    group.clear();
                    before = dump(&memory);
                }
                Step::Maintain => drop(log.maintain().unwrap()),
                Step::Reopen => log = subject.reopen(log),
            }
            prop_assert_eq!(dump(&*log), before.clone());
            let (ours, theirs) = (log.usage(), memory.usage());
            prop_assert_eq!((ours.entries, ours.bodies, ours.set_aside), (theirs.entries, theirs.bodies, 0));
            prop_assert_eq!(log.last_number(), memory.last_number());
        }
    }
}
