//! How many messages a lane may have in flight when that is left to it (`max_inflight = "auto"`): as many as it takes
//! for the connection to carry what it can, which is what fits into one round trip. Nobody knows either beforehand.
//!
//! As long as it is the window that holds messages back it is doubled, once in two round trips; when twice the window
//! brought no more messages across, the half of it is enough, and is kept for a while. One that nothing waits for
//! shrinks. What a peer takes slowly holds us up at the socket, not here, and makes no window grow.

use crate::link::lane::MAX_INFLIGHT;
use crate::mqtt::packet::PacketId;
use crate::time::Now;

/// The smallest.
const WINDOW_MIN: usize = MAX_INFLIGHT as usize;
/// The largest: what a receiver of ours surely remembers of each of eight connections ([`crate::link::seen`]).
pub const WINDOW_MAX: usize = 16_000;
/// The shortest round: a few messages are no measure.
const ROUND_MS_MIN: u64 = 20;
/// How long a window that was found to be enough is kept before a larger one is tried, and how long one may go unused
/// before it is halved.
const KEPT_MS: u64 = 10_000;
/// Rounds without a gain before a window is taken for enough: one may be chance.
const STALLS_MAX: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    /// The message whose way there and back is measured.
    probe: Option<Probe>,
    /// The last that was measured.
    round_trip_ms: Option<u64>,
    round: Option<Round>,
    /// Messages that came across in the best round so far, in a second.
    rate: u64,
    stalls: u8,
    kept_until_ms: u64,
    /// When it last held a message back.
    used_ms: u64,
}

#[derive(Debug)]
struct Probe {
    packet_id: PacketId,
    sent_ms: u64,
    acked: bool,
}

/// A time in which the window holds messages back from its beginning.
#[derive(Debug)]
struct Round {
    start_ms: u64,
    acked: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: WINDOW_MIN,
            probe: None,
            round_trip_ms: None,
            round: None,
            rate: 0,
            stalls: 0,
            kept_until_ms: 0,
            used_ms: 0,
        }
    }
}

impl Window {
    /// How many may be in flight.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A message goes out.
    #[inline]
    pub(super) fn handle_sent(&mut self, packet_id: PacketId, now: Now) {
        if self.probe.is_none() {
            self.probe = Some(Probe { packet_id, sent_ms: now.mono_ms, acked: false });
        }
    }

    /// A message was acknowledged.
    #[inline]
    pub(super) fn handle_ack(&mut self, packet_id: PacketId) {
        if let Some(probe) = &mut self.probe
            && probe.packet_id == packet_id
        {
            probe.acked = true;
        }
    }

    /// The window is full and a message waits. `acked` counts those that came across since the lane began.
    #[inline]
    pub(super) fn handle_full(&mut self, now: Now, acked: u64) {
        self.used_ms = now.mono_ms;
        self.round.get_or_insert(Round { start_ms: now.mono_ms, acked });
    }

    /// Looks at what was measured, once a turn.
    pub(super) fn measure(&mut self, now: Now, acked: u64) {
        if let Some(probe) = self.probe.take_if(|probe| probe.acked) {
            self.round_trip_ms = Some(now.mono_ms.saturating_sub(probe.sent_ms));
        }
        let Some(round) = &self.round else { return self.shrink(now) };
        let Some(round_trip_ms) = self.round_trip_ms else { return };
        let elapsed_ms = now.mono_ms.saturating_sub(round.start_ms);
        if elapsed_ms < (2 * round_trip_ms).max(ROUND_MS_MIN) {
            return;
        }
        let rate = (acked - round.acked) * 1_000 / elapsed_ms;
        self.round = None;
        if now.mono_ms >= self.kept_until_ms {
            self.judge(now, rate);
        }
    }

    fn judge(&mut self, now: Now, rate: u64) {
        if rate > self.rate + self.rate / 8 {
            self.rate = rate;
            self.stalls = 0;
            if self.size == WINDOW_MAX {
                return self.keep(now);
            }
            self.size = (self.size * 2).min(WINDOW_MAX);
            return;
        }
        self.stalls += 1;
        if self.stalls >= STALLS_MAX {
            // Something else holds it up.
            self.size = (self.size / 2).max(WINDOW_MIN);
            self.keep(now);
        }
    }

