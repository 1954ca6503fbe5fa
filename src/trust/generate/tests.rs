use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::acl::CompileOptions;
use crate::acl::Inventory;
use crate::acl::Mode;
use crate::acl::Permission;
use crate::acl::Request;
use crate::acl::RuleSet;
use crate::acl::Subject;
use crate::acl::lint;
use crate::mqtt::packet::QoS;

use super::*;

fn peer(cluster: &str) -> Peer {
    Peer {
        cluster: cluster.to_owned(),
        prefix: format!("clink-{cluster}-"),
        can_forward: true,
        can_sync_routes: true,
    }
}

fn compile(text: &str, mode: Mode) -> RuleSet {
    RuleSet::compile(text, &CompileOptions { mode, ..CompileOptions::default() })
        .unwrap_or_else(|errors| panic!("{}\n{text}", errors[0].render("generated")))
}

/// Who asks: the attribute, the ClientID, the User Name, the common name.
#[derive(Clone, Copy, Default)]
struct Who<'a> {
    link_id: Option<&'a str>,
    client_id: &'a str,
    username: Option<&'a str>,
    common_name: Option<&'a str>,
}

fn may(rules: &RuleSet, who: Who<'_>, request: &Request<'_>) -> bool {
    let client_attrs: BTreeMap<String, String> =
        who.link_id.map(|id| ("link_id".to_owned(), id.to_owned())).into_iter().collect();
    let subject = Subject {
        client_id: who.client_id,
        username: who.username,
        peer_host: Some([127, 0, 0, 1].into()),
        cert_common_name: who.common_name,
        zone: "default",
        listener: "ssl:links",
        client_attrs: &client_attrs,
        is_superuser: false,
    };
    rules.authorize(&subject, request, Permission::Deny).permission == Permission::Allow
}

fn publish(topic: &str, qos: u8, retain: bool) -> Request<'_> {
    Request::Publish { topic, qos: QoS::from_u8(qos).unwrap(), retain }
}

fn subscribe(filter: &str, qos: u8) -> Request<'_> {
    Request::Subscribe { filter, qos: QoS::from_u8(qos).unwrap() }
}

#[test]
fn the_rules_are_those_of_the_specification() {
    let text = rules(&[peer("A")]);
    let expected = r#"%% Generated: what linked clusters may do, and nobody else.
{allow, {'and', [{client_attr, "link_id", "A"}, {clientid, {re, "^clink-A-"}}]}, {publish, [{qos, [0,1,2]}, {retain, false}]}, ["$LINK/cluster/msg/A"]}.
{allow, {'and', [{client_attr, "link_id", "A"}, {clientid, {re, "^clink-A-"}}]}, {publish, [{qos, [0,1]}, {retain, false}]}, ["$LINK/cluster/route/A"]}.
{allow, {'and', [{client_attr, "link_id", "A"}, {clientid, {re, "^clink-A-"}}]}, {subscribe, [{qos, [0,1]}]}, ["$LINK/cluster/resp/A/+"]}.
%% A linked cluster does nothing else.
{deny, {client_attr, "link_id", {re, ""}}, all, all}.
%% Nobody else comes under the prefix of one, or reaches what is between brokers.
{deny, {clientid, {re, "^clink-A-"}}, all, all}.
{deny, all, all, ["$LINK/#"]}.
"#;
    assert_eq!(text, expected);
}

/// Cases 122 to 131 of `acl-language.md`, with an operator's file behind the rules. Of 125 the generator says otherwise: EMQX
/// forwards at QoS 2.
#[test]
fn the_decision_cases_hold() {
    let text = format!("{}{{allow, all, all, [\"app/#\"]}}.\n{{deny, all}}.\n", rules(&[peer("A")]));
    let (msg, route, resp) = ("$LINK/cluster/msg/A", "$LINK/cluster/route/C", "$LINK/cluster/resp/A/emqx@n1");
    let id = "clink-A-:msg:1a2b3c4d:1";
    let a = Who { link_id: Some("A"), client_id: id, ..Who::default() };
    let squatter = Who { link_id: None, ..a };
    let cases = [
        (122, a, publish(msg, 1, false), true),
        (123, Who { client_id: "clink-A-:routesync:1a2b3c4d", ..a }, subscribe(resp, 1), true),
        (124, a, publish(msg, 1, true), false),
        (125, a, publish(msg, 2, false), true),
        (126, a, publish("app/x", 0, false), false),
        (127, squatter, publish(msg, 1, false), false),
        (128, squatter, publish("app/x", 0, false), false),
        (
            129,
            Who { client_id: "clink-C-:msg:1a2b3c4d:1", ..a },
            publish("$LINK/cluster/msg/C", 1, false),
            false,
        ),
        (130, Who { client_id: "clink-A-:r", ..a }, publish(route, 1, false), false),
        (131, Who { client_id: "sensor-1", ..Who::default() }, publish("app/x", 0, false), true),
    ];
    for mode in [Mode::Strict, Mode::Emqx] {
        let rules = compile(&text, mode);
        for (number, who, request, allowed) in &cases {
            assert_eq!(may(&rules, *who, request), *allowed, "{number} {mode:?}");
        }
        assert!(
            !may(&rules, a, &publish("$LINK/cluster/route/A", 2, false)),
            "routes are told at QoS 0 and 1"
        );
        assert!(may(&rules, a, &publish("$LINK/cluster/route/A", 1, false)));
        assert!(!may(&rules, a, &subscribe("$LINK/#", 0)) && !may(&rules, a, &subscribe("#", 0)));
    }
}

