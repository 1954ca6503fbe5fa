use std::sync::Arc;

use super::*;
use crate::acl::confine::ListenerRole;
use crate::net::address::PeerAddr;

const NOW: Now = Now { mono_ms: 0, unix_ms: 1_000_000 };

fn ban(kind: Kind, who: &str) -> Ban {
    Ban { kind, who: who.to_owned(), by: "test".to_owned(), reason: String::new(), at: 1_000, until: None }
}

fn subject<'a>(client_id: &'a str, username: Option<&'a str>, host: &str) -> Subject<'a> {
    Subject { client_id, username, host: Some(host.parse().unwrap()), fingerprint: Some([7; 32]) }
}

fn identity(client_id: &str, username: Option<&str>, peer: &str) -> Identity {
    let peer = PeerAddr::Ip(peer.parse().unwrap());
    let plain = Identity::plain(client_id.into(), peer, Arc::from("tcp:default"), ListenerRole::Client);
    Identity { username: username.map(Arc::from), ..plain }
}

#[test]
fn every_kind_fits_whom_it_names_and_nobody_else() {
    let fingerprint = "07".repeat(32);
    let table = [
        (Kind::ClientId, "c1", subject("c1", None, "10.0.0.1"), subject("c11", Some("c1"), "10.0.0.1")),
        (Kind::Username, "u", subject("c", Some("u"), "10.0.0.1"), subject("u", None, "10.0.0.1")),
        (Kind::PeerHost, "10.0.0.1", subject("c", None, "::ffff:10.0.0.1"), subject("c", None, "10.0.0.2")),
        (Kind::ClientIdRe, "^c[0-9]+$", subject("c12", None, "10.0.0.1"), subject("c", None, "10.0.0.1")),
        (Kind::UsernameRe, "^u", subject("c", Some("u1"), "10.0.0.1"), subject("u1", None, "10.0.0.1")),
        (Kind::PeerHostNet, "10.0.0.0/8", subject("c", None, "10.9.9.9"), subject("c", None, "11.0.0.0")),
        (
            Kind::Fingerprint,
            fingerprint.as_str(),
            subject("c", None, "10.0.0.1"),
            Subject { fingerprint: Some([8; 32]), ..subject("c", None, "10.0.0.1") },
        ),
    ];
    for (kind, who, banned, free) in table {
        let table = Banned::default();
        assert!(!table.find(&banned, NOW));
        let (_, fits) = table.insert(ban(kind, who), NOW).unwrap();
        assert!(table.find(&banned, NOW) && !table.find(&free, NOW), "{who}");
        assert!(fits.fits(&banned) && !fits.fits(&free), "{who}");
        assert!(table.remove(kind, who, NOW) && !table.remove(kind, who, NOW), "{who}");
        assert!(!table.find(&banned, NOW) && table.is_empty(), "{who}");
    }
}

#[test]
fn a_client_without_an_address_is_in_no_block() {
    let table = Banned::default();
    table.insert(ban(Kind::PeerHostNet, "0.0.0.0/0"), NOW).unwrap();
    table.insert(ban(Kind::PeerHostNet, "::/0"), NOW).unwrap();
    table.insert(ban(Kind::PeerHost, "127.0.0.1"), NOW).unwrap();
    assert!(!table.find(&Subject { host: None, ..subject("c", None, "127.0.0.1") }, NOW));
    table.insert(ban(Kind::ClientId, "c"), NOW).unwrap();
    assert!(table.find(&Subject { host: None, ..subject("c", None, "127.0.0.1") }, NOW));
}

#[test]
fn a_ban_ends_when_it_says_so() {
    let table = Banned::default();
    let until = |until| Ban { until: Some(until), ..ban(Kind::ClientId, "c") };
    assert_eq!(table.insert(until(1_000), NOW).unwrap_err(), BanError::Past);
    table.insert(until(1_005), NOW).unwrap();
    let banned = subject("c", None, "10.0.0.1");
    let at = |unix_ms| Now { unix_ms, ..NOW };
    assert!(table.find(&banned, at(1_004_999)));
    assert_eq!(table.insert(until(1_009), at(1_004_999)).unwrap_err(), BanError::Exists);
    assert!(!table.find(&banned, at(1_005_000)));
    assert!(table.list(at(1_005_000)).is_empty() && !table.remove(Kind::ClientId, "c", at(1_005_000)));
    table.insert(until(1_009), at(1_005_000)).unwrap();
    table.expire(at(1_009_000));
    assert!(table.is_empty());
}

