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
use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;

use crate::auth::certificate::first_expiry_unix;
use crate::auth::fitness::Demands;
use crate::auth::fitness::KeyUsage;
use crate::auth::fitness::LINK_RSA_BITS_MIN;
use crate::auth::fitness::RSA_BITS_MIN;
use crate::config::settings::CipherSuite;
use crate::config::settings::CrlSource;
use crate::config::settings::PartialChain;
use crate::config::settings::Secret;
use crate::net::crypto::Signatures;
use crate::net::crypto::provider;
use crate::net::crypto::provider_with;
use crate::net::enroll::server::proven_if_shown;
use crate::net::own_certificate::OwnCertificate;
use crate::net::pem::PemFile;
pub use crate::net::pem::TlsError;
use crate::net::pin::LinkServers;
use crate::net::staple::Own;
use crate::net::staple::Stapler;
use crate::net::trust::ClientTrust;
use crate::net::trust::Proof;
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
    /// The link certificate, where that is to be shown: then the next three do not count.
    pub own: Option<Arc<OwnCertificate>>,
    /// Our certificate, leaf first, then intermediates.
    pub certfile: PathBuf,
    /// Its private key.
    pub keyfile: PathBuf,
    /// What opens the key, if it is encrypted.
    pub password: Option<Secret>,
    /// Who issued our certificate, where proof is to be stapled to it that it is not revoked.
    pub ocsp_issuer: Option<PathBuf>,
    /// Authorities whose client certificates are trusted.
    pub cacertfile: Option<PathBuf>,
    /// Which certificates of it are trusted beside the roots.
    pub partial_chain: PartialChain,
    /// Revocation lists: every certificate of a client's chain must be covered by a current one. Those of a file are
    /// read at once, fetched ones come later by [`ClientTrust::adopt`].
    pub crl: Option<CrlSource>,
    /// Whether clients are asked for a certificate.
    pub verify: Verify,
    /// Whether they must have one.
    pub fail_if_no_peer_cert: bool,
    /// Fingerprints of client certificates to trust where there is no `cacertfile`: pinned mode.
    pub client_pins: Vec<[u8; 32]>,
    /// Intermediate certificates that a client's chain may have.
    pub depth: u8,
    /// What client certificates must be for.
    pub key_usages: Vec<KeyUsage>,
    /// Whether certificates, our own included, must be as strong as a link's.
    pub strict: bool,
    /// Versions to speak.
    pub versions: Vec<TlsVersion>,
    /// Suites to offer, the first preferred.
    pub ciphers: Vec<CipherSuite>,
    /// Whether our order of them counts.
    pub honor_cipher_order: bool,
    /// Whether TLS 1.2 sessions are resumed by their identifiers.
    pub reuse_sessions: bool,
    /// Whether clients get tickets to resume with.
    pub session_tickets: bool,
    /// Who asks for another server (SNI), or for none, is refused; empty: nobody is for that.
    pub server_names: Vec<String>,
}

/// A listener's TLS, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For the TLS library.
    pub config: Arc<ServerConfig>,
    /// Decides about client certificates, where they are asked for.
    pub trust: Option<Arc<ClientTrust>>,
    /// Takes what is stapled to our certificate, where something is to be.
    pub stapler: Option<Arc<Stapler>>,
    /// When our own certificate, or one that vouches for it, has expired, in seconds since the Unix epoch.
    pub not_after_unix: i64,
    /// What an operator should know, such as a certificate that has expired.
    pub warnings: Vec<String>,
}

/// TLS options of a link.
#[derive(Debug, Clone)]
pub struct ClientTlsOptions {
    /// Authorities whose server certificates are trusted.
    pub cacertfile: Option<PathBuf>,
    /// The link certificate, where that is to be shown: then the next three do not count.
    pub own: Option<Arc<OwnCertificate>>,
    /// Our own certificate, if the server asks.
    pub certfile: Option<PathBuf>,
    /// Its private key.
    pub keyfile: Option<PathBuf>,
    /// What opens the key, if it is encrypted.
    pub password: Option<Secret>,
    /// Fingerprints of server certificates: one of them it must be, beside or instead of a chain to `cacertfile`.
    pub server_pins: Vec<[u8; 32]>,
    /// Whether certificates, our own included, must be as strong as a link's.
    pub strict: bool,
    /// Whether the server's certificate and name are verified.
    pub verify: Verify,
    /// The name to ask for and to verify, if not the host that is dialled (`server_name_indication`).
    pub server_name: Option<String>,
    /// Versions to speak.
    pub versions: Vec<TlsVersion>,
}

