//! `link cert rotate`: the next link certificate is made, every peer is told of it by the key in force and by the next one, and it
//! takes its place once all have heard, or when the overlap is over (`trust.md` 2.6). Both are good meanwhile, so no message is
//! lost. Who was not told by then needs a new token.
//!
//! There is one rotation at a time, and one that tells of it at a time. Whoever asks for another while one is under way goes on
//! with that one, and may bring its end forward.

mod renewal;
mod standing;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio::time;

use self::renewal::Renewal;
use self::renewal::Step;
use self::standing::Standing;
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
use crate::broker::events::event::What;
use crate::broker::link_keys::LinkKeys;
use crate::broker::material::LinkMaterial;
use crate::config::LINK_CERTIFICATE;
use crate::config::LINK_FOLDER;
use crate::config::Settings;
use crate::config::settings::Link;
use crate::config::settings::ListenerTls;
use crate::config::settings::Trust;
use crate::metrics::labels::LinkState;
use crate::net::clock;
use crate::net::own_certificate::OwnCertificate;
use crate::trust::Fingerprint;
use crate::trust::identity::Kind;

/// How long both certificates are good unless something else is asked for, in seconds.
pub const OVERLAP_SECONDS: u64 = 7 * 86_400;
/// How often peers that have not heard are told again.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon at the earliest.
const SOON: Duration = Duration::from_secs(1);
/// Why a peer of the configuration is not told.
const CONFIGURED: &str = "it knows us by its configuration: give its operator the next certificate, which `link cert show --format json` shows";

/// The rotation that is under way, if one is, and who sees to it.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Held while an operator who has asked for it is being answered.
    asked: Mutex<()>,
    /// Held by whoever tells peers or has the next certificate put in force.
    turn: Mutex<()>,
    standing: parking_lot::Mutex<Standing>,
    /// Peers of the configuration that know the link certificate.
    configured: parking_lot::Mutex<Vec<String>>,
    /// Rotations that nobody asks for.
    renewal: parking_lot::Mutex<Renewal>,
    /// Whoever tells the rest again and again.
    teller: parking_lot::Mutex<Option<AbortHandle>>,
}

impl Rotation {
    /// How far it is; null if none is under way.
    #[must_use]
    pub fn show(&self, keys: &LinkKeys) -> Value {
        let Some(next) = keys.next() else { return Value::Null };
        let standing = self.standing.lock();
        let until = keys.next_until().map(rfc3339::format);
        let mut shown = standing.show(next.fingerprint());
        shown["until"] = until.into();
        shown
    }

    /// Notes which peers of the configuration know the link certificate ([`configured`]).
    pub fn note_configured(&self, names: Vec<String>) {
        *self.configured.lock() = names;
    }
}

/// The peers of the configuration that meet the link certificate, and cannot be told of the next one.
#[must_use]
pub fn configured(settings: &Settings) -> Vec<String> {
    let ours = settings.data.dir.join(LINK_FOLDER).join(LINK_CERTIFICATE);
    let shows = |ssl: &ListenerTls| ssl.certfile.is_none();
    let meets_listener = settings.listeners.iter().any(|listener| {
        listener.enable && listener.role.accepts_links() && listener.ssl.as_ref().is_some_and(shows)
    });
    let meets = |link: &&Link| {
        let ssl = link.ssl.as_ref();
        link.enable
            && link.trust == Trust::Configured
            && ssl.is_some_and(|ssl| meets_listener || ssl.certfile.as_ref() == Some(&ours))
    };
    settings.cluster.links.iter().filter(meets).map(|link| link.name.clone()).collect()
}

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
    /// What is under way.
    pub rotation: Arc<Rotation>,
}

/// Begins a rotation, or goes on with the one that is under way. What is answered: who has heard, and who has not.
///
/// # Errors
/// If somebody else asked at this moment, or the next certificate cannot be made or put in force.
pub async fn rotate(scene: &Scene, overlap_seconds: u64) -> Result<Value, Problem> {
    let scene = scene.clone();
    // Whoever asked may go away: what was begun is finished.
    let begun = tokio::spawn(async move { begin(&scene, overlap_seconds).await });
    begun.await.map_err(|_| trust::failed("the rotation failed; the log says more"))?
}

async fn begin(scene: &Scene, overlap_seconds: u64) -> Result<Value, Problem> {
    let Ok(_asked) = scene.rotation.asked.try_lock() else {
        let why =
            "the link certificate is being replaced at this moment: `link cert show` says how far it is";
        return Err(Problem::conflict(why));
    };
    let _turn = scene.rotation.turn.lock().await;
    let (keys, now) = (Arc::clone(&scene.keys), clock::now());
    let until = now.unix_ms / 1000 + overlap_seconds;
    let prepared = spawn_blocking(move || {
        keys.ensure(now)?;
        let next = keys.prepare_next(now, until)?;
        Ok((next, keys.next_until().unwrap_or(until)))
    });
    let prepared =
        prepared.await.map_err(|_| trust::failed("making the next certificate failed; the log says more"))?;
    let (next, until) = prepared.map_err(|error: crate::broker::link_keys::LinkKeysError| {
        Problem::conflict(format!("link certificate: {error}"))
    })?;
    let in_force = round(scene).await;
    let mut answer = scene.rotation.standing.lock().show(next.fingerprint());
    answer["next"] = Fingerprint(next.fingerprint()).to_string().into();
    answer["until"] = rfc3339::format(until).into();
    answer["in_force"] = in_force.into();
    if !in_force {
        go_on(scene);
    }
    Ok(answer)
}

