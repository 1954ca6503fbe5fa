//! Rules that an earlier one makes pointless, and rules that can never match: L10, L11.

use crate::acl::cover;
use crate::acl::diagnostic::Code;
use crate::acl::lint::Field;
use crate::acl::lint::Linter;
use crate::acl::lint::Severity;
use crate::acl::lint::entry_text;
use crate::acl::lint::matchers;
use crate::acl::rule::Action;
use crate::acl::rule::Condition;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::SecurityProfile;
use crate::acl::rule::TextMatch;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;

/// The most comparisons of topics and conditions spent on looking for dead rules.
const COMPARISONS_MAX: usize = 5_000_000;

impl Linter<'_> {
    pub(super) fn order(&mut self) {
        self.dead_rules();
        self.impossible();
    }

    fn dead_rules(&mut self) {
        let mut budget = COMPARISONS_MAX;
        let (mut allows, mut denies): (Vec<&Rule>, Vec<&Rule>) = (Vec::new(), Vec::new());
        for rule in &self.rules.rules {
            let (same, opposite) = match rule.permission {
                Permission::Allow => (&mut allows, &denies),
                Permission::Deny => (&mut denies, &allows),
            };
            same.push(rule);
            for earlier in opposite {
                budget = budget.saturating_sub(1 + cost(rule).saturating_mul(cost(earlier)));
                if budget == 0 {
                    let message = "too large to look for rules that are never reached";
                    self.note("L26", Severity::Info, 0, message);
                    return;
                }
                if rule_covers(earlier, rule, self.rules.profile) {
                    let message = format!(
                        "this {} is never reached: the {} in line {} covers it",
                        rule.permission, earlier.permission, earlier.line
                    );
                    self.note("L10", Severity::Warning, rule.line, message);
                    break;
                }
            }
        }
    }

    fn impossible(&mut self) {
        let rules = self.rules;
        for warning in &rules.warnings {
            if matches!(warning.code, Code::E210 | Code::E302) {
                self.note("L11", Severity::Warning, warning.line, warning.message.clone());
            }
        }
        for rule in &rules.rules {
            if let Some(name) = contradiction(&rule.condition) {
                let message = format!("no client has two different values of {name}");
                self.note("L11", Severity::Warning, rule.line, message);
            }
            self.listeners(rule);
            let Topics::List(entries) = &rule.topics else { continue };
            for text in entries.iter().map(entry_text) {
                if ["$share/", "$queue/", "$exclusive/", "$delayed/"].iter().any(|p| text.starts_with(p)) {
                    let message = format!("`{text}` never matches: rules see topics without that prefix");
                    self.note("L11", Severity::Warning, rule.line, message);
                }
            }
        }
    }

    fn listeners(&mut self, rule: &Rule) {
        let known = &self.inventory.listeners;
        if known.is_empty() {
            return;
        }
        let mut unknown = Vec::new();
        matchers(&rule.condition, &mut |field, matcher| {
            if field == Field::Listener && !known.iter().any(|id| matcher.holds(id)) {
                unknown.push(matcher.to_string());
            }
        });
        for name in unknown {
            self.note("L11", Severity::Warning, rule.line, format!("no listener matches {name}"));
        }
    }
}

fn cost(rule: &Rule) -> usize {
    match &rule.topics {
        Topics::All => 1,
        Topics::List(entries) => entries.len().max(1),
    }
}

/// Whether everything that `rule` decides is decided by `earlier`.
fn rule_covers(earlier: &Rule, rule: &Rule, profile: SecurityProfile) -> bool {
    action_covers(earlier.action, rule.action)
        && condition_covers(&earlier.condition, &rule.condition, profile)
        && topics_cover(&earlier.topics, &rule.topics)
}

fn action_covers(earlier: Action, action: Action) -> bool {
    let kinds = (earlier.publish || !action.publish) && (earlier.subscribe || !action.subscribe);
    let retain = !action.publish || earlier.retain.is_none() || earlier.retain == action.retain;
    kinds && retain && earlier.qos.covers(action.qos)
}

