//! The data types of MQTT 5.0 section 1.5, read from and written to bytes. Knows nothing of packets.

use crate::mqtt::error::DecodeError;
use crate::mqtt::error::EncodeError;

/// The largest Variable Byte Integer, and so the largest Remaining Length.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

const TRUNCATED: DecodeError = DecodeError::malformed("section 2.1.4", "the packet ends inside a field");

/// What the first bytes say about a Variable Byte Integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Varint {
    /// Value and the bytes it took.
    Complete(u32, usize),
    /// All bytes so far say that more follow.
    Partial,
}

/// Reads a Variable Byte Integer from the start of `input`, in its shortest form only (`[MQTT-1.5.5-1]`).
pub(crate) fn varint(input: &[u8]) -> Result<Varint, DecodeError> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::malformed("[MQTT-1.5.5-1]", "a length is not in its shortest form"));
            }
            return Ok(Varint::Complete(value, index + 1));
        }
    }
    if input.len() >= 4 {
        return Err(DecodeError::malformed("section 1.5.5", "a length takes more than four bytes"));
    }
    Ok(Varint::Partial)
}

/// Bytes a Variable Byte Integer takes.
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a Variable Byte Integer; the caller keeps `value` within [`VARINT_MAX`].
pub(crate) fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes binary data behind its two byte length.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Writes a UTF-8 Encoded String.
pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if text.as_bytes().contains(&0) {
        return Err(EncodeError::Null);
    }
    put_bytes(text.as_bytes(), out)
}

/// Checks the bytes of a UTF-8 Encoded String (`[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`). A byte order mark is a character
/// like others and stays (`[MQTT-1.5.4-3]`).
pub(crate) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::malformed("[MQTT-1.5.4-1]", "a string is not well-formed UTF-8"))?;
    // Without an early exit the loop is compiled to vector instructions.
    if bytes.iter().fold(false, |null, &byte| null | (byte == 0)) {
        return Err(DecodeError::malformed("[MQTT-1.5.4-2]", "a string holds the null character"));
    }
    Ok(text)
}

/// The unread rest of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*head))
    }

    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let Varint::Complete(value, len) = varint(self.rest)? else { return Err(TRUNCATED) };
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Binary data behind its two byte length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        text(self.bytes()?)
    }

    /// Nothing may follow the last field of a packet.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed("section 2.1.4", "the packet is longer than its fields"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The borders of table 1-1.
    #[test]
    fn variable_byte_integers_at_their_borders() {
        let table: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARINT_MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        for (value, bytes) in table {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value), bytes.len());
            assert_eq!(varint(bytes), Ok(Varint::Complete(value, bytes.len())));
            for end in 0..bytes.len() {
                assert_eq!(varint(&bytes[..end]), Ok(Varint::Partial));
            }
        }
    }

    #[test]
    fn longer_forms_and_five_bytes_are_refused() {
        for bad in [&[0x80, 0x00][..], &[0xFF, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x00], &[0xFF; 4]] {
            assert!(varint(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_keeps_the_byte_order_mark_and_refuses_null_and_surrogates() {
        assert_eq!(text(&[0xEF, 0xBB, 0xBF, b'a']).unwrap(), "\u{FEFF}a"); // [MQTT-1.5.4-3]
        assert_eq!(text(b"a\0").unwrap_err().statement, "[MQTT-1.5.4-2]");
        assert_eq!(text(&[0xED, 0xA0, 0x80]).unwrap_err().statement, "[MQTT-1.5.4-1]");
        assert_eq!(text(&[0xC0, 0x80]).unwrap_err().statement, "[MQTT-1.5.4-1]");
    }

    #[test]
    fn long_fields_are_not_cut() {
        let mut out = Vec::new();
        assert_eq!(put_text(&"a".repeat(65_536), &mut out), Err(EncodeError::FieldTooLong));
        assert!(out.is_empty());
        put_text(&"a".repeat(65_535), &mut out).unwrap();
        assert_eq!(out.len(), 65_537);
    }

    proptest! {
        #[test]
        fn variable_byte_integers_are_read_as_written(value in 0..=VARINT_MAX) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(varint(&out).unwrap(), Varint::Complete(value, out.len()));
            prop_assert_eq!(out.len(), varint_len(value));
        }
    }
}
