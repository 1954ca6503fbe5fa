//! The decision cases and the malformed files, in both modes.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use tombolo::acl::CompileOptions;
use tombolo::acl::DecidedBy;
use tombolo::acl::Diagnostic;
use tombolo::acl::Mode;
use tombolo::acl::Permission;
use tombolo::acl::Request;
use tombolo::acl::RuleSet;
use tombolo::acl::SecurityProfile;
use tombolo::acl::Subject;
use tombolo::acl::Verdict;
use tombolo::mqtt::packet::QoS;

fn fixture(name: &str) -> String {
    fs::read_to_string(format!("{}/tests/fixtures/acl/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

struct Client {
    client_id: String,
    username: Option<String>,
    peer_host: IpAddr,
    cert_common_name: Option<String>,
    zone: String,
    listener: String,
    client_attrs: BTreeMap<String, String>,
    is_superuser: bool,
    profile: SecurityProfile,
}

impl Client {
    /// The base client of section 5 with the fields of a case put over it.
    fn parse(text: &str) -> Self {
        let mut client = Self {
            client_id: "c".to_owned(),
            username: None,
            peer_host: "127.0.0.1".parse().unwrap(),
            cert_common_name: None,
            zone: "default".to_owned(),
            listener: "tcp:default".to_owned(),
            client_attrs: BTreeMap::new(),
            is_superuser: false,
            profile: SecurityProfile::Legacy,
        };
        for field in text.split(' ').filter(|field| *field != "(base)") {
            let (key, value) = field.split_once('=').unwrap();
            let value = value.trim_matches('"').replace("\\n", "\n");
            match key {
                "clientid" => client.client_id = if value == "[]" { String::new() } else { value },
                "username" => client.username = Some(value),
                "peerhost" => client.peer_host = value.parse().unwrap(),
                "cn" => client.cert_common_name = Some(value),
                "zone" => client.zone = value,
                "listener" => client.listener = value,
                "client_attrs" => {
                    let (name, value) = value.split_once(':').unwrap();
                    client.client_attrs.insert(name.to_owned(), value.to_owned());
                }
                "is_superuser" => client.is_superuser = value == "true",
                "profile" if value == "hardened" => client.profile = SecurityProfile::Hardened,
                other => panic!("unknown field {other}"),
            }
        }
        client
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            client_id: &self.client_id,
            username: self.username.as_deref(),
            peer_host: Some(self.peer_host),
            cert_common_name: self.cert_common_name.as_deref(),
            zone: &self.zone,
            listener: &self.listener,
            client_attrs: &self.client_attrs,
            is_superuser: self.is_superuser,
        }
    }
}

fn permission(text: &str) -> Permission {
    match text {
        "allow" => Permission::Allow,
        "deny" => Permission::Deny,
        other => panic!("not a permission: {other}"),
    }
}

fn request<'a>(action: &str, topic: &'a str) -> Request<'a> {
    let words: Vec<&str> = action.split(' ').collect();
    let qos = QoS::from_u8(words[1].trim_start_matches('q').parse().unwrap()).unwrap();
    match words[0] {
        "pub" => Request::Publish { topic, qos, retain: words[2] == "r1" },
        "sub" => Request::Subscribe { filter: topic, qos },
        other => panic!("not an action: {other}"),
    }
}

fn decided_by(verdict: Verdict) -> String {
    match verdict.by {
        DecidedBy::Rule { index, .. } => format!("rule {}", index + 1),
        DecidedBy::NoMatch => "no_match".to_owned(),
        DecidedBy::Generated { index, .. } => format!("generated rule {}", index + 1),
        DecidedBy::Superuser => "superuser".to_owned(),
        DecidedBy::Malformed => "malformed".to_owned(),
    }
}

struct Case {
    number: String,
    rules: String,
    no_match: Permission,
    client: Client,
    action: String,
    topic: String,
    emqx: Permission,
    by: String,
    strict: String,
}

impl Case {
    fn all() -> Vec<Self> {
        let table = fixture("cases.txt");
        let rows = table.lines().filter(|line| !line.starts_with('#'));
        rows.map(|row| {
            let c: Vec<&str> = row.split(" | ").collect();
            assert_eq!(c.len(), 9, "{row}");
            Self {
                number: c[0].to_owned(),
                rules: fixture(&format!("rules/{}.conf", c[1])),
                no_match: permission(c[2]),
                client: Client::parse(c[3]),
                action: c[4].to_owned(),
                topic: c[5].to_owned(),
                emqx: permission(c[6]),
                by: c[7].to_owned(),
                strict: c[8].to_owned(),
            }
        })
        .collect()
    }

