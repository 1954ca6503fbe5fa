//! Heartbeats: they keep our routes alive at the peer. One of ours acknowledges them, which gives a round-trip time,
//! and once a minute it is told what we have sent it and which routes we want, and answers what it knows of both.

use crate::link::extension::Capabilities;
use crate::link::extension::RouteDigest;
use crate::link::extension::Sent;
use crate::link::payload;
use crate::link::payload::Heartbeat;
use crate::link::payload::HeartbeatAck;
use crate::link::replicator::ControlPublish;
use crate::link::replicator::HEARTBEAT_MS;
use crate::link::replicator::Output;
use crate::link::replicator::PUBACK_TIMEOUT_MS;
use crate::link::replicator::Problem;
use crate::link::replicator::Replicator;
use crate::link::replicator::State;
use crate::mqtt::packet::QoS;
use crate::time::Now;

/// Pause between heartbeats that bring a report.
pub(super) const REPORT_MS: u64 = 60_000;
/// How often in a row our routes and what the peer knows of them may differ: once may be chance.
const MISMATCHES_MAX: u32 = 2;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    pub(super) due_ms: u64,
    pub(super) report_ms: u64,
    /// The one that is not acknowledged, and when it was sent.
    waiting: Option<(u32, u64)>,
    /// The routes that the peer was last asked to compare.
    told: Option<RouteDigest>,
    mismatches: u32,
}

impl Heartbeats {
    /// The peer has not acknowledged one for as long as it may take.
    pub(super) fn is_overdue(&self, now: Now) -> bool {
        self.waiting.is_some_and(|(_, sent_ms)| now.mono_ms >= sent_ms + PUBACK_TIMEOUT_MS)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self) {
        self.waiting = None;
        self.told = None;
    }
}

impl Replicator {
    /// The peer has a new connection to us, and waits until it hears that we are who we were: it does not have to wait
    /// for the next heartbeat.
    pub fn reassure(&mut self, now: Now) {
        if self.state == State::Online {
            self.beat(now, None, None);
        }
    }

    /// It is time for a heartbeat.
    pub(super) fn beat_or_report(&mut self, now: Now) {
        let is_due = self.state == State::Online && now.mono_ms >= self.heartbeats.report_ms;
        if is_due && self.capabilities.has(Capabilities::HEARTBEAT_ACK) {
            self.heartbeats.report_ms = now.mono_ms + REPORT_MS;
            self.heartbeats.due_ms = now.mono_ms + HEARTBEAT_MS;
            self.outputs.push_back(Output::RequestReport);
        } else {
            self.beat(now, None, None);
        }
    }

    /// The report asked for: what we have sent to the peer, and our routes if they could be counted while none changed.
    pub fn handle_report(&mut self, now: Now, books: Sent, routes: Option<RouteDigest>) {
        if self.state != State::Online {
            return;
        }
        let is_quiet = self.awaited.is_none() && self.pending.is_empty() && self.routes_too_large() == 0;
        self.heartbeats.told = routes.filter(|_| is_quiet);
        self.beat(now, Some(books), self.heartbeats.told);
    }

    /// A heartbeat. A peer that can answer gets it at QoS 1, unless it owes us the acknowledgement of one.
    pub(super) fn beat(&mut self, now: Now, books: Option<Sent>, routes: Option<RouteDigest>) {
        self.heartbeats.due_ms = now.mono_ms + HEARTBEAT_MS;
        let mut payload = Vec::with_capacity(96);
        let beat = Heartbeat { actor: &self.config.actor, incarnation: self.incarnation, books, routes };
        payload::put_heartbeat(&mut payload, &beat);
        let is_timed =
            self.capabilities.has(Capabilities::HEARTBEAT_ACK) && self.heartbeats.waiting.is_none();
        let token = if is_timed { self.next_token() } else { 0 };
        if is_timed {
            self.heartbeats.waiting = Some((token, now.mono_ms));
        }
        let asks = books.is_some() || routes.is_some();
        self.outputs.push_back(Output::Publish(ControlPublish {
            token,
            qos: if is_timed { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            topic: self.route_topic.clone(),
            payload,
            response_topic: asks.then(|| self.response_topic.clone()),
            correlation_data: None,
        }));
    }

    /// PUBACK came, perhaps for a heartbeat.
    pub(super) fn heartbeat_acknowledged(&mut self, now: Now, token: u32) -> bool {
        let beat = self.heartbeats.waiting.take_if(|(beat, _)| *beat == token);
        if let Some((_, sent_ms)) = beat {
            self.outputs.push_back(Output::RoundTrip { ms: now.mono_ms.saturating_sub(sent_ms) });
        }
        beat.is_some()
    }

    /// heartbeat_ack came.
    pub(super) fn heartbeat_answered(&mut self, ack: &HeartbeatAck<'_>) {
        let is_ours = ack.actor == self.config.actor && ack.incarnation == self.incarnation;
        if self.state != State::Online || !is_ours {
            return;
        }
        if let Some(books) = ack.books {
            self.outputs.push_back(Output::Received(books));
        }
        let (Some(told), Some(known)) = (self.heartbeats.told.take(), ack.routes) else { return };
        self.heartbeats.mismatches = if told == known { 0 } else { self.heartbeats.mismatches + 1 };
        self.outputs
            .push_back(Output::RoutesCompared { differ: self.heartbeats.mismatches >= MISMATCHES_MAX });
        if self.heartbeats.mismatches >= MISMATCHES_MAX {
            self.heartbeats.mismatches = 0;
            // Only a new incarnation makes the peer forget what we do not want.
            self.renew_incarnation = true;
            self.failed(Problem::RoutesDiffer);
        }
    }
}
