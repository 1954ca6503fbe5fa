//! PUBLISH packets of one burst: authorised and routed once per topic, delivered in runs.
//!
//! Consecutive messages with the same receivers form a run (`gathering.rs`). Each receiver is then locked and woken once
//! for the whole run, and its frames are encoded once for all receivers, or sent on as they came. Acknowledgements go
//! out after delivery.

use std::borrow::Cow;
use std::sync::Arc;

use crate::acl::eval::Request;
use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::close::Close;
use crate::broker::connection::Connection;
use crate::broker::delayed;
use crate::broker::delayed::Delay;
use crate::broker::delivery::Source;
use crate::broker::identity::Denied;
use crate::broker::identity::Identity;
use crate::broker::packets::Turn;
use crate::broker::reasons;
use crate::broker::retained::Origin;
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
use crate::mqtt::property::PublishProperties;
use crate::mqtt::reason::ReasonCode;
use crate::session::frames::Run;
use crate::session::inbound::Aliases;
use crate::session::inbound::Received as Seen;
use crate::session::message::Expiry;
use crate::session::message::Message;
use crate::session::message::Publication;

/// What the properties of a PUBLISH say that has none.
const PLAIN: PublishProperties = PublishProperties {
    topic_alias: None,
    message_expiry_interval: None,
    is_text: false,
    subscription_identifier: false,
    all_forwarded: true,
};

/// The publishing side of one connection.
#[derive(Debug)]
pub struct Publisher {
    pub(super) identity: Arc<Identity>,
    aliases: Aliases,
    cache: TopicCache,
    /// A refusal that the protocol version cannot say.
    unsaid: bool,
}

impl Publisher {
    /// Nothing published yet.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, aliases: Aliases::default(), cache: TopicCache::default(), unsaid: false }
    }
}

