//! The threads that do input and output. Each has a runtime of its own and drives the connections that were given to
//! it for as long as they live (`performance.md` 5.2).
//!
//! One thread is the cheapest as long as one core suffices: whoever is woken runs next, with warm caches and without a
//! system call. So the first thread, which the broker was started on, gets every connection until it is busy; only then
//! the next one does. A publisher delivers into any session from its own thread; what crosses threads is one wake-up
//! for a whole burst, however many receivers it has ([`Mailbox`]).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::thread;
use std::thread::JoinHandle;
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::settings::Io;
use crate::config::settings::Placement;
use crate::net::clock;
use crate::net::listener::Accepted;
use crate::net::listener::Stream;
use crate::time::Now;

/// Threads for what blocks beside each I/O thread: five for logins at most, and some for name resolution, files and reloads.
pub const BLOCKING_THREADS: usize = 8;
/// File descriptors of a thread's own.
pub const DESCRIPTORS: usize = 4;
/// A thread that works this share of its time, in thousandths, gets no new connections while another works less.
const BUSY_PERMILLE: u16 = 700;
/// What is looked at when a thread's share is measured: the time since the last look, at least this much.
const SAMPLE_MS: u64 = 100;

/// How a listener has its connections served, by a task on the thread that it calls this on.
pub trait Serve: Send + Sync {
    /// Begins the task of a connection, whose drivers are woken through `home` where there is more than one thread.
    fn serve(&self, accepted: Accepted<Stream>, home: Option<Arc<Mailbox>>);
}

/// A connection on its way to its thread.
struct Newcomer {
    accepted: Accepted,
    listener: Arc<dyn Serve>,
}

impl Newcomer {
    /// Has it served by the thread that this is called on: its socket has to be with that one's poller.
    fn settle(self, home: Option<&Arc<Mailbox>>) {
        match self.accepted.attach() {
            Ok(accepted) => self.listener.serve(accepted, home.cloned()),
            // For want of memory; it closes the connection.
            Err(error) => tracing::warn!(%error, "a connection could not be handed to its thread"),
        }
    }
}

/// What one thread gets from others: wake-ups for its drivers, and new connections. The first wake-up that finds it
/// empty wakes the thread, with a system call; those behind it cost a lock.
pub struct Mailbox {
    thread: ThreadId,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    letters: Letters,
    /// The thread's own task, while it waits.
    reader: Option<Waker>,
}

