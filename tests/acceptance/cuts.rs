//! Pair, ring, mesh and star through random cuts: exactly one copy at QoS 1 and 2 and at most one at QoS 0 for every
//! subscriber of a cluster that is linked directly, none for others, in the order of each publisher; and a peer's
//! restart costs its neighbours no route and no message that they had spooled for it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;
use tombolo::mqtt::packet::QoS;

use crate::clusters::Clusters;
use crate::clusters::Shape;
use crate::harness::Client;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::is_full;
use crate::number;

/// Cuts of the short form, and of the whole.
const CUTS: (u64, u64) = (10, 200);
/// One cut of so many is longer than routes live, if there is time for that.
const LONG_EVERY: u64 = 50;
const LONG: Duration = Duration::from_secs(35);
/// One of so many is a restart of a cluster.
const RESTART_EVERY: u64 = 20;
/// How long all that is owed may take to arrive: what leads nowhere is noticed after half a minute, or a minute and a
/// half if nothing is sent.
const SETTLED: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(150));
/// Between two messages of one publisher.
const PACE: Duration = Duration::from_millis(10);
/// The last message, which goes to no peer.
const STOP: &str = "stop";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

/// Cluster, QoS: one publisher and its topic.
type Publisher = (usize, usize);
/// What came of each publisher, in order.
type Received = BTreeMap<Publisher, Vec<u64>>;

/// Publishes one number after the other until it is told to stop; gives the number that would be next.
async fn publish(mut client: Client, who: Publisher, from: u64, mut stop: watch::Receiver<bool>) -> u64 {
    let topic = format!("x/{}/{}", who.0, who.1);
    let mut pace = time::interval(PACE);
    let mut next = from;
    while !*stop.borrow_and_update() {
        pace.tick().await;
        client.publish(&topic, next.to_string().as_bytes(), QoS::ALL[who.1]).await;
        next += 1;
    }
    // Everything is handled when it has answered this.
    client.quiet().await;
    next
}

/// Notes what comes until the last message.
async fn subscribe(mut client: Client) -> Received {
    let mut received = Received::new();
    loop {
        let message = client.receive().await;
        if message.topic == STOP {
            if message.payload.is_empty() {
                return received;
            }
            continue;
        }
        let mut levels = message.topic.split('/').skip(1).map(|level| level.parse().unwrap());
        let who = (levels.next().unwrap(), levels.next().unwrap());
        received.entry(who).or_default().push(message.text().parse().unwrap());
    }
}

/// Lets a subscriber see now and then that its cluster lives.
async fn tick(mut client: Client) {
    let mut pace = time::interval(Duration::from_secs(5));
    loop {
        pace.tick().await;
        client.publish(STOP, b"not yet", Q1).await;
    }
}

/// The clients of one cluster in one of its lives.
struct Life {
    subscriber: JoinHandle<Received>,
    /// Ends with this.
    ticker: JoinSet<()>,
    publishers: Vec<JoinHandle<u64>>,
    stop: watch::Sender<bool>,
}

impl Life {
    /// A subscriber, and nobody who publishes yet.
    async fn begin(clusters: &Clusters, index: usize) -> Self {
        let mut client = clusters.join(index, "subscriber").await;
        assert_eq!(client.subscribe("x/#", Q2).await, 2);
        assert_eq!(client.subscribe(STOP, Q1).await, 1);
        let mut ticker = JoinSet::new();
        ticker.spawn(tick(clusters.join(index, "ticker").await));
        let subscriber = tokio::spawn(subscribe(client));
        Self { subscriber, ticker, publishers: Vec::new(), stop: watch::Sender::new(false) }
    }

    /// The subscriber ends behind all that has come; what it got.
    async fn end(&mut self, clusters: &Clusters, index: usize) -> Received {
        self.ticker.shutdown().await;
        clusters.join(index, "last").await.publish(STOP, b"", Q1).await;
        (&mut self.subscriber).await.unwrap()
    }

    async fn publishers(&mut self, clusters: &Clusters, index: usize, next: [u64; 3]) {
        self.stop.send_replace(false);
        for (qos, next) in next.into_iter().enumerate() {
            let client = clusters.join(index, &format!("publisher-{qos}")).await;
            let task = tokio::spawn(publish(client, (index, qos), next, self.stop.subscribe()));
            self.publishers.push(task);
        }
    }

    /// The publishers end; the numbers that would have been next.
    async fn hush(&mut self) -> [u64; 3] {
        self.stop.send_replace(true);
        let mut next = [0; 3];
        for (next, publisher) in next.iter_mut().zip(self.publishers.drain(..)) {
            *next = publisher.await.unwrap();
        }
        next
    }
}

