//! Identities: who connections of peers are, and operators by certificate. Peers that the configuration knows are listed beside
//! them, and changed there.

use axum::http::StatusCode;
use serde_json::Value;
use serde_json::json;

use super::Applied;
use super::Book;
use super::LinkChange;
use super::LinkEdit;
use super::TrustChange;
use super::addresses;
use super::change;
use super::lacking_for_groups;
use super::listed;
use super::pinned_link;
use super::shown;
use crate::admin::rest::Answer;
use crate::admin::rest::Call;
use crate::admin::rest::HttpState;
use crate::admin::rest::Lacking;
use crate::admin::rest::Outcome;
use crate::admin::rest::Parameter;
use crate::admin::rest::Problem;
use crate::admin::rest::fields::Fields;
use crate::admin::trust::desk::link_to;
use crate::auth::certificate::fingerprint_hex;
use crate::config::duration;
use crate::config::settings::Link;
use crate::config::settings::Trust;
use crate::net::clock;
use crate::net::own_certificate::chain_from_pem;
use crate::net::random;
use crate::trust::book::Event;
use crate::trust::book::NewIdentity;
use crate::trust::book::TrustError;
use crate::trust::group::Entitlement;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::leaf::Leaf;
use crate::trust::leaf::Purpose;

/// Which identities.
pub(in crate::admin::rest) const FILTERS: &[Parameter] = &[Parameter {
    name: "unused",
    kind: "string",
    about: "only peers that were not seen for so long, such as 30d, nor are connected",
}];

/// `GET trust/identities`
pub(in crate::admin::rest) fn list(state: &HttpState, call: &Call) -> Outcome {
    let book = state.shelf.book();
    let links = state.broker.links.all();
    let configured = links.iter().map(|link| &link.settings);
    let configured = configured.filter(|link| link.trust == Trust::Configured).map(configured_peer);
    let identities = || book.identities();
    let mut all: Vec<Value> = match unused_for(call)? {
        None => identities().map(|one| shown::identity(&book, one)).chain(configured).collect(),
        Some(seconds) => {
            let until = (clock::now().unix_ms / 1000).saturating_sub(seconds);
            let connected =
                |name: &str| state.broker.links.get(name).is_some_and(|link| link.connections_in() > 0);
            let unused = identities().filter(|one| one.kind == Kind::Link && one.last_used() <= until);
            unused.filter(|one| !connected(&one.name)).map(|one| shown::identity(&book, one)).collect()
        }
    };
    all.retain(|one| lacking_to_see(call, &text(one, "kind"), &text(one, "name")).is_none());
    all.sort_by_key(|one| (text(one, "kind"), text(one, "name")));
    listed(call, all)
}

fn unused_for(call: &Call) -> Result<Option<u64>, Problem> {
    let Some(text) = call.query.value("unused") else { return Ok(None) };
    let time = duration(text).map_err(|error| Problem::bad_request(format!("unused: {error}")))?;
    Ok(Some(time.as_secs()))
}

/// Whoever may see a link may see its peer.
fn lacking_to_see(call: &Call, kind: &str, name: &str) -> Lacking {
    let all = call.lacks(Entitlement::Viewer);
    if kind == "link" { all.and_then(|_| call.lacks_on_link(name, Entitlement::CanView)) } else { all }
}

/// For `GET trust/identities/{type}/{name}`.
pub(in crate::admin::rest) fn lacking_to_show(call: &Call) -> Lacking {
    lacking_to_see(call, &call.item, &call.second)
}

/// To delete and to revoke: peers, or the one of a link; operators are for whoever says what they may do.
pub(in crate::admin::rest) fn lacking_to_remove(call: &Call) -> Lacking {
    let all = call.lacks(Entitlement::CanCreateIdentities);
    match call.item.as_str() {
        "link" => all.and_then(|_| call.lacks_on_link(&call.second, Entitlement::CanDelete)),
        _ => all.or_else(|| call.lacks(Entitlement::PermissionManager)),
    }
}

