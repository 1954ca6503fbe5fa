//! How a message, and that it is owed, are written down to outlive the process.
//!
//! Everything begins with the version of its layout, which is read for ever. Moments are written by the wall clock and read
//! by it: the monotonic one begins anew with the process. Numbers are little-endian.

use std::sync::Arc;

use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::session::queue::Owed;
use crate::session::queue::Tenths;
use crate::session::restore::Progress;
use crate::time::Now;

const VERSION: u8 = 1;
/// Of a message.
const RETAIN: u8 = 1 << 2;
const HAS_EXPIRY: u8 = 1 << 3;
/// Of what is owed.
const RECEIVED: u8 = 1 << 3;
const WAITS: u8 = 1 << 4;
const SHARED: u8 = 1 << 5;
/// What stands in front of the topic, at least.
pub const MESSAGE_HEAD_BYTES: usize = 8;

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// The moment `mono_ms` on the wall clock.
fn to_unix(mono_ms: u64, now: Now) -> u64 {
    now.unix_ms.saturating_add(mono_ms).saturating_sub(now.mono_ms)
}

/// The moment `unix_ms` on the monotonic clock; the past is 0.
fn to_mono(unix_ms: u64, now: Now) -> u64 {
    now.mono_ms.saturating_add(unix_ms).saturating_sub(now.unix_ms)
}

/// The parts of a message, head first.
#[must_use]
pub fn message_parts<'a>(view: &Publication<'a>, head: &'a mut Vec<u8>, now: Now) -> [&'a [u8]; 4] {
    head.clear();
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    head.push(VERSION);
    head.push(view.qos as u8 | bit(view.retain, RETAIN) | bit(view.expiry.is_some(), HAS_EXPIRY));
    head.extend_from_slice(&(view.topic.len() as u16).to_le_bytes());
    head.extend_from_slice(&(view.properties.len() as u32).to_le_bytes());
    if let Some(expiry) = view.expiry {
        head.extend_from_slice(&expiry.interval_seconds.to_le_bytes());
        head.extend_from_slice(&to_unix(expiry.received_mono_ms, now).to_le_bytes());
    }
    [head, view.topic.as_bytes(), view.properties, view.payload]
}

/// Reads a message; `None` if it is none.
#[must_use]
pub fn message(bytes: &[u8], now: Now) -> Option<Message> {
    let mut reader = Reader(bytes);
    let (VERSION, flags) = (reader.u8()?, reader.u8()?) else { return None };
    let (topic_len, properties_len) = (reader.u16()?, reader.u32()?);
    let expiry = if flags & HAS_EXPIRY == 0 { None } else { Some(expiry(reader.u32()?, reader.u64()?, now)) };
    let topic = std::str::from_utf8(reader.bytes(usize::from(topic_len))?).ok()?;
    let properties = reader.bytes(properties_len as usize)?;
    let (qos, retain) = (QoS::from_u8(flags & 3)?, flags & RETAIN != 0);
    Some(Message::keep(&Publication { topic, properties, payload: reader.0, qos, retain, expiry }))
}

/// What is left of an interval counts from now: before the process there is no monotonic time.
fn expiry(interval_seconds: u32, received_unix_ms: u64, now: Now) -> Expiry {
    let waited = now.unix_ms.saturating_sub(received_unix_ms) / 1000;
    let left = u64::from(interval_seconds).saturating_sub(waited);
    Expiry { interval_seconds: u32::try_from(left).unwrap_or(u32::MAX), received_mono_ms: now.mono_ms }
}

/// Writes that this is owed to a session, and how far that is. The message is the entry's body.
pub fn put_owed(out: &mut Vec<u8>, session: u64, owed: &Owed, sent: Option<PacketId>, now: Now) {
    out.push(VERSION);
    out.extend_from_slice(&session.to_le_bytes());
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(
        owed.qos as u8
            | bit(owed.retain, RETAIN)
            | bit(owed.waits_until.is_some(), WAITS)
            | bit(owed.shared.is_some(), SHARED),
    );
    out.extend_from_slice(&sent.map_or(0, PacketId::get).to_le_bytes());
    let ids = owed.subscription_ids();
    out.extend_from_slice(&(ids.len() as u16).to_le_bytes());
    ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    if let Some(until) = owed.waits_until {
        out.extend_from_slice(&to_unix(until.mono_ms(), now).to_le_bytes());
    }
    if let Some(shared) = &owed.shared {
        out.extend_from_slice(shared.as_bytes());
    }
}

/// Writes that a session has to finish a QoS 2 delivery whose message the client has.
pub fn put_received(out: &mut Vec<u8>, session: u64, id: PacketId) {
    out.push(VERSION);
    out.extend_from_slice(&session.to_le_bytes());
    out.push(QoS::ExactlyOnce as u8 | RECEIVED);
    out.extend_from_slice(&id.get().to_le_bytes());
    out.extend_from_slice(&[0, 0]);
}

