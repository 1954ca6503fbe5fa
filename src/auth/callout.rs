//! What an HTTP authenticator is asked and answers, as EMQX has it. Pure: the driver sends and receives.

use serde_json::Value;
use serde_json::json;

use crate::auth::DenyReason;
use crate::auth::chain;
use crate::auth::chain::Answer;
use crate::auth::chain::AttributeError;
use crate::auth::chain::Grant;

/// Longest body of an answer, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A client as the authenticator is told.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Its address; a client of a Unix socket has none.
    pub peerhost: Option<&'a str>,
    /// `type:name`.
    pub listener: &'a str,
    /// SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: Option<&'a str>,
    /// Common name of its certificate, if the chain was verified.
    pub common_name: Option<&'a str>,
}

impl Question<'_> {
    /// The body. A password that is not text cannot be told in JSON: [`None`].
    #[must_use]
    pub fn body(&self) -> Option<Vec<u8>> {
        let password = self.password.map(std::str::from_utf8).transpose().ok()?;
        let body = json!({
            "username": self.username,
            "clientid": self.client_id,
            "password": password,
            "peerhost": self.peerhost,
            "listener": self.listener,
            "cert_fingerprint": self.fingerprint,
            "cert_common_name": self.common_name,
        });
        Some(body.to_string().into_bytes())
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A failure on its side.
    #[error("status {0}")]
    Status(u16),
    /// Not JSON, or too long.
    #[error("the body is no JSON object of at most {BODY_BYTES_MAX} bytes")]
    Body,
    /// A `result` that is none of the three, or none.
    #[error("`result` is not \"allow\", \"deny\" or \"ignore\"")]
    Result,
    /// A time that is none.
    #[error("`expire_at` is not a number of seconds since 1970")]
    Expiry,
    /// It allows what is over already.
    #[error("`expire_at` is past")]
    Past,
    /// `client_attrs` that are not taken.
    #[error("client_attrs: {0}")]
    Attributes(#[from] AttributeError),
}

/// What was read of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What the step answers.
    pub answer: Answer,
    /// It made the client a superuser, which is not taken from outside.
    pub superuser: bool,
}

