use std::collections::BTreeMap;
use std::hash::RandomState;

use proptest::prelude::*;

use super::*;
use crate::mqtt::topic;

type Trie<V> = TopicTrie<V, RandomState>;

fn matched(trie: &Trie<u32>, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    trie.for_each_match(name, |value| found.push(*value));
    found.sort_unstable();
    found
}

#[test]
fn a_node_is_half_a_cache_line() {
    assert_eq!(size_of::<Node>(), 32);
}

#[test]
fn values_are_set_replaced_and_taken_out() {
    let mut trie = Trie::new(RandomState::new());
    let (id, before) = trie.insert("a/+/#", 1);
    assert_eq!(before, None);
    assert_eq!(trie.insert("a/+/#", 2), (id, Some(1)));
    assert_eq!(trie.filter(id).as_deref(), Some("a/+/#"));
    assert_eq!(trie.get("a/+"), None);
    *trie.get_mut("a/+/#").unwrap() = 3;
    assert_eq!((trie.value(id), trie.len(), trie.node_count(), trie.level_count()), (Some(&3), 1, 3, 1));
    assert_eq!(trie.remove("a/+"), None);
    assert_eq!(trie.remove_at(id), Some(3));
    assert_eq!(trie.remove_at(id), None);
    assert_eq!((trie.value(id), trie.len(), trie.node_count(), trie.level_count()), (None, 0, 0, 0));
}

/// `[MQTT-4.7.2-1]`, and `#` standing for its parent level.
#[test]
fn dollar_and_parent_levels() {
    let mut trie = Trie::new(RandomState::new());
    for (value, filter) in ["#", "+/x", "$SYS/#", "$SYS/+", "a/#", "+", "a/+"].into_iter().enumerate() {
        trie.insert(filter, value as u32);
    }
    assert_eq!(matched(&trie, "$SYS/x"), [2, 3]);
    assert_eq!(matched(&trie, "$SYS"), [2]);
    assert_eq!(matched(&trie, "a"), [0, 4, 5]);
    assert_eq!(matched(&trie, "a/"), [0, 4, 6]);
    assert_eq!(matched(&trie, "/x"), [0, 1]);
}

/// The deepest filter there can be: 65,535 empty levels make 65,534 bytes.
#[test]
fn the_deepest_filter_is_only_long() {
    let mut trie = Trie::new(RandomState::new());
    let deepest = "/".repeat(65_534);
    let wild = format!("{}+", "+/".repeat(32_767));
    trie.insert(&deepest, 1);
    let (id, _) = trie.insert(&wild, 2);
    assert_eq!(trie.filter(id).as_deref(), Some(wild.as_str()));
    assert_eq!(matched(&trie, &deepest), [1]);
    assert_eq!(matched(&trie, &"/".repeat(32_767)), [2]);
    assert_eq!(trie.remove(&deepest), Some(1));
    assert_eq!(trie.remove(&wild), Some(2));
    assert_eq!(trie.node_count(), 0);
}

/// `+` at every level doubles the ways a match may take, but never beyond the nodes that exist.
#[test]
fn a_match_visits_each_node_at_most_once() {
    let mut trie = Trie::new(RandomState::new());
    for (value, bits) in (0..256u32).enumerate() {
        let levels: Vec<&str> = (0..8).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "a" }).collect();
        trie.insert(&levels.join("/"), value as u32);
    }
    assert_eq!(matched(&trie, "a/a/a/a/a/a/a/a"), (0..256).collect::<Vec<_>>());
}

#[test]
fn many_children_are_found_and_freed() {
    let mut trie = Trie::new(RandomState::new());
    let ids: Vec<_> = (0..5_000).map(|n| trie.insert(&format!("a/{n}/+"), n).0).collect();
    assert_eq!(trie.node_count(), 10_001);
    for n in 0..5_000 {
        assert_eq!(matched(&trie, &format!("a/{n}/x")), [n]);
    }
    for (n, id) in ids.into_iter().enumerate().rev() {
        assert_eq!(trie.remove_at(id), Some(n as u32));
    }
    assert_eq!((trie.node_count(), trie.level_count()), (0, 0));
}

#[test]
fn a_walk_in_steps_sees_what_stays() {
    let mut trie = Trie::new(RandomState::new());
    for n in 0..100 {
        trie.insert(&format!("stay/{n}"), n);
        trie.insert(&format!("go/{n}"), 1_000 + n);
    }
    let (mut at, mut seen, mut step) = (NodeId::START, Vec::new(), 0);
    while let Some((next, value)) = trie.next_after(at, 3) {
        seen.extend(value.copied().filter(|&value| value < 1_000));
        at = next;
        if step < 100 {
            trie.remove(&format!("go/{step}"));
            trie.insert(&format!("new/{step}"), 2_000);
        }
        step += 1;
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$c", "a level longer than twenty-two bytes", "é"])
}

fn name() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(level(), 1..6);
    levels.prop_map(|levels| levels.join("/")).prop_filter("not empty", |name| !name.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let part = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(part, 0..5), any::<bool>())
        .prop_map(|(mut levels, open)| {
            if open {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

#[derive(Debug, Clone)]
enum Step {
    Insert(String, u32),
    Remove(prop::sample::Index),
    Match(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (filter(), any::<u32>()).prop_map(|(filter, value)| Step::Insert(filter, value)),
        3 => any::<prop::sample::Index>().prop_map(Step::Remove),
        2 => name().prop_map(Step::Match),
    ]
}

proptest! {
    #[test]
    fn it_does_what_a_list_of_filters_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut trie = Trie::new(RandomState::new());
        let mut model: BTreeMap<String, (NodeId, u32)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(filter, value) => {
                    let (id, before) = trie.insert(&filter, value);
                    let known = model.insert(filter, (id, value));
                    prop_assert_eq!(before, known.map(|(_, value)| value));
                }
                Step::Remove(which) if !model.is_empty() => {
                    let filter = which.get(&model.keys().cloned().collect::<Vec<_>>()).clone();
                    let (id, value) = model.remove(&filter).unwrap();
                    prop_assert_eq!(trie.find(&filter), Some(id));
                    let taken = if value % 2 == 0 { trie.remove(&filter) } else { trie.remove_at(id) };
                    prop_assert_eq!(taken, Some(value));
                    prop_assert_eq!(trie.find(&filter), None);
                }
                Step::Remove(_) => {}
                Step::Match(name) => {
                    let mut expected: Vec<u32> = model
                        .iter()
                        .filter(|(filter, _)| topic::matches(filter, &name))
                        .map(|(_, (_, value))| *value)
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(matched(&trie, &name), expected);
                }
            }
            prop_assert_eq!(trie.len(), model.len());
        }
        let listed: BTreeMap<String, u32> = trie.filters().map(|(filter, value)| (filter, *value)).collect();
        let expected: BTreeMap<String, u32> = model.iter().map(|(f, (_, value))| (f.clone(), *value)).collect();
        prop_assert_eq!(listed, expected);
        for filter in model.keys() {
            trie.remove(filter);
        }
        prop_assert_eq!((trie.len(), trie.node_count(), trie.level_count()), (0, 0, 0));
    }
}
