//! What the ACL says, as JSON and as text: one shape for the REST API and the command line, for a file and for a running
//! broker.

use std::fmt::Write as _;

use serde_json::Value;
use serde_json::json;

use crate::acl::compile::CompileOptions;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::eval::DecidedBy;
use crate::acl::eval::Request;
use crate::acl::eval::RuleSet;
use crate::acl::lint::Finding;
use crate::acl::lint::Inventory;
use crate::acl::lint::is_failure;
use crate::acl::lint::lint;
use crate::acl::matrix::Cell;
use crate::acl::matrix::Row;
use crate::acl::rule::Permission;
use crate::admin::output;
use crate::admin::output::Column;
use crate::broker::acl_front::Front;
use crate::broker::acl_reload::AclReloaded;
use crate::broker::explain::Explained;
use crate::broker::shadow::Shadow;

/// The columns of a matrix.
pub const MATRIX_COLUMNS: &[Column] = &[
    ("PEER", "peer"),
    ("CLUSTER", "cluster"),
    ("PUBLISH MSG", "msg"),
    ("PUBLISH ROUTE", "route"),
    ("SUBSCRIBE RESP", "resp"),
];

/// The columns of what rules on trial would change.
pub const SHADOW_COLUMNS: &[Column] = &[
    ("LINE", "line"),
    ("RULE", "rule"),
    ("WOULD ALLOW", "allowed"),
    ("WOULD DENY", "denied"),
    ("FOR EXAMPLE", "example"),
];

/// What a check finds in a text that is called `name`.
#[must_use]
pub fn check(name: &str, text: &[u8], options: &CompileOptions, inventory: &Inventory) -> Value {
    let error = |error: &Diagnostic| {
        json!({
            "line": error.line,
            "column": error.column,
            "code": error.code.to_string(),
            "message": error.message,
            "shown": error.render(name),
        })
    };
    let finding = |finding: &Finding| {
        json!({
            "id": finding.id,
            "severity": finding.severity.to_string(),
            "line": finding.line,
            "message": finding.message,
            "shown": finding.render(name),
        })
    };
    match RuleSet::compile(text, options) {
        Err(errors) => {
            let errors: Vec<Value> = errors.iter().map(error).collect();
            json!({"valid": false, "rules": null, "errors": errors, "warnings": [], "findings": []})
        }
        Ok(rules) => {
            let found = lint(&rules, &String::from_utf8_lossy(text), inventory);
            json!({
                "valid": !is_failure(&found),
                "rules": rules.len(),
                "errors": [],
                "warnings": rules.warnings().iter().map(error).collect::<Vec<_>>(),
                "findings": found.iter().map(finding).collect::<Vec<_>>(),
            })
        }
    }
}

/// The lines of a check, as people read them.
#[must_use]
pub fn check_lines(checked: &Value) -> Vec<String> {
    ["errors", "warnings", "findings"]
        .iter()
        .flat_map(|part| checked[*part].as_array().into_iter().flatten())
        .filter_map(|one| one["shown"].as_str().map(str::to_owned))
        .collect()
}

fn permission(permission: Permission) -> &'static str {
    match permission {
        Permission::Allow => "allow",
        Permission::Deny => "deny",
    }
}

/// A verdict with its reasons.
#[must_use]
pub fn explained(client_id: &str, request: &Request<'_>, explained: &Explained) -> Value {
    let (action, qos, retain) = match *request {
        Request::Publish { qos, retain, .. } => ("publish", qos, Some(retain)),
        Request::Subscribe { qos, .. } => ("subscribe", qos, None),
    };
    let file = &explained.file;
    let chain: Vec<Value> =
        explained.chain.iter().map(|(step, says)| json!({"step": step, "says": says})).collect();
    let passed = file.passed.iter().map(|passed| {
        json!({
            "number": passed.number,
            "line": passed.line,
            "rule": passed.rule,
            "part": passed.part.name(),
            "why": passed.why,
        })
    });
    let rule = match file.verdict.by {
        DecidedBy::Rule { index, line } => json!({"number": index + 1, "line": line, "rule": file.rule}),
        _ => Value::Null,
    };
    json!({
        "permission": permission(explained.permission),
        "by": explained.by(),
        "clientid": client_id,
        "action": action,
        "topic": request.topic(),
        "qos": qos as u8,
        "retain": retain,
        "seen_topic": file.topic,
        "chain": chain,
        "passed": passed.collect::<Vec<_>>(),
        "rule": rule,
        "file": {"permission": permission(file.verdict.permission), "by": file.verdict.by.to_string()},
    })
}