/// For `POST trust/identities`.
pub(in crate::admin::rest) fn lacking_to_create(call: &Call) -> Lacking {
    call.lacks(Entitlement::CanCreateIdentities).or_else(|| lacking_for_groups(call))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// A peer whose proof is in the configuration. It is no identity, and has no groups.
fn configured_peer(link: &Link) -> Value {
    let peer = &link.peer;
    let by_certificate = !peer.cert_sha256.is_empty() || peer.cert_cn.is_some();
    let (method, kind, identifier) = match (by_certificate, &peer.username) {
        (true, _) => {
            let print = peer.cert_sha256.first().map(|print| format!("sha256:{}", fingerprint_hex(print)));
            ("tls", "Link certificate", print.or_else(|| peer.cert_cn.clone()))
        }
        (false, Some(username)) => ("password", "Link password", Some(username.clone())),
        (false, None) => ("none", "Link without proof", None),
    };
    json!({
        "authentication_method": method,
        "kind": "link",
        "type": kind,
        "name": link.name,
        "identifier": identifier,
        "state": "CONFIGURED",
        "prefix": peer.clientid,
        "groups": [],
        "configured_at": link.written.0,
    })
}

/// `tls/B` is the link B, or the operator.
fn find<'b>(book: &'b Book, kind: &str, name: &str) -> Result<&'b Identity, Problem> {
    let found = match kind {
        "link" => book.link(name),
        "admin" => book.named(Kind::Admin, name),
        "tls" => book.link(name).or_else(|| book.named(Kind::Admin, name)),
        _ => None,
    };
    found.ok_or_else(|| Problem::not_found(format!("no identity {kind}/{name}")))
}

/// Which one is to be changed; it is there as of now.
fn target(state: &HttpState, call: &Call) -> Result<(Kind, String), Problem> {
    let book = state.shelf.book();
    find(&book, &call.item, &call.second).map(|one| (one.kind, one.name.clone()))
}

/// `GET trust/identities/{type}/{name}`
pub(in crate::admin::rest) fn show(state: &HttpState, call: &Call) -> Outcome {
    let book = state.shelf.book();
    find(&book, &call.item, &call.second).map(|one| Answer::Json(shown::identity(&book, one)))
}

/// What there is after a change.
fn after(book: &Book, kind: Kind, name: &str) -> Value {
    book.named(kind, name).map_or(Value::Null, |one| shown::identity(book, one))
}

/// `GET trust/self`: whoever asks.
pub(in crate::admin::rest) fn myself(state: &HttpState, call: &Call) -> Outcome {
    let book = state.shelf.book();
    let operator = call.caller.strip_prefix("operator ").and_then(|name| book.named(Kind::Admin, name));
    let mut shown = match operator {
        Some(one) => shown::identity(&book, one),
        None => {
            json!({"type": "Local", "name": call.caller, "identifier": null, "state": "ACTIVE", "groups": []})
        }
    };
    shown["rights"] = shown::operator_rights(&call.rights);
    Ok(Answer::Json(shown))
}

/// What an operator surely did not mean, told with the answer.
fn warned(mut answer: Value, book: &Book, kind: Kind, name: &str, leaf: Option<&Leaf>) -> Value {
    let mut warnings = Vec::new();
    warnings.extend(leaf.and_then(|leaf| leaf.long_lived(&format!("the certificate of {name}"))));
    let rights = book.rights_of_link(name);
    let is_idle = kind == Kind::Link && !rights.can_forward && !rights.can_sync_routes;
    if is_idle && book.link(name).is_some_and(Identity::is_active) {
        warnings
            .push(format!("{name} is in no group with `peer` on the link: it gets in and can do nothing"));
    }
    if !warnings.is_empty() {
        answer["warnings"] = warnings.into();
    }
    answer
}

