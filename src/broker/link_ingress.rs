//! What a linked cluster publishes to us under `$LINK/`: its routes, and messages for our clients. The
//! connection is bound to its peer already, and confinement has seen the topic.

pub(super) mod alike;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::close::Close;
use crate::broker::connection::Connection;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::gathering::Answer;
use crate::broker::lent::Scratch;
use crate::broker::links::Link;
use crate::broker::links::incoming::keep_seen;
use crate::broker::links::unread::Hold;
use crate::broker::links::unread::Reading;
use crate::broker::packets::Turn;
use crate::broker::throttle::SharedLimiter;
use crate::broker::topic_cache::TopicCache;
use crate::link::compress;
use crate::link::compress::Inflater;
use crate::link::extension::Capabilities;
use crate::link::extension::Received;
use crate::link::ingress;
use crate::link::ingress::ControlDecision;
use crate::link::ingress::ControlPublish;
use crate::link::ingress::HeartbeatReport;
use crate::link::ingress::IngressSession;
use crate::link::ingress::MessageDecision;
use crate::link::ingress::PageOrder;
use crate::link::message::Forwarded;
use crate::link::message::MessageProperties;
use crate::link::name::LinkTopic;
use crate::link::payload;
use crate::link::payload::HeartbeatAck;
use crate::link::remote_routes::RemoteRoutes;
use crate::link::seen::Place;
use crate::metrics::labels::ByteKind;
use crate::metrics::labels::Direction;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::net::clock;
use crate::session::frames::Run;
use crate::session::message::Expiry;
use crate::session::message::Publication;
use crate::time::Now;

/// What one read may bring while a local client cannot keep up: some messages, as a small window would have.
const PRESSED_BYTES: usize = 8 * 1024;

/// The receiving end of one connection of a peer.
#[derive(Debug)]
pub struct LinkIngress {
    cluster: Box<str>,
    /// The link whose quota this connection counts against.
    entered: Arc<Link>,
    /// The link as it is during this burst.
    link: Option<Arc<Link>>,
    session: IngressSession,
    inflater: Inflater,
    cache: TopicCache,
    properties: PropertiesBuf,
    /// Among those that the peer has.
    place: Place,
    /// Ids of the messages of the run that are to be acknowledged, in the order of their answers.
    ids: Vec<[u8; 16]>,
    /// One of them was marked DUP.
    repeats: bool,
    /// What has come of a packet that is not complete.
    unread: Hold,
    /// Messages of this burst, by QoS.
    messages: [u64; 3],
    /// Payloads of this burst, in bytes.
    bytes: u64,
    /// A page of retained messages is being made for the peer.
    paging: Arc<AtomicBool>,
    /// What is told to the peer of this burst, and how many of it nobody wanted.
    books: Received,
    unwanted: u64,
}

impl LinkIngress {
    /// For a connection bound to `cluster`, with its ClientID; `None` when the peer has as many connections as it may, or there is
    /// no such link (yet): nobody would count it.
    #[must_use]
    pub fn new(broker: &Broker, cluster: &str, client_id: &str) -> Option<Self> {
        let entered = broker.links.get(cluster)?;
        if !entered.enter() {
            return None;
        }
        entered.replication.reassure();
        let place = entered.incoming.seen.lock().place(client_id, clock::now());
        let unread = Hold::of(&entered.incoming.unread);
        Some(Self {
            cluster: cluster.into(),
            link: Some(Arc::clone(&entered)),
            entered,
            session: IngressSession::default(),
            inflater: Inflater::default(),
            cache: TopicCache::default(),
            properties: PropertiesBuf::new(),
            place,
            ids: Vec::new(),
            repeats: false,
            unread,
            messages: [0; 3],
            bytes: 0,
            paging: Arc::default(),
            books: Received::default(),
            unwanted: 0,
        })
    }

