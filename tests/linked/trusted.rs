//! Clusters that come to trust each other by a token (trust.md 2.3 to 2.6): real listeners, real links, no certificate by hand.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio::time;
use tombolo::admin::links::LinkChange;
use tombolo::admin::links::LinkEdit;
use tombolo::admin::rest::Change;
use tombolo::admin::rest::Problem;
use tombolo::admin::steward::Steward;
use tombolo::admin::trust;
use tombolo::admin::trust::Applied;
use tombolo::admin::trust::Book;
use tombolo::admin::trust::Own;
use tombolo::admin::trust::TrustChange;
use tombolo::admin::trust::TrustError;
use tombolo::admin::trust::join;
use tombolo::admin::trust::join::Order;
use tombolo::admin::trust::rotate;
use tombolo::admin::trust::rotate::Scene;
use tombolo::broker::Broker;
use tombolo::broker::events::Wanted;
use tombolo::config::Environment;
use tombolo::config::Sources;
use tombolo::link::compress;
use tombolo::link::extension::Capabilities;
use tombolo::link::payload;
use tombolo::link::payload::ActorInit;
use tombolo::metrics::labels::LinkState;
use tombolo::metrics::labels::SecurityEvent;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;
use tombolo::net::clock;
use tombolo::net::dial::dial;
use tombolo::net::own_certificate::Pair;
use tombolo::net::random;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;
use tombolo::trust::Fingerprint;
use tombolo::trust::Token;
use tombolo::trust::address;
use tombolo::trust::book::NewIdentity;
use tombolo::trust::book::NewLink;
use tombolo::trust::group::LINK_PEER;
use tombolo::trust::group::Permission;
use tombolo::trust::identity::Kind;
use tombolo::trust::identity::State;
use tombolo::trust::leaf::Leaf;
use tombolo::trust::leaf::Purpose;
use tombolo::trust::rights::OperatorRights;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::a_moment;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;
use crate::pair::eventually;

/// The group whose members may send and have everything.
pub(crate) const EVERYTHING: &str = "everything";

