//! The schema against `config/tombolo.toml`, variables, and arbitrary text.

use proptest::prelude::*;

use super::document::Document;
use super::reader::Reading;
use super::sections::Defaults;
use super::sections::settings;
use super::settings::Bind;
use super::*;

const SHIPPED: &str = include_str!("../../config/tombolo.toml");

/// Those that the shipped file refers to.
const VARIABLES: &[(&str, &str)] = &[
    ("LINK_B_PASSWORD", "x"),
    ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ("AUTH_TOKEN", "Bearer x"),
];

/// In lines of the shipped file that are not like its defaults.
const SAID_OTHERWISE: [&str; 4] =
    ["not supported yet", "instead of", "nothing by default", "no finite-field"];

fn environment(variables: &[(&str, &str)]) -> Environment {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Environment {
        variables: variables.iter().map(own).collect(),
        host_name: "vm".to_owned(),
        unix_seconds: 0,
    }
}

fn uncommented(keep_unsupported: bool) -> String {
    let lines = SHIPPED.lines().filter_map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with([' ', '\n']) || rest.is_empty() => None,
        Some(rest) if !keep_unsupported && SAID_OTHERWISE.iter().any(|words| rest.contains(words)) => None,
        Some(rest) => Some(rest),
        None => Some(line),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_is_the_built_in_default() {
    assert_eq!(parse("tombolo.toml", SHIPPED, &environment(&[])), parse("empty", "", &environment(&[])));
}

#[test]
fn the_shipped_file_names_every_key() {
    let text = uncommented(true);
    let document = Document::parse("tombolo.toml", &text).unwrap();
    let variables = environment(VARIABLES).variables;
    let reading = Reading::new(&document, &variables);
    settings(&reading, &Defaults { host_name: "vm", embedded: false });
    let known = reading.known();
    let in_lists = |key: &String| -> Vec<String> {
        let links = |key: &str| key.replacen("cluster.links.", "cluster.links[0].", 1);
        match key.strip_prefix("listeners.") {
            Some(rest) => (0..2).map(|index| format!("listeners[{index}].{rest}")).collect(),
            None => match key.strip_prefix("authentication.chain.") {
                Some(rest) => (0..8).map(|index| format!("authentication.chain[{index}].{rest}")).collect(),
                None => vec![links(key)],
            },
        }
    };
    let missing: Vec<&String> =
        known.iter().filter(|key| !in_lists(key).iter().any(|path| document.is_written(path))).collect();
    assert!(missing.is_empty(), "config/tombolo.toml lacks {missing:?}");
    assert!(known.len() > 100, "the schema was visited: {}", known.len());
    // No such file, and one of two.
    let expected = ["ssl.password", "ssl.dhfile", "ssl.crl_url"];
    let mut errors = reading.into_errors();
    errors.retain(|error| !expected.iter().any(|key| error.key.ends_with(key)));
    assert_eq!(errors, []);
}

/// What is commented out names defaults too: leaving it away changes nothing.
#[test]
fn the_shipped_file_names_the_defaults_of_links_and_tls() {
    let environment = environment(VARIABLES);
    let minimal = r##"
        [cluster]
        name = "vm"
        [[cluster.links]]
        name = "B"
        server = "b.example.net"
        username = "clink-user:A"
        password = "x"
        topics = ["global/#", "cluster/+/status"]
        export = ["#"]
        peer.username = "clink-user:B"
        peer.cert_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
        peer.cert_cn = "cluster-b"
        ssl = { cacertfile = "certs/ca.pem", certfile = "certs/a.pem", keyfile = "certs/a.key", server_name_indication = "b.example.net" }
        [[listeners]]
        [[listeners]]
        name = "links"
        type = "ssl"
        role = "link"
        ssl = { certfile = "certs/server.pem", keyfile = "certs/server.key", cacertfile = "certs/ca.pem", crlfile = "certs/crl.pem", server_names = ["mqtt.example.net"] }
        [http]
        viewer_socket = "/run/tombolo/viewer.sock"
        [authentication]
        password_file = "config/passwd"
        [[authentication.chain]]
        mechanism = "certificate"
        [[authentication.chain]]
        mechanism = "password"
        password_file = "config/more"
        [[authentication.chain]]
        mechanism = "jwt"
        secret = "0123456789abcdef0123456789abcdef"
        verify_claims = { aud = "tombolo", client = "${clientid}" }
        [[authentication.chain]]
        mechanism = "jwt"
        public_key_file = "certs/jwt.pem"
        [[authentication.chain]]
        mechanism = "jwt"
        jwks_file = "config/jwks.json"
        [[authentication.chain]]
        mechanism = "jwt"
        endpoint = "https://id.example.net/keys"
        cacertfile = "certs/id-ca.pem"
        [[authentication.chain]]
        mechanism = "http"
        url = "https://auth.example.net/mqtt"
        cacertfile = "certs/auth-ca.pem"
        authorization = "Bearer x"
        [[authentication.chain]]
        mechanism = "scram"
        password_file = "config/scram"
        [authorization]
        file = "acl/acl.conf"
    "##;
    let full = parse("full", &uncommented(false), &environment);
    assert!(full.is_ok(), "{full:#?}");
    assert_eq!(full, parse("minimal", minimal, &environment));
}

#[test]
fn without_a_file_everything_is_on_loopback() {
    let settings = load(None, &environment(&[])).unwrap();
    assert!(settings.embedded && settings.authentication.allow_anonymous);
    assert_eq!(settings.cluster.name, "vm");
    assert_eq!(settings.listeners.len(), 1);
    assert_eq!(settings.listeners[0].id(), "tcp:default");
    assert_eq!(settings.listeners[0].bind.to_string(), "127.0.0.1:1883");
    assert_eq!(settings.http.bind.to_string(), "127.0.0.1:18083");
    assert_eq!(settings.authorization.file, settings::AclSource::Embedded);
    assert_eq!(
        warnings(&settings),
        ["no configuration file: clients without credentials are allowed on loopback"]
    );
    let with_file = parse("t.toml", "", &environment(&[])).unwrap();
    assert!(!with_file.embedded && !with_file.authentication.allow_anonymous);
}

#[test]
fn anonymous_clients_do_not_follow_to_an_open_port() {
    let open = environment(&[("TOMBOLO__LISTENERS__0__BIND", "0.0.0.0:1883")]);
    let settings = load(None, &open).unwrap();
    assert!(!settings.authentication.allow_anonymous);
}

#[test]
fn variables_override_the_file() {
    let text = "[cluster]\nname = \"A\"\n[[listeners]]\nbind = \"127.0.0.1:1\"\n";
    let settings = parse(
        "t.toml",
        text,
        &environment(&[
            ("TOMBOLO__CLUSTER__NAME", "Z"),
            ("TOMBOLO__LISTENERS__0__BIND", "127.0.0.1:2"),
            ("TOMBOLO__LISTENERS__1__NAME", "second"),
            ("TOMBOLO__LISTENERS__1__BIND", "127.0.0.1:3"),
            ("TOMBOLO__MQTT__MAX_INFLIGHT", "7"),
            ("TOMBOLO__MQTT__MAX_SUBSCRIPTIONS", "5"),
            ("TOMBOLO__MQTT__KEEPALIVE_MULTIPLIER", "2.5"),
            ("TOMBOLO__MQTT__STRICT_MODE", "true"),
            ("TOMBOLO__CLUSTER__LINKS__0__NAME", "B"),
            ("TOMBOLO__CLUSTER__LINKS__0__SERVER", "localhost"),
            ("TOMBOLO__CLUSTER__LINKS__0__TOPICS", "[\"a/#\", 'b']"),
            ("TOMBOLO__CLUSTER__LINKS__0__SSL__ENABLE", "false"),
            ("TOMBOLO__CLUSTER__LINKS__0__PEER__USERNAME", "b"),
            ("TOMBOLO_CONFIG", "no override"),
        ]),
    )
    .unwrap();
    assert_eq!(settings.cluster.name, "Z");
    let binds: Vec<&Bind> = settings.listeners.iter().map(|listener| &listener.bind).collect();
    assert_eq!(
        binds,
        [&Bind::Addr("127.0.0.1:2".parse().unwrap()), &Bind::Addr("127.0.0.1:3".parse().unwrap())]
    );
    assert_eq!(settings.mqtt.max_inflight, 7);
    assert_eq!(settings.mqtt.max_subscriptions, Some(5));
    assert!((settings.mqtt.keepalive_multiplier - 2.5).abs() < f64::EPSILON);
    assert!(settings.mqtt.strict_mode);
    assert_eq!(settings.cluster.links[0].topics, ["a/#", "b"]);
    assert_eq!(settings.cluster.links[0].servers[0].to_string(), "localhost:1883");
}

#[test]
fn a_list_is_filled_by_number_not_by_letter() {
    let names: Vec<String> = (0..12).map(|i| format!("TOMBOLO__CLUSTER__LINKS__0__TOPICS__{i}")).collect();
    let values: Vec<String> = (0..12).map(|i| format!("t/{i}")).collect();
    let mut variables: Vec<(&str, &str)> =
        names.iter().zip(&values).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.extend([
        ("TOMBOLO__CLUSTER__NAME", "A"),
        ("TOMBOLO__CLUSTER__LINKS__0__NAME", "B"),
        ("TOMBOLO__CLUSTER__LINKS__0__SERVER", "localhost"),
        ("TOMBOLO__CLUSTER__LINKS__0__SSL__ENABLE", "false"),
        ("TOMBOLO__CLUSTER__LINKS__0__PEER__USERNAME", "b"),
    ]);
    let settings = parse("t.toml", "", &environment(&variables)).unwrap();
    assert_eq!(settings.cluster.links[0].topics, values);
}

#[test]
fn an_error_of_a_variable_names_the_variable() {
    let table = [
        (
            ("TOMBOLO__CLUSTER__NAM", "x"),
            "TOMBOLO__CLUSTER__NAM: cluster.nam: unknown key (did you mean `name`?)",
        ),
        (
            ("TOMBOLO__MQTT__MAX_INFLIGHT", "many"),
            "TOMBOLO__MQTT__MAX_INFLIGHT: mqtt.max_inflight: expected an integer from 1 to 65535",
        ),
        (
            ("TOMBOLO__LISTENERS__3__BIND", "127.0.0.1:1"),
            "TOMBOLO__LISTENERS__3__BIND: listeners[3].bind: the list has 1 items, so [3] would leave a gap",
        ),
        (
            ("TOMBOLO__LISTENERS__BIND", "x"),
            "TOMBOLO__LISTENERS__BIND: listeners.bind: this is a list: a number selects the item",
        ),
        (
            ("TOMBOLO__LISTENERS__0__NAME__X", "x"),
            "TOMBOLO__LISTENERS__0__NAME__X: listeners[0].name.x: a key inside of a string cannot be set",
        ),
        (("TOMBOLO__CLUSTER__0", "x"), "TOMBOLO__CLUSTER__0: cluster[0]: this is not a list"),
        (
            ("TOMBOLO__CLUSTER____NAME", "x"),
            "TOMBOLO__CLUSTER____NAME: cluster..name: the name of this variable is not a path of keys joined by `__`",
        ),
        (
            ("TOMBOLO__MQTT__UPGRADE_QOS", "true"),
            "TOMBOLO__MQTT__UPGRADE_QOS: mqtt.upgrade_qos: not supported yet: mqtt.upgrade_qos",
        ),
    ];
    let text = "[cluster]\nname = \"A\"\n[[listeners]]\nname = \"x\"\n";
    for (variable, expected) in table {
        let errors = parse("t.toml", text, &environment(&[variable])).unwrap_err();
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [expected], "{variable:?}");
    }
}

