//! Certificates by their fingerprints, and the verifier of the servers that links dial. All verifiers check the
//! handshake's signature: a certificate is public, the key behind it is what counts (authn-tls.md T13).

use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::OtherError;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use sha2::Digest;
use sha2::Sha256;

use crate::auth::certificate::fingerprint_hex;
use crate::auth::fitness;
use crate::auth::fitness::Demands;
use crate::auth::fitness::KeyUsage;
use crate::net::crypto::Signatures;
use crate::net::trust::unfit;

/// Whether this is one that is pinned, within its dates; the chain is not looked at (authn-tls.md section 1). If it says
/// what it is for, that must be `usage`.
pub(super) fn check_pinned(
    der: &[u8],
    is_pinned: impl Fn(&[u8; 32]) -> bool,
    usage: KeyUsage,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let certificate = fitness::read(der).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    match certificate.extended_key_usage() {
        Err(_) => return Err(CertificateError::BadEncoding),
        Ok(Some(extension)) => {
            let has = extension.value;
            let named = if usage == KeyUsage::ServerAuth { has.server_auth } else { has.client_auth };
            if !named && !has.any {
                return Err(CertificateError::InvalidPurpose);
            }
        }
        Ok(None) => {}
    }
    let fingerprint: [u8; 32] = Sha256::digest(der).into();
    if is_pinned(&fingerprint) { Ok(()) } else { Err(CertificateError::UnknownIssuer) }
}

/// Servers that a link may talk to. What is absent is not asked for; without anything, any server will do: `verify =
/// "verify_none"`, which the configuration allows only with a warning.
#[derive(Debug)]
pub(super) struct LinkServers {
    /// The chain and the name, by the authorities of `cacertfile`.
    pub(super) by_chain: Option<Arc<WebPkiServerVerifier>>,
    /// The fingerprint.
    pub(super) pins: Vec<[u8; 32]>,
    /// How strong the keys must be.
    pub(super) demands: Option<Demands>,
    pub(super) signatures: Signatures,
}

/// A server has another certificate than it should: its own was replaced, or somebody is in between.
#[derive(Debug, thiserror::Error)]
#[error(
    "pin mismatch: its certificate is sha256:{}, expected sha256:{}",
    fingerprint_hex(shown),
    expected(pins)
)]
struct Mismatch {
    shown: [u8; 32],
    pins: Vec<[u8; 32]>,
}

fn expected(pins: &[[u8; 32]]) -> String {
    let pins: Vec<String> = pins.iter().map(fingerprint_hex).collect();
    pins.join(" or sha256:")
}

impl LinkServers {
    fn check_known(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity).into();
        if self.pins.contains(&shown) {
            return Ok(());
        }
        let mismatch = Mismatch { shown, pins: self.pins.clone() };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
    }
}

impl ServerCertVerifier for LinkServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(by_chain) = &self.by_chain {
            by_chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        if !self.pins.is_empty() {
            if self.by_chain.is_none() {
                self.check_known(end_entity)?;
            }
            check_pinned(end_entity, |it| self.pins.contains(it), KeyUsage::ServerAuth, now)
                .map_err(Error::InvalidCertificate)?;
        }
        if let Some(demands) = &self.demands {
            demands.check_key(end_entity).map_err(unfit)?;
            let checked = if self.by_chain.is_some() { intermediates } else { &[] };
            checked.iter().try_for_each(|der| demands.check_issuer(der)).map_err(unfit)?;
        }
        Ok(ServerCertVerified::assertion())
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
