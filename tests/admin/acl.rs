//! The rules of a running broker, over REST and by the commands: checked, explained, swapped, and tried beside others.
//! What the commands print of a file is kept in `tests/fixtures/acl/printed`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use serde_json::json;
use tokio::process::Command;
use tombolo::config::settings::AclSource;
use tombolo::mqtt::packet::Version;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::node::Running;
use crate::node::start_with;

const RULES: &str = "{deny, all, publish, [\"no/#\"]}.\n{allow, all, all, [\"#\"]}.\n";

/// A broker with an ACL file that may be written.
async fn ruled(rules: &str) -> Running {
    let mut file = None;
    let running = start_with(|settings| {
        let AclSource::File(path) = &settings.authorization.file else { unreachable!() };
        fs::write(path, rules).unwrap();
        file = Some(path.clone());
    })
    .await;
    assert!(file.is_some());
    running
}

fn file(running: &Running) -> std::path::PathBuf {
    let AclSource::File(path) = running.setup.settings().authorization.file else { unreachable!() };
    path
}

/// Exit code, standard output and standard error of the program, run where the files of this package are.
async fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("TOMBOLO_KEY")
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn ran(running: &Running, arguments: &[&str]) -> (i32, String, String) {
    let data = running.data();
    run(&[arguments, &["--data", data.to_str().unwrap()]].concat()).await
}

