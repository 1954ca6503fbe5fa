//! The OpenAPI document against the handlers: every status that it promises is given, nothing else is, and bodies are
//! taken exactly if they are what their schema says.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;
use tombolo::mqtt::packet::Version;

use crate::harness::Q1;
use crate::node::Answer;
use crate::node::Running;
use crate::node::start_with;

/// Given by the server in front of all handlers, and looked at route by route below.
const EVERYWHERE: [&str; 3] = ["401", "403", "413"];

/// What was asked and answered, under the names of the document.
struct Asked<'a> {
    running: &'a Running,
    docs: Value,
    seen: BTreeSet<String>,
}

impl Asked<'_> {
    async fn ask(
        &mut self,
        method: &str,
        template: &str,
        item: &str,
        query: &str,
        body: Option<&Value>,
    ) -> Answer {
        let path = template.replace("{clientid}", item).replace("{topic}", item) + query;
        let text = body.map(Value::to_string);
        let body = text.as_deref().map(|text| ("application/json", text));
        let answer = self.running.send(method, &path, Some(&self.running.key), body).await;
        self.note(method, template, &answer);
        answer
    }

    fn note(&mut self, method: &str, template: &str, answer: &Answer) {
        let operation = &self.docs["paths"][template][method.to_lowercase()];
        let response = &operation["responses"][answer.0.to_string()];
        assert!(response.is_object(), "{method} {template} does not promise {answer:?}");
        if let Some(schema) = response.pointer("/content/application~1json/schema") {
            check(&answer.json(), schema, &self.docs)
                .unwrap_or_else(|why| panic!("{template}: {why}: {answer:?}"));
        }
        self.seen.insert(format!("{method} {template} {}", answer.0));
    }
}

