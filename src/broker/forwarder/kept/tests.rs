//! A link whose store outlives it: what it had when it ended without a word is what the next one begins with.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::task::yield_now;

use super::*;
use crate::acl::confine::ListenerRole;
use crate::broker::Routes;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::forwarder::run_lane;
use crate::broker::identity::Identity;
use crate::broker::link_client::tests::Peer;
use crate::broker::link_client::tests::Seen;
use crate::broker::link_client::tests::Served;
use crate::broker::link_client::tests::in_time;
use crate::broker::link_client::tests::settings;
use crate::broker::links::Links;
use crate::broker::shared::ClientKey;
use crate::config::settings;
use crate::link::compress::Inflater;
use crate::link::lane::PAGE_BYTES;
use crate::link::lane::RESIDENT_BYTES_MAX;
use crate::link::message;
use crate::metrics::Metrics;
use crate::mqtt::packet::QoS;
use crate::mqtt::reason::ReasonCode;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::session::message::Publication;
use crate::storage::Entry;
use crate::storage::Usage;
use crate::storage::group::Group;
use crate::storage::memory::Memory;
use crate::storage::store::Mode;

/// One whose bodies may be damaged.
#[derive(Debug, Default)]
struct Device {
    memory: Memory,
    damaged: Mutex<Option<u64>>,
}

impl Storage for Device {
    fn commit(&self, group: &mut Group, sync: bool) -> io::Result<()> {
        self.memory.commit(group, sync)
    }

    fn body(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let is_damaged = *self.damaged.lock() == Some(number);
        if is_damaged { Err(io::ErrorKind::InvalidData.into()) } else { self.memory.body(number) }
    }

    fn for_each(&self, table: Table, each: &mut dyn FnMut(Entry<'_>)) -> io::Result<()> {
        self.memory.for_each(table, each)
    }

    fn last_number(&self) -> u64 {
        self.memory.last_number()
    }

    fn maintain(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn usage(&self) -> Usage {
        self.memory.usage()
    }
}

/// One life.
struct Life {
    store: Arc<Store>,
    links: Links,
    metrics: Metrics,
}

impl Life {
    fn begin(device: &Arc<Device>) -> Self {
        let store = Store::start(Box::new(Arc::clone(device)), Mode::Fsync).unwrap();
        let links = Links::new(Some(Arc::clone(&store)));
        links.load().unwrap();
        Self { store, links, metrics: Metrics::new(clock::now()) }
    }

    fn link(&self, settings: settings::Link) -> Arc<Link> {
        let link = self.links.build(settings, "A", "a@host", &self.metrics);
        self.links.restore(&link, &Routes::new());
        link
    }

    /// Ends, with what was promised on the disk.
    fn end(self) {
        self.store.stop();
    }
}

fn push(link: &Link, publisher: u64, texts: &[String], qos: QoS) {
    let peer = PeerAddr::Ip("192.0.2.1:4321".parse().unwrap());
    let identity = Identity::plain("p".into(), peer, "tcp:default".into(), ListenerRole::Client);
    let publications: Vec<Publication<'_>> = texts
        .iter()
        .map(|text| Publication {
            topic: "t",
            properties: &[],
            payload: text.as_bytes(),
            qos,
            retain: false,
            expiry: None,
        })
        .collect();
    let source = Source::Client(&identity, ClientKey(publisher));
    let reached = link.forwarder.push_run(&publications, source, clock::now(), &mut Vec::new());
    assert_eq!(reached, Reached::Somebody);
}

fn start(link: &Arc<Link>, lane: usize) -> JoinHandle<()> {
    tokio::spawn(run_lane(Arc::clone(link), lane, "a@host".into()))
}

fn text(payload: &[u8]) -> String {
    let mut inflater = Inflater::default();
    let message = message::parse(inflater.open(payload).unwrap()).unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// Takes so many messages, each acknowledged at once: their texts, and whether they were marked.
async fn take(served: &mut Served, count: usize) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let publish = served.publish().await;
        served.ack(publish.id.unwrap(), ReasonCode::Success).await;
        all.push((text(&publish.payload), publish.dup));
    }
    all
}

async fn stop(link: &Link, served: Served, driver: JoinHandle<()>) {
    let mut served = served;
    link.forwarder.stop(clock::now().plus_ms(10_000).mono_ms);
    assert_eq!(served.next().await, Seen::Disconnect(0));
    drop(served);
    in_time(driver).await.unwrap();
}

fn dropped(link: &Link, reason: LinkDropReason) -> u64 {
    link.metrics.messages_dropped[(Direction::Out, reason)].value()
}

/// A number, and so many characters that cannot be compressed to much less.
fn noise(number: usize, len: usize) -> String {
    let mut state = number as u64 + 1;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        char::from(b' ' + ((state >> 40) % 95) as u8)
    });
    std::iter::once(format!("{number}:")).chain(letters.take(len).map(String::from)).collect()
}

fn number_of(noise: &str) -> usize {
    noise.split(':').next().unwrap().parse().unwrap()
}

