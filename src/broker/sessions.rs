//! The life of sessions in the broker: a connection takes one over or begins one, leaves it, and in the end it
//! goes with everything it holds.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task;

use crate::acl::eval::Request;
use crate::broker::Broker;
use crate::broker::banned::Ban;
use crate::broker::banned::BanError;
use crate::broker::banned::Kind;
use crate::broker::banned::Subject;
use crate::broker::client::Client;
use crate::broker::client::State;
use crate::broker::delayed;
use crate::broker::delayed::Delay;
use crate::broker::delayed::Waiting;
use crate::broker::delivery::Source;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::filters::AskedFilter;
use crate::broker::identity::Identity;
use crate::broker::identity::Policy;
use crate::broker::routes::RouteChange;
use crate::broker::shared;
use crate::broker::shared::ClientKey;
use crate::config::settings::DenyAction;
use crate::metrics::labels::DropReason;
use crate::mqtt::packet::QoS;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::ParsedFilter;
use crate::net::clock;
use crate::session::Attachment;
use crate::session::Due;
use crate::session::Ending;
use crate::session::Session;
use crate::session::Subscription;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::session::queue::Owed;
use crate::time::Now;

/// Delayed messages published before others get a turn.
const DELAYED_PER_TURN: usize = 64;

/// A connection's hold on a session.
#[derive(Debug)]
pub struct Attached {
    /// The session.
    pub client: Arc<Client>,
    /// Names the connection towards the session: a takeover makes it stale.
    pub epoch: u64,
    /// Session Present.
    pub session_present: bool,
    /// The number of the group in which the session is stored, or what its client did last in an exchange of QoS 2: CONNACK
    /// waits for it. 0 if it need not.
    pub kept_in: u64,
}

/// A Will that is to be published now.
#[derive(Debug)]
struct DueWill {
    message: Message,
    identity: Arc<Identity>,
    key: ClientKey,
}

impl DueWill {
    fn of(client: &Client, state: &State, message: Option<Message>) -> Option<Self> {
        Some(Self { message: message?, identity: Arc::clone(&state.identity), key: client.key })
    }
}

/// What is left to do after the lock of a client is free again.
#[derive(Debug, Default)]
struct Aftermath {
    will: Option<DueWill>,
    filters: Vec<Box<str>>,
    lost_messages: usize,
    orphans: Vec<Owed>,
}

impl Broker {
    /// Attaches a new connection: to the session of its Client Identifier (`[MQTT-3.1.3-2]`, `[MQTT-3.1.2-5]`),
    /// which it takes over from the connection that has it (`[MQTT-3.1.4-3]`), or to a new one, where there is none
    /// (`[MQTT-3.1.2-6]`) or by Clean Start (`[MQTT-3.1.2-4]`, `[MQTT-3.1.4-4]`). None when the session belongs to
    /// another user (`authn-tls.md` A8): it is left as it is.
    pub fn attach(
        &self,
        identity: &Arc<Identity>,
        clean_start: bool,
        attachment: Attachment,
        now: Now,
    ) -> Option<Attached> {
        let _burst = self.begin();
        let existing = self.clients.get(&identity.client_id).map(|entry| Arc::clone(&entry));
        if let Some(client) = existing {
            if !client.lock().identity.is_same_client(identity) {
                return None;
            }
            if clean_start {
                self.end_session(&client, now);
            } else {
                match self.take_over(&client, identity, attachment, now) {
                    Ok(attached) => return Some(attached),
                    Err(attachment) => return Some(self.start_session(identity, attachment, now)),
                }
            }
        }
        Some(self.start_session(identity, attachment, now))
    }