/// `POST trust/identities`: of a certificate that was brought along.
pub(in crate::admin::rest) fn create(_state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let known = ["type", "name", "certificate", "groups", "prefix", "addresses", "topics", "description"];
    let fields = Fields::of(&call.body, &known)?;
    let (kind, purpose) = match fields.required("type")? {
        "link" => (Kind::Link, Purpose::Link),
        "admin" => (Kind::Admin, Purpose::Admin),
        _ => return Err(Problem::bad_request("type: link or admin")),
    };
    let name = fields.required("name")?.to_owned();
    let wrong = |error: &dyn std::fmt::Display| Problem::bad_request(format!("certificate: {error}"));
    let chain = chain_from_pem(fields.required("certificate")?).map_err(|error| wrong(&error))?;
    let der = chain.first().ok_or_else(|| wrong(&"there is none"))?;
    let leaf = Leaf::read(der, purpose).map_err(|error| wrong(&error))?;
    let groups = fields.texts("groups")?.unwrap_or_default();
    let prefix = fields.text("prefix")?.map(str::to_owned);
    let addrs = addresses(&fields, "addresses")?;
    let topics = fields.texts("topics")?.unwrap_or_default();
    let description = fields.text("description")?.unwrap_or_default().to_owned();
    let operator = call.caller.clone();
    if kind == Kind::Admin && (prefix.is_some() || !addrs.is_empty() || !topics.is_empty()) {
        return Err(Problem::bad_request("prefix, addresses and topics are for links"));
    }
    Ok(change("identity_create", move |book, own, now| {
        let new = NewIdentity {
            kind,
            name: &name,
            prefix: prefix.as_deref(),
            groups: &groups,
            addrs: &addrs,
            caps: &[],
            leaf: &leaf,
            description: &description,
            operator: &operator,
        };
        let (_, event) = book.create_identity(own, &new, random::bytes(), now)?;
        let links = if addrs.is_empty() { Vec::new() } else { vec![pinned_link(&name, &addrs, &topics)] };
        let answer = warned(after(book, kind, &name), book, kind, &name, Some(&leaf));
        Ok(Applied { answer, events: vec![event], links })
    }))
}

/// `PUT trust/identities/{type}/{name}`: what it is for, and its groups.
pub(in crate::admin::rest) fn update(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let fields = Fields::of(&call.body, &["description", "groups"])?;
    let description = fields.text("description")?.map(str::to_owned);
    let groups = fields.texts("groups")?;
    let (kind, name) = target(state, call)?;
    Ok(change("identity_edit", move |book, _, _| {
        let mut events = Vec::new();
        if let Some(description) = &description {
            events.push(book.describe_identity(kind, &name, description)?);
        }
        if let Some(groups) = &groups {
            events.extend(set_groups(book, kind, &name, groups)?);
        }
        let answer = warned(after(book, kind, &name), book, kind, &name, None);
        Ok(Applied { answer, events, links: Vec::new() })
    }))
}

fn set_groups(book: &mut Book, kind: Kind, name: &str, wanted: &[String]) -> Result<Vec<Event>, TrustError> {
    let has = book.named(kind, name).map(|one| one.groups.clone()).unwrap_or_default();
    let mut events = Vec::new();
    for group in wanted.iter().filter(|group| !has.contains(group)) {
        // Named twice, it is in it already.
        if book.named(kind, name).is_none_or(|one| !one.groups.contains(group)) {
            events.push(book.add_to_group(kind, name, group)?);
        }
    }
    for group in has.iter().filter(|group| !wanted.contains(group)) {
        events.push(book.remove_from_group(kind, name, group)?);
    }
    Ok(events)
}

/// `DELETE trust/identities/{type}/{name}`: with the link that it made.
pub(in crate::admin::rest) fn delete(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let ((kind, name), operator) = (target(state, call)?, call.caller.clone());
    Ok(change("identity_delete", move |book, _, _| {
        let event = book.delete_identity(kind, &name, &operator)?;
        let gone = LinkEdit { name: name.clone(), change: LinkChange::Withdraw };
        let links = if kind == Kind::Link { vec![gone] } else { Vec::new() };
        Ok(Applied { events: vec![event], links, ..Applied::default() })
    }))
}

/// `POST trust/identities/{type}/{name}/approve`: a peer that came with a token.
pub(in crate::admin::rest) fn approve(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let ((kind, name), operator) = (target(state, call)?, call.caller.clone());
    if kind != Kind::Link {
        let (status, code) = (StatusCode::CONFLICT, "CONFLICT");
        return Err(Problem::new(
            status,
            code,
            format!("{name} is an operator: there is nothing to approve"),
        ));
    }
    Ok(change("identity_approve", move |book, _, _| {
        let event = book.approve(&name, &operator)?;
        let links = book.link(&name).and_then(link_to).into_iter().collect();
        Ok(Applied { answer: after(book, kind, &name), events: vec![event], links })
    }))
}

/// `POST trust/identities/{type}/{name}/revoke`: it stays, so that nobody else can come with its certificate.
pub(in crate::admin::rest) fn revoke(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let ((kind, name), operator) = (target(state, call)?, call.caller.clone());
    Ok(change("identity_revoke", move |book, _, _| {
        let event = book.revoke(kind, &name, &operator)?;
        Ok(Applied { answer: after(book, kind, &name), events: vec![event], links: Vec::new() })
    }))
}
