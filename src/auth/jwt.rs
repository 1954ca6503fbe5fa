//! JSON Web Tokens as credentials (authn-tls.md section 2; RFC 7515, 7518, 7519, 8037). Pure: keys, time and what CONNECT
//! said are arguments.
//!
//! Which algorithms are taken follows from the kind of key that is configured and never from the token: a secret takes
//! HS256 to HS512, an RSA key RS* and PS*, a curve its own. So no public key can be passed off as a secret, and `none` is
//! nothing that any key takes. A token names no key either: `jku`, `jwk`, `x5u` and `x5c` are not looked at.

use base64ct::Base64UrlUnpadded;
use base64ct::Encoding;
use serde_json::Map;
use serde_json::Value;

use crate::auth::DenyReason;
use crate::auth::chain;
use crate::auth::chain::Answer;
use crate::auth::chain::AttributeError;
use crate::auth::chain::Grant;
use crate::auth::jwt::keys::Algorithm;
use crate::auth::jwt::keys::KeySet;
use crate::auth::users::MAX_USERNAME_BYTES;

pub mod keys;

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Most claims that a step may ask for.
pub const CLAIMS_MAX: usize = 32;

/// What is wrong with a token; for logs, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not of the form of a signed token.
    #[error("not a token")]
    NotAToken,
    /// Above [`TOKEN_BYTES_MAX`].
    #[error("longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// An algorithm that no configured key takes, `none` among them.
    #[error("its algorithm is not one of the configured keys'")]
    Algorithm,
    /// A key that is not configured.
    #[error("its key is not known")]
    UnknownKey,
    /// A header that must be understood and is not (RFC 7515 section 4.1.11).
    #[error("it has critical headers")]
    Critical,
    /// It names no key, and not all that may have signed it are tried.
    #[error("it names no key (`kid`), and there are more of its kind than are tried")]
    Untried,
    /// Not signed by that key.
    #[error("its signature is wrong")]
    Signature,
    /// Not a JSON object, or a claim is not of its type.
    #[error("its claims cannot be read")]
    Claims,
    /// No `exp` where one is asked for.
    #[error("it has no `exp`")]
    NoExpiry,
    /// `exp` is past.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` is still to come.
    #[error("it is not valid yet")]
    NotYet,
    /// A claim of `verify_claims` is missing or another.
    #[error("a claim is missing or not as `verify_claims` says")]
    Claim,
    /// No claim that could be the username.
    #[error("it names no user")]
    NoUsername,
    /// Another user than CONNECT named.
    #[error("it is another user's than CONNECT names")]
    AnotherUser,
    /// `client_attrs` that are not taken.
    #[error("client_attrs: {0}")]
    Attributes(AttributeError),
    /// Permissions of its own, which are not supported: to let it in would be to ignore them.
    #[error("it has an `acl` claim, which is not supported")]
    Permissions,
}

/// Where the token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// It is the Password.
    Password,
    /// It is the User Name.
    Username,
}

/// What is asked of a token beside its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where it is.
    pub from: From,
    /// The claim that is the username.
    pub username_claim: String,
    /// Whether it must say when it expires.
    pub require_exp: bool,
    /// How far the issuer's clock may be from ours, in seconds.
    pub leeway_seconds: u64,
    /// Claims and what they must be; `${username}` and `${clientid}` stand for what CONNECT says.
    pub verify_claims: Vec<(String, String)>,
    /// Whether the client is disconnected when the token expires.
    pub disconnect_after_expire: bool,
}

/// What CONNECT says.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Seconds of the Unix clock.
    pub now_unix: u64,
}

impl Rules {
    /// The token of a CONNECT, if there is something where it would be.
    #[must_use]
    pub fn token_of<'a>(&self, asked: &Asked<'a>) -> Option<&'a [u8]> {
        match self.from {
            From::Password => asked.password,
            From::Username => asked.username.map(str::as_bytes),
        }
    }
}

/// Whether it has the form of a signed token. What has not is no token and costs nothing more.
#[must_use]
pub fn looks_like_a_token(bytes: &[u8]) -> bool {
    // `{"` in Base64.
    let dots = bytes.iter().filter(|byte| **byte == b'.').count();
    bytes.len() <= TOKEN_BYTES_MAX && dots == 2 && bytes.starts_with(b"eyJ")
}

/// What a step of a chain answers to a CONNECT, and what was wrong with its token.
#[must_use]
pub fn answer(keys: &KeySet, rules: &Rules, asked: &Asked<'_>) -> (Answer, Option<JwtError>) {
    let Some(token) = rules.token_of(asked) else { return (Answer::Next, None) };
    match verify(keys, rules, token, asked) {
        Ok(grant) => (Answer::Allow(grant), None),
        // No token of ours: a password, or another issuer's.
        Err(
            error @ (JwtError::NotAToken | JwtError::TooLong | JwtError::Algorithm | JwtError::UnknownKey),
        ) => (Answer::Next, Some(error)),
        Err(error @ JwtError::Expired) => (Answer::Deny(DenyReason::TokenExpired), Some(error)),
        Err(error @ JwtError::Untried) => (Answer::Deny(DenyReason::TokenUntried), Some(error)),
        Err(error) => (Answer::Deny(DenyReason::Token), Some(error)),
    }
}

