//! Set questions about Topic Filters without allocating, for the check of every SUBSCRIBE (`acl-language.md`
//! section 3, strict mode). `mqtt::topic` answers the same by building the intersection.

use crate::mqtt::topic;

/// Whether every topic that `inner` matches is matched by `outer` too.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    if apart_at_dollar(outer, inner) {
        return false;
    }
    let mut inner = inner.split('/');
    for wide in outer.split('/') {
        if wide == "#" {
            return true;
        }
        match inner.next() {
            Some("#") | None => return false,
            Some(narrow) if wide == "+" || wide == narrow => {}
            Some(_) => return false,
        }
    }
    inner.next().is_none()
}

/// Whether some topic is matched by both.
pub(crate) fn overlaps(one: &str, other: &str) -> bool {
    // These two meet in the empty topic alone, which there is not (`[MQTT-4.7.3-1]`).
    if apart_at_dollar(one, other) || matches!((one, other), ("+", "/#") | ("/#", "+")) {
        return false;
    }
    let mut left = one.split('/');
    let mut right = other.split('/');
    loop {
        match (left.next(), right.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// A leading wildcard and a `$` topic have nothing in common (`[MQTT-4.7.2-1]`).
fn apart_at_dollar(one: &str, other: &str) -> bool {
    let wild = |filter: &str| matches!(topic::first_level(filter), "+" | "#");
    (one.starts_with('$') && wild(other)) || (other.starts_with('$') && wild(one))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// None is empty: such a filter there is not.
    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "", "$c", "+"]);
        let filter = (prop::collection::vec(level, 1..6), any::<bool>()).prop_map(|(mut levels, open)| {
            if open {
                levels.push("#");
            }
            levels.join("/")
        });
        filter.prop_filter("a filter is not empty", |filter| !filter.is_empty())
    }

    #[test]
    fn nothing_is_in_the_empty_topic() {
        assert!(!overlaps("+", "/#") && !overlaps("/#", "+"));
        assert!(overlaps("+/#", "/#") && overlaps("+", "#"));
    }

    proptest! {
        #[test]
        fn the_answers_are_those_of_the_intersection(one in filter(), other in filter()) {
            prop_assert_eq!(covers(&one, &other), topic::is_subset(&other, &one));
            prop_assert_eq!(overlaps(&one, &other), topic::intersects(&one, &other));
        }
    }
}
