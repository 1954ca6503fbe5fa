//! What the identities of peers make of links that say `trust`: by which certificates they are known, ours, and what their
//! groups grant (`trust.md` 2.4, 2.5).
//!
//! It is done while settings are read, so that everything behind them, from the TLS of listeners to `config show`, works with
//! links as they are.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;

use super::settings::ClientTls;
use super::settings::Link;
use super::settings::Network;
use super::settings::ServerAddr;
use super::settings::Settings;
use super::settings::Told;
use super::settings::Trust;
use super::settings::Verify;
use crate::link::extension::Capabilities;
use crate::trust::address;
use crate::trust::book::Book;
use crate::trust::identity::Identity;

/// The link certificate and its key, in the data directory.
pub const LINK_FOLDER: &str = "link";
/// The certificate in force, in that folder.
pub const LINK_CERTIFICATE: &str = "cert.pem";
/// Its key.
pub const LINK_KEY: &str = "key.pem";

/// Does it, as of `now` in seconds since the Unix epoch.
pub(super) fn complete(settings: &mut Settings, book: &Book, now: u64) {
    let folder = settings.data.dir.join(LINK_FOLDER);
    let allowed = &settings.link.allowed_peer_networks;
    for link in settings.cluster.links.iter_mut().filter(|link| link.trust != Trust::Configured) {
        complete_link(link, book, &folder, allowed, now);
    }
}

fn complete_link(link: &mut Link, book: &Book, folder: &Path, allowed: &[Network], now: u64) {
    let identity = book.link(&link.name).filter(|identity| identity.is_active());
    let (pins, shown) = (book.pins(&link.name, now), book.peers_pins(&link.name, now));
    link.granted = identity.map(|_| book.rights_of_link(&link.name));
    link.demanded = identity.map_or(Capabilities::NONE, |identity| Capabilities::demanded(&identity.caps));
    link.told = identity.map(|identity| told(identity, allowed)).unwrap_or_default();
    // Without one nobody is this peer, and nobody is dialled.
    link.enable &= identity.is_some();
    if let Some(identity) = identity {
        link.peer.clientid.clone_from(&identity.prefix);
    }
    link.peer.username = None;
    link.peer.allow_unauthenticated = false;
    link.allow_insecure = false;
    let tls = link.ssl.get_or_insert_with(|| ClientTls {
        cacertfile: None,
        certfile: None,
        keyfile: None,
        password: None,
        cert_sha256: Vec::new(),
        verify: Verify::Peer,
        server_name: None,
    });
    tls.verify = Verify::Peer;
    if link.trust == Trust::Pinned || tls.certfile.is_none() {
        tls.certfile = Some(folder.join(LINK_CERTIFICATE));
        tls.keyfile = Some(folder.join(LINK_KEY));
        tls.password = None;
    }
    match link.trust {
        Trust::Configured => {}
        Trust::Pinned => {
            tls.cacertfile = None;
            tls.cert_sha256 = pins;
            link.peer.cert_sha256 = shown;
            link.peer.cert_cn = None;
        }
        // Signed is not enough: without an identity nobody is this peer.
        Trust::Ca => {
            link.peer.cert_sha256.clear();
            link.peer.cert_cn = identity.map(|identity| identity.name.clone());
        }
    }
}

/// What the peer of this identity has said of where it is. It may be where it came from, and wherever `allowed` says; the server
/// at which an operator had us ask it was named by that operator, and so is all that an identity has which was made by hand.
#[must_use]
pub fn told(identity: &Identity, allowed: &[Network]) -> Told {
    let Some(source) = &identity.activated_from else { return Told::default() };
    let source = address::parse(source);
    let named = identity.addrs.iter().filter(|server| Some(*server) != source.as_ref());
    let mut networks = allowed.to_vec();
    networks.extend(source.iter().flat_map(around));
    Told { servers: named.cloned().collect(), networks }
}

/// The address of a server that is an address or, as `localhost`, can only be this machine.
fn around(server: &ServerAddr) -> Vec<Network> {
    match server.host.parse::<IpAddr>() {
        Ok(ip) => vec![Network::of(ip.to_canonical())],
        Err(_) if server.is_loopback() => {
            vec![Network::of(Ipv4Addr::LOCALHOST.into()), Network::of(Ipv6Addr::LOCALHOST.into())]
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::identity::tests::identity;

    fn named(source: &str, servers: &[&str]) -> Told {
        let mut one = identity("B", 1);
        one.activated_from = Some(source.to_owned());
        one.addrs = servers.iter().map(|server| address::parse(server).unwrap()).collect();
        told(&one, &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn a_peer_may_be_where_it_came_from_and_where_the_operator_says() {
        let table = [
            ("192.0.2.7:4711", vec!["10.0.0.0/8", "192.0.2.7/32"]),
            ("[::1]:4711", vec!["10.0.0.0/8", "::1/128"]),
            ("[::ffff:192.0.2.7]:4711", vec!["10.0.0.0/8", "192.0.2.7/32"]),
            ("localhost:8883", vec!["10.0.0.0/8", "127.0.0.1/32", "::1/128"]),
            ("b.example.net:8883", vec!["10.0.0.0/8"]),
            ("", vec!["10.0.0.0/8"]),
        ];
        for (source, networks) in table {
            let told = named(source, &["b.example.net:1"]);
            let shown: Vec<String> = told.networks.iter().map(ToString::to_string).collect();
            assert_eq!(shown, networks, "{source}");
        }
    }

    #[test]
    fn an_identity_made_by_hand_has_the_operator_s_addresses() {
        let mut one = identity("B", 1);
        one.activated_from = None;
        one.addrs = vec![address::parse("127.0.0.1:8883").unwrap()];
        assert_eq!(told(&one, &[]), Told::default());
    }

    #[test]
    fn the_server_that_an_operator_had_us_ask_is_not_the_peer_s_word() {
        let told = named("b.example.net:8883", &["b.example.net:8883", "127.0.0.1:8883"]);
        let server = |text| address::parse(text).unwrap();
        assert_eq!(told.networks_of(&server("b.example.net:8883")), None);
        assert_eq!(told.networks_of(&server("127.0.0.1:8883")), Some(&["10.0.0.0/8".parse().unwrap()][..]));
        assert_eq!(told.networks_of(&server("127.0.0.1:8884")), None, "nobody but an operator has named it");
    }
}
