//! Which local routes the peer was told of, to count them: a change may be known from the snapshot already, so
//! adding and subtracting alone would drift.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::hash::RandomState;

use crate::broker::routes::LocalRoute;
use crate::link::route::LinkTopics;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The routes by hash: eight bytes each, however long the filter is.
    routes: HashSet<u64>,
    hasher: RandomState,
    /// What they make of routes for the peer: plain and shared ones.
    counts: [i64; 2],
}

impl Told {
    /// A route came or went; how many routes for the peer that makes.
    pub(super) fn change(&mut self, route: &LocalRoute, added: bool, topics: &LinkTopics) -> usize {
        let count = topics.intersections(&route.filter).len();
        if count == 0 {
            return 0;
        }
        let hash = self.hasher.hash_one(route);
        let changed = if added { self.routes.insert(hash) } else { self.routes.remove(&hash) };
        if changed {
            let kind = &mut self.counts[usize::from(route.share.is_some())];
            *kind += if added { count as i64 } else { -(count as i64) };
        }
        count
    }

    /// Plain and shared routes for the peer.
    pub(super) fn counts(&self) -> [i64; 2] {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_counts_once_however_often_it_is_told() {
        let topics = LinkTopics::parse(&["t/#".to_owned(), "+/1".to_owned()]).unwrap();
        let route = |filter: &str, share: Option<&str>| LocalRoute {
            via: None,
            filter: filter.into(),
            share: share.map(Into::into),
        };
        let mut told = Told::default();
        assert_eq!(told.change(&route("#", None), true, &topics), 2);
        assert_eq!(told.change(&route("#", None), true, &topics), 2);
        assert_eq!(told.change(&route("t/2", Some("g")), true, &topics), 1);
        assert_eq!(told.change(&route("t/2", Some("h")), false, &topics), 1);
        assert_eq!(told.change(&route("u/2", None), true, &topics), 0);
        assert_eq!(told.counts(), [2, 1]);
        told.change(&route("#", None), false, &topics);
        told.change(&route("#", None), false, &topics);
        assert_eq!(told.counts(), [0, 1]);
    }
}