    /// That may change: whatever comes across in the first round afterwards is a gain.
    fn keep(&mut self, now: Now) {
        (self.stalls, self.rate) = (0, 0);
        self.kept_until_ms = now.mono_ms.saturating_add(KEPT_MS);
    }

    fn shrink(&mut self, now: Now) {
        if self.size > WINDOW_MIN && now.mono_ms.saturating_sub(self.used_ms) >= KEPT_MS {
            self.used_ms = now.mono_ms;
            self.size = (self.size / 2).max(WINDOW_MIN);
            (self.rate, self.kept_until_ms) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A connection that takes so long, there and back, and carries so many messages in a millisecond.
    struct Pipe {
        window: Window,
        round_trip_ms: u64,
        each_ms: usize,
        now_ms: u64,
        /// When each message is acknowledged.
        in_flight: VecDeque<(u64, PacketId)>,
        next_id: u16,
        acked: u64,
        /// When the last one on the way leaves the narrowest point.
        busy_until: f64,
    }

    impl Pipe {
        fn new(round_trip_ms: u64, each_ms: usize) -> Self {
            Self {
                window: Window::default(),
                round_trip_ms,
                each_ms,
                now_ms: 1_000_000,
                in_flight: VecDeque::new(),
                next_id: 1,
                acked: 0,
                busy_until: 0.0,
            }
        }

        /// Sends all it may for so long; gives the messages acknowledged in a millisecond.
        fn saturate(&mut self, for_ms: u64) -> f64 {
            let before = self.acked;
            for _ in 0..for_ms {
                self.now_ms += 1;
                let now = Now { mono_ms: self.now_ms, unix_ms: 0 };
                while let Some((_, id)) = self.in_flight.pop_front_if(|(due, _)| *due <= now.mono_ms) {
                    self.acked += 1;
                    self.window.handle_ack(id);
                }
                self.window.measure(now, self.acked);
                while self.in_flight.len() < self.window.size() {
                    let id = PacketId::new(self.next_id).unwrap();
                    self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                    self.window.handle_sent(id, now);
                    self.busy_until = self.busy_until.max(now.mono_ms as f64) + 1.0 / self.each_ms as f64;
                    self.in_flight.push_back((self.busy_until as u64 + self.round_trip_ms, id));
                }
                self.window.handle_full(now, self.acked);
            }
            (self.acked - before) as f64 / for_ms as f64
        }
    }

    #[test]
    fn a_window_grows_to_what_the_connection_carries_in_a_round_trip_and_not_far_beyond() {
        for (round_trip_ms, each_ms) in [(1, 50), (20, 10), (80, 50), (300, 20)] {
            let mut pipe = Pipe::new(round_trip_ms, each_ms);
            pipe.saturate(60 * round_trip_ms.max(ROUND_MS_MIN));
            let carried = pipe.saturate(2_000) / each_ms as f64;
            let product = round_trip_ms as usize * each_ms;
            let size = pipe.window.size();
            assert!(carried > 0.95, "{round_trip_ms} ms, {each_ms}: {carried} of it with {size}");
            assert!(size <= (4 * product).max(8 * WINDOW_MIN), "{round_trip_ms} ms, {each_ms}: {size}");
        }
    }

    #[test]
    fn it_follows_a_way_that_becomes_longer_and_never_passes_its_bounds() {
        let mut pipe = Pipe::new(10, 20);
        pipe.saturate(5_000);
        pipe.round_trip_ms = 100;
        pipe.saturate(20_000);
        assert!(pipe.saturate(5_000) / 20.0 > 0.95, "{}", pipe.window.size());
        let mut endless = Pipe::new(2_000, 1_000);
        endless.saturate(100_000);
        assert_eq!(endless.window.size(), WINDOW_MAX);
    }

    #[test]
    fn one_that_holds_nothing_back_shrinks_to_where_it_began() {
        let mut pipe = Pipe::new(80, 50);
        pipe.saturate(5_000);
        let mut size = pipe.window.size();
        assert!(size > WINDOW_MIN);
        pipe.window.round = None;
        for _ in 0..10 {
            pipe.now_ms += KEPT_MS;
            pipe.window.measure(Now { mono_ms: pipe.now_ms, unix_ms: 0 }, pipe.acked);
            size = (size / 2).max(WINDOW_MIN);
            assert_eq!(pipe.window.size(), size);
        }
        assert_eq!(size, WINDOW_MIN);
    }
}
