//! The pages that need no key: health and status; and the text of `/metrics`.

use axum::http::StatusCode;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Parameter;
use super::Problem;

/// What Prometheus asks for.
pub(super) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Which shape of the status.
pub(super) const FORMAT: &[Parameter] =
    &[Parameter { name: "format", kind: "string", about: "json, or two lines of text" }];

/// `GET /metrics`
pub(super) fn metrics(state: &HttpState, _call: &Call) -> Outcome {
    Ok(Answer::Text(StatusCode::OK, METRICS_TYPE, (state.render_metrics)()))
}

/// `GET /health/live`
pub(super) fn live(_state: &HttpState, _call: &Call) -> Outcome {
    Ok(Answer::Json(json!({"status": "live"})))
}

/// `GET /health/ready`
pub(super) fn ready(state: &HttpState, _call: &Call) -> Outcome {
    let mut reasons = (state.readiness)().err().unwrap_or_default();
    // Overloaded, or unable to keep anything, is running, but not ready for more.
    let complaints = [state.broker.load.complaint(), state.broker.store_complaint()];
    reasons.extend(complaints.into_iter().flatten().map(str::to_owned));
    if reasons.is_empty() {
        return Ok(Answer::Json(json!({"status": "ready"})));
    }
    let answer = json!({"status": "not_ready", "reasons": reasons});
    Ok(Answer::Status(StatusCode::SERVICE_UNAVAILABLE, answer))
}

/// EMQX's shapes: two lines of text, or JSON for `?format=json`.
pub(super) fn status(state: &HttpState, call: &Call) -> Outcome {
    let running = (state.readiness)().is_ok();
    let code = if running { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let app = if running { "running" } else { "not_running" };
    let node = &state.node;
    match call.query.value("format") {
        Some("json") => Ok(Answer::Status(
            code,
            json!({
                "rel_vsn": env!("CARGO_PKG_VERSION"),
                "node_name": node,
                "broker_status": "started",
                "app_status": app,
                "overload": state.broker.load.complaint(),
                "durability": state.broker.durability(),
                "store": state.broker.store_complaint(),
            }),
        )),
        None | Some("text") => {
            let text = format!("Node {node} is started\ntombolo is {app}\n");
            Ok(Answer::Text(code, "text/plain; charset=utf-8", text))
        }
        Some(_) => Err(Problem::bad_request("format: json or text")),
    }
}
