//! A block of IP addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// The block of `address` and its first `length` bits; `None` if there are fewer bits, or if others are set:
    /// such a block is surely not what was meant.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (bits, host_bits) = match address {
            IpAddr::V4(address) => {
                (32, u128::from(address.to_bits().checked_shl(length.into()).unwrap_or(0)))
            }
            IpAddr::V6(address) => (128, address.to_bits().checked_shl(length.into()).unwrap_or(0)),
        };
        (length <= bits && host_bits == 0).then_some(Self { address, length })
    }

    /// The block that is one address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `peer` lies in it. An IPv4 client of an IPv6 socket is an IPv4 client.
    #[must_use]
    pub fn holds(&self, peer: IpAddr) -> bool {
        let length = u32::from(self.length);
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(peer)) => {
                (net.to_bits() ^ peer.to_bits()).checked_shr(32 - length).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(peer)) => {
                (net.to_bits() ^ peer.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// An address, or a block such as `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        crate::config::units::network(text)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_hold_what_begins_alike() {
        let table = [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.0", false),
            ("10.0.0.0", 8, "::ffff:10.1.2.3", true),
            ("10.0.0.0", 8, "::a00:1", false),
            ("0.0.0.0", 0, "203.0.113.9", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("192.0.2.7", 32, "192.0.2.7", true),
            ("192.0.2.7", 32, "192.0.2.6", false),
            ("2001:db8::", 32, "2001:db8:ffff::1", true),
            ("2001:db8::", 32, "2001:db9::", false),
            ("::", 0, "::1", true),
            ("::", 0, "::ffff:10.1.2.3", false),
            ("::1", 128, "::1", true),
        ];
        for (address, length, peer, held) in table {
            let block = Network::new(ip(address), length).unwrap();
            assert_eq!(block.holds(ip(peer)), held, "{block} {peer}");
        }
        assert!(Network::of(ip("::1")).holds(ip("::1")) && !Network::of(ip("::1")).holds(ip("::2")));
    }

    #[test]
    fn blocks_that_are_none() {
        for (address, length) in [("10.0.0.1", 8), ("10.0.0.0", 33), ("2001:db8::1", 64), ("::", 129)] {
            assert_eq!(Network::new(ip(address), length), None, "{address}/{length}");
        }
    }
}
