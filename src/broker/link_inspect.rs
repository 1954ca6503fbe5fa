//! What an operator sees of a link: its state and why, its lanes, the routes of either side, and why a topic does or does
//! not cross it. Nothing here decides; each step asks what decides.

use std::ops::Range;

use crate::acl::rule::Permission;
use crate::broker::Broker;
use crate::broker::explain::Explained;
use crate::broker::inspect::Page;
use crate::broker::links::Link;
use crate::link::lane::LaneCounters;
use crate::link::name;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkDropReason;
use crate::metrics::labels::LinkState;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;

/// Routes named by an explanation; there may be a million.
const ROUTES_NAMED: usize = 5;

/// One lane: a connection that carries messages, and what waits for it.
#[derive(Debug, Clone, Copy)]
pub struct LaneView {
    /// Whether its connection is up.
    pub connected: bool,
    /// Messages that were not sent.
    pub queued: usize,
    /// Messages sent and not acknowledged.
    pub in_flight: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// How long the oldest has been here.
    pub oldest_age_ms: Option<u64>,
    /// Where messages went.
    pub counters: LaneCounters,
    /// Handed in less everything that is known of: must be 0.
    pub unaccounted: i64,
}

/// One answer on the way of a topic over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was asked.
    pub name: &'static str,
    /// Whether the message gets past it.
    pub passes: bool,
    /// Why.
    pub text: String,
}

/// Which way a message would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Published here, to the peer.
    Out,
    /// Published at the peer, to us.
    In,
}

/// What became of messages for the peer, counted as EMQX counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Acknowledged.
    pub sent: u64,
    /// Refused by the peer.
    pub failed: u64,
    /// Dropped before they were sent.
    pub dropped: u64,
    /// Sent again.
    pub retried: u64,
}

impl Link {
    /// Since the last [`Link::reset_forwarding`].
    #[must_use]
    pub fn forwarding_since_reset(&self) -> Forwarding {
        let (now, then) = (self.forwarding(), *self.forwarding_reset.lock());
        Forwarding {
            sent: now.sent.saturating_sub(then.sent),
            failed: now.failed.saturating_sub(then.failed),
            dropped: now.dropped.saturating_sub(then.dropped),
            retried: now.retried.saturating_sub(then.retried),
        }
    }

    /// Counts from here on.
    pub fn reset_forwarding(&self) {
        *self.forwarding_reset.lock() = self.forwarding();
    }

    fn forwarding(&self) -> Forwarding {
        let dropped = |reason| self.metrics.messages_dropped[(Direction::Out, reason)].value();
        let failed = dropped(LinkDropReason::PeerRefused);
        let sent = |qos| self.metrics.messages[(Direction::Out, qos)].value();
        Forwarding {
            sent: sent(QoS::AtMostOnce) + sent(QoS::AtLeastOnce) + sent(QoS::ExactlyOnce),
            failed,
            dropped: LinkDropReason::ALL.iter().map(|reason| dropped(*reason)).sum::<u64>() - failed,
            retried: self.metrics.retries.value(),
        }
    }

    /// The state it shows.
    #[must_use]
    pub fn state(&self) -> LinkState {
        LinkState::ALL
            .iter()
            .copied()
            .find(|state| self.metrics.state.is(*state))
            .unwrap_or(LinkState::Connecting)
    }

    /// Why it is not active, if it is not and something went wrong; or why the peer, which cannot dial, gets no connections.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match self.state() {
            LinkState::Disabled => None,
            LinkState::Active => self.incoming.lending.trouble(),
            _ => self.trouble.lock().clone(),
        }
    }

    /// The filters that the peer wants and that `wanted` chooses, in order. It looks at all of them.
    #[must_use]
    pub fn list_remote_routes(&self, window: Range<usize>, wanted: impl Fn(&str) -> bool) -> Page<String> {
        let mut found: Vec<String> = {
            let routes = self.routes.lock();
            routes.filters().filter(|filter| wanted(filter)).map(str::to_owned).collect()
        };
        found.sort_unstable();
        let count = found.len();
        let items = found.into_iter().skip(window.start).take(window.len()).collect();
        Page { items, count }
    }
}

impl Broker {
    /// What we want from this peer: parts of our subscriptions that its link's `topics` cover, in order, with the shared
    /// group of those that have one. It looks at every subscription.
    #[must_use]
    pub fn list_own_routes(
        &self,
        link: &Link,
        window: Range<usize>,
        wanted: impl Fn(&str) -> bool,
    ) -> Page<(String, Option<String>)> {
        let local = self.routes.local_routes();
        let mut found: Vec<(String, Option<String>)> = local
            .iter()
            .filter(|route| !name::is_reserved(&route.filter))
            .flat_map(|route| {
                let share = route.share.as_deref().map(str::to_owned);
                link.topics
                    .intersections(&route.filter)
                    .into_iter()
                    .map(move |part| (part.to_string(), share.clone()))
            })
            .filter(|(filter, _)| wanted(filter))
            .collect();
        found.sort_unstable();
        found.dedup();
        let count = found.len();
        let items = found.into_iter().skip(window.start).take(window.len()).collect();
        Page { items, count }
    }

