//! Peers and strangers as the rules see them, and what they try under `$LINK/`: for the linter and the matrix.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::acl::eval::Request;
use crate::acl::eval::Subject;
use crate::acl::lint::Inventory;
use crate::acl::lint::LinkInfo;
use crate::mqtt::packet::QoS;

/// A peer or stranger as the evaluator sees it.
pub(super) struct Actor {
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) listener: String,
}

impl Actor {
    /// A peer on the first listener for links there is.
    pub(super) fn peer(peer: &LinkInfo, inventory: &Inventory) -> Self {
        let listener = inventory.link_listeners.first().cloned();
        Self {
            // The shape that EMQX gives the ids of its message pool (`acl-language.md` section 8).
            client_id: format!("{}:msg:1a2b3c4d:1", peer.clientid_prefix),
            username: peer.username.clone(),
            attributes: BTreeMap::from([("link_id".to_owned(), peer.name.clone())]),
            listener: listener.unwrap_or_else(|| "ssl:link".to_owned()),
        }
    }

    /// Somebody whom no rule names.
    pub(super) fn stranger(username: Option<String>) -> Self {
        Self {
            client_id: "stranger".to_owned(),
            username,
            attributes: BTreeMap::new(),
            listener: "tcp:default".to_owned(),
        }
    }

    pub(super) fn subject(&self, peer_host: IpAddr) -> Subject<'_> {
        Subject {
            client_id: &self.client_id,
            username: self.username.as_deref(),
            peer_host: Some(peer_host),
            cert_common_name: None,
            zone: "default",
            listener: &self.listener,
            client_attrs: &self.attributes,
            is_superuser: false,
        }
    }
}

/// Something to try.
pub(super) struct Probe {
    pub(super) publish: bool,
    pub(super) topic: String,
}

impl Probe {
    pub(super) fn publish(topic: impl Into<String>) -> Self {
        Self { publish: true, topic: topic.into() }
    }

    pub(super) fn subscribe(topic: impl Into<String>) -> Self {
        Self { publish: false, topic: topic.into() }
    }

    pub(super) fn request(&self) -> Request<'_> {
        if self.publish {
            Request::Publish { topic: &self.topic, qos: QoS::AtLeastOnce, retain: false }
        } else {
            Request::Subscribe { filter: &self.topic, qos: QoS::AtLeastOnce }
        }
    }

    pub(super) fn verb(&self) -> &'static str {
        if self.publish { "publish" } else { "subscribe to" }
    }
}

/// The three topics of a cluster, in the direction a peer uses them: messages, routes, responses.
pub(super) fn control_probes(cluster: &str) -> [Probe; 3] {
    [
        Probe::publish(format!("$LINK/cluster/msg/{cluster}")),
        Probe::publish(format!("$LINK/cluster/route/{cluster}")),
        Probe::subscribe(format!("$LINK/cluster/resp/{cluster}/node1")),
    ]
}