fn condition_covers(earlier: &Condition, condition: &Condition, profile: SecurityProfile) -> bool {
    match (earlier, condition) {
        (Condition::All, _) => true,
        (Condition::Profile(wanted), _) if *wanted == profile => true,
        (earlier, condition) if earlier == condition => true,
        (Condition::Or(parts), _) => parts.iter().any(|part| condition_covers(part, condition, profile)),
        (Condition::And(parts), _) => {
            !parts.is_empty() && parts.iter().all(|part| condition_covers(part, condition, profile))
        }
        (_, Condition::And(parts)) => parts.iter().any(|part| condition_covers(earlier, part, profile)),
        (_, Condition::Or(parts)) => {
            !parts.is_empty() && parts.iter().all(|part| condition_covers(earlier, part, profile))
        }
        (Condition::Username(a), Condition::Username(b))
        | (Condition::ClientId(a), Condition::ClientId(b))
        | (Condition::Zone(a), Condition::Zone(b))
        | (Condition::Listener(a), Condition::Listener(b)) => matcher_covers(a, b),
        (Condition::ClientAttr(n, a), Condition::ClientAttr(m, b)) => n == m && matcher_covers(a, b),
        _ => false,
    }
}

fn matcher_covers(earlier: &TextMatch, matcher: &TextMatch) -> bool {
    match (earlier, matcher) {
        (TextMatch::Regex(_), TextMatch::Exact(text)) => earlier.holds(text),
        (TextMatch::Regex(a), TextMatch::Regex(b)) => {
            let (a, b) = (a.shape(), b.shape());
            let plain = a.literal && !a.ends && a.anchored;
            a.prefix.is_empty() && a.literal && !a.ends
                || plain && b.anchored && b.prefix.starts_with(&a.prefix)
        }
        (a, b) => a == b,
    }
}

fn topics_cover(earlier: &Topics, topics: &Topics) -> bool {
    match (earlier, topics) {
        (Topics::All, _) => true,
        (Topics::List(_), Topics::All) => false,
        (Topics::List(wide), Topics::List(narrow)) => {
            !narrow.is_empty() && narrow.iter().all(|n| wide.iter().any(|w| entry_covers(w, n)))
        }
    }
}

fn entry_covers(wide: &TopicMatch, narrow: &TopicMatch) -> bool {
    match (wide, narrow) {
        (TopicMatch::Filter { filter: wide, .. }, TopicMatch::Filter { filter: narrow, .. })
        | (TopicMatch::Filter { filter: wide, .. }, TopicMatch::Eq(narrow)) => cover::covers(wide, narrow),
        (TopicMatch::Filter { filter: wide, .. }, TopicMatch::Template(template)) => {
            // A value is one level without wildcards, so `+` stands for all of them.
            cover::covers(wide, &template.widened())
        }
        (wide, narrow) => wide == narrow,
    }
}

/// The name of a field that an `'and'` compares with two different texts.
fn contradiction(condition: &Condition) -> Option<String> {
    let parts = match condition {
        Condition::Or(parts) => return parts.iter().find_map(contradiction),
        Condition::And(parts) => parts,
        _ => return None,
    };
    let mut seen: Vec<(Field<'_>, &str)> = Vec::new();
    for part in parts {
        let mut clash = None;
        if !matches!(part, Condition::And(_) | Condition::Or(_)) {
            matchers(part, &mut |field, matcher| {
                if let TextMatch::Exact(text) = matcher {
                    if seen.iter().any(|(f, t)| *f == field && **t != **text) {
                        clash = Some(field);
                    }
                    seen.push((field, text));
                }
            });
        }
        if let Some(field) = clash {
            return Some(match field {
                Field::Username => "username".to_owned(),
                Field::ClientId => "clientid".to_owned(),
                Field::ClientAttr(name) => format!("the attribute {name}"),
                Field::Zone => "zone".to_owned(),
                Field::Listener => "listener".to_owned(),
            });
        }
    }
    parts.iter().find_map(contradiction)
}
