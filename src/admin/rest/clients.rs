//! Clients, their subscriptions, and the topics that are subscribed to.

use axum::http::StatusCode;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Paging;
use super::Parameter;
use super::Problem;
use super::number;
use crate::broker::identity::Identity;
use crate::broker::inspect::ClientView;
use crate::broker::inspect::SubscriptionView;
use crate::mqtt::packet::Version;
use crate::mqtt::topic;
use crate::mqtt::topic::ParsedFilter;
use crate::net::clock;

/// What narrows a list of clients.
pub(super) const CLIENT_FILTERS: &[Parameter] = &[
    Parameter { name: "clientid", kind: "string", about: "This client" },
    Parameter { name: "username", kind: "string", about: "Clients of this user" },
    Parameter { name: "like_clientid", kind: "string", about: "Client Identifiers that contain this" },
    Parameter { name: "like_username", kind: "string", about: "User Names that contain this" },
    Parameter { name: "ip_address", kind: "string", about: "Clients from this address" },
    Parameter { name: "conn_state", kind: "string", about: "connected or disconnected" },
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
    let page = state.broker.list_clients(paging.window(), |view| {
        let identity = &view.identity;
        let username = identity.username.as_deref();
        wanted("clientid").is_none_or(|id| id == &*identity.client_id)
            && wanted("like_clientid").is_none_or(|part| identity.client_id.contains(part))
            && wanted("username").is_none_or(|name| username == Some(name))
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
    let (name, version) = match identity.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    json!({
        "node": state.node,
        "clientid": &*identity.client_id,
        "username": identity.username,
        "ip_address": address(identity),
        "port": identity.peer.socket().map(|peer| peer.port()),
        "listener": &*identity.listener,
        "connected": view.connected,
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
