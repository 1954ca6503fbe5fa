//! Which rules of a file a request can meet at all, so that a check does not ask each of ten thousand in line.
//!
//! A rule is filed under what it asks for in any case: literal Client Identifiers or User Names, or the literal levels
//! that its topics begin with; the rarest of these in the file is chosen. A check looks up its own names and the
//! beginnings of its topic, and asks the rules found there, in the order of the file, together with those that are
//! filed nowhere. A key is only a necessary condition: each rule found is asked in full, so that two texts of one hash
//! cost time and never change a verdict. Nothing is allocated by a check.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use rapidhash::fast::RandomState;
use rapidhash::v3::rapidhash_v3;
use smallvec::SmallVec;

use crate::acl::eval::Request;
use crate::acl::eval::Subject;
use crate::acl::pattern::Literal;
use crate::acl::rule::Condition;
use crate::acl::rule::Mode;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::TextMatch;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;
use crate::acl::template::Segment;
use crate::mqtt::topic;

/// A file with fewer rules is asked in line.
const RULES_MIN: usize = 8;
/// Levels of a topic that a key has at most; also bits of [`Index::depths`].
const DEPTH_MAX: usize = 8;
/// Different lengths of prefixes that are looked up for one name.
const LENGTHS_MAX: usize = 4;
/// Lists that one check merges without allocating: two names with their prefixes, the depths, and two more.
const LISTS: usize = 2 * (1 + LENGTHS_MAX) + DEPTH_MAX + 2;

/// What a key is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Field {
    ClientId,
    Username,
}

/// What a rule asks for in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key<'a> {
    /// The name is this.
    Is(Field, &'a str),
    /// The name begins with this.
    Begins(Field, &'a str),
    /// The topic begins with these levels.
    Levels(&'a str),
}

/// Tells the kinds of keys apart in one table.
const SALT: u64 = 0x9E37_79B9_7F4A_7C15;

fn hash(kind: u64, text: &[u8]) -> u64 {
    rapidhash_v3(text) ^ SALT.wrapping_mul(kind + 1)
}

impl Field {
    fn exact(self) -> u64 {
        self as u64
    }

    fn prefix(self) -> u64 {
        2 + self as u64
    }
}

const LEVELS: u64 = 4;

impl Key<'_> {
    fn hash(self) -> u64 {
        match self {
            Self::Is(field, text) => hash(field.exact(), text.as_bytes()),
            Self::Begins(field, text) => hash(field.prefix(), text.as_bytes()),
            Self::Levels(text) => hash(LEVELS, text.as_bytes()),
        }
    }
}

/// A part of [`Index::numbers`].
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// How one name of a client is looked up.
#[derive(Debug, Clone, Default)]
struct Names {
    exact: bool,
    /// Lengths of the prefixes there are.
    lengths: SmallVec<[u32; LENGTHS_MAX]>,
}

/// The rules of one file by what they ask for.
#[derive(Debug, Clone)]
pub(super) struct Index {
    places: HashMap<u64, Span, RandomState>,
    /// Numbers of rules, ascending in each span.
    numbers: Box<[u32]>,
    /// Rules that are filed nowhere.
    always: Span,
    /// Denies that are filed by topic: a filter with wildcards may reach any of them.
    denies: Span,
    names: [Names; 2],
    /// Bit d: some key has d + 1 levels.
    depths: u8,
}

impl Index {
    /// Files the rules; `None` when they are few, or all of them would be asked anyhow.
    pub(super) fn build(rules: &[Rule], mode: Mode) -> Option<Self> {
        if rules.len() < RULES_MIN || u32::try_from(rules.len()).is_err() {
            return None;
        }
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        let options: Vec<[Option<Vec<Key<'_>>>; 3]> =
            rules.iter().map(|rule| options(rule, mode, &mut lengths)).collect();
        let mut counts: HashMap<Key<'_>, usize> = HashMap::new();
        for key in options.iter().flatten().flatten().flatten() {
            *counts.entry(*key).or_default() += 1;
        }
        let cost = |keys: &Vec<Key<'_>>| keys.iter().map(|key| counts[key]).sum::<usize>();
        let mut builder = Builder::default();
        for (number, (rule, options)) in (0u32..).zip(rules.iter().zip(&options)) {
            match options.iter().flatten().min_by_key(|keys| cost(keys)) {
                None => builder.always.push(number),
                Some(keys) => builder.file(number, rule.permission, keys),
            }
        }
        (!builder.places.is_empty()).then(|| builder.build())
    }

    /// How many rules every check asks.
    pub(super) fn always(&self) -> usize {
        self.span(self.always).len()
    }

    /// The numbers of the rules that may hold, in the order of the file.
    pub(super) fn candidates(
        &self,
        mode: Mode,
        client: &Subject<'_>,
        request: &Request<'_>,
        topic: &str,
    ) -> Candidates<'_> {
        let mut found = Candidates { lists: SmallVec::new() };
        found.push(self.span(self.always));
        for (field, name) in [(Field::ClientId, Some(client.client_id)), (Field::Username, client.username)] {
            let Some(name) = name else { continue };
            let names = &self.names[field as usize];
            if names.exact {
                found.push(self.list(hash(field.exact(), name.as_bytes())));
            }
            for &length in &names.lengths {
                if let Some(prefix) = name.as_bytes().get(..length as usize) {
                    found.push(self.list(hash(field.prefix(), prefix)));
                }
            }
        }
        if self.depths != 0 {
            self.by_topic(topic, &mut found);
        }
        // An allow must cover the filter, so its literal levels stand in it; a deny need only touch it.
        let reaches = matches!(request, Request::Subscribe { .. }) && mode == Mode::Strict;
        if reaches && self.denies.start < self.denies.end && topic::has_wildcard(topic) {
            found.push(self.span(self.denies));
        }
        found
    }

    fn by_topic<'a>(&'a self, topic: &str, found: &mut Candidates<'a>) {
        let mut depths = self.depths;
        let ends = topic.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        for end in ends.chain([topic.len()]) {
            if depths & 1 != 0 {
                found.push(self.list(hash(LEVELS, &topic.as_bytes()[..end])));
            }
            depths >>= 1;
            if depths == 0 {
                return;
            }
        }
    }

    fn list(&self, hash: u64) -> &[u32] {
        self.places.get(&hash).map_or(&[], |span| self.span(*span))
    }

    fn span(&self, span: Span) -> &[u32] {
        &self.numbers[span.start as usize..span.end as usize]
    }
}

