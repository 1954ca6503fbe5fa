//! Who a rule is about: conditions, matchers, address blocks.

use std::net::IpAddr;

use crate::acl::compile::Checked;
use crate::acl::compile::Compiler;
use crate::acl::compile::nearest;
use crate::acl::diagnostic::Code;
use crate::acl::rule::Block;
use crate::acl::rule::Condition;
use crate::acl::rule::Mode;
use crate::acl::rule::SecurityProfile;
use crate::acl::rule::TextMatch;
use crate::acl::term::Term;
use crate::acl::term::TermKind;

const NAMES: [&str; 12] = [
    "username",
    "user",
    "clientid",
    "client",
    "client_attr",
    "zone",
    "listener",
    "ipaddr",
    "ipaddrs",
    "security_profile",
    "and",
    "or",
];
/// What people write who know other brokers.
const MEANT: [(&str, &str); 4] =
    [("client_id", "clientid"), ("peerhost", "ipaddr"), ("ip", "ipaddr"), ("user_name", "username")];

impl Compiler<'_> {
    pub(super) fn condition(&mut self, term: &Term) -> Checked<Condition> {
        let items = match &term.kind {
            TermKind::Atom(name) if name == "all" => return Some(Condition::All),
            TermKind::Tuple(items) => items.as_slice(),
            _ => {
                return self.error(
                    Code::E303,
                    term,
                    "not a condition: `all` or a tuple such as `{clientid, \"a\"}`",
                );
            }
        };
        let Some(name) = items.first() else {
            return self.error(Code::E303, term, "an empty tuple is not a condition");
        };
        let TermKind::Atom(kind) = &name.kind else {
            return self.error(Code::E303, name, "a condition begins with its name, such as `clientid`");
        };
        match (kind.as_str(), &items[1..]) {
            ("username" | "user", [value]) => self.matcher(value).map(Condition::Username),
            ("clientid" | "client", [value]) => self.matcher(value).map(Condition::ClientId),
            ("client_attr", [attribute, value]) => self.attribute(attribute, value),
            ("zone", [value]) => self.numbered_matcher(value).map(Condition::Zone),
            ("listener", [value]) => self.numbered_matcher(value).map(Condition::Listener),
            ("ipaddr", [value]) => self.block(value).map(Condition::Address),
            ("ipaddrs", [value]) => self.blocks(value).map(Condition::Addresses),
            ("security_profile", [value]) => self.profile(value).map(Condition::Profile),
            ("and", [value]) => self.parts(value, "and").map(Condition::And),
            ("or", [value]) => self.parts(value, "or").map(Condition::Or),
            ("client_attr", _) => {
                self.error(Code::E303, term, "an attribute condition is `{client_attr, Name, Value}`")
            }
            (known, _) if NAMES.contains(&known) => {
                self.error(Code::E303, term, format!("`{known}` takes one value: `{{{known}, …}}`"))
            }
            ("not", _) => {
                self.error(Code::E303, name, "there is no negation; put a rule in front of this one")
            }
            (unknown, _) => {
                let meant = nearest(unknown, &NAMES, &MEANT);
                self.error(Code::E303, name, format!("`{unknown}` is not a condition{meant}"))
            }
        }
    }

    fn parts(&mut self, term: &Term, name: &str) -> Checked<Vec<Condition>> {
        let TermKind::List(items) = &term.kind else {
            return self.error(Code::E303, term, format!("`'{name}'` takes a list of conditions"));
        };
        if items.is_empty() {
            let value = if name == "and" { "always true" } else { "never true" };
            self.tolerated(Code::E213, term.span, format!("an empty `'{name}'` is {value}"))?;
        }
        let parts: Vec<_> = items.iter().map(|item| self.condition(item)).collect();
        parts.into_iter().collect()
    }

    fn attribute(&mut self, name: &Term, value: &Term) -> Checked<Condition> {
        let matcher = self.matcher(value);
        match self.text(name)? {
            Ok(name) => Some(Condition::ClientAttr(name.into(), matcher?)),
            Err(()) => self.error(Code::E303, name, "the name of an attribute is a text"),
        }
    }

    fn matcher(&mut self, term: &Term) -> Checked<TextMatch> {
        if let TermKind::Tuple(items) = &term.kind {
            return match items.as_slice() {
                [name, pattern] if name.kind == TermKind::Atom("re".to_owned()) => {
                    self.pattern(pattern).map(TextMatch::Regex)
                }
                _ => self.error(Code::E302, term, "not a matcher; an expression is written `{re, \"…\"}`"),
            };
        }
        match self.text(term)? {
            Ok(text) => Some(TextMatch::Exact(text.into())),
            Err(()) => self.error(Code::E302, term, "not a matcher: a text or `{re, \"…\"}`"),
        }
    }

    /// EMQX lets a number stand for a zone or listener; it equals none.
    fn numbered_matcher(&mut self, term: &Term) -> Checked<TextMatch> {
        match term.kind {
            TermKind::Integer(number) => {
                self.tolerated(Code::E302, term.span, "a number never matches: write a text")?;
                Some(TextMatch::Never(number))
            }
            _ => self.matcher(term),
        }
    }

    fn profile(&mut self, term: &Term) -> Checked<SecurityProfile> {
        match &term.kind {
            TermKind::Atom(name) if name == "legacy" => Some(SecurityProfile::Legacy),
            TermKind::Atom(name) if name == "hardened" => Some(SecurityProfile::Hardened),
            TermKind::Atom(name) => {
                let meant = nearest(name, &["legacy", "hardened"], &[]);
                self.error(Code::E303, term, format!("`{name}` is not a security profile{meant}"))
            }
            _ => self.error(Code::E303, term, "a security profile is `legacy` or `hardened`"),
        }
    }

    fn blocks(&mut self, term: &Term) -> Checked<Vec<Block>> {
        let TermKind::List(items) = &term.kind else {
            return self.error(Code::E304, term, "`ipaddrs` takes a list of strings: `[\"10.0.0.0/8\"]`");
        };
        if items.is_empty() {
            self.tolerated(Code::E213, term.span, "an empty list of addresses never matches")?;
        }
        let blocks: Vec<_> = items.iter().map(|item| self.block(item)).collect();
        blocks.into_iter().collect()
    }

    fn block(&mut self, term: &Term) -> Checked<Block> {
        let TermKind::String(text) = &term.kind else {
            return self.error(Code::E304, term, "an address is a string: `\"10.0.0.0/8\"`");
        };
        match parse_block(text, self.options.mode) {
            Ok(block) => Some(block),
            Err(message) => self.error(Code::E304, term, message),
        }
    }
}

fn parse_block(text: &str, mode: Mode) -> Result<Block, String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
    let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => full,
        Some(length) => Some(length)
            .filter(|length| !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|length| length.parse::<u8>().ok())
            .filter(|length| *length <= full)
            .ok_or_else(|| format!("`{length}` is not a prefix length: 0 to {full}"))?,
    };
    let quirk = mode == Mode::Emqx && address.is_ipv6() && length == 48;
    Ok(Block { address, length, effective: if quirk { 32 } else { length } })
}
