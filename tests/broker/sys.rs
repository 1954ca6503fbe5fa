//! `$SYS/broker/...`, under mosquitto's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use tombolo::admin::announcer;
use tombolo::admin::trust::Book;
use tombolo::admin::trust::Own;
use tombolo::admin::trust::Shelf;
use tombolo::broker::events::event::What;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::net::clock;
use tombolo::trust::Fingerprint;
use tombolo::trust::book::NewIdentity;
use tombolo::trust::group::Permission;
use tombolo::trust::identity::Kind;
use tombolo::trust::leaf::Leaf;
use tombolo::trust::leaf::Purpose;

use crate::certificates::enter;
use crate::certificates::until;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Setup;
use crate::harness::broker;
use crate::harness::hello;
use crate::harness::message;
use crate::transports::Authority;
use crate::transports::Issued;

#[tokio::test]
async fn who_subscribes_hears_of_the_broker() {
    let broker = broker().await;
    let mut client = broker.join(Version::V5, "c").await;
    let (away, _) = broker.stay(Version::V5, "away").await;
    away.vanish().await;
    broker.until_metric("tombolo_connections{listener=\"tcp\"}", 1).await;
    client.subscribe("#", Q0).await;
    client.subscribe("$SYS/#", Q1).await;
    let mut values = BTreeMap::new();
    for _ in 0..15 {
        let message = client.receive().await;
        assert_eq!((message.qos, message.retain), (Q0, false));
        values.insert(message.topic.clone(), message.text().to_owned());
    }
    let expected = [
        ("clients/total", "2"),
        ("clients/connected", "1"),
        ("clients/disconnected", "1"),
        ("subscriptions/count", "2"),
        ("retained messages/count", "0"),
        ("version", concat!("tombolo version ", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in expected {
        assert_eq!(values[&format!("$SYS/broker/{name}")], value, "{name}");
    }
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    assert_eq!(values.len(), 15);
}

#[tokio::test]
async fn the_shipped_rules_keep_it_to_themselves() {
    let broker = Setup::new().acl(include_str!("../../acl/acl.conf")).start().await;
    let mut client = broker.join(Version::V5, "c").await;
    assert_eq!(client.publish("$SYS/broker/uptime", b"0", Q1).await, 0x87);
    let denied = client.subscribe("$SYS/broker/clients/total", Q0).await;
    assert_eq!(denied, 0x87);
}

/// Whatever the rules allow: what the broker says of itself is not forged, and what only begins a filter names no topic. Nothing
/// retained stays where nobody could find it.
#[tokio::test]
async fn no_client_publishes_to_sys_or_to_a_shared_filter() {
    let broker = broker().await;
    let denied = "tombolo_acl_denied_total{action=\"publish\",reason=\"confined_client\"}";
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("$SYS/broker/connection/#", Q1).await;
    watcher.subscribe("$share/g/t", Q1).await;
    let reserved = [
        "$SYS/x",
        "$SYS",
        "$share/g/t",
        "$queue/t",
        "$exclusive/t",
        "$delayed/1/$SYS/x",
        "$delayed/1/$share/g/t",
    ];
    let mut client = broker.join(Version::V5, "c").await;
    for topic in reserved {
        for (qos, retain) in [(Q1, false), (Q1, true), (Q2, true)] {
            assert_eq!(
                client.publish_as(Publish { qos, retain, ..message(topic, b"x") }).await,
                0x87,
                "{topic}"
            );
        }
    }
    // A verdict is remembered for a topic, and so is counted once.
    let so_far = broker.metric(denied);
    assert!(so_far >= reserved.len() as u64, "{so_far}");
    let mut older = broker.join(Version::V311, "older").await;
    older.publish_as(Publish { qos: Q1, retain: true, ..message("$SYS/x", b"x") }).await;
    older.quiet().await;
    broker.until_metric(denied, so_far + 1).await;
    let will =
        Will { qos: Q1, retain: true, properties: Properties::EMPTY, topic: "$share/g/t", payload: b"x" };
    let (with_will, _) = broker.try_stay(&Connect { will: Some(will), ..hello(Version::V5, "will") }).await;
    with_will.vanish().await;
    broker.until_metric(denied, so_far + 2).await;
    watcher.quiet().await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);

    // The one exception: a bridge of mosquitto says there whether it is connected.
    let state = Publish { qos: Q1, retain: true, ..message("$SYS/broker/connection/edge-1/state", b"1") };
    assert_eq!(client.publish_as(state).await, 0);
    assert_eq!(watcher.receive().await.text(), "1");
    assert_eq!(broker.metric("tombolo_retained_messages"), 1);
}

/// Security events go to operators who may see them, by certificate, and to nobody else, whatever the rules allow.
#[tokio::test]
async fn operators_hear_of_security_events() {
    let authority = Authority::new();
    let server = authority.issue("localhost");
    let keys = authority.server_keys(&server);
    let listener = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{keys}\nverify = \"verify_peer\"\n"
    );
    let broker = Setup::new().listeners(&listener).start().await;
    let (ada, eve) = (authority.issue("ada"), authority.issue("eve"));
    let mut clients = Vec::new();
    for (own, id) in [(&ada, "ada"), (&eve, "eve")] {
        let mut client = enter(&broker, &authority, own, id).await.unwrap();
        client.subscribe("$SYS/brokers/#", Q1).await;
        clients.push(client);
    }
    let shelf = Arc::new(Shelf::default());
    shelf.set(Arc::new(book_with(&[(&ada, "ada", "can_view_events"), (&eve, "eve", "viewer")])));
    let inner = Arc::clone(broker.server.broker());
    let others = inner.events.followers();
    let announcing = tokio::spawn(announcer::run(Arc::clone(&inner), Arc::clone(&shelf), "n1".to_owned()));
    let [ada, eve] = &mut clients[..] else { unreachable!() };
    until(|| inner.events.followers() > others).await;
    inner.security_note(What::Admin { act: "test" }, "something happened", clock::now());
    loop {
        let heard = ada.receive().await;
        assert_eq!((&*heard.topic, heard.qos), ("$SYS/brokers/n1/events/security", Q1));
        if heard.text().contains("\"description\":\"something happened\"") {
            break;
        }
    }
    eve.quiet().await;
    // Out of office from now on.
    shelf.set(Arc::default());
    inner.security_note(What::Admin { act: "test" }, "something else", clock::now());
    until(|| inner.events.followers() == others).await;
    ada.quiet().await;
    announcing.abort();
}

/// Operators with these certificates, each with one entitlement.
fn book_with(operators: &[(&Issued, &str, &str)]) -> Book {
    let mut book = Book::default();
    let own = Own::bare("A", "clink-A-", Fingerprint([1; 32]));
    for (number, (issued, name, entitlement)) in (1..).zip(operators) {
        let groups = [format!("{name}s")];
        book.create_group(&groups[0], "").unwrap();
        book.add_permission(&groups[0], Permission::parse(&["server", entitlement]).unwrap()).unwrap();
        let leaf = Leaf::read(&issued.read().0[0], Purpose::Admin).unwrap();
        let new = NewIdentity {
            kind: Kind::Admin,
            name,
            prefix: None,
            groups: &groups,
            addrs: &[],
            caps: &[],
            leaf: &leaf,
            description: "",
            operator: "test",
        };
        book.create_identity(&own, &new, [number; 16], clock::now().unix_ms / 1000).unwrap();
    }
    book
}
