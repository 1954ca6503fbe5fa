//! Drives one lane: keeps a connection to the peer and moves the lane's messages over it, a burst at a time:
//! one read, one lock and one write, never one per message.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use parking_lot::MutexGuard;

use crate::broker::forwarder::LaneState;
use crate::broker::forwarder::kept;
use crate::broker::forwarder::reading::Reading;
use crate::broker::link_client::Accepted;
use crate::broker::link_client::Alarm;
use crate::broker::link_client::Dial;
use crate::broker::link_client::Dialer;
use crate::broker::link_client::Event;
use crate::broker::link_client::LinkClient;
use crate::broker::link_client::Lost;
use crate::broker::links::Link;
use crate::link::backoff::Backoff;
use crate::link::lane::Acked;
use crate::link::lane::Lane;
use crate::link::name;
use crate::link::replicator::PUBACK_TIMEOUT_MS;
use crate::link::replicator::RECONNECT_FIRST_MS;
use crate::link::replicator::RECONNECT_MS;
use crate::metrics::labels::ByteKind;
use crate::metrics::labels::Direction;
use crate::metrics::labels::ReconnectReason;
use crate::metrics::series::SecondsHistogram;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::net::clock;
use crate::net::random;
use crate::time::Now;

/// What one write may carry, and one message more.
const BURST_BYTES: usize = 128 * 1024;
/// Turns of one lane before others get theirs.
const TURNS_MAX: usize = 16;

/// Where the connection stands.
enum Phase {
    /// Until the next attempt, in monotonic milliseconds.
    Waiting(u64),
    Dialing(Dial),
    Connected(LinkClient),
    Stopped,
}

struct Driver {
    link: Arc<Link>,
    index: usize,
    dialer: Dialer,
    phase: Phase,
    backoff: Backoff,
    attempt_ms: u64,
    alarm: Alarm,
    patience: Patience,
    /// Acknowledgements of one read.
    acks: Vec<(PacketId, u8)>,
    /// A page of the spool that is being read.
    reading: Reading,
    /// What the last problem was: the same one is not logged at every attempt.
    last_problem: String,
    /// When the lane ends, in monotonic milliseconds, once the link was stopped.
    stop_ms: Option<u64>,
    /// Nothing is spooled or in flight.
    drained: bool,
}

/// Drives lane `index` of the link until the link is stopped.
pub async fn run_lane(link: Arc<Link>, index: usize, node: Arc<str>) {
    let client_id = name::message_client_id(&link.settings.clientid, &node, index + 1);
    let mut driver = Driver {
        dialer: Dialer::new(Arc::clone(&link), &client_id),
        link,
        index,
        phase: Phase::Waiting(0),
        backoff: Backoff::new(RECONNECT_FIRST_MS, RECONNECT_MS),
        attempt_ms: 0,
        alarm: Alarm::default(),
        patience: Patience::default(),
        acks: Vec::new(),
        reading: Reading::default(),
        last_problem: String::new(),
        stop_ms: None,
        drained: true,
    };
    let client = poll_fn(|cx| driver.poll(cx)).await;
    if let Some(client) = client {
        client.close().await;
    }
}

