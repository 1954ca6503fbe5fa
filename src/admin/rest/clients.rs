//! Clients, their subscriptions, and the topics that are subscribed to.

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Paging;
use super::Parameter;
use super::Problem;
use super::boolean;
use super::number;
use crate::broker::identity::Identity;
use crate::broker::inspect::ClientView;
use crate::broker::inspect::SubscriptionView;
use crate::broker::steer::SubscribeError;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::RetainHandling;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::packet::Version;
use crate::mqtt::topic;
use crate::mqtt::topic::ParsedFilter;
use crate::net::clock;
use crate::time;

/// What narrows a list of clients.
pub(super) const CLIENT_FILTERS: &[Parameter] = &[
    Parameter { name: "clientid", kind: "string", about: "This client; may be there several times" },
    Parameter { name: "username", kind: "string", about: "Clients of this user; may be there several times" },
    Parameter { name: "like_clientid", kind: "string", about: "Client Identifiers that contain this" },
    Parameter { name: "like_username", kind: "string", about: "User Names that contain this" },
    Parameter { name: "ip_address", kind: "string", about: "Clients from this address" },
    Parameter { name: "conn_state", kind: "string", about: "connected or disconnected" },
    Parameter {
        name: "proto_ver",
        kind: "integer",
        about: "Protocol version: 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.0",
    },
    Parameter { name: "clean_start", kind: "boolean", about: "Whether it connected with Clean Start" },
    Parameter { name: "node", kind: "string", about: "Clients of this node" },
];

/// What narrows a list of subscriptions.
pub(super) const SUBSCRIPTION_FILTERS: &[Parameter] = &[
    Parameter { name: "clientid", kind: "string", about: "Subscriptions of this client" },
    Parameter { name: "topic", kind: "string", about: "This Topic Filter" },
    Parameter {
        name: "match_topic",
        kind: "string",
        about: "Filters that have a topic in common with this one",
    },
    Parameter { name: "share_group", kind: "string", about: "Shared Subscriptions of this group" },
    Parameter { name: "qos", kind: "integer", about: "This QoS" },
];

/// What narrows a list of topics.
pub(super) const TOPIC_FILTERS: &[Parameter] =
    &[Parameter { name: "topic", kind: "string", about: "This Topic Filter" }];

fn no_such_client() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "CLIENTID_NOT_FOUND", "Client ID not found")
}

/// `GET clients`
pub(super) fn list(state: &HttpState, call: &Call) -> Outcome {
    let paging = Paging::of(call)?;
    let wanted = |name| call.query.value(name);
    let connected = match wanted("conn_state") {
        None => None,
        Some("connected") => Some(true),
        Some("disconnected") => Some(false),
        Some(_) => return Err(Problem::bad_request("conn_state: connected or disconnected")),
    };
    let version = number(call, "proto_ver", 3, 5)?;
    let clean_start = boolean(call, "clean_start")?;
    let here = wanted("node").is_none_or(|node| node == state.node);
    let among = |name, value: Option<&str>| {
        let mut all = call.query.values(name).peekable();
        all.peek().is_none() || all.any(|wanted| value == Some(wanted))
    };
    let page = state.broker.list_clients(paging.window(), |view| {
        let identity = &view.identity;
        let username = identity.username.as_deref();
        here && among("clientid", Some(&*identity.client_id))
            && wanted("like_clientid").is_none_or(|part| identity.client_id.contains(part))
            && among("username", username)
            && version.is_none_or(|version| version == usize::from(level(identity.version).1))
            && clean_start.is_none_or(|clean_start| clean_start == identity.clean_start)
            && wanted("like_username").is_none_or(|part| username.is_some_and(|name| name.contains(part)))
            && wanted("ip_address").is_none_or(|wanted| Some(wanted) == address(identity).as_deref())
            && connected.is_none_or(|connected| connected == view.connected)
    });
    Ok(paging.wrap(&page, |view| client(state, view)))
}

/// `GET clients/{clientid}`
pub(super) fn show(state: &HttpState, call: &Call) -> Outcome {
    let view = state.broker.client(&call.item).ok_or_else(no_such_client)?;
    Ok(Answer::Json(client(state, &view)))
}