#[test]
fn who_may_only_one_thing_gets_only_that() {
    let write_only = Peer { can_sync_routes: false, ..peer("A") };
    let read_only = Peer { can_forward: false, ..peer("B") };
    let nothing = Peer { can_forward: false, can_sync_routes: false, ..peer("C") };
    let rules = compile(&rules(&[write_only, read_only, nothing]), Mode::Strict);
    for (cluster, forward, sync) in [("A", true, false), ("B", false, true), ("C", false, false)] {
        let id = format!("clink-{cluster}-:x");
        let who = Who { link_id: Some(cluster), client_id: &id, ..Who::default() };
        let topic = |kind: &str| format!("$LINK/cluster/{kind}/{cluster}");
        assert_eq!(may(&rules, who, &publish(&topic("msg"), 0, false)), forward);
        assert_eq!(may(&rules, who, &publish(&topic("route"), 0, false)), sync);
        assert_eq!(may(&rules, who, &subscribe(&format!("{}/+", topic("resp")), 1)), sync);
        assert!(!may(&rules, Who { link_id: None, ..who }, &subscribe("a", 0)), "the prefix is reserved");
    }
}

#[test]
fn the_rules_lint_clean_and_each_peer_reaches_its_own_alone() {
    let names = ["A", "AB", "A-b", "a.b", "emqx"];
    let peers: Vec<Peer> = names.iter().map(|name| peer(name)).collect();
    let text = format!("{}{{allow, all, all, [\"app/#\"]}}.\n{{deny, all}}.\n", rules(&peers));
    let rules = compile(&text, Mode::Strict);
    assert!(rules.warnings().is_empty());
    let findings = lint(&rules, &text, &Inventory::default());
    assert!(!lint::is_failure(&findings), "{}", findings[0].render("generated"));
    for one in names {
        for other in names {
            let id = format!("clink-{one}-:x");
            let who = Who { link_id: Some(one), client_id: &id, ..Who::default() };
            let topic = format!("$LINK/cluster/msg/{other}");
            assert_eq!(may(&rules, who, &publish(&topic, 1, false)), one == other, "{one} {other}");
            // With the name of one and the ClientID of another.
            let mixed = Who { link_id: Some(other), ..who };
            let shares_prefix = id.starts_with(&format!("clink-{other}-"));
            assert_eq!(may(&rules, mixed, &publish(&topic, 1, false)), shares_prefix, "{one} {other}");
        }
    }
}

#[test]
fn an_empty_prefix_reserves_nothing() {
    let one = Peer { prefix: String::new(), ..peer("A") };
    assert_eq!(rules(&[one]), rules(&[]));
}

#[test]
fn without_peers_the_control_topics_are_closed() {
    let rules = compile(&format!("{}{{allow, all}}.\n", rules(&[])), Mode::Strict);
    let who = Who { client_id: "c", ..Who::default() };
    assert!(
        !may(&rules, who, &publish("$LINK/cluster/msg/A", 0, false))
            && may(&rules, who, &publish("a", 0, false))
    );
}

#[test]
fn an_emqx_broker_gets_the_same_by_username_or_common_name() {
    let text = emqx_export(&[
        (peer("A"), Shown::Username("clink \"A\"\\\n".to_owned())),
        (peer("B"), Shown::CommonName),
    ]);
    assert!(!text.contains("link_id") && !text.contains("client_attr"));
    let rules = compile(&format!("{text}{{allow, all, all, [\"app/#\"]}}.\n"), Mode::Emqx);
    let a = Who { client_id: "clink-A-:x", username: Some("clink \"A\"\\\n"), ..Who::default() };
    let b = Who { client_id: "clink-B-:x", common_name: Some("B"), ..Who::default() };
    for (who, cluster) in [(a, "A"), (b, "B")] {
        for other in ["A", "B", "C"] {
            let own = cluster == other;
            assert_eq!(may(&rules, who, &publish(&format!("$LINK/cluster/msg/{other}"), 2, false)), own);
            assert_eq!(may(&rules, who, &publish(&format!("$LINK/cluster/route/{other}"), 1, false)), own);
            assert_eq!(may(&rules, who, &subscribe(&format!("$LINK/cluster/resp/{other}/n1"), 1)), own);
        }
        assert!(!may(&rules, who, &publish("app/x", 0, false)), "{cluster} does nothing else");
    }
    for who in [
        Who { username: Some("app"), ..a },
        Who { client_id: "c", ..a },
        Who { common_name: None, ..b },
        Who { common_name: Some("A"), ..b },
        Who { client_id: "c", ..b },
    ] {
        for topic in ["$LINK/cluster/msg/A", "$LINK/cluster/msg/B"] {
            let is_another_cluster = who.common_name == Some("A") && topic.ends_with('A');
            assert_eq!(may(&rules, who, &publish(topic, 1, false)), is_another_cluster, "{topic}");
        }
    }
    assert!(may(&rules, Who { client_id: "c", ..Who::default() }, &publish("app/x", 0, false)));
}

proptest! {
    /// Whatever a prefix holds, the rules are read, and hold for what begins with it and for nothing else.
    #[test]
    fn prefixes_are_taken_literally(prefix in "[ -\"$-*,-.0-~é]{1,12}", other in "[ -\"$-*,-.0-~]{1,12}") {
        let one = Peer { prefix: prefix.clone(), ..peer("A") };
        let rules = compile(&rules(&[one]), Mode::Strict);
        for id in [format!("{prefix}:x"), other] {
            let who = Who { link_id: Some("A"), client_id: &id, ..Who::default() };
            prop_assert_eq!(may(&rules, who, &publish("$LINK/cluster/msg/A", 1, false)), id.starts_with(&prefix));
        }
    }
}