/// Text made of the words of the schema, so that the walk is reached and not only the parser.
fn plausible() -> impl Strategy<Value = String> {
    let words = [
        "[cluster]",
        "[[cluster.links]]",
        "[cluster.links.peer]",
        "[[listeners]]",
        "[listeners.ssl]",
        "[mqtt]",
        "[http]",
        "name",
        "bind",
        "type",
        "topics",
        "server",
        "=",
        "=",
        "=",
        "\"A\"",
        "\"ssl\"",
        "\"tcp\"",
        "1",
        "-1",
        "1.5",
        "true",
        "[]",
        "[\"#\"]",
        "{}",
        "1979-05-27",
        "\"15s\"",
        "99999999999999999999",
        "nan",
        "\n",
        "\n",
        "\n",
        "#",
        "é",
        "\"\\u0000\"",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|words| words.join(" "))
}

/// A main file and the links beside it.
fn beside(main: &str, links: &str) -> Result<Settings, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    std::fs::write(&file, main.replace("DATA", &folder.path().display().to_string())).unwrap();
    std::fs::write(folder.path().join("links.toml"), links).unwrap();
    load(Some(&file), &environment(&[])).map_err(|errors| {
        let shown = errors.iter().map(ToString::to_string);
        shown.map(|line| line.replace(&format!("{}/", folder.path().display()), "")).collect()
    })
}

