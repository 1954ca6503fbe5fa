use super::*;

#[test]
fn a_token_is_issued_and_its_identity_waits() {
    let (a, mut book) = (cluster("A", 1), Book::default());
    let new = NewLink { description: "plant 2", ..NewLink::named("B", "ada") };
    let issued = book.issue(&a.own(), &new, [7; 16], [0x5a; 32], NOW).unwrap();
    assert_eq!(Token::parse(&issued.text.0).unwrap(), issued.token);
    assert_eq!((issued.token.cluster.as_str(), issued.token.issued_for.as_str()), ("A", "B"));
    assert_eq!(issued.token.expires, NOW + MINUTES_15);
    assert_eq!((issued.token.fingerprint, &issued.token.addrs), (Fingerprint([1; 32]), &a.addrs));
    let one = book.link("B").unwrap();
    assert_eq!(
        (one.id, one.kind_text(), one.state),
        (issued.token.id, "Link certificate (pending)", State::Pending)
    );
    assert_eq!((one.prefix.as_str(), &one.groups[..]), ("clink-B-", &["link-peer".to_owned()][..]));
    assert_eq!((one.description.as_str(), one.created_by.as_str()), ("plant 2", "ada"));
    assert_eq!(issued.event.what.name(), "authn_token_created");
    assert!(book.pending(NOW + MINUTES_15) && !book.pending(NOW + MINUTES_15 + 1));
    assert!(book.peers(NOW).is_empty() && book.pins("B", NOW).is_empty());
    assert_eq!(book.rights_of_link("B"), Rights::default());
}

#[test]
fn no_secret_is_kept_or_shown() {
    let (a, mut book) = (cluster("A", 1), Book::default());
    let issued = book.issue(&a.own(), &NewLink::named("B", "ada"), [7; 16], [0x5a; 32], NOW).unwrap();
    let secret = issued.token.secret.text();
    let hash = issued.token.secret.hash().text();
    let json = book.to_json();
    assert!(json.contains(&hash) && !json.contains(&*secret) && !json.contains(&"5a".repeat(16)));
    let shown = format!("{book:?} {issued:?}");
    assert!(!shown.contains(&*secret) && !shown.contains(&hash) && !shown.contains("tmb1."));
}