/// What became of everything.
struct Account {
    /// By cluster: what its subscriber got, in each of its lives.
    received: Vec<Vec<Received>>,
    /// By publisher: the numbers below it may be lost, for its own cluster began anew.
    excused: BTreeMap<Publisher, u64>,
    /// Whether a cluster knew the routes of a peer already, in this life.
    knew: BTreeMap<(usize, usize), bool>,
}

impl Account {
    fn new(count: usize) -> Self {
        let received = (0..count).map(|_| Vec::new()).collect();
        Self { received, excused: BTreeMap::new(), knew: BTreeMap::new() }
    }

    /// No cluster has forgotten what a peer wants.
    fn look(&mut self, clusters: &Clusters) {
        for edge in &clusters.edges {
            let knows = clusters.known(edge.to, edge.from) > 0;
            let knew = self.knew.entry((edge.to, edge.from)).or_default();
            assert!(knows || !*knew, "{} forgot the routes of {}", edge.to, edge.from);
            *knew |= knows;
        }
        for edge in &clusters.edges {
            let link = clusters.link(edge.from, edge.to);
            assert_eq!(link.metrics.ledger_unaccounted.value(), 0, "from {} to {}", edge.from, edge.to);
        }
    }

    fn check(&self, shape: Shape, next: &[[u64; 3]]) -> (usize, usize) {
        let (mut copies, mut lost) = (0, 0);
        for (at, lives) in self.received.iter().enumerate() {
            for (from, next) in next.iter().enumerate() {
                for (qos, next) in next.iter().enumerate() {
                    let of = |life: &Received| life.get(&(from, qos)).cloned().unwrap_or_default();
                    let all: Vec<Vec<u64>> = lives.iter().map(of).collect();
                    let where_ = format!("at {at} from {from}, QoS {qos}");
                    if at != from && !shape.links(at, from) {
                        assert!(all.iter().all(Vec::is_empty), "{where_}: went further than one hop");
                        continue;
                    }
                    for life in &all {
                        let wrong = life.windows(2).find(|pair| pair[0] >= pair[1]);
                        assert!(wrong.is_none(), "{where_}: twice or out of order: {wrong:?}");
                    }
                    let mut got: Vec<u64> = all.concat();
                    copies += got.len();
                    got.sort_unstable();
                    got.dedup();
                    let excused = self.excused.get(&(from, qos)).copied().unwrap_or(0);
                    let missing: Vec<u64> =
                        (0..*next).filter(|number| got.binary_search(number).is_err()).collect();
                    if qos == 0 {
                        lost += missing.len();
                        continue;
                    }
                    let unexcused: Vec<&u64> = missing.iter().filter(|number| **number >= excused).collect();
                    assert!(unexcused.is_empty(), "{where_}: lost {unexcused:?} of {next}");
                }
            }
        }
        (copies, lost)
    }
}

/// One shape from beginning to end.
struct Run {
    clusters: Clusters,
    random: Random,
    account: Account,
    lives: Vec<Life>,
    /// What is to heal, and when; whether its connections are reset then.
    heals: Vec<(Instant, usize, bool)>,
    full: bool,
}

impl Run {
    async fn start(shape: Shape, seed: u64, full: bool) -> Self {
        let clusters = Clusters::start(shape).await;
        let mut lives = Vec::new();
        for index in 0..shape.count() {
            lives.push(Life::begin(&clusters, index).await);
        }
        clusters.linked(SETTLED.0).await;
        for (index, life) in lives.iter_mut().enumerate() {
            life.publishers(&clusters, index, [0; 3]).await;
        }
        let account = Account::new(shape.count());
        Self { clusters, random: Random(seed), account, lives, heals: Vec::new(), full }
    }

    /// Lets time pass, in which what was cut heals.
    async fn pass(&mut self, until: Instant) {
        loop {
            let due = self.heals.iter().map(|(due, ..)| *due).filter(|due| *due <= until).min();
            time::sleep_until(due.unwrap_or(until)).await;
            self.account.look(&self.clusters);
            let Some(due) = due else { return };
            for (_, edge, reset) in self.heals.extract_if(.., |(at, ..)| *at <= due) {
                let relay = &self.clusters.edges[edge].relay;
                relay.heal();
                if reset {
                    relay.reset();
                }
            }
        }
    }

    /// The ways that a cut hits: one, both between two clusters, or all of one.
    fn victims(&mut self) -> Vec<usize> {
        let edges = &self.clusters.edges;
        let one = &edges[self.random.below(edges.len() as u64) as usize];
        let ends = (one.from, one.to);
        let all = self.random.below(10);
        let hit = edges.iter().enumerate().filter(|(_, edge)| match all {
            0..5 => (edge.from, edge.to) == ends,
            5..8 => (edge.from, edge.to) == ends || (edge.to, edge.from) == ends,
            _ => edge.from == ends.0 || edge.to == ends.0,
        });
        hit.map(|(index, _)| index).collect()
    }

