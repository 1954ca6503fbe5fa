//! Why a request is decided as it is: each rule that was passed over with the first of its parts that did not hold, and
//! the rule that decided. The verdict is the evaluator's own; here it is only put into words.

use crate::acl::eval::Request;
use crate::acl::eval::RuleSet;
use crate::acl::eval::Subject;
use crate::acl::eval::Verdict;
use crate::acl::eval::condition_holds;
use crate::acl::rule::Condition;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::SecurityProfile;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;

/// The most topics of a rule that are named.
const TOPICS_TOLD_MAX: usize = 8;

/// A verdict and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was decided, and by what.
    pub verdict: Verdict,
    /// The topic that the rules saw, if there was one: prefixes such as `$share/g/` are taken off.
    pub topic: Option<String>,
    /// The rules before the one that decided, in the order of the file.
    pub passed: Vec<Passed>,
    /// The text of the rule that decided.
    pub rule: Option<String>,
}

/// A rule that did not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Counted from 1.
    pub number: usize,
    /// Line of the rule.
    pub line: u32,
    /// Its text.
    pub rule: String,
    /// The first part that failed.
    pub part: Part,
    /// Why it failed.
    pub why: String,
}

/// A part of a rule, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is done.
    Action,
    /// Who does it.
    Condition,
    /// On what.
    Topics,
}

impl Part {
    /// The name in what is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Condition => "condition",
            Self::Topics => "topics",
        }
    }
}

/// Explains what [`RuleSet::authorize`] decides.
#[must_use]
pub fn explain(
    rules: &RuleSet,
    client: &Subject<'_>,
    request: &Request<'_>,
    no_match: Permission,
) -> Explanation {
    let verdict = rules.authorize(client, request, no_match);
    let topic = request.effective_topic().map(str::to_owned);
    let mut explanation = Explanation { verdict, topic, passed: Vec::new(), rule: None };
    let (Some(topic), false) = (request.effective_topic(), client.is_superuser) else { return explanation };
    for (index, rule) in rules.rules.iter().enumerate() {
        if rules.ask(index, client, request, topic).is_some() {
            explanation.rule = Some(rule.to_string());
            break;
        }
        let (part, why) = failure(rules, rule, client, request, topic);
        let (number, line, rule) = (index + 1, rule.line, rule.to_string());
        explanation.passed.push(Passed { number, line, rule, part, why });
    }
    explanation
}

fn failure(
    rules: &RuleSet,
    rule: &Rule,
    client: &Subject<'_>,
    request: &Request<'_>,
    topic: &str,
) -> (Part, String) {
    let (holds, asked) = match *request {
        Request::Publish { qos, retain, .. } => {
            let retained = if retain { " with RETAIN" } else { "" };
            (rule.action.holds_publish(qos, retain), format!("a publish at QoS {}{retained}", qos as u8))
        }
        Request::Subscribe { qos, .. } => {
            (rule.action.holds_subscribe(qos), format!("a subscription at QoS {}", qos as u8))
        }
    };
    if !holds {
        return (Part::Action, format!("{} is not {asked}", rule.action));
    }
    if let Some(leaf) = failing(&rule.condition, client, rules.profile) {
        return (Part::Condition, unmet(leaf, client, rules.profile));
    }
    (Part::Topics, unmatched(rules, rule, client, topic))
}

/// The innermost part that does not hold.
fn failing<'c>(
    condition: &'c Condition,
    client: &Subject<'_>,
    profile: SecurityProfile,
) -> Option<&'c Condition> {
    if condition_holds(condition, client, profile) {
        return None;
    }
    match condition {
        Condition::And(parts) => parts.iter().find_map(|part| failing(part, client, profile)),
        whole => Some(whole),
    }
}

fn unmet(leaf: &Condition, client: &Subject<'_>, profile: SecurityProfile) -> String {
    let text =
        |value: Option<&str>| value.map_or_else(|| "there is none".to_owned(), |it| format!("it is `{it}`"));
    let has = match leaf {
        Condition::Username(_) => text(client.username),
        Condition::ClientId(_) => text(Some(client.client_id)),
        Condition::ClientAttr(name, _) => text(client.client_attrs.get(&**name).map(String::as_str)),
        Condition::Zone(_) => text(Some(client.zone)),
        Condition::Listener(_) => text(Some(client.listener)),
        Condition::Address(_) | Condition::Addresses(_) => {
            let address = client.peer_host.map(|address| address.to_string());
            text(address.as_deref())
        }
        Condition::Profile(_) => format!("it is {profile}"),
        Condition::Or(_) => "no part of it holds".to_owned(),
        Condition::All | Condition::And(_) => "it does not hold".to_owned(),
    };
    format!("{leaf}: {has}")
}