/// Reads what is owed under `number`, to which session, and how far that is. `body`: where its message is kept, and of how
/// many bytes.
#[must_use]
pub fn owed(number: u64, value: &[u8], body: (u64, u32), now: Now) -> Option<(u64, Owed, Progress)> {
    let mut reader = Reader(value);
    let (VERSION, session, flags) = (reader.u8()?, reader.u64()?, reader.u8()?) else { return None };
    let id = PacketId::new(reader.u16()?);
    let ids = (0..reader.u16()?).map(|_| reader.u32()).collect::<Option<Vec<u32>>>()?;
    let waits_until =
        if flags & WAITS == 0 { None } else { Some(Tenths::from_mono_ms(to_mono(reader.u64()?, now))) };
    let shared = if flags & SHARED == 0 { None } else { Some(std::str::from_utf8(reader.0).ok()?) };
    let progress = match id {
        Some(id) if flags & RECEIVED != 0 => Progress::Received(id),
        Some(id) => Progress::Sent(id),
        None => Progress::Waiting,
    };
    let owed = Owed {
        message: Message::elsewhere(body.0, body.1.saturating_sub(MESSAGE_HEAD_BYTES as u32)),
        subscription_ids: (!ids.is_empty()).then(|| Box::new(ids.into())),
        qos: QoS::from_u8(flags & 3)?,
        retain: flags & RETAIN != 0,
        shared: shared.map(|shared| Arc::new(shared.into())),
        waits_until,
        number,
    };
    Some((session, owed, progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: Now = Now { mono_ms: 1_000_000, unix_ms: 1_700_000_000_000 };
    /// Of the next process, ten seconds later.
    const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_010_000 };

    fn written(publication: &Publication<'_>) -> Vec<u8> {
        message_parts(publication, &mut Vec::new(), THEN).concat()
    }

    #[test]
    fn a_message_comes_back_with_what_is_left_of_its_expiry() {
        let expiry = |interval_seconds, received_mono_ms| Some(Expiry { interval_seconds, received_mono_ms });
        let publication = Publication {
            topic: "a/b",
            properties: b"\x01\x01",
            payload: b"payload",
            qos: QoS::ExactlyOnce,
            retain: true,
            expiry: expiry(100, THEN.mono_ms - 5_000),
        };
        let back = message(&written(&publication), NOW).unwrap();
        assert_eq!(back.view(), Publication { expiry: expiry(85, NOW.mono_ms), ..publication });
        let plain = Publication { expiry: None, ..publication };
        assert_eq!(message(&written(&plain), NOW).unwrap().view(), plain);
        assert_eq!(written(&plain).len() - MESSAGE_HEAD_BYTES, Message::keep(&plain).len());
        for len in 0..MESSAGE_HEAD_BYTES + 5 {
            assert!(message(&written(&plain)[..len], NOW).is_none(), "{len}");
        }
    }

    #[test]
    fn what_is_owed_comes_back_as_it_stood() {
        let id = PacketId::new(77).unwrap();
        let full = Owed {
            message: Message::elsewhere(9, 100 - MESSAGE_HEAD_BYTES as u32),
            subscription_ids: Some(Box::new([1, 268_435_455].as_slice().into())),
            qos: QoS::AtLeastOnce,
            retain: true,
            shared: Some(Arc::new("$share/g/a".into())),
            waits_until: Some(Tenths::from_mono_ms(THEN.mono_ms + 60_000)),
            number: 8,
        };
        for (sent, progress) in [(None, Progress::Waiting), (Some(id), Progress::Sent(id))] {
            let mut bytes = Vec::new();
            put_owed(&mut bytes, 3, &full, sent, THEN);
            let (session, back, stood) = owed(8, &bytes, (9, 100), NOW).unwrap();
            assert_eq!(
                (session, stood, back.number, back.qos, back.retain),
                (3, progress, 8, full.qos, true)
            );
            assert_eq!((back.subscription_ids(), &back.shared), (full.subscription_ids(), &full.shared));
            assert_eq!(back.waits_until, Some(Tenths::from_mono_ms(NOW.mono_ms + 50_000)));
            assert_eq!((back.message.body_elsewhere(), back.message.len()), (Some(9), full.message.len()));
            assert!((0..12).all(|len| owed(8, &bytes[..len], (9, 100), NOW).is_none()));
        }
        let mut bytes = Vec::new();
        put_received(&mut bytes, 3, id);
        let (session, back, stood) = owed(8, &bytes, (0, 0), NOW).unwrap();
        assert_eq!((session, stood, back.qos), (3, Progress::Received(id), QoS::ExactlyOnce));
    }
}