impl ClientTlsOptions {
    /// Towards a server of the web, such as one of keys or revocation lists: no certificate of our own, both versions.
    #[must_use]
    pub fn for_web(cacertfile: PathBuf) -> Self {
        Self {
            cacertfile: Some(cacertfile),
            own: None,
            certfile: None,
            keyfile: None,
            password: None,
            server_pins: Vec::new(),
            strict: false,
            verify: Verify::Peer,
            server_name: None,
            versions: vec![TlsVersion::V13, TlsVersion::V12],
        }
    }
}

/// A link's TLS, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For the TLS library.
    pub config: Arc<ClientConfig>,
    /// The name to ask for and to verify, if not the host that is dialled.
    pub server_name: Option<String>,
    /// When our own certificate has expired, in seconds since the Unix epoch.
    pub not_after_unix: Option<i64>,
    /// What an operator should know.
    pub warnings: Vec<String>,
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

/// A certificate chain with its key, checked to belong together and to be strong enough.
struct Identity {
    certified: CertifiedKey,
    not_after_unix: i64,
    warnings: Vec<String>,
}

impl Identity {
    /// The link certificate, which was judged already.
    fn of_link(own: &OwnCertificate, now: Now) -> Self {
        let warnings = own.expiry_warning(now).into_iter().collect();
        Self { certified: own.certified(), not_after_unix: own.not_after_unix(), warnings }
    }

    fn load(
        certfile: &Path,
        keyfile: &Path,
        password: Option<&Secret>,
        demands: &Demands,
        now: Now,
    ) -> Result<Self, TlsError> {
        let certificates = PemFile::read("certfile", certfile)?;
        let chain = certificates.certificates()?;
        let key_file = PemFile::read("keyfile", keyfile)?;
        let key = key_file.private_key(password)?;
        // Before the library, which says less clearly what it has against a short key.
        let (leaf, issuers) =
            chain.split_first().ok_or(TlsError::Options("certfile holds no certificate"))?;
        demands
            .check_key(leaf)
            .and_then(|()| issuers.iter().try_for_each(|der| demands.check_issuer(der)))
            .map_err(|error| certificates.wrong(format!("unusable certificate: {error}")))?;
        let not_after_unix = first_expiry_unix(&chain).unwrap_or(i64::MAX);
        let warnings = chain.iter().filter_map(|der| certificates.expiry_warning(der, now)).collect();
        // By reference: the library would leave a copy of the key behind in memory.
        let signs = any_supported_type(&key);
        let signs = signs.map_err(|error| key_file.wrong(format!("unusable key: {error}")))?;
        let certified = CertifiedKey::new(chain, signs);
        match certified.keys_match() {
            Ok(()) => Ok(Self { certified, not_after_unix, warnings }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let reason = format!("the key does not fit the certificate in {}", certfile.display());
                Err(key_file.wrong(reason))
            }
            Err(rustls::Error::InvalidCertificate(error)) => {
                Err(certificates.wrong(format!("unusable certificate: {error}")))
            }
            Err(error) => Err(key_file.wrong(format!("unusable key: {error}"))),
        }
    }
}

fn demands(strict: bool, usages: &[KeyUsage]) -> Demands {
    let rsa_bits_min = if strict { LINK_RSA_BITS_MIN } else { RSA_BITS_MIN };
    Demands { usages: usages.to_vec(), rsa_bits_min }
}