fn numbers(range: Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn what_was_not_acknowledged_before_the_end_comes_in_the_next_life_with_its_id() {
    let (device, peer) = (Arc::<Device>::default(), Peer::bind().await);
    let life = Life::begin(&device);
    let link = life.link(settings(vec![peer.address()]));
    push(&link, 3, &numbers(0..1), QoS::AtLeastOnce);
    push(&link, 3, &numbers(1..2), QoS::ExactlyOnce);
    push(&link, 3, &numbers(2..4), QoS::AtLeastOnce);
    push(&link, 3, &numbers(9..10), QoS::AtMostOnce);
    let driver = start(&link, 0);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(served.publish().await);
    }
    served.ack(first[0].id.unwrap(), ReasonCode::Success).await;
    served.ack(first[3].id.unwrap(), ReasonCode::Success).await;
    while link.metrics.inflight.value() > 2 {
        yield_now().await;
    }
    driver.abort();
    assert!(in_time(driver).await.is_err());
    life.end();
    assert_eq!(device.usage().entries, 2, "what is over is gone, and QoS 0 never came here");

    let life = Life::begin(&device);
    let link = life.link(settings(vec![peer.address()]));
    life.links.forget_others();
    let books = link.forwarder.books();
    assert_eq!((books.in_flight, books.queued), (3, 0), "the peer may have any of them");
    let driver = start(&link, 0);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    // Messages that were pushed together are forgotten together; the peer tells a repeated one by its id.
    for original in &first[1..] {
        let again = served.publish().await;
        assert_eq!((again.dup, &again.payload), (true, &original.payload));
        served.ack(again.id.unwrap(), ReasonCode::Success).await;
    }
    push(&link, 3, &numbers(4..5), QoS::ExactlyOnce);
    assert_eq!(take(&mut served, 1).await, [("4".to_owned(), false)]);
    stop(&link, served, driver).await;
    assert_eq!(link.metrics.ledger_unaccounted.value(), 0);
    life.end();
    assert_eq!(device.usage(), Usage::default());
}

#[tokio::test]
async fn an_outage_costs_disk_and_no_memory_and_drains_in_order() {
    let (device, peer) = (Arc::<Device>::default(), Peer::bind().await);
    let life = Life::begin(&device);
    let large = settings::Spool { max_bytes: 100_000_000, ..settings(Vec::new()).spool };
    let link = life.link(settings::Link { spool: large, ..settings(vec![peer.address()]) });
    let texts: Vec<String> = (0..30_000).map(|number| noise(number, 300)).collect();
    for run in texts[..25_000].chunks(10) {
        push(&link, 3, run, QoS::AtLeastOnce);
    }
    let spooled = u64::try_from(link.metrics.spool_bytes.value()).unwrap();
    // Memory is asked for in powers of two.
    let memory_max = 2 * RESIDENT_BYTES_MAX + 4 * PAGE_BYTES;
    let memory = link.forwarder.lanes[0].lock().lane.memory() as u64;
    assert!(spooled > memory_max && memory < memory_max, "{memory} of {spooled}");
    life.end();
    let entries = device.usage().entries;
    assert!(entries < 2_000, "what is not in memory is not in many entries either: {entries}");

    let life = Life::begin(&device);
    let link = life.link(settings::Link { spool: large, ..settings(vec![peer.address()]) });
    let memory = link.forwarder.lanes[0].lock().lane.memory() as u64;
    assert!(memory < memory_max, "{memory}");
    assert_eq!(link.metrics.spool_bytes.value().unsigned_abs(), spooled);
    for run in texts[25_000..].chunks(10) {
        push(&link, 3, run, QoS::ExactlyOnce);
    }
    let driver = start(&link, 0);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    for (number, (text, dup)) in take(&mut served, 30_000).await.into_iter().enumerate() {
        assert_eq!((number_of(&text), dup), (number, number < 25_000));
    }
    stop(&link, served, driver).await;
    assert_eq!((link.metrics.spool_bytes.value(), link.metrics.ledger_unaccounted.value()), (0, 0));
    life.end();
    assert_eq!(device.usage(), Usage::default());
}

#[tokio::test]
async fn with_another_number_of_connections_each_publishers_messages_go_where_its_next_ones_go() {
    let (device, peer) = (Arc::<Device>::default(), Peer::bind().await);
    let large = settings::Spool { max_bytes: 100_000_000, ..settings(Vec::new()).spool };
    let with = |pool_size| settings::Link { pool_size, spool: large, ..settings(vec![peer.address()]) };
    let life = Life::begin(&device);
    let link = life.link(with(1));
    let number = |publisher: u64, number: usize| format!("{publisher}:{}", noise(number, 10_000));
    for round in 0..500 {
        for publisher in 0..3 {
            push(&link, publisher, &[number(publisher, round)], QoS::AtLeastOnce);
        }
    }
    life.end();
    let life = Life::begin(&device);
    let mut link = life.link(with(2));
    // And once more, while it lives.
    push(&link, 2, &[number(2, 500)], QoS::AtLeastOnce);
    let wider = life.links.build(with(3), "A", "a@host", &life.metrics);
    for publisher in 0..2 {
        push(&wider, publisher, &[number(publisher, 500)], QoS::AtLeastOnce);
    }
    wider.forwarder.take_over(&link.forwarder, clock::now());
    link.forwarder.drop_rest(clock::now());
    link = wider;
    for lane in 0..3 {
        let driver = start(&link, lane);
        let mut served = peer.welcome(ReasonCode::Success, &[]).await;
        let texts = take(&mut served, 501).await;
        for (index, (text, _)) in texts.iter().enumerate() {
            assert_eq!(*text, number(lane as u64, index), "each in its lane, in order");
        }
        while link.forwarder.view(clock::now())[lane].in_flight > 0 {
            yield_now().await;
        }
        driver.abort();
    }
    let reasons = [LinkDropReason::Damaged, LinkDropReason::LinkDeleted, LinkDropReason::SpoolFull];
    assert_eq!(reasons.map(|reason| dropped(&link, reason)), [0; 3]);
    life.end();
    assert_eq!(device.usage(), Usage::default());
}

