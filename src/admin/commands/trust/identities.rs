//! `auth identity …`

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use super::read_pem;
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

const COLUMNS: &[Column] = &[
    ("AUTHENTICATION METHOD", "authentication_method"),
    ("TYPE", "type"),
    ("NAME", "name"),
    ("IDENTIFIER", "identifier"),
    ("GROUPS", "groups"),
    ("STATE", "state"),
    ("PREFIX", "prefix"),
    ("LAST SEEN", "last_seen"),
    ("EXPIRES AT", "expires_at"),
];
/// What `info` shows.
const INFO: [&str; 6] = ["type", "name", "identifier", "state", "groups", "rights"];

/// What is asked for with `auth identity create`.
#[derive(Debug)]
pub struct IdentityOrder {
    /// `--group`
    pub groups: Vec<String>,
    /// `--address`
    pub addresses: Vec<String>,
    /// `--topics`
    pub topics: Vec<String>,
    /// `--prefix`
    pub prefix: Option<String>,
    /// `--description`
    pub description: String,
}

/// `TYPE/NAME`
fn parts(identity: &str) -> Result<(&str, &str), Failure> {
    match identity.split_once('/') {
        Some((kind @ ("tls" | "link" | "admin"), name)) if !name.is_empty() => Ok((kind, name)),
        _ => Err(Failure::usage(format!("{identity}: not tls/NAME, link/NAME or admin/NAME"))),
    }
}

pub(super) fn path(identity: &str) -> Result<String, Failure> {
    let (kind, name) = parts(identity)?;
    item(&format!("/api/v5/trust/identities/{kind}"), name)
}

/// `auth identity list`
pub fn identity_list(remote: &Remote, format: Format, unused: Option<&str>) -> Result<(), Failure> {
    let mut rows = all(remote, "/api/v5/trust/identities", &[("unused", unused)])?;
    if !matches!(format, Format::Json | Format::Yaml) {
        rows.iter_mut().for_each(with_listed_groups);
    }
    output::print(&output::list(format, COLUMNS, &rows))
}

/// As people read a list.
fn with_listed_groups(row: &mut Value) {
    let groups = row["groups"].as_array().into_iter().flatten().map(output::shown);
    row["groups"] = groups.collect::<Vec<_>>().join(", ").into();
}

/// `auth identity show`
pub fn identity_show(remote: &Remote, format: Format, identity: &str) -> Result<(), Failure> {
    let mut one = remote.request("GET", &path(identity)?)?;
    if let Value::Object(fields) = &mut one {
        fields.retain(|_, value| !value.is_null());
    }
    output::print(&output::record(format, &one))
}

/// `auth identity info`: what it may do in the end; without one, whoever asks.
pub fn identity_info(remote: &Remote, format: Format, identity: Option<&str>) -> Result<(), Failure> {
    let path = identity.map_or_else(|| Ok("/api/v5/trust/self".to_owned()), path)?;
    let one = remote.request("GET", &path)?;
    let mut info = json!({});
    for field in INFO {
        info[field] = one[field].clone();
    }
    output::print(&output::record(format, &info))
}

/// `auth identity create`
pub fn identity_create(
    remote: &Remote,
    identity: &str,
    file: &Path,
    order: IdentityOrder,
) -> Result<(), Failure> {
    let (kind, name) = parts(identity)?;
    if kind == "tls" {
        return Err(Failure::usage(format!("{identity}: say link/{name} or admin/{name}")));
    }
    let mut body = json!({
        "type": kind,
        "name": name,
        "certificate": read_pem(file)?.as_str(),
        "groups": order.groups,
        "addresses": order.addresses,
        "topics": order.topics,
        "description": order.description,
    });
    if let Some(prefix) = order.prefix {
        body["prefix"] = json!(prefix);
    }
    let one = remote.send("POST", "/api/v5/trust/identities", &body)?;
    warn(&one);
    output::print(&format!("Identity {identity} created, certificate {}\n", text(&one, "identifier")))
}

/// `auth identity delete`
pub fn identity_delete(remote: &Remote, identity: &str, yes: bool) -> Result<(), Failure> {
    let path = path(identity)?;
    if !yes {
        confirm(&format!("Delete the identity {identity}, with the link that it made?"))?;
    }
    remote.request("DELETE", &path)?;
    output::print(&format!("Identity {identity} deleted\n"))
}

/// `auth identity revoke`
pub fn identity_revoke(remote: &Remote, identity: &str, yes: bool) -> Result<(), Failure> {
    let path = path(identity)?;
    if !yes {
        confirm(&format!("Trust the identity {identity} no more?"))?;
    }
    remote.request("POST", &format!("{path}/revoke"))?;
    output::print(&format!("Identity {identity} revoked\n"))
}

/// `auth identity group add`
pub fn identity_into(remote: &Remote, identity: &str, group: &str) -> Result<(), Failure> {
    change_groups(remote, identity, |groups| {
        if groups.iter().any(|one| one == group) {
            return Err(Failure::new(
                crate::admin::commands::Exit::Conflict,
                format!("{identity} is in {group} already"),
            ));
        }
        groups.push(group.to_owned());
        Ok(())
    })?;
    output::print(&format!("Identity {identity} added to group {group}\n"))
}

/// `auth identity group remove`
pub fn identity_out_of(remote: &Remote, identity: &str, group: &str) -> Result<(), Failure> {
    change_groups(remote, identity, |groups| {
        let before = groups.len();
        groups.retain(|one| one != group);
        if groups.len() < before {
            return Ok(());
        }
        let message = format!("{identity} is not in {group}");
        Err(Failure::new(crate::admin::commands::Exit::NotFound, message))
    })?;
    output::print(&format!("Identity {identity} removed from group {group}\n"))
}

fn change_groups(
    remote: &Remote,
    identity: &str,
    change: impl FnOnce(&mut Vec<String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = path(identity)?;
    let one = remote.request("GET", &path)?;
    let groups = one["groups"].as_array().into_iter().flatten();
    let mut groups: Vec<String> = groups.filter_map(Value::as_str).map(str::to_owned).collect();
    change(&mut groups)?;
    remote.send("PUT", &path, &json!({"groups": groups})).map(|one| warn(&one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_named_by_its_type_and_name() {
        assert_eq!(path("tls/B").unwrap(), "/api/v5/trust/identities/tls/B");
        assert_eq!(path("admin/a.b").unwrap(), "/api/v5/trust/identities/admin/a.b");
        for wrong in ["B", "tls/", "user/B", "/B", ""] {
            assert_eq!(path(wrong).unwrap_err().exit, crate::admin::commands::Exit::Usage, "{wrong}");
        }
    }
}