impl<'a> Turn<'_, 'a> {
    /// A PUBLISH from the client. At QoS 1 nothing is remembered of its identifier: after PUBACK it is a new message
    /// whatever its DUP says (`[MQTT-4.3.2-5]`).
    pub(super) fn publish(&mut self, publish: Publish<'a>) -> Result<(), Close> {
        self.received[publish.qos as usize] += 1;
        let of = if publish.properties.is_empty() { PLAIN } else { publish.properties.of_publish() };
        let repeats = self.gathering.repeats(&publish) && of.topic_alias.is_none();
        let (topic, targets) = if repeats && !of.subscription_identifier {
            // Nothing differs from the message before that capabilities, ACL or routes would ask for.
            if publish.qos == QoS::ExactlyOnce && !self.is_new(&publish)? {
                return Ok(());
            }
            (Cow::Borrowed(publish.topic), None)
        } else {
            self.check_capabilities(&publish, &of)?;
            let topic = self.resolve_topic(&publish, &of)?;
            let verdict = self.authorize_and_route(&topic, publish.qos, publish.retain)?;
            if publish.qos == QoS::ExactlyOnce && !self.is_new(&publish)? {
                return Ok(());
            }
            match verdict {
                Ok(targets) => (topic, targets),
                Err(denied) => return self.deny(&topic, &publish, denied),
            }
        };
        if self.overloaded {
            self.shed(&publish);
            return Ok(());
        }
        if of.is_text && self.limits.check_payload_format && std::str::from_utf8(publish.payload).is_err() {
            return self.refuse_format(&publish);
        }
        if repeats {
            if self.gathering.forwarded {
                self.forwarded(&publish);
                return Ok(());
            }
        } else {
            if topic.starts_with(delayed::PREFIX) {
                self.delay(&topic, &publish);
                return Ok(());
            }
            if self.is_link_topic(&topic) {
                return self.link_publish(&topic, &publish);
            }
        }
        self.take_in(&publish, &of, topic, targets);
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
    fn check_capabilities(&self, publish: &Publish<'_>, of: &PublishProperties) -> Result<(), Close> {
        let server = &self.limits.server;
        if publish.qos > server.max_qos {
            return Err(Close::Violation(ReasonCode::QoSNotSupported, "a PUBLISH above the Maximum QoS"));
        }
        if publish.retain && !server.retain_available {
            return Err(Close::Violation(ReasonCode::RetainNotSupported, "RETAIN is not available"));
        }
        if of.subscription_identifier {
            // [MQTT-3.3.4-6]
            return Err(Close::Violation(
                ReasonCode::ProtocolError,
                "a Subscription Identifier from a client",
            ));
        }
        Ok(())
    }

    fn resolve_topic(
        &mut self,
        publish: &Publish<'a>,
        of: &PublishProperties,
    ) -> Result<Cow<'a, str>, Close> {
        if of.topic_alias.is_none() {
            return Ok(Cow::Borrowed(publish.topic));
        }
        let maximum = self.limits.server.max_topic_alias;
        let resolved = self.connection.publisher.aliases.resolve(publish.topic, of.topic_alias, maximum);
        let topic = resolved
            .map_err(|reason| Close::Violation(reason, "a Topic Alias that stands for nothing here"))?;
        if !publish.topic.is_empty() {
            return Ok(Cow::Borrowed(publish.topic));
        }
        if topic.len() > self.copies.len() {
            self.needs_copies = true;
            return Ok(Cow::Owned(topic.to_owned()));
        }
        let (room, rest) = std::mem::take(&mut self.copies).split_at_mut(topic.len());
        self.copies = rest;
        room.copy_from_slice(topic.as_bytes());
        Ok(String::from_utf8_lossy(room))
    }

    /// Asks the ACL and the route table, or remembers what they said. A denial is logged and counted when it
    /// is found, and counted as a dropped message each time. No targets stand for those of the present run, unless that
    /// is of a peer.
    fn authorize_and_route(
        &mut self,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Result<Result<Option<Arc<Targets>>, Denied>, Close> {
        let Connection { publisher, broker, .. } = &mut *self.connection;
        let Publisher { identity, cache, .. } = publisher;
        let known = self.gathering.targets.as_ref().filter(|_| !self.gathering.forwarded);
        cache.with(topic, self.policy.generation, &broker.routes, |entry| {
            if entry.too_many_levels(self.limits.max_topic_levels) {
                let text = "a Topic Name with too many levels";
                return Err(Close::Violation(ReasonCode::TopicNameInvalid, text));
            }
            let verdict = entry.verdict(qos, retain, || {
                let verdict = self.policy.authorize(identity, &Request::Publish { topic, qos, retain });
                if let Err(denied) = &verdict {
                    broker.log_denied(identity, "publish", topic, *denied);
                }
                verdict
            });
            Ok(verdict.map(|()| entry.targets_unless(known)))
        })
    }

    /// QoS 2, method A: whether the message is to be passed on. A second PUBLISH is only answered.
    fn is_new(&mut self, publish: &Publish<'_>) -> Result<bool, Close> {
        let Some(id) = publish.packet_id else { return Ok(true) };
        let limits = self.limits.inbound(self.connection.version);
        let now = self.now;
        let received =
            self.connection.own_and_keep(now, |session| session.handle_publish(id, limits, now))?;
        match received {
            Seen::New => Ok(true),
            Seen::Duplicate => {
                self.flush();
                self.acknowledge(QoS::ExactlyOnce, id, ReasonCode::Success);
                Ok(false)
            }
            Seen::Exceeded => Err(Close::Violation(
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
                self.forget(id);
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
            expiry: self.expiry(&publish.properties.of_publish()),
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
    pub(super) fn expiry(&self, of: &PublishProperties) -> Option<Expiry> {
        let interval_seconds = of.message_expiry_interval?;
        Some(Expiry { interval_seconds, received_mono_ms: self.now.mono_ms })
    }

    /// What would hold the message had no room: a link that is to refuse, or the broker itself. Before 5.0 an acknowledgement cannot say so: there is none, and the
    /// connection ends, so that the client sends the message again.
    pub(super) fn refuse_full(&mut self, qos: QoS, id: PacketId) {
        self.refuse_with(qos, id, ReasonCode::QuotaExceeded);
    }

    /// The same for a reason that the broker has.
    pub(super) fn refuse_with(&mut self, qos: QoS, id: PacketId, reason: ReasonCode) {
        if self.connection.version == Version::V5 {
            return self.acknowledge(qos, id, reason);
        }
        if qos == QoS::ExactlyOnce {
            self.forget(id);
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

    /// A QoS 2 message was not taken after all.
    fn forget(&self, id: PacketId) {
        // A session that another connection has by now is not ours to change.
        let _ = self.connection.own_and_keep(self.now, |session| session.forget_publish(id));
    }

    /// PUBACK or PUBREC, as the QoS asks (`[MQTT-3.3.4-1]`), with the identifier of the PUBLISH (`[MQTT-4.3.2-4]`,
    /// `[MQTT-4.3.3-8]`). A PUBREC that refuses frees it (`[MQTT-4.3.3-9]`).
    pub(super) fn acknowledge(&mut self, qos: QoS, id: PacketId, reason: ReasonCode) {
        let (kind, label) = match qos {
            QoS::ExactlyOnce => (PacketType::PubRec, Label::PubRec),
            QoS::AtMostOnce | QoS::AtLeastOnce => (PacketType::PubAck, Label::PubAck),
        };
        if qos == QoS::ExactlyOnce && reason.is_error() && self.connection.version == Version::V5 {
            self.forget(id);
        }
        let connection = &mut *self.connection;
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

impl Broker {
    /// Stores the retained messages of a run (`[MQTT-3.3.1-5]`), removes what an empty payload removes
    /// (`[MQTT-3.3.1-6]`), and leaves the others alone (`[MQTT-3.3.1-8]`). For each message whether that worked; empty
    /// when none is retained.
    pub(super) fn retain_run(
        &self,
        run: &mut Run<'_, '_>,
        publisher: &Arc<Identity>,
        unix_ms: u64,
    ) -> Vec<bool> {
        if run.publications().iter().all(|publication| !publication.retain) {
            return Vec::new();
        }
        (0..run.publications().len())
            .map(|index| {
                let publication = run.publications()[index];
                !publication.retain || self.retain(&publication, Some(publisher), unix_ms, || run.keep(index))
            })
            .collect()
    }

    /// Stores or removes one retained message that was published here at this moment. Whether that worked.
    pub(super) fn retain(
        &self,
        publication: &Publication<'_>,
        publisher: Option<&Arc<Identity>>,
        unix_ms: u64,
        keep: impl FnOnce() -> Message,
    ) -> bool {
        let _burst = self.begin();
        if publication.payload.is_empty() {
            // [MQTT-3.3.1-7]: it removes, and is not stored itself.
            self.retained.remove(publication.topic);
            return true;
        }
        if self.load.is_critical() {
            self.metrics.broker.messages_dropped[DropReason::RetainedFull].inc();
            return false;
        }
        if self.trouble().is_some() {
            self.metrics.broker.messages_dropped[DropReason::Store].inc();
            return false;
        }
        let stored = self.retained.insert(keep(), publisher, Origin::here(unix_ms));
        if let Err(full) = &stored {
            self.metrics.broker.messages_dropped[DropReason::RetainedFull].inc();
            tracing::warn!(topic = publication.topic, "retained message not stored: {full}");
        }
        stored.is_ok()
    }
}
