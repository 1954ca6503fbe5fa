//! `link create NAME --token …`: the side that holds the token. It looks for the issuer, shows its certificate and the token, and
//! stores the issuer as its peer once that has said yes. Nothing is stored before, so nothing has to be rolled back; whoever
//! lost the answer asks again with the same token (`trust.md` 2.4).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use tokio::time;
use tokio::time::Instant;

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
use crate::net::enroll::client::Found;
use crate::net::enroll::client::NotFound;
use crate::net::enroll::client::Why;
use crate::net::own_certificate::OwnCertificate;
use crate::net::random;
use crate::time::moment as rfc3339;
use crate::trust::Fingerprint;
use crate::trust::Token;
use crate::trust::book::Join;
use crate::trust::book::TrustError;
use crate::trust::enroll::Accepted;
use crate::trust::enroll::Answer;
use crate::trust::enroll::Code;
use crate::trust::enroll::Request;
use crate::trust::leaf;
use crate::trust::leaf::Leaf;
use crate::trust::rights::OperatorRights;

/// How long an issuer that hangs up is asked again, and how long it is left alone in between: one a second is let in from an address.
const AGAIN_LIMIT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(1_100);

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
    let found = find(&order, &own).await.map_err(|not_found| unreachable_issuer(&order, &not_found))?;
    let leaf = found.certificate().and_then(|der| Leaf::read(der, leaf::Purpose::Link).ok());
    let server = found.server.clone();
    found.passed.iter().for_each(|passed| tracing::warn!(%passed, "an address of the token was passed over"));
    let answer = found.ask(&request.encode(), client::ANSWER_TIME).await;
    let answer = answer.map_err(|error| unanswered(&server, &error.to_string()))?;
    let answer = Answer::parse(&answer).map_err(|error| unanswered(&server, &error.to_string()))?;
    let accepted = match answer {
        Answer::Ok(accepted) => accepted,
        Answer::Error { code, text } => return Err(refused(code, text).into()),
    };
    let skew = accepted.skew(clock::now().unix_ms / 1000);
    if let Some(skew) = &skew {
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
    let not_after = leaf.map(|leaf| leaf.not_after);
    accept(changes, &order, (request, accepted), &server, not_after).await?;
    Ok(json!({
        "name": order.token.cluster,
        "server": server.to_string(),
        "fingerprint": order.token.fingerprint.to_string(),
        "topics": order.topics,
        "pending_approval": waits,
        "unidirectional": order.is_unidirectional(),
        "warning": skew,
    }))
}

/// The server of the token. One that hangs up was asked a moment ago, or is busy: for a while it is asked again.
async fn find(order: &Order, own: &Arc<OwnCertificate>) -> Result<Found, NotFound> {
    let (pins, until) = ([order.token.fingerprint.0], Instant::now() + AGAIN_LIMIT);
    // An operator has brought the token: its addresses may lead anywhere.
    let anywhere = Told::default();
    loop {
        match client::find(order.servers(), &anywhere, &pins, own, Purpose::Enroll, client::FIND_TIME).await {
            Err(not_found) if not_found.is_too_soon() && Instant::now() < until => time::sleep(AGAIN).await,
            outcome => return outcome,
        }
    }
}

/// The issuer's words. It is its clock that decides whether a token is over: so ours is told of as well.
fn refused(code: Code, text: String) -> TrustError {
    if code != Code::Expired {
        return TrustError::Refused { code, text };
    }
    let ours = rfc3339::format(clock::now().unix_ms / 1000);
    TrustError::Refused { code, text: format!("{text}; by the clock of this side it is {ours}") }
}

/// Checks the order against the book, and says what to ask.
async fn prepare(changes: &Changes, order: &Arc<Order>) -> Result<Request, Problem> {
    let made = Arc::new(Mutex::new(None));
    let (asked, out) = (Arc::clone(order), Arc::clone(&made));
    let apply = move |book: &mut trust::Book, own: &trust::Own<'_>, _| {
        book.check_join(own, &asked.join())?;
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
    (request, accepted): (Request, Accepted),
    server: &ServerAddr,
    not_after: Option<u64>,
) -> Result<Value, Problem> {
    let (order, source) = (Arc::clone(order), server.to_string());
    let apply = move |book: &mut trust::Book, own: &trust::Own<'_>, now| {
        let answer = (&request, &accepted);
        let join = Join { not_after, ..order.join() };
        let joined = book.accept_peer(own, &join, answer, &source, random::bytes(), now)?;
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
    let mut message = format!("{}: {not_found}", order.token.cluster);
    let now = clock::now().unix_ms / 1000;
    if code == "TOKEN_OVER" && order.token.is_expired(now) {
        let (end, ours) = (rfc3339::format(order.token.expires), rfc3339::format(now));
        message.push_str(&format!("; it was good until {end}, and by the clock of this side it is {ours}"));
    }
    Problem::new(status, code, message)
}

fn unanswered(server: &ServerAddr, error: &str) -> Problem {
    let message = format!("{server}: {error}; it may have accepted all the same: use the same token again");
    Problem::new(axum::http::StatusCode::BAD_GATEWAY, "PEER_UNREACHABLE", message)
}
