//! What a link became, for whoever watches it: in the event log, and retained on `$SYS/link/<peer>/event`, which the
//! shipped ACL guards like everything under `$SYS/`.

use std::collections::VecDeque;

use serde_json::json;

use crate::broker::Broker;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::broker::links::Link;
use crate::metrics::labels::LinkState;
use crate::mqtt::packet::QoS;
use crate::time;
use crate::time::Now;

/// Changes that nobody was told of yet: a second's worth and more.
const CHANGES_MAX: usize = 64;

/// States that a link entered.
#[derive(Debug, Default)]
pub struct LinkStates {
    last: Option<LinkState>,
    changes: VecDeque<StateChange>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The state.
    pub state: LinkState,
    /// The one before it.
    pub previous: Option<LinkState>,
    /// Why it is not active.
    pub reason: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl LinkStates {
    /// The link is in this state now. Whether that is another than before. Of too many changes the oldest are forgotten.
    pub fn enter(&mut self, state: LinkState, reason: Option<String>, now: Now) -> bool {
        if self.last == Some(state) {
            return false;
        }
        let previous = self.last.replace(state);
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(StateChange { state, previous, reason, unix_ms: now.unix_ms });
        true
    }

    /// The oldest change that nobody was told of.
    pub fn next_change(&mut self) -> Option<StateChange> {
        self.changes.pop_front()
    }
}

impl StateChange {
    /// As JSON.
    fn payload(&self, peer: &str) -> String {
        json!({
            "time": time::rfc3339(self.unix_ms),
            "link": peer,
            "state": self.state.name(),
            "previous": self.previous.map(LinkState::name),
            "reason": self.reason,
        })
        .to_string()
    }
}

impl Broker {
    /// Tells what a link became since it was last told.
    pub(super) fn tell_states(&self, link: &Link, now: Now) {
        loop {
            let change = link.states.lock().next_change();
            let Some(change) = change else { return };
            self.publish_event(link.peer(), &change.payload(link.peer()), now);
            let what = What::LinkState(change.state);
            let text = change.reason.as_deref().unwrap_or_default();
            self.security_event(
                &SecurityEvent { identity: Some(link.peer()), ..SecurityEvent::new(what, text) },
                now,
            );
        }
    }

    /// There is no such link any more: its last event goes too.
    pub(super) fn forget_states(&self, peer: &str, now: Now) {
        let deleted =
            json!({"time": time::rfc3339(now.unix_ms), "link": peer, "state": "deleted"}).to_string();
        self.publish_event(peer, &deleted, now);
        self.delete_retained(&topic(peer), now);
    }

    fn publish_event(&self, peer: &str, payload: &str, now: Now) {
        let kind = (QoS::AtLeastOnce, self.limits().server.retain_available);
        self.publish_own(&topic(peer), kind, || payload, now);
    }
}

fn topic(peer: &str) -> String {
    format!("$SYS/link/{peer}/event")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_ms: u64) -> Now {
        Now { mono_ms: 0, unix_ms }
    }

    #[test]
    fn a_state_is_told_once_with_the_one_before_it() {
        let mut states = LinkStates::default();
        assert!(states.enter(LinkState::Connecting, None, at(0)));
        assert!(!states.enter(LinkState::Connecting, None, at(1)));
        assert!(states.enter(LinkState::Unreachable, Some("no \"answer\"".to_owned()), at(2)));
        assert_eq!(states.next_change().unwrap().previous, None);
        let change = states.next_change().unwrap();
        let expected = "{\"link\":\"B\",\"previous\":\"connecting\",\"reason\":\"no \\\"answer\\\"\",\
                        \"state\":\"unreachable\",\"time\":\"1970-01-01T00:00:00.002Z\"}";
        assert_eq!(change.payload("B"), expected);
        assert_eq!(states.next_change(), None);
    }

    #[test]
    fn of_too_many_changes_the_last_are_kept() {
        let mut states = LinkStates::default();
        for round in 0..CHANGES_MAX as u64 {
            states.enter(LinkState::Connecting, None, at(round));
            states.enter(LinkState::Active, None, at(round));
        }
        let mut told = std::iter::from_fn(|| states.next_change());
        assert_eq!(told.next().unwrap().unix_ms, CHANGES_MAX as u64 / 2);
        assert_eq!(told.count(), CHANGES_MAX - 1);
    }
}
