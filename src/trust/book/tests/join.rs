use super::*;

/// A's token for B, and what A answers B.
fn answered() -> (Cluster, Cluster, Token, Request, Accepted) {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    let request = b.asks(&token);
    let answer = accepted(book.redeem(&a.own(), &request, &b.leaf(), SOURCE, NOW));
    (a, b, token, request, answer)
}

const AT: &str = "a.example.net:8883";

#[test]
fn the_issuer_becomes_a_peer_of_who_redeems() {
    let (a, b, token, request, answer) = answered();
    let mut book = Book::default();
    let join = Join {
        name: Some("A"),
        description: "plant 1",
        not_after: Some(NOW + 99),
        ..Join::of(&token, "bob")
    };
    book.check_join(&b.own(), &join).unwrap();
    assert_eq!(book, Book::default(), "nothing is kept before the answer");
    let joined = book.accept_peer(&b.own(), &join, (&request, &answer), AT, [3; 16], NOW).unwrap();
    assert!(joined.changed && joined.events[0].what == Happened::Activated);
    let one = book.link("A").unwrap();
    assert_eq!(
        (one.state, one.prefix.as_str(), &one.addrs, &one.caps),
        (State::Active, "clink-A-", &a.addrs, &a.caps)
    );
    assert_eq!((one.description.as_str(), one.created_by.as_str(), one.id), ("plant 1", "bob", joined.id));
    assert_eq!(one.fingerprints[0].not_after, Some(NOW + 99));
    assert_eq!(book.pins("A", NOW), [[1; 32]]);
    assert_eq!(
        book.rights_of_link("A"),
        Rights { can_forward: true, can_sync_routes: true, ..Rights::default() }
    );
}

#[test]
fn to_join_again_changes_nothing() {
    let (_, b, token, request, answer) = answered();
    let mut book = Book::default();
    let join = Join::of(&token, "bob");
    book.accept_peer(&b.own(), &join, (&request, &answer), AT, [3; 16], NOW).unwrap();
    let before = book.clone();
    book.check_join(&b.own(), &join).unwrap();
    let joined = book.accept_peer(&b.own(), &join, (&request, &answer), AT, [4; 16], NOW + 5).unwrap();
    assert!(!joined.changed && joined.events.is_empty());
    book.roll_back(joined);
    assert_eq!(book, before, "what was there before stays");
}

#[test]
fn what_cannot_be_finished_is_undone_completely() {
    let (_, b, token, request, answer) = answered();
    let mut book = Book::default();
    book.create_group("telemetry", "").unwrap();
    // A token of our own for A is out meanwhile, and A was expected with it.
    token_for(&mut book, &b.own(), "A");
    let before = book.clone();
    let joined =
        book.accept_peer(&b.own(), &Join::of(&token, "bob"), (&request, &answer), AT, [3; 16], NOW).unwrap();
    assert_ne!(book, before);
    book.roll_back(joined);
    assert_eq!(book, before);
    let mut empty = Book::default();
    let joined =
        empty.accept_peer(&b.own(), &Join::of(&token, "bob"), (&request, &answer), AT, [3; 16], NOW).unwrap();
    empty.roll_back(joined);
    assert_eq!(empty, Book::default());
}

#[test]
fn two_clusters_may_enrol_each_other_at_the_same_time() {
    let (a, b) = (cluster("A", 1), cluster("B", 2));
    let (mut of_a, mut of_b) = (Book::default(), Book::default());
    let (for_b, for_a) = (token_for(&mut of_a, &a.own(), "B"), token_for(&mut of_b, &b.own(), "A"));
    let (join_a, join_b) = (Join::of(&for_b, "bob"), Join::of(&for_a, "ada"));
    of_a.check_join(&a.own(), &join_b).unwrap();
    of_b.check_join(&b.own(), &join_a).unwrap();
    let (asks_a, asks_b) = (b.asks(&for_b), a.asks(&for_a));
    // Both are answered before either has read an answer.
    let answer_of_a = accepted(of_a.redeem(&a.own(), &asks_a, &b.leaf(), SOURCE, NOW));
    let answer_of_b = accepted(of_b.redeem(&b.own(), &asks_b, &a.leaf(), SOURCE, NOW));
    of_a.accept_peer(&a.own(), &join_b, (&asks_b, &answer_of_b), AT, [3; 16], NOW).unwrap();
    of_b.accept_peer(&b.own(), &join_a, (&asks_a, &answer_of_a), AT, [3; 16], NOW).unwrap();
    assert_eq!((of_a.pins("B", NOW), of_b.pins("A", NOW)), (vec![[2; 32]], vec![[1; 32]]));
    assert_eq!((of_a.identities().len(), of_b.identities().len()), (1, 1));
}

