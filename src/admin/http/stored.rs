//! Requests that change what is stored: all that one changes is stored as a whole, and answered then.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time;

use crate::admin::rest::Call;
use crate::admin::rest::HttpState;
use crate::admin::rest::Outcome;
use crate::admin::rest::Problem;
use crate::admin::rest::Route;
use crate::broker::keep::trouble_text;
use crate::storage::store::Trouble;

/// How long an answer waits for the disk.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs a handler, and says what its answer has to wait for: the group that it changes what is stored in.
pub(super) fn run(
    route: &Route,
    handler: fn(&HttpState, &Call) -> Outcome,
    state: &HttpState,
    call: &Call,
) -> (Outcome, Option<u64>) {
    let burst = route.stores.then(|| state.broker.begin()).flatten();
    let outcome = handler(state, call);
    (outcome, burst.and_then(|burst| burst.promised()))
}

/// What was done is answered when it is stored.
pub(super) async fn wait(state: &HttpState, outcome: Outcome, group: Option<u64>) -> Outcome {
    let (Some(store), Some(group), Ok(_)) = (&state.broker.store, group, &outcome) else { return outcome };
    let trouble = match time::timeout(LIMIT, store.wait(group)).await {
        Ok(Ok(())) => return outcome,
        Ok(Err(trouble)) => trouble,
        Err(_) => Trouble::Slow,
    };
    let message = format!("done, but not stored yet: {}", trouble_text(trouble));
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", message))
}
