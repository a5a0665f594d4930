//! Addresses that images may come from.

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::{Ipv4Net, Ipv6Net};

/// Blocks of the IANA registry of special-purpose IPv4 addresses that are not the open network, and multicast.
const SPECIAL_IPV4: [&str; 15] = [
    "0.0.0.0/8",       // this network
    "10.0.0.0/8",      // private
    "100.64.0.0/10",   // shared by carrier-grade NAT
    "127.0.0.0/8",     // loopback
    "169.254.0.0/16",  // link-local, and the metadata services of clouds
    "172.16.0.0/12",   // private
    "192.0.0.0/24",    // protocol assignments
    "192.0.2.0/24",    // documentation
    "192.88.99.0/24",  // relays of 6to4
    "192.168.0.0/16",  // private
    "198.18.0.0/15",   // benchmarks
    "198.51.100.0/24", // documentation
    "203.0.113.0/24",  // documentation
    "224.0.0.0/4",     // multicast
    "240.0.0.0/4",     // reserved
];

/// The unicast addresses of the open IPv6 network. What is outside has no business here: loopback, link-local, unique local
/// and multicast addresses, and IPv4 ones that are mapped or translated.
const OPEN_IPV6: &str = "2000::/3";

/// Blocks inside it that are special: protocol assignments with Teredo, documentation, 6to4, documentation.
const SPECIAL_IPV6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

struct Blocks {
    special_ipv4: Vec<Ipv4Net>,
    open_ipv6: Option<Ipv6Net>,
    special_ipv6: Vec<Ipv6Net>,
}

static BLOCKS: LazyLock<Blocks> = LazyLock::new(|| Blocks {
    special_ipv4: SPECIAL_IPV4.iter().filter_map(|block| block.parse().ok()).collect(),
    open_ipv6: OPEN_IPV6.parse().ok(),
    special_ipv6: SPECIAL_IPV6.iter().filter_map(|block| block.parse().ok()).collect(),
});

/// Whether an address is one of the open network, that anybody could ask.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !BLOCKS.special_ipv4.iter().any(|block| block.contains(&address)),
        IpAddr::V6(address) => {
            BLOCKS.open_ipv6.is_some_and(|open| open.contains(&address))
                && !BLOCKS.special_ipv6.iter().any(|block| block.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_read() {
        assert_eq!(BLOCKS.special_ipv4.len(), SPECIAL_IPV4.len());
        assert_eq!(BLOCKS.special_ipv6.len(), SPECIAL_IPV6.len());
        assert!(BLOCKS.open_ipv6.is_some());
    }

    #[test]
    fn special_addresses_are_not_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_open_network_is() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.169.0.0",
            "198.17.255.255",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
