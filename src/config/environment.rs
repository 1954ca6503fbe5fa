//! The process's surroundings as values: the one place that reads the environment.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// What a configuration may depend on beside its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Environment variables: overrides (`TOMBOLO__…`) and sources of secrets (`${env:VAR}`).
    pub variables: BTreeMap<String, String>,
    /// The name of this machine, from which the embedded default takes the cluster's name.
    pub host_name: String,
    /// The moment as of which it is read, in seconds since the Unix epoch: certificates of peers are good for a time.
    pub unix_seconds: u64,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the moment is part of what surrounds the process, and `net` is above"
    )]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let host_name = ["/proc/sys/kernel/hostname", "/etc/hostname"]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .map(|name| name.trim().to_owned())
            .unwrap_or_default();
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { variables, host_name, unix_seconds: since_epoch.map_or(0, |time| time.as_secs()) }
    }
}