    /// Resumes a session, unless it ended with its last connection: then the attachment comes back.
    fn take_over(
        &self,
        client: &Arc<Client>,
        identity: &Arc<Identity>,
        attachment: Attachment,
        now: Now,
    ) -> Result<Attached, Attachment> {
        let burst = self.begin();
        let (result, will, bell, other_rights) = {
            let mut state = client.lock();
            if state.over {
                return Err(attachment);
            }
            let due = if state.session.is_connected() {
                state.session.detach(Ending::WithWill, now)
            } else {
                Due::default()
            };
            let will = DueWill::of(client, &state, due.will);
            if due.session_over {
                drop(state);
                self.publish_will(will, now);
                self.end_session(client, now);
                return Err(attachment);
            }
            let bell = state.bell();
            let other_rights = !state.identity.has_rights_of(identity);
            state.epoch += 1;
            state.kicked = None;
            state.identity = Arc::clone(identity);
            state.deafen();
            state.session.attach(attachment, now);
            client.set_connected(true);
            // What it has to take is waiting: that is not to wait for a disk which may be full.
            state.keep_session(client.key, burst.as_ref(), false, now);
            client.set_kept(state.session.is_kept());
            self.schedule(client, &mut state, now);
            let is_stored = |group| self.store.as_ref().is_none_or(|store| store.committed() >= group);
            let kept_in = Some(state.session.taken_in()).filter(|group| !is_stored(*group)).unwrap_or(0);
            // [MQTT-3.2.2-3]
            let client = Arc::clone(client);
            let attached = Attached { client, epoch: state.epoch, session_present: true, kept_in };
            (attached, will, bell, other_rights)
        };
        if let Some(bell) = bell {
            bell.ring();
        }
        self.publish_will(will, now);
        if other_rights {
            // What was granted to it at another address, or with another certificate, may not be granted here.
            self.recheck(client, &self.policy());
        }
        Ok(result)
    }

    fn start_session(&self, identity: &Arc<Identity>, attachment: Attachment, now: Now) -> Attached {
        let limits = self.limits();
        let key = ClientKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let session = Session::new(Arc::clone(&limits.session));
        let client = Client::new(key, session, Arc::clone(identity));
        let burst = self.begin();
        {
            let mut state = client.lock();
            state.session.attach(attachment, now);
            state.epoch = 1;
            client.set_connected(true);
            state.keep_session(key, burst.as_ref(), true, now);
            client.set_kept(state.session.is_kept());
            self.schedule(&client, &mut state, now);
        }
        // Two connections with one new identifier at the same moment: the later one wins.
        let replaced = self.clients.insert(Arc::clone(&identity.client_id), Arc::clone(&client));
        if let Some(other) = replaced {
            self.end_session(&other, now);
        }
        let kept_in = burst.and_then(|burst| burst.promised()).unwrap_or(0);
        Attached { client, epoch: 1, session_present: false, kept_in } // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
    }

    /// A connection is gone. Does nothing when the session has another one by now.
    pub(super) fn detach(&self, client: &Arc<Client>, epoch: u64, ending: Ending, now: Now) {
        let burst = self.begin();
        let (will, over) = {
            let mut state = client.lock();
            if state.over || state.epoch != epoch {
                return;
            }
            let due = state.session.detach(ending, now);
            client.set_connected(false);
            state.deafen();
            state.kicked = None;
            if !due.session_over {
                state.keep_session(client.key, burst.as_ref(), false, now);
            }
            self.schedule(client, &mut state, now);
            (DueWill::of(client, &state, due.will), due.session_over)
        };
        self.publish_will(will, now);
        if over {
            self.end_session(client, now);
        }
    }

