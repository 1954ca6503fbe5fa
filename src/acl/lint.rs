//! What is legal in a rule set but surely not meant (`acl-language.md` section 9).
//!
//! Where it can, the linter asks the evaluator instead of reading the rules: it acts as each peer, and as a stranger, and
//! reports what it was allowed. Not here: errors that keep a file from loading ([`crate::acl::diagnostic`]).

pub(in crate::acl) mod links;
mod order;
mod patterns;
mod topics;

use std::fmt;

use crate::acl::confine::touches_link;
use crate::acl::diagnostic::Code;
use crate::acl::eval::RuleSet;
use crate::acl::rule::Action;
use crate::acl::rule::Block;
use crate::acl::rule::Condition;
use crate::acl::rule::Mode;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::TextMatch;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;
use crate::mqtt::packet::QoS;

/// A configured link, as far as rules concern it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkInfo {
    /// The peer's cluster name, as in the topics it uses.
    pub name: String,
    /// Prefix of the peer's Client Identifiers.
    pub clientid_prefix: String,
    /// The peer's User Name.
    pub username: Option<String>,
}

/// What the linter knows besides the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Configured links.
    pub links: Vec<LinkInfo>,
    /// `authorization.no_match`.
    pub no_match: Permission,
    /// `authorization.deny_action` is `disconnect`.
    pub deny_disconnects: bool,
    /// Ids (`type:name`) of the listeners of role link or any.
    pub link_listeners: Vec<String>,
    /// Ids of all listeners; empty when not known.
    pub listeners: Vec<String>,
    /// Known application clients: Client Identifier and User Name.
    pub applications: Vec<(String, Option<String>)>,
    /// Users of the files of passwords that are no link's.
    pub users: Vec<String>,
    /// What links need is allowed by rules in front of the file, which need not say it.
    pub links_are_granted: bool,
}

impl Default for Inventory {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            no_match: Permission::Deny,
            deny_disconnects: false,
            link_listeners: Vec::new(),
            listeners: Vec::new(),
            applications: Vec::new(),
            users: Vec::new(),
            links_are_granted: false,
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Not to be used on a link listener.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `L01` to `L28`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Line of the rule, counted from 1; 0 when it concerns the whole file or the configuration.
    pub line: u32,
    /// What is wrong and what would be right.
    pub message: String,
    /// The source line, empty when `line` is 0.
    pub excerpt: String,
}

impl Finding {
    /// `file:LINE: L07 error: message`, then the source line, without a final newline.
    #[must_use]
    pub fn render(&self, file: &str) -> String {
        if self.line == 0 {
            return format!("{file}: {self}");
        }
        format!("{file}:{}: {self}\n{} | {}", self.line, self.line, self.excerpt)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.id, self.severity, self.message)
    }
}

/// The most findings reported for one file.
pub const FINDINGS_MAX: usize = 500;
/// A file longer than this is worth a word (`L26`).
const RULES_MANY: usize = 200;
/// The most rules that are asked on behalf of peers and strangers.
const RULES_ASKED_MAX: usize = 5_000_000;
const EXCERPT_CHARS_MAX: usize = 120;

/// Whether a check should fail: something worse than [`Severity::Info`] was found.
#[must_use]
pub fn is_failure(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity > Severity::Info)
}

/// Everything found in `rules`, compiled from `text`, in the order of the file.
///
/// Not decided here: `L16`, which strict and EMQX mode refuse to load (`E305`), `L24` and `L28`, which concern superusers
/// and mountpoints, of which this broker has none.
#[must_use]
pub fn lint(rules: &RuleSet, text: &str, inventory: &Inventory) -> Vec<Finding> {
    let mut linter = Linter::new(rules, text, inventory);
    linter.patterns();
    linter.peers();
    linter.structure();
    linter.order();
    linter.topics();
    linter.finish()
}

struct Linter<'a> {
    rules: &'a RuleSet,
    lines: Vec<&'a str>,
    inventory: &'a Inventory,
    /// The configured links, or what the file says about them if none is configured.
    peers: Vec<LinkInfo>,
    /// Whether links are configured or the file grants something in `$LINK/`.
    concerns_links: bool,
    found: Vec<Finding>,
    dropped: usize,
    /// Rules that may still be asked.
    budget: usize,
}

