//! The sending half of a session: what goes to the client, and what waits for it.
//!
//! A message takes one of three ways: straight into the connection's output bytes, into the [`Queue`] when
//! the client is away or its send quota is used up, or nowhere, with a reason that is counted. QoS 1 and 2
//! deliveries hold a slot in the [`Ring`] until the client has acknowledged them. A session that ends with
//! its connection keeps only the Packet Identifier of what it sent, never the message.

pub(super) mod flight;
mod writing;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::mqtt::encode;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;
use crate::session::alias::Alias;
use crate::session::alias::OutboundAliases;
use crate::session::frames::Run;
use crate::session::journal::Change;
use crate::session::journal::Journal;
use crate::session::message::Message;
use crate::session::outbound::flight::InFlight;
use crate::session::outbound::flight::Stage;
use crate::session::outbound::writing::alias_for_owed;
use crate::session::outbound::writing::append;
use crate::session::outbound::writing::append_owed;
use crate::session::outbound::writing::deliver_unchanged;
use crate::session::outbound::writing::delivery_len;
use crate::session::outbound::writing::owed_len;
use crate::session::queue::Owed;
use crate::session::queue::Queue;
use crate::session::queue::QueueLimits;
use crate::session::queue::Tenths;
use crate::session::queue::WhenFull;
use crate::session::ring::Ring;
use crate::session::tally::DropReason;
use crate::session::tally::Tally;
use crate::time::Now;

/// Above this many unsent bytes QoS 1 and 2 deliveries wait in the queue.
pub const OUTPUT_BYTES_SOFT: usize = 512 * 1024;
/// Above this many unsent bytes QoS 0 deliveries wait in the queue too: the client reads too slowly.
pub const OUTPUT_BYTES_HARD: usize = 4 * 1024 * 1024;

/// The sending side of a Network Connection as a session sees it: what was negotiated, and the bytes to send.
#[derive(Debug)]
pub struct Output {
    /// Protocol version.
    pub version: Version,
    /// The client's Maximum Packet Size (`[MQTT-3.1.2-24]`).
    pub max_packet_size: u32,
    /// The client's Receive Maximum, lowered to `mqtt.max_inflight` (`[MQTT-3.3.4-9]`).
    pub receive_maximum: u16,
    /// Encoded packets, in order.
    pub bytes: Vec<u8>,
    /// Topic Aliases, if the client allows any.
    pub aliases: Option<Box<OutboundAliases>>,
}

/// What setting an alias adds to a packet at most: the property, and a longer length twice.
const ALIAS_BYTES: usize = 5;
/// The longest packet there is (section 1.5.5).
const PACKET_BYTES_MAX: usize = 268_435_460;

impl Output {
    /// Whether so many bytes of QoS 0 go in. One message always fits an empty output, however large it is.
    fn has_room_for(&self, length: usize) -> bool {
        self.bytes.is_empty() || self.bytes.len() + length <= OUTPUT_BYTES_HARD
    }

    /// How the Topic Name of a packet of `length` bytes goes out. The packet must be appended next.
    fn alias_for(&mut self, topic: &str, length: usize) -> Option<Alias> {
        let aliases = self.aliases.as_mut()?;
        let room = PACKET_BYTES_MAX.min(self.max_packet_size as usize);
        aliases.choose(topic, length + ALIAS_BYTES <= room)
    }
}

/// What a subscription, or several of one client together, grants a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// Maximum QoS.
    pub qos: QoS,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifiers of every matching subscription (`[MQTT-3.3.4-3]`).
    pub subscription_ids: &'a [u32],
    /// The Shared Subscription that chose this client, as `$share/{ShareName}/{filter}`.
    pub shared: Option<&'a Arc<Box<str>>>,
}

/// What to keep for a client, fixed by its session.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// Whether the session outlives its connection.
    pub persistent: bool,
    /// Bounds of the queue.
    pub limits: QueueLimits,
    /// `mqtt.mqueue_store_qos0`: whether QoS 0 messages wait for a client that is away.
    pub store_qos0: bool,
}

/// Deliveries to one client.
#[derive(Debug, Default)]
pub struct Outbound {
    pub(super) ring: Ring<InFlight>,
    pub(super) queue: Queue,
    /// What has to outlive the process.
    pub(super) journal: Journal,
    /// Leading slots of the ring that were sent on the present connection.
    pub(super) sent_slots: usize,
    /// Of those, how many PUBLISH packets are unacknowledged: what counts against Receive Maximum.
    on_wire: usize,
    /// Something was dropped because the client does not keep up, and its connection is to end for that.
    overrun: bool,
    /// Whether the PUBREL packets of the last connection were sent again on this one.
    released_again: bool,
}