/// Several ascending lists as one, each number once.
pub(super) struct Candidates<'a> {
    lists: SmallVec<[&'a [u32]; LISTS]>,
}

impl<'a> Candidates<'a> {
    fn push(&mut self, list: &'a [u32]) {
        if !list.is_empty() {
            self.lists.push(list);
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if let [only] = &mut self.lists[..] {
            let (first, rest) = only.split_first()?;
            *only = rest;
            return Some(*first as usize);
        }
        let least = self.lists.iter().filter_map(|list| list.first()).min().copied()?;
        for list in &mut self.lists {
            // A rule with two topics may stand in two lists, and twice in one where hashes are equal.
            while let Some((first, rest)) = list.split_first()
                && *first == least
            {
                *list = rest;
            }
        }
        Some(least as usize)
    }
}

#[derive(Default)]
struct Builder {
    places: BTreeMap<u64, Vec<u32>>,
    always: Vec<u32>,
    denies: Vec<u32>,
    exact: [bool; 2],
    lengths: [BTreeSet<u32>; 2],
    depths: u8,
}

impl Builder {
    /// No key at all is a rule that never holds: it is filed nowhere and never found.
    fn file(&mut self, number: u32, permission: Permission, keys: &[Key<'_>]) {
        let mut by_topic = false;
        for key in keys {
            match *key {
                Key::Is(field, _) => self.exact[field as usize] = true,
                Key::Begins(field, text) => {
                    self.lengths[field as usize].extend(u32::try_from(text.len()));
                }
                Key::Levels(text) => {
                    self.depths |= 1 << text.bytes().filter(|byte| *byte == b'/').count();
                    by_topic = true;
                }
            }
            self.places.entry(key.hash()).or_default().push(number);
        }
        if by_topic && permission == Permission::Deny {
            self.denies.push(number);
        }
    }

    fn build(self) -> Index {
        let mut numbers = Vec::new();
        let mut append = |list: &[u32]| {
            let start = numbers.len();
            numbers.extend_from_slice(list);
            // The bytes of a file bound its keys far below.
            let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            Span { start: place(start), end: place(numbers.len()) }
        };
        let always = append(&self.always);
        let denies = append(&self.denies);
        let places = self.places.iter().map(|(hash, list)| (*hash, append(list))).collect();
        let names = [0, 1].map(|field| Names {
            exact: self.exact[field],
            lengths: self.lengths[field].iter().copied().collect(),
        });
        Index { places, numbers: numbers.into(), always, denies, names, depths: self.depths }
    }
}

/// The ways in which a rule could be filed; a way without keys says that it never holds.
fn options<'a>(rule: &'a Rule, mode: Mode, lengths: &mut [BTreeSet<usize>; 2]) -> [Option<Vec<Key<'a>>>; 3] {
    [
        names(&rule.condition, Field::ClientId, lengths),
        names(&rule.condition, Field::Username, lengths),
        levels(&rule.topics, mode),
    ]
}

/// Keys of which a client has one if the condition holds for it.
fn names<'a>(
    condition: &'a Condition,
    field: Field,
    lengths: &mut [BTreeSet<usize>; 2],
) -> Option<Vec<Key<'a>>> {
    match (condition, field) {
        (Condition::ClientId(matcher), Field::ClientId) | (Condition::Username(matcher), Field::Username) => {
            name(matcher, field, &mut lengths[field as usize])
        }
        (Condition::And(parts), _) => {
            parts.iter().filter_map(|part| names(part, field, lengths)).min_by_key(Vec::len)
        }
        (Condition::Or(parts), _) => {
            let each: Option<Vec<_>> = parts.iter().map(|part| names(part, field, lengths)).collect();
            each.map(|each| each.concat())
        }
        _ => None,
    }
}

