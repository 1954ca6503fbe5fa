//! What must hold between settings: unique names and addresses, proofs of peers, TLS of listeners for links.
//! (`interface.md` section 2, `authn-tls.md` sections 1 and 6, `link-protocol.md` 7.2.)

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::link::relay::REACH_MAX;
use crate::mqtt::topic;

use super::reader::Reading;
use super::settings::Bind;
use super::settings::CrlSource;
use super::settings::DialledBy;
use super::settings::Export;
use super::settings::HttpUrl;
use super::settings::KeyUsage;
use super::settings::Link;
use super::settings::Listener;
use super::settings::ListenerKind;
use super::settings::ListenerTls;
use super::settings::PartialChain;
use super::settings::PeerCertAs;
use super::settings::Role;
use super::settings::Settings;
use super::settings::Trust;
use super::settings::Verify;

/// Topic Filters of one link: redundancy is looked for in every pair.
const LINK_TOPICS_MAX: usize = 4096;

/// Checks what was read; a part that could not be read is not judged.
pub(super) fn check(reading: &Reading<'_>, settings: &Settings) {
    let unread: Vec<bool> =
        (0..settings.listeners.len()).map(|i| reading.failed(&format!("listeners[{i}]"))).collect();
    let unread_links: Vec<bool> =
        (0..settings.cluster.links.len()).map(|i| reading.failed(&format!("cluster.links[{i}]"))).collect();

    for (index, listener) in settings.listeners.iter().enumerate().filter(|(i, _)| !unread[*i]) {
        one_listener(reading, &format!("listeners[{index}]"), listener, settings);
    }
    for (index, link) in settings.cluster.links.iter().enumerate().filter(|(i, _)| !unread_links[*i]) {
        one_link(reading, &format!("cluster.links[{index}]"), link, settings);
    }
    listener_names(reading, settings, &unread);
    addresses(reading, settings, &unread);
    fetched_lists(reading, settings, &unread);
    link_names(reading, settings, &unread_links);
    proofs(reading, settings, &unread_links);
    if !settings.cluster.links.is_empty() && !reading.document.is_written("cluster.name") {
        // The host name may change; a peer knows us by this name.
        reading.error("cluster.name", "a cluster with links needs a name that is written here");
    }
}

fn one_listener(reading: &Reading<'_>, path: &str, listener: &Listener, settings: &Settings) {
    if listener.role.accepts_links() && !listener.authn_enable {
        let message = "a listener that accepts links cannot be without authentication";
        reading.error(&format!("{path}.authn.enable"), message);
    }
    proxy(reading, path, listener);
    match &listener.ssl {
        Some(ssl) => listener_tls(reading, &format!("{path}.ssl"), listener, ssl, settings),
        None if listener.role.accepts_links() && !listener.allow_insecure => {
            let message = format!(
                "a listener of type {} accepts links in plaintext: type = \"ssl\", or allow_insecure = true",
                listener.kind
            );
            reading.error(&format!("{path}.role"), message);
        }
        None => {}
    }
}

/// A PROXY header is believed from those that are named, and somebody must be.
fn proxy(reading: &Reading<'_>, path: &str, listener: &Listener) {
    if listener.kind == ListenerKind::Unix && (listener.proxy_protocol || !listener.proxy_trusted.is_empty())
    {
        let key = if listener.proxy_protocol { "proxy_protocol" } else { "proxy_trusted" };
        let message = "a Unix socket has no addresses to trust, so that anybody could tell any";
        reading.error(&format!("{path}.{key}"), message);
    } else if listener.proxy_protocol && listener.proxy_trusted.is_empty() {
        let message = "proxy_protocol needs the addresses of the proxies; without any nobody could connect";
        reading.error(&format!("{path}.proxy_trusted"), message);
    } else if !listener.proxy_protocol && !listener.proxy_trusted.is_empty() {
        reading.error(&format!("{path}.proxy_trusted"), "this needs proxy_protocol = true");
    }
}

