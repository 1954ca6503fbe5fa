//! Trust that nobody uses: found, so that it can be taken back.

use crate::time::moment as rfc3339;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;

use super::Book;

/// How long an identity is not used before that is worth a word, in seconds.
const UNUSED_SECONDS: u64 = 30 * DAY;
/// How long a new peer has to come for the first time.
const FIRST_SECONDS: u64 = DAY;
const DAY: u64 = 24 * 60 * 60;
/// How long it may be out of date when a connection that lasts was seen, in seconds.
const LASTS_SECONDS: u64 = 60 * 60;

impl Identity {
    /// When it was last used, in seconds since the Unix epoch: seen or, if it never was, made.
    #[must_use]
    pub fn last_used(&self) -> u64 {
        self.last_seen.or(self.activated).unwrap_or(self.created)
    }
}

impl Book {
    /// Whether the peer of this name, which is connected, was last seen so long ago that it is worth a note.
    #[must_use]
    pub fn is_long_connected(&self, name: &str, now: u64) -> bool {
        let peer = self.link(name).filter(|one| one.is_active());
        peer.and_then(|one| one.last_seen).is_some_and(|last| now.saturating_sub(last) >= LASTS_SECONDS)
    }

    /// Notes that the peer of this name is still connected.
    pub fn lasts(&mut self, name: &str, now: u64) {
        let peer = self.identities.values_mut().filter(|one| one.kind == Kind::Link && one.name == name);
        peer.filter(|one| one.is_active()).for_each(|one| one.last_seen = Some(now));
    }

    /// What nobody uses, one line each: links unused for 30 days, peers that never came, groups in which nobody is. The group that
    /// is built in is none of these.
    #[must_use]
    pub fn unused(&self, now: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for one in self.identities().filter(|one| one.kind == Kind::Link && one.is_active()) {
            let (name, idle) = (&one.name, now.saturating_sub(one.last_used()));
            match one.last_seen {
                Some(seen) if idle >= UNUSED_SECONDS => lines.push(format!(
                    "link {name}: its peer was last seen {}: `tombolo link delete {name}` if it is not needed",
                    rfc3339::format(seen)
                )),
                None if idle >= FIRST_SECONDS => lines.push(format!(
                    "link {name}: its peer is trusted since {} and was never seen: `tombolo link delete {name}` if it is not needed",
                    rfc3339::format(one.last_used())
                )),
                _ => {}
            }
        }
        let empty = self.groups.keys().filter(|name| self.members(name).is_empty());
        lines.extend(empty.map(|name| {
            format!("group {name}: nobody is in it: `tombolo auth group delete {name}` if it is not needed")
        }));
        lines
    }
}
