//! Where events come from: deliveries that are watched, and the few other places that have something to tell. Each of
//! them asks [`super::Traces::is_on`] first.

use std::slice;

use crate::acl::eval::Request;
use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::client::Client;
use crate::broker::close::Close;
use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::identity::Denied;
use crate::broker::identity::Identity;
use crate::broker::inspect::OPERATOR;
use crate::broker::trace::event::AclVerdict;
use crate::broker::trace::event::Event;
use crate::broker::trace::event::Facts;
use crate::broker::trace::event::Kind;
use crate::broker::trace::event::Party;
use crate::broker::trace::event::Topic;
use crate::mqtt::packet::QoS;
use crate::mqtt::reason::ReasonCode;
use crate::session::frames::Run;
use crate::session::frames::RunFrames;
use crate::session::message::Publication;
use crate::session::tally::DropReason;
use crate::session::tally::Tally;
use crate::time::Now;

/// Looks on while a run is delivered.
pub(in crate::broker) trait Watch {
    /// `client` was handed the run; `tally` counts it too.
    fn handed(&mut self, client: &Client, tally: &Tally);
    /// The link to this cluster was.
    fn forwarded(&mut self, cluster: &str, reached: Reached);
}

/// Nobody does: what is compiled for it has no trace of traces.
pub(in crate::broker) struct Nobody;

impl Watch for Nobody {
    fn handed(&mut self, _client: &Client, _tally: &Tally) {}

    fn forwarded(&mut self, _cluster: &str, _reached: Reached) {}
}

/// Tells what becomes of one message.
struct Watcher<'a> {
    broker: &'a Broker,
    publication: Publication<'a>,
    source: Source<'a>,
    now: Now,
    /// The tally before the next hand-over.
    before: Tally,
}

impl<'a> Watcher<'a> {
    fn event(&self, kind: Kind) -> Event<'a> {
        let link = if let Source::Link(cluster) = self.source { Some(cluster) } else { None };
        Event {
            from: self.source.identity().map(Party::of),
            link,
            topic: Some(Topic::Name(self.publication.topic)),
            facts: Some(Facts::of(&self.publication)),
            ..Event::new(kind, self.now.unix_ms)
        }
    }
}

impl Watch for Watcher<'_> {
    fn handed(&mut self, client: &Client, tally: &Tally) {
        let identity = std::sync::Arc::clone(&client.lock().identity);
        let before = std::mem::replace(&mut self.before, tally.clone());
        let to = |kind| Event { client: Some(Party::of(&identity)), ..self.event(kind) };
        let sent = tally.sent.iter().sum::<u64>() > before.sent.iter().sum();
        let dropped = |reason: DropReason| tally.dropped[reason as usize] - before.dropped[reason as usize];
        let overflow = dropped(DropReason::QueueFull);
        let refused = DropReason::ALL
            .into_iter()
            .find(|reason| *reason != DropReason::QueueFull && dropped(*reason) > 0);
        match (sent, refused) {
            (true, _) => self.broker.traces.emit(&to(Kind::Delivered)),
            (false, Some(reason)) => {
                self.broker.traces.emit(&Event { reason: Some(reason.name()), ..to(Kind::Dropped) });
            }
            (false, None) => self.broker.traces.emit(&to(Kind::Queued)),
        }
        if overflow > 0 {
            // The oldest went, which is another message: of it nothing is known here but whose it was.
            self.broker.traces.emit(&Event {
                client: Some(Party::of(&identity)),
                reason: Some(DropReason::QueueFull.name()),
                messages: Some(overflow),
                ..Event::new(Kind::Dropped, self.now.unix_ms)
            });
        }
    }

    fn forwarded(&mut self, cluster: &str, reached: Reached) {
        let (kind, reason) = match reached {
            Reached::Somebody => (Kind::Forwarded, None),
            Reached::Nobody => (Kind::Dropped, Some("link")),
        };
        self.broker.traces.emit(&Event { link: Some(cluster), reason, ..self.event(kind) });
    }
}

impl Broker {
    /// Whether a run is to be delivered message by message, and watched.
    pub(in crate::broker) fn is_watched(&self, run: &Run<'_, '_>) -> bool {
        self.traces.is_on()
            && run.publications().iter().any(|publication| self.traces.may_want(publication.topic))
    }