impl<'a> Linter<'a> {
    fn new(rules: &'a RuleSet, text: &'a str, inventory: &'a Inventory) -> Self {
        let grants = rules.rules.iter().any(grants_link);
        let configured = !inventory.links.is_empty() || !inventory.link_listeners.is_empty();
        let peers = links::peers(rules, inventory);
        Self {
            rules,
            lines: text.lines().collect(),
            inventory,
            peers,
            concerns_links: grants || configured,
            found: Vec::new(),
            dropped: 0,
            budget: RULES_ASKED_MAX,
        }
    }

    fn note(&mut self, id: &'static str, severity: Severity, line: u32, message: impl Into<String>) {
        if self.found.len() >= FINDINGS_MAX {
            self.dropped += 1;
            return;
        }
        let index = usize::try_from(line).unwrap_or(0).checked_sub(1);
        let source = index.and_then(|index| self.lines.get(index)).copied().unwrap_or_default();
        let excerpt = source.chars().take(EXCERPT_CHARS_MAX).collect();
        self.found.push(Finding { id, severity, line, message: message.into(), excerpt });
    }

    fn finish(mut self) -> Vec<Finding> {
        self.found.sort_by_key(|finding| (finding.line, finding.id));
        self.found.dedup();
        if self.dropped > 0 {
            let message = format!("{} further findings are not shown", self.dropped);
            let severity = self.found.iter().map(|f| f.severity).max().unwrap_or(Severity::Info);
            self.found.push(Finding { id: "L26", severity, line: 0, message, excerpt: String::new() });
        }
        self.found
    }

    /// What can be told from single rules and the settings: L12 to L14, L21 to L23, L26, L27.
    fn structure(&mut self) {
        let rules = self.rules;
        for warning in &rules.warnings {
            if warning.code == Code::E213 {
                self.note("L12", Severity::Error, warning.line, warning.message.clone());
            }
        }
        let last = rules.rules.len().saturating_sub(1);
        for (index, rule) in rules.rules.iter().enumerate() {
            self.allow_all(rule, index == last);
            self.grant(rule);
            if rules.mode == Mode::Emqx && has_slash_48(&rule.condition) {
                self.note(
                    "L27",
                    Severity::Warning,
                    rule.line,
                    "EMQX takes an IPv6 /48 for a /32; write two /49",
                );
            }
        }
        if self.concerns_links {
            self.closed_end();
        }
        if !self.inventory.link_listeners.is_empty() && !self.inventory.deny_disconnects {
            let message = "deny_action is ignore: a peer that probes is not cut off";
            self.note("L23", Severity::Info, 0, message);
        }
        if rules.len() > RULES_MANY {
            let message = format!(
                "{} rules, {} of which are asked at every check: they name no ClientID, username or topic prefix",
                rules.len(),
                rules.asked_always()
            );
            self.note("L26", Severity::Info, 0, message);
        }
    }

    fn allow_all(&mut self, rule: &Rule, last: bool) {
        let everybody = matches!(rule.condition, Condition::All | Condition::Profile(_));
        let everything = rule.action == Action::ALL && rule.topics == Topics::All;
        if rule.permission != Permission::Allow || !everybody || !everything {
            return;
        }
        if !last && rule.condition == Condition::All {
            self.note(
                "L14",
                Severity::Warning,
                rule.line,
                "everything is allowed here: no rule below is reached",
            );
        } else if self.concerns_links {
            let message = "everything is allowed to everybody, and this broker has links; allow the topics \
                           that applications need";
            self.note("L14", Severity::Warning, rule.line, message);
        } else if !last {
            self.note("L14", Severity::Warning, rule.line, "everything is allowed before the last rule");
        }
    }

    fn closed_end(&mut self) {
        if self.inventory.no_match == Permission::Allow {
            let message = "no_match is allow: what no rule names is open to linked clusters";
            self.note("L13", Severity::Error, 0, message);
        }
        let last = self.rules.rules.last();
        let closed = last.is_some_and(|rule| {
            rule.permission == Permission::Deny
                && rule.condition == Condition::All
                && rule.action == Action::ALL
                && rule.topics == Topics::All
        });
        if !closed {
            let line = last.map_or(0, |rule| rule.line);
            self.note("L13", Severity::Error, line, "with links the last rule is `{deny, all}`");
        }
    }

