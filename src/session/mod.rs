//! One client's Session State (MQTT 5.0 section 4.1): pure, driven by `broker`.
//!
//! A [`Session`] decides; it never does anything itself. A driver
//! 1. attaches it to a connection with [`Session::attach`],
//! 2. hands it what happens: deliveries, acknowledgements, time,
//! 3. takes the bytes to send with [`Session::take_output`],
//! 4. detaches it with [`Session::detach`] and does what the answer says,
//! 5. calls [`Session::handle_timeout`] no later than [`Session::poll_timeout`].
//!
//! Several messages at a time: the unit of work is what one read of a socket brought.

pub mod alias;
pub mod connect;
pub mod frames;
pub mod image;
pub mod inbound;
pub mod journal;
pub mod message;
pub mod outbound;
pub mod queue;
pub mod restore;
pub mod ring;
pub mod subscriptions;
pub mod tally;

use std::num::NonZeroU32;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::session::connect::NEVER_EXPIRES;
use crate::session::connect::WillRequest;
use crate::session::frames::Run;
use crate::session::inbound::Inbound;
use crate::session::inbound::InboundLimits;
use crate::session::inbound::Received;
use crate::session::journal::Change;
use crate::session::message::Message;
use crate::session::outbound::Grant;
use crate::session::outbound::Keeping;
use crate::session::outbound::Outbound;
use crate::session::outbound::Output;
use crate::session::queue::Owed;
use crate::session::queue::QueueLimits;
use crate::session::subscriptions::Subscriptions;
use crate::session::tally::Tally;
use crate::time::Now;

/// A subscription of one session; its filter, as the client wrote it, is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Subscription Options, with the QoS that was granted.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub id: Option<NonZeroU32>,
}

/// How a connection begins, for its session.
#[derive(Debug)]
pub struct Attachment {
    /// Where packets for the client are put.
    pub output: Output,
    /// Session Expiry Interval in seconds.
    pub session_expiry_seconds: u32,
    /// How long the client may be silent.
    pub silence_allowed_ms: Option<u64>,
    /// The Will Message of this connection.
    pub will: Option<WillRequest>,
    /// Whether the session is to outlive the process, if anything does.
    pub kept: bool,
}

/// How a connection ends, for its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client sent DISCONNECT 0x00: no Will (`[MQTT-3.14.4-3]`).
    Normal,
    /// Anything else: the Will is due (`[MQTT-3.1.2-8]`).
    WithWill,
}

/// What a client is not to get any more.
#[derive(Debug)]
pub struct Withheld {
    /// What other members of Shared Subscriptions may be given.
    pub orphans: Vec<Owed>,
    /// Messages that are gone.
    pub dropped: u64,
}

/// What a driver has to do after a connection ended or time passed.
#[derive(Debug, Default)]
pub struct Due {
    /// Publish this Will Message now.
    pub will: Option<Message>,
    /// The client was silent for too long: close its connection (`[MQTT-3.1.2-22]`).
    pub keep_alive_over: bool,
    /// The session is over: remove it with everything it holds.
    pub session_over: bool,
}

#[derive(Debug)]
struct PendingWill {
    message: Message,
    due_mono_ms: u64,
}

/// What every session keeps to, shared by all of them.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Of the queue.
    pub queue: QueueLimits,
    /// `mqtt.mqueue_store_qos0`: whether QoS 0 messages wait for a client that is away.
    pub store_qos0: bool,
    /// Where what is owed gets its numbers, if it can be kept.
    pub numbers: Option<Arc<AtomicU64>>,
}

impl Bounds {
    /// To be given to sessions.
    #[must_use]
    pub fn new(queue: QueueLimits, store_qos0: bool) -> Arc<Self> {
        Arc::new(Self { queue, store_qos0, numbers: None })
    }
}

/// Session State of one Client Identifier, kept as long as it has a connection (`[MQTT-4.1.0-1]`), and after that
/// until it expires (`[MQTT-4.1.0-2]`).
#[derive(Debug)]
pub struct Session {
    /// Messages on their way in.
    inbound: Inbound,
    outbound: Outbound,
    subscriptions: Subscriptions,
    output: Option<Output>,
    bounds: Arc<Bounds>,
    /// Whether it was to outlive its connection when that began.
    persistent: bool,
    expiry_seconds: u32,
    silence_allowed_ms: Option<NonZeroU32>,
    last_heard_mono_ms: u64,
    /// Boxed, as most clients have none.
    will: Option<Box<WillRequest>>,
    pending_will: Option<Box<PendingWill>>,
    over_at_mono_ms: Option<NonZeroU64>,
}

