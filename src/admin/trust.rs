//! Changes of who is trusted and what they may do, made while the broker runs (`trust.md` 2.2 to 2.6). They live in
//! `<data>/trust.json`; what follows from them for links, in `links.toml`.
//!
//! A change is a function of the [`Book`]: it is made on a copy, checked together with everything in force, written, and then
//! put in force. Whoever runs the broker makes one after the other.

pub mod certificate;
pub mod desk;
pub mod join;
pub mod rotate;
pub mod statements;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::admin::links;
use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::admin::node::Node;
use crate::admin::rest::Change;
use crate::admin::rest::Changes;
use crate::admin::rest::Problem;
use crate::admin::trust::statements::Listener;
use crate::broker::events::event::What;
use crate::broker::links::Links;
use crate::broker::material;
use crate::broker::replace::replace;
use crate::config::Sources;
use crate::config::settings::ListenerKind;
use crate::config::settings::ServerAddr;
use crate::config::settings::Settings;
use crate::config::settings::Trust;
use crate::link::extension::ENROLLED_FIRST;
use crate::net::clock;
use crate::trust::Fingerprint;
pub use crate::trust::book::Book;
use crate::trust::book::Event;
use crate::trust::book::Happened;
pub use crate::trust::book::Own;
use crate::trust::book::Seen;
pub use crate::trust::book::TrustError;
use crate::trust::identity::Kind;
use crate::trust::name;
use crate::trust::rights::OperatorRights;

/// What this program can do in the enrolment: what it could do when it enrolled is asked of it later.
pub const CAPABILITIES: [&str; 2] = [ENROLLED_FIRST, REVERSE];
/// That a side which cannot dial takes connections that the other lends it.
pub const REVERSE: &str = "reverse-1";

/// How long a new peer has to store us before it is dialled.
const AFTER_ANSWER: Duration = Duration::from_millis(250);

/// What a change makes of the book, as of a moment in seconds since the Unix epoch.
type Apply = Box<dyn FnOnce(&mut Book, &Own<'_>, u64) -> Result<Applied, TrustError> + Send>;

/// A change that is asked for.
pub struct TrustChange {
    /// For the log.
    pub name: &'static str,
    /// What it is.
    pub apply: Apply,
}

impl TrustChange {
    /// The same of somebody with these rights, who grants nobody more than they have: refused as a whole otherwise.
    #[must_use]
    pub fn within(self, rights: OperatorRights) -> Self {
        let (name, asked) = (self.name, self.apply);
        let apply = move |book: &mut Book, own: &Own<'_>, now| {
            let before = book.clone();
            let applied = asked(book, own, now)?;
            book.check_granted(&before, &rights)?;
            Ok(applied)
        };
        Self { name, apply: Box::new(apply) }
    }
}

impl std::fmt::Debug for TrustChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustChange").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What became of it.
#[derive(Default)]
pub struct Applied {
    /// What is answered.
    pub answer: Value,
    /// What happened, for the security log.
    pub events: Vec<Event>,
    /// What follows for links.
    pub links: Vec<LinkEdit>,
}

/// Without the answer, which may be a token.
impl std::fmt::Debug for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applied").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Applied {
    /// A change of the book alone, with nothing to say.
    #[must_use]
    pub fn event(event: Event) -> Self {
        Self { events: vec![event], ..Self::default() }
    }
}

/// The book that is in force, for whoever only reads.
#[derive(Debug, Default)]
pub struct Shelf(RwLock<Arc<Book>>);

impl Shelf {
    /// The book.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.0.read())
    }

    /// Puts another there.
    pub fn set(&self, book: Arc<Book>) {
        *self.0.write() = book;
    }
}

