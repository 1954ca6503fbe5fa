//! The steps of the chain of authenticators, from their settings and files.

use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderValue;
use sha2::Digest;
use sha2::Sha256;

use super::Findings;
use super::read_bounded;
use super::users;
use crate::auth::CertificateUsername;
use crate::auth::jwt;
use crate::auth::jwt::keys::KEY_SET_BYTES_MAX;
use crate::auth::jwt::keys::KeyError;
use crate::auth::jwt::keys::KeySet;
use crate::auth::password::PasswordFile;
use crate::broker::authenticate::Step;
use crate::broker::callout::Callout;
use crate::broker::jwks::Source;
use crate::broker::jwks::TokenKeys;
use crate::broker::password_book::PasswordBook;
use crate::config::settings::Authenticator;
use crate::config::settings::HttpTarget;
use crate::config::settings::Jwt;
use crate::config::settings::JwtKeys;
use crate::config::settings::Link;
use crate::config::settings::PeerCertAs;
use crate::config::settings::Settings;
use crate::net::http_client::HttpServer;
use crate::net::tls::ClientTls;
use crate::net::tls::ClientTlsOptions;
use crate::time::Now;

/// Longest file of authorities that is compared with the one before, in bytes.
const AUTHORITIES_BYTES_MAX: usize = 16 << 20;

/// Every step that could be made ready; what is wrong with the others is among the findings.
pub(super) fn load(settings: &Settings, now: Now, findings: &mut Findings) -> Vec<Step> {
    let authentication = &settings.authentication;
    let short = authentication.password_file.as_deref();
    let mut steps: Vec<Step> = short
        .and_then(|path| {
            passwords("authentication.password_file", path, authentication.legacy_hashes, findings)
        })
        .into_iter()
        .collect();
    for (index, step) in authentication.chain.iter().enumerate() {
        let key = format!("authentication.chain[{index}]");
        steps.extend(match step {
            Authenticator::Password { password_file, legacy_hashes } => {
                let key = format!("{key}.password_file");
                passwords(&key, password_file, *legacy_hashes, findings)
            }
            Authenticator::Certificate { username } => Some(Step::Certificate(certificate_part(*username))),
            Authenticator::Jwt(jwt) => token(&key, jwt, now, findings),
            Authenticator::Http(http) => {
                let authorization = http.authorization.as_ref().map(|secret| {
                    let value = HeaderValue::from_bytes(secret.expose());
                    value.map(|mut value| {
                        value.set_sensitive(true);
                        value
                    })
                });
                match (authorization.transpose(), server(&key, &http.target, now, findings)) {
                    (Ok(authorization), Some(server)) => {
                        let server = HttpServer { authorization, ..server };
                        Some(Step::Http(Callout::new(server, http.max_concurrent)))
                    }
                    (Err(_), _) => {
                        findings.errors.push(format!("{key}.authorization: this cannot be a header"));
                        None
                    }
                    (Ok(_), None) => None,
                }
            }
            Authenticator::Scram { .. } => Some(Step::Scram),
        });
    }
    warn_of_missing_passwords(settings, &steps, findings);
    steps
}

/// What of a certificate is the username.
pub(in crate::broker) fn certificate_part(part: PeerCertAs) -> CertificateUsername {
    match part {
        PeerCertAs::Disabled => CertificateUsername::Disabled,
        PeerCertAs::Cn => CertificateUsername::CommonName,
        PeerCertAs::Dn => CertificateUsername::Subject,
        PeerCertAs::Sha256 => CertificateUsername::Sha256,
    }
}

fn passwords(key: &str, path: &Path, legacy_hashes: bool, findings: &mut Findings) -> Option<Step> {
    let file: PasswordFile = users(key, path, findings)?;
    let shown = path.display();
    if let Some(user) = file.legacy_user() {
        let table = key.trim_end_matches(".password_file");
        if !legacy_hashes {
            findings.errors.push(format!(
                "{key}: {shown}: user `{}` has a hash that is guessed fast (salted SHA, or argon2id with less than m=7168, t=5): {table}.legacy_hashes = true takes it until the user logs in",
                user.escape_debug()
            ));
            return None;
        }
        findings.warnings.push(format!(
            "{table}.legacy_hashes: {shown} has hashes that are guessed fast until their users log in"
        ));
    }
    Some(Step::Password(PasswordBook::new(file, path.to_owned())))
}

