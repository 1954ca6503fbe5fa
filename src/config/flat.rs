//! Settings as lines of `key: value`, secrets masked: what a difference is made of.
//!
//! Every struct is taken apart by name, so that a new field does not compile before it is shown here.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::settings::AclSource;
use super::settings::Attempts;
use super::settings::Authentication;
use super::settings::Authenticator;
use super::settings::Authorization;
use super::settings::ClientTls;
use super::settings::Cluster;
use super::settings::CrlCache;
use super::settings::CrlSource;
use super::settings::Data;
use super::settings::Export;
use super::settings::FlappingDetect;
use super::settings::Http;
use super::settings::HttpCallout;
use super::settings::HttpTarget;
use super::settings::HttpTls;
use super::settings::Io;
use super::settings::Jwt;
use super::settings::JwtKeys;
use super::settings::Link;
use super::settings::Linking;
use super::settings::Listener;
use super::settings::ListenerTls;
use super::settings::Log;
use super::settings::MASK;
use super::settings::Mqtt;
use super::settings::Ocsp;
use super::settings::OverloadProtection;
use super::settings::Peer;
use super::settings::Quota;
use super::settings::Rate;
use super::settings::RateLimits;
use super::settings::Secret;
use super::settings::Settings;
use super::settings::Spool;
use super::settings::Told;
use super::settings::without_query;
use crate::trust::rights::Rights;

/// A value as text, and the secret behind it, if it is one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// What may be printed.
    pub(super) text: String,
    secret: Option<Secret>,
}

/// Key to value. Listeners and links are named, not numbered: their order means nothing.
pub(super) struct Flat {
    prefix: String,
    lines: BTreeMap<String, Shown>,
}

/// Takes settings apart.
pub(super) fn flatten(settings: &Settings) -> BTreeMap<String, Shown> {
    let Settings {
        cluster,
        data,
        io,
        listeners,
        link,
        crl_cache,
        mqtt,
        overload_protection,
        flapping_detect,
        authentication,
        authorization,
        http,
        log,
        embedded,
    } = settings;
    let mut flat = Flat { prefix: String::new(), lines: BTreeMap::new() };
    flat.put("embedded", embedded);
    flat.cluster(cluster);
    for listener in listeners {
        flat.prefix = format!("listeners[{}].", listener.id());
        flat.listener(listener);
    }
    flat.prefix = String::new();
    flat.data(data);
    flat.io(io);
    flat.linking(link);
    flat.crl_cache(crl_cache);
    flat.mqtt(mqtt);
    flat.protection(overload_protection, flapping_detect);
    flat.access(authentication, authorization);
    flat.http_and_log(http, log);
    flat.lines
}

impl Flat {
    fn text(&mut self, key: &str, text: impl Into<String>) {
        self.lines.insert(format!("{}{key}", self.prefix), Shown { text: text.into(), secret: None });
    }

    fn put(&mut self, key: &str, value: impl Debug) {
        self.text(key, format!("{value:?}"));
    }

    fn path(&mut self, key: &str, path: Option<&Path>) {
        self.put(key, path.map(|path| path.display().to_string()));
    }

    fn duration(&mut self, key: &str, duration: Option<Duration>) {
        self.text(key, duration.map_or_else(|| "infinity".to_owned(), |duration| format!("{duration:?}")));
    }

    fn rate(&mut self, key: &str, rate: Option<Rate>) {
        self.text(key, rate.map_or_else(|| "infinity".to_owned(), |rate| rate.to_string()));
    }

    fn rates(&mut self, table: &str, RateLimits { messages, bytes }: &RateLimits) {
        self.rate(&format!("{table}.messages_rate"), *messages);
        self.rate(&format!("{table}.bytes_rate"), *bytes);
    }

    fn secret(&mut self, key: &str, secret: Option<&Secret>) {
        let text = secret.map_or("unset", |_| MASK).to_owned();
        self.lines.insert(format!("{}{key}", self.prefix), Shown { text, secret: secret.cloned() });
    }

    /// Addresses without their queries, though a change of one is seen.
    fn urls(&mut self, key: &str, shown: String, whole: String) {
        let secret = Some(Secret::new(whole));
        self.lines.insert(format!("{}{key}", self.prefix), Shown { text: shown, secret });
    }

