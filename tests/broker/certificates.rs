//! Certificates while connections live (`authn-tls.md` T5, T14, T15): lists that are fetched or change, certificates that
//! expire, authorities and pins that are taken away; and the dates that an operator sees. Time is an argument.

use std::net::SocketAddr;
use std::path::Path;

use rcgen::CertificateParams;
use rcgen::date_time_ymd;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tombolo::broker::events::Wanted;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;
use tombolo::time::Now;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::a_moment;
use crate::harness::hello;
use crate::transports::Authority;
use crate::transports::Issued;
use crate::transports::tls_client;

const DAY_MS: u64 = 86_400_000;

/// A listener of this role, with these options beside its keys.
pub(crate) fn listener(authority: &Authority, role: &str, more: &str) -> String {
    let keys = authority.server_keys(&authority.issue("localhost"));
    format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"{role}\"\n[listeners.ssl]\n\
         verify = \"verify_peer\"\nfail_if_no_peer_cert = true\n{keys}\n{more}\n"
    )
}

/// Whether TLS and MQTT let this certificate in: the client, or nothing.
pub(crate) async fn enter(broker: &Running, authority: &Authority, own: &Issued, id: &str) -> Option<Client> {
    let mut client = tls_client(broker.address("ssl:x"), authority, Some(own)).await.ok()?;
    let hello = Connect { ..hello(Version::V5, id) };
    // With TLS 1.3 a client learns of its refusal when it reads.
    match client.connect(&hello).await {
        Got::ConnAck(false, 0) => Some(client),
        Got::Closed => None,
        other => panic!("{other:?}"),
    }
}

/// Descriptions of the security events of this name so far.
pub(crate) fn events(broker: &Running, name: &str) -> Vec<String> {
    let lines = broker.server.broker().events.remembered(Wanted::default());
    let named = lines.into_iter().filter(|line| line.contains(&format!("\"event\":\"{name}")));
    named.collect()
}

#[tokio::test]
async fn t15_a_certificate_that_expires_while_connected_is_the_end_of_the_connection() {
    let authority = Authority::new();
    let broker = Setup::new().listeners(&listener(&authority, "client", "")).start().await;
    let short = authority.issue_with("short", |params| params.not_after = date_time_ymd(2090, 1, 1));
    let mut goes = enter(&broker, &authority, &short, "goes").await.unwrap();
    let mut stays = enter(&broker, &authority, &authority.issue("long"), "stays").await.unwrap();
    const YEAR_2090_MS: u64 = 3_786_912_000_000;
    let at = |unix_ms| Now { unix_ms, ..clock::now() };
    broker.server.check_certificates(at(YEAR_2090_MS)).await;
    goes.quiet().await;
    broker.server.check_certificates(at(YEAR_2090_MS + 1000)).await;
    goes.refused(0x87).await;
    stays.quiet().await;
    let told = events(&broker, "authn_revoked");
    assert!(
        told.len() == 1 && told[0].contains("certificate_expired") && told[0].contains("goes"),
        "{told:?}"
    );
    broker.server.check_certificates(at(YEAR_2090_MS + 2000)).await;
    assert_eq!(events(&broker, "authn_revoked").len(), 1, "once");
}

