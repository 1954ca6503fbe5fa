//! Retained messages of the peer are asked for over the same connection, behind the routes that they are about.

use crate::link::extension::Capabilities;
use crate::link::payload::page;
use crate::link::payload::page::PageAnswer;
use crate::link::replicator::ControlPublish;
use crate::link::replicator::FAILURE;
use crate::link::replicator::Output;
use crate::link::replicator::Problem;
use crate::link::replicator::Replicator;
use crate::link::replicator::State;
use crate::link::retained::Applied;
use crate::mqtt::packet::QoS;
use crate::time::Now;

impl Replicator {
    /// Whether the peer tells what it retains.
    pub(super) fn pulls(&self) -> bool {
        self.state == State::Online && self.capabilities.has(Capabilities::RETAINED)
    }

    /// Sends the next request, if it is time for one.
    pub(super) fn pull(&mut self, now: Now) {
        if !self.pulls() {
            return;
        }
        let token = self.token.wrapping_add(1).max(1);
        let room = (self.batch_bytes, self.config.answer_bytes_max);
        let Some(asked) = self.puller.ask(now, token, room.0, room.1) else { return };
        self.token = token;
        let mut payload = Vec::with_capacity(256);
        page::put_page_request(&mut payload, &self.config.actor, self.incarnation, &asked);
        self.outputs.push_back(Output::AskPage(ControlPublish {
            token,
            qos: QoS::AtLeastOnce,
            topic: self.route_topic.clone(),
            payload,
            response_topic: Some(self.response_topic.clone()),
            correlation_data: None,
        }));
    }

    /// A batch went out that tells routes: what the peer retains under them is asked for behind it, so that whatever it
    /// stores after the answer comes as a message.
    pub(super) fn pull_added(&mut self, now: Now) {
        if self.pulls() {
            for key in self.pending.added().filter(|key| !key.is_shared()) {
                self.puller.want(&key.topic);
            }
            self.pull(now);
        }
    }

    /// PUBACK came, perhaps for a request.
    pub(super) fn page_acknowledged(&mut self, token: u32, reason: u8) -> bool {
        let is_asked = self.puller.is_asked_with(token);
        if is_asked && reason >= FAILURE {
            self.refused(Problem::PublishRefused(reason));
        }
        is_asked
    }

    /// retained_page_ack came.
    pub(super) fn page_answered(&mut self, now: Now, answer: &PageAnswer<'_>) {
        let is_ours = answer.actor == self.config.actor && answer.incarnation == self.incarnation;
        if !self.pulls() || !is_ours {
            return;
        }
        match self.puller.answered(now, answer) {
            Ok(Some(page)) => self.outputs.push_back(Output::Page(Box::new(page))),
            Ok(None) => {}
            Err(_) => self.failed(Problem::WrongPage),
        }
    }

    /// The page handed out was applied, up to its end.
    pub fn handle_applied(&mut self, now: Now, up_to: Option<Box<str>>, applied: Applied) {
        self.puller.applied(now, up_to, applied);
        self.pull(now);
    }
}
