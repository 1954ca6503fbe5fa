//! What a forwarded message may and may not hold.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Result<String, MessageError> {
    assert_eq!(bytes[0], etf::VERSION);
    parse(Reader::new(&bytes[1..])).map(|message| format!("{message:?}"))
}

/// A message with this topic, these properties, and this payload and extra as raw terms.
fn term(topic: &[u8], properties: &[u8], payload: &[u8], extra: &[u8]) -> Vec<u8> {
    let mut out = vec![etf::VERSION, 104, 10];
    etf::put_atom(&mut out, "message");
    etf::put_binary(&mut out, &[7; 16]);
    etf::put_integer(&mut out, 1);
    etf::put_atom(&mut out, "http_api");
    etf::put_map(&mut out, 0);
    etf::put_map(&mut out, 1);
    etf::put_atom(&mut out, "properties");
    out.extend_from_slice(properties);
    etf::put_binary(&mut out, topic);
    out.extend_from_slice(payload);
    etf::put_integer(&mut out, 5);
    out.extend_from_slice(extra);
    out
}

fn property(name: &'static str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![116, 0, 0, 0, 1];
    etf::put_atom(&mut out, name);
    out.extend_from_slice(value);
    out
}

const NIL: &[u8] = &[106];
const EMPTY: &[u8] = &[116, 0, 0, 0, 0];

#[test]
fn what_mqtt_cannot_carry_is_refused() {
    assert!(decode(&term(b"t", EMPTY, NIL, EMPTY)).is_ok());
    assert_eq!(decode(&term(b"t/+", EMPTY, NIL, EMPTY)), Err(TopicError::Wildcard.into()));
    assert_eq!(decode(&term(b"t\0", EMPTY, NIL, EMPTY)), Err(TopicError::Null.into()));
    assert_eq!(decode(&term(b"", EMPTY, NIL, EMPTY)), Err(TopicError::Empty.into()));
    assert_eq!(decode(&term(&[0xff], EMPTY, NIL, EMPTY)), Err(MessageError::Field("topic")));
    assert_eq!(decode(&term(&[b'a'; 65_536], EMPTY, NIL, EMPTY)), Err(TopicError::TooLong.into()));
    assert_eq!(decode(&term(b"t", EMPTY, NIL, NIL)), Err(MessageError::Field("extra")));
    let undefined = [vec![119, 9], b"undefined".to_vec()].concat();
    assert_eq!(decode(&term(b"t", &undefined, NIL, EMPTY)), Err(MessageError::Field("properties")));
    let wide = [vec![109, 0, 1, 0, 0], vec![b'x'; 65_536]].concat();
    for (name, value) in [
        ("Payload-Format-Indicator", &[97, 2][..]),
        ("Message-Expiry-Interval", &[98, 255, 255, 255, 255]),
        ("Response-Topic", &[109, 0, 0, 0, 1, b'#']),
        ("Content-Type", &[109, 0, 0, 0, 1, 0]),
        ("Content-Type", &wide),
        ("Correlation-Data", &wide),
        ("User-Property", &[97, 1]),
        ("User-Property", &[108, 0, 0, 0, 1, 97, 1, 106]),
    ] {
        let term = term(b"t", &property(name, value), NIL, EMPTY);
        assert_eq!(decode(&term), Err(MessageError::Property(name)), "{name}");
    }
    assert!(decode(&term(b"t", &property("Topic-Alias", &[97, 7]), NIL, EMPTY)).is_ok());
}

