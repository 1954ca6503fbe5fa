//! The receiving half of a session: QoS 2 messages whose PUBREL is still to come (section 4.3.3, method A:
//! the message is passed on at PUBLISH, its Packet Identifier is kept until PUBREL), and Topic Aliases.

use std::collections::HashMap;
use std::num::NonZeroU16;

use rapidhash::fast::RandomState;

use crate::mqtt::packet::PacketId;
use crate::mqtt::reason::ReasonCode;
use crate::time::Now;

/// What a QoS 2 PUBLISH turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Pass it on, then PUBREC.
    New,
    /// It was passed on before: only PUBREC (`[MQTT-4.3.3-10]`).
    Duplicate,
    /// More unreleased messages than allowed.
    Exceeded,
}

/// The bounds of [`Inbound`].
#[derive(Debug, Clone, Copy)]
pub struct InboundLimits {
    /// Unreleased QoS 2 messages: `mqtt.max_awaiting_rel`.
    pub awaiting_max: usize,
    /// How long one may stay unreleased when room is needed: `mqtt.await_rel_timeout`.
    pub awaiting_ms: u64,
}

/// Packet Identifiers of QoS 2 messages that were passed on and not yet released: part of the Session State.
/// Boxed, because most clients never send one.
#[derive(Debug, Default)]
pub struct Inbound {
    #[expect(clippy::box_collection, reason = "a pointer where there is none")]
    awaiting: Option<Box<HashMap<PacketId, u64, RandomState>>>,
}

impl Inbound {
    /// A QoS 2 PUBLISH arrived: a repetition until its PUBREL (`[MQTT-4.3.3-10]`), afterwards a new message, though it
    /// has the same identifier (`[MQTT-4.3.3-12]`).
    #[inline]
    pub fn handle_publish(&mut self, id: PacketId, limits: InboundLimits, now: Now) -> Received {
        let awaiting = match &mut self.awaiting {
            Some(awaiting) => awaiting,
            none => none.insert(Box::default()),
        };
        if awaiting.contains_key(&id) {
            return Received::Duplicate;
        }
        if awaiting.len() >= limits.awaiting_max {
            awaiting.retain(|_, since| now.mono_ms.saturating_sub(*since) < limits.awaiting_ms);
            if awaiting.len() >= limits.awaiting_max {
                return Received::Exceeded;
            }
        }
        awaiting.insert(id, now.mono_ms);
        Received::New
    }

    /// A QoS 2 message was refused after all: its identifier is free again (`[MQTT-4.3.3-9]`). Whether it was taken.
    pub fn forget(&mut self, id: PacketId) -> bool {
        self.take(id)
    }

    /// Whether it was unreleased.
    #[inline]
    fn take(&mut self, id: PacketId) -> bool {
        self.awaiting.as_mut().is_some_and(|awaiting| awaiting.remove(&id).is_some())
    }

    /// A PUBREL arrived: the Reason Code of its PUBCOMP (`[MQTT-4.3.3-11]`). Nothing here expires: the handshake goes
    /// on after its message did (`[MQTT-4.3.3-13]`).
    pub fn handle_pubrel(&mut self, id: PacketId) -> ReasonCode {
        if self.take(id) { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound }
    }

    /// Identifiers that were unreleased in an earlier life of the session.
    pub fn restore(&mut self, ids: impl IntoIterator<Item = PacketId>, now: Now) {
        for id in ids {
            self.awaiting.get_or_insert_default().insert(id, now.mono_ms);
        }
    }

    /// Identifiers of unreleased messages.
    pub fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.awaiting.iter().flat_map(|awaiting| awaiting.keys().copied())
    }

    /// Unreleased messages.
    #[must_use]
    pub fn awaiting(&self) -> usize {
        self.awaiting.as_ref().map_or(0, |awaiting| awaiting.len())
    }
}

/// What the Topic Names behind one connection's aliases may take together: 65,535 long ones would be 4 GiB.
pub const ALIAS_BYTES_MAX: usize = 1024 * 1024;

/// Topic Aliases a client has set on its connection; they end with it (`[MQTT-3.3.2-7]`).
/// Boxed, because most clients set none.
#[derive(Debug, Default)]
pub struct Aliases(Option<Box<Topics>>);

