//! One storage for all threads: they fill a group together, one thread commits it, and whoever waits is woken.
//!
//! What one turn of a connection changes belongs together, so it is in one group: the turn holds a [`Burst`], and no group
//! is taken while there is any. A group is committed as soon as the one before is: the longer that takes, the more of them
//! share a synchronisation. Within a group changes stand in the order in which they were made, as long as whoever makes them does so
//! under the lock of what they are about.
//!
//! Lock order: a [`Burst`] is begun before anything else is locked; inside of one, another is free.

mod watch;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::RwLock;
use parking_lot::RwLockReadGuard;
use rapidhash::fast::RandomState;

use crate::metrics::StoreMetrics;
pub use crate::metrics::labels::StoreTrouble as Trouble;
use crate::net::clock;
use crate::storage::Storage;
use crate::storage::group::Group;

/// How often space is given back while nothing is to be committed.
const IDLE: Duration = Duration::from_millis(250);
/// How long to wait before a group that could not be committed is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// What a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is on the disk.
    Fsync,
    /// The operating system has it.
    Write,
}

impl Mode {
    /// Its name in settings, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Write => "write",
        }
    }
}

/// What is being gathered.
#[derive(Debug, Default)]
pub struct Filling {
    /// The changes.
    pub group: Group,
    /// Numbers of the bodies that are in it, by where they are in memory; they are held, so that nothing else gets there.
    bodies: HashMap<usize, u64, RandomState>,
    held: Vec<Arc<[u8]>>,
}

impl Filling {
    /// The number of a body that other entries of this group may refer to as well. `write` gives its parts, once.
    pub fn body(
        &mut self,
        block: &Arc<[u8]>,
        numbers: &AtomicU64,
        write: impl FnOnce(&mut Group, u64),
    ) -> u64 {
        let at = block.as_ptr() as usize;
        if let Some(known) = self.bodies.get(&at) {
            return *known;
        }
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        self.bodies.insert(at, number);
        self.held.push(Arc::clone(block));
        write(&mut self.group, number);
        number
    }

    fn clear(&mut self) {
        self.group.clear();
        self.bodies.clear();
        self.held.clear();
    }
}

/// See the module.
pub struct Store {
    storage: Box<dyn Storage>,
    mode: Mode,
    gate: RwLock<()>,
    filling: Mutex<Filling>,
    /// The number of the group that is filled. It changes only while nobody has a [`Burst`].
    number: AtomicU64,
    work: Condvar,
    committed: AtomicU64,
    waiting: Mutex<Vec<(u64, Waker)>>,
    next_number: Arc<AtomicU64>,
    /// One more than the index of what is wrong; 0 while nothing is.
    trouble: AtomicU8,
    /// Since when, on the monotonic clock.
    trouble_since_ms: AtomicU64,
    /// When the group that is being committed was taken; 0 while there is none.
    taken_ms: AtomicU64,
    filling_bytes: AtomicU64,
    taken_bytes: AtomicU64,
    stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// With more bytes nothing is taken that has to be kept. What is under way is still committed, and so is what
    /// makes room.
    bytes_max: AtomicU64,
    is_full: AtomicBool,
    /// What happened.
    metrics: StoreMetrics,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("storage", &self.storage)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// How many bursts of this thread are inside of one another.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether one of them changed what an acknowledgement promises.
    static PROMISED: Cell<bool> = const { Cell::new(false) };
}

/// Changes of one turn: they are committed together. It is not to be held across an await.
#[must_use]
pub struct Burst<'a> {
    store: &'a Store,
    _gate: Option<RwLockReadGuard<'a, ()>>,
}

impl Burst<'_> {
    /// Adds changes. `promises`: an acknowledgement of this turn promises them, and has to wait for them.
    pub fn append(&self, promises: bool, write: impl FnOnce(&mut Filling)) {
        if promises {
            PROMISED.set(true);
        }
        let mut filling = self.store.filling.lock();
        let was_empty = filling.group.is_empty();
        write(&mut filling);
        self.store.filling_bytes.store(filling.group.as_bytes().len() as u64, Ordering::Relaxed);
        if was_empty && !filling.group.is_empty() {
            drop(filling);
            self.store.work.notify_one();
        }
    }

    /// Where numbers of keys and bodies come from.
    #[must_use]
    pub fn numbers(&self) -> &AtomicU64 {
        &self.store.next_number
    }

    /// The number of the group that the changes are in.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.store.number.load(Ordering::Relaxed)
    }

    /// The group to wait for, if an acknowledgement of this turn promises anything.
    #[must_use]
    pub fn promised(&self) -> Option<u64> {
        PROMISED.get().then(|| self.number())
    }
}

