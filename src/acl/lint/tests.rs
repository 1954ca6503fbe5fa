use crate::acl::compile::CompileOptions;

use super::*;

fn link(name: &str) -> LinkInfo {
    LinkInfo { name: name.to_owned(), clientid_prefix: format!("clink-{name}-"), username: None }
}

fn linked(names: &[&str]) -> Inventory {
    Inventory { links: names.iter().map(|name| link(name)).collect(), ..Inventory::default() }
}

fn run(text: &str, mode: Mode, inventory: &Inventory) -> Vec<Finding> {
    let options = CompileOptions { mode, ..CompileOptions::default() };
    lint(&RuleSet::compile(text, &options).unwrap(), text, inventory)
}

/// `LINE ID` of everything found in strict mode.
fn found(text: &str, inventory: &Inventory) -> Vec<String> {
    run(text, Mode::Strict, inventory).iter().map(|f| format!("{} {}", f.line, f.id)).collect()
}

fn found_emqx(text: &str) -> Vec<String> {
    run(text, Mode::Emqx, &Inventory::default()).iter().map(|f| format!("{} {}", f.line, f.id)).collect()
}

/// One peer with the rest of a sound file around it.
fn peer(who: &str) -> String {
    let name = "$LINK/cluster";
    format!(
        "{{allow, {who}, {{publish, [{{qos, [0, 1]}}, {{retain, false}}]}}, [\"{name}/msg/A\", \"{name}/route/A\"]}}.\n\
         {{allow, {who}, subscribe, [\"{name}/resp/A/+\"]}}.\n{{deny, all}}."
    )
}

#[test]
fn a_sound_file_is_clean() {
    let text = peer("{clientid, {re, \"^clink-A-\"}}");
    assert_eq!(found(&text, &linked(&["A"])), Vec::<String>::new());
    assert_eq!(found(&text, &Inventory::default()), Vec::<String>::new());
    assert_eq!(found("", &Inventory::default()), Vec::<String>::new());
    assert_eq!(found("{allow, all}.", &Inventory::default()), Vec::<String>::new());
}

#[test]
fn patterns_that_match_too_much_are_found() {
    let table = [
        ("{clientid, {re, \"clink-A-\"}}", "L01"),
        ("{clientid, {re, \"^x|clink-A-\"}}", "L01"),
        ("{clientid, {re, \"^clink-A\"}}", "L02"),
        ("{clientid, {re, \"^clink.A-\"}}", "L05"),
        ("{clientid, {re, \"^clink-A-x$\"}}", "L06"),
        ("{clientid, {re, \"^clink-A-(x+)+y\"}}", "L15"),
        ("{username, {re, \"link\"}}", "L01"),
        ("{ipaddr, \"10.0.0.0/8\"}", "L21"),
    ];
    for (who, id) in table {
        let ids: Vec<_> =
            run(&peer(who), Mode::Strict, &Inventory::default()).into_iter().map(|f| f.id).collect();
        assert_eq!(ids, [id, id], "{who}");
    }
    // Applications' own patterns are their business, and a deny may be as wide as it likes.
    let text =
        "{deny, {clientid, {re, \"bad\"}}, all, all}.\n{allow, {clientid, {re, \"dev\"}}, all, [\"a\"]}.";
    assert_eq!(found(text, &Inventory::default()), Vec::<String>::new());
}

#[test]
fn peers_that_cannot_be_told_apart_are_found() {
    let rule = |prefix: &str, name: &str| {
        format!(
            "{{allow, {{clientid, {{re, \"^{prefix}\"}}}}, {{publish, [{{qos, [0, 1]}}, {{retain, false}}]}}, \
             [\"$LINK/cluster/msg/{name}\"]}}.\n"
        )
    };
    let text = format!("{}{}{{deny, all}}.", rule("link-", "A"), rule("link-b-", "B"));
    let ids: Vec<_> = found(&text, &Inventory::default());
    assert!(ids.contains(&"2 L03".to_owned()), "{ids:?}");
    let by_identity = |prefix: &str, name: &str| {
        let who = format!(
            "{{'and', [{{client_attr, \"link_id\", \"{name}\"}}, {{clientid, {{re, \"^{prefix}\"}}}}]}}"
        );
        rule(prefix, name).replace(&format!("{{clientid, {{re, \"^{prefix}\"}}}}"), &who)
    };
    let text = format!("{}{}{{deny, all}}.", by_identity("link-", "A"), by_identity("link-b-", "B"));
    assert!(!found(&text, &Inventory::default()).contains(&"2 L03".to_owned()));
    let apart = format!("{}{}{{deny, all}}.", rule("a-", "A"), rule("b-", "B"));
    assert_eq!(found(&apart, &Inventory::default()), Vec::<String>::new());
    let same = format!("{}{}{{deny, all}}.", rule("a-", "A"), rule("a-x-", "A"));
    assert_eq!(found(&same, &Inventory::default()), Vec::<String>::new());
    let mut inventory = linked(&["A"]);
    inventory.links.push(LinkInfo { clientid_prefix: "clink-A-B-".to_owned(), ..link("C") });
    let overlap = |inventory: &Inventory| {
        let findings = run("{deny, all}.", Mode::Strict, inventory);
        findings.iter().find(|finding| finding.id == "L03").map(|finding| finding.severity)
    };
    assert_eq!(overlap(&inventory), Some(Severity::Info), "the longer one decides");
    inventory.links[1].clientid_prefix = "clink-A-".to_owned();
    assert_eq!(overlap(&inventory), Some(Severity::Error));
    let mut inventory = linked(&["A"]);
    inventory.applications.push(("clink-A-tool".to_owned(), None));
    let text = peer("{clientid, {re, \"^clink-A-\"}}");
    assert_eq!(found(&text, &inventory), ["0 L04", "1 L04"]);
    let users = Inventory { users: vec!["clink-A-tool".to_owned(), "app".to_owned()], ..linked(&["A"]) };
    assert_eq!(found(&text, &users), ["0 L04", "1 L04"]);
    let granted = peer("{username, \"app\"}");
    let (with, without) = (found(&granted, &users), found(&granted, &linked(&["A"])));
    assert!(with.contains(&"1 L20".to_owned()) && !without.contains(&"1 L20".to_owned()), "{with:?}");
}

