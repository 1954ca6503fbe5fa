//! One connection's share of what we forward to a peer: a bounded spool of encoded messages, the in-flight
//! window, acknowledgements, and sending again after a lost connection (`link-protocol.md` 6; the buffer of
//! EMQX's message resource). Delivery is at least once for QoS 1 and 2, in the order pushed.
//!
//! A message is encoded straight into the spool, within the packet in which it is sent, and goes from there (`burst`). Where each one went is kept in a ledger:
//! pushed − acked − fired − failed − dropped − queued − in flight = 0, always.
//!
//! Where the lane has a place to keep messages of QoS 1 and 2 ([`Keep`]) they outlive the process (`kept`), and only so many of
//! them are in memory (`pages`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::link::arena::Arena;
use crate::link::arena::Span;
use crate::link::ingress::DropReason;
use crate::link::ingress::NO_MATCHING_SUBSCRIBERS;
pub use crate::link::lane::kept::Keep;
pub use crate::link::lane::kept::Keeper;
use crate::link::lane::kept::Kept;
use crate::link::lane::kept::NONE;
pub use crate::link::lane::pages::PAGE_BYTES;
pub use crate::link::lane::pages::PageRef;
pub use crate::link::lane::pages::RESIDENT_BYTES_MAX;
pub use crate::link::lane::spool::LaneConfig;
pub use crate::link::lane::spool::LaneCounters;
pub use crate::link::lane::spool::OnFull;
pub use crate::link::lane::spool::SpoolBudget;
pub use crate::link::lane::spool::is_filling;
pub use crate::link::lane::window::WINDOW_MAX;
use crate::link::lane::window::Window;
use crate::mqtt::frame::Heads;
use crate::mqtt::frame::PACKET_BYTES_MAX;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::time::Now;

mod burst;
mod kept;
mod moving;
mod pages;
mod spool;
pub mod stored;
mod window;

/// The smallest in-flight window that a lane chooses for itself; EMQX's `max_inflight`.
pub const MAX_INFLIGHT: u16 = 32;
/// Bytes a link may spool when configuration leaves it open.
pub const SPOOL_BYTES_MAX: u64 = 1_000_000_000;
/// What a spooled message costs beside its packet.
const ENTRY_BYTES: u64 = 48;
/// How many packet identifiers the window may span.
const SPAN_MAX: usize = 65_535;

/// What became of a message at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Spooled.
    Spooled,
    /// Dropped and counted.
    Dropped(DropReason),
    /// The spool is full and the publisher is to know ([`OnFull::Refuse`]). Counted as dropped.
    Refused,
}

/// Whether what is spooled is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is not.
    None,
    /// For the moment: the connection is new, and the peer has still to say that it is who it was.
    Doubt,
    /// For as long as the peer has not said what it wants. QoS 0 is dropped as without a connection.
    Wait,
}

/// A message to send now.
#[derive(Debug, PartialEq, Eq)]
pub struct Transmission<'a> {
    /// `None` for QoS 0. The outer QoS is never above 1.
    pub packet_id: Option<PacketId>,
    /// It was sent before, on an earlier connection.
    pub dup: bool,
    /// The PUBLISH.
    pub packet: &'a [u8],
    /// Where in it the message begins.
    message_at: usize,
}

impl<'a> Transmission<'a> {
    /// The message, as it was encoded.
    #[must_use]
    pub fn message(&self) -> &'a [u8] {
        self.packet.get(self.message_at..).unwrap_or_default()
    }
}

/// What an acknowledgement meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// The peer has it; pushed at this time.
    Delivered {
        /// When it was pushed, in monotonic milliseconds; before they began, if that was in another life.
        pushed_ms: i64,
    },
    /// The peer refused it for good.
    Failed {
        /// The peer's reason code.
        reason: u8,
    },
    /// Nothing in flight has this identifier.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    pushed_ms: i64,
    span: Span,
    publisher: u32,
    /// What it is kept in, or [`NONE`].
    record: u32,
    acknowledged: bool,
    sent: bool,
}

