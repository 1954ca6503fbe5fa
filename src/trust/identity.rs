//! Identities: who a connection of a peer cluster is, or an operator, by the fingerprint of the certificate (`trust.md` 2.4).

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::trust::Fingerprint;
use crate::trust::Uuid;
use crate::trust::address::ServerAddr;
use crate::trust::written;

/// Fingerprints of one identity: current, next and previous.
pub const PINS_MAX: usize = 3;
/// Groups of one identity.
pub const GROUPS_MAX: usize = 64;
/// Notes of one identity; the oldest goes first.
pub const NOTES_MAX: usize = 16;
/// The longest description or note, in characters.
pub const TEXT_CHARS_MAX: usize = 512;

/// What an identity is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A peer cluster.
    Link,
    /// An operator.
    Admin,
}

/// What has become of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A token was issued and not used.
    Pending,
    /// The token was used, an operator has to approve it.
    PendingApproval,
    /// It is who it says.
    Active,
    /// It has announced its next certificate. Derived, never stored: see [`Identity::shown_state`].
    #[serde(skip)]
    Rotating,
    /// Not any more, because we say so.
    Revoked,
    /// Not any more, because the peer says so.
    RevokedByPeer,
    /// The token was not used in time, or was burnt.
    Expired,
}

impl State {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::PendingApproval => "PENDING-APPROVAL",
            Self::Active => "ACTIVE",
            Self::Rotating => "ROTATING",
            Self::Revoked => "REVOKED",
            Self::RevokedByPeer => "REVOKED BY PEER",
            Self::Expired => "EXPIRED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which of an identity's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one in use.
    Current,
    /// Announced and not seen yet.
    Next,
    /// The one before, good for a while.
    Previous,
}

/// One certificate of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Its fingerprint.
    pub sha256: Fingerprint,
    /// Last second of its validity, since the Unix epoch, where the certificate was seen.
    #[serde(with = "written::maybe_moment", default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// Which one it is.
    pub role: Role,
    /// Of the previous one: the last second in which it is good. Of the next one: that of the one which it will replace.
    #[serde(with = "written::maybe_moment", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name for programs; while it is pending, the token's too.
    pub id: Uuid,
    /// What it is of.
    pub kind: Kind,
    /// As stored: never [`State::Rotating`].
    pub state: State,
    /// The name of the cluster, or of the operator.
    pub name: String,
    /// What the Client Identifiers of a cluster begin with; empty for an operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Its certificates: at most [`PINS_MAX`], of different roles.
    #[serde(default)]
    pub fingerprints: Vec<Pin>,
    /// The groups that it is in, by name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Where the cluster is reached, as it says.
    #[serde(with = "written::addresses", default, skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<ServerAddr>,
    /// What it could do when it enrolled: less is refused later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<String>,
    /// When it was made.
    #[serde(with = "written::moment")]
    pub created: u64,
    /// By whom.
    pub created_by: String,
    /// When it became active.
    #[serde(with = "written::maybe_moment", default, skip_serializing_if = "Option::is_none")]
    pub activated: Option<u64>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_from: Option<String>,
    /// When a connection last proved to be this.
    #[serde(with = "written::maybe_moment", default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_addr: Option<String>,
    /// What happened to it, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What an operator says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Identity {
    /// Its type as it is shown. A peer of the configuration, which is no identity, is a `Link password` where it has one.
    #[must_use]
    pub fn kind_text(&self) -> &'static str {
        match (self.kind, self.state) {
            (Kind::Admin, _) => "Admin certificate",
            (Kind::Link, State::Pending) => "Link certificate (pending)",
            (Kind::Link, _) => "Link certificate",
        }
    }

    /// Its state as it is shown: one that is active and has a next certificate is rotating.
    #[must_use]
    pub fn shown_state(&self) -> State {
        match self.state {
            State::Active if self.pin(Role::Next).is_some() => State::Rotating,
            state => state,
        }
    }

    /// Its certificate of that role.
    #[must_use]
    pub fn pin(&self, role: Role) -> Option<&Pin> {
        self.fingerprints.iter().find(|pin| pin.role == role)
    }

    /// Whether connections that show one of its certificates are accepted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// Whether it stands for its name: whoever wants another of that name is in conflict with it.
    #[must_use]
    pub fn holds_name(&self) -> bool {
        matches!(self.state, State::Pending | State::PendingApproval | State::Active)
    }

    /// The fingerprints by which it is known at this moment; none unless it is active.
    pub fn usable(&self, now: u64) -> impl Iterator<Item = Fingerprint> {
        let good = move |pin: &&Pin| match pin.role {
            Role::Next => true,
            Role::Previous => pin.until.is_some_and(|until| now <= until),
            // The next one replaces it at an agreed moment, whether it was seen by then or not.
            Role::Current => {
                self.pin(Role::Next).and_then(|next| next.until).is_none_or(|until| now <= until)
            }
        };
        let pins = if self.is_active() { &self.fingerprints[..] } else { &[] };
        pins.iter().filter(good).map(|pin| pin.sha256)
    }

    /// What it is called for: the fingerprint, or the UUID while it has none.
    #[must_use]
    pub fn identifier(&self) -> String {
        self.pin(Role::Current).map_or_else(|| self.id.to_string(), |pin| pin.sha256.to_string())
    }

    /// Adds a note; of too many the oldest goes.
    pub fn note(&mut self, text: &str) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect());
    }
}

