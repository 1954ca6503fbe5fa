//! Tokens, joining with one, pins, and the link certificate.

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use super::read_pem;
use super::read_token;
use super::text;
use super::warn;
use crate::admin::commands::Failure;
use crate::admin::commands::link_change::confirm;
use crate::admin::commands::operate::all;
use crate::admin::commands::operate::item;
use crate::admin::output;
use crate::admin::output::Column;
use crate::admin::output::Format;
use crate::admin::remote::Remote;

const TOKEN_COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("STATE", "state"),
    ("EXPIRES AT", "expires"),
    ("ISSUED BY", "issuer"),
    ("GROUPS", "groups"),
];

/// What is asked for with `link create NAME`.
#[derive(Debug)]
pub struct TokenOrder {
    /// `--group`
    pub groups: Vec<String>,
    /// `--expiry`
    pub expiry: Option<String>,
    /// `--i-know`
    pub i_know: bool,
    /// `--address`
    pub addresses: Vec<String>,
    /// `--description`
    pub description: String,
    /// `--prefix`
    pub prefix: Option<String>,
    /// `--approve`
    pub approve: bool,
    /// `--expect-fingerprint`
    pub expect_fingerprint: Option<String>,
    /// `--replace`
    pub replace: bool,
    /// `--unidirectional`
    pub unidirectional: bool,
}

/// What is asked for with `link create NAME --token TOKEN`.
#[derive(Debug)]
pub struct JoinOrder {
    /// The token, or where it is.
    pub token: String,
    /// `--fingerprint`
    pub fingerprint: Option<String>,
    /// `--group`
    pub groups: Vec<String>,
    /// `--topics`
    pub topics: Vec<String>,
    /// `--address`
    pub addresses: Vec<String>,
    /// `--remote-address`
    pub remote_addresses: Vec<String>,
    /// `--description`
    pub description: String,
    /// `--replace`
    pub replace: bool,
    /// `--unidirectional`
    pub unidirectional: bool,
}

/// Fields that were given: an absent one is not sent.
fn put(body: &mut Value, field: &str, value: Option<&str>) {
    if let Some(value) = value {
        body[field] = json!(value);
    }
}

/// `link create NAME`: a token for the peer, which is shown once.
pub fn link_issue(remote: &Remote, name: &str, order: TokenOrder, quiet: bool) -> Result<(), Failure> {
    let mut body = json!({
        "name": name,
        "groups": order.groups,
        "addresses": order.addresses,
        "description": order.description,
        "approve": order.approve,
        "replace": order.replace,
        "unidirectional": order.unidirectional,
        "i_know": order.i_know,
    });
    put(&mut body, "expiry", order.expiry.as_deref());
    put(&mut body, "prefix", order.prefix.as_deref());
    put(&mut body, "expect_fingerprint", order.expect_fingerprint.as_deref());
    let issued = remote.send("POST", "/api/v5/trust/tokens", &body)?;
    output::print(&told_of_token(&issued, quiet))
}

fn told_of_token(issued: &Value, quiet: bool) -> String {
    let token = text(issued, "token");
    if quiet {
        return format!("{token}\n");
    }
    let (name, id, expires) = (text(issued, "name"), text(issued, "identity"), text(issued, "expires"));
    format!(
        "Link {name} created (pending)\n\
         Link \"{name}\" ({id}) pending identity token, valid until {expires}, one use:\n{token}\n"
    )
}

/// `link create NAME --token TOKEN`
pub fn link_join(remote: &Remote, name: &str, order: JoinOrder) -> Result<(), Failure> {
    let token = read_token(&order.token)?;
    let mut body = json!({
        "token": token.as_str(),
        "name": name,
        "groups": order.groups,
        "topics": order.topics,
        "addresses": order.addresses,
        "remote_addresses": order.remote_addresses,
        "description": order.description,
        "replace": order.replace,
        "unidirectional": order.unidirectional,
    });
    put(&mut body, "fingerprint", order.fingerprint.as_deref());
    let joined = remote.send("POST", "/api/v5/trust/join", &body)?;
    if let Some(warning) = joined["warning"].as_str() {
        eprintln!("warning: {warning}");
    }
    output::print(&told_of_link(&joined))
}

