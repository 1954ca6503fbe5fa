//! What happens to a link without anybody doing anything: routes of silent actors go, alarms are raised, states are told.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::broker::Broker;
use crate::broker::links::Link;
use crate::net::clock;

/// How often expired actors of a peer are looked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Removes expired actors and does what is left to do in the route table, for as long as the link lives.
pub(super) async fn run(link: Arc<Link>, broker: Arc<Broker>) {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = link.behind.notified() => {}
        }
        broker.tell_states(&link, clock::now());
        link.watch_spool();
        while link.collect(&broker.routes, clock::now()) {
            yield_now().await;
        }
        broker.links.pass_on_routes(&link);
    }
}
