//! Trust between clusters (`trust.md` 2.2 to 2.6): tokens, joining with one, identities, groups, pins, and the link certificate.
//! What is there is read from the book in force; a change goes to whoever runs the broker, and is answered once it is stored.

pub(super) mod groups;
pub(super) mod identities;
mod shown;

use axum::http::StatusCode;
use serde_json::Value;
use serde_json::json;
use zeroize::Zeroizing;

use super::Answer;
use super::Call;
use super::HttpState;
use super::Lacking;
use super::Outcome;
use super::Paging;
use super::Problem;
use super::fields::Fields;
use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::admin::rfc3339;
use crate::admin::trust::Applied;
use crate::admin::trust::Book;
use crate::admin::trust::TrustChange;
use crate::admin::trust::certificate::NewCertificate;
use crate::admin::trust::join::Order;
use crate::broker::inspect::Page;
use crate::config;
use crate::config::settings::ServerAddr;
use crate::net::clock;
use crate::net::own_certificate::OwnCertificate;
use crate::net::random;
use crate::trust::Fingerprint;
use crate::trust::Token;
use crate::trust::Uuid;
use crate::trust::address;
use crate::trust::book::NewLink;
use crate::trust::book::OVERLAP_SECONDS_MAX;
use crate::trust::book::Outbound;
use crate::trust::group::Entitlement;
use crate::trust::identity::Kind;

/// The moment, in seconds since the Unix epoch.
fn now() -> u64 {
    clock::now().unix_ms / 1000
}

/// 201 with what was made.
pub(super) fn created(answer: Value) -> Answer {
    Answer::Status(StatusCode::CREATED, answer)
}

/// 200 with what there is now.
pub(super) fn changed(answer: Value) -> Answer {
    Answer::Json(answer)
}

/// 204.
pub(super) fn done(_answer: Value) -> Answer {
    Answer::Nothing
}

/// EMQX's envelope around a list that is at hand.
fn listed(call: &Call, mut items: Vec<Value>) -> Outcome {
    let paging = Paging::of(call)?;
    let (count, window) = (items.len(), paging.window());
    items = items.into_iter().skip(window.start).take(window.len()).collect();
    Ok(paging.wrap(&Page { items, count }, Value::clone))
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    text.parse().map_err(|error: crate::auth::certificate::CertificateError| error.to_string())
}

/// Addresses with their ports; none if the field is not there.
fn addresses(fields: &Fields<'_>, field: &str) -> Result<Vec<ServerAddr>, Problem> {
    let texts = fields.texts(field)?.unwrap_or_default();
    address::parse_all(&texts, true)
        .ok_or_else(|| Problem::bad_request(format!("{field}: at most 16 of host:port or [v6]:port")))
}

fn change(
    name: &'static str,
    apply: impl FnOnce(
        &mut Book,
        &crate::admin::trust::Own<'_>,
        u64,
    ) -> Result<Applied, crate::trust::book::TrustError>
    + Send
    + 'static,
) -> TrustChange {
    TrustChange { name, apply: Box::new(apply) }
}

/// What a link is made of that identities complete: unless there is one.
fn pinned_link(name: &str, servers: &[ServerAddr], topics: &[String]) -> LinkEdit {
    let servers = address::texts(servers).join(",");
    let link = json!({"server": servers, "topics": topics, "trust": "pin"});
    LinkEdit { name: name.to_owned(), change: LinkChange::Ensure(link) }
}

/// `GET trust/tokens`: never a secret.
pub(super) fn tokens(state: &HttpState, call: &Call) -> Outcome {
    let (book, now) = (state.shelf.book(), now());
    listed(call, book.tokens().map(|token| shown::token(token, now)).collect())
}

/// For `POST trust/tokens`.
pub(super) fn lacking_to_issue(call: &Call) -> Lacking {
    let name = call.body["name"].as_str().unwrap_or_default();
    let of_link = call.lacks_on_link(name, Entitlement::CanIssueToken);
    call.lacks(Entitlement::CanCreateIdentities)
        .filter(|_| of_link.is_some())
        .or_else(|| lacking_for_groups(call))
}

/// For `POST trust/join`: it makes an identity, and a link.
pub(super) fn lacking_to_join(call: &Call) -> Lacking {
    let identity = call.lacks(Entitlement::CanCreateIdentities);
    identity.or_else(|| call.lacks(Entitlement::CanCreateLinks)).or_else(|| lacking_for_groups(call))
}

