//! The names cluster linking uses on the wire: the three topics (`link-protocol.md` 2.1) and the ClientIDs of
//! a link's connections (1.2).

use sha1::Digest;
use sha1::Sha1;

/// First level of every link topic. Nothing under it is ever forwarded or replicated.
pub const RESERVED_LEVEL: &str = "$LINK";
const ROUTE: &str = "$LINK/cluster/route/";
const MESSAGE: &str = "$LINK/cluster/msg/";
const RESPONSE: &str = "$LINK/cluster/resp/";

/// A link topic taken apart. The cluster is the *dialling* side's own name: all text behind the prefix, so
/// it may hold `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTopic<'a> {
    /// `$LINK/cluster/route/CLUSTER`
    Route(&'a str),
    /// `$LINK/cluster/msg/CLUSTER`
    Message(&'a str),
    /// `$LINK/cluster/resp/CLUSTER/ACTOR`, not taken apart further: either half may hold `/`.
    Response(&'a str),
}

impl<'a> LinkTopic<'a> {
    /// Which link topic this is, if any.
    #[must_use]
    pub fn parse(topic: &'a str) -> Option<Self> {
        let rest = topic.strip_prefix("$LINK/cluster/")?;
        let (kind, name) = rest.split_once('/')?;
        match kind {
            _ if name.is_empty() => None,
            "route" => Some(Self::Route(name)),
            "msg" => Some(Self::Message(name)),
            "resp" => Some(Self::Response(name)),
            _ => None,
        }
    }
}

/// Whether the topic or filter is under `$LINK`.
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    topic.strip_prefix(RESERVED_LEVEL).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where `cluster` publishes its control operations.
#[must_use]
pub fn route_topic(cluster: &str) -> String {
    format!("{ROUTE}{cluster}")
}

/// Where `cluster` publishes the messages it forwards.
#[must_use]
pub fn message_topic(cluster: &str) -> String {
    format!("{MESSAGE}{cluster}")
}

/// Where `actor` of `cluster` expects its acks.
#[must_use]
pub fn response_topic(cluster: &str, actor: &str) -> String {
    format!("{RESPONSE}{cluster}/{actor}")
}

/// Whether `topic` is where an ack to `cluster` may go: `$LINK/cluster/resp/CLUSTER/` and exactly one level,
/// no wildcard. Anything else would make us publish on a peer's behalf.
#[must_use]
pub fn is_response_topic_of(topic: &str, cluster: &str) -> bool {
    let actor = topic
        .strip_prefix(RESPONSE)
        .and_then(|rest| rest.strip_prefix(cluster))
        .and_then(|rest| rest.strip_prefix('/'));
    actor.is_some_and(|actor| !actor.is_empty() && !actor.contains(['/', '+', '#', '\0']))
}

/// The first eight hexadecimal digits of SHA-1 over a node name, as EMQX derives them.
#[must_use]
pub fn node_hash(node: &str) -> String {
    let digest = Sha1::digest(node.as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// ClientID of connection `index` (from 1) of the forwarding pool.
#[must_use]
pub fn message_client_id(base: &str, node: &str, index: usize) -> String {
    format!("{base}:msg:{}:{index}", node_hash(node))
}

/// ClientID of the route replication connection of a node.
#[must_use]
pub fn route_client_id(base: &str, node: &str) -> String {
    format!("{base}:routesync:{}", node_hash(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_topics_are_taken_apart() {
        assert_eq!(LinkTopic::parse("$LINK/cluster/route/a/b"), Some(LinkTopic::Route("a/b")));
        assert_eq!(LinkTopic::parse("$LINK/cluster/msg/A"), Some(LinkTopic::Message("A")));
        assert_eq!(LinkTopic::parse("$LINK/cluster/resp/A/n@h"), Some(LinkTopic::Response("A/n@h")));
        for other in ["$LINK/cluster/msg/", "$LINK/cluster/msg", "$LINK/cluster", "a", "$link/cluster/msg/A"]
        {
            assert_eq!(LinkTopic::parse(other), None, "{other}");
        }
        assert!(is_reserved("$LINK") && is_reserved("$LINK/x") && !is_reserved("$LINKS/x"));
    }

    #[test]
    fn an_ack_goes_only_to_the_peers_own_response_topics() {
        assert!(is_response_topic_of("$LINK/cluster/resp/A/emqx@10.0.0.1", "A"));
        let bad = [
            "other/topic",
            "$LINK/cluster/resp/B/n",
            "$LINK/cluster/resp/A",
            "$LINK/cluster/resp/A/",
            "$LINK/cluster/resp/A/n/m",
            "$LINK/cluster/resp/A/+",
            "$LINK/cluster/resp/AB/n",
            "$LINK/cluster/msg/A/n",
        ];
        for topic in bad {
            assert!(!is_response_topic_of(topic, "A"), "{topic}");
        }
    }
}
