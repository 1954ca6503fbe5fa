//! The tables of the file, one function each, with their defaults; listeners and links have their own files.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::mqtt::packet::QoS;
use crate::session::queue::WhenFull;
use crate::trust::name::is_cluster_name;
use crate::trust::name::is_cluster_name_byte;

use super::authentication;
use super::document::Node;
use super::links;
use super::listener_tls;
use super::listeners;
use super::parse;
use super::protection;
use super::reader::Reading;
use super::reader::Section;
use super::reader::Wrong;
use super::settings::AclMode;
use super::settings::AclSource;
use super::settings::Authorization;
use super::settings::Cluster;
use super::settings::Data;
use super::settings::DenyAction;
use super::settings::Durability;
use super::settings::Http;
use super::settings::HttpTls;
use super::settings::Io;
use super::settings::Log;
use super::settings::LogFormat;
use super::settings::Mqtt;
use super::settings::Permission;
use super::settings::Placement;
use super::settings::SecurityProfile;
use super::settings::Settings;
use super::settings::SharedStrategy;

/// The longest Control Packet: Remaining Length is at most four bytes (MQTT 5.0 section 2.1.4).
const PACKET_BYTES_MAX: u64 = 268_435_460;

/// What a default may depend on.
pub(super) struct Defaults<'a> {
    /// The name of this machine.
    pub(super) host_name: &'a str,
    /// No file was given.
    pub(super) embedded: bool,
}

/// Reads everything; what is wrong is recorded in `reading` and replaced by its default.
pub(super) fn settings(reading: &Reading<'_>, defaults: &Defaults<'_>) -> Settings {
    let root = reading.root();
    let cluster = cluster(root.section("cluster"), defaults.host_name);
    let listeners = listeners::listeners(&root);
    // Anonymous clients are for loopback only, and only where nobody configured anything.
    let anonymous = defaults.embedded && listeners.iter().all(|l| !l.enable || l.bind.is_loopback());
    let settings = Settings {
        cluster,
        data: data(root.section("data")),
        io: io(root.section("io")),
        listeners,
        link: links::linking(root.section("link")),
        crl_cache: listener_tls::crl_cache(root.section("crl_cache")),
        mqtt: mqtt(root.section("mqtt")),
        overload_protection: protection::overload_protection(root.section("overload_protection")),
        flapping_detect: protection::flapping_detect(root.section("flapping_detect")),
        authentication: authentication::authentication(root.section("authentication"), anonymous),
        authorization: authorization(root.section("authorization")),
        http: http(root.section("http")),
        log: log(root.section("log")),
        embedded: defaults.embedded,
    };
    root.finish();
    settings
}

fn cluster(section: Section<'_>, host_name: &str) -> Cluster {
    let name = section.optional("name", cluster_name).unwrap_or_else(|| sanitised(host_name));
    let node = section.optional("node", parse::word).unwrap_or_else(|| "tombolo@127.0.0.1".to_owned());
    let links = links::links(&section, &name);
    section.finish();
    Cluster { name, node, links }
}

/// `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`: a cluster's name, which is a level of `$LINK` topics.
pub(super) fn cluster_name(node: &Node) -> Result<String, Wrong> {
    let name = parse::text(node)?;
    if is_cluster_name(&name) {
        return Ok(name);
    }
    Err(format!("{name:?} is not a cluster name: 1 to 63 of A-Z a-z 0-9 _ . -, a letter or digit first")
        .into())
}

/// A cluster name out of a host name: what may not be in it is left out.
fn sanitised(host_name: &str) -> String {
    let kept: String =
        host_name.chars().filter(|c| u8::try_from(*c).is_ok_and(is_cluster_name_byte)).collect();
    let mut name = kept.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    name.truncate(63);
    if name.is_empty() { "tombolo".to_owned() } else { name }
}

/// Of the store, unless it is set; and the least that it can be set to, so that what is under way makes no difference.
const STORE_BYTES: u64 = 16 << 30;
const STORE_BYTES_MIN: u64 = 512 << 20;

pub(super) fn data(section: Section<'_>) -> Data {
    let durability =
        [("fsync", Durability::Fsync), ("write", Durability::Write), ("memory", Durability::Memory)];
    let data = Data {
        dir: section.or("dir", "data".into(), parse::path),
        durability: section.or("durability", Durability::Fsync, parse::one_of(&durability)),
        max_bytes: section.or(
            "max_bytes",
            Some(STORE_BYTES),
            parse::or_word("infinity", parse::size(STORE_BYTES_MIN..=u64::MAX >> 8)),
        ),
    };
    section.finish();
    data
}

/// More threads than cores are of no use, but a file may be meant for another machine.
const IO_THREADS_MAX: u64 = 256;

fn io(section: Section<'_>) -> Io {
    let placements = [("fill", Placement::Fill), ("spread", Placement::Spread)];
    let io = Io {
        threads: section.or("threads", None, |node| {
            parse::or_word("auto", parse::integer(1..=IO_THREADS_MAX))(node)?.map(narrow).transpose()
        }),
        placement: section.or("placement", Placement::Fill, parse::one_of(&placements)),
    };
    section.finish();
    io
}

