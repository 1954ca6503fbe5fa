use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use crate::trust::Fingerprint;

use super::*;

fn request() -> Request {
    Request {
        id: Uuid::from_random([7; 16]),
        secret: Secret::new([0x5a; 32]),
        cluster: "B".to_owned(),
        peer: "A".to_owned(),
        prefix: "clink-B-".to_owned(),
        addrs: address::parse_all(&["b:8883", "[::1]:1"], false).unwrap(),
        caps: vec!["bootstrap_end".to_owned(), "tls1.3".to_owned()],
        nonce: Nonce([0x0c; 16]),
    }
}

fn accepted() -> Accepted {
    Accepted {
        cluster: "A".to_owned(),
        prefix: "clink-A-".to_owned(),
        addrs: address::parse_all(&["a:8883"], false).unwrap(),
        caps: vec!["rotate".to_owned()],
        time: 1_767_323_045,
        nonce: Nonce([0x0c; 16]),
        pending_approval: false,
    }
}

fn with(key: &str, value: Value) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(&request().encode()).unwrap();
    json["enroll"][key] = value;
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn a_request_is_what_the_specification_shows() {
    let json: Value = serde_json::from_slice(&request().encode()).unwrap();
    let expected = json!({"enroll": {
        "v": 1, "id": "07070707-0707-4707-8707-070707070707", "sec": *request().secret.text(), "cluster": "B",
        "peer": "A", "prefix": "clink-B-", "addrs": ["b:8883", "[::1]:1"], "caps": ["bootstrap_end", "tls1.3"],
        "nonce": "0c".repeat(16),
    }});
    assert_eq!(json, expected);
    assert_eq!(Request::parse(&request().encode()), Ok(request()));
    assert!(!format!("{:?}", request()).contains(&*request().secret.text()));
}

#[test]
fn a_request_is_made_of_a_token() {
    let token = Token {
        id: request().id,
        cluster: "A".to_owned(),
        issued_for: "B".to_owned(),
        fingerprint: Fingerprint([1; 32]),
        addrs: Vec::new(),
        secret: request().secret,
        expires: 0,
        unidirectional: false,
    };
    let made = Request::of(&token, "clink-B-", &request().addrs, &request().caps, [0x0c; 16]);
    assert_eq!(made, request());
}