const MAIN: &str = "[cluster]\nname = \"A\"\n[data]\ndir = \"DATA\"\n";
const LINK: &str = "[[cluster.links]]\nname = \"B\"\nserver = \"localhost:1\"\ntopics = []\npeer.username = \"b\"\n\
                    ssl.enable = false\n";

#[test]
fn links_beside_the_file_come_behind_its_own() {
    let own = LINK.replace("\"B\"", "\"C\"").replace("\"b\"", "\"c\"");
    let settings = beside(&format!("{MAIN}{own}"), LINK).unwrap();
    let names: Vec<&str> = settings.cluster.links.iter().map(|link| &*link.name).collect();
    assert_eq!(names, ["C", "B"]);
    assert!(
        settings.cluster.links[0].written.0.ends_with("t.toml:6:8"),
        "{:?}",
        settings.cluster.links[0].written
    );
    assert!(settings.cluster.links[1].written.0.ends_with("links.toml:2:8"));
    // Alone they make the list.
    assert_eq!(beside(MAIN, LINK).unwrap().cluster.links.len(), 1);
    assert_eq!(beside(MAIN, "").unwrap().cluster.links.len(), 0);
}

#[test]
fn there_is_one_way_to_each_cluster_that_is_reached() {
    let named = |name: &str, reach: &str| {
        LINK.replace("\"B\"", &format!("\"{name}\""))
            .replace("\"b\"", &format!("\"{}\"", name.to_lowercase()))
            .replace("topics = []", &format!("topics = []\nreach = {reach}"))
    };
    let both = |first: &str, second: &str| {
        let one = named("B", first);
        let other = named("C", second).replace("[cluster]\n", "");
        beside(MAIN, &format!("{one}{other}")).map(drop)
    };
    assert_eq!(both("[\"D\"]", "[\"E\"]"), Ok(()));
    for (first, second, wrong) in [
        ("[\"C\"]", "[]", "`C` is linked with directly"),
        ("[\"A\"]", "[]", "`A` is this cluster's own name"),
        ("[\"D\", \"D\"]", "[]", "`D` is there twice"),
        ("[\"D\"]", "[\"D\"]", "`D` is reached through `B` too: there must be one way"),
        ("[\"a/b\"]", "[]", "is not a cluster name"),
    ] {
        let errors = both(first, second).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(wrong)), "{first} {second}: {errors:?}");
    }
}