#[test]
fn a_name_or_a_prefix_is_given_once() {
    let (mut a, mut book) = (cluster("A", 1), Book::default());
    a.configured = vec![rule("D", Some(4)), rule("E", None)];
    let own = a.own();
    token_for(&mut book, &own, "B");
    let cases = [
        (NewLink::named("B", "ada"), 5, "a token for B is out"),
        (NewLink::named("A", "ada"), 2, "this cluster itself"),
        (NewLink::named("a", "ada"), 5, "differ in the case"),
        (NewLink::named("b", "ada"), 5, "differ in the case"),
        (NewLink::named("d", "ada"), 5, "differ in the case"),
        (NewLink::named("", "ada"), 2, "not a cluster name"),
        (NewLink::named("B/C", "ada"), 2, "not a cluster name"),
        (NewLink::named("Β", "ada"), 2, "not a cluster name"),
        (NewLink::named("D", "ada"), 5, "the configuration says"),
        (NewLink { prefix: Some("clink-B-"), ..NewLink::named("AB", "ada") }, 5, "that of B"),
        (NewLink { prefix: Some("CLINK-b-"), ..NewLink::named("AB", "ada") }, 5, "that of B"),
        (NewLink { prefix: Some("clink-D-"), ..NewLink::named("AB", "ada") }, 5, "that of D"),
        (NewLink { prefix: Some("clink-A-"), ..NewLink::named("AB", "ada") }, 5, "that of A"),
        (NewLink { prefix: Some("a#"), ..NewLink::named("AB", "ada") }, 2, "prefix"),
        (NewLink { prefix: Some(""), ..NewLink::named("AB", "ada") }, 2, "prefix"),
    ];
    for (new, exit_code, text) in cases {
        let error = refused(&mut book, |book| issue(book, &own, &new, 50, NOW));
        assert_eq!(error.exit_code(), exit_code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    // Without a proof the configuration only says that there is a link.
    issue(&mut book, &own, &NewLink::named("E", "ada"), 51, NOW).unwrap();
}

#[test]
fn names_and_prefixes_that_begin_alike_live_side_by_side() {
    let (a, mut book) = (cluster("A", 1), Book::default());
    let own = a.own();
    issue(&mut book, &own, &NewLink::named("B", "ada"), 1, NOW).unwrap();
    issue(&mut book, &own, &NewLink::named("BC", "ada"), 2, NOW).unwrap();
    // EMQX's own default is the bare name of the cluster.
    issue(&mut book, &own, &NewLink { prefix: Some("clink"), ..NewLink::named("emqx", "ada") }, 3, NOW)
        .unwrap();
    assert_eq!(book.overlapping("clink-B-"), ["clink"]);
    assert_eq!(book.overlapping("clink-B-x-").len(), 2);
    assert!(book.overlapping("other-").is_empty());
}

#[test]
fn lifetimes_addresses_groups_and_texts_have_bounds() {
    let (mut a, mut book) = (cluster("A", 1), Book::default());
    let addrs = a.addrs.clone();
    let groups = ["nobody".to_owned()];
    let long = "x".repeat(513);
    let with = |lifetime, i_know| NewLink { lifetime: Some(lifetime), i_know, ..NewLink::named("B", "ada") };
    for (new, exit_code) in [
        (with(0, false), 2),
        (with(24 * 3600 + 1, false), 2),
        (with(30 * 24 * 3600 + 1, true), 2),
        (NewLink { groups: &groups, ..NewLink::named("B", "ada") }, 4),
        (NewLink { description: &long, ..NewLink::named("B", "ada") }, 2),
        (NewLink { description: "a\nb", ..NewLink::named("B", "ada") }, 2),
    ] {
        let error = refused(&mut book, |book| issue(book, &a.own(), &new, 1, NOW));
        assert_eq!(error.exit_code(), exit_code, "{error}");
    }
    let own = Own { token_lifetime: 7, ..a.own() };
    let unsaid = issue(&mut book.clone(), &own, &NewLink::named("B", "ada"), 1, NOW).unwrap();
    assert_eq!(unsaid.expires, NOW + 7);
    a.addrs.clear();
    let error = refused(&mut book, |book| issue(book, &a.own(), &NewLink::named("B", "ada"), 1, NOW));
    assert!(error.to_string().contains("--address"), "{error}");
    let behind_nat = NewLink { addrs: &addrs, ..with(24 * 3600, false) };
    assert_eq!(issue(&mut book, &a.own(), &behind_nat, 1, NOW).unwrap().addrs, addrs);
    let known =
        NewLink { addrs: &addrs, i_know: true, lifetime: Some(24 * 3600 + 1), ..NewLink::named("C", "ada") };
    issue(&mut book, &a.own(), &known, 2, NOW).unwrap();
    let again = NewLink { addrs: &addrs, ..NewLink::named("D", "ada") };
    assert_eq!(
        refused(&mut book, |book| issue(book, &a.own(), &again, 2, NOW)).exit_code(),
        5,
        "the same id"
    );
    let many: Vec<ServerAddr> = vec![addrs[0].clone(); 17];
    let many = NewLink { addrs: &many, ..NewLink::named("D", "ada") };
    assert_eq!(refused(&mut book, |book| issue(book, &a.own(), &many, 3, NOW)).exit_code(), 2);
}

#[test]
fn a_token_that_is_not_used_in_time_is_over() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    let end = NOW + MINUTES_15;
    assert!(book.expire(end).is_empty());
    assert_eq!(book.next_change(NOW), Some(end + 1));
    let before = book.clone();
    let late = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, end + 1);
    assert_eq!((code(&late), &book), (Some(Code::Expired), &before));
    let events = book.expire(end + 1);
    assert_eq!(events.iter().map(|event| event.what.name()).collect::<Vec<_>>(), ["authn_token_expired"]);
    assert_eq!(book.link("B").unwrap().state, State::Expired);
    assert!(book.expire(end + 1).is_empty(), "said once");
    let late = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, end + 2);
    assert_eq!(code(&late), Some(Code::Expired), "who holds it is told");
    assert_eq!(book.next_change(end + 2), Some(end + REMEMBERED_SECONDS + 1));
    book.expire(end + REMEMBERED_SECONDS + 1);
    assert!(book.link("B").is_none() && book.tokens().len() == 0 && book.next_change(end).is_none());
    let late = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, end + REMEMBERED_SECONDS + 2);
    assert_eq!(code(&late), Some(Code::UnknownToken));
}

#[test]
fn in_its_last_second_a_token_is_good() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    accepted(book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW + MINUTES_15));
    assert!(book.link("B").unwrap().is_active());
}

