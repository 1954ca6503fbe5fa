//! One thing that happened, as a trace shows it, and which traces want to see it. Values only: no I/O, no locks.
//!
//! An event names clients, topics, sizes and reasons. It never holds a payload, a password or a property.

use serde::Serialize;

use crate::acl::eval::DecidedBy;
use crate::broker::identity::Denied;
use crate::broker::identity::Identity;
use crate::config::settings::Network;
use crate::mqtt::packet::QoS;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::mqtt::topic::ParsedFilter;
use crate::mqtt::topic::TopicError;
use crate::net::address::PeerAddr;
use crate::session::message::Publication;
use crate::time;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A CONNECT was accepted.
    Connect,
    /// A connection was turned away.
    Refused,
    /// A connection ended.
    Disconnect,
    /// A Topic Filter of a SUBSCRIBE was answered.
    Subscribe,
    /// A Topic Filter of an UNSUBSCRIBE was answered.
    Unsubscribe,
    /// The ACL was asked.
    Acl,
    /// A message came in.
    Publish,
    /// A message went into a client's output.
    Delivered,
    /// A message waits in a client's queue.
    Queued,
    /// A message went to a linked cluster.
    Forwarded,
    /// A message went no further.
    Dropped,
}

/// A client that an event is about.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// Client Identifier; empty if none is known yet.
    pub client_id: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Remote address.
    pub peer: PeerAddr,
}

impl<'a> Party<'a> {
    /// A client that was accepted.
    #[must_use]
    pub fn of(identity: &'a Identity) -> Self {
        Self { client_id: &identity.client_id, username: identity.username.as_deref(), peer: identity.peer }
    }
}

/// What an event is about, besides clients.
#[derive(Debug, Clone, Copy)]
pub enum Topic<'a> {
    /// A Topic Name.
    Name(&'a str),
    /// A Topic Filter as its client wrote it.
    Filter(&'a str),
}

impl<'a> Topic<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Name(text) | Self::Filter(text) => text,
        }
    }

    /// Whether a filter of a trace means this: a name that it matches, a filter that has a topic in common with it.
    fn is_meant_by(self, filter: &str) -> bool {
        match self {
            Self::Name(name) => topic::matches(filter, name),
            Self::Filter(text) => {
                let plain = ParsedFilter::parse(text).map_or(text, |parsed| parsed.filter);
                topic::intersects(filter, plain)
            }
        }
    }
}

/// Facts of a message that may be shown.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// QoS as published, or as asked for.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Length of the payload.
    pub payload_bytes: usize,
}

impl Facts {
    /// Of a message.
    #[must_use]
    pub fn of(publication: &Publication<'_>) -> Self {
        Self { qos: publication.qos, retain: publication.retain, payload_bytes: publication.payload.len() }
    }
}

/// What the ACL said about what.
#[derive(Debug, Clone, Copy)]
pub struct AclVerdict {
    /// `publish` or `subscribe`.
    pub action: &'static str,
    /// The answer and who gave it.
    pub verdict: Result<DecidedBy, Denied>,
}

/// One event; what does not apply is absent.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// What happened.
    pub kind: Kind,
    /// To or by whom.
    pub client: Option<Party<'a>>,
    /// For a message on its way to `client` or a link: the client that published it.
    pub from: Option<Party<'a>>,
    /// The linked cluster that a connection belongs to, or that a message came from or goes to.
    pub link: Option<&'a str>,
    /// Listener.
    pub listener: Option<&'a str>,
    /// Topic.
    pub topic: Option<Topic<'a>>,
    /// The message.
    pub facts: Option<Facts>,
    /// The ACL's answer.
    pub acl: Option<AclVerdict>,
    /// Why.
    pub reason: Option<&'a str>,
    /// The Reason Code that was sent or received.
    pub reason_code: Option<ReasonCode>,
    /// How many messages, where they are not told one by one.
    pub messages: Option<u64>,
}

impl<'a> Event<'a> {
    /// Nothing but what and when.
    #[must_use]
    pub fn new(kind: Kind, unix_ms: u64) -> Self {
        Self {
            unix_ms,
            kind,
            client: None,
            from: None,
            link: None,
            listener: None,
            topic: None,
            facts: None,
            acl: None,
            reason: None,
            reason_code: None,
            messages: None,
        }
    }

