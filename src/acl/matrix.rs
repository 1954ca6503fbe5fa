//! Who may do what under `$LINK/`: each peer, and a stranger, on the topics of each cluster. It shows what the file
//! alone would let a peer do beside what confinement leaves of it, so that a hole in the file is seen at a glance.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use crate::acl::actor::Actor;
use crate::acl::actor::control_probes;
use crate::acl::confine::Confined;
use crate::acl::confine::ListenerRole;
use crate::acl::confine::confine;
use crate::acl::eval::RuleSet;
use crate::acl::eval::Verdict;
use crate::acl::lint::Inventory;
use crate::acl::lint::links;
use crate::acl::rule::Permission;

/// One peer, or nobody's client, on the topics of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose connection; `None` is a client that is bound to no peer.
    pub peer: Option<String>,
    /// Whose topics.
    pub cluster: String,
    /// To publish messages and routes, and to subscribe to responses.
    pub cells: [Cell; 3],
}

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// What the rules say: those that are generated, and the file.
    pub rules: Verdict,
    /// Why that does not matter.
    pub confined: Option<Confined>,
}

impl Cell {
    /// Whether it may be done.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.confined.is_none() && self.rules.permission == Permission::Allow
    }

    /// Whether only confinement stands in the way.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.confined.is_some() && self.rules.permission == Permission::Allow
    }
}

/// Every peer that is configured, or that the file seems to have, against every cluster; at most so many rows.
pub const ROWS_MAX: usize = 10_000;

/// The matrix of a rule set, behind the one that is generated if there is one.
#[must_use]
pub fn matrix(front: Option<&RuleSet>, rules: &RuleSet, inventory: &Inventory) -> Vec<Row> {
    let layers = Layers { front, rules };
    let peers = links::peers(rules, inventory);
    let clusters = links::clusters(rules, &peers);
    let addresses = links::addresses(rules);
    let mut rows = Vec::new();
    for peer in &peers {
        let actor = Actor::peer(peer, inventory);
        rows.extend(
            clusters
                .iter()
                .map(|cluster| row(layers, inventory, Some(&peer.name), &actor, &addresses, cluster)),
        );
        if rows.len() >= ROWS_MAX {
            rows.truncate(ROWS_MAX);
            return rows;
        }
    }
    let (stranger, here) = (Actor::stranger(None), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    rows.extend(clusters.iter().map(|cluster| row(layers, inventory, None, &stranger, &here, cluster)));
    rows.truncate(ROWS_MAX);
    rows
}

/// Rules, and those in front of them.
#[derive(Clone, Copy)]
struct Layers<'a> {
    front: Option<&'a RuleSet>,
    rules: &'a RuleSet,
}

fn row(
    layers: Layers<'_>,
    inventory: &Inventory,
    peer: Option<&str>,
    actor: &Actor,
    addresses: &[IpAddr],
    cluster: &str,
) -> Row {
    let cells = control_probes(cluster).map(|probe| {
        let request = probe.request();
        let ask = |address: IpAddr| {
            let Layers { front, rules } = layers;
            rules.authorize_behind(front, &actor.subject(address), &request, inventory.no_match)
        };
        let verdicts = addresses.iter().map(|address| ask(*address));
        // From whichever address it is given.
        let rules = verdicts
            .reduce(|one, other| if one.permission == Permission::Allow { one } else { other })
            .unwrap_or_else(|| ask(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        Cell { rules, confined: confine(peer, ListenerRole::Any, &request).err() }
    });
    Row { peer: peer.map(str::to_owned), cluster: cluster.to_owned(), cells }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::CompileOptions;
    use crate::acl::LinkInfo;

    /// `PEER CLUSTER` and for each right `y`, `n`, or `h` where only confinement stands in the way.
    fn rows(text: &str, names: &[&str]) -> Vec<String> {
        let link = |name: &&str| LinkInfo {
            name: (*name).to_owned(),
            clientid_prefix: format!("clink-{name}-"),
            username: None,
        };
        let inventory = Inventory { links: names.iter().map(link).collect(), ..Inventory::default() };
        let rules = RuleSet::compile(text, &CompileOptions::default()).unwrap();
        let sign = |cell: &Cell| match (cell.is_allowed(), cell.is_hole()) {
            (true, _) => 'y',
            (false, true) => 'h',
            (false, false) => 'n',
        };
        let line = |row: &Row| {
            let cells: String = row.cells.iter().map(sign).collect();
            format!("{} {} {cells}", row.peer.as_deref().unwrap_or("-"), row.cluster)
        };
        matrix(None, &rules, &inventory).iter().map(line).collect()
    }

    #[test]
    fn the_hole_of_the_wildcard_recipe_is_seen() {
        let recipe = "{allow, {clientid, {re, \"^clink-A-\"}}, all, [\"$LINK/#\"]}.\n\
                      {allow, {clientid, {re, \"^clink-C-\"}}, all, [\"$LINK/#\"]}.\n{deny, all}.";
        for names in [&["A", "C"][..], &[]] {
            assert_eq!(
                rows(recipe, names),
                [
                    "A A yyy",
                    "A C hhh",
                    "A some-other-cluster hhh",
                    "C A hhh",
                    "C C yyy",
                    "C some-other-cluster hhh",
                    "- A nnn",
                    "- C nnn",
                    "- some-other-cluster nnn",
                ]
            );
        }
    }

    #[test]
    fn a_grant_that_is_missing_is_seen_and_so_is_one_to_everybody() {
        let text =
            "{allow, {clientid, {re, \"^clink-A-\"}}, publish, [\"$LINK/cluster/msg/A\"]}.\n{allow, all}.";
        assert_eq!(rows(text, &["A"])[..2], ["A A yyy", "A some-other-cluster hhh"]);
        let text =
            "{allow, {clientid, {re, \"^clink-A-\"}}, publish, [\"$LINK/cluster/msg/A\"]}.\n{deny, all}.";
        assert_eq!(
            rows(text, &["A"]),
            ["A A ynn", "A some-other-cluster nnn", "- A nnn", "- some-other-cluster nnn"]
        );
    }
}