    /// Whether copies are kept of what the peer retains.
    fn keeps_retained(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| link.settings.retained && link.capabilities().has(Capabilities::RETAINED))
    }

    /// Looks at the beginning of a burst which link there is by now.
    pub(super) fn follow(&mut self, broker: &Broker) {
        self.link = broker.links.get(&self.cluster);
    }

    /// Adds what the burst brought to the series of its link. None of it is acknowledged yet.
    pub(super) fn report(&mut self) {
        let (books, unwanted) = (std::mem::take(&mut self.books), std::mem::take(&mut self.unwanted));
        if books != Received::default() {
            self.entered.incoming.count(&books, unwanted);
        }
        let (messages, bytes) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.bytes));
        let Some(link) = &self.link else { return };
        for (qos, count) in QoS::ALL.into_iter().zip(messages) {
            if count > 0 {
                link.metrics.messages[(Direction::In, qos)].add(count);
            }
        }
        if bytes > 0 {
            link.metrics.bytes[(Direction::In, ByteKind::Wire)].add(bytes);
        }
    }

    /// How much longer the connection is not to be read, in milliseconds, where packets have `packet_max` bytes at most.
    ///
    /// # Errors
    /// It has waited for the peer's others long enough.
    pub fn paused_for_ms(&mut self, packet_max: usize, now: Now) -> Result<Option<u64>, Close> {
        let full = match self.unread.reading(packet_max, now) {
            Reading::GoesOn => None,
            Reading::Waits(ms) => Some(ms),
            Reading::GivesUp => {
                let why = "the peer has too many large packets under way";
                return Err(Close::Violation(ReasonCode::QuotaExceeded, why));
            }
        };
        Ok(full.max(self.entered.incoming.paused_for_ms(now)))
    }

    /// How many bytes one read may bring.
    pub(super) fn readable(&self, now: Now) -> usize {
        if self.entered.incoming.is_pressed(now) { PRESSED_BYTES } else { usize::MAX }
    }

    /// Whether one message has not come before.
    fn is_new(&self, broker: &Broker, id: [u8; 16], repeats: bool, now: Now) -> bool {
        let burst = broker.begin();
        let mut seen = self.entered.incoming.seen.lock();
        if repeats {
            seen.watch(now);
        }
        let is_new = seen.is_new(self.place, id);
        if let Some(burst) = &burst {
            keep_seen(&mut seen, &self.cluster, self.place, usize::from(is_new), burst);
        }
        is_new
    }

    /// So many bytes of a packet have come that is not complete.
    pub(super) fn hold_unread(&mut self, bytes: usize) {
        self.unread.set(bytes);
    }

    /// What is left of the peer's rates, if it has any.
    #[must_use]
    pub fn quota(&self) -> Option<SharedLimiter> {
        self.entered.quota.clone()
    }
}

impl Drop for LinkIngress {
    fn drop(&mut self) {
        self.entered.incoming.seen.lock().leave(self.place, clock::now());
        self.entered.leave();
    }
}

