//! The OpenAPI 3.1 document, made from the table of routes.

mod trust;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Access;
use super::Answer;
use super::Call;
use super::HttpState;
use super::Method;
use super::Outcome;
use super::Route;
use super::routes;

/// `GET /api-docs.json`
pub(super) fn show(_state: &HttpState, _call: &Call) -> Outcome {
    Ok(Answer::Json(document()))
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[method(route.method)] = operation(route);
    }
    let mut schemas = json!({
        "Problem": problem(),
        "Publish": publish(),
        "Publishes": list_of("Publish"),
        "Subscribe": subscribe(),
        "Subscribes": list_of("Subscribe"),
        "Unsubscribe": unsubscribe(),
        "Unsubscribes": list_of("Unsubscribe"),
        "Ban": ban(),
        "Link": link(),
        "AclText": acl_text(),
        "AclQuestion": acl_question(),
        "ClientIds": {"type": "array", "items": {"type": "string"}},
    });
    for (name, schema) in trust::schemas() {
        schemas[name] = schema;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tombolo",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "basic", "description": "API key and secret"}},
            "schemas": schemas,
        },
    })
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
    }
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    for name in parameters_of(route.path) {
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    }
    for parameter in route.query.iter().flat_map(|group| group.iter()) {
        let schema = json!({"type": parameter.kind});
        parameters.push(
            json!({"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema}),
        );
    }
    let mut operation = json!({
        "summary": route.about,
        "parameters": parameters,
        "responses": responses(route),
        "security": if route.access == Access::Open { json!([]) } else { json!([{"key": []}]) },
    });
    if let Some(name) = route.body {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn responses(route: &Route) -> Value {
    let problem = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let mut responses = Map::new();
    for (status, about) in route.answers {
        let mut response = json!({"description": about});
        if *status >= 400 && route.access != Access::Open {
            response["content"] = problem.clone();
        }
        responses.insert(status.to_string(), response);
    }
    let mut refusals = vec![(403, "A foreign Host or Origin")];
    if route.access != Access::Open {
        refusals.push((401, "No API key, or a wrong one"));
    }
    if !route.query.is_empty() || route.body.is_some() {
        refusals.push((400, "A parameter or the body is wrong"));
    }
    if route.body.is_some() {
        refusals.extend([(413, "The body is too long"), (415, "The body is not JSON")]);
    }
    for (status, about) in refusals {
        responses.insert(status.to_string(), json!({"description": about, "content": problem}));
    }
    Value::Object(responses)
}

/// The names between the braces of a path.
fn parameters_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn problem() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["code", "message"], "properties": {"code": text, "message": text}})
}

fn acl_text() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["text"],
        "additionalProperties": false,
        "properties": {"text": text, "name": text},
    })
}

fn acl_question() -> Value {
    let (text, flag) = (json!({"type": "string"}), json!({"type": "boolean", "default": false}));
    json!({
        "type": "object",
        "required": ["clientid", "action", "topic"],
        "additionalProperties": false,
        "properties": {
            "clientid": text,
            "action": {"enum": ["publish", "subscribe"]},
            "topic": text,
            "qos": {"enum": [0, 1, 2], "default": 0},
            "retain": flag,
            "username": text,
            "peerhost": text,
            "listener": text,
            "common_name": text,
            "fingerprint": text,
            "client_attrs": {"type": "object", "additionalProperties": text},
            "is_superuser": flag,
        },
    })
}

fn ban() -> Value {
    let text = json!({"type": "string"});
    let moment =
        json!({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]});
    json!({
        "type": "object",
        "required": ["as", "who"],
        "additionalProperties": false,
        "properties": {
            "as": {"enum": [
                "clientid", "username", "peerhost", "clientid_re", "username_re", "peerhost_net", "fingerprint",
            ]},
            "who": text,
            "by": text,
            "reason": text,
            "at": moment,
            "until": {"oneOf": [moment, {"const": "infinity"}]},
        },
    })
}

