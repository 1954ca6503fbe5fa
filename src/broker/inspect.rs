//! What an operator sees of a running broker and does to it: clients, subscriptions, retained messages. Read-only
//! views are copies, a page of them at a time; locks are held for one client or one slice. It asks no ACL, because
//! the operator is whoever holds an API key or the admin socket; `$LINK/` and `$SYS` stay closed all the same.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::acl::confine::ListenerRole;
use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::client::Client;
use crate::broker::counts::Counts;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::identity::Identity;
use crate::broker::keep::trouble_text;
use crate::broker::retained::Cursor;
use crate::broker::shared::ClientKey;
use crate::metrics::labels::DropReason;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::mqtt::topic::TopicError;
use crate::net::address::PeerAddr;
use crate::session::Subscription;
use crate::session::frames::Run;
use crate::session::frames::RunFrames;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::storage::store::Trouble;
use crate::time::Now;

/// The Client Identifier that messages published by an operator seem to come from.
pub const OPERATOR: &str = "http_api";

/// One client, as it was when it was asked for.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Whether a connection is attached.
    pub connected: bool,
    /// Session Expiry Interval in seconds.
    pub expiry_seconds: u32,
    /// Number of subscriptions.
    pub subscriptions: usize,
    /// Messages waiting.
    pub queued: usize,
    /// Deliveries without their final acknowledgement.
    pub in_flight: usize,
    /// QoS 2 messages whose PUBREL is awaited.
    pub awaiting_release: usize,
}

/// One subscription of one client.
#[derive(Debug, Clone)]
pub struct SubscriptionView {
    /// Whose it is.
    pub client_id: Arc<str>,
    /// The filter as the client wrote it.
    pub filter: Box<str>,
    /// Its options and identifier.
    pub subscription: Subscription,
}

/// Some of a list, and how long the whole of it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items of the window.
    pub items: Vec<T>,
    /// How many match.
    pub count: usize,
}

/// Gathers the part of a list that lies in a window, and counts the rest.
struct Window<T> {
    range: Range<usize>,
    page: Page<T>,
}

impl<T> Window<T> {
    fn new(range: Range<usize>) -> Self {
        Self { range, page: Page { items: Vec::new(), count: 0 } }
    }

    fn add(&mut self, item: impl FnOnce() -> T) {
        if self.range.contains(&self.page.count) {
            self.page.items.push(item());
        }
        self.page.count += 1;
    }
}

/// Why a message of an operator was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No Topic Name.
    #[error("topic: {0}")]
    Topic(#[from] TopicError),
    /// Topics that belong to the broker and to links.
    #[error(
        "topic: `$LINK/`, `$SYS` and EMQX's `$delayed/`, `$queue/`, `$exclusive/` and `$share/` are not published to"
    )]
    Reserved,
    /// `mqtt.max_topic_levels`
    #[error("topic: more levels than mqtt.max_topic_levels")]
    TooManyLevels,
    /// `mqtt.max_packet_size`
    #[error("the message is longer than mqtt.max_packet_size")]
    TooLong,
    /// `mqtt.max_qos_allowed`
    #[error("qos: above mqtt.max_qos_allowed")]
    QoS,
    /// `mqtt.retain_available`
    #[error("retain: mqtt.retain_available is false")]
    Retain,
    /// The retained store is full.
    #[error("the message was delivered and not retained: the store of retained messages is full")]
    RetainedFull,
    /// It would have to be stored.
    #[error("the message was not taken: {}", trouble_text(*.0))]
    Store(Trouble),
    /// A link's spool is full and its `on_full` is `refuse`.
    #[error("the message was delivered here and not to a linked cluster, whose spool is full")]
    LinkFull,
}

