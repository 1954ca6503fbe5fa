//! Messages that come from another lane, or from the life before: they keep their order, their age and whether they may have been
//! sent, and come in whatever the spool may hold. What was accepted once is not dropped for a smaller one.

use crate::link::arena::Arena;
use crate::link::ingress::DropReason;
use crate::link::lane::Entry;
use crate::link::lane::Lane;
use crate::link::lane::kept::Kept;
use crate::link::lane::kept::NONE;
use crate::link::lane::kept::Output;
use crate::link::lane::kept::Record;
use crate::link::lane::lane_of;
use crate::link::lane::pages::Page;
use crate::link::lane::pages::PageRef;
use crate::link::lane::stored;
use crate::link::lane::stored::Content;
use crate::link::lane::stored::Stored;
use crate::link::lane::stored::StoredMessage;

/// Messages that are put anew before what they were in is deleted.
const MOVED_AT_ONCE: usize = 1_024;

/// What a lane had in memory before it took over what an older one has.
struct Rest {
    arena: Arena,
    /// Where its records are now.
    places: Vec<u32>,
}

impl Rest {
    fn new(arena: Arena, records: usize) -> Self {
        Self { arena, places: vec![NONE; records] }
    }

    /// Puts a message behind what the lane has, and the record it is in to the others there.
    fn give(&mut self, entry: Entry, to: &mut Lane, records: &[Record]) {
        let at = entry.record as usize;
        if let (Some(kept), Some(place), Some(record)) =
            (&mut to.kept, self.places.get_mut(at).filter(|place| **place == NONE), records.get(at))
        {
            *place = kept.add(*record);
        }
        let record = self.places.get(at).copied().unwrap_or(NONE);
        let span = to.arena.append(|out| out.extend_from_slice(self.arena.bytes(entry.span)));
        self.arena.release(entry.span);
        // It is in the sum already.
        to.bytes -= entry.cost();
        to.place(Entry { span, record, ..entry });
    }
}

impl Lane {
    /// Puts what another lane still has before what this one has; what was in flight there counts as sent before. Both keep it in
    /// the same place, or nowhere.
    pub fn take_over(&mut self, mut older: Self) {
        older.handle_disconnected();
        self.handle_disconnected();
        self.counters.pushed += older.queued() as u64;
        self.resend += older.resend;
        self.budget.force(older.bytes);
        // The rest of `older` gives back what it had reserved.
        self.bytes += older.bytes;
        let arena = std::mem::replace(&mut self.arena, std::mem::take(&mut older.arena));
        let newer = std::mem::replace(&mut self.queue, std::mem::take(&mut older.queue));
        self.queue.reserve(newer.len());
        let kept = self.kept.as_mut().zip(older.kept.take()).map(|(kept, before)| {
            let (keep, group, committed, wall_ms) =
                (kept.keep.clone(), kept.group, kept.committed, kept.wall_ms);
            // Whoever read a page for the other is gone.
            let both = Kept { keep, group, committed, wall_ms, loading: None, ..*before };
            std::mem::replace(&mut **kept, both)
        });
        let mut rest = Rest::new(arena, kept.as_ref().map_or(0, |kept| kept.records.len()));
        let Some(Kept { records, tail, pages, outputs, .. }) = kept else {
            return newer.into_iter().for_each(|entry| rest.give(entry, self, &[]));
        };
        newer.into_iter().for_each(|entry| rest.give(entry, self, &records));
        if !pages.is_empty() {
            self.page_out();
        }
        if let Some(kept) = &mut self.kept {
            kept.paged += pages.iter().map(|page| page.count as usize).sum::<usize>();
            kept.away_bytes += pages.iter().map(|page| page.cost).sum::<u64>();
            kept.pages.extend(pages);
            kept.outputs.extend(outputs);
        }
        tail.into_iter().for_each(|entry| rest.give(entry, self, &records));
    }

    /// Adds a message, which may have been sent before, behind all that there is. Whether it is one; else it counts as dropped.
    pub fn adopt(&mut self, order: u64, message: &StoredMessage<'_>) -> bool {
        if !self.heads.fits(message.packet) {
            self.counters.pushed += 1;
            self.counters.dropped[DropReason::Damaged.index()] += 1;
            return false;
        }
        let pushed_ms = self.kept.as_ref().map_or(0, |kept| kept.mono_ms(message.pushed_unix_ms));
        let StoredMessage { publisher, packet, .. } = *message;
        let span = self.arena.append(|out| out.extend_from_slice(packet));
        self.add(order, Entry { pushed_ms, span, publisher, record: NONE, acknowledged: true, sent: true });
        true
    }