    /// Ends a session with its subscriptions and everything it owes, and closes its connection.
    pub(super) fn end_session(&self, client: &Arc<Client>, now: Now) {
        let mut aftermath = Aftermath::default();
        let burst = self.begin();
        let bell = {
            let mut state = client.lock();
            if state.over {
                return;
            }
            state.over = true;
            let connected = state.session.is_connected();
            let due = if connected { state.session.detach(Ending::WithWill, now) } else { Due::default() };
            client.set_connected(false);
            aftermath.filters = state.session.subscriptions().map(|(filter, _)| filter.into()).collect();
            aftermath.orphans = state.session.take_shared();
            aftermath.lost_messages = state.session.queued();
            state.forget_session(client.key, burst.as_ref());
            let delayed_will = state.session.end();
            state.keep(client.key, burst.as_ref(), now);
            let will = due.will.or(delayed_will);
            aftermath.will = DueWill::of(client, &state, will);
            let bell = state.bell();
            state.deafen();
            bell
        };
        for filter in &aftermath.filters {
            self.exclusive.release(filter, client.key);
        }
        self.clients.remove_if(&client.id, |_, present| Arc::ptr_eq(present, client));
        let parsed = aftermath.filters.iter().filter_map(|filter| ParsedFilter::parse(filter).ok());
        let changes = self.routes.remove_all(client.key, parsed.map(|parsed| (parsed.filter, parsed.share)));
        self.replicate(changes);
        self.metrics.broker.messages_dropped[DropReason::SessionEnded].add(aftermath.lost_messages as u64);
        if let Some(bell) = bell {
            bell.ring();
        }
        if self.is_stopping() {
            let lost = aftermath.orphans.len() as u64;
            self.metrics.broker.messages_dropped[DropReason::SessionEnded].add(lost);
        } else if !aftermath.orphans.is_empty() {
            self.pass_on(&aftermath.orphans, now);
        }
        self.publish_will(aftermath.will, now);
    }

    /// Publishes a Will. Its Message Expiry Interval counts from now (section 3.1.3.2.4).
    fn publish_will(&self, will: Option<DueWill>, now: Now) {
        let Some(DueWill { message, identity, key }) = will else { return };
        if self.banned.find(&Subject::of(&identity), now) || self.banned.is_flapping(&identity, now) {
            self.metrics.broker.messages_dropped[DropReason::Banned].inc();
            return;
        }
        let mut view = message.view();
        view.expiry = view.expiry.map(|expiry| Expiry { received_mono_ms: now.mono_ms, ..expiry });
        self.publish_kept(&view, &identity, key, "will", now);
    }

    /// Publishes a message that was kept, as its client would have: with the ACL in force now, confinement
    /// included.
    fn publish_kept(
        &self,
        view: &Publication<'_>,
        identity: &Arc<Identity>,
        key: ClientKey,
        action: &str,
        now: Now,
    ) {
        let _burst = self.begin();
        let request = Request::Publish { topic: view.topic, qos: view.qos, retain: view.retain };
        if let Err(denied) = self.policy().authorize(identity, &request) {
            self.log_denied(identity, action, view.topic, denied);
            self.metrics.broker.messages_dropped[DropReason::Acl].inc();
            return;
        }
        if view.topic.starts_with(delayed::PREFIX) {
            if let Some(delay) = Delay::parse(view.topic, now) {
                self.delay(&delay, view, identity, key);
            }
            return;
        }
        // [MQTT-3.1.2-14], [MQTT-3.1.2-15]
        if view.retain {
            self.retain(view, Some(identity), now.unix_ms, || Message::keep(view));
        }
        self.publish_one(view, Source::Client(identity, key), now);
    }

    /// Keeps a message for its moment. Whether there was room.
    pub(super) fn delay(
        &self,
        delay: &Delay<'_>,
        publication: &Publication<'_>,
        identity: &Arc<Identity>,
        key: ClientKey,
    ) -> bool {
        let message = Message::keep(&Publication { topic: delay.topic, ..*publication });
        let burst = self.begin();
        let number = burst.as_ref().map_or(0, |burst| burst.numbers().fetch_add(1, Ordering::Relaxed));
        let waiting = Waiting { message, identity: Arc::clone(identity), key, number };
        // First: whoever publishes it takes it out of what is stored.
        waiting.keep(delay.due_mono_ms, burst.as_ref());
        let kept = self.delayed.insert(delay.due_mono_ms, waiting);
        if !kept {
            Waiting::forget(number, burst.as_ref());
            self.metrics.broker.messages_dropped[DropReason::Quota].inc();
        }
        kept
    }

