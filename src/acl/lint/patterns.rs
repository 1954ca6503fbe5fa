//! Patterns that match more than was meant: L01 to L06, L15.

use crate::acl::lint::Field;
use crate::acl::lint::Linter;
use crate::acl::lint::Severity;
use crate::acl::lint::grants_link;
use crate::acl::lint::links;
use crate::acl::lint::matchers;
use crate::acl::lint::touches_namespace;
use crate::acl::pattern::Pattern;
use crate::acl::rule::Condition;
use crate::acl::rule::Permission;
use crate::acl::rule::TextMatch;

/// The most different patterns that are compared with each other.
const PATTERNS_COMPARED_MAX: usize = 1_000;

/// A pattern that a peer is recognised by.
struct PeerPattern<'a> {
    pattern: &'a Pattern,
    line: u32,
    /// The clusters named in the topics of its rule.
    clusters: Vec<&'a str>,
    /// The attribute that only the binding of links sets, where its rule asks for it.
    link_id: Option<&'a str>,
}

impl PeerPattern<'_> {
    /// Whether no connection can satisfy both, whatever its Client Identifier.
    fn is_told_from(&self, other: &Self) -> bool {
        let by_attribute = self.link_id.is_some() && other.link_id.is_some() && self.link_id != other.link_id;
        by_attribute || (!self.clusters.is_empty() && self.clusters == other.clusters)
    }
}

/// What a condition asks of `link_id`, alone or as one of several that all have to hold.
fn link_id(condition: &Condition) -> Option<&str> {
    match condition {
        Condition::ClientAttr(name, TextMatch::Exact(id)) if &**name == "link_id" => Some(id),
        Condition::And(parts) => parts.iter().find_map(link_id),
        _ => None,
    }
}

impl Linter<'_> {
    pub(super) fn patterns(&mut self) {
        let rules = self.rules;
        let mut peers: Vec<PeerPattern<'_>> = Vec::new();
        for rule in &rules.rules {
            let mut found = Vec::new();
            matchers(&rule.condition, &mut |field, matcher| {
                if let TextMatch::Regex(pattern) = matcher {
                    found.push((field, pattern));
                }
            });
            let risky = rule.permission == Permission::Allow && touches_namespace(rule);
            for (field, pattern) in found {
                self.pattern(rule.line, pattern, risky && matches!(field, Field::ClientId | Field::Username));
                if field == Field::ClientId && grants_link(rule) {
                    let clusters = links::clusters_named(rule);
                    peers.push(PeerPattern {
                        pattern,
                        line: rule.line,
                        clusters,
                        link_id: link_id(&rule.condition),
                    });
                }
            }
        }
        self.overlaps(&peers);
        self.applications(&peers);
    }

    fn pattern(&mut self, line: u32, pattern: &Pattern, risky: bool) {
        let (source, shape) = (pattern.source(), pattern.shape());
        if risky && !shape.anchored {
            let message = format!("`{source}` is found anywhere in a name: begin every branch with `^`");
            self.note("L01", Severity::Error, line, message);
        }
        let joined = shape.prefix.ends_with(|c: char| c.is_ascii_alphanumeric());
        if risky && shape.anchored && shape.literal && !shape.ends && joined {
            let message =
                format!("`{source}` also begins longer names: end it with a separator, `{source}-`");
            self.note("L02", Severity::Error, line, message);
        }
        if risky && shape.loose_dots {
            let message =
                format!("the `.` in `{source}` stands for any character: write `\\\\.` in the file");
            self.note("L05", Severity::Error, line, message);
        }
        if shape.dollar.is_some() {
            let message = format!(
                "`$` in `{source}` also matches before a final newline in EMQX: write `\\\\z` in the file"
            );
            self.note("L06", Severity::Warning, line, message);
        }
        if shape.nested_repetition {
            let message = format!("`{source}` repeats a repetition: EMQX needs exponential time for it");
            self.note("L15", Severity::Warning, line, message);
        }
    }

    fn overlaps(&mut self, peers: &[PeerPattern<'_>]) {
        let mut distinct: Vec<&PeerPattern<'_>> = Vec::new();
        for peer in peers {
            if distinct.len() < PATTERNS_COMPARED_MAX && distinct.iter().all(|d| d.pattern != peer.pattern) {
                distinct.push(peer);
            }
        }
        for (index, one) in distinct.iter().enumerate() {
            for other in distinct.iter().skip(index + 1) {
                if let (false, Some(witness)) = (one.is_told_from(other), witness(one.pattern, other.pattern))
                {
                    let message = format!(
                        "`{}` and `{}` (line {}) both match `{witness}`: two peers cannot be told apart",
                        other.pattern.source(),
                        one.pattern.source(),
                        one.line
                    );
                    self.note("L03", Severity::Error, other.line, message);
                }
            }
        }
        let links = &self.inventory.links;
        for (index, one) in links.iter().enumerate() {
            for other in links.iter().skip(index + 1) {
                let (a, b) = (&one.clientid_prefix, &other.clientid_prefix);
                if a.starts_with(b.as_str()) || b.starts_with(a.as_str()) {
                    let (severity, meaning) = if a == b {
                        (Severity::Error, "")
                    } else {
                        (Severity::Info, ": the longer one decides")
                    };
                    let message = format!(
                        "the ClientID prefixes of links `{}` (`{a}`) and `{}` (`{b}`) overlap{meaning}",
                        one.name, other.name
                    );
                    self.note("L03", severity, 0, message);
                }
            }
        }
    }

    fn applications(&mut self, peers: &[PeerPattern<'_>]) {
        let inventory = self.inventory;
        let clients = inventory.applications.iter().map(|(client_id, _)| ("application client", client_id));
        let users = inventory.users.iter().map(|user| ("user", user));
        for (kind, client_id) in clients.chain(users) {
            if let Some(peer) = peers.iter().find(|peer| peer.pattern.is_match(client_id)) {
                let message = format!("the {kind} `{client_id}` matches `{}`", peer.pattern.source());
                self.note("L04", Severity::Error, peer.line, message);
            }
            let squatted = inventory.links.iter().find(|link| client_id.starts_with(&link.clientid_prefix));
            if let Some(link) = squatted {
                let message = format!("the {kind} `{client_id}` has the prefix of link `{}`", link.name);
                self.note("L04", Severity::Error, 0, message);
            }
        }
    }
}

/// A name that both match, as far as their literal beginnings tell. Patterns without one are L01's.
fn witness(one: &Pattern, other: &Pattern) -> Option<String> {
    let (a, b) = (one.shape(), other.shape());
    if !a.anchored || !b.anchored || a.prefix.is_empty() || b.prefix.is_empty() {
        return None;
    }
    let longer = if a.prefix.len() >= b.prefix.len() { &a.prefix } else { &b.prefix };
    let (long, short) = if longer == &a.prefix { (a, b) } else { (b, a) };
    if !long.prefix.starts_with(&short.prefix) || (short.literal && short.ends && short.prefix != long.prefix)
    {
        return None;
    }
    let name = format!("{longer}…");
    Some(if long.literal && long.ends { longer.clone() } else { name })
}
