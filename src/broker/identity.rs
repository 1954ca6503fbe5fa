//! Who is at the other end of a connection, as authentication left it; and the one place where it is decided
//! what they may do: confinement to `$LINK/` first, then the rules that follow from the links, then those of the ACL file.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::acl::confine::Confined;
use crate::acl::confine::ListenerRole;
use crate::acl::confine::confine;
use crate::acl::eval::DecidedBy;
use crate::acl::eval::Request;
use crate::acl::eval::RuleSet;
use crate::acl::eval::Subject;
use crate::acl::rule::Permission;
use crate::auth::certificate::CertificateFacts;
use crate::auth::chain::Mechanism;
use crate::auth::peer;
use crate::auth::peer::Binding;
use crate::auth::peer::ConnectFacts;
use crate::auth::peer::PeerRule;
use crate::broker::acl_file::AclFile;
use crate::broker::acl_front::Front;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::shadow::Shadow;
use crate::config::settings::DenyAction;
use crate::metrics::labels::AclReason;
use crate::mqtt::packet::Version;
use crate::net::address::PeerAddr;
use crate::time::Now;

/// An authenticated client. Immutable: a new CONNECT makes a new one.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User Name that was authenticated.
    pub username: Option<Arc<str>>,
    /// Remote address.
    pub peer: PeerAddr,
    /// Listener, as `<type>:<name>`.
    pub listener: Arc<str>,
    /// Who may connect there.
    pub role: ListenerRole,
    /// Common name of the client certificate.
    pub common_name: Option<Box<str>>,
    /// Attributes of the client for `{client_attr, …}`.
    pub attributes: Option<Box<BTreeMap<String, String>>>,
    /// Skips the rules of the file; confinement still holds.
    pub is_superuser: bool,
    /// The linked cluster whose connection this is.
    pub bound_to: Option<Arc<str>>,
    /// Protocol version.
    pub version: Version,
    /// It said that it is a bridge, by the protocol levels 0x83 and 0x84: another broker, as mosquitto's
    /// `try_private` has it.
    pub is_bridge: bool,
    /// It proved its username by SCRAM, the one Authentication Method there is.
    pub by_scram: bool,
    /// When its CONNECT was taken, in milliseconds since the Unix epoch.
    pub connected_unix_ms: u64,
    /// Keep Alive in force.
    pub keep_alive_seconds: u16,
    /// Clean Start, or Clean Session.
    pub clean_start: bool,
    /// When it is no longer who it is, by its token, on the monotonic clock: it is disconnected then.
    pub expires_mono_ms: Option<NonZeroU64>,
    /// What it proved, to be looked at again when the rules for peers change.
    pub proof: Proof,
}

impl Identity {
    /// Of this client and no more: an application without a name or a certificate, by MQTT 5.0, which has proved nothing.
    #[must_use]
    pub fn plain(client_id: Arc<str>, peer: PeerAddr, listener: Arc<str>, role: ListenerRole) -> Self {
        Self {
            client_id,
            username: None,
            peer,
            listener,
            role,
            common_name: None,
            attributes: None,
            is_superuser: false,
            bound_to: None,
            version: Version::V5,
            is_bridge: false,
            by_scram: false,
            connected_unix_ms: 0,
            keep_alive_seconds: 0,
            clean_start: true,
            expires_mono_ms: None,
            proof: Proof::default(),
        }
    }
}

/// What a connection showed at CONNECT.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// User Name as sent.
    pub username: Option<Arc<str>>,
    /// Whether the Password belonged to it.
    pub password_verified: bool,
    /// The step of the chain of authenticators that let it in; none where the chain was not asked.
    pub mechanism: Option<Mechanism>,
    /// The client certificate whose key the TLS handshake proved.
    pub certificate: Option<Box<CertificateFacts>>,
}

impl Identity {
    /// Whether the rules for peers still make of this connection what it is.
    #[must_use]
    pub fn still_holds(&self, rules: &[PeerRule]) -> bool {
        let own = self.username.as_deref();
        if self.bound_to.is_none()
            && rules.iter().any(|rule| rule.username.is_some() && rule.username.as_deref() == own)
        {
            return false; // The name belongs to a link by now (A6), however it was proved.
        }
        let facts = ConnectFacts {
            client_id: &self.client_id,
            username: self.proof.username.as_deref(),
            password_verified: self.proof.password_verified,
            certificate: self.proof.certificate.as_deref(),
            role: match self.role {
                ListenerRole::Client => peer::ListenerRole::Client,
                ListenerRole::Link => peer::ListenerRole::Link,
                ListenerRole::Any => peer::ListenerRole::Any,
            },
            loopback: self.peer.is_loopback(),
        };
        match peer::bind(rules, &facts) {
            Binding::Ordinary => self.bound_to.is_none(),
            Binding::Peer(rule) => self.bound_to.as_deref() == Some(rule.cluster.as_str()),
            Binding::Refused(_) => false,
        }
    }

