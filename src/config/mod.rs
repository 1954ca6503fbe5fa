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

use std::path::Path;

pub use self::diff::Change;
pub use self::diff::Diff;
pub use self::diff::Members;
pub use self::diff::diff;
pub use self::environment::Environment;
pub use self::error::ConfigError;
pub use self::error::Place;
pub use self::flat::hex;
pub use self::hardened::Point;
pub use self::hardened::hardened;
pub use self::settings::Settings;
pub use self::sources::FILE_BYTES_MAX;
pub use self::sources::LINKS_FILE;
pub use self::sources::Sources;
pub use self::sources::TRUST_FILE;
pub use self::trusted::LINK_CERTIFICATE;
pub use self::trusted::LINK_FOLDER;
pub use self::trusted::LINK_KEY;
pub use self::trusted::told;
pub use self::units::duration;
pub use self::units::network;
pub use self::warnings::warnings;
pub use crate::trust::name::is_cluster_name;

mod authentication;
mod check;
mod diff;
mod document;
mod environment;
mod error;
mod flat;
mod hardened;
pub mod link_table;
mod links;
mod listener_tls;
mod listeners;
mod parse;
mod protection;
mod reader;
mod secrets;
mod sections;
pub mod settings;
mod sources;
mod trusted;
mod units;
mod unsupported;
mod warnings;

/// Reads the file, or the embedded default when there is none, and the links beside it, and reports everything that is
/// wrong.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Settings, Vec<ConfigError>> {
    Sources::read(path, environment)?.settings(environment)
}

/// Reads the text of a file that is called `name` in errors.
pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Settings, Vec<ConfigError>> {
    Sources::of_text(name, text).settings(environment)
}

#[cfg(test)]
mod tests;
