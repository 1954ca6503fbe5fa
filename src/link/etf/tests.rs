//! The reader and writer against a naive model: a term tree that encodes itself.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Integer(i64),
    Atom(String),
    Binary(Vec<u8>),
    ByteList(Vec<u8>),
    Nil,
    List(Vec<Self>, Box<Self>),
    Tuple(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Float([u8; 8]),
    Pid,
    Fun(Vec<u8>),
}

impl Term {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(value @ 0..) => put_integer(out, value.cast_unsigned()),
            Self::Integer(value) if *value >= i64::from(i32::MIN) => {
                out.push(98);
                out.extend_from_slice(&(*value as i32).to_be_bytes());
            }
            Self::Integer(value) => {
                out.extend_from_slice(&[111, 0, 0, 0, 9, 1]);
                out.extend_from_slice(&value.unsigned_abs().to_le_bytes());
                out.push(0);
            }
            Self::Atom(text) => {
                out.push(118);
                out.extend_from_slice(&(text.len() as u16).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Binary(bytes) => put_binary(out, bytes),
            Self::ByteList(bytes) => {
                out.push(107);
                out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Nil => put_nil(out),
            Self::List(items, tail) => {
                put_list(out, items.len() as u32);
                items.iter().for_each(|item| item.encode(out));
                tail.encode(out);
            }
            Self::Tuple(items) => {
                out.push(105);
                out.extend_from_slice(&(items.len() as u32).to_be_bytes());
                items.iter().for_each(|item| item.encode(out));
            }
            Self::Map(pairs) => {
                put_map(out, pairs.len() as u32);
                for (key, value) in pairs {
                    key.encode(out);
                    value.encode(out);
                }
            }
            Self::Float(bytes) => {
                out.push(70);
                out.extend_from_slice(bytes);
            }
            Self::Pid => {
                out.push(88);
                put_atom(out, "nonode@nohost");
                out.extend_from_slice(&[0; 12]);
            }
            Self::Fun(bytes) => {
                out.push(112);
                out.extend_from_slice(&(bytes.len() as u32 + 4).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }

    /// `None` stands for what the reader does not tell apart.
    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut before = *reader;
        Some(match reader.head().unwrap() {
            Head::Integer(value) => Self::Integer(value),
            Head::Atom(text) => Self::Atom(String::from_utf8(text.to_vec()).unwrap()),
            Head::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Head::ByteList(bytes) => Self::ByteList(bytes.to_vec()),
            Head::Nil => Self::Nil,
            Head::List(count) => {
                let items = (0..count).map(|_| Self::decode(reader)).collect::<Option<_>>();
                let tail = Self::decode(reader);
                Self::List(items?, Box::new(tail?))
            }
            Head::Tuple(count) => Self::Tuple(
                (0..count)
                    .map(|_| Self::decode(reader))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .collect::<Option<_>>()?,
            ),
            Head::Map(count) => {
                let pairs: Vec<_> =
                    (0..count).map(|_| (Self::decode(reader), Self::decode(reader))).collect();
                Self::Map(pairs.into_iter().map(|(key, value)| Some((key?, value?))).collect::<Option<_>>()?)
            }
            Head::BigInteger | Head::Other(_) => {
                before.skip().unwrap();
                *reader = before;
                return None;
            }
        })
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Float(_) | Self::Pid | Self::Fun(_) => false,
            Self::List(items, tail) => items.iter().all(Self::is_plain) && tail.is_plain(),
            Self::Tuple(items) => items.iter().all(Self::is_plain),
            Self::Map(pairs) => pairs.iter().all(|(key, value)| key.is_plain() && value.is_plain()),
            _ => true,
        }
    }
}

fn term() -> impl Strategy<Value = Term> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    let leaf = prop_oneof![
        any::<i64>().prop_map(Term::Integer),
        (-300..70_000_i64).prop_map(Term::Integer),
        "[a-z$_é]{0,12}".prop_map(Term::Atom),
        bytes().prop_map(Term::Binary),
        bytes().prop_map(Term::ByteList),
        Just(Term::Nil),
        any::<[u8; 8]>().prop_map(Term::Float),
        Just(Term::Pid),
        bytes().prop_map(Term::Fun),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..6);
        prop_oneof![
            (many.clone(), inner.clone()).prop_map(|(items, tail)| Term::List(items, Box::new(tail))),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Term::Tuple),
            prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Term::Map),
        ]
    })
}

