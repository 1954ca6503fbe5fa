//! Which connections a listener takes in: how many clients, how many that are not clients yet, how fast.
//!
//! A connection is *half-open* until its CONNECT is answered: PROXY header, TLS and WebSocket handshake included. There is
//! a most of them, and when it is reached, the oldest gives way to the newcomer. To refuse the newcomer instead
//! would be a gift to whoever opens connections and says nothing: a few thousand of them, renewed every handshake timeout,
//! would keep everybody out (`reliability.md` class L). An honest client is through in a few round trips, so that to push
//! it out one has to open as many connections as there are places within that time, and again for every login;
//! `max_conn_rate` bounds that. The price is that a slow but honest handshake may be pushed out during such an attack.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;

use crate::config::settings::Rate;
use crate::config::settings::Role;
use crate::metrics::labels::RejectReason;
use crate::net::bucket::Bucket;

/// Half-open connections of a listener for clients: what a burst of reconnecting clients may need.
const HALF_OPEN_MAX: usize = 4096;
/// A listener with few places for clients gets no fewer than this.
const HALF_OPEN_MIN: usize = 64;
/// Half-open connections of a listener of role link (`authn-tls.md` section 3).
const LINK_HALF_OPEN_MAX: usize = 64;

/// The half-open connections that a listener takes at a time.
#[must_use]
pub fn half_open_max(role: Role, max_connections: u32) -> usize {
    match role {
        Role::Link => LINK_HALF_OPEN_MAX,
        Role::Client | Role::Any => {
            usize::try_from(max_connections).unwrap_or(usize::MAX).clamp(HALF_OPEN_MIN, HALF_OPEN_MAX)
        }
    }
}

/// The bookkeeping of one listener.
#[derive(Debug)]
pub struct Admission {
    places: Places,
    places_max: usize,
    half_open: Arc<HalfOpen>,
    descriptors: Arc<Semaphore>,
    rate: Option<Bucket>,
}

impl Admission {
    /// `max_connections` clients and `half_open_max` connections that are not clients yet, each of which takes a
    /// permit of `descriptors`.
    #[must_use]
    pub fn new(max_connections: usize, half_open_max: usize, descriptors: Arc<Semaphore>) -> Self {
        Self {
            places: Places(Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)))),
            places_max: max_connections.min(Semaphore::MAX_PERMITS),
            half_open: Arc::new(HalfOpen {
                max: half_open_max.max(1),
                entries: Mutex::default(),
                nobody_left: Notify::new(),
            }),
            descriptors,
            rate: None,
        }
    }

    /// No more connections per time than this, if anything is said.
    #[must_use]
    pub fn at_rate(mut self, rate: Option<Rate>, now_ms: u64) -> Self {
        self.rate = rate.map(|rate| Bucket::new(rate, now_ms));
        self
    }

    /// Takes a connection in.
    ///
    /// # Errors
    /// Why it is to be closed at once.
    pub fn admit(&mut self, now_ms: u64) -> Result<Entry, RejectReason> {
        if self.places.0.available_permits() == 0 {
            return Err(RejectReason::MaxConnections);
        }
        if self.rate.as_mut().is_some_and(|rate| !rate.take(now_ms)) {
            return Err(RejectReason::Quota);
        }
        let (number, evicted) = self.half_open.enter(&self.descriptors).ok_or(RejectReason::Descriptors)?;
        let (half_open, places) = (Arc::clone(&self.half_open), self.places.clone());
        Ok(Entry { half_open, places, number, evicted, is_settled: false })
    }

    /// All that it has let in.
    #[must_use]
    pub fn crowd(&self) -> Crowd {
        Crowd {
            places: self.places.clone(),
            places_max: self.places_max,
            half_open: Arc::clone(&self.half_open),
        }
    }
}

/// The connections of a listener, to be waited for once it lets nobody in any more.
#[derive(Debug)]
pub struct Crowd {
    places: Places,
    places_max: usize,
    half_open: Arc<HalfOpen>,
}

