//! What both ends of a connection do: the drivers of the cores, in small.

use tombolo::link::extension::Capabilities;
use tombolo::link::extension::RouteDigest;
use tombolo::link::ingress;
use tombolo::link::ingress::ControlDecision;
use tombolo::link::ingress::ControlPublish;
use tombolo::link::ingress::HeartbeatReport;
use tombolo::link::ingress::LinkView;
use tombolo::link::ingress::MessageDecision;
use tombolo::link::lane::Hold;
use tombolo::link::message::Forwarded;
use tombolo::link::payload;
use tombolo::link::payload::Control;
use tombolo::link::payload::HeartbeatAck;
use tombolo::link::replicator::Output;
use tombolo::mqtt::packet::PacketId;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::topic;

use crate::emqx::Answer;
use crate::network::Frame;
use crate::world::Connection;
use crate::world::Direction;
use crate::world::LANES;
use crate::world::Receiver;
use crate::world::Sender;
use crate::world::Served;
use crate::world::World;
use crate::world::cluster;

/// The peer's Receive Maximum and Maximum Packet Size: small, so that they matter.
const RECEIVE_MAXIMUM: u16 = 5;
const MAXIMUM_PACKET_SIZE: u32 = 500;
/// Pause before a lane connects again.
const LANE_RECONNECT_MS: u64 = 700;

/// What a message says of itself: its cluster, its publisher and which of its messages it is.
fn numbers(message: &Forwarded<'_>) -> [u64; 3] {
    let text = std::str::from_utf8(&message.payload).unwrap();
    [0, 1, 2].map(|part| text.split(':').nth(part).unwrap().parse().unwrap())
}

impl World {
    pub(crate) fn follow_outputs(&mut self, index: usize) {
        let now = self.now_at(self.directions[index].from);
        loop {
            let direction = &mut self.directions[index];
            let output = match &mut direction.sender {
                Sender::Ours(replicator) => replicator.poll_output(),
                Sender::Emqx(sender) => sender.poll_output(),
            };
            let Some(output) = output else { return };
            let delay = 1 + self.random.below(60);
            match output {
                Output::Connect if now.mono_ms < direction.partitioned_until_ms => {
                    match &mut direction.sender {
                        Sender::Ours(replicator) => replicator.handle_disconnected(None),
                        Sender::Emqx(sender) => sender.handle_disconnected(),
                    }
                }
                Output::Connect => {
                    let mut connection = Connection::default();
                    connection.up.send(now.mono_ms, delay, Frame::Connect);
                    direction.control = Some(connection);
                }
                Output::Close(_) => direction.control = None,
                Output::RequestSnapshot => {
                    let routes = self.clusters[direction.from].subscriptions.clone().into_iter();
                    match &mut direction.sender {
                        Sender::Ours(replicator) => replicator.handle_snapshot(now, Box::new(routes)),
                        Sender::Emqx(sender) => sender.handle_snapshot(now, routes),
                    }
                }
                Output::StateChanged(_) | Output::RoundTrip { .. } => {}
                Output::AskPage(_) | Output::Page(_) => panic!("nobody here says `retained`"),
                Output::RequestReport => self.report(index),
                Output::Received(books) => {
                    let life = self.clusters[direction.from].life;
                    let after = direction.sent(life);
                    let unaccounted = direction.balance.compare(&direction.reported, &books, &after);
                    assert_eq!(unaccounted, 0, "{:?} {books:?} {after:?}", direction.reported);
                }
                Output::RoutesCompared { differ } => assert!(!differ, "the peer knows other routes"),
                Output::Subscribe { .. } => self.send_up(index, delay, Frame::Subscribe),
                Output::Publish(publish) => {
                    assert!(publish.payload.len() < MAXIMUM_PACKET_SIZE as usize);
                    self.send_up(
                        index,
                        delay,
                        Frame::Control {
                            token: publish.token,
                            payload: publish.payload,
                            response_topic: publish.response_topic,
                            correlation_data: publish.correlation_data,
                        },
                    );
                }
            }
        }
    }

    /// What has become of our messages, and which routes were told.
    fn report(&mut self, index: usize) {
        let now = self.now_at(self.directions[index].from);
        let direction = &mut self.directions[index];
        let cluster = &self.clusters[direction.from];
        let mut digest = RouteDigest::default();
        for key in cluster.subscriptions.iter().flat_map(|route| direction.topics.routes(route)) {
            digest.add(key.topic.as_bytes(), key.id.as_bytes());
        }
        direction.reported = direction.sent(cluster.life);
        if let Sender::Ours(replicator) = &mut direction.sender {
            replicator.handle_report(now, direction.reported, Some(digest));
        }
    }

    fn send_up(&mut self, index: usize, delay: u64, frame: Frame) {
        if let Some(connection) = &mut self.directions[index].control {
            connection.up.send(self.now_ms, delay, frame);
        }
    }