/// Whether this can be a description or a note.
#[must_use]
pub fn is_text(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pin(byte: u8, role: Role, until: Option<u64>) -> Pin {
        Pin { sha256: Fingerprint([byte; 32]), not_after: Some(9_000), role, until }
    }

    pub(crate) fn identity(name: &str, byte: u8) -> Identity {
        Identity {
            id: Uuid::from_random([byte; 16]),
            kind: Kind::Link,
            state: State::Active,
            name: name.to_owned(),
            prefix: format!("clink-{name}-"),
            fingerprints: vec![pin(byte, Role::Current, None)],
            groups: vec!["link-peer".to_owned()],
            addrs: Vec::new(),
            caps: Vec::new(),
            created: 1_000,
            created_by: "ada".to_owned(),
            activated: Some(1_000),
            activated_from: Some("192.0.2.7:4711".to_owned()),
            last_seen: None,
            last_addr: None,
            notes: Vec::new(),
            description: String::new(),
        }
    }

    #[test]
    fn types_and_states_are_shown_as_the_specification_has_them() {
        let mut one = identity("B", 1);
        assert_eq!((one.kind_text(), one.shown_state().name()), ("Link certificate", "ACTIVE"));
        one.fingerprints.push(pin(2, Role::Next, Some(50)));
        assert_eq!(one.shown_state(), State::Rotating);
        one.state = State::Revoked;
        assert_eq!(one.shown_state().to_string(), "REVOKED");
        one.state = State::Pending;
        one.fingerprints.clear();
        assert_eq!(one.kind_text(), "Link certificate (pending)");
        assert_eq!(one.identifier(), one.id.to_string());
        one.kind = Kind::Admin;
        assert_eq!(one.kind_text(), "Admin certificate");
    }

    #[test]
    fn a_certificate_is_good_for_as_long_as_its_role_says() {
        let mut one = identity("B", 1);
        let usable = |one: &Identity, now| one.usable(now).map(|f| f.0[0]).collect::<Vec<_>>();
        assert_eq!(usable(&one, 0), [1]);
        one.fingerprints.push(pin(2, Role::Next, Some(50)));
        assert_eq!(usable(&one, 50), [1, 2]);
        assert_eq!(usable(&one, 51), [2], "the old one ends whether the next was seen or not");
        one.fingerprints = vec![pin(2, Role::Current, None), pin(1, Role::Previous, Some(50))];
        assert_eq!(usable(&one, 50), [2, 1]);
        assert_eq!(usable(&one, 51), [2]);
        for state in
            [State::Pending, State::PendingApproval, State::Revoked, State::RevokedByPeer, State::Expired]
        {
            one.state = state;
            assert!(usable(&one, 0).is_empty(), "{state}");
        }
    }

    #[test]
    fn an_identity_is_stored_as_people_read_it() {
        let mut one = identity("B", 0xab);
        one.fingerprints.push(pin(0xcd, Role::Next, Some(86_400)));
        one.note("first\nline");
        let text = serde_json::to_string(&one).unwrap();
        for part in [
            r#""kind":"link""#,
            r#""state":"active""#,
            r#""created":"1970-01-01T00:16:40Z""#,
            r#""role":"next","until":"1970-01-02T00:00:00Z""#,
            r#""notes":["firstline"]"#,
            &format!(r#""sha256":"sha256:{}""#, "ab".repeat(32)),
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), one);
        assert!(serde_json::from_str::<Identity>(&text.replace("active\"", "rotating\"")).is_err());
        assert!(serde_json::from_str::<Identity>(&text.replace("\"kind\"", "\"sort\"")).is_err());
    }

    #[test]
    fn notes_are_bounded() {
        let mut one = identity("B", 1);
        for index in 0..20 {
            one.note(&format!("{index}{}", "x".repeat(600)));
        }
        assert_eq!(one.notes.len(), NOTES_MAX);
        assert!(one.notes[0].starts_with('4') && one.notes.iter().all(|note| is_text(note)));
    }
}
