//! What clusters that know each other say about trust (`trust.md` 2.6): that a link is removed, and which certificate comes next.
//! Each statement goes over a connection of its own, on which both show their link certificates.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::admin::rest::Problem;
use crate::admin::trust;
use crate::admin::trust::Applied;
use crate::admin::trust::TrustChange;
use crate::broker::enrolment::Asked;
use crate::config::settings::ServerAddr;
use crate::net::clock;
use crate::net::enroll::Purpose;
use crate::net::enroll::client;
use crate::net::own_certificate::OwnCertificate;
use crate::trust::Fingerprint;
use crate::trust::book::Book;
use crate::trust::book::TrustError;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::rotation;
use crate::trust::rotation::Ends;
use crate::trust::rotation::Removal;
use crate::trust::rotation::Rotation;
use crate::trust::rotation::Statement;

/// How long a peer is looked for.
const FIND_TIME: Duration = Duration::from_secs(5);
/// The answer of a peer that has heard.
const HEARD: &str = "heard";

/// A peer that is to be told something.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name.
    pub name: String,
    servers: Vec<ServerAddr>,
    pins: Vec<[u8; 32]>,
}

impl Listener {
    /// The peer of this identity, as of this moment; `None` if nobody knows where it is.
    #[must_use]
    pub fn of(book: &Book, one: &Identity, now: u64) -> Option<Self> {
        let pins = book.pins(&one.name, now);
        let reachable =
            one.kind == Kind::Link && one.is_active() && !one.addrs.is_empty() && !pins.is_empty();
        reachable.then(|| Self { name: one.name.clone(), servers: one.addrs.clone(), pins })
    }

    /// Says it. What was answered, if that is not that the peer has heard.
    ///
    /// # Errors
    /// Why it was not told, or not heard.
    async fn tell(&self, own: &Arc<OwnCertificate>, statement: &Statement) -> Result<(), String> {
        let found = client::find(&self.servers, &self.pins, own, Purpose::Statement, FIND_TIME).await;
        let found = found.map_err(|not_found| not_found.to_string())?;
        let answer = found.ask(&statement.encode(), client::ANSWER_TIME).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer == HEARD.as_bytes() { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
    }
}

/// Tells a peer that we have removed the link. It still decides itself; if it cannot be told, it finds out.
///
/// # Errors
/// Why it does not know.
pub async fn tell_removal(own: &Arc<OwnCertificate>, cluster: &str, peer: &Listener) -> Result<(), String> {
    let (at, ends) = (clock::now().unix_ms / 1000, Ends { from: cluster, to: &peer.name });
    let signed = rotation::removal_to_sign(ends, Fingerprint(own.fingerprint()), at);
    let sig = own.sign(&signed).map_err(|error| error.to_string())?;
    peer.tell(own, &Statement::Removal(Removal { at, sig })).await
}

/// Tells a peer of our next certificate. The one in force is good until then.
///
/// # Errors
/// Why it does not know.
pub async fn tell_next(
    own: &Arc<OwnCertificate>,
    next: &OwnCertificate,
    cluster: &str,
    peer: &Listener,
    until: u64,
) -> Result<(), String> {
    let ends = Ends { from: cluster, to: &peer.name };
    let (old, new) = (Fingerprint(own.fingerprint()), Fingerprint(next.fingerprint()));
    let signed = rotation::rotation_to_sign(ends, old, new, until);
    let sign = |one: &OwnCertificate| one.sign(&signed).map_err(|error| error.to_string());
    let (sig_by_old, sig_by_new) = (sign(own)?, sign(next)?);
    let rotation = Rotation { next_cert: next.der().to_vec(), until, sig_by_old, sig_by_new };
    peer.tell(own, &Statement::Rotation(rotation)).await
}

/// What a peer has said, as a change of the book. Its answer says that it was heard; anything else says why not.
#[must_use]
pub fn hear(asked: Asked) -> TrustChange {
    let apply = move |book: &mut Book, own: &trust::Own<'_>, now| {
        let peer = book.by_fingerprint(&Fingerprint::of(&asked.certificate).0, now);
        let peer = peer.filter(|one| one.kind == Kind::Link).cloned();
        // Nobody else is told anything.
        let peer = peer.ok_or_else(|| TrustError::Denied("not trusted".to_owned()))?;
        let statement = Statement::parse(&asked.request).map_err(refused)?;
        let ends = Ends { from: &peer.name, to: own.cluster };
        let event = match statement {
            Statement::Removal(removal) => {
                let since = peer.activated.unwrap_or(peer.created);
                removal.verify(ends, &asked.certificate, since, now).map_err(refused)?;
                book.peer_removed_us(&peer.name)?
            }
            Statement::Rotation(rotation) => {
                let next = rotation.verify(ends, &asked.certificate).map_err(refused)?;
                let is_known = peer.fingerprints.iter().any(|pin| pin.sha256 == next.sha256);
                if is_known {
                    return Ok(Applied { answer: HEARD.into(), ..Applied::default() }); // said again
                }
                book.rotate_begin(own, &peer.name, &next, rotation.until, now)?
            }
        };
        Ok(Applied { answer: HEARD.into(), events: vec![event], links: Vec::new() })
    };
    TrustChange { name: "statement", apply: Box::new(apply) }
}

fn refused(error: rotation::StatementError) -> TrustError {
    TrustError::Denied(error.to_string())
}

/// What is answered.
#[must_use]
pub fn answer(outcome: Result<Value, Problem>) -> Vec<u8> {
    match outcome {
        Ok(_) => HEARD.as_bytes().to_vec(),
        Err(problem) => problem.message.into_bytes(),
    }
}