/// `DELETE clients/{clientid}`
pub(super) fn kick(state: &HttpState, call: &Call) -> Outcome {
    if !state.broker.kick(&call.item, clock::now()) {
        return Err(no_such_client());
    }
    tracing::info!(client_id = ?call.item, "kicked by an operator");
    Ok(Answer::Nothing)
}

/// `POST clients/kickout/bulk`: those that are there; the others are gone already.
pub(super) fn kick_all(state: &HttpState, call: &Call) -> Outcome {
    let ids: Vec<String> = body(call)?;
    for id in ids.iter().filter(|id| state.broker.kick(id, clock::now())) {
        tracing::info!(client_id = ?id, "kicked by an operator");
    }
    Ok(Answer::Nothing)
}

/// The body of `POST clients/{clientid}/subscribe`, as EMQX has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    topic: String,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    nl: u8,
    #[serde(default)]
    rap: u8,
    #[serde(default)]
    rh: u8,
}

impl Subscribe {
    fn options(&self) -> Result<SubscriptionOptions, Problem> {
        let flag = |name, value| match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Problem::bad_request(format!("{name}: 0 or 1"))),
        };
        Ok(SubscriptionOptions {
            qos: QoS::from_u8(self.qos).ok_or_else(|| Problem::bad_request("qos: 0, 1 or 2"))?,
            no_local: flag("nl", self.nl)?,
            retain_as_published: flag("rap", self.rap)?,
            retain_handling: match self.rh {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(Problem::bad_request("rh: 0, 1 or 2")),
            },
        })
    }
}

/// The body of `POST clients/{clientid}/unsubscribe`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    topic: String,
}

/// A body of one object or of a list of them. A derived reader would take lists of values for objects too.
fn body<T: DeserializeOwned>(call: &Call) -> Result<T, Problem> {
    let nested = call.body.as_array().into_iter().flatten().any(Value::is_array);
    if nested {
        return Err(Problem::bad_request("an object is expected, not a list"));
    }
    T::deserialize(&call.body).map_err(|error| Problem::bad_request(error.to_string()))
}

fn object<T: DeserializeOwned>(call: &Call) -> Result<T, Problem> {
    if !call.body.is_object() {
        return Err(Problem::bad_request("an object is expected"));
    }
    body(call)
}

fn refused(error: SubscribeError) -> Problem {
    match error {
        SubscribeError::NoClient => no_such_client(),
        other => Problem::bad_request(other.to_string()),
    }
}

fn subscribe_one(state: &HttpState, call: &Call, wanted: &Subscribe) -> Result<Value, Problem> {
    let options = wanted.options()?;
    let made = state.broker.subscribe_client(&call.item, &wanted.topic, options).map_err(refused)?;
    tracing::info!(client_id = ?call.item, filter = ?made.filter, "subscribed by an operator");
    Ok(subscription(state, &made))
}

/// `POST clients/{clientid}/subscribe`
pub(super) fn subscribe(state: &HttpState, call: &Call) -> Outcome {
    subscribe_one(state, call, &object(call)?).map(Answer::Json)
}

/// `POST clients/{clientid}/subscribe/bulk`: in order, up to the first that is refused.
pub(super) fn subscribe_all(state: &HttpState, call: &Call) -> Outcome {
    let all: Vec<Subscribe> = body(call)?;
    state.broker.client(&call.item).ok_or_else(no_such_client)?;
    let made = all.iter().map(|one| subscribe_one(state, call, one)).collect::<Result<Vec<_>, _>>()?;
    Ok(Answer::Json(Value::Array(made)))
}

/// `POST clients/{clientid}/unsubscribe`: EMQX does not say whether there was one.
pub(super) fn unsubscribe(state: &HttpState, call: &Call) -> Outcome {
    let Unsubscribe { topic } = object(call)?;
    state.broker.unsubscribe_client(&call.item, &topic).map_err(refused)?;
    Ok(Answer::Nothing)
}

