//! Time for all clients: keep alive, delayed wills, the end of sessions, expired retained messages, remembered targets that
//! are no longer right, delayed publishes, `$SYS/` topics. One timer for the whole broker and a table by second, instead of
//! a timer for each connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time;

use crate::broker::Broker;
use crate::broker::client::Client;
use crate::net::clock;
use crate::time::Now;

/// How often due clients are looked at: the resolution of every interval, all of which are whole seconds.
const TICK: Duration = Duration::from_millis(500);
/// A client is looked at again after this long at the latest, so that the table holds nothing of a client that is long
/// gone, however far its deadline was: half a kilobyte of each that came within this time.
const HORIZON_MS: u64 = 30_000;
/// Ticks in which all remembered targets are looked through.
const TICKS_PER_ROUND: usize = 20;
/// How often failed logins are looked through for those that are past.
const ATTEMPTS_EVERY_MS: u64 = 30_000;
/// Retained messages looked at per tick.
const RETAINED_PER_TICK: usize = 1_000;

/// Clients by when they are due, on the monotonic clock.
#[derive(Debug, Default)]
pub struct Sweeper {
    due: Mutex<BTreeMap<u64, Vec<Weak<Client>>>>,
}

impl Sweeper {
    /// Has `client` looked at when `at` has come, or earlier. Gives the moment chosen.
    pub fn insert(&self, at: u64, now: Now, client: Weak<Client>) -> u64 {
        let at = at.min(now.mono_ms + HORIZON_MS).max(now.mono_ms);
        let slot = at.div_ceil(TICK_MS) * TICK_MS;
        self.due.lock().entry(slot).or_default().push(client);
        at
    }

    fn take_due(&self, now: Now) -> Vec<Weak<Client>> {
        let mut due = self.due.lock();
        let later = due.split_off(&(now.mono_ms + 1));
        std::mem::replace(&mut *due, later).into_values().flatten().collect()
    }
}

const TICK_MS: u64 = TICK.as_millis() as u64;

/// Looks at everything that is due, for as long as the broker lives.
pub async fn run(broker: Arc<Broker>) {
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut attempts_due = 0;
    loop {
        ticks.tick().await;
        clock::refresh();
        let now = clock::now();
        for client in broker.sweeper.take_due(now).iter().filter_map(Weak::upgrade) {
            broker.handle_timeout(&client, now);
        }
        broker.routes.drop_stale(TICKS_PER_ROUND);
        {
            let _burst = broker.begin();
            broker.retained.expire(now.mono_ms, RETAINED_PER_TICK);
            broker.banned.expire(now);
        }
        let limits = broker.limits();
        broker.flapping.expire(&limits.flapping, now);
        if now.mono_ms >= attempts_due {
            broker.attempts.lock().expire(&limits.attempts, now);
            attempts_due = now.mono_ms + ATTEMPTS_EVERY_MS;
        }
        broker.fetch_keys(now);
        broker.write_upgrades(now);
        broker.publish_delayed(now).await;
        broker.publish_sys(now);
    }
}
