//! Which client certificates a listener takes (authn-tls.md section 1): those that lead to an authority of `cacertfile`
//! and that no revocation list names, or those that are pinned; and of these, the ones fit for their purpose.
//!
//! The pins of clusters that enrolled, and the revocation lists, are swapped while connections are accepted. A listener that is to check them and has none yet
//! takes nobody.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::AlertDescription;
use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::Error;
use rustls::OtherError;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use sha2::Digest;
use sha2::Sha256;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::auth::certificate;
use crate::auth::certificate::CertificateFacts;
use crate::auth::certificate::revocation_key;
use crate::auth::fitness;
use crate::auth::fitness::Demands;
use crate::auth::path;
use crate::auth::path::Anchor;
use crate::auth::path::NoPath;
use crate::net::crypto::Signatures;
use crate::net::crypto::provider;
use crate::net::pin::check_pinned;

tokio::task_local! {
    /// What the handshake of this task has been shown.
    pub(super) static SHOWN: RefCell<Shown>;
}

/// A client's certificate in a handshake.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Which one it is, for whoever tells of its failure.
    pub(super) fingerprint: Option<[u8; 32]>,
    /// What was verified of it, if it was found to be somebody's.
    pub(super) facts: Option<Result<CertificateFacts, certificate::CertificateError>>,
}

/// How a certificate was found to be somebody's.
enum Verified<'a> {
    ByPin,
    ByPath(Vec<CertificateDer<'a>>, &'a Anchor),
}

/// The certificates of `cacertfile`, sorted.
#[derive(Debug)]
pub(super) struct Anchors {
    /// What is trusted.
    pub(super) store: Arc<RootCertStore>,
    /// All of them: issuers of revocation lists.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// Those that are not trusted by themselves, but may lead to one that is.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// The keys that are trusted.
    pub(super) keys: Vec<Anchor>,
}

/// How a certificate is found to be somebody's.
#[derive(Debug)]
pub(super) enum Proof {
    /// By one of these fingerprints; its chain is not looked at.
    Pins(Vec<[u8; 32]>),
    /// By a chain of at most so many intermediates to an authority.
    Chain {
        /// The authorities.
        anchors: Anchors,
        /// Intermediate certificates allowed.
        depth: usize,
        /// Whether revocation lists decide too.
        revocation: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct ClientTrust {
    proof: Proof,
    demands: Demands,
    mandatory: bool,
    hints: Vec<DistinguishedName>,
    signatures: Signatures,
    lists: RwLock<Arc<Lists>>,
    enrolled: RwLock<Arc<HashSet<[u8; 32]>>>,
}

/// The revocation lists in force.
#[derive(Debug, Default)]
struct Lists {
    /// `None`: there are no lists where there must be some.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    revoked: HashSet<[u8; 32]>,
    next_update_unix: Option<i64>,
    made: Arc<Made>,
}

/// When the newest list of each issuer was made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Made(BTreeMap<String, i64>);

impl Made {
    /// Names of issuers of whom there is an older list here than in `before`.
    pub fn older_than(&self, before: &Self) -> Vec<String> {
        let all = self.0.iter();
        let older = all.filter(|(issuer, made)| before.0.get(*issuer).is_some_and(|before| before > *made));
        older.map(|(issuer, _)| issuer.clone()).collect()
    }
}

/// Why connections with a certificate are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// It has expired.
    Expired,
    /// A list names it, or one that vouches for it.
    Revoked,
    /// The authority is not in `cacertfile` any more.
    Authority,
    /// It has expired.
    AuthorityExpired,
    /// The way to it has more intermediates than `depth` allows.
    ChainTooLong,
    /// No pin names it any more.
    Unpinned,
    /// There is none, and the listener lets nobody in without.
    Missing,
}

impl Distrust {
    /// For logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "certificate_expired",
            Self::Revoked => "certificate_revoked",
            Self::Authority => "authority_not_trusted",
            Self::AuthorityExpired => "authority_expired",
            Self::ChainTooLong => "chain_too_long",
            Self::Unpinned => "certificate_not_pinned",
            Self::Missing => "certificate_required",
        }
    }
}

impl ClientTrust {
    /// Takes nobody yet if revocation lists decide.
    pub(super) fn new(proof: Proof, demands: Demands, mandatory: bool) -> Result<Self, String> {
        let hints = match &proof {
            Proof::Pins(_) => Vec::new(),
            Proof::Chain { anchors, .. } => anchors.store.subjects(),
        };
        let (signatures, lists, enrolled) = (Signatures::new(), RwLock::default(), RwLock::default());
        let trust = Self { proof, demands, mandatory, hints, signatures, lists, enrolled };
        if matches!(trust.proof, Proof::Chain { revocation: false, .. }) {
            trust.put(Vec::new(), Lists::default())?;
        }
        Ok(trust)
    }