fn mqtt(section: Section<'_>) -> Mqtt {
    let count = |key, default, range: RangeInclusive<u64>| -> usize {
        section.or(key, default, |node| narrow(parse::integer(range)(node)?))
    };
    let short = |key, default, range: RangeInclusive<u64>| -> u16 {
        section.or(key, default, |node| narrow(parse::integer(range)(node)?))
    };
    let seconds = |key| -> Option<u16> {
        section.or(key, None, |node| {
            parse::or_word("disabled", parse::integer(1..=65_535))(node)?.map(narrow).transpose()
        })
    };
    let second = Duration::from_secs(1);
    let on_full = [
        ("drop_oldest", WhenFull::DropOldest),
        ("drop_new", WhenFull::DropNew),
        ("disconnect", WhenFull::Disconnect),
    ];
    let strategies = [
        ("round_robin", SharedStrategy::RoundRobin),
        ("random", SharedStrategy::Random),
        ("sticky", SharedStrategy::Sticky),
        ("hash_clientid", SharedStrategy::HashClientId),
        ("hash_topic", SharedStrategy::HashTopic),
        ("local", SharedStrategy::Random),
    ];
    let mqtt = Mqtt {
        max_packet_size: section
            .or("max_packet_size", 1 << 20, |node| narrow(parse::size(128..=PACKET_BYTES_MAX)(node)?)),
        max_clientid_len: count("max_clientid_len", 65_535, 23..=65_535),
        max_topic_levels: count("max_topic_levels", 128, 1..=65_535),
        max_topic_alias: short("max_topic_alias", 65_535, 0..=65_535),
        retain_available: section.or("retain_available", true, parse::boolean),
        wildcard_subscription: section.or("wildcard_subscription", true, parse::boolean),
        shared_subscription: section.or("shared_subscription", true, parse::boolean),
        max_qos_allowed: section.or("max_qos_allowed", QoS::ExactlyOnce, qos),
        server_keepalive: seconds("server_keepalive"),
        max_keepalive: seconds("max_keepalive"),
        keepalive_multiplier: section.or("keepalive_multiplier", 1.5, parse::number(1.0, 100.0)),
        idle_timeout: section.or("idle_timeout", 15 * second, parse::duration(second / 10..=3600 * second)),
        session_expiry_interval: section.or(
            "session_expiry_interval",
            7200 * second,
            // One less than the Session Expiry Interval that means never (MQTT 5.0 section 3.1.2.11.2).
            parse::duration(Duration::ZERO..=(u32::MAX - 1) * second),
        ),
        max_inflight: short("max_inflight", 32, 1..=65_535),
        max_mqueue_len: count("max_mqueue_len", 1000, 1..=10_000_000),
        mqueue_store_qos0: section.or("mqueue_store_qos0", true, parse::boolean),
        mqueue_on_full: section.or("mqueue_on_full", WhenFull::DropOldest, parse::one_of(&on_full)),
        send_timeout: section.or(
            "send_timeout",
            Some(15 * second),
            parse::or_word("infinity", parse::duration(second / 10..=86_400 * second)),
        ),
        max_awaiting_rel: count("max_awaiting_rel", 100, 1..=65_535),
        await_rel_timeout: section.or(
            "await_rel_timeout",
            300 * second,
            parse::duration(second..=86_400 * second),
        ),
        max_subscriptions: section.or("max_subscriptions", None, |node| {
            parse::or_word("infinity", parse::integer(1..=10_000_000))(node)?.map(narrow).transpose()
        }),
        shared_subscription_strategy: section.or(
            "shared_subscription_strategy",
            SharedStrategy::RoundRobin,
            parse::one_of(&strategies),
        ),
        exclusive_subscription: section.or("exclusive_subscription", false, parse::boolean),
        message_expiry_interval: section.or(
            "message_expiry_interval",
            None,
            parse::or_word("infinity", parse::duration(second..=36_500 * 86_400 * second)),
        ),
        ignore_loop_deliver: section.or("ignore_loop_deliver", false, parse::boolean),
        response_information: section.or("response_information", String::new(), parse::text),
        strict_mode: section.or("strict_mode", false, parse::boolean),
    };
    mqtt_not_built_yet(&section);
    section.finish();
    mqtt
}

/// Settings of EMQX that are checked here and refused by `unsupported` unless they have their default.
fn mqtt_not_built_yet(section: &Section<'_>) {
    let days = Duration::ZERO..=Duration::from_secs(36_500 * 86_400);
    section.optional("retry_interval", parse::or_word("infinity", parse::duration(days.clone())));
    section.optional("keepalive_check_interval", parse::duration(days));
    section.optional("upgrade_qos", parse::boolean);
    section.optional("use_username_as_clientid", parse::boolean);
    section.optional("mqueue_priorities", parse::or_word("disabled", parse::text));
    section.optional("mqueue_default_priority", parse::one_of(&[("lowest", ()), ("highest", ())]));
    let fields = ["disabled", "cn", "dn", "crt", "pem", "md5", "sha256"].map(|word| (word, ()));
    section.optional("peer_cert_as_username", parse::one_of(&fields));
    section.optional("peer_cert_as_clientid", parse::one_of(&fields));
}

