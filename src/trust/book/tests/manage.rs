use crate::trust::group::Entitlement;
use crate::trust::group::Permission;
use crate::trust::identity::Role;

use super::*;

fn new<'a>(kind: Kind, name: &'a str, leaf: &'a Leaf) -> NewIdentity<'a> {
    NewIdentity {
        kind,
        name,
        prefix: None,
        groups: &[],
        addrs: &[],
        caps: &[],
        leaf,
        description: "",
        operator: "ada",
    }
}

fn permission(text: &str) -> Permission {
    Permission::parse(&text.split(' ').collect::<Vec<_>>()).unwrap()
}

#[test]
fn an_identity_is_made_of_a_certificate_without_a_token() {
    let (a, mut book) = linked();
    let (own, c) = (a.own(), leaf(3));
    let (id, event) = book.create_identity(&own, &new(Kind::Link, "C", &c), [3; 16], NOW).unwrap();
    assert_eq!(
        (event.what.name().as_ref(), event.fingerprint),
        ("authz_admin:identity_create", Some(c.sha256))
    );
    let one = book.identity(id).unwrap();
    assert_eq!(
        (one.state, one.prefix.as_str(), &one.groups[..]),
        (State::Active, "clink-C-", &["link-peer".to_owned()][..])
    );
    assert_eq!(book.peers(NOW).len(), 2);
    let old = Leaf { not_after: NOW - 1, ..leaf(9) };
    let (other, ours, caps) = (leaf(9), a.leaf(), ["a b".to_owned()]);
    let cases = [
        (new(Kind::Link, "C", &other), 5),
        (new(Kind::Link, "B", &other), 5),
        (new(Kind::Link, "A", &other), 2),
        (new(Kind::Link, "D/E", &other), 2),
        (new(Kind::Link, "D", &c), 5),
        (new(Kind::Link, "D", &ours), 5),
        (new(Kind::Link, "D", &old), 2),
        (NewIdentity { prefix: Some("clink-B-"), ..new(Kind::Link, "D", &other) }, 5),
        (NewIdentity { caps: &caps, ..new(Kind::Link, "D", &other) }, 2),
        (new(Kind::Admin, "", &other), 2),
        (new(Kind::Admin, "eve", &c), 5),
    ];
    for (new, exit_code) in cases {
        let error = refused(&mut book, |book| book.create_identity(&own, &new, [50; 16], NOW));
        assert_eq!(error.exit_code(), exit_code, "{error}");
    }
}

#[test]
fn operators_are_identities_that_begin_without_a_right() {
    let (a, mut book) = linked();
    let own = a.own();
    let (id, _) = book.create_identity(&own, &new(Kind::Admin, "B", &leaf(7)), [3; 16], NOW).unwrap();
    let one = book.identity(id).unwrap().clone();
    assert_eq!((one.kind_text(), one.groups.len(), one.prefix.as_str()), ("Admin certificate", 0, ""));
    assert_eq!(book.operator_rights(&one), OperatorRights::default());
    assert_eq!(book.by_fingerprint(&[7; 32], NOW), Some(&one));
    assert_eq!(book.peers(NOW).len(), 1, "an operator is no peer, even of the same name");
    book.create_group("admins", "").unwrap();
    book.add_permission("admins", permission("server admin")).unwrap();
    book.add_to_group(Kind::Admin, "B", "admins").unwrap();
    let rights = book.operator_rights(book.named(Kind::Admin, "B").unwrap());
    assert!(rights.on_server(Entitlement::PermissionManager));
    // The peer of the same name gets nothing by it.
    let of_peer = book.rights_of_link("B");
    assert_eq!(of_peer, Rights { can_forward: true, can_sync_routes: true, ..Rights::default() });
    assert_eq!(book.operator_rights(book.link("B").unwrap()), OperatorRights::default());
    book.revoke(Kind::Admin, "B", "ada").unwrap();
    assert!(book.by_fingerprint(&[7; 32], NOW).is_none() && book.link("B").unwrap().is_active());
}

#[test]
fn a_certificate_that_has_expired_proves_nobody() {
    let (a, mut book) = linked();
    let leaf = Leaf { not_after: NOW + 10, ..leaf(7) };
    book.create_identity(&a.own(), &new(Kind::Admin, "ada", &leaf), [3; 16], NOW).unwrap();
    assert!(book.by_fingerprint(&[7; 32], NOW + 10).is_some());
    assert!(book.by_fingerprint(&[7; 32], NOW + 11).is_none());
    assert_eq!(book.seen(Fingerprint([7; 32]), SOURCE, NOW + 11), Seen::Unknown);
}

