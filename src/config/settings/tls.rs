//! TLS of a listener: EMQX's option names (`authn-tls.md` section 1).

use std::path::PathBuf;
use std::time::Duration;

pub use crate::auth::fitness::KeyUsage;

use super::CipherSuite;
use super::HttpUrl;
use super::Secret;

/// `[listeners.ssl]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Our certificate and its chain, PEM. Absent, with its key, on a listener of role link: the link certificate.
    pub certfile: Option<PathBuf>,
    /// Its private key, PEM.
    pub keyfile: Option<PathBuf>,
    /// Pass phrase of the private key.
    pub password: Option<Secret>,
    /// Authorities whose client certificates are accepted, PEM. Absent with `verify_peer` on a listener for
    /// links, the peers' pinned fingerprints decide.
    pub cacertfile: Option<PathBuf>,
    /// Which certificates of `cacertfile` are trusted beside the roots.
    pub partial_chain: PartialChain,
    /// Whether a client certificate is asked for and checked.
    pub verify: Verify,
    /// Whether a client without a certificate is refused.
    pub fail_if_no_peer_cert: bool,
    /// What a client certificate must be for, all of it (`verify_peer_ext_key_usage`).
    pub key_usages: Vec<KeyUsage>,
    /// Protocol versions offered.
    pub versions: TlsVersions,
    /// Cipher suites offered, the first preferred.
    pub ciphers: Vec<CipherSuite>,
    /// The suites of TLS 1.3 were added to those listed.
    pub added_13: bool,
    /// Whether our order of suites counts and not the client's.
    pub honor_cipher_order: bool,
    /// Whether sessions of TLS 1.2 are resumed by their identifiers.
    pub reuse_sessions: bool,
    /// Whether clients get tickets to resume with.
    pub session_tickets: bool,
    /// Names of this server that a client may ask for (SNI), and must; empty: any, or none.
    pub server_names: Vec<String>,
    /// Intermediate certificates allowed between a leaf and its authority.
    pub depth: u8,
    /// What tells of revoked certificates; `None`: nobody is asked.
    pub crl: Option<CrlSource>,
    /// Stapled proof that our own certificate is not revoked.
    pub ocsp: Option<Ocsp>,
    /// Whether the client certificate names the user.
    pub peer_cert_as_username: PeerCertAs,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

/// Where revocation lists come from. Never the address that a client's own certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrlSource {
    /// `crlfile`, PEM.
    File(PathBuf),
    /// `crl_url`: one list each, DER or PEM.
    Urls(Vec<HttpUrl>),
}

/// `[listeners.ssl.ocsp]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ocsp {
    /// Who is asked.
    pub responder_url: HttpUrl,
    /// The certificate of the authority that issued ours, PEM.
    pub issuer_pem: PathBuf,
    /// How often.
    pub refresh_interval: Duration,
    /// How long an answer may take.
    pub refresh_http_timeout: Duration,
}

/// `[crl_cache]`: how the lists of `crl_url` are fetched, for all listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlCache {
    /// How often.
    pub refresh_interval: Duration,
    /// How long an answer may take.
    pub http_timeout: Duration,
    /// Addresses of all listeners together.
    pub capacity: usize,
    /// Authorities of the servers of `https` addresses, PEM.
    pub cacertfile: Option<PathBuf>,
}

/// Which certificates of `cacertfile` are trusted although an authority outside of it issued them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartialChain {
    /// None.
    Off,
    /// The last one of the file.
    LastOne,
    /// The last two of the file.
    LastTwo,
}

/// Whether the other side's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// `verify_none`
    None,
    /// `verify_peer`
    Peer,
}

/// Protocol versions offered: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2
    pub tls12: bool,
    /// TLS 1.3
    pub tls13: bool,
}

impl TlsVersions {
    /// TLS 1.3 and 1.2.
    pub const BOTH: Self = Self { tls12: true, tls13: true };
    /// TLS 1.3 only.
    pub const ONLY_13: Self = Self { tls12: false, tls13: true };
}

/// Which part of a client certificate becomes the username.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCertAs {
    /// None: the username of CONNECT stands.
    Disabled,
    /// The common name.
    Cn,
    /// The distinguished name.
    Dn,
    /// The SHA-256 fingerprint in lower-case hex.
    Sha256,
}
