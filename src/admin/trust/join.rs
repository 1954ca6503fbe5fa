//! `link create NAME --token …`: the side that holds the token. It looks for the issuer, shows its certificate and the token, and
//! stores the issuer as its peer once that has said yes. Nothing is stored before, so nothing has to be rolled back; whoever
//! lost the answer asks again with the same token (`trust.md` 2.4).

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::admin::rest::Changes;
use crate::admin::rest::Problem;
use crate::admin::trust;
use crate::admin::trust::Applied;
use crate::admin::trust::TrustChange;
use crate::broker::link_keys::LinkKeys;
use crate::config::settings::ServerAddr;
use crate::config::settings::Told;
use crate::net::clock;
use crate::net::enroll::Purpose;
use crate::net::enroll::client;
use crate::net::enroll::client::NotFound;
use crate::net::enroll::client::Why;
use crate::net::random;
use crate::trust::Fingerprint;
use crate::trust::Token;
use crate::trust::book::Join;
use crate::trust::book::TrustError;
use crate::trust::enroll::Accepted;
use crate::trust::enroll::Answer;
use crate::trust::enroll::Request;
use crate::trust::rights::OperatorRights;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The token.
    pub token: Token,
    /// The name of the issuer, as the operator knows it.
    pub name: Option<String>,
    /// The issuer's certificate, as the operator was told of it in another way.
    pub fingerprint: Option<Fingerprint>,
    /// In which groups the issuer will be.
    pub groups: Vec<String>,
    /// What is wanted of it.
    pub topics: Vec<String>,
    /// Where the issuer reaches us, instead of our listeners' addresses.
    pub addrs: Vec<ServerAddr>,
    /// Where we reach the issuer, instead of what the token says.
    pub remote: Vec<ServerAddr>,
    /// What it is for.
    pub description: String,
    /// Who asks.
    pub operator: String,
    /// What they may do, and so what they may let the issuer do.
    pub rights: OperatorRights,
    /// Whether the issuer may be known already, with another certificate.
    pub replace: bool,
    /// Whether only we dial, and lend the issuer the connections that it needs. The token may say so too.
    pub unidirectional: bool,
}

impl Order {
    fn join(&self) -> Join<'_> {
        Join {
            name: self.name.as_deref(),
            groups: &self.groups,
            description: &self.description,
            replace: self.replace,
            ..Join::of(&self.token, &self.operator)
        }
    }

    fn is_unidirectional(&self) -> bool {
        self.unidirectional || self.token.unidirectional
    }

    fn servers(&self) -> &[ServerAddr] {
        if self.remote.is_empty() { &self.token.addrs } else { &self.remote }
    }
}

/// Carries it out. What is answered.
///
/// # Errors
/// Why there is no link.
pub async fn join(changes: &Changes, keys: &Arc<LinkKeys>, order: Order) -> Result<Value, Problem> {
    if let Some(expected) = order.fingerprint.filter(|expected| *expected != order.token.fingerprint) {
        let whose = format!("{} in the token", order.token.cluster);
        return Err(TrustError::Mismatch { whose, shown: order.token.fingerprint, expected }.into());
    }
    let order = Arc::new(order);
    let request = prepare(changes, &order).await?;
    let own = keys.current().ok_or_else(|| trust::failed("there is no link certificate"))?;
    let pins = [order.token.fingerprint.0];
    let found =
        client::find(order.servers(), &Told::default(), &pins, &own, Purpose::Enroll, client::FIND_TIME)
            .await
            .map_err(|not_found| unreachable_issuer(&order, &not_found))?;
    let server = found.server.clone();
    found.passed.iter().for_each(|passed| tracing::warn!(%passed, "an address of the token was passed over"));
    let answer = found.ask(&request.encode(), client::ANSWER_TIME).await;
    let answer = answer.map_err(|error| unanswered(&server, &error.to_string()))?;
    let answer = Answer::parse(&answer).map_err(|error| unanswered(&server, &error.to_string()))?;
    let accepted = match answer {
        Answer::Ok(accepted) => accepted,
        Answer::Error { code, text } => return Err(TrustError::Refused { code, text }.into()),
    };
    if let Some(skew) = accepted.skew(clock::now().unix_ms / 1000) {
        tracing::warn!(skew, "enrolment");
    }
    if order.is_unidirectional() && !accepted.caps.iter().any(|cap| cap == trust::REVERSE) {
        let message = format!(
            "{} takes no connections that are lent to it: it has to be able to dial us",
            order.token.cluster
        );
        return Err(Problem::conflict(message));
    }
    let waits = accepted.pending_approval;
    accept(changes, &order, request, accepted, &server).await?;
    Ok(json!({
        "name": order.token.cluster,
        "server": server.to_string(),
        "fingerprint": order.token.fingerprint.to_string(),
        "topics": order.topics,
        "pending_approval": waits,
        "unidirectional": order.is_unidirectional(),
    }))
}

