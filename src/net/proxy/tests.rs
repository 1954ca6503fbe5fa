//! Headers as the protocol's text gives them, headers put together at random, and any bytes.

use proptest::prelude::*;

use super::*;

fn header(source: Option<&str>, length: usize) -> Result<Parsed, ProxyError> {
    Ok(Parsed::Header { source: source.map(|text| text.parse().unwrap()), length })
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, body].concat()
}

#[test]
fn lines_of_version_1() {
    let good = [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\n", Some("192.0.2.7:56324")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Some("0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::7 ::1 1 2\r\n", Some("[2001:db8::7]:1")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN whatever this is\r\n", None),
    ];
    for (line, source) in good {
        assert_eq!(parse(line.as_bytes()), header(source, line.len()), "{line:?}");
        let followed = format!("{line}\x10\x0e");
        assert_eq!(parse(followed.as_bytes()), header(source, line.len()), "{line:?}");
    }
    let ffff = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {ffff} {ffff} 65535 65535\r\n");
    assert_eq!(longest.len(), V1_BYTES_MAX);
    assert_eq!(parse(longest.as_bytes()), header(None, V1_BYTES_MAX));
}

#[test]
fn lines_that_are_none() {
    let bad = [
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883 7\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 56324 1883\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +56 1883\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 056 1883\r\n",
        "PROXY TCP4 192.0.2.007 198.51.100.1 56 1883\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\rx",
        "PROXY UDP4 192.0.2.7 198.51.100.1 56324 1883\r\n",
        "PROXY unknown x\r\n",
        "PROXY TCP4 \u{0661}.0.2.7 198.51.100.1 56324 1883\r\n",
        "PROXY \r\n",
    ];
    for line in bad {
        assert!(matches!(parse(line.as_bytes()), Err(ProxyError::Malformed(_))), "{line:?}");
    }
    assert!(matches!(parse(b"PROXY UNKNOWN \xff\r\n"), Err(ProxyError::Malformed(_))));
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    for length in [V1_BYTES_MAX - 1, V1_BYTES_MAX, endless.len()] {
        assert_eq!(parse(&endless.as_bytes()[..length]), Err(ProxyError::TooLong), "{length}");
    }
    for other in ["proxy TCP4", "GET / HTTP/1.1", "\x10\x0e\0\x04MQTT", "\r\nPROXY", "\x16\x03\x01"] {
        assert_eq!(parse(other.as_bytes()), Err(ProxyError::Missing), "{other:?}");
    }
}

#[test]
fn headers_of_version_2() {
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xDC, 0x04, 0x07, 0x5B];
    let mut six = [0; 36];
    six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    six[32..34].copy_from_slice(&[0x01, 0x02]);
    // PP2_TYPE_SSL with a common name: skipped.
    let named = [&four[..], &[0x20, 0, 8, 7, 0, 0, 0, 0, 0x22, 0, 0]].concat();
    let filled = [&four[..], &[4; V2_BYTES_MAX - V2_FIXED_BYTES - 12]].concat();
    let good: [(u8, u8, &[u8], Option<&str>); 9] = [
        (0x21, 0x11, &four, Some("192.0.2.7:56324")),
        (0x21, 0x11, &named, Some("192.0.2.7:56324")),
        (0x21, 0x11, &filled, Some("192.0.2.7:56324")),
        (0x21, 0x21, &six, Some("[2001:db8::7]:258")),
        (0x21, 0x31, &[0; 216], None),
        (0x21, 0x00, &[], None),
        (0x20, 0x00, &[], None),
        (0x20, 0x11, &four, None),
        (0x20, 0xFF, &[1, 2, 3], None),
    ];
    for (command, family, body, source) in good {
        let bytes = v2(command, family, body);
        assert_eq!(parse(&bytes), header(source, bytes.len()), "{command:x} {family:x}");
        let followed = [&bytes[..], b"\x10\x0e"].concat();
        assert_eq!(parse(&followed), header(source, bytes.len()), "{command:x} {family:x}");
    }
}

