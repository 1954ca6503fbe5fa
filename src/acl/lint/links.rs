//! What peers and strangers may do in `$LINK/`, asked of the evaluator: L07 to L09, L19.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use crate::acl::actor::Actor;
use crate::acl::actor::Probe;
use crate::acl::actor::control_probes;
use crate::acl::confine::touches_link;
use crate::acl::eval::DecidedBy;
use crate::acl::eval::RuleSet;
use crate::acl::eval::Verdict;
use crate::acl::lint::Field;
use crate::acl::lint::Inventory;
use crate::acl::lint::LinkInfo;
use crate::acl::lint::Linter;
use crate::acl::lint::Severity;
use crate::acl::lint::entry_text;
use crate::acl::lint::grants_link;
use crate::acl::lint::link_filters;
use crate::acl::lint::matchers;
use crate::acl::rule::Condition;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::TextMatch;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;

/// A cluster that is nobody's: what is allowed for it is allowed for any.
const OTHER_CLUSTER: &str = "some-other-cluster";
/// The most clusters that each peer is tried as.
const CLUSTERS_TRIED_MAX: usize = 1_000;
/// The most topics of the file that a peer is tried on (L09).
const PROBES_MAX: usize = 256;
/// The most peer addresses of the file that a peer is tried from.
const ADDRESSES_MAX: usize = 8;
/// The most peers that are taken from a file.
const PEERS_MAX: usize = 64;

impl Linter<'_> {
    pub(super) fn peers(&mut self) {
        if !self.concerns_links {
            return;
        }
        self.strangers();
        let addresses = addresses(self.rules);
        self.completeness(&addresses);
        let peers = self.peers.clone();
        let clusters = clusters(self.rules, &self.peers);
        for peer in &peers {
            if self.budget == 0 {
                break;
            }
            let actor = Actor::peer(peer, self.inventory);
            self.foreign_clusters(peer, &actor, &addresses, &clusters);
        }
        for peer in &peers {
            let actor = Actor::peer(peer, self.inventory);
            self.outside(peer, &actor, &addresses);
        }
        if self.budget == 0 || clusters.len() > CLUSTERS_TRIED_MAX {
            self.note("L26", Severity::Info, 0, "too large to try everything that peers may do");
        }
    }

    /// The verdict that allows, from whichever address it is given; `None` also when the budget is spent.
    fn ask(&mut self, actor: &Actor, addresses: &[IpAddr], probe: &Probe) -> Option<Verdict> {
        self.budget = self.budget.saturating_sub(addresses.len() * (self.rules.len() + 1));
        if self.budget == 0 {
            return None;
        }
        addresses
            .iter()
            .map(|&address| {
                self.rules.authorize(&actor.subject(address), &probe.request(), self.inventory.no_match)
            })
            .find(|verdict| verdict.permission == Permission::Allow)
    }

    /// L07: nobody but peers is allowed anything in the namespace.
    fn strangers(&mut self) {
        let clusters = clusters(self.rules, &self.peers);
        let mut probes: Vec<Probe> = clusters.iter().flat_map(|cluster| control_probes(cluster)).collect();
        probes.push(Probe::subscribe("$LINK/#"));
        let mut blamed = BTreeSet::new();
        for username in [None, Some("stranger".to_owned())] {
            let actor = Actor::stranger(username);
            for probe in &probes {
                let allowed = self.ask(&actor, &[IpAddr::V4(Ipv4Addr::LOCALHOST)], probe);
                if let Some(line) = allowed.map(line).filter(|line| blamed.insert(*line)) {
                    let message = format!(
                        "any client may {} `{}`: deny `$LINK/#` to all after the rules of the peers",
                        probe.verb(),
                        probe.topic
                    );
                    self.note("L07", Severity::Error, line, message);
                }
            }
        }
    }

    /// L08: a peer speaks for itself only.
    fn foreign_clusters(
        &mut self,
        peer: &LinkInfo,
        actor: &Actor,
        addresses: &[IpAddr],
        clusters: &[String],
    ) {
        let others = clusters.iter().filter(|name| **name != peer.name);
        let mut probes: Vec<Probe> = others.flat_map(|name| control_probes(name)).collect();
        probes.push(Probe::subscribe("$LINK/#"));
        probes.push(Probe::subscribe("$LINK/cluster/resp/+/+"));
        let mut blamed = BTreeSet::new();
        for probe in &probes {
            let Some(verdict) = self.ask(actor, addresses, probe) else { continue };
            if blamed.insert(line(verdict)) {
                let message = format!("peer `{}` may {} `{}`", peer.name, probe.verb(), probe.topic);
                self.note("L08", Severity::Error, line(verdict), message);
            }
        }
    }

    /// L09: a peer is allowed nothing outside the namespace.
    fn outside(&mut self, peer: &LinkInfo, actor: &Actor, addresses: &[IpAddr]) {
        let mut probes = vec![
            Probe::publish("a"),
            Probe::subscribe("#"),
            Probe::publish("$SYS/a"),
            Probe::subscribe("$SYS/#"),
        ];
        for text in literals(self.rules) {
            probes.push(Probe::publish(text.replace(['+', '#'], "x")));
            probes.push(Probe::subscribe(text));
        }
        for probe in &probes {
            if let Some(verdict) = self.ask(actor, addresses, probe) {
                let message = format!(
                    "peer `{}` may {} `{}`, outside `$LINK/`: deny it everything after its own rules",
                    peer.name,
                    probe.verb(),
                    probe.topic
                );
                self.note("L09", Severity::Warning, line(verdict), message);
                return;
            }
        }
    }

    /// L19: the rules and the configured links agree.
    fn completeness(&mut self, addresses: &[IpAddr]) {
        let inventory = self.inventory;
        if inventory.links.is_empty() {
            return;
        }
        for link in inventory.links.iter().filter(|_| !inventory.links_are_granted) {
            let actor = Actor::peer(link, self.inventory);
            for probe in control_probes(&link.name) {
                if self.ask(&actor, addresses, &probe).is_none() && self.budget > 0 {
                    let message = format!(
                        "link `{}` is configured, but its peer may not {} `{}`",
                        link.name,
                        probe.verb(),
                        probe.topic
                    );
                    self.note("L19", Severity::Warning, 0, message);
                }
            }
        }
        for rule in self.rules.rules.iter().filter(|rule| grants_link(rule)) {
            for cluster in clusters_named(rule) {
                if inventory.links.iter().all(|link| link.name != cluster) {
                    let message = format!("no link is named `{cluster}`");
                    self.note("L19", Severity::Warning, rule.line, message);
                }
            }
            for prefix in prefixes(rule) {
                if inventory.links.iter().all(|link| link.clientid_prefix != prefix) {
                    let message = format!("no link's peer has the ClientID prefix `{prefix}`");
                    self.note("L19", Severity::Warning, rule.line, message);
                }
            }
        }
    }
}