/// Checks the order against the book, and says what to ask.
async fn prepare(changes: &Changes, order: &Arc<Order>) -> Result<Request, Problem> {
    let made = Arc::new(Mutex::new(None));
    let (asked, out) = (Arc::clone(order), Arc::clone(&made));
    let apply = move |book: &mut trust::Book, own: &trust::Own<'_>, now| {
        book.check_join(own, &asked.join(), now)?;
        book.check_may_grant(&asked.groups, &asked.rights)?;
        let addrs = addresses(own, &asked)?;
        *out.lock() = Some(Request::of(&asked.token, own.prefix, addrs, own.caps, random::bytes()));
        Ok(Applied::default())
    };
    trust::ask(changes, TrustChange { name: "link_join_check", apply: Box::new(apply) }).await?;
    let request = made.lock().take();
    request.ok_or_else(|| trust::failed("no request was made"))
}

/// Where the issuer reaches us: nowhere, if only we dial.
fn addresses<'a>(own: &trust::Own<'a>, asked: &'a Order) -> Result<&'a [ServerAddr], TrustError> {
    let addrs = match (asked.is_unidirectional(), asked.addrs.is_empty()) {
        (true, true) => return Ok(&[]),
        (true, false) => return Err(TrustError::Usage("--address: only this cluster dials".to_owned())),
        (false, true) => own.addrs,
        (false, false) => &asked.addrs[..],
    };
    if addrs.is_empty() {
        return Err(TrustError::Usage(
            "the peer has to reach this cluster, and no listener of role link with TLS is bound to an address that tells \
             where: give --address HOST:PORT, or --unidirectional if nobody can reach it"
                .to_owned(),
        ));
    }
    Ok(addrs)
}

/// Stores the issuer, and the link to it.
async fn accept(
    changes: &Changes,
    order: &Arc<Order>,
    request: Request,
    accepted: Accepted,
    server: &ServerAddr,
) -> Result<Value, Problem> {
    let (order, source) = (Arc::clone(order), server.to_string());
    let apply = move |book: &mut trust::Book, own: &trust::Own<'_>, now| {
        let answer = (&request, &accepted);
        let joined = book.accept_peer(own, &order.join(), answer, &source, random::bytes(), now)?;
        let servers = if order.remote.is_empty() && !accepted.addrs.is_empty() {
            &accepted.addrs[..]
        } else {
            order.servers()
        };
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let mut link = json!({
            "server": servers.join(","),
            "topics": order.topics,
            "clientid": request.prefix,
            "trust": "pin",
        });
        if order.is_unidirectional() {
            link["dialled_by"] = "us".into();
        }
        let edit = LinkEdit { name: order.token.cluster.clone(), change: LinkChange::Ensure(link) };
        Ok(Applied { answer: Value::Null, events: joined.events, links: vec![edit] })
    };
    trust::ask(changes, TrustChange { name: "link_join", apply: Box::new(apply) }).await
}

fn unreachable_issuer(order: &Order, not_found: &NotFound) -> Problem {
    use axum::http::StatusCode;
    let (status, code) = if not_found.is_mismatch() {
        (StatusCode::BAD_GATEWAY, "FINGERPRINT_MISMATCH")
    } else if not_found.0.iter().any(|passed| matches!(passed.why, Why::NotOpen)) {
        // The right server, which awaits nobody.
        (StatusCode::CONFLICT, "TOKEN_OVER")
    } else {
        (StatusCode::BAD_GATEWAY, "PEER_UNREACHABLE")
    };
    Problem::new(status, code, format!("{}: {not_found}", order.token.cluster))
}

fn unanswered(server: &ServerAddr, error: &str) -> Problem {
    let message = format!("{server}: {error}; it may have accepted all the same: use the same token again");
    Problem::new(axum::http::StatusCode::BAD_GATEWAY, "PEER_UNREACHABLE", message)
}
