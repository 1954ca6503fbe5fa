//! The typed rule language: `{Permission, Condition, Action, Topics}` (`acl-language.md` sections 1 and 2).
//! Plain values; how they are read is `compile`, what they decide is `eval`.

use std::net::IpAddr;

use crate::acl::pattern::Pattern;
use crate::acl::template::Template;
use crate::mqtt::packet::QoS;

/// Whose semantics the file has (`interface.md` section 2, `[authorization] mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Ours: a subscription must be covered by an allow and must not touch a deny; mistakes are load errors.
    #[default]
    Strict,
    /// EMQX's, quirks included.
    Emqx,
}

/// What `{security_profile, …}` in a file sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SecurityProfile {
    /// EMQX's behaviour before 6.3.
    #[default]
    Legacy,
    /// Fails closed.
    Hardened,
}

/// What a rule, or the lack of one, answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// The action may be done.
    Allow,
    /// It may not.
    Deny,
}

/// One rule of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What it answers.
    pub permission: Permission,
    /// For whom.
    pub condition: Condition,
    /// Doing what.
    pub action: Action,
    /// On which topics.
    pub topics: Topics,
    /// Line of its first character, counted from 1.
    pub line: u32,
}

/// Who a rule is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Everybody.
    All,
    /// `{username, …}`; never holds for a client without a username.
    Username(TextMatch),
    /// `{clientid, …}`
    ClientId(TextMatch),
    /// `{client_attr, Name, …}`; never holds when the attribute is absent.
    ClientAttr(Box<str>, TextMatch),
    /// `{zone, …}`
    Zone(TextMatch),
    /// `{listener, …}`, against `type:name`.
    Listener(TextMatch),
    /// `{ipaddr, …}`
    Address(Block),
    /// `{ipaddrs, […]}`
    Addresses(Vec<Block>),
    /// `{security_profile, …}`
    Profile(SecurityProfile),
    /// `{'and', […]}`: true when empty.
    And(Vec<Self>),
    /// `{'or', […]}`: false when empty.
    Or(Vec<Self>),
}

/// How a text is compared, byte for byte.
#[derive(Debug, Clone, PartialEq)]
pub enum TextMatch {
    /// Equal.
    Exact(Box<str>),
    /// The expression is found in it.
    Regex(Pattern),
    /// Accepted by EMQX but equal to no text (`{zone, 1}`); the number as written.
    Never(i64),
}

impl TextMatch {
    /// Whether `text` satisfies the comparison.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *text,
            Self::Regex(pattern) => pattern.is_match(text),
            Self::Never(_) => false,
        }
    }
}

/// An address block: CIDR, host bits already masked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// The address as written.
    pub address: IpAddr,
    /// The length as written; full length for a bare address.
    pub length: u8,
    /// The length that is compared: EMQX takes an IPv6 `/48` for `/32` (`acl-language.md` section 8 item 10).
    pub effective: u8,
}

impl Block {
    /// Whether `peer` lies in the block. IPv4-mapped IPv6 addresses are IPv6 (`acl-language.md` section 2).
    #[must_use]
    pub fn holds(&self, peer: IpAddr) -> bool {
        match (self.address, peer) {
            (IpAddr::V4(net), IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(self.effective.min(32));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                (net.to_bits() ^ peer.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(peer)) => {
                let shift = 128 - u32::from(self.effective.min(128));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                (net.to_bits() ^ peer.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// What is done: kinds, QoS and retain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Action {
    /// PUBLISH.
    pub publish: bool,
    /// SUBSCRIBE.
    pub subscribe: bool,
    /// Which QoS.
    pub qos: QosSet,
    /// `Some` compares the RETAIN flag of a publish.
    pub retain: Option<bool>,
}

impl Action {
    /// `all`: both kinds with any options.
    pub const ALL: Self = Self { publish: true, subscribe: true, qos: QosSet::ALL, retain: None };

    /// Whether a publish with these options is meant.
    #[must_use]
    pub fn holds_publish(self, qos: QoS, retain: bool) -> bool {
        self.publish && self.qos.holds(qos) && self.retain.is_none_or(|wanted| wanted == retain)
    }

    /// Whether a subscribe with this QoS is meant; `retain` does not concern it.
    #[must_use]
    pub fn holds_subscribe(self, qos: QoS) -> bool {
        self.subscribe && self.qos.holds(qos)
    }
}

/// A set of QoS values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QosSet(u8);

impl QosSet {
    /// 0, 1 and 2.
    pub const ALL: Self = Self(0b111);
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The set with `qos` added.
    #[must_use]
    pub fn with(self, qos: QoS) -> Self {
        Self(self.0 | 1 << (qos as u8))
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `qos` is in the set.
    #[must_use]
    pub fn holds(self, qos: QoS) -> bool {
        self.0 & 1 << (qos as u8) != 0
    }

    /// Whether every element of `other` is in the set.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

/// Which topics a rule is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Topics {
    /// Everything, `$` topics included.
    All,
    /// Any of these; an empty list covers nothing.
    List(Vec<TopicMatch>),
}

/// One entry of a topic list.
#[derive(Debug, Clone, PartialEq)]
pub enum TopicMatch {
    /// `{eq, …}`: the same levels, wildcards and placeholders taken literally.
    Eq(Box<str>),
    /// A filter without placeholders.
    Filter {
        /// As written.
        source: Box<str>,
        /// With `${$}` unescaped.
        filter: Box<str>,
    },
    /// A filter with placeholders, rendered per client.
    Template(Template),
    /// A filter that EMQX accepts and that no valid topic matches (`a#`), as written.
    Never(Box<str>),
}
