//! Links: EMQX's paths and shapes (`link-protocol.md` 7.3), and beside them what EMQX does not show: routes, lanes, the
//! ledger, and why a topic does or does not cross.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Lacking;
use super::Outcome;
use super::Paging;
use super::Parameter;
use super::Problem;
use crate::acl::eval::Request;
use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::broker::explain::Described;
use crate::broker::explain::Explained;
use crate::broker::link_inspect::Forwarding;
use crate::broker::link_inspect::LaneView;
use crate::broker::link_inspect::Way;
use crate::broker::links::Link;
use crate::config;
use crate::config::link_table;
use crate::config::settings;
use crate::config::settings::DialledBy;
use crate::config::settings::Export;
use crate::config::settings::MASK;
use crate::config::settings::OnFull;
use crate::config::settings::Rate;
use crate::config::settings::Trust;
use crate::config::settings::Verify;
use crate::link::extension::Received;
use crate::link::ingress::DropReason;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::metrics::labels::LinkState;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;
use crate::net::clock;
use crate::time;
use crate::time::Now;
use crate::trust::group::Entitlement;
use crate::trust::rights::TopicGrant;

/// No bound, as a configuration writes it.
const INFINITY: &str = "infinity";

/// Which routes.
pub(super) const ROUTE_FILTERS: &[Parameter] = &[
    Parameter {
        name: "direction",
        kind: "string",
        about: "`in`, what the peer wants of us, the default; `out`, what we want of it",
    },
    Parameter {
        name: "match_topic",
        kind: "string",
        about: "Filters that have a topic in common with this one",
    },
];

/// How a link is deleted.
pub(super) const DELETE: &[Parameter] = &[Parameter {
    name: "notify_peer",
    kind: "boolean",
    about: "Whether the peer is told that the link is removed; true",
}];

/// What is explained.
pub(super) const EXPLAIN: &[Parameter] = &[
    Parameter { name: "topic", kind: "string", about: "The Topic Name of a message" },
    Parameter {
        name: "from",
        kind: "string",
        about: "The client that publishes it here, connected or not: what the ACL says is shown then",
    },
];

fn find(state: &HttpState, call: &Call) -> Result<Arc<Link>, Problem> {
    state
        .broker
        .links
        .get(&call.item)
        .ok_or_else(|| Problem::not_found(format!("{}: no such link", call.item)))
}

/// `GET cluster/links`
pub(super) fn list(state: &HttpState, call: &Call) -> Outcome {
    let links = state.broker.links.all();
    let seen = links.iter().filter(|link| call.rights.on_link(link.peer(), Entitlement::CanView));
    Ok(Answer::Json(seen.map(|link| shown(state, link)).collect()))
}

/// `GET cluster/links/link/{name}`
pub(super) fn show(state: &HttpState, call: &Call) -> Outcome {
    Ok(Answer::Json(shown(state, &*find(state, call)?)))
}

/// Where a link goes, how it proves itself and who is believed to be the peer: an operator who may change these could have the broker
/// send its secrets elsewhere, or become the peer.
const OF_ADMINS: [&str; 7] = ["server", "clientid", "username", "password", "trust", "peer", "ssl"];

/// `POST cluster/links`: the body is a link with its name.
pub(super) fn create(call: &Call) -> Result<LinkEdit, Problem> {
    let name =
        call.body["name"].as_str().ok_or_else(|| Problem::bad_request("name: a string is required"))?;
    Ok(LinkEdit { name: name.to_owned(), change: LinkChange::Create(call.body.clone()) })
}

/// What is answered then: the link.
pub(super) fn created(state: &HttpState, call: &Call) -> Outcome {
    let name = call.body["name"].as_str().unwrap_or_default();
    let link =
        state.broker.links.get(name).ok_or_else(|| Problem::not_found(format!("{name}: deleted again")))?;
    Ok(Answer::Status(StatusCode::CREATED, shown(state, &link)))
}

