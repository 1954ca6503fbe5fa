//! Erlang's external term format as cluster linking uses it (`link-protocol.md` 3.1): a bounded pull reader
//! and a writer for the few tags we send. There is no term tree: a reader hands out one term head at a time,
//! borrowing binaries from the input, so that hostile input costs no memory beyond its own bytes.
//!
//! Not here: what the terms mean ([`crate::link::payload`], [`crate::link::message`]) and the compressed form
//! ([`crate::link::compress`]).

/// First byte of every payload.
pub const VERSION: u8 = 131;
/// Tag of the compressed form: size of the plain term, then a zlib stream.
pub const COMPRESSED: u8 = 80;
/// How deep terms may nest. EMQX's own payloads need five levels.
pub const DEPTH_MAX: usize = 32;
/// The longest integer in bytes that is skipped; wider ones are refused.
pub const BIG_INTEGER_BYTES_MAX: usize = 4_096;

/// Why bytes are not a term we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EtfError {
    /// The first byte is not 131.
    #[error("not an Erlang term: the first byte is not 131")]
    Version,
    /// The input ends inside a term, or a count exceeds the bytes that are left.
    #[error("the term ends early")]
    Truncated,
    /// A tag that is unknown, or that only the distribution protocol uses.
    #[error("unsupported term tag {0}")]
    Tag(u8),
    /// More than [`DEPTH_MAX`] levels.
    #[error("the term nests too deep")]
    TooDeep,
    /// An integer of more than [`BIG_INTEGER_BYTES_MAX`] bytes.
    #[error("the integer is too wide")]
    TooWide,
    /// The declared size of a compressed term exceeds the limit.
    #[error("the term would inflate to {0} bytes")]
    Inflated(u32),
    /// The zlib stream is broken or does not yield the declared size.
    #[error("the compressed term is broken")]
    Zlib,
    /// A term of another type than the place asks for.
    #[error("unexpected term type")]
    Type,
}

