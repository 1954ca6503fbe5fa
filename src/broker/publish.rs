//! PUBLISH packets of one burst: authorised and routed once per topic, delivered in runs.
//!
//! Consecutive messages with the same receivers form a run. Each receiver is then locked and woken once for
//! the whole run, and its frames are encoded once for all receivers. Acknowledgements go out after delivery.

use std::borrow::Cow;
use std::sync::Arc;

use crate::acl::eval::Request;
use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::close::Close;
use crate::broker::connection::Connection;
use crate::broker::delayed;
use crate::broker::delayed::Delay;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::identity::Denied;
use crate::broker::identity::Identity;
use crate::broker::lent::Scratch;
use crate::broker::packets::Turn;
use crate::broker::reasons;
use crate::broker::topic_cache::TopicCache;
use crate::broker::trace::event::Facts;
use crate::config::settings::DenyAction;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::PacketType as Label;
use crate::mqtt::encode;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;
use crate::session::frames::Run;
use crate::session::inbound::Aliases;
use crate::session::inbound::Received;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::message::Publication;

/// The publishing side of one connection.
#[derive(Debug)]
pub struct Publisher {
    pub(super) identity: Arc<Identity>,
    aliases: Aliases,
    cache: TopicCache,
    /// Messages of a run that the spool of a link refused.
    refused: Vec<usize>,
    /// A refusal that the protocol version cannot say.
    unsaid: bool,
}

impl Publisher {
    /// Nothing published yet.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            aliases: Aliases::default(),
            cache: TopicCache::default(),
            refused: Vec::new(),
            unsaid: false,
        }
    }
}

/// A message of the run that is being gathered.
#[derive(Debug)]
pub struct Pending<'a> {
    /// Topic Name.
    pub topic: Cow<'a, str>,
    /// Properties as forwarded.
    pub properties: Cow<'a, [u8]>,
    /// Application Message.
    pub payload: Cow<'a, [u8]>,
    /// QoS as published.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Message Expiry Interval.
    pub expiry: Option<Expiry>,
    /// How it is to be acknowledged: by the QoS of the PUBLISH that brought it.
    pub answer: Option<(QoS, PacketId)>,
}

impl Pending<'_> {
    fn view(&self) -> Publication<'_> {
        Publication {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            expiry: self.expiry,
        }
    }
}

/// The run that is being gathered.
#[derive(Debug, Default)]
pub struct Gathering<'a> {
    messages: Vec<Pending<'a>>,
    targets: Option<Arc<Targets>>,
}