#[test]
fn who_is_revoked_is_not_known_and_nobody_else_gets_its_certificate() {
    let (a, mut book) = linked();
    let own = a.own();
    let out = NewLink { replace: true, ..NewLink::named("B", "ada") };
    issue(&mut book, &own, &out, 60, NOW).unwrap();
    let event = book.revoke(Kind::Link, "B", "ada").unwrap();
    assert_eq!(event.what.name(), "authz_admin:identity_revoke");
    assert!(
        book.peers(NOW).is_empty() && book.peers_pins("B", NOW).is_empty() && book.pins("B", NOW).is_empty()
    );
    assert!(!book.tokens().any(|token| token.is_pending(NOW)), "its tokens are good no more");
    assert_eq!(book.rights_of_link("B"), Rights::default());
    assert!(book.by_fingerprint(&[2; 32], NOW).is_none());
    assert_eq!(book.owner_of(Fingerprint([2; 32])).unwrap().name, "B");
    assert_eq!(refused(&mut book, |book| book.revoke(Kind::Link, "B", "ada")).exit_code(), 5);
    assert_eq!(refused(&mut book, |book| book.revoke(Kind::Link, "C", "ada")).exit_code(), 4);
    let again =
        refused(&mut book, |book| book.create_identity(&own, &new(Kind::Link, "C", &leaf(2)), [3; 16], NOW));
    assert_eq!(again.exit_code(), 5);
    book.delete_identity(Kind::Link, "B", "ada").unwrap();
    assert_eq!(refused(&mut book, |book| book.delete_identity(Kind::Link, "B", "ada")).exit_code(), 4);
    book.create_identity(&own, &new(Kind::Link, "C", &leaf(2)), [3; 16], NOW).unwrap();
}

#[test]
fn a_token_that_is_out_is_revoked_not_its_identity() {
    let (a, mut book) = (cluster("A", 1), Book::default());
    token_for(&mut book, &a.own(), "B");
    let error = refused(&mut book, |book| book.revoke(Kind::Link, "B", "ada"));
    assert!(error.to_string().contains("revoke its token"), "{error}");
    book.delete_identity(Kind::Link, "B", "ada").unwrap();
    assert_eq!((book.tokens().len(), book.identities().len()), (0, 0));
}

#[test]
fn a_peer_that_has_removed_us_is_shown_as_such() {
    let (a, mut book) = linked();
    assert_eq!(book.peer_removed_us("B").unwrap().what, Happened::RevokedByPeer);
    assert_eq!(book.link("B").unwrap().shown_state().name(), "REVOKED BY PEER");
    assert!(book.peers(NOW).is_empty());
    assert_eq!(refused(&mut book, |book| book.peer_removed_us("B")).exit_code(), 5);
    assert_eq!(refused(&mut book, |book| book.peer_removed_us("C")).exit_code(), 4);
    let b = cluster("B", 20);
    let new = NewLink { replace: true, ..NewLink::named("B", "ada") };
    let token = issue(&mut book, &a.own(), &new, 60, NOW).unwrap();
    accepted(book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW));
    assert!(book.link("B").unwrap().is_active());
}

#[test]
fn rights_come_from_groups_and_from_nowhere_else() {
    let (_, mut book) = linked();
    book.create_group("telemetry", "what plants measure").unwrap();
    for text in ["topic telemetry/# can_import qos=1", "topic commands/B/# can_export", "link C peer"] {
        let event = book.add_permission("telemetry", permission(text)).unwrap();
        assert_eq!(event.what.name(), "authz_admin:group_edit");
    }
    assert!(book.rights_of_link("B").import.is_empty());
    book.add_to_group(Kind::Link, "B", "telemetry").unwrap();
    let rights = book.rights_of_link("B");
    assert_eq!(rights.import_filters().collect::<Vec<_>>(), ["telemetry/#"]);
    assert_eq!(rights.export_filters().collect::<Vec<_>>(), ["commands/B/#"]);
    book.remove_from_group(Kind::Link, "B", "link-peer").unwrap();
    let rights = book.rights_of_link("B");
    assert!(!rights.can_forward && !rights.can_sync_routes, "that it may on C is of no use to B");
    assert_eq!(refused(&mut book, |book| book.add_to_group(Kind::Link, "B", "telemetry")).exit_code(), 5);
    assert_eq!(refused(&mut book, |book| book.add_to_group(Kind::Link, "B", "nobody")).exit_code(), 4);
    assert_eq!(refused(&mut book, |book| book.add_to_group(Kind::Link, "C", "telemetry")).exit_code(), 4);
    assert_eq!(refused(&mut book, |book| book.remove_from_group(Kind::Link, "B", "nobody")).exit_code(), 4);
}