/// `PUT cluster/links/link/{name}`: the body is a whole link, and may leave out its name.
pub(super) fn replace(call: &Call) -> Result<LinkEdit, Problem> {
    let named = call.body.get("name").filter(|name| !name.is_null());
    if named.is_some_and(|name| *name != call.item) {
        return Err(Problem::bad_request("name: a link keeps its name, which is the peer's own"));
    }
    Ok(LinkEdit { name: call.item.clone(), change: LinkChange::Replace(call.body.clone()) })
}

/// What is lacking for a link to be this: nothing with all of [`OF_ADMINS`] as it is or, of a new one, by identity.
pub(in crate::admin) fn lacking_for(state: &HttpState, call: &Call) -> Lacking {
    let lacking = call.lacks(Entitlement::Admin);
    if lacking.is_none() || call.body.is_null() {
        return None;
    }
    let name = call.body["name"].as_str().unwrap_or(&call.item);
    let may = match state.broker.links.get(name).map(|link| configured(&link.settings_in_force())) {
        Some(there) => OF_ADMINS.iter().all(|key| call.body[*key] == there[*key]),
        None => {
            let is_left_out = |key: &&str| ["server", "trust"].contains(key) || call.body[*key].is_null();
            call.body["trust"] == "pin" && OF_ADMINS.iter().all(is_left_out)
        }
    };
    if may { None } else { lacking }
}

/// `DELETE cluster/links/link/{name}`
pub(super) fn delete(call: &Call) -> Result<LinkEdit, Problem> {
    let notify = match call.query.value("notify_peer") {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            return Err(Problem::bad_request(format!("notify_peer: {other:?} is not true or false")));
        }
    };
    Ok(LinkEdit { name: call.item.clone(), change: LinkChange::Delete { notify } })
}

/// What is answered then: nothing.
pub(super) fn deleted(_state: &HttpState, _call: &Call) -> Outcome {
    Ok(Answer::Nothing)
}

/// `GET cluster/links/link/{name}/metrics`
pub(super) fn metrics(state: &HttpState, call: &Call) -> Outcome {
    let link = find(state, call)?;
    let count = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
    let Forwarding { sent, failed, dropped, retried } = link.forwarding_since_reset();
    let queuing = count(link.metrics.spool_messages.value());
    let inflight = count(link.metrics.inflight.value());
    let metrics = json!({
        "router": {"routes": link.routes.lock().len()},
        "forwarding": {
            "matched": sent + failed + dropped + queuing + inflight,
            "success": sent,
            "failed": failed,
            "dropped": dropped,
            "retried": retried,
            "queuing": queuing,
            "inflight": inflight,
        },
    });
    let node = json!([{"node": state.node, "metrics": metrics}]);
    Ok(Answer::Json(json!({"metrics": metrics, "node_metrics": node})))
}

/// `PUT cluster/links/link/{name}/metrics/reset`: what `metrics` shows begins at zero again; Prometheus' series go on.
pub(super) fn reset_metrics(state: &HttpState, call: &Call) -> Outcome {
    find(state, call)?.reset_forwarding();
    Ok(Answer::Nothing)
}

/// `GET cluster/links/link/{name}/routes`
pub(super) fn routes(state: &HttpState, call: &Call) -> Outcome {
    let (link, paging) = (find(state, call)?, Paging::of(call)?);
    let part = call.query.value("match_topic").unwrap_or("#");
    topic::check_filter(part).map_err(|error| Problem::bad_request(format!("match_topic: {error}")))?;
    // `#` has no topic in common with what begins with `$`, and who names nothing wants to see everything.
    let wanted = |filter: &str| part == "#" || topic::intersects(part, filter);
    match call.query.value("direction") {
        None | Some("in") => {
            let page = link.list_remote_routes(paging.window(), wanted);
            Ok(paging.wrap(&page, |filter| json!({"filter": filter, "direction": "in"})))
        }
        Some("out") => {
            let page = state.broker.list_own_routes(&link, paging.window(), wanted);
            Ok(paging.wrap(&page, |(filter, share)| {
                let mut route = json!({"filter": filter, "direction": "out"});
                if let Some(share) = share {
                    route["share_group"] = json!(share);
                }
                route
            }))
        }
        Some(_) => Err(Problem::bad_request("direction: in or out")),
    }
}

