//! Pages of retained messages between two of ours ([`crate::link::retained`]): `retained_page` and its answer. A message in
//! a page is written as a forwarded one, with the moment at which its broker took it and an id that nobody looks at.

use crate::link::compress::Deflater;
use crate::link::etf;
use crate::link::etf::Head;
use crate::link::etf::Reader;
use crate::link::extension::KEY_AS_OF;
use crate::link::extension::KEY_FILTERS;
use crate::link::extension::KEY_MESSAGES;
use crate::link::extension::KEY_PAGE;
use crate::link::extension::KEY_PAGE_BYTES;
use crate::link::extension::KEY_POSITION;
use crate::link::message;
use crate::link::message::Forwarded;
use crate::link::message::MessageError;
use crate::link::message::Outgoing;
use crate::link::name;
use crate::link::payload::Fields;
use crate::link::payload::PAIRS_AT;
use crate::link::payload::PayloadError;
use crate::link::payload::put_identity;
use crate::link::payload::put_operation;
use crate::mqtt::topic;

/// How many Topic Filters one request may name.
pub const FILTERS_MAX: u32 = 256;
/// Bytes of messages in a page, unless there is a single one that is longer.
pub const PAGE_BYTES: usize = 64 * 1024;
/// How many messages a page may hold: far more than fit into one, with the shortest of topics.
pub const MESSAGES_MAX: u32 = 65_536;
/// What is longer is not compressed: the other side would not inflate it.
const COMPRESSED_BYTES_MAX: usize = 1024 * 1024;

/// `retained_page`: its sender wants the next of what the receiver retains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageRequest<'a> {
    /// Whose connection it is.
    pub actor: &'a str,
    /// Its incarnation.
    pub incarnation: u64,
    /// Comes back with the answer.
    pub number: u64,
    /// Of which messages: all that one of these filters matches.
    pub filters: PageFilters<'a>,
    /// Behind which topic; everything, if there is none.
    pub after: Option<&'a str>,
    /// How long the answer may be.
    pub bytes_max: usize,
}

/// Topic Filters: checked, and decoded again while iterating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageFilters<'a>(List<'a>);

/// `retained_page_ack`: the messages whose topics lie behind the position asked with and up to the one said here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageAnswer<'a> {
    /// As in the request.
    pub actor: &'a str,
    /// Likewise.
    pub incarnation: u64,
    /// Likewise.
    pub number: u64,
    /// When it was asked for, by the clock of who answers. What changed since is perhaps in it.
    pub as_of_ms: u64,
    /// The last topic that it is about, whether there is a message or not; `None`: that was all. It may be empty, which
    /// is before all topics: not yet.
    pub up_to: Option<&'a str>,
    /// In the order of their topics.
    pub messages: PageMessages<'a>,
}

/// The messages of a page: checked, and decoded again while iterating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageMessages<'a>(List<'a>);

/// The same, on their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessages {
    bytes: Box<[u8]>,
    count: u32,
}

impl KeptMessages {
    /// They.
    #[must_use]
    pub fn iter(&self) -> PageMessages<'_> {
        PageMessages(List { reader: Reader::new(&self.bytes), left: self.count })
    }
}

/// A list of terms.
#[derive(Debug, Clone, Copy, PartialEq)]
struct List<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> List<'a> {
    fn open(mut reader: Reader<'a>, most: u32) -> Option<Self> {
        let left = match reader.head().ok()? {
            Head::Nil => 0,
            Head::List(count) if count <= most => count,
            _ => return None,
        };
        Some(Self { reader, left })
    }

    fn next(&mut self) -> Option<Reader<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.reader.term().ok()
    }
}

impl<'a> PageFilters<'a> {
    fn parse(value: Reader<'a>) -> Option<Self> {
        let list = List::open(value, FILTERS_MAX)?;
        let count = Self(list).filter(|filter| topic::check_filter(filter).is_ok()).count();
        let reserved = Self(list).any(name::is_reserved);
        (count == list.left as usize && !reserved).then_some(Self(list))
    }
}

impl<'a> Iterator for PageFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.next()?.text().ok()
    }
}

impl<'a> PageMessages<'a> {
    /// Checks that they are messages, in the order of their topics.
    fn parse(value: Reader<'a>) -> Option<Self> {
        let mut list = List::open(value, MESSAGES_MAX)?;
        let all = Self(list);
        let mut last = "";
        while let Some(one) = list.next() {
            let topic = message::parse(one).ok()?.topic;
            if topic <= last {
                return None;
            }
            last = topic;
        }
        (list.left == 0).then_some(all)
    }

    /// They as a value of their own.
    #[must_use]
    pub fn keep(&self) -> KeptMessages {
        KeptMessages { bytes: self.0.reader.rest().into(), count: self.0.left }
    }
}

impl<'a> Iterator for PageMessages<'a> {
    type Item = Forwarded<'a>;

    fn next(&mut self) -> Option<Forwarded<'a>> {
        let parsed: Result<_, MessageError> = message::parse(self.0.next()?);
        parsed.ok()
    }
}

impl<'a> PageAnswer<'a> {
    pub(super) fn parse(fields: &Fields<'a>) -> Result<Self, PayloadError> {
        let value = fields.extension(KEY_MESSAGES).ok_or(PayloadError::Missing(KEY_MESSAGES))?;
        Ok(Self {
            actor: fields.actor()?,
            incarnation: fields.number(super::KEY_INCARNATION)?,
            number: number(fields, KEY_PAGE)?,
            as_of_ms: number(fields, KEY_AS_OF)?,
            up_to: position(fields)?,
            messages: PageMessages::parse(value).ok_or(PayloadError::Field(KEY_MESSAGES))?,
        })
    }
}