impl Driver {
    /// Ends with the connection to be closed, if there is one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkClient>> {
        let now = clock::now();
        for _ in 0..TURNS_MAX {
            let moved = match &mut self.phase {
                Phase::Waiting(until_ms) => {
                    let until_ms = *until_ms;
                    self.wait(cx, until_ms, now)
                }
                Phase::Dialing(_) => self.dial(cx, now),
                Phase::Connected(_) => self.turn(cx, now),
                Phase::Stopped => return Poll::Ready(None),
            };
            if self.is_over(now) {
                return Poll::Ready(self.finish(now));
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the link was stopped and nothing is left to send, or no time.
    fn is_over(&self, now: Now) -> bool {
        let Some(stop_ms) = self.stop_ms else { return false };
        match &self.phase {
            Phase::Connected(client) => now.mono_ms >= stop_ms || self.drained && client.is_idle(),
            _ => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.link.forwarder.lanes[self.index].lock()
    }

    fn wait(&mut self, cx: &mut Context<'_>, until_ms: u64, now: Now) -> bool {
        let (stop_ms, expires_ms) = {
            let mut locked = self.link.forwarder.lock(self.index, now);
            let state = &mut *locked.state;
            state.listen(cx);
            state.lane.handle_timeout(now);
            state.report(&self.link.metrics);
            let found = (state.stop_ms, state.lane.poll_timeout());
            locked.settle();
            found
        };
        self.stop_ms = stop_ms;
        let due_ms = expires_ms.map_or(until_ms, |due| due.min(until_ms));
        if !self.alarm.poll(cx, Some(due_ms), now) {
            return false;
        }
        if now.mono_ms >= until_ms {
            self.attempt_ms = now.mono_ms;
            self.phase = Phase::Dialing(self.dialer.dial());
        }
        true
    }

    fn dial(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let stop_ms = {
            let mut state = self.state();
            state.listen(cx);
            state.stop_ms
        };
        self.stop_ms = stop_ms;
        let Phase::Dialing(dial) = &mut self.phase else { return false };
        match dial.as_mut().poll(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok((client, accepted))) => self.connected(client, accepted),
            Poll::Ready(Err(error)) => {
                self.dialer.move_on();
                self.failed(error.reason(), error.to_string(), now);
            }
        }
        true
    }

    fn connected(&mut self, client: LinkClient, accepted: Accepted) {
        let Accepted { receive_maximum, maximum_packet_size } = accepted;
        self.link.doubt(self.index, self.attempt_ms);
        self.state().lane.handle_connected(receive_maximum, maximum_packet_size);
        self.link.metrics.connections[Direction::Out].inc();
        self.last_problem.clear();
        tracing::debug!(peer = self.link.peer(), lane = self.index, "link lane connected");
        self.phase = Phase::Connected(client);
    }

    /// One burst in and one out. Whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        match self.try_turn(cx, now) {
            Ok(moved) => moved,
            Err(lost) => {
                self.lost(&lost, now);
                true
            }
        }
    }

