//! `[listeners.ssl]` and `[crl_cache]`: EMQX's names, defaults by role (`authn-tls.md` section 1).

use std::time::Duration;

use rustls::pki_types::DnsName;

use super::document::Node;
use super::document::Value;
use super::parse;
use super::reader::Section;
use super::reader::Wrong;
use super::secrets;
use super::sections::narrow;
use super::settings::CipherSuite;
use super::settings::CrlCache;
use super::settings::CrlSource;
use super::settings::HttpUrl;
use super::settings::KeyUsage;
use super::settings::ListenerKind;
use super::settings::ListenerTls;
use super::settings::Ocsp;
use super::settings::PartialChain;
use super::settings::PeerCertAs;
use super::settings::Role;
use super::settings::TlsVersions;
use super::settings::Verify;

/// The words of `verify`.
pub(super) const VERIFY: [(&str, Verify); 2] = [("verify_none", Verify::None), ("verify_peer", Verify::Peer)];

/// The words of `verify_peer_ext_key_usage`.
const USAGES: [(&str, KeyUsage); 6] = [
    ("clientAuth", KeyUsage::ClientAuth),
    ("serverAuth", KeyUsage::ServerAuth),
    ("codeSigning", KeyUsage::CodeSigning),
    ("emailProtection", KeyUsage::EmailProtection),
    ("timeStamping", KeyUsage::TimeStamping),
    ("ocspSigning", KeyUsage::OcspSigning),
];

/// Usages that a certificate may have to have, addresses of lists that a listener may have.
const LIST_MAX: usize = 64;

const SECOND: Duration = Duration::from_secs(1);

/// Reads `ssl` of a listener; `None` where there is no TLS.
pub(super) fn ssl(listener: &Section<'_>, kind: ListenerKind, role: Role) -> Option<ListenerTls> {
    let section = listener.section("ssl");
    if !kind.is_tls() {
        if section.is_written() {
            let reading = listener.reading();
            reading.error(
                &listener.path("ssl"),
                format!("a listener of type {kind} has no TLS; its type is ssl or wss with it"),
            );
        }
        return None;
    }
    let strict = role.accepts_links();
    let verify =
        section.or("verify", if strict { Verify::Peer } else { Verify::None }, parse::one_of(&VERIFY));
    let asks = verify == Verify::Peer;
    let versions = versions(&section, if strict { TlsVersions::ONLY_13 } else { TlsVersions::BOTH });
    let (ciphers, added_13) = ciphers(&section, versions);
    let usages = if strict && asks { vec![KeyUsage::ClientAuth] } else { Vec::new() };
    let identity = [
        ("disabled", PeerCertAs::Disabled),
        ("cn", PeerCertAs::Cn),
        ("dn", PeerCertAs::Dn),
        ("sha256", PeerCertAs::Sha256),
    ];
    let timeouts = Duration::from_millis(100)..=300 * SECOND;
    // Linked clusters know us by the link certificate; everybody else needs one that an authority vouches for.
    let shows_own = role == Role::Link && !section.has("certfile") && !section.has("keyfile");
    let file = |key| (!shows_own).then(|| section.required(key, parse::path).unwrap_or_default());
    let tls = ListenerTls {
        certfile: file("certfile"),
        keyfile: file("keyfile"),
        password: section.optional("password", secrets::secret(listener.reading().variables)),
        cacertfile: section.optional("cacertfile", parse::path),
        partial_chain: section.or("partial_chain", PartialChain::Off, partial_chain),
        verify,
        fail_if_no_peer_cert: section.or("fail_if_no_peer_cert", strict && asks, parse::boolean),
        key_usages: section.or("verify_peer_ext_key_usage", usages, key_usages),
        versions,
        ciphers,
        added_13,
        honor_cipher_order: section.or("honor_cipher_order", true, parse::boolean),
        // A resumed session skips the check of the certificate; `check` refuses them together.
        reuse_sessions: section.or("reuse_sessions", !asks, parse::boolean),
        session_tickets: section.or("session_tickets", !asks, session_tickets),
        server_names: section.list("server_names", server_name).unwrap_or_default(),
        depth: section.or("depth", if strict { 2 } else { 10 }, |node| narrow(parse::integer(0..=10)(node)?)),
        crl: crl(&section),
        ocsp: ocsp(section.section("ocsp")),
        peer_cert_as_username: section.or(
            "peer_cert_as_username",
            PeerCertAs::Disabled,
            parse::one_of(&identity),
        ),
        handshake_timeout: section.or(
            "handshake_timeout",
            if strict { 5 * SECOND } else { 15 * SECOND },
            parse::duration(timeouts),
        ),
    };
    absent_here(&section);
    section.finish();
    Some(tls)
}

