//! Drives one [`Replicator`]: its connection, its snapshots, its time.

use std::collections::HashMap;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use smallvec::SmallVec;
use tokio::task::JoinHandle;
use tokio::task::spawn_blocking;

use crate::broker::Broker;
use crate::broker::link::Replication;
use crate::broker::link::RouteSource;
use crate::broker::link::Snapshot;
use crate::broker::link::copies::Upkeep;
use crate::broker::link::digest;
use crate::broker::link::inbox::Taken;
use crate::broker::link::replicated;
use crate::broker::link::report::Report;
use crate::broker::link::report::Trouble;
use crate::broker::link::snapshot;
use crate::broker::link_client::Alarm;
use crate::broker::link_client::Dial;
use crate::broker::link_client::Dialer;
use crate::broker::link_client::Event;
use crate::broker::link_client::LinkClient;
use crate::broker::link_client::Lost;
use crate::broker::links::Link;
use crate::broker::routes;
use crate::link::extension::RouteDigest;
use crate::link::extension::Sent;
use crate::link::replicator::ControlPublish;
use crate::link::replicator::Output;
use crate::link::replicator::Problem;
use crate::link::replicator::Replicator;
use crate::link::replicator::State;
use crate::metrics::labels::ByteKind;
use crate::metrics::labels::Direction;
use crate::mqtt::encode::encode;
use crate::mqtt::packet::Packet;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::Publish;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Subscribe;
use crate::mqtt::packet::SubscribeFilter;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::packet::Version;
use crate::mqtt::property::Properties;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::property::Property;
use crate::mqtt::reason::ReasonCode;
use crate::net::clock;
use crate::net::random;
use crate::time::Now;

/// What an answer adds to its payload, beside its topic, generously.
const ANSWER_OVERHEAD: usize = 64;
/// Turns of one link before others get theirs.
const TURNS_MAX: usize = 16;

struct Driver {
    link: Arc<Link>,
    source: RouteSource,
    dialer: Dialer,
    replicator: Replicator,
    dialing: Option<Dial>,
    client: Option<LinkClient>,
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    snapshot: Option<JoinHandle<Snapshot>>,
    alarm: Alarm,
    next_id: u16,
    /// Packet Identifiers and tokens of what is not acknowledged: one operation, one heartbeat, one request.
    awaited: SmallVec<[(PacketId, u32); 3]>,
    subscribing: Option<PacketId>,
    /// Our routes are counted, for a report; and whether one of them has changed since that began.
    reporting: Option<(JoinHandle<RouteDigest>, bool)>,
    /// Copies of what the peer retains.
    upkeep: Upkeep,
    /// What we have said last that we sent.
    reported: Option<Sent>,
    /// The cause of the disconnection that the replicator is about to be told of.
    trouble: Option<Trouble>,
    report: Report,
    overflowed: bool,
    stop_ms: Option<u64>,
}

/// Replicates our routes to the peer of this link until the link is stopped.
///
/// Copies of what the peer retains are kept by `broker`, where the link says so.
pub async fn run(link: Arc<Link>, source: RouteSource, broker: Option<Arc<Broker>>) {
    let replication = &link.replication;
    let mut dialer = Dialer::new(Arc::clone(&link), &replication.client_id);
    if let Some(broker) = broker.as_ref().filter(|_| link.settings.retained) {
        // What may be published here may be a copy too.
        dialer = dialer.taking(broker.limits().of_a_peer().server.max_packet_size);
    }
    let answer_bytes_max = answer_bytes_max(&dialer, replication);
    let mut driver = Driver {
        replicator: Replicator::new(replication.config(answer_bytes_max), random::number()),
        upkeep: Upkeep::of(broker),
        dialer,
        source,
        link: Arc::clone(&link),
        dialing: None,
        client: None,
        closing: None,
        snapshot: None,
        alarm: Alarm::default(),
        next_id: 0,
        awaited: SmallVec::new(),
        subscribing: None,
        reporting: None,
        reported: None,
        trouble: None,
        report: Report::default(),
        overflowed: false,
        stop_ms: None,
    };
    replication.shared.lock().running = true;
    driver.replicator.start(clock::now());
    poll_fn(|cx| driver.poll(cx)).await;
    replication.shared.lock().running = false;
    if let Some(client) = driver.hang_up() {
        client.close().await;
    }
    if let Some(closing) = driver.closing.take() {
        closing.await;
    }
}

