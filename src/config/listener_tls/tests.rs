//! The TLS options of listeners and links as an operator writes them, and what each wrong one is told.

use crate::config::Environment;
use crate::config::parse;
use crate::config::settings::CipherSuite;
use crate::config::settings::CrlSource;
use crate::config::settings::KeyUsage;
use crate::config::settings::ListenerTls;
use crate::config::settings::PartialChain;
use crate::config::settings::Settings;
use crate::config::settings::TlsVersions;
use crate::config::settings::Verify;
use crate::config::warnings;

fn read(listener: &str, ssl: &str) -> Result<Settings, String> {
    let text = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\n{listener}\n[listeners.ssl]\ncertfile = \"c\"\nkeyfile = \"k\"\n{ssl}\n"
    );
    parse("t.toml", &text, &Environment::default()).map_err(|errors| {
        errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect::<Vec<_>>().join("\n")
    })
}

fn tls(ssl: &str) -> ListenerTls {
    read("", ssl).unwrap().listeners[0].ssl.clone().unwrap()
}

const PEER: &str = "verify = \"verify_peer\"\ncacertfile = \"ca\"\n";
const LINK: &str = "role = \"link\"";

#[test]
fn the_defaults_are_those_of_the_two_columns() {
    let ordinary = tls("");
    assert_eq!(ordinary.ciphers, CipherSuite::ALL);
    assert!(ordinary.reuse_sessions && ordinary.session_tickets && ordinary.honor_cipher_order);
    assert!(ordinary.key_usages.is_empty() && ordinary.crl.is_none() && !ordinary.added_13);
    assert_eq!((ordinary.depth, ordinary.partial_chain), (10, PartialChain::Off));
    let asking = tls(PEER);
    assert!(!asking.reuse_sessions && !asking.session_tickets);
    let link = read(LINK, "cacertfile = \"ca\"").unwrap();
    let tls = link.listeners[0].ssl.as_ref().unwrap();
    assert!(tls.ciphers.len() == 3 && tls.ciphers.iter().all(|suite| suite.is_13()));
    assert_eq!((tls.key_usages.as_slice(), tls.depth), ([KeyUsage::ClientAuth].as_slice(), 2));
    assert!(!tls.reuse_sessions && !tls.session_tickets && tls.fail_if_no_peer_cert);
}

#[test]
fn suites_are_offered_in_the_order_of_the_list_and_1_3_is_added() {
    let listed =
        tls("ciphers = [\"ECDHE-RSA-AES128-GCM-SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"]");
    assert_eq!(listed.ciphers[..2], [CipherSuite::RsaAes128, CipherSuite::EcdsaAes256]);
    assert!(
        listed.added_13 && listed.ciphers.len() == 5 && listed.ciphers[2..].iter().all(|suite| suite.is_13())
    );
    let both = tls("ciphers = [\"TLS_AES_128_GCM_SHA256\", \"ECDHE-RSA-AES128-GCM-SHA256\"]");
    assert!(both.ciphers == [CipherSuite::Aes128, CipherSuite::RsaAes128] && !both.added_13);
    let only_12 = tls("versions = [\"tlsv1.2\"]\nciphers = [\"ECDHE-RSA-AES128-GCM-SHA256\"]");
    assert!(only_12.ciphers == [CipherSuite::RsaAes128] && !only_12.added_13);
}

#[test]
fn a_revocation_list_is_a_file_or_addresses_and_is_checked_unless_told_not_to() {
    let file = tls(&format!("{PEER}crlfile = \"crl\""));
    assert_eq!(file.crl, Some(CrlSource::File("crl".into())));
    let urls = tls(&format!("{PEER}crl_url = [\"http://h/a\", \"http://h/b\"]"));
    assert!(matches!(urls.crl, Some(CrlSource::Urls(urls)) if urls.len() == 2));
    assert_eq!(tls(&format!("{PEER}crlfile = \"crl\"\nenable_crl_check = false")).crl, None);
}

