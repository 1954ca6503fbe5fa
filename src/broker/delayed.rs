//! EMQX's delayed publish: `$delayed/{seconds}/{topic}` is published as `topic` after so many seconds, or at that
//! second of the Unix clock when the number is that large. The ACL is asked about the inner topic twice: when the
//! message comes (`acl-language.md` section 2) and when it is published. `$LINK/` inside never gets here:
//! confinement refuses it. Messages wait in memory, and are stored as far as anything is (`broker::keep`).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::identity::Identity;
use crate::broker::shared::ClientKey;
use crate::session::message::Message;
use crate::time::Now;

/// What a delayed publish begins with.
pub const PREFIX: &str = "$delayed/";
/// The longest delay in seconds; larger numbers are moments. EMQX's maximum.
const SECONDS_MAX: u64 = 4_294_967;
/// Messages that may wait.
const MESSAGES_MAX: usize = 100_000;
/// Bytes of their topics, properties and payloads.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A delayed publish taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay<'a> {
    /// When to publish, on the monotonic clock.
    pub due_mono_ms: u64,
    /// Where to.
    pub topic: &'a str,
}

impl<'a> Delay<'a> {
    /// Takes a Topic Name apart that begins with [`PREFIX`]; `None` when the rest makes no sense.
    #[must_use]
    pub fn parse(topic: &'a str, now: Now) -> Option<Self> {
        let (number, topic) = topic.strip_prefix(PREFIX)?.split_once('/')?;
        if topic.is_empty() || topic.starts_with(PREFIX) || !number.bytes().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        let delay_ms = if number < SECONDS_MAX {
            number * 1000
        } else {
            let delay_ms = number.checked_mul(1000)?.saturating_sub(now.unix_ms);
            if delay_ms > SECONDS_MAX * 1000 {
                return None;
            }
            delay_ms
        };
        Some(Self { due_mono_ms: now.mono_ms + delay_ms, topic })
    }
}

/// One message that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The message, with its inner topic.
    pub message: Message,
    /// Who published it.
    pub identity: Arc<Identity>,
    /// The publisher's session.
    pub key: ClientKey,
    /// Under which it is stored; 0 if it is not.
    pub number: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// By moment and order of arrival.
    waiting: BTreeMap<(u64, u64), Waiting>,
    bytes: usize,
    sequence: u64,
}

/// The messages that wait for their moment.
#[derive(Debug, Default)]
pub struct DelayedMessages {
    inner: Mutex<Inner>,
}

impl DelayedMessages {
    /// Adds a message. Whether there was room.
    pub fn insert(&self, due_mono_ms: u64, waiting: Waiting) -> bool {
        let mut inner = self.inner.lock();
        let bytes = inner.bytes + waiting.message.len();
        if inner.waiting.len() >= MESSAGES_MAX || bytes > BYTES_MAX {
            return false;
        }
        inner.bytes = bytes;
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.waiting.insert((due_mono_ms, sequence), waiting);
        true
    }

    /// Bytes of what waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Takes out messages whose moment has come, at most `count`, in order.
    pub fn take_due(&self, now: Now, count: usize) -> Vec<Waiting> {
        let mut inner = self.inner.lock();
        let mut due = Vec::new();
        while due.len() < count && inner.waiting.first_key_value().is_some_and(|(at, _)| at.0 <= now.mono_ms)
        {
            let Some((_, waiting)) = inner.waiting.pop_first() else { break };
            inner.bytes -= waiting.message.len();
            due.push(waiting);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_seconds_or_moments() {
        let now = Now { mono_ms: 5_000, unix_ms: 1_700_000_000_000 };
        let due = |topic| Delay::parse(topic, now).map(|delay| (delay.due_mono_ms, delay.topic));
        let table = [
            ("$delayed/0/a", Some((5_000, "a"))),
            ("$delayed/5/a/b", Some((10_000, "a/b"))),
            ("$delayed/4294966//a", Some((4_294_971_000, "/a"))),
            ("$delayed/1700000010/a", Some((15_000, "a"))),
            ("$delayed/4294967/a", Some((5_000, "a"))), // a moment long past
            ("$delayed/1704294967/a", Some((4_294_972_000, "a"))),
            ("$delayed/1704294968/a", None),
            ("$delayed/18446744073709551615/a", None),
            ("$delayed/99999999999999999999/a", None),
            ("$delayed/+5/a", None),
            ("$delayed/-5/a", None),
            ("$delayed//a", None),
            ("$delayed/x/a", None),
            ("$delayed/5/", None),
            ("$delayed/5", None),
            ("$delayed/5/$delayed/5/a", None),
        ];
        for (topic, expected) in table {
            assert_eq!(due(topic), expected, "{topic}");
        }
    }
}