    /// The fingerprints of clusters that enrolled, instead of those before. They are taken from the next handshake on,
    /// beside whatever else is trusted, `cacertfile` included.
    pub fn set_enrolled(&self, pins: Arc<HashSet<[u8; 32]>>) {
        *self.enrolled.write() = pins;
    }

    fn is_enrolled(&self, fingerprint: &[u8; 32]) -> bool {
        self.enrolled.read().contains(fingerprint)
    }

    /// Puts these lists in force; on an error the ones before stay. Lists that were fetched come over an open network:
    /// their issuers must be in `cacertfile`, so that each is known to be genuine.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub fn adopt(
        &self,
        lists: Vec<CertificateRevocationListDer<'static>>,
        fetched: bool,
    ) -> Result<(), String> {
        let mut read = Lists::default();
        let (mut dated, mut made) = (Vec::new(), Made::default());
        for list in lists {
            let (issuer, this_update) = self.read_list(&list, fetched, &mut read)?;
            let newest = made.0.entry(issuer).or_insert(this_update);
            *newest = this_update.max(*newest);
            dated.push((this_update, list));
        }
        read.made = Arc::new(made);
        // Of two lists of one issuer the library asks the first, which is to be the newer one.
        dated.sort_by_key(|(this_update, _)| Reverse(*this_update));
        self.put(dated.into_iter().map(|(_, list)| list).collect(), read)
    }

    fn put(&self, lists: Vec<CertificateRevocationListDer<'static>>, mut read: Lists) -> Result<(), String> {
        let Proof::Chain { anchors, revocation, .. } = &self.proof else { return Ok(()) };
        let store = Arc::clone(&anchors.store);
        let mut builder = WebPkiClientVerifier::builder_with_provider(store, provider());
        if *revocation {
            if lists.is_empty() {
                return Err("there is no revocation list".to_owned());
            }
            builder = builder.with_crls(lists).enforce_revocation_expiration();
        }
        read.verifier = Some(builder.build().map_err(|error| error.to_string())?);
        *self.lists.write() = Arc::new(read);
        Ok(())
    }

    /// What a list says, whose it is and when it was made. One whose issuer is in `cacertfile` must be signed by it; that of
    /// another intermediate authority is for handshakes only, where a client shows that authority's certificate.
    fn read_list(&self, der: &[u8], fetched: bool, read: &mut Lists) -> Result<(String, i64), String> {
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| format!("not a revocation list: {error}"))?;
        let named_and_made = (list.issuer().to_string(), list.last_update().timestamp());
        let Proof::Chain { anchors, .. } = &self.proof else { return Ok(named_and_made) };
        let issuer = list.issuer().as_raw();
        let mut named = anchors
            .authorities
            .iter()
            .filter_map(|der| fitness::read(der).ok())
            .filter(|authority| authority.subject().as_raw() == issuer)
            .peekable();
        let known = named.peek().is_some();
        if known && !named.any(|a| list.verify_signature(a.public_key()).is_ok()) {
            return Err(format!("the list of `{}` is not signed by that authority", list.issuer()));
        }
        if fetched && !known {
            return Err(format!("the list of `{}`, which is not in cacertfile", list.issuer()));
        }
        let next = list.next_update().map(|time| time.timestamp());
        read.next_update_unix = [read.next_update_unix, next].into_iter().flatten().min();
        if known {
            let revoked = list.iter_revoked_certificates();
            read.revoked.extend(revoked.map(|revoked| revocation_key(issuer, revoked.raw_serial())));
        }
        Ok(named_and_made)
    }

    /// Names of authorities that `lists` say nothing of: whoever they vouch for will be refused.
    #[must_use]
    pub fn without_list(&self, lists: &[CertificateRevocationListDer<'_>]) -> Vec<String> {
        let Proof::Chain { anchors, .. } = &self.proof else { return Vec::new() };
        let issuers: Vec<Vec<u8>> = lists
            .iter()
            .filter_map(|der| CertificateRevocationList::from_der(der).ok())
            .map(|(_, list)| list.issuer().as_raw().to_vec())
            .collect();
        let certificates = anchors.authorities.iter().filter_map(|der| fitness::read(der).ok());
        let missing =
            certificates.filter(|one| !issuers.iter().any(|issuer| issuer == one.subject().as_raw()));
        missing.map(|one| one.subject().to_string()).collect()
    }

    /// When the lists in force were made.
    #[must_use]
    pub fn made(&self) -> Arc<Made> {
        Arc::clone(&self.lists.read().made)
    }

    /// Until when all lists in force are current, in seconds since the Unix epoch.
    #[must_use]
    pub fn next_update_unix(&self) -> Option<i64> {
        self.lists.read().next_update_unix
    }

    /// Whether revocation lists decide.
    #[must_use]
    pub fn checks_revocation(&self) -> bool {
        matches!(self.proof, Proof::Chain { revocation: true, .. })
    }

    /// Whether somebody who was let in with this certificate, or without one, would not be let in any more.
    #[must_use]
    pub fn distrusts(&self, facts: Option<&CertificateFacts>, now_unix: i64) -> Option<Distrust> {
        let Some(facts) = facts else { return self.mandatory.then_some(Distrust::Missing) };
        if facts.not_after_unix <= now_unix {
            return Some(Distrust::Expired);
        }
        let (anchors, depth) = match &self.proof {
            Proof::Pins(pins) => {
                let pinned = pins.contains(&facts.der_sha256) || self.is_enrolled(&facts.der_sha256);
                return (!pinned).then_some(Distrust::Unpinned);
            }
            Proof::Chain { .. } if facts.anchor.is_none() && self.is_enrolled(&facts.der_sha256) => {
                return None;
            }
            Proof::Chain { anchors, depth, .. } => (anchors, depth),
        };
        if facts.chain.len() > depth.saturating_add(1) {
            return Some(Distrust::ChainTooLong);
        }
        let lists = Arc::clone(&self.lists.read());
        if facts.chain.iter().any(|link| lists.revoked.contains(&link.revocation)) {
            return Some(Distrust::Revoked);
        }
        // One by a pin has none. One key may have several certificates, the renewed one among them.
        let mut named = anchors.keys.iter().filter(|key| facts.anchor == Some(key.id)).peekable();
        if named.peek().is_none() {
            return Some(Distrust::Authority);
        }
        named.all(|key| key.has_expired(now_unix)).then_some(Distrust::AuthorityExpired)
    }

    fn check<'a>(
        &'a self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'a>],
        now: UnixTime,
    ) -> Result<Verified<'a>, Error> {
        let verified = match &self.proof {
            Proof::Pins(pins) => {
                self.check_pin(leaf, pins, now)?;
                Verified::ByPin
            }
            Proof::Chain { .. } if self.is_enrolled(&Sha256::digest(leaf).into()) => {
                self.check_pin(leaf, &[], now)?;
                Verified::ByPin
            }
            Proof::Chain { anchors, depth, .. } => self.check_chain(leaf, others, now, anchors, *depth)?,
        };
        self.demands.check_leaf(leaf).map_err(unfit)?;
        Ok(verified)
    }

    fn check_pin(&self, leaf: &CertificateDer<'_>, pins: &[[u8; 32]], now: UnixTime) -> Result<(), Error> {
        let is_pinned = |it: &[u8; 32]| pins.contains(it) || self.is_enrolled(it);
        check_pinned(leaf, is_pinned, fitness::KeyUsage::ClientAuth, now).map_err(Error::InvalidCertificate)
    }

    /// Chooses the path first. The library is given no other certificate, and so cannot find a longer one.
    fn check_chain<'a>(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'a>],
        now: UnixTime,
        anchors: &'a Anchors,
        depth: usize,
    ) -> Result<Verified<'a>, Error> {
        let lists = Arc::clone(&self.lists.read());
        let Some(verifier) = &lists.verifier else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus));
        };
        let all: Vec<&CertificateDer<'a>> = others.iter().chain(&anchors.intermediates).collect();
        let encoded: Vec<&[u8]> = all.iter().map(|der| &***der).collect();
        let mut path = Vec::new();
        let now_unix = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let found = path::find(leaf, &encoded, &anchors.keys, depth, now_unix, |steps| {
            path = steps.iter().map(|at| all[*at].clone()).collect();
            verifier.verify_client_cert(leaf, &path, now)?;
            path.iter().try_for_each(|der| self.demands.check_key(der)).map_err(unfit)
        });
        match found {
            Ok(anchor) => Ok(Verified::ByPath(path, anchor)),
            Err(NoPath::Refused(error)) => Err(error),
            Err(NoPath::Expired) => Err(Error::InvalidCertificate(CertificateError::Expired)),
            Err(NoPath::TooLong) => Err(unfit(certificate::CertificateError::ChainTooLong)),
            // The library knows best what is wrong with it.
            Err(NoPath::Missing) => {
                verifier.verify_client_cert(leaf, &[], now)?;
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
            }
        }
    }
}

/// Refuses a certificate that TLS itself has nothing against.
pub(super) fn unfit(error: certificate::CertificateError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// An error of the library for people: of what [`unfit`] refuses, it shows the name of a type only.
pub(super) fn shown(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => reason.to_string(),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::AccessDenied,
        ) => format!("{error}: the other side does not trust our certificate"),
        other => other.to_string(),
    }
}

impl ClientCertVerifier for ClientTrust {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Here and below: an error means that nobody wants to know.
        let fingerprint = Some(Sha256::digest(end_entity).into());
        let _ = SHOWN.try_with(|shown| shown.replace(Shown { fingerprint, facts: None }));
        let facts = match self.check(end_entity, intermediates, now)? {
            Verified::ByPin => CertificateFacts::from_der(end_entity),
            Verified::ByPath(path, anchor) => CertificateFacts::from_path(end_entity, &path, anchor.id),
        };
        let _ = SHOWN.try_with(|shown| shown.borrow_mut().facts = Some(facts));
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}
