//! The rules that stand in front of the ACL file: what links may do follows from the links, so nobody has to write it down
//! (`trust.md` 2.5). Without links there are none, and nothing is asked.
//!
//! Confinement ([`mod@crate::acl::confine`]) stands in front of these too, and holds whatever they say.

use std::sync::Arc;

use crate::acl::compile::CompileOptions;
use crate::acl::compile::FILE_BYTES_MAX;
use crate::acl::eval::RuleSet;
use crate::config::settings::Link;
use crate::config::settings::Settings;
use crate::config::settings::Trust;
use crate::trust::generate;
use crate::trust::generate::Peer;
use crate::trust::generate::Shown;

/// The name of what is generated, in errors.
const NAME: &str = "(generated)";

/// Rules in front of a file.
#[derive(Debug)]
pub struct Front {
    /// As an ACL file has them.
    pub text: String,
    /// The same, compiled.
    pub rules: RuleSet,
}

impl Front {
    /// The rules for these peers; none without any.
    ///
    /// # Errors
    /// If they are too many to be compiled.
    pub fn of(peers: &[Peer]) -> Result<Option<Arc<Self>>, Vec<String>> {
        if peers.is_empty() {
            return Ok(None);
        }
        let text = generate::rules(peers);
        if text.len() > FILE_BYTES_MAX {
            return Err(vec![format!(
                "the rules that follow from {} links are {} bytes, and at most {FILE_BYTES_MAX} are asked for every message: delete \
                 links or identities that nobody uses (tombolo auth identity list --unused 30d)",
                peers.len(),
                text.len()
            )]);
        }
        let rules = RuleSet::compile(&text, &CompileOptions::default())
            .map_err(|errors| errors.iter().map(|error| error.render(NAME)).collect::<Vec<_>>())?;
        Ok(Some(Arc::new(Self { text, rules })))
    }
}

/// The peers of these links, by name: with what their identities are granted, or with everything where there is no identity to
/// say it.
#[must_use]
pub fn peers(links: &[Link]) -> Vec<Peer> {
    let peer = |link: &Link| {
        let (can_forward, can_sync_routes) = match (&link.granted, link.trust) {
            (Some(rights), _) => (rights.can_forward, rights.can_sync_routes),
            (None, trust) => (trust == Trust::Configured, trust == Trust::Configured),
        };
        let (cluster, prefix) = (link.name.clone(), link.peer.clientid.clone());
        Peer { cluster, prefix, can_forward, can_sync_routes }
    };
    let mut peers: Vec<Peer> = links.iter().map(peer).collect();
    peers.sort_unstable_by(|one, other| one.cluster.cmp(&other.cluster));
    peers
}

/// For an EMQX broker at the other end of each link: the rules that let us in there, by the name of the link.
#[must_use]
pub fn exports(settings: &Settings) -> Vec<(String, String)> {
    let export = |link: &Link| {
        let ours = Peer {
            cluster: settings.cluster.name.clone(),
            prefix: link.clientid.clone(),
            can_forward: true,
            can_sync_routes: true,
        };
        let shown = link.username.clone().map_or(Shown::CommonName, Shown::Username);
        (link.name.clone(), generate::emqx_export(&[(ours, shown)]))
    };
    settings.cluster.links.iter().map(export).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::Environment;

    fn settings(links: &str) -> Settings {
        let text = format!(
            "[cluster]\nname = \"A\"\n[[listeners]]\ntype = \"tcp\"\nrole = \"any\"\nallow_insecure = true\nbind = \"127.0.0.1:0\"\n{links}"
        );
        config::parse("tombolo.toml", &text, &Environment::default()).unwrap()
    }

    fn link(name: &str, more: &str) -> String {
        format!(
            "[[cluster.links]]\nname = \"{name}\"\nserver = \"127.0.0.1\"\ntopics = []\nssl.enable = false\n\
             peer.allow_unauthenticated = true\n{more}\n"
        )
    }

    #[test]
    fn without_links_there_is_nothing_in_front() {
        assert!(Front::of(&peers(&settings("").cluster.links)).unwrap().is_none());
    }

    #[test]
    fn links_of_the_configuration_may_do_what_links_do() {
        let settings = settings(&(link("C", "") + &link("B", "")));
        let front = Front::of(&peers(&settings.cluster.links)).unwrap().unwrap();
        let lines: Vec<&str> = front.text.lines().filter(|line| line.starts_with("{allow")).collect();
        assert_eq!((lines.len(), front.rules.len()), (6, 10));
        assert!(lines[0].contains("\"$LINK/cluster/msg/B\"") && lines[3].contains("\"$LINK/cluster/msg/C\""));
    }

    #[test]
    fn a_link_whose_identity_is_not_active_may_do_nothing() {
        let mut settings = settings(&link("B", ""));
        settings.cluster.links[0].trust = Trust::Pinned;
        let front = Front::of(&peers(&settings.cluster.links)).unwrap().unwrap();
        assert!(!front.text.contains("{allow") && front.text.contains("^clink-B-"), "{}", front.text);
    }

    #[test]
    fn more_rules_than_there_may_be_are_refused_with_what_to_do() {
        let peer = |number: usize| Peer {
            cluster: format!("site-{number}"),
            prefix: format!("clink-site-{number}-"),
            can_forward: true,
            can_sync_routes: true,
        };
        let all: Vec<Peer> = (0..2_000).map(peer).collect();
        let [error] = &Front::of(&all).unwrap_err()[..] else { panic!("one sentence") };
        assert!(
            error.starts_with("the rules that follow from 2000 links are ") && error.contains("--unused"),
            "{error}"
        );
        assert!(Front::of(&all[..1_000]).unwrap().is_some());
    }

    #[test]
    fn an_emqx_broker_is_told_who_we_are_there() {
        let settings = settings(&(link("B", "username = \"clink-user:A\"") + &link("C", "clientid = \"A\"")));
        let exports = exports(&settings);
        assert_eq!(exports.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["B", "C"]);
        assert!(exports[0].1.contains("{username, \"clink-user:A\"}") && exports[0].1.contains("msg/A\""));
        assert!(exports[1].1.contains("{re, \"^A\"}") && exports[1].1.contains("msg/${cert_common_name}"));
    }
}