    /// Publishes what was delayed and is due. Others get their turns in between.
    pub(super) async fn publish_delayed(&self, now: Now) {
        loop {
            let due = self.delayed.take_due(now, DELAYED_PER_TURN);
            if due.is_empty() {
                return;
            }
            for waiting in due {
                // It is published and gone, or neither.
                let burst = self.begin();
                Waiting::forget(waiting.number, burst.as_ref());
                if waiting.message.is_expired(now) {
                    self.metrics.broker.messages_dropped[DropReason::Expired].inc();
                } else {
                    let Waiting { message, identity, key, .. } = &waiting;
                    self.publish_kept(&message.view(), identity, *key, "delayed publish", now);
                }
            }
            task::yield_now().await;
        }
    }

    /// Adds a subscription to session and route table. Whether it is new; `None` when the client has as many
    /// as it may, or the connection has lost its session.
    pub(super) fn subscribe(
        &self,
        client: &Arc<Client>,
        epoch: u64,
        parsed: &ParsedFilter<'_>,
        asked: &AskedFilter<'_>,
        subscription: Subscription,
    ) -> Option<bool> {
        let max = self.subscriptions_max();
        let burst = self.begin();
        let (is_new, change) = {
            // The route table's lock is taken inside the client's, so that a session that ends at the same
            // moment leaves no route behind.
            let mut state = client.lock();
            if state.over || state.epoch != epoch {
                return None;
            }
            if asked.exclusive && !self.exclusive.take(parsed.filter, client.key) {
                return None;
            }
            let Some(is_new) = state.session.subscribe(&asked.plain, subscription, max) else {
                self.exclusive.release(parsed.filter, client.key);
                return None;
            };
            if !asked.exclusive && !is_new {
                self.exclusive.release(parsed.filter, client.key); // [MQTT-3.8.4-3]: replaced
            }
            let plain = &asked.plain;
            state.keep_subscription(client.key, plain, subscription, asked.exclusive, burst.as_ref());
            let entry = shared::Subscription {
                key: client.key,
                destination: Arc::clone(client),
                options: subscription.options,
                id: subscription.id,
            };
            (is_new, self.routes.subscribe(parsed.filter, parsed.share, entry).change)
        };
        self.sys.note(parsed.filter);
        self.replicate(change);
        Some(is_new)
    }

    /// How many subscriptions a client may have now.
    fn subscriptions_max(&self) -> Option<usize> {
        let (limits, counts) = (self.limits(), self.routes.counts());
        let full =
            counts.subscriptions + counts.shared_subscriptions >= limits.overload.max_total_subscriptions;
        // It may still replace what it has.
        if full || self.load.is_critical() { Some(0) } else { limits.max_subscriptions }
    }

    /// Asks the ACL about every subscription again, after it was swapped (`acl-language.md` section 4, B8): what is
    /// denied now is removed, with what waits for it, and its client disconnected if `deny_action` says so. How many
    /// were removed. It takes its time and is called off the threads that serve clients; it holds the lock of one
    /// client at a time, and asks no rule under it.
    pub(super) fn recheck_subscriptions(&self) -> usize {
        let policy = self.policy();
        self.recheck_retained();
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        clients.iter().map(|client| self.recheck(client, &policy)).sum()
    }

    /// Withholds retained messages that their publishers may not publish any more, wills and delayed ones included, and
    /// gives again those that they may.
    fn recheck_retained(&self) {
        let before = self.retained.counts().withheld;
        let withheld = self.retained.recheck(|| {
            let policy = self.policy();
            move |publisher: &Identity, message: &Message| {
                let view = message.view();
                let request = Request::Publish { topic: view.topic, qos: view.qos, retain: true };
                policy.authorize(publisher, &request).is_ok()
            }
        });
        if withheld != before {
            tracing::warn!(
                withheld,
                before,
                "retained messages withheld: their publishers may not publish them any more"
            );
        }
    }

