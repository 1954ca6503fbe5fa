//! Decides what a PUBLISH on a `$LINK` topic means, after the ACL has confined the client to the topics of the
//! one cluster it is bound to (`link-protocol.md` 2.3, 3.3, 4.4; EMQX's `on_message_publish`).
//!
//! Where EMQX crashes and then publishes the wrapper as an ordinary message (2.4), we refuse: no wrapper is
//! ever published. Route payloads a peer must not send end the connection with 0x83, as in EMQX, so that the
//! peer starts anew.

use std::borrow::Cow;

use crate::link::bounds::QosBounds;
use crate::link::compress;
use crate::link::compress::Inflater;
use crate::link::etf::EtfError;
use crate::link::etf::Reader;
use crate::link::extension::Capabilities;
use crate::link::extension::RouteDigest;
use crate::link::extension::Sent;
use crate::link::extension::VERSION;
use crate::link::message;
use crate::link::message::Forwarded;
use crate::link::message::MessageError;
use crate::link::name;
use crate::link::payload;
use crate::link::payload::ActorInit;
use crate::link::payload::ActorInitAck;
use crate::link::payload::Control;
use crate::link::payload::Heartbeat;
use crate::link::payload::PROTO_VER;
use crate::link::payload::PayloadError;
use crate::link::payload::RouteOp;
use crate::link::payload::page::PageRequest;
use crate::link::relay;
use crate::link::remote_routes::RemoteRoutes;
use crate::link::remote_routes::RouteError;
use crate::link::route::LinkTopics;
use crate::time::Now;

/// PUBACK: taken. EMQX answers control operations so, and messages no one subscribes to.
pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
/// DISCONNECT: EMQX's answer to a protocol error.
pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// PUBACK: more routes than granted.
pub const QUOTA_EXCEEDED: u8 = 0x97;
/// PUBACK: the payload is no forwarded message.
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

/// Why a peer is refused that can do less than when it enrolled.
pub const FEWER_CAPABILITIES: &str = "fewer_capabilities_than_enrolled";

/// A configured link as ingress needs it.
#[derive(Debug, Clone, Copy)]
pub struct LinkView<'a> {
    /// The peer's cluster name: the link's own name.
    pub peer: &'a str,
    /// Our cluster name.
    pub cluster: &'a str,
    /// Whether the link is on.
    pub enabled: bool,
    /// What we want from the peer.
    pub topics: &'a LinkTopics,
    /// What we can do with it beyond EMQX's protocol.
    pub capabilities: Capabilities,
    /// What of that the peer must be able to do.
    pub demanded: Capabilities,
    /// Clusters that we reach through it.
    pub reach: &'a [String],
    /// Up to which QoS messages are taken; `None`: up to any.
    pub qos: Option<&'a QosBounds>,
}

/// What a connection of a peer has been used for: route replication binds it to one actor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngressSession {
    bound: Option<Bound>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    peer: Box<str>,
    actor: Box<str>,
    incarnation: u64,
    /// What the peer can do, and what of it we can too.
    theirs: Capabilities,
    capabilities: Capabilities,
}

impl Bound {
    /// Whether both still can what was agreed: our side of it may be configured anew.
    fn agrees_with(&self, link: Option<&LinkView<'_>>) -> Result<(), Violation> {
        let stays = link.is_none_or(|link| link.capabilities.both(self.theirs) == self.capabilities);
        if stays { Ok(()) } else { Err(Violation::OtherCapabilities) }
    }
}

impl IngressSession {
    /// The actor this connection replicates for.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.bound.as_ref().map(|bound| bound.actor.as_ref())
    }

    /// What both sides can do, once the peer has said what it can.
    #[must_use]
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.bound.as_ref().map(|bound| bound.capabilities)
    }

    fn check(&self, peer: &str, actor: &str) -> Result<&Bound, Violation> {
        let bound = self.bound.as_ref().ok_or(Violation::NotInitialised)?;
        if *bound.peer != *peer || *bound.actor != *actor {
            return Err(Violation::OtherActor);
        }
        Ok(bound)
    }
}

