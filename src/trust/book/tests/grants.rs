use crate::trust::group::Permission;
use crate::trust::rights::OperatorRights;

use super::*;

fn permission(text: &str) -> Permission {
    Permission::parse(&text.split(' ').collect::<Vec<_>>()).unwrap()
}

fn rights(texts: &[&str]) -> OperatorRights {
    let all: Vec<Permission> = texts.iter().map(|text| permission(text)).collect();
    OperatorRights::of(&all)
}

/// A book with the active peer B and a group for each of these permissions, called by its number.
fn with_groups(permissions: &[&str]) -> (Cluster, Book) {
    let (a, mut book) = linked();
    for (number, text) in permissions.iter().enumerate() {
        book.create_group(&number.to_string(), "").unwrap();
        book.add_permission(&number.to_string(), permission(text)).unwrap();
    }
    (a, book)
}

#[test]
fn nobody_grants_more_than_they_have() {
    let (_, before) = with_groups(&["server admin", "topic a can_import", "link B can_edit"]);
    let (manager, admin) = (rights(&["server permission_manager"]), OperatorRights::admin());
    let granted = |act: &dyn Fn(&mut Book)| {
        let mut book = before.clone();
        act(&mut book);
        assert_eq!(book.check_granted(&before, &admin), Ok(()));
        book.check_granted(&before, &manager).map_err(|error| error.exit_code())
    };
    let add = |group: &'static str, text: &'static str| {
        move |book: &mut Book| drop(book.add_permission(group, permission(text)).unwrap())
    };
    let into =
        |group: &'static str| move |book: &mut Book| drop(book.add_to_group(Kind::Link, "B", group).unwrap());
    assert_eq!(granted(&|_| {}), Ok(()));
    assert_eq!(granted(&add("2", "link C operator")), Err(3));
    assert_eq!(granted(&add("2", "link B can_view")), Err(3));
    assert_eq!(granted(&add("2", "link C peer")), Ok(()));
    assert_eq!(granted(&add("1", "topic # can_export")), Ok(()));
    assert_eq!(granted(&into("1")), Ok(()));
    assert_eq!(granted(&into("2")), Err(3));
    assert_eq!(granted(&|book| drop(book.rename_group("0", "x").unwrap())), Ok(()));
    assert_eq!(granted(&|book| drop(book.delete_group("0").unwrap())), Ok(()));
    assert_eq!(
        granted(&|book| drop(book.remove_permission("0", &permission("server admin")).unwrap())),
        Ok(())
    );
    let renamed_and_more = |book: &mut Book| {
        book.rename_group("1", "x").unwrap();
        book.add_permission("x", permission("server admin")).unwrap();
    };
    assert_eq!(granted(&renamed_and_more), Err(3));
    let made = |book: &mut Book| {
        book.create_group("new", "").unwrap();
        book.add_permission("new", permission("server viewer")).unwrap();
    };
    assert_eq!(granted(&made), Err(3));
}

#[test]
fn a_token_grants_what_its_groups_permit() {
    let (a, before) = with_groups(&["link B can_edit"]);
    let (mut book, groups) = (before.clone(), ["0".to_owned()]);
    let new = NewLink { groups: &groups, ..NewLink::named("C", "ada") };
    issue(&mut book, &a.own(), &new, 3, NOW).unwrap();
    assert!(matches!(book.check_granted(&before, &rights(&[])), Err(TrustError::Denied(_))));
    assert_eq!(book.check_granted(&before, &rights(&["link B operator"])), Ok(()));
    assert!(before.check_may_grant(&groups, &rights(&[])).is_err());
    assert_eq!(before.check_may_grant(&groups, &rights(&["server operator"])), Ok(()));
}

#[test]
fn a_peer_and_what_is_for_operators_are_not_in_one_group() {
    let (a, mut book) = with_groups(&["server viewer", "topic a can_import"]);
    let own = a.own();
    let (of_operators, of_peers) = (["0".to_owned()], ["1".to_owned()]);
    let conflict = |book: &mut Book, act: &dyn Fn(&mut Book) -> Result<(), TrustError>| {
        let error = refused(book, act);
        assert!(error.exit_code() == 5 && error.to_string().contains("is for operators"), "{error}");
    };
    conflict(&mut book, &|book| book.add_to_group(Kind::Link, "B", "0").map(drop));
    let new = NewLink { groups: &of_operators, ..NewLink::named("C", "ada") };
    conflict(&mut book, &|book| issue(book, &own, &new, 3, NOW).map(drop));
    let c = leaf(3);
    let made = NewIdentity {
        kind: Kind::Link,
        name: "C",
        prefix: None,
        groups: &of_operators,
        addrs: &[],
        caps: &[],
        leaf: &c,
        description: "",
        operator: "ada",
    };
    conflict(&mut book, &|book| book.create_identity(&own, &made, [3; 16], NOW).map(drop));
    // Nor the other way round, with a token that is out or with a peer.
    let new = NewLink { groups: &of_peers, ..NewLink::named("C", "ada") };
    issue(&mut book, &own, &new, 3, NOW).unwrap();
    conflict(&mut book, &|book| book.add_permission("1", permission("server operator")).map(drop));
    book.revoke_token(Uuid::from_random([3; 16])).unwrap();
    book.add_to_group(Kind::Link, "B", "1").unwrap();
    conflict(&mut book, &|book| book.add_permission("1", permission("server operator")).map(drop));
    book.remove_from_group(Kind::Link, "B", "1").unwrap();
    book.add_permission("1", permission("server operator")).unwrap();
    let made = NewIdentity { kind: Kind::Admin, ..made };
    book.create_identity(&own, &made, [4; 16], NOW).unwrap();
}