/// A name that a client can ask for: a host name, no address.
fn server_name(node: &Node) -> Result<String, Wrong> {
    let name = parse::word(node)?;
    match DnsName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(format!("`{name}` is not a host name").into()),
    }
}

fn versions(section: &Section<'_>, default: TlsVersions) -> TlsVersions {
    let words = [("tlsv1.3", TlsVersions::ONLY_13), ("tlsv1.2", TlsVersions { tls12: true, tls13: false })];
    let Some(list) = section.list("versions", parse::one_of(&words)) else { return default };
    if list.is_empty() && !section.reading().failed(&section.path("versions")) {
        section.reading().error(&section.path("versions"), "at least one version is needed");
    }
    TlsVersions { tls12: list.iter().any(|v| v.tls12), tls13: list.iter().any(|v| v.tls13) }
}

/// The suites to offer, and whether those of TLS 1.3 were added to the list as EMQX does it.
fn ciphers(section: &Section<'_>, versions: TlsVersions) -> (Vec<CipherSuite>, bool) {
    let offered = |suite: &CipherSuite| if suite.is_13() { versions.tls13 } else { versions.tls12 };
    let error = |key: &str, message: String| section.reading().error(&section.path(key), message);
    let written =
        section.list("ciphers", |node| CipherSuite::parse(&parse::text(node)?).map_err(Wrong::from));
    let mut suites = written.unwrap_or_default();
    let failed = section.reading().failed(&section.path("ciphers"))
        || section.reading().failed(&section.path("versions"));
    if suites.is_empty() || failed {
        return (CipherSuite::ALL.iter().copied().filter(offered).collect(), false);
    }
    for (index, suite) in suites.iter().enumerate().filter(|(_, suite)| !offered(suite)) {
        let version = if suite.is_13() { "tlsv1.3" } else { "tlsv1.2" };
        error(
            &format!("ciphers[{index}]"),
            format!("{suite} belongs to {version}, which versions does not have"),
        );
    }
    if versions.tls12 && suites.iter().all(|suite| suite.is_13()) {
        error("ciphers", "no suite of tlsv1.2, which versions has".to_owned());
    }
    let adds = versions.tls13 && !suites.iter().any(|suite| suite.is_13());
    if adds {
        suites.extend(CipherSuite::ALL.iter().filter(|suite| suite.is_13()));
    }
    (suites, adds)
}

/// EMQX's words, or `true` and `false`.
fn partial_chain(node: &Node) -> Result<PartialChain, Wrong> {
    match &node.value {
        Value::Text(_) => parse::one_of(&[
            ("cacert_from_cacertfile", PartialChain::LastOne),
            ("two_cacerts_from_cacertfile", PartialChain::LastTwo),
        ])(node),
        Value::Raw(text) if !matches!(text.trim(), "true" | "false") => {
            partial_chain(&Node { value: Value::Text(text.clone()), origin: node.origin.clone() })
        }
        _ => Ok(if parse::boolean(node)? { PartialChain::LastOne } else { PartialChain::Off }),
    }
}

fn key_usages(node: &Node) -> Result<Vec<KeyUsage>, Wrong> {
    let text = parse::word(node)?;
    let usages: Vec<KeyUsage> =
        text.split(',').map(|word| key_usage(word.trim())).collect::<Result<_, _>>()?;
    if usages.len() > LIST_MAX { Err(format!("at most {LIST_MAX} usages").into()) } else { Ok(usages) }
}

fn key_usage(word: &str) -> Result<KeyUsage, Wrong> {
    if let Some((_, usage)) = USAGES.iter().find(|(name, _)| *name == word) {
        return Ok(usage.clone());
    }
    let is_oid = |oid: &str| {
        oid.len() <= 128 && oid.contains('.') && oid.split('.').all(|arc| arc.parse::<u64>().is_ok())
    };
    match word.strip_prefix("OID:") {
        Some(oid) if is_oid(oid) => Ok(KeyUsage::Oid(oid.to_owned())),
        Some(_) => Err(format!("`{word}` is not an object identifier such as OID:1.3.6.1.5.5.7.3.2").into()),
        None => {
            let names: Vec<&str> = USAGES.iter().map(|(name, _)| *name).collect();
            Err(format!("`{word}` is not an extended key usage: {} or OID:1.2.3", names.join(", ")).into())
        }
    }
}