    /// The same for one client.
    fn recheck(&self, client: &Client, policy: &Policy) -> usize {
        let (epoch, identity, filters) = {
            let state = client.lock();
            let filters: Vec<(Box<str>, QoS)> = state
                .session
                .subscriptions()
                .map(|(filter, subscription)| (filter.into(), subscription.options.qos))
                .collect();
            (state.epoch, Arc::clone(&state.identity), filters)
        };
        let mut removed = Vec::new();
        for (filter, qos) in filters {
            let request = Request::Subscribe { filter: &filter, qos };
            let Err(denied) = policy.authorize(&identity, &request) else { continue };
            let Ok(parsed) = ParsedFilter::parse(&filter) else { continue };
            if self.unsubscribe(client, epoch, &parsed, &filter) {
                self.log_denied(&identity, "subscribe", &filter, denied);
                removed.push(filter);
            }
        }
        if !removed.is_empty() {
            self.withhold(client, epoch, &removed);
        }
        let cut_off = !removed.is_empty() && policy.deny_action == DenyAction::Disconnect;
        if cut_off || lost_its_link(&identity, policy) {
            client.kick(ReasonCode::NotAuthorized);
        }
        removed.len()
    }

    /// Takes from a client what it is owed only by subscriptions that it has no right to any more. What came by a Shared
    /// Subscription goes to another member.
    fn withhold(&self, client: &Client, epoch: u64, removed: &[Box<str>]) {
        let burst = self.begin();
        let now = clock::now();
        // What it is about is seen from its topic.
        self.fetch_all(client, now);
        let withheld = {
            let mut state = client.lock();
            if state.over || state.epoch != epoch {
                return;
            }
            let withheld = state.session.withhold(removed);
            state.keep(client.key, burst.as_ref(), now);
            withheld
        };
        self.metrics.broker.messages_dropped[DropReason::Acl].add(withheld.dropped);
        if !withheld.orphans.is_empty() {
            self.pass_on(&withheld.orphans, now);
        }
    }

    /// Removes a subscription. Whether there was one.
    pub(super) fn unsubscribe(
        &self,
        client: &Client,
        epoch: u64,
        parsed: &ParsedFilter<'_>,
        filter: &str,
    ) -> bool {
        let burst = self.begin();
        let change = {
            let mut state = client.lock();
            if state.over || state.epoch != epoch || !state.session.unsubscribe(filter) {
                return false;
            }
            state.forget_subscription(client.key, filter, burst.as_ref());
            self.exclusive.release(parsed.filter, client.key);
            self.routes.unsubscribe(client.key, parsed.filter, parsed.share).change
        };
        self.replicate(change);
        true
    }

    fn replicate(&self, changes: impl IntoIterator<Item = RouteChange>) {
        for change in changes {
            self.links.handle_route_change(&change);
        }
    }

    /// Closes the connection of every client, with this reason.
    pub(super) fn kick_all(&self, reason: ReasonCode) {
        self.kick_where(reason, |_| true);
    }

    /// Closes the connections that came in over one listener.
    pub(super) fn kick_listener(&self, listener: &str, reason: ReasonCode) {
        self.kick_where(reason, |identity| &*identity.listener == listener);
    }

    /// The same, of those that showed a certificate.
    pub(super) fn kick_certified(&self, listener: &str, reason: ReasonCode) {
        let certified = |identity: &Identity| identity.proof.certificate.is_some();
        self.kick_where(reason, |identity| &*identity.listener == listener && certified(identity));
    }

    /// Closes the connections that by the rules for peers in force now are not what they were let in as.
    pub(super) fn kick_unproven(&self) {
        let credentials = self.authentication.credentials();
        let kicked =
            self.kick_where(ReasonCode::NotAuthorized, |identity| !identity.still_holds(&credentials.peers));
        for identity in kicked {
            let description = "what it proved does not make it what it was any more";
            self.security_event(
                &SecurityEvent { description, ..identity.event(What::Revoked) },
                clock::now(),
            );
        }
    }

