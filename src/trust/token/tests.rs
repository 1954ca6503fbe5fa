use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::*;

fn token() -> Token {
    Token {
        id: Uuid::from_random([7; 16]),
        cluster: "A".to_owned(),
        issued_for: "B".to_owned(),
        fingerprint: Fingerprint([0xab; 32]),
        addrs: address::parse_all(&["a.example.net:8883", "[::1]:8884"], false).unwrap(),
        secret: Secret::new([0x5a; 32]),
        expires: 1_767_323_045,
        unidirectional: false,
    }
}

fn fields() -> Value {
    let text = token().encode().unwrap();
    let json = Base64UrlUnpadded::decode_vec(text.strip_prefix(PREFIX).unwrap()).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn coded(json: &str) -> String {
    format!("{PREFIX}{}", Base64UrlUnpadded::encode_string(json.as_bytes()))
}

fn with(key: &str, value: Value) -> String {
    let mut fields = fields();
    fields[key] = value;
    coded(&fields.to_string())
}

#[test]
fn a_token_is_what_the_specification_shows() {
    let text = token().encode().unwrap();
    assert!(text.starts_with("tmb1.") && !text.contains('='));
    let secret = token().secret.text().to_string();
    let expected = json!({
        "v": 1, "typ": "link", "id": "07070707-0707-4707-8707-070707070707", "cluster": "A", "for": "B",
        "fpr": format!("sha256:{}", "ab".repeat(32)), "addrs": ["a.example.net:8883", "[::1]:8884"],
        "sec": secret, "exp": "2026-01-02T03:04:05Z", "alpn": "tombolo-enroll/1",
    });
    assert_eq!(fields(), expected);
    assert_eq!(Token::parse(&text), Ok(token()));
    assert_eq!(Token::parse(&format!(" {}\n", *text)), Ok(token()));
    assert!(!format!("{:?} {}", token(), token()).contains(&secret));
    assert!(!token().is_expired(1_767_323_045) && token().is_expired(1_767_323_046));
}

#[test]
fn unknown_fields_are_ignored_and_unknown_versions_are_not() {
    assert_eq!(Token::parse(&with("later", json!({"x": [1]}))), Ok(token()));
    assert_eq!(Token::parse(&with("v", json!(2))), Err(TokenError::Version(2)));
    // Whatever else a later version may say.
    assert_eq!(Token::parse(&coded(r#"{"v":3}"#)), Err(TokenError::Version(3)));
    for v in [json!("1"), json!(-1), json!(1.5), json!(null)] {
        assert_eq!(Token::parse(&with("v", v)), Err(TokenError::Json));
    }
}

#[test]
fn every_field_has_bounds() {
    let long = "x".repeat(64);
    let cases = [
        ("typ", json!("client"), TokenError::Type),
        ("id", json!("07070707"), TokenError::Field("id")),
        ("cluster", json!("A/B"), TokenError::Field("cluster")),
        ("cluster", json!(""), TokenError::Field("cluster")),
        ("for", json!(long), TokenError::Field("for")),
        ("for", json!("$b"), TokenError::Field("for")),
        ("fpr", json!("ab".repeat(32)), TokenError::Field("fpr")),
        ("fpr", json!(format!("sha256:{}", "AB".repeat(32))), TokenError::Field("fpr")),
        ("addrs", json!([]), TokenError::Field("addrs")),
        ("addrs", json!(["a:1"].repeat(17)), TokenError::Field("addrs")),
        ("addrs", json!(["a"]), TokenError::Field("addrs")),
        ("addrs", json!("a:1"), TokenError::Json),
        ("sec", json!("a".repeat(42)), TokenError::Field("sec")),
        ("sec", json!("=".repeat(43)), TokenError::Field("sec")),
        ("sec", json!(null), TokenError::Json),
        ("exp", json!("2026-01-02T03:04:05+00:00"), TokenError::Field("exp")),
        ("exp", json!("soon"), TokenError::Field("exp")),
        ("exp", json!(1_767_323_045), TokenError::Json),
        ("alpn", json!("tombolo-enroll/2"), TokenError::Field("alpn")),
        ("alpn", json!("mqtt"), TokenError::Field("alpn")),
    ];
    for (key, value, error) in cases {
        assert_eq!(Token::parse(&with(key, value.clone())), Err(error), "{key} {value}");
    }
    for key in ["v", "typ", "id", "cluster", "for", "fpr", "addrs", "sec", "exp", "alpn"] {
        let mut fields = fields();
        fields.as_object_mut().unwrap().remove(key);
        assert_eq!(Token::parse(&coded(&fields.to_string())), Err(TokenError::Json), "without {key}");
    }
}

#[test]
fn what_is_no_token_is_told_apart() {
    let text = token().encode().unwrap();
    let cases = [
        (String::new(), TokenError::Prefix),
        ("tmb2.e30".to_owned(), TokenError::Prefix),
        (text[1..].to_owned(), TokenError::Prefix),
        (format!("{}=", *text), TokenError::Encoding),
        (format!("{}!", *text), TokenError::Encoding),
        (format!("{PREFIX}{}", "A".repeat(2_048)), TokenError::TooLong),
        (PREFIX.to_owned(), TokenError::Json),
        (coded("[]"), TokenError::Json),
        (coded("{}"), TokenError::Json),
        (coded(r#"{"v":1}"#), TokenError::Json),
        (coded(r#"{"v":1,"v":1}"#), TokenError::Json),
    ];
    for (text, error) in cases {
        assert_eq!(Token::parse(&text), Err(error), "{text}");
    }
    // Cut off anywhere, it is none.
    for end in 0..text.len() {
        assert!(Token::parse(&text[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_token_with_too_many_long_addresses_is_not_written() {
    let long = format!("{}:8883", "x".repeat(253));
    let addrs = address::parse_all(&vec![long; 16], false).unwrap();
    assert_eq!(Token { addrs, ..token() }.encode(), Err(TokenError::TooLong));
    let many = address::parse_all(&vec!["broker-01.example.net:8883"; 16], false).unwrap();
    let name = "x".repeat(63);
    let token = Token { addrs: many, cluster: name.clone(), issued_for: name, ..token() };
    assert_eq!(Token::parse(&token.encode().unwrap()), Ok(token));
}

prop_compose! {
    fn any_token()(
        id in any::<[u8; 16]>(), secret in any::<[u8; 32]>(), fingerprint in any::<[u8; 32]>(),
        cluster in "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", issued_for in "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
        addrs in prop::collection::vec(("[a-z0-9.-]{1,12}", 1_u16..), 1..=16), expires in 0_u64..253_402_300_799,
        unidirectional in any::<bool>(),
    ) -> Token {
        let addrs = addrs.into_iter().map(|(host, port)| ServerAddr { host, port }).collect();
        Token {
            id: Uuid::from_random(id),
            secret: Secret::new(secret),
            fingerprint: Fingerprint(fingerprint),
            cluster, issued_for, addrs, expires, unidirectional,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(token in any_token()) {
        prop_assert_eq!(Token::parse(&token.encode().unwrap()), Ok(token));
    }

    /// One character changed: no token, or another one.
    #[test]
    fn a_changed_token_is_not_the_same(at in 5_usize..400, to in "[A-Za-z0-9_-]") {
        let text = token().encode().unwrap();
        let at = 5 + at % (text.len() - 5);
        let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
        if changed != *text {
            prop_assert_ne!(Token::parse(&changed), Ok(token()));
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,200}", json in r#"\{("[a-z]{1,5}":("[a-z]{0,9}"|[0-9]{1,9}|\[\]),?){0,4}\}"#) {
        let _ = (Token::parse(&text), Token::parse(&format!("{PREFIX}{text}")), Token::parse(&coded(&json)));
    }
}