#[test]
fn what_is_wrong_with_links_beside_the_file_is_told_with_their_place() {
    let errors = beside(&format!("{MAIN}{LINK}"), LINK).unwrap_err();
    let twice = "links.toml:2:8: cluster.links[1].name: duplicated_cluster_links: cluster.links[0] is `B` already, at t.toml:6:8";
    assert_eq!(errors, [twice]);
    for (links, wrong) in [
        ("x = ", "links.toml:1:5: "),
        ("[cluster]\nname = \"Z\"\n", "links.toml:2:1: cluster.links: `name` does not belong into this file"),
        ("[mqtt]\n", "links.toml:1:2: cluster.links: `mqtt` does not belong into this file"),
        ("[cluster]\nlinks = 1\n", "links.toml:2:1: cluster.links: this is an integer"),
        (&LINK.replace("[]", "[\"#/#\"]"), "links.toml:4:11: cluster.links[0].topics[0]: "),
    ] {
        let errors = beside(MAIN, links).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(wrong), "{links}: {errors:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![".{0,200}", plausible()], name in "TOMBOLO__[A-Z0-9_]{0,20}", value in ".{0,20}") {
        for variables in [vec![], vec![(name.as_str(), value.as_str())]] {
            if let Err(errors) = parse("t.toml", &text, &environment(&variables)) {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(!error.to_string().contains('\n'), "{error}");
                    if let Place::Text { line, .. } = error.place {
                        prop_assert!(line >= 1 && line <= text.matches('\n').count() + 1);
                    }
                }
            }
        }
    }
}