impl ClientView {
    fn of(client: &Client) -> Option<Self> {
        let state = client.lock();
        (!state.over).then(|| Self {
            identity: Arc::clone(&state.identity),
            connected: state.session.is_connected(),
            expiry_seconds: state.session.expiry_seconds(),
            subscriptions: state.session.subscriptions().count(),
            queued: state.session.queued(),
            in_flight: state.session.in_flight(),
            awaiting_release: state.session.awaiting_release(),
        })
    }
}

impl Broker {
    /// All clients in the order of their identifiers, so that pages follow each other.
    fn clients_in_order(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// The clients that `wanted` chooses, in the order of their identifiers. It looks at every client: keep it off
    /// the thread that does the broker's input and output.
    #[must_use]
    pub fn list_clients(
        &self,
        window: Range<usize>,
        wanted: impl Fn(&ClientView) -> bool,
    ) -> Page<ClientView> {
        let mut found = Window::new(window);
        for client in self.clients_in_order() {
            if let Some(view) = ClientView::of(&client).filter(&wanted) {
                found.add(|| view);
            }
        }
        found.page
    }

    /// One client.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<ClientView> {
        let client = self.clients.get(client_id).map(|entry| Arc::clone(&entry))?;
        ClientView::of(&client)
    }

    /// How many sessions there are, and how many of them have a connection.
    #[must_use]
    pub fn session_counts(&self) -> (usize, usize) {
        let connected = self.clients.iter().filter(|entry| entry.value().is_connected()).count();
        (self.clients.len(), connected)
    }

    /// Disconnects a client with 0x98 and ends its session, as EMQX does; its Will is published. Whether there was
    /// one.
    pub fn kick(&self, client_id: &str, now: Now) -> bool {
        let Some(client) = self.clients.get(client_id).map(|entry| Arc::clone(&entry)) else { return false };
        client.kick(ReasonCode::AdministrativeAction);
        self.end_session(&client, now);
        true
    }

    /// The subscriptions of one client, in the order of their filters.
    #[must_use]
    pub fn subscriptions_of(&self, client_id: &str) -> Option<Vec<SubscriptionView>> {
        let client = self.clients.get(client_id).map(|entry| Arc::clone(&entry))?;
        Some(subscriptions(&client))
    }

    /// The subscriptions that `wanted` chooses, in the order of clients and filters. It looks at every one: keep it
    /// off the thread that does the broker's input and output.
    #[must_use]
    pub fn list_subscriptions(
        &self,
        window: Range<usize>,
        wanted: impl Fn(&SubscriptionView) -> bool,
    ) -> Page<SubscriptionView> {
        let mut found = Window::new(window);
        for client in self.clients_in_order() {
            for view in subscriptions(&client).into_iter().filter(&wanted) {
                found.add(|| view);
            }
        }
        found.page
    }

    /// The distinct filters that our clients subscribe to, shared ones as `$share/{ShareName}/{filter}`, in order.
    #[must_use]
    pub fn list_topics(&self, window: Range<usize>, wanted: impl Fn(&str) -> bool) -> Page<String> {
        let routes = self.routes.local_routes().into_iter().map(|route| match route.share {
            Some(name) => format!("$share/{name}/{}", route.filter),
            None => route.filter.into(),
        });
        let mut all: Vec<String> = routes.filter(|topic| wanted(topic)).collect();
        all.sort_unstable();
        let mut found = Window::new(window);
        all.into_iter().for_each(|topic| found.add(|| topic));
        found.page
    }

