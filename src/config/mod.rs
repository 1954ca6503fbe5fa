//! The configuration file: as written, then the settings as used.
//!
//! One TOML file (`interface.md` section 2), overridden by `TOMBOLO__…` variables, becomes [`Settings`] or a
//! list of errors that each name their place. Nothing here opens a port or parses a certificate.
//!
//! Relative paths in a file are meant from the directory the program runs in, as in EMQX.
//!
//! The way of a value: `document` (text and variables to a tree with places) → `reader`, `parse` (typed,
//! unknown keys refused) → `sections`, `listeners`, `links` (the schema and its defaults) → `check` (what must
//! hold between settings) → `unsupported` (what is not built yet).

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use self::diff::Change;
pub use self::diff::Diff;
pub use self::diff::Members;
pub use self::diff::diff;
pub use self::environment::Environment;
pub use self::error::ConfigError;
pub use self::error::Place;
pub use self::hardened::Point;
pub use self::hardened::hardened;
pub use self::sections::is_cluster_name;
pub use self::settings::Settings;
pub use self::units::duration;
pub use self::units::network;
pub use self::warnings::warnings;

mod authentication;
mod check;
mod diff;
mod document;
mod environment;
mod error;
mod flat;
mod hardened;
mod links;
mod listener_tls;
mod listeners;
mod parse;
mod protection;
mod reader;
mod secrets;
mod sections;
pub mod settings;
mod units;
mod unsupported;
mod warnings;

/// The longest configuration file that is read.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Reads the file, or the embedded default when there is none, and reports everything that is wrong with it.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Settings, Vec<ConfigError>> {
    let Some(path) = path else {
        return read("embedded", "", environment, true);
    };
    let name = path.display().to_string();
    let text = read_file(path).map_err(|message| {
        vec![ConfigError { place: Place::File(name.clone()), key: String::new(), message, hint: None }]
    })?;
    read(&name, &text, environment, false)
}

/// Reads the text of a file that is called `name` in errors.
pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Settings, Vec<ConfigError>> {
    read(name, text, environment, false)
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("cannot read this file: {error}"))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read this file: {error}"))?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= FILE_BYTES_MAX => Ok(text),
        _ => Err(format!("this file is longer than {FILE_BYTES_MAX} bytes")),
    }
}

fn read(
    name: &str,
    text: &str,
    environment: &Environment,
    embedded: bool,
) -> Result<Settings, Vec<ConfigError>> {
    let mut document = document::Document::parse(name, text)?;
    let mut errors = document.apply_variables(&environment.variables);
    let reading = reader::Reading::new(&document, &environment.variables);
    let defaults = sections::Defaults { host_name: &environment.host_name, embedded };
    let settings = sections::settings(&reading, &defaults);
    check::check(&reading, &settings);
    unsupported::refuse(&reading);
    errors.extend(reading.into_errors());
    if errors.is_empty() { Ok(settings) } else { Err(errors) }
}

#[cfg(test)]
mod tests;