/// Verifies a token and says whose it is.
///
/// # Errors
/// What is wrong with it; the signature is looked at before any claim.
pub fn verify(keys: &KeySet, rules: &Rules, token: &[u8], asked: &Asked<'_>) -> Result<Grant, JwtError> {
    let claims = verified_claims(keys, token)?;
    let expires = check_times(&claims, rules, asked.now_unix)?;
    let username = username(&claims, rules, asked)?;
    check_claims(&claims, rules, username, asked.client_id)?;
    if claims.contains_key("acl") {
        return Err(JwtError::Permissions);
    }
    let attributes = claims.get("client_attrs").unwrap_or(&Value::Null);
    Ok(Grant {
        attributes: chain::attributes(attributes).map_err(JwtError::Attributes)?,
        expires_unix: expires.filter(|_| rules.disconnect_after_expire),
        username: Some(username.to_owned()),
    })
}

/// The claims of a token that one of the keys signed.
fn verified_claims(keys: &KeySet, token: &[u8]) -> Result<Map<String, Value>, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::TooLong);
    }
    let text = std::str::from_utf8(token).map_err(|_| JwtError::NotAToken)?;
    let (signed, signature) = text.rsplit_once('.').ok_or(JwtError::NotAToken)?;
    let (header, payload) = signed.split_once('.').ok_or(JwtError::NotAToken)?;
    let header = object(&decoded(header)?).ok_or(JwtError::NotAToken)?;
    let name = header.get("alg").and_then(Value::as_str).ok_or(JwtError::NotAToken)?;
    let algorithm = Algorithm::from_name(name).ok_or(JwtError::Algorithm)?;
    // Nothing is understood here that may be critical, and an empty list of it is malformed.
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(JwtError::Critical);
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(JwtError::NotAToken),
    };
    // With such a header it is a token, and what is not Base64 was not signed.
    let bytes = |part| decoded(part).map_err(|_| JwtError::Signature);
    let (signature, payload) = (bytes(signature)?, bytes(payload)?);
    keys.verify(algorithm, kid, signed.as_bytes(), &signature)?;
    object(&payload).ok_or(JwtError::Claims)
}

fn decoded(part: &str) -> Result<Vec<u8>, JwtError> {
    Base64UrlUnpadded::decode_vec(part).map_err(|_| JwtError::NotAToken)
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// A NumericDate; parts of a second count down.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, JwtError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(whole));
    }
    match value.as_f64() {
        // Nothing before 1970 and nothing that has no exact form: no issuer means that.
        Some(seconds) if (0.0..9_007_199_254_740_992.0).contains(&seconds) => Ok(Some(seconds as u64)),
        _ => Err(JwtError::Claims),
    }
}

/// When it expires, if it says so: `leeway` after what it says, as that is how long it is taken, and whoever is let in is
/// not to be disconnected at once.
fn check_times(claims: &Map<String, Value>, rules: &Rules, now: u64) -> Result<Option<u64>, JwtError> {
    let expires = date(claims, "exp")?.map(|expires| expires.saturating_add(rules.leeway_seconds));
    match expires {
        None if rules.require_exp => return Err(JwtError::NoExpiry),
        Some(expires) if now >= expires => return Err(JwtError::Expired),
        _ => {}
    }
    for name in ["nbf", "iat"] {
        if date(claims, name)?.is_some_and(|from| from > now.saturating_add(rules.leeway_seconds)) {
            return Err(JwtError::NotYet);
        }
    }
    Ok(expires)
}

fn username<'c>(
    claims: &'c Map<String, Value>,
    rules: &Rules,
    asked: &Asked<'_>,
) -> Result<&'c str, JwtError> {
    let username = claims.get(&rules.username_claim).and_then(Value::as_str).ok_or(JwtError::NoUsername)?;
    let usable = !username.is_empty()
        && username.len() <= MAX_USERNAME_BYTES
        && !username.chars().any(char::is_control);
    if !usable {
        return Err(JwtError::NoUsername);
    }
    let named = asked.username.filter(|name| !name.is_empty() && rules.from == From::Password);
    if named.is_some_and(|named| named != username) {
        return Err(JwtError::AnotherUser);
    }
    Ok(username)
}

fn check_claims(
    claims: &Map<String, Value>,
    rules: &Rules,
    username: &str,
    client_id: &str,
) -> Result<(), JwtError> {
    for (name, template) in &rules.verify_claims {
        let wanted = filled(template, username, client_id);
        let holds = match claims.get(name) {
            Some(Value::String(text)) => *text == wanted,
            Some(Value::Number(number)) => number.to_string() == wanted,
            Some(Value::Bool(truth)) => truth.to_string() == wanted,
            // `aud` is one audience or several (RFC 7519 section 4.1.3).
            Some(Value::Array(list)) => list.iter().any(|item| item.as_str() == Some(&wanted)),
            _ => false,
        };
        if !holds {
            return Err(JwtError::Claim);
        }
    }
    Ok(())
}

/// Placeholders are filled from the left, once: what a name contains is never taken for one.
fn filled(template: &str, username: &str, client_id: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (length, value) = if rest.starts_with("${username}") {
            ("${username}".len(), username)
        } else if rest.starts_with("${clientid}") {
            ("${clientid}".len(), client_id)
        } else {
            (2, "${")
        };
        out.push_str(value);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
