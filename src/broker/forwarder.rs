//! Messages on their way to one linked cluster (`link-protocol.md` 6): each is encoded once, straight into the
//! spool of a lane, by the publisher's own task; the lanes' drivers (`driver`) send them. A publisher always
//! gets the same lane, so that its messages stay in order.

mod driver;
pub mod kept;
mod ledger;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Waker;

use parking_lot::Mutex;
use rapidhash::v3::rapidhash_v3;

use crate::broker::delivery::Reached;
use crate::broker::delivery::Source;
use crate::broker::forwarder::ledger::Ledger;
use crate::broker::identity::Identity;
use crate::broker::link_inspect::LaneView;
use crate::config::settings;
use crate::config::settings::Export;
use crate::link::bounds::QosBounds;
use crate::link::compress::COMPRESS_BYTES_MIN;
use crate::link::compress::Deflater;
use crate::link::extension::Sent;
use crate::link::lane::Hold;
use crate::link::lane::Keep;
use crate::link::lane::Lane;
use crate::link::lane::LaneConfig;
use crate::link::lane::OnFull;
use crate::link::lane::Pushed;
use crate::link::lane::SpoolBudget;
use crate::link::lane::lane_of;
use crate::link::message;
use crate::link::message::Envelope;
use crate::link::message::MessageProperties;
use crate::link::message::Outgoing;
use crate::link::name;
use crate::link::relay;
use crate::link::remote_routes::Standing;
use crate::link::seen::SEEN_MAX;
use crate::metrics::LinkMetrics;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::mqtt::packet::QoS;
use crate::mqtt::property::Properties;
use crate::mqtt::property::Property;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::topic;
use crate::net::random;
use crate::session::message::Publication;
use crate::storage::store::Store;
use crate::time::Now;
use crate::trust::rights::TopicGrant;

pub use crate::broker::forwarder::driver::run_lane;

/// One lane with what its driver and the publishers share.
#[derive(Debug)]
struct LaneState {
    lane: Lane,
    /// zlib's memory, on first use.
    deflater: Option<Deflater>,
    /// What the messages of a run have in common.
    envelope: Envelope,
    ledger: Ledger,
    /// When its connection was dialled, if the peer has said nothing since.
    doubted_ms: Option<u64>,
    /// The driver, while it waits.
    waker: Option<Waker>,
    /// Nothing new is taken; what is there may go until this moment, in monotonic milliseconds.
    stop_ms: Option<u64>,
}

