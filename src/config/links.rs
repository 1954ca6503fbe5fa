//! `[[cluster.links]]`: EMQX's keys (`link-protocol.md` 7.1) and ours beside them (`interface.md` section 2).

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::Node;
use super::listener_tls::VERIFY;
use super::listeners;
use super::parse;
use super::reader::Section;
use super::reader::Wrong;
use super::secrets;
use super::sections::cluster_name;
use super::sections::narrow;
use super::settings::ClientTls;
use super::settings::DialledBy;
use super::settings::Export;
use super::settings::Link;
use super::settings::Linking;
use super::settings::OnFull;
use super::settings::Peer;
use super::settings::Quota;
use super::settings::ServerAddr;
use super::settings::Spool;
use super::settings::Told;
use super::settings::Trust;
use super::settings::Verify;
use super::settings::Written;
use super::units;
use crate::link::extension::Capabilities;
use crate::trust::token;

/// Servers of one link.
const SERVERS_MAX: usize = 16;

/// Certificates one peer may show: two during a rotation, and room.
const PINS_MAX: usize = 16;

/// Who may say what a peer's certificate is.
const TRUSTS: [(&str, Trust); 3] = [("config", Trust::Configured), ("pin", Trust::Pinned), ("ca", Trust::Ca)];

/// Who may dial.
const DIALLED_BY: [(&str, DialledBy); 3] =
    [("both", DialledBy::Both), ("us", DialledBy::Us), ("peer", DialledBy::Peer)];

/// `[link]`
pub(super) fn linking(section: Section<'_>) -> Linking {
    let longest = Duration::from_secs(token::LIFETIME_SECONDS_MAX);
    let linking = Linking {
        token_expiry: section.or(
            "token_expiry",
            Duration::from_secs(token::LIFETIME_SECONDS),
            parse::duration(Duration::from_secs(1)..=longest),
        ),
        auto_rotate: section.or("auto_rotate", true, parse::boolean),
        allowed_peer_networks: listeners::networks(&section, "allowed_peer_networks"),
    };
    section.finish();
    linking
}

/// Reads the links of the cluster that calls itself `own`.
pub(super) fn links(cluster: &Section<'_>, own: &str) -> Vec<Link> {
    cluster.sections("links").into_iter().map(|section| link(section, own)).collect()
}

fn link(section: Section<'_>, own: &str) -> Link {
    let name = section.required("name", cluster_name).unwrap_or_default();
    let (ssl, allow_insecure) = ssl(section.section("ssl"), section.reading().variables);
    // IANA's port of MQTT over TLS, or of MQTT.
    let port = if ssl.is_some() { 8883 } else { 1883 };
    let document = section.reading().document;
    let dialled_by = section.or("dialled_by", DialledBy::Both, parse::one_of(&DIALLED_BY));
    let link = Link {
        of_emqx: section.opaque("emqx").map_or(serde_json::Value::Null, Node::to_json),
        written: Written(document.place(&document.origin(&section.path("name"))).to_string()),
        enable: section.or("enable", true, parse::boolean),
        servers: all_servers(&section, dialled_by, port),
        dialled_by,
        clientid: section.optional("clientid", clientid).unwrap_or_else(|| format!("clink-{own}-")),
        username: section.optional("username", parse::word),
        password: section.optional("password", secrets::secret(section.reading().variables)),
        topics: topics(&section),
        export: section.list("export", parse::text).map_or(Export::Entitled, Export::Only),
        relay: section.or("relay", false, parse::boolean),
        reach: section.list("reach", cluster_name).unwrap_or_default(),
        retained: section.or("retained", false, parse::boolean),
        pool_size: section.or("pool_size", 8, |node| narrow(parse::integer(1..=1024)(node)?)),
        max_inflight: max_inflight(&section),
        trust: section.or("trust", Trust::Configured, parse::one_of(&TRUSTS)),
        granted: None,
        told: Told::default(),
        demanded: Capabilities::NONE,
        peer: peer(section.section("peer"), &name),
        quota: quota(section.section("quota")),
        spool: spool(section.section("spool")),
        ssl,
        allow_insecure,
        name,
    };
    section.finish();
    link
}

