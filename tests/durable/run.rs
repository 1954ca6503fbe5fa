//! One run: clients that publish and subscribe, brokers to which something happens again and again, and the reckoning.

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Version;

use crate::book::Book;
use crate::book::Phase;
use crate::changes::Changes;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::line::Identity;
use crate::line::Line;
use crate::mutate::Dice;
use crate::odd::Odd;
use crate::publisher::Publisher;
use crate::subscriber::Method;
use crate::subscriber::Subscriber;
use crate::world;
use crate::world::Harm;
use crate::world::Site;

/// How long nothing may come while something is owed.
const PROGRESS: Duration = Duration::from_secs(60);
/// Topics of each publisher.
const TOPICS: usize = 3;
/// Topics with a retained message of each publisher of those: all of them together arrive at once.
const RETAINED: usize = 4;

/// What a run is like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) harm: Harm,
    pub(crate) durability: String,
    /// Whether messages cross the link as well.
    pub(crate) linked: bool,
    /// How often something happens.
    pub(crate) strikes: usize,
    /// Messages that are acknowledged in between, at most.
    pub(crate) between: usize,
}

/// See the module.
pub(crate) struct Run {
    plan: Plan,
    dice: Dice,
    book: Arc<Book>,
    sites: [Site; 2],
    odd: [Odd; 2],
    publishers: JoinSet<()>,
    subscribers: JoinSet<()>,
    ready: Arc<watch::Sender<usize>>,
    restarts: Vec<Duration>,
}

/// Says what is known when a run fails.
struct Witness(Arc<Book>, u64);

impl Drop for Witness {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self(book, seed) = self;
            book.with(|ledger| {
                eprintln!("SEED={seed}: {:?}", ledger.totals());
                ledger.violations().iter().for_each(|violation| eprintln!("  {violation}"));
                ledger.missing().iter().for_each(|missing| eprintln!("  {missing}"));
            });
        }
    }
}

impl Run {
    /// Everything that a run has, before it begins.
    async fn new(plan: Plan) -> Self {
        let book = Arc::<Book>::default();
        let sites = world::start(plan.harm, &plan.durability).await;
        let mut dice = Dice(plan.seed);
        let odd = [("a", 0), ("b", 1)].map(|(site, index)| {
            let stream = |topic: String, qos| book.with(|ledger| ledger.stream(&topic, qos));
            Odd {
                book: Arc::clone(&book),
                at: sites[index].address(),
                delayed: stream(format!("l/{site}/delayed"), Q1),
                wills: stream(format!("l/{site}/will"), Q1),
                retained: Vec::new(),
                dice: fork(&mut dice),
                clients: 0,
            }
        });
        Self {
            plan,
            dice,
            book,
            sites,
            odd,
            publishers: JoinSet::new(),
            subscribers: JoinSet::new(),
            ready: Arc::default(),
            restarts: Vec::new(),
        }
    }

    fn identity(&self, version: Version, id: &str, site: usize) -> Identity {
        Identity::new(version, id, &self.sites[site].address())
    }

    /// Whoever subscribes with a receiver of its own.
    fn subscriber(&mut self, id: &str, site: usize, filter: &'static str, qos: QoS, restless: usize) {
        let is_ordered = !filter.starts_with("l/");
        let receiver = self.book.with(|ledger| {
            ledger.receiver(id, filter.strip_suffix('#').expect("every filter has one"), qos, is_ordered)
        });
        self.subscriber_as(id, site, filter, qos, restless, receiver);
    }

    fn subscriber_as(
        &mut self,
        id: &str,
        site: usize,
        filter: &'static str,
        qos: QoS,
        restless: usize,
        receiver: usize,
    ) {
        let [version, method] = [self.dice.roll(3), self.dice.roll(2)];
        let subscriber = Subscriber {
            who: self.identity(if version == 0 { Version::V311 } else { Version::V5 }, id, site),
            book: Arc::clone(&self.book),
            receiver,
            filter,
            qos,
            method: if method == 0 { Method::A } else { Method::B },
            restless,
            dice: fork(&mut self.dice),
            ready: Arc::clone(&self.ready),
        };
        self.subscribers.spawn(subscriber.run());
    }

