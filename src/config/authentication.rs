//! `[authentication]`, its chain and how many logins may fail.

use std::path::PathBuf;
use std::time::Duration;

use crate::auth::chain::STEPS_MAX;
use crate::auth::jwt::CLAIMS_MAX;

use super::document::Node;
use super::document::Value;
use super::parse;
use super::reader::Section;
use super::reader::Wrong;
use super::secrets;
use super::sections::narrow;
use super::settings::Attempts;
use super::settings::Authentication;
use super::settings::Authenticator;
use super::settings::HttpCallout;
use super::settings::HttpTarget;
use super::settings::Jwt;
use super::settings::JwtKeys;
use super::settings::PeerCertAs;
use super::units;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Mechanisms of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Password,
    Certificate,
    Jwt,
    Http,
    Scram,
}

const MECHANISMS: [(&str, Mechanism); 5] = [
    ("password", Mechanism::Password),
    ("certificate", Mechanism::Certificate),
    ("jwt", Mechanism::Jwt),
    ("http", Mechanism::Http),
    ("scram", Mechanism::Scram),
];

pub(super) fn authentication(section: Section<'_>, anonymous: bool) -> Authentication {
    let authentication = Authentication {
        allow_anonymous: section.or("allow_anonymous", anonymous, parse::boolean),
        password_file: section.optional("password_file", parse::path),
        legacy_hashes: section.or("legacy_hashes", false, parse::boolean),
        chain: chain(&section),
        attempts: attempts(section.section("attempts")),
    };
    section.finish();
    authentication
}

fn attempts(section: Section<'_>) -> Attempts {
    let attempts = Attempts {
        enable: section.or("enable", true, parse::boolean),
        lockout_failures: section
            .or("lockout_failures", 10, |node| narrow(parse::integer(1..=1_000_000)(node)?)),
        lockout_window: section.or("lockout_window", 600 * SECOND, parse::duration(SECOND..=24 * HOUR)),
        lockout_time: section.or("lockout_time", 900 * SECOND, parse::duration(SECOND..=24 * HOUR)),
    };
    section.finish();
    attempts
}

fn chain(section: &Section<'_>) -> Vec<Authenticator> {
    let mut chain = Vec::new();
    for step in section.sections("chain") {
        let Some(mechanism) = step.required("mechanism", parse::one_of(&MECHANISMS)) else { continue };
        if chain.len() >= STEPS_MAX {
            step.reading().error(&step.path("mechanism"), format!("a chain has at most {STEPS_MAX} steps"));
        }
        let again = chain.iter().any(|known| matches!(known, Authenticator::Scram { .. }));
        if mechanism == Mechanism::Scram && again {
            step.reading().error(&step.path("mechanism"), "not supported yet: a second file of SCRAM users");
        }
        chain.extend(match mechanism {
            Mechanism::Password => {
                let legacy_hashes = step.or("legacy_hashes", false, parse::boolean);
                file(&step).map(|password_file| Authenticator::Password { password_file, legacy_hashes })
            }
            Mechanism::Scram => file(&step).map(|password_file| Authenticator::Scram { password_file }),
            Mechanism::Certificate => Some(certificate(&step)),
            Mechanism::Jwt => jwt(&step).map(|jwt| Authenticator::Jwt(Box::new(jwt))),
            Mechanism::Http => callout(&step).map(|http| Authenticator::Http(Box::new(http))),
        });
        step.finish();
    }
    chain
}

fn file(step: &Section<'_>) -> Option<PathBuf> {
    step.required("password_file", parse::path)
}

fn certificate(step: &Section<'_>) -> Authenticator {
    let parts = [("cn", PeerCertAs::Cn), ("dn", PeerCertAs::Dn), ("sha256", PeerCertAs::Sha256)];
    Authenticator::Certificate { username: step.or("username", PeerCertAs::Cn, parse::one_of(&parts)) }
}