    /// The same, about this client.
    #[must_use]
    pub fn by(self, identity: &'a Identity) -> Self {
        Self {
            client: Some(Party::of(identity)),
            link: identity.bound_to.as_deref(),
            listener: Some(&identity.listener),
            ..self
        }
    }

    /// One line of JSON.
    #[must_use]
    pub fn line(&self) -> String {
        // Strings, numbers and booleans: there is nothing that could not be written.
        serde_json::to_string(&Shown::of(self)).unwrap_or_default() + "\n"
    }
}

/// The fields of a line, in their order. Names are those of EMQX's API where it has them.
#[derive(Serialize)]
struct Shown<'a> {
    time: String,
    event: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    clientid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peername: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_clientid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permission: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<u8>,
}

impl<'a> Shown<'a> {
    fn of(event: &Event<'a>) -> Self {
        let (permission, rule_line, by) = event.acl.map_or((None, None, None), |acl| match acl.verdict {
            Ok(DecidedBy::Rule { line, .. }) => (Some("allow"), Some(line), Some("rule")),
            Ok(DecidedBy::Generated { line, .. }) => (Some("allow"), Some(line), Some("generated_rule")),
            Ok(DecidedBy::Superuser) => (Some("allow"), None, Some("superuser")),
            Ok(DecidedBy::NoMatch | DecidedBy::Malformed) => (Some("allow"), None, Some("no_match")),
            Err(Denied::Rule { line }) => (Some("deny"), Some(line), Some("rule")),
            Err(Denied::Generated { line }) => (Some("deny"), Some(line), Some("generated_rule")),
            Err(denied) => (Some("deny"), None, Some(denied.name())),
        });
        Self {
            time: time::rfc3339(event.unix_ms),
            event: event.kind,
            clientid: event.client.map(|party| party.client_id).filter(|id| !id.is_empty()),
            username: event.client.and_then(|party| party.username),
            peername: event.client.map(|party| party.peer.to_string()),
            listener: event.listener,
            link: event.link,
            from_clientid: event.from.map(|party| party.client_id),
            topic: event.topic.map(Topic::text),
            qos: event.facts.map(|facts| facts.qos as u8),
            retain: event.facts.map(|facts| facts.retain),
            payload_bytes: event.facts.map(|facts| facts.payload_bytes),
            messages: event.messages,
            action: event.acl.map(|acl| acl.action),
            permission,
            rule_line,
            reason: event.reason.or(by),
            reason_code: event.reason_code.map(ReasonCode::as_u8),
        }
    }
}

/// Why a filter is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No Topic Filter.
    #[error("topic: {0}")]
    Topic(#[from] TopicError),
    /// No address.
    #[error("address: {0}")]
    Address(String),
}

/// Which events a trace shows: all that meet every condition it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    client: Option<Box<str>>,
    topic: Option<Box<str>>,
    address: Option<Network>,
    link: Option<Box<str>>,
}

impl Filter {
    /// From what an operator wrote.
    ///
    /// # Errors
    /// Which condition is none.
    pub fn parse(
        client: Option<&str>,
        topic: Option<&str>,
        address: Option<&str>,
        link: Option<&str>,
    ) -> Result<Self, FilterError> {
        if let Some(filter) = topic {
            topic::check_filter(filter)?;
        }
        Ok(Self {
            client: client.map(Box::from),
            topic: topic.map(Box::from),
            address: address.map(str::parse).transpose().map_err(FilterError::Address)?,
            link: link.map(Box::from),
        })
    }

    /// Whether a message of this topic may be of interest at all.
    #[must_use]
    pub fn may_want(&self, name: &str) -> bool {
        self.topic.as_deref().is_none_or(|filter| topic::matches(filter, name))
    }

