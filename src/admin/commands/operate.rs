//! Commands that ask a running broker, or do something to it, through its REST API.

use serde_json::Value;
use serde_json::json;

use super::Exit;
use super::Failure;
use crate::admin::http::query::percent_encode;
use crate::admin::output;
use crate::admin::output::Column;
use crate::admin::output::Format;
use crate::admin::remote::Remote;
use crate::net::clock;

/// Items asked for at a time.
const PAGE: usize = 1_000;

const CLIENT_COLUMNS: &[Column] = &[
    ("CLIENT ID", "clientid"),
    ("USERNAME", "username"),
    ("ADDRESS", "ip_address"),
    ("LISTENER", "listener"),
    ("CONNECTED", "connected"),
    ("VERSION", "proto_ver"),
    ("SUBSCRIPTIONS", "subscriptions_cnt"),
    ("QUEUED", "mqueue_len"),
];
const BANNED_COLUMNS: &[Column] =
    &[("AS", "as"), ("WHO", "who"), ("UNTIL", "until"), ("BY", "by"), ("REASON", "reason")];
const SUBSCRIPTION_COLUMNS: &[Column] = &[
    ("CLIENT ID", "clientid"),
    ("FILTER", "topic"),
    ("QOS", "qos"),
    ("NL", "nl"),
    ("RAP", "rap"),
    ("RH", "rh"),
];
const RETAINED_COLUMNS: &[Column] =
    &[("TOPIC", "topic"), ("QOS", "qos"), ("BYTES", "payload_bytes"), ("EXPIRES IN", "expires_in")];

/// `client list`
pub fn client_list(remote: &Remote, format: Format, filters: &[(&str, Option<&str>)]) -> Result<(), Failure> {
    let rows = all(remote, "/api/v5/clients", filters)?;
    output::print(&output::list(format, CLIENT_COLUMNS, &rows))
}

/// `client show`
pub fn client_show(remote: &Remote, format: Format, id: &str) -> Result<(), Failure> {
    let path = item("/api/v5/clients", id)?;
    let mut client = remote.request("GET", &path)?;
    let subscriptions = remote.request("GET", &format!("{path}/subscriptions"))?;
    let filters = subscriptions.as_array().into_iter().flatten().map(|one| one["topic"].clone());
    client["subscriptions"] = Value::Array(filters.collect());
    output::print(&output::record(format, &client))
}

/// `client kick`
pub fn client_kick(remote: &Remote, id: &str) -> Result<(), Failure> {
    remote.request("DELETE", &item("/api/v5/clients", id)?).map(|_| ())
}

/// `banned list`
pub fn banned_list(remote: &Remote, format: Format) -> Result<(), Failure> {
    let rows = all(remote, "/api/v5/banned", &[])?;
    output::print(&output::list(format, BANNED_COLUMNS, &rows))
}

/// `banned create`
pub fn banned_create(
    remote: &Remote,
    kind: &str,
    who: &str,
    reason: Option<&str>,
    seconds: Option<u64>,
) -> Result<(), Failure> {
    let now = clock::now().unix_ms / 1000;
    let until = seconds.map_or_else(|| json!("infinity"), |seconds| json!(now + seconds));
    let body = json!({
        "as": kind,
        "who": who,
        "by": "tombolo banned create",
        "reason": reason.unwrap_or_default(),
        "until": until,
    });
    remote.send("POST", "/api/v5/banned", &body).map(|_| ())
}

/// `banned delete`
pub fn banned_delete(remote: &Remote, kind: &str, who: &str) -> Result<(), Failure> {
    remote.request("DELETE", &item(&format!("/api/v5/banned/{kind}"), who)?).map(|_| ())
}

/// `auth unlock`
pub fn auth_unlock(remote: &Remote, username: &str) -> Result<(), Failure> {
    remote.request("DELETE", &item("/api/v5/authentication/lockouts", username)?).map(|_| ())
}

/// `subscription list`
pub fn subscription_list(
    remote: &Remote,
    format: Format,
    filters: &[(&str, Option<&str>)],
) -> Result<(), Failure> {
    let rows = all(remote, "/api/v5/subscriptions", filters)?;
    output::print(&output::list(format, SUBSCRIPTION_COLUMNS, &rows))
}

/// `retained list`
pub fn retained_list(
    remote: &Remote,
    format: Format,
    filters: &[(&str, Option<&str>)],
) -> Result<(), Failure> {
    let rows = all(remote, "/api/v5/mqtt/retainer/messages", filters)?;
    output::print(&output::list(format, RETAINED_COLUMNS, &rows))
}

/// `retained delete`
pub fn retained_delete(remote: &Remote, topic: &str) -> Result<(), Failure> {
    remote.request("DELETE", &item("/api/v5/mqtt/retainer/message", topic)?).map(|_| ())
}

/// `status`: node and broker, and how much there is of what.
pub fn status(remote: &Remote, format: Format) -> Result<(), Failure> {
    let status = remote.request("GET", "/api/v5/status?format=json")?;
    let stats = remote.request("GET", "/api/v5/stats?aggregate=true")?;
    let record = json!({
        "node": status["node_name"],
        "version": status["rel_vsn"],
        "status": status["app_status"],
        "overload": status["overload"],
        "durability": status["durability"],
        "store_trouble": status["store"],
        "store_bytes": stats["store.bytes"],
        "sessions": stats["sessions.count"],
        "connections": stats["live_connections.count"],
        "subscriptions": stats["subscriptions.count"],
        "retained": stats["retained.count"],
    });
    output::print(&output::record(format, &record))
}

/// The path of one item; an empty name would be another path.
pub(super) fn item(path: &str, name: &str) -> Result<String, Failure> {
    if name.is_empty() {
        return Err(Failure::new(Exit::Usage, "the name is empty"));
    }
    Ok(format!("{path}/{}", percent_encode(name)))
}

/// Every page of a list. What comes and goes in between may be missed or listed twice.
pub(super) fn all(
    remote: &Remote,
    path: &str,
    filters: &[(&str, Option<&str>)],
) -> Result<Vec<Value>, Failure> {
    let filters = filters.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    let filters: String = filters.map(|(name, value)| format!("&{name}={}", percent_encode(value))).collect();
    let mut rows = Vec::new();
    for page in 1.. {
        let mut answer = remote.request("GET", &format!("{path}?page={page}&limit={PAGE}{filters}"))?;
        let Value::Array(data) = answer["data"].take() else {
            return Err(Failure::new(Exit::Other, "the answer is no list: is this a tombolo broker?"));
        };
        rows.extend(data);
        if answer["meta"]["hasnext"] != true {
            break;
        }
    }
    Ok(rows)
}
