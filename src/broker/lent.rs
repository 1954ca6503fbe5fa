//! What a connection needs only while it has a turn: lent by its thread, so that an idle one does not keep it. A turn
//! never waits, so one is enough for all connections of a thread.

use std::cell::Cell;

use crate::broker::Broker;
use crate::broker::counts::Counts;
use crate::broker::gathering::Answer;
use crate::session::frames::RunFrames;
use crate::session::message::Publication;

/// What is lent.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What happened since the last report.
    pub counts: Counts,
    /// Space for the frames of a run.
    pub frames: RunFrames,
    /// Space for the messages of a run.
    pub memory: Memory,
}

/// Space for the messages of a run, empty between turns.
#[derive(Debug, Default)]
pub struct Memory {
    /// The messages.
    pub publications: Vec<Publication<'static>>,
    /// How they are acknowledged.
    pub answers: Vec<Answer>,
    /// Copies of what does not stand in the burst as it is passed on.
    pub copies: Vec<u8>,
}

/// What [`Memory::copies`] has room for, once a connection of the thread needed any.
pub const COPIES_BYTES: usize = 16 * 1024;

/// Empties a vector of what borrows, so that its memory can be kept for what borrows from elsewhere.
#[must_use]
pub fn emptied(mut publications: Vec<Publication<'_>>) -> Vec<Publication<'static>> {
    publications.clear();
    // The standard library collects into the memory it takes from.
    publications.into_iter().map_while(|_| None).collect()
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
