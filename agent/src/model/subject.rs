//! What is judged and reported: a path, a service on it, the role this host plays.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, sync::Arc};

use graylag_ebpf::key::Role;

/// Label of everything that is not named by itself.
pub const OTHER: &str = "~other";

/// This host ↔ a peer, or one address of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Path {
    /// Configured name of the peer, else the prefix, else [`OTHER`]; `graylag.peer.name`.
    pub peer: Arc<str>,
    /// The address, where each address of the peer is a path; `network.peer.address`.
    pub address: Option<IpAddr>,
}

impl Path {
    /// The path that takes the rest.
    pub fn other() -> Self {
        Self { peer: OTHER.into(), address: None }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} {address}", self.peer),
            None => f.write_str(&self.peer),
        }
    }
}

/// One service over one path in one role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// The path.
    pub path: Path,
    /// Configured name of the service, else e.g. `tcp/443`; `graylag.service.name`.
    pub service: Arc<str>,
    /// Which end this host is; `graylag.role`.
    pub role: Role,
}

impl Subject {
    /// `client` or `server`.
    pub const fn role_name(&self) -> &'static str {
        role_name(self.role)
    }
}

/// The value of `graylag.role`.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}