fn name<'a>(matcher: &'a TextMatch, field: Field, lengths: &mut BTreeSet<usize>) -> Option<Vec<Key<'a>>> {
    match matcher {
        TextMatch::Exact(text) => Some(vec![Key::Is(field, text)]),
        TextMatch::Never(_) => Some(Vec::new()),
        TextMatch::Regex(pattern) => match pattern.literal()? {
            Literal::Equals(text) => Some(vec![Key::Is(field, text)]),
            Literal::Begins(text) => {
                if lengths.len() < LENGTHS_MAX {
                    lengths.insert(text.len());
                }
                (!text.is_empty() && lengths.contains(&text.len())).then(|| vec![Key::Begins(field, text)])
            }
        },
    }
}

/// Keys of which a topic has one if some entry matches it.
fn levels(topics: &Topics, mode: Mode) -> Option<Vec<Key<'_>>> {
    let Topics::List(entries) = topics else { return None };
    let mut keys = Vec::new();
    for entry in entries {
        let (text, literal) = match entry {
            TopicMatch::Never(_) => continue,
            TopicMatch::Eq(text) => (&**text, true),
            TopicMatch::Filter { filter, .. } => (&**filter, false),
            // In EMQX a placeholder without a value decides whatever the topic is.
            TopicMatch::Template(_) if mode == Mode::Emqx => return None,
            TopicMatch::Template(template) => match template.segments().first() {
                Some(Segment::Text(text)) => (text.rsplit_once('/')?.0, false),
                _ => return None,
            },
        };
        let end = first_levels(text, literal);
        if end == 0 {
            return None;
        }
        keys.push(Key::Levels(&text[..end]));
    }
    keys.sort_unstable();
    keys.dedup();
    Some(keys)
}

