//! The part of a lane's queue that is not in memory. What does not fit into memory gathers behind the queue, in the *tail*, and is
//! put outside page by page; of a page a few bytes stay here, however many messages it has. It is read again when the
//! queue has room for it, so what waits is, in order: queue, pages, tail.
//!
//! Messages of QoS 0 are in the queue always. So they may pass others of QoS 1, which no publisher is promised otherwise
//! (`[MQTT-4.6.0-5]`).

use crate::link::ingress::DropReason;
use crate::link::lane::ENTRY_BYTES;
use crate::link::lane::Entry;
use crate::link::lane::Lane;
use crate::link::lane::kept::Kept;
use crate::link::lane::kept::NONE;
use crate::link::lane::kept::Output;
use crate::link::lane::kept::Record;
use crate::link::lane::stored;
use crate::link::lane::stored::PageHead;

/// What a lane has in memory of messages of QoS 1 and 2, in flight ones included, as long as it keeps the rest outside; and a
/// page more.
pub const RESIDENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What makes a page; the run that fills it may be longer.
pub const PAGE_BYTES: u64 = 64 * 1024;

/// What is known of a page without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) number: u64,
    pub(super) body: u64,
    pub(super) order: u64,
    /// The group in which it is put.
    pub(super) group: u64,
    /// Its messages, and those of them that may have been sent.
    pub(super) count: u32,
    pub(super) sent: u32,
    pub(super) cost: u64,
    pub(super) oldest_ms: i64,
    pub(super) newest_ms: i64,
}

/// A page to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// The number of its entry.
    pub number: u64,
    /// That of its body.
    pub body: u64,
    /// The group in which both were put.
    pub group: u64,
}

impl Page {
    pub(super) fn to_ref(self) -> PageRef {
        PageRef { number: self.number, body: self.body, group: self.group }
    }
}

impl Lane {
    /// What the lane has in memory, QoS 0 aside.
    fn resident(&self) -> u64 {
        let others = |kept: &Kept| kept.away_bytes + kept.tail_bytes + kept.qos0_bytes;
        self.bytes.saturating_sub(self.kept.as_deref().map_or(0, others))
    }

    /// Whether a message goes to the tail. All of a record go the same way, so that none is put in two pages, or in a page and
    /// beside it.
    pub(super) fn goes_to_tail(&mut self, entry: &Entry) -> bool {
        if self.kept.as_ref().is_none_or(|kept| kept.placed.0 == entry.record) {
            return self.kept.as_ref().is_some_and(|kept| kept.placed.1);
        }
        self.page_out_if_full();
        let resident = self.resident();
        let Some(kept) = &mut self.kept else { return false };
        let fits = resident == 0 || resident + entry.cost() <= kept.keep.resident_bytes;
        let goes_to_tail = !fits || !kept.pages.is_empty() || !kept.tail.is_empty();
        kept.placed = (entry.record, goes_to_tail);
        goes_to_tail
    }

