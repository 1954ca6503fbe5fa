//! Who asks, and whether they may: the admin socket and API keys may everything, an operator with a certificate what the groups of
//! that identity permit (`trust.md` 2.5).

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;

use super::Bound;
use super::Shared;
use super::tls::Peer;
use crate::admin::base64;
use crate::admin::rest::Access;
use crate::admin::rest::Call;
use crate::admin::rest::Permitted;
use crate::admin::rest::Problem;
use crate::admin::rest::Route;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::net::address::PeerAddr;
use crate::net::clock;
use crate::trust::group::Entitlement;
use crate::trust::identity::Kind;
use crate::trust::rights::OperatorRights;

/// Whoever asks.
#[derive(Debug)]
pub(super) struct Asker {
    /// For the log: an API key, an operator, or the admin socket.
    pub(super) name: String,
    /// What they may do.
    pub(super) rights: OperatorRights,
    /// By what they are known.
    pub(super) proof: Proof,
    /// From where they ask, if not by the admin socket.
    pub(super) source: Option<PeerAddr>,
}

/// By what whoever asks is known.
#[derive(Debug)]
pub(super) enum Proof {
    /// By the admin socket, or by nothing where nothing is needed.
    None,
    /// By an API key of this identifier.
    Key(String),
    /// By a certificate.
    Certificate(Peer),
}

impl Asker {
    fn admin(name: String, proof: Proof, source: Option<PeerAddr>) -> Self {
        Self { name, rights: OperatorRights::admin(), proof, source }
    }

    fn viewer(name: &str, source: Option<PeerAddr>) -> Self {
        let rights = OperatorRights { server: [Entitlement::Viewer].into(), ..OperatorRights::default() };
        Self { name: name.to_owned(), rights, proof: Proof::None, source }
    }
}

impl Shared {
    /// Whether whoever sent this may come in, and who it is.
    pub(super) fn admit(&self, access: Access, request: &Request) -> Result<Asker, Problem> {
        let bound = match self.bound {
            Bound::To(bound) => bound,
            Bound::AdminSocket => return Ok(Asker::admin("admin socket".to_owned(), Proof::None, None)),
            Bound::ViewerSocket => return Ok(Asker::viewer("viewer socket", None)),
        };
        let (headers, source) = (request.headers(), super::source(request));
        if let Some(operator) = super::peer(request).and_then(|peer| self.operator(peer)) {
            return Ok(operator);
        }
        let open = match access {
            Access::Open => true,
            Access::Metrics => self.state.metrics_open && bound.ip().to_canonical().is_loopback(),
            Access::Key => false,
        };
        if open {
            return Ok(Asker::viewer("anybody", source));
        }
        let refused = |code, message| Err(Problem::new(StatusCode::UNAUTHORIZED, code, message));
        if !headers.contains_key(header::AUTHORIZATION) {
            if !request.method().is_safe() {
                let what = What::LoginFail { method: "api_key" };
                let event = SecurityEvent { source, ..SecurityEvent::new(what, "no API key, for a change") };
                self.state.broker.security_event(&event, clock::now());
            }
            return refused("UNAUTHORIZED", "an API key is needed: see `tombolo auth key create`");
        }
        let claimed = credentials(headers);
        if let Some((id, _)) = claimed.as_ref().filter(|(id, secret)| self.state.keys.verify(id, secret)) {
            return Ok(Asker::admin(format!("api_key {id}"), Proof::Key(id.clone()), source));
        }
        let event = SecurityEvent {
            identity: claimed.as_ref().map(|(id, _)| id.as_str()),
            source,
            ..SecurityEvent::new(What::LoginFail { method: "api_key" }, "no such API key, or not its secret")
        };
        self.state.broker.security_event(&event, clock::now());
        refused("BAD_API_KEY_OR_SECRET", "no such API key, or not its secret")
    }

    /// The operator whose certificate was shown, as the book has it now.
    fn operator(&self, peer: &Peer) -> Option<Asker> {
        let book = self.state.shelf.book();
        let one = book.by_fingerprint(&peer.certificate?, clock::now().unix_ms / 1000)?;
        (one.kind == Kind::Admin).then(|| Asker {
            name: format!("operator {}", one.name),
            rights: book.operator_rights(one),
            proof: Proof::Certificate(*peer),
            source: Some(PeerAddr::Ip(peer.address)),
        })
    }

    /// What tells whether whoever asked may still use a route that names no link: as long as the API key is there, or the operator
    /// has the right.
    pub(super) fn still(self: &Arc<Self>, proof: Proof, route: &'static Route) -> Permitted {
        let shared = Arc::clone(self);
        let may = move |rights| route.needs.lacked_by(&Call { rights, ..Call::default() }).is_none();
        Permitted(Box::new(move || match &proof {
            Proof::None => true,
            Proof::Key(id) => shared.state.keys.has(id),
            Proof::Certificate(peer) => shared.operator(peer).is_some_and(|operator| may(operator.rights)),
        }))
    }

    /// It is written down who wanted more than they may, and said which permission they lack.
    pub(super) fn denied(
        &self,
        route: &Route,
        call: &Call,
        source: Option<PeerAddr>,
        lacking: &str,
    ) -> Problem {
        let what = What::AuthzFail { action: "admin", topic: route.path };
        let event =
            SecurityEvent { identity: Some(&call.caller), source, ..SecurityEvent::new(what, &call.item) };
        self.state.broker.security_event(&event, clock::now());
        let message = format!("{} may not do this: it takes the permission {lacking}", call.caller);
        Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }
}

/// `Authorization: Basic`, once.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(base64::decode(encoded.trim())?).ok()?;
    text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}