impl Drop for Burst<'_> {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

impl Store {
    /// Begins to commit on a thread of its own.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(storage: Box<dyn Storage>, mode: Mode) -> io::Result<Arc<Self>> {
        let store = Arc::new(Self {
            next_number: Arc::new(AtomicU64::new(storage.last_number() + 1)),
            storage,
            mode,
            gate: RwLock::default(),
            filling: Mutex::default(),
            number: AtomicU64::new(1),
            work: Condvar::new(),
            committed: AtomicU64::new(0),
            waiting: Mutex::default(),
            trouble: AtomicU8::new(0),
            trouble_since_ms: AtomicU64::new(0),
            taken_ms: AtomicU64::new(0),
            filling_bytes: AtomicU64::new(0),
            taken_bytes: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            thread: Mutex::default(),
            bytes_max: AtomicU64::new(u64::MAX),
            is_full: AtomicBool::new(false),
            metrics: StoreMetrics::default(),
        });
        let committer = Arc::clone(&store);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || committer.run())?;
        *store.thread.lock() = Some(thread);
        Ok(store)
    }

    /// What a commit promises.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where it is kept, to be read.
    #[must_use]
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// A number that no key and no body has had.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the numbers come from: they rise.
    #[must_use]
    pub fn numbers(&self) -> &Arc<AtomicU64> {
        &self.next_number
    }

    /// Begins a turn, before anything is locked. Inside of another it is a part of that.
    pub fn begin(&self) -> Burst<'_> {
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        let gate = (depth == 0).then(|| {
            PROMISED.set(false);
            self.gate.read()
        });
        Burst { store: self, _gate: gate }
    }

    /// The same under a lock: whoever holds that must have begun a turn before.
    pub fn begin_inside(&self) -> Burst<'_> {
        debug_assert!(DEPTH.get() > 0, "a turn begins before anything is locked");
        self.begin()
    }

    /// The number of the last group that is committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether a group is committed; if not, the task is woken when it is. `gives_up`: also when that does not work.
    ///
    /// # Errors
    /// It does not work for now.
    pub fn poll_committed(&self, number: u64, gives_up: bool, cx: &Context<'_>) -> Poll<Result<(), Trouble>> {
        if self.committed() >= number {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = self.waiting.lock();
        if self.committed() >= number {
            return Poll::Ready(Ok(()));
        }
        if let Some(trouble) = self.lasting_trouble().filter(|_| gives_up) {
            return Poll::Ready(Err(trouble));
        }
        if !waiting.iter().rev().take(4).any(|(group, waker)| *group == number && waker.will_wake(cx.waker()))
        {
            waiting.push((number, cx.waker().clone()));
        }
        Poll::Pending
    }

    /// Waits until a group is committed.
    ///
    /// # Errors
    /// It cannot be for now; it is tried again nevertheless.
    pub async fn wait(&self, number: u64) -> Result<(), Trouble> {
        poll_fn(|cx| self.poll_committed(number, true, cx)).await
    }

    /// Commits what there is and ends. What comes afterwards is not kept.
    pub fn stop(&self) {
        self.end();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic there is in the log.
            let _ = thread.join();
        }
    }

    /// The same without waiting for it.
    pub fn end(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Under the lock, so that it is not missed between look and wait.
        drop(self.filling.lock());
        self.work.notify_one();
    }

    fn run(&self) {
        let mut taken = Filling::default();
        while let Some(number) = self.take(&mut taken) {
            let committed = self.commit_until_it_works(&mut taken.group);
            taken.clear();
            if !committed {
                break;
            }
            self.taken_bytes.store(0, Ordering::Relaxed);
            self.committed.store(number, Ordering::Release);
            self.wake(|group| group <= number);
            self.tidy_up();
        }
        // Whoever waits for this thread may let another broker have the directory.
        if let Err(error) = self.storage.close() {
            tracing::warn!(%error, "the store could not be closed as it should; nothing is lost by that");
        }
    }

    /// Waits for a group and takes it; `None` at the end.
    fn take(&self, taken: &mut Filling) -> Option<u64> {
        {
            let mut filling = self.filling.lock();
            while filling.group.is_empty() {
                if self.stopping.load(Ordering::Relaxed) {
                    return None;
                }
                if self.work.wait_for(&mut filling, IDLE).timed_out() {
                    drop(filling);
                    self.tidy_up();
                    filling = self.filling.lock();
                }
            }
        }
        let _alone = self.gate.write();
        let mut filling = self.filling.lock();
        std::mem::swap(taken, &mut filling);
        self.filling_bytes.store(0, Ordering::Relaxed);
        self.taken_bytes.store(taken.group.as_bytes().len() as u64, Ordering::Relaxed);
        Some(self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// Tries again and again. Whether it worked in the end: not when the broker stops meanwhile.
    fn commit_until_it_works(&self, group: &mut Group) -> bool {
        loop {
            let before = clock::now();
            self.taken_ms.store(before.mono_ms.max(1), Ordering::Relaxed);
            let started_us = clock::mono_us();
            let result = self.storage.commit(group, self.mode == Mode::Fsync);
            self.taken_ms.store(0, Ordering::Relaxed);
            let error = match result {
                Ok(()) => {
                    self.metrics.commit_time.observe_us(clock::mono_us().saturating_sub(started_us), 1);
                    self.metrics.commits.inc();
                    self.metrics.records.add(group.records() as u64);
                    self.metrics.written.add(group.as_bytes().len() as u64);
                    self.recover();
                    return true;
                }
                Err(error) => error,
            };
            self.fail(&error, before.mono_ms);
            if self.stopping.load(Ordering::Relaxed) {
                tracing::error!(%error, records = group.records(), "stopped with changes that could not be written");
                return false;
            }
            thread::sleep(RETRY);
            self.wake(|_| self.lasting_trouble().is_some());
            // It may be space that is missing.
            self.tidy_up();
        }
    }

    fn wake(&self, which: impl Fn(u64) -> bool) {
        let woken: Vec<(u64, Waker)> = {
            let mut waiting = self.waiting.lock();
            waiting.extract_if(.., |(group, _)| which(*group)).collect()
        };
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn tidy_up(&self) {
        if let Err(error) = self.storage.maintain() {
            tracing::warn!(%error, "the store could not give space back");
        }
        self.note_size();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Key;
    use crate::storage::Table;
    use crate::storage::memory::Memory;

    fn put(burst: &Burst<'_>, number: u64) {
        burst.append(true, |filling| filling.group.put(Table::Ban, Key::Number(number), None, |_| ()));
    }

    fn wait(store: &Store, number: u64) {
        while store.committed() < number {
            thread::yield_now();
        }
    }

    #[test]
    fn what_one_turn_changes_is_committed_together_and_whoever_waits_is_told() {
        let store = Store::start(Box::<Memory>::default(), Mode::Fsync).unwrap();
        let burst = store.begin();
        let number = burst.number();
        for entry in 0..1_000 {
            let inside = store.begin();
            put(&inside, entry);
            assert_eq!((inside.promised(), inside.number()), (Some(number), number));
        }
        assert!(store.committed() < number && store.storage().usage().entries == 0);
        drop(burst);
        wait(&store, number);
        assert_eq!((store.storage().usage().entries, store.metrics().commits.value()), (1_000, 1));
        assert_eq!(store.begin().promised(), None, "another turn promises nothing of that");
        store.stop();
    }

    #[test]
    fn a_stop_commits_what_there_is() {
        let store = Store::start(Box::<Memory>::default(), Mode::Write).unwrap();
        (0..100).for_each(|number| put(&store.begin(), number));
        store.stop();
        assert_eq!(store.storage().usage().entries, 100);
    }

    #[test]
    fn above_its_bound_a_store_says_so_and_still_commits_what_makes_room() {
        let store = Store::start(Box::<Memory>::default(), Mode::Write).unwrap();
        store.set_bytes_max(10);
        let put = |bytes: usize| {
            let burst = store.begin();
            let key = Key::Number(1);
            burst.append(true, |filling| {
                filling.group.put(Table::Ban, key, None, |out| out.resize(out.len() + bytes, 0))
            });
            burst.number()
        };
        for (bytes, trouble) in [(9, None), (10, Some(Trouble::Full)), (11, Some(Trouble::Full)), (9, None)] {
            let number = put(bytes);
            wait(&store, number);
            while store.trouble() != trouble {
                thread::yield_now();
            }
        }
        store.stop();
    }

    #[test]
    fn a_body_that_several_refer_to_is_in_the_group_once() {
        let store = Store::start(Box::<Memory>::default(), Mode::Write).unwrap();
        let block: Arc<[u8]> = Arc::from(&b"message"[..]);
        {
            let burst = store.begin();
            for _ in 0..10 {
                burst.append(true, |filling| {
                    let write = |group: &mut Group, body| group.body(body, &[&block]);
                    let body = filling.body(&block, store.numbers(), write);
                    let key = Key::Number(store.next_number());
                    filling.group.put(Table::Owed, key, Some(body), |_| ());
                });
            }
        }
        store.stop();
        let usage = store.storage().usage();
        assert_eq!((usage.entries, usage.bodies), (10, 1));
    }
}
