//! What both ends of a connection do: the drivers of the cores, in small.

use tombolo::link::compress::Inflater;
use tombolo::link::ingress;
use tombolo::link::ingress::ControlDecision;
use tombolo::link::ingress::ControlPublish;
use tombolo::link::ingress::IngressSession;
use tombolo::link::ingress::LinkView;
use tombolo::link::ingress::MessageDecision;
use tombolo::link::replicator::Output;
use tombolo::mqtt::packet::PacketId;
use tombolo::mqtt::packet::QoS;

use crate::network::Frame;
use crate::world::Connection;
use crate::world::World;
use crate::world::cluster;

/// The peer's Receive Maximum and Maximum Packet Size: small, so that they matter.
const RECEIVE_MAXIMUM: u16 = 5;
const MAXIMUM_PACKET_SIZE: u32 = 500;
/// Pause before a lane connects again.
const LANE_RECONNECT_MS: u64 = 700;

impl World {
    pub(crate) fn follow_outputs(&mut self, index: usize) {
        let now = self.now();
        while let Some(output) = self.directions[index].replicator.poll_output() {
            let delay = 1 + self.random.below(60);
            let direction = &mut self.directions[index];
            match output {
                Output::Connect if now.mono_ms < direction.partitioned_until_ms => {
                    direction.replicator.handle_disconnected(None);
                }
                Output::Connect => {
                    let mut connection = Connection::default();
                    connection.up.send(now.mono_ms, delay, Frame::Connect);
                    direction.control = Some(connection);
                }
                Output::Close(_) => direction.control = None,
                Output::RequestSnapshot => {
                    let routes = self.subscriptions[direction.from].clone();
                    direction.replicator.handle_snapshot(now, Box::new(routes.into_iter()));
                }
                Output::StateChanged(_) => {}
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

    pub(crate) fn send_up(&mut self, index: usize, delay: u64, frame: Frame) {
        if let Some(connection) = &mut self.directions[index].control {
            connection.up.send(self.now_ms, delay, frame);
        }
    }

    pub(crate) fn receive_control(&mut self, index: usize) {
        let now = self.now();
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
            let direction = &mut self.directions[index];
            match frame {
                Frame::ConnAck => direction.replicator.handle_connected(now, Some(MAXIMUM_PACKET_SIZE)),
                Frame::SubAck => direction.replicator.handle_subscribed(now, 1),
                Frame::PubAck { token, reason } => direction.replicator.handle_puback(now, token, reason),
                Frame::Response { correlation_data, payload } => {
                    direction.replicator.handle_response(now, Some(&correlation_data), &payload);
                }
                Frame::Disconnect(reason) => {
                    direction.control = None;
                    direction.replicator.handle_disconnected(Some(reason));
                }
                Frame::Broken => {
                    direction.control = None;
                    direction.replicator.handle_disconnected(None);
                }
                other => panic!("{other:?}"),
            }
            self.follow_outputs(index);
        }
    }

    /// The receiving cluster's side of a route replication connection.
    pub(crate) fn serve_control(&mut self, index: usize, frame: Frame) {
        let now = self.now();
        // Now and then an acknowledgement takes longer than anyone waits.
        let slow = if self.random.chance(2) { 7_000 } else { 0 };
        let delay = 1 + self.random.below(60) + slow;
        let direction = &mut self.directions[index];
        let (peer, own) = (cluster(direction.from), cluster(direction.to));
        let Some(connection) = &mut direction.control else { return };
        let Connection { down, server, .. } = connection;
        match frame {
            Frame::Connect => {
                *server = Some(IngressSession::default());
                down.send(now.mono_ms, delay, Frame::ConnAck);
            }
            Frame::Broken => *server = None,
            Frame::Subscribe => down.send(now.mono_ms, delay, Frame::SubAck),
            Frame::Control { token, payload, response_topic, correlation_data } => {
                let Some(session) = server else { return };
                let link = LinkView { peer: &peer, cluster: &own, enabled: true, topics: &direction.topics };
                let publish = ControlPublish {
                    peer: &peer,
                    response_topic: response_topic.as_deref(),
                    correlation_data: correlation_data.as_ref().map(|data| &data[..]),
                    payload: &payload,
                };
                let mut inflater = Inflater::default();
                let decision = ingress::control(
                    session,
                    Some(&link),
                    &mut direction.routes,
                    &mut inflater,
                    now,
                    publish,
                );
                let puback = |reason| Frame::PubAck { token, reason };
                match decision {
                    ControlDecision::Ack(reason) if token != 0 => {
                        down.send(now.mono_ms, delay, puback(reason))
                    }
                    ControlDecision::Ack(_) => {}
                    ControlDecision::Reply { payload, correlation_data, .. } => {
                        let response =
                            Frame::Response { correlation_data: correlation_data.to_vec(), payload };
                        // Either order is allowed.
                        let (first, second) = if token.is_multiple_of(2) {
                            (response, puback(0x10))
                        } else {
                            (puback(0x10), response)
                        };
                        down.send(now.mono_ms, delay, first);
                        down.send(now.mono_ms, delay, second);
                    }
                    ControlDecision::Disconnect(_) => {
                        *server = None;
                        down.send(now.mono_ms, delay, Frame::Disconnect(0x83));
                    }
                }
                direction.follow_changes();
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn connect_data(&mut self, index: usize) {
        let delay = 1 + self.random.below(60);
        let now_ms = self.now_ms;
        let direction = &mut self.directions[index];
        direction.data_retry_ms = now_ms + LANE_RECONNECT_MS;
        if now_ms >= direction.partitioned_until_ms {
            let mut connection = Connection::default();
            connection.up.send(now_ms, delay, Frame::Connect);
            direction.data = Some(connection);
        }
    }

    pub(crate) fn receive_data(&mut self, index: usize) {
        let now = self.now();
        while let Some(frame) =
            self.directions[index].data.as_mut().and_then(|connection| connection.up.receive(now.mono_ms))
        {
            self.serve_data(index, frame);
        }
        while let Some(frame) =
            self.directions[index].data.as_mut().and_then(|connection| connection.down.receive(now.mono_ms))
        {
            let direction = &mut self.directions[index];
            match frame {
                Frame::ConnAck => {
                    direction.lane.handle_connected(RECEIVE_MAXIMUM, Some(MAXIMUM_PACKET_SIZE));
                }
                Frame::PubAck { token, reason } => {
                    direction.lane.handle_ack(PacketId::new(token as u16).unwrap(), reason);
                }
                Frame::Broken => {
                    direction.data = None;
                    direction.lane.handle_disconnected();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The receiving cluster's side of a forwarding connection.
    pub(crate) fn serve_data(&mut self, index: usize, frame: Frame) {
        let now = self.now();
        let slow = if self.random.chance(2) { 3_000 } else { 0 };
        let delay = 1 + self.random.below(40) + slow;
        let back = self.directions.iter().position(|other| {
            (other.from, other.to) == (self.directions[index].to, self.directions[index].from)
        });
        let topics = self.directions[back.unwrap()].topics.clone();
        let direction = &mut self.directions[index];
        let Some(Connection { down, server, .. }) = &mut direction.data else { return };
        match frame {
            Frame::Connect => {
                *server = Some(IngressSession::default());
                down.send(now.mono_ms, delay, Frame::ConnAck);
            }
            Frame::Broken => *server = None,
            Frame::Message { packet_id, dup, payload } => {
                if server.is_none() {
                    return;
                }
                let link = LinkView { peer: "", cluster: "", enabled: true, topics: &topics };
                let mut inflater = Inflater::default();
                let MessageDecision::Deliver(message) =
                    ingress::message(Some(&link), &mut inflater, now, &payload)
                else {
                    panic!("every message is wanted")
                };
                if message.qos == QoS::AtLeastOnce {
                    let sequence: u64 = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                    if direction.arrived.contains(&sequence) {
                        assert!(dup, "what comes again is marked");
                    } else {
                        direction.arrived.push(sequence);
                    }
                }
                if let Some(id) = packet_id {
                    down.send(now.mono_ms, delay, Frame::PubAck { token: u32::from(id), reason: 0x10 });
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Sends what the window has room for.
    pub(crate) fn pump(&mut self, index: usize) {
        let now = self.now();
        let direction = &mut self.directions[index];
        let mut frames = Vec::new();
        while let Some(sent) = direction.lane.next_to_send(now) {
            let packet_id = sent.packet_id.map(PacketId::get);
            frames.push(Frame::Message { packet_id, dup: sent.dup, payload: sent.payload.to_vec() });
        }
        assert!(direction.lane.in_flight() <= usize::from(RECEIVE_MAXIMUM));
        for frame in frames {
            let delay = 1 + self.random.below(40);
            let connection = self.directions[index].data.as_mut().unwrap();
            connection.up.send(now.mono_ms, delay, frame);
        }
    }
}
