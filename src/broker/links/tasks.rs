//! The tasks of a link: what starts them, and how they end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::broker::forwarder::run_lane;
use crate::broker::link;
use crate::broker::links::Link;
use crate::broker::links::watch;
use crate::broker::reverse::lend;
use crate::config::settings::DialledBy;
use crate::metrics::labels::LinkState;
use crate::net::clock;

/// How long a link that stops may go on sending, in milliseconds.
const STOP_GRACE_MS: u64 = 2_000;
/// Until when its connections must be closed.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What runs for a link.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    drivers: JoinSet<()>,
    /// Those among them that never end by themselves.
    endless: Vec<AbortHandle>,
}

impl Link {
    /// Starts the tasks of this link, once it is in [`Links`](super::Links). A disabled link only watches its peer's actors.
    /// `hold`: how long the peer has before it is dialled.
    pub(super) fn run(self: &Arc<Self>, broker: &Arc<Broker>, node: &str, hold: Duration) {
        let mut tasks = self.tasks.lock();
        self.metrics.set_state(if self.settings.enable {
            LinkState::Connecting
        } else {
            LinkState::Disabled
        });
        self.note_state(clock::now());
        let (link, watched) = (Arc::clone(self), Arc::clone(broker));
        let watching = tasks.drivers.spawn(watch::run(link, watched));
        tasks.endless.push(watching);
        if !self.settings.enable || self.settings.dialled_by != DialledBy::Peer {
            self.incoming.room.clear();
        }
        if !self.settings.enable {
            return;
        }
        if self.settings.dialled_by == DialledBy::Us {
            let lending = lend::run(Arc::clone(self), Arc::clone(broker));
            let lending = tasks.drivers.spawn(after(hold, lending));
            tasks.endless.push(lending);
        }
        let node: Arc<str> = node.into();
        for index in 0..self.forwarder.lanes() {
            tasks.drivers.spawn(after(hold, run_lane(Arc::clone(self), index, Arc::clone(&node))));
        }
        let (all, link) = (Arc::clone(broker), Arc::clone(self));
        let source = move || {
            let mut routes = all.routes.local_routes();
            all.links.add_passed_on(&link, &mut routes);
            routes
        };
        let telling = link::run(Arc::clone(self), Arc::new(source), Some(Arc::clone(broker)));
        tasks.drivers.spawn(after(hold, telling));
    }

    /// Stops the tasks of this link and waits for them: our routes are taken back from the peer and messages
    /// in the spool may still go, for `STOP_GRACE_MS` at most.
    pub async fn stop(&self) {
        self.end_tasks(false).await;
        self.forwarder.drop_rest(clock::now());
    }

    /// The same, but what could not be sent is left in the lanes; and if it is `replaced`, our routes are left with the peer.
    pub(super) async fn end_tasks(&self, replaced: bool) {
        let deadline_ms = clock::now().plus_ms(STOP_GRACE_MS).mono_ms;
        self.forwarder.stop(deadline_ms);
        if replaced {
            self.replication.leave();
        } else {
            self.replication.stop(deadline_ms);
        }
        let mut drivers = {
            let mut tasks = self.tasks.lock();
            tasks.endless.drain(..).for_each(|task| task.abort());
            std::mem::take(&mut tasks.drivers)
        };
        let ended = async {
            while let Some(ended) = drivers.join_next().await {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(peer = self.peer(), "a task of the link had failed: {error}");
                }
            }
        };
        if timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!(peer = self.peer(), "the link did not stop in time");
        }
    }
}

async fn after(hold: Duration, driver: impl Future<Output = ()>) {
    if !hold.is_zero() {
        time::sleep(hold).await;
    }
    driver.await;
}
