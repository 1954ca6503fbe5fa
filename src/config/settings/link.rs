//! One link: what we ask of a peer cluster, what it may have and how it proves itself
//! (`interface.md` section 2, `link-protocol.md` 7.1).

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::Network;
use super::RateLimits;
use super::Secret;
use super::ServerAddr;
use super::Verify;
use crate::link::extension::Capabilities;
use crate::mqtt::topic;
use crate::trust::rights::Rights;

/// `[link]`: what holds for all links that are made with tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linking {
    /// How long a token is valid of which nobody says it.
    pub token_expiry: Duration,
    /// Whether the link certificate that was made here is replaced when two thirds of its lifetime are over.
    pub auto_rotate: bool,
    /// Where servers may be that a peer has named, beside ordinary addresses.
    pub allowed_peer_networks: Vec<Network>,
}

/// What a peer has said of where it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Its servers, as it named them.
    pub servers: Vec<ServerAddr>,
    /// Where they may be, beside ordinary addresses.
    pub networks: Vec<Network>,
}

impl Told {
    /// Where this server may be, beside ordinary addresses; `None` for one that the peer has not named: it may be anywhere.
    #[must_use]
    pub fn networks_of(&self, server: &ServerAddr) -> Option<&[Network]> {
        self.servers.contains(server).then_some(&self.networks[..])
    }
}

/// One `[[cluster.links]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The peer's own `cluster.name`.
    pub name: String,
    /// Whether we connect to the peer and let it connect.
    pub enable: bool,
    /// Where the peer accepts links, tried in turn; none if only the peer dials, otherwise at least one.
    pub servers: Vec<ServerAddr>,
    /// Which of the two sides dials.
    pub dialled_by: DialledBy,
    /// Prefix of our Client Identifiers at the peer.
    pub clientid: String,
    /// Our username at the peer.
    pub username: Option<String>,
    /// Our password at the peer.
    pub password: Option<Secret>,
    /// Topic Filters of what we want from the peer; may be empty.
    pub topics: Vec<String>,
    /// Topic Filters of what the peer may have from us.
    pub export: Export,
    /// What comes over this link may go on over others that say so too, and so may what their peers want.
    pub relay: bool,
    /// Clusters that we reach through the peer.
    pub reach: Vec<String>,
    /// Whether retained messages are told to the peer and copied from it, if it is one of ours that says the same.
    pub retained: bool,
    /// Connections that carry messages to the peer.
    pub pool_size: usize,
    /// Messages of QoS 1 in flight on each of them; `None` is `"auto"`: as many as it takes.
    pub max_inflight: Option<u16>,
    /// Who says what the peer's certificate is.
    pub trust: Trust,
    /// With a `trust` other than [`Trust::Configured`]: what the groups of the peer's identity grant it, if it has one that is
    /// active. Without it nothing moves.
    pub granted: Option<Rights>,
    /// With the same: what the peer has said of where it is.
    pub told: Told,
    /// With the same: what the peer must be able to do, because it could when it enrolled.
    pub demanded: Capabilities,
    /// How the peer proves itself when it dials us.
    pub peer: Peer,
    /// What we grant the peer.
    pub quota: Quota,
    /// What waits while the peer is away.
    pub spool: Spool,
    /// TLS towards the peer; `None` is plaintext.
    pub ssl: Option<ClientTls>,
    /// Lets the connection go below the link column of `authn-tls.md` section 1 (`ssl.allow_insecure`).
    pub allow_insecure: bool,
    /// What EMQX's links have and ours do not: shown again to whoever set it.
    pub of_emqx: serde_json::Value,
    /// Where it is written.
    pub written: Written,
}

/// Where a link is written: `file:line:column`. Two links that differ only in this are the same link.
#[derive(Debug, Clone, Default)]
pub struct Written(pub String);

impl Written {
    /// Whether that is in this file.
    #[must_use]
    pub fn is_in(&self, file: &Path) -> bool {
        self.file() == file.to_string_lossy()
    }

    /// Whether both are in one file.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.file() == other.file()
    }

    fn file(&self) -> &str {
        self.0.rsplitn(3, ':').last().unwrap_or_default()
    }
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