impl Outbound {
    /// Messages waiting in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether the present connection is to end because its client does not keep up.
    #[must_use]
    pub fn overran(&self) -> bool {
        self.overrun
    }

    /// Bytes of what waits in the queue.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Drops what waits at QoS 0; how many messages that were.
    pub fn shed_qos0(&mut self) -> u64 {
        self.queue.shed_qos0()
    }

    /// Deliveries without their final acknowledgement.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ring.len()
    }

    /// Delivers a run of messages: to the output if there is one, else into the queue.
    pub fn deliver_run(
        &mut self,
        run: &mut Run<'_, '_>,
        grant: &Grant<'_>,
        output: Option<&mut Output>,
        keeping: Keeping,
        now: Now,
        tally: &mut Tally,
    ) {
        let Some(output) = output else {
            for index in 0..run.publications().len() {
                self.keep_for_later(run, index, grant, keeping, tally);
            }
            return;
        };
        run.begin();
        if self.queue.holds_qos0() || !deliver_unchanged(run, grant, output, tally) {
            for index in 0..run.publications().len() {
                self.deliver_one(run, index, grant, output, keeping, now, tally);
            }
        }
        tally.crowded |= output.bytes.len() > OUTPUT_BYTES_SOFT;
    }

    #[expect(clippy::too_many_arguments, reason = "one delivery is the meeting point of all of these")]
    fn deliver_one(
        &mut self,
        run: &mut Run<'_, '_>,
        index: usize,
        grant: &Grant<'_>,
        output: &mut Output,
        keeping: Keeping,
        now: Now,
        tally: &mut Tally,
    ) {
        let publication = run.publications()[index];
        let qos = publication.qos.min(grant.qos); // [MQTT-3.8.4-8]
        let retain = publication.retain && grant.retain_as_published; // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        if qos == QoS::AtMostOnce {
            if !self.queue.holds_qos0() {
                let length = delivery_len(run, index, qos, grant, output.version, now);
                if length > output.max_packet_size as usize {
                    tally.drop(DropReason::TooLarge, 1);
                    return;
                }
                if output.has_room_for(length) {
                    append(run, index, qos, retain, None, length, grant, output, now);
                    tally.sent(qos);
                    return;
                }
            }
            // No later one overtakes it there, of whatever QoS.
            return self.wait(owe(run, index, qos, retain, grant, keeping.limits, 0), keeping, tally);
        }
        if !self.may_send(output) {
            let number = self.journal.number();
            return self.wait(owe(run, index, qos, retain, grant, keeping.limits, number), keeping, tally);
        }
        let length = delivery_len(run, index, qos, grant, output.version, now);
        if length > output.max_packet_size as usize {
            tally.drop(DropReason::TooLarge, 1);
            return;
        }
        let keep = keeping.persistent || may_pass_on(qos, grant.shared.is_some());
        let in_flight = if keep {
            let number = self.journal.number();
            let owed = owe(run, index, qos, retain, grant, keeping.limits, number);
            self.journal.owed(&owed, self.ring.next_id());
            InFlight::kept(owed, false)
        } else {
            InFlight::forgotten(qos)
        };
        if let Some(id) = self.take_id(in_flight) {
            append(run, index, qos, retain, Some(id), length, grant, output, now);
            tally.sent(qos);
        }
    }

    /// Puts a message for a connected client into the queue.
    fn wait(&mut self, owed: Owed, keeping: Keeping, tally: &mut Tally) {
        let (slow, full) = self.queue.push_connected(owed, keeping.limits, &mut self.journal);
        tally.drop(DropReason::SlowConsumer, slow);
        tally.drop(DropReason::QueueFull, full);
        self.overrun |= slow + full > 0 && keeping.limits.when_full == WhenFull::Disconnect;
        // A queue that overflows all the same is not helped by waiting.
        tally.pressed |= slow + full == 0 && self.queue.is_half_full(keeping.limits);
    }

    /// Whether the next QoS 1 or 2 delivery may go out now, without overtaking any before it.
    fn may_send(&self, output: &Output) -> bool {
        self.queue.is_empty() && self.window_open(output)
    }

    /// The send quota (section 4.9): as many PUBLISH packets without their acknowledgement as the client takes
    /// (`[MQTT-4.9.0-1]`), and none above that (`[MQTT-4.9.0-2]`). Everything else passes without asking here
    /// (`[MQTT-4.9.0-3]`, `[MQTT-3.3.4-10]`).
    fn window_open(&self, output: &Output) -> bool {
        self.sent_slots == self.ring.slots()
            && self.on_wire < usize::from(output.receive_maximum)
            && self.ring.has_room()
            && output.bytes.len() < OUTPUT_BYTES_SOFT
    }

    /// A message begins its way to the client: with an identifier of its own (`[MQTT-4.3.2-1]`,
    /// `[MQTT-4.3.3-1]`), unacknowledged until the client says otherwise (`[MQTT-4.3.2-3]`, `[MQTT-4.3.3-3]`).
    fn take_id(&mut self, in_flight: InFlight) -> Option<PacketId> {
        let id = self.ring.push(in_flight).ok()?;
        self.sent_slots += 1;
        self.on_wire += 1;
        Some(id)
    }

    fn keep_for_later(
        &mut self,
        run: &mut Run<'_, '_>,
        index: usize,
        grant: &Grant<'_>,
        keeping: Keeping,
        tally: &mut Tally,
    ) {
        let publication = run.publications()[index];
        let qos = publication.qos.min(grant.qos);
        if qos == QoS::AtMostOnce && !keeping.store_qos0 {
            tally.drop(DropReason::Offline, 1);
            return;
        }
        let retain = publication.retain && grant.retain_as_published;
        let number = if qos == QoS::AtMostOnce { 0 } else { self.journal.number() };
        let owed = owe(run, index, qos, retain, grant, keeping.limits, number);
        tally.drop(DropReason::QueueFull, self.queue.push(owed, keeping.limits, &mut self.journal));
    }

    /// Sends one message if it may go now; gives it back otherwise.
    pub fn offer(
        &mut self,
        owed: Owed,
        output: &mut Output,
        keeping: Keeping,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Owed> {
        let now_or_later = match owed.qos {
            QoS::AtMostOnce => !self.queue.holds_qos0() && output.bytes.len() < OUTPUT_BYTES_SOFT,
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.may_send(output),
        };
        if !now_or_later {
            return Some(owed);
        }
        self.send_owed(owed, output, keeping, now, tally);
        None
    }

    /// Sends again what the last connection left unacknowledged, then what waits, as far as the send quota and
    /// the output allow. Call it after anything that frees either.
    pub fn fill(&mut self, output: &mut Output, keeping: Keeping, now: Now, tally: &mut Tally) {
        self.resend(output, now, tally);
        while self.next_may_go(output) && !self.queue.next_is_elsewhere() {
            let Some(owed) = self.queue.pop() else { return };
            self.send_owed(owed, output, keeping, now, tally);
        }
    }

    /// Whether the oldest in the queue may go. At QoS 0 it needs no place among what the client has to acknowledge.
    fn next_may_go(&self, output: &Output) -> bool {
        match self.queue.next_qos() {
            None => false,
            Some(QoS::AtMostOnce) => {
                self.sent_slots == self.ring.slots() && output.bytes.len() < OUTPUT_BYTES_SOFT
            }
            Some(QoS::AtLeastOnce | QoS::ExactlyOnce) => self.window_open(output),
        }
    }

    /// `[MQTT-4.4.0-1]`: unacknowledged PUBLISH and PUBREL packets are sent again on a new connection and only
    /// there, with their original identifiers, in order. Nothing in flight expires (`[MQTT-4.3.3-7]`), and what
    /// a Shared Subscription gave to this client stays with it (`[MQTT-4.8.2-4]`).
    fn resend(&mut self, output: &mut Output, now: Now, tally: &mut Tally) {
        if !std::mem::replace(&mut self.released_again, true) {
            self.release_again(output);
        }
        while self.sent_slots < self.ring.slots()
            && self.on_wire < usize::from(output.receive_maximum)
            && output.bytes.len() < OUTPUT_BYTES_SOFT
        {
            let slot = self.sent_slots;
            if self.ring.at_mut(slot).is_some_and(|(_, in_flight)| in_flight.is_elsewhere()) {
                return;
            }
            self.sent_slots += 1;
            let Some((id, in_flight)) = self.ring.at_mut(slot) else { continue };
            // Without a message it is past its PUBREC: no PUBLISH again (`[MQTT-4.3.3-6]`).
            let Some(owed) = in_flight.owed() else { continue };
            if owed_len(owed, output.version, now) > output.max_packet_size as usize {
                // [MQTT-3.1.2-25]: the new connection takes less; as if it had been sent.
                self.finish(id, |_| true);
                tally.drop(DropReason::TooLarge, 1);
                continue;
            }
            append_owed(owed, Some(id), true, None, output, now);
            tally.resent += 1;
            in_flight.takes_place = true;
            self.on_wire += 1;
        }
    }

    /// The PUBREL packets of the last connection, all at once: they wait for no place among the PUBLISH packets
    /// (`[MQTT-3.3.4-10]`).
    fn release_again(&mut self, output: &mut Output) {
        for slot in 0..self.ring.slots() {
            if let Some((id, InFlight { stage: Stage::Complete, .. })) = self.ring.at_mut(slot) {
                pubrel(output, id, ReasonCode::Success);
            }
        }
    }

    /// Sends what waited, or, without a number, what was never owed before.
    fn send_owed(
        &mut self,
        mut owed: Owed,
        output: &mut Output,
        keeping: Keeping,
        now: Now,
        tally: &mut Tally,
    ) {
        if owed.is_over(now) {
            // [MQTT-3.3.2-5]
            self.journal.over(owed.number);
            tally.drop(DropReason::Expired, 1);
            return;
        }
        let length = owed_len(&owed, output.version, now);
        if length > output.max_packet_size as usize {
            self.journal.over(owed.number);
            tally.drop(DropReason::TooLarge, 1);
            return;
        }
        tally.sent(owed.qos);
        if owed.qos == QoS::AtMostOnce {
            let alias = alias_for_owed(&owed, length, output);
            append_owed(&owed, None, false, alias, output, now);
            return;
        }
        let keep = keeping.persistent || may_pass_on(owed.qos, owed.shared.is_some());
        let Some(id) = self.ring.next_id() else { return };
        let waited = owed.number != 0;
        if waited {
            let number = owed.number;
            self.journal.note(|| Change::Sent { number, id });
        } else if self.journal.is_on() {
            owed.number = self.journal.number();
            self.journal.owed(&owed, Some(id));
        }
        let alias = alias_for_owed(&owed, length, output);
        append_owed(&owed, Some(id), false, alias, output, now);
        self.take_id(if keep { InFlight::kept(owed, waited) } else { InFlight::forgotten(owed.qos) });
    }

    /// PUBACK: ends a QoS 1 delivery (`[MQTT-4.3.2-3]`). Whether there was one. Its Reason Code changes nothing: a
    /// message that the client refuses is sent no more (`[MQTT-4.4.0-2]`), and to nobody else (`[MQTT-4.8.2-6]`).
    pub fn handle_puback(&mut self, id: PacketId) -> bool {
        self.finish(id, |stage| stage == Stage::Acknowledge)
    }

    /// PUBREC: the Reason Code of the PUBREL to answer with (`[MQTT-4.3.3-4]`); 0x92 for an unknown identifier. None
    /// when the client refused the message, which ends the delivery (`[MQTT-4.4.0-2]`, `[MQTT-4.8.2-6]`). The answer belongs among the answers to what the
    /// client sends, not into the output: a client that never reads could make that grow without end.
    pub fn handle_pubrec(&mut self, id: PacketId, reason: ReasonCode) -> Option<ReasonCode> {
        if reason.is_error() {
            self.finish(id, |stage| stage != Stage::Acknowledge);
            return None;
        }
        let known = self.ring.find_mut(id).filter(|found| found.stage != Stage::Acknowledge);
        let Some(found) = known else { return Some(ReasonCode::PacketIdentifierNotFound) };
        found.stage = Stage::Complete;
        found.take_owed();
        let number = found.number();
        if number != 0 {
            self.journal.note(|| Change::Received { number, id });
        }
        Some(ReasonCode::Success)
    }

    /// PUBCOMP: ends a QoS 2 delivery, whose PUBREL was unacknowledged until now (`[MQTT-4.3.3-5]`).
    pub fn handle_pubcomp(&mut self, id: PacketId) -> bool {
        self.finish(id, |stage| stage == Stage::Complete)
    }

    /// Ends a delivery that is at such a stage. Whether there was one.
    pub(super) fn finish(&mut self, id: PacketId, at: impl FnOnce(Stage) -> bool) -> bool {
        let Some(ended) = self.ring.remove_if(id, |found| at(found.stage)) else { return false };
        self.journal.over_and(ended.value.number(), ended.value.noted);
        if ended.slot < self.sent_slots && ended.value.takes_place {
            self.on_wire -= 1;
        }
        self.sent_slots = self.sent_slots.saturating_sub(ended.freed);
        true
    }

    /// The connection is gone. What was in flight waits to be sent again if the session is kept.
    pub fn handle_disconnected(&mut self) {
        self.sent_slots = 0;
        self.on_wire = 0;
        self.overrun = false;
        self.released_again = false;
        for slot in 0..self.ring.slots() {
            if let Some((_, in_flight)) = self.ring.at_mut(slot) {
                in_flight.takes_place = false;
            }
        }
    }

    /// The session ends: takes out what another member of a Shared Subscription may be given instead. That is
    /// what was not sent yet, and what was sent at QoS 1 and not acknowledged (section 4.8.2); never what was
    /// sent at QoS 2 (`[MQTT-4.8.2-5]`).
    pub fn take_shared(&mut self) -> Vec<Owed> {
        let mut shared = Vec::new();
        for slot in 0..self.ring.slots() {
            let Some((_, in_flight)) = self.ring.at_mut(slot) else { continue };
            if in_flight.stage == Stage::Acknowledge
                && in_flight.owed().is_some_and(|owed| owed.shared.is_some())
            {
                shared.extend(in_flight.take_owed());
            }
        }
        let waiting = self.queue.take(|owed| owed.shared.is_some());
        waiting.iter().for_each(|owed| self.journal.over(owed.number));
        shared.extend(waiting);
        shared
    }

    /// Takes out what the client may not have any more, oldest first: what waits, and what was sent on an earlier
    /// connection and would be sent again on this one or the next. What this connection was sent cannot be taken back.
    pub fn withhold(&mut self, denied: impl Fn(&Owed) -> bool) -> Vec<Owed> {
        let mut ended = Vec::new();
        for slot in self.sent_slots..self.ring.slots() {
            let Some((id, in_flight)) = self.ring.at_mut(slot) else { continue };
            if in_flight.owed().is_some_and(&denied) {
                ended.extend(in_flight.take_owed().map(|owed| (id, owed)));
            }
        }
        let mut withheld = Vec::with_capacity(ended.len());
        for (id, owed) in ended {
            self.finish(id, |_| true);
            withheld.push(owed);
        }
        let waiting = self.queue.take(denied);
        waiting.iter().for_each(|owed| self.journal.over(owed.number));
        withheld.extend(waiting);
        withheld
    }

    /// Forgets everything owed: the session ended.
    pub fn clear(&mut self) {
        for in_flight in self.ring.drain() {
            self.journal.over_and(in_flight.number(), in_flight.noted);
        }
        self.queue.numbers().for_each(|number| self.journal.over(number));
        self.queue.clear();
        self.handle_disconnected();
    }
}

