//! The compressed form of an external term (`link-protocol.md` 3.1): inflating with a bound on what comes out,
//! deflating only where it shrinks. Both keep their zlib state between payloads, so that a connection pays
//! for it once.

use std::fmt;

use flate2::Compress;
use flate2::Compression;
use flate2::Decompress;
use flate2::FlushCompress;
use flate2::FlushDecompress;
use flate2::Status;

use crate::link::etf;
use crate::link::etf::EtfError;
use crate::link::etf::Reader;

/// How large a payload may inflate to, unless a driver says otherwise: EMQX's Maximum Packet Size of 1 MiB
/// and as much again for headers and properties.
pub const INFLATED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Payloads shorter than this are not worth deflating.
pub const COMPRESS_BYTES_MIN: usize = 512;
/// Buffers larger than this are given back after use.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// Whether [`Inflater::open`] would have to inflate the payload.
#[must_use]
pub fn is_compressed(payload: &[u8]) -> bool {
    payload.starts_with(&[etf::VERSION, etf::COMPRESSED])
}

/// Takes the version byte off a payload that is not compressed.
pub fn open_plain(payload: &[u8]) -> Result<Reader<'_>, EtfError> {
    match payload {
        [etf::VERSION, term @ ..] => Ok(Reader::new(term)),
        _ => Err(EtfError::Version),
    }
}

/// Opens payloads, inflating them where needed.
pub struct Inflater {
    state: Option<Decompress>,
    plain: Vec<u8>,
    limit: usize,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inflater").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new(INFLATED_BYTES_MAX)
    }
}

impl Inflater {
    /// An inflater that refuses payloads of more than `limit` bytes once inflated.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { state: None, plain: Vec::new(), limit }
    }

    /// Takes off the version byte and, where present, the compression. Nothing is copied for a plain payload.
    pub fn open<'a>(&'a mut self, payload: &'a [u8]) -> Result<Reader<'a>, EtfError> {
        match payload {
            [etf::VERSION, etf::COMPRESSED, a, b, c, d, stream @ ..] => {
                self.inflate(u32::from_be_bytes([*a, *b, *c, *d]), stream)?;
                Ok(Reader::new(&self.plain))
            }
            [etf::VERSION, etf::COMPRESSED, ..] => Err(EtfError::Truncated),
            plain => open_plain(plain),
        }
    }

    /// The buffer grows with what really comes out, never by what the sender claims.
    fn inflate(&mut self, declared: u32, stream: &[u8]) -> Result<(), EtfError> {
        let size = declared as usize;
        if size > self.limit {
            return Err(EtfError::Inflated(declared));
        }
        self.plain.clear();
        self.plain.shrink_to(BUFFER_BYTES_KEPT);
        let state = self.state.get_or_insert_with(|| Decompress::new(true));
        state.reset(true);
        loop {
            let taken = usize::try_from(state.total_in()).map_err(|_| EtfError::Zlib)?;
            let input = stream.get(taken..).ok_or(EtfError::Zlib)?;
            let step = self.plain.len().clamp(4_096, 1 << 20);
            // One byte more than declared, so that a longer stream shows itself.
            self.plain.reserve(step.min(size + 1 - self.plain.len()));
            let before = (state.total_in(), state.total_out());
            let status = state
                .decompress_vec(input, &mut self.plain, FlushDecompress::None)
                .map_err(|_| EtfError::Zlib)?;
            if self.plain.len() > size {
                return Err(EtfError::Zlib);
            }
            match status {
                Status::StreamEnd if self.plain.len() == size => return Ok(()),
                Status::StreamEnd => return Err(EtfError::Zlib),
                _ if before == (state.total_in(), state.total_out()) => return Err(EtfError::Zlib),
                _ => {}
            }
        }
    }
}

