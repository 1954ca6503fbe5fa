//! The side that issued the token: which connections are enrolments, and their TLS. Whoever comes proves by the handshake
//! that it has the key of the certificate it shows, and nothing else: whom the certificate belongs to is for the token.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::Error;
use rustls::ServerConfig;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use rustls::server::Acceptor;
use rustls::server::ClientHello;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::StartHandshake;

use super::Purpose;
use crate::auth::fitness;
use crate::net::crypto::Signatures;
use crate::net::crypto::provider;
use crate::net::handshake::HandshakeError;
use crate::net::handshake::tls_error;
use crate::net::own_certificate::OwnCertificate;
use crate::net::transport::Transport;

/// TLS for connections of this purpose: 1.3 only, this certificate, a certificate of the client's, nothing to resume with.
///
/// # Errors
/// If the library refuses it.
pub fn tls(own: &OwnCertificate, purpose: Purpose) -> Result<Arc<ServerConfig>, Error> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let clients = Arc::new(ProvenClients { signatures: Signatures::new(), mandatory: true });
    let own = Arc::new(SingleCertAndKey::from(own.certified()));
    let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(own);
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whoever takes certificates without asking for one: the key behind it is proved, whose it is others know.
pub(in crate::net) fn proven_if_shown() -> Arc<dyn ClientCertVerifier> {
    Arc::new(ProvenClients { signatures: Signatures::new(), mandatory: false })
}

/// Takes every certificate whose key the client has.
#[derive(Debug)]
struct ProvenClients {
    signatures: Signatures,
    mandatory: bool,
}

impl ClientCertVerifier for ProvenClients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let read = fitness::read(end_entity);
        read.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
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

/// A connection whose ClientHello was read and not answered yet.
pub type Greeted = StartHandshake<TcpStream>;

/// Reads the ClientHello.
///
/// # Errors
/// If it does not come in time, or is none.
pub async fn read_hello(stream: TcpStream, limit: Duration) -> Result<Greeted, HandshakeError> {
    match timeout(limit, LazyConfigAcceptor::new(Acceptor::default(), stream)).await {
        Ok(greeted) => greeted.map_err(failed),
        Err(_) => Err(HandshakeError::Timeout),
    }
}

fn failed(error: io::Error) -> HandshakeError {
    match tls_error(error) {
        Ok(error) => HandshakeError::Tls(error),
        Err(error) => HandshakeError::Io(error),
    }
}

/// What this asks for, if it is one purpose of ours and nothing else.
#[must_use]
pub fn purpose(hello: &ClientHello<'_>) -> Option<Purpose> {
    Purpose::of(hello.alpn().into_iter().flatten())
}

/// Ends the handshake of an enrolment: the byte stream, and the certificate (DER) whose key the client has.
///
/// # Errors
/// If it fails.
pub async fn accept(
    greeted: Greeted,
    tls: Arc<ServerConfig>,
) -> Result<(Transport, Vec<u8>), HandshakeError> {
    let stream = greeted.into_stream(tls).await.map_err(failed)?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.ok_or(HandshakeError::Tls(Error::NoCertificatesPresented))?.to_vec();
    Ok((Transport::Tls(Box::new(stream)), certificate))
}