impl LaneState {
    /// Has this task woken when something is pushed to the lane, or it is stopped.
    fn listen(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn hold(&mut self, standing: Standing) {
        self.doubted_ms = self.doubted_ms.filter(|dialled_ms| standing.confirmed_ms < *dialled_ms);
        let hold = if self.doubted_ms.is_some() { Hold::Doubt } else { Hold::None };
        self.lane.hold(if standing.must_wait { Hold::Wait } else { hold });
    }

    fn report(&mut self, metrics: &LinkMetrics) {
        self.ledger.report(&self.lane, metrics);
    }

    /// Spools a message like that which the envelope describes.
    fn spool(&mut self, now: Now, publisher: u32, qos: QoS, id: [u8; 16], payload: &[u8]) -> Pushed {
        let mut raw = 0;
        // Compression costs the publisher's turn more than all else; it is worth that once the link is behind.
        let behind = self.lane.queued() > 0;
        let (envelope, deflater) = (&mut self.envelope, &mut self.deflater);
        let pushed = self.lane.push_packet(publisher, now, qos, |out, _| {
            let start = out.len() + envelope.message_at();
            envelope.put(out, id, payload);
            raw = out.len() - start;
            if behind && raw >= COMPRESS_BYTES_MIN {
                deflater.get_or_insert_with(Deflater::default).shrink(out, start, COMPRESS_BYTES_MIN);
            }
        });
        if pushed == Pushed::Spooled {
            self.ledger.raw_bytes += raw as u64;
        }
        pushed
    }
}

/// See the module.
#[derive(Debug)]
pub struct Forwarder {
    lanes: Box<[Mutex<LaneState>]>,
    /// Where the lanes keep what they have.
    store: Option<Arc<Store>>,
    export: Export,
    /// Up to which QoS: what is published at more goes at this.
    qos: Option<QosBounds>,
    metrics: Arc<LinkMetrics>,
    /// With `sequence` it makes message ids that no other process makes.
    process: u64,
    sequence: AtomicU64,
    /// What was known of the peer last.
    standing: Mutex<Standing>,
}

impl Forwarder {
    /// Empty lanes without connections; a disabled link has no lanes at all. What they get outlives the process if there is a
    /// store.
    #[must_use]
    pub fn new(
        settings: &settings::Link,
        cluster: &str,
        metrics: Arc<LinkMetrics>,
        store: Option<Arc<Store>>,
    ) -> Self {
        let topic: Arc<str> = name::message_topic(cluster).into();
        let config = LaneConfig {
            max_inflight: settings.max_inflight,
            // A receiver of ours remembers so many of each of its peer's connections.
            window_max: u16::try_from(SEEN_MAX / settings.pool_size.max(1)).unwrap_or(u16::MAX),
            topic: Arc::clone(&topic),
            max_age_ms: settings.spool.max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            on_full: match settings.spool.on_full {
                settings::OnFull::DropOldest => OnFull::DropOldest,
                settings::OnFull::DropNew => OnFull::DropNew,
                settings::OnFull::Refuse => OnFull::Refuse,
            },
            qos0: settings.spool.qos0,
            keep: None,
        };
        let budget = SpoolBudget::new(settings.spool.max_bytes);
        let count = if settings.enable { settings.pool_size } else { 0 };
        let link: Arc<str> = settings.name.as_str().into();
        let keep = |index: usize| {
            let numbers = store.as_ref().map(|store| Arc::clone(store.numbers()))?;
            Some(Keep::new(Arc::clone(&link), index as u16, count as u16, numbers))
        };
        let lane = |index| LaneState {
            lane: Lane::new(LaneConfig { keep: keep(index), ..config.clone() }, Arc::clone(&budget)),
            deflater: None,
            envelope: Envelope::default(),
            ledger: Ledger::default(),
            doubted_ms: None,
            waker: None,
            stop_ms: None,
        };
        Self {
            lanes: (0..count).map(|index| Mutex::new(lane(index))).collect(),
            store,
            export: settings.exports(),
            qos: settings.granted.as_ref().and_then(|granted| bounds(&granted.export)),
            metrics,
            process: random::number(),
            sequence: AtomicU64::new(0),
            standing: Mutex::default(),
        }
    }

    /// How many lanes there are, each with a driver of its own.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Spools a run of one publisher's messages: one lock, at most one wake-up. What the link drops for reasons
    /// of its own is taken and counted; a stopped or disabled link and a topic that is not exported reach
    /// nobody. The indices of messages that a full spool refused are added to `refused`.
    pub fn push_run(
        &self,
        publications: &[Publication<'_>],
        source: Source<'_>,
        now: Now,
        refused: &mut Vec<usize>,
    ) -> Reached {
        // What came by a link is never forwarded (`link-protocol.md` 6.1).
        let Source::Client(identity, key) = source else { return Reached::Nobody };
        let publisher = key.0 as u32;
        let Some(lane) = lane_of(publisher, self.lanes.len()) else { return Reached::Nobody };
        let mut sequence = self.sequence.fetch_add(publications.len() as u64, Ordering::Relaxed);
        let (mut taken, mut run) = (false, Alike::default());
        let mut locked = self.lock(lane, now);
        let state = &mut *locked.state;
        if state.stop_ms.is_some() {
            return Reached::Nobody;
        }
        let was_empty = state.lane.queued() == 0;
        for (index, publication) in publications.iter().enumerate() {
            sequence += 1;
            if !run.goes_on(publication) && !self.begin(&mut run, state, publication, identity, now) {
                continue;
            }
            let id = self.message_id(sequence, now);
            match state.spool(now, publisher, run.qos, id, publication.payload) {
                Pushed::Refused => refused.push(index),
                Pushed::Spooled | Pushed::Dropped(_) => taken = true,
            }
        }
        // Without a connection, or while the lane is held, the driver has nothing to do with it but to see that the first
        // of it does not get too old, and does not report it.
        let wakes = state.lane.is_open() || was_empty && state.lane.poll_timeout().is_some();
        if !state.lane.is_open() {
            state.report(&self.metrics);
        }
        locked.settle();
        let waker = if wakes { self.waker(&mut locked.state) } else { None };
        drop(locked);
        if let Some(waker) = waker {
            waker.wake();
        }
        if taken { Reached::Somebody } else { Reached::Nobody }
    }

    /// Describes the next messages of a publisher, which are like this one. `false` if it is not forwarded, which is
    /// counted.
    fn begin<'a>(
        &self,
        run: &mut Alike<'a>,
        state: &mut LaneState,
        publication: &'a Publication<'a>,
        identity: &Identity,
        now: Now,
    ) -> bool {
        run.last = None;
        if !self.exports(publication.topic) {
            self.metrics.messages_dropped[(Direction::Out, LinkDropReason::Filter)].inc();
            return false;
        }
        let Some(mut message) = outgoing(publication, identity, now) else {
            self.metrics.messages_dropped[(Direction::Out, LinkDropReason::Expired)].inc();
            return false;
        };
        message.qos = self.bounded(message.topic, message.qos);
        if !std::mem::replace(&mut run.addressed, true) {
            state.envelope.address(&message);
        }
        state.envelope.describe(&message, state.lane.head(message.qos));
        (run.last, run.qos) = (Some(publication), message.qos);
        true
    }

