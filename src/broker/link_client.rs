//! One outgoing MQTT 5.0 connection of a link, after its CONNACK: bursts out, bursts in, Keep Alive
//! (`link-protocol.md` 1.3). How it is made is in `connect`; what goes over it is the drivers' business
//! (`link`, `forwarder`), which poll it from their own hand-written futures.

mod alarm;
mod connect;
#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::broker::linger::linger;
use crate::link::replicator::PUBACK_TIMEOUT_MS;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::ReconnectReason;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::decode::PLAIN_ACK_BYTES;
use crate::mqtt::decode::decode;
use crate::mqtt::decode::plain_ack;
use crate::mqtt::encode::encode;
use crate::mqtt::encode::encode_ack;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::SubAck;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::reason::ReasonCode;
use crate::net::transport::Transport;
use crate::time::Now;

pub use crate::broker::link_client::alarm::Alarm;
pub use crate::broker::link_client::connect::Accepted;
pub use crate::broker::link_client::connect::ConnectError;
pub use crate::broker::link_client::connect::Dial;
pub use crate::broker::link_client::connect::Dialer;
pub use crate::broker::link_client::connect::load_tls;
pub use crate::broker::link_client::connect::server;

/// The largest packet that we take unless a [`Dialer`] is told otherwise: acknowledgements and most answers of the
/// link protocol are far smaller. CONNECT tells the peer.
pub const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// What one read may bring.
const SCRATCH_BYTES: usize = 64 * 1024;
/// An idle connection gives a larger buffer than this back.
const IDLE_BYTES_MAX: usize = 16 * 1024;
/// With more unsent acknowledgements of ours than this the peer is not read any further. Our own messages do not
/// count: two ends that each wait for the other to read would wait for ever.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The transport failed or ended.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The peer sent DISCONNECT.
    #[error("disconnected by the peer: {0}")]
    Disconnected(ReasonCode),
    /// The peer sent bytes that are no packet.
    #[error("the peer broke the protocol: {0}")]
    Malformed(#[from] DecodeError),
    /// The peer sent a packet that has no place here.
    #[error("the peer broke the protocol: {} is not expected", .0.name())]
    Unexpected(PacketType),
    /// Nothing was heard for one and a half times the Keep Alive, PINGREQ unanswered.
    #[error("the peer is silent")]
    Silent,
    /// The peer answers, but did not acknowledge a message in time.
    #[error("no acknowledgement of a message within {PUBACK_TIMEOUT_MS} ms")]
    Unacknowledged,
}

impl Lost {
    /// Under what it is counted.
    #[must_use]
    pub fn reason(&self) -> ReconnectReason {
        match self {
            Self::Io(_) => ReconnectReason::Lost,
            Self::Malformed(_) | Self::Unexpected(_) => ReconnectReason::Protocol,
            Self::Silent | Self::Unacknowledged => ReconnectReason::Timeout,
            Self::Disconnected(reason) => match reason {
                ReasonCode::SessionTakenOver => ReconnectReason::Takeover,
                ReasonCode::ServerShuttingDown => ReconnectReason::Shutdown,
                ReasonCode::NotAuthorized => ReconnectReason::Auth,
                ReasonCode::MalformedPacket
                | ReasonCode::ProtocolError
                | ReasonCode::ImplementationSpecificError => ReconnectReason::Protocol,
                _ => ReconnectReason::Lost,
            },
        }
    }

    /// What the link is while this is the last that happened.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        match self.reason() {
            ReconnectReason::Auth => LinkState::Unauthenticated,
            ReconnectReason::Protocol => LinkState::Rejected,
            _ => LinkState::Unreachable,
        }
    }

    /// The Reason Code of the peer's DISCONNECT, if it sent one.
    #[must_use]
    pub fn reason_code(&self) -> Option<u8> {
        match self {
            Self::Disconnected(reason) => Some(reason.as_u8()),
            _ => None,
        }
    }
}