fn told_of_link(joined: &Value) -> String {
    let (name, server, print) = (text(joined, "name"), text(joined, "server"), text(joined, "fingerprint"));
    let wanted = joined["topics"].as_array().map_or(0, Vec::len);
    let mut told = format!("Remote cluster {name} at {server}, certificate {print}, matches the token\n");
    told.push_str(&if wanted == 0 {
        format!("Link {name} created; importing 0 topic filters (use: link set {name} topics=...)\n")
    } else {
        format!("Link {name} created; importing {wanted} topic filters\n")
    });
    if joined["unidirectional"] == true {
        told.push_str(&format!("Only this cluster dials: {name} uses connections that it lends\n"));
    }
    if joined["pending_approval"] == true {
        told.push_str(&format!("{name} lets us in once its operator has approved (there: link approve)\n"));
    }
    told
}

/// `link approve NAME`
pub fn link_approve(remote: &Remote, name: &str) -> Result<(), Failure> {
    let path = item("/api/v5/trust/identities/link", name)?;
    let one = remote.request("POST", &format!("{path}/approve"))?;
    output::print(&format!("Link {name} approved, certificate {}\n", text(&one, "identifier")))
}

/// `link token list`
pub fn token_list(remote: &Remote, format: Format) -> Result<(), Failure> {
    let rows = all(remote, "/api/v5/trust/tokens", &[])?;
    output::print(&output::list(format, TOKEN_COLUMNS, &rows))
}

/// `link token revoke ID`
pub fn token_revoke(remote: &Remote, id: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        confirm(&format!("Take the token {id} back, with the identity that waits for it?"))?;
    }
    remote.request("DELETE", &item("/api/v5/trust/tokens", id)?)?;
    output::print(&format!("Token {id} revoked\n"))
}

/// `link trust NAME --fingerprint …`
pub fn link_trust(
    remote: &Remote,
    name: &str,
    fingerprint: &str,
    addresses: &[String],
    topics: &[String],
    replace: bool,
) -> Result<(), Failure> {
    let body = json!({
        "name": name,
        "fingerprint": fingerprint,
        "addresses": addresses,
        "topics": topics,
        "replace": replace,
    });
    let pin = remote.send("POST", "/api/v5/trust/pins", &body)?;
    output::print(&format!("Link {name}: servers with {} are trusted\n", text(&pin, "fingerprint")))
}

/// `link trust NAME --remove`
pub fn link_distrust(remote: &Remote, name: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        confirm(&format!("Trust the servers of {name} no more?"))?;
    }
    remote.request("DELETE", &item("/api/v5/trust/pins", name)?)?;
    output::print(&format!("Link {name}: what was pinned by hand is not trusted any more\n"))
}

/// `link cert show`
pub fn cert_show(remote: &Remote, format: Format, pem: bool) -> Result<(), Failure> {
    let mut certificate = remote.request("GET", "/api/v5/trust/certificate")?;
    if pem {
        return output::print(certificate["pem"].as_str().unwrap_or_default());
    }
    if matches!(format, Format::Table | Format::Compact)
        && let Value::Object(fields) = &mut certificate
    {
        // Many lines: for these there is --pem.
        fields.remove("pem");
        let next = text(&fields["next"], "fingerprint");
        fields.insert("next".to_owned(), next.into());
        let rotation = fields.remove("rotation").unwrap_or_default();
        if rotation.is_object() {
            fields.insert("next_until".to_owned(), rotation["until"].clone());
            fields.insert("next_told".to_owned(), joined(&rotation, "heard", output::shown).into());
            let deaf = |one: &Value| format!("{} ({})", text(one, "name"), text(one, "reason"));
            fields.insert("next_not_told".to_owned(), joined(&rotation, "not_heard", deaf).into());
            fields.insert("next_trouble".to_owned(), rotation["trouble"].clone());
        }
    }
    output::print(&output::record(format, &certificate))
}

fn joined(value: &Value, field: &str, shown: impl Fn(&Value) -> String) -> String {
    value[field].as_array().into_iter().flatten().map(shown).collect::<Vec<_>>().join(", ")
}

