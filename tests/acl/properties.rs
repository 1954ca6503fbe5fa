//! Random files against a slow reference evaluator, and what must hold between files (`acl-language.md` section 10).

use std::collections::BTreeMap;

use proptest::prelude::*;
use tombolo::acl::CompileOptions;
use tombolo::acl::DecidedBy;
use tombolo::acl::Mode;
use tombolo::acl::Permission;
use tombolo::acl::Request;
use tombolo::acl::RuleSet;
use tombolo::acl::SecurityProfile;
use tombolo::acl::Subject;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::topic;

/// A comparison: its text in a file and what it means.
#[derive(Debug, Clone)]
enum Text {
    Exact(&'static str),
    Prefix(&'static str),
    Contains(&'static str),
}

impl Text {
    fn print(&self) -> String {
        match self {
            Self::Exact(text) => format!("\"{text}\""),
            Self::Prefix(text) => format!("{{re, \"^{text}\"}}"),
            Self::Contains(text) => format!("{{re, \"{text}\"}}"),
        }
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == *text,
            Self::Prefix(text) => value.starts_with(text),
            Self::Contains(text) => value.contains(text),
        }
    }
}

#[derive(Debug, Clone)]
enum Who {
    All,
    ClientId(Text),
    Username(Text),
    Site(Text),
    Loopback,
    Hardened,
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Who {
    fn print(&self) -> String {
        let list = |parts: &[Self]| parts.iter().map(Self::print).collect::<Vec<_>>().join(", ");
        match self {
            Self::All => "all".to_owned(),
            Self::ClientId(text) => format!("{{clientid, {}}}", text.print()),
            Self::Username(text) => format!("{{user, {}}}", text.print()),
            Self::Site(text) => format!("{{client_attr, site, {}}}", text.print()),
            Self::Loopback => "{ipaddr, \"127.1.2.3/8\"}".to_owned(),
            Self::Hardened => "{security_profile, hardened}".to_owned(),
            Self::And(parts) => format!("{{'and', [{}]}}", list(parts)),
            Self::Or(parts) => format!("{{'or', [{}]}}", list(parts)),
        }
    }

    fn holds(&self, client: &Client) -> bool {
        match self {
            Self::All => true,
            Self::ClientId(text) => text.holds(client.client_id),
            Self::Username(text) => client.username.is_some_and(|name| text.holds(name)),
            Self::Site(text) => client.site.is_some_and(|site| text.holds(site)),
            Self::Loopback => client.loopback,
            Self::Hardened => false,
            Self::And(parts) => parts.iter().all(|part| part.holds(client)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(client)),
        }
    }
}

#[derive(Debug, Clone)]
struct RuleModel {
    allow: bool,
    who: Who,
    publish: bool,
    subscribe: bool,
    qos: Vec<u8>,
    retain: Option<bool>,
    topics: Option<Vec<Topic>>,
}

#[derive(Debug, Clone)]
enum Topic {
    Eq(String),
    Filter(Vec<&'static str>),
}

#[derive(Debug, Clone)]
struct Client {
    client_id: &'static str,
    username: Option<&'static str>,
    site: Option<&'static str>,
    loopback: bool,
}

#[derive(Debug, Clone)]
struct Wish {
    publish: bool,
    topic: String,
    qos: u8,
    retain: bool,
}

impl Wish {
    fn request(&self) -> Request<'_> {
        let qos = QoS::from_u8(self.qos).unwrap();
        if self.publish {
            Request::Publish { topic: &self.topic, qos, retain: self.retain }
        } else {
            Request::Subscribe { filter: &self.topic, qos }
        }
    }
}

impl RuleModel {
    fn print(&self) -> String {
        let kind = match (self.publish, self.subscribe) {
            (true, true) => "all",
            (true, false) => "publish",
            _ => "subscribe",
        };
        let mut options: Vec<String> = self.qos.iter().map(|qos| format!("{{qos, {qos}}}")).collect();
        if let (true, Some(retain)) = (self.publish, self.retain) {
            options.push(format!("{{retain, {retain}}}"));
        }
        let topics = self.topics.as_ref().map_or_else(
            || "all".to_owned(),
            |topics| {
                let topics: Vec<String> = topics
                    .iter()
                    .map(|topic| match topic {
                        Topic::Eq(text) => format!("{{eq, \"{text}\"}}"),
                        Topic::Filter(levels) => format!("\"{}\"", levels.join("/")),
                    })
                    .collect();
                format!("[{}]", topics.join(", "))
            },
        );
        let permission = if self.allow { "allow" } else { "deny" };
        let options = options.join(", ");
        format!("{{{permission}, {}, {{{kind}, [{options}]}}, {topics}}}.\n", self.who.print())
    }

    fn holds(&self, client: &Client, wish: &Wish, mode: Mode) -> bool {
        let kind = if wish.publish { self.publish } else { self.subscribe };
        let qos = self.qos.is_empty() || self.qos.contains(&wish.qos);
        let retain = !wish.publish || self.retain.is_none_or(|retain| retain == wish.retain);
        kind && qos && retain && self.who.holds(client) && self.topics_hold(client, wish, mode)
    }

    fn topics_hold(&self, client: &Client, wish: &Wish, mode: Mode) -> bool {
        let Some(topics) = &self.topics else { return true };
        for topic in topics {
            let filter = match topic {
                Topic::Eq(text) if *text == wish.topic => return true,
                Topic::Eq(_) => continue,
                Topic::Filter(levels) => match self.rendered(levels, client, mode) {
                    Ok(filter) => filter,
                    // EMQX skips the whole rule.
                    Err(()) if mode == Mode::Emqx => return false,
                    Err(()) => continue,
                },
            };
            let hit = match (wish.publish || mode == Mode::Emqx, self.allow) {
                (true, _) => topic::matches(&filter, &wish.topic),
                (false, true) => topic::is_subset(&wish.topic, &filter),
                (false, false) => topic::intersects(&wish.topic, &filter),
            };
            if hit {
                return true;
            }
        }
        false
    }

    /// Placeholders stand alone in their level here.
    fn rendered(&self, levels: &[&'static str], client: &Client, mode: Mode) -> Result<String, ()> {
        let mut out = Vec::new();
        for (index, level) in levels.iter().enumerate() {
            let value = match *level {
                "${clientid}" => Some(client.client_id),
                "${username}" => client.username.or_else(|| (mode == Mode::Emqx).then_some("undefined")),
                "${client_attrs.site}" => client.site,
                literal => {
                    out.push(literal);
                    continue;
                }
            };
            let fit = value.filter(|value| {
                let bad = value.contains(['+', '#', '/'])
                    || (mode == Mode::Strict && value.is_empty())
                    || (mode == Mode::Strict && self.allow && index == 0 && value.starts_with('$'));
                !bad
            });
            match fit {
                Some(value) => out.push(value),
                None if mode == Mode::Strict && !self.allow => out.push("+"),
                None => return Err(()),
            }
        }
        Ok(out.join("/"))
    }
}

/// The slow way: every rule, in order.
fn reference(rules: &[RuleModel], client: &Client, wish: &Wish, mode: Mode) -> Option<(usize, bool)> {
    rules.iter().position(|rule| rule.holds(client, wish, mode)).map(|index| (index, rules[index].allow))
}

fn print(rules: &[RuleModel]) -> String {
    rules.iter().map(RuleModel::print).collect()
}

fn compile(text: &str, mode: Mode) -> RuleSet {
    let options = CompileOptions { mode, security_profile: SecurityProfile::Legacy };
    RuleSet::compile(text, &options).unwrap_or_else(|errors| {
        panic!("{text}\n{}", errors.iter().map(|e| e.render("x")).collect::<String>())
    })
}

fn decide(rules: &RuleSet, client: &Client, wish: &Wish) -> (Option<usize>, bool) {
    let attributes: BTreeMap<String, String> =
        client.site.map(|site| ("site".to_owned(), site.to_owned())).into_iter().collect();
    let subject = Subject {
        client_id: client.client_id,
        username: client.username,
        peer_host: Some(if client.loopback { "127.9.9.9" } else { "::1" }.parse().unwrap()),
        cert_common_name: None,
        zone: "default",
        listener: "tcp:default",
        client_attrs: &attributes,
        is_superuser: false,
    };
    let verdict = rules.authorize(&subject, &wish.request(), Permission::Deny);
    let index = match verdict.by {
        DecidedBy::Rule { index, .. } => Some(index),
        _ => None,
    };
    (index, verdict.permission == Permission::Allow)
}

fn text() -> impl Strategy<Value = Text> {
    let word = prop::sample::select(vec!["a", "b", "ab", ""]);
    // To compile an expression takes longer than all the rest of a file: they are rare.
    (word, 0..12).prop_map(|(word, kind)| match kind {
        0..6 => Text::Exact(word),
        6..11 => Text::Prefix(word),
        _ => Text::Contains(word),
    })
}

fn who() -> impl Strategy<Value = Who> {
    let leaf = prop_oneof![
        3 => Just(Who::All),
        2 => text().prop_map(Who::ClientId),
        2 => text().prop_map(Who::Username),
        1 => text().prop_map(Who::Site),
        1 => Just(Who::Loopback),
        1 => Just(Who::Hardened),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Who::And),
            prop::collection::vec(inner, 1..3).prop_map(Who::Or),
        ]
    })
}

fn levels(of: Vec<&'static str>) -> impl Strategy<Value = Vec<&'static str>> {
    (prop::collection::vec(prop::sample::select(of), 1..4), any::<bool>())
        .prop_map(|(mut levels, open)| {
            if open {
                levels.push("#");
            }
            levels
        })
        .prop_filter("a filter is not empty", |levels| *levels != [""])
}

fn rule_topic() -> impl Strategy<Value = Topic> {
    let parts = vec!["a", "b", "", "$s", "+", "${clientid}", "${username}", "${client_attrs.site}"];
    prop_oneof![
        1 => filter().prop_map(Topic::Eq),
        4 => levels(parts).prop_map(Topic::Filter),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    levels(vec!["a", "b", "", "$s", "+"]).prop_map(|levels| levels.join("/"))
}

fn rule() -> impl Strategy<Value = RuleModel> {
    (
        any::<bool>(),
        who(),
        0..3,
        prop::collection::vec(0u8..3, 0..2),
        prop::option::of(any::<bool>()),
        prop::option::weighted(0.9, prop::collection::vec(rule_topic(), 1..3)),
    )
        .prop_map(|(allow, who, kind, qos, retain, topics)| RuleModel {
            allow,
            who,
            publish: kind != 1,
            subscribe: kind != 0,
            qos,
            retain,
            topics,
        })
}

fn rules() -> impl Strategy<Value = Vec<RuleModel>> {
    prop::collection::vec(rule(), 0..6)
}

/// Files on both sides of the length from which rules are found by their names and topics.
fn long_rules() -> impl Strategy<Value = Vec<RuleModel>> {
    prop_oneof![2 => rules(), 5 => prop::collection::vec(rule(), 7..12)]
}

fn client() -> impl Strategy<Value = Client> {
    let name = || prop::sample::select(vec!["a", "b", "ab", "", "+", "a/b", "$s", "undefined"]);
    (name(), prop::option::of(name()), prop::option::of(name()), any::<bool>())
        .prop_map(|(client_id, username, site, loopback)| Client { client_id, username, site, loopback })
}

fn wish() -> impl Strategy<Value = Wish> {
    (any::<bool>(), filter(), 0u8..3, any::<bool>()).prop_map(|(publish, topic, qos, retain)| {
        let topic = if publish { topic.replace(['+', '#'], "b") } else { topic };
        Wish { publish, topic, qos, retain }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_those_of_the_reference(
        rules in long_rules(),
        clients in prop::collection::vec(client(), 3),
        wishes in prop::collection::vec(wish(), 4),
    ) {
        let text = print(&rules);
        for mode in [Mode::Strict, Mode::Emqx] {
            let compiled = compile(&text, mode);
            for (client, wish) in clients.iter().flat_map(|client| wishes.iter().map(move |wish| (client, wish))) {
                let expected = reference(&rules, client, wish, mode);
                let expected = (expected.map(|(index, _)| index), expected.is_some_and(|(_, allow)| allow));
                prop_assert_eq!(decide(&compiled, client, wish), expected, "{}\n{:?} {:?}", text, client, wish);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn printed_rules_compile_to_themselves(rules in rules()) {
        for mode in [Mode::Strict, Mode::Emqx] {
            let compiled = compile(&print(&rules), mode);
            // One rule a line, as the text it came from, so that lines agree as well.
            let printed: String = compiled.rules().iter().map(|rule| format!("{rule}\n")).collect();
            let again = compile(&printed, mode);
            prop_assert_eq!(compiled.rules(), again.rules());
        }
    }

    #[test]
    fn without_denies_strict_allows_no_more_than_emqx(rules in rules(), client in client(), wish in wish()) {
        let rules: Vec<_> = rules.into_iter().map(|rule| RuleModel { allow: true, ..rule }).collect();
        let text = print(&rules);
        let (_, strict) = decide(&compile(&text, Mode::Strict), &client, &wish);
        let (_, emqx) = decide(&compile(&text, Mode::Emqx), &client, &wish);
        // EMQX skips a rule at its first placeholder without a value; strict mode only that entry. What strict
        // mode then allows is allowed by another entry of the same rule, so rules of one entry are compared.
        let single = rules.iter().all(|rule| rule.topics.as_ref().is_none_or(|topics| topics.len() == 1));
        prop_assert!(!single || !strict || emqx, "{}", text);
    }

    #[test]
    fn a_deny_in_front_never_allows_more(
        front in rule(),
        rules in rules(),
        client in client(),
        wish in wish(),
    ) {
        let front = RuleModel { allow: false, ..front };
        let text = print(&rules);
        for mode in [Mode::Strict, Mode::Emqx] {
            let (_, before) = decide(&compile(&text, mode), &client, &wish);
            let (_, after) = decide(&compile(&format!("{}{text}", front.print()), mode), &client, &wish);
            prop_assert!(before || !after);
        }
    }

    #[test]
    fn rules_for_different_clients_may_change_places(
        one in rule(),
        other in rule(),
        client in client(),
        wish in wish(),
    ) {
        let one = RuleModel { who: Who::ClientId(Text::Exact("a")), ..one };
        let other = RuleModel { who: Who::ClientId(Text::Exact("b")), ..other };
        let there = compile(&print(&[one.clone(), other.clone()]), Mode::Strict);
        let back = compile(&print(&[other, one]), Mode::Strict);
        prop_assert_eq!(decide(&there, &client, &wish).1, decide(&back, &client, &wish).1);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_compiled_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for mode in [Mode::Strict, Mode::Emqx] {
            let _ = RuleSet::compile(&bytes, &CompileOptions { mode, ..CompileOptions::default() });
        }
    }

    #[test]
    fn a_damaged_file_is_compiled_without_panic(
        rules in rules(),
        cut in any::<prop::sample::Index>(),
        put in prop::sample::select(vec!["{", "}", "\"", "'", ".", ",", "[", "]", "\\", "é", "%", "$", "(", "re", "#"]),
    ) {
        let mut text = print(&rules);
        let at = if text.is_empty() { 0 } else { cut.index(text.len()) };
        text.insert_str(at, put);
        for mode in [Mode::Strict, Mode::Emqx] {
            match RuleSet::compile(&text, &CompileOptions { mode, ..CompileOptions::default() }) {
                Ok(compiled) => prop_assert!(compiled.len() <= rules.len() + 1),
                Err(errors) => {
                    // The end of the file may be at the beginning of a line that is not there: `$` takes the last line break.
                    let lines = u32::try_from(text.split('\n').count()).unwrap();
                    prop_assert!(!errors.is_empty());
                    for error in errors {
                        prop_assert!((1..=lines).contains(&error.line), "{}", error.render(&text));
                    }
                }
            }
        }
    }
}
