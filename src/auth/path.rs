//! Which certificates lead from a client's to an authority. Several paths may: authorities sign each other and renew their
//! keys, and a client shows whatever it likes. A step is one only if its signature proves it, so that what is shown beside
//! the path changes nothing: neither how long it is nor what is remembered of it.

use sha2::Digest;
use sha2::Sha256;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::auth::certificate::not_after;
use crate::auth::fitness;

/// A path of more steps than this is not followed: `depth` is ten at most.
const STEPS_MAX: usize = 16;
/// Signatures that are tried for one client, which could show many certificates of one name.
const SIGNATURES_MAX: usize = 32;

/// A key that is trusted, and the name it is trusted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    subject: Vec<u8>,
    key: Vec<u8>,
    /// By what it is told from others: SHA-256 over both.
    pub id: [u8; 32],
    /// First moment at which it has expired, in seconds since the Unix epoch.
    not_after_unix: i64,
}

impl Anchor {
    /// Of a certificate.
    #[must_use]
    pub fn new(certificate: &X509Certificate<'_>) -> Self {
        let (subject, key) = (certificate.subject().as_raw(), certificate.public_key().raw);
        let id = Sha256::new().chain_update(subject).chain_update(key).finalize().into();
        Self { subject: subject.to_vec(), key: key.to_vec(), id, not_after_unix: not_after(certificate) }
    }

    /// Whether it vouches for nobody any more.
    #[must_use]
    pub fn has_expired(&self, now_unix: i64) -> bool {
        self.not_after_unix <= now_unix
    }

    fn is(&self, certificate: &X509Certificate<'_>) -> bool {
        certificate.subject().as_raw() == self.subject && certificate.public_key().raw == self.key
    }
}

/// Why there is no path.
#[derive(Debug, PartialEq, Eq)]
pub enum NoPath<E> {
    /// These certificates lead nowhere.
    Missing,
    /// There is one, and it has more intermediates than allowed.
    TooLong,
    /// There is one, and the authority at its end has expired.
    Expired,
    /// There are some, and this is what was found against the first.
    Refused(E),
}

/// Looks for a path from `leaf` over at most `depth` of `others` to one of `anchors` that `accept` has nothing against,
/// which is given the positions of those others, from the leaf upwards. The anchor.
///
/// # Errors
/// Why there is none.
pub fn find<'a, E>(
    leaf: &[u8],
    others: &[&[u8]],
    anchors: &'a [Anchor],
    depth: usize,
    now_unix: i64,
    accept: impl FnMut(&[usize]) -> Result<(), E>,
) -> Result<&'a Anchor, NoPath<E>> {
    let Ok(leaf) = fitness::read(leaf) else { return Err(NoPath::Missing) };
    let read = others.iter().enumerate();
    let others: Vec<_> = read.filter_map(|(at, der)| Some((at, fitness::read(der).ok()?))).collect();
    let (signatures, why_not) = (SIGNATURES_MAX, NoPath::Missing);
    let mut search = Search { others: &others, anchors, depth, now_unix, signatures, why_not, accept };
    search.follow(&leaf, &mut Vec::new(), &mut vec![&leaf]).ok_or(search.why_not)
}

struct Search<'s, 'a, E, A> {
    others: &'s [(usize, X509Certificate<'s>)],
    anchors: &'a [Anchor],
    depth: usize,
    now_unix: i64,
    /// How many may still be tried.
    signatures: usize,
    why_not: NoPath<E>,
    accept: A,
}

impl<'s, 'a, E, A: FnMut(&[usize]) -> Result<(), E>> Search<'s, 'a, E, A> {
    /// Goes on from the last one of `path`, which is the leaf and then the `steps` so far.
    fn follow<'p>(
        &mut self,
        last: &'p X509Certificate<'p>,
        steps: &mut Vec<usize>,
        path: &mut Vec<&'p X509Certificate<'p>>,
    ) -> Option<&'a Anchor>
    where
        's: 'p,
    {
        let (anchors, others) = (self.anchors, self.others);
        let issuer = last.issuer().as_raw();
        for anchor in anchors.iter().filter(|anchor| anchor.subject == issuer) {
            let Ok((_, key)) = SubjectPublicKeyInfo::from_der(&anchor.key) else { continue };
            if self.has_signed(&key, last) && self.takes(steps, anchor) {
                return Some(anchor);
            }
        }
        if steps.len() == STEPS_MAX {
            return None;
        }
        for (at, next) in others.iter().filter(|(_, next)| next.subject().as_raw() == issuer) {
            // Through the key of an anchor goes no path that does not end there, and none goes in a circle.
            let known =
                anchors.iter().any(|anchor| anchor.is(next)) || path.iter().any(|one| same(one, next));
            if known || !self.has_signed(next.public_key(), last) {
                continue;
            }
            steps.push(*at);
            path.push(next);
            if let Some(anchor) = self.follow(next, steps, path) {
                return Some(anchor);
            }
            path.pop();
            steps.pop();
        }
        None
    }

    fn has_signed(&mut self, key: &SubjectPublicKeyInfo<'_>, certificate: &X509Certificate<'_>) -> bool {
        let Some(left) = self.signatures.checked_sub(1) else { return false };
        self.signatures = left;
        certificate.verify_signature(Some(key)).is_ok()
    }

    fn takes(&mut self, steps: &[usize], anchor: &Anchor) -> bool {
        let why_not = if steps.len() > self.depth {
            NoPath::TooLong
        } else if anchor.has_expired(self.now_unix) {
            NoPath::Expired
        } else {
            match (self.accept)(steps) {
                Ok(()) => return true,
                Err(error) => NoPath::Refused(error),
            }
        };
        if matches!(self.why_not, NoPath::Missing) {
            self.why_not = why_not;
        }
        false
    }
}

fn same(one: &X509Certificate<'_>, other: &X509Certificate<'_>) -> bool {
    one.subject().as_raw() == other.subject().as_raw() && one.public_key().raw == other.public_key().raw
}

#[cfg(test)]
mod tests;