#[test]
fn what_strangers_and_peers_may_do_is_tried() {
    let open = "{allow, {clientid, {re, \"^clink-A-\"}}, {publish, [{qos, [0, 1]}, {retain, false}]}, \
                [\"$LINK/cluster/msg/A\"]}.\n{allow, all, all, [\"$LINK/cluster/resp/#\"]}.\n{deny, all}.";
    assert_eq!(found(open, &Inventory::default()), ["2 L07", "2 L08", "2 L22"]);
    let beyond = "{allow, {clientid, {re, \"^clink-A-\"}}, {publish, [{qos, [0, 1]}, {retain, false}]}, \
                  [\"$LINK/cluster/msg/+\"]}.\n{deny, all}.";
    assert_eq!(found(beyond, &Inventory::default()), ["1 L08"]);
    let named = peer("{clientid, {re, \"^clink-A-\"}}")
        .replace("[\"$LINK/cluster/msg/A\",", "[\"$LINK/cluster/msg/A\", \"$LINK/cluster/msg/C\",");
    assert_eq!(found(&named, &linked(&["A"])), ["1 L08", "1 L19"]);
    let outside = peer("{clientid, {re, \"^clink-A-\"}}")
        .replace("{deny, all}", "{allow, all, publish, [\"x/+\"]}.\n{deny, all}");
    assert_eq!(found(&outside, &linked(&["A"])), ["3 L09"]);
    let by_address = "{allow, {'and', [{clientid, {re, \"^clink-A-\"}}, {ipaddr, \"10.0.0.0/8\"}]}, \
                      {all, [{qos, [0, 1]}, {retain, false}]}, [\"$LINK/#\"]}.\n{deny, all}.";
    assert_eq!(found(by_address, &linked(&["A"])), ["1 L08"]);
}

#[test]
fn links_and_rules_must_agree() {
    let text = peer("{clientid, {re, \"^clink-A-\"}}");
    assert_eq!(found(&text, &linked(&["A", "B"])), ["0 L19", "0 L19", "0 L19"]);
    assert_eq!(
        found(&text, &linked(&["B"])),
        ["0 L19", "0 L19", "0 L19", "1 L19", "1 L19", "2 L19", "2 L19"]
    );
    let inventory = Inventory { no_match: Permission::Allow, ..linked(&["A"]) };
    assert_eq!(found(&text, &inventory), ["0 L13"]);
    let unclosed = text.replace("{deny, all}.", "{deny, all, all, [\"$LINK/#\", \"#\"]}.");
    assert_eq!(found(&unclosed, &linked(&["A"])), ["3 L13"]);
    let inventory = Inventory { link_listeners: vec!["ssl:link".to_owned()], ..linked(&["A"]) };
    assert_eq!(found(&text, &inventory), ["0 L23"]);
    assert!(!is_failure(&run(&text, Mode::Strict, &inventory)));
    let inventory = Inventory { deny_disconnects: true, ..inventory };
    assert_eq!(found(&text, &inventory), Vec::<String>::new());
}

