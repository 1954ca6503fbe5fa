//! TLS of a listener: EMQX's option names (`authn-tls.md` section 1).

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `[listeners.ssl]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Our certificate and its chain, PEM.
    pub certfile: PathBuf,
    /// Its private key, PEM.
    pub keyfile: PathBuf,
    /// Passphrase of the private key.
    pub password: Option<Secret>,
    /// Authorities whose client certificates are accepted, PEM. Absent with `verify_peer` on a listener for
    /// links, the peers' pinned fingerprints decide.
    pub cacertfile: Option<PathBuf>,
    /// Whether a client certificate is asked for and checked.
    pub verify: Verify,
    /// Whether a client without a certificate is refused.
    pub fail_if_no_peer_cert: bool,
    /// Protocol versions offered.
    pub versions: TlsVersions,
    /// Intermediate certificates allowed between a leaf and its authority.
    pub depth: u8,
    /// A file with revocation lists, PEM.
    pub crlfile: Option<PathBuf>,
    /// Whether the client certificate names the user.
    pub peer_cert_as_username: PeerCertAs,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
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