/// Who says what the peer's certificate is: `trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// It is not written: the link's own `peer` and `ssl`.
    #[default]
    Configured,
    /// `"pin"`: the fingerprints of the peer's identity, both ways; ours is the link certificate of this cluster.
    Pinned,
    /// `"ca"`: `cacertfile`, and the peer's cluster name as common name. It must have an identity all the same.
    Ca,
}

/// Who makes the connections of a link: `dialled_by`. Each side needs connections to the other (`link-protocol.md` 1.1); where one
/// cannot be reached, it makes those of the other as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DialledBy {
    /// Each side makes its own.
    #[default]
    Both,
    /// We make ours, and lend the peer those that it needs.
    Us,
    /// The peer makes its own, and lends us those that we need.
    Peer,
}

/// What the peer may have from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// `export` is not written: everything the peer's entitlements allow.
    Entitled,
    /// Only what these Topic Filters match.
    Only(Vec<String>),
}

impl Link {
    /// Whether `new` differs from this in nothing but that the peer may show more certificates: what is there can stay.
    #[must_use]
    pub fn has_only_more_pins(&self, new: &Self) -> bool {
        // Where none is listed something else decides.
        let more = |old: &[[u8; 32]], new: &[[u8; 32]]| {
            old.is_empty() == new.is_empty() && old.iter().all(|pin| new.contains(pin))
        };
        let mut same = new.clone();
        same.peer.cert_sha256.clone_from(&self.peer.cert_sha256);
        if let (Some(same), Some(ssl)) = (&mut same.ssl, &self.ssl) {
            same.cert_sha256.clone_from(&ssl.cert_sha256);
        }
        let servers = |link: &Self| link.ssl.as_ref().map(|ssl| ssl.cert_sha256.clone()).unwrap_or_default();
        same == *self
            && more(&self.peer.cert_sha256, &new.peer.cert_sha256)
            && more(&servers(self), &servers(new))
    }

    /// Whether nothing moves over it for now, because its peer has no identity that is active.
    #[must_use]
    pub fn is_dormant(&self) -> bool {
        self.trust != Trust::Configured && self.granted.is_none()
    }

    /// What we want from the peer and may take from it: each filter once, and none that another covers.
    #[must_use]
    pub fn imports(&self) -> Vec<String> {
        match (&self.granted, self.trust) {
            (Some(granted), _) if granted.can_forward => {
                common(self.topics.iter().map(String::as_str), granted.import_filters())
            }
            (Some(_), _) => Vec::new(),
            (None, Trust::Configured) => self.topics.clone(),
            (None, _) => Vec::new(),
        }
    }

    /// What the peer may have from us.
    #[must_use]
    pub fn exports(&self) -> Export {
        match (&self.granted, self.trust, &self.export) {
            (None, Trust::Configured, export) => export.clone(),
            (None, _, _) => Export::Only(Vec::new()),
            (Some(granted), _, _) if !granted.can_sync_routes => Export::Only(Vec::new()),
            (Some(granted), _, Export::Entitled) => {
                Export::Only(granted.export_filters().map(str::to_owned).collect())
            }
            (Some(granted), _, Export::Only(filters)) => {
                Export::Only(common(filters.iter().map(String::as_str), granted.export_filters()))
            }
        }
    }

    /// What we can do with the peer beyond EMQX's protocol.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        let relays = self.relay || !self.reach.is_empty();
        let relay = if relays { Capabilities::RELAY } else { Capabilities::NONE };
        let retained = if self.retained { Capabilities::RETAINED } else { Capabilities::NONE };
        Capabilities::OURS.with(relay).with(retained)
    }
}

/// What filters of both match: their intersections, without those that another covers.
fn common<'f>(
    one: impl Iterator<Item = &'f str>,
    other: impl Iterator<Item = &'f str> + Clone,
) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for (left, right) in one.flat_map(|left| other.clone().map(move |right| (left, right))) {
        let Some(both) = topic::intersection(left, right) else { continue };
        if !kept.iter().any(|other| topic::is_subset(&both, other)) {
            kept.retain(|other| !topic::is_subset(other, &both));
            kept.push(both);
        }
    }
    kept
}

