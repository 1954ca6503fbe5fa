//! Links that come, go or change while everything else stays as it is: rules, passwords and listeners are not read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task;

use super::ReloadError;
use super::Server;
use super::endpoint;
use crate::broker::authenticate::Credentials;
use crate::broker::events::event::What;
use crate::broker::material;
use crate::broker::material::LinkMaterial;
use crate::config;
use crate::config::settings::Link;
use crate::net::clock;
use crate::time::Now;

impl Server {
    /// Puts these links in force, instead of those that are.
    ///
    /// # Errors
    /// A file that a link names, or that a listener for links does; nothing was changed.
    pub async fn set_links(&mut self, links: Vec<Link>) -> Result<(), ReloadError> {
        let mut settings = self.settings.clone();
        settings.cluster.links = links;
        let diff = config::diff(&self.settings, &settings);
        let pins = |links: &[Link]| -> Vec<[u8; 32]> {
            links.iter().flat_map(|link| link.peer.cert_sha256.iter().copied()).collect()
        };
        let repin = pins(&self.settings.cluster.links) != pins(&settings.cluster.links);
        let named = [&diff.links.added[..], &diff.links.changed[..]].concat();
        let (asked, now) = (settings.clone(), clock::now());
        let material = task::spawn_blocking(move || LinkMaterial::load(&asked, &named, repin, now))
            .await
            .unwrap_or_else(|_| Err(vec!["reading the files failed; the log says more".to_owned()]))
            .map_err(ReloadError::Material)?;
        // From here on nothing fails.
        material.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let peers = settings.cluster.links.iter().map(material::peer_rule).collect();
        let in_force = self.broker.authentication.credentials();
        self.broker.authentication.set(Credentials { peers, ..Credentials::clone(&in_force) });
        if repin {
            self.repin(material, now).await;
        }
        // Last: whoever comes back meets what is in force now.
        self.broker.kick_unproven();
        for name in &diff.links.removed {
            self.stop_link(name).await;
        }
        for link in &settings.cluster.links {
            if diff.links.added.contains(&link.name) || diff.links.changed.contains(&link.name) {
                self.start_link(link.clone()).await;
            }
        }
        let keys: Vec<&str> = diff.changes.iter().map(|change| change.key.as_str()).collect();
        self.broker.security_note(What::ConfigReload { taken: true }, &keys.join(", "), clock::now());
        self.settings = settings;
        Ok(())
    }

    /// Listeners for links take the fingerprints of all peers; the others go on with the TLS that they have.
    async fn repin(&self, material: LinkMaterial, now: Now) {
        let mut tls = BTreeMap::new();
        for listener in self.settings.listeners.iter().filter(|listener| listener.enable) {
            let id = listener.id();
            let Some(running) = self.listeners.get(&id) else { continue };
            let mut shared = running.endpoint.write();
            if let Some(new) = material.tls.get(&id) {
                *shared = Arc::new(endpoint(listener, Some(Arc::clone(new))));
            }
            if let Some(in_force) = &shared.tls {
                tls.insert(id, Arc::clone(in_force));
            }
        }
        self.keeper.take(&self.settings, &tls, material.web, now).await;
    }
}
