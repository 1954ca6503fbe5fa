//! Drives one session over one Network Connection: one task, one hand-written poll.
//!
//! A turn takes what the session has to send, writes it, reads what has come, and handles the whole burst.
//! Per burst there is one read, one lock and at most one wake-up for each receiver, and one write: never one
//! per message. A client that does not read stops being read itself, so that its backlog stays bounded.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time;
use tokio::time::Sleep;

use crate::broker::Broker;
use crate::broker::Limits;
use crate::broker::client::Client;
use crate::broker::client::State;
use crate::broker::close::Close;
use crate::broker::enhanced::Enhanced;
use crate::broker::identity::Identity;
use crate::broker::identity::Policy;
use crate::broker::lent::Lent;
use crate::broker::linger::linger;
use crate::broker::link_ingress::LinkIngress;
use crate::broker::outbox::Outbox;
use crate::broker::present::Present;
use crate::broker::publish::Publisher;
use crate::broker::reasons::ReasonStrings;
use crate::broker::replay::Replay;
use crate::broker::threads::Mailbox;
use crate::broker::throttle::Throttle;
use crate::metrics::labels::ConsumerKind;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::SlowReason;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;
use crate::net::admission::Place;
use crate::net::admission::Settled;
use crate::net::clock;
use crate::net::transport::Transport;
use crate::session::Session;
use crate::time::Now;

/// What one read may bring: shared by every connection of a thread, so that an idle one holds no buffer.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Turns of one connection before others get theirs.
const TURNS_MAX: usize = 16;
/// With more unsent bytes than this the client is not read any further.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;
/// An idle connection gives a larger buffer than this back.
const IDLE_BYTES_MAX: usize = 4 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// The end of a connection whose client may still listen.
pub(super) type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection whose CONNECT was accepted.
pub struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) client: Arc<Client>,
    pub(super) epoch: u64,
    pub(super) version: Version,
    pub(super) reason_strings: ReasonStrings,
    pub(super) publisher: Publisher,
    /// The ACL as of the last burst.
    pub(super) policy: Arc<Policy>,
    /// The limits that CONNACK announced: a reload does not change what the client was told.
    pub(super) limits: Arc<Limits>,
    pub(super) ingress: Option<Box<LinkIngress>>,
    /// Only of a client that named an Authentication Method.
    pub(super) enhanced: Option<Box<Enhanced>>,
    throttle: Option<Box<Throttle>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Answers to the client's own packets, put in front of what its session has to send.
    pub(super) answers: Vec<u8>,
    /// What must not be sent before it is stored; once there was any.
    pub(super) outbox: Option<Box<Outbox>>,
    /// Only while there are any.
    #[expect(clippy::box_collection, reason = "a pointer where there is none")]
    pub(super) replays: Option<Box<VecDeque<Replay>>>,
    present: Option<Present>,
    /// Empty between turns.
    pub(super) lent: Lent,
    /// Of the thread that drives it, where there is more than one.
    home: Option<Arc<Mailbox>>,
    transport: Transport,
    decode_limits: DecodeLimits,
    /// The beginning of a packet whose rest has not come yet.
    tail: Vec<u8>,
    pub(super) unsent: Vec<u8>,
    pub(super) sent: usize,
    /// Since when the transport has taken nothing of it, on the monotonic clock.
    stalled_since: Option<NonZeroU64>,
    /// Rings when it has for too long.
    stall: Option<Pin<Box<Sleep>>>,
    heard: bool,
    /// The tail has packets that were not handled yet: they came with CONNECT, or were over the client's rate.
    unhandled: bool,
    /// The transport holds bytes that it could not pass on yet.
    flushing: bool,
}

