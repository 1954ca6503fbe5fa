//! What goes out at once: everything that may, one packet after the other as they stand in the spool.

use crate::link::lane::ENTRY_BYTES;
use crate::link::lane::Lane;
use crate::time::Now;

impl Lane {
    /// Appends the packets that may be sent now, up to so many bytes and one packet more. An empty `out` may come back
    /// as other memory, which a chunk of the spool had: messages of QoS 0 are not even copied then.
    pub fn fill(&mut self, now: Now, out: &mut Vec<u8>, bytes_max: usize) {
        if out.is_empty() && self.hand_over(now, out) && out.len() >= bytes_max / 2 {
            return;
        }
        while out.len() < bytes_max {
            let Some(sent) = self.next_to_send(now) else { return };
            out.extend_from_slice(sent.packet);
        }
    }

    /// Exchanges `out` for the first chunk of the spool, if all of that may go and nobody acknowledges any of it.
    fn hand_over(&mut self, now: Now, out: &mut Vec<u8>) -> bool {
        if !self.is_open() {
            return false;
        }
        self.expire(now);
        let Some(first) = self.queue.front() else { return false };
        let chunk = first.span.chunk();
        let (mut end, mut count) = (0, 0);
        for entry in self.queue.iter().take_while(|entry| entry.span.chunk() == chunk) {
            if entry.acknowledged || entry.span.start() != end || entry.span.len() > self.packet_max {
                return false;
            }
            end += entry.span.len();
            count += 1;
        }
        if !self.arena.exchange(chunk, count, end, out) {
            return false;
        }
        self.queue.drain(..count);
        self.counters.sent += count as u64;
        self.counters.fired += count as u64;
        let cost = end as u64 + count as u64 * ENTRY_BYTES;
        self.bytes -= cost;
        if let Some(kept) = &mut self.kept {
            kept.qos0_bytes -= cost;
        }
        self.release(cost);
        true
    }
}
