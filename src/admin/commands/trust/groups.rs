//! `auth group …` and `auth permission …`

use serde_json::Value;
use serde_json::json;

use super::text;
use crate::admin::commands::Failure;
use crate::admin::commands::link_change::confirm;
use crate::admin::commands::operate::all;
use crate::admin::commands::operate::item;
use crate::admin::output;
use crate::admin::output::Column;
use crate::admin::output::Format;
use crate::admin::remote::Remote;

const GROUP_COLUMNS: &[Column] = &[
    ("NAME", "name"),
    ("DESCRIPTION", "description"),
    ("PERMISSIONS", "permissions"),
    ("IDENTITIES", "members"),
];
const PERMISSION_COLUMNS: &[Column] =
    &[("ENTITY TYPE", "entity_type"), ("URL", "url"), ("ENTITLEMENTS ==> (GROUPS)", "entitlements")];

fn path(name: &str) -> Result<String, Failure> {
    item("/api/v5/trust/groups", name)
}

/// `auth group list`
pub fn group_list(remote: &Remote, format: Format) -> Result<(), Failure> {
    let mut rows = all(remote, "/api/v5/trust/groups", &[])?;
    if !matches!(format, Format::Json | Format::Yaml) {
        for row in &mut rows {
            row["permissions"] = row["permissions"].as_array().map_or(0, Vec::len).into();
            row["members"] = row["members"].as_array().map_or(0, Vec::len).into();
        }
    }
    output::print(&output::list(format, GROUP_COLUMNS, &rows))
}

/// `auth group show`
pub fn group_show(remote: &Remote, format: Format, name: &str) -> Result<(), Failure> {
    let mut group = remote.request("GET", &path(name)?)?;
    if format != Format::Json {
        let permissions = group["permissions"].as_array().into_iter().flatten();
        group["permissions"] = permissions.map(|one| one["permission"].clone()).collect();
    }
    output::print(&output::record(format, &group))
}

/// `auth group create`
pub fn group_create(remote: &Remote, name: &str, description: &str) -> Result<(), Failure> {
    let body = json!({"name": name, "description": description});
    remote.send("POST", "/api/v5/trust/groups", &body)?;
    output::print(&format!("Group {name} created\n"))
}

/// `auth group delete`
pub fn group_delete(remote: &Remote, name: &str, yes: bool) -> Result<(), Failure> {
    let path = path(name)?;
    if !yes {
        confirm(&format!("Delete the group {name}?"))?;
    }
    remote.request("DELETE", &path)?;
    output::print(&format!("Group {name} deleted\n"))
}

/// `auth group rename`
pub fn group_rename(remote: &Remote, name: &str, new_name: &str) -> Result<(), Failure> {
    remote.send("PUT", &path(name)?, &json!({"name": new_name}))?;
    output::print(&format!("Group {name} renamed to {new_name}\n"))
}

/// `auth group edit`
pub fn group_describe(remote: &Remote, name: &str, description: &str) -> Result<(), Failure> {
    remote.send("PUT", &path(name)?, &json!({"description": description}))?;
    output::print(&format!("Group {name} updated\n"))
}

/// `auth group permission add`
pub fn group_permit(remote: &Remote, group: &str, permission: &[String]) -> Result<(), Failure> {
    let permission = permission.join(" ");
    let path = format!("{}/permissions", path(group)?);
    remote.send("POST", &path, &json!({"permission": permission}))?;
    output::print(&format!("Group {group}: permission {permission} added\n"))
}

/// `auth group permission remove`
pub fn group_forbid(remote: &Remote, group: &str, permission: &[String]) -> Result<(), Failure> {
    let permission = permission.join(" ");
    let path = format!("{}/permissions", path(group)?);
    remote.send("DELETE", &path, &json!({"permission": permission}))?;
    output::print(&format!("Group {group}: permission {permission} removed\n"))
}

/// `auth permission list`
pub fn permission_list(remote: &Remote, format: Format, max_entitlements: usize) -> Result<(), Failure> {
    let mut rows = all(remote, "/api/v5/trust/permissions", &[])?;
    if !matches!(format, Format::Json | Format::Yaml) {
        for row in &mut rows {
            row["entitlements"] = entitlements(&row["entitlements"], max_entitlements).into();
        }
    }
    output::print(&output::list(format, PERMISSION_COLUMNS, &rows))
}

/// `peer:(link-peer), can_view:()`: those that a group permits first.
fn entitlements(all: &Value, most: usize) -> String {
    let groups = |one: &Value| one["groups"].as_array().map_or(0, Vec::len);
    let mut sorted: Vec<&Value> = all.as_array().into_iter().flatten().collect();
    sorted.sort_by_key(|one| groups(one) == 0);
    let left_out = if most == 0 { 0 } else { sorted.len().saturating_sub(most) };
    sorted.truncate(sorted.len() - left_out);
    let shown = sorted.into_iter().map(|one| {
        let groups: Vec<String> = one["groups"].as_array().into_iter().flatten().map(output::shown).collect();
        format!("{}:({})", text(one, "entitlement"), groups.join(","))
    });
    let more = (left_out > 0).then(|| format!("... {left_out} more"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_entitlements_come_first_and_the_others_are_counted() {
        let all = json!([
            {"entitlement": "can_view", "groups": []},
            {"entitlement": "can_edit", "groups": []},
            {"entitlement": "peer", "groups": ["link-peer", "x"]},
        ]);
        assert_eq!(entitlements(&all, 0), "peer:(link-peer,x), can_view:(), can_edit:()");
        assert_eq!(entitlements(&all, 3), "peer:(link-peer,x), can_view:(), can_edit:()");
        assert_eq!(entitlements(&all, 2), "peer:(link-peer,x), can_view:(), ... 1 more");
    }
}
