//! Connections as two pipes that keep order: frames arrive after a delay, or never once the pipe stalls.

use std::collections::VecDeque;
use std::sync::Arc;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// What crosses a connection.
#[derive(Debug)]
pub(crate) enum Frame {
    Connect,
    ConnAck,
    Subscribe,
    SubAck,
    Control {
        token: u32,
        payload: Vec<u8>,
        response_topic: Option<Arc<str>>,
        correlation_data: Option<[u8; 16]>,
    },
    PubAck {
        token: u32,
        reason: u8,
    },
    Response {
        correlation_data: Vec<u8>,
        payload: Vec<u8>,
    },
    Message {
        packet_id: Option<u16>,
        dup: bool,
        payload: Vec<u8>,
    },
    Disconnect(u8),
    /// The transport broke; both ends learn it in their own time.
    Broken,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    frames: VecDeque<(u64, Frame)>,
    last_ms: u64,
    stalled: bool,
}

impl Pipe {
    /// Sends: the frame arrives no earlier than those before it.
    pub(crate) fn send(&mut self, now_ms: u64, delay_ms: u64, frame: Frame) {
        if !self.stalled {
            self.last_ms = self.last_ms.max(now_ms + delay_ms);
            self.frames.push_back((self.last_ms, frame));
        }
    }

    /// Loses what is on the way and everything after it, until the end is noticed at `noticed_ms`.
    pub(crate) fn break_off(&mut self, noticed_ms: u64) {
        self.frames.clear();
        self.stalled = true;
        self.frames.push_back((noticed_ms, Frame::Broken));
    }

    pub(crate) fn due(&self) -> Option<u64> {
        self.frames.front().map(|(due, _)| *due)
    }

    pub(crate) fn receive(&mut self, now_ms: u64) -> Option<Frame> {
        if self.due()? > now_ms {
            return None;
        }
        self.frames.pop_front().map(|(_, frame)| frame)
    }
}