#[test]
fn dead_and_impossible_rules_are_found() {
    let none = Inventory::default();
    let table = [
        ("{allow, all, all, [\"a/#\"]}.\n{deny, all, all, [\"a/b\"]}.", vec!["2 L10"]),
        ("{deny, all, all, [\"a/b\"]}.\n{allow, all, all, [\"a/#\"]}.", vec![]),
        (
            "{deny, {clientid, {re, \"^d-\"}}, all, all}.\n{allow, {clientid, \"d-1\"}, publish, [\"t\"]}.",
            vec!["2 L10"],
        ),
        ("{deny, all, {publish, [{retain, true}]}, [\"a\"]}.\n{allow, all, publish, [\"a\"]}.", vec![]),
        ("{deny, all, all, [\"u/+\"]}.\n{allow, all, all, [\"u/${clientid}\"]}.", vec!["2 L10"]),
        ("{allow, all}.\n{deny, all, all, [\"a\"]}.", vec!["1 L14", "2 L10"]),
        ("{allow, {'and', [{clientid, \"a\"}, {clientid, \"b\"}]}, all, all}.", vec!["1 L11"]),
        ("{allow, all, all, [\"$share/g/a\"]}.", vec!["1 L11"]),
        ("{allow, {security_profile, hardened}}.\n{deny, all}.", vec!["1 L14"]),
    ];
    for (text, expected) in table {
        assert_eq!(found(text, &none), expected, "{text}");
    }
    let inventory = Inventory { listeners: vec!["tcp:default".to_owned()], ..none };
    assert_eq!(found("{allow, {listener, \"ssl:x\"}, all, all}.", &inventory), ["1 L11"]);
    assert_eq!(found("{allow, {listener, {re, \"^tcp:\"}}, all, all}.", &inventory), Vec::<String>::new());
}

#[test]
fn the_looser_mode_has_findings_of_its_own() {
    assert_eq!(found_emqx("{allow, {'and', []}, all, [\"a\"]}."), ["1 L12"]);
    assert_eq!(found_emqx("{allow, all, all, []}."), ["1 L12"]);
    assert_eq!(found_emqx("{allow, all, subscribe, [\"t/+\"]}."), ["1 L18"]);
    assert_eq!(found_emqx("{allow, all, publish, [\"t/+\"]}."), Vec::<String>::new());
    assert_eq!(found_emqx("{deny, all, subscribe, [\"secret/x\"]}.\n{allow, all}."), ["1 L17"]);
    assert_eq!(found_emqx("{deny, all, subscribe, [\"$SYS/#\"]}.\n{allow, all}."), Vec::<String>::new());
    assert_eq!(found_emqx("{allow, all, all, [\"t/${peerhost}\"]}."), ["1 L25"]);
    assert_eq!(found_emqx("{allow, {ipaddr, \"2001:db8::/48\"}, all, [\"a\"]}."), ["1 L27"]);
}

#[test]
fn placeholders_are_looked_at() {
    let none = Inventory::default();
    assert_eq!(found("{deny, all, all, [\"u/${username}\"]}.", &none), ["1 L25"]);
    assert_eq!(found("{allow, all, all, [\"t${clientid}\"]}.", &none), ["1 L25"]);
    assert_eq!(found("{allow, all, all, [\"${zone}${clientid}/x\"]}.", &none), ["1 L25"]);
    assert_eq!(found("{allow, all, all, [\"t/${clientid}/x-${zone}\"]}.", &none), Vec::<String>::new());
}

#[test]
fn findings_are_bounded_and_rendered() {
    let rule = "{allow, {clientid, {re, \"clink\"}}, all, [\"$LINK/#\"]}.\n";
    let findings = run(&rule.repeat(600), Mode::Strict, &Inventory::default());
    assert!(findings.len() <= FINDINGS_MAX + 1);
    assert!(findings.iter().any(|f| f.message.contains("further findings")));
    let first = findings.iter().find(|f| f.line == 1).unwrap();
    assert!(first.render("x.conf").starts_with("x.conf:1: L01 error: `clink` is found"), "{first:?}");
    assert!(
        first.render("x.conf").ends_with("\n1 | {allow, {clientid, {re, \"clink\"}}, all, [\"$LINK/#\"]}.")
    );
}

/// The linter's work is bounded whatever the file.
#[test]
fn a_large_file_is_linted_within_its_budget() {
    let rule = |n: usize| {
        format!("{{allow, {{clientid, {{re, \"^p{n}-\"}}}}, all, [\"$LINK/cluster/msg/{n}\", \"x{n}\"]}}.\n")
    };
    let text: String = (0..10_000).map(rule).collect();
    let findings = run(&text, Mode::Strict, &Inventory::default());
    assert!(findings.iter().any(|f| f.id == "L26"));
    assert!(findings.len() <= FINDINGS_MAX + 1);
}

#[test]
fn what_is_generated_need_not_be_in_the_file() {
    let bare = "{deny, all}.";
    assert_eq!(found(bare, &linked(&["A"])), ["0 L19", "0 L19", "0 L19"]);
    let granted = Inventory { links_are_granted: true, ..linked(&["A"]) };
    assert_eq!(found(bare, &granted), Vec::<String>::new());
    let wrong = peer("{clientid, {re, \"^clink-B-\"}}");
    assert!(found(&wrong, &granted).contains(&"1 L19".to_owned()), "what it does say is looked at");
}