    fn publisher(&mut self, version: Version, site: usize, prefix: &str, qos: QoS, window: usize) {
        let retain = prefix == "r/";
        let id = format!("publisher-{prefix}{site}-{}-{window}", qos as u8);
        let topics = if retain { RETAINED } else { TOPICS };
        let streams: Vec<usize> = (0..topics)
            .map(|topic| self.book.with(|ledger| ledger.stream(&format!("{prefix}{id}/{topic}"), qos)))
            .collect();
        if retain {
            self.odd[site].retained.extend(&streams);
        }
        let publisher = Publisher {
            who: self.identity(version, &id, site),
            book: Arc::clone(&self.book),
            qos,
            streams,
            retain,
            window,
            dice: fork(&mut self.dice),
        };
        self.publishers.spawn(publisher.run());
    }

    /// Subscribers first: when they are all there, publishers.
    async fn begin(&mut self) {
        self.subscriber("all-1", 0, "k/#", Q1, 0);
        self.subscriber("all-2", 0, "k/#", Q2, 0);
        self.subscriber("restless-1", 0, "k/#", Q1, 200);
        self.subscriber("restless-2", 0, "k/#", Q2, 200);
        let shared = self.book.with(|ledger| ledger.receiver("shared", "k/", Q2, false));
        self.subscriber_as("shared-1", 0, "$share/g/k/#", Q2, 0, shared);
        self.subscriber_as("shared-2", 0, "$share/g/k/#", Q2, 300, shared);
        if self.plan.linked {
            self.subscriber("linked-b-1", 1, "x/a/#", Q1, 200);
            self.subscriber("linked-b-2", 1, "x/a/#", Q2, 0);
            self.subscriber("linked-a-2", 0, "x/b/#", Q2, 200);
        }
        self.subscriber("later-a", 0, "l/a/#", Q1, 0);
        self.subscriber("later-b", 1, "l/b/#", Q2, 0);
        let (mut ready, count) = (self.ready.subscribe(), self.subscribers.len());
        let all = ready.wait_for(|now| *now == count);
        drop(over(&mut self.subscribers, all).await.unwrap());
        for (site, peer) in [(0, "B"), (1, "A")] {
            let wanted = format!("tombolo_link_routes{{peer=\"{peer}\",dir=\"in\",kind=\"plain\"}}");
            self.sites[site].process.until_metric(&wanted, u64::from(self.plan.linked)).await;
        }
        for (qos, version, window) in
            [(Q1, Version::V5, 10), (Q2, Version::V5, 10), (Q1, Version::V311, 1), (Q2, Version::V311, 20)]
        {
            self.publisher(version, 0, "k/", qos, window);
        }
        for qos in [Q1, Q2] {
            self.publisher(Version::V5, 0, "r/", qos, 4);
            if self.plan.linked {
                self.publisher(Version::V5, 0, "x/a/", qos, 5);
                self.publisher(Version::V5, 1, "x/b/", qos, 5);
            }
        }
        for site in [0, 1] {
            let who = self.identity(Version::V5, "changes", site);
            let dice = fork(&mut self.dice);
            self.publishers.spawn(Changes::new(who, &self.book, dice).run());
        }
    }

    /// What happens once, after some messages.
    async fn strike(&mut self) {
        let few = self.dice.roll(10);
        let count = match few {
            0 => 0,
            1..=4 => self.dice.roll(self.plan.between / 10 + 1),
            _ => self.dice.roll(self.plan.between),
        };
        let threats = self.odd_jobs().await;
        let until = self.book.acknowledged() + count as u64;
        let book = Arc::clone(&self.book);
        let reached = time::timeout(PROGRESS * 5, book.until_acknowledged(until));
        let reached = over(&mut self.publishers, reached);
        assert!(over(&mut self.subscribers, reached).await.is_ok(), "too few acknowledgements");
        let struck: &[usize] = match self.dice.roll(8) {
            0 => &[0, 1],
            1..=4 => &[0],
            _ => &[1],
        };
        struck.iter().for_each(|site| self.strike_at(*site));
        drop(threats);
        for site in struck {
            let while_it_starts = (self.dice.roll(6) == 0).then(|| self.dice.roll(8));
            self.restarts.extend(self.sites[*site].recover(while_it_starts).await);
        }
        if struck.contains(&0) && count > 0 {
            self.odd[0].look().await;
        }
        self.assert_well();
    }

