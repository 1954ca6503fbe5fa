//! Rules on trial: asked beside the ones in force about everything that clients do, they decide nothing, and count
//! the verdicts that would be others.
//!
//! A connection remembers the verdict on its topics, and so a change is counted once for each client, topic, QoS and
//! RETAIN rather than once for each message. What confinement refuses is not asked: no file changes it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::acl::eval::DecidedBy;
use crate::acl::eval::Request;
use crate::acl::eval::RuleSet;
use crate::acl::eval::Subject;
use crate::acl::eval::Verdict;
use crate::acl::rule::Permission;

/// Characters of an example.
const EXAMPLE_CHARS_MAX: usize = 200;

/// A rule set beside the one in force.
#[derive(Debug)]
pub struct Shadow {
    /// What the operator called it.
    pub name: String,
    /// The file as it was sent: it is written when the rules are applied.
    pub text: String,
    /// The rules.
    pub rules: RuleSet,
    /// When the trial began, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    no_match: Permission,
    asked: AtomicU64,
    /// For each rule, and last for `no_match`.
    changes: Box<[Change]>,
}

#[derive(Debug, Default)]
struct Change {
    allowed: AtomicU64,
    denied: AtomicU64,
    example: OnceLock<String>,
}

/// Verdicts that one rule of the file on trial would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeView {
    /// Line and text of the rule; none for `no_match`.
    pub rule: Option<(u32, String)>,
    /// Denied now, and would be allowed.
    pub allowed: u64,
    /// Allowed now, and would be denied.
    pub denied: u64,
    /// The first of them.
    pub example: String,
}

impl Shadow {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(name: String, text: String, rules: RuleSet, no_match: Permission, since_unix_ms: u64) -> Self {
        let changes = (0..=rules.len()).map(|_| Change::default()).collect();
        Self { name, text, rules, since_unix_ms, no_match, asked: AtomicU64::new(0), changes }
    }

    /// Asks about what was decided just now.
    pub fn compare(&self, client: &Subject<'_>, request: &Request<'_>, verdict: Verdict) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let other = self.rules.authorize(client, request, self.no_match);
        if other.permission == verdict.permission {
            return;
        }
        let place = match other.by {
            DecidedBy::Rule { index, .. } => index,
            _ => self.rules.len(),
        };
        let Some(change) = self.changes.get(place) else { return };
        let count = match other.permission {
            Permission::Allow => &change.allowed,
            Permission::Deny => &change.denied,
        };
        count.fetch_add(1, Ordering::Relaxed);
        change.example.get_or_init(|| example(client, request, verdict));
    }

    /// Questions so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// What would change, in the order of the file.
    #[must_use]
    pub fn changes(&self) -> Vec<ChangeView> {
        let rules = self.rules.rules().iter().map(Some).chain([None]);
        let changed = rules.zip(&self.changes).filter_map(|(rule, change)| {
            let (allowed, denied) =
                (change.allowed.load(Ordering::Relaxed), change.denied.load(Ordering::Relaxed));
            (allowed + denied > 0).then(|| ChangeView {
                rule: rule.map(|rule| (rule.line, rule.to_string())),
                allowed,
                denied,
                example: change.example.get().cloned().unwrap_or_default(),
            })
        });
        changed.collect()
    }
}

fn example(client: &Subject<'_>, request: &Request<'_>, verdict: Verdict) -> String {
    let verb = match request {
        Request::Publish { .. } => "publish",
        Request::Subscribe { .. } => "subscribe to",
    };
    let now = match verdict.permission {
        Permission::Allow => "allowed",
        Permission::Deny => "denied",
    };
    let text = format!("{} to {verb} {}: {now} by {}", client.client_id, request.topic(), verdict.by);
    text.chars().take(EXAMPLE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::acl::CompileOptions;
    use crate::mqtt::packet::QoS;

    #[test]
    fn verdicts_that_would_change_are_counted_by_the_rule_that_changes_them() {
        let compile = |text: &str| RuleSet::compile(text, &CompileOptions::default()).unwrap();
        let now = compile("{allow, all, all, [\"a/#\"]}.\n{deny, all}.");
        let new = "{deny, all, publish, [\"a/b\"]}.\n{allow, all, all, [\"a/#\", \"c\"]}.";
        let shadow = Shadow::new("new".to_owned(), new.to_owned(), compile(new), Permission::Allow, 0);
        let attributes = BTreeMap::new();
        let client = Subject {
            client_id: "x",
            username: None,
            peer_host: None,
            cert_common_name: None,
            zone: "default",
            listener: "tcp:default",
            client_attrs: &attributes,
            is_superuser: false,
        };
        for topic in ["a/b", "a/b", "a/c", "c", "d"] {
            let request = Request::Publish { topic, qos: QoS::AtMostOnce, retain: false };
            shadow.compare(&client, &request, now.authorize(&client, &request, Permission::Deny));
        }
        assert_eq!(shadow.asked(), 5);
        let changes = shadow.changes();
        let counts: Vec<_> = changes
            .iter()
            .map(|it| (it.rule.as_ref().map(|(line, _)| *line), it.allowed, it.denied, it.example.as_str()))
            .collect();
        assert_eq!(
            counts,
            [
                (Some(1), 0, 2, "x to publish a/b: allowed by rule 1 (line 1)"),
                (Some(2), 1, 0, "x to publish c: denied by rule 2 (line 2)"),
                (None, 1, 0, "x to publish d: denied by rule 2 (line 2)"),
            ]
        );
    }
}
