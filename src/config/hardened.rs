//! What `tombolo check --hardened` confirms: the numbered lines of the README's chapter on security, which has them in
//! these words (a test compares the two). Each is judged by the settings alone; what the files they name are like is
//! added by whoever reads those.

use std::net::IpAddr;

use super::settings::AclMode;
use super::settings::AclSource;
use super::settings::Authenticator;
use super::settings::Bind;
use super::settings::DialledBy;
use super::settings::Export;
use super::settings::JwtKeys;
use super::settings::Link;
use super::settings::Listener;
use super::settings::MemoryCeiling;
use super::settings::Permission;
use super::settings::Role;
use super::settings::SecurityProfile;
use super::settings::Settings;
use super::settings::Verify;
use crate::trust::token;

/// One line of the chapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What holds in a hardened configuration.
    pub about: &'static str,
    /// Where it does not: a setting's path and what is the matter.
    pub broken: Vec<String>,
}

/// A line, and what finds where it does not hold.
type Rule = (&'static str, fn(&Settings, &mut Vec<String>));

const RULES: [Rule; 10] = [
    ("Nobody is let in who has not proved who they are.", proof),
    ("Nothing crosses a network in plaintext, and TLS is 1.3.", encryption),
    ("Links come in by a listener of their own, on an address that was chosen.", link_listener),
    ("Both ends of a link prove themselves by certificate.", link_proof),
    ("Tokens for links are short-lived.", tokens),
    (
        "A link carries the topics that were named; a peer has finite rates, and cannot have us dial this machine.",
        link_bounds,
    ),
    ("What no rule of the ACL file allows is denied.", authorization),
    ("Who comes and goes too often is kept out for a while.", flapping),
    ("Memory has a ceiling.", memory),
    ("Security events are written to a file.", events),
];

/// Every line of the chapter, in its order.
#[must_use]
pub fn hardened(settings: &Settings) -> Vec<Point> {
    let judge = |(about, rule): Rule| {
        let mut broken = Vec::new();
        rule(settings, &mut broken);
        Point { about, broken }
    };
    RULES.into_iter().map(judge).collect()
}

fn listeners(settings: &Settings) -> impl Iterator<Item = (String, &Listener)> {
    let enabled = settings.listeners.iter().filter(|listener| listener.enable);
    enabled.map(|listener| (format!("listeners[{}]", listener.id()), listener))
}

fn links(settings: &Settings) -> impl Iterator<Item = (String, &Link)> {
    let enabled = settings.cluster.links.iter().filter(|link| link.enable);
    enabled.map(|link| (format!("cluster.links[{}]", link.name), link))
}

/// Whether traffic to this link leaves the machine.
fn goes_far(link: &Link) -> bool {
    link.dialled_by == DialledBy::Peer || link.servers.iter().any(|server| !server.is_loopback())
}

fn proof(settings: &Settings, broken: &mut Vec<String>) {
    if settings.authentication.allow_anonymous {
        broken.push("authentication.allow_anonymous: clients without credentials are allowed".to_owned());
    }
    if !settings.authentication.attempts.enable {
        broken.push("authentication.attempts.enable: passwords may be guessed without end".to_owned());
    }
    for (index, step) in settings.authentication.chain.iter().enumerate() {
        if matches!(step, Authenticator::Jwt(jwt) if !jwt.require_exp) {
            broken.push(format!("authentication.chain[{index}].require_exp: tokens are good for ever"));
        }
    }
    for (path, _) in listeners(settings).filter(|(_, listener)| !listener.authn_enable) {
        broken.push(format!("{path}.authn.enable: everybody is let in"));
    }
    for (path, _) in links(settings).filter(|(_, link)| link.peer.allow_unauthenticated) {
        broken.push(format!("{path}.peer.allow_unauthenticated: the peer proves nothing"));
    }
}

fn encryption(settings: &Settings, broken: &mut Vec<String>) {
    for (path, listener) in listeners(settings) {
        match &listener.ssl {
            None if !listener.bind.is_loopback() => {
                broken.push(format!("{path}.type: plaintext on {}", listener.bind));
            }
            Some(ssl) if ssl.versions.tls12 => {
                broken.push(format!("{path}.ssl.versions: more than tlsv1.3"));
            }
            _ => {}
        }
    }
    for (path, _) in links(settings).filter(|(_, link)| goes_far(link) && link.ssl.is_none()) {
        broken.push(format!("{path}.ssl: plaintext towards the peer"));
    }
    for (index, step) in settings.authentication.chain.iter().enumerate() {
        let target = match step {
            Authenticator::Http(http) => &http.target,
            Authenticator::Jwt(jwt) => match &jwt.keys {
                JwtKeys::JwksUrl { target, .. } => target,
                _ => continue,
            },
            _ => continue,
        };
        if target.cacertfile.is_none() && !target.server.is_loopback() {
            broken.push(format!("authentication.chain[{index}]: plaintext towards {}", target.server));
        }
    }
    let bind = settings.http.bind;
    if !bind.ip().to_canonical().is_loopback() {
        broken.push(format!("http.bind: API keys and answers cross the network in plaintext on {bind}"));
    }
}

fn link_listener(settings: &Settings, broken: &mut Vec<String>) {
    for (path, listener) in listeners(settings).filter(|(_, listener)| listener.role.accepts_links()) {
        if listener.role == Role::Any {
            broken.push(format!("{path}.role: any lets applications in beside links"));
        }
        if listener.allow_insecure {
            broken.push(format!("{path}.allow_insecure: links may be weaker than they should be"));
        }
        if matches!(listener.bind, Bind::Addr(address) if is_everywhere(address.ip())) {
            broken.push(format!("{path}.bind: {} is every address of this machine", listener.bind));
        }
    }
}

fn is_everywhere(ip: IpAddr) -> bool {
    ip.to_canonical().is_unspecified()
}

fn link_proof(settings: &Settings, broken: &mut Vec<String>) {
    for (path, listener) in listeners(settings).filter(|(_, listener)| listener.role.accepts_links()) {
        if !listener.ssl.as_ref().is_some_and(|ssl| ssl.verify == Verify::Peer && ssl.fail_if_no_peer_cert) {
            broken.push(format!("{path}.ssl.verify: a peer needs no certificate"));
        }
    }
    for (path, link) in links(settings) {
        if link.peer.cert_sha256.is_empty() && link.peer.cert_cn.is_none() {
            broken.push(format!(
                "{path}.peer: neither cert_sha256 nor cert_cn says which certificate is the peer's"
            ));
        }
        let Some(ssl) = &link.ssl else { continue };
        if ssl.verify == Verify::None {
            broken.push(format!("{path}.ssl.verify: whoever answers may be anybody"));
        }
        if ssl.certfile.is_none() {
            broken.push(format!("{path}.ssl.certfile: we show no certificate"));
        }
    }
}

fn link_bounds(settings: &Settings, broken: &mut Vec<String>) {
    if !settings.link.allowed_peer_networks.is_empty() {
        broken.push(
            "link.allowed_peer_networks: where nobody but this machine comes, we go for a peer".to_owned(),
        );
    }
    for (path, link) in links(settings) {
        if link.topics.iter().any(|filter| filter == "#") {
            broken.push(format!("{path}.topics: we ask for everything"));
        }
        match &link.export {
            Export::Entitled => {
                broken.push(format!("{path}.export: not written, so that the peer may have everything"))
            }
            Export::Only(filters) if filters.iter().any(|filter| filter == "#") => {
                broken.push(format!("{path}.export: the peer may have everything"));
            }
            Export::Only(_) => {}
        }
        if link.quota.rates.messages.is_none() || link.quota.rates.bytes.is_none() {
            broken.push(format!("{path}.quota: messages_rate and bytes_rate are not both finite"));
        }
    }
}

fn tokens(settings: &Settings, broken: &mut Vec<String>) {
    if settings.link.token_expiry.as_secs() > token::LIFETIME_SECONDS {
        broken.push("link.token_expiry: longer than 15m".to_owned());
    }
}

fn authorization(settings: &Settings, broken: &mut Vec<String>) {
    let authorization = &settings.authorization;
    let wrong = [
        (authorization.file == AclSource::Embedded, "file: the built-in rules are not made for your clients"),
        (authorization.no_match != Permission::Deny, "no_match: not \"deny\""),
        (authorization.mode != AclMode::Strict, "mode: not \"strict\""),
        (authorization.security_profile != SecurityProfile::Hardened, "security_profile: not \"hardened\""),
    ];
    broken.extend(
        wrong.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| format!("authorization.{text}")),
    );
}

fn flapping(settings: &Settings, broken: &mut Vec<String>) {
    if !settings.flapping_detect.enable {
        broken.push("flapping_detect.enable: false".to_owned());
    }
}

fn memory(settings: &Settings, broken: &mut Vec<String>) {
    if settings.overload_protection.max_memory == MemoryCeiling::Infinity {
        broken.push("overload_protection.max_memory: infinity".to_owned());
    }
}

fn events(settings: &Settings, broken: &mut Vec<String>) {
    if !settings.log.security_file {
        broken.push("log.security_file: false".to_owned());
    }
}

#[cfg(test)]
mod tests;
