//! What of a peer's wishes we grant: each of its routes is narrowed to its intersections with the link's `export`
//! (EMQX has no such bound). One that has none is refused and counted; it comes into force if `export` is widened.
//!
//! Several routes may come down to the same filter, which stays until the last of them goes.

use std::collections::HashMap;

use crate::link::route::LinkTopics;

/// See the module.
#[derive(Debug, Default)]
pub struct Exported {
    /// `None` grants everything.
    filters: Option<LinkTopics>,
    /// What is granted, and how many of the peer's routes come down to it. It is bounded by the peer's routes times
    /// the filters of `export`; nothing is kept while everything is granted.
    granted: HashMap<Box<str>, u32>,
    /// What an earlier `export` granted: it goes once the routes were narrowed to this one.
    former: Vec<Box<str>>,
    refused: u64,
}

impl Exported {
    /// Grants nothing yet, and never more than these filters match.
    #[must_use]
    pub fn new(filters: Option<LinkTopics>) -> Self {
        Self { filters, ..Self::default() }
    }

    /// The peer came to want a filter; what it gets of it that it did not get yet is told.
    pub fn appeared(&mut self, filter: &str, mut grant: impl FnMut(&str)) {
        let Some(filters) = &self.filters else { return grant(filter) };
        let parts = filters.intersections(filter);
        self.refused += u64::from(parts.is_empty());
        for part in parts {
            match self.granted.get_mut(&part) {
                Some(routes) => *routes += 1,
                None => {
                    grant(&part);
                    self.granted.insert(part, 1);
                }
            }
        }
    }

    /// The peer no longer wants a filter; what it does not get any more is told.
    pub fn vanished(&mut self, filter: &str, mut revoke: impl FnMut(&str)) {
        let Some(filters) = &self.filters else { return revoke(filter) };
        for part in filters.intersections(filter) {
            let Some(routes) = self.granted.get_mut(&part) else { continue };
            *routes -= 1;
            if *routes == 0 {
                self.granted.remove(&part);
                revoke(&part);
            }
        }
    }

