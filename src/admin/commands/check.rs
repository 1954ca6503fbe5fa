//! `tombolo check`: everything that can be said about a configuration without running it.

use std::path::Path;

use super::Exit;
use super::Failure;
use super::acl;
use super::settings;
use crate::acl::compile::CompileOptions;
use crate::acl::lint::Inventory;
use crate::acl::lint::LinkInfo;
use crate::acl::rule;
use crate::auth::password::PasswordFile;
use crate::config;
use crate::config::Settings;
use crate::config::settings::AclMode;
use crate::config::settings::AclSource;
use crate::config::settings::Authorization;
use crate::config::settings::ClientTls;
use crate::config::settings::DenyAction;
use crate::config::settings::ListenerTls;
use crate::config::settings::Permission;
use crate::config::settings::SHIPPED_ACL;
use crate::config::settings::SecurityProfile;
use crate::config::settings::TlsVersions;
use crate::config::settings::Verify;
use crate::net::clock;
use crate::net::tls;

/// The longest password file that is read.
const PASSWORD_FILE_BYTES_MAX: u64 = 64 << 20;

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Checks a configuration and every file it names; `hardened` turns warnings into errors.
pub fn check(config: Option<&Path>, hardened: bool) -> Result<(), Failure> {
    let settings = settings(config)?;
    let mut findings = inspect(&settings);
    if hardened {
        findings.errors.append(&mut findings.warnings);
        findings.errors.extend(config::weaknesses(&settings));
    }
    for line in &findings.warnings {
        println!("warning: {line}");
    }
    if !findings.errors.is_empty() {
        return Err(Failure::new(Exit::Usage, findings.errors.join("\n")));
    }
    let (listeners, links) = (settings.listeners.len(), settings.cluster.links.len());
    println!("ok: cluster {}, listeners: {listeners}, links: {links}", settings.cluster.name);
    Ok(())
}

fn inspect(settings: &Settings) -> Findings {
    let mut findings = Findings { errors: Vec::new(), warnings: config::warnings(settings) };
    rules(settings, &mut findings);
    passwords(settings, &mut findings);
    listener_certificates(settings, &mut findings);
    link_certificates(settings, &mut findings);
    findings
}

fn rules(settings: &Settings, findings: &mut Findings) {
    let (name, bytes) = match &settings.authorization.file {
        AclSource::Embedded => ("acl.conf (built in)".to_owned(), SHIPPED_ACL.as_bytes().to_vec()),
        AclSource::File(path) => {
            let name = path.display().to_string();
            match acl::read(path) {
                Ok(bytes) => (name, bytes),
                Err(diagnostic) => {
                    findings.errors.push(format!("authorization.file: {}", diagnostic.render(&name)));
                    return;
                }
            }
        }
    };
    let report = acl::judge(&name, &bytes, &compile_options(&settings.authorization), &inventory(settings));
    if report.usable { &mut findings.warnings } else { &mut findings.errors }.extend(report.lines);
}

fn compile_options(authorization: &Authorization) -> CompileOptions {
    CompileOptions {
        mode: match authorization.mode {
            AclMode::Strict => rule::Mode::Strict,
            AclMode::Emqx => rule::Mode::Emqx,
        },
        security_profile: match authorization.security_profile {
            SecurityProfile::Legacy => rule::SecurityProfile::Legacy,
            SecurityProfile::Hardened => rule::SecurityProfile::Hardened,
        },
    }
}

fn inventory(settings: &Settings) -> Inventory {
    let link = |link: &config::settings::Link| LinkInfo {
        name: link.name.clone(),
        clientid_prefix: link.peer.clientid.clone(),
        username: link.peer.username.clone(),
    };
    let doors = settings.listeners.iter().filter(|listener| listener.role.accepts_links());
    Inventory {
        links: settings.cluster.links.iter().map(link).collect(),
        no_match: match settings.authorization.no_match {
            Permission::Allow => rule::Permission::Allow,
            Permission::Deny => rule::Permission::Deny,
        },
        deny_disconnects: settings.authorization.deny_action == DenyAction::Disconnect,
        link_listeners: doors.map(config::settings::Listener::id).collect(),
        listeners: settings.listeners.iter().map(config::settings::Listener::id).collect(),
        applications: Vec::new(),
    }
}

fn passwords(settings: &Settings, findings: &mut Findings) {
    use std::io::Read;
    let Some(path) = &settings.authentication.password_file else { return };
    let shown = path.display();
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        findings.errors.push(format!("authentication.password_file: {shown}: {error}"));
        return;
    }
    match PasswordFile::parse(&text) {
        Err(error) => findings.errors.push(format!("{shown}:{}:1: {}", error.line, error.error)),
        Ok(passwords) => {
            // A peer that is to prove itself by name and password must have both.
            for link in settings.cluster.links.iter().filter(|link| link.enable) {
                let name = link.peer.username.as_deref().filter(|name| passwords.lookup(name).is_none());
                let certain = !link.peer.cert_sha256.is_empty() || link.peer.cert_cn.is_some();
                if let (Some(user), false) = (name, certain) {
                    let line = format!("cluster.links[{}].peer.username: {shown} has no `{user}`", link.name);
                    findings.warnings.push(line);
                }
            }
        }
    }
    exposed("authentication.password_file", path, findings);
}

