//! The book as a file has it: JSON that people can read. What is read is checked as what is written, so that a file which was
//! changed by hand lets nobody in by mistake.

use std::collections::BTreeMap;
use std::collections::HashSet;

use serde::Deserialize;
use serde::Serialize;

use crate::trust::Fingerprint;
use crate::trust::group;
use crate::trust::group::Group;
use crate::trust::group::LINK_PEER;
use crate::trust::identity;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::PINS_MAX;
use crate::trust::identity::Role;
use crate::trust::identity::State;
use crate::trust::name;
use crate::trust::name::is_cluster_name;

use super::Book;
use super::GROUPS_MAX;
use super::IDENTITIES_MAX;
use super::OUTBOUND_MAX;
use super::Outbound;
use super::PERMISSIONS_MAX;
use super::PendingToken;
use super::TOKENS_MAX;
use super::TokenState;

/// The version that this program writes.
pub const VERSION: u64 = 1;
/// The longest file in bytes.
pub const BYTES_MAX: usize = 256 << 20;

/// Why a file is no book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// More than 256 MiB.
    #[error("longer than 256 MiB")]
    TooLong,
    /// Not the JSON of a book.
    #[error("{0}")]
    Json(String),
    /// Written by a later version of this program.
    #[error(
        "written by a later version of this program (schema {0}, this one knows up to 1): it may say what this one would not \
         heed, so nothing of it is used; update, or restore the file from before"
    )]
    Newer(u64),
    /// Something that cannot be.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    #[serde(default)]
    identities: Vec<Identity>,
    #[serde(default)]
    tokens: Vec<PendingToken>,
    #[serde(default)]
    groups: BTreeMap<String, Group>,
    #[serde(default)]
    outbound: Vec<Outbound>,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl Book {
    /// As a file has it: the same for the same book.
    #[must_use]
    pub fn to_json(&self) -> String {
        let document = Document {
            version: VERSION,
            identities: self.identities.values().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
            groups: self.groups.clone(),
            outbound: self.outbound.values().cloned().collect(),
        };
        // Texts, numbers and lists: nothing that JSON cannot have.
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads what [`Self::to_json`] has written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, BookError> {
        if text.len() > BYTES_MAX {
            return Err(BookError::TooLong);
        }
        let json = |error: serde_json::Error| BookError::Json(error.to_string());
        let Version { version } = serde_json::from_str(text).map_err(json)?;
        if version > VERSION {
            return Err(BookError::Newer(version));
        }
        if version != VERSION {
            return Err(BookError::Invalid(format!("there never was a schema {version}")));
        }
        Self::of_document(serde_json::from_str(text).map_err(json)?).map_err(BookError::Invalid)
    }

    fn of_document(document: Document) -> Result<Self, String> {
        let Document { identities, tokens, groups, outbound, version: _ } = document;
        let counts = [
            ("identities", identities.len(), IDENTITIES_MAX),
            ("tokens", tokens.len(), TOKENS_MAX),
            ("groups", groups.len(), GROUPS_MAX),
            ("outbound", outbound.len(), OUTBOUND_MAX),
        ];
        for (what, count, most) in counts {
            if count > most {
                return Err(format!("{what}: {count}, at most {most}"));
            }
        }
        check_groups(&groups)?;
        let mut book = Self { groups, ..Self::default() };
        book.put_identities(identities)?;
        for token in tokens {
            check_token(&book, &token)?;
            let id = token.id;
            if book.tokens.insert(id, token).is_some() {
                return Err(format!("token {id} is there twice"));
            }
        }
        for pin in outbound {
            let name = pin.name.clone();
            if !is_cluster_name(&name) || pin.addrs.is_empty() || book.outbound.insert(name, pin).is_some() {
                return Err("a pin without a name or an address, or two for one cluster".to_owned());
            }
        }
        Ok(book)
    }

    fn put_identities(&mut self, identities: Vec<Identity>) -> Result<(), String> {
        let mut fingerprints: HashSet<Fingerprint> = HashSet::new();
        let mut names: HashSet<(Kind, String)> = HashSet::new();
        let mut prefixes: HashSet<String> = HashSet::new();
        for one in identities {
            check_identity(self, &one)
                .map_err(|what| format!("identity {} ({}): {what}", one.id, one.name))?;
            for pin in &one.fingerprints {
                if !fingerprints.insert(pin.sha256) {
                    return Err(format!("{} is of two identities", pin.sha256));
                }
            }
            if !names.insert((one.kind, one.name.clone())) {
                return Err(format!("two identities are called {}", one.name));
            }
            let holds_prefix = one.kind == Kind::Link && one.holds_name();
            if holds_prefix && !prefixes.insert(one.prefix.to_ascii_lowercase()) {
                return Err(format!("two identities have the prefix {}", one.prefix));
            }
            let id = one.id;
            if self.identities.insert(id, one).is_some() {
                return Err(format!("identity {id} is there twice"));
            }
        }
        Ok(())
    }
}

fn check_groups(groups: &BTreeMap<String, Group>) -> Result<(), String> {
    let all: usize = groups.values().map(|group| group.permissions.len()).sum();
    if all > PERMISSIONS_MAX {
        return Err(format!("{all} permissions, at most {PERMISSIONS_MAX}"));
    }
    for (name, group) in groups {
        let is_group = is_cluster_name(name)
            && name != LINK_PEER
            && identity::is_text(&group.description)
            && group.permissions.len() <= group::PERMISSIONS_MAX;
        if !is_group {
            return Err(format!("group {name:?}"));
        }
    }
    Ok(())
}

fn check_identity(book: &Book, one: &Identity) -> Result<(), String> {
    if !is_cluster_name(&one.name) {
        return Err("no name".to_owned());
    }
    if one.kind == Kind::Link {
        name::check_prefix(&one.prefix).map_err(|error| error.to_string())?;
    }
    let texts = [&one.description, &one.created_by].into_iter().chain(&one.notes);
    let addresses = [&one.activated_from, &one.last_addr].into_iter().flatten();
    if !texts.chain(addresses).all(|text| identity::is_text(text)) || one.notes.len() > identity::NOTES_MAX {
        return Err("a text that is too long or holds control characters, or too many notes".to_owned());
    }
    check_pins(one)?;
    crate::trust::enroll::checked_capabilities(&one.caps).map_err(|error| error.to_string())?;
    check_members(book, &one.groups)
}

fn check_pins(one: &Identity) -> Result<(), String> {
    let count = |role| one.fingerprints.iter().filter(|pin| pin.role == role).count();
    let roles = [Role::Current, Role::Next, Role::Previous];
    if one.fingerprints.len() > PINS_MAX || roles.into_iter().any(|role| count(role) > 1) {
        return Err("two fingerprints of one role".to_owned());
    }
    if one.is_active() && count(Role::Current) == 0 {
        return Err("active without a fingerprint".to_owned());
    }
    let has_end = |role| one.pin(role).is_none_or(|pin| pin.until.is_some());
    if !has_end(Role::Next) || !has_end(Role::Previous) {
        return Err("a fingerprint that is next or previous has an end".to_owned());
    }
    if matches!(one.state, State::Pending | State::Expired) && !one.fingerprints.is_empty() {
        return Err("pending with a fingerprint".to_owned());
    }
    Ok(())
}

fn check_members(book: &Book, groups: &[String]) -> Result<(), String> {
    if groups.len() > identity::GROUPS_MAX {
        return Err("too many groups".to_owned());
    }
    match groups.iter().find(|name| book.group(name).is_none()) {
        Some(name) => Err(format!("no group {name:?}")),
        None => Ok(()),
    }
}

fn check_token(book: &Book, token: &PendingToken) -> Result<(), String> {
    let what = format!("token {}", token.id);
    if !is_cluster_name(&token.issued_for) || !identity::is_text(&token.issuer) {
        return Err(format!("{what}: no name of a cluster or an operator"));
    }
    name::check_prefix(&token.prefix).map_err(|error| format!("{what}: {error}"))?;
    // Groups of a token that is no good may be gone.
    let groups = if token.state == TokenState::Issued { &token.groups[..] } else { &[] };
    check_members(book, groups).map_err(|error| format!("{what}: {error}"))
}