/// `POST clients/{clientid}/unsubscribe/bulk`
pub(super) fn unsubscribe_all(state: &HttpState, call: &Call) -> Outcome {
    let all: Vec<Unsubscribe> = body(call)?;
    state.broker.client(&call.item).ok_or_else(no_such_client)?;
    for Unsubscribe { topic } in &all {
        state.broker.unsubscribe_client(&call.item, topic).map_err(refused)?;
    }
    Ok(Answer::Nothing)
}

/// `GET clients/{clientid}/subscriptions`: a plain list, as EMQX has it.
pub(super) fn subscriptions_of(state: &HttpState, call: &Call) -> Outcome {
    let views = state.broker.subscriptions_of(&call.item).ok_or_else(no_such_client)?;
    Ok(Answer::Json(views.iter().map(|view| subscription(state, view)).collect()))
}

/// `GET subscriptions`
pub(super) fn subscriptions(state: &HttpState, call: &Call) -> Outcome {
    let paging = Paging::of(call)?;
    let wanted = |name| call.query.value(name);
    let qos = number(call, "qos", 0, 2)?;
    if let Some(filter) = wanted("match_topic") {
        topic::check_filter(filter).map_err(|error| Problem::bad_request(format!("match_topic: {error}")))?;
    }
    let page = state.broker.list_subscriptions(paging.window(), |view| {
        // What a client subscribed to was parsed before.
        let Ok(parsed) = ParsedFilter::parse(&view.filter) else { return false };
        wanted("clientid").is_none_or(|id| id == &*view.client_id)
            && wanted("topic").is_none_or(|filter| filter == parsed.filter || filter == &*view.filter)
            && wanted("match_topic").is_none_or(|filter| topic::intersects(filter, parsed.filter))
            && wanted("share_group").is_none_or(|group| parsed.share == Some(group))
            && qos.is_none_or(|qos| qos == view.subscription.options.qos as usize)
    });
    Ok(paging.wrap(&page, |view| subscription(state, view)))
}

/// `GET topics`
pub(super) fn topics(state: &HttpState, call: &Call) -> Outcome {
    let paging = Paging::of(call)?;
    let wanted = call.query.value("topic");
    let page = state.broker.list_topics(paging.window(), |topic| wanted.is_none_or(|wanted| wanted == topic));
    Ok(paging.wrap(&page, |topic| json!({"topic": topic, "node": state.node})))
}

/// EMQX's fields, as far as they are known here.
fn client(state: &HttpState, view: &ClientView) -> Value {
    let identity = &view.identity;
    let (name, version) = level(identity.version);
    json!({
        "node": state.node,
        "clientid": &*identity.client_id,
        "username": identity.username.as_deref(),
        "ip_address": address(identity),
        "port": identity.peer.socket().map(|peer| peer.port()),
        "listener": &*identity.listener,
        "connected": view.connected,
        "connected_at": time::rfc3339(identity.connected_unix_ms),
        "keepalive": identity.keep_alive_seconds,
        "clean_start": identity.clean_start,
        "proto_name": name,
        "proto_ver": version,
        "expiry_interval": view.expiry_seconds,
        "is_bridge": identity.is_bridge,
        "is_superuser": identity.is_superuser,
        "link": identity.bound_to.as_deref(),
        "subscriptions_cnt": view.subscriptions,
        "mqueue_len": view.queued,
        "inflight_cnt": view.in_flight,
        "awaiting_rel_cnt": view.awaiting_release,
    })
}

/// There is none for a client of a Unix domain socket.
fn address(identity: &Identity) -> Option<String> {
    identity.peer.ip().map(|address| address.to_string())
}

/// Protocol name and version.
fn level(version: Version) -> (&'static str, u8) {
    match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    }
}

fn subscription(state: &HttpState, view: &SubscriptionView) -> Value {
    let options = view.subscription.options;
    json!({
        "node": state.node,
        "clientid": &*view.client_id,
        "topic": &*view.filter,
        "qos": options.qos as u8,
        "nl": u8::from(options.no_local),
        "rap": u8::from(options.retain_as_published),
        "rh": options.retain_handling as u8,
    })
}