fn jwt(step: &Section<'_>) -> Option<Jwt> {
    let keys = jwt_keys(step);
    let from = [("password", false), ("username", true)];
    let jwt = Jwt {
        keys: keys?,
        from_username: step.or("from", false, parse::one_of(&from)),
        username_claim: step.or("username_claim", "sub".to_owned(), parse::word),
        require_exp: step.or("require_exp", true, parse::boolean),
        leeway: step.or("leeway", 5 * SECOND, parse::duration(Duration::ZERO..=300 * SECOND)),
        verify_claims: step.or("verify_claims", Vec::new(), claims),
        disconnect_after_expire: step.or("disconnect_after_expire", true, parse::boolean),
    };
    Some(jwt)
}

/// Exactly one source of keys.
fn jwt_keys(step: &Section<'_>) -> Option<JwtKeys> {
    const SOURCES: [&str; 4] = ["secret", "public_key_file", "jwks_file", "endpoint"];
    let written: Vec<&str> = SOURCES.into_iter().filter(|key| step.has(key)).collect();
    let secret = step.optional("secret", secrets::secret(step.reading().variables));
    let is_base64 = step.or("secret_base64_encoded", false, parse::boolean);
    let public_key = step.optional("public_key_file", parse::path);
    let jwks_file = step.optional("jwks_file", parse::path);
    let refresh_interval =
        step.or("refresh_interval", 300 * SECOND, parse::duration(10 * SECOND..=24 * HOUR));
    let max_age = step.or("max_age", 24 * HOUR, parse::duration(60 * SECOND..=30 * 24 * HOUR));
    if max_age < refresh_interval {
        step.reading().error(&step.path("max_age"), "keys would be too old before they are fetched anew");
    }
    let target = target(step, "endpoint");
    if written.len() != 1 {
        let message = format!("a step of mechanism jwt has exactly one of {}", SOURCES.join(", "));
        step.reading().error(&step.path("mechanism"), message);
        return None;
    }
    let secret = secret.map(|secret| JwtKeys::Secret { secret, is_base64 });
    secret
        .or_else(|| public_key.map(JwtKeys::PublicKey))
        .or_else(|| jwks_file.map(JwtKeys::JwksFile))
        .or_else(|| target.map(|target| JwtKeys::JwksUrl { target, refresh_interval, max_age }))
}

fn callout(step: &Section<'_>) -> Option<HttpCallout> {
    let target = target(step, "url");
    if !step.has("url") {
        step.reading().error(&step.path("url"), "this is required");
    }
    let authorization = step.optional("authorization", secrets::secret(step.reading().variables));
    if authorization.as_ref().is_some_and(|value| value.expose().iter().any(|byte| !(32..127).contains(byte)))
    {
        step.reading().error(&step.path("authorization"), "a header has printable ASCII only");
    }
    let max_concurrent = step.or("max_concurrent", 32, |node| narrow(parse::integer(1..=1_024)(node)?));
    Some(HttpCallout { target: target?, authorization, max_concurrent })
}

/// `url`, `cacertfile`, `timeout` and `allow_insecure` of whom we call.
fn target(step: &Section<'_>, key: &'static str) -> Option<HttpTarget> {
    let url = step.optional(key, parse::word);
    let cacertfile = step.optional("cacertfile", parse::path);
    let timeout = step.or("timeout", 5 * SECOND, parse::duration(SECOND / 10..=60 * SECOND));
    let allow_insecure = step.or("allow_insecure", false, parse::boolean);
    let error = |key: &str, message: &str| step.reading().error(&step.path(key), message);
    let url = url?;
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => {
            error(key, "expected https://HOST[:PORT]/PATH, or http:// towards loopback");
            return None;
        }
    };
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let printable = rest.bytes().all(|byte| (33..127).contains(&byte));
    if !printable || authority.contains('@') || rest.contains('#') {
        error(key, "a URL has printable ASCII, and here neither a user nor a fragment");
        return None;
    }
    let server = match units::server(authority, if secure { 443 } else { 80 }) {
        Ok(server) => server,
        Err(message) => {
            error(key, &message);
            return None;
        }
    };
    if secure && cacertfile.is_none() {
        error("cacertfile", "https needs the authorities of the server's certificate");
    }
    if !secure && cacertfile.is_some() {
        error("cacertfile", "this is for https");
    }
    if !secure && !server.is_loopback() && !allow_insecure {
        error(key, "http sends passwords in the clear: https, or allow_insecure = true");
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(HttpTarget { url, server, path, cacertfile, timeout })
}

