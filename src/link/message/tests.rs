//! What a forwarded message may and may not hold.

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
            peer: Some(SocketAddr::from(([10, 1, 2, 3], 51_234))),
            proto_ver: 5,
            retain: true,
            topic: "a/b",
            payload: &[0; 64],
            timestamp_ms: 1_754_500_001_000,
            properties,
        },
    );
    assert!(out.capacity() >= out.len() && out.len() < 320 + 3 + 64, "{}", out.len());
    let text = decode(&out).unwrap();
    for part in ["ExactlyOnce", "retain: true", "Some(\"client-0001\")", "Some(\"user\")", "text/plain"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
