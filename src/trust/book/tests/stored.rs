use serde_json::Value;
use serde_json::json;

use crate::trust::group::Permission;

use super::*;

/// A book with something of everything.
fn full() -> Book {
    let (a, mut book) = linked();
    let own = a.own();
    token_for(&mut book, &own, "C");
    book.create_group("telemetry", "what plants measure").unwrap();
    book.add_permission("telemetry", Permission::parse(&["topic", "t/#", "can_import", "qos=1"]).unwrap())
        .unwrap();
    book.add_to_group(Kind::Link, "B", "telemetry").unwrap();
    book.rotate_begin(&own, "B", &leaf(20), NOW + 60, NOW).unwrap();
    let addrs = address::parse_all(&["d:8883"], false).unwrap();
    let (name, created_by) = ("D".to_owned(), "ada".to_owned());
    let pin = Outbound { name, fingerprint: Fingerprint([4; 32]), addrs, created: NOW, created_by };
    book.trust_outbound(&own, pin, false).unwrap();
    book
}

#[test]
fn what_is_written_is_read_and_written_the_same() {
    for book in [Book::default(), full()] {
        let text = book.to_json();
        let read = Book::from_json(&text).unwrap();
        assert_eq!(read, book);
        assert_eq!(read.to_json(), text);
    }
    assert_eq!(
        Book::default().to_json(),
        "{\n  \"version\": 1,\n  \"identities\": [],\n  \"tokens\": [],\n  \"groups\": {},\n  \"outbound\": []\n}\n"
    );
    assert_eq!(Book::from_json("{\"version\":1}"), Ok(Book::default()));
}

#[test]
fn the_text_is_the_same_in_every_version_of_this_program() {
    let (a, mut book) = (cluster("A", 1), Book::default());
    token_for(&mut book, &a.own(), "B");
    let expected = json!({
        "version": 1,
        "identities": [{
            "id": "42424242-4242-4242-8242-424242424242", "kind": "link", "state": "pending", "name": "B",
            "prefix": "clink-B-", "fingerprints": [], "groups": ["link-peer"], "created": "2026-01-02T03:04:05Z",
            "created_by": "ada",
        }],
        "tokens": [{
            "id": "42424242-4242-4242-8242-424242424242", "identity": "42424242-4242-4242-8242-424242424242",
            "for": "B", "secret_sha256": crate::trust::Secret::new([0x42; 32]).hash().text(),
            "expires": "2026-01-02T03:19:05Z", "attempts": 0, "issuer": "ada", "groups": ["link-peer"],
            "prefix": "clink-B-", "approve": false, "state": {"is": "issued"},
        }],
        "groups": {},
        "outbound": [],
    });
    assert_eq!(serde_json::from_str::<Value>(&book.to_json()).unwrap(), expected);
}

#[test]
fn a_file_of_a_later_version_is_refused_and_said_why() {
    let error = Book::from_json(r#"{"version":2,"everything":"else"}"#).unwrap_err();
    assert_eq!(error, BookError::Newer(2));
    assert!(error.to_string().contains("later version") && error.to_string().contains("update"));
    assert!(matches!(Book::from_json(r#"{"version":0}"#), Err(BookError::Invalid(_))));
    for text in ["", "{}", "[]", r#"{"version":"1"}"#, r#"{"version":1,"more":1}"#, r#"{"version":1"#] {
        assert!(matches!(Book::from_json(text), Err(BookError::Json(_))), "{text}");
    }
}

#[test]
fn what_was_changed_by_hand_is_checked() {
    let good: Value = serde_json::from_str(&full().to_json()).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        Book::from_json(&json.to_string())
    };
    assert!(changed(&|_| {}).is_ok());
    let b = good["identities"].as_array().unwrap().iter().position(|one| one["name"] == "B").unwrap();
    let c = 1 - b;
    type Change = Box<dyn Fn(&mut Value)>;
    let set = |path: &str, value: Value| -> Change {
        let path = path.replace("{b}", &b.to_string()).replace("{c}", &c.to_string());
        Box::new(move |json| *json.pointer_mut(&path).unwrap() = value.clone())
    };
    let twice = |path: &'static str| -> Change {
        Box::new(move |json| {
            let list = json.pointer_mut(path).unwrap().as_array_mut().unwrap();
            list.push(list[0].clone());
        })
    };
    let changes: Vec<(&str, Change)> = vec![
        ("a name that is none", set("/identities/{b}/name", json!("B/C"))),
        ("two of one name", set("/identities/{c}/name", json!("B"))),
        ("one prefix for two", set("/identities/{c}/prefix", json!("CLINK-b-"))),
        ("no prefix", set("/identities/{b}/prefix", json!(""))),
        ("a group that is none", set("/identities/{b}/groups", json!(["nobody"]))),
        ("active without a certificate", set("/identities/{b}/fingerprints", json!([]))),
        ("pending with one", set("/identities/{b}/state", json!("pending"))),
        ("two current ones", set("/identities/{b}/fingerprints/1/role", json!("current"))),
        ("a next one without an end", set("/identities/{b}/fingerprints/1/until", json!(null))),
        (
            "a fingerprint in capitals",
            set("/identities/{b}/fingerprints/0/sha256", json!("sha256:".to_owned() + &"AB".repeat(32))),
        ),
        ("a certificate twice", set("/identities/{b}/fingerprints/1/sha256", json!(Fingerprint([2; 32])))),
        ("a line break", set("/identities/{b}/created_by", json!("a\nb"))),
        ("a state that is none", set("/identities/{b}/state", json!("rotating"))),
        ("another field", set("/identities/{b}", json!({"admin": true}))),
        ("an identity twice", twice("/identities")),
        ("a token twice", twice("/tokens")),
        ("a token for nobody", set("/tokens/0/for", json!(""))),
        ("a hash that is none", set("/tokens/0/secret_sha256", json!("00"))),
        ("too many attempts", set("/tokens/0/attempts", json!(256))),
        ("a permission that is none", set("/groups/telemetry/permissions/0/name", json!("$SYS/#"))),
        ("the group that is built in", set("/groups", json!({"link-peer": {"permissions": []}}))),
        ("a pin twice", twice("/outbound")),
        ("a pin without an address", set("/outbound/0/addrs", json!([]))),
        ("a moment that is none", set("/outbound/0/created", json!("yesterday"))),
    ];
    for (what, change) in changes {
        assert!(changed(&*change).is_err(), "{what}");
    }
}

#[test]
fn a_file_is_bounded() {
    let many = |key: &str, count: usize, one: &str| {
        let list = vec![one; count].join(",");
        Book::from_json(&format!(r#"{{"version":1,"{key}":[{list}]}}"#)).unwrap_err().to_string()
    };
    let pin = serde_json::to_string(&full().outbound().next().unwrap()).unwrap();
    assert!(many("outbound", OUTBOUND_MAX + 1, &pin).contains("at most 1000"));
    let token = serde_json::to_string(&full().tokens().next().unwrap()).unwrap();
    assert!(many("tokens", TOKENS_MAX + 1, &token).contains("at most 1000"));
    let one = serde_json::to_string(&full().link("B").unwrap()).unwrap();
    assert!(many("identities", IDENTITIES_MAX + 1, &one).contains("at most 10000"));
}
