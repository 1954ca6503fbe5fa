//! Tells systemd how it goes (`sd_notify(3)`): READY, RELOADING, STOPPING and the watchdog. Without
//! `NOTIFY_SOCKET` in the environment all of it does nothing.

use std::time::Duration;

use crate::config::Environment;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<String>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// What the environment says.
    #[must_use]
    pub fn of(environment: &Environment) -> Self {
        let variable = |name: &str| environment.variables.get(name).cloned();
        let watchdog_us = variable("WATCHDOG_USEC").and_then(|value| value.parse::<u64>().ok());
        Self {
            socket: variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
            watchdog: watchdog_us.filter(|micros| *micros > 0).map(Duration::from_micros),
        }
    }

    /// Sends one state.
    pub fn notify(&self, state: &str) {
        let Some(path) = &self.socket else { return };
        if let Err(error) = send(path, state) {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }

    /// How often to say that we are alive: twice per watchdog interval.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.socket.as_ref().and(self.watchdog).map(|interval| interval / 2)
    }
}

#[cfg(target_os = "linux")]
fn send(path: &str, state: &str) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    use std::os::unix::net::UnixDatagram;

    let socket = UnixDatagram::unbound()?;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(not(target_os = "linux"))]
fn send(_path: &str, _state: &str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn states_reach_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut environment = Environment::default();
        environment.variables.insert("NOTIFY_SOCKET".into(), path.display().to_string());
        environment.variables.insert("WATCHDOG_USEC".into(), "2000000".into());
        let manager = ServiceManager::of(&environment);
        manager.notify("READY=1");
        let mut buffer = [0; 32];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        assert_eq!(manager.heartbeat(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn without_a_socket_nothing_happens() {
        let manager = ServiceManager::of(&Environment::default());
        manager.notify("READY=1");
        assert_eq!(manager.heartbeat(), None);
    }
}
