//! Authorities and what they issue, made for each test; a server and a client that meet.

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rcgen::SerialNumber;
use rcgen::date_time_ymd;
use rustls::CertificateError;
use rustls::Error;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use sha2::Digest;
use sha2::Sha256;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tombolo::auth::certificate::CertificateFacts;
use tombolo::config::settings::CipherSuite;
use tombolo::config::settings::PartialChain;
use tombolo::net::clock;
use tombolo::net::dial::dial;
use tombolo::net::handshake::HandshakeError;
use tombolo::net::handshake::accept_tls;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// An authority, and a folder for what it issues.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in files and in memory.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certfile: PathBuf,
    pub(crate) keyfile: PathBuf,
    pub(crate) der: Vec<u8>,
    pub(crate) key_der: Vec<u8>,
}

impl Issued {
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, 4000)
    }

    /// One whose own certificate expires with the beginning of this year.
    pub(crate) fn until(name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 1, 1);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (certfile, keyfile) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        fs::write(&certfile, certificate.pem()).unwrap();
        fs::write(&keyfile, key.serialize_pem()).unwrap();
        Issued { certfile, keyfile, der: certificate.der().to_vec(), key_der: key.serialize_der() }
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    /// An authority whose own certificate this one has issued; what it issues is in a folder of its own.
    pub(crate) fn authority(&self, name: &str, serial: u64) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// A certificate for the name and the key of `other`, by this one.
    pub(crate) fn vouch(
        &self,
        other: &Self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> PathBuf {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let path = self.path(&format!("for-{name}-{}.pem", self.folder.path().read_dir().unwrap().count()));
        fs::write(&path, params.signed_by(other.issuer.key(), &self.issuer).unwrap().pem()).unwrap();
        path
    }

    /// What these files hold, one behind the other, in one.
    pub(crate) fn bundle(&self, name: &str, files: &[PathBuf]) -> PathBuf {
        let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A revocation list naming `serial`, current until `next_update`'s year.
    pub(crate) fn revoke(&self, serial: u64, next_year: i32) -> PathBuf {
        self.revoke_in(2020, serial, next_year)
    }

    /// Such a list, made in this year.
    pub(crate) fn revoke_in(&self, year: i32, serial: u64, next_year: i32) -> PathBuf {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(next_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path("crl.pem");
        fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }
}

/// A listener that asks for no certificate.
pub(crate) fn open(server: &Issued) -> ServerTlsOptions {
    ServerTlsOptions {
        own: None,
        certfile: server.certfile.clone(),
        keyfile: server.keyfile.clone(),
        password: None,
        ocsp_issuer: None,
        cacertfile: None,
        partial_chain: PartialChain::Off,
        crl: None,
        verify: Verify::None,
        fail_if_no_peer_cert: false,
        client_pins: Vec::new(),
        depth: 10,
        key_usages: Vec::new(),
        strict: false,
        versions: vec![TlsVersion::V13, TlsVersion::V12],
        ciphers: CipherSuite::ALL.to_vec(),
        honor_cipher_order: true,
        reuse_sessions: false,
        session_tickets: false,
        server_names: Vec::new(),
    }
}

/// One that lets in whom the authority vouches for.
pub(crate) fn strict(server: &Issued, authority: &Authority) -> ServerTlsOptions {
    ServerTlsOptions {
        cacertfile: Some(authority.file()),
        verify: Verify::Peer,
        fail_if_no_peer_cert: true,
        depth: 2,
        ..open(server)
    }
}

pub(crate) fn client(authority: &Authority, own: Option<&Issued>) -> ClientTlsOptions {
    ClientTlsOptions {
        cacertfile: Some(authority.file()),
        own: None,
        certfile: own.map(|own| own.certfile.clone()),
        keyfile: own.map(|own| own.keyfile.clone()),
        password: None,
        server_pins: Vec::new(),
        strict: false,
        verify: Verify::Peer,
        server_name: Some("localhost".to_owned()),
        versions: vec![TlsVersion::V13, TlsVersion::V12],
    }
}

/// What each side makes of one connection. The client also reads: with TLS 1.3 it hears of a refusal only then.
pub(crate) struct Meeting {
    pub(crate) server: Result<Option<CertificateFacts>, HandshakeError>,
    pub(crate) client: Result<Vec<u8>, String>,
}

pub(crate) async fn meet(server: &ServerTlsOptions, client: &ClientTlsOptions) -> Meeting {
    meet_with(server, ClientTls::load(client, clock::now()).unwrap()).await
}

pub(crate) async fn meet_with(server: &ServerTlsOptions, client: ClientTls) -> Meeting {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = ServerTls::load(server, clock::now()).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut handshaken = accept_tls(stream, &tls, LIMIT).await?;
        handshaken.transport.write_all(b"welcome").await.unwrap();
        handshaken.transport.shutdown().await.unwrap();
        Ok(handshaken.certificate.map(|certificate| *certificate))
    });
    let client = async {
        let mut transport =
            dial("127.0.0.1", port, Some(&client), LIMIT).await.map_err(|error| error.to_string())?;
        assert!(transport.is_encrypted());
        let mut bytes = Vec::new();
        transport.read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
        Ok(bytes)
    }
    .await;
    Meeting { server: serving.await.unwrap(), client }
}

