//! Reads a forwarded message that has the shape in which [`mod@put`] writes: its fixed parts are compared whole instead of
//! being read term by term, which is most of what a message of a link costs. It takes nothing that the general
//! reader would not take, and reads it alike; anything else, whatever is wrong with it, is the general reader's.

use std::borrow::Cow;

use crate::link::etf::Reader;
use crate::link::message::Forwarded;
use crate::link::message::MessageProperties;
use crate::link::message::parse_properties;
use crate::link::message::put;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;

/// The message, if it has that shape. A topic equal to `known`, which is one, is not checked again.
pub(super) fn parse<'a>(term: &'a [u8], known: &'a str) -> Option<Forwarded<'a>> {
    let mut rest = Rest(term);
    rest.literal(put::TAG)?;
    let id = rest.array()?;
    let [97, qos] = rest.array()? else { return None };
    let qos = QoS::from_u8(qos)?;
    let from = rest.optional()?;
    let retain = !rest.is_next(put::NOT_RETAINED);
    if retain {
        rest.literal(put::RETAINED)?;
    }
    let (username, properties) = headers(&mut rest)?;
    let name = rest.binary()?;
    let topic = if name == known.as_bytes() && !known.is_empty() { known } else { checked(name)? };
    let payload = rest.binary()?;
    rest.literal(put::SIX_BYTES)?;
    let [a, b, c, d, e, f] = rest.array()?;
    rest.literal(put::EMPTY_MAP)?;
    Some(Forwarded {
        id,
        qos,
        from,
        username,
        retain,
        topic,
        payload: Cow::Borrowed(payload),
        timestamp_ms: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
        properties,
        path: None,
    })
}

fn checked(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| topic::check_name(name).is_ok())
}

/// The headers: user name and properties are read, the address is not.
fn headers<'a>(rest: &mut Rest<'a>) -> Option<(Option<&'a [u8]>, MessageProperties<'a>)> {
    rest.literal(put::HEADERS)?;
    let [mut count] = rest.array()?;
    let mut is_next = |rest: &mut Rest<'a>, name| {
        let is_next = count > 0 && rest.is_next(name);
        count -= u8::from(is_next);
        is_next
    };
    if is_next(rest, put::PEERHOST) {
        rest.address()?;
    }
    let username = if is_next(rest, put::USERNAME) { Some(rest.binary()?) } else { None };
    let properties =
        if is_next(rest, put::PROPERTIES) { properties(rest)? } else { MessageProperties::default() };
    (count == 0).then_some((username, properties))
}

fn properties<'a>(rest: &mut Rest<'a>) -> Option<MessageProperties<'a>> {
    let mut reader = Reader::new(rest.0);
    let properties = parse_properties(&mut reader).ok()?;
    rest.0 = reader.rest();
    Some(properties)
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    fn is_next(&mut self, bytes: &[u8]) -> bool {
        self.literal(bytes).is_some()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let [109, a, b, c, d] = self.array()? else { return None };
        let (taken, rest) = self.0.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
        self.0 = rest;
        Some(taken)
    }

    /// A text or [`put::UNDEFINED`].
    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        if self.is_next(put::UNDEFINED) {
            return Some(None);
        }
        self.binary().map(Some)
    }

    /// An integer as the parts of addresses are written.
    fn integer(&mut self) -> Option<()> {
        let bytes = match self.0.first()? {
            97 => 2,
            98 => 5,
            _ => return None,
        };
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// A tuple of four or eight integers.
    fn address(&mut self) -> Option<()> {
        // Each of four is a byte, and the tuple ten.
        if let Some((&[104, 4, 97, _, 97, _, 97, _, 97, _], rest)) = self.0.split_first_chunk() {
            self.0 = rest;
            return Some(());
        }
        let [104, 8] = self.array()? else { return None };
        (0..8).try_for_each(|_| self.integer())
    }
}
