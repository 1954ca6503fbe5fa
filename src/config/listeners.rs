//! `[[listeners]]`: where clients and linked clusters connect. Their TLS is in `listener_tls`.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::document::Node;
use super::listener_tls;
use super::parse;
use super::reader::Section;
use super::reader::Wrong;
use super::sections::narrow;
use super::settings::Bind;
use super::settings::Listener;
use super::settings::ListenerKind;
use super::settings::Network;
use super::settings::RateLimits;
use super::settings::Role;
use super::units;

/// EMQX's `max_connections` of an ordinary listener.
const CLIENT_CONNECTIONS: u64 = 1_024_000;

/// A listener for links serves few peers with a pool of connections each.
const LINK_CONNECTIONS: u64 = 1024;

/// Reads the list; without one there is the default listener on loopback.
pub(super) fn listeners(root: &Section<'_>) -> Vec<Listener> {
    let written = root.has("listeners");
    let mut listeners: Vec<Listener> = root.sections("listeners").into_iter().map(listener).collect();
    if !written {
        listeners.push(default_listener());
    }
    listeners
}

fn default_listener() -> Listener {
    Listener {
        name: "default".to_owned(),
        kind: ListenerKind::Tcp,
        bind: Bind::Addr(loopback(1883)),
        role: Role::Client,
        enable: true,
        max_connections: u32::try_from(CLIENT_CONNECTIONS).unwrap_or(u32::MAX),
        max_conn_rate: None,
        proxy_protocol: false,
        proxy_trusted: Vec::new(),
        allow_insecure: false,
        authn_enable: true,
        limits: RateLimits::default(),
        ssl: None,
    }
}

fn where_to_bind(section: &Section<'_>, kind: ListenerKind) -> Bind {
    match default_port(kind) {
        Some(port) => Bind::Addr(section.or("bind", loopback(port), socket_addr)),
        None => Bind::Path(section.required("bind", socket_path).unwrap_or_default()),
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// EMQX's port of each type; a Unix socket has none.
fn default_port(kind: ListenerKind) -> Option<u16> {
    match kind {
        ListenerKind::Tcp => Some(1883),
        ListenerKind::Ssl => Some(8883),
        ListenerKind::Ws => Some(8083),
        ListenerKind::Wss => Some(8084),
        ListenerKind::Unix => None,
    }
}

fn listener(section: Section<'_>) -> Listener {
    let kinds =
        [ListenerKind::Tcp, ListenerKind::Ssl, ListenerKind::Ws, ListenerKind::Wss, ListenerKind::Unix];
    let words = kinds.map(|kind| (kind.to_string(), kind));
    let words = words.each_ref().map(|(word, kind)| (word.as_str(), *kind));
    let roles = [("client", Role::Client), ("link", Role::Link), ("any", Role::Any)];

    let kind = section.or("type", ListenerKind::Tcp, parse::one_of(&words));
    let role = section.or("role", Role::Client, parse::one_of(&roles));
    let connections = if role == Role::Link { LINK_CONNECTIONS } else { CLIENT_CONNECTIONS };
    let listener = Listener {
        name: section.optional("name", listener_name).unwrap_or_else(|| "default".to_owned()),
        kind,
        bind: where_to_bind(&section, kind),
        role,
        enable: section.or("enable", true, parse::boolean),
        max_connections: section
            .optional("max_connections", parse::integer(1..=u64::from(u32::MAX)))
            .and_then(|number| narrow(number).ok())
            .unwrap_or_else(|| u32::try_from(connections).unwrap_or(u32::MAX)),
        max_conn_rate: section.or("max_conn_rate", None, parse::or_word("infinity", parse::rate)),
        proxy_protocol: section.or("proxy_protocol", false, parse::boolean),
        proxy_trusted: networks(&section, "proxy_trusted"),
        allow_insecure: section.or("allow_insecure", false, parse::boolean),
        authn_enable: authn(section.section("authn")),
        ssl: listener_tls::ssl(&section, kind, role),
        limits: limits(section.section("limits")),
    };
    section.finish();
    listener
}

fn limits(section: Section<'_>) -> RateLimits {
    let limits = parse::rate_limits(&section);
    section.finish();
    limits
}

/// More than any number of load balancers: every connection is compared with each.
const NETWORKS_MAX: usize = 256;

/// Addresses and blocks of them.
pub(super) fn networks(section: &Section<'_>, key: &'static str) -> Vec<Network> {
    let one = |node: &Node| units::network(&parse::word(node)?).map_err(Wrong::from);
    let list = section.list(key, one).unwrap_or_default();
    if list.len() > NETWORKS_MAX {
        section.reading().error(&section.path(key), format!("at most {NETWORKS_MAX} addresses"));
    }
    list
}

/// EMQX's rule for names of listeners.
fn listener_name(node: &Node) -> Result<String, Wrong> {
    let name = parse::text(node)?;
    let mut bytes = name.bytes();
    let valid = name.len() <= 255
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if valid {
        Ok(name)
    } else {
        Err(format!("{name:?} is not a listener name: A-Z a-z 0-9 _ -, a letter or digit first").into())
    }
}

/// The longest path of a socket: `sun_path` of unix(7) less its NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Absolute: clients are told the same path, and run in other directories than we do.
fn socket_path(node: &Node) -> Result<PathBuf, Wrong> {
    let path = parse::path(node)?;
    let text = path.as_os_str().as_encoded_bytes();
    if !path.is_absolute() || path.file_name().is_none() || text.ends_with(b"/") {
        let shown = path.display();
        return Err(format!(
            "`{shown}` is not the absolute path of a socket such as \"/run/tombolo/mqtt.sock\""
        )
        .into());
    }
    if text.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes").into());
    }
    Ok(path)
}

/// `address:port`. A port alone would mean every address of the machine, which must be said (`0.0.0.0:1883`).
pub(super) fn socket_addr(node: &Node) -> Result<SocketAddr, Wrong> {
    let text = parse::word(node)?;
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let hint = match text.strip_prefix(':').unwrap_or(&text).parse::<u16>() {
        Ok(port) => Some(format!("127.0.0.1:{port}")),
        Err(_) => text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 1883).to_string()),
    };
    let hint = hint.or_else(|| {
        let port = text.strip_prefix("localhost:")?.parse::<u16>().ok()?;
        Some(format!("127.0.0.1:{port}"))
    });
    Err(Wrong { message: format!("`{text}` is not an IP address and a port"), hint })
}

fn authn(section: Section<'_>) -> bool {
    let enable = section.or("enable", true, |node| match parse::text(node) {
        Ok(word) if word == "quick_deny_anonymous" => {
            Err("quick_deny_anonymous is not supported yet: true or false".into())
        }
        _ => parse::boolean(node),
    });
    section.finish();
    enable
}