#[test]
fn a_payload_in_pieces_is_joined_within_bounds() {
    let pieces =
        [108, 0, 0, 0, 2, 97, b'a', 108, 0, 0, 0, 1, 107, 0, 2, b'b', b'c', 106, 109, 0, 0, 0, 1, b'd'];
    let text = decode(&term(b"t", EMPTY, &pieces, EMPTY)).unwrap();
    assert!(text.contains("payload: [97, 98, 99, 100]"), "{text}");
    let byte_too_large = [108, 0, 0, 0, 1, 98, 0, 0, 1, 0, 106];
    let byte_as_tail = [108, 0, 0, 0, 1, 97, 1, 97, 2];
    let deep = [[108, 0, 0, 0, 1].repeat(40), vec![106; 41]].concat();
    for payload in [&byte_too_large[..], &byte_as_tail, &deep, &[97, 1]] {
        assert_eq!(decode(&term(b"t", EMPTY, payload, EMPTY)), Err(MessageError::Field("payload")));
    }
}

#[test]
fn encoding_reserves_once() {
    let mut out = Vec::new();
    let properties = MessageProperties { content_type: Some("text/plain"), ..MessageProperties::default() };
    put(
        &mut out,
        &Outgoing {
            id: message_id(1_754_500_001_000_000, 0xabcd_ef01_2345, 0x17),
            qos: QoS::ExactlyOnce,
            from: Some("client-0001"),
            username: Some("user"),
            peer: Some([10, 1, 2, 3].into()),
            retain: true,
            topic: "a/b",
            payload: &[0; 64],
            timestamp_ms: 1_754_500_001_000,
            properties,
        },
    );
    assert!(out.capacity() >= out.len() && out.len() < 220 + 3 + 64, "{}", out.len());
    let text = decode(&out).unwrap();
    for part in ["ExactlyOnce", "retain: true", "text/plain"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé/]{1,12}"
}

/// Message Expiry Interval, Content Type, Correlation Data and User Properties.
type Properties4 = (u32, String, Vec<u8>, Vec<(String, String)>);

fn properties() -> impl Strategy<Value = Option<Properties4>> {
    prop::option::of((any::<u32>(), text(), any::<Vec<u8>>(), prop::collection::vec((text(), text()), 0..3)))
}

fn address() -> impl Strategy<Value = Option<IpAddr>> {
    let four = any::<[u8; 4]>().prop_map(IpAddr::from);
    prop::option::of(prop_oneof![four, any::<[u16; 8]>().prop_map(IpAddr::from)])
}

prop_compose! {
    /// A message as we send it, and whether its time is one of this century.
    pub(crate) fn sent()(
        (id, qos, from, username, peer) in
            (any::<[u8; 16]>(), 0..3_u8, prop::option::of(text()), prop::option::of(text()), address()),
        (retain, topic, payload) in (any::<bool>(), text(), any::<Vec<u8>>()),
        timestamp_ms in prop_oneof![1_u64 << 40..1 << 48, 0_u64..1 << 63],
        properties in properties(),
    ) -> (Vec<u8>, bool) {
        let mut inner = MessageProperties::default();
        if let Some((seconds, content_type, data, user)) = &properties {
            inner.message_expiry_interval = Some(*seconds);
            inner.content_type = Some(content_type);
            inner.correlation_data = Some(data);
            inner.user_properties = user.iter().map(|(key, value)| (&**key, &**value)).collect();
        }
        let message = Outgoing {
            id,
            qos: QoS::from_u8(qos).unwrap(),
            from: from.as_deref(),
            username: username.as_deref(),
            peer,
            retain,
            topic: &topic,
            payload: &payload,
            timestamp_ms,
            properties: inner,
        };
        let mut out = Vec::new();
        put(&mut out, &message);
        (out, (1 << 40..1 << 48).contains(&timestamp_ms))
    }
}

/// Changes of bytes: where (of 65,536 parts), how, and to what.
pub(crate) fn changes() -> impl Strategy<Value = Vec<(u16, u8, u8)>> {
    prop::collection::vec((any::<u16>(), 0..4_u8, any::<u8>()), 0..4)
}