    fn try_turn(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Lost> {
        let Phase::Connected(client) = &mut self.phase else { return Ok(false) };
        let acks = &mut self.acks;
        let mut foreign = None;
        let read = client.read(cx, now, |event| match event {
            Event::PubAck(ack) => acks.push((ack.packet_id, ack.reason.as_u8())),
            // A lane subscribes to nothing.
            Event::Publish(_) => foreign = Some(PacketType::Publish),
            Event::SubAck(_) => foreign = Some(PacketType::SubAck),
        })?;
        if let Some(packet) = foreign {
            return Err(Lost::Unexpected(packet));
        }
        client.handle_timeout(now)?;
        let page = self.reading.poll(cx, &self.link);
        let (expires_ms, oldest, gate, wanted) = {
            let mut locked = self.link.forwarder.lock(self.index, now);
            let state = &mut *locked.state;
            state.listen(cx);
            if let Some((page, bytes)) = page {
                kept::take_page(&mut state.lane, page, bytes.as_deref(), &self.link);
            }
            if acknowledge(&mut state.lane, acks, &self.link.metrics.lag, now) {
                self.backoff.succeeded();
                self.link.metrics.last_success.set_ms(now.unix_ms);
            }
            state.lane.measure(now);
            state.lane.handle_timeout(now);
            if client.is_idle() {
                state.lane.fill(now, client.buffer(), BURST_BYTES);
            }
            state.report(&self.link.metrics);
            self.stop_ms = state.stop_ms;
            self.drained = state.lane.queued() == 0 && state.lane.in_flight() == 0;
            let (expires_ms, oldest) = (state.lane.poll_timeout(), state.lane.oldest_in_flight());
            let found = (expires_ms, oldest, state.lane.gate(), state.lane.wants_page());
            locked.settle();
            found
        };
        let read = self.reading.begin(wanted, &self.link) || read;
        let wrote = client.write(cx, now)?;
        let ack_ms = self.patience.watch(oldest, client.is_idle(), now);
        if ack_ms.is_some_and(|due| now.mono_ms >= due) {
            return Err(Lost::Unacknowledged);
        }
        if read || wrote > 0 {
            self.link.metrics.bytes[(Direction::Out, ByteKind::Wire)].add(wrote as u64);
            return Ok(true);
        }
        client.rest();
        if gate.is_some_and(|group| self.link.forwarder.is_committed(group, cx)) {
            return Ok(true);
        }
        let due_ms = [self.stop_ms, expires_ms, ack_ms, self.reading.retry_ms()]
            .into_iter()
            .flatten()
            .fold(client.poll_timeout(), u64::min);
        Ok(self.alarm.poll(cx, Some(due_ms), now))
    }

    /// The connection is gone: what was in flight is sent again on the next one.
    fn lost(&mut self, lost: &Lost, now: Now) {
        self.acks.clear();
        self.patience = Patience::default();
        self.link.metrics.connections[Direction::Out].dec();
        self.disconnect(now);
        // One that lived as long as the longest pause was no failed attempt, even without traffic.
        if now.mono_ms.saturating_sub(self.attempt_ms) >= RECONNECT_MS {
            self.backoff.succeeded();
        } else {
            self.dialer.move_on();
        }
        self.failed(lost.reason(), lost.to_string(), now);
    }

    fn failed(&mut self, reason: ReconnectReason, problem: String, now: Now) {
        self.link.metrics.reconnects[reason].inc();
        let pause_ms = self.backoff.failed(random::number() as u32);
        let (peer, lane, reason) = (self.link.peer(), self.index, reason.name());
        // Its neighbours have the same to tell.
        if self.last_problem == problem || lane > 0 {
            tracing::debug!(peer, lane, reason, "link lane: {problem}");
        } else {
            tracing::warn!(peer, lane, reason, "link lane: {problem}");
        }
        self.last_problem = problem;
        self.phase = Phase::Waiting((self.attempt_ms + pause_ms).max(now.mono_ms));
    }

    fn disconnect(&self, now: Now) {
        let mut locked = self.link.forwarder.lock(self.index, now);
        locked.state.lane.handle_disconnected();
        locked.state.report(&self.link.metrics);
        locked.settle();
    }

    /// The link is stopped. What the lane still has is its owner's to drop or to hand on.
    fn finish(&mut self, now: Now) -> Option<LinkClient> {
        self.disconnect(now);
        self.state().waker = None;
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Connected(client) => {
                self.link.metrics.connections[Direction::Out].dec();
                Some(client)
            }
            _ => None,
        }
    }
}

/// How long the peer has owed the acknowledgement of the oldest message in flight. It counts from when that message
/// became the oldest and was handed to the transport, so a slow peer that acknowledges one after the other is not
/// taken for one that has stopped.
#[derive(Debug, Default)]
pub(super) struct Patience {
    oldest: Option<PacketId>,
    since_ms: u64,
}

impl Patience {
    /// When it ends, in monotonic milliseconds. `sent`: nothing waits for the transport.
    pub(super) fn watch(&mut self, oldest: Option<PacketId>, sent: bool, now: Now) -> Option<u64> {
        if oldest != self.oldest || !sent {
            self.oldest = oldest;
            self.since_ms = now.mono_ms;
        }
        oldest.map(|_| self.since_ms.saturating_add(PUBACK_TIMEOUT_MS))
    }
}

/// Hands the acknowledgements of one read to the lane, and says how long their messages took; whether the peer took
/// anything.
fn acknowledge(lane: &mut Lane, acks: &mut Vec<(PacketId, u8)>, lag: &SecondsHistogram, now: Now) -> bool {
    let mut delivered = false;
    // Messages of one burst were taken in one moment: they are counted together.
    let (mut moment_ms, mut count) = (0, 0);
    let took_ms = |moment_ms: i64| now.mono_ms.cast_signed().saturating_sub(moment_ms).max(0).unsigned_abs();
    for (packet_id, reason) in acks.drain(..) {
        let Acked::Delivered { pushed_ms } = lane.handle_ack(packet_id, reason) else { continue };
        delivered = true;
        if pushed_ms != moment_ms && count > 0 {
            lag.observe_ms(took_ms(moment_ms), count);
            count = 0;
        }
        moment_ms = pushed_ms;
        count += 1;
    }
    if count > 0 {
        lag.observe_ms(took_ms(moment_ms), count);
    }
    delivered
}