    fn add(&mut self, order: u64, mut entry: Entry) {
        self.counters.pushed += 1;
        self.resend += usize::from(entry.sent);
        self.budget.force(entry.cost());
        if let Some(kept) = self.kept.as_mut().filter(|_| entry.acknowledged) {
            entry.record = kept.join_run(Some(order), false);
        }
        self.place(entry);
    }

    /// Moves everything to other lanes, each message behind what [`lane_of`] its publisher has. `read` gives the body of a page,
    /// if it can be read; `settle` keeps what the lanes have to keep, and then this one: together, if anything is to outlive
    /// the process. How many messages were lost with pages.
    pub fn split(
        mut self,
        lanes: &mut [Self],
        mut read: impl FnMut(PageRef) -> Option<Vec<u8>>,
        mut settle: impl FnMut(&mut [Self], &mut Self),
    ) -> u64 {
        self.handle_disconnected();
        let (count, mut moved, mut lost) = (lanes.len(), 0, 0);
        loop {
            // Behind the last page the rest comes to the queue.
            self.close_gap();
            let Some(entry) = self.queue.pop_front() else {
                let Some(page) = self.first_page().map(|page| page.to_ref()) else { break };
                let bytes = read(page);
                lost += u64::from(self.handle_page(page.number, bytes.as_deref()));
                continue;
            };
            let Some(lane) = lane_of(entry.publisher, count).and_then(|index| lanes.get_mut(index)) else {
                break;
            };
            let order = self.kept.as_ref().map_or(0, |kept| kept.order(entry.record));
            let span = lane.arena.append(|out| out.extend_from_slice(self.arena.bytes(entry.span)));
            lane.add(order, Entry { span, ..entry });
            self.resend -= usize::from(entry.sent);
            self.free(entry);
            moved += 1;
            if moved % MOVED_AT_ONCE == 0 {
                settle(lanes, &mut self);
            }
        }
        settle(lanes, &mut self);
        lost
    }

    /// Drops everything, without counting it. How many messages that were.
    pub fn discard(&mut self) -> u64 {
        let count = self.queued() + self.unacked;
        self.handle_disconnected();
        while let Some(page) = self.kept.as_mut().and_then(|kept| kept.pages.pop_front()) {
            self.free_page(&page);
        }
        let tail = self.kept.as_mut().map(|kept| std::mem::take(&mut kept.tail)).unwrap_or_default();
        std::mem::take(&mut self.queue).into_iter().chain(tail).for_each(|entry| self.free(entry));
        count as u64
    }

    /// Begins with what this lane had kept in the life before: call it for each entry, in their order. All of it may have been sent
    /// before. How many messages are lost, because the entry cannot be read.
    pub fn restore(&mut self, stored: &Stored) -> u32 {
        let Stored { number, order, count, .. } = *stored;
        let Some(kept) = &mut self.kept else { return 0 };
        match &stored.content {
            Content::Page(head) => {
                let (oldest, newest) = head.pushed_unix_ms;
                let page = Page {
                    number,
                    body: head.body,
                    order,
                    group: 0,
                    count,
                    sent: count,
                    cost: head.cost,
                    oldest_ms: kept.mono_ms(oldest.min(newest)),
                    newest_ms: kept.mono_ms(oldest.max(newest)),
                };
                self.restore_page(page);
                0
            }
            Content::Run(bytes) => {
                let messages = stored::read_messages(bytes, count)
                    .filter(|all| !all.is_empty() && all.iter().all(|one| self.heads.fits(one.packet)));
                let Some(messages) = messages else {
                    self.counters.pushed += u64::from(count);
                    self.counters.dropped[DropReason::Damaged.index()] += u64::from(count);
                    kept.outputs.push(Output::Over(number));
                    return count;
                };
                let record = kept.add(Record { number, order, left: count, gate: 0, is_put: true });
                messages.iter().for_each(|message| self.restore_message(record, message));
                0
            }
        }
    }

    fn restore_page(&mut self, page: Page) {
        // What came before it stays before it.
        self.page_out();
        self.counters.pushed += u64::from(page.count);
        self.resend += page.count as usize;
        self.budget.force(page.cost);
        self.bytes += page.cost;
        let Some(kept) = &mut self.kept else { return };
        kept.paged += page.count as usize;
        kept.away_bytes += page.cost;
        kept.pages.push_back(page);
    }

    fn restore_message(&mut self, record: u32, message: &StoredMessage<'_>) {
        let pushed_ms = self.kept.as_ref().map_or(0, |kept| kept.mono_ms(message.pushed_unix_ms));
        let StoredMessage { publisher, packet, .. } = *message;
        let span = self.arena.append(|out| out.extend_from_slice(packet));
        let entry = Entry { pushed_ms, span, publisher, record, acknowledged: true, sent: true };
        self.counters.pushed += 1;
        self.resend += 1;
        self.budget.force(entry.cost());
        self.place(entry);
    }
}
