//! What clusters that know each other say about trust (`trust.md` 2.6): that a link is removed, and which certificate comes next.
//! Each statement goes over a connection of its own, on which both show their link certificates.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::timeout;

use crate::admin::rest::Problem;
use crate::admin::trust;
use crate::admin::trust::Applied;
use crate::admin::trust::TrustChange;
use crate::broker::enrolment::Asked;
use crate::broker::link_client::ConnectError;
use crate::broker::links::Link;
use crate::broker::links::Links;
use crate::config::settings::DialledBy;
use crate::config::settings::ServerAddr;
use crate::config::settings::Told;
use crate::config::told;
use crate::net::clock;
use crate::net::enroll::Purpose;
use crate::net::enroll::client;
use crate::net::own_certificate::OwnCertificate;
use crate::net::transport::Transport;
use crate::trust::Fingerprint;
use crate::trust::book::Book;
use crate::trust::book::Seen;
use crate::trust::book::TrustError;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::Role;
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
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    way: Way,
    pins: Vec<[u8; 32]>,
}

/// How a peer is reached.
#[derive(Debug)]
enum Way {
    /// There.
    Dial(Vec<ServerAddr>, Told),
    /// Only it dials: over a connection that it has lent us, of which there was one or will be.
    Lent(Mutex<Option<Transport>>, Arc<Link>),
}

/// How the peer of this identity could be told something, and by which certificates it is known. No connection is taken yet.
fn find(book: &Book, links: &Links, one: &Identity, now: u64) -> Result<(Way, Vec<[u8; 32]>), &'static str> {
    let pins = book.pins(&one.name, now);
    if one.kind != Kind::Link || !one.is_active() || pins.is_empty() {
        return Err("it is not trusted");
    }
    let link = links.get(&one.name);
    if let Some(link) = link.as_ref().filter(|link| link.settings.dialled_by == DialledBy::Peer) {
        return Ok((Way::Lent(Mutex::default(), Arc::clone(link)), pins));
    }
    // Where an operator has us dial it, else where it said that it is.
    let (servers, told) = match link {
        Some(link) => (link.settings.servers.clone(), link.settings.told.clone()),
        None => (one.addrs.clone(), told(one, &[])),
    };
    if servers.is_empty() {
        return Err("no address of it is known, and it lends no connection: only its operator can tell it");
    }
    Ok((Way::Dial(servers, told), pins))
}

impl Listener {
    /// The peer of this identity, as of this moment. Of the connections that it has lent us one is taken.
    ///
    /// # Errors
    /// Why it cannot be told anything.
    pub fn of(book: &Book, links: &Links, one: &Identity, now: u64) -> Result<Self, &'static str> {
        let (way, pins) = find(book, links, one, now)?;
        if let Way::Lent(held, link) = &way {
            // Those that wait go with the link.
            *held.lock() = link.incoming.room.pop(&pins, clock::now());
        }
        Ok(Self { name: one.name.clone(), way, pins })
    }

    /// Whether there is a way to tell the peer of this identity.
    #[must_use]
    pub fn can_be(book: &Book, links: &Links, one: &Identity, now: u64) -> bool {
        find(book, links, one, now).is_ok()
    }

    /// Says it. What was answered, if that is not that the peer has heard.
    ///
    /// # Errors
    /// Why it was not told, or not heard.
    async fn tell(&self, own: &Arc<OwnCertificate>, statement: &Statement) -> Result<(), String> {
        let request = statement.encode();
        let answer = match &self.way {
            Way::Dial(servers, told) => {
                let found = client::find(servers, told, &self.pins, own, Purpose::Statement, FIND_TIME).await;
                let found = found.map_err(|not_found| not_found.to_string())?;
                found.ask(&request, client::ANSWER_TIME).await
            }
            Way::Lent(held, link) => {
                let held = held.lock().take();
                let lent = match held {
                    Some(lent) => lent,
                    None => timeout(FIND_TIME, link.incoming.room.take(&self.pins))
                        .await
                        .map_err(|_| ConnectError::NoneLent.to_string())?,
                };
                client::ask(lent, &request, client::ANSWER_TIME).await
            }
        };
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
        let shown = Fingerprint::of(&asked.certificate);
        // Nobody else is told anything.
        let not_trusted = || TrustError::Denied("not trusted".to_owned());
        let peer = book.by_fingerprint(&shown.0, now).filter(|one| one.kind == Kind::Link);
        let name = peer.map(|one| one.name.clone()).ok_or_else(not_trusted)?;
        // The next certificate is in use from here on, if it is that one.
        let rotated = book.seen(shown, &asked.source.to_string(), now);
        let peer = book.link(&name).cloned().ok_or_else(not_trusted)?;
        // The one before is good for connections a while longer, but it may have been replaced because it was stolen: whoever has
        // it must not say what comes next.
        if peer.pin(Role::Current).is_none_or(|pin| pin.sha256 != shown) {
            return Err(TrustError::Denied("that certificate was replaced".to_owned()));
        }
        let mut events = match rotated {
            Seen::Rotated(event) => vec![event],
            Seen::Known { .. } | Seen::Unknown => Vec::new(),
        };
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
                    return Ok(Applied { answer: HEARD.into(), events, ..Applied::default() }); // said again
                }
                book.rotate_begin(own, &peer.name, &next, rotation.until, now)?
            }
        };
        events.push(event);
        Ok(Applied { answer: HEARD.into(), events, links: Vec::new() })
    };
    TrustChange { name: "statement", apply: Box::new(apply) }
}