/// Whether a delivery in flight is kept for another member of its Shared Subscription.
fn may_pass_on(qos: QoS, shared: bool) -> bool {
    shared && qos == QoS::AtLeastOnce
}

fn pubrel(output: &mut Output, id: PacketId, reason: ReasonCode) {
    encode::encode_ack(PacketType::PubRel, output.version, id, reason, &mut output.bytes);
}

fn owe(
    run: &mut Run<'_, '_>,
    index: usize,
    qos: QoS,
    retain: bool,
    grant: &Grant<'_>,
    limits: QueueLimits,
    number: u64,
) -> Owed {
    let may_wait_ms = limits.wait_ms_max.filter(|_| run.publications()[index].expiry.is_none());
    let ids = grant.subscription_ids;
    Owed {
        message: run.keep(index),
        subscription_ids: (!ids.is_empty()).then(|| Box::new(ids.into())),
        qos,
        retain,
        shared: grant.shared.cloned(),
        waits_until: may_wait_ms.map(|ms| Tenths::from_mono_ms(run.now().mono_ms.saturating_add(ms))),
        number,
    }
}

/// A retained message as a new subscription gets it: RETAIN set, at the lower of both QoS (`[MQTT-3.8.4-8]`).
#[must_use]
pub fn owe_retained(message: &Message, granted: QoS, subscription_id: Option<u32>) -> Owed {
    Owed {
        message: message.clone(),
        subscription_ids: subscription_id.map(|id| Box::new(SmallVec::from_slice(&[id]))),
        qos: message.qos().min(granted),
        retain: true,
        shared: None,
        waits_until: None,
        number: 0,
    }
}
