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

pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "acl: 10 rules, the first decides", operations: 64, make: || rules(10, "r/0/x") },
    Bench { name: "acl: 10 rules, the last decides", operations: 64, make: || rules(10, "r/9/x") },
    Bench { name: "acl: 10 rules, none matches", operations: 64, make: || rules(10, TOPIC) },
    Bench { name: "acl: 100 rules, the last decides", operations: 64, make: || rules(100, "r/99/x") },
    Bench { name: "acl: 1,000 rules, the last decides", operations: 8, make: || rules(1_000, "r/999/x") },
    Bench { name: "acl: 10,000 rules, the first decides", operations: 64, make: || rules(10_000, "r/0/x") },
    Bench { name: "acl: 10,000 rules, the last decides", operations: 1, make: || rules(10_000, "r/9999/x") },
    Bench { name: "acl: 10,000 rules, none matches", operations: 1, make: || rules(10_000, TOPIC) },
    Bench { name: "acl: shipped file, publish", operations: 64, make: || asking(SHIPPED_ACL, TOPIC, 64) },
];

fn rules(count: usize, topic: &'static str) -> Box<dyn Body> {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, "{{allow, {{username, \"machine\"}}, publish, [\"r/{n}/+\"]}}.").unwrap();
    }
    let operations = match count {
        10_000 if topic != "r/0/x" => 1,
        1_000 => 8,
        _ => 64,
    };
    asking(&text, topic, operations)
}

fn asking(text: &str, topic: &'static str, operations: usize) -> Box<dyn Body> {
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
        for _ in 0..operations {
            let request = Request::Publish { topic: black_box(topic), qos: QoS::AtMostOnce, retain: false };
            black_box(rules.authorize(&subject, &request, Permission::Deny));
        }
    })
}