fn listener_tls(
    reading: &Reading<'_>,
    path: &str,
    listener: &Listener,
    ssl: &ListenerTls,
    settings: &Settings,
) {
    let error = |key: &str, message: &str| reading.error(&format!("{path}.{key}"), message);
    let links = listener.role.accepts_links();
    if links && !listener.allow_insecure {
        if ssl.verify != Verify::Peer {
            error("verify", "a listener that accepts links needs verify_peer, or allow_insecure = true");
        } else if !ssl.fail_if_no_peer_cert {
            error(
                "fail_if_no_peer_cert",
                "a listener that accepts links needs true, or allow_insecure = true",
            );
        }
        if ssl.versions.tls12 {
            error("versions", "a listener that accepts links offers tlsv1.3 only, or allow_insecure = true");
        }
    }
    if ssl.fail_if_no_peer_cert && ssl.verify != Verify::Peer && (!links || listener.allow_insecure) {
        error("fail_if_no_peer_cert", "this needs verify = \"verify_peer\"");
    }
    if ssl.peer_cert_as_username != PeerCertAs::Disabled {
        if listener.role == Role::Link {
            // The identity there is what [cluster.links.peer] binds (`authn-tls.md` section 2).
            error(
                "peer_cert_as_username",
                "a listener for links takes the identity from [cluster.links.peer]",
            );
        } else if ssl.verify != Verify::Peer {
            error("peer_cert_as_username", "this needs verify = \"verify_peer\"");
        }
    }
    listener_options(reading, path, listener, ssl);
    without_files(reading, path, ssl);
    let pinned = settings.cluster.links.iter().any(|link| !link.peer.cert_sha256.is_empty());
    // With the link certificate peers enrol, and are pinned by that.
    let pinned = links && (pinned || ssl.certfile.is_none());
    if ssl.verify == Verify::Peer && ssl.cacertfile.is_none() && !pinned {
        let what = if links { "cacertfile, or cert_sha256 in [cluster.links.peer]" } else { "cacertfile" };
        error("cacertfile", &format!("verify_peer needs {what}"));
    }
}

/// What belongs to files that are not there.
fn without_files(reading: &Reading<'_>, path: &str, ssl: &ListenerTls) {
    if ssl.certfile.is_some() {
        return;
    }
    for (key, written) in [("password", ssl.password.is_some()), ("ocsp", ssl.ocsp.is_some())] {
        if written {
            reading.error(&format!("{path}.{key}"), "this needs certfile and keyfile");
        }
    }
}

/// Options that only a check of client certificates makes sense of, and what a link must not be without.
fn listener_options(reading: &Reading<'_>, path: &str, listener: &Listener, ssl: &ListenerTls) {
    let error = |key: &str, message: &str| reading.error(&format!("{path}.{key}"), message);
    let asks = ssl.verify == Verify::Peer;
    let strict = listener.role.accepts_links() && !listener.allow_insecure;
    let key = if matches!(ssl.crl, Some(CrlSource::Urls(_))) { "crl_url" } else { "crlfile" };
    if ssl.crl.is_some() && !asks {
        error(key, "this needs verify = \"verify_peer\"");
    } else if ssl.crl.is_some() && ssl.cacertfile.is_none() {
        error(key, "this needs cacertfile, whose lists they are");
    }
    if !asks && !ssl.key_usages.is_empty() {
        error("verify_peer_ext_key_usage", "this needs verify = \"verify_peer\"");
    } else if asks && strict && !ssl.key_usages.contains(&KeyUsage::ClientAuth) {
        error(
            "verify_peer_ext_key_usage",
            "a listener that accepts links needs clientAuth among them, or allow_insecure = true",
        );
    }
    if ssl.partial_chain != PartialChain::Off {
        if strict {
            error(
                "partial_chain",
                "not where links come in: pin the peers' certificates, or allow_insecure = true",
            );
        } else if !asks || ssl.cacertfile.is_none() {
            error("partial_chain", "this needs verify = \"verify_peer\" and cacertfile");
        }
    }
    for (key, on) in [("reuse_sessions", ssl.reuse_sessions), ("session_tickets", ssl.session_tickets)] {
        if on && asks {
            error(key, "not with verify_peer: a resumed session would not show its certificate again");
        }
    }
}

