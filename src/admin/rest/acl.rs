//! `acl`: the rules in force checked, explained, reloaded; others on trial beside them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use axum::http::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Problem;
use crate::acl::compile::FILE_BYTES_MAX;
use crate::acl::eval::Request;
use crate::acl::matrix;
use crate::admin::rules;
use crate::auth::certificate;
use crate::broker::acl_reload::AclReloadError;
use crate::broker::explain::Described;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;
use crate::net::clock;

/// The longest text of a body beside the file: what MQTT can say.
const TEXT_BYTES_MAX: usize = 65_535;
/// Attributes of a client that is described.
const ATTRIBUTES_MAX: usize = 64;
/// What describes a client that is not, or not as it is, connected.
const DESCRIPTION: [&str; 7] =
    ["username", "peerhost", "listener", "common_name", "fingerprint", "client_attrs", "is_superuser"];

/// `POST acl/check`
pub(super) fn check(state: &HttpState, call: &Call) -> Outcome {
    let body = object(&call.body, &["text", "name"])?;
    let file = &state.broker.policy().file;
    let name = text(body, "name")?.unwrap_or("acl.conf");
    Ok(Answer::Json(rules::check(name, file_text(body)?.as_bytes(), &file.options, &file.inventory)))
}

/// `POST acl/explain`
pub(super) fn explain(state: &HttpState, call: &Call) -> Outcome {
    let own = ["clientid", "action", "topic", "qos", "retain"];
    let body = object(&call.body, &[&own[..], &DESCRIPTION].concat())?;
    let (policy, client_id) = (state.broker.policy(), required(body, "clientid")?);
    let request = request(body)?;
    let connected = state.broker.client(client_id);
    let described = described(body, client_id)?;
    let explained = match (described, connected) {
        (None, Some(view)) => policy.explain(&view.identity, &request),
        (described, _) => {
            let described = described.unwrap_or_else(|| describe(client_id));
            let credentials = state.broker.authentication.credentials();
            policy.explain_described(&described, &credentials.peers, &request)
        }
    };
    Ok(Answer::Json(rules::explained(client_id, &request, &explained)))
}

/// `GET acl/matrix`
pub(super) fn matrix(state: &HttpState, _call: &Call) -> Outcome {
    let policy = state.broker.policy();
    let front = policy.front.as_ref().map(|front| &front.rules);
    let rows = matrix::matrix(front, &policy.rules, &policy.file.inventory);
    Ok(Answer::Json(json!({"data": rules::matrix(&rows)})))
}

/// `GET acl/generated`
pub(super) fn generated(state: &HttpState, _call: &Call) -> Outcome {
    Ok(Answer::Json(rules::generated(state.broker.policy().front.as_deref())))
}

/// `GET acl/export`
pub(super) fn export(state: &HttpState, _call: &Call) -> Outcome {
    Ok(Answer::Json(rules::exports(&state.broker.policy().file.exports)))
}

/// `POST acl/reload`
pub(super) fn reload(state: &HttpState, _call: &Call) -> Outcome {
    let reloaded = state.broker.reload_acl().map_err(|error| problem(&error))?;
    Ok(Answer::Json(rules::reloaded(&reloaded)))
}

/// `GET acl/shadow`
pub(super) fn shadow(state: &HttpState, _call: &Call) -> Outcome {
    match &state.broker.policy().shadow {
        Some(shadow) => Ok(Answer::Json(rules::shadow(shadow))),
        None => Err(problem(&AclReloadError::NoShadow)),
    }
}

/// `POST acl/shadow`
pub(super) fn start_shadow(state: &HttpState, call: &Call) -> Outcome {
    let body = object(&call.body, &["text", "name"])?;
    let name = text(body, "name")?.unwrap_or("acl.conf");
    let warnings =
        state.broker.try_rules(name, file_text(body)?, clock::now()).map_err(|error| problem(&error))?;
    Ok(Answer::Json(json!({"warnings": warnings})))
}

/// `DELETE acl/shadow`
pub(super) fn drop_shadow(state: &HttpState, _call: &Call) -> Outcome {
    state.broker.drop_tried_rules().map_err(|error| problem(&error))?;
    Ok(Answer::Nothing)
}

/// `POST acl/shadow/apply`
pub(super) fn apply_shadow(state: &HttpState, _call: &Call) -> Outcome {
    let reloaded = state.broker.apply_tried_rules().map_err(|error| problem(&error))?;
    Ok(Answer::Json(rules::reloaded(&reloaded)))
}

fn problem(error: &AclReloadError) -> Problem {
    let message = error.to_string();
    match error {
        AclReloadError::Invalid(_) => Problem::bad_request(message),
        AclReloadError::NoShadow => Problem::not_found(message),
        AclReloadError::BuiltIn | AclReloadError::Busy => {
            Problem::new(StatusCode::CONFLICT, "CONFLICT", message)
        }
        AclReloadError::Write(..) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
        }
    }
}

