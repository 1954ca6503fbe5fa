//! The side that has the token: finds the server whose fingerprint the token tells, and asks it once (trust.md 2.4). All
//! addresses are tried at a time. Until a server has proved by the handshake that it is the one, nothing is sent that it
//! could use: no request, and in TLS 1.3 not even our certificate.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::SignatureScheme;
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::sign::SingleCertAndKey;
use sha2::Digest;
use sha2::Sha256;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Purpose;
use super::ReadError;
use super::framed;
use super::read_message;
use crate::auth::certificate::fingerprint_hex;
use crate::auth::fitness::Demands;
use crate::auth::fitness::KeyUsage;
use crate::auth::fitness::LINK_RSA_BITS_MIN;
use crate::config::settings::Network;
use crate::config::settings::ServerAddr;
use crate::config::settings::Told;
use crate::net::crypto::Signatures;
use crate::net::crypto::provider;
use crate::net::handshake::tls_error;
use crate::net::own_certificate::OwnCertificate;
use crate::net::peer_networks::NoAddress;
use crate::net::peer_networks::resolve;
use crate::net::pin::check_pinned;
use crate::net::transport::ClientTlsStream;
use crate::net::trust::shown;
use crate::net::trust::unfit;

/// How long the search for the server takes at most (trust.md 2.4).
pub const FIND_TIME: Duration = Duration::from_secs(30);
/// How long the answer takes at most: longer than the server has for it.
pub const ANSWER_TIME: Duration = Duration::from_secs(15);
/// Servers of a token that are tried.
pub const SERVERS_MAX: usize = 16;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a server of the token is not the one that is asked.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// Its name has no address, or none that is dialled.
    #[error("cannot find its address: {0}")]
    Name(NoAddress),
    /// There is no connection to it.
    #[error("{0}")]
    Io(io::Error),
    /// It hung up without a word.
    #[error("it closed the connection: it may be busy, or was asked a moment ago; try again")]
    Closed,
    /// It is another than the token says: somebody is in between, or the token or the certificate is old.
    #[error("is sha256:{}, token says sha256:{}", fingerprint_hex(shown), fingerprint_hex(expected))]
    Mismatch {
        /// SHA-256 of the certificate it has.
        shown: [u8; 32],
        /// What the token says.
        expected: [u8; 32],
    },
    /// TLS refused it, or it us.
    #[error("TLS: {}", shown(.0))]
    Tls(Error),
    /// It is the one, but awaits nobody.
    #[error("it does not enrol clusters: its token is used, expired or revoked")]
    NotOpen,
    /// Not done in time.
    #[error("no connection in time")]
    Timeout,
}

/// A server that is not asked, and why.
#[derive(Debug)]
pub struct Passed {
    /// As the token has it.
    pub server: ServerAddr,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Mismatch { .. } => write!(f, "certificate of {} {}", self.server, self.why),
            why => write!(f, "{}: {why}", self.server),
        }
    }
}

/// No server of the token can be asked.
#[derive(Debug)]
pub struct NotFound(pub Vec<Passed>);

impl NotFound {
    /// Whether one of them has another certificate than the token says.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.0.iter().any(|passed| matches!(passed.why, Why::Mismatch { .. }))
    }
}

impl NotFound {
    /// Whether the right one may be there after a moment: one hung up, and none is another or awaits nobody.
    #[must_use]
    pub fn is_too_soon(&self) -> bool {
        let any = |is: fn(&Why) -> bool| self.0.iter().any(|passed| is(&passed.why));
        any(|why| matches!(why, Why::Closed))
            && !any(|why| matches!(why, Why::Mismatch { .. } | Why::NotOpen))
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "tried {} address(es) of the token: {}", all.len(), all.join("; "))
    }
}

impl std::error::Error for NotFound {}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The request is empty or too long.
    #[error("the request has a length that is not allowed")]
    Request,
    /// The answer is, or the connection ended.
    #[error("no answer: {0}")]
    Read(#[from] ReadError),
    /// It did not come in time. The request may have been granted all the same.
    #[error("no answer in time")]
    Timeout,
}

/// The server that is asked.
#[derive(Debug)]
pub struct Found {
    /// As the token has it.
    pub server: ServerAddr,
    /// Servers of which it was known by then that they are not it.
    pub passed: Vec<Passed>,
    stream: ClientTlsStream,
}

impl Found {
    /// The certificate that it has shown, DER.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.peer_certificates()?.first().map(|der| &**der)
    }
}