#[tokio::test]
async fn t15_a_list_that_is_read_again_ends_the_connections_of_whom_it_names() {
    let authority = Authority::new();
    let serial =
        |number: u64| move |params: &mut CertificateParams| params.serial_number = Some(number.into());
    let (one, two) = (authority.issue_with("one", serial(1)), authority.issue_with("two", serial(2)));
    let three = authority.issue_with("three", serial(3));
    let file = authority.revoke(&[99]);
    let more = format!("crlfile = \"{}\"", file.display());
    let mut broker = Setup::new().listeners(&listener(&authority, "client", &more)).start().await;
    let mut first = enter(&broker, &authority, &one, "first").await.unwrap();
    let mut second = enter(&broker, &authority, &two, "second").await.unwrap();
    let mut third = enter(&broker, &authority, &three, "third").await.unwrap();
    // By the watch over the file.
    broker.server.check_certificates(clock::now()).await;
    authority.revoke(&[1, 99]);
    broker.server.check_certificates(clock::now()).await;
    first.refused(0x87).await;
    assert!(enter(&broker, &authority, &one, "first").await.is_none());
    second.quiet().await;
    let told = events(&broker, "authn_revoked\"");
    assert!(told.len() == 1 && told[0].contains("certificate_revoked"), "{told:?}");
    // By a reload.
    authority.revoke(&[1, 2, 99]);
    broker.reload(|setup| setup).await.unwrap();
    second.refused(0x87).await;
    third.quiet().await;
    // An older list lets in again whom the newer one revoked: the operator is told.
    authority.revoke_in(2019, &[1, 99, 100]);
    broker.server.check_certificates(clock::now()).await;
    let told = events(&broker, "authn_revocation_lists\"");
    assert!(
        told.last().unwrap().contains("with an older list of `CN=authority` than the one before"),
        "{told:?}"
    );
    authority.revoke(&[1, 2, 99]);
    broker.server.check_certificates(clock::now()).await;
    assert!(!events(&broker, "authn_revocation_lists\"").last().unwrap().contains("older"));
    // A file that is no good changes nothing, and is told once.
    std::fs::write(&file, "nothing").unwrap();
    for _ in 0..2 {
        broker.server.check_certificates(clock::now()).await;
    }
    let failures = events(&broker, "authn_revocation_lists_fail");
    assert!(failures.len() == 1 && failures[0].contains("listeners[ssl:x].ssl.crlfile"), "{failures:?}");
    assert!(enter(&broker, &authority, &two, "second").await.is_none());
    std::fs::remove_file(&file).unwrap();
    broker.server.check_certificates(clock::now()).await;
    assert_eq!(events(&broker, "authn_revocation_lists_fail").len(), 2, "missing is another reason");
    third.quiet().await;
    assert!(broker.reload(|setup| setup).await.is_err(), "a start or a reload needs the file");
}

#[tokio::test]
async fn an_authority_that_is_taken_away_takes_its_clients_along() {
    let (authority, other) = (Authority::new(), Authority::named("other"));
    let both = authority.bundle(&other);
    let keys = |file: &Path| {
        listener(&authority, "client", "").replace(
            &format!("cacertfile = \"{}\"", authority.file().display()),
            &format!("cacertfile = \"{}\"", file.display()),
        )
    };
    let mut broker = Setup::new().listeners(&keys(&both)).start().await;
    let mut ours = enter(&broker, &authority, &authority.issue("ours"), "ours").await.unwrap();
    let mut theirs = enter(&broker, &authority, &other.issue("theirs"), "theirs").await.unwrap();
    broker.reload(|setup| setup.listeners(&keys(&authority.file()))).await.unwrap();
    theirs.refused(0x87).await;
    ours.quiet().await;
    assert!(events(&broker, "authn_revoked")[0].contains("authority_not_trusted"));
}

#[tokio::test]
async fn t14_a_pin_that_is_taken_away_ends_the_connection_and_lets_nobody_in_again() {
    let authority = Authority::new();
    let (kept, gone) = (authority.issue("kept"), authority.issue("gone"));
    let keys = authority.server_keys(&authority.issue("localhost"));
    let without_ca: String =
        keys.lines().filter(|line| !line.starts_with("cacertfile")).map(|l| format!("{l}\n")).collect();
    let listener = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n[listeners.ssl]\n{without_ca}\n"
    );
    let link = |pins: &[&Issued]| {
        let pins: Vec<String> = pins.iter().map(|pin| format!("\"{}\"", pin.fingerprint())).collect();
        format!(
            "[[cluster.links]]\nname = \"B\"\nserver = \"127.0.0.1:1\"\ntopics = []\n[cluster.links.peer]\n\
             cert_sha256 = [{}]\n[cluster.links.ssl]\nenable = false\n",
            pins.join(", ")
        )
    };
    let mut broker = Setup::new().listeners(&listener).links(&link(&[&kept, &gone])).start().await;
    let mut stays = enter(&broker, &authority, &kept, "clink-B-1").await.unwrap();
    let mut goes = enter(&broker, &authority, &gone, "clink-B-2").await.unwrap();
    broker.reload(|setup| setup.links(&link(&[&kept]))).await.unwrap();
    goes.refused(0x87).await;
    stays.quiet().await;
    assert!(enter(&broker, &authority, &gone, "clink-B-2").await.is_none());
    let fingerprint = gone.fingerprint();
    assert!(events(&broker, "authn_login_fail:tls").iter().any(|line| line.contains(&fingerprint)), "T2");
    let sample = "tombolo_link_cert_expiry_timestamp_seconds{peer=\"B\",side=\"remote_client\"}";
    assert!(broker.metric(sample) > 4_000_000_000);
}

