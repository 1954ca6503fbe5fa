use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// A name and a number that tells messages of one name apart; as many bytes as the number says.
/// Name, bytes, deadline.
type Message = Arc<(String, usize, Option<u64>)>;

/// Published here, at some moment.
const HERE: Origin = Origin { link: None, stamp_ms: 0 };

impl Retainable for Message {
    fn topic(&self) -> &str {
        &self.0
    }

    fn bytes(&self) -> usize {
        self.1
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.2
    }

    fn is_same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

fn message(name: &str, bytes: usize) -> Message {
    expiring(name, bytes, None)
}

fn expiring(name: &str, bytes: usize, deadline_ms: Option<u64>) -> Message {
    Arc::new((name.to_owned(), bytes, deadline_ms))
}

fn store(messages_max: usize, bytes_max: usize) -> RetainedStore<Message, &'static str> {
    RetainedStore::new(RetainedLimits { messages_max, bytes_max })
}

fn all(store: &RetainedStore<Message, &'static str>, filter: &str, count: usize, now_ms: u64) -> Vec<String> {
    let (mut cursor, mut names) = (Some(Cursor::default()), Vec::new());
    while let Some(from) = cursor {
        let slice = store.matching(filter, from, count, now_ms);
        assert!(slice.messages.len() <= count);
        names.extend(slice.messages.iter().map(|message| message.topic().to_owned()));
        cursor = slice.next;
    }
    names
}

#[test]
fn one_message_per_name() {
    let store = store(10, 100);
    assert_eq!(store.insert(message("a", 1), None, HERE), Ok(Inserted::New));
    assert_eq!(store.insert(message("a", 2), None, HERE), Ok(Inserted::Replaced));
    assert_eq!(store.get("a", 0), Some(message("a", 2)));
    assert_eq!(store.matching("#", Cursor::default(), 9, 0).messages, [message("a", 2)]);
    assert_eq!(store.counts(), RetainedCounts { messages: 1, bytes: 2, withheld: 0 });
    assert_eq!(store.remove("a"), Some(message("a", 2)));
    assert_eq!(store.remove("a"), None);
    assert_eq!(store.counts(), RetainedCounts::default());
}

#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    let store = store(2, 10);
    store.insert(message("a", 4), None, HERE).unwrap();
    assert_eq!(store.insert(message("b", 7), None, HERE), Err(RetainedFull::Bytes));
    store.insert(message("b", 4), None, HERE).unwrap();
    assert_eq!(store.insert(message("c", 0), None, HERE), Err(RetainedFull::Messages));
    assert_eq!(store.insert(message("b", 7), None, HERE), Err(RetainedFull::Bytes));
    assert_eq!(store.get("b", 0), Some(message("b", 4)));
    assert_eq!(store.insert(message("b", 6), None, HERE), Ok(Inserted::Replaced));
    assert_eq!(store.counts(), RetainedCounts { messages: 2, bytes: 10, withheld: 0 });
}

#[test]
fn a_message_ends_with_its_deadline() {
    let store = store(10, 100);
    store.insert(expiring("a", 1, Some(10)), None, HERE).unwrap();
    store.insert(expiring("b", 1, Some(20)), None, HERE).unwrap();
    store.insert(message("c", 1), None, HERE).unwrap();
    assert_eq!(all(&store, "+", 9, 9), ["a", "b", "c"]);
    assert_eq!(all(&store, "+", 9, 10), ["b", "c"]);
    assert_eq!(store.get("a", 10), None);
    // A new message of the name has its own deadline, later or none.
    store.insert(expiring("a", 2, Some(30)), None, HERE).unwrap();
    store.insert(message("b", 2), None, HERE).unwrap();
    assert_eq!(store.expire(29, 9), 0);
    assert_eq!(store.expire(30, 9), 1);
    assert_eq!(store.expire(u64::MAX - 1, 9), 0);
    assert_eq!(all(&store, "#", 9, u64::MAX - 1), ["b", "c"]);
}

#[test]
fn a_sweep_keeps_to_its_budget() {
    let store = store(1_000, 1_000);
    for n in 0..100 {
        store.insert(expiring(&n.to_string(), 1, Some(n)), None, HERE).unwrap();
    }
    assert_eq!(store.expire(49, 30), 30);
    assert_eq!(store.expire(49, 30), 20);
    assert_eq!(store.counts(), RetainedCounts { messages: 50, bytes: 50, withheld: 0 });
}

#[test]
fn names_of_the_same_deadline_replace_each_other() {
    let store = store(10, 100);
    store.insert(expiring("a", 1, Some(5)), None, HERE).unwrap();
    store.insert(expiring("a", 2, Some(5)), None, HERE).unwrap();
    assert_eq!(store.expire(5, 9), 1);
    assert_eq!(store.counts(), RetainedCounts::default());
}