impl Entry {
    fn cost(&self) -> u64 {
        self.span.len() as u64 + ENTRY_BYTES
    }
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    entry: Entry,
    acked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    /// The peer's Receive Maximum, and our own bound if there is one.
    window_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Lane {
    config: LaneConfig,
    heads: Heads,
    budget: Arc<SpoolBudget>,
    arena: Arena,
    queue: VecDeque<Entry>,
    /// Consecutive packet identifiers, the first of them `first_id`. Acknowledged ones stay until all before
    /// them are.
    in_flight: VecDeque<InFlight>,
    first_id: u16,
    unacked: usize,
    /// How many may be, while connected.
    unacked_max: usize,
    window: Window,
    bytes: u64,
    /// Messages that wait and may have been sent before.
    resend: usize,
    /// If anything is kept outside of memory.
    kept: Option<Box<Kept>>,
    /// Bytes of the budget that this lane has and no message takes: so that lanes on different threads do not all
    /// write to the budget for each message.
    credit: u64,
    connection: Option<Connection>,
    /// The largest packet that the peer takes, as far as it is known.
    packet_max: usize,
    hold: Hold,
    counters: LaneCounters,
}

/// Packet identifiers run from 1 to 65,535 and around.
fn id_at(first: u16, offset: usize) -> u16 {
    ((usize::from(first) - 1 + offset) % SPAN_MAX) as u16 + 1
}

/// Which of so many lanes a publisher's messages take: always the same, so that they stay in order.
#[must_use]
pub fn lane_of(publisher: u32, lanes: usize) -> Option<usize> {
    (publisher as usize).checked_rem(lanes)
}

impl Lane {
    /// An empty lane without a connection.
    #[must_use]
    pub fn new(config: LaneConfig, budget: Arc<SpoolBudget>) -> Self {
        Self {
            heads: Heads::new(&config.topic),
            kept: config.keep.clone().map(|keep| Box::new(Kept::new(keep))),
            config,
            budget,
            arena: Arena::default(),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            first_id: 1,
            unacked: 0,
            unacked_max: 0,
            window: Window::default(),
            bytes: 0,
            resend: 0,
            credit: 0,
            connection: None,
            packet_max: PACKET_BYTES_MAX,
            hold: Hold::None,
            counters: LaneCounters::default(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &LaneConfig {
        &self.config
    }

    /// Spools what `encode` appends. `qos` is the message's own.
    pub fn push(&mut self, now: Now, qos: QoS, encode: impl FnOnce(&mut Vec<u8>)) -> Pushed {
        self.push_from(0, now, qos, encode)
    }

    /// The same, remembering for [`Self::split`] who publishes.
    pub fn push_from(
        &mut self,
        publisher: u32,
        now: Now,
        qos: QoS,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Pushed {
        self.push_packet(publisher, now, qos, |out, head| {
            out.extend_from_slice(head);
            encode(out);
        })
    }

    /// How the packet of a message begins.
    #[must_use]
    pub fn head(&self, qos: QoS) -> &[u8] {
        self.heads.of(qos != QoS::AtMostOnce)
    }

    /// The same, where `encode` appends the [`Self::head`] too, which it is given.
    pub fn push_packet(
        &mut self,
        publisher: u32,
        now: Now,
        qos: QoS,
        encode: impl FnOnce(&mut Vec<u8>, &[u8]),
    ) -> Pushed {
        self.counters.pushed += 1;
        let acknowledged = qos != QoS::AtMostOnce;
        let is_away = self.connection.is_none() || self.hold == Hold::Wait;
        if !acknowledged && is_away && !self.config.qos0 {
            return self.turned_away(DropReason::Offline);
        }
        let heads = &self.heads;
        let span = self.arena.append(|out| heads.append(out, |out| encode(out, heads.of(acknowledged))));
        if span.len() > self.packet_max {
            self.arena.release(span);
            return self.turned_away(DropReason::TooLarge);
        }
        let pushed_ms = now.mono_ms.cast_signed();
        let entry = Entry { pushed_ms, span, publisher, record: NONE, acknowledged, sent: false };
        if !self.make_room(entry.cost()) {
            self.arena.release(span);
            let pushed = self.turned_away(DropReason::SpoolFull);
            return if self.config.on_full == OnFull::Refuse { Pushed::Refused } else { pushed };
        }
        if self.kept.is_some() {
            self.push_kept(entry, qos == QoS::ExactlyOnce);
        } else {
            self.bytes += entry.cost();
            self.queue.push_back(entry);
        }
        Pushed::Spooled
    }

    fn turned_away(&mut self, reason: DropReason) -> Pushed {
        self.counters.dropped[reason.index()] += 1;
        Pushed::Dropped(reason)
    }

    fn make_room(&mut self, bytes: u64) -> bool {
        if self.reserve(bytes) {
            return true;
        }
        // Dropping what we have must be enough: other lanes' messages are not ours to drop.
        let others = self.budget.used().saturating_sub(self.bytes + self.credit);
        if self.config.on_full != OnFull::DropOldest || others + bytes > self.budget.limit() {
            return false;
        }
        loop {
            if !self.drop_oldest() {
                return false;
            }
            if self.reserve(bytes) {
                return true;
            }
        }
    }

    fn drop_oldest(&mut self) -> bool {
        if let Some(oldest) = self.queue.pop_front() {
            self.drop_entry(oldest, DropReason::SpoolFull);
            return true;
        }
        self.drop_page(DropReason::SpoolFull) || self.drop_gathered(DropReason::SpoolFull)
    }

    /// Takes bytes of the budget, and some on credit if there are as many.
    fn reserve(&mut self, bytes: u64) -> bool {
        if let Some(missing) = bytes.checked_sub(self.credit).filter(|missing| *missing > 0) {
            let step = self.budget.step();
            if step > 0 && self.budget.reserve(missing + step) {
                self.credit += missing + step;
            } else if self.budget.reserve(missing) {
                self.credit += missing;
            } else {
                return false;
            }
        }
        self.credit -= bytes;
        true
    }

    /// Gives bytes back, when they are many.
    fn release(&mut self, bytes: u64) {
        self.credit += bytes;
        let step = self.budget.step();
        if self.credit > 2 * step {
            self.budget.release(self.credit - step);
            self.credit = step;
        }
    }

    fn drop_entry(&mut self, entry: Entry, reason: DropReason) {
        self.counters.dropped[reason.index()] += 1;
        self.resend -= usize::from(entry.sent);
        self.free(entry);
    }

    fn free(&mut self, entry: Entry) {
        let cost = entry.cost();
        self.bytes -= cost;
        self.release(cost);
        self.arena.release(entry.span);
        if let Some(kept) = &mut self.kept {
            kept.forget(&entry);
        }
    }

    /// A connection is up: CONNACK came with these limits.
    pub fn handle_connected(&mut self, receive_maximum: u16, maximum_packet_size: Option<u32>) {
        self.handle_disconnected();
        self.window = Window::default();
        self.connection = Some(Connection {
            window_max: usize::from(
                self.config.max_inflight.unwrap_or(self.config.window_max).min(receive_maximum).max(1),
            ),
        });
        self.packet_max =
            maximum_packet_size.map_or(PACKET_BYTES_MAX, |size| PACKET_BYTES_MAX.min(size as usize));
        self.set_window();
    }

    /// The connection is gone: everything unacknowledged goes back to the front, in order.
    pub fn handle_disconnected(&mut self) {
        self.connection = None;
        self.packet_max = PACKET_BYTES_MAX;
        for in_flight in std::mem::take(&mut self.in_flight).into_iter().rev() {
            if !in_flight.acked {
                self.resend += 1;
                self.queue.push_front(Entry { sent: true, ..in_flight.entry });
            }
        }
        self.unacked = 0;
        self.first_id = 1;
        if !self.config.qos0 {
            self.drop_qos0();
        }
    }

    /// Drops what is of QoS 0.
    pub fn drop_qos0(&mut self) {
        for entry in std::mem::take(&mut self.queue) {
            if entry.acknowledged {
                self.queue.push_back(entry);
            } else {
                self.drop_entry(entry, DropReason::Offline);
            }
        }
    }

    /// Messages that the peer may have and has not acknowledged: what is in flight, and what was when the connection broke.
    #[must_use]
    pub fn uncertain(&self) -> usize {
        self.unacked + self.resend
    }

    /// The next message to send, if there is a connection with room in its window. What has become too old or
    /// is larger than the peer takes is dropped on the way.
    pub fn next_to_send(&mut self, now: Now) -> Option<Transmission<'_>> {
        if !self.is_open() {
            return None;
        }
        self.expire(now);
        let entry = loop {
            let entry = *self.queue.front()?;
            if entry.span.len() <= self.packet_max {
                break entry;
            }
            self.queue.pop_front();
            self.drop_entry(entry, DropReason::TooLarge);
        };
        if !entry.acknowledged {
            self.queue.pop_front();
            self.counters.sent += 1;
            self.counters.fired += 1;
            self.bytes -= entry.cost();
            if let Some(kept) = &mut self.kept {
                kept.forget(&entry);
            }
            self.release(entry.cost());
            let packet = self.arena.take(entry.span);
            let message_at = self.heads.payload_at(packet, false);
            return Some(Transmission { packet_id: None, dup: false, packet, message_at });
        }
        if self.unacked >= self.unacked_max || self.in_flight.len() >= SPAN_MAX {
            self.window.handle_full(now, self.counters.acked + self.counters.failed);
            return None;
        }
        if entry.record != NONE && self.is_gated(&entry) {
            return None;
        }
        self.queue.pop_front();
        self.resend -= usize::from(entry.sent);
        let packet_id = PacketId::new(id_at(self.first_id, self.in_flight.len()))?;
        self.in_flight.push_back(InFlight { entry, acked: false });
        self.unacked += 1;
        if self.config.max_inflight.is_none() {
            self.window.handle_sent(packet_id, now);
        }
        self.counters.sent += 1;
        self.counters.resent += u64::from(entry.sent);
        let packet = self.arena.bytes_mut(entry.span);
        self.heads.mark(packet, packet_id, entry.sent);
        let message_at = self.heads.payload_at(packet, true);
        Some(Transmission { packet_id: Some(packet_id), dup: entry.sent, packet, message_at })
    }

    /// PUBACK. 0x00 and 0x10 mean the peer has it (`link-protocol.md` 2.3); anything else is final.
    pub fn handle_ack(&mut self, packet_id: PacketId, reason: u8) -> Acked {
        let offset = (usize::from(packet_id.get()) + SPAN_MAX - usize::from(self.first_id)) % SPAN_MAX;
        let Some(in_flight) = self.in_flight.get_mut(offset).filter(|in_flight| !in_flight.acked) else {
            return Acked::Unknown;
        };
        in_flight.acked = true;
        self.window.handle_ack(packet_id);
        let entry = in_flight.entry;
        self.unacked -= 1;
        while self.in_flight.front().is_some_and(|in_flight| in_flight.acked) {
            self.in_flight.pop_front();
            self.first_id = id_at(self.first_id, 1);
        }
        self.free(entry);
        if reason == 0 || reason == NO_MATCHING_SUBSCRIBERS {
            self.counters.acked += 1;
            Acked::Delivered { pushed_ms: entry.pushed_ms }
        } else {
            self.counters.failed += 1;
            Acked::Failed { reason }
        }
    }

    /// How many messages may be in flight.
    #[must_use]
    pub fn window(&self) -> usize {
        if self.connection.is_some() { self.unacked_max } else { 0 }
    }

    fn set_window(&mut self) {
        let Some(connection) = self.connection else { return };
        self.unacked_max = match self.config.max_inflight {
            Some(_) => connection.window_max,
            None => self.window.size().min(connection.window_max),
        };
    }

    /// Looks whether the window should be another one. Call it once a turn, behind the acknowledgements.
    pub fn measure(&mut self, now: Now) {
        if self.config.max_inflight.is_none() {
            self.window.measure(now, self.counters.acked + self.counters.failed);
            self.set_window();
        }
    }

    /// Drops what has become too old. Call it at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire(now);
    }

    fn expire(&mut self, now: Now) {
        let Some(max_age_ms) = self.config.max_age_ms else { return };
        let before_ms = now.mono_ms.cast_signed().saturating_sub_unsigned(max_age_ms);
        while let Some(entry) = self.queue.front().copied().filter(|entry| entry.pushed_ms <= before_ms) {
            self.queue.pop_front();
            self.drop_entry(entry, DropReason::Expired);
        }
        self.expire_pages(before_ms);
    }

    /// When the oldest queued message becomes too old, in monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let max_age_ms = self.config.max_age_ms?;
        let queued = self.queue.front().map(|entry| entry.pushed_ms);
        let first_ms = queued.into_iter().chain(self.first_page().map(|page| page.newest_ms)).min()?;
        Some(u64::try_from(first_ms.saturating_add_unsigned(max_age_ms)).unwrap_or(0))
    }

    /// Holds back what is spooled, connected or not, or lets it go on. What is in flight stays so.
    pub fn hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// Whether what is spooled is held back.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold != Hold::None
    }

