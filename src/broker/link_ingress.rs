//! What a linked cluster publishes to us under `$LINK/`: its routes, and messages for our clients. The
//! connection is bound to its peer already, and confinement has seen the topic.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::close::Close;
use crate::broker::delivery::Source;
use crate::broker::links::Link;
use crate::broker::packets::Turn;
use crate::broker::throttle::SharedLimiter;
use crate::broker::topic_cache::TopicCache;
use crate::link::compress::Inflater;
use crate::link::ingress;
use crate::link::ingress::ControlDecision;
use crate::link::ingress::ControlPublish;
use crate::link::ingress::DropReason;
use crate::link::ingress::IngressSession;
use crate::link::ingress::MessageDecision;
use crate::link::message::Forwarded;
use crate::link::name::LinkTopic;
use crate::link::remote_routes::RemoteRoutes;
use crate::metrics::labels::ByteKind;
use crate::metrics::labels::Direction;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::session::frames::Run;
use crate::session::frames::RunFrames;
use crate::session::message::Expiry;
use crate::session::message::Publication;
use crate::time::Now;

/// The receiving end of one connection of a peer.
#[derive(Debug)]
pub struct LinkIngress {
    cluster: Box<str>,
    /// The link whose quota this connection counts against.
    entered: Arc<Link>,
    session: IngressSession,
    inflater: Inflater,
    cache: TopicCache,
    frames: RunFrames,
    properties: PropertiesBuf,
}

impl LinkIngress {
    /// For a connection bound to `cluster`; `None` when the peer has as many connections as it may, or there is
    /// no such link (yet): nobody would count it.
    #[must_use]
    pub fn new(broker: &Broker, cluster: &str) -> Option<Self> {
        let entered = broker.links.get(cluster)?;
        if !entered.enter() {
            return None;
        }
        Some(Self {
            cluster: cluster.into(),
            entered,
            session: IngressSession::default(),
            inflater: Inflater::default(),
            cache: TopicCache::default(),
            frames: RunFrames::default(),
            properties: PropertiesBuf::new(),
        })
    }
}

impl LinkIngress {
    /// How much longer the connection is not to be read, in milliseconds.
    #[must_use]
    pub fn paused_for_ms(&self, now: Now) -> Option<u64> {
        self.entered.paused_for_ms(now)
    }

    /// What is left of the peer's rates, if it has any.
    #[must_use]
    pub fn quota(&self) -> Option<SharedLimiter> {
        self.entered.quota.clone()
    }
}

impl Drop for LinkIngress {
    fn drop(&mut self) {
        self.entered.leave();
    }
}

impl<'a> Turn<'_, 'a> {
    /// A PUBLISH of a bound connection on one of its own `$LINK` topics.
    pub(super) fn link_publish(&mut self, topic: &str, publish: &Publish<'a>) -> Result<(), Close> {
        let Some(mut ingress) = self.connection.ingress.take() else {
            return Err(Close::Violation(
                ReasonCode::QuotaExceeded,
                "the peer has too many connections, or no link",
            ));
        };
        let link = self.connection.broker.links.get(&ingress.cluster);
        let result = match LinkTopic::parse(topic) {
            Some(LinkTopic::Route(_)) => self.control(&mut ingress, link.as_deref(), publish),
            Some(LinkTopic::Message(_)) => {
                self.forwarded(&mut ingress, link.as_deref(), publish);
                Ok(())
            }
            Some(LinkTopic::Response { .. }) | None => {
                Err(Close::Violation(ReasonCode::TopicNameInvalid, "not a topic that a link publishes to"))
            }
        };
        self.connection.ingress = Some(ingress);
        result
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
        self.answer_control(decision, publish)
    }

    fn answer_control(&mut self, decision: ControlDecision<'_>, publish: &Publish<'_>) -> Result<(), Close> {
        match decision {
            ControlDecision::Ack(code) => self.acknowledge_link(publish, code),
            ControlDecision::Reply { topic, payload, correlation_data } => {
                self.acknowledge_link(publish, ingress::NO_MATCHING_SUBSCRIBERS);
                let mut properties = PropertiesBuf::new();
                properties.push(Property::CorrelationData(correlation_data));
                let reply = Publication {
                    topic,
                    properties: properties.as_properties().as_bytes(),
                    payload: &payload,
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    expiry: None,
                };
                self.connection.broker.publish_one(&reply, Source::Broker, self.now);
            }
            ControlDecision::Disconnect(violation) => {
                let peer = self.connection.publisher.identity.bound_to.as_deref();
                tracing::warn!(peer, "link protocol error: {violation}");
                return Err(Close::Violation(ReasonCode::ImplementationSpecificError, "link protocol error"));
            }
        }
        Ok(())
    }

    /// A forwarded message: to local subscribers only, acknowledged with whether there were any.
    fn forwarded(&mut self, ingress: &mut LinkIngress, link: Option<&Link>, publish: &Publish<'_>) {
        let LinkIngress { cluster, entered, inflater, cache, frames, properties, .. } = ingress;
        let view = link.map(Link::view);
        let decision = ingress::message(view.as_ref(), inflater, self.now, publish.payload);
        let code = match &decision {
            MessageDecision::Deliver(message) => {
                let publication = publication(message, properties, self.now);
                let connection = &mut *self.connection;
                let routes = &connection.broker.routes;
                let targets = cache.with(publication.topic, 0, routes, |entry| Arc::clone(entry.targets()));
                let one = [publication];
                let mut run = Run::new(&one, frames, self.now);
                let tally = &mut connection.lent.counts().tally;
                let reached = connection.broker.deliver(
                    &mut run,
                    &targets,
                    Source::Link(cluster),
                    self.now,
                    tally,
                    &mut Vec::new(),
                );
                if std::mem::take(&mut tally.pressed) || connection.broker.load.is_critical() {
                    entered.pause(self.now);
                }
                if let Some(link) = link {
                    link.metrics.messages[(Direction::In, one[0].qos)].inc();
                }
                reached.reason().as_u8()
            }
            MessageDecision::Drop { reason, code, error } => {
                count_dropped(link, *reason);
                let peer = self.connection.publisher.identity.bound_to.as_deref();
                tracing::debug!(peer, reason = reason.as_str(), ?error, "message from a link dropped");
                *code
            }
        };
        if let Some(link) = link {
            link.metrics.bytes[(Direction::In, ByteKind::Wire)].add(publish.payload.len() as u64);
        }
        self.acknowledge_link(publish, code);
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

fn count_dropped(link: Option<&Link>, reason: DropReason) {
    if let Some(link) = link {
        link.metrics.messages_dropped[(Direction::In, reason.into())].inc();
    }
}

/// The inner message as an ordinary one. Its age counts against its Message Expiry Interval.
fn publication<'a>(
    message: &'a Forwarded<'_>,
    properties: &'a mut PropertiesBuf,
    now: Now,
) -> Publication<'a> {
    let inner = &message.properties;
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
    let age_ms = now.unix_ms.saturating_sub(message.timestamp_ms);
    Publication {
        topic: message.topic,
        properties: properties.as_properties().as_bytes(),
        payload: &message.payload,
        qos: message.qos,
        retain: message.retain,
        expiry: inner.message_expiry_interval.map(|interval_seconds| Expiry {
            interval_seconds: interval_seconds
                .saturating_sub(u32::try_from(age_ms / 1000).unwrap_or(u32::MAX)),
            received_mono_ms: now.mono_ms,
        }),
    }
}
