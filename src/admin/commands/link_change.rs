//! `link create|set|unset|delete`: links that are kept in the data directory of a running broker.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Exit;
use super::Failure;
use super::link::path;
use super::operate::item;
use crate::admin::output;
use crate::admin::remote::Remote;

/// Settings that are lists: items between commas.
const LISTS: [&str; 5] = ["topics", "export", "reach", "peer.cert_sha256", "ssl.cert_sha256"];
/// Settings that are secrets: not to be seen in the list of processes, so that a file or the standard input may hold them.
const SECRETS: [&str; 2] = ["password", "ssl.password"];
/// Settings that are `true` or `false`.
const FLAGS: [&str; 7] = [
    "enable",
    "relay",
    "retained",
    "ssl.enable",
    "ssl.allow_insecure",
    "peer.allow_unauthenticated",
    "spool.qos0",
];
/// Settings that are numbers, where they are not words.
const NUMBERS: [&str; 5] = ["pool_size", "max_inflight", "quota.connections", "quota.actors", "quota.routes"];

/// `link create NAME KEY=VALUE…`
pub fn link_create(remote: &Remote, name: &str, settings: &[String]) -> Result<(), Failure> {
    let mut link = json!({"name": name});
    for setting in settings {
        apply(&mut link, setting)?;
    }
    remote.send("POST", "/api/v5/cluster/links", &link)?;
    output::print(&format!("Link {name} created\n"))
}

/// `link set NAME KEY=VALUE…`
pub fn link_set(remote: &Remote, name: &str, settings: &[String]) -> Result<(), Failure> {
    change(remote, name, |link| settings.iter().try_for_each(|setting| apply(link, setting)))
}

/// `link unset NAME KEY…`: to its default.
pub fn link_unset(remote: &Remote, name: &str, keys: &[String]) -> Result<(), Failure> {
    change(remote, name, |link| {
        keys.iter().try_for_each(|key| {
            if !setting(link, key)?.is_null() {
                *slot(link, key).ok_or_else(|| no_key(key))? = Value::Null;
            }
            Ok(())
        })
    })
}

/// `link get NAME KEY`: as `link set` takes it.
pub fn link_get(remote: &Remote, name: &str, key: &str) -> Result<(), Failure> {
    let link = remote.request("GET", &path(name)?)?;
    output::print(&format!("{}\n", written(setting(&link, key)?)))
}

/// `link rename NAME NEW`: why that cannot be.
pub fn link_renamed(name: &str, new_name: &str) -> Failure {
    Failure::usage(format!(
        "a link has the name of the peer cluster, by which both sides speak of it: if {name} calls itself {new_name} now, delete \
         the link and make one to {new_name}"
    ))
}

/// A setting of a link, which says what each of its settings is.
fn setting<'a>(link: &'a Value, key: &str) -> Result<&'a Value, Failure> {
    let mut place = link;
    for part in key.split('.') {
        place = match place {
            // A table that was left out; what it may hold is not known here.
            Value::Null => return Ok(&Value::Null),
            Value::Object(fields) => fields.get(part).filter(|_| key != "name").ok_or_else(|| no_key(key))?,
            _ => return Err(no_key(key)),
        };
    }
    Ok(place)
}

/// Items of a list between commas; nothing for what is not set.
fn written(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => output::shown(&Value::from(text.as_str())),
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// `link delete NAME`: what waits for the peer goes too, so it asks. So does the peer's identity, which without a link is a
/// token that is out.
pub fn link_delete(remote: &Remote, name: &str, yes: bool, notify_peer: bool) -> Result<(), Failure> {
    let path = path(name)?;
    if !yes {
        let link = there_is(remote.request("GET", &path))?;
        let identity = there_is(remote.request("GET", &item("/api/v5/trust/identities/link", name)?))?;
        if link.is_some() || identity.is_some() {
            let waiting = link.as_ref().and_then(|link| link["spool_messages"].as_u64()).unwrap_or(0);
            confirm(&format!("Delete the link {name}, with {waiting} messages that wait for it?"))?;
        }
    }
    let query = if notify_peer { "" } else { "?notify_peer=false" };
    remote.request("DELETE", &format!("{path}{query}"))?;
    output::print(&format!("Link {name} deleted\n"))
}

/// What was answered, if there is such a thing.
fn there_is(answer: Result<Value, Failure>) -> Result<Option<Value>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn change(
    remote: &Remote,
    name: &str,
    change: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = path(name)?;
    let mut link = remote.request("GET", &path)?;
    change(&mut link)?;
    remote.send("PUT", &path, &link)?;
    output::print(&format!("Link {name} changed\n"))
}

/// Asks whoever sits at a terminal; nobody else can answer.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "this destroys something: say --yes"));
    }
    let mut answer = String::new();
    eprint!("{question} [y/N] ");
    let asked = io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, "nothing was changed"))
}

