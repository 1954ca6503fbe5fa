//! The bodies of requests about trust.

use serde_json::Value;
use serde_json::json;

/// Their schemas by name.
pub(super) fn schemas() -> [(&'static str, Value); 10] {
    let (text, flag) = (json!({"type": "string"}), json!({"type": "boolean"}));
    let texts = json!({"type": "array", "items": text});
    let object = |required: &[&str], properties: Value| {
        json!({
            "type": "object",
            "required": required,
            "additionalProperties": false,
            "properties": properties,
        })
    };
    let token = json!({
        "name": text,
        "groups": texts,
        "expiry": text,
        "addresses": texts,
        "description": text,
        "prefix": text,
        "approve": flag,
        "expect_fingerprint": text,
        "replace": flag,
        "i_know": flag,
    });
    let join = json!({
        "token": text,
        "name": text,
        "fingerprint": text,
        "groups": texts,
        "topics": texts,
        "addresses": texts,
        "remote_addresses": texts,
        "description": text,
        "replace": flag,
    });
    let identity = json!({
        "type": {"enum": ["link", "admin"]},
        "name": text,
        "certificate": text,
        "groups": texts,
        "prefix": text,
        "addresses": texts,
        "topics": texts,
        "description": text,
    });
    let pin = json!({
        "name": text,
        "fingerprint": text,
        "addresses": texts,
        "topics": texts,
        "replace": flag,
    });
    [
        ("TokenOrder", object(&["name"], token)),
        ("JoinOrder", object(&["token"], join)),
        ("NewIdentity", object(&["type", "name", "certificate"], identity)),
        ("IdentityChange", object(&[], json!({"description": text, "groups": texts}))),
        ("NewGroup", object(&["name"], json!({"name": text, "description": text}))),
        ("GroupChange", object(&[], json!({"name": text, "description": text}))),
        ("Permission", object(&["permission"], json!({"permission": text}))),
        ("Pin", object(&["name", "fingerprint", "addresses"], pin)),
        ("Rotation", object(&["overlap"], json!({"overlap": text}))),
        ("CertificatePair", object(&["certificate", "key"], json!({"certificate": text, "key": text}))),
    ]
}