#[tokio::test]
async fn what_is_damaged_is_counted_and_the_rest_comes() {
    let (device, peer) = (Arc::<Device>::default(), Peer::bind().await);
    let large = settings::Spool { max_bytes: 100_000_000, ..settings(Vec::new()).spool };
    let life = Life::begin(&device);
    let link = life.link(settings::Link { spool: large, ..settings(vec![peer.address()]) });
    for number in 0..700 {
        push(&link, 3, &[noise(number, 10_000)], QoS::AtLeastOnce);
    }
    life.end();
    let mut pages = Vec::new();
    device.for_each(Table::Spool, &mut |entry| pages.extend(entry.body)).unwrap();
    *device.damaged.lock() = Some(pages[pages.len() / 2]);

    let life = Life::begin(&device);
    let link = life.link(settings::Link { spool: large, ..settings(vec![peer.address()]) });
    let driver = start(&link, 0);
    let mut served = peer.welcome(ReasonCode::Success, &[]).await;
    let (mut last, mut came) = (None, 0_u64);
    loop {
        let (text, _) = take(&mut served, 1).await.remove(0);
        let number = number_of(&text);
        assert!(last < Some(number));
        (last, came) = (Some(number), came + 1);
        if number == 699 {
            break;
        }
    }
    stop(&link, served, driver).await;
    let lost = dropped(&link, LinkDropReason::Damaged);
    assert_eq!((lost > 0, came + lost, link.metrics.ledger_unaccounted.value()), (true, 700, 0));
    life.end();
    assert_eq!(device.usage(), Usage::default());
}

#[test]
fn the_spool_of_a_link_that_is_gone_or_disabled_is_dropped() {
    let device = Arc::<Device>::default();
    let life = Life::begin(&device);
    for name in ["B", "C", "D"] {
        let link = life.link(settings::Link { name: name.to_owned(), ..settings(Vec::new()) });
        push(&link, 3, &numbers(0..3), QoS::AtLeastOnce);
        if name == "D" {
            link.forwarder.drop_rest(clock::now());
            assert_eq!(dropped(&link, LinkDropReason::LinkDeleted), 3);
        }
        // As when the broker stops.
        link.forwarder.leave(clock::now());
    }
    life.end();
    assert_eq!(device.usage().entries, 2);
    let life = Life::begin(&device);
    let link = life.link(settings::Link { enable: false, ..settings(Vec::new()) });
    assert_eq!(dropped(&link, LinkDropReason::LinkDeleted), 3);
    life.links.forget_others();
    life.end();
    assert_eq!(device.usage(), Usage::default());
}

#[test]
fn a_message_that_grew_old_in_the_life_before_is_not_sent() {
    let device = Arc::<Device>::default();
    let spool = settings::Spool { max_age: Some(Duration::from_secs(60)), ..settings(Vec::new()).spool };
    let aged = settings::Link { spool, ..settings(Vec::new()) };
    let life = Life::begin(&device);
    push(&life.link(aged.clone()), 3, &numbers(0..3), QoS::AtLeastOnce);
    life.end();
    let stored = |device: &Device| read(device).unwrap().remove("B").unwrap();
    let life = Life::begin(&device);
    let later = |ms: u64| {
        let now = clock::now();
        Now { mono_ms: now.mono_ms, unix_ms: now.unix_ms + ms }
    };
    let link = life.links.build(aged.clone(), "A", "a@host", &life.metrics);
    link.forwarder.restore(&stored(&device), later(59_000));
    assert!(link.forwarder.view(clock::now())[0].oldest_age_ms >= Some(59_000));
    link.forwarder.lanes[0].lock().lane.handle_timeout(clock::now());
    assert_eq!(link.forwarder.view(clock::now())[0].queued, 3);
    let link = life.links.build(aged, "A", "a@host", &life.metrics);
    link.forwarder.restore(&stored(&device), later(60_000));
    let mut locked = link.forwarder.lock(0, clock::now());
    locked.state.lane.handle_timeout(clock::now());
    locked.settle();
    drop(locked);
    assert_eq!(link.forwarder.view(clock::now())[0].queued, 0);
    life.end();
    assert_eq!(device.usage(), Usage::default());
}
