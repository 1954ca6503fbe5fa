//! `stats` and `metrics` under EMQX's names, as far as they have a meaning here. Prometheus reads `/metrics`.

use serde_json::Map;
use serde_json::Value;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Parameter;
use super::Problem;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::ListenerType;
use crate::metrics::labels::PacketType;
use crate::mqtt::packet::QoS;

/// Which shape.
pub(super) const AGGREGATE: &[Parameter] =
    &[Parameter { name: "aggregate", kind: "boolean", about: "One object instead of a list of nodes" }];

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// `GET stats`
pub(super) fn stats(state: &HttpState, call: &Call) -> Outcome {
    let broker = &state.broker;
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
    shaped(state, call, values.into_iter().map(|(name, value)| (name.to_owned(), value as u64)))
}

/// `GET metrics`
pub(super) fn metrics(state: &HttpState, call: &Call) -> Outcome {
    let series = &state.broker.metrics.broker;
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
    for reason in DropReason::ALL {
        let value = series.messages_dropped[*reason].value();
        values.push((format!("messages.dropped.{}", reason.name()), value));
    }
    let accepted = ListenerType::ALL.iter().map(|kind| series.connections_accepted[*kind].value()).sum();
    values.push(("client.connect".to_owned(), accepted));
    shaped(state, call, values)
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