    /// Whether the event is shown. Client and address are conditions on one and the same client: the one it happened
    /// to, or the one whose message it was. Without a topic there is none that a filter could mean.
    #[must_use]
    pub fn wants(&self, event: &Event<'_>) -> bool {
        let anybody = self.client.is_none() && self.address.is_none();
        let means = |party: &Party<'_>| {
            self.client.as_deref().is_none_or(|id| id == party.client_id)
                && self.address.is_none_or(|block| party.peer.ip().is_some_and(|ip| block.holds(ip)))
        };
        (anybody || event.client.iter().chain(&event.from).any(means))
            && self.link.as_deref().is_none_or(|link| event.link == Some(link))
            && self
                .topic
                .as_deref()
                .is_none_or(|filter| event.topic.is_some_and(|topic| topic.is_meant_by(filter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party<'a>(client_id: &'a str, peer: &str) -> Party<'a> {
        Party { client_id, username: None, peer: PeerAddr::Ip(peer.parse().unwrap()) }
    }

    fn filter(client: &str, topic: &str, address: &str, link: &str) -> Filter {
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        let own = |text: &str| some(Box::leak(text.to_owned().into_boxed_str()));
        Filter::parse(own(client), own(topic), own(address), own(link)).unwrap()
    }

    fn delivery() -> Event<'static> {
        Event {
            client: Some(party("receiver", "10.0.0.1:5")),
            from: Some(party("sender", "192.0.2.7:6")),
            topic: Some(Topic::Name("plant/1/state")),
            ..Event::new(Kind::Delivered, 0)
        }
    }

    #[test]
    fn every_condition_must_hold_and_of_one_client() {
        let table = [
            ("", "", "", "", true),
            ("receiver", "", "", "", true),
            ("sender", "", "", "", true),
            ("send", "", "", "", false),
            ("", "", "10.0.0.0/8", "", true),
            ("", "", "192.0.2.7", "", true),
            ("", "", "192.0.2.8", "", false),
            ("receiver", "", "192.0.2.7", "", false),
            ("sender", "", "192.0.2.7", "", true),
            ("", "plant/+/state", "", "", true),
            ("", "plant/#", "", "", true),
            ("", "plant/2/state", "", "", false),
            ("sender", "other/#", "", "", false),
            ("", "", "", "B", false),
        ];
        for (client, topic, address, link, wanted) in table {
            let filter = filter(client, topic, address, link);
            assert_eq!(filter.wants(&delivery()), wanted, "{filter:?}");
        }
    }

    #[test]
    fn a_subscription_is_meant_by_a_filter_that_shares_a_topic_with_it() {
        let subscribe = |text| Event { topic: Some(Topic::Filter(text)), ..Event::new(Kind::Subscribe, 0) };
        for (text, wanted) in [("plant/#", true), ("+/1/state", true), ("#", true), ("hall/#", false)] {
            assert_eq!(filter("", "plant/1/+", "", "").wants(&subscribe(text)), wanted, "{text}");
        }
        assert!(filter("", "plant/1/+", "", "").wants(&subscribe("$share/g/plant/#")));
        // What has no topic is not about one.
        assert!(!filter("", "#", "", "").wants(&Event::new(Kind::Connect, 0)));
    }

    #[test]
    fn a_link_is_met_by_its_events() {
        let event = Event { link: Some("B"), ..Event::new(Kind::Forwarded, 0) };
        assert!(filter("", "", "", "B").wants(&event));
        assert!(!filter("", "", "", "C").wants(&event));
    }

    #[test]
    fn what_is_no_condition() {
        assert!(matches!(Filter::parse(None, Some("a/#/b"), None, None), Err(FilterError::Topic(_))));
        for address in ["", "10.0.0.1/8", "host", "10.0.0.0/33"] {
            let parsed = Filter::parse(None, None, Some(address), None);
            assert!(matches!(parsed, Err(FilterError::Address(_))), "{address}");
        }
    }

    #[test]
    fn a_line_is_json_with_what_applies() {
        let event = Event {
            facts: Some(Facts { qos: QoS::AtLeastOnce, retain: false, payload_bytes: 3 }),
            ..delivery()
        };
        let expected = "{\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"delivered\",\"clientid\":\"receiver\",\
                        \"peername\":\"10.0.0.1:5\",\"from_clientid\":\"sender\",\"topic\":\"plant/1/state\",\
                        \"qos\":1,\"retain\":false,\"payload_bytes\":3}\n";
        assert_eq!(event.line(), expected);
        let verdict = Err(Denied::Rule { line: 7 });
        let event = Event {
            acl: Some(AclVerdict { action: "publish", verdict }),
            ..Event::new(Kind::Acl, 1_700_000_000_123)
        };
        let expected = "{\"time\":\"2023-11-14T22:13:20.123Z\",\"event\":\"acl\",\"action\":\"publish\",\
                        \"permission\":\"deny\",\"rule_line\":7,\"reason\":\"rule\"}\n";
        assert_eq!(event.line(), expected);
    }
}
