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