impl ServerTls {
    /// Reads the files and builds the configuration; `now` is for the warnings.
    ///
    /// # Errors
    /// With the setting, the file and the reason.
    pub fn load(options: &ServerTlsOptions, now: Now) -> Result<Self, TlsError> {
        check_options(options)?;
        let identity = server_identity(options, now)?;
        let mut warnings = identity.warnings;
        let versions = supported(&options.versions)?;
        let provider = provider_with(&options.ciphers);
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
        let trust = if options.verify == Verify::Peer {
            let (trust, more) = client_trust(options, now)?;
            warnings.extend(more);
            Some(Arc::new(trust))
        } else {
            None
        };
        let builder = match &trust {
            Some(trust) => builder.with_client_cert_verifier(Arc::<ClientTrust>::clone(trust)),
            None => builder.with_no_client_auth(),
        };
        let leaf = identity.certified.end_entity_cert()?.clone().into_owned();
        let own = Arc::new(Own::new(identity.certified, options.server_names.clone()));
        let stapler = match &options.ocsp_issuer {
            Some(issuer) => Some(Arc::new(stapler(&own, &leaf, issuer)?)),
            None => None,
        };
        let mut config = builder.with_cert_resolver(own);
        config.ignore_client_order = options.honor_cipher_order;
        if !options.reuse_sessions {
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        if options.session_tickets {
            // Its keys are new with every reload.
            config.ticketer = ring::Ticketer::new()?;
        } else {
            config.send_tls13_tickets = 0;
        }
        let not_after_unix = identity.not_after_unix;
        Ok(Self { config: Arc::new(config), trust, stapler, not_after_unix, warnings })
    }
}

/// TLS of the port for operators: 1.3 only, nothing to resume with, a certificate is taken and not asked for. Ours is the link
/// certificate, or that of two files, which must be as strong.
///
/// # Errors
/// With the file and the reason.
pub fn operators(
    own: Option<&OwnCertificate>,
    files: Option<(&Path, &Path)>,
    now: Now,
) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = match (own, files) {
        (_, Some((certfile, keyfile))) => Identity::load(certfile, keyfile, None, &demands(true, &[]), now)?,
        (Some(own), None) => Identity::of_link(own, now),
        (None, None) => return Err(TlsError::Options("there is no certificate")),
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = builder.with_client_cert_verifier(proven_if_shown());
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn server_identity(options: &ServerTlsOptions, now: Now) -> Result<Identity, TlsError> {
    if let Some(own) = &options.own {
        return Ok(Identity::of_link(own, now));
    }
    let (certfile, keyfile) = (&options.certfile, &options.keyfile);
    Identity::load(certfile, keyfile, options.password.as_ref(), &demands(options.strict, &[]), now)
}

fn stapler(own: &Arc<Own>, leaf: &[u8], issuer_pem: &Path) -> Result<Stapler, TlsError> {
    let file = PemFile::read("ocsp.issuer_pem", issuer_pem)?;
    let issuer = file.certificates()?.swap_remove(0);
    Stapler::new(Arc::clone(own), leaf, issuer).map_err(|error| file.wrong(error))
}

fn check_options(options: &ServerTlsOptions) -> Result<(), TlsError> {
    let asks = options.verify == Verify::Peer;
    if options.fail_if_no_peer_cert && !asks {
        return Err(TlsError::Options("fail_if_no_peer_cert = true needs verify = \"verify_peer\""));
    }
    if options.crl.is_some() && options.cacertfile.is_none() {
        return Err(TlsError::Options("crlfile and crl_url need cacertfile"));
    }
    if asks && (options.reuse_sessions || options.session_tickets) {
        // A resumed session skips the certificate check (authn-tls.md section 1).
        return Err(TlsError::Options(
            "reuse_sessions and session_tickets are not for verify = \"verify_peer\"",
        ));
    }
    Ok(())
}

fn client_trust(options: &ServerTlsOptions, now: Now) -> Result<(ClientTrust, Vec<String>), TlsError> {
    let demands = demands(options.strict, &options.key_usages);
    let mandatory = options.fail_if_no_peer_cert;
    let Some(cacertfile) = &options.cacertfile else {
        // With the link certificate pins may come at any time, by enrolment; until then nobody is let in.
        if options.client_pins.is_empty() && options.own.is_none() {
            return Err(TlsError::Options(
                "verify = \"verify_peer\" needs cacertfile, or peers with cert_sha256",
            ));
        }
        let proof = Proof::Pins(options.client_pins.clone());
        let trust = ClientTrust::new(proof, demands, mandatory);
        return Ok((trust.map_err(TlsError::Verifier)?, Vec::new()));
    };
    let authorities = PemFile::read("cacertfile", cacertfile)?;
    let (anchors, mut warnings) = authorities.anchors(options.partial_chain, now)?;
    let proof =
        Proof::Chain { anchors, depth: usize::from(options.depth), revocation: options.crl.is_some() };
    let trust = ClientTrust::new(proof, demands, mandatory);
    let trust = trust.map_err(|error| authorities.wrong(error))?;
    if let Some(CrlSource::File(path)) = &options.crl {
        warnings.extend(adopt_file(&trust, path, now)?);
    }
    Ok((trust, warnings))
}

/// Reads a file of revocation lists and puts them in force; gives what to warn of.
///
/// # Errors
/// Why the lists before stay.
pub fn adopt_file(trust: &ClientTrust, path: &Path, now: Now) -> Result<Vec<String>, TlsError> {
    let file = PemFile::read("crlfile", path)?;
    let lists = file.revocation_lists()?;
    let missing = trust.without_list(&lists).into_iter();
    let mut warnings: Vec<String> = missing
        .map(|name| {
            let path = path.display();
            format!(
                "crlfile {path}: no list of `{name}`: whoever has a certificate of that authority is refused"
            )
        })
        .collect();
    trust.adopt(lists, false).map_err(|error| file.wrong(error))?;
    if trust.next_update_unix().is_some_and(|next| next <= now.unix_seconds()) {
        warnings
            .push(format!("crlfile {}: a list is no longer current: clients are refused", path.display()));
    }
    Ok(warnings)
}

impl ClientTls {
    /// Reads the files and builds the configuration; `now` is for the warnings.
    ///
    /// # Errors
    /// With the setting, the file and the reason.
    pub fn load(options: &ClientTlsOptions, now: Now) -> Result<Self, TlsError> {
        let versions = supported(&options.versions)?;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions)?;
        let (servers, mut warnings) = link_servers(options, now)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(servers));
        let (mut config, not_after_unix) = match client_identity(options, now)? {
            Some(identity) => {
                warnings.extend(identity.warnings);
                let own = Arc::new(SingleCertAndKey::from(identity.certified));
                (builder.with_client_cert_resolver(own), Some(identity.not_after_unix))
            }
            None => (builder.with_no_client_auth(), None),
        };
        // Links are few and long-lived: verify every time.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            server_name: options.server_name.clone(),
            not_after_unix,
            warnings,
        })
    }
}

