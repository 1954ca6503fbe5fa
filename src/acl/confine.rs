//! The rules ahead of the file: a link reaches its own cluster's `$LINK/` topics only, everybody else none; and nobody publishes
//! what only the broker says (`$SYS`), or under what begins a filter and names no topic (`$share/`).
//!
//! They win over every allow of a file and over superuser (`acl-language.md` section 8 items 1 and 12,
//! `reliability.md` 3.2 class H). Wills and retained messages are checked as the publishes they are. Not here: who is
//! bound to which cluster, which `auth` decides from `[cluster.links.peer]` (`interface.md` section 2).

use crate::acl::eval::Request;

/// First level of the control namespace (`link-protocol.md` section 2).
pub const LINK_LEVEL: &str = "$LINK";

/// First level of what the broker says of itself (section 4.7.2).
const SYS_LEVEL: &str = "$SYS";
/// First levels of filters that are about another one. A message under such a name would reach nobody, and a retained one
/// would stay for ever.
const FILTER_LEVELS: [&str; 3] = ["$share", "$queue", "$exclusive"];

/// `role` of a listener (`interface.md` section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ListenerRole {
    /// Applications only: nobody acts on `$LINK/`.
    #[default]
    Client,
    /// Linked clusters.
    Link,
    /// Both.
    Any,
}

/// Why a request was refused before the file was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Confined {
    /// `$LINK/` on a listener of role client.
    #[error("$LINK topics are not reachable on a listener of role client")]
    ClientListener,
    /// `$LINK/` by a connection that is not bound to a linked cluster.
    #[error("$LINK topics are reserved to linked clusters")]
    Unbound,
    /// A linked cluster outside `$LINK/`.
    #[error("a linked cluster reaches nothing outside $LINK")]
    OutsideLink,
    /// A linked cluster on `$LINK/` topics that are not its own.
    #[error("a linked cluster reaches only its own $LINK topics")]
    NotOwnTopic,
    /// A retained message from a linked cluster.
    #[error("a linked cluster must not retain messages")]
    Retained,
    /// `$share/`, `$queue/`, `$exclusive/` or `$delayed/` by a linked cluster.
    #[error("a linked cluster must not use shared, exclusive or delayed topics")]
    Prefixed,
    /// A publish to `$SYS` by somebody else than the broker.
    #[error("$SYS topics are published by the broker alone")]
    System,
    /// A publish to `$share/`, `$queue/` or `$exclusive/`.
    #[error("shared and exclusive filters are subscribed to, not published to")]
    Filter,
}

impl Confined {
    /// The name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientListener => "link_on_client_listener",
            Self::Unbound => "link_unbound",
            Self::OutsideLink => "outside_link",
            Self::NotOwnTopic => "not_own_link_topic",
            Self::Retained => "link_retained",
            Self::Prefixed => "link_prefixed",
            Self::System => "publish_to_sys",
            Self::Filter => "publish_to_filter",
        }
    }
}

/// Decides what no file can allow. `bound_to` is the cluster name of the peer this connection is bound to.
pub fn confine(bound_to: Option<&str>, role: ListenerRole, request: &Request<'_>) -> Result<(), Confined> {
    let written = request.topic();
    let touches = touches_link(written);
    if touches && role == ListenerRole::Client {
        return Err(Confined::ClientListener);
    }
    let Some(cluster) = bound_to else {
        return match *request {
            _ if touches => Err(Confined::Unbound),
            Request::Publish { topic, .. } => confine_publish(topic),
            Request::Subscribe { .. } => Ok(()),
        };
    };
    if touches && without_prefix(written).is_some() {
        return Err(Confined::Prefixed);
    }
    if !touches {
        return Err(Confined::OutsideLink);
    }
    match *request {
        Request::Publish { topic, retain, .. } => {
            if !is_own_publish(topic, cluster) {
                return Err(Confined::NotOwnTopic);
            }
            if retain { Err(Confined::Retained) } else { Ok(()) }
        }
        Request::Subscribe { filter, .. } if is_own_response(filter, cluster) => Ok(()),
        Request::Subscribe { .. } => Err(Confined::NotOwnTopic),
    }
}

/// What no application publishes, delayed or not: the standard asks servers to keep clients from exchanging messages under names
/// of their own. As in mosquitto, a bridge's state is left to the file: `$SYS/broker/connection/{name}/state`.
fn confine_publish(topic: &str) -> Result<(), Confined> {
    let topic = undelayed(topic);
    let level = topic.split('/').next().unwrap_or_default();
    if FILTER_LEVELS.contains(&level) {
        return Err(Confined::Filter);
    }
    if level == SYS_LEVEL && !is_bridge_state(topic) { Err(Confined::System) } else { Ok(()) }
}

/// The topic behind any number of `$delayed/n/`.
fn undelayed(mut topic: &str) -> &str {
    while let Some((_, inner)) = topic.strip_prefix("$delayed/").and_then(|rest| rest.split_once('/')) {
        topic = inner;
    }
    topic
}