#[test]
fn a_request_has_bounds_and_a_version() {
    let error = |key: &str, value: Value| Request::parse(&with(key, value)).unwrap_err();
    assert_eq!(Request::parse(&with("later", json!(1))), Ok(request()));
    assert_eq!(error("v", json!(2)), ReadError::Version(2));
    assert_eq!(Request::parse(br#"{"enroll":{"v":7}}"#), Err(ReadError::Version(7)));
    assert_eq!(error("v", json!("1")), ReadError::Json);
    let cases = [
        ("id", json!("7")),
        ("sec", json!("x")),
        ("cluster", json!("B/C")),
        ("peer", json!("")),
        ("prefix", json!("a/")),
        ("prefix", json!("")),
        ("addrs", json!(["b"])),
        ("addrs", json!(["b:1"].repeat(17))),
        ("caps", json!([""])),
        ("caps", json!(["a b"])),
        ("caps", json!(["x".repeat(65)])),
        ("caps", json!(["x"].repeat(33))),
        ("nonce", json!("0c".repeat(15))),
        ("nonce", json!(format!("+{}", "c".repeat(31)))),
        ("nonce", json!("0C".repeat(16))),
    ];
    for (key, value) in cases {
        assert_eq!(error(key, value.clone()), ReadError::Field(key), "{value}");
    }
    for key in ["id", "sec", "cluster", "peer", "prefix", "addrs", "caps", "nonce"] {
        assert_eq!(error(key, json!(null)), ReadError::Json, "{key}");
    }
    for bytes in [&b""[..], b"{}", b"[]", b"{\"ok\":{}}", b"\xff", b"MQTT"] {
        assert_eq!(Request::parse(bytes), Err(ReadError::Json));
    }
    assert_eq!(Request::parse(&vec![b' '; REQUEST_BYTES_MAX + 1]), Err(ReadError::TooLong));
    let deep = "[".repeat(REQUEST_BYTES_MAX);
    assert_eq!(Request::parse(deep.as_bytes()), Err(ReadError::Json));
}

#[test]
fn the_longest_request_and_answer_fit() {
    let host = |index: usize| ServerAddr { host: format!("{}{index:02}", "x".repeat(251)), port: 65_535 };
    let request = Request {
        cluster: "x".repeat(63),
        peer: "y".repeat(63),
        prefix: "z".repeat(128),
        addrs: (0..16).map(host).collect(),
        caps: vec!["c".repeat(64); 32],
        ..request()
    };
    assert_eq!(Request::parse(&request.encode()), Ok(request.clone()));
    let accepted = Accepted {
        cluster: request.cluster,
        prefix: request.prefix,
        addrs: request.addrs,
        caps: request.caps,
        ..accepted()
    };
    assert_eq!(Answer::parse(&Answer::Ok(accepted.clone()).encode()), Ok(Answer::Ok(accepted)));
}

#[test]
fn answers_are_read_as_they_are_written() {
    let json: Value = serde_json::from_slice(&Answer::Ok(accepted()).encode()).unwrap();
    let expected = json!({"ok": {
        "cluster": "A", "prefix": "clink-A-", "addrs": ["a:8883"], "caps": ["rotate"], "time": "2026-01-02T03:04:05Z",
        "nonce": "0c".repeat(16),
    }});
    assert_eq!(json, expected);
    let later = Accepted { pending_approval: true, ..accepted() };
    let refusals = [Code::Busy, Code::CertRejected(Rejected::Ours), Code::Other("moon_phase".to_owned())];
    let refusals = refusals.map(|code| Answer::error(code, "why"));
    for answer in [Answer::Ok(accepted()), Answer::Ok(later)].into_iter().chain(refusals) {
        assert_eq!(Answer::parse(&answer.encode()), Ok(answer));
    }
    let error = json!({"error": {"code": "used", "text": format!("\u{1b}[2J{}", "x".repeat(600))}});
    let Ok(Answer::Error { code: Code::Used, text }) = Answer::parse(error.to_string().as_bytes()) else {
        panic!("a refusal");
    };
    assert!(!text.contains('\u{1b}') && text.chars().count() == TEXT_CHARS_MAX);
    for text in [
        "",
        "{}",
        "[]",
        r#"{"ok":{}}"#,
        r#"{"error":{"code":"used"}}"#,
        r#"{"later":{}}"#,
        r#"{"ok":{},"error":{"code":"used","text":""}}"#,
    ] {
        assert_eq!(Answer::parse(text.as_bytes()), Err(ReadError::Json), "{text}");
    }
    let code = br#"{"error":{"code":"NO WAY","text":""}}"#;
    assert_eq!(Answer::parse(code), Err(ReadError::Field("code")));
    assert_eq!(Answer::parse(&[b' '; ANSWER_BYTES_MAX + 1]), Err(ReadError::TooLong));
}

#[test]
fn who_cannot_be_read_learns_nothing_but_the_version() {
    let unknown = Answer::error(Code::UnknownToken, Code::UnknownToken.meaning());
    for error in [ReadError::TooLong, ReadError::Json, ReadError::Field("sec")] {
        assert_eq!(Answer::unreadable(error), unknown);
    }
    assert!(matches!(
        Answer::unreadable(ReadError::Version(2)),
        Answer::Error { code: Code::BadVersion, .. }
    ));
}

#[test]
fn clocks_that_differ_are_told_of() {
    let time = accepted().time;
    assert_eq!((accepted().skew(time + 120), accepted().skew(time - 120)), (None, None));
    let behind = accepted().skew(time + 121).unwrap();
    let (theirs, ours) = (rfc3339::format(time), rfc3339::format(time + 121));
    let told = format!(
        "by the clock of A it is {theirs}, by this cluster's {ours}: it is 121 s behind; set one of them"
    );
    assert_eq!(behind, told);
    assert!(accepted().skew(time - 121).unwrap().contains("121 s ahead"));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"\{"(ok|error|enroll)":.{0,80}"#) {
        for bytes in [&bytes[..], text.as_bytes()] {
            let _ = (Request::parse(bytes), Answer::parse(bytes));
        }
    }

    #[test]
    fn any_request_is_read_as_it_is_written(
        id in any::<[u8; 16]>(), secret in any::<[u8; 32]>(), nonce in any::<[u8; 16]>(),
        cluster in "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", prefix in "[A-Za-z0-9][A-Za-z0-9_.-]{0,127}",
        caps in prop::collection::vec("[a-z0-9_.-]{1,64}", 0..32),
    ) {
        let request = Request {
            id: Uuid::from_random(id), secret: Secret::new(secret), nonce: Nonce(nonce), cluster, prefix, caps, ..request()
        };
        prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
    }
}
