//! What is in the book, as JSON. No secret is in it, so that none can be shown.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::admin::rfc3339;
use crate::admin::trust::Book;
use crate::trust::address;
use crate::trust::book::Outbound;
use crate::trust::book::PendingToken;
use crate::trust::book::TokenState;
use crate::trust::group::Entitlement;
use crate::trust::group::Group;
use crate::trust::group::Permission;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::Pin;
use crate::trust::identity::Role;
use crate::trust::rights::OperatorRights;
use crate::trust::rights::TopicGrant;

fn moment(at: Option<u64>) -> Value {
    at.map_or(Value::Null, |at| rfc3339::format(at).into())
}

/// A token.
pub(super) fn token(token: &PendingToken, now: u64) -> Value {
    let state = match token.state {
        TokenState::Issued if token.is_pending(now) => "pending",
        TokenState::Issued => "expired",
        TokenState::Used(_) => "used",
        TokenState::Burnt => "burnt",
        TokenState::Revoked => "revoked",
    };
    let used_by = match token.state {
        TokenState::Used(by) => json!(by.to_string()),
        _ => Value::Null,
    };
    json!({
        "id": token.id.to_string(),
        "identity": token.identity.to_string(),
        "name": token.issued_for,
        "state": state,
        "used_by": used_by,
        "expires": rfc3339::format(token.expires),
        "attempts": token.attempts,
        "issuer": token.issuer,
        "groups": token.groups,
        "prefix": token.prefix,
        "approve": token.approve,
        "expect_fingerprint": token.expect_fingerprint.map(|print| print.to_string()),
    })
}

/// A pin that was set by hand.
pub(super) fn pin(pin: &Outbound) -> Value {
    json!({
        "name": pin.name,
        "fingerprint": pin.fingerprint.to_string(),
        "addresses": address::texts(&pin.addrs),
        "created": rfc3339::format(pin.created),
        "created_by": pin.created_by,
    })
}

/// The word for it in a path.
pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Link => "link",
        Kind::Admin => "admin",
    }
}

/// An identity, with what its groups come to.
pub(super) fn identity(book: &Book, one: &Identity) -> Value {
    let pins: Vec<Value> = one.fingerprints.iter().map(fingerprint).collect();
    json!({
        "authentication_method": "tls",
        "kind": kind(one.kind),
        "type": one.kind_text(),
        "name": one.name,
        "identifier": one.identifier(),
        "id": one.id.to_string(),
        "state": one.shown_state().name(),
        "prefix": one.prefix,
        "groups": one.groups,
        "fingerprints": pins,
        "expires_at": moment(one.pin(Role::Current).and_then(|pin| pin.not_after)),
        "addresses": address::texts(&one.addrs),
        "capabilities": one.caps,
        "rights": rights(book, one),
        "created": rfc3339::format(one.created),
        "created_by": one.created_by,
        "activated": moment(one.activated),
        "activated_from": one.activated_from,
        "last_seen": moment(one.last_seen),
        "last_address": one.last_addr,
        "notes": one.notes,
        "description": one.description,
    })
}

fn fingerprint(pin: &Pin) -> Value {
    let role = match pin.role {
        Role::Current => "current",
        Role::Next => "next",
        Role::Previous => "previous",
    };
    json!({
        "fingerprint": pin.sha256.to_string(),
        "role": role,
        "not_after": moment(pin.not_after),
        "until": moment(pin.until),
    })
}

/// The effective rights, whatever group they come from.
fn rights(book: &Book, one: &Identity) -> Value {
    let topics = |granted: &[TopicGrant]| -> Vec<Value> {
        granted.iter().map(|one| json!({"filter": one.filter, "qos": one.qos_max})).collect()
    };
    match one.kind {
        Kind::Link => {
            let rights = book.rights_of_link(&one.name);
            json!({
                "can_forward": rights.can_forward,
                "can_sync_routes": rights.can_sync_routes,
                "can_import": topics(&rights.import),
                "can_export": topics(&rights.export),
            })
        }
        Kind::Admin => operator_rights(&book.operator_rights(one)),
    }
}

/// What somebody may do here, as granted.
pub(super) fn operator_rights(rights: &OperatorRights) -> Value {
    let names = |all: &mut dyn Iterator<Item = &Entitlement>| -> Vec<&str> {
        all.map(|entitlement| entitlement.name()).collect()
    };
    let links: Map<String, Value> =
        rights.links.iter().map(|(link, all)| (link.clone(), json!(names(&mut all.iter())))).collect();
    json!({"server": names(&mut rights.server.iter()), "links": links})
}

/// A group, and who is in it.
pub(super) fn group(book: &Book, name: &str, group: &Group) -> Value {
    json!({
        "name": name,
        "description": group.description,
        "built_in": name == crate::trust::group::LINK_PEER,
        "permissions": group.permissions.iter().map(permission).collect::<Vec<_>>(),
        "members": book.members(name),
    })
}

fn permission(permission: &Permission) -> Value {
    json!({
        "permission": permission.to_string(),
        "entity": permission.entity.kind().to_string(),
        "name": permission.entity.name(),
        "url": permission.entity.url(),
        "entitlement": permission.entitlement.name(),
        "qos": permission.qos_max,
    })
}
