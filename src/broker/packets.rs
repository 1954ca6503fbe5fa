//! The packets of one burst, other than PUBLISH, which is in `publish.rs`.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::acl::eval::Request;
use crate::broker::Limits;
use crate::broker::close::Close;
use crate::broker::connection::Connection;
use crate::broker::filters::AskedFilter;
use crate::broker::gathering::Gathering;
use crate::broker::identity::Policy;
use crate::broker::lent;
use crate::broker::lent::Memory;
use crate::broker::outbox;
use crate::broker::reasons;
use crate::broker::replay::REPLAYS_MAX;
use crate::broker::replay::Replay;
use crate::config::settings::DenyAction;
use crate::metrics::labels::PacketType as Label;
use crate::mqtt::decode;
use crate::mqtt::decode::DecodeLimits;
use crate::mqtt::decode::Decoded;
use crate::mqtt::decode::PLAIN_ACK_BYTES;
use crate::mqtt::encode;
use crate::mqtt::packet::Ack;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketType;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::RetainHandling;
use crate::mqtt::packet::SubAck;
use crate::mqtt::packet::Subscribe;
use crate::mqtt::packet::SubscribeFilter;
use crate::mqtt::packet::UnsubAck;
use crate::mqtt::packet::Unsubscribe;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::mqtt::topic::ParsedFilter;
use crate::session::Ending;
use crate::session::Subscription;
use crate::time::Now;

/// Acknowledgements that are handled under one lock.
const ACKS_AT_ONCE: usize = 256;

/// Handling one burst of one connection.
pub struct Turn<'c, 'a> {
    pub(super) connection: &'c mut Connection,
    pub(super) now: Now,
    pub(super) policy: Arc<Policy>,
    pub(super) limits: Arc<Limits>,
    /// The broker takes no new messages from applications.
    pub(super) overloaded: bool,
    pub(super) burst: &'a [u8],
    /// Where in the burst the packet stands that is handled.
    pub(super) at: Range<usize>,
    /// Room for copies of what the burst does not have as it is passed on.
    pub(super) copies: &'a mut [u8],
    /// There was none, or too little.
    pub(super) needs_copies: bool,
    /// PUBLISH packets, by QoS.
    pub(super) received: [u64; 3],
    pub(super) gathering: Gathering<'a>,
}

impl Connection {
    /// Moves what the client is to be answered behind `out`, for who drives [`Turn`]s without a socket.
    pub fn take_answers(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.answers);
    }
}

impl<'c, 'a> Turn<'c, 'a> {
    /// Begins.
    #[must_use]
    pub fn new(connection: &'c mut Connection, now: Now) -> Self {
        connection.follow_policy();
        if let Some(ingress) = &mut connection.ingress {
            ingress.follow(&connection.broker);
        }
        let (policy, limits) = (Arc::clone(&connection.policy), Arc::clone(&connection.limits));
        let overloaded =
            connection.broker.load.is_critical() && connection.publisher.identity.bound_to.is_none();
        Self {
            connection,
            now,
            policy,
            limits,
            overloaded,
            burst: &[],
            at: 0..0,
            copies: &mut [],
            needs_copies: false,
            received: [0; 3],
            gathering: Gathering::default(),
        }
    }

    /// Handles every complete packet, up to a PUBLISH that is over the client's rate; gives the bytes they took. What was received before a fault is still
    /// delivered and acknowledged.
    pub fn handle(self, burst: &[u8], limits: &DecodeLimits) -> Result<usize, Close> {
        let Self { connection, now, policy, limits: announced, overloaded, .. } = self;
        let Memory { publications, answers, mut copies } =
            std::mem::take(&mut connection.lent.scratch().memory);
        let mut turn = Turn {
            connection: &mut *connection,
            now,
            policy,
            limits: announced,
            overloaded,
            burst,
            at: 0..0,
            copies: &mut copies,
            needs_copies: false,
            received: [0; 3],
            gathering: Gathering::new(publications, answers),
        };
        let result = turn.packets(limits);
        turn.flush();
        let result = result.and_then(|used| turn.check_unsaid().map(|()| used));
        let Turn { received, needs_copies, gathering, .. } = turn;
        let (publications, answers) = gathering.into_parts();
        let publications = lent::emptied(publications);
        if let Some(ingress) = &mut connection.ingress {
            ingress.report();
        }
        let scratch = connection.lent.scratch();
        scratch.counts.received_publishes(received);
        if needs_copies && copies.is_empty() {
            copies = vec![0; lent::COPIES_BYTES];
        }
        scratch.memory = Memory { publications, answers, copies };
        result
    }