/// A cluster of one node, run as `serve` does it.
pub(crate) struct Cluster {
    pub(crate) scene: Scene,
    pub(crate) broker: Arc<Broker>,
    mqtt: SocketAddr,
    links: SocketAddr,
    pub(crate) folder: TempDir,
    stop: mpsc::Sender<()>,
    running: JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), name, "").await
    }

    /// With more lines for the listener of links.
    async fn start_in(folder: TempDir, name: &'static str, ssl: &str) -> Self {
        let links = format!(
            "[[listeners]]\nname = \"links\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n{ssl}"
        );
        Self::start_with(folder, name, &links).await
    }

    /// One that nobody can dial.
    pub(crate) async fn unreachable(name: &'static str) -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), name, "").await
    }

    async fn start_with(folder: TempDir, name: &'static str, links: &str) -> Self {
        let text = format!(
            "[cluster]\nname = \"{name}\"\nnode = \"n@{name}\"\n[data]\ndir = \"{dir}/data\"\ndurability = \"memory\"\n\
             [http]\nbind = \"127.0.0.1:0\"\n[authentication]\nallow_anonymous = true\n\
             [authorization]\nfile = \"{dir}/acl.conf\"\n\
             [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n{links}",
            dir = folder.path().display()
        );
        fs::write(folder.path().join("t.toml"), text).unwrap();
        let acl = "{allow, {client_attr, \"link_id\", {re, \"\"}}, all, [\"$LINK/#\"]}.\n{deny, all, all, [\"$LINK/#\"]}.\n\
                   {allow, all}.\n";
        fs::write(folder.path().join("acl.conf"), acl).unwrap();
        Self::run(folder).await
    }

    pub(crate) async fn run(folder: TempDir) -> Self {
        let environment = Environment::default();
        let sources = Sources::read(Some(&folder.path().join("t.toml")), &environment).unwrap();
        let settings = sources.settings(&environment).unwrap();
        let mut steward = Steward::start(sources, settings).await.unwrap();
        let (scene, broker) = (steward.scene(), Arc::clone(steward.node.server().broker()));
        let address = |listener| steward.node.server().address(listener);
        let mqtt = address("tcp:default").unwrap();
        let links = address("ssl:links").unwrap_or(mqtt);
        let (stop, mut stopped) = mpsc::channel(1);
        let running = tokio::spawn(async move {
            tokio::select! {
                () = steward.run() => {}
                _ = stopped.recv() => {}
            }
            steward.stop().await;
        });
        Self { scene, broker, mqtt, links, folder, stop, running }
    }

    pub(crate) fn links(&self) -> SocketAddr {
        self.links
    }

    /// Stops it; what it was made of.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.stop);
        self.running.await.unwrap();
        self.folder
    }

    pub(crate) async fn change<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut Book, &Own<'_>, u64) -> Result<T, TrustError> + Send + 'static,
    ) -> Result<T, Problem> {
        let (out, made) = oneshot::channel();
        let apply = move |book: &mut Book, own: &Own<'_>, now| {
            let _ = out.send(make(book, own, now)?);
            Ok(Applied::default())
        };
        trust::ask(&self.scene.changes, TrustChange { name: "test", apply: Box::new(apply) }).await?;
        Ok(made.await.unwrap())
    }

    /// `auth group create everything` and its permissions.
    pub(crate) async fn grant_everything(&self) {
        self.change(|book, _, _| {
            book.create_group(EVERYTHING, "")?;
            for entitlement in ["can_import", "can_export"] {
                book.add_permission(EVERYTHING, Permission::parse(&["topic", "#", entitlement]).unwrap())?;
            }
            Ok(())
        })
        .await
        .unwrap();
    }

    /// `link create PEER`
    pub(crate) async fn issue(
        &self,
        peer: &'static str,
        groups: &'static [&'static str],
    ) -> Result<Token, Problem> {
        let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
        self.change(move |book, own, now| {
            let new = NewLink { groups: &groups, ..NewLink::named(peer, "test") };
            Ok(book.issue(own, &new, random::bytes(), random::bytes(), now)?.token)
        })
        .await
    }

    /// `link create ISSUER --token …`
    pub(crate) async fn join(&self, token: &Token, groups: &[&str]) -> Result<Value, Problem> {
        self.join_from(token, groups, &[]).await
    }

    /// The same with `--address`.
    async fn join_from(&self, token: &Token, groups: &[&str], addrs: &[&str]) -> Result<Value, Problem> {
        let order = Order {
            token: token.clone(),
            name: None,
            fingerprint: None,
            groups: groups.iter().map(|name| (*name).to_owned()).collect(),
            topics: vec!["#".to_owned()],
            addrs: addrs.iter().map(|server| address::parse(server).unwrap()).collect(),
            remote: Vec::new(),
            description: String::new(),
            operator: "test".to_owned(),
            rights: OperatorRights::admin(),
            replace: false,
            unidirectional: false,
        };
        join::join(&self.scene.changes, &self.scene.keys, order).await
    }

    /// The same, as often as it takes: one a second is let in from an address.
    async fn join_patiently(&self, token: &Token, groups: &[&str]) -> Result<Value, Problem> {
        loop {
            match self.join(token, groups).await {
                Err(problem) if format!("{problem:?}").contains("a moment ago") => {
                    a_moment().await;
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) async fn edit(&self, name: &str, change: LinkChange) -> Result<(), Problem> {
        let (answer, answered) = oneshot::channel();
        let edit = LinkEdit { name: name.to_owned(), change };
        self.scene.changes.send(Change::Link(edit, answer)).await.unwrap();
        answered.await.unwrap()
    }

    /// `link set PEER topics=#`
    async fn want_everything(&self, peer: &str) {
        let link = self.broker.links.get(peer).unwrap();
        let server = link.settings.servers[0].to_string();
        let wanted = json!({"server": server, "topics": ["#"], "trust": "pin"});
        self.edit(peer, LinkChange::Replace(wanted)).await.unwrap();
    }

    pub(crate) async fn client(&self, id: &str) -> Client {
        let mut client = Client::over(TcpStream::connect(self.mqtt).await.unwrap());
        assert_eq!(client.connect(&hello(Version::V5, id)).await, Got::ConnAck(false, 0));
        client
    }

    pub(crate) async fn until_linked(&self, peer: &str) {
        until(|| self.broker.links.get(peer).is_some_and(|link| link.metrics.state.is(LinkState::Active)))
            .await;
    }

    pub(crate) fn state_of(&self, peer: &str) -> Option<State> {
        self.scene.shelf.book().link(peer).map(|one| one.shown_state())
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.scene.keys.current().unwrap().fingerprint())
    }
}

pub(crate) async fn until(holds: impl Fn() -> bool) {
    eventually("what the test waits for", holds).await;
}

/// Two clusters that want everything of each other and may have it.
pub(crate) async fn tied() -> (Cluster, Cluster) {
    let (a, b) = (Cluster::start("A").await, Cluster::start("B").await);
    a.grant_everything().await;
    b.grant_everything().await;
    let token = a.issue("B", &[LINK_PEER, EVERYTHING]).await.unwrap();
    b.join(&token, &[LINK_PEER, EVERYTHING]).await.unwrap();
    a.want_everything("B").await;
    a.until_linked("B").await;
    b.until_linked("A").await;
    (a, b)
}

/// Publishes until it comes: the route may still be on its way.
pub(crate) async fn crosses(publisher: &mut Client, subscriber: &mut Client, topic: &str) {
    let text = format!("to {topic}");
    loop {
        publisher.publish(topic, text.as_bytes(), Q1).await;
        if let Ok(message) = time::timeout(Duration::from_millis(200), subscriber.receive()).await {
            assert_eq!(message.text(), text);
            break;
        }
    }
}

#[tokio::test]
async fn one_token_ties_two_clusters_and_messages_cross_both_ways() {
    let (a, b) = tied().await;
    assert_eq!((a.state_of("B"), b.state_of("A")), (Some(State::Active), Some(State::Active)));
    for (near, far, topic) in [(&a, &b, "x/1"), (&b, &a, "x/2")] {
        let mut subscriber = far.client("subscriber").await;
        subscriber.subscribe(topic, Q1).await;
        crosses(&mut near.client("publisher").await, &mut subscriber, topic).await;
    }
    for (near, peer) in [(&a, "B"), (&b, "A")] {
        let version = near.broker.links.get(peer).unwrap().peer_version.lock().clone();
        assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")), "{peer}");
    }
    // Who they are outlives the process, and nothing of it is secret.
    let folder = a.stop().await;
    let kept = fs::read_to_string(folder.path().join("data/trust.json")).unwrap();
    assert!(kept.contains("\"B\"") && !kept.contains("tmb1."), "{kept}");
    let a = Cluster::run(folder).await;
    a.until_linked("B").await;
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn a_link_without_grants_is_up_and_moves_nothing() {
    let (a, b) = (Cluster::start("A").await, Cluster::start("B").await);
    let token = a.issue("B", &[]).await.unwrap();
    b.join(&token, &[]).await.unwrap();
    a.want_everything("B").await;
    a.until_linked("B").await;
    b.until_linked("A").await;
    let mut subscriber = b.client("subscriber").await;
    subscriber.subscribe("x", Q1).await;
    let mut publisher = a.client("publisher").await;
    // Nobody is known to want it.
    assert_eq!(publisher.publish("x", b"1", Q1).await, 0x10);
    // A group that is changed counts at once, on both sides.
    for (side, peer) in [(&a, "B"), (&b, "A")] {
        side.grant_everything().await;
        side.change(move |book, _, _| book.add_to_group(Kind::Link, peer, EVERYTHING)).await.unwrap();
    }
    crosses(&mut publisher, &mut subscriber, "x").await;
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn whoever_is_revoked_is_out_within_a_second() {
    let (a, b) = tied().await;
    let mut subscriber = b.client("subscriber").await;
    subscriber.subscribe("x", Q1).await;
    let mut publisher = a.client("publisher").await;
    crosses(&mut publisher, &mut subscriber, "x").await;
    let started = time::Instant::now();
    a.change(|book, _, _| book.revoke(Kind::Link, "B", "test")).await.unwrap();
    let link = a.broker.links.get("B").unwrap();
    until(|| link.connections_in() == 0).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(a.state_of("B"), Some(State::Revoked));
    assert!(!a.broker.links.get("B").unwrap().settings.enable);
    // The other side sees that it is refused, and comes no further.
    until(|| !b.broker.links.get("A").unwrap().metrics.state.is(LinkState::Active)).await;
    publisher.publish("x", b"not for B", Q1).await;
    subscriber.quiet().await;
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn a_peer_hears_that_the_link_is_deleted() {
    let (a, b) = tied().await;
    a.edit("B", LinkChange::Delete { notify: true }).await.unwrap();
    assert!(a.broker.links.get("B").is_none() && a.state_of("B").is_none());
    until(|| b.state_of("A") == Some(State::RevokedByPeer)).await;
    until(|| !b.broker.links.get("A").unwrap().settings.enable).await;
    // Both can begin anew.
    let token = b.issue("A", &[]).await;
    assert!(token.is_err(), "{token:?}: the operator of B decides when to forget");
    b.edit("A", LinkChange::Delete { notify: true }).await.unwrap();
    let token = b.issue("A", &[]).await.unwrap();
    a.join_patiently(&token, &[]).await.unwrap();
    a.until_linked("B").await;
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn a_peer_has_us_knock_at_our_own_doors_only_where_the_operator_lets_it() {
    let (a, b) = (Cluster::start("A").await, Cluster::start("B").await);
    let token = a.issue("B", &[LINK_PEER]).await.unwrap();
    // It comes from 127.0.0.1, which is therefore no secret to it.
    b.join_from(&token, &[LINK_PEER], &["127.0.0.2:1"]).await.unwrap();
    let trouble = |a: &Cluster| a.broker.links.get("B").unwrap().trouble.lock().clone();
    let says = |a: &Cluster, text: &str| trouble(a).is_some_and(|trouble| trouble.contains(text));
    until(|| says(&a, "127.0.0.2 is a loopback address")).await;
    let folder = a.stop().await;
    let file = folder.path().join("t.toml");
    let text = fs::read_to_string(&file).unwrap() + "[link]\nallowed_peer_networks = [\"127.0.0.2\"]\n";
    fs::write(file, text).unwrap();
    let a = Cluster::run(folder).await;
    until(|| trouble(&a).is_some() && !says(&a, "a loopback address")).await;
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn a_peer_that_lost_what_it_could_is_refused() {
    let a = Cluster::start("A").await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).unwrap();
    a.trust("B", certificate.der().to_vec(), &["link-1"]).await;
    let link = json!({"server": "127.0.0.1:1", "topics": ["#"], "trust": "pin"});
    a.edit("B", LinkChange::Create(link)).await.unwrap();
    // What calls itself B has its key, and speaks as EMQX does.
    let file = a.folder.path().join("b.pem");
    fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
    let options = ClientTlsOptions {
        cacertfile: None,
        own: None,
        certfile: Some(file.clone()),
        keyfile: Some(file),
        password: None,
        server_pins: vec![a.fingerprint().0],
        strict: false,
        verify: Verify::Peer,
        server_name: None,
        versions: vec![TlsVersion::V13],
    };
    let tls = ClientTls::load(&options, clock::now()).unwrap();
    let time = Duration::from_secs(5);
    let stream = dial("127.0.0.1", a.links.port(), Some(&tls), time).await.unwrap();
    let mut b = Client::over(stream);
    assert_eq!(b.connect(&hello(Version::V5, "clink-B-1")).await, Got::ConnAck(false, 0));
    b.subscribe("$LINK/cluster/resp/B/n", Q1).await;
    let mut payload = Vec::new();
    let capabilities = Capabilities::NONE;
    let init = ActorInit { actor: "n", incarnation: 1, target_cluster: "A", proto_ver: 1, capabilities };
    payload::put_actor_init(&mut payload, &init);
    let list =
        properties(&[Property::ResponseTopic("$LINK/cluster/resp/B/n"), Property::CorrelationData(b"1")]);
    let sent =
        Publish { qos: Q1, properties: list.as_properties(), ..message("$LINK/cluster/route/B", &payload) };
    assert_eq!(b.publish_as(sent).await, 0x10);
    let answer = b.receive().await;
    let ack = payload::parse_ack(compress::open_plain(&answer.payload).unwrap()).unwrap();
    assert_eq!(ack.result, Err("fewer_capabilities_than_enrolled".into()));
    let events = a.broker.events.remembered(Wanted::default());
    assert!(events.iter().any(|line| line.contains("authn_capabilities_lowered") && line.contains("\"B\"")));
    b.vanish().await;
    drop(a.stop().await);
}

#[tokio::test]
async fn of_many_that_use_a_token_at_a_time_one_wins() {
    let a = Cluster::start("A").await;
    let token = Arc::new(a.issue("B", &[]).await.unwrap());
    let mut thieves = JoinSet::new();
    for _ in 0..4 {
        let token = Arc::clone(&token);
        thieves.spawn(async move {
            let b = Cluster::start("B").await;
            let outcome = b.join_patiently(&token, &[]).await.is_ok();
            let fingerprint = b.fingerprint();
            b.stop().await;
            (outcome, fingerprint)
        });
    }
    let mut winners = Vec::new();
    while let Some(thief) = thieves.join_next().await {
        let (won, fingerprint) = thief.unwrap();
        winners.extend(won.then_some(fingerprint));
    }
    assert_eq!(winners.len(), 1);
    let book = a.scene.shelf.book();
    let one = book.link("B").unwrap();
    assert_eq!((one.state, one.fingerprints[0].sha256), (State::Active, winners[0]));
    a.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_not_told_is_only_refused() {
    let (a, b) = tied().await;
    a.edit("B", LinkChange::Delete { notify: false }).await.unwrap();
    let link = b.broker.links.get("A").unwrap();
    until(|| link.metrics.state.is(LinkState::Unauthenticated)).await;
    assert_eq!(b.state_of("A"), Some(State::Active));
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn a_token_is_for_one_cluster_and_no_other() {
    let (a, c) = (Cluster::start("A").await, Cluster::start("C").await);
    let token = a.issue("B", &[]).await.unwrap();
    let problem = format!("{:?}", c.join(&token, &[]).await.unwrap_err());
    assert!(problem.contains('B'), "{problem}");
    let problem = format!("{:?}", a.join(&token, &[]).await.unwrap_err());
    assert!(problem.contains("A"), "{problem}");
    // Taken back, it is of no use to B either.
    a.edit("B", LinkChange::Delete { notify: true }).await.unwrap();
    let b = Cluster::start("B").await;
    assert!(b.join(&token, &[]).await.is_err());
    assert!(b.state_of("A").is_none() && b.broker.links.get("A").is_none(), "nothing is left of it");
    drop((a.stop().await, b.stop().await, c.stop().await));
}

#[tokio::test]
async fn the_certificate_is_replaced_while_messages_cross_and_none_is_lost() {
    let (a, b) = tied().await;
    let mut subscriber = b.client("subscriber").await;
    subscriber.subscribe("x/#", Q1).await;
    let mut publisher = a.client("publisher").await;
    crosses(&mut publisher, &mut subscriber, "x/first").await;
    let before = a.fingerprint();
    let rotating = rotate::rotate(&a.scene, rotate::OVERLAP_SECONDS);
    let publishing = async {
        for number in 0..500 {
            publisher.publish("x/counted", format!("{number}").as_bytes(), Q1).await;
        }
    };
    let (outcome, ()) = tokio::join!(rotating, publishing);
    let outcome = outcome.unwrap();
    assert_eq!((&outcome["heard"], &outcome["in_force"]), (&json!(["B"]), &json!(true)), "{outcome}");
    let mut expected = 0;
    while expected < 500 {
        let message = subscriber.receive().await;
        match message.text().parse::<u32>() {
            Ok(number) => {
                assert_eq!(number, expected);
                expected += 1;
            }
            Err(_) => assert!(message.text().contains("first")),
        }
    }
    assert_ne!(a.fingerprint(), before);
    // B has seen the new one and keeps the old one for the overlap.
    until(|| {
        let book = b.scene.shelf.book();
        let one = book.link("A").unwrap();
        one.identifier() == a.fingerprint().to_string() && one.fingerprints.len() == 2
    })
    .await;
    a.until_linked("B").await;
    b.until_linked("A").await;
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn there_is_one_rotation_at_a_time_and_whoever_is_not_told_is_said_to_be() {
    let (a, b) = tied().await;
    let before = a.fingerprint();
    let stranger = Pair::make("C", clock::now()).unwrap();
    a.trust("C", stranger.chain[0].to_vec(), &[]).await;
    let folder = b.stop().await;
    let (one, two) = tokio::join!(
        rotate::rotate(&a.scene, rotate::OVERLAP_SECONDS),
        rotate::rotate(&a.scene, rotate::OVERLAP_SECONDS)
    );
    let begun = one.unwrap();
    assert!(format!("{:?}", two.unwrap_err()).contains("is being replaced at this moment"));
    let names: Vec<&str> =
        begun["not_heard"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(
        (&begun["in_force"], &begun["heard"], &names[..]),
        (&json!(false), &json!([]), &["B", "C"][..])
    );
    assert!(begun["not_heard"][1]["reason"].as_str().unwrap().contains("no address"), "{begun}");
    assert_eq!(a.fingerprint(), before);
    let shown = a.scene.rotation.show(&a.scene.keys);
    assert_eq!((&shown["not_heard"], &shown["until"]), (&begun["not_heard"], &begun["until"]));
    // Whoever asks again goes on with it. It is over when it was said to be, or sooner, after a restart too.
    let a = Cluster::run(a.stop().await).await;
    let again = rotate::rotate(&a.scene, 2 * rotate::OVERLAP_SECONDS).await.unwrap();
    assert_eq!((&again["next"], &again["until"]), (&begun["next"], &begun["until"]));
    let sooner = rotate::rotate(&a.scene, 60).await.unwrap();
    assert_eq!(sooner["next"], begun["next"]);
    assert!(sooner["until"].as_str() < begun["until"].as_str(), "{sooner}");
    let done = rotate::rotate(&a.scene, 0).await.unwrap();
    assert_eq!((&done["next"], &done["in_force"]), (&begun["next"], &json!(true)));
    assert_eq!(a.fingerprint().to_string(), begun["next"].as_str().unwrap());
    assert_eq!(a.scene.rotation.show(&a.scene.keys), Value::Null);
    drop((a.stop().await, folder));
}

#[tokio::test]
async fn a_listener_that_cannot_show_the_next_certificate_keeps_it_from_being_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let text = params.self_signed(&key).unwrap().pem();
    fs::write(&ca, &text).unwrap();
    let ssl = format!("[listeners.ssl]\ncacertfile = \"{}\"\n", ca.display());
    let a = Cluster::start_in(folder, "A", &ssl).await;
    let before = a.fingerprint();
    fs::remove_file(&ca).unwrap();
    let began = rotate::rotate(&a.scene, rotate::OVERLAP_SECONDS).await.unwrap();
    assert_eq!(began["in_force"], json!(false), "{began}");
    assert!(began["trouble"].as_str().unwrap().contains("ca.pem"), "{began}");
    assert_eq!(a.fingerprint(), before);
    assert_eq!(a.scene.rotation.show(&a.scene.keys)["trouble"], began["trouble"]);
    let failed = a.broker.metrics.broker.security_events[SecurityEvent::CertificateRotationFail].value();
    assert_eq!(failed, 1);
    fs::write(&ca, &text).unwrap();
    let ended = rotate::rotate(&a.scene, rotate::OVERLAP_SECONDS).await.unwrap();
    assert_eq!((&ended["in_force"], &ended["next"]), (&json!(true), &began["next"]));
    assert_ne!(a.fingerprint(), before);
    a.stop().await;
}

/// A cluster whose certificate an authority has signed, and that certificate (DER).
async fn signed(name: &'static str, authority: &Issuer<'_, KeyPair>, ca_pem: &str) -> (Cluster, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, authority).unwrap();
    let texts =
        [("ca.pem", ca_pem.to_owned()), ("us.pem", certificate.pem()), ("us.key", key.serialize_pem())];
    for (file, text) in texts {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let dir = folder.path().display().to_string();
    let ssl = format!(
        "[listeners.ssl]\ncertfile = \"{dir}/us.pem\"\nkeyfile = \"{dir}/us.key\"\ncacertfile = \"{dir}/ca.pem\"\n"
    );
    (Cluster::start_in(folder, name, &ssl).await, certificate.der().to_vec())
}

impl Cluster {
    /// A link that goes by the authority.
    async fn link_by_authority(&self, peer: &Self, name: &str) {
        let file = |name: &str| self.folder.path().join(name);
        let ssl =
            json!({"cacertfile": file("ca.pem"), "certfile": file("us.pem"), "keyfile": file("us.key")});
        let link = json!({"server": peer.links.to_string(), "topics": ["#"], "trust": "ca", "ssl": ssl});
        self.edit(name, LinkChange::Create(link)).await.unwrap();
    }

    /// `auth identity create link/NAME`
    pub(crate) async fn trust(&self, name: &'static str, certificate: Vec<u8>, caps: &[&str]) {
        let caps: Vec<String> = caps.iter().map(|one| (*one).to_owned()).collect();
        self.change(move |book, own, now| {
            let leaf = Leaf::read(&certificate, Purpose::Link).unwrap();
            let new = NewIdentity {
                kind: Kind::Link,
                name,
                prefix: None,
                groups: &[],
                addrs: &[],
                caps: &caps,
                leaf: &leaf,
                description: "",
                operator: "test",
            };
            book.create_identity(own, &new, random::bytes(), now).map(drop)
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn signed_by_the_authority_is_not_enough_to_be_a_peer() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let authority = Issuer::new(params, key);
    let ((a, of_a), (b, of_b)) =
        (signed("A", &authority, &ca_pem).await, signed("B", &authority, &ca_pem).await);
    a.link_by_authority(&b, "B").await;
    b.link_by_authority(&a, "A").await;
    assert!(!a.broker.links.get("B").unwrap().settings.enable, "B is signed, and nobody knows it");
    b.trust("A", of_a, &[]).await;
    // B dials now, and A refuses it.
    until(|| b.broker.links.get("A").unwrap().metrics.state.is(LinkState::Unauthenticated)).await;
    assert_eq!(a.broker.links.get("B").unwrap().connections_in(), 0);
    a.trust("B", of_b, &[]).await;
    a.until_linked("B").await;
    b.until_linked("A").await;
    drop((a.stop().await, b.stop().await));
}
