use crate::trust::identity::Role;

use super::*;

const WEEK: u64 = 7 * 24 * 3600;

fn roles(book: &Book) -> Vec<(u8, Role, Option<u64>)> {
    let pins = &book.link("B").unwrap().fingerprints;
    pins.iter().map(|pin| (pin.sha256.0[0], pin.role, pin.until)).collect()
}

#[test]
fn a_peer_changes_its_certificate_without_a_gap() {
    let (a, mut book) = linked();
    let until = NOW + WEEK;
    let event = book.rotate_begin(&a.own(), "B", &leaf(20), until, NOW).unwrap();
    assert_eq!(
        (event.what, event.fingerprint),
        (Happened::CertificateAnnounced, Some(Fingerprint([20; 32])))
    );
    assert_eq!(book.link("B").unwrap().shown_state(), State::Rotating);
    assert_eq!(book.peers_pins("B", NOW), [[2; 32], [20; 32]]);
    assert_eq!(book.peers(NOW)[0].cert_sha256.len(), 2);
    assert_eq!(
        book.next_change(NOW + MINUTES_15 + 1 + REMEMBERED_SECONDS),
        Some(NOW + MINUTES_15 + 1 + REMEMBERED_SECONDS)
    );
    assert_eq!(book.seen(Fingerprint([2; 32]), SOURCE, NOW), Seen::Known { store: true });
    let Seen::Rotated(event) = book.seen(Fingerprint([20; 32]), SOURCE, NOW + 60) else {
        panic!("it is the next one")
    };
    assert_eq!(event.what, Happened::CertificateChange(Fingerprint([2; 32])));
    assert_eq!(roles(&book), [(2, Role::Previous, Some(until)), (20, Role::Current, None)]);
    assert_eq!(book.link("B").unwrap().shown_state(), State::Active);
    assert_eq!(book.peers_pins("B", until).len(), 2, "a node that still has the old one comes in");
    assert!(
        book.by_fingerprint(&[2; 32], until).is_some() && book.by_fingerprint(&[2; 32], until + 1).is_none()
    );
    assert_eq!(book.peers_pins("B", until + 1), [[20; 32]]);
    let events = book.expire(until + 1);
    assert_eq!(events[0].what, Happened::CertificateRetired(Fingerprint([2; 32])));
    assert_eq!(roles(&book), [(20, Role::Current, None)]);
    assert_eq!(book.next_change(until + 2), None);
}

#[test]
fn a_certificate_that_was_never_seen_takes_over_at_the_end() {
    let (a, mut book) = linked();
    let until = NOW + WEEK;
    book.rotate_begin(&a.own(), "B", &leaf(20), until, NOW).unwrap();
    assert_eq!(book.peers_pins("B", until + 1), [[20; 32]], "before anything is tidied up");
    assert!(book.expire(until).is_empty());
    let events = book.expire(until + 1);
    assert_eq!(events[0].what, Happened::CertificateChange(Fingerprint([2; 32])));
    assert_eq!(roles(&book), [(20, Role::Current, None)]);
}

#[test]
fn a_stolen_key_is_replaced_without_an_overlap() {
    let (a, mut book) = linked();
    book.rotate_begin(&a.own(), "B", &leaf(20), NOW, NOW).unwrap();
    assert!(book.by_fingerprint(&[2; 32], NOW + 1).is_none());
    assert!(matches!(book.seen(Fingerprint([20; 32]), SOURCE, NOW + 1), Seen::Rotated(_)));
    assert_eq!(roles(&book), [(20, Role::Current, None)]);
    assert_eq!(book.seen(Fingerprint([2; 32]), SOURCE, NOW + 1), Seen::Unknown);
}

#[test]
fn there_are_never_more_than_three_certificates() {
    let (a, mut book) = linked();
    let mut now = NOW;
    for byte in 20..60 {
        now += 60;
        book.rotate_begin(&a.own(), "B", &leaf(byte), now + WEEK, now).unwrap();
        assert!(roles(&book).len() <= 3);
        Book::from_json(&book.to_json()).unwrap();
        if byte % 3 != 0 {
            assert!(matches!(book.seen(Fingerprint([byte; 32]), SOURCE, now), Seen::Rotated(_)));
            assert_eq!(book.peers_pins("B", now).len(), 2);
        }
    }
    // Back to the one before.
    let previous = roles(&book).iter().find(|(_, role, _)| *role == Role::Previous).unwrap().0;
    book.rotate_begin(&a.own(), "B", &leaf(previous), now + WEEK, now).unwrap();
    assert_eq!(roles(&book).len(), 2);
}

#[test]
fn what_is_announced_is_checked_as_a_first_certificate() {
    let (a, mut book) = linked();
    let own = a.own();
    let c = cluster("C", 3);
    let token = token_for(&mut book, &own, "C");
    accepted(book.redeem(&own, &c.asks(&token), &c.leaf(), SOURCE, NOW));
    let weak = Leaf { fit: Err(CertificateError::WeakSignature), ..leaf(20) };
    let cases = [
        ("B", leaf(1), NOW, 5),
        ("B", leaf(3), NOW, 5),
        ("B", leaf(2), NOW, 5),
        ("B", weak, NOW, 2),
        ("B", Leaf { not_before: NOW + 1, ..leaf(20) }, NOW, 2),
        ("B", leaf(20), NOW + OVERLAP_SECONDS_MAX + 1, 2),
        ("D", leaf(20), NOW, 4),
    ];
    for (name, next, until, exit_code) in cases {
        let error = refused(&mut book, |book| book.rotate_begin(&own, name, &next, until, NOW));
        assert_eq!(error.exit_code(), exit_code, "{error}");
    }
    book.revoke(Kind::Link, "B", "ada").unwrap();
    assert_eq!(refused(&mut book, |book| book.rotate_begin(&own, "B", &leaf(20), NOW, NOW)).exit_code(), 5);
}

#[test]
fn who_was_seen_is_stored_now_and_then() {
    let (_, mut book) = linked();
    let shown = Fingerprint([2; 32]);
    assert_eq!(book.seen(shown, SOURCE, NOW), Seen::Known { store: true });
    assert_eq!(book.seen(shown, "[2001:db8::1]:5", NOW + 299), Seen::Known { store: false });
    let one = book.link("B").unwrap();
    assert_eq!((one.last_seen, one.last_addr.as_deref()), (Some(NOW + 299), Some("[2001:db8::1]:5")));
    assert_eq!(book.seen(shown, SOURCE, NOW + 599), Seen::Known { store: true });
    assert_eq!(book.seen(Fingerprint([9; 32]), SOURCE, NOW), Seen::Unknown);
    book.revoke(Kind::Link, "B", "ada").unwrap();
    assert_eq!(book.seen(shown, SOURCE, NOW), Seen::Unknown);
}