    fn packets(&mut self, limits: &DecodeLimits) -> Result<usize, Close> {
        let mut used = 0;
        loop {
            let rest = &self.burst[used..];
            if let Some(alike) = self.gathering.alike(rest, limits.max_packet_size) {
                if !self.connection.admits(self.gathering.topic(), self.now) {
                    return Ok(used);
                }
                used += alike.len;
                self.gather_alike(&alike);
                continue;
            }
            if let Some((publish, len)) = decode::decode_publish(rest, limits, self.gathering.topic()) {
                if !self.connection.admits(publish.topic, self.now) {
                    return Ok(used);
                }
                self.at = used..used + len;
                used += len;
                self.publish(publish)?;
                self.check_unsaid()?;
                continue;
            }
            if decode::plain_ack(rest).is_some() {
                used += self.plain_acks(rest)?;
                continue;
            }
            match decode::decode(rest, limits) {
                Ok(Decoded::Packet { packet, len }) => {
                    self.at = used..used + len;
                    used += len;
                    // [MQTT-3.14.4-1]: a DISCONNECT ends the burst; what stands behind it is not looked at.
                    self.packet(packet)?;
                    self.check_unsaid()?;
                }
                Ok(Decoded::NeedMore { .. }) => return Ok(used),
                Err(error) => return Err(Close::Decode(error)),
            }
        }
    }

    /// Handles acknowledgements that follow one another under one lock, some at a time: others deliver under it too.
    /// Gives the bytes they took.
    fn plain_acks(&mut self, acks: &[u8]) -> Result<usize, Close> {
        let Connection { client, epoch, version, answers, lent, broker, .. } = &mut *self.connection;
        let burst = broker.begin();
        let mut state = client.own(*epoch)?;
        let session = &mut state.session;
        let counts = lent.counts();
        let mut used = 0;
        while let Some((kind, id)) = decode::plain_ack(&acks[used..])
            && used < ACKS_AT_ONCE * PLAIN_ACK_BYTES
        {
            used += PLAIN_ACK_BYTES;
            match kind {
                PacketType::PubRec => {
                    counts.received(Label::PubRec);
                    if let Some(reason) = session.handle_pubrec(id, ReasonCode::Success) {
                        encode::encode_ack(PacketType::PubRel, *version, id, reason, answers);
                        counts.sent(Label::PubRel);
                    }
                }
                PacketType::PubRel => {
                    counts.received(Label::PubRel);
                    // The messages gathered so far need not go first: each PUBREL has its own identifier, noted when
                    // its PUBLISH was taken. It is answered under that ([MQTT-2.2.1-5]).
                    let reason = session.handle_pubrel(id);
                    encode::encode_ack(PacketType::PubComp, *version, id, reason, answers);
                    counts.sent(Label::PubComp);
                }
                PacketType::PubComp => {
                    counts.received(Label::PubComp);
                    session.handle_pubcomp(id);
                }
                _ => {
                    counts.received(Label::PubAck);
                    session.handle_puback(id);
                }
            }
        }
        state.keep(client.key, burst.as_ref(), self.now);
        Ok(used)
    }

