//! What a lane keeps outside of memory, in bytes: an entry for each run of messages, or for a page of them, whose messages
//! are in a body of their own. Integers are little-endian. The layout is part of what is on disk: a change gets another
//! version.
//!
//! An entry: version, kind, lane, lanes, order, count, the link's name behind its length; then the messages of a run, or what
//! there is to know of a page without reading it. A message: whether it was sent before, publisher, when it was pushed, the
//! packet behind its length.

use crate::link::lane::kept::Keep;

const VERSION: u8 = 1;
const RUN: u8 = 0;
const PAGE: u8 = 1;

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub number: u64,
    /// Those of one publisher were pushed in this order. It is the number, but for what was put again later.
    pub order: u64,
    /// Name of the link.
    pub link: Box<str>,
    /// Which lane it was of.
    pub lane: u16,
    /// Of how many.
    pub lanes: u16,
    /// How many messages there are.
    pub count: u32,
    /// The messages.
    pub content: Content,
}

/// Where the messages of an entry are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Here, one behind the other.
    Run(Box<[u8]>),
    /// In a body.
    Page(PageHead),
}

/// What there is to know of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHead {
    /// The number of the body.
    pub body: u64,
    /// What its messages take of the spool.
    pub cost: u64,
    /// When they were pushed, the first and the last of them, in milliseconds since the epoch.
    pub pushed_unix_ms: (u64, u64),
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredMessage<'a> {
    /// It may have been sent before.
    pub sent: bool,
    /// Whose it is.
    pub publisher: u32,
    /// When it was pushed, in milliseconds since the epoch.
    pub pushed_unix_ms: u64,
    /// The PUBLISH.
    pub packet: &'a [u8],
}

impl Stored {
    /// Reads an entry; `None` if it is none that this version knows.
    #[must_use]
    pub fn parse(number: u64, body: Option<u64>, value: &[u8]) -> Option<Self> {
        let mut rest = value;
        let [version, kind] = take(&mut rest)?;
        let lane = u16::from_le_bytes(take(&mut rest)?);
        let lanes = u16::from_le_bytes(take(&mut rest)?);
        let order = u64::from_le_bytes(take(&mut rest)?);
        let count = u32::from_le_bytes(take(&mut rest)?);
        let link = u16::from_le_bytes(take(&mut rest)?);
        let link = std::str::from_utf8(rest.split_off(..usize::from(link))?).ok()?.into();
        let content = match (version, kind, body) {
            (VERSION, RUN, None) => Content::Run(rest.into()),
            (VERSION, PAGE, Some(body)) => {
                let cost = u64::from_le_bytes(take(&mut rest)?);
                let first = u64::from_le_bytes(take(&mut rest)?);
                let last = u64::from_le_bytes(take(&mut rest)?);
                Content::Page(PageHead { body, cost, pushed_unix_ms: (first, last) })
            }
            _ => return None,
        };
        Some(Self { number, order, link, lane, lanes, count, content })
    }
}

/// Appends the beginning of an entry of a run.
pub(super) fn put_run(out: &mut Vec<u8>, keep: &Keep, order: u64, count: u32) {
    put_head(out, RUN, keep, order, count);
}

/// Appends an entry of a page.
pub(super) fn put_page(out: &mut Vec<u8>, keep: &Keep, order: u64, count: u32, head: &PageHead) {
    put_head(out, PAGE, keep, order, count);
    let (first, last) = head.pushed_unix_ms;
    for number in [head.cost, first, last] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, keep: &Keep, order: u64, count: u32) {
    // A name is what stands in a topic level, and no topic is longer.
    let link = keep.link.as_bytes().get(..usize::from(u16::MAX)).unwrap_or(keep.link.as_bytes());
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&keep.lane.to_le_bytes());
    out.extend_from_slice(&keep.lanes.to_le_bytes());
    out.extend_from_slice(&order.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(link.len() as u16).to_le_bytes());
    out.extend_from_slice(link);
}

/// Appends a message.
pub(super) fn put_message(out: &mut Vec<u8>, message: &StoredMessage<'_>) {
    out.push(u8::from(message.sent));
    out.extend_from_slice(&message.publisher.to_le_bytes());
    out.extend_from_slice(&message.pushed_unix_ms.to_le_bytes());
    out.extend_from_slice(&(message.packet.len() as u32).to_le_bytes());
    out.extend_from_slice(message.packet);
}

/// Reads so many messages; `None` if there are not exactly as many.
#[must_use]
pub fn read_messages(bytes: &[u8], count: u32) -> Option<Vec<StoredMessage<'_>>> {
    let mut rest = bytes;
    // Each has more than one byte, whatever the count says.
    let mut all = Vec::with_capacity((count as usize).min(bytes.len()));
    while !rest.is_empty() {
        let [sent] = take(&mut rest)?;
        let publisher = u32::from_le_bytes(take(&mut rest)?);
        let pushed_unix_ms = u64::from_le_bytes(take(&mut rest)?);
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        let packet = rest.split_off(..length)?;
        all.push(StoredMessage { sent: sent != 0, publisher, pushed_unix_ms, packet });
    }
    (all.len() == count as usize).then_some(all)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn keep() -> Keep {
        Keep::new("B".into(), 3, 8, Arc::default())
    }

    #[test]
    fn entries_are_read_as_they_were_put() {
        let messages = [
            StoredMessage { sent: false, publisher: 7, pushed_unix_ms: 1_700_000_000_000, packet: b"one" },
            StoredMessage { sent: true, publisher: u32::MAX, pushed_unix_ms: 1, packet: b"" },
        ];
        let mut value = Vec::new();
        put_run(&mut value, &keep(), 40, 2);
        messages.iter().for_each(|message| put_message(&mut value, message));
        let run = Stored::parse(41, None, &value).unwrap();
        assert_eq!(
            (run.number, run.order, &*run.link, run.lane, run.lanes, run.count),
            (41, 40, "B", 3, 8, 2)
        );
        let Content::Run(bytes) = &run.content else { panic!("{run:?}") };
        assert_eq!(read_messages(bytes, 2).unwrap(), messages);
        assert_eq!((read_messages(bytes, 1), read_messages(bytes, 3)), (None, None));
        let head = PageHead { body: 9, cost: 1_000, pushed_unix_ms: (5, 6) };
        value.clear();
        put_page(&mut value, &keep(), 50, 12, &head);
        let page = Stored::parse(51, Some(9), &value).unwrap();
        assert_eq!((page.order, page.count, page.content), (50, 12, Content::Page(head)));
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_none() {
        let mut value = Vec::new();
        put_page(&mut value, &keep(), 50, 12, &PageHead { body: 9, cost: 1, pushed_unix_ms: (5, 6) });
        for end in 0..value.len() {
            assert_eq!(Stored::parse(1, Some(9), &value[..end]), None, "{end}");
        }
        assert_eq!(Stored::parse(1, None, &value), None, "a page has a body");
        value[0] = VERSION + 1;
        assert_eq!(Stored::parse(1, Some(9), &value), None);
        let mut bytes = Vec::new();
        put_message(
            &mut bytes,
            &StoredMessage { sent: false, publisher: 1, pushed_unix_ms: 1, packet: b"abc" },
        );
        for end in 1..bytes.len() {
            assert_eq!(read_messages(&bytes[..end], 1), None, "{end}");
        }
    }
}
