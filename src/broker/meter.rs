//! Measures the load of the process and puts the answer of [`super::overload`] in force. One timer for the broker;
//! a measurement reads one small file.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use crate::broker::Broker;
use crate::broker::Limits;
use crate::broker::events::event::What;
use crate::broker::keep::trouble_text;
use crate::broker::overload::Lag;
use crate::broker::overload::Memory;
use crate::config::settings::MemoryCeiling;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::LoadLevel;
use crate::net::clock;
use crate::net::memory;
use crate::storage::store::Trouble;
use crate::time::Now;

/// How often, unless much was received.
const TICK: Duration = Duration::from_millis(250);
/// How long the store has to work before that is told.
const STORE_WORKS_MS: u64 = 5_000;

/// Measures for as long as the broker lives.
pub async fn run(broker: Arc<Broker>) {
    let mut watch = Watch {
        limits: broker.limits(),
        memory: None,
        lag: Lag::default(),
        late: false,
        store: StoreWatch::default(),
    };
    watch.take_ceiling(&broker);
    loop {
        let before = clock::now().mono_ms;
        let ticked = time::timeout(TICK, broker.load.measure.notified()).await.is_err();
        let limits = broker.limits();
        if !Arc::ptr_eq(&limits, &watch.limits) {
            watch.limits = limits;
            watch.take_ceiling(&broker);
        }
        if ticked {
            let waited = clock::now().mono_ms.saturating_sub(before);
            watch.observe_lag(&broker, waited.saturating_sub(TICK.as_millis() as u64));
        }
        watch.observe_memory(&broker);
        watch.observe_store(&broker, clock::now());
    }
}

struct Watch {
    limits: Arc<Limits>,
    /// None without a ceiling, or where nobody can tell what is resident.
    memory: Option<Memory>,
    lag: Lag,
    late: bool,
    store: StoreWatch,
}

/// What was told of the store.
#[derive(Debug, Default)]
struct StoreWatch {
    told: Option<Trouble>,
    /// Since when it works again, on the monotonic clock.
    works_since_ms: Option<u64>,
}

impl StoreWatch {
    /// How it is now, if that is to be told. That it works is told once it has for a while: a disk that is slow every
    /// other moment would tell little else.
    fn observe(&mut self, trouble: Option<Trouble>, now_ms: u64) -> Option<Option<Trouble>> {
        if trouble.is_some() || self.told.is_none() {
            self.works_since_ms = None;
        } else if now_ms < *self.works_since_ms.get_or_insert(now_ms) + STORE_WORKS_MS {
            return None;
        }
        (trouble != self.told).then(|| {
            self.told = trouble;
            trouble
        })
    }
}

impl Watch {
    /// The ceiling of the settings in force. The level is found anew.
    fn take_ceiling(&mut self, broker: &Broker) {
        let ceiling = match self.limits.overload.max_memory {
            MemoryCeiling::Infinity => None,
            MemoryCeiling::Bytes(bytes) => Some(bytes),
            MemoryCeiling::Percent(percent) => {
                memory::available().map(|available| available / 100 * u64::from(percent))
            }
        };
        if ceiling == self.memory.as_ref().map(Memory::ceiling) {
            return;
        }
        broker.metrics.broker.memory_ceiling.set_count(ceiling.unwrap_or(0));
        self.memory = ceiling.map(Memory::new);
        if self.memory.is_none() {
            broker.load.set_level(LoadLevel::Normal);
            broker.metrics.broker.load_level.set(LoadLevel::Normal);
        }
    }

    fn observe_memory(&mut self, broker: &Broker) {
        let Some(resident) = memory::resident() else { return };
        broker.metrics.broker.memory_resident.set_count(resident);
        let Some(memory) = &mut self.memory else { return };
        let held = if memory.wants_held(resident) { broker.held_bytes() } else { 0 };
        let (before, level) = (broker.load.level(), memory.observe(resident, held));
        if level == before {
            return;
        }
        broker.load.set_level(level);
        broker.metrics.broker.load_level.set(level);
        let (level, ceiling) = (level.name(), memory.ceiling());
        if broker.load.refuses_clients().is_some() {
            tracing::warn!(level, resident, held, ceiling, "memory is near overload_protection.max_memory");
        } else {
            tracing::info!(level, resident, held, ceiling, "there is memory again");
        }
        if broker.load.is_critical() {
            broker.shed_qos0();
        }
    }

    fn observe_store(&mut self, broker: &Broker, now: Now) {
        match self.store.observe(broker.trouble(), now.mono_ms) {
            None => {}
            Some(None) => {
                tracing::warn!("the store works again");
                broker.security_note(What::Store { works: true }, "the store works again", now);
            }
            Some(Some(trouble)) => {
                let text = trouble_text(trouble);
                tracing::error!(trouble = trouble.name(), "{text}");
                broker.security_note(What::Store { works: false }, text, now);
            }
        }
    }

    fn observe_lag(&mut self, broker: &Broker, lag_ms: u64) {
        broker.metrics.broker.lag.set_ms(lag_ms);
        let max_ms = self.limits.overload.max_lag.map(|max| max.as_millis() as u64);
        let late = self.lag.observe(lag_ms, max_ms);
        if late == self.late {
            return;
        }
        self.late = late;
        broker.load.set_late(late);
        broker.metrics.broker.lagging.set(i64::from(late));
        if late {
            tracing::warn!(
                lag_ms,
                "the I/O thread is later than overload_protection.max_lag: no new clients"
            );
        } else {
            tracing::info!(lag_ms, "the I/O thread is in time again");
        }
    }
}

impl Broker {
    /// Bytes of the messages held here, without what holds them together. A message that several sessions owe
    /// counts for each.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let of_sessions: usize =
            self.clients.iter().map(|entry| entry.value().lock().session.held_bytes()).sum();
        let stored = of_sessions + self.retained.counts().bytes + self.delayed.bytes();
        stored as u64 + self.links.spooled_bytes()
    }

    /// What nobody was promised goes first.
    fn shed_qos0(&self) {
        let shed: u64 = self.clients.iter().map(|entry| entry.value().lock().session.shed_qos0()).sum();
        self.metrics.broker.messages_dropped[DropReason::Overload].add(shed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_with_the_store_is_told_at_once_and_its_end_after_a_while() {
        let mut watch = StoreWatch::default();
        assert_eq!(watch.observe(None, 0), None);
        assert_eq!(watch.observe(Some(Trouble::Slow), 1), Some(Some(Trouble::Slow)));
        assert_eq!(watch.observe(Some(Trouble::Slow), 2), None);
        assert_eq!(watch.observe(Some(Trouble::Full), 3), Some(Some(Trouble::Full)));
        assert_eq!(watch.observe(None, 10), None);
        assert_eq!(watch.observe(Some(Trouble::Full), 5_000), None, "as it was");
        assert_eq!(watch.observe(None, 6_000), None);
        assert_eq!(watch.observe(None, 10_999), None);
        assert_eq!(watch.observe(None, 11_000), Some(None));
        assert_eq!(watch.observe(None, 11_001), None);
        assert_eq!(watch.observe(Some(Trouble::Failing), 11_002), Some(Some(Trouble::Failing)));
    }
}