/// Goes on with a rotation that a stop has interrupted.
pub fn resume(scene: &Scene) {
    if scene.keys.next().is_some() {
        go_on(scene);
    }
}

/// Sees to it that the link certificate is replaced in time, if it was made here: one that an operator has brought is theirs to
/// replace. Where a peer cannot be told that is said instead, and an operator decides.
pub fn renew_in_time(scene: &Scene) {
    let Some(own) = scene.keys.current().filter(|_| scene.keys.next().is_none()) else { return };
    let now = clock::now();
    let is_due = renewal::is_due(own.not_before_unix(), own.not_after_unix(), now.unix_seconds());
    if !is_due || !own.is_made_for(&scene.cluster) {
        return;
    }
    let absent = absent(scene);
    let until = rfc3339::format(u64::try_from(own.not_after_unix()).unwrap_or(0));
    match scene.rotation.renewal.lock().step(!absent.is_empty(), now.unix_ms / 1000) {
        Step::Wait => {}
        Step::Warn => {
            let names: Vec<&str> = absent.iter().map(String::as_str).collect();
            let text = format!(
                "the link certificate should be replaced before {until}, which is not done by itself because {} cannot be told: \
                 see to them, or run `tombolo link cert rotate` and give their operators the next one",
                names.join(", ")
            );
            tracing::warn!("{text}");
            scene.broker.security_note(What::CertificateRotation { works: false }, &text, now);
        }
        Step::Rotate => {
            let text = format!(
                "the link certificate, good until {until}, is being replaced: two thirds of its time are over"
            );
            tracing::info!("{text}");
            scene.broker.security_note(What::CertificateRotation { works: true }, &text, now);
            let scene = scene.clone();
            tokio::spawn(async move {
                if let Err(problem) = begin(&scene, OVERLAP_SECONDS).await {
                    let (text, now) = (
                        format!("the link certificate could not be replaced: {}", problem.message),
                        clock::now(),
                    );
                    tracing::error!("{text}");
                    scene.broker.security_note(What::CertificateRotation { works: false }, &text, now);
                    scene.rotation.renewal.lock().failed(now.unix_ms / 1000);
                }
            });
        }
    }
}

/// The peers that cannot be told at this moment, or ever.
fn absent(scene: &Scene) -> BTreeSet<String> {
    let (book, now) = (scene.shelf.book(), clock::now().unix_ms / 1000);
    let links = &scene.broker.links;
    let is_up = |name: &str| links.get(name).is_some_and(|link| link.metrics.state.is(LinkState::Active));
    let trusted = book.identities().filter(|one| one.kind == Kind::Link && one.is_active());
    let absent = trusted.filter(|one| !is_up(&one.name) || !Listener::can_be(&book, links, one, now));
    absent.map(|one| one.name.clone()).chain(scene.rotation.configured.lock().iter().cloned()).collect()
}

/// Has the rest told again and again, by one task alone.
fn go_on(scene: &Scene) {
    let going_on = tokio::spawn(keep_on(scene.clone())).abort_handle();
    // Whoever did it until now waits, for its turn or for the time to come: what it would have done is done by the next.
    if let Some(before) = scene.rotation.teller.lock().replace(going_on) {
        before.abort();
    }
}

/// Tells peers until all have heard or the overlap is over, and the next certificate is in force.
async fn keep_on(scene: Scene) {
    loop {
        let now = clock::now();
        let until = match scene.keys.next_until() {
            Some(until) => until,
            // An older version did not write it down.
            None => {
                let (keys, until) = (Arc::clone(&scene.keys), now.unix_ms / 1000 + OVERLAP_SECONDS);
                if scene.keys.next().is_some() {
                    // If it cannot be written, the next time does it.
                    let _ = spawn_blocking(move || keys.prepare_next(now, until)).await;
                }
                until
            }
        };
        time::sleep(Duration::from_secs(until.saturating_sub(now.unix_ms / 1000)).clamp(SOON, AGAIN)).await;
        let _turn = scene.rotation.turn.lock().await;
        if scene.keys.next().is_none() || round(&scene).await {
            return;
        }
    }
}

/// Tells those who have not heard, and has the next certificate put in force if it is time. Whether it is.
async fn round(scene: &Scene) -> bool {
    let (Some(own), Some(next)) = (scene.keys.current(), scene.keys.next()) else { return false };
    let until = scene.keys.next_until().unwrap_or(u64::MAX);
    scene.rotation.standing.lock().begin(next.fingerprint());
    let (all, rest, mut deaf) = peers(scene);
    deaf.extend(tell(scene, (&own, &next), rest, until).await);
    scene.rotation.standing.lock().told(all, deaf.clone());
    let is_over = clock::now().unix_ms / 1000 >= until;
    if !deaf.is_empty() && !is_over {
        return false;
    }
    match promote(&scene.changes).await {
        Ok(()) => {
            say_in_force(scene, &next, &deaf);
            true
        }
        Err(problem) => {
            if scene.rotation.standing.lock().is_in_the_way(&problem.message) {
                let text = format!("the next link certificate cannot be put in force: {}", problem.message);
                tracing::error!("{text}");
                scene.broker.security_note(What::CertificateRotation { works: false }, &text, clock::now());
            }
            false
        }
    }
}

