//! First match wins: (client, action, topic) to a verdict and the rule that decided (`acl-language.md` section 3).
//!
//! A check allocates nothing; of a large file it asks only the rules that its names and topic lead to
//! (`index.rs`). Not here: the confinement of links ([`mod@crate::acl::confine`]), which the broker asks
//! first, and the publish cache, which is the broker's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::acl::cover;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::index::Index;
use crate::acl::rule::Condition;
use crate::acl::rule::Mode;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::SecurityProfile;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;
use crate::acl::template::Rendered;
use crate::acl::template::Template;
use crate::acl::template::Unfit;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;

/// What the rules see of a client.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Client Identifier after assignment by the Server.
    pub client_id: &'a str,
    /// User Name of the session.
    pub username: Option<&'a str>,
    /// Peer address, from the PROXY header where that is trusted. A client of a Unix domain socket has none, and no
    /// block of addresses holds it.
    pub peer_host: Option<IpAddr>,
    /// Common name of the verified client certificate.
    pub cert_common_name: Option<&'a str>,
    /// Zone.
    pub zone: &'a str,
    /// `type:name` of the listener.
    pub listener: &'a str,
    /// Attributes given by authentication.
    pub client_attrs: &'a BTreeMap<String, String>,
    /// Skips every rule of the file, but not the confinement of `$LINK/`.
    pub is_superuser: bool,
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// PUBLISH, or a Will Message when it fires.
    Publish {
        /// Topic Name with its alias resolved.
        topic: &'a str,
        /// QoS.
        qos: QoS,
        /// RETAIN.
        retain: bool,
    },
    /// One Topic Filter of a SUBSCRIBE.
    Subscribe {
        /// As the client wrote it, `$share/…`, `$queue/…` and `$exclusive/…` included.
        filter: &'a str,
        /// Requested QoS.
        qos: QoS,
    },
}

impl<'a> Request<'a> {
    /// The Topic Name or Topic Filter as written.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        match *self {
            Self::Publish { topic, .. } => topic,
            Self::Subscribe { filter, .. } => filter,
        }
    }

    /// The topic that the rules see (`acl-language.md` section 2), or `None` when a prefix is malformed.
    #[must_use]
    pub fn effective_topic(&self) -> Option<&'a str> {
        let mut topic = self.topic();
        if matches!(self, Self::Subscribe { .. }) {
            if let Some(rest) = topic.strip_prefix("$share/") {
                topic = rest.split_once('/').filter(|(name, _)| !name.is_empty())?.1;
            } else if let Some(rest) = topic.strip_prefix("$queue/") {
                topic = rest;
            }
            topic = topic.strip_prefix("$exclusive/").unwrap_or(topic);
            // A second prefix would be checked as something else than it is subscribed as.
            if ["$share/", "$queue/", "$exclusive/"].iter().any(|prefix| topic.starts_with(prefix)) {
                return None;
            }
        }
        if let Some(rest) = topic.strip_prefix("$delayed/") {
            topic = rest.split_once('/')?.1;
        }
        (!topic.is_empty()).then_some(topic)
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Allowed or not.
    pub permission: Permission,
    /// Why.
    pub by: DecidedBy,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    /// A rule of the file.
    Rule {
        /// Counted from 0.
        index: usize,
        /// Line of the rule, counted from 1.
        line: u32,
    },
    /// A rule that is generated in front of the file.
    Generated {
        /// Counted from 0.
        index: usize,
        /// Line of the rule in what is generated, counted from 1.
        line: u32,
    },
    /// No rule matched: `authorization.no_match`.
    NoMatch,
    /// The client is a superuser.
    Superuser,
    /// `$share/`, `$queue/`, `$exclusive/` or `$delayed/` without what must follow, or one behind another.
    Malformed,
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { index, line } => write!(f, "rule {} (line {line})", index + 1),
            Self::Generated { index, line } => write!(f, "generated rule {} (line {line})", index + 1),
            Self::NoMatch => f.write_str("no_match"),
            Self::Superuser => f.write_str("superuser"),
            Self::Malformed => f.write_str("malformed topic prefix"),
        }
    }
}