/// Whether a value is what a schema says; of JSON Schema what the document uses.
fn check(value: &Value, schema: &Value, docs: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(value, docs.pointer(reference.trim_start_matches('#')).expect("a schema"), docs);
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("{other}: a type that is not known here"),
    };
    if schema["type"].as_str().is_some_and(|kind| !is(kind)) {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    if schema["minimum"].as_i64().is_some_and(|least| value.as_i64().is_some_and(|value| value < least)) {
        return Err(format!("{value} is too small"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(schema), _) => check(field, schema, docs)?,
            (None, Value::Bool(false)) => return Err(format!("{name} is not known")),
            (None, Value::Object(_)) => check(field, &schema["additionalProperties"], docs)?,
            (None, _) => {}
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(item, &schema["items"], docs)?;
    }
    Ok(())
}

/// Values that a schema may or may not take.
fn bodies() -> Vec<Value> {
    let message = |more: Value| {
        let mut body = json!({"topic": "a", "payload": "x"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let single = vec![
        json!({}),
        json!([]),
        json!("a"),
        json!(null),
        json!({"topic": "a"}),
        json!({"topic": 1}),
        json!({"topic": "a", "qos": 2, "nl": 1, "rap": 1, "rh": 2}),
        json!({"topic": "a", "qos": 3}),
        json!({"topic": "a", "qos": "1"}),
        json!({"topic": "a", "nl": 2}),
        json!({"topic": "a", "rh": 3}),
        json!({"topic": "a", "other": 1}),
        message(json!({})),
        message(json!({"clientid": "of an older script"})),
        message(json!({"qos": 2, "retain": true, "payload_encoding": "plain"})),
        message(json!({"qos": 3})),
        message(json!({"qos": -1})),
        message(json!({"retain": 1})),
        message(json!({"payload": 1})),
        message(json!({"payload_encoding": "hex"})),
        message(json!({"properties": {"content_type": "t", "user_properties": {"a": "b"}}})),
        message(json!({"properties": {"message_expiry_interval": -1}})),
        message(json!({"properties": {"payload_format_indicator": 2}})),
        message(json!({"properties": {"user_properties": {"a": 1}}})),
        message(json!({"properties": {"other": 1}})),
    ];
    let lists = single.iter().map(|body| json!([body]));
    single.iter().cloned().chain(lists).chain([json!([1])]).collect()
}

#[tokio::test]
async fn every_promised_status_is_given_and_no_other() {
    // Room for one retained message and for one subscription, so that there can be too many.
    let running = start_with(|settings| settings.mqtt.max_subscriptions = Some(3)).await;
    let docs = running.ask("GET", "/api-docs.json").await.json();
    let mut asked = Asked { running: &running, docs, seen: BTreeSet::new() };
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("t", Q1).await;
    for path in ["/health/live", "/health/ready", "/metrics", "/metrics/emqx", "/api-docs.json"] {
        asked.ask("GET", path, "", "", None).await;
    }
    for path in ["/status", "/api/v5/status"] {
        asked.ask("GET", path, "", "", None).await;
        asked.ask("GET", path, "", "?format=x", None).await;
    }
    let api = |path: &str| format!("/api/v5/{path}");
    let (topic, other) = (json!({"topic": "s"}), json!({"topic": "$LINK/a"}));
    for path in ["clients", "subscriptions", "topics", "mqtt/retainer/messages"] {
        asked.ask("GET", &api(path), "", "", None).await;
        asked.ask("GET", &api(path), "", "?page=0", None).await;
    }
    for path in ["stats", "metrics"] {
        asked.ask("GET", &api(path), "", "", None).await;
        asked.ask("GET", &api(path), "", "?aggregate=x", None).await;
    }
    for (id, body) in [("c", &topic), ("c", &other), ("nobody", &topic)] {
        let list = json!([body]);
        asked.ask("POST", &api("clients/{clientid}/subscribe"), id, "", Some(body)).await;
        asked.ask("POST", &api("clients/{clientid}/subscribe/bulk"), id, "", Some(&list)).await;
    }
    for (id, body) in [("c", &topic), ("c", &json!({"topic": "a/#/b"})), ("nobody", &topic)] {
        let list = json!([body]);
        asked.ask("POST", &api("clients/{clientid}/unsubscribe"), id, "", Some(body)).await;
        asked.ask("POST", &api("clients/{clientid}/unsubscribe/bulk"), id, "", Some(&list)).await;
    }
    for id in ["c", "nobody"] {
        asked.ask("GET", &api("clients/{clientid}"), id, "", None).await;
        asked.ask("GET", &api("clients/{clientid}/subscriptions"), id, "", None).await;
    }
    for name in ["t", "nobody", "$SYS"] {
        let body = json!({"topic": name, "payload": "x", "retain": true});
        asked.ask("POST", &api("publish"), "", "", Some(&body)).await;
        asked.ask("POST", &api("publish/bulk"), "", "", Some(&json!([body]))).await;
    }
    asked.ask("GET", &api("mqtt/retainer/message/{topic}"), "t", "", None).await;
    for _ in 0..2 {
        asked.ask("DELETE", &api("mqtt/retainer/message/{topic}"), "t", "", None).await;
    }
    asked.ask("GET", &api("mqtt/retainer/message/{topic}"), "t", "", None).await;
    for id in ["c", "c"] {
        asked.ask("DELETE", &api("clients/{clientid}"), id, "", None).await;
    }
    asked.ask("POST", &api("clients/kickout/bulk"), "", "", Some(&json!(["c"]))).await;
    asked.ask("POST", &api("clients/kickout/bulk"), "", "", Some(&json!({}))).await;
    asked.ask("GET", &api("trace/stream"), "", "?topic=a%23", None).await;
    // Where a body is expected another type is refused.
    let mut promised = BTreeSet::new();
    for (template, methods) in asked.docs["paths"].as_object().unwrap().clone() {
        let elsewhere = ["banned", "acl", "events", "cluster", "authentication", "trust"];
        if elsewhere.iter().any(|part| template.starts_with(&api(part))) {
            continue; // looked at in `rest.rs`, `acl.rs`, `events.rs`, `links.rs` and `trust.rs` beside this file
        }
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            if operation["requestBody"].is_object() {
                let path = template.replace("{clientid}", "c");
                let answer =
                    running.send(&method, &path, Some(&running.key), Some(("text/plain", "x"))).await;
                asked.note(&method, &template, &answer);
            }
            for status in operation["responses"].as_object().unwrap().keys() {
                if !EVERYWHERE.contains(&status.as_str()) {
                    promised.insert(format!("{method} {template} {status}"));
                }
            }
        }
    }
    let elsewhere = [
        // Of a broker that stops, whose last answers cannot be waited for: `src/admin/http/tests.rs` has it.
        "GET /health/ready 503",
        "GET /status 503",
        "GET /api/v5/status 503",
        // A full store and a full spool are the broker's: `src/broker/retained/tests.rs`, `tests/linked/outage.rs`.
        "POST /api/v5/publish 503",
        "POST /api/v5/publish/bulk 503",
        "GET /metrics/emqx 200",
        // `trace.rs` and `rest.rs` beside this file.
        "GET /api/v5/trace/stream 200",
        "GET /api/v5/trace/stream 503",
        "POST /api/v5/config/reload 200",
        "POST /api/v5/config/reload 400",
        "POST /api/v5/config/reload 409",
        "POST /api/v5/config/reload 503",
    ];
    // Nobody changes links here: `link_changes.rs` beside this file has who does.
    let changes_links = |one: &str| one.contains("/cluster/links") && !one.starts_with("GET ");
    let missing: Vec<_> = promised
        .difference(&asked.seen)
        .filter(|one| !elsewhere.contains(&one.as_str()) && !changes_links(one))
        .collect();
    assert!(missing.is_empty(), "promised and never given: {missing:#?}");
    running.node.stop().await;
}

#[tokio::test]
async fn a_body_is_refused_exactly_if_it_breaks_its_schema() {
    let running = start_with(|_| {}).await;
    let docs = running.ask("GET", "/api-docs.json").await.json();
    let _client = running.join(Version::V5, "c").await;
    let mut checked = 0;
    for (template, methods) in docs["paths"].as_object().unwrap() {
        // What a link may be, and who may be trusted, is for whoever runs the broker to say, and nobody does here.
        if template.contains("/cluster/links") || template.contains("/trust/") {
            continue;
        }
        for (method, operation) in methods.as_object().unwrap() {
            let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") else {
                continue;
            };
            // Kicks nobody: the one who is there is needed by the others.
            let path = template.replace("{clientid}", "c");
            for body in bodies() {
                let valid = check(&body, schema, &docs);
                // The one rule that is not in the schema.
                let valid = valid.is_ok() && !(path.ends_with("publish/bulk") && body == json!([]));
                let text = body.to_string();
                let body = Some(("application/json", text.as_str()));
                let answer = running.send(&method.to_uppercase(), &path, Some(&running.key), body).await;
                assert_eq!(answer.0 == 400, !valid, "{path}: {text}: {answer:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked}");
    running.node.stop().await;
}

/// Every route refuses names that are not ours, whatever else is right.
#[tokio::test]
async fn a_foreign_host_is_refused_on_every_route() {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let running = start_with(|_| {}).await;
    let docs = running.ask("GET", "/api-docs.json").await.json();
    let heads = [
        "Host: rebound.example",
        "Host: 127.0.0.1.rebound.example",
        "Host: localhost.rebound.example",
        "Host: [2001:db8::1]:18083",
        "Host: 192.0.2.7",
        "Host: ",
        "X-Nothing: of a host",
        "Host: localhost\r\nHost: localhost",
        "Host: localhost\r\nOrigin: http://rebound.example",
        "Host: localhost\r\nOrigin: null",
    ];
    for (template, methods) in docs["paths"].as_object().unwrap() {
        let path = template.replace("{clientid}", "c").replace("{topic}", "t");
        let path = path.replace("{as}", "clientid").replace("{who}", "c");
        for method in methods.as_object().unwrap().keys() {
            for head in heads {
                let mut stream = tokio::net::TcpStream::connect(running.node.http_address()).await.unwrap();
                let key = tombolo::admin::base64::encode(running.key.as_bytes());
                let method = method.to_uppercase();
                let request =
                    format!("{method} {path} HTTP/1.0\r\n{head}\r\nAuthorization: Basic {key}\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.0 403"), "{method} {path} with {head}: {answer}");
            }
        }
    }
    running.node.stop().await;
}