    fn cut(&mut self, number: u64) {
        let long = self.full && number % LONG_EVERY == LONG_EVERY - 1;
        let lasts = if long { LONG } else { self.random.ms(if self.full { 1_500 } else { 700 }) };
        let kind = self.random.below(3);
        // Now and then nobody ever tells that a connection leads nowhere.
        let told = !self.full || self.random.below(2) == 0;
        for edge in self.victims() {
            self.heals.retain(|(_, other, _)| *other != edge);
            let relay = &self.clusters.edges[edge].relay;
            match kind {
                0 => relay.reset(),
                1 => relay.drop_all(),
                _ => relay.swallow(),
            }
            self.heals.push((Instant::now() + lasts, edge, kind == 2 && told));
        }
    }

    /// A cluster dies while it is cut off, and comes back without a memory.
    async fn restart(&mut self, index: usize) {
        let next = self.lives[index].hush().await;
        let its_own = |from: usize, to: usize| from == index || to == index;
        for (number, edge) in self.clusters.edges.iter().enumerate() {
            if its_own(edge.from, edge.to) {
                self.heals.retain(|(_, other, _)| *other != number);
                edge.relay.drop_all();
            }
        }
        // Whatever its neighbours know to have come is ahead of this.
        self.account.received[index].push(self.lives[index].end(&self.clusters, index).await);
        self.clusters.end(index).await;
        self.clusters.begin(index).await;
        self.account.knew.retain(|(at, _), _| *at != index);
        self.lives[index] = Life::begin(&self.clusters, index).await;
        for (qos, next) in next.into_iter().enumerate() {
            self.account.excused.insert((index, qos), next);
        }
        for edge in self.clusters.edges.iter().filter(|edge| its_own(edge.from, edge.to)) {
            edge.relay.heal();
        }
        // Until a peer has said so again, nobody knows that it wants what is published here.
        let told = |all: &Clusters| {
            all.edges.iter().filter(|edge| edge.to == index).all(|edge| all.known(index, edge.from) > 0)
        };
        self.clusters.until("its peers told it their routes again", SETTLED.0, told).await;
        self.lives[index].publishers(&self.clusters, index, next).await;
    }

    async fn finish(mut self) -> (usize, usize) {
        let limit = if self.full { SETTLED.1 } else { SETTLED.0 };
        let mut next = Vec::new();
        for life in &mut self.lives {
            next.push(life.hush().await);
        }
        self.clusters.edges.iter().for_each(|edge| edge.relay.heal());
        self.clusters.linked(limit).await;
        let empty = |all: &Clusters| {
            all.sum(|link| link.metrics.spool_messages.value() + link.metrics.inflight.value()) == 0
        };
        self.clusters.until("nothing waits any more", limit, empty).await;
        self.account.look(&self.clusters);
        for (index, life) in self.lives.iter_mut().enumerate() {
            self.account.received[index].push(life.end(&self.clusters, index).await);
        }
        self.account.check(self.clusters.shape, &next)
    }
}

async fn go_through(shape: Shape) {
    let full = is_full();
    let cuts = number("CUTS", if full { CUTS.1 } else { CUTS.0 });
    let seed = number("SEED", shape.count() as u64);
    println!("{shape:?}: SEED={seed}, {cuts} cuts");
    let mut run = Run::start(shape, seed, full).await;
    let began = Instant::now();
    let mut restarts = 0;
    for number in 0..cuts {
        let pause = run.random.ms(if full { 800 } else { 300 });
        run.pass(Instant::now() + pause).await;
        if number % RESTART_EVERY == RESTART_EVERY.min(cuts) / 2 {
            let index = run.random.below(shape.count() as u64) as usize;
            run.restart(index).await;
            restarts += 1;
        } else {
            run.cut(number);
        }
    }
    if let Some(last) = run.heals.iter().map(|(due, ..)| *due).max() {
        run.pass(last).await;
    }
    let (copies, lost) = run.finish().await;
    println!(
        "{shape:?}: SEED={seed}, {cuts} cuts of which {restarts} were restarts, {:.0?}: {copies} copies; of QoS 1 and 2 \
         none lost, none twice, none out of order; {lost} of QoS 0 did not come",
        began.elapsed()
    );
    assert!(copies > 0);
}

#[tokio::test]
async fn pair_ring_mesh_and_star_go_through_cuts_and_restarts_and_lose_repeat_and_reorder_nothing() {
    tokio::join!(
        go_through(Shape::Mesh(2)),
        go_through(Shape::Mesh(3)),
        go_through(Shape::Mesh(5)),
        go_through(Shape::Star(10)),
    );
}