    fn strike_at(&mut self, site: usize) {
        if self.plan.harm == Harm::Kill {
            self.book.with(|ledger| ledger.kills = ledger.kills.saturating_add(1));
        }
        self.sites[site].strike();
    }

    /// Now and then something is promised that comes later.
    async fn odd_jobs(&mut self) -> Vec<Line> {
        let mut threats = Vec::new();
        for odd in &mut self.odd {
            match self.dice.roll(4) {
                0 => odd.delay().await,
                1 => threats.extend(odd.threaten().await),
                2 => drop(odd.relent().await),
                _ => {}
            }
        }
        threats
    }

    /// Nothing new, and everything that is owed; then once more without anything being owed.
    async fn end(&mut self) {
        self.book.enter(Phase::Draining);
        let ended = async { while self.publishers.join_next().await.transpose().unwrap().is_some() {} };
        let ended = time::timeout(PROGRESS, ended);
        assert!(over(&mut self.subscribers, ended).await.is_ok(), "publishers wait for acknowledgements");
        let book = Arc::clone(&self.book);
        over(&mut self.subscribers, settle(&book)).await;
        self.odd[0].look().await;
        for site in [0, 1] {
            self.strike_at(site);
            self.restarts.extend(self.sites[site].recover(None).await);
        }
        self.odd[0].look().await;
        self.book.enter(Phase::Ending);
        let ended = async { while self.subscribers.join_next().await.transpose().unwrap().is_some() {} };
        assert!(time::timeout(PROGRESS, ended).await.is_ok(), "subscribers are in the middle of something");
        self.sites.iter_mut().for_each(|site| site.process.assert_unharmed());
        self.assert_well();
        assert!(self.book.with(|ledger| ledger.missing()).is_empty());
    }

    fn assert_well(&self) {
        assert!(self.book.with(|ledger| ledger.violations().is_empty()), "see above");
    }

    fn report(&mut self) {
        let Plan { seed, harm, durability, strikes, .. } = &self.plan;
        println!("{harm:?} x {strikes}, {durability}, SEED={seed}: {:?}", self.book.with(|it| it.totals()));
        let count = |of: fn(&Odd) -> usize| {
            self.odd.each_ref().map(|odd| self.book.with(|ledger| ledger.progress(of(odd)).1))
        };
        let (delayed, wills) = (count(|odd| odd.delayed), count(|odd| odd.wills));
        println!("delayed at A and B {delayed:?}, Wills {wills:?}");
        self.restarts.sort_unstable();
        if let [first, .., last] = self.restarts[..] {
            let middle = self.restarts[self.restarts.len() / 2];
            println!("{} restarts took {first:?} to {last:?}, half of them {middle:?}", self.restarts.len());
        }
    }
}

/// See the module.
pub(crate) async fn run(plan: Plan) {
    let mut run = Run::new(plan).await;
    let _witness = Witness(Arc::clone(&run.book), run.plan.seed);
    run.begin().await;
    for _ in 0..run.plan.strikes {
        run.strike().await;
    }
    run.end().await;
    run.report();
}

/// Dice of their own.
fn fork(dice: &mut Dice) -> Dice {
    Dice(dice.roll(usize::MAX) as u64)
}

/// Does something while none of these tasks may fail.
async fn over<T>(tasks: &mut JoinSet<()>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(ended) = tasks.join_next() => ended.unwrap(),
        }
    }
}

/// Waits until everything came that is owed.
async fn settle(book: &Book) {
    let mut receptions = book.receptions();
    while book.with(|ledger| ledger.outstanding()) > 0 {
        let came = time::timeout(PROGRESS, receptions.changed()).await;
        assert!(came.is_ok(), "nothing came in {PROGRESS:?}, and this is owed");
    }
}
