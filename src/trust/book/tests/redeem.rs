use crate::trust::Secret;
use crate::trust::enroll::Nonce;
use crate::trust::enroll::Rejected;

use super::*;

fn issued() -> (Cluster, Cluster, Book, Token) {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    (a, b, book, token)
}

#[test]
fn a_token_makes_its_holder_a_peer() {
    let (a, b, mut book, token) = issued();
    let redeemed = book.redeem_bytes(&a.own(), &b.asks(&token).encode(), b"no certificate", SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::CertRejected(Rejected::Unreadable)));
    let redeemed = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW + 5);
    assert!(redeemed.changed);
    let event = &redeemed.events[0];
    assert_eq!((event.what.clone(), event.source.as_deref()), (Happened::Activated, Some(SOURCE)));
    assert_eq!(event.fingerprint, Some(b.leaf().sha256));
    assert!(
        event.text.starts_with("activated from 192.0.2.7:4711, fingerprint sha256:0202"),
        "{}",
        event.text
    );
    let peer = redeemed.peer.clone().unwrap();
    assert_eq!(
        (peer.name.as_str(), peer.prefix.as_str(), &peer.addrs, &peer.caps),
        ("B", "clink-B-", &b.addrs, &b.caps)
    );
    assert_eq!(Some(&*peer), book.link("B"));
    let answer = accepted(redeemed);
    assert_eq!((answer.cluster.as_str(), answer.prefix.as_str(), answer.time), ("A", "clink-A-", NOW + 5));
    assert_eq!((answer.addrs, answer.caps, answer.nonce), (a.addrs.clone(), a.caps.clone(), Nonce([9; 16])));
    let one = book.link("B").unwrap();
    assert_eq!(
        (one.state, one.activated, one.activated_from.as_deref()),
        (State::Active, Some(NOW + 5), Some(SOURCE))
    );
    assert_eq!(one.fingerprints[0].not_after, Some(b.leaf().not_after));
    let rights = book.rights_of_link("B");
    assert!(
        rights.can_forward && rights.can_sync_routes && rights.import.is_empty() && rights.export.is_empty()
    );
    let peers = book.peers(NOW);
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].cluster.as_str(), &peers[0].cert_sha256[..]), ("B", &[[2; 32]][..]));
    assert_eq!((book.pins("B", NOW), book.by_fingerprint(&[2; 32], NOW)), (vec![[2; 32]], book.link("B")));
}

#[test]
fn an_answer_that_was_lost_is_given_again_to_the_same_certificate() {
    let (a, b, mut book, token) = issued();
    let first = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    // The issuer may have been killed behind the change.
    let mut book = Book::from_json(&book.to_json()).unwrap();
    for _ in 0..1_000 {
        let again = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
        assert_eq!((&again.answer, again.changed, again.events.len()), (&first.answer, false, 0));
        assert!(again.peer.is_some());
    }
    let late = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW + MINUTES_15 + 1);
    assert_eq!((code(&late), late.changed), (Some(Code::Used), false));
    let mut changed = b.asks(&token);
    changed.cluster = "C".to_owned();
    assert_eq!(code(&book.redeem(&a.own(), &changed, &b.leaf(), SOURCE, NOW)), Some(Code::Used));
    book.revoke(Kind::Link, "B", "ada").unwrap();
    let gone = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert_eq!((code(&gone), gone.changed), (Some(Code::Used), false), "trust was taken back");
}

#[test]
fn of_many_who_come_with_one_token_one_wins() {
    let (a, b, mut book, token) = issued();
    let mut winners = Vec::new();
    for byte in 10..210 {
        let redeemed = book.redeem(&a.own(), &b.asks(&token), &leaf(byte), SOURCE, NOW);
        match code(&redeemed) {
            None => winners.push(byte),
            Some(code) => {
                assert_eq!(code, Code::Used);
                let event = &redeemed.events[0];
                assert_eq!(
                    (&event.what, event.fingerprint),
                    (&Happened::TokenReuse, Some(leaf(byte).sha256))
                );
                assert!(event.what.is_critical() && !redeemed.changed);
            }
        }
    }
    assert_eq!(winners, [10]);
    assert_eq!(book.peers_pins("B", NOW), [[10; 32]]);
}

