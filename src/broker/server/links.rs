//! Links that come, go or change while everything else stays as it is: rules, passwords and listeners are not read again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task;

use super::ReloadError;
use super::Server;
use crate::broker::acl_file::AclFile;
use crate::broker::acl_front::Front;
use crate::broker::events::event::What;
use crate::broker::material;
use crate::broker::material::LinkMaterial;
use crate::config;
use crate::config::Diff;
use crate::config::Settings;
use crate::config::settings::Link;
use crate::config::settings::Trust;
use crate::net::clock;
use crate::net::own_certificate::OwnCertificate;
use crate::time::Now;

/// Links that were checked and may be put in force.
pub struct PreparedLinks {
    settings: Settings,
    diff: Diff,
    /// Whether peers are known by other fingerprints.
    repin: bool,
    material: LinkMaterial,
    /// What follows from the links for what may be done.
    rules: (Arc<AclFile>, Option<Arc<Front>>),
    hold: Duration,
}

impl PreparedLinks {
    /// Gives peers so long before they are dialled.
    #[must_use]
    pub fn hold(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }
}

impl Server {
    /// Reads and checks what these links need, to be put in force instead of those that are.
    ///
    /// # Errors
    /// A file that a link names, or that a listener for links does.
    pub async fn prepare_links(&self, links: Vec<Link>) -> Result<PreparedLinks, ReloadError> {
        let mut settings = self.settings.clone();
        settings.cluster.links = links;
        let diff = config::diff(&self.settings, &settings);
        let pins = |links: &[Link]| -> Vec<[u8; 32]> {
            links.iter().flat_map(|link| link.peer.cert_sha256.iter().copied()).collect()
        };
        let repin = pins(&self.settings.cluster.links) != pins(&settings.cluster.links);
        let named = [&diff.links.added[..], &diff.links.changed[..]].concat();
        let (asked, now) = (settings.clone(), clock::now());
        let keys = Arc::clone(&self.link_keys);
        let loading = move || {
            let file = AclFile::of(&asked);
            let front = Front::of(&file.peers)?;
            Ok((LinkMaterial::load(&asked, &named, repin, &keys, now)?, (Arc::new(file), front)))
        };
        let (material, rules) = read(loading).await?;
        Ok(PreparedLinks { settings, diff, repin, material, rules, hold: Duration::ZERO })
    }

    /// Reads and checks what the listeners for links need to show another link certificate: before it is put in its place, so
    /// that nothing fails any more afterwards.
    ///
    /// # Errors
    /// A file that a listener for links names.
    pub async fn prepare_link_certificate(
        &self,
        own: Arc<OwnCertificate>,
    ) -> Result<LinkMaterial, ReloadError> {
        let asked = self.settings.clone();
        read(move || LinkMaterial::to_show(&asked, &own, clock::now())).await
    }

    /// Has the listeners for links show what was prepared, after a rotation or an import. Connections that there are go on.
    pub async fn show_link_certificate(&self, material: LinkMaterial) {
        material.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.repin(material, clock::now()).await;
    }

    /// Has links that show the link certificate connect anew, with the one that is in force now. What their peers want of us is
    /// kept, and what waits for them.
    pub async fn renew_links(&mut self) {
        let shows_it = |link: &&Link| link.enable && link.trust != Trust::Configured;
        let links: Vec<Link> = self.settings.cluster.links.iter().filter(shows_it).cloned().collect();
        for link in links {
            self.start_link(link, Duration::ZERO).await;
        }
    }

    /// Puts links in force. Nothing of it fails.
    pub async fn set_links(&mut self, prepared: PreparedLinks) {
        let PreparedLinks { settings, diff, repin, material, rules: (file, front), hold } = prepared;
        material.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.broker
            .authentication
            .set_peers(settings.cluster.links.iter().map(material::peer_rule).collect());
        if repin {
            self.repin(material, clock::now()).await;
        }
        let other_rules = self.broker.set_front(&file, front.as_ref());
        // Last: whoever comes back meets what is in force now.
        self.broker.kick_unproven();
        if other_rules {
            let broker = Arc::clone(&self.broker);
            // Off this thread; a panic is logged by the runtime.
            let _ = task::spawn_blocking(move || broker.recheck_subscriptions()).await;
        }
        self.replace_links(&settings.cluster.links, &diff.links, hold).await;
        let keys: Vec<&str> = diff.changes.iter().map(|change| change.key.as_str()).collect();
        self.broker.security_note(What::ConfigReload { taken: true }, &keys.join(", "), clock::now());
        self.settings = settings;
    }

    /// Listeners for links take the fingerprints of all peers; the others go on with the TLS that they have.
    async fn repin(&self, material: LinkMaterial, now: Now) {
        let mut tls = material.tls.clone();
        for (id, running) in &self.listeners {
            if let (false, Some(in_force)) = (tls.contains_key(id), &running.endpoint.read().tls) {
                tls.insert(id.clone(), Arc::clone(in_force));
            }
        }
        // With its revocation lists before connections are judged by it.
        self.keeper.take(&self.settings, &tls, material.web, now).await;
        for listener in self.settings.listeners.iter().filter(|listener| listener.enable) {
            if let Some(new) = material.tls.get(&listener.id()) {
                self.replace_endpoint(listener, Some(Arc::clone(new)));
            }
        }
    }
}

/// Reads files where that may take its time.
async fn read<T: Send + 'static>(
    loading: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
) -> Result<T, ReloadError> {
    task::spawn_blocking(loading)
        .await
        .unwrap_or_else(|_| Err(vec!["reading the files failed; the log says more".to_owned()]))
        .map_err(ReloadError::Material)
}
