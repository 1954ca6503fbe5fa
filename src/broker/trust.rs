//! Keeps what client certificates are judged by up to date while the broker runs: revocation lists that change on disk or
//! are fetched, certificates that expire, clients whose certificate is not good any more (`authn-tls.md` T5, T15).
//!
//! Nothing here is on the way of a message or of a handshake. A server of lists that hangs holds up its own task only;
//! meanwhile the lists before stay in force until they say themselves that they are no longer current.

mod expiry;
mod lists;
mod staples;
mod tasks;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task;
use tokio::task::JoinSet;
use tokio::time;

use crate::auth::certificate::fingerprint_hex;
use crate::broker::Broker;
use crate::broker::client::Client;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::material::read_bounded;
use crate::broker::replace::replace;
use crate::broker::trust::expiry::Dated;
use crate::broker::trust::expiry::Due;
use crate::broker::trust::expiry::Expiries;
use crate::broker::trust::expiry::Nearness;
use crate::broker::trust::lists::Adoption;
use crate::broker::trust::lists::Answer;
use crate::broker::trust::lists::Lists;
use crate::broker::trust::lists::Step;
use crate::broker::trust::lists::Verdict;
use crate::broker::trust::staples::Staples;
use crate::broker::trust::tasks::Tasks;
use crate::config::settings::Settings;
use crate::metrics::labels::CertificateSide;
use crate::mqtt::reason::ReasonCode;
use crate::net::clock;
use crate::net::tls::ClientTls;
use crate::net::tls::ServerTls;
use crate::net::trust::ClientTrust;
use crate::time::Now;

/// How often files and dates are looked at.
const TICK: Duration = Duration::from_secs(30);
/// What was said of certificates that expire, in the data directory.
const SAID: &str = "expiry-said.json";
/// The longest such file in bytes.
const SAID_BYTES_MAX: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Keeper {
    state: Mutex<State>,
    /// Held by whoever puts fetched lists in force, on a thread that may wait: it takes its time, and in turn.
    adopting: Mutex<()>,
    expiries: Expiries,
    /// Where it is kept what was said of them.
    said: OnceLock<PathBuf>,
    /// There are dates that were not looked at yet.
    is_dated_anew: AtomicBool,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    lists: Lists,
    staples: Staples,
    /// When the certificate of each listener expires.
    listeners: BTreeMap<String, i64>,
    /// Who judges client certificates, by listener.
    trusts: Arc<BTreeMap<String, Arc<ClientTrust>>>,
    /// Those of them that judge linked clusters.
    of_links: Vec<Arc<ClientTrust>>,
    /// The fingerprints of clusters that enrolled.
    enrolled: Arc<HashSet<[u8; 32]>>,
    /// When the link certificate expires.
    own: Option<i64>,
    /// When the certificates expire by which peers are known, by their names.
    pinned: Arc<BTreeMap<String, i64>>,
}

impl State {
    fn pin_enrolled(&self) {
        self.of_links.iter().for_each(|trust| trust.set_enrolled(Arc::clone(&self.enrolled)));
    }
}

impl Keeper {
    /// Takes what was loaded, at the start and with every reload, before connections are judged by it. Lists that were
    /// fetched already are put in force at once.
    pub async fn take(
        self: &Arc<Self>,
        settings: &Settings,
        tls: &BTreeMap<String, Arc<ServerTls>>,
        web: Option<ClientTls>,
        now: Now,
    ) {
        self.note(settings, tls, web, now);
        let (keeper, data) = (Arc::clone(self), settings.data.dir.clone());
        let adopting = task::spawn_blocking(move || {
            keeper.remember(&data);
            let _in_turn = keeper.adopting.lock();
            let known = keeper.state.lock().lists.known();
            known.iter().for_each(Adoption::run_again);
        });
        // A panic is logged by the runtime; the lists are fetched again in any case.
        let _ = adopting.await;
        self.changed.notify_one();
    }

