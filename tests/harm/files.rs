//! Classes I and O: files that fail open no door, and what we write is its owner's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tombolo::broker::server::Server;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;

use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::hello;
use crate::process::Process;

const PASSWORDS: &str = "allow_anonymous = false\npassword_file = \"{dir}/passwd\"";

/// No rule: nothing is allowed.
#[tokio::test]
async fn an_acl_file_without_rules_allows_nothing() {
    for text in ["", "\n\n", "%% {allow, all}.\n"] {
        let broker = Setup::new().acl(text).start().await;
        let mut client = broker.join(Version::V5, "c").await;
        assert_eq!(client.publish("t", b"x", Q1).await, 0x87, "{text:?}");
        assert_eq!(client.subscribe("t", Q1).await, 0x87, "{text:?}");
    }
}

#[tokio::test]
async fn a_password_file_without_users_lets_nobody_in() {
    for text in ["", "# alice:x\n", "\n"] {
        let setup = Setup::new().authentication(PASSWORDS);
        setup.file("passwd", text);
        let broker = setup.start().await;
        for (username, password) in [
            (None, None),
            (Some("alice"), None),
            (Some("alice"), Some(&b"x"[..])),
            (Some(""), Some(&b""[..])),
        ] {
            let mut client = broker.open().await;
            let got = client.connect(&Connect { username, password, ..hello(Version::V5, "c") }).await;
            assert_eq!(got, Got::ConnAck(false, 0x87), "{username:?} with {text:?}");
        }
    }
}

/// Makes one file of a setup bad.
type Spoil = fn(&Setup);

const SPOILT: [(&str, Spoil); 7] = [
    ("rules with an error", |setup| drop(setup.file("acl.conf", "{allow, all}.\n{deny"))),
    ("rules that are not text", |setup| drop(setup.file("acl.conf", "{allow, all}.\0\u{1}("))),
    ("rules without end", |setup| drop(setup.file("acl.conf", &"{allow, all}.\n".repeat(200_000)))),
    ("rules that cannot be read", |setup| unreadable(&setup.path("acl.conf"))),
    ("a password in the clear", |setup| drop(setup.file("passwd", "alice:secret\n"))),
    ("passwords without end", |setup| drop(setup.file("passwd", &"# comment\n".repeat(4_000_000)))),
    ("passwords that cannot be read", |setup| unreadable(&setup.path("passwd"))),
];

/// A folder in place of the file: unreadable for root too.
fn unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_no_start() {
    for (name, spoil) in SPOILT {
        let setup = Setup::new().authentication(PASSWORDS);
        setup.file("passwd", "");
        spoil(&setup);
        let error =
            Server::start(setup.settings()).await.err().unwrap_or_else(|| panic!("it started with {name}"));
        println!("class I: {name}: {}", error.to_string().lines().next().unwrap_or_default());
    }
}

#[tokio::test]
async fn a_bad_file_at_a_reload_leaves_the_last_good_ones() {
    for (name, spoil) in SPOILT {
        let setup = Setup::new()
            .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
            .acl("{deny, all, all, [\"secret\"]}.\n{allow, all}.");
        setup.file("passwd", "");
        let mut broker = setup.start().await;
        let mut client = broker.join(Version::V5, "c").await;
        let reloaded = broker
            .reload(|setup| {
                spoil(&setup);
                setup
            })
            .await;
        assert!(reloaded.is_err(), "{name}");
        assert_eq!(client.publish("secret", b"x", Q1).await, 0x87, "{name}");
        assert_eq!(client.publish("t", b"x", Q1).await, 0x10, "{name}");
        let mut other = broker.open().await;
        let asked = Connect { username: Some("alice"), password: Some(b"secret"), ..hello(Version::V5, "o") };
        assert_eq!(other.connect(&asked).await, Got::ConnAck(false, 0x87), "{name}");
    }
}

/// A data directory in use, with an API key and a password file written by the commands.
#[tokio::test]
async fn what_is_written_is_for_its_owner_alone() {
    let setup = Setup::new();
    let (data, passwd) = (setup.path("data"), setup.path("passwd"));
    let _broker = Process::start(setup).await;
    let run = |arguments: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_tombolo")).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    run(&["auth", "key", "create", "ci", "--data", data.to_str().unwrap()]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["passwd", passwd.to_str().unwrap(), "alice", "--stdin"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"secret\n").unwrap();
    assert!(child.wait().unwrap().success());
    let mut pending = vec![data, passwd];
    let mut seen = Vec::new();
    while let Some(path) = pending.pop() {
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            seen.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(seen.iter().any(|name| name == "admin.sock") && seen.len() >= 3, "{seen:?}");
    println!("class O: nobody else reads {seen:?}");
}
