//! The ACL holds for what crosses a link (`reliability.md` class G): each side's own rules, also after a reload.

use std::fs;

use tombolo::broker::server::Server;
use tombolo::config::settings::AclSource;
use tombolo::mqtt::packet::Version;

use crate::harness::Q1;
use crate::pair::EVERYTHING;
use crate::pair::Pair;
use crate::pair::join;
use crate::pair::until;

/// Puts this rule in front of those of the side.
async fn deny(side: &mut Server, rule: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = side.settings().clone();
    let AclSource::File(path) = &settings.authorization.file else { unreachable!() };
    let file = folder.path().join("acl.conf");
    fs::write(&file, format!("{{deny, {rule}}}.\n{}", fs::read_to_string(path).unwrap())).unwrap();
    settings.authorization.file = AclSource::File(file);
    side.reload(settings).await.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_lost_the_right_gets_nothing_over_the_link() {
    let mut pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    for filter in ["no/#", "yes"] {
        subscriber.subscribe(filter, Q1).await;
    }
    pair.wanted(&pair.a, 2).await;
    assert_eq!(publisher.publish("no/1", b"before", Q1).await, 0x00);
    assert_eq!(subscriber.receive().await.text(), "before");
    deny(&mut pair.b, "all, subscribe, [\"no/#\"]").await;
    // The route is taken back as well: nothing is sent in vain.
    pair.wanted(&pair.a, 1).await;
    assert_eq!(publisher.publish("no/1", b"after", Q1).await, 0x10);
    assert_eq!(publisher.publish("yes", b"still", Q1).await, 0x00);
    assert_eq!(subscriber.receive().await.text(), "still");
    subscriber.quiet().await;
}

#[tokio::test]
async fn a_publisher_that_lost_the_right_sends_nothing_over_the_link() {
    let mut pair = Pair::start(&EVERYTHING).await;
    let mut subscriber = join(&pair.b, Version::V5, "s").await;
    let mut publisher = join(&pair.a, Version::V5, "p").await;
    subscriber.subscribe("t/#", Q1).await;
    pair.wanted(&pair.a, 1).await;
    assert_eq!(publisher.publish("t/1", b"before", Q1).await, 0x00);
    assert_eq!(subscriber.receive().await.text(), "before");
    deny(&mut pair.a, "all, publish, [\"t/1\"]").await;
    assert_eq!(publisher.publish("t/1", b"after", Q1).await, 0x87);
    assert_eq!(publisher.publish("t/2", b"still", Q1).await, 0x00);
    assert_eq!(subscriber.receive().await.text(), "still");
    subscriber.quiet().await;
}

/// A peer that lost its grant is cut off at once (`acl-language.md` section 4).
#[tokio::test]
async fn a_peer_that_lost_its_grant_is_disconnected() {
    let mut pair = Pair::start(&EVERYTHING).await;
    let mut settings = pair.b.settings().clone();
    // Its grant follows from its link, not from the file.
    deny(&mut pair.b, "{clientid, {re, \"^clink-A-\"}}, all, [\"$LINK/#\"]").await;
    until(&pair.a, "tombolo_link_up{peer=\"B\"}", |up| up == 1).await;
    settings.cluster.links[0].peer.cert_cn = Some("cluster-c".to_owned());
    pair.b.reload(settings).await.unwrap();
    let cut = "tombolo_disconnects_total{reason=\"not_authorized\"}";
    until(&pair.b, cut, |count| count > 0).await;
    until(&pair.a, "tombolo_link_up{peer=\"B\"}", |up| up == 0).await;
}
