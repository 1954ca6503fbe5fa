//! `banned`: EMQX's paths, fields and answers. `fingerprint` and `flapping` are ours.

use axum::http::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Paging;
use super::Parameter;
use super::Problem;
use crate::admin::rfc3339;
use crate::broker::banned::Ban;
use crate::broker::banned::BanError;
use crate::broker::banned::Kind;
use crate::broker::inspect::Page;
use crate::net::clock;

/// What narrows a list of bans.
pub(super) const FILTERS: &[Parameter] = &[
    Parameter { name: "clientid", kind: "string", about: "The ban of this Client Identifier" },
    Parameter { name: "username", kind: "string", about: "The ban of this User Name" },
    Parameter { name: "peerhost", kind: "string", about: "The ban of this address" },
    Parameter { name: "like_clientid", kind: "string", about: "Client Identifiers that contain this" },
    Parameter { name: "like_username", kind: "string", about: "User Names that contain this" },
    Parameter { name: "like_peerhost", kind: "string", about: "Addresses that contain this" },
    Parameter { name: "like_peerhost_net", kind: "string", about: "Blocks of addresses that contain this" },
];

const FIELDS: [&str; 6] = ["as", "who", "by", "reason", "at", "until"];

/// `GET banned`
pub(super) fn list(state: &HttpState, call: &Call) -> Outcome {
    let paging = Paging::of(call)?;
    let mut bans = state.broker.banned.list(clock::now());
    bans.retain(|ban| is_wanted(call, ban));
    let count = bans.len();
    let window = paging.window();
    let items = bans.into_iter().skip(window.start).take(window.len()).collect();
    Ok(paging.wrap(&Page { items, count }, shown))
}

fn is_wanted(call: &Call, ban: &Ban) -> bool {
    let wanted = |name| call.query.value(name);
    let exactly = [(Kind::ClientId, "clientid"), (Kind::Username, "username"), (Kind::PeerHost, "peerhost")]
        .into_iter()
        .all(|(kind, name)| wanted(name).is_none_or(|who| ban.kind == kind && ban.who == who));
    // As in EMQX the patterns are found with what they are patterns of.
    let roughly = [
        ("like_clientid", [Kind::ClientId, Kind::ClientIdRe]),
        ("like_username", [Kind::Username, Kind::UsernameRe]),
        ("like_peerhost", [Kind::PeerHost, Kind::PeerHost]),
        ("like_peerhost_net", [Kind::PeerHostNet, Kind::PeerHostNet]),
    ]
    .into_iter()
    .all(|(name, kinds)| wanted(name).is_none_or(|part| kinds.contains(&ban.kind) && ban.who.contains(part)));
    exactly && roughly
}

/// `POST banned`
pub(super) fn create(state: &HttpState, call: &Call) -> Outcome {
    let now = clock::now();
    let ban = state.broker.ban(asked(&call.body, now.unix_ms / 1000)?, now).map_err(|error| {
        let code = if error == BanError::Exists { "ALREADY_EXISTS" } else { "BAD_REQUEST" };
        Problem::new(StatusCode::BAD_REQUEST, code, error.to_string())
    })?;
    tracing::info!(kind = ban.kind.name(), who = ?ban.who, by = ?ban.by, reason = ?ban.reason, until = ban.until, "banned");
    Ok(Answer::Json(shown(&ban)))
}

/// `DELETE banned/{as}/{who}`
pub(super) fn delete(state: &HttpState, call: &Call) -> Outcome {
    let found = Kind::from_name(&call.item)
        .is_some_and(|kind| state.broker.lift_ban(kind, &call.second, clock::now()));
    if !found {
        return Err(Problem::not_found(format!("{}: {} not found", call.item, call.second)));
    }
    tracing::info!(kind = ?call.item, who = ?call.second, "ban lifted by an operator");
    Ok(Answer::Nothing)
}

/// `DELETE banned`
pub(super) fn clear(state: &HttpState, _call: &Call) -> Outcome {
    state.broker.lift_bans();
    tracing::info!("all bans lifted by an operator");
    Ok(Answer::Nothing)
}

fn asked(body: &Value, now_s: u64) -> Result<Ban, Problem> {
    let body = body.as_object().ok_or_else(|| Problem::bad_request("the body: must be an object"))?;
    if let Some(field) = body.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(Problem::bad_request(format!("{field}: no such field")));
    }
    let text = |field: &str| match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::bad_request(format!("{field}: must be a string"))),
    };
    let required =
        |field| text(field)?.ok_or_else(|| Problem::bad_request(format!("{field}: this is required")));
    let kind = required("as")?;
    let kind = Kind::from_name(&kind).filter(|kind| *kind != Kind::Flapping);
    let kind = kind.ok_or_else(|| {
        let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::Flapping).map(|kind| kind.name());
        Problem::bad_request(format!("as: one of {}", kinds.collect::<Vec<_>>().join(", ")))
    })?;
    Ok(Ban {
        kind,
        who: required("who")?,
        by: text("by")?.unwrap_or_else(|| "mgmt_api".to_owned()),
        reason: text("reason")?.unwrap_or_default(),
        at: moment(body, "at")?.unwrap_or(now_s),
        until: moment(body, "until")?,
    })
}

/// RFC 3339 or seconds of the Unix clock; `"infinity"` is none.
fn moment(body: &Map<String, Value>, field: &str) -> Result<Option<u64>, Problem> {
    let moment = match body.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text == "infinity" && field == "until" => return Ok(None),
        Some(Value::String(text)) => rfc3339::parse(text),
        Some(value) => value.as_u64(),
    };
    let wrong = || Problem::bad_request(format!("{field}: RFC 3339 or seconds since 1970"));
    moment.map(Some).ok_or_else(wrong)
}

fn shown(ban: &Ban) -> Value {
    json!({
        "as": ban.kind.name(),
        "who": ban.who,
        "by": ban.by,
        "reason": ban.reason,
        "at": rfc3339::format(ban.at),
        "until": ban.until.map_or_else(|| "infinity".to_owned(), rfc3339::format),
    })
}
