//! Where a connection comes from, as rules, logs and operators see it.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;

/// The other end of a connection.
///
/// A client of a Unix domain socket has no address. It is not taken for 127.0.0.1: a container or a proxy may stand behind
/// the socket, and a rule that trusts the machine's own address was not written for them. So no `{ipaddr, …}` matches
/// it, `{listener, "unix:…"}` does, and a peer that proves itself by its loopback address alone is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddr {
    /// An address and port; behind a trusted proxy, what the proxy told.
    Ip(SocketAddr),
    /// A Unix domain socket.
    Unix,
}

impl PeerAddr {
    /// The IP address, if there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }

    /// Address and port, if there are any.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix => None,
        }
    }

    /// Whether it is a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_is_a_loopback_address() {
        let at = |text: &str| PeerAddr::from(text.parse::<SocketAddr>().unwrap());
        assert!(at("127.9.9.9:1").is_loopback() && at("[::1]:1").is_loopback());
        assert!(at("[::ffff:127.0.0.1]:1").is_loopback() && !at("10.0.0.1:1").is_loopback());
        assert!(!PeerAddr::Unix.is_loopback() && PeerAddr::Unix.ip().is_none());
        assert_eq!(
            (at("10.0.0.1:1").to_string(), PeerAddr::Unix.to_string()),
            ("10.0.0.1:1".into(), "unix".into())
        );
    }
}