/// Asks whoever runs the broker for a change.
///
/// # Errors
/// Why nothing was changed.
pub async fn ask(changes: &Changes, change: TrustChange) -> Result<Value, Problem> {
    let stopping =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "the broker is stopping");
    let (answer, answered) = oneshot::channel();
    changes.send(Change::Trust(change, answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

/// What operations have to know of this cluster, as it is.
#[derive(Debug, Clone)]
pub struct Ourselves {
    cluster: String,
    prefix: String,
    fingerprint: Fingerprint,
    also: Vec<Fingerprint>,
    addrs: Vec<ServerAddr>,
    caps: Vec<String>,
    token_lifetime: u64,
    configured: Vec<crate::auth::peer::PeerRule>,
}

impl Ourselves {
    /// Of a running broker, whose link certificate is made now if there is none.
    ///
    /// # Errors
    /// If it cannot be.
    pub async fn of(node: &Node) -> Result<Self, Problem> {
        let keys = Arc::clone(node.server().link_keys());
        let settings = node.server().settings().clone();
        let made =
            spawn_blocking(move || keys.ensure(clock::now()).map(|own| (own.fingerprint(), keys.next())));
        let (fingerprint, next) = made
            .await
            .map_err(|_| failed("the link certificate: making it failed; the log says more"))?
            .map_err(|error| failed(&format!("the link certificate: {error}")))?;
        let of_book = |link: &&crate::config::settings::Link| link.trust == Trust::Configured;
        Ok(Self {
            prefix: name::default_prefix(&settings.cluster.name),
            fingerprint: Fingerprint(fingerprint),
            also: next.iter().map(|next| Fingerprint(next.fingerprint())).collect(),
            addrs: addresses(node, &settings),
            caps: CAPABILITIES.map(str::to_owned).to_vec(),
            token_lifetime: settings.link.token_expiry.as_secs(),
            configured: settings.cluster.links.iter().filter(of_book).map(material::peer_rule).collect(),
            cluster: settings.cluster.name,
        })
    }

    /// As operations take it.
    #[must_use]
    pub fn view(&self) -> Own<'_> {
        Own {
            cluster: &self.cluster,
            prefix: &self.prefix,
            fingerprint: self.fingerprint,
            also: &self.also,
            addrs: &self.addrs,
            caps: &self.caps,
            token_lifetime: self.token_lifetime,
            configured: &self.configured,
        }
    }
}

/// Where peers reach us: the TLS listeners that accept links, but for those that are bound to every address, of which nobody
/// knows which one a peer can reach.
fn addresses(node: &Node, settings: &Settings) -> Vec<ServerAddr> {
    let open = settings.listeners.iter().filter(|one| {
        one.enable && one.role.accepts_links() && one.kind == ListenerKind::Ssl && !one.proxy_protocol
    });
    open.filter_map(|one| node.server().address(&one.id()))
        .filter(|address| !address.ip().is_unspecified())
        .map(|address| ServerAddr { host: address.ip().to_string(), port: address.port() })
        .collect()
}

/// Makes a change. What it answers.
///
/// # Errors
/// Why nothing was changed.
pub async fn change(node: &mut Node, sources: &mut Sources, change: TrustChange) -> Result<Value, Problem> {
    make(node, sources, change, true).await
}

/// The same; peers that are removed by it are told if `notify`.
async fn make(
    node: &mut Node,
    sources: &mut Sources,
    change: TrustChange,
    notify: bool,
) -> Result<Value, Problem> {
    let Some((_, before)) = sources.trust() else {
        return Err(Problem::conflict("this broker has no file for identities"));
    };
    let mut book = Book::clone(before);
    let ourselves = Ourselves::of(node).await?;
    let applied = (change.apply)(&mut book, &ourselves.view(), clock::now().unix_ms / 1000);
    let Applied { answer, events, links } = applied.map_err(Problem::from)?;
    let removed = removed(before, &book, &node.server().broker().links);
    put(node, sources, book, links).await?;
    tell(node, &events);
    if notify {
        tell_removed(node, removed);
    }
    Ok(answer)
}

/// Peers that were trusted before and of which nothing is known any more.
fn removed(before: &Book, after: &Book, links: &Links) -> Vec<Listener> {
    let now = clock::now().unix_ms / 1000;
    let gone = before.identities().filter(|one| one.kind == Kind::Link && after.link(&one.name).is_none());
    gone.filter_map(|one| Listener::of(before, links, one, now).ok()).collect()
}

/// Tells them, if they can be reached: each still decides itself, and finds out if it is not told.
fn tell_removed(node: &Node, removed: Vec<Listener>) {
    let Some(own) = node.server().link_keys().current() else { return };
    let cluster: Arc<str> = node.server().settings().cluster.name.as_str().into();
    for peer in removed {
        let (own, cluster) = (Arc::clone(&own), Arc::clone(&cluster));
        tokio::spawn(async move {
            match statements::tell_removal(&own, &cluster, &peer).await {
                Ok(()) => tracing::info!(peer = peer.name, "the peer knows that the link is removed"),
                Err(error) => {
                    tracing::warn!(peer = peer.name, error, "the peer was not told that the link is removed");
                }
            }
        });
    }
}

/// Sees to what is over by now: tokens, certificates that were replaced.
pub async fn tick(node: &mut Node, sources: &mut Sources) {
    let Some((_, before)) = sources.trust() else { return };
    let now = clock::now().unix_ms / 1000;
    let shown = node.server().broker().links.take_shown();
    let is_over = before.next_change(node.trusted_unix()).is_some_and(|at| at <= now);
    let lasting = lasting(before, &node.server().broker().links, now);
    if !is_over && shown.is_empty() && lasting.is_empty() {
        return;
    }
    let mut book = Book::clone(before);
    let mut events = if is_over { book.expire(now) } else { Vec::new() };
    let mut store = is_over || !lasting.is_empty();
    lasting.iter().for_each(|name| book.lasts(name, now));
    for (fingerprint, source) in shown {
        match book.seen(Fingerprint(fingerprint), &source.to_string(), now) {
            Seen::Unknown => {}
            Seen::Known { store: stale } => store |= stale,
            Seen::Rotated(event) => {
                store = true;
                events.push(event);
            }
        }
    }
    if !store {
        // What is only a little newer is shown, and stored with the next change.
        *sources = sources.with_trust(book);
        if let Some((_, book)) = sources.trust() {
            node.shelf().set(Arc::clone(book));
        }
        return;
    }
    match put(node, sources, book, Vec::new()).await {
        Ok(()) => {
            node.set_trusted_unix(now);
            tell(node, &events);
        }
        Err(problem) => {
            tracing::error!(error = problem.message, "what is over could not be put out of force")
        }
    }
}

/// Peers whose connections have lasted for long: they are not unused, though they do not come any more.
fn lasting(book: &Book, links: &Links, now: u64) -> Vec<String> {
    let links = links.all().into_iter();
    let lasting = links.filter(|link| link.connections_in() > 0 && book.is_long_connected(link.peer(), now));
    lasting.map(|link| link.peer().to_owned()).collect()
}

/// Writes a book and what follows for links, and puts both in force.
async fn put(
    node: &mut Node,
    sources: &mut Sources,
    book: Book,
    edits: Vec<LinkEdit>,
) -> Result<(), Problem> {
    let text = book.to_json();
    let unchanged = sources.trust().is_some_and(|(_, before)| **before == book);
    let in_force = &node.server().settings().cluster.links;
    let mut edits = edits;
    edits.retain(|edit| !edit.is_done(in_force));
    let has_edits = !edits.is_empty();
    if unchanged && edits.is_empty() {
        return Ok(());
    }
    let mut new = sources.with_trust(book);
    for edit in edits {
        new = links::edited(&new, &node.server().settings().cluster.links, edit)?;
    }
    // A peer stores us once it has our answer, and would refuse us before.
    let hold = if has_edits { AFTER_ANSWER } else { Duration::ZERO };
    let prepared = links::prepare(node, &new).await?.hold(hold);
    if let Some((file, _)) = new.trust().filter(|_| !unchanged) {
        let file = file.to_owned();
        // First: a link without an identity moves nothing, an identity without a link is not let in.
        spawn_blocking(move || replace(&file, &text))
            .await
            .map_err(|_| failed("writing failed; the log says more"))?
            .map_err(|(file, error)| failed(&format!("cannot write {}: {error}", file.display())))?;
    }
    links::write(&new).await?;
    node.server_mut().set_links(prepared).await;
    if let Some((_, book)) = new.trust() {
        node.shelf().set(Arc::clone(book));
    }
    *sources = new;
    Ok(())
}

fn tell(node: &Node, events: &[Event]) {
    let (broker, now) = (node.server().broker(), clock::now());
    for event in events {
        let fingerprint = event.fingerprint.map(|print| format!(", {print}")).unwrap_or_default();
        let source = event.source.as_ref().map(|source| format!(", from {source}")).unwrap_or_default();
        let text = format!("{}: {}{fingerprint}{source}", event.name, event.text);
        let what = match &event.what {
            Happened::EnrolmentRefused(_) => What::LoginFail { method: "enroll" },
            Happened::Admin(act) => What::Admin { act },
            what => What::Trust { name: event_name(what), critical: what.is_critical() },
        };
        broker.security_note(what, &text, now);
    }
}

/// Without what varies: that is in the text.
fn event_name(what: &Happened) -> &'static str {
    match what {
        Happened::TokenCreated => "authn_token_created",
        Happened::TokenRevoked => "authn_token_revoked",
        Happened::TokenExpired => "authn_token_expired",
        Happened::TokenBurnt => "authn_token_burnt",
        Happened::TokenReuse => "authn_token_reuse",
        Happened::Activated => "authn_identity_activated",
        Happened::AwaitsApproval => "authn_identity_awaits_approval",
        Happened::RevokedByPeer => "authn_identity_revoked_by_peer",
        Happened::CertificateAnnounced => "authn_certificate_announced",
        Happened::CertificateChange(_) => "authn_certificate_change",
        Happened::CertificateRetired(_) => "authn_certificate_retired",
        Happened::EnrolmentRefused(_) | Happened::Admin(_) => "authz_admin",
    }
}