/// What was printed, with its exit code in front, as it is kept.
async fn printed(name: &str, arguments: &[&str]) {
    let (code, out, error) = run(arguments).await;
    let found = format!(
        "exit {code}\n{out}{}",
        if error.is_empty() { String::new() } else { format!("-- standard error\n{error}") }
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/acl/printed").join(name);
    if std::env::var_os("TOMBOLO_PRINT").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
}

/// With `TOMBOLO_PRINT=1` the files are written instead; read what changed before you keep it.
#[tokio::test]
async fn the_commands_print_what_is_kept() {
    let s1 = "tests/fixtures/acl/rules/S1.conf";
    let rules = "tests/fixtures/acl/explained.conf";
    let lab = ["--config", "tests/fixtures/acl/links.toml"];
    printed("check-clean.txt", &["acl", "check", "acl/cluster-a.conf"]).await;
    printed("check-recipe.txt", &["acl", "check", "acl/link-recipe.conf"]).await;
    printed("check-malformed.txt", &["acl", "check", "tests/fixtures/acl/malformed.conf"]).await;
    printed("check.json", &["acl", "check", "tests/fixtures/acl/malformed.conf", "--format", "json"]).await;
    printed("matrix-recipe.txt", &["acl", "matrix", s1]).await;
    let bare = "tests/fixtures/acl/explained.conf";
    printed("matrix-generated.txt", &["acl", "matrix", bare, lab[0], lab[1]]).await;
    printed("show-generated.txt", &["acl", "show", "--generated", lab[0], lab[1]]).await;
    printed("export-emqx.txt", &["acl", "export", "--emqx", lab[0], lab[1]]).await;
    printed("export-emqx-one.txt", &["acl", "export", "--emqx", "--peer", "C", lab[0], lab[1]]).await;
    printed("export-emqx-none.txt", &["acl", "export", "--emqx", "--peer", "B", lab[0], lab[1]]).await;
    printed("matrix.csv", &["acl", "matrix", "acl/links.conf", "--format", "csv"]).await;
    let machine = ["acl", "explain", rules, "--clientid", "m-1", "--username", "machine"];
    let explain = |more: &[&'static str]| [&machine[..], more].concat();
    printed("explain-allow.txt", &explain(&["--publish", "site/1/m-1/state", "--qos", "1"])).await;
    printed("explain-deny.txt", &explain(&["--subscribe", "$share/g/site/+/+/state"])).await;
    printed("explain.json", &explain(&["--publish", "x", "--retain", "--format", "json"])).await;
    let peer =
        ["acl", "explain", s1, lab[0], lab[1], "--username", "clink-user:A", "--listener", "ssl:links"];
    let explain = |more: &[&'static str]| [&peer[..], more].concat();
    let route = ["--clientid", "clink-A-:r", "--publish", "$LINK/cluster/route/C", "--qos", "1"];
    printed("explain-confined.txt", &explain(&route)).await;
    let own = ["--clientid", "clink-A-:r", "--publish", "$LINK/cluster/route/A", "--qos", "1"];
    printed("explain-peer.txt", &explain(&own)).await;
    let forged = ["--clientid", "clink-C-:r", "--publish", "$LINK/cluster/route/C", "--qos", "1"];
    printed("explain-forged.txt", &explain(&forged)).await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_invalid_input() {
    let file = "acl/acl.conf";
    for arguments in [
        &["acl", "explain", file, "--clientid", "c"][..],
        &["acl", "explain", file, "--clientid", "c", "--publish", "a/#"],
        &["acl", "explain", file, "--clientid", "c", "--subscribe", "a#"],
        &["acl", "explain", file, "--clientid", "c", "--publish", "a", "--subscribe", "b"],
        &["acl", "explain", file, "--clientid", "c", "--publish", "a", "--qos", "3"],
        &["acl", "explain", file, "--clientid", "c", "--publish", "a", "--attr", "x"],
        &["acl", "explain", file, "--clientid", "c", "--publish", "a", "--fingerprint", "x"],
        &["acl", "explain", "tests/fixtures/acl/malformed.conf", "--clientid", "c", "--publish", "a"],
        &["acl", "matrix", "nowhere.conf"],
        &["acl", "check", "nowhere.conf"],
    ] {
        let (code, out, error) = run(arguments).await;
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn a_client_that_is_there_is_explained_as_it_is() {
    let running = ruled(RULES).await;
    let _client = running.join(Version::V5, "sensor-1").await;
    let ask = async |body: Value| running.post("/api/v5/acl/explain", &body).await;
    let question = json!({"clientid": "sensor-1", "action": "publish", "topic": "no/1", "qos": 1});
    let answer = ask(question).await;
    let explained = answer.json();
    assert_eq!(
        (answer.0, &explained["permission"], &explained["by"]),
        (200, &json!("deny"), &json!("rule 1 (line 1)"))
    );
    assert_eq!(explained["chain"][0]["says"], "tcp:default is of role client");
    let answer =
        ask(json!({"clientid": "other", "action": "subscribe", "topic": "$share/g/a", "username": "u"}))
            .await;
    let explained = answer.json();
    assert_eq!((&explained["permission"], &explained["seen_topic"]), (&json!("allow"), &json!("a")));
    assert_eq!(explained["passed"][0]["part"], "action");
    for wrong in [
        json!({"clientid": "c", "action": "publish", "topic": "a/#"}),
        json!({"clientid": "c", "action": "fly", "topic": "a"}),
        json!({"clientid": "c", "action": "subscribe", "topic": "a", "retain": true}),
        json!({"clientid": "c", "action": "publish", "topic": "a", "peerhost": "here"}),
        json!({"clientid": "c", "action": "publish", "topic": "a", "fingerprint": "x"}),
        json!({"clientid": "c", "action": "publish", "topic": "a", "client_attrs": {"a": 1}}),
        json!({"clientid": "c", "action": "publish", "topic": "a", "qos": 3}),
    ] {
        assert_eq!(ask(wrong.clone()).await.0, 400, "{wrong}");
    }
    let (code, out, _) =
        ran(&running, &["acl", "explain", "--clientid", "sensor-1", "--publish", "no/1"]).await;
    assert!(
        code == 3 && out.ends_with("deny: `sensor-1` to publish `no/1` at QoS 0: rule 1 (line 1)\n"),
        "{out}"
    );
    let (code, _, _) = ran(&running, &["acl", "explain", "--clientid", "x", "--publish", "yes"]).await;
    assert_eq!(code, 0);
    let matrix = running.ask("GET", "/api/v5/acl/matrix").await.json();
    assert_eq!(matrix["data"][0]["msg"], "confined", "{matrix}");
    assert_eq!(ran(&running, &["acl", "matrix"]).await.0, 0);
    let checked = running.post("/api/v5/acl/check", &json!({"text": "{alow, all}."})).await.json();
    assert_eq!((&checked["valid"], &checked["errors"][0]["code"]), (&json!(false), &json!("E203")));
    running.node.stop().await;
}

#[tokio::test]
async fn a_reload_of_the_rules_is_all_or_nothing_and_says_what_changed() {
    let running = ruled(RULES).await;
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("yes/#", Q1).await;
    client.subscribe("other", Q1).await;
    assert_eq!(client.publish("no/1", b"", Q1).await, 0x87);
    fs::write(file(&running), "{deny, all, publish, [\"no/#\"]}\n").unwrap();
    let refused = running.ask("POST", "/api/v5/acl/reload").await;
    assert!(refused.0 == 400 && refused.1.contains("E102"), "{refused:?}");
    let (code, _, error) = ran(&running, &["acl", "reload"]).await;
    assert!(code == 2 && error.contains("acl.conf:1:"), "{error}");
    assert_eq!(client.publish("yes/1", b"", Q1).await, 0, "the rules in force stay");
    client.receive().await;
    fs::remove_file(file(&running)).unwrap();
    assert_eq!(running.ask("POST", "/api/v5/acl/reload").await.0, 400);
    fs::write(file(&running), "{deny, all, subscribe, [\"yes/#\"]}.\n{allow, all, all, [\"#\"]}.\n").unwrap();
    let (code, out, _) = ran(&running, &["acl", "reload"]).await;
    let told = "- line 1: {deny, all, publish, [\"no/#\"]}.\n\
                + line 1: {deny, all, subscribe, [\"yes/#\"]}.\n\
                rules: 1 added, 1 removed, 0 moved; 2 in force; subscriptions removed: 1\n";
    assert_eq!((code, out.as_str()), (0, told));
    assert_eq!(client.publish("no/1", b"", Q1).await, 0x10, "what was remembered is asked again");
    assert_eq!(client.publish("yes/1", b"", Q1).await, 0x10, "nobody subscribes to it any more");
    let again = running.ask("POST", "/api/v5/acl/reload").await.json();
    assert_eq!((&again["summary"], &again["changes"]), (&json!("the same rules"), &json!([])));
    let metrics = running.ask("GET", "/metrics").await.1;
    for sample in
        ["acl_reloads_total{result=\"ok\"} 2", "acl_reloads_total{result=\"error\"} 3", "acl_generation 2"]
    {
        assert!(metrics.contains(&format!("tombolo_{sample}\n")), "{sample}");
    }
    running.node.stop().await;
}

#[tokio::test]
async fn rules_on_trial_count_and_decide_nothing_until_they_are_applied() {
    let running = ruled(RULES).await;
    let new = "{deny, all, all, [\"secret/#\"]}.\n{allow, all, all, [\"#\"]}.\n";
    let trial = running.data().join("new.conf");
    fs::write(&trial, new).unwrap();
    for (method, path) in [("GET", "acl/shadow"), ("DELETE", "acl/shadow"), ("POST", "acl/shadow/apply")] {
        assert_eq!(running.ask(method, &format!("/api/v5/{path}")).await.0, 404, "{path}");
    }
    let mut client = running.join(Version::V5, "c").await;
    client.subscribe("secret/#", Q0).await;
    assert_eq!(running.post("/api/v5/acl/shadow", &json!({"text": "{allow, all}"})).await.0, 400);
    let (code, out, error) = ran(&running, &["acl", "reload", "--shadow", trial.to_str().unwrap()]).await;
    assert!(code == 0 && out.contains("on trial"), "{out}{error}");
    for (topic, reason) in [("secret/1", 0x00), ("no/1", 0x87), ("yes", 0x10)] {
        for _ in 0..2 {
            assert_eq!(client.publish(topic, b"", Q1).await, reason, "{topic}");
        }
    }
    let shadow = running.ask("GET", "/api/v5/acl/shadow").await.json();
    // The subscription there was, and three topics once each.
    assert_eq!((&shadow["asked"], &shadow["rules"]), (&json!(4), &json!(2)), "{shadow}");
    let changes: Vec<_> = shadow["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (&it["line"], &it["allowed"], &it["denied"]))
        .collect();
    assert_eq!(changes, [(&json!(1), &json!(0), &json!(2)), (&json!(2), &json!(1), &json!(0))]);
    let (_, csv, _) = ran(&running, &["acl", "shadow", "show", "--format", "csv"]).await;
    assert!(csv.contains("c to subscribe to secret/#: allowed by rule 2 (line 2)"), "{csv}");
    let applied = running.ask("POST", "/api/v5/acl/shadow/apply").await;
    assert_eq!((applied.0, &applied.json()["subscriptions_removed"]), (200, &json!(1)), "{applied:?}");
    assert_eq!(fs::read_to_string(file(&running)).unwrap(), new);
    assert_eq!(client.publish("secret/1", b"", Q1).await, 0x87);
    assert_eq!(running.ask("GET", "/api/v5/acl/shadow").await.0, 404);
    // One that is dropped leaves everything as it was.
    running.post("/api/v5/acl/shadow", &json!({"text": "{deny, all}.", "name": "closed"})).await;
    assert_eq!(ran(&running, &["acl", "shadow", "drop"]).await.0, 0);
    assert_eq!(client.publish("yes", b"", Q1).await, 0x10);
    assert_eq!(ran(&running, &["acl", "shadow", "show"]).await.0, 4);
    running.node.stop().await;
}

#[tokio::test]
async fn a_trial_is_applied_to_a_file_that_can_be_written_or_not_at_all() {
    let built_in = start_with(|settings| settings.authorization.file = AclSource::Embedded).await;
    built_in.post("/api/v5/acl/shadow", &json!({"text": "{allow, all}."})).await;
    assert_eq!(built_in.ask("POST", "/api/v5/acl/shadow/apply").await.0, 409);
    assert_eq!(built_in.ask("GET", "/api/v5/acl/shadow").await.0, 200, "it goes on");
    built_in.node.stop().await;
    let running = ruled(RULES).await;
    running.post("/api/v5/acl/shadow", &json!({"text": "{allow, all}."})).await;
    // Its folder is gone: nowhere to write to.
    fs::remove_file(file(&running)).unwrap();
    let failed = running.ask("POST", "/api/v5/acl/shadow/apply").await;
    assert!(failed.0 == 500 && failed.1.contains("acl.conf"), "{failed:?}");
    let mut client = running.join(Version::V5, "c").await;
    assert_eq!(client.publish("no/1", b"", Q1).await, 0x87, "the rules in force stay");
    running.node.stop().await;
}
