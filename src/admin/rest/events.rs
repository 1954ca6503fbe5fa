//! The security event log, as it is remembered and as it goes on.

use axum::http::StatusCode;
use serde_json::Value;

use super::Call;
use super::HttpState;
use super::Outcome;
use super::Paging;
use super::Parameter;
use super::Problem;
use crate::admin::rfc3339;
use crate::broker::events::Wanted;
use crate::broker::events::event::LINK;
use crate::broker::events::event::SECURITY;
use crate::broker::feeds::LineReader;
use crate::broker::feeds::READERS_MAX;
use crate::broker::inspect::Page;
use crate::config;
use crate::metrics::labels::SecurityEvent;
use crate::net::clock;

/// Which events are shown.
pub(super) const EVENT_FILTERS: &[Parameter] = &[
    Parameter { name: "type", kind: "string", about: "`security`, or `link` for what links became" },
    Parameter {
        name: "since",
        kind: "string",
        about: "Not those before this moment (RFC 3339), or longer ago than this (`15m`, `24h`)",
    },
    Parameter {
        name: "event",
        kind: "string",
        about: "Only events of this name, such as `authn_login_fail`",
    },
];

/// `GET events`
pub(super) fn list(state: &HttpState, call: &Call) -> Outcome {
    let paging = Paging::of(call)?;
    let lines = state.broker.events.remembered(wanted(call, clock::now().unix_ms)?);
    let (count, window) = (lines.len(), paging.window());
    let items = lines.into_iter().skip(window.start).take(window.len()).collect();
    // They are JSON already; what we wrote ourselves can be read.
    let shown = |line: &String| serde_json::from_str::<Value>(line).unwrap_or_default();
    Ok(paging.wrap(&Page { items, count }, shown))
}

/// `GET events/stream`
pub(super) fn follow(state: &HttpState, call: &Call) -> Result<LineReader, Problem> {
    state.broker.events.follow(wanted(call, clock::now().unix_ms)?).ok_or_else(|| {
        let message = format!("{READERS_MAX} read the events already, which is as many as there may be");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", message)
    })
}

fn wanted(call: &Call, now_ms: u64) -> Result<Wanted, Problem> {
    let kind = match call.query.value("type") {
        None => None,
        Some(text) => Some(
            [SECURITY, LINK]
                .into_iter()
                .find(|kind| *kind == text)
                .ok_or_else(|| Problem::bad_request(format!("type: {text}: `{SECURITY}` or `{LINK}`")))?,
        ),
    };
    let since_unix_ms = match call.query.value("since") {
        None => 0,
        Some(text) => since(text, now_ms).ok_or_else(|| {
            Problem::bad_request("since: must be a moment (RFC 3339) or a time such as 15m")
        })?,
    };
    let name = match call.query.value("event") {
        None => None,
        Some(text) => Some(
            SecurityEvent::ALL
                .iter()
                .copied()
                .find(|event| event.name() == text)
                .ok_or_else(|| Problem::bad_request(format!("event: {text}: no event has this name")))?,
        ),
    };
    Ok(Wanted { since_unix_ms, name, kind })
}

fn since(text: &str, now_ms: u64) -> Option<u64> {
    if let Some(moment) = rfc3339::parse(text) {
        return Some(moment.saturating_mul(1000));
    }
    let ago = config::duration(text).ok()?.as_millis();
    Some(now_ms.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_moment_or_a_time() {
        assert_eq!(since("1970-01-01T00:01:00Z", 0), Some(60_000));
        assert_eq!(since("1m", 100_000), Some(40_000));
        assert_eq!(since("9999d", 100_000), Some(0));
        assert_eq!(since("yesterday", 100_000), None);
    }
}