#[test]
fn strangers_are_all_told_the_same() {
    let (a, b, book, token) = issued();
    let wrong = Secret::new([0; 32]);
    let wrong_secret = Request { secret: wrong.clone(), ..b.asks(&token) };
    let unknown_id = Request { id: Uuid::from_random([200; 16]), ..b.asks(&token) };
    let mut answers = Vec::new();
    let mut ask = |book: &mut Book, request: &Request, now| {
        answers.push(book.redeem(&a.own(), request, &b.leaf(), SOURCE, now).answer);
    };
    ask(&mut book.clone(), &unknown_id, NOW);
    ask(&mut book.clone(), &wrong_secret, NOW);
    ask(&mut book.clone(), &wrong_secret, NOW + MINUTES_15 + 1);
    ask(
        &mut book.clone(),
        &Request { cluster: "C".to_owned(), peer: "X".to_owned(), ..wrong_secret.clone() },
        NOW,
    );
    let mut used = book.clone();
    used.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    ask(&mut used, &wrong_secret, NOW);
    let mut revoked = book.clone();
    revoked.revoke_token(token.id).unwrap();
    ask(&mut revoked, &wrong_secret, NOW);
    let mut burnt = book.clone();
    (0..5).for_each(|_| ask(&mut burnt, &wrong_secret, NOW));
    ask(&mut burnt, &wrong_secret, NOW);
    for bytes in [&b""[..], b"{}", &b.asks(&token).encode()[1..], &[b' '; 20_000]] {
        answers.push(book.clone().redeem_bytes(&a.own(), bytes, b"", SOURCE, NOW).answer);
    }
    for answer in &answers {
        assert_eq!(answer, &Answer::error(Code::UnknownToken, Code::UnknownToken.meaning()));
    }
}

#[test]
fn five_wrong_secrets_burn_a_token() {
    let (a, b, mut book, token) = issued();
    let wrong = Request { secret: Secret::new([0; 32]), ..b.asks(&token) };
    for attempt in 1..=4 {
        let redeemed = book.redeem(&a.own(), &wrong, &b.leaf(), SOURCE, NOW);
        assert!(redeemed.changed, "an attempt has to be stored");
        assert_eq!((book.tokens().next().unwrap().attempts, redeemed.events.len()), (attempt, 1));
    }
    accepted(book.clone().redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW));
    let fifth = book.redeem(&a.own(), &wrong, &b.leaf(), SOURCE, NOW);
    assert!(fifth.events.iter().any(|event| event.what == Happened::TokenBurnt && event.what.is_critical()));
    assert_eq!(book.link("B").unwrap().state, State::Expired);
    assert!(!book.pending(NOW));
    assert_eq!(code(&book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW)), Some(Code::Used));
    assert!(!book.redeem(&a.own(), &wrong, &b.leaf(), SOURCE, NOW).changed, "there is nothing left to burn");
    issue(&mut book, &a.own(), &NewLink::named("B", "ada"), 77, NOW).unwrap();
}

#[test]
fn guesses_at_a_token_that_replaces_leave_the_link_as_it_is() {
    let (a, mut book) = linked();
    let new = NewLink { replace: true, ..NewLink::named("B", "ada") };
    let token = issue(&mut book, &a.own(), &new, 60, NOW).unwrap();
    let b = cluster("B", 20);
    let wrong = Request { secret: Secret::new([0; 32]), ..b.asks(&token) };
    for _ in 0..5 {
        book.redeem(&a.own(), &wrong, &b.leaf(), SOURCE, NOW);
    }
    assert!(book.link("B").unwrap().is_active());
    book.expire(NOW + MINUTES_15 + 1);
    assert!(book.link("B").unwrap().is_active());
}