    /// Continues from what was granted before, of which `wanted` is all that the table may have. Whether every route has to
    /// appear anew, since it may come down to something else now.
    pub fn follow<'a>(&mut self, before: &mut Self, wanted: impl Iterator<Item = &'a str>) -> bool {
        self.refused = before.refused;
        self.former = std::mem::take(&mut before.former);
        if self.filters == before.filters {
            self.granted = std::mem::take(&mut before.granted);
            return false;
        }
        match before.filters {
            Some(_) => self.former.extend(std::mem::take(&mut before.granted).into_keys()),
            None => self.former.extend(wanted.map(Box::from)),
        }
        true
    }

    /// Every route of the peer has appeared: what an earlier `export` granted and this one does not is told.
    pub fn settle(&mut self, is_wanted: impl Fn(&str) -> bool, mut revoke: impl FnMut(&str)) {
        for former in std::mem::take(&mut self.former) {
            let stays = match self.filters {
                Some(_) => self.granted.contains_key(&former),
                None => is_wanted(&former),
            };
            if !stays {
                revoke(&former);
            }
        }
    }

    /// Routes that came down to nothing, since the link began.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The filters that bound it, if any do.
    #[must_use]
    pub fn filters(&self) -> Option<&LinkTopics> {
        self.filters.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::link::route::tests::filter;
    use crate::mqtt::topic;

    fn only(filters: &[&str]) -> Exported {
        Exported::new(Some(LinkTopics::parse(filters).unwrap()))
    }

    /// A route table with the routes of one peer.
    #[derive(Default)]
    struct Table(RefCell<BTreeSet<String>>);

    impl Table {
        fn change(&self, exported: &mut Exported, filter: &str, appears: bool) {
            let grant = |part: &str| assert!(self.0.borrow_mut().insert(part.to_owned()), "granted twice");
            let revoke = |part: &str| assert!(self.0.borrow_mut().remove(part), "revoked twice");
            if appears { exported.appeared(filter, grant) } else { exported.vanished(filter, revoke) }
        }

        fn filters(&self) -> Vec<String> {
            self.0.borrow().iter().cloned().collect()
        }
    }

    #[test]
    fn what_several_routes_come_down_to_goes_with_the_last_of_them() {
        let (table, mut exported) = (Table::default(), only(&["a/b", "c/#"]));
        for (filter, appears, granted) in [
            ("#", true, &["a/b", "c/#"][..]),
            ("a/+", true, &["a/b", "c/#"]),
            ("d", true, &["a/b", "c/#"]),
            ("#", false, &["a/b"]),
            ("d", false, &["a/b"]),
            ("a/+", false, &[]),
        ] {
            table.change(&mut exported, filter, appears);
            assert_eq!(table.filters(), granted);
        }
        assert_eq!(exported.refused(), 1);
        let mut everything = Exported::new(None);
        table.change(&mut everything, "#", true);
        table.change(&mut everything, "$SYS/#", true);
        assert_eq!(table.filters(), ["#", "$SYS/#"]);
    }

    /// The bounds of a link change while the peer wants these.
    fn rebound(before: Exported, after: Exported, wanted: &[&str]) -> (Vec<String>, Exported) {
        let (mut before, mut after) = (before, after);
        let table = Table::default();
        for filter in wanted {
            table.change(&mut before, filter, true);
        }
        if after.follow(&mut before, wanted.iter().copied()) {
            for filter in wanted {
                // What was granted stays: a table has a filter once, however often it is added.
                after.appeared(filter, |part| {
                    table.0.borrow_mut().insert(part.to_owned());
                });
            }
        }
        after.settle(|filter| wanted.contains(&filter), |part| assert!(table.0.borrow_mut().remove(part)));
        (table.filters(), after)
    }

    #[test]
    fn other_bounds_take_and_give_only_what_differs() {
        let wanted = ["a/#", "b", "+/c"];
        let (granted, _) = rebound(only(&["a/#"]), only(&["a/+", "b"]), &wanted);
        assert_eq!(granted, ["a/+", "a/c", "b"]);
        let (granted, _) = rebound(Exported::new(None), only(&["b"]), &wanted);
        assert_eq!(granted, ["b"]);
        let (granted, _) = rebound(only(&["a/c"]), Exported::new(None), &wanted);
        assert_eq!(granted, ["+/c", "a/#", "b"]);
        let (granted, mut same) = rebound(only(&["a/#"]), only(&["a/#"]), &wanted);
        assert_eq!(granted, ["a/#", "a/c"]);
        let mut revoked = Vec::new();
        same.vanished("a/#", |part| revoked.push(part.to_owned()));
        assert_eq!(revoked, ["a/#"], "it goes on counting");
    }

    proptest! {
        /// A peer gets what it wants and `export` covers, no matter in which order its routes come and go.
        #[test]
        fn granted_is_what_is_both_wanted_and_exported(
            bounds in prop::collection::vec(filter(), 0..4),
            steps in prop::collection::vec(filter(), 1..12),
            names in prop::collection::vec("[ab]?(/[ab]?){0,3}", 8),
        ) {
            let Ok(topics) = LinkTopics::parse(&bounds) else { return Ok(()) };
            let (table, mut exported) = (Table::default(), Exported::new(Some(topics)));
            let mut wanted = BTreeSet::new();
            for step in steps {
                let appears = !wanted.remove(&step);
                if appears {
                    wanted.insert(step.clone());
                }
                table.change(&mut exported, &step, appears);
                for name in names.iter().filter(|name| !name.is_empty()) {
                    let matches = |filter: &String| topic::matches(filter, name);
                    let both = wanted.iter().any(matches) && bounds.iter().any(matches);
                    prop_assert_eq!(table.filters().iter().any(matches), both, "{}", name);
                }
            }
        }
    }
}
