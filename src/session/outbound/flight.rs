//! One delivery of QoS 1 or 2 until its last acknowledgement.

use crate::mqtt::packet::QoS;
use crate::session::queue::Owed;

/// What the client has to say next: PUBACK, PUBREC, PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Stage {
    Acknowledge,
    Receive,
    Complete,
}

/// See the module. There may be 65,535 for each client, and each is moved twice: it is small.
#[derive(Debug)]
pub(in crate::session) struct InFlight {
    pub(in crate::session) stage: Stage,
    /// Whether its PUBLISH went out on the present connection and so takes one of the client's places.
    pub(in crate::session) takes_place: bool,
    /// That it was sent is kept beside what is owed.
    pub(in crate::session) noted: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// It ends with the process, and is not sent again.
    Nothing,
    /// There is no message any more; what is left is kept under this number, which is 0 for none.
    Number(u64),
    /// The message, for as long as it may have to be sent again: in a session that outlives its connection until
    /// PUBREC, and at QoS 1 for a Shared Subscription.
    Owed(Owed),
}

impl InFlight {
    /// One that is sent on this connection and never again.
    pub(in crate::session) fn forgotten(qos: QoS) -> Self {
        Self { stage: first_stage(qos), takes_place: true, noted: false, content: Content::Nothing }
    }

    /// One that is sent on this connection, and again on the next if need be. `noted`: that it is sent is kept beside what is
    /// owed.
    pub(in crate::session) fn kept(owed: Owed, noted: bool) -> Self {
        Self { stage: first_stage(owed.qos), takes_place: true, noted, content: Content::Owed(owed) }
    }

    /// One of an earlier life. Past PUBREC it has no message.
    pub(in crate::session) fn restored(stage: Stage, owed: Owed) -> Self {
        let content =
            if stage == Stage::Complete { Content::Number(owed.number) } else { Content::Owed(owed) };
        Self { stage, takes_place: false, noted: true, content }
    }

    /// The message, if it may have to be sent again.
    pub(in crate::session) fn owed(&self) -> Option<&Owed> {
        if let Content::Owed(owed) = &self.content { Some(owed) } else { None }
    }

    pub(in crate::session) fn owed_mut(&mut self) -> Option<&mut Owed> {
        if let Content::Owed(owed) = &mut self.content { Some(owed) } else { None }
    }

    /// Takes the message out.
    pub(in crate::session) fn take_owed(&mut self) -> Option<Owed> {
        let number = self.number();
        match std::mem::replace(&mut self.content, Content::Number(number)) {
            Content::Owed(owed) => Some(owed),
            Content::Nothing | Content::Number(_) => None,
        }
    }

    /// Gives the message back instead of the delivery.
    pub(in crate::session) fn into_owed(self) -> Option<Owed> {
        if let Content::Owed(owed) = self.content { Some(owed) } else { None }
    }

    /// Under which it is kept; 0 if it ends with the process.
    pub(in crate::session) fn number(&self) -> u64 {
        match &self.content {
            Content::Nothing => 0,
            Content::Number(number) => *number,
            Content::Owed(owed) => owed.number,
        }
    }

    /// Whether its content is not in memory.
    pub(in crate::session) fn is_elsewhere(&self) -> bool {
        self.owed().is_some_and(|owed| owed.message.body_elsewhere().is_some())
    }
}

fn first_stage(qos: QoS) -> Stage {
    if qos == QoS::AtLeastOnce { Stage::Acknowledge } else { Stage::Receive }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_takes_little_more_than_its_message() {
        assert_eq!(size_of::<Option<InFlight>>(), size_of::<Owed>() + 8);
    }
}