#[derive(Debug, Default)]
struct Topics {
    by_alias: Vec<Option<Box<str>>>,
    bytes: usize,
}

impl Aliases {
    /// The Topic Name of a PUBLISH, with its alias set or resolved: any up to `maximum` (`[MQTT-3.3.2-12]`).
    ///
    /// # Errors
    /// 0x94 for an alias above `maximum` (`[MQTT-3.3.2-9]`); 0x82 for one without a topic that was never set;
    /// 0x97 when the topics of all aliases take more than [`ALIAS_BYTES_MAX`].
    pub fn resolve<'a>(
        &'a mut self,
        topic: &'a str,
        alias: Option<NonZeroU16>,
        maximum: u16,
    ) -> Result<&'a str, ReasonCode> {
        let Some(alias) = alias else { return Ok(topic) };
        if alias.get() > maximum {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let index = usize::from(alias.get()) - 1;
        if topic.is_empty() {
            let known = self.0.as_ref().and_then(|topics| topics.by_alias.get(index)?.as_deref());
            return known.ok_or(ReasonCode::ProtocolError);
        }
        let Topics { by_alias, bytes } = &mut **self.0.get_or_insert_default();
        if by_alias.len() <= index {
            by_alias.resize(index + 1, None);
        }
        let before = by_alias[index].as_deref().map_or(0, str::len);
        if *bytes - before + topic.len() > ALIAS_BYTES_MAX {
            return Err(ReasonCode::QuotaExceeded);
        }
        if by_alias[index].as_deref() != Some(topic) {
            *bytes = *bytes - before + topic.len();
            by_alias[index] = Some(topic.into());
        }
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    #[test]
    fn a_qos_2_message_is_passed_on_once() {
        let limits = InboundLimits { awaiting_max: 2, awaiting_ms: 1_000 };
        let mut inbound = Inbound::default();
        let now = Now::default();
        assert_eq!(inbound.handle_publish(id(1), limits, now), Received::New);
        assert_eq!(inbound.handle_publish(id(1), limits, now), Received::Duplicate);
        assert_eq!(inbound.handle_pubrel(id(1)), ReasonCode::Success);
        assert_eq!(inbound.handle_pubrel(id(1)), ReasonCode::PacketIdentifierNotFound);
        assert_eq!(inbound.handle_publish(id(1), limits, now), Received::New, "free again");
    }

    #[test]
    fn unreleased_messages_are_bounded_and_give_way_in_time() {
        let limits = InboundLimits { awaiting_max: 2, awaiting_ms: 1_000 };
        let mut inbound = Inbound::default();
        let now = Now::default();
        inbound.handle_publish(id(1), limits, now);
        inbound.handle_publish(id(2), limits, now.plus_ms(500));
        assert_eq!(inbound.handle_publish(id(3), limits, now.plus_ms(900)), Received::Exceeded);
        assert_eq!(inbound.handle_publish(id(3), limits, now.plus_ms(1_000)), Received::New);
        assert_eq!(inbound.awaiting(), 2);
    }

    #[test]
    fn aliases_are_set_replaced_and_bounded() {
        let alias = NonZeroU16::new;
        let mut aliases = Aliases::default();
        assert_eq!(aliases.resolve("", alias(1), 10), Err(ReasonCode::ProtocolError));
        assert_eq!(aliases.resolve("a", alias(1), 10), Ok("a"));
        assert_eq!(aliases.resolve("", alias(1), 10), Ok("a"));
        assert_eq!(aliases.resolve("b", alias(1), 10), Ok("b"));
        assert_eq!(aliases.resolve("", alias(1), 10), Ok("b"));
        assert_eq!(aliases.resolve("c", alias(11), 10), Err(ReasonCode::TopicAliasInvalid));
        assert_eq!(aliases.resolve("c", alias(1), 0), Err(ReasonCode::TopicAliasInvalid));
        let long = "x".repeat(65_535);
        let refused = (1..=17).find_map(|n| aliases.resolve(&long, alias(n), 20).err());
        assert_eq!(refused, Some(ReasonCode::QuotaExceeded));
    }
}
