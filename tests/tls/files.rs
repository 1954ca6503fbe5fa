//! What a wrong file or option is told.

use crate::make::Authority;
use crate::make::client;
use crate::make::fixture;
use crate::make::open;
use crate::make::strict;
use rcgen::date_time_ymd;
use std::fs;
use std::path::PathBuf;
use tombolo::config::settings::CrlSource;
use tombolo::config::settings::Secret;
use tombolo::net::clock;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::tls::Verify;

fn load_error(options: &ServerTlsOptions) -> String {
    ServerTls::load(options, clock::now()).expect_err("refused").to_string()
}

#[test]
fn a_wrong_file_is_named_with_the_reason() {
    let authority = Authority::new("ca");
    let (server, other) = (authority.issue("server"), authority.issue("other"));
    let good = strict(&server, &authority);
    let write = |name: &str, text: &str| {
        fs::write(authority.path(name), text).unwrap();
        authority.path(name)
    };
    let empty = write("empty.pem", "nothing\n");
    let cut = write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let junk = write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let absent = authority.path("absent.pem");
    let table = [
        (
            ServerTlsOptions { certfile: absent.clone(), ..good.clone() },
            "certfile",
            "absent.pem: No such file",
        ),
        (ServerTlsOptions { keyfile: absent.clone(), ..good.clone() }, "keyfile", "absent.pem: No such file"),
        (ServerTlsOptions { cacertfile: Some(absent.clone()), ..good.clone() }, "cacertfile", "No such file"),
        (
            ServerTlsOptions { crl: Some(CrlSource::File(absent)), ..good.clone() },
            "crlfile",
            "absent.pem: No such file",
        ),
        (ServerTlsOptions { certfile: empty.clone(), ..good.clone() }, "certfile", "contains no certificate"),
        (ServerTlsOptions { keyfile: empty.clone(), ..good.clone() }, "keyfile", "contains no private key"),
        (
            ServerTlsOptions { cacertfile: Some(empty.clone()), ..good.clone() },
            "cacertfile",
            "no certificate",
        ),
        (
            ServerTlsOptions { crl: Some(CrlSource::File(empty)), ..good.clone() },
            "crlfile",
            "no certificate revocation list",
        ),
        (ServerTlsOptions { certfile: cut, ..good.clone() }, "certfile", "cut.pem: not PEM"),
        (
            ServerTlsOptions { certfile: junk.clone(), ..good.clone() },
            "certfile",
            "junk.pem: unusable certificate",
        ),
        (ServerTlsOptions { cacertfile: Some(junk), ..good.clone() }, "cacertfile", "not a trust anchor"),
        (
            ServerTlsOptions { keyfile: locked, ..good.clone() },
            "keyfile",
            "the private key is encrypted, and password",
        ),
        (
            ServerTlsOptions { keyfile: other.keyfile, ..good.clone() },
            "keyfile",
            "does not fit the certificate in",
        ),
        (ServerTlsOptions { certfile: authority.path(""), ..good }, "certfile", "directory"),
    ];
    for (options, option, reason) in table {
        let error = load_error(&options);
        assert!(error.starts_with(&format!("{option} /")) && error.contains(reason), "{option}: {error}");
    }
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let authority = Authority::new("ca");
    let server = authority.issue("server");
    let good = strict(&server, &authority);
    let crl = authority.revoke(1, 4000);
    let table = [
        (ServerTlsOptions { verify: Verify::None, ..good.clone() }, "fail_if_no_peer_cert = true needs"),
        (ServerTlsOptions { cacertfile: None, ..good.clone() }, "needs cacertfile"),
        (
            ServerTlsOptions { cacertfile: None, crl: Some(CrlSource::File(crl)), ..good.clone() },
            "crlfile and crl_url need cacertfile",
        ),
        (ServerTlsOptions { reuse_sessions: true, ..good.clone() }, "are not for verify"),
        (ServerTlsOptions { session_tickets: true, ..good.clone() }, "are not for verify"),
        (ServerTlsOptions { versions: Vec::new(), ..good }, "versions: give at least one"),
    ];
    for (options, reason) in table {
        let error = load_error(&options);
        assert!(error.contains(reason), "{error}");
    }
    let table = [
        (ClientTlsOptions { cacertfile: None, ..client(&authority, None) }, "needs cacertfile"),
        (ClientTlsOptions { keyfile: None, ..client(&authority, Some(&server)) }, "certfile needs keyfile"),
        (ClientTlsOptions { certfile: None, ..client(&authority, Some(&server)) }, "keyfile needs certfile"),
    ];
    for (options, reason) in table {
        let error = ClientTls::load(&options, clock::now()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn an_expired_or_expiring_certificate_is_a_warning() {
    let authority = Authority::new("ca");
    let server = authority.issue_with("server", |params| {
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2031, 1, 1);
    });
    let options = strict(&server, &authority);
    let at = |unix_seconds: u64| {
        let now = tombolo::time::Now { mono_ms: 0, unix_ms: unix_seconds * 1000 };
        ServerTls::load(&options, now).unwrap().warnings
    };
    const YEAR_2031: u64 = 1_924_992_000;
    assert_eq!(at(YEAR_2031 - 31 * 86_400), [""; 0]);
    let soon = at(YEAR_2031 - 86_400 - 1);
    assert!(
        soon.len() == 1
            && soon[0].ends_with("server.pem: the certificate of `CN=server` expires within 2 days"),
        "{soon:?}"
    );
    let late = at(YEAR_2031 + 3 * 86_400 + 1);
    assert!(late.len() == 1 && late[0].ends_with("has expired 3 days ago"), "{late:?}");

    let unverified = ClientTlsOptions { verify: Verify::None, ..client(&authority, None) };
    let warnings = ClientTls::load(&unverified, clock::now()).unwrap().warnings;
    assert!(warnings[0].contains("verify_none"), "{warnings:?}");
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

/// On listeners and on links alike.
#[test]
fn a_key_is_opened_by_its_pass_phrase() {
    let own = fixture("rsa-2048");
    let locked = |name: &str| own.keyfile.with_file_name(format!("locked-{name}.key"));
    let authority = Authority::new("ca");
    let with = |keyfile: PathBuf, password: Option<Secret>| {
        let server = ServerTlsOptions { keyfile: keyfile.clone(), password: password.clone(), ..open(&own) };
        let link = ClientTlsOptions { keyfile: Some(keyfile), password, ..client(&authority, Some(&own)) };
        let link = ClientTls::load(&link, clock::now()).map(|_| ()).map_err(|error| error.to_string());
        let server = ServerTls::load(&server, clock::now()).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(server, link);
        server
    };
    for name in ["aes-256", "scrypt"] {
        assert_eq!(with(locked(name), secret("opensesame")), Ok(()), "{name}");
        let error = with(locked(name), secret("Opensesame")).unwrap_err();
        assert!(error.ends_with("the pass phrase in password does not open the key"), "{error}");
        assert!(!error.contains("pensesame"), "{error}");
        let error = with(locked(name), None).unwrap_err();
        assert!(
            error.ends_with("the private key is encrypted, and password, its pass phrase, is not set"),
            "{error}"
        );
    }
    assert_eq!(with(own.keyfile.clone(), secret("needless")), Ok(()));
    let error = with(locked("traditional"), secret("opensesame")).unwrap_err();
    assert!(error.contains("openssl pkcs8 -topk8"), "{error}");
    let error = with(locked("3des"), secret("opensesame")).unwrap_err();
    assert!(error.contains("by a cipher that protects badly"), "{error}");
}

/// T7, our own side.
#[test]
fn t7_a_weak_certificate_of_our_own_is_an_error() {
    let table = [
        ("rsa-1024", false, Some("RSA needs 2048 bits")),
        ("rsa-2048", false, None),
        ("rsa-2048", true, Some("RSA needs 3072 bits")),
        ("rsa-3072", true, None),
        ("p-384", true, None),
        ("ed25519", true, None),
        ("sha-1", false, Some("weaker than SHA-256")),
        ("md5", false, Some("weaker than SHA-256")),
    ];
    let authority = Authority::new("ca");
    for (name, is_link, wrong) in table {
        let own = fixture(name);
        let server = ServerTlsOptions { strict: is_link, ..open(&own) };
        let link = ClientTlsOptions { strict: is_link, ..client(&authority, Some(&own)) };
        let errors = [
            ServerTls::load(&server, clock::now()).err().map(|error| error.to_string()),
            ClientTls::load(&link, clock::now()).err().map(|error| error.to_string()),
        ];
        for error in errors {
            match (&error, wrong) {
                (None, None) => {}
                (Some(error), Some(wrong)) => {
                    assert!(error.starts_with("certfile ") && error.contains(wrong), "{name}: {error}");
                }
                _ => panic!("{name}: {error:?}"),
            }
        }
    }
}