    /// Spools a message of another cluster, which came through these. Those of one publisher stay in order.
    pub fn push_passed_on(&self, message: &Outgoing<'_>, path: &[&str], now: Now) -> Reached {
        let publisher = rapidhash_v3(message.from.unwrap_or_default().as_bytes()) as u32;
        let Some(lane) = lane_of(publisher, self.lanes.len()) else { return Reached::Nobody };
        let mut locked = self.lock(lane, now);
        let state = &mut *locked.state;
        if state.stop_ms.is_some() {
            return Reached::Nobody;
        }
        if !self.exports(message.topic) {
            self.metrics.messages_dropped[(Direction::Out, LinkDropReason::Filter)].inc();
            return Reached::Nobody;
        }
        let bounded = self.bounded(message.topic, message.qos);
        if bounded == message.qos {
            state.lane.push_from(publisher, now, bounded, |out| relay::put(out, message, path));
        } else {
            let message = Outgoing { qos: bounded, ..message.clone() };
            state.lane.push_from(publisher, now, bounded, |out| relay::put(out, &message, path));
        }
        if !state.lane.is_open() {
            state.report(&self.metrics);
        }
        locked.settle();
        let waker = self.waker(&mut locked.state);
        drop(locked);
        if let Some(waker) = waker {
            waker.wake();
        }
        Reached::Somebody
    }

