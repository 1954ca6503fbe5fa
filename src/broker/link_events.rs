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
/// How long a peer may refuse us before it is said: it has perhaps removed us, and could not tell (`trust.md` 2.7).
const REFUSED_MS: u64 = 24 * 3_600_000;

/// States that a link entered.
#[derive(Debug, Default)]
pub struct LinkStates {
    last: Option<LinkState>,
    changes: VecDeque<StateChange>,
    /// Since when the peer refuses us, in milliseconds since the Unix epoch.
    refused_since_ms: Option<u64>,
    /// That was said.
    refusal_said: bool,
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
        match state {
            LinkState::Active | LinkState::Disabled => {
                (self.refused_since_ms, self.refusal_said) = (None, false);
            }
            LinkState::Unauthenticated | LinkState::Rejected => {
                self.refused_since_ms.get_or_insert(now.unix_ms);
            }
            // A try that is under way, or a network that is down, is no answer.
            _ => {}
        }
        let previous = self.last.replace(state);
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(StateChange { state, previous, reason, unix_ms: now.unix_ms });
        true
    }

    /// Since when the peer refuses us, in milliseconds since the Unix epoch: once, when that is a day.
    pub fn refused_for_long(&mut self, now: Now) -> Option<u64> {
        let since = self.refused_since_ms.filter(|since| now.unix_ms.saturating_sub(*since) >= REFUSED_MS)?;
        (!std::mem::replace(&mut self.refusal_said, true)).then_some(since)
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
            let Some(change) = change else { break };
            self.publish_event(link.peer(), &change.payload(link.peer()), now);
            let what = What::LinkState(change.state);
            let text = change.reason.as_deref().unwrap_or_default();
            self.security_event(
                &SecurityEvent { identity: Some(link.peer()), ..SecurityEvent::new(what, text) },
                now,
            );
        }
        let refused = link.states.lock().refused_for_long(now);
        if let Some(since) = refused {
            let (peer, since) = (link.peer(), time::rfc3339(since));
            let text = format!(
                "{peer} has refused us since {since}: it may have removed us. Ask its operator; then delete the link, or make it \
                 anew with a token of theirs (link create {peer} --replace --token ...)"
            );
            tracing::warn!("{text}");
            let what = What::Trust { name: "authn_link_refused", critical: true };
            self.security_event(
                &SecurityEvent { identity: Some(peer), ..SecurityEvent::new(what, &text) },
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
    fn a_day_of_refusals_is_said_once() {
        let mut states = LinkStates::default();
        let at_hour = |states: &mut LinkStates, hour: u64, state| {
            states.enter(state, None, at(hour * 3_600_000));
            states.refused_for_long(at(hour * 3_600_000))
        };
        assert_eq!(at_hour(&mut states, 1, LinkState::Unauthenticated), None);
        assert_eq!(at_hour(&mut states, 2, LinkState::Connecting), None);
        assert_eq!(at_hour(&mut states, 24, LinkState::Rejected), None);
        assert_eq!(at_hour(&mut states, 25, LinkState::Connecting), Some(3_600_000));
        assert_eq!(at_hour(&mut states, 99, LinkState::Rejected), None, "it is known");
        // It was let in meanwhile.
        assert_eq!(at_hour(&mut states, 100, LinkState::Active), None);
        assert_eq!(at_hour(&mut states, 101, LinkState::Unauthenticated), None);
        assert_eq!(at_hour(&mut states, 125, LinkState::Unauthenticated), Some(101 * 3_600_000));
        // A network that is down is no refusal.
        let mut away = LinkStates::default();
        assert_eq!(at_hour(&mut away, 1, LinkState::Unreachable), None);
        assert_eq!(at_hour(&mut away, 99, LinkState::Unreachable), None);
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