    fn note(
        &self,
        settings: &Settings,
        tls: &BTreeMap<String, Arc<ServerTls>>,
        web: Option<ClientTls>,
        now: Now,
    ) {
        let mut state = self.state.lock();
        let before = Arc::clone(&state.trusts);
        let judged = tls.iter().filter_map(|(id, tls)| Some((id.clone(), Arc::clone(tls.trust.as_ref()?))));
        state.trusts = Arc::new(judged.collect());
        tell_older(&before, &state.trusts);
        let for_links = settings.listeners.iter().filter(|listener| listener.role.accepts_links());
        let of_links = for_links.filter_map(|listener| state.trusts.get(&listener.id()).cloned()).collect();
        state.of_links = of_links;
        state.pin_enrolled();
        state.listeners = tls.iter().map(|(id, tls)| (id.clone(), tls.not_after_unix)).collect();
        let sources = settings.listeners.iter().filter_map(|listener| {
            let source = listener.ssl.as_ref()?.crl.clone()?;
            let id = listener.id();
            let trust = Arc::clone(state.trusts.get(&id)?);
            Some((id, source, trust))
        });
        let sources: Vec<_> = sources.collect();
        let stapled = settings.listeners.iter().filter_map(|listener| {
            let ocsp = listener.ssl.as_ref()?.ocsp.clone()?;
            let id = listener.id();
            let stapler = Arc::clone(tls.get(&id)?.stapler.as_ref()?);
            Some((id, ocsp, stapler))
        });
        state.staples.take(stapled.collect(), now);
        state.lists.take(sources, settings.crl_cache.clone(), web, now);
    }

    /// The fingerprints of clusters that enrolled, instead of those before (trust.md 2.4, 2.6): all listeners for links take
    /// them from the next handshake on, those of later reloads too. Who is connected and has none of them any more is
    /// disconnected at the next [`check`](Self::check), unless it was before.
    pub fn set_enrolled(&self, pins: HashSet<[u8; 32]>) {
        let mut state = self.state.lock();
        state.enrolled = Arc::new(pins);
        state.pin_enrolled();
    }

