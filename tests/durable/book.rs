//! The ledger as all clients of a run share it, and what they wait for.

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::harness::Message;
use crate::ledger::Ledger;

/// With more than so many messages on their way to their receivers, nothing new is published.
const BACKLOG_MAX: usize = 20_000;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Publishers publish; subscribers come and go.
    Busy,
    /// Nothing new is published.
    Draining,
    /// Everything came; whoever is in the middle of something ends it.
    Ending,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Book {
    ledger: Mutex<Ledger>,
    acknowledged: watch::Sender<u64>,
    received: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            ledger: Mutex::default(),
            acknowledged: watch::Sender::default(),
            received: watch::Sender::default(),
            phase: watch::Sender::new(Phase::Busy),
        }
    }
}

impl Book {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.ledger.lock())
    }

    pub(crate) fn acknowledge(&self, stream: usize, number: usize, reason: u8) {
        self.with(|ledger| ledger.acknowledged(stream, number, reason));
        self.acknowledged.send_modify(|count| *count += 1);
    }

    pub(crate) fn receive(&self, receiver: usize, message: &Message) {
        self.with(|ledger| ledger.received(receiver, message));
        self.received.send_modify(|count| *count += 1);
    }

    /// What is not as it has to be.
    pub(crate) fn violation(&self, what: String) {
        self.with(|ledger| ledger.violation(what));
    }

    /// How many messages are acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until so many are.
    pub(crate) async fn until_acknowledged(&self, count: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        acknowledged.wait_for(|now| *now >= count).await.expect("the sender is ours");
    }

    /// The same, or until nothing more is published before subscribers have caught up.
    pub(crate) async fn until_acknowledged_or_behind(&self, count: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        let reached = acknowledged.wait_for(|now| *now >= count || self.is_behind());
        drop(reached.await.expect("the sender is ours"));
    }

    /// Whether subscribers should catch up first.
    pub(crate) fn is_behind(&self) -> bool {
        self.with(|ledger| ledger.outstanding()) > BACKLOG_MAX
    }

    /// Changes with every message that comes.
    pub(crate) fn receptions(&self) -> watch::Receiver<u64> {
        self.received.subscribe()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// Waits for a phase or a later one.
pub(crate) async fn until(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    phase.wait_for(|now| *now >= wanted).await.expect("the book is kept to the end");
}
