//! Pins that an operator sets by hand for the servers that a link dials: `link trust NAME --fingerprint F`. Nobody who dials us is
//! let in by one.

use serde::Deserialize;
use serde::Serialize;

use crate::trust::Fingerprint;
use crate::trust::address;
use crate::trust::address::ServerAddr;
use crate::trust::written;

use super::Book;
use super::Event;
use super::Happened;
use super::OUTBOUND_MAX;
use super::Own;
use super::TrustError;
use super::tokens::check_texts;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// The name of the cluster.
    pub name: String,
    /// The certificate that its servers show.
    pub fingerprint: Fingerprint,
    /// Where they are.
    #[serde(with = "written::addresses")]
    pub addrs: Vec<ServerAddr>,
    /// When it was set.
    #[serde(with = "written::moment")]
    pub created: u64,
    /// By whom.
    pub created_by: String,
}

impl Book {
    /// All pins that were set by hand.
    pub fn outbound(&self) -> impl ExactSizeIterator<Item = &Outbound> {
        self.outbound.values()
    }

    /// Sets a pin by hand.
    ///
    /// # Errors
    /// If another one is known for that cluster and not to be replaced, or it is somebody else's.
    pub fn trust_outbound(
        &mut self,
        own: &Own<'_>,
        pin: Outbound,
        replace: bool,
    ) -> Result<Event, TrustError> {
        check_texts("", &pin.created_by)?;
        self.check_name(own, &pin.name)?;
        if address::parse_all(&address::texts(&pin.addrs), false).is_none() {
            return Err(TrustError::Usage("give 1 to 16 addresses, host:port or [v6]:port".to_owned()));
        }
        let same = self.link(&pin.name);
        if let Some(holder) = self.holder_of(own, pin.fingerprint, same.map(|one| one.id))
            && holder != pin.name
        {
            return Err(TrustError::Conflict(format!("{} is the certificate of {holder}", pin.fingerprint)));
        }
        let by_hand = self.outbound.get(&pin.name).map(|one| one.fingerprint);
        let by_identity = same.filter(|one| one.is_active()).and_then(|one| one.fingerprints.first());
        let known =
            by_hand.or_else(|| by_identity.map(|pin| pin.sha256)).filter(|known| *known != pin.fingerprint);
        if let Some(expected) = known.filter(|_| !replace) {
            return Err(TrustError::Mismatch { whose: pin.name, shown: pin.fingerprint, expected });
        }
        if by_hand.is_none() && self.outbound.len() >= OUTBOUND_MAX {
            return Err(TrustError::Conflict(format!("there are {OUTBOUND_MAX} pins already")));
        }
        let text = format!("servers with {} are trusted, by {}", pin.fingerprint, pin.created_by);
        let event = Event::new(Happened::Admin("link_trust"), &pin.name, text).with(pin.fingerprint);
        self.outbound.insert(pin.name.clone(), pin);
        Ok(event)
    }

    /// Takes back a pin that was set by hand.
    ///
    /// # Errors
    /// If there is none.
    pub fn distrust_outbound(&mut self, name: &str) -> Result<Event, TrustError> {
        match self.outbound.remove(name) {
            Some(pin) => Ok(Event::new(Happened::Admin("link_distrust"), name, "").with(pin.fingerprint)),
            None => Err(TrustError::NotFound { what: "pin for", name: crate::trust::name::clipped(name) }),
        }
    }
}