    pub(crate) fn receive_control(&mut self, index: usize) {
        let now = self.now_at(self.directions[index].from);
        while let Some(frame) =
            self.directions[index].control.as_mut().and_then(|connection| connection.up.receive(now.mono_ms))
        {
            self.serve_control(index, frame);
        }
        while let Some(frame) = self.directions[index]
            .control
            .as_mut()
            .and_then(|connection| connection.down.receive(now.mono_ms))
        {
            self.hear(index, frame);
            self.follow_outputs(index);
        }
    }

    /// The dialling side's end of route replication.
    fn hear(&mut self, index: usize, frame: Frame) {
        let now = self.now_at(self.directions[index].from);
        let direction = &mut self.directions[index];
        if let Frame::Disconnect(_) | Frame::Broken = frame {
            direction.control = None;
        }
        match &mut direction.sender {
            Sender::Ours(replicator) => match frame {
                Frame::ConnAck => replicator.handle_connected(now, Some(MAXIMUM_PACKET_SIZE)),
                Frame::SubAck => replicator.handle_subscribed(now, 1),
                Frame::PubAck { token, reason } => replicator.handle_puback(now, token, reason),
                Frame::Response { correlation_data, payload } => {
                    replicator.handle_response(now, Some(&correlation_data), &payload);
                }
                Frame::Disconnect(reason) => replicator.handle_disconnected(Some(reason)),
                Frame::Broken => replicator.handle_disconnected(None),
                other => panic!("{other:?}"),
            },
            Sender::Emqx(sender) => match frame {
                Frame::ConnAck => sender.handle_connected(now),
                Frame::SubAck => sender.handle_subscribed(now),
                Frame::PubAck { token, reason } => sender.handle_puback(now, token, reason),
                Frame::Response { payload, .. } => sender.handle_response(now, &mut self.inflater, &payload),
                Frame::Disconnect(_) | Frame::Broken => sender.handle_disconnected(),
                other => panic!("{other:?}"),
            },
        }
    }

    /// The receiving cluster's side of a route replication connection.
    fn serve_control(&mut self, index: usize, frame: Frame) {
        let now = self.now_at(self.directions[index].to);
        // Now and then an acknowledgement takes longer than anyone waits.
        let slow = if self.random.chance(2) { 7_000 } else { 0 };
        let delay = 1 + self.random.below(60) + slow;
        let direction = &mut self.directions[index];
        let Some(connection) = &mut direction.control else { return };
        match frame {
            Frame::Connect => {
                connection.server = Some(Served::default());
                connection.down.send(now.mono_ms, delay, Frame::ConnAck);
            }
            Frame::Broken => connection.server = None,
            Frame::Subscribe => connection.down.send(now.mono_ms, delay, Frame::SubAck),
            Frame::Control { token, payload, response_topic, correlation_data } => {
                if connection.server.is_none() {
                    return;
                }
                let data = correlation_data.as_ref().map(|data| &data[..]);
                let answer = self.control(index, response_topic.as_deref(), data, &payload);
                let Some(connection) = &mut self.directions[index].control else { return };
                let puback = |reason| Frame::PubAck { token, reason };
                match answer {
                    Answer::Ack if token != 0 => connection.down.send(now.mono_ms, delay, puback(0x10)),
                    Answer::Ack => {}
                    Answer::Reply(payload) => {
                        let correlation_data = correlation_data.map(|data| data.to_vec()).unwrap_or_default();
                        let response = Frame::Response { correlation_data, payload };
                        // Either order is allowed.
                        let (first, second) = if token.is_multiple_of(2) {
                            (response, puback(0x10))
                        } else {
                            (puback(0x10), response)
                        };
                        connection.down.send(now.mono_ms, delay, first);
                        connection.down.send(now.mono_ms, delay, second);
                    }
                    Answer::Disconnect => {
                        connection.server = None;
                        connection.down.send(now.mono_ms, delay, Frame::Disconnect(0x83));
                    }
                }
                self.directions[index].follow_changes();
            }
            other => panic!("{other:?}"),
        }
    }

