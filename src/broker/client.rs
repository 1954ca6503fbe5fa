//! One Client Identifier at run time: its [`Session`] behind a lock, and the connection that drives it.
//!
//! A publisher delivers straight into the receiver's session under that lock and wakes the receiver's driver
//! at most once until it has looked. The lock is held for the length of one pure call, never across an
//! await; the only lock taken while holding it is the route table's own.

use std::hash::Hash;
use std::hash::Hasher;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Waker;

use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::broker::close::Close;
use crate::broker::identity::Identity;
use crate::broker::replay::Replay;
use crate::broker::shared::ClientKey;
use crate::broker::shared::Eligibility;
use crate::broker::threads::Bell;
use crate::broker::threads::Mailbox;
use crate::mqtt::reason::ReasonCode;
use crate::session::Session;
use crate::session::frames::Run;
use crate::session::outbound::Grant;
use crate::session::tally::Tally;
use crate::storage::store::Burst;
use crate::time::Now;

/// A session and its driver's bell. Shared by the registry, the route table and the connection.
#[derive(Debug)]
pub struct Client {
    /// Names this session for as long as the broker runs; a Clean Start makes a new one.
    pub key: ClientKey,
    /// Client Identifier.
    pub id: Arc<str>,
    /// Read without the lock by whoever picks a member of a shared group.
    connected: AtomicBool,
    /// What it is owed is stored.
    kept: AtomicBool,
    state: Mutex<State>,
}

/// What the lock protects.
#[derive(Debug)]
pub struct State {
    /// The Session State.
    pub session: Session,
    /// Who connected last.
    pub identity: Arc<Identity>,
    /// The connection that may act for this session; a takeover raises it.
    pub epoch: u64,
    /// Why the connection of the present epoch has to close.
    pub kicked: Option<ReasonCode>,
    /// The session is no longer in the registry: deliver nothing more.
    pub over: bool,
    /// When the sweeper looks at this client next, on the monotonic clock.
    pub sweep_at: Option<NonZeroU64>,
    /// Retained messages that the connection is to send for subscriptions it did not make itself.
    pub replays: Option<Box<Vec<Replay>>>,
    bell: Option<Bell>,
    notified: bool,
}

impl State {
    /// Registers the driver of the present epoch, on the thread of `home`, for the next wake-up.
    pub fn listen(&mut self, waker: &Waker, home: Option<&Arc<Mailbox>>) {
        self.notified = false;
        match &mut self.bell {
            Some(known) if known.is_of(waker) => {}
            other => *other = Some(Bell::new(waker, home)),
        }
    }

    /// Nobody drives this session any more.
    pub fn deafen(&mut self) {
        self.bell = None;
        self.notified = false;
    }

    /// What wakes the driver, unless it has been woken already and did not look yet.
    #[must_use]
    pub fn bell(&mut self) -> Option<Bell> {
        if self.notified {
            return None;
        }
        let bell = self.bell.clone()?;
        self.notified = true;
        Some(bell)
    }
}

impl Client {
    /// A session that was just created.
    #[must_use]
    pub fn new(key: ClientKey, session: Session, identity: Arc<Identity>) -> Arc<Self> {
        let id = Arc::clone(&identity.client_id);
        let kept = AtomicBool::new(session.is_kept());
        let state = State {
            session,
            identity,
            epoch: 0,
            kicked: None,
            over: false,
            sweep_at: None,
            replays: None,
            bell: None,
            notified: false,
        };
        Arc::new(Self { key, id, connected: AtomicBool::new(false), kept, state: Mutex::new(state) })
    }

    /// Locks the state. Hold it for one pure call.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The same for the connection of this epoch, if the session is still its own.
    ///
    /// # Errors
    /// Why that connection has to close.
    pub fn own(&self, epoch: u64) -> Result<MutexGuard<'_, State>, Close> {
        let state = self.lock();
        if state.epoch != epoch || state.over {
            return Err(Close::Server(state.kicked.unwrap_or(ReasonCode::SessionTakenOver)));
        }
        Ok(state)
    }

    /// Notes whether what it is owed is stored.
    pub fn set_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Whether what it is owed is stored, as of a moment ago.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Notes whether a connection is attached.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Whether a connection is attached, as of a moment ago.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether it takes a shared message now: a session without a connection only keeps it.
    #[must_use]
    pub fn eligibility(&self) -> Eligibility {
        if self.connected.load(Ordering::Relaxed) { Eligibility::Now } else { Eligibility::Later }
    }

    /// Delivers a run of messages and wakes the driver if there is something to send.
    pub fn deliver_run(
        &self,
        run: &mut Run<'_, '_>,
        grant: &Grant<'_>,
        burst: Option<&Burst<'_>>,
        now: Now,
        tally: &mut Tally,
    ) {
        let bell = {
            let mut state = self.lock();
            if state.over {
                return;
            }
            let rings = state.session.deliver_run(run, grant, now, tally);
            state.keep(self.key, burst, now);
            if rings { state.bell() } else { None }
        };
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    /// Makes the connection of the present epoch close with this Reason Code.
    pub fn kick(&self, reason: ReasonCode) {
        let bell = {
            let mut state = self.lock();
            state.kicked = Some(reason);
            state.notified = false;
            state.bell()
        };
        if let Some(bell) = bell {
            bell.ring();
        }
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}
