//! Addresses of servers; as tokens and requests name them they are `host:port` or `[v6]:port`, with nothing left to guess.

use std::fmt;
use std::net::IpAddr;

/// Addresses of one cluster.
pub const ADDRESSES_MAX: usize = 16;
/// The longest host name (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A host name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerAddr {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl ServerAddr {
    /// Whether it can only be this machine: a loopback address or `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads an address with its port. The port has no leading zero, so that one address has one form.
#[must_use]
pub fn parse(text: &str) -> Option<ServerAddr> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, port) = inside.split_once("]:")?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = text.split_once(':')?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            (!host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(plain)).then_some(())?;
            (host, port)
        }
    };
    let number: u16 = port.parse().ok().filter(|number| *number > 0)?;
    (number.to_string() == port).then(|| ServerAddr { host: host.to_owned(), port: number })
}

/// Reads a list of 1 to [`ADDRESSES_MAX`] addresses, or none if `may_be_empty`.
#[must_use]
pub fn parse_all(texts: &[impl AsRef<str>], may_be_empty: bool) -> Option<Vec<ServerAddr>> {
    if texts.len() > ADDRESSES_MAX || (texts.is_empty() && !may_be_empty) {
        return None;
    }
    texts.iter().map(|text| parse(text.as_ref())).collect()
}

/// As they are written.
#[must_use]
pub fn texts(addresses: &[ServerAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let good = [
            ("b.example.net:8883", "b.example.net"),
            ("10.0.0.1:8883", "10.0.0.1"),
            ("[::1]:8883", "::1"),
            ("[2001:db8::2]:8883", "2001:db8::2"),
        ];
        for (text, host) in good {
            assert_eq!(parse(text), Some(ServerAddr { host: host.into(), port: 8883 }), "{text}");
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "b",
            ":1",
            "b:",
            "b:0",
            "b:65536",
            "b:+1",
            "b:01",
            "b:1 ",
            "b c:1",
            "a/b:1",
            "::1",
            "::1:8883",
            "[::1]",
            "[b]:1",
            "[]:1",
            "[::1]x:1",
            "mqtts://b:1",
            "b:1:2",
            "é:1",
            "b\n:1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("{}:1", "x".repeat(254))), None);
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(parse_all(&["a:1"; 16], false).map(|all| all.len()), Some(16));
        assert_eq!(parse_all(&["a:1"; 17], false), None);
        assert_eq!(parse_all(&[""; 0], false), None);
        assert_eq!(parse_all(&[""; 0], true), Some(Vec::new()));
        assert_eq!(parse_all(&["a:1", "a"], true), None);
        assert_eq!(texts(&parse_all(&["a:1", "[::]:2"], false).unwrap()), ["a:1", "[::]:2"]);
    }
}