/// The lists to fetch: how many, and whom we believe when they come over TLS.
fn fetched_lists(reading: &Reading<'_>, settings: &Settings, unread: &[bool]) {
    let mut all: BTreeSet<&HttpUrl> = BTreeSet::new();
    for (index, listener) in settings.listeners.iter().enumerate().filter(|(i, _)| !unread[*i]) {
        let Some(CrlSource::Urls(urls)) = listener.ssl.as_ref().and_then(|ssl| ssl.crl.as_ref()) else {
            continue;
        };
        all.extend(urls);
        let secure = urls.iter().position(|url| url.secure);
        if let (Some(at), None) = (secure, &settings.crl_cache.cacertfile) {
            let path = format!("listeners[{index}].ssl.crl_url[{at}]");
            reading.error(&path, "https needs crl_cache.cacertfile, the authorities of such servers");
        }
    }
    if all.len() > settings.crl_cache.capacity {
        let message = format!("the listeners name {} addresses in crl_url, more than this", all.len());
        reading.error("crl_cache.capacity", message);
    }
}

fn listener_names(reading: &Reading<'_>, settings: &Settings, unread: &[bool]) {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for (index, listener) in settings.listeners.iter().enumerate().filter(|(i, _)| !unread[*i]) {
        if let Some(first) = ids.get(&listener.id()) {
            let message = format!("listeners[{first}] is `{}` already", listener.id());
            reading.error(&format!("listeners[{index}].name"), message);
        } else {
            ids.insert(listener.id(), index);
        }
    }
}

fn addresses(reading: &Reading<'_>, settings: &Settings, unread: &[bool]) {
    let mut taken: Vec<(String, &Bind)> = Vec::new();
    let http = Bind::Addr(settings.http.bind);
    let enabled = settings.listeners.iter().enumerate().filter(|(i, l)| !unread[*i] && l.enable);
    let listeners = enabled.map(|(index, listener)| (format!("listeners[{index}].bind"), &listener.bind));
    let http = (!reading.failed("http")).then(|| ("http.bind".to_owned(), &http));
    let over_tls = settings.http.ssl.as_ref().map(|ssl| Bind::Addr(ssl.bind));
    let over_tls = over_tls.as_ref().map(|bind| ("http.ssl.bind".to_owned(), bind));
    for (path, bind) in http.into_iter().chain(over_tls).chain(listeners) {
        if let Some((other, at)) = taken.iter().find(|(_, at)| overlap(at, bind)) {
            reading.error(&path, format!("{bind} is taken by {other}, which is {at}"));
        }
        taken.push((path, bind));
    }
}

/// Whether the operating system would refuse the second of the two.
fn overlap(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Path(one), Bind::Path(other)) => one == other,
        (Bind::Addr(one), Bind::Addr(other)) => {
            one.port() != 0 && one.port() == other.port() && same_ip(one, other)
        }
        _ => false,
    }
}

fn same_ip(one: &SocketAddr, other: &SocketAddr) -> bool {
    // `[::]` takes IPv4 as well, `0.0.0.0` does not take IPv6 but for `[::]`.
    let covers = |all: &SocketAddr, it: &SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || it.is_ipv4() || it.ip().is_unspecified())
    };
    one.ip().to_canonical() == other.ip().to_canonical() || covers(one, other) || covers(other, one)
}

