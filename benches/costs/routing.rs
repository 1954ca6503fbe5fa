//! From a Topic Name to its receivers: trie, route table with its cache, and what a connection remembers.

use std::hint::black_box;
use std::sync::Arc;

use rapidhash::quality::SeedableState;
use tombolo::broker::Routes;
use tombolo::broker::routes::RouteTable;
use tombolo::broker::shared::ClientKey;
use tombolo::broker::shared::Subscription;
use tombolo::broker::topic_cache::TopicCache;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::trie::TopicTrie;

use crate::TOPIC;
use crate::harness::Bench;
use crate::harness::Body;

pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "trie: match, 2 of 10,000 filters", operations: 64, make: || trie("site/77/d/state", 2) },
    Bench {
        name: "trie: match, none of 10,000 filters",
        operations: 64,
        make: || trie("site/none/d/state", 0),
    },
    Bench { name: "route cache: hit", operations: 64, make: || cached("site/1/d/state") },
    Bench { name: "route cache: hit, nobody wants it", operations: 64, make: || cached("none/1/d/state") },
    Bench { name: "route cache: subscribe, match again, unsubscribe", operations: 64, make: invalidated },
    Bench { name: "route cache: is_current", operations: 64, make: current },
    Bench { name: "topic cache: the one topic", operations: 64, make: || topics(1) },
    Bench { name: "topic cache: 1,000 topics in turn", operations: 1_000, make: || topics(1_000) },
];

const FILTERS: u64 = 10_000;

/// The seed is fixed here, so that the same slots are looked at in every process.
fn trie(name: &'static str, matches: usize) -> Box<dyn Body> {
    let mut trie = TopicTrie::new(SeedableState::fixed());
    for n in 0..FILTERS / 2 {
        trie.insert(&format!("site/{n}/+/state"), n);
        trie.insert(&format!("site/{n}/#"), n);
    }
    Box::new(move || {
        for _ in 0..64 {
            let mut found = 0;
            trie.for_each_match(black_box(name), |_| found += 1);
            assert_eq!(found, matches);
        }
    })
}

fn subscription(key: u64) -> Subscription<Arc<u64>> {
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    Subscription { key: ClientKey(key), destination: Arc::new(key), options, id: None }
}

fn table() -> RouteTable<Arc<u64>> {
    let table = RouteTable::new();
    table.subscribe("site/1/+/state", None, subscription(1));
    table.subscribe("site/1/#", None, subscription(2));
    table
}

fn cached(name: &'static str) -> Box<dyn Body> {
    let table = table();
    Box::new(move || {
        for _ in 0..64 {
            black_box(table.targets(black_box(name)));
        }
    })
}

fn invalidated() -> Box<dyn Body> {
    let (table, other) = (table(), subscription(3));
    Box::new(move || {
        for _ in 0..64 {
            table.subscribe("site/2/x", None, other.clone());
            black_box(table.targets(black_box("site/1/d/state")));
            table.unsubscribe(ClientKey(3), "site/2/x", None);
        }
    })
}

fn current() -> Box<dyn Body> {
    let table = table();
    let stamp = table.targets("site/1/d/state").stamp;
    Box::new(move || {
        for _ in 0..64 {
            assert!(table.is_current(black_box(stamp)));
        }
    })
}

fn topics(count: usize) -> Box<dyn Body> {
    let (routes, mut cache) = (Routes::new(), TopicCache::default());
    let names: Vec<String> = match count {
        1 => vec![TOPIC.to_owned(); 64],
        _ => (0..count).map(|n| format!("site/12/machine/{n}/state")).collect(),
    };
    Box::new(move || {
        for name in &names {
            cache.with(black_box(name), 0, &routes, |entry| {
                entry.verdict(QoS::AtMostOnce, false, || Ok(())).unwrap();
                black_box(entry.targets());
            });
        }
    })
}