fn no_key(key: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{key}: not the key of a setting, such as topics or peer.username"))
}

/// Puts `KEY=VALUE` into a link.
fn apply(link: &mut Value, setting: &str) -> Result<(), Failure> {
    let (key, text) = setting
        .split_once('=')
        .ok_or_else(|| Failure::new(Exit::Usage, format!("{setting}: not KEY=VALUE")))?;
    let value = value(key, text)?;
    *slot(link, key).ok_or_else(|| no_key(key))? = value;
    Ok(())
}

/// Where the value of a key such as `peer.username` stands.
fn slot<'a>(link: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let mut place = link;
    for part in key.split('.') {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        if part.is_empty() {
            return None;
        }
        place = place.as_object_mut()?.entry(part).or_insert(Value::Null);
    }
    Some(place)
}

fn value(key: &str, text: &str) -> Result<Value, Failure> {
    if SECRETS.contains(&key) {
        return secret(key, text);
    }
    if LISTS.contains(&key) {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Ok(items.collect::<Vec<_>>().into());
    }
    let parsed = match text {
        "true" | "false" if FLAGS.contains(&key) => Some(Value::Bool(text == "true")),
        _ if NUMBERS.contains(&key) => text.parse::<i64>().ok().map(Value::from),
        _ => None,
    };
    Ok(parsed.unwrap_or_else(|| text.into()))
}

/// `-` is the first line of the standard input, `@FILE` that of a file.
fn secret(key: &str, text: &str) -> Result<Value, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Usage, format!("{key}: {error}"));
    let read = match text.strip_prefix('@') {
        Some(file) => fs::read_to_string(file).map_err(failed)?,
        None if text == "-" => {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(failed)?;
            line
        }
        None => return Ok(text.into()),
    };
    Ok(read.lines().next().unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_type_of_their_key() {
        let mut link = json!({"name": "B", "peer": null});
        for setting in [
            "topics=a/#, b/+",
            "export=",
            "enable=false",
            "pool_size=4",
            "max_inflight=auto",
            "peer.username=b",
            "password=1234",
            "spool.max_bytes=10MB",
        ] {
            apply(&mut link, setting).unwrap();
        }
        let expected = json!({
            "name": "B", "topics": ["a/#", "b/+"], "export": [], "enable": false, "pool_size": 4, "max_inflight": "auto",
            "peer": {"username": "b"}, "password": "1234", "spool": {"max_bytes": "10MB"},
        });
        assert_eq!(link, expected);
    }

    #[test]
    fn a_setting_is_printed_as_it_is_set() {
        let link = json!({"name": "B", "topics": ["a/#", "b"], "peer": null, "spool": {"max_bytes": "1GB"}, "relay": false});
        for (key, text) in [
            ("topics", "a/#,b"),
            ("relay", "false"),
            ("spool.max_bytes", "1GB"),
            ("peer", ""),
            ("peer.username", ""),
        ] {
            assert_eq!(written(setting(&link, key).unwrap()), text, "{key}");
        }
        for wrong in ["topic", "topics.x", "spool.min", "name", ""] {
            assert_eq!(setting(&link, wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for wrong in ["topics", "=x", "peer..username=b", "name.x=1"] {
            let failure = apply(&mut json!({"name": "B"}), wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "sword=fish\n").unwrap();
        assert_eq!(value("password", &format!("@{}", file.display())).unwrap(), "sword=fish");
        assert_eq!(value("ssl.password", "@/no/such/file").unwrap_err().exit, Exit::Usage);
    }
}
