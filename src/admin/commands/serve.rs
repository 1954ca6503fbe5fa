//! `tombolo serve`: settings, logging, then the broker until a signal ends it.

use std::path::Path;

use super::Exit;
use super::Failure;
use super::settings;
use crate::admin::logging;
use crate::config;
use crate::config::Settings;

/// Runs a broker with this configuration, or with the embedded default.
pub fn serve(config: Option<&Path>) -> Result<(), Failure> {
    let settings = settings(config)?;
    let logging = logging::start(&settings.log).map_err(|message| Failure::new(Exit::Other, message))?;
    for line in config::warnings(&settings) {
        tracing::warn!("{line}");
    }
    run(settings, logging)
}

// SEAM: the broker is started here, in a runtime of its own; `logging` takes a new level on reload.
fn run(settings: Settings, _logging: logging::Logging) -> Result<(), Failure> {
    let name = settings.cluster.name;
    Err(Failure::new(Exit::Other, format!("cluster {name}: this build holds no broker to run")))
}