/// The same as people read it, the verdict last.
#[must_use]
pub fn explanation_text(explained: &Value) -> String {
    let text = |value: &Value| output::shown(value);
    let mut out = String::new();
    for step in explained["chain"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "{:<12} {}", text(&step["step"]), text(&step["says"]));
    }
    if !explained["seen_topic"].is_null() && explained["seen_topic"] != explained["topic"] {
        let _ = writeln!(out, "{:<12} {}", "topic", text(&explained["seen_topic"]));
    }
    for passed in explained["passed"].as_array().into_iter().flatten() {
        let line = format!("line {}", text(&passed["line"]));
        let _ = writeln!(out, "{line:<12} {}", text(&passed["rule"]));
        let _ = writeln!(out, "{:<12} no: {}: {}", "", text(&passed["part"]), text(&passed["why"]));
    }
    let rule = &explained["rule"];
    if !rule.is_null() {
        let line = format!("line {}", text(&rule["line"]));
        let _ = writeln!(out, "{line:<12} {}", text(&rule["rule"]));
        let _ = writeln!(out, "{:<12} yes: {}", "", text(&explained["file"]["permission"]));
    }
    let verb = if explained["action"] == "publish" { "publish" } else { "subscribe to" };
    let _ = writeln!(
        out,
        "{}: `{}` to {verb} `{}` at QoS {}: {}",
        text(&explained["permission"]),
        text(&explained["clientid"]),
        text(&explained["topic"]),
        text(&explained["qos"]),
        text(&explained["by"]),
    );
    if explained["permission"] != explained["file"]["permission"] {
        let _ = writeln!(
            out,
            "the file alone would {} it: {}",
            text(&explained["file"]["permission"]),
            text(&explained["file"]["by"])
        );
    }
    out
}

/// What is generated in front of the file.
#[must_use]
pub fn generated(front: Option<&Front>) -> Value {
    json!({
        "rules": front.map_or(0, |front| front.rules.len()),
        "text": front.map_or("", |front| front.text.as_str()),
    })
}

/// What EMQX brokers need, each by the name of the link with it.
#[must_use]
pub fn exports(exports: &[(String, String)]) -> Value {
    let one = |(peer, text): &(String, String)| json!({"peer": peer, "text": text});
    json!({"data": exports.iter().map(one).collect::<Vec<_>>()})
}

/// The rows of a matrix.
#[must_use]
pub fn matrix(rows: &[Row]) -> Vec<Value> {
    let cell = |cell: &Cell| {
        let rules = format!("{}: {}", permission(cell.rules.permission), cell.rules.by);
        match (cell.confined, cell.is_hole()) {
            (None, _) => rules,
            (Some(_), true) => format!("confined, though the file says {rules}"),
            (Some(_), false) => "confined".to_owned(),
        }
    };
    let row = |row: &Row| {
        json!({
            "peer": row.peer.as_deref().unwrap_or("(any client)"),
            "cluster": row.cluster,
            "msg": cell(&row.cells[0]),
            "route": cell(&row.cells[1]),
            "resp": cell(&row.cells[2]),
        })
    };
    rows.iter().map(row).collect()
}

/// What a reload did.
#[must_use]
pub fn reloaded(reloaded: &AclReloaded) -> Value {
    json!({
        "summary": reloaded.difference.to_string(),
        "changes": reloaded.difference.lines,
        "warnings": reloaded.warnings,
        "rules": reloaded.rules,
        "generation": reloaded.generation,
        "subscriptions_removed": reloaded.subscriptions_removed,
    })
}

/// What a reload did, as people read it.
#[must_use]
pub fn reloaded_text(reloaded: &Value) -> String {
    let mut out = String::new();
    let lines = |part: &str| reloaded[part].as_array().into_iter().flatten().map(output::shown);
    for line in lines("warnings") {
        let _ = writeln!(out, "warning: {line}");
    }
    for line in lines("changes") {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(
        out,
        "{}; {} in force; subscriptions removed: {}",
        output::shown(&reloaded["summary"]),
        output::shown(&reloaded["rules"]),
        output::shown(&reloaded["subscriptions_removed"]),
    );
    out
}

/// What rules on trial would change.
#[must_use]
pub fn shadow(shadow: &Shadow) -> Value {
    let changes = shadow.changes().into_iter().map(|change| {
        let (line, rule) = change.rule.unzip();
        json!({
            "line": line,
            "rule": rule.unwrap_or_else(|| "no_match".to_owned()),
            "allowed": change.allowed,
            "denied": change.denied,
            "example": change.example,
        })
    });
    json!({
        "name": shadow.name,
        "rules": shadow.rules.len(),
        "since": crate::admin::rfc3339::format(shadow.since_unix_ms / 1000),
        "asked": shadow.asked(),
        "changes": changes.collect::<Vec<_>>(),
    })
}