    /// When the link certificate expires, and those by which peers are known, in seconds since the Unix epoch.
    pub fn set_dates(&self, own: Option<i64>, pinned: Arc<BTreeMap<String, i64>>) {
        let mut state = self.state.lock();
        if (state.own, &state.pinned) != (own, &pinned) {
            (state.own, state.pinned) = (own, pinned);
            self.is_dated_anew.store(true, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// Reads once what was said of certificates that expire before this process began.
    fn remember(&self, data: &Path) {
        let file = data.join(SAID);
        if self.said.set(file.clone()).is_ok()
            && let Ok(bytes) = read_bounded(&file, SAID_BYTES_MAX)
        {
            self.expiries.remember(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Keeps it for the next process. If it cannot be kept, it is said again then.
    async fn keep_said(&self, now: Now) {
        let Some(file) = self.said.get().cloned() else { return };
        let text = self.expiries.to_json(now.unix_seconds());
        let _ = task::spawn_blocking(move || replace(&file, &text)).await;
    }

    /// Works for as long as the broker lives.
    pub async fn run(self: Arc<Self>, broker: Arc<Broker>) {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (mut fetches, mut asked, mut reading) = (Tasks::default(), Tasks::default(), JoinSet::new());
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // A file system that hangs holds up neither the dates nor what is fetched.
                    if reading.is_empty() {
                        let (keeper, broker) = (Arc::clone(&self), Arc::clone(&broker));
                        reading.spawn(async move { keeper.read_changed_files(&broker).await });
                    }
                    self.check(&broker, clock::now()).await;
                }
                () = self.changed.notified() => {
                    if self.is_dated_anew.swap(false, Ordering::Relaxed) {
                        self.check(&broker, clock::now()).await;
                    }
                }
                // A panic is logged by the runtime.
                Some(_) = reading.join_next() => {}
                Some((url, result)) = fetches.next() => {
                    self.fetched(&broker, Answer { url, result }).await;
                }
                Some((about, result)) = asked.next() => {
                    let step = self.state.lock().staples.was_answered(about, result, clock::now());
                    tell_staple(&broker, step);
                }
            }
            let (lists, staples) = {
                let (mut state, now) = (self.state.lock(), clock::now());
                (state.lists.due(now), state.staples.due(now))
            };
            for fetch in lists {
                fetches.spawn(fetch.url.clone(), fetch.run());
            }
            for ask in staples {
                asked.spawn(ask.about.clone(), ask.run());
            }
        }
    }

    /// Reads the files of lists that are not what they were.
    pub async fn read_changed_files(&self, broker: &Arc<Broker>) {
        let files = self.state.lock().lists.files();
        // A file system can hang, and a long list takes its time.
        let reading =
            task::spawn_blocking(move || files.into_iter().map(lists::Watched::read).collect::<Vec<_>>());
        let read = reading.await.unwrap_or_default();
        let steps: Vec<Step> = {
            let mut state = self.state.lock();
            read.into_iter().filter_map(|read| state.lists.was_read(read)).collect()
        };
        self.tell(broker, steps).await;
    }

    async fn fetched(self: &Arc<Self>, broker: &Arc<Broker>, answer: Answer) {
        let (keeper, url) = (Arc::clone(self), answer.url.clone());
        let steps = match task::spawn_blocking(move || keeper.adopt(answer)).await {
            Ok(steps) => steps,
            Err(error) => {
                let verdict = Verdict::failed(url, error.to_string());
                self.state.lock().lists.was_tried(verdict, clock::now())
            }
        };
        self.tell(broker, steps).await;
    }

    /// Puts an answer in force. A long list takes its time, for which nothing is locked but others that do the same.
    fn adopt(&self, Answer { url, result }: Answer) -> Vec<Step> {
        let _in_turn = self.adopting.lock();
        let Some(trial) = self.state.lock().lists.trial(&url) else { return Vec::new() };
        let verdict = trial.run(result, clock::now());
        self.state.lock().lists.was_tried(verdict, clock::now())
    }

    async fn tell(&self, broker: &Arc<Broker>, steps: Vec<Step>) {
        let mut anew = false;
        for step in steps {
            let (taken, text) = match &step {
                Step::Taken(text) => (true, text),
                Step::Failed(text) => (false, text),
            };
            anew |= taken;
            broker.security_note(What::RevocationLists { taken }, text, clock::now());
            if taken {
                tracing::info!("revocation list: {text}");
            } else {
                tracing::warn!(
                    "revocation list: {text}: what was in force stays until it is no longer current"
                );
            }
        }
        if anew {
            self.check(broker, clock::now()).await;
        }
    }

    /// Ends connections whose certificate is not good any more, tells which certificates expire, and shows both dates.
    pub async fn check(&self, broker: &Arc<Broker>, now: Now) {
        let (trusts, dates) = {
            let state = self.state.lock();
            (Arc::clone(&state.trusts), dates(&state, broker))
        };
        let due = self.expiries.observe(dates, now.unix_seconds());
        due.iter().for_each(|due| tell_expiry(broker, due, now));
        if !due.is_empty() {
            self.keep_said(now).await;
        }
        if !trusts.is_empty() {
            let broker = Arc::clone(broker);
            // Each of many clients is looked at. A panic is logged by the runtime.
            let _ = task::spawn_blocking(move || broker.end_distrusted(&trusts, now)).await;
        }
    }
}

impl Broker {
    /// Closes the connections whose certificate the listener would not take any more.
    fn end_distrusted(&self, trusts: &BTreeMap<String, Arc<ClientTrust>>, now: Now) {
        let connected = self.clients.iter().filter(|entry| entry.value().is_connected());
        let clients: Vec<Arc<Client>> = connected.map(|entry| Arc::clone(entry.value())).collect();
        for client in clients {
            let (identity, going) = {
                let state = client.lock();
                (Arc::clone(&state.identity), state.kicked.is_some())
            };
            let trust = trusts.get(&*identity.listener);
            let (Some(trust), false) = (trust, going) else { continue };
            let certificate = identity.proof.certificate.as_deref();
            let Some(why) = trust.distrusts(certificate, now.unix_seconds()) else { continue };
            client.kick(ReasonCode::NotAuthorized);
            let shown = certificate.map(|certificate| fingerprint_hex(&certificate.der_sha256));
            let description = format!("{}: {}", why.name(), shown.as_deref().unwrap_or("no certificate"));
            let event = identity.event(What::Revoked);
            self.security_event(&SecurityEvent { description: &description, ..event }, now);
            tracing::warn!(
                client_id = &*identity.client_id,
                peer = %identity.peer,
                listener = &*identity.listener,
                reason = why.name(),
                "disconnected: the certificate is not good any more"
            );
        }
    }
}

/// Says whose lists, read from files by a reload, are older than those in force: they let in again whom those revoked.
fn tell_older(before: &BTreeMap<String, Arc<ClientTrust>>, now: &BTreeMap<String, Arc<ClientTrust>>) {
    for (listener, trust) in now {
        let older = before.get(listener).map(|before| trust.made().older_than(&before.made()));
        for name in older.unwrap_or_default() {
            tracing::warn!(listener, "the revocation list of `{name}` is older than the one before");
        }
    }
}

/// All dates there are; those of listeners are put into their series on the way.
fn dates(state: &State, broker: &Broker) -> Vec<(Dated, i64)> {
    let ms = |unix: i64| u64::try_from(unix).unwrap_or(0).saturating_mul(1000);
    let mut dates = Vec::new();
    broker.metrics.keep_listeners(|id| state.listeners.contains_key(id));
    for (id, at) in &state.listeners {
        broker.metrics.listener(id).cert_expiry.set_ms(ms(*at));
        // One that shows the link certificate is not told of by itself.
        dates.extend((state.own != Some(*at)).then(|| (Dated::Listener(id.clone()), *at)));
    }
    for (id, trust) in state.trusts.iter().filter(|(_, trust)| trust.checks_revocation()) {
        let next = trust.next_update_unix();
        broker.metrics.listener(id).crl_next_update.set_ms(ms(next.unwrap_or(0)));
        dates.extend(next.map(|at| (Dated::Lists(id.clone()), at)));
    }
    broker.metrics.broker.link_certificate_expiry.set_ms(ms(state.own.unwrap_or(0)));
    dates.extend(state.own.map(|at| (Dated::Own, at)));
    dates.extend(state.pinned.iter().map(|(name, at)| (Dated::Pinned(name.clone()), *at)));
    for link in broker.links.all() {
        link.metrics.note_expiry(CertificateSide::Pinned, state.pinned.get(link.peer()).copied());
        let peer = || link.peer().to_owned();
        let sides = [
            (CertificateSide::Local, Dated::Local(peer())),
            (CertificateSide::Remote, Dated::Remote(peer())),
            (CertificateSide::RemoteClient, Dated::RemoteClient(peer())),
        ];
        for (side, dated) in sides {
            let ms = link.metrics.cert_expiry[side].ms();
            let at = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
            let is_said = state.own == Some(at) || state.pinned.get(link.peer()) == Some(&at);
            if ms > 0 && !is_said {
                dates.push((dated, at));
            }
        }
    }
    dates
}

fn tell_staple(broker: &Broker, step: Option<Step>) {
    let (taken, text) = match step {
        None => return,
        Some(Step::Taken(text)) => (true, text),
        Some(Step::Failed(text)) => (false, text),
    };
    broker.security_note(What::Staple { taken }, &text, clock::now());
    if taken {
        tracing::info!("{text}");
    } else {
        tracing::warn!("{text}");
    }
}

fn tell_expiry(broker: &Broker, due: &Due, now: Now) {
    let what = due.what.describe();
    let text = match (&due.what, due.nearness) {
        (Dated::Lists(_), _) => format!("{what} is no longer current: clients are refused"),
        (_, Nearness::Past) => format!("{what} has expired"),
        _ => format!("{what} expires within {} days", due.days),
    };
    broker.security_event(&SecurityEvent::new(What::CertificateExpiry, &text), now);
    tracing::warn!("{text}");
}
