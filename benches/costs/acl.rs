//! One question to the rules: what a connection asks once per topic.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use tombolo::acl::compile::CompileOptions;
use tombolo::acl::eval::Request;
use tombolo::acl::eval::RuleSet;
use tombolo::acl::eval::Subject;
use tombolo::acl::rule::Permission;
use tombolo::config::settings::SHIPPED_ACL;
use tombolo::mqtt::packet::QoS;

use crate::TOPIC;
use crate::harness::Bench;
use crate::harness::Body;

const OPERATIONS: u32 = 64;
/// What a plant may have: links, consoles, machines that keep to their own topics, and an end.
const TYPICAL: &str = r##"
{allow, {'and', [{username, "link"}, {clientid, {re, "^clink-B-"}}]}, all, ["$LINK/cluster/msg/B", "$LINK/cluster/route/B"]}.
{deny, all, all, ["$LINK/#"]}.
{allow, {username, "console"}, subscribe, ["$SYS/#"]}.
{deny, all, subscribe, ["$SYS/#", {eq, "#"}, {eq, "+/#"}]}.
{allow, {username, {re, "^console"}}, all, ["#"]}.
{allow, {ipaddr, "10.0.0.0/8"}, subscribe, ["site/#"]}.
{allow, all, subscribe, ["site/+/command/${clientid}"]}.
{allow, all, publish, ["machine/${clientid}/#"]}.
{allow, {'or', [{username, "machine"}, {client_attr, kind, "machine"}]}, publish, ["site/+/machine/+/state"]}.
{deny, all}.
"##;

pub(crate) const BENCHES: &[Bench] = &[
    bench("acl: 10 rules, the first decides", || topics(10, "r/0/x")),
    bench("acl: 10 rules, the last decides", || topics(10, "r/9/x")),
    bench("acl: 10 rules, none matches", || topics(10, TOPIC)),
    bench("acl: 100 rules, the last decides", || topics(100, "r/99/x")),
    bench("acl: 1,000 rules, the last decides", || topics(1_000, "r/999/x")),
    bench("acl: 10,000 rules, the first decides", || topics(10_000, "r/0/x")),
    bench("acl: 10,000 rules, the last decides", || topics(10_000, "r/9999/x")),
    bench("acl: 10,000 rules, none matches", || topics(10_000, TOPIC)),
    bench("acl: 10 ClientIDs, the last decides", || clients(10, "clientid")),
    bench("acl: 100 ClientIDs, the last decides", || clients(100, "clientid")),
    bench("acl: 1,000 ClientIDs, the last decides", || clients(1_000, "clientid")),
    bench("acl: 10,000 ClientIDs, the last decides", || clients(10_000, "clientid")),
    bench("acl: 10,000 usernames, the last decides", || clients(10_000, "username")),
    bench("acl: 100 rules by address, asked in line", || addresses(100)),
    bench("acl: a rule with a placeholder", || {
        asking("{allow, all, all, [\"site/12/${clientid}/#\", \"site/+/machine/+/#\"]}.", TOPIC)
    }),
    bench("acl: typical file of 10 rules, the 9th decides", || asking(TYPICAL, TOPIC)),
    bench("acl: shipped file, publish", || asking(SHIPPED_ACL, TOPIC)),
];

const fn bench(name: &'static str, make: fn() -> Box<dyn Body>) -> Bench {
    Bench { name, operations: OPERATIONS, make }
}

/// One username, and a topic of its own for each rule.
fn topics(count: usize, topic: &'static str) -> Box<dyn Body> {
    rules(count, topic, |n| format!("{{allow, {{username, \"machine\"}}, publish, [\"r/{n}/+\"]}}.\n"))
}

/// One topic, and a name of its own for each rule.
fn clients(count: usize, field: &str) -> Box<dyn Body> {
    let name = |n| match (n + 1 == count, field) {
        (true, "username") => "machine".to_owned(),
        (true, _) => "machine-0007".to_owned(),
        _ => format!("other-{n}"),
    };
    rules(count, TOPIC, |n| format!("{{allow, {{{field}, \"{}\"}}, publish, [\"site/#\"]}}.\n", name(n)))
}

/// What no index can file: the address of the last rule holds.
fn addresses(count: usize) -> Box<dyn Body> {
    let address = |n| if n + 1 == count { "192.0.2.7".to_owned() } else { format!("10.0.{n}.0/24") };
    rules(count, TOPIC, |n| format!("{{allow, {{ipaddr, \"{}\"}}, publish, [\"#\"]}}.\n", address(n)))
}

fn rules(count: usize, topic: &'static str, rule: impl Fn(usize) -> String) -> Box<dyn Body> {
    let mut text = String::new();
    (0..count).for_each(|n| write!(text, "{}", rule(n)).unwrap());
    asking(&text, topic)
}

fn asking(text: &str, topic: &'static str) -> Box<dyn Body> {
    let rules = RuleSet::compile(text, &CompileOptions::default()).unwrap();
    let attributes = BTreeMap::new();
    Box::new(move || {
        let subject = Subject {
            client_id: "machine-0007",
            username: Some("machine"),
            peer_host: "192.0.2.7".parse().ok(),
            cert_common_name: None,
            zone: "default",
            listener: "tcp:default",
            client_attrs: &attributes,
            is_superuser: false,
        };
        for _ in 0..OPERATIONS {
            let request = Request::Publish { topic: black_box(topic), qos: QoS::AtMostOnce, retain: false };
            black_box(rules.authorize(&subject, &request, Permission::Deny));
        }
    })
}