#[test]
fn a_changed_field_is_refused_with_its_code() {
    let (a, b, book, token) = issued();
    let good = b.asks(&token);
    let cases = [
        (Request { cluster: "C".to_owned(), ..good.clone() }, Code::WrongPeerName),
        (Request { cluster: "b".to_owned(), ..good.clone() }, Code::WrongPeerName),
        (Request { peer: "C".to_owned(), ..good.clone() }, Code::NameMismatch),
        (Request { prefix: "clink-C-".to_owned(), ..good.clone() }, Code::PrefixConflict),
        (Request { prefix: "c".to_owned(), ..good.clone() }, Code::PrefixConflict),
        (Request { prefix: "clink-A-".to_owned(), ..good.clone() }, Code::PrefixConflict),
        (Request { id: Uuid::from_random([3; 16]), ..good.clone() }, Code::UnknownToken),
    ];
    for (request, expected) in cases {
        let mut tried = book.clone();
        let redeemed = tried.redeem(&a.own(), &request, &b.leaf(), SOURCE, NOW);
        assert_eq!(
            (code(&redeemed), redeemed.changed, redeemed.peer.is_some()),
            (Some(expected), false, false)
        );
        assert_eq!(redeemed.events[0].what.name(), "authn_login_fail:enroll");
        assert_eq!(tried, book);
    }
    // A request of a later version.
    let text = String::from_utf8(good.encode().to_vec()).unwrap().replace("\"v\":1", "\"v\":2");
    let redeemed = book.clone().redeem_bytes(&a.own(), text.as_bytes(), b"", SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::BadVersion));
}

#[test]
fn the_token_of_one_cluster_is_of_no_use_to_another() {
    let (a, _, mut book, token) = issued();
    let c = cluster("C", 3);
    let asks = Request { cluster: "C".to_owned(), prefix: c.prefix.clone(), ..c.asks(&token) };
    assert_eq!(code(&book.redeem(&a.own(), &asks, &c.leaf(), SOURCE, NOW)), Some(Code::WrongPeerName));
    let error = Book::default().check_join(&c.own(), &Join::of(&token, "eve")).unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "the token is for B, this is C"));
    let error = book.check_join(&a.own(), &Join::of(&token, "ada")).unwrap_err();
    assert_eq!(error.to_string(), "this is A: its own token is for B");
    // Nor does its issuer become its own peer.
    let asks = Request { cluster: "B".to_owned(), ..a.asks(&token) };
    let redeemed = book.redeem(&a.own(), &asks, &a.leaf(), SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::CertRejected(Rejected::Ours)));
}

#[test]
fn certificates_that_are_not_taken() {
    let (mut a, b, mut book, token) = issued();
    let dee = cluster("D", 4);
    let other = token_for(&mut book, &a.own(), "D");
    accepted(book.redeem(&a.own(), &dee.asks(&other), &dee.leaf(), SOURCE, NOW));
    book.revoke(Kind::Link, "D", "ada").unwrap();
    a.configured = vec![rule("E", Some(5))];
    let also = [Fingerprint([11; 32])];
    let own = Own { also: &also, ..a.own() };
    let good = leaf(2);
    let cases = [
        (leaf(1), Rejected::Ours),
        (leaf(11), Rejected::Ours),
        (leaf(4), Rejected::Bound),
        (leaf(5), Rejected::Bound),
        (Leaf { not_before: NOW + 1, ..good.clone() }, Rejected::NotYetValid),
        (Leaf { not_after: NOW - 1, ..good.clone() }, Rejected::Expired),
        (Leaf { fit: Err(CertificateError::WeakKey(3072)), ..good.clone() }, Rejected::Weak),
        (Leaf { fit: Err(CertificateError::WeakSignature), ..good.clone() }, Rejected::Weak),
        (
            Leaf { fit: Err(CertificateError::MissingUsage("serverAuth".to_owned())), ..good.clone() },
            Rejected::Usage,
        ),
        (Leaf { fit: Err(CertificateError::Authority), ..good.clone() }, Rejected::Usage),
    ];
    for (leaf, why) in cases {
        let before = book.clone();
        let redeemed = book.redeem(&own, &b.asks(&token), &leaf, SOURCE, NOW);
        assert_eq!(code(&redeemed), Some(Code::CertRejected(why)), "{leaf:?}");
        assert_eq!(book, before);
        let Answer::Error { text, .. } = redeemed.answer else { panic!("refused") };
        assert!(!text.contains(" D") && !text.contains(" E"), "other peers are nobody's business: {text}");
    }
    accepted(book.redeem(&own, &b.asks(&token), &good, SOURCE, NOW));
}

