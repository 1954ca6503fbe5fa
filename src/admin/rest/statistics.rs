//! `stats` and `metrics` under EMQX's names, as far as they have a meaning here. Prometheus reads `/metrics`.

use std::fmt::Write as _;

use axum::http::StatusCode;
use serde_json::Map;
use serde_json::Value;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Parameter;
use super::Problem;
use super::pages::METRICS_TYPE;
use crate::auth::DenyReason;
use crate::broker::Broker;
use crate::metrics::LinkMetrics;
use crate::metrics::labels::AclAction;
use crate::metrics::labels::AclReason;
use crate::metrics::labels::Direction;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::PacketType;
use crate::metrics::labels::SecurityEvent;
use crate::mqtt::packet::QoS;

/// Which shape.
pub(super) const AGGREGATE: &[Parameter] =
    &[Parameter { name: "aggregate", kind: "boolean", about: "One object instead of a list of nodes" }];

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Why a message was dropped, in the words that EMQX has for it.
const DROPPED: [(&str, DropReason); 7] = [
    ("messages.dropped.no_subscribers", DropReason::NoSubscribers),
    ("messages.dropped.quota_exceeded", DropReason::Quota),
    ("messages.dropped.receive_maximum", DropReason::Inflight),
    ("delivery.dropped.queue_full", DropReason::QueueFull),
    ("delivery.dropped.too_large", DropReason::TooLarge),
    ("delivery.dropped.no_local", DropReason::NoLocal),
    ("delivery.dropped.expired", DropReason::Expired),
];

/// `GET stats`
pub(super) fn stats(state: &HttpState, call: &Call) -> Outcome {
    shaped(state, call, gauges(&state.broker).into_iter().chain(stored(&state.broker)))
}

/// How much is stored; EMQX has no names for it.
fn stored(broker: &Broker) -> Vec<(String, u64)> {
    let usage = broker.store.as_ref().map(|store| store.storage().usage()).unwrap_or_default();
    let values = [
        ("store.bytes", usage.bytes),
        ("store.live_bytes", usage.live_bytes),
        ("store.entries", usage.entries),
        ("store.messages", usage.bodies),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

/// `GET metrics`
pub(super) fn metrics(state: &HttpState, call: &Call) -> Outcome {
    let series = &state.broker.metrics.broker;
    let dropped = DropReason::ALL.iter().map(|reason| {
        (format!("messages.dropped.{}", reason.name()), series.messages_dropped[*reason].value())
    });
    shaped(state, call, counters(&state.broker).into_iter().chain(dropped))
}

/// `GET /metrics/emqx`: the same as Prometheus text under EMQX's names, for boards and alerts that know those.
pub(super) fn emqx(state: &HttpState, _call: &Call) -> Outcome {
    if !state.metrics_emqx {
        return Err(Problem::not_found("http.metrics_emqx is false"));
    }
    let series = &state.broker.metrics.broker;
    let of_links = |count: fn(&LinkMetrics) -> u64| {
        state.broker.links.all().iter().map(|link| count(&link.metrics)).sum::<u64>()
    };
    let forwarded =
        |link: &LinkMetrics| QOS.iter().map(|qos| link.messages[(Direction::Out, *qos)].value()).sum();
    let failures: u64 = DenyReason::ALL.iter().map(|why| series.authentication_failures[*why].value()).sum();
    let denied = AclAction::ALL
        .iter()
        .flat_map(|action| AclReason::ALL.iter().map(|why| series.acl_denied[(*action, *why)].value()))
        .sum();
    let more = [
        ("authentication.failure".to_owned(), failures),
        ("authentication.success".to_owned(), series.security_events[SecurityEvent::LoginSuccess].value()),
        ("authorization.deny".to_owned(), denied),
        ("messages.forward".to_owned(), of_links(forwarded)),
    ];
    let dropped = DROPPED.map(|(name, reason)| (name.to_owned(), series.messages_dropped[reason].value()));
    let mut text = String::new();
    for (kind, values) in [
        ("gauge", gauges(&state.broker)),
        ("counter", counters(&state.broker).into_iter().chain(dropped).chain(more).collect()),
    ] {
        for (name, value) in values {
            let name = name.replace('.', "_");
            // Writing to a string does not fail.
            let _ = write!(text, "# TYPE emqx_{name} {kind}\nemqx_{name} {value}\n");
        }
    }
    Ok(Answer::Text(StatusCode::OK, METRICS_TYPE, text))
}

fn gauges(broker: &Broker) -> Vec<(String, u64)> {
    let (sessions, connected) = broker.session_counts();
    let (routes, retained) = (broker.routes.counts(), broker.retained.counts());
    let values = [
        ("connections.count", sessions),
        ("live_connections.count", connected),
        ("sessions.count", sessions),
        ("topics.count", routes.local_routes),
        ("subscriptions.count", routes.subscriptions + routes.shared_subscriptions),
        ("suboptions.count", routes.subscriptions + routes.shared_subscriptions),
        ("subscriptions.shared.count", routes.shared_subscriptions),
        ("retained.count", retained.messages),
        ("retained.bytes", retained.bytes),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value as u64)).collect()
}

fn counters(broker: &Broker) -> Vec<(String, u64)> {
    let series = &broker.metrics.broker;
    let mut values = vec![
        ("bytes.received".to_owned(), series.bytes_received.value()),
        ("bytes.sent".to_owned(), series.bytes_sent.value()),
    ];
    for (way, packets) in [("received", &series.packets_received), ("sent", &series.packets_sent)] {
        let all = PacketType::ALL.iter().map(|packet| packets[*packet].value()).sum();
        values.push((format!("packets.{way}"), all));
        for packet in PacketType::ALL {
            values.push((format!("packets.{}.{way}", packet.name()), packets[*packet].value()));
        }
    }
    for (way, messages) in [("received", &series.messages_received), ("sent", &series.messages_sent)] {
        values.push((format!("messages.{way}"), QOS.iter().map(|qos| messages[*qos].value()).sum()));
        for qos in QOS {
            values.push((format!("messages.qos{}.{way}", qos as u8), messages[qos].value()));
        }
    }
    let dropped = DropReason::ALL.iter().map(|reason| series.messages_dropped[*reason].value()).sum();
    values.push(("messages.dropped".to_owned(), dropped));
    let accepted = ListenerType::ALL.iter().map(|kind| series.connections_accepted[*kind].value()).sum();
    values.push(("client.connect".to_owned(), accepted));
    values
}

fn shaped(state: &HttpState, call: &Call, values: impl IntoIterator<Item = (String, u64)>) -> Outcome {
    let mut object: Map<String, Value> =
        values.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    match call.query.value("aggregate") {
        Some("true") => Ok(Answer::Json(Value::Object(object))),
        None | Some("false") => {
            object.insert("node".to_owned(), Value::from(state.node.as_str()));
            Ok(Answer::Json(Value::Array(vec![Value::Object(object)])))
        }
        Some(_) => Err(Problem::bad_request("aggregate: true or false")),
    }
}
