//! Topic Aliases towards one client (MQTT 5.0 section 3.3.2.3.4): which Topic Names get one on this connection.
//! It is part of a connection's output and ends with it, so no alias of an old connection can be used
//! (`[MQTT-3.3.2-7]`).
//!
//! Bounded in number and bytes. A topic is worth an alias when it comes for the second time; an alias passes to
//! another topic only after it lay idle for a while, so that a client with more topics than aliases gets
//! plain frames, which are shared, instead of ever new aliases.

use std::num::NonZeroU16;

use rapidhash::v3::rapidhash_v3;

/// Aliases on one connection, however many the client allows.
pub const ALIASES_MAX: u16 = 32;
/// The longest Topic Name that gets one: with [`ALIASES_MAX`] the bound of what a connection holds.
const TOPIC_BYTES_MAX: usize = 1024;
/// The shortest: an alias costs three bytes.
const TOPIC_BYTES_MIN: usize = 4;
/// Hashes of topics seen once, by place.
const SEEN: usize = 64;
/// Messages an alias must have been idle for before it is given to another topic.
const IDLE_MESSAGES: u64 = 256;

/// How a Topic Name goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// The name and the alias that stands for it from now on.
    Set(NonZeroU16),
    /// Only the alias.
    Use(NonZeroU16),
}

impl Alias {
    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Set(number) | Self::Use(number) => number.get(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    topic: String,
    used: u64,
}

/// The aliases of one connection.
#[derive(Debug)]
pub struct OutboundAliases {
    maximum: u16,
    /// Of the topics in `entries`, side by side, because each message looks through them.
    hashes: Vec<u64>,
    entries: Vec<Entry>,
    seen: [u32; SEEN],
    messages: u64,
}

impl OutboundAliases {
    /// For a client with this Topic Alias Maximum (`[MQTT-3.3.2-11]`); none when that is 0 (`[MQTT-3.1.2-26]`,
    /// `[MQTT-3.1.2-27]`).
    #[must_use]
    pub fn new(client_maximum: u16) -> Option<Box<Self>> {
        let maximum = client_maximum.min(ALIASES_MAX);
        let aliases = Self { maximum, hashes: Vec::new(), entries: Vec::new(), seen: [0; SEEN], messages: 0 };
        (maximum > 0).then(|| Box::new(aliases))
    }

    /// How the next message of `topic` goes out; `None` for the plain frame. What it says must be sent. `may_set`
    /// says whether the packet has room for name and alias together.
    pub fn choose(&mut self, topic: &str, may_set: bool) -> Option<Alias> {
        if topic.len() < TOPIC_BYTES_MIN || topic.len() > TOPIC_BYTES_MAX {
            return None;
        }
        self.messages += 1;
        let hash = rapidhash_v3(topic.as_bytes());
        let found = self.hashes.iter().position(|known| *known == hash);
        if let Some(at) = found.filter(|at| self.entries[*at].topic == topic) {
            self.entries[at].used = self.messages;
            return Some(Alias::Use(number(at)));
        }
        if found.is_some() || !self.is_second(hash) || !may_set {
            return None;
        }
        self.place(topic, hash).map(|at| Alias::Set(number(at)))
    }

    /// Whether this topic was here before, as far as its place remembers; notes it if not.
    fn is_second(&mut self, hash: u64) -> bool {
        let place = &mut self.seen[hash as usize % SEEN];
        let mark = (hash >> 32) as u32 | 1;
        std::mem::replace(place, mark) == mark
    }

    fn place(&mut self, topic: &str, hash: u64) -> Option<usize> {
        if self.entries.len() < usize::from(self.maximum) {
            self.hashes.push(hash);
            self.entries.push(Entry { topic: topic.to_owned(), used: self.messages });
            return Some(self.entries.len() - 1);
        }
        let (at, oldest) = self.entries.iter_mut().enumerate().min_by_key(|(_, entry)| entry.used)?;
        if self.messages - oldest.used < IDLE_MESSAGES {
            return None;
        }
        oldest.topic.clear();
        oldest.topic.push_str(topic);
        oldest.used = self.messages;
        self.hashes[at] = hash;
        Some(at)
    }
}

fn number(at: usize) -> NonZeroU16 {
    u16::try_from(at + 1).ok().and_then(NonZeroU16::new).expect("at most ALIASES_MAX, counted from 1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_message_sets_and_the_third_uses() {
        assert!(OutboundAliases::new(0).is_none());
        let mut aliases = OutboundAliases::new(5).unwrap();
        assert_eq!(aliases.choose("a/long/topic", true), None);
        assert_eq!(aliases.choose("a/long/topic", false), None, "no room in the packet");
        assert_eq!(aliases.choose("a/long/topic", true).map(Alias::number), Some(1));
        assert_eq!(aliases.choose("a/long/topic", false), Some(Alias::Use(number(0))));
        for _ in 0..3 {
            assert_eq!(aliases.choose("a/b", true), None, "too short to gain anything");
            assert_eq!(aliases.choose(&"x".repeat(TOPIC_BYTES_MAX + 1), true), None);
        }
    }

    #[test]
    fn an_idle_alias_passes_on_and_a_busy_one_does_not() {
        let mut aliases = OutboundAliases::new(1).unwrap();
        let twice = |aliases: &mut OutboundAliases, topic: &str| {
            aliases.choose(topic, true);
            aliases.choose(topic, true)
        };
        assert_eq!(twice(&mut aliases, "first"), Some(Alias::Set(number(0))));
        assert_eq!(twice(&mut aliases, "second"), None);
        for _ in 0..IDLE_MESSAGES {
            aliases.choose("third", true);
        }
        assert_eq!(aliases.choose("first", true), None, "its alias stands for another topic now");
        assert_eq!(aliases.choose("third", true), Some(Alias::Use(number(0))));
    }

    proptest! {
        #[test]
        fn the_receiver_always_knows_the_topic(
            maximum in 1u16..40,
            topics in prop::collection::vec((0usize..50, any::<bool>()), 1..2_000),
        ) {
            let mut aliases = OutboundAliases::new(maximum).unwrap();
            let mut receiver = std::collections::HashMap::new();
            for (topic, may_set) in topics {
                let topic = format!("topic/{topic}");
                match aliases.choose(&topic, may_set) {
                    None => {}
                    Some(Alias::Set(number)) => {
                        prop_assert!(may_set && number.get() <= maximum.min(ALIASES_MAX));
                        receiver.insert(number, topic);
                    }
                    Some(Alias::Use(number)) => prop_assert_eq!(receiver.get(&number), Some(&topic)),
                }
            }
        }
    }
}
