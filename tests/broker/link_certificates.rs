//! Peers that prove themselves by certificates (`authn-tls.md` section 6, `reliability.md` 3.2 class J): one cluster's certificate
//! is of no use in the name of another. Certificates are made for each test.

use std::sync::Arc;

use rcgen::date_time_ymd;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::harness::message;
use crate::transports::Authority;
use crate::transports::Issued;
use crate::transports::tls_client;

/// The link to a peer whose certificate has this common name. Nobody listens where it dials.
fn link_by_certificate(peer: &str, common_name: &str) -> String {
    format!(
        "[[cluster.links]]\nname = \"{peer}\"\nserver = \"127.0.0.1:1\"\ntopics = [\"fwd/#\"]\n\
         [cluster.links.peer]\ncert_cn = \"{common_name}\"\n[cluster.links.ssl]\nenable = false\n"
    )
}

/// A listener for links to B and C, whose certificates are of one authority.
async fn broker(authority: &Authority) -> Running {
    let keys = authority.server_keys(&authority.issue("localhost"));
    let listener = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n[listeners.ssl]\n{keys}\n"
    );
    Setup::new()
        .listeners(&listener)
        .links(&(link_by_certificate("B", "cluster-b") + &link_by_certificate("C", "cluster-c")))
        .start()
        .await
}

async fn answer(broker: &Running, authority: &Authority, own: &Issued, id: &str) -> (Client, Got) {
    let mut client = tls_client(broker.address("ssl:x"), authority, Some(own)).await.unwrap();
    let got = client.connect(&Connect { ..hello(Version::V5, id) }).await;
    (client, got)
}

#[tokio::test]
async fn the_certificate_of_one_cluster_is_no_proof_for_another() {
    let authority = Authority::new();
    let broker = broker(&authority).await;
    let (b, c, stranger) =
        (authority.issue("cluster-b"), authority.issue("cluster-c"), authority.issue("cluster-d"));
    let (mut held, got) = answer(&broker, &authority, &b, "clink-B-1").await;
    assert_eq!(got, Got::ConnAck(false, 0));
    for (own, id, reason) in [
        (&c, "clink-B-1", "identity_of_another_peer"),
        (&c, "clink-B-2", "identity_of_another_peer"),
        (&c, "app", "client_id_outside_prefix"),
        (&stranger, "clink-B-1", "common_name_mismatch"),
        (&stranger, "app", "unbound_on_link_listener"),
    ] {
        let sample = format!("tombolo_peer_refusals_total{{reason=\"{reason}\"}}");
        let before = broker.metric(&sample);
        let (mut client, got) = answer(&broker, &authority, own, id).await;
        assert_eq!(got, Got::ConnAck(false, 0x87), "{id}: {reason}");
        assert_eq!(client.next().await, Got::Closed);
        assert_eq!(broker.metric(&sample), before + 1, "{id}: {reason}");
    }
    assert_eq!(broker.metric("tombolo_authentication_failures_total{reason=\"peer\"}"), 5);
    // Nobody took over what B has.
    held.quiet().await;
}

/// Links that change alone, without a reload: listeners and rules are the new ones before who is in is judged by them.
#[tokio::test]
async fn a_peer_that_gets_another_fingerprint_comes_back_by_that_and_by_no_other() {
    let authority = Authority::new();
    let (server, old, new) = (authority.issue("localhost"), authority.issue("old"), authority.issue("new"));
    // Without an authority: who shows no fingerprint that is known does not get through the handshake.
    let listener = format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\n[listeners.ssl]\n\
         certfile = \"{}\"\nkeyfile = \"{}\"\n",
        server.certfile.display(),
        server.keyfile.display()
    );
    let pinned = |own: &Issued| {
        let proof = format!("cert_sha256 = [\"{}\"]", own.fingerprint());
        link_by_certificate("B", "").replace("cert_cn = \"\"", &proof)
    };
    let mut broker = Setup::new().listeners(&listener).links(&pinned(&old)).start().await;
    let (mut held, got) = answer(&broker, &authority, &old, "clink-B-1").await;
    assert_eq!(got, Got::ConnAck(false, 0));
    let links = Setup::new().listeners(&listener).links(&pinned(&new)).settings().cluster.links;
    let prepared = broker.server.prepare_links(links).await.unwrap();
    broker.server.set_links(prepared).await;
    held.refused(0x87).await;
    let (mut back, got) = answer(&broker, &authority, &new, "clink-B-1").await;
    assert_eq!(got, Got::ConnAck(false, 0));
    let handshakes = "tombolo_connections_rejected_total{reason=\"tls_handshake\"}";
    let before = broker.metric(handshakes);
    if let Ok(mut refused) = tls_client(broker.address("ssl:x"), &authority, Some(&old)).await {
        // In TLS 1.3 it hears of it behind its own handshake.
        assert_eq!(refused.next().await, Got::Closed);
    }
    broker.until_metric(handshakes, before + 1).await;
    back.quiet().await;
}

