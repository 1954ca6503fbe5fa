//! Topic Names and Topic Filters (MQTT 5.0 section 4.7): validity, matching, subset and intersection.
//!
//! Everything here works on `&str` level by level without allocating, except [`intersection`], which makes a
//! new filter. The set operations are EMQX's (`link-protocol.md` 5.2), so that both ends of a link agree.

/// The longest topic or filter in bytes: a UTF-8 Encoded String (section 1.5.4).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Why a Topic Name or Topic Filter is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// `[MQTT-4.7.3-1]`
    #[error("a topic must be at least one character long")]
    Empty,
    /// `[MQTT-4.7.3-2]`
    #[error("a topic must not hold the null character")]
    Null,
    /// `[MQTT-4.7.3-3]`
    #[error("a topic must not be longer than 65,535 bytes")]
    TooLong,
    /// `[MQTT-3.3.2-2]`, `[MQTT-4.7.0-1]`
    #[error("a Topic Name must not hold wildcards")]
    Wildcard,
    /// `[MQTT-4.7.1-1]`
    #[error("`#` must be the last level and stand alone in it")]
    MultiLevel,
    /// `[MQTT-4.7.1-2]`
    #[error("`+` must stand alone in its level")]
    SingleLevel,
    /// `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`
    #[error("a shared subscription is `$share/name/filter`; the name is not empty and holds no wildcard")]
    Share,
}

/// Checks a Topic Name: what a PUBLISH may carry.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    if has_odd_byte(name.as_bytes()) || name.is_empty() || name.len() > TOPIC_BYTES_MAX {
        check_text(name)?;
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

/// Whether there is a NUL or a wildcard: eight bytes at a time, since this is asked of every PUBLISH.
fn has_odd_byte(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The high bit of a byte that is zero; perhaps of others, if there is one.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let is_odd = |eight: &[u8; 8]| {
        let word = u64::from_ne_bytes(*eight);
        let wildcard = |byte: u8| word ^ u64::from_ne_bytes([byte; 8]);
        zeros(word) | zeros(wildcard(b'+')) | zeros(wildcard(b'#')) != 0
    };
    let (eights, rest) = bytes.as_chunks::<8>();
    let rest_is_odd = match bytes.last_chunk() {
        // Some of them once more.
        Some(last) => is_odd(last),
        None => rest.iter().any(|byte| matches!(byte, 0 | b'+' | b'#')),
    };
    rest_is_odd || eights.iter().any(is_odd)
}

/// Checks a Topic Filter without a `$share/` prefix.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_text(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevel);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevel);
        }
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if text.as_bytes().contains(&0) {
        return Err(TopicError::Null);
    }
    Ok(())
}

/// A filter as a client wrote it, taken apart: `$share/{ShareName}/{filter}` or a plain filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedFilter<'a> {
    /// ShareName of a Shared Subscription (section 4.8.2).
    pub share: Option<&'a str>,
    /// The Topic Filter itself: valid.
    pub filter: &'a str,
}

impl<'a> ParsedFilter<'a> {
    /// Takes `text` apart and checks both halves.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        let Some(rest) = text.strip_prefix("$share/") else {
            check_filter(text)?;
            return Ok(Self { share: None, filter: text });
        };
        let (name, filter) = rest.split_once('/').ok_or(TopicError::Share)?;
        if name.is_empty() || name.contains(['+', '#']) || filter.is_empty() {
            return Err(TopicError::Share);
        }
        check_text(text)?;
        check_filter(filter)?;
        Ok(Self { share: Some(name), filter })
    }
}

/// Whether the filter has a `+` or `#` level.
#[must_use]
pub fn has_wildcard(filter: &str) -> bool {
    filter.split('/').any(is_wildcard)
}

fn is_wildcard(level: &str) -> bool {
    level == "+" || level == "#"
}

