//! The bytes of a lane's messages: appended at the end, released roughly from the front, without an
//! allocation per message. A chunk is freed or used again once none of its messages is left.

use std::collections::VecDeque;

/// A chunk takes messages until it holds this much; the last one may be of any size.
const CHUNK_BYTES: usize = 64 * 1024;
/// A chunk up to this size is used again.
const SPARE_BYTES_MAX: usize = 128 * 1024;

/// Where a message's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its number; they run around.
    chunk: u32,
    start: u32,
    length: u32,
}

impl Span {
    /// How many bytes it has.
    pub(crate) fn len(self) -> usize {
        self.length as usize
    }

    /// In which chunk it is.
    pub(crate) fn chunk(self) -> u32 {
        self.chunk
    }

    /// Where it begins there.
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    live: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: VecDeque<Chunk>,
    first: u32,
    spare: Vec<u8>,
    /// The chunk of the last [`Arena::take`], not yet looked at for being empty.
    taken: Option<u32>,
}

impl Arena {
    /// Appends what `write` writes.
    pub(crate) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        self.settle();
        if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            self.chunks.push_back(Chunk { bytes: std::mem::take(&mut self.spare), live: 0 });
        }
        let chunk = self.first.wrapping_add(self.chunks.len() as u32).wrapping_sub(1);
        let Some(last) = self.chunks.back_mut() else { return Span { chunk, start: 0, length: 0 } };
        let start = last.bytes.len();
        write(&mut last.bytes);
        last.live += 1;
        // No MQTT packet is as long as 32 bits can tell.
        let length = last.bytes.len().saturating_sub(start);
        Span { chunk, start: start as u32, length: length as u32 }
    }

    /// The bytes of a message that is not released.
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        let index = span.chunk.wrapping_sub(self.first) as usize;
        self.chunks
            .get(index)
            .and_then(|chunk| chunk.bytes.get(start..start + span.len()))
            .unwrap_or_default()
    }

    /// The same, to be changed.
    pub(crate) fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        let start = span.start as usize;
        let index = span.chunk.wrapping_sub(self.first) as usize;
        let chunk = self.chunks.get_mut(index);
        chunk.and_then(|chunk| chunk.bytes.get_mut(start..start + span.len())).unwrap_or_default()
    }

    /// Releases all messages of a chunk and gives its memory for that of `out`, which is empty, if the chunk holds so
    /// many messages, of so many bytes, and nothing else. Whether it does.
    pub(crate) fn exchange(&mut self, chunk: u32, messages: usize, bytes: usize, out: &mut Vec<u8>) -> bool {
        self.settle();
        let index = chunk.wrapping_sub(self.first) as usize;
        let Some(found) = self.chunks.get_mut(index) else { return false };
        if found.live as usize != messages || found.bytes.len() != bytes {
            return false;
        }
        std::mem::swap(&mut found.bytes, out);
        found.live = 0;
        self.sweep(chunk);
        true
    }

    /// Releases a message; its bytes stay until the next call.
    pub(crate) fn take(&mut self, span: Span) -> &[u8] {
        self.settle();
        self.taken = Some(span.chunk);
        self.let_go(span.chunk);
        self.bytes(span)
    }

    /// Gives a message's bytes back.
    pub(crate) fn release(&mut self, span: Span) {
        self.settle();
        self.let_go(span.chunk);
        self.sweep(span.chunk);
    }

    /// Bytes it keeps.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.spare.capacity() + self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum::<usize>()
    }

    fn let_go(&mut self, chunk: u32) {
        let index = chunk.wrapping_sub(self.first) as usize;
        if let Some(chunk) = self.chunks.get_mut(index) {
            chunk.live = chunk.live.saturating_sub(1);
        }
    }

    fn settle(&mut self) {
        if let Some(chunk) = self.taken.take() {
            self.sweep(chunk);
        }
    }

    /// Empties `chunk` if nothing in it is left, frees it unless it is still written to, and drops every empty
    /// chunk at the front.
    fn sweep(&mut self, chunk: u32) {
        let index = chunk.wrapping_sub(self.first) as usize;
        let last = self.chunks.len().saturating_sub(1);
        if let Some(chunk) = self.chunks.get_mut(index).filter(|chunk| chunk.live == 0) {
            chunk.bytes.clear();
            if index < last {
                chunk.bytes.shrink_to(if index == 0 { SPARE_BYTES_MAX } else { 0 });
            }
        }
        while self.chunks.front().is_some_and(|chunk| chunk.live == 0) {
            let Some(mut chunk) = self.chunks.pop_front() else { break };
            self.first = self.first.wrapping_add(1);
            if chunk.bytes.capacity() <= SPARE_BYTES_MAX && chunk.bytes.capacity() > self.spare.capacity() {
                chunk.bytes.clear();
                self.spare = chunk.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_used_again_and_freed_out_of_order() {
        let mut arena = Arena::default();
        let write = |byte: u8| move |out: &mut Vec<u8>| out.extend_from_slice(&[byte; 10_000]);
        let held = arena.append(write(1));
        for round in 0..1_000_u32 {
            let byte = (round % 250) as u8;
            let span = arena.append(write(byte));
            if round % 2 == 0 {
                assert_eq!(arena.take(span), [byte; 10_000]);
            } else {
                arena.release(span);
            }
        }
        assert!(arena.memory() < 4 * SPARE_BYTES_MAX, "{}", arena.memory());
        assert_eq!(arena.bytes(held), [1; 10_000]);
        arena.release(held);
        arena.append(|_| ());
        assert_eq!(arena.chunks.len(), 1);
    }
}