/// `link cert rotate`
pub fn cert_rotate(remote: &Remote, overlap: &str, yes: bool) -> Result<(), Failure> {
    let overlap = if overlap == "0" { "0s" } else { overlap };
    let at_once = crate::config::duration(overlap).is_ok_and(|overlap| overlap.as_secs() == 0);
    if at_once && !yes {
        confirm("Replace the link certificate at once? Peers that do not hear it need a new token")?;
    }
    let rotation = remote.send("POST", "/api/v5/trust/certificate/rotate", &json!({"overlap": overlap}))?;
    output::print(&told_of_rotation(&rotation))
}

fn told_of_rotation(rotation: &Value) -> String {
    let next = text(rotation, "next");
    let mut told = if rotation["in_force"] == true {
        format!("Link certificate {next} is shown from now on\n")
    } else {
        format!("Link certificate {next} is next, at {} at the latest\n", text(rotation, "until"))
    };
    let heard = joined(rotation, "heard", output::shown);
    if !heard.is_empty() {
        told.push_str(&format!("Told: {heard}\n"));
    }
    if !rotation["trouble"].is_null() {
        told.push_str(&format!(
            "It cannot be put in force, and is tried again: {}\n",
            text(rotation, "trouble")
        ));
    }
    let not_told = if rotation["in_force"] == true { "Not told, needs a new token" } else { "Not told yet" };
    for one in rotation["not_heard"].as_array().into_iter().flatten() {
        told.push_str(&format!("{not_told}: {} ({})\n", text(one, "name"), text(one, "reason")));
    }
    told
}

/// `link cert import FILE`
pub fn cert_import(remote: &Remote, file: &Path, key: &Path, yes: bool) -> Result<(), Failure> {
    let (certificate, key) = (read_pem(file)?, read_pem(key)?);
    if !yes {
        confirm(
            "Show another link certificate from now on? Peers that know the one before refuse it until they are told",
        )?;
    }
    let body = json!({"certificate": certificate.as_str(), "key": key.as_str()});
    let shown = remote.send("PUT", "/api/v5/trust/certificate", &body)?;
    warn(&shown);
    let peers: Vec<String> =
        shown["peers_to_tell"].as_array().into_iter().flatten().map(output::shown).collect();
    if !peers.is_empty() {
        eprintln!(
            "warning: {} know the certificate before and refuse this one: tell their operators, or link anew with `link create NAME --replace`",
            peers.join(", ")
        );
    }
    let (print, until) = (text(&shown, "fingerprint"), text(&shown, "not_after"));
    output::print(&format!("Link certificate {print} is shown from now on, valid until {until}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_are_those_of_the_specification() {
        let issued = json!({
            "name": "B", "id": "t", "identity": "0b5d", "expires": "2026-01-02T03:04:05Z", "token": "tmb1.abc",
        });
        assert_eq!(
            told_of_token(&issued, false),
            "Link B created (pending)\n\
             Link \"B\" (0b5d) pending identity token, valid until 2026-01-02T03:04:05Z, one use:\ntmb1.abc\n"
        );
        assert_eq!(told_of_token(&issued, true), "tmb1.abc\n");
        let mut rotation = json!({
            "next": "sha256:cd", "until": "2026-01-02T03:04:05Z", "heard": ["A", "B"],
            "not_heard": [{"name": "C", "reason": "silent"}], "in_force": false,
        });
        assert_eq!(
            told_of_rotation(&rotation),
            "Link certificate sha256:cd is next, at 2026-01-02T03:04:05Z at the latest\n\
             Told: A, B\nNot told yet: C (silent)\n"
        );
        rotation = json!({"next": "sha256:cd", "heard": [], "not_heard": [], "in_force": true});
        assert_eq!(told_of_rotation(&rotation), "Link certificate sha256:cd is shown from now on\n");
        let mut joined = json!({
            "name": "A", "server": "a:8883", "fingerprint": "sha256:ab12", "topics": [], "pending_approval": false,
        });
        assert_eq!(
            told_of_link(&joined),
            "Remote cluster A at a:8883, certificate sha256:ab12, matches the token\n\
             Link A created; importing 0 topic filters (use: link set A topics=...)\n"
        );
        joined["topics"] = json!(["a", "b/#"]);
        joined["pending_approval"] = json!(true);
        assert!(told_of_link(&joined).ends_with(
            "Link A created; importing 2 topic filters\nA lets us in once its operator has approved (there: link approve)\n"
        ));
    }
}
