//! Bans and flapping (`authn-tls.md` section 3, A17): who is out stays out, and nobody gets a victim banned.

use std::net::SocketAddr;

use tokio::net::TcpSocket;
use tombolo::broker::banned::Ban;
use tombolo::broker::banned::Kind;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::packet::Will;
use tombolo::mqtt::property::Properties;
use tombolo::net::clock;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::VERSIONS;
use crate::harness::broker;
use crate::harness::hello;

const LET_IN: Got = Got::ConnAck(false, 0);
const FLAPPING: &str = "[flapping_detect]\nenable = true\nmax_count = 3";

fn ban(broker: &Running, kind: Kind, who: &str, seconds: Option<u64>) {
    let now = clock::now();
    let at = now.unix_ms / 1000;
    let (who, by, reason) = (who.to_owned(), "test".to_owned(), String::new());
    let until = seconds.map(|seconds| at + seconds);
    broker.server.broker().ban(Ban { kind, who, by, reason, at, until }, now).unwrap();
}

fn banned(version: Version) -> Got {
    Got::ConnAck(false, if version == Version::V5 { 0x8A } else { 0x87 })
}

async fn answer(broker: &Running, asked: &Connect<'_>) -> Got {
    broker.open().await.connect(asked).await
}

/// A connection from another address of this machine.
pub(crate) async fn open_from(broker: &Running, host: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(host.parse().unwrap(), 0)).unwrap();
    Client::over(socket.connect(broker.address("tcp:default")).await.unwrap())
}

#[tokio::test]
async fn a_ban_keeps_out_ends_what_it_fits_and_is_lifted() {
    for (kind, who) in [
        (Kind::ClientId, "c1"),
        (Kind::ClientIdRe, "^c[0-9]$"),
        (Kind::PeerHost, "127.0.0.1"),
        (Kind::PeerHostNet, "127.0.0.0/24"),
    ] {
        let broker = broker().await;
        let mut client = broker.join(Version::V5, "c1").await;
        let mut other = open_from(&broker, "127.0.1.1").await;
        assert_eq!(other.connect(&hello(Version::V311, "other")).await, LET_IN);
        ban(&broker, kind, who, None);
        client.refused(0x98).await;
        other.quiet().await;
        for version in VERSIONS {
            assert_eq!(answer(&broker, &hello(version, "c1")).await, banned(version), "{who}");
        }
        assert_eq!(broker.metric("tombolo_connections_rejected_total{reason=\"banned\"}"), 3);
        let list = &broker.server.broker().banned;
        assert_eq!((list.len(), broker.metric("tombolo_banned")), (1, 1));
        assert!(list.remove(kind, who, clock::now()));
        assert_eq!(answer(&broker, &hello(Version::V5, "c1")).await, LET_IN, "{who}");
    }
}

#[tokio::test]
async fn a_banned_user_is_out_under_any_client_identifier() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret"), ("bob", "secret")]);
    let broker = setup.authentication("password_file = \"{dir}/passwd\"").start().await;
    let asked = |user| Connect { username: Some(user), password: Some(b"secret"), ..hello(Version::V5, "") };
    ban(&broker, Kind::Username, "alice", None);
    assert_eq!(answer(&broker, &asked("alice")).await, banned(Version::V5));
    assert_eq!(answer(&broker, &asked("bob")).await, LET_IN);
}

#[tokio::test]
async fn a_ban_is_over_when_its_time_is() {
    let broker = broker().await;
    ban(&broker, Kind::ClientId, "c", Some(2));
    assert_eq!(answer(&broker, &hello(Version::V5, "c")).await, banned(Version::V5));
    broker.until_metric("tombolo_banned", 0).await;
    assert_eq!(answer(&broker, &hello(Version::V5, "c")).await, LET_IN);
}

#[tokio::test]
async fn the_will_of_a_banned_client_is_not_published() {
    let broker = broker().await;
    let mut subscriber = broker.join(Version::V5, "subscriber").await;
    subscriber.subscribe("#", Q1).await;
    let will = Will { topic: "will", payload: b"x", qos: Q1, retain: true, properties: Properties::EMPTY };
    let mut client = broker.open().await;
    let asked = Connect { will: Some(will), ..hello(Version::V5, "client") };
    assert_eq!(client.connect(&asked).await, LET_IN);
    ban(&broker, Kind::ClientId, "client", None);
    client.refused(0x98).await;
    broker.until_metric("tombolo_messages_dropped_total{reason=\"banned\"}", 1).await;
    subscriber.quiet().await;
    assert_eq!(broker.metric("tombolo_retained_messages"), 0);
}