/// Where only the peer dials there is none, which may be said with an empty text.
fn all_servers(section: &Section<'_>, dialled_by: DialledBy, port: u16) -> Vec<ServerAddr> {
    if dialled_by != DialledBy::Peer {
        return section.required("server", |node| servers(node, port)).unwrap_or_default();
    }
    if section.optional("server", parse::text).is_some_and(|text| !text.is_empty()) {
        let message = "the peer dials (dialled_by = \"peer\"): it has none";
        section.reading().error(&section.path("server"), message.to_owned());
    }
    Vec::new()
}

fn servers(node: &Node, port: u16) -> Result<Vec<ServerAddr>, Wrong> {
    let text = parse::word(node)?;
    let servers: Vec<ServerAddr> =
        text.split(',').map(|one| units::server(one, port)).collect::<Result<_, _>>()?;
    if servers.len() > SERVERS_MAX {
        return Err(format!("at most {SERVERS_MAX} servers").into());
    }
    Ok(servers)
}

fn topics(section: &Section<'_>) -> Vec<String> {
    if !section.has("topics") {
        section.required("topics", parse::text);
        return Vec::new();
    }
    section.list("topics", parse::text).unwrap_or_default()
}

fn max_inflight(section: &Section<'_>) -> Option<u16> {
    let number = parse::or_word("auto", parse::integer(1..=65_535));
    section.or("max_inflight", None, number).and_then(|number| narrow(number).ok())
}

/// A prefix of Client Identifiers: it ends up in topics and log lines, so it holds nothing special there.
fn clientid(node: &Node) -> Result<String, Wrong> {
    let prefix = parse::word(node)?;
    if prefix.contains(['+', '#', '/']) || prefix.len() > 128 {
        return Err("a prefix has at most 128 bytes and none of + # /".into());
    }
    Ok(prefix)
}

fn peer(section: Section<'_>, name: &str) -> Peer {
    let peer = Peer {
        clientid: section.optional("clientid", clientid).unwrap_or_else(|| format!("clink-{name}-")),
        username: section.optional("username", parse::word),
        cert_sha256: fingerprints(&section),
        cert_cn: section.optional("cert_cn", parse::word),
        allow_unauthenticated: section.or("allow_unauthenticated", false, parse::boolean),
    };
    section.finish();
    peer
}

fn fingerprints(section: &Section<'_>) -> Vec<[u8; 32]> {
    let one = |node: &Node| Ok(units::fingerprint(&parse::word(node)?)?);
    let pins = section.list("cert_sha256", one).unwrap_or_default();
    if pins.len() > PINS_MAX {
        section.reading().error(&section.path("cert_sha256"), format!("at most {PINS_MAX} fingerprints"));
    }
    pins
}

fn quota(section: Section<'_>) -> Quota {
    let count = |key, default, most| section.or(key, default, |node| narrow(parse::integer(1..=most)(node)?));
    let quota = Quota {
        connections: count("connections", 256, 100_000),
        actors: count("actors", 64, 10_000),
        routes: count("routes", 1_000_000, 100_000_000),
        rates: parse::rate_limits(&section),
    };
    section.finish();
    quota
}

fn spool(section: Section<'_>) -> Spool {
    let full =
        [("drop_oldest", OnFull::DropOldest), ("drop_new", OnFull::DropNew), ("refuse", OnFull::Refuse)];
    let ages = Duration::from_millis(1)..=Duration::from_secs(36_500 * 86_400);
    let spool = Spool {
        max_bytes: section.or("max_bytes", 1 << 30, parse::size(1024..=1 << 50)),
        max_age: section.or("max_age", None, parse::or_word("infinity", parse::duration(ages))),
        on_full: section.or("on_full", OnFull::DropOldest, parse::one_of(&full)),
        qos0: section.or("qos0", false, parse::boolean),
    };
    section.finish();
    spool
}

/// TLS towards the peer, on unless turned off, and whether it may be weak.
fn ssl(section: Section<'_>, variables: &BTreeMap<String, String>) -> (Option<ClientTls>, bool) {
    let enable = section.or("enable", true, parse::boolean);
    let tls = ClientTls {
        cacertfile: section.optional("cacertfile", parse::path),
        certfile: section.optional("certfile", parse::path),
        keyfile: section.optional("keyfile", parse::path),
        password: section.optional("password", secrets::secret(variables)),
        cert_sha256: fingerprints(&section),
        verify: section.or("verify", Verify::Peer, parse::one_of(&VERIFY)),
        server_name: section.optional("server_name_indication", parse::word),
    };
    let allow_insecure = section.or("allow_insecure", false, parse::boolean);
    section.finish();
    (enable.then_some(tls), allow_insecure)
}
