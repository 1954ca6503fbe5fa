//! Links of which one side can only dial, as from behind a NAT (`link create NAME --unidirectional`): it has no listener for
//! links at all, and everything crosses over connections that it makes.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::time;
use tombolo::admin::links::LinkChange;
use tombolo::admin::rest::Problem;
use tombolo::admin::trust::join;
use tombolo::admin::trust::join::Order;
use tombolo::admin::trust::rotate;
use tombolo::config::settings::DialledBy;
use tombolo::metrics::labels::LinkState;
use tombolo::mqtt::packet::Version;
use tombolo::net::random;
use tombolo::trust::Token;
use tombolo::trust::book::NewLink;
use tombolo::trust::group::LINK_PEER;
use tombolo::trust::identity::Kind;
use tombolo::trust::identity::State;
use tombolo::trust::rights::OperatorRights;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::hello;
use crate::trusted::Cluster;
use crate::trusted::EVERYTHING;
use crate::trusted::crosses;
use crate::trusted::until;

/// `link create ISSUER --token … --unidirectional`
async fn join(cluster: &Cluster, token: &Token, unidirectional: bool) -> Result<Value, Problem> {
    let order = Order {
        token: token.clone(),
        name: None,
        fingerprint: None,
        groups: vec![LINK_PEER.to_owned(), EVERYTHING.to_owned()],
        topics: vec!["#".to_owned()],
        addrs: Vec::new(),
        remote: Vec::new(),
        description: String::new(),
        operator: "test".to_owned(),
        rights: OperatorRights::admin(),
        replace: false,
        unidirectional,
    };
    join::join(&cluster.scene.changes, &cluster.scene.keys, order).await
}

/// `link set PEER topics=#`
async fn want_everything(mainland: &Cluster) {
    let wanted = json!({"dialled_by": "peer", "topics": ["#"], "trust": "pin"});
    mainland.edit("island", LinkChange::Replace(wanted)).await.unwrap();
}

/// An island that nobody can dial, and the mainland; both want everything of each other.
async fn tied() -> (Cluster, Cluster) {
    let (island, mainland) = (Cluster::unreachable("island").await, Cluster::start("mainland").await);
    island.grant_everything().await;
    mainland.grant_everything().await;
    let token = mainland.issue("island", &[LINK_PEER, EVERYTHING]).await.unwrap();
    let refused = join(&island, &token, false).await.unwrap_err();
    assert!(format!("{refused:?}").contains("--unidirectional"), "{refused:?}");
    let joined = join(&island, &token, true).await.unwrap();
    assert_eq!(joined["unidirectional"], true);
    let by = |cluster: &Cluster, peer| cluster.broker.links.get(peer).unwrap().settings.dialled_by;
    assert_eq!((by(&mainland, "island"), by(&island, "mainland")), (DialledBy::Peer, DialledBy::Us));
    want_everything(&mainland).await;
    mainland.until_linked("island").await;
    island.until_linked("mainland").await;
    (island, mainland)
}

/// A message goes each way.
async fn both_ways(island: &Cluster, mainland: &Cluster, topic: &str) {
    for (from, to, way) in [(island, mainland, "in"), (mainland, island, "out")] {
        let topic = format!("{topic}/{way}");
        let mut subscriber = to.client("subscriber").await;
        subscriber.subscribe(&topic, Q1).await;
        crosses(&mut from.client("publisher").await, &mut subscriber, &topic).await;
    }
}