    fn has_room(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| self.resident() < kept.keep.resident_bytes)
    }

    /// Whether there is a page that could be read and sent.
    pub(super) fn can_load(&self) -> bool {
        self.is_open()
            && self.kept.as_ref().is_some_and(|kept| kept.loading.is_none() && !kept.pages.is_empty())
            && self.has_room()
    }

    /// The page to be read now, for [`Self::handle_page`]. There is no other one until then.
    pub fn wants_page(&mut self) -> Option<PageRef> {
        if !self.can_load() {
            return None;
        }
        let kept = self.kept.as_mut()?;
        let page = kept.pages.front().filter(|page| page.group <= kept.committed)?;
        kept.loading = Some(page.number);
        Some(page.to_ref())
    }

    /// A page was read; `None` if it cannot be. How many messages are lost by that: they count as dropped.
    pub fn handle_page(&mut self, number: u64, bytes: Option<&[u8]>) -> u32 {
        let Some(kept) = &mut self.kept else { return 0 };
        kept.loading = None;
        // What was dropped meanwhile is over.
        if kept.pages.front().is_none_or(|page| page.number != number) {
            return 0;
        }
        let Some(page) = kept.pages.pop_front() else { return 0 };
        if bytes.is_some_and(|bytes| self.take_page(&page, bytes)) {
            self.close_gap();
            return 0;
        }
        self.counters.dropped[DropReason::Damaged.index()] += u64::from(page.count);
        self.free_page(&page);
        page.count
    }

    /// Puts the messages of a page behind the queue. Whether they are all there.
    fn take_page(&mut self, page: &Page, bytes: &[u8]) -> bool {
        let Self { kept: Some(kept), arena, queue, heads, .. } = self else { return false };
        let Some(messages) = stored::read_messages(bytes, page.count) else { return false };
        let costs = messages.iter().map(|message| message.packet.len() as u64 + ENTRY_BYTES);
        if costs.sum::<u64>() != page.cost || !messages.iter().all(|message| heads.fits(message.packet)) {
            return false;
        }
        let Page { number, order, count, .. } = *page;
        kept.paged -= count as usize;
        kept.away_bytes -= page.cost;
        let record = kept.add(Record { number, order, left: count, gate: 0, is_put: true });
        let all_sent = page.sent == count;
        self.resend -= page.sent as usize;
        for message in messages {
            let sent = message.sent || all_sent;
            self.resend += usize::from(sent);
            // A clock that was set meanwhile changes no more than what is within the page.
            let pushed_ms = kept.mono_ms(message.pushed_unix_ms).clamp(page.oldest_ms, page.newest_ms);
            queue.push_back(Entry {
                pushed_ms,
                span: arena.append(|out| out.extend_from_slice(message.packet)),
                publisher: message.publisher,
                record,
                acknowledged: true,
                sent,
            });
        }
        true
    }

    /// Drops the first page; whether there was one.
    pub(super) fn drop_page(&mut self, reason: DropReason) -> bool {
        let Some(page) = self.kept.as_mut().and_then(|kept| kept.pages.pop_front()) else { return false };
        self.counters.dropped[reason.index()] += u64::from(page.count);
        self.free_page(&page);
        true
    }

    /// A page is over that was not read.
    pub(super) fn free_page(&mut self, page: &Page) {
        self.resend -= page.sent as usize;
        self.bytes -= page.cost;
        self.release(page.cost);
        if let Some(kept) = &mut self.kept {
            kept.paged -= page.count as usize;
            kept.away_bytes -= page.cost;
            kept.outputs.push(Output::Over(page.number));
        }
        self.close_gap();
    }

    /// Drops the first message of the tail, while there are no pages before it; whether there was one.
    pub(super) fn drop_gathered(&mut self, reason: DropReason) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        let Some(entry) = kept.tail.pop_front() else { return false };
        kept.tail_bytes -= entry.cost();
        self.drop_entry(entry, reason);
        true
    }

    /// Drops the pages of which everything has become too old.
    pub(super) fn expire_pages(&mut self, before_ms: i64) {
        while self.first_page().is_some_and(|page| page.newest_ms <= before_ms) {
            self.drop_page(DropReason::Expired);
        }
    }

    pub(super) fn first_page(&self) -> Option<&Page> {
        self.kept.as_ref()?.pages.front()
    }

    /// What is behind the pages goes to the queue once there are none, and there is room.
    pub(super) fn close_gap(&mut self) {
        let has_room = self.has_room();
        let Self { kept: Some(kept), queue, .. } = self else { return };
        if !has_room || !kept.pages.is_empty() || kept.tail.is_empty() {
            return;
        }
        if let Some(run) = &mut kept.run {
            run.queued += kept.tail.len();
            run.gathered = 0;
        }
        queue.append(&mut kept.tail);
        kept.tail_bytes = 0;
        kept.placed.1 = false;
    }

    /// Puts the tail outside when it has become a page.
    pub(super) fn page_out_if_full(&mut self) {
        if self.kept.as_ref().is_some_and(|kept| kept.tail_bytes >= kept.keep.page_bytes) {
            self.page_out();
        }
    }

    /// Puts the tail outside, as a page.
    pub(super) fn page_out(&mut self) {
        let Self { kept: Some(kept), arena, .. } = self else { return };
        let (Some(first), Some(last)) = (kept.tail.front(), kept.tail.back()) else { return };
        let times = || kept.tail.iter().map(|entry| entry.pushed_ms);
        let oldest_ms = times().min().unwrap_or(first.pushed_ms);
        let newest_ms = times().max().unwrap_or(last.pushed_ms);
        let page = Page {
            body: kept.keep.number(),
            number: kept.keep.number(),
            order: kept.order(last.record),
            group: kept.group,
            count: kept.tail.len() as u32,
            sent: kept.tail.iter().filter(|entry| entry.sent).count() as u32,
            cost: kept.tail_bytes,
            oldest_ms,
            newest_ms,
        };
        let pushed_unix_ms = (kept.unix_ms(oldest_ms), kept.unix_ms(newest_ms));
        let head = PageHead { body: page.body, cost: page.cost, pushed_unix_ms };
        let (mut value, mut bytes) = (Vec::new(), Vec::with_capacity(kept.tail_bytes as usize));
        stored::put_page(&mut value, &kept.keep, page.order, page.count, &head);
        for entry in &kept.tail {
            stored::put_message(&mut bytes, &kept.message(entry, arena.bytes(entry.span)));
        }
        kept.outputs.push(Output::Page { number: page.number, body: page.body, value, bytes });
        // Behind that, or they would be nowhere for a moment.
        for entry in std::mem::take(&mut kept.tail) {
            arena.release(entry.span);
            if entry.record != NONE {
                kept.let_go(entry.record);
            }
        }
        if let Some(run) = &mut kept.run {
            run.gathered = 0;
        }
        kept.tail_bytes = 0;
        kept.paged += page.count as usize;
        kept.away_bytes += page.cost;
        kept.pages.push_back(page);
    }
}