#[test]
fn headers_of_version_2_that_are_none() {
    let bad: [(u8, u8, usize); 10] = [
        (0x11, 0x11, 12),
        (0x31, 0x11, 12),
        (0x22, 0x11, 12),
        (0x21, 0x12, 12),
        (0x21, 0x22, 36),
        (0x21, 0x32, 216),
        (0x21, 0x41, 36),
        (0x21, 0x11, 11),
        (0x21, 0x21, 35),
        (0x21, 0x31, 215),
    ];
    for (command, family, body) in bad {
        let bytes = v2(command, family, &vec![0; body]);
        // Told by its first bytes, not after a wait for the rest.
        let found = parse(&bytes[..V2_FIXED_BYTES]);
        assert!(matches!(found, Err(ProxyError::Malformed(_))), "{command:x} {family:x} {body}");
    }
    let long = v2(0x20, 0x00, &[0; V2_BYTES_MAX - V2_FIXED_BYTES + 1]);
    assert_eq!(parse(&long[..V2_FIXED_BYTES]), Err(ProxyError::TooLong));
}

/// A header and its source.
fn any_header() -> impl Strategy<Value = (Vec<u8>, Option<SocketAddr>)> {
    let ends = prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ];
    let tlvs = proptest::collection::vec(any::<u8>(), 0..400);
    (ends, any::<(u16, u16)>(), tlvs, 0..4).prop_map(|((from, to), ports, tlvs, form)| {
        let source = SocketAddr::new(from, ports.0);
        match (form, from, to) {
            (0, ..) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let line = format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1);
                (line.into_bytes(), Some(source))
            }
            (1, ..) => (v2(0x20, 0x11, &tlvs), None),
            (_, IpAddr::V4(from), IpAddr::V4(to)) => {
                let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                (v2(0x21, 0x11, &[&from.octets()[..], &to.octets(), &ports, &tlvs].concat()), Some(source))
            }
            (_, IpAddr::V6(from), IpAddr::V6(to)) => {
                let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                (v2(0x21, 0x21, &[&from.octets()[..], &to.octets(), &ports, &tlvs].concat()), Some(source))
            }
            _ => unreachable!("both ends are of one family"),
        }
    })
}

proptest! {
    /// What was written is read, and no beginning of it asks for a byte behind its end.
    #[test]
    fn headers_are_read_back((bytes, source) in any_header(), behind in proptest::collection::vec(any::<u8>(), 0..20)) {
        let whole = Ok(Parsed::Header { source, length: bytes.len() });
        prop_assert_eq!(parse(&bytes), whole);
        for end in 0..bytes.len() {
            match parse(&bytes[..end]) {
                Ok(Parsed::NeedMore(missing)) => prop_assert!(missing > 0 && end + missing <= bytes.len()),
                other => prop_assert!(false, "{end}: {other:?}"),
            }
        }
        let followed = [bytes.clone(), behind].concat();
        prop_assert_eq!(parse(&followed), Ok(Parsed::Header { source, length: bytes.len() }));
    }

    #[test]
    fn no_bytes_panic_or_ask_for_more_than_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..600), form in 0usize..3) {
        let start: &[u8] = [&b""[..], V1_START, &V2_SIGNATURE][form];
        let bytes = [start, &bytes].concat();
        match parse(&bytes) {
            Ok(Parsed::Header { length, .. }) => prop_assert!(length <= bytes.len() && length <= V2_BYTES_MAX),
            Ok(Parsed::NeedMore(missing)) => prop_assert!(missing > 0 && bytes.len() + missing <= V2_BYTES_MAX),
            Err(_) => {}
        }
    }
}

#[tokio::test]
async fn nothing_behind_the_header_is_read() {
    let mut stream = &b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\nrest"[..];
    assert_eq!(read_header(&mut stream).await.unwrap(), Some("192.0.2.7:56324".parse().unwrap()));
    assert_eq!(stream, b"rest");
    let bytes = [v2(0x20, 0, &[]), b"rest".to_vec()].concat();
    let mut stream = &bytes[..];
    assert_eq!(read_header(&mut stream).await.unwrap(), None);
    assert_eq!(stream, b"rest");
    let ended = read_header(&mut &b"PROXY TCP4 1"[..]).await;
    assert!(matches!(ended, Err(HandshakeError::Io(_))));
    let other = read_header(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).await;
    assert!(matches!(other, Err(HandshakeError::Proxy(ProxyError::Missing))));
}
