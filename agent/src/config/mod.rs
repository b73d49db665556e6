//! The configuration: what is written ([`raw`]) and what is meant ([`Config`]). The only room that knows TOML.

mod address_probe;
mod attribution;
mod check;
mod error;
mod path_map;
mod probe;
pub mod raw;
mod thresholds;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

pub use address_probe::AddressProbe;
pub use attribution::Attribution;
pub use error::ConfigError;
pub use probe::{Stamp, StampProbe, probe_interval};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/graylag/graylag.toml";

/// A configuration that can be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of this node.
    pub node: String,
    /// Network namespaces to watch, all of them where `None`.
    pub namespaces: Option<Vec<Namespace>>,
    /// Significant bits of unnamed addresses: client IPv4, client IPv6, server IPv4, server IPv6, media IPv4, media IPv6.
    pub prefixes: [u8; 6],
    /// Interfaces whose UDP is watched: names, or patterns with `*`.
    pub media_interfaces: Vec<String>,
    /// Named peers.
    pub peers: Vec<Peer>,
    /// Named services, one entry to a role.
    pub services: Vec<Service>,
    /// STAMP.
    pub stamp: Stamp,
    /// TCP and TLS probes.
    pub address_probes: Vec<AddressProbe>,
    /// Bounds.
    pub thresholds: Thresholds,
    /// Where it is asked whose a network namespace is.
    pub attribution: Attribution,
    /// Sizes.
    pub limits: Limits,
    /// Programs not to load.
    pub disabled_programs: BTreeSet<String>,
    /// Whether to measure the programs' run time.
    pub program_stats: bool,
    /// Where the kernel half is pinned.
    pub pin: Option<PathBuf>,
    /// Kernel diagnostics.
    pub kernel_log: KernelLog,
    /// Time between two looks.
    pub interval: Duration,
    /// Unix socket of the local API.
    pub socket: Option<PathBuf>,
    /// Loopback address of the local API.
    pub listen: Option<SocketAddr>,
    /// Where the map of path states is pinned.
    pub path_map: Option<PathBuf>,
    /// What load balancers ask.
    pub node_health: NodeHealth,
}

/// `[node_health]`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    /// Where `/health/node` is served.
    pub listen: Option<SocketAddr>,
    /// Where `HAProxy`'s agent-check is answered.
    pub agent_check: Option<SocketAddr>,
    /// What a gray node keeps of its load, percent.
    pub canary: u8,
}

/// A network namespace by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The agent's own.
    Host,
    /// The one behind this path.
    Path(PathBuf),
}

/// A named peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its prefixes: address and significant bits.
    pub cidrs: Vec<(IpAddr, u8)>,
    /// A path for every address.
    pub per_address: bool,
}

/// A named service, seen from one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Whether this host serves it.
    pub is_server: bool,
    /// Its ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Whether it answers every client; learned where `None`.
    pub answers: Option<bool>,
    /// Exchanges that there should be at least.
    pub rate_floor: Option<Floor>,
}

/// How many exchanges a service should have at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// So many a minute.
    Configured(u32),
    /// As its past says.
    Learned,
}

/// `[thresholds]`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// See the raw form.
    pub handshake_stall: Duration,
    /// See the raw form.
    pub first_byte_stall: Duration,
    /// See the raw form.
    pub response_slow: Duration,
    /// See the raw form.
    pub relay_learning: Duration,
    /// See the raw form.
    pub silence_learning: Duration,
    /// See the raw form.
    pub reroute: Duration,
    /// See the raw form.
    pub lease: Duration,
}

/// `[limits]`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See the raw form.
    pub connections: u32,
    /// See the raw form.
    pub half_open: u32,
    /// See the raw form.
    pub paths: u32,
    /// See the raw form.
    pub flows: u32,
    /// See the raw form.
    pub subjects: u32,
    /// See the raw form.
    pub pods: u32,
}

/// How much the kernel programs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelLog {
    /// Nothing; the code is not even there.
    Off,
    /// What is lost.
    Warn,
    /// Rare events: adopted connections, peers resolved.
    Info,
    /// Every attempt and its end.
    Debug,
}

impl Config {
    /// Reads a file; without one, [`DEFAULT_PATH`] where it exists, else the defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let path = match path {
            Some(path) => path,
            None if Path::new(DEFAULT_PATH).exists() => Path::new(DEFAULT_PATH),
            None => return Self::parse("", None),
        };
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: Some(path.to_owned()),
            line: 0,
            field: String::new(),
            problem: format!("cannot be read: {error}"),
            remedy: "name another file with --config".into(),
        })?;
        Self::parse(&text, Some(path))
    }

    /// Checks a text.
    pub fn parse(text: &str, path: Option<&Path>) -> Result<Self, ConfigError> {
        let source = error::Source { path: path.map(Path::to_owned), text };
        let raw: raw::Raw = toml::from_str(text).map_err(|error| source.toml_error(&error))?;
        check::checked(&raw, &source)
    }

    /// The configuration with every default filled in, as TOML.
    pub fn print(path: Option<&Path>) -> anyhow::Result<String> {
        // What does not pass the check is not printed as if it could be used.
        Self::load(path)?;
        let path =
            path.map(Path::to_owned).or_else(|| Some(DEFAULT_PATH.into()).filter(|p: &PathBuf| p.exists()));
        let text = path.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
        Ok(toml::to_string_pretty(&toml::from_str::<raw::Raw>(&text)?)?)
    }
}