impl Crowd {
    /// Ends when the last connection has.
    pub async fn gone(&self) {
        // Half-open ones first, as they may become clients.
        loop {
            let left = self.half_open.nobody_left.notified();
            tokio::pin!(left);
            // Before it is looked, or whoever leaves meanwhile would wake nobody.
            left.as_mut().enable();
            if self.half_open.entries.lock().present == 0 {
                break;
            }
            left.await;
        }
        let all = u32::try_from(self.places_max).unwrap_or(u32::MAX);
        // An error means that the places are closed, which nobody does.
        let _ = self.places.0.acquire_many(all).await;
    }

    /// Ends those that are half-open.
    pub fn evict(&self) {
        self.half_open.entries.lock().held.clear();
    }
}

/// The half-open connections, oldest first.
#[derive(Debug)]
struct HalfOpen {
    max: usize,
    entries: Mutex<Entries>,
    /// Rung when the last one leaves.
    nobody_left: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// Those in `held`, and those that gave way and did not end yet.
    present: usize,
    held: BTreeMap<u64, Held>,
}

/// What is kept of a half-open connection.
#[derive(Debug)]
struct Held {
    descriptor: OwnedSemaphorePermit,
    /// Dropped, it tells the connection to end.
    _alive: oneshot::Sender<()>,
}

impl HalfOpen {
    /// A new one, in place of the oldest if there are too many, or no descriptors; `None` if there is no oldest.
    fn enter(&self, descriptors: &Arc<Semaphore>) -> Option<(u64, oneshot::Receiver<()>)> {
        let mut entries = self.entries.lock();
        let free = if entries.held.len() < self.max {
            Arc::clone(descriptors).try_acquire_owned().ok()
        } else {
            None
        };
        // The oldest closes its socket when it runs next; until then the reserve of descriptors bears it.
        let descriptor = free.or_else(|| Some(entries.held.pop_first()?.1.descriptor))?;
        let (alive, evicted) = oneshot::channel();
        let number = entries.next;
        entries.next += 1;
        entries.present += 1;
        entries.held.insert(number, Held { descriptor, _alive: alive });
        Some((number, evicted))
    }

    /// Takes one out that ended, gave way or became a client.
    fn leave(&self, number: u64) -> Option<Held> {
        let mut entries = self.entries.lock();
        entries.present -= 1;
        if entries.present == 0 {
            self.nobody_left.notify_waiters();
        }
        entries.held.remove(&number)
    }
}

/// A connection's entry among the half-open ones, until it is dropped.
#[derive(Debug)]
pub struct Entry {
    half_open: Arc<HalfOpen>,
    places: Places,
    number: u64,
    evicted: oneshot::Receiver<()>,
    is_settled: bool,
}

/// What is left of a listener's `max_connections`.
#[derive(Debug, Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// One of them, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<Place> {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(Place { _place: place })
    }
}

/// Counts a client against `max_connections` until it is dropped.
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
}

/// Counts the descriptor of a client.
#[derive(Debug)]
pub struct Settled {
    _descriptor: Option<OwnedSemaphorePermit>,
}

impl Entry {
    /// The listener's places for clients.
    #[must_use]
    pub fn places(&self) -> Places {
        self.places.clone()
    }

    /// Ends when this connection has to give way.
    pub async fn evicted(&mut self) {
        // Nothing is ever sent: the other half is dropped.
        let _ = (&mut self.evicted).await;
    }