fn refused(error: rotation::StatementError) -> TrustError {
    TrustError::Denied(error.to_string())
}

/// Whether whoever shows this certificate is a peer, and may be listened to.
#[must_use]
pub fn is_known(book: &Book, certificate: &[u8], now: u64) -> bool {
    book.by_fingerprint(&Fingerprint::of(certificate).0, now).is_some_and(|one| one.kind == Kind::Link)
}

/// What is answered.
#[must_use]
pub fn answer(outcome: Result<Value, Problem>) -> Vec<u8> {
    match outcome {
        Ok(_) => HEARD.as_bytes().to_vec(),
        Err(problem) => problem.message.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::ExtendedKeyUsagePurpose;
    use rcgen::KeyPair;
    use rcgen::SigningKey;
    use zeroize::Zeroizing;

    use super::*;
    use crate::net::address::PeerAddr;
    use crate::trust::book::NewIdentity;
    use crate::trust::leaf::Leaf;
    use crate::trust::leaf::Purpose as Of;

    struct Holder(KeyPair, Vec<u8>);

    impl Holder {
        fn new() -> Self {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let der = params.self_signed(&key).unwrap().der().to_vec();
            Self(key, der)
        }

        fn fingerprint(&self) -> Fingerprint {
            Fingerprint::of(&self.1)
        }

        /// Says that `next` follows.
        fn says(&self, next: &Self, until: u64) -> Asked {
            let ends = Ends { from: "B", to: "A" };
            let bytes = rotation::rotation_to_sign(ends, self.fingerprint(), next.fingerprint(), until);
            let (sig_by_old, sig_by_new) = (self.0.sign(&bytes).unwrap(), next.0.sign(&bytes).unwrap());
            let rotation = Rotation { next_cert: next.1.clone(), until, sig_by_old, sig_by_new };
            Asked {
                request: Zeroizing::new(Statement::Rotation(rotation).encode()),
                certificate: self.1.clone(),
                source: PeerAddr::Ip("192.0.2.7:4711".parse().unwrap()),
                listener: "ssl:links".into(),
                purpose: Purpose::Statement,
            }
        }
    }

    const NOW: u64 = 1_767_323_045;

    fn heard(book: &mut Book, asked: Asked) -> Result<usize, TrustError> {
        let own = trust::Own::bare("A", "clink-A-", Fingerprint([1; 32]));
        (hear(asked).apply)(book, &own, NOW).map(|applied| applied.events.len())
    }

    fn book_with(holder: &Holder) -> Book {
        let mut book = Book::default();
        let own = trust::Own::bare("A", "clink-A-", Fingerprint([1; 32]));
        let leaf = Leaf::read(&holder.1, Of::Link).unwrap();
        let new = NewIdentity {
            kind: Kind::Link,
            name: "B",
            prefix: None,
            groups: &[],
            addrs: &[],
            caps: &[],
            leaf: &leaf,
            description: "",
            operator: "ada",
        };
        book.create_identity(&own, &new, [2; 16], NOW).unwrap();
        book
    }

    #[test]
    fn who_has_the_certificate_before_says_nothing_of_the_next_one() {
        let (old, new, thief) = (Holder::new(), Holder::new(), Holder::new());
        let mut book = book_with(&old);
        assert_eq!(heard(&mut book, old.says(&new, NOW + 1_000)), Ok(1));
        assert_eq!(heard(&mut book, old.says(&new, NOW + 1_000)), Ok(0), "said again");
        // It is in use: the one before is good for connections only.
        assert!(matches!(book.seen(new.fingerprint(), "", NOW), Seen::Rotated(_)));
        assert!(book.by_fingerprint(&old.fingerprint().0, NOW).is_some());
        let before = book.clone();
        let denied = TrustError::Denied("that certificate was replaced".to_owned());
        assert_eq!(heard(&mut book, old.says(&thief, NOW + 1_000)), Err(denied));
        assert_eq!(book.link("B").unwrap().fingerprints, before.link("B").unwrap().fingerprints);
        let another = Holder::new();
        assert_eq!(heard(&mut book, new.says(&another, NOW + 1_000)), Ok(1));
    }

    #[test]
    fn the_next_certificate_is_in_use_once_it_says_something() {
        let (old, new, another) = (Holder::new(), Holder::new(), Holder::new());
        let mut book = book_with(&old);
        heard(&mut book, old.says(&new, NOW + 1_000)).unwrap();
        assert_eq!(heard(&mut book, new.says(&another, NOW + 1_000)), Ok(2));
    }

    #[test]
    fn whoever_is_no_peer_is_told_nothing() {
        let (peer, stranger) = (Holder::new(), Holder::new());
        let mut book = book_with(&peer);
        assert!(is_known(&book, &peer.1, NOW) && !is_known(&book, &stranger.1, NOW));
        let denied = TrustError::Denied("not trusted".to_owned());
        assert_eq!(heard(&mut book, stranger.says(&peer, NOW)), Err(denied));
    }

    #[test]
    fn a_request_is_not_shown() {
        let asked = Holder::new().says(&Holder::new(), NOW);
        assert!(!format!("{asked:?}").contains("request"));
    }
}