#[test]
fn what_names_nobody_is_refused() {
    let table = Banned::default();
    for (kind, who) in [
        (Kind::ClientId, ""),
        (Kind::PeerHost, "localhost"),
        (Kind::PeerHost, "10.0.0.0/8"),
        (Kind::ClientIdRe, "("),
        (Kind::PeerHostNet, "10.0.0.1/8"),
        (Kind::Fingerprint, "07"),
        (Kind::Flapping, "x"),
    ] {
        assert!(matches!(table.insert(ban(kind, who), NOW), Err(BanError::Who(_))), "{kind:?} {who}");
    }
    assert!(table.is_empty());
}

#[test]
fn addresses_are_known_however_they_are_written() {
    let table = Banned::default();
    table.insert(ban(Kind::PeerHost, "::ffff:10.0.0.1"), NOW).unwrap();
    assert_eq!(table.insert(ban(Kind::PeerHost, "10.0.0.1"), NOW).unwrap_err(), BanError::Exists);
    table.insert(ban(Kind::PeerHost, "2001:DB8:0::1"), NOW).unwrap();
    assert!(table.remove(Kind::PeerHost, "2001:db8::1", NOW));
    table.insert(ban(Kind::Fingerprint, &["AB"; 32].join(":")), NOW).unwrap();
    assert!(table.remove(Kind::Fingerprint, &"ab".repeat(32), NOW));
}

#[test]
fn operators_bans_are_bounded_and_have_their_room() {
    let table = Banned::default();
    for n in 0..PATTERNS_MAX {
        table.insert(ban(Kind::ClientIdRe, &format!("^{n}$")), NOW).unwrap();
    }
    assert_eq!(table.insert(ban(Kind::ClientIdRe, "x"), NOW).unwrap_err(), BanError::Full(PATTERNS_MAX));
    for n in PATTERNS_MAX..ENTRIES_MAX {
        table.insert(ban(Kind::ClientId, &n.to_string()), NOW).unwrap();
    }
    assert_eq!(table.insert(ban(Kind::ClientId, "x"), NOW).unwrap_err(), BanError::Full(ENTRIES_MAX));
    table.ban_flapping(&identity("x", None, "10.0.0.1:1"), NOW, Duration::from_secs(1));
    assert_eq!(table.len(), ENTRIES_MAX + 1);
    table.clear();
    assert!(table.is_empty() && table.list(NOW).is_empty());
}

#[test]
fn of_too_many_that_flap_those_stay_banned_that_did_so_last() {
    let table = Banned::default();
    let at = |n: u64| Now { unix_ms: 1_000_000 + n * 1_000, ..NOW };
    for n in 0..=FLAPPING_MAX as u64 {
        table.ban_flapping(&identity(&n.to_string(), None, "10.0.0.1:1"), at(n), Duration::from_secs(90_000));
    }
    assert_eq!(table.len(), FLAPPING_MAX);
    assert!(!table.is_flapping(&identity("0", None, "10.0.0.1:1"), NOW));
    assert!(table.is_flapping(&identity("1", None, "10.0.0.1:1"), NOW));
    let long = identity(&"x".repeat(60_000), None, "10.0.0.1:1");
    table.ban_flapping(&long, NOW, Duration::from_secs(1));
    assert_eq!(
        (table.len(), table.is_flapping(&long, NOW)),
        (FLAPPING_MAX, false),
        "a name too long to keep"
    );
}

/// The attack: somebody flaps with the ClientID of somebody else.
#[test]
fn who_flaps_as_somebody_else_bans_himself() {
    let table = Banned::default();
    let time = Duration::from_secs(300);
    let victim = identity("sensor-1", Some("alice"), "192.0.2.1:1000");
    for attacker in [
        identity("sensor-1", None, "192.0.2.1:2000"),
        identity("sensor-1", Some("mallory"), "192.0.2.1:2000"),
        identity("sensor-1", Some("alice"), "203.0.113.9:2000"),
        identity("sensor-1", None, "203.0.113.9:2000"),
        // Quotes and spaces in a name do not make it the name of two.
        identity("sensor-1", Some("alice\" \"sensor-1"), "192.0.2.1:2000"),
        identity("\" \"sensor-1", Some("alice"), "192.0.2.1:2000"),
        Identity { listener: Arc::from("tcp:open"), ..identity("sensor-1", Some("alice"), "192.0.2.1:2000") },
    ] {
        table.ban_flapping(&attacker, NOW, time);
        assert!(table.is_flapping(&attacker, NOW), "{attacker:?}");
        assert!(!table.is_flapping(&victim, NOW), "{attacker:?}");
    }
    table.ban_flapping(&victim, NOW, time);
    assert!(
        table.is_flapping(&identity("sensor-1", Some("alice"), "192.0.2.1:9"), NOW),
        "its ports do not matter"
    );
}