    /// It is a client now. What it gets is to be kept as long as the connection.
    #[must_use]
    pub fn settle(mut self) -> Settled {
        self.is_settled = true;
        let held = self.half_open.leave(self.number);
        Settled { _descriptor: held.map(|held| held.descriptor) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_settled {
            self.half_open.leave(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn descriptors(count: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(count))
    }

    fn is_evicted(entry: &mut Entry) -> bool {
        !matches!(entry.evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn the_oldest_half_open_gives_way() {
        let free = descriptors(10);
        let mut admission = Admission::new(10, 3, Arc::clone(&free));
        let mut entries: Vec<Entry> = (0..5).map(|_| admission.admit(0).unwrap()).collect();
        let evicted: Vec<bool> = entries.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [true, true, false, false, false]);
        assert_eq!(free.available_permits(), 7, "one descriptor each");
        // A client is not half-open, and is not pushed out.
        let place = entries[2].places().take().unwrap();
        let settled = entries.remove(2).settle();
        let mut more: Vec<Entry> = (0..3).map(|_| admission.admit(0).unwrap()).collect();
        assert!(is_evicted(&mut entries[2]) && is_evicted(&mut entries[3]));
        assert!(more.iter_mut().all(|entry| !is_evicted(entry)));
        assert_eq!(free.available_permits(), 6);
        drop((entries, more, place, settled));
        assert_eq!(free.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_crowd_is_gone_with_its_last_connection() {
        let mut admission = Admission::new(3, 2, descriptors(10));
        let crowd = admission.crowd();
        let [first, second, third] = [0; 3].map(|_| admission.admit(0).unwrap());
        let client = (third.places().take().unwrap(), third.settle());
        drop(second);
        let waiting = tokio::spawn(async move { crowd.gone().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "one that gave way is there until it ends");
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "a client is there yet");
        drop(client);
        waiting.await.unwrap();
        admission.crowd().gone().await;
    }

    #[test]
    fn the_half_open_ones_of_a_crowd_can_be_told_to_end_and_its_clients_not() {
        let mut admission = Admission::new(3, 3, descriptors(10));
        let mut entries: Vec<Entry> = (0..2).map(|_| admission.admit(0).unwrap()).collect();
        let client = admission.admit(0).unwrap().settle();
        admission.crowd().evict();
        assert!(entries.iter_mut().all(is_evicted));
        drop((entries, client));
    }

    #[test]
    fn half_open_ones_take_no_place_of_a_client() {
        let mut admission = Admission::new(1, 3, descriptors(10));
        let (first, second) = (admission.admit(0).unwrap(), admission.admit(0).unwrap());
        let place = second.places().take().unwrap();
        assert!(first.places().take().is_none(), "one client is in");
        assert_eq!(admission.admit(0).unwrap_err(), RejectReason::MaxConnections);
        drop(place);
        assert!(first.places().take().is_some());
    }

    #[test]
    fn without_a_descriptor_a_half_open_one_gives_way_and_a_client_does_not() {
        let mut admission = Admission::new(10, 10, descriptors(2));
        let client = admission.admit(0).unwrap();
        let client = client.settle();
        let mut waiting = admission.admit(0).unwrap();
        let newcomer = admission.admit(0).unwrap();
        assert!(is_evicted(&mut waiting));
        let second = newcomer.settle();
        assert_eq!(admission.admit(0).unwrap_err(), RejectReason::Descriptors);
        drop((client, second));
        assert!(admission.admit(0).is_ok());
    }

    #[test]
    fn the_rate_is_that_of_the_listener() {
        let rate = Rate { amount: 2, per: Duration::from_secs(1) };
        let mut admission = Admission::new(10, 10, descriptors(10)).at_rate(Some(rate), 0);
        assert!(admission.admit(0).is_ok() && admission.admit(0).is_ok());
        assert_eq!(admission.admit(499).unwrap_err(), RejectReason::Quota);
        assert!(admission.admit(500).is_ok());
        let mut other = Admission::new(10, 10, descriptors(10)).at_rate(None, 0);
        assert!((0..9).all(|_| other.admit(0).is_ok()));
    }

    #[test]
    fn the_most_half_open_ones_follow_role_and_places() {
        let table = [
            (Role::Client, 1_024_000, 4096),
            (Role::Any, 1_000, 1_000),
            (Role::Client, 1, 64),
            (Role::Link, 1_024, 64),
        ];
        for (role, max_connections, expected) in table {
            assert_eq!(half_open_max(role, max_connections), expected, "{role:?} {max_connections}");
        }
    }
}