#[test]
fn after_an_expired_token_another_can_be_issued() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let first = token_for(&mut book, &a.own(), "B");
    let later = NOW + MINUTES_15 + 1;
    book.expire(later);
    let second = issue(&mut book, &a.own(), &NewLink::named("B", "ada"), 77, later).unwrap();
    assert_eq!(book.identities().len(), 1);
    assert_eq!(
        code(&book.redeem(&a.own(), &b.asks(&first), &b.leaf(), SOURCE, later)),
        Some(Code::UnknownToken)
    );
    accepted(book.redeem(&a.own(), &b.asks(&second), &b.leaf(), SOURCE, later));
}

#[test]
fn a_token_is_taken_back_with_its_identity() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    assert_eq!(book.revoke_token(token.id).unwrap().what.name(), "authn_token_revoked");
    assert!(book.link("B").is_none() && !book.pending(NOW));
    let redeemed = book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW);
    assert_eq!((code(&redeemed), redeemed.changed), (Some(Code::Used), false));
    assert_eq!(refused(&mut book, |book| book.revoke_token(token.id)).exit_code(), 8);
    let unknown = Uuid::from_random([99; 16]);
    assert_eq!(refused(&mut book, |book| book.revoke_token(unknown)).exit_code(), 4);
    let (_, mut linked) = linked();
    let used = linked.tokens().next().unwrap().id;
    assert_eq!(refused(&mut linked, |book| book.revoke_token(used)).exit_code(), 8);
}

#[test]
fn so_many_tokens_may_be_out_and_no_more() {
    let (a, mut book) = (cluster("A", 1), Book::default());
    let own = a.own();
    let put = |book: &mut Book, number: usize, now: u64| {
        let bytes: [u8; 16] = std::array::from_fn(|at| number.to_be_bytes()[at % 8] ^ at as u8);
        let name = format!("c{number}");
        book.issue(&own, &NewLink::named(&name, "ada"), bytes, [1; 32], now).map(|issued| issued.token.id)
    };
    for number in 0..TOKENS_MAX {
        put(&mut book, number, NOW).unwrap();
    }
    let error = refused(&mut book, |book| put(book, TOKENS_MAX, NOW));
    assert_eq!(error.exit_code(), 5);
    // Those that are over make room, the oldest first.
    let later = NOW + MINUTES_15 + 1;
    book.expire(later);
    put(&mut book, TOKENS_MAX, later).unwrap();
    assert_eq!(book.tokens().len(), TOKENS_MAX);
}

#[test]
fn a_link_gets_a_new_certificate_by_a_token_that_replaces() {
    let (a, mut book) = linked();
    let own = a.own();
    book.create_group("telemetry", "").unwrap();
    book.add_to_group(Kind::Link, "B", "telemetry").unwrap();
    let error = refused(&mut book, |book| issue(book, &own, &NewLink::named("B", "ada"), 60, NOW));
    assert!(error.to_string().contains("--replace"), "{error}");
    let id = book.link("B").unwrap().id;
    let new = NewLink { replace: true, ..NewLink::named("B", "ada") };
    let token = issue(&mut book, &own, &new, 60, NOW).unwrap();
    assert_eq!(book.peers_pins("B", NOW), [[2; 32]], "until then the old one is good");
    let b = cluster("B", 20);
    let redeemed = book.redeem(&own, &b.asks(&token), &b.leaf(), SOURCE, NOW);
    let names: Vec<_> = redeemed.events.iter().map(|event| event.what.name().into_owned()).collect();
    let changed = format!("authn_certificate_change:{}", Fingerprint([2; 32]));
    assert_eq!(names, ["authn_identity_activated".to_owned(), changed]);
    let one = book.link("B").unwrap();
    assert_eq!((one.id, &one.groups[..]), (id, &["link-peer".to_owned(), "telemetry".to_owned()][..]));
    assert_eq!(book.peers_pins("B", NOW), [[20; 32]]);
    assert_eq!(book.identities().len(), 1);
}

#[test]
fn a_token_that_replaces_one_that_is_out_leaves_one() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let first = token_for(&mut book, &a.own(), "B");
    let new = NewLink { replace: true, ..NewLink::named("B", "ada") };
    let second = issue(&mut book, &a.own(), &new, 60, NOW).unwrap();
    assert_eq!((book.identities().len(), book.tokens().len()), (1, 1));
    let redeemed = book.redeem(&a.own(), &b.asks(&first), &b.leaf(), SOURCE, NOW);
    assert_eq!(code(&redeemed), Some(Code::UnknownToken));
    accepted(book.redeem(&a.own(), &b.asks(&second), &b.leaf(), SOURCE, NOW));
}
