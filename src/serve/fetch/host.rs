//! Hosts that the operator lets images come from.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use super::address::is_public;

/// A host that images may be fetched from: an exact name, and a port where one is given. Without one the ports of http and
/// https are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHost {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

impl ImageHost {
    /// Whether a URL names this host.
    pub(super) fn allows(&self, url: &Url) -> bool {
        let ports = match self.port {
            Some(port) => url.port_or_known_default() == Some(port),
            None => url.port().is_none(),
        };
        ports && url.host().is_some_and(|host| host.to_owned() == self.host)
    }
}

impl fmt::Display for ImageHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

/// `HOST` or `HOST:PORT`.
impl FromStr for ImageHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, port) = match text.rsplit_once(':') {
            // Colons inside brackets are those of an IPv6 address.
            Some((name, port)) if !port.contains(']') => {
                let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
                (name, Some(port))
            }
            _ => (text, None),
        };
        if name.contains('*') {
            return Err("hosts are exact names; name each of them".to_owned());
        }
        let host = Host::parse(name).map_err(|error| {
            format!("{name:?} is no host name ({error}); expected HOST or HOST:PORT, such as images.example.com")
        })?;
        let address = match host {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        };
        if address.is_some_and(|address| !is_public(address)) {
            return Err("images are fetched from public addresses only, and this is none".to_owned());
        }
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(host: &str, url: &str) -> bool {
        host.parse::<ImageHost>().unwrap().allows(&Url::parse(url).unwrap())
    }

    #[test]
    fn names_are_exact() {
        assert!(allows("example.com", "https://example.com/a.png"));
        assert!(allows("Example.COM", "http://example.com/"));
        assert!(allows("example.com", "https://EXAMPLE.com:443/"));
        assert!(!allows("example.com", "https://www.example.com/"));
        assert!(!allows("example.com", "https://example.com.evil.net/"));
        assert!(!allows("example.com", "https://example.com@evil.net/"));
        assert!(!allows("example.com", "https://notexample.com/"));
        assert!(!allows("example.com", "https://example.com./"));
    }

    #[test]
    fn a_port_is_only_open_where_it_is_named() {
        assert!(!allows("example.com", "https://example.com:8443/"));
        assert!(allows("example.com:8443", "https://example.com:8443/"));
        assert!(!allows("example.com:8443", "https://example.com/"));
        assert!(allows("example.com:80", "http://example.com/"));
        assert!(!allows("example.com:80", "https://example.com/"));
        assert!(allows("[2606:4700::1111]:81", "http://[2606:4700:0::1111]:81/"));
        assert!(allows("8.8.8.8", "http://8.8.8.8/"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (text, reason) in [
            ("", "no host name"),
            ("*.example.com", "exact names"),
            ("https://example.com", "no port"),
            ("example.com/a", "no host name"),
            ("example.com:http", "no port"),
            ("127.0.0.1", "public addresses only"),
            ("0x7f.1:80", "public addresses only"),
            ("[::1]", "public addresses only"),
            ("[::ffff:10.0.0.1]:80", "public addresses only"),
        ] {
            let error = text.parse::<ImageHost>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!("Example.com:81".parse::<ImageHost>().unwrap().to_string(), "example.com:81");
    }
}
