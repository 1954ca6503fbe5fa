//! `tombolo serve`: settings, logging, then the broker until a signal ends it.

use std::future;
use std::path::Path;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix;
use tokio::signal::unix::SignalKind;
use tokio::time;

use super::Exit;
use super::Failure;
use super::settings;
use crate::admin::logging;
use crate::admin::logging::Logging;
use crate::admin::node::Node;
use crate::admin::systemd::ServiceManager;
use crate::config;
use crate::config::Environment;
use crate::config::Settings;

/// A stop that takes longer is ended (`interface.md` section 5).
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Threads for hashing and name resolution. The C library's allocator keeps the 19 MiB of a hash for each
/// thread that ever made one, so there must not be many.
const BLOCKING_THREADS: usize = 4;

/// Runs a broker with this configuration, or with the embedded default.
pub fn serve(path: Option<&Path>) -> Result<(), Failure> {
    let settings = settings(path)?;
    let logging = logging::start(&settings.log).map_err(|message| Failure::new(Exit::Other, message))?;
    for line in config::warnings(&settings) {
        tracing::warn!("{line}");
    }
    // One thread does all input and output: the cheapest per message as long as one core suffices. Password
    // hashing and name resolution have threads of their own.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::new(Exit::Other, format!("cannot start the runtime: {error}")))?;
    runtime.block_on(run(path, settings, &logging))
}

async fn run(path: Option<&Path>, settings: Settings, logging: &Logging) -> Result<(), Failure> {
    let manager = ServiceManager::of(&Environment::of_process());
    let mut signals =
        Signals::new().map_err(|error| Failure::new(Exit::Other, format!("signals: {error}")))?;
    let cluster = settings.cluster.name.clone();
    let mut node =
        Node::start(settings).await.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    tracing::info!(cluster, version = env!("CARGO_PKG_VERSION"), "ready");
    manager.notify("READY=1");
    loop {
        match signals.next(manager.heartbeat()).await {
            Event::Alive => manager.notify("WATCHDOG=1"),
            Event::Reload => {
                manager.notify("RELOADING=1");
                reload(&mut node, path, logging).await;
                manager.notify("READY=1");
            }
            Event::Stop => break,
        }
    }
    manager.notify("STOPPING=1");
    tracing::info!("stopping");
    tokio::select! {
        stopped = time::timeout(STOP_LIMIT, node.stop()) => {
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
async fn reload(node: &mut Node, path: Option<&Path>, logging: &Logging) {
    let settings = match config::load(path, &Environment::of_process()) {
        Ok(settings) => settings,
        Err(errors) => {
            errors.iter().for_each(|error| tracing::error!("reload refused: {error}"));
            return;
        }
    };
    let log = settings.log.clone();
    match node.reload(settings).await {
        Ok(diff) => {
            diff.changes.iter().for_each(|change| tracing::info!("reload: {change}"));
            tracing::info!(changes = diff.changes.len(), "reloaded");
            if diff.log
                && let Err(error) = logging.set_level(&log.level)
            {
                tracing::error!("{error}");
            }
        }
        Err(error) => error.to_string().lines().for_each(|line| tracing::error!("reload refused: {line}")),
    }
}

enum Event {
    Alive,
    Reload,
    Stop,
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, heartbeat: Option<Duration>) -> Event {
        let alive = async {
            match heartbeat {
                Some(interval) => time::sleep(interval).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.terminate.recv() => Event::Stop,
            _ = self.hang_up.recv() => Event::Reload,
            () = alive => Event::Alive,
        }
    }
}