    /// Whether its token has expired.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        self.expires_mono_ms.is_some_and(|at| now.mono_ms >= at.get())
    }

    /// What the rules see of it.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            client_id: &self.client_id,
            username: self.username.as_deref(),
            peer_host: self.peer.ip(),
            cert_common_name: self.common_name.as_deref(),
            zone: ZONE,
            listener: &self.listener,
            client_attrs: self.attributes.as_deref().unwrap_or(NO_ATTRIBUTES),
            is_superuser: self.is_superuser,
        }
    }

    /// How it proved who it is, for the security event log.
    #[must_use]
    pub fn proved_by(&self) -> &'static str {
        if let Some(mechanism) = self.proof.mechanism {
            return mechanism.name();
        }
        match (self.by_scram, self.proof.password_verified, self.proof.certificate.is_some()) {
            (true, ..) => "scram",
            (false, true, true) => "certificate+password",
            (false, true, false) => "password",
            (false, false, true) => "certificate",
            (false, false, false) => "anonymous",
        }
    }

    /// A security event that is about this client. A linked cluster goes by its name.
    #[must_use]
    pub fn event<'a>(&'a self, what: What<'a>) -> SecurityEvent<'a> {
        SecurityEvent {
            what,
            identity: self.bound_to.as_deref().or(self.username.as_deref()),
            method: Some(self.proved_by()),
            source: Some(self.peer),
            client_id: Some(&self.client_id),
            listener: Some(&self.listener),
            description: "",
        }
    }

    /// Whether the rules and confinement see the same in both.
    #[must_use]
    pub fn has_rights_of(&self, other: &Self) -> bool {
        self.is_same_client(other)
            && self.peer.ip() == other.peer.ip()
            && self.common_name == other.common_name
            && self.listener == other.listener
            && self.role == other.role
            && self.attributes == other.attributes
            && self.is_superuser == other.is_superuser
    }

    /// Whether this is the one a session belongs to.
    #[must_use]
    pub fn is_same_client(&self, other: &Self) -> bool {
        self.username == other.username && self.bound_to == other.bound_to
    }
}

const NO_ATTRIBUTES: &BTreeMap<String, String> = &BTreeMap::new();

/// The zone of every client: zones are not configurable yet.
pub const ZONE: &str = "default";

/// The ACL in force: rules and what goes with them. Swapped as a whole.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What is generated in front of the file; none without links.
    pub front: Option<Arc<Front>>,
    /// The compiled file.
    pub rules: Arc<RuleSet>,
    /// The verdict when no rule matches.
    pub no_match: Permission,
    /// What a denial does to the connection.
    pub deny_action: DenyAction,
    /// Rises with every swap, so that cached verdicts can be told from current ones.
    pub generation: u64,
    /// Where the rules came from.
    pub file: Arc<AclFile>,
    /// Rules that are asked beside these and decide nothing.
    pub shadow: Option<Arc<Shadow>>,
}

/// Why something was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// In front of the file: `$LINK/` belongs to links, links to `$LINK/`, and `$SYS` to the broker.
    Confined(Confined),
    /// A rule of the file.
    Rule {
        /// Line of the rule.
        line: u32,
    },
    /// A rule that is generated in front of the file.
    Generated {
        /// Line of the rule in what is generated.
        line: u32,
    },
    /// No rule matched, and `no_match` denies.
    NoMatch,
}

impl Denied {
    /// The value of the `reason` label.
    #[must_use]
    pub fn label(self) -> AclReason {
        match self {
            Self::Confined(
                Confined::ClientListener | Confined::Unbound | Confined::System | Confined::Filter,
            ) => AclReason::ConfinedClient,
            Self::Confined(_) => AclReason::ConfinedLink,
            Self::Rule { .. } | Self::Generated { .. } => AclReason::Rule,
            Self::NoMatch => AclReason::NoMatch,
        }
    }

    /// Whether somebody acted as a linked cluster, or one left its own ground.
    #[must_use]
    pub fn is_forgery(self) -> bool {
        matches!(self, Self::Confined(confined) if !matches!(confined, Confined::System | Confined::Filter))
    }

    /// The name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confined(confined) => confined.name(),
            Self::Rule { .. } => "rule",
            Self::Generated { .. } => "generated_rule",
            Self::NoMatch => "no_match",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confined(confined) => confined.fmt(f),
            Self::Rule { line } => write!(f, "denied by the rule at line {line} of the ACL file"),
            Self::Generated { line } => {
                write!(f, "denied by the rule at line {line} of those generated for links")
            }
            Self::NoMatch => f.write_str("no rule of the ACL file matches, and no_match is deny"),
        }
    }
}

impl Policy {
    /// These rules, with what their file's settings say.
    #[must_use]
    pub fn new(rules: RuleSet, file: Arc<AclFile>) -> Self {
        Self {
            front: None,
            rules: Arc::new(rules),
            no_match: file.no_match,
            deny_action: file.deny_action,
            generation: 0,
            file,
            shadow: None,
        }
    }

    /// Whether this client may do this. Authorisation happens here and nowhere else.
    ///
    /// # Errors
    /// What denied it.
    pub fn authorize(&self, identity: &Identity, request: &Request<'_>) -> Result<(), Denied> {
        self.decide(identity, request).map(|_| ())
    }

    /// The same, with what allowed it.
    ///
    /// # Errors
    /// What denied it.
    pub fn decide(&self, identity: &Identity, request: &Request<'_>) -> Result<DecidedBy, Denied> {
        confine(identity.bound_to.as_deref(), identity.role, request).map_err(Denied::Confined)?;
        let subject = identity.subject();
        let generated =
            self.front.as_ref().and_then(|front| front.rules.authorize_in_front(&subject, request));
        let verdict = generated.unwrap_or_else(|| self.rules.authorize(&subject, request, self.no_match));
        if let (None, Some(shadow)) = (generated, &self.shadow) {
            shadow.compare(&subject, request, verdict);
        }
        match (verdict.permission, verdict.by) {
            (Permission::Allow, by) => Ok(by),
            (Permission::Deny, DecidedBy::Generated { line, .. }) => Err(Denied::Generated { line }),
            (Permission::Deny, DecidedBy::Rule { line, .. }) => Err(Denied::Rule { line }),
            (Permission::Deny, _) => Err(Denied::NoMatch),
        }
    }
}
