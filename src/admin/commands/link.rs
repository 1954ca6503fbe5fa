//! `link …`: what a running broker says of its links.

use std::fmt::Write as _;

use serde_json::Value;
use serde_json::json;

use super::Exit;
use super::Failure;
use super::operate::all;
use super::operate::item;
use crate::admin::http::query::percent_encode;
use crate::admin::output;
use crate::admin::output::Column;
use crate::admin::output::Format;
use crate::admin::remote::Remote;

const LINK_COLUMNS: &[Column] = &[
    ("NAME", "name"),
    ("STATE", "state"),
    ("SERVER", "server"),
    ("IN", "connections_in"),
    ("OUT", "connections_out"),
    ("ROUTES IN", "routes_in"),
    ("SPOOL", "spool_messages"),
    ("IDENTITY", "identity"),
    ("CERT EXPIRES", "cert_expires"),
    ("REASON", "reason"),
];
const ROUTE_COLUMNS: &[Column] = &[("FILTER", "filter"), ("SHARE GROUP", "share_group")];
const LANE_COLUMNS: &[Column] = &[
    ("LANE", "lane"),
    ("CONNECTED", "connected"),
    ("QUEUED", "queued"),
    ("IN FLIGHT", "inflight"),
    ("BYTES", "bytes"),
    ("OLDEST MS", "oldest_age_ms"),
];
/// What `info` shows of a link; `show` shows the rest.
const INFO: [&str; 13] = [
    "name",
    "state",
    "identity",
    "cert_expires",
    "reason",
    "extensions",
    "peer_version",
    "connections_in",
    "connections_out",
    "routes_in",
    "spool_messages",
    "retained_messages",
    "last_success",
];

pub(super) fn path(name: &str) -> Result<String, Failure> {
    item("/api/v5/cluster/links/link", name)
}

/// `link list`: with peers that have no link yet, because their token is out.
pub fn link_list(remote: &Remote, format: Format) -> Result<(), Failure> {
    let links = remote.request("GET", "/api/v5/cluster/links")?;
    let identities = all(remote, "/api/v5/trust/identities", &[])?;
    let rows = with_identities(links.as_array().cloned().unwrap_or_default(), &identities);
    output::print(&output::list(format, LINK_COLUMNS, &rows))
}

fn with_identities(mut links: Vec<Value>, identities: &[Value]) -> Vec<Value> {
    for one in identities.iter().filter(|one| one["kind"] == "link" && one["state"] != "CONFIGURED") {
        match links.iter_mut().find(|link| link["name"] == one["name"]) {
            Some(link) => add_identity(link, one),
            None => {
                let mut pending = json!({"name": one["name"]});
                add_identity(&mut pending, one);
                links.push(pending);
            }
        }
    }
    links.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    links
}

/// The state of the peer's identity and, where the link says no reason itself, what it means in words.
fn add_identity(link: &mut Value, one: &Value) {
    link["identity"] = one["state"].clone();
    link["cert_expires"] = one["expires_at"].clone();
    let words = match one["state"].as_str() {
        Some("PENDING") => "a token is out: link token list",
        Some("PENDING-APPROVAL") => "the peer has come and waits for link approve",
        Some("EXPIRED") => "the token was not used in time",
        Some("REVOKED") => "revoked here",
        Some("REVOKED BY PEER") => {
            "the peer removed us: delete the link, or make it anew with a token of theirs"
        }
        _ => return,
    };
    if link["reason"].is_null() {
        link["reason"] = words.into();
    }
}

/// A link with the peer's identity, either of which may be alone: a token is out, or the peer is configured.
fn find(remote: &Remote, name: &str) -> Result<Value, Failure> {
    let link = remote.request("GET", &path(name)?);
    let identity = remote.request("GET", &item("/api/v5/trust/identities/link", name)?);
    let mut found = match (link, &identity) {
        (Ok(link), _) => link,
        (Err(failure), Ok(_)) if failure.exit == Exit::NotFound => json!({"name": name}),
        (Err(failure), _) => return Err(failure),
    };
    if let Some(one) = identity.ok().filter(|one| one["state"] != "CONFIGURED") {
        add_identity(&mut found, &one);
    }
    Ok(found)
}

/// `link show`: its configuration.
pub fn link_show(remote: &Remote, format: Format, name: &str) -> Result<(), Failure> {
    let mut link = find(remote, name)?;
    if let Value::Object(fields) = &mut link {
        let of_status = |key: &str| key != "name" && INFO.contains(&key) || key.ends_with("status");
        fields.retain(|key, value| !of_status(key) && !value.is_null());
    }
    output::print(&output::record(format, &link))
}

/// `link info`: its state and what it has done.
pub fn link_info(remote: &Remote, format: Format, name: &str) -> Result<(), Failure> {
    let link = find(remote, name)?;
    let mut info = json!({});
    for field in INFO.iter().filter(|field| !link[**field].is_null()) {
        info[*field] = link[*field].clone();
    }
    if !link["state"].is_null() {
        let metrics = remote.request("GET", &format!("{}/metrics", path(name)?))?;
        info["forwarding"] = metrics["metrics"]["forwarding"].clone();
    }
    output::print(&output::record(format, &info))
}

