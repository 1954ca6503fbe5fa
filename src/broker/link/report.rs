//! What an operator sees of route replication: `link_state`, counters, and one log line per change.

use std::collections::BTreeSet;

use crate::broker::link::told::Told;
use crate::broker::link_client::ConnectError;
use crate::broker::link_client::Lost;
use crate::broker::routes::LocalRoute;
use crate::link::replicator::Problem;
use crate::link::replicator::State;
use crate::link::route::LinkTopics;
use crate::metrics::LinkMetrics;
use crate::metrics::labels::BootstrapReason;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::ReconnectReason;
use crate::metrics::labels::RouteKind;
use crate::metrics::labels::RouteOp;
use crate::mqtt::reason::ReasonCode;

/// Kinds of trouble that are told apart: one for each server of a link, and some.
const LOGGED_MAX: usize = 32;

/// Something went wrong, in the terms of the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) state: LinkState,
    pub(super) reason: ReconnectReason,
    pub(super) text: String,
}

impl From<&ConnectError> for Trouble {
    fn from(error: &ConnectError) -> Self {
        Self { state: error.link_state(), reason: error.reason(), text: error.to_string() }
    }
}

impl From<&Lost> for Trouble {
    fn from(lost: &Lost) -> Self {
        Self { state: lost.link_state(), reason: lost.reason(), text: lost.to_string() }
    }
}

impl From<&Problem> for Trouble {
    fn from(problem: &Problem) -> Self {
        let (state, reason) = match problem {
            Problem::SubscribeRefused(code) | Problem::PublishRefused(code)
                if *code == ReasonCode::NotAuthorized.as_u8() =>
            {
                (LinkState::Unauthenticated, ReconnectReason::Auth)
            }
            Problem::Rejected(_)
            | Problem::Less(_)
            | Problem::SubscribeRefused(_)
            | Problem::PublishRefused(_) => (LinkState::Rejected, ReconnectReason::Refused),
            Problem::UnreadableAck | Problem::WrongPage => (LinkState::Rejected, ReconnectReason::Protocol),
            Problem::ConnectTimeout | Problem::AckTimeout | Problem::PubackTimeout | Problem::PageTimeout => {
                (LinkState::Unreachable, ReconnectReason::Timeout)
            }
            Problem::Disconnected(_) | Problem::ConnectionLost => {
                (LinkState::Unreachable, ReconnectReason::Lost)
            }
            Problem::Overflow | Problem::RoutesDiffer => (LinkState::Connecting, ReconnectReason::Lost),
        };
        Self { state, reason, text: problem.to_string() }
    }
}

/// What was shown last.
#[derive(Debug, Default)]
pub(super) struct Report {
    failing: bool,
    /// What was said since the link was last online: each server may have its own trouble.
    logged: BTreeSet<String>,
    /// The incarnation of the last bootstrap.
    bootstrapped: Option<u64>,
    /// Routes of ours the peer is told of.
    told: Told,
}

impl Report {
    /// A state without trouble. A link that fails goes on showing why until the peer has accepted it.
    pub(super) fn entered(&mut self, state: State, peer: &str, metrics: &LinkMetrics) {
        match state {
            State::Connecting | State::Handshaking if self.failing => {}
            State::Connecting | State::Handshaking => metrics.set_state(LinkState::Connecting),
            State::Bootstrapping => {
                self.failing = false;
                metrics.set_state(LinkState::Connecting);
            }
            State::Online => {
                self.logged.clear();
                metrics.set_state(LinkState::Active);
                metrics.backoff.set_ms(0);
            }
            State::Disconnected | State::Stopping | State::Stopped => {}
        }
        if matches!(state, State::Online | State::Stopped) {
            tracing::info!(peer, state = state.as_str(), "link {}", state.as_str());
        } else {
            tracing::debug!(peer, state = state.as_str(), "link {}", state.as_str());
        }
    }

    /// Disconnected, until the next attempt in `pause_ms`.
    pub(super) fn failed(&mut self, trouble: Trouble, pause_ms: u64, peer: &str, metrics: &LinkMetrics) {
        self.failing = true;
        metrics.set_state(trouble.state);
        metrics.reconnects[trouble.reason].inc();
        metrics.backoff.set_ms(pause_ms);
        let reason = trouble.reason.name();
        if self.logged.contains(&trouble.text) {
            tracing::debug!(peer, state = "disconnected", reason, "link: {}", trouble.text);
        } else {
            tracing::warn!(peer, state = "disconnected", reason, "link: {}", trouble.text);
        }
        if self.logged.len() >= LOGGED_MAX {
            self.logged.clear();
        }
        self.logged.insert(trouble.text);
    }

    /// A snapshot is about to be sent.
    pub(super) fn bootstrap(&mut self, incarnation: u64, overflowed: bool, metrics: &LinkMetrics) {
        let reason = match self.bootstrapped.replace(incarnation) {
            Some(last) if last == incarnation => BootstrapReason::Requested,
            _ if overflowed => BootstrapReason::Overflow,
            _ => BootstrapReason::Initial,
        };
        metrics.bootstraps[reason].inc();
    }

    /// The routes of a snapshot.
    pub(super) fn snapshot(&mut self, told: Told, metrics: &LinkMetrics) {
        metrics.route_ops[RouteOp::Bootstrap].add(told.counts().iter().sum::<i64>().unsigned_abs());
        self.told = told;
        self.show(metrics);
    }

    /// The routes of a snapshot are taken back.
    pub(super) fn withdrawn(&mut self, gone: &Told, metrics: &LinkMetrics) {
        metrics.route_ops[RouteOp::Del].add(gone.counts().iter().sum::<i64>().unsigned_abs());
        self.told = Told::default();
        self.show(metrics);
    }

    /// One local route came or went: what it makes of routes for the peer.
    pub(super) fn route(
        &mut self,
        route: &LocalRoute,
        added: bool,
        topics: &LinkTopics,
        metrics: &LinkMetrics,
    ) {
        let count = self.told.change(route, added, topics);
        metrics.route_ops[if added { RouteOp::Add } else { RouteOp::Del }].add(count as u64);
        self.show(metrics);
    }

    fn show(&self, metrics: &LinkMetrics) {
        let [plain, shared] = self.told.counts();
        metrics.routes[(Direction::Out, RouteKind::Plain)].set(plain);
        metrics.routes[(Direction::Out, RouteKind::Shared)].set(shared);
    }
}
