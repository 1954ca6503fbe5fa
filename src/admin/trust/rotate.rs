//! `link cert rotate`: the next link certificate is made, every peer is told of it by the key in force and by the next one, and it
//! takes its place once all have heard, or when the overlap is over (`trust.md` 2.6). Both are good meanwhile, so no message is
//! lost. Who was not told by then needs a new token.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio::time;

use crate::admin::node::Node;
use crate::admin::rest::Change;
use crate::admin::rest::Changes;
use crate::admin::rest::Problem;
use crate::admin::rfc3339;
use crate::admin::trust;
use crate::admin::trust::Shelf;
use crate::admin::trust::statements;
use crate::admin::trust::statements::Listener;
use crate::broker::Broker;
use crate::broker::link_keys::LinkKeys;
use crate::net::clock;
use crate::trust::Fingerprint;
use crate::trust::identity::Kind;

/// How long both certificates are good unless something else is asked for, in seconds.
pub const OVERLAP_SECONDS: u64 = 7 * 86_400;
/// How often peers that have not heard are told again.
const AGAIN: Duration = Duration::from_secs(30);

/// What a rotation needs of its broker.
#[derive(Clone)]
pub struct Scene {
    /// Where changes are asked for.
    pub changes: Changes,
    /// Who is trusted.
    pub shelf: Arc<Shelf>,
    /// The certificates.
    pub keys: Arc<LinkKeys>,
    /// Our own name.
    pub cluster: String,
    /// The broker, whose peers are told.
    pub broker: Arc<Broker>,
}

/// A peer, and why it has not heard.
type Deaf = (Listener, String);

/// Begins a rotation, or goes on with the one that is under way. What is answered: who has heard, and who has not.
///
/// # Errors
/// If the next certificate cannot be made or put in force.
pub async fn rotate(scene: &Scene, overlap_seconds: u64) -> Result<Value, Problem> {
    let keys = Arc::clone(&scene.keys);
    let prepared = spawn_blocking(move || {
        let now = clock::now();
        keys.ensure(now).and_then(|_| keys.prepare_next(now))
    });
    let next =
        prepared.await.map_err(|_| trust::failed("making the next certificate failed; the log says more"))?;
    let next = next.map_err(|error| Problem::conflict(format!("link certificate: {error}")))?;
    let until = clock::now().unix_ms / 1000 + overlap_seconds;
    let peers = peers(scene);
    let all: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    let deaf = tell(scene, peers, until).await?;
    let heard: Vec<&String> =
        all.iter().filter(|name| deaf.iter().all(|(peer, _)| peer.name != **name)).collect();
    let not_heard: Vec<Value> =
        deaf.iter().map(|(peer, why)| json!({"name": peer.name, "reason": why})).collect();
    let answer = json!({
        "next": Fingerprint(next.fingerprint()).to_string(),
        "until": rfc3339::format(until),
        "heard": heard,
        "not_heard": not_heard,
        "in_force": deaf.is_empty() || overlap_seconds == 0,
    });
    if deaf.is_empty() || overlap_seconds == 0 {
        renew(&scene.changes, true).await?;
    } else {
        tokio::spawn(go_on(scene.clone(), deaf.into_iter().map(|(peer, _)| peer.name).collect(), until));
    }
    Ok(answer)
}

/// Goes on with a rotation that a stop has interrupted.
pub fn resume(scene: Scene) {
    if scene.keys.next().is_some() {
        let until = clock::now().unix_ms / 1000 + OVERLAP_SECONDS;
        let names = peers(&scene).into_iter().map(|peer| peer.name).collect();
        tokio::spawn(go_on(scene, names, until));
    }
}

/// The peers that can be told.
fn peers(scene: &Scene) -> Vec<Listener> {
    let (book, now) = (scene.shelf.book(), clock::now().unix_ms / 1000);
    let links = book.identities().filter(|one| one.kind == Kind::Link);
    links.filter_map(|one| Listener::of(&book, &scene.broker.links, one, now)).collect()
}

/// Tells them all at once; who has not heard.
async fn tell(scene: &Scene, peers: Vec<Listener>, until: u64) -> Result<Vec<Deaf>, Problem> {
    let (Some(own), Some(next)) = (scene.keys.current(), scene.keys.next()) else {
        return Err(Problem::conflict("no rotation of the link certificate is under way"));
    };
    let deaf = Arc::new(Mutex::new(Vec::new()));
    let mut telling = JoinSet::new();
    for peer in peers {
        let (own, next, cluster) = (Arc::clone(&own), Arc::clone(&next), scene.cluster.clone());
        let deaf = Arc::clone(&deaf);
        telling.spawn(async move {
            if let Err(why) = statements::tell_next(&own, &next, &cluster, &peer, until).await {
                tracing::warn!(
                    peer = peer.name,
                    error = why,
                    "the peer was not told of the next link certificate"
                );
                deaf.lock().push((peer, why));
            }
        });
    }
    while telling.join_next().await.is_some() {}
    Ok(std::mem::take(&mut deaf.lock()))
}

/// Tells the rest again and again, until all have heard or the overlap is over.
async fn go_on(scene: Scene, mut names: Vec<String>, until: u64) {
    while !names.is_empty() && clock::now().unix_ms / 1000 < until {
        time::sleep(AGAIN).await;
        let rest: Vec<Listener> =
            peers(&scene).into_iter().filter(|peer| names.contains(&peer.name)).collect();
        match tell(&scene, rest, until).await {
            Ok(deaf) => names = deaf.into_iter().map(|(peer, _)| peer.name).collect(),
            // It was ended in another way.
            Err(_) => return,
        }
    }
    if !names.is_empty() {
        tracing::error!(
            peers = names.join(", "),
            "were not told of the next link certificate: they need a new token"
        );
    }
    if let Err(problem) = renew(&scene.changes, true).await {
        tracing::error!(error = problem.message, "the next link certificate could not be put in force");
    }
}

/// Has the link certificate put in force that is there now, on listeners and on links; first the next one, if it is to be.
///
/// # Errors
/// Why not.
pub async fn renew(changes: &Changes, promote: bool) -> Result<(), Problem> {
    let stopping = || trust::failed("the broker is stopping");
    let (answer, answered) = oneshot::channel();
    changes.send(Change::Renew { promote, answer }).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

/// Does it.
pub(in crate::admin) async fn put_in_force(node: &mut Node, promote: bool) -> Result<(), Problem> {
    if promote {
        let keys = Arc::clone(node.server().link_keys());
        let promoted = spawn_blocking(move || keys.promote()).await;
        promoted
            .map_err(|_| trust::failed("putting it in its place failed; the log says more"))?
            .map_err(|error| Problem::conflict(format!("link certificate: {error}")))?;
    }
    let shown = node.server().show_link_certificate().await;
    shown.map_err(|error| Problem::bad_request(error.to_string()))?;
    node.server_mut().renew_links().await;
    tracing::info!("the link certificate in force is another one");
    Ok(())
}