#[test]
fn a_token_of_our_own_is_used_up_by_who_came_first() {
    let (a, b) = (cluster("A", 1), cluster("B", 2));
    let (mut of_a, mut of_b) = (Book::default(), Book::default());
    let (for_b, for_a) = (token_for(&mut of_a, &a.own(), "B"), token_for(&mut of_b, &b.own(), "A"));
    let answer = accepted(of_a.redeem(&a.own(), &b.asks(&for_b), &b.leaf(), SOURCE, NOW));
    let join = Join::of(&for_b, "bob");
    of_b.accept_peer(&b.own(), &join, (&b.asks(&for_b), &answer), AT, [3; 16], NOW).unwrap();
    // A is late with B's token: it is a peer already, with the same certificate.
    accepted(of_b.redeem(&b.own(), &a.asks(&for_a), &a.leaf(), SOURCE, NOW));
    let thief = of_b.redeem(&b.own(), &a.asks(&for_a), &leaf(66), SOURCE, NOW);
    assert_eq!((code(&thief), &thief.events[0].what), (Some(Code::Used), &Happened::TokenReuse));
}

#[test]
fn what_stands_against_it_is_said_before_anybody_is_asked() {
    let (_, mut b, token, ..) = answered();
    let book = Book::default();
    let check = |b: &Cluster, book: &Book, join: &Join<'_>| {
        let error = book.check_join(&b.own(), join).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let join = Join::of(&token, "bob");
    let (exit_code, text) = check(&b, &book, &Join { name: Some("C"), ..join.clone() });
    assert_eq!(
        (exit_code, text.as_str()),
        (2, "the token is of A, not of C: a link is called as the peer's cluster")
    );
    let groups = ["nobody".to_owned()];
    assert_eq!(check(&b, &book, &Join { groups: &groups, ..join.clone() }).0, 4);
    let ours = Token { fingerprint: b.leaf().sha256, ..token.clone() };
    assert_eq!(check(&b, &book, &Join::of(&ours, "bob")).0, 5);
    let (_, linked) = linked();
    let c = Cluster { name: "C", prefix: name::default_prefix("C"), certificate: 3, ..cluster("C", 3) };
    let other = Token { issued_for: "C".to_owned(), fingerprint: leaf(2).sha256, ..token.clone() };
    let (exit_code, text) = check(&c, &linked, &Join::of(&other, "bob"));
    assert_eq!((exit_code, text.contains("the certificate of B")), (5, true));
    b.configured = vec![rule("A", Some(9))];
    assert_eq!(check(&b, &book, &join).0, 5);
    b.configured = vec![PeerRule { clientid_prefix: "clink-A-".to_owned(), ..rule("X", Some(9)) }];
    assert_eq!(check(&b, &book, &join).0, 5);
}

#[test]
fn an_answer_belongs_to_its_request() {
    let (_, b, token, request, answer) = answered();
    let mut book = Book::default();
    let join = Join::of(&token, "bob");
    let wrong = [
        Accepted { cluster: "C".to_owned(), ..answer.clone() },
        Accepted { nonce: crate::trust::enroll::Nonce([0; 16]), ..answer.clone() },
        Accepted { prefix: "c".to_owned(), ..answer.clone() },
        Accepted { prefix: "clink-B-".to_owned(), ..answer.clone() },
    ];
    for answer in wrong {
        let error = refused(&mut book, |book| {
            book.accept_peer(&b.own(), &join, (&request, &answer), AT, [3; 16], NOW)
        });
        assert_eq!(error.exit_code(), 5, "{error}");
    }
    let agreed = Join { prefix: Some("emqx-A"), ..join };
    let answer = Accepted { prefix: "emqx-A".to_owned(), ..answer };
    book.accept_peer(&b.own(), &agreed, (&request, &answer), AT, [3; 16], NOW).unwrap();
    assert_eq!(book.link("A").unwrap().prefix, "emqx-A");
}

#[test]
fn another_certificate_of_a_peer_is_a_conflict_unless_it_replaces() {
    let (a, b, token, request, answer) = answered();
    let mut book = Book::default();
    let join = Join::of(&token, "bob");
    book.accept_peer(&b.own(), &join, (&request, &answer), AT, [3; 16], NOW).unwrap();
    let id = book.link("A").unwrap().id;
    let a = Cluster { certificate: 10, ..a };
    let mut of_a = Book::default();
    let token = token_for(&mut of_a, &a.own(), "B");
    let join = Join::of(&token, "bob");
    assert_eq!(book.check_join(&b.own(), &join).unwrap_err().exit_code(), 5);
    let join = Join { replace: true, ..join };
    book.check_join(&b.own(), &join).unwrap();
    let request = b.asks(&token);
    let answer = accepted(of_a.redeem(&a.own(), &request, &b.leaf(), SOURCE, NOW));
    book.accept_peer(&b.own(), &join, (&request, &answer), AT, [4; 16], NOW).unwrap();
    assert_eq!((book.link("A").unwrap().id, book.pins("A", NOW)), (id, vec![[10; 32]]));
}