impl Session {
    /// An empty session.
    #[must_use]
    pub fn new(bounds: Arc<Bounds>) -> Self {
        Self {
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            subscriptions: Subscriptions::default(),
            output: None,
            bounds,
            persistent: false,
            expiry_seconds: 0,
            silence_allowed_ms: None,
            last_heard_mono_ms: 0,
            will: None,
            pending_will: None,
            over_at_mono_ms: None,
        }
    }

    /// A connection begins. What was in flight or waiting goes out as the output has room. Its Will is kept here
    /// (`[MQTT-3.1.2-7]`); one that was only delayed is not published (`[MQTT-3.1.3-9]`).
    pub fn attach(&mut self, attachment: Attachment, now: Now) {
        self.expiry_seconds = attachment.session_expiry_seconds;
        self.persistent = attachment.session_expiry_seconds > 0;
        let at_most = |ms| u32::try_from(ms).unwrap_or(u32::MAX);
        self.silence_allowed_ms = attachment.silence_allowed_ms.map(at_most).and_then(NonZeroU32::new);
        self.last_heard_mono_ms = now.mono_ms;
        self.will = attachment.will.map(Box::new);
        self.pending_will = None;
        self.over_at_mono_ms = None;
        if attachment.kept {
            self.keep();
        }
        self.outbound.handle_disconnected();
        self.output = Some(attachment.output);
    }

    fn keep(&mut self) {
        if let Some(numbers) = &self.bounds.numbers {
            self.outbound.journal.begin(numbers);
        }
    }

