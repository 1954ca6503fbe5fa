//! Where clusters come with a token: each request is a change of the book, made by whoever runs the broker, and is answered once
//! that is stored.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use serde_json::Value;
use serde_json::json;

use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::admin::rest::Changes;
use crate::admin::trust;
use crate::admin::trust::Applied;
use crate::admin::trust::Shelf;
use crate::admin::trust::TrustChange;
use crate::admin::trust::statements;
use crate::broker::enrolment::Asked;
use crate::broker::enrolment::EnrollDesk;
use crate::broker::link_keys::LinkKeys;
use crate::net::clock;
use crate::net::enroll::Purpose;
use crate::net::enroll::server;
use crate::trust::address;
use crate::trust::book::Redeemed;
use crate::trust::enroll::Answer;
use crate::trust::enroll::Code;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;

/// TLS for this purpose with the certificate of this fingerprint.
type Shown = (Purpose, [u8; 32], Arc<ServerConfig>);

/// See the module.
pub struct Desk {
    changes: Changes,
    shelf: Arc<Shelf>,
    keys: Arc<LinkKeys>,
    tls: Mutex<Vec<Shown>>,
}

impl Desk {
    /// A desk of the broker that `changes` leads to.
    #[must_use]
    pub fn new(changes: Changes, shelf: Arc<Shelf>, keys: Arc<LinkKeys>) -> Self {
        Self { changes, shelf, keys, tls: Mutex::default() }
    }

    async fn answer(&self, asked: Asked) -> Vec<u8> {
        let source = asked.source.to_string();
        let apply = move |book: &mut trust::Book, own: &trust::Own<'_>, now| {
            let redeemed: Redeemed = book.redeem_bytes(own, &asked.request, &asked.certificate, &source, now);
            let links = redeemed.peer.as_deref().and_then(link_to).into_iter().collect();
            let answer = Value::from(String::from_utf8_lossy(&redeemed.answer.encode()).into_owned());
            Ok(Applied { answer, events: redeemed.events, links })
        };
        let change = TrustChange { name: "enrol", apply: Box::new(apply) };
        match trust::ask(&self.changes, change).await {
            Ok(Value::String(answer)) => answer.into_bytes(),
            outcome => {
                // The token is as it was: the peer may try again.
                tracing::error!(?outcome, "an enrolment could not be stored");
                Answer::error(Code::Busy, "this cluster could not store it: try again").encode()
            }
        }
    }
}

impl EnrollDesk for Desk {
    fn is_open(&self, purpose: Purpose) -> bool {
        let book = self.shelf.book();
        match purpose {
            Purpose::Enroll => book.pending(clock::now().unix_ms / 1000),
            Purpose::Statement | Purpose::Reverse => {
                book.identities().any(|one| one.kind == Kind::Link && one.is_active())
            }
        }
    }

    fn tls(&self, purpose: Purpose) -> Option<Arc<ServerConfig>> {
        let own = self.keys.current()?;
        let mut shown = self.tls.lock();
        shown.retain(|(_, fingerprint, _)| *fingerprint == own.fingerprint());
        if let Some((_, _, tls)) = shown.iter().find(|(of, _, _)| *of == purpose) {
            return Some(Arc::clone(tls));
        }
        let made = server::tls(&own, purpose);
        let tls = made.inspect_err(|error| tracing::error!(%error, "TLS of enrolments")).ok()?;
        shown.push((purpose, own.fingerprint(), Arc::clone(&tls)));
        Some(tls)
    }

    fn awaited(&self) -> Vec<String> {
        let (book, now) = (self.shelf.book(), clock::now().unix_ms / 1000);
        book.tokens().filter(|token| token.is_pending(now)).map(|token| token.issued_for.clone()).collect()
    }

    fn redeem(self: Arc<Self>, asked: Asked) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> {
        Box::pin(async move {
            match asked.purpose {
                Purpose::Enroll => self.answer(asked).await,
                // Whoever is no peer does not get as far as a change, of which there is one at a time.
                Purpose::Statement
                    if !statements::is_known(
                        &self.shelf.book(),
                        &asked.certificate,
                        clock::now().unix_ms / 1000,
                    ) =>
                {
                    b"not trusted".to_vec()
                }
                Purpose::Statement => {
                    statements::answer(trust::ask(&self.changes, statements::hear(asked)).await)
                }
                // There is no request on such a connection: the broker takes it.
                Purpose::Reverse => Vec::new(),
            }
        })
    }
}

/// Makes the links that identities with an address lack, after an enrolment that was cut short.
pub(in crate::admin) fn missing_links() -> TrustChange {
    let apply = |book: &mut trust::Book, _: &trust::Own<'_>, _| {
        let links = book.identities().filter(|one| one.kind == Kind::Link).filter_map(link_to).collect();
        Ok(Applied { links, ..Applied::default() })
    };
    TrustChange { name: "links", apply: Box::new(apply) }
}

/// The link to a peer that has come: it wants nothing yet, and an operator says what. Where the peer has named what is not dialled
/// for it, the link says so.
pub(in crate::admin) fn link_to(peer: &Identity) -> Option<LinkEdit> {
    // Who came with a token and said no address cannot be dialled.
    let dials = peer.addrs.is_empty() && peer.caps.iter().any(|cap| cap == trust::REVERSE);
    if !peer.is_active() || (peer.addrs.is_empty() && !dials) {
        return None;
    }
    let servers = address::texts(&peer.addrs);
    let link = if dials {
        json!({"dialled_by": "peer", "topics": [], "trust": "pin"})
    } else {
        json!({"server": servers.join(","), "topics": [], "trust": "pin"})
    };
    Some(LinkEdit { name: peer.name.clone(), change: LinkChange::Ensure(link) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::ServerAddr;
    use crate::trust::Uuid;
    use crate::trust::identity::State;

    fn peer(source: &str, addresses: &[&str]) -> Identity {
        let address = |host: &&str| ServerAddr { host: (*host).to_owned(), port: 8883 };
        Identity {
            id: Uuid::from_random([1; 16]),
            kind: Kind::Link,
            state: State::Active,
            name: "B".to_owned(),
            prefix: "clink-B-".to_owned(),
            fingerprints: Vec::new(),
            groups: Vec::new(),
            addrs: addresses.iter().map(address).collect(),
            caps: Vec::new(),
            created: 1,
            created_by: String::new(),
            activated: Some(1),
            activated_from: Some(source.to_owned()),
            last_seen: None,
            last_addr: None,
            notes: Vec::new(),
            description: String::new(),
        }
    }

    #[test]
    fn a_peer_that_can_only_dial_gets_a_link_for_which_it_does() {
        let mut dials = peer("192.0.2.1:4711", &[]);
        assert!(link_to(&dials).is_none(), "it said nothing of lending connections");
        dials.caps = vec![trust::REVERSE.to_owned()];
        let LinkChange::Ensure(link) = link_to(&dials).unwrap().change else { unreachable!() };
        assert_eq!(link, json!({"dialled_by": "peer", "topics": [], "trust": "pin"}));
        dials.addrs = peer("", &["192.0.2.1"]).addrs;
        let LinkChange::Ensure(link) = link_to(&dials).unwrap().change else { unreachable!() };
        assert_eq!(link["server"], "192.0.2.1:8883");
    }
}