/// `GET cluster/links/link/{name}/spool`
pub(super) fn spool(state: &HttpState, call: &Call) -> Outcome {
    let link = find(state, call)?;
    let lane = |(number, lane): (usize, &LaneView)| {
        json!({
            "lane": number,
            "connected": lane.connected,
            "queued": lane.queued,
            "inflight": lane.in_flight,
            "bytes": lane.bytes,
            "oldest_age_ms": lane.oldest_age_ms,
        })
    };
    let lanes = link.forwarder.view(clock::now());
    let lanes: Vec<Value> = lanes.iter().enumerate().map(lane).collect();
    let spool = link.settings.spool;
    Ok(Answer::Json(json!({
        "messages": link.metrics.spool_messages.value(),
        "bytes": link.metrics.spool_bytes.value(),
        "max_bytes": spool.max_bytes,
        "on_full": on_full(spool.on_full),
        "lanes": lanes,
    })))
}

/// `GET cluster/links/link/{name}/ledger`: since the link was made, as configured now; and what the peer says, if it is one
/// of ours.
pub(super) fn ledger(state: &HttpState, call: &Call) -> Outcome {
    let link = find(state, call)?;
    let now = clock::now();
    let lanes = link.forwarder.view(now);
    let sum = |count: fn(&LaneView) -> u64| lanes.iter().map(count).sum::<u64>();
    let dropped = |reason: DropReason| lanes.iter().map(|lane| lane.counters.dropped[reason.index()]).sum();
    let here: i64 = lanes.iter().map(|lane| lane.unaccounted).sum();
    Ok(Answer::Json(json!({
        "accepted": sum(|lane| lane.counters.pushed),
        "acknowledged": sum(|lane| lane.counters.acked),
        "sent_qos0": sum(|lane| lane.counters.fired),
        "resent": sum(|lane| lane.counters.resent),
        "refused_by_peer": sum(|lane| lane.counters.failed),
        "queued": sum(|lane| lane.queued as u64),
        "inflight": sum(|lane| lane.in_flight as u64),
        "dropped": by_reason(dropped),
        "unaccounted": here,
        "received": received(&link.incoming.books(), None),
        "peer": peer_books(&link, now),
    })))
}

/// What the peer said last of the messages between us; `null` if it says nothing of them, as EMQX.
fn peer_books(link: &Link, now: Now) -> Value {
    let books = link.books.lock();
    let age = |said_ms: u64| now.mono_ms.saturating_sub(said_ms) / 1000;
    let sent = books.sent.map(|(sent, said_ms)| {
        json!({
            "acknowledged": sent.acknowledged,
            "sent_qos0": sent.fired,
            "queued": sent.queued,
            "inflight": sent.in_flight,
            "dropped": by_reason(|reason| sent.dropped[reason.index()]),
            "unaccounted": sent.unaccounted,
            "seconds_ago": age(said_ms),
        })
    });
    let received = books.received.map(|(came, said_ms)| received(&came, Some(age(said_ms))));
    if sent.is_none() && received.is_none() {
        return Value::Null;
    }
    let unaccounted = books.balance.is_known().then(|| books.balance.unaccounted());
    json!({"sent": sent, "received": received, "unaccounted": unaccounted})
}

fn received(books: &Received, seconds_ago: Option<u64>) -> Value {
    json!({
        "received": books.received,
        "received_qos0": books.fired,
        "repeated": books.repeated,
        "dropped": by_reason(|reason| books.dropped[reason.index()]),
        "seconds_ago": seconds_ago,
    })
}