impl<'a> PageRequest<'a> {
    pub(super) fn parse(fields: &Fields<'a>) -> Result<Self, PayloadError> {
        let filters = fields.extension(KEY_FILTERS).ok_or(PayloadError::Missing(KEY_FILTERS))?;
        Ok(Self {
            actor: fields.actor()?,
            incarnation: fields.number(super::KEY_INCARNATION)?,
            number: number(fields, KEY_PAGE)?,
            filters: PageFilters::parse(filters).ok_or(PayloadError::Field(KEY_FILTERS))?,
            after: position(fields)?.filter(|after| !after.is_empty()),
            bytes_max: usize::try_from(number(fields, KEY_PAGE_BYTES)?).unwrap_or(usize::MAX),
        })
    }
}

fn number(fields: &Fields<'_>, key: u64) -> Result<u64, PayloadError> {
    let mut value = fields.extension(key).ok_or(PayloadError::Missing(key))?;
    value.integer().ok().and_then(|number| u64::try_from(number).ok()).ok_or(PayloadError::Field(key))
}

fn position<'a>(fields: &Fields<'a>) -> Result<Option<&'a str>, PayloadError> {
    let Some(mut value) = fields.extension(KEY_POSITION) else { return Ok(None) };
    value.text().map(Some).map_err(|_| PayloadError::Field(KEY_POSITION))
}

/// What a request is made of.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Comes back with the answer.
    pub number: u64,
    /// Of which messages.
    pub filters: &'a [Box<str>],
    /// Behind which topic.
    pub after: Option<&'a str>,
    /// How long the answer may be.
    pub bytes_max: usize,
}

/// Appends a retained_page payload.
pub fn put_page_request(out: &mut Vec<u8>, actor: &str, incarnation: u64, asked: &Asked<'_>) {
    etf::put_version(out);
    etf::put_map(out, 6 + u32::from(asked.after.is_some()));
    put_identity(out, actor, incarnation);
    put_operation(out, "retained_page");
    etf::put_integer(out, KEY_PAGE);
    etf::put_integer(out, asked.number);
    etf::put_integer(out, KEY_PAGE_BYTES);
    etf::put_integer(out, asked.bytes_max as u64);
    if let Some(after) = asked.after {
        etf::put_integer(out, KEY_POSITION);
        etf::put_binary(out, after.as_bytes());
    }
    etf::put_integer(out, KEY_FILTERS);
    if !asked.filters.is_empty() {
        etf::put_list(out, asked.filters.len() as u32);
    }
    for filter in asked.filters {
        etf::put_binary(out, filter.as_bytes());
    }
    etf::put_nil(out);
}

/// What became of a message that was to go into a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is in it.
    Taken,
    /// It begins the next one.
    Full,
    /// It is longer than any answer may be.
    TooLarge,
}

/// Builds an answer message by message, so that it is cut by its true size.
#[derive(Debug)]
pub struct PageBuilder {
    out: Vec<u8>,
    count_at: usize,
    count: u32,
    bytes_max: usize,
}

impl PageBuilder {
    /// An empty page of this actor, for the request of this number.
    #[must_use]
    pub fn new(actor: &str, incarnation: u64, number: u64, as_of_ms: u64, bytes_max: usize) -> Self {
        let mut out = Vec::with_capacity(1024);
        etf::put_version(&mut out);
        etf::put_map(&mut out, 6);
        put_identity(&mut out, actor, incarnation);
        put_operation(&mut out, "retained_page_ack");
        etf::put_integer(&mut out, KEY_PAGE);
        etf::put_integer(&mut out, number);
        etf::put_integer(&mut out, KEY_AS_OF);
        etf::put_integer(&mut out, as_of_ms);
        etf::put_integer(&mut out, KEY_MESSAGES);
        let count_at = out.len() + 1;
        etf::put_list(&mut out, 0);
        Self { out, count_at, count: 0, bytes_max }
    }

    /// Adds a message, if there is room for it. Behind it there is always room for the position, which is its topic.
    pub fn push(&mut self, message: &Outgoing<'_>) -> Put {
        const POSITION: usize = 16;
        let before = self.out.len();
        message::put(&mut self.out, message);
        // A term within a term has no version.
        self.out.remove(before);
        let bytes = self.out.len() + POSITION + message.topic.len();
        if bytes <= PAGE_BYTES.min(self.bytes_max) || self.count == 0 && bytes <= self.bytes_max {
            self.count += 1;
            return Put::Taken;
        }
        self.out.truncate(before);
        if self.count > 0 { Put::Full } else { Put::TooLarge }
    }

    /// The payload, compressed where that shrinks it.
    #[must_use]
    pub fn finish(mut self, up_to: Option<&str>, deflater: &mut Deflater, threshold: usize) -> Vec<u8> {
        if self.count == 0 {
            self.out.truncate(self.count_at - 1);
        } else if let Some(count) = self.out.get_mut(self.count_at..self.count_at + 4) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        etf::put_nil(&mut self.out);
        if let Some(up_to) = up_to {
            if let Some(pairs) = self.out.get_mut(PAIRS_AT) {
                *pairs += 1;
            }
            etf::put_integer(&mut self.out, KEY_POSITION);
            etf::put_binary(&mut self.out, up_to.as_bytes());
        }
        if self.out.len() <= COMPRESSED_BYTES_MAX {
            deflater.shrink(&mut self.out, 0, threshold);
        }
        self.out
    }
}