    /// Bans whom `ban` names and closes their connections. The ban as it stands in the table.
    ///
    /// # Errors
    /// Why there is no such ban.
    pub fn ban(&self, ban: Ban, now: Now) -> Result<Ban, BanError> {
        let (ban, fits) = {
            let _burst = self.begin();
            self.banned.insert(ban, now)?
        };
        // DISCONNECT has no code for a ban (table 3-10).
        self.kick_where(ReasonCode::AdministrativeAction, |identity| fits.fits(&Subject::of(identity)));
        let text = format!("{} {:?} by {:?}: {:?}", ban.kind.name(), ban.who, ban.by, ban.reason);
        self.security_note(What::Ban, &text, now);
        Ok(ban)
    }

    /// Lifts a ban. Whether there was one.
    pub fn lift_ban(&self, kind: Kind, who: &str, now: Now) -> bool {
        let _burst = self.begin();
        self.banned.remove(kind, who, now)
    }

    /// Lifts every ban.
    pub fn lift_bans(&self) {
        let _burst = self.begin();
        self.banned.clear();
    }

    /// Closes the connections of some clients, and says whose.
    fn kick_where(&self, reason: ReasonCode, which: impl Fn(&Identity) -> bool) -> Vec<Arc<Identity>> {
        let mut kicked = Vec::new();
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        for client in clients {
            let identity = Arc::clone(&client.lock().identity);
            if which(&identity) {
                client.kick(reason);
                kicked.push(identity);
            }
        }
        kicked
    }

    /// Time has passed for one client.
    pub(super) fn handle_timeout(&self, client: &Arc<Client>, now: Now) {
        let burst = self.begin();
        let (will, over, bell, expired) = {
            let mut state = client.lock();
            state.sweep_at = None;
            if state.over {
                return;
            }
            let due = state.session.handle_timeout(now);
            let (mut bell, mut expired) = (None, None);
            if due.keep_alive_over {
                state.kicked = Some(ReasonCode::KeepAliveTimeout);
                bell = state.bell();
            } else if state.session.is_connected() && state.identity.is_over(now) {
                state.kicked = Some(ReasonCode::NotAuthorized);
                bell = state.bell();
                expired = Some(Arc::clone(&state.identity));
            } else {
                if due.will.is_some() && !due.session_over {
                    state.keep_session(client.key, burst.as_ref(), false, now);
                }
                self.schedule(client, &mut state, now);
            }
            (DueWill::of(client, &state, due.will), due.session_over, bell, expired)
        };
        if let Some(bell) = bell {
            bell.ring();
        }
        if let Some(identity) = expired {
            let description = "its token has expired";
            self.security_event(&SecurityEvent { description, ..identity.event(What::Revoked) }, now);
        }
        self.publish_will(will, now);
        if over {
            self.end_session(client, now);
        }
    }

    /// Has the sweeper look at this client in time.
    pub(super) fn schedule(&self, client: &Arc<Client>, state: &mut State, now: Now) {
        let connected = state.session.is_connected();
        let expires = state.identity.expires_mono_ms.filter(|_| connected).map(NonZeroU64::get);
        let due = [state.session.poll_timeout(), expires];
        let Some(at) = due.into_iter().flatten().min() else { return };
        if state.sweep_at.is_none_or(|known| at < known.get()) {
            state.sweep_at = NonZeroU64::new(self.sweeper.insert(at, now, Arc::downgrade(client)));
        }
    }
}

/// Whether a peer's connection may do nothing of what it is for (`acl-language.md` section 4).
fn lost_its_link(identity: &Identity, policy: &Policy) -> bool {
    let Some(cluster) = &identity.bound_to else { return false };
    ["msg", "route"].iter().all(|kind| {
        let topic = format!("$LINK/cluster/{kind}/{cluster}");
        let request = Request::Publish { topic: &topic, qos: QoS::AtLeastOnce, retain: false };
        policy.authorize(identity, &request).is_err()
    })
}