    /// Whether it outlives the process.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.outbound.journal.is_on()
    }

    /// Whether there is anything to remember that was not taken.
    #[inline]
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.outbound.journal.is_empty()
    }

    /// Takes what is to be remembered since the last time.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.outbound.journal.take()
    }

    /// QoS 2 messages that were put into the output are stored in this group: they must not be sent before.
    pub fn mark_sent(&mut self, group: u64) {
        self.outbound.journal.mark_sent(group);
    }

    /// See [`Self::mark_sent`]; 0 if nothing has to wait.
    #[must_use]
    pub fn sent_in(&self) -> u64 {
        self.outbound.journal.sent_in()
    }

    /// What the client did in an exchange of QoS 2 is stored in this group. Until it is, a new connection must not go on from
    /// there: it would be told that a message is taken or released that may yet be forgotten.
    pub fn mark_taken(&mut self, group: u64) {
        self.outbound.journal.mark_taken(group);
    }

    /// See [`Self::mark_taken`]; 0 if there was nothing.
    #[must_use]
    pub fn taken_in(&self) -> u64 {
        self.outbound.journal.taken_in()
    }

    /// The Will that is still to be published, and in how many milliseconds it is due once there is no connection.
    #[must_use]
    pub fn will(&self, now: Now) -> Option<(&Message, u64)> {
        if let Some(will) = &self.will {
            return Some((&will.message, u64::from(will.delay_seconds) * 1000));
        }
        let pending = self.pending_will.as_ref()?;
        Some((&pending.message, pending.due_mono_ms.saturating_sub(now.mono_ms)))
    }

    /// The connection is gone. The session stays for as long as it was given (`[MQTT-3.1.2-23]`), its Will only if
    /// that is delayed (`[MQTT-3.1.2-10]`).
    pub fn detach(&mut self, ending: Ending, now: Now) -> Due {
        self.output = None;
        self.outbound.handle_disconnected();
        let over_now = self.expiry_seconds == 0; // [MQTT-4.1.0-2]
        if !over_now && self.expiry_seconds != NEVER_EXPIRES {
            self.over_at_mono_ms = NonZeroU64::new(now.mono_ms + u64::from(self.expiry_seconds) * 1000);
        }
        let will = self.will.take().filter(|_| ending == Ending::WithWill);
        let mut due = Due { session_over: over_now, ..Due::default() };
        if let Some(will) = will {
            // [MQTT-3.1.3-9]: after the delay, or when the session ends, whichever is first.
            if over_now || will.delay_seconds == 0 {
                due.will = Some(will.message);
            } else {
                let due_mono_ms = now.mono_ms + u64::from(will.delay_seconds) * 1000;
                self.pending_will = Some(Box::new(PendingWill { message: will.message, due_mono_ms }));
            }
        }
        due
    }

    /// Whether a connection is attached.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.output.is_some()
    }

    /// Whether the session outlives its connection.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.expiry_seconds > 0
    }

    /// Session Expiry Interval in seconds.
    #[must_use]
    pub fn expiry_seconds(&self) -> u32 {
        self.expiry_seconds
    }

    /// The client was heard.
    pub fn touch(&mut self, now: Now) {
        self.last_heard_mono_ms = now.mono_ms;
    }

    /// Changes the Session Expiry Interval at DISCONNECT (section 3.14.2.2.2).
    ///
    /// # Errors
    /// 0x82 when it was 0 at CONNECT and is not now.
    pub fn change_expiry(&mut self, seconds: u32) -> Result<(), ReasonCode> {
        if self.expiry_seconds == 0 && seconds != 0 {
            return Err(ReasonCode::ProtocolError);
        }
        self.expiry_seconds = seconds;
        Ok(())
    }

    /// When [`Session::handle_timeout`] has something to do, on the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let will = self.pending_will.as_ref().map(|will| will.due_mono_ms);
        [self.silence_over_at(), will, self.over_at_mono_ms.map(NonZeroU64::get)].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) -> Due {
        let past = |at: Option<u64>| at.is_some_and(|at| now.mono_ms >= at);
        let mut due = Due { keep_alive_over: past(self.silence_over_at()), ..Due::default() };
        if self.is_connected() {
            return due;
        }
        due.session_over = past(self.over_at_mono_ms.map(NonZeroU64::get));
        if due.session_over || past(self.pending_will.as_ref().map(|will| will.due_mono_ms)) {
            due.will = self.pending_will.take().map(|will| will.message);
        }
        due
    }

    fn silence_over_at(&self) -> Option<u64> {
        let allowed = self.silence_allowed_ms.filter(|_| self.is_connected())?;
        Some(self.last_heard_mono_ms + u64::from(allowed.get()))
    }

    /// What other members of Shared Subscriptions may be given now that this session ends.
    pub fn take_shared(&mut self) -> Vec<Owed> {
        self.outbound.take_shared()
    }

    /// After an operator took the right to the subscriptions `removed`, and they were: takes out what is owed to the
    /// client by them and by no subscription that is left.
    pub fn withhold(&mut self, removed: &[Box<str>]) -> Withheld {
        let plain = |filter: &&str| !filter.starts_with("$share/");
        let denied: Vec<&str> = removed.iter().map(AsRef::as_ref).filter(plain).collect();
        let left: Vec<&str> = self.subscriptions.iter().map(|(filter, _)| filter).filter(plain).collect();
        let is_denied = |owed: &Owed| match &owed.shared {
            Some(whole) => removed.contains(&**whole),
            None => {
                let name = owed.message.view().topic;
                let matches = |filter: &&str| topic::matches(filter, name);
                denied.iter().any(matches) && !left.iter().any(matches)
            }
        };
        let withheld = self.outbound.withhold(is_denied);
        let (orphans, own): (Vec<Owed>, Vec<Owed>) =
            withheld.into_iter().partition(|owed| owed.shared.is_some());
        Withheld { orphans, dropped: own.len() as u64 }
    }

    /// The session is taken away for good, whatever its expiry says: a Clean Start, an operator. Its delayed
    /// Will is due (`[MQTT-3.1.3-9]`).
    pub fn end(&mut self) -> Option<Message> {
        self.outbound.clear();
        for id in self.inbound.ids() {
            self.outbound.journal.note(|| Change::Freed(id));
        }
        self.subscriptions.clear();
        self.pending_will.take().map(|will| will.message)
    }

    /// Adds or replaces a subscription (`[MQTT-3.8.4-3]`). Whether it is new; `None` when there are `max`.
    pub fn subscribe(
        &mut self,
        filter: &str,
        subscription: Subscription,
        max: Option<usize>,
    ) -> Option<bool> {
        if let Some(existing) = self.subscriptions.get_mut(filter) {
            *existing = subscription;
            return Some(false);
        }
        if max.is_some_and(|max| self.subscriptions.len() >= max) {
            return None;
        }
        self.subscriptions.add(filter, subscription);
        Some(true)
    }

    /// Removes the subscription of exactly this filter, character by character (`[MQTT-3.10.4-1]`). Whether there was
    /// one. What is in flight or waiting stays (`[MQTT-3.10.4-3]`).
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        self.subscriptions.remove(filter)
    }

    /// Filters as the client wrote them, with their subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, &Subscription)> {
        self.subscriptions.iter()
    }

    /// Delivers messages. Whether the driver has something to do: bytes to send, or [`Session::overran`].
    pub fn deliver_run(
        &mut self,
        run: &mut Run<'_, '_>,
        grant: &Grant<'_>,
        now: Now,
        tally: &mut Tally,
    ) -> bool {
        self.outbound.deliver_run(
            run,
            grant,
            self.output.as_mut(),
            keeping(&self.bounds, self.persistent),
            now,
            tally,
        );
        self.has_output() || self.overran()
    }

    /// Sends one more message now if nothing has to go before it and the client has room for it; gives it back
    /// otherwise. For retained messages, which wait where they are rather than in the queue.
    pub fn offer(&mut self, owed: Owed, now: Now, tally: &mut Tally) -> Option<Owed> {
        let Some(output) = self.output.as_mut() else { return Some(owed) };
        self.outbound.offer(owed, output, keeping(&self.bounds, self.persistent), now, tally)
    }

    /// A QoS 2 PUBLISH from the client: see [`Inbound::handle_publish`].
    #[inline]
    pub fn handle_publish(&mut self, id: PacketId, limits: InboundLimits, now: Now) -> Received {
        let received = self.inbound.handle_publish(id, limits, now);
        if received == Received::New {
            self.outbound.journal.note(|| Change::Taken(id));
        }
        received
    }

    /// A QoS 2 message was refused after all: see [`Inbound::forget`].
    #[inline]
    pub fn forget_publish(&mut self, id: PacketId) {
        if self.inbound.forget(id) {
            self.outbound.journal.note(|| Change::Freed(id));
        }
    }

    /// QoS 2 messages of the client that it has not released.
    #[must_use]
    pub fn awaiting_release(&self) -> usize {
        self.inbound.awaiting()
    }

    /// PUBREL from the client: see [`Inbound::handle_pubrel`].
    #[inline]
    pub fn handle_pubrel(&mut self, id: PacketId) -> ReasonCode {
        let reason = self.inbound.handle_pubrel(id);
        if reason == ReasonCode::Success {
            self.outbound.journal.note(|| Change::Freed(id));
        }
        reason
    }

    /// PUBACK from the client. Whether it was awaited.
    #[inline]
    pub fn handle_puback(&mut self, id: PacketId) -> bool {
        self.outbound.handle_puback(id)
    }

    /// PUBREC from the client: the Reason Code of the PUBREL to answer with, if any.
    #[inline]
    pub fn handle_pubrec(&mut self, id: PacketId, reason: ReasonCode) -> Option<ReasonCode> {
        self.outbound.handle_pubrec(id, reason)
    }

    /// PUBCOMP from the client. Whether it was awaited.
    #[inline]
    pub fn handle_pubcomp(&mut self, id: PacketId) -> bool {
        self.outbound.handle_pubcomp(id)
    }

    /// Moves what waits into the output, then moves the output behind `bytes`: by a swap when that is empty.
    pub fn take_output(&mut self, bytes: &mut Vec<u8>, now: Now, tally: &mut Tally) {
        let Some(output) = self.output.as_mut() else { return };
        self.outbound.fill(output, keeping(&self.bounds, self.persistent), now, tally);
        if bytes.is_empty() {
            std::mem::swap(&mut output.bytes, bytes);
        } else {
            bytes.append(&mut output.bytes);
        }
    }

    fn has_output(&self) -> bool {
        self.output.as_ref().is_some_and(|output| !output.bytes.is_empty())
    }

    /// Whether the connection is to end because its client does not keep up (`mqtt.mqueue_on_full`).
    #[must_use]
    pub fn overran(&self) -> bool {
        self.outbound.overran()
    }

    /// Bytes held for the client: what waits, and what is encoded and not taken yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.outbound.queued_bytes() + self.output.as_ref().map_or(0, |output| output.bytes.capacity())
    }

    /// Drops what waits at QoS 0; how many messages that were.
    pub fn shed_qos0(&mut self) -> u64 {
        self.outbound.shed_qos0()
    }

    /// Messages waiting for the client.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outbound.queued()
    }

    /// Deliveries without their final acknowledgement.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outbound.in_flight()
    }
}

fn keeping(bounds: &Bounds, persistent: bool) -> Keeping {
    Keeping { persistent, limits: bounds.queue, store_qos0: bounds.store_qos0 }
}

#[cfg(test)]
mod tests;
