//! Everything the settings name that lies in files: rules, passwords, certificates. Read and checked as a
//! whole before any of it is used; `serve`, a reload and `check` all come through here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::auth::peer::PeerRule;
use crate::auth::users::MAX_FILE_BYTES;
use crate::auth::users::Stored;
use crate::auth::users::Users;
use crate::broker::acl_file::AclFile;
use crate::broker::acl_file::LoadedRules;
use crate::broker::authenticate::Credentials;
use crate::broker::identity::Policy;
use crate::broker::link_keys::LinkKeys;
use crate::config::settings::ClientTls;
use crate::config::settings::Link;
use crate::config::settings::Listener;
use crate::config::settings::ListenerTls;
use crate::config::settings::Settings;
use crate::config::settings::TlsVersions;
use crate::config::settings::Verify;
use crate::net::own_certificate::OwnCertificate;
use crate::net::own_certificate::Pair;
use crate::net::tls;
use crate::net::tls::ClientTlsOptions;
use crate::net::tls::ServerTls;
use crate::net::tls::ServerTlsOptions;
use crate::time::Now;

mod chain;

pub(super) use self::chain::certificate_part;

/// What was read.
#[derive(Debug)]
pub struct Material {
    /// The ACL.
    pub policy: Policy,
    /// Who may come in.
    pub credentials: Credentials,
    /// TLS by listener id.
    pub tls: BTreeMap<String, Arc<ServerTls>>,
    /// For servers of revocation lists whose address is `https`.
    pub web: Option<tls::ClientTls>,
    /// What an operator should know: lint findings, certificates that expire, files open to everyone.
    pub warnings: Vec<String>,
    /// What an operator may like to know.
    pub notes: Vec<String>,
}

/// Errors and warnings on the way.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl Material {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every one of them, each naming the setting and the file, and what is wrong where.
    pub fn load(settings: &Settings, now: Now) -> Result<Self, Vec<String>> {
        Self::load_with(settings, None, now)
    }

    /// The same for a broker that has the lock of the data directory: a link certificate that is needed and not there is
    /// made now, not only tried.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(settings: &Settings, keys: Option<&LinkKeys>, now: Now) -> Result<Self, Vec<String>> {
        let mut findings = Findings::default();
        let own = link_certificate(settings, keys, now, &mut findings);
        let policy = policy(settings, &mut findings);
        let chain = chain::load(settings, now, &mut findings);
        let scram = settings.authentication.scram_file();
        let scram = scram.and_then(|path| users("authentication.chain.password_file", path, &mut findings));
        let mut tls = BTreeMap::new();
        for listener in settings.listeners.iter().filter(|listener| listener.enable) {
            let links = &settings.cluster.links;
            if let Some(loaded) = listener_tls(listener, links, own.as_ref(), now, &mut findings) {
                tls.insert(listener.id(), Arc::new(loaded));
            }
        }
        for link in &settings.cluster.links {
            check_link_tls(link, now, &mut findings);
        }
        let web = web(settings, now, &mut findings);
        check_http_tls(settings, now, &mut findings);
        match policy {
            Some(policy) if findings.errors.is_empty() => {
                let credentials = Credentials {
                    allow_anonymous: settings.authentication.allow_anonymous,
                    chain: chain.into(),
                    scram: scram.map(Arc::new),
                    peers: settings.cluster.links.iter().map(peer_rule).collect(),
                };
                Ok(Self { policy, credentials, tls, web, warnings: findings.warnings, notes: findings.notes })
            }
            _ => Err(findings.errors),
        }
    }
}

/// What a change of links alone has to read.
#[derive(Debug, Default)]
pub struct LinkMaterial {
    /// TLS of the listeners for links, by their id, if the fingerprints they take have changed.
    pub tls: BTreeMap<String, Arc<ServerTls>>,
    /// As in [`Material`], if they have.
    pub web: Option<tls::ClientTls>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

impl LinkMaterial {
    /// Reads and checks what the listeners for links need to show `own`, which need not be the link certificate in force.
    ///
    /// # Errors
    /// As [`Material::load`].
    pub fn to_show(settings: &Settings, own: &Arc<OwnCertificate>, now: Now) -> Result<Self, Vec<String>> {
        let mut findings = Findings::default();
        Self::of_listeners(settings, Some(own), now, &mut findings).into_result(findings)
    }

    /// Reads and checks what the links called `names` need, and with `repin` what the listeners for links need.
    ///
    /// # Errors
    /// As [`Material::load`].
    pub fn load(
        settings: &Settings,
        names: &[String],
        repin: bool,
        keys: &LinkKeys,
        now: Now,
    ) -> Result<Self, Vec<String>> {
        let mut findings = Findings::default();
        let links = &settings.cluster.links;
        for link in links.iter().filter(|link| names.contains(&link.name)) {
            check_link_tls(link, now, &mut findings);
        }
        let mut material = Self::default();
        if repin {
            let own = link_certificate(settings, Some(keys), now, &mut findings);
            material = Self::of_listeners(settings, own.as_ref(), now, &mut findings);
        }
        material.into_result(findings)
    }