fn one_link(reading: &Reading<'_>, path: &str, link: &Link, settings: &Settings) {
    let error = |key: &str, message: String| reading.error(&format!("{path}.{key}"), message);
    if link.name == settings.cluster.name {
        error("name", format!("`{}` is this cluster's own name: a link is named after the peer", link.name));
    }
    topics(reading, &format!("{path}.topics"), &link.topics);
    if let Export::Only(filters) = &link.export {
        topics(reading, &format!("{path}.export"), filters);
    }
    reach(reading, &format!("{path}.reach"), link, settings);
    if link.password.is_some() && link.username.is_none() {
        error("password", "a password needs a username".to_owned());
    }
    if link.dialled_by != DialledBy::Both && link.trust != Trust::Pinned {
        let message =
            "one side dials for both only where each knows the other by its identity: trust = \"pin\"";
        error("dialled_by", message.to_owned());
    }
    let far = link.servers.iter().find(|server| !server.is_loopback());
    match (&link.ssl, far) {
        (None, Some(server)) if !link.allow_insecure => {
            error(
                "ssl.enable",
                format!("{server} is not loopback: TLS, or allow_insecure = true in [cluster.links.ssl]"),
            );
        }
        (Some(ssl), far) => {
            let unpinned = ssl.cacertfile.is_none() && ssl.cert_sha256.is_empty();
            if ssl.verify == Verify::Peer && unpinned && !link.is_dormant() {
                error("ssl.cacertfile", "verify_peer needs cacertfile, or cert_sha256".to_owned());
            }
            if ssl.verify == Verify::None && !ssl.cert_sha256.is_empty() {
                error("ssl.cert_sha256", "verify_none contradicts it".to_owned());
            }
            if ssl.password.is_some() && ssl.keyfile.is_none() {
                error("ssl.password", "this needs keyfile".to_owned());
            }
            if let (Verify::None, Some(server), false) = (ssl.verify, far, link.allow_insecure) {
                error(
                    "ssl.verify",
                    format!("{server} is not loopback: verify_peer, or allow_insecure = true"),
                );
            }
            if ssl.certfile.is_some() != ssl.keyfile.is_some() {
                let missing = if ssl.certfile.is_some() { "keyfile" } else { "certfile" };
                error(&format!("ssl.{missing}"), "certfile and keyfile come together".to_owned());
            }
        }
        _ => {}
    }
    peer_proof(reading, path, link, settings);
}

/// How the peer proves itself when it dials us: something, and something a listener can see.
fn peer_proof(reading: &Reading<'_>, path: &str, link: &Link, settings: &Settings) {
    let error = |key: &str, message: &str| reading.error(&format!("{path}.peer{key}"), message);
    if link.is_dormant() {
        return;
    }
    let peer = &link.peer;
    let proven = peer.username.is_some() || !peer.cert_sha256.is_empty() || peer.cert_cn.is_some();
    let doors: Vec<&Listener> =
        settings.listeners.iter().filter(|l| l.enable && l.role.accepts_links()).collect();
    match (proven, peer.allow_unauthenticated) {
        (false, false) => error("", "the peer must prove itself: username, cert_sha256 or cert_cn"),
        (true, true) => error(".allow_unauthenticated", "this contradicts the proof next to it"),
        (false, true) if doors.iter().any(|door| !shows_loopback(door)) => {
            let message = "only where every listener that accepts links is on loopback, and behind no proxy";
            error(".allow_unauthenticated", message);
        }
        _ => {}
    }
    // Who is dialled only shows its certificate there.
    if doors.is_empty() || link.dialled_by == DialledBy::Us {
        return;
    }
    let checked = |door: &&&Listener| door.ssl.as_ref().is_some_and(|ssl| ssl.verify == Verify::Peer);
    if !peer.cert_sha256.is_empty() && !doors.iter().any(|door| checked(&door)) {
        error(".cert_sha256", "no listener that accepts links asks for a certificate");
    }
    let chained =
        |door: &&Listener| checked(&door) && door.ssl.as_ref().is_some_and(|s| s.cacertfile.is_some());
    if peer.cert_cn.is_some() && !doors.iter().any(chained) {
        error(
            ".cert_cn",
            "no listener that accepts links verifies a chain: it needs verify_peer and cacertfile",
        );
    }
}

/// Whether a connection to it shows by its address that it is of this machine. One to a Unix socket shows nothing:
/// what speaks there may be a proxy.
fn shows_loopback(door: &Listener) -> bool {
    matches!(door.bind, Bind::Addr(_)) && door.bind.is_loopback() && !door.proxy_protocol
}

