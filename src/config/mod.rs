//! The configuration file: as written, then the settings as used.
//!
//! One TOML file (`interface.md` section 2), overridden by `TOMBOLO__…` variables, becomes [`Settings`] or a
//! list of errors that each name their place. Nothing here opens a port or parses a certificate.

pub mod settings;

pub use settings::Settings;