    fn control(
        &mut self,
        index: usize,
        response_topic: Option<&str>,
        correlation_data: Option<&[u8]>,
        payload: &[u8],
    ) -> Answer {
        let now = self.now_at(self.directions[index].to);
        let direction = &mut self.directions[index];
        let (peer, own) = (cluster(direction.from), cluster(direction.to));
        let server = direction.control.as_mut().and_then(|connection| connection.server.as_mut()).unwrap();
        let routes = match &mut direction.receiver {
            Receiver::Ours(routes) => routes,
            Receiver::Emqx(store) => {
                return store.control(&mut server.emqx, &mut self.inflater, now, payload);
            }
        };
        let link = LinkView {
            peer: &peer,
            cluster: &own,
            enabled: true,
            topics: &direction.topics,
            capabilities: Capabilities::OURS,
            demanded: Capabilities::NONE,
            reach: &[],
            qos: None,
        };
        let publish = ControlPublish { peer: &peer, response_topic, correlation_data, payload };
        if let Ok(Control::Route(update)) = payload::parse_control(self.inflater.open(payload).unwrap())
            && let Sender::Ours(replicator) = &direction.sender
        {
            direction.told |= update.is_last && update.incarnation == replicator.incarnation();
        }
        match ingress::control(&mut server.ours, Some(&link), routes, &mut self.inflater, now, publish) {
            ControlDecision::Ack(reason) => {
                assert_eq!(reason, 0x10, "nobody has more routes than it is granted");
                Answer::Ack
            }
            ControlDecision::Reply { payload, .. } => Answer::Reply(payload),
            ControlDecision::Report(report) => {
                let HeartbeatReport { actor, incarnation, routes, .. } = report;
                let mut payload = Vec::new();
                let books = Some(direction.received);
                let ack = HeartbeatAck { actor: &actor, incarnation, books, routes };
                payload::put_heartbeat_ack(&mut payload, &ack);
                Answer::Reply(payload)
            }
            ControlDecision::Page(order) => panic!("nobody here says `retained`: {order:?}"),
            ControlDecision::Disconnect(_) => Answer::Disconnect,
        }
    }

    pub(crate) fn connect_data(&mut self, index: usize, lane: usize) {
        let delay = 1 + self.random.below(60);
        let now_ms = self.now_ms;
        let direction = &mut self.directions[index];
        direction.lanes[lane].retry_ms = now_ms + LANE_RECONNECT_MS;
        if now_ms >= direction.partitioned_until_ms {
            direction.lanes[lane].doubted_ms = Some(now_ms);
            let mut connection = Connection::default();
            connection.up.send(now_ms, delay, Frame::Connect);
            direction.lanes[lane].connection = Some(connection);
        }
    }