    /// Delivers a run one message at a time and tells what becomes of each: what a client sees is the same.
    pub(in crate::broker) fn deliver_watched(
        &self,
        publications: &[Publication<'_>],
        targets: &Targets,
        source: Source<'_>,
        now: Now,
        tally: &mut Tally,
        refused: &mut Vec<usize>,
    ) -> Reached {
        let (mut frames, mut full) = (RunFrames::default(), Vec::new());
        let mut all = Reached::Nobody;
        for (index, publication) in publications.iter().enumerate() {
            self.trace_publish(publication, source, now);
            let mut watcher =
                Watcher { broker: self, publication: *publication, source, now, before: tally.clone() };
            let one = slice::from_ref(publication);
            let mut run = Run::new(one, &mut frames, now);
            let reached = self.deliver_to(&mut run, targets, source, now, tally, &mut full, &mut watcher);
            if reached == Reached::Somebody {
                all = reached;
            } else if full.is_empty() {
                let reason = Some("no_subscribers");
                self.traces.emit(&Event { reason, ..watcher.event(Kind::Dropped) });
            }
            if !full.is_empty() {
                full.clear();
                refused.push(index);
            }
        }
        all
    }

    /// A message came in. Which rule let it in is asked for again: what the connection remembers has no line.
    fn trace_publish(&self, publication: &Publication<'_>, source: Source<'_>, now: Now) {
        let topic = Some(Topic::Name(publication.topic));
        let mut event =
            Event { topic, facts: Some(Facts::of(publication)), ..Event::new(Kind::Publish, now.unix_ms) };
        match source {
            Source::Client(identity, _) => {
                event = event.by(identity);
                if *identity.listener != *OPERATOR {
                    let Publication { topic, qos, retain, .. } = *publication;
                    self.trace_acl(identity, &Request::Publish { topic, qos, retain }, now);
                }
            }
            Source::Link(cluster) => event.link = Some(cluster),
            Source::Broker => {}
        }
        self.traces.emit(&event);
    }

    /// A message came in and is kept for later; when it is due it comes in again, under its own topic.
    pub(in crate::broker) fn trace_delayed(
        &self,
        publication: &Publication<'_>,
        source: Source<'_>,
        now: Now,
    ) {
        if self.traces.is_on() {
            self.trace_publish(publication, source, now);
        }
    }

    fn trace_acl(&self, identity: &Identity, request: &Request<'_>, now: Now) {
        let (topic, action) = match *request {
            Request::Publish { topic, .. } => (Topic::Name(topic), "publish"),
            Request::Subscribe { filter, .. } => (Topic::Filter(filter), "subscribe"),
        };
        let verdict = self.policy().decide(identity, request);
        self.traces.emit(&Event {
            topic: Some(topic),
            acl: Some(AclVerdict { action, verdict }),
            ..Event::new(Kind::Acl, now.unix_ms).by(identity)
        });
    }

    /// A message was not let in.
    pub(in crate::broker) fn trace_denied(
        &self,
        identity: &Identity,
        topic: &str,
        facts: Facts,
        denied: Denied,
        now: Now,
    ) {
        if !self.traces.is_on() {
            return;
        }
        let event = Event {
            topic: Some(Topic::Name(topic)),
            facts: Some(facts),
            ..Event::new(Kind::Publish, now.unix_ms).by(identity)
        };
        let acl = Some(AclVerdict { action: "publish", verdict: Err(denied) });
        self.traces.emit(&Event { kind: Kind::Acl, facts: None, acl, ..event });
        self.traces.emit(&event);
        self.traces.emit(&Event { kind: Kind::Dropped, reason: Some("acl"), ..event });
    }

    /// A Topic Filter of a SUBSCRIBE was answered.
    pub(in crate::broker) fn trace_subscribe(
        &self,
        identity: &Identity,
        filter: &str,
        qos: QoS,
        reason: ReasonCode,
        now: Now,
    ) {
        if !self.traces.is_on() {
            return;
        }
        self.trace_acl(identity, &Request::Subscribe { filter, qos }, now);
        self.traces.emit(&Event {
            topic: Some(Topic::Filter(filter)),
            reason_code: Some(reason),
            ..Event::new(Kind::Subscribe, now.unix_ms).by(identity)
        });
    }

    /// A Topic Filter of an UNSUBSCRIBE was answered.
    pub(in crate::broker) fn trace_unsubscribe(
        &self,
        identity: &Identity,
        filter: &str,
        reason: ReasonCode,
        now: Now,
    ) {
        if !self.traces.is_on() {
            return;
        }
        self.traces.emit(&Event {
            topic: Some(Topic::Filter(filter)),
            reason_code: Some(reason),
            ..Event::new(Kind::Unsubscribe, now.unix_ms).by(identity)
        });
    }

    /// A client is there.
    pub(in crate::broker) fn trace_connect(&self, identity: &Identity, now: Now) {
        if self.traces.is_on() {
            self.traces.emit(&Event::new(Kind::Connect, now.unix_ms).by(identity));
        }
    }

    /// A connection did not become a client's.
    pub(in crate::broker) fn trace_refused(
        &self,
        party: Party<'_>,
        listener: &str,
        reason: &str,
        reason_code: Option<ReasonCode>,
        now: Now,
    ) {
        if !self.traces.is_on() {
            return;
        }
        self.traces.emit(&Event {
            client: Some(party),
            listener: Some(listener),
            reason: Some(reason),
            reason_code,
            ..Event::new(Kind::Refused, now.unix_ms)
        });
    }

    /// A connection ended.
    pub(in crate::broker) fn trace_disconnect(&self, identity: &Identity, close: &Close, now: Now) {
        if !self.traces.is_on() {
            return;
        }
        self.traces.emit(&Event {
            reason: Some(close.label().name()),
            reason_code: close.reason(),
            ..Event::new(Kind::Disconnect, now.unix_ms).by(identity)
        });
    }

    /// What a client's connection took from its queue and from what is retained, since `before`.
    pub(in crate::broker) fn trace_drained(
        &self,
        identity: &Identity,
        before: &Tally,
        after: &Tally,
        now: Now,
    ) {
        let sent = |tally: &Tally| tally.sent.iter().sum::<u64>() + tally.resent;
        let count = sent(after) - sent(before);
        let event = Event::new(Kind::Delivered, now.unix_ms).by(identity);
        if count > 0 {
            self.traces.emit(&Event { messages: Some(count), reason: Some("waiting"), ..event });
        }
        for reason in DropReason::ALL {
            let count = after.dropped[reason as usize] - before.dropped[reason as usize];
            if count > 0 {
                let (messages, reason) = (Some(count), Some(reason.name()));
                self.traces.emit(&Event { kind: Kind::Dropped, messages, reason, ..event });
            }
        }
    }
}
