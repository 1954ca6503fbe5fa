//! What a lane has told the metrics so far: its counters are reported as differences, once per turn.

use crate::link::ingress::DropReason;
use crate::link::lane::Lane;
use crate::link::lane::LaneCounters;
use crate::metrics::LinkMetrics;
use crate::metrics::labels::ByteKind;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::metrics::series::Counter;
use crate::metrics::series::Gauge;
use crate::mqtt::packet::QoS;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Bytes spooled, before compression.
    pub(super) raw_bytes: u64,
    reported_raw: u64,
    counters: LaneCounters,
    queued: i64,
    bytes: i64,
    in_flight: i64,
    window: i64,
    unaccounted: i64,
}

impl Ledger {
    /// Brings the link's series up to date with this lane.
    pub(super) fn report(&mut self, lane: &Lane, metrics: &LinkMetrics) {
        let counters = *lane.counters();
        let last = std::mem::replace(&mut self.counters, counters);
        let delivered = |qos| &metrics.messages[(Direction::Out, qos)];
        rise(delivered(QoS::AtLeastOnce), counters.acked, last.acked);
        rise(delivered(QoS::AtMostOnce), counters.fired, last.fired);
        rise(&metrics.retries, counters.resent, last.resent);
        let dropped = |reason: LinkDropReason| &metrics.messages_dropped[(Direction::Out, reason)];
        rise(dropped(LinkDropReason::PeerRefused), counters.failed, last.failed);
        if counters.dropped != last.dropped {
            for reason in DropReason::ALL {
                let index = reason.index();
                rise(dropped(reason.into()), counters.dropped[index], last.dropped[index]);
            }
        }
        rise(&metrics.bytes[(Direction::Out, ByteKind::Raw)], self.raw_bytes, self.reported_raw);
        self.reported_raw = self.raw_bytes;
        shift(&metrics.spool_messages, &mut self.queued, lane.queued() as i64);
        shift(&metrics.spool_bytes, &mut self.bytes, lane.bytes().cast_signed());
        shift(&metrics.inflight, &mut self.in_flight, lane.in_flight() as i64);
        shift(&metrics.inflight_limit, &mut self.window, lane.window() as i64);
        shift(&metrics.ledger_unaccounted, &mut self.unaccounted, lane.unaccounted());
    }

    /// The lane ends: what it still has no longer counts here.
    pub(super) fn close(&mut self, lane: &Lane, metrics: &LinkMetrics) {
        self.report(lane, metrics);
        shift(&metrics.spool_messages, &mut self.queued, 0);
        shift(&metrics.spool_bytes, &mut self.bytes, 0);
        shift(&metrics.inflight, &mut self.in_flight, 0);
        shift(&metrics.inflight_limit, &mut self.window, 0);
        shift(&metrics.ledger_unaccounted, &mut self.unaccounted, 0);
    }
}

fn rise(counter: &Counter, now: u64, last: u64) {
    if now > last {
        counter.add(now - last);
    }
}

/// The gauge is the sum over all lanes, so each adds what changed.
fn shift(gauge: &Gauge, reported: &mut i64, now: i64) {
    if *reported != now {
        gauge.add(now - *reported);
        *reported = now;
    }
}