/// `link routes`
pub fn link_routes(remote: &Remote, format: Format, name: &str, direction: &str) -> Result<(), Failure> {
    let rows = all(remote, &format!("{}/routes", path(name)?), &[("direction", Some(direction))])?;
    output::print(&output::list(format, ROUTE_COLUMNS, &rows))
}

/// `link spool`
pub fn link_spool(remote: &Remote, format: Format, name: &str) -> Result<(), Failure> {
    let spool = remote.request("GET", &format!("{}/spool", path(name)?))?;
    let lanes = spool["lanes"].as_array().map_or(&[][..], Vec::as_slice);
    output::print(&match format {
        Format::Json | Format::Yaml => output::record(format, &spool),
        _ => output::list(format, LANE_COLUMNS, lanes),
    })
}

/// `link ledger`
pub fn link_ledger(remote: &Remote, format: Format, name: &str) -> Result<(), Failure> {
    let ledger = remote.request("GET", &format!("{}/ledger", path(name)?))?;
    output::print(&output::record(format, &ledger))
}

/// `link explain`: of one link, or of all.
pub fn link_explain(
    remote: &Remote,
    json: bool,
    topic: &str,
    from: Option<&str>,
    peer: Option<&str>,
) -> Result<(), Failure> {
    let links = match peer {
        Some(peer) => vec![peer.to_owned()],
        None => {
            let links = remote.request("GET", "/api/v5/cluster/links")?;
            let names = links.as_array().into_iter().flatten();
            names.filter_map(|link| link["name"].as_str().map(str::to_owned)).collect()
        }
    };
    if links.is_empty() {
        return Err(Failure::new(Exit::NotFound, "this broker has no links"));
    }
    let from = from.map_or_else(String::new, |from| format!("&from={}", percent_encode(from)));
    for link in links {
        let query = format!("topic={}{from}", percent_encode(topic));
        let answer = remote.request("GET", &format!("{}/explain?{query}", path(&link)?))?;
        output::print(&if json { format!("{answer}\n") } else { explained(&answer) })?;
    }
    Ok(())
}

/// For people: a block for each way, the first "no" in its last line.
fn explained(answer: &Value) -> String {
    let link = output::shown(&answer["link"]);
    let mut out = String::new();
    for way in answer["ways"].as_array().into_iter().flatten() {
        let topic = output::shown(&answer["topic"]);
        // Writing to a string does not fail.
        let _ = match way["direction"].as_str() {
            Some("out") => writeln!(out, "{topic} published here, to {link}"),
            _ => writeln!(out, "{topic} published at {link}, to here"),
        };
        for step in way["steps"].as_array().into_iter().flatten() {
            let passes = if step["passes"] == true { "yes" } else { "no" };
            let (name, why) = (output::shown(&step["step"]), output::shown(&step["because"]));
            let _ = writeln!(out, "  {passes:4} {name:8} {why}");
        }
        let _ = match way["stopped_by"].as_str() {
            None => writeln!(out, "  => crosses"),
            Some(why) => writeln!(out, "  => does not cross: {}", output::shown(&Value::from(why))),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_whose_token_is_out_is_listed_without_a_link() {
        let links = vec![json!({"name": "C", "state": "active"}), json!({"name": "A", "state": "active"})];
        let one = |name: &str, kind: &str, state: &str| json!({"name": name, "kind": kind, "state": state});
        let identities = [
            one("A", "link", "ACTIVE"),
            one("B", "link", "PENDING"),
            one("C", "link", "CONFIGURED"),
            one("ada", "admin", "ACTIVE"),
        ];
        let rows = with_identities(links, &identities);
        let shown: Vec<_> = rows.iter().map(|row| (row["name"].as_str(), row["identity"].as_str())).collect();
        assert_eq!(shown, [(Some("A"), Some("ACTIVE")), (Some("B"), Some("PENDING")), (Some("C"), None)]);
        assert_eq!(rows[1]["reason"], "a token is out: link token list");
    }

    #[test]
    fn a_peer_that_removed_us_is_said_so_unless_the_link_knows_better() {
        let one = json!({"state": "REVOKED BY PEER"});
        let mut link = json!({"name": "B", "state": "disabled", "reason": null});
        add_identity(&mut link, &one);
        assert!(link["reason"].as_str().unwrap().starts_with("the peer removed us: "), "{link}");
        link["reason"] = json!("pin mismatch");
        add_identity(&mut link, &one);
        assert_eq!((&link["reason"], &link["identity"]), (&json!("pin mismatch"), &one["state"]));
    }

    #[test]
    fn the_first_no_is_the_last_line() {
        let step = |name: &str, passes: bool| json!({"step": name, "passes": passes, "because": "because"});
        let answer = json!({"link": "B", "topic": "a/1", "ways": [
            {"direction": "out", "stopped_by": null, "steps": [step("export", true)]},
            {"direction": "in", "stopped_by": "routes: because", "steps": [step("routes", false)]},
        ]});
        let lines = explained(&answer);
        let expected = "a/1 published here, to B\n  yes  export   because\n  => crosses\n\
                        a/1 published at B, to here\n  no   routes   because\n  => does not cross: routes: because\n";
        assert_eq!(lines, expected);
    }
}