/// `[cluster.links.peer]`: every field given must hold on every connection of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Prefix of the peer's Client Identifiers; no other link's prefix overlaps with it.
    pub clientid: String,
    /// The peer's username, belonging to this link alone.
    pub username: Option<String>,
    /// SHA-256 fingerprints of certificates the peer may show.
    pub cert_sha256: Vec<[u8; 32]>,
    /// Common name of a certificate verified against the listener's `cacertfile`.
    pub cert_cn: Option<String>,
    /// The peer proves nothing; only from a loopback address.
    pub allow_unauthenticated: bool,
}

/// `[cluster.links.quota]`: what we grant the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Connections at one time.
    pub connections: usize,
    /// Actors at one time.
    pub actors: usize,
    /// Routes held for the peer.
    pub routes: usize,
    /// What it may forward, over all its connections together.
    pub rates: RateLimits,
}

/// `[cluster.links.spool]`: what waits while the peer is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spool {
    /// The most bytes kept.
    pub max_bytes: u64,
    /// How long a message is kept; `None` is as long as there is room.
    pub max_age: Option<Duration>,
    /// What gives way when it is full.
    pub on_full: OnFull,
    /// Whether messages of QoS 0 are kept.
    pub qos0: bool,
}

/// What gives way when a spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The oldest messages.
    DropOldest,
    /// The message that does not fit.
    DropNew,
    /// The publisher is told that the message was not accepted.
    Refuse,
}

/// `[cluster.links.ssl]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities that may have signed the peer's certificate, PEM; with `verify_peer` it is this or `cert_sha256`.
    pub cacertfile: Option<PathBuf>,
    /// Our certificate and its chain, PEM; together with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// Its private key, PEM.
    pub keyfile: Option<PathBuf>,
    /// Pass phrase of the private key.
    pub password: Option<Secret>,
    /// SHA-256 fingerprints of certificates that the peer's listener may show, where there is no `cacertfile`.
    pub cert_sha256: Vec<[u8; 32]>,
    /// Whether the peer's certificate is checked.
    pub verify: Verify,
    /// The name the peer's certificate must carry (`server_name_indication`); `None` is the host dialled.
    pub server_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::Environment;
    use crate::trust::rights::TopicGrant;

    fn link(topics: &str, export: &str) -> Link {
        let text = format!(
            "[cluster]\nname = \"A\"\n[[cluster.links]]\nname = \"B\"\nserver = \"b\"\ntopics = [{topics}]\n{export}\n\
             ssl.verify = \"verify_none\"\nallow_insecure = true\npeer.username = \"b\"\n"
        );
        let text = text.replace("\nallow_insecure", "\nssl.allow_insecure");
        config::parse("tombolo.toml", &text, &Environment::default()).unwrap().cluster.links.remove(0)
    }

    fn grants(filters: &[&str]) -> Vec<TopicGrant> {
        filters.iter().map(|filter| TopicGrant { filter: (*filter).to_owned(), qos_max: 2 }).collect()
    }

    #[test]
    fn what_crosses_is_both_configured_and_granted() {
        let mut link = link("\"a/#\", \"+/x\", \"$SYS/#\"", "export = [\"out/#\"]");
        assert_eq!(link.imports(), ["a/#", "+/x", "$SYS/#"]);
        let granted = Rights {
            can_forward: true,
            can_sync_routes: true,
            import: grants(&["#"]),
            export: grants(&["out/1", "b"]),
        };
        link.granted = Some(granted.clone());
        assert_eq!(link.imports(), ["a/#", "+/x"], "what begins with $ is never granted");
        assert_eq!(link.exports(), Export::Only(vec!["out/1".to_owned()]));
        link.granted = Some(Rights { can_forward: false, ..granted.clone() });
        assert!(link.imports().is_empty());
        link.granted = Some(Rights { can_sync_routes: false, ..granted });
        assert_eq!(link.exports(), Export::Only(Vec::new()));
        (link.granted, link.trust) = (None, Trust::Pinned);
        assert_eq!(
            (link.imports(), link.exports()),
            (Vec::new(), Export::Only(Vec::new())),
            "nobody says what"
        );
    }
}