    fn of_listeners(
        settings: &Settings,
        own: Option<&Arc<OwnCertificate>>,
        now: Now,
        findings: &mut Findings,
    ) -> Self {
        let (links, mut tls) = (&settings.cluster.links, BTreeMap::new());
        let enabled = settings.listeners.iter().filter(|listener| listener.enable);
        for listener in enabled.filter(|listener| listener.role.accepts_links()) {
            if let Some(loaded) = listener_tls(listener, links, own, now, findings) {
                tls.insert(listener.id(), Arc::new(loaded));
            }
        }
        Self { tls, web: web(settings, now, findings), warnings: Vec::new() }
    }

    fn into_result(self, findings: Findings) -> Result<Self, Vec<String>> {
        if findings.errors.is_empty() {
            Ok(Self { warnings: findings.warnings, ..self })
        } else {
            Err(findings.errors)
        }
    }
}

/// The certificate of the port for operators, if it is not the link certificate.
fn check_http_tls(settings: &Settings, now: Now, findings: &mut Findings) {
    let files =
        settings.http.ssl.as_ref().and_then(|ssl| ssl.certfile.as_deref().zip(ssl.keyfile.as_deref()));
    let Some((certfile, keyfile)) = files else { return };
    exposed("http.ssl.keyfile", keyfile, findings);
    if let Err(error) = tls::operators(None, Some((certfile, keyfile)), now) {
        findings.errors.push(format!("http.ssl: {error}"));
    }
}

fn policy(settings: &Settings, findings: &mut Findings) -> Option<Policy> {
    match Arc::new(AclFile::of(settings)).load() {
        Ok(LoadedRules { policy, warnings, notes }) => {
            findings.warnings.extend(warnings);
            findings.notes.extend(notes);
            Some(policy)
        }
        Err(errors) => {
            findings.errors.extend(errors);
            None
        }
    }
}

/// Reads a file of users, which `key` names.
fn users<S: Stored>(key: &str, path: &Path, findings: &mut Findings) -> Option<Users<S>> {
    let shown = path.display();
    let text = match read_bounded(path, MAX_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            findings.errors.push(format!("{key}: {shown}: {error}"));
            return None;
        }
    };
    exposed(key, path, findings);
    match Users::parse(&text) {
        Ok(users) => Some(users),
        Err(error) => {
            findings.errors.push(format!("{shown}:{}:1: {}", error.line, error.error));
            None
        }
    }
}

/// The link certificate, if a listener shows it. Without `keys` one that is not there is only tried, and thrown away.
fn link_certificate(
    settings: &Settings,
    keys: Option<&LinkKeys>,
    now: Now,
    findings: &mut Findings,
) -> Option<Arc<OwnCertificate>> {
    let enabled = settings.listeners.iter().filter(|listener| listener.enable);
    let shows_it = |ssl: &ListenerTls| ssl.certfile.is_none();
    enabled.filter_map(|listener| listener.ssl.as_ref()).find(|ssl| shows_it(ssl))?;
    let own = match keys {
        Some(keys) => {
            findings.warnings.extend(keys.warnings());
            keys.ensure(now)
        }
        None => LinkKeys::look(&settings.data.dir).and_then(|there| match there {
            Some(own) => Ok(Arc::new(own)),
            None => {
                findings.notes.push("the link certificate is made at the first start".to_owned());
                Ok(Arc::new(OwnCertificate::new(&Pair::make(&settings.cluster.name, now)?)?))
            }
        }),
    };
    own.map_err(|error| findings.errors.push(format!("link certificate: {error}"))).ok()
}

fn listener_tls(
    listener: &Listener,
    links: &[Link],
    own: Option<&Arc<OwnCertificate>>,
    now: Now,
    findings: &mut Findings,
) -> Option<ServerTls> {
    let ssl = listener.ssl.as_ref()?;
    let pins = if listener.role.accepts_links() {
        links.iter().flat_map(|link| link.peer.cert_sha256.iter().copied()).collect()
    } else {
        Vec::new()
    };
    let strict = listener.role.accepts_links() && !listener.allow_insecure;
    let key = format!("listeners[{}].ssl", listener.id());
    match &ssl.keyfile {
        Some(keyfile) => exposed(&format!("{key}.keyfile"), keyfile, findings),
        // What is wrong with it was said.
        None if own.is_none() => return None,
        None => {}
    }
    if ssl.added_13 {
        findings.notes.push(format!("{key}.ciphers: no suite of TLS 1.3 is listed, all of them were added"));
    }
    let own = own.filter(|_| ssl.certfile.is_none()).cloned();
    match ServerTls::load(&ServerTlsOptions { own, ..server_options(ssl, pins, strict) }, now) {
        Ok(loaded) => {
            findings.warnings.extend(loaded.warnings.iter().map(|line| format!("{key}: {line}")));
            Some(loaded)
        }
        Err(error) => {
            findings.errors.push(format!("{key}: {error}"));
            None
        }
    }
}

