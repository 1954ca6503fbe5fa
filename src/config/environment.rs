//! The process's surroundings as values: the one place that reads the environment.

use std::collections::BTreeMap;

/// What a configuration may depend on beside its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Environment variables: overrides (`TOMBOLO__…`) and sources of secrets (`${env:VAR}`).
    pub variables: BTreeMap<String, String>,
    /// The name of this machine, from which the embedded default takes the cluster's name.
    pub host_name: String,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let host_name = ["/proc/sys/kernel/hostname", "/etc/hostname"]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .map(|name| name.trim().to_owned())
            .unwrap_or_default();
        Self { variables, host_name }
    }
}
