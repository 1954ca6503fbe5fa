//! What a connection needs only while it has a turn: lent by its thread, so that an idle one does not keep it. A turn
//! never waits, so one is enough for all connections of a thread.

use std::cell::Cell;

use crate::broker::Broker;
use crate::broker::counts::Counts;
use crate::session::frames::RunFrames;

/// What is lent.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What happened since the last report.
    pub counts: Counts,
    /// Space for the frames of a run.
    pub frames: RunFrames,
}

thread_local! {
    static SPARE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// A connection's hold on it.
#[derive(Debug, Default)]
pub struct Lent(Option<Box<Scratch>>);

impl Lent {
    /// All of it.
    pub fn scratch(&mut self) -> &mut Scratch {
        self.0.get_or_insert_with(|| SPARE.take().unwrap_or_default())
    }

    /// What happened since the last report.
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.scratch().counts
    }

    /// Adds the counts to the metrics and gives everything back.
    pub fn give_back(&mut self, broker: &Broker) {
        if let Some(mut scratch) = self.0.take() {
            if scratch.counts.bytes_received > 0 {
                broker.load.note_received(scratch.counts.bytes_received);
            }
            scratch.counts.report(&broker.metrics);
            SPARE.set(Some(scratch));
        }
    }
}