impl<'a> Turn<'_, 'a> {
    /// A PUBLISH of a bound connection on one of its own `$LINK` topics.
    pub(super) fn link_publish(&mut self, topic: &str, publish: &Publish<'a>) -> Result<(), Close> {
        if self.connection.ingress.is_none() {
            return Err(Close::Violation(
                ReasonCode::QuotaExceeded,
                "the peer has too many connections, or no link",
            ));
        }
        match LinkTopic::parse(topic) {
            Some(LinkTopic::Route(_)) => {
                self.flush();
                let Some(mut ingress) = self.connection.ingress.take() else { return Ok(()) };
                let link = ingress.link.clone();
                let result = self.control(&mut ingress, link.as_deref(), publish);
                self.connection.ingress = Some(ingress);
                result
            }
            Some(LinkTopic::Message(_)) => {
                self.begin(true);
                self.forwarded(publish);
                Ok(())
            }
            Some(LinkTopic::Response { .. }) | None => {
                Err(Close::Violation(ReasonCode::TopicNameInvalid, "not a topic that a link publishes to"))
            }
        }
    }

    fn control(
        &mut self,
        ingress: &mut LinkIngress,
        link: Option<&Link>,
        publish: &Publish<'_>,
    ) -> Result<(), Close> {
        let control = ControlPublish {
            peer: &ingress.cluster,
            response_topic: publish.properties.response_topic(),
            correlation_data: publish.properties.correlation_data(),
            payload: publish.payload,
        };
        let Some(link) = link else {
            // Bound, but the link is gone since: answered like an unknown one, and nothing is kept.
            let mut none = RemoteRoutes::default();
            let decision = ingress::control(
                &mut ingress.session,
                None,
                &mut none,
                &mut ingress.inflater,
                self.now,
                control,
            );
            return self.answer_control(decision, publish);
        };
        let decision = {
            let mut routes = link.routes.lock();
            let before = routes.changes();
            let view = link.view();
            let decision = ingress::control(
                &mut ingress.session,
                Some(&view),
                &mut routes,
                &mut ingress.inflater,
                self.now,
                control,
            );
            let made = routes.changes().saturating_sub(before);
            link.apply_changes(&mut routes, made, &self.connection.broker.routes);
            decision
        };
        if let Some(capabilities) = ingress.session.capabilities() {
            link.agree(capabilities);
        }
        if link.settings.relay {
            self.connection.broker.links.pass_on_routes(link);
        }
        match decision {
            ControlDecision::Report(report) => self.answer_report(link, &report, publish),
            ControlDecision::Page(order) => self.answer_page(ingress, *order, publish),
            decision => return self.answer_control(decision, publish),
        }
        Ok(())
    }

    fn answer_control(&mut self, decision: ControlDecision<'_>, publish: &Publish<'_>) -> Result<(), Close> {
        match decision {
            ControlDecision::Ack(code) => self.acknowledge_link(publish, code),
            ControlDecision::Reply { topic, payload, correlation_data, refusal } => {
                if refusal == Some(ingress::FEWER_CAPABILITIES) {
                    self.note_downgrade();
                }
                self.acknowledge_link(publish, ingress::NO_MATCHING_SUBSCRIBERS);
                let mut properties = PropertiesBuf::new();
                properties.push(Property::CorrelationData(correlation_data));
                self.respond(topic, properties.as_properties().as_bytes(), &payload);
            }
            // A link that is gone has no books, and tells nothing.
            ControlDecision::Report(_) | ControlDecision::Page(_) => {
                self.acknowledge_link(publish, ingress::NO_MATCHING_SUBSCRIBERS);
            }
            ControlDecision::Disconnect(violation) => {
                let peer = self.connection.publisher.identity.bound_to.as_deref();
                tracing::warn!(peer, "link protocol error: {violation}");
                return Err(Close::Violation(ReasonCode::ImplementationSpecificError, "link protocol error"));
            }
        }
        Ok(())
    }

    /// The peer can do less than when it enrolled: somebody should know, if it is not an operator who did that.
    fn note_downgrade(&self) {
        let connection = &self.connection;
        let peer = connection.publisher.identity.bound_to.as_deref();
        tracing::warn!(peer, "the peer can do less than when it enrolled, and is refused");
        let what = What::Trust { name: "authn_capabilities_lowered", critical: false };
        let text = "the peer can do less than when it enrolled, and is refused";
        let event = SecurityEvent { identity: peer, ..SecurityEvent::new(what, text) };
        connection.broker.security_event(&event, self.now);
    }

    /// Answers a heartbeat with what we know: of the messages of the peer, and of its routes.
    fn answer_report(&mut self, link: &Link, report: &HeartbeatReport<'_>, publish: &Publish<'_>) {
        self.acknowledge_link(publish, ingress::NO_MATCHING_SUBSCRIBERS);
        if let Some(books) = report.books {
            link.note_books(books, self.now);
        }
        let mut payload = Vec::with_capacity(160);
        let ack = HeartbeatAck {
            actor: &report.actor,
            incarnation: report.incarnation,
            books: report.books.map(|_| link.incoming.books()),
            routes: report.routes,
        };
        payload::put_heartbeat_ack(&mut payload, &ack);
        self.respond(report.topic, &[], &payload);
    }

    /// Has a page made where nobody waits for the thread. One at a time: the peer asks for the next when it has this one.
    fn answer_page(&mut self, ingress: &LinkIngress, order: PageOrder, publish: &Publish<'_>) {
        let Some(link) = ingress.link.clone().filter(|_| !ingress.paging.swap(true, Ordering::Relaxed))
        else {
            return self.acknowledge_link(publish, ingress::QUOTA_EXCEEDED);
        };
        self.acknowledge_link(publish, ingress::NO_MATCHING_SUBSCRIBERS);
        let broker = Arc::clone(&self.connection.broker);
        tokio::spawn(broker.answer_page(link, order, Arc::clone(&ingress.paging), self.now));
    }

    fn respond(&self, topic: &str, properties: &[u8], payload: &[u8]) {
        self.connection.broker.respond(topic, properties, payload, self.now);
    }

    /// A forwarded message: to local subscribers only, acknowledged with whether there were any. It joins the run of
    /// those before it; what is compressed has no place to stay until then and goes alone.
    pub(super) fn forwarded(&mut self, publish: &Publish<'a>) {
        let known = self.gathering.topic_of_message();
        let Some(ingress) = &mut self.connection.ingress else { return };
        ingress.bytes += publish.payload.len() as u64;
        if compress::is_compressed(publish.payload) {
            self.inflate(publish);
        } else {
            let view = ingress.link.as_deref().map(Link::view);
            match ingress::plain_message(view.as_ref(), self.now, publish.payload, known) {
                MessageDecision::Deliver(message) => self.gather_forwarded(publish, &message, known),
                dropped @ MessageDecision::Drop { .. } => self.drop_forwarded(publish, &dropped),
            }
        }
        self.gathering.note_publish(publish);
    }

    fn gather_forwarded(&mut self, publish: &Publish<'a>, message: &Forwarded<'a>, known: &str) {
        let link = self.connection.ingress.as_ref().and_then(|ingress| ingress.link.as_ref());
        if link.is_some_and(|link| link.settings.relay) {
            return self.deliver_one(publish, message); // it may go on
        }
        if message.retain && self.connection.ingress.as_ref().is_some_and(|ingress| ingress.keeps_retained())
        {
            return self.deliver_one(publish, message);
        }
        let Some(properties) = self.properties(&message.properties) else {
            return self.deliver_one(publish, message);
        };
        let Cow::Borrowed(payload) = message.payload else { return self.deliver_one(publish, message) };
        let Connection { ingress: Some(ingress), broker, .. } = &mut *self.connection else { return };
        let present = self.gathering.targets.as_ref();
        let other = if present.is_some() && std::ptr::eq(message.topic, known) {
            None
        } else {
            ingress.cache.with(message.topic, 0, &broker.routes, |entry| entry.targets_unless(present))
        };
        let publication = publication(message, payload, properties, self.now);
        self.gather(publication, publish.packet_id.map(|id| (publish.qos, id)), other, false);
        // Behind that, since it may have ended the run before. What the peer sent at QoS 0 it will not send again.
        let Some(ingress) = &mut self.connection.ingress else { return };
        if publish.packet_id.is_some() {
            ingress.ids.push(message.id);
            ingress.repeats |= publish.dup;
        } else {
            ingress.books.fired += 1;
        }
        self.note_likes(publish, message);
    }

    /// Takes out of a run what the peer has sent before: it is acknowledged once more, and delivered no more.
    pub(super) fn withhold_repeated(&mut self, run: &mut Vec<Publication<'_>>, answers: &[Answer]) {
        let Connection { ingress: Some(ingress), broker, .. } = &mut *self.connection else { return };
        if ingress.ids.is_empty() {
            return;
        }
        let mut repeated = Vec::new();
        let count = ingress.ids.len();
        ingress.books.received += count as u64;
        {
            let burst = broker.begin();
            let mut seen = ingress.entered.incoming.seen.lock();
            if std::mem::take(&mut ingress.repeats) {
                seen.watch(self.now);
            }
            seen.rest(self.now);
            for (answer, id) in answers.iter().zip(ingress.ids.drain(..)) {
                if !seen.is_new(ingress.place, id) {
                    repeated.push(answer.index);
                }
            }
            if let Some(burst) = &burst {
                keep_seen(&mut seen, &ingress.cluster, ingress.place, count - repeated.len(), burst);
            }
        }
        if repeated.is_empty() {
            return;
        }
        ingress.books.received -= repeated.len() as u64;
        ingress.books.repeated += repeated.len() as u64;
        ingress.entered.metrics.duplicates_suppressed.add(repeated.len() as u64);
        let mut repeated = repeated.into_iter().peekable();
        let mut index = 0_u32..;
        run.retain(|_| repeated.next_if_eq(&index.next().unwrap_or(u32::MAX)).is_none());
    }

    /// The properties as they are passed on, where they live as long as the burst, if there is room for them.
    fn properties(&mut self, inner: &MessageProperties<'_>) -> Option<&'a [u8]> {
        if inner.count() == 0 {
            return Some(&[]);
        }
        let mut encoded = std::mem::take(&mut self.connection.ingress.as_mut()?.properties);
        encode(inner, &mut encoded);
        let bytes = encoded.as_properties().as_bytes();
        let room = self.room(bytes.len()).map(|room| {
            room.copy_from_slice(bytes);
            &*room
        });
        self.connection.ingress.as_mut()?.properties = encoded;
        room
    }

    fn inflate(&mut self, publish: &Publish<'a>) {
        let Some(ingress) = &mut self.connection.ingress else { return };
        let mut inflater = std::mem::take(&mut ingress.inflater);
        let view = ingress.link.as_deref().map(Link::view);
        match ingress::message(view.as_ref(), &mut inflater, self.now, publish.payload) {
            MessageDecision::Deliver(message) => self.deliver_one(publish, &message),
            dropped @ MessageDecision::Drop { .. } => self.drop_forwarded(publish, &dropped),
        }
        if let Some(ingress) = &mut self.connection.ingress {
            ingress.inflater = inflater;
        }
    }

    /// Delivers a message that has no place to stay, behind those that came before it.
    fn deliver_one(&mut self, publish: &Publish<'_>, message: &Forwarded<'_>) {
        self.flush();
        let Connection { ingress: Some(ingress), broker, .. } = &mut *self.connection else { return };
        match publish.packet_id {
            Some(_) if !ingress.is_new(broker, message.id, publish.dup, self.now) => {
                ingress.books.repeated += 1;
                ingress.entered.metrics.duplicates_suppressed.inc();
                return self.acknowledge_link(publish, ReasonCode::Success.as_u8());
            }
            Some(_) => ingress.books.received += 1,
            None => ingress.books.fired += 1,
        }
        let routes = &broker.routes;
        let targets = ingress.cache.with(message.topic, 0, routes, |entry| Arc::clone(entry.targets()));
        let mut properties = std::mem::take(&mut ingress.properties);
        encode(&message.properties, &mut properties);
        let encoded = properties.as_properties().as_bytes();
        let one = [publication(message, &message.payload, encoded, self.now)];
        // What was passed on is another's, and not told with what the peer retains.
        let keeps = message.retain && message.path.is_none() && ingress.keeps_retained();
        if let Some(link) = ingress.link.as_deref().filter(|_| keeps) {
            broker.keep_live(link, &one[0], message.timestamp_ms, !targets.clients.is_empty());
        }
        let local = self.deliver_forwarded(&one, &targets);
        let passed_on = self.pass_on(message, &targets);
        if let Some(ingress) = &mut self.connection.ingress {
            ingress.properties = properties;
        }
        let reached = if passed_on == Reached::Nobody { local } else { passed_on };
        self.acknowledge_link(publish, reached.reason().as_u8());
    }

    /// Hands a message to the links that it goes on over, before it is acknowledged.
    fn pass_on(&self, message: &Forwarded<'_>, targets: &Targets) -> Reached {
        let Connection { ingress: Some(ingress), broker, .. } = &*self.connection else {
            return Reached::Nobody;
        };
        let Some(link) = ingress.link.as_deref().filter(|link| link.settings.relay) else {
            return Reached::Nobody;
        };
        if targets.links.is_empty() {
            return Reached::Nobody;
        }
        broker.links.pass_on(&targets.links, message, link, self.now)
    }

    /// Delivers a run of a peer's messages.
    pub(super) fn deliver_forwarded(
        &mut self,
        publications: &[Publication<'_>],
        targets: &Targets,
    ) -> Reached {
        if publications.is_empty() {
            return Reached::Somebody; // when they came first
        }
        let Connection { ingress: Some(ingress), broker, lent, .. } = &mut *self.connection else {
            return Reached::Nobody;
        };
        for publication in publications {
            ingress.messages[publication.qos as usize] += 1;
        }
        let Scratch { counts, frames, .. } = lent.scratch();
        let (source, tally) = (Source::Link(&ingress.cluster), &mut counts.tally);
        let mut run = Run::new(publications, frames, self.now);
        let reached = broker.deliver(&mut run, targets, source, self.now, tally, &mut Vec::new());
        if std::mem::take(&mut tally.pressed) || broker.load.is_critical() || broker.trouble().is_some() {
            ingress.entered.pause(self.now);
        }
        if reached == Reached::Nobody {
            ingress.unwanted += publications.len() as u64;
        }
        reached
    }

    fn drop_forwarded(&mut self, publish: &Publish<'_>, decision: &MessageDecision<'_>) {
        let MessageDecision::Drop { reason, code, error, id } = decision else { return };
        let peer = self.connection.publisher.identity.bound_to.as_deref();
        tracing::debug!(peer, reason = reason.as_str(), ?error, "message from a link dropped");
        self.flush();
        let Connection { ingress, broker, .. } = &mut *self.connection;
        if let Some(ingress) = ingress {
            if let Some(link) = &ingress.link {
                link.metrics.messages_dropped[(Direction::In, (*reason).into())].inc();
            }
            let repeated = publish.packet_id.is_some()
                && id.map_or(publish.dup, |id| !ingress.is_new(broker, id, publish.dup, self.now));
            match publish.packet_id {
                Some(_) if repeated => ingress.books.repeated += 1,
                Some(_) => ingress.books.received += 1,
                None => ingress.books.fired += 1,
            }
            if !repeated {
                ingress.books.dropped[reason.index()] += 1;
            }
        }
        self.acknowledge_link(publish, *code);
    }

    fn acknowledge_link(&mut self, publish: &Publish<'_>, code: u8) {
        if let Some(id) = publish.packet_id {
            let reason = ReasonCode::from_u8(code).unwrap_or(ReasonCode::UnspecifiedError);
            self.acknowledge(publish.qos, id, reason);
        }
    }

    /// Whether this connection speaks the link protocol on this topic.
    pub(super) fn is_link_topic(&self, topic: &str) -> bool {
        self.connection.publisher.identity.bound_to.is_some() && topic.starts_with("$LINK/")
    }
}

/// The properties of an ordinary message, without its Message Expiry Interval.
pub(super) fn encode(inner: &MessageProperties<'_>, properties: &mut PropertiesBuf) {
    properties.clear();
    if let Some(indicator) = inner.payload_format_indicator {
        properties.push(Property::PayloadFormatIndicator(indicator));
    }
    if let Some(content_type) = inner.content_type {
        properties.push(Property::ContentType(content_type));
    }
    if let Some(topic) = inner.response_topic {
        properties.push(Property::ResponseTopic(topic));
    }
    if let Some(data) = inner.correlation_data {
        properties.push(Property::CorrelationData(data));
    }
    for (key, value) in &inner.user_properties {
        properties.push(Property::UserProperty(key, value));
    }
}

/// The inner message as an ordinary one. Its age counts against its Message Expiry Interval.
pub(super) fn publication<'p, 'm: 'p>(
    message: &Forwarded<'m>,
    payload: &'p [u8],
    properties: &'p [u8],
    now: Now,
) -> Publication<'p> {
    let age_ms = now.unix_ms.saturating_sub(message.timestamp_ms);
    let expiry = message.properties.message_expiry_interval.map(|interval_seconds| Expiry {
        interval_seconds: interval_seconds.saturating_sub(u32::try_from(age_ms / 1000).unwrap_or(u32::MAX)),
        received_mono_ms: now.mono_ms,
    });
    Publication {
        topic: message.topic,
        properties,
        payload,
        qos: message.qos,
        retain: message.retain,
        expiry,
    }
}