/// Answers one request after the other, with what `next` gives; nothing is an answer that never comes.
async fn serve_lists(mut next: mpsc::Receiver<Option<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut hanging = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            assert!(asked.starts_with(b"GET /ca.crl HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&asked));
            let Some(answer) = next.recv().await else { return };
            let Some(body) = answer else {
                hanging.push(stream);
                continue;
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    });
    address
}

fn der_of(list: &Path) -> Vec<u8> {
    CertificateRevocationListDer::from_pem_file(list).unwrap().to_vec()
}

#[tokio::test]
async fn t5_a_list_is_fetched_and_until_then_nobody_is_let_in() {
    let authority = Authority::new();
    let serial =
        |number: u64| move |params: &mut CertificateParams| params.serial_number = Some(number.into());
    let (one, two) = (authority.issue_with("one", serial(1)), authority.issue_with("two", serial(2)));
    let (answers, next) = mpsc::channel(1);
    let address = serve_lists(next).await;
    let more = format!("crl_url = [\"http://{address}/ca.crl\"]\n");
    let beside = "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    let text = format!("{}{beside}", listener(&authority, "client", &more));
    let mut broker = Setup::new().listeners(&text).start().await;
    // It has asked and hears nothing: nobody waits for it, and nobody is let in.
    assert!(enter(&broker, &authority, &one, "one").await.is_none());
    assert!(events(&broker, "authn_login_fail:tls")[0].contains("UnknownRevocationStatus"));
    let mut plain = broker.join(Version::V5, "plain").await;
    plain.quiet().await;
    let list = authority.revoke(&[2]);
    answers.send(Some(der_of(&list))).await.unwrap();
    until(|| events(&broker, "authn_revocation_lists\"").len() == 1).await;
    let mut held = enter(&broker, &authority, &one, "one").await.unwrap();
    assert!(enter(&broker, &authority, &two, "two").await.is_none());
    let until_when = broker.metric("tombolo_listener_crl_next_update_timestamp_seconds{listener=\"ssl:x\"}");
    assert!(until_when > 4_000_000_000, "{until_when}");
    // A reload asks again; what was fetched is in force meanwhile. What comes is not a list.
    broker.reload(|setup| setup).await.unwrap();
    held.quiet().await;
    drop(enter(&broker, &authority, &one, "one-more").await.unwrap());
    answers.send(Some(b"<html>moved</html>".to_vec())).await.unwrap();
    until(|| events(&broker, "authn_revocation_lists_fail").len() == 1).await;
    assert!(events(&broker, "authn_revocation_lists_fail")[0].contains("no revocation list"));
    // Nor is one in the name of the authority that somebody else signed.
    broker.reload(|setup| setup).await.unwrap();
    let forger = Authority::new();
    answers.send(Some(der_of(&forger.revoke(&[1])))).await.unwrap();
    until(|| events(&broker, "authn_revocation_lists_fail").len() == 2).await;
    assert!(events(&broker, "authn_revocation_lists_fail")[1].contains("is not signed by that authority"));
    drop(enter(&broker, &authority, &one, "one-more").await.unwrap());
    // A new list that names a client ends its connection.
    broker.reload(|setup| setup).await.unwrap();
    answers.send(Some(std::fs::read(authority.revoke(&[1, 2])).unwrap())).await.unwrap();
    held.refused(0x87).await;
    assert!(enter(&broker, &authority, &one, "one").await.is_none());
    // An older one that somebody kept does not let it in again.
    broker.reload(|setup| setup).await.unwrap();
    answers.send(Some(der_of(&authority.revoke_in(2019, &[2])))).await.unwrap();
    until(|| events(&broker, "authn_revocation_lists_fail").len() == 3).await;
    assert!(events(&broker, "authn_revocation_lists_fail")[2].contains("older than the list in force"));
    assert!(enter(&broker, &authority, &one, "one").await.is_none());
}

#[tokio::test]
async fn t5_a_list_that_one_listener_of_two_can_use_stays_known() {
    let (authority, other) = (Authority::new(), Authority::named("other"));
    let peer = authority.issue("b");
    let (answers, next) = mpsc::channel(1);
    let address = serve_lists(next).await;
    let more = format!("crl_url = [\"http://{address}/ca.crl\"]\n");
    let second = listener(&other, "client", &more).replace("name = \"x\"", "name = \"y\"");
    let text = format!("{}{second}", listener(&authority, "client", &more));
    let mut broker = Setup::new().listeners(&text).start().await;
    answers.send(Some(der_of(&authority.revoke(&[99])))).await.unwrap();
    until(|| events(&broker, "authn_revocation_lists_fail").len() == 1).await;
    assert!(events(&broker, "authn_revocation_lists_fail")[0].contains("listeners[ssl:y]"));
    drop(enter(&broker, &authority, &peer, "b").await.unwrap());
    // It is asked for again, and nothing comes.
    broker.reload(|setup| setup).await.unwrap();
    drop(enter(&broker, &authority, &peer, "b").await.unwrap());
}

#[tokio::test]
async fn t5_an_address_that_hangs_or_refuses_is_told_with_the_reason() {
    let authority = Authority::new();
    let (answers, next) = mpsc::channel(1);
    let address = serve_lists(next).await;
    answers.send(None).await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let more = format!(
        "crl_url = [\"http://{address}/ca.crl\", \"http://{closed}/ca.crl\"]\n[crl_cache]\nhttp_timeout = \"100ms\"\n"
    );
    let broker = Setup::new().listeners(&listener(&authority, "client", &more)).start().await;
    until(|| events(&broker, "authn_revocation_lists_fail").len() == 2).await;
    let told = events(&broker, "authn_revocation_lists_fail").concat();
    assert!(
        told.contains("no answer within 100 ms") || told.contains("no connection within 100 ms"),
        "{told}"
    );
    assert!(told.contains("refused"), "{told}");
    assert!(enter(&broker, &authority, &authority.issue("b"), "b").await.is_none());
}

/// Waits for what nobody announces.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            a_moment().await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("it came");
}