    fn compile(&self, mode: Mode) -> Result<RuleSet, Vec<Diagnostic>> {
        RuleSet::compile(&self.rules, &CompileOptions { mode, security_profile: self.client.profile })
    }

    fn verdict(&self, rules: &RuleSet) -> Verdict {
        rules.authorize(&self.client.subject(), &request(&self.action, &self.topic), self.no_match)
    }
}

#[test]
fn emqx_mode_decides_as_emqx_was_seen_to() {
    let cases = Case::all();
    assert_eq!(cases.len(), 131);
    for case in cases {
        let rules = case.compile(Mode::Emqx).unwrap();
        let verdict = case.verdict(&rules);
        assert_eq!((verdict.permission, decided_by(verdict)), (case.emqx, case.by), "case {}", case.number);
    }
}

#[test]
fn strict_mode_differs_exactly_where_it_means_to() {
    for case in Case::all() {
        let expected = case.strict.trim_start_matches('*');
        let rules = case.compile(Mode::Strict);
        if expected == "load error" {
            assert!(rules.is_err(), "case {}", case.number);
            continue;
        }
        let verdict = case.verdict(&rules.unwrap());
        assert_eq!(verdict.permission, permission(expected), "case {}", case.number);
        let differs = case.strict.starts_with('*');
        assert_eq!(differs, permission(expected) != case.emqx, "case {}", case.number);
        if !differs {
            assert_eq!(decided_by(verdict), case.by, "case {}", case.number);
        }
    }
}

fn errors(text: &[u8], mode: Mode) -> String {
    match RuleSet::compile(text, &CompileOptions { mode, ..CompileOptions::default() }) {
        Ok(_) => "ok".to_owned(),
        Err(found) => {
            let found: Vec<_> = found.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.code)).collect();
            found.join(", ")
        }
    }
}