#[test]
fn a_certificate_that_is_expected_is_the_only_one() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let new = NewLink { expect_fingerprint: Some(leaf(2).sha256), ..NewLink::named("B", "ada") };
    let token = issue(&mut book, &a.own(), &new, 60, NOW).unwrap();
    let stolen = book.redeem(&a.own(), &b.asks(&token), &leaf(66), SOURCE, NOW);
    assert_eq!(code(&stolen), Some(Code::CertRejected(Rejected::Unexpected)));
    accepted(book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW));
    let ours = NewLink { expect_fingerprint: Some(leaf(1).sha256), ..NewLink::named("C", "ada") };
    assert_eq!(refused(&mut book, |book| issue(book, &a.own(), &ours, 61, NOW)).exit_code(), 5);
    let taken = NewLink { expect_fingerprint: Some(leaf(2).sha256), ..NewLink::named("C", "ada") };
    assert_eq!(refused(&mut book, |book| issue(book, &a.own(), &taken, 61, NOW)).exit_code(), 5);
}

#[test]
fn a_peer_that_has_to_be_approved_is_nobody_until_then() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let new = NewLink { approve: true, ..NewLink::named("B", "ada") };
    let token = issue(&mut book, &a.own(), &new, 60, NOW).unwrap();
    assert_eq!(refused(&mut book, |book| book.approve("B", "ada")).exit_code(), 5);
    let redeemed = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert_eq!(redeemed.events[0].what, Happened::AwaitsApproval);
    assert!(accepted(redeemed).pending_approval);
    let again = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert!(accepted(again).pending_approval);
    assert_eq!(book.link("B").unwrap().state.name(), "PENDING-APPROVAL");
    assert!(book.peers(NOW).is_empty() && book.by_fingerprint(&[2; 32], NOW).is_none());
    assert_eq!(book.rights_of_link("B"), Rights::default());
    book.expire(NOW + 10 * REMEMBERED_SECONDS);
    let event = book.approve("B", "ada").unwrap();
    assert_eq!((event.what, event.fingerprint), (Happened::Activated, Some(b.leaf().sha256)));
    assert_eq!(book.peers(NOW).len(), 1);
    assert_eq!(refused(&mut book, |book| book.approve("B", "ada")).exit_code(), 5);
    assert_eq!(refused(&mut book, |book| book.approve("C", "ada")).exit_code(), 4);
}

#[test]
fn what_has_changed_since_the_token_was_issued_counts() {
    let (mut a, b, book, token) = issued();
    a.configured = vec![rule("B", Some(7))];
    let redeemed = book.clone().redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::AlreadyLinked));
    a.configured = vec![PeerRule { clientid_prefix: "clink-B-".to_owned(), ..rule("X", Some(7)) }];
    let redeemed = book.clone().redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::PrefixConflict));
    assert_eq!(book.conflicts(&a.own()), ["the prefix clink-B- is that of X"]);
    a.configured.clear();
    let mut deleted = book.clone();
    deleted.delete_identity(Kind::Link, "B", "ada").unwrap();
    let redeemed = deleted.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::UnknownToken));
}