/// Reasons that occurred, with how often.
fn by_reason(count: impl Fn(DropReason) -> u64) -> Map<String, Value> {
    DropReason::ALL
        .into_iter()
        .map(|reason| (LinkDropReason::from(reason).name().to_owned(), json!(count(reason))))
        .filter(|(_, count)| *count != 0)
        .collect()
}

/// `GET cluster/links/link/{name}/explain`
pub(super) fn explain(state: &HttpState, call: &Call) -> Outcome {
    let link = find(state, call)?;
    let name = call.query.value("topic").ok_or_else(|| Problem::bad_request("topic: missing"))?;
    topic::check_name(name).map_err(|error| Problem::bad_request(format!("topic: {error}")))?;
    let acl = call.query.value("from").map(|client| acl(state, client, name));
    let way = |way, word| {
        let steps = state.broker.explain_link(&link, way, name, acl.as_ref());
        let stopped = steps.iter().find(|step| !step.passes);
        let why = stopped.map(|step| format!("{}: {}", step.name, step.text));
        let steps: Vec<Value> = steps
            .iter()
            .map(|step| json!({"step": step.name, "passes": step.passes, "because": step.text}))
            .collect();
        json!({"direction": word, "crosses": why.is_none(), "stopped_by": why, "steps": steps})
    };
    let (there, here) = (way(Way::Out, "out"), way(Way::In, "in"));
    Ok(Answer::Json(
        json!({"link": link.peer(), "topic": name, "from": call.query.value("from"), "ways": [there, here]}),
    ))
}

/// What the rules say of a message of this client, as it is connected or, if it is not, by its Client Identifier alone.
fn acl(state: &HttpState, client: &str, name: &str) -> Explained {
    let policy = state.broker.policy();
    let request = Request::Publish { topic: name, qos: QoS::AtLeastOnce, retain: false };
    if let Some(view) = state.broker.client(client) {
        return policy.explain(&view.identity, &request);
    }
    let described = Described {
        client_id: client.to_owned(),
        username: None,
        peer_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: "tcp:default".to_owned(),
        common_name: None,
        fingerprint: None,
        attributes: BTreeMap::new(),
        is_superuser: false,
    };
    policy.explain_described(&described, &state.broker.authentication.credentials().peers, &request)
}

/// EMQX's link object: the configuration with its defaults, secrets masked, and the status; ours beside it.
fn shown(state: &HttpState, link: &Link) -> Value {
    let mut object = configured(&link.settings_in_force());
    let (now, status) = (link.state(), status(link.state()));
    let mut node = json!({"node": state.node, "status": status});
    object["status"] = json!(status);
    object["state"] = json!(now.name());
    if let Some(why) = link.trouble() {
        node["reason"] = json!(why);
        object["reason"] = json!(why);
    }
    object["node_status"] = json!([node]);
    // What is said between two of ours beyond EMQX's protocol.
    object["extensions"] = json!(link.capabilities().names().collect::<Vec<_>>());
    object["peer_version"] = json!(*link.peer_version.lock());
    object["connections_in"] = json!(link.connections_in());
    object["connections_out"] = json!(link.metrics.connections[Direction::Out].value());
    object["routes_in"] = json!(link.routes.lock().len());
    object["spool_messages"] = json!(link.metrics.spool_messages.value());
    object["retained_messages"] = json!(state.broker.retained.copies(link.id));
    let last = link.metrics.last_success.ms();
    object["last_success"] = if last == 0 { Value::Null } else { json!(time::rfc3339(last)) };
    object
}

/// EMQX's words. Routes are replicated and accepted, or it is not connected.
fn status(state: LinkState) -> &'static str {
    match state {
        LinkState::Active => "connected",
        LinkState::Connecting => "connecting",
        _ => "disconnected",
    }
}

