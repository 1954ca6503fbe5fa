//! Routing by size: nanoseconds per subscription, match and retained message, and bytes per entry, at 1k to 1M
//! entries (`performance.md` 5.4). Each part and size runs in a process of its own, so that resident memory is its own.
//! Run it with `cargo bench --bench trie`, or for one size `cargo bench --bench trie -- table 100000`.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rapidhash::quality::RandomState;
use tombolo::broker::retained::Cursor;
use tombolo::broker::retained::Origin;
use tombolo::broker::retained::Retainable;
use tombolo::broker::retained::RetainedLimits;
use tombolo::broker::retained::RetainedStore;
use tombolo::broker::routes::CACHED_NAMES_MAX;
use tombolo::broker::routes::RouteTable;
use tombolo::broker::shared::ClientKey;
use tombolo::broker::shared::Subscription;
use tombolo::mqtt::packet::SubscriptionOptions;
use tombolo::mqtt::trie::TopicTrie;

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const MATCHES: usize = 300_000;

/// A name to call it by and what it does for a number of entries.
type Part = (&'static str, fn(usize));

const PARTS: [Part; 3] = [("trie", trie), ("table", table), ("retained", retained)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let part = PARTS.iter().find(|(name, _)| arguments.iter().any(|argument| argument == name));
    let size = arguments.iter().find_map(|argument| argument.parse::<usize>().ok());
    if let (Some((_, run)), Some(size)) = (part, size) {
        return run(size);
    }
    for size in SIZES {
        PARTS.iter().for_each(|(part, _)| run_apart(part, size));
    }
}

fn run_apart(part: &str, size: usize) {
    let this = std::env::current_exe().expect("a running program has a path");
    let status = Command::new(this).args([part, &size.to_string()]).status().expect("the program runs again");
    assert!(status.success(), "{part} of {size} failed");
}

/// Nanoseconds per element of what `work` does `count` times.
#[allow(clippy::disallowed_methods)] // A benchmark measures; there is no turn whose clock it could use.
fn timed(count: usize, mut work: impl FnMut(usize)) -> u128 {
    let start = Instant::now();
    (0..count).for_each(&mut work);
    start.elapsed().as_nanos() / count as u128
}

/// Resident bytes of this process; zero where there is no /proc.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

/// Two filters per site, and one name that both match: a device apart per site.
fn filter(n: usize) -> String {
    let site = n / 2;
    if n.is_multiple_of(2) { format!("site/{site}/+/state") } else { format!("site/{site}/#") }
}

/// Sites in an order that no cache of the processor foresees.
fn scattered(n: usize, size: usize) -> usize {
    n.wrapping_mul(2_654_435_761) % (size / 2)
}

fn print(size: usize, what: &str, nanos: u128, bytes: Option<usize>) {
    // Below some thousand entries pages and allocator slack are all that would be seen.
    let bytes =
        bytes.filter(|_| size >= 10_000).map_or(String::new(), |bytes| format!("{:6} B", bytes / size));
    println!("{size:>9}  {what:<34} {nanos:>6} ns {bytes}");
}

fn trie(size: usize) {
    let filters: Vec<String> = (0..size).map(filter).collect();
    let names: Vec<String> = (0..MATCHES).map(|n| format!("site/{}/d/state", scattered(n, size))).collect();
    let before = resident();
    let mut trie = TopicTrie::new(RandomState::new());
    let nanos = timed(size, |n| _ = black_box(trie.insert(&filters[n], n as u64)));
    print(size, "trie: insert", nanos, Some(resident() - before));
    let mut found = 0;
    let nanos = timed(MATCHES, |n| trie.for_each_match(&names[n], |_| found += 1));
    assert_eq!(found, 2 * MATCHES);
    print(size, "trie: match, 2 found", nanos, None);
    let nanos = timed(MATCHES, |_| trie.for_each_match("site/none/d/state", |_| found += 1));
    print(size, "trie: match, none found", nanos, None);
    let nanos = timed(size, |n| _ = black_box(trie.remove(&filters[n])));
    print(size, "trie: remove", nanos, None);
    assert_eq!(trie.node_count(), 0);
}

fn table(size: usize) {
    let filters: Vec<String> = (0..size).map(filter).collect();
    let names: Vec<String> = (0..MATCHES).map(|n| format!("site/{}/{n}/state", scattered(n, size))).collect();
    let destination = Arc::new(0u64);
    let options = SubscriptionOptions::default();
    let table = RouteTable::new();
    let before = resident();
    let nanos = timed(size, |n| {
        let key = ClientKey(n as u64);
        let subscription = Subscription { key, destination: Arc::clone(&destination), options, id: None };
        black_box(table.subscribe(&filters[n], None, subscription));
    });
    print(size, "table: subscribe", nanos, Some(resident() - before));
    let nanos = timed(MATCHES, |n| drop(black_box(table.targets(&names[n]))));
    print(size, "table: targets, new name, 2 found", nanos, None);
    let some = &names[MATCHES - CACHED_NAMES_MAX / 4..];
    some.iter().chain(some).for_each(|name| drop(table.targets(name)));
    let nanos = timed(MATCHES, |n| drop(black_box(table.targets(&some[n % some.len()]))));
    print(size, "table: targets, cached names", nanos, None);
    let stamp = table.targets(&names[0]).stamp;
    let nanos = timed(MATCHES, |_| assert!(table.is_current(black_box(stamp))));
    print(size, "table: is_current", nanos, None);
    let nanos = timed(size, |n| drop(table.unsubscribe(ClientKey(n as u64), &filters[n], None)));
    print(size, "table: unsubscribe", nanos, None);
}

#[derive(Clone)]
struct Message(Arc<str>);

impl Retainable for Message {
    fn topic(&self) -> &str {
        &self.0
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn retained(size: usize) {
    let message = |n: usize| Message(format!("site/{}/{n}/state", scattered(n, size)).into());
    let messages: Vec<Message> = (0..size).map(message).collect();
    let again: Vec<Message> = (0..size).map(message).collect();
    let source = Arc::new(());
    let store = RetainedStore::new(RetainedLimits { messages_max: usize::MAX, bytes_max: usize::MAX });
    let before = resident();
    let nanos =
        timed(size, |n| _ = black_box(store.insert(messages[n].clone(), Some(&source), Origin::here(0))));
    print(size, "retained: new, without the message", nanos, Some(resident() - before));
    let nanos =
        timed(size, |n| _ = black_box(store.insert(again[n].clone(), Some(&source), Origin::here(0))));
    print(size, "retained: replaced", nanos, None);
    let nanos = timed(size, |n| drop(black_box(store.get(messages[n].topic(), 0))));
    print(size, "retained: by name", nanos, None);
    for filter in ["#", "site/+/+/state"] {
        let mut cursor = Some(Cursor::default());
        let mut found = 0;
        let nanos = timed(1, |_| {
            while let Some(from) = cursor.take() {
                let slice = store.matching(filter, from, 256, 0);
                found += slice.messages.len();
                cursor = slice.next;
            }
        });
        assert_eq!(found, size);
        print(size, &format!("retained: each of {filter}"), nanos / size as u128, None);
    }
}