#[test]
fn groups_of_who_is_to_come_are_kept_until_then() {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    book.create_group("telemetry", "").unwrap();
    book.add_to_group(Kind::Link, "B", "telemetry").unwrap();
    accepted(book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW));
    assert_eq!(book.link("B").unwrap().groups, ["link-peer", "telemetry"]);
}

#[test]
fn groups_are_made_renamed_and_deleted() {
    let (_, mut book) = linked();
    assert_eq!(book.create_group("g", "first").unwrap().what.name(), "authz_admin:group_create");
    for (name, exit_code) in [("g", 5), ("link-peer", 5), ("", 2), ("a b", 2), (&"x".repeat(64), 2)] {
        assert_eq!(refused(&mut book, |book| book.create_group(name, "")).exit_code(), exit_code, "{name}");
    }
    book.add_permission("g", permission("topic a can_import")).unwrap();
    assert_eq!(
        refused(&mut book, |book| book.add_permission("g", permission("topic a can_import"))).exit_code(),
        5
    );
    book.add_permission("g", permission("topic a can_import qos=0")).unwrap();
    assert_eq!(
        book.group("g").unwrap().permissions,
        [permission("topic a can_import qos=0")],
        "options are replaced"
    );
    book.add_to_group(Kind::Link, "B", "g").unwrap();
    let error = refused(&mut book, |book| book.delete_group("g"));
    assert_eq!(
        (error.exit_code(), error.to_string().as_str()),
        (5, "g is in use by 1 (B): take them out first")
    );
    book.rename_group("g", "h").unwrap();
    assert_eq!(book.link("B").unwrap().groups, ["h", "link-peer"]);
    assert_eq!(book.rights_of_link("B").import.len(), 1);
    book.remove_permission("h", &permission("topic a can_import")).unwrap();
    assert_eq!(
        refused(&mut book, |book| book.remove_permission("h", &permission("topic a can_import"))).exit_code(),
        4
    );
    book.describe_group("h", "second").unwrap();
    book.remove_from_group(Kind::Link, "B", "h").unwrap();
    assert_eq!(book.delete_group("h").unwrap().what.name(), "authz_admin:group_delete");
    assert_eq!(book.groups().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["link-peer"]);
    for name in ["h", "nobody"] {
        assert_eq!(refused(&mut book, |book| book.delete_group(name)).exit_code(), 4);
        assert_eq!(refused(&mut book, |book| book.rename_group(name, "i")).exit_code(), 4);
        assert_eq!(
            refused(&mut book, |book| book.add_permission(name, permission("server admin"))).exit_code(),
            4
        );
    }
    assert_eq!(
        refused(&mut book, |book| book.add_permission("link-peer", permission("server admin"))).exit_code(),
        5
    );
    assert_eq!(refused(&mut book, |book| book.delete_group("link-peer")).exit_code(), 5);
}

#[test]
fn groups_and_permissions_are_bounded() {
    let mut book = Book::default();
    for number in 0..GROUPS_MAX {
        book.create_group(&format!("g{number}"), "").unwrap();
    }
    assert_eq!(refused(&mut book, |book| book.create_group("one-more", "")).exit_code(), 5);
    let (_, mut book) = linked();
    book.create_group("g", "").unwrap();
    for number in 0..crate::trust::group::PERMISSIONS_MAX {
        book.add_permission("g", permission(&format!("topic t/{number} can_import"))).unwrap();
    }
    assert_eq!(
        refused(&mut book, |book| book.add_permission("g", permission("server admin"))).exit_code(),
        5
    );
    for number in 0..63 {
        book.create_group(&format!("g{number}"), "").unwrap();
        book.add_to_group(Kind::Link, "B", &format!("g{number}")).unwrap();
    }
    assert_eq!(refused(&mut book, |book| book.add_to_group(Kind::Link, "B", "g")).exit_code(), 2);
}