fn configured(link: &settings::Link) -> Value {
    let servers: Vec<String> = link.servers.iter().map(ToString::to_string).collect();
    let hidden = link.password.as_ref().map(|_| MASK);
    let ssl = match &link.ssl {
        None => json!({"enable": false, "allow_insecure": link.allow_insecure}),
        Some(ssl) => json!({
            "enable": true,
            "cacertfile": ssl.cacertfile,
            "certfile": ssl.certfile,
            "keyfile": ssl.keyfile,
            "password": ssl.password.as_ref().map(|_| MASK),
            "cert_sha256": fingerprints(&ssl.cert_sha256),
            "verify": if ssl.verify == Verify::Peer { "verify_peer" } else { "verify_none" },
            "server_name_indication": ssl.server_name,
            "allow_insecure": link.allow_insecure,
        }),
    };
    let export = match &link.export {
        Export::Entitled => Value::Null,
        Export::Only(filters) => json!(filters),
    };
    let spool = link.spool;
    let grants = |grants: &[TopicGrant]| grants.iter().map(grant).collect::<Vec<_>>();
    let granted = link.granted.as_ref().map(|granted| {
        json!({
            "can_forward": granted.can_forward,
            "can_sync_routes": granted.can_sync_routes,
            "import": grants(&granted.import),
            "export": grants(&granted.export),
        })
    });
    let mut shown = json!({
        "name": link.name,
        "enable": link.enable,
        "server": servers.join(","),
        "dialled_by": dialled_by(link.dialled_by),
        "clientid": link.clientid,
        "username": link.username,
        "password": hidden,
        "topics": link.topics,
        "export": export,
        "relay": link.relay,
        "reach": link.reach,
        "retained": link.retained,
        "pool_size": link.pool_size,
        "max_inflight": link.max_inflight.map_or_else(|| json!("auto"), |most| json!(most)),
        "ssl": ssl,
        "quota": {
            "connections": link.quota.connections,
            "actors": link.quota.actors,
            "routes": link.quota.routes,
            "messages_rate": rate(link.quota.rates.messages),
            "bytes_rate": rate(link.quota.rates.bytes),
        },
        "trust": trust(link.trust),
        "granted": granted,
        "peer": {
            "clientid": link.peer.clientid,
            "username": link.peer.username,
            "cert_sha256": fingerprints(&link.peer.cert_sha256),
            "cert_cn": link.peer.cert_cn,
            "allow_unauthenticated": link.peer.allow_unauthenticated,
        },
        "spool": {
            "max_bytes": spool.max_bytes,
            "max_age": spool.max_age.map_or_else(|| INFINITY.to_owned(), |age| format!("{}ms", age.as_millis())),
            "on_full": on_full(spool.on_full),
            "qos0": spool.qos0,
        },
        "written": link.written.0,
    });
    // EMQX's own words, as they were sent.
    for (key, value) in link.of_emqx.as_object().into_iter().flatten() {
        shown[key] = value.clone();
    }
    let unused = link_table::unused(&link.of_emqx);
    if !unused.is_empty() {
        shown["unused"] = json!(unused);
    }
    shown
}

/// The filter, or where the QoS is bounded both.
fn grant(grant: &TopicGrant) -> Value {
    if grant.qos_max < 2 { json!({"topic": grant.filter, "qos": grant.qos_max}) } else { json!(grant.filter) }
}

fn dialled_by(by: DialledBy) -> &'static str {
    match by {
        DialledBy::Both => "both",
        DialledBy::Us => "us",
        DialledBy::Peer => "peer",
    }
}

fn trust(trust: Trust) -> Option<&'static str> {
    match trust {
        Trust::Configured => None,
        Trust::Pinned => Some("pin"),
        Trust::Ca => Some("ca"),
    }
}

fn rate(rate: Option<Rate>) -> String {
    rate.map_or_else(|| INFINITY.to_owned(), |rate| rate.to_string())
}

fn fingerprints(all: &[[u8; 32]]) -> Vec<String> {
    all.iter().map(config::hex).collect()
}

fn on_full(policy: OnFull) -> &'static str {
    match policy {
        OnFull::DropOldest => "drop_oldest",
        OnFull::DropNew => "drop_new",
        OnFull::Refuse => "refuse",
    }
}