#[tokio::test]
async fn messages_cross_both_ways_though_only_one_side_can_dial() {
    let (island, mainland) = tied().await;
    both_ways(&island, &mainland, "x").await;
    // The mainland is a client of the island as it is of every peer.
    let link = island.broker.links.get("mainland").unwrap();
    assert!(link.connections_in() > 0);
    assert!(link.incoming.lending.trouble().is_none());
    // Either may go away and come back.
    let folder = mainland.stop().await;
    until(|| link.connections_in() == 0).await;
    let folder = {
        // The port is another one: the island is told, as by its operator.
        let mainland = Cluster::run(folder).await;
        let server = json!({
            "server": mainland.links().to_string(), "topics": ["#"], "trust": "pin", "dialled_by": "us",
        });
        island.edit("mainland", LinkChange::Replace(server)).await.unwrap();
        mainland.until_linked("island").await;
        island.until_linked("mainland").await;
        both_ways(&island, &mainland, "y").await;
        let island_folder = island.stop().await;
        let island = Cluster::run(island_folder).await;
        both_ways(&island, &mainland, "z").await;
        drop(island.stop().await);
        mainland.stop().await
    };
    drop(folder);
}

#[tokio::test]
async fn an_issuer_may_say_that_it_does_not_dial() {
    let (island, mainland) = (Cluster::start("island").await, Cluster::start("mainland").await);
    let token = mainland
        .change(|book, own, now| {
            let new = NewLink { unidirectional: true, ..NewLink::named("island", "test") };
            Ok(book.issue(own, &new, random::bytes(), random::bytes(), now)?.token)
        })
        .await
        .unwrap();
    island.grant_everything().await;
    let joined = join(&island, &token, false).await.unwrap();
    assert_eq!(joined["unidirectional"], true);
    mainland.until_linked("island").await;
    drop((island.stop().await, mainland.stop().await));
}

#[tokio::test]
async fn what_is_lent_by_somebody_who_is_revoked_is_not_used() {
    let (island, mainland) = tied().await;
    let link = mainland.broker.links.get("island").unwrap();
    until(|| !link.incoming.room.is_empty()).await;
    mainland.change(|book, _, _| book.revoke(Kind::Link, "island", "test")).await.unwrap();
    until(|| link.connections_in() == 0 && link.incoming.room.is_empty()).await;
    let of_island = island.broker.links.get("mainland").unwrap();
    until(|| of_island.connections_in() == 0).await;
    until(|| of_island.metrics.state.is(LinkState::Unauthenticated)).await;
    until(|| of_island.incoming.lending.trouble().is_some_and(|why| why.contains("does not trust us"))).await;
    drop((island.stop().await, mainland.stop().await));
}

#[tokio::test]
async fn both_sides_replace_their_certificates_and_say_goodbye() {
    let (island, mainland) = tied().await;
    for (side, other) in [(&mainland, "island"), (&island, "mainland")] {
        // One statement a second is let in from an address.
        loop {
            let outcome = rotate::rotate(&side.scene, rotate::OVERLAP_SECONDS).await.unwrap();
            if outcome["heard"] == json!([other]) {
                assert_eq!(outcome["in_force"], true, "{outcome}");
                break;
            }
            assert!(outcome.to_string().contains("a moment ago"), "{outcome}");
        }
    }
    both_ways(&island, &mainland, "x").await;
    mainland.edit("island", LinkChange::Delete { notify: true }).await.unwrap();
    until(|| island.state_of("mainland") == Some(State::RevokedByPeer)).await;
    drop((island.stop().await, mainland.stop().await));
}

#[tokio::test]
async fn nobody_but_the_peer_comes_over_a_lent_connection() {
    let (island, mainland) = tied().await;
    let link = mainland.broker.links.get("island").unwrap();
    let pins = &link.settings.ssl.as_ref().unwrap().cert_sha256;
    let mut stranger = Client::over(link.incoming.room.take(pins).await);
    assert_eq!(stranger.connect(&hello(Version::V5, "stranger")).await, Got::ConnAck(false, 0x87));
    // Whose certificate is another's is not waited for.
    let nobody = time::timeout(Duration::from_millis(50), link.incoming.room.take(&[[0; 32]]));
    assert!(nobody.await.is_err());
    drop((island.stop().await, mainland.stop().await));
}
