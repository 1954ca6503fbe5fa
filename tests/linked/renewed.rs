//! Link certificates that are replaced without being asked for, and what peers' connections notice of it (trust.md 2.6).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use tombolo::admin::trust::rotate;
use tombolo::metrics::labels::SecurityEvent;
use tombolo::net::clock;
use tombolo::net::own_certificate::OwnCertificate;
use tombolo::net::own_certificate::Pair;
use tombolo::net::own_certificate::chain_pem;
use tombolo::time::Now;
use tombolo::trust::Fingerprint;

use crate::trusted::Cluster;
use crate::trusted::tied;
use crate::trusted::until;

const DAY_MS: u64 = 86_400_000;

/// Puts a link certificate in place that was made so many days ago; its fingerprint.
fn age(folder: &TempDir, name: &str, days: u64) -> Fingerprint {
    let now = clock::now();
    let then = Now { unix_ms: now.unix_ms - days * DAY_MS, ..now };
    let pair = Pair::make(name, then).unwrap();
    let link = folder.path().join("data/link");
    fs::write(link.join("cert.pem"), chain_pem(&pair.chain)).unwrap();
    fs::write(link.join("key.pem"), pair.key.pem().as_bytes()).unwrap();
    fs::set_permissions(link.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    Fingerprint(OwnCertificate::new(&pair).unwrap().fingerprint())
}

fn says(folder: &TempDir, auto_rotate: bool) {
    let path = folder.path().join("t.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.split("[link]").next().unwrap();
    fs::write(path, format!("{text}[link]\nauto_rotate = {auto_rotate}\n")).unwrap();
}

#[tokio::test]
async fn behind_two_thirds_of_its_time_the_certificate_is_replaced_and_the_peer_knows() {
    let folder = Cluster::start("A").await.stop().await;
    let old = age(&folder, "A", 250);
    says(&folder, false);
    let (a, b) = (Cluster::run(folder).await, Cluster::start("B").await);
    let token = a.issue("B", &[]).await.unwrap();
    b.join(&token, &[]).await.unwrap();
    a.until_linked("B").await;
    assert_eq!(a.fingerprint(), old, "it was told not to");
    let folder = a.stop().await;
    says(&folder, true);
    let a = Cluster::run(folder).await;
    until(|| a.fingerprint() != old).await;
    let next = a.fingerprint().to_string();
    until(|| b.scene.shelf.book().link("A").unwrap().identifier() == next).await;
    a.until_linked("B").await;
    let events = &a.broker.metrics.broker.security_events;
    until(|| events[SecurityEvent::CertificateRotation].value() >= 2).await;
    assert_eq!(events[SecurityEvent::CertificateRotationFail].value(), 0);
    drop((a.stop().await, b.stop().await));
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_told_of_once_whatever_restarts() {
    let folder = Cluster::start("A").await.stop().await;
    age(&folder, "A", 340);
    says(&folder, false);
    let told = |cluster: &Cluster| {
        let metrics = &cluster.broker.metrics.broker;
        metrics.security_events[SecurityEvent::CertificateExpiry].value()
    };
    let a = Cluster::run(folder).await;
    until(|| told(&a) == 1).await;
    until(|| a.folder.path().join("data/expiry-said.json").exists()).await;
    let a = Cluster::run(a.stop().await).await;
    // A peer's is told of by itself.
    let soon = Now { unix_ms: clock::now().unix_ms - 360 * DAY_MS, ..clock::now() };
    let peer = Pair::make("C", soon).unwrap();
    a.trust("C", peer.chain[0].to_vec(), &[]).await;
    until(|| told(&a) >= 1).await;
    assert_eq!(told(&a), 1, "ours was told of in the life before");
    a.stop().await;
}

#[tokio::test]
async fn a_peer_that_announces_its_next_certificate_keeps_its_connections() {
    let (a, b) = tied().await;
    // Somebody who cannot be told, so that both are good for a while.
    let stranger = Pair::make("C", clock::now()).unwrap();
    a.trust("C", stranger.chain[0].to_vec(), &[]).await;
    let link = b.broker.links.get("A").unwrap();
    let (before, inward) = (link.pins(), link.connections_in());
    assert_eq!((before.servers.len(), before.shown.len()), (1, 1));
    let begun = rotate::rotate(&a.scene, rotate::OVERLAP_SECONDS).await.unwrap();
    assert_eq!((&begun["heard"], &begun["in_force"]), (&json!(["B"]), &json!(false)), "{begun}");
    until(|| link.pins().servers.len() == 2 && link.pins().shown.len() == 2).await;
    assert!(Arc::ptr_eq(&link, &b.broker.links.get("A").unwrap()), "it was replaced");
    assert_eq!(link.connections_in(), inward);
    // From here on A shows the next one, and B knows it.
    rotate::rotate(&a.scene, 0).await.unwrap();
    until(|| b.scene.shelf.book().link("A").unwrap().identifier() == a.fingerprint().to_string()).await;
    b.until_linked("A").await;
    a.until_linked("B").await;
    assert!(Arc::ptr_eq(&link, &b.broker.links.get("A").unwrap()), "it was replaced");
    drop((a.stop().await, b.stop().await));
}
