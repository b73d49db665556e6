//! From kernel keys to the names that operators gave, or to names that explain themselves.

use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use graylag_ebpf::key::{Address, PathKey, Role, V4_MAPPED};

use crate::model::{OTHER, Path, Subject};

/// A configured peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerName {
    /// Its name.
    pub name: Arc<str>,
    /// Whether each of its addresses is a path of its own.
    pub per_address: bool,
}

/// A configured service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its name.
    pub name: Arc<str>,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Which end this host is.
    pub role: Role,
    /// Its ports.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// All configured names.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// Peers by the identifier the kernel knows them by. A reload keeps the identifier of a name.
    pub peers: HashMap<u16, PeerName>,
    /// Services, first match wins.
    pub services: Vec<ServiceName>,
}

impl Naming {
    /// Name of what a kernel key stands for.
    pub fn subject(&self, key: &PathKey) -> Subject {
        if key.is_other() {
            return Subject { path: Path::other(), service: OTHER.into(), role: key.role() };
        }
        let path = self.path(key.address, key.prefix, (key.peer != 0).then_some(key.peer));
        Subject { path, service: self.service("tcp", key.port, key.role()), role: key.role() }
    }

    /// Name of a remote prefix, or of the configured peer it belongs to.
    pub fn path(&self, words: Address, bits: u8, peer: Option<u16>) -> Path {
        let address = address(words);
        match peer.and_then(|peer| self.peers.get(&peer)) {
            Some(peer) => Path { peer: peer.name.clone(), address: peer.per_address.then_some(address) },
            None => Path { peer: prefix(address, bits).into(), address: None },
        }
    }

    /// Name of a service by its port.
    pub fn service(&self, transport: &'static str, port: u16, role: Role) -> Arc<str> {
        self.services
            .iter()
            .find(|s| {
                s.transport == transport
                    && s.role == role
                    && s.ports.iter().any(|range| range.contains(&port))
            })
            .map_or_else(|| format!("{transport}/{port}").into(), |s| s.name.clone())
    }
}

/// An address out of a kernel key.
pub fn address(words: Address) -> IpAddr {
    if words[..2] == [0, 0] && words[2] == V4_MAPPED {
        return Ipv4Addr::from(words[3].to_ne_bytes()).into();
    }
    let bytes: [u8; 16] = bytemuck::cast(words);
    Ipv6Addr::from(bytes).into()
}

/// `10.1.2.0/24`, or the plain address where all bits count.
fn prefix(address: IpAddr, bits: u8) -> String {
    match address {
        IpAddr::V4(v4) if bits == 128 => v4.to_string(),
        IpAddr::V4(v4) => format!("{v4}/{}", bits.saturating_sub(96)),
        IpAddr::V6(v6) if bits == 128 => v6.to_string(),
        IpAddr::V6(v6) => format!("{v6}/{bits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: IpAddr, prefix: u8, port: u16, peer: u16, role: Role) -> PathKey {
        let words = match address {
            IpAddr::V4(v4) => [0, 0, V4_MAPPED, u32::from_ne_bytes(v4.octets())],
            IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
        };
        PathKey { address: words, netns: 1, port, peer, prefix, role: role as u8, reserved: [0; 2] }
    }

    #[test]
    fn names_explain_themselves() {
        let mut naming = Naming::default();
        naming.peers.insert(1, PeerName { name: "lb".into(), per_address: true });
        naming.peers.insert(2, PeerName { name: "office".into(), per_address: false });
        naming.services.push(ServiceName {
            name: "rooms-db".into(),
            transport: "tcp",
            role: Role::Client,
            ports: vec![26257..=26257],
        });
        let show = |key| naming.subject(&key).path.to_string() + " " + &naming.subject(&key).service;
        let v4 = "10.1.2.3".parse().unwrap();
        let v6 = "2001:db8::".parse().unwrap();
        assert_eq!(show(key(v4, 128, 26257, 0, Role::Client)), "10.1.2.3 rooms-db");
        assert_eq!(show(key(v4, 128, 26257, 0, Role::Server)), "10.1.2.3 tcp/26257");
        assert_eq!(show(key("10.1.2.0".parse().unwrap(), 120, 443, 0, Role::Server)), "10.1.2.0/24 tcp/443");
        assert_eq!(show(key(v6, 48, 443, 0, Role::Server)), "2001:db8::/48 tcp/443");
        assert_eq!(show(key(v4, 128, 443, 1, Role::Client)), "lb 10.1.2.3 tcp/443");
        assert_eq!(show(key(v4, 0, 443, 2, Role::Client)), "office tcp/443");
        assert_eq!(show(PathKey::other(Role::Server)), "~other ~other");
    }
}
