//! What a connection must not send before it is stored: PUBACK, PUBREC and PUBCOMP, PUBREL, SUBACK of a session that is kept, and messages of
//! QoS 2, which would be sent a second time if they were forgotten. It leaves in order, as the groups in which it is stored
//! are committed.

use std::collections::VecDeque;
use std::task::Context;
use std::task::Poll;

use crate::broker::close::Close;
use crate::broker::connection::Connection;
use crate::broker::packets::Turn;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::reason::ReasonCode;
use crate::storage::store::Store;
use crate::storage::store::Trouble;
use crate::time::Now;

/// With more than this held for the disk, a session's own output waits where it is.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// What the answers that are not in a chunk yet wait for.
    answers_in: u64,
    /// CONNACK is still in it.
    greets: bool,
}

#[derive(Debug)]
struct Chunk {
    /// The number of the group that it waits for.
    group: u64,
    bytes: Vec<u8>,
    /// There are answers in it: whoever waits for them is told if they cannot be given. Messages wait for as long as it takes.
    answers: bool,
}

impl Outbox {
    /// One whose first answer waits for this group, if it waits for any.
    pub(super) fn begin(group: u64) -> Option<Box<Self>> {
        (group != 0).then(|| Box::new(Self { answers_in: group, greets: true, ..Self::default() }))
    }

    /// Whether CONNACK is still in it.
    pub(super) fn greets(&self) -> bool {
        self.greets
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn hold(&mut self, group: u64, bytes: Vec<u8>, answers: bool) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk { group, bytes, answers });
    }

    /// Moves what may go behind `out`.
    fn release(&mut self, committed: u64, out: &mut Vec<u8>) {
        while self.chunks.front().is_some_and(|chunk| chunk.group <= committed) {
            let Some(mut chunk) = self.chunks.pop_front() else { return };
            self.bytes -= chunk.bytes.len();
            self.greets = false;
            if out.is_empty() {
                *out = chunk.bytes;
            } else {
                out.append(&mut chunk.bytes);
            }
        }
    }
}

/// What a client is told when what it sent cannot be kept.
pub(super) fn reason_of(trouble: Trouble) -> ReasonCode {
    match trouble {
        Trouble::Full | Trouble::Slow => ReasonCode::QuotaExceeded,
        Trouble::Failing => ReasonCode::ImplementationSpecificError,
    }
}

impl Connection {
    /// Handles a burst. What it changes is stored together, and the answers wait for that.
    pub(super) fn handle_stored(
        &mut self,
        bytes: &[u8],
        limits: &DecodeLimits,
        now: Now,
    ) -> Result<usize, Close> {
        let Some(store) = self.broker.store.clone() else {
            return Turn::new(self, now).handle(bytes, limits);
        };
        let burst = store.begin();
        let before = self.answers.len();
        let result = Turn::new(self, now).handle(bytes, limits);
        if let Some(group) = burst.promised().filter(|_| self.answers.len() > before) {
            self.outbox.get_or_insert_default().answers_in = group;
        }
        result
    }

    /// Takes what there is to send and may go, and registers for the next wake-up.
    pub(super) fn collect_stored(&mut self, cx: &Context<'_>, now: Now) -> Result<(), Close> {
        let Some(store) = self.broker.store.clone() else { return Ok(()) };
        if self.client.lock().session.wants() {
            self.broker.fetch_wanted(&self.client, now);
        }
        let idle = self.sent == self.unsent.len();
        let takes = idle && self.outbox.as_ref().is_none_or(|outbox| outbox.bytes <= HELD_BYTES_MAX);
        if idle {
            self.unsent.clear();
            self.sent = 0;
        }
        let rest = std::mem::take(&mut self.unsent);
        let sent_in = self.take_output(cx, takes, now)?;
        let output = std::mem::replace(&mut self.unsent, rest);
        self.hold(&store, output, sent_in);
        if idle {
            self.release(&store, cx)?;
        }
        Ok(())
    }

    /// Puts answers and output behind what is held, as far as anything is.
    fn hold(&mut self, store: &Store, output: Vec<u8>, sent_in: u64) {
        let committed = store.committed();
        let answers_in = self.outbox.as_ref().map_or(0, |outbox| outbox.answers_in);
        let waits = self.outbox.as_ref().is_some_and(|outbox| !outbox.chunks.is_empty())
            || (answers_in > committed && !self.answers.is_empty())
            || (sent_in > committed && !output.is_empty())
            || self.sent < self.unsent.len();
        let mut answers = std::mem::take(&mut self.answers);
        if !waits && let Some(outbox) = &mut self.outbox {
            outbox.greets = false;
        }
        if waits {
            let outbox = self.outbox.get_or_insert_default();
            outbox.hold(answers_in, answers, true);
            outbox.hold(sent_in, output, false);
        } else if answers.is_empty() {
            self.unsent = output;
        } else {
            answers.extend_from_slice(&output);
            self.unsent = answers;
        }
    }

    /// Releases what is stored; for the rest, the connection is woken.
    fn release(&mut self, store: &Store, cx: &Context<'_>) -> Result<(), Close> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        loop {
            outbox.release(store.committed(), &mut self.unsent);
            let Some(&Chunk { group, answers, .. }) = outbox.chunks.front() else { return Ok(()) };
            match store.poll_committed(group, answers, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(trouble)) => return Err(Close::Server(reason_of(trouble))),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// The connection ends: what is stored is still said, and nothing else is.
    pub(super) fn leave_answers(&mut self) {
        if let (Some(store), Some(outbox)) = (&self.broker.store, &mut self.outbox) {
            let committed = store.committed();
            outbox.release(committed, &mut self.unsent);
            if !outbox.chunks.is_empty() || outbox.answers_in > committed {
                return;
            }
        }
        self.unsent.append(&mut self.answers);
    }
}
