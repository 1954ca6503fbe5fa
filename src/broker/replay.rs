//! Retained messages on their way to a new subscription: a slice at a time, and only while the client takes
//! them, so that `#` over a million topics costs neither memory nor anybody else's time.

use std::collections::VecDeque;

use crate::acl::eval::Request;
use crate::broker::Broker;
use crate::broker::retained::Cursor;
use crate::mqtt::packet::QoS;
use crate::session::Session;
use crate::session::outbound;
use crate::session::queue::Owed;
use crate::session::tally::Tally;
use crate::time::Now;

/// Retained messages looked up at a time.
const SLICE: usize = 64;
/// Subscriptions of one connection whose retained messages are still under way; further ones are refused. One
/// burst may bring thousands, and a client that takes one message at a time needs long for them.
pub const REPLAYS_MAX: usize = 64 * 1024;

/// One subscription's retained messages.
#[derive(Debug)]
pub struct Replay {
    filter: Box<str>,
    granted: QoS,
    subscription_id: Option<u32>,
    cursor: Option<Cursor>,
    slice: VecDeque<Owed>,
    /// The slice could not be sent at once.
    waited: bool,
}

fn is_current(broker: &Broker, owed: &Owed, now: Now) -> bool {
    let topic = owed.message.view().topic;
    let held = broker.retained.get(topic, now.mono_ms);
    held.is_some_and(|held| held.is_same(&owed.message)) && !broker.retained.is_withheld(topic)
}

impl Replay {
    /// From the first matching topic on.
    #[must_use]
    pub fn new(filter: &str, granted: QoS, subscription_id: Option<u32>) -> Self {
        Self {
            filter: filter.into(),
            granted,
            subscription_id,
            cursor: Some(Cursor::default()),
            slice: VecDeque::new(),
            waited: false,
        }
    }

    /// Its Topic Filter.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// What the client asked for to get it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request::Subscribe { filter: &self.filter, qos: self.granted }
    }

    /// Looks up the next slice of the oldest subscription, if the last one is sent. Whether it did: then there may
    /// be more to do. Once a turn and without any client's lock: a filter may match nothing in a million topics.
    pub fn look_up_next(replays: &mut VecDeque<Self>, broker: &Broker, now: Now) -> bool {
        let Some(replay) = replays.front_mut().filter(|replay| replay.slice.is_empty()) else { return false };
        if !replay.look_up(broker, now) {
            replays.pop_front();
        }
        true
    }

    /// Sends as much of the oldest slice as the session takes.
    pub fn send_next(
        replays: &mut VecDeque<Self>,
        broker: &Broker,
        session: &mut Session,
        now: Now,
        tally: &mut Tally,
    ) {
        if let Some(replay) = replays.front_mut() {
            replay.send(broker, session, now, tally);
        }
    }

    /// Sends the slice as far as it goes. What was replaced while it waited is not sent: the newer message came
    /// live, and an older one must not follow it (`[MQTT-4.6.0-5]`).
    fn send(&mut self, broker: &Broker, session: &mut Session, now: Now, tally: &mut Tally) {
        while let Some(owed) = self.slice.pop_front() {
            if self.waited && !is_current(broker, &owed, now) {
                continue;
            }
            if let Some(owed) = session.offer(owed, now, tally) {
                self.slice.push_front(owed);
                self.waited = true;
                return;
            }
        }
    }

    /// Gets the next slice. Whether there was one.
    fn look_up(&mut self, broker: &Broker, now: Now) -> bool {
        let Some(cursor) = self.cursor.take() else { return false };
        let (granted, id) = (self.granted, self.subscription_id);
        let mut found = broker.retained.matching(&self.filter, cursor, SLICE, now.mono_ms);
        broker.retained.leave_out_withheld(&mut found.messages);
        self.slice.extend(found.messages.iter().map(|message| outbound::owe_retained(message, granted, id)));
        self.cursor = found.next;
        self.waited = false;
        !self.slice.is_empty() || self.cursor.is_some()
    }
}
