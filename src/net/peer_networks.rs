//! Where a link may be dialled that a peer told us of (trust.md 2.4): whoever tells addresses must not be able to have us
//! knock at what only this machine can reach. A name is resolved once, and what
//! is dialled is what was checked.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use tokio::net::lookup_host;

use crate::config::settings::Network;

/// Where clouds tell machines their secrets.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// The first 96 bits of addresses that a translator turns into IPv4 ones (RFC 6052).
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// What an address is that is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// This machine.
    Loopback,
    /// Only this cable.
    LinkLocal,
    /// Many machines.
    Multicast,
    /// None in particular, which means this machine.
    Unspecified,
    /// A cloud's service for machines.
    Metadata,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Unspecified => "an unspecified address",
            Self::Metadata => "the address of a metadata service",
        })
    }
}

/// Whether an address that a peer told may be dialled: one that is ordinary, or that lies in a block of
/// `link.allowed_peer_networks`. A metadata service must be listed by itself.
///
/// # Errors
/// What else it is.
pub fn check_peer_address(address: IpAddr, allowed: &[Network]) -> Result<(), Forbidden> {
    let address = reached(address);
    let Some(kind) = kind(address) else { return Ok(()) };
    let listed = if kind == Forbidden::Metadata {
        allowed.contains(&Network::of(address))
    } else {
        allowed.iter().any(|block| block.holds(address))
    };
    if listed { Ok(()) } else { Err(kind) }
}

/// Why a server has no address that is dialled.
#[derive(Debug, thiserror::Error)]
pub enum NoAddress {
    /// Its name has none.
    #[error("{0}")]
    Name(#[from] io::Error),
    /// It has only others.
    #[error(
        "{0} is {1}, and only the peer says that it is there: link.allowed_peer_networks does not hold it"
    )]
    Forbidden(IpAddr, Forbidden),
}

/// The addresses of a server, resolved once. Of one that a peer has named (`allowed` says where it may be beside ordinary
/// addresses) only those that may be dialled.
///
/// # Errors
/// If there are none.
pub async fn resolve(
    host: &str,
    port: u16,
    allowed: Option<&[Network]>,
) -> Result<Vec<SocketAddr>, NoAddress> {
    let mut open = Vec::new();
    let mut forbidden = None;
    for address in lookup_host((host, port)).await? {
        match allowed.map_or(Ok(()), |allowed| check_peer_address(address.ip(), allowed)) {
            Ok(()) => open.push(address),
            Err(kind) => forbidden = Some((address.ip(), kind)),
        }
    }
    if open.is_empty() {
        return Err(match forbidden {
            Some((address, kind)) => NoAddress::Forbidden(address, kind),
            None => NoAddress::Name(io::ErrorKind::NotFound.into()),
        });
    }
    Ok(open)
}

/// The address that is reached in the end.
fn reached(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == TRANSLATED => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        other => other,
    }
}

fn kind(address: IpAddr) -> Option<Forbidden> {
    let table = match address {
        IpAddr::V4(v4) => [
            (METADATA_V4.contains(&v4), Forbidden::Metadata),
            (v4.is_loopback(), Forbidden::Loopback),
            (v4.is_link_local(), Forbidden::LinkLocal),
            (v4.is_multicast() || v4.is_broadcast(), Forbidden::Multicast),
            (v4.octets()[0] == 0, Forbidden::Unspecified),
        ],
        IpAddr::V6(v6) => [
            (v6 == METADATA_V6, Forbidden::Metadata),
            (v6.is_loopback(), Forbidden::Loopback),
            (v6.is_unicast_link_local(), Forbidden::LinkLocal),
            (v6.is_multicast(), Forbidden::Multicast),
            (v6.is_unspecified(), Forbidden::Unspecified),
        ],
    };
    table.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_only_this_machine_can_reach_is_not_dialled() {
        use Forbidden::LinkLocal;
        use Forbidden::Loopback;
        use Forbidden::Metadata;
        use Forbidden::Multicast;
        use Forbidden::Unspecified;
        let table = [
            ("192.0.2.1", None),
            ("10.0.0.1", None),
            ("2001:db8::1", None),
            ("fd00::1", None),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.0.9", Some(Loopback)),
            ("::1", Some(Loopback)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("64:ff9b::7f00:1", Some(Loopback)),
            ("64:ff9b::a9fe:a9fe", Some(Metadata)),
            ("64:ff9b::c000:201", None),
            ("169.254.1.1", Some(LinkLocal)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata)),
            ("::ffff:169.254.169.254", Some(Metadata)),
            ("fd00:ec2::254", Some(Metadata)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("255.255.255.255", Some(Multicast)),
            ("ff02::1", Some(Multicast)),
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("::", Some(Unspecified)),
        ];
        for (address, forbidden) in table {
            assert_eq!(check_peer_address(ip(address), &[]).err(), forbidden, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_is_dialled_where_it_leads_and_not_for_what_it_is_called() {
        let loopback: [Network; 2] = ["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        for host in ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let error = resolve(host, 1, Some(&[])).await.unwrap_err();
            assert!(matches!(error, NoAddress::Forbidden(_, Forbidden::Loopback)), "{host}: {error}");
            assert!(!resolve(host, 1, Some(&loopback)).await.unwrap().is_empty(), "{host}");
            assert!(!resolve(host, 1, None).await.unwrap().is_empty(), "{host}: an operator named it");
        }
        let error = resolve("169.254.169.254", 80, Some(&loopback)).await.unwrap_err().to_string();
        assert!(error.starts_with("169.254.169.254 is the address of a metadata service"), "{error}");
    }

    #[test]
    fn a_listed_block_is_dialled_and_a_metadata_service_only_by_itself() {
        let blocks = |list: &[&str]| list.iter().map(|one| one.parse().unwrap()).collect::<Vec<Network>>();
        let table: [(&str, &[&str], bool); 7] = [
            ("127.0.0.1", &["127.0.0.0/8"], true),
            ("::ffff:127.0.0.1", &["10.0.0.0/8", "127.0.0.1"], true),
            ("127.0.0.2", &["127.0.0.1"], false),
            ("169.254.1.1", &["169.254.0.0/16"], true),
            ("169.254.169.254", &["169.254.0.0/16"], false),
            ("169.254.169.254", &["0.0.0.0/0"], false),
            ("169.254.169.254", &["169.254.169.254"], true),
        ];
        for (address, allowed, dialled) in table {
            assert_eq!(check_peer_address(ip(address), &blocks(allowed)).is_ok(), dialled, "{address}");
        }
    }
}
