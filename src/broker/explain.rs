//! Why a client may or may not do something, from its connection to the rule: who it is taken for, what confinement says,
//! then the file. For operators; nothing here decides, each step asks what decides.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::acl::confine::Confined;
use crate::acl::confine::ListenerRole;
use crate::acl::confine::confine;
use crate::acl::eval::DecidedBy;
use crate::acl::eval::Request;
use crate::acl::explain;
use crate::acl::explain::Explanation;
use crate::acl::rule::Permission;
use crate::auth::certificate::CertificateFacts;
use crate::auth::peer;
use crate::auth::peer::Binding;
use crate::auth::peer::ConnectFacts;
use crate::auth::peer::PeerRule;
use crate::broker::identity::Identity;
use crate::broker::identity::Policy;
use crate::broker::login::attributes;
use crate::net::address::PeerAddr;

/// A connection as an operator describes it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Client Identifier.
    pub client_id: String,
    /// User Name, taken for proved.
    pub username: Option<String>,
    /// Remote address.
    pub peer_host: IpAddr,
    /// `type:name`.
    pub listener: String,
    /// Common name of a certificate, taken for verified.
    pub common_name: Option<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// Attributes beside those that a link gets.
    pub attributes: BTreeMap<String, String>,
    /// Skips the rules of the file.
    pub is_superuser: bool,
}

/// A verdict, step by step.
#[derive(Debug, Clone)]
pub struct Explained {
    /// What stands in front of the file, in order: name and what it says.
    pub chain: Vec<(&'static str, String)>,
    /// Why the connection would not come about, or why confinement refuses.
    pub refused: Option<String>,
    /// What is generated in front of the file, where that decides.
    pub generated: Option<Explanation>,
    /// What the file says, whether or not it is asked.
    pub file: Explanation,
    /// Allowed or not.
    pub permission: Permission,
}

impl Explained {
    /// What decided, in words.
    #[must_use]
    pub fn by(&self) -> String {
        let by = self.generated.as_ref().unwrap_or(&self.file).verdict.by;
        match (&self.refused, by) {
            (Some(refused), _) => refused.clone(),
            (None, DecidedBy::NoMatch) => "no rule matches: no_match".to_owned(),
            (None, by) => by.to_string(),
        }
    }
}

impl Described {
    /// The connection that this would make, and how it is bound to a peer; the reason if it would be refused.
    fn identity(&self, policy: &Policy, peers: &[PeerRule]) -> (Identity, String, Option<String>) {
        // A listener that is not known: as links connect, so that their rules can be tried without a configuration.
        let role = policy.file.roles.get(&self.listener).copied().unwrap_or(ListenerRole::Any);
        let certificate = self.certificate();
        let facts = ConnectFacts {
            client_id: &self.client_id,
            username: self.username.as_deref(),
            password_verified: self.username.is_some(),
            certificate: certificate.as_ref(),
            role: match role {
                ListenerRole::Client => peer::ListenerRole::Client,
                ListenerRole::Link => peer::ListenerRole::Link,
                ListenerRole::Any => peer::ListenerRole::Any,
            },
            loopback: self.peer_host.to_canonical().is_loopback(),
        };
        let (bound_to, told, refused) = match peer::bind(peers, &facts) {
            Binding::Ordinary => (None, "an application, bound to no peer".to_owned(), None),
            Binding::Peer(rule) => {
                let told = format!(
                    "peer `{}`, by the prefix `{}` and its proof",
                    rule.cluster, rule.clientid_prefix
                );
                (Some(Arc::from(rule.cluster.as_str())), told, None)
            }
            Binding::Refused(refusal) => {
                let told = format!("refused at CONNECT: {refusal}");
                (None, told.clone(), Some(told))
            }
        };
        let attributes = attributes(self.attributes.clone(), bound_to.as_deref());
        let peer = PeerAddr::Ip(SocketAddr::new(self.peer_host, 0));
        let identity = Identity {
            username: self.username.as_deref().map(Arc::from),
            common_name: self.common_name.as_deref().map(Box::from),
            attributes,
            is_superuser: self.is_superuser,
            bound_to,
            ..Identity::plain(self.client_id.as_str().into(), peer, self.listener.as_str().into(), role)
        };
        (identity, told, refused)
    }

    fn certificate(&self) -> Option<CertificateFacts> {
        (self.common_name.is_some() || self.fingerprint.is_some()).then(|| CertificateFacts {
            der_sha256: self.fingerprint.unwrap_or_default(),
            common_name: self.common_name.clone(),
            subject: String::new(),
            not_after_unix: i64::MAX,
            chain: Box::default(),
            anchor: None,
            chain_verified: true,
        })
    }
}

impl Policy {
    /// Explains what a connection that is described may do, where these rules for peers hold.
    #[must_use]
    pub fn explain_described(
        &self,
        described: &Described,
        peers: &[PeerRule],
        request: &Request<'_>,
    ) -> Explained {
        let (identity, told, refused) = described.identity(self, peers);
        self.explained(&identity, told, refused, request)
    }

    /// Explains what this client may do.
    #[must_use]
    pub fn explain(&self, identity: &Identity, request: &Request<'_>) -> Explained {
        let told = identity.bound_to.as_ref().map_or_else(
            || "an application, bound to no peer".to_owned(),
            |cluster| format!("peer `{cluster}`, as it proved at CONNECT"),
        );
        self.explained(identity, told, None, request)
    }

    fn explained(
        &self,
        identity: &Identity,
        binding: String,
        refused: Option<String>,
        request: &Request<'_>,
    ) -> Explained {
        let role = match (self.file.roles.contains_key(&*identity.listener), identity.role) {
            (false, _) => "is not in the configuration; taken for one of role any",
            (true, ListenerRole::Client) => "is of role client",
            (true, ListenerRole::Link) => "is of role link",
            (true, ListenerRole::Any) => "is of role any",
        };
        let confined = confine(identity.bound_to.as_deref(), identity.role, request).err();
        let generated = self.front.as_ref().and_then(|front| {
            let mut told = explain::explain(&front.rules, &identity.subject(), request, Permission::Deny);
            told.verdict = front.rules.authorize_in_front(&identity.subject(), request)?;
            Some(told)
        });
        let mut chain = vec![
            ("listener", format!("{} {role}", identity.listener)),
            ("binding", binding),
            (
                "confinement",
                confined.map_or_else(|| "lets it pass".to_owned(), |why: Confined| why.to_string()),
            ),
        ];
        if self.front.is_some() {
            let says = generated.as_ref().map_or_else(
                || "leave it to the file".to_owned(),
                |told| format!("{}: {}", told.verdict.by, told.rule.as_deref().unwrap_or_default()),
            );
            chain.push(("generated", says));
        }
        let file = explain::explain(&self.rules, &identity.subject(), request, self.no_match);
        let refused = refused.or_else(|| confined.map(|why| format!("confinement: {why}")));
        let decided = generated.as_ref().unwrap_or(&file).verdict.permission;
        let permission = if refused.is_some() { Permission::Deny } else { decided };
        Explained { chain, refused, generated, file, permission }
    }
}