/// Reads an answer: 204 allows, 200 says what in its body, 401 and 403 deny, all others are failures. EMQX passes to the
/// next step at 4xx and 5xx; here nobody gets past a step by making its server stumble.
///
/// # Errors
/// What is wrong with it; the step denies then.
pub fn read(status: u16, body: &[u8], username: Option<&str>, now_unix: u64) -> Result<Reply, ReplyError> {
    // An empty User Name is none. It is never taken from the answer: `username` there says nothing, as with EMQX.
    let username = username.filter(|name| !name.is_empty()).map(str::to_owned);
    let grant = || Grant { username: username.clone(), ..Grant::default() };
    match status {
        204 => return Ok(Reply { answer: Answer::Allow(grant()), superuser: false }),
        200 => {}
        401 | 403 => {
            return Ok(Reply { answer: Answer::Deny(DenyReason::Backend), superuser: false });
        }
        other => return Err(ReplyError::Status(other)),
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(ReplyError::Body);
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| ReplyError::Body)?;
    let object = value.as_object().ok_or(ReplyError::Body)?;
    let answer = match object.get("result").and_then(Value::as_str) {
        Some("allow") => {
            let expires_unix = match object.get("expire_at") {
                None | Some(Value::Null) => None,
                Some(value) => Some(value.as_u64().ok_or(ReplyError::Expiry)?),
            };
            if expires_unix.is_some_and(|expires| expires <= now_unix) {
                return Err(ReplyError::Past);
            }
            let attributes = chain::attributes(object.get("client_attrs").unwrap_or(&Value::Null))?;
            if object.contains_key("acl") {
                // Permissions of its own are not built, and to let it in would be to ignore them.
                return Err(ReplyError::Result);
            }
            Answer::Allow(Grant { attributes, expires_unix, ..grant() })
        }
        Some("deny") => Answer::Deny(DenyReason::Backend),
        Some("ignore") => Answer::Next,
        _ => return Err(ReplyError::Result),
    };
    Ok(Reply { answer, superuser: object.get("is_superuser") == Some(&Value::Bool(true)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, ReplyError> {
        read(status, body.as_bytes(), Some("u"), 100).map(|reply| reply.answer)
    }

    #[test]
    fn the_status_decides_and_at_200_the_body() {
        let allow = Ok(Answer::Allow(Grant::to("u")));
        let deny = Ok(Answer::Deny(DenyReason::Backend));
        assert_eq!(answer(204, ""), allow);
        assert_eq!(answer(200, r#"{"result": "allow"}"#), allow);
        assert_eq!(answer(200, r#"{"result": "deny"}"#), deny);
        assert_eq!(answer(200, r#"{"result": "ignore"}"#), Ok(Answer::Next));
        for status in [401, 403] {
            assert_eq!(answer(status, r#"{"result": "allow"}"#), deny, "{status}");
        }
        for status in [100, 201, 301, 302, 400, 404, 429, 500, 503] {
            assert_eq!(answer(status, r#"{"result": "allow"}"#), Err(ReplyError::Status(status)));
        }
    }

    #[test]
    fn an_answer_that_is_not_understood_is_an_error() {
        for body in ["", "allow", "[]", "{}", r#"{"result": true}"#, r#"{"result": "Allow"}"#] {
            assert!(answer(200, body).is_err(), "{body}");
        }
        assert_eq!(answer(200, &format!("\"{}\"", "x".repeat(70_000))), Err(ReplyError::Body));
        assert_eq!(answer(200, r#"{"result": "allow", "expire_at": "x"}"#), Err(ReplyError::Expiry));
        assert_eq!(answer(200, r#"{"result": "allow", "expire_at": 100}"#), Err(ReplyError::Past));
        assert_eq!(answer(200, r#"{"result": "allow", "acl": []}"#), Err(ReplyError::Result));
        assert_eq!(
            answer(200, r#"{"result": "allow", "client_attrs": {"link_id": "B"}}"#),
            Err(ReplyError::Attributes(AttributeError::Reserved))
        );
    }

    #[test]
    fn it_gives_attributes_and_an_end_and_nobody_is_made_a_superuser() {
        let body =
            r#"{"result": "allow", "is_superuser": true, "expire_at": 101, "client_attrs": {"a": "b"}}"#;
        let reply = read(200, body.as_bytes(), None, 100).unwrap();
        assert!(reply.superuser);
        let Answer::Allow(grant) = reply.answer else { panic!("{:?}", reply.answer) };
        assert_eq!((grant.username, grant.expires_unix), (None, Some(101)));
        assert_eq!(grant.attributes["a"], "b");
    }

    #[test]
    fn an_empty_name_is_nobody_and_no_answer_names_anybody() {
        let allowed = |username, body: &str| match read(200, body.as_bytes(), username, 100).unwrap().answer {
            Answer::Allow(grant) => grant.username,
            other => panic!("{other:?}"),
        };
        assert_eq!(allowed(Some(""), r#"{"result": "allow"}"#), None);
        for named in ["", "other"] {
            let body = json!({"result": "allow", "username": named}).to_string();
            assert_eq!(allowed(Some("u"), &body).as_deref(), Some("u"));
            assert_eq!(allowed(None, &body), None);
        }
    }

    #[test]
    fn the_question_is_json_with_everything_that_is_known() {
        let question = Question {
            username: Some("u\n"),
            password: Some(b"p\""),
            client_id: "c",
            peerhost: None,
            listener: "tcp:default",
            fingerprint: None,
            common_name: None,
        };
        let value: Value = serde_json::from_slice(&question.body().unwrap()).unwrap();
        assert_eq!((value["username"].as_str(), value["password"].as_str()), (Some("u\n"), Some("p\"")));
        assert_eq!(value["peerhost"], Value::Null);
        assert_eq!(Question { password: Some(&[0xff]), ..question }.body(), None);
    }
}
