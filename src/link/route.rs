//! Routes as they are replicated: a subscription of ours cut down to what a link's topics cover
//! (`link-protocol.md` 5), and the topics themselves with their rules (7.2).

use smallvec::SmallVec;

use crate::link::name;
use crate::mqtt::topic;
use crate::mqtt::topic::TopicError;

/// A distinct local subscription, before it is cut down to a link's topics: what the router reports when the
/// first subscriber of it comes or the last one goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalRoute {
    filter: Box<str>,
    id: Box<str>,
}

impl LocalRoute {
    /// An ordinary subscription: the id is the filter.
    #[must_use]
    pub fn plain(filter: &str) -> Self {
        Self { filter: filter.into(), id: filter.into() }
    }

    /// A Shared Subscription: `$s/GROUP/FILTER`.
    #[must_use]
    pub fn shared(group: &str, filter: &str) -> Self {
        Self { filter: filter.into(), id: format!("$s/{group}/{filter}").into() }
    }

    /// A subscription of a session that outlives its connection: `$p/SESSION/FILTER`.
    #[must_use]
    pub fn persistent(session: &str, filter: &str) -> Self {
        Self { filter: filter.into(), id: format!("$p/{session}/{filter}").into() }
    }

    /// One of another cluster, told under this id ([`crate::link::relay::via`]).
    #[must_use]
    pub fn passed_on(id: &str, filter: &str) -> Self {
        Self { filter: filter.into(), id: id.into() }
    }

    /// The Topic Filter subscribed to.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Tells apart subscriptions that come down to the same filter; opaque to the peer.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// One replicated route: what a peer stores for us.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// The intersection of a local subscription with a link topic.
    pub topic: Box<str>,
    /// The id of the local subscription, made of its *original* filter.
    pub id: Box<str>,
}

impl RouteKey {
    /// Whether it is that of a Shared Subscription. An ordinary one to `$s/…` has an id like that too, and its topic is as
    /// the id: no wildcard in front stands for `$s`.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.id.starts_with("$s/") && !self.topic.starts_with("$s/")
    }
}

/// Why a link's topics are refused. The texts are EMQX's names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// Some are no filters, or not allowed: each with its reason.
    #[error("invalid_topics: {}", list(.0))]
    Invalid(Vec<(String, &'static str)>),
    /// Some are covered by others.
    #[error("redundant_topics: {}", .0.join(", "))]
    Redundant(Vec<String>),
}

fn list(pairs: &[(String, &'static str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(topic, reason)| format!("{topic} ({reason})")).collect();
    pairs.join(", ")
}

/// EMQX's name for an invalid filter.
fn reason_name(error: TopicError) -> &'static str {
    match error {
        TopicError::Empty => "empty_topic",
        TopicError::TooLong => "topic_too_long",
        TopicError::MultiLevel => "topic_invalid_#",
        _ => "topic_invalid_char",
    }
}

/// What we want from a peer: filters, none covered by another. Empty means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkTopics {
    filters: Vec<Box<str>>,
}

impl LinkTopics {
    /// Checks the filters in EMQX's order (`link-protocol.md` 7.2). Beyond it, everything that could reach
    /// `$LINK` is refused, `$LINK/#` included; a leading wildcard never matches a `$` topic.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, TopicsError> {
        let invalid: Vec<(String, &'static str)> = filters
            .iter()
            .map(AsRef::as_ref)
            .filter_map(|filter| invalid_reason(filter).map(|reason| (filter.to_owned(), reason)))
            .collect();
        if !invalid.is_empty() {
            return Err(TopicsError::Invalid(invalid));
        }
        let redundant: Vec<String> = filters
            .iter()
            .enumerate()
            .filter(|(index, filter)| {
                filters.iter().enumerate().any(|(other_index, other)| {
                    let (filter, other) = (filter.as_ref(), other.as_ref());
                    // Of equal filters the later one is redundant.
                    if filter == other { other_index < *index } else { topic::is_subset(filter, other) }
                })
            })
            .map(|(_, filter)| filter.as_ref().to_owned())
            .collect();
        if !redundant.is_empty() {
            return Err(TopicsError::Redundant(redundant));
        }
        Ok(Self { filters: filters.iter().map(|filter| filter.as_ref().into()).collect() })
    }

    /// The filters, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(AsRef::as_ref)
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether a Topic Name is wanted. `$SYS/…` only if a filter names it (`[MQTT-4.7.2-1]`).
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.filters.iter().any(|filter| topic::matches(filter, name))
    }

    /// Whether any topic that `filter` matches is wanted.
    #[must_use]
    pub fn intersects(&self, filter: &str) -> bool {
        self.filters.iter().any(|wanted| topic::intersects(wanted, filter))
    }

    /// What is left of a subscription: its intersections, without those covered by another
    /// (`link-protocol.md` 5.2).
    #[must_use]
    pub fn intersections(&self, filter: &str) -> SmallVec<[Box<str>; 2]> {
        let mut kept: SmallVec<[Box<str>; 2]> = SmallVec::new();
        if name::is_reserved(filter) {
            return kept;
        }
        for wanted in &self.filters {
            let Some(common) = topic::intersection(filter, wanted) else { continue };
            if kept.iter().any(|other| topic::is_subset(&common, other)) {
                continue;
            }
            kept.retain(|other| !topic::is_subset(other, &common));
            kept.push(common.into());
        }
        kept
    }

    /// The routes a local subscription makes, all with its id.
    pub fn routes<'a>(&self, route: &'a LocalRoute) -> impl Iterator<Item = RouteKey> + use<'a> {
        self.intersections(route.filter())
            .into_iter()
            .map(move |topic| RouteKey { topic, id: route.id.clone() })
    }
}