fn qos(node: &Node) -> Result<QoS, Wrong> {
    let number: u8 = narrow(parse::integer(0..=2)(node)?)?;
    QoS::from_u8(number).ok_or_else(|| "expected 0, 1 or 2".into())
}

/// An integer whose range was checked, in the type of its setting.
pub(super) fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, Wrong> {
    T::try_from(number).map_err(|_| format!("{number} is too large").into())
}

fn authorization(section: Section<'_>) -> Authorization {
    let permission = [("deny", Permission::Deny), ("allow", Permission::Allow)];
    let action = [("ignore", DenyAction::Ignore), ("disconnect", DenyAction::Disconnect)];
    let mode = [("strict", AclMode::Strict), ("emqx", AclMode::Emqx)];
    let profile = [("legacy", SecurityProfile::Legacy), ("hardened", SecurityProfile::Hardened)];
    let authorization = Authorization {
        file: section.optional("file", parse::path).map_or(AclSource::Embedded, AclSource::File),
        no_match: section.or("no_match", Permission::Deny, parse::one_of(&permission)),
        deny_action: section.or("deny_action", DenyAction::Ignore, parse::one_of(&action)),
        mode: section.or("mode", AclMode::Strict, parse::one_of(&mode)),
        security_profile: section.or("security_profile", SecurityProfile::Legacy, parse::one_of(&profile)),
    };
    section.finish();
    authorization
}

fn http(section: Section<'_>) -> Http {
    let bind = section.or("bind", SocketAddr::from((Ipv4Addr::LOCALHOST, 18083)), listeners::socket_addr);
    let metrics_auth = section.or("metrics_auth", false, parse::boolean);
    let metrics_emqx = section.or("metrics_emqx", false, parse::boolean);
    let viewer_socket = section.optional("viewer_socket", parse::path);
    let ssl = http_ssl(section.section("ssl"));
    section.finish();
    let metrics_auth = metrics_auth || !bind.ip().to_canonical().is_loopback();
    Http { bind, metrics_auth, metrics_emqx, viewer_socket, ssl }
}

/// A second address, over TLS: operators are known there by their certificates too.
fn http_ssl(section: Section<'_>) -> Option<HttpTls> {
    let enable = section.or("enable", false, parse::boolean);
    let bind = if enable {
        section.required("bind", listeners::socket_addr)
    } else {
        section.optional("bind", listeners::socket_addr)
    };
    let certfile = section.optional("certfile", parse::path);
    let keyfile = section.optional("keyfile", parse::path);
    if certfile.is_some() != keyfile.is_some() {
        let missing = if certfile.is_some() { "keyfile" } else { "certfile" };
        section.reading().error(&section.path(missing), "certfile and keyfile come together");
    }
    section.finish();
    bind.filter(|_| enable).map(|bind| HttpTls { bind, certfile, keyfile })
}

fn log(section: Section<'_>) -> Log {
    let format = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let log = Log {
        level: section.or("level", "info".to_owned(), level),
        format: section.or("format", LogFormat::Text, parse::one_of(&format)),
        security_file: section.or("security_file", true, parse::boolean),
        security_file_max_bytes: section.or(
            "security_file_max_bytes",
            64 << 20,
            parse::size(64 << 10..=1 << 40),
        ),
    };
    section.finish();
    log
}

fn level(node: &Node) -> Result<String, Wrong> {
    let level = parse::word(node)?;
    match tracing_subscriber::EnvFilter::builder().parse(&level) {
        Ok(_) => Ok(level),
        Err(error) => Err(format!("`{level}` is not a tracing filter: {error}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_cluster_name() {
        let table = [
            ("vm", "vm"),
            ("node-1.example.net", "node-1.example.net"),
            ("-büro_1", "bro_1"),
            ("", "tombolo"),
            ("..", "tombolo"),
            ("a b", "ab"),
        ];
        for (host, name) in table {
            assert_eq!(sanitised(host), name);
            assert!(is_cluster_name(&sanitised(host)), "{host}");
        }
        assert_eq!(sanitised(&"h".repeat(80)).len(), 63);
    }

    #[test]
    fn cluster_names_follow_their_pattern() {
        for name in ["A", "0", "a_b.c-d", &"x".repeat(63)] {
            assert!(is_cluster_name(name), "{name}");
        }
        for name in ["", "-a", "_a", ".a", "a/b", "a b", "a+", "é", &"x".repeat(64)] {
            assert!(!is_cluster_name(name), "{name}");
        }
    }
}