    fn cluster(&mut self, cluster: &Cluster) {
        let Cluster { name, node, links } = cluster;
        self.put("cluster.name", name);
        self.put("cluster.node", node);
        for link in links {
            self.prefix = format!("cluster.links[{}].", link.name);
            self.link(link);
        }
        self.prefix = String::new();
    }

    fn link(&mut self, link: &Link) {
        let Link {
            name: _,
            enable,
            servers,
            dialled_by,
            clientid,
            username,
            password,
            topics,
            export,
            relay,
            reach,
            retained,
            pool_size,
            max_inflight,
            trust,
            granted,
            told,
            demanded,
            peer,
            quota,
            spool,
            ssl,
            allow_insecure,
            of_emqx,
            written: _,
        } = link;
        self.put("enable", enable);
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        self.put("server", servers.join(","));
        self.put("dialled_by", dialled_by);
        self.put("clientid", clientid);
        self.put("username", username);
        self.secret("password", password.as_ref());
        self.put("topics", topics);
        match export {
            Export::Entitled => self.text("export", "by entitlement"),
            Export::Only(filters) => self.put("export", filters),
        }
        self.put("relay", relay);
        self.put("reach", reach);
        self.put("retained", retained);
        self.put("pool_size", pool_size);
        self.text("max_inflight", max_inflight.map_or_else(|| "auto".to_owned(), |most| most.to_string()));
        self.put("trust", trust);
        if let Some(Rights { can_forward, can_sync_routes, import, export }) = granted {
            self.put("granted.can_forward", can_forward);
            self.put("granted.can_sync_routes", can_sync_routes);
            self.put("granted.import", texts(import));
            self.put("granted.export", texts(export));
        }
        if demanded.bits() != 0 {
            self.put("demanded", demanded.names().collect::<Vec<_>>());
        }
        let Told { servers, networks } = told;
        if !servers.is_empty() {
            self.put("told.server", texts(servers));
            self.put("told.networks", texts(networks));
        }
        self.put("ssl.allow_insecure", allow_insecure);
        self.put("ssl.enable", ssl.is_some());
        if let Some(tls) = ssl {
            let ClientTls { cacertfile, certfile, keyfile, password, cert_sha256, verify, server_name } = tls;
            self.path("ssl.cacertfile", cacertfile.as_deref());
            self.path("ssl.certfile", certfile.as_deref());
            self.path("ssl.keyfile", keyfile.as_deref());
            self.secret("ssl.password", password.as_ref());
            self.put("ssl.cert_sha256", cert_sha256.iter().map(hex).collect::<Vec<_>>());
            self.put("ssl.verify", verify);
            self.put("ssl.server_name_indication", server_name);
        }
        let Peer { clientid, username, cert_sha256, cert_cn, allow_unauthenticated } = peer;
        self.put("peer.clientid", clientid);
        self.put("peer.username", username);
        self.put("peer.cert_sha256", cert_sha256.iter().map(hex).collect::<Vec<_>>());
        self.put("peer.cert_cn", cert_cn);
        self.put("peer.allow_unauthenticated", allow_unauthenticated);
        let Quota { connections, actors, routes, rates } = quota;
        self.put("quota.connections", connections);
        self.put("quota.actors", actors);
        self.put("quota.routes", routes);
        self.rates("quota", rates);
        let Spool { max_bytes, max_age, on_full, qos0 } = spool;
        self.put("spool.max_bytes", max_bytes);
        self.duration("spool.max_age", *max_age);
        self.put("spool.on_full", on_full);
        self.put("spool.qos0", qos0);
        self.text("emqx", of_emqx.to_string());
    }

    fn listener(&mut self, listener: &Listener) {
        let Listener {
            name: _,
            kind: _,
            bind,
            role,
            enable,
            max_connections,
            max_conn_rate,
            proxy_protocol,
            proxy_trusted,
            allow_insecure,
            authn_enable,
            limits,
            ssl,
        } = listener;
        self.text("bind", bind.to_string());
        self.put("role", role);
        self.put("enable", enable);
        self.put("max_connections", max_connections);
        self.rate("max_conn_rate", *max_conn_rate);
        self.put("proxy_protocol", proxy_protocol);
        self.put("proxy_trusted", texts(proxy_trusted));
        self.put("allow_insecure", allow_insecure);
        self.put("authn.enable", authn_enable);
        self.rates("limits", limits);
        if let Some(ssl) = ssl {
            self.listener_tls(ssl);
        }
    }

