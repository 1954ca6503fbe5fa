//! The certificates by which a link knows its peer. A peer that announces its next one gets it here, and the connections that
//! there are go on; where one is good no more the link is replaced, which looks at everything anew.

use std::sync::Arc;

use crate::broker::links::Link;
use crate::config::settings;

/// Fingerprints of certificates, SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pins {
    /// Those that the peer shows when it dials us.
    pub shown: Vec<[u8; 32]>,
    /// Those that its servers show.
    pub servers: Vec<[u8; 32]>,
}

impl Pins {
    /// Those that are in the settings.
    pub(super) fn of(settings: &settings::Link) -> Self {
        Self {
            shown: settings.peer.cert_sha256.clone(),
            servers: settings.ssl.as_ref().map(|ssl| ssl.cert_sha256.clone()).unwrap_or_default(),
        }
    }
}

impl Link {
    /// Those in force.
    #[must_use]
    pub fn pins(&self) -> Arc<Pins> {
        Arc::clone(&self.pins.read())
    }

    /// Puts those of these settings in force, which differ in nothing else: for handshakes from now on.
    pub fn take_pins(&self, new: &settings::Link) {
        *self.pins.write() = Arc::new(Pins::of(new));
    }

    /// The settings with the certificates in force.
    #[must_use]
    pub fn settings_in_force(&self) -> settings::Link {
        let (mut settings, pins) = (self.settings.clone(), self.pins());
        settings.peer.cert_sha256.clone_from(&pins.shown);
        if let Some(ssl) = &mut settings.ssl {
            ssl.cert_sha256.clone_from(&pins.servers);
        }
        settings
    }
}