/// Our own reason behind an error of the library.
pub(crate) fn reason(error: &Error) -> String {
    match invalid(error) {
        CertificateError::Other(other) => other.0.to_string(),
        error => error.to_string(),
    }
}

impl Meeting {
    pub(crate) fn let_in(self) -> Option<CertificateFacts> {
        assert_eq!(self.client.as_deref(), Ok(b"welcome".as_slice()));
        self.server.expect("let in")
    }

    /// The server's TLS error, and the alert as the client words it.
    pub(crate) fn refused(self) -> (Error, String) {
        let error = match self.server {
            Err(HandshakeError::Tls(error) | HandshakeError::Untrusted { error, .. }) => error,
            other => panic!("expected a TLS error, got {other:?}"),
        };
        (error, self.client.expect_err("no byte for a client that is refused"))
    }
}

pub(crate) fn invalid(error: &Error) -> &CertificateError {
    match error {
        Error::InvalidCertificate(error) => error,
        other => panic!("not about the certificate: {other}"),
    }
}

/// Presents one certificate and signs with the key of another.
#[derive(Debug)]
pub(crate) struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(crate) fn impostor(authority: &Authority, certificate: &Issued, key: &Issued) -> ClientTls {
    let key = PrivateKeyDer::try_from(key.key_der.clone()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let certified = CertifiedKey::new(vec![certificate.der.clone().into()], key);
    let mut tls = ClientTls::load(&client(authority, None), clock::now()).unwrap();
    let mut config = (*tls.config).clone();
    config.client_auth_cert_resolver = Arc::new(Impostor(Arc::new(certified)));
    tls.config = Arc::new(config);
    tls
}

pub(crate) fn pinned(server: &Issued, peers: &[&Issued]) -> ServerTlsOptions {
    ServerTlsOptions {
        verify: Verify::Peer,
        fail_if_no_peer_cert: true,
        client_pins: peers.iter().map(|peer| peer.fingerprint()).collect(),
        depth: 2,
        ..open(server)
    }
}

/// A certificate of `tests/fixtures/tls`, and its key unless it has that of another.
pub(crate) fn fixture(name: &str) -> Issued {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls"));
    let certfile = folder.join(format!("{name}.pem"));
    let own = folder.join(format!("{name}.key"));
    let keyfile = if own.exists() { own } else { folder.join("rsa-3072.key") };
    let der = CertificateDer::from_pem_file(&certfile).unwrap().to_vec();
    let key_der = PrivateKeyDer::from_pem_file(&keyfile).unwrap().secret_der().to_vec();
    Issued { certfile, keyfile, der, key_der }
}
