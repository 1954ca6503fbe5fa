//! `tombolo acl`: a file on its own, or the rules of a running broker.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use super::Exit;
use super::Failure;
use super::settings;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::eval::Request;
use crate::acl::eval::RuleSet;
use crate::acl::matrix;
use crate::admin::output;
use crate::admin::output::Format;
use crate::admin::remote::Remote;
use crate::admin::rules;
use crate::auth::certificate;
use crate::auth::peer::PeerRule;
use crate::broker::acl_file::AclFile;
use crate::broker::acl_file::read_acl;
use crate::broker::acl_front::Front;
use crate::broker::explain::Described;
use crate::broker::identity::Policy;
use crate::broker::material::peer_rule;
use crate::mqtt::topic;

/// A client as the command line describes it.
#[derive(Debug, Clone)]
pub struct Question {
    /// Client Identifier.
    pub client_id: String,
    /// User Name.
    pub username: Option<String>,
    /// Address.
    pub peer_host: Option<IpAddr>,
    /// `type:name`.
    pub listener: Option<String>,
    /// Common name of the certificate.
    pub common_name: Option<String>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: Option<String>,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Skips the rules.
    pub is_superuser: bool,
}

/// The settings an ACL file is for; without a configuration nothing is known of links and listeners.
fn surroundings(config: Option<&Path>) -> Result<(AclFile, Vec<PeerRule>), Failure> {
    let Some(config) = config else { return Ok((AclFile::default(), Vec::new())) };
    let settings = settings(Some(config))?;
    Ok((AclFile::of(&settings), settings.cluster.links.iter().map(peer_rule).collect()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    read_acl(file).map_err(|error| {
        let diagnostic = Diagnostic::unreadable(&error.to_string());
        Failure::new(Exit::Usage, diagnostic.render(&file.display().to_string()))
    })
}

/// A file that is sound enough to be asked.
fn compiled(file: &Path, config: Option<&Path>) -> Result<(Policy, Vec<PeerRule>), Failure> {
    let (surroundings, peers) = surroundings(config)?;
    let name = file.display().to_string();
    let rules = RuleSet::compile(read(file)?, &surroundings.options).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| error.render(&name)).collect();
        Failure::new(Exit::Usage, lines.join("\n"))
    })?;
    let front =
        Front::of(&surroundings.peers).map_err(|errors| Failure::new(Exit::Usage, errors.join("\n")))?;
    Ok((Policy { front, ..Policy::new(rules, Arc::new(surroundings)) }, peers))
}

/// `acl check`: exit 2 for errors, and for findings above "info".
pub fn acl_check(file: &Path, config: Option<&Path>, format: Format) -> Result<(), Failure> {
    let (surroundings, _) = surroundings(config)?;
    let name = file.display().to_string();
    let checked = rules::check(&name, &read(file)?, &surroundings.options, &surroundings.inventory);
    let valid = checked["valid"] == true;
    if format != Format::Table {
        output::print(&output::record(format, &checked))?;
        return if valid {
            Ok(())
        } else {
            Err(Failure::new(Exit::Usage, format!("{name}: not as it should be")))
        };
    }
    let lines = rules::check_lines(&checked);
    if !valid {
        return Err(Failure::new(Exit::Usage, lines.join("\n")));
    }
    let found: String = lines.iter().map(|line| format!("{line}\n")).collect();
    output::print(&format!("{found}{name}: {} rules, nothing to find fault with\n", checked["rules"]))
}