/// The beginning of one term. Elements of compound terms follow in the reader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Head<'a> {
    /// An integer that fits.
    Integer(i64),
    /// An integer that does not.
    BigInteger,
    /// An atom's text: UTF-8, or Latin-1 in the two old tags.
    Atom(&'a [u8]),
    /// A binary.
    Binary(&'a [u8]),
    /// A list of bytes in its short form.
    ByteList(&'a [u8]),
    /// The empty list.
    Nil,
    /// A list of so many elements and a tail.
    List(u32),
    /// A tuple of so many elements.
    Tuple(u32),
    /// A map of so many pairs, key and value in turn.
    Map(u32),
    /// Anything else (float, pid, reference, function…), followed by so many terms that belong to it.
    Other(u32),
}

impl Head<'_> {
    /// How many terms follow that belong to this one.
    #[must_use]
    fn children(self) -> u64 {
        match self {
            Self::List(count) => u64::from(count) + 1,
            Self::Tuple(count) | Self::Other(count) => u64::from(count),
            Self::Map(count) => u64::from(count) * 2,
            _ => 0,
        }
    }
}

/// A position in the bytes of a term, the version byte already taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` that begin with a term tag. Bytes behind the term are ignored, as Erlang does.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads the head of the next term. Counts are checked against the bytes that are left.
    pub fn head(&mut self) -> Result<Head<'a>, EtfError> {
        let tag = self.u8()?;
        let head = match tag {
            97 => Head::Integer(i64::from(self.u8()?)),
            98 => Head::Integer(i64::from(self.u32()?.cast_signed())),
            110 => {
                let width = usize::from(self.u8()?);
                self.big(width)?
            }
            111 => {
                let width = self.u32()? as usize;
                self.big(width)?
            }
            115 | 119 => {
                let length = usize::from(self.u8()?);
                Head::Atom(self.take(length)?)
            }
            100 | 118 => {
                let length = usize::from(self.u16()?);
                Head::Atom(self.take(length)?)
            }
            109 => {
                let length = self.u32()? as usize;
                Head::Binary(self.take(length)?)
            }
            107 => {
                let length = usize::from(self.u16()?);
                Head::ByteList(self.take(length)?)
            }
            106 => Head::Nil,
            108 => Head::List(self.u32()?),
            104 => Head::Tuple(u32::from(self.u8()?)),
            105 => Head::Tuple(self.u32()?),
            116 => Head::Map(self.u32()?),
            _ => Head::Other(self.other(tag)?),
        };
        if head.children() > self.bytes.len() as u64 {
            return Err(EtfError::Truncated);
        }
        Ok(head)
    }

    /// Takes the fixed part of a rare term and says how many terms follow it.
    fn other(&mut self, tag: u8) -> Result<u32, EtfError> {
        match tag {
            70 => self.take(8)?,             // float
            99 => self.take(31)?,            // float as text
            88 => self.node_then(12)?,       // pid
            103 => self.node_then(9)?,       // pid, old
            89 => self.node_then(8)?,        // port
            102 | 101 => self.node_then(5)?, // port and reference, old
            120 => self.node_then(12)?,      // port, 64 bit
            77 => {
                let length = self.u32()? as usize; // bit string
                self.u8()?;
                self.take(length)?
            }
            90 => {
                let words = usize::from(self.u16()?); // reference
                self.node_then(4 + words * 4)?
            }
            114 => {
                let words = usize::from(self.u16()?); // reference, old
                self.node_then(1 + words * 4)?
            }
            112 => {
                let size = self.u32()? as usize; // function; the size counts itself
                self.take(size.checked_sub(4).ok_or(EtfError::Truncated)?)?
            }
            113 => return Ok(3), // external function: module, name, arity
            117 => return self.u32()?.checked_add(4).ok_or(EtfError::Truncated), // function, old
            _ => return Err(EtfError::Tag(tag)),
        };
        Ok(0)
    }

    fn node_then(&mut self, length: usize) -> Result<&'a [u8], EtfError> {
        let name = match self.u8()? {
            115 | 119 => usize::from(self.u8()?),
            100 | 118 => usize::from(self.u16()?),
            tag => return Err(EtfError::Tag(tag)),
        };
        self.take(name)?;
        self.take(length)
    }

    fn big(&mut self, width: usize) -> Result<Head<'a>, EtfError> {
        let negative = self.u8()? != 0;
        let digits = self.take(width)?;
        if width > BIG_INTEGER_BYTES_MAX {
            return Err(EtfError::TooWide);
        }
        let used = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        let Some(digits) = digits.get(..used).filter(|digits| digits.len() <= 8) else {
            return Ok(Head::BigInteger);
        };
        let magnitude = digits.iter().rev().fold(0_u64, |value, digit| value << 8 | u64::from(*digit));
        let value =
            if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
        Ok(value.map_or(Head::BigInteger, Head::Integer))
    }

    /// Skips one whole term of any kind, without recursion.
    pub fn skip(&mut self) -> Result<(), EtfError> {
        let head = self.head()?;
        self.skip_rest(head)
    }

    /// Skips the terms that belong to a head just read.
    pub fn skip_rest(&mut self, head: Head<'_>) -> Result<(), EtfError> {
        match head.children() {
            0 => Ok(()),
            children => self.skip_children(children),
        }
    }

    fn skip_children(&mut self, children: u64) -> Result<(), EtfError> {
        let mut left = [0_u64; DEPTH_MAX];
        let mut depth = 0;
        left[0] = children;
        loop {
            left[depth] -= 1;
            let children = self.head()?.children();
            if children > 0 {
                depth += 1;
                *left.get_mut(depth).ok_or(EtfError::TooDeep)? = children;
                continue;
            }
            while left[depth] == 0 {
                if depth == 0 {
                    return Ok(());
                }
                depth -= 1;
            }
        }
    }

    /// A reader of the next term alone; this one moves behind it.
    pub fn term(&mut self) -> Result<Self, EtfError> {
        let start = self.bytes;
        self.skip()?;
        let length = start.len() - self.bytes.len();
        Ok(Self { bytes: &start[..length] })
    }

    /// The next term, which must be a binary.
    pub fn binary(&mut self) -> Result<&'a [u8], EtfError> {
        match self.head()? {
            Head::Binary(bytes) => Ok(bytes),
            _ => Err(EtfError::Type),
        }
    }

    /// The next term, which must be a binary of UTF-8.
    pub fn text(&mut self) -> Result<&'a str, EtfError> {
        std::str::from_utf8(self.binary()?).map_err(|_| EtfError::Type)
    }

    /// The next term, which must be an integer of 64 bits.
    pub fn integer(&mut self) -> Result<i64, EtfError> {
        match self.head()? {
            Head::Integer(value) => Ok(value),
            _ => Err(EtfError::Type),
        }
    }

    /// The next term, which must be an atom.
    pub fn atom(&mut self) -> Result<&'a [u8], EtfError> {
        match self.head()? {
            Head::Atom(text) => Ok(text),
            _ => Err(EtfError::Type),
        }
    }

    /// The next term, which must be a map: its number of pairs.
    pub fn map(&mut self) -> Result<u32, EtfError> {
        match self.head()? {
            Head::Map(pairs) => Ok(pairs),
            _ => Err(EtfError::Type),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], EtfError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(EtfError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EtfError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(EtfError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, EtfError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, EtfError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, EtfError> {
        self.array().map(u32::from_be_bytes)
    }
}

/// Appends the version byte.
pub fn put_version(out: &mut Vec<u8>) {
    out.push(VERSION);
}

/// Appends an atom. `name` is one of our own constants, shorter than 256 bytes.
pub fn put_atom(out: &mut Vec<u8>, name: &'static str) {
    debug_assert!(name.len() < 256, "atoms we send are short constants");
    out.extend_from_slice(&[119, name.len() as u8]);
    out.extend_from_slice(name.as_bytes());
}

/// Appends a binary.
pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(u32::try_from(bytes.len()).is_ok(), "no MQTT packet holds this much");
    let [a, b, c, d] = (bytes.len() as u32).to_be_bytes();
    out.extend_from_slice(&[109, a, b, c, d]);
    out.extend_from_slice(bytes);
}

/// Appends an integer in the shortest of Erlang's forms.
pub fn put_integer(out: &mut Vec<u8>, value: u64) {
    if let Ok(byte) = u8::try_from(value) {
        out.extend_from_slice(&[97, byte]);
    } else if let Ok(word) = i32::try_from(value) {
        out.push(98);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        let unused = value.leading_zeros() as usize / 8;
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        out.extend_from_slice(&[110, 8 - unused as u8, 0, a, b, c, d, e, f, g, h]);
        out.truncate(out.len() - unused);
    }
}

/// Appends the head of a tuple.
pub fn put_tuple(out: &mut Vec<u8>, arity: u8) {
    out.extend_from_slice(&[104, arity]);
}

/// Appends the head of a map.
pub fn put_map(out: &mut Vec<u8>, pairs: u32) {
    out.push(116);
    out.extend_from_slice(&pairs.to_be_bytes());
}

/// Appends the head of a list; [`put_nil`] must follow its elements.
pub fn put_list(out: &mut Vec<u8>, elements: u32) {
    out.push(108);
    out.extend_from_slice(&elements.to_be_bytes());
}

/// Appends the empty list, which also ends every list.
pub fn put_nil(out: &mut Vec<u8>) {
    out.push(106);
}

#[cfg(test)]
mod tests;