/// Whether `filter` matches the Topic Name `name`, byte by byte: nothing is normalised (`[MQTT-4.7.3-4]`). A leading
/// wildcard never matches a name that begins with `$` (`[MQTT-4.7.2-1]`). The filter is a valid one: its wildcards
/// stand alone in their levels.
#[must_use]
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let (filter, name) = (filter.as_bytes(), name.as_bytes());
    let mut at = 0;
    for (index, &byte) in filter.iter().enumerate() {
        match byte {
            b'#' => return true,
            b'+' => at += name[at..].iter().take_while(|byte| **byte != b'/').count(),
            _ if name.get(at) == Some(&byte) => at += 1,
            // `#` stands for its parent level too.
            b'/' if at == name.len() => return filter[index + 1..] == *b"#",
            _ => return false,
        }
    }
    at == name.len()
}

/// The filter that matches exactly what both match, or `None` when nothing does (`link-protocol.md` 5.2).
#[must_use]
pub fn intersection(one: &str, other: &str) -> Option<String> {
    if dollar_against_wildcard(one, other) || dollar_against_wildcard(other, one) {
        return None;
    }
    let mut left = one.split('/').peekable();
    let mut right = other.split('/').peekable();
    let mut levels: Vec<&str> = Vec::new();
    loop {
        // `#` also stands for its parent level, so it meets an empty rest as well.
        if right.peek() == Some(&"#") {
            levels.extend(left);
            break;
        }
        if left.peek() == Some(&"#") {
            levels.extend(right);
            break;
        }
        match (left.next(), right.next()) {
            (None, None) => break,
            (Some("+"), Some(level)) | (Some(level), Some("+")) => levels.push(level),
            (Some(a), Some(b)) if a == b => levels.push(a),
            _ => return None,
        }
    }
    // `+` and `/#` meet in the empty topic alone, which there is not (`[MQTT-4.7.3-1]`).
    Some(levels.join("/")).filter(|common| !common.is_empty())
}

fn dollar_against_wildcard(name: &str, filter: &str) -> bool {
    name.starts_with('$') && is_wildcard(first_level(filter))
}

/// The text before the first `/`.
#[must_use]
pub fn first_level(topic: &str) -> &str {
    topic.split('/').next().unwrap_or(topic)
}

/// Whether both filters have a topic in common.
#[must_use]
pub fn intersects(one: &str, other: &str) -> bool {
    intersection(one, other).is_some()
}