/// Why a peer is disconnected with 0x83.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No control operation.
    #[error("unreadable control operation: {0}")]
    Payload(#[from] PayloadError),
    /// actor_init came without Response Topic or Correlation Data.
    #[error("actor_init without response topic or correlation data")]
    NoResponseTopic,
    /// The Response Topic is not one of the peer's own.
    #[error("response topic outside $LINK/cluster/resp/<peer>/<actor>")]
    ForeignResponseTopic,
    /// A second actor_init on one connection.
    #[error("second actor_init on one connection")]
    SecondInit,
    /// A route update before actor_init.
    #[error("route update before actor_init")]
    NotInitialised,
    /// An operation for another actor than the connection's.
    #[error("operation for another actor")]
    OtherActor,
    /// We can do other things with the peer than when it began: it is to ask again.
    #[error("the link is configured anew")]
    OtherCapabilities,
    /// A newer incarnation of the actor is known.
    #[error("outdated_incarnation_actor")]
    OutdatedIncarnation,
    /// The actor has expired, or was replaced by a newer incarnation.
    #[error("actor has expired or was replaced")]
    UnknownActor,
}

/// Why a message was dropped: the label of `link_messages_dropped_total` (`observability.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Older than it may get.
    Expired,
    /// No room in the spool.
    SpoolFull,
    /// Larger than the peer takes.
    TooLarge,
    /// The ACL forbids it.
    Acl,
    /// Outside the link's topics, or the link is unknown or off.
    Filter,
    /// No forwarded message.
    Undecodable,
    /// The peer answered with a failure.
    PeerRefused,
    /// A topic of the link protocol itself.
    Loop,
    /// QoS 0 without a connection.
    Offline,
    /// What was kept of it cannot be read any more.
    Damaged,
}

impl DropReason {
    /// Every reason, in the order of [`DropReason::index`].
    pub const ALL: [Self; 10] = [
        Self::Expired,
        Self::SpoolFull,
        Self::TooLarge,
        Self::Acl,
        Self::Filter,
        Self::Undecodable,
        Self::PeerRefused,
        Self::Loop,
        Self::Offline,
        Self::Damaged,
    ];

    /// A dense index, for counters.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::SpoolFull => "spool_full",
            Self::TooLarge => "too_large",
            Self::Acl => "acl",
            Self::Filter => "filter",
            Self::Undecodable => "undecodable",
            Self::PeerRefused => "peer_refused",
            Self::Loop => "loop",
            Self::Offline => "offline",
            Self::Damaged => "damaged",
        }
    }
}

/// A control operation as it came in.
#[derive(Debug, Clone, Copy)]
pub struct ControlPublish<'a> {
    /// The cluster in the topic: the peer this connection is bound to.
    pub peer: &'a str,
    /// Response Topic property.
    pub response_topic: Option<&'a str>,
    /// Correlation Data property.
    pub correlation_data: Option<&'a [u8]>,
    /// Payload.
    pub payload: &'a [u8],
}

/// What to do about a control operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlDecision<'a> {
    /// Acknowledge with this reason code (nothing to send for QoS 0), then apply
    /// [`RemoteRoutes::drain_changes`].
    Ack(u8),
    /// Acknowledge with 0x10 and publish an ack at QoS 1; then apply [`RemoteRoutes::drain_changes`].
    Reply {
        /// Where to.
        topic: &'a str,
        /// An actor_init_ack.
        payload: Vec<u8>,
        /// Correlation Data, as it came.
        correlation_data: &'a [u8],
        /// Why the peer is refused, if it is.
        refusal: Option<&'static str>,
    },
    /// Acknowledge with 0x10, take note of what the peer says, and publish a heartbeat_ack at QoS 1.
    Report(HeartbeatReport<'a>),
    /// Acknowledge with 0x10 and, when it is made, publish a retained_page_ack at QoS 1.
    Page(Box<PageOrder>),
    /// Send DISCONNECT 0x83 and close; no PUBACK.
    Disconnect(Violation),
}

/// A heartbeat that says more than that its sender is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReport<'a> {
    /// Where the answer goes.
    pub topic: &'a str,
    /// Whose it is.
    pub actor: Box<str>,
    /// Its incarnation.
    pub incarnation: u64,
    /// What it has sent us.
    pub books: Option<Sent>,
    /// The routes that we know of it, if it said which it has told.
    pub routes: Option<RouteDigest>,
}

