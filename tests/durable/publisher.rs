//! A publisher with a session that stays: what was not acknowledged it sends again, as MQTT has it ([MQTT-4.4.0-1]).

use std::collections::VecDeque;
use std::sync::Arc;

use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::QoS;

use crate::book::Book;
use crate::book::Phase;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::id;
use crate::harness::message;
use crate::ledger::payload;
use crate::line::Identity;
use crate::line::Line;
use crate::mutate::Dice;

/// One retained message in so many removes what is retained.
pub(crate) const REMOVES_EVERY: usize = 7;

/// What a publisher does.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) who: Identity,
    pub(crate) book: Arc<Book>,
    pub(crate) qos: QoS,
    pub(crate) streams: Vec<usize>,
    pub(crate) retain: bool,
    /// Messages in flight.
    pub(crate) window: usize,
    pub(crate) dice: Dice,
}

/// A message that was sent and is not acknowledged to the end.
#[derive(Debug, Clone, Copy)]
struct Flight {
    packet_id: u16,
    stream: usize,
    number: usize,
    /// PUBREC came: it belongs to the broker, and PUBREL is owed.
    is_released: bool,
}

/// What a publisher knows of its session.
struct Session {
    task: Publisher,
    flights: VecDeque<Flight>,
    last_id: u16,
    /// The broker has acknowledged something, and with it that there is a session.
    is_known: bool,
}

/// The payload of a message: a retained one may be empty.
pub(crate) fn content(stream: usize, number: usize, retain: bool) -> Vec<u8> {
    if retain && number % REMOVES_EVERY == REMOVES_EVERY - 1 { Vec::new() } else { payload(stream, number) }
}

impl Publisher {
    /// Publishes until nothing new is to be, and everything is acknowledged.
    pub(crate) async fn run(self) {
        let mut session = Session { task: self, flights: VecDeque::new(), last_id: 0, is_known: false };
        loop {
            let (mut line, present) = session.task.who.connect().await;
            if session.is_known && !present {
                let id = &session.task.who.id;
                session.task.book.violation(format!("the session of {id} is gone"));
            }
            session.resume(&mut line);
            if session.go_on(&mut line).await {
                return;
            }
        }
    }
}

impl Session {
    /// Sends again what was not acknowledged, in order ([MQTT-4.6.0-1]).
    fn resume(&self, line: &mut Line) {
        for flight in self.flights.clone() {
            if flight.is_released {
                line.put_ack(PacketType::PubRel, flight.packet_id);
            } else {
                self.send(flight, true, line);
            }
        }
    }

    /// Publishes until the connection is lost; or to the end, which is told.
    async fn go_on(&mut self, line: &mut Line) -> bool {
        let (mut phase, mut receptions) = (self.task.book.phase(), self.task.book.receptions());
        loop {
            let is_over = *phase.borrow_and_update() != Phase::Busy;
            receptions.mark_unchanged();
            let is_busy = !is_over && !self.task.book.is_behind();
            while is_busy && self.flights.len() < self.task.window {
                let flight = self.begin();
                self.send(flight, false, line);
            }
            if is_over && self.flights.is_empty() {
                return true;
            }
            let got = tokio::select! {
                got = line.next() => got,
                _ = phase.changed() => continue,
                _ = receptions.changed(), if self.flights.is_empty() => continue,
            };
            match got {
                Got::Closed => return false,
                Got::Ack(kind, packet_id, reason) => self.take(kind, packet_id, reason, line),
                other => panic!("{} does not expect {other:?}", self.task.who.id),
            }
        }
    }

    fn begin(&mut self) -> Flight {
        let stream = self.task.streams[self.task.dice.roll(self.task.streams.len())];
        let number = self.task.book.with(|ledger| ledger.next(stream));
        // Few of them, so that they come again soon.
        let ids = (self.task.window * 2 + 1) as u16;
        while self.last_id == 0 || self.flights.iter().any(|flight| flight.packet_id == self.last_id) {
            self.last_id = self.last_id % ids + 1;
        }
        let flight = Flight { packet_id: self.last_id, stream, number, is_released: false };
        self.last_id = self.last_id % ids + 1;
        self.flights.push_back(flight);
        flight
    }

    fn send(&self, flight: Flight, dup: bool, line: &mut Line) {
        let topic = self.task.book.with(|ledger| {
            ledger.sent(flight.stream, flight.number);
            ledger.topic(flight.stream).to_owned()
        });
        let payload = content(flight.stream, flight.number, self.task.retain);
        line.put(&Packet::Publish(Publish {
            dup,
            qos: self.task.qos,
            retain: self.task.retain,
            packet_id: Some(id(flight.packet_id)),
            ..message(&topic, &payload)
        }));
    }

    fn take(&mut self, kind: PacketType, packet_id: u16, reason: u8, line: &mut Line) {
        match kind {
            // Acknowledgements come in the order of the messages ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
            PacketType::PubAck if self.task.qos == Q1 => {
                let flight = self.flights.pop_front().filter(|flight| flight.packet_id == packet_id);
                let Some(flight) = flight else { return self.unexpected(kind, packet_id) };
                self.acknowledged(flight, reason);
            }
            PacketType::PubRec if self.task.qos == Q2 => {
                let first = self.flights.iter_mut().find(|flight| !flight.is_released);
                let Some(flight) = first.filter(|flight| flight.packet_id == packet_id) else {
                    return self.unexpected(kind, packet_id);
                };
                flight.is_released = true;
                let flight = *flight;
                self.acknowledged(flight, reason);
                line.put_ack(PacketType::PubRel, packet_id);
            }
            // 0x92 after a PUBREL that was sent again: the first one was handled, and its answer lost.
            PacketType::PubComp if self.task.qos == Q2 && matches!(reason, 0x00 | 0x92) => {
                let of = |flight: &Flight| flight.packet_id == packet_id && flight.is_released;
                match self.flights.iter().position(of) {
                    Some(at) => drop(self.flights.remove(at)),
                    None => self.unexpected(kind, packet_id),
                }
            }
            _ => self.unexpected(kind, packet_id),
        }
    }

    fn acknowledged(&mut self, flight: Flight, reason: u8) {
        self.is_known = true;
        self.task.book.acknowledge(flight.stream, flight.number, reason);
    }

    fn unexpected(&self, kind: PacketType, packet_id: u16) {
        let (id, flights) = (&self.task.who.id, &self.flights);
        self.task.book.violation(format!("{id} did not wait for {kind:?} of {packet_id}: {flights:?}"));
    }
}