/// The rules of one file, compiled. Shared between threads as it is.
#[derive(Debug, Clone)]
pub struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) mode: Mode,
    pub(crate) profile: SecurityProfile,
    pub(crate) warnings: Vec<Diagnostic>,
    index: Option<Box<Index>>,
}

/// How one part of a rule answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// EMQX: a placeholder could not be rendered, which ends the rule (or the check) at once.
    Unrenderable,
}

impl From<bool> for Match {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl RuleSet {
    pub(crate) fn new(
        rules: Vec<Rule>,
        mode: Mode,
        profile: SecurityProfile,
        warnings: Vec<Diagnostic>,
    ) -> Self {
        let index = Index::build(&rules, mode).map(Box::new);
        Self { rules, mode, profile, warnings, index }
    }

    /// The single rule `{deny, all}`: what a broker starts with that must not start open.
    #[must_use]
    pub fn deny_all() -> Self {
        let rule = Rule {
            permission: Permission::Deny,
            condition: Condition::All,
            action: crate::acl::rule::Action::ALL,
            topics: Topics::All,
            line: 1,
        };
        Self::new(vec![rule], Mode::Strict, SecurityProfile::Legacy, Vec::new())
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule, so that `no_match` decides everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules every check may ask: those that neither names nor topics lead to.
    #[must_use]
    pub fn asked_always(&self) -> usize {
        self.index.as_ref().map_or(self.rules.len(), |index| index.always())
    }

    /// The rules in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whose semantics the file has.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What EMQX accepts and strict mode refuses; always empty in strict mode.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The verdict of the first rule that matches.
    #[must_use]
    pub fn authorize(&self, client: &Subject<'_>, request: &Request<'_>, no_match: Permission) -> Verdict {
        let Some(topic) = request.effective_topic() else {
            return Verdict { permission: Permission::Deny, by: DecidedBy::Malformed };
        };
        if client.is_superuser {
            return Verdict { permission: Permission::Allow, by: DecidedBy::Superuser };
        }
        let decided = match &self.index {
            Some(index) => index
                .candidates(self.mode, client, request, topic)
                .find_map(|number| self.ask(number, client, request, topic)),
            None => (0..self.rules.len()).find_map(|number| self.ask(number, client, request, topic)),
        };
        decided.unwrap_or(Verdict { permission: no_match, by: DecidedBy::NoMatch })
    }

    /// The verdict of rules that are generated in front of a file, if one of them matches.
    #[must_use]
    pub fn authorize_in_front(&self, client: &Subject<'_>, request: &Request<'_>) -> Option<Verdict> {
        let verdict = self.authorize(client, request, Permission::Deny);
        match verdict.by {
            DecidedBy::Rule { index, line } => {
                Some(Verdict { by: DecidedBy::Generated { index, line }, ..verdict })
            }
            _ => None,
        }
    }

    /// The verdict of the rules in front, or else of this file.
    #[must_use]
    pub fn authorize_behind(
        &self,
        front: Option<&Self>,
        client: &Subject<'_>,
        request: &Request<'_>,
        no_match: Permission,
    ) -> Verdict {
        let decided = front.and_then(|front| front.authorize_in_front(client, request));
        decided.unwrap_or_else(|| self.authorize(client, request, no_match))
    }

    /// What the rule of this number decides, if anything.
    pub(super) fn ask(
        &self,
        index: usize,
        client: &Subject<'_>,
        request: &Request<'_>,
        topic: &str,
    ) -> Option<Verdict> {
        let rule = self.rules.get(index)?;
        let permission = match self.rule_matches(rule, client, request, topic) {
            Match::Yes => rule.permission,
            Match::Unrenderable if self.profile == SecurityProfile::Hardened => Permission::Deny,
            Match::No | Match::Unrenderable => return None,
        };
        Some(Verdict { permission, by: DecidedBy::Rule { index, line: rule.line } })
    }

    fn rule_matches(&self, rule: &Rule, client: &Subject<'_>, request: &Request<'_>, topic: &str) -> Match {
        let action = match *request {
            Request::Publish { qos, retain, .. } => rule.action.holds_publish(qos, retain),
            Request::Subscribe { qos, .. } => rule.action.holds_subscribe(qos),
        };
        if !action || !condition_holds(&rule.condition, client, self.profile) {
            return Match::No;
        }
        let Topics::List(entries) = &rule.topics else {
            return Match::Yes;
        };
        for entry in entries {
            match self.topic_matches(entry, rule.permission, client, request, topic) {
                Match::No => {}
                decided => return decided,
            }
        }
        Match::No
    }

    fn topic_matches(
        &self,
        entry: &TopicMatch,
        permission: Permission,
        client: &Subject<'_>,
        request: &Request<'_>,
        topic: &str,
    ) -> Match {
        match entry {
            TopicMatch::Eq(wanted) => (**wanted == *topic).into(),
            TopicMatch::Never(_) => Match::No,
            TopicMatch::Filter { filter, .. } => {
                self.filter_matches(filter, permission, request, topic).into()
            }
            TopicMatch::Template(template) => match self.render(template, permission, client) {
                Some(filter) => self.filter_matches(filter.as_str(), permission, request, topic).into(),
                None if self.mode == Mode::Emqx => Match::Unrenderable,
                None => Match::No,
            },
        }
    }

    pub(super) fn render(
        &self,
        template: &Template,
        permission: Permission,
        client: &Subject<'_>,
    ) -> Option<Rendered> {
        let unfit = match (self.mode, permission) {
            (Mode::Emqx, _) => Unfit::Emqx,
            (Mode::Strict, Permission::Allow) => Unfit::Refuse,
            (Mode::Strict, Permission::Deny) => Unfit::Widen,
        };
        template.render(client, unfit)
    }

    /// EMQX takes the filter of a SUBSCRIBE as if it were a topic; strict mode asks what it can reach.
    fn filter_matches(
        &self,
        filter: &str,
        permission: Permission,
        request: &Request<'_>,
        topic: &str,
    ) -> bool {
        match (request, self.mode, permission) {
            (Request::Publish { .. }, _, _) | (_, Mode::Emqx, _) => topic::matches(filter, topic),
            (_, Mode::Strict, Permission::Allow) => cover::covers(filter, topic),
            (_, Mode::Strict, Permission::Deny) => cover::overlaps(filter, topic),
        }
    }
}

/// Whether `condition` holds for `client` in this profile.
pub(crate) fn condition_holds(condition: &Condition, client: &Subject<'_>, profile: SecurityProfile) -> bool {
    match condition {
        Condition::All => true,
        Condition::Username(matcher) => client.username.is_some_and(|username| matcher.holds(username)),
        Condition::ClientId(matcher) => matcher.holds(client.client_id),
        Condition::ClientAttr(name, matcher) => {
            client.client_attrs.get(&**name).is_some_and(|value| matcher.holds(value))
        }
        Condition::Zone(matcher) => matcher.holds(client.zone),
        Condition::Listener(matcher) => matcher.holds(client.listener),
        Condition::Address(block) => client.peer_host.is_some_and(|peer| block.holds(peer)),
        Condition::Addresses(blocks) => {
            client.peer_host.is_some_and(|peer| blocks.iter().any(|block| block.holds(peer)))
        }
        Condition::Profile(wanted) => *wanted == profile,
        Condition::And(parts) => parts.iter().all(|part| condition_holds(part, client, profile)),
        Condition::Or(parts) => parts.iter().any(|part| condition_holds(part, client, profile)),
    }
}
