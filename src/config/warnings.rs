//! What is allowed but weak: said at every start and by `tombolo check` (`interface.md` sections 2 and 6).

use super::settings::ListenerTls;
use super::settings::Settings;
use super::settings::Verify;

/// One line for every weak spot that the settings allow.
#[must_use]
pub fn warnings(settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    if settings.embedded && settings.authentication.allow_anonymous {
        lines.push("no configuration file: clients without credentials are allowed on loopback".to_owned());
    } else if settings.authentication.allow_anonymous {
        lines.push("authentication.allow_anonymous: clients without credentials are allowed".to_owned());
    }
    for listener in settings.listeners.iter().filter(|listener| listener.enable) {
        let id = listener.id();
        if listener.allow_insecure && listener.role.accepts_links() {
            lines.push(format!("listeners[{id}].allow_insecure: links may be weaker than they should be"));
        }
        if !listener.authn_enable {
            lines.push(format!("listeners[{id}].authn.enable: everybody is let in"));
        }
        let by_authority =
            |ssl: &ListenerTls| ssl.verify == Verify::Peer && ssl.cacertfile.is_some() && ssl.crl.is_none();
        if listener.role.accepts_links() && listener.ssl.as_ref().is_some_and(by_authority) {
            lines.push(format!(
                "listeners[{id}].ssl.crlfile: without one no certificate of a peer can be revoked"
            ));
        }
        if listener.ssl.is_none() && !listener.bind.is_loopback() {
            lines.push(format!("listeners[{id}].type: plaintext on {}", listener.bind));
        }
    }
    if !settings.http.bind.ip().to_canonical().is_loopback() {
        let bind = settings.http.bind;
        lines.push(format!("http.bind: API keys and answers cross the network in plaintext on {bind}"));
    }
    for link in settings.cluster.links.iter().filter(|link| link.enable) {
        let name = &link.name;
        let far = link.servers.iter().any(|server| !server.is_loopback());
        if far && link.ssl.is_none() {
            lines.push(format!("cluster.links[{name}].ssl: plaintext towards {name}"));
        }
        if far && link.ssl.as_ref().is_some_and(|ssl| ssl.verify == Verify::None) {
            lines.push(format!("cluster.links[{name}].ssl.verify: {name} may be anybody"));
        }
        if link.peer.allow_unauthenticated {
            lines.push(format!("cluster.links[{name}].peer.allow_unauthenticated: {name} proves nothing"));
        }
    }
    lines
}
