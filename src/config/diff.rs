//! What a reload changes: line by line for people, and by part for the code that applies it.
//!
//! A change that only a restart can make is refused as a whole (`interface.md` section 2: all or nothing).

use std::collections::BTreeMap;
use std::fmt;

use super::flat::flatten;
use super::settings::Settings;

/// Keys that are read once, at the start.
const NEEDS_RESTART: [&str; 17] = [
    "cluster.name",
    "cluster.node",
    "data.dir",
    "data.durability",
    "data.max_bytes",
    "http.bind",
    "http.metrics_auth",
    "http.metrics_emqx",
    "http.ssl.enable",
    "http.ssl.bind",
    "http.ssl.certfile",
    "http.ssl.keyfile",
    "io.threads",
    "io.placement",
    "log.format",
    "log.security_file",
    "log.security_file_max_bytes",
];

/// One setting that is not what it was; secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key's path; listeners and links by name: `cluster.links[B].topics`.
    pub key: String,
    /// The value in force; `None` is a part that is new.
    pub old: Option<String>,
    /// The value of the new file; `None` is a part that is gone.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        write!(f, "{}: {} -> {}", self.key, side(&self.old), side(&self.new))
    }
}

/// Which members of a named list came, went or differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Names only the new settings have.
    pub added: Vec<String>,
    /// Names only the old settings have.
    pub removed: Vec<String>,
    /// Names both have with different settings.
    pub changed: Vec<String>,
}

impl Members {
    /// Whether nothing came, went or differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Everything that differs between two settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Every setting that differs, by key.
    pub changes: Vec<Change>,
    /// Listeners, by id.
    pub listeners: Members,
    /// Links, by name.
    pub links: Members,
    /// `[mqtt]` differs.
    pub mqtt: bool,
    /// `[authentication]` differs.
    pub authentication: bool,
    /// `[authorization]` differs.
    pub authorization: bool,
    /// `[log]` differs.
    pub log: bool,
    /// How the rules of the ACL file differ, one line each: known to who has read both files.
    pub rules: Vec<String>,
}

impl Diff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes that only a restart can make. With any of them a reload is refused as a whole.
    #[must_use]
    pub fn needs_restart(&self) -> Vec<&Change> {
        self.changes.iter().filter(|change| NEEDS_RESTART.contains(&change.key.as_str())).collect()
    }
}

/// Compares the settings in force with those of a new file.
#[must_use]
pub fn diff(old: &Settings, new: &Settings) -> Diff {
    let changes = changes(old, new);
    let touches = |part: &str| changes.iter().any(|change| change.key.starts_with(part));
    Diff {
        listeners: members(
            old.listeners.iter().map(|listener| (listener.id(), listener)).collect(),
            &new.listeners.iter().map(|listener| (listener.id(), listener)).collect(),
        ),
        links: members(
            old.cluster.links.iter().map(|link| (link.name.clone(), link)).collect(),
            &new.cluster.links.iter().map(|link| (link.name.clone(), link)).collect(),
        ),
        mqtt: touches("mqtt."),
        authentication: touches("authentication."),
        authorization: touches("authorization."),
        log: touches("log."),
        rules: Vec::new(),
        changes,
    }
}

fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let before = flatten(old);
    let mut after = flatten(new);
    let mut changes = Vec::new();
    for (key, old) in before {
        let new = after.remove(&key);
        if new.as_ref() != Some(&old) {
            changes.push(Change { key, old: Some(old.text), new: new.map(|new| new.text) });
        }
    }
    changes.extend(after.into_iter().map(|(key, new)| Change { key, old: None, new: Some(new.text) }));
    changes.sort_by(|one, other| one.key.cmp(&other.key));
    changes
}

fn members<T: PartialEq>(old: BTreeMap<String, &T>, new: &BTreeMap<String, &T>) -> Members {
    let mut members = Members::default();
    members.added.extend(new.keys().filter(|name| !old.contains_key(*name)).cloned());
    for (name, was) in old {
        match new.get(&name) {
            None => members.removed.push(name),
            Some(is) if *is != was => members.changed.push(name),
            Some(_) => {}
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::super::parse;
    use super::*;

    const BASE: &str = r#"
        [cluster]
        name = "A"
        [[listeners]]
        name = "one"
        bind = "127.0.0.1:1"
        [[cluster.links]]
        name = "B"
        server = "localhost:1"
        username = "u"
        password = "first"
        topics = ["a/#"]
        ssl.enable = false
        peer.username = "b"
    "#;

    fn settings(text: &str) -> Settings {
        parse("t.toml", text, &Environment::default()).unwrap()
    }

    fn lines(diff: &Diff) -> Vec<String> {
        diff.changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let diff = diff(&settings(BASE), &settings(BASE));
        assert!(diff.is_empty() && diff.listeners.is_empty() && diff.links.is_empty());
        assert_eq!(diff, Diff::default());
    }

    #[test]
    fn a_changed_link_is_named_and_its_secret_is_masked() {
        let new = BASE.replace("\"a/#\"", "\"a/#\", \"b\"").replace("first", "second");
        let diff = diff(&settings(BASE), &settings(&new));
        let expected = [
            "cluster.links[B].password: ****** -> ******",
            "cluster.links[B].topics: [\"a/#\"] -> [\"a/#\", \"b\"]",
        ];
        assert_eq!(lines(&diff), expected);
        assert_eq!(diff.links.changed, ["B"]);
        assert!(diff.listeners.is_empty() && !diff.mqtt && diff.needs_restart().is_empty());
    }

    #[test]
    fn parts_are_added_and_removed_by_name() {
        let new = format!(
            "{}\n[[listeners]]\nname = \"two\"\nbind = \"127.0.0.1:2\"\n[mqtt]\nmax_inflight = 9\n[log]\nlevel = \"debug\"",
            BASE.replace("name = \"B\"", "name = \"C\"")
        );
        let diff = diff(&settings(BASE), &settings(&new));
        assert_eq!((diff.links.added.join(""), diff.links.removed.join("")), ("C".into(), "B".into()));
        assert_eq!(diff.listeners.added, ["tcp:two"]);
        assert!(diff.mqtt && diff.log && !diff.authentication && !diff.authorization);
        assert!(lines(&diff).contains(&"listeners[tcp:two].bind: absent -> 127.0.0.1:2".to_owned()));
        assert!(lines(&diff).contains(&"mqtt.max_inflight: 32 -> 9".to_owned()));
    }

    #[test]
    fn what_needs_a_restart_is_told() {
        let new = format!("{}\n[data]\ndir = \"elsewhere\"", BASE.replace("\"A\"", "\"Z\""));
        let diff = diff(&settings(BASE), &settings(&new));
        let keys: Vec<&str> = diff.needs_restart().iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["cluster.name", "data.dir"]);
    }
}