/// The settings of `[[cluster.links]]`, and EMQX's own beside them.
fn link() -> Value {
    let (text, flag, count) =
        (json!({"type": "string"}), json!({"type": "boolean"}), json!({"type": "integer"}));
    let texts = json!({"type": "array", "items": text});
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let size = json!({"oneOf": [text, count]});
    json!({
        "type": "object",
        "required": ["server", "topics"],
        "properties": {
            "name": text,
            "enable": flag,
            "server": text,
            "clientid": text,
            "username": text,
            "password": text,
            "topics": texts,
            "export": texts,
            "relay": flag,
            "reach": texts,
            "retained": flag,
            "pool_size": count,
            "max_inflight": {"oneOf": [text, count]},
            "trust": {"enum": ["config", "pin", "ca"]},
            "peer": object(json!({
                "clientid": text,
                "username": text,
                "cert_sha256": texts,
                "cert_cn": text,
                "allow_unauthenticated": flag,
            })),
            "quota": object(json!({
                "connections": count,
                "actors": count,
                "routes": count,
                "messages_rate": text,
                "bytes_rate": text,
            })),
            "spool": object(json!({
                "max_bytes": size,
                "max_age": text,
                "on_full": {"enum": ["drop_oldest", "drop_new", "refuse"]},
                "qos0": flag,
            })),
            "ssl": object(json!({
                "enable": flag,
                "cacertfile": text,
                "certfile": text,
                "keyfile": text,
                "password": text,
                "cert_sha256": texts,
                "verify": {"enum": ["verify_peer", "verify_none"]},
                "server_name_indication": text,
                "allow_insecure": flag,
            })),
            "retry_interval": text,
            "tcp_opts": {"type": "object"},
            "resource_opts": object(json!({"request_ttl": text, "max_buffer_bytes": size})),
        },
    })
}

fn list_of(name: &str) -> Value {
    json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")}})
}

fn subscribe() -> Value {
    let flag = json!({"enum": [0, 1], "default": 0});
    let three = json!({"enum": [0, 1, 2], "default": 0});
    json!({
        "type": "object",
        "required": ["topic"],
        "additionalProperties": false,
        "properties": {"topic": {"type": "string"}, "qos": three, "nl": flag, "rap": flag, "rh": three},
    })
}

fn unsubscribe() -> Value {
    json!({
        "type": "object",
        "required": ["topic"],
        "additionalProperties": false,
        "properties": {"topic": {"type": "string"}},
    })
}

fn publish() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["topic", "payload"],
        "additionalProperties": false,
        "properties": {
            "topic": text,
            "payload": text,
            "payload_encoding": {"enum": ["plain", "base64"], "default": "plain"},
            "qos": {"enum": [0, 1, 2], "default": 0},
            "retain": {"type": "boolean", "default": false},
            "clientid": {"deprecated": true},
            "properties": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "payload_format_indicator": {"enum": [0, 1]},
                    "message_expiry_interval": {"type": "integer", "minimum": 0},
                    "response_topic": text,
                    "correlation_data": text,
                    "content_type": text,
                    "user_properties": {"type": "object", "additionalProperties": text},
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route_and_nothing_else() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let documented: usize = paths.values().map(|methods| methods.as_object().unwrap().len()).sum();
        assert_eq!(documented, routes().count(), "no route is there twice");
        for route in routes() {
            let operation = &paths[route.path][method(route.method)];
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{}", route.path);
            assert!(!operation["responses"].as_object().unwrap().is_empty());
            assert_eq!(operation["requestBody"].is_object(), route.body.is_some());
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn visit(value: &Value, document: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    object.values().for_each(|value| visit(value, document));
                }
                Value::Array(array) => array.iter().for_each(|value| visit(value, document)),
                _ => {}
            }
        }
        let document = document();
        visit(&document, &document);
    }
}
