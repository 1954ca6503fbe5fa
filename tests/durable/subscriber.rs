//! A subscriber with a session that stays, who comes and goes, and remembers of QoS 2 what it has to.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::smallvec;
use tokio::sync::watch;
use tombolo::mqtt::packet::Disconnect;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::QoS;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::property::Properties;
use tombolo::mqtt::reason::ReasonCode;

use crate::book::Book;
use crate::book::Phase;
use crate::harness::Got;
use crate::harness::Message;
use crate::harness::Q1;
use crate::harness::id;
use crate::harness::options;
use crate::line::Identity;
use crate::line::Line;
use crate::mutate::Dice;

/// Acknowledgements that are held back at most: fewer than may be in flight.
const HELD_MAX: usize = 8;

/// When a QoS 2 message is handed on (figure 4.3 of the standard).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// With PUBREL; until then it is kept.
    A,
    /// At once; its Packet Identifier is kept until PUBREL.
    B,
}

/// What a subscriber does.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) who: Identity,
    pub(crate) book: Arc<Book>,
    pub(crate) receiver: usize,
    pub(crate) filter: &'static str,
    pub(crate) qos: QoS,
    pub(crate) method: Method,
    /// It goes away once in about so many messages; 0 for never.
    pub(crate) restless: usize,
    pub(crate) dice: Dice,
    /// How many subscribers have had their SUBACK.
    pub(crate) ready: Arc<watch::Sender<usize>>,
}

/// What a subscriber knows of its session.
struct Session {
    task: Subscriber,
    /// Packet Identifiers of QoS 2 messages that wait for PUBREL, by method A with their message.
    unreleased: HashMap<u16, Option<Message>>,
    is_subscribed: bool,
}

/// Why a connection ended.
enum End {
    Lost,
    Left,
    Done,
}

impl Subscriber {
    /// Takes everything until the run ends.
    pub(crate) async fn run(self) {
        let mut session = Session { task: self, unreleased: HashMap::new(), is_subscribed: false };
        // A connection that is still open when the next one takes over.
        let mut former = None;
        loop {
            let (mut line, present) = session.task.who.connect().await;
            drop(former.take());
            if session.is_subscribed && !present {
                let id = &session.task.who.id;
                session.task.book.violation(format!("the session of {id} is gone"));
            }
            if !session.is_subscribed {
                session.subscribe(&mut line);
            }
            match session.go_on(&mut line).await {
                End::Lost => {}
                End::Left => former = session.leave(line).await,
                End::Done => return,
            }
        }
    }
}

impl Session {
    fn subscribe(&self, line: &mut Line) {
        line.put(&Packet::Subscribe(Subscribe {
            packet_id: id(1),
            properties: Properties::EMPTY,
            filters: smallvec![SubscribeFilter { filter: self.task.filter, options: options(self.task.qos) }],
        }));
    }

    async fn go_on(&mut self, line: &mut Line) -> End {
        let mut phase = self.task.book.phase();
        let mut held = Vec::new();
        loop {
            let now = *phase.borrow_and_update();
            let is_eager = now != Phase::Busy || held.len() >= HELD_MAX || self.task.dice.roll(3) == 0;
            if is_eager {
                held.drain(..).for_each(|(kind, packet_id)| line.put_ack(kind, packet_id));
            }
            if now == Phase::Ending {
                return self.finish(line).await;
            }
            if now == Phase::Busy && self.is_subscribed && self.is_leaving() {
                return End::Left;
            }
            let got = tokio::select! {
                got = line.next() => got,
                _ = phase.changed() => continue,
            };
            match got {
                Got::Closed => return End::Lost,
                got => held.extend(self.take(got)),
            }
        }
    }

    fn is_leaving(&mut self) -> bool {
        self.task.restless != 0 && self.task.dice.roll(self.task.restless) == 0
    }

    /// What is to be answered.
    fn take(&mut self, got: Got) -> Option<(PacketType, u16)> {
        match got {
            Got::Publish(message) if message.qos == Q1 => {
                self.task.book.receive(self.task.receiver, &message);
                Some((PacketType::PubAck, message.packet_id?))
            }
            Got::Publish(message) => {
                let packet_id = message.packet_id?;
                if !self.unreleased.contains_key(&packet_id) {
                    let is_kept = self.task.method == Method::A;
                    if !is_kept {
                        self.task.book.receive(self.task.receiver, &message);
                    }
                    self.unreleased.insert(packet_id, is_kept.then_some(message));
                }
                Some((PacketType::PubRec, packet_id))
            }
            Got::Ack(PacketType::PubRel, packet_id, 0) => {
                if let Some(Some(message)) = self.unreleased.remove(&packet_id) {
                    self.task.book.receive(self.task.receiver, &message);
                }
                Some((PacketType::PubComp, packet_id))
            }
            Got::SubAck(1, reasons) => {
                assert_eq!(reasons, [self.task.qos as u8], "{}", self.task.who.id);
                self.is_subscribed = true;
                self.task.ready.send_modify(|count| *count += 1);
                None
            }
            other => panic!("{} does not expect {other:?}", self.task.who.id),
        }
    }

    /// Goes away in one of four ways, until some messages are acknowledged or none are to be any more.
    async fn leave(&mut self, mut line: Line) -> Option<Line> {
        let way = self.task.dice.roll(4);
        if way == 0 {
            return Some(line);
        }
        if way == 1 {
            let properties = Properties::EMPTY;
            line.put(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties }));
        }
        line.flush().await;
        drop(line);
        let book = Arc::clone(&self.task.book);
        let until = book.acknowledged() + self.task.dice.roll(self.task.restless * 2) as u64;
        let mut phase = book.phase();
        tokio::select! {
            () = book.until_acknowledged_or_behind(until) => {}
            () = crate::book::until(&mut phase, Phase::Draining) => {}
        }
        None
    }

    /// Ends what is in the middle of something; there is nothing else.
    async fn finish(&mut self, line: &mut Line) -> End {
        loop {
            let (got, is_open) = line.drain().await;
            let count = got.len();
            for answer in got.into_iter().filter_map(|got| self.take(got)) {
                line.put_ack(answer.0, answer.1);
            }
            match (is_open, count) {
                (false, _) => return End::Lost,
                (true, 0) => return End::Done,
                (true, _) => {}
            }
        }
    }
}