pub(crate) fn change(bytes: &mut Vec<u8>, changes: &[(u16, u8, u8)]) {
    for &(place, kind, byte) in changes {
        let at = usize::from(place) * bytes.len() / 65_536;
        match kind {
            0 => bytes.insert(at, byte),
            1 => drop(bytes.splice(at..(at + 1).min(bytes.len()), [])),
            2 => bytes.iter_mut().skip(at).take(1).for_each(|changed| *changed ^= 1 << (byte % 8)),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|changed| *changed = byte),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is done to a message, reading it by its shape takes nothing that the general reader does not take, and
    /// reads it alike. Topics that are known make no difference to what is read.
    #[test]
    fn a_message_means_the_same_to_both_readers((sent, is_usual) in sent(), changes in changes()) {
        let mut bytes = sent;
        let general = |bytes: &[u8]| parse_any(Reader::new(&bytes[1..])).map(|message| format!("{message:?}"));
        prop_assert!(general(&bytes).is_ok());
        prop_assert_eq!(usual::parse(&bytes[1..], "").is_some(), is_usual, "our own shape");
        change(&mut bytes, &changes);
        prop_assume!(!bytes.is_empty());
        for known in ["", "a", "aa/a"] {
            let both = parse_after(Reader::new(&bytes[1..]), known).map(|message| format!("{message:?}"));
            prop_assert_eq!(both, general(&bytes));
        }
    }
}

#[test]
fn a_known_topic_is_given_back_and_says_nothing_about_others() {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let message = |topic| Outgoing {
        id: [0; 16],
        qos: QoS::AtMostOnce,
        from: None,
        username: None,
        peer: None,
        retain: false,
        topic,
        payload: b"",
        timestamp_ms: 1_754_500_001_000,
        properties: MessageProperties::default(),
    };
    put(&mut one, &message("t/1"));
    put(&mut other, &message("t/+"));
    let known = "t/1";
    let parsed = parse_after(Reader::new(&one[1..]), known).unwrap();
    assert!(std::ptr::eq(parsed.topic, known));
    assert_eq!(parse_after(Reader::new(&other[1..]), known), Err(TopicError::Wildcard.into()));
    let mut empty = Vec::new();
    put(&mut empty, &message(""));
    assert_eq!(parse_after(Reader::new(&empty[1..]), ""), Err(TopicError::Empty.into()));
}

#[test]
fn an_envelope_is_addressed_again() {
    let message = |from, retain, topic| Outgoing {
        id: [0; 16],
        qos: QoS::ExactlyOnce,
        from: Some(from),
        username: Some("user"),
        peer: Some([10, 1, 2, 3].into()),
        retain,
        topic,
        payload: b"payload",
        timestamp_ms: 1_754_500_001_000,
        properties: MessageProperties::default(),
    };
    let (mut envelope, mut out) = (Envelope::default(), b"before".to_vec());
    envelope.address(&message("first", false, "t"));
    for (from, retain) in [("second", true), ("a longer third", false)] {
        envelope.address(&message(from, !retain, "t"));
        for topic in ["t/1", "t/2"] {
            out.truncate(6);
            envelope.describe(&message("not looked at", retain, topic), b"");
            envelope.put(&mut out, [8; 16], b"another payload");
            out.truncate(6);
            envelope.put(&mut out, [9; 16], b"payload");
            let parsed = parse_any(Reader::new(&out[7..])).unwrap();
            assert_eq!((parsed.from, parsed.username), (Some(from.as_bytes()), Some(&b"user"[..])));
            assert_eq!((parsed.id, parsed.qos, parsed.retain), ([9; 16], QoS::ExactlyOnce, retain));
            assert_eq!((parsed.topic, &*parsed.payload), (topic, &b"payload"[..]));
        }
    }
}

/// A message of which nothing is told but its payload.
pub(crate) fn with_payload(payload: Cow<'_, [u8]>) -> Forwarded<'_> {
    Forwarded {
        id: [0; 16],
        qos: QoS::AtMostOnce,
        from: None,
        username: None,
        retain: false,
        topic: "t",
        payload,
        timestamp_ms: 0,
        properties: MessageProperties::default(),
        path: None,
    }
}
