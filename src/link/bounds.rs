//! Up to which QoS messages may cross a link, where that is bounded (`trust.md` 2.5, `qos=` of `can_import` and `can_export`; EMQX
//! has no such bound). Of several grants that match a topic the greatest counts.

use crate::mqtt::packet::QoS;
use crate::mqtt::topic;

/// Topic Filters, each with the greatest QoS of what it matches. A link without bounds has none of these, and asks nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosBounds(Box<[(Box<str>, QoS)]>);

impl QosBounds {
    /// Of these grants; `None` if none of them is a bound.
    #[must_use]
    pub fn of<'f>(grants: impl IntoIterator<Item = (&'f str, QoS)>) -> Option<Self> {
        let grants: Box<[_]> = grants.into_iter().map(|(filter, most)| (filter.into(), most)).collect();
        grants.iter().any(|(_, most)| *most < QoS::ExactlyOnce).then_some(Self(grants))
    }

    /// The greatest QoS for a topic; the least where no grant matches, for which nothing should cross.
    #[must_use]
    pub fn most(&self, name: &str) -> QoS {
        let matching = self.0.iter().filter(|(filter, _)| topic::matches(filter, name));
        matching.map(|(_, most)| *most).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_of_what_matches_counts_and_without_a_bound_there_is_none() {
        let all = [("a/#", QoS::AtMostOnce), ("a/b", QoS::AtLeastOnce), ("c", QoS::ExactlyOnce)];
        let bounds = QosBounds::of(all).unwrap();
        for (name, most) in [("a/x", 0), ("a/b", 1), ("c", 2), ("d", 0)] {
            assert_eq!(bounds.most(name) as u8, most, "{name}");
        }
        assert_eq!(QosBounds::of([("a", QoS::ExactlyOnce)]), None);
        assert_eq!(QosBounds::of([]), None);
    }
}