#[test]
fn what_an_operator_pins_counts_for_the_servers_that_we_dial_alone() {
    let (a, mut book) = linked();
    let own = a.own();
    let pin = |name: &str, byte: u8| Outbound {
        name: name.to_owned(),
        fingerprint: Fingerprint([byte; 32]),
        addrs: address::parse_all(&["c:8883"], false).unwrap(),
        created: NOW,
        created_by: "ada".to_owned(),
    };
    book.trust_outbound(&own, pin("C", 3), false).unwrap();
    assert_eq!(book.pins("C", NOW), [[3; 32]]);
    assert!(book.peers_pins("C", NOW).is_empty() && book.by_fingerprint(&[3; 32], NOW).is_none());
    assert_eq!(book.peers(NOW).len(), 1, "nobody is let in by it");
    let error = refused(&mut book, |book| book.trust_outbound(&own, pin("C", 30), false));
    assert_eq!(error.exit_code(), 7);
    assert!(
        error.to_string().contains("sha256:1e1e") && error.to_string().contains("expected sha256:0303"),
        "{error}"
    );
    book.trust_outbound(&own, pin("C", 30), true).unwrap();
    assert_eq!(refused(&mut book, |book| book.trust_outbound(&own, pin("B", 20), false)).exit_code(), 7);
    book.trust_outbound(&own, pin("B", 20), true).unwrap();
    assert_eq!((book.pins("B", NOW), book.peers_pins("B", NOW)), (vec![[20; 32]], vec![[2; 32]]));
    book.trust_outbound(&own, pin("B", 2), true).unwrap();
    assert_eq!(book.pins("B", NOW), [[2; 32]]);
    for (pin, exit_code) in [
        (pin("A", 9), 2),
        (pin("D", 2), 5),
        (pin("D", 1), 5),
        (pin("c/", 9), 2),
        (Outbound { addrs: Vec::new(), ..pin("D", 9) }, 2),
    ] {
        assert_eq!(refused(&mut book, |book| book.trust_outbound(&own, pin, true)).exit_code(), exit_code);
    }
    book.distrust_outbound("C").unwrap();
    assert_eq!(refused(&mut book, |book| book.distrust_outbound("C")).exit_code(), 4);
    book.revoke(Kind::Link, "B", "ada").unwrap();
    assert_eq!((book.outbound().len(), book.pins("B", NOW).len()), (0, 0));
}

#[test]
fn contradictions_with_the_configuration_are_found() {
    let (mut a, book) = linked();
    assert!(book.conflicts(&a.own()).is_empty());
    a.configured = vec![rule("B", Some(2)), rule("C", Some(2)), rule("b", None)];
    let found = book.conflicts(&a.own());
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn what_nobody_uses_is_told_and_what_is_connected_is_used() {
    const DAY: u64 = 24 * 60 * 60;
    let (_, mut book) = linked();
    let print = book.link("B").unwrap().pin(Role::Current).unwrap().sha256;
    assert_eq!(book.unused(NOW + DAY), [""; 0], "it has come with a token just now");
    assert!(book.unused(NOW + DAY + 1)[0].starts_with("link B: its peer is trusted since "));
    assert!(!book.is_long_connected("B", NOW + DAY), "it never was");
    assert_eq!(book.seen(print, SOURCE, NOW + DAY), Seen::Known { store: true });
    assert_eq!(book.unused(NOW + 31 * DAY - 1), [""; 0]);
    assert!(book.unused(NOW + 31 * DAY)[0].starts_with("link B: its peer was last seen "));
    assert!(
        book.is_long_connected("B", NOW + DAY + 3_600) && !book.is_long_connected("B", NOW + DAY + 3_599)
    );
    book.lasts("B", NOW + 31 * DAY);
    assert_eq!(book.unused(NOW + 31 * DAY), [""; 0]);
    book.create_group("empty", "").unwrap();
    assert!(book.unused(NOW + 31 * DAY)[0].starts_with("group empty: nobody is in it"));
    book.revoke(Kind::Link, "B", "ada").unwrap();
    book.lasts("B", NOW + 90 * DAY);
    assert_eq!(book.unused(NOW + 90 * DAY).len(), 1, "nobody who is revoked is a finding, nor connected");
}