fn client_identity(options: &ClientTlsOptions, now: Now) -> Result<Option<Identity>, TlsError> {
    if let Some(own) = &options.own {
        return Ok(Some(Identity::of_link(own, now)));
    }
    match (&options.certfile, &options.keyfile) {
        (Some(certfile), Some(keyfile)) => {
            let own = demands(options.strict, &[]);
            Identity::load(certfile, keyfile, options.password.as_ref(), &own, now).map(Some)
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(TlsError::Options("certfile needs keyfile")),
        (None, Some(_)) => Err(TlsError::Options("keyfile needs certfile")),
    }
}

fn link_servers(options: &ClientTlsOptions, now: Now) -> Result<(LinkServers, Vec<String>), TlsError> {
    let signatures = Signatures::new();
    let anybody = LinkServers { by_chain: None, pins: Vec::new(), demands: None, signatures };
    if options.verify == Verify::None {
        let warning = "verify = \"verify_none\": the server's certificate is not verified".to_owned();
        return Ok((anybody, vec![warning]));
    }
    let (by_chain, warnings) = match &options.cacertfile {
        None if options.server_pins.is_empty() => {
            return Err(TlsError::Options("verify = \"verify_peer\" needs cacertfile, or cert_sha256"));
        }
        None => (None, Vec::new()),
        Some(cacertfile) => {
            let authorities = PemFile::read("cacertfile", cacertfile)?;
            let (roots, warnings) = authorities.roots(now)?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            (Some(verifier.map_err(|error| authorities.wrong(error.to_string()))?), warnings)
        }
    };
    let demands = Some(demands(options.strict, &[]));
    Ok((LinkServers { by_chain, pins: options.server_pins.clone(), demands, ..anybody }, warnings))
}