/// What is there all the while is given once, whatever comes and goes between the slices.
#[test]
fn a_walk_in_slices_survives_changes() {
    let store = store(100_000, usize::MAX);
    for n in 0..2_000 {
        store.insert(message(&format!("stay/{n:04}"), 1), None, HERE).unwrap();
        store.insert(message(&format!("stay/{n:04}/go"), 1), None, HERE).unwrap();
    }
    let (mut cursor, mut stayed, mut round) = (Some(Cursor::default()), Vec::new(), 0);
    while let Some(from) = cursor {
        let slice = store.matching("#", from, 7, 0);
        stayed.extend(slice.messages.iter().filter(|m| m.topic().len() == 9).map(|m| m.topic().to_owned()));
        cursor = slice.next;
        store.remove(&format!("stay/{:04}/go", round * 13 % 2_000));
        store.insert(message(&format!("stay/{:04}+new", round * 7 % 2_000), 1), None, HERE).unwrap();
        round += 1;
    }
    assert_eq!(stayed, (0..2_000).map(|n| format!("stay/{n:04}")).collect::<Vec<_>>());
}

/// A slice ends after a bounded number of names even when nothing matches.
#[test]
fn a_slice_is_bounded_when_nothing_matches() {
    let store = store(100_000, usize::MAX);
    for n in 0..10_000 {
        store.insert(message(&format!("a{n}"), 1), None, HERE).unwrap();
    }
    let slice = store.matching("+/none", Cursor::default(), 10, 0);
    assert!(slice.messages.is_empty());
    assert!(slice.next.is_some());
    assert!(all(&store, "+/none", 10, 0).is_empty());
}

/// The jumps must pay: a filter with few matches looks at few of the names.
#[test]
fn what_cannot_match_is_passed_over() {
    let store = store(100_000, usize::MAX);
    for n in 0..100 {
        for m in 0..200 {
            store.insert(message(&format!("{n:03}/x/{m:03}"), 1), None, HERE).unwrap();
        }
    }
    let mut slices = 0;
    let (mut cursor, mut found) = (Some(Cursor::default()), 0);
    while let Some(from) = cursor {
        let slice = store.matching("+/x/007", from, 1_000, 0);
        (cursor, found, slices) = (slice.next, found + slice.messages.len(), slices + 1);
    }
    assert_eq!(found, 100);
    assert!(slices <= 3, "{slices} slices");
}

#[test]
fn a_literal_prefix_is_where_a_walk_begins() {
    for (filter, prefix) in
        [("a/b/#", "a/b"), ("a/+/b", "a"), ("+", ""), ("#", ""), ("/+", ""), ("a//#", "a")]
    {
        assert_eq!(literal_prefix(filter), prefix, "{filter}");
    }
}

/// Characters around `/` and `$` in byte order are where a wrong jump would show.
fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "b-c", "b.", "b0", "b!", "", "$b", "%", "0", "-", "é", "bb"])
}