    /// A grant in `$LINK/`: its limits, and what it rests on.
    fn grant(&mut self, rule: &Rule) {
        if !grants_link(rule) {
            return;
        }
        // EMQX may forward messages at QoS 2 as they are; routes are told at less.
        let is_forwarding = !link_filters(rule).any(|filter| !filter.starts_with("$LINK/cluster/msg/"));
        let open_qos = rule.action.qos.holds(QoS::ExactlyOnce) && !is_forwarding;
        let loose = open_qos || rule.action.retain != Some(false);
        if rule.action.publish && loose {
            let message =
                "no limit on what a peer publishes: links use `{publish, [{qos, [0, 1]}, {retain, false}]}`";
            self.note("L22", Severity::Warning, rule.line, message);
        }
        match &rule.condition {
            Condition::Address(_) | Condition::Addresses(_) => {
                let message = "granted by address alone: whoever connects from there is the peer";
                self.note("L21", Severity::Warning, rule.line, message);
            }
            Condition::Username(TextMatch::Exact(name)) => {
                let links = self.peers.iter().filter(|link| link.username.as_deref() == Some(name)).count();
                let inventory = self.inventory;
                let application =
                    inventory.applications.iter().any(|(_, user)| user.as_deref() == Some(name))
                        || inventory.users.iter().any(|user| **user == **name);
                if links > 1 || application {
                    let message = format!("granted to the username `{name}`, which others use too");
                    self.note("L20", Severity::Warning, rule.line, message);
                }
            }
            _ => {}
        }
    }
}

/// An allow with a topic that lies in `$LINK/`, as opposed to one that merely covers everything.
fn grants_link(rule: &Rule) -> bool {
    rule.permission == Permission::Allow && link_filters(rule).next().is_some()
}

/// The filters of a rule that lie in `$LINK/`.
fn link_filters(rule: &Rule) -> impl Iterator<Item = &str> {
    let entries = match &rule.topics {
        Topics::All => &[][..],
        Topics::List(entries) => entries.as_slice(),
    };
    entries.iter().map(entry_text).filter(|filter| touches_link(filter))
}

/// The text of an entry, placeholders as written.
fn entry_text(entry: &TopicMatch) -> &str {
    match entry {
        TopicMatch::Eq(text) | TopicMatch::Never(text) => text,
        TopicMatch::Filter { filter, .. } => filter,
        TopicMatch::Template(template) => template.source(),
    }
}

/// Whether some topic in `$LINK/` is meant by the rule.
fn touches_namespace(rule: &Rule) -> bool {
    rule.topics == Topics::All || link_filters(rule).next().is_some()
}

fn has_slash_48(condition: &Condition) -> bool {
    let wide = |block: &Block| block.length != block.effective;
    match condition {
        Condition::Address(block) => wide(block),
        Condition::Addresses(blocks) => blocks.iter().any(wide),
        Condition::And(parts) | Condition::Or(parts) => parts.iter().any(has_slash_48),
        _ => false,
    }
}

/// Calls `each` for every comparison of a text in a condition.
fn matchers<'c>(condition: &'c Condition, each: &mut impl FnMut(Field<'c>, &'c TextMatch)) {
    match condition {
        Condition::Username(matcher) => each(Field::Username, matcher),
        Condition::ClientId(matcher) => each(Field::ClientId, matcher),
        Condition::ClientAttr(name, matcher) => each(Field::ClientAttr(name), matcher),
        Condition::Zone(matcher) => each(Field::Zone, matcher),
        Condition::Listener(matcher) => each(Field::Listener, matcher),
        Condition::And(parts) | Condition::Or(parts) => {
            for part in parts {
                matchers(part, each);
            }
        }
        Condition::All | Condition::Address(_) | Condition::Addresses(_) | Condition::Profile(_) => {}
    }
}

/// What a comparison looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'a> {
    Username,
    ClientId,
    ClientAttr(&'a str),
    Zone,
    Listener,
}

#[cfg(test)]
mod tests;