/// Whoever says in which groups an identity is says what it may do.
fn lacking_for_groups(call: &Call) -> Lacking {
    if has_groups(call) { call.lacks(Entitlement::PermissionManager) } else { None }
}

/// For `POST trust/certificate/rotate`: whether `can_rotate` is there on any link.
pub(super) fn lacking_to_rotate(call: &Call) -> Lacking {
    let has_any = call.rights.links.keys().any(|name| call.rights.on_link(name, Entitlement::CanRotate));
    if has_any { None } else { call.lacks(Entitlement::Admin) }
}

/// The link certificate is that of all links: `can_rotate` is needed on each that lives by an identity.
pub(in crate::admin) fn lacking_for_rotation(state: &HttpState, call: &Call) -> Lacking {
    call.lacks(Entitlement::Admin)?;
    let book = state.shelf.book();
    let mut links = book.identities().filter(|one| one.kind == Kind::Link && one.is_active());
    links.find_map(|one| call.lacks_on_link(&one.name, Entitlement::CanRotate))
}

/// Without any it is in the group of all peers, which permits no topic.
fn has_groups(call: &Call) -> bool {
    call.body["groups"].as_array().is_none_or(|groups| !groups.is_empty())
        && call.body.get("groups").is_some()
}

/// `POST trust/tokens`: the only time that the token is shown.
pub(super) fn issue(_state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let fields = Fields::of(
        &call.body,
        &[
            "name",
            "groups",
            "expiry",
            "addresses",
            "description",
            "prefix",
            "approve",
            "expect_fingerprint",
            "replace",
            "unidirectional",
            "i_know",
        ],
    )?;
    let name = fields.required("name")?.to_owned();
    let groups = fields.texts("groups")?.unwrap_or_default();
    let addrs = addresses(&fields, "addresses")?;
    let lifetime = fields.read("expiry", |text| config::duration(text).map(|time| time.as_secs()))?;
    let description = fields.text("description")?.unwrap_or_default().to_owned();
    let prefix = fields.text("prefix")?.map(str::to_owned);
    if prefix.is_some() && !call.rights.on_server(Entitlement::Admin) {
        // It reserves Client Identifiers, those of applications too.
        let message = "prefix: only an administrator of the server may choose one";
        return Err(Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    let expect_fingerprint = fields.read("expect_fingerprint", fingerprint)?;
    let (approve, replace, i_know) =
        (fields.flag("approve")?, fields.flag("replace")?, fields.flag("i_know")?);
    let unidirectional = fields.flag("unidirectional")?;
    let issuer = call.caller.clone();
    Ok(change("token_create", move |book, own, now| {
        let new = NewLink {
            prefix: prefix.as_deref(),
            groups: &groups,
            addrs: &addrs,
            lifetime,
            i_know,
            description: &description,
            approve,
            expect_fingerprint,
            replace,
            unidirectional,
            ..NewLink::named(&name, &issuer)
        };
        let issued = book.issue(own, &new, random::bytes(), random::bytes(), now)?;
        let answer = json!({
            "name": name,
            "id": issued.token.id.to_string(),
            "identity": issued.identity.to_string(),
            "fingerprint": issued.token.fingerprint.to_string(),
            "addresses": address::texts(&issued.token.addrs),
            "unidirectional": unidirectional,
            "expires": rfc3339::format(issued.token.expires),
            "token": issued.text.0.as_str(),
        });
        Ok(Applied { answer, events: vec![issued.event], links: Vec::new() })
    }))
}

/// `DELETE trust/tokens/{id}`
pub(super) fn revoke_token(_state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let not_found = || Problem::not_found(format!("{}: no such token", call.item));
    let id = Uuid::parse(&call.item).ok_or_else(not_found)?;
    Ok(change("token_revoke", move |book, _, _| book.revoke_token(id).map(Applied::event)))
}

/// `POST trust/join`
pub(super) fn join(call: &Call) -> Result<Order, Problem> {
    let fields = Fields::of(
        &call.body,
        &[
            "token",
            "name",
            "fingerprint",
            "groups",
            "topics",
            "addresses",
            "remote_addresses",
            "description",
            "replace",
            "unidirectional",
        ],
    )?;
    let token = fields.required("token")?;
    Ok(Order {
        token: Token::parse(token).map_err(|error| Problem::bad_request(format!("token: {error}")))?,
        name: fields.text("name")?.map(str::to_owned),
        fingerprint: fields.read("fingerprint", fingerprint)?,
        groups: fields.texts("groups")?.unwrap_or_default(),
        topics: fields.texts("topics")?.unwrap_or_default(),
        addrs: addresses(&fields, "addresses")?,
        remote: addresses(&fields, "remote_addresses")?,
        description: fields.text("description")?.unwrap_or_default().to_owned(),
        operator: call.caller.clone(),
        rights: call.rights.clone(),
        replace: fields.flag("replace")?,
        unidirectional: fields.flag("unidirectional")?,
    })
}

/// `GET trust/pins`
pub(super) fn pins(state: &HttpState, call: &Call) -> Outcome {
    let book = state.shelf.book();
    listed(call, book.outbound().map(shown::pin).collect())
}

/// `POST trust/pins`: servers of this certificate are trusted, on the operator's word.
pub(super) fn pin(_state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let fields = Fields::of(&call.body, &["name", "fingerprint", "addresses", "topics", "replace"])?;
    let pin = Outbound {
        name: fields.required("name")?.to_owned(),
        fingerprint: fields
            .read("fingerprint", fingerprint)?
            .ok_or_else(|| Problem::bad_request("fingerprint: this is required"))?,
        addrs: addresses(&fields, "addresses")?,
        created: now(),
        created_by: call.caller.clone(),
    };
    let (topics, replace) = (fields.texts("topics")?.unwrap_or_default(), fields.flag("replace")?);
    Ok(change("link_trust", move |book, own, now| {
        let pin = Outbound { created: now, ..pin };
        let answer = shown::pin(&pin);
        let link = pinned_link(&pin.name, &pin.addrs, &topics);
        let event = book.trust_outbound(own, pin, replace)?;
        Ok(Applied { answer, events: vec![event], links: vec![link] })
    }))
}

/// `DELETE trust/pins/{name}`
pub(super) fn unpin(_state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let name = call.item.clone();
    Ok(change("link_distrust", move |book, _, _| book.distrust_outbound(&name).map(Applied::event)))
}

/// `GET trust/certificate`: the link certificate, without its key.
pub(super) fn certificate(state: &HttpState, _call: &Call) -> Outcome {
    let not_found = || Problem::not_found("there is no link certificate yet: it is made when one is needed");
    let keys = state.link_keys.as_ref().ok_or_else(not_found)?;
    let current = keys.current().ok_or_else(not_found)?;
    let mut answer = shown_certificate(&current);
    answer["next"] = keys.next().map_or(Value::Null, |next| shown_certificate(&next));
    answer["rotation"] = state.rotation.show(keys);
    Ok(Answer::Json(answer))
}

pub(in crate::admin) fn shown_certificate(own: &OwnCertificate) -> Value {
    let moment = |unix: i64| rfc3339::format(u64::try_from(unix).unwrap_or(0));
    json!({
        "fingerprint": Fingerprint(own.fingerprint()).to_string(),
        "not_before": moment(own.not_before_unix()),
        // The last second in which it is valid.
        "not_after": moment(own.not_after_unix().saturating_sub(1)),
        "pem": own.pem(),
    })
}

/// `POST trust/certificate/rotate`: for how long both certificates are good.
pub(super) fn rotate(call: &Call) -> Result<u64, Problem> {
    let fields = Fields::of(&call.body, &["overlap"])?;
    fields.required("overlap")?;
    let overlap = fields.read("overlap", |text| config::duration(text).map(|time| time.as_secs()))?;
    let overlap = overlap.unwrap_or_default();
    if overlap > OVERLAP_SECONDS_MAX {
        let days = OVERLAP_SECONDS_MAX / 86_400;
        return Err(Problem::bad_request(format!("overlap: at most {days} days")));
    }
    Ok(overlap)
}

/// `PUT trust/certificate`: another one with its key. Either text may hold both.
pub(super) fn import(call: &Call) -> Result<NewCertificate, Problem> {
    let fields = Fields::of(&call.body, &["certificate", "key"])?;
    let text = |field| fields.required(field).map(|text| Zeroizing::new(text.to_owned()));
    Ok(NewCertificate { certificates: text("certificate")?, key: text("key")? })
}