fn is_bridge_state(topic: &str) -> bool {
    let name = topic.strip_prefix("$SYS/broker/connection/").and_then(|rest| rest.strip_suffix("/state"));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Whether a Topic Name or Topic Filter lies in `$LINK/`, also behind any number of `$share/g/`, `$queue/`,
/// `$exclusive/` and `$delayed/n/`. A leading wildcard never reaches a `$` topic (`[MQTT-4.7.2-1]`), so a filter
/// intersects `$LINK/#` exactly when its first level is `$LINK`.
#[must_use]
pub fn touches_link(topic: &str) -> bool {
    let mut rest = topic;
    loop {
        if rest == LINK_LEVEL || rest.strip_prefix(LINK_LEVEL).is_some_and(|r| r.starts_with('/')) {
            return true;
        }
        match without_prefix(rest) {
            Some(inner) => rest = inner,
            None => return false,
        }
    }
}

/// Takes one prefix off that changes how a topic is used but not which one it is.
fn without_prefix(topic: &str) -> Option<&str> {
    for prefix in ["$queue/", "$exclusive/"] {
        if let Some(rest) = topic.strip_prefix(prefix) {
            return Some(rest);
        }
    }
    for prefix in ["$share/", "$delayed/"] {
        if let Some(rest) = topic.strip_prefix(prefix) {
            return rest.split_once('/').map(|(_, inner)| inner);
        }
    }
    None
}

/// `$LINK/cluster/route/<cluster>` or `$LINK/cluster/msg/<cluster>`, exactly.
fn is_own_publish(topic: &str, cluster: &str) -> bool {
    ["$LINK/cluster/route/", "$LINK/cluster/msg/"]
        .into_iter()
        .any(|prefix| topic.strip_prefix(prefix).is_some_and(|name| name == cluster))
}

/// A subset of `$LINK/cluster/resp/<cluster>/+`: one more level, which is a name or `+`.
fn is_own_response(filter: &str, cluster: &str) -> bool {
    let level = filter
        .strip_prefix("$LINK/cluster/resp/")
        .and_then(|rest| rest.strip_prefix(cluster))
        .and_then(|rest| rest.strip_prefix('/'));
    level.is_some_and(|level| level == "+" || !level.contains(['/', '+', '#']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::mqtt::packet::QoS;
    use crate::mqtt::topic;

    use super::*;

    fn publish(topic: &str) -> Request<'_> {
        Request::Publish { topic, qos: QoS::AtLeastOnce, retain: false }
    }

    fn subscribe(filter: &str) -> Request<'_> {
        Request::Subscribe { filter, qos: QoS::AtLeastOnce }
    }

    const ROLES: [ListenerRole; 3] = [ListenerRole::Client, ListenerRole::Link, ListenerRole::Any];

    #[test]
    fn nobody_unbound_reaches_the_namespace() {
        let topics = [
            "$LINK",
            "$LINK/",
            "$LINK/#",
            "$LINK/cluster/msg/A",
            "$LINK/+/msg/A",
            "$share/g/$LINK/#",
            "$queue/$LINK/#",
            "$exclusive/$LINK/cluster/resp/A/x",
            "$delayed/5/$LINK/cluster/route/A",
            "$delayed/1/$delayed/1/$LINK/x",
            "$share/g/$exclusive/$LINK/#",
            "$share//$LINK/x",
        ];
        for role in ROLES {
            let reason =
                if role == ListenerRole::Client { Confined::ClientListener } else { Confined::Unbound };
            for written in topics {
                let retained = Request::Publish { topic: written, qos: QoS::AtMostOnce, retain: true };
                assert_eq!(confine(None, role, &publish(written)), Err(reason), "{written}");
                assert_eq!(confine(None, role, &subscribe(written)), Err(reason), "{written}");
                assert_eq!(confine(None, role, &retained), Err(reason), "{written}");
            }
        }
    }

    #[test]
    fn ordinary_topics_are_left_to_the_file() {
        let topics = [
            "a/b",
            "#",
            "+/#",
            "$SYS/#",
            "$LINKX/a",
            "$link/a",
            "a/$LINK/b",
            "$share/g/a",
            "$delayed/5/a",
            "$delayed/5",
            "$share/g",
            "$delayed/x/y/$LINK/z",
            "/$LINK/a",
        ];
        for role in ROLES {
            for written in topics {
                assert_eq!(confine(None, role, &subscribe(written)), Ok(()), "{written}");
            }
            for written in
                topics.into_iter().filter(|topic| !["$SYS/#", "$share/g/a", "$share/g"].contains(topic))
            {
                assert_eq!(confine(None, role, &publish(written)), Ok(()), "{written}");
            }
        }
    }

    #[test]
    fn nobody_publishes_what_the_broker_says_or_what_only_filters_are() {
        let refused = [
            ("$SYS", Confined::System),
            ("$SYS/", Confined::System),
            ("$SYS/broker/uptime", Confined::System),
            ("$SYS/broker/connection/state", Confined::System),
            ("$SYS/broker/connection//state", Confined::System),
            ("$SYS/broker/connection/a/b/state", Confined::System),
            ("$SYS/broker/connection/a/state/x", Confined::System),
            ("$share", Confined::Filter),
            ("$share/g/a", Confined::Filter),
            ("$queue/a", Confined::Filter),
            ("$exclusive/a", Confined::Filter),
        ];
        let allowed =
            ["$SYSTEM/a", "$shared/g/a", "a/$SYS", "a/$share/g", "$SYS/broker/connection/edge-1/state"];
        for role in [ListenerRole::Client, ListenerRole::Any] {
            let check = |topic: &str| confine(None, role, &publish(topic));
            for delay in ["", "$delayed/5/", "$delayed/1/$delayed/x/"] {
                for (topic, reason) in refused {
                    assert_eq!(check(&format!("{delay}{topic}")), Err(reason), "{delay}{topic}");
                }
                for topic in allowed {
                    assert_eq!(check(&format!("{delay}{topic}")), Ok(()), "{delay}{topic}");
                }
            }
        }
    }

    #[test]
    fn a_peer_reaches_its_own_topics_and_nothing_else() {
        for role in [ListenerRole::Link, ListenerRole::Any] {
            for cluster in ["A", "a.b-c_d", "A.B"] {
                let check = |request: Request<'_>| confine(Some(cluster), role, &request);
                let own = |kind: &str| format!("$LINK/cluster/{kind}/{cluster}");
                assert_eq!(check(publish(&own("msg"))), Ok(()));
                assert_eq!(check(publish(&own("route"))), Ok(()));
                for level in ["+", "emqx@n1", ""] {
                    assert_eq!(check(subscribe(&format!("{}/{level}", own("resp")))), Ok(()));
                }
                for kind in ["resp", "other", "MSG"] {
                    assert_eq!(check(publish(&own(kind))), Err(Confined::NotOwnTopic));
                }
                for filter in ["#", "x/y", "x+", "a#", "+/#"] {
                    let filter = format!("{}/{filter}", own("resp"));
                    assert_eq!(check(subscribe(&filter)), Err(Confined::NotOwnTopic), "{filter}");
                }
                assert_eq!(check(subscribe(&own("msg"))), Err(Confined::NotOwnTopic));
                assert_eq!(check(subscribe(&own("resp"))), Err(Confined::NotOwnTopic));
                assert_eq!(check(publish(&format!("{}/x", own("msg")))), Err(Confined::NotOwnTopic));
                assert_eq!(check(publish(&format!("{}x", own("msg")))), Err(Confined::NotOwnTopic));
            }
        }
        let check = |request: Request<'_>| confine(Some("A"), ListenerRole::Link, &request);
        for filter in ["$LINK/#", "$LINK/cluster/+/A", "$LINK/cluster/resp/+/x", "$LINK/cluster/resp/B/x"] {
            assert_eq!(check(subscribe(filter)), Err(Confined::NotOwnTopic), "{filter}");
        }
        assert_eq!(check(publish("$LINK/cluster/route/B")), Err(Confined::NotOwnTopic));
        assert_eq!(check(subscribe("$share/g/$LINK/cluster/resp/A/x")), Err(Confined::Prefixed));
        assert_eq!(check(publish("$delayed/1/$LINK/cluster/msg/A")), Err(Confined::Prefixed));
        for written in ["a", "#", "$SYS/x", "$share/g/a", "$delayed/5/a"] {
            assert_eq!(check(publish(written)), Err(Confined::OutsideLink), "{written}");
            assert_eq!(check(subscribe(written)), Err(Confined::OutsideLink), "{written}");
        }
        let retained = Request::Publish { topic: "$LINK/cluster/msg/A", qos: QoS::AtLeastOnce, retain: true };
        assert_eq!(check(retained), Err(Confined::Retained));
    }

    #[test]
    fn on_a_client_listener_even_a_peer_gets_nothing() {
        let own = publish("$LINK/cluster/msg/A");
        assert_eq!(confine(Some("A"), ListenerRole::Client, &own), Err(Confined::ClientListener));
        assert_eq!(confine(Some("A"), ListenerRole::Client, &publish("a")), Err(Confined::OutsideLink));
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["$LINK", "cluster", "resp", "msg", "A", "B", "+", "x", ""]);
        (prop::collection::vec(level, 1..6), any::<bool>()).prop_map(|(mut levels, open)| {
            if open {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn the_namespace_is_what_intersects_it(filter in filter()) {
            prop_assert_eq!(touches_link(&filter), topic::intersects(&filter, "$LINK/#"));
        }

        #[test]
        fn a_peer_subscribes_to_subsets_only(filter in filter()) {
            let granted = confine(Some("A"), ListenerRole::Link, &subscribe(&filter)).is_ok();
            prop_assert_eq!(granted, topic::is_subset(&filter, "$LINK/cluster/resp/A/+"));
        }
    }
}
