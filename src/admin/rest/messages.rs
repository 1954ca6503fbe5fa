//! Publishing, and retained messages.

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Paging;
use super::Parameter;
use super::Problem;
use crate::admin::base64;
use crate::broker::delivery::Reached;
use crate::broker::inspect::PublishError;
use crate::mqtt::packet::QoS;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::net::clock;
use crate::net::random;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::time::Now;

/// What narrows a list of retained messages.
pub(super) const RETAINED_FILTERS: &[Parameter] =
    &[Parameter { name: "topic", kind: "string", about: "A Topic Filter that the topics match" }];

/// The longest string or binary property.
const PROPERTY_BYTES_MAX: usize = 65_535;

/// The body of `POST publish`, as EMQX has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    topic: String,
    payload: String,
    #[serde(default)]
    payload_encoding: Encoding,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    properties: Properties,
    /// Of older scripts; EMQX takes it and has no use for it either.
    #[serde(default, rename = "clientid")]
    _client_id: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Plain,
    Base64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Properties {
    payload_format_indicator: Option<u8>,
    message_expiry_interval: Option<u32>,
    response_topic: Option<String>,
    correlation_data: Option<String>,
    content_type: Option<String>,
    user_properties: serde_json::Map<String, Value>,
}

/// `POST publish`: 200 if somebody got it, 202 if nobody subscribes.
pub(super) fn publish(state: &HttpState, call: &Call) -> Outcome {
    let now = clock::now();
    let body = Body::read(&call.body)?;
    let reached = body.ready(now)?.publish(state, now).map_err(refused)?;
    let (status, answer) = told(reached);
    Ok(Answer::Status(status, answer))
}

/// `POST publish/bulk`: all of them if each is a message, else none. The answers in the order of the messages; 202 if
/// nobody subscribes to one of them, 503 if one was not taken.
pub(super) fn publish_all(state: &HttpState, call: &Call) -> Outcome {
    let now = clock::now();
    let bodies = call.body.as_array().filter(|bodies| !bodies.is_empty());
    let bodies = bodies.ok_or_else(|| Problem::bad_request("a list of messages is expected"))?;
    let ready = bodies.iter().map(|body| Body::read(body)?.ready(now)).collect::<Result<Vec<_>, _>>()?;
    for message in &ready {
        state.broker.check_publication(&message.publication()).map_err(refused)?;
    }
    let mut all = StatusCode::OK;
    let mut answers = Vec::new();
    for message in &ready {
        let (status, answer) = match message.publish(state, now) {
            Ok(reached) => told(reached),
            Err(error) => {
                let answer =
                    json!({"reason_code": ReasonCode::QuotaExceeded as u8, "message": error.to_string()});
                (StatusCode::SERVICE_UNAVAILABLE, answer)
            }
        };
        all = all.max(status);
        answers.push(answer);
    }
    Ok(Answer::Status(all, Value::Array(answers)))
}

fn told(reached: Reached) -> (StatusCode, Value) {
    match reached {
        Reached::Somebody => (StatusCode::OK, json!({"id": random::hex(16)})),
        Reached::Nobody => (
            StatusCode::ACCEPTED,
            json!({"reason_code": reached.reason() as u8, "message": "no_matching_subscribers"}),
        ),
    }
}

/// A message that can be published.
struct Ready {
    topic: String,
    payload: Vec<u8>,
    properties: Vec<u8>,
    qos: QoS,
    retain: bool,
    expiry: Option<Expiry>,
}

impl Body {
    /// A derived reader would take a list of values for an object too.
    fn read(value: &Value) -> Result<Self, Problem> {
        let fields = value.as_object().ok_or_else(|| Problem::bad_request("an object is expected"))?;
        if fields.get("properties").is_some_and(|properties| !properties.is_object()) {
            return Err(Problem::bad_request("properties: an object is expected"));
        }
        Self::deserialize(value).map_err(|error| Problem::bad_request(error.to_string()))
    }

    fn ready(self, now: Now) -> Result<Ready, Problem> {
        let payload = match self.payload_encoding {
            Encoding::Plain => self.payload.into_bytes(),
            Encoding::Base64 => base64::decode(&self.payload)
                .ok_or_else(|| Problem::bad_request("payload: not Base64, as payload_encoding says"))?,
        };
        Ok(Ready {
            payload,
            properties: self.properties.encode()?,
            qos: QoS::from_u8(self.qos).ok_or_else(|| Problem::bad_request("qos: 0, 1 or 2"))?,
            retain: self.retain,
            expiry: self.properties.expiry(now),
            topic: self.topic,
        })
    }
}