/// How long the payload of an answer may be.
fn answer_bytes_max(dialer: &Dialer, replication: &Replication) -> usize {
    let overhead = ANSWER_OVERHEAD + replication.response_topic.len();
    (dialer.packet_bytes_max() as usize).saturating_sub(overhead)
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        let polled = self.turns(cx, now);
        self.link.replication.note_incarnation(self.replicator.incarnation());
        let behind_ms = self.replicator.behind_since_ms().unwrap_or(u64::MAX);
        self.link.replication.behind_since_ms.store(behind_ms, Ordering::Relaxed);
        polled
    }

    fn turns(&mut self, cx: &mut Context<'_>, now: Now) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            self.take_changes(cx, now);
            let mut moved = self.poll_dial(cx, now);
            moved |= self.poll_snapshot(cx, now);
            moved |= self.poll_report(cx, now);
            moved |= self.poll_page(cx, now);
            self.upkeep.poll_sweep(cx, &self.link);
            moved |= self.poll_read(cx, now);
            moved |= self.poll_time(cx, now);
            moved |= self.drain(now);
            moved |= self.poll_write(cx, now);
            if self.closing.as_mut().is_some_and(|closing| closing.as_mut().poll(cx).is_ready()) {
                self.closing = None;
            }
            if self.is_over(now) {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self, now: Now) -> bool {
        let Some(stop_ms) = self.stop_ms else { return false };
        self.replicator.state() == State::Stopped || now.mono_ms >= stop_ms
    }

    /// Changes that come while a snapshot is taken wait until it was handed in.
    fn take_changes(&mut self, cx: &Context<'_>, now: Now) {
        let (stop_ms, taken, reassure, leave) = {
            let mut shared = self.link.replication.shared.lock();
            shared.listen(cx);
            let taken = self.snapshot.is_none().then(|| shared.inbox.take());
            (shared.stop_ms, taken, std::mem::take(&mut shared.reassure), shared.leave)
        };
        if leave {
            // The connection is closed then; what the peer knows stays known.
            self.stop_ms = Some(now.mono_ms);
        }
        if reassure {
            self.replicator.reassure(now);
        }
        if self.stop_ms.is_none() && stop_ms.is_some() {
            self.stop_ms = stop_ms;
            self.replicator.stop(now);
        }
        match taken {
            None => {}
            Some(Taken::Changes(changes)) => self.handle_changes(changes, now),
            Some(Taken::Overflowed) if self.stop_ms.is_some() => {}
            Some(Taken::Overflowed) => self.start_over(now),
        }
    }

    fn handle_changes(&mut self, changes: HashMap<routes::LocalRoute, bool>, now: Now) {
        let told = matches!(self.replicator.state(), State::Bootstrapping | State::Online);
        if let Some((_, changed)) = &mut self.reporting {
            *changed |= !changes.is_empty();
        }
        for (route, added) in changes {
            self.replicator.handle_route(now, &replicated(&route), !added);
            if !added {
                self.upkeep.gone(&self.link, &route);
            }
            if told {
                let Self { report, link, .. } = self;
                report.route(&route, added, &link.topics, &link.metrics);
            }
        }
    }

    /// Changes were lost: only a new incarnation makes the peer forget what we no longer want.
    fn start_over(&mut self, now: Now) {
        tracing::warn!(peer = self.link.peer(), "too many route changes at once: all routes are sent again");
        self.hang_up();
        self.overflowed = true;
        let replication = &self.link.replication;
        replication.note_incarnation(self.replicator.incarnation());
        let answer_bytes_max = answer_bytes_max(&self.dialer, replication);
        self.replicator = Replicator::new(replication.config(answer_bytes_max), random::number());
        self.replicator.start(now);
    }

    fn poll_dial(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(dial) = &mut self.dialing else { return false };
        let Poll::Ready(dialled) = dial.as_mut().poll(cx) else { return false };
        self.dialing = None;
        match dialled {
            Ok((client, accepted)) => {
                self.link.metrics.connections[Direction::Out].inc();
                self.client = Some(client);
                self.replicator.handle_connected(now, accepted.maximum_packet_size);
            }
            Err(error) => {
                let mut trouble = Trouble::from(&error);
                if let Some(server) = self.dialer.server() {
                    trouble.text = format!("{server}: {}", trouble.text);
                }
                self.trouble = Some(trouble);
                self.dialer.move_on();
                self.replicator.handle_disconnected(error.reason_code());
            }
        }
        true
    }

    fn poll_snapshot(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(handle) = &mut self.snapshot else { return false };
        let Poll::Ready(taken) = Pin::new(handle).poll(cx) else { return false };
        self.snapshot = None;
        match taken {
            Ok((routes, told)) => {
                let metrics = &self.link.metrics;
                if self.replicator.state() == State::Stopping {
                    self.report.withdrawn(&told, metrics);
                } else {
                    self.report.snapshot(told, metrics);
                }
                self.replicator.handle_snapshot(now, Box::new(routes.into_iter()));
            }
            Err(error) => {
                tracing::error!(peer = self.link.peer(), "no snapshot of our routes: {error}");
                self.hang_up();
                self.replicator.handle_disconnected(None);
            }
        }
        true
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Self { client: Some(client), replicator, awaited, subscribing, link, .. } = self else {
            return false;
        };
        let read = client.read(cx, now, |event| match event {
            Event::PubAck(ack) => {
                if let Some(index) = awaited.iter().position(|(id, _)| *id == ack.packet_id) {
                    let (_, token) = awaited.swap_remove(index);
                    link.metrics.last_success.set_ms(now.unix_ms);
                    replicator.handle_puback(now, token, ack.reason.as_u8());
                }
            }
            Event::SubAck(ack) => {
                if subscribing.take_if(|id| *id == ack.packet_id).is_some() {
                    let reason = ack.reasons.first().copied().unwrap_or(ReasonCode::UnspecifiedError);
                    replicator.handle_subscribed(now, reason.as_u8());
                }
            }
            Event::Publish(publish) => {
                if publish.topic == &*link.replication.response_topic {
                    replicator.handle_response(now, publish.properties.correlation_data(), publish.payload);
                }
            }
        });
        match read.and_then(|read| client.handle_timeout(now).map(|()| read)) {
            Ok(read) => read,
            Err(lost) => {
                self.lost(&lost);
                true
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(client) = &mut self.client else { return false };
        match client.write(cx, now) {
            Ok(wrote) => {
                client.rest();
                self.link.metrics.bytes[(Direction::Out, ByteKind::Wire)].add(wrote as u64);
                wrote > 0
            }
            Err(lost) => {
                self.lost(&lost);
                true
            }
        }
    }

    fn poll_time(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let silent_ms = self.client.as_ref().map(LinkClient::poll_timeout);
        let due_ms = [self.replicator.poll_timeout(), silent_ms, self.stop_ms].into_iter().flatten().min();
        if !self.alarm.poll(cx, due_ms, now) {
            return false;
        }
        self.replicator.handle_timeout(now);
        true
    }

    fn lost(&mut self, lost: &Lost) {
        if self.replicator.state() != State::Online {
            self.dialer.move_on();
        }
        self.trouble = Some(Trouble::from(lost));
        self.hang_up();
        self.replicator.handle_disconnected(lost.reason_code());
    }

    /// Forgets the connection; whoever wants to say goodbye takes it first.
    fn hang_up(&mut self) -> Option<LinkClient> {
        self.dialing = None;
        self.snapshot = None;
        self.awaited.clear();
        self.subscribing = None;
        self.reporting = None;
        self.upkeep.forget_page(&self.link);
        let client = self.client.take()?;
        self.link.metrics.connections[Direction::Out].dec();
        Some(client)
    }

    /// Does what the replicator wants; whether there was anything.
    fn drain(&mut self, now: Now) -> bool {
        let mut moved = false;
        while let Some(output) = self.replicator.poll_output() {
            moved = true;
            match output {
                Output::Connect => self.dialing = Some(self.dialer.dial()),
                Output::Subscribe { filter } => self.subscribe(&filter),
                Output::Publish(publish) => self.publish(&publish),
                Output::AskPage(publish) => {
                    self.link.incoming.copies.lock().ask();
                    self.publish(&publish);
                }
                Output::Page(page) => self.upkeep.apply(&self.link, *page),
                Output::RequestSnapshot => self.request_snapshot(),
                Output::RequestReport => self.request_report(),
                Output::RoundTrip { ms } => self.link.metrics.rtt.observe_ms(ms, 1),
                Output::Received(books) => {
                    if let Some(before) = &self.reported {
                        self.link.compare_books(before, &books, now);
                    }
                }
                Output::RoutesCompared { differ } => {
                    self.link.metrics.route_digest_mismatch.set(i64::from(differ));
                }
                Output::Close(problem) => {
                    if problem.is_some() {
                        self.dialer.move_on();
                    }
                    if let Some(client) = self.hang_up() {
                        self.closing = Some(Box::pin(client.close()));
                    }
                }
                Output::StateChanged(State::Disconnected) => self.disconnected(now),
                Output::StateChanged(state) => {
                    if state == State::Online {
                        *self.link.trouble.lock() = None;
                    }
                    if state == State::Bootstrapping {
                        self.link.agree(self.replicator.capabilities());
                        *self.link.peer_version.lock() = self.replicator.version().map(Into::into);
                        if self.link.replication.set_reach(self.replicator.reach()) {
                            self.link.reach_changed();
                        }
                        self.upkeep.accepted(&self.link, self.replicator.capabilities());
                    }
                    self.report.entered(state, self.link.peer(), &self.link.metrics);
                    self.link.note_state(now);
                }
            }
        }
        moved
    }

    fn disconnected(&mut self, now: Now) {
        let problem = self.replicator.problem();
        self.overflowed |= problem == Some(&Problem::Overflow);
        let trouble = self.trouble.take().or_else(|| problem.map(Trouble::from));
        let pause_ms = self.replicator.poll_timeout().map_or(0, |due| due.saturating_sub(now.mono_ms));
        if let Some(trouble) = trouble {
            *self.link.trouble.lock() = Some(trouble.text.clone());
            self.report.failed(trouble, pause_ms, self.link.peer(), &self.link.metrics);
            self.link.note_state(now);
        }
    }

    fn subscribe(&mut self, filter: &str) {
        let packet_id = self.packet_id();
        let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let mut filters = SmallVec::new();
        filters.push(SubscribeFilter { filter, options });
        self.subscribing = Some(packet_id);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    fn publish(&mut self, publish: &ControlPublish) {
        let packet_id = (publish.qos != QoS::AtMostOnce).then(|| self.packet_id());
        if let Some(id) = packet_id {
            self.awaited.push((id, publish.token));
        }
        let mut properties = PropertiesBuf::new();
        if let Some(topic) = &publish.response_topic {
            properties.push(Property::ResponseTopic(topic));
        }
        if let Some(data) = &publish.correlation_data {
            properties.push(Property::CorrelationData(data));
        }
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: publish.qos,
            retain: false,
            topic: &publish.topic,
            packet_id,
            properties: properties.as_properties(),
            payload: &publish.payload,
        }));
    }

    /// What cannot be written (a name longer than MQTT carries) is answered by nobody: the handshake times out.
    fn send(&mut self, packet: &Packet<'_>) {
        let Some(client) = &mut self.client else { return };
        if let Err(error) = encode(packet, Version::V5, client.buffer()) {
            tracing::error!(peer = self.link.peer(), "{} not sent: {error}", packet.packet_type().name());
        }
    }

    fn packet_id(&mut self) -> PacketId {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        PacketId::new(self.next_id).unwrap_or(PacketId::MIN)
    }

    fn request_snapshot(&mut self) {
        if self.replicator.state() == State::Bootstrapping {
            let overflowed = std::mem::take(&mut self.overflowed);
            self.report.bootstrap(self.replicator.incarnation(), overflowed, &self.link.metrics);
        }
        let (source, topics) = (Arc::clone(&self.source), self.link.topics.clone());
        self.snapshot = Some(spawn_blocking(move || snapshot(&*source, &topics)));
    }

    /// The next page is asked for once this one was applied.
    fn poll_page(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Poll::Ready((up_to, applied)) = self.upkeep.poll_page(cx, &self.link) else { return false };
        self.replicator.handle_applied(now, up_to, applied);
        true
    }

    fn request_report(&mut self) {
        let (source, topics) = (Arc::clone(&self.source), self.link.topics.clone());
        self.reporting = Some((spawn_blocking(move || digest(&*source, &topics)), false));
    }

    /// A report goes out once our routes are counted.
    fn poll_report(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some((handle, changed)) = &mut self.reporting else { return false };
        let Poll::Ready(counted) = Pin::new(handle).poll(cx) else { return false };
        let routes = counted.ok().filter(|_| !*changed);
        self.reporting = None;
        let books = self.link.sent();
        self.reported = Some(books);
        self.replicator.handle_report(now, books, routes);
        true
    }
}
