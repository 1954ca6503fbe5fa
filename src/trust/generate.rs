//! The rules that follow from trust, in the language of ACL files (`trust.md` 2.5): what the peers may do, that a peer may do
//! nothing else, and that nobody else takes its place. They are asked before the operator's file.
//!
//! A control topic of a later version is added here, not by hand. Messages may come at QoS 2: EMQX 5.8 to 5.10, and 6.x before
//! 6.0.3, 6.1.2 and 6.2.1, forward them as they are; routes are told at QoS 0 and 1.

use std::fmt;
use std::fmt::Write as _;

use crate::trust::book::Book;
use crate::trust::identity::Kind;

/// A peer, as its rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name of the cluster.
    pub cluster: String,
    /// What its Client Identifiers begin with.
    pub prefix: String,
    /// It forwards messages.
    pub can_forward: bool,
    /// It tells what it wants, and is answered.
    pub can_sync_routes: bool,
}

/// By what an EMQX broker knows a peer: it has no attribute that only the binding of links sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The User Name.
    Username(String),
    /// The common name of the certificate, which is the name of the cluster. EMQX has no condition for it, so the topics are
    /// named by it: its listener must verify certificates against an authority that gives each name to its own cluster.
    CommonName,
}

/// The active links of a book, by name.
#[must_use]
pub fn peers(book: &Book) -> Vec<Peer> {
    let links = book.identities().filter(|one| one.kind == Kind::Link && one.is_active());
    let mut peers: Vec<Peer> = links
        .map(|one| {
            let rights = book.rights_of_link(&one.name);
            Peer {
                cluster: one.name.clone(),
                prefix: one.prefix.clone(),
                can_forward: rights.can_forward,
                can_sync_routes: rights.can_sync_routes,
            }
        })
        .collect();
    peers.sort_unstable_by(|one, other| one.cluster.cmp(&other.cluster));
    peers
}

/// The rules of these peers. What they are comes from the book, and from the configuration for those that it knows.
#[must_use]
pub fn rules(peers: &[Peer]) -> String {
    let mut out = String::from("%% Generated: what linked clusters may do, and nobody else.\n");
    // An empty prefix would reserve everything.
    let peers: Vec<&Peer> = peers.iter().filter(|peer| !peer.prefix.is_empty()).collect();
    for peer in &peers {
        let link_id = format!("{{client_attr, \"link_id\", {}}}", Quoted(&peer.cluster));
        put_allowed(&mut out, peer, &format!("{{'and', [{link_id}, {}]}}", of_prefix(peer)), &peer.cluster);
    }
    put(&mut out, "%% A linked cluster does nothing else.\n");
    put(&mut out, "{deny, {client_attr, \"link_id\", {re, \"\"}}, all, all}.\n");
    put_reserved(&mut out, peers.into_iter());
    out
}

/// The same for an EMQX broker that these peers connect to, each with what it is known by there.
#[must_use]
pub fn emqx_export(peers: &[(Peer, Shown)]) -> String {
    let mut out = String::from("%% For the acl.conf of an EMQX broker, in front of its other rules.\n");
    for (peer, shown) in peers {
        match shown {
            Shown::Username(name) => {
                let condition = format!("{{'and', [{{username, {}}}, {}]}}", Quoted(name), of_prefix(peer));
                put_allowed(&mut out, peer, &condition, &peer.cluster);
            }
            Shown::CommonName => put_allowed(&mut out, peer, &of_prefix(peer), "${cert_common_name}"),
        }
    }
    let named = |(_, shown): &'_ (Peer, Shown)| matches!(shown, Shown::Username(_));
    if peers.iter().any(named) {
        put(&mut out, "%% A linked cluster does nothing else.\n");
    }
    for (_, shown) in peers {
        if let Shown::Username(name) = shown {
            let _ = writeln!(out, "{{deny, {{username, {}}}, all, all}}.", Quoted(name));
        }
    }
    put_reserved(&mut out, peers.iter().map(|(peer, _)| peer));
    out
}

/// What a peer may do that satisfies `condition`, under `name`.
fn put_allowed(out: &mut String, peer: &Peer, condition: &str, name: &str) {
    let topic = |kind: &str, rest: &str| format!("$LINK/cluster/{kind}/{name}{rest}");
    let mut allow = |action: &str, topic: String| {
        let _ = writeln!(out, "{{allow, {condition}, {action}, [{}]}}.", Quoted(&topic));
    };
    if peer.can_forward {
        allow("{publish, [{qos, [0,1,2]}, {retain, false}]}", topic("msg", ""));
    }
    if peer.can_sync_routes {
        allow("{publish, [{qos, [0,1]}, {retain, false}]}", topic("route", ""));
        allow("{subscribe, [{qos, [0,1]}]}", topic("resp", "/+"));
    }
}

/// Nobody else comes under a peer's prefix, and nobody else reaches the control topics.
fn put_reserved<'p>(out: &mut String, peers: impl Iterator<Item = &'p Peer>) {
    put(out, "%% Nobody else comes under the prefix of one, or reaches what is between brokers.\n");
    for peer in peers {
        let _ = writeln!(out, "{{deny, {}, all, all}}.", of_prefix(peer));
    }
    put(out, "{deny, all, all, [\"$LINK/#\"]}.\n");
}

fn put(out: &mut String, text: &str) {
    out.push_str(text);
}

fn of_prefix(peer: &Peer) -> String {
    let mut pattern = String::from("^");
    for c in peer.prefix.chars() {
        if "\\.^$|?*+()[]{}".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    format!("{{clientid, {{re, {}}}}}", Quoted(&pattern))
}

/// A text as an Erlang string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\x{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests;