#[test]
fn malformed_files_give_their_code_and_place() {
    let table = fixture("malformed.txt");
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in table.split("\n>>> ").skip(1) {
        let (expected, text) = case.split_once('\n').unwrap();
        let (strict, emqx) = expected.split_once(" | ").unwrap();
        let found = errors(text.as_bytes(), Mode::Strict);
        if found != strict {
            wrong.push(format!("{text}\n  expected {strict}, found {found}"));
        }
        let emqx = if emqx == "same" { strict } else { emqx };
        let found = errors(text.as_bytes(), Mode::Emqx);
        if found != emqx {
            wrong.push(format!("{text}\n  expected {emqx} in EMQX mode, found {found}"));
        }
        if emqx == "ok" {
            let options = CompileOptions { mode: Mode::Emqx, ..CompileOptions::default() };
            let rules = RuleSet::compile(text, &options).unwrap();
            let warned: Vec<_> =
                rules.warnings().iter().map(|d| format!("{}:{} {}", d.line, d.column, d.code)).collect();
            // What strict mode refuses is warned of.
            if warned.join(", ") != strict {
                wrong.push(format!("{text}\n  expected the warnings {strict}, found {warned:?}"));
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "{count} cases");
}

/// Each error of each malformed file shows its source line, and a caret under the column it names.
#[test]
fn every_error_of_a_malformed_file_is_shown_in_its_place() {
    let table = fixture("malformed.txt");
    let mut shown = 0;
    for case in table.split("\n>>> ").skip(1) {
        let (_, text) = case.split_once('\n').unwrap();
        let Err(found) = RuleSet::compile(text, &CompileOptions::default()) else { continue };
        for error in found {
            let rendered = error.render("acl.conf");
            let lines: Vec<&str> = rendered.split('\n').collect();
            let head = format!("acl.conf:{}:{}: {} ", error.line, error.column, error.code);
            assert!(lines[0].starts_with(&head) && lines.len() == 3, "{rendered}");
            let margin = format!("{} | ", error.line);
            let line = text.split('\n').nth(error.line as usize - 1).unwrap().trim_end_matches('\r');
            let excerpt = lines[1].strip_prefix(&margin).unwrap();
            assert!(line.contains(excerpt.trim_matches('…')), "{rendered}");
            // What cannot be printed is shown as something that can.
            let caret = lines[2].chars().position(|c| c == '^').unwrap();
            if excerpt == line {
                assert_eq!(caret, margin.len() + error.column as usize - 1, "{rendered}");
            }
            shown += 1;
        }
    }
    assert!(shown > 60, "{shown}");
}

#[test]
fn bytes_and_sizes_that_no_file_has() {
    assert_eq!(errors(b"{allow,\n \"\xff\"}.", Mode::Strict), "2:3 E105");
    assert_eq!(errors(&vec![b' '; 1024 * 1024 + 1], Mode::Strict), "1:1 E002");
    assert_eq!(errors(&vec![b' '; 1024 * 1024], Mode::Strict), "ok");
    let topics = format!("{{allow, all, all, [{}]}}.", vec!["\"a\""; 1001].join(","));
    assert_eq!(errors(topics.as_bytes(), Mode::Strict), "1:4020 E002");
    let pattern = b"{allow, {clientid, {re, \"((a{1000}){1000}){9}\"}}, all, all}.";
    assert_eq!(errors(pattern, Mode::Strict), "1:25 E002");
    assert_eq!(errors(b"", Mode::Strict), "ok");
    assert_eq!(errors(b"%% nothing\n", Mode::Strict), "ok");
}

#[test]
fn a_diagnostic_shows_line_and_caret() {
    let found = RuleSet::compile("\n{permit, all}.", &CompileOptions::default()).unwrap_err();
    assert_eq!(
        found[0].render("acl.conf"),
        "acl.conf:2:2: E203 `permit` is not a permission; did you mean `allow`?\n2 | {permit, all}.\n  |  ^^^^^^"
    );
}

#[test]
fn prefixes_are_taken_off_before_the_rules_look() {
    let rules =
        RuleSet::compile("{allow, all, all, [\"a/#\"]}.\n{deny, all}.", &CompileOptions::default()).unwrap();
    let client = Client::parse("(base)");
    let decide = |action: &str, topic: &str| {
        decided_by(rules.authorize(&client.subject(), &request(action, topic), Permission::Deny))
    };
    for topic in
        ["a/b", "$share/g/a/b", "$queue/a/b", "$exclusive/a/b", "$share/g/$exclusive/a", "$delayed/5/a/b"]
    {
        assert_eq!(decide("sub q0", topic), "rule 1", "{topic}");
    }
    assert_eq!(decide("pub q0 r0", "$delayed/5/a/b"), "rule 1");
    assert_eq!(decide("pub q0 r0", "$delayed/x/y/a"), "rule 2");
    for topic in
        ["$share/g", "$share//a", "$share/g/", "$share/g/$share/h/a", "$queue/$share/g/a", "$exclusive/"]
    {
        assert_eq!(decide("sub q0", topic), "malformed", "{topic}");
    }
    assert_eq!(decide("pub q0 r0", "$delayed/5"), "malformed");
    assert_eq!(decide("pub q0 r0", "$share/g/a"), "rule 2");
}

/// `reliability.md` 3.2 class F: a name is never read as a pattern, a filter or a `$` topic.
#[test]
fn names_are_never_read_as_patterns() {
    let text = "{deny, all, all, [\"no/${clientid}/#\"]}.\n\
                {allow, {clientid, \"a.c\"}, publish, [\"dot\"]}.\n\
                {allow, all, all, [\"${clientid}/#\", \"u/${username}/x\"]}.\n{deny, all}.";
    let rules = RuleSet::compile(text, &CompileOptions::default()).unwrap();
    let decide = |client_id: &str, action: &str, topic: &str| {
        let client = Client {
            client_id: client_id.to_owned(),
            username: Some(client_id.to_owned()),
            ..Client::parse("(base)")
        };
        decided_by(rules.authorize(&client.subject(), &request(action, topic), Permission::Deny))
    };
    for name in ["+", "#", "a/b", "$SYS", ".*", "^", "(", "[a]", "${username}", "$"] {
        assert_eq!(decide(name, "sub q0", "other/#"), "rule 4", "{name}");
        assert_eq!(decide(name, "sub q0", "$SYS/#"), "rule 4", "{name}");
        assert_eq!(decide(name, "pub q0 r0", "$SYS/x"), "rule 4", "{name}");
        assert_eq!(decide(name, "pub q0 r0", "u/other/x"), "rule 4", "{name}");
        assert_eq!(
            decide(name, "pub q0 r0", &format!("no/{}/x", name.replace(['+', '#', '/'], "z"))),
            "rule 1"
        );
    }
    assert_eq!(decide("abc", "pub q0 r0", "dot"), "rule 4");
    assert_eq!(decide("a.c", "pub q0 r0", "dot"), "rule 2");
    assert_eq!(decide(".*", "sub q0", ".*/#"), "rule 3");
}

#[test]
fn deny_all_denies_everything() {
    let rules = RuleSet::deny_all();
    let client = Client::parse("(base)");
    for (action, topic) in [("pub q0 r0", "a"), ("sub q1", "#"), ("pub q2 r1", "$SYS/x")] {
        let verdict = rules.authorize(&client.subject(), &request(action, topic), Permission::Allow);
        assert_eq!(verdict.permission, Permission::Deny);
    }
}