/// Whether every topic that `inner` matches is matched by `outer` too: `inner ∩ outer = inner`.
#[must_use]
pub fn is_subset(inner: &str, outer: &str) -> bool {
    intersection(inner, outer).is_some_and(|common| common == inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_do_not_meet_in_the_empty_topic() {
        assert_eq!(intersection("+", "/#"), None);
        assert_eq!(intersection("+/#", "/#").as_deref(), Some("/#"));
        assert!(intersects("+", "#") && !intersects("/#", "+"));
    }

    proptest! {
        #[test]
        fn an_odd_byte_is_found_wherever_it_is(bytes in prop::collection::vec(prop_oneof![
            Just(0_u8), Just(b'+'), Just(b'#'), Just(1), Just(0x80), Just(0xff), b' '..=b'~',
        ], 0..40)) {
            let odd = bytes.iter().any(|byte| matches!(byte, 0 | b'+' | b'#'));
            prop_assert_eq!(has_odd_byte(&bytes), odd);
            let plain: Vec<u8> = bytes.into_iter().filter(|byte| !matches!(byte, 0 | b'+' | b'#')).collect();
            prop_assert!(!has_odd_byte(&plain));
        }
    }

    #[test]
    fn names_and_filters_are_checked() {
        assert_eq!(check_name("a/b"), Ok(()));
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a/+"), Err(TopicError::Wildcard));
        assert_eq!(check_name("a\0"), Err(TopicError::Null));
        for good in ["#", "+", "/", "a/#", "+/a/+", "a//b", "+/+/#"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        assert_eq!(check_filter("a#"), Err(TopicError::MultiLevel));
        assert_eq!(check_filter("a/#/b"), Err(TopicError::MultiLevel));
        assert_eq!(check_filter("a+/b"), Err(TopicError::SingleLevel));
        assert_eq!(check_filter(&"a".repeat(65_536)), Err(TopicError::TooLong));
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        let parsed = ParsedFilter::parse("$share/g/a/+").unwrap();
        assert_eq!((parsed.share, parsed.filter), (Some("g"), "a/+"));
        for bad in ["$share/g", "$share//a", "$share/g/", "$share/+/a", "$share/g#/a", "$share/g/a#"] {
            assert!(ParsedFilter::parse(bad).is_err(), "{bad}");
        }
    }

    /// MQTT 5.0 section 4.7.1 and 4.7.2, their own examples.
    #[test]
    fn matching_follows_the_standard() {
        let yes = [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a"),
            ("+", "sport"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/x"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("+/x", "é/x"),
        ];
        for (filter, name) in yes {
            assert!(matches(filter, name), "{filter} {name}");
        }
        let no = [
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("a/b", "a/b/c"),
            ("a/b/c", "a/b"),
        ];
        for (filter, name) in no {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    /// The table of `link-protocol.md` 5.2, computed by EMQX's own module.
    #[test]
    fn intersections_are_those_of_emqx() {
        let table = [
            ("t", "t/#", Some("t")),
            ("#", "t/1", Some("t/1")),
            ("+", "#", Some("+")),
            ("a/+", "+/b", Some("a/b")),
            ("a/+/c", "a/b/+", Some("a/b/c")),
            ("a/#", "a/+", Some("a/+")),
            ("a/#", "+", Some("a")),
            ("a/#", "+/b/#", Some("a/b/#")),
            ("a/b/#", "a/+/c", Some("a/b/c")),
            ("t/+/1/#", "t/+", None),
            ("t/+/1/#", "t/+/+", Some("t/+/1")),
            ("1/+/3/+/5/#", "+/2/+/4/+", Some("1/2/3/4/5")),
            ("a/+/#", "a", None),
            ("a/+/#", "a/#", Some("a/+/#")),
            ("/", "+/+", Some("/")),
            ("/a", "+/a", Some("/a")),
            ("a/", "a/+", Some("a/")),
            ("a//b", "a/+/b", Some("a//b")),
            ("$SYS/x", "#", None),
            ("$SYS/x", "+/x", None),
            ("$SYS/#", "$SYS/+", Some("$SYS/+")),
            ("$SYS/+", "+/x", None),
            ("a/$b", "a/+", Some("a/$b")),
            ("a/b", "a/b/c", None),
            ("#", "$x", None),
        ];
        for (one, other, common) in table {
            assert_eq!(intersection(one, other).as_deref(), common, "{one} and {other}");
            assert_eq!(intersection(other, one).as_deref(), common, "{other} and {one}");
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "", "$c"]).prop_map(str::to_owned)
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not empty", |n| !n.is_empty())
    }

    fn filter() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => level(), 2 => Just("+".to_owned())];
        (prop::collection::vec(part, 1..5), any::<bool>())
            .prop_map(|(mut levels, open)| {
                if open {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            })
            .prop_filter("not empty", |f| !f.is_empty())
    }

    /// Level by level, as the standard says it.
    fn matches_by_level(filter: &str, name: &str) -> bool {
        let mut names = name.split('/');
        for level in filter.split('/') {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(found)) if level == found => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    proptest! {
        #[test]
        fn matching_is_by_level(filter in filter(), name in name()) {
            let apart = name.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
            prop_assert_eq!(matches(&filter, &name), !apart && matches_by_level(&filter, &name));
        }

        #[test]
        fn an_intersection_matches_what_both_match(one in filter(), other in filter(), name in name()) {
            let both = matches(&one, &name) && matches(&other, &name);
            let common = intersection(&one, &other).is_some_and(|common| matches(&common, &name));
            prop_assert_eq!(both, common);
        }

        #[test]
        fn a_subset_matches_no_more(inner in filter(), outer in filter(), name in name()) {
            if is_subset(&inner, &outer) && matches(&inner, &name) {
                prop_assert!(matches(&outer, &name));
            }
        }
    }
}