    fn packet(&mut self, packet: Packet<'a>) -> Result<(), Close> {
        match packet {
            Packet::Publish(publish) => return self.publish(publish),
            ref other => self.connection.lent.counts().received(Label::from(other)),
        }
        match packet {
            Packet::Publish(_) => {}
            Packet::PubAck(ack) => {
                self.connection.own_and_keep(self.now, |session| session.handle_puback(ack.packet_id))?;
            }
            Packet::PubRec(ack) => return self.pubrec(&ack),
            Packet::PubComp(ack) => {
                self.connection.own_and_keep(self.now, |session| session.handle_pubcomp(ack.packet_id))?;
            }
            Packet::PubRel(ack) => return self.pubrel(&ack),
            Packet::Subscribe(subscribe) => return self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => return self.unsubscribe(&unsubscribe),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                encode::encode_ping_resp(&mut self.connection.answers);
                self.connection.lent.counts().sent(Label::PingResp);
            }
            Packet::Disconnect(disconnect) => return Err(self.disconnect(&disconnect)),
            Packet::Connect(_) => {
                return Err(Close::Violation(ReasonCode::ProtocolError, "a second CONNECT")); // [MQTT-3.1.0-2]
            }
            Packet::Auth(auth) => return self.auth(&auth),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(Close::Violation(ReasonCode::ProtocolError, "a packet that only a Server sends"));
            }
        }
        Ok(())
    }

    fn pubrec(&mut self, ack: &Ack<'_>) -> Result<(), Close> {
        let connection = &mut *self.connection;
        let answer =
            connection.own_and_keep(self.now, |session| session.handle_pubrec(ack.packet_id, ack.reason))?;
        let Some(reason) = answer else { return Ok(()) };
        let (version, answers) = (connection.version, &mut connection.answers);
        encode::encode_ack(PacketType::PubRel, version, ack.packet_id, reason, answers);
        connection.lent.counts().sent(Label::PubRel);
        Ok(())
    }

    /// Answered under the identifier it came with (`[MQTT-2.2.1-5]`). The messages gathered so far need not go
    /// first: each PUBREL has its own identifier, noted when its PUBLISH was taken.
    fn pubrel(&mut self, ack: &Ack<'_>) -> Result<(), Close> {
        let connection = &mut *self.connection;
        let reason = connection.own_and_keep(self.now, |session| session.handle_pubrel(ack.packet_id))?;
        encode::encode_ack(
            PacketType::PubComp,
            connection.version,
            ack.packet_id,
            reason,
            &mut connection.answers,
        );
        connection.lent.counts().sent(Label::PubComp);
        Ok(())
    }

    fn disconnect(&self, disconnect: &Disconnect<'_>) -> Close {
        if !is_of_a_client(disconnect.reason) {
            // [MQTT-3.14.2-1]
            return Close::Violation(ReasonCode::ProtocolError, "a Reason Code that only a Server sends");
        }
        if disconnect.properties.server_reference().is_some() {
            return Close::Violation(ReasonCode::ProtocolError, "a Server Reference from a client");
        }
        if let Some(seconds) = disconnect.properties.session_expiry_interval() {
            let changed = match self.connection.own() {
                Ok(mut state) => state.session.change_expiry(seconds),
                Err(close) => return close,
            };
            if let Err(reason) = changed {
                return Close::Violation(reason, "a Session Expiry Interval where CONNECT had none");
            }
        }
        // [MQTT-3.14.4-3]: only 0x00 takes the Will back.
        let normal = disconnect.reason == ReasonCode::Success;
        Close::Client(if normal { Ending::Normal } else { Ending::WithWill })
    }

    /// One SUBACK (`[MQTT-3.8.4-1]`) with the identifier of the SUBSCRIBE (`[MQTT-3.8.4-2]`) for all its filters, each
    /// taken as if it came alone (`[MQTT-3.8.4-5]`): a Reason Code for each (`[MQTT-3.8.4-6]`), in their order
    /// (`[MQTT-3.9.3-1]`).
    fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Close> {
        self.flush();
        let id = subscribe.properties.subscription_identifiers().next();
        let mut replays = Vec::new();
        let mut reasons = SmallVec::new();
        for entry in &subscribe.filters {
            let qos = entry.options.qos;
            let answer = self.subscribe_one(entry, id, &mut replays);
            let answer = answer.map(|reason| self.sayable(reason, qos));
            let reason = answer.as_ref().map_or_else(Close::reason, |reason| Some(*reason));
            let Connection { broker, publisher, .. } = &*self.connection;
            let told = reason.unwrap_or(ReasonCode::UnspecifiedError);
            broker.trace_subscribe(&publisher.identity, entry.filter, qos, told, self.now);
            reasons.push(answer?);
        }
        let text = reasons.iter().find_map(|reason| reasons::of_subscribe(*reason));
        self.answer(text, Label::SubAck, |properties| {
            Packet::SubAck(SubAck { packet_id: subscribe.packet_id, properties, reasons: reasons.clone() })
        })?;
        if !replays.is_empty() {
            self.connection.replays.get_or_insert_default().extend(replays);
        }
        Ok(())
    }

    /// A SUBACK of MQTT 3.1 has no failure: there a client is granted what it asked for and hears nothing (its
    /// section 3.8).
    fn sayable(&self, reason: ReasonCode, asked: QoS) -> ReasonCode {
        if self.connection.version != Version::V31 || !reason.is_error() {
            return reason;
        }
        ReasonCode::from_u8(asked.min(self.limits.server.max_qos) as u8).unwrap_or(ReasonCode::Success)
    }

    fn subscribe_one(
        &mut self,
        entry: &SubscribeFilter<'_>,
        id: Option<u32>,
        replays: &mut Vec<Replay>,
    ) -> Result<ReasonCode, Close> {
        let Ok(asked) = AskedFilter::parse(entry.filter) else { return Ok(ReasonCode::TopicFilterInvalid) };
        let parsed = match self.check_filter(&asked) {
            Ok(parsed) => parsed,
            Err(reason) => return Ok(reason),
        };
        if parsed.share.is_some() && entry.options.no_local {
            return Err(Close::Violation(ReasonCode::ProtocolError, "No Local on a Shared Subscription")); // [MQTT-3.8.3-4]
        }
        let request = Request::Subscribe { filter: entry.filter, qos: entry.options.qos };
        let identity = &self.connection.publisher.identity;
        if let Err(denied) = self.policy.authorize(identity, &request) {
            self.connection.broker.log_denied(identity, "subscribe", entry.filter, denied);
            if self.policy.deny_action == DenyAction::Disconnect {
                return Err(Close::Violation(ReasonCode::NotAuthorized, "not authorized to subscribe"));
            }
            return Ok(ReasonCode::NotAuthorized);
        }
        if asked.exclusive && !self.limits.exclusive_subscription {
            return Ok(ReasonCode::TopicFilterInvalid); // as EMQX
        }
        if self.connection.client.is_kept()
            && let Some(trouble) = self.connection.broker.trouble()
        {
            return Ok(outbox::reason_of(trouble));
        }
        let mut options = entry.options;
        // [MQTT-3.2.2-10]: asked for more than we do, it is granted what we do.
        options.qos = options.qos.min(self.limits.server.max_qos);
        if self.connection.publisher.identity.is_bridge && parsed.share.is_none() {
            // What 3.x cannot say: a bridge wants nothing back that it brought, and RETAIN as it was.
            options.no_local = true;
            options.retain_as_published = true;
        }
        let is_older = self.connection.version != Version::V5;
        options.no_local |= is_older && parsed.share.is_none() && self.limits.ignore_loop_deliver;
        let subscription = Subscription { options, id: id.and_then(NonZeroU32::new) };
        let connection = &mut *self.connection;
        let may_want = parsed.share.is_none() && options.retain_handling != RetainHandling::DoNotSend;
        let waiting = connection.replays.as_ref().map_or(0, |waiting| waiting.len());
        if may_want && waiting + replays.len() >= REPLAYS_MAX {
            return Ok(ReasonCode::QuotaExceeded);
        }
        let Some(is_new) =
            connection.broker.subscribe(&connection.client, connection.epoch, &parsed, &asked, subscription)
        else {
            return Ok(ReasonCode::QuotaExceeded);
        };
        let wants_retained = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true, // [MQTT-3.3.1-9], [MQTT-3.8.4-4]
            RetainHandling::SendIfNew => is_new,     // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false,      // [MQTT-3.3.1-11]
        };
        if wants_retained && parsed.share.is_none() {
            replays.push(Replay::new(parsed.filter, options.qos, id));
        }
        // [MQTT-3.8.4-7]
        Ok(ReasonCode::from_u8(options.qos as u8).unwrap_or(ReasonCode::Success))
    }

    /// Whether the filter is one, and one we offer.
    fn check_filter<'f>(&self, asked: &'f AskedFilter<'_>) -> Result<ParsedFilter<'f>, ReasonCode> {
        let parsed = asked.parsed().map_err(|_| ReasonCode::TopicFilterInvalid)?;
        let server = &self.limits.server;
        if parsed.filter.bytes().filter(|byte| *byte == b'/').count() >= self.limits.max_topic_levels {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if parsed.share.is_some() && !server.shared_subscription {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if !server.wildcard_subscription && topic::has_wildcard(parsed.filter) {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        Ok(parsed)
    }

    /// One UNSUBACK (`[MQTT-3.10.4-4]`) with the identifier of the UNSUBSCRIBE, also when nothing was deleted
    /// (`[MQTT-3.10.4-5]`), for all its filters as if each came alone (`[MQTT-3.10.4-6]`); its Reason Codes are in
    /// their order (`[MQTT-3.11.3-1]`). It has neither Reason String nor User Property (`[MQTT-3.11.2-1]`,
    /// `[MQTT-3.11.2-2]`).
    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), Close> {
        self.flush();
        let connection = &mut *self.connection;
        let mut reasons = SmallVec::new();
        for filter in &unsubscribe.filters {
            let asked = AskedFilter::parse(filter);
            let Some((plain, parsed)) =
                asked.as_ref().ok().and_then(|it| Some((&it.plain, it.parsed().ok()?)))
            else {
                reasons.push(ReasonCode::TopicFilterInvalid);
                continue;
            };
            let existed = connection.broker.unsubscribe(&connection.client, connection.epoch, &parsed, plain);
            if existed && parsed.share.is_none() {
                // [MQTT-3.10.4-2]: no further message is added, retained ones included.
                if let Some(waiting) = &mut connection.replays {
                    waiting.retain(|replay| replay.filter() != parsed.filter);
                }
            }
            let reason = if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            let Connection { broker, publisher, .. } = &*connection;
            broker.trace_unsubscribe(&publisher.identity, filter, reason, self.now);
            reasons.push(reason);
        }
        self.answer(None, Label::UnsubAck, |properties| {
            Packet::UnsubAck(UnsubAck {
                packet_id: unsubscribe.packet_id,
                properties,
                reasons: reasons.clone(),
            })
        })
    }

    /// Appends a SUBACK or UNSUBACK, which repeats the request's identifier (`[MQTT-2.2.1-6]`). One that the client would not take ends the connection: it must not be sent
    /// (`[MQTT-3.1.2-24]`), and a request must not stay without an answer.
    fn answer(
        &mut self,
        text: Option<&str>,
        label: Label,
        packet: impl Fn(Properties<'_>) -> Packet<'_>,
    ) -> Result<(), Close> {
        let connection = &mut *self.connection;
        let (strings, version) = (connection.reason_strings, connection.version);
        let start = connection.answers.len();
        if let Err(error) = strings.encode(text, version, &mut connection.answers, packet) {
            tracing::error!(client_id = &*connection.client.id, %error, "an answer could not be encoded");
            return Ok(());
        }
        if !strings.fits(connection.answers.len() - start) {
            connection.answers.truncate(start);
            return Err(Close::Violation(
                ReasonCode::PacketTooLarge,
                "the answer is larger than the client takes",
            ));
        }
        connection.lent.counts().sent(label);
        Ok(())
    }
}

/// The Reason Codes of a DISCONNECT that table 3-10 gives to clients.
fn is_of_a_client(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::DisconnectWithWillMessage
            | ReasonCode::UnspecifiedError
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::TopicNameInvalid
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::MessageRateTooHigh
            | ReasonCode::QuotaExceeded
            | ReasonCode::AdministrativeAction
            | ReasonCode::PayloadFormatInvalid
    )
}
