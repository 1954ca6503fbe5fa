//! TLS configurations from files and options (authn-tls.md section 1): `rustls` with `ring`, TLS 1.2 and 1.3, suites
//! with forward secrecy and authenticated encryption only. Which options a listener of which role may have is
//! decided by the configuration; here each set of options is built as it is, or refused if it makes no sense.
//!
//! A reload builds a new [`ServerTls`]: its session cache and tickets are new as well, so that nobody resumes past
//! a certificate check of the new one.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::net::pem::PemFile;
pub use crate::net::pem::TlsError;
use crate::net::pin::AnyServer;
use crate::net::pin::PinnedClients;
use crate::time::Now;

/// A version of TLS that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Whether the other end's certificate is asked for and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verify {
    /// `verify_none`.
    None,
    /// `verify_peer`.
    Peer,
}

/// TLS options of a listener, under EMQX's names.
#[derive(Debug, Clone)]
pub struct ServerTlsOptions {
    /// Our certificate, leaf first, then intermediates.
    pub certfile: PathBuf,
    /// Its private key.
    pub keyfile: PathBuf,
    /// Authorities whose client certificates are trusted.
    pub cacertfile: Option<PathBuf>,
    /// Revocation lists: every certificate of a client's chain must be covered by a current one.
    pub crlfile: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub verify: Verify,
    /// Whether they must have one.
    pub fail_if_no_peer_cert: bool,
    /// Fingerprints of client certificates to trust where there is no `cacertfile`: pinned mode.
    pub client_pins: Vec<[u8; 32]>,
    /// Intermediate certificates that a client's chain may have.
    pub depth: u8,
    /// Whether client certificates must be fit for a link ([`crate::auth::certificate::check_link_certificate`]).
    pub strict: bool,
    /// Versions to speak.
    pub versions: Vec<TlsVersion>,
}

/// A listener's TLS, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For the TLS library.
    pub config: Arc<ServerConfig>,
    /// Whether a client certificate that passes has a chain to `cacertfile`; not so in pinned mode.
    pub verifies_chain: bool,
    /// Intermediate certificates that a client's chain may have.
    pub depth: u8,
    /// Whether client certificates must be fit for a link ([`crate::auth::certificate::check_link_certificate`]).
    pub strict: bool,
    /// What an operator should know, such as a certificate that has expired.
    pub warnings: Vec<String>,
}

/// TLS options of a link.
#[derive(Debug, Clone)]
pub struct ClientTlsOptions {
    /// Authorities whose server certificates are trusted.
    pub cacertfile: Option<PathBuf>,
    /// Our own certificate, if the server asks.
    pub certfile: Option<PathBuf>,
    /// Its private key.
    pub keyfile: Option<PathBuf>,
    /// Whether the server's certificate and name are verified.
    pub verify: Verify,
    /// The name to ask for and to verify, if not the host that is dialled (`server_name_indication`).
    pub server_name: Option<String>,
    /// Versions to speak.
    pub versions: Vec<TlsVersion>,
}

/// A link's TLS, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For the TLS library.
    pub config: Arc<ClientConfig>,
    /// The name to ask for and to verify, if not the host that is dialled.
    pub server_name: Option<String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn supported(versions: &[TlsVersion]) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    if versions.is_empty() {
        return Err(TlsError::Options("versions: give at least one of tlsv1.2 and tlsv1.3"));
    }
    let mut found = Vec::new();
    for (version, implementation) in
        [(TlsVersion::V13, &rustls::version::TLS13), (TlsVersion::V12, &rustls::version::TLS12)]
    {
        if versions.contains(&version) {
            found.push(implementation);
        }
    }
    Ok(found)
}

/// A certificate chain with its key, checked to belong together.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    warnings: Vec<String>,
}

impl Identity {
    fn load(certfile: &Path, keyfile: &Path, now: Now) -> Result<Self, TlsError> {
        let certificates = PemFile::read("certfile", certfile)?;
        let chain = certificates.certificates()?;
        let key_file = PemFile::read("keyfile", keyfile)?;
        let key = key_file.private_key()?;
        match rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let reason = format!("the key does not fit the certificate in {}", certfile.display());
                return Err(key_file.wrong(reason));
            }
            Err(rustls::Error::InvalidCertificate(error)) => {
                return Err(certificates.wrong(format!("unusable certificate: {error}")));
            }
            Err(error) => return Err(key_file.wrong(format!("unusable key: {error}"))),
        }
        let warnings = chain.iter().filter_map(|der| certificates.expiry_warning(der, now)).collect();
        Ok(Self { chain, key, warnings })
    }
}