fn unmatched(rules: &RuleSet, rule: &Rule, client: &Subject<'_>, topic: &str) -> String {
    let Topics::List(entries) = &rule.topics else { return "all topics".to_owned() };
    if entries.is_empty() {
        return "the list of topics is empty".to_owned();
    }
    let one = |entry: &TopicMatch| match entry {
        TopicMatch::Template(template) => match rules.render(template, rule.permission, client) {
            Some(filter) => format!("{entry}, here \"{}\"", filter.as_str()),
            None => format!("{entry}, which this client has no value for"),
        },
        TopicMatch::Never(_) => format!("{entry}, which is no Topic Filter"),
        TopicMatch::Eq(_) | TopicMatch::Filter { .. } => entry.to_string(),
    };
    let mut told: Vec<String> = entries.iter().take(TOPICS_TOLD_MAX).map(one).collect();
    if entries.len() > TOPICS_TOLD_MAX {
        told.push(format!("and {} more", entries.len() - TOPICS_TOLD_MAX));
    }
    format!("`{topic}` is not covered by {}", told.join("; "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::acl::CompileOptions;
    use crate::acl::DecidedBy;
    use crate::mqtt::packet::QoS;

    const RULES: &str = "{deny, all, {publish, [{qos, 2}]}, all}.\n\
        {allow, {'and', [{clientid, \"c\"}, {username, \"u\"}]}, all, all}.\n\
        {allow, {'or', [{ipaddr, \"10.0.0.0/8\"}, {client_attr, site, \"x\"}]}, all, all}.\n\
        {allow, all, all, [\"a/${clientid}/#\", {eq, \"b\"}, \"t/${username}\"]}.\n\
        {deny, all}.";

    fn explained(request: &Request<'_>, is_superuser: bool) -> Explanation {
        let rules = RuleSet::compile(RULES, &CompileOptions::default()).unwrap();
        let client = Subject {
            client_id: "c",
            username: None,
            peer_host: "127.0.0.1".parse().ok(),
            cert_common_name: None,
            zone: "default",
            listener: "tcp:default",
            client_attrs: &BTreeMap::new(),
            is_superuser,
        };
        let explanation = explain(&rules, &client, request, Permission::Deny);
        assert_eq!(explanation.verdict, rules.authorize(&client, request, Permission::Deny));
        explanation
    }

    #[test]
    fn each_rule_that_is_passed_says_what_failed() {
        let subscribe = Request::Subscribe { filter: "$share/g/a/+/x", qos: QoS::AtMostOnce };
        let explanation = explained(&subscribe, false);
        assert_eq!(explanation.topic.as_deref(), Some("a/+/x"));
        assert_eq!(explanation.verdict.by, DecidedBy::Rule { index: 4, line: 5 });
        assert_eq!(explanation.rule.as_deref(), Some("{deny, all}."));
        let passed: Vec<_> = explanation
            .passed
            .iter()
            .map(|it| format!("{} {}: {}", it.line, it.part.name(), it.why))
            .collect();
        assert_eq!(
            passed,
            [
                "1 action: {publish, [{qos, [2]}]} is not a subscription at QoS 0",
                "2 condition: {username, \"u\"}: there is none",
                "3 condition: {'or', [{ipaddr, \"10.0.0.0/8\"}, {client_attr, \"site\", \"x\"}]}: no part of it holds",
                "4 topics: `a/+/x` is not covered by \"a/${clientid}/#\", here \"a/c/#\"; {eq, \"b\"}; \
                 \"t/${username}\", which this client has no value for",
            ]
        );
    }

    #[test]
    fn what_no_rule_decides_has_no_rule() {
        let publish = Request::Publish { topic: "b", qos: QoS::AtLeastOnce, retain: true };
        let explanation = explained(&publish, true);
        assert_eq!((explanation.verdict.by, explanation.passed.len()), (DecidedBy::Superuser, 0));
        let malformed = Request::Subscribe { filter: "$share/g", qos: QoS::AtMostOnce };
        let explanation = explained(&malformed, false);
        assert_eq!((explanation.verdict.by, explanation.topic), (DecidedBy::Malformed, None));
        let explanation = explained(&publish, false);
        assert_eq!(explanation.verdict.by, DecidedBy::Rule { index: 3, line: 4 });
        assert_eq!(explanation.passed.len(), 3);
    }
}