/// A peer that has to prove itself by name and password alone must have both.
fn warn_of_missing_passwords(settings: &Settings, steps: &[Step], findings: &mut Findings) {
    let has_files = steps.iter().any(|step| matches!(step, Step::Password(_)));
    let knows =
        |user: &str| steps.iter().any(|step| matches!(step, Step::Password(book) if book.knows(user)));
    let by_password =
        |link: &&Link| link.enable && link.peer.cert_sha256.is_empty() && link.peer.cert_cn.is_none();
    for link in settings.cluster.links.iter().filter(by_password) {
        if let Some(user) = link.peer.username.as_deref()
            && has_files
            && !knows(user)
        {
            let name = &link.name;
            findings
                .warnings
                .push(format!("cluster.links[{name}].peer.username: no password file has `{user}`"));
        }
    }
}

fn token(key: &str, jwt: &Jwt, now: Now, findings: &mut Findings) -> Option<Step> {
    let keys = match &jwt.keys {
        JwtKeys::Secret { secret, is_base64 } => {
            let made = KeySet::secret(secret.expose(), *is_base64);
            fixed(&format!("{key}.secret"), None, made, findings)
        }
        JwtKeys::PublicKey(path) => from_file(&format!("{key}.public_key_file"), path, KeySet::pem, findings),
        JwtKeys::JwksFile(path) => from_file(&format!("{key}.jwks_file"), path, KeySet::json, findings),
        JwtKeys::JwksUrl { target, refresh_interval, max_age } => {
            let server = server(key, target, now, findings)?;
            // It was read just now.
            let authorities =
                target.cacertfile.as_ref().map(|path| read_bounded(path, AUTHORITIES_BYTES_MAX));
            let trust = match authorities.transpose() {
                Ok(bytes) => bytes.map(|bytes| Sha256::digest(&bytes).into()),
                Err(error) => {
                    findings.errors.push(format!("{key}.cacertfile: {error}"));
                    return None;
                }
            };
            let (every, max_age) = (*refresh_interval, *max_age);
            Some(TokenKeys::fetched(Source { url: target.url.clone(), trust, server, every, max_age }))
        }
    };
    let rules = jwt::Rules {
        from: if jwt.from_username { jwt::From::Username } else { jwt::From::Password },
        username_claim: jwt.username_claim.clone(),
        require_exp: jwt.require_exp,
        leeway_seconds: jwt.leeway.as_secs(),
        verify_claims: jwt.verify_claims.clone(),
        disconnect_after_expire: jwt.disconnect_after_expire,
    };
    Some(Step::Jwt { keys: keys?, rules })
}

fn from_file(
    key: &str,
    path: &Path,
    parse: fn(&[u8]) -> Result<KeySet, KeyError>,
    findings: &mut Findings,
) -> Option<TokenKeys> {
    match read_bounded(path, KEY_SET_BYTES_MAX) {
        Ok(bytes) => fixed(key, Some(path), parse(&bytes), findings),
        Err(error) => {
            findings.errors.push(format!("{key}: {}: {error}", path.display()));
            None
        }
    }
}

fn fixed(
    key: &str,
    path: Option<&Path>,
    made: Result<KeySet, KeyError>,
    findings: &mut Findings,
) -> Option<TokenKeys> {
    match made {
        Ok(keys) => Some(TokenKeys::Fixed(Arc::new(keys))),
        Err(error) => {
            let file = path.map(|path| format!("{}: ", path.display())).unwrap_or_default();
            findings.errors.push(format!("{key}: {file}{error}"));
            None
        }
    }
}

fn server(key: &str, target: &HttpTarget, now: Now, findings: &mut Findings) -> Option<HttpServer> {
    let tls = match &target.cacertfile {
        None => None,
        Some(cacertfile) => {
            let options = ClientTlsOptions::for_web(cacertfile.clone());
            match ClientTls::load(&options, now) {
                Ok(loaded) => {
                    findings.warnings.extend(loaded.warnings.iter().map(|line| format!("{key}: {line}")));
                    Some(loaded)
                }
                Err(error) => {
                    findings.errors.push(format!("{key}: {error}"));
                    return None;
                }
            }
        }
    };
    Some(HttpServer {
        host: target.server.host.clone(),
        port: target.server.port,
        authority: target.server.to_string(),
        path: target.path.clone(),
        tls,
        accept: "application/json",
        authorization: None,
        timeout: target.timeout,
    })
}