impl ServerTls {
    /// Reads the files and builds the configuration; `now` is for the warnings.
    ///
    /// # Errors
    /// With the setting, the file and the reason.
    pub fn load(options: &ServerTlsOptions, now: Now) -> Result<Self, TlsError> {
        if options.fail_if_no_peer_cert && options.verify == Verify::None {
            return Err(TlsError::Options("fail_if_no_peer_cert = true needs verify = \"verify_peer\""));
        }
        if options.crlfile.is_some() && options.cacertfile.is_none() {
            return Err(TlsError::Options("crlfile needs cacertfile"));
        }
        let identity = Identity::load(&options.certfile, &options.keyfile, now)?;
        let mut warnings = identity.warnings;
        let versions = supported(&options.versions)?;
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&versions)?;
        let asks = options.verify == Verify::Peer;
        let builder = if asks {
            let (verifier, more) = client_verifier(options, now)?;
            warnings.extend(more);
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(identity.chain, identity.key)?;
        if asks {
            // A resumed session skips the certificate check (authn-tls.md section 1).
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = ring::Ticketer::new()?;
        }
        let verifies_chain = asks && options.cacertfile.is_some();
        Ok(Self {
            config: Arc::new(config),
            verifies_chain,
            depth: options.depth,
            strict: options.strict,
            warnings,
        })
    }
}

type Verifier = (Arc<dyn ClientCertVerifier>, Vec<String>);

fn client_verifier(options: &ServerTlsOptions, now: Now) -> Result<Verifier, TlsError> {
    let Some(cacertfile) = &options.cacertfile else {
        if options.client_pins.is_empty() {
            return Err(TlsError::Options(
                "verify = \"verify_peer\" needs cacertfile, or peers with cert_sha256",
            ));
        }
        let mandatory = options.fail_if_no_peer_cert;
        let pinned = PinnedClients { pins: options.client_pins.clone(), mandatory, provider: provider() };
        return Ok((Arc::new(pinned), Vec::new()));
    };
    let authorities = PemFile::read("cacertfile", cacertfile)?;
    let (roots, warnings) = authorities.roots(now)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if !options.fail_if_no_peer_cert {
        builder = builder.allow_unauthenticated();
    }
    let Some(crlfile) = &options.crlfile else {
        let verifier = builder.build().map_err(|error| authorities.wrong(error.to_string()))?;
        return Ok((verifier, warnings));
    };
    let lists = PemFile::read("crlfile", crlfile)?;
    let builder = builder.with_crls(lists.revocation_lists()?).enforce_revocation_expiration();
    let verifier = builder.build().map_err(|error| lists.wrong(error.to_string()))?;
    Ok((verifier, warnings))
}

impl ClientTls {
    /// Reads the files and builds the configuration; `now` is for the warnings.
    ///
    /// # Errors
    /// With the setting, the file and the reason.
    pub fn load(options: &ClientTlsOptions, now: Now) -> Result<Self, TlsError> {
        let versions = supported(&options.versions)?;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions)?;
        let mut warnings = Vec::new();
        let builder = match (options.verify, &options.cacertfile) {
            (Verify::None, _) => {
                warnings
                    .push("verify = \"verify_none\": the server's certificate is not verified".to_owned());
                let verifier = Arc::new(AnyServer { provider: provider() });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            (Verify::Peer, None) => {
                return Err(TlsError::Options("verify = \"verify_peer\" needs cacertfile"));
            }
            (Verify::Peer, Some(cacertfile)) => {
                let (roots, more): (RootCertStore, _) =
                    PemFile::read("cacertfile", cacertfile)?.roots(now)?;
                warnings.extend(more);
                builder.with_root_certificates(roots)
            }
        };
        let mut config = match (&options.certfile, &options.keyfile) {
            (Some(certfile), Some(keyfile)) => {
                let identity = Identity::load(certfile, keyfile, now)?;
                warnings.extend(identity.warnings);
                builder.with_client_auth_cert(identity.chain, identity.key)?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TlsError::Options("certfile needs keyfile")),
            (None, Some(_)) => return Err(TlsError::Options("keyfile needs certfile")),
        };
        // Links are few and long-lived: verify every time.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), server_name: options.server_name.clone(), warnings })
    }
}
