//! Retained messages on their way to a new subscription: a slice at a time, and only while the client takes
//! them, so that `#` over a million topics costs neither memory nor anybody else's time.

use std::collections::VecDeque;

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
        }
    }

    /// Sends as much as the session takes, oldest subscription first.
    pub fn advance(
        replays: &mut VecDeque<Self>,
        broker: &Broker,
        session: &mut Session,
        now: Now,
        tally: &mut Tally,
    ) {
        while let Some(replay) = replays.front_mut() {
            if replay.send(session, now, tally) {
                return;
            }
            if !replay.look_up(broker, now) {
                replays.pop_front();
            }
        }
    }

    /// Sends the slice. Whether some of it has to wait.
    fn send(&mut self, session: &mut Session, now: Now, tally: &mut Tally) -> bool {
        while let Some(owed) = self.slice.pop_front() {
            if let Some(owed) = session.offer(owed, now, tally) {
                self.slice.push_front(owed);
                return true;
            }
        }
        false
    }

    /// Gets the next slice. Whether there was one.
    fn look_up(&mut self, broker: &Broker, now: Now) -> bool {
        let Some(cursor) = self.cursor.take() else { return false };
        let (granted, id) = (self.granted, self.subscription_id);
        let found = broker.retained.matching(&self.filter, cursor, SLICE, now.mono_ms);
        self.slice.extend(found.messages.iter().map(|message| outbound::owe_retained(message, granted, id)));
        self.cursor = found.next;
        !self.slice.is_empty() || self.cursor.is_some()
    }
}