/// It is let in as what it is, and then names itself B in its topics.
#[tokio::test]
async fn a_peer_that_names_itself_another_in_its_topics_is_refused_and_counted() {
    let authority = Authority::new();
    let broker = broker(&authority).await;
    let (mut c, got) = answer(&broker, &authority, &authority.issue("cluster-c"), "clink-C-1").await;
    assert_eq!(got, Got::ConnAck(false, 0));
    let denied =
        |action: &str| format!("tombolo_acl_denied_total{{action=\"{action}\",reason=\"confined_link\"}}");
    // A heartbeat, which is taken from whom it belongs to.
    let heartbeat = b"\x83t\0\0\0\x03a\nm\0\0\0\x02n1a\x0ba\x01w\x03$opm\0\0\0\theartbeat";
    for topic in ["$LINK/cluster/route/B", "$LINK/cluster/msg/B"] {
        let publish = Publish { qos: Q1, ..message(topic, heartbeat) };
        assert_eq!(c.publish_as(publish).await, 0x87, "{topic}");
    }
    assert_eq!(broker.metric(&denied("publish")), 2);
    for filter in ["$LINK/cluster/resp/B/n1", "$LINK/cluster/resp/B/+", "$LINK/cluster/resp/+/n1"] {
        assert_eq!(c.subscribe(filter, Q1).await, 0x87, "{filter}");
    }
    assert_eq!(broker.metric(&denied("subscribe")), 3);
    assert_eq!(c.subscribe("$LINK/cluster/resp/C/n1", Q1).await, 1);
    assert_eq!(c.publish("$LINK/cluster/route/C", heartbeat, Q1).await, 0x10);
    c.quiet().await;
}

/// `authn-tls.md` T16: a link that meets a wrong server sends no byte of MQTT, says why, and tries again.
#[tokio::test]
async fn t16_a_link_tells_a_wrong_server_nothing() {
    let (ours, other) = (Authority::new(), Authority::named("other"));
    let good = ours.issue("good");
    let expired = ours.issue_with("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let ca = format!("cacertfile = \"{}\"", ours.file().display());
    let named = |name: &str| format!("{ca}\nserver_name_indication = \"{name}\"");
    let pin = format!("cert_sha256 = [\"{}\"]", good.fingerprint());
    let cases = [
        ("another authority", other.issue("stranger"), named("localhost")),
        ("another name", ours.issue("named"), named("elsewhere.example")),
        ("expired", expired, named("localhost")),
        ("another pin", ours.issue("renewed"), pin),
    ];
    for (what, server, ssl) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = format!(
            "[[cluster.links]]\nname = \"B\"\nserver = \"{}\"\ntopics = [\"#\"]\nusername = \"u\"\npassword = \"hidden\"\n\
             pool_size = 1\n[cluster.links.peer]\nusername = \"b\"\n[cluster.links.ssl]\n{ssl}\n",
            listener.local_addr().unwrap()
        );
        let broker = Setup::new().links(&link).start().await;
        let tls = server_tls(&server);
        for _ in 0..2 {
            let (stream, _) = timeout(LIMIT, listener.accept()).await.expect(what).unwrap();
            // On an error it was the client's alert, after which there is nothing.
            let Ok(mut accepted) = tls.accept(stream).await else { continue };
            let mut bytes = Vec::new();
            let _ = accepted.read_to_end(&mut bytes).await;
            assert_eq!(bytes, b"", "{what}");
        }
        broker.until_metric("tombolo_link_state{peer=\"B\",state=\"unauthenticated\"}", 1).await;
        let reconnects = "tombolo_link_reconnects_total{peer=\"B\",reason=\"tls\"}";
        assert!(broker.metric(reconnects) >= 1, "{what}");
        assert!(
            broker.server.broker().render_metrics(clock::now()).contains("link_backoff_seconds{peer=\"B\"} ")
        );
    }
}

fn server_tls(own: &Issued) -> TlsAcceptor {
    let (certificates, key) = own.read();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