#[derive(Default)]
struct Letters {
    /// Each driver once at most, until it has looked: as many as there are connections.
    waiting: Vec<Waker>,
    /// Half-open connections, of which each listener has a most.
    newcomers: Vec<Newcomer>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Mailbox {
    fn new(thread: ThreadId) -> Arc<Self> {
        Arc::new(Self { thread, inside: Mutex::default() })
    }

    /// Wakes a driver of this thread.
    fn wake(&self, driver: Waker) {
        if thread::current().id() == self.thread {
            return driver.wake();
        }
        let reader = {
            let mut inside = self.inside.lock();
            inside.letters.waiting.push(driver);
            inside.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Leaves a connection for this thread, to be found once somebody calls it.
    fn leave(&self, newcomer: Newcomer) {
        self.inside.lock().letters.newcomers.push(newcomer);
    }

    /// Wakes the thread, unless somebody has and it did not look yet.
    fn call(&self) {
        let reader = self.inside.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Wakes whoever has been called, on their own thread, or waits. `read` is empty and lends its memory.
    fn read(self: &Arc<Self>, cx: &Context<'_>, read: &mut Letters) {
        {
            let mut inside = self.inside.lock();
            inside.reader = Some(cx.waker().clone());
            std::mem::swap(&mut inside.letters, read);
        }
        read.newcomers.drain(..).for_each(|newcomer| newcomer.settle(Some(self)));
        read.waiting.drain(..).for_each(Waker::wake);
    }
}

/// How to wake the driver of a connection.
#[derive(Debug, Clone)]
pub struct Bell {
    waker: Waker,
    /// Of the driver's thread; none where there is one thread only.
    mailbox: Option<Arc<Mailbox>>,
}

impl Bell {
    /// For a driver on the thread of `mailbox`.
    #[must_use]
    pub fn new(waker: &Waker, mailbox: Option<&Arc<Mailbox>>) -> Self {
        Self { waker: waker.clone(), mailbox: mailbox.map(Arc::clone) }
    }

    /// Whether it wakes the same task.
    #[must_use]
    pub fn is_of(&self, waker: &Waker) -> bool {
        self.waker.will_wake(waker)
    }

    /// Wakes the driver.
    pub fn ring(self) {
        match self.mailbox {
            None => self.waker.wake(),
            Some(mailbox) => mailbox.wake(self.waker),
        }
    }
}

/// One I/O thread.
#[derive(Debug, Clone)]
pub struct IoThread {
    handle: Handle,
    mailbox: Option<Arc<Mailbox>>,
}

impl IoThread {
    /// Where its tasks are spawned.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How its drivers are woken from other threads; none where there is one thread only.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        self.mailbox.as_ref()
    }

    /// How long it has worked since it was started.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.handle.metrics().worker_total_busy_duration(0)
    }
}

/// How much each thread works.
#[derive(Debug)]
struct Load {
    /// Whose turn it is, where each has its turn.
    next: usize,
    /// Threads that were left connections and not called yet.
    uncalled: Vec<usize>,
    sampled_ms: u64,
    busy: Vec<Duration>,
    permille: Vec<u16>,
}

/// All I/O threads; dropping it ends those it has started.
#[derive(Debug)]
pub struct IoThreads {
    threads: Vec<IoThread>,
    placement: Placement,
    load: Mutex<Load>,
    stop: watch::Sender<()>,
    started: Vec<JoinHandle<()>>,
}

impl IoThreads {
    /// The present thread, whose runtime this is called in, and as many more as the settings say.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptor.
    pub fn start(settings: &Io) -> io::Result<Self> {
        let count = count(settings);
        let (stop, stopped) = watch::channel(());
        let mailbox = (count > 1).then(|| Mailbox::new(thread::current().id()));
        if let Some(mailbox) = &mailbox {
            tokio::spawn(answer(Arc::clone(mailbox), stopped.clone()));
        }
        let mut threads = vec![IoThread { handle: Handle::current(), mailbox }];
        let mut started = Vec::new();
        for index in 1..count {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .build()?;
            let handle = runtime.handle().clone();
            let stopped = stopped.clone();
            let (tell, told) = std::sync::mpsc::channel();
            let name = format!("io-{index}");
            started.push(thread::Builder::new().name(name).spawn(move || {
                let mailbox = Mailbox::new(thread::current().id());
                // Whoever starts us waits for it.
                let _ = tell.send(Arc::clone(&mailbox));
                runtime.block_on(answer(mailbox, stopped));
                // What blocks is left alone: a password that is being hashed has nobody to answer to.
                runtime.shutdown_background();
            })?);
            let mailbox = told.recv().map_err(io::Error::other)?;
            threads.push(IoThread { handle, mailbox: Some(mailbox) });
        }
        let nothing = vec![Duration::ZERO; threads.len()];
        let (uncalled, permille) = (Vec::new(), vec![0; threads.len()]);
        let load = Load { next: 0, uncalled, sampled_ms: 0, permille, busy: nothing };
        Ok(Self { threads, placement: settings.placement, load: Mutex::new(load), stop, started })
    }

    /// Has a new connection served, on the thread whose turn it is: this one, which is the first, or another that
    /// [`Self::call`] wakes.
    pub fn place(&self, accepted: Accepted, listener: Arc<dyn Serve>) {
        let newcomer = Newcomer { accepted, listener };
        let index = self.choose(clock::now());
        match &self.threads[index].mailbox {
            Some(mailbox) if index > 0 => mailbox.leave(newcomer),
            home => newcomer.settle(home.as_ref()),
        }
    }

    /// Wakes the threads that connections were left for: once for all that were accepted in one go.
    pub fn call(&self) {
        if self.threads.len() == 1 {
            return;
        }
        for index in self.load.lock().uncalled.drain(..) {
            if let Some(mailbox) = &self.threads[index].mailbox {
                mailbox.call();
            }
        }
    }

    fn choose(&self, now: Now) -> usize {
        if self.threads.len() == 1 {
            return 0;
        }
        let mut load = self.load.lock();
        let index = match self.placement {
            Placement::Fill => {
                self.sample(&mut load, now);
                choose(&load.permille)
            }
            Placement::Spread => {
                load.next = (load.next + 1) % self.threads.len();
                load.next
            }
        };
        if index > 0 && !load.uncalled.contains(&index) {
            load.uncalled.push(index);
        }
        index
    }

    /// All of them, the broker's own first.
    #[must_use]
    pub fn all(&self) -> &[IoThread] {
        &self.threads
    }

    /// Measures what share of its time each thread works, in thousandths.
    fn sample(&self, load: &mut Load, now: Now) {
        let elapsed_ms = now.mono_ms.saturating_sub(load.sampled_ms);
        if elapsed_ms < SAMPLE_MS {
            return;
        }
        load.sampled_ms = now.mono_ms;
        for (index, thread) in self.threads.iter().enumerate() {
            let busy = thread.busy();
            let worked = busy.saturating_sub(load.busy[index]);
            load.busy[index] = busy;
            load.permille[index] = permille(worked, elapsed_ms);
        }
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        self.stop.send_replace(());
        for thread in self.started.drain(..) {
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// How many threads the settings mean here.
#[must_use]
pub fn count(settings: &Io) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    settings.threads.unwrap_or_else(cores)
}

fn permille(worked: Duration, of_ms: u64) -> u16 {
    let share = worked.as_micros() / u128::from(of_ms.max(1));
    u16::try_from(share).unwrap_or(u16::MAX).min(1000)
}

/// The first thread that has time, else the one that has most.
fn choose(permille: &[u16]) -> usize {
    let free = permille.iter().position(|share| *share < BUSY_PERMILLE);
    free.or_else(|| (0..permille.len()).min_by_key(|index| permille[*index])).unwrap_or(0)
}

/// Reads the mailbox of this thread until the server ends.
async fn answer(mailbox: Arc<Mailbox>, mut stopped: watch::Receiver<()>) {
    let mut letters = Letters::default();
    let reading = poll_fn(move |cx| {
        mailbox.read(cx, &mut letters);
        Poll::<()>::Pending
    });
    tokio::select! {
        () = reading => {}
        // An error means that the server is gone, which is a stop too.
        _ = stopped.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::task::Wake;

    use tokio::sync::Semaphore;
    use tokio::sync::mpsc;

    use super::*;
    use crate::net::admission::Admission;
    use crate::net::listener::Detached;

    #[test]
    fn the_first_thread_with_time_is_chosen_and_else_the_one_with_most() {
        assert_eq!(choose(&[0]), 0);
        assert_eq!(choose(&[699, 0]), 0, "one thread is the cheapest as long as it suffices");
        assert_eq!(choose(&[700, 699, 0]), 1);
        assert_eq!(choose(&[990, 800, 900]), 1);
        assert_eq!(choose(&[1000]), 0);
    }

    #[test]
    fn a_share_is_work_by_time() {
        assert_eq!(permille(Duration::from_millis(70), 100), 700);
        assert_eq!(permille(Duration::from_millis(300), 100), 1000, "reported late");
        assert_eq!(permille(Duration::ZERO, 0), 0);
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_burst_from_another_thread_wakes_the_thread_once_and_each_driver_there() {
        let mailbox = Mailbox::new(thread::current().id());
        let (reader, driver) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let (reading, driving) = (Waker::from(Arc::clone(&reader)), Waker::from(Arc::clone(&driver)));
        let mut letters = Letters::default();
        mailbox.read(&Context::from_waker(&reading), &mut letters);
        thread::scope(|scope| {
            scope.spawn(|| (0..100).for_each(|_| Bell::new(&driving, Some(&mailbox)).ring()));
        });
        assert_eq!((reader.get(), driver.get()), (1, 0));
        mailbox.read(&Context::from_waker(&reading), &mut letters);
        assert_eq!((reader.get(), driver.get()), (1, 100));
        // From the thread itself there is no detour.
        Bell::new(&driving, Some(&mailbox)).ring();
        assert_eq!((reader.get(), driver.get()), (1, 101));
    }

    struct Seen(mpsc::UnboundedSender<(ThreadId, bool)>);

    impl Serve for Seen {
        fn serve(&self, accepted: Accepted<Stream>, home: Option<Arc<Mailbox>>) {
            let here = thread::current().id();
            let at_home = home.is_some_and(|home| home.thread == here);
            self.0.send((here, at_home && matches!(accepted.stream, Stream::Tcp(_)))).unwrap();
        }
    }

    fn accepted(listener: &std::net::TcpListener, admission: &mut Admission) -> Accepted {
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        Accepted { stream: Detached::Tcp(stream), peer: peer.into(), entry: admission.admit(0).unwrap() }
    }

    #[tokio::test]
    async fn connections_wait_for_their_thread_until_it_is_called_for_all_of_them() {
        let threads = IoThreads::start(&Io { threads: Some(2), placement: Placement::Spread }).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut admission = Admission::new(10, 10, Arc::new(Semaphore::new(10)));
        let (seen, mut served) = mpsc::unbounded_channel();
        let serve: Arc<dyn Serve> = Arc::new(Seen(seen));
        for _ in 0..6 {
            threads.place(accepted(&listener, &mut admission), Arc::clone(&serve));
        }
        // Those of this thread were served at once.
        let here = thread::current().id();
        for _ in 0..3 {
            assert_eq!(served.try_recv().unwrap(), (here, true));
        }
        let mailbox = threads.all()[1].mailbox().unwrap();
        assert_eq!(mailbox.inside.lock().letters.newcomers.len(), 3);
        threads.call();
        for _ in 0..3 {
            let (thread, settled) = served.recv().await.unwrap();
            assert!(thread != here && settled);
        }
        assert!(threads.load.lock().uncalled.is_empty(), "a thread is called for what is new only");
    }

    #[tokio::test]
    async fn tasks_of_every_thread_are_woken_by_every_other() {
        let threads = IoThreads::start(&Io { threads: Some(3), placement: Placement::Spread }).unwrap();
        let mut tasks = Vec::new();
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 0), (1, 1)] {
            let bell = Arc::new(Mutex::new(None));
            let (rings, mailbox) = (Arc::clone(&bell), threads.all()[to].mailbox().map(Arc::clone));
            let mut polled = false;
            tasks.push(threads.all()[to].handle().spawn(poll_fn(move |cx| {
                let before = std::mem::replace(&mut polled, true);
                *rings.lock() = Some(Bell::new(cx.waker(), mailbox.as_ref()));
                if before { Poll::Ready(()) } else { Poll::Pending }
            })));
            tasks.push(threads.all()[from].handle().spawn(async move {
                loop {
                    let there = bell.lock().take();
                    match there {
                        Some(bell) => return bell.ring(),
                        None => tokio::task::yield_now().await,
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
}
