//! Subscriptions that come and go during a run: after a restart there are those that were acknowledged, and no others.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::smallvec;
use tombolo::mqtt::packet::Packet;
use tombolo::mqtt::packet::PacketType;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Subscribe;
use tombolo::mqtt::packet::SubscribeFilter;
use tombolo::mqtt::packet::Unsubscribe;
use tombolo::mqtt::property::Properties;

use crate::book;
use crate::book::Book;
use crate::book::Phase;
use crate::harness::Got;
use crate::harness::Q1;
use crate::harness::id;
use crate::harness::message;
use crate::harness::options;
use crate::line::Identity;
use crate::line::Line;
use crate::mutate::Dice;

/// How many filters there are to choose from.
const FILTERS: usize = 200;
/// How many subscriptions are asked for after each restart.
const PROBED: usize = 5;

/// Who subscribes and unsubscribes, and asks by publishing to itself.
pub(crate) struct Changes {
    pub(crate) who: Identity,
    pub(crate) book: Arc<Book>,
    pub(crate) dice: Dice,
    /// Which filters are subscribed to for certain, and which for certain not any more.
    settled: BTreeMap<usize, bool>,
    /// What was asked for and not acknowledged.
    asked: Option<(usize, bool)>,
    probes: usize,
    /// Probes that are to come back.
    awaited: BTreeSet<usize>,
    next_id: u16,
}

impl Changes {
    pub(crate) fn new(who: Identity, book: &Arc<Book>, dice: Dice) -> Self {
        Self {
            who,
            book: Arc::clone(book),
            dice,
            settled: BTreeMap::new(),
            asked: None,
            probes: 0,
            awaited: BTreeSet::new(),
            next_id: 0,
        }
    }

    /// Changes subscriptions until nothing new is published, then asks for all of them.
    pub(crate) async fn run(mut self) {
        loop {
            let (mut line, present) = self.who.connect().await;
            if !self.settled.is_empty() && !present {
                self.book.violation(format!("the session of {} is gone", self.who.id));
            }
            if self.go_on(&mut line).await.is_some() {
                return;
            }
        }
    }

    /// `None` when the connection is lost.
    async fn go_on(&mut self, line: &mut Line) -> Option<()> {
        for _ in 0..PROBED.min(self.settled.len()) {
            let at = self.dice.roll(self.settled.len());
            let number = *self.settled.keys().nth(at)?;
            self.probe(line, number).await?;
        }
        let mut phase = self.book.phase();
        while *phase.borrow() == Phase::Busy {
            self.change(line).await?;
            let until = self.book.acknowledged() + self.dice.roll(30) as u64;
            tokio::select! {
                () = self.book.until_acknowledged(until) => {}
                () = book::until(&mut phase, Phase::Draining) => {}
            }
        }
        for number in self.settled.keys().copied().collect::<Vec<_>>() {
            self.probe(line, number).await?;
        }
        while !self.awaited.is_empty() {
            let got = line.next().await;
            self.take(got, line)?;
        }
        line.flush().await;
        Some(())
    }

    /// Subscribes or unsubscribes, and asks whether that holds.
    async fn change(&mut self, line: &mut Line) -> Option<()> {
        let number = self.dice.roll(FILTERS);
        let wanted = !self.settled.get(&number).is_some_and(|subscribed| *subscribed);
        let (number, wanted) = *self.asked.get_or_insert((number, wanted));
        self.settled.remove(&number);
        let (filter, packet_id, properties) = (topic(number), id(self.fresh_id()), Properties::EMPTY);
        if wanted {
            let filters = smallvec![SubscribeFilter { filter: &filter, options: options(Q1) }];
            line.put(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        } else {
            let filters = smallvec![filter.as_str()];
            line.put(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
        }
        loop {
            match line.next().await {
                Got::SubAck(got, reasons) if wanted && got == packet_id.get() => assert_eq!(reasons, [1]),
                // It may have been gone already, when it is asked for again.
                Got::UnsubAck(got, reasons) if !wanted && got == packet_id.get() => {
                    assert!(reasons == [0x00] || reasons == [0x11], "{reasons:?}");
                }
                got => {
                    self.take(got, line)?;
                    continue;
                }
            }
            break;
        }
        self.asked = None;
        self.settled.insert(number, wanted);
        self.probe(line, number).await
    }

    /// Publishes to a filter: somebody subscribes to it, or nobody does.
    async fn probe(&mut self, line: &mut Line, number: usize) -> Option<()> {
        let (probe, packet_id) = (self.probes, self.fresh_id());
        self.probes += 1;
        let (topic, payload) = (topic(number), probe.to_string());
        line.put(&Packet::Publish(Publish {
            qos: Q1,
            packet_id: Some(id(packet_id)),
            ..message(&topic, payload.as_bytes())
        }));
        let is_subscribed = self.settled[&number];
        if is_subscribed {
            self.awaited.insert(probe);
        }
        loop {
            match line.next().await {
                Got::Ack(PacketType::PubAck, got, reason) if got == packet_id => {
                    if reason != if is_subscribed { 0x00 } else { 0x10 } {
                        let id = &self.who.id;
                        let what = format!("{id}: {topic} subscribed {is_subscribed}, PUBACK {reason:#04x}");
                        self.book.violation(what);
                        self.awaited.remove(&probe);
                    }
                    return Some(());
                }
                got => {
                    if self.take(got, line).is_none() {
                        // It is not acknowledged, and so not owed.
                        self.awaited.remove(&probe);
                        return None;
                    }
                }
            }
        }
    }

    fn take(&mut self, got: Got, line: &mut Line) -> Option<()> {
        match got {
            Got::Closed => None,
            Got::Publish(message) => {
                let probe: usize = message.text().parse().unwrap();
                assert!(probe < self.probes, "{message:?}");
                self.awaited.remove(&probe);
                line.put_ack(PacketType::PubAck, message.packet_id?);
                Some(())
            }
            other => panic!("{} does not expect {other:?}", self.who.id),
        }
    }

    fn fresh_id(&mut self) -> u16 {
        self.next_id = self.next_id % 1_000 + 1;
        self.next_id
    }
}

fn topic(number: usize) -> String {
    format!("s/{number}")
}