/// A page of retained messages that the peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOrder {
    /// Where the answer goes.
    pub topic: Box<str>,
    /// Whose it is.
    pub actor: Box<str>,
    /// Its incarnation.
    pub incarnation: u64,
    /// The number of the request.
    pub number: u64,
    /// What it wants.
    pub filters: Vec<Box<str>>,
    /// Behind which topic.
    pub after: Option<Box<str>>,
    /// How long the answer may be.
    pub bytes_max: usize,
}

/// Decides about a PUBLISH on `$LINK/cluster/route/PEER`. `link` is `None` if no link of that name is
/// configured; `routes` are the peer's.
pub fn control<'a>(
    session: &mut IngressSession,
    link: Option<&LinkView<'_>>,
    routes: &mut RemoteRoutes,
    inflater: &mut Inflater,
    now: Now,
    publish: ControlPublish<'a>,
) -> ControlDecision<'a> {
    let decoded = inflater.open(publish.payload).map_err(PayloadError::from).and_then(payload::parse_control);
    let answer = match decoded {
        Err(error) => Err(Violation::Payload(error)),
        Ok(Control::ActorInit(init)) => actor_init(session, link, routes, now, &publish, &init),
        Ok(Control::Route(update)) => session.check(publish.peer, update.actor).and_then(|bound| {
            let relays = bound.capabilities.has(Capabilities::RELAY);
            let (own, reach) =
                link.filter(|_| relays).map_or(("", &[][..]), |link| (link.cluster, link.reach));
            // As in EMQX the connection's incarnation counts, not the one in the update.
            let takes = |op: &RouteOp<'_>| relay::takes(op, own, reach);
            let mut told = routes.update_if(now, &bound.actor, bound.incarnation, update.ops, takes);
            if update.is_last && bound.capabilities.has(Capabilities::BOOTSTRAP_END) {
                told = told.and_then(|()| routes.bootstrapped(now, &bound.actor, bound.incarnation));
            }
            match told {
                Ok(()) => Ok(ControlDecision::Ack(NO_MATCHING_SUBSCRIBERS)),
                Err(RouteError::QuotaExceeded) => Ok(ControlDecision::Ack(QUOTA_EXCEEDED)),
                Err(_) => Err(Violation::UnknownActor),
            }
        }),
        // Ignored until the connection is bound (`link-protocol.md`, fact 7).
        Ok(Control::Heartbeat(_)) if session.bound.is_none() => {
            Ok(ControlDecision::Ack(NO_MATCHING_SUBSCRIBERS))
        }
        Ok(Control::Heartbeat(beat)) => session.check(publish.peer, beat.actor).and_then(|bound| {
            let renewed = routes.heartbeat(now, &bound.actor, bound.incarnation);
            renewed.map_err(|_| Violation::UnknownActor)?;
            bound.agrees_with(link)?;
            report(bound, routes, &publish, &beat)
        }),
        Ok(Control::RetainedPage(request)) => session.check(publish.peer, request.actor).and_then(|bound| {
            bound.agrees_with(link)?;
            page(bound, &publish, &request)
        }),
    };
    answer.unwrap_or_else(ControlDecision::Disconnect)
}

/// Answers a heartbeat that asks for it, if both sides have said that they do so.
fn report<'a>(
    bound: &Bound,
    routes: &RemoteRoutes,
    publish: &ControlPublish<'a>,
    beat: &Heartbeat<'_>,
) -> Result<ControlDecision<'a>, Violation> {
    let topic = publish.response_topic.filter(|_| {
        bound.capabilities.has(Capabilities::HEARTBEAT_ACK) && (beat.books.is_some() || beat.routes.is_some())
    });
    let Some(topic) = topic else { return Ok(ControlDecision::Ack(NO_MATCHING_SUBSCRIBERS)) };
    if !name::is_response_topic_of(topic, publish.peer) {
        return Err(Violation::ForeignResponseTopic);
    }
    Ok(ControlDecision::Report(HeartbeatReport {
        topic,
        actor: bound.actor.clone(),
        incarnation: bound.incarnation,
        books: beat.books,
        routes: beat.routes.and_then(|_| routes.digest(&bound.actor, bound.incarnation)),
    }))
}