    /// Holds back what is spooled, or lets it go on, by what is known of the peer now. The caller sees to it that no two
    /// calls cross.
    pub fn hold(&self, standing: Standing) {
        if std::mem::replace(&mut *self.standing.lock(), standing) == standing {
            return;
        }
        for lane in &self.lanes {
            let waker = {
                let mut state = lane.lock();
                state.hold(standing);
                if state.lane.is_held() { None } else { state.waker.take() }
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// A lane has a connection that was dialled at this moment, in monotonic milliseconds. It may lead to a peer that has
    /// begun anew: nothing is sent before it has said so, or that it has not.
    pub fn doubt(&self, index: usize, dialled_ms: u64, standing: Standing) {
        let mut state = self.lanes[index].lock();
        state.doubted_ms = Some(dialled_ms);
        state.hold(standing);
    }

    /// Whether any lane is held back.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lanes.iter().any(|lane| lane.lock().lane.is_held())
    }

    /// Ends every lane: what is spooled may still go until `deadline_ms`, then it is dropped and counted.
    pub fn stop(&self, deadline_ms: u64) {
        for lane in &self.lanes {
            let waker = {
                let mut state = lane.lock();
                state.stop_ms.get_or_insert(deadline_ms);
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// What an operator sees of the lanes, in their order.
    #[must_use]
    pub fn view(&self, now: Now) -> Vec<LaneView> {
        let view = |lane: &Mutex<LaneState>| {
            let lane = &lane.lock().lane;
            LaneView {
                connected: lane.is_connected(),
                queued: lane.queued(),
                in_flight: lane.in_flight(),
                bytes: lane.bytes(),
                oldest_age_ms: lane.oldest_age_ms(now),
                counters: *lane.counters(),
                unaccounted: lane.unaccounted(),
            }
        };
        self.lanes.iter().map(view).collect()
    }

    /// What became of the messages that this link was given, for the peer to compare.
    #[must_use]
    pub fn books(&self) -> Sent {
        let mut books = Sent::default();
        for lane in &self.lanes {
            let lane = &lane.lock().lane;
            let counters = lane.counters();
            let uncertain = lane.uncertain() as u64;
            books.acknowledged += counters.acked + counters.failed;
            books.fired += counters.fired;
            books.in_flight += uncertain;
            books.queued += (lane.queued() + lane.in_flight()) as u64 - uncertain;
            for (all, dropped) in books.dropped.iter_mut().zip(counters.dropped) {
                *all += dropped;
            }
        }
        books
    }

    /// Whether the peer may have messages to this topic.
    #[must_use]
    pub fn exports(&self, name: &str) -> bool {
        match &self.export {
            _ if name::is_reserved(name) => false,
            Export::Entitled => true,
            Export::Only(filters) => filters.iter().any(|filter| topic::matches(filter, name)),
        }
    }

    /// At which QoS a message goes: a grant bounds it as that of a subscription does.
    pub(super) fn bounded(&self, name: &str, qos: QoS) -> QoS {
        self.qos.as_ref().map_or(qos, |bounds| qos.min(bounds.most(name)))
    }

    /// Our clock counts milliseconds: the sequence goes on in the microseconds.
    fn message_id(&self, sequence: u64, now: Now) -> [u8; 16] {
        let micros = now.unix_ms.saturating_mul(1000) + (sequence >> 16) % 1000;
        message::message_id(micros, self.process, sequence as u16)
    }
}

/// Up to which QoS messages that these grants match cross; `None` where no grant bounds it.
pub(super) fn bounds(grants: &[TopicGrant]) -> Option<QosBounds> {
    let most = |grant: &TopicGrant| QoS::from_u8(grant.qos_max).unwrap_or(QoS::ExactlyOnce);
    QosBounds::of(grants.iter().map(|grant| (grant.filter.as_str(), most(grant))))
}

/// Messages of one publisher that are alike, as far as they have come.
#[derive(Default)]
struct Alike<'a> {
    /// The envelope is made out to the publisher.
    addressed: bool,
    /// What the envelope describes.
    last: Option<&'a Publication<'a>>,
    /// At which QoS it goes.
    qos: QoS,
}

impl Alike<'_> {
    /// Whether this one differs in nothing but its payload.
    fn goes_on(&self, publication: &Publication<'_>) -> bool {
        self.last.is_some_and(|last| {
            std::ptr::eq(last.topic, publication.topic)
                && last.qos == publication.qos
                && last.retain == publication.retain
                && last.properties.is_empty()
                && publication.properties.is_empty()
                && last.expiry.is_none()
                && publication.expiry.is_none()
        })
    }
}

/// What is to be told of the message, but for its id; `None` if its Message Expiry Interval has passed.
fn outgoing<'a>(publication: &'a Publication<'_>, identity: &'a Identity, now: Now) -> Option<Outgoing<'a>> {
    let mut properties = properties(publication.properties);
    if let Some(expiry) = publication.expiry {
        // What is left of it, since the timestamp is of this moment.
        properties.message_expiry_interval = Some(expiry.remaining_seconds(now)?);
    }
    Some(Outgoing {
        id: [0; 16],
        qos: publication.qos,
        from: Some(&identity.client_id),
        username: identity.username.as_deref(),
        peer: identity.peer.socket().map(|address| address.ip()),
        retain: publication.retain,
        topic: publication.topic,
        payload: publication.payload,
        timestamp_ms: now.unix_ms,
        properties,
    })
}

/// The properties that cross a link.
pub(super) fn properties(bytes: &[u8]) -> MessageProperties<'_> {
    let mut found = MessageProperties::default();
    if bytes.is_empty() {
        return found;
    }
    // They were checked when they came in; what could not be read would have no meaning to the peer either.
    for property in Properties::parse(bytes, PropertyContext::Publish).unwrap_or_default().iter() {
        match property {
            Property::PayloadFormatIndicator(indicator) => found.payload_format_indicator = Some(indicator),
            Property::ContentType(content_type) => found.content_type = Some(content_type),
            Property::ResponseTopic(topic) => found.response_topic = Some(topic),
            Property::CorrelationData(data) => found.correlation_data = Some(data),
            Property::UserProperty(key, value) => found.user_properties.push((key, value)),
            _ => {}
        }
    }
    found
}