    /// Whether what is pushed can go at once, as far as it is up to us.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.is_some() && !self.is_held()
    }

    /// Whether a connection is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Messages spooled and not in flight.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len() + self.kept.as_ref().map_or(0, |kept| kept.paged + kept.tail.len())
    }

    /// Messages sent and not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.unacked
    }

    /// The first message that was sent and is not acknowledged.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<PacketId> {
        // What is acknowledged leaves the front at once.
        self.in_flight.front().and_then(|_| PacketId::new(self.first_id))
    }

    /// Bytes of the budget this lane uses.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes it keeps in memory.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.arena.memory() + self.queue.capacity() * size_of::<Entry>()
    }

    /// How long the oldest message has been waiting or in flight.
    #[must_use]
    pub fn oldest_age_ms(&self, now: Now) -> Option<u64> {
        let in_flight = self.in_flight.iter().find(|in_flight| !in_flight.acked).map(|it| it.entry.pushed_ms);
        let queued = || self.queue.front().map(|entry| entry.pushed_ms);
        let oldest_ms = in_flight.or_else(queued).or_else(|| Some(self.first_page()?.oldest_ms))?;
        Some(u64::try_from(now.mono_ms.cast_signed().saturating_sub(oldest_ms)).unwrap_or(0))
    }

    /// Where the messages went.
    #[must_use]
    pub fn counters(&self) -> &LaneCounters {
        &self.counters
    }

    /// The ledger's balance: `link_ledger_unaccounted_messages`, which must be 0.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let counters = &self.counters;
        let known = counters.acked
            + counters.fired
            + counters.failed
            + counters.dropped_total()
            + self.queued() as u64
            + self.unacked as u64;
        counters.pushed.cast_signed() - known.cast_signed()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.budget.release(self.bytes + self.credit);
    }
}

#[cfg(test)]
mod tests;