    fn listener_tls(&mut self, ssl: &ListenerTls) {
        let ListenerTls {
            certfile,
            keyfile,
            password,
            cacertfile,
            partial_chain,
            verify,
            fail_if_no_peer_cert,
            key_usages,
            versions,
            ciphers,
            added_13: _,
            honor_cipher_order,
            reuse_sessions,
            session_tickets,
            server_names,
            depth,
            crl,
            ocsp,
            peer_cert_as_username,
            handshake_timeout,
        } = ssl;
        self.path("ssl.certfile", certfile.as_deref());
        self.path("ssl.keyfile", keyfile.as_deref());
        self.secret("ssl.password", password.as_ref());
        self.path("ssl.cacertfile", cacertfile.as_deref());
        self.put("ssl.partial_chain", partial_chain);
        self.put("ssl.verify", verify);
        self.put("ssl.fail_if_no_peer_cert", fail_if_no_peer_cert);
        self.put("ssl.verify_peer_ext_key_usage", key_usages);
        self.put("ssl.versions", versions);
        self.put("ssl.ciphers", ciphers.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.put("ssl.honor_cipher_order", honor_cipher_order);
        self.put("ssl.reuse_sessions", reuse_sessions);
        self.put("ssl.session_tickets", session_tickets);
        self.put("ssl.server_names", server_names);
        self.put("ssl.depth", depth);
        match crl {
            None => self.put("ssl.enable_crl_check", false),
            Some(CrlSource::File(path)) => self.path("ssl.crlfile", Some(path)),
            Some(CrlSource::Urls(urls)) => {
                let shown: Vec<String> = urls.iter().map(ToString::to_string).collect();
                self.urls("ssl.crl_url", format!("{shown:?}"), format!("{urls:?}"));
            }
        }
        self.put("ssl.ocsp.enable_ocsp_stapling", ocsp.is_some());
        if let Some(Ocsp { responder_url, issuer_pem, refresh_interval, refresh_http_timeout }) = ocsp {
            let whole = format!("{responder_url:?}");
            self.urls("ssl.ocsp.responder_url", responder_url.to_string(), whole);
            self.path("ssl.ocsp.issuer_pem", Some(issuer_pem));
            self.duration("ssl.ocsp.refresh_interval", Some(*refresh_interval));
            self.duration("ssl.ocsp.refresh_http_timeout", Some(*refresh_http_timeout));
        }
        self.put("ssl.peer_cert_as_username", peer_cert_as_username);
        self.duration("ssl.handshake_timeout", Some(*handshake_timeout));
    }

    fn crl_cache(&mut self, cache: &CrlCache) {
        let CrlCache { refresh_interval, http_timeout, capacity, cacertfile } = cache;
        self.duration("crl_cache.refresh_interval", Some(*refresh_interval));
        self.duration("crl_cache.http_timeout", Some(*http_timeout));
        self.put("crl_cache.capacity", capacity);
        self.path("crl_cache.cacertfile", cacertfile.as_deref());
    }

    fn data(&mut self, data: &Data) {
        let Data { dir, durability, max_bytes } = data;
        self.path("data.dir", Some(dir));
        self.put("data.durability", durability);
        self.text(
            "data.max_bytes",
            max_bytes.map_or_else(|| "infinity".to_owned(), |bytes| bytes.to_string()),
        );
    }

    fn io(&mut self, io: &Io) {
        let Io { threads, placement } = io;
        self.put("io.threads", threads);
        self.put("io.placement", placement);
    }

    fn mqtt(&mut self, mqtt: &Mqtt) {
        let Mqtt {
            max_packet_size,
            max_clientid_len,
            max_topic_levels,
            max_topic_alias,
            retain_available,
            wildcard_subscription,
            shared_subscription,
            max_qos_allowed,
            server_keepalive,
            max_keepalive,
            keepalive_multiplier,
            idle_timeout,
            session_expiry_interval,
            max_inflight,
            max_mqueue_len,
            mqueue_store_qos0,
            mqueue_on_full,
            send_timeout,
            max_awaiting_rel,
            await_rel_timeout,
            max_subscriptions,
            shared_subscription_strategy,
            exclusive_subscription,
            message_expiry_interval,
            ignore_loop_deliver,
            response_information,
            strict_mode,
        } = mqtt;
        self.put("mqtt.max_packet_size", max_packet_size);
        self.put("mqtt.max_clientid_len", max_clientid_len);
        self.put("mqtt.max_topic_levels", max_topic_levels);
        self.put("mqtt.max_topic_alias", max_topic_alias);
        self.put("mqtt.retain_available", retain_available);
        self.put("mqtt.wildcard_subscription", wildcard_subscription);
        self.put("mqtt.shared_subscription", shared_subscription);
        self.put("mqtt.max_qos_allowed", *max_qos_allowed as u8);
        self.put("mqtt.server_keepalive", server_keepalive);
        self.put("mqtt.max_keepalive", max_keepalive);
        self.put("mqtt.keepalive_multiplier", keepalive_multiplier);
        self.duration("mqtt.idle_timeout", Some(*idle_timeout));
        self.duration("mqtt.session_expiry_interval", Some(*session_expiry_interval));
        self.put("mqtt.max_inflight", max_inflight);
        self.put("mqtt.max_mqueue_len", max_mqueue_len);
        self.put("mqtt.mqueue_store_qos0", mqueue_store_qos0);
        self.put("mqtt.mqueue_on_full", mqueue_on_full);
        self.duration("mqtt.send_timeout", *send_timeout);
        self.put("mqtt.max_awaiting_rel", max_awaiting_rel);
        self.duration("mqtt.await_rel_timeout", Some(*await_rel_timeout));
        self.put("mqtt.max_subscriptions", max_subscriptions);
        self.put("mqtt.shared_subscription_strategy", shared_subscription_strategy);
        self.put("mqtt.exclusive_subscription", exclusive_subscription);
        self.duration("mqtt.message_expiry_interval", *message_expiry_interval);
        self.put("mqtt.ignore_loop_deliver", ignore_loop_deliver);
        self.put("mqtt.response_information", response_information);
        self.put("mqtt.strict_mode", strict_mode);
    }

    fn linking(&mut self, link: &Linking) {
        let Linking { token_expiry, auto_rotate, allowed_peer_networks } = link;
        self.duration("link.token_expiry", Some(*token_expiry));
        self.put("link.auto_rotate", auto_rotate);
        self.put("link.allowed_peer_networks", texts(allowed_peer_networks));
    }

    fn protection(&mut self, overload: &OverloadProtection, flapping: &FlappingDetect) {
        let OverloadProtection { max_memory, max_lag, max_sessions, max_total_subscriptions } = overload;
        self.text("overload_protection.max_memory", max_memory.to_string());
        self.duration("overload_protection.max_lag", *max_lag);
        self.put("overload_protection.max_sessions", max_sessions);
        self.put("overload_protection.max_total_subscriptions", max_total_subscriptions);
        let FlappingDetect { enable, window_time, max_count, ban_time } = flapping;
        self.put("flapping_detect.enable", enable);
        self.duration("flapping_detect.window_time", Some(*window_time));
        self.put("flapping_detect.max_count", max_count);
        self.duration("flapping_detect.ban_time", Some(*ban_time));
    }

    fn access(&mut self, authentication: &Authentication, authorization: &Authorization) {
        let Authentication { allow_anonymous, password_file, legacy_hashes, chain, attempts } =
            authentication;
        self.put("authentication.allow_anonymous", allow_anonymous);
        self.path("authentication.password_file", password_file.as_deref());
        self.put("authentication.legacy_hashes", legacy_hashes);
        for (index, step) in chain.iter().enumerate() {
            self.authenticator(&format!("authentication.chain[{index}]"), step);
        }
        let Attempts { enable, lockout_failures, lockout_window, lockout_time } = attempts;
        self.put("authentication.attempts.enable", enable);
        self.put("authentication.attempts.lockout_failures", lockout_failures);
        self.duration("authentication.attempts.lockout_window", Some(*lockout_window));
        self.duration("authentication.attempts.lockout_time", Some(*lockout_time));
        let Authorization { file, no_match, deny_action, mode, security_profile } = authorization;
        match file {
            AclSource::Embedded => self.text("authorization.file", "as shipped"),
            AclSource::File(path) => self.path("authorization.file", Some(path)),
        }
        self.put("authorization.no_match", no_match);
        self.put("authorization.deny_action", deny_action);
        self.put("authorization.mode", mode);
        self.put("authorization.security_profile", security_profile);
    }

    fn authenticator(&mut self, key: &str, step: &Authenticator) {
        self.text(&format!("{key}.mechanism"), step.mechanism());
        match step {
            Authenticator::Password { password_file, legacy_hashes } => {
                self.path(&format!("{key}.password_file"), Some(password_file));
                self.put(&format!("{key}.legacy_hashes"), legacy_hashes);
            }
            Authenticator::Scram { password_file } => {
                self.path(&format!("{key}.password_file"), Some(password_file));
            }
            Authenticator::Certificate { username } => self.put(&format!("{key}.username"), username),
            Authenticator::Jwt(jwt) => self.jwt(key, jwt),
            Authenticator::Http(http) => {
                let HttpCallout { target, authorization, max_concurrent } = &**http;
                self.target(&format!("{key}.url"), key, target);
                self.secret(&format!("{key}.authorization"), authorization.as_ref());
                self.put(&format!("{key}.max_concurrent"), max_concurrent);
            }
        }
    }

    fn jwt(&mut self, key: &str, jwt: &Jwt) {
        let Jwt { keys, from_username, username_claim, require_exp, leeway, verify_claims, .. } = jwt;
        match keys {
            JwtKeys::Secret { secret, is_base64 } => {
                self.secret(&format!("{key}.secret"), Some(secret));
                self.put(&format!("{key}.secret_base64_encoded"), is_base64);
            }
            JwtKeys::PublicKey(path) => self.path(&format!("{key}.public_key_file"), Some(path)),
            JwtKeys::JwksFile(path) => self.path(&format!("{key}.jwks_file"), Some(path)),
            JwtKeys::JwksUrl { target, refresh_interval, max_age } => {
                self.target(&format!("{key}.endpoint"), key, target);
                self.duration(&format!("{key}.refresh_interval"), Some(*refresh_interval));
                self.duration(&format!("{key}.max_age"), Some(*max_age));
            }
        }
        self.text(&format!("{key}.from"), if *from_username { "username" } else { "password" });
        self.put(&format!("{key}.username_claim"), username_claim);
        self.put(&format!("{key}.require_exp"), require_exp);
        self.duration(&format!("{key}.leeway"), Some(*leeway));
        self.put(&format!("{key}.verify_claims"), verify_claims);
        self.put(&format!("{key}.disconnect_after_expire"), jwt.disconnect_after_expire);
    }

    fn target(&mut self, url_key: &str, key: &str, target: &HttpTarget) {
        let HttpTarget { url, server: _, path: _, cacertfile, timeout } = target;
        self.urls(url_key, without_query(url).to_owned(), url.clone());
        self.path(&format!("{key}.cacertfile"), cacertfile.as_deref());
        self.duration(&format!("{key}.timeout"), Some(*timeout));
    }

    fn http_and_log(&mut self, http: &Http, log: &Log) {
        let Http { bind, metrics_auth, metrics_emqx, viewer_socket, ssl } = http;
        self.put("http.bind", bind);
        self.put("http.metrics_auth", metrics_auth);
        self.put("http.metrics_emqx", metrics_emqx);
        self.path("http.viewer_socket", viewer_socket.as_deref());
        self.put("http.ssl.enable", ssl.is_some());
        if let Some(HttpTls { bind, certfile, keyfile }) = ssl {
            self.put("http.ssl.bind", bind);
            self.path("http.ssl.certfile", certfile.as_deref());
            self.path("http.ssl.keyfile", keyfile.as_deref());
        }
        let Log { level, format, security_file, security_file_max_bytes } = log;
        self.put("log.level", level);
        self.put("log.format", format);
        self.put("log.security_file", security_file);
        self.put("log.security_file_max_bytes", security_file_max_bytes);
    }
}

/// Each as it is written.
fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// A fingerprint in hexadecimal, as `cert_sha256` takes it.
#[must_use]
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