impl From<TrustError> for Problem {
    fn from(error: TrustError) -> Self {
        let (status, code) = match &error {
            TrustError::Usage(_) => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            TrustError::Denied(_) => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            TrustError::NotFound { .. } => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            TrustError::Conflict(_) => (StatusCode::CONFLICT, "CONFLICT"),
            TrustError::Over(_) => (StatusCode::CONFLICT, "TOKEN_OVER"),
            TrustError::Refused { .. } if error.exit_code() == 8 => (StatusCode::CONFLICT, "TOKEN_OVER"),
            TrustError::Refused { .. } => (StatusCode::BAD_GATEWAY, "PEER_REFUSED"),
            TrustError::Mismatch { .. } => (StatusCode::BAD_GATEWAY, "FINGERPRINT_MISMATCH"),
        };
        Self::new(status, code, error.to_string())
    }
}

pub(in crate::admin) fn failed(message: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
}

/// Deletes a link that trusts by identity, and the identity with it; its tokens are good no more; the peer is told
/// if `notify`. `None` if there is no such identity.
pub async fn delete(
    node: &mut Node,
    sources: &mut Sources,
    name: &str,
    notify: bool,
) -> Option<Result<(), Problem>> {
    let book = Arc::clone(sources.trust()?.1);
    book.link(name)?;
    let in_force = &node.server().settings().cluster.links;
    if in_force.iter().any(|link| link.name == name && link.trust == Trust::Configured) {
        return None;
    }
    let has_link = in_force.iter().any(|link| link.name == name);
    let peer = name.to_owned();
    let apply = move |book: &mut Book, _: &Own<'_>, _| {
        let event = book.delete_identity(Kind::Link, &peer, "an operator")?;
        let edit = LinkEdit { name: peer, change: LinkChange::Delete { notify } };
        let links = if has_link { vec![edit] } else { Vec::new() };
        Ok(Applied { links, ..Applied::event(event) })
    };
    let change = TrustChange { name: "link_delete", apply: Box::new(apply) };
    let made = make(node, sources, change, notify).await;
    Some(made.map(drop))
}