fn say_in_force(scene: &Scene, next: &OwnCertificate, deaf: &BTreeMap<String, String>) {
    let text = format!("the link certificate in force is {}", Fingerprint(next.fingerprint()));
    tracing::info!("{text}");
    scene.broker.security_note(What::CertificateRotation { works: true }, &text, clock::now());
    if !deaf.is_empty() {
        let names: Vec<&str> = deaf.keys().map(String::as_str).collect();
        let text =
            format!("not told of it, and in need of a new token or of the certificate: {}", names.join(", "));
        tracing::error!("{text}");
        scene.broker.security_note(What::CertificateRotation { works: false }, &text, clock::now());
    }
}

/// All peers that are trusted; those of them that are to be told yet; and those that cannot be and why.
fn peers(scene: &Scene) -> (Vec<String>, Vec<Listener>, BTreeMap<String, String>) {
    let (book, now) = (scene.shelf.book(), clock::now().unix_ms / 1000);
    let configured = scene.rotation.configured.lock().clone();
    let mut deaf: BTreeMap<String, String> =
        configured.into_iter().map(|name| (name, CONFIGURED.to_owned())).collect();
    let (mut all, mut rest) = (Vec::new(), Vec::new());
    for one in book.identities().filter(|one| one.kind == Kind::Link && one.is_active()) {
        all.push(one.name.clone());
        if scene.rotation.standing.lock().has_heard(&one.name) {
            continue;
        }
        match Listener::of(&book, &scene.broker.links, one, now) {
            Ok(listener) => rest.push(listener),
            Err(why) => {
                deaf.insert(one.name.clone(), why.to_owned());
            }
        }
    }
    (all, rest, deaf)
}

/// Tells them all at once; who has not heard, and why.
async fn tell(
    scene: &Scene,
    (own, next): (&Arc<OwnCertificate>, &Arc<OwnCertificate>),
    peers: Vec<Listener>,
    until: u64,
) -> BTreeMap<String, String> {
    let mut telling = JoinSet::new();
    let mut deaf = BTreeMap::new();
    for peer in peers {
        // Whoever fails in another way than by an answer has not heard either.
        deaf.insert(peer.name.clone(), "telling it failed; the log says more".to_owned());
        let (own, next, cluster) = (Arc::clone(own), Arc::clone(next), scene.cluster.clone());
        telling.spawn(async move {
            let told = statements::tell_next(&own, &next, &cluster, &peer, until).await;
            (peer.name, told)
        });
    }
    while let Some(told) = telling.join_next().await {
        match told {
            Ok((name, Ok(()))) => {
                deaf.remove(&name);
            }
            Ok((name, Err(why))) => {
                tracing::warn!(
                    peer = name,
                    error = why,
                    "the peer was not told of the next link certificate"
                );
                deaf.insert(name, why);
            }
            // A panic is logged by the runtime.
            Err(_) => {}
        }
    }
    deaf
}

/// Has the next link certificate put in force, on listeners and on links.
///
/// # Errors
/// Why not; the one before stays then.
async fn promote(changes: &Changes) -> Result<(), Problem> {
    let stopping = || trust::failed("the broker is stopping");
    let (answer, answered) = oneshot::channel();
    changes.send(Change::Promote(answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

/// Does it: what could fail comes first, so that listeners and links never show different ones.
pub(in crate::admin) async fn put_in_force(node: &mut Node) -> Result<(), Problem> {
    let keys = Arc::clone(node.server().link_keys());
    let next = keys.next();
    let next = next.ok_or_else(|| Problem::conflict("no rotation of the link certificate is under way"))?;
    let prepared = prepare(node, next).await?;
    let promoted = spawn_blocking(move || keys.promote()).await;
    promoted
        .map_err(|_| trust::failed("putting it in its place failed; the log says more"))?
        .map_err(|error| Problem::conflict(format!("link certificate: {error}")))?;
    show(node, prepared).await;
    Ok(())
}

/// Reads what the listeners need to show this certificate.
///
/// # Errors
/// What is wrong with a listener.
pub(super) async fn prepare(node: &Node, own: Arc<OwnCertificate>) -> Result<LinkMaterial, Problem> {
    let prepared = node.server().prepare_link_certificate(own).await;
    prepared.map_err(|error| Problem::bad_request(error.to_string()))
}

/// Shows the certificate that is in force now, on listeners and on links. Nothing of it fails.
pub(super) async fn show(node: &mut Node, prepared: LinkMaterial) {
    node.server().show_link_certificate(prepared).await;
    node.server_mut().renew_links().await;
}