fn check_link_tls(link: &Link, now: Now, findings: &mut Findings) {
    // Nobody is dialled, and nobody is known by whom to verify.
    if link.is_dormant() {
        return;
    }
    let Some(ssl) = &link.ssl else { return };
    let key = format!("cluster.links[{}].ssl", link.name);
    match tls::ClientTls::load(&client_options(link, ssl), now) {
        Ok(loaded) => findings.warnings.extend(loaded.warnings.iter().map(|line| format!("{key}: {line}"))),
        Err(error) => findings.errors.push(format!("{key}: {error}")),
    }
    if let Some(keyfile) = &ssl.keyfile {
        exposed(&format!("{key}.keyfile"), keyfile, findings);
    }
}

/// TLS towards servers of revocation lists.
fn web(settings: &Settings, now: Now, findings: &mut Findings) -> Option<tls::ClientTls> {
    let cacertfile = settings.crl_cache.cacertfile.clone()?;
    let options = ClientTlsOptions::for_web(cacertfile);
    match tls::ClientTls::load(&options, now) {
        Ok(loaded) => {
            findings.warnings.extend(loaded.warnings.iter().map(|line| format!("crl_cache.{line}")));
            Some(loaded)
        }
        Err(error) => {
            findings.errors.push(format!("crl_cache.{error}"));
            None
        }
    }
}

/// What the TLS of a listener is built from; `pins` are the fingerprints of all peers.
fn server_options(ssl: &ListenerTls, pins: Vec<[u8; 32]>, strict: bool) -> ServerTlsOptions {
    ServerTlsOptions {
        own: None,
        certfile: ssl.certfile.clone().unwrap_or_default(),
        keyfile: ssl.keyfile.clone().unwrap_or_default(),
        password: ssl.password.clone(),
        ocsp_issuer: ssl.ocsp.as_ref().map(|ocsp| ocsp.issuer_pem.clone()),
        cacertfile: ssl.cacertfile.clone(),
        partial_chain: ssl.partial_chain,
        crl: ssl.crl.clone(),
        verify: verify(ssl.verify),
        fail_if_no_peer_cert: ssl.fail_if_no_peer_cert,
        client_pins: pins,
        depth: ssl.depth,
        key_usages: ssl.key_usages.clone(),
        strict,
        versions: versions(ssl.versions),
        ciphers: ssl.ciphers.clone(),
        honor_cipher_order: ssl.honor_cipher_order,
        reuse_sessions: ssl.reuse_sessions,
        session_tickets: ssl.session_tickets,
        server_names: ssl.server_names.clone(),
    }
}

/// What the TLS of a link is built from: 1.3 only (`authn-tls.md` section 1, link column).
#[must_use]
pub fn client_options(link: &Link, ssl: &ClientTls) -> ClientTlsOptions {
    ClientTlsOptions {
        cacertfile: ssl.cacertfile.clone(),
        own: None,
        certfile: ssl.certfile.clone(),
        keyfile: ssl.keyfile.clone(),
        password: ssl.password.clone(),
        server_pins: ssl.cert_sha256.clone(),
        strict: !link.allow_insecure,
        verify: verify(ssl.verify),
        server_name: ssl.server_name.clone(),
        versions: versions(TlsVersions::ONLY_13),
    }
}

fn verify(verify: Verify) -> tls::Verify {
    match verify {
        Verify::None => tls::Verify::None,
        Verify::Peer => tls::Verify::Peer,
    }
}

fn versions(versions: TlsVersions) -> Vec<tls::TlsVersion> {
    let mut list = Vec::new();
    if versions.tls13 {
        list.push(tls::TlsVersion::V13);
    }
    if versions.tls12 {
        list.push(tls::TlsVersion::V12);
    }
    list
}

/// How the peer of a link proves itself.
#[must_use]
pub fn peer_rule(link: &Link) -> PeerRule {
    PeerRule {
        cluster: link.name.clone(),
        clientid_prefix: link.peer.clientid.clone(),
        username: link.peer.username.clone(),
        cert_sha256: link.peer.cert_sha256.clone(),
        cert_cn: link.peer.cert_cn.clone(),
        allow_unauthenticated: link.peer.allow_unauthenticated,
    }
}

pub(super) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Secrets are for their owner, or for a group that runs the broker (`authn-tls.md` section 5).
fn exposed(key: &str, path: &Path, findings: &mut Findings) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o007 != 0 {
            findings.warnings.push(format!("{key}: {} is open to every user: chmod o= it", path.display()));
        }
    }
    #[cfg(not(unix))]
    let _ = (key, path, findings);
}