/// Orders a page, if both sides have said that they tell them.
fn page<'a>(
    bound: &Bound,
    publish: &ControlPublish<'a>,
    request: &PageRequest<'_>,
) -> Result<ControlDecision<'a>, Violation> {
    if !bound.capabilities.has(Capabilities::RETAINED) {
        return Err(Violation::Payload(PayloadError::Operation));
    }
    let topic = publish.response_topic.ok_or(Violation::NoResponseTopic)?;
    if !name::is_response_topic_of(topic, publish.peer) {
        return Err(Violation::ForeignResponseTopic);
    }
    Ok(ControlDecision::Page(Box::new(PageOrder {
        topic: topic.into(),
        actor: bound.actor.clone(),
        incarnation: bound.incarnation,
        number: request.number,
        filters: request.filters.map(Into::into).collect(),
        after: request.after.map(Into::into),
        bytes_max: request.bytes_max,
    })))
}

fn actor_init<'a>(
    session: &mut IngressSession,
    link: Option<&LinkView<'_>>,
    routes: &mut RemoteRoutes,
    now: Now,
    publish: &ControlPublish<'a>,
    init: &ActorInit<'_>,
) -> Result<ControlDecision<'a>, Violation> {
    let (Some(topic), Some(correlation_data)) = (publish.response_topic, publish.correlation_data) else {
        return Err(Violation::NoResponseTopic);
    };
    if !name::is_response_topic_of(topic, publish.peer) {
        return Err(Violation::ForeignResponseTopic);
    }
    if session.bound.is_some() {
        return Err(Violation::SecondInit);
    }
    // The order of EMQX: a link that is off does not look at the name it is called by.
    let refusal = match link {
        None => Some("unknown_cluster"),
        Some(link) if link.enabled && link.cluster != init.target_cluster => {
            Some("bad_remote_cluster_link_name")
        }
        Some(link) if !link.enabled => Some("cluster_link_disabled"),
        Some(link) if !init.capabilities.has(link.demanded) => Some(FEWER_CAPABILITIES),
        Some(_) => None,
    };
    let capabilities = link.map_or(Capabilities::NONE, |link| link.capabilities.both(init.capabilities));
    let says_when_over = capabilities.has(Capabilities::BOOTSTRAP_END);
    let result = match refusal {
        Some(reason) => Err(reason),
        None => match routes.actor_begin(now, init.actor, init.incarnation, says_when_over) {
            Ok(need_bootstrap) => Ok(need_bootstrap),
            Err(RouteError::OutdatedIncarnation) => return Err(Violation::OutdatedIncarnation),
            Err(_) => Err("too_many_actors"),
        },
    };
    if result.is_ok() {
        session.bound = Some(Bound {
            peer: publish.peer.into(),
            actor: init.actor.into(),
            incarnation: init.incarnation,
            theirs: init.capabilities,
            capabilities,
        });
    }
    let mut payload = Vec::with_capacity(96 + init.actor.len());
    let ack = ActorInitAck {
        actor: init.actor,
        proto_ver: PROTO_VER,
        result: result.map(|_| ()).map_err(Cow::Borrowed),
        need_bootstrap: result.ok(),
        capabilities,
        reach: link
            .filter(|_| capabilities.has(Capabilities::RELAY))
            .map(|link| link.reach.iter().map(String::as_str).collect())
            .unwrap_or_default(),
        // Of no use to anybody else.
        version: (init.capabilities != Capabilities::NONE).then_some(VERSION),
    };
    payload::put_ack(&mut payload, &ack);
    Ok(ControlDecision::Reply { topic, payload, correlation_data, refusal })
}

/// What to do about a PUBLISH on `$LINK/cluster/msg/PEER`.
#[expect(clippy::large_enum_variant, reason = "returned once per message; a box would be an allocation each")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageDecision<'a> {
    /// Route it to local subscribers, and to no link. Acknowledge with 0x00, or 0x10 if there was none.
    Deliver(Forwarded<'a>),
    /// Count it and acknowledge with this reason code.
    Drop {
        /// Why.
        reason: DropReason,
        /// For the PUBACK.
        code: u8,
        /// The details, where there are any.
        error: Option<MessageError>,
        /// By which a repetition is told, if it could be read.
        id: Option<[u8; 16]>,
    },
}