#[tokio::test]
async fn a_client_that_comes_and_goes_is_banned_and_nobody_else_is() {
    let broker = Setup::new().links(FLAPPING).start().await;
    for _ in 0..3 {
        broker.join(Version::V5, "c").await.leave().await;
    }
    broker.until_metric("tombolo_flapping_bans_total", 1).await;
    for version in VERSIONS {
        assert_eq!(answer(&broker, &hello(version, "c")).await, banned(version));
    }
    assert_eq!(answer(&broker, &hello(Version::V5, "d")).await, LET_IN);
    // Refusals are no connections: they lengthen nothing.
    let bans = broker.server.broker().banned.list(clock::now());
    assert_eq!((bans.len(), bans[0].kind), (1, Kind::Flapping));
    assert!(broker.server.broker().banned.remove(Kind::Flapping, &bans[0].who, clock::now()));
    assert_eq!(answer(&broker, &hello(Version::V5, "c")).await, LET_IN);
}

#[tokio::test]
async fn it_is_off_unless_it_is_asked_for() {
    let broker = broker().await;
    for _ in 0..20 {
        broker.join(Version::V5, "c").await.leave().await;
    }
    assert_eq!(answer(&broker, &hello(Version::V5, "c")).await, LET_IN);
}

/// The attack of `authn-tls.md` section 3: the victim's ClientID, from where the attacker is.
#[tokio::test]
async fn a_stranger_who_flaps_as_the_victim_bans_himself() {
    let broker = Setup::new().links(FLAPPING).start().await;
    for _ in 0..3 {
        let mut attacker = open_from(&broker, "127.0.0.2").await;
        assert_eq!(attacker.connect(&hello(Version::V5, "victim")).await, LET_IN);
        attacker.leave().await;
    }
    broker.until_metric("tombolo_flapping_bans_total", 1).await;
    let mut attacker = open_from(&broker, "127.0.0.2").await;
    assert_eq!(attacker.connect(&hello(Version::V5, "victim")).await, banned(Version::V5));
    let mut victim = broker.join(Version::V5, "victim").await;
    victim.quiet().await;
}

/// The same through failures: who cannot prove that he is the victim is counted as nobody.
#[tokio::test]
async fn attempts_that_fail_count_against_nobody() {
    let setup = Setup::new();
    passwords(&setup, &[("alice", "secret"), ("mallory", "hers")]);
    let broker = setup.authentication("password_file = \"{dir}/passwd\"").links(FLAPPING).start().await;
    let asked = |user, password| Connect {
        username: Some(user),
        password: Some(password),
        ..hello(Version::V5, "victim")
    };
    let mut victim = broker.open().await;
    assert_eq!(victim.connect(&asked("alice", &b"secret"[..])).await, LET_IN);
    for _ in 0..5 {
        for wrong in
            [asked("alice", &b"guess"[..]), asked("mallory", &b"hers"[..]), hello(Version::V5, "victim")]
        {
            assert_eq!(answer(&broker, &wrong).await, Got::ConnAck(false, 0x87));
        }
    }
    victim.quiet().await;
    victim.leave().await;
    // Her own account, under the victim's ClientID while it is free, from the same address: her own ban.
    for _ in 0..3 {
        let mut attacker = broker.open().await;
        assert_eq!(attacker.connect(&asked("mallory", &b"hers"[..])).await, LET_IN);
        attacker.leave().await;
    }
    broker.until_metric("tombolo_flapping_bans_total", 1).await;
    assert_eq!(answer(&broker, &asked("mallory", &b"hers"[..])).await, banned(Version::V5));
    assert_eq!(answer(&broker, &asked("alice", &b"secret"[..])).await, LET_IN);
}

/// The same by taking the victim's session over and over: it is not the victim who goes.
#[tokio::test]
async fn a_session_that_is_taken_to_and_fro_gets_nobody_banned() {
    let broker = Setup::new().links(FLAPPING).start().await;
    let mut attackers = Vec::new();
    for _ in 0..6 {
        let mut victim = broker.join(Version::V5, "victim").await;
        let mut attacker = open_from(&broker, "127.0.0.2").await;
        assert_eq!(attacker.connect(&hello(Version::V5, "victim")).await, LET_IN);
        assert_eq!(victim.next().await, Got::Disconnect(0x8E));
        attackers.push(attacker);
    }
    assert_eq!(broker.metric("tombolo_flapping_bans_total"), 0);
    broker.join(Version::V5, "victim").await.quiet().await;
}