fn name() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(level(), 1..5);
    levels.prop_map(|levels| levels.join("/")).prop_filter("not empty", |name| !name.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let part = prop_oneof![1 => level(), 1 => Just("+")];
    (prop::collection::vec(part, 0..5), any::<bool>())
        .prop_map(|(mut levels, open)| {
            if open {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

/// Over this link, at this moment.
fn over(link: u32, stamp_ms: u64) -> Origin {
    Origin { link: Some(LinkId(link)), stamp_ms }
}

/// What is from there, a few at a time.
fn from_there(
    store: &RetainedStore<Message, &'static str>,
    link: Option<u32>,
    filter: Option<&str>,
    behind: Option<&str>,
) -> Vec<(String, u64)> {
    let (mut found, mut from) =
        (Vec::new(), Some(behind.map_or(Bound::Unbounded, |name| Bound::Excluded(name.to_owned()))));
    while let Some(start) = from.take() {
        let start = start.as_ref().map(String::as_str);
        let (some, next) = store.from_link(link.map(LinkId), filter, start, 2, 10);
        found.extend(some.iter().map(|(message, stamp_ms)| (message.topic().to_owned(), *stamp_ms)));
        from = next.map(Bound::Included);
    }
    found
}

#[test]
fn copies_are_counted_and_told_apart_from_what_was_published_here() {
    let store = store(10, 100);
    store.insert(message("a", 1), None, Origin::here(3)).unwrap();
    store.insert(message("b", 1), None, over(1, 4)).unwrap();
    store.insert(message("$c", 1), None, over(1, 5)).unwrap();
    store.insert(message("d", 1), None, over(2, 6)).unwrap();
    store.insert(expiring("e", 1, Some(10)), None, over(2, 7)).unwrap();
    assert_eq!((store.copies(LinkId(1)), store.copies(LinkId(2)), store.copies(LinkId(3))), (2, 2, 0));
    let owned = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
        list.iter().map(|(name, stamp_ms)| ((*name).to_owned(), *stamp_ms)).collect()
    };
    assert_eq!(from_there(&store, None, Some("#"), None), owned(&[("a", 3)]));
    assert_eq!(from_there(&store, Some(1), Some("#"), None), owned(&[("b", 4)]));
    assert_eq!(from_there(&store, Some(1), None, None), owned(&[("$c", 5), ("b", 4)]));
    assert_eq!(from_there(&store, Some(2), None, None), owned(&[("d", 6)]), "what has expired is not there");
    // What takes the place of a copy is no copy.
    store.insert(message("b", 1), None, Origin::here(9)).unwrap();
    store.remove("$c");
    assert_eq!((store.copies(LinkId(1)), store.counts().messages), (0, 4));
    store.expire(10, 9);
    assert_eq!(store.copies(LinkId(2)), 1);
}

#[test]
fn who_asks_decides_what_is_replaced_and_removed() {
    let store = store(10, 100);
    let put = |size, stamp_ms| {
        let newer =
            |there: Option<Origin>, _: Option<&Message>| there.is_none_or(|there| stamp_ms > there.stamp_ms);
        store.insert_if(message("a", size), None, over(1, stamp_ms), newer).unwrap()
    };
    assert_eq!(
        (put(1, 5), put(2, 5), put(3, 4), put(4, 6)),
        (Inserted::New, Inserted::Declined, Inserted::Declined, Inserted::Replaced)
    );
    assert_eq!((store.get("a", 0), store.copies(LinkId(1))), (Some(message("a", 4)), 1));
    assert_eq!(store.remove_if("a", |there| there.stamp_ms < 6), None);
    assert_eq!(store.remove_if("b", |_| true), None);
    assert_eq!(store.remove_if("a", |there| there == over(1, 6)), Some(message("a", 4)));
    assert_eq!((store.counts(), store.copies(LinkId(1))), (RetainedCounts::default(), 0));
}

#[test]
fn what_is_withheld_is_not_told() {
    let store = store(10, 100);
    for name in ["a", "b"] {
        store.insert(message(name, 1), Some(&Arc::new("ada")), HERE).unwrap();
    }
    store.recheck(|| |_: &&str, message: &Message| message.topic() != "a");
    assert_eq!(from_there(&store, None, Some("+"), None), [("b".to_owned(), 0)]);
    assert_eq!(from_there(&store, None, Some("a"), None), []);
}

proptest! {
    /// What is from somewhere, behind a name and under a filter, is found wherever it is cut.
    #[test]
    fn what_is_from_there_is_found_in_order(
        names in prop::collection::btree_map(name(), 0_u32..2, 0..60),
        filter in filter(),
        behind in prop::option::of(name()),
    ) {
        let store = store(1_000, usize::MAX);
        for (name, link) in &names {
            store.insert(message(name, 1), None, over(*link, 1)).unwrap();
        }
        let is_behind = |name: &String| behind.as_ref().is_none_or(|behind| name > behind);
        let expected: Vec<(String, u64)> = names
            .iter()
            .filter(|(name, link)| **link == 1 && is_behind(name) && topic::matches(&filter, name))
            .map(|(name, _)| (name.clone(), 1))
            .collect();
        prop_assert_eq!(from_there(&store, Some(1), Some(&filter), behind.as_deref()), expected);
    }

    #[test]
    fn filters_find_what_a_list_finds(
        names in prop::collection::btree_map(name(), prop::option::of(0u64..20), 0..150),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        filters in prop::collection::vec(filter(), 1..10),
        count in 1usize..20,
    ) {
        let store = store(1_000, usize::MAX);
        let mut model: BTreeMap<String, Option<u64>> = names;
        for (name, deadline_ms) in &model {
            store.insert(expiring(name, 1, *deadline_ms), None, HERE).unwrap();
        }
        for which in removed {
            if model.is_empty() {
                break;
            }
            let name = which.get(&model.keys().cloned().collect::<Vec<_>>()).clone();
            model.remove(&name);
            store.remove(&name);
        }
        for filter in filters {
            let alive = model.iter().filter(|(_, deadline_ms)| deadline_ms.is_none_or(|deadline_ms| deadline_ms > 10));
            let expected: Vec<&String> =
                alive.map(|(name, _)| name).filter(|name| topic::matches(&filter, name)).collect();
            let found = all(&store, &filter, count, 10);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", filter);
        }
    }

    /// A jump goes forward and passes over nothing that matches: each name is tried against each.
    #[test]
    fn no_step_passes_over_a_match(filter in filter(), names in prop::collection::btree_set(name(), 1..80)) {
        for name in &names {
            let behind = match step(&filter, name) {
                Step::Match => {
                    prop_assert!(topic::matches(&filter, name));
                    continue;
                }
                Step::Next => name.clone(),
                Step::From { keep, then } => [&name[..keep], then[0], then[1]].concat(),
                Step::End => "\u{10ffff}".to_owned(),
            };
            prop_assert!(!topic::matches(&filter, name), "{} {}", filter, name);
            prop_assert!(behind > *name || step(&filter, name) == Step::Next);
            for other in names.range(name.clone()..behind) {
                prop_assert!(!topic::matches(&filter, other), "{} from {} over {}", filter, name, other);
            }
        }
    }
}

/// What `source` may: messages whose names begin with its own.
fn own(source: &&'static str, message: &Message) -> bool {
    message.topic().starts_with(source)
}

fn given(store: &RetainedStore<Message, &'static str>) -> Vec<String> {
    let mut messages = store.matching("#", Cursor::default(), 9, 0).messages;
    store.leave_out_withheld(&mut messages);
    messages.iter().map(|message| message.topic().to_owned()).collect()
}

#[test]
fn what_its_publisher_may_not_publish_any_more_is_withheld_until_it_may() {
    let store = store(10, 100);
    let (ada, eve) = (Arc::new("a"), Arc::new("e"));
    for (name, source) in [("a/1", Some(&ada)), ("a/2", Some(&eve)), ("b", None), ("e", Some(&eve))] {
        store.insert(message(name, 1), source, HERE).unwrap();
    }
    assert_eq!(store.recheck(|| own), 1);
    assert_eq!((given(&store), store.counts().withheld), (vec!["a/1".into(), "b".into(), "e".into()], 1));
    assert!(store.is_withheld("a/2") && store.get("a/2", 0).is_some(), "operators find it");
    assert_eq!(store.recheck(|| |_: &&str, _: &Message| true), 0);
    assert_eq!(given(&store).len(), 4);
}

#[test]
fn a_message_that_takes_the_place_of_a_withheld_one_is_not_withheld() {
    let store = store(10, 100);
    let eve = Arc::new("e");
    store.insert(message("a", 1), Some(&eve), HERE).unwrap();
    store.insert(message("b", 1), Some(&eve), HERE).unwrap();
    assert_eq!(store.recheck(|| own), 2);
    store.insert(message("a", 2), Some(&Arc::new("a")), HERE).unwrap();
    store.remove("b");
    store.insert(message("b", 2), None, HERE).unwrap();
    assert_eq!((given(&store), store.counts().withheld), (vec!["a".into(), "b".into()], 0));
    assert_eq!(Arc::strong_count(&eve), 1, "nothing of it is held");
}

#[test]
fn a_message_replaced_while_the_rules_are_asked_is_not_withheld() {
    let store = store(10, 100);
    store.insert(message("a", 1), Some(&Arc::new("e")), HERE).unwrap();
    let withheld = store.recheck(|| {
        |source: &&str, _: &Message| {
            if *source == "e" {
                store.insert(message("a", 2), Some(&Arc::new("a")), HERE).unwrap();
            }
            *source != "e"
        }
    });
    assert_eq!((withheld, given(&store)), (0, vec!["a".into()]));
}

#[test]
fn a_message_that_comes_while_the_rules_are_asked_is_asked_about_too() {
    let store = store(10, 100);
    let (ada, eve) = (Arc::new("b"), Arc::new("e"));
    store.insert(message("b", 1), Some(&ada), HERE).unwrap();
    // It was let in by the rules before, and the names before `b` have been asked about.
    let withheld = store.recheck(|| {
        |source: &&str, message_asked: &Message| {
            if *source == "b" {
                store.insert(message("a", 1), Some(&eve), HERE).unwrap();
            }
            own(source, message_asked)
        }
    });
    assert_eq!((withheld, given(&store)), (1, vec!["b".into()]));
    store.insert(message("c", 1), Some(&eve), HERE).unwrap();
    assert!(!store.is_withheld("c"), "afterwards it was let in by the new ones");
}

#[test]
fn every_message_is_asked_about_however_many_there_are() {
    let store = store(5_000, 5_000);
    let sources = [Arc::new("0"), Arc::new("1")];
    for n in 0..4_000 {
        store.insert(message(&format!("{}/{n}", n % 2), 1), Some(&sources[n / 2 % 2]), HERE).unwrap();
    }
    assert_eq!(store.recheck(|| own), 2_000);
}