/// `acl explain` by a file.
pub fn acl_explain_by(
    file: &Path,
    config: Option<&Path>,
    question: &Question,
    request: &Request<'_>,
    format: Format,
) -> Result<(), Failure> {
    let wrong = |error: topic::TopicError| Failure::new(Exit::Usage, format!("{}: {error}", request.topic()));
    match request {
        Request::Publish { topic, .. } => topic::check_name(topic),
        Request::Subscribe { filter, .. } => topic::check_filter(filter),
    }
    .map_err(wrong)?;
    let (policy, peers) = compiled(file, config)?;
    let fingerprint = question.fingerprint.as_deref().map(certificate::parse_fingerprint).transpose();
    let described = Described {
        client_id: question.client_id.clone(),
        username: question.username.clone(),
        peer_host: question.peer_host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        listener: question.listener.clone().unwrap_or_else(|| "tcp:default".to_owned()),
        common_name: question.common_name.clone(),
        fingerprint: fingerprint.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?,
        attributes: question.attributes.clone(),
        is_superuser: question.is_superuser,
    };
    let explained = policy.explain_described(&described, &peers, request);
    tell(&rules::explained(&question.client_id, request, &explained), format)
}

/// `acl explain` by a running broker.
pub fn acl_explain(
    remote: &Remote,
    question: &Question,
    request: &Request<'_>,
    format: Format,
) -> Result<(), Failure> {
    let mut body = match *request {
        Request::Publish { topic, qos, retain } => {
            json!({"action": "publish", "topic": topic, "qos": qos as u8, "retain": retain})
        }
        Request::Subscribe { filter, qos } => {
            json!({"action": "subscribe", "topic": filter, "qos": qos as u8})
        }
    };
    body["clientid"] = json!(question.client_id);
    let texts = [
        ("username", question.username.clone()),
        ("peerhost", question.peer_host.map(|address| address.to_string())),
        ("listener", question.listener.clone()),
        ("common_name", question.common_name.clone()),
        ("fingerprint", question.fingerprint.clone()),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            body[field] = json!(text);
        }
    }
    if !question.attributes.is_empty() {
        body["client_attrs"] = json!(question.attributes);
    }
    if question.is_superuser {
        body["is_superuser"] = json!(true);
    }
    tell(&remote.send("POST", "/api/v5/acl/explain", &body)?, format)
}

/// Prints a verdict; a denial is exit 3.
fn tell(explained: &Value, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Table => rules::explanation_text(explained),
        _ => output::record(format, explained),
    };
    output::print(&text)?;
    if explained["permission"] == "allow" {
        return Ok(());
    }
    Err(Failure::new(Exit::Denied, "denied"))
}

/// `acl matrix` of a file.
pub fn acl_matrix_of(file: &Path, config: Option<&Path>, format: Format) -> Result<(), Failure> {
    let (policy, _) = compiled(file, config)?;
    let front = policy.front.as_ref().map(|front| &front.rules);
    let rows = rules::matrix(&matrix::matrix(front, &policy.rules, &policy.file.inventory));
    output::print(&output::list(format, rules::MATRIX_COLUMNS, &rows))
}

/// `acl matrix` of a running broker.
pub fn acl_matrix(remote: &Remote, format: Format) -> Result<(), Failure> {
    let answer = remote.request("GET", "/api/v5/acl/matrix")?;
    let rows = answer["data"].as_array().cloned().unwrap_or_default();
    output::print(&output::list(format, rules::MATRIX_COLUMNS, &rows))
}

/// `acl show --generated`, by a configuration or by a running broker.
pub fn acl_show(config: Option<&Path>, remote: &Remote, format: Format) -> Result<(), Failure> {
    let shown = match config {
        Some(config) => {
            let front = Front::of(&surroundings(Some(config))?.0.peers);
            let front = front.map_err(|errors| Failure::new(Exit::Usage, errors.join("\n")))?;
            rules::generated(front.as_deref())
        }
        None => remote.request("GET", "/api/v5/acl/generated")?,
    };
    output::print(&match format {
        Format::Table => shown["text"].as_str().unwrap_or_default().to_owned(),
        _ => output::record(format, &shown),
    })
}

