//! One step of a filter through Topic Names in byte order: does this name match, and if not, which names can be
//! passed over. All names below a level lie together in that order (they share `…level/` as a prefix), which is
//! what makes a jump right; names of sibling levels may lie in between (`b`, `b-c/x`, `b/x`).

/// What a name means for the walk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'f> {
    /// It matches.
    Match,
    /// It does not; the next one may.
    Next,
    /// It does not, nor does any name before `name[..keep]` followed by `then`, which is behind this name.
    From { keep: usize, then: [&'f str; 2] },
    /// It does not, nor does any name behind it.
    End,
}

/// The character behind `/` and the one behind `$`: the first names that do not begin with those.
const BEHIND_SLASH: &str = "0";
const BEHIND_DOLLAR: &str = "%";

/// Where the names that a filter can match begin: its levels before the first wildcard.
pub(super) fn literal_prefix(filter: &str) -> &str {
    let mut end = 0;
    for level in filter.split('/') {
        if level == "+" || level == "#" {
            return filter[..end].trim_end_matches('/');
        }
        end += level.len() + 1;
    }
    filter
}

/// Looks at one name. Both are valid, the filter has a wildcard.
pub(super) fn step<'f>(filter: &'f str, name: &str) -> Step<'f> {
    // [MQTT-4.7.2-1]
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return Step::From { keep: 0, then: [BEHIND_DOLLAR, ""] };
    }
    let mut wanted = filter.split('/').peekable();
    let mut start = 0;
    // The end of the last level that a `+` stood for: where another text may be tried.
    let mut plus_end = None;
    loop {
        let Some(level) = wanted.next() else {
            // All names below the filter's last level are too deep.
            return Step::From { keep: start - 1, then: [BEHIND_SLASH, ""] };
        };
        if level == "#" {
            return Step::Match;
        }
        let Some(rest) = name.get(start..) else {
            // The name ended a level before the filter.
            return Step::Next;
        };
        let found = rest.split('/').next().unwrap_or(rest);
        let end = start + found.len();
        if level == "+" {
            plus_end = Some(end);
        } else if level != found {
            return mismatch(level, wanted.peek().is_some(), rest, start, plus_end);
        }
        if wanted.peek().is_none() && end == name.len() {
            return Step::Match;
        }
        start = end + 1;
    }
}

/// `rest` of the name begins with another text than the `level` the filter wants there.
fn mismatch<'f>(level: &'f str, deeper: bool, rest: &str, keep: usize, plus_end: Option<usize>) -> Step<'f> {
    if rest < level {
        return Step::From { keep, then: [level, ""] };
    }
    // Names below the level can still follow: `b-c` lies between `b` and `b/x`.
    if deeper && rest.strip_prefix(level).is_some_and(|tail| tail < "/") {
        return Step::From { keep, then: [level, "/"] };
    }
    match plus_end {
        Some(end) => Step::From { keep: end, then: [BEHIND_SLASH, ""] },
        None => Step::End,
    }
}