impl<'a> Turn<'_, 'a> {
    /// A PUBLISH from the client. At QoS 1 nothing is remembered of its identifier: after PUBACK it is a new message
    /// whatever its DUP says (`[MQTT-4.3.2-5]`).
    pub(super) fn publish(&mut self, publish: Publish<'a>) -> Result<(), Close> {
        self.connection.lent.counts().messages_received[publish.qos as usize] += 1;
        self.check_capabilities(&publish)?;
        let topic = self.resolve_topic(&publish)?;
        let verdict = self.authorize_and_route(&topic, publish.qos, publish.retain)?;
        if publish.qos == QoS::ExactlyOnce && !self.is_new(&publish)? {
            return Ok(());
        }
        let targets = match verdict {
            Ok(targets) => targets,
            Err(denied) => return self.deny(&topic, &publish, denied),
        };
        if self.overloaded {
            self.shed(&publish);
            return Ok(());
        }
        if self.limits.check_payload_format && !keeps_its_format(&publish) {
            return self.refuse_format(&publish);
        }
        if topic.starts_with(delayed::PREFIX) {
            self.delay(&topic, &publish);
            return Ok(());
        }
        if self.is_link_topic(&topic) {
            return self.link_publish(&topic, &publish);
        }
        let pending = Pending {
            topic,
            properties: publish.properties.forwarded(),
            payload: Cow::Borrowed(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            expiry: self.expiry(&publish),
            answer: publish.packet_id.map(|id| (publish.qos, id)),
        };
        self.gather(pending, targets);
        Ok(())
    }

    /// What the ACL denies.
    fn deny(&mut self, topic: &str, publish: &Publish<'_>, denied: Denied) -> Result<(), Close> {
        self.connection.lent.counts().denied += 1;
        let facts = Facts { qos: publish.qos, retain: publish.retain, payload_bytes: publish.payload.len() };
        let Connection { broker, publisher, .. } = &*self.connection;
        broker.trace_denied(&publisher.identity, topic, facts, denied, self.now);
        if self.policy.deny_action == DenyAction::Disconnect {
            return Err(Close::Violation(ReasonCode::NotAuthorized, "not authorized to publish"));
        }
        self.refuse(publish, ReasonCode::NotAuthorized);
        Ok(())
    }

    /// `[MQTT-3.2.2-11]`, `[MQTT-3.2.2-14]`: what CONNACK said we do not take.
    fn check_capabilities(&self, publish: &Publish<'_>) -> Result<(), Close> {
        let server = &self.limits.server;
        if publish.qos > server.max_qos {
            return Err(Close::Violation(ReasonCode::QoSNotSupported, "a PUBLISH above the Maximum QoS"));
        }
        if publish.retain && !server.retain_available {
            return Err(Close::Violation(ReasonCode::RetainNotSupported, "RETAIN is not available"));
        }
        if !publish.properties.is_empty() && publish.properties.subscription_identifiers().next().is_some() {
            // [MQTT-3.3.4-6]
            return Err(Close::Violation(
                ReasonCode::ProtocolError,
                "a Subscription Identifier from a client",
            ));
        }
        Ok(())
    }

    fn resolve_topic(&mut self, publish: &Publish<'a>) -> Result<Cow<'a, str>, Close> {
        let alias = if publish.properties.is_empty() { None } else { publish.properties.topic_alias() };
        if alias.is_none() {
            return Ok(Cow::Borrowed(publish.topic));
        }
        let maximum = self.limits.server.max_topic_alias;
        let resolved = self.connection.publisher.aliases.resolve(publish.topic, alias, maximum);
        let topic = resolved
            .map_err(|reason| Close::Violation(reason, "a Topic Alias that stands for nothing here"))?;
        Ok(if publish.topic.is_empty() { Cow::Owned(topic.to_owned()) } else { Cow::Borrowed(publish.topic) })
    }

    /// Asks the ACL and the route table, or remembers what they said. A denial is logged and counted when it
    /// is found, and counted as a dropped message each time. No targets stand for those of the present run.
    fn authorize_and_route(
        &mut self,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Result<Result<Option<Arc<Targets>>, Denied>, Close> {
        let Connection { publisher, broker, .. } = &mut *self.connection;
        let entry = publisher.cache.entry(topic, self.policy.generation, &broker.routes);
        if entry.too_many_levels(self.limits.max_topic_levels) {
            return Err(Close::Violation(ReasonCode::TopicNameInvalid, "a Topic Name with too many levels"));
        }
        let identity = &publisher.identity;
        let verdict = entry.verdict(qos, retain, || {
            let verdict = self.policy.authorize(identity, &Request::Publish { topic, qos, retain });
            if let Err(denied) = &verdict {
                broker.log_denied(identity, "publish", topic, *denied);
            }
            verdict
        });
        Ok(verdict.map(|()| entry.targets_unless(self.gathering.targets.as_ref())))
    }

    /// QoS 2, method A: whether the message is to be passed on. A second PUBLISH is only answered.
    fn is_new(&mut self, publish: &Publish<'_>) -> Result<bool, Close> {
        let Some(id) = publish.packet_id else { return Ok(true) };
        let limits = self.limits.inbound(self.connection.version);
        let received = self.connection.own()?.session.inbound.handle_publish(id, limits, self.now);
        match received {
            Received::New => Ok(true),
            Received::Duplicate => {
                self.flush();
                self.acknowledge(QoS::ExactlyOnce, id, ReasonCode::Success);
                Ok(false)
            }
            Received::Exceeded => Err(Close::Violation(
                ReasonCode::ReceiveMaximumExceeded,
                "more unreleased QoS 2 messages than allowed",
            )),
        }
    }

    /// Section 3.3.2.3.2: a payload that is not the UTF-8 it says it is.
    fn refuse_format(&mut self, publish: &Publish<'_>) -> Result<(), Close> {
        if publish.qos == QoS::AtMostOnce {
            return Err(Close::Violation(ReasonCode::PayloadFormatInvalid, "a payload that is not UTF-8"));
        }
        self.refuse(publish, ReasonCode::PayloadFormatInvalid);
        Ok(())
    }

    /// Dropped, and answered as far as QoS and version can say it.
    fn refuse(&mut self, publish: &Publish<'_>, reason: ReasonCode) {
        if let Some(id) = publish.packet_id {
            if publish.qos == QoS::ExactlyOnce {
                self.connection.client.lock().session.inbound.forget(id);
            }
            self.flush();
            self.acknowledge(publish.qos, id, reason);
        }
    }

    /// The memory is at its ceiling: the message is dropped, and its publisher told.
    fn shed(&mut self, publish: &Publish<'_>) {
        self.connection.broker.metrics.broker.messages_dropped[DropReason::Overload].inc();
        if let Some(id) = publish.packet_id {
            self.flush();
            self.refuse_full(publish.qos, id);
        }
    }

    /// A delayed publish: kept for later, and acknowledged now.
    fn delay(&mut self, topic: &str, publish: &Publish<'_>) {
        let Some(delay) = Delay::parse(topic, self.now) else {
            return self.refuse(publish, ReasonCode::TopicNameInvalid);
        };
        let properties = publish.properties.forwarded();
        let publication = Publication {
            topic: delay.topic,
            properties: &properties,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expiry: self.expiry(publish),
        };
        let connection = &*self.connection;
        let identity = &connection.publisher.identity;
        let seen = Publication { topic, ..publication };
        connection.broker.trace_delayed(&seen, Source::Client(identity, connection.client.key), self.now);
        if !connection.broker.delay(&delay, &publication, identity, connection.client.key) {
            return self.refuse(publish, ReasonCode::QuotaExceeded);
        }
        if let Some(id) = publish.packet_id {
            self.flush();
            self.acknowledge(publish.qos, id, ReasonCode::Success);
        }
    }

    #[inline]
    fn expiry(&self, publish: &Publish<'_>) -> Option<Expiry> {
        if publish.properties.is_empty() {
            return None;
        }
        let interval_seconds = publish.properties.message_expiry_interval()?;
        Some(Expiry { interval_seconds, received_mono_ms: self.now.mono_ms })
    }

    /// Adds a message to the run, after delivering the run before it if that had other receivers.
    fn gather(&mut self, pending: Pending<'a>, other: Option<Arc<Targets>>) {
        if other.is_some() {
            self.flush();
            self.gathering.targets = other;
        }
        self.gathering.messages.push(pending);
    }

    /// Delivers the run, in the order it came (`[MQTT-4.6.0-5]`), and acknowledges it.
    pub(super) fn flush(&mut self) {
        let Gathering { messages, targets } = std::mem::take(&mut self.gathering);
        let Some(targets) = targets else { return };
        let connection = &mut *self.connection;
        let broker = Arc::clone(&connection.broker);
        let publications: Vec<Publication<'_>> = messages.iter().map(Pending::view).collect();
        let Scratch { counts, frames } = connection.lent.scratch();
        let mut run = Run::new(&publications, frames, self.now);
        let stored = broker.retain_run(&mut run);
        let source = Source::Client(&connection.publisher.identity, connection.client.key);
        let mut full = std::mem::take(&mut connection.publisher.refused);
        let reached = broker.deliver(&mut run, &targets, source, self.now, &mut counts.tally, &mut full);
        if reached == Reached::Nobody {
            counts.no_subscribers += publications.len() as u64;
        }
        let reason = reached.reason();
        for (index, pending) in messages.iter().enumerate() {
            let Some((qos, id)) = pending.answer else { continue };
            if full.contains(&index) {
                self.refuse_full(qos, id);
                continue;
            }
            let refused = stored.get(index).is_some_and(|stored| !stored);
            self.acknowledge(qos, id, if refused { ReasonCode::QuotaExceeded } else { reason });
        }
        full.clear();
        self.connection.publisher.refused = full;
    }

    /// What would hold the message had no room: a link that is to refuse, or the broker itself. Before 5.0 an acknowledgement cannot say so: there is none, and the
    /// connection ends, so that the client sends the message again.
    fn refuse_full(&mut self, qos: QoS, id: PacketId) {
        if self.connection.version == Version::V5 {
            return self.acknowledge(qos, id, ReasonCode::QuotaExceeded);
        }
        if qos == QoS::ExactlyOnce {
            self.connection.client.lock().session.inbound.forget(id);
        }
        self.connection.publisher.unsaid = true;
    }

    /// Ends the connection of a client that cannot be told of a refusal.
    pub(super) fn check_unsaid(&self) -> Result<(), Close> {
        if self.connection.publisher.unsaid {
            return Err(Close::Violation(ReasonCode::QuotaExceeded, "what would hold the message is full"));
        }
        Ok(())
    }

    /// PUBACK or PUBREC, as the QoS asks (`[MQTT-3.3.4-1]`), with the identifier of the PUBLISH (`[MQTT-4.3.2-4]`,
    /// `[MQTT-4.3.3-8]`). A PUBREC that refuses frees it (`[MQTT-4.3.3-9]`).
    pub(super) fn acknowledge(&mut self, qos: QoS, id: PacketId, reason: ReasonCode) {
        let (kind, label) = match qos {
            QoS::ExactlyOnce => (PacketType::PubRec, Label::PubRec),
            QoS::AtMostOnce | QoS::AtLeastOnce => (PacketType::PubAck, Label::PubAck),
        };
        let connection = &mut *self.connection;
        if qos == QoS::ExactlyOnce && reason.is_error() && connection.version == Version::V5 {
            connection.client.lock().session.inbound.forget(id);
        }
        connection.lent.counts().sent(label);
        if !reason.is_error() {
            encode::encode_ack(kind, connection.version, id, reason, &mut connection.answers);
            return;
        }
        let (strings, version) = (connection.reason_strings, connection.version);
        let text = reasons::of_publish(reason);
        let encoded = strings.encode(text, version, &mut connection.answers, |properties| {
            let ack = Ack { packet_id: id, reason, properties };
            if kind == PacketType::PubRec { Packet::PubRec(ack) } else { Packet::PubAck(ack) }
        });
        if let Err(error) = encoded {
            tracing::error!(client_id = &*connection.client.id, %error, "an answer could not be encoded");
        }
    }
}

/// Whether the payload is UTF-8 if the Payload Format Indicator says so.
fn keeps_its_format(publish: &Publish<'_>) -> bool {
    publish.properties.is_empty()
        || publish.properties.payload_format_indicator() != Some(1)
        || std::str::from_utf8(publish.payload).is_ok()
}

impl Broker {
    /// Stores the retained messages of a run (`[MQTT-3.3.1-5]`), removes what an empty payload removes
    /// (`[MQTT-3.3.1-6]`), and leaves the others alone (`[MQTT-3.3.1-8]`). For each message whether that worked; empty
    /// when none is retained.
    fn retain_run(&self, run: &mut Run<'_, '_>) -> Vec<bool> {
        if run.publications().iter().all(|publication| !publication.retain) {
            return Vec::new();
        }
        (0..run.publications().len())
            .map(|index| {
                let publication = run.publications()[index];
                !publication.retain || self.retain(&publication, || run.keep(index))
            })
            .collect()
    }

    /// Stores or removes one retained message. Whether that worked.
    pub(super) fn retain(&self, publication: &Publication<'_>, keep: impl FnOnce() -> Message) -> bool {
        if publication.payload.is_empty() {
            // [MQTT-3.3.1-7]: it removes, and is not stored itself.
            self.retained.remove(publication.topic);
            return true;
        }
        if self.load.is_critical() {
            self.metrics.broker.messages_dropped[DropReason::RetainedFull].inc();
            return false;
        }
        let stored = self.retained.insert(keep());
        if let Err(full) = &stored {
            self.metrics.broker.messages_dropped[DropReason::RetainedFull].inc();
            tracing::warn!(topic = publication.topic, "retained message not stored: {full}");
        }
        stored.is_ok()
    }
}