/// The configured links, or what the file says about them if none is configured.
pub(in crate::acl) fn peers(rules: &RuleSet, inventory: &Inventory) -> Vec<LinkInfo> {
    if inventory.links.is_empty() { inferred(rules) } else { inventory.links.clone() }
}

/// Every cluster that is configured or named in the file, and one that is neither.
pub(in crate::acl) fn clusters(rules: &RuleSet, peers: &[LinkInfo]) -> Vec<String> {
    let named = rules.rules.iter().filter(|rule| grants_link(rule)).flat_map(clusters_named);
    let configured = peers.iter().map(|peer| peer.name.as_str());
    let known: BTreeSet<&str> = named.chain(configured).collect();
    known.into_iter().take(CLUSTERS_TRIED_MAX).chain([OTHER_CLUSTER]).map(str::to_owned).collect()
}

fn line(verdict: Verdict) -> u32 {
    match verdict.by {
        DecidedBy::Rule { line, .. } => line,
        _ => 0,
    }
}

/// Topics of the file outside `$LINK/`, without placeholders.
fn literals(rules: &RuleSet) -> BTreeSet<&str> {
    let lists = rules.rules.iter().filter_map(|rule| match &rule.topics {
        Topics::All => None,
        Topics::List(entries) => Some(entries),
    });
    lists
        .flatten()
        .filter(|entry| matches!(entry, TopicMatch::Eq(_) | TopicMatch::Filter { .. }))
        .map(entry_text)
        .filter(|text| !touches_link(text))
        .take(PROBES_MAX)
        .collect()
}

/// Loopback and the first addresses that conditions of the file ask for.
pub(in crate::acl) fn addresses(rules: &RuleSet) -> Vec<IpAddr> {
    fn collect(condition: &Condition, into: &mut Vec<IpAddr>) {
        match condition {
            Condition::Address(block) => into.push(block.address),
            Condition::Addresses(blocks) => into.extend(blocks.iter().map(|block| block.address)),
            Condition::And(parts) | Condition::Or(parts) => {
                for part in parts {
                    collect(part, into);
                }
            }
            _ => {}
        }
    }
    let mut found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    for rule in rules.rules.iter().filter(|rule| grants_link(rule)) {
        collect(&rule.condition, &mut found);
    }
    let mut seen = BTreeSet::new();
    found.retain(|address| seen.insert(*address));
    found.truncate(ADDRESSES_MAX);
    found
}

/// The clusters that the `$LINK/cluster/{msg,route,resp}/` topics of a rule name.
pub(super) fn clusters_named(rule: &Rule) -> Vec<&str> {
    let named = link_filters(rule).filter_map(|filter| {
        let mut levels = filter.split('/').skip(1);
        let (kind, name) = (levels.next() == Some("cluster")).then(|| (levels.next(), levels.next()))?;
        let name = name.filter(|name| !matches!(*name, "+" | "#") && !name.contains("${"))?;
        matches!(kind, Some("msg" | "route" | "resp")).then_some(name)
    });
    let mut named: Vec<&str> = named.collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// The literal ClientID prefixes that a rule's patterns ask for.
fn prefixes(rule: &Rule) -> Vec<&str> {
    let mut found = Vec::new();
    matchers(&rule.condition, &mut |field, matcher| {
        if let (Field::ClientId, TextMatch::Regex(pattern)) = (field, matcher) {
            let shape = pattern.shape();
            if shape.anchored && shape.literal && !shape.ends {
                found.push(shape.prefix.as_str());
            }
        }
    });
    found
}

/// The peers that a file seems to have, for a check without a configuration.
fn inferred(rules: &RuleSet) -> Vec<LinkInfo> {
    let mut peers: Vec<LinkInfo> = Vec::new();
    for rule in rules.rules.iter().filter(|rule| grants_link(rule)) {
        let mut username = None;
        matchers(&rule.condition, &mut |field, matcher| {
            if let (Field::Username, TextMatch::Exact(name)) = (field, matcher) {
                username = Some(name.to_string());
            }
        });
        for prefix in prefixes(rule) {
            if peers.len() >= PEERS_MAX || peers.iter().any(|peer| peer.clientid_prefix == prefix) {
                continue;
            }
            let stem = prefix.strip_prefix("clink-").unwrap_or(prefix).trim_end_matches(['-', ':', '_']);
            let name = clusters_named(rule).first().copied().unwrap_or(stem).to_owned();
            peers.push(LinkInfo { name, clientid_prefix: prefix.to_owned(), username: username.clone() });
        }
    }
    peers
}
