//! A connection has proved to be an identity.

use crate::trust::Fingerprint;
use crate::trust::identity::Pin;
use crate::trust::identity::Role;
use crate::trust::name::clipped;

use super::Book;
use super::Event;
use super::Happened;

/// How long the moment may be out of date in the file, in seconds: connections come and go more often than that.
const STORED_SECONDS: u64 = 300;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// No identity has this certificate at this moment.
    Unknown,
    /// It is known. `store` says whether to store the book for it now.
    Known {
        /// Whether what is in the file is long out of date.
        store: bool,
    },
    /// It is the certificate that was announced, and in use from now on: store the book.
    Rotated(Event),
}

impl Book {
    /// Notes that somebody came with this certificate, from the address `source`.
    pub fn seen(&mut self, fingerprint: Fingerprint, source: &str, now: u64) -> Seen {
        let Some(id) = self.by_fingerprint(&fingerprint.0, now).map(|one| one.id) else {
            return Seen::Unknown;
        };
        let Some(one) = self.identities.get_mut(&id) else { return Seen::Unknown };
        let store = one.last_seen.is_none_or(|last| now.abs_diff(last) >= STORED_SECONDS);
        one.last_seen = Some(now);
        one.last_addr = Some(clipped(source));
        let is_next = |pin: &&Pin| pin.role == Role::Next && pin.sha256 == fingerprint;
        let Some(until) = one.fingerprints.iter().find(is_next).map(|pin| pin.until) else {
            return Seen::Known { store };
        };
        let old = one.pin(Role::Current).map(|pin| pin.sha256);
        one.fingerprints.retain(|pin| pin.role != Role::Previous);
        for pin in &mut one.fingerprints {
            (pin.role, pin.until) = match pin.role {
                Role::Next => (Role::Current, None),
                Role::Current | Role::Previous => (Role::Previous, until),
            };
        }
        one.fingerprints
            .retain(|pin| pin.role == Role::Current || pin.until.is_some_and(|until| now <= until));
        let what = Happened::CertificateChange(old.unwrap_or(fingerprint));
        let text = format!("the certificate that was announced is in use: {fingerprint}");
        one.note(&text);
        Seen::Rotated(Event::new(what, &one.name, text).with(fingerprint).from(source))
    }
}