fn invalid_reason(filter: &str) -> Option<&'static str> {
    if let Err(error) = topic::check_filter(filter) {
        return Some(reason_name(error));
    }
    name::is_reserved(filter).then_some("topic_not_allowed")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_are_refused_with_emqxs_reasons() {
        let invalid = |filters: &[&str]| match LinkTopics::parse(filters) {
            Err(TopicsError::Invalid(pairs)) => pairs,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            invalid(&["", "$SYS/#/+", "a/b+", "ok", "a\0"]),
            [
                (String::new(), "empty_topic"),
                ("$SYS/#/+".into(), "topic_invalid_#"),
                ("a/b+".into(), "topic_invalid_char"),
                ("a\0".into(), "topic_invalid_char"),
            ]
        );
        // `$LINK/#` and `$LINK/+/msg/x` slip through in EMQX.
        for filter in ["$LINK", "$LINK/#", "$LINK/+/msg/x", "$LINK/cluster", "$LINK/cluster/+/name"] {
            assert_eq!(invalid(&[filter]), [(filter.to_owned(), "topic_not_allowed")]);
        }
        let redundant = |filters: &[&str]| match LinkTopics::parse(filters) {
            Err(TopicsError::Redundant(covered)) => covered,
            other => panic!("{other:?}"),
        };
        assert_eq!(redundant(&["t/+", "g/2", "t/1", "t/+/#", "t"]), ["t/+", "t/1"]);
        assert_eq!(redundant(&["t", "t"]), ["t"]);
        let error = LinkTopics::parse(&["t", "t"]).unwrap_err();
        assert_eq!(error.to_string(), "redundant_topics: t");
        assert_eq!(LinkTopics::parse(&["a/+", "+/b", "$SYS/#"]).unwrap().iter().count(), 3);
    }

    /// `link-protocol.md` 8, cases 12 to 15.
    #[test]
    fn intersections_are_maximal() {
        let kept = |topics: &[&str], filter: &str| {
            let mut kept = LinkTopics { filters: topics.iter().map(|topic| (*topic).into()).collect() }
                .intersections(filter)
                .into_iter()
                .map(String::from)
                .collect::<Vec<_>>();
            kept.sort();
            kept
        };
        for filter in ["t/6", "t/1"] {
            assert_eq!(
                kept(&["t/+/#", "t/+", "t/1", "t/+/#"], filter),
                [filter],
                "once, however many cover it"
            );
        }
        let topics = ["t/+/1/#", "t/z", "t/1/+"];
        assert_eq!(kept(&topics, "t/+"), ["t/z"]);
        assert_eq!(kept(&topics, "t/+/+"), ["t/+/1", "t/1/+"]);
        assert_eq!(kept(&["t/1", "t/2", "t/3"], "t/+/#"), ["t/1", "t/2", "t/3"]);
        assert_eq!(kept(&["t/1", "t/2", "t/3", "t/+"], "t/+/#"), ["t/+"]);
        let topics = ["t/1/+/3/#", "t/z", "t/1/2/+"];
        assert_eq!(kept(&topics, "t/+"), ["t/z"]);
        assert_eq!(kept(&topics, "t/+/2/3/#"), ["t/1/2/3/#"]);
        assert_eq!(kept(&[], "#"), [""; 0]);
        assert_eq!(kept(&["#", "$SYS/a/#"], "$SYS/#"), ["$SYS/a/#"]);
        assert_eq!(kept(&["#"], "$LINK/cluster/msg/x"), [""; 0]);
    }

    /// Short filters over few names, so that they often have topics in common.
    pub(crate) fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "+", ""]);
        (prop::collection::vec(level, 1..4), any::<bool>())
            .prop_map(|(mut levels, open)| {
                if open {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    fn topic_name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not empty", |name| !name.is_empty())
    }

    proptest! {
        /// A subscription gets over the link what it matches and the link covers, no route twice.
        #[test]
        fn routes_match_what_subscription_and_link_match(
            wanted in prop::collection::vec(filter(), 0..5), subscribed in filter(), name in topic_name(),
        ) {
            let topics = LinkTopics { filters: wanted.iter().map(|filter| filter.as_str().into()).collect() };
            let kept = topics.intersections(&subscribed);
            let both = topics.covers(&name) && topic::matches(&subscribed, &name);
            prop_assert_eq!(kept.iter().any(|route| topic::matches(route, &name)), both);
            for (index, one) in kept.iter().enumerate() {
                for other in &kept[index + 1..] {
                    prop_assert!(!topic::is_subset(one, other) && !topic::is_subset(other, one));
                }
            }
            prop_assert_eq!(topics.intersects(&subscribed), !kept.is_empty());
        }

        #[test]
        fn accepted_topics_do_not_cover_one_another(wanted in prop::collection::vec(filter(), 0..5)) {
            let accepted = LinkTopics::parse(&wanted).is_ok();
            let covered = wanted.iter().enumerate().any(|(index, one)| {
                wanted.iter().enumerate().any(|(at, other)| at != index && topic::is_subset(one, other))
            });
            prop_assert_eq!(accepted, !covered);
        }
    }
}
