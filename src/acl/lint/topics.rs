//! Topics that mean more or less than they look: L17, L18, L25.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use crate::acl::diagnostic::Code;
use crate::acl::eval::Request;
use crate::acl::eval::Subject;
use crate::acl::lint::Linter;
use crate::acl::lint::Severity;
use crate::acl::rule::Condition;
use crate::acl::rule::Mode;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;
use crate::acl::template::Placeholder;
use crate::acl::template::Segment;
use crate::acl::template::Template;
use crate::mqtt::packet::QoS;

/// The most filters whose escape is tried (L17).
const ESCAPES_MAX: usize = 256;

impl Linter<'_> {
    pub(super) fn topics(&mut self) {
        let rules = self.rules;
        for warning in &rules.warnings {
            if warning.code == Code::E211 {
                self.note("L25", Severity::Warning, warning.line, warning.message.clone());
            }
        }
        let mut escapes = 0;
        for rule in &rules.rules {
            let Topics::List(entries) = &rule.topics else { continue };
            for entry in entries {
                match entry {
                    TopicMatch::Template(template) => self.template(rule, template),
                    TopicMatch::Filter { filter, .. } if rules.mode == Mode::Emqx => {
                        self.plus(rule, filter);
                        if rule.permission == Permission::Deny && escapes < ESCAPES_MAX {
                            escapes += 1;
                            self.escape(rule, filter);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn template(&mut self, rule: &Rule, template: &Template) {
        let source = template.source();
        let username = template.segments().contains(&Segment::Value(Placeholder::Username));
        if rule.permission == Permission::Deny && username {
            let message = format!(
                "`{source}` in a deny: EMQX renders a missing username as `undefined`, so the deny misses; \
                 strict mode widens the level to `+`"
            );
            self.note("L25", Severity::Warning, rule.line, message);
        }
        if has_glued_placeholder(template) {
            let message = format!("`{source}`: a placeholder without a separator beside it; write `/${{…}}`");
            self.note("L25", Severity::Warning, rule.line, message);
        }
    }

    /// L18: EMQX compares the filter of a SUBSCRIBE level by level, and `+` equals anything, `#` included.
    fn plus(&mut self, rule: &Rule, filter: &str) {
        let last = filter.rsplit('/').next();
        if rule.permission == Permission::Allow && rule.action.subscribe && last == Some("+") {
            let message =
                format!("`{filter}` also allows to subscribe with `#` in place of `+`: use strict mode");
            self.note("L18", Severity::Warning, rule.line, message);
        }
    }

    /// L17: a subscription wider than the deny is not hit by it.
    fn escape(&mut self, rule: &Rule, filter: &str) {
        if !rule.action.subscribe || rule.condition != Condition::All {
            return;
        }
        let attributes = BTreeMap::new();
        let subject = Subject {
            client_id: "stranger",
            username: None,
            peer_host: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            cert_common_name: None,
            zone: "default",
            listener: "tcp:default",
            client_attrs: &attributes,
            is_superuser: false,
        };
        let wider = wider_filters(filter);
        let escaped = wider.iter().find(|wider| {
            let request = Request::Subscribe { filter: wider, qos: QoS::AtMostOnce };
            let verdict = self.rules.authorize(&subject, &request, self.inventory.no_match);
            verdict.permission == Permission::Allow
        });
        if let Some(escaped) = escaped {
            let message = format!(
                "`{filter}` is denied, but `{escaped}`, which covers it, is allowed: add `{{eq, \"{escaped}\"}}` \
                 or use strict mode"
            );
            self.note("L17", Severity::Warning, rule.line, message);
        }
    }
}

/// Filters that cover `filter`: each beginning of it with `#`, and `+` in place of its last level.
fn wider_filters(filter: &str) -> Vec<String> {
    let mut wider = Vec::new();
    if !filter.starts_with('$') {
        wider.push("#".to_owned());
    }
    wider.extend(filter.match_indices('/').map(|(at, _)| format!("{}/#", &filter[..at])));
    if let Some((head, _)) = filter.rsplit_once('/') {
        wider.push(format!("{head}/+"));
    }
    // `a/+` does not cover `a/#`.
    let open = filter.ends_with("/#");
    wider.retain(|wide| wide != filter && !(open && wide.ends_with("/+")));
    wider
}

/// `t${clientid}`: the name `ab` reaches what was meant for `b` under `ta`.
fn has_glued_placeholder(template: &Template) -> bool {
    template.segments().windows(2).any(|pair| match pair {
        [Segment::Text(text), Segment::Value(_)] => text.ends_with(char::is_alphanumeric),
        [Segment::Value(_), Segment::Text(text)] => text.starts_with(char::is_alphanumeric),
        [Segment::Value(_), Segment::Value(_)] => true,
        _ => false,
    })
}