/// Looks for the server with one of these certificates (their SHA-256), and shows it ours. Each name is resolved once; those
/// that are `told` by the peer are looked for only where it may send us.
///
/// # Errors
/// Why it is none of them, after `limit` at most.
pub async fn find(
    servers: &[ServerAddr],
    told: &Told,
    expected: &[[u8; 32]],
    own: &Arc<OwnCertificate>,
    purpose: Purpose,
    limit: Duration,
) -> Result<Found, NotFound> {
    let mut trying = JoinSet::new();
    let expected: Arc<[[u8; 32]]> = expected.into();
    for server in servers.iter().take(SERVERS_MAX).cloned() {
        let (own, expected) = (Arc::clone(own), Arc::clone(&expected));
        let networks = told.networks_of(&server).map(<[_]>::to_vec);
        trying.spawn(async move {
            let tried =
                timeout(limit, try_server(&server, networks.as_deref(), &expected, &own, purpose)).await;
            (server, tried.unwrap_or(Err(Why::Timeout)))
        });
    }
    let mut passed = Vec::new();
    while let Some(tried) = trying.join_next().await {
        // A panic is logged by the runtime.
        let Ok((server, tried)) = tried else { continue };
        match tried {
            Ok(stream) => return Ok(Found { server, passed, stream }),
            Err(why) => passed.push(Passed { server, why }),
        }
    }
    Err(NotFound(passed))
}

impl Found {
    /// Sends the request, and gives the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(self, request: &[u8], limit: Duration) -> Result<Vec<u8>, NoAnswer> {
        ask(self.stream, request, limit).await
    }
}

/// Sends the request over a connection that is there, and gives the answer.
///
/// # Errors
/// Why there is none.
pub async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, NoAnswer> {
    let request = zeroize::Zeroizing::new(framed(request).ok_or(NoAnswer::Request)?);
    let asking = async {
        stream.write_all(&request).await.map_err(ReadError::Io)?;
        stream.flush().await.map_err(ReadError::Io)?;
        let answer = read_message(&mut stream).await?;
        // The answer is there: nobody depends on how the connection ends.
        let _ = stream.shutdown().await;
        Ok(answer)
    };
    timeout(limit, asking).await.unwrap_or(Err(NoAnswer::Timeout))
}

/// All addresses of one name at a time; of what went wrong, another certificate is told before anything else.
async fn try_server(
    server: &ServerAddr,
    networks: Option<&[Network]>,
    expected: &Arc<[[u8; 32]]>,
    own: &Arc<OwnCertificate>,
    purpose: Purpose,
) -> Result<ClientTlsStream, Why> {
    let addresses = resolve(&server.host, server.port, networks).await.map_err(Why::Name)?;
    let mut trying = JoinSet::new();
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        let (own, host, expected) = (Arc::clone(own), server.host.clone(), Arc::clone(expected));
        trying.spawn(async move { try_address(address, &host, expected, &own, purpose).await });
    }
    let mut worst = None;
    while let Some(tried) = trying.join_next().await {
        match tried {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(why)) if !matches!(worst, Some(Why::Mismatch { .. })) => worst = Some(why),
            // A panic is logged by the runtime.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(worst.unwrap_or_else(|| Why::Io(io::ErrorKind::NotFound.into())))
}

async fn try_address(
    address: SocketAddr,
    host: &str,
    expected: Arc<[[u8; 32]]>,
    own: &OwnCertificate,
    purpose: Purpose,
) -> Result<ClientTlsStream, Why> {
    let stream = TcpStream::connect(address).await.map_err(Why::Io)?;
    stream.set_nodelay(true).map_err(Why::Io)?;
    let server = TheServer { expected, shown: Mutex::default(), signatures: Signatures::new() };
    let server = Arc::new(server);
    let config = tls(Arc::clone(&server), own, purpose).map_err(Why::Tls)?;
    let connected = TlsConnector::from(config).connect(name(host, address.ip()), stream).await;
    let stream = connected.map_err(|error| match (*server.shown.lock(), tls_error(error)) {
        (Some(shown), _) if !server.expected.contains(&shown) => {
            Why::Mismatch { shown, expected: server.expected.first().copied().unwrap_or_default() }
        }
        (_, Ok(error)) => Why::Tls(error),
        (_, Err(error)) if is_an_end(&error) => Why::Closed,
        (_, Err(error)) => Why::Io(error),
    })?;
    if stream.get_ref().1.alpn_protocol() != Some(purpose.alpn()) {
        return Err(Why::NotOpen);
    }
    Ok(stream)
}

fn is_an_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// What a proxy may go by. It is no proof: the fingerprint is.
fn name(host: &str, address: IpAddr) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| ServerName::IpAddress(address.into()))
}

fn tls(server: Arc<TheServer>, own: &OwnCertificate, purpose: Purpose) -> Result<Arc<ClientConfig>, Error> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let own = Arc::new(SingleCertAndKey::from(own.certified()));
    let builder = builder.dangerous().with_custom_certificate_verifier(server);
    let mut config = builder.with_client_cert_resolver(own);
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes one of these certificates, and tells which one it was shown.
#[derive(Debug)]
struct TheServer {
    expected: Arc<[[u8; 32]]>,
    shown: Mutex<Option<[u8; 32]>>,
    signatures: Signatures,
}

impl ServerCertVerifier for TheServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity).into();
        *self.shown.lock() = Some(shown);
        if !self.expected.contains(&shown) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        check_pinned(end_entity, |it| self.expected.contains(it), KeyUsage::ServerAuth, now)
            .map_err(Error::InvalidCertificate)?;
        let demands = Demands { usages: Vec::new(), rsa_bits_min: LINK_RSA_BITS_MIN };
        demands.check_key(end_entity).map_err(unfit)?;
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
