//! A peer changes its certificate (`trust.md` 2.6): told of as the next one, in use when first seen, the one before good until
//! the end of the overlap.

use crate::trust::identity::Kind;
use crate::trust::identity::Pin;
use crate::trust::identity::Role;
use crate::trust::leaf::Leaf;

use super::Book;
use super::Event;
use super::Happened;
use super::Own;
use super::TrustError;

/// The longest overlap of two certificates, in seconds.
pub const OVERLAP_SECONDS_MAX: u64 = 90 * 24 * 3600;

impl Book {
    /// Keeps the next certificate of a peer, of which it has told over a connection of its own with a statement that was verified.
    /// The one before is good until `until`, whether the next one is seen by then or not.
    ///
    /// # Errors
    /// If the peer is not active, the overlap too long, or the certificate not fit or somebody else's.
    pub fn rotate_begin(
        &mut self,
        own: &Own<'_>,
        name: &str,
        next: &Leaf,
        until: u64,
        now: u64,
    ) -> Result<Event, TrustError> {
        let one = self.link(name).ok_or_else(|| TrustError::no_link(name))?;
        if !one.is_active() {
            return Err(TrustError::Conflict(format!("{name} is not active ({})", one.shown_state())));
        }
        if one.pin(Role::Current).is_some_and(|pin| pin.sha256 == next.sha256) {
            return Err(TrustError::Conflict(format!("{} is in use already", next.sha256)));
        }
        if until > now.saturating_add(OVERLAP_SECONDS_MAX) {
            return Err(TrustError::Usage("certificates overlap for at most 90 days".to_owned()));
        }
        next.check(now).map_err(|(_, text)| TrustError::Usage(text))?;
        if let Some(holder) = self.holder_of(own, next.sha256, Some(one.id)) {
            return Err(TrustError::Conflict(format!("{} is the certificate of {holder}", next.sha256)));
        }
        let one = self.one_mut(Kind::Link, name)?;
        // Another next one takes the place of one that was never seen; what comes back is not two of them.
        one.fingerprints.retain(|pin| pin.role != Role::Next && pin.sha256 != next.sha256);
        one.fingerprints.push(Pin {
            sha256: next.sha256,
            not_after: Some(next.not_after),
            role: Role::Next,
            until: Some(until),
        });
        let text = format!("its next certificate is {}", next.sha256);
        one.note(&text);
        Ok(Event::new(Happened::CertificateAnnounced, name, text).with(next.sha256))
    }

    /// Certificates whose time as the next or the previous one is over.
    pub(super) fn finish_rotations(&mut self, now: u64, events: &mut Vec<Event>) {
        for one in self.identities.values_mut() {
            let is_over = |pin: &Pin| pin.until.is_some_and(|until| now > until);
            if let Some(next) = one.pin(Role::Next).filter(|pin| is_over(pin)).map(|pin| pin.sha256) {
                let old = one.pin(Role::Current).map_or(next, |pin| pin.sha256);
                one.fingerprints.retain(|pin| pin.role == Role::Next);
                for pin in &mut one.fingerprints {
                    (pin.role, pin.until) = (Role::Current, None);
                }
                let text = format!("{next} took its place without having been seen");
                one.note(&text);
                events.push(Event::new(Happened::CertificateChange(old), &one.name, text).with(next));
            }
            if let Some(old) = one.pin(Role::Previous).filter(|pin| is_over(pin)).map(|pin| pin.sha256) {
                one.fingerprints.retain(|pin| pin.role != Role::Previous);
                events.push(Event::new(Happened::CertificateRetired(old), &one.name, "the overlap is over"));
            }
        }
    }
}