/// Where the first levels end that are text and not wildcards; 0 when the first one is a wildcard or empty.
fn first_levels(text: &str, literal: bool) -> usize {
    let mut end = 0;
    for (depth, level) in text.split('/').enumerate() {
        if depth == DEPTH_MAX || (!literal && matches!(level, "+" | "#")) {
            break;
        }
        end += level.len() + usize::from(depth > 0);
    }
    end
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Attributes;

    use proptest::prelude::*;

    use crate::acl::CompileOptions;
    use crate::acl::eval::Request;
    use crate::acl::eval::RuleSet;
    use crate::acl::eval::Subject;
    use crate::acl::eval::Verdict;
    use crate::acl::rule::Mode;
    use crate::acl::rule::Permission;
    use crate::acl::rule::SecurityProfile;
    use crate::mqtt::packet::QoS;

    /// Names of several lengths, so that more prefixes are asked for than are looked up.
    const NAMES: [&str; 8] = ["a", "ab", "abc", "abcd", "abcde", "abcdef", "b", ""];

    fn who() -> impl Strategy<Value = String> {
        let name = || prop::sample::select(&NAMES[..]);
        let leaf = prop_oneof![
            Just("all".to_owned()),
            name().prop_map(|name| format!("{{clientid, \"{name}\"}}")),
            name().prop_map(|name| format!("{{username, \"{name}\"}}")),
            name().prop_map(|name| format!("{{clientid, {{re, \"^{name}\"}}}}")),
            name().prop_map(|name| format!("{{username, {{re, \"^{name}$\"}}}}")),
        ];
        let lists = (prop::collection::vec(leaf.clone(), 1..3), any::<bool>());
        prop_oneof![3 => leaf, 1 => lists.prop_map(|(parts, all)| {
            format!("{{'{}', [{}]}}", if all { "and" } else { "or" }, parts.join(", "))
        })]
    }

    fn topic(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(prop::sample::select(levels), 1..12);
        let filter = (levels, any::<bool>())
            .prop_map(|(levels, open)| levels.join("/") + if open { "/#" } else { "" });
        filter.prop_filter("a filter is not empty", |filter| !filter.is_empty())
    }

    fn rule() -> impl Strategy<Value = String> {
        let plain = topic(&["a", "a", "a", "b", "", "+"]).prop_map(|topic| format!("\"{topic}\""));
        let eq = topic(&["a", "b", "+"]).prop_map(|topic| format!("{{eq, \"{topic}\"}}"));
        let template = topic(&["a", "a", "x${username}", "${username}"]).prop_map(|it| format!("\"{it}\""));
        let topics = prop::collection::vec(prop_oneof![3 => plain, 1 => eq, 1 => template], 1..3);
        let topics = prop_oneof![
            6 => topics.prop_map(|topics| format!("[{}]", topics.join(", "))),
            1 => Just("all".to_owned())
        ];
        (any::<bool>(), who(), 0..3usize, topics).prop_map(|(allow, who, action, topics)| {
            let action = ["all", "publish", "subscribe"][action];
            format!("{{{}, {who}, {action}, {topics}}}.\n", if allow { "allow" } else { "deny" })
        })
    }

    fn in_line(rules: &RuleSet, client: &Subject<'_>, request: &Request<'_>) -> Option<Verdict> {
        let topic = request.effective_topic()?;
        (0..rules.len()).find_map(|number| rules.ask(number, client, request, topic))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        /// Both ways to ask the rules of a file agree in every mode and profile.
        #[test]
        fn the_rules_that_are_found_decide_as_all_do(
            rules in prop::collection::vec(rule(), 8..20),
            client_id in prop::sample::select(&NAMES[..]),
            username in prop::option::of(prop::sample::select(&NAMES[..])),
            name in topic(&["a", "a", "a", "b", ""]),
            filter in topic(&["a", "a", "a", "b", "", "+"]),
        ) {
            let client = Subject {
                client_id,
                username,
                peer_host: None,
                cert_common_name: None,
                zone: "default",
                listener: "tcp:default",
                client_attrs: &Attributes::new(),
                is_superuser: false,
            };
            let (qos, name) = (QoS::AtMostOnce, name.replace("/#", "/b"));
            for (mode, security_profile) in [
                (Mode::Strict, SecurityProfile::Legacy),
                (Mode::Emqx, SecurityProfile::Legacy),
                (Mode::Emqx, SecurityProfile::Hardened),
            ] {
                let compiled = RuleSet::compile(rules.concat(), &CompileOptions { mode, security_profile });
                let compiled = compiled.map_err(|errors| TestCaseError::fail(errors[0].render("x")))?;
                for request in [
                    Request::Publish { topic: &name, qos, retain: false },
                    Request::Subscribe { filter: &filter, qos },
                ] {
                    let found = compiled.authorize(&client, &request, Permission::Deny);
                    let expected = in_line(&compiled, &client, &request);
                    let by = matches!(found.by, crate::acl::DecidedBy::Rule { .. }).then_some(found);
                    prop_assert_eq!(by, expected, "{} {:?}", rules.concat(), request);
                }
            }
        }
    }
}
