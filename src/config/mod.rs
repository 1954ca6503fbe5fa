//! The configuration file: as written, then the settings as used.