fn dropped<'a>(reason: DropReason, code: u8, id: [u8; 16]) -> MessageDecision<'a> {
    MessageDecision::Drop { reason, code, error: None, id: Some(id) }
}

/// Decides about a PUBLISH on `$LINK/cluster/msg/PEER`. `link` is `None` if no link of that name is configured.
pub fn message<'a>(
    link: Option<&LinkView<'_>>,
    inflater: &'a mut Inflater,
    now: Now,
    payload: &'a [u8],
) -> MessageDecision<'a> {
    let Some(link) = link.filter(|link| link.enabled) else { return unwanted() };
    decide(link, now, inflater.open(payload), "")
}

/// The same about one that is not compressed ([`compress::is_compressed`]). One with the topic `known`, of a message
/// that the link was just found to want, is not asked about again; it may be given as the same string.
pub fn plain_message<'a>(
    link: Option<&LinkView<'_>>,
    now: Now,
    payload: &'a [u8],
    known: &'a str,
) -> MessageDecision<'a> {
    let Some(link) = link.filter(|link| link.enabled) else { return unwanted() };
    decide(link, now, compress::open_plain(payload), known)
}

fn unwanted<'a>() -> MessageDecision<'a> {
    let (reason, code) = (DropReason::Filter, NO_MATCHING_SUBSCRIBERS);
    MessageDecision::Drop { reason, code, error: None, id: None }
}

fn decide<'a>(
    link: &LinkView<'_>,
    now: Now,
    opened: Result<Reader<'a>, EtfError>,
    known: &'a str,
) -> MessageDecision<'a> {
    let parsed = opened.map_err(Into::into).and_then(|reader| message::parse_after(reader, known));
    let forwarded = match parsed {
        Ok(forwarded) => forwarded,
        Err(error) => {
            let (reason, code) = (DropReason::Undecodable, PAYLOAD_FORMAT_INVALID);
            return MessageDecision::Drop { reason, code, error: Some(error), id: None };
        }
    };
    if !std::ptr::eq(forwarded.topic, known) {
        if name::is_reserved(forwarded.topic) {
            return dropped(DropReason::Loop, NO_MATCHING_SUBSCRIBERS, forwarded.id);
        }
        if !link.topics.covers(forwarded.topic) {
            return dropped(DropReason::Filter, NO_MATCHING_SUBSCRIBERS, forwarded.id);
        }
    }
    // Of each message: those of one topic may differ in this.
    if link.qos.is_some_and(|bounds| forwarded.qos > bounds.most(forwarded.topic)) {
        return dropped(DropReason::Acl, NO_MATCHING_SUBSCRIBERS, forwarded.id);
    }
    if let Some(path) = forwarded.path {
        match relay::read(path).filter(|_| link.capabilities.has(Capabilities::RELAY)) {
            Some(path) if path.contains(&link.cluster) => {
                return dropped(DropReason::Loop, NO_MATCHING_SUBSCRIBERS, forwarded.id);
            }
            Some(path) if relay::is_agreed(&path, link.cluster, link.reach) => {}
            _ => return dropped(DropReason::Filter, NO_MATCHING_SUBSCRIBERS, forwarded.id),
        }
    }
    if is_expired(&forwarded, now) {
        return dropped(DropReason::Expired, NO_MATCHING_SUBSCRIBERS, forwarded.id);
    }
    MessageDecision::Deliver(forwarded)
}

/// Whether the Message Expiry Interval has passed. A clock of the peer that runs ahead makes the message no younger than new.
#[must_use]
pub fn is_expired(message: &Forwarded<'_>, now: Now) -> bool {
    let age_ms = now.unix_ms.saturating_sub(message.timestamp_ms);
    message.properties.message_expiry_interval.is_some_and(|seconds| age_ms >= u64::from(seconds) * 1_000)
}

#[cfg(test)]
mod tests;