proptest! {
    #[test]
    fn terms_are_read_as_they_were_written(term in term(), rest in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut bytes = Vec::new();
        term.encode(&mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(&rest);
        let mut reader = Reader::new(&bytes);
        let expected = term.is_plain().then_some(term);
        let decoded = Term::decode(&mut reader);
        if expected.is_some() {
            prop_assert_eq!(decoded, expected);
            prop_assert_eq!(reader.rest(), &rest[..]);
        }
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.term().unwrap().rest(), &bytes[..length]);
        prop_assert_eq!(reader.rest(), &rest[..]);
        // Cut anywhere, it ends early.
        for cut in 0..length {
            prop_assert!(Reader::new(&bytes[..cut]).skip().is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Reader::new(&bytes).skip();
        let mut inflater = crate::link::compress::Inflater::default();
        let mut payload = vec![VERSION];
        payload.extend_from_slice(&bytes);
        if let Ok(reader) = inflater.open(&payload) {
            let _ = crate::link::payload::parse_control(reader);
            let _ = crate::link::payload::parse_ack(reader);
            let _ = crate::link::message::parse(reader);
        }
    }
}

#[test]
fn integers_take_erlangs_shortest_form() {
    for (value, bytes) in [
        (0, &[97, 0][..]),
        (255, &[97, 255]),
        (256, &[98, 0, 0, 1, 0]),
        (i32::MAX as u64, &[98, 127, 255, 255, 255]),
        (i32::MAX as u64 + 1, &[110, 4, 0, 0, 0, 0, 128]),
        (1_754_500_000_123, &[110, 6, 0, 0x7b, 0x69, 0x59, 0x80, 0x98, 0x01]),
    ] {
        let mut out = Vec::new();
        put_integer(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(Reader::new(&out).integer(), Ok(value.cast_signed()));
    }
    let mut min = vec![110, 8, 1];
    min.extend_from_slice(&i64::MIN.unsigned_abs().to_le_bytes());
    assert_eq!(Reader::new(&min).head(), Ok(Head::Integer(i64::MIN)));
    min[2] = 0;
    assert_eq!(Reader::new(&min).head(), Ok(Head::BigInteger));
    assert_eq!(Reader::new(&[110, 0, 1]).head(), Ok(Head::Integer(0)));
}

/// `reliability.md` 3.2, class K: none of these costs more than looking at its own bytes.
#[test]
fn hostile_terms_are_refused() {
    let nested = |depth: usize| [[104, 1].repeat(depth), vec![106]].concat();
    assert_eq!(Reader::new(&nested(DEPTH_MAX)).skip(), Ok(()));
    assert_eq!(Reader::new(&nested(DEPTH_MAX + 1)).skip(), Err(EtfError::TooDeep));
    assert_eq!(Reader::new(&nested(100_000)).skip(), Err(EtfError::TooDeep));
    let lists = [[108, 0, 0, 0, 1].repeat(100_000), vec![106; 100_001]].concat();
    assert_eq!(Reader::new(&lists).skip(), Err(EtfError::TooDeep));
    for claim in [
        [108, 255, 255, 255, 255],
        [116, 255, 255, 255, 255],
        [105, 255, 255, 255, 255],
        [109, 255, 255, 255, 255],
    ] {
        assert_eq!(Reader::new(&claim).skip(), Err(EtfError::Truncated), "{claim:?}");
    }
    assert_eq!(Reader::new(&[111, 128, 0, 0, 0, 0]).skip(), Err(EtfError::Truncated));
    let wide = [vec![111, 0, 0, 0x10, 0x01, 0], vec![1; 0x1001]].concat();
    assert_eq!(Reader::new(&wide).skip(), Err(EtfError::TooWide));
    assert_eq!(Reader::new(&[112, 0, 0, 0, 3]).skip(), Err(EtfError::Truncated));
    assert_eq!(Reader::new(&[117, 255, 255, 255, 255]).skip(), Err(EtfError::Truncated));
    assert_eq!(Reader::new(&[88, 97, 1]).skip(), Err(EtfError::Tag(97)));
    for tag in [0, 80, 82, 121, 131, 255] {
        assert_eq!(Reader::new(&[tag, 0, 0, 0, 0, 0, 0, 0, 0, 0]).skip(), Err(EtfError::Tag(tag)));
    }
}

#[test]
fn every_rare_tag_is_skipped_whole() {
    let atom = [119, 1, b'n'];
    let node_then = |tag: u8, length: usize| [vec![tag], atom.to_vec(), vec![7; length]].concat();
    let mut terms = vec![
        [vec![70], vec![0; 8]].concat(),
        [vec![99], vec![b'1'; 31]].concat(),
        vec![77, 0, 0, 0, 2, 3, 255, 224],
        node_then(88, 12),
        node_then(103, 9),
        node_then(89, 8),
        node_then(102, 5),
        node_then(101, 5),
        node_then(120, 12),
        [vec![90, 0, 2], atom.to_vec(), vec![0; 12]].concat(),
        [vec![114, 0, 2], atom.to_vec(), vec![0; 9]].concat(),
        [vec![113], atom.to_vec(), atom.to_vec(), vec![97, 1]].concat(),
        [vec![112, 0, 0, 0, 9], vec![0; 5]].concat(),
    ];
    let pid = node_then(88, 12);
    terms.push([vec![117, 0, 0, 0, 1], pid, atom.to_vec(), vec![97, 0, 97, 0, 97, 9]].concat());
    for term in terms {
        let mut reader = Reader::new(&term);
        assert_eq!(reader.skip(), Ok(()), "{term:?}");
        assert!(reader.rest().is_empty(), "{term:?}");
    }
}
