//! A session that goes on after the process did not: what it was owed, in its order and with its identifiers, and the
//! messages themselves, which are fetched when they are about to be sent.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::session::Bounds;
use crate::session::PendingWill;
use crate::session::Session;
use crate::session::connect::NEVER_EXPIRES;
use crate::session::message::Message;
use crate::session::outbound::Outbound;
use crate::session::outbound::flight::InFlight;
use crate::session::outbound::flight::Stage;
use crate::session::queue::Owed;
use crate::time::Now;

/// Where a delivery stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waited.
    Waiting,
    /// It was sent under this identifier, or may have been.
    Sent(PacketId),
    /// The client has it: only PUBREL and PUBCOMP are left.
    Received(PacketId),
}

/// What is known of a session.
#[derive(Debug, Default)]
pub struct Remains {
    /// Session Expiry Interval in seconds.
    pub expiry_seconds: u32,
    /// How long it has been without a connection, in milliseconds.
    pub away_ms: u64,
    /// Its Will, if that is still to be published, and in how many milliseconds.
    pub will: Option<(Message, u64)>,
    /// What it is owed, in order.
    pub owed: Vec<(Owed, Progress)>,
    /// Identifiers of QoS 2 messages from the client that it has not released.
    pub unreleased: Vec<PacketId>,
}

impl Session {
    /// A session without a connection that goes on from there.
    #[must_use]
    pub fn restore(bounds: Arc<Bounds>, remains: Remains, now: Now) -> Self {
        let mut session = Self::new(bounds);
        session.keep();
        session.persistent = true;
        session.expiry_seconds = remains.expiry_seconds;
        if remains.expiry_seconds != NEVER_EXPIRES {
            let left_ms = (u64::from(remains.expiry_seconds) * 1000).saturating_sub(remains.away_ms);
            session.over_at_mono_ms = NonZeroU64::new((now.mono_ms + left_ms).max(1));
        }
        session.pending_will = remains
            .will
            .map(|(message, in_ms)| Box::new(PendingWill { message, due_mono_ms: now.mono_ms + in_ms }));
        session.inbound.restore(remains.unreleased, now);
        for (owed, progress) in remains.owed {
            session.outbound.restore(owed, progress);
        }
        session
    }

    /// Whether what is to be sent next is not in memory.
    #[must_use]
    pub fn wants(&mut self) -> bool {
        !self.wanted(1).is_empty()
    }

    /// What is to be sent next and is not in memory: numbers, and where each is kept; at most `max`.
    #[must_use]
    pub fn wanted(&mut self, max: usize) -> Vec<(u64, u64)> {
        if self.is_connected() { self.outbound.wanted(max) } else { Vec::new() }
    }

    /// Everything that is owed and is not in memory.
    #[must_use]
    pub fn elsewhere(&mut self) -> Vec<(u64, u64)> {
        self.outbound.wanted(usize::MAX)
    }

    /// What is owed under this number; `None` if it is lost. Whether it was still owed.
    pub fn supply(&mut self, number: u64, message: Option<Message>) -> bool {
        self.outbound.supply(number, message)
    }
}

impl Outbound {
    fn restore(&mut self, owed: Owed, progress: Progress) {
        let (id, stage) = match progress {
            Progress::Waiting => return self.queue.restore(owed),
            Progress::Received(id) => (id, Stage::Complete),
            Progress::Sent(id) if owed.qos == QoS::ExactlyOnce => (id, Stage::Receive),
            Progress::Sent(id) => (id, Stage::Acknowledge),
        };
        if let Err(in_flight) = self.ring.push_as(id, InFlight::restored(stage, owed))
            && let Some(owed) = in_flight.into_owed()
        {
            // As if it had never been sent.
            self.queue.restore(owed);
        }
    }

    fn wanted(&mut self, max: usize) -> Vec<(u64, u64)> {
        let mut wanted = Vec::new();
        for slot in self.sent_slots..self.ring.slots() {
            let Some((_, in_flight)) = self.ring.at_mut(slot) else { continue };
            let Some(owed) = in_flight.owed() else { continue };
            match owed.message.body_elsewhere() {
                Some(body) if wanted.len() < max => wanted.push((owed.number, body)),
                _ => return wanted,
            }
        }
        let left = max - wanted.len();
        wanted.extend(self.queue.elsewhere().take(left));
        wanted
    }

    fn supply(&mut self, number: u64, message: Option<Message>) -> bool {
        let mut slots = self.sent_slots..self.ring.slots();
        let found = slots.find(|slot| self.ring.at_mut(*slot).is_some_and(|(_, it)| it.number() == number));
        if let Some((id, in_flight)) = found.and_then(|slot| self.ring.at_mut(slot)) {
            match (in_flight.owed_mut(), message) {
                (Some(owed), Some(message)) => owed.message = message,
                _ => drop(self.finish(id, |_| true)),
            }
            return true;
        }
        let is_lost = message.is_none();
        let found = self.queue.supply(number, message);
        if found && is_lost {
            self.journal.over(number);
        }
        found
    }
}