    pub(crate) fn receive_data(&mut self, index: usize, lane: usize) {
        let now_ms = self.now_ms;
        while let Some(frame) = self.directions[index].lanes[lane]
            .connection
            .as_mut()
            .and_then(|connection| connection.up.receive(now_ms))
        {
            self.serve_data(index, lane, frame);
        }
        let Direction { lanes, spooled, .. } = &mut self.directions[index];
        let data = &mut lanes[lane];
        while let Some(frame) =
            data.connection.as_mut().and_then(|connection| connection.down.receive(now_ms))
        {
            match frame {
                Frame::ConnAck => data.lane.handle_connected(RECEIVE_MAXIMUM, Some(MAXIMUM_PACKET_SIZE)),
                Frame::PubAck { token, reason } => {
                    data.lane.handle_ack(PacketId::new(token as u16).unwrap(), reason);
                    spooled.iter_mut().for_each(|disk| disk.settle(&mut data.lane));
                }
                Frame::Broken => {
                    data.connection = None;
                    data.lane.handle_disconnected();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The receiving cluster's side of a forwarding connection.
    fn serve_data(&mut self, index: usize, lane: usize, frame: Frame) {
        let now = self.now_at(self.directions[index].to);
        let slow = if self.random.chance(2) { 3_000 } else { 0 };
        let delay = 1 + self.random.below(40) + slow;
        let direction = &mut self.directions[index];
        let Some(Connection { down, server, .. }) = &mut direction.lanes[lane].connection else { return };
        match frame {
            Frame::Connect => {
                *server = Some(Served::default());
                down.send(now.mono_ms, delay, Frame::ConnAck);
                direction.seen.place(&lane.to_string(), now);
                // A cluster of ours says at once that it is there.
                let back = self.back(index);
                let there = self.now_at(self.directions[back].from);
                if let Sender::Ours(replicator) = &mut self.directions[back].sender {
                    replicator.reassure(there);
                    self.follow_outputs(back);
                }
            }
            Frame::Broken => {
                *server = None;
                direction.seen.watch(now);
            }
            Frame::Message { packet_id, dup, payload } => {
                if server.is_none() {
                    return;
                }
                self.take_message(index, lane, dup, &payload);
                let Some(connection) = &mut self.directions[index].lanes[lane].connection else { return };
                if let Some(id) = packet_id {
                    let puback = Frame::PubAck { token: u32::from(id), reason: 0x10 };
                    connection.down.send(now.mono_ms, delay, puback);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn take_message(&mut self, index: usize, lane: usize, dup: bool, payload: &[u8]) {
        let now = self.now_at(self.directions[index].to);
        let topics = self.directions[self.back(index)].topics.clone();
        let link = LinkView {
            peer: "",
            cluster: "",
            enabled: true,
            topics: &topics,
            capabilities: Capabilities::OURS,
            demanded: Capabilities::NONE,
            reach: &[],
            qos: None,
        };
        let decision = ingress::plain_message(Some(&link), now, payload, "");
        let MessageDecision::Deliver(message) = decision else { panic!("every message is wanted") };
        if message.qos == QoS::AtMostOnce {
            let [_, publisher, number] = numbers(&message);
            let fired = &mut self.directions[index].flows[publisher as usize].fired;
            assert!(fired.last().is_none_or(|last| *last < number), "QoS 0: {number} after {fired:?}");
            fired.insert(number);
            return;
        }
        let ours = self.clusters[self.directions[index].to].emqx.is_none();
        let direction = &mut self.directions[index];
        if ours {
            if dup {
                direction.seen.watch(now);
            }
            direction.seen.rest(now);
            let place = direction.seen.place(&lane.to_string(), now);
            if !direction.seen.is_new(place, message.id) {
                direction.received.repeated += 1;
                return;
            }
            direction.received.received += 1;
            if let Some(disk) = &mut direction.noted {
                disk.note_seen(&mut direction.seen, place);
            }
        }
        self.deliver(index, &message, ours);
    }

    /// What a subscriber sees.
    fn deliver(&mut self, index: usize, message: &Forwarded<'_>, once: bool) {
        let told = self.directions[self.back(index)].told;
        let known = self.directions[self.back(index)].mirror_before.iter();
        let was_wanted = known.clone().any(|filter| topic::matches(filter, message.topic));
        let life = self.clusters[self.directions[index].to].life;
        let held = self.clusters[self.directions[index].from].emqx.is_none();
        let direction = &mut self.directions[index];
        let (from, to) = (direction.from, direction.to);
        let text = std::str::from_utf8(&message.payload).unwrap();
        let [origin, publisher, number] = numbers(message);
        assert_eq!(origin, from as u64, "what came over a link goes no further");
        let flow = &mut direction.flows[publisher as usize];
        let earlier = flow.owed.iter().any(|owed| owed.number == number && owed.life < life);
        if held && earlier && was_wanted {
            assert!(told, "{to} began anew and got {text} before it had said what it wants");
        }
        let again = flow.fresh.contains(&number);
        assert!(!(once && again), "{to} got {text} twice");
        if !again {
            let last = flow.fresh.last().copied();
            assert!(last.is_none_or(|last| last < number), "{to} got {text} after {last:?}");
            flow.fresh.insert(number);
        }
        flow.arrived.insert(number);
    }

    /// Sends what the windows have room for, unless it has to wait for the peer to say who it is.
    pub(crate) fn pump(&mut self, index: usize) {
        let back = self.back(index);
        let standing = match &self.directions[back].receiver {
            Receiver::Ours(routes) => routes.standing(),
            // EMQX sends at once.
            Receiver::Emqx(_) => {
                tombolo::link::remote_routes::Standing { must_wait: false, confirmed_ms: u64::MAX }
            }
        };
        let ours = self.clusters[self.directions[index].from].emqx.is_none();
        let now = self.now_at(self.directions[index].from);
        for lane in 0..LANES {
            let Direction { lanes, spooled, .. } = &mut self.directions[index];
            let data = &mut lanes[lane];
            data.doubted_ms = data.doubted_ms.filter(|dialled_ms| standing.confirmed_ms < *dialled_ms);
            let hold = if data.doubted_ms.is_some() { Hold::Doubt } else { Hold::None };
            data.lane.hold(if standing.must_wait { Hold::Wait } else { hold });
            let mut frames = Vec::new();
            loop {
                while let Some(sent) = data.lane.next_to_send(now) {
                    let packet_id = sent.packet_id.map(PacketId::get);
                    // EMQX does not mark what it sends again over another connection.
                    frames.push((packet_id, sent.dup && ours, sent.message().to_vec()));
                }
                if !spooled.as_mut().is_some_and(|disk| disk.load(&mut data.lane, now)) {
                    break;
                }
            }
            assert!(data.lane.in_flight() <= usize::from(RECEIVE_MAXIMUM));
            for (packet_id, dup, payload) in frames {
                let delay = 1 + self.random.below(40);
                // Over the same connection it does, when an acknowledgement takes long.
                let twice = !ours && packet_id.is_some() && self.random.chance(3);
                let connection = self.directions[index].lanes[lane].connection.as_mut().unwrap();
                let again = twice.then(|| Frame::Message { packet_id, dup: true, payload: payload.clone() });
                connection.up.send(now.mono_ms, delay, Frame::Message { packet_id, dup, payload });
                if let Some(again) = again {
                    connection.up.send(now.mono_ms, delay + 20, again);
                }
            }
        }
    }
}
