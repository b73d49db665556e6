//! What a target is, and all addresses that it resolves to.

use std::{io, net::SocketAddr};

use thiserror::Error;
use tokio::net::lookup_host;

pub use crate::model::HostPort as Target;

/// Addresses of one name; beyond it they are left out, and said to be.
pub const MOST_ADDRESSES: usize = 256;

/// Why there is nothing to probe.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// No host and port.
    #[error("`{0}` is no host and port; use e.g. lb.example:443, 192.0.2.1:443 or [2001:db8::1]:443")]
    Target(String),
    /// The resolver does not know it.
    #[error(
        "{0} does not resolve: {1}; is the name right, and does /etc/resolv.conf name a resolver that knows it?"
    )]
    Lookup(String, io::Error),
    /// It has no address.
    #[error("{0} has no address")]
    Empty(String),
}

/// A target, as it is written: `host:port`; the port may be left out where there is a usual one.
pub fn target(text: &str, usual: Option<u16>) -> Result<Target, ResolveError> {
    Target::parse(text, usual).ok_or_else(|| ResolveError::Target(text.to_owned()))
}

/// All addresses of a target in their order, each once, at most [`MOST_ADDRESSES`]; and how many were left out. The system's
/// resolver (`getaddrinfo`) does not say how long they hold.
pub async fn resolve(target: &Target) -> Result<(Vec<SocketAddr>, usize), ResolveError> {
    let found = lookup_host((target.host.as_str(), target.port)).await;
    let mut addresses: Vec<SocketAddr> =
        found.map_err(|error| ResolveError::Lookup(target.host.clone(), error))?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(ResolveError::Empty(target.host.clone()));
    }
    let left_out = addresses.len().saturating_sub(MOST_ADDRESSES);
    addresses.truncate(MOST_ADDRESSES);
    Ok((addresses, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let target = |text: &str, usual| {
            Target::parse(text, usual).map(|target| format!("{} {}", target.host, target.port))
        };
        for (text, usual, expected) in [
            ("lb.example:443", None, Some("lb.example 443")),
            ("lb.example", Some(443), Some("lb.example 443")),
            ("192.0.2.1", Some(443), Some("192.0.2.1 443")),
            ("[2001:db8::1]:8443", None, Some("2001:db8::1 8443")),
            ("2001:db8::1", Some(443), Some("2001:db8::1 443")),
            ("lb.example", None, None),
            ("2001:db8::1", None, None),
            ("lb.example:https", Some(443), None),
            ("https://lb.example:443", None, None),
            (":443", None, None),
        ] {
            assert_eq!(target(text, usual).as_deref(), expected, "{text}");
        }
    }
}