fn object<'a>(body: &'a Value, fields: &[&str]) -> Result<&'a Map<String, Value>, Problem> {
    let body = body.as_object().ok_or_else(|| Problem::bad_request("the body: must be an object"))?;
    match body.keys().find(|field| !fields.contains(&field.as_str())) {
        Some(field) => Err(Problem::bad_request(format!("{field}: no such field"))),
        None => Ok(body),
    }
}

fn text<'a>(body: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Problem> {
    match body.get(field) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text)),
        Some(Value::String(_)) => {
            Err(Problem::bad_request(format!("{field}: longer than {TEXT_BYTES_MAX} bytes")))
        }
        Some(_) => Err(Problem::bad_request(format!("{field}: must be a string"))),
    }
}

fn required<'a>(body: &'a Map<String, Value>, field: &str) -> Result<&'a str, Problem> {
    text(body, field)?.ok_or_else(|| Problem::bad_request(format!("{field}: this is required")))
}

/// The compiler refuses what is too long; here only what is no text.
fn file_text(body: &Map<String, Value>) -> Result<&str, Problem> {
    match body.get("text") {
        Some(Value::String(text)) if text.len() <= FILE_BYTES_MAX + 1 => Ok(text),
        Some(Value::String(_)) => {
            Err(Problem::bad_request(format!("text: longer than {FILE_BYTES_MAX} bytes")))
        }
        _ => Err(Problem::bad_request("text: must be the text of a file")),
    }
}

fn flag(body: &Map<String, Value>, field: &str) -> Result<bool, Problem> {
    match body.get(field) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Problem::bad_request(format!("{field}: must be true or false"))),
    }
}

fn request(body: &Map<String, Value>) -> Result<Request<'_>, Problem> {
    let asked = required(body, "topic")?;
    let qos = match body.get("qos") {
        None => QoS::AtMostOnce,
        Some(value) => value
            .as_u64()
            .and_then(|qos| u8::try_from(qos).ok().and_then(QoS::from_u8))
            .ok_or_else(|| Problem::bad_request("qos: must be 0, 1 or 2"))?,
    };
    let retain = flag(body, "retain")?;
    let wrong = |error: topic::TopicError| Problem::bad_request(format!("topic: {error}"));
    match required(body, "action")? {
        "publish" => {
            topic::check_name(asked).map_err(wrong)?;
            Ok(Request::Publish { topic: asked, qos, retain })
        }
        "subscribe" if retain => Err(Problem::bad_request("retain: a subscription has none")),
        "subscribe" => {
            topic::check_filter(asked).map_err(wrong)?;
            Ok(Request::Subscribe { filter: asked, qos })
        }
        _ => Err(Problem::bad_request("action: publish or subscribe")),
    }
}

fn describe(client_id: &str) -> Described {
    Described {
        client_id: client_id.to_owned(),
        username: None,
        peer_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: "tcp:default".to_owned(),
        common_name: None,
        fingerprint: None,
        attributes: BTreeMap::new(),
        is_superuser: false,
    }
}

/// `None` when nothing but its Client Identifier is said of the client.
fn described(body: &Map<String, Value>, client_id: &str) -> Result<Option<Described>, Problem> {
    let mut described = describe(client_id);
    let owned = |field| text(body, field).map(|text| text.map(str::to_owned));
    described.username = owned("username")?;
    described.common_name = owned("common_name")?;
    if let Some(listener) = owned("listener")? {
        described.listener = listener;
    }
    if let Some(address) = text(body, "peerhost")? {
        let wrong = |_| Problem::bad_request("peerhost: must be an IP address");
        described.peer_host = address.parse().map_err(wrong)?;
    }
    if let Some(fingerprint) = text(body, "fingerprint")? {
        let wrong = |error| Problem::bad_request(format!("fingerprint: {error}"));
        described.fingerprint = Some(certificate::parse_fingerprint(fingerprint).map_err(wrong)?);
    }
    described.attributes = attributes(body)?;
    described.is_superuser = flag(body, "is_superuser")?;
    Ok(DESCRIPTION.iter().any(|field| body.contains_key(*field)).then_some(described))
}

fn attributes(body: &Map<String, Value>) -> Result<BTreeMap<String, String>, Problem> {
    let wrong = || Problem::bad_request(format!("client_attrs: at most {ATTRIBUTES_MAX} texts by name"));
    let Some(attributes) = body.get("client_attrs") else { return Ok(BTreeMap::new()) };
    let attributes = attributes.as_object().filter(|all| all.len() <= ATTRIBUTES_MAX).ok_or_else(wrong)?;
    attributes
        .iter()
        .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}
