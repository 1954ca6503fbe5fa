//! Our own certificate as handshakes get it, with the proof stapled to it that it is not revoked, if there is one.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::net::ocsp;
use crate::net::ocsp::CertId;
pub use crate::net::ocsp::OcspError;

/// What every client gets.
#[derive(Debug)]
pub(super) struct Own {
    current: RwLock<Arc<CertifiedKey>>,
    /// Whoever asks for another server gets none, and whoever names none; empty: everybody gets it.
    names: Vec<String>,
}

impl Own {
    pub(super) fn new(key: CertifiedKey, names: Vec<String>) -> Self {
        Self { current: RwLock::new(Arc::new(key)), names }
    }

    fn staple(&self, answer: Option<Vec<u8>>) {
        let mut current = self.current.write();
        *current = Arc::new(CertifiedKey { ocsp: answer, ..CertifiedKey::clone(&current) });
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if !self.names.is_empty() {
            let asked = hello.server_name()?;
            self.names.iter().find(|name| name.eq_ignore_ascii_case(asked))?;
        }
        Some(Arc::clone(&self.current.read()))
    }
}

/// Takes the answers of a responder for one listener.
#[derive(Debug)]
pub struct Stapler {
    own: Arc<Own>,
    id: CertId,
    issuer: CertificateDer<'static>,
}

impl Stapler {
    pub(super) fn new(own: Arc<Own>, leaf: &[u8], issuer: CertificateDer<'static>) -> Result<Self, String> {
        let id = CertId::new(leaf, &issuer)?;
        Ok(Self { own, id, issuer })
    }

    /// What to ask the responder.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        self.id.request()
    }

    /// Staples an answer from now on, if it says that our certificate is good. Until when, in seconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// Why what was stapled before stays; if it says that our certificate is revoked, nothing does.
    pub fn take(&self, answer: Vec<u8>, now_unix: i64) -> Result<i64, OcspError> {
        let checked = ocsp::check(&answer, &self.id, &self.issuer, now_unix);
        match checked {
            Ok(_) => self.own.staple(Some(answer)),
            Err(OcspError::Revoked) => self.clear(),
            Err(OcspError::Useless(_)) => {}
        }
        checked
    }

    /// Staples nothing from now on.
    pub fn clear(&self) {
        self.own.staple(None);
    }

    /// What is stapled.
    #[must_use]
    pub fn current(&self) -> Option<Vec<u8>> {
        self.own.current.read().ocsp.clone()
    }
}