fn listener_certificates(settings: &Settings, findings: &mut Findings) {
    let pins: Vec<[u8; 32]> =
        settings.cluster.links.iter().flat_map(|link| link.peer.cert_sha256.iter().copied()).collect();
    for listener in settings.listeners.iter().filter(|listener| listener.enable) {
        let Some(ssl) = &listener.ssl else { continue };
        let pins = if listener.role.accepts_links() { pins.clone() } else { Vec::new() };
        let key = format!("listeners[{}].ssl", listener.id());
        match tls::ServerTls::load(&server_options(ssl, pins), clock::now()) {
            Ok(loaded) => {
                findings.warnings.extend(loaded.warnings.iter().map(|line| format!("{key}: {line}")))
            }
            Err(error) => findings.errors.push(format!("{key}: {error}")),
        }
        exposed(&format!("{key}.keyfile"), &ssl.keyfile, findings);
    }
}

fn link_certificates(settings: &Settings, findings: &mut Findings) {
    for link in &settings.cluster.links {
        let Some(ssl) = &link.ssl else { continue };
        let key = format!("cluster.links[{}].ssl", link.name);
        match tls::ClientTls::load(&client_options(ssl), clock::now()) {
            Ok(loaded) => {
                findings.warnings.extend(loaded.warnings.iter().map(|line| format!("{key}: {line}")))
            }
            Err(error) => findings.errors.push(format!("{key}: {error}")),
        }
        if let Some(keyfile) = &ssl.keyfile {
            exposed(&format!("{key}.keyfile"), keyfile, findings);
        }
    }
}

/// What the TLS of a listener is built from; `pins` are the fingerprints of all peers.
fn server_options(ssl: &ListenerTls, pins: Vec<[u8; 32]>) -> tls::ServerTlsOptions {
    tls::ServerTlsOptions {
        certfile: ssl.certfile.clone(),
        keyfile: ssl.keyfile.clone(),
        cacertfile: ssl.cacertfile.clone(),
        crlfile: ssl.crlfile.clone(),
        verify: verify(ssl.verify),
        fail_if_no_peer_cert: ssl.fail_if_no_peer_cert,
        client_pins: pins,
        versions: versions(ssl.versions),
    }
}

/// What the TLS of a link is built from: 1.3 only (`authn-tls.md` section 1, link column).
fn client_options(ssl: &ClientTls) -> tls::ClientTlsOptions {
    tls::ClientTlsOptions {
        cacertfile: ssl.cacertfile.clone(),
        certfile: ssl.certfile.clone(),
        keyfile: ssl.keyfile.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Findings {
        inspect(&config::parse("t.toml", text, &config::Environment::default()).unwrap())
    }

    #[test]
    fn the_defaults_are_in_order() {
        let findings = findings("");
        assert_eq!(findings.errors, [""; 0]);
    }

    #[test]
    fn every_file_that_is_named_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("acl.conf"), "{allow, all}").unwrap();
        std::fs::write(dir.path().join("passwd"), "no separator\n").unwrap();
        let text = r#"
            [cluster]
            name = "A"
            [authorization]
            file = "DIR/acl.conf"
            [authentication]
            password_file = "DIR/passwd"
            [[listeners]]
            name = "tls"
            type = "ssl"
            ssl = { certfile = "DIR/none.pem", keyfile = "DIR/none.key" }
            [[cluster.links]]
            name = "B"
            server = "localhost"
            topics = []
            peer.username = "b"
            ssl.cacertfile = "DIR/none-ca.pem"
        "#;
        let dir = dir.path().display().to_string();
        let found = findings(&text.replace("DIR", &dir)).errors;
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].starts_with(&format!("{dir}/acl.conf:1:")), "{}", found[0]);
        assert!(found[1].starts_with(&format!("{dir}/passwd:1:1: ")), "{}", found[1]);
        assert!(found[2].starts_with("listeners[ssl:tls].ssl: certfile "), "{}", found[2]);
        assert!(found[3].starts_with("cluster.links[B].ssl: cacertfile "), "{}", found[3]);
    }

    #[test]
    fn a_peer_without_a_password_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        std::fs::write(&path, "# nobody yet\n").unwrap();
        let text = format!(
            "[cluster]\nname = \"A\"\n[authentication]\npassword_file = \"{}\"\n[[cluster.links]]\nname = \"B\"\n\
             server = \"localhost\"\ntopics = []\nssl.enable = false\npeer.username = \"b\"\n",
            path.display()
        );
        let warnings = findings(&text).warnings;
        assert!(
            warnings.iter().any(|line| line.starts_with("cluster.links[B].peer.username: ")),
            "{warnings:?}"
        );
    }
}
