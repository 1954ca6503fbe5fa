//! Reload (`interface.md` section 2): all or nothing, and what did not change goes on undisturbed.

use tombolo::broker::server::ReloadError;
use tombolo::mqtt::packet::Version;

use crate::auth::passwords;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;

fn listeners(names: &[&str]) -> String {
    let one =
        |name: &&str| format!("[[listeners]]\nname = \"{name}\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n");
    names.iter().map(one).collect()
}

#[tokio::test]
async fn b7_new_rules_decide_the_next_publish() {
    let mut broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    for (rules, answer, subscribed) in
        [("{allow, all}.", 0x10, 1), ("{deny, all}.", 0x87, 0x87), ("{allow, all}.", 0x10, 1)]
    {
        broker.reload(|setup| setup.acl(rules)).await.unwrap();
        assert_eq!(client.publish("t", b"", Q1).await, answer);
        assert_eq!(client.subscribe("other", Q1).await, subscribed);
    }
    broker.until_metric("tombolo_acl_reloads_total{result=\"ok\"}", 3).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let mut broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    for broken in ["{allow, all}", "{permit, all}.", "{allow, {clientid, {re, \"(\"}}, all, all}."] {
        // The listener that goes with the bad rules is not opened either.
        let result =
            broker.reload(|setup| setup.acl(broken).listeners(&listeners(&["default", "new"]))).await;
        let error = result.unwrap_err();
        assert!(matches!(error, ReloadError::Material(_)), "{error}");
        assert!(error.to_string().contains("acl.conf:1:"), "{error}");
        assert_eq!(broker.server.address("tcp:new"), None);
        assert_eq!(client.publish("t", b"", Q1).await, 0x10);
    }
    broker.until_metric("tombolo_config_reloads_total{result=\"error\"}", 3).await;
}

#[tokio::test]
async fn a_taken_port_changes_nothing() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut broker = broker().await;
    let address = taken.local_addr().unwrap();
    let more = format!("[[listeners]]\nname = \"new\"\ntype = \"tcp\"\nbind = \"{address}\"\n");
    let text = format!("{}{more}", listeners(&["default"]));
    let result = broker.reload(|setup| setup.listeners(&text).acl("{deny, all}.")).await;
    assert!(matches!(result, Err(ReloadError::Bind(_))), "{result:?}");
    let mut client = broker.join(Version::V5, "c").await;
    assert_eq!(client.publish("t", b"", Q1).await, 0x10, "the rules did not change");
}

#[tokio::test]
async fn listeners_come_and_go_and_clients_of_others_stay() {
    let mut broker = Setup::new().listeners(&listeners(&["default", "old"])).start().await;
    let before = broker.address("tcp:default");
    let mut stays = broker.join(Version::V5, "stays").await;
    stays.subscribe("t", Q0).await;
    let mut goes = broker.open_at("tcp:old").await;
    assert_eq!(goes.connect(&hello(Version::V5, "goes")).await, Got::ConnAck(false, 0));
    broker.reload(|setup| setup.listeners(&listeners(&["default", "new"]))).await.unwrap();
    goes.refused(0x98).await;
    assert_eq!(broker.server.address("tcp:old"), None);
    assert_eq!(broker.address("tcp:default"), before, "port 0 keeps the port that was taken");
    let mut new = broker.open_at("tcp:new").await;
    assert_eq!(new.connect(&hello(Version::V5, "new")).await, Got::ConnAck(false, 0));
    new.publish("t", b"x", Q0).await;
    assert_eq!(stays.take().await.text(), "x");
    stays.quiet().await;
}

/// A connection that was accepted before its listener was closed, and sent its CONNECT after.
#[tokio::test]
async fn a_late_connect_on_a_closed_listener_leaves_no_session_behind() {
    let mut broker = Setup::new().listeners(&listeners(&["default", "old"])).start().await;
    let mut late = broker.open_at("tcp:old").await;
    broker.until_metric("tombolo_connections_total{listener=\"tcp\"}", 1).await;
    let closing = broker.reload(|setup| setup.listeners(&listeners(&["default"])));
    let connecting = async {
        tokio::task::yield_now().await;
        late.connect(&hello(Version::V5, "late")).await;
        while late.next().await != Got::Closed {}
    };
    let (reloaded, ()) = tokio::join!(closing, connecting);
    reloaded.unwrap();
    broker.until_metric("tombolo_sessions", 0).await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 0).await;
}

#[tokio::test]
async fn limits_and_passwords_hold_for_who_comes_next() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "old")]);
    let mut broker =
        setup.authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"").start().await;
    let mut client = broker.join(Version::V5, "stays").await;
    broker
        .reload(|setup| {
            passwords(&setup, &[("alice", "new")]);
            setup.mqtt("max_qos_allowed = 1")
        })
        .await
        .unwrap();
    client.quiet().await;
    for (password, reason) in [("old", 0x87), ("new", 0)] {
        let mut next = broker.open().await;
        let asked = tombolo::mqtt::packet::Connect {
            username: Some("alice"),
            password: Some(password.as_bytes()),
            ..hello(Version::V5, "c")
        };
        assert_eq!(next.connect(&asked).await, Got::ConnAck(false, reason), "A11");
    }
}

#[tokio::test]
async fn what_needs_a_restart_is_said_by_name() {
    let mut broker = broker().await;
    let result = broker.reload(|setup| setup.cluster("other")).await;
    let error = result.unwrap_err();
    assert!(matches!(&error, ReloadError::NeedsRestart(_)), "{error}");
    assert!(error.to_string().contains("cluster.name"), "{error}");
}

#[tokio::test]
async fn b8_a_subscription_that_is_denied_now_is_removed() {
    for (deny_action, stays) in [("ignore", true), ("disconnect", false)] {
        let setup = Setup::new().authorization(&format!("deny_action = \"{deny_action}\""));
        let mut broker = setup.start().await;
        let mut client = broker.join(Version::V5, "c").await;
        let mut publisher = broker.join(Version::V5, "p").await;
        for filter in ["denied/#", "$share/g/denied/1", "kept"] {
            client.subscribe(filter, Q0).await;
        }
        let (mut away, _) = broker.stay(Version::V5, "away").await;
        away.subscribe("denied/2", Q1).await;
        away.vanish().await;
        broker.until_metric("tombolo_connections{listener=\"tcp\"}", 2).await;
        let rules = "{deny, all, subscribe, [\"denied/#\"]}.\n{allow, all}.";
        broker.reload(|setup| setup.acl(rules)).await.unwrap();
        for topic in ["denied/1", "denied/2"] {
            assert_eq!(publisher.publish(topic, b"", Q1).await, 0x10, "{topic}");
        }
        if stays {
            publisher.publish("kept", b"x", Q1).await;
            assert_eq!(client.take().await.topic, "kept");
            assert_eq!(client.unsubscribe(&["denied/#", "kept"]).await, [0x11, 0]);
            client.quiet().await;
        } else {
            client.refused(0x87).await;
        }
    }
}