#[test]
fn usages_and_partial_chains_are_emqx_s() {
    let all = "clientAuth, serverAuth,codeSigning,emailProtection,timeStamping,ocspSigning,OID:1.2.3";
    let usages = tls(&format!("{PEER}verify_peer_ext_key_usage = \"{all}\"")).key_usages;
    assert!(usages.len() == 7 && usages[6] == KeyUsage::Oid("1.2.3".into()));
    for (word, expected) in [
        ("true", PartialChain::LastOne),
        ("\"cacert_from_cacertfile\"", PartialChain::LastOne),
        ("\"two_cacerts_from_cacertfile\"", PartialChain::LastTwo),
        ("false", PartialChain::Off),
    ] {
        assert_eq!(tls(&format!("{PEER}partial_chain = {word}")).partial_chain, expected);
    }
    let renegotiation = "secure_renegotiate = true\nclient_renegotiation = false";
    assert!(read("", renegotiation).is_ok(), "the values that mean none");
}

/// `authn-tls.md` A12: what is wrong is named with the path of the option.
#[test]
fn a_wrong_option_is_named_with_its_path() {
    let insecure = format!("{LINK}\nallow_insecure = true");
    let table = [
        ("", "ciphers = [\"AES256-SHA\"]", "ciphers[0]: `AES256-SHA` is a weak cipher suite"),
        ("", "ciphers = [\"X\"]", "ciphers[0]: `X` is no cipher suite that we have"),
        ("", "ciphers = [\"TLS_AES_128_GCM_SHA256\"]", "ciphers: no suite of tlsv1.2"),
        (
            LINK,
            "cacertfile = \"ca\"\nciphers = [\"ECDHE-RSA-AES128-GCM-SHA256\"]",
            "ciphers[0]: TLS_ECDHE_RSA_WITH",
        ),
        ("", "secure_renegotiate = false", "secure_renegotiate: there is no renegotiation"),
        ("", "client_renegotiation = true", "client_renegotiation: there is no renegotiation"),
        ("", "dhfile = \"x\"", "dhfile: there is no finite-field"),
        ("", "session_tickets = \"stateful\"", "session_tickets: tickets are encrypted here"),
        (
            "",
            "session_tickets = \"stateless_with_cert\"",
            "session_tickets: a session with a client certificate",
        ),
        (
            "",
            "verify = \"verify_peer\"\ncacertfile = \"ca\"\nreuse_sessions = true",
            "reuse_sessions: not with",
        ),
        (
            "",
            "verify = \"verify_peer\"\ncacertfile = \"ca\"\nsession_tickets = \"stateless\"",
            "session_tickets: not with",
        ),
        (LINK, "cacertfile = \"ca\"\nreuse_sessions = true", "reuse_sessions: not with"),
        ("", "enable_crl_check = true", "enable_crl_check: this needs crlfile or crl_url"),
        (
            "",
            "server_names = [\"a.example.net\", \"192.0.2.1 \"]",
            "server_names[1]: `192.0.2.1 ` is not a host name",
        ),
        ("", "crlfile = \"x\"", "crlfile: this needs verify"),
        ("", "crl_url = [\"ldap://x\"]", "crl_url[0]: this is not an http"),
        (
            "",
            "verify = \"verify_peer\"\ncacertfile = \"ca\"\ncrlfile = \"x\"\ncrl_url = [\"http://x\"]",
            "crl_url: either",
        ),
        (
            "",
            "verify = \"verify_peer\"\ncacertfile = \"ca\"\ncrl_url = [\"https://x\"]",
            "crl_url[0]: https needs",
        ),
        ("", "verify_peer_ext_key_usage = \"clientAuth\"", "verify_peer_ext_key_usage: this needs verify"),
        ("", "verify_peer_ext_key_usage = \"clientauth\"", "verify_peer_ext_key_usage: `clientauth` is not"),
        ("", "verify_peer_ext_key_usage = \"OID:x\"", "verify_peer_ext_key_usage: `OID:x` is not"),
        (
            LINK,
            "cacertfile = \"ca\"\nverify_peer_ext_key_usage = \"serverAuth\"",
            "verify_peer_ext_key_usage: a listener",
        ),
        ("", "partial_chain = true", "partial_chain: this needs"),
        ("", "partial_chain = \"x\"", "partial_chain: expected"),
        (LINK, "cacertfile = \"ca\"\npartial_chain = true", "partial_chain: not where links come in"),
        (LINK, "verify = \"verify_none\"", "verify: a listener that accepts links needs verify_peer"),
        (
            LINK,
            "cacertfile = \"ca\"\nversions = [\"tlsv1.2\", \"tlsv1.3\"]",
            "versions: a listener that accepts links",
        ),
        (LINK, "", "cacertfile: verify_peer needs cacertfile, or cert_sha256"),
        (&insecure, "verify = \"verify_none\"\ncrlfile = \"x\"", "crlfile: this needs verify"),
        (
            "",
            "ocsp.enable_ocsp_stapling = true",
            "ocsp.responder_url: enable_ocsp_stapling = true needs this",
        ),
    ];
    for (listener, ssl, expected) in table {
        let error = read(listener, ssl).expect_err(ssl);
        let named = error.lines().any(|line| line.starts_with(&format!("listeners[0].ssl.{expected}")));
        assert!(named, "{ssl}: {error}");
    }
    let many = "verify = \"verify_peer\"\ncacertfile = \"ca\"\ncrl_url = [\"http://x/1\", \"http://x/2\"]\n[crl_cache]\ncapacity = 1";
    assert!(read("", many).unwrap_err().starts_with("crl_cache.capacity: the listeners name 2 addresses"));
}