/// What a [`Connection`] is made of.
pub struct Parts {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The session, attached.
    pub client: Arc<Client>,
    /// What `Broker::attach` gave for this connection.
    pub epoch: u64,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Protocol version.
    pub version: Version,
    /// Whether Reason Strings are welcome.
    pub reason_strings: ReasonStrings,
    /// The role of this connection in a link, if it is bound to a peer.
    pub ingress: Option<Box<LinkIngress>>,
    /// What it needs to authenticate again, if it named an Authentication Method.
    pub enhanced: Option<Box<Enhanced>>,
    /// The limits that CONNACK announced.
    pub limits: Arc<Limits>,
    /// How fast it is read, if that is limited.
    pub throttle: Option<Box<Throttle>>,
    /// Of the thread that drives it, where there is more than one.
    pub home: Option<Arc<Mailbox>>,
    /// The transport.
    pub transport: Transport,
    /// Bytes that came after CONNECT.
    pub tail: Vec<u8>,
    /// CONNACK.
    pub greeting: Vec<u8>,
    /// In which group is stored what it says; 0 if nothing is.
    pub greeting_in: u64,
}

impl Connection {
    /// A connection ready to be awaited.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let decode_limits = DecodeLimits {
            version: Some(parts.version),
            max_packet_size: parts.limits.server.max_packet_size,
        };
        let publisher = Publisher::new(parts.identity);
        let unhandled = !parts.tail.is_empty();
        Self {
            client: parts.client,
            epoch: parts.epoch,
            version: parts.version,
            reason_strings: parts.reason_strings,
            publisher,
            policy: parts.broker.policy(),
            broker: parts.broker,
            limits: parts.limits,
            ingress: parts.ingress,
            enhanced: parts.enhanced,
            throttle: parts.throttle,
            pause: None,
            // [MQTT-3.2.0-1], [MQTT-3.2.0-2]: in front of everything, and nowhere else.
            answers: parts.greeting,
            outbox: Outbox::begin(parts.greeting_in),
            replays: None,
            present: None,
            lent: Lent::default(),
            home: parts.home,
            transport: parts.transport,
            decode_limits,
            tail: parts.tail,
            unsent: Vec::new(),
            sent: 0,
            stalled_since: None,
            stall: None,
            heard: true,
            unhandled,
            flushing: false,
        }
    }

    /// Looks whether another ACL is in force by now. Retained messages under way are for subscriptions that it may
    /// deny.
    pub(super) fn follow_policy(&mut self) {
        if self.broker.follow_policy(&mut self.policy)
            && let Some(replays) = &mut self.replays
        {
            let (policy, identity) = (&self.policy, &self.publisher.identity);
            replays.retain(|replay| policy.authorize(identity, &replay.request()).is_ok());
        }
    }

    /// One turn. Whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Close> {
        if self.replays.is_some() {
            self.follow_policy();
        }
        let looked_up = self.look_up_retained(now);
        if self.broker.store.is_some() {
            self.collect_stored(cx, now)?;
        } else {
            self.collect(cx, now)?;
        }
        let wrote = self.write(cx)?;
        self.check_stall(cx, now, wrote)?;
        let held = self.outbox.as_ref().map_or(0, |outbox| outbox.bytes());
        let backlog = self.unsent.len() - self.sent + self.answers.len() + held;
        let read = backlog <= UNSENT_BYTES_MAX && !self.is_paused(cx, now)? && self.read(cx, now)?;
        if let Some(ingress) = &mut self.ingress {
            ingress.hold_unread(self.tail.len());
        }
        Ok(wrote || read || looked_up)
    }

    /// Looks up the next retained messages that are to be sent. Whether it did.
    fn look_up_retained(&mut self, now: Now) -> bool {
        let Some(replays) = &mut self.replays else { return false };
        let looked_up = Replay::look_up_next(replays, &self.broker, now);
        if replays.is_empty() {
            self.replays = None;
        }
        looked_up
    }

    /// Whether the connection is not to be read now: a link's, while local clients cannot keep up or the peer has too much
    /// under way, or one that is over its rate. It is woken when that is over.
    fn is_paused(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Close> {
        if self.ingress.is_none() && self.throttle.is_none() {
            return Ok(false);
        }
        let packet_max = self.limits.server.max_packet_size as usize;
        let slow = match &mut self.ingress {
            Some(ingress) => ingress.paused_for_ms(packet_max, now)?,
            None => None,
        };
        let over = self.throttle.as_mut().and_then(|throttle| throttle.wait(now));
        let Some(left) = slow.max(over.map(|over| over.ms)) else {
            self.pause = None;
            return Ok(false);
        };
        if self.pause.is_none() {
            if let Some(over) = over {
                self.broker.metrics.broker.throttled[over.reason].inc();
            }
            // It is we who do not listen: its silence counts from the end of that. Who took the session over, or ended
            // it, is for the next turn to see.
            if let Ok(mut state) = self.own() {
                state.session.touch(now.plus_ms(left));
            }
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(time::sleep(Duration::from_millis(left))));
        if pause.as_mut().poll(cx).is_ready() {
            self.pause = None;
            cx.waker().wake_by_ref();
        }
        Ok(true)
    }

    /// Whether a PUBLISH is handled now, or stays in the tail until the client's rate lets it.
    pub(super) fn admits(&mut self, topic: &str, now: Now) -> bool {
        let admitted = self.throttle.as_mut().is_none_or(|throttle| throttle.admits(topic, now));
        self.unhandled |= !admitted;
        admitted
    }

    /// How many bytes one read may bring: one at least, since to read none would look like the end.
    fn readable(&mut self, now: Now) -> usize {
        let of_link = self.ingress.as_ref().map_or(usize::MAX, |ingress| ingress.readable(now));
        let of_rate = self.throttle.as_mut().map_or(usize::MAX, |throttle| throttle.readable(now));
        of_link.min(of_rate).clamp(1, SCRATCH_BYTES)
    }

    /// Takes what there is to send, if the last of it is out, and registers for the next wake-up.
    fn collect(&mut self, cx: &Context<'_>, now: Now) -> Result<(), Close> {
        let idle = self.sent == self.unsent.len();
        if idle {
            self.unsent.clear();
            self.sent = 0;
            std::mem::swap(&mut self.unsent, &mut self.answers);
        }
        self.take_output(cx, idle, now).map(drop)
    }

    /// Registers for the next wake-up and, if `takes`, takes what the session has to send behind what is unsent. The group
    /// in which that is stored.
    pub(super) fn take_output(&mut self, cx: &Context<'_>, takes: bool, now: Now) -> Result<u64, Close> {
        let watched = (takes && self.broker.traces.is_on()).then(|| self.lent.counts().tally.clone());
        let burst = self.broker.begin();
        let mut state = self.client.lock();
        if state.epoch != self.epoch || state.over {
            return Err(Close::Server(state.kicked.unwrap_or(ReasonCode::SessionTakenOver)));
        }
        if let Some(reason) = state.kicked {
            return Err(Close::Server(reason));
        }
        if state.session.overran() {
            return Err(Close::Slow(SlowReason::QueueFull));
        }
        if let Some(replays) = state.replays.take() {
            self.replays.get_or_insert_default().extend(*replays);
            // They are looked up in a turn of their own.
            cx.waker().wake_by_ref();
        }
        state.listen(cx.waker(), self.home.as_ref());
        if std::mem::take(&mut self.heard) {
            state.session.touch(now);
        }
        if takes {
            let tally = &mut self.lent.counts().tally;
            if let Some(replays) = &mut self.replays {
                Replay::send_next(replays, &self.broker, &mut state.session, now, tally);
            }
            state.session.take_output(&mut self.unsent, now, tally);
        }
        state.keep(self.client.key, burst.as_ref(), now);
        let sent_in = state.session.sent_in();
        drop(state);
        drop(burst);
        if let Some(before) = watched {
            self.broker.trace_drained(&self.publisher.identity, &before, &self.lent.counts().tally, now);
        }
        Ok(sent_in)
    }

    /// Locks the session, if it is still this connection's.
    pub(super) fn own(&self) -> Result<MutexGuard<'_, State>, Close> {
        self.client.own(self.epoch)
    }

    /// The same for one call, and stores what that changed.
    #[inline]
    pub(super) fn own_and_keep<T>(&self, now: Now, call: impl FnOnce(&mut Session) -> T) -> Result<T, Close> {
        if self.broker.store.is_none() {
            return Ok(call(&mut self.own()?.session));
        }
        let burst = self.broker.begin();
        let mut state = self.own()?;
        let result = call(&mut state.session);
        state.keep(self.client.key, burst.as_ref(), now);
        Ok(result)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        let mut wrote = false;
        while self.sent < self.unsent.len() {
            match Pin::new(&mut self.transport).poll_write(cx, &self.unsent[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(Close::Lost(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.lent.counts().bytes_sent += count as u64;
                    wrote = true;
                }
                Poll::Ready(Err(error)) => return Err(Close::Lost(error)),
                Poll::Pending => return Ok(wrote),
            }
        }
        if wrote || self.flushing {
            match Pin::new(&mut self.transport).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(error)) => return Err(Close::Lost(error)),
                Poll::Pending => self.flushing = true,
            }
        }
        Ok(wrote)
    }

    /// Ends the connection of a client that takes nothing for `mqtt.send_timeout` while there is something for it:
    /// what it holds up costs memory. The timer is not touched by progress, which there may be at every turn; when it
    /// rings, it is seen how long the last progress is past.
    fn check_stall(&mut self, cx: &mut Context<'_>, now: Now, wrote: bool) -> Result<(), Close> {
        if self.sent == self.unsent.len() {
            self.stalled_since = None;
            if self.stall.as_ref().is_some_and(|stall| stall.is_elapsed()) {
                self.stall = None;
            }
            return Ok(());
        }
        let Some(timeout) = self.limits.send_timeout else { return Ok(()) };
        let since = match self.stalled_since {
            Some(since) if !wrote => since,
            _ => *self.stalled_since.insert(NonZeroU64::new(now.mono_ms).unwrap_or(NonZeroU64::MIN)),
        };
        let stall = self.stall.get_or_insert_with(|| Box::pin(time::sleep(timeout)));
        while stall.as_mut().poll(cx).is_ready() {
            let left = timeout.saturating_sub(Duration::from_millis(now.mono_ms.saturating_sub(since.get())));
            if left.is_zero() {
                return Err(Close::Slow(SlowReason::Stalled));
            }
            stall.set(time::sleep(left));
        }
        Ok(())
    }

    /// Reads once and handles every packet that is complete.
    fn read(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Close> {
        if std::mem::take(&mut self.unhandled) {
            return self.handle_tail(now);
        }
        if self.tail.len() >= SCRATCH_BYTES / 2 {
            return self.read_large(cx, now);
        }
        let readable = self.readable(now);
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = self.tail.len();
            let mut buffer = ReadBuf::new(&mut scratch[kept..SCRATCH_BYTES.min(kept + readable)]);
            let polled = Pin::new(&mut self.transport).poll_read(cx, &mut buffer);
            let Some(count) = poll_count(polled, &buffer)? else { return Ok(false) };
            scratch[..kept].copy_from_slice(&self.tail);
            self.count_bytes(count);
            let burst = &scratch[..kept + count];
            let used = self.handle(burst, now)?;
            self.tail.clear();
            self.tail.extend_from_slice(&burst[used..]);
            Ok(true)
        })
    }

    /// The same for a packet that outgrew the scratch space: it is collected where it stays.
    fn read_large(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Close> {
        let kept = self.tail.len();
        let readable = self.readable(now);
        self.tail.resize(kept + readable, 0);
        let mut buffer = ReadBuf::new(&mut self.tail[kept..]);
        let polled = poll_count(Pin::new(&mut self.transport).poll_read(cx, &mut buffer), &buffer);
        let count = match polled {
            Ok(Some(count)) => count,
            Ok(None) => {
                self.tail.truncate(kept);
                return Ok(false);
            }
            Err(close) => return Err(close),
        };
        self.tail.truncate(kept + count);
        self.count_bytes(count);
        self.handle_tail(now)
    }

    fn handle_tail(&mut self, now: Now) -> Result<bool, Close> {
        let burst = std::mem::take(&mut self.tail);
        let used = self.handle(&burst, now)?;
        self.tail = burst;
        self.tail.drain(..used);
        // Not while a large packet is coming: it would be moved at every read.
        if self.tail.len() < SCRATCH_BYTES {
            self.tail.shrink_to(SCRATCH_BYTES);
        }
        Ok(true)
    }

    /// Handles what came right behind CONNECT: a client need not wait for CONNACK (section 3.1.4), and may have
    /// nothing more to say.
    pub(super) fn handle_early(&mut self) -> Result<(), Close> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let burst = std::mem::take(&mut self.tail);
        self.count_bytes(burst.len());
        let used = self.handle(&burst, clock::now())?;
        self.tail.extend_from_slice(&burst[used..]);
        Ok(())
    }

    fn count_bytes(&mut self, count: usize) {
        self.lent.counts().bytes_received += count as u64;
        if let Some(throttle) = &mut self.throttle {
            throttle.spend_bytes(count);
        }
    }

    /// Handles the complete packets of a burst; gives how many bytes they were.
    fn handle(&mut self, burst: &[u8], now: Now) -> Result<usize, Close> {
        let limits = self.decode_limits;
        let used = self.handle_stored(burst, &limits, now)?;
        // [MQTT-3.1.2-22]: a whole packet is a sign of life, a byte of one is not.
        self.heard |= used > 0;
        Ok(used)
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self) {
        if self.sent == self.unsent.len() && self.unsent.capacity() > IDLE_BYTES_MAX {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        if self.answers.is_empty() && self.answers.capacity() > IDLE_BYTES_MAX {
            self.answers = Vec::new();
        }
    }

    fn report(&mut self) {
        self.lent.give_back(&self.broker);
    }

    /// Counts it from now on, until what [`Self::end`] gives is done.
    pub(super) fn put_on_the_books(&mut self, label: ListenerType, place: Place, settled: Settled) {
        self.present = Some(Present::new(&self.broker, label, self, place, settled));
    }

    /// Ends it: what is left to do when the client may still listen. Boxed, so that a living connection does not carry
    /// the memory of its end.
    pub(super) fn end(mut self: Box<Self>, close: &Close) -> Option<Farewell> {
        self.leave(close);
        if let Some(present) = &mut self.present {
            present.left = true;
        }
        let Self { transport, unsent, present, .. } = *self;
        close.peer_may_listen().then(|| -> Farewell {
            Box::pin(async move {
                linger(transport, unsent).await;
                drop(present);
            })
        })
    }

    /// Drives the connection until it is to be closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let now = clock::now();
        for _ in 0..TURNS_MAX {
            match self.turn(cx, now) {
                // Who gets its messages has much to send already: it is let have its turn.
                Ok(true) if self.lent.counts().tally.crowded => break,
                Ok(true) => {}
                Ok(false) => {
                    self.report();
                    self.rest();
                    return Poll::Pending;
                }
                Err(close) => return Poll::Ready(close),
            }
        }
        self.report();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the session back and leaves what is still to be sent in `unsent`: a DISCONNECT last, so never in front of
    /// CONNACK (`[MQTT-3.14.0-1]`) nor of anything else (`[MQTT-3.14.4-1]`). The connection ends behind it
    /// (`[MQTT-3.14.4-2]`).
    fn leave(&mut self, close: &Close) {
        self.report();
        close.log(&self.client.id);
        self.broker.trace_disconnect(&self.publisher.identity, close, clock::now());
        self.broker.metrics.broker.disconnects[close.label()].inc();
        if let Close::Slow(reason) = close {
            let kind = if self.ingress.is_some() { ConsumerKind::Link } else { ConsumerKind::Client };
            self.broker.metrics.broker.slow_consumers[(kind, *reason)].inc();
        }
        self.broker.note_end(&self.publisher.identity, close, clock::now());
        self.unsent.drain(..self.sent);
        self.leave_answers();
        // [MQTT-3.14.0-1]: not in front of CONNACK.
        if self.outbox.as_ref().is_none_or(|outbox| !outbox.greets()) {
            close.farewell(self.version, self.reason_strings, &mut self.unsent);
        }
        self.ingress = None;
        self.broker.detach(&self.client, self.epoch, close.ending(), clock::now());
    }
}

fn poll_count(polled: Poll<io::Result<()>>, buffer: &ReadBuf<'_>) -> Result<Option<usize>, Close> {
    match polled {
        Poll::Pending => Ok(None),
        Poll::Ready(Err(error)) => Err(Close::Lost(error)),
        Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
            Err(Close::Lost(io::ErrorKind::UnexpectedEof.into()))
        }
        Poll::Ready(Ok(())) => Ok(Some(buffer.filled().len())),
    }
}