/// A table of claims and the text that each must be.
fn claims(node: &Node) -> Result<Vec<(String, String)>, Wrong> {
    let Value::Table(table) = &node.value else {
        return Err(format!("expected a table of claims, found {}", node.value.describe()).into());
    };
    if table.len() > CLAIMS_MAX {
        return Err(format!("at most {CLAIMS_MAX} claims").into());
    }
    table.iter().map(|(name, (_, node))| Ok((name.clone(), parse::text(node)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::super::parse as parse_file;
    use super::*;

    fn read(text: &str) -> Result<Authentication, Vec<String>> {
        let settings = parse_file("t.toml", text, &Environment::default());
        settings
            .map(|settings| settings.authentication)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn step(text: &str) -> Result<Authenticator, Vec<String>> {
        read(&format!("[[authentication.chain]]\n{text}")).map(|mut read| read.chain.remove(0))
    }

    #[test]
    fn a_chain_keeps_its_order() {
        let text = "[authentication]\npassword_file = \"p\"\n\
            [[authentication.chain]]\nmechanism = \"certificate\"\nusername = \"sha256\"\n\
            [[authentication.chain]]\nmechanism = \"password\"\npassword_file = \"q\"\n\
            [[authentication.chain]]\nmechanism = \"http\"\nurl = \"http://127.0.0.1:1/a?b\"\n";
        let chain = read(text).unwrap().chain;
        let mechanisms: Vec<&str> = chain.iter().map(Authenticator::mechanism).collect();
        assert_eq!(mechanisms, ["certificate", "password", "http"]);
        assert_eq!(chain[0], Authenticator::Certificate { username: PeerCertAs::Sha256 });
        let Authenticator::Http(http) = &chain[2] else { panic!("{chain:?}") };
        assert_eq!(
            (http.target.path.as_str(), http.target.server.to_string()),
            ("/a?b", "127.0.0.1:1".into())
        );
    }

    #[test]
    fn a_token_has_exactly_one_source_of_keys() {
        let secret = "secret = \"0123456789abcdef0123456789abcdef\"\n";
        let Ok(Authenticator::Jwt(jwt)) = step(&format!(
            "mechanism = \"jwt\"\n{secret}verify_claims = {{ aud = \"b\", n = \"${{clientid}}\" }}"
        )) else {
            panic!("a secret is a source")
        };
        assert_eq!(jwt.verify_claims.len(), 2);
        assert!(jwt.require_exp && jwt.disconnect_after_expire && !jwt.from_username);
        for more in
            ["", "secret = \"x\"\njwks_file = \"y\"\n", "public_key_file = \"a\"\njwks_file = \"b\"\n"]
        {
            let errors = step(&format!("mechanism = \"jwt\"\n{more}")).unwrap_err();
            assert!(errors[0].contains("exactly one of"), "{errors:?}");
        }
    }

    #[test]
    fn what_goes_over_the_network_is_encrypted_and_verified() {
        let table = [
            ("https://a.example.net/x", "https needs the authorities"),
            ("http://a.example.net/x", "in the clear"),
            ("ftp://a/", "expected https://"),
            ("https://u@a/", "neither a user nor a fragment"),
            ("http://127.0.0.1:0/", "authentication"),
        ];
        for (url, expected) in table {
            for (mechanism, key) in [("http", "url"), ("jwt", "endpoint")] {
                let errors = step(&format!("mechanism = \"{mechanism}\"\n{key} = \"{url}\"")).unwrap_err();
                assert!(errors[0].contains(expected), "{url}: {errors:?}");
            }
        }
        assert!(step("mechanism = \"http\"\nurl = \"http://a/\"\nallow_insecure = true").is_ok());
        assert!(step("mechanism = \"http\"\nurl = \"https://a/\"\ncacertfile = \"ca\"").is_ok());
        assert!(step("mechanism = \"http\"").unwrap_err()[0].contains("required"));
        let header = "mechanism = \"http\"\nurl = \"http://localhost/\"\nauthorization = \"a\\nb\"";
        assert!(step(header).unwrap_err()[0].contains("printable"));
    }
}
