//! Tests of the book, by what is done with it; here is what they share.

use crate::auth::certificate::CertificateError;
use crate::auth::peer::PeerRule;
use crate::trust::Fingerprint;
use crate::trust::Token;
use crate::trust::address;
use crate::trust::address::ServerAddr;
use crate::trust::enroll::Accepted;
use crate::trust::enroll::Answer;
use crate::trust::enroll::Code;
use crate::trust::enroll::Request;
use crate::trust::identity::Kind;
use crate::trust::identity::State;
use crate::trust::leaf::Leaf;

use super::*;

mod grants;
mod join;
mod manage;
mod model;
mod redeem;
mod rotate;
mod stored;
mod tokens;

/// A moment to begin with.
const NOW: u64 = 1_767_323_045;
const MINUTES_15: u64 = 900;
const SOURCE: &str = "192.0.2.7:4711";

/// What a cluster is but for its book.
struct Cluster {
    name: &'static str,
    prefix: String,
    certificate: u8,
    addrs: Vec<ServerAddr>,
    caps: Vec<String>,
    configured: Vec<PeerRule>,
}

impl Cluster {
    fn own(&self) -> Own<'_> {
        Own {
            cluster: self.name,
            prefix: &self.prefix,
            fingerprint: Fingerprint([self.certificate; 32]),
            also: &[],
            addrs: &self.addrs,
            caps: &self.caps,
            token_lifetime: crate::trust::token::LIFETIME_SECONDS,
            configured: &self.configured,
        }
    }

    fn leaf(&self) -> Leaf {
        leaf(self.certificate)
    }

    /// What this cluster asks the issuer of a token.
    fn asks(&self, token: &Token) -> Request {
        Request::of(token, &self.prefix, &self.addrs, &self.caps, [9; 16])
    }
}

fn cluster(name: &'static str, certificate: u8) -> Cluster {
    Cluster {
        name,
        prefix: name::default_prefix(name),
        certificate,
        addrs: address::parse_all(&[format!("{}.example.net:8883", name.to_ascii_lowercase())], false)
            .unwrap(),
        caps: vec!["heartbeat_ack".to_owned()],
        configured: Vec::new(),
    }
}

fn leaf(byte: u8) -> Leaf {
    Leaf {
        sha256: Fingerprint([byte; 32]),
        not_before: NOW - 1_000,
        not_after: NOW + 31_536_000,
        fit: Ok(()),
    }
}

/// Issues a token with bytes that are told by a number.
fn issue(
    book: &mut Book,
    own: &Own<'_>,
    new: &NewLink<'_>,
    number: u8,
    now: u64,
) -> Result<Token, TrustError> {
    book.issue(own, new, [number; 16], [number; 32], now).map(|issued| issued.token)
}

fn token_for(book: &mut Book, own: &Own<'_>, name: &str) -> Token {
    issue(book, own, &NewLink::named(name, "ada"), name.as_bytes()[0], NOW).unwrap()
}

fn code(redeemed: &Redeemed) -> Option<Code> {
    match &redeemed.answer {
        Answer::Ok(_) => None,
        Answer::Error { code, .. } => Some(code.clone()),
    }
}

fn accepted(redeemed: Redeemed) -> Accepted {
    match redeemed.answer {
        Answer::Ok(accepted) => accepted,
        Answer::Error { code, text } => panic!("{code}: {text}"),
    }
}

/// A cluster A whose book has B as an active peer with certificate 2.
fn linked() -> (Cluster, Book) {
    let (a, b, mut book) = (cluster("A", 1), cluster("B", 2), Book::default());
    let token = token_for(&mut book, &a.own(), "B");
    accepted(book.redeem(&a.own(), &b.asks(&token), &b.leaf(), SOURCE, NOW + 1));
    (a, book)
}

/// A peer of the configuration, with or without a proof.
fn rule(name: &str, certificate: Option<u8>) -> PeerRule {
    PeerRule {
        cluster: name.to_owned(),
        clientid_prefix: name::default_prefix(name),
        cert_sha256: certificate.map(|byte| [byte; 32]).into_iter().collect(),
        ..PeerRule::default()
    }
}

/// The operation is refused and has changed nothing.
fn refused<T: std::fmt::Debug>(
    book: &mut Book,
    act: impl FnOnce(&mut Book) -> Result<T, TrustError>,
) -> TrustError {
    let before = book.clone();
    let error = act(book).unwrap_err();
    assert_eq!(*book, before, "{error}");
    error
}