impl Ready {
    fn publication(&self) -> Publication<'_> {
        Publication {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            expiry: self.expiry,
        }
    }

    fn publish(&self, state: &HttpState, now: Now) -> Result<Reached, PublishError> {
        state.broker.publish_as_operator(&self.publication(), now)
    }
}

fn refused(error: PublishError) -> Problem {
    match error {
        PublishError::RetainedFull | PublishError::LinkFull | PublishError::Store(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", error.to_string())
        }
        other => Problem::bad_request(other.to_string()),
    }
}

impl Properties {
    fn expiry(&self, now: Now) -> Option<Expiry> {
        let expiry = |interval_seconds| Expiry { interval_seconds, received_mono_ms: now.mono_ms };
        self.message_expiry_interval.map(expiry)
    }

    /// As they are forwarded: without the Message Expiry Interval, which counts down.
    fn encode(&self) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        if let Some(indicator) = self.payload_format_indicator {
            if indicator > 1 {
                return Err(Problem::bad_request("payload_format_indicator: 0 or 1"));
            }
            Property::PayloadFormatIndicator(indicator).encode(&mut bytes);
        }
        if let Some(topic) = &self.response_topic {
            // [MQTT-3.3.2-14]
            topic::check_name(topic)
                .map_err(|error| Problem::bad_request(format!("response_topic: {error}")))?;
            Property::ResponseTopic(topic).encode(&mut bytes);
        }
        if let Some(data) = &self.correlation_data {
            Property::CorrelationData(bounded("correlation_data", data)?.as_bytes()).encode(&mut bytes);
        }
        if let Some(kind) = &self.content_type {
            Property::ContentType(text("content_type", kind)?).encode(&mut bytes);
        }
        for (name, value) in &self.user_properties {
            let value = value.as_str().ok_or_else(|| Problem::bad_request("user_properties: texts only"))?;
            let pair = (text("user_properties", name)?, text("user_properties", value)?);
            Property::UserProperty(pair.0, pair.1).encode(&mut bytes);
        }
        Ok(bytes)
    }
}

fn bounded<'a>(name: &str, value: &'a str) -> Result<&'a str, Problem> {
    let fits = value.len() <= PROPERTY_BYTES_MAX;
    if fits { Ok(value) } else { Err(Problem::bad_request(format!("{name}: at most 65535 bytes"))) }
}

fn text<'a>(name: &str, value: &'a str) -> Result<&'a str, Problem> {
    if value.contains('\0') {
        return Err(Problem::bad_request(format!("{name}: U+0000 is not allowed")));
    }
    bounded(name, value)
}

/// `GET mqtt/retainer/messages`
pub(super) fn list(state: &HttpState, call: &Call) -> Outcome {
    let paging = Paging::of(call)?;
    let filter = call.query.value("topic");
    if let Some(filter) = filter {
        topic::check_filter(filter).map_err(|error| Problem::bad_request(format!("topic: {error}")))?;
    }
    let now = clock::now();
    let page = state.broker.list_retained(filter, paging.window(), now);
    Ok(paging.wrap(&page, |message| retained(message, now)))
}

/// `GET mqtt/retainer/message/{topic}`
pub(super) fn show(state: &HttpState, call: &Call) -> Outcome {
    let now = clock::now();
    let message = state.broker.retained.get(&call.item, now.mono_ms).ok_or_else(none_retained)?;
    let mut value = retained(&message, now);
    value["payload"] = Value::String(base64::encode(message.view().payload));
    Ok(Answer::Json(value))
}

/// `DELETE mqtt/retainer/message/{topic}`
pub(super) fn delete(state: &HttpState, call: &Call) -> Outcome {
    if !state.broker.delete_retained(&call.item, clock::now()) {
        return Err(none_retained());
    }
    tracing::info!(topic = ?call.item, "retained message deleted by an operator");
    Ok(Answer::Nothing)
}

fn none_retained() -> Problem {
    Problem::not_found("no message is retained for this topic")
}

fn retained(message: &Message, now: Now) -> Value {
    let view = message.view();
    let remaining = view.expiry.and_then(|expiry| expiry.remaining_seconds(now));
    json!({
        "topic": view.topic,
        "qos": view.qos as u8,
        "payload_bytes": view.payload.len(),
        "expires_in": remaining,
    })
}
