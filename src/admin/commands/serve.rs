//! `tombolo serve`: settings, logging, then the broker until a signal ends it.

use std::future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix;
use tokio::signal::unix::SignalKind;
use tokio::time;
use tokio::time::Interval;
use tokio::time::MissedTickBehavior;

use super::Exit;
use super::Failure;
use crate::admin::logging;
use crate::admin::logging::Logging;
use crate::admin::node::Node;
use crate::admin::rest::Change;
use crate::admin::rest::Reloaded;
use crate::admin::steward::Steward;
use crate::admin::steward::TICK;
use crate::admin::systemd::ServiceManager;
use crate::broker::events::event::What;
use crate::broker::threads::BLOCKING_THREADS;
use crate::config;
use crate::config::Environment;
use crate::config::Settings;
use crate::config::Sources;
use crate::metrics::labels::Outcome;
use crate::net::clock;
use crate::net::descriptors;

/// A stop that takes longer is ended (`interface.md` section 5).
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Runs a broker with this configuration, or with the embedded default.
pub fn serve(path: Option<&Path>) -> Result<(), Failure> {
    let sources =
        Sources::read(path, &Environment::of_process()).map_err(|errors| Failure::config(&errors))?;
    let settings = sources.settings(&Environment::of_process()).map_err(|errors| Failure::config(&errors))?;
    let logging = logging::start(&settings.log).map_err(|message| Failure::new(Exit::Other, message))?;
    for line in config::warnings(&settings) {
        tracing::warn!("{line}");
    }
    tracing::debug!(limit = descriptors::raise_limit(), "file descriptors");
    // The first thread for input and output is this one. Password hashing and name resolution have their own.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::new(Exit::Other, format!("cannot start the runtime: {error}")))?;
    runtime.block_on(run(path, sources, settings, &logging))
}

async fn run(
    path: Option<&Path>,
    sources: Sources,
    settings: Settings,
    logging: &Logging,
) -> Result<(), Failure> {
    let manager = ServiceManager::of(&Environment::of_process());
    let mut signals = Signals::new(manager.heartbeat())
        .map_err(|error| Failure::new(Exit::Other, format!("signals: {error}")))?;
    let cluster = settings.cluster.name.clone();
    let mut steward = Steward::start(sources, settings)
        .await
        .map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    tracing::info!(cluster, version = env!("CARGO_PKG_VERSION"), "ready");
    manager.notify("READY=1");
    loop {
        match signals.next(&mut steward).await {
            Event::Alive => manager.notify("WATCHDOG=1"),
            Event::Reload => {
                let _ = reload(&mut steward, path, logging, &manager).await; // the log has it
            }
            Event::Change(change) => {
                if let Some(Change::Reload(answer)) = steward.make(change).await {
                    let outcome = reload(&mut steward, path, logging, &manager).await;
                    // Whoever asked may be gone by now; the log has it too.
                    let _ = answer.send(outcome);
                }
            }
            Event::Tick => steward.tick().await,
            Event::Stop => break,
        }
    }
    manager.notify("STOPPING=1");
    tracing::info!("stopping");
    tokio::select! {
        stopped = time::timeout(STOP_LIMIT, steward.stop()) => {
            if stopped.is_err() {
                tracing::warn!("not everything ended in time");
            }
        }
        // A second request to stop is one to stop at once.
        _ = signals.interrupt.recv() => {}
    }
    Ok(())
}

/// All or nothing: a bad file leaves the old configuration in force, and says so.
async fn reload(
    steward: &mut Steward,
    path: Option<&Path>,
    logging: &Logging,
    manager: &ServiceManager,
) -> Reloaded {
    manager.notify("RELOADING=1");
    let outcome = try_reload(&mut steward.node, path, &mut steward.sources, logging).await;
    manager.notify("READY=1");
    match &outcome {
        Ok(changes) => {
            changes.iter().for_each(|change| tracing::info!("reload: {change}"));
            tracing::info!(changes = changes.len(), "reloaded");
        }
        Err(errors) => errors.iter().for_each(|error| tracing::error!("reload refused: {error}")),
    }
    outcome
}

async fn try_reload(
    node: &mut Node,
    path: Option<&Path>,
    sources: &mut Sources,
    logging: &Logging,
) -> Reloaded {
    let environment = Environment::of_process();
    let read = Sources::read(path, &environment)
        .and_then(|sources| sources.settings(&environment).map(|settings| (sources, settings)));
    let (new_sources, settings) = read.map_err(|errors| {
        // What follows counts itself.
        let broker = node.server().broker();
        broker.metrics.broker.config_reloads[Outcome::Error].inc();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        broker.security_note(What::ConfigReload { taken: false }, &errors.join("\n"), clock::now());
        errors
    })?;
    let log = settings.log.clone();
    let diff = node
        .reload(settings)
        .await
        .map_err(|error| error.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
    *sources = new_sources;
    if let Some((_, book)) = sources.trust() {
        node.shelf().set(Arc::clone(book));
    }
    if diff.log
        && let Err(error) = logging.set_level(&log.level)
    {
        tracing::error!("{error}");
    }
    let rules = diff.rules.iter().map(|line| format!("ACL {line}"));
    Ok(diff.changes.iter().map(ToString::to_string).chain(rules).collect())
}

enum Event {
    Alive,
    Reload,
    Change(Change),
    /// Time has passed.
    Tick,
    Stop,
}

fn every(period: Duration) -> Interval {
    let mut interval = time::interval_at(time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
    /// None of these begins anew because another came first.
    tick: Interval,
    alive: Option<Interval>,
}

impl Signals {
    fn new(heartbeat: Option<Duration>) -> std::io::Result<Self> {
        Ok(Self {
            tick: every(TICK),
            alive: heartbeat.map(every),
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, steward: &mut Steward) -> Event {
        let alive = async {
            match &mut self.alive {
                Some(alive) => drop(alive.tick().await),
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.terminate.recv() => Event::Stop,
            _ = self.hang_up.recv() => Event::Reload,
            Some(change) = steward.next() => Event::Change(change),
            () = alive => Event::Alive,
            _ = self.tick.tick() => Event::Tick,
        }
    }
}