/// EMQX's words. Those that keep the certificate in the ticket are for resumption past its check.
fn session_tickets(node: &Node) -> Result<bool, Wrong> {
    match parse::text(node)?.as_str() {
        "disabled" => Ok(false),
        "stateless" => Ok(true),
        "stateful" => Err("tickets are encrypted here, not remembered: \"stateless\" or \"disabled\"".into()),
        "stateful_with_cert" | "stateless_with_cert" => {
            Err("a session with a client certificate is never resumed: \"stateless\" or \"disabled\"".into())
        }
        other => Err(format!("expected \"stateless\" or \"disabled\", found \"{other}\"").into()),
    }
}

/// A listener with lists checks them unless it is told not to.
fn crl(section: &Section<'_>) -> Option<CrlSource> {
    let error = |key: &str, message: &str| section.reading().error(&section.path(key), message);
    let file = section.optional("crlfile", parse::path);
    let urls = section.list("crl_url", url).unwrap_or_default();
    if urls.len() > LIST_MAX {
        error("crl_url", "at most 64 addresses");
    }
    let enable = section.optional("enable_crl_check", parse::boolean);
    let source = match (file, urls.is_empty()) {
        (Some(_), false) => {
            error("crl_url", "either crlfile or crl_url");
            None
        }
        (Some(file), true) => Some(CrlSource::File(file)),
        (None, false) => Some(CrlSource::Urls(urls)),
        (None, true) => None,
    };
    if enable == Some(true) && source.is_none() && !section.reading().failed(&section.path("crl_url")) {
        // Whoever has a certificate could have us fetch anything, anywhere.
        error(
            "enable_crl_check",
            "this needs crlfile or crl_url: the address in a client's certificate is never followed",
        );
    }
    source.filter(|_| enable != Some(false))
}

fn url(node: &Node) -> Result<HttpUrl, Wrong> {
    HttpUrl::parse(&parse::word(node)?).map_err(Wrong::from)
}

/// Reads `[crl_cache]`.
pub(super) fn crl_cache(section: Section<'_>) -> CrlCache {
    let cache = CrlCache {
        refresh_interval: section.or(
            "refresh_interval",
            900 * SECOND,
            parse::duration(60 * SECOND..=7 * 86_400 * SECOND),
        ),
        http_timeout: section.or("http_timeout", 15 * SECOND, parse::duration(SECOND / 10..=300 * SECOND)),
        capacity: section.or("capacity", 100, |node| narrow(parse::integer(1..=10_000)(node)?)),
        cacertfile: section.optional("cacertfile", parse::path),
    };
    section.finish();
    cache
}

fn ocsp(section: Section<'_>) -> Option<Ocsp> {
    let enable = section.or("enable_ocsp_stapling", false, parse::boolean);
    let responder_url = section.optional("responder_url", |node| match url(node)? {
        url if url.secure => Err(Wrong::from("http:// only: the answer is signed by itself")),
        url => Ok(url),
    });
    let issuer_pem = section.optional("issuer_pem", parse::path);
    let refresh_interval =
        section.or("refresh_interval", 300 * SECOND, parse::duration(60 * SECOND..=7 * 86_400 * SECOND));
    let refresh_http_timeout =
        section.or("refresh_http_timeout", 15 * SECOND, parse::duration(SECOND / 10..=300 * SECOND));
    for (key, missing) in [("responder_url", responder_url.is_none()), ("issuer_pem", issuer_pem.is_none())] {
        if enable && missing && !section.has(key) {
            section.reading().error(&section.path(key), "enable_ocsp_stapling = true needs this");
        }
    }
    section.finish();
    let (true, Some(responder_url), Some(issuer_pem)) = (enable, responder_url, issuer_pem) else {
        return None;
    };
    Some(Ocsp { responder_url, issuer_pem, refresh_interval, refresh_http_timeout })
}

/// Options of EMQX for what TLS has not got here: the value that means none is taken, any other is refused.
fn absent_here(section: &Section<'_>) {
    section.optional("secure_renegotiate", |node| match parse::boolean(node)? {
        true => Ok(()),
        false => Err(Wrong::from("there is no renegotiation, so that there is no insecure one: true")),
    });
    section.optional("client_renegotiation", |node| match parse::boolean(node)? {
        false => Ok(()),
        true => Err(Wrong::from("there is no renegotiation, and a client cannot ask for one: false")),
    });
    section.optional("dhfile", |node| -> Result<(), Wrong> {
        parse::path(node)?;
        Err("there is no finite-field Diffie-Hellman, only elliptic curves: leave this out".into())
    });
}

#[cfg(test)]
mod tests;