/// Deflates payloads in place.
pub struct Deflater {
    level: Compression,
    state: Option<Compress>,
    packed: Vec<u8>,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl Default for Deflater {
    /// The fastest level: a link is bound by its slowest core more often than by its line.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Deflater {
    /// A deflater of zlib level 1 to 9.
    #[must_use]
    pub fn new(level: u32) -> Self {
        Self { level: Compression::new(level.clamp(1, 9)), state: None, packed: Vec::new() }
    }

    /// Replaces the payload `out[start..]`, a version byte and a plain term, by its compressed form if that is
    /// shorter and the payload has at least `threshold` bytes. Says whether it did.
    pub fn shrink(&mut self, out: &mut Vec<u8>, start: usize, threshold: usize) -> bool {
        let Some([etf::VERSION, term @ ..]) = out.get(start..) else { return false };
        let (length, Ok(size)) = (term.len(), u32::try_from(term.len())) else { return false };
        if length + 1 < threshold {
            return false;
        }
        // Room for what would be an improvement, and no more: a stream that does not fit is of no use.
        let room = length.saturating_sub(6);
        self.packed.clear();
        self.packed.shrink_to(BUFFER_BYTES_KEPT);
        self.packed.reserve(room);
        // Made at the first use: it is a quarter of a megabyte.
        let state = self.state.get_or_insert_with(|| Compress::new(self.level, true));
        state.reset();
        let status = state.compress_vec(term, &mut self.packed, FlushCompress::Finish);
        if !matches!(status, Ok(Status::StreamEnd)) || self.packed.len() >= room {
            return false;
        }
        out.truncate(start + 1);
        out.push(etf::COMPRESSED);
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&self.packed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(term: &[u8]) -> Vec<u8> {
        let mut payload = vec![etf::VERSION];
        payload.extend_from_slice(term);
        assert!(Deflater::default().shrink(&mut payload, 0, 0));
        payload
    }

    #[test]
    fn what_shrinks_comes_back_and_what_does_not_stays() {
        let mut deflater = Deflater::default();
        let mut inflater = Inflater::default();
        for round in 0..3_u8 {
            let mut payload = b"kept".to_vec();
            payload.push(etf::VERSION);
            payload.extend_from_slice(&[round; 5_000]);
            assert!(deflater.shrink(&mut payload, 4, COMPRESS_BYTES_MIN));
            assert!(payload.len() < 100 && payload.starts_with(b"kept"));
            assert_eq!(inflater.open(&payload[4..]).unwrap().rest(), [round; 5_000]);
        }
        let mut state = 1_u32;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let noise: Vec<u8> = (0..2_000).map(|_| noise()).collect();
        let mut payload = [vec![etf::VERSION], noise].concat();
        let before = payload.clone();
        assert!(!deflater.shrink(&mut payload, 0, COMPRESS_BYTES_MIN));
        assert_eq!(payload, before);
        let mut short = [etf::VERSION; 100].to_vec();
        assert!(!deflater.shrink(&mut short, 0, COMPRESS_BYTES_MIN));
    }

    /// `reliability.md` 3.2, class K.
    #[test]
    fn bombs_are_refused_without_their_memory() {
        let mut inflater = Inflater::new(10_000);
        let huge = [etf::VERSION, etf::COMPRESSED, 255, 255, 255, 255, 0x78, 0x9c];
        assert_eq!(inflater.open(&huge), Err(EtfError::Inflated(u32::MAX)));
        // Declares little, holds much: 1000 to 1.
        let mut bomb = packed(&vec![0; 10_000_000]);
        bomb[2..6].copy_from_slice(&5_000_u32.to_be_bytes());
        assert_eq!(inflater.open(&bomb), Err(EtfError::Zlib));
        assert!(inflater.plain.capacity() <= 16_384, "{}", inflater.plain.capacity());
        // Declares much, holds little.
        let mut liar = packed(&[0; 1_000]);
        liar[2..6].copy_from_slice(&9_999_u32.to_be_bytes());
        assert_eq!(inflater.open(&liar), Err(EtfError::Zlib));
        let exact = packed(&[7; 10_000]);
        assert_eq!(inflater.open(&exact).unwrap().rest(), [7; 10_000]);
        let mut cut = exact.clone();
        cut.truncate(exact.len() - 9);
        assert_eq!(inflater.open(&cut), Err(EtfError::Zlib));
        let trailing = [exact, vec![1, 2, 3]].concat();
        assert_eq!(inflater.open(&trailing).unwrap().rest().len(), 10_000);
        assert_eq!(inflater.open(&[etf::VERSION, etf::COMPRESSED, 0, 0]), Err(EtfError::Truncated));
        assert_eq!(inflater.open(&[]), Err(EtfError::Version));
    }
}
