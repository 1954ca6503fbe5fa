//! `events`: what the security event log remembers, and what comes.

use std::fmt::Write as _;

use serde_json::Value;

use super::Failure;
use super::trace::follow;
use crate::admin::cli::operate::Lines;
use crate::admin::http::query::percent_encode;
use crate::admin::output;
use crate::admin::remote::Remote;

/// As many as a page may have, which is more than are remembered.
const LIMIT: usize = 10_000;

/// Prints remembered events, and those that come if `following`.
pub fn events(
    remote: Remote,
    conditions: &[(&str, Option<String>)],
    following: bool,
    format: Lines,
) -> Result<(), Failure> {
    let conditions = conditions.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let mut query: Vec<String> =
        conditions.map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    let print = move |event: &Value| match format {
        Lines::Json => output::print(&format!("{event}\n")),
        Lines::Text => output::print(&text(event)),
    };
    if following {
        let path = format!("/api/v5/events/stream?{}", query.join("&"));
        return follow(remote, path, None, move |line| {
            print(&serde_json::from_str(line).unwrap_or_default())
        });
    }
    query.push(format!("limit={LIMIT}"));
    let answer = remote.request("GET", &format!("/api/v5/events?{}", query.join("&")))?;
    answer["data"].as_array().into_iter().flatten().try_for_each(print)
}

/// One line for people: when, how bad, what, who, from where, why.
fn text(event: &Value) -> String {
    let field = |name: &str| output::shown(&event[name]);
    // Writing to a string does not fail.
    let mut out = String::new();
    let _ = write!(out, "{:24} {:8} {}", field("time"), field("level"), field("event"));
    for name in ["identity", "clientid", "source", "listener", "method", "suppressed", "messages"] {
        if !event[name].is_null() {
            let _ = write!(out, " {name}={}", field(name));
        }
    }
    if !event["description"].is_null() {
        let _ = write!(out, ": {}", field("description"));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_happened_before_who_and_why() {
        let event = json!({
            "time": "T", "type": "security", "level": "warning", "event": "authz_fail:publish:a\u{9b}",
            "identity": "ada", "source": "10.0.0.1:5", "description": "no rule",
        });
        let words: Vec<String> = text(&event).split_whitespace().map(str::to_owned).collect();
        let expected = ["T", "warning", "authz_fail:publish:a\\u{9b}", "identity=ada", "source=10.0.0.1:5:"];
        assert_eq!(words[..5], expected);
        assert_eq!(words[5..].join(" "), "no rule");
    }
}