/// EMQX's rules (`link-protocol.md` 7.2), in its order.
fn topics(reading: &Reading<'_>, path: &str, filters: &[String]) {
    if filters.len() > LINK_TOPICS_MAX {
        reading.error(path, format!("at most {LINK_TOPICS_MAX} filters"));
        return;
    }
    let mut valid = true;
    for (index, filter) in filters.iter().enumerate() {
        let why = match topic::check_filter(filter) {
            Err(error) => error.to_string(),
            Ok(()) if topic::first_level(filter) == "$LINK" => {
                "$LINK topics belong to the links themselves".to_owned()
            }
            Ok(()) if topic::first_level(filter) == "$share" => {
                "name the topics, not a shared subscription".to_owned()
            }
            Ok(()) => continue,
        };
        valid = false;
        reading.error(&format!("{path}[{index}]"), format!("invalid_topics: {filter:?}: {why}"));
    }
    if !valid {
        return;
    }
    for (index, filter) in filters.iter().enumerate() {
        let covering = filters.iter().enumerate().find(|(other, outer)| {
            // Of two equal ones the first stays.
            *other != index && topic::is_subset(filter, outer) && (filter != *outer || *other < index)
        });
        if let Some((_, outer)) = covering {
            let message = format!("redundant_topics: \"{filter}\" is covered by \"{outer}\"");
            reading.error(&format!("{path}[{index}]"), message);
        }
    }
}

/// There is one way to each cluster: through a link to it, or through one peer.
fn reach(reading: &Reading<'_>, path: &str, link: &Link, settings: &Settings) {
    if link.reach.len() > REACH_MAX {
        reading.error(path, format!("at most {REACH_MAX} clusters"));
    }
    let links = &settings.cluster.links;
    for (index, name) in link.reach.iter().enumerate() {
        let error = |message: String| reading.error(&format!("{path}[{index}]"), message);
        let before = |other: &&Link| other.name != link.name && other.reach.contains(name);
        if *name == settings.cluster.name {
            error(format!("`{name}` is this cluster's own name"));
        } else if links.iter().any(|other| other.name == *name) {
            error(format!("`{name}` is linked with directly"));
        } else if link.reach[..index].contains(name) {
            error(format!("`{name}` is there twice"));
        } else if let Some(other) = links.iter().find(before) {
            error(format!("`{name}` is reached through `{}` too: there must be one way", other.name));
        }
    }
}

fn link_names(reading: &Reading<'_>, settings: &Settings, unread: &[bool]) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, link) in settings.cluster.links.iter().enumerate().filter(|(i, _)| !unread[*i]) {
        if let Some(first) = names.get(link.name.as_str()) {
            let written = &settings.cluster.links[*first].written;
            let elsewhere =
                if written.same_file(&link.written) { String::new() } else { format!(", at {}", written.0) };
            let message = format!(
                "duplicated_cluster_links: cluster.links[{first}] is `{}` already{elsewhere}",
                link.name
            );
            reading.error(&format!("cluster.links[{index}].name"), message);
        } else {
            names.insert(&link.name, index);
        }
    }
}

/// A proof belongs to exactly one link (`authn-tls.md` section 2, test A7), and so does a prefix.
fn proofs(reading: &Reading<'_>, settings: &Settings, unread: &[bool]) {
    let links: Vec<(usize, &Link)> =
        settings.cluster.links.iter().enumerate().filter(|(i, _)| !unread[*i]).collect();
    for (position, (index, link)) in links.iter().enumerate() {
        for (_, earlier) in links.iter().take(position).filter(|(_, earlier)| earlier.name != link.name) {
            let both = format!("links `{}` and `{}`", earlier.name, link.name);
            let error = |key: &str, message: String| {
                reading.error(&format!("cluster.links[{index}].peer.{key}"), message);
            };
            let (mine, theirs) = (&link.peer, &earlier.peer);
            // Of two that overlap the longer one decides (`trust.md` 2.1).
            if mine.clientid == theirs.clientid {
                error("clientid", format!("{both} share the prefix `{}`", mine.clientid));
            }
            if let Some(name) = mine.username.as_ref().filter(|name| theirs.username.as_ref() == Some(name)) {
                error("username", format!("{both} share the username `{name}`"));
            }
            if let Some(name) = mine.cert_cn.as_ref().filter(|name| theirs.cert_cn.as_ref() == Some(name)) {
                error("cert_cn", format!("{both} share the common name `{name}`"));
            }
            if mine.cert_sha256.iter().any(|pin| theirs.cert_sha256.contains(pin)) {
                error("cert_sha256", format!("{both} share a fingerprint"));
            }
        }
    }
}