/// A packet for the driver. Everything else is answered or refused here.
#[derive(Debug)]
pub enum Event<'a> {
    /// A message we sent at QoS 1 is acknowledged.
    PubAck(Ack<'a>),
    /// A subscription is answered.
    SubAck(SubAck<'a>),
    /// A message of the peer; acknowledged already.
    Publish(Publish<'a>),
}

/// When Keep Alive acts, in monotonic milliseconds.
#[derive(Debug, Clone, Copy)]
struct KeepAlive {
    interval_ms: u64,
    sent_ms: u64,
    heard_ms: u64,
    pinged: bool,
}

impl KeepAlive {
    fn new(interval_ms: u64, now: Now) -> Self {
        Self { interval_ms, sent_ms: now.mono_ms, heard_ms: now.mono_ms, pinged: false }
    }

    /// Soon enough for a peer that counts the interval exactly, also while only we send: only an answer shows
    /// that the peer lives.
    fn ping_ms(&self) -> u64 {
        self.sent_ms.min(self.heard_ms) + self.interval_ms * 3 / 4
    }

    fn dead_ms(&self) -> u64 {
        self.heard_ms + self.interval_ms * 3 / 2
    }

    fn poll_timeout(&self) -> u64 {
        if self.pinged { self.dead_ms() } else { self.ping_ms() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct LinkClient {
    transport: Transport,
    unsent: Vec<u8>,
    sent: usize,
    /// How much of `unsent` answers what the peer sent.
    answer_bytes: usize,
    /// The beginning of a packet whose rest has not come yet.
    tail: Vec<u8>,
    /// `tail` came with CONNACK and was not looked at.
    fresh: bool,
    keep_alive: KeepAlive,
    flushing: bool,
    /// A burst went out since [`Self::rest`].
    busy: bool,
    packet_bytes_max: u32,
}

impl LinkClient {
    fn new(
        transport: Transport,
        tail: Vec<u8>,
        keep_alive_seconds: u16,
        packet_bytes_max: u32,
        now: Now,
    ) -> Self {
        let keep_alive = KeepAlive::new(u64::from(keep_alive_seconds) * 1000, now);
        let fresh = !tail.is_empty();
        Self {
            transport,
            unsent: Vec::new(),
            sent: 0,
            answer_bytes: 0,
            tail,
            fresh,
            keep_alive,
            flushing: false,
            busy: false,
            packet_bytes_max,
        }
    }

    /// Whether everything was handed to the transport, so that the next burst may be collected.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sent == self.unsent.len()
    }

    /// Where packets to send are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.is_idle() {
            self.unsent.clear();
            self.sent = 0;
            self.answer_bytes = 0;
        }
        &mut self.unsent
    }

    /// Writes what is unsent; how many bytes went.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn write(&mut self, cx: &mut Context<'_>, now: Now) -> Result<usize, Lost> {
        let before = self.sent;
        while self.sent < self.unsent.len() {
            match Pin::new(&mut self.transport).poll_write(cx, &self.unsent[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(Lost::Io(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.sent += count,
                Poll::Ready(Err(error)) => return Err(Lost::Io(error)),
                Poll::Pending => break,
            }
        }
        let wrote = self.sent - before;
        if wrote > 0 {
            self.keep_alive.sent_ms = now.mono_ms;
            self.busy |= wrote > IDLE_BYTES_MAX;
        }
        if wrote > 0 || self.flushing {
            match Pin::new(&mut self.transport).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(error)) => return Err(Lost::Io(error)),
                Poll::Pending => self.flushing = true,
            }
        }
        Ok(wrote)
    }

    /// Reads once and hands over every packet that is complete. Whether there was any byte. A peer that does not
    /// take our answers is not read, until [`Self::write`] got rid of them.
    ///
    /// # Errors
    /// If the connection is gone or must end.
    pub fn read(
        &mut self,
        cx: &mut Context<'_>,
        now: Now,
        mut handle: impl FnMut(Event<'_>),
    ) -> Result<bool, Lost> {
        if !self.is_idle() && self.answer_bytes > ANSWER_BYTES_MAX {
            return Ok(false);
        }
        let mut tail = std::mem::take(&mut self.tail);
        let kept = tail.len();
        if kept >= SCRATCH_BYTES / 2 || self.fresh {
            let count = if std::mem::take(&mut self.fresh) {
                Some(0)
            } else {
                tail.resize(kept + SCRATCH_BYTES, 0);
                self.receive(cx, &mut tail[kept..])?
            };
            tail.truncate(kept + count.unwrap_or(0));
            if count.is_some() {
                let used = self.handle(&tail, now, &mut handle)?;
                tail.drain(..used);
            }
            self.tail = tail;
            return Ok(count.is_some());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let count = self.receive(cx, &mut scratch[kept..])?;
            if let Some(count) = count {
                scratch[..kept].copy_from_slice(&tail);
                let burst = &scratch[..kept + count];
                let used = self.handle(burst, now, &mut handle)?;
                tail.clear();
                tail.extend_from_slice(&burst[used..]);
            }
            self.tail = tail;
            Ok(count.is_some())
        })
    }

    /// How many bytes came; `None` if none are there yet.
    fn receive(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Result<Option<usize>, Lost> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut self.transport).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(None),
            Poll::Ready(Err(error)) => Err(Lost::Io(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Err(Lost::Io(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Ok(())) => Ok(Some(buffer.filled().len())),
        }
    }

    /// Handles the complete packets of a burst; gives how many bytes they were.
    fn handle(&mut self, burst: &[u8], now: Now, handle: &mut impl FnMut(Event<'_>)) -> Result<usize, Lost> {
        self.keep_alive.heard_ms = now.mono_ms;
        self.keep_alive.pinged = false;
        let limits = DecodeLimits { version: Some(Version::V5), max_packet_size: self.packet_bytes_max };
        let mut used = 0;
        loop {
            let rest = &burst[used..];
            // Of a connection with messages this is nearly everything that comes.
            if let Some((PacketType::PubAck, packet_id)) = plain_ack(rest) {
                used += PLAIN_ACK_BYTES;
                let (reason, properties) = (ReasonCode::Success, Properties::EMPTY);
                handle(Event::PubAck(Ack { packet_id, reason, properties }));
                continue;
            }
            let Decoded::Packet { packet, len } = decode(rest, &limits)? else { return Ok(used) };
            used += len;
            self.dispatch(packet, handle)?;
        }
    }

    fn dispatch(&mut self, packet: Packet<'_>, handle: &mut impl FnMut(Event<'_>)) -> Result<(), Lost> {
        match packet {
            Packet::PubAck(ack) => handle(Event::PubAck(ack)),
            Packet::SubAck(ack) => handle(Event::SubAck(ack)),
            // We subscribe at QoS 1, so nothing comes at QoS 2 (`[MQTT-3.8.4-8]`).
            Packet::Publish(publish) if publish.qos != QoS::ExactlyOnce => {
                if let Some(id) = publish.packet_id {
                    self.acknowledge(id);
                }
                handle(Event::Publish(publish));
            }
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => return Err(Lost::Disconnected(disconnect.reason)),
            other => return Err(Lost::Unexpected(other.packet_type())),
        }
        Ok(())
    }

    fn acknowledge(&mut self, id: PacketId) {
        let buffer = self.buffer();
        let before = buffer.len();
        encode_ack(PacketType::PubAck, Version::V5, id, ReasonCode::Success, buffer);
        self.answer_bytes += self.unsent.len() - before;
    }

    /// When to call [`Self::handle_timeout`], in monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        self.keep_alive.poll_timeout()
    }

    /// Sends a PINGREQ when one is due.
    ///
    /// # Errors
    /// If the peer has been silent for too long.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), Lost> {
        if now.mono_ms < self.keep_alive.poll_timeout() {
            return Ok(());
        }
        if self.keep_alive.pinged {
            return Err(Lost::Silent);
        }
        self.keep_alive.pinged = true;
        self.keep_alive.sent_ms = now.mono_ms;
        // A PINGREQ has no field that could fail.
        let _ = encode(&Packet::PingReq, Version::V5, self.buffer());
        Ok(())
    }

    /// Gives back what an idle connection does not need. One that had a burst to send keeps its memory for the next,
    /// until its driver has been woken for something less.
    pub fn rest(&mut self) {
        if !std::mem::take(&mut self.busy) && self.is_idle() && self.unsent.capacity() > IDLE_BYTES_MAX {
            self.unsent = Vec::new();
            self.sent = 0;
        }
    }

    /// Sends what is unsent and a DISCONNECT, and closes; takes two seconds at most.
    pub async fn close(mut self) {
        self.unsent.drain(..self.sent);
        let disconnect = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        // A normal DISCONNECT has no field that could fail.
        let _ = encode(&Packet::Disconnect(disconnect), Version::V5, &mut self.unsent);
        linger(self.transport, self.unsent).await;
    }
}