    /// Retained messages in the order of their topics: all of them, or those that match a filter. It walks over all
    /// that come before the window: keep it off the thread that does the broker's input and output.
    #[must_use]
    pub fn list_retained(&self, filter: Option<&str>, window: Range<usize>, now: Now) -> Page<Message> {
        const SLICE: usize = 256;
        let mut found = Window::new(window);
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let slice = match filter {
                Some(filter) => self.retained.matching(filter, from, SLICE, now.mono_ms),
                None => self.retained.in_order(from, SLICE, now.mono_ms),
            };
            slice.messages.into_iter().for_each(|message| found.add(|| message));
            cursor = slice.next;
        }
        found.page
    }

    /// Removes the retained message of a topic, as an empty one would. Whether there was one.
    pub fn delete_retained(&self, topic: &str, now: Now) -> bool {
        let Some(message) = self.retained.get(topic, now.mono_ms) else { return false };
        let removal = Publication { payload: &[], properties: &[], ..message.view() };
        self.retain(&removal, None, now.unix_ms, || message.clone())
    }

    /// Publishes a message of an operator's: to local clients and over links.
    ///
    /// # Errors
    /// Why it was not published.
    pub fn publish_as_operator(
        &self,
        publication: &Publication<'_>,
        now: Now,
    ) -> Result<Reached, PublishError> {
        self.check_publication(publication)?;
        let identity = operator();
        let _burst = self.begin();
        let mut frames = RunFrames::default();
        let publications = [*publication];
        let routed = self.routes.targets(publication.topic);
        if let Some(trouble) = self.cannot_keep_for_operator(publication, &routed.targets) {
            self.metrics.broker.messages_dropped[DropReason::Store].inc();
            return Err(PublishError::Store(trouble));
        }
        let mut run = Run::new(&publications, &mut frames, now);
        let stored = !publication.retain || self.retain(publication, None, now.unix_ms, || run.keep(0));
        let mut counts = Counts::default();
        let source = Source::Client(&identity, ClientKey(0));
        let mut refused = Vec::new();
        let reached = self.deliver(&mut run, &routed.targets, source, now, &mut counts.tally, &mut refused);
        counts.no_subscribers += u64::from(reached == Reached::Nobody);
        counts.report(&self.metrics);
        match (stored, refused.is_empty()) {
            (true, true) => Ok(reached),
            (false, _) => Err(PublishError::RetainedFull),
            (true, false) => Err(PublishError::LinkFull),
        }
    }

    /// Why it cannot be taken. Unlike a client, an operator is told at QoS 0 too whether what is to be retained is.
    fn cannot_keep_for_operator(&self, publication: &Publication<'_>, targets: &Targets) -> Option<Trouble> {
        let retained = self.trouble().filter(|_| publication.retain);
        retained.or_else(|| self.cannot_keep(&[*publication], targets))
    }

    /// Whether an operator may publish this.
    ///
    /// # Errors
    /// Why not.
    pub fn check_publication(&self, publication: &Publication<'_>) -> Result<(), PublishError> {
        const RESERVED: [&str; 6] = ["$LINK", "$SYS", "$delayed", "$queue", "$exclusive", "$share"];
        topic::check_name(publication.topic)?;
        if RESERVED.contains(&topic::first_level(publication.topic)) {
            return Err(PublishError::Reserved);
        }
        let limits = self.limits();
        if publication.topic.split('/').count() > limits.max_topic_levels {
            return Err(PublishError::TooManyLevels);
        }
        let bytes = publication.topic.len() + publication.properties.len() + publication.payload.len();
        if bytes > limits.server.max_packet_size as usize {
            return Err(PublishError::TooLong);
        }
        if publication.qos > limits.server.max_qos {
            return Err(PublishError::QoS);
        }
        if publication.retain && !limits.server.retain_available {
            return Err(PublishError::Retain);
        }
        Ok(())
    }
}

fn subscriptions(client: &Client) -> Vec<SubscriptionView> {
    let view = |(filter, subscription): (&str, &Subscription)| SubscriptionView {
        client_id: Arc::clone(&client.id),
        filter: filter.into(),
        subscription: *subscription,
    };
    let mut all: Vec<SubscriptionView> = client.lock().session.subscriptions().map(view).collect();
    all.sort_unstable_by(|one, other| one.filter.cmp(&other.filter));
    all
}

/// Whom links and receivers take for the publisher.
fn operator() -> Identity {
    let peer = PeerAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Identity::plain(Arc::from(OPERATOR), peer, Arc::from(OPERATOR), ListenerRole::Client)
}
