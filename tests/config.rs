//! Files that must be refused, each with every error it must name; and the example that must load.
//!
//! A fixture ends in lines `# error: line:column: key: message`, one for each error, in order.

use std::path::Path;
use std::path::PathBuf;

use tombolo::config;
use tombolo::config::Environment;
use tombolo::config::settings::Role;
use tombolo::config::settings::Settings;
use tombolo::config::settings::TlsVersions;
use tombolo::config::settings::Verify;

const EXPECTATION: &str = "# error: ";

fn manifest_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn environment() -> Environment {
    Environment { host_name: "vm".to_owned(), ..Environment::default() }
}

#[test]
fn bad_files_are_refused_with_every_error_in_its_place() {
    let mut names: Vec<PathBuf> = std::fs::read_dir(manifest_path("tests/fixtures/config/bad"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "the fixtures are found");
    for path in names {
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(EXPECTATION)).collect();
        let errors = config::load(Some(&path), &environment()).unwrap_err();
        let prefix = format!("{}:", path.display());
        let found: Vec<String> = errors
            .iter()
            .map(|error| error.to_string().strip_prefix(&prefix).expect("an error names its file").to_owned())
            .collect();
        assert_eq!(found, expected, "{}", path.display());
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = config::load(Some(Path::new("no/such.toml")), &environment()).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("no/such.toml: cannot read this file: "), "{}", errors[0]);
}

fn example(name: &str) -> Settings {
    let path = manifest_path(&format!("config/two-clusters/{name}.toml"));
    config::load(Some(&path), &environment()).expect("the example has no errors")
}

/// The two files fit together: each has a door for the other, who will be known by its fingerprint.
#[test]
fn the_two_clusters_of_the_example_can_be_tied() {
    let (a, b) = (example("a"), example("b"));
    for mine in [&a, &b] {
        assert!(mine.cluster.links.is_empty(), "a token makes the link");
        let door = mine.listeners.iter().find(|listener| listener.role == Role::Link).unwrap();
        let tls = door.ssl.as_ref().unwrap();
        assert_eq!(
            (&tls.certfile, tls.verify, tls.fail_if_no_peer_cert, tls.versions),
            (&None, Verify::Peer, true, TlsVersions::ONLY_13)
        );
        let anonymous = "authentication.allow_anonymous: clients without credentials are allowed";
        assert_eq!(config::warnings(mine), [anonymous]);
        assert!(mine.listeners.iter().all(|listener| listener.bind.is_loopback()));
    }
    assert_ne!(a.cluster.name, b.cluster.name);
    let binds: Vec<String> =
        a.listeners.iter().chain(&b.listeners).map(|listener| listener.bind.to_string()).collect();
    let mut unique = binds.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), binds.len(), "{binds:?}");
    assert_ne!(a.http.bind, b.http.bind);
    assert_ne!(a.data.dir, b.data.dir);
}
