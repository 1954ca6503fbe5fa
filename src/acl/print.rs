//! Rules as the text of an ACL file: what is printed compiles to the same rules (`acl-language.md` section 10).

use std::fmt;
use std::fmt::Write as _;

use crate::acl::rule::Action;
use crate::acl::rule::Block;
use crate::acl::rule::Condition;
use crate::acl::rule::Permission;
use crate::acl::rule::QosSet;
use crate::acl::rule::Rule;
use crate::acl::rule::SecurityProfile;
use crate::acl::rule::TextMatch;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;
use crate::mqtt::packet::QoS;

/// A text as an Erlang string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\x{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Items separated by commas, in square brackets.
fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut one: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_char('[')?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        one(f, item)?;
    }
    f.write_char(']')
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.action == Action::ALL && self.topics == Topics::All;
        match &self.condition {
            condition @ (Condition::All | Condition::Profile(_)) if whole => {
                write!(f, "{{{}, {condition}}}.", self.permission)
            }
            condition => write!(f, "{{{}, {condition}, {}, {}}}.", self.permission, self.action, self.topics),
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for SecurityProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Hardened => "hardened",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Username(matcher) => write!(f, "{{username, {matcher}}}"),
            Self::ClientId(matcher) => write!(f, "{{clientid, {matcher}}}"),
            Self::ClientAttr(name, matcher) => write!(f, "{{client_attr, {}, {matcher}}}", Quoted(name)),
            Self::Zone(matcher) => write!(f, "{{zone, {matcher}}}"),
            Self::Listener(matcher) => write!(f, "{{listener, {matcher}}}"),
            Self::Address(block) => write!(f, "{{ipaddr, {block}}}"),
            Self::Addresses(blocks) => {
                f.write_str("{ipaddrs, ")?;
                list(f, blocks, |f, block| block.fmt(f))?;
                f.write_char('}')
            }
            Self::Profile(profile) => write!(f, "{{security_profile, {profile}}}"),
            Self::And(parts) => {
                f.write_str("{'and', ")?;
                list(f, parts, |f, part| part.fmt(f))?;
                f.write_char('}')
            }
            Self::Or(parts) => {
                f.write_str("{'or', ")?;
                list(f, parts, |f, part| part.fmt(f))?;
                f.write_char('}')
            }
        }
    }
}

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => Quoted(text).fmt(f),
            Self::Regex(pattern) => write!(f, "{{re, {}}}", Quoted(pattern.source())),
            Self::Never(number) => number.fmt(f),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}/{}\"", self.address, self.length)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.publish, self.subscribe) {
            (true, false) => "publish",
            (false, true) => "subscribe",
            _ => "all",
        };
        if self.qos == QosSet::ALL && self.retain.is_none() {
            return f.write_str(kind);
        }
        write!(f, "{{{kind}, [")?;
        if self.qos != QosSet::ALL {
            let held: Vec<u8> =
                (0..=2).filter(|&q| QoS::from_u8(q).is_some_and(|q| self.qos.holds(q))).collect();
            f.write_str("{qos, ")?;
            list(f, &held, |f, qos| qos.fmt(f))?;
            f.write_str(if self.retain.is_some() { "}, " } else { "}" })?;
        }
        if let Some(retain) = self.retain {
            write!(f, "{{retain, {retain}}}")?;
        }
        f.write_str("]}")
    }
}

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::List(entries) => list(f, entries, |f, entry| entry.fmt(f)),
        }
    }
}

impl fmt::Display for TopicMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eq(text) => write!(f, "{{eq, {}}}", Quoted(text)),
            Self::Filter { source, .. } | Self::Never(source) => Quoted(source).fmt(f),
            Self::Template(template) => Quoted(template.source()).fmt(f),
        }
    }
}