/// `acl export --emqx`, by a configuration or by a running broker; for one peer or for all.
pub fn acl_export(
    config: Option<&Path>,
    peer: Option<&str>,
    remote: &Remote,
    format: Format,
) -> Result<(), Failure> {
    let mut exports = match config {
        Some(config) => rules::exports(&surroundings(Some(config))?.0.exports),
        None => remote.request("GET", "/api/v5/acl/export")?,
    };
    let all = exports["data"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let chosen: Vec<Value> =
        all.into_iter().filter(|one| peer.is_none_or(|name| one["peer"] == name)).collect();
    if let (Some(name), true) = (peer, chosen.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("no link {name}")));
    }
    if format != Format::Table {
        return output::print(&output::record(format, &json!({"data": chosen})));
    }
    let told = chosen.iter().map(|one| {
        let text = one["text"].as_str().unwrap_or_default();
        if peer.is_some() { text.to_owned() } else { format!("%% {}\n{text}", output::shown(&one["peer"])) }
    });
    output::print(&told.collect::<Vec<_>>().join("\n"))
}

/// `acl reload`
pub fn acl_reload(remote: &Remote, format: Format) -> Result<(), Failure> {
    tell_reload(&remote.request("POST", "/api/v5/acl/reload")?, format)
}

fn tell_reload(reloaded: &Value, format: Format) -> Result<(), Failure> {
    output::print(&match format {
        Format::Table => rules::reloaded_text(reloaded),
        _ => output::record(format, reloaded),
    })
}

/// `acl reload --shadow`
pub fn acl_try(remote: &Remote, file: &Path) -> Result<(), Failure> {
    let name = file.display().to_string();
    let text = String::from_utf8(read(file)?)
        .map_err(|error| Failure::new(Exit::Usage, format!("{name}: not UTF-8: {error}")))?;
    let answer = remote.send("POST", "/api/v5/acl/shadow", &json!({"name": name, "text": text}))?;
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    let warnings: String = warnings.map(|line| format!("warning: {}\n", output::shown(line))).collect();
    output::print(&format!(
        "{warnings}{name}: on trial; `tombolo acl shadow show` tells what it would change\n"
    ))
}

/// `acl shadow show`
pub fn acl_tried(remote: &Remote, format: Format) -> Result<(), Failure> {
    let shadow = remote.request("GET", "/api/v5/acl/shadow")?;
    let text = match format {
        Format::Json | Format::Yaml => output::record(format, &shadow),
        Format::Table | Format::Csv | Format::Compact => {
            let rows = shadow["changes"].as_array().cloned().unwrap_or_default();
            output::list(format, rules::SHADOW_COLUMNS, &rows)
        }
    };
    let told = |field: &str| output::shown(&shadow[field]);
    let summary = format!("{} since {}: {} verdicts compared\n", told("name"), told("since"), told("asked"));
    output::print(&if format == Format::Table { summary + &text } else { text })
}

/// `acl shadow apply`
pub fn acl_apply(remote: &Remote, format: Format) -> Result<(), Failure> {
    tell_reload(&remote.request("POST", "/api/v5/acl/shadow/apply")?, format)
}

/// `acl shadow drop`
pub fn acl_drop(remote: &Remote) -> Result<(), Failure> {
    remote.request("DELETE", "/api/v5/acl/shadow").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acl.conf");
        std::fs::write(&file, text).unwrap();
        acl_check(&file, None, Format::Table)
    }

    #[test]
    fn a_good_file_is_fine_and_a_bad_one_is_invalid_input() {
        assert_eq!(
            check("{deny, all, all, [\"$LINK/#\"]}.\n{allow, all, all, [\"a/#\"]}.\n{deny, all}.\n"),
            Ok(())
        );
        let failure = check("{deny, all, all, [\"$LINK/#\"]}.\n{alow, all}.\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("acl.conf:2:2: "), "{failure}");
        let failure = acl_check(Path::new("/nonexistent/acl.conf"), None, Format::Json).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_finding_is_exit_2_as_well() {
        let failure =
            check("{allow, {clientid, {re, \"clink-A\"}}, all, [\"$LINK/#\"]}.\n{deny, all}.\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("L01"), "{failure}");
    }
}