#[test]
fn an_authority_of_links_without_a_list_is_a_warning() {
    let weak = |ssl| warnings(&read(LINK, ssl).unwrap()).iter().any(|line| line.contains("ssl.crlfile"));
    assert!(weak("cacertfile = \"ca\""));
    assert!(!weak("cacertfile = \"ca\"\ncrlfile = \"x\""));
}

/// A listener for links, and for nobody else, may be without files: it shows the link certificate.
#[test]
fn files_are_left_out_where_the_link_certificate_is_shown_and_nowhere_else() {
    let read = |role: &str, ssl: &str| {
        let text = format!(
            "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nrole = \"{role}\"\n[listeners.ssl]\n{ssl}\n"
        );
        let parsed = parse("x.toml", &text, &Environment::default());
        parsed
            .map(|settings| settings.listeners[0].ssl.clone().unwrap())
            .map_err(|errors| format!("{}: {}", errors[0].key, errors[0].message))
    };
    let link = read("link", "").unwrap();
    assert_eq!((link.certfile, link.keyfile, link.cacertfile), (None, None, None));
    assert_eq!((link.verify, link.versions), (Verify::Peer, TlsVersions::ONLY_13));
    assert!(link.fail_if_no_peer_cert && !link.session_tickets && !link.reuse_sessions);
    assert!(read("link", "cacertfile = \"ca\"").is_ok());
    for (role, ssl, error) in [
        ("link", "certfile = \"c\"", "ssl.keyfile: "),
        ("link", "keyfile = \"k\"", "ssl.certfile: "),
        ("link", "password = \"p\"", "ssl.password: this needs certfile and keyfile"),
        (
            "link",
            "ocsp = {enable_ocsp_stapling = true, responder_url = \"http://x\", issuer_pem = \"i\"}",
            "ssl.ocsp: this needs certfile and keyfile",
        ),
        ("link", "verify = \"verify_none\"", "ssl.verify: "),
        ("any", "", "ssl.certfile: "),
        ("client", "", "ssl.certfile: "),
    ] {
        let got = read(role, ssl).unwrap_err();
        assert!(got.contains(error), "{role} {ssl}: {got}");
    }
}