#[tokio::test]
async fn certificates_that_expire_are_told_a_month_and_a_week_before() {
    let authority = Authority::new();
    let soon = authority.issue_with("localhost", |params| params.not_after = date_time_ymd(2090, 1, 1));
    let keys = authority.server_keys(&soon);
    let text = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{}\n",
        keys.lines().filter(|line| !line.starts_with("cacertfile")).collect::<Vec<_>>().join("\n")
    );
    let broker = Setup::new().listeners(&text).start().await;
    const YEAR_2090: u64 = 3_786_912_000;
    let sample = "tombolo_listener_cert_expiry_timestamp_seconds{listener=\"ssl:x\"}";
    assert_eq!(broker.metric(sample), YEAR_2090 + 1);
    assert_eq!(events(&broker, "authn_certificate_expiry"), [""; 0]);
    for (days, count) in [(31, 0), (30, 1), (8, 1), (6, 2), (6, 2)] {
        let now = Now { unix_ms: YEAR_2090 * 1000 - days * DAY_MS + 1000, ..clock::now() };
        broker.server.check_certificates(now).await;
        assert_eq!(events(&broker, "authn_certificate_expiry").len(), count, "{days} days before");
    }
    assert!(
        events(&broker, "authn_certificate_expiry")[1].contains("listeners[ssl:x] expires within 6 days")
    );
}
