//! What happens in the broker, as it happens. EMQX's traces are files on a node that are begun, fetched and deleted;
//! here a trace lasts as long as somebody reads it.

use axum::http::StatusCode;

use super::Call;
use super::HttpState;
use super::Parameter;
use super::Problem;
use crate::broker::feeds::LineReader;
use crate::broker::feeds::READERS_MAX;
use crate::broker::trace::event::Filter;

/// What a trace shows: events that meet every condition.
pub(super) const TRACE_FILTERS: &[Parameter] = &[
    Parameter {
        name: "clientid",
        kind: "string",
        about: "What this client does, and what becomes of its messages",
    },
    Parameter {
        name: "topic",
        kind: "string",
        about: "Topic Names that match, Topic Filters that have one in common",
    },
    Parameter {
        name: "ip_address",
        kind: "string",
        about: "Clients from this address or block, such as 10.0.0.0/8",
    },
    Parameter { name: "link", kind: "string", about: "What comes from and goes to this linked cluster" },
];

/// `GET trace/stream`
pub(super) fn follow(state: &HttpState, call: &Call) -> Result<LineReader, Problem> {
    let wanted = |name| call.query.value(name);
    let filter = Filter::parse(wanted("clientid"), wanted("topic"), wanted("ip_address"), wanted("link"));
    let filter = filter.map_err(|error| Problem::bad_request(error.to_string()))?;
    state.broker.traces.start(filter).ok_or_else(|| {
        let message = format!("{READERS_MAX} traces run already, which is as many as there may be");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", message)
    })
}