    /// Why a message to `name` does or does not cross this link. `acl` is what the rules say of its publisher, if one was
    /// named. The first step that does not pass is the reason.
    #[must_use]
    pub fn explain_link(&self, link: &Link, way: Way, name: &str, acl: Option<&Explained>) -> Vec<Step> {
        match way {
            Way::Out => self.explain_out(link, name, acl),
            Way::In => self.explain_in(link, name),
        }
    }

    fn explain_out(&self, link: &Link, name: &str, acl: Option<&Explained>) -> Vec<Step> {
        let peer = link.peer();
        let mut steps = Vec::new();
        if let Some(acl) = acl {
            let passes = acl.permission == Permission::Allow;
            let file = self
                .policy()
                .file
                .path
                .as_ref()
                .map_or_else(|| "the built-in rules".to_owned(), |path| path.display().to_string());
            steps.push(Step { name: "acl", passes, text: format!("{file}: {}", acl.by()) });
        }
        steps.push(enabled(link));
        steps.push(reserved(name));
        let exported = link.forwarder.exports(name);
        let text = if exported { "may go to" } else { "is outside cluster.links[].export of" };
        let most = link.forwarder.bounded(name, QoS::ExactlyOnce);
        let most =
            if most < QoS::ExactlyOnce { format!(" at QoS {} at most", most as u8) } else { String::new() };
        let text = format!("{name} {text} {peer}{most}{}", bounds(link));
        steps.push(Step { name: "export", passes: exported, text });
        let wanted = link.list_remote_routes(0..ROUTES_NAMED, |filter| topic::matches(filter, name));
        let all = link.routes.lock().len();
        let text = match wanted.count {
            0 => format!("{peer} wants nothing that matches; it has told us of {all} routes"),
            count => {
                format!("{peer} wants it by {count} of {all} routes, such as {}", wanted.items.join(", "))
            }
        };
        steps.push(Step { name: "routes", passes: wanted.count > 0, text });
        let otherwise =
            "a message of QoS 1 or 2 waits in the spool, one of QoS 0 is dropped unless spool.qos0";
        steps.push(state(link, otherwise));
        if link.forwarder.is_held() {
            let text = format!("{peer} was away and has not said yet what it wants now: {otherwise}");
            steps.push(Step { name: "settled", passes: false, text });
        }
        steps
    }

    fn explain_in(&self, link: &Link, name: &str) -> Vec<Step> {
        let peer = link.peer();
        let mut steps = vec![enabled(link), reserved(name)];
        let asked = link.topics.covers(name);
        let text = if asked { "are asked for by" } else { "are outside" };
        let most = link
            .qos
            .as_ref()
            .map(|bounds| bounds.most(name))
            .filter(|most| asked && *most < QoS::ExactlyOnce);
        let most = most.map_or_else(String::new, |most| format!(", up to QoS {}", most as u8));
        let text = format!("messages to {name} {text} cluster.links[{peer}].topics{most}");
        steps.push(Step { name: "topics", passes: asked, text });
        let own = self.list_own_routes(link, 0..ROUTES_NAMED, |filter| topic::matches(filter, name));
        let text = match own.count {
            0 => "nobody here subscribes to it".to_owned(),
            count => {
                let names: Vec<&str> = own.items.iter().map(|(filter, _)| filter.as_str()).collect();
                format!("{peer} is told of {count} routes that match, such as {}", names.join(", "))
            }
        };
        steps.push(Step { name: "routes", passes: own.count > 0, text });
        steps.push(state(link, "the peer's spool keeps what it owes us, if it is one of ours"));
        steps
    }
}

fn enabled(link: &Link) -> Step {
    let passes = link.settings.enable;
    let text = if passes { "the link is enabled" } else { "cluster.links[].enable is false" };
    Step { name: "enabled", passes, text: text.to_owned() }
}

/// To what the peer's routes are cut down, if they are.
fn bounds(link: &Link) -> String {
    let exported = link.exported.lock();
    let Some(filters) = exported.filters() else { return String::new() };
    let named: Vec<&str> = filters.iter().take(ROUTES_NAMED).collect();
    let more = if filters.iter().count() > named.len() { ", ..." } else { "" };
    let refused = match exported.refused() {
        0 => String::new(),
        count => format!("; {count} routes had nothing in common with that"),
    };
    format!(", whose routes are cut down to {}{more}{refused}", named.join(", "))
}

fn reserved(name: &str) -> Step {
    let passes = !name::is_reserved(name);
    let text = if passes { "an ordinary topic" } else { "$LINK/ topics never cross a link" };
    Step { name: "topic", passes, text: text.to_owned() }
}

fn state(link: &Link, otherwise: &str) -> Step {
    let state = link.state();
    let why = link.trouble().map_or_else(String::new, |why| format!(" ({why})"));
    let passes = state == LinkState::Active;
    let text = if passes { "active".to_owned() } else { format!("{}{why}: {otherwise}", state.name()) };
    Step { name: "state", passes, text }
}
