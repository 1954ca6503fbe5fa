//! The files that are shipped in `acl/`: they load, say what they mean, and the linter agrees.

use std::collections::BTreeMap;
use std::fs;

use tombolo::acl::CompileOptions;
use tombolo::acl::Finding;
use tombolo::acl::Inventory;
use tombolo::acl::LinkInfo;
use tombolo::acl::Mode;
use tombolo::acl::Permission;
use tombolo::acl::Request;
use tombolo::acl::RuleSet;
use tombolo::acl::SecurityProfile;
use tombolo::acl::Subject;
use tombolo::acl::lint;
use tombolo::mqtt::packet::QoS;

fn text(name: &str) -> String {
    fs::read_to_string(format!("{}/acl/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn compile(name: &str, mode: Mode, security_profile: SecurityProfile) -> RuleSet {
    let options = CompileOptions { mode, security_profile };
    RuleSet::compile(text(name), &options).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| e.render(name)).collect::<Vec<_>>().join("\n"))
    })
}

fn link(name: &str) -> LinkInfo {
    LinkInfo { name: name.to_owned(), clientid_prefix: format!("clink-{name}-"), username: None }
}

fn findings(name: &str, links: &[&str]) -> Vec<Finding> {
    let inventory =
        Inventory { links: links.iter().map(|name| link(name)).collect(), ..Inventory::default() };
    lint(&compile(name, Mode::Strict, SecurityProfile::Legacy), &text(name), &inventory)
}

fn rendered(name: &str, links: &[&str]) -> Vec<String> {
    findings(name, links).iter().map(|finding| finding.render(name)).collect()
}

#[test]
fn what_is_shipped_for_use_is_clean() {
    let clean: [String; 0] = [];
    assert_eq!(rendered("acl.conf", &[]), clean);
    assert_eq!(rendered("links.conf", &["A", "C"]), clean);
    assert_eq!(rendered("links.conf", &[]), clean);
    assert_eq!(rendered("cluster-a.conf", &["B"]), clean);
    assert_eq!(rendered("cluster-b.conf", &["A"]), clean);
    assert_eq!(rendered("cluster-a.conf", &[]), clean);
}

#[test]
fn the_recipe_is_found_out_with_and_without_a_configuration() {
    for links in [&["A", "C"][..], &[]] {
        let found = findings("link-recipe.conf", links);
        let ids: Vec<&str> = found.iter().map(|finding| finding.id).collect();
        assert_eq!(ids, ["L08", "L22", "L08", "L22", "L09", "L09"], "{found:?}");
    }
}

fn decide(rules: &RuleSet, client_id: &str, username: Option<&str>, request: Request<'_>) -> Permission {
    let subject = Subject {
        client_id,
        username,
        peer_host: Some("127.0.0.1".parse().unwrap()),
        cert_common_name: None,
        zone: "default",
        listener: "tcp:default",
        client_attrs: &BTreeMap::new(),
        is_superuser: false,
    };
    rules.authorize(&subject, &request, Permission::Deny).permission
}

fn publish(topic: &str) -> Request<'_> {
    Request::Publish { topic, qos: QoS::AtLeastOnce, retain: false }
}

fn subscribe(filter: &str) -> Request<'_> {
    Request::Subscribe { filter, qos: QoS::AtLeastOnce }
}

#[test]
fn the_default_file_opens_applications_and_closes_the_broker() {
    for mode in [Mode::Strict, Mode::Emqx] {
        let rules = compile("acl.conf", mode, SecurityProfile::Legacy);
        let dashboard = |request: Request<'_>| decide(&rules, "c", Some("dashboard"), request);
        assert_eq!(dashboard(subscribe("$SYS/#")), Permission::Allow);
        assert_eq!(dashboard(publish("$SYS/x")), Permission::Deny);
        let anyone = |request: Request<'_>| decide(&rules, "c", None, request);
        for open in ["a", "a/b/#", "+/+", "$share/g/a/#", "$mine/x"] {
            assert_eq!(anyone(subscribe(open)), Permission::Allow, "{open}");
        }
        for closed in
            ["#", "+/#", "$SYS/#", "$SYS/x", "$LINK/#", "$LINK/+/msg/A", "$share/g/$LINK/#", "$share/g/#"]
        {
            assert_eq!(anyone(subscribe(closed)), Permission::Deny, "{closed}");
        }
        assert_eq!(anyone(publish("a/b")), Permission::Allow);
        for closed in ["$SYS/x", "$LINK/cluster/msg/A", "$delayed/5/$LINK/cluster/route/A"] {
            assert_eq!(anyone(publish(closed)), Permission::Deny, "{closed}");
        }
    }
    let hardened = compile("acl.conf", Mode::Strict, SecurityProfile::Hardened);
    assert_eq!(decide(&hardened, "c", None, publish("a")), Permission::Deny);
}

#[test]
fn the_two_clusters_admit_each_other_and_applications() {
    for (file, peer, me) in [("cluster-a.conf", "B", "A"), ("cluster-b.conf", "A", "B")] {
        for mode in [Mode::Strict, Mode::Emqx] {
            let rules = compile(file, mode, SecurityProfile::Hardened);
            let id = format!("clink-{peer}-:msg:1a2b3c4d:1");
            let linked = |request: Request<'_>| decide(&rules, &id, None, request);
            for kind in ["msg", "route"] {
                assert_eq!(linked(publish(&format!("$LINK/cluster/{kind}/{peer}"))), Permission::Allow);
                assert_eq!(linked(publish(&format!("$LINK/cluster/{kind}/{me}"))), Permission::Deny);
            }
            assert_eq!(linked(subscribe(&format!("$LINK/cluster/resp/{peer}/n"))), Permission::Allow);
            assert_eq!(linked(subscribe(&format!("$LINK/cluster/resp/{me}/n"))), Permission::Deny);
            assert_eq!(linked(publish("a")), Permission::Deny);
            assert_eq!(linked(subscribe("#")), Permission::Deny);
            let anyone = |request: Request<'_>| decide(&rules, "sensor-1", None, request);
            assert_eq!(anyone(publish("a/b")), Permission::Allow);
            assert_eq!(anyone(subscribe("#")), Permission::Allow);
            assert_eq!(anyone(publish("$LINK/cluster/msg/A")), Permission::Deny);
            assert_eq!(anyone(subscribe("$SYS/#")), Permission::Deny);
            assert_eq!(anyone(publish("$other/x")), Permission::Deny);
            assert_eq!(
                decide(&rules, "clink-BA-x", None, publish(&format!("$LINK/cluster/msg/{peer}"))),
                Permission::Deny
            );
        }
    }
}
